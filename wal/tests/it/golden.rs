//! Golden bytes: what was written once must be readable for ever, and must not change by accident.
//!
//! `golden/log_v1.txt`, `golden/log_kept_v1.txt` and `golden/log_committed_v1.txt` are whole small logs, the second and third
//! with footers, checkpoints and a cold segment, the third also with a commit index; the others are single structures. `PONTOON_REGENERATE=1` writes them anew,
//! which only a new format version may need.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use pontoon_types::{ClusterId, EntryKind, GroupId, Incarnation, Index, LogId, NodeId, Term, Write};
use pontoon_wal::LogIdentity;
use pontoon_wal::Options;
use pontoon_wal::format::checkpoint::{GroupFact, Head, RunPlace, SegmentFact};
use pontoon_wal::format::control::{CheckpointRef, Control};
use pontoon_wal::format::footer::{self, FooterPlace};
use pontoon_wal::format::group::{FLAG_SEAL, GroupHeader};
use pontoon_wal::format::record::{KIND_RESTORED, KIND_TOMBSTONE, KIND_VOTE_LOST, Record, RunHead};
use pontoon_wal::format::segment_header::{SegmentHeader, Stream};
use pontoon_wal::format::{LogEnd, Lsn, SegmentId, SegmentKey, Seq};
use pontoon_wal::memory::MemoryDisk;

use crate::common::{Model, Rig, apply, compact, created, entries, entry, model_of, small, vote};

const LOG: LogIdentity =
    LogIdentity { cluster: ClusterId(0x1112_1314), node: NodeId(0x21), log: 0x3132_3334_3536_3738_393a_3b3c_3d3e_3f40 };

/// Hex in words of four bytes, trailing zeros left out.
fn hex(bytes: &[u8]) -> String {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut text = String::new();
    for (at, byte) in bytes[..length].iter().enumerate() {
        let gap = if at > 0 && at % 4 == 0 { " " } else { "" };
        write!(text, "{gap}{byte:02x}").unwrap();
    }
    text
}

