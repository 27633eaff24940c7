//! What must hold between replicas, whatever the schedule: the safety properties of the paper's figure 3, and law 13
//! seen from the disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pontoon_raft::membership::Configuration;
use pontoon_raft::{Fetch, Identities, Raft, Restored, Role, Unfetched};
use pontoon_types::{Body, Entry, EntryKind, HardState, Index, LogId, Message, Permit, ReplicaId, Term, Write};

use crate::snapshot::members_of;

/// What a crash leaves of one replica. It replays writes in their order (law 14) and knows nothing else.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    /// All entries that ever stood in the log and were not cut, also those that were given up.
    pub entries: Vec<Entry>,
    /// The log begins behind this one.
    pub compacted: LogId,
    /// Of the rotten payloads those that nobody has come upon yet.
    pub unseen: BTreeSet<Index>,
    /// Entries whose payload is rotten. What it was is kept here all the same, to compare with what is written again.
    pub lost: BTreeSet<Index>,
    /// Term and vote are rotten, for good.
    pub vote_lost: bool,
    /// What the checkpoint covers that was taken in last.
    pub store: Vec<Entry>,
    /// What term and vote were before they were written last.
    older: HardState,
}

impl Disk {
    pub fn apply(&mut self, write: Write) {
        if let Some(hard_state) = write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "the term on disk never falls");
            self.older = std::mem::replace(&mut self.hard_state, hard_state);
        }
        if let Some(from) = write.truncate_from {
            assert!(from.0 as usize <= self.entries.len(), "a truncation cuts something");
            self.entries.truncate(from.0 as usize - 1);
            self.lost.split_off(&from);
            self.unseen.split_off(&from);
        }
        for entry in write.entries {
            assert_eq!(entry.id.index.0 as usize, self.entries.len() + 1, "a write appends where the log ends");
            self.entries.push(entry);
        }
        assert!(write.restored.is_sorted_by(|one, next| one.id.index < next.id.index), "restored in rising order");
        for entry in write.restored {
            let held = self.entries.get(entry.id.index.0 as usize - 1);
            assert_eq!(held, Some(&entry), "what is restored is what was lost, byte for byte");
            self.lost.remove(&entry.id.index);
            self.unseen.remove(&entry.id.index);
        }
        if let Some(compaction) = write.compact {
            if compaction.reset {
                self.reset(compaction.to.index);
            }
            assert!(compaction.to.index > self.compacted.index || compaction.reset, "a log is given up forwards");
            self.give_up(compaction.to);
        }
    }

    /// The checkpoint takes the place of the log (law 18).
    pub fn reset(&mut self, to: Index) {
        self.entries = self.store[..to.0 as usize].to_vec();
        self.lost.clear();
        self.unseen.clear();
    }

    /// The log begins behind this entry from now on.
    pub fn give_up(&mut self, to: LogId) {
        assert_eq!(self.entries[to.index.0 as usize - 1].id, to, "what is given up is in the log");
        self.compacted = to;
        self.lost = self.lost.split_off(&to.index.next());
        self.unseen = self.unseen.split_off(&to.index.next());
    }

    /// Reads what was asked for, as a log does.
    pub fn fetch(&mut self, fetch: &Fetch) -> Result<Vec<Entry>, Unfetched> {
        let Fetch { from, through, bytes_max, .. } = *fetch;
        if from <= self.compacted.index {
            return Err(Unfetched::Compacted);
        }
        if from.0 as usize > self.entries.len() {
            return Err(Unfetched::Missing);
        }
        let through = through.min(Index(self.entries.len() as u64));
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in &self.entries[from.0 as usize - 1..through.0 as usize] {
            bytes += entry.payload.len();
            if !entries.is_empty() && (bytes > bytes_max || self.lost.contains(&entry.id.index)) {
                break;
            }
            if self.lost.contains(&entry.id.index) {
                self.unseen.remove(&entry.id.index);
                return Err(Unfetched::Rotten(entry.id.index));
            }
            entries.push(entry.clone());
        }
        assert!(!entries.is_empty(), "a fetch asks for something");
        Ok(entries)
    }

    /// The rotten payloads that somebody has come upon.
    pub fn seen(&self) -> BTreeSet<Index> {
        self.lost.difference(&self.unseen).copied().collect()
    }

    /// The payload of this entry rots.
    pub fn rot(&mut self, index: Index) {
        assert!(index > Index(0) && index.0 as usize <= self.entries.len(), "{index} is on the disk");
        self.lost.insert(index);
    }

    /// The last record of term and vote rots. The one before it is found.
    pub fn rot_vote(&mut self) {
        self.vote_lost = true;
        self.hard_state = self.older;
    }

    /// The term that a replica finds here. Where its record is lost, the entries show a term that it had reached.
    fn term(&self) -> Term {
        let of_entries = self.entries.last().filter(|_| self.vote_lost).map_or(Term(0), |entry| entry.id.term);
        self.hard_state.term.max(of_entries)
    }

    /// What a log shows of it that is opened, with the payloads of the last `window` entries.
    pub fn restored(&self, window: usize, founders: &Configuration) -> Restored {
        let mut entries = self.entries.clone();
        for index in &self.lost {
            entries[index.0 as usize - 1].payload = Bytes::new();
        }
        let compacted = self.compacted.index.0 as usize;
        let first = compacted.max(entries.len().saturating_sub(window));
        let entries = entries.split_off(first);
        let mut older = Identities::default();
        for entry in &self.entries[compacted..first] {
            if older.starts.last().is_none_or(|start| start.term < entry.id.term) {
                older.starts.push(entry.id);
            }
            older.last = entry.id.index;
        }
        let (hard_state, lost) = (self.hard_state, self.lost.iter().copied().collect());
        let of_members = |entry: &&Entry| entry.kind == EntryKind::Configuration;
        let configurations = self.entries[compacted..first].iter().filter(of_members).cloned().collect();
        let settled = if self.checkpoint().is_some() { &self.store } else { &self.entries[..compacted] };
        Restored {
            hard_state,
            compacted: self.compacted,
            older,
            configurations,
            entries,
            members: members_of(settled, founders),
            checkpoint: self.checkpoint(),
            lost,
            vote_lost: self.vote_lost,
            ..Restored::default()
        }
    }

    /// Whether something is lost that limits the replica.
    pub fn is_damaged(&self) -> bool {
        self.vote_lost || !self.lost.is_empty()
    }
}

