//! The load: mixed reads and writes of many logical clients, and what is measured of them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use pontoon_types::Time;

use crate::data::{Dice, KeyNumber, WriteId};
use crate::job::{Job, Next, Outcome};
use crate::recorder::Recorder;
use crate::slots::Slots;

/// The longest latency that is told apart, nanoseconds.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// The shape of a load.
#[derive(Clone, Debug)]
pub struct Shape {
    pub clients: u32,
    pub read_percent: u32,
    pub keys: KeyNumber,
    pub seed: u64,
    /// Operations per second of an open loop; none is a closed loop.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub duration: Duration,
}

/// What was measured between the end of the warm-up and the end of the load.
pub struct Measured {
    pub writes: u64,
    pub reads: u64,
    pub elapsed: Duration,
    pub write_latency_ns: Histogram<u64>,
    pub read_latency_ns: Histogram<u64>,
}

/// Mixed reads and writes of many logical clients.
///
/// Closed loop: each client starts its next operation when the last one has ended. Open loop: operations are planned
/// at fixed intervals, wait for an idle client if there is none, and their latency counts from the plan.
pub struct Load {
    pub recorder: Recorder,
    slots: Slots,
    counts: Vec<u64>,
    shape: Shape,
    dice: Dice,
    planned: u64,
    window: Option<Window>,
    snapshots: u32,
    measured: Measured,
    progress: Progress,
    stop: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
struct Window {
    start: Time,
    measure: Time,
    end: Time,
}

struct Progress {
    shown: bool,
    next: Time,
    writes: u64,
    reads: u64,
    failed: u64,
}

impl Load {
    /// A load that starts with the first call of [`Job::next`].
    pub fn new(recorder: Recorder, shape: Shape, progress: bool, stop: Arc<AtomicBool>) -> Load {
        let measured = Measured {
            writes: 0,
            reads: 0,
            elapsed: Duration::ZERO,
            write_latency_ns: latency_histogram(),
            read_latency_ns: latency_histogram(),
        };
        Load {
            recorder,
            slots: Slots::new(shape.clients),
            counts: vec![0; shape.clients as usize],
            dice: Dice::new(shape.seed),
            shape,
            planned: 0,
            window: None,
            snapshots: 0,
            measured,
            progress: Progress { shown: progress, next: Time(0), writes: 0, reads: 0, failed: 0 },
            stop,
        }
    }

    /// What was measured, and the memory for the next job.
    pub fn into_parts(self) -> (Measured, Recorder) {
        (self.measured, self.recorder)
    }

    fn window(&mut self, now: Time) -> Window {
        let (warm_up, duration) = (self.shape.warm_up, self.shape.duration);
        let mut window =
            *self.window.get_or_insert(Window { start: now, measure: now + warm_up, end: now + warm_up + duration });
        if now < window.end && self.stop.load(Ordering::Relaxed) {
            window.end = now;
            window.measure = window.measure.min(now);
            self.window = Some(window);
        }
        window
    }

    /// When the next operation of an open loop is due.
    fn planned_time(&self, start: Time, rate: f64) -> Time {
        start + Duration::from_secs_f64(self.planned as f64 / rate)
    }

    fn start(&mut self, now: Time, intended: Time) -> Next {
        let Some(slot) = self.slots.take() else { return Next::Wait };
        self.planned += 1;
        let key = self.dice.below(self.shape.keys);
        let is_read = self.dice.below(100) < self.shape.read_percent;
        let count = &mut self.counts[slot as usize];
        *count += 1;
        let write = (!is_read).then(|| WriteId::new(slot, *count));
        let (started, operation) = self.recorder.start(now, slot, slot, key, write);
        self.slots.begin(slot, started, intended);
        Next::Start(operation)
    }
}

impl Job for Load {
    fn next(&mut self, now: Time) -> Next {
        let window = self.window(now);
        if now >= window.end {
            return Next::Finished;
        }
        match self.shape.rate {
            None => self.start(now, now),
            Some(rate) => match self.planned_time(window.start, rate) {
                planned if planned >= window.end => Next::Later(window.end),
                planned if planned <= now => self.start(now, planned),
                planned => Next::Later(planned),
            },
        }
    }

    fn finish(&mut self, now: Time, slot: u32, outcome: Outcome) {
        let window = self.window(now);
        let (started, intended) = self.slots.end(slot);
        self.recorder.finish(now, &started, &outcome);
        if !matches!(outcome, Outcome::Done(_)) {
            self.progress.failed += 1;
            return;
        }
        let latency_ns = now.since(intended).as_nanos() as u64;
        let is_measured = now >= window.measure && now < window.end;
        let (count, shown, histogram) = match started.write {
            Some(_) => (&mut self.measured.writes, &mut self.progress.writes, &mut self.measured.write_latency_ns),
            None => (&mut self.measured.reads, &mut self.progress.reads, &mut self.measured.read_latency_ns),
        };
        *shown += 1;
        if is_measured {
            *count += 1;
            histogram.saturating_record(latency_ns);
        }
    }

