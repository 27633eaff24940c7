//! Whose log it is, and how large its parts are.

use pontoon_types::{ClusterId, NodeId};

use crate::LogError;
use crate::format::BLOCK_BYTES;

/// Whose log it is. Stands in `ctl` and in each segment; a log opens only for the identity it was created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The log's own uuid, which is also the name of its directory (law 16).
    pub log: u128,
}

/// Smallest segment: its header, one group of records and some room.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;

/// Largest segment: a recovery holds one in memory, and lengths inside it are 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Fewest segment files: the one in use and the next, two with checkpoints, one for copies and one kept for compaction.
pub const SEGMENTS_MIN: u64 = 6;

/// How the bytes of an append reach the page cache. Both paths are followed by the same fdatasync, leave the same bytes
/// on the disk, and open each other's logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendPath {
    /// One positioned write for each group of records.
    #[default]
    Write,
    /// Stores into a mapping of the segment. Needs Linux 5.14; an older kernel refuses it when the log is opened.
    Mmap,
}

/// Sizes of one log, and how it appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of each segment file of a new log; an existing log keeps the size it was created with.
    ///
    /// A segment without its header, one block, must hold the largest single write of one replica, because that is
    /// never cut: a larger one fences the log with [`LogError::WriteTooLarge`]. What a group may propose in one turn
    /// bounds it ([`pontoon_types::limits::PROPOSAL_BYTES_PER_TURN`], 4 MiB of payloads); in the log each entry takes
    /// its payload rounded up to 16 bytes and 12 bytes more. The smallest sizes that are accepted serve tests.
    pub segment_bytes: u64,
    /// Most bytes of all segment files together. From three quarters on compaction hurries; at the end the log answers
    /// "full". Counted in whole segments, never less than [`SEGMENTS_MIN`]. Starts after a crash may take two segments
    /// more.
    pub max_log_bytes: u64,
    /// A group of records is closed at this size and the rest waits for the next sync; a single larger write gets a
    /// group of its own.
    pub group_bytes_max: usize,
    /// Segments kept ready ahead of use. Two more are kept, for compaction and for a start after a crash.
    pub ready_segments: usize,
    /// How appends are written. Files only: a disk in memory has one way.
    pub append_path: AppendPath,
    /// A checkpoint is made after so many closed segments, later if checkpoints are large, earlier if the log is short
    /// of room. An open reads the footers of the segments since.
    pub checkpoint_segments: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 32 << 20,
            max_log_bytes: 4 << 30,
            group_bytes_max: 4 << 20,
            ready_segments: 2,
            append_path: AppendPath::Write,
            checkpoint_segments: 4,
        }
    }
}

impl Options {
    /// Refuses sizes that the format cannot hold.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        let refuse = |name, value, why: String| Err(LogError::Option { name, value, why });
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let why = format!("must lie between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX} bytes");
            return refuse("segment_bytes", self.segment_bytes, why);
        }
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return refuse("segment_bytes", self.segment_bytes, format!("must be a multiple of {BLOCK_BYTES} bytes"));
        }
        if self.group_bytes_max < BLOCK_BYTES {
            return refuse("group_bytes_max", self.group_bytes_max as u64, format!("must be at least {BLOCK_BYTES}"));
        }
        if self.ready_segments == 0 {
            return refuse("ready_segments", 0, "must be at least 1".to_string());
        }
        if self.checkpoint_segments == 0 {
            return refuse("checkpoint_segments", 0, "must be at least 1".to_string());
        }
        Ok(())
    }

    /// How many segment files the log may have. At least [`SEGMENTS_MIN`].
    pub(crate) fn segments_max(&self, segment_bytes: u64) -> u64 {
        (self.max_log_bytes / segment_bytes).max(SEGMENTS_MIN)
    }
}
