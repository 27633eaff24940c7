//! When to start a sync that could start now.
//!
//! One sync at a time, and while it runs the next group gathers: that alone is group commit. Starting the next sync
//! the moment the last one ends is right for a lone writer and wasteful for many, whose requests are just then on
//! their way back. So the sync is held, but never for longer than a sync takes, and only when the last group shows
//! that there is somebody to wait for:
//!
//! - the last group had at most two entries: sync at once;
//! - else: when as much has gathered as the last group had, or after min(`hold_max`, one smoothed sync), whichever is
//!   first.

use std::time::Duration;

use pontoon_types::Time;

/// A last group of so few entries means that there is nobody to wait for.
const LONE_ENTRIES: usize = 2;

/// What the decision needs to know from the past.
#[derive(Debug)]
pub struct Hold {
    hold_max: Duration,
    smoothed_sync: Duration,
    started: Time,
    /// Since when the gathered group could have been synced.
    waiting_since: Option<Time>,
}

/// What to do with the gathered group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Sync now.
    Start,
    /// Look again at this time, or when more has gathered.
    Until(Time),
}

impl Hold {
    /// A hold that lasts at most `hold_max`; zero never holds.
    pub fn new(hold_max: Duration) -> Hold {
        Hold { hold_max, smoothed_sync: hold_max, started: Time(0), waiting_since: None }
    }

    /// Decides, given that something has gathered and no sync is in flight.
    pub fn decide(&mut self, now: Time, gathered_entries: usize, last_group_entries: usize) -> Decision {
        let since = *self.waiting_since.get_or_insert(now);
        let until = since + self.hold_max.min(self.smoothed_sync);
        if last_group_entries <= LONE_ENTRIES || gathered_entries >= last_group_entries || now >= until {
            Decision::Start
        } else {
            Decision::Until(until)
        }
    }

    /// A sync was started.
    pub fn started(&mut self, now: Time) {
        self.started = now;
        self.waiting_since = None;
    }

    /// The sync ended. The mean follows with an eighth of each new value, as round-trip times are smoothed.
    pub fn finished(&mut self, now: Time) {
        let took = now.since(self.started);
        self.smoothed_sync = (self.smoothed_sync * 7 + took) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD_MAX: Duration = Duration::from_micros(200);

    #[test]
    fn a_lone_writer_is_not_held() {
        let mut hold = Hold::new(HOLD_MAX);
        assert_eq!(hold.decide(Time(1_000), 1, 0), Decision::Start);
        assert_eq!(hold.decide(Time(1_000), 1, 2), Decision::Start);
    }

    #[test]
    fn many_writers_are_held_until_as_many_are_back_or_the_time_is_over() {
        let mut hold = Hold::new(HOLD_MAX);
        assert_eq!(hold.decide(Time(1_000), 3, 64), Decision::Until(Time(201_000)));
        assert_eq!(hold.decide(Time(50_000), 63, 64), Decision::Until(Time(201_000)));
        assert_eq!(hold.decide(Time(60_000), 64, 64), Decision::Start);
        assert_eq!(hold.decide(Time(201_000), 10, 64), Decision::Start);
    }

    #[test]
    fn the_hold_is_never_longer_than_a_sync() {
        let mut hold = Hold::new(HOLD_MAX);
        for sync in 0..100u64 {
            hold.started(Time(sync * 1_000_000));
            hold.finished(Time(sync * 1_000_000 + 40_000));
        }
        let Decision::Until(until) = hold.decide(Time(0), 1, 64) else { panic!("64 writers are waited for") };
        assert!((40_000..42_000).contains(&until.0), "held until {until}");
    }

    #[test]
    fn a_hold_of_zero_never_holds() {
        assert_eq!(Hold::new(Duration::ZERO).decide(Time(5), 1, 64), Decision::Start);
    }
}
