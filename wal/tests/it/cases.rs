//! Ends of logs, by case number: what is cut, what is kept, what is written again.

use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::{CoreWriteNumber, GroupId, Index, Write};
use pontoon_wal::format::group::GroupHeader;
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::{Log, LogError, LogIdentity, Preparation};

use crate::common::{IDENTITY, Model, Random, Rig, apply, created, entries, entry, groups_in, model_of, small, vote};

/// A log with `count` durable core writes of one entry each, open.
pub fn with_writes(rig: &Rig, count: u64) -> (Log, Model) {
    let (mut log, _) = rig.open();
    let mut model = model_of(&created(2));
    for number in 1..=count {
        let writes = [entries(2, vec![entry(number, 1, vec![number as u8; 300])])];
        rig.commit(&mut log, number, &writes);
        apply(&mut model, &writes);
    }
    (log, model)
}

#[test]
fn case_1_a_log_without_groups_is_usable() {
    let rig = Rig::new(small(), 0);
    let (log, recovered) = rig.open();
    assert!(recovered.groups.is_empty() && recovered.clean && recovered.torn_tail.is_none());
    log.close().unwrap();
    assert!(rig.open().1.groups.is_empty());
}

#[test]
fn case_2_a_clean_reopen_finds_the_same_and_writes_no_segment() {
    let rig = Rig::new(small(), 2);
    let (log, model) = with_writes(&rig, 30);
    log.close().unwrap();
    let counts = |rig: &Rig| rig.slots().iter().map(|name| rig.disk.counts(name).unwrap()).collect::<Vec<_>>();
    let before = counts(&rig);
    let (log, recovered) = rig.open();
    assert!(recovered.clean && !recovered.rewritten && recovered.torn_tail.is_none());
    assert_eq!(recovered.groups, model);
    assert_eq!(counts(&rig), before);
    assert_eq!(log.incarnation().0, 2);
}

/// Leaves a group of three blocks unsynced, loses part of it, and opens.
fn torn(survives: impl FnMut(usize) -> bool) -> (bool, crate::common::Opened) {
    let rig = Rig::new(small(), 2);
    let (mut log, model) = with_writes(&rig, 3);
    let big = [entries(2, vec![entry(4, 1, vec![4; 9000])]), entries(3, vec![entry(1, 1, vec![5; 1000])])];
    log.append(CoreWriteNumber(4), &big);
    log.begin_sync().unwrap().unwrap();
    drop(log);
    let mut survives = survives;
    rig.disk.crash(&mut survives);
    let (_, recovered) = rig.open();
    let mut with_big = model.clone();
    apply(&mut with_big, &big);
    let kept = recovered.groups == with_big;
    assert!(kept || recovered.groups == model, "a prefix, whole groups only");
    (kept, recovered)
}

#[test]
fn case_3_a_group_cut_at_each_sector_is_torn_off() {
    // Three one-block writes and the creation come first, behind the segment header.
    let start = (5 * 4096) / 512;
    for sectors in 0..24 {
        let (kept, recovered) = torn(|sector| sector < start + sectors);
        // The last sectors hold the padding, which nobody misses.
        assert_eq!(kept, sectors >= 20, "{sectors} sectors survived");
        assert_eq!(recovered.torn_tail.is_some(), !kept && sectors > 0, "{sectors} sectors survived");
        assert_eq!(recovered.rewritten, kept || sectors < 24, "the last group, whichever it is, had no proof");
    }
}

#[test]
fn case_4_any_part_of_a_group_survives_as_a_whole_or_not_at_all() {
    let mut random = Random(4);
    for _ in 0..200 {
        let (kept, recovered) = torn(|_| random.below(5) > 0);
        assert_eq!(recovered.torn_tail.is_some(), !kept, "some of it is left always");
    }
    let mut seen = (0, 0);
    for survivors in 0..8_u32 {
        let (kept, recovered) = torn(|sector| survivors & (1 << (sector / 8 % 3)) != 0);
        assert_eq!(recovered.torn_tail.is_some(), !kept && survivors != 0, "blocks {survivors:#b} survived");
        if kept { seen.0 += 1 } else { seen.1 += 1 }
    }
    assert_eq!(seen, (1, 7), "only all three blocks make the group");
}

