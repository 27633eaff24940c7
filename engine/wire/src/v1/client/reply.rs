//! The metadata of replies, version 1.
//!
//! What is large or rare stands in lists of its own, so that a reply to a small write stays small.

use bytes::Bytes;
use pontoon_types::{
    self as types, CoreId, Generation, GroupId, Incarnation, Index, NodeId, ReplicaId, SessionTime, Term,
};
use rkyv::option::ArchivedOption;
use rkyv::rend::unaligned::{u32_ule, u64_ule};
use rkyv::{Archive, Serialize};

use super::super::{LogId, Parts, Shares, length};
use crate::client;
use crate::cursor::Cursor;
use crate::frame::{self, FrameError, FrameKind, Opened};
use crate::order::{self, MemberStanding, OrderReason};

#[derive(Archive, Default, Serialize)]
struct ReplyFrame {
    replies: Vec<Reply>,
    outcomes: Vec<OperationOutcome>,
    pairs: Vec<Pair>,
    descriptors: Vec<Descriptor>,
    members: Vec<Member>,
    routes: Vec<Routes>,
    statuses: Vec<CoreStatus>,
    group_members: Vec<GroupMembers>,
}

#[derive(Archive, Serialize)]
struct Reply {
    sequence: u64,
    result: ReplyResult,
}

#[derive(Archive, Serialize)]
enum ReplyResult {
    // The next so many of the frame's outcomes, or pairs.
    Written { outcomes: u32 },
    Value { value: Option<u32> },
    Pairs { pairs: u32, next: Option<u32> },
    Ordered,
    // The next of the frame's members of groups, routes, or statuses.
    Members,
    Routes,
    Status,
    NotLeader { leader: Option<u64> },
    // The next of the frame's descriptors.
    StaleDescriptor { leader: Option<u64> },
    Busy { retry_after_ms: u32 },
    TooLarge { limit: String, limit_bytes: u64, bytes: u64 },
    Refused { why: String },
    Order { reason: u8, why: String },
    TooStale { leader: Option<u64> },
    Forgotten { now: u64 },
    Unknown,
}

#[derive(Archive, Serialize)]
enum OperationOutcome {
    Put,
    Deleted { existed: bool },
    Swapped { succeeded: bool, current: Option<u32> },
}

#[derive(Archive, Serialize)]
struct Pair {
    key: u32,
    value: u32,
}

#[derive(Archive, Serialize)]
struct Descriptor {
    group: u64,
    start: u32,
    end: Option<u32>,
    // The next so many of the frame's members.
    members: u32,
    generation: u64,
}

#[derive(Archive, Serialize)]
struct Member {
    node: u64,
    replica: u64,
}

#[derive(Archive, Serialize)]
struct Routes {
    node: u64,
    cores: u16,
    nodes: Vec<NodeAddress>,
    // The leaders of the next so many of the frame's descriptors.
    leaders: Vec<Option<u64>>,
}

#[derive(Archive, Serialize)]
struct NodeAddress {
    node: u64,
    address: String,
}

#[derive(Archive, Serialize)]
struct CoreStatus {
    node: u64,
    core: u16,
    incarnation: u64,
    standing: u8,
    counters: Counters,
    groups: Vec<GroupStatus>,
}

#[derive(Archive, Serialize)]
struct GroupStatus {
    group: u64,
    role: u8,
    term: u64,
    leader: Option<u64>,
    last: LogId,
    durable: u64,
    committed: u64,
    applied: u64,
    checkpoint: LogId,
    log_bytes: u64,
    condition: u8,
    priority: u8,
}

#[derive(Archive, Serialize)]
struct GroupMembers {
    group: u64,
    generation: u64,
    leader: u64,
    term: u64,
    last: u64,
    is_changing: bool,
    members: Vec<GroupMember>,
}

#[derive(Archive, Serialize)]
struct GroupMember {
    node: u64,
    replica: u64,
    standing: u8,
    matched: u64,
    follows: bool,
}

/// Declares the counters once, for both directions.
macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Archive, Serialize)]
        struct Counters {
            $($name: u64),*
        }

        impl From<client::Counters> for Counters {
            fn from(counters: client::Counters) -> Counters {
                Counters { $($name: counters.$name),* }
            }
        }

        impl ArchivedCounters {
            fn value(&self) -> client::Counters {
                client::Counters { $($name: self.$name.to_native()),* }
            }
        }
    };
}

