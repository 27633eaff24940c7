//! A stream cut anywhere gives the same frames.

use bytes::Bytes;
use pontoon_types::{Generation, GroupId};
use pontoon_wire::client::{Operation, Request, RequestFrame};
use pontoon_wire::frame::{FrameError, FrameReader};
use proptest::prelude::*;

use crate::allocation::allocated_bytes;
use crate::samples;

/// A frame with a command of this many bytes.
fn frame(bytes: usize) -> Bytes {
    let operation = Operation::Write {
        group: GroupId(2),
        generation: Generation(1),
        command: (0..bytes).map(|place| place as u8).collect(),
    };
    samples::encoded(|out| RequestFrame { requests: vec![Request { sequence: 1, operation }] }.encode(out))
}

/// Takes all frames that are whole.
fn drain(reader: &mut FrameReader, frames: &mut Vec<Bytes>) {
    while let Some(frame) = reader.next().expect("the stream is whole") {
        frames.push(frame);
    }
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_gives_its_frames(
        sizes in proptest::collection::vec(prop_oneof![4 => 0..200usize, 1 => 0..100_000usize], 1..8),
        cuts in proptest::collection::vec(1..5_000usize, 1..20),
        chunk_bytes in prop_oneof![Just(0usize), Just(5_000), Just(65_536)],
        keep in any::<bool>(),
    ) {
        let sent: Vec<Bytes> = sizes.into_iter().map(frame).collect();
        let stream = sent.concat();
        let (mut reader, mut frames, mut copies) = (FrameReader::with_chunk(chunk_bytes), Vec::new(), Vec::new());
        let (mut rest, mut cuts) = (&stream[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let spare = reader.spare();
            prop_assert!(!spare.is_empty());
            let taken = cuts.next().expect("a cycle does not end").min(spare.len()).min(rest.len());
            spare[..taken].copy_from_slice(&rest[..taken]);
            reader.filled(taken);
            rest = &rest[taken..];
            drain(&mut reader, &mut frames);
            if !keep {
                // Frames that are let go give their memory back to the reader, which must not disturb later ones.
                copies.extend(frames.drain(..).map(|frame| frame.to_vec()));
            }
        }
        copies.extend(frames.iter().map(|frame| frame.to_vec()));
        prop_assert_eq!(reader.pending_bytes(), 0);
        prop_assert_eq!(copies, sent);
    }
}

#[test]
fn bytes_one_by_one() {
    let (first, second) = (frame(10), frame(0));
    let (mut reader, mut frames) = (FrameReader::new(), Vec::new());
    for byte in [first.as_ref(), second.as_ref()].concat() {
        reader.push(&[byte]);
        drain(&mut reader, &mut frames);
    }
    assert_eq!(frames, [first, second]);
}

#[test]
fn frames_that_are_let_go_make_room_for_others() {
    let frame = frame(1000);
    let mut reader = FrameReader::new();
    let mut turn = || {
        reader.push(&frame);
        assert_eq!(reader.next().unwrap().as_ref(), Some(&frame));
    };
    (0..100).for_each(|_| turn());
    let (bytes, ()) = allocated_bytes(|| (0..10_000).for_each(|_| turn()));
    assert_eq!(bytes, 0, "10 MB went through the reader's one chunk");
}

/// A connection that was sent the routing table of many ranges once does not keep the room for it.
#[test]
fn the_room_of_a_long_frame_is_given_back() {
    let (long, short) = (frame(4 << 20), frame(100));
    let mut reader = FrameReader::new();
    reader.push(&long);
    assert_eq!(reader.next(), Ok(Some(long)));
    let (bytes, ()) = allocated_bytes(|| reader.push(&short));
    assert_eq!(bytes, 64 << 10, "the reader takes a chunk again");
}

#[test]
fn a_header_alone_does_not_make_the_reader_allocate_what_it_announces() {
    let long = frame(4 << 20);
    let mut reader = FrameReader::new();
    let (bytes, ()) = allocated_bytes(|| {
        reader.push(&long[..100]);
        assert_eq!(reader.next(), Ok(None));
        reader.spare();
    });
    assert!(bytes <= 128 << 10, "{bytes} bytes for a frame of which 100 bytes came");
    let (bytes, ()) = allocated_bytes(|| reader.push(&long[100..]));
    assert!(bytes <= 4 * long.len(), "{bytes} bytes for a frame of {} bytes", long.len());
    assert_eq!(reader.next(), Ok(Some(long)));
}

#[test]
fn damage_ends_the_stream() {
    let whole = frame(10);
    let mut damaged = whole.to_vec();
    damaged[9] ^= 1;
    let mut reader = FrameReader::new();
    reader.push(&whole);
    reader.push(&damaged);
    reader.push(&whole);
    assert_eq!(reader.next(), Ok(Some(whole)));
    assert_eq!(reader.next(), Err(FrameError::HeaderChecksum));
    assert_eq!(reader.next(), Err(FrameError::HeaderChecksum));
}

#[test]
fn bytes_of_another_protocol_are_refused_at_the_header() {
    let mut reader = FrameReader::new();
    reader.push(b"GET / HTTP/1.1\r\nHost: example\r");
    assert_eq!(reader.next(), Ok(None), "the header is not whole");
    reader.push(b"\n\r\n");
    assert_eq!(reader.next(), Err(FrameError::Magic));
}

#[test]
#[should_panic(expected = "room")]
fn more_than_the_spare_room_is_never_filled() {
    let mut reader = FrameReader::new();
    let room = reader.spare().len();
    reader.filled(room + 1);
}
