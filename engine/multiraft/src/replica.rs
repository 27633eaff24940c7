//! My copy of one group: its Raft state, its machine, and who waits for it.

use std::collections::VecDeque;

use bytes::Bytes;
use pontoon_raft::Raft;
use pontoon_types::{Descriptor, Index, LogId, NodeId, ReplicaId, Term, Time};
use pontoon_wire::client::OperationOutcome;

use crate::{ConnectionId, Kv};

/// The place of a replica in its core's list. Replicas are sorted by group, so slots are too.
pub(crate) type Slot = usize;

/// Who asked, and which of its requests it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) connection: ConnectionId,
    pub(crate) sequence: u64,
}

/// A proposed command whose client waits for the outcome.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// The entry. The outcome is known when the entry at this index is applied: it is ours if the term is equal, and
    /// was never executed if it is not.
    pub(crate) entry: LogId,
    pub(crate) asker: Asker,
    /// When the answer becomes "unknown".
    pub(crate) deadline: Time,
}

/// What a read wants.
#[derive(Debug)]
pub(crate) enum Query {
    Get { key: Bytes },
    Scan { start: Bytes, end: Option<Bytes>, limit: u32 },
}

/// A read of a client.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) asker: Asker,
    pub(crate) query: Query,
    pub(crate) deadline: Time,
}

/// My copy of one group.
///
/// Invariants: `applied` ≤ committed. `waiters` are sorted by index, and all lie above `applied`. `attached` is the
/// leader's node exactly while the replica sleeps as its follower.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) descriptor: Descriptor,
    pub(crate) me: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) machine: Kv,
    pub(crate) applied: Index,
    pub(crate) waiters: VecDeque<Waiter>,
    /// Reads confirmed up to an index that is not applied yet.
    pub(crate) unapplied_reads: Vec<(Index, Read)>,
    /// Commands of this turn, proposed together at its end.
    pub(crate) proposals: Vec<(Bytes, Asker)>,
    pub(crate) proposal_bytes: usize,
    pub(crate) attached: Option<NodeId>,
    /// The term in which this replica leads.
    pub(crate) leads: Option<Term>,
    /// About when it began to lead.
    pub(crate) leads_since: Time,
}

impl Replica {
    /// The node that leads the group, as far as this replica knows.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.raft.leader().and_then(|leader| self.descriptor.node_of(leader))
    }

    /// When this replica must be looked at without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let waiter = self.waiters.front().map(|waiter| waiter.deadline);
        let read = self.unapplied_reads.first().map(|(_, read)| read.deadline);
        [self.raft.deadline(), waiter, read].into_iter().flatten().min()
    }

    /// Takes out the waiters whose fate the entry just applied decides, with what each is to hear.
    pub(crate) fn decided(&mut self, applied: LogId) -> Vec<(Asker, Fate)> {
        let mut decided = Vec::new();
        while self.waiters.front().is_some_and(|waiter| waiter.entry.index <= applied.index) {
            let waiter = self.waiters.pop_front().expect("law: a queue with a front has one to pop");
            let fate = if waiter.entry == applied { Fate::Executed } else { Fate::NeverExecuted };
            decided.push((waiter.asker, fate));
        }
        decided
    }

    /// Adds a waiter, keeping the order by index. After lost leaderships indexes may come again, so the place is
    /// searched from the back; almost always it is the back.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        let place = self.waiters.iter().rposition(|other| other.entry.index <= waiter.entry.index);
        self.waiters.insert(place.map_or(0, |place| place + 1), waiter);
    }
}

/// What became of a proposed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is the entry that was applied.
    Executed,
    /// Another entry was committed in its place.
    NeverExecuted,
}

/// The outcomes of one applied command.
pub(crate) type Outcomes = Vec<OperationOutcome>;
