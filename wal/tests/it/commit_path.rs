//! A commit never waits for a name: files are made, renamed and removed, and the directory synced, by other threads.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pontoon_types::{CoreWriteNumber, GroupId, Write};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::storage::{Access, SegmentFile, Storage};
use pontoon_wal::{Log, LogError, Options, Preparation};

use crate::common::{IDENTITY, compact, created, entries, entry, small, vote};

/// A disk that remembers who changed its names, and how.
#[derive(Default)]
struct Watched {
    disk: MemoryDisk,
    changes: Mutex<BTreeSet<(bool, &'static str)>>,
    committing: Option<ThreadId>,
}

impl Watched {
    fn note(&self, change: &'static str) {
        let by_committing = self.committing == Some(thread::current().id());
        self.changes.lock().unwrap().insert((by_committing, change));
    }

    /// What the committing thread did to names, or what all others did.
    fn changes(&self, by_committing: bool) -> Vec<&'static str> {
        let changes = self.changes.lock().unwrap();
        changes.iter().filter(|change| change.0 == by_committing).map(|change| change.1).collect()
    }
}

impl Storage for Watched {
    fn place(&self) -> String {
        self.disk.place()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        self.note("create");
        self.disk.create(name, bytes)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn SegmentFile>> {
        self.note("open");
        self.disk.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.note("rename");
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.note("remove");
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.note("sync_names");
        self.disk.sync_names()
    }

    fn salt(&self) -> io::Result<u32> {
        self.disk.salt()
    }
}

/// One durable core write; waits when the next segment is still being prepared, or the keeper is behind. Returns the file
/// it went to.
fn commit(log: &mut Log, disk: &MemoryDisk, number: u64, writes: &[(GroupId, Write)]) -> RawFd {
    log.append(CoreWriteNumber(number), writes);
    for _ in 0..20_000 {
        match log.begin_sync() {
            Ok(Some(sync)) => {
                log.finish_sync(disk.sync(sync.fd)).unwrap();
                return sync.fd;
            }
            Ok(None) | Err(LogError::Full { .. }) => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no segment comes: {:?}", log.stats());
}

#[test]
fn no_name_is_changed_on_the_committing_thread() {
    let watched = Watched { committing: Some(thread::current().id()), ..Watched::default() };
    let disk = watched.disk.clone();
    let options = Options { checkpoint_segments: 3, ..small() };
    Log::create_in(&disk, IDENTITY, &options, &created(2)).unwrap();
    let fill = |index: u64| entries(2, vec![entry(index, 1, vec![1; 9000])]);
    // What is opened has closed segments, which are read only until they are used again.
    let (mut log, _) = Log::open_in(Arc::new(disk.clone()), IDENTITY, &options, Preparation::Inline).unwrap();
    for index in 1..=30 {
        commit(&mut log, &disk, index, &[fill(index)]);
    }
    drop(log);
    let watched = Arc::new(watched);
    let (mut log, _) = Log::open_in(watched.clone(), IDENTITY, &options, Preparation::Thread).unwrap();
    watched.changes.lock().unwrap().clear();

    // The log grows, is given up as a whole, and goes on in what became free; the files that are too many are removed.
    let mut files: Vec<RawFd> = (31..=90).map(|index| commit(&mut log, &disk, index - 30, &[fill(index)])).collect();
    files.dedup();
    assert!(files.len() >= 20, "{files:?}");
    let until = Instant::now() + Duration::from_secs(20);
    let (mut number, mut used_again) = (61, 0);
    while used_again < 3 || !watched.changes(false).contains(&"remove") {
        assert!(Instant::now() < until, "{:?} and {:?}", log.stats(), watched.changes(false));
        let writes = [fill(number + 30), vote(3, number, 1), compact(2, number + 29, 1)];
        let file = commit(&mut log, &disk, number, &writes);
        if files.last() != Some(&file) {
            used_again += usize::from(files.contains(&file));
            files.push(file);
        }
        if let Some(sync) = log.begin_seal().unwrap() {
            log.finish_sync(disk.sync(sync.fd)).unwrap();
        }
        number += 1;
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(watched.changes(true), [""; 0], "by this thread");
    assert_eq!(watched.changes(false), ["create", "open", "remove", "rename", "sync_names"], "by the other threads");
    log.close().unwrap();
    assert_eq!(watched.changes(true), [""; 0], "by the stop");
}
