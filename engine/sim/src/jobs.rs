//! Many seeds at once. Each run is single-threaded and knows nothing of the others; this is the only place in the
//! simulator that names threads. Reports come back in the order of the seeds, whichever thread was faster.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::options::Overrides;
use crate::report::Report;
use crate::run;

/// Runs every seed of the range on `threads` threads and hands each report to `each`, in the order of the seeds.
/// Stops early once `each` returns false; seeds after that one may have been run and are dropped.
pub fn run_many(seeds: Range<u64>, overrides: &Overrides, threads: usize, mut each: impl FnMut(Report) -> bool + Send) {
    let next = AtomicU64::new(seeds.start);
    let stopped = Mutex::new(false);
    let waiting = Mutex::new((seeds.start, std::collections::BTreeMap::new(), &mut each));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || *lock(&stopped) {
                        return;
                    }
                    let report = run(seed, overrides);
                    let mut waiting = lock(&waiting);
                    let (due, finished, each) = &mut *waiting;
                    finished.insert(seed, report);
                    while let Some(report) = finished.remove(due) {
                        *due += 1;
                        if *lock(&stopped) {
                            return;
                        }
                        if !each(report) {
                            *lock(&stopped) = true;
                        }
                    }
                }
            });
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("law: no thread panics while it holds a lock of the job runner")
}
