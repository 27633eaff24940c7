//! Copies the entries that are still needed out of nearly empty segments.
//!
//! What is copied gets a directory of its own with a checksum of its own, so everything is checked before: a run whose
//! directory is rotten is copied as the footer knows it, or stays where it is, as one with a rotten payload does, and its
//! segment with it. The copy of a payload keeps the checksum that it was written with. Copies go into segments of their own, because what has lived long tends to live on,
//! and mixed with young entries it would soon have to be copied again.

use std::io;

use bytes::Bytes;
use pontoon_types::{GroupId, Index, LogId, ReplicaId, Term};

use super::scrub::{Found, Rot, RottenEntry};
use super::{Keeper, Mappings, Moved, Report, footer_place, ready_for};
use crate::append::{GroupBuffer, Room, segment_room};
use crate::cold::{Looking, Warming};
use crate::format::checkpoint::RunPlace;
use crate::format::record::RunHead;
use crate::format::segment_header::Stream;
use crate::format::{LogEnd, SegmentKey, slot_name};
use crate::prepare::Preparation;
use crate::segments::{Segment, Segments};
use crate::state::runs::end;
use crate::state::{LogState, PlacedRun};
use crate::write::Writer;

/// A group of copies is closed at about this size: each is one piece of work for the disk, which the commits wait for.
const GROUP_BYTES: usize = 256 << 10;

/// A copied run that waits in the buffer for its place.
struct Waiting {
    group: GroupId,
    replica: ReplicaId,
    from: SegmentKey,
    first: Index,
    count: u32,
    /// Where its head stands in the directory.
    directory_offset: usize,
}

struct Copying<'a> {
    keeper: &'a mut Keeper,
    writer: Writer,
    buffer: GroupBuffer,
    waiting: Vec<Waiting>,
    moved: Vec<Moved>,
}

/// Empties `victims` as far as there is room, and lets `state` and the report say where the entries are now.
pub(crate) fn rewrite(
    keeper: &mut Keeper,
    state: &mut LogState,
    victims: &[SegmentKey],
    mappings: &Mappings,
    report: &mut Report,
) -> io::Result<()> {
    let known: Vec<SegmentKey> = keeper.start.kept.keys().copied().collect();
    let writer = match keeper.cold.take() {
        Some(writer) => writer,
        None => Writer::new(keeper.start.origin.clone(), Stream::Cold, LogEnd::default()),
    };
    let mut copying = Copying { keeper, writer, buffer: GroupBuffer::new(), waiting: Vec::new(), moved: Vec::new() };
    let mut has_room = true;
    let mut sources = sources(copying.keeper, victims);
    let (log, mut warming) = (copying.keeper.start.origin.identity.log, Warming::new(Preparation::Inline));
    for group in state.ids() {
        let Some(of) = state.group(group).filter(|_| has_room) else { continue };
        for run in of.runs.as_slice().iter().filter(|run| victims.contains(&run.segment)) {
            let Some(bytes) = mappings.of_group(run.segment, run.head_at as usize, log)? else { continue };
            let mut intact = sources.has_intact_directory(&bytes, run).then_some(*run);
            if intact.is_none()
                && let Some(bytes) = mappings.get(run.segment, 0..usize::MAX)?
            {
                // To find the other copy is to look through the segment.
                intact = sources.other_copy(&mut Looking::patient(&mut warming), &bytes, group, run).ok().flatten();
            }
            let Some(run) = &intact else {
                let rot = copying.rotten(run, None);
                report.rot.extend(rot.map(|rot| Found { rot, segment: run.segment, payloads_at: run.payloads_at }));
                continue;
            };
            let Some(bytes) = mappings.of_run(run)? else { continue };
            match PlacedRun::find(&bytes, run).map(|placed| copying.check(group, run, &placed)) {
                Some(None) => {}
                Some(Some(rot)) => {
                    report.rot.push(Found { rot, segment: run.segment, payloads_at: run.payloads_at });
                    continue;
                }
                None => continue,
            }
            has_room = copying.copy(group, of.replica, run, &bytes)?;
            if !has_room {
                break;
            }
        }
    }
    copying.flush()?;
    let Copying { writer, moved, .. } = copying;
    if let Some(file) = writer.file() {
        file.sync()?;
    }
    for moved in &moved {
        if let Some(of) = state.group_mut(moved.group) {
            of.runs.replace(&moved.to, Some(moved.from));
        }
    }
    for (key, kept) in &mut keeper.start.kept {
        if kept.fact.stream == Stream::Cold && !known.contains(key) {
            report.cold.push((kept.fact.segment, kept.slot.clone()));
        }
        if writer.open().is_some_and(|open| open.segment.key() == *key) {
            kept.fact.end_offset = writer.end().place.offset;
        }
    }
    keeper.cold = Some(writer);
    report.moved.extend(moved);
    Ok(())
}