/// The stored text of that name, which must equal what was written now.
fn golden(name: &str, written: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    if std::env::var_os("PONTOON_REGENERATE").is_some() {
        std::fs::write(&path, format!("{}\n", written.trim_end())).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(stored.trim_end() == written.trim_end(), "{name} must not change; written now:\n{written}");
    stored
}

fn end() -> LogEnd {
    LogEnd { place: Lsn { segment: SegmentId(0x41), offset: 0x5000 }, seq: Seq(0x61), chain: 0x7172_7374 }
}

#[test]
fn segment_header() {
    let header = SegmentHeader {
        stream: Stream::Log,
        identity: LOG,
        segment: SegmentId(0x42),
        salt: 0x8182_8384,
        slot: 0x91,
        base_seq: Seq(0x62),
        incarnation: Incarnation(0xa1),
        segment_bytes: 1 << 20,
        previous: end(),
    };
    let bytes = header.encode();
    golden("segment_header.txt", &hex(&bytes));
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
}

#[test]
fn control_block() {
    for (clean_end, name) in [(None, "control.txt"), (Some(end()), "control_clean.txt")] {
        let control = Control {
            checkpoints: [None, None],
            identity: LOG,
            generation: 0xb1,
            incarnation: Incarnation(0xa1),
            durable_seq: Seq(0x61),
            newest_segment: SegmentId(0x42),
            segment_bytes: 1 << 20,
            clean_end,
        };
        let bytes = control.encode();
        golden(name, &hex(&bytes));
        assert_eq!(Control::decode(&bytes), Ok(control));
    }
}

#[test]
fn control_block_with_checkpoints() {
    let before = LogEnd { place: Lsn { segment: SegmentId(0x43), offset: 0x1000 }, seq: Seq(0x11), chain: 0x5152_5354 };
    let after = LogEnd { place: Lsn { segment: SegmentId(0x44), offset: 0x3000 }, seq: Seq(0x13), chain: 0x5556_5758 };
    let newest = CheckpointRef { start: before, end: after };
    let control = Control {
        checkpoints: [Some(newest), Some(CheckpointRef { start: LogEnd::default(), end: before })],
        identity: LOG,
        generation: 0xb2,
        incarnation: Incarnation(0xa2),
        durable_seq: Seq(0x62),
        newest_segment: SegmentId(0x45),
        segment_bytes: 1 << 20,
        clean_end: None,
    };
    let bytes = control.encode();
    golden("control_checkpoints.txt", &hex(&bytes));
    assert_eq!(Control::decode(&bytes), Ok(control));
}

#[test]
fn footer_of_a_segment() {
    let directory = RunHead::truncate(GroupId(0x0102_0304), Index(7)).encode();
    let header = GroupHeader {
        dir_len: directory.len() as u32,
        dir_crc: crc32fast::hash(&directory),
        payload_len: 0,
        runs: 1,
        prev_chain: 0x7172_7374,
        seq: Seq(0x62),
        durable_seq: Seq(0x61),
        segment: SegmentId(0x42),
        salt: 0x8182_8384,
        flags: 0,
    };
    let (encoded, chain) = header.encode(LOG.log, 4096);
    let place = FooterPlace { log: LOG.log, segment: SegmentId(0x42), salt: 0x8182_8384, offset: 8192 };
    let bytes = footer::encode(place, 1, &[encoded.as_slice(), &directory].concat());
    golden("footer.txt", &hex(&bytes));
    let groups = footer::decode(&bytes, place).unwrap();
    assert_eq!((groups.len(), groups[0].header, groups[0].chain, groups[0].offset), (1, header, chain, 4096));
    assert_eq!(groups[0].directory, directory);
    for other in
        [FooterPlace { offset: 4096, ..place }, FooterPlace { salt: 1, ..place }, FooterPlace { log: 1, ..place }]
    {
        assert!(footer::decode(&bytes, other).is_err(), "{other:?}");
    }
}

#[test]
fn records_of_a_checkpoint() {
    let head = Head { covered: end(), groups: 0x21, segments: 0x22 };
    let fact = SegmentFact {
        segment: SegmentId(0x42),
        end_offset: 0x5000,
        slot: 0x91,
        salt: 0x8182_8384,
        stream: Stream::Cold,
    };
    let group = GroupFact {
        vote: 0x66,
        vote_lost: true,
        runs: 0x77,
        last_term: pontoon_types::Term(0x9a),
        compacted: pontoon_types::LogId::new(Index(0x88), pontoon_types::Term(0x99)),
    };
    let run =
        RunPlace { first: Index(0x89), count: 0x12, segment: SegmentKey(0x42), head_at: 0x1040, payloads_at: 0x10a0 };
    let lines = [hex(&head.encode()), hex(&fact.encode()), hex(&group.encode()), hex(&run.encode())];
    golden("checkpoint.txt", &lines.join("\n"));
    assert_eq!(Head::decode(&head.encode()), Ok(head));
    assert_eq!(SegmentFact::decode(SegmentId(0x42), &fact.encode()), Ok(fact));
    assert_eq!(GroupFact::decode(&group.encode()), Ok(group));
    assert_eq!(RunPlace::decode_all(&run.encode()).unwrap().collect::<Vec<_>>(), [run]);
    assert!(RunPlace::decode_all(&run.encode()[..23]).is_err());
}

#[test]
fn runs_that_give_up_and_repeat() {
    let group = GroupId(0x0102_0304);
    let (_, Write { hard_state, .. }) = vote(2, 0x55, 0x66);
    let reset =
        pontoon_types::Compaction { to: pontoon_types::LogId::new(Index(7), pontoon_types::Term(9)), reset: true };
    let entries = RunHead::entries(group, LogId::new(Index(7), Term(9)), EntryKind::Command, 5);
    let lines = [
        hex(&RunHead::compact(group, pontoon_types::Compaction { reset: false, ..reset }).encode()),
        hex(&RunHead::compact(group, reset).encode()),
        hex(&RunHead { kind: KIND_RESTORED, ..entries }.encode()),
        hex(&RunHead::plain(KIND_TOMBSTONE, group, 0x67, 0).encode()),
        hex(&RunHead::plain(KIND_VOTE_LOST, group, 0, 0).encode()),
        hex(&RunHead::hard_state(group, hard_state.unwrap()).echo().encode()),
    ];
    golden("records_kept.txt", &lines.join("\n"));
    golden("record_committed.txt", &hex(&RunHead::committed(group, Index(0x68)).encode()));
}

#[test]
fn group_header() {
    let header = GroupHeader {
        dir_len: 0x2c,
        dir_crc: 0xc1c2_c3c4,
        payload_len: 0x1234,
        runs: 3,
        prev_chain: 0x7172_7374,
        seq: Seq(0x62),
        durable_seq: Seq(0x61),
        segment: SegmentId(0x42),
        salt: 0x8182_8384,
        flags: FLAG_SEAL,
    };
    let (bytes, chain) = header.encode(LOG.log, 0x6000);
    golden("group_header.txt", &hex(&bytes));
    assert_eq!(GroupHeader::decode(&bytes, LOG.log, 0x6000), Ok((header, chain)));
    assert!(GroupHeader::decode(&bytes, LOG.log, 0x7000).is_err(), "its place is part of its checksum");
}

#[test]
fn runs_and_records() {
    let (_, Write { hard_state, .. }) = vote(2, 0x55, 0x66);
    let group = GroupId(0x0102_0304);
    let lines = [
        hex(&RunHead::entries(group, LogId::new(Index(7), Term(9)), EntryKind::Command, 5).encode()),
        hex(&RunHead::entries(group, LogId::new(Index(7), Term(9)), EntryKind::Configuration, 5).encode()),
        hex(&RunHead::hard_state(group, hard_state.unwrap()).encode()),
        hex(&RunHead::truncate(group, Index(7)).encode()),
        hex(&RunHead::create(group, pontoon_types::ReplicaId(7)).encode()),
        hex(&Record { offset: 0x20, length: 300, crc: 0xd1d2_d3d4 }.encode()),
    ];
    golden("records.txt", &lines.join("\n"));
}

/// A log with every kind of record, a rotation, a SEAL and an unsynced tail.
fn history() -> (Rig, Model) {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    let mut model = model_of(&created(2));
    let cut = Write { truncate_from: Some(Index(2)), entries: vec![entry(2, 3, "overwritten")], ..Write::default() };
    let steps = [
        vec![vote(2, 1, 3), entries(2, vec![entry(1, 1, ""), entry(2, 2, "first"), entry(3, 2, vec![5; 100])])],
        vec![(GroupId(2), cut), entries(3, vec![entry(1, 1, vec![6; 20_000])])],
        vec![entries(3, vec![entry(2, 1, "in the second segment")])],
    ];
    for (number, writes) in steps.iter().enumerate() {
        rig.commit(&mut log, number as u64 + 1, writes);
        apply(&mut model, writes);
    }
    rig.seal(&mut log);
    (rig, model)
}

/// Every file: its size, and each 16 bytes that are not zero.
fn dump(rig: &Rig) -> String {
    let mut text = String::new();
    for (name, content) in rig.disk.image() {
        writeln!(text, "{name} {}", content.len()).unwrap();
        let mut repeated = 0;
        let lines: Vec<&[u8]> = content.chunks(16).collect();
        for (at, line) in lines.iter().enumerate() {
            if line.iter().all(|byte| *byte == 0) || at > 0 && lines[at - 1] == *line {
                repeated += usize::from(line.iter().any(|byte| *byte != 0));
                continue;
            }
            if repeated > 0 {
                writeln!(text, "  repeated {repeated}").unwrap();
                repeated = 0;
            }
            let bytes: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "  {:06x} {bytes}", at * 16).unwrap();
        }
        if repeated > 0 {
            writeln!(text, "  repeated {repeated}").unwrap();
        }
    }
    text
}

