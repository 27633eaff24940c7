//! Clocks of nodes, and how they jump.
//!
//! A node's clock has an offset and a rate of its own. It jumps in one of two ways. It leaps forwards, as when somebody tells
//! a machine how late it is. Or it stands still together with its machine, as one that is suspended: time goes on, the
//! clock does not, so whatever it was to end in time ends later. It never goes back.
//!
//! Law 2: a node compares its clock with another one whenever it looks at it, so a core hears of a jump before it uses a
//! time from after it. A turn looks twice, before its events and before its end, and a pause may lie between the two: then the
//! events are stepped at a time from before the pause, although they arrived during it.
//!
//! Left out: jumps that nobody notices, since no lease survives them. What two clocks may differ by unnoticed is a part of
//! the margin, as drift is.

use std::time::Duration;

use pontoon_types::{Incarnation, NodeId, Time};

use crate::random::Random;
use crate::trace::{Happening, Place};
use crate::world::{Due, World};

/// A node's clock: `local = offset + time · (1 + drift)`. Nodes never compare clocks, so offsets differ widely.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: i64,
    drift_ppm: i64,
    /// What it shows while it stands still.
    stands_at: Option<Time>,
}

impl Clock {
    /// A clock that runs wrong by at most `drift_max_ppm`.
    pub fn draw(random: &mut Random, drift_max_ppm: u32) -> Clock {
        let drift = random.below(2 * u64::from(drift_max_ppm) + 1) as i64 - i64::from(drift_max_ppm);
        Clock { offset_ns: random.below(1 << 50) as i64, drift_ppm: drift, stands_at: None }
    }

    /// What the clock shows at a virtual time.
    pub fn local(&self, time: Time) -> Time {
        self.stands_at.unwrap_or_else(|| self.running(time))
    }

    /// What a clock shows that runs.
    fn running(&self, time: Time) -> Time {
        let drift = i128::from(time.0) * i128::from(self.drift_ppm) / 1_000_000;
        Time((i128::from(self.offset_ns) + i128::from(time.0) + drift) as u64)
    }

    /// A virtual time at which the clock, if nothing happens to it, shows `local` or a little more.
    pub fn when(&self, local: Time) -> Time {
        let elapsed = i128::from(local.0) - i128::from(self.offset_ns);
        let time = elapsed * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        // The divisions round by less than a microsecond; a timer that fires that much later is as good.
        Time(time.max(0) as u64) + Duration::from_micros(1)
    }

    fn leap(&mut self, by: Duration) {
        self.offset_ns += by.as_nanos() as i64;
    }

    fn stand(&mut self, now: Time) {
        self.stands_at = Some(self.local(now));
    }

    /// It goes on from where it stands.
    fn go_on(&mut self, now: Time) {
        if let Some(stood_at) = self.stands_at.take() {
            self.offset_ns -= self.running(now).since(stood_at).as_nanos() as i64;
        }
    }

    /// Whether it stands still.
    pub fn stands(&self) -> bool {
        self.stands_at.is_some()
    }
}

impl World {
    /// A node's clock jumps, that of a leader more often than others.
    pub(crate) fn inject_clock_jump(&mut self) {
        let id = self.draw_leader_or_any();
        let election = self.options.core.election_timeout;
        let length = self.random.span(election / 10, election * 3);
        let leaps = self.random.chance(500_000);
        if !self.nodes[&id].alive || self.nodes[&id].clock.stands() {
            return;
        }
        self.counts.clock_jumps += 1;
        if leaps { self.clock_leaps(id, length) } else { self.machine_stands(id, length) }
    }

    fn clock_leaps(&mut self, id: NodeId, by: Duration) {
        self.trace.note(self.queue.now(), Happening::ClockLeapt(id, by));
        self.nodes.get_mut(&id).expect("law: a node whose clock jumps exists").clock.leap(by);
        for place in self.places(id) {
            self.clock_jumped(place);
            self.schedule_turn(place);
        }
    }

    /// A machine is suspended with all its cores.
    fn machine_stands(&mut self, id: NodeId, length: Duration) {
        let now = self.queue.now();
        self.trace.note(now, Happening::MachineStands(id, length));
        for place in self.places(id) {
            self.look_at_clock(place);
            self.clock_jumped(place);
            if let Some(running) = self.cores.get_mut(&place) {
                running.paused = true;
            }
        }
        let node = self.nodes.get_mut(&id).expect("law: a node whose clock jumps exists");
        node.clock.stand(now);
        self.queue.put(now + length, Due::MachineGoesOn(id, node.incarnation));
    }

    /// A suspended machine goes on, if it is still in this incarnation. What was sent to it comes a moment later.
    pub(crate) fn machine_goes_on(&mut self, id: NodeId, incarnation: Incarnation) {
        let now = self.queue.now();
        let node = self.nodes.get_mut(&id).expect("law: a node whose clock jumps exists");
        if node.incarnation != incarnation || !node.clock.stands() {
            return;
        }
        node.clock.go_on(now);
        for place in self.places(id) {
            if let Some(running) = self.cores.get_mut(&place) {
                running.hears_later = true;
            }
            self.resume_core(place);
        }
    }

    /// A core is to hear of a jump as soon as it looks at its clock.
    fn clock_jumped(&mut self, place: Place) {
        if let Some(running) = self.cores.get_mut(&place) {
            running.clock_jumped = true;
        }
    }

    /// A core is about to be paused. Now and then that is right after it has looked at the clock for the events of a turn.
    pub(crate) fn look_at_clock(&mut self, place: Place) {
        let local = self.nodes[&place.node].clock.local(self.queue.now());
        let Some(running) = self.cores.get_mut(&place) else { return };
        // Whoever looks hears of a jump first, which this look would be too late for.
        if running.paused || running.clock_jumped {
            return;
        }
        if self.random.chance(self.options.process.late_events_ppm) {
            self.counts.late_events += 1;
            running.looked_at = Some(local);
        }
    }
}
