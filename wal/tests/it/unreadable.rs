//! Blocks that the disk refuses to read: they are rot, which is named, and end nobody. Each test refuses one block of what
//! was intact before; `device::unreadable` does the same to real files, where touching such a block ends the process.

use std::sync::Arc;

use pontoon_types::{GroupId, Index, LogId, Term};
use pontoon_wal::format::control::Control;
use pontoon_wal::format::{BLOCK_BYTES, SegmentId, Seq};
use pontoon_wal::inspect::{Loss, verify};
use pontoon_wal::{Log, LogError, Options, Preparation, ReadError, RottenEntry};

use crate::common::{IDENTITY, Rig, compact, entries, entry, groups_in, small};
use crate::keeping::busy;

const GROUP: GroupId = GroupId(2);
const FIRST: &str = "slot-001.seg";

fn id(index: u64) -> LogId {
    LogId::new(Index(index), Term(1))
}

fn payload(index: u64) -> Vec<u8> {
    vec![index as u8; 9000]
}

/// A log whose entries take three blocks each, two in a segment: the first one stands in the blocks 2 to 4.
fn long(options: Options, count: u64) -> (Rig, Log) {
    let rig = Rig::new(options, 2);
    let (mut log, _) = rig.open();
    for index in 1..=count {
        rig.commit(&mut log, index, &[entries(2, vec![entry(index, 1, payload(index))])]);
    }
    (rig, log)
}

fn open(rig: &Rig) -> Log {
    Log::open_in(Arc::new(rig.disk.clone()), IDENTITY, &rig.options, Preparation::Inline).unwrap().0
}

/// Where the groups of a segment stand, and its footer.
fn places(rig: &Rig, name: &str) -> Vec<usize> {
    let groups = groups_in(&rig.disk.content(name).unwrap());
    let behind = groups.last().map(|(at, header)| at + header.group_len());
    groups.iter().map(|(at, _)| *at).chain(behind).collect()
}

fn corruption(rig: &Rig) -> (String, u64) {
    let error = rig.refused();
    assert!(error.to_string().contains("the disk refuses to read"), "{error}");
    match error {
        LogError::Corruption { file, offset, .. } => (file, offset),
        error => panic!("not a corruption: {error}"),
    }
}

#[test]
fn a_start_names_the_entry_of_an_unreadable_payload_block_and_goes_on() {
    let (rig, log) = long(small(), 12);
    log.close().unwrap();
    // The second block of the second entry; the one behind it belongs to the same payload.
    rig.disk.refuse_block(FIRST, 6);
    let mut log = open(&rig);
    let surveyed = log.survey(GROUP).unwrap();
    assert_eq!((surveyed.lost, surveyed.starts), (vec![id(2)], vec![id(1)]));
    let loaded = log.load(GROUP).unwrap();
    assert_eq!((loaded.lost, loaded.entries.len()), (vec![Index(2)], 12));
    let intact = |entry: &&pontoon_types::Entry| entry.payload == payload(entry.id.index.0);
    assert_eq!(loaded.entries.iter().filter(intact).count(), 11, "what stands beside it is read");
    let error = log.read_patiently(GROUP, Index(2), Index(3), 1 << 20).unwrap_err();
    assert!(matches!(error, ReadError::Rotten { id: rotten, .. } if rotten == id(2)), "{error}");
    assert_eq!(log.read_patiently(GROUP, Index(3), Index(4), 1 << 20).unwrap().len(), 2);
    rig.commit(&mut log, 1, &[entries(2, vec![entry(13, 1, payload(13))])]);
}

#[test]
fn a_core_reads_what_stands_beside_an_unreadable_block() {
    let (rig, mut log) = long(small(), 12);
    rig.disk.chill();
    rig.disk.refuse_block(FIRST, 3);
    let mut read = |index: u64| loop {
        match log.read(GROUP, Index(index), Index(index), 1) {
            Err(ReadError::Cold { .. }) => assert!(log.warm() > 0),
            other => break other,
        }
    };
    assert_eq!(read(2).unwrap(), [entry(2, 1, payload(2))]);
    let error = read(1).unwrap_err();
    assert!(matches!(error, ReadError::Rotten { id: rotten, .. } if rotten == id(1)), "{error}");
}

