//! Bytes that are not what was sent: cut, flipped, extended, mixed up, made up.

use bytes::Bytes;
use pontoon_types::limits::FRAME_BYTES_MAX;
use pontoon_types::{Index, NodeId, ReplicaId};
use pontoon_wire::client::{Outcome, Refusal, Reply, ReplyFrame, RequestFrame};
use pontoon_wire::frame::{FrameError, FrameReader};
use pontoon_wire::order::{GroupMember, GroupMembers, MemberStanding, OrderReason};
use pontoon_wire::peer::PeerFrame;
use proptest::prelude::*;

use crate::allocation::allocated_bytes;
use crate::samples;

/// Whether a kind has checksums of its own; a command relies on those of the log and of the frame.
fn has_checksums(kind: &str) -> bool {
    kind != "command"
}

/// Writes the checksums of a frame anew, so that damage reaches what stands behind them.
fn seal(frame: &mut [u8]) {
    let metadata_bytes = u32::from_le_bytes(frame[8..12].try_into().expect("four bytes")) as usize;
    let payload_start = (32 + metadata_bytes).min(frame.len());
    let payload_checksum = if frame[6] == 1 { 0 } else { crc32fast::hash(&frame[payload_start..]) };
    let metadata_checksum = crc32fast::hash(&frame[32..payload_start]);
    frame[16..20].copy_from_slice(&payload_checksum.to_le_bytes());
    frame[20..24].copy_from_slice(&metadata_checksum.to_le_bytes());
    seal_header(frame);
}

/// Writes only the header's checksum anew.
fn seal_header(frame: &mut [u8]) {
    let checksum = crc32fast::hash(&frame[..28]);
    frame[28..32].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn every_flipped_bit_is_refused() {
    for (name, kind, bytes) in samples::all().into_iter().filter(|(_, kind, _)| has_checksums(kind)) {
        let decode = samples::decoder(kind);
        assert_eq!(decode(bytes.clone()), Ok(()), "{name} is whole before it is damaged");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Bytes::from(damaged)).is_err(), "{name} with bit {bit} flipped");
        }
    }
}

#[test]
fn every_shorter_or_longer_frame_is_refused() {
    for (name, kind, bytes) in samples::all() {
        let decode = samples::decoder(kind);
        for length in 0..bytes.len() {
            assert!(decode(bytes.slice(..length)).is_err(), "{name} cut to {length} bytes");
        }
        let longer = [bytes.as_ref(), &[0]].concat();
        assert!(decode(Bytes::from(longer)).is_err(), "{name} with a byte more");
    }
}

#[test]
fn a_frame_of_another_kind_is_refused() {
    for (name, kind, bytes) in samples::all() {
        for (other, decode) in samples::DECODERS {
            assert_eq!(decode(bytes.clone()).is_ok(), kind == other, "{name} read as {other}");
        }
    }
}

#[test]
fn each_field_of_the_header_has_its_error() {
    let whole = samples::encoded(|out| samples::requests().encode(out));
    let with = |at: usize, value: u8| {
        let mut frame = whole.to_vec();
        frame[at] = value;
        seal_header(&mut frame);
        RequestFrame::decode(Bytes::from(frame)).unwrap_err()
    };
    assert_eq!(with(0, b'X'), FrameError::Magic);
    assert_eq!(with(4, 2), FrameError::Version { found: 2 });
    assert_eq!(with(4, 0), FrameError::Version { found: 0 });
    assert_eq!(with(6, 1), FrameError::Kind { found: 1 });
    assert_eq!(with(6, 9), FrameError::Kind { found: 9 });
    assert_eq!(with(7, 1), FrameError::Reserved);
    assert_eq!(with(25, 1), FrameError::Reserved);
    assert_eq!(with(16, !whole[16]), FrameError::PayloadChecksum);
    assert_eq!(with(20, !whole[20]), FrameError::MetadataChecksum);
    let expected = whole.len() as u64;
    assert_eq!(with(12, whole[12] + 1), FrameError::Length { expected: expected + 1, found: expected });
    assert_eq!(with(12, whole[12] - 1), FrameError::Length { expected: expected - 1, found: expected });
    let mut peer = samples::encoded(|out| samples::peer_full().encode(out)).to_vec();
    peer[16] = 1;
    seal_header(&mut peer);
    assert_eq!(PeerFrame::decode(Bytes::from(peer)), Err(FrameError::PayloadChecksum), "a peer frame has none");
}

#[test]
fn a_damaged_entry_is_found_by_its_own_checksum() {
    let mut sample = samples::peer_full();
    sample.snapshots.clear();
    let mut frame = samples::encoded(|out| sample.encode(out)).to_vec();
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(PeerFrame::decode(Bytes::from(frame)), Err(FrameError::PayloadChecksum));
}

#[test]
fn a_damaged_chunk_is_found_by_its_own_checksum() {
    let mut frame = samples::encoded(|out| samples::peer_full().encode(out)).to_vec();
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(PeerFrame::decode(Bytes::from(frame)), Err(FrameError::PayloadChecksum));
}

