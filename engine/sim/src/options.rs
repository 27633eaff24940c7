//! What one run looks like: the size of the cluster, its timing, its load and its faults.
//!
//! Everything is drawn from the seed, and each kind of fault is on in some seeds and off in others ("swarm testing"):
//! a run in which everything fails at once finds other bugs than one in which a single thing fails often. The drawn
//! options are printed in full with every report, so that a failure can be read without running it.

use std::fmt;
use std::time::Duration;

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

/// The disk of each core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Mean time of a sync.
    pub sync_mean: Duration,
    /// Chance that a sync is slow, parts per million.
    pub slow_ppm: u32,
    /// Longest slow sync.
    pub slow_max: Duration,
    /// Mean time between logs that say they are full for a while; zero for none.
    pub full_interval: Duration,
}

/// What happens to nodes as processes and machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Mean time between crashes; zero for none.
    pub crash_interval: Duration,
    /// Chance that a turn ends in a crash half way through its effects, parts per million.
    pub crash_in_turn_ppm: u32,
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
}

impl Options {
    /// Draws the options of `seed` and applies what the caller wants otherwise.
    pub fn draw(seed: u64, overrides: &Overrides) -> Options {
        let mut random = Random::new(seed);
        let nodes = *random.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 5, 4, 2, 1]);
        let core = draw_core(&mut random);
        let mut options = Options {
            seed,
            nodes,
            cores: *random.pick(&[1, 1, 1, 2]),
            groups: *random.pick(&[1, 1, 2, 3, 4, 6]),
            // Counted in election timeouts, so that slow and fast clusters see as many elections.
            duration: core.election_timeout * random.between(12, 36) as u32,
            network: draw_network(&mut random, &core),
            disk: draw_disk(&mut random, &core),
            process: draw_process(&mut random, &core),
            client: draw_client(&mut random, &core),
            core,
            handicap: *random.pick(&HANDICAPS),
            outcomes_only: overrides.outcomes_only,
            #[cfg(feature = "mutations")]
            mutation: overrides.mutation,
        };
        options.nodes = overrides.nodes.unwrap_or(options.nodes);
        options.cores = overrides.cores.unwrap_or(options.cores);
        options.groups = overrides.groups.unwrap_or(options.groups);
        options.client.clients = overrides.clients.unwrap_or(options.client.clients);
        options.duration = overrides.duration.unwrap_or(options.duration);
        options.handicap = overrides.handicap.unwrap_or(options.handicap);
        if options.nodes < 3 {
            options.handicap = Handicap::None;
        }
        if overrides.faults == Some(false) {
            options.handicap = Handicap::None;
            options.heal();
        }
        options
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
    }
}

fn draw_process(random: &mut Random, core: &CoreOptions) -> ProcessOptions {
    let election = core.election_timeout;
    ProcessOptions {
        crash_interval: election * *random.pick(&[0, 1, 2, 4, 8]),
        crash_in_turn_ppm: *random.pick(&[0, 0, 200, 2_000]),
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
    ClientOptions {
        clients,
        // Few operations at once: each open one doubles the work of the linearizability check.
        lanes: (*random.pick(&[1, 1, 2, 3])).min(8 / clients),
        keys: *random.pick(&[1, 2, 3]),
        think_mean: *random.pick(&[core.election_timeout / 40, core.election_timeout / 15, core.election_timeout / 5]),
        timeout: core.election_timeout * *random.pick(&[1, 2, 3]),
        operations_max: 1_200,
        mix: *random.pick(&[
            [40, 40, 5, 10, 3, 2],
            [20, 60, 5, 5, 5, 5],
            [60, 20, 0, 20, 0, 0],
            [25, 25, 15, 25, 5, 5],
        ]),
        filling_max: *random.pick(&[0, 16, 300]),
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
        writeln!(f, "  mutation: {:?}", self.mutation)?;
        Ok(())
    }
}
