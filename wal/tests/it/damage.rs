//! Damage to what was durable, by case number: refused, named, and nothing changed.

use pontoon_types::{ClusterId, CoreWriteNumber, GroupId, Index, NodeId, Write};
use pontoon_wal::format::control::Control;
use pontoon_wal::format::group::{GROUP_HEADER_BYTES, GroupHeader};
use pontoon_wal::format::record::RunHead;
use pontoon_wal::format::segment_header::{SegmentHeader, Stream};
use pontoon_wal::format::{BLOCK_BYTES, LogEnd, Lsn, SegmentId, Seq};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::{Log, LogError, LogIdentity, Preparation};

use crate::cases::with_writes;
use crate::common::{IDENTITY, Rig, apply, entries, entry, groups_in, small, vote};
use crate::keeping::{busy, create, with_laggard};

fn corruption(rig: &Rig) -> (String, u64) {
    match rig.refused() {
        LogError::Corruption { file, offset, .. } => (file, offset),
        error => panic!("not a corruption: {error}"),
    }
}

/// A log over several segments, not closed.
pub fn long() -> Rig {
    let rig = Rig::new(small(), 2);
    drop(with_writes(&rig, 40).0);
    rig
}

#[test]
fn case_5_a_flipped_bit_in_a_durable_group_is_named() {
    let payload_start = 112;
    // In the middle of the tail segment and in the middle of a closed one.
    for (slot, at) in [("slot-001.seg", 3 * 4096), ("slot-006.seg", 2 * 4096)] {
        let whole = long().open().1.groups;
        for inside in [0, 5, 9, 33, 63, 64, 90] {
            let rig = long();
            rig.damage(slot, |bytes| bytes[at + inside] ^= 4);
            if slot == "slot-001.seg" {
                assert_eq!(rig.open().1.groups, whole, "byte {inside}: the footer has another copy");
                rig.damage(slot, |bytes| bytes[8 * 4096 + 40] ^= 4);
            }
            assert_eq!(corruption(&rig), (slot.to_string(), at as u64), "byte {inside} of the group");
        }
        for inside in [payload_start, payload_start + 299] {
            let rig = long();
            rig.damage(slot, |bytes| bytes[at + inside] ^= 4);
            let found = rig.open().1.groups;
            let group = &found[&GroupId(2)];
            let [index] = group.lost[..] else { panic!("{:?}", group.lost) };
            let mut expected = whole.clone();
            let expected_group = expected.get_mut(&GroupId(2)).unwrap();
            expected_group.entries[index.0 as usize - 1].payload = bytes::Bytes::new();
            expected_group.lost = vec![index];
            assert_eq!(found, expected, "one payload is lost, and it is known which");
        }
        let rig = long();
        rig.damage(slot, |bytes| bytes[at + 4095] ^= 4);
        assert_eq!(rig.open().1.groups, whole, "padding means nothing");
    }
}

#[test]
fn case_6_a_zeroed_block_in_the_middle_is_corruption_and_not_the_end() {
    for block in [2, 3, 6] {
        let rig = long();
        rig.damage("slot-001.seg", |bytes| bytes[block * 4096..(block + 1) * 4096].fill(0));
        let (_, recovered) = rig.open();
        assert_eq!(recovered.groups[&GroupId(2)].lost.len(), 1, "named by the footer");
        assert_eq!(recovered.groups[&GroupId(2)].entries.len(), 40);
        rig.damage("slot-001.seg", |bytes| bytes[8 * 4096..].fill(0));
        assert_eq!(corruption(&rig), ("slot-001.seg".to_string(), block as u64 * 4096));
    }
    // A segment header: the chain has a hole.
    let rig = long();
    rig.damage("slot-003.seg", |bytes| bytes[..4096].fill(0));
    assert!(matches!(rig.refused(), LogError::MissingSegment { segment: 3, .. }));
    let rig = long();
    rig.damage("slot-003.seg", |bytes| bytes[40] ^= 1);
    assert_eq!(corruption(&rig), ("slot-003.seg".to_string(), 0));
}

#[test]
fn case_6_a_zeroed_block_of_the_live_segment_is_corruption_and_not_the_end() {
    let newest = long().newest();
    let starts: Vec<usize> = groups_in(&long().disk.content(&newest).unwrap()).iter().map(|(at, _)| *at).collect();
    let [durable @ .., _] = &starts[..] else { panic!("no groups") };
    assert!(durable.len() >= 2, "the first of the segment and one in its middle: {starts:?}");
    for at in durable {
        let rig = long();
        rig.damage(&newest, |bytes| bytes[*at..at + BLOCK_BYTES].fill(0));
        assert_eq!(corruption(&rig), (newest.clone(), *at as u64), "the groups behind it prove it");
    }
}

