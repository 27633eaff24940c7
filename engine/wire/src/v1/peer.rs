//! The metadata of a peer frame, version 1.

use bytes::Bytes;
use pontoon_types::{
    self as types, ChunkNumber, CoreId, EntryKind, Generation, GroupId, Incarnation, Index, LogMark, NodeId, ReplicaId,
    Term,
};
use rkyv::{Archive, Serialize};

use super::{ArchivedLogId, LogId, Shares, length};
use crate::cursor::Cursor;
use crate::frame::{self, FrameError, FrameKind, Opened};
use crate::peer;

#[derive(Archive, Serialize)]
struct PeerFrame {
    from: u64,
    core: u16,
    to: u64,
    incarnation: u64,
    mark: u64,
    beacon: Option<Beacon>,
    messages: Vec<Message>,
    entries: Vec<Entry>,
    reads: Vec<ReadRound>,
    confirmations: Vec<ReadConfirmation>,
    index_questions: Vec<IndexQuestion>,
    index_answers: Vec<IndexAnswer>,
    snapshots: Vec<SnapshotMessage>,
    support: Vec<SupportLeft>,
}

#[derive(Archive, Serialize)]
struct Beacon {
    sequence: u64,
    acknowledged: u64,
    acknowledged_incarnation: u64,
    changes: Vec<Claim>,
    led: ClaimSummary,
    followed: ClaimSummary,
    turn_lag_ms: u32,
    sync_age_ms: u32,
    wants: Option<u64>,
    page: Option<ClaimPage>,
    wants_promise: bool,
    promise: Option<Promise>,
    registration: Option<Registration>,
    verdict: Option<Verdict>,
    refused: bool,
}

#[derive(Archive, Serialize)]
struct Registration {
    life: u64,
    log_high: u64,
    log_low: u64,
    mark: u64,
    vouched: bool,
}

#[derive(Archive, Serialize)]
struct Verdict {
    life: u64,
    accepted: bool,
    incarnation: u64,
}

#[derive(Archive, Serialize)]
struct ClaimSummary {
    count: u64,
    hash_high: u64,
    hash_low: u64,
}

#[derive(Archive, Serialize)]
struct ClaimPage {
    from: u64,
    through: u64,
    claims: Vec<Listing>,
}

#[derive(Archive, Serialize)]
struct Listing {
    group: u64,
    term: u64,
    last: LogId,
    commit: u64,
}

#[derive(Archive, Serialize)]
struct Promise {
    epoch: u64,
    sequence: u64,
    length_us: u64,
}

#[derive(Archive, Serialize)]
struct SupportLeft {
    node: u64,
    left_ms: u32,
}

#[derive(Archive, Serialize)]
struct IndexQuestion {
    id: u64,
    groups: Vec<u64>,
}

#[derive(Archive, Serialize)]
struct IndexAnswer {
    incarnation: u64,
    id: u64,
    groups: Vec<GroupIndex>,
}

#[derive(Archive, Serialize)]
struct GroupIndex {
    group: u64,
    index: Option<u64>,
}

#[derive(Archive, Serialize)]
struct Claim {
    group: u64,
    term: u64,
    leads: bool,
}

#[derive(Archive, Serialize)]
struct GroupTerm {
    group: u64,
    term: u64,
}

#[derive(Archive, Serialize)]
struct ReadRound {
    id: u64,
    groups: Vec<GroupTerm>,
}

#[derive(Archive, Serialize)]
struct ReadConfirmation {
    incarnation: u64,
    id: u64,
    groups: Vec<GroupTerm>,
}

#[derive(Archive, Serialize)]
struct Message {
    group: u64,
    from: u64,
    to: u64,
    term: u64,
    body: Body,
}

#[derive(Archive, Serialize)]
enum Body {
    PreVote { last: LogId },
    PreVoteResponse { granted: bool },
    Vote { last: LogId, permit: Option<Permit> },
    VoteResponse { granted: bool },
    // The entries stand in the frame's list; the first one follows `previous` and the others follow it.
    Append { previous: LogId, entries: u32, commit: u64 },
    AppendResponse { matched: u64 },
    AppendRefused { refused: u64, hint: LogId },
    TimeoutNow,
}

#[derive(Archive, Serialize)]
struct SnapshotMessage {
    group: u64,
    from: u64,
    to: u64,
    body: SnapshotBody,
}

