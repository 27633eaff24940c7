//! How long the sync in flight takes.
//!
//! A sync that takes longer than [`STALL_AFTER`] is a stall: the core is told, gives up what others can lead better, and
//! is told again when the sync has ended after all. Nothing else changes, since what waits for the disk waits inside the
//! core anyway. A sync that has not ended after [`GIVE_UP_AFTER`] ends the core: a node that does nothing for so long helps
//! nobody by living, and a restart reads what the disk really has.
//!
//! A write is counted with its sync, since it goes to the page cache just before. A file system whose journal waits for
//! the disk may stop the core in that write; then nothing here runs, and [`crate::watch`] gives the core up. A log that is
//! full, or waits for its next segment, is no stall: nothing is in flight then, and the segments have limits of their own.

use std::time::Duration;

use pontoon_multiraft::{Event, STALL_AFTER};
use pontoon_types::Time;

use super::CoreLoop;
use crate::driver::Driver;
use crate::error::CoreFailure;

/// A sync that takes longer than this never ends, as far as this core is concerned. Longer than a device's own retries
/// usually take, shorter than the patience of an operator.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The age of the sync in flight, and what was made of it.
///
/// Invariant: `told` only while a sync is in flight.
#[derive(Debug, Default)]
pub(super) struct StallWatch {
    /// When the sync in flight was begun.
    began: Option<Time>,
    /// The core was told.
    told: bool,
}

impl StallWatch {
    /// A sync was begun.
    pub(super) fn began(&mut self, now: Time) {
        *self = StallWatch { began: Some(now), told: false };
    }

    /// The sync has ended. Says how long it took if it was a stall that the core was told of.
    pub(super) fn ended(&mut self, now: Time) -> Option<Duration> {
        let StallWatch { began, told } = std::mem::take(self);
        began.filter(|_| told).map(|began| now.since(began))
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.began.map(|began| began + if self.told { GIVE_UP_AFTER } else { STALL_AFTER })
    }

    /// Whether the core has to be told now. An error when the disk is given up.
    fn look(&mut self, now: Time) -> Result<bool, CoreFailure> {
        let Some(age) = self.began.map(|began| now.since(began)) else { return Ok(false) };
        if age >= GIVE_UP_AFTER {
            return Err(CoreFailure::Stalled { after: age });
        }
        let news = age >= STALL_AFTER && !self.told;
        self.told |= news;
        Ok(news)
    }
}

impl<D: Driver> CoreLoop<D> {
    /// Looks at the sync in flight, after its end was taken in if it has ended.
    pub(super) fn watch_stall(&mut self, now: Time) -> Result<(), CoreFailure> {
        if self.sync.stall.look(now)? {
            tracing::warn!("the disk stalls: a sync has not ended after {} ms", STALL_AFTER.as_millis());
            self.step(now, Event::Stalled(true));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_stall_is_told_once_at_its_time_and_its_end_too() {
        let mut watch = StallWatch::default();
        assert_eq!(watch.deadline(), None);
        assert!(!watch.look(ms(1_000_000)).unwrap());
        watch.began(ms(1_000));
        assert_eq!(watch.deadline(), Some(ms(1_100)));
        assert!(!watch.look(ms(1_099)).unwrap());
        assert!(watch.look(ms(1_100)).unwrap());
        assert!(!watch.look(ms(1_200)).unwrap());
        assert_eq!(watch.deadline(), Some(ms(31_000)));
        assert_eq!(watch.ended(ms(1_300)), Some(Duration::from_millis(300)));
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn a_sync_that_ends_in_time_is_not_spoken_of() {
        let mut watch = StallWatch::default();
        watch.began(ms(1_000));
        assert!(!watch.look(ms(1_050)).unwrap());
        assert_eq!(watch.ended(ms(1_099)), None);
        // Not even if its end comes late but is seen before its age.
        watch.began(ms(2_000));
        assert_eq!(watch.ended(ms(2_500)), None);
        assert!(!watch.look(ms(2_500)).unwrap());
    }

    #[test]
    fn a_sync_that_never_ends_ends_the_core() {
        let mut watch = StallWatch::default();
        watch.began(ms(1_000));
        assert!(watch.look(ms(30_999)).is_ok());
        let failure = watch.look(ms(31_000)).unwrap_err();
        assert!(matches!(failure, CoreFailure::Stalled { .. }));
        assert!(failure.to_string().contains("30 s"), "{failure}");
    }
}
