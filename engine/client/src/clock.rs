//! The client's clock. Deadlines go on while the machine sleeps, so it is CLOCK_BOOTTIME, as everywhere in Pontoon.

use pontoon_types::Time;

/// The time now.
pub(crate) fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Time(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
