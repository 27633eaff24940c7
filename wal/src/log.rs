//! The running log of one core: gather, write, hand out the sync, fence.
//!
//! The shell's part is small and in this order: [`Log::append`] once a turn, [`Log::begin_sync`] when none is in
//! flight, an fdatasync of [`Sync::fd`] through its own ring, [`Log::finish_sync`] with the result. While a sync is in
//! flight the next group gathers; that is group commit. When nothing happened for some milliseconds it calls
//! [`Log::begin_seal`] and treats what that returns like any other sync.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pontoon_types::{CoreWriteNumber, GroupId, Incarnation, LogMark, Write};

use crate::append::{Echo, Gathered, GroupBuffer, Room, segment_room};
use crate::cold::Warming;
use crate::control::Note;
use crate::format::SegmentKey;
use crate::format::group::FLAG_SEAL;
use crate::keeper::scrub::{Found, Rot};
use crate::keeper::thread::Keeping;
use crate::keeper::{Closed, CompactHint, Report};
use crate::prepare::{SharedControl, Slot, Supply, lock_control};
use crate::segments::{Segment, Segments};
use crate::state::LogState;
use crate::state::runs::end;
use crate::storage::Storage;
use crate::write::{OpenSegment, Writer};
use crate::{LogError, Options};

/// How long [`Log::close`] waits for a segment to be prepared.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// One sync that the shell carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Needs one fdatasync. Open until the log is dropped or a later sync is begun.
    pub fd: RawFd,
    /// When that succeeds, this core write and all before it are durable.
    pub through: CoreWriteNumber,
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups of records written, SEALs not counted.
    pub groups: u64,
    /// SEALs written.
    pub seals: u64,
    /// Bytes handed to the disk by appends and SEALs, headers and padding included.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Writes of replicas in them.
    pub writes: u64,
    /// Zero bytes written ahead of use, by the background thread.
    pub prepared_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of checkpoints and of entries that were copied to free their segments.
    pub kept_bytes: u64,
    /// Runs of entries that were copied.
    pub moved_runs: u64,
    /// Segments that became free.
    pub freed_segments: u64,
}

struct Flight {
    through: CoreWriteNumber,
    /// The group is the first of its segment, so that its success proves a new segment.
    starts_segment: bool,
    /// The segment that the log has left with it.
    closes: Option<Closed>,
}

/// What a log is made of.
pub(crate) struct Parts {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) control: SharedControl,
    pub(crate) supply: Supply,
    pub(crate) keeping: Keeping,
    pub(crate) writer: Writer,
    pub(crate) state: LogState,
    pub(crate) segments: Segments,
    pub(crate) warming: Warming,
    /// Of the last group that was written before.
    pub(crate) echo: Echo,
    /// Where the log stood when it was opened.
    pub(crate) mark: LogMark,
}

/// The log of one core.
///
/// Invariants:
/// - one group is in flight at most, and it is the last one written;
/// - core writes become durable in the order of their numbers;
/// - after a failed write or sync nothing is written or synced any more.
///
/// Dropping a log without [`Log::close`] is a crash as far as the disk is concerned: what was not synced may be lost.
pub struct Log {
    /// Before the supply, which gives it slots.
    pub(crate) keeping: Keeping,
    pub(crate) supply: Supply,
    pub(crate) control: SharedControl,
    pub(crate) writer: Writer,
    pub(crate) gathered: Gathered,
    /// What was written, durable or not.
    pub(crate) state: LogState,
    pub(crate) segments: Segments,
    pub(crate) warming: Warming,
    /// Of the group written last, also before the log was opened.
    echo: Echo,
    hints: Vec<CompactHint>,
    rot: Vec<Rot>,
    pub(crate) segment_bytes: u64,
    pub(crate) max_log_bytes: u64,
    pub(crate) incarnation: Incarnation,
    flight: Option<Flight>,
    pub(crate) fence: Option<String>,
    appended: CoreWriteNumber,
    written: CoreWriteNumber,
    durable: CoreWriteNumber,
    /// The last group with records that was written, and the last one that is durable.
    marks: (LogMark, LogMark),
    sealed: bool,
    /// Something was given up, and nobody has looked yet whether a segment holds nothing any more.
    gave_up: bool,
    last_group_entries: usize,
    stats: Stats,
    /// Last, so that the lock on the directory goes after everything else.
    _storage: Arc<dyn Storage>,
}

