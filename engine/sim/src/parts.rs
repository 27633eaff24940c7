//! The parts of a run that can be taken away: each kind of fault, each kind of odd request, and the handicap.
//!
//! The liveness phase takes all faults away at once. Somebody who looks for the cause of a failure takes them away one
//! by one ([`crate::shrink`]), or by hand.

use std::fmt;
use std::time::Duration;

use crate::options::{Handicap, Options};
use crate::orders::OrderOptions;
use crate::quorum_loss::LossOptions;
use crate::repeats::RepeatOptions;

/// Something that a run can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Frames that are lost.
    Loss,
    /// Frames that arrive twice.
    Duplicates,
    /// Frames that are changed on their way.
    Corruption,
    /// Frames that overtake each other.
    Reorder,
    /// Frames that are very late.
    Lag,
    /// Links that stall.
    Clogs,
    /// Links that carry little.
    NarrowLinks,
    /// Links that break.
    Breaks,
    /// Links that are reset again and again.
    Resets,
    /// Partitions of all kinds.
    Partitions,
    /// Nodes that are cut off one after the other.
    RollingIsolation,
    /// Messages in the name of replicas that do not exist.
    Strangers,
    /// Nodes that crash or are stopped.
    Crashes,
    /// Nodes that crash half way through a turn.
    CrashesInTurns,
    /// Power that goes right after a reply.
    CrashesAfterReplies,
    /// Nodes that are restarted again and again.
    RestartStorms,
    /// Power that goes while a node starts.
    CrashesInStarts,
    /// Cores that pause.
    Pauses,
    /// Processes that are frozen.
    Freezes,
    /// Clocks that run wrong.
    Drift,
    /// Clocks that jump, and machines that are suspended.
    ClockJumps,
    /// Events that arrive after their time was looked at.
    LateEvents,
    /// Syncs that are slow, and disks that are.
    SlowDisks,
    /// Logs that are full, or say so.
    FullLogs,
    /// Disks without room.
    FullDisks,
    /// Writes and syncs that fail.
    DiskErrors,
    /// Damage to disks.
    Damage,
    /// Rotten payloads and checkpoints.
    Rot,
    /// Old images of disks.
    OldImages,
    /// Lost frames between clients and nodes.
    ClientLoss,
    /// Requests with outdated generations, for keys of other ranges, and to nodes that do not lead.
    WrongRoutes,
    /// What stays broken at first in the liveness phase.
    Handicap,
    /// A node that is restarted in the liveness phase while nobody writes.
    QuietRestart,
    /// Orders: other leaders, other members.
    Orders,
    /// Requests that come more than once, and groups that remember few clients.
    Repeats,
    /// Nodes that start with a build that cannot read everything.
    OldBuilds,
    /// Leases, and with them promises.
    Leases,
    /// A quorum that is lost for good.
    QuorumLoss,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 38] = [
        Part::QuorumLoss,
        Part::Leases,
        Part::OldBuilds,
        Part::Repeats,
        Part::Handicap,
        Part::QuietRestart,
        Part::Orders,
        Part::Crashes,
        Part::CrashesInTurns,
        Part::CrashesAfterReplies,
        Part::RestartStorms,
        Part::CrashesInStarts,
        Part::Pauses,
        Part::Freezes,
        Part::Drift,
        Part::ClockJumps,
        Part::LateEvents,
        Part::Partitions,
        Part::RollingIsolation,
        Part::Breaks,
        Part::Resets,
        Part::Lag,
        Part::Clogs,
        Part::NarrowLinks,
        Part::Loss,
        Part::Duplicates,
        Part::Corruption,
        Part::Reorder,
        Part::Strangers,
        Part::Damage,
        Part::Rot,
        Part::OldImages,
        Part::DiskErrors,
        Part::FullLogs,
        Part::FullDisks,
        Part::SlowDisks,
        Part::ClientLoss,
        Part::WrongRoutes,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Loss => "loss",
            Part::Duplicates => "duplicates",
            Part::Corruption => "corruption",
            Part::Reorder => "reorder",
            Part::Lag => "lag",
            Part::Clogs => "clogs",
            Part::NarrowLinks => "narrow-links",
            Part::Breaks => "breaks",
            Part::Resets => "resets",
            Part::Partitions => "partitions",
            Part::RollingIsolation => "rolling-isolation",
            Part::Strangers => "strangers",
            Part::Crashes => "crashes",
            Part::CrashesInTurns => "crashes-in-turns",
            Part::CrashesAfterReplies => "crashes-after-replies",
            Part::RestartStorms => "restart-storms",
            Part::CrashesInStarts => "crashes-in-starts",
            Part::Pauses => "pauses",
            Part::Freezes => "freezes",
            Part::Drift => "drift",
            Part::ClockJumps => "clock-jumps",
            Part::LateEvents => "late-events",
            Part::SlowDisks => "slow-disks",
            Part::FullLogs => "full-logs",
            Part::FullDisks => "full-disks",
            Part::DiskErrors => "disk-errors",
            Part::Damage => "damage",
            Part::Rot => "rot",
            Part::OldImages => "old-images",
            Part::ClientLoss => "client-loss",
            Part::WrongRoutes => "wrong-routes",
            Part::Handicap => "handicap",
            Part::QuietRestart => "quiet-restart",
            Part::Orders => "orders",
            Part::Repeats => "repeats",
            Part::OldBuilds => "old-builds",
            Part::Leases => "leases",
            Part::QuorumLoss => "quorum-loss",
        }
    }

    /// The part of this name.
    pub fn named(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Whether the liveness phase does without it. What remains hurts nobody who waits: clocks, the order of frames, and
    /// requests that are refused.
    fn is_healed(self) -> bool {
        use Part::{Drift, Handicap, Leases, QuietRestart, Reorder, WrongRoutes};
        !matches!(self, Drift | Reorder | WrongRoutes | Handicap | QuietRestart | Leases)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Options {
    /// Switches every fault off, as the liveness phase does.
    pub fn heal(&mut self) {
        Part::ALL.into_iter().filter(|part| part.is_healed()).for_each(|part| self.switch_off(part));
    }

    /// A disk on which nothing fails.
    pub(crate) fn heal_disks(&mut self) {
        use Part::{CrashesInStarts, Damage, DiskErrors, FullDisks, FullLogs, Rot};
        for part in [CrashesInStarts, Damage, DiskErrors, FullDisks, Rot] {
            self.switch_off(part);
        }
        let says_full = self.disk.full_interval;
        self.switch_off(FullLogs);
        self.disk.full_interval = says_full;
    }

    /// Takes one part away.
    pub fn switch_off(&mut self, part: Part) {
        let Options { network, disk, process, client, orders, repeats, .. } = self;
        let never = Duration::ZERO;
        match part {
            Part::Loss => network.loss_ppm = 0,
            Part::Duplicates => network.duplicate_ppm = 0,
            Part::Corruption => network.corrupt_ppm = 0,
            Part::Reorder => network.reorder = false,
            Part::Lag => network.lag_interval = never,
            Part::Clogs => network.clog_interval = never,
            Part::NarrowLinks => network.narrow_interval = never,
            Part::Breaks => network.break_interval = never,
            Part::Resets => network.reset_interval = never,
            Part::Partitions => network.partition_interval = never,
            Part::RollingIsolation => network.roll_interval = never,
            Part::Strangers => network.stranger_ppm = 0,
            Part::Crashes => process.crash_interval = never,
            Part::CrashesInTurns => process.crash_in_turn_ppm = 0,
            Part::CrashesAfterReplies => process.crash_after_reply_ppm = 0,
            Part::RestartStorms => process.storm_interval = never,
            Part::CrashesInStarts => disk.start_power_ppm = 0,
            Part::Pauses => process.pause_interval = never,
            Part::Freezes => process.freeze_interval = never,
            Part::Drift => process.drift_max_ppm = 0,
            Part::ClockJumps => process.clock_jump_interval = never,
            Part::LateEvents => (process.late_events_ppm, process.starve_interval) = (0, never),
            Part::SlowDisks => {
                (disk.slow_ppm, disk.slow_interval) = (0, never);
                disk.store_mean = disk.store_mean.min(Duration::from_micros(500));
            }
            Part::FullLogs => (disk.full_interval, disk.segments_max) = (never, None),
            Part::FullDisks => disk.no_room_interval = never,
            Part::DiskErrors => {
                (disk.sync_error_ppm, disk.write_error_ppm, disk.hidden_error_ppm) = (0, 0, 0);
                disk.store_error_ppm = 0;
            }
            Part::Damage => disk.damage_ppm = 0,
            Part::Rot => {
                (disk.payload_ppm, disk.scrub_interval) = (0, never);
                (disk.checkpoint_rot_ppm, disk.misread_ppm) = (0, 0);
            }
            Part::OldImages => disk.old_image_ppm = 0,
            Part::ClientLoss => client.loss_ppm = 0,
            Part::WrongRoutes => {
                (client.stale_ppm, client.foreign_ppm, client.loyal_readers) = (0, 0, false);
            }
            Part::Handicap => self.handicap = Handicap::None,
            Part::QuietRestart => process.quiet_restart = false,
            Part::Orders => *orders = OrderOptions::default(),
            Part::Repeats => *repeats = RepeatOptions::default(),
            Part::OldBuilds => process.old_build_ppm = 0,
            Part::Leases => self.leases = false,
            Part::QuorumLoss => self.loss = LossOptions::default(),
        }
    }
}