/// Replaces what stands for a number in the metadata, and seals the frame again.
fn with_metadata(frame: &[u8], old: &[u8], new: &[u8]) -> Bytes {
    let places: Vec<usize> = (32..frame.len() - old.len()).filter(|at| &frame[*at..*at + old.len()] == old).collect();
    assert_eq!(places.len(), 1, "the bytes to replace stand at one place");
    let mut frame = frame.to_vec();
    frame[places[0]..places[0] + new.len()].copy_from_slice(new);
    seal(&mut frame);
    Bytes::from(frame)
}

#[test]
fn lengths_that_do_not_add_up_are_refused() {
    let mut requests = samples::requests();
    requests.requests.truncate(2);
    let pontoon_wire::client::Operation::Write { command, .. } = &requests.requests[0].operation else {
        panic!("the first sample is a write");
    };
    let length = command.len() as u32;
    let frame = samples::encoded(|out| requests.encode(out));
    for wrong in [length - 1, length + 1, u32::MAX] {
        let damaged = with_metadata(&frame, &length.to_le_bytes(), &wrong.to_le_bytes());
        assert_eq!(RequestFrame::decode(damaged), Err(FrameError::Payload), "{wrong} instead of {length}");
    }
}

#[test]
fn a_role_without_a_meaning_is_refused() {
    let mut replies = samples::replies();
    replies.replies.retain(|reply| matches!(reply.result, Ok(Outcome::Status(_))));
    let frame = samples::encoded(|out| replies.encode(out));
    // Group 4 of the sample is a candidate.
    let damaged = with_metadata(&frame, &[4, 0, 0, 0, 0, 0, 0, 0, 3], &[4, 0, 0, 0, 0, 0, 0, 0, 6]);
    assert_eq!(ReplyFrame::decode(damaged), Err(FrameError::Value { field: "role" }));
}

#[test]
fn a_standing_and_a_reason_without_a_meaning_are_refused() {
    let frame_of = |result| {
        let frame = ReplyFrame { replies: vec![Reply { sequence: 1, result }] };
        samples::encoded(|out| frame.encode(out))
    };
    let member = GroupMember {
        node: NodeId(7),
        replica: ReplicaId(9),
        standing: MemberStanding::Learner,
        matched: Index(1),
        follows: true,
    };
    let members = frame_of(Ok(Outcome::Members(GroupMembers { members: vec![member], ..GroupMembers::default() })));
    let damaged = with_metadata(&members, &[9, 0, 0, 0, 0, 0, 0, 0, 5], &[9, 0, 0, 0, 0, 0, 0, 0, 6]);
    assert_eq!(ReplyFrame::decode(damaged), Err(FrameError::Value { field: "standing" }));
    let refusal = frame_of(Err(Refusal::Order { reason: OrderReason::GivenUp, why: String::new() }));
    let damaged = with_metadata(&refusal, &[1, 0, 0, 0, 0, 0, 0, 0, 12, 10], &[1, 0, 0, 0, 0, 0, 0, 0, 12, 11]);
    assert_eq!(ReplyFrame::decode(damaged), Err(FrameError::Value { field: "reason" }));
}

#[test]
fn an_index_beyond_the_last_number_is_refused() {
    let mut frame = samples::peer_empty();
    frame.messages = samples::peer_full().messages;
    frame.messages.retain(|(group, _)| group.0 == 4);
    let bytes = samples::encoded(|out| frame.encode(out));
    // Group 4 of the sample appends two entries after 7@4; log identities are written index first.
    let previous = [7u64.to_le_bytes(), 4u64.to_le_bytes()].concat();
    let last = [(u64::MAX - 1).to_le_bytes(), 4u64.to_le_bytes()].concat();
    let damaged = with_metadata(&bytes, &previous, &last);
    assert_eq!(PeerFrame::decode(damaged), Err(FrameError::Value { field: "previous.index" }));
}

#[test]
fn lists_that_end_too_early_or_too_late_are_refused() {
    let mut frame = samples::peer_empty();
    frame.messages = samples::peer_full().messages;
    frame.messages.retain(|(group, _)| group.0 == 4);
    let bytes = samples::encoded(|out| frame.encode(out));
    // Group 4 of the sample appends three entries after 7@4.
    let count = |count: u32| [&4u64.to_le_bytes()[..], &count.to_le_bytes()].concat();
    for wrong in [0, 1, 2, 4, u32::MAX] {
        let damaged = with_metadata(&bytes, &count(3), &count(wrong));
        assert_eq!(PeerFrame::decode(damaged), Err(FrameError::Metadata), "{wrong} entries instead of 3");
    }
}

