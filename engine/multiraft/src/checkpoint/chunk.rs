//! The chunks of a checkpoint.
//!
//! ```text
//! chunk   = section (1) | a piece of the section's stream
//! section = 1 pairs: for each key, in order: key bytes (4) | value bytes (4) | key | value
//!         | 2 sessions: for each piece (`sessions`): bytes (4) | piece
//! ```
//!
//! Numbers are little-endian. The streams of the sections follow each other in the order of their tags, each cut into
//! chunks of one size, the last one of a section shorter. A piece may end anywhere, so a value longer than a chunk needs
//! nothing special. The same state gives the same chunks on every replica, so one that lost its sender goes on with
//! another one.
//!
//! A new section gets the next tag, a place in [`super::make`] and one in [`super::CheckpointBuilder`].

use crate::sessions::SessionsError;

/// Which part of a replica's state a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    /// The pairs of the key-value machine.
    Pairs,
    /// What the group remembers of its clients.
    Sessions,
}

impl Section {
    /// The first byte of its chunks.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Section::Pairs => 1,
            Section::Sessions => 2,
        }
    }

    /// The section with this tag.
    pub(crate) fn of(tag: u8) -> Option<Section> {
        [Section::Pairs, Section::Sessions].into_iter().find(|section| section.tag() == tag)
    }
}

/// Bytes in front of a pair.
pub(crate) const PAIR_HEAD_BYTES: usize = 8;

/// Why bytes are no chunks of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// A chunk has a section and some of its stream.
    #[error("a chunk of {0} bytes is empty or longer than SNAPSHOT_CHUNK_BYTES_MAX")]
    Length(usize),
    /// It was written by a version that this one does not know.
    #[error("no section has the tag {0}")]
    Section(u8),
    /// Sections follow each other in one order.
    #[error("a chunk of an earlier section comes after one of a later section")]
    Order,
    /// A key or a value is longer than any can be.
    #[error("a pair of {key_bytes} and {value_bytes} bytes is above its limits")]
    Pair {
        /// Bytes of the key.
        key_bytes: usize,
        /// Bytes of the value.
        value_bytes: usize,
    },
    /// Keys stand in their order, each once.
    #[error("the keys are not in order")]
    Keys,
    /// The sessions cannot be read.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The last pair is not whole.
    #[error("the chunks end inside a pair")]
    Torn,
}
