//! One turn of one core, as the shell takes it: look at the clock, step everything that arrived, look again, end the turn,
//! carry out the effects, and begin a sync if none is in flight. The checkers look at every part on its way. What the log
//! does is in `sync`.
//!
//! The core's own assertions stop it with a panic that names the law; here that is one more kind of violation, with
//! the trace that led to it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Core, Effects, Event};
use pontoon_types::Time;
use pontoon_wire::client::{Outcome, ReplyFrame};
use pontoon_wire::peer::PeerFrame;

use crate::invariants::Change;
use crate::process::{Arrival, RunningCore};
use crate::trace::{Happening, Place, WriteLine};
use crate::violation::Broken;
use crate::world::{Due, Phase, World};

/// Events that one turn takes at most; the rest waits for the next, as in the node.
const TURN_EVENTS_MAX: usize = 256;

/// Turns in a row that may leave a deadline in the past: work in bounded pieces does that, a mistake does it for ever.
const SPINS_MAX: u32 = 1_000;

/// The times of a turn, by the clock of its node.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Of the events.
    events: Time,
    /// Of the end, not before that.
    end: Time,
    /// Whether the clock has jumped since the last turn: before both, or between them if they differ.
    jumped: bool,
}

impl World {
    /// Takes one turn.
    pub(crate) fn turn(&mut self, place: Place) -> Result<(), Broken> {
        let local = self.nodes[&place.node].clock.local(self.queue.now());
        let spurious_timer = self.random.chance(10_000);
        // Now and then a turn takes only some of what arrived, as when the rest comes a moment later.
        let split = self.random.chance(100_000);
        if self.cores[&place].paused || self.interrupt_turn(place) {
            return Ok(());
        }
        let running = self.cores.get_mut(&place).expect("law: turns are for running cores");
        running.turn_due = false;
        let mut taken = running.inbox.len().min(TURN_EVENTS_MAX);
        if split && taken > 1 {
            taken = self.random.between(1, taken as u64) as usize;
        }
        if std::mem::take(&mut running.hears_later) {
            taken = 0;
        }
        let events: Vec<Arrival> = running.inbox.drain(..taken).collect();
        let more = !running.inbox.is_empty();
        let looked_at = running.looked_at.take().unwrap_or(local);
        let times = Times { events: looked_at, end: local, jumped: std::mem::take(&mut running.clock_jumped) };
        self.counts.turns += 1;
        let check = !self.options.outcomes_only;
        if check {
            let incarnation = running.core.incarnation();
            events.iter().for_each(|arrival| self.read_law.takes(self.queue.now(), place, incarnation, &arrival.event));
        }
        let step = catch_unwind(AssertUnwindSafe(|| step_all(running, times, events, spurious_timer, check)));
        let step = step.map_err(|panic| Broken::Stopped { place, message: message_of(&*panic) })?;
        let effects = step.map_err(|event| Broken::NotIgnored { place, event })?;
        if running.spins > SPINS_MAX {
            return Err(Broken::Spinning { place, turns: running.spins });
        }
        self.carry_out(place, effects)?;
        self.corrupt_arrivals.retain(|(at, _)| *at != place || more);
        if more {
            self.schedule_turn(place);
        }
        self.schedule_wake(place);
        Ok(())
    }

    fn carry_out(&mut self, place: Place, mut effects: Effects) -> Result<(), Broken> {
        let now = self.queue.now();
        if let Some(protocol) = &mut self.protocol {
            protocol.append(&mut effects.trace);
        }
        for (_, write) in effects.append.iter().flat_map(|append| &append.writes) {
            self.counts.compactions += u64::from(write.compact.is_some());
            self.counts.snapshots += u64::from(write.compact.is_some_and(|compaction| compaction.reset));
            self.counts.created += u64::from(write.create.is_some());
            self.counts.destroyed += u64::from(write.remove.is_some());
        }
        if let Some(append) = &effects.append {
            let lines = append.writes.iter().map(|(group, write)| (*group, WriteLine::new(write))).collect();
            self.trace.note(now, Happening::Appended(place, append.number, lines));
        }
        self.counts.orders_refused += effects.refused_orders.len() as u64;
        self.counts.parked += effects.parked.len() as u64;
        for (group, entry, _) in &effects.parked {
            self.trace.note(now, Happening::Parked(place, *group, *entry));
        }
        self.check_turn(place, &effects)?;
        if self.phase == Phase::Faults && self.random.chance(self.options.process.crash_in_turn_ppm) {
            return self.crash_in_turn(place, effects);
        }
        self.refusals(place, &effects)?;
        if let Some(append) = effects.append {
            self.append(place, append);
        }
        self.order_of_store(place, effects.store);
        if let Some((number, ledger)) = effects.ledger {
            self.write_ledger(place, number, ledger);
        }
        for (group, fetch) in effects.fetches {
            self.ask_log(place, group, fetch);
        }
        for (to, bytes) in effects.beacons.into_iter().chain(effects.peer_frames) {
            self.send_frame(place, to, bytes);
        }
        // As in the node: when the log fails, frames to peers have left and replies have not.
        self.begin_sync(place)?;
        if self.cores.contains_key(&place) {
            let acknowledged = effects.client_frames.iter().any(|(_, bytes)| acknowledges_a_write(bytes));
            for (connection, bytes) in effects.client_frames {
                self.operator_hears(place, connection, &bytes)?;
                self.send_to_client(connection, bytes);
            }
            if acknowledged {
                self.crash_after_reply(place);
            }
        }
        Ok(())
    }

