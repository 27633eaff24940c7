//! How much one write of one replica may carry, given the segments of the log that it goes to.
//!
//! A write of a replica is never cut, because it survives whole or not at all, so a segment has to hold it: the payloads,
//! a few bytes for each entry, and two headers. A write that no segment holds would end the core. So what becomes one
//! write is bounded before: the commands that a group proposes in a turn, a single command, and the entries of one Append.

use pontoon_types::limits::{APPEND_BYTES_MAX, COMMAND_BYTES_MAX, PROPOSAL_BYTES_PER_TURN};

/// The limits of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Of the commands that a group proposes in one turn. A quarter of a segment, because short commands take more than
    /// twice their length.
    pub proposal_bytes: usize,
    /// Of one command, which goes alone when it is above the quarter.
    pub command_bytes: usize,
    /// Of the entries of one Append.
    pub append_bytes: usize,
}

impl WriteLimits {
    /// The limits for a log with segments of this size.
    pub fn of(segment_bytes: u64) -> WriteLimits {
        let segment_bytes = segment_bytes as usize;
        WriteLimits {
            proposal_bytes: PROPOSAL_BYTES_PER_TURN.min(segment_bytes / 4),
            command_bytes: COMMAND_BYTES_MAX.min(segment_bytes / 8 * 5),
            append_bytes: APPEND_BYTES_MAX.min(segment_bytes / 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_of_the_usual_size_limit_nothing() {
        let limits = WriteLimits::of(64 << 20);
        assert_eq!((limits.proposal_bytes, limits.append_bytes), (PROPOSAL_BYTES_PER_TURN, APPEND_BYTES_MAX));
        assert_eq!(limits.command_bytes, COMMAND_BYTES_MAX);
    }

    #[test]
    fn small_segments_limit_everything() {
        let limits = WriteLimits::of(64 << 10);
        let expected = WriteLimits { proposal_bytes: 16 << 10, command_bytes: 40 << 10, append_bytes: 16 << 10 };
        assert_eq!(limits, expected);
    }
}
