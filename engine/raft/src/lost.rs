//! The entries whose payload the disk has lost.
//!
//! A checksum shows that a payload is rotten, and the log names the entry by group, index and term. Such an entry is
//! *missing* while nobody here has its payload: the log then knows its identity and no bytes. It is
//! *restoring* while its payload is known again and is on its way to the disk. What this means for elections and for
//! replication is the business of `raft/restore.rs`.

use std::collections::{BTreeMap, BTreeSet};

use pontoon_types::{Index, WriteNumber};

/// The entries without a payload on the disk.
///
/// Invariants: no entry is both missing and restoring; each write in `restoring` is in flight.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    missing: BTreeSet<Index>,
    restoring: BTreeMap<Index, WriteNumber>,
}

impl Lost {
    pub(crate) fn new(missing: impl IntoIterator<Item = Index>) -> Lost {
        Lost { missing: missing.into_iter().collect(), restoring: BTreeMap::new() }
    }

    /// The entries whose payload is nowhere here, in rising order.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Index> + use<'_> {
        self.missing.iter().copied()
    }

    /// The first entry whose payload is nowhere here.
    pub(crate) fn first_missing(&self) -> Option<Index> {
        self.missing.first().copied()
    }

    pub(crate) fn is_missing(&self, index: Index) -> bool {
        self.missing.contains(&index)
    }

    /// The first entry whose payload is not on the disk.
    pub(crate) fn first_not_durable(&self) -> Option<Index> {
        let restoring = self.restoring.first_key_value().map(|(index, _)| *index);
        [self.first_missing(), restoring].into_iter().flatten().min()
    }

    pub(crate) fn is_restoring(&self, index: Index) -> bool {
        self.restoring.contains_key(&index)
    }

    /// The payload of this entry is nowhere here.
    pub(crate) fn miss(&mut self, index: Index) {
        self.missing.insert(index);
    }

    /// The payload of this entry was handed to the disk with this write.
    pub(crate) fn restore(&mut self, index: Index, write: WriteNumber) {
        self.missing.remove(&index);
        self.restoring.insert(index, write);
    }

    /// All writes up to `number` are durable. Says whether a payload is there again.
    pub(crate) fn complete(&mut self, number: WriteNumber) -> bool {
        let before = self.restoring.len();
        self.restoring.retain(|_, write| *write > number);
        self.restoring.len() < before
    }

    /// The log was cut at and after `from`: what was lost there is of no interest any more.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.missing.split_off(&from);
        self.restoring.split_off(&from);
    }

    /// The log begins behind `to` now: what was lost before is of no interest any more.
    pub(crate) fn compact(&mut self, to: Index) {
        self.missing = self.missing.split_off(&to.next());
        self.restoring = self.restoring.split_off(&to.next());
    }

    /// The log was replaced by a snapshot, or what it lacked was.
    pub(crate) fn clear(&mut self) {
        *self = Lost::default();
    }

    /// Panics when an invariant of the type does not hold.
    pub(crate) fn check(&self, log_last: Index, durable: WriteNumber, last: WriteNumber) {
        let highest = self.restoring.last_key_value().map(|(index, _)| *index).max(self.missing.last().copied());
        assert!(highest.is_none_or(|index| index <= log_last), "a lost entry is in the log");
        for (index, write) in &self.restoring {
            assert!(
                durable < *write && *write <= last,
                "law 13: the payload of {index} is in flight until it is durable"
            );
            assert!(!self.missing.contains(index), "{index} is missing or restoring, not both");
        }
    }
}
