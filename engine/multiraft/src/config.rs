//! What a core is told when it starts.

use std::sync::Arc;
use std::time::Duration;

use crate::sessions::SessionLimits;
use crate::{Checkpoint, CheckpointConfig, LeaseConfig, Past};
use bytes::Bytes;
use pontoon_raft::Identities;
use pontoon_types::limits::{
    CHECKPOINT_LOG_BYTES, COMMAND_BYTES_MAX, CORE_WINDOW_BYTES_MAX, PROPOSAL_BYTES_PER_TURN, SNAPSHOT_CHUNK_BYTES_MAX,
};
use pontoon_types::{
    ClusterId, CoreId, Descriptor, Entry, GroupId, HardState, Incarnation, Index, LogId, NodeId, ReplicaId,
};
use pontoon_wire::command::{Command, CommandError};

/// The identity, the neighbours and the timing of one core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The cluster of the node.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This core of the node.
    pub core: CoreId,
    /// How many cores every node of the cluster has.
    pub cores: u16,
    /// How often this core's log was opened; in every frame it sends.
    pub incarnation: Incarnation,
    /// Seeds the election timeouts; the same seed gives the same run.
    pub seed: u64,
    /// All nodes of the cluster with the addresses clients reach them at.
    pub nodes: Vec<(NodeId, String)>,
    /// All ranges of the cluster, also those whose groups live on other cores.
    pub descriptors: Vec<Descriptor>,
    /// The groups of which replicas of this core were destroyed, with the highest of those replicas (law 11).
    pub tombstones: Vec<(GroupId, ReplicaId)>,
    /// Timeouts and limits, the same for each group.
    pub raft: Arc<pontoon_raft::Config>,
    /// How often a beacon leaves for each peer.
    pub beacon_interval: Duration,
    /// How long a peer's core is supported after it proved that it hears us (law 7).
    pub support_timeout: Duration,
    /// How long support lasts after the link to a peer broke. A killed process closes its sockets at once, so a break
    /// that does not heal within this time is taken as its end.
    pub broken_link_grace: Duration,
    /// How long a request waits before its outcome is said to be unknown (writes) or it is sent elsewhere (reads).
    pub request_timeout: Duration,
    /// Most bytes of commands that one group proposes in one turn; above it the answer is Busy. They are one write of
    /// one replica, which must fit into a segment of the log. A single command may be larger.
    pub proposal_bytes_max: usize,
    /// Most bytes of commands that all leaders of this core have proposed and not committed; above it the answer is Busy. A
    /// part of the log's largest size (`log_space.rs`).
    pub log_uncommitted_bytes_max: usize,
    /// Bytes of the newest entries of all groups that stay in memory once nothing holds them there.
    pub window_bytes_max: usize,
    /// Most bytes of one command: a segment of the log must hold it.
    pub command_bytes_max: usize,
    /// When groups make checkpoints, and of what size.
    pub checkpoint: CheckpointConfig,
    /// What the log keeps of the descriptor of a replica that comes to life here: what the shell reads at a start.
    pub encode_descriptor: fn(&Descriptor) -> Bytes,
    /// Reads the commands of the log. What it refuses parks the group on this core (`quarantine.rs`).
    pub decode_command: fn(Bytes) -> Result<Command, CommandError>,
    /// How much each group remembers of its clients. The same on all nodes.
    pub sessions: SessionLimits,
    /// Leases, if they are on.
    pub lease: Option<LeaseConfig>,
    /// The longest promise that an earlier life of this core may have made: it is waited for (law 4).
    pub longest_promise: Duration,
    /// What the core keeps of its own and its peers' lives (law 12). None: it votes without asking, as in a test.
    pub past: Option<Past>,
    /// Support comes and goes by chance: for testing that nothing unsafe follows.
    #[cfg(feature = "mutations")]
    pub hints_lie: bool,
    /// The bug put in on purpose, if any.
    #[cfg(feature = "mutations")]
    pub mutation: Option<crate::CoreMutation>,
    /// Whether every protocol event is written down, for model checkers outside; see `docs/TRACE.md`.
    pub trace: bool,
    /// Whether a checker asks after each turn for the groups that it touched ([`crate::Core::take_touched`]).
    pub watched: bool,
}

impl CoreConfig {
    /// Timing as decided for day one: beacons each 100 ms, one second of support, five seconds for a request.
    pub fn new(cluster: ClusterId, node: NodeId, core: CoreId, cores: u16) -> CoreConfig {
        CoreConfig {
            cluster,
            node,
            core,
            cores,
            incarnation: Incarnation(1),
            seed: 0,
            nodes: Vec::new(),
            descriptors: Vec::new(),
            tombstones: Vec::new(),
            raft: Arc::default(),
            beacon_interval: Duration::from_millis(100),
            support_timeout: Duration::from_secs(1),
            broken_link_grace: Duration::from_millis(300),
            request_timeout: Duration::from_secs(5),
            proposal_bytes_max: PROPOSAL_BYTES_PER_TURN,
            log_uncommitted_bytes_max: usize::MAX,
            window_bytes_max: CORE_WINDOW_BYTES_MAX,
            command_bytes_max: COMMAND_BYTES_MAX,
            checkpoint: CheckpointConfig { log_bytes: CHECKPOINT_LOG_BYTES, chunk_bytes: SNAPSHOT_CHUNK_BYTES_MAX },
            encode_descriptor: |_| Bytes::new(),
            decode_command: Command::decode,
            sessions: SessionLimits::default(),
            lease: None,
            longest_promise: Duration::ZERO,
            past: None,
            #[cfg(feature = "mutations")]
            hints_lie: false,
            #[cfg(feature = "mutations")]
            mutation: None,
            trace: false,
            watched: false,
        }
    }
}

/// What the log and the store kept of one group.
#[derive(Debug)]
pub struct GroupState {
    /// Its range and members.
    pub descriptor: Descriptor,
    /// Its term and vote.
    pub hard_state: HardState,
    /// The beginning of its log that was given up.
    pub compacted: LogId,
    /// The entries behind that whose payloads stay in the log until somebody needs them.
    pub older: Identities,
    /// How far the entries were known to be committed, when some were written last.
    pub committed: Index,
    /// The entries among `older` that change the members, in order, with an empty payload if it is lost.
    pub configurations: Vec<Entry>,
    /// The entries behind those, up to the end of the log. All are durable.
    pub entries: Vec<Entry>,
    /// The entries whose payload was rotten: in rising order, and those in `entries` empty.
    pub lost: Vec<Index>,
    /// The last term and vote are not known: what `hard_state` says may be older.
    pub vote_lost: bool,
    /// The newest whole checkpoint of this replica. None if there is none, or none that can be read: a group whose log was
    /// compacted then lacks its state. The shell deletes checkpoints of replicas that the log does not hold.
    pub checkpoint: Option<Checkpoint>,
}

impl GroupState {
    /// A group of which nothing was lost or given up, with all its entries.
    pub fn new(descriptor: Descriptor, hard_state: HardState, entries: Vec<Entry>) -> GroupState {
        GroupState {
            descriptor,
            hard_state,
            compacted: LogId::default(),
            older: Identities::default(),
            committed: Index(0),
            configurations: Vec::new(),
            entries,
            lost: Vec::new(),
            vote_lost: false,
            checkpoint: None,
        }
    }
}