/// The segments that are emptied, to find intact directories in.
fn sources(keeper: &Keeper, victims: &[SegmentKey]) -> Segments {
    let log = keeper.start.origin.identity.log;
    let mut sources = Segments::new(log);
    for kept in victims.iter().filter_map(|victim| keeper.start.kept.get(victim)) {
        let (segment, slot) = (kept.fact.segment, kept.slot.clone());
        sources.insert(match kept.fact.stream {
            Stream::Log => Segment::closed(segment, slot, footer_place(&kept.fact, log)),
            _ => Segment::new(segment, slot),
        });
    }
    sources
}

impl Copying<'_> {
    /// The first rotten entry of a run.
    fn check(&self, group: GroupId, run: &RunPlace, placed: &PlacedRun<'_>) -> Option<Rot> {
        let rotten = |index: &Index| {
            placed.entry(*index).is_none_or(|(record, payload, _)| crc32fast::hash(payload) != record.crc)
        };
        let index = (run.first.0..end(run).0).map(Index).find(rotten)?;
        let id = LogId::new(index, Term(placed.head.term));
        // An entry that the directory does not place has no checksum: nothing in memory is taken for it.
        let crc = placed.entry(index).map(|(record, ..)| record.crc);
        self.rotten(run, crc.map(|crc| RottenEntry { group, id, crc }))
    }

    fn rotten(&self, run: &RunPlace, entry: Option<RottenEntry>) -> Option<Rot> {
        let kept = self.keeper.start.kept.get(&run.segment)?;
        Some(Rot { file: slot_name(kept.slot.slot), offset: u64::from(run.head_at), entry })
    }

    /// Copies a run that was checked. False when there is no room.
    fn copy(&mut self, group: GroupId, replica: ReplicaId, run: &RunPlace, bytes: &Bytes) -> io::Result<bool> {
        let Some(placed) = PlacedRun::find(bytes, run) else { return Ok(true) };
        let group_bytes_max = GROUP_BYTES.min(segment_room(self.keeper.start.origin.segment_bytes));
        let mut next = run.first;
        while next < end(run) {
            let mut payloads = Vec::new();
            let mut room = self.buffer.room().plus(Room { directory: crate::format::record::RUN_BYTES, payloads: 0 });
            for index in next.0..end(run).0 {
                let Some((record, payload, _)) = placed.entry(Index(index)) else { break };
                let with = room.plus(Room::of_payload(payload));
                if with.group_len() > group_bytes_max && !(payloads.is_empty() && self.buffer.is_empty()) {
                    break;
                }
                room = with;
                payloads.push((payload, record.crc));
            }
            if payloads.is_empty() {
                if !self.flush()? {
                    return Ok(false);
                }
                continue;
            }
            let directory_offset = self.buffer.room().directory;
            let (from, count) = (run.segment, payloads.len() as u32);
            let first = LogId::new(next, Term(placed.head.term));
            self.buffer.put_run(RunHead::entries(group, first, placed.head.entry_kind(), count));
            for (payload, crc) in payloads {
                self.buffer.put_copy(payload, crc);
            }
            self.waiting.push(Waiting { group, replica, from, first: next, count, directory_offset });
            next = Index(next.0 + u64::from(count));
        }
        Ok(true)
    }

    /// Writes what waits. False when there is no room for it; then it is forgotten, and stays where it was.
    fn flush(&mut self) -> io::Result<bool> {
        if self.buffer.is_empty() {
            return Ok(true);
        }
        let mut buffer = std::mem::replace(&mut self.buffer, GroupBuffer::new());
        let waiting = std::mem::take(&mut self.waiting);
        let start = &mut self.keeper.start;
        if !ready_for(&mut self.writer, buffer.room(), Stream::Cold, &start.pool, &mut start.kept)? {
            return Ok(false);
        }
        let place = self.writer.next_place(buffer.room().directory);
        let written = self.writer.write(&mut buffer, 0)?;
        (self.keeper.pace)(written);
        for Waiting { group, replica, from, first, count, directory_offset } in waiting {
            let to = RunPlace {
                first,
                count,
                segment: place.segment,
                head_at: (place.directory_at + directory_offset) as u32,
                payloads_at: place.payloads_at as u32,
            };
            self.moved.push(Moved { group, replica, from, to });
        }
        Ok(true)
    }
}
