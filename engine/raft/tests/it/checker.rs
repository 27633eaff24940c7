//! What must hold between replicas, whatever the schedule: the safety properties of the paper's figure 3, and law 13
//! seen from the disk.

use std::collections::BTreeMap;

use pontoon_raft::{Raft, Role};
use pontoon_types::{Body, Entry, HardState, Index, Message, ReplicaId, Term, Write};

/// What a crash leaves of one replica. It replays writes in their order (law 14) and knows nothing else.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
}

impl Disk {
    pub fn apply(&mut self, write: Write) {
        if let Some(hard_state) = write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "the term on disk never falls");
            self.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            assert!(from.0 as usize <= self.entries.len(), "a truncation cuts something");
            self.entries.truncate(from.0 as usize - 1);
        }
        for entry in write.entries {
            assert_eq!(entry.id.index.0 as usize, self.entries.len() + 1, "a write appends where the log ends");
            self.entries.push(entry);
        }
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
            assert!(message.term <= disk.hard_state.term, "law 13: {message:?} shows a term that is not durable");
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
        let (left, right) = (left.entries(Index(1), both), right.entries(Index(1), both));
        let shared = left.iter().zip(right).rposition(|(left, right)| left.id == right.id);
        if let Some(shared) = shared {
            assert_eq!(left[..=shared], right[..=shared], "log matching");
        }
    }

    pub fn committed(&self) -> usize {
        self.committed.len()
    }
}
