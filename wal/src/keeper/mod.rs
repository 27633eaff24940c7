//! Keeps the log small: footers, checkpoints, and the copies that let segments be used again.
//!
//! The keeper works beside the core, on a thread of its own, and shares nothing with it but the files and the stock of
//! free ones. What it knows it reads from the log itself, the way a recovery would: the newest checkpoint, and the
//! directories of the segments closed since. So every checkpoint is also a rehearsal of the recovery that will use it.
//!
//! For each closed segment it writes the footer. When enough segments were closed ([`plan::is_due`]) it
//!
//! 1. folds their directories into the state of the newest checkpoint;
//! 2. copies the entries that are still needed out of nearly empty segments into cold ones ([`rewrite`]) and syncs;
//! 3. writes the state as a new checkpoint, syncs, and names it in the control file;
//! 4. gives up every segment that neither this checkpoint nor the one before it needs.
//!
//! Because two checkpoints are kept with all that they need, an unreadable one costs time and no data, in a running log
//! (`fallback`) as at a start. A crash at any
//! point leaves the control file naming checkpoints that are whole; what was written for the next one counts for
//! nothing and its segments are free at the next open.
//!
//! The core learns the result as a [`Report`]: which entries lie elsewhere now, and which segments it must let go of.
//!
//! A failed write or sync ends the keeper and fences the log: a disk that fails once is not trusted again. A disk that
//! is full only puts the next checkpoint off.

pub(crate) mod checkpoint;
mod closed;
mod fallback;
mod live;
mod mappings;
pub(crate) mod plan;
pub(crate) mod rewrite;
pub(crate) mod scrub;
pub(crate) mod thread;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use pontoon_types::{GroupId, Index, ReplicaId};

use crate::format::checkpoint::{Head, RunPlace, SegmentFact};
use crate::format::control::CheckpointRef;
use crate::format::footer::FooterPlace;
use crate::format::segment_header::{SegmentHeader, Stream};
use crate::format::{BLOCK_BYTES, LogEnd, SegmentId, SegmentKey};
use crate::keeper::checkpoint::CheckpointImage;
pub(crate) use crate::keeper::closed::footer_place;
use crate::keeper::closed::{fold_segment, write_footer};
use crate::keeper::live::{LiveBytes, LiveEntries};
use crate::keeper::mappings::Mappings;
use crate::keeper::plan::{Room, Usage};
use crate::keeper::scrub::Found;
use crate::open::is_intact;
use crate::prepare::{Pool, RESERVED_SLOTS, SharedControl, Slot, lock_control};
use crate::state::LogState;
use crate::state::checkpoint::{Loaded, encode};
use crate::write::{OpenSegment, Origin, Writer};

/// A segment that is not written to any more.
pub(crate) struct Kept {
    pub(crate) fact: SegmentFact,
    pub(crate) slot: Slot,
    /// A footer was written by this keeper. Of others it is not known whether they ever had one.
    pub(crate) has_footer: bool,
}

/// A log segment that the log has left behind, durable as a whole.
pub(crate) struct Closed {
    pub(crate) open: OpenSegment,
    /// The last group in it.
    pub(crate) end: LogEnd,
}

impl Closed {
    fn fact(&self) -> SegmentFact {
        let OpenSegment { slot, segment, salt, .. } = &self.open;
        let end_offset = self.end.place.offset;
        SegmentFact { segment: *segment, end_offset, slot: slot.slot, salt: *salt, stream: Stream::Log }
    }

    /// Where its footer goes.
    pub(crate) fn footer(&self, log: u128) -> FooterPlace {
        footer_place(&self.fact(), log)
    }
}

/// A checkpoint that the control file names.
pub(crate) struct Known {
    pub(crate) reference: CheckpointRef,
    pub(crate) covered: LogEnd,
    /// The segments that its runs lie in.
    pub(crate) needs: BTreeSet<SegmentKey>,
    /// The segments that it stands in itself.
    pub(crate) files: BTreeSet<SegmentKey>,
    pub(crate) bytes: u64,
}

/// Entries that lie elsewhere now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) from: SegmentKey,
    pub(crate) to: RunPlace,
}