impl Log {
    /// A log whose writer stands behind a durable end.
    pub(crate) fn ready(parts: Parts, options: &Options) -> Log {
        let Parts { storage, control, supply, keeping, writer, state, segments, warming, echo, mark } = parts;
        let (segment_bytes, incarnation) = (writer.origin().segment_bytes, writer.origin().incarnation);
        Log {
            keeping,
            supply,
            control,
            writer,
            // A few groups to a segment at least, so that little of it stays empty.
            gathered: Gathered::new(
                options.group_bytes_max.min(segment_room(segment_bytes) / 4),
                segment_room(segment_bytes),
            ),
            state,
            segments,
            warming,
            echo,
            hints: Vec::new(),
            rot: Vec::new(),
            segment_bytes,
            max_log_bytes: options.max_log_bytes,
            incarnation,
            flight: None,
            fence: None,
            appended: CoreWriteNumber(0),
            written: CoreWriteNumber(0),
            durable: CoreWriteNumber(0),
            marks: (mark, mark),
            sealed: true,
            gave_up: true,
            last_group_entries: 0,
            stats: Stats::default(),
            _storage: storage,
        }
    }

    /// Gathers one core write. Numbers grow; the groups were given to [`Log::create`]; a write that overwrites entries
    /// carries the truncation. Nothing reaches the disk before [`Log::begin_sync`]. A fenced log ignores it.
    pub fn append(&mut self, number: CoreWriteNumber, writes: &[(GroupId, Write)]) {
        assert!(number > self.appended, "core write numbers grow: {number} after {}", self.appended);
        self.appended = number;
        if self.fence.is_some() {
            return;
        }
        if let Err(bytes) = self.gathered.put(number, writes) {
            // The order cannot be kept without it.
            let limit_bytes = segment_room(self.segment_bytes) as u64;
            self.fence = Some(LogError::WriteTooLarge { bytes: bytes as u64, limit_bytes }.to_string());
        }
    }

    /// Writes the oldest gathered group and says what to sync. Nothing when nothing is gathered, when a sync is in
    /// flight, or when the next segment is still being prepared ([`Log::gathered_entries`] then stays up and the
    /// caller asks again a little later). [`LogError::Full`] when no segment will come; that fences nothing.
    pub fn begin_sync(&mut self) -> Result<Option<Sync>, LogError> {
        self.tend()?;
        let Some(room) = self.gathered.front_room().filter(|_| self.flight.is_none()) else { return Ok(None) };
        let fits = self.writer.fits(room);
        let slot = if fits { self.slot_to_free_others(true) } else { self.next_slot() };
        if slot.is_none() && !fits {
            let full = LogError::Full { max_log_bytes: self.max_log_bytes };
            return if self.supply.is_exhausted() { Err(full) } else { Ok(None) };
        }
        let Some(mut buffer) = self.gathered.pop() else { return Ok(None) };
        let starts_segment = slot.is_some();
        let closes = self.start_segment(slot)?;
        self.write(&mut buffer, 0, self.repeats(room, starts_segment))?;
        self.reads_from_open_segment(starts_segment);
        self.stats.groups += 1;
        self.stats.entries += buffer.entries as u64;
        self.stats.writes += buffer.writes as u64;
        self.last_group_entries = buffer.entries;
        self.written = buffer.through.unwrap_or(self.written);
        self.gathered.recycle(buffer);
        self.sealed = false;
        Ok(self.fly(starts_segment, closes))
    }

    /// A slot for the next segment. What gives something up may use the reserve, and what waits before it, as long as the
    /// reserve can be made up: nothing else makes a full log small.
    fn next_slot(&mut self) -> Option<Slot> {
        let slot = self.supply.take().or_else(|| self.slot_to_free_others(false));
        let may_use_reserve =
            slot.is_none() && self.supply.is_out() && self.supply.can_replace() && self.gathered.gives_up();
        if may_use_reserve { self.supply.take_reserved() } else { slot }
    }

    /// A slot, of the reserve if there is no other, when the log is full, or has no room for the next group, and a segment
    /// holds nothing that is needed: the keeper sees what was given up only in a segment that is closed, and nothing else
    /// would ever close it. The open segment counts when the log is idle and not above its maximum: then it is full because
    /// that segment is nearly used up.
    ///
    /// Without any slot the keeper is asked to look at what is closed already.
    fn slot_to_free_others(&mut self, has_room: bool) -> Option<Slot> {
        let is_out = self.supply.is_out();
        if !self.gave_up || has_room && !self.is_full() || !has_room && !is_out {
            return None;
        }
        // It has not seen yet what was closed for it, and one segment more would not make it faster.
        if self.keeping.is_busy() {
            return None;
        }
        let open = self.writer.open().map(|open| open.segment.key());
        let spared = open.filter(|_| self.supply.is_above_maximum() || !self.gathered.is_empty());
        let needed = self.state.segments();
        self.gave_up = self.segments.keys().any(|key| Some(key) != spared && !needed.contains(&key));
        match (self.gave_up, is_out) {
            (false, _) => None,
            (true, true) if !self.supply.has_reserve() => {
                self.keeping.look();
                None
            }
            (true, true) => self.supply.take_reserved(),
            (true, false) => self.supply.take_spare(),
        }
    }

