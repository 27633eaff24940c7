//! What lies in the directory of a log, damaged or not: the control file, the segments, and how they hang together.
//!
//! An open insists that everything fits and refuses the log otherwise. Here whatever fits is taken, and each thing that
//! is missing or unreadable is left for the caller to judge:
//!
//! - without a readable block of the control file, the headers of the segments say whose log it is, and the checkpoint
//!   stream is searched for the checkpoints that nobody names;
//! - a segment whose header is unreadable is recognised by the groups of records in it, which repeat its id and salt;
//! - a missing segment leaves a hole in the chain, and the chain goes on before it.
//!
//! What a newer version wrote is refused: nothing is known about it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::disk;
use super::files::{Content, SlotFile, control_of, read_control, read_slots};
use crate::format::checkpoint::SegmentFact;
use crate::format::control::{CONTROL_BYTES, CheckpointRef, Control};
use crate::format::group::Group;
use crate::format::record::{KIND_CHECKPOINT, KIND_GROUP_RUNS};
use crate::format::segment_header::{SegmentHeader, Stream};
use crate::format::{BLOCK_BYTES, CONTROL_NAME, Fault, LogEnd, Lsn, SegmentId, SegmentKey, Seq, is_zero, slot_of};
use crate::keeper::checkpoint::{CheckpointImage, read as read_checkpoint};
use crate::options::SEGMENT_BYTES_MAX;
use crate::recover::scan::{Image, headers};
use crate::state::LogState;
use crate::state::checkpoint::{Loaded, Unreadable};
use crate::storage::{AlignedBuffer, Storage};
use crate::{LogError, LogIdentity};

/// What a segment is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Part of the log behind the newest checkpoint that can be read.
    Open,
    /// Part of the log that this checkpoint covers: its entries may be needed, its records are in the checkpoint.
    Covered,
    /// Entries that a checkpoint refers to, apart from the chain.
    Kept,
    /// It carries a checkpoint.
    Checkpoint,
}

/// A segment that is needed.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    /// The header cannot be read; what is known of it comes from the groups and from the checkpoint.
    pub(crate) rebuilt: bool,
    pub(crate) role: Role,
    /// Where its groups end, if something says so.
    pub(crate) limit: Option<u64>,
    /// Its end, if its successor names it.
    pub(crate) pinned: Option<LogEnd>,
    /// The newest log segment that exists.
    pub(crate) is_tail: bool,
}

/// A segment that is needed and not there.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    pub(crate) segment: SegmentId,
    pub(crate) needed_by: String,
    /// Only the older checkpoint needs it, or one that is not used.
    pub(crate) spare: bool,
}

/// One of the two checkpoints that the control file names.
pub(crate) struct NamedCheckpoint {
    pub(crate) reference: CheckpointRef,
    /// Its state, or why it cannot be read.
    pub(crate) loaded: Result<Loaded, String>,
    pub(crate) files: Vec<SegmentKey>,
}

impl NamedCheckpoint {
    /// The end of the log that it covers.
    pub(crate) fn covered(&self) -> Option<LogEnd> {
        self.loaded.as_ref().ok().map(|loaded| loaded.head.covered)
    }

    fn facts(&self) -> &[SegmentFact] {
        self.loaded.as_ref().map_or(&[], |loaded| &loaded.facts)
    }
}

/// A log as it lies there.
pub(crate) struct Layout<'a> {
    pub(crate) storage: &'a dyn Storage,
    /// The newest block that can be read, or what the segments say instead.
    pub(crate) control: Control,
    /// The blocks of the control file that cannot be read, by their offsets.
    pub(crate) control_faults: Vec<(u64, Fault)>,
    pub(crate) slots: Vec<SlotFile>,
    pub(crate) unfinished: Vec<String>,
    /// Newest first.
    pub(crate) checkpoints: Vec<NamedCheckpoint>,
    /// All segments that are needed, by their ids.
    pub(crate) planned: Vec<Planned>,
    pub(crate) missing: Vec<Missing>,
    /// Proven by the control file, or by a header that outlived its first group.
    pub(crate) proven: Seq,
    /// The end of the log that the chain begins behind.
    pub(crate) from: LogEnd,
}

