//! What is encoded decodes to the same value, and its size is the foretold one.

use bytes::Bytes;
use pontoon_types::{Body, GroupId, Index, LogId, Message, ReplicaId, Term};
use pontoon_wire::client::{ReplyFrame, RequestFrame};
use pontoon_wire::command::Command;
use pontoon_wire::peer::{PeerFrame, message_bytes};
use proptest::prelude::*;

use crate::{samples, strategies};

proptest! {
    #[test]
    fn peer_frames(frame in strategies::peer_frame()) {
        let bytes = samples::encoded(|out| frame.encode(out));
        prop_assert_eq!(bytes.len(), frame.encoded_bytes());
        prop_assert_eq!(PeerFrame::decode(bytes), Ok(frame));
    }

    #[test]
    fn request_frames(frame in strategies::request_frame()) {
        let bytes = samples::encoded(|out| frame.encode(out));
        prop_assert_eq!(bytes.len(), frame.encoded_bytes());
        prop_assert_eq!(RequestFrame::decode(bytes), Ok(frame));
    }

    #[test]
    fn reply_frames(frame in strategies::reply_frame()) {
        let bytes = samples::encoded(|out| frame.encode(out));
        prop_assert!(bytes.len() <= frame.encoded_bytes());
        prop_assert_eq!(ReplyFrame::decode(bytes), Ok(frame));
    }

    #[test]
    fn commands(command in strategies::command()) {
        let bytes = command.encode();
        prop_assert_eq!(bytes.len(), command.encoded_bytes());
        prop_assert_eq!(Command::decode(bytes), Ok(command));
    }

    #[test]
    fn a_frame_is_the_same_wherever_it_is_appended(frame in strategies::peer_frame(), before in 0..100usize) {
        let mut out = vec![7; before];
        frame.encode(&mut out);
        prop_assert!(out[..before].iter().all(|byte| *byte == 7));
        prop_assert_eq!(&out[before..], &samples::encoded(|out| frame.encode(out))[..]);
    }
}

#[test]
fn what_a_message_adds_is_foretold() {
    let empty = samples::peer_empty();
    let mut frame = samples::peer_empty();
    frame.messages = samples::peer_full().messages;
    let added: usize = frame.messages.iter().map(|(_, message)| message_bytes(message)).sum();
    assert_eq!(frame.encoded_bytes(), empty.encoded_bytes() + added);
    assert_eq!(samples::encoded(|out| frame.encode(out)).len(), frame.encoded_bytes());
}

/// Whether `part` is a slice of `whole`, and not a copy.
fn lies_within(part: &[u8], whole: &[u8]) -> bool {
    whole.as_ptr_range().contains(&part.as_ptr()) && part.as_ptr_range().end <= whole.as_ptr_range().end
}

#[test]
fn payloads_are_slices_of_the_frame() {
    let bytes = samples::encoded(|out| samples::peer_full().encode(out));
    let frame = PeerFrame::decode(bytes.clone()).unwrap();
    let payloads: Vec<&Bytes> = frame
        .messages
        .iter()
        .filter_map(|(_, message)| match &message.body {
            Body::Append { entries, .. } => Some(entries.iter().map(|entry| &entry.payload)),
            _ => None,
        })
        .flatten()
        .filter(|payload| !payload.is_empty())
        .collect();
    assert_eq!(payloads.len(), 3);
    assert!(payloads.iter().all(|payload| lies_within(payload, &bytes)));
}

#[test]
fn a_descriptor_does_not_keep_the_frame() {
    let bytes = samples::encoded(|out| samples::replies().encode(out));
    let frame = ReplyFrame::decode(bytes.clone()).unwrap();
    let descriptor = frame.replies.iter().find_map(|reply| match &reply.result {
        Err(pontoon_wire::client::Refusal::StaleDescriptor { descriptor, .. }) => Some(descriptor),
        _ => None,
    });
    assert!(!lies_within(&descriptor.unwrap().range.start, &bytes));
}

#[test]
#[should_panic(expected = "without a gap")]
fn entries_with_a_gap_are_not_encoded() {
    let mut frame = samples::peer_empty();
    let entry = |index| pontoon_types::Entry::command(LogId::new(Index(index), Term(1)), Bytes::new());
    let body =
        Body::Append { previous: LogId::new(Index(1), Term(1)), entries: vec![entry(2), entry(4)], commit: Index(0) };
    frame.messages.push((GroupId(2), Message { from: ReplicaId(1), to: ReplicaId(2), term: Term(1), body }));
    frame.encode(&mut Vec::new());
}

#[test]
#[should_panic(expected = "FRAME_BYTES_MAX")]
fn a_frame_above_the_limit_is_not_encoded() {
    let command = Bytes::from(vec![0; pontoon_types::limits::FRAME_BYTES_MAX]);
    let operation =
        pontoon_wire::client::Operation::Write { group: GroupId(2), generation: pontoon_types::Generation(1), command };
    let request = pontoon_wire::client::Request { sequence: 1, operation };
    RequestFrame { requests: vec![request] }.encode(&mut Vec::new());
}
