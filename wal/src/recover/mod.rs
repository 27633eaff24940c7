//! Finds out what a log holds, and changes nothing while it does.
//!
//! 1. The control file says who the log belongs to, what was durable at least, which checkpoints there are, and whether
//!    the last stop was clean.
//! 2. Every slot file is looked at: unused, a segment, or unreadable ([`survey`]).
//! 3. The newest checkpoint that can be read is the beginning. Without one the log is read from its first segment.
//! 4. The newest log segment that exists is the tail. One whose first group did not survive does not exist, unless
//!    something proves the opposite. From the tail each header names its predecessor, back to the end that the
//!    checkpoint covers; a missing one refuses the log. What is not on this chain and not needed by a checkpoint is free.
//! 5. The closed segments are read in order, each up to the end that its successor pins, by their footers or group by
//!    group; then the tail up to its own end ([`scan`]). All records go through [`LogState::apply`] in the order of
//!    writing.
//!
//! All of this is read past the cache, which was told to forget the files first: after a failed sync the cache shows
//! pages that the disk does not have (law 17). The last group, if nothing proves it durable, is handed back to be
//! written again elsewhere. Payloads of closed segments are verified when they are read, not here: how long an open
//! takes depends on the directories behind the last checkpoint and on one segment.
//!
//! A block that the disk refuses to read counts as zeros, and the checksums say what is lost by it. Only a segment of
//! which not even the header can be read ends the recovery with the disk's error.
//!
//! A log with damage outside of payloads, that neither a footer, an echo nor the older checkpoint makes good, is refused
//! as a whole; [`crate::repair`] builds a new one from the rest when an operator asks for it.

pub(crate) mod scan;
pub(crate) mod survey;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pontoon_types::{HardState, Index, LogId, ReplicaId};

use crate::append::{Echo, GroupBuffer};
use crate::format::checkpoint::SegmentFact;
use crate::format::control::{CheckpointRef, Control};
use crate::format::footer::{FOOTER_HEADER_BYTES, claimed_length, decode as decode_footer};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, CONTROL_NAME, LogEnd, SegmentId, SegmentKey, round_up};
use crate::keeper::checkpoint::{CheckpointImage, read as read_checkpoint};
use crate::keeper::footer_place;
use crate::recover::scan::{Image, Tail};
use crate::recover::survey::{Rest, Survey};
use crate::state::checkpoint::{Loaded, Unreadable};
use crate::state::{GroupPlace, LogState};
use crate::storage::{AlignedBuffer, Storage};
use crate::{LogError, LogIdentity};

/// One Raft group as the log holds it. Its entries are read with [`crate::Log::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The replica that was given when the group was created.
    pub replica: ReplicaId,
    /// What was given when the group was created; opaque to the log.
    pub descriptor: Bytes,
    /// Term and vote.
    pub hard_state: HardState,
    /// Everything up to here was given up.
    pub compacted: LogId,
    /// How far the replica knew its entries to be committed, when it wrote entries last; at least what was given up.
    pub committed: Index,
    /// The last entry, or what was given up last.
    pub last: LogId,
    /// What the replica had voted is not known for sure: it must not vote.
    pub vote_lost: bool,
}

/// Bytes behind the end of a log, left by a write that was never acknowledged. They stay where they are, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub file: String,
    /// Where the log ends in it.
    pub offset: u64,
}

/// What an open found.
#[derive(Debug)]
pub struct Recovered {
    /// All Raft groups of the log, all of it durable.
    pub groups: BTreeMap<pontoon_types::GroupId, RecoveredGroup>,
    /// Groups that were removed, with the highest replica that is dead.
    pub tombstones: BTreeMap<pontoon_types::GroupId, ReplicaId>,
    /// Where a torn write was cut.
    pub torn_tail: Option<TornTail>,
    /// Whether the last stop was clean.
    pub clean: bool,
    /// Log segments that were read, behind the checkpoint.
    pub segments: usize,
    /// Of those, the ones that were read by their footers.
    pub footers: usize,
    /// Why the newest checkpoint could not be used, if that was so. Nothing is lost by it.
    pub checkpoint_unreadable: Option<String>,
    /// Whether the log goes on in its newest segment: after a clean stop, and after any other that left nothing behind
    /// what was noted as durable. Otherwise it goes on in a fresh one.
    pub resumed: bool,
    /// Whether the last group had to be written again because nothing proved it durable (law 17).
    pub rewritten: bool,
    /// Whether all of it was read past the cache. Otherwise the file system refuses that, and law 17 rests on the
    /// cache forgetting on request.
    pub read_past_cache: bool,
}

/// A segment on the chain.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
}

