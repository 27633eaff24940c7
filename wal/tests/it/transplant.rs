//! Logs that nobody has open, and new ones made of their groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::{Creation, Entry, EntryKind, GroupId, HardState, Incarnation, Index, LogId, ReplicaId, Term};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::transplant::{LogAtRest, NewLog, Reborn, Transplant, transplant_into};
use pontoon_wal::{Log, LogError, LogIdentity, Preparation};

use crate::common::{IDENTITY, Opened, Random, Rig, entries, entry, opened, small, vote};
use crate::inspect::checkpointed;
use crate::model::history::{State, crash, random_options, random_write};

const NEW: LogIdentity = LogIdentity { log: 0x2091, ..IDENTITY };

fn at_rest(rig: &Rig) -> LogAtRest {
    LogAtRest::of(Box::new(rig.disk.clone())).unwrap()
}

/// A new log of all groups of one, as they are.
fn copied(rig: &Rig) -> (LogAtRest, Opened) {
    let before = rig.disk.image();
    let from = at_rest(rig);
    let groups: Vec<_> = from.groups().into_keys().map(|group| plain(&from, group)).collect();
    let found = made(rig, &from, &groups);
    assert!(before == rig.disk.image(), "a log at rest is left as it is");
    (from, found)
}

fn plain(from: &LogAtRest, group: GroupId) -> Transplant<'_> {
    Transplant { from, group, reborn: None }
}

fn made(rig: &Rig, from: &LogAtRest, groups: &[Transplant<'_>]) -> Opened {
    let target = MemoryDisk::with_salts(77);
    let new = NewLog {
        identity: NEW,
        segment_bytes: from.segment_bytes(),
        above: from.incarnation(),
        tombstones: from.tombstones().clone(),
    };
    transplant_into(&target, &new, groups).unwrap();
    let disk = Arc::new(target.clone());
    let (mut log, recovered) = Log::open_in(disk, NEW, &rig.options, Preparation::Inline).unwrap();
    assert!(recovered.clean && log.incarnation() > from.incarnation());
    opened(&mut log, recovered)
}

/// What a log says at rest is what an open finds, and so does an open of a copy.
fn agrees(rig: &Rig, what: &str) {
    let (from, copy) = copied(rig);
    let surveys: BTreeMap<_, _> = from.groups().into_keys().map(|id| (id, from.survey(id).unwrap())).collect();
    let (mut log, found) = rig.open();
    assert_eq!(from.groups(), (*found).groups, "{what}: at rest");
    assert_eq!(from.tombstones(), &found.tombstones, "{what}: the dead");
    for (id, survey) in &surveys {
        assert_eq!(*survey, log.survey(*id).unwrap(), "{what}: {id}");
    }
    let last = |of: &Opened, id| of.groups.get(id).map(|group| group.entries.last().cloned());
    for id in found.groups.keys() {
        assert_eq!(last(&copy, id), last(&found, id), "{what}: {id}");
    }
    assert_eq!(copy.groups, found.groups, "{what}: copied");
    assert_eq!(copy.tombstones, found.tombstones, "{what}: the dead of the copy");
    assert!(from.incarnation() >= Incarnation(log.incarnation().0 - 1), "{what}");
}

/// An entry and the one that takes its place may stand in one group of records, and a checkpoint names a run by the place of the
/// group's payloads. What was cut came back for a log at rest, in the place of what may be committed.
#[test]
fn an_entry_that_was_written_over_in_its_own_group_of_records_does_not_come_back() {
    let options = pontoon_wal::Options { checkpoint_segments: 1, ..small() };
    let rig = Rig::new(options, 2);
    let (mut log, _) = rig.open();
    let cut = pontoon_types::Write {
        truncate_from: Some(Index(2)),
        entries: vec![entry(2, 2, "new")],
        ..pontoon_types::Write::default()
    };
    log.append(pontoon_types::CoreWriteNumber(1), &[entries(2, vec![entry(1, 1, "a"), entry(2, 1, "old")])]);
    log.append(pontoon_types::CoreWriteNumber(2), &[(GroupId(2), cut)]);
    rig.flush(&mut log);
    // Enough for a checkpoint, and too little for the entries to be copied elsewhere.
    for number in 3..=14 {
        rig.commit(&mut log, number, &[entries(3, vec![entry(number - 2, 1, vec![3; 9000])])]);
    }
    assert!(log.stats().checkpoints > 0);
    drop(log);
    agrees(&rig, "written over");
    let expected = [entry(1, 1, "a"), entry(2, 2, "new")];
    let mut found = Vec::new();
    at_rest(&rig).each_entry(GroupId(2), Index(0), &mut |entry, _| found.push(entry)).unwrap();
    assert_eq!(found, expected);
    // An open log whose directory is damaged looks for the other copy in the footer.
    let first = rig.slot_of(pontoon_wal::format::SegmentId(1));
    rig.damage(&first, |bytes| {
        for (at, _) in crate::common::groups_in(bytes) {
            bytes[at + 64 + 9] ^= 4;
        }
    });
    let (mut log, _) = rig.open();
    assert_eq!(crate::common::holds(&mut log, 2), expected);
}

#[test]
fn a_log_at_rest_says_what_an_open_would_find() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let rig = Rig::new(random_options(&mut random), crate::model::history::GROUPS);
        let (mut log, _) = rig.open();
        let mut state = State::first();
        for number in 1..=40 + random.below(60) {
            let saving = log.is_full();
            let (group, write) = random_write(&mut random, &state, saving);
            state.apply(group, &write);
            log.append(pontoon_types::CoreWriteNumber(number), &[(group, write)]);
            if random.below(3) == 0 {
                while let Ok(Some(sync)) = log.begin_sync() {
                    log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
                }
            }
        }
        match random.below(3) {
            0 => drop(log.close()),
            1 => drop(log),
            _ => {
                drop(log);
                crash(&rig, &mut random);
            }
        }
        agrees(&rig, &format!("seed {seed}"));
    }
}