counters!(
    turns,
    system_calls,
    syncs,
    log_groups,
    log_bytes,
    log_entries,
    log_writes,
    peer_frames,
    peer_messages,
    peer_bytes,
    client_frames,
    requests,
    replies,
    read_rounds,
    elections_won,
    applied_entries,
    cpu_ns,
    log_prepared_bytes,
    group_steps,
    leased_reads,
    index_questions,
    checkpoints,
    checkpoint_bytes,
    checkpoint_failures,
    snapshots_sent,
    snapshots_received,
);

/// What a frame without replies takes.
pub(crate) const FRAME_BYTES: usize = frame::HEADER_BYTES + size_of::<ArchivedReplyFrame>();

/// What a reply adds to a frame, the lists and the payload left aside.
pub(crate) const REPLY_BYTES: usize = size_of::<ArchivedReply>();

/// What the outcome of an operation adds to a frame, its payload left aside.
pub(crate) const OUTCOME_BYTES: usize = size_of::<ArchivedOperationOutcome>();

/// What a pair adds to a frame, its payload left aside.
pub(crate) const PAIR_BYTES: usize = size_of::<ArchivedPair>();

/// What a descriptor adds to a frame, its members and keys left aside.
pub(crate) const DESCRIPTOR_BYTES: usize = size_of::<ArchivedDescriptor>() + size_of::<ArchivedOption<u64_ule>>();

/// What a member adds to a frame.
pub(crate) const MEMBER_BYTES: usize = size_of::<ArchivedMember>();

/// What the members of a group add to a frame, the members left aside.
pub(crate) const MEMBERS_BYTES: usize = size_of::<ArchivedGroupMembers>();

/// What one of them adds.
pub(crate) const STANDING_BYTES: usize = size_of::<ArchivedGroupMember>();

/// What routes add to a frame, their nodes and descriptors left aside.
pub(crate) const ROUTES_BYTES: usize = size_of::<ArchivedRoutes>();

/// What a node of the routes adds to a frame, its address left aside.
pub(crate) const NODE_ADDRESS_BYTES: usize = size_of::<ArchivedNodeAddress>();

/// What a status adds to a frame, its groups left aside.
pub(crate) const STATUS_BYTES: usize = size_of::<ArchivedCoreStatus>();

/// What a group of a status adds to a frame.
pub(crate) const GROUP_STATUS_BYTES: usize = size_of::<ArchivedGroupStatus>();

/// Appends the frame to `out`.
pub(crate) fn encode(value: &client::ReplyFrame, out: &mut Vec<u8>) {
    let mut encoder = Encoder::default();
    encoder.metadata.replies.reserve_exact(value.replies.len());
    for reply in &value.replies {
        let result = encoder.result(&reply.result);
        encoder.metadata.replies.push(Reply { sequence: reply.sequence, result });
    }
    frame::write(FrameKind::Reply, &encoder.metadata, &encoder.parts.0, out);
}

/// The lists of a frame while they are filled.
#[derive(Default)]
struct Encoder<'a> {
    metadata: ReplyFrame,
    parts: Parts<'a>,
}

impl<'a> Encoder<'a> {
    fn result(&mut self, result: &'a Result<client::Outcome, client::Refusal>) -> ReplyResult {
        match result {
            Ok(outcome) => self.outcome(outcome),
            Err(refusal) => self.refusal(refusal),
        }
    }

    fn outcome(&mut self, outcome: &'a client::Outcome) -> ReplyResult {
        match outcome {
            client::Outcome::Written(outcomes) => {
                for outcome in outcomes {
                    let outcome = self.operation_outcome(outcome);
                    self.metadata.outcomes.push(outcome);
                }
                ReplyResult::Written { outcomes: length(outcomes.len()) }
            }
            client::Outcome::Value(value) => ReplyResult::Value { value: self.parts.add_option(value) },
            client::Outcome::Pairs { pairs, next } => {
                for (key, value) in pairs {
                    let pair = Pair { key: self.parts.add(key), value: self.parts.add(value) };
                    self.metadata.pairs.push(pair);
                }
                ReplyResult::Pairs { pairs: length(pairs.len()), next: self.parts.add_option(next) }
            }
            client::Outcome::Ordered => ReplyResult::Ordered,
            client::Outcome::Members(group) => {
                self.metadata.group_members.push(encode_members(group));
                ReplyResult::Members
            }
            client::Outcome::Routes(routes) => {
                self.routes(routes);
                ReplyResult::Routes
            }
            client::Outcome::Status(status) => {
                self.metadata.statuses.push(encode_status(status));
                ReplyResult::Status
            }
        }
    }

