//! Writes groups at the end of a stream, and starts segments.
//!
//! A writer knows nothing of syncs. The log's own writer is used so that the next group is written only after the last
//! one is durable: the proofs in [`crate::recover`] rest on that. Cold and checkpoint writers write many groups before
//! one sync, promise nothing in `durable_seq`, and count only once a checkpoint names them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pontoon_types::Incarnation;

use crate::LogIdentity;
use crate::append::{GroupBuffer, Room};
use crate::format::footer::footer_part;
use crate::format::group::GroupHeader;
use crate::format::segment_header::{SegmentHeader, Stream};
use crate::format::{BLOCK_BYTES, LogEnd, Lsn, SegmentId, Seq};
use crate::packing::Packing;
use crate::prepare::Slot;
use crate::state::GroupPlace;
use crate::storage::SegmentFile;

/// Hands out the ids of segments, to all writers of a log.
#[derive(Debug)]
pub(crate) struct SegmentIds(AtomicU64);

impl SegmentIds {
    /// Ids above the highest that was ever seen.
    pub(crate) fn above(newest_seen: SegmentId) -> Arc<SegmentIds> {
        Arc::new(SegmentIds(AtomicU64::new(newest_seen.0)))
    }

    /// The next id, and none when they are used up.
    fn next(&self) -> Option<SegmentId> {
        let step = |id: u64| id.checked_add(1).filter(|next| *next < u64::MAX);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).ok()?;
        Some(SegmentId(before + 1))
    }
}

/// A segment that is or was written to.
#[derive(Clone)]
pub(crate) struct OpenSegment {
    pub(crate) slot: Slot,
    pub(crate) segment: SegmentId,
    pub(crate) salt: u32,
    /// What its footer will hold.
    pub(crate) footer_parts: usize,
}

/// What all segments of a log share.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) identity: LogIdentity,
    pub(crate) incarnation: Incarnation,
    pub(crate) segment_bytes: u64,
    pub(crate) salt_seed: u32,
    pub(crate) ids: Arc<SegmentIds>,
}

/// The end of a stream that grows.
pub(crate) struct Writer {
    origin: Origin,
    stream: Stream,
    open: Option<OpenSegment>,
    end: LogEnd,
}

impl Writer {
    /// A writer without a segment, behind `end`.
    pub(crate) fn new(origin: Origin, stream: Stream, end: LogEnd) -> Writer {
        Writer { origin, stream, open: None, end }
    }

    /// Goes on in the segment where the log was closed.
    pub(crate) fn resume(&mut self, open: OpenSegment) {
        self.open = Some(open);
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The last group written.
    pub(crate) fn end(&self) -> LogEnd {
        self.end
    }

    /// The segment that is written to.
    pub(crate) fn open(&self) -> Option<&OpenSegment> {
        self.open.as_ref()
    }

    /// The file that the last group was written to.
    pub(crate) fn file(&self) -> Option<&Arc<dyn SegmentFile>> {
        self.open.as_ref().map(|open| &open.slot.file)
    }

    /// Where the next groups will go.
    pub(crate) fn packing(&self) -> Packing {
        let segment_bytes = self.origin.segment_bytes;
        match &self.open {
            Some(open) => Packing::at(segment_bytes, self.end.place.offset, open.footer_parts),
            None => Packing::without_segment(segment_bytes),
        }
    }

    /// Whether a group fits into the segment, with its part of the footer if the stream has footers.
    pub(crate) fn fits(&self, group: Room) -> bool {
        match (self.stream, &self.open) {
            (Stream::Log, _) => self.packing().fits(group),
            (_, Some(open)) => self.next_offset(open) + group.group_len() <= self.origin.segment_bytes as usize,
            (_, None) => false,
        }
    }

    /// Takes a slot for the next group, which then must be written. Returns the segment that was written to before.
    pub(crate) fn start_segment(&mut self, slot: Slot) -> io::Result<Option<OpenSegment>> {
        let segment = self.origin.ids.next().ok_or_else(used_up)?;
        // Any number that differs from use to use will do; drawing one here would cost a system call.
        let salt = self.origin.salt_seed ^ (segment.0 as u32).wrapping_mul(0x9e37_79b9);
        Ok(self.open.replace(OpenSegment { slot, segment, salt, footer_parts: 0 }))
    }

    /// Whether the next group is the first of its segment.
    fn is_fresh(&self, open: &OpenSegment) -> bool {
        self.end.place.segment != open.segment
    }

    fn next_offset(&self, open: &OpenSegment) -> usize {
        if self.is_fresh(open) { BLOCK_BYTES } else { self.end.place.offset as usize }
    }

    /// Where the next group goes, if its directory has `dir_len` bytes.
    pub(crate) fn next_place(&self, dir_len: usize) -> GroupPlace {
        let open = self.open.as_ref().expect("a writer has a segment before it writes");
        GroupPlace::of(open.segment.key(), self.next_offset(open), dir_len)
    }

    /// Writes one group; the first of a segment behind the segment's header and in the same write. Returns the bytes
    /// written.
    pub(crate) fn write(&mut self, buffer: &mut GroupBuffer, flags: u16) -> io::Result<u64> {
        let seq = Seq(self.end.seq.0.checked_add(1).ok_or_else(used_up)?);
        let open = self.open.as_ref().expect("a writer has a segment before it writes");
        let offset = self.next_offset(open) as u64;
        let header_block = self.is_fresh(open).then(|| self.segment_header(open, seq).encode());
        let header = GroupHeader {
            dir_len: 0,
            dir_crc: 0,
            payload_len: 0,
            runs: 0,
            prev_chain: self.end.chain,
            seq,
            durable_seq: if self.stream == Stream::Log { self.end.seq } else { Seq(0) },
            segment: open.segment,
            salt: open.salt,
            flags,
        };
        let directory = buffer.room().directory;
        let ([head, payloads], chain) = buffer.seal(header, self.origin.identity.log, offset);
        let length = (head.len() + payloads.len()) as u64;
        let written = match &header_block {
            Some(block) => open.slot.file.write_at(0, &[block, head, payloads]).map(|()| length + BLOCK_BYTES as u64),
            None => open.slot.file.write_at(offset, &[head, payloads]).map(|()| length),
        };
        let place = Lsn { segment: open.segment, offset: offset + length };
        self.end = LogEnd { place, seq, chain };
        match &mut self.open {
            Some(open) if self.stream == Stream::Log => open.footer_parts += footer_part(directory),
            Some(open) => open.slot.file.begin_write_back(offset, length)?,
            None => {}
        }
        written
    }

    fn segment_header(&self, open: &OpenSegment, base_seq: Seq) -> SegmentHeader {
        SegmentHeader {
            identity: self.origin.identity,
            stream: self.stream,
            segment: open.segment,
            salt: open.salt,
            slot: open.slot.slot,
            base_seq,
            incarnation: self.origin.incarnation,
            segment_bytes: self.origin.segment_bytes,
            previous: self.end,
        }
    }
}

fn used_up() -> io::Error {
    io::Error::other("the numbers of groups or segments are used up")
}
