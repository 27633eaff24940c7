//! Every group of records and its runs, in the order of writing.

use pontoon_types::{GroupId, Index, LogId, ReplicaId, Term};

use super::layout::Layout;
use super::stream_name;
use super::walk::{Seen, Step, range};
use crate::LogError;
use crate::format::record::{self, Record, Run};
use crate::format::{SegmentId, Seq};
use crate::storage::Storage;

/// What a dump comes by.
#[derive(Debug)]
pub enum Item<'a> {
    /// A group of records.
    Records(Records<'a>),
    /// A range that cannot be read.
    Unreadable(Unreadable),
    /// The end of the log: the last group of records.
    End(Seq),
}

/// A group of records: what one sync made durable.
pub struct Records<'a> {
    /// Its file.
    pub file: &'a str,
    /// The use of its segment: `log`, `cold` or `checkpoint`.
    pub stream: &'static str,
    /// Its segment.
    pub segment: SegmentId,
    /// Where it starts in the file.
    pub offset: u64,
    /// Its number.
    pub seq: Seq,
    /// What was durable when it was written.
    pub durable_seq: Seq,
    /// What it takes with its padding.
    pub bytes: u64,
    /// It only says what was durable.
    pub is_seal: bool,
    /// Why it cannot be read in its place: then the copy of its directory in the footer is shown.
    pub fault: Option<String>,
    seen: &'a Seen<'a>,
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "group of records {} in {} at {}", self.seq, self.file, self.offset)
    }
}

/// One run of a group of records.
pub struct RunOf<'a> {
    /// Its kind, by number.
    pub kind: u8,
    /// The Raft group.
    pub group: GroupId,
    /// The index that it is about, or the first of several; a replica in runs about votes, creations and removals.
    pub index: u64,
    /// How many records it has.
    pub count: u32,
    /// The term.
    pub term: u64,
    /// Bits of the kind.
    pub flags: u8,
    /// Bytes of its payloads.
    pub bytes: u64,
    run: Run<'a>,
    seen: &'a Seen<'a>,
}

/// One entry of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryOf<'a> {
    /// Its identity.
    pub id: LogId,
    /// Where its payload starts in the file.
    pub offset: u64,
    /// The payload's length.
    pub length: usize,
    /// Its checksum, as the directory says.
    pub crc: u32,
    /// The payload. None when it is rotten.
    pub payload: Option<&'a [u8]>,
}

/// A range that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub file: String,
    /// Where it starts.
    pub offset: u64,
    /// Which groups of records are not known.
    pub what: String,
    /// Why.
    pub why: String,
}

impl<'a> Records<'a> {
    fn of(seen: &'a Seen<'a>) -> Records<'a> {
        Records {
            file: &seen.planned.name,
            stream: stream_name(seen.planned.header.stream),
            segment: seen.planned.header.segment,
            offset: seen.offset as u64,
            seq: seen.header.seq,
            durable_seq: seen.header.durable_seq,
            bytes: seen.header.group_len() as u64,
            is_seal: seen.header.is_seal(),
            fault: seen.fault.map(|fault| fault.to_string()),
            seen,
        }
    }

    /// Its runs, in the order of writing.
    pub fn runs(&self) -> impl Iterator<Item = RunOf<'a>> + use<'a> {
        let seen = self.seen;
        seen.runs().map(move |run| RunOf {
            kind: run.head.kind,
            group: run.head.group,
            index: run.head.index,
            count: run.head.count,
            term: run.head.term,
            flags: run.head.flags,
            bytes: run.records().map(|record| record.length as u64).sum(),
            run,
            seen,
        })
    }
}

impl<'a> RunOf<'a> {
    /// Whether its records are entries.
    pub fn holds_entries(&self) -> bool {
        matches!(self.kind, record::KIND_ENTRIES | record::KIND_RESTORED)
    }

    /// The last index that it is about.
    pub fn last_index(&self) -> u64 {
        self.index + u64::from(self.count.max(1)) - 1
    }

    /// The replica that a run about a vote names.
    pub fn vote(&self) -> Option<ReplicaId> {
        let is_vote = matches!(self.kind, record::KIND_HARD_STATE | record::KIND_HARD_STATE_ECHO);
        is_vote.then(|| self.run.head.as_hard_state().vote).flatten()
    }

    /// The entry at an index.
    pub fn entry(&self, index: Index) -> Option<EntryOf<'a>> {
        let position = index.0.checked_sub(self.index).filter(|_| self.holds_entries())?;
        let found: Record = self.run.records().nth(usize::try_from(position).ok()?)?;
        Some(EntryOf {
            id: LogId::new(index, Term(self.term)),
            offset: self.seen.payload_at(&found) as u64,
            length: found.length,
            crc: found.crc,
            payload: self.seen.payload(&found),
        })
    }
}

/// The name of a kind of runs.
pub fn kind_name(kind: u8) -> String {
    let name = match kind {
        record::KIND_ENTRIES => "ENTRIES",
        record::KIND_HARD_STATE => "HARD_STATE",
        record::KIND_TRUNCATE => "TRUNCATE",
        record::KIND_GROUP_CREATE => "GROUP_CREATE",
        record::KIND_RESTORED => "RESTORED",
        record::KIND_COMPACT => "COMPACT",
        record::KIND_TOMBSTONE => "TOMBSTONE",
        record::KIND_VOTE_LOST => "VOTE_LOST",
        record::KIND_CHECKPOINT => "CHECKPOINT",
        record::KIND_SEGMENT => "SEGMENT",
        record::KIND_GROUP_STATE => "GROUP_STATE",
        record::KIND_GROUP_RUNS => "GROUP_RUNS",
        record::KIND_HARD_STATE_ECHO => "HARD_STATE_ECHO",
        record::KIND_COMMITTED => "COMMITTED",
        other => return format!("KIND_{other}"),
    };
    name.to_string()
}

/// Shows all that the segments of a log say, by the ids of the segments: in the order of writing. An error of `show`
/// ends it.
pub fn dump(storage: &dyn Storage, show: &mut dyn FnMut(Item<'_>) -> Result<(), LogError>) -> Result<(), LogError> {
    Layout::of(storage)?.walk(&mut |step| match step {
        Step::Group(seen) => show(Item::Records(Records::of(&seen))),
        Step::Lost(lost) => {
            let what = range(lost.first, lost.last);
            let (file, offset, why) = (lost.file, lost.offset, lost.why);
            show(Item::Unreadable(Unreadable { file, offset, what, why }))
        }
        Step::End(end, _) => show(Item::End(end.seq)),
        Step::Footer(..) | Step::Unreadable(..) => Ok(()),
    })
}