#[test]
fn checkpoints_and_cold_segments_are_read_through() {
    for close in [true, false] {
        agrees(&checkpointed(close), "with checkpoints");
    }
}

#[test]
fn what_is_rotten_or_not_known_stays_so() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[entries(2, vec![entry(1, 1, vec![7; 300]), entry(2, 1, vec![8; 300])])]);
    rig.seal(&mut log);
    log.close().unwrap();
    rig.damage("slot-001.seg", |bytes| {
        let at = bytes.windows(50).position(|part| part == [8; 50]).unwrap();
        bytes[at] ^= 1;
    });
    let (from, copy) = copied(&rig);
    let rotten = LogId::new(Index(2), Term(1));
    assert_eq!(from.survey(GroupId(2)).unwrap().lost, [rotten]);
    assert_eq!(copy.groups[&GroupId(2)].lost, [Index(2)]);
    assert_eq!(copy.groups[&GroupId(2)].entries[0].payload, vec![7; 300]);
    let mut seen = Vec::new();
    from.each_entry(GroupId(2), Index(1), &mut |entry, is_intact| seen.push((entry.id, is_intact))).unwrap();
    assert_eq!(seen, [(rotten, false)]);
}

#[test]
fn a_group_that_is_begun_anew_keeps_its_entries_and_forgets_its_members() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    // The entry at 17 is one that names members.
    let old: Vec<Entry> = (1..=20).map(|index| entry(index, 3, vec![index as u8; 40])).collect();
    rig.commit(&mut log, 1, &[vote(2, 3, 1), entries(2, old.clone()), entries(3, vec![entry(1, 1, "other")])]);
    log.close().unwrap();
    let from = at_rest(&rig);
    let behind = Entry::configuration(LogId::new(Index(21), Term(1003)), Bytes::from_static(b"new members"));
    let reborn = Reborn {
        creation: Creation { replica: ReplicaId(1009), descriptor: Bytes::from_static(b"new") },
        hard_state: HardState { term: Term(1003), vote: None },
        reset: None,
        behind: vec![behind.clone()],
    };
    let part = Transplant { from: &from, group: GroupId(2), reborn: Some(reborn) };
    let target = MemoryDisk::with_salts(5);
    let new = NewLog {
        identity: NEW,
        segment_bytes: from.segment_bytes(),
        above: from.incarnation(),
        tombstones: BTreeMap::from([(GroupId(2), ReplicaId(1))]),
    };
    transplant_into(&target, &new, &[part, plain(&from, GroupId(3))]).unwrap();
    let disk = Arc::new(target.clone());
    let (mut log, recovered) = Log::open_in(disk, NEW, &rig.options, Preparation::Inline).unwrap();
    let found = opened(&mut log, recovered);
    let of = &found.groups[&GroupId(2)];
    assert_eq!((of.replica, &of.descriptor[..]), (ReplicaId(1009), &b"new"[..]));
    assert_eq!(of.hard_state, HardState { term: Term(1003), vote: None });
    assert_eq!(found.tombstones[&GroupId(2)], ReplicaId(1), "the dead replica stays dead");
    assert_eq!(found.groups[&GroupId(3)].entries, [entry(1, 1, "other")], "another group is as it was");
    let expected: Vec<Entry> = old
        .into_iter()
        .map(|entry| match entry.kind {
            EntryKind::Configuration => Entry::command(entry.id, Bytes::new()),
            EntryKind::Command => entry,
        })
        .chain([behind])
        .collect();
    assert_eq!(of.entries, expected);
    assert_eq!(log.survey(GroupId(2)).unwrap().configurations.len(), 1);
    // A second log is never written over one that is there.
    assert!(matches!(transplant_into(&target, &new, &[]), Err(LogError::NotEmpty { .. })));
}

#[test]
fn a_log_that_would_not_open_is_refused() {
    let rig = Rig::new(small(), 2);
    let (log, _) = crate::cases::with_writes(&rig, 40);
    drop(log);
    rig.damage("slot-002.seg", |bytes| bytes[40] ^= 1);
    assert!(rig.disk.lose("slot-003.seg").is_some());
    let refused = LogAtRest::of(Box::new(rig.disk.clone())).unwrap_err().to_string();
    assert!(refused.contains("pontoon wal repair"), "{refused}");
}