#[test]
fn case_7_8_the_last_acknowledged_group_is_guarded_by_the_seal() {
    for sealed in [true, false] {
        let rig = Rig::new(small(), 2);
        let (mut log, model) = with_writes(&rig, 3);
        rig.commit(&mut log, 4, &[entries(2, vec![entry(4, 1, vec![9; 100])])]);
        if sealed {
            rig.seal(&mut log);
        }
        drop(log);
        rig.damage("slot-001.seg", |bytes| bytes[5 * 4096 + 200] ^= 1);
        if sealed {
            let (_, recovered) = rig.open();
            assert_eq!(recovered.groups[&GroupId(2)].lost, [Index(4)], "a rotten payload is named, not cut");
            rig.damage("slot-001.seg", |bytes| bytes[5 * 4096 + 70] ^= 1);
            let LogError::Corruption { file, offset, .. } = rig.refused() else { panic!("not a corruption") };
            assert_eq!((file.as_str(), offset), ("slot-001.seg", 5 * 4096));
        } else {
            // The stated window: nothing tells it from a torn write.
            let (_, recovered) = rig.open();
            assert_eq!(recovered.groups, model);
            assert_eq!(recovered.torn_tail.as_ref().unwrap().offset, 5 * 4096);
        }
    }
}

#[test]
fn case_9_a_damaged_seal_costs_nothing() {
    let rig = Rig::new(small(), 2);
    let (mut log, model) = with_writes(&rig, 3);
    rig.seal(&mut log);
    assert!(log.begin_seal().unwrap().is_none(), "one SEAL is enough");
    drop(log);
    rig.damage("slot-001.seg", |bytes| bytes[5 * 4096 + 20] ^= 1);
    assert_eq!(rig.open().1.groups, model);
}

#[test]
fn case_9_a_damaged_seal_costs_nothing_when_the_log_has_gone_on() {
    // The log goes on in the same segment, or in the next one, of which the first may or may not have its footer.
    for (goes_on, has_footer) in [("behind it", true), ("elsewhere", true), ("elsewhere", false)] {
        let rig = Rig::new(small(), 2);
        let (mut log, mut model) = with_writes(&rig, 2);
        // What the SEAL echoes, and what nobody echoes any more once that is gone.
        let mut commit = |log: &mut Log, number: u64, writes: Vec<(GroupId, Write)>| {
            rig.commit(log, number, &writes);
            apply(&mut model, &writes);
        };
        commit(&mut log, 3, vec![vote(3, 7, 1)]);
        rig.seal(&mut log);
        let payload_bytes = if goes_on == "behind it" { 100 } else { 20_000 };
        commit(&mut log, 4, vec![entries(2, vec![entry(3, 1, vec![3; payload_bytes])])]);
        commit(&mut log, 5, vec![vote(2, 8, 2)]);
        drop(log);
        assert_eq!(rig.newest() == "slot-001.seg", goes_on == "behind it");
        let seal_at = 5 * 4096;
        rig.damage("slot-001.seg", |bytes| {
            assert!(groups_in(bytes).iter().any(|(at, header)| *at == seal_at && header.is_seal()));
            bytes[seal_at + 20] ^= 1;
            if !has_footer {
                bytes[seal_at + 4096..].fill(0);
            }
        });
        if has_footer {
            assert_eq!(rig.open().1.groups, model, "the log went on {goes_on}");
        } else {
            // Only the group behind it in its own segment could tell that it said nothing.
            let LogError::Corruption { file, offset, .. } = rig.refused() else { panic!("not a corruption") };
            assert_eq!((file.as_str(), offset), ("slot-001.seg", seal_at as u64));
        }
    }
}

