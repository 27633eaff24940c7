//! Runs the keeper: on a thread of its own, or inside the caller's call for the simulator.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::scrub::{Found, ScrubQueue, rest_after};
use super::{Closed, Keeper, Report, Start};
use crate::prepare::{Pool, Preparation};

/// The copies of the keeper rest four times as long as they take, so that they have a fifth of the disk.
const REST_FACTOR: u32 = 4;

/// The lowest priority: a checkpoint takes the processor that the cores leave.
const NICENESS: i32 = 19;

/// The longest rest after one piece, so that a slow disk does not put checkpoints off for ever.
const REST_MAX: Duration = Duration::from_millis(200);

/// What the thread says.
struct Answer {
    report: io::Result<Report>,
    /// It was asked. What it finds when it reads segments back it says without being asked.
    was_asked: bool,
}

enum Mode {
    Thread { orders: Sender<Order>, answers: Receiver<Answer>, worker: JoinHandle<()> },
    Inline { keeper: Box<Keeper>, reports: VecDeque<io::Result<Report>> },
    Stopped,
}

enum Order {
    Closed(Closed),
    Look,
    Scrub(Sender<io::Result<Vec<Found>>>),
}

/// The core's side of the keeper.
pub(crate) struct Keeping {
    mode: Mode,
    /// What it was asked and has not answered. Each closed segment and each look is answered once, and a thread answers
    /// once more when it starts.
    unanswered: u64,
    pool: Arc<Pool>,
}

impl Keeping {
    /// Starts the keeper. What is due at once, after starts that were never followed by a checkpoint, is done before
    /// this returns only if no segment is left for the log otherwise.
    pub(crate) fn start(start: Start, how: Preparation) -> io::Result<(Keeping, Report)> {
        let pool = start.pool.clone();
        let pace: Box<dyn FnMut(u64) + Send> = match how {
            Preparation::Thread => Box::new(pacer(pool.clone())),
            Preparation::Inline => Box::new(|_| {}),
        };
        let mut keeper = Keeper::new(start, pace);
        let mut report = Report::default();
        let is_due_now = match how {
            Preparation::Thread => pool.is_exhausted(),
            Preparation::Inline => keeper.is_short_of_room(),
        };
        if is_due_now {
            keeper.keep(&mut report)?;
        }
        let unanswered = u64::from(how == Preparation::Thread);
        let mode = match how {
            Preparation::Inline => Mode::Inline { keeper: Box::new(keeper), reports: VecDeque::new() },
            Preparation::Thread => {
                let (orders, inbox) = crossbeam_channel::unbounded();
                let (outbox, answers) = crossbeam_channel::unbounded();
                let builder = std::thread::Builder::new().name("pontoon-keeper".to_string());
                let of_worker = pool.clone();
                let worker = builder.spawn(move || work(keeper, &of_worker, &inbox, &outbox))?;
                Mode::Thread { orders, answers, worker }
            }
        };
        Ok((Keeping { mode, unanswered, pool }, report))
    }

    /// Hands a segment over that the log has left.
    pub(crate) fn closed(&mut self, closed: Closed) {
        self.unanswered += 1;
        match &mut self.mode {
            // A keeper that is gone has failed and said so.
            Mode::Thread { orders, .. } => drop(orders.send(Order::Closed(closed))),
            Mode::Inline { keeper, reports } => reports.push_back(keeper.closed(closed)),
            Mode::Stopped => {}
        }
    }

    /// Whether it has not yet done all that it was asked.
    pub(crate) fn is_busy(&self) -> bool {
        self.unanswered > 0
    }

    /// Has it look whether a checkpoint is due, though no segment was closed. One that is busy does so by itself.
    pub(crate) fn look(&mut self) {
        if self.is_busy() {
            return;
        }
        self.unanswered += 1;
        match &mut self.mode {
            Mode::Thread { orders, .. } => drop(orders.send(Order::Look)),
            Mode::Inline { keeper, reports } => reports.push_back(keeper.look()),
            Mode::Stopped => {}
        }
    }

