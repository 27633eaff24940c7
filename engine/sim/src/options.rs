//! What one run looks like: the size of the cluster, its timing, its load and its faults.
//!
//! Everything is drawn from the seed (`draw`), and each kind of fault is on in some seeds and off in others ("swarm testing"):
//! a run in which everything fails at once finds other bugs than one in which a single thing fails often. The drawn
//! options are printed in full with every report, so that a failure can be read without running it.

use std::fmt;
use std::time::Duration;

use crate::liveness::LARGEST_LOG_BYTES;
use crate::orders::OrderOptions;
use crate::parts::Part;
use crate::quorum_loss::LossOptions;
use crate::repeats::RepeatOptions;

/// Most that a clock of a run runs wrong, parts per million: what a lease may count on. More is asked for by name only
/// ([`Overrides::drift_ppm`]).
pub const DRIFT_MARGIN_PPM: u32 = 50_000;

/// What a caller wants to be otherwise than the seed has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// How many nodes, 1 to 9.
    pub nodes: Option<u16>,
    /// How many cores each node has.
    pub cores: Option<u16>,
    /// How many ranges, which is how many groups.
    pub groups: Option<u32>,
    /// How many simulated clients.
    pub clients: Option<u32>,
    /// How long the phase with faults lasts, in virtual time.
    pub duration: Option<Duration>,
    /// What stays broken at first in the liveness phase.
    pub handicap: Option<Handicap>,
    /// No faults at all when false.
    pub faults: Option<bool>,
    /// Parts of the run that are switched off whatever the seed says.
    pub without: Vec<Part>,
    /// Most that a clock runs wrong, parts per million.
    pub drift_ppm: Option<u32>,
    /// Old images of disks come back at starts, as from a backup (law 12), in every run and not only in some.
    pub old_images: bool,
    /// Members change in every run, so no disk loses anything for good and nothing stays broken at first.
    pub changes: bool,
    /// A quorum is lost for good in every run, so nothing else is lost for good and nothing stays broken at first.
    pub quorum_loss: bool,
    /// Leases are on.
    pub leases: bool,
    /// Leases are on, and last several times as long as support, so that everybody presses against promises all the time.
    pub long_leases: bool,
    /// Keep every line of the trace for the report and not only the last ones before a violation.
    pub trace: bool,
    /// Keep every protocol event of every core, for checkers outside.
    pub protocol: bool,
    /// Check only what clients and operators can see: histories, answers, convergence. The inner invariants notice a
    /// bug long before it does harm; this shows that the outer checks would notice the harm too.
    pub outcomes_only: bool,
    /// Support comes and goes by chance, which is no bug: nothing unsafe may follow.
    #[cfg(feature = "mutations")]
    pub hints_lie: bool,
    /// Nobody guards against disks that forget (law 12), and none does: a core that comes to life takes part at once.
    #[cfg(feature = "mutations")]
    pub unguarded: bool,
    /// A bug put into the Raft core on purpose.
    #[cfg(feature = "mutations")]
    pub mutation: Option<pontoon_raft::Mutation>,
    /// A bug put into the core around it on purpose.
    #[cfg(feature = "mutations")]
    pub core_mutation: Option<pontoon_multiraft::CoreMutation>,
    /// A bug put between the core and the disk on purpose.
    #[cfg(feature = "mutations")]
    pub disk_mutation: Option<DiskMutation>,
}

/// A bug of a disk, or of a shell around the log.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMutation {
    /// Syncs do nothing and report success.
    SyncLies,
    /// The core hears that a write is durable when its sync begins.
    AcknowledgeEarly,
    /// A sync that failed counts as one that succeeded, as after a second try.
    FailedSyncAcknowledged,
    /// When the power goes, the last durable group of records goes with it.
    TailCut,
    /// When the power goes, something that was proven durable rots, and the checkers are not told.
    RotUntold,
    /// A vote is written with the append after the one that holds its term (law 14).
    VoteLags,
    /// Entries are written with the append after the one that holds their term (law 14).
    EntriesLag,
}