#[test]
fn case_10_11_groups_of_an_earlier_use_behind_the_end_are_ignored() {
    for old_seq in [5, 900] {
        let rig = Rig::new(small(), 2);
        let (log, model) = with_writes(&rig, 3);
        drop(log);
        rig.damage("slot-001.seg", |bytes| {
            let (_, last) = *groups_in(bytes).last().unwrap();
            let stale = GroupHeader {
                seq: pontoon_wal::format::Seq(old_seq),
                durable_seq: pontoon_wal::format::Seq(old_seq + 1),
                salt: last.salt ^ 1,
                dir_len: 0,
                dir_crc: 0,
                payload_len: 0,
                runs: 0,
                ..last
            };
            let (header, _) = stale.encode(IDENTITY.log, 5 * 4096);
            bytes[5 * 4096..][..header.len()].copy_from_slice(&header);
        });
        assert_eq!(rig.open().1.groups, model);
    }
}

#[test]
fn case_12_a_block_of_another_log_or_place_is_rejected() {
    let rig = Rig::new(small(), 2);
    let (log, model) = with_writes(&rig, 3);
    drop(log);
    let block = rig.disk.content("slot-001.seg").unwrap()[4 * 4096..5 * 4096].to_vec();
    // The same group one place further would follow nothing, but its own checksum already names its place.
    rig.damage("slot-001.seg", |bytes| bytes[5 * 4096..6 * 4096].copy_from_slice(&block));
    assert_eq!(groups_in(&rig.disk.content("slot-001.seg").unwrap()).len(), 4);
    assert!(GroupHeader::decode(&block, IDENTITY.log ^ 1, 4 * 4096).is_err(), "of another log");
    assert!(GroupHeader::decode(&block, IDENTITY.log, 4 * 4096).is_ok());
    let (_, recovered) = rig.open();
    assert_eq!(recovered.groups, model);
    assert_eq!(recovered.torn_tail.as_ref().unwrap().offset, 5 * 4096);
}

/// The bytes of the first segment of a log with another uuid that wrote the same and then something of its own.
fn of_another_log(writes: u64) -> Vec<u8> {
    let rig = Rig { disk: MemoryDisk::new(), options: small() };
    let identity = LogIdentity { log: IDENTITY.log ^ 1, ..IDENTITY };
    Log::create_in(&rig.disk, identity, &rig.options, &created(2)).unwrap();
    let disk = Arc::new(rig.disk.clone());
    let (mut log, _) = Log::open_in(disk, identity, &rig.options, Preparation::Inline).unwrap();
    for number in 1..writes {
        rig.commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![number as u8; 300])])]);
    }
    rig.commit(&mut log, writes, &[entries(2, vec![entry(writes, 1, "of the other log")])]);
    drop(log);
    rig.disk.content("slot-001.seg").unwrap()
}

#[test]
fn case_12_a_group_of_another_log_is_no_group_of_this_one() {
    let copied = |at: usize, writes: u64| {
        let rig = Rig::new(small(), 2);
        let (log, model) = with_writes(&rig, 3);
        drop(log);
        let block = of_another_log(writes)[at..at + 4096].to_vec();
        assert!(GroupHeader::decode(&block, IDENTITY.log ^ 1, at as u64).is_ok(), "at its own place");
        rig.damage("slot-001.seg", |bytes| bytes[at..at + 4096].copy_from_slice(&block));
        (rig, model)
    };
    // Behind the end, with the number that comes next and the salt of the segment.
    let (rig, model) = copied(5 * 4096, 4);
    let (_, recovered) = rig.open();
    assert_eq!(recovered.groups, model);
    assert_eq!(recovered.torn_tail.as_ref().unwrap().offset, 5 * 4096);
    // In the place of a durable one.
    let (rig, _) = copied(3 * 4096, 2);
    let LogError::Corruption { file, offset, .. } = rig.refused() else { panic!("not a corruption") };
    assert_eq!((file.as_str(), offset), ("slot-001.seg", 3 * 4096));
}

