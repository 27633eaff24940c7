//! Counts allocations of the running thread: a steady load makes none, and no length on the disk is believed.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use pontoon_types::{CoreWriteNumber, GroupId, Write};
use pontoon_wal::{Log, Options};

use crate::append_path::over_both;
use crate::common::{IDENTITY, compact, created, entries, entry, vote};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; the cells have no destructor and no heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        let held = HELD.try_with(|held| {
            held.set(held.get() + layout.size() as i64);
            held.get()
        });
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.unwrap_or(0))));
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get() - layout.size() as i64));
        // SAFETY: the pointer came from the system's allocator above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What this thread allocated while something ran.
#[derive(Clone, Copy, Debug)]
pub struct Allocated {
    /// The largest single allocation.
    pub largest: usize,
    /// The most bytes that were held at once, those from before not counted.
    pub peak: usize,
}

/// Counts what this thread allocates while `work` runs.
pub fn allocated<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let held = HELD.get();
    LARGEST.set(0);
    PEAK.set(held);
    let done = work();
    (done, Allocated { largest: LARGEST.get(), peak: (PEAK.get() - held) as usize })
}

/// Bytes that this thread has allocated and not freed. What another thread frees counts there.
pub fn held_bytes() -> i64 {
    HELD.get()
}

/// The first writes make what is used again.
const WARM_UP_WRITES: u64 = 20;

/// An entry that is given up soon, or the index of places would have to grow.
fn write(index: u64) -> Vec<(GroupId, Write)> {
    let mut writes = vec![entries(2, vec![entry(index, 1, vec![1; 256])]), vote(3, index, 1)];
    writes.extend(index.checked_sub(8).filter(|to| *to > 0).map(|to| compact(2, to, 1)));
    writes
}

#[test]
fn case_57_a_steady_load_allocates_nothing() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 4 << 20,
            max_log_bytes: 64 << 20,
            group_bytes_max: 256 << 10,
            ready_segments: 1,
            checkpoint_segments: 3,
            append_path,
        };
        let path = directory.path().join("log");
        Log::create(&path, IDENTITY, &options, &created(2)).unwrap();
        let (mut log, _) = Log::open(&path, IDENTITY, &options).unwrap();
        let mut largest_count = 0;
        for index in 1..=100 {
            let writes = write(index);
            let before = COUNT.get();
            log.append(CoreWriteNumber(index), &writes);
            log.begin_sync().unwrap().unwrap();
            log.finish_sync(Ok(())).unwrap();
            if index > WARM_UP_WRITES {
                largest_count = largest_count.max(COUNT.get() - before);
            }
        }
        assert_eq!(largest_count, 0, "allocations of one write after the first ones");
        assert_eq!(log.stats().groups, 100);
    });
}

/// How many turns of one kind there were, and the most allocations of one of them.
#[derive(Debug, Default)]
struct Turns {
    count: usize,
    largest: usize,
}

/// What a load did, turn by turn: a write, its sync, and a SEAL now and then.
#[derive(Debug, Default)]
struct Tally {
    /// The log neither went on in another segment nor took over anything, nor was a file ordered.
    plain: Turns,
    /// It went on in another segment.
    rotations: Turns,
    /// It took over what the keeper did, and did not go on in another segment.
    reports: Turns,
    /// Rotations into a file that was written to before.
    used_again: usize,
    freed: u64,
    seals: u64,
    allocations: usize,
}

/// Waits as a shell does before it takes more in. A full log looks with each write for what it could free, in lists of all
/// segments; a steady load has room.
fn wait_for_room(log: &mut Log) {
    for _ in 0..20_000 {
        if !log.room().is_none() {
            return;
        }
        assert_eq!(log.take_rot().unwrap(), []);
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing becomes free: {:?}", log.stats());
}

/// One write with its sync, and a SEAL now and then. Returns the file that was written to.
fn turn(log: &mut Log, index: u64, writes: &[(GroupId, Write)]) -> RawFd {
    log.append(CoreWriteNumber(index), writes);
    wait_for_room(log);
    let sync = log.begin_sync().unwrap().unwrap();
    log.finish_sync(Ok(())).unwrap();
    if index.is_multiple_of(5) {
        wait_for_room(log);
        if log.begin_seal().unwrap().is_some() {
            log.finish_sync(Ok(())).unwrap();
        }
    }
    sync.fd
}

/// Writes small entries that are given up soon, until the files of many segments were used again.
fn run_over_many_segments(path: &Path, options: &Options) -> Tally {
    Log::create(path, IDENTITY, options, &created(2)).unwrap();
    let (mut log, _) = Log::open(path, IDENTITY, options).unwrap();
    let (mut tally, mut files) = (Tally::default(), Vec::new());
    // With the size, as after each report files may be ordered.
    let state = |log: &Log| (log.stats().freed_segments, log.stats().checkpoints, log.segments(), log.bytes());
    let mut before = state(&log);
    for index in 1..=20_000 {
        let writes = write(index);
        let count_before = COUNT.get();
        let file = turn(&mut log, index, &writes);
        let count = COUNT.get() - count_before;
        let stats = log.stats();
        let after = state(&log);
        let has_rotated = files.last() != Some(&file);
        if index > WARM_UP_WRITES {
            let of = match (has_rotated, before == after) {
                (true, _) => &mut tally.rotations,
                (false, false) => &mut tally.reports,
                (false, true) => &mut tally.plain,
            };
            (of.count, of.largest) = (of.count + 1, of.largest.max(count));
            tally.allocations += count;
        }
        before = after;
        if has_rotated {
            tally.used_again += usize::from(files.contains(&file));
            files.push(file);
            // Syncs take their time on a disk, in which the keeper works.
            std::thread::sleep(Duration::from_millis(4));
        }
        (tally.freed, tally.seals) = (stats.freed_segments, stats.seals);
        if tally.used_again >= 10 {
            break;
        }
    }
    tally
}

#[test]
fn case_57_a_steady_load_over_many_segments_allocates_little_for_each() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 64 << 10,
            max_log_bytes: 24 * (64 << 10),
            group_bytes_max: 16 << 10,
            ready_segments: 2,
            checkpoint_segments: 3,
            append_path,
        };
        let tally = run_over_many_segments(&directory.path().join("log"), &options);
        assert!(tally.used_again >= 10 && tally.freed >= 10 && tally.seals >= 20, "{tally:?}");
        assert!(tally.plain.count > 100 && tally.plain.largest == 0, "{tally:?}");
        // A segment takes the count of its readers. What follows now and then, and may meet in one turn: a node of the map
        // of segments, or two, blocks of 31 orders of the two channels, and a longer list of segments that leave.
        assert!(tally.rotations.largest <= 6 && tally.reports.largest <= 6, "{tally:?}");
        assert!(tally.allocations <= 2 * tally.rotations.count, "{tally:?}");
    });
}