/// A checkpoint that was read.
#[derive(Clone)]
pub(crate) struct FoundCheckpoint {
    pub(crate) reference: CheckpointRef,
    pub(crate) covered: LogEnd,
    pub(crate) facts: Vec<SegmentFact>,
    pub(crate) files: BTreeSet<SegmentKey>,
}

/// The result of recovery, before anything is written.
pub(crate) struct Found {
    /// The log segments behind the checkpoint, oldest first; the last is the tail.
    pub(crate) chain: Vec<Link>,
    /// Where each segment of the chain but the last ends.
    pub(crate) ends: Vec<LogEnd>,
    /// The end of what is proven durable.
    pub(crate) end: LogEnd,
    /// What the tail's footer will hold so far.
    pub(crate) footer_parts: usize,
    /// The group behind the end that is kept and must be written again.
    pub(crate) kept: Option<GroupBuffer>,
    /// An intact group stands behind the end, kept or without records, and nothing proves it durable.
    pub(crate) unproven: bool,
    /// Of the last group, unless it is one that stands behind the end.
    pub(crate) echo: Echo,
    pub(crate) state: LogState,
    pub(crate) checkpoints: [Option<FoundCheckpoint>; 2],
    pub(crate) checkpoint_unreadable: Option<String>,
    pub(crate) footers: usize,
    pub(crate) torn: Option<TornTail>,
    /// The disk refuses to read a block behind the end: nothing is appended over it.
    pub(crate) has_refused: bool,
    /// Only zeros lie behind the end.
    pub(crate) is_clear: bool,
    /// All segments that are needed, by what is known of them.
    pub(crate) needed: BTreeMap<SegmentKey, Link>,
    pub(crate) rest: Rest,
    /// The number of the next new slot file.
    pub(crate) next_slot: u32,
    /// The highest segment id that was ever seen.
    pub(crate) newest_seen: SegmentId,
    pub(crate) read_past_cache: bool,
}

impl Found {
    /// Whether the log ends exactly where the control file says that it was durable at least, in the newest log
    /// segment that ever was, and nothing was written behind that.
    pub(crate) fn has_no_tail(&self, control: &Control) -> bool {
        !self.unproven
            && self.is_clear
            && self.rest.torn.is_none()
            && self.end.seq == control.durable_seq
            && self.end.place.segment == control.newest_segment
            && self.end.place.segment == self.rest.newest_log
    }
}

/// Reads a whole log.
pub(crate) fn recover(storage: &dyn Storage, identity: LogIdentity, control: Control) -> Result<Found, LogError> {
    if !(BLOCK_BYTES as u64..=crate::options::SEGMENT_BYTES_MAX).contains(&control.segment_bytes) {
        let why = format!("a segment size of {} bytes", control.segment_bytes);
        return Err(LogError::Corruption { file: CONTROL_NAME.to_string(), offset: 0, why });
    }
    let survey = Survey::of(storage, identity, control)?;
    let buffer = AlignedBuffer::new(control.segment_bytes as usize);
    Recovery { survey, buffer, refused: Vec::new(), control }.run()
}

/// Where recovery begins: the state, the checkpoints that can be read, and why the newest cannot.
type Beginning = (LogState, [Option<FoundCheckpoint>; 2], Option<String>);

struct Recovery<'a> {
    survey: Survey<'a>,
    /// The segment that was loaded last, and the blocks of it that the disk refused.
    buffer: AlignedBuffer,
    refused: Vec<u64>,
    control: Control,
}