#[test]
fn case_6_a_zeroed_block_of_a_payload_is_named_in_the_live_segment_and_in_a_closed_one() {
    for is_closed in [false, true] {
        let rig = Rig::new(small(), 2);
        let (mut log, mut model) = with_writes(&rig, 2);
        // Three blocks, of which the one in the middle holds nothing but payload.
        let mut commit = |number: u64, payload_bytes: usize| {
            let writes = [entries(2, vec![entry(number, 1, vec![number as u8; payload_bytes])])];
            rig.commit(&mut log, number, &writes);
            apply(&mut model, &writes);
        };
        commit(3, 9000);
        commit(4, 100);
        if is_closed {
            commit(5, 20_000);
        }
        drop(log);
        assert_eq!(rig.newest() == "slot-001.seg", !is_closed);
        rig.damage("slot-001.seg", |bytes| bytes[5 * BLOCK_BYTES..6 * BLOCK_BYTES].fill(0));
        let of = model.get_mut(&GroupId(2)).unwrap();
        (of.entries[2].payload, of.lost) = (bytes::Bytes::new(), vec![Index(3)]);
        assert_eq!(rig.open().1.groups, model, "one payload is lost, and all that follows is there");
    }
}

#[test]
fn case_13_a_missing_middle_segment_refuses_the_log() {
    let rig = long();
    rig.disk.lose("slot-002.seg");
    let LogError::MissingSegment { segment, needed_by } = rig.refused() else { panic!("opened") };
    assert_eq!((segment, needed_by.as_str()), (2, "slot-003.seg"));
}

#[test]
fn case_14_a_missing_newest_segment_is_known_from_the_control_file() {
    let rig = long();
    let newest = rig.newest();
    rig.disk.lose(&newest);
    assert!(matches!(rig.refused(), LogError::MissingSegment { .. }));
}

#[test]
fn a_newest_segment_without_header_is_proven_by_its_own_groups() {
    let rig = long();
    let newest = rig.newest();
    let previous_end = SegmentHeader::decode(&rig.disk.content(&newest).unwrap()).unwrap().previous;
    // The control file as it was before the segment began.
    for block in 0..2 {
        rig.damage("ctl", |bytes| {
            let at = block * BLOCK_BYTES;
            let control = Control::decode(&bytes[at..]).unwrap();
            let older = Control { durable_seq: Seq(3), newest_segment: SegmentId(1), ..control };
            bytes[at..at + BLOCK_BYTES].copy_from_slice(&older.encode());
        });
    }
    rig.damage(&newest, |bytes| bytes[..4096].fill(0));
    assert!(
        groups_in(&rig.disk.content(&newest).unwrap()).iter().any(|(_, group)| group.durable_seq > previous_end.seq)
    );
    assert_eq!(corruption(&rig), (newest, 0));
}

#[test]
fn a_truncated_or_grown_file_is_refused() {
    let rig = long();
    rig.damage("slot-002.seg", |bytes| bytes.truncate(20_000));
    assert_eq!(corruption(&rig), ("slot-002.seg".to_string(), 20_000));
    let rig = long();
    rig.damage("slot-002.seg", |bytes| bytes.resize(bytes.len() + 4096, 0));
    assert_eq!(corruption(&rig), ("slot-002.seg".to_string(), 40 << 10), "named by the place where the file ends");
}

#[test]
fn a_clean_end_that_does_not_match_is_corruption() {
    let rig = Rig::new(small(), 2);
    let (log, _) = with_writes(&rig, 3);
    log.close().unwrap();
    rig.damage("slot-001.seg", |bytes| bytes[4 * 4096..5 * 4096].fill(0));
    assert_eq!(corruption(&rig), ("slot-001.seg".to_string(), 4 * 4096));
}

#[test]
fn one_rotten_control_block_is_survived_and_two_are_refused() {
    for block in 0..2 {
        let rig = long();
        let whole = long().open().1.groups;
        rig.damage("ctl", |bytes| bytes[block * 4096 + 60] ^= 1);
        let (log, recovered) = rig.open();
        assert_eq!(recovered.groups, whole);
        assert_eq!(log.incarnation().0, 2, "an incarnation never comes back");
    }
    let rig = long();
    rig.damage("ctl", |bytes| {
        bytes[60] ^= 1;
        bytes[4096 + 60] ^= 1;
    });
    assert_eq!(corruption(&rig).0, "ctl");
}

