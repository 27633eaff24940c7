//! Writes groups at the end of the log, and starts segments.
//!
//! A writer knows nothing of syncs: its caller writes the next group only after the last one is durable. That rule is
//! what every proof in [`crate::recover`] rests on.

use std::io;
use std::sync::Arc;

use pontoon_types::Incarnation;

use crate::LogIdentity;
use crate::append::GroupBuffer;
use crate::format::group::GroupHeader;
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, LogEnd, Lsn, SegmentId, Seq};
use crate::prepare::Slot;
use crate::storage::SegmentFile;

/// The segment that is written to.
struct Open {
    file: Arc<dyn SegmentFile>,
    segment: SegmentId,
    salt: u32,
}

/// The end of the log that grows.
pub(crate) struct Writer {
    identity: LogIdentity,
    incarnation: Incarnation,
    segment_bytes: u64,
    salt_seed: u32,
    open: Option<Open>,
    end: LogEnd,
    next_segment: SegmentId,
}

impl Writer {
    /// A writer without a segment, behind `end`.
    pub(crate) fn new(
        identity: LogIdentity,
        incarnation: Incarnation,
        segment_bytes: u64,
        salt_seed: u32,
        end: LogEnd,
        newest_seen: SegmentId,
    ) -> Writer {
        let next_segment = SegmentId(newest_seen.0.saturating_add(1));
        Writer { identity, incarnation, segment_bytes, salt_seed, open: None, end, next_segment }
    }

    /// Goes on in the segment where the log was closed.
    pub(crate) fn resume(&mut self, file: Arc<dyn SegmentFile>, header: &SegmentHeader) {
        self.open = Some(Open { file, segment: header.segment, salt: header.salt });
    }

    /// Whose log it is.
    pub(crate) fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// The last group written.
    pub(crate) fn end(&self) -> LogEnd {
        self.end
    }

    /// Bytes left in the segment.
    pub(crate) fn room(&self) -> u64 {
        if self.open.is_some() { self.segment_bytes - self.end.place.offset } else { 0 }
    }

    /// The file that the last group was written to.
    pub(crate) fn file(&self) -> Option<&Arc<dyn SegmentFile>> {
        self.open.as_ref().map(|open| &open.file)
    }

    /// Writes one group; with a fresh slot, behind a segment header and in the same write. Returns the bytes written.
    pub(crate) fn write(&mut self, buffer: &mut GroupBuffer, flags: u16, fresh: Option<Slot>) -> io::Result<u64> {
        let used_up = || io::Error::other("the numbers of groups or segments are used up");
        let seq = self.end.seq.0.checked_add(1).ok_or_else(used_up)?;
        if fresh.is_some() && self.next_segment.0 == u64::MAX {
            return Err(used_up());
        }
        let header_block = fresh.map(|slot| self.start_segment(slot, Seq(seq)).encode());
        let open = self.open.as_ref().expect("a writer has a segment before it writes");
        let offset = if header_block.is_some() { BLOCK_BYTES as u64 } else { self.end.place.offset };
        let header = GroupHeader {
            dir_len: 0,
            dir_crc: 0,
            payload_len: 0,
            runs: 0,
            prev_chain: self.end.chain,
            seq: Seq(seq),
            durable_seq: self.end.seq,
            segment: open.segment,
            salt: open.salt,
            flags,
        };
        let ([head, payloads], chain) = buffer.seal(header, self.identity.log, offset);
        let length = (head.len() + payloads.len()) as u64;
        let written = match &header_block {
            Some(block) => open.file.write_at(0, &[block, head, payloads]).map(|()| length + BLOCK_BYTES as u64),
            None => open.file.write_at(offset, &[head, payloads]).map(|()| length),
        };
        let place = Lsn { segment: open.segment, offset: offset + length };
        self.end = LogEnd { place, seq: Seq(seq), chain };
        written
    }

    fn start_segment(&mut self, slot: Slot, base_seq: Seq) -> SegmentHeader {
        let segment = self.next_segment;
        self.next_segment = SegmentId(segment.0.saturating_add(1));
        // Any number that differs from use to use will do; drawing one here would cost a system call.
        let salt = self.salt_seed ^ (segment.0 as u32).wrapping_mul(0x9e37_79b9);
        self.open = Some(Open { file: slot.file, segment, salt });
        SegmentHeader {
            identity: self.identity,
            segment,
            salt,
            slot: slot.slot,
            base_seq,
            incarnation: self.incarnation,
            segment_bytes: self.segment_bytes,
            previous: self.end,
        }
    }
}
