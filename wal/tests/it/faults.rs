//! Failing writes and syncs, full disks and full logs, by case number.

use pontoon_types::{CoreWriteNumber, GroupId};
use pontoon_wal::{LogError, Options};

use crate::cases::with_writes;
use crate::common::{Rig, apply, entries, entry, small, vote};

#[test]
fn case_20_22_a_write_that_fails_halfway_fences_the_log() {
    let rig = Rig::new(small(), 2);
    let (mut log, model) = with_writes(&rig, 3);
    log.append(CoreWriteNumber(4), &[entries(2, vec![entry(4, 1, vec![1; 9000])])]);
    rig.disk.fail_writes(1);
    assert!(matches!(log.begin_sync(), Err(LogError::Fenced { .. })));
    let counts = rig.disk.counts("slot-001.seg").unwrap();
    log.append(CoreWriteNumber(5), &[vote(2, 5, 1)]);
    assert!(matches!(log.begin_sync(), Err(LogError::Fenced { .. })));
    assert!(matches!(log.begin_seal(), Err(LogError::Fenced { .. })));
    assert!(log.is_full() && !log.in_flight());
    assert!(matches!(log.close(), Err(LogError::Fenced { .. })));
    assert_eq!(rig.disk.counts("slot-001.seg").unwrap(), counts, "not written and not synced again");
    let (_, recovered) = rig.open();
    assert_eq!(recovered.groups, model);
    assert!(recovered.torn_tail.is_some());
}

#[test]
fn a_failed_write_of_the_control_file_fences_the_log() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    // Up to the first group of the second segment.
    for number in 1.. {
        log.append(CoreWriteNumber(number), &[entries(2, vec![entry(number, 1, vec![1; 9000])])]);
        let sync = log.begin_sync().unwrap().unwrap();
        if log.segments().0 == 2 {
            break;
        }
        log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
    }
    // The data is durable, and the note that follows it is not.
    rig.disk.fail_writes(1);
    log.finish_sync(Ok(())).unwrap();
    let fenced = log.begin_seal().unwrap_err();
    assert!(matches!(&fenced, LogError::Fenced { why } if why.starts_with("ctl: ")), "{fenced}");
    assert!(matches!(log.close(), Err(LogError::Fenced { .. })));
}

#[test]
fn case_21_23_a_failed_sync_is_final_and_recovery_reads_the_disk() {
    let rig = Rig::new(small(), 2);
    let (mut log, model) = with_writes(&rig, 3);
    log.append(CoreWriteNumber(4), &[entries(2, vec![entry(4, 1, "in the cache only")])]);
    let sync = log.begin_sync().unwrap().unwrap();
    rig.disk.fail_syncs(1);
    assert!(matches!(log.finish_sync(rig.disk.sync(sync.fd)), Err(LogError::Fenced { .. })));
    // The fault is gone and the cache shows the group, but nothing is tried again.
    assert!(matches!(log.finish_sync(Ok(())), Err(LogError::Fenced { .. })));
    assert!(matches!(log.begin_sync(), Err(LogError::Fenced { .. })));
    assert!(matches!(log.close(), Err(LogError::Fenced { .. })));
    let (_, recovered) = rig.open();
    assert_eq!(recovered.groups, model, "the cache showed a group that the disk does not have (law 17)");
}

#[test]
fn a_failed_sync_at_a_rotation_leaves_no_segment() {
    let rig = Rig::new(small(), 2);
    let (mut log, model) = with_writes(&rig, 3);
    log.append(CoreWriteNumber(4), &[entries(2, vec![entry(4, 1, vec![1; 20_000])])]);
    let sync = log.begin_sync().unwrap().unwrap();
    rig.disk.fail_syncs(1);
    log.finish_sync(rig.disk.sync(sync.fd)).unwrap_err();
    drop(log);
    assert_eq!(rig.open().1.groups, model);
}

