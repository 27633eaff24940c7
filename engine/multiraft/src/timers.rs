//! Deadlines of replicas, in one queue for a core.
//!
//! A replica is armed at its earliest deadline. When the deadline moves later the armed time stays, and the replica is
//! looked at once too early; so a busy group costs no queue operation for each write, and a sleeping one costs none.
//! The queue may hold outdated times of a replica; they are skipped, since a replica remembers its armed time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pontoon_types::Time;

use crate::replica::Slot;

/// The room for deadlines that an empty queue keeps, so that a busy core does not ask for it again and again.
const KEPT: usize = 1024;

/// Deadlines of all replicas of a core.
///
/// Invariant: where `armed[slot]` is `Some(t)` the queue holds `(t, slot)`.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BinaryHeap<Reverse<(Time, Slot)>>,
    armed: Vec<Option<Time>>,
}

impl Timers {
    /// No deadline, for `replicas` replicas.
    pub(crate) fn new(replicas: usize) -> Timers {
        Timers { queue: BinaryHeap::new(), armed: vec![None; replicas] }
    }

    /// Makes room for so many slots.
    pub(crate) fn grow(&mut self, slots: usize) {
        self.armed.resize(slots, None);
    }

    /// The slot is not looked at any more.
    pub(crate) fn disarm(&mut self, slot: Slot) {
        self.armed[slot] = None;
    }

    /// Makes sure that `slot` is looked at no later than `deadline`.
    pub(crate) fn arm(&mut self, slot: Slot, deadline: Option<Time>) {
        let Some(deadline) = deadline else { return };
        if self.armed[slot].is_none_or(|armed| deadline < armed) {
            self.armed[slot] = Some(deadline);
            self.queue.push(Reverse((deadline, slot)));
        }
    }

    /// The earliest time at which a replica is to be looked at.
    pub(crate) fn next(&mut self) -> Option<Time> {
        while let Some(Reverse((time, slot))) = self.queue.peek().copied() {
            if self.armed[slot] == Some(time) {
                return Some(time);
            }
            self.queue.pop();
        }
        if self.queue.capacity() > KEPT {
            // Elections of many groups had made it long, and they are over.
            self.queue = BinaryHeap::new();
        }
        None
    }

    /// Takes out one replica whose time has come.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Slot> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, slot)) = self.queue.pop()?;
        self.armed[slot] = None;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_long_gives_its_memory_back() {
        let mut timers = Timers::new(10 * KEPT);
        (0..10 * KEPT).for_each(|slot| timers.arm(slot, Some(Time(1))));
        while timers.expire(Time(1)).is_some() {}
        assert_eq!(timers.next(), None);
        assert!(timers.queue.capacity() <= KEPT);
    }
}
