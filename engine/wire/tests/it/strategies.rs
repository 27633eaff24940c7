//! Values of every shape, for properties.

use bytes::Bytes;
use pontoon_types::{
    Body, ChunkNumber, ClientId, CoreId, Descriptor, Entry, EntryKind, Generation, GroupId, Incarnation, Index,
    KeyRange, LogId, LogMark, Member, Message, NodeId, Permit, ReplicaId, RequestId, SessionId, SessionTime, Term,
};
use pontoon_wire::client::{
    Condition, CoreStanding, CoreStatus, Counters, GroupRole, GroupStatus, Operation, OperationOutcome, Outcome,
    ReadLevel, Refusal, Reply, ReplyFrame, Request, RequestFrame, Routes,
};
use pontoon_wire::command::{Command, KvOperation};
use pontoon_wire::order::{GroupMember, GroupMembers, MemberStanding, Order, OrderReason};
use pontoon_wire::peer::{
    Beacon, Claim, ClaimPage, ClaimSummary, Health, IndexAnswer, IndexQuestion, Listing, PeerFrame, Promise,
    ReadConfirmation, ReadRound, Registration, SnapshotBody, SnapshotMessage, SnapshotOffer, SupportLeft, Verdict,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn log_id() -> impl Strategy<Value = LogId> {
    any::<(u64, u64)>().prop_map(|(index, term)| LogId::new(Index(index), Term(term)))
}

fn append() -> impl Strategy<Value = Body> {
    let entries = vec((any::<u64>(), blob()), 0..5);
    (0..u64::MAX - 5, any::<u64>(), entries, any::<u64>()).prop_map(|(index, term, entries, commit)| Body::Append {
        previous: LogId::new(Index(index), Term(term)),
        entries: entries
            .into_iter()
            .zip(index + 1..)
            .map(|((term, payload), index)| {
                let kind = if term % 3 == 0 { EntryKind::Configuration } else { EntryKind::Command };
                Entry { id: LogId::new(Index(index), Term(term)), kind, payload }
            })
            .collect(),
        commit: Index(commit),
    })
}

fn message() -> impl Strategy<Value = (GroupId, Message)> {
    let body = prop_oneof![
        log_id().prop_map(|last| Body::PreVote { last }),
        any::<bool>().prop_map(|granted| Body::PreVoteResponse { granted }),
        (log_id(), proptest::option::of(any::<(u64, u64)>())).prop_map(|(last, permit)| {
            let permit = permit.map(|(leader, term)| Permit { leader: ReplicaId(leader), term: Term(term) });
            Body::Vote { last, permit }
        }),
        Just(Body::TimeoutNow),
        any::<bool>().prop_map(|granted| Body::VoteResponse { granted }),
        append(),
        any::<u64>().prop_map(|matched| Body::AppendResponse { matched: Index(matched) }),
        (any::<u64>(), log_id()).prop_map(|(refused, hint)| Body::AppendRefused { refused: Index(refused), hint }),
    ];
    (any::<[u64; 4]>(), body).prop_map(|([group, from, to, term], body)| {
        (GroupId(group), Message { from: ReplicaId(from), to: ReplicaId(to), term: Term(term), body })
    })
}

fn groups() -> impl Strategy<Value = Vec<(GroupId, Term)>> {
    vec(any::<(u64, u64)>().prop_map(|(group, term)| (GroupId(group), Term(term))), 0..4)
}

fn beacon() -> impl Strategy<Value = Beacon> {
    let changes = vec(
        any::<(u64, u64, bool)>().prop_map(|(group, term, leads)| Claim {
            group: GroupId(group),
            term: Term(term),
            leads,
        }),
        0..4,
    );
    let promise =
        option::of(any::<[u64; 3]>().prop_map(|[epoch, sequence, length_us]| Promise { epoch, sequence, length_us }));
    let summary = || any::<(u64, u128)>().prop_map(|(count, hash)| ClaimSummary { count, hash });
    let wants = option::of(any::<u64>().prop_map(GroupId));
    let rest =
        (summary(), summary(), any::<(u32, u32)>(), wants, option::of(page()), (any::<bool>(), promise), about_logs());
    (any::<[u64; 3]>(), changes, rest).prop_map(
        |(
            [sequence, acknowledged, incarnation],
            changes,
            (led, followed, health, wants, page, (wants_promise, promise), (registration, verdict, refused)),
        )| {
            Beacon {
                sequence,
                acknowledged,
                acknowledged_incarnation: Incarnation(incarnation),
                changes,
                led,
                followed,
                health: Health { turn_lag_ms: health.0, sync_age_ms: health.1 },
                wants,
                page,
                wants_promise,
                promise,
                registration,
                verdict,
                refused,
            }
        },
    )
}

fn about_logs() -> impl Strategy<Value = (Option<Registration>, Option<Verdict>, bool)> {
    let registration = any::<(u64, u128, u64, bool)>().prop_map(|(life, log, mark, vouched)| Registration {
        life,
        log,
        mark: LogMark(mark),
        vouched,
    });
    let verdict = any::<(u64, bool, u64)>().prop_map(|(life, accepted, incarnation)| Verdict {
        life,
        accepted,
        incarnation: Incarnation(incarnation),
    });
    (option::of(registration), option::of(verdict), any::<bool>())
}

fn page() -> impl Strategy<Value = ClaimPage> {
    let listing = (any::<[u64; 3]>(), log_id()).prop_map(|([group, term, commit], last)| Listing {
        group: GroupId(group),
        term: Term(term),
        last,
        commit: Index(commit),
    });
    (any::<[u64; 2]>(), vec(listing, 0..4)).prop_map(|([from, through], claims)| ClaimPage {
        from: GroupId(from),
        through: GroupId(through),
        claims,
    })
}

fn index_question() -> impl Strategy<Value = IndexQuestion> {
    (any::<u64>(), vec(any::<u64>().prop_map(GroupId), 0..4)).prop_map(|(id, groups)| IndexQuestion { id, groups })
}

fn index_answer() -> impl Strategy<Value = IndexAnswer> {
    let group = (any::<u64>(), option::of(any::<u64>())).prop_map(|(group, index)| (GroupId(group), index.map(Index)));
    (any::<(u64, u64)>(), vec(group, 0..4)).prop_map(|((incarnation, id), groups)| IndexAnswer {
        incarnation: Incarnation(incarnation),
        id,
        groups,
    })
}

fn snapshot() -> impl Strategy<Value = SnapshotMessage> {
    let numbers = || any::<(u64, u64)>().prop_map(|(one, other)| (ChunkNumber(one), ChunkNumber(other)));
    let body = prop_oneof![
        Just(SnapshotBody::Wanted),
        any::<u64>().prop_map(|at| SnapshotBody::Parked { at: Index(at) }),
        Just(SnapshotBody::Gone),
        log_id().prop_map(|last| SnapshotBody::Unwanted { last }),
        (log_id(), numbers()).prop_map(|(last, (next, through))| SnapshotBody::Credit { last, next, through }),
        (log_id(), any::<u64>(), blob()).prop_map(|(last, number, bytes)| SnapshotBody::Chunk {
            last,
            number: ChunkNumber(number),
            bytes,
        }),
        (log_id(), blob(), descriptor(), any::<(u64, u32)>()).prop_map(
            |(last, configuration, descriptor, (chunks, digest))| {
                SnapshotBody::Offer(Box::new(SnapshotOffer { last, configuration, descriptor, chunks, digest }))
            }
        ),
    ];
    (any::<(u64, u64, u64)>(), body).prop_map(|((group, from, to), mut body)| {
        if let SnapshotBody::Offer(offer) = &mut body {
            // The descriptor of an offer is that of its group.
            offer.descriptor.group = GroupId(group);
        }
        SnapshotMessage { group: GroupId(group), from: ReplicaId(from), to: ReplicaId(to), body }
    })
}

pub(crate) fn peer_frame() -> impl Strategy<Value = PeerFrame> {
    let reads = vec((any::<u64>(), groups()).prop_map(|(id, groups)| ReadRound { id, groups }), 0..3);
    let confirmations = vec(
        (any::<(u64, u64)>(), groups()).prop_map(|((incarnation, id), groups)| ReadConfirmation {
            incarnation: Incarnation(incarnation),
            id,
            groups,
        }),
        0..3,
    );
    let support = any::<(u64, u32)>().prop_map(|(node, left_ms)| SupportLeft { node: NodeId(node), left_ms });
    let about_reads = (reads, confirmations, vec(index_question(), 0..3), vec(index_answer(), 0..3));
    let head = any::<(u64, u16, u64, u64, u64)>();
    let about_groups = (vec(message(), 0..6), vec(snapshot(), 0..3));
    (head, option::of(beacon()), about_groups, about_reads, vec(support, 0..3)).prop_map(
        |((from, core, to, incarnation, mark), beacon, (messages, snapshots), about_reads, support)| PeerFrame {
            from: NodeId(from),
            core: CoreId(core),
            to: NodeId(to),
            incarnation: Incarnation(incarnation),
            mark: LogMark(mark),
            beacon,
            messages,
            reads: about_reads.0,
            confirmations: about_reads.1,
            index_questions: about_reads.2,
            index_answers: about_reads.3,
            snapshots,
            support,
        },
    )
}

fn level() -> impl Strategy<Value = ReadLevel> {
    prop_oneof![
        Just(ReadLevel::Linearizable),
        Just(ReadLevel::Follower),
        any::<u32>().prop_map(|max_age_ms| ReadLevel::Stale { max_age_ms }),
    ]
}

pub(crate) fn request_frame() -> impl Strategy<Value = RequestFrame> {
    let at = || any::<(u64, u64)>().prop_map(|(group, generation)| (GroupId(group), Generation(generation)));
    let operation = prop_oneof![
        (at(), blob()).prop_map(|((group, generation), command)| Operation::Write { group, generation, command }),
        (at(), blob(), level()).prop_map(|((group, generation), key, level)| Operation::Get {
            group,
            generation,
            key,
            level
        }),
        (at(), blob(), option::of(blob()), any::<u32>(), level()).prop_map(
            |((group, generation), start, end, limit, level)| {
                Operation::Scan { group, generation, start, end, limit, level }
            }
        ),
        (any::<u64>(), option::of(any::<u64>()), order()).prop_map(|(group, generation, order)| Operation::Order {
            group: GroupId(group),
            generation: generation.map(Generation),
            order,
        }),
        (any::<u64>(), option::of(any::<u64>())).prop_map(|(group, generation)| Operation::Members {
            group: GroupId(group),
            generation: generation.map(Generation),
        }),
        any::<(u64, u8)>().prop_map(|(group, priority)| Operation::Prefer { group: GroupId(group), priority }),
        Just(Operation::Routes),
        Just(Operation::Status),
    ];
    let request = (any::<u64>(), operation).prop_map(|(sequence, operation)| Request { sequence, operation });
    vec(request, 0..8).prop_map(|requests| RequestFrame { requests })
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        (any::<u64>(), vec(node(), 0..6), vec(node(), 0..6)).prop_map(|(generation, voters, learners)| {
            Order::Members { generation: Generation(generation), voters, learners }
        }),
        (any::<u64>(), node()).prop_map(|(term, to)| Order::Transfer { term: Term(term), to }),
    ]
}

