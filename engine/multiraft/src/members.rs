//! Who belongs to a group, and who leads it, when somebody asks for a change.
//!
//! An order goes to the core that leads the group. It is checked by the rules of `pontoon-raft`, and by what a node can do:
//! it cannot make a replica yet, since a replica comes to life with a snapshot (law 21). So members change among the
//! replicas that a group was founded with: one is demoted to a learner, promoted again, or removed. A removed replica
//! is not taken back, because a [`ReplicaId`] is never used twice (law 11); it goes on sleeping behind the leader's core.
//!
//! The descriptor follows at apply: the members are those that the applied configuration names, and the generation grows by
//! one with each (law 23). So it is the same at the same applied index on every node, and after a restart. A client with
//! the old one is told the new one.
//!
//! Left out: an answer when an order is done. It is done when the descriptor, or the leader, says so.

use pontoon_raft::membership::{Change, Configuration};
use pontoon_raft::{ChangeRefused, Event as RaftEvent, MembersChange, TransferRefused};
use pontoon_types::{Descriptor, Generation, GroupId, NodeId, ReplicaId, Time};

use crate::Core;

/// Why an order was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// This core has no replica of the group.
    #[error("this core has no replica of {0}; ask for the routes")]
    NoGroup(GroupId),
    /// The node has no replica that could lead.
    #[error("{0} has no replica of the group")]
    NoReplicaOn(NodeId),
    /// The replica would have to be made.
    #[error("{0} is no member, and no node can make a replica yet")]
    NoReplica(ReplicaId),
    /// The change is not possible, or not now.
    #[error(transparent)]
    Change(#[from] ChangeRefused),
    /// The transfer is not possible, or not now.
    #[error(transparent)]
    Transfer(#[from] TransferRefused),
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
            let is_stranger = |change: &&Change| raft.configuration().standing(change.replica()).is_none();
            if let Some(stranger) = changes.iter().find(is_stranger) {
                return Err(OrderRefused::NoReplica(stranger.replica()));
            }
        }
        self.step_replica(now, slot, RaftEvent::Change(change));
        Ok(())
    }

    pub(crate) fn transfer_leader(&mut self, now: Time, group: GroupId, to: NodeId) -> Result<(), OrderRefused> {
        let slot = self.slot_of(group).ok_or(OrderRefused::NoGroup(group))?;
        let replica = &self.replicas[slot];
        let to = replica.replica_on(to).ok_or(OrderRefused::NoReplicaOn(to))?;
        replica.raft.admit_transfer(to)?;
        self.step_replica(now, slot, RaftEvent::Transfer(to));
        Ok(())
    }
}

/// The descriptor behind an applied configuration.
pub(crate) fn apply_configuration(descriptor: &mut Descriptor, configuration: &Configuration) {
    descriptor.members = configuration.members().iter().map(|(member, _)| *member).collect();
    descriptor.members.sort_unstable();
    descriptor.generation = Generation(descriptor.generation.0 + 1);
}