    /// Goes on in a new segment, if there is a slot. Returns the one that is left.
    fn start_segment(&mut self, slot: Option<Slot>) -> Result<Option<Closed>, LogError> {
        let Some(slot) = slot else { return Ok(None) };
        let end = self.writer.end();
        let started = self.writer.start_segment(slot);
        Ok(self.fence_on_error("segment", started)?.map(|open| Closed { open, end }))
    }

    /// Whether the next group, which takes `room`, can carry the echoes as well. If not they are left out, since an echo in
    /// a later group would be taken for that of another one. The segment is nearly full then, and once the log has gone
    /// on to the next one its footer is the second copy.
    fn repeats(&self, room: Room, starts_segment: bool) -> bool {
        let with_echoes = room.plus(self.echo_room());
        if starts_segment {
            with_echoes.in_segment() <= segment_room(self.segment_bytes)
        } else {
            self.writer.fits(with_echoes)
        }
    }

    fn reads_from_open_segment(&mut self, starts_segment: bool) {
        if starts_segment && let Some(OpenSegment { slot, segment, .. }) = self.writer.open().cloned() {
            self.segments.insert(Segment::new(segment, slot));
        }
    }

    /// What the echoes for the next group take.
    pub(crate) fn echo_room(&self) -> Room {
        self.echo.room()
    }

    /// Writes one group, with the echoes of the group before if `repeats`, and takes it into the state.
    fn write(&mut self, buffer: &mut GroupBuffer, flags: u16, repeats: bool) -> Result<(), LogError> {
        let mut flags = flags;
        if repeats {
            buffer.put_echo(&self.echo);
            flags |= self.echo.flags();
        }
        let place = self.writer.next_place(buffer.room().directory);
        let lawful = self.state.apply(buffer.directory(), place);
        self.fence_on_error("law 14", lawful.map_err(std::io::Error::other))?;
        self.gave_up |= buffer.gives_up;
        let written = self.writer.write(buffer, flags);
        self.stats.bytes += self.fence_on_error("write", written)?;
        if flags & FLAG_SEAL == 0 {
            self.marks.0 = LogMark(self.writer.end().seq.0);
        }
        buffer.swap_echo(&mut self.echo);
        Ok(())
    }

    /// Writes a SEAL, when the log is idle and has none yet: a group that says nothing new and proves everything before
    /// it durable. One more is written when it begins a segment that lets a full log free others. Nobody's
    /// acknowledgement depends on it; a group that is gathered meanwhile is written after its sync.
    ///
    /// When the segment has no room for it, the proof is left to the control file, which is written off the core, and a
    /// segment is not taken for that.
    pub fn begin_seal(&mut self) -> Result<Option<Sync>, LogError> {
        self.tend()?;
        let idle = self.flight.is_none() && self.gathered.is_empty();
        if !idle {
            return Ok(None);
        }
        let slot = self.slot_to_free_others(true);
        let starts_segment = slot.is_some();
        if !starts_segment && self.sealed {
            return Ok(None);
        }
        if !starts_segment && !self.writer.fits(Room::default()) {
            self.note_end();
            self.sealed = true;
            return Ok(None);
        }
        let closes = self.start_segment(slot)?;
        let mut buffer = self.gathered.spare();
        self.write(&mut buffer, FLAG_SEAL, self.repeats(Room::default(), starts_segment))?;
        self.reads_from_open_segment(starts_segment);
        self.gathered.recycle(buffer);
        self.stats.seals += 1;
        self.sealed = true;
        Ok(self.fly(starts_segment, closes))
    }

    fn fly(&mut self, starts_segment: bool, closes: Option<Closed>) -> Option<Sync> {
        let through = self.written;
        self.flight = Some(Flight { through, starts_segment, closes });
        self.writer.file().map(|file| Sync { fd: file.descriptor(), through })
    }