    /// Shows the turn to the checkers.
    fn check_turn(&mut self, place: Place, effects: &Effects) -> Result<(), Broken> {
        let now = self.queue.now();
        if self.options.outcomes_only {
            return Ok(());
        }
        if let Some(append) = &effects.append {
            self.invariants.appended(place, append)?;
        }
        self.check_leases(place)?;
        let running = &self.cores[&place];
        let touched = running.touched.iter().filter_map(|group| running.core.group(*group));
        for change in self.invariants.observe(place, touched, &self.disks)? {
            if let Change::Committed(group, index) = change
                && !running.core.group(group).is_some_and(|it| self.loss.is_of_before(group, it.replica()))
            {
                self.read_law.committed(now, group, index);
            }
            self.trace.note(
                now,
                match change {
                    Change::Role(group, role, term) => Happening::Role(place, group, role, term),
                    Change::Committed(group, index) => Happening::Committed(place, group, index),
                },
            );
        }
        for (_, bytes) in effects.beacons.iter().chain(&effects.peer_frames) {
            let frame = PeerFrame::decode(bytes.clone()).map_err(|error| Broken::RefusedCorrect {
                place,
                what: format!("made a frame that is none: {error}"),
            })?;
            self.check_quiet(place, &frame)?;
            self.invariants.sent(place, &frame, &self.disks[&place])?;
            self.read_law.sent(place, &frame);
        }
        for (_, bytes) in &effects.client_frames {
            let frame = ReplyFrame::decode(bytes.clone()).map_err(|error| Broken::BadReply(error.to_string()))?;
            let drift_ppm = u64::from(self.options.process.drift_max_ppm);
            let age = |ms: u32| Duration::from_micros(u64::from(ms) * 1_000_000_000 / (1_000_000 - drift_ppm) + 1);
            let applied = |group| running.core.group(group).map(|view| view.applied());
            self.read_law.answered_stale(place, &frame, age, applied)?;
            if !self.options.leases {
                self.read_law.answered(place, &frame)?;
            }
        }
        Ok(())
    }

    /// What a core refuses was changed on its way; everything else here is correct and must be accepted.
    fn refusals(&mut self, place: Place, effects: &Effects) -> Result<(), Broken> {
        if let Some((connection, why)) = effects.close.first() {
            return Err(Broken::RefusedCorrect { place, what: format!("closes {connection}: {why}") });
        }
        for (from, why) in &effects.refused_peers {
            if !self.corrupt_arrivals.contains(&(place, *from)) {
                return Err(Broken::RefusedCorrect { place, what: format!("refuses a frame of {from}: {why}") });
            }
            self.trace.note(self.queue.now(), Happening::RefusedPeer(place, *from, why.clone()));
            self.counts.frames_refused += 1;
            self.break_link(Place { node: *from, core: place.core }, place.node);
        }
        Ok(())
    }

    /// The machine stops half way through the effects: the append happened or not, some of the frames left, and the
    /// disk was doing something, or the process alone is gone.
    fn crash_in_turn(&mut self, place: Place, effects: Effects) -> Result<(), Broken> {
        let frames: Vec<_> = effects.beacons.into_iter().chain(effects.peer_frames).collect();
        let leaving = self.random.between(0, frames.len() as u64) as usize;
        for (to, bytes) in frames.into_iter().take(leaving) {
            self.send_frame(place, to, bytes);
        }
        let leaving = self.random.between(0, effects.client_frames.len() as u64) as usize;
        if self.random.chance(500_000) {
            self.order_of_store(place, effects.store);
        }
        if let Some(append) = effects.append
            && self.random.chance(500_000)
        {
            self.append(place, append);
            if self.random.chance(500_000) {
                return self.lose_power_in_write(place);
            }
        }
        for (connection, bytes) in effects.client_frames.into_iter().take(leaving) {
            self.send_to_client(connection, bytes);
        }
        self.crash_node(place.node);
        Ok(())
    }

