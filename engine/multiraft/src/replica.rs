//! My copy of one group: its Raft state, its machine, and who waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pontoon_raft::membership::Configuration;
use pontoon_raft::{Raft, Role};
use pontoon_types::{Descriptor, Index, LogId, Member, NodeId, ReplicaId, RequestId, SnapshotMeta, Term, Time};
use pontoon_wire::client::{OperationOutcome, Refusal};

use crate::checkpoint::{Present, Staging};
use crate::lease::Leases;
use crate::order::OrderWaiter;
use crate::sessions::Sessions;
use crate::snapshot::Loading;
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
    pub(crate) id: RequestId,
    pub(crate) asker: Asker,
    /// When the answer becomes "unknown".
    pub(crate) deadline: Time,
}

/// A command that was accepted in this turn.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) command: Bytes,
    pub(crate) id: RequestId,
    pub(crate) asker: Asker,
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
    /// How old the state may be, if it need not be the newest.
    pub(crate) max_age: Option<Duration>,
}

impl Read {
    /// What the client hears when nobody can confirm an index for it.
    pub(crate) fn refusal(&self, leader: Option<NodeId>) -> Refusal {
        match self.max_age {
            Some(_) => Refusal::TooStale { leader },
            None => Refusal::NotLeader { leader },
        }
    }
}

/// A moment at which the group had committed nothing beyond an index, as a quorum confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmed {
    pub(crate) at: Time,
    pub(crate) index: Index,
}

/// The leader behind whose core a follower sleeps, and the term in which it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) node: NodeId,
    pub(crate) leader: ReplicaId,
    pub(crate) term: Term,
}

/// A commit index that has to move: something waits to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    committed: Index,
    /// When waiting longer is in vain (law 7).
    until: Time,
}

/// My copy of one group.
///
/// Invariants: `applied` ≤ committed. `waiters` are sorted by index, and all lie above `applied`; each is in `in_flight`,
/// or a later attempt of its request is. `attached` is the
/// leader exactly while the replica sleeps as its follower. `awaited` is there exactly while the replica leads and its log
/// is not committed to the end.
#[derive(Debug)]
pub(crate) struct Replica {
    /// As of `applied`: what clients are told (law 23).
    pub(crate) descriptor: Descriptor,
    /// The members as of `applied`.
    pub(crate) configuration: Configuration,
    /// All replicas of the group that may matter, and where they live: the members of the configuration in force, those of
    /// one that may come back, and whoever has spoken as a newer one than any known here.
    pub(crate) residents: Arc<[Member]>,
    /// The configurations from which `residents` were taken.
    pub(crate) residents_version: u64,
    pub(crate) me: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) machine: Kv,
    /// What the group remembers of its clients, as of `applied` (law 24).
    pub(crate) sessions: Sessions,
    pub(crate) applied: Index,
    /// Bytes of entries applied since the last checkpoint began.
    pub(crate) log_bytes: usize,
    /// The present checkpoint, if there is one.
    pub(crate) present: Option<Box<Present>>,
    /// The one that is being written.
    pub(crate) staging: Option<Box<Staging>>,
    /// The state is being read back from the present checkpoint; `machine` is none meanwhile.
    pub(crate) loading: Option<Box<Loading>>,
    pub(crate) waiters: VecDeque<Waiter>,
    /// The entry of each request for which somebody waits, and until when.
    pub(crate) in_flight: BTreeMap<RequestId, (LogId, Time)>,
    /// Reads confirmed up to an index that is not applied yet.
    pub(crate) unapplied_reads: Vec<(Index, Read)>,
    /// The last moment of which a quorum has told how much was committed.
    pub(crate) confirmed: Option<Confirmed>,
    /// Commands of this turn, proposed together at its end.
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) proposal_bytes: usize,
    /// Orders of operators that are not answered, in the order of their deadlines.
    pub(crate) orders: Vec<OrderWaiter>,
    pub(crate) attached: Option<Attachment>,
    pub(crate) awaited: Option<Awaited>,
    /// The term in which this replica leads.
    pub(crate) leads: Option<Term>,
    /// Which leadership of its core that is.
    pub(crate) leadership: u64,
    /// About when it began to lead.
    pub(crate) leads_since: Time,
}

/// The most that an idle group may take of its core's list of replicas. With what lies beside it and the allocator's
/// waste, 100,000 of them stay within 2 KiB each (bench/RESULTS.md). What only a busy group has belongs behind a pointer.
const REPLICA_BYTES_MAX: usize = 1_088;

const _: () = assert!(size_of::<Replica>() <= REPLICA_BYTES_MAX);