    /// Takes over what the keeper has done, and gives free segments back.
    fn tend(&mut self) -> Result<(), LogError> {
        self.check_fence()?;
        if let Some(why) = self.supply.control_failure().cloned() {
            self.fence_on_error("ctl", Err(std::io::Error::other(why)))?;
        }
        let mut has_news = false;
        while let Some(report) = self.keeping.report() {
            match report {
                Ok(report) => self.take_over(report),
                Err(error) => return Err(self.fence_by_keeper(error)),
            }
            has_news = true;
        }
        while let Some(slot) = self.segments.take_free() {
            self.supply.give_back(slot);
            has_news = true;
        }
        // The keeper takes slots and orders none, and one that was promised may be one too many now.
        if has_news || self.supply.is_above_maximum() {
            self.supply.refill();
        }
        Ok(())
    }

    pub(crate) fn take_over(&mut self, report: Report) {
        let Report { cold, moved, freed, hints, rot, checkpoints, bytes } = report;
        self.stats.checkpoints += checkpoints;
        self.stats.kept_bytes += bytes;
        self.stats.moved_runs += moved.len() as u64;
        self.stats.freed_segments += freed.len() as u64;
        for (segment, slot) in cold {
            self.segments.insert(Segment::new(segment, slot));
        }
        for moved in moved {
            // What was cut or compacted meanwhile is not there any more, and what was written anew lies elsewhere.
            if let Some(of) = self.state.group_mut(moved.group).filter(|of| of.replica == moved.replica) {
                of.runs.replace(&moved.to, Some(moved.from));
            }
        }
        for (key, slot) in freed {
            if self.segments.get_mut(key).is_some() {
                self.segments.remove(key);
            } else {
                self.supply.give_back(slot);
            }
        }
        if let Some(hints) = hints {
            self.hints = hints;
        }
        let rot = self.counting(rot);
        self.rot.extend(rot);
    }

    /// Takes the result of the sync in flight: what is durable now. An error fences the log for good; the same sync is
    /// never tried again, because the kernel may have dropped the pages and would call the next one a success.
    pub fn finish_sync(&mut self, result: std::io::Result<()>) -> Result<CoreWriteNumber, LogError> {
        self.check_fence()?;
        let flight = self.flight.take().expect("a sync is finished only while one is in flight");
        self.fence_on_error("sync", result)?;
        self.durable = flight.through;
        self.marks.1 = self.marks.0;
        if flight.starts_segment {
            self.note_end();
        }
        if let Some(closed) = flight.closes {
            let log = self.writer.origin().identity.log;
            self.segments.close(closed.open.segment.key(), closed.footer(log));
            self.keeping.closed(closed);
        }
        Ok(self.durable)
    }

    /// Has the last group noted as durable in the control file, some time soon. It is durable: nothing is in flight.
    fn note_end(&mut self) {
        let end = self.writer.end();
        self.supply.note(Note { durable_seq: end.seq, newest_segment: end.place.segment });
    }

    /// How far the log is durable. At first what it held before it was opened: opening writes too, and says nothing.
    pub fn mark(&self) -> LogMark {
        self.marks.1
    }

    /// Whether a sync was begun and not finished.
    pub fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Entries that wait for the next sync.
    pub fn gathered_entries(&self) -> usize {
        self.gathered.entries()
    }

    /// Whether anything waits for the next sync, entries or not.
    pub fn is_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Entries in the group written last.
    pub fn last_group_entries(&self) -> usize {
        self.last_group_entries
    }

    /// How often this log has been opened. Durable, and larger at each open.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The size of each segment, as the log was created with it. Without its header, a block, it bounds a single write.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes of all segment files, used or ready or being prepared.
    pub fn bytes(&self) -> u64 {
        self.supply.slots() * self.segment_bytes
    }

    /// Groups whose entries keep old segments from being used again, as of the end of a segment that was closed lately:
    /// compacting them frees those segments. While the log is short of room these are all that hold anything old, before
    /// that those that hold much, without those that were compacted since. To be looked at now and then; what is ignored is copied elsewhere in the end, if it is
    /// little.
    ///
    /// The keeper looks when a segment is closed, which a full log closes no more: then all groups with entries follow.
    pub fn compact_hints(&self) -> Vec<CompactHint> {
        let is_open =
            |hint: &&CompactHint| self.state.group(hint.group).is_some_and(|of| of.compacted.index < hint.up_to);
        let hints: Vec<CompactHint> = self.hints.iter().filter(is_open).copied().collect();
        if self.is_full() { self.holders(hints) } else { hints }
    }