    /// Puts the core's deadline on the agenda, if it is earlier than the one there.
    fn schedule_wake(&mut self, place: Place) {
        let Some(running) = self.cores.get_mut(&place) else { return };
        let Some(deadline) = running.core.deadline() else { return };
        let at = self.nodes[&place.node].clock.when(deadline).max(self.queue.now());
        if running.wake_at.is_none_or(|known| at < known) {
            running.wake_at = Some(at);
            self.queue.put(at, Due::Wake(place, self.nodes[&place.node].incarnation));
        }
    }

    /// A deadline came, or one that was replaced by an earlier one.
    pub(crate) fn wake(&mut self, place: Place) {
        let running = self.cores.get_mut(&place).expect("law: wakes are for running cores");
        if running.wake_at == Some(self.queue.now()) {
            running.wake_at = None;
            self.schedule_turn(place);
        }
    }

    /// In the idle phase every group sleeps: beacons are all that is said.
    fn check_quiet(&self, place: Place, frame: &PeerFrame) -> Result<(), Broken> {
        if self.phase != Phase::Idle {
            return Ok(());
        }
        // Who came back from a life that is over never finds rest: nobody of that life answers.
        let is_over = |group, one, other| {
            self.loss.dead.contains(&group)
                || self.loss.is_of_before(group, one)
                || self.loss.is_of_before(group, other)
        };
        let mut snapshots = frame.snapshots.iter();
        if let Some(message) = snapshots.find(|message| !is_over(message.group, message.from, message.to)) {
            let (group, body) = (message.group, &message.body);
            return Err(Broken::Stuck(format!("{group} should be asleep, but {place} sends {body:?}")));
        }
        let mut messages = frame.messages.iter();
        match messages.find(|(group, message)| !is_over(*group, message.from, message.to)) {
            Some((group, message)) => {
                let body = &message.body;
                Err(Broken::Stuck(format!("{group} should be asleep, but {place} sends {body:?} to {}", message.to)))
            }
            _ => Ok(()),
        }
    }
}

/// Steps everything; outside, an event that changed the core and must not.
fn step_all(
    running: &mut RunningCore,
    times: Times,
    events: Vec<Arrival>,
    spurious_timer: bool,
    check: bool,
) -> Result<Effects, String> {
    let mut effects = Effects::default();
    let core = &mut running.core;
    let now = times.events;
    if times.jumped && now == times.end {
        core.step(now, Event::ClockJumped, &mut effects);
    }
    for Arrival { event, ignored } in events {
        if ignored && check {
            // What time alone changes, such as a promise that has ended, is not the event's doing.
            core.step(now, Event::Timer, &mut effects);
            let unchanged = if may_be_answered(core, &event) { all_groups } else { all };
            let (before, refused, what) = (unchanged(core), effects.refused_peers.len(), format!("{event:?}"));
            core.step(now, event, &mut effects);
            if before != unchanged(core) || effects.refused_peers.len() > refused {
                return Err(what);
            }
            continue;
        }
        core.step(now, event, &mut effects);
    }
    if spurious_timer || core.deadline().is_some_and(|deadline| deadline <= now) {
        core.step(now, Event::Timer, &mut effects);
    }
    // Law 2: a jump between the two looks at the clock comes before whatever rests on the second one.
    let now = times.end;
    if times.jumped && times.events < now {
        core.step(now, Event::ClockJumped, &mut effects);
    }
    core.step(now, Event::EndTurn, &mut effects);
    if check {
        running.touched = core.take_touched();
        running.touched.iter().filter_map(|group| core.group(*group)).for_each(|view| view.check());
    }
    let late = core.deadline().is_some_and(|deadline| deadline <= now);
    running.spins = if late { running.spins + 1 } else { 0 };
    Ok(effects)
}

/// All that a core is.
fn all(core: &Core) -> String {
    format!("{core:?}")
}

/// All that its groups are, and not what it is about to say.
fn all_groups(core: &Core) -> String {
    format!("{:?}", core.groups().collect::<Vec<_>>())
}

/// Whether the core may answer, which then is all that may change: a replica that was removed is told so, and for one that is
/// to be here and is not, a snapshot is asked for.
fn may_be_answered(core: &Core, event: &Event) -> bool {
    let Event::PeerFrame { bytes, .. } = event else { return false };
    let messages = PeerFrame::decode(bytes.clone()).map(|frame| frame.messages).unwrap_or_default();
    messages.iter().any(|(group, message)| {
        let view = core.group(*group);
        view.is_none_or(|view| view.configuration().has_removed(message.from))
    })
}

fn acknowledges_a_write(frame: &Bytes) -> bool {
    let frame = ReplyFrame::decode(frame.clone()).map(|frame| frame.replies).unwrap_or_default();
    frame.iter().any(|reply| matches!(reply.result, Ok(Outcome::Written(_))))
}

pub(crate) fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_string()
}
