//! Whether the clock runs as another one does (law 2).
//!
//! Leases and the ages of reads are counted by CLOCK_BOOTTIME. CLOCK_REALTIME is kept right by others, so the two must
//! advance alike. When they do not, one of them has jumped or runs wrong, and it does not matter which: the core drops what
//! it has counted. A clock that an operator sets costs the leases of one moment. What slows both clocks alike, such as a
//! machine that is paused whole, is not noticed.

use std::time::Duration;

use pontoon_multiraft::Event;
use pontoon_types::Time;
use rustix::time::{ClockId, clock_gettime};

use super::CoreLoop;
use crate::driver::Driver;

/// The two clocks are compared over this long.
const SPAN: Duration = Duration::from_secs(1);

/// How much they may differ over that, the time between the two looks included. Twice as much, on both sides of a new base, is
/// still less than the one percent that a clock may run wrong over a lease.
const DIFFERENCE_MAX: Duration = Duration::from_millis(4);

/// Where both clocks stood.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    base: Option<(Time, Time)>,
}

impl ClockWatch {
    /// Whether the clocks have run apart since the base.
    fn has_diverged(&mut self, boot: Time, real: Time) -> bool {
        let (boot_base, real_base) = *self.base.get_or_insert((boot, real));
        let (passed, other) = (boot.since(boot_base), real.since(real_base));
        let diverged = passed.abs_diff(other) > DIFFERENCE_MAX || real < real_base;
        if diverged || passed >= SPAN {
            self.base = Some((boot, real));
        }
        diverged
    }
}

impl<D: Driver> CoreLoop<D> {
    /// Compares the clocks, whenever a turn has looked at its own and before it does anything at that time: by the end of the
    /// turn a promise would have ended too early, or a lease been used too late. Neither look is a system call.
    pub(super) fn watch_clock(&mut self, boot: Time) {
        let Some(watch) = &mut self.clock else { return };
        let real = clock_gettime(ClockId::Realtime);
        if watch.has_diverged(boot, Time(real.tv_sec as u64 * 1_000_000_000 + real.tv_nsec as u64)) {
            tracing::warn!("the clocks of this machine have run apart: what was counted by them is dropped");
            self.step(boot, Event::ClockJumped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn clocks_that_run_alike_are_believed_and_others_are_not() {
        let mut watch = ClockWatch::default();
        assert!(!watch.has_diverged(at(100), at(5_000_000)));
        assert!(!watch.has_diverged(at(900), at(5_000_803)));
        assert!(watch.has_diverged(at(1_000), at(5_000_920)), "too fast");
        assert!(!watch.has_diverged(at(1_100), at(5_001_020)), "a new base");
        assert!(watch.has_diverged(at(1_200), at(5_001_019)), "set back");
        assert!(watch.has_diverged(at(1_300), at(9_000_000)), "set forward");
        assert!(watch.has_diverged(at(90_000), at(9_000_100)), "only the time since boot went on");
    }
}
