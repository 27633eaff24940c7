//! How much more a log can take in.
//!
//! What was taken in must find its place without anything being given up before: a replica that has applied more than is
//! durable makes no checkpoint (law 19), so what has gathered and cannot be written might wait for ever for the checkpoint that
//! would free the log. So the log says before how many bytes of entries surely have room, whatever they are cut into, in the
//! segment that is written to and in those that are ready; and a ready segment that is counted here is left to it by the
//! keeper. Until it says so again no more may be gathered, but for what is no entry.
//!
//! Two groups that do not fit into one segment have more bytes together than one segment holds. So, of an empty segment, all
//! bytes can be counted on, and of one that is written to only those that are left when no empty one follows.
//!
//! An eighth of a segment is kept back for votes, truncations and compactions: a vote takes one block at most, so the eighth of
//! a segment of the usual size carries a thousand of them one by one, and far more together.

use pontoon_types::LogRoom;

use crate::Log;
use crate::packing::Packing;

impl Log {
    /// Bytes of entries that may be gathered until this is asked again: three eighths of what a segment holds at least, or none
    /// when the log is full. To be asked when something was gathered and when a sync has ended. A log that starts after
    /// crashes took above `max_log_bytes` is full whatever room they gave it, and so is a fenced one.
    ///
    /// The ready segments that this counts on are kept for the log until it is asked again.
    pub fn room(&self) -> LogRoom {
        let gathered = self.gathered.pack(self.writer.packing(), self.echo_room());
        // Of a log above its maximum one more would not be removed, and it would stay above.
        let more = usize::from(!self.supply.is_above_maximum());
        let ready = self.supply.promise(gathered.0.begun + more);
        self.room_behind(gathered, ready)
    }

    /// Whether proposals should be answered with Busy, and entries of peers passed by.
    pub fn is_full(&self) -> bool {
        let gathered = self.gathered.pack(self.writer.packing(), self.echo_room());
        self.room_behind(gathered, self.supply.ready()).is_none()
    }

    /// The room behind what has gathered, with so many segments ready.
    fn room_behind(&self, (settled, growing_bytes): (Packing, usize), ready: usize) -> LogRoom {
        if self.fence.is_some() || self.supply.is_above_maximum() {
            return LogRoom(0);
        }
        let whole_bytes = Packing::of_empty(self.segment_bytes).left();
        let sure_bytes = match ready.checked_sub(settled.begun) {
            None => 0,
            Some(0) => settled.left(),
            Some(_) => whole_bytes,
        };
        let left_bytes = sure_bytes.saturating_sub(growing_bytes);
        // With less than the largest command needs, a log that does not say that it is full would never be made smaller.
        let is_full = left_bytes < whole_bytes / 2;
        LogRoom(if is_full { 0 } else { (left_bytes - whole_bytes / 8) as u64 })
    }
}
