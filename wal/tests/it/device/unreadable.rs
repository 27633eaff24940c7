//! A disk that refuses to read one block: the process lives, and names what is lost.

use std::fs;

use pontoon_types::{CoreWriteNumber, GroupId, Index, LogId, Term};
use pontoon_wal::format::BLOCK_BYTES;
use pontoon_wal::{Log, Options, Sync};

use super::disk::Disk;
use super::{Life, on_each, options};
use crate::common::{IDENTITY, Random, compact, entries, entry, groups_in};
use crate::reading::commit;

/// Nine blocks that stand nowhere else.
fn long_payload(index: u64) -> Vec<u8> {
    let mut random = Random(index << 32);
    (0..36_000).map(|_| random.next() as u8).collect()
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn a_start_lives_with_an_unreadable_payload_block_and_names_the_entry() {
    on_each(Disk::refusing, |disk, append_path| {
        let path = disk.directory().join("log");
        let options = Options { ready_segments: 1, ..options(append_path) };
        let mut life = Life::create(&path, &options);
        for index in 1..=60 {
            life.put(&[entries(2, vec![entry(index, 1, long_payload(index))])]);
            life.flush();
        }
        life.log.close().unwrap();
        // The middle of the third entry, in a segment that is closed.
        let content = fs::read(path.join("slot-001.seg")).unwrap();
        let (group, _) = groups_in(&content)[3];
        let at = group + 4 * BLOCK_BYTES;
        disk.refuse(&content[at..at + BLOCK_BYTES]);
        assert!(fs::read(path.join("slot-001.seg")).is_err(), "the disk refuses the block");
        let lost = LogId::new(Index(3), Term(1));
        for round in 0..2 {
            let (mut log, recovered) = Log::open(&path, IDENTITY, &options).unwrap();
            assert!(recovered.read_past_cache);
            let surveyed = log.survey(GroupId(2)).unwrap();
            assert_eq!((surveyed.lost, surveyed.starts.len()), (vec![lost], 1), "round {round}");
            let loaded = log.load(GroupId(2)).unwrap();
            for entry in loaded.entries.iter().filter(|entry| entry.id != lost && entry.id.index.0 <= 60) {
                assert!(entry.payload == long_payload(entry.id.index.0), "{} is what was written", entry.id);
            }
            assert_eq!(loaded.entries.len() as u64, 60 + round);
            let named: Vec<_> = log.scrub().unwrap().iter().filter_map(|rot| rot.entry).map(|entry| entry.id).collect();
            assert_eq!(named, [lost], "round {round}");
            // It is not fenced.
            let more = entries(2, vec![entry(61 + round, 1, "more")]);
            log.append(CoreWriteNumber(1), &[more]);
            let Sync { fd, .. } = log.begin_sync().unwrap().unwrap();
            log.finish_sync(crate::files::fdatasync(fd)).unwrap();
            drop(loaded);
            log.close().unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn a_keeper_lives_with_an_unreadable_payload_block_and_names_the_entry() {
    on_each(Disk::refusing, |disk, append_path| {
        let path = disk.directory().join("log");
        let options =
            Options { ready_segments: 1, checkpoint_segments: 1, max_log_bytes: 12 << 20, ..options(append_path) };
        let churn = |index: u64| {
            let mut writes = vec![entries(3, vec![entry(index, 1, long_payload(1000 + index))])];
            writes.extend((index > 2).then(|| compact(3, index - 2, 1)));
            writes
        };
        let mut life = Life::create(&path, &options);
        for index in 1..=3 {
            life.put(&[entries(2, vec![entry(index, 1, long_payload(index))])]);
            life.flush();
        }
        for index in 1..=40 {
            life.put(&churn(index));
            life.flush();
        }
        life.log.close().unwrap();
        let content = fs::read(path.join("slot-001.seg")).unwrap();
        let at = groups_in(&content)[2].0 + 4 * BLOCK_BYTES;
        disk.refuse(&content[at..at + BLOCK_BYTES]);
        let (mut log, _) = Log::open(&path, IDENTITY, &options).unwrap();
        // Until what lives in the first segments is worth copying elsewhere.
        let (mut index, mut named) = (40, Vec::new());
        while named.is_empty() {
            index += 1;
            assert!(index < 1000, "the keeper finds it: {:?}", log.stats());
            commit(&mut log, index, &churn(index));
            named.extend(log.take_rot().unwrap().into_iter().filter_map(|rot| rot.entry).map(|entry| entry.id));
        }
        // As often as it was tried.
        named.dedup();
        assert_eq!(named, [LogId::new(Index(2), Term(1))]);
        commit(&mut log, index + 1, &churn(index + 1));
        log.close().unwrap();
    });
}
