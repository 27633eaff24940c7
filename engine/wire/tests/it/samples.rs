//! One value of each kind with every variant in it. Golden bytes and damage are made from these.

use bytes::Bytes;
use pontoon_types::{
    Body, ChunkNumber, ClientId, ClusterId, CoreId, Descriptor, Entry, Generation, GroupId, Incarnation, Index,
    KeyRange, LogId, LogMark, Member, Message, NodeId, Permit, ReplicaId, RequestId, SessionId, SessionTime, Term,
};
use pontoon_wire::client::{
    Condition, CoreStanding, CoreStatus, Counters, GroupRole, GroupStatus, Operation, OperationOutcome, Outcome,
    ReadLevel, Refusal, Reply, ReplyFrame, Request, RequestFrame, Routes,
};
use pontoon_wire::command::{Command, KvOperation};
use pontoon_wire::hello::{Caller, Hello, HelloRefusal, Welcome};
use pontoon_wire::order::{GroupMember, GroupMembers, MemberStanding, Order, OrderReason};
use pontoon_wire::peer::{
    Beacon, Claim, ClaimPage, ClaimSummary, Health, IndexAnswer, IndexQuestion, Listing, PeerFrame, Promise,
    ReadConfirmation, ReadRound, Registration, SnapshotBody, SnapshotMessage, SnapshotOffer, SupportLeft, Verdict,
};

fn id(index: u64, term: u64) -> LogId {
    LogId::new(Index(index), Term(term))
}

fn entry(index: u64, term: u64, payload: &'static str) -> Entry {
    Entry::command(id(index, term), Bytes::from_static(payload.as_bytes()))
}

fn message(group: u64, body: Body) -> (GroupId, Message) {
    (GroupId(group), Message { from: ReplicaId(1), to: ReplicaId(2), term: Term(5), body })
}

pub(crate) fn hello_peer() -> Hello {
    Hello {
        cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        from: Caller::Peer { node: NodeId(1), core: CoreId(2), to: NodeId(3), cores: 4, segment_bytes: 32 << 20 },
        core: CoreId(2),
        version_min: 1,
        version_max: 1,
    }
}

