//! Writes what is kept of a damaged log as a new one.
//!
//! The new log begins with a creation of each Raft group, its term and vote, what it has compacted and its entries, and
//! is closed cleanly. Payloads are copied with the checksums that their directories name and not with new ones: a
//! rotten one stays rotten, and is known by its name to be fetched from a peer.

use std::sync::Arc;

use pontoon_types::{
    Compaction, Creation, Entry, EntryKind, GroupId, HardState, Incarnation, Index, LogId, ReplicaId, Term,
};

use super::fold::Fold;
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
    let mut building = Building::begin(target, origin);
    for (group, dead) in &fold.tombstones {
        building.bury(*group, *dead)?;
    }
    for (group, kept) in &fold.groups {
        let creation = Creation { replica: kept.replica, descriptor: kept.descriptor.clone() };
        building.begin_group(*group, &creation, kept.hard_state, kept.compacted)?;
        if kept.must_not_vote() {
            building.silence(*group)?;
        }
        for run in kept.runs.as_slice() {
            let planned = layout.segment(run.segment).ok_or_else(|| gone(run))?;
            let source = Source::read(layout.storage, &planned.name, layout.control.segment_bytes, run)?;
            building.copy(*group, run.first, &source)?;
        }
    }
    building.finish(incarnation)
}

/// A new log on its way.
pub(crate) struct Building<'a> {
    target: &'a dyn Storage,
    writer: Writer,
    buffer: GroupBuffer,
    slots: u32,
    segment_bytes: u64,
}

impl<'a> Building<'a> {
    /// A log in `target`, of which nothing is there yet.
    pub(crate) fn begin(target: &'a dyn Storage, origin: Origin) -> Building<'a> {
        let segment_bytes = origin.segment_bytes;
        let writer = Writer::new(origin, Stream::Log, LogEnd::default());
        Building { target, writer, buffer: GroupBuffer::new(), slots: 0, segment_bytes }
    }

    /// The highest replica of the group that is dead.
    pub(crate) fn bury(&mut self, group: GroupId, dead: ReplicaId) -> Result<(), LogError> {
        // Only what exists can be removed.
        self.create(group, &Creation { replica: dead, descriptor: bytes::Bytes::new() })?;
        self.say(RunHead::plain(KIND_TOMBSTONE, group, dead.0, 0))
    }

    /// What stands of a group before its entries.
    pub(crate) fn begin_group(
        &mut self,
        group: GroupId,
        creation: &Creation,
        hard_state: HardState,
        compacted: LogId,
    ) -> Result<(), LogError> {
        self.create(group, creation)?;
        self.say(RunHead::hard_state(group, hard_state))?;
        if compacted.index > Index(0) {
            self.say(RunHead::compact(group, Compaction { to: compacted, reset: true }))?;
        }
        Ok(())
    }

    /// The replica of the group does not know its vote.
    pub(crate) fn silence(&mut self, group: GroupId) -> Result<(), LogError> {
        self.say(RunHead::plain(KIND_VOTE_LOST, group, 0, 0))
    }

    /// The entries of the group up to `index` are committed.
    pub(crate) fn committed(&mut self, group: GroupId, index: Index) -> Result<(), LogError> {
        self.say(RunHead::committed(group, index))
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

    /// Copies the entries of a run that begins at `first`, in as many pieces as it takes.
    pub(crate) fn copy(&mut self, group: GroupId, first: Index, source: &Source) -> Result<(), LogError> {
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
            let id = LogId::new(Index(first.0 + next as u64), source.term);
            self.buffer.put_run(RunHead::entries(group, id, source.kind, count as u32));
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
    pub(crate) fn finish(mut self, incarnation: Incarnation) -> Result<(), LogError> {
        if !self.buffer.is_empty() || self.writer.open().is_none() {
            self.flush()?;
        }
        if let Some(file) = self.writer.file() {
            file.sync().map_err(LogError::io("syncing the new log"))?;
        }
        let end = self.writer.end();
        let control = Control {
            identity: self.writer.origin().identity,
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

/// The records and payloads of one run, read from the log that it comes from.
pub(crate) struct Source {
    pub(crate) term: Term,
    pub(crate) kind: EntryKind,
    pub(crate) records: Vec<Record>,
    bytes: Vec<u8>,
    /// Where `bytes` starts, from the first payload of the group of records.
    from: usize,
}

impl Source {
    /// Reads a run from the segment of this name and size.
    pub(crate) fn read(
        storage: &dyn Storage,
        name: &str,
        segment_bytes: u64,
        run: &RunPlace,
    ) -> Result<Source, LogError> {
        let file: Arc<dyn SegmentFile> = disk::open(storage, name)?;
        let head = RunHead::decode(&disk::load_range(file.as_ref(), run.head_at as usize, RUN_BYTES)?);
        let skipped = run.first.0.checked_sub(head.index).ok_or_else(|| gone(run))?;
        if end(run).0 > head.index + u64::from(head.count) {
            return Err(gone(run));
        }
        let records_at = run.head_at as usize + RUN_BYTES + skipped as usize * RECORD_BYTES;
        let directory = disk::load_range(file.as_ref(), records_at, run.count as usize * RECORD_BYTES)?;
        let records: Vec<Record> = directory.chunks_exact(RECORD_BYTES).map(Record::decode).collect();
        let from = records.iter().map(|record| record.offset).min().unwrap_or(0);
        let until = records.iter().map(|record| record.offset + record.length).max().unwrap_or(0);
        let start = run.payloads_at as usize + from;
        if (start + until - from) as u64 > segment_bytes {
            return Err(gone(run));
        }
        let bytes = disk::load_range(file.as_ref(), start, until - from)?;
        Ok(Source { term: Term(head.term), kind: head.entry_kind(), records, bytes, from })
    }

    /// One entry, under an identity of its own.
    pub(crate) fn of(entry: &Entry) -> Source {
        let record = Record { offset: 0, length: entry.payload.len(), crc: crc32fast::hash(&entry.payload) };
        let bytes = entry.payload.to_vec();
        Source { term: entry.id.term, kind: entry.kind, records: vec![record], bytes, from: 0 }
    }

    /// The same identities, with nothing in them.
    pub(crate) fn emptied(self) -> Source {
        let record = Record { offset: 0, length: 0, crc: crc32fast::hash(&[]) };
        let records = vec![record; self.records.len()];
        Source { records, kind: EntryKind::Command, bytes: Vec::new(), from: 0, ..self }
    }

    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        let start = record.offset - self.from;
        &self.bytes[start..start + record.length]
    }

    /// Whether a payload is what was written.
    pub(crate) fn is_intact(&self, record: &Record) -> bool {
        crc32fast::hash(self.payload(record)) == record.crc
    }
}

fn gone(run: &RunPlace) -> LogError {
    LogError::Unreadable { why: format!("the entries from {} on are not where they were", run.first) }
}
