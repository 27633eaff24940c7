//! Cores that do not come back from a turn.
//!
//! A core watches its disk by itself, as long as its thread runs ([`crate::core_loop`]). It does not run while the kernel
//! holds it: a file system that is frozen, or whose journal waits for a device that does not answer, stops a thread in the
//! middle of a write. So one thread of the node looks at the [`Pulse`] of each core every second. A core that is in the same
//! turn at `LOOKS_MAX` looks in a row is given up: the node hears of it as of any failed core, and nothing is handed to
//! it any more. Looks are counted and not time, so that a process that was stopped and goes on gives nobody up.
//!
//! A thread in the kernel cannot be ended. If it comes back it finds its inbox closed, and ends with its next turn; the
//! end of the process comes first where somebody asked for it. Left out: the start and the clean end of a core, which
//! may take as long as they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::core_loop::GIVE_UP_AFTER;

/// Between two looks at all cores of a node.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How many looks in a row may find a core in the same turn.
const LOOKS_MAX: u64 = GIVE_UP_AFTER.as_secs() / LOOK_INTERVAL.as_secs();

/// Whether a core is in a turn, and in which: odd in a turn, even between two.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// The core has something to do.
    pub fn wakes(&self) {
        self.set(|pulse| pulse | 1);
    }

    /// The core waits for something to do.
    pub fn rests(&self) {
        self.set(|pulse| pulse + (pulse & 1));
    }

    /// Only the core's thread sets it, and what it guards is a count of seconds: no order is needed.
    fn set(&self, next: impl FnOnce(u64) -> u64) {
        self.0.store(next(self.0.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was seen of one core.
#[derive(Debug, Default)]
struct Seen {
    pulse: u64,
    /// How many looks have found it so, after the first.
    times: u64,
}

impl Seen {
    /// Takes a look in. True at the one look that gives the core up.
    fn look(&mut self, pulse: u64) -> bool {
        if pulse.is_multiple_of(2) || pulse != self.pulse {
            *self = Seen { pulse, times: 0 };
            return false;
        }
        self.times += 1;
        self.times == LOOKS_MAX
    }
}

/// The thread that looks. It ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    _end: Sender<()>,
}

impl Watch {
    /// Looks at all cores from now on, by their numbers, and says which does not come back.
    pub fn start(
        name: String,
        pulses: Vec<Arc<Pulse>>,
        give_up: impl Fn(u16) + Send + 'static,
    ) -> std::io::Result<Watch> {
        let (end, ended) = mpsc::channel::<()>();
        std::thread::Builder::new().name(name).spawn(move || {
            let mut seen: Vec<Seen> = pulses.iter().map(|_| Seen::default()).collect();
            while ended.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for (core, (pulse, seen)) in (0..).zip(pulses.iter().zip(&mut seen)) {
                    if seen.look(pulse.get()) {
                        give_up(core);
                    }
                }
            }
        })?;
        Ok(Watch { _end: end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_given_up_once_when_it_stays_in_one_turn() {
        let (pulse, mut seen) = (Pulse::default(), Seen::default());
        pulse.wakes();
        let given_up: Vec<u64> = (0..100).filter(|_| seen.look(pulse.get())).collect();
        assert_eq!(given_up, [LOOKS_MAX]);
        assert_eq!(LOOKS_MAX, 30);
    }

    #[test]
    fn a_core_that_sleeps_or_goes_on_is_not() {
        let (pulse, mut seen) = (Pulse::default(), Seen::default());
        for _ in 0..100 {
            assert!(!seen.look(pulse.get()), "asleep");
        }
        for _ in 0..100 {
            pulse.wakes();
            assert!(!seen.look(pulse.get()), "another turn at each look");
            pulse.rests();
            // A loop may find something to do at once.
            pulse.rests();
        }
        pulse.wakes();
        for _ in 0..LOOKS_MAX {
            assert!(!seen.look(pulse.get()), "not yet");
        }
        pulse.rests();
        assert!(!seen.look(pulse.get()), "it came back in time");
    }
}
