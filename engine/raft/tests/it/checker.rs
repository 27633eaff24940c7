//! What must hold between replicas, whatever the schedule: the safety properties of the paper's figure 3, and law 13
//! seen from the disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pontoon_raft::{Raft, Restored, Role};
use pontoon_types::{Body, Entry, HardState, Index, Message, ReplicaId, Term, Write};

/// What a crash leaves of one replica. It replays writes in their order (law 14) and knows nothing else.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    /// Entries whose payload is rotten. What it was is kept here all the same, to compare with what is written again.
    pub lost: BTreeSet<Index>,
    /// Term and vote are rotten, for good.
    pub vote_lost: bool,
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
        }
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

    /// What a log shows of it that is opened.
    pub fn restored(&self) -> Restored {
        let mut entries = self.entries.clone();
        for index in &self.lost {
            entries[index.0 as usize - 1].payload = Bytes::new();
        }
        let lost = self.lost.iter().copied().collect();
        Restored { hard_state: self.hard_state, entries, lost, vote_lost: self.vote_lost }
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
}

impl Checker {
    /// What a replica says must be true of its disk at that moment.
    pub fn on_send(&mut self, message: &Message, raft: &Raft, disk: &Disk) {
        let says_term = !matches!(message.body, Body::PreVote { .. } | Body::PreVoteResponse { .. });
        if says_term {
            assert!(message.term <= disk.term(), "law 13: {message:?} shows a term that is not durable");
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
            assert_eq!(durable, raft.entries(Index(1), matched), "law 13: an acknowledged entry is durable");
            assert_eq!(durable.len() as u64, matched.0, "law 13: an acknowledged entry is durable");
            assert!(disk.lost.first().is_none_or(|lost| *lost > matched), "a lost payload is not acknowledged");
        }
    }

    /// After every step of `raft`.
    pub fn on_step(&mut self, raft: &Raft) {
        raft.check();
        if raft.role() == Role::Leader {
            self.check_leader(raft);
        }
        let known = self.committed.len().min(raft.committed().0 as usize);
        for (committed, entry) in self.committed[..known].iter().zip(raft.entries(Index(1), raft.committed())) {
            assert_eq!(&committed.entry, entry, "state machine safety: {} is committed twice", entry.id.index);
        }
        for entry in raft.entries(Index(known as u64 + 1), raft.committed()) {
            self.committed.push(Committed { entry: entry.clone(), by: raft.term() });
        }
    }

    fn check_leader(&mut self, raft: &Raft) {
        let first = *self.leaders.entry(raft.term()).or_insert(raft.me());
        assert_eq!(first, raft.me(), "election safety: term {} has one leader", raft.term());
        for committed in self.committed.iter().filter(|committed| committed.by < raft.term()) {
            let held = raft.entries(committed.entry.id.index, committed.entry.id.index).first();
            assert_eq!(held, Some(&committed.entry), "leader completeness of {} in term {}", raft.me(), raft.term());
        }
    }

    /// Log matching between two replicas: where they share a position, everything before it is equal.
    pub fn check_pair(left: &Raft, right: &Raft) {
        let both = left.last().index.min(right.last().index);
        let missing: BTreeSet<Index> = left.missing().chain(right.missing()).collect();
        let (left, right) = (left.entries(Index(1), both), right.entries(Index(1), both));
        let shared = left.iter().zip(right).rposition(|(left, right)| left.id == right.id);
        for (left, right) in left.iter().zip(right).take(shared.map_or(0, |shared| shared + 1)) {
            assert_eq!(left.id, right.id, "log matching");
            assert!(left.payload == right.payload || missing.contains(&left.id.index), "log matching of {}", left.id);
        }
    }

    pub fn committed(&self) -> usize {
        self.committed.len()
    }
}