#[test]
fn lists_that_no_reply_owns_are_refused() {
    const UNKNOWN: u8 = 15;
    for reply in samples::replies().replies {
        let kind = match &reply.result {
            Ok(Outcome::Written(_)) => 0,
            Ok(Outcome::Pairs { pairs, .. }) if !pairs.is_empty() => 2,
            Ok(Outcome::Members(_)) => 4,
            Ok(Outcome::Routes(_)) => 5,
            Ok(Outcome::Status(_)) => 6,
            Err(Refusal::StaleDescriptor { .. }) => 8,
            _ => continue,
        };
        let (frame, sequence) = (ReplyFrame { replies: vec![reply.clone()] }, reply.sequence.to_le_bytes());
        let bytes = samples::encoded(|out| frame.encode(out));
        let damaged = with_metadata(&bytes, &[&sequence[..], &[kind]].concat(), &[&sequence[..], &[UNKNOWN]].concat());
        assert_eq!(ReplyFrame::decode(damaged), Err(FrameError::Metadata), "{frame:?}");
    }
}

#[test]
fn members_that_no_descriptor_owns_are_refused() {
    let result = Err(Refusal::StaleDescriptor { descriptor: samples::descriptor(), leader: None });
    let frame = ReplyFrame { replies: vec![Reply { sequence: 1, result }] };
    let bytes = samples::encoded(|out| frame.encode(out));
    // The sample has two members and is of generation 3.
    let counted = |count: u32| [&count.to_le_bytes()[..], &3u64.to_le_bytes()].concat();
    for wrong in [0, 1, 3] {
        let damaged = with_metadata(&bytes, &counted(2), &counted(wrong));
        assert_eq!(ReplyFrame::decode(damaged), Err(FrameError::Metadata), "{wrong} members instead of 2");
    }
}

#[test]
fn bytes_that_no_list_owns_are_refused() {
    let whole = samples::encoded(|out| samples::peer_full().encode(out));
    let mut frame = [whole.as_ref(), &[0]].concat();
    let payload_bytes = u32::from_le_bytes([frame[12], frame[13], frame[14], frame[15]]);
    frame[12..16].copy_from_slice(&(payload_bytes + 1).to_le_bytes());
    seal(&mut frame);
    assert_eq!(PeerFrame::decode(Bytes::from(frame)), Err(FrameError::Payload));
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_is_allocated() {
    let mut frame = samples::encoded(|out| samples::requests().encode(out)).to_vec();
    frame[12..16].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
    seal_header(&mut frame);
    let metadata_bytes = u32::from_le_bytes(frame[8..12].try_into().unwrap());
    let expected = FrameError::TooLong { bytes: 32 + u64::from(metadata_bytes) + FRAME_BYTES_MAX as u64 };
    assert_eq!(allocated_bytes(|| RequestFrame::decode(Bytes::from(frame.clone()))).1, Err(expected.clone()));
    let mut reader = FrameReader::new();
    reader.push(&frame[..32]);
    let (bytes, result) = allocated_bytes(|| reader.next());
    assert_eq!((bytes, result), (0, Err(expected)));
}

/// Decoding allocates at most this much for each byte of a frame. The widest value for its bytes is a pair of a scan, 8
/// bytes in the metadata and 64 in memory; the rest is room for the lists around it.
const ALLOCATED_PER_BYTE_MAX: usize = 16;

/// Decodes what may be anything, and holds the limit of what that allocates.
fn decode_anything(decode: samples::Decode, bytes: Vec<u8>) -> bool {
    let length = bytes.len();
    let bytes = Bytes::from(bytes);
    let (allocated, result) = allocated_bytes(|| decode(bytes));
    assert!(
        allocated <= ALLOCATED_PER_BYTE_MAX * length + 256,
        "decoding {length} bytes allocated {allocated} bytes: {result:?}"
    );
    result.is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (name, decode) in samples::DECODERS {
            prop_assert!(!decode_anything(decode, bytes.clone()), "random bytes are not a {}", name);
        }
    }

    #[test]
    fn random_metadata_behind_good_checksums_never_panics(
        kind in 1..=3u8,
        metadata in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..200),
        payload in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut frame = [&[0; 32], &metadata[..], &payload[..]].concat();
        frame[..4].copy_from_slice(b"PTNF");
        frame[4] = 1;
        frame[6] = kind;
        frame[8..12].copy_from_slice(&(metadata.len() as u32).to_le_bytes());
        frame[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        seal(&mut frame);
        decode_anything(samples::decoder(["peer", "request", "reply"][usize::from(kind) - 1]), frame);
    }

    #[test]
    fn damaged_metadata_behind_good_checksums_never_panics(
        sample in 4..8usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (_, kind, bytes) = samples::all().swap_remove(sample);
        let mut frame = bytes.to_vec();
        for (place, value) in damage {
            let at = 32 + place.index(frame.len() - 32);
            frame[at] = value;
        }
        seal(&mut frame);
        decode_anything(samples::decoder(kind), frame);
    }

    #[test]
    fn damaged_commands_never_panic(place in any::<proptest::sample::Index>(), value in any::<u8>()) {
        let mut bytes = samples::command().encode().to_vec();
        let at = place.index(bytes.len());
        bytes[at] = value;
        decode_anything(samples::decoder("command"), bytes);
    }
}
