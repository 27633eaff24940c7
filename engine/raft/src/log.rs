//! The log of one replica: the identities of all entries, and the payloads of the newest ones.
//!
//! Raft's rules compare identities, index and term, and hardly ever payloads. Terms never fall along a log, so the
//! first entry of each term says the term of every other, and the whole log is known by a few numbers for each leader it
//! ever had. Payloads are needed by the machine once and by a peer that is behind. They stay in memory for a while, in a
//! *window* at the end of the log; what has left it is read back from the disk (`raft/fetch.rs`).
//!
//! The beginning of a log can be given up ([`Log::compact`]): then its last identity is kept, and nothing before it is
//! known any more.
//!
//! What of the log is durable is the business of [`crate::durable`]; what of it is committed is kept here, because a
//! committed entry may never be cut.

use std::collections::VecDeque;

use pontoon_types::{Entry, Index, LogId, Term};

use crate::config::Identities;

/// Why the term of an index is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTerm {
    /// The log begins behind it.
    #[error("the entry is compacted")]
    Compacted,
    /// The log ends before it.
    #[error("the log ends before the entry")]
    Beyond,
}

/// The identities, the window and the commit index.
///
/// Invariants:
/// - compacted ≤ committed ≤ last, and none of them falls but last;
/// - `starts` holds the first entry behind `compacted` and the first of each later term; index and term grow along it;
/// - the window is the end of the log: its entries are consecutive and the last one is `last`; it may be empty;
/// - `window_bytes` is what [`held_bytes`] says of its entries.
#[derive(Debug, Default)]
pub(crate) struct Log {
    compacted: LogId,
    starts: Vec<LogId>,
    last: LogId,
    window: VecDeque<Entry>,
    window_bytes: usize,
    committed: Index,
}

/// An idle group keeps the empty entries of its last terms and nothing else. So few take no more room than they need.
const FEW: usize = 4;

/// What is let go at once of a window that is full: some hundred small entries, which take some microseconds.
const EVICTED_BYTES: usize = 16 << 10;

/// What an entry in the window takes of memory: an empty payload is not free.
fn held_bytes(entry: &Entry) -> usize {
    entry.payload.len() + size_of::<Entry>()
}

