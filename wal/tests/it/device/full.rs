//! A full disk: what is prepared goes on, and a start needs no space.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use pontoon_types::{GroupId, Index, Write};

use super::disk::Disk;
use super::{Life, on_each, options, wait_until_prepared};
use crate::common::vote;

/// Takes the last byte of the file system.
fn fill(directory: &Path) {
    let mut filler = File::options().create(true).append(true).open(directory.join("filler")).unwrap();
    for piece in [1 << 20, 4096, 1] {
        let piece = vec![1; piece];
        let error = loop {
            if let Err(error) = filler.write_all(&piece).and_then(|()| filler.sync_data()) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
}

fn assert_full(directory: &Path) {
    let written = File::create(directory.join("more")).and_then(|mut file| {
        file.write_all(&[1; 4096])?;
        file.sync_data()
    });
    assert_eq!(written.expect_err("the disk is full").kind(), ErrorKind::StorageFull);
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn cases_25_26_27_a_full_disk_stops_neither_what_is_prepared_nor_a_start() {
    on_each(Disk::new, |disk, append_path| {
        let path = disk.directory().join("log");
        let options = options(append_path);
        let mut life = Life::create(&path, &options);
        wait_until_prepared(&path, 3);
        fill(&disk.directory());

        // Half of what is prepared, then a crash: the start takes the segment that is left.
        while life.log.stats().bytes < 3 << 19 {
            life.commit();
        }
        assert_full(&disk.directory());
        let Life { log, acknowledged, .. } = life;
        drop(log);
        let mut life = Life::open(&path, &options, acknowledged, acknowledged);

        // All that proposals may take, then votes and a cut, which takes nothing in, and a crash behind them.
        while !life.log.is_full() {
            life.commit();
        }
        for term in 1..=50 {
            life.put(&[vote(2, term, 1)]);
            life.flush();
        }
        let left = life.acknowledged - 1;
        let cut = Write { truncate_from: Some(Index(left + 1)), ..Write::default() };
        life.put(&[(GroupId(2), cut), vote(3, left, 1)]);
        life.flush();
        assert_full(&disk.directory());
        drop(life);
        let mut life = Life::open(&path, &options, left, left);
        assert_eq!(life.found_term, 50, "what a full disk acknowledged is there after a crash");

        // The same behind a clean stop, which needs no segment.
        while !life.log.is_full() {
            life.commit();
        }
        life.put(&[vote(2, 51, 1)]);
        life.flush();
        let Life { log, acknowledged, .. } = life;
        log.close().unwrap();
        let mut life = Life::open(&path, &options, acknowledged, acknowledged);
        assert!(life.log.is_full());
        assert_eq!(life.found_term, 51);
        life.put(&[vote(2, 52, 1)]);
        life.flush();
        assert_full(&disk.directory());

        // Space comes back, and the log goes on by itself.
        std::fs::remove_file(disk.directory().join("filler")).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while life.log.is_full() {
            assert!(Instant::now() < until, "freed space is used");
            std::thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..500 {
            life.commit();
        }
        life.log.close().unwrap();
    });
}