    fn refusal(&mut self, refusal: &'a client::Refusal) -> ReplyResult {
        match refusal {
            client::Refusal::NotLeader { leader } => ReplyResult::NotLeader { leader: leader.map(|node| node.0) },
            client::Refusal::StaleDescriptor { descriptor, leader } => {
                self.descriptor(descriptor);
                ReplyResult::StaleDescriptor { leader: leader.map(|node| node.0) }
            }
            client::Refusal::Busy { retry_after_ms } => ReplyResult::Busy { retry_after_ms: *retry_after_ms },
            client::Refusal::TooLarge { limit, limit_bytes, bytes } => {
                ReplyResult::TooLarge { limit: limit.clone(), limit_bytes: *limit_bytes, bytes: *bytes }
            }
            client::Refusal::Refused { why } => ReplyResult::Refused { why: why.clone() },
            client::Refusal::Order { reason, why } => ReplyResult::Order { reason: *reason as u8, why: why.clone() },
            client::Refusal::TooStale { leader } => ReplyResult::TooStale { leader: leader.map(|node| node.0) },
            client::Refusal::Forgotten { now } => ReplyResult::Forgotten { now: now.0 },
            client::Refusal::Unknown => ReplyResult::Unknown,
        }
    }

    fn operation_outcome(&mut self, outcome: &'a client::OperationOutcome) -> OperationOutcome {
        match outcome {
            client::OperationOutcome::Put => OperationOutcome::Put,
            client::OperationOutcome::Deleted { existed } => OperationOutcome::Deleted { existed: *existed },
            client::OperationOutcome::Swapped { succeeded, current } => {
                OperationOutcome::Swapped { succeeded: *succeeded, current: self.parts.add_option(current) }
            }
        }
    }

    fn descriptor(&mut self, descriptor: &'a types::Descriptor) {
        let archived = Descriptor {
            group: descriptor.group.0,
            start: self.parts.add(&descriptor.range.start),
            end: self.parts.add_option(&descriptor.range.end),
            members: length(descriptor.members.len()),
            generation: descriptor.generation.0,
        };
        self.metadata.descriptors.push(archived);
        let members = descriptor.members.iter();
        self.metadata.members.extend(members.map(|member| Member { node: member.node.0, replica: member.replica.0 }));
    }

    fn routes(&mut self, routes: &'a client::Routes) {
        for (descriptor, _) in &routes.ranges {
            self.descriptor(descriptor);
        }
        self.metadata.routes.push(Routes {
            node: routes.node.0,
            cores: routes.cores,
            nodes: routes
                .nodes
                .iter()
                .map(|(node, address)| NodeAddress { node: node.0, address: address.clone() })
                .collect(),
            leaders: routes.ranges.iter().map(|(_, leader)| leader.map(|node| node.0)).collect(),
        });
    }
}

fn encode_members(group: &order::GroupMembers) -> GroupMembers {
    GroupMembers {
        group: group.group.0,
        generation: group.generation.0,
        leader: group.leader.0,
        term: group.term.0,
        last: group.last.0,
        is_changing: group.is_changing,
        members: group
            .members
            .iter()
            .map(|member| GroupMember {
                node: member.node.0,
                replica: member.replica.0,
                standing: member.standing as u8,
                matched: member.matched.0,
                follows: member.follows,
            })
            .collect(),
    }
}

fn encode_status(status: &client::CoreStatus) -> CoreStatus {
    CoreStatus {
        node: status.node.0,
        core: status.core.0,
        incarnation: status.incarnation.0,
        standing: status.standing as u8,
        counters: status.counters.into(),
        groups: status
            .groups
            .iter()
            .map(|group| GroupStatus {
                group: group.group.0,
                role: group.role as u8,
                term: group.term.0,
                leader: group.leader.map(|node| node.0),
                last: group.last.into(),
                durable: group.durable.0,
                committed: group.committed.0,
                applied: group.applied.0,
                checkpoint: group.checkpoint.into(),
                log_bytes: group.log_bytes,
                condition: group.condition as u8,
                priority: group.priority,
            })
            .collect(),
    }
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: Bytes) -> Result<client::ReplyFrame, FrameError> {
    let opened = Opened::new(bytes, FrameKind::Reply)?;
    let metadata = opened.metadata::<ArchivedReplyFrame>()?;
    let mut decoder = Decoder {
        outcomes: Shares(&metadata.outcomes),
        pairs: Shares(&metadata.pairs),
        descriptors: Shares(&metadata.descriptors),
        members: Shares(&metadata.members),
        routes: Shares(&metadata.routes),
        statuses: Shares(&metadata.statuses),
        group_members: Shares(&metadata.group_members),
        payload: opened.payload(),
    };
    let mut replies = Vec::with_capacity(metadata.replies.len());
    for reply in metadata.replies.iter() {
        let result = decoder.result(&reply.result)?;
        replies.push(client::Reply { sequence: reply.sequence.to_native(), result });
    }
    decoder.finish()?;
    Ok(client::ReplyFrame { replies })
}

