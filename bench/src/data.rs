//! Keys and values. Both are computed from numbers, so that verification remembers numbers and not bytes.
//!
//! A key is 16 bytes: a mixed prefix, which spreads keys evenly over the byte space that ranges are cut from, and its
//! number. A value begins with the identity of its write; the rest is a stream that depends on the seed, the key and
//! the identity, so a value under a wrong key, or with a single wrong byte, is recognised.

use bytes::Bytes;

/// The shortest value: it holds the identity of its write.
pub const VALUE_BYTES_MIN: usize = 8;

/// The number of a key, from zero.
pub type KeyNumber = u32;

/// The identity of one write, unique within a run: the client that made it and that client's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

impl WriteId {
    /// Bits for the count of one client's operations.
    const COUNT_BITS: u32 = 40;

    /// The most clients, so that identities stay unique.
    pub const CLIENTS_MAX: u32 = 1 << 16;

    /// The `count`-th operation of `client`.
    pub fn new(client: u32, count: u64) -> WriteId {
        assert!(count < 1 << Self::COUNT_BITS, "one client makes fewer than 2^40 operations");
        WriteId(u64::from(client) << Self::COUNT_BITS | count)
    }
}

/// The bytes of a key.
pub fn key(number: KeyNumber) -> Bytes {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(u64::from(number)).to_be_bytes());
    bytes[8..].copy_from_slice(&u64::from(number).to_be_bytes());
    Bytes::copy_from_slice(&bytes)
}

/// The bytes of a value.
pub fn value(seed: u64, number: KeyNumber, write: WriteId, value_bytes: usize) -> Bytes {
    let mut bytes = vec![0; value_bytes];
    let mut stream = Dice::new(mix(seed ^ mix(u64::from(number) << 32 ^ write.0)));
    let mut word = write.0;
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        word = stream.next();
    }
    Bytes::from(bytes)
}

/// Which write a value is of; none if these are not the bytes of any write of this run to this key.
pub fn write_of(seed: u64, number: KeyNumber, found: &[u8]) -> Option<WriteId> {
    let write = WriteId(u64::from_le_bytes(found.get(..8)?.try_into().ok()?));
    (value(seed, number, write, found.len()) == found).then_some(write)
}

/// A small generator of numbers (splitmix64): every seed gives the same sequence everywhere.
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `limit`. The bias of the multiplication is below one in four thousand million.
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u32
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_write_and_nothing_else_does() {
        let write = WriteId::new(3, 70_000);
        let good = value(1, 5, write, 256);
        assert_eq!((good.len(), write_of(1, 5, &good)), (256, Some(write)));
        assert_eq!(write_of(1, 6, &good), None, "under another key");
        assert_eq!(write_of(2, 5, &good), None, "of another run");
        assert_eq!(write_of(1, 5, &good[..7]), None, "too short");
        let mut flipped = good.to_vec();
        flipped[255] ^= 1;
        assert_eq!(write_of(1, 5, &flipped), None, "one bit wrong");
        assert_ne!(value(1, 5, WriteId::new(3, 70_001), 256), good);
        assert_eq!(value(1, 5, write, VALUE_BYTES_MIN).len(), VALUE_BYTES_MIN);
    }

    #[test]
    fn keys_spread_evenly_over_the_first_two_bytes() {
        let mut ranges = [0u32; 64];
        for number in 0..64_000 {
            let bytes = key(number);
            ranges[usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) * 64 / 65_536] += 1;
        }
        assert!(ranges.iter().all(|keys| (850..1150).contains(keys)), "{ranges:?}");
    }
}