impl Recovery<'_> {
    fn run(mut self) -> Result<Found, LogError> {
        let (state, checkpoints, checkpoint_unreadable) = self.begin()?;
        let mut state = state;
        let mut end = checkpoints.iter().flatten().next().map(|found| found.covered).unwrap_or_default();
        let mut chain = self.survey.find_chain(&end, &mut self.buffer)?;
        if let Some(first) = chain.first() {
            end = first.header.previous;
        }
        let (mut ends, mut footers) = (Vec::new(), 0);
        for pair in chain.windows(2) {
            let until = pair[1].header.previous;
            end = match self.read_footer(&pair[0], &end, &until, &mut state)? {
                Some(end) => {
                    footers += 1;
                    end
                }
                None => {
                    self.refused = self.survey.load(&pair[0].name, &mut self.buffer)?;
                    self.image(&pair[0]).scan_closed(&end, &until, &mut state)?
                }
            };
            ends.push(end);
        }
        let Some(last) = chain.last().cloned() else { return Err(self.survey.missing(SegmentId(1), "the log")) };
        self.refused = self.survey.load(&last.name, &mut self.buffer)?;
        let tail = self.image(&last).scan_tail(&end, self.survey.proven, &mut state)?;
        let kept = self.kept_group(&last, &tail)?;
        let Tail { end, unproven, last: proven, torn, doubt, has_refused, is_clear, footer_parts, last_seq } = tail;
        if let Some(doubt) = doubt.filter(|_| self.control.clean_end != Some(end)) {
            return Err(doubt);
        }
        let image = self.image(&last);
        let echo = proven.and_then(|offset| image.group(offset).ok()).map(|group| Echo::of(&group));
        let first = chain.first().cloned().unwrap_or_else(|| last.clone());
        if unproven == Some(BLOCK_BYTES) {
            chain.pop();
            ends.pop();
        }
        let needed = self.needed(&chain, &checkpoints, &first)?;
        let newest_seen = self.survey.newest_seen();
        let next_slot = self.survey.next_slot();
        let read_past_cache = self.survey.read_past_cache;
        let rest = self.survey.sort_out(&needed, last.header.segment, last_seq, &mut self.buffer)?;
        let unproven = unproven.is_some();
        Ok(Found {
            chain,
            ends,
            end,
            footer_parts,
            kept,
            unproven,
            echo: echo.unwrap_or_default(),
            state,
            checkpoints,
            checkpoint_unreadable,
            footers,
            torn,
            has_refused,
            is_clear,
            needed,
            rest,
            next_slot,
            newest_seen,
            read_past_cache,
        })
    }

    fn image<'a>(&'a self, link: &'a Link) -> Image<'a> {
        Image { name: &link.name, header: link.header, bytes: self.buffer.bytes(), refused: &self.refused }
    }

    /// The last group, if it has records and must be written again; after a clean stop there is none.
    fn kept_group(&self, last: &Link, tail: &Tail) -> Result<Option<GroupBuffer>, LogError> {
        let image = self.image(last);
        if let Some(clean_end) = self.control.clean_end
            && (tail.end != clean_end || tail.unproven.is_some())
        {
            let why =
                format!("the log ends with group {}, but it was closed with group {}", tail.end.seq, clean_end.seq);
            return Err(image.corruption(tail.end.place.offset as usize, why));
        }
        Ok(match tail.unproven.map(|offset| image.group(offset)) {
            Some(Ok(group)) if group.header.runs > 0 => Some(GroupBuffer::copy_of(&group)),
            _ => None,
        })
    }

    /// The state to begin with: the newest checkpoint that can be read, or nothing. The other checkpoint is read for
    /// what it needs.
    fn begin(&mut self) -> Result<Beginning, LogError> {
        let [newest, older] = self.control.checkpoints;
        let mut unreadable = None;
        let mut newest_read = None;
        if let Some(reference) = newest {
            match self.read_checkpoint(&reference)? {
                Ok(read) => newest_read = Some(read),
                Err(why) => unreadable = Some(why),
            }
        }
        let mut older_read = None;
        if let Some(reference) = older {
            match self.read_checkpoint(&reference)? {
                Ok(read) => older_read = Some(read),
                Err(why) if newest_read.is_none() => {
                    let why = format!("neither checkpoint can be read: {}; {why}", unreadable.unwrap_or_default());
                    return Err(LogError::Corruption { file: CONTROL_NAME.to_string(), offset: 0, why });
                }
                // It is needed only while the newest cannot be read.
                Err(_) => {}
            }
        }
        Ok(match (newest_read, older_read) {
            (Some((state, found)), Some((_, older))) => (state, [Some(found), Some(older)], unreadable),
            (Some((state, found)), None) if older.is_none() => (state, [Some(found), None], unreadable),
            // One of the two is lost. The other counts as both, because only a log that never had two is whole from its
            // beginning.
            (Some((state, found)), None) => (state, [Some(found.clone()), Some(found)], unreadable),
            (None, Some((state, found))) => (state, [Some(found.clone()), Some(found)], unreadable),
            // Nothing was given up before the second checkpoint, so the log is whole from its beginning.
            (None, None) => (LogState::default(), [None, None], unreadable),
        })
    }

    fn read_checkpoint(
        &mut self,
        reference: &CheckpointRef,
    ) -> Result<Result<(LogState, FoundCheckpoint), String>, LogError> {
        let mut failed = None;
        let (survey, buffer) = (&mut self.survey, &mut self.buffer);
        let mut image = |segment: SegmentId| {
            let link = survey.segment(segment).ok_or_else(|| format!("segment {segment} is missing"))?;
            // The checksums say whether a refused block is part of the checkpoint.
            if let Err(error) = survey.load(&link.name, buffer) {
                let why = error.to_string();
                failed = Some(error);
                return Err(why);
            }
            Ok(CheckpointImage { header: link.header, bytes: Bytes::copy_from_slice(buffer.bytes()) })
        };
        let read = read_checkpoint(reference, &mut image);
        if let Some(error) = failed {
            return Err(error);
        }
        match read {
            Ok((Loaded { head, facts, state }, files)) => {
                let files = files.into_iter().collect();
                Ok(Ok((state, FoundCheckpoint { reference: *reference, covered: head.covered, facts, files })))
            }
            Err(Unreadable::Damaged(why)) => Ok(Err(why)),
            Err(Unreadable::Unknown(fault, place)) => {
                let file = self.survey.segment(place.segment).map_or_else(String::new, |link| link.name);
                Err(LogError::UnknownFormat { file, offset: place.offset, what: fault.to_string() })
            }
        }
    }

    /// Applies a closed segment by its footer. None when that cannot be used.
    fn read_footer(
        &mut self,
        link: &Link,
        before: &LogEnd,
        until: &LogEnd,
        state: &mut LogState,
    ) -> Result<Option<LogEnd>, LogError> {
        let key = link.header.segment.key();
        let fact = fact_of(&link.header, until.place.offset);
        let place = footer_place(&fact, link.header.identity.log);
        let at = until.place.offset as usize;
        let room = (self.control.segment_bytes as usize).saturating_sub(at);
        if room < BLOCK_BYTES || !at.is_multiple_of(BLOCK_BYTES) {
            return Ok(None);
        }
        self.survey.load_part(&link.name, at, &mut self.buffer.bytes_mut()[..BLOCK_BYTES])?;
        let length = match claimed_length(&self.buffer.bytes()[..FOOTER_HEADER_BYTES], room) {
            Ok(length) => round_up(length, BLOCK_BYTES),
            Err(_) => return Ok(None),
        };
        self.survey.load_part(&link.name, at, &mut self.buffer.bytes_mut()[..length])?;
        let Ok(groups) = decode_footer(&self.buffer.bytes()[..length], place) else { return Ok(None) };
        let (mut seq, mut chain) = (before.seq, before.chain);
        for group in &groups {
            if Some(group.header.seq.0) != seq.0.checked_add(1) || group.header.prev_chain != chain {
                return Ok(None);
            }
            (seq, chain) = (group.header.seq, group.chain);
        }
        if (seq, chain) != (until.seq, until.chain) {
            return Ok(None);
        }
        for group in &groups {
            let in_group = GroupPlace::of(key, group.offset, group.directory.len());
            let copy = GroupPlace { directory_at: at + group.directory_at, ..in_group };
            let corruption = |why| LogError::Corruption { file: link.name.clone(), offset: group.offset as u64, why };
            state.apply(group.directory, copy).map_err(corruption)?;
        }
        Ok(Some(*until))
    }

    /// All segments that the log or one of its checkpoints needs.
    fn needed(
        &self,
        chain: &[Link],
        checkpoints: &[Option<FoundCheckpoint>; 2],
        first: &Link,
    ) -> Result<BTreeMap<SegmentKey, Link>, LogError> {
        let mut needed: BTreeMap<SegmentKey, Link> =
            chain.iter().map(|link| (link.header.segment.key(), link.clone())).collect();
        for (position, found) in checkpoints.iter().enumerate() {
            let Some(found) = found else { continue };
            for fact in &found.facts {
                let same = |link: &Link| link.header.salt == fact.salt && link.header.stream == fact.stream;
                match self.survey.segment(fact.segment).filter(same) {
                    Some(link) => drop(needed.insert(fact.segment.key(), link)),
                    None if position == 0 => {
                        return Err(self.survey.missing(fact.segment, "the newest checkpoint"));
                    }
                    None => {}
                }
            }
            let of_key = |key: &SegmentKey| self.survey.links().find(|link| link.header.segment.key() == *key);
            needed.extend(found.files.iter().filter_map(of_key).map(|link| (link.header.segment.key(), link)));
        }
        needed.extend(self.before_chain(first, checkpoints).into_iter().map(|link| (link.header.segment.key(), link)));
        Ok(needed)
    }

    /// The log segments before `first` that only the older checkpoint would read, or an open without any. They are
    /// found by following the log, since other starts may have left segments that were never part of it.
    fn before_chain(&self, first: &Link, checkpoints: &[Option<FoundCheckpoint>; 2]) -> Vec<Link> {
        let from = match &checkpoints[1] {
            Some(older) => older.covered.place.segment,
            None => SegmentId(0),
        };
        let mut found: Vec<Link> = Vec::new();
        loop {
            let previous = found.last().unwrap_or(first).header.previous.place.segment;
            if previous <= from {
                return found;
            }
            match self.survey.segment(previous) {
                Some(link) if link.header.previous.place.segment < previous => found.push(link),
                // It was given up, so nothing before it is needed either.
                _ => return Vec::new(),
            }
        }
    }
}

/// What is known of a log segment that ends at `end_offset`.
pub(crate) fn fact_of(header: &SegmentHeader, end_offset: u64) -> SegmentFact {
    let SegmentHeader { segment, slot, salt, stream, .. } = *header;
    SegmentFact { segment, end_offset, slot, salt, stream }
}