/// One committed entry and the term in which a leader committed it.
struct Committed {
    entry: Entry,
    by: Term,
}

/// The history that the properties speak about.
#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, ReplicaId>,
    votes: BTreeMap<(Term, ReplicaId), ReplicaId>,
    committed: Vec<Committed>,
    /// Who was asked to campaign by whom.
    permits: BTreeSet<(Term, ReplicaId, ReplicaId)>,
}

impl Checker {
    /// What a replica says must be true of its disk at that moment.
    pub fn on_send(&mut self, message: &Message, log: &[Entry], disk: &Disk) {
        let says_term = !matches!(message.body, Body::PreVote { .. } | Body::PreVoteResponse { .. });
        if says_term {
            assert!(message.term <= disk.term(), "law 13: {message:?} shows a term that is not durable");
        }
        match message.body {
            Body::TimeoutNow => drop(self.permits.insert((message.term, message.from, message.to))),
            Body::Vote { permit: Some(Permit { leader, term }), .. } => {
                assert_eq!(term.next(), message.term, "law 5: a permit is for one term");
                assert!(self.permits.contains(&(term, leader, message.from)), "law 5: a permit was given");
            }
            _ => {}
        }
        let vote = match message.body {
            Body::Vote { .. } => Some(message.from),
            Body::VoteResponse { granted: true } => Some(message.to),
            _ => None,
        };
        if let Some(candidate) = vote {
            let durable = disk.hard_state;
            assert_eq!((durable.term, durable.vote), (message.term, Some(candidate)), "law 13: a vote is durable");
            let first = *self.votes.entry((message.term, message.from)).or_insert(candidate);
            assert_eq!(first, candidate, "{} votes once in term {}", message.from, message.term);
        }
        if let Body::AppendResponse { matched } = message.body {
            let durable = &disk.entries[..disk.entries.len().min(matched.0 as usize)];
            assert_eq!(durable.len() as u64, matched.0, "law 13: an acknowledged entry is durable");
            assert_eq!(durable, &log[..matched.0 as usize], "law 13: an acknowledged entry is durable");
            assert!(disk.seen().first().is_none_or(|lost| *lost > matched), "a lost payload is not acknowledged");
        }
    }

