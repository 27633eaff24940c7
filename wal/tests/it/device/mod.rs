//! The log on real file systems, each on a loop device of its own: what a commit costs the device, power loss, a full
//! disk, and a disk that fails.
//!
//! These tests need root and loop devices, so they are ignored unless `wal/tests/loop.sh` runs them. Where something
//! is missing they say `SKIPPED` with the reason on the standard error and pass.
// What was measured, and why a test was skipped, is for a person to read.
#![allow(clippy::print_stderr)]

mod cost;
mod disk;
mod eio;
mod full;
mod power;
mod shut_down;
mod unreadable;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pontoon_types::{CoreWriteNumber, GroupId, Write};
use pontoon_wal::{AppendPath, Log, LogError, Options, Sync};

use crate::common::{IDENTITY, Random, created, entries, entry, given_up, gives_up, vote};
use crate::files::fdatasync;
use disk::{Disk, FileSystem};

/// The payloads of a group's entries, in order. The only place of these tests that knows how entries are reached.
fn payloads(log: &mut Log, group: GroupId) -> Vec<Bytes> {
    log.load(group).unwrap().entries.into_iter().map(|entry| entry.payload).collect()
}

/// Different for each index, and checkable without a record of what was written.
fn payload(index: u64) -> Vec<u8> {
    let mut random = Random(index);
    let length = 1 + random.below(9000) as usize;
    (0..length).map(|_| random.next() as u8).collect()
}

/// Runs a test on both file systems and over both append paths, each on a fresh disk made by `make`.
fn on_each(make: impl Fn(FileSystem) -> Result<Disk, String>, test: impl Fn(&mut Disk, AppendPath)) {
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        for append_path in [AppendPath::Write, AppendPath::Mmap] {
            match make(file_system) {
                Ok(mut disk) => {
                    eprintln!("{file_system} {append_path:?}");
                    test(&mut disk, append_path);
                }
                Err(why) => eprintln!("SKIPPED on {file_system} with {append_path:?}: {why}"),
            }
        }
    }
}

/// A log that closes segments and makes checkpoints often.
fn options(append_path: AppendPath) -> Options {
    Options {
        checkpoint_segments: 3,
        segment_bytes: 1 << 20,
        max_log_bytes: 128 << 20,
        group_bytes_max: 64 << 10,
        ready_segments: 2,
        append_path,
    }
}

/// Waits until so many segments exist and the thread that prepares them has nothing to do.
fn wait_until_prepared(path: &Path, segments: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    let names = || fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    while names().filter(|name| name.ends_with(".seg")).count() < segments || names().any(|name| name.ends_with(".new"))
    {
        assert!(Instant::now() < until, "{segments} segments are prepared");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A log whose entries stand for their index, and what it acknowledged.
struct Life {
    log: Log,
    /// Entries that were reported durable in this life or found at its start.
    acknowledged: u64,
    /// Entries that were handed to the log.
    appended: u64,
    /// The term of the group with the entries at its start.
    found_term: u64,
    /// Core writes of this life.
    number: CoreWriteNumber,
    /// Whether old entries are given up on the way, so that segments become free and are used again.
    compacts: bool,
}

impl Life {
    /// The first life of a log.
    fn create(path: &Path, options: &Options) -> Life {
        Log::create(path, IDENTITY, options, &created(2)).unwrap();
        Life::open(path, options, 0, 0)
    }

    /// Opens the log and checks that it has all that was acknowledged before, nothing that was never appended, and no
    /// half of a core write.
    fn open(path: &Path, options: &Options, acknowledged: u64, appended: u64) -> Life {
        let (mut log, recovered) = Log::open(path, IDENTITY, options).unwrap();
        assert!(recovered.read_past_cache, "both file systems can read past the cache");
        let found = payloads(&mut log, GroupId(2));
        let compacted = recovered.groups[&GroupId(2)].compacted.index.0;
        let count = compacted + found.len() as u64;
        assert!(
            (acknowledged..=appended).contains(&count),
            "{count} entries found, {acknowledged} acknowledged, {appended} appended"
        );
        assert!([0, given_up(count)].contains(&compacted), "of {count} entries {compacted} are given up");
        for (index, found) in (compacted + 1..).zip(found) {
            assert!(found == payload(index), "entry {index}");
        }
        assert_eq!(recovered.groups[&GroupId(3)].hard_state.term.0, count, "core writes are whole");
        let found_term = recovered.groups[&GroupId(2)].hard_state.term.0;
        Life { log, acknowledged: count, appended: count, found_term, number: CoreWriteNumber(0), compacts: false }
    }

    /// Hands one core write to the log: an entry of one group, and a vote of another that names it.
    fn append(&mut self) {
        self.appended += 1;
        let index = self.appended;
        let mut writes = vec![entries(2, vec![entry(index, 1, payload(index))]), vote(3, index, 1)];
        writes.extend(gives_up(2, index).filter(|_| self.compacts));
        self.put(&writes);
    }

    fn put(&mut self, writes: &[(GroupId, Write)]) {
        self.number.0 += 1;
        self.log.append(self.number, writes);
    }

    /// Writes one group; waits for the segment it needs, which is prepared or becomes free.
    fn write(&mut self) -> Sync {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.log.begin_sync() {
                Ok(Some(sync)) => return sync,
                Ok(None) | Err(LogError::Full { .. }) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < until, "a segment comes: {:?}", self.log.stats());
        }
    }

    /// Makes everything appended durable.
    fn flush(&mut self) {
        while self.log.is_gathered() {
            let sync = self.write();
            assert_eq!(self.log.finish_sync(fdatasync(sync.fd)).unwrap(), sync.through);
        }
        self.acknowledged = self.appended;
    }

    /// One durable core write.
    fn commit(&mut self) {
        self.append();
        self.flush();
    }
}
