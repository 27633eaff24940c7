//! Frames between the cores of two nodes.
//!
//! A core sends one [`PeerFrame`] for each peer and flush, with everything it has for that peer: messages of all
//! groups, the beacon when it is due, its questions about reads and its answers to the peer's. The entries' payloads
//! follow the metadata as they are, each with its own checksum, and decode as slices of the frame.
//!
//! A beacon has the same size for ten groups and for ten thousand: what its sender leads is a count and a hash
//! ([`ClaimSummary`]), and the list itself is sent in pages to a receiver that asks for it.

use bytes::Bytes;
use pontoon_types::{
    Body, ChunkNumber, CoreId, Descriptor, GroupId, Incarnation, Index, LogId, LogMark, Message, NodeId, ReplicaId,
    Term,
};

use crate::frame::FrameError;
use crate::v1::peer as v1;

/// Everything that one core has for one peer at one flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFrame {
    /// The sending node.
    pub from: NodeId,
    /// The sending core.
    pub core: CoreId,
    /// The node it is meant for.
    pub to: NodeId,
    /// The sending core's incarnation (law 11).
    pub incarnation: Incarnation,
    /// How far the sender's log is durable: all that it has promised so far stands there (law 12).
    pub mark: LogMark,
    /// The beacon, when one is due.
    pub beacon: Option<Beacon>,
    /// Messages of groups, in the order in which they were sent.
    pub messages: Vec<(GroupId, Message)>,
    /// Questions: is this leader still the newest that the receiver knows?
    pub reads: Vec<ReadRound>,
    /// Answers to the receiver's questions.
    pub confirmations: Vec<ReadConfirmation>,
    /// Questions of followers: which index must be applied before a read is served?
    pub index_questions: Vec<IndexQuestion>,
    /// Answers to the receiver's questions of that kind.
    pub index_answers: Vec<IndexAnswer>,
    /// The traffic of snapshots.
    pub snapshots: Vec<SnapshotMessage>,
    /// Whom the sender supports, and for how long: it refuses pre-votes for what they lead (law 10).
    pub support: Vec<SupportLeft>,
}

/// A sign of life of one core, standing for all groups that it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beacon {
    /// Grows by one with each beacon to this peer.
    pub sequence: u64,
    /// The highest sequence received from this peer, so that a one-way path is noticed (law 7).
    pub acknowledged: u64,
    /// The peer's incarnation to which `acknowledged` belongs.
    pub acknowledged_incarnation: Incarnation,
    /// Groups whose leadership changed since the peer last acknowledged.
    pub changes: Vec<Claim>,
    /// All that the sender leads with the receiver as a member, after `changes` (law 8).
    pub led: ClaimSummary,
    /// All that the sender follows the receiver in.
    pub followed: ClaimSummary,
    /// How well the sender's core does.
    pub health: Health,
    /// The sender wants the receiver's list of what it leads, from this group on.
    pub wants: Option<GroupId>,
    /// A part of that list, for a receiver that wanted it.
    pub page: Option<ClaimPage>,
    /// The sender asks for a promise: see `promise`.
    pub wants_promise: bool,
    /// What the sender promises the receiver's core.
    pub promise: Option<Promise>,
    /// The sender has come to life and has not heard the receiver's verdict yet.
    pub registration: Option<Registration>,
    /// The verdict on what the receiver has registered.
    pub verdict: Option<Verdict>,
    /// The sender has forgotten what it promised, so it counts for no quorum.
    pub refused: bool,
}

/// What a core that has come to life says of its log, before it promises anything again (law 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// A number that this life of the core has drawn.
    pub life: u64,
    /// The log.
    pub log: u128,
    /// Where the log stood before this life, or before the first of the lives that nobody has accepted.
    pub mark: LogMark,
    /// An operator vouches for the log.
    pub vouched: bool,
}

/// What a peer says to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The life that was registered.
    pub life: u64,
    /// Whether the log holds all that the peer has heard of it. Otherwise its core has forgotten what it promised.
    pub accepted: bool,
    /// The incarnation under which the peer takes the core's frames: its own, or a higher one (law 11).
    pub incarnation: Incarnation,
}

/// A count and a hash over (group, replica of the leader, term), so that two sides that agree on thousands of groups say
/// so in a few bytes. The order in which groups come and go makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimSummary {
    /// How many groups.
    pub count: u64,
    /// The sum of a hash of each.
    pub hash: u128,
}

