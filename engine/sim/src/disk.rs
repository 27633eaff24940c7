//! The disk of one core: what was appended, what of it is synced, and what a crash leaves.
//!
//! The model is that of the log: one append per turn with all groups' writes, which survives whole or not at all; one
//! sync in flight, which covers everything appended before it began; later appends wait for the next. A crash keeps
//! what is synced and a prefix of the rest. What survived a crash counts as durable afterwards, because recovery
//! writes it again and syncs it before anything acts on it (law 17).

use std::collections::{BTreeMap, VecDeque};

use pontoon_multiraft::CoreWrite;
use pontoon_types::{CoreWriteNumber, Entry, GroupId, HardState, Index, LogId, ReplicaId, Term, Write};

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
        Ok(())
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

/// The disk of one core.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: BTreeMap<GroupId, ReplicaLog>,
    unsynced: VecDeque<CoreWrite>,
    syncing_through: Option<CoreWriteNumber>,
}

impl Disk {
    /// An empty disk with these groups created.
    pub fn new(groups: impl Iterator<Item = GroupId>) -> Disk {
        Disk { durable: groups.map(|group| (group, ReplicaLog::default())).collect(), ..Disk::default() }
    }

    /// Takes one append.
    pub fn append(&mut self, write: CoreWrite) {
        self.unsynced.push_back(write);
    }

    /// Begins a sync of everything appended, if there is anything and none is in flight.
    pub fn begin_sync(&mut self) -> Option<CoreWriteNumber> {
        if self.syncing_through.is_some() {
            return None;
        }
        self.syncing_through = self.unsynced.back().map(|write| write.number);
        self.syncing_through
    }

    /// The sync in flight is done: what it covers is durable.
    pub fn finish_sync(&mut self) -> Option<CoreWriteNumber> {
        let through = self.syncing_through.take()?;
        while self.unsynced.front().is_some_and(|write| write.number <= through) {
            self.harden();
        }
        Some(through)
    }

    /// The machine stops. The first `survivors` of the unsynced appends reached the disk anyway.
    pub fn crash(&mut self, survivors: usize) {
        for _ in 0..survivors.min(self.unsynced.len()) {
            self.harden();
        }
        self.unsynced.clear();
        self.syncing_through = None;
    }

    /// How many appends are not synced.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// What is durable of `group`.
    pub fn durable(&self, group: GroupId) -> &ReplicaLog {
        self.durable.get(&group).expect("law: every group of a core was created in its log")
    }

    fn harden(&mut self) {
        let Some(append) = self.unsynced.pop_front() else { return };
        for (group, write) in &append.writes {
            let log = self.durable.get_mut(group).expect("law: every group of a core was created in its log");
            // The same write was checked when it was appended; the durable log is the appended log of an earlier time.
            log.write(write).expect("law: what could be appended can be replayed");
        }
    }
}