impl Replica {
    /// The node where this replica of the group lives.
    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.residents.iter().find(|member| member.replica == replica).map(|member| member.node)
    }

    /// The replica of the group that lives on this node.
    pub(crate) fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.residents.iter().find(|member| member.node == node).map(|member| member.replica)
    }

    /// The node that leads the group, as far as this replica knows.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.raft.leader().and_then(|leader| self.node_of(leader))
    }

    /// Whether the machine holds what `applied` says.
    pub(crate) fn holds_state(&self) -> bool {
        self.loading.is_none() && (self.raft.needs_snapshot_at().is_none() || self.is_parked())
    }

    /// Whether it does, and can read the next entry as far as is known.
    pub(crate) fn is_ready(&self) -> bool {
        self.loading.is_none() && self.raft.needs_snapshot_at().is_none()
    }

    /// Whether the machine stands before an entry that it cannot read.
    pub(crate) fn is_parked(&self) -> bool {
        self.raft.needs_snapshot_at().is_some_and(|least| least > self.applied)
    }

    /// What a checkpoint of the machine as it is now is of.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        let term = self.raft.term_at(self.applied).expect("law: what is applied is in the log or just given up");
        SnapshotMeta {
            group: self.descriptor.group,
            replica: self.me,
            last: LogId::new(self.applied, term),
            configuration: self.configuration.encode(),
            descriptor: self.descriptor.clone(),
        }
    }

    /// Takes over who may matter from the configurations. Whoever has spoken as a newer replica stays.
    pub(crate) fn renew_residents(&mut self) {
        self.residents_version = self.raft.residents_version();
        let current = self.raft.configuration();
        let highest = current.highest();
        let mut residents: Vec<Member> = current.members().iter().map(|(member, _)| *member).collect();
        let others = self.raft.residents();
        // A leader that was removed leads on until it has handed over.
        let leader = self.raft.leader();
        let stays = |member: &Member| member.replica > highest || leader == Some(member.replica);
        let newer = self.residents.iter().copied().filter(stays);
        for member in others.chain(newer).collect::<Vec<_>>() {
            if !residents.iter().any(|known| known.replica == member.replica) {
                residents.push(member);
            }
        }
        // Nearly always they are the voters.
        let voters = &self.descriptor.members;
        self.residents = if **voters == *residents { voters.clone() } else { residents.into() };
    }

    /// When this replica must be looked at without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let waiter = self.waiters.front().map(|waiter| waiter.deadline);
        let read = self.unapplied_reads.first().map(|(_, read)| read.deadline);
        let awaited = self.awaited.map(|awaited| awaited.until);
        let order = self.orders.first().map(|order| order.deadline);
        [self.raft.deadline(), waiter, read, awaited, order].into_iter().flatten().min()
    }

    /// Takes note of a confirmed moment.
    pub(crate) fn confirm(&mut self, confirmed: Confirmed) {
        if self.confirmed.is_none_or(|known| known.at < confirmed.at) {
            self.confirmed = Some(confirmed);
        }
    }

    /// Whether the machine's state was the newest at some moment within `max_age` before `now`, by a clock that has not jumped
    /// since.
    pub(crate) fn is_fresh(&self, now: Time, max_age: Duration, leases: &Leases) -> bool {
        let young = |known: Confirmed| now.since(known.at) <= max_age && leases.counts_since(known.at);
        self.holds_state() && self.confirmed.is_some_and(|known| self.applied >= known.index && young(known))
    }

    /// Whether the members of which `holds` holds can decide for the group: a quorum of both halves while it is joint.
    pub(crate) fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        let configuration = self.raft.configuration();
        configuration.is_quorum(|replica| configuration.node_of(replica).is_some_and(&holds))
    }

    /// Whether the replica sleeps behind that node's core as the leader of that term.
    pub(crate) fn sleeps_behind(&self, node: NodeId, term: Term) -> bool {
        self.attached.is_some_and(|attached| attached.node == node && attached.term == term)
    }

    /// Notes since when the commit index has not moved although something waits.
    pub(crate) fn await_commit(&mut self, now: Time, patience: Duration) {
        let committed = self.raft.committed();
        if self.raft.role() != Role::Leader || committed == self.raft.last().index {
            self.awaited = None;
        } else if self.awaited.is_none_or(|awaited| awaited.committed != committed) {
            self.awaited = Some(Awaited { committed, until: now + patience });
        }
    }

    /// Whether the commit index has not moved for too long.
    pub(crate) fn is_stuck(&self, now: Time) -> bool {
        self.awaited.is_some_and(|awaited| awaited.until <= now)
    }

    /// Takes out the waiters whose fate the entry just applied decides, with what each is to hear.
    pub(crate) fn decided(&mut self, applied: LogId) -> Vec<(Asker, Fate)> {
        let mut decided = Vec::new();
        while self.waiters.front().is_some_and(|waiter| waiter.entry.index <= applied.index) {
            let waiter = self.waiters.pop_front().expect("law: a queue with a front has one to pop");
            self.in_flight.remove(&waiter.id);
            let fate = if waiter.entry == applied { Fate::Executed } else { Fate::NeverExecuted };
            decided.push((waiter.asker, fate));
        }
        decided
    }

    /// Adds a waiter, keeping the order by index. After lost leaderships indexes may come again, so the place is
    /// searched from the back; almost always it is the back.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        self.in_flight.insert(waiter.id, (waiter.entry, waiter.deadline));
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