/// What is left of the lists of a frame while they are read.
struct Decoder<'a> {
    outcomes: Shares<'a, ArchivedOperationOutcome>,
    pairs: Shares<'a, ArchivedPair>,
    descriptors: Shares<'a, ArchivedDescriptor>,
    members: Shares<'a, ArchivedMember>,
    routes: Shares<'a, ArchivedRoutes>,
    statuses: Shares<'a, ArchivedCoreStatus>,
    group_members: Shares<'a, ArchivedGroupMembers>,
    payload: Cursor,
}

impl Decoder<'_> {
    fn result(&mut self, result: &ArchivedReplyResult) -> Result<Result<client::Outcome, client::Refusal>, FrameError> {
        Ok(match result {
            ArchivedReplyResult::Written { outcomes } => Ok(self.written(outcomes.to_native())?),
            ArchivedReplyResult::Value { value } => Ok(client::Outcome::Value(self.optional(value)?)),
            ArchivedReplyResult::Pairs { pairs, next } => Ok(self.pairs(pairs.to_native(), next)?),
            ArchivedReplyResult::Ordered => Ok(client::Outcome::Ordered),
            ArchivedReplyResult::Members => Ok(client::Outcome::Members(decode_members(self.group_members.one()?)?)),
            ArchivedReplyResult::Routes => Ok(client::Outcome::Routes(self.routes()?)),
            ArchivedReplyResult::Status => Ok(client::Outcome::Status(decode_status(self.statuses.one()?)?)),
            ArchivedReplyResult::NotLeader { leader } => Err(client::Refusal::NotLeader { leader: node(leader) }),
            ArchivedReplyResult::StaleDescriptor { leader } => {
                Err(client::Refusal::StaleDescriptor { descriptor: self.descriptor()?, leader: node(leader) })
            }
            ArchivedReplyResult::Busy { retry_after_ms } => {
                Err(client::Refusal::Busy { retry_after_ms: retry_after_ms.to_native() })
            }
            ArchivedReplyResult::TooLarge { limit, limit_bytes, bytes } => Err(client::Refusal::TooLarge {
                limit: limit.as_str().to_owned(),
                limit_bytes: limit_bytes.to_native(),
                bytes: bytes.to_native(),
            }),
            ArchivedReplyResult::Refused { why } => Err(client::Refusal::Refused { why: why.as_str().to_owned() }),
            ArchivedReplyResult::Order { reason, why } => Err(client::Refusal::Order {
                reason: OrderReason::from_code(*reason).ok_or(FrameError::Value { field: "reason" })?,
                why: why.as_str().to_owned(),
            }),
            ArchivedReplyResult::TooStale { leader } => Err(client::Refusal::TooStale { leader: node(leader) }),
            ArchivedReplyResult::Forgotten { now } => {
                Err(client::Refusal::Forgotten { now: SessionTime(now.to_native()) })
            }
            ArchivedReplyResult::Unknown => Err(client::Refusal::Unknown),
        })
    }

    fn written(&mut self, count: u32) -> Result<client::Outcome, FrameError> {
        let share = self.outcomes.take(count as usize)?;
        let mut outcomes = Vec::with_capacity(share.len());
        for outcome in share {
            outcomes.push(match outcome {
                ArchivedOperationOutcome::Put => client::OperationOutcome::Put,
                ArchivedOperationOutcome::Deleted { existed } => {
                    client::OperationOutcome::Deleted { existed: *existed }
                }
                ArchivedOperationOutcome::Swapped { succeeded, current } => {
                    client::OperationOutcome::Swapped { succeeded: *succeeded, current: self.optional(current)? }
                }
            });
        }
        Ok(client::Outcome::Written(outcomes))
    }

    fn pairs(&mut self, count: u32, next: &ArchivedOption<u32_ule>) -> Result<client::Outcome, FrameError> {
        let share = self.pairs.take(count as usize)?;
        let mut pairs = Vec::with_capacity(share.len());
        for pair in share {
            pairs.push((self.payload.take(pair.key.to_native())?, self.payload.take(pair.value.to_native())?));
        }
        Ok(client::Outcome::Pairs { pairs, next: self.optional(next)? })
    }

    fn descriptor(&mut self) -> Result<types::Descriptor, FrameError> {
        let archived = self.descriptors.one()?;
        // A router keeps the keys for long; slices would keep the whole receive buffer as long.
        let start = self.payload.copy(archived.start.to_native())?;
        let end = archived.end.as_ref().map(|end| self.payload.copy(end.to_native())).transpose()?;
        let members = self.members.take(archived.members.to_native() as usize)?;
        Ok(types::Descriptor {
            group: GroupId(archived.group.to_native()),
            range: types::KeyRange { start, end },
            members: members
                .iter()
                .map(|member| types::Member {
                    node: NodeId(member.node.to_native()),
                    replica: ReplicaId(member.replica.to_native()),
                })
                .collect(),
            generation: Generation(archived.generation.to_native()),
        })
    }

    fn routes(&mut self) -> Result<client::Routes, FrameError> {
        let archived = self.routes.one()?;
        let mut ranges = Vec::with_capacity(archived.leaders.len());
        for leader in archived.leaders.iter() {
            ranges.push((self.descriptor()?, node(leader)));
        }
        Ok(client::Routes {
            node: NodeId(archived.node.to_native()),
            cores: archived.cores.to_native(),
            nodes: archived
                .nodes
                .iter()
                .map(|node| (NodeId(node.node.to_native()), node.address.as_str().to_owned()))
                .collect(),
            ranges,
        })
    }

    fn optional(&mut self, length: &ArchivedOption<u32_ule>) -> Result<Option<Bytes>, FrameError> {
        length.as_ref().map(|length| self.payload.take(length.to_native())).transpose()
    }

    /// Refuses whatever no reply owns.
    fn finish(self) -> Result<(), FrameError> {
        self.outcomes.finish()?;
        self.pairs.finish()?;
        self.descriptors.finish()?;
        self.members.finish()?;
        self.routes.finish()?;
        self.statuses.finish()?;
        self.group_members.finish()?;
        self.payload.finish()
    }
}