#[derive(Archive, Serialize)]
enum SnapshotBody {
    Wanted,
    Offer {
        last: LogId,
        configuration: Vec<u8>,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        members: Vec<Member>,
        generation: u64,
        chunks: u64,
        digest: u32,
    },
    // The bytes stand in the frame behind the payloads of all entries.
    Chunk {
        last: LogId,
        number: u64,
        length: u32,
        checksum: u32,
    },
    Credit {
        last: LogId,
        next: u64,
        through: u64,
    },
    Unwanted {
        last: LogId,
    },
    Gone,
    Parked {
        at: u64,
    },
}

#[derive(Archive, Serialize)]
struct Member {
    node: u64,
    replica: u64,
}

#[derive(Archive, Serialize)]
struct Permit {
    leader: u64,
    term: u64,
}

#[derive(Archive, Serialize)]
struct Entry {
    term: u64,
    length: u32,
    checksum: u32,
    configuration: bool,
}

/// What a frame takes when there is nothing in its lists.
pub(crate) const FRAME_BYTES: usize = frame::HEADER_BYTES + size_of::<ArchivedPeerFrame>();

/// What a message adds to a frame, its entries left aside.
pub(crate) const MESSAGE_BYTES: usize = size_of::<ArchivedMessage>();

/// What an entry adds to a frame, its payload left aside.
pub(crate) const ENTRY_BYTES: usize = size_of::<ArchivedEntry>();

/// What a claim of a beacon adds to a frame.
pub(crate) const CLAIM_BYTES: usize = size_of::<ArchivedClaim>();

/// What a round adds to a frame, its groups left aside.
pub(crate) const ROUND_BYTES: usize = size_of::<ArchivedReadRound>();

/// What a confirmation adds to a frame, its groups left aside.
pub(crate) const CONFIRMATION_BYTES: usize = size_of::<ArchivedReadConfirmation>();

/// What a group of a beacon's page adds to a frame.
pub(crate) const LISTING_BYTES: usize = size_of::<ArchivedListing>();

/// What a question about indexes adds to a frame, its groups left aside.
pub(crate) const QUESTION_BYTES: usize = size_of::<ArchivedIndexQuestion>();

/// What a group of a question adds to a frame.
pub(crate) const GROUP_BYTES: usize = size_of::<u64>();

/// What an answer about indexes adds to a frame, its groups left aside.
pub(crate) const ANSWER_BYTES: usize = size_of::<ArchivedIndexAnswer>();

/// What a group of an answer adds to a frame.
pub(crate) const GROUP_INDEX_BYTES: usize = size_of::<ArchivedGroupIndex>();

/// What the support of a node adds to a frame.
pub(crate) const SUPPORT_BYTES: usize = size_of::<ArchivedSupportLeft>();

/// What a message about a snapshot adds to a frame, what is of any length left aside.
pub(crate) const SNAPSHOT_BYTES: usize = size_of::<ArchivedSnapshotMessage>();

/// What a member of an offered snapshot's descriptor adds to a frame.
pub(crate) const MEMBER_BYTES: usize = size_of::<ArchivedMember>();

/// What a (group, term) pair of a round adds to a frame.
pub(crate) const GROUP_TERM_BYTES: usize = size_of::<ArchivedGroupTerm>();

/// Appends the frame to `out`.
pub(crate) fn encode(value: &peer::PeerFrame, out: &mut Vec<u8>) {
    let count = value.messages.iter().map(|(_, message)| entries_of(message).len()).sum();
    let mut entries = Vec::with_capacity(count);
    let mut parts: Vec<&[u8]> = Vec::with_capacity(count);
    let mut messages = Vec::with_capacity(value.messages.len());
    for (group, message) in &value.messages {
        for entry in entries_of(message) {
            let checksum = crc32fast::hash(&entry.payload);
            entries.push(Entry {
                term: entry.id.term.0,
                length: length(entry.payload.len()),
                checksum,
                configuration: entry.kind == EntryKind::Configuration,
            });
            parts.push(&entry.payload);
        }
        messages.push(Message {
            group: group.0,
            from: message.from.0,
            to: message.to.0,
            term: message.term.0,
            body: encode_body(&message.body),
        });
    }
    parts.extend(value.snapshots.iter().filter_map(|message| match &message.body {
        peer::SnapshotBody::Chunk { bytes, .. } => Some(bytes.as_ref()),
        _ => None,
    }));
    let metadata = PeerFrame {
        from: value.from.0,
        core: value.core.0,
        to: value.to.0,
        incarnation: value.incarnation.0,
        mark: value.mark.0,
        beacon: value.beacon.as_ref().map(encode_beacon),
        messages,
        entries,
        reads: value.reads.iter().map(|round| ReadRound { id: round.id, groups: pairs(&round.groups) }).collect(),
        confirmations: value.confirmations.iter().map(encode_confirmation).collect(),
        index_questions: value
            .index_questions
            .iter()
            .map(|question| IndexQuestion {
                id: question.id,
                groups: question.groups.iter().map(|group| group.0).collect(),
            })
            .collect(),
        index_answers: value.index_answers.iter().map(encode_answer).collect(),
        snapshots: value.snapshots.iter().map(encode_snapshot).collect(),
        support: value
            .support
            .iter()
            .map(|support| SupportLeft { node: support.node.0, left_ms: support.left_ms })
            .collect(),
    };
    frame::write(FrameKind::Peer, &metadata, &parts, out);
}

