//! A disk that fails: the log is fenced by the first failed sync, and what the disk holds decides afterwards.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use pontoon_wal::{LogError, Options};

use super::disk::Disk;
use super::{Life, on_each, options, payload};
use crate::files::fdatasync;

/// Whether a file of a directory, read through the cache, holds these bytes.
fn is_in_a_file(directory: &Path, bytes: &[u8]) -> bool {
    let mut files = fs::read_dir(directory).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    files.any(|content| content.windows(bytes.len()).any(|window| window == bytes))
}

/// A file system whose journal met the failure takes no writes before it is mounted again.
fn is_writable(directory: &Path) -> io::Result<()> {
    let mut probe = File::create(directory.join("probe"))?;
    probe.write_all(&[1; 4096])?;
    probe.sync_all()
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn cases_20_21_23_a_failed_sync_fences_the_log_and_is_not_tried_again() {
    on_each(Disk::failing, |disk, append_path| {
        let path = disk.directory().join("log");
        let options = Options { ready_segments: 1, ..options(append_path) };
        drop(Life::create(&path, &options));
        let mut acknowledged = 0;
        for round in 0..3 {
            let mut life = Life::open(&path, &options, acknowledged, acknowledged);
            for _ in 0..10 {
                life.commit();
            }
            disk.fail_writes(true);
            life.append();
            let sync = life.write();
            let error = life.log.finish_sync(fdatasync(sync.fd)).unwrap_err();
            assert!(matches!(error, LogError::Fenced { .. }), "round {round}: {error}");
            assert!(error.to_string().contains("sync: Input/output error"), "round {round}: {error}");
            disk.fail_writes(false);
            // The disk works again, and still nothing is written or synced.
            let before = life.log.stats();
            life.append();
            for _ in 0..2 {
                assert!(matches!(life.log.begin_sync(), Err(LogError::Fenced { .. })), "round {round}");
                assert!(matches!(life.log.begin_seal(), Err(LogError::Fenced { .. })), "round {round}");
            }
            assert_eq!(life.log.stats().bytes, before.bytes);
            assert!(life.log.is_full(), "a fenced log takes no proposals");
            acknowledged = life.acknowledged;
            assert!(matches!(life.log.close(), Err(LogError::Fenced { .. })));
            match is_writable(&disk.directory()) {
                // The cache still shows the group that failed, in pages that count as written; the disk never got it.
                Ok(()) => {
                    let lost = payload(acknowledged + 1);
                    assert!(is_in_a_file(&path, &lost), "round {round}: the cache keeps what failed");
                    drop(Life::open(&path, &options, acknowledged, acknowledged));
                }
                Err(why) => eprintln!("SKIPPED the open before a remount on {}: {why}", disk.file_system()),
            }
            disk.unmount();
            disk.mount();
        }
        let mut life = Life::open(&path, &options, acknowledged, acknowledged);
        life.commit();
        life.log.close().unwrap();
    });
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn case_24_a_failing_device_leaves_the_log_on_another_one_alone() {
    on_each(Disk::failing, |disk, append_path| {
        let mut healthy = Disk::new(disk.file_system()).unwrap();
        let options = Options { ready_segments: 1, ..options(append_path) };
        let (path, other_path) = (disk.directory().join("log"), healthy.directory().join("log"));
        let (mut life, mut other) = (Life::create(&path, &options), Life::create(&other_path, &options));
        for _ in 0..10 {
            life.commit();
            other.commit();
        }
        // Both have a group in flight when the one device fails.
        disk.fail_writes(true);
        life.append();
        other.append();
        let (sync, other_sync) = (life.write(), other.write());
        let error = life.log.finish_sync(fdatasync(sync.fd)).unwrap_err();
        assert!(matches!(error, LogError::Fenced { .. }), "{error}");
        assert_eq!(other.log.finish_sync(fdatasync(other_sync.fd)).unwrap(), other_sync.through);
        other.acknowledged = other.appended;
        // Far enough that it prepares segments, makes checkpoints and reads itself back.
        while other.log.stats().checkpoints < 2 {
            other.commit();
        }
        assert!(matches!(life.log.begin_sync(), Err(LogError::Fenced { .. })));
        assert_eq!(other.log.scrub().unwrap(), []);
        let (acknowledged, of_other) = (life.acknowledged, other.acknowledged);
        drop(life);
        other.log.close().unwrap();
        disk.fail_writes(false);
        for disk in [disk, &mut healthy] {
            disk.unmount();
            disk.mount();
        }
        Life::open(&path, &options, acknowledged, acknowledged + 1).log.close().unwrap();
        Life::open(&other_path, &options, of_other, of_other).log.close().unwrap();
    });
}
