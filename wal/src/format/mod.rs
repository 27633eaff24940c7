//! Every byte of a log on disk. Pure: bytes in, values out.
//!
//! A log is a directory with one control file and segment files of one fixed size. All numbers are little-endian, all
//! structures start at a multiple of 4 KiB, and a block that was synced is never written again.
//!
//! ```text
//! ctl              0                   4096                 8192
//!                  | control slot 0    | control slot 1     |      written in turn, the higher generation counts
//!
//! slot-NNN.seg     0                   4096                                               segment_bytes
//!                  | segment header    | group | group | ... | SEAL | zeros ...           |
//!                  '------ one write at rotation -------'
//!
//! group            0           64              (16)               (4096)
//!                  | header    | directory | 0 | payloads ...   0 |
//!                    |           |               ^
//!                    |           '- offset, length and crc32 of each payload
//!                    '- crc32 of the directory, and of itself with the log's uuid and its place
//!
//! directory        | run 32 | record 12 | record 12 | ... | run 32 | ...
//! ```
//!
//! So every byte is covered by exactly one checksum: payload → directory → header. A rotten payload still leaves an
//! intact directory that names the entry. The byte rulers of the four structures stand in [`segment_header`],
//! [`group`], [`record`] and [`control`], as constants of which each starts where the one before ends.
//!
//! A *group* here is a group of records: what one sync makes durable, all of it or nothing. It is numbered by [`Seq`]
//! without gaps through all segments. Where a Raft group is meant the code says `GroupId`.
//!
//! What identifies a group as belonging here: the uuid of the log and the offset (both inside its checksum), the
//! segment id and the segment's salt (compared), the number and the chain value of the group before. A block of
//! another log, another place, an earlier use of the file or another history fails one of them.
//!
//! Left out in this version: compression, encryption.

pub mod checkpoint;
pub mod control;
pub mod footer;
pub mod group;
pub mod record;
pub mod segment_header;

use std::fmt;

/// Structures start at multiples of this; it is also the largest unit that this format expects to be torn.
pub const BLOCK_BYTES: usize = 4096;

/// Payloads start at multiples of this, which suits every archived type that may be read in place.
pub const PAYLOAD_ALIGN_BYTES: usize = 16;

/// The version that is written, and the only one that is read.
pub const FORMAT_VERSION: u16 = 1;

/// The name of the control file.
pub const CONTROL_NAME: &str = "ctl";

/// The number of one use of a segment file. Grows, never reused; the first segment is 1, 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

/// The number of a group of records. Grows by one; the first group is 1, 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// A place in one core's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn {
    /// The segment.
    pub segment: SegmentId,
    /// The byte in it.
    pub offset: u64,
}

/// The end of a log, or of a part of it: everything up to and including one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The first byte after the group.
    pub place: Lsn,
    /// The group's number.
    pub seq: Seq,
    /// The group's chain value, which the next group repeats.
    pub chain: u32,
}

/// Length of an encoded [`LogEnd`]: segment 8, offset 8, seq 8, chain 4, zero 4.
pub(crate) const LOG_END_BYTES: usize = 32;

impl LogEnd {
    /// The bytes.
    pub(crate) fn encode(&self) -> [u8; LOG_END_BYTES] {
        let mut bytes = [0; LOG_END_BYTES];
        put(&mut bytes, 0, self.place.segment.0.to_le_bytes());
        put(&mut bytes, 8, self.place.offset.to_le_bytes());
        put(&mut bytes, 16, self.seq.0.to_le_bytes());
        put(&mut bytes, 24, self.chain.to_le_bytes());
        bytes
    }

    /// Reads one at a place that the caller knows to lie inside.
    pub(crate) fn decode(bytes: &[u8], at: usize) -> LogEnd {
        let place = Lsn { segment: SegmentId(u64_at(bytes, at)), offset: u64_at(bytes, at + 8) };
        LogEnd { place, seq: Seq(u64_at(bytes, at + 16)), chain: u32_at(bytes, at + 24) }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why bytes are not what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing was ever written here.
    #[error("the block is empty")]
    Unwritten,
    /// Written by a newer version: never cut, never changed.
    #[error("format version {0}")]
    UnknownVersion(u16),
    /// A feature that a reader must know.
    #[error("feature flags {0:#x}")]
    UnknownFlags(u32),
    /// A use of a segment file that a reader must know.
    #[error("stream {0}")]
    UnknownStream(u16),
    /// A kind of record that a reader must know.
    #[error("record kind {0}")]
    UnknownKind(u8),
    /// Anything else; the text says which check failed.
    #[error("{0}")]
    Bad(&'static str),
}

impl Fault {
    /// Whether the bytes are intact and only too new.
    pub fn is_unknown(self) -> bool {
        !matches!(self, Fault::Unwritten | Fault::Bad(_))
    }
}

impl SegmentId {
    /// The short name under which places in memory and in checkpoints refer to the segment: the low half of its id.
    /// A log never has so many segments at once that two of them share it.
    pub fn key(self) -> SegmentKey {
        SegmentKey(self.0 as u32)
    }
}

/// The low half of a [`SegmentId`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentKey(pub u32);

/// The name of a segment file. The number of the file, not of its use.
pub fn slot_name(slot: u32) -> String {
    format!("slot-{slot:03}.seg")
}

/// The name of a segment file that is still being prepared. It becomes a slot by a rename when it is durable.
pub fn unfinished_name(slot: u32) -> String {
    format!("slot-{slot:03}.new")
}

/// The number in a segment file's name, with the given ending.
pub fn slot_of(name: &str, ending: &str) -> Option<u32> {
    name.strip_prefix("slot-")?.strip_suffix(ending)?.parse().ok()
}

/// `length` rounded up to a multiple of `unit`, a power of two.
pub(crate) fn round_up(length: usize, unit: usize) -> usize {
    (length + unit - 1) & !(unit - 1)
}

/// What another version in a block means. Whoever wrote this version took the checksum over its number: if that still
/// matches, only the number has changed since, and the block is as rotten as with any other bit. Otherwise a newer version
/// wrote the block, or may have.
pub(crate) fn version_fault(block: &[u8], version_at: usize, crc_at: usize) -> Fault {
    let mut summed = block[..crc_at].to_vec();
    summed[version_at..version_at + 2].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    if crc32fast::hash(&summed) == u32_at(block, crc_at) {
        return Fault::Bad("the format version is not what was written");
    }
    Fault::UnknownVersion(u16_at(block, version_at))
}

/// Whether nothing was ever written into `bytes`.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    bytes.chunks(BLOCK_BYTES).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Reads a number at a place that the caller knows to lie inside.
macro_rules! reader {
    ($name:ident, $type:ty, $bytes:literal) => {
        pub(crate) fn $name(bytes: &[u8], at: usize) -> $type {
            let mut word = [0; $bytes];
            word.copy_from_slice(&bytes[at..at + $bytes]);
            <$type>::from_le_bytes(word)
        }
    };
}

reader!(u16_at, u16, 2);
reader!(u32_at, u32, 4);
reader!(u64_at, u64, 8);
reader!(u128_at, u128, 16);

/// Writes the little-endian bytes of a number at a place that the caller knows to lie inside.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, word: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&word);
}
