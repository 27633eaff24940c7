//! Reads the groups of one segment, and decides what a group that cannot be read means.
//!
//! A writer starts group N + 1 only after group N is durable. So whatever is found that was written later, with a
//! `durable_seq` of at least N, proves that group N was durable: then it is corruption. Without such a proof it is
//! the torn end of a log, and nothing in it was ever acknowledged.
//!
//! Not all corruption stops a recovery. A durable group whose directory is intact still says which entries it held, so
//! rotten payloads are found lost when they are read, and peers give them back. And if a group held nothing but hard
//! states, the next one repeats them.
//!
//! A block that the disk refuses to read counts as zeros, so all this holds for it too, but for one thing: at the end of
//! the log it is never taken for a torn write. It may have held a group that was acknowledged, and only the disk knows.

use crate::format::footer::{FOOTER_MAGIC, footer_part};
use crate::format::group::{Group, GroupHeader};
use crate::format::record::{KIND_HARD_STATE_ECHO, RunHead};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, Fault, LogEnd, Lsn, Seq, is_zero};
use crate::state::{GroupPlace, LogState};
use crate::unreadable::{REFUSED, is_hit};
use crate::{LogError, TornTail};

/// One segment of the log with its bytes.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: &'a [u8],
    /// The offsets of the blocks that the disk refused to read. They are zeros in `bytes`.
    pub(crate) refused: &'a [u64],
}

/// What the newest segment ended with.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The end of what was replayed.
    pub(crate) end: LogEnd,
    /// The number of the last intact group, proven durable or not.
    pub(crate) last_seq: Seq,
    /// The last group, when nothing proves it durable: its offset. The end lies before it.
    pub(crate) unproven: Option<usize>,
    /// The offset of the last group otherwise.
    pub(crate) last: Option<usize>,
    /// A write that was torn behind the end.
    pub(crate) torn: Option<TornTail>,
    /// Why it is not sure that the log ends here, unless it was closed here.
    pub(crate) doubt: Option<LogError>,
    /// The disk refuses to read a block behind the end: nothing is appended over it.
    pub(crate) has_refused: bool,
    /// Only zeros lie behind the end, and all of them can be read.
    pub(crate) is_clear: bool,
    /// What the footer of the segment will hold of the groups so far.
    pub(crate) footer_parts: usize,
}