/// A group whose entries keep old segments from being used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactHint {
    /// The group.
    pub group: GroupId,
    /// Compacting up to here would free its share of the oldest segments.
    pub up_to: Index,
}

/// What the core has to take over.
#[derive(Default)]
pub(crate) struct Report {
    /// Cold segments that entries were moved to.
    pub(crate) cold: Vec<(SegmentId, Slot)>,
    pub(crate) moved: Vec<Moved>,
    pub(crate) freed: Vec<(SegmentKey, Slot)>,
    /// If they were looked for.
    pub(crate) hints: Option<Vec<CompactHint>>,
    pub(crate) rot: Vec<Found>,
    pub(crate) checkpoints: u64,
    pub(crate) bytes: u64,
}

/// What a keeper starts with.
pub(crate) struct Start {
    pub(crate) origin: Origin,
    pub(crate) pool: Arc<Pool>,
    pub(crate) control: SharedControl,
    pub(crate) kept: BTreeMap<SegmentKey, Kept>,
    /// Closed log segments behind the newest checkpoint, in order.
    pub(crate) uncovered: Vec<(SegmentKey, LogEnd)>,
    pub(crate) checkpoints: [Option<Known>; 2],
    pub(crate) checkpoint_segments: u64,
}

/// Keeps one log small.
pub(crate) struct Keeper {
    start: Start,
    /// Where the next checkpoint goes.
    writer: Option<Writer>,
    /// Where the next copies go.
    cold: Option<Writer>,
    live_bytes: LiveBytes,
    /// A checkpoint was forgotten, and the log may still read what was copied for it.
    has_forgotten: bool,
    /// Called with the bytes just copied; the thread rests here.
    pace: Box<dyn FnMut(u64) + Send>,
}

impl Keeper {
    pub(crate) fn new(start: Start, pace: Box<dyn FnMut(u64) + Send>) -> Keeper {
        Keeper { start, writer: None, cold: None, live_bytes: LiveBytes::default(), has_forgotten: false, pace }
    }

    /// Takes over a segment that the log has left.
    pub(crate) fn closed(&mut self, closed: Closed) -> io::Result<Report> {
        let fact = closed.fact();
        let Closed { open, end } = closed;
        let mut kept = Kept { fact, slot: open.slot, has_footer: false };
        kept.has_footer = write_footer(&kept, self.start.origin.identity.log)?;
        self.start.uncovered.push((fact.segment.key(), end));
        self.start.kept.insert(fact.segment.key(), kept);
        self.look()
    }

    /// Makes a checkpoint if one is due, whether or not a segment was closed.
    pub(crate) fn look(&mut self) -> io::Result<Report> {
        let mut report = Report::default();
        self.keep(&mut report)?;
        Ok(report)
    }

    /// Makes a checkpoint if one is due.
    pub(crate) fn keep(&mut self, report: &mut Report) -> io::Result<()> {
        if self.is_due(self.room()) { self.make_checkpoint(report) } else { Ok(()) }
    }

    fn is_due(&self, room: Room) -> bool {
        let last_bytes = self.start.checkpoints[0].as_ref().map_or(0, |known| known.bytes);
        let uncovered = self.start.uncovered.len() as u64;
        let segment_bytes = self.start.origin.segment_bytes;
        plan::is_due(uncovered, segment_bytes, self.start.checkpoint_segments, last_bytes, room)
    }