#[cfg(feature = "mutations")]
impl DiskMutation {
    /// All of them.
    pub const ALL: [DiskMutation; 7] = [
        DiskMutation::SyncLies,
        DiskMutation::AcknowledgeEarly,
        DiskMutation::FailedSyncAcknowledged,
        DiskMutation::TailCut,
        DiskMutation::RotUntold,
        DiskMutation::VoteLags,
        DiskMutation::EntriesLag,
    ];
}

/// Faults of the network between nodes. Chances are per frame and in parts per million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Shortest way of a frame.
    pub delay_min: Duration,
    /// Mean of what is added to it.
    pub delay_mean: Duration,
    /// Chance that a frame is lost without a word.
    pub loss_ppm: u32,
    /// Chance that a frame arrives twice.
    pub duplicate_ppm: u32,
    /// Chance that one bit of a frame is flipped on its way.
    pub corrupt_ppm: u32,
    /// Whether frames of one link may overtake each other.
    pub reorder: bool,
    /// Mean time between partitions; zero for none.
    pub partition_interval: Duration,
    /// Mean length of a partition.
    pub partition_length: Duration,
    /// Whether nodes notice a partition by broken links; if not, frames vanish silently.
    pub partition_breaks_links: bool,
    /// Mean time between single links that break and are dialled again; zero for none.
    pub break_interval: Duration,
    /// Whether frames under way are lost with their broken link.
    pub break_loses_frames: bool,
    /// Mean time between one-way links that stall and then deliver everything late; zero for none.
    pub clog_interval: Duration,
    /// Mean length of such a stall.
    pub clog_length: Duration,
    /// Mean time between rounds in which each node is cut off in its turn; zero for none.
    pub roll_interval: Duration,
    /// Mean time for which each of them is cut off.
    pub roll_length: Duration,
    /// Mean time between spells in which all frames of one node, or of all, are very late; zero for none.
    pub lag_interval: Duration,
    /// Mean length of such a spell.
    pub lag_length: Duration,
    /// Most that a frame is later then, which is more than an election timeout.
    pub lag_max: Duration,
    /// Mean time between one-way links that become narrow for a while; zero for none.
    pub narrow_interval: Duration,
    /// Mean length of that.
    pub narrow_length: Duration,
    /// Bytes in a second that such a link carries.
    pub narrow_bytes_per_second: u64,
    /// Mean time between storms in which links are reset again and again; zero for none.
    pub reset_interval: Duration,
    /// Mean length of such a storm.
    pub reset_length: Duration,
    /// Chance that a frame is accompanied by its messages in the name of a replica that does not live there.
    pub stranger_ppm: u32,
}

