//! Checkpoints on disks that are full, that fail, and that lose power: the one that was there stays, and what was reported
//! as stored is there.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use pontoon_types::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use pontoon_types::{GroupId, StoreAnswer, StoreFailure};

use super::disk::Disk;
use super::on_failing_disk;
use super::power::on_each;
use crate::store::{GROUP, Rig, failed, id, meta};

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

fn last_stored(rig: &Rig) -> u64 {
    rig.open().unwrap().unwrap().meta().last.index.0
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn a_full_disk_fails_a_checkpoint_and_leaves_the_one_before() {
    on_each(|disk| {
        let mut rig = Rig::at(&disk.directory());
        rig.store(meta(GROUP, 1, 10), &[b"old"]);
        let staging = rig.begin(meta(GROUP, 1, 20));
        fill(&disk.directory());
        // Somewhere on its way, at the latest when it is synced.
        let chunk = vec![7; SNAPSHOT_CHUNK_BYTES_MAX];
        let mut answers: Vec<StoreAnswer> = (0..8).map(|number| rig.chunk(GROUP, staging, number, &chunk)).collect();
        answers.push(rig.finish(GROUP, staging, 8));
        assert_eq!(answers.iter().find_map(failed), Some(StoreFailure::Full), "{answers:?}");
        assert!(answers.last().is_some_and(|answer| failed(answer).is_some()));
        assert_eq!((last_stored(&rig), rig.read(1, 10, 0)), (10, Ok(Some("old".into()))));
        // Not even one that cannot be begun harms anything, and nothing of them is left.
        let chunks: Vec<&[u8]> = vec![&chunk; 8];
        assert_eq!(failed(&rig.write(meta(GroupId(3), 1, 5), &chunks)), Some(StoreFailure::Full));
        assert_eq!(rig.names(), ["filler", "g2.ckp"]);
        std::fs::remove_file(disk.directory().join("filler")).unwrap();
        rig.store(meta(GROUP, 1, 20), &[&chunk]);
        rig.store(meta(GroupId(3), 1, 5), &[&chunk]);
        assert_eq!(last_stored(&rig), 20);
    });
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn a_failed_sync_fails_the_checkpoint_and_is_not_tried_again() {
    on_failing_disk(|disk| {
        let mut rig = Rig::at(&disk.directory());
        rig.store(meta(GROUP, 1, 10), &[b"old"]);
        disk.settle();
        let staging = rig.begin(meta(GROUP, 1, 20));
        rig.chunk(GROUP, staging, 0, b"new");
        disk.fail_writes(true);
        assert_eq!(failed(&rig.finish(GROUP, staging, 1)), Some(StoreFailure::Io));
        assert_eq!(failed(&rig.finish(GROUP, staging, 1)), Some(StoreFailure::Io), "it is over");
        assert_eq!((last_stored(&rig), rig.read(1, 10, 0)), (10, Ok(Some("old".into()))));
        drop(rig);
        disk.fail_writes(false);
        disk.unmount();
        disk.mount();
        let mut rig = Rig::at(&disk.directory());
        assert_eq!((last_stored(&rig), rig.read(1, 10, 0)), (10, Ok(Some("old".into()))));
        rig.store(meta(GROUP, 1, 30), &[b"newer"]);
        assert_eq!(last_stored(&rig), 30);
    });
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn law_19_what_was_reported_as_stored_survives_the_power() {
    on_each(|disk: &mut Disk| {
        for group in (2..6).map(GroupId) {
            // The first of its directory, then one over another, then one that was not finished.
            for (last, chunk) in [(10, &b"first"[..]), (20, b"second")] {
                let mut rig = Rig::at(&disk.directory());
                rig.store(meta(group, 1, last), &[chunk]);
                let staging = rig.begin(meta(group, 1, last + 5));
                rig.chunk(group, staging, 0, b"never finished");
                disk.lose_power();
                drop(rig);
                disk.unmount();
                disk.mount();
                let stored = Rig::at(&disk.directory()).folder().open(group).unwrap().unwrap();
                assert_eq!(stored.meta().last, id(last), "{group} on {}", disk.file_system());
                assert_eq!(stored.chunk(pontoon_types::ChunkNumber(0)).unwrap().unwrap(), chunk);
            }
        }
    });
}
