//! Reads the groups of one segment, and decides what a group that cannot be read means.
//!
//! A writer starts group N + 1 only after group N is durable. So whatever is found that was written later, with a
//! `durable_seq` of at least N, proves that group N was durable: then it is corruption. Without such a proof it is
//! the torn end of a log, and nothing in it was ever acknowledged.

use crate::format::group::{Group, GroupHeader};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, Fault, LogEnd, Lsn, Seq, is_zero};
use crate::recover::replay::Replay;
use crate::{LogError, TornTail};

/// One segment of the log with its bytes.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: &'a [u8],
    /// Its position in the list of mappings.
    pub(crate) mapping: u32,
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
    /// What lies behind the end, if anything does.
    pub(crate) torn: Option<TornTail>,
}

impl Image<'_> {
    pub(crate) fn corruption(&self, offset: usize, why: impl Into<String>) -> LogError {
        LogError::Corruption { file: self.name.to_string(), offset: offset as u64, why: why.into() }
    }

    /// The group at `offset`, if it is intact and belongs to this use of the file.
    pub(crate) fn group(&self, offset: usize) -> Result<Group<'_>, Fault> {
        let group = Group::check(self.bytes, self.header.identity.log, offset)?;
        if self.is_own(&group.header) {
            Ok(group)
        } else {
            Err(Fault::Bad("the group is of an earlier use of the file"))
        }
    }

    fn is_own(&self, header: &GroupHeader) -> bool {
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
    pub(crate) fn scan_closed(&self, before: &LogEnd, until: &LogEnd, replay: &mut Replay) -> Result<LogEnd, LogError> {
        let mut end = self.start(before)?;
        while end.place.offset < until.place.offset {
            let offset = end.place.offset as usize;
            match self.next(&end) {
                Ok(group) => self.accept(&group, &mut end, replay)?,
                Err(fault) => {
                    self.refuse_if_unknown(fault, offset)?;
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
    pub(crate) fn scan_tail(&self, before: &LogEnd, proven: Seq, replay: &mut Replay) -> Result<Tail, LogError> {
        let mut end = self.start(before)?;
        let mut durable_seq = proven.max(before.seq);
        // Replayed one step late, because the last group may have to be written again first.
        let mut pending: Option<(LogEnd, Group<'_>)> = None;
        let fault = loop {
            match self.next(&end) {
                Err(fault) => break fault,
                Ok(group) => {
                    durable_seq = durable_seq.max(group.header.durable_seq);
                    let mut after = end;
                    advance(&mut after, &group);
                    if let Some((start, held)) = pending.replace((end, group)) {
                        self.accept(&held, &mut { start }, replay)?;
                    }
                    end = after;
                }
            }
        };
        let offset = end.place.offset as usize;
        let next_seq = Seq(end.seq.0.saturating_add(1));
        self.refuse_if_proven(fault, offset, next_seq, durable_seq)?;
        let behind = self.bytes.get(offset..).unwrap_or_default();
        let torn = (!is_zero(behind)).then(|| TornTail { file: self.name.to_string(), offset: offset as u64 });
        let last_seq = end.seq;
        let mut unproven = None;
        if let Some((mut start, held)) = pending {
            if held.header.seq <= durable_seq {
                self.accept(&held, &mut start, replay)?;
            } else {
                let offset = start.place.offset as usize;
                unproven = Some(offset);
                // The header was made durable together with the first group, so it is as unproven: the log ends before.
                end = if offset == BLOCK_BYTES { *before } else { start };
            }
        }
        Ok(Tail { end, last_seq, unproven, torn })
    }

    /// Replays a group and moves the end behind it.
    fn accept(&self, group: &Group<'_>, end: &mut LogEnd, replay: &mut Replay) -> Result<(), LogError> {
        let offset = end.place.offset as usize;
        replay.apply(group, self.mapping).map_err(|why| self.corruption(offset, why))?;
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