fn group_members() -> impl Strategy<Value = GroupMembers> {
    let standing = proptest::sample::select(MemberStanding::ALL.as_slice());
    let member =
        (any::<(u64, u64, u64, bool)>(), standing).prop_map(|((node, replica, matched, follows), standing)| {
            GroupMember { node: NodeId(node), replica: ReplicaId(replica), standing, matched: Index(matched), follows }
        });
    (any::<[u64; 5]>(), any::<bool>(), vec(member, 0..6)).prop_map(|(n, is_changing, members)| GroupMembers {
        group: GroupId(n[0]),
        generation: Generation(n[1]),
        leader: NodeId(n[2]),
        term: Term(n[3]),
        last: Index(n[4]),
        is_changing,
        members,
    })
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let members = vec(
        any::<(u64, u64)>().prop_map(|(node, replica)| Member { node: NodeId(node), replica: ReplicaId(replica) }),
        0..4,
    );
    (any::<(u64, u64)>(), blob(), option::of(blob()), members).prop_map(|((group, generation), start, end, members)| {
        Descriptor {
            group: GroupId(group),
            range: KeyRange { start, end },
            members: members.into(),
            generation: Generation(generation),
        }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let operation = prop_oneof![
        Just(OperationOutcome::Put),
        any::<bool>().prop_map(|existed| OperationOutcome::Deleted { existed }),
        (any::<bool>(), option::of(blob()))
            .prop_map(|(succeeded, current)| OperationOutcome::Swapped { succeeded, current }),
    ];
    let routes = (any::<(u64, u16)>(), vec((node(), ".{0,20}"), 0..3), vec((descriptor(), option::of(node())), 0..4))
        .prop_map(|((node, cores), nodes, ranges)| Routes { node: NodeId(node), cores, nodes, ranges });
    prop_oneof![
        vec(operation, 0..4).prop_map(Outcome::Written),
        option::of(blob()).prop_map(Outcome::Value),
        (vec((blob(), blob()), 0..4), option::of(blob())).prop_map(|(pairs, next)| Outcome::Pairs { pairs, next }),
        Just(Outcome::Ordered),
        group_members().prop_map(Outcome::Members),
        routes.prop_map(Outcome::Routes),
        status().prop_map(Outcome::Status),
    ]
}

fn status() -> impl Strategy<Value = CoreStatus> {
    let standing =
        prop_oneof![Just(CoreStanding::Registered), Just(CoreStanding::Waiting), Just(CoreStanding::Refused)];
    use GroupRole::*;
    let roles = [Follower, PreCandidate, Candidate, Leader, Learner];
    let group = (any::<[u64; 10]>(), 0..5usize, option::of(node())).prop_map(move |(n, role, leader)| GroupStatus {
        group: GroupId(n[0]),
        role: roles[role],
        term: Term(n[1]),
        leader,
        last: LogId::new(Index(n[2]), Term(n[3])),
        durable: Index(n[4]),
        committed: Index(n[5]),
        applied: Index(n[6]),
        checkpoint: LogId::new(Index(n[7]), Term(n[8])),
        log_bytes: n[9],
        condition: if n[9].is_multiple_of(2) { Condition::Loading } else { Condition::Well },
        priority: n[9] as u8,
    });
    (any::<(u64, u16, u64)>(), standing, any::<[u64; 3]>(), vec(group, 0..3)).prop_map(
        |((node, core, incarnation), standing, n, groups)| CoreStatus {
            node: NodeId(node),
            core: CoreId(core),
            incarnation: Incarnation(incarnation),
            standing,
            counters: Counters { turns: n[0], syncs: n[1], log_prepared_bytes: n[2], ..Counters::default() },
            groups,
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        option::of(node()).prop_map(|leader| Refusal::NotLeader { leader }),
        (descriptor(), option::of(node()))
            .prop_map(|(descriptor, leader)| Refusal::StaleDescriptor { descriptor, leader }),
        any::<u32>().prop_map(|retry_after_ms| Refusal::Busy { retry_after_ms }),
        (".{0,20}", any::<(u64, u64)>()).prop_map(|(limit, (limit_bytes, bytes))| Refusal::TooLarge {
            limit,
            limit_bytes,
            bytes
        }),
        ".{0,20}".prop_map(|why| Refusal::Refused { why }),
        option::of(node()).prop_map(|leader| Refusal::TooStale { leader }),
        any::<u64>().prop_map(|now| Refusal::Forgotten { now: SessionTime(now) }),
        Just(Refusal::Unknown),
        (proptest::sample::select(OrderReason::ALL.as_slice()), ".{0,20}")
            .prop_map(|(reason, why)| Refusal::Order { reason, why }),
    ]
}

pub(crate) fn reply_frame() -> impl Strategy<Value = ReplyFrame> {
    let result = prop_oneof![outcome().prop_map(Ok), refusal().prop_map(Err)];
    let reply = (any::<u64>(), result).prop_map(|(sequence, result)| Reply { sequence, result });
    vec(reply, 0..6).prop_map(|replies| ReplyFrame { replies })
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let operation = prop_oneof![
        (blob(), blob()).prop_map(|(key, value)| KvOperation::Put { key, value }),
        blob().prop_map(|key| KvOperation::Delete { key }),
        (blob(), option::of(blob()), option::of(blob()))
            .prop_map(|(key, expected, value)| KvOperation::CompareAndSet { key, expected, value }),
    ];
    (any::<(u128, u64, u64, u64)>(), vec(operation, 0..6)).prop_map(
        |((client, opened, sequence, floor), operations)| {
            let session = SessionId { client: ClientId(client), opened: SessionTime(opened) };
            Command { id: RequestId { session, sequence }, floor, operations }
        },
    )
}
