//! Which configuration is in force, and which one would be if the end of the log were cut.
//!
//! A configuration is in force from the moment its entry is in the log, committed or not; `raft/members.rs` says why. So
//! cutting the log can bring an older one back. The history keeps what may come back: the newest configuration that
//! is known to be committed, and all behind it. A committed one is never cut, so there always is one to go back to.

use std::collections::BTreeSet;

use pontoon_types::{Index, Member, ReplicaId};

use super::Configuration;

/// The configurations of one log.
///
/// Invariants: there is at least one; indexes rise; nothing that is cut stands in front of the first one.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// The oldest first. The first one is committed, or stands before the log.
    known: Vec<(Index, Configuration)>,
    /// Where configurations stand that the disk had lost at the start. None of them is in force.
    missing: BTreeSet<Index>,
    /// Grows whenever `known` changes.
    version: u64,
}

impl History {
    /// `base` was in force at `at`, where it is committed: the beginning of the log, or a snapshot.
    pub(crate) fn new(at: Index, base: Configuration) -> History {
        History { known: vec![(at, base)], missing: BTreeSet::new(), version: 0 }
    }

    /// Another number whenever who is a member, or may be one again, has changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The configuration in force.
    pub(crate) fn current(&self) -> &Configuration {
        &self.newest().1
    }

    /// Where the configuration in force stands.
    pub(crate) fn at(&self) -> Index {
        self.newest().0
    }

    fn newest(&self) -> &(Index, Configuration) {
        self.known.last().expect("law: a history keeps a committed configuration")
    }

    /// The voters of the configuration in force and of those that may come back, some of them more than once.
    pub(crate) fn voters(&self) -> impl Iterator<Item = ReplicaId> + use<'_> {
        self.known.iter().flat_map(|(_, configuration)| configuration.voters())
    }

    /// Whether `replica` is a member now, or may be again.
    pub(crate) fn names(&self, replica: ReplicaId) -> bool {
        self.known.iter().any(|(_, configuration)| configuration.standing(replica).is_some())
    }

    /// An entry with this configuration stands at `at`. What stands at or before the first one known is settled: a
    /// snapshot covers it, and it must not come to life again.
    pub(crate) fn put(&mut self, at: Index, configuration: Configuration) {
        let place = self.known.partition_point(|(index, _)| *index < at);
        let known = self.known.get(place).is_some_and(|(index, _)| *index == at);
        if place > 0 && !known {
            self.known.insert(place, (at, configuration));
            self.version += 1;
        }
        self.missing.remove(&at);
    }

    /// A configuration stands at `at`, and nobody here knows it.
    pub(crate) fn miss(&mut self, at: Index) {
        if at > self.known[0].0 {
            self.missing.insert(at);
        }
    }

    /// Whether every configuration that stands in the log is known.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The log holds nothing behind `at` any more.
    pub(crate) fn forget_behind(&mut self, at: Index) {
        self.known.retain(|(index, _)| *index <= at);
        self.missing.split_off(&at.next());
    }

    /// The log begins behind `at` now, where `configuration` is in force and committed.
    pub(crate) fn settle(&mut self, at: Index, configuration: Configuration) {
        self.version += 1;
        self.known.retain(|(index, _)| *index > at);
        self.known.insert(0, (at, configuration));
        self.missing = self.missing.split_off(&at.next());
    }

    /// The members of the configuration in force and of those that may come back, some of them more than once.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + use<'_> {
        self.known.iter().flat_map(|(_, configuration)| configuration.members().iter().map(|(member, _)| *member))
    }

    /// The log was cut at and after `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        let kept = self.known.partition_point(|(index, _)| *index < from);
        assert!(kept > 0, "leader completeness: a committed configuration cannot be cut at {from}");
        self.version += u64::from(kept < self.known.len());
        self.known.truncate(kept);
        self.missing.split_off(&from);
    }

    /// Everything up to `index` is committed.
    pub(crate) fn commit(&mut self, index: Index) {
        let settled = self.known.partition_point(|(at, _)| *at <= index);
        self.version += u64::from(settled > 1);
        self.known.drain(..settled.saturating_sub(1));
    }

    /// Panics when an invariant of the type does not hold.
    pub(crate) fn check(&self, last: Index) {
        assert!(self.known.is_sorted_by(|one, next| one.0 < next.0), "configurations are in the order of the log");
        assert!(self.at() <= last, "the configuration in force is in the log");
    }
}
