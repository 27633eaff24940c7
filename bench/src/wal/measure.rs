//! One round of one target: when it counts, what is counted, and the figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use pontoon_types::Time;
use serde::Serialize;

use super::workload::Workload;
use crate::clock;
use crate::disk::Device;
use crate::report::{quantile, round};

/// The longest time that is told apart from longer ones.
const TIME_NS_MAX: u64 = 100_000_000_000;

/// How one round is run.
#[derive(Clone)]
pub struct Plan {
    /// The load.
    pub workload: Workload,
    /// Raft groups that it goes to.
    pub groups: u32,
    /// Load that is not measured.
    pub warm_up: Duration,
    /// Load that is.
    pub seconds: Duration,
    /// Whether the log is read again afterwards.
    pub verify: bool,
    /// Where the core's loop runs.
    pub processor: Option<usize>,
    /// Sizes of our own log, and how it appends.
    pub options: pontoon_wal::Options,
    /// Set when the user has had enough.
    pub stop: Arc<AtomicBool>,
}

/// What a log has counted since it was opened; what it does not count stays away.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogTotals {
    /// Bytes appended.
    pub bytes: u64,
    /// Zero bytes written ahead of use.
    pub prepared_bytes: u64,
    /// Syncs of its own.
    pub syncs: Option<u64>,
    /// Pauses in which a commit waited for a segment.
    pub segment_pauses: u64,
}

/// All counters at one moment.
#[derive(Clone, Copy)]
struct Totals {
    at: Time,
    thread_cpu: Duration,
    process_cpu: Duration,
    device_bytes: Option<u64>,
    device_flushes: Option<u64>,
    log: LogTotals,
}

/// What was timed.
pub struct Timings {
    commits: u64,
    entries: u64,
    latency_ns: Histogram<u64>,
}

impl Timings {
    /// Nothing yet.
    pub fn new() -> Timings {
        Timings { commits: 0, entries: 0, latency_ns: histogram() }
    }

    /// Commits that were all meant to start at `since` and are durable `now`.
    pub fn add(&mut self, since: Time, now: Time, commits: u64, entries: u64) {
        self.commits += commits;
        self.entries += entries;
        self.latency_ns.saturating_record_n(now.since(since).as_nanos() as u64, commits);
    }

    /// Takes over what another thread has timed.
    #[cfg(feature = "raft-engine")]
    pub fn merge(&mut self, other: &Timings) {
        self.commits += other.commits;
        self.entries += other.entries;
        self.latency_ns += &other.latency_ns;
    }
}

/// Watches one round: it says when to stop, and counts what lies between warm-up and end.
pub struct Meter {
    begin: Time,
    end: Time,
    stop: Arc<AtomicBool>,
    device: Device,
    before: Option<Totals>,
    after: Option<Totals>,
    timings: Timings,
    late_ns: Histogram<u64>,
}

impl Meter {
    /// A round that begins now.
    pub fn start(plan: &Plan, device: Device) -> Meter {
        let begin = clock::now() + plan.warm_up;
        Meter {
            begin,
            end: begin + plan.seconds,
            stop: plan.stop.clone(),
            device,
            before: None,
            after: None,
            timings: Timings::new(),
            late_ns: histogram(),
        }
    }

    /// Whether the load goes on. Asked before each commit; the counters are read at the first one of the measured time
    /// and at the first one after it.
    pub fn goes_on(&mut self, now: Time, log: impl FnOnce() -> LogTotals) -> bool {
        if now < self.begin || self.after.is_some() {
            return self.after.is_none() && !self.is_stopped();
        }
        if self.before.is_none() {
            self.before = Some(self.totals(now, log()));
        } else if now >= self.end || self.is_stopped() {
            self.after = Some(self.totals(now, log()));
        }
        self.after.is_none()
    }

    /// Whether the time counts.
    pub fn is_measuring(&self) -> bool {
        self.before.is_some() && self.after.is_none()
    }

