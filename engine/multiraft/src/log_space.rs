//! How much the core's log can still take in.
//!
//! What was taken in must be written some day, or a replica that has applied it makes no checkpoint any more (law 19), and
//! nothing else makes a full log small. So the log says how many bytes of entries surely have room, and within a turn the
//! core takes in no more than that: proposals above it are answered Busy, and of an Append only the entries are taken that have
//! room. Its commit index is heard all the same, because the entries that it commits can be given up when they were applied.
//! What has no room is passed by without an answer: the leader sends it again after a while.
//!
//! Votes, truncations and compactions are not counted. The log has kept room for them.
//!
//! Beside that, what all leaders of a core have proposed and not committed is bounded: a log full of entries that no other node
//! has room for, because theirs are as full, would stay full on all of them. An entry that is not committed is on fewer than half
//! of its replicas, four at most; so when no log holds more than an eighth of its size of own proposals, the logs are half full
//! of such entries at most, taken together, and some log has room beside all else.

use pontoon_raft::Raft;
use pontoon_types::{Entry, LogId, LogRoom};

use crate::Core;
use crate::replica::Slot;

/// The room that the log has told of, and what was taken in since.
#[derive(Debug)]
pub(crate) struct LogSpace {
    told: LogRoom,
    left: LogRoom,
    /// Bytes that all leaders of the core have proposed and not committed.
    uncommitted_bytes: usize,
    /// Bytes that are proposed at the end of this turn.
    gathered_bytes: usize,
}

impl LogSpace {
    /// A log of which nothing was heard yet has room for everything.
    pub(crate) fn new() -> LogSpace {
        let all = LogRoom(u64::MAX);
        LogSpace { told: all, left: all, uncommitted_bytes: 0, gathered_bytes: 0 }
    }

    /// The log says how much room it has.
    pub(crate) fn tell(&mut self, room: LogRoom) {
        (self.told, self.left) = (room, room);
    }

    /// What this turn has taken in is handed to the log, which says if its room has changed by that.
    pub(crate) fn end_turn(&mut self) {
        (self.left, self.gathered_bytes) = (self.told, 0);
    }

    /// Takes the room for `entries`, if there is enough.
    pub(crate) fn take(&mut self, entries: LogRoom) -> bool {
        let left = self.left.minus(entries);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// The leaders of a replica have so many bytes uncommitted now.
    pub(crate) fn uncommitted_changed(&mut self, before: usize, after: usize) {
        self.uncommitted_bytes = self.uncommitted_bytes + after - before;
    }

    /// Takes the room for a proposal of so many bytes, if there is enough. A core without uncommitted bytes takes one of any
    /// size.
    pub(crate) fn take_proposal(&mut self, bytes: usize, uncommitted_bytes_max: usize) -> bool {
        let uncommitted_bytes = self.uncommitted_bytes + self.gathered_bytes;
        let admits = uncommitted_bytes == 0 || uncommitted_bytes + bytes <= uncommitted_bytes_max;
        let takes = admits && self.take(LogRoom::of_payload(bytes));
        self.gathered_bytes += if takes { bytes } else { 0 };
        takes
    }
}

impl Core {
    /// Leaves those entries of an Append that have room. False when all of it is passed by: it would be refused, being behind a
    /// gap or a difference that had no room to be mended, and the leader would ask again at once where it waits otherwise.
    pub(crate) fn leave_what_has_room(&mut self, slot: Slot, previous: LogId, entries: &mut Vec<Entry>) -> bool {
        let raft = &self.replicas[slot].raft;
        let known = known(raft, entries);
        let new = entries.iter().skip(known);
        let fit = known + new.take_while(|entry| self.log_space.take(LogRoom::of([*entry]))).count();
        if fit == entries.len() {
            return true;
        }
        entries.truncate(fit);
        // The entries behind would leave a gap.
        self.log_space.left = LogRoom(0);
        let raft = &self.replicas[slot].raft;
        raft.holds(previous) && raft.missing().next().is_none_or(|missing| previous.index < missing)
    }
}

/// How many of the first entries the log holds. A payload that was lost is written again.
fn known(raft: &Raft, entries: &[Entry]) -> usize {
    let is_whole = raft.missing().next().is_none();
    entries.iter().take_while(|entry| is_whole && raft.holds(entry.id)).count()
}