impl Image<'_> {
    pub(crate) fn corruption(&self, offset: usize, why: impl Into<String>) -> LogError {
        let mut why = why.into();
        if is_hit(self.refused, offset..offset + 1) {
            why.push_str("; ");
            why.push_str(REFUSED);
        }
        LogError::Corruption { file: self.name.to_string(), offset: offset as u64, why }
    }

    /// The group at `offset`, if it is known what it says and it belongs to this use of the file.
    pub(crate) fn group(&self, offset: usize) -> Result<Group<'_>, Fault> {
        let group = Group::identify(self.bytes, self.header.identity.log, offset)?;
        if self.is_own(&group.header) {
            Ok(group)
        } else {
            Err(Fault::Bad("the group is of an earlier use of the file"))
        }
    }

    pub(crate) fn is_own(&self, header: &GroupHeader) -> bool {
        header.segment == self.header.segment && header.salt == self.header.salt
    }

    /// The next group, checked against the end so far.
    fn next(&self, end: &LogEnd) -> Result<Group<'_>, Fault> {
        let group = self.group(end.place.offset as usize)?;
        let follows = end.seq.0.checked_add(1) == Some(group.header.seq.0)
            && group.header.prev_chain == end.chain
            && group.header.durable_seq < group.header.seq;
        if follows { Ok(group) } else { Err(Fault::Bad("the group does not follow the one before it")) }
    }

    /// Looks ahead from `offset` for a proof that everything up to `seq` was durable: where it stands.
    fn proof_of(&self, seq: Seq, offset: usize) -> Option<usize> {
        headers(self.bytes, self.header.identity.log, offset)
            .find(|(_, header)| self.is_own(header) && header.durable_seq >= seq)
            .map(|(at, _)| at)
    }

    /// Refuses what a newer version wrote.
    fn refuse_if_unknown(&self, fault: Fault, offset: usize) -> Result<(), LogError> {
        if fault.is_unknown() {
            let file = self.name.to_string();
            return Err(LogError::UnknownFormat { file, offset: offset as u64, what: fault.to_string() });
        }
        Ok(())
    }

    /// Refuses a fault that is no torn end: a newer format, or a group that was durable.
    pub(crate) fn refuse_if_proven(&self, fault: Fault, offset: usize, seq: Seq, proven: Seq) -> Result<(), LogError> {
        self.refuse_if_unknown(fault, offset)?;
        if proven >= seq {
            let why =
                format!("group {seq} is unreadable ({fault}), but the log says that it was durable up to {proven}");
            return Err(self.corruption(offset, why));
        }
        if let Some(at) = self.proof_of(seq, offset) {
            let why = format!("group {seq} is unreadable ({fault}), but the group at {at} proves that it was durable");
            return Err(self.corruption(offset, why));
        }
        Ok(())
    }

    /// Refuses to take a group for a torn write that the disk refuses to read, in part at least.
    pub(crate) fn refuse_if_refused(&self, offset: usize, seq: Seq) -> Result<(), LogError> {
        let found =
            GroupHeader::decode(self.bytes.get(offset..).unwrap_or_default(), self.header.identity.log, offset as u64);
        let length = found.ok().filter(|(header, _)| self.is_own(header)).map_or(1, |(header, _)| header.group_len());
        if !is_hit(self.refused, offset..offset + length) {
            return Ok(());
        }
        let why = format!("the disk refuses to read what may be group {seq}, and nothing says that it was not durable");
        Err(LogError::Corruption { file: self.name.to_string(), offset: offset as u64, why })
    }

    /// Where the first group must start, and what it must follow.
    fn start(&self, before: &LogEnd) -> Result<LogEnd, LogError> {
        if before.seq.0.checked_add(1) != Some(self.header.base_seq.0) {
            let why = format!(
                "the segment starts with group {}, expected the one after {}",
                self.header.base_seq, before.seq
            );
            return Err(self.corruption(0, why));
        }
        let place = Lsn { segment: self.header.segment, offset: BLOCK_BYTES as u64 };
        Ok(LogEnd { place, ..*before })
    }

    /// Reads a segment that ends where its successor says.
    pub(crate) fn scan_closed(
        &self,
        before: &LogEnd,
        until: &LogEnd,
        state: &mut LogState,
    ) -> Result<LogEnd, LogError> {
        let mut end = self.start(before)?;
        while end.place.offset < until.place.offset {
            let offset = end.place.offset as usize;
            match self.next(&end) {
                Ok(group) => self.accept(&group, &mut end, state)?,
                Err(fault) => {
                    self.refuse_if_unknown(fault, offset)?;
                    if self.read_echoes(&mut end, state) {
                        continue;
                    }
                    let why = format!("the group after {} is unreadable ({fault}), but the log goes on", end.seq);
                    return Err(self.corruption(offset, why));
                }
            }
        }
        if end != *until {
            return Err(self.corruption(end.place.offset as usize, "the next segment names another end of this one"));
        }
        Ok(end)
    }

    /// Reads the newest segment up to its end, whatever that is. `proven` is known to have been durable.
    pub(crate) fn scan_tail(&self, before: &LogEnd, proven: Seq, state: &mut LogState) -> Result<Tail, LogError> {
        let mut end = self.start(before)?;
        let mut durable_seq = proven.max(before.seq);
        let mut footer_parts = 0;
        // Replayed one step late, because the last group may have to be written again first.
        let mut pending: Option<(LogEnd, Group<'_>)> = None;
        let fault = loop {
            let next_seq = Seq(end.seq.0.saturating_add(1));
            let next = self.next(&end).and_then(|group| match group.check_payloads() {
                Err(fault) if !self.is_proven(next_seq, end.place.offset, durable_seq) => Err(fault),
                _ => Ok(group),
            });
            match next {
                Err(fault) if !fault.is_unknown() && self.is_proven(next_seq, end.place.offset, durable_seq) => {
                    if let Some((start, held)) = pending.take() {
                        self.accept(&held, &mut { start }, state)?;
                    }
                    if !self.read_echoes(&mut end, state) {
                        break fault;
                    }
                }
                Err(fault) => break fault,
                Ok(group) => {
                    durable_seq = durable_seq.max(group.header.durable_seq);
                    footer_parts += footer_part(group.directory.len());
                    let mut after = end;
                    advance(&mut after, &group);
                    if let Some((start, held)) = pending.replace((end, group)) {
                        self.accept(&held, &mut { start }, state)?;
                    }
                    end = after;
                }
            }
        };
        let offset = end.place.offset as usize;
        let next_seq = Seq(end.seq.0.saturating_add(1));
        self.refuse_if_proven(fault, offset, next_seq, durable_seq)?;
        let doubt = self.refuse_if_refused(offset, next_seq).err();
        let is_zero = is_zero(self.bytes.get(offset..).unwrap_or_default());
        let torn =
            self.is_torn(offset, is_zero).then(|| TornTail { file: self.name.to_string(), offset: offset as u64 });
        let has_refused = is_hit(self.refused, offset..self.bytes.len());
        let is_clear = is_zero && !has_refused;
        let last_seq = end.seq;
        let (mut unproven, mut last) = (None, None);
        if let Some((mut start, held)) = pending {
            let offset = start.place.offset as usize;
            if held.header.seq <= durable_seq {
                self.accept(&held, &mut start, state)?;
                last = Some(offset);
            } else {
                unproven = Some(offset);
                // The header was made durable together with the first group, so it is as unproven: the log ends before.
                end = if offset == BLOCK_BYTES { *before } else { start };
            }
        }
        Ok(Tail { end, last_seq, unproven, last, torn, doubt, has_refused, is_clear, footer_parts })
    }

    /// Whether something was begun behind the end. In a file that was used before, what lies there is old as long as
    /// nothing of this use starts there.
    pub(crate) fn is_torn(&self, offset: usize, is_clear: bool) -> bool {
        let log = self.header.identity.log;
        let own = |at: usize| self.bytes.get(at..).and_then(|bytes| GroupHeader::decode(bytes, log, at as u64).ok());
        if own(offset).is_some_and(|(header, _)| self.is_own(&header)) {
            return true;
        }
        let mut blocks = (offset..self.bytes.len()).step_by(BLOCK_BYTES);
        let used_before = headers(self.bytes, log, offset).any(|(_, header)| !self.is_own(&header))
            || blocks.any(|at| self.bytes[at..].starts_with(&FOOTER_MAGIC));
        !is_clear && !used_before
    }

    /// Whether something says that everything up to `seq` was durable.
    pub(crate) fn is_proven(&self, seq: Seq, offset: u64, durable_seq: Seq) -> bool {
        durable_seq >= seq || self.proof_of(seq, offset as usize).is_some()
    }

    /// Goes past an unreadable group that held nothing but hard states, if the group behind it repeats them. That one is
    /// found by its number, because it is not known where the unreadable one ends.
    fn read_echoes(&self, end: &mut LogEnd, state: &mut LogState) -> bool {
        if self.group(end.place.offset as usize).is_ok() {
            // It can be read and does not belong here: that is no damage that an echo makes good.
            return false;
        }
        let lost = end.seq.0.saturating_add(1);
        let is_next = |header: &GroupHeader| self.is_own(header) && Some(header.seq.0) == lost.checked_add(1);
        let found = headers(self.bytes, self.header.identity.log, end.place.offset as usize)
            .find(|(_, header)| is_next(header) && header.is_echo_whole())
            .and_then(|(at, _)| self.group(at).ok());
        let Some(group) = found else { return false };
        for run in group.runs().filter(|run| run.head.kind == KIND_HARD_STATE_ECHO) {
            let head: RunHead = run.head;
            if let Some(of) = state.group_mut(head.group) {
                of.hard_state = head.as_hard_state();
            }
        }
        end.place.offset = group.offset as u64;
        end.seq = Seq(lost);
        end.chain = group.header.prev_chain;
        true
    }

    /// Replays a group and moves the end behind it.
    fn accept(&self, group: &Group<'_>, end: &mut LogEnd, state: &mut LogState) -> Result<(), LogError> {
        let offset = end.place.offset as usize;
        let place = GroupPlace::of(self.header.segment.key(), offset, group.directory.len());
        state.apply(group.directory, place).map_err(|why| self.corruption(offset, why))?;
        advance(end, group);
        Ok(())
    }
}

fn advance(end: &mut LogEnd, group: &Group<'_>) {
    end.place.offset += group.header.group_len() as u64;
    end.seq = group.header.seq;
    end.chain = group.chain;
}

/// All group headers of a log that are intact in themselves, from `offset` on.
pub(crate) fn headers(bytes: &[u8], log: u128, offset: usize) -> impl Iterator<Item = (usize, GroupHeader)> + '_ {
    (offset..bytes.len())
        .step_by(BLOCK_BYTES)
        .filter_map(move |at| GroupHeader::decode(&bytes[at..], log, at as u64).ok().map(|(header, _)| (at, header)))
}
