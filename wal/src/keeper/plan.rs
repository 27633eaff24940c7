//! When to make a checkpoint, and which segments to empty. Pure decisions.

use crate::format::SegmentKey;
use crate::prepare::RESERVED_SLOTS;

/// A checkpoint is made once so many times its own size was written since the last one: it then costs a tenth of the
/// bytes at most.
const LOG_PER_CHECKPOINT: u64 = 10;

/// A segment is emptied when at most a quarter of it is alive: copying that quarter frees the other three.
const ALIVE_MAX_PERCENT: u64 = 25;

/// The same while the log is short of room.
const ALIVE_MAX_PRESSED_PERCENT: u64 = 75;

/// Most segments emptied for one checkpoint. Bounds its time, and the room that the copies take.
const VICTIMS_MAX: usize = 4;

/// How much of the allowed size is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Segments in use.
    pub(crate) used: u64,
    /// Segments allowed.
    pub(crate) allowed: u64,
}

impl Room {
    /// Whether three quarters are used, or the next segment of a small log would be its last but the reserve.
    pub(crate) fn is_short(self) -> bool {
        self.used * 4 >= self.allowed * 3 || self.used + RESERVED_SLOTS as u64 + 1 >= self.allowed
    }

    /// Whether half is used, or sixteen segments: only then are bytes copied to free others.
    pub(crate) fn is_worth_copying(self) -> bool {
        self.used >= 16.min(self.allowed / 2)
    }
}

/// Whether a checkpoint is due that would cover `uncovered` segments.
pub(crate) fn is_due(
    uncovered: u64,
    segment_bytes: u64,
    checkpoint_segments: u64,
    last_bytes: u64,
    room: Room,
) -> bool {
    let enough = checkpoint_segments.max((last_bytes * LOG_PER_CHECKPOINT).div_ceil(segment_bytes));
    uncovered > 0 && (room.is_short() || uncovered >= enough)
}

/// One segment with entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) segment: SegmentKey,
    /// Bytes of entries that are still needed.
    pub(crate) live_bytes: u64,
    /// Segments begun since.
    pub(crate) age: u64,
}

/// The segments whose live entries are worth copying elsewhere, best first: what is gained, times its age, over what
/// it costs (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992). Segments
/// without any live bytes are free as they are.
pub(crate) fn victims(usages: &[Usage], segment_bytes: u64, room: Room) -> Vec<SegmentKey> {
    if !room.is_worth_copying() {
        return Vec::new();
    }
    let limit = if room.is_short() { ALIVE_MAX_PRESSED_PERCENT } else { ALIVE_MAX_PERCENT };
    let is_candidate = |usage: &&Usage| usage.live_bytes > 0 && usage.live_bytes * 100 <= segment_bytes * limit;
    // In thousandths and whole numbers, so that the order is the same everywhere.
    let benefit = |usage: &Usage| {
        let alive = usage.live_bytes.min(segment_bytes) * 1000 / segment_bytes;
        (1000 - alive) * (usage.age + 1) * 1000 / (1000 + alive)
    };
    let mut candidates: Vec<&Usage> = usages.iter().filter(is_candidate).collect();
    candidates.sort_by_key(|usage| (std::cmp::Reverse(benefit(usage)), usage.segment));
    candidates.iter().take(VICTIMS_MAX).map(|usage| usage.segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(segment: u32, live_bytes: u64, age: u64) -> Usage {
        Usage { segment: SegmentKey(segment), live_bytes, age }
    }

    #[test]
    fn a_checkpoint_costs_a_tenth_at_most_unless_the_log_is_short_of_room() {
        let wide = Room { used: 10, allowed: 100 };
        assert!(!is_due(3, 100, 4, 0, wide));
        assert!(is_due(4, 100, 4, 0, wide));
        assert!(!is_due(4, 100, 4, 90, wide), "nine segments are ten times the last checkpoint");
        assert!(is_due(9, 100, 4, 90, wide));
        assert!(is_due(1, 100, 4, 90, Room { used: 75, allowed: 100 }));
        assert!(!is_due(0, 100, 4, 0, Room { used: 100, allowed: 100 }), "nothing new to cover");
    }

    #[test]
    fn old_and_nearly_empty_segments_go_first_and_full_ones_stay() {
        let room = Room { used: 50, allowed: 100 };
        let usages = [usage(1, 20, 9), usage(2, 0, 8), usage(3, 5, 7), usage(4, 26, 6), usage(5, 1, 1)];
        assert_eq!(victims(&usages, 100, room), [SegmentKey(3), SegmentKey(1), SegmentKey(5)]);
        let short = Room { used: 80, allowed: 100 };
        assert_eq!(victims(&usages, 100, short), [SegmentKey(3), SegmentKey(1), SegmentKey(4), SegmentKey(5)]);
        assert!(victims(&usages, 100, Room { used: 3, allowed: 100 }).is_empty(), "a small log copies nothing");
    }
}
