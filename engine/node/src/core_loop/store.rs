//! The store beside the log: orders go out, answers come in through the inbox, and the groups hear when their old entries
//! keep the log from giving segments back.

use std::time::Duration;

use pontoon_multiraft::Event;
use pontoon_types::limits::LOG_PRESSURE_GROUPS_MAX;
use pontoon_types::{GroupId, LogRoom, StoreAnswer, StoreOrder, Time};

use super::CoreLoop;
use crate::driver::Driver;
use crate::store::door::StoreDoor;

/// How soon orders are handed on that found the queue of their thread full.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(1);

/// How often the groups hear that they hold the log.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);

/// The same when the log is full: no more often than a small checkpoint takes to be written.
const FULL_PRESSURE_INTERVAL: Duration = Duration::from_millis(10);

/// The part of the core's time that looking for such groups may take, one in so many: a full log looks at all of its groups.
const PRESSURE_SHARE: u32 = 20;

/// A core's side of the store.
pub(super) struct StoreSide {
    door: StoreDoor,
    /// When to try again to hand orders on.
    look_at: Option<Time>,
    /// When the groups that hold the log were looked for last, and how long that took.
    pressed_at: Time,
    pressing_took: Duration,
}

impl StoreSide {
    pub(super) fn new(door: StoreDoor) -> StoreSide {
        StoreSide { door, look_at: None, pressed_at: Time(0), pressing_took: Duration::ZERO }
    }

    /// When to try again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.look_at
    }
}

impl<D: Driver> CoreLoop<D> {
    /// Hands on what the groups have ordered in this turn, and what still waits.
    pub(super) fn hand_on_orders(&mut self, now: Time) {
        for order in &self.effects.store {
            if let StoreOrder::Chunk { bytes, .. } = order {
                self.counters.checkpoint_bytes += bytes.len() as u64;
            }
        }
        self.store.door.order(&mut self.effects.store);
        let refused = self.store.door.hand_on();
        self.store.look_at = self.store.door.is_waiting().then(|| now + FULL_QUEUE_WAIT);
        for answer in refused {
            self.store_answered(now, answer);
        }
    }

    /// Takes in what the store says.
    pub(super) fn store_answered(&mut self, now: Time, answer: StoreAnswer) {
        match &answer {
            StoreAnswer::Stored { .. } => self.counters.checkpoints += 1,
            StoreAnswer::Failed { .. } => self.counters.checkpoint_failures += 1,
            StoreAnswer::Taken { .. } | StoreAnswer::Read { .. } => {}
        }
        self.step(now, Event::Store(answer));
    }

    /// Tells the groups that hold old segments, at their pace.
    pub(super) fn hand_on_pressure(&mut self, now: Time) {
        let is_full = self.log_room.is_some_and(LogRoom::is_none);
        if now < self.store.pressed_at + pressure_interval(is_full, self.store.pressing_took) {
            return;
        }
        let began = self.driver.now();
        let groups: Vec<GroupId> =
            self.log.compact_hints().into_iter().map(|hint| hint.group).take(LOG_PRESSURE_GROUPS_MAX).collect();
        (self.store.pressed_at, self.store.pressing_took) = (now, self.driver.now().since(began));
        if !groups.is_empty() {
            self.step(now, Event::LogPressure(groups));
        }
    }
}

/// When to look for the groups that hold the log again, after it took so long.
fn pressure_interval(is_full: bool, took: Duration) -> Duration {
    let interval = if is_full { FULL_PRESSURE_INTERVAL } else { PRESSURE_INTERVAL };
    interval.max(took * PRESSURE_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_of_many_groups_leaves_its_core_the_time_to_make_it_small() {
        let quick = Duration::from_micros(10);
        assert_eq!(pressure_interval(true, quick), FULL_PRESSURE_INTERVAL);
        assert_eq!(pressure_interval(false, quick), PRESSURE_INTERVAL);
        assert_eq!(pressure_interval(true, Duration::from_millis(30)), Duration::from_millis(600));
    }
}
