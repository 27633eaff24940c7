//! The log of one group: positions, entries, and the writes that make them durable.
//!
//! Terms and indexes are those of Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014).
//! A position prints as `index@term`, so `7@2` is index 7 of term 2.

use std::fmt;

use bytes::Bytes;

use crate::ReplicaId;

/// A term of Raft. Zero is the term before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in a group's log. The first entry has index 1; zero means "nothing".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// The index after this one. The largest stays: no log comes to it, but bytes on a disk may name it.
    pub fn next(self) -> Index {
        Index(self.0.saturating_add(1))
    }

    /// The index before this one; zero stays zero.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The identity of an entry: no two different entries of a group share one (log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Compared first, as the election rule of the paper (section 5.4.1) compares logs.
    pub term: Term,
    /// The place.
    pub index: Index,
}

impl LogId {
    /// The position at `index` of `term`.
    pub fn new(index: Index, term: Term) -> LogId {
        LogId { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What the payload of an entry is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// The state machine. An empty payload is the no-op that opens a term.
    #[default]
    Command,
    /// The group itself: the payload says who its members are from this entry on.
    Configuration,
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub id: LogId,
    /// What its payload is for.
    pub kind: EntryKind,
    /// The bytes, at most [`crate::limits::COMMAND_BYTES_MAX`].
    pub payload: Bytes,
}

impl Entry {
    /// An entry for the state machine.
    pub fn command(id: LogId, payload: Bytes) -> Entry {
        Entry { id, kind: EntryKind::Command, payload }
    }

    /// An entry that says who the members of the group are.
    pub fn configuration(id: LogId, payload: Bytes) -> Entry {
        Entry { id, kind: EntryKind::Configuration, payload }
    }
}

/// What a replica must remember besides its entries: the paper's `currentTerm` and `votedFor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term this replica has seen.
    pub term: Term,
    /// The replica it voted for in that term.
    pub vote: Option<ReplicaId>,
}

/// The number of one write of one replica. Grows with every write; law 13 makes acknowledgements, votes and the
/// leader's own count wait for a number and never for an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteNumber(pub u64);

impl fmt::Display for WriteNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

/// How far the log of a core has come: it grows with every group of records that says something, over all lives of the log.
/// A log that shows a lower one than it once had has lost what it had promised (law 12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogMark(pub u64);

impl fmt::Display for LogMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

/// Bytes of entries that a log takes in before it has to say again how many, each entry counted with what the log adds to it.
/// None, when the log is full; else at least as many as the largest command needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogRoom(pub u64);

impl LogRoom {
    /// What a log takes for an entry besides its payload, at most.
    const ENTRY_BYTES: u64 = 96;

    /// What these entries take.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> LogRoom {
        LogRoom(entries.into_iter().map(|entry| LogRoom::of_payload(entry.payload.len()).0).sum())
    }

    /// What an entry with a payload of so many bytes takes.
    pub fn of_payload(payload_bytes: usize) -> LogRoom {
        LogRoom(payload_bytes as u64 + LogRoom::ENTRY_BYTES)
    }

    /// What is left when `taken` was taken in, if it has room.
    pub fn minus(self, taken: LogRoom) -> Option<LogRoom> {
        self.0.checked_sub(taken.0).map(LogRoom)
    }

    /// Whether no entry has room.
    pub fn is_none(self) -> bool {
        self == LogRoom(0)
    }
}

/// The number of one fetch of one replica: entries that have left memory are read back from the log, and come back under
/// it. Grows with every fetch, so that an answer to one that nobody waits for any more is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchNumber(pub u64);

impl fmt::Display for FetchNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

/// One write of one replica to the log of its core. Its parts are one ordered unit: all of it survives or none.
///
/// They are written, and replayed, in the order of the fields: creation, term and vote, truncation, entries, commit index,
/// restored payloads, compaction, removal.
///
/// Invariants: entries are consecutive; with `truncate_from = Some(i)` the first entry, if any, stands at `i`; restored
/// entries are in the log already, under the same [`LogId`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The number that comes back as durable.
    pub number: WriteNumber,
    /// The replica begins to exist on this core.
    pub create: Option<Box<Creation>>,
    /// Term and vote, when they changed.
    pub hard_state: Option<HardState>,
    /// Everything at and after this index is cut before the entries are appended (law 14).
    pub truncate_from: Option<Index>,
    /// The entries appended.
    pub entries: Vec<Entry>,
    /// The commit index, which rides along with entries and never makes a write of its own. Without it a start would take
    /// all behind the last checkpoint for undecided, and a log that is full of that could give nothing up.
    pub committed: Option<Index>,
    /// Entries whose payload the disk has lost, fetched from a peer: only the payload is new. Consecutive or not, in
    /// rising order.
    pub restored: Vec<Entry>,
    /// The beginning of the log is given up.
    pub compact: Option<Compaction>,
    /// The replica ends to exist on this core: the highest replica of the group that is dead by now. A later one
    /// needs a higher [`ReplicaId`] (law 11).
    pub remove: Option<ReplicaId>,
}

/// The birth of a replica in the log of its core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// Above every replica of this group that the log has ever held (law 11).
    pub replica: ReplicaId,
    /// What the owner of the log wants to find again with the replica; opaque to the log.
    pub descriptor: Bytes,
}

/// The beginning of a group's log is no longer needed, because a durable snapshot or table covers it (law 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The last position that is covered.
    pub to: LogId,
    /// The log does not hold `to`: it is emptied and goes on behind it (law 18). Otherwise what stands behind `to`
    /// is kept.
    pub reset: bool,
}