/// The disk of each core, and the sizes of its log. Chances are in parts per million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Size of a segment of the log: small, so that the log goes on in another one often.
    pub segment_bytes: u64,
    /// Segments that the log may have before it says that it is full, if there is a limit.
    pub segments_max: Option<u64>,
    /// Segments that are prepared ahead.
    pub ready_segments: usize,
    /// Segments between two checkpoints.
    pub checkpoint_segments: u64,
    /// Size at which a group of records is closed.
    pub group_bytes_max: usize,
    /// Mean time until the log looks for entries that have left memory.
    pub fetch_mean: Duration,
    /// Chance, for each such look, that the cache has just dropped everything.
    pub cold_ppm: u32,
    /// Mean time that the store of checkpoints takes for an order.
    pub store_mean: Duration,
    /// Chance that it fails to write, for each order.
    pub store_error_ppm: u32,
    /// Chance that a start finds a checkpoint rotten or gone; an eighth of it for each chunk that is read.
    pub checkpoint_rot_ppm: u32,
    /// Chance, for each chunk that is sent, that a bit of it changes after it was read.
    pub misread_ppm: u32,
    /// Mean time of a sync.
    pub sync_mean: Duration,
    /// Chance that a sync is slow.
    pub slow_ppm: u32,
    /// Longest slow sync.
    pub slow_max: Duration,
    /// Mean time between disks all of whose syncs are slow for a while; zero for none.
    pub slow_interval: Duration,
    /// Mean length of that.
    pub slow_length: Duration,
    /// Mean time between logs that say they are full for a while; zero for none.
    pub full_interval: Duration,
    /// Mean time between disks that have hardly any room for a while; zero for none.
    pub no_room_interval: Duration,
    /// Mean length of that.
    pub no_room_length: Duration,
    /// Chance that a sync of a group of records fails: some of it is on the medium, the cache shows all of it.
    pub sync_error_ppm: u32,
    /// Chance, for each group of records, that the next write anywhere on its disk fails after some of its bytes.
    pub write_error_ppm: u32,
    /// Chance, for each group of records, that the next sync anywhere on its disk fails: that of a segment that is
    /// being prepared, or of the control file.
    pub hidden_error_ppm: u32,
    /// Chance that the power goes again while a node starts.
    pub start_power_ppm: u32,
    /// Chance that a stopped disk is damaged before it is used again.
    pub damage_ppm: u32,
    /// Chance that a core starts with some payloads of durable entries gone.
    pub payload_ppm: u32,
    /// Mean time between payloads that rot under a running core and a scrub of its log; zero for none.
    pub scrub_interval: Duration,
    /// Chance that a stopped disk is an earlier image of itself when it starts again.
    pub old_image_ppm: u32,
}

impl DiskOptions {
    /// The sizes of the log.
    pub fn log(&self) -> pontoon_wal::Options {
        pontoon_wal::Options {
            segment_bytes: self.segment_bytes,
            max_log_bytes: self.segments_max.map_or(LARGEST_LOG_BYTES, |segments| segments * self.segment_bytes),
            group_bytes_max: self.group_bytes_max,
            ready_segments: self.ready_segments,
            checkpoint_segments: self.checkpoint_segments,
            ..pontoon_wal::Options::default()
        }
    }
}

/// What happens to nodes as processes and machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Mean time between crashes; zero for none.
    pub crash_interval: Duration,
    /// Chance that a turn ends in a crash half way through its effects, parts per million.
    pub crash_in_turn_ppm: u32,
    /// Chance that a crash takes only the process, so that the disk's cache survives, parts per million.
    pub kill_ppm: u32,
    /// Chance that a node that would have crashed is stopped as it should be, parts per million.
    pub stop_ppm: u32,
    /// Mean time until a crashed node starts again.
    pub restart_delay: Duration,
    /// Whether a crash may take a majority of the nodes at once, or all.
    pub crash_all: bool,
    /// Chance that the power goes where it hurts most right after a core has acknowledged a write: at a majority with
    /// that core in it, or everywhere.
    pub crash_after_reply_ppm: u32,
    /// Mean time between nodes that are killed and started again several times in a row; zero for none.
    pub storm_interval: Duration,
    /// Mean time between pauses of one core; zero for none.
    pub pause_interval: Duration,
    /// Mean length of a pause.
    pub pause_length: Duration,
    /// Mean time between processes that are frozen, all cores at once, for half an election timeout to five; zero for
    /// none.
    pub freeze_interval: Duration,
    /// Mean time between jumps of one node's clock; zero for none.
    pub clock_jump_interval: Duration,
    /// Chance that a pause catches a core after it has looked at the clock for the events of a turn and before it takes them in,
    /// parts per million.
    pub late_events_ppm: u32,
    /// Mean time between spells in which the cores of one node, or of all, get too little processor time, so that many a turn is
    /// interrupted between its look at the clock and its events; zero for none.
    pub starve_interval: Duration,
    /// Mean length of such a spell.
    pub starve_length: Duration,
    /// Longest interruption.
    pub starve_max: Duration,
    /// Whether a node is restarted in the liveness phase while nobody writes.
    pub quiet_restart: bool,
    /// Chance that a node starts with a build that cannot read some commands, if no other node has one, parts per
    /// million.
    pub old_build_ppm: u32,
    /// Most that a node's clock runs wrong, parts per million.
    pub drift_max_ppm: u32,
    /// Longest time between something arriving and the turn that takes it.
    pub turn_delay_max: Duration,
}