impl<'a> Layout<'a> {
    /// Looks at a log. Nothing is locked and nothing is changed.
    pub(crate) fn of(storage: &'a dyn Storage) -> Result<Layout<'a>, LogError> {
        let (control, control_faults) = read_control(storage)?;
        let slots = read_slots(storage)?;
        let control = match control {
            Some(control) => control,
            None => control_of(&slots, &control_faults)?,
        };
        if !(BLOCK_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&control.segment_bytes) {
            let why = format!("a segment size of {} bytes", control.segment_bytes);
            return Err(LogError::Corruption { file: CONTROL_NAME.to_string(), offset: 0, why });
        }
        let names = storage.names().map_err(LogError::io("listing the files of the log"))?;
        let unfinished = names.into_iter().filter(|name| slot_of(name, ".new").is_some()).collect();
        let mut layout = Layout {
            storage,
            control,
            control_faults,
            slots,
            unfinished,
            checkpoints: Vec::new(),
            planned: Vec::new(),
            missing: Vec::new(),
            proven: control.durable_seq,
            from: LogEnd::default(),
        };
        let named = if layout.is_control_lost() {
            layout.search_checkpoints()?
        } else {
            control.checkpoints.into_iter().flatten().collect()
        };
        for reference in named {
            let read = layout.read_checkpoint(&reference)?;
            layout.checkpoints.push(read);
        }
        layout.plan()?;
        Ok(layout)
    }

    /// Whether no block of the control file can be read.
    pub(crate) fn is_control_lost(&self) -> bool {
        self.control_faults.len() == CONTROL_BYTES / BLOCK_BYTES
    }

    pub(crate) fn identity(&self) -> LogIdentity {
        self.control.identity
    }

    /// The newest checkpoint that can be read.
    pub(crate) fn base(&self) -> Option<&Loaded> {
        self.checkpoints.iter().find_map(|named| named.loaded.as_ref().ok())
    }

    /// The state to begin with, and the end of the log that it stands for.
    pub(crate) fn begin(&self) -> (LogState, Option<LogEnd>) {
        self.base().map_or((LogState::default(), None), |base| (base.state.clone(), Some(base.head.covered)))
    }

    /// The highest segment id that was ever given, as far as anything tells.
    pub(crate) fn newest_seen(&self) -> SegmentId {
        let planned = self.planned.iter().map(|planned| planned.header.segment);
        let named = self.checkpoints.iter().map(|named| named.reference.end.place.segment);
        let seen = self.headers().map(|(_, header)| header.segment);
        planned.chain(named).chain(seen).fold(self.control.newest_segment, SegmentId::max)
    }

    /// All segments whose header can be read.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&SlotFile, &SegmentHeader)> {
        let ours = self.control.identity;
        self.slots.iter().filter_map(move |file| match &file.content {
            Content::Segment(header) if header.identity == ours => Some((file, header)),
            _ => None,
        })
    }

    /// A buffer that holds a segment.
    pub(crate) fn buffer(&self) -> AlignedBuffer {
        AlignedBuffer::new(self.control.segment_bytes as usize)
    }

    /// Reads a whole segment file.
    pub(crate) fn load(&self, name: &str, into: &mut AlignedBuffer) -> Result<Vec<u64>, LogError> {
        disk::load(disk::open(self.storage, name)?.as_ref(), 0, into.bytes_mut())
    }

    /// The planned segment of that key.
    pub(crate) fn segment(&self, key: SegmentKey) -> Option<&Planned> {
        self.planned.iter().find(|planned| planned.header.segment.key() == key)
    }

