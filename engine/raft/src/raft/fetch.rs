//! Entries that have left memory: which may leave, and how they are read back.
//!
//! Only the newest entries are held with their payloads. An entry may leave once nobody needs it there: it is durable,
//! committed, and applied as far as the caller has said ([`Event::Applied`](crate::Event::Applied)). Three rules follow:
//!
//! - What is not durable can be read nowhere else.
//! - What is not committed may be cut. A fetch would then read what is about to be replaced.
//! - What was applied at once, as in a group without faults, is never fetched for the machine.
//!
//! After a start the window may be shorter than that: what the log brought along by its identity alone is durable, and
//! the payloads are fetched.
//!
//! # A fetch
//!
//! There are two kinds of readers: the machine, for committed entries, and a leader's peers that are behind the window.
//! Each has one fetch under way at most ([`Effect::Fetch`]), of bounded bytes, for entries that stand before the window.
//! The shell answers under the fetch's number ([`Event::Fetched`](crate::Event::Fetched)); it reads from the log when
//! it can, and a newer fetch of the same reader takes the place of an older one.
//!
//! A fetch is forgotten when its reader has moved: the leader resigns, the peer is probed anew, the log is compacted. Its
//! answer then has a number that nobody waits for, and is dropped whatever it holds. An answer that is waited for holds
//! what this log says stands there: a leader never cuts its log, and nobody cuts what is committed. One that does not is a
//! broken law.
//!
//! A payload that turns out to be rotten is one that the disk has lost (`raft/restore.rs`).

use pontoon_types::limits::FETCH_ENTRIES_MAX;
use pontoon_types::{Entry, FetchNumber, Index, ReplicaId};

use super::{Raft, State, Step};
use crate::effect::{Fetch, Reader};
use crate::event::Unfetched;
use crate::log::fit;
use crate::mutation::Mutation;
use crate::progress::Mode;
use crate::{Config, Effect};

/// What the machine has of the log.
///
/// Invariants: compacted ≤ applied ≤ handed ≤ committed. While a fetch is under way, `handed` is `applied`.
#[derive(Debug)]
pub(super) struct Machine {
    /// The caller has said so.
    pub(super) applied: Index,
    /// What was fetched has been handed to the caller up to here.
    pub(super) handed: Index,
    pub(super) fetch: Option<FetchNumber>,
}

/// The numbers of all fetches of a replica.
#[derive(Debug, Default)]
pub(super) struct FetchNumbers(FetchNumber);

impl FetchNumbers {
    /// Those of a replica that comes to life where another one of its group may just have died: an answer to that one
    /// must not pass for one to this.
    pub(super) fn of_new(me: ReplicaId) -> FetchNumbers {
        FetchNumbers(FetchNumber(me.0 << 32))
    }

    fn draw(&mut self) -> FetchNumber {
        self.0 = FetchNumber(self.0.0 + 1);
        self.0
    }
}

impl Raft {
    pub(super) fn on_applied(&mut self, applied: Index) {
        let (before, committed) = (self.machine.applied, self.log.committed());
        assert!(before <= applied && applied <= committed, "applied goes from {before} to {applied} of {committed}");
        self.machine.applied = applied;
        self.machine.handed = self.machine.handed.max(applied);
        // A fetch for what the machine has already is not waited for any more.
        self.machine.fetch = self.machine.fetch.filter(|_| before == applied);
    }

    /// Asks for the next committed entries that the machine cannot find in memory.
    pub(super) fn fetch_for_machine(&mut self, step: &mut Step) {
        if self.needs_snapshot_at.is_some() {
            return;
        }
        let from = self.machine.applied.next();
        let last = self.log.committed().min(self.log.first_held().previous());
        if from > last || self.machine.fetch.is_some() || self.machine.handed >= from {
            return;
        }
        // What the disk has lost is not read from it, nor before it is there again.
        let last = last.min(self.durable());
        if from <= last {
            let number = self.numbers.draw();
            self.machine.fetch = Some(number);
            step.effects.push(fetch(&self.config, Reader::Machine, number, from, last));
        }
    }

    /// Asks for the entries that the peer at `position` needs next, which stand before the window.
    pub(super) fn fetch_for_peer(&mut self, step: &mut Step, position: usize) {
        // What is on its way to the disk for the second time is asked for when it is there.
        let last = self.log.first_held().previous().min(self.durable());
        let State::Leader(leadership) = &mut self.state else { return };
        let peer = &mut leadership.peers[position];
        if peer.fetch.is_none() && peer.next <= last {
            let number = self.numbers.draw();
            peer.fetch = Some(number);
            step.effects.push(fetch(&self.config, Reader::Peer(peer.id), number, peer.next, last));
        }
    }

    pub(super) fn on_fetched(&mut self, step: &mut Step, number: FetchNumber, result: Result<Vec<Entry>, Unfetched>) {
        if self.machine.fetch == Some(number) {
            self.machine.fetch = None;
            self.fetched_for_machine(step, result);
        } else if let Some(position) = self.reader_of(number) {
            self.fetched_for_peer(step, position, result);
        }
    }