/// The load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Clients, each with connections of its own.
    pub clients: u32,
    /// Operations that a client has under way at once.
    pub lanes: u32,
    /// Keys of each range that are used at a time.
    pub keys: u32,
    /// Mean time between an answer and the next operation of a lane.
    pub think_mean: Duration,
    /// After this long without an answer an operation is unknown.
    pub timeout: Duration,
    /// Operations begun at most.
    pub operations_max: u32,
    /// Weights of put, get, delete, compare-and-set, batch and scan.
    pub mix: [u32; 6],
    /// Longest filling of a value beyond its unique number, bytes.
    pub filling_max: u32,
    /// Chance that a message between client and node is lost and its connection is dead, parts per million.
    pub loss_ppm: u32,
    /// Chance that an attempt goes to any node instead of the one that is said to lead, parts per million.
    pub stray_ppm: u32,
    /// Chance that an operation is sent with an outdated generation, parts per million.
    pub stale_ppm: u32,
    /// Chance that an operation asks a group for a key of another range, parts per million.
    pub foreign_ppm: u32,
    /// Mean delay between client and node.
    pub delay_mean: Duration,
    /// Whether each node has a reader that asks nobody else: one that serves although it leads no longer is caught.
    pub loyal_readers: bool,
}

/// Timing and limits of the cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreOptions {
    /// Shortest election timeout; the longest is twice that.
    pub election_timeout: Duration,
    /// How often beacons leave.
    pub beacon_interval: Duration,
    /// How long an unconfirmed peer is supported.
    pub support_timeout: Duration,
    /// How long a promise binds, where leases are on.
    pub lease_length: Duration,
    /// How long support outlasts a broken link.
    pub broken_link_grace: Duration,
    /// When a core gives up a request.
    pub request_timeout: Duration,
    /// Until an unanswered Append is sent again.
    pub retry_interval: Duration,
    /// How long the commit index waits for a ride.
    pub commit_delay: Duration,
    /// Most entries in one Append.
    pub append_entries_max: usize,
    /// Most bytes in one Append.
    pub append_bytes_max: usize,
    /// Most Appends without an answer.
    pub inflight_messages_max: usize,
    /// Bytes of entries that each group keeps in memory.
    pub window_bytes_max: usize,
    /// Bytes of entries that all groups of a core keep in memory.
    pub core_window_bytes_max: usize,
    /// Most bytes of one fetch.
    pub fetch_bytes_max: usize,
    /// Bytes of entries that a group applies before it makes a checkpoint.
    pub checkpoint_log_bytes: usize,
    /// Size of a chunk of a checkpoint.
    pub chunk_bytes: usize,
    /// How many of the newest entries of a group a start brings into memory.
    pub restored_entries: usize,
}

/// What stays broken in the first part of the liveness phase. A majority that can talk must serve all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handicap {
    /// Nothing.
    None,
    /// As many nodes as a quorum can spare do not run.
    MinorityDown,
    /// One node hears no other node, though they hear it: what it leads must be led by others.
    OneDeaf,
    /// One node is heard by no other node, though it hears them.
    OneMute,
    /// Two nodes cannot talk to each other; all others can talk to both.
    OnePairApart,
}