    fn read_checkpoint(&self, reference: &CheckpointRef) -> Result<NamedCheckpoint, LogError> {
        let mut failed = None;
        let mut buffer = self.buffer();
        let mut image = |segment: SegmentId| {
            let found = self.headers().find(|(_, header)| header.segment == segment);
            let (file, header) = found.ok_or_else(|| format!("segment {segment} is missing"))?;
            if let Err(error) = self.load(&file.name, &mut buffer) {
                let why = error.to_string();
                failed = Some(error);
                return Err(why);
            }
            Ok(CheckpointImage { header: *header, bytes: Bytes::copy_from_slice(buffer.bytes()) })
        };
        let read = read_checkpoint(reference, &mut image);
        if let Some(error) = failed {
            return Err(error);
        }
        let (loaded, files) = match read {
            Ok((loaded, files)) => (Ok(loaded), files),
            Err(Unreadable::Damaged(why)) => (Err(why), Vec::new()),
            Err(Unreadable::Unknown(fault, place)) => {
                let found = self.headers().find(|(_, header)| header.segment == place.segment);
                let file = found.map_or_else(String::new, |(file, _)| file.name.clone());
                return Err(LogError::UnknownFormat { file, offset: place.offset, what: fault.to_string() });
            }
        };
        Ok(NamedCheckpoint { reference: *reference, loaded, files })
    }

