//! Reading what is not in memory: a core is told so and does not wait, and gets it when it was brought in.

use std::time::{Duration, Instant};

use pontoon_types::limits::COLD_ORDERS_MAX;
use pontoon_types::{Entry, EntryKind, GroupId, Index, LogId, Term};
use pontoon_wal::{Log, Options, ReadError, SurveyedGroup};

use crate::common::{IDENTITY, Rig, created, entries, entry, small};

const GROUP: GroupId = GroupId(2);

fn large() -> Options {
    Options { segment_bytes: 1 << 20, max_log_bytes: 64 << 20, group_bytes_max: 64 << 10, ..small() }
}

/// Entries of 9,000 bytes, in terms of seven entries each.
fn of(index: u64) -> Entry {
    entry(index, 1 + index / 7, vec![index as u8; 9000])
}

fn is_cold(result: &Result<Vec<Entry>, ReadError>, index: u64) -> bool {
    matches!(result, Err(ReadError::Cold { group: GROUP, index: at }) if *at == Index(index))
}

/// Reads all entries as a core does; `wait` is what it does when they are cold. Says how often that was.
fn read_all(log: &mut Log, count: u64, wait: &mut dyn FnMut(&mut Log)) -> usize {
    let (mut next, mut waits) = (1, 0);
    while next <= count {
        match log.read(GROUP, Index(next), Index(count), 64 << 10) {
            Ok(found) => {
                found.iter().for_each(|found| {
                    assert!(*found == of(next), "{} is what was written", found.id);
                    next += 1;
                });
            }
            Err(ReadError::Cold { .. }) => {
                waits += 1;
                assert!(waits < 10_000, "what is cold is brought in");
                wait(log);
            }
            Err(error) => panic!("{error}"),
        }
    }
    waits
}

