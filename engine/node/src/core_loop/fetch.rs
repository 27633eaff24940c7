//! Entries that have left memory, read back from the log for the groups that ask for them.
//!
//! A group asks in the effects of a turn; it is answered in a later one, as soon as the log can read without waiting for
//! the disk. What is cold was ordered by the attempt to read it, so it is tried again after a pause: a millisecond at
//! first, longer when the disk is slow. A turn serves a bounded number of fetches and of bytes, and goes around over
//! all that wait, so that none is forgotten.
//!
//! Each reader of a group has one fetch here at most: a newer one takes the place of the older one, which nobody waits for
//! any more.

use std::collections::BTreeMap;
use std::ops::Bound;

use pontoon_multiraft::{Event, Fetch, Reader, Unfetched};
use pontoon_types::limits::{FETCH_BYTES_PER_TURN, FETCHES_PER_TURN};
use pontoon_types::{Entry, GroupId, Time};
use pontoon_wal::ReadError;

use super::CoreLoop;
use super::segment_wait::SegmentWait;
use crate::driver::Driver;

type Asker = (GroupId, Reader);

/// What a core holds of its groups' logs in memory, and what it has read back from the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of the entries in memory.
    pub window_bytes: u64,
    /// The most that they ever were at the end of a turn.
    pub window_bytes_highest: u64,
    /// Fetches answered with entries.
    pub fetches: u64,
    /// The entries in them.
    pub fetched_entries: u64,
    /// Attempts that found the entries cold.
    pub cold_reads: u64,
}

/// The fetches that wait.
///
/// Invariant: `look_at` is set exactly while something waits.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    waiting: BTreeMap<Asker, Fetch>,
    /// The one that was tried last.
    tried: Option<Asker>,
    look_at: Option<Time>,
    /// Since when nothing could be read.
    pause: SegmentWait,
}

impl Fetches {
    /// When to try again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// Takes over what the groups asked for in this turn.
    pub(super) fn ask(&mut self, fetches: &mut Vec<(GroupId, Fetch)>) {
        for (group, fetch) in fetches.drain(..) {
            self.waiting.insert((group, fetch.reader), fetch);
            self.look_at.get_or_insert(Time(0));
        }
    }

    /// The next one to try, round and round.
    fn next(&mut self) -> Option<(Asker, Fetch)> {
        let behind = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.waiting.range((behind, Bound::Unbounded)).next().or_else(|| self.waiting.first_key_value());
        let (asker, fetch) = next.map(|(asker, fetch)| (*asker, *fetch))?;
        self.tried = Some(asker);
        Some((asker, fetch))
    }
}

impl<D: Driver> CoreLoop<D> {
    /// Notes how much the groups hold in memory.
    pub(super) fn watch_memory(&mut self) {
        self.memory.window_bytes = self.core.window_bytes() as u64;
        self.memory.window_bytes_highest = self.memory.window_bytes_highest.max(self.memory.window_bytes);
    }

    /// Answers what can be answered now.
    pub(super) fn serve_fetches(&mut self, now: Time) {
        if self.fetches.look_at.is_none_or(|at| at > now) {
            return;
        }
        let (mut bytes, mut served) = (0, 0);
        for _ in 0..FETCHES_PER_TURN.min(self.fetches.waiting.len()) {
            let Some((asker, fetch)) = self.fetches.next() else { break };
            let Fetch { number, from, through, bytes_max, .. } = fetch;
            let read = self.log.read(asker.0, from, through, bytes_max);
            self.memory.cold_reads += u64::from(matches!(read, Err(ReadError::Cold { .. })));
            let Some(result) = answer(read, &fetch) else { continue };
            self.memory.fetches += u64::from(result.is_ok());
            self.memory.fetched_entries += result.iter().flatten().count() as u64;
            bytes += result.iter().flatten().map(|entry| entry.payload.len()).sum::<usize>();
            served += 1;
            self.fetches.waiting.remove(&asker);
            self.step(now, Event::Fetched { group: asker.0, number, result });
            if bytes >= FETCH_BYTES_PER_TURN {
                break;
            }
        }
        let fetches = &mut self.fetches;
        if served > 0 {
            fetches.pause = SegmentWait::default();
        }
        fetches.look_at = match (fetches.waiting.is_empty(), served) {
            (true, _) => None,
            (false, 0) => Some(fetches.pause.next(now)),
            (false, _) => Some(Time(0)),
        };
    }
}

