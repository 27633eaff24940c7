//! Which faults happen when; what they do is in `network_faults`, `process_faults`, and beside what they hit. Each kind has its own mean interval, drawn with the options, and puts itself on the
//! agenda again; in the liveness phase none happens any more.

use std::time::Duration;

use pontoon_types::NodeId;

use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, Phase, World};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node crashes, or all do.
    Crash,
    /// A core pauses.
    Pause,
    /// Some ways are blocked for a while.
    Partition,
    /// A link breaks.
    BreakLink,
    /// A link stalls.
    ClogLink,
    /// A log says that it is full for a while.
    FillLog,
    /// A disk has hardly any room for a while.
    FillDisk,
    /// Payloads of durable entries rot under a running core, and its log is scrubbed.
    Scrub,
    /// A process is frozen for a while.
    Freeze,
    /// A node is killed and started again several times.
    Storm,
    /// Each node is cut off in its turn.
    Roll,
    /// Frames are very late for a while.
    Lag,
    /// A link carries little for a while.
    NarrowLink,
    /// Links are reset again and again for a while.
    Resets,
    /// All syncs of a disk are slow for a while.
    SlowDisk,
    /// Somebody wants another leader.
    Transfer,
    /// Somebody wants other members.
    ChangeMembers,
    /// A clock jumps.
    JumpClock,
    /// Cores get too little processor time for a while.
    Starve,
}

const FAULTS: [Fault; 19] = [
    Fault::Crash,
    Fault::Pause,
    Fault::Partition,
    Fault::BreakLink,
    Fault::ClogLink,
    Fault::FillLog,
    Fault::FillDisk,
    Fault::Scrub,
    Fault::Freeze,
    Fault::Storm,
    Fault::Roll,
    Fault::Lag,
    Fault::NarrowLink,
    Fault::Resets,
    Fault::SlowDisk,
    Fault::Transfer,
    Fault::ChangeMembers,
    Fault::JumpClock,
    Fault::Starve,
];

impl World {
    /// Puts the first fault of each kind on the agenda.
    pub(crate) fn begin_faults(&mut self) {
        for fault in FAULTS {
            self.schedule_fault(fault);
        }
    }

    fn schedule_fault(&mut self, fault: Fault) {
        let (network, process) = (&self.options.network, &self.options.process);
        let mean = match fault {
            Fault::Crash => process.crash_interval,
            Fault::Pause => process.pause_interval,
            Fault::Partition => network.partition_interval,
            Fault::BreakLink => network.break_interval,
            Fault::ClogLink => network.clog_interval,
            Fault::FillLog => self.options.disk.full_interval,
            Fault::FillDisk => self.options.disk.no_room_interval,
            Fault::Scrub => self.options.disk.scrub_interval,
            Fault::Freeze => process.freeze_interval,
            Fault::Storm => process.storm_interval,
            Fault::Roll => network.roll_interval,
            Fault::Lag => network.lag_interval,
            Fault::NarrowLink => network.narrow_interval,
            Fault::Resets => network.reset_interval,
            Fault::SlowDisk => self.options.disk.slow_interval,
            Fault::Transfer => self.options.orders.transfer_interval,
            Fault::ChangeMembers => self.options.orders.change_interval,
            Fault::JumpClock => process.clock_jump_interval,
            Fault::Starve => process.starve_interval,
        };
        if mean > Duration::ZERO {
            let wait = self.random.until_next(mean);
            self.queue.put(self.queue.now() + wait, Due::Fault(fault));
        }
    }

