//! What a checker or a status table sees of a group.

use pontoon_raft::Role;
use pontoon_raft::membership::{Configuration, Standing};
use pontoon_types::{Descriptor, Entry, GroupId, Index, LogId, NodeId, ReplicaId, Term, Time};
use pontoon_wire::client::{Condition, CoreStatus, GroupRole, GroupStatus};

use crate::replica::Replica;
use crate::sessions::Sessions;
use crate::{Core, Kv};

/// Equal for equal states: the machine and the sessions.
pub fn state_digest(machine: &Kv, sessions: &Sessions) -> u64 {
    machine.digest() ^ sessions.digest().rotate_left(1)
}

/// One replica, seen from outside. Reading it costs nothing but [`GroupView::digest`], which walks the state.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'a> {
    replica: &'a Replica,
}

impl GroupView<'_> {
    /// Asserts the invariants of the replica, naming the law that is broken. For tests and the simulator.
    pub fn check(&self) {
        let replica = self.replica;
        replica.raft.check();
        assert!(replica.applied <= replica.raft.committed(), "law: applied is at or below committed");
        assert!(replica.applied == replica.raft.applied(), "law: a group knows what its machine has applied");
        assert!(
            replica.waiters.iter().is_sorted_by_key(|waiter| waiter.entry.index),
            "law: waiters are sorted by index"
        );
        replica.sessions.check();
        let asleep = replica.raft.role() == Role::Follower && replica.raft.deadline().is_none();
        assert_eq!(replica.attached.is_some(), asleep, "law: a follower sleeps exactly while it is attached");
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.replica.descriptor.group
    }

    /// The replica's identity.
    pub fn replica(&self) -> ReplicaId {
        self.replica.me
    }

    /// Its range and members as of the applied index.
    pub fn descriptor(&self) -> &Descriptor {
        &self.replica.descriptor
    }

    /// The configuration in force, which may not be committed yet.
    pub fn configuration(&self) -> &Configuration {
        self.replica.raft.configuration()
    }

    /// Follower, candidate or leader.
    pub fn role(&self) -> Role {
        self.replica.raft.role()
    }

    /// The term it is in.
    pub fn term(&self) -> Term {
        self.replica.raft.term()
    }

    /// Whom it voted for in that term.
    pub fn vote(&self) -> Option<ReplicaId> {
        self.replica.raft.vote()
    }

    /// The node it takes for the leader.
    pub fn leader(&self) -> Option<NodeId> {
        self.replica.leader_node()
    }

    /// The end of its log.
    pub fn last(&self) -> LogId {
        self.replica.raft.last()
    }

    /// How far its log is durable.
    pub fn durable(&self) -> Index {
        self.replica.raft.durable()
    }

    /// How far it knows the group to have committed.
    pub fn committed(&self) -> Index {
        self.replica.raft.committed()
    }

    /// How far its machine has applied.
    pub fn applied(&self) -> Index {
        self.replica.applied
    }

    /// The entries whose payload the disk has lost and no leader has sent again yet, in rising order.
    pub fn missing(&self) -> impl Iterator<Item = Index> + use<'_> {
        self.replica.raft.missing()
    }

    /// Whether the disk has lost the replica's term and vote.
    pub fn is_vote_lost(&self) -> bool {
        self.replica.raft.is_vote_lost()
    }

    /// The first entry that is in memory.
    pub fn first_held(&self) -> Index {
        self.replica.raft.first_held()
    }

    /// The memory that its entries take, bytes.
    pub fn window_bytes(&self) -> usize {
        self.replica.raft.window_bytes()
    }

    /// The entries `from..=through`, as far as they exist; none if `from` is not in memory.
    pub fn entries(&self, from: Index, through: Index) -> impl Iterator<Item = &Entry> {
        self.replica.raft.entries(from, through)
    }

    /// What its log has given up.
    pub fn compacted(&self) -> LogId {
        self.replica.raft.compacted()
    }

    /// The last entry of its present checkpoint.
    pub fn checkpoint(&self) -> Option<LogId> {
        self.replica.present.as_ref().map(|present| present.meta.last)
    }

    /// Whether its machine holds what is applied: not while a state is read back from the store, or is lost.
    pub fn holds_state(&self) -> bool {
        self.replica.holds_state()
    }

    /// Whether it does, and goes on from there: not while it stands before an entry that it cannot read.
    pub fn is_ready(&self) -> bool {
        self.replica.is_ready()
    }

    /// What keeps the machine from applying what is committed, if anything does.
    pub fn condition(&self) -> Condition {
        if self.replica.is_parked() {
            Condition::Unreadable
        } else if self.replica.raft.needs_snapshot_at().is_some() {
            Condition::StateLost
        } else if self.replica.loading.is_some() {
            Condition::Loading
        } else if self.missing().next().is_some_and(|missing| missing > self.applied() && missing <= self.committed()) {
            Condition::PayloadLost
        } else {
            Condition::Well
        }
    }

    /// Equal for equal states: the machine and the sessions.
    pub fn digest(&self) -> u64 {
        state_digest(&self.replica.machine, &self.replica.sessions)
    }

    /// What the group remembers of its clients.
    pub fn sessions(&self) -> &Sessions {
        &self.replica.sessions
    }

    /// How many keys the machine holds.
    pub fn keys(&self) -> usize {
        self.replica.machine.len()
    }

    /// Whether the group sleeps: no timer, nothing to send.
    pub fn is_quiescent(&self) -> bool {
        self.replica.deadline().is_none()
    }

    fn status(&self) -> GroupStatus {
        let is_learner = self.configuration().standing(self.replica()) == Some(Standing::Learner);
        let role = match self.role() {
            Role::Follower if is_learner => GroupRole::Learner,
            Role::Follower => GroupRole::Follower,
            Role::PreCandidate => GroupRole::PreCandidate,
            Role::Candidate => GroupRole::Candidate,
            Role::Leader => GroupRole::Leader,
        };
        GroupStatus {
            group: self.group(),
            role,
            term: self.term(),
            leader: self.leader(),
            last: self.last(),
            durable: self.durable(),
            committed: self.committed(),
            applied: self.applied(),
            checkpoint: self.checkpoint().unwrap_or_default(),
            log_bytes: self.replica.log_bytes as u64,
            condition: self.condition(),
            priority: self.replica.raft.priority().0,
        }
    }
}

impl Core {
    /// All groups of this core, in their order.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.replicas.iter().map(|replica| GroupView { replica })
    }

    /// One group of this core.
    pub fn group(&self, group: GroupId) -> Option<GroupView<'_>> {
        self.slot_of(group).map(|slot| GroupView { replica: &self.replicas[slot] })
    }

    /// The groups that may look different than when this was asked last, in their order. For a checker, and only with
    /// [`crate::CoreConfig::watched`]; else there are none.
    pub fn take_touched(&mut self) -> Vec<GroupId> {
        self.replicas.take_touched()
    }

    /// Whether the replica of `group` here would serve reads without asking anybody at `now`.
    pub fn holds_lease(&self, now: Time, group: GroupId) -> bool {
        self.slot_of(group).is_some_and(|slot| self.has_lease(now, slot))
    }

    pub(crate) fn status(&self) -> CoreStatus {
        CoreStatus {
            node: self.config.node,
            core: self.config.core,
            incarnation: self.config.incarnation,
            standing: self.standing(),
            counters: self.counters(),
            groups: self.groups().map(|group| group.status()).collect(),
        }
    }
}
