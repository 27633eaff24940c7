//! How much one write of one replica may carry, given the segments of the log that it goes to.
//!
//! A write of a replica is never cut, because it survives whole or not at all, so a segment has to hold it: the payloads,
//! a few bytes for each entry, and two headers. A write that no segment holds would end the core. So what becomes one
//! write is bounded before: the commands that a group proposes in a turn, a single command, and the entries of one Append.
//!
//! The entries that a follower writes are as large as its leader's segments allow. So a core lets in only peers that bound
//! their writes at least as tightly as its own segments ask for.

use pontoon_types::limits::{APPEND_BYTES_MAX, COMMAND_BYTES_MAX, PROPOSAL_BYTES_PER_TURN};

/// More than a segment takes for itself: its header, its footer, and the headers of the groups in it.
const SEGMENT_OVERHEAD_BYTES: usize = 16 << 10;

/// The limits of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Of the commands that a group proposes in one turn. A quarter of a segment, because short commands take more than
    /// twice their length.
    pub proposal_bytes: usize,
    /// Of one command, which goes alone when it is above the quarter. A log that is not full has room for three eighths of
    /// what a segment holds ([`pontoon_wal::Log::room`]), and a command that never has room would never be made.
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
            command_bytes: COMMAND_BYTES_MAX.min(segment_bytes.saturating_sub(SEGMENT_OVERHEAD_BYTES) / 8 * 3),
            append_bytes: APPEND_BYTES_MAX.min(segment_bytes / 4),
        }
    }

    /// Whether a log with these limits takes all that a leader with `others` sends.
    pub fn hold(self, others: WriteLimits) -> bool {
        others.command_bytes <= self.command_bytes && others.append_bytes <= self.append_bytes
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
        let expected = WriteLimits { proposal_bytes: 16 << 10, command_bytes: 18 << 10, append_bytes: 16 << 10 };
        assert_eq!(limits, expected);
    }

    #[test]
    fn only_segments_too_small_for_the_largest_command_make_a_difference() {
        let holds = |own, others| WriteLimits::of(own).hold(WriteLimits::of(others));
        assert!(holds(4 << 20, 64 << 20) && holds(64 << 20, 4 << 20));
        assert!(holds(4 << 20, 1 << 20) && holds(1 << 20, 1 << 20));
        assert!(!holds(1 << 20, 4 << 20) && !holds(128 << 10, 192 << 10));
    }
}
