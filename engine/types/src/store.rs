//! Checkpoints and snapshots: what a core orders from the store beside its log, and what it hears back.
//!
//! A *checkpoint* is the durable state of a replica at one [`LogId`]; sent to a peer it is a *snapshot*. Both are the same
//! sequence of *chunks*. What a chunk holds is the core's business: to the store, and on the wire, it is bytes.
//!
//! The store carries out the orders of one group in their order, away from the core, and answers each [`StoreOrder::Chunk`],
//! [`StoreOrder::Finish`] and [`StoreOrder::Read`] once. It keeps one checkpoint of each replica that counts, the last one
//! that was finished, and older ones as long as a read is open on them. What is staged and not finished is gone after a
//! crash; what was answered [`StoreAnswer::Stored`] is not.

use std::fmt;

use bytes::Bytes;

use crate::{Descriptor, GroupId, LogId, ReplicaId};

/// Declares a number that only grows, printed with a short prefix.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// A checkpoint that is being written. Grows over all groups of a core, and is never used twice while it lives.
    StagingNumber, "s"
);
number!(
    /// A reader of a checkpoint. Grows over all groups of a core, and is never used twice while it lives.
    ReadNumber, "rd"
);
number!(
    /// The place of a chunk in its checkpoint, from zero.
    ChunkNumber, "ch"
);

impl ChunkNumber {
    /// The number after this one.
    pub fn next(self) -> ChunkNumber {
        ChunkNumber(self.0 + 1)
    }
}

/// What a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The group.
    pub group: GroupId,
    /// The replica whose state it is, or which it is to become the state of.
    pub replica: ReplicaId,
    /// The last entry that is in the state.
    pub last: LogId,
    /// The members as of that entry, encoded as in its log: joint or not.
    pub configuration: Bytes,
    /// The descriptor as of that entry.
    pub descriptor: Descriptor,
}

/// What a core wants of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOrder {
    /// Begin to write a checkpoint beside the present one. An earlier staging of the group is given up.
    Begin {
        /// The group.
        group: GroupId,
        /// Names what is being written.
        staging: StagingNumber,
        /// What it is of.
        meta: SnapshotMeta,
    },
    /// The next chunk. Its answer is [`StoreAnswer::Taken`], or [`StoreAnswer::Failed`] for the whole staging.
    Chunk {
        /// The group.
        group: GroupId,
        /// Of which staging.
        staging: StagingNumber,
        /// One more than the chunk before, from zero.
        number: ChunkNumber,
        /// At most [`crate::limits::SNAPSHOT_CHUNK_BYTES_MAX`].
        bytes: Bytes,
    },
    /// Make it the checkpoint of its replica: whole, durable, and in one step. Its answer is [`StoreAnswer::Stored`] or
    /// [`StoreAnswer::Failed`].
    Finish {
        /// The group.
        group: GroupId,
        /// Which staging.
        staging: StagingNumber,
        /// How many chunks it has.
        chunks: u64,
    },
    /// It will not be finished. Not answered; answers that are on their way may still come.
    Abandon {
        /// The group.
        group: GroupId,
        /// Which staging.
        staging: StagingNumber,
    },
    /// One chunk of the present checkpoint, or of an older one that this read has begun with. Its answer is
    /// [`StoreAnswer::Read`].
    Read {
        /// The group.
        group: GroupId,
        /// Who reads. The first order of a read opens it.
        read: ReadNumber,
        /// Of which checkpoint: that at this entry.
        last: LogId,
        /// Which chunk.
        number: ChunkNumber,
    },
    /// That read is over. Not answered; answers that are on their way may still come.
    Close {
        /// The group.
        group: GroupId,
        /// Which read.
        read: ReadNumber,
    },
    /// The replica is destroyed, and its checkpoint, stagings and reads with it. Not answered.
    Remove {
        /// The group.
        group: GroupId,
        /// The replica. What a later one of the group has is left alone.
        replica: ReplicaId,
    },
}

/// What the store says. An answer about a staging or a read that nobody waits for any more is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// The chunk has left the core's memory: another one may come.
    Taken {
        /// The group.
        group: GroupId,
        /// Of which staging.
        staging: StagingNumber,
        /// Which chunk.
        number: ChunkNumber,
    },
    /// It is the checkpoint of its replica now, durable with its directory. Only now may the log be compacted up to
    /// `last` (law 19).
    Stored {
        /// The group.
        group: GroupId,
        /// Which staging.
        staging: StagingNumber,
        /// The last entry that is in it.
        last: LogId,
    },
    /// The staging is given up; the checkpoint before it stays.
    Failed {
        /// The group.
        group: GroupId,
        /// Which staging.
        staging: StagingNumber,
        /// Why.
        why: StoreFailure,
    },
    /// What was read.
    Read {
        /// The group.
        group: GroupId,
        /// For whom.
        read: ReadNumber,
        /// Which chunk.
        number: ChunkNumber,
        /// The chunk, or none behind the last one, or why it cannot be had.
        result: Result<Option<Bytes>, ReadFailure>,
    },
}

impl StoreAnswer {
    /// The group that it is about.
    pub fn group(&self) -> GroupId {
        match self {
            StoreAnswer::Taken { group, .. }
            | StoreAnswer::Stored { group, .. }
            | StoreAnswer::Failed { group, .. }
            | StoreAnswer::Read { group, .. } => *group,
        }
    }
}

/// Why a checkpoint could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreFailure {
    /// No room on the disk.
    Full,
    /// The disk or the file system failed.
    Io,
}

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreFailure::Full => "the disk is full",
            StoreFailure::Io => "the disk failed",
        })
    }
}

/// Why a chunk could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadFailure {
    /// There is no such checkpoint any more.
    Gone,
    /// Its bytes are not those that were written.
    Rotten,
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadFailure::Gone => "the checkpoint is gone",
            ReadFailure::Rotten => "the chunk is rotten",
        })
    }
}