    /// What the keeper has done since the last call.
    pub(crate) fn report(&mut self) -> Option<io::Result<Report>> {
        let answer = match &mut self.mode {
            Mode::Thread { answers, .. } => answers.try_recv().ok(),
            Mode::Inline { reports, .. } => reports.pop_front().map(|report| Answer { report, was_asked: true }),
            Mode::Stopped => None,
        }?;
        self.unanswered -= u64::from(answer.was_asked);
        Some(answer.report)
    }

    /// Reads the whole log from the disk and waits for it.
    pub(crate) fn scrub(&mut self) -> io::Result<Vec<Found>> {
        let gone = || io::Error::other("the keeper is gone");
        match &self.mode {
            Mode::Thread { orders, .. } => {
                let (answer, found) = crossbeam_channel::bounded(1);
                orders.send(Order::Scrub(answer)).map_err(|_| gone())?;
                found.recv().map_err(|_| gone())?
            }
            Mode::Inline { keeper, .. } => keeper.scrub_all(),
            Mode::Stopped => Err(gone()),
        }
    }

    /// Ends the work, after the piece in hand.
    pub(crate) fn stop(&mut self) {
        self.pool.request_stop();
        if let Mode::Thread { orders, answers, worker } = std::mem::replace(&mut self.mode, Mode::Stopped) {
            drop((orders, answers));
            let _ = worker.join();
        }
    }
}

impl Drop for Keeping {
    /// The thread must not outlive the lock on the directory.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Rests after each piece in proportion to the time since the last one.
fn pacer(pool: Arc<Pool>) -> impl FnMut(u64) + Send {
    let mut since = Instant::now();
    move |_| {
        let rest = (since.elapsed() * REST_FACTOR).min(REST_MAX);
        let (used, allowed) = pool.used();
        // A log that is short of room needs the result more than a quiet disk.
        if !pool.is_stopping() && used * 4 < allowed * 3 {
            std::thread::sleep(rest);
        }
        since = Instant::now();
    }
}

/// The thread: until the log drops its end of the channel.
fn work(mut keeper: Keeper, pool: &Pool, orders: &Receiver<Order>, answers: &Sender<Answer>) {
    // The cores come first. A system that refuses it only has them wait a little more often.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let (mut queue, started) = (ScrubQueue::default(), Instant::now());
    // What was due when the log was opened.
    let report = keeper.look();
    let failed = report.is_err();
    if answers.send(Answer { report, was_asked: true }).is_err() || failed {
        return;
    }
    loop {
        let (report, was_asked) = match orders.recv_deadline(started + queue.due_at(keeper.start.kept.len())) {
            Ok(Order::Closed(closed)) => {
                queue.closed(closed.open.segment.key(), started.elapsed());
                (keeper.closed(closed), true)
            }
            Ok(Order::Look) => (keeper.look(), true),
            Ok(Order::Scrub(answer)) => {
                drop(answer.send(keeper.scrub_all()));
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Some(segment) = queue.next(&keeper.start.kept, started.elapsed()) else { continue };
                let mut go_on = |bytes: u64| {
                    std::thread::sleep(rest_after(bytes));
                    // A closed segment can wait for the seconds that this takes, unless the log is short of others. A busy
                    // log closes one so often that it would never be read otherwise.
                    !pool.is_stopping() && (orders.is_empty() || !keeper.is_short_of_room())
                };
                match keeper.scrub(segment, &mut go_on) {
                    Ok(None) => {
                        queue.again(segment);
                        continue;
                    }
                    Ok(Some(rot)) if rot.is_empty() => continue,
                    scrubbed => {
                        let report = |rot: Option<_>| Report { rot: rot.unwrap_or_default(), ..Report::default() };
                        (scrubbed.map(report), false)
                    }
                }
            }
        };
        let failed = report.is_err();
        if answers.send(Answer { report, was_asked }).is_err() || failed {
            return;
        }
    }
}
