//! The log of one replica, in memory.
//!
//! It holds every entry since index 1: nothing is compacted here. What of it is durable is the business of
//! [`crate::durable`]; what of it is committed is kept here, because a committed entry may never be cut.

use pontoon_types::{Entry, Index, LogId, Term};

/// The entries and the commit index.
///
/// Invariants:
/// - the entry at position `i` has index `i + 1`;
/// - terms never fall from one entry to the next;
/// - committed ≤ last, and committed never falls.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: Vec<Entry>,
    committed: Index,
}

impl Log {
    /// A log with these entries, none of them known to be committed.
    pub(crate) fn new(entries: Vec<Entry>) -> Log {
        let mut previous = LogId::default();
        for entry in &entries {
            assert!(follows(previous, entry.id), "restored entries are not consecutive at {}", entry.id);
            previous = entry.id;
        }
        Log { entries, committed: Index(0) }
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::default(), |entry| entry.id)
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    /// The term at `index`; term zero stands before the first entry.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        match index.0 {
            0 => Some(Term(0)),
            _ => self.entries.get(index.0 as usize - 1).map(|entry| entry.id.term),
        }
    }

    /// The identity of the entry at `index`, which must be in the log or zero.
    pub(crate) fn id_at(&self, index: Index) -> LogId {
        LogId::new(index, self.term_at(index).expect("the index is in the log"))
    }

    /// The entries in `[from, through]` that are there.
    pub(crate) fn slice(&self, from: Index, through: Index) -> &[Entry] {
        let end = self.entries.len().min(through.0 as usize);
        let start = (from.0.max(1) as usize - 1).min(end);
        &self.entries[start..end]
    }

    /// The entries from `from` on, as many as fit into both limits, but at least `at_least` of those that are there.
    pub(crate) fn cut(&self, from: Index, entries_max: usize, bytes_max: usize, at_least: usize) -> &[Entry] {
        let tail = self.slice(from, Index(u64::MAX));
        let tail = &tail[..tail.len().min(entries_max)];
        let mut bytes = 0;
        for (count, entry) in tail.iter().enumerate() {
            bytes += entry.payload.len();
            if bytes > bytes_max && count >= at_least {
                return &tail[..count];
            }
        }
        tail
    }

    /// The last entry at or below `index` whose term is not above `term`; `0@0` when there is none. Terms never fall
    /// along the log, so a binary search finds it.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> LogId {
        let below = self.slice(Index(1), index);
        let count = below.partition_point(|entry| entry.id.term <= term);
        self.id_at(Index(count as u64))
    }

    /// Appends entries that follow the last one.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let mut previous = self.last();
        for entry in entries {
            assert!(follows(previous, entry.id), "log matching: {} cannot follow {previous}", entry.id);
            previous = entry.id;
        }
        self.entries.extend_from_slice(entries);
    }

    /// Gives the entry its payload back, which the disk had lost.
    pub(crate) fn fill_in(&mut self, entry: &Entry) {
        let held = &mut self.entries[entry.id.index.0 as usize - 1];
        assert!(held.id == entry.id, "log matching: {} does not hold the payload of {}", entry.id, held.id);
        held.payload = entry.payload.clone();
    }

    /// Cuts everything at and after `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.committed, "leader completeness: {from} is committed and cannot be truncated");
        self.entries.truncate(from.0 as usize - 1);
    }

    /// Moves the commit index forward.
    pub(crate) fn commit(&mut self, index: Index) {
        assert!(self.committed <= index, "the commit index cannot fall from {} to {index}", self.committed);
        assert!(index <= self.last().index, "{index} is not in the log and cannot be committed");
        self.committed = index;
    }
}

/// Whether `next` may stand right after `previous`.
pub(crate) fn follows(previous: LogId, next: LogId) -> bool {
    next.index == previous.index.next() && next.term >= previous.term && next.term > Term(0)
}