pub(crate) fn hello_client() -> Hello {
    Hello {
        cluster: ClusterId(0),
        from: Caller::Client(ClientId(0xfeed_0000_0000_0000_0000_0000_0000_beef)),
        core: CoreId(1),
        version_min: 1,
        version_max: 9,
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome { cluster: ClusterId(77), node: NodeId(3), cores: 4, version: 1, refusal: None }
}

pub(crate) fn welcome_refused() -> Welcome {
    let refusal = HelloRefusal::LargerSegments { caller_bytes: 32 << 20, own_bytes: 1 << 20 };
    Welcome { refusal: Some(refusal), version: 0, ..welcome() }
}

pub(crate) fn peer_empty() -> PeerFrame {
    PeerFrame::new(NodeId(1), CoreId(0), NodeId(2), Incarnation(1))
}

pub(crate) fn peer_full() -> PeerFrame {
    PeerFrame {
        from: NodeId(1),
        core: CoreId(1),
        to: NodeId(2),
        incarnation: Incarnation(7),
        mark: LogMark(4_321),
        beacon: Some(Beacon {
            sequence: 900,
            acknowledged: 899,
            acknowledged_incarnation: Incarnation(3),
            changes: vec![
                Claim { group: GroupId(4), term: Term(5), leads: true },
                Claim { group: GroupId(6), term: Term(2), leads: false },
            ],
            led: summary(&[(2, 1, 9), (4, 1, 5)]),
            followed: summary(&[(3, 20, 4)]),
            health: Health { turn_lag_ms: 3, sync_age_ms: 21 },
            wants: Some(GroupId(512)),
            page: Some(ClaimPage {
                from: GroupId(2),
                through: GroupId(40),
                claims: vec![
                    Listing { group: GroupId(2), term: Term(9), last: id(12, 9), commit: Index(11) },
                    Listing { group: GroupId(4), term: Term(5), last: id(9, 5), commit: Index(9) },
                ],
            }),
            wants_promise: true,
            promise: Some(Promise { epoch: 6, sequence: 899, length_us: 900_000 }),
            registration: Some(Registration { life: 0xfeed, log: 5 << 64 | 6, mark: LogMark(4_000), vouched: true }),
            verdict: Some(Verdict { life: 0xbeef, accepted: true, incarnation: Incarnation(12) }),
            refused: true,
        }),
        messages: vec![
            message(2, Body::PreVote { last: id(8, 3) }),
            message(2, Body::PreVoteResponse { granted: true }),
            message(3, Body::Vote { last: id(9, 4), permit: None }),
            message(3, Body::Vote { last: id(9, 4), permit: Some(Permit { leader: ReplicaId(3), term: Term(4) }) }),
            message(3, Body::VoteResponse { granted: false }),
            message(
                4,
                Body::Append {
                    previous: id(7, 4),
                    entries: vec![
                        entry(8, 5, ""),
                        entry(9, 5, "a command"),
                        Entry::configuration(id(10, 5), Bytes::from_static(b"members")),
                    ],
                    commit: Index(7),
                },
            ),
            message(5, Body::Append { previous: id(0, 0), entries: Vec::new(), commit: Index(0) }),
            message(6, Body::Append { previous: id(1, 1), entries: vec![entry(2, 2, "another")], commit: Index(1) }),
            message(7, Body::AppendResponse { matched: Index(10) }),
            message(8, Body::AppendRefused { refused: Index(12), hint: id(6, 2) }),
            message(9, Body::TimeoutNow),
        ],
        reads: vec![
            ReadRound { id: 41, groups: vec![(GroupId(4), Term(5)), (GroupId(6), Term(2))] },
            ReadRound { id: 42, groups: Vec::new() },
        ],
        confirmations: vec![ReadConfirmation {
            incarnation: Incarnation(3),
            id: 17,
            groups: vec![(GroupId(9), Term(1))],
        }],
        index_questions: vec![IndexQuestion { id: 8, groups: vec![GroupId(9), GroupId(11)] }],
        index_answers: vec![IndexAnswer {
            incarnation: Incarnation(3),
            id: 5,
            groups: vec![(GroupId(4), Some(Index(7))), (GroupId(6), None)],
        }],
        snapshots: snapshots(),
        support: vec![SupportLeft { node: NodeId(3), left_ms: 740 }],
    }
}

fn snapshots() -> Vec<SnapshotMessage> {
    let last = id(300, 4);
    let descriptor = Descriptor {
        group: GroupId(4),
        range: KeyRange { start: Bytes::from_static(b"f"), end: Some(Bytes::from_static(b"m")) },
        members: [Member { node: NodeId(1), replica: ReplicaId(1) }, Member { node: NodeId(4), replica: ReplicaId(9) }]
            .into(),
        generation: Generation(3),
    };
    let configuration = Bytes::from_static(b"members");
    let bodies = [
        SnapshotBody::Wanted,
        SnapshotBody::Parked { at: Index(8) },
        SnapshotBody::Offer(Box::new(SnapshotOffer {
            last,
            configuration,
            descriptor,
            chunks: 7,
            digest: 0xdead_beef,
        })),
        SnapshotBody::Chunk { last, number: ChunkNumber(6), bytes: Bytes::from_static(b"a chunk") },
        SnapshotBody::Credit { last, next: ChunkNumber(2), through: ChunkNumber(6) },
        SnapshotBody::Unwanted { last },
        SnapshotBody::Gone,
    ];
    let (group, from, to) = (GroupId(4), ReplicaId(1), ReplicaId(9));
    bodies.into_iter().map(|body| SnapshotMessage { group, from, to, body }).collect()
}

fn summary(claims: &[(u64, u64, u64)]) -> ClaimSummary {
    let mut summary = ClaimSummary::default();
    for (group, replica, term) in claims {
        summary.add(GroupId(*group), ReplicaId(*replica), Term(*term));
    }
    summary
}

pub(crate) fn requests() -> RequestFrame {
    let (group, generation) = (GroupId(2), Generation(3));
    let operations = [
        Operation::Write { group, generation, command: command().encode() },
        Operation::Get { group, generation, key: Bytes::from_static(b"key"), level: ReadLevel::Linearizable },
        Operation::Get { group, generation, key: Bytes::from_static(b"yek"), level: ReadLevel::Follower },
        Operation::Scan {
            group,
            generation,
            start: Bytes::new(),
            end: None,
            limit: 10,
            level: ReadLevel::Stale { max_age_ms: 1_500 },
        },
        Operation::Scan {
            group,
            generation,
            start: Bytes::from_static(b"a"),
            end: Some(Bytes::from_static(b"bcd")),
            limit: 1000,
            level: ReadLevel::Linearizable,
        },
        Operation::Order {
            group,
            generation: Some(generation),
            order: Order::Members {
                generation,
                voters: vec![NodeId(1), NodeId(2), NodeId(4)],
                learners: vec![NodeId(3)],
            },
        },
        Operation::Order { group, generation: None, order: Order::Transfer { term: Term(5), to: NodeId(4) } },
        Operation::Members { group, generation: Some(generation) },
        Operation::Prefer { group, priority: 8 },
        Operation::Routes,
        Operation::Status,
    ];
    let requests = operations.into_iter().zip(100..).map(|(operation, sequence)| Request { sequence, operation });
    RequestFrame { requests: requests.collect() }
}

pub(crate) fn descriptor() -> Descriptor {
    Descriptor {
        group: GroupId(2),
        range: KeyRange { start: Bytes::from_static(b"from"), end: Some(Bytes::from_static(b"to")) },
        members: [
            Member { node: NodeId(1), replica: ReplicaId(1) },
            Member { node: NodeId(2), replica: ReplicaId(20) },
        ]
        .into(),
        generation: Generation(3),
    }
}

fn counters() -> Counters {
    Counters {
        turns: 1,
        system_calls: 2,
        syncs: 3,
        log_groups: 4,
        log_bytes: 5,
        log_entries: 6,
        log_writes: 7,
        peer_frames: 8,
        peer_messages: 9,
        peer_bytes: 10,
        client_frames: 11,
        requests: 12,
        replies: 13,
        read_rounds: 14,
        elections_won: 15,
        applied_entries: 16,
        cpu_ns: 17,
        log_prepared_bytes: 18,
        group_steps: 19,
        leased_reads: 20,
        index_questions: 21,
        checkpoints: 22,
        checkpoint_bytes: 23,
        checkpoint_failures: 24,
        snapshots_sent: 25,
        snapshots_received: 26,
    }
}

fn group_status(group: u64, role: GroupRole) -> GroupStatus {
    GroupStatus {
        group: GroupId(group),
        role,
        term: Term(4),
        leader: (role == GroupRole::Follower).then_some(NodeId(3)),
        last: id(9, 4),
        durable: Index(8),
        committed: Index(7),
        applied: Index(6),
        checkpoint: id(5, 3),
        log_bytes: 30,
        condition: if role == GroupRole::Leader { Condition::Well } else { Condition::Unreadable },
        priority: if role == GroupRole::Leader { 0 } else { 8 },
    }
}

fn group_members() -> GroupMembers {
    let member = |standing: MemberStanding| GroupMember {
        node: NodeId(standing as u64),
        replica: ReplicaId(10 + standing as u64),
        standing,
        matched: Index(40 + standing as u64),
        follows: standing == MemberStanding::Voter,
    };
    GroupMembers {
        group: GroupId(2),
        generation: Generation(3),
        leader: NodeId(1),
        term: Term(5),
        last: Index(41),
        is_changing: true,
        members: MemberStanding::ALL.map(member).into(),
    }
}

pub(crate) fn replies() -> ReplyFrame {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let open = Descriptor { range: KeyRange { start: Bytes::new(), end: None }, ..descriptor() };
    let results = vec![
        Ok(Outcome::Written(vec![
            OperationOutcome::Put,
            OperationOutcome::Deleted { existed: true },
            OperationOutcome::Swapped { succeeded: false, current: Some(bytes("seen")) },
            OperationOutcome::Swapped { succeeded: true, current: None },
        ])),
        Ok(Outcome::Written(vec![OperationOutcome::Deleted { existed: false }])),
        Ok(Outcome::Value(Some(bytes("value")))),
        Ok(Outcome::Value(Some(Bytes::new()))),
        Ok(Outcome::Value(None)),
        Ok(Outcome::Pairs {
            pairs: vec![(bytes("k1"), bytes("v1")), (bytes("k2"), bytes(""))],
            next: Some(bytes("k3")),
        }),
        Ok(Outcome::Pairs { pairs: Vec::new(), next: None }),
        Ok(Outcome::Routes(Routes {
            node: NodeId(1),
            cores: 2,
            nodes: vec![(NodeId(1), "127.0.0.1:7400".to_string()), (NodeId(2), "db-2.example:7400".to_string())],
            ranges: vec![(open, Some(NodeId(2))), (descriptor(), None)],
        })),
        Ok(Outcome::Status(CoreStatus {
            node: NodeId(1),
            core: CoreId(1),
            incarnation: Incarnation(6),
            standing: CoreStanding::Refused,
            counters: counters(),
            groups: vec![
                group_status(2, GroupRole::Follower),
                group_status(3, GroupRole::PreCandidate),
                group_status(4, GroupRole::Candidate),
                group_status(5, GroupRole::Leader),
                group_status(6, GroupRole::Learner),
            ],
        })),
        Ok(Outcome::Ordered),
        Ok(Outcome::Members(group_members())),
        Err(Refusal::NotLeader { leader: Some(NodeId(2)) }),
        Err(Refusal::NotLeader { leader: None }),
        Err(Refusal::StaleDescriptor { descriptor: descriptor(), leader: Some(NodeId(1)) }),
        Err(Refusal::Busy { retry_after_ms: 50 }),
        Err(Refusal::TooLarge { limit: "KEY_BYTES_MAX".to_string(), limit_bytes: 4096, bytes: 4097 }),
        Err(Refusal::Refused { why: "a key holds at least one byte".to_string() }),
        Err(Refusal::TooStale { leader: Some(NodeId(2)) }),
        Err(Refusal::Forgotten { now: SessionTime(12) }),
        Err(Refusal::Unknown),
        Err(Refusal::Order { reason: OrderReason::NotReady, why: "n4 does not answer".to_string() }),
    ];
    let replies = results.into_iter().zip(500..).map(|(result, sequence)| Reply { sequence, result });
    ReplyFrame { replies: replies.collect() }
}

pub(crate) fn command() -> Command {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Command {
        id: RequestId {
            session: SessionId { client: ClientId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), opened: SessionTime(7) },
            sequence: 99,
        },
        floor: 98,
        operations: vec![
            KvOperation::Put { key: bytes("k"), value: bytes("value") },
            KvOperation::Delete { key: bytes("gone") },
            KvOperation::CompareAndSet { key: bytes("c"), expected: Some(bytes("old")), value: None },
            KvOperation::CompareAndSet { key: bytes("d"), expected: None, value: Some(bytes("")) },
        ],
    }
}