    /// The two newest checkpoints that stand in the checkpoint stream, when nothing names them.
    fn search_checkpoints(&self) -> Result<Vec<CheckpointRef>, LogError> {
        let mut segments: Vec<_> = self.headers().filter(|(_, header)| header.stream == Stream::Checkpoint).collect();
        segments.sort_by_key(|(_, header)| std::cmp::Reverse(header.segment));
        let mut buffer = self.buffer();
        let mut found = Vec::new();
        for (file, header) in segments {
            let refused = self.load(&file.name, &mut buffer)?;
            let image = Image { name: &file.name, header: *header, bytes: buffer.bytes(), refused: &refused };
            let mut ends = vec![header.previous];
            let mut starts = Vec::new();
            let mut offset = BLOCK_BYTES;
            while let Ok(group) = image.group(offset) {
                if group.runs().next().is_some_and(|run| run.head.kind == KIND_CHECKPOINT) {
                    starts.push(ends.len() - 1);
                }
                offset += group.header.group_len();
                let place = Lsn { segment: header.segment, offset: offset as u64 };
                ends.push(LogEnd { place, seq: group.header.seq, chain: group.chain });
            }
            let behind = starts.iter().skip(1).copied().chain([ends.len() - 1]);
            for (start, end) in starts.iter().zip(behind).collect::<Vec<_>>().into_iter().rev() {
                let reference = CheckpointRef { start: ends[*start], end: ends[end] };
                if self.read_checkpoint(&reference)?.loaded.is_ok() {
                    found.push(reference);
                }
                if found.len() == 2 {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// A header for each slot file whose own cannot be read, from its groups.
    fn rebuilt(&self) -> Result<Vec<(String, SegmentHeader)>, LogError> {
        let facts: BTreeMap<SegmentId, SegmentFact> =
            self.checkpoints.iter().flat_map(|named| named.facts()).map(|fact| (fact.segment, *fact)).collect();
        let mut buffer = self.buffer();
        let mut rebuilt = Vec::new();
        for file in &self.slots {
            if matches!(file.content, Content::Segment(_)) {
                continue;
            }
            self.load(&file.name, &mut buffer)?;
            if !is_zero(buffer.bytes())
                && let Some(header) = self.rebuild(file, buffer.bytes(), &facts)
            {
                rebuilt.push((file.name.clone(), header));
            }
        }
        Ok(rebuilt)
    }

    fn rebuild(
        &self,
        file: &SlotFile,
        bytes: &[u8],
        facts: &BTreeMap<SegmentId, SegmentFact>,
    ) -> Option<SegmentHeader> {
        let log = self.control.identity.log;
        let (_, newest) = headers(bytes, log, BLOCK_BYTES).max_by_key(|(_, header)| header.segment)?;
        let mut own = headers(bytes, log, BLOCK_BYTES)
            .filter(|(_, header)| header.segment == newest.segment && header.salt == newest.salt);
        let (at, first) = own.next()?;
        let is_of_checkpoint = |at: usize| {
            let group = Group::identify(bytes, log, at).ok()?;
            Some(group.runs().any(|run| (KIND_CHECKPOINT..=KIND_GROUP_RUNS).contains(&run.head.kind)))
        };
        let promises = own.chain([(at, first)]).any(|(_, header)| header.durable_seq > Seq(0));
        let is_first_of_all = first.seq == Seq(1) && newest.segment == SegmentId(1);
        let stream = match facts.get(&newest.segment) {
            Some(fact) => fact.stream,
            None if is_of_checkpoint(at).unwrap_or(false) => Stream::Checkpoint,
            None if promises || is_first_of_all => Stream::Log,
            None => Stream::Cold,
        };
        let previous = LogEnd { seq: Seq(first.seq.0 - 1), chain: first.prev_chain, ..LogEnd::default() };
        Some(SegmentHeader {
            identity: self.control.identity,
            stream,
            segment: newest.segment,
            salt: newest.salt,
            slot: file.slot,
            base_seq: first.seq,
            incarnation: self.control.incarnation,
            segment_bytes: self.control.segment_bytes,
            previous,
        })
    }

    /// Finds out which segments are needed, and which of them are not there.
    fn plan(&mut self) -> Result<(), LogError> {
        let rebuilt = self.rebuilt()?;
        let newest = self.base().map(|base| base.head.covered);
        // Without any checkpoint nothing was given up, and without the older one nothing behind its place.
        let oldest = match self.checkpoints.as_slice() {
            [newest, older] => older.covered().or(newest.covered()),
            [_] | [] => None,
            _ => newest,
        };
        self.from = oldest.unwrap_or_default();
        self.plan_chain(self.from, newest, &rebuilt)?;
        self.plan_kept(&rebuilt);
        self.plan_checkpoints();
        self.planned.sort_by_key(|planned| planned.header.segment);
        Ok(())
    }

    fn plan_chain(
        &mut self,
        from: LogEnd,
        covered: Option<LogEnd>,
        rebuilt: &[(String, SegmentHeader)],
    ) -> Result<(), LogError> {
        let with_header = self.headers().map(|(file, header)| (file.name.clone(), *header, false));
        let without = rebuilt.iter().map(|(name, header)| (name.clone(), *header, true));
        let mut segments: BTreeMap<SegmentId, (String, SegmentHeader, bool)> = without
            .chain(with_header)
            .filter(|(_, header, _)| header.stream == Stream::Log && header.segment > from.place.segment)
            .map(|found| (found.1.segment, found))
            .collect();
        let covered_segment = covered.map_or(SegmentId(0), |covered| covered.place.segment);
        let mut successor: Option<LogEnd> = None;
        let mut is_tail = true;
        let mut needed_by = CONTROL_NAME.to_string();
        while let Some((segment, (name, header, is_rebuilt))) = segments.pop_last() {
            if is_tail && !self.exists(&name, &header, is_rebuilt)? {
                continue;
            }
            match successor {
                // Left behind by a start that was interrupted: not on the chain.
                Some(end) if end.place.segment < segment && end.place.segment > SegmentId(0) => continue,
                Some(end) if end.place.segment > segment => {
                    self.add_missing(end.place.segment, &needed_by, covered_segment);
                }
                None if is_tail && segment < self.control.newest_segment => {
                    self.add_missing(self.control.newest_segment, &needed_by, covered_segment);
                }
                _ => {}
            }
            let pinned = successor.filter(|end| end.place.segment == segment);
            let role = if segment <= covered_segment { Role::Covered } else { Role::Open };
            let limit = pinned.map(|end| end.place.offset);
            needed_by.clone_from(&name);
            self.planned.push(Planned { name, header, rebuilt: is_rebuilt, role, limit, pinned, is_tail });
            is_tail = false;
            successor = (!is_rebuilt).then_some(header.previous);
            if !is_rebuilt && header.previous.place.segment <= from.place.segment {
                return Ok(());
            }
        }
        match successor {
            Some(end) if end.place.segment > from.place.segment => {
                self.add_missing(end.place.segment, &needed_by, covered_segment);
            }
            None if is_tail => self.add_missing(SegmentId(from.place.segment.0 + 1), "the log", covered_segment),
            _ => {}
        }
        Ok(())
    }

    fn add_missing(&mut self, segment: SegmentId, needed_by: &str, covered: SegmentId) {
        self.missing.push(Missing { segment, needed_by: needed_by.to_string(), spare: segment <= covered });
    }

    /// Whether anything in a log segment was ever acknowledged, or may have been.
    fn exists(&mut self, name: &str, header: &SegmentHeader, rebuilt: bool) -> Result<bool, LogError> {
        let mut buffer = self.buffer();
        let refused = self.load(name, &mut buffer)?;
        let image = Image { name, header: *header, bytes: buffer.bytes(), refused: &refused };
        let first = image.group(BLOCK_BYTES).and_then(|group| group.check_payloads().map(|()| group));
        if let Err(fault) = &first
            && fault.is_unknown()
        {
            let (file, what) = (name.to_string(), fault.to_string());
            return Err(LogError::UnknownFormat { file, offset: BLOCK_BYTES as u64, what });
        }
        let proven =
            if self.control.newest_segment >= header.segment { header.base_seq } else { self.control.durable_seq };
        let is_proven = || image.is_proven(header.base_seq, BLOCK_BYTES as u64, proven);
        let exists = match first {
            // Header and first group leave in one write: one without the other was torn, if nothing was written later.
            Ok(group) => group.header.seq == header.base_seq && (!rebuilt || is_proven()),
            Err(_) => is_proven(),
        };
        if exists {
            return Ok(true);
        }
        // It was written when everything before it was durable.
        self.proven = self.proven.max(header.previous.seq);
        Ok(false)
    }

    /// Segments that checkpoints refer to and that are not on the chain.
    fn plan_kept(&mut self, rebuilt: &[(String, SegmentHeader)]) {
        let mut seen: BTreeSet<SegmentId> = self.planned.iter().map(|planned| planned.header.segment).collect();
        let base = self.checkpoints.iter().position(|named| named.loaded.is_ok());
        let facts: Vec<(bool, SegmentFact)> = self
            .checkpoints
            .iter()
            .enumerate()
            .flat_map(|(position, named)| named.facts().iter().map(move |fact| (Some(position) != base, *fact)))
            .collect();
        for (spare, fact) in facts {
            if !seen.insert(fact.segment) {
                if let Some(planned) = self.planned.iter_mut().find(|planned| planned.header.segment == fact.segment) {
                    planned.limit = planned.limit.max(Some(fact.end_offset));
                }
                continue;
            }
            let is_same = |header: &SegmentHeader| header.segment == fact.segment && header.salt == fact.salt;
            let with_header = self.headers().find(|(_, header)| is_same(header));
            let known = with_header.map(|(file, header)| (file.name.clone(), *header, false)).or_else(|| {
                let found = rebuilt.iter().find(|(_, header)| is_same(header));
                found.map(|(name, header)| (name.clone(), *header, true))
            });
            match known {
                Some((name, header, rebuilt)) => {
                    let (role, limit, pinned) = (Role::Kept, Some(fact.end_offset), None);
                    self.planned.push(Planned { name, header, rebuilt, role, limit, pinned, is_tail: false });
                }
                None => {
                    let needed_by = "a checkpoint".to_string();
                    self.missing.push(Missing { segment: fact.segment, needed_by, spare });
                }
            }
        }
    }

    /// The segments that the checkpoints stand in.
    fn plan_checkpoints(&mut self) {
        let mut ends: BTreeMap<SegmentId, LogEnd> = BTreeMap::new();
        for named in &self.checkpoints {
            let end = named.reference.end;
            let known = ends.entry(end.place.segment).or_insert(end);
            if known.place.offset < end.place.offset {
                *known = end;
            }
        }
        let files: BTreeSet<SegmentKey> = self.checkpoints.iter().flat_map(|named| named.files.clone()).collect();
        let mut streams: Vec<(String, SegmentHeader)> = self
            .headers()
            .filter(|(_, header)| header.stream == Stream::Checkpoint)
            .filter(|(_, header)| files.contains(&header.segment.key()) || ends.contains_key(&header.segment))
            .map(|(file, header)| (file.name.clone(), *header))
            .collect();
        streams.sort_by_key(|(_, header)| header.segment);
        for position in 0..streams.len() {
            let (name, header) = streams[position].clone();
            let next = streams.get(position + 1).map(|(_, next)| next.previous);
            let pinned = next.filter(|end| end.place.segment == header.segment).or(ends.get(&header.segment).copied());
            let (role, limit) = (Role::Checkpoint, pinned.map(|end| end.place.offset));
            self.planned.push(Planned { name, header, rebuilt: false, role, limit, pinned, is_tail: false });
        }
    }
}
