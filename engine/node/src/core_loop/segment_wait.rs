//! How soon a sync is tried again that found its segment unprepared.
//!
//! A segment is usually ready within milliseconds. On a full disk it comes when somebody makes room, which may be never,
//! so the pause doubles. Turns that come for other reasons try as well and do not lengthen it.

use std::time::Duration;

use pontoon_types::Time;

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The longest pause, so that room that was made is used soon.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The pauses since a segment was first missed.
#[derive(Debug, Default)]
pub(super) struct SegmentWait {
    /// The current pause and its end.
    pause: Option<(Duration, Time)>,
}

impl SegmentWait {
    /// When to try again, after an attempt that was in vain.
    pub(super) fn next(&mut self, now: Time) -> Time {
        let pause = match self.pause {
            None => PAUSE_MIN,
            Some((_, until)) if now < until => return until,
            Some((pause, _)) => (pause * 2).min(PAUSE_MAX),
        };
        let until = now + pause;
        self.pause = Some((pause, until));
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_stays_full_is_asked_ever_more_seldom() {
        let mut wait = SegmentWait::default();
        let mut now = Time(0);
        let mut pauses_ms = Vec::new();
        for _ in 0..10 {
            let until = wait.next(now);
            pauses_ms.push(until.since(now).as_millis());
            now = until;
        }
        assert_eq!(pauses_ms, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);
    }

    #[test]
    fn turns_that_come_for_other_reasons_do_not_lengthen_the_pause() {
        let mut wait = SegmentWait::default();
        let until = wait.next(Time(1_000));
        for now in 1_000..2_000 {
            assert_eq!(wait.next(Time(now)), until);
        }
    }
}
