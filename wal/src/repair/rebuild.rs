//! Writes what is kept of a damaged log as a new one.
//!
//! The new log begins with a creation of each Raft group, its term and vote, what it has compacted and its entries, and
//! is closed cleanly. Payloads are copied with the checksums that their directories name and not with new ones: a
//! rotten one stays rotten, and is known by its name to be fetched from a peer.

use std::sync::Arc;

use pontoon_types::{Compaction, Creation, EntryKind, GroupId, Incarnation, Index, LogId, Term};

use super::fold::{Fold, KeptGroup};
use crate::LogError;
use crate::append::{GroupBuffer, Room, segment_room};
use crate::control::ControlFile;
use crate::format::checkpoint::RunPlace;
use crate::format::control::Control;
use crate::format::record::{KIND_TOMBSTONE, KIND_VOTE_LOST, RECORD_BYTES, RUN_BYTES, Record, RunHead};
use crate::format::segment_header::Stream;
use crate::format::{LogEnd, PAYLOAD_ALIGN_BYTES, round_up};
use crate::inspect::disk;
use crate::inspect::layout::Layout;
use crate::prepare::prepare_slot;
use crate::state::runs::end;
use crate::storage::{SegmentFile, Storage};
use crate::write::{Origin, SegmentIds, Writer};

/// A group of records is closed at about this size.
const GROUP_BYTES: usize = 1 << 20;

/// Writes the log. All of it is durable afterwards; before, it is no log.
pub(crate) fn rebuild(
    layout: &Layout<'_>,
    fold: &Fold,
    incarnation: Incarnation,
    target: &dyn Storage,
) -> Result<(), LogError> {
    let origin = Origin {
        identity: layout.identity(),
        incarnation,
        segment_bytes: layout.control.segment_bytes,
        salt_seed: target.salt().map_err(LogError::io("drawing a salt"))?,
        ids: SegmentIds::above(layout.newest_seen()),
    };
    let segment_bytes = origin.segment_bytes;
    let writer = Writer::new(origin, Stream::Log, LogEnd::default());
    let mut building = Building { layout, target, writer, buffer: GroupBuffer::new(), slots: 0, segment_bytes };
    for (group, dead) in &fold.tombstones {
        // Only what exists can be removed.
        let creation = Creation { replica: *dead, descriptor: bytes::Bytes::new() };
        building.create(*group, &creation)?;
        building.say(RunHead::plain(KIND_TOMBSTONE, *group, dead.0, 0))?;
    }
    for (group, kept) in &fold.groups {
        building.put_group(*group, kept)?;
    }
    building.finish(layout, incarnation)
}

struct Building<'a> {
    layout: &'a Layout<'a>,
    target: &'a dyn Storage,
    writer: Writer,
    buffer: GroupBuffer,
    slots: u32,
    segment_bytes: u64,
}