#[test]
fn scrubbing_names_the_entry_and_fences_nothing() {
    let (rig, mut log) = long(small(), 12);
    rig.disk.refuse_block(FIRST, 6);
    let found = log.scrub().unwrap();
    let crc = crc32fast::hash(&payload(2));
    assert_eq!(
        found.iter().map(|rot| rot.entry).collect::<Vec<_>>(),
        [Some(RottenEntry { group: GROUP, id: id(2), crc })]
    );
    rig.commit(&mut log, 13, &[entries(2, vec![entry(13, 1, payload(13))])]);
    // A header says nothing that a running log needs.
    rig.disk.refuse_block(FIRST, 0);
    assert_eq!(log.scrub().unwrap().iter().map(|rot| rot.offset).collect::<Vec<_>>()[1..], [0]);
    // Then it is not a place that is rotten.
    let blocks = rig.disk.content(FIRST).unwrap().len() / BLOCK_BYTES;
    (0..blocks).for_each(|block| rig.disk.refuse_block(FIRST, block));
    assert!(log.scrub().is_err(), "the disk has failed");
}

#[test]
fn an_unreadable_directory_of_a_closed_segment_is_made_good_by_the_footer() {
    let (rig, log) = long(small(), 12);
    log.close().unwrap();
    let second = places(&rig, FIRST)[2];
    rig.disk.refuse_block(FIRST, second / BLOCK_BYTES);
    let mut log = open(&rig);
    // The block holds the beginning of the payload too.
    let surveyed = log.survey(GROUP).unwrap();
    assert_eq!((surveyed.lost, surveyed.starts), (vec![id(2)], vec![id(1)]));
    drop(log);
    // Without a footer nothing says what the group held.
    let footer = *places(&rig, FIRST).last().unwrap();
    rig.disk.refuse_block(FIRST, footer / BLOCK_BYTES);
    assert_eq!(corruption(&rig), (FIRST.to_string(), second as u64));
}

#[test]
fn a_running_log_finds_the_other_copy_of_an_unreadable_directory() {
    let (rig, mut log) = long(small(), 12);
    let places = places(&rig, FIRST);
    rig.disk.refuse_block(FIRST, places[2] / BLOCK_BYTES);
    assert_eq!(log.survey(GROUP).unwrap().lost, [id(2)], "in the footer");
    log.close().unwrap();
    rig.disk.heal();
    // An open read the footers, and refers to them.
    let mut log = open(&rig);
    rig.disk.refuse_block(FIRST, places[3] / BLOCK_BYTES);
    rig.disk.refuse_block(FIRST, places[1] / BLOCK_BYTES + 1);
    assert_eq!(log.survey(GROUP).unwrap().lost, [id(1)], "in the groups, past one that is rotten elsewhere");
}

#[test]
fn an_unreadable_footer_costs_nothing() {
    let (rig, log) = long(small(), 12);
    log.close().unwrap();
    rig.disk.refuse_block(FIRST, places(&rig, FIRST).last().unwrap() / BLOCK_BYTES);
    let (_, opened) = rig.open();
    assert_eq!(opened.footers, opened.segments - 2, "the segment and the newest are read group by group");
    assert!(opened.groups[&GROUP].lost.is_empty());
}

#[test]
fn an_unreadable_end_of_the_log_is_refused_and_never_cut() {
    // A group that another one proves, and the last one, by its header and by its payload.
    for (group, block) in [(1, 0), (2, 0), (2, 1)] {
        let (rig, log) = long(small(), 2);
        drop(log);
        let at = places(&rig, FIRST)[group];
        rig.disk.refuse_block(FIRST, at / BLOCK_BYTES + block);
        assert_eq!(corruption(&rig), (FIRST.to_string(), at as u64), "block {block} of group {group}");
        let found = verify(&rig.disk).unwrap();
        assert!(found.refusal.is_some() && found.torn.is_none(), "{found:?}");
        assert!(found.notes.iter().any(|note| note.contains("the disk refuses")), "{found:?}");
    }
    // The first group of the newest segment: the control file proves it, and without that nothing does.
    let (rig, log) = long(small(), 3);
    drop(log);
    let newest = rig.newest();
    let older = |bytes: &mut Vec<u8>| {
        for block in bytes.chunks_mut(BLOCK_BYTES) {
            let control = Control::decode(block).unwrap();
            block.copy_from_slice(&Control { durable_seq: Seq(1), newest_segment: SegmentId(1), ..control }.encode());
        }
    };
    let other = Rig { disk: rig.disk.copy(), options: rig.options.clone() };
    rig.disk.refuse_block(&newest, 2);
    assert_eq!(rig.open().1.groups[&GROUP].lost, [Index(3)]);
    other.damage("ctl", older);
    other.disk.refuse_block(&newest, 2);
    assert_eq!(corruption(&other), (newest, BLOCK_BYTES as u64));
}

