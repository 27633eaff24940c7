//! Frames between a client and a core: requests up, replies down.
//!
//! Replies carry the request's sequence and may come in any order. A refusal that says where to go on
//! ([`Refusal::NotLeader`], [`Refusal::StaleDescriptor`]) carries what repairs the client's cache. Keys, values and
//! commands travel in the payload region and decode as slices of the frame; a descriptor's keys are copied out.

use bytes::Bytes;
use pontoon_types::{CoreId, Descriptor, Generation, GroupId, Incarnation, Index, LogId, NodeId, SessionTime, Term};

use crate::frame::FrameError;
use crate::numbered::numbered;
use crate::order::{GroupMembers, Order, OrderReason};
use crate::v1::client as v1;

/// Requests of one client, in the order in which it sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFrame {
    /// The requests.
    pub requests: Vec<Request>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's number for it, which comes back in the reply.
    pub sequence: u64,
    /// What is asked.
    pub operation: Operation,
}

/// What a client can ask a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Replicate and apply a command.
    Write {
        /// The group that owns all keys of the command.
        group: GroupId,
        /// The generation of the descriptor by which the client chose the group.
        generation: Generation,
        /// An encoded [`crate::command::Command`].
        command: Bytes,
    },
    /// Read one key.
    Get {
        /// The group that owns the key.
        group: GroupId,
        /// The generation of the descriptor by which the client chose the group.
        generation: Generation,
        /// The key.
        key: Bytes,
        /// Who may answer, and how old the answer may be.
        level: ReadLevel,
    },
    /// Read the keys of one group in order.
    Scan {
        /// The group that owns the keys.
        group: GroupId,
        /// The generation of the descriptor by which the client chose the group.
        generation: Generation,
        /// The first key.
        start: Bytes,
        /// The first key that is not wanted, or none to go to the end of the range.
        end: Option<Bytes>,
        /// Most pairs wanted; the node may return fewer and says where to go on.
        limit: u32,
        /// Who may answer, and how old the answer may be.
        level: ReadLevel,
    },
    /// Change the members of a group, or its leader.
    Order {
        /// The group.
        group: GroupId,
        /// The generation of the descriptor by which the client looks for its leader; none for one that knows where to ask.
        generation: Option<Generation>,
        /// How.
        order: Order,
    },
    /// Tell the members of a group. Its leader answers, without asking the others whether it still leads.
    Members {
        /// The group.
        group: GroupId,
        /// The generation of the descriptor by which the client looks for its leader; none for one that knows where to ask.
        generation: Option<Generation>,
    },
    /// Be this eager to lead a group, until the node ends. It decides who campaigns first and never who wins.
    Prefer {
        /// The group, of which this core has a replica.
        group: GroupId,
        /// From 0, which campaigns first, to 8, which waits for two shortest election timeouts more.
        priority: u8,
    },
    /// Tell all ranges, their leaders and the nodes' addresses.
    Routes,
    /// Tell the state of this core and its groups.
    Status,
}

/// What a read promises, and by whom it may be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadLevel {
    /// Linearizable, served by the leader.
    #[default]
    Linearizable,
    /// Linearizable, served by any replica: it asks the leader how far it has to be first.
    Follower,
    /// Served by any replica from a state that was the newest at some moment within the bound, counted by the node's clock up
    /// to when it looks, or at a moment after the read arrived, if the replica has to ask. The way back to the client comes
    /// on top.
    Stale {
        /// The bound, milliseconds.
        max_age_ms: u32,
    },
}

/// Replies to one client, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyFrame {
    /// The replies.
    pub replies: Vec<Reply>,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The number of the request that is answered.
    pub sequence: u64,
    /// What came of it.
    pub result: Result<Outcome, Refusal>,
}

/// What a request that was carried out came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write was applied: one outcome for each of the command's operations.
    Written(Vec<OperationOutcome>),
    /// The value of the key, if it exists.
    Value(Option<Bytes>),
    /// A part of a scan.
    Pairs {
        /// Keys and values, in the order of the keys.
        pairs: Vec<(Bytes, Bytes)>,
        /// Where to go on, if the part ended before the range or the limit did.
        next: Option<Bytes>,
    },
    /// An order is done, or a preference taken.
    Ordered,
    /// The members of a group.
    Members(GroupMembers),
    /// All ranges.
    Routes(Routes),
    /// The state of a core.
    Status(CoreStatus),
}

