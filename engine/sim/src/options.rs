//! What one run looks like: the size of the cluster, its timing, its load and its faults.
//!
//! Everything is drawn from the seed, and each kind of fault is on in some seeds and off in others ("swarm testing"):
//! a run in which everything fails at once finds other bugs than one in which a single thing fails often. The drawn
//! options are printed in full with every report, so that a failure can be read without running it.

use std::fmt;
use std::time::Duration;

use crate::liveness::LARGEST_LOG_BYTES;
use crate::random::Random;

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
    /// Keep every line of the trace for the report and not only the last ones before a violation.
    pub trace: bool,
    /// Check only what clients and operators can see: histories, answers, convergence. The inner invariants notice a
    /// bug long before it does harm; this shows that the outer checks would notice the harm too.
    pub outcomes_only: bool,
    /// A bug put into the Raft core on purpose.
    #[cfg(feature = "mutations")]
    pub mutation: Option<pontoon_raft::Mutation>,
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
    /// Mean time of a sync.
    pub sync_mean: Duration,
    /// Chance that a sync is slow.
    pub slow_ppm: u32,
    /// Longest slow sync.
    pub slow_max: Duration,
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
    /// Mean time between payloads that are found to be rotten under a running core; zero for none.
    pub scrub_interval: Duration,
}

impl DiskOptions {
    /// A disk on which nothing fails.
    fn heal(&mut self) {
        self.segments_max = None;
        self.no_room_interval = Duration::ZERO;
        (self.sync_error_ppm, self.write_error_ppm, self.hidden_error_ppm) = (0, 0, 0);
        (self.start_power_ppm, self.damage_ppm, self.payload_ppm) = (0, 0, 0);
        self.scrub_interval = Duration::ZERO;
    }

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
    /// Whether a crash may take all nodes at once.
    pub crash_all: bool,
    /// Mean time between pauses of one core; zero for none.
    pub pause_interval: Duration,
    /// Mean length of a pause.
    pub pause_length: Duration,
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
    /// Mean delay between client and node.
    pub delay_mean: Duration,
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
    /// Whether only outcomes are checked.
    pub outcomes_only: bool,
    /// The bug put in on purpose.
    #[cfg(feature = "mutations")]
    pub mutation: Option<pontoon_raft::Mutation>,
    /// The bug put between the core and the disk on purpose.
    #[cfg(feature = "mutations")]
    pub disk_mutation: Option<DiskMutation>,
}

impl Options {
    /// Draws the options of `seed` and applies what the caller wants otherwise.
    pub fn draw(seed: u64, overrides: &Overrides) -> Options {
        let mut random = Random::new(seed);
        let nodes = *random.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 5, 4, 2, 1]);
        let core = draw_core(&mut random);
        let cores = *random.pick(&[1, 1, 1, 2]);
        let groups = *random.pick(&[1, 1, 2, 3, 4, 6]);
        // Counted in election timeouts, so that slow and fast clusters see as many elections.
        let duration = core.election_timeout * random.between(12, 36) as u32;
        let mut options = Options {
            seed,
            nodes,
            cores,
            groups,
            duration,
            network: draw_network(&mut random, &core),
            disk: draw_disk(&mut random, &core),
            process: draw_process(&mut random, &core),
            client: draw_client(&mut random, &core),
            core,
            handicap: *random.pick(&HANDICAPS),
            outcomes_only: overrides.outcomes_only,
            #[cfg(feature = "mutations")]
            mutation: overrides.mutation,
            #[cfg(feature = "mutations")]
            disk_mutation: overrides.disk_mutation,
        };
        draw_log_faults(&mut random, &mut options);
        options.nodes = overrides.nodes.unwrap_or(options.nodes);
        options.cores = overrides.cores.unwrap_or(options.cores);
        options.groups = overrides.groups.unwrap_or(options.groups);
        options.client.clients = overrides.clients.unwrap_or(options.client.clients);
        options.duration = overrides.duration.unwrap_or(options.duration);
        options.handicap = overrides.handicap.unwrap_or(options.handicap);
        options.disk.segment_bytes = options.disk.segment_bytes.max(options.largest_write_bytes().next_power_of_two());
        if options.nodes < 3 {
            options.handicap = Handicap::None;
        }
        if overrides.faults == Some(false) {
            options.handicap = Handicap::None;
            options.heal();
        }
        options
    }

    /// What one turn of a core may append at most. A segment must hold that: a write that fits none fences the log, which
    /// is a mistake of whoever chose the sizes and no fault.
    fn largest_write_bytes(&self) -> u64 {
        let (core, client) = (&self.core, &self.client);
        // A command with the keys and values of the simulated clients, and what the log adds to an entry.
        let entry_bytes = u64::from(client.filling_max) + 160;
        let lanes = u64::from(client.clients * client.lanes);
        let thoughts = (self.duration.as_nanos() / client.think_mean.as_nanos().max(1)) as u64 + 1;
        let everything = (thoughts * lanes * 2).min(u64::from(client.operations_max)) * entry_bytes;
        let message =
            (core.append_bytes_max as u64 * 2).min(core.append_entries_max as u64 * entry_bytes) + entry_bytes;
        let windows = 2 * u64::from(self.groups) * message * core.inflight_messages_max as u64;
        everything.min(windows) + (16 << 10)
    }

    /// Switches every fault off, as the liveness phase does.
    pub fn heal(&mut self) {
        let network = &mut self.network;
        (network.loss_ppm, network.duplicate_ppm, network.corrupt_ppm) = (0, 0, 0);
        network.partition_interval = Duration::ZERO;
        network.break_interval = Duration::ZERO;
        network.clog_interval = Duration::ZERO;
        self.disk.slow_ppm = 0;
        self.disk.full_interval = Duration::ZERO;
        self.disk.heal();
        self.process.crash_interval = Duration::ZERO;
        self.process.crash_in_turn_ppm = 0;
        self.process.pause_interval = Duration::ZERO;
        self.client.loss_ppm = 0;
    }
}

