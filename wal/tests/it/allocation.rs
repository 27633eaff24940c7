//! Counts allocations of the running thread: a steady load makes none, and no length on the disk is believed.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pontoon_types::CoreWriteNumber;
use pontoon_wal::{Log, Options};

use crate::append_path::over_both;
use crate::common::{IDENTITY, compact, created, entries, entry, vote};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; the cells have no destructor and no heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        let _ = HELD.try_with(|held| held.set(held.get() + layout.size() as i64));
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

/// The largest single allocation of this thread while `work` runs.
pub fn largest_allocation(work: impl FnOnce()) -> usize {
    LARGEST.set(0);
    work();
    LARGEST.get()
}

/// Bytes that this thread has allocated and not freed. What another thread frees counts there.
pub fn held_bytes() -> i64 {
    HELD.get()
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
        // What is appended is compacted soon, or the index of places would have to grow.
        let write = |index: u64| {
            let mut writes = vec![entries(2, vec![entry(index, 1, vec![1; 256])]), vote(3, index, 1)];
            writes.extend(index.checked_sub(8).filter(|to| *to > 0).map(|to| compact(2, to, 1)));
            writes
        };
        let mut largest_count = 0;
        for index in 1..=100 {
            let writes = write(index);
            let before = COUNT.get();
            log.append(CoreWriteNumber(index), &writes);
            log.begin_sync().unwrap().unwrap();
            log.finish_sync(Ok(())).unwrap();
            if index > 20 {
                largest_count = largest_count.max(COUNT.get() - before);
            }
        }
        assert_eq!(largest_count, 0, "allocations of one write after the first ones");
        assert_eq!(log.stats().groups, 100);
    });
}