fn entries_of(message: &types::Message) -> &[types::Entry] {
    match &message.body {
        types::Body::Append { entries, .. } => entries,
        _ => &[],
    }
}

fn encode_body(body: &types::Body) -> Body {
    match body {
        types::Body::PreVote { last } => Body::PreVote { last: (*last).into() },
        types::Body::PreVoteResponse { granted } => Body::PreVoteResponse { granted: *granted },
        types::Body::Vote { last, permit } => {
            let permit = permit.map(|permit| Permit { leader: permit.leader.0, term: permit.term.0 });
            Body::Vote { last: (*last).into(), permit }
        }
        types::Body::VoteResponse { granted } => Body::VoteResponse { granted: *granted },
        types::Body::Append { previous, entries, commit } => {
            let consecutive =
                entries.iter().zip(previous.index.0 + 1..).all(|(entry, index)| entry.id.index.0 == index);
            assert!(consecutive, "the entries of an Append follow its previous entry without a gap");
            Body::Append { previous: (*previous).into(), entries: length(entries.len()), commit: commit.0 }
        }
        types::Body::AppendResponse { matched } => Body::AppendResponse { matched: matched.0 },
        types::Body::AppendRefused { refused, hint } => {
            Body::AppendRefused { refused: refused.0, hint: (*hint).into() }
        }
        types::Body::TimeoutNow => Body::TimeoutNow,
    }
}

fn encode_snapshot(message: &peer::SnapshotMessage) -> SnapshotMessage {
    let body = match &message.body {
        peer::SnapshotBody::Wanted => SnapshotBody::Wanted,
        peer::SnapshotBody::Offer(offer) => SnapshotBody::Offer {
            last: offer.last.into(),
            configuration: offer.configuration.to_vec(),
            start: offer.descriptor.range.start.to_vec(),
            end: offer.descriptor.range.end.as_ref().map(|end| end.to_vec()),
            members: offer
                .descriptor
                .members
                .iter()
                .map(|member| Member { node: member.node.0, replica: member.replica.0 })
                .collect(),
            generation: offer.descriptor.generation.0,
            chunks: offer.chunks,
            digest: offer.digest,
        },
        peer::SnapshotBody::Chunk { last, number, bytes } => SnapshotBody::Chunk {
            last: (*last).into(),
            number: number.0,
            length: length(bytes.len()),
            checksum: crc32fast::hash(bytes),
        },
        peer::SnapshotBody::Credit { last, next, through } => {
            SnapshotBody::Credit { last: (*last).into(), next: next.0, through: through.0 }
        }
        peer::SnapshotBody::Unwanted { last } => SnapshotBody::Unwanted { last: (*last).into() },
        peer::SnapshotBody::Gone => SnapshotBody::Gone,
        peer::SnapshotBody::Parked { at } => SnapshotBody::Parked { at: at.0 },
    };
    SnapshotMessage { group: message.group.0, from: message.from.0, to: message.to.0, body }
}