/// What one operation of a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    /// The key was set.
    Put,
    /// The key is gone.
    Deleted {
        /// Whether it was there before.
        existed: bool,
    },
    /// A compare-and-set was decided.
    Swapped {
        /// Whether the value was the expected one and was replaced.
        succeeded: bool,
        /// The value seen before the decision.
        current: Option<Bytes>,
    },
}

/// Why a request was not carried out. All but [`Refusal::Unknown`] say that it never will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The replica asked does not lead the group.
    #[error("the node does not lead the group; {}", describe_leader(*leader))]
    NotLeader {
        /// The node that leads, if known.
        leader: Option<NodeId>,
    },
    /// The request was addressed by an outdated descriptor.
    #[error(
        "the range has changed: {} now holds {} at {}; {}",
        descriptor.group, descriptor.range, descriptor.generation, describe_leader(*leader)
    )]
    StaleDescriptor {
        /// The descriptor that the node knows for the addressed keys.
        descriptor: Descriptor,
        /// The node that leads its group, if known.
        leader: Option<NodeId>,
    },
    /// A queue is full. Nothing was done.
    #[error("the node is busy; try again after {retry_after_ms} ms")]
    Busy {
        /// When to try again, milliseconds.
        retry_after_ms: u32,
    },
    /// Something is larger than a limit.
    #[error("{bytes} bytes are more than {limit} allows, which is {limit_bytes} bytes")]
    TooLarge {
        /// The limit's name in `pontoon_types::limits`.
        limit: String,
        /// The limit, bytes.
        limit_bytes: u64,
        /// What was asked for, bytes.
        bytes: u64,
    },
    /// The request can never be carried out as it is.
    #[error("the request is refused: {why}")]
    Refused {
        /// The reason, a clause.
        why: String,
    },
    /// An order that is not carried out.
    #[error("the order is refused: {why}")]
    Order {
        /// The kind of reason.
        reason: OrderReason,
        /// The reason, a clause.
        why: String,
    },
    /// The replica's state is older than the read allows, or its age is not known, and no leader can be asked.
    #[error("the replica asked is not known to be fresh enough; {}", describe_leader(*leader))]
    TooStale {
        /// The node that leads, if known.
        leader: Option<NodeId>,
    },
    /// The group does not remember requests as old as this one any more, so it does not carry it out. An earlier attempt
    /// may have been carried out.
    #[error("the group has forgotten the session of this request, or requests as old as this one")]
    Forgotten {
        /// A moment at which a new session can be opened.
        now: SessionTime,
    },
    /// The request may or may not have been carried out, now or later.
    #[error("the outcome is unknown: the request may or may not be carried out")]
    Unknown,
}

/// The part of a refusal that says who leads.
fn describe_leader(leader: Option<NodeId>) -> String {
    match leader {
        Some(node) => format!("{node} leads it"),
        None => "its leader is not known".to_string(),
    }
}

/// All that a client needs to find the way to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The answering node.
    pub node: NodeId,
    /// How many cores each node has.
    pub cores: u16,
    /// All nodes with their addresses, as `host:port`.
    pub nodes: Vec<(NodeId, String)>,
    /// All ranges, each with the node that leads it, if known.
    pub ranges: Vec<(Descriptor, Option<NodeId>)>,
}

/// The state of one core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreStatus {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// How often the core's log has been opened.
    pub incarnation: Incarnation,
    /// Whether its replicas vote.
    pub standing: CoreStanding,
    /// What the core has done since it started.
    pub counters: Counters,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
}

numbered! {
    /// What a core may do since it came to life (law 12).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum CoreStanding {
        /// Enough peers have heard of its log what it holds, or more never was heard: its replicas vote.
        #[default]
        Registered = 1,
        /// It asks its peers and takes no part yet.
        Waiting = 2,
        /// It has forgotten what it promised: its replicas follow and never vote.
        Refused = 3,
    }
}

/// The state of one group on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica's role.
    pub role: GroupRole,
    /// Its term.
    pub term: Term,
    /// The node that leads, if known.
    pub leader: Option<NodeId>,
    /// The end of its log.
    pub last: LogId,
    /// The last durable index.
    pub durable: Index,
    /// The last committed index.
    pub committed: Index,
    /// The last applied index.
    pub applied: Index,
    /// The last entry that is in its checkpoint; nothing (`0@0`) while it has none.
    pub checkpoint: LogId,
    /// Bytes of the entries applied since the last checkpoint was begun, or since the start.
    pub log_bytes: u64,
    /// Whether it applies what is committed.
    pub condition: Condition,
    /// How eager it is to lead: zero campaigns first.
    pub priority: u8,
}