impl ClaimSummary {
    /// Takes a group in.
    pub fn add(&mut self, group: GroupId, leader: ReplicaId, term: Term) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(claim_hash(group, leader, term));
    }

    /// Takes a group out that was taken in with the same arguments.
    pub fn remove(&mut self, group: GroupId, leader: ReplicaId, term: Term) {
        self.count -= 1;
        self.hash = self.hash.wrapping_sub(claim_hash(group, leader, term));
    }
}

/// Two chains of the finaliser of splitmix64. Leases rest on equal summaries meaning equal lists, so there are 128 bits.
fn claim_hash(group: GroupId, leader: ReplicaId, term: Term) -> u128 {
    let chain = |seed: u64| mix(mix(mix(seed ^ group.0).wrapping_add(leader.0)).wrapping_add(term.0));
    u128::from(chain(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(chain(0x94d0_49bb_1331_11eb))
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How well a core does, as it measures itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How late the core's last beacon was, milliseconds.
    pub turn_lag_ms: u32,
    /// The age of the oldest append that is not durable, milliseconds.
    pub sync_age_ms: u32,
}

/// "Until this long after I heard your beacon `sequence`, my replicas elect no other leader where they follow you"
/// (law 1). The end is counted by the giver's clock from the hearing, by the holder's from the sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Grows whenever promises to this core begin anew; what was accepted under another one does not count (law 3).
    pub epoch: u64,
    /// The last beacon of the receiver that the promise answers.
    pub sequence: u64,
    /// How long it lasts, microseconds.
    pub length_us: u64,
}

/// "I lead this group in this term", or "I no longer do".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The group.
    pub group: GroupId,
    /// The term in which the sender leads or led it.
    pub term: Term,
    /// Whether it leads; false releases the group (law 7).
    pub leads: bool,
}

/// The groups that the sender leads with the receiver as a member, complete within `[from, through]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimPage {
    /// The first group of the interval.
    pub from: GroupId,
    /// The last group of the interval.
    pub through: GroupId,
    /// Each led group inside the interval.
    pub claims: Vec<Listing>,
}

/// One led group in a list, with how far its leader's log reaches: whoever has missed nothing need not be told more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The group.
    pub group: GroupId,
    /// The term in which the sender leads it.
    pub term: Term,
    /// The end of the leader's log.
    pub last: LogId,
    /// The leader's commit index.
    pub commit: Index,
}

/// How long the sender supports a core of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportLeft {
    /// The node whose core is supported.
    pub node: NodeId,
    /// For how long, unless it is heard again, milliseconds.
    pub left_ms: u32,
}

/// A follower's core asks the leader's core for read indexes, for all reads of a turn at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexQuestion {
    /// The question. Never reused within the sender's incarnation.
    pub id: u64,
    /// The groups that have reads waiting.
    pub groups: Vec<GroupId>,
}

/// What the leader's core knows of some groups of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexAnswer {
    /// The asker's incarnation; with another one the question is not its own any more.
    pub incarnation: Incarnation,
    /// The question.
    pub id: u64,
    /// What must be applied before the group's reads are served; none when the sender does not lead the group.
    pub groups: Vec<(GroupId, Option<Index>)>,
}

/// One message about a snapshot. It names both replicas, like every message (law 11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMessage {
    /// The group.
    pub group: GroupId,
    /// The replica that speaks.
    pub from: ReplicaId,
    /// The replica spoken to. It need not exist yet.
    pub to: ReplicaId,
    /// What it says.
    pub body: SnapshotBody,
}

/// What two replicas say about a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotBody {
    /// To the leader: there is no state here that entries could go on from.
    Wanted,
    /// From the leader: this is what could be sent.
    Offer(Box<SnapshotOffer>),
    /// From the leader: a chunk for which the receiver has given credit.
    Chunk {
        /// Of which snapshot.
        last: LogId,
        /// Which chunk.
        number: ChunkNumber,
        /// The chunk. The frame carries a checksum of it.
        bytes: Bytes,
    },
    /// To the leader: send the chunks from `next` up to, but without, `through`. Everything before `next` has arrived.
    Credit {
        /// Of which snapshot.
        last: LogId,
        /// The next one that is missing.
        next: ChunkNumber,
        /// The first one that is not to be sent yet.
        through: ChunkNumber,
    },
    /// To the leader: this snapshot is of no use here, or has become the receiver's state.
    Unwanted {
        /// Which snapshot.
        last: LogId,
    },
    /// The receiver was removed from the group, for ever.
    Gone,
    /// To the leader: the committed entry at `at` cannot be read here; a snapshot at it or behind it would help.
    Parked {
        /// Where the replica stands still.
        at: Index,
    },
}

