//! What one replica's log holds, as the checkers keep it: a replay of its writes in the order of writing (law 14).
//!
//! It is kept apart from the log under test on purpose: entries in a plain list, nothing shared with `pontoon-wal`.
//!
//! What was given up is known by its last identity alone, which was committed.

use std::collections::BTreeMap;

use pontoon_types::{Compaction, Entry, HardState, Index, LogId, ReplicaId, Term, Write};

/// The log of one replica, as a replay in write order leaves it (law 14).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLog {
    /// Whose log it is.
    pub replica: ReplicaId,
    /// Term and vote.
    pub hard_state: HardState,
    /// Everything up to here was given up.
    pub compacted: LogId,
    /// The entries behind it.
    pub entries: Vec<Entry>,
    /// Every vote that was ever written, by term, for the checkers.
    pub votes: BTreeMap<Term, ReplicaId>,
}

impl ReplicaLog {
    /// The log of a new replica.
    pub fn new(replica: ReplicaId) -> ReplicaLog {
        ReplicaLog { replica, ..ReplicaLog::default() }
    }

    /// Carries out one write, or says why no log can.
    pub fn write(&mut self, write: &Write) -> Result<(), String> {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
            if let Some(vote) = hard_state.vote {
                self.votes.insert(hard_state.term, vote);
            }
        }
        if let Some(from) = write.truncate_from {
            if from.0 == 0 || from > self.last().index.next() {
                return Err(format!("a truncation from {from} of a log that ends at {}", self.last()));
            }
            if from <= self.compacted.index {
                return Err(format!("a truncation from {from} of a log that was given up to {}", self.compacted));
            }
            self.entries.truncate((from.0 - self.compacted.index.0 - 1) as usize);
        }
        for entry in &write.entries {
            if entry.id.index != self.last().index.next() || entry.id.term < self.last().term {
                return Err(format!("entry {} does not follow {}", entry.id, self.last()));
            }
            self.entries.push(entry.clone());
        }
        if let Some(entry) = write.restored.iter().find(|entry| self.get(entry.id.index) != Some(entry)) {
            return Err(format!("{} is restored as another entry than was written there", entry.id));
        }
        match write.compact {
            Some(compaction) => self.compact(compaction),
            None => Ok(()),
        }
    }

    fn compact(&mut self, Compaction { to, reset }: Compaction) -> Result<(), String> {
        if reset && self.id_at(to.index) == Some(to) && self.last() != to {
            return Err(format!("a reset to {to}, behind which the log that holds it goes on to {}", self.last()));
        } else if reset {
            self.entries.clear();
        } else if self.id_at(to.index) != Some(to) {
            return Err(format!("a compaction to {to}, which the log does not hold"));
        } else {
            self.entries.drain(..(to.index.0 - self.compacted.index.0) as usize);
        }
        self.compacted = to;
        Ok(())
    }

    /// Whether the log holds this entry, or has given up what it stood in.
    pub fn covers(&self, id: LogId) -> bool {
        id.index <= self.compacted.index || self.id_at(id.index) == Some(id)
    }

    /// The entries in `(after, through]` that were not given up.
    pub fn between(&self, after: Index, through: Index) -> &[Entry] {
        let place = |index: Index| (index.0.saturating_sub(self.compacted.index.0) as usize).min(self.entries.len());
        &self.entries[place(after)..place(through)]
    }

    /// The end of the log.
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.compacted, |entry| entry.id)
    }

    /// The entry at `index`.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(self.compacted.index.0 + 1)? as usize)
    }

    /// The identity of the entry at `index`, as far as it is known; zero stands for the beginning.
    pub fn id_at(&self, index: Index) -> Option<LogId> {
        if index == self.compacted.index { Some(self.compacted) } else { self.get(index).map(|entry| entry.id) }
    }
}