numbered! {
    /// The role of a replica, as a status shows it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub enum GroupRole {
        /// Follows a leader, or waits for one.
        #[default]
        Follower = 1,
        /// Asks whether it would be voted for.
        PreCandidate = 2,
        /// Asks for votes.
        Candidate = 3,
        /// Leads.
        Leader = 4,
        /// Receives entries and does not vote.
        Learner = 5,
    }
}

impl std::fmt::Display for GroupRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GroupRole::Follower => "follower",
            GroupRole::PreCandidate => "pre-candidate",
            GroupRole::Candidate => "candidate",
            GroupRole::Leader => "leader",
            GroupRole::Learner => "learner",
        })
    }
}

numbered! {
    /// What keeps a replica from applying what is committed, as a status shows it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Condition {
        /// Nothing.
        #[default]
        Well = 1,
        /// It reads its state from its checkpoint.
        Loading = 2,
        /// The disk has lost the payload of the next entry, and no peer has given it back yet.
        PayloadLost = 3,
        /// Its state is lost; it waits for a snapshot.
        StateLost = 4,
        /// This build cannot read the next entry. The group stands still here until a snapshot comes, or another build.
        Unreadable = 5,
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Condition::Well => "well",
            Condition::Loading => "loading",
            Condition::PayloadLost => "payload lost",
            Condition::StateLost => "state lost",
            Condition::Unreadable => "unreadable entry",
        })
    }
}

/// What a core has done since it started. All of them only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns of the core's loop.
    pub turns: u64,
    /// System calls that the core's driver issued.
    pub system_calls: u64,
    /// Finished syncs of the log.
    pub syncs: u64,
    /// Groups of records (commits) written to the log.
    pub log_groups: u64,
    /// Bytes written to the log, framing and padding included.
    pub log_bytes: u64,
    /// Entries written to the log.
    pub log_entries: u64,
    /// Writes of replicas gathered into the log.
    pub log_writes: u64,
    /// Frames sent to peers.
    pub peer_frames: u64,
    /// Messages of groups sent to peers.
    pub peer_messages: u64,
    /// Bytes sent to peers.
    pub peer_bytes: u64,
    /// Frames received from clients.
    pub client_frames: u64,
    /// Requests received from clients.
    pub requests: u64,
    /// Replies sent to clients.
    pub replies: u64,
    /// Rounds of ReadIndex started.
    pub read_rounds: u64,
    /// Elections won by replicas of this core.
    pub elections_won: u64,
    /// Entries applied.
    pub applied_entries: u64,
    /// Processor time of the core's thread, nanoseconds.
    pub cpu_ns: u64,
    /// Bytes written to prepare segments ahead of use.
    pub log_prepared_bytes: u64,
    /// Steps of replicas: an idle group has none.
    pub group_steps: u64,
    /// Reads served under a lease, without asking anybody.
    pub leased_reads: u64,
    /// Questions sent to the cores of leaders for reads of followers.
    pub index_questions: u64,
    /// Checkpoints made durable, those that came as snapshots included.
    pub checkpoints: u64,
    /// Bytes of chunks handed to the store for checkpoints.
    pub checkpoint_bytes: u64,
    /// Checkpoints that the store could not write, an answer for each of their orders.
    pub checkpoint_failures: u64,
    /// Snapshots that peers have taken from here to their end.
    pub snapshots_sent: u64,
    /// Snapshots that replicas of this core were set to.
    pub snapshots_received: u64,
}

impl RequestFrame {
    /// Appends the frame to `out`. A frame above `FRAME_BYTES_MAX` breaks a law; [`Request::encoded_bytes`] tells when
    /// to begin the next one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        v1::encode(self, out);
    }

    /// Reads one whole frame. Keys and commands are slices of it.
    pub fn decode(frame: Bytes) -> Result<RequestFrame, FrameError> {
        v1::decode(frame)
    }

    /// The bytes of the frame once it is encoded.
    pub fn encoded_bytes(&self) -> usize {
        v1::FRAME_BYTES + self.requests.iter().map(Request::encoded_bytes).sum::<usize>()
    }
}

