//! Frames between the cores of two nodes.
//!
//! A core sends one [`PeerFrame`] for each peer and flush, with everything it has for that peer: messages of all
//! groups, the beacon when it is due, its questions about reads and its answers to the peer's. The entries' payloads
//! follow the metadata as they are, each with its own checksum, and decode as slices of the frame.

use bytes::Bytes;
use pontoon_types::{Body, CoreId, GroupId, Incarnation, Message, NodeId, Term};

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
    /// The beacon, when one is due.
    pub beacon: Option<Beacon>,
    /// Messages of groups, in the order in which they were sent.
    pub messages: Vec<(GroupId, Message)>,
    /// Questions: is this leader still the newest that the receiver knows?
    pub reads: Vec<ReadRound>,
    /// Answers to the receiver's questions.
    pub confirmations: Vec<ReadConfirmation>,
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
    /// A part of the complete list, so that a lost change shows after one cycle (law 8).
    pub page: ClaimPage,
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
    /// Each led group inside the interval, with its term.
    pub claims: Vec<(GroupId, Term)>,
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
            beacon.changes.len() * v1::CLAIM_BYTES + beacon.page.claims.len() * v1::GROUP_TERM_BYTES
        });
        let reads = self.reads.iter().map(|round| v1::ROUND_BYTES + round.groups.len() * v1::GROUP_TERM_BYTES);
        let confirmations = self
            .confirmations
            .iter()
            .map(|confirmation| v1::CONFIRMATION_BYTES + confirmation.groups.len() * v1::GROUP_TERM_BYTES);
        let messages = self.messages.iter().map(|(_, message)| message_bytes(message));
        v1::FRAME_BYTES + beacon + reads.sum::<usize>() + confirmations.sum::<usize>() + messages.sum::<usize>()
    }
}

/// What a message adds to a frame, bytes.
pub fn message_bytes(message: &Message) -> usize {
    let entries: usize = match &message.body {
        Body::Append { entries, .. } => entries.iter().map(|entry| v1::ENTRY_BYTES + entry.payload.len()).sum(),
        _ => 0,
    };
    v1::MESSAGE_BYTES + entries
}