impl Building<'_> {
    fn put_group(&mut self, group: GroupId, kept: &KeptGroup) -> Result<(), LogError> {
        let creation = Creation { replica: kept.replica, descriptor: kept.descriptor.clone() };
        self.create(group, &creation)?;
        self.say(RunHead::hard_state(group, kept.hard_state))?;
        if kept.compacted.index > Index(0) {
            self.say(RunHead::compact(group, Compaction { to: kept.compacted, reset: true }))?;
        }
        if kept.must_not_vote() {
            self.say(RunHead::plain(KIND_VOTE_LOST, group, 0, 0))?;
        }
        for run in kept.runs.as_slice() {
            self.copy(group, run)?;
        }
        Ok(())
    }

    fn create(&mut self, group: GroupId, creation: &Creation) -> Result<(), LogError> {
        self.make_room(Room::of_record(&creation.descriptor))?;
        self.buffer.put_create(group, creation);
        Ok(())
    }

    fn say(&mut self, head: RunHead) -> Result<(), LogError> {
        self.make_room(Room { directory: RUN_BYTES, payloads: 0 })?;
        self.buffer.put_run(head);
        Ok(())
    }

    fn fits(&self, room: Room) -> bool {
        room.group_len() <= GROUP_BYTES && room.in_segment() <= segment_room(self.segment_bytes)
    }

    fn make_room(&mut self, room: Room) -> Result<(), LogError> {
        if !self.buffer.is_empty() && !self.fits(self.buffer.room().plus(room)) {
            self.flush()?;
        }
        Ok(())
    }

    /// Copies the entries of a run, in as many pieces as it takes.
    fn copy(&mut self, group: GroupId, run: &RunPlace) -> Result<(), LogError> {
        let source = Source::of(self.layout, run)?;
        let head_room = Room { directory: RUN_BYTES, payloads: 0 };
        let mut next = 0;
        while next < source.records.len() {
            let mut room = self.buffer.room().plus(head_room);
            let mut count = 0;
            for record in &source.records[next..] {
                let payloads = round_up(record.length, PAYLOAD_ALIGN_BYTES);
                let with = room.plus(Room { directory: RECORD_BYTES, payloads });
                // The first one always: it had a group of records to itself before.
                let is_alone = count == 0 && self.buffer.is_empty();
                if !is_alone && !self.fits(with) {
                    break;
                }
                room = with;
                count += 1;
            }
            if count == 0 {
                self.flush()?;
                continue;
            }
            let first = LogId::new(Index(run.first.0 + next as u64), source.term);
            self.buffer.put_run(RunHead::entries(group, first, source.kind, count as u32));
            for record in &source.records[next..next + count] {
                self.buffer.put_copy(source.payload(record), record.crc);
            }
            next += count;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let mut buffer = std::mem::replace(&mut self.buffer, GroupBuffer::new());
        if !self.writer.fits(buffer.room()) {
            if let Some(file) = self.writer.file() {
                file.sync().map_err(LogError::io("syncing a segment of the new log"))?;
            }
            self.slots += 1;
            let made = prepare_slot(self.target, self.slots, self.segment_bytes, &mut |_| true);
            let slot = made.map_err(LogError::io("preparing a segment of the new log"))?;
            let slot = slot.expect("preparing a segment stops early only when asked to");
            self.writer.start_segment(slot).map_err(LogError::io("starting a segment of the new log"))?;
        }
        self.writer.write(&mut buffer, 0).map_err(LogError::io("writing the new log"))?;
        Ok(())
    }

    /// The last group, which may say nothing: a log has a segment. Then the control file, which makes it a log.
    fn finish(mut self, layout: &Layout<'_>, incarnation: Incarnation) -> Result<(), LogError> {
        if !self.buffer.is_empty() || self.writer.open().is_none() {
            self.flush()?;
        }
        if let Some(file) = self.writer.file() {
            file.sync().map_err(LogError::io("syncing the new log"))?;
        }
        let end = self.writer.end();
        let control = Control {
            identity: layout.identity(),
            generation: 1,
            incarnation,
            durable_seq: end.seq,
            newest_segment: end.place.segment,
            segment_bytes: self.segment_bytes,
            clean_end: Some(end),
            checkpoints: [None, None],
        };
        ControlFile::create(self.target, control).map_err(LogError::io("creating ctl"))
    }
}

/// The records and payloads of one run, read from the damaged log.
struct Source {
    term: Term,
    kind: EntryKind,
    records: Vec<Record>,
    bytes: Vec<u8>,
    /// Where `bytes` starts, from the first payload of the group of records.
    from: usize,
}

impl Source {
    fn of(layout: &Layout<'_>, run: &RunPlace) -> Result<Source, LogError> {
        let gone =
            || LogError::Unreadable { why: format!("the entries from {} on are not where they were", run.first) };
        let planned = layout.segment(run.segment).ok_or_else(gone)?;
        let file: Arc<dyn SegmentFile> = disk::open(layout.storage, &planned.name)?;
        let head = RunHead::decode(&disk::load_range(file.as_ref(), run.head_at as usize, RUN_BYTES));
        let skipped = run.first.0.checked_sub(head.index).ok_or_else(gone)?;
        if end(run).0 > head.index + u64::from(head.count) {
            return Err(gone());
        }
        let records_at = run.head_at as usize + RUN_BYTES + skipped as usize * RECORD_BYTES;
        let directory = disk::load_range(file.as_ref(), records_at, run.count as usize * RECORD_BYTES);
        let records: Vec<Record> = directory.chunks_exact(RECORD_BYTES).map(Record::decode).collect();
        let from = records.iter().map(|record| record.offset).min().unwrap_or(0);
        let until = records.iter().map(|record| record.offset + record.length).max().unwrap_or(0);
        let start = run.payloads_at as usize + from;
        if (start + until - from) as u64 > layout.control.segment_bytes {
            return Err(gone());
        }
        let bytes = disk::load_range(file.as_ref(), start, until - from);
        Ok(Source { term: Term(head.term), kind: head.entry_kind(), records, bytes, from })
    }

    fn payload(&self, record: &Record) -> &[u8] {
        let start = record.offset - self.from;
        &self.bytes[start..start + record.length]
    }
}