impl Log {
    /// A log that begins behind `compacted`, with `older` entries that are known by their identities and `entries` in
    /// the window. Nothing behind `compacted` is known to be committed.
    pub(crate) fn new(compacted: LogId, older: &Identities, entries: Vec<Entry>) -> Log {
        let mut log = Log { compacted, last: compacted, committed: compacted.index, ..Log::default() };
        for (place, start) in older.starts.iter().enumerate() {
            let next = older.starts.get(place + 1).map_or(older.last.next(), |next| next.index);
            let is_first = place == 0 || start.term > log.last.term;
            assert!(follows(log.last, *start) && is_first && start.index < next, "restored terms are wrong at {start}");
            log.starts.push(*start);
            log.last = LogId::new(next.previous(), start.term);
        }
        log.append(&entries);
        log
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    /// Everything up to here is given up.
    pub(crate) fn compacted(&self) -> LogId {
        self.compacted
    }

    /// The first index of the window; the one behind the log when the window is empty.
    pub(crate) fn first_held(&self) -> Index {
        Index(self.last.index.0 + 1 - self.window.len() as u64)
    }

    /// The memory that the entries of the window take.
    pub(crate) fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// The term at `index`; at `compacted` it is known, and term zero stands before the first entry of all.
    pub(crate) fn term_at(&self, index: Index) -> Result<Term, NoTerm> {
        if index > self.last.index {
            return Err(NoTerm::Beyond);
        }
        if index <= self.compacted.index {
            return if index == self.compacted.index { Ok(self.compacted.term) } else { Err(NoTerm::Compacted) };
        }
        if let Some(position) = index.0.checked_sub(self.first_held().0) {
            return Ok(self.window[position as usize].id.term);
        }
        let count = self.starts.partition_point(|start| start.index <= index);
        Ok(self.starts[count - 1].term)
    }

    /// Whether this entry is in the log. One that is given up was committed, so there is no other at its index.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        match self.term_at(id.index) {
            Ok(term) => term == id.term,
            Err(NoTerm::Compacted) => true,
            Err(NoTerm::Beyond) => false,
        }
    }

    /// The identity of the entry at `index`, which must be in the log or be `compacted`.
    pub(crate) fn id_at(&self, index: Index) -> LogId {
        LogId::new(index, self.term_at(index).expect("the index is in the log"))
    }

    /// The entries in `[from, through]`, as far as they are there. None if `from` has left the window.
    pub(crate) fn held(&self, from: Index, through: Index) -> impl Iterator<Item = &Entry> + Clone {
        let first = self.first_held();
        let end = (through.0.saturating_add(1).max(first.0) - first.0).min(self.window.len() as u64) as usize;
        let start = from.0.checked_sub(first.0).map_or(end, |start| end.min(start as usize));
        self.window.range(start..end)
    }

    /// The entry at `index`, if it is in the window.
    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        self.held(index, index).next()
    }

    /// The entries from `from` on, as many as fit into both limits, but at least `at_least` of those that are in the window.
    pub(crate) fn cut(&self, from: Index, entries_max: usize, bytes_max: usize, at_least: usize) -> Vec<Entry> {
        let tail = self.held(from, Index(u64::MAX));
        let count = fit(tail.clone(), entries_max, bytes_max, at_least);
        tail.take(count).cloned().collect()
    }

    /// The last entry at or below `index` whose term is not above `term`; none when that one is given up. Terms never
    /// fall along the log, so a binary search finds it.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> Option<LogId> {
        let count = self.starts.partition_point(|start| start.term <= term);
        let below = self.starts.get(count).map_or(self.last.index, |start| start.index.previous());
        let found = index.min(below);
        let is_known = found > self.compacted.index || found == self.compacted.index && self.compacted.term <= term;
        is_known.then(|| self.id_at(found))
    }

    /// Appends entries that follow the last one.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            assert!(follows(self.last, entry.id), "log matching: {} cannot follow {}", entry.id, self.last);
            if entry.id.term > self.last.term || self.starts.is_empty() {
                if self.starts.len() < FEW {
                    self.starts.reserve_exact(1);
                }
                self.starts.push(entry.id);
            }
            self.last = entry.id;
            self.window_bytes += held_bytes(entry);
        }
        if self.window.len() < FEW {
            self.window.reserve_exact(entries.len());
        }
        self.window.extend(entries.iter().cloned());
    }

    /// Gives the entry its payload back, which the disk had lost. One that has left the window is read from the disk when
    /// it is needed.
    pub(crate) fn fill_in(&mut self, entry: &Entry) {
        let id = self.id_at(entry.id.index);
        assert!(id == entry.id, "log matching: {id} does not hold the payload of {}", entry.id);
        if let Some(position) = id.index.0.checked_sub(self.first_held().0) {
            let held = &mut self.window[position as usize];
            self.window_bytes += entry.payload.len() - held.payload.len();
            held.payload = entry.payload.clone();
        }
    }

    /// Cuts everything at and after `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.committed, "leader completeness: {from} is committed and cannot be truncated");
        let kept = from.0.saturating_sub(self.first_held().0) as usize;
        self.last = self.id_at(from.previous());
        self.window_bytes -= self.window.range(kept..).map(held_bytes).sum::<usize>();
        self.window.truncate(kept);
        self.starts.truncate(self.starts.partition_point(|start| start.index < from));
    }

    /// Moves the commit index forward.
    pub(crate) fn commit(&mut self, index: Index) {
        assert!(self.committed <= index, "the commit index cannot fall from {} to {index}", self.committed);
        assert!(index <= self.last.index, "{index} is not in the log and cannot be committed");
        self.committed = index;
    }

    /// Lets the oldest entries of a window with more than `bytes_max` go, up to and including `through` at most: so many that
    /// some room is left, because an entry that nobody has touched for long is far away for the processor, and its
    /// neighbours come with it. Their identities stay.
    pub(crate) fn evict(&mut self, bytes_max: usize, through: Index) {
        let kept_bytes = bytes_max - EVICTED_BYTES.min(bytes_max / 8);
        while self.window_bytes > kept_bytes
            && let Some(entry) = self.window.front().filter(|entry| entry.id.index <= through)
        {
            self.window_bytes -= held_bytes(entry);
            self.window.pop_front();
        }
        self.shrink();
    }

    /// Gives up everything up to and including `to`, which is committed.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(to <= self.committed, "{to} is not committed and cannot be given up");
        let (compacted, last) = (self.id_at(to), self.last);
        let mut passed = self.starts.partition_point(|start| start.index <= to.next());
        if to < last.index {
            // The first entry that stays opens the list, whether or not it opens a term.
            passed -= 1;
            self.starts[passed] = self.id_at(to.next());
        }
        self.starts.drain(..passed);
        self.compacted = compacted;
        self.evict(0, to);
    }

    /// Gives up everything, and goes on behind `to`, which a snapshot covers.
    pub(crate) fn reset(&mut self, to: LogId) {
        assert!(self.committed <= to.index, "leader completeness: {to} is before what is committed");
        *self = Log { compacted: to, last: to, committed: to.index, ..Log::default() };
    }

    /// Gives memory back that a burst has taken.
    fn shrink(&mut self) {
        if self.window.capacity() > 4 * self.window.len().max(16) {
            self.window.shrink_to(2 * self.window.len());
        }
    }

    /// Panics when an invariant of the type does not hold that can be seen without walking the log.
    pub(crate) fn check(&self) {
        assert!(self.compacted.index <= self.committed, "compacted ≤ committed");
        assert!(self.committed <= self.last.index, "committed ≤ last");
        assert!(self.starts.is_empty() == (self.compacted == self.last), "the terms of all entries are known");
        let first = self.starts.first().map_or(self.compacted.index.next(), |start| start.index);
        assert!(first == self.compacted.index.next(), "the log begins behind what is compacted");
        assert!(self.starts.last().is_none_or(|start| start.term == self.last.term), "the last term is the last one");
        assert!(self.window.back().is_none_or(|entry| entry.id == self.last), "the window is the end of the log");
        assert!(self.first_held() > self.compacted.index, "what is compacted is not in the window");
        assert!(self.window.is_empty() == (self.window_bytes == 0), "the window's bytes are those of its entries");
    }
}