#[test]
fn case_25_a_full_disk_stops_preparation_and_freeing_space_resumes_it() {
    let rig = Rig::new(Options { ready_segments: 1, ..small() }, 2);
    let (mut log, _) = rig.open();
    rig.disk.limit_free_bytes(Some(1000));
    let mut number = 0;
    while !log.is_full() {
        number += 1;
        rig.commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![1; 3000])])]);
    }
    assert!(number > 5, "the ready segment was used first");
    let mut votes = 0;
    loop {
        number += 1;
        log.append(CoreWriteNumber(number), &[vote(2, number, 1)]);
        let Some(sync) = log.begin_sync().unwrap() else { break };
        log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
        votes += 1;
    }
    assert_eq!(votes, 3, "the reserve carries votes");
    rig.disk.limit_free_bytes(None);
    rig.flush(&mut log);
    assert!(!log.is_full());
    drop(log);
    assert_eq!(rig.open().1.groups[&GroupId(2)].hard_state.term.0, number);
}

#[test]
fn case_26_a_start_needs_no_free_space_while_a_segment_is_ready() {
    let rig = Rig::new(small(), 2);
    let (mut log, mut model) = with_writes(&rig, 3);
    let last = [vote(2, 9, 1)];
    rig.commit(&mut log, 4, &last);
    apply(&mut model, &last);
    drop(log);
    rig.disk.limit_free_bytes(Some(0));
    let (mut log, recovered) = rig.open();
    assert_eq!(recovered.groups, model);
    rig.commit(&mut log, 1, &[vote(2, 10, 1)]);
}

#[test]
fn a_full_log_says_so_early_keeps_room_for_votes_and_never_grows() {
    let options = Options { max_log_bytes: 6 * (36 << 10), ..small() };
    let rig = Rig::new(options.clone(), 2);
    let (mut log, _) = rig.open();
    let mut number = 0;
    while !log.is_full() {
        number += 1;
        rig.commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![1; 3000])])]);
    }
    let entries_before = number;
    let error = loop {
        number += 1;
        log.append(CoreWriteNumber(number), &[vote(2, number, 1)]);
        match log.begin_sync() {
            Ok(Some(sync)) => assert_eq!(log.finish_sync(rig.disk.sync(sync.fd)).unwrap().0, number),
            Ok(None) => panic!("nothing is being prepared"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { max_log_bytes } if max_log_bytes == options.max_log_bytes));
    assert_eq!(number - entries_before - 1, 3, "votes have less than half a segment");
    assert_eq!((rig.slots().len(), log.bytes()), (6, 6 * (36 << 10)));
    drop(log);
    let (log, recovered) = rig.open();
    assert_eq!(recovered.groups[&GroupId(2)].hard_state.term.0, number - 1, "nothing durable is lost");
    assert!(log.bytes() <= 8 * (36 << 10), "a start after a crash may take two more segments");
}

#[test]
fn options_outside_their_bounds_are_refused() {
    let wrong = [
        Options { segment_bytes: 4096, ..small() },
        Options { segment_bytes: (36 << 10) + 1, ..small() },
        Options { group_bytes_max: 100, ..small() },
        Options { ready_segments: 0, ..small() },
    ];
    for options in wrong {
        let disk = pontoon_wal::memory::MemoryDisk::new();
        let created = pontoon_wal::Log::create_in(&disk, crate::common::IDENTITY, &options, &[]);
        assert!(matches!(created, Err(LogError::Option { .. })), "{options:?}");
        assert!(disk.image().is_empty());
    }
}

#[test]
fn ready_segments_are_durable_before_they_are_used_and_counted_apart() {
    let rig = Rig::new(small(), 2);
    let (log, _) = rig.open();
    assert_eq!(log.stats().prepared_bytes, 4 * (36 << 10));
    assert_eq!(log.stats().bytes, 0);
    // Nothing but the preparation touched them, and the power may go.
    for slot in ["slot-002.seg", "slot-003.seg", "slot-004.seg", "slot-005.seg"] {
        assert_eq!(rig.disk.counts(slot).unwrap().syncs, 1, "{slot}");
    }
    drop(log);
    rig.disk.crash(|_| false);
    assert_eq!(rig.slots().len(), 5);
    // They are found again, so nothing is prepared anew; a start that needs a segment takes one and orders the next.
    let (mut log, _) = rig.open();
    assert_eq!(log.stats().prepared_bytes, 0);
    rig.commit(&mut log, 1, &[vote(2, 1, 1)]);
    drop(log);
    assert_eq!(rig.open().0.stats().prepared_bytes, 36 << 10);
}
