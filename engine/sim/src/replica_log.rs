//! What one replica's log holds, as the checkers keep it: a replay of its writes in the order of writing (law 14).
//!
//! It is kept apart from the log under test on purpose: entries in a plain list, nothing shared with `pontoon-wal`.
//!
//! Left out: creation, compaction and removal of replicas. The core does not do them yet, so such a write is refused.

use std::collections::BTreeMap;

use pontoon_types::{Entry, HardState, Index, LogId, ReplicaId, Term, Write};

/// The log of one replica, as a replay in write order leaves it (law 14).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLog {
    /// Term and vote.
    pub hard_state: HardState,
    /// Entries from index 1.
    pub entries: Vec<Entry>,
    /// Every vote that was ever written, by term, for the checkers.
    pub votes: BTreeMap<Term, ReplicaId>,
}

impl ReplicaLog {
    /// Carries out one write, or says why no log can.
    pub fn write(&mut self, write: &Write) -> Result<(), String> {
        if write.create.is_some() || write.compact.is_some() || write.remove.is_some() {
            return Err("a creation, compaction or removal, which no core asks for yet".to_string());
        }
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
            self.entries.truncate(from.previous().0 as usize);
        }
        for entry in &write.entries {
            if entry.id.index != self.last().index.next() || entry.id.term < self.last().term {
                return Err(format!("entry {} does not follow {}", entry.id, self.last()));
            }
            self.entries.push(entry.clone());
        }
        match write.restored.iter().find(|entry| self.get(entry.id.index) != Some(entry)) {
            Some(entry) => Err(format!("{} is restored as another entry than was written there", entry.id)),
            None => Ok(()),
        }
    }

    /// The end of the log.
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::default(), |entry| entry.id)
    }

    /// The entry at `index`.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(1)? as usize)
    }

    /// The identity of the entry at `index`; zero stands for the beginning.
    pub fn id_at(&self, index: Index) -> Option<LogId> {
        if index == Index(0) { Some(LogId::default()) } else { self.get(index).map(|entry| entry.id) }
    }
}