    /// Lets one fault happen.
    pub(crate) fn inject(&mut self, fault: Fault) -> Result<(), Broken> {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        match fault {
            Fault::Crash => self.inject_crash()?,
            Fault::Transfer => self.order_transfer(),
            Fault::ChangeMembers => self.order_change(),
            Fault::JumpClock => self.inject_clock_jump(),
            Fault::Starve => self.inject_starvation(),
            Fault::Pause => {
                let place = self.draw_place();
                let length = self.random.until_next(self.options.process.pause_length);
                self.pause_core(place, length);
            }
            Fault::Partition => self.inject_partition(),
            Fault::BreakLink => {
                if let Some((from, to)) = self.draw_link() {
                    self.break_link(from, to);
                }
            }
            Fault::ClogLink => {
                if let Some((from, to)) = self.draw_link() {
                    self.clog_link(from, to);
                }
            }
            Fault::FillLog => {
                let place = self.draw_place();
                if let Some(running) = self.cores.get_mut(&place) {
                    running.log_says_full = true;
                    self.watch_log_space(place);
                    let length = self.random.until_next(self.options.core.election_timeout);
                    let incarnation = self.nodes[&place.node].incarnation;
                    self.queue.put(self.queue.now() + length, Due::LogHasRoom(place, incarnation));
                }
            }
            Fault::Scrub => {
                let place = self.draw_place();
                if self.cores.contains_key(&place) {
                    self.rot_payloads(place);
                    self.scrub(place)?;
                }
            }
            Fault::Freeze => self.inject_freeze(),
            Fault::Storm => {
                let node = self.draw_leader_or_any();
                let kills = self.random.between(2, 6) as u32;
                self.kill_in_storm(node, kills);
            }
            Fault::Roll => {
                let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
                let first = self.random.below(nodes.len() as u64) as usize;
                nodes.rotate_left(first);
                self.isolate_next(nodes);
            }
            Fault::Lag => self.inject_lag(),
            Fault::NarrowLink => self.inject_narrow_link(),
            Fault::Resets => self.inject_resets(),
            Fault::SlowDisk => {
                let place = self.draw_place();
                let length = self.random.until_next(self.options.disk.slow_length);
                self.disk(place).slow_until = self.queue.now() + length;
                self.counts.slow_disks += 1;
                self.trace.note(self.queue.now(), Happening::SlowDisk(place, length));
            }
            Fault::FillDisk => {
                let place = self.draw_place();
                let room = self.random.below(3) * self.options.disk.segment_bytes;
                self.disk(place).medium().limit_free_bytes(Some(room));
                self.counts.full_disks += 1;
                self.trace.note(self.queue.now(), Happening::Room(place, Some(room)));
                let length = self.random.until_next(self.options.disk.no_room_length);
                self.queue.put(self.queue.now() + length, Due::DiskHasRoom(place));
            }
        }
        self.schedule_fault(fault);
        Ok(())
    }

    /// A log stops pretending to be full.
    pub(crate) fn log_has_room(&mut self, place: Place) {
        if let Some(running) = self.cores.get_mut(&place) {
            running.log_says_full = false;
            self.watch_log_space(place);
        }
    }

    /// Somebody made room on a disk.
    pub(crate) fn disk_has_room(&mut self, place: Place) {
        self.disk(place).medium().limit_free_bytes(None);
        self.trace.note(self.queue.now(), Happening::Room(place, None));
    }

    pub(crate) fn draw_leader_or_any(&mut self) -> NodeId {
        let groups = self.group_ids();
        let group = *self.random.pick(&groups);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let any = *self.random.pick(&nodes);
        match self.invariants.newest_leader(group) {
            Some(leader) if self.random.chance(500_000) => leader,
            _ => any,
        }
    }

    /// Half of the time a node with a sync in flight: what a crash does to an idle log is soon told.
    pub(crate) fn draw_writing_or_any(&mut self) -> NodeId {
        let writing = self.disks.iter().filter(|(_, disk)| disk.flight().is_some());
        let writing: Vec<NodeId> = writing.map(|(place, _)| place.node).collect();
        if !writing.is_empty() && self.random.chance(500_000) {
            return *self.random.pick(&writing);
        }
        self.draw_leader_or_any()
    }

    fn draw_place(&mut self) -> Place {
        let node = self.draw_leader_or_any();
        let places: Vec<Place> = self.places(node).collect();
        *self.random.pick(&places)
    }
}
