//! The simulator's only source of chance.
//!
//! A SplitMix64 sequence: small, fast, and the same on every machine, because it uses integers only. Floating point
//! is avoided on purpose: logarithms differ between maths libraries, and one seed must mean one run everywhere.
//! Separate parts of a run draw from separate forks, so that a change in how often one part draws does not shift
//! what all others see more than it must.

use std::time::Duration;

/// A deterministic sequence of numbers from a seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Random {
        // The first draw is thrown away so that small seeds do not start alike.
        let mut random = Random { state: seed ^ 0x9e6c_63d0_876a_3f6b };
        random.draw();
        random
    }

    /// A sequence of its own for the part named by `label`.
    pub fn fork(&mut self, label: u64) -> Random {
        let seed = self.draw();
        Random::new(seed ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a draw below zero has no answer");
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[low, high]`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a draw needs its bounds in order");
        low + self.below(high - low + 1)
    }

    /// True with a chance of `ppm` in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }

    /// A span in `[low, high]`.
    pub fn span(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.between(low.as_nanos() as u64, high.as_nanos() as u64))
    }

    /// A span whose mean is `mean`: most are near it, one in sixteen is up to eight times as long, as delays of
    /// networks and disks are.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let mean_ns = (mean.as_nanos() as u64).max(1);
        if self.below(16) == 0 {
            return Duration::from_nanos(self.between(mean_ns, mean_ns * 8));
        }
        Duration::from_nanos(self.between(mean_ns / 4, mean_ns + mean_ns / 4))
    }

    /// A span until the next of some events that come once per `mean`.
    pub fn until_next(&mut self, mean: Duration) -> Duration {
        Duration::from_nanos(self.between(1, (mean.as_nanos() as u64).saturating_mul(2).max(1)))
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// The position of one weight, drawn in proportion to the weights.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.below(total);
        for (position, weight) in weights.iter().enumerate() {
            if left < u64::from(*weight) {
                return position;
            }
            left -= u64::from(*weight);
        }
        unreachable!("a draw below the total falls on one of the weights")
    }
}