/// The disk that a dump describes.
fn load(text: &str) -> MemoryDisk {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut last = 0;
    for line in text.lines() {
        let (first, second) = line.trim_start().split_once(' ').unwrap();
        if !line.starts_with(' ') {
            files.push((first.to_string(), vec![0; second.parse().unwrap()]));
            continue;
        }
        let (_, content) = files.last_mut().unwrap();
        if first == "repeated" {
            for _ in 0..second.parse::<usize>().unwrap() {
                content.copy_within(last..last + 16, last + 16);
                last += 16;
            }
            continue;
        }
        last = usize::from_str_radix(first, 16).unwrap();
        for (at, digits) in second.as_bytes().chunks(2).enumerate() {
            content[last + at] = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
    }
    let disk = MemoryDisk::new();
    files.into_iter().for_each(|(name, content)| disk.replace(&name, content));
    disk
}

#[test]
fn case_49_a_log_of_version_1_opens_for_ever() {
    let (rig, model) = history();
    let golden = golden("log_v1.txt", &dump(&rig));
    let old = Rig { disk: load(&golden), options: small() };
    assert!(old.disk.image() == rig.disk.image());
    let (_, recovered) = old.open();
    assert_eq!(recovered.groups, model);
    assert_eq!(recovered.groups[&GroupId(2)].descriptor, Bytes::from("descriptor 2"));
}

/// A log whose first entries were copied to a cold segment, with two checkpoints, and closed segments behind them. The first
/// writes may say what was committed.
fn kept_history(committed: Option<Index>) -> (Rig, Model) {
    let options = Options { segment_bytes: 16 << 10, max_log_bytes: 8 * (16 << 10), checkpoint_segments: 3, ..small() };
    let rig = Rig::new(options, 2);
    let (mut log, _) = rig.open();
    let mut model = model_of(&created(2));
    let mut step = |log: &mut pontoon_wal::Log, number: u64, writes: Vec<(GroupId, Write)>| {
        rig.commit(log, number, &writes);
        apply(&mut model, &writes);
    };
    let (group, first) = entries(2, vec![entry(1, 1, "old"), entry(2, 1, "and copied")]);
    step(&mut log, 1, vec![vote(2, 1, 3), (group, Write { committed, ..first })]);
    let mut number = 1;
    let mut behind = 0;
    while behind < 2 {
        number += 1;
        let copied = log.stats().moved_runs > 0 && log.stats().checkpoints >= 2;
        let writes = vec![entries(3, vec![entry(number - 1, 1, vec![number as u8; 3000])]), compact(3, number - 1, 1)];
        step(&mut log, number, writes);
        behind += u64::from(copied);
        assert!(number < 100, "{:?}", log.stats());
    }
    number += 1;
    step(&mut log, number, vec![entries(2, vec![entry(3, 2, "new")])]);
    (rig, model)
}

#[test]
fn case_49_a_log_with_checkpoints_and_copies_of_version_1_opens_for_ever() {
    let (rig, model) = kept_history(None);
    let headers: Vec<SegmentHeader> = rig.slots().iter().filter_map(|name| rig.header(name)).collect();
    for stream in [Stream::Log, Stream::Cold, Stream::Checkpoint] {
        assert!(headers.iter().any(|header| header.stream == stream), "{stream:?}");
    }
    let golden = golden("log_kept_v1.txt", &dump(&rig));
    let old = Rig { disk: load(&golden), options: rig.options.clone() };
    assert!(old.disk.image() == rig.disk.image());
    assert!(old.control().checkpoints.iter().all(Option::is_some));
    let (_, recovered) = old.open();
    assert!(recovered.checkpoint_unreadable.is_none() && recovered.footers == recovered.segments - 1);
    assert_eq!(recovered.groups, model);
}

#[test]
fn case_49_a_log_that_knows_what_is_committed_of_version_1_opens_for_ever() {
    let (rig, model) = kept_history(Some(Index(1)));
    let golden = golden("log_committed_v1.txt", &dump(&rig));
    let old = Rig { disk: load(&golden), options: rig.options.clone() };
    assert!(old.disk.image() == rig.disk.image());
    let (_, recovered) = old.open();
    assert_eq!(recovered.groups, model);
    // The segment in which it was written was given up since: a checkpoint says so.
    assert_eq!(recovered.groups[&GroupId(2)].committed, Index(1));
}