#[test]
fn cold_entries_are_told_apart_brought_in_and_read() {
    let rig = Rig::new(large(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=300 {
        rig.commit(&mut log, index, &[entries(2, vec![of(index)])]);
    }
    assert_eq!(read_all(&mut log, 300, &mut |_| panic!("what was just written is not cold")), 0);
    rig.disk.chill();
    let found = log.read(GROUP, Index(5), Index(9), 1 << 20);
    assert!(is_cold(&found, 5), "{found:?}");
    assert_eq!(log.cold_orders(), 1);
    // Asking again orders nothing new.
    assert!(log.read(GROUP, Index(5), Index(9), 1 << 20).is_err());
    assert_eq!(log.cold_orders(), 1);
    assert_eq!(log.warm(), 1);
    assert_eq!(log.read(GROUP, Index(5), Index(9), 1 << 20).unwrap(), (5..=9).map(of).collect::<Vec<_>>());
    // What stands close behind has come along, the rest has not.
    let waits = read_all(&mut log, 300, &mut |log| assert!(log.warm() > 0));
    assert!((5..50).contains(&waits), "{waits} waits for 2.7 MB");
    assert_eq!(log.cold_orders(), 0);
}

#[test]
fn a_reader_that_may_wait_finds_nothing_cold() {
    let rig = Rig::new(large(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=20 {
        rig.commit(&mut log, index, &[entries(2, vec![of(index)])]);
    }
    rig.disk.chill();
    let found = log.read_patiently(GROUP, Index(3), Index(9), 1 << 20).unwrap();
    assert_eq!(found, (3..=9).map(of).collect::<Vec<_>>());
    let starts: Vec<LogId> = [1, 7, 14].into_iter().map(|index| of(index).id).collect();
    let configurations: Vec<Entry> = (1..=20).map(of).filter(|entry| entry.kind == EntryKind::Configuration).collect();
    assert!(!configurations.is_empty(), "some entry changes the members");
    assert_eq!(log.survey(GROUP).unwrap(), SurveyedGroup { starts, configurations, lost: Vec::new() });
    assert_eq!(log.cold_orders(), 0);
}

#[test]
fn orders_are_bounded() {
    let rig = Rig::new(large(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=2000 {
        rig.commit(&mut log, index, &[entries(2, vec![of(index)])]);
    }
    rig.disk.chill();
    for index in (1..=2000).step_by(40) {
        assert!(is_cold(&log.read(GROUP, Index(index), Index(index), 1), index));
    }
    assert_eq!(log.cold_orders(), COLD_ORDERS_MAX);
    read_all(&mut log, 2000, &mut |log| assert!(log.warm() > 0));
}

#[test]
fn rot_in_a_cold_page_is_rot_once_it_was_brought_in() {
    let rig = Rig::new(large(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=3 {
        rig.commit(&mut log, index, &[entries(2, vec![of(index)])]);
    }
    rig.seal(&mut log);
    drop(log);
    // Behind the header and the creation stands a group of three blocks for each entry.
    rig.damage("slot-001.seg", |bytes| bytes[5 * 4096 + 200] ^= 1);
    let (mut log, opened) = rig.open();
    assert_eq!(opened.groups[&GROUP].lost, [Index(2)]);
    assert_eq!(log.survey(GROUP).unwrap().lost, [of(2).id]);
    rig.disk.chill();
    assert!(is_cold(&log.read(GROUP, Index(2), Index(3), 1 << 20), 2));
    log.warm();
    let error = log.read(GROUP, Index(2), Index(3), 1 << 20).unwrap_err();
    assert!(matches!(error, ReadError::Rotten { id, .. } if id == LogId::new(Index(2), Term(1))), "{error}");
    assert_eq!(log.read(GROUP, Index(1), Index(3), 1 << 20).unwrap(), [of(1)], "up to the rotten one");
}

#[test]
fn what_the_disk_cannot_give_is_rotten_and_ends_nobody() {
    let rig = Rig::new(large(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=100 {
        rig.commit(&mut log, index, &[entries(2, vec![of(index)])]);
    }
    rig.disk.chill();
    assert!(is_cold(&log.read(GROUP, Index(50), Index(50), 1), 50));
    rig.disk.fail_reads(u32::MAX);
    log.warm();
    // It looks for another copy of the directory first.
    let error = loop {
        match log.read(GROUP, Index(50), Index(50), 1).unwrap_err() {
            ReadError::Cold { .. } => assert!(log.warm() > 0),
            error => break error,
        }
    };
    let is_rotten = matches!(error, ReadError::Rotten { id, .. } if id == of(50).id)
        || matches!(error, ReadError::RottenDirectory { index, .. } if index == Index(50));
    assert!(is_rotten, "{error}");
    // Elsewhere it reads on.
    rig.disk.fail_reads(0);
    assert!(is_cold(&log.read(GROUP, Index(90), Index(90), 1), 90));
    log.warm();
    assert_eq!(log.read(GROUP, Index(90), Index(90), 1).unwrap(), [of(90)]);
}

/// Real files, over both append paths. An open reads past the cache and makes it forget the files, so what is read after
/// it is cold, unless the file system keeps everything in memory.
#[test]
fn real_files_are_cold_after_an_open_and_come_in_by_a_thread() {
    crate::append_path::over_both(|append_path| {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = place.path().join("log");
        let options = Options { append_path, ..large() };
        Log::create(&path, IDENTITY, &options, &created(2)).unwrap();
        let (mut log, _) = Log::open(&path, IDENTITY, &options).unwrap();
        for index in 1..=300 {
            crate::reading::commit(&mut log, index, &[entries(2, vec![of(index)])]);
        }
        log.close().unwrap();
        for file in std::fs::read_dir(&path).unwrap() {
            let file = std::fs::File::open(file.unwrap().path()).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let (mut log, _) = Log::open(&path, IDENTITY, &options).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let waits = read_all(&mut log, 300, &mut |log| {
            while !log.warmed() {
                assert!(Instant::now() < until, "the thread answers");
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let keeps_all = rustix::fs::statfs(&path).unwrap().f_type == 0x0102_1994;
        assert!(waits > 0 || keeps_all, "what the cache has forgotten is cold");
        log.close().unwrap();
    });
}