fn encode_beacon(beacon: &peer::Beacon) -> Beacon {
    Beacon {
        sequence: beacon.sequence,
        acknowledged: beacon.acknowledged,
        acknowledged_incarnation: beacon.acknowledged_incarnation.0,
        changes: beacon
            .changes
            .iter()
            .map(|claim| Claim { group: claim.group.0, term: claim.term.0, leads: claim.leads })
            .collect(),
        led: encode_summary(beacon.led),
        followed: encode_summary(beacon.followed),
        turn_lag_ms: beacon.health.turn_lag_ms,
        sync_age_ms: beacon.health.sync_age_ms,
        wants: beacon.wants.map(|group| group.0),
        page: beacon.page.as_ref().map(encode_page),
        wants_promise: beacon.wants_promise,
        promise: beacon.promise.map(|promise| Promise {
            epoch: promise.epoch,
            sequence: promise.sequence,
            length_us: promise.length_us,
        }),
        registration: beacon.registration.map(|registration| Registration {
            life: registration.life,
            log_high: (registration.log >> 64) as u64,
            log_low: registration.log as u64,
            mark: registration.mark.0,
            vouched: registration.vouched,
        }),
        verdict: beacon.verdict.map(|verdict| Verdict {
            life: verdict.life,
            accepted: verdict.accepted,
            incarnation: verdict.incarnation.0,
        }),
        refused: beacon.refused,
    }
}

fn encode_summary(summary: peer::ClaimSummary) -> ClaimSummary {
    ClaimSummary { count: summary.count, hash_high: (summary.hash >> 64) as u64, hash_low: summary.hash as u64 }
}

fn encode_page(page: &peer::ClaimPage) -> ClaimPage {
    let listing = |claim: &peer::Listing| Listing {
        group: claim.group.0,
        term: claim.term.0,
        last: claim.last.into(),
        commit: claim.commit.0,
    };
    ClaimPage { from: page.from.0, through: page.through.0, claims: page.claims.iter().map(listing).collect() }
}

fn encode_answer(answer: &peer::IndexAnswer) -> IndexAnswer {
    let group =
        |(group, index): &(GroupId, Option<Index>)| GroupIndex { group: group.0, index: index.map(|index| index.0) };
    IndexAnswer { incarnation: answer.incarnation.0, id: answer.id, groups: answer.groups.iter().map(group).collect() }
}

fn encode_confirmation(confirmation: &peer::ReadConfirmation) -> ReadConfirmation {
    ReadConfirmation {
        incarnation: confirmation.incarnation.0,
        id: confirmation.id,
        groups: pairs(&confirmation.groups),
    }
}

fn pairs(groups: &[(GroupId, Term)]) -> Vec<GroupTerm> {
    groups.iter().map(|(group, term)| GroupTerm { group: group.0, term: term.0 }).collect()
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: Bytes) -> Result<peer::PeerFrame, FrameError> {
    let opened = Opened::new(bytes, FrameKind::Peer)?;
    let metadata = opened.metadata::<ArchivedPeerFrame>()?;
    let mut payload = opened.payload();
    let mut entries = Shares(metadata.entries.as_slice());
    let mut messages = Vec::with_capacity(metadata.messages.len());
    for message in metadata.messages.iter() {
        let decoded = types::Message {
            from: ReplicaId(message.from.to_native()),
            to: ReplicaId(message.to.to_native()),
            term: Term(message.term.to_native()),
            body: decode_body(&message.body, &mut entries, &mut payload)?,
        };
        messages.push((GroupId(message.group.to_native()), decoded));
    }
    entries.finish()?;
    let mut snapshots = Vec::with_capacity(metadata.snapshots.len());
    for message in metadata.snapshots.iter() {
        snapshots.push(decode_snapshot(message, &mut payload)?);
    }
    payload.finish()?;
    Ok(peer::PeerFrame {
        from: NodeId(metadata.from.to_native()),
        core: CoreId(metadata.core.to_native()),
        to: NodeId(metadata.to.to_native()),
        incarnation: Incarnation(metadata.incarnation.to_native()),
        mark: LogMark(metadata.mark.to_native()),
        beacon: metadata.beacon.as_ref().map(decode_beacon),
        messages,
        reads: metadata.reads.iter().map(decode_round).collect(),
        confirmations: metadata.confirmations.iter().map(decode_confirmation).collect(),
        index_questions: metadata
            .index_questions
            .iter()
            .map(|question| peer::IndexQuestion {
                id: question.id.to_native(),
                groups: question.groups.iter().map(|group| GroupId(group.to_native())).collect(),
            })
            .collect(),
        index_answers: metadata.index_answers.iter().map(decode_answer).collect(),
        snapshots,
        support: metadata
            .support
            .iter()
            .map(|support| peer::SupportLeft {
                node: NodeId(support.node.to_native()),
                left_ms: support.left_ms.to_native(),
            })
            .collect(),
    })
}