    /// The peer that waits for this fetch.
    fn reader_of(&self, number: FetchNumber) -> Option<usize> {
        let State::Leader(leadership) = &self.state else { return None };
        let any = self.config.mutated(Mutation::TakeStaleFetch);
        leadership.peers.iter().position(|peer| peer.fetch == Some(number) || any && peer.mode == Mode::Replicate)
    }

    fn fetched_for_machine(&mut self, step: &mut Step, result: Result<Vec<Entry>, Unfetched>) {
        match result {
            Ok(entries) => {
                self.check_fetched(self.machine.applied.next(), &entries);
                self.machine.handed = entries.last().map_or(self.machine.applied, |entry| entry.id.index);
                step.effects.push(Effect::Apply(entries));
            }
            Err(Unfetched::Rotten(index)) => self.on_lost(step, vec![index]),
            Err(Unfetched::Compacted) => panic!("law 19: what is not applied was given up"),
            Err(Unfetched::Missing) => panic!("law 13: what was durable is not there"),
        }
    }

    fn fetched_for_peer(&mut self, step: &mut Step, position: usize, result: Result<Vec<Entry>, Unfetched>) {
        let State::Leader(leadership) = &mut self.state else { return };
        let peer = &mut leadership.peers[position];
        peer.fetch = None;
        let next = peer.next;
        match result {
            Ok(entries) => {
                if !self.config.mutated(Mutation::TakeStaleFetch) {
                    self.check_fetched(next, &entries);
                }
                self.send_fetched(step, position, entries);
                self.replicate(step, position);
            }
            Err(Unfetched::Rotten(index)) => self.on_lost(step, vec![index]),
            // Only what this replica has given up itself is gone, and then the peer was probed anew.
            Err(Unfetched::Compacted) => self.retry(step, position),
            Err(Unfetched::Missing) => panic!("law 13: what was durable is not there"),
        }
    }

    /// What comes back under a number that is waited for is what the log says stands there.
    fn check_fetched(&self, from: Index, entries: &[Entry]) {
        assert!(entries.first().is_some_and(|entry| entry.id.index == from), "a fetch brings what it was asked for");
        for (entry, index) in entries.iter().zip(from.0..) {
            let id = self.log.id_at(Index(index));
            assert!(entry.id == id, "log matching: {} was fetched in the place of {id}", entry.id);
        }
        let last = Index(from.0 + entries.len() as u64 - 1);
        assert!(last < self.log.first_held(), "entries in memory are not fetched, and {last} is");
    }

    /// Lets go of what nobody needs in memory, as far as the window is too large.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        if self.log.window_bytes() <= bytes_max {
            return;
        }
        let through = match self.config.mutated(Mutation::EvictUnapplied) {
            true => self.log.last().index,
            false => self.machine.applied.min(self.durable()),
        };
        self.log.evict(bytes_max, through);
    }

    /// Panics when the window or a fetch breaks a law. Nothing here walks the log.
    pub(super) fn check_window(&self) {
        self.log.check();
        let Machine { applied, handed, fetch } = self.machine;
        let (compacted, first_held) = (self.log.compacted().index, self.log.first_held());
        assert!(compacted <= applied && applied <= handed, "compacted ≤ applied ≤ handed out");
        assert!(handed <= self.log.committed(), "applied ≤ committed");
        assert!(fetch.is_none() || handed == applied, "the machine is given one piece at a time");
        assert!(fetch.is_none() || applied.next() < first_held, "what the machine finds in memory is not fetched");
        let State::Leader(leadership) = &self.state else { return };
        for peer in &leadership.peers {
            assert!(compacted < peer.next, "the entry before the next one to send to {} is known", peer.id);
            let is_readable = peer.next < first_held && peer.next <= self.durable();
            let sends = peer.mode == Mode::Replicate && !peer.unreachable;
            let waits = sends && is_readable && !peer.is_full(&self.config);
            assert!(!waits || peer.fetch.is_some(), "what {} needs and memory has not is fetched", peer.id);
            if let Some(number) = peer.fetch {
                assert!(number <= self.numbers.0, "a fetch has a number that was drawn");
                assert!(peer.mode == Mode::Replicate, "a fetch is for a peer that is replicated to");
                assert!(peer.next < first_held, "what {} needs is fetched only if memory has it not", peer.id);
            }
        }
    }
}

fn fetch(config: &Config, reader: Reader, number: FetchNumber, from: Index, last: Index) -> Effect {
    let through = last.min(Index(from.0 + FETCH_ENTRIES_MAX as u64 - 1));
    Effect::Fetch(Fetch { reader, number, from, through, bytes_max: config.fetch_bytes_max })
}

/// Takes the next piece off the front of `entries` that one Append may carry.
pub(super) fn take_piece(config: &Config, entries: &mut Vec<Entry>) -> Vec<Entry> {
    let count = fit(entries.iter(), config.append_entries_max, config.append_bytes_max, 1);
    let rest = entries.split_off(count);
    std::mem::replace(entries, rest)
}
