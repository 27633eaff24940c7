//! Looking into logs without opening them: nothing is changed, and every class of damage gets its name.

use pontoon_types::{CoreWriteNumber, GroupId, Index, LogId, Term};
use pontoon_wal::format::group::GROUP_HEADER_BYTES;
use pontoon_wal::format::{BLOCK_BYTES, SegmentId, Seq};
use pontoon_wal::inspect::{Item, Loss, Verdict, dump, kind_name, stat, verify};
use pontoon_wal::{LogError, Options};

use crate::cases::with_writes;
use crate::common::{Rig, compact, entries, entry, groups_in, small, vote};

/// A log over several segments, not closed.
fn long() -> Rig {
    let rig = Rig::new(small(), 2);
    drop(with_writes(&rig, 40).0);
    rig
}

/// Verifies, and sees that nothing was changed by it.
pub fn verified(rig: &Rig) -> Verdict {
    let before = rig.disk.image();
    let verdict = verify(&rig.disk).unwrap();
    assert!(before == rig.disk.image(), "a look changes nothing");
    verdict
}

fn losses(rig: &Rig) -> Vec<(String, u64, Loss)> {
    let of = |damage: pontoon_wal::inspect::Damage| (damage.file, damage.offset, damage.loss);
    verified(rig).damage.into_iter().map(of).collect()
}

fn nothing(because: &str) -> Loss {
    Loss::Nothing(because.to_string())
}

/// Two groups with a history that leaves checkpoints, cold segments and freed ones behind.
pub fn checkpointed(close: bool) -> Rig {
    let options = Options { checkpoint_segments: 2, max_log_bytes: 14 * (36 << 10), ..small() };
    let rig = Rig::new(options, 2);
    let (mut log, _) = rig.open();
    // One entry that nobody compacts keeps the first segment in use until it is copied.
    rig.commit(&mut log, 1, &[entries(3, vec![entry(1, 1, vec![3; 200])]), vote(3, 1, 2)]);
    for number in 2..=160 {
        let index = number - 1;
        let mut writes = vec![entries(2, vec![entry(index, 1, vec![number as u8; 1500])])];
        if index > 20 {
            writes.push(compact(2, index - 20, 1));
        }
        rig.commit(&mut log, number, &writes);
    }
    if close {
        log.close().unwrap();
    }
    rig
}

#[test]
fn an_intact_log_is_fine_running_or_stopped() {
    let rig = Rig::new(small(), 2);
    assert!(verified(&rig).is_fine(), "just created");
    let (mut log, _) = with_writes(&rig, 20);
    let running = verified(&rig);
    assert!(running.is_fine(), "{running:?}");
    assert_eq!(running.end_seq, Seq(running.durable_seq.0 + 1), "the last group of records has no proof yet");
    // One that is being written: what is on the disk of it is growth, and no fault.
    log.append(CoreWriteNumber(21), &[entries(2, vec![entry(21, 1, vec![7; 6000])])]);
    let sync = log.begin_sync().unwrap().unwrap();
    assert!(verified(&rig).damage.is_empty());
    log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
    assert!(verified(&rig).is_fine());
    log.close().unwrap();
    let stopped = verified(&rig);
    assert!(stopped.is_fine() && stopped.durable_seq >= stopped.end_seq, "{stopped:?}");
}

#[test]
fn a_log_with_checkpoints_is_fine_and_counted() {
    for close in [true, false] {
        let rig = checkpointed(close);
        let verdict = verified(&rig);
        assert!(verdict.is_fine(), "{verdict:?}");
        let before = rig.disk.image();
        let found = stat(&rig.disk).unwrap();
        assert!(before == rig.disk.image());
        assert_eq!((found.is_clean, found.checkpoints.len(), found.unreadable), (close, 2, 0));
        assert_eq!((found.groups, found.entries, found.tombstones), (2, 21, 0));
        assert!(found.segments.iter().any(|segment| segment.stream == "checkpoint" && segment.live_bytes == 0));
        // Twenty entries of 1500 bytes, one of 200, and their records.
        let live = found.live_bytes();
        assert!((30_200..32_000).contains(&live), "{live}");
        assert!(found.used_bytes() > live && found.free_bytes() > 0);
        let laggard = found.laggards.first().expect("somebody holds the oldest segment");
        assert_eq!(laggard.group, GroupId(3), "{:?}", found.laggards);
        assert_eq!((laggard.entries, laggard.up_to), (1, Index(1)));
    }
}