    /// Whether three quarters of the allowed size are used.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.room().is_short()
    }

    fn room(&self) -> Room {
        let (used, allowed) = self.start.pool.used();
        Room { used, allowed }
    }

    fn make_checkpoint(&mut self, report: &mut Report) -> io::Result<()> {
        let mappings = Mappings::of(&self.start.kept);
        let Some((_, covered)) = self.start.uncovered.last().copied() else { return Ok(()) };
        let mut state = self.fold(&mappings, report)?;
        let entries = live::entries(&state);
        let room = self.room();
        // Many groups with little each may hold all of it; copying them would not make it smaller.
        let is_short = room.is_short();
        report.hints = Some(live::hints(&state, &self.oldest(is_short), is_short, &mappings)?);
        // Counting entries touches no segment; measuring their bytes does.
        let mut victims = if room.is_worth_copying() {
            plan::victims(&self.usages(&state, &entries, &mappings)?, self.start.origin.segment_bytes, room)
        } else {
            Vec::new()
        };
        let frees_without = self.settled().any(|segment| !entries.contains_key(&segment.key()))
            || self.is_due(Room { used: 0, ..room });
        while frees_without || !victims.is_empty() {
            if self.try_checkpoint(state, covered, &victims, &mappings, report)? || victims.is_empty() {
                return Ok(());
            }
            // The copies took more room than there was.
            victims.truncate(victims.len() / 2);
            state = self.fold(&mappings, report)?;
        }
        // Only the lack of room made it due, and it would take room.
        Ok(())
    }

    /// Copies what is needed out of `victims` and makes a checkpoint. False when there is no room for it, or not enough
    /// to empty any of them.
    fn try_checkpoint(
        &mut self,
        mut state: LogState,
        covered: LogEnd,
        victims: &[SegmentKey],
        mappings: &Mappings,
        report: &mut Report,
    ) -> io::Result<bool> {
        let before: BTreeSet<SegmentKey> = self.start.kept.keys().copied().collect();
        if !victims.is_empty() {
            rewrite::rewrite(self, &mut state, victims, mappings, report)?;
        }
        let needed = state.segments();
        let has_emptied = victims.is_empty() || victims.iter().any(|victim| !needed.contains(victim));
        if !has_emptied || !self.write_checkpoint(&state, covered, mappings, report)? {
            self.abandon(&before, report);
            return Ok(false);
        }
        self.start.uncovered.clear();
        let before: BTreeSet<SegmentKey> = self.start.kept.keys().copied().collect();
        if self.room().is_short()
            && self.is_older_in_the_way()
            // The older checkpoint holds segments that the newer does not need. Written twice, the newer is both.
            && !self.write_checkpoint(&state, covered, mappings, report)?
        {
            self.give_up_new(&before, report);
        }
        if self.has_forgotten {
            report.moved.extend(self.moved_back(&state)?);
            self.has_forgotten = false;
        }
        self.free(report);
        Ok(true)
    }

    /// There was no room for a checkpoint: what was copied for it counts for nothing.
    fn abandon(&mut self, before: &BTreeSet<SegmentKey>, report: &mut Report) {
        report.moved.clear();
        report.cold.clear();
        self.give_up_new(before, report);
    }

    /// Gives up the segments that were begun since `before`.
    fn give_up_new(&mut self, before: &BTreeSet<SegmentKey>, report: &mut Report) {
        let new: Vec<SegmentKey> = self.start.kept.keys().filter(|key| !before.contains(key)).copied().collect();
        for key in new {
            for writer in [&mut self.writer, &mut self.cold] {
                let writes_to = |writer: &mut Writer| writer.open().is_some_and(|open| open.segment.key() == key);
                writer.take_if(writes_to);
            }
            if let Some(kept) = self.start.kept.remove(&key) {
                report.freed.push((key, kept.slot));
            }
        }
    }

    /// The state at the end of the last closed segment.
    fn fold(&mut self, mappings: &Mappings, report: &mut Report) -> io::Result<LogState> {
        let mut state = self.begin(mappings, report)?;
        for (key, end) in &self.start.uncovered {
            let missing = || rotten(format!("segment {} is missing", key.0));
            let kept = self.start.kept.get(key).ok_or_else(missing)?;
            fold_segment(&mut state, kept, mappings, end, self.start.origin.identity.log)?;
        }
        Ok(state)
    }

    fn load(&self, reference: &CheckpointRef, mappings: &Mappings) -> io::Result<Loaded> {
        let mut image = |segment: SegmentId| {
            let bytes = mappings.of_checkpoint(segment, reference).map_err(|error| error.to_string())?;
            let bytes = bytes.ok_or_else(|| format!("segment {segment} is missing"))?;
            let header = SegmentHeader::decode(&bytes[..BLOCK_BYTES]).map_err(|fault| fault.to_string())?;
            Ok(CheckpointImage { header, bytes })
        };
        let read = checkpoint::read(reference, &mut image);
        read.map(|(loaded, _)| loaded).map_err(|why| rotten(format!("the newest checkpoint: {why}")))
    }

    /// The segments with entries that are not written to any more.
    fn settled(&self) -> impl Iterator<Item = SegmentId> {
        let written = self.cold.as_ref().and_then(Writer::open).map(|open| open.segment.key());
        let with_entries = self.start.kept.values().filter(|kept| kept.fact.stream != Stream::Checkpoint);
        with_entries.map(|kept| kept.fact.segment).filter(move |segment| Some(segment.key()) != written)
    }

    /// What lives in each of the settled segments.
    fn usages(&mut self, state: &LogState, entries: &LiveEntries, mappings: &Mappings) -> io::Result<Vec<Usage>> {
        self.live_bytes.measure(state, entries, mappings)?;
        let newest = self.start.kept.values().map(|kept| kept.fact.segment.0).max().unwrap_or(0);
        let usage = |segment: SegmentId| {
            let live_bytes = self.live_bytes.of(segment.key());
            Usage { segment: segment.key(), live_bytes, age: newest - segment.0 }
        };
        Ok(self.settled().map(usage).collect())
    }

    /// The oldest fifth of the log's segments, and if `cold` all copies, which are older still.
    fn oldest(&self, cold: bool) -> BTreeSet<SegmentKey> {
        let of = |stream| {
            let of_stream = self.start.kept.values().filter(move |kept| kept.fact.stream == stream);
            of_stream.map(|kept| kept.fact.segment)
        };
        let mut ids: Vec<SegmentId> = of(Stream::Log).collect();
        ids.sort_unstable();
        ids.truncate(ids.len().div_ceil(5));
        ids.extend(of(Stream::Cold).filter(|_| cold));
        ids.iter().map(|id| id.key()).collect()
    }

    /// Writes and names a checkpoint. False when there is no room for it.
    fn write_checkpoint(
        &mut self,
        state: &LogState,
        covered: LogEnd,
        mappings: &Mappings,
        report: &mut Report,
    ) -> io::Result<bool> {
        let needs = state.segments();
        let fact = |key: &SegmentKey| self.start.kept.get(key).map(|kept| kept.fact);
        let facts: Option<Vec<SegmentFact>> = needs.iter().map(fact).collect();
        let facts = facts.ok_or_else(|| rotten("entries lie in a segment that is not kept".to_string()))?;
        let head = Head { covered, groups: state.ids().len() as u64, segments: facts.len() as u64 };
        let origin = self.start.origin.clone();
        let segment_bytes = origin.segment_bytes;
        let mut writer =
            self.writer.take().unwrap_or_else(|| Writer::new(origin, Stream::Checkpoint, LogEnd::default()));
        let start = writer.end();
        let (mut files, mut bytes, mut full) = (BTreeSet::new(), 0, false);
        let kept = &mut self.start.kept;
        let pool = &self.start.pool;
        let pace = &mut self.pace;
        let mut emit = |buffer: &mut crate::append::GroupBuffer| -> io::Result<()> {
            if !ready_for(&mut writer, buffer.room(), Stream::Checkpoint, pool, kept)? {
                full = true;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = writer.write(buffer, 0)?;
            bytes += written;
            pace(written);
            files.insert(writer.end().place.segment.key());
            Ok(())
        };
        let log = self.start.origin.identity.log;
        let intact_groups = RefCell::new(BTreeSet::new());
        // The copy gets a checksum of its own, and nobody would see any more what it was made of.
        let descriptor = |place: crate::state::Place| {
            let (start, length) = (place.offset as usize, place.length as usize);
            let mapped = mappings.of_group(place.segment, start, log)?;
            let intact = mapped.filter(|bytes| is_intact(bytes, log, place, &mut intact_groups.borrow_mut()));
            let found = intact.map(|bytes| bytes.slice(start..start + length));
            found.ok_or_else(|| rotten(format!("a descriptor in segment {} is not what was written", place.segment.0)))
        };
        let encoded = encode(state, &head, &facts, descriptor, segment_bytes, &mut emit);
        let synced = match (encoded, writer.file()) {
            (Ok(()), Some(file)) => file.sync(),
            (encoded, _) => encoded,
        };
        let reference = CheckpointRef { start, end: writer.end() };
        self.writer = Some(writer);
        if full {
            return Ok(false);
        }
        synced?;
        lock_control(&self.start.control).checkpoint(reference)?;
        report.checkpoints += 1;
        report.bytes += bytes;
        let newest = Some(Known { reference, covered, needs, files, bytes });
        self.start.checkpoints[1] = std::mem::replace(&mut self.start.checkpoints[0], newest);
        Ok(true)
    }

    /// Whether the older checkpoint needs what the newer does not.
    fn is_older_in_the_way(&self) -> bool {
        let [Some(newer), older] = &self.start.checkpoints else { return false };
        let held_by_older = |kept: &Kept| {
            let key = kept.fact.segment.key();
            kept.fact.stream != Stream::Checkpoint && !newer.needs.contains(&key) && self.is_needed_by(older, kept)
        };
        self.start.kept.values().any(held_by_older)
    }

    fn is_needed_by(&self, known: &Option<Known>, kept: &Kept) -> bool {
        let key = kept.fact.segment.key();
        match known {
            Some(known) => {
                let behind = kept.fact.stream == Stream::Log && kept.fact.segment > known.covered.place.segment;
                behind || known.needs.contains(&key) || known.files.contains(&key)
            }
            // Without a checkpoint, recovery reads the log from its beginning.
            None => kept.fact.stream == Stream::Log,
        }
    }

    /// Gives up what neither checkpoint needs.
    fn free(&mut self, report: &mut Report) {
        // New copies can begin a segment anew; one that nothing is left in is not kept for them.
        let is_used = |key: SegmentKey| self.start.checkpoints.iter().flatten().any(|known| known.needs.contains(&key));
        if self.cold.as_ref().and_then(Writer::open).is_some_and(|open| !is_used(open.segment.key())) {
            self.cold = None;
        }
        let open = [&self.writer, &self.cold]
            .map(|writer| writer.as_ref().and_then(Writer::open).map(|open| open.segment.key()));
        let is_needed = |kept: &Kept| {
            open.contains(&Some(kept.fact.segment.key()))
                || self.start.checkpoints.iter().any(|known| self.is_needed_by(known, kept))
        };
        let freed: Vec<SegmentKey> =
            self.start.kept.iter().filter(|(_, kept)| !is_needed(kept)).map(|(key, _)| *key).collect();
        for key in freed {
            if let Some(kept) = self.start.kept.remove(&key) {
                report.freed.push((key, kept.slot));
            }
        }
    }
}

/// Makes room for the next group of a cold or checkpoint stream. False when there is no free slot.
fn ready_for(
    writer: &mut Writer,
    room: crate::append::Room,
    stream: Stream,
    pool: &Pool,
    kept: &mut BTreeMap<SegmentKey, Kept>,
) -> io::Result<bool> {
    if writer.fits(room) {
        return Ok(true);
    }
    // Without a checkpoint copies free nothing, so they leave the reserve to it.
    let left = if stream == Stream::Cold { RESERVED_SLOTS } else { 0 };
    let Some(slot) = pool.take_for_keeper(left) else { return Ok(false) };
    let end_offset = writer.end().place.offset;
    if let Some(before) = writer.start_segment(slot)? {
        before.slot.file.sync()?;
        if let Some(kept) = kept.get_mut(&before.segment.key()) {
            kept.fact.end_offset = end_offset;
        }
    }
    if let Some(open) = writer.open() {
        let OpenSegment { slot, segment, salt, .. } = open.clone();
        let fact = SegmentFact { segment, end_offset: BLOCK_BYTES as u64, slot: slot.slot, salt, stream };
        kept.insert(segment.key(), Kept { fact, slot, has_footer: false });
    }
    Ok(true)
}

fn rotten(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
