//! What one lone small commit costs the device: one block written, one flush.

use std::path::Path;
use std::time::Duration;

use pontoon_wal::{AppendPath, Options};

use super::disk::{Counters, Disk};
use super::{Life, on_each, wait_until_prepared};
use crate::common::{entries, entry};

const COMMITS: u64 = 200;
const SEGMENT_BYTES: u64 = 8 << 20;
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
        for (segment, (bytes, flushes)) in [("resumed", resumed), ("prepared", prepared)] {
            eprintln!("  {segment} segment: {bytes:.0} bytes and {flushes:.2} flushes for each commit of 256 bytes");
            // The rest is for the journal, which has a timer of its own.
            assert!(
                (BLOCK_BYTES..=1.1 * BLOCK_BYTES).contains(&bytes),
                "one block for each commit, and not {bytes:.0} bytes"
            );
            assert!((0.99..=1.01).contains(&flushes), "one flush for each commit, and not {flushes:.2}");
        }
        assert_eq!(life.log.stats().seals, 0);
    });
}