    fn turn(&mut self, now: Time) {
        let window = self.window(now);
        self.measured.elapsed = now.min(window.end).since(window.measure);
        let progress = &mut self.progress;
        if !progress.shown || now < progress.next || now > window.end {
            return;
        }
        if progress.next > Time(0) {
            let second = now.since(window.start).as_secs();
            let phase = if now < window.measure + Duration::from_millis(500) { " (warm-up)" } else { "" };
            let Progress { writes, reads, failed, .. } = progress;
            let failed = if *failed > 0 { format!(", {failed} failed or unknown") } else { String::new() };
            let mut stderr = std::io::stderr().lock();
            // A progress line that cannot be shown is no reason to stop a measurement.
            let _ = writeln!(stderr, "{second:>4} s: {writes} writes/s, {reads} reads/s{failed}{phase}");
        }
        *progress = Progress { shown: true, next: now + Duration::from_secs(1), writes: 0, reads: 0, failed: 0 };
    }

    fn snapshot_due(&mut self, now: Time) -> bool {
        let window = self.window(now);
        let due = match self.snapshots {
            0 => now >= window.measure,
            1 => now >= window.end,
            _ => false,
        };
        self.snapshots += u32::from(due);
        due
    }
}

fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds of the histogram are fixed and right")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn load(clients: u32, rate: Option<f64>) -> Load {
        let shape = Shape {
            clients,
            read_percent: 0,
            keys: 10,
            seed: 1,
            rate,
            warm_up: Duration::from_millis(100),
            duration: Duration::from_millis(100),
        };
        Load::new(Recorder::new(10, 1, 16, None), shape, false, Arc::default())
    }

    fn start(load: &mut Load, now: u64) -> u32 {
        match load.next(Time(now)) {
            Next::Start(operation) => operation.slot,
            other => panic!("{other:?} at {now}"),
        }
    }

    /// One client, one operation planned each 10 ms. The first one takes 95 ms, so the others start late: their
    /// latency counts from the plan, 90 ms for the next one and nothing for the one that is due now.
    #[test]
    fn an_open_loop_counts_from_the_plan() {
        let mut load = load(1, Some(100.0));
        assert_eq!(start(&mut load, 0), 0);
        assert_eq!(load.next(Time(5 * MS)), Next::Later(Time(10 * MS)));
        assert_eq!(load.next(Time(15 * MS)), Next::Wait, "no client is idle");
        load.finish(Time(95 * MS), 0, Outcome::Done(None));
        assert_eq!(load.measured.writes, 0, "still warming up");
        for _ in 0..10 {
            start(&mut load, 100 * MS);
            load.finish(Time(100 * MS), 0, Outcome::Done(None));
        }
        assert_eq!(load.next(Time(100 * MS)), Next::Later(Time(110 * MS)));
        let latency_ms = |quantile| load.measured.write_latency_ns.value_at_quantile(quantile) / MS;
        assert_eq!(load.measured.writes, 10);
        assert_eq!((latency_ms(0.1), latency_ms(0.5), latency_ms(1.0)), (0, 40, 90));
    }

    /// A closed loop starts with every client at once and goes on as they come back, until the end.
    #[test]
    fn a_closed_loop_goes_on_as_clients_come_back() {
        let mut load = load(2, None);
        assert_eq!((start(&mut load, 0), start(&mut load, 0)), (0, 1));
        assert_eq!(load.next(Time(0)), Next::Wait);
        load.finish(Time(150 * MS), 1, Outcome::Done(None));
        assert_eq!(start(&mut load, 150 * MS), 1);
        load.finish(Time(160 * MS), 1, Outcome::Unknown("lost".to_string()));
        load.finish(Time(200 * MS), 0, Outcome::Done(None));
        assert_eq!(load.next(Time(200 * MS)), Next::Finished);
        assert_eq!((load.measured.writes, load.measured.reads), (1, 0), "what ends at the end is not counted");
        assert_eq!((load.recorder.counts.acknowledged, load.recorder.counts.unknown), (2, 1));
    }

    /// The counters are asked for twice: when the warm-up is over and at the end.
    #[test]
    fn the_measured_time_has_two_snapshots() {
        let mut load = load(1, None);
        let due: Vec<u64> = (0..300).filter(|ms| load.snapshot_due(Time(ms * MS))).collect();
        assert_eq!(due, [100, 200]);
    }

    /// An interrupt ends the load at once; both snapshots are still taken.
    #[test]
    fn an_interrupt_ends_the_load() {
        let mut load = load(1, None);
        start(&mut load, 0);
        load.stop.store(true, Ordering::Relaxed);
        assert_eq!(load.next(Time(50 * MS)), Next::Finished);
        assert!(load.snapshot_due(Time(50 * MS)) && load.snapshot_due(Time(51 * MS)));
        load.turn(Time(60 * MS));
        assert_eq!(load.measured.elapsed, Duration::ZERO);
    }
}
