//! The bytes of version 1 as files. A difference means a new version, never a new file under an old one.
//!
//! `PONTOON_UPDATE_GOLDEN=1` writes the files; what they say is then read and committed.

use std::fmt::Write;
use std::path::PathBuf;

use bytes::Bytes;
use pontoon_wire::client::{ReplyFrame, RequestFrame};
use pontoon_wire::command::Command;
use pontoon_wire::hello::{Hello, Welcome};
use pontoon_wire::peer::PeerFrame;

use crate::samples;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name).with_extension("hex")
}

/// Sixteen bytes on a line, in groups of four.
fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let groups: Vec<String> = line
            .chunks(4)
            .map(|group| {
                group.iter().fold(String::new(), |mut text, byte| {
                    write!(text, "{byte:02x}").expect("a string takes everything");
                    text
                })
            })
            .collect();
        writeln!(text, "{}", groups.join(" ")).expect("a string takes everything");
    }
    text
}

fn from_hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digits = std::str::from_utf8(&digits).expect("hex digits are text");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn golden(name: &str) -> Bytes {
    let path = path(name);
    from_hex(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

#[test]
fn encoding_gives_the_committed_bytes() {
    let update = std::env::var_os("PONTOON_UPDATE_GOLDEN").is_some_and(|value| value == "1");
    for (name, _, bytes) in samples::all() {
        if update {
            std::fs::write(path(name), to_hex(&bytes)).unwrap();
        }
        assert_eq!(to_hex(&golden(name)), to_hex(&bytes), "the bytes of {name} have changed");
    }
}

#[test]
fn the_committed_bytes_decode_to_the_samples() {
    let hello = |name| Hello::decode(golden(name).as_ref().try_into().unwrap());
    let welcome = |name| Welcome::decode(golden(name).as_ref().try_into().unwrap());
    assert_eq!(hello("hello_peer"), Ok(samples::hello_peer()));
    assert_eq!(hello("hello_client"), Ok(samples::hello_client()));
    assert_eq!(welcome("welcome"), Ok(samples::welcome()));
    assert_eq!(welcome("welcome_refused"), Ok(samples::welcome_refused()));
    assert_eq!(PeerFrame::decode(golden("peer_empty")), Ok(samples::peer_empty()));
    assert_eq!(PeerFrame::decode(golden("peer_full")), Ok(samples::peer_full()));
    assert_eq!(RequestFrame::decode(golden("request")), Ok(samples::requests()));
    assert_eq!(ReplyFrame::decode(golden("reply")), Ok(samples::replies()));
    assert_eq!(Command::decode(golden("command")), Ok(samples::command()));
}

#[test]
fn every_sample_has_a_file_and_every_file_a_sample() {
    let mut files: Vec<String> = std::fs::read_dir(path("x").parent().unwrap())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    files.sort();
    let mut samples: Vec<&str> = samples::all().into_iter().map(|(name, _, _)| name).collect();
    samples.sort_unstable();
    assert_eq!(files, samples);
}

#[test]
fn the_layout_of_the_header_is_the_drawn_one() {
    let frame = golden("request");
    let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(&frame[..4], b"PTNF");
    assert_eq!(&frame[4..8], [1, 0, 2, 0], "version 1, requests");
    assert_eq!(32 + word(8) + word(12), frame.len());
    assert_eq!(word(16), crc32fast::hash(&frame[32 + word(8)..]) as usize);
    assert_eq!(word(20), crc32fast::hash(&frame[32..32 + word(8)]) as usize);
    assert_eq!(word(24), 0);
    assert_eq!(word(28), crc32fast::hash(&frame[..28]) as usize);
}
