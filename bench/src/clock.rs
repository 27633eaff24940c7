//! The clocks of the bench: one for time, two for processor time.

use std::time::Duration;

use pontoon_types::Time;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME, which is also the clock of the client.
pub fn now() -> Time {
    Time(read(ClockId::Boottime).as_nanos() as u64)
}

/// Processor time of the calling thread.
pub fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Processor time of the whole process.
pub fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
