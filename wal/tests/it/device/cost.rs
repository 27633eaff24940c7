//! What one lone small commit costs the device: one block written, one flush.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pontoon_wal::{AppendPath, Options};

use super::disk::{Counters, Disk};
use super::{Life, on_each, wait_until_prepared};
use crate::common::{compact, entries, entry};

const COMMITS: u64 = 200;
const SEGMENT_BYTES: u64 = 8 << 20;
/// Segments of the log that uses them again: one of them holds what is measured behind what begins it.
const RECYCLED_BYTES: u64 = 2 << 20;
const BLOCK_BYTES: f64 = 4096.0;

fn options(append_path: AppendPath) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        max_log_bytes: 128 << 20,
        ready_segments: 2,
        append_path,
        ..Options::default()
    }
}

/// Waits until nothing but commits reaches the device.
fn wait_until_quiet(disk: &Disk, path: &Path, segments: usize) {
    wait_until_prepared(path, segments);
    // The control file is written after a rotation.
    std::thread::sleep(Duration::from_millis(200));
    disk.settle();
}

/// Bytes and flushes of the device for each of many lone commits of 256 bytes.
fn measure(disk: &Disk, life: &mut Life) -> (f64, f64) {
    let before = disk.counters();
    for _ in 0..COMMITS {
        life.put(&[entries(2, vec![entry(life.appended + 1, 1, vec![7; 256])])]);
        life.appended += 1;
        life.flush();
    }
    let after = disk.counters();
    let each = |count: fn(&Counters) -> u64| (count(&after) - count(&before)) as f64 / COMMITS as f64;
    (each(|it| it.written_bytes), each(|it| it.flushes))
}

/// Asks for one block and one flush for each commit.
fn assert_cheap(segment: &str, (bytes, flushes): (f64, f64)) {
    eprintln!("  {segment} segment: {bytes:.0} bytes and {flushes:.2} flushes for each commit of 256 bytes");
    // The rest is for the journal, which has a timer of its own.
    assert!((BLOCK_BYTES..=1.1 * BLOCK_BYTES).contains(&bytes), "one block for each commit, and not {bytes:.0} bytes");
    assert!((0.99..=1.01).contains(&flushes), "one flush for each commit, and not {flushes:.2}");
}

/// Whether every segment file was written to by the log, so that each segment it begins has an older use behind it.
fn is_each_file_used(path: &Path) -> bool {
    let names = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut segments = names.filter(|name| name.extension().is_some_and(|extension| extension == "seg"));
    segments.all(|name| fs::read(name).unwrap()[..BLOCK_BYTES as usize].iter().any(|byte| *byte != 0))
}

/// Waits until the keeper has nothing to do, which rests between the pieces of its work.
fn wait_until_kept(life: &mut Life) {
    let mut before = None;
    while before != Some(life.log.stats()) {
        before = Some(life.log.stats());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(life.log.begin_sync().unwrap(), None, "the log hears of what was done, and has nothing to write");
    }
}

/// A log that has used all its files, at the start of one that is used again.
fn with_recycled_segment(disk: &Disk, path: &Path, append_path: AppendPath) -> Life {
    let options = Options { segment_bytes: RECYCLED_BYTES, max_log_bytes: 64 << 20, ..options(append_path) };
    let mut life = Life::create(path, &options);
    let begin_segment = |life: &mut Life| {
        let index = life.appended + 1;
        // More than half of a segment, so that each one begins the next.
        let big = entry(index, 1, vec![7; RECYCLED_BYTES as usize / 2]);
        life.put(&[entries(2, vec![big]), compact(2, index - 1, 1)]);
        life.appended = index;
        life.flush();
    };
    while life.log.stats().freed_segments <= life.log.bytes() / RECYCLED_BYTES || !is_each_file_used(path) {
        assert!(life.appended < 200, "all files are used: {:?}", life.log.stats());
        begin_segment(&mut life);
        if life.log.stats().freed_segments > 0 {
            wait_until_kept(&mut life);
        }
    }
    let prepared_bytes = life.log.stats().prepared_bytes;
    begin_segment(&mut life);
    wait_until_kept(&mut life);
    wait_until_quiet(disk, path, 0);
    assert_eq!(life.log.stats().prepared_bytes, prepared_bytes, "the segment is none that was made for it");
    life
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn case_56_a_lone_commit_costs_one_block_and_one_flush() {
    on_each(Disk::new, |disk, append_path| {
        let path = disk.directory().join("log");
        let options = options(append_path);
        let mut life = Life::create(&path, &options);
        for _ in 0..100 {
            life.commit();
        }
        life.log.close().unwrap();
        // What is in the segment is read through the cache here, and must leave nothing in it that makes stores dear.
        let mut life = Life::open(&path, &options, 100, 100);
        wait_until_quiet(disk, &path, 3);
        let resumed = measure(disk, &mut life);
        while life.log.stats().bytes < SEGMENT_BYTES {
            life.commit();
        }
        wait_until_quiet(disk, &path, 4);
        let prepared = measure(disk, &mut life);
        assert_eq!(life.log.stats().seals, 0);
        drop(life);
        let mut life = with_recycled_segment(disk, &disk.directory().join("recycled"), append_path);
        let before = life.log.stats().freed_segments;
        let recycled = measure(disk, &mut life);
        assert_eq!(life.log.stats().freed_segments, before, "nothing was done beside the commits");
        for (segment, cost) in [("resumed", resumed), ("prepared", prepared), ("recycled", recycled)] {
            assert_cheap(segment, cost);
        }
    });
}