#[test]
fn case_15_a_torn_rotation_leaves_the_previous_segment_as_the_tail() {
    let segment_room = 32 * 1024 - 4096;
    // What survives of the new segment: nothing, the header only, the group only, a part of each.
    let survivors: [fn(usize) -> bool; 4] =
        [|_| false, |sector| sector < 8, |sector| sector >= 8, |sector| sector % 2 == 1];
    for survives in survivors {
        let rig = Rig::new(small(), 2);
        let (mut log, mut model) = with_writes(&rig, 3);
        let fill = [entries(3, vec![entry(1, 1, vec![1; segment_room - 4 * 4096 - 200])])];
        rig.commit(&mut log, 4, &fill);
        apply(&mut model, &fill);
        log.append(CoreWriteNumber(5), &[entries(2, vec![entry(4, 1, vec![7; 6000])])]);
        log.begin_sync().unwrap().unwrap();
        drop(log);
        let whole = Rig { disk: rig.disk.copy(), options: small() };
        whole.disk.crash(|_| true);
        assert_eq!(whole.header("slot-002.seg").map(|header| header.segment.0), Some(2), "it was a rotation");
        rig.disk.crash(survives);
        let (mut log, recovered) = rig.open();
        assert_eq!(recovered.groups, model, "the torn segment does not exist");
        let writes = [entries(2, vec![entry(4, 2, vec![8; 10])])];
        rig.commit(&mut log, 1, &writes);
        apply(&mut model, &writes);
        drop(log);
        assert_eq!(rig.open().1.groups, model, "and never comes back");
    }
}

#[test]
fn case_18_a_crash_at_each_step_of_recovery_changes_nothing() {
    for keeps in 0..3 {
        for steps in 0..40 {
            let rig = Rig::new(small(), 2);
            let (mut log, model) = with_writes(&rig, 3);
            log.append(CoreWriteNumber(4), &[entries(2, vec![entry(4, 1, vec![4; 9000])])]);
            log.begin_sync().unwrap().unwrap();
            drop(log);
            // The header and one block of payload survive: torn.
            rig.disk.crash(|sector| sector % 24 < 8);
            rig.disk.cut_power_after(steps);
            drop(rig.try_open());
            rig.disk.crash(|sector| keeps == 1 || keeps == 2 && sector % 2 == 0);
            let (log, recovered) = rig.open();
            assert_eq!(recovered.groups, model, "cut after {steps}");
            drop(log);
            rig.disk.crash(|_| false);
            assert_eq!(rig.open().1.groups, model, "the torn bytes are pinned out for good");
        }
    }
}

#[test]
fn case_19_what_was_never_synced_is_durable_before_it_is_used() {
    let rig = Rig::new(small(), 2);
    let (mut log, mut model) = with_writes(&rig, 3);
    let written = [vote(2, 7, 3), entries(2, vec![entry(4, 7, "kept by the kernel only")])];
    log.append(CoreWriteNumber(4), &written);
    log.begin_sync().unwrap().unwrap();
    apply(&mut model, &written);
    // The process is killed: the kernel still has the group, the medium does not.
    drop(log);
    let old_tail = rig.disk.counts("slot-001.seg").unwrap();
    let (_, recovered) = rig.open();
    assert!(recovered.rewritten);
    assert_eq!(recovered.groups, model);
    assert_eq!(
        rig.disk.counts("slot-001.seg").unwrap(),
        old_tail,
        "the old tail is neither synced nor changed (law 17)"
    );
    // And then the power goes.
    rig.disk.crash(|_| false);
    assert_eq!(rig.open().1.groups, model, "acted on, so it must be there");
}

#[test]
fn case_37_law_14_an_overwrite_by_a_lower_term_counts_also_across_segments() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[entries(2, vec![entry(1, 1, "a"), entry(2, 3, "of term 3")])]);
    // The second segment begins between the two.
    rig.commit(&mut log, 2, &[entries(3, vec![entry(1, 1, vec![0; 24_000])])]);
    let overwrite =
        Write { truncate_from: Some(Index(2)), entries: vec![entry(2, 2, "of term 2")], ..Write::default() };
    rig.commit(&mut log, 3, &[(GroupId(2), overwrite)]);
    drop(log);
    let found = rig.open().1.groups;
    assert_eq!(found[&GroupId(2)].entries, [entry(1, 1, "a"), entry(2, 2, "of term 2")]);
}