    /// Counts commits that were meant to start at `since`, if that was in the measured time and it has not ended.
    pub fn record(&mut self, since: Time, now: Time, commits: u64, entries: u64) {
        if self.after.is_none() && self.before.is_some_and(|before| since >= before.at) {
            self.timings.add(since, now, commits, entries);
        }
    }

    /// Takes over what other threads have timed.
    #[cfg(feature = "raft-engine")]
    pub fn merge(&mut self, timings: &Timings) {
        self.timings.merge(timings);
    }

    /// Counts how late a timer was seen.
    pub fn late(&mut self, late: Duration) {
        if self.is_measuring() {
            self.late_ns.saturating_record(late.as_nanos() as u64);
        }
    }

    /// The figures, if the measured time was reached.
    pub fn finish(self, threads: Threads) -> Option<Round> {
        let (before, after) = (self.before?, self.after?);
        let Timings { commits, entries, latency_ns } = self.timings;
        let seconds = after.at.since(before.at).as_secs_f64();
        let per_entry = |amount: f64| (entries > 0).then(|| round(amount / entries as f64));
        let cpu = |before: Duration, after: Duration| per_entry(after.saturating_sub(before).as_nanos() as f64);
        let prepared = after.log.prepared_bytes - before.log.prepared_bytes;
        let device = between(before.device_bytes, after.device_bytes).map(|bytes| bytes.saturating_sub(prepared));
        let flushes = between(before.device_flushes, after.device_flushes);
        Some(Round {
            duration_s: round(seconds),
            commits,
            entries,
            entries_per_s: round(entries as f64 / seconds),
            commit_p50_us: quantile(&latency_ns, 0.5),
            commit_p99_us: quantile(&latency_ns, 0.99),
            commit_max_us: quantile(&latency_ns, 1.0),
            p50_to_device: None,
            entries_per_sync: between(before.log.syncs, after.log.syncs)
                .filter(|syncs| *syncs > 0)
                .map(|syncs| round(entries as f64 / syncs as f64)),
            thread_cpu_ns_per_entry: match threads {
                Threads::One => cpu(before.thread_cpu, after.thread_cpu),
                Threads::Many => None,
            },
            process_cpu_ns_per_entry: cpu(before.process_cpu, after.process_cpu),
            log_bytes_per_entry: per_entry((after.log.bytes - before.log.bytes) as f64),
            prepared_bytes_per_entry: per_entry(prepared as f64),
            device_bytes_per_entry: device.and_then(|bytes| per_entry(bytes as f64)),
            device_flushes_per_entry: flushes.and_then(|flushes| per_entry(flushes as f64)),
            segment_pauses: after.log.segment_pauses - before.log.segment_pauses,
            timer_late_p50_us: quantile(&self.late_ns, 0.5),
            timer_late_p99_us: quantile(&self.late_ns, 0.99),
            timer_late_max_us: quantile(&self.late_ns, 1.0),
            verified_entries: None,
        })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn totals(&self, at: Time, log: LogTotals) -> Totals {
        Totals {
            at,
            thread_cpu: clock::thread_cpu(),
            process_cpu: clock::process_cpu(),
            device_bytes: self.device.written_bytes(),
            device_flushes: self.device.flushes(),
            log,
        }
    }
}

/// Whether the thread that asks the meter does all the work of a round outside the kernel's and the log's own threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// It does.
    One,
    /// Others do.
    #[cfg_attr(not(feature = "raft-engine"), allow(dead_code, reason = "only a peer has threads"))]
    Many,
}