#[test]
fn another_cluster_node_or_log_is_refused_by_name() {
    let rig = long();
    let others = [
        ("cluster", LogIdentity { cluster: ClusterId(9), ..IDENTITY }),
        ("node", LogIdentity { node: NodeId(9), ..IDENTITY }),
        ("log", LogIdentity { log: 9, ..IDENTITY }),
    ];
    for (expected_part, identity) in others {
        let before = rig.disk.image();
        let opened = Log::open_in(std::sync::Arc::new(rig.disk.clone()), identity, &rig.options, Preparation::Inline);
        let Err(LogError::OtherLog { file, part, .. }) = opened else { panic!("opened as another {expected_part}") };
        assert_eq!((file.as_str(), part), ("ctl", expected_part));
        assert!(before == rig.disk.image());
    }
    // A single segment file of another log among ours.
    let other = MemoryDisk::new();
    Log::create_in(&other, LogIdentity { log: 9, ..IDENTITY }, &small(), &[]).unwrap();
    rig.disk.replace("slot-003.seg", other.content("slot-001.seg").unwrap());
    assert!(matches!(rig.refused(), LogError::OtherLog { file, part: "log", .. } if file == "slot-003.seg"));
}

/// A log that was closed with group `seq` in segment `segment`, written by hand.
fn at_numbers(seq: u64, segment: u64) -> Rig {
    let disk = MemoryDisk::new();
    let options = small();
    let previous = LogEnd { place: Lsn::default(), seq: Seq(seq - 1), chain: 77 };
    let header = SegmentHeader {
        stream: Stream::Log,
        identity: IDENTITY,
        segment: SegmentId(segment),
        salt: 5,
        slot: 1,
        base_seq: Seq(seq),
        incarnation: pontoon_types::Incarnation(1),
        segment_bytes: options.segment_bytes,
        previous,
    };
    let directory = [RunHead::create(GroupId(2), pontoon_types::ReplicaId(7)).encode().to_vec(), vec![0; 12]].concat();
    let group = GroupHeader {
        dir_len: directory.len() as u32,
        dir_crc: crc32fast::hash(&directory),
        payload_len: 0,
        runs: 1,
        prev_chain: 77,
        seq: Seq(seq),
        durable_seq: Seq(seq - 1),
        segment: SegmentId(segment),
        salt: 5,
        flags: 0,
    };
    let (encoded, chain) = group.encode(IDENTITY.log, BLOCK_BYTES as u64);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&encoded);
    bytes.extend_from_slice(&directory);
    bytes.resize(options.segment_bytes as usize, 0);
    disk.replace("slot-001.seg", bytes);
    let end =
        LogEnd { place: Lsn { segment: SegmentId(segment), offset: 2 * BLOCK_BYTES as u64 }, seq: Seq(seq), chain };
    let control = Control {
        checkpoints: [None, None],
        identity: IDENTITY,
        generation: 1,
        incarnation: pontoon_types::Incarnation(1),
        durable_seq: Seq(seq),
        newest_segment: SegmentId(segment),
        segment_bytes: options.segment_bytes,
        clean_end: Some(end),
    };
    disk.replace("ctl", [control.encode(), control.encode()].concat());
    Rig { disk, options }
}

#[test]
fn case_51_numbers_near_their_ends() {
    let beyond_32_bits = at_numbers(u32::MAX.into(), u32::MAX.into());
    let (mut log, _) = beyond_32_bits.open();
    for number in 1..=20 {
        beyond_32_bits.commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![1; 3000])])]);
    }
    drop(log);
    let (_, recovered) = beyond_32_bits.open();
    assert!(recovered.segments > 2);
    assert_eq!(recovered.groups[&GroupId(2)].entries.len(), 20);

    let last_seq = at_numbers(u64::MAX - 1, 7);
    let (mut log, _) = last_seq.open();
    last_seq.commit(&mut log, 1, &[vote(2, 1, 1)]);
    log.append(CoreWriteNumber(2), &[vote(2, 2, 1)]);
    assert!(log.begin_sync().unwrap_err().to_string().contains("used up"));
    let (mut log, recovered) = last_seq.open();
    assert_eq!(recovered.groups[&GroupId(2)].hard_state.term.0, 1, "the last number was used, not lost");
    log.append(CoreWriteNumber(1), &[vote(2, 2, 1)]);
    assert!(log.begin_sync().unwrap_err().to_string().contains("used up"));

    let last_segment = at_numbers(7, u64::MAX);
    let (mut log, _) = last_segment.open();
    log.append(CoreWriteNumber(1), &[entries(2, vec![entry(1, 1, vec![1; 28_000])])]);
    assert!(log.begin_sync().unwrap_err().to_string().contains("used up"));
}