#[test]
fn a_dump_shows_what_was_written_in_its_order() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[vote(2, 1, 1), entries(2, vec![entry(1, 1, "one"), entry(2, 1, "two")])]);
    rig.commit(&mut log, 2, &[entries(3, vec![entry(1, 4, "three")]), compact(2, 1, 1)]);
    rig.seal(&mut log);
    drop(log);
    let mut lines = Vec::new();
    let before = rig.disk.image();
    dump(&rig.disk, &mut |item| {
        match item {
            Item::Records(records) => {
                for run in records.runs() {
                    let (kind, group, index, term) = (kind_name(run.kind), run.group, run.index, run.term);
                    lines.push(format!("{} {kind} {group} {index}..{} {term}", records.seq, run.last_index()));
                    if let Some(entry) = run.entry(Index(2)) {
                        assert_eq!(entry.payload, Some(&b"two"[..]));
                        assert_eq!((entry.id, entry.length), (LogId::new(Index(2), Term(1)), 3));
                    }
                }
                if records.is_seal {
                    lines.push(format!("{} SEAL", records.seq));
                }
            }
            Item::Unreadable(lost) => panic!("{lost:?}"),
            Item::End(seq) => lines.push(format!("{seq} end")),
        }
        Ok(())
    })
    .unwrap();
    assert!(before == rig.disk.image());
    let expected = [
        "1 GROUP_CREATE g2 1..1 0",
        "1 GROUP_CREATE g3 1..1 0",
        "2 HARD_STATE g2 1..1 1",
        "2 ENTRIES g2 1..2 1",
        "3 ENTRIES g3 1..1 4",
        "3 COMPACT g2 1..1 1",
        "3 HARD_STATE_ECHO g2 1..1 1",
        "4 SEAL",
        "4 end",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_rotten_payload_is_named_with_its_entry() {
    for slot in ["slot-001.seg", "slot-006.seg"] {
        let rig = long();
        let (at, header) = groups_in(&rig.disk.content(slot).unwrap())[1];
        rig.damage(slot, |bytes| bytes[at + 112] ^= 1);
        let verdict = verified(&rig);
        assert!(verdict.heals_by_itself(), "{verdict:?}");
        let [damage] = &verdict.damage[..] else { panic!("{verdict:?}") };
        assert_eq!((damage.file.as_str(), damage.offset), (slot, at as u64 + 112));
        // The first group of records created the groups.
        assert_eq!(damage.loss, Loss::Payload(GroupId(2), LogId::new(Index(header.seq.0 - 1), Term(1))));
    }
}

#[test]
fn a_payload_that_was_compacted_is_no_damage() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = with_writes(&rig, 20);
    rig.commit(&mut log, 21, &[compact(2, 10, 1)]);
    drop(log);
    rig.damage("slot-001.seg", |bytes| bytes[3 * BLOCK_BYTES + 112] ^= 1);
    let verdict = verified(&rig);
    assert!(verdict.is_fine());
    assert!(verdict.notes.iter().any(|note| note.contains("not needed any more")), "{verdict:?}");
}

#[test]
fn what_another_copy_makes_good_is_damage_that_costs_nothing() {
    // A directory with its footer, a footer, a block of the control file.
    let rig = long();
    rig.damage("slot-001.seg", |bytes| bytes[3 * BLOCK_BYTES + GROUP_HEADER_BYTES] ^= 1);
    assert_eq!(losses(&rig), [("slot-001.seg".into(), 3 * 4096, nothing("the footer of the segment"))]);
    let rig = long();
    rig.damage("slot-001.seg", |bytes| bytes[8 * BLOCK_BYTES + 40] ^= 1);
    assert_eq!(losses(&rig), [("slot-001.seg".into(), 8 * 4096, nothing("the groups of records themselves"))]);
    let rig = long();
    rig.damage("ctl", |bytes| bytes[60] ^= 1);
    assert_eq!(losses(&rig), [("ctl".into(), 0, nothing("the other block of the control file"))]);
    for rig in [long(), checkpointed(false)] {
        assert!(verified(&rig).refusal.is_none());
        rig.open();
    }
}

#[test]
fn an_unreadable_checkpoint_leaves_the_other() {
    let rig = checkpointed(true);
    let found = stat(&rig.disk).unwrap();
    let of_checkpoint = found.segments.iter().rfind(|segment| segment.stream == "checkpoint").unwrap();
    let (file, groups) = (of_checkpoint.file.clone(), groups_in(&rig.disk.content(&of_checkpoint.file).unwrap()));
    let (at, _) = *groups.iter().rfind(|(_, header)| header.segment == of_checkpoint.segment).unwrap();
    rig.damage(&file, |bytes| bytes[at + 80] ^= 1);
    let verdict = verified(&rig);
    assert!(verdict.refusal.is_none(), "{verdict:?}");
    assert_eq!(verdict.damage.len(), 1, "{verdict:?}");
    assert_eq!(verdict.damage[0].loss, nothing("the other checkpoint"));
}