    /// After every step of `raft`, whose log is what its writes say: `log`.
    pub fn on_step(&mut self, raft: &Raft, log: &[Entry], founders: &Configuration) {
        raft.check();
        check_memory(raft, log);
        check_members(raft, log, founders);
        if raft.role() == Role::Leader {
            self.check_leader(raft, log);
        }
        let committed = raft.committed().0 as usize;
        let known = self.committed.len().min(committed);
        for (committed, entry) in self.committed[..known].iter().zip(log) {
            assert_eq!(&committed.entry, entry, "state machine safety: {} is committed twice", entry.id.index);
        }
        for entry in &log[known..committed] {
            self.committed.push(Committed { entry: entry.clone(), by: raft.term() });
        }
    }

    /// What is handed to the machine is what is committed.
    pub fn on_apply(&self, entries: &[Entry]) {
        for entry in entries {
            let committed = &self.committed[entry.id.index.0 as usize - 1].entry;
            assert_eq!(committed, entry, "state machine safety: {} is applied", entry.id.index);
        }
    }

    fn check_leader(&mut self, raft: &Raft, log: &[Entry]) {
        let first = *self.leaders.entry(raft.term()).or_insert(raft.me());
        assert_eq!(first, raft.me(), "election safety: term {} has one leader", raft.term());
        for committed in self.committed.iter().filter(|committed| committed.by < raft.term()) {
            let held = log.get(committed.entry.id.index.0 as usize - 1);
            assert_eq!(held, Some(&committed.entry), "leader completeness of {} in term {}", raft.me(), raft.term());
        }
    }

    /// Log matching between two replicas: where they share a position, everything before it is equal.
    pub fn check_pair(left: &[Entry], right: &[Entry]) {
        let shared = left.iter().zip(right).rposition(|(left, right)| left.id == right.id);
        for (left, right) in left.iter().zip(right).take(shared.map_or(0, |shared| shared + 1)) {
            assert_eq!(left, right, "log matching");
        }
    }

    pub fn committed(&self) -> usize {
        self.committed.len()
    }
}

/// What a replica knows of its log is what it has written: all identities behind what is given up, and the payloads from
/// its window on.
fn check_memory(raft: &Raft, log: &[Entry]) {
    assert_eq!(raft.last().index.0 as usize, log.len(), "the log ends where the writes end");
    let missing: BTreeSet<Index> = raft.missing().collect();
    for entry in &log[raft.compacted().index.0 as usize..] {
        assert_eq!(raft.term_at(entry.id.index), Ok(entry.id.term), "the identity of {} is known", entry.id);
    }
    let mut next = raft.first_held();
    for held in raft.entries(next, Index(u64::MAX)) {
        let written = &log[next.0 as usize - 1];
        assert_eq!(held.id, written.id, "the window is the end of the log");
        assert!(held.payload == written.payload || missing.contains(&next), "the payload of {} is in memory", held.id);
        next = next.next();
    }
    assert_eq!(next, raft.last().index.next(), "the window reaches to the end of the log");
}

/// The last configuration in the log is in force, and the founders before the first. With one that is missing, what is in
/// force depends on when it was lost.
fn check_members(raft: &Raft, log: &[Entry], founders: &Configuration) {
    let mut known = log.iter().filter(|entry| entry.kind == EntryKind::Configuration);
    if raft.missing().any(|missing| log[missing.0 as usize - 1].kind == EntryKind::Configuration) {
        return;
    }
    let last = known.next_back().map(|entry| Configuration::decode(&entry.payload).expect("a configuration"));
    let expected = last.as_ref().unwrap_or(founders);
    assert_eq!(raft.configuration(), expected, "{}: the last configuration in the log is in force", raft.me());
}