#[test]
fn law_14_an_overwrite_without_its_truncation_is_refused() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[entries(2, vec![entry(1, 1, "a"), entry(2, 3, "b")])]);
    log.append(CoreWriteNumber(2), &[entries(2, vec![entry(2, 2, "c")])]);
    let error = log.begin_sync().unwrap_err().to_string();
    assert!(error.contains("entry 2@2 of g2 does not follow index 2 (law 14)"), "{error}");
    assert!(matches!(log.begin_sync(), Err(LogError::Fenced { .. })), "and nothing more is written");
    drop(log);
    assert_eq!(rig.open().1.groups[&GroupId(2)].entries.len(), 2);
}

#[test]
fn case_40_a_core_write_over_three_groups_is_torn_as_a_whole() {
    let mut random = Random(40);
    for _ in 0..100 {
        let rig = Rig::new(small(), 3);
        let (mut log, _) = rig.open();
        let payload = || Bytes::from(vec![3; 3000]);
        let writes = [2, 3, 4].map(|group| entries(group, vec![entry(1, 1, payload())]));
        log.append(CoreWriteNumber(1), &writes);
        log.begin_sync().unwrap().unwrap();
        drop(log);
        rig.disk.crash(|_| random.below(12) > 0);
        let counts: Vec<usize> = rig.open().1.groups.values().map(|group| group.entries.len()).collect();
        assert!(counts == [0, 0, 0] || counts == [1, 1, 1], "{counts:?}");
    }
}

#[test]
fn case_52_empty_entries_and_entries_that_fill_a_segment() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    // A header and a footer of a block each. Header 64, run 32, record 12: the payload starts at 112 of its group.
    let largest = 36 * 1024 - 2 * 4096 - 112;
    let writes = [entries(2, vec![entry(1, 1, ""), entry(2, 1, "")])];
    rig.commit(&mut log, 1, &writes);
    rig.commit(&mut log, 2, &[entries(2, vec![entry(3, 1, vec![6; largest])])]);
    rig.commit(&mut log, 3, &[entries(2, vec![entry(4, 1, "behind")])]);
    assert_eq!(log.stats().groups, 3);
    log.close().unwrap();
    let (mut log, recovered) = rig.open();
    let lengths: Vec<usize> = recovered.groups[&GroupId(2)].entries.iter().map(|entry| entry.payload.len()).collect();
    assert_eq!(lengths, [0, 0, largest, 6]);
    log.append(CoreWriteNumber(1), &[entries(2, vec![entry(5, 1, vec![6; largest + 1])])]);
    let error = log.begin_sync().unwrap_err().to_string();
    assert!(error.contains("one write of 36864 bytes is above the limit of 32768 bytes"), "{error}");
    assert!(error.contains("segment_bytes") && error.contains("create it with a larger one"), "{error}");
}

#[test]
fn a_core_write_above_a_segment_is_cut_between_replicas_and_answered_at_its_end() {
    let rig = Rig::new(small(), 3);
    let (mut log, _) = rig.open();
    let writes = [2, 3, 4].map(|group| entries(group, vec![entry(1, 1, vec![3; 12_000])]));
    log.append(CoreWriteNumber(1), &writes);
    assert_eq!(log.gathered_entries(), 3);
    let mut answered = Vec::new();
    while let Some(sync) = log.begin_sync().unwrap() {
        assert!(log.begin_sync().unwrap().is_none(), "one sync in flight");
        answered.push(log.finish_sync(rig.disk.sync(sync.fd)).unwrap().0);
    }
    assert_eq!(answered, [0, 0, 1]);
    drop(log);
    assert!(rig.open().1.groups.values().all(|group| group.entries.len() == 1));
}