#[test]
fn a_block_that_nothing_was_written_to_is_not_missed_and_not_written_over() {
    let (rig, mut log) = long(small(), 1);
    rig.seal(&mut log);
    drop(log);
    let end = *places(&rig, FIRST).last().unwrap();
    rig.disk.refuse_block(FIRST, end / BLOCK_BYTES + 1);
    let (_, opened) = rig.open();
    assert_eq!(opened.groups[&GROUP].entries.len(), 1);
    assert!(opened.torn_tail.is_none() && !opened.resumed);
    // After a clean stop it is known that nothing follows, at the very end neither.
    let (rig, log) = long(small(), 1);
    log.close().unwrap();
    let end = *places(&rig, FIRST).last().unwrap();
    rig.disk.refuse_block(FIRST, end / BLOCK_BYTES);
    let (mut log, opened) = rig.open();
    assert!(opened.torn_tail.is_none() && opened.clean && !opened.resumed);
    rig.commit(&mut log, 1, &[entries(2, vec![entry(2, 1, payload(2))])]);
    log.close().unwrap();
    assert_eq!(rig.open().1.groups[&GROUP].entries.len(), 2);
}

#[test]
fn an_unreadable_header_refuses_the_log_and_one_control_block_does_not() {
    let (rig, log) = long(small(), 12);
    log.close().unwrap();
    rig.disk.refuse_block("ctl", 0);
    assert_eq!(rig.open().1.groups[&GROUP].entries.len(), 12);
    rig.disk.refuse_block("ctl", 0);
    rig.disk.refuse_block("ctl", 1);
    assert!(matches!(rig.refused(), LogError::Io { .. }), "the disk has failed");
    rig.disk.heal();
    rig.disk.refuse_block("slot-002.seg", 0);
    assert!(matches!(rig.refused(), LogError::Io { .. }));
}

#[test]
fn verifying_says_that_the_disk_refuses_a_payload() {
    let (rig, log) = long(small(), 12);
    log.close().unwrap();
    rig.disk.refuse_block(FIRST, 6);
    let found = verify(&rig.disk).unwrap();
    let [damage] = &found.damage[..] else { panic!("{found:?}") };
    assert_eq!(
        (damage.what.as_str(), &damage.loss),
        ("the disk refuses to read a payload", &Loss::Payload(GROUP, id(2)))
    );
    assert!(found.heals_by_itself());
}

#[test]
fn the_keeper_leaves_an_unreadable_entry_where_it_is_and_goes_on() {
    let rig = Rig::new(busy(), 2);
    let (mut log, _) = rig.open();
    let few = (1..=3).map(|index| entry(index, 1, vec![index as u8; 3000])).collect();
    rig.commit(&mut log, 1, &[entries(2, few)]);
    // The second block of the group, in which the second entry ends and the third begins.
    rig.disk.refuse_block(FIRST, 3);
    let mut rot = Vec::new();
    for index in 1..=40 {
        let mut writes = vec![entries(3, vec![entry(index, 1, payload(index))])];
        writes.extend((index > 2).then(|| compact(3, index - 2, 1)));
        rig.commit(&mut log, 1 + index, &writes);
        rot.extend(log.take_rot().unwrap().into_iter().filter_map(|rot| rot.entry));
    }
    assert!(log.stats().checkpoints > 3 && log.stats().freed_segments > 3, "{:?}", log.stats());
    assert!(rot.iter().any(|rot| rot.group == GROUP && rot.id == id(2)), "{rot:?}");
    assert_eq!(log.survey(GROUP).unwrap().lost, [id(2), id(3)]);
    assert!(rig.header(FIRST).is_some_and(|header| header.segment.0 == 1), "it was not given up");
    log.close().unwrap();
    assert_eq!(open(&rig).survey(GROUP).unwrap().lost, [id(2), id(3)]);
}

#[test]
fn a_descriptor_that_cannot_be_read_refuses_the_log() {
    let (rig, log) = long(small(), 4);
    log.close().unwrap();
    rig.disk.refuse_block(FIRST, 1);
    assert!(matches!(rig.refused(), LogError::Corruption { file, .. } if file == FIRST));
}
