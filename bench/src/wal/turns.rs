//! Our log under its two kinds of load: one writer that waits, and the core's loop for many that do not.
//!
//! The loop is that of a node without its sockets: pinned to the processor that a node takes for its first core, the same
//! readiness call over the same ring, one append a turn for everything that arrived, one sync at a time, and the same
//! decision when to start it. Entries whose writers are woken by one sync arrive in the next turn together, since nothing
//! lies between the writers and the log; so does a group of 64, and a peer's threads are spread by their wake-ups. A timer
//! of one millisecond runs in the loop.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pontoon::NodeConfig;
use pontoon::driver::epoll::EpollDriver;
use pontoon::driver::{Driver, Ready};
use pontoon::hold::{Decision, Hold};
use pontoon_types::{CoreWriteNumber, Time};
use rustix::event::{EventfdFlags, eventfd};

use super::measure::{Meter, Plan, Round, Threads};
use super::own_log::{OwnLog, SEGMENT_PAUSE, SEGMENT_PAUSES_MAX, no_segment, verify};
use super::workload::{Batch, Kind, Rotation};
use crate::clock;
use crate::cluster::Pin;
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT};

/// How many entries of a group are kept: enough for a follower that was away for a moment. The others are given up, so
/// that segments are used again as in a node that runs for long. A peer is spared that work.
const KEPT_ENTRIES: u64 = 4096;

/// The timer of the core's loop.
const TIMER: Duration = Duration::from_millis(1);

/// One round in a new directory. No figures if it was interrupted.
pub fn run(plan: &Plan, dir: &Path) -> Result<Option<Round>, BenchError> {
    let mut log = OwnLog::create(dir, &plan.options, plan.groups)?;
    let mut batch = Batch::new(Rotation::all(plan.groups), plan.workload.payload_bytes).keep(KEPT_ENTRIES);
    let mut meter = Meter::start(plan, Device::under(dir));
    match plan.workload.kind {
        Kind::Asynchronous => {
            let _pin = Pin::to_processor(plan.processor);
            log = Loop::new(log, plan)?.run(&mut batch, &mut meter)?;
        }
        Kind::Waiting | Kind::Device => wait_for_each(&mut log, plan.workload.entries, &mut batch, &mut meter)?,
    }
    let mut round = meter.finish(Threads::One);
    if plan.verify {
        // Without a clean stop, as a process that is killed leaves it.
        drop(log);
        let (mut log, recovered) = OwnLog::open(dir, &plan.options)?;
        let found = verify(&mut log, &recovered, plan.groups, plan.workload.payload_bytes, batch.made())?;
        round = round.map(|round| Round { verified_entries: Some(found), ..round });
    }
    Ok(round)
}

fn wait_for_each(log: &mut OwnLog, entries: u32, batch: &mut Batch, meter: &mut Meter) -> Result<(), BenchError> {
    while meter.goes_on(clock::now(), || log.totals()) {
        batch.fill(entries);
        let since = clock::now();
        log.append(batch);
        log.commit()?;
        meter.record(since, clock::now(), 1, u64::from(entries));
    }
    Ok(())
}

/// Entries that were appended together.
struct Submitted {
    number: CoreWriteNumber,
    at: Time,
    entries: u32,
}

/// The core's loop.
struct Loop {
    log: OwnLog,
    driver: EpollDriver,
    hold: Hold,
    submitted: VecDeque<Submitted>,
    /// Writers with nothing under way.
    ready: u32,
    /// When to look again at what has gathered.
    look_at: Option<Time>,
    timer: Time,
    pauses: u64,
}

impl Loop {
    fn new(log: OwnLog, plan: &Plan) -> Result<Loop, BenchError> {
        let inbox = eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from).map_err(machine)?;
        Ok(Loop {
            log,
            driver: EpollDriver::new(Arc::new(inbox), None).map_err(machine)?,
            hold: Hold::new(NodeConfig::new("").sync_hold_max),
            submitted: VecDeque::new(),
            ready: plan.workload.writers,
            look_at: None,
            timer: clock::now() + TIMER,
            pauses: 0,
        })
    }

    /// Turns until the meter says stop and everything submitted is durable.
    fn run(mut self, batch: &mut Batch, meter: &mut Meter) -> Result<OwnLog, BenchError> {
        let mut events = Vec::new();
        let mut now = self.driver.now();
        loop {
            let goes_on = meter.goes_on(now, || self.log.totals());
            if !goes_on && self.submitted.is_empty() {
                return Ok(self.log);
            }
            if goes_on && self.ready > 0 {
                self.submit(now, batch);
            }
            self.start_sync(now)?;

            let until = self.look_at.map_or(self.timer, |look_at| look_at.min(self.timer));
            self.driver.ready(Some(until), &mut events).map_err(machine)?;
            now = self.driver.now();
            self.look_at_timer(now, meter);
            for event in events.drain(..) {
                if let Ready::Synced(result) = event {
                    let through = self.log.finish_sync(result)?;
                    self.hold.finished(now);
                    self.wake(now, through, meter);
                }
            }
        }
    }

    /// One append for all writers that are ready.
    fn submit(&mut self, now: Time, batch: &mut Batch) {
        batch.fill(self.ready);
        let number = self.log.append(batch);
        self.submitted.push_back(Submitted { number, at: now, entries: self.ready });
        self.ready = 0;
    }

    /// As a core does: one at a time, held while that pays.
    fn start_sync(&mut self, now: Time) -> Result<(), BenchError> {
        self.look_at = None;
        if self.log.log().in_flight() || !self.log.log().is_gathered() {
            return Ok(());
        }
        let (gathered, last) = (self.log.log().gathered_entries(), self.log.log().last_group_entries());
        match self.hold.decide(now, gathered, last) {
            Decision::Until(until) => self.look_at = Some(until),
            Decision::Start => match self.log.begin_sync()? {
                Some(begun) => {
                    self.hold.started(now);
                    self.pauses = 0;
                    self.driver.sync(begun.fd).map_err(machine)?;
                }
                None if self.pauses < SEGMENT_PAUSES_MAX => {
                    self.pauses += 1;
                    self.look_at = Some(now + SEGMENT_PAUSE);
                }
                None => return Err(no_segment()),
            },
        }
        Ok(())
    }

    /// The writers of everything durable are ready again.
    fn wake(&mut self, now: Time, through: CoreWriteNumber, meter: &mut Meter) {
        while let Some(submitted) = self.submitted.front()
            && submitted.number <= through
        {
            let entries = u64::from(submitted.entries);
            meter.record(submitted.at, now, entries, entries);
            self.ready += submitted.entries;
            self.submitted.pop_front();
        }
    }

    /// Each period that has passed counts, so that one long turn is as many late timers as it delayed.
    fn look_at_timer(&mut self, now: Time, meter: &mut Meter) {
        while self.timer <= now {
            meter.late(now.since(self.timer));
            self.timer = self.timer + TIMER;
        }
    }
}

fn machine(error: io::Error) -> BenchError {
    BenchError::new(ENVIRONMENT, format!("the core's loop: {error}"))
}
