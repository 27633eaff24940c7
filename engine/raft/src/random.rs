//! Random numbers from a seed: splitmix64. Only election timeouts are drawn from it, so quality matters little and
//! repeatability matters much.

use std::time::Duration;

/// A stream of numbers that is the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A span in `[min, max)`. The remainder's bias is far below anything an election could notice.
    pub(crate) fn span(&mut self, min: Duration, max: Duration) -> Duration {
        let width_ns = (max - min).as_nanos() as u64;
        min + Duration::from_nanos(self.next() % width_ns.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference implementation.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_span_stays_inside_and_fills_its_interval() {
        let (min, max) = (Duration::from_nanos(10), Duration::from_nanos(14));
        let mut random = Random::new(7);
        let mut seen: Vec<u128> = (0..200).map(|_| random.span(min, max).as_nanos()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, vec![10, 11, 12, 13]);
    }
}