const HANDICAPS: [Handicap; 6] = [
    Handicap::None,
    Handicap::None,
    Handicap::MinorityDown,
    Handicap::OneDeaf,
    Handicap::OneMute,
    Handicap::OnePairApart,
];

fn draw_core(random: &mut Random) -> CoreOptions {
    // A third runs with the times of production, the rest faster: the same races in less virtual time.
    let election_ms = *random.pick(&[1_000, 300, 300, 150]);
    let election_timeout = Duration::from_millis(election_ms);
    CoreOptions {
        election_timeout,
        beacon_interval: election_timeout / 10,
        support_timeout: election_timeout,
        broken_link_grace: election_timeout * 3 / 10,
        request_timeout: election_timeout * random.between(2, 5) as u32,
        retry_interval: election_timeout / 4,
        commit_delay: Duration::from_millis(*random.pick(&[0, 1, 20])),
        append_entries_max: *random.pick(&[1, 2, 16, 1024]),
        append_bytes_max: *random.pick(&[256, 4096, 65536]),
        inflight_messages_max: *random.pick(&[1, 2, 8, 64]),
    }
}

fn draw_network(random: &mut Random, core: &CoreOptions) -> NetworkOptions {
    let election = core.election_timeout;
    let delay_min = Duration::from_micros(*random.pick(&[20, 100, 1_000]));
    NetworkOptions {
        delay_min,
        delay_mean: *random.pick(&[delay_min, delay_min * 5, election / 60, election / 12]),
        loss_ppm: *random.pick(&[0, 0, 1_000, 20_000, 100_000, 250_000]),
        duplicate_ppm: *random.pick(&[0, 0, 10_000, 100_000, 400_000]),
        corrupt_ppm: *random.pick(&[0, 0, 0, 1_000, 10_000]),
        reorder: random.chance(500_000),
        partition_interval: election * *random.pick(&[0, 0, 3, 5, 10]),
        partition_length: election * *random.pick(&[1, 3, 6]),
        partition_breaks_links: random.chance(500_000),
        break_interval: election * *random.pick(&[0, 0, 1, 4]),
        break_loses_frames: random.chance(500_000),
        clog_interval: election * *random.pick(&[0, 0, 1, 4]),
        clog_length: election * *random.pick(&[1, 2, 3]),
    }
}

fn draw_disk(random: &mut Random, core: &CoreOptions) -> DiskOptions {
    DiskOptions {
        sync_mean: *random.pick(&[
            Duration::from_micros(50),
            Duration::from_millis(1),
            core.election_timeout / 50,
            core.election_timeout / 10,
        ]),
        slow_ppm: *random.pick(&[0, 0, 10_000, 50_000]),
        slow_max: core.election_timeout * *random.pick(&[1, 3]),
        full_interval: core.election_timeout * *random.pick(&[0, 0, 0, 4]),
        segment_bytes: 0,
        segments_max: None,
        ready_segments: 1,
        checkpoint_segments: 1,
        group_bytes_max: 0,
        no_room_interval: Duration::ZERO,
        no_room_length: Duration::ZERO,
        sync_error_ppm: 0,
        write_error_ppm: 0,
        hidden_error_ppm: 0,
        start_power_ppm: 0,
        damage_ppm: 0,
        payload_ppm: 0,
        scrub_interval: Duration::ZERO,
    }
}