#[test]
fn case_51_checkpoints_copies_and_footers_across_the_end_of_32_bits() {
    let wrap = 1 << 32;
    let mut beyond_by_stream = [0; 3];
    for before in 1..=12 {
        let rig = Rig { options: busy(), ..at_numbers(7, wrap - before) };
        let (mut log, opened) = rig.open();
        let mut model = opened.groups.clone();
        let mut commit = |log: &mut Log, number: u64, writes: &[(GroupId, Write)]| {
            rig.commit(log, number, writes);
            apply(&mut model, writes);
            model.clone()
        };
        commit(&mut log, 1, &[create(3, 1)]);
        for (number, writes) in with_laggard().iter().enumerate() {
            let expected = commit(&mut log, number as u64 + 2, writes);
            let beyond = |header: &SegmentHeader| header.segment.0 >= wrap;
            for header in rig.slots().iter().filter_map(|name| rig.header(name)).filter(beyond) {
                beyond_by_stream[usize::from(header.stream.number())] += 1;
            }
            // A start of a copy after each write, so that the log itself goes on.
            let copy = Rig { disk: rig.disk.copy(), options: busy() };
            let (_, opened) = copy.open();
            assert!(opened.checkpoint_unreadable.is_none() && opened.footers + 1 >= opened.segments);
            assert_eq!(opened.groups, expected, "{before} segments before the wrap, write {number}");
        }
        let stats = log.stats();
        assert!(stats.moved_runs >= 2 && stats.checkpoints > 5 && stats.freed_segments > 5, "{stats:?}");
    }
    assert!(beyond_by_stream.iter().all(|segments| *segments > 20), "all streams are there: {beyond_by_stream:?}");
}

#[test]
fn the_first_group_after_a_crash_is_proven_by_the_control_file() {
    let rig = long();
    drop(rig.open());
    let newest = rig.newest();
    assert_eq!(groups_in(&rig.disk.content(&newest).unwrap()).len(), 1, "only the group that recovery wrote");
    rig.damage(&newest, |bytes| bytes[4096 + 50] ^= 1);
    assert_eq!(corruption(&rig), (newest, 4096));
}

#[test]
fn a_group_is_proven_by_the_control_file_alone() {
    let rig = long();
    let last = groups_in(&rig.disk.content(&rig.newest()).unwrap()).pop().unwrap();
    for block in 0..2 {
        rig.damage("ctl", |bytes| {
            let at = block * BLOCK_BYTES;
            let control = Control { durable_seq: last.1.seq, ..Control::decode(&bytes[at..]).unwrap() };
            bytes[at..at + BLOCK_BYTES].copy_from_slice(&control.encode());
        });
    }
    let newest = rig.newest();
    rig.damage(&newest, |bytes| bytes[last.0 + 70] ^= 1);
    assert_eq!(corruption(&rig), (newest, last.0 as u64));
}

#[test]
fn a_header_that_outlived_its_first_group_proves_the_group_before_it() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = with_writes(&rig, 3);
    log.append(CoreWriteNumber(4), &[entries(2, vec![entry(4, 1, vec![7; 20_000])])]);
    log.begin_sync().unwrap().unwrap();
    drop(log);
    rig.disk.crash(|sector| sector < 8);
    rig.damage("slot-001.seg", |bytes| bytes[4 * 4096 + 70] ^= 1);
    assert_eq!(corruption(&rig), ("slot-001.seg".to_string(), 4 * 4096));
}

#[test]
fn a_history_cannot_be_spliced() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    for number in 1..=5 {
        rig.commit(&mut log, number, &[vote(2, number, 1)]);
    }
    drop(log);
    rig.damage("slot-001.seg", |bytes| {
        // Another vote with the same number, at the same place and with right checksums, but not the one that was
        // written. Only the chain value in the next group tells.
        let (at, header) = groups_in(bytes)[3];
        let start = at + GROUP_HEADER_BYTES;
        let (_, other) = vote(2, 3, 2);
        let other = RunHead::hard_state(GroupId(2), other.hard_state.unwrap()).encode();
        bytes[start..start + other.len()].copy_from_slice(&other);
        let directory = &bytes[start..start + header.dir_len as usize];
        let forged = GroupHeader { dir_crc: crc32fast::hash(directory), ..header };
        let (encoded, _) = forged.encode(IDENTITY.log, at as u64);
        bytes[at..start].copy_from_slice(&encoded);
    });
    assert_eq!(corruption(&rig), ("slot-001.seg".to_string(), 5 * 4096));
}

#[test]
fn a_control_file_older_than_the_log_is_refused() {
    let rig = Rig::new(small(), 2);
    with_writes(&rig, 3).0.close().unwrap();
    let clean = rig.disk.content("ctl").unwrap();
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[vote(2, 9, 1)]);
    drop(log);
    rig.disk.replace("ctl", clean);
    // It says that the log was closed before the vote: somebody put an old file back.
    assert_eq!(corruption(&rig), ("slot-001.seg".to_string(), 5 * 4096));
}