/// How many of these entries fit into both limits, but at least `at_least` of those that are there.
pub(crate) fn fit<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    entries_max: usize,
    bytes_max: usize,
    at_least: usize,
) -> usize {
    let (mut count, mut bytes) = (0, 0);
    for entry in entries.take(entries_max) {
        bytes += entry.payload.len();
        if bytes > bytes_max && count >= at_least {
            break;
        }
        count += 1;
    }
    count
}

/// Whether `next` may stand right after `previous`.
pub(crate) fn follows(previous: LogId, next: LogId) -> bool {
    next.index == previous.index.next() && next.term >= previous.term && next.term > Term(0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pontoon_types::{Index, Term};

    use super::*;

    #[test]
    fn a_window_that_is_too_large_is_made_small_enough_for_some_more() {
        let entry = |index| Entry::command(LogId::new(Index(index), Term(1)), Bytes::from(vec![7; 100]));
        let each = held_bytes(&entry(1));
        let log = |bytes_max: usize, through| {
            let mut log = Log::new(LogId::default(), &Identities::default(), (1..=200).map(entry).collect());
            log.evict(bytes_max, Index(through));
            (log.first_held().0, log.window_bytes() / each)
        };
        assert_eq!(log(160 * each, 200), (61, 140), "an eighth of the limit is free");
        assert_eq!(log(160 * each, 50), (51, 150), "what is still needed stays");
        assert_eq!(log(0, 200), (201, 0));
    }
}
