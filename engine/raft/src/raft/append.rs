//! The follower's side of replication.
//!
//! A message is answered once, when everything written so far is durable. It never shortens the log unless one of its
//! entries contradicts an entry here: duplicates and old messages that arrive late cut nothing. What no leader of the term
//! can send has been refused before (`refuse.rs`).

use pontoon_types::{Body, Entry, Index, LogId, ReplicaId};

use super::members::put_all;
use super::{Raft, Step};
use crate::mutation::Mutation;

impl Raft {
    pub(super) fn on_append(
        &mut self,
        step: &mut Step,
        from: ReplicaId,
        current: bool,
        previous: LogId,
        entries: Vec<Entry>,
        commit: Index,
    ) {
        if !current {
            let hint = self.log.last();
            return self.promise(step, from, Body::AppendRefused { refused: previous.index, hint });
        }
        self.follow(from);
        if !self.can_take_entries(step) {
            return;
        }
        if self.config.mutated(Mutation::CommitWithoutMatch) {
            self.commit(commit.min(self.log.last().index).max(self.log.committed()));
        }
        let matches = self.log.holds(previous)
            || (self.config.mutated(Mutation::SkipPreviousCheck) && previous.index <= self.log.last().index);
        let usable = match self.config.mutated(Mutation::AcknowledgeWithoutPayloads) {
            true => previous.index,
            false => self.below_missing(previous.index),
        };
        if !matches || usable < previous.index {
            let hint = self.log.last_not_above(usable, previous.term).unwrap_or(self.log.compacted());
            return self.promise(step, from, Body::AppendRefused { refused: previous.index, hint });
        }
        let covered = Index(previous.index.0 + entries.len() as u64);
        let restores = self.merge(previous, entries);
        let commit = commit.min(covered);
        let news = commit > self.log.committed();
        if news {
            self.commit(commit);
        }
        if self.knows_its_term() {
            // A leader that was asked for one lost payload need not send again all that follows it.
            let whole = self.below_missing(self.log.committed());
            let covered = if restores { covered.max(whole) } else { covered };
            self.acknowledge(step, from, covered, news);
        } else {
            self.ask_terms(step);
        }
    }

    /// Appends what is new. Of entries that are here already only a missing payload is taken; the first one that differs
    /// cuts the log. Says whether a payload was missing.
    fn merge(&mut self, previous: LogId, mut entries: Vec<Entry>) -> bool {
        let mut restores = false;
        if previous.index < self.log.last().index {
            let known = entries.iter().take_while(|entry| self.log.holds(entry.id)).count();
            restores = self.restore(&entries[..known]);
            entries.drain(..known);
            let Some(first) = entries.first().map(|entry| entry.id.index) else {
                let behind = Index(previous.index.0 + known as u64 + 1);
                if self.config.mutated(Mutation::CutBehindKnown) && behind <= self.log.last().index {
                    self.cut(behind);
                }
                return restores;
            };
            if first <= self.log.last().index {
                self.cut(first);
            }
        }
        if !entries.is_empty() {
            self.log.append(&entries);
            put_all(&mut self.members, &entries, &[]);
            self.writes.append(entries);
        }
        restores
    }

    /// Cuts everything at and after `from`.
    fn cut(&mut self, from: Index) {
        self.log.truncate(from);
        self.writes.truncate(from);
        self.lost.truncate(from);
        if !self.config.mutated(Mutation::KeepCutConfiguration) {
            self.members.truncate(from);
        }
    }
}