fn decode_body(
    body: &ArchivedBody,
    entries: &mut Shares<'_, ArchivedEntry>,
    payload: &mut Cursor,
) -> Result<types::Body, FrameError> {
    Ok(match body {
        ArchivedBody::PreVote { last } => types::Body::PreVote { last: last.value() },
        ArchivedBody::PreVoteResponse { granted } => types::Body::PreVoteResponse { granted: *granted },
        ArchivedBody::Vote { last, permit } => {
            let permit = permit.as_ref().map(|permit| types::Permit {
                leader: ReplicaId(permit.leader.to_native()),
                term: Term(permit.term.to_native()),
            });
            types::Body::Vote { last: last.value(), permit }
        }
        ArchivedBody::VoteResponse { granted } => types::Body::VoteResponse { granted: *granted },
        ArchivedBody::Append { previous, entries: count, commit } => types::Body::Append {
            previous: previous.value(),
            entries: decode_entries(previous, entries.take(count.to_native() as usize)?, payload)?,
            commit: Index(commit.to_native()),
        },
        ArchivedBody::AppendResponse { matched } => types::Body::AppendResponse { matched: Index(matched.to_native()) },
        ArchivedBody::AppendRefused { refused, hint } => {
            types::Body::AppendRefused { refused: Index(refused.to_native()), hint: hint.value() }
        }
        ArchivedBody::TimeoutNow => types::Body::TimeoutNow,
    })
}

fn decode_snapshot(
    message: &ArchivedSnapshotMessage,
    payload: &mut Cursor,
) -> Result<peer::SnapshotMessage, FrameError> {
    let group = GroupId(message.group.to_native());
    let body = match &message.body {
        ArchivedSnapshotBody::Wanted => peer::SnapshotBody::Wanted,
        ArchivedSnapshotBody::Offer { last, configuration, start, end, members, generation, chunks, digest } => {
            let member = |member: &ArchivedMember| types::Member {
                node: NodeId(member.node.to_native()),
                replica: ReplicaId(member.replica.to_native()),
            };
            let bytes = |slice: &[u8]| Bytes::copy_from_slice(slice);
            let range = types::KeyRange { start: bytes(start), end: end.as_ref().map(|end| bytes(end)) };
            peer::SnapshotBody::Offer(Box::new(peer::SnapshotOffer {
                last: last.value(),
                configuration: bytes(configuration),
                descriptor: types::Descriptor {
                    group,
                    range,
                    members: members.iter().map(member).collect(),
                    generation: Generation(generation.to_native()),
                },
                chunks: chunks.to_native(),
                digest: digest.to_native(),
            }))
        }
        ArchivedSnapshotBody::Chunk { last, number, length, checksum } => {
            let bytes = payload.take(length.to_native())?;
            if crc32fast::hash(&bytes) != checksum.to_native() {
                return Err(FrameError::PayloadChecksum);
            }
            peer::SnapshotBody::Chunk { last: last.value(), number: ChunkNumber(number.to_native()), bytes }
        }
        ArchivedSnapshotBody::Credit { last, next, through } => peer::SnapshotBody::Credit {
            last: last.value(),
            next: ChunkNumber(next.to_native()),
            through: ChunkNumber(through.to_native()),
        },
        ArchivedSnapshotBody::Unwanted { last } => peer::SnapshotBody::Unwanted { last: last.value() },
        ArchivedSnapshotBody::Gone => peer::SnapshotBody::Gone,
        ArchivedSnapshotBody::Parked { at } => peer::SnapshotBody::Parked { at: Index(at.to_native()) },
    };
    Ok(peer::SnapshotMessage {
        group,
        from: ReplicaId(message.from.to_native()),
        to: ReplicaId(message.to.to_native()),
        body,
    })
}

fn decode_entries(
    previous: &ArchivedLogId,
    archived: &[ArchivedEntry],
    payload: &mut Cursor,
) -> Result<Vec<types::Entry>, FrameError> {
    let previous_index = previous.index.to_native();
    if previous_index.checked_add(archived.len() as u64).is_none() {
        return Err(FrameError::Value { field: "previous.index" });
    }
    let mut entries = Vec::with_capacity(archived.len());
    for (entry, index) in archived.iter().zip(previous_index.wrapping_add(1)..) {
        let bytes = payload.take(entry.length.to_native())?;
        if crc32fast::hash(&bytes) != entry.checksum.to_native() {
            return Err(FrameError::PayloadChecksum);
        }
        let id = types::LogId::new(Index(index), Term(entry.term.to_native()));
        let kind = if entry.configuration { EntryKind::Configuration } else { EntryKind::Command };
        entries.push(types::Entry { id, kind, payload: bytes });
    }
    Ok(entries)
}