/// The figures of one round. Names end in their unit; what cannot be known is null.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub duration_s: f64,
    pub commits: u64,
    pub entries: u64,
    pub entries_per_s: f64,
    pub commit_p50_us: Option<f64>,
    pub commit_p99_us: Option<f64>,
    pub commit_max_us: Option<f64>,
    /// Of a lone commit: its median as a multiple of the bare device's in the same round.
    pub p50_to_device: Option<f64>,
    pub entries_per_sync: Option<f64>,
    /// Processor time of the core's thread: making the entries, appending, system calls.
    pub thread_cpu_ns_per_entry: Option<f64>,
    /// Processor time of all threads, those of the kernel that sync for this process included.
    pub process_cpu_ns_per_entry: Option<f64>,
    pub log_bytes_per_entry: Option<f64>,
    pub prepared_bytes_per_entry: Option<f64>,
    /// Device bytes without those that prepared segments ahead of use. Whoever else writes there is counted too.
    pub device_bytes_per_entry: Option<f64>,
    pub device_flushes_per_entry: Option<f64>,
    /// How often a commit paused for a segment that was not ready.
    pub segment_pauses: u64,
    pub timer_late_p50_us: Option<f64>,
    pub timer_late_p99_us: Option<f64>,
    pub timer_late_max_us: Option<f64>,
    /// Entries found after the log was opened again; all of the round, warm-up included.
    pub verified_entries: Option<u64>,
}

fn between(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    before.zip(after).map(|(before, after)| after.saturating_sub(before))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, TIME_NS_MAX, 3).expect("the bounds of the histogram are fixed and right")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::wal::workload::WORKLOADS;

    /// A round of so many microseconds in the median, at so many entries per second.
    pub fn figures(entries_per_s: f64, commit_p50_us: f64) -> Round {
        let mut meter = meter(Duration::ZERO, Duration::from_secs(1));
        let begin = meter.begin;
        meter.goes_on(begin, LogTotals::default);
        let commits = entries_per_s as u64;
        meter.record(begin, begin + Duration::from_nanos((commit_p50_us * 1e3) as u64), commits, commits);
        meter.goes_on(begin + Duration::from_secs(1), LogTotals::default);
        meter.finish(Threads::One).unwrap()
    }

    fn meter(warm_up: Duration, seconds: Duration) -> Meter {
        let plan = Plan {
            workload: WORKLOADS[0],
            groups: 1,
            warm_up,
            seconds,
            verify: false,
            processor: None,
            options: pontoon_wal::Options::default(),
            stop: Arc::default(),
        };
        Meter::start(&plan, Device::none())
    }

    #[test]
    fn only_the_measured_time_counts() {
        let second = Duration::from_secs(1);
        let mut meter = meter(second, 2 * second);
        let (zero, begin) = (meter.begin - second, meter.begin);
        let log = |bytes| move || LogTotals { bytes, syncs: Some(bytes / 10), ..LogTotals::default() };
        assert!(meter.goes_on(zero, log(0)));
        meter.record(zero, begin, 1, 1);
        meter.late(second);
        assert!(meter.goes_on(begin, log(100)));
        meter.record(zero, begin + second, 1, 1);
        meter.record(begin, begin + second, 1, 4);
        meter.late(Duration::from_micros(7));
        assert!(!meter.goes_on(begin + 2 * second, log(500)));
        meter.record(begin + second, begin + 3 * second, 1, 1);
        assert!(!meter.goes_on(begin + 3 * second, log(900)));

        let round = meter.finish(Threads::One).unwrap();
        assert_eq!(
            (round.commits, round.entries, round.entries_per_s),
            (1, 4, 2.0),
            "one commit began and ended in it"
        );
        assert_eq!((round.log_bytes_per_entry, round.entries_per_sync), (Some(100.0), Some(0.1)));
        assert!((6.9..7.1).contains(&round.timer_late_max_us.unwrap()), "{round:?}");
        assert!((0.99e6..1.01e6).contains(&round.commit_p50_us.unwrap()), "{round:?}");
    }

    #[test]
    fn an_interrupt_ends_a_round_at_once() {
        let mut meter = meter(Duration::from_secs(1), Duration::from_secs(1));
        assert!(meter.goes_on(meter.begin - Duration::from_secs(1), LogTotals::default));
        meter.stop.store(true, Ordering::Relaxed);
        assert!(!meter.goes_on(meter.begin - Duration::from_secs(1), LogTotals::default));
        assert!(meter.finish(Threads::One).is_none(), "nothing was measured");
    }
}