/// The sizes of the log and what happens to its disk.
fn draw_log_faults(random: &mut Random, options: &mut Options) {
    let election = options.core.election_timeout;
    options.disk = DiskOptions {
        segment_bytes: *random.pick(&[64 << 10, 64 << 10, 128 << 10, 256 << 10]),
        segments_max: *random.pick(&[None, None, None, None, None, Some(24), Some(10)]),
        ready_segments: *random.pick(&[1, 2]),
        checkpoint_segments: *random.pick(&[1, 2, 4]),
        group_bytes_max: *random.pick(&[4 << 10, 16 << 10, 1 << 20]),
        no_room_interval: election * *random.pick(&[0, 0, 0, 3]),
        no_room_length: election * *random.pick(&[1, 6]),
        sync_error_ppm: *random.pick(&[0, 0, 500, 3_000]),
        write_error_ppm: *random.pick(&[0, 0, 500, 3_000]),
        hidden_error_ppm: *random.pick(&[0, 0, 0, 2_000, 10_000]),
        start_power_ppm: *random.pick(&[0, 0, 200_000]),
        damage_ppm: *random.pick(&[0, 0, 100_000, 500_000]),
        payload_ppm: *random.pick(&[0, 0, 100_000, 500_000]),
        scrub_interval: election * *random.pick(&[0, 0, 1, 4]),
        ..options.disk.clone()
    };
    // In some runs the disks are good: a core that is restarted all the time never comes to the deeper races.
    if random.chance(300_000) {
        options.disk.heal();
    }
    options.process.kill_ppm = *random.pick(&[0, 0, 200_000, 500_000, 1_000_000]);
    options.process.stop_ppm = *random.pick(&[0, 0, 200_000, 600_000]);
}

fn draw_process(random: &mut Random, core: &CoreOptions) -> ProcessOptions {
    let election = core.election_timeout;
    ProcessOptions {
        crash_interval: election * *random.pick(&[0, 1, 2, 4, 8]),
        crash_in_turn_ppm: *random.pick(&[0, 0, 200, 2_000]),
        kill_ppm: 0,
        stop_ppm: 0,
        restart_delay: *random.pick(&[election / 20, election / 2, election * 3]),
        crash_all: random.chance(300_000),
        pause_interval: election * *random.pick(&[0, 0, 2, 6]),
        pause_length: election * *random.pick(&[1, 3]),
        drift_max_ppm: *random.pick(&[0, 0, 200, 100_000]),
        turn_delay_max: *random.pick(&[
            Duration::from_micros(10),
            Duration::from_micros(200),
            Duration::from_millis(2),
            Duration::from_millis(8),
        ]),
    }
}

fn draw_client(random: &mut Random, core: &CoreOptions) -> ClientOptions {
    let clients = *random.pick(&[1, 2, 3, 4, 5]);
    // Large values make groups of records that a crash can tear in many places; few of them fit a small segment.
    let filling_max = *random.pick(&[0, 300, 1_500, 1_500]);
    ClientOptions {
        clients,
        // Few operations at once: each open one doubles the work of the linearizability check.
        lanes: (*random.pick(&[1, 1, 2, 3])).min(8 / clients),
        keys: *random.pick(&[1, 2, 3]),
        think_mean: *random.pick(&[core.election_timeout / 40, core.election_timeout / 15, core.election_timeout / 5]),
        timeout: core.election_timeout * *random.pick(&[1, 2, 3]),
        operations_max: if filling_max > 300 { 300 } else { 1_200 },
        mix: *random.pick(&[
            [40, 40, 5, 10, 3, 2],
            [20, 60, 5, 5, 5, 5],
            [60, 20, 0, 20, 0, 0],
            [25, 25, 15, 25, 5, 5],
        ]),
        filling_max,
        loss_ppm: *random.pick(&[0, 0, 5_000, 20_000]),
        stray_ppm: *random.pick(&[10_000, 100_000, 500_000]),
        stale_ppm: *random.pick(&[0, 20_000]),
        delay_mean: *random.pick(&[Duration::from_micros(50), Duration::from_millis(1), Duration::from_millis(10)]),
    }
}

impl fmt::Display for Options {
    /// One line for each part, every field with its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { nodes, cores, groups, duration, network, disk, process, client, core, handicap, .. } = self;
        writeln!(
            f,
            "  cluster: nodes {nodes}, cores {cores}, groups {groups}, duration {duration:?}, then {handicap:?}"
        )?;
        if self.outcomes_only {
            writeln!(f, "  only outcomes are checked")?;
        }
        writeln!(f, "  {network:?}\n  {disk:?}\n  {process:?}\n  {client:?}\n  {core:?}")?;
        #[cfg(feature = "mutations")]
        writeln!(f, "  mutations: {:?}, {:?}", self.mutation, self.disk_mutation)?;
        Ok(())
    }
}