fn decode_beacon(beacon: &ArchivedBeacon) -> peer::Beacon {
    peer::Beacon {
        sequence: beacon.sequence.to_native(),
        acknowledged: beacon.acknowledged.to_native(),
        acknowledged_incarnation: Incarnation(beacon.acknowledged_incarnation.to_native()),
        changes: beacon
            .changes
            .iter()
            .map(|claim| peer::Claim {
                group: GroupId(claim.group.to_native()),
                term: Term(claim.term.to_native()),
                leads: claim.leads,
            })
            .collect(),
        led: decode_summary(&beacon.led),
        followed: decode_summary(&beacon.followed),
        health: peer::Health {
            turn_lag_ms: beacon.turn_lag_ms.to_native(),
            sync_age_ms: beacon.sync_age_ms.to_native(),
        },
        wants: beacon.wants.as_ref().map(|group| GroupId(group.to_native())),
        page: beacon.page.as_ref().map(decode_page),
        wants_promise: beacon.wants_promise,
        promise: beacon.promise.as_ref().map(|promise| peer::Promise {
            epoch: promise.epoch.to_native(),
            sequence: promise.sequence.to_native(),
            length_us: promise.length_us.to_native(),
        }),
        registration: beacon.registration.as_ref().map(decode_registration),
        verdict: beacon.verdict.as_ref().map(|verdict| peer::Verdict {
            life: verdict.life.to_native(),
            accepted: verdict.accepted,
            incarnation: Incarnation(verdict.incarnation.to_native()),
        }),
        refused: beacon.refused,
    }
}

fn decode_registration(registration: &ArchivedRegistration) -> peer::Registration {
    peer::Registration {
        life: registration.life.to_native(),
        log: u128::from(registration.log_high.to_native()) << 64 | u128::from(registration.log_low.to_native()),
        mark: LogMark(registration.mark.to_native()),
        vouched: registration.vouched,
    }
}

fn decode_summary(summary: &ArchivedClaimSummary) -> peer::ClaimSummary {
    let hash = u128::from(summary.hash_high.to_native()) << 64 | u128::from(summary.hash_low.to_native());
    peer::ClaimSummary { count: summary.count.to_native(), hash }
}

fn decode_page(page: &ArchivedClaimPage) -> peer::ClaimPage {
    let listing = |claim: &ArchivedListing| peer::Listing {
        group: GroupId(claim.group.to_native()),
        term: Term(claim.term.to_native()),
        last: claim.last.value(),
        commit: Index(claim.commit.to_native()),
    };
    peer::ClaimPage {
        from: GroupId(page.from.to_native()),
        through: GroupId(page.through.to_native()),
        claims: page.claims.iter().map(listing).collect(),
    }
}

fn decode_answer(answer: &ArchivedIndexAnswer) -> peer::IndexAnswer {
    let group = |group: &ArchivedGroupIndex| {
        (GroupId(group.group.to_native()), group.index.as_ref().map(|index| Index(index.to_native())))
    };
    peer::IndexAnswer {
        incarnation: Incarnation(answer.incarnation.to_native()),
        id: answer.id.to_native(),
        groups: answer.groups.iter().map(group).collect(),
    }
}

fn decode_round(round: &ArchivedReadRound) -> peer::ReadRound {
    peer::ReadRound { id: round.id.to_native(), groups: groups(&round.groups) }
}

fn decode_confirmation(confirmation: &ArchivedReadConfirmation) -> peer::ReadConfirmation {
    peer::ReadConfirmation {
        incarnation: Incarnation(confirmation.incarnation.to_native()),
        id: confirmation.id.to_native(),
        groups: groups(&confirmation.groups),
    }
}

fn groups(pairs: &[ArchivedGroupTerm]) -> Vec<(GroupId, Term)> {
    pairs.iter().map(|pair| (GroupId(pair.group.to_native()), Term(pair.term.to_native()))).collect()
}
