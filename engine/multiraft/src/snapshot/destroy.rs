//! The end of a replica that was removed.
//!
//! A replica that has applied its own removal is destroyed, and so is one that is told by a peer which has: a committed
//! configuration of the group does not name it any more, and never will again (law 11). A leader that was removed goes on
//! until it has handed over. Whoever hears from a replica that was removed tells it, so one that slept through its removal
//! finds out when it next speaks.
//!
//! The log keeps the highest dead replica as a tombstone; a snapshot for one at or below it is not taken. The checkpoint goes
//! when that is durable.

use pontoon_raft::{Event as RaftEvent, Role};
use pontoon_types::{GroupId, LogId, NodeId, ReplicaId, Time};
use pontoon_wire::client::Refusal;
use pontoon_wire::peer::{SnapshotBody, SnapshotMessage};

use crate::Core;
use crate::replica::{Proposal, Replica, Slot};

impl Core {
    /// Tells a replica on `node` that it was removed, if a committed configuration says so.
    pub(crate) fn tell_gone(&mut self, node: NodeId, slot: Slot, removed: ReplicaId) {
        let Replica { descriptor, configuration, me, .. } = &self.replicas[slot];
        if configuration.has_removed(removed) && removed != *me {
            let (group, from) = (descriptor.group, *me);
            self.post_snapshot(node, SnapshotMessage { group, from, to: removed, body: SnapshotBody::Gone });
        }
    }

    /// A peer knows that this replica was removed.
    pub(super) fn hear_gone(&mut self, group: GroupId, to: ReplicaId) {
        if self.snapshots.incoming.get(&group).is_some_and(|incoming| incoming.present.meta.replica == to) {
            self.give_up_snapshot(group);
        }
        if self.slot_of(group).is_some_and(|slot| self.replicas[slot].me == to) {
            self.snapshots.doomed.push((group, to));
        }
    }

    /// A replica that has waited for a leader in vain, and is no voter, asks for no votes: without this nobody would hear
    /// from it, and so it would not hear that it was removed. Saying that it wants no snapshot changes nothing elsewhere.
    pub(crate) fn ask_whether_gone(&mut self, slot: Slot) {
        let Replica { descriptor, configuration, me, raft, residents, .. } = &self.replicas[slot];
        if raft.role() != Role::Follower || configuration.is_voter(*me) {
            return;
        }
        let (group, from) = (descriptor.group, *me);
        for member in residents.clone().iter() {
            let body = SnapshotBody::Unwanted { last: LogId::default() };
            self.post_snapshot(member.node, SnapshotMessage { group, from, to: member.replica, body });
        }
    }

    /// The replica has applied its own removal, and does not lead any more.
    pub(crate) fn review_removal(&mut self, slot: Slot) {
        let replica = &self.replicas[slot];
        if replica.configuration.has_removed(replica.me) && replica.raft.role() != Role::Leader {
            self.snapshots.doomed.push((replica.descriptor.group, replica.me));
        }
    }

    /// Destroys what ends with this turn. What was found to be removed in it ends with the next one, so that whoever looks at
    /// the replicas after a turn sees what they did last.
    pub(crate) fn destroy_doomed(&mut self, now: Time) {
        let next = std::mem::take(&mut self.snapshots.doomed);
        for (group, me) in std::mem::replace(&mut self.snapshots.ending, next) {
            if let Some(slot) = self.slot_of(group).filter(|slot| self.replicas[*slot].me == me) {
                self.destroy(now, slot);
            }
        }
    }

    fn destroy(&mut self, now: Time, slot: Slot) {
        let (group, me) = (self.replicas[slot].descriptor.group, self.replicas[slot].me);
        // Out of the leadership and the sleep, so that nothing counts on it any more.
        self.step_replica(now, slot, RaftEvent::Lapsed);
        self.step_replica(now, slot, RaftEvent::Destroy { highest: me });
        self.removals.push((group, me));
        self.fetches.retain(|(of, _)| *of != group);
        let tombstone = self.tombstones.entry(group).or_insert(me);
        *tombstone = me.max(*tombstone);
        self.give_up_snapshot(group);
        self.give_up_checkpoint(slot);
        self.checkpoints.forget(group);
        self.stop_sending_all(group);
        self.detach(slot);
        let leader = self.replicas[slot].leader_node().filter(|leader| *leader != self.config.node);
        self.drop_reads(slot, leader);
        let replica = &mut self.replicas[slot];
        let proposals = std::mem::take(&mut replica.proposals);
        let waiters = std::mem::take(&mut replica.waiters);
        let unapplied = std::mem::take(&mut replica.unapplied_reads);
        let orders = std::mem::take(&mut replica.orders);
        for Proposal { asker, .. } in proposals {
            self.answer(asker, Err(Refusal::NotLeader { leader }));
        }
        for waiter in waiters {
            self.answer(waiter.asker, Err(Refusal::Unknown));
        }
        for order in orders {
            self.answer(order.asker, Err(Refusal::Unknown));
        }
        for (_, read) in unapplied {
            self.answer(read.asker, Err(read.refusal(leader)));
        }
        self.forget_slot(slot);
        let raft = &self.replicas[slot].raft;
        self.memory.changed(raft.window_bytes(), 0);
        self.log_space.uncommitted_changed(raft.uncommitted_bytes(), 0);
        self.replicas.remove(slot);
    }

    /// Takes the slot out of everything that names it.
    fn forget_slot(&mut self, slot: Slot) {
        self.timers.disarm(slot);
        self.liveness.forget(slot);
        self.proposing.retain(|other| *other != slot);
        self.apply_backlog.retain(|other| *other != slot);
        self.unreachable.retain(|(other, _)| *other != slot);
        self.forget_writes(slot);
        for peer in &mut self.peers {
            peer.behind.remove(&slot);
            peer.given.forget(slot);
        }
    }
}