impl Request {
    /// What the request adds to a frame, bytes.
    pub fn encoded_bytes(&self) -> usize {
        let payload = match &self.operation {
            Operation::Write { command, .. } => command.len(),
            Operation::Get { key, .. } => key.len(),
            Operation::Scan { start, end, .. } => start.len() + optional_bytes(end),
            Operation::Order { order: Order::Members { voters, learners, .. }, .. } => {
                (voters.len() + learners.len()) * v1::NODE_BYTES
            }
            Operation::Order { order: Order::Transfer { .. }, .. } => 0,
            Operation::Members { .. } | Operation::Prefer { .. } | Operation::Routes | Operation::Status => 0,
        };
        v1::REQUEST_BYTES + payload
    }
}

impl ReplyFrame {
    /// Appends the frame to `out`. A frame above `FRAME_BYTES_MAX` breaks a law; [`Reply::encoded_bytes`] tells when to
    /// begin the next one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        v1::reply::encode(self, out);
    }

    /// Reads one whole frame. Keys and values are slices of it.
    pub fn decode(frame: Bytes) -> Result<ReplyFrame, FrameError> {
        v1::reply::decode(frame)
    }

    /// The bytes of the frame once it is encoded, at most.
    pub fn encoded_bytes(&self) -> usize {
        v1::reply::FRAME_BYTES + self.replies.iter().map(Reply::encoded_bytes).sum::<usize>()
    }
}

impl Reply {
    /// What the reply adds to a frame, bytes, at most.
    pub fn encoded_bytes(&self) -> usize {
        let more = match &self.result {
            Ok(Outcome::Written(outcomes)) => outcomes.iter().map(outcome_bytes).sum(),
            Ok(Outcome::Value(value)) => optional_bytes(value),
            Ok(Outcome::Pairs { pairs, next }) => {
                let pairs = pairs.iter().map(|(key, value)| v1::reply::PAIR_BYTES + key.len() + value.len());
                pairs.sum::<usize>() + optional_bytes(next)
            }
            Ok(Outcome::Ordered) => 0,
            Ok(Outcome::Members(group)) => v1::reply::MEMBERS_BYTES + group.members.len() * v1::reply::STANDING_BYTES,
            Ok(Outcome::Routes(routes)) => routes_bytes(routes),
            Ok(Outcome::Status(status)) => {
                v1::reply::STATUS_BYTES + status.groups.len() * v1::reply::GROUP_STATUS_BYTES
            }
            Err(Refusal::StaleDescriptor { descriptor, .. }) => descriptor_bytes(descriptor),
            Err(Refusal::TooLarge { limit, .. }) => limit.len(),
            Err(Refusal::Refused { why } | Refusal::Order { why, .. }) => why.len(),
            Err(
                Refusal::NotLeader { .. }
                | Refusal::Busy { .. }
                | Refusal::TooStale { .. }
                | Refusal::Forgotten { .. }
                | Refusal::Unknown,
            ) => 0,
        };
        v1::reply::REPLY_BYTES + more
    }
}

fn optional_bytes(bytes: &Option<Bytes>) -> usize {
    bytes.as_ref().map_or(0, Bytes::len)
}

fn outcome_bytes(outcome: &OperationOutcome) -> usize {
    let payload = match outcome {
        OperationOutcome::Swapped { current, .. } => optional_bytes(current),
        OperationOutcome::Put | OperationOutcome::Deleted { .. } => 0,
    };
    v1::reply::OUTCOME_BYTES + payload
}

fn descriptor_bytes(descriptor: &Descriptor) -> usize {
    let keys = descriptor.range.start.len() + optional_bytes(&descriptor.range.end);
    v1::reply::DESCRIPTOR_BYTES + descriptor.members.len() * v1::reply::MEMBER_BYTES + keys
}

fn routes_bytes(routes: &Routes) -> usize {
    let nodes = routes.nodes.iter().map(|(_, address)| v1::reply::NODE_ADDRESS_BYTES + address.len());
    let ranges = routes.ranges.iter().map(|(descriptor, _)| descriptor_bytes(descriptor));
    v1::reply::ROUTES_BYTES + nodes.sum::<usize>() + ranges.sum::<usize>()
}