/// A snapshot that a leader could send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The last entry that is in it.
    pub last: LogId,
    /// The members as of that entry, encoded as in its log.
    pub configuration: Bytes,
    /// The descriptor as of that entry.
    pub descriptor: Descriptor,
    /// How many chunks it has.
    pub chunks: u64,
    /// The CRC-32 over all of them.
    pub digest: u32,
}

/// One round of ReadIndex for many groups at once (law 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRound {
    /// The round. Never reused within the sender's incarnation.
    pub id: u64,
    /// The groups that have reads waiting, with the term in which the sender leads each.
    pub groups: Vec<(GroupId, Term)>,
}

/// The groups of a round for which the sender knows no newer term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadConfirmation {
    /// The asker's incarnation; with another one the round is not its own any more.
    pub incarnation: Incarnation,
    /// The round.
    pub id: u64,
    /// The confirmed groups, each with the term that was asked about.
    pub groups: Vec<(GroupId, Term)>,
}

impl PeerFrame {
    /// A frame that says nothing yet.
    pub fn new(from: NodeId, core: CoreId, to: NodeId, incarnation: Incarnation) -> PeerFrame {
        PeerFrame {
            from,
            core,
            to,
            incarnation,
            mark: LogMark(0),
            beacon: None,
            messages: Vec::new(),
            reads: Vec::new(),
            confirmations: Vec::new(),
            index_questions: Vec::new(),
            index_answers: Vec::new(),
            snapshots: Vec::new(),
            support: Vec::new(),
        }
    }

    /// Appends the frame to `out`. The sender closes a frame at about `PEER_FRAME_BYTES`; one above `FRAME_BYTES_MAX`
    /// breaks a law.
    pub fn encode(&self, out: &mut Vec<u8>) {
        v1::encode(self, out);
    }

    /// Reads one whole frame. Entries are slices of it.
    pub fn decode(frame: Bytes) -> Result<PeerFrame, FrameError> {
        v1::decode(frame)
    }

    /// The bytes of the frame once it is encoded, so that a sender knows when to close it.
    pub fn encoded_bytes(&self) -> usize {
        let beacon = self.beacon.as_ref().map_or(0, |beacon| {
            let page = beacon.page.as_ref().map_or(0, |page| page.claims.len() * v1::LISTING_BYTES);
            beacon.changes.len() * v1::CLAIM_BYTES + page
        });
        let reads = self.reads.iter().map(|round| v1::ROUND_BYTES + round.groups.len() * v1::GROUP_TERM_BYTES);
        let confirmations = self
            .confirmations
            .iter()
            .map(|confirmation| v1::CONFIRMATION_BYTES + confirmation.groups.len() * v1::GROUP_TERM_BYTES);
        let questions =
            self.index_questions.iter().map(|question| v1::QUESTION_BYTES + question.groups.len() * v1::GROUP_BYTES);
        let answers =
            self.index_answers.iter().map(|answer| v1::ANSWER_BYTES + answer.groups.len() * v1::GROUP_INDEX_BYTES);
        let snapshots = self.snapshots.iter().map(snapshot_bytes);
        let support = self.support.len() * v1::SUPPORT_BYTES;
        let messages = self.messages.iter().map(|(_, message)| message_bytes(message));
        let lists = reads.chain(confirmations).chain(questions).chain(answers).chain(messages).chain(snapshots);
        v1::FRAME_BYTES + beacon + support + lists.sum::<usize>()
    }
}

/// What a message about a snapshot adds to a frame, bytes.
pub fn snapshot_bytes(message: &SnapshotMessage) -> usize {
    let more = match &message.body {
        SnapshotBody::Offer(offer) => {
            let range = &offer.descriptor.range;
            let keys = range.start.len() + range.end.as_ref().map_or(0, Bytes::len);
            offer.configuration.len() + keys + offer.descriptor.members.len() * v1::MEMBER_BYTES
        }
        SnapshotBody::Chunk { bytes, .. } => bytes.len(),
        _ => 0,
    };
    v1::SNAPSHOT_BYTES + more
}

/// What a message adds to a frame, bytes.
pub fn message_bytes(message: &Message) -> usize {
    let entries: usize = match &message.body {
        Body::Append { entries, .. } => entries.iter().map(|entry| v1::ENTRY_BYTES + entry.payload.len()).sum(),
        _ => 0,
    };
    v1::MESSAGE_BYTES + entries
}