    /// The groups that were named already, and all others that hold something, who holds the oldest first: those that were named
    /// may be able to give nothing up.
    fn holders(&self, mut named: Vec<CompactHint>) -> Vec<CompactHint> {
        let known: BTreeSet<GroupId> = named.iter().map(|hint| hint.group).collect();
        let hint = |group: GroupId| {
            let runs = self.state.group(group)?.runs.as_slice();
            let up_to = runs.iter().map(end).max()?.previous();
            Some((runs.iter().map(|run| run.segment).min()?, CompactHint { group, up_to }))
        };
        let others = self.state.ids().into_iter().filter(|group| !known.contains(group));
        let mut others: Vec<(SegmentKey, CompactHint)> = others.filter_map(hint).collect();
        others.sort_by_key(|(oldest, hint)| (*oldest, hint.group));
        named.extend(others.into_iter().map(|(_, hint)| hint));
        named
    }

    /// Damage that was found since the last call by reading what is stored, before anybody needed it. To be asked now
    /// and then: a log that is idle hears of it, and of a keeper that has failed, in no other way.
    pub fn take_rot(&mut self) -> Result<Vec<Rot>, LogError> {
        self.tend()?;
        Ok(std::mem::take(&mut self.rot))
    }

    /// Reads everything but the newest segment from the disk, verifies it, and waits until that is done. The same is
    /// done in the background once a day.
    pub fn scrub(&mut self) -> Result<Vec<Rot>, LogError> {
        self.check_fence()?;
        let found = self.keeping.scrub().map_err(LogError::io("reading the log from the disk"))?;
        Ok(self.counting(found))
    }

    /// The damage that somebody may still meet. A payload that was written again, cut or given up is read nowhere any more,
    /// though its bytes lie there until the segment is used again.
    fn counting(&self, found: Vec<Found>) -> Vec<Rot> {
        let counts = |found: &Found| {
            let Some(entry) = &found.rot.entry else { return true };
            let Some(of) = self.state.group(entry.group) else { return false };
            let run = of.runs.find(entry.id.index).map(|at| of.runs.as_slice()[at]);
            run.is_some_and(|run| run.segment == found.segment && run.payloads_at == found.payloads_at)
        };
        found.into_iter().filter(counts).map(|found| found.rot).collect()
    }

    /// Segments with entries, and how many were given up and are still read by somebody.
    pub fn segments(&self) -> (usize, usize) {
        (self.segments.len(), self.segments.pinned())
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        Stats { prepared_bytes: self.supply.prepared_bytes(), ..self.stats }
    }

    /// A stop: writes and syncs what is gathered, and marks the end as clean, so that the next open trusts it.
    ///
    /// When no segment is left for what is gathered, the rest of it is dropped: none of it was reported as durable.
    /// Such a stop succeeds but is not marked clean, and the next open treats it like a crash.
    pub fn close(mut self) -> Result<(), LogError> {
        self.check_fence()?;
        if self.flight.is_some() {
            // Its result is unknown, so the end is not clean. The next open finds out.
            return Err(LogError::Fenced { why: "closed while a sync was in flight".to_string() });
        }
        while !self.gathered.is_empty() {
            match self.begin_sync() {
                Ok(Some(_)) => {}
                Ok(None) if self.supply.wait(CLOSE_WAIT) => {}
                Ok(None) | Err(LogError::Full { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Some(file) = self.writer.file().filter(|_| self.flight.is_some()).cloned() {
                self.finish_sync(file.sync())?;
            }
        }
        self.keeping.stop();
        if !self.supply.stop() {
            return Err(LogError::Fenced { why: "the background thread has failed".to_string() });
        }
        lock_control(&self.control).finish(self.writer.end()).map_err(LogError::io("marking the clean stop in ctl"))
    }

    fn check_fence(&self) -> Result<(), LogError> {
        match &self.fence {
            Some(why) => Err(LogError::Fenced { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// What the keeper has found damaged has a name and a place, and whoever hears of the fence first hears those.
    fn fence_by_keeper(&mut self, error: std::io::Error) -> LogError {
        let (fence, error) = match error.downcast::<LogError>() {
            Ok(damage) => (damage.to_string(), damage),
            Err(error) => {
                let why = format!("keeper: {error}");
                (why.clone(), LogError::Fenced { why })
            }
        };
        self.fence = Some(fence);
        error
    }

    fn fence_on_error<T>(&mut self, what: &str, result: std::io::Result<T>) -> Result<T, LogError> {
        result.map_err(|error| {
            let why = format!("{what}: {error}");
            self.fence = Some(why.clone());
            LogError::Fenced { why }
        })
    }
}
