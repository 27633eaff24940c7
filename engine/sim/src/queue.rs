//! The agenda of a run: what happens when.
//!
//! Ordered by (time, sequence of scheduling). The sequence breaks ties, so two things due at one moment happen in
//! the order in which they were put down, on every run of a seed.

use std::collections::BTreeMap;

use pontoon_types::Time;

/// Things to happen, by time.
#[derive(Debug)]
pub struct Queue<T> {
    now: Time,
    sequence: u64,
    agenda: BTreeMap<(Time, u64), T>,
}

impl<T> Queue<T> {
    /// An empty agenda at time zero.
    pub fn new() -> Queue<T> {
        Queue { now: Time(0), sequence: 0, agenda: BTreeMap::new() }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Puts `what` down for `at`, or for now when `at` is past.
    pub fn put(&mut self, at: Time, what: T) {
        self.sequence += 1;
        self.agenda.insert((at.max(self.now), self.sequence), what);
    }

    /// Moves everything of a kind that is due after `at` to that time, in its order.
    pub fn bring_forward(&mut self, at: Time, which: impl Fn(&T) -> bool) {
        let late = self.agenda.split_off(&(at, u64::MAX));
        for ((due, sequence), what) in late {
            if which(&what) {
                self.put(at, what);
            } else {
                self.agenda.insert((due, sequence), what);
            }
        }
    }

    /// Takes everything of a kind off the agenda.
    pub fn remove(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let (gone, kept) = std::mem::take(&mut self.agenda).into_iter().partition(|(_, what)| which(what));
        self.agenda = kept;
        let gone: BTreeMap<(Time, u64), T> = gone;
        gone.into_values().collect()
    }

    /// The next thing, if it is due before `end`; time moves to it. Otherwise time moves to `end`.
    pub fn pop_before(&mut self, end: Time) -> Option<T> {
        let due = self.agenda.first_key_value().map(|((at, _), _)| *at).filter(|at| *at < end);
        match due.and_then(|_| self.agenda.pop_first()) {
            Some(((at, _), what)) => {
                assert!(at >= self.now, "virtual time never goes back");
                self.now = at;
                Some(what)
            }
            None => {
                self.now = self.now.max(end);
                None
            }
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue::new()
    }
}
