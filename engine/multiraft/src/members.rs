//! Who belongs to a group, and who leads it, when somebody asks for a change.
//!
//! An order goes to the core that leads the group. It is checked by the rules of `pontoon-raft`, and a new member needs a
//! node of the cluster and a [`ReplicaId`] above all that the group has ever had (law 11). It comes to life with a
//! snapshot (law 21), and until then it cannot vote; so it begins as a learner, and becomes a voter only when its leader
//! knows it to follow. Otherwise a group could wait for ever for the vote of a replica that nobody can bring to life
//! without a leader. A replica that was removed is destroyed (`snapshot/destroy`); its node can be given another one.
//!
//! The descriptor follows at apply: the members are those that the applied configuration names, and the generation grows by
//! one with each (law 23). So it is the same at the same applied index on every node, and after a restart. A client with
//! the old one is told the new one.
//!
//! What is here is what a core does with changes of replicas by name. An operator names nodes and waits for an answer:
//! `order` makes changes of that.

use pontoon_raft::membership::{Change, Configuration};
use pontoon_raft::{ChangeRefused, Event as RaftEvent, MembersChange, Raft, TransferRefused};
use pontoon_types::{Descriptor, Generation, GroupId, Member, NodeId, ReplicaId, Term, Time};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::replica::{Replica, Slot};

/// Why an order was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// This core has no replica of the group.
    #[error("this core has no replica of {0}; ask for the routes")]
    NoGroup(GroupId),
    /// The node has no replica that could lead.
    #[error("{0} has no replica of the group")]
    NoReplicaOn(NodeId),
    /// A new replica needs a new identity.
    #[error("{replica} was a member before; a new replica has to be above {highest}")]
    UsedReplica {
        /// The replica.
        replica: ReplicaId,
        /// The highest one that the group has had.
        highest: ReplicaId,
    },
    /// A voter that does not exist yet would count, and could not vote (law 21).
    #[error("{0} has no replica of the group yet, and a new one cannot vote")]
    NotLearner(NodeId),
    /// It may not exist yet.
    #[error("the replica on {0} has not been heard of as one that has caught up")]
    NotCaughtUp(NodeId),
    /// A new replica needs a node.
    #[error("{0} is no node of the cluster")]
    NoNode(NodeId),
    /// One node, two places.
    #[error("{0} is named twice")]
    NodeTwice(NodeId),
    /// The members have changed since.
    #[error("the order was given for {generation} of the members, which are at {now} by now")]
    OtherGeneration {
        /// For which it was given.
        generation: Generation,
        /// The present one.
        now: Generation,
    },
    /// The leader has changed since.
    #[error("the order was given for the leader of term {term}, and it is term {now} by now")]
    OtherTerm {
        /// For which it was given.
        term: Term,
        /// The present one.
        now: Term,
    },
    /// The change is not possible, or not now.
    #[error(transparent)]
    Change(#[from] ChangeRefused),
    /// The transfer is not possible, or not now.
    #[error(transparent)]
    Transfer(#[from] TransferRefused<NodeId>),
}

impl Core {
    pub(crate) fn change_members(
        &mut self,
        now: Time,
        group: GroupId,
        change: MembersChange,
    ) -> Result<(), OrderRefused> {
        let slot = self.slot_of(group).ok_or(OrderRefused::NoGroup(group))?;
        let raft = &self.replicas[slot].raft;
        raft.admit_change(&change)?;
        if let MembersChange::Simple(changes) | MembersChange::Joint { changes, .. } = &change {
            for change in changes {
                self.check_member(raft, change)?;
            }
        }
        self.step_replica(now, slot, RaftEvent::Change(change));
        Ok(())
    }

    /// Whether the member exists if it is to vote, and may come to life if it does not.
    pub(crate) fn check_member(&self, raft: &Raft, change: &Change) -> Result<(), OrderRefused> {
        let (Change::Voter(member) | Change::Learner(member)) = change else { return Ok(()) };
        let current = raft.configuration();
        let (replica, highest) = (member.replica, current.highest());
        let votes = matches!(change, Change::Voter(_));
        if let Some(standing) = current.standing(replica) {
            let exists = standing.votes() || raft.replicates_to(replica);
            return if exists || !votes { Ok(()) } else { Err(OrderRefused::NotCaughtUp(member.node)) };
        }
        let is_here = member.node == self.config.node;
        if !is_here && self.peer_of(member.node).is_none() {
            return Err(OrderRefused::NoNode(member.node));
        }
        if votes {
            return Err(OrderRefused::NotLearner(member.node));
        }
        if replica <= highest && !self.config.mutated(CoreMutation::ReviveDead) {
            return Err(OrderRefused::UsedReplica { replica, highest });
        }
        Ok(())
    }

    /// Tells those that an applied configuration has removed.
    pub(crate) fn tell_removed(&mut self, slot: Slot, before: &Configuration) {
        if self.replicas[slot].leads.is_none() {
            return;
        }
        for (member, _) in before.members() {
            self.tell_gone(member.node, slot, member.replica);
        }
    }

    pub(crate) fn transfer_leader(&mut self, now: Time, group: GroupId, to: NodeId) -> Result<(), OrderRefused> {
        let slot = self.slot_of(group).ok_or(OrderRefused::NoGroup(group))?;
        let replica = &self.replicas[slot];
        let successor = replica.replica_on(to).ok_or(OrderRefused::NoReplicaOn(to))?;
        admit_transfer(replica, successor, to)?;
        self.step_replica(now, slot, RaftEvent::Transfer(successor));
        Ok(())
    }
}

/// Whether the leadership may be handed over. Operators know nodes, so the refusal names those.
pub(crate) fn admit_transfer(replica: &Replica, successor: ReplicaId, on: NodeId) -> Result<(), OrderRefused> {
    let node_of = |of| replica.node_of(of).unwrap_or(on);
    Ok(replica.raft.admit_transfer(successor).map_err(|why| why.named(node_of))?)
}

/// Whether the members may change now, likewise.
pub(crate) fn may_change_members(replica: &Replica) -> Result<(), OrderRefused> {
    let Err(why) = replica.raft.may_change_members() else { return Ok(()) };
    let ChangeRefused::Transferring { to } = why else { return Err(why.into()) };
    Err(replica.node_of(to).map_or(why.into(), |to| TransferRefused::InProgress { to }.into()))
}

/// The descriptor behind an applied configuration.
pub(crate) fn apply_configuration(descriptor: &mut Descriptor, configuration: &Configuration) {
    let mut members: Vec<Member> = configuration.members().iter().map(|(member, _)| *member).collect();
    members.sort_unstable();
    descriptor.members = members.into();
    descriptor.generation = Generation(descriptor.generation.0 + 1);
}