fn decode_members(archived: &ArchivedGroupMembers) -> Result<order::GroupMembers, FrameError> {
    let mut members = Vec::with_capacity(archived.members.len());
    for member in archived.members.iter() {
        members.push(order::GroupMember {
            node: NodeId(member.node.to_native()),
            replica: ReplicaId(member.replica.to_native()),
            standing: MemberStanding::from_code(member.standing).ok_or(FrameError::Value { field: "standing" })?,
            matched: Index(member.matched.to_native()),
            follows: member.follows,
        });
    }
    Ok(order::GroupMembers {
        group: GroupId(archived.group.to_native()),
        generation: Generation(archived.generation.to_native()),
        leader: NodeId(archived.leader.to_native()),
        term: Term(archived.term.to_native()),
        last: Index(archived.last.to_native()),
        is_changing: archived.is_changing,
        members,
    })
}

fn decode_status(status: &ArchivedCoreStatus) -> Result<client::CoreStatus, FrameError> {
    let mut groups = Vec::with_capacity(status.groups.len());
    for group in status.groups.iter() {
        groups.push(client::GroupStatus {
            group: GroupId(group.group.to_native()),
            role: client::GroupRole::from_code(group.role).ok_or(FrameError::Value { field: "role" })?,
            term: Term(group.term.to_native()),
            leader: node(&group.leader),
            last: group.last.value(),
            durable: Index(group.durable.to_native()),
            committed: Index(group.committed.to_native()),
            applied: Index(group.applied.to_native()),
            checkpoint: group.checkpoint.value(),
            log_bytes: group.log_bytes.to_native(),
            condition: client::Condition::from_code(group.condition).ok_or(FrameError::Value { field: "condition" })?,
            priority: group.priority,
        });
    }
    Ok(client::CoreStatus {
        node: NodeId(status.node.to_native()),
        core: CoreId(status.core.to_native()),
        incarnation: Incarnation(status.incarnation.to_native()),
        standing: client::CoreStanding::from_code(status.standing).ok_or(FrameError::Value { field: "standing" })?,
        counters: status.counters.value(),
        groups,
    })
}

fn node(node: &ArchivedOption<u64_ule>) -> Option<NodeId> {
    node.as_ref().map(|node| NodeId(node.to_native()))
}