#[test]
fn what_nothing_makes_good_is_corruption_and_would_not_open() {
    // A directory in the tail, a header in the tail, a directory whose footer is gone too, a segment header.
    let in_tail = |at: usize| {
        let rig = Rig::new(small(), 2);
        let (mut log, _) = with_writes(&rig, 4);
        rig.seal(&mut log);
        drop(log);
        rig.damage("slot-001.seg", |bytes| bytes[3 * BLOCK_BYTES + at] ^= 1);
        rig
    };
    let without_footer = long();
    without_footer.damage("slot-001.seg", |bytes| {
        bytes[3 * BLOCK_BYTES + GROUP_HEADER_BYTES] ^= 1;
        bytes[8 * BLOCK_BYTES + 40] ^= 1;
    });
    let all_of = |what: &str| Loss::Records(format!("all of {what}"));
    for rig in [in_tail(GROUP_HEADER_BYTES), in_tail(20), without_footer] {
        let verdict = verified(&rig);
        assert!(verdict.refusal.is_some(), "{verdict:?}");
        let expected = ("slot-001.seg", 3 * 4096, all_of("group of records 3"));
        let found = verdict.damage.iter().map(|damage| (damage.file.as_str(), damage.offset, damage.loss.clone()));
        assert!(found.into_iter().any(|found| found == expected), "{verdict:?}");
        rig.refused();
    }
    let rig = long();
    rig.damage("slot-003.seg", |bytes| bytes[40] ^= 1);
    let verdict = verified(&rig);
    assert!(verdict.refusal.is_some());
    assert!(verdict.damage.iter().any(|damage| damage.file == "slot-003.seg" && damage.offset == 0), "{verdict:?}");
}

#[test]
fn a_missing_segment_is_named() {
    let rig = long();
    rig.disk.lose("slot-002.seg");
    let verdict = verified(&rig);
    assert!(verdict.refusal.as_ref().is_some_and(|why| why.contains("segment 2 is missing")), "{verdict:?}");
    assert!(verdict.damage.iter().any(|damage| damage.file == "segment 2"), "{verdict:?}");
    let rig = long();
    rig.disk.lose(&rig.newest());
    let verdict = verified(&rig);
    assert!(verdict.refusal.is_some() && !verdict.damage.is_empty(), "{verdict:?}");
}

#[test]
fn a_torn_end_is_no_corruption() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = with_writes(&rig, 3);
    log.append(CoreWriteNumber(4), &[entries(2, vec![entry(4, 1, vec![4; 9000])])]);
    log.begin_sync().unwrap().unwrap();
    drop(log);
    rig.disk.crash(|sector| sector < 5 * 8 + 9);
    let verdict = verified(&rig);
    assert!(verdict.damage.is_empty() && verdict.refusal.is_none(), "{verdict:?}");
    let torn = verdict.torn.as_ref().map(|torn| (torn.file.as_str(), torn.offset));
    assert_eq!(torn, Some(("slot-001.seg", 5 * 4096)));
    assert_eq!(verdict.clone().confirmed_by(&verified(&rig)), verdict, "a stopped log looks the same twice");
}

/// What a log that is being written shows in one look and not in the next.
#[test]
fn only_what_two_looks_have_found_is_damage() {
    let (rig, other) = (long(), long());
    for rig in [&rig, &other] {
        rig.damage("slot-001.seg", |bytes| bytes[5 * BLOCK_BYTES + 200] ^= 1);
    }
    other.damage("slot-002.seg", |bytes| bytes[3 * BLOCK_BYTES + 200] ^= 1);
    let (one, more) = (verified(&rig), verified(&other));
    assert!(more.damage.len() > one.damage.len() && !one.damage.is_empty(), "{one:?} {more:?}");
    assert_eq!(more.clone().confirmed_by(&one).damage, one.damage);
    let missing = long();
    missing.disk.lose("slot-002.seg");
    let refused = verified(&missing);
    assert_eq!(refused.clone().confirmed_by(&refused), refused);
    let doubtful = refused.confirmed_by(&Verdict { refusal: Some("another one".to_string()), ..verified(&long()) });
    assert!(doubtful.is_fine(), "{doubtful:?}");
}

#[test]
fn a_newer_format_is_not_judged() {
    for file in ["slot-002.seg", "ctl"] {
        let rig = long();
        // With its number alone the checksum would still be that of this version, and the number rotten.
        rig.damage(file, |bytes| (bytes[8], bytes[40]) = (2, !bytes[40]));
        let before = rig.disk.image();
        for error in [verify(&rig.disk).unwrap_err(), stat(&rig.disk).unwrap_err()] {
            assert!(matches!(&error, LogError::UnknownFormat { file: named, .. } if named == file), "{error}");
        }
        assert!(before == rig.disk.image());
    }
}

#[test]
fn a_directory_without_a_log_is_refused() {
    let disk = pontoon_wal::memory::MemoryDisk::new();
    assert!(matches!(verify(&disk), Err(LogError::NotALog { .. })));
    disk.replace("ctl", vec![0; 100]);
    assert!(matches!(stat(&disk), Err(LogError::NotALog { .. })));
}

#[test]
fn segments_are_shown_by_their_ids() {
    let rig = long();
    let mut seen = Vec::new();
    dump(&rig.disk, &mut |item| {
        if let Item::Records(records) = item {
            seen.push((records.segment, records.seq));
        }
        Ok(())
    })
    .unwrap();
    assert!(seen.is_sorted() && seen.last().is_some_and(|(segment, _)| *segment > SegmentId(5)), "{seen:?}");
    assert_eq!(seen.len() as u64, seen.last().unwrap().1.0, "every group of records once");
}