/// One run, expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed that all of this and all of the run came from.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u16,
    /// Nodes that have a replica of each group at first; the others have none.
    pub founders: u16,
    /// Cores of each node.
    pub cores: u16,
    /// Ranges, which is groups.
    pub groups: u32,
    /// Length of the phase with faults.
    pub duration: Duration,
    /// The network.
    pub network: NetworkOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// The processes.
    pub process: ProcessOptions,
    /// The load.
    pub client: ClientOptions,
    /// The cores' configuration.
    pub core: CoreOptions,
    /// What stays broken at first when everything else is healed.
    pub handicap: Handicap,
    /// Orders to groups.
    pub orders: OrderOptions,
    /// Requests that come more than once.
    pub repeats: RepeatOptions,
    /// A quorum that is lost for good.
    pub loss: LossOptions,
    /// Whether only outcomes are checked.
    pub outcomes_only: bool,
    /// Whether leases are on.
    pub leases: bool,
    /// Whether support comes and goes by chance.
    #[cfg(feature = "mutations")]
    pub hints_lie: bool,
    /// Whether the guard of law 12 is off.
    #[cfg(feature = "mutations")]
    pub unguarded: bool,
    /// The bug put in on purpose.
    #[cfg(feature = "mutations")]
    pub mutation: Option<pontoon_raft::Mutation>,
    /// The bug put into the core around it on purpose.
    #[cfg(feature = "mutations")]
    pub core_mutation: Option<pontoon_multiraft::CoreMutation>,
    /// The bug put between the core and the disk on purpose.
    #[cfg(feature = "mutations")]
    pub disk_mutation: Option<DiskMutation>,
}

impl Options {
    /// What one turn of a core may append at most. A segment must hold that: a write that fits none fences the log, which
    /// is a mistake of whoever chose the sizes and no fault.
    pub(crate) fn largest_write_bytes(&self) -> u64 {
        let (core, client) = (&self.core, &self.client);
        let entry_bytes = self.entry_bytes_max();
        let lanes = u64::from(client.clients * client.lanes);
        let thoughts = (self.duration.as_nanos() / client.think_mean.as_nanos().max(1)) as u64 + 1;
        let everything = (thoughts * lanes * 2).min(u64::from(client.operations_max)) * entry_bytes;
        let message =
            (core.append_bytes_max as u64 * 2).min(core.append_entries_max as u64 * entry_bytes) + entry_bytes;
        let windows = 2 * u64::from(self.groups) * message * core.inflight_messages_max as u64;
        everything.min(windows) + self.write_of_each_group_bytes() as u64 + (16 << 10)
    }

    /// An entry of each group. Every group may change its term in one turn and write the first entry of it, and the prober
    /// writes to all of them: a log that took only some of them with a sync would fall further and further behind.
    pub(crate) fn write_of_each_group_bytes(&self) -> usize {
        self.groups as usize * self.entry_bytes_max() as usize
    }

    /// A command with the keys and values of the simulated clients, and what the log adds to an entry.
    fn entry_bytes_max(&self) -> u64 {
        u64::from(self.client.filling_max) + 160
    }
}

impl fmt::Display for Options {
    /// One line for each part, every field with its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options {
            nodes,
            founders,
            cores,
            groups,
            duration,
            network,
            disk,
            process,
            client,
            core,
            handicap,
            orders,
            repeats,
            loss,
            ..
        } = self;
        writeln!(
            f,
            "  cluster: nodes {nodes}, cores {cores}, groups {groups}, duration {duration:?}, then {handicap:?}"
        )?;
        if founders < nodes {
            writeln!(f, "  the first {founders} nodes have a replica of each group at first")?;
        }
        if self.outcomes_only {
            writeln!(f, "  only outcomes are checked")?;
        }
        writeln!(f, "  {network:?}\n  {disk:?}\n  {process:?}\n  {client:?}\n  {core:?}\n  {orders:?}\n  {repeats:?}")?;
        if !loss.after.is_zero() {
            writeln!(f, "  {loss:?}")?;
        }
        #[cfg(feature = "mutations")]
        writeln!(f, "  mutations: {:?}, {:?}, {:?}", self.mutation, self.core_mutation, self.disk_mutation)?;
        Ok(())
    }
}