/// What the group hears of a read, or nothing if it is to be tried again.
fn answer(read: Result<Vec<Entry>, ReadError>, fetch: &Fetch) -> Option<Result<Vec<Entry>, Unfetched>> {
    match read {
        Ok(entries) => Some(Ok(entries)),
        Err(ReadError::Cold { .. }) => None,
        Err(error @ ReadError::Rotten { id, .. }) => {
            tracing::error!("{error}; the group fetches it from a peer");
            Some(Err(Unfetched::Rotten(id.index)))
        }
        // The group knows the identity of the entry all the same, so its payload is what is lost.
        Err(error @ ReadError::RottenDirectory { .. }) => {
            tracing::error!("{error}; the group fetches the entry from a peer");
            Some(Err(Unfetched::Rotten(fetch.from)))
        }
        Err(ReadError::Compacted { .. }) => Some(Err(Unfetched::Compacted)),
        Err(ReadError::Missing { .. }) => Some(Err(Unfetched::Missing)),
        // The replica was destroyed meanwhile, and nobody waits for the answer.
        Err(ReadError::NoGroup { .. }) => Some(Err(Unfetched::Compacted)),
        // The system is short of something, which may pass.
        Err(error @ ReadError::Io { .. }) => {
            tracing::warn!("{error}; trying again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use pontoon_types::{FetchNumber, Index, LogId, Term};

    use super::*;

    fn fetch(number: u64, reader: Reader) -> Fetch {
        let (from, through) = (Index(5), Index(9));
        Fetch { reader, number: FetchNumber(number), from, through, bytes_max: 100 }
    }

    #[test]
    fn a_newer_fetch_takes_the_place_of_the_older_and_all_have_their_turn() {
        let mut fetches = Fetches::default();
        assert_eq!(fetches.deadline(), None);
        let machine = |group, number| (GroupId(group), fetch(number, Reader::Machine));
        fetches.ask(&mut vec![machine(2, 1), machine(3, 1), machine(2, 2)]);
        assert_eq!(fetches.deadline(), Some(Time(0)));
        let order: Vec<u64> = (0..4).filter_map(|_| fetches.next()).map(|((group, _), _)| group.0).collect();
        assert_eq!(order, [2, 3, 2, 3]);
        assert_eq!(fetches.waiting[&(GroupId(2), Reader::Machine)].number, FetchNumber(2));
    }

    #[test]
    fn what_is_rotten_is_named_and_what_is_cold_waits() {
        let (group, index) = (GroupId(2), Index(5));
        let asked = fetch(1, Reader::Machine);
        assert_eq!(answer(Err(ReadError::Cold { group, index }), &asked), None);
        let id = LogId::new(Index(6), Term(1));
        let (file, offset) = ("slot".to_string(), 0);
        let rotten = ReadError::Rotten { group, id, file: file.clone(), offset };
        assert_eq!(answer(Err(rotten), &asked), Some(Err(Unfetched::Rotten(Index(6)))));
        let rotten = ReadError::RottenDirectory { group, index: Index(1), file, offset };
        assert_eq!(answer(Err(rotten), &asked), Some(Err(Unfetched::Rotten(Index(5)))));
        let gone = ReadError::Compacted { group, index, to: id };
        assert_eq!(answer(Err(gone), &asked), Some(Err(Unfetched::Compacted)));
    }
}