/// Encodes into fresh memory.
pub(crate) fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    encode(&mut out);
    Bytes::from(out)
}

/// A decoder that forgets the value.
pub(crate) type Decode = fn(Bytes) -> Result<(), String>;

/// The decoders, by the kind of frame or record that they read.
pub(crate) const DECODERS: [(&str, Decode); 6] = [
    ("hello", |bytes| match bytes.as_ref().try_into() {
        Ok(bytes) => Hello::decode(bytes).map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("another length".to_string()),
    }),
    ("welcome", |bytes| match bytes.as_ref().try_into() {
        Ok(bytes) => Welcome::decode(bytes).map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("another length".to_string()),
    }),
    ("peer", |bytes| PeerFrame::decode(bytes).map(drop).map_err(|error| error.to_string())),
    ("request", |bytes| RequestFrame::decode(bytes).map(drop).map_err(|error| error.to_string())),
    ("reply", |bytes| ReplyFrame::decode(bytes).map(drop).map_err(|error| error.to_string())),
    ("command", |bytes| Command::decode(bytes).map(drop).map_err(|error| error.to_string())),
];

/// The decoder of a kind.
pub(crate) fn decoder(kind: &str) -> Decode {
    DECODERS.iter().find(|(name, _)| *name == kind).expect("the kind is one of the list").1
}

/// All samples: the name of the golden file, the kind, the bytes.
pub(crate) fn all() -> Vec<(&'static str, &'static str, Bytes)> {
    vec![
        ("hello_peer", "hello", Bytes::copy_from_slice(&hello_peer().encode())),
        ("hello_client", "hello", Bytes::copy_from_slice(&hello_client().encode())),
        ("welcome", "welcome", Bytes::copy_from_slice(&welcome().encode())),
        ("welcome_refused", "welcome", Bytes::copy_from_slice(&welcome_refused().encode())),
        ("peer_empty", "peer", encoded(|out| peer_empty().encode(out))),
        ("peer_full", "peer", encoded(|out| peer_full().encode(out))),
        ("request", "request", encoded(|out| requests().encode(out))),
        ("reply", "reply", encoded(|out| replies().encode(out))),
        ("command", "command", command().encode()),
    ]
}
