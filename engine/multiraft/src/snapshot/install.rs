//! A snapshot that is durable becomes the state of its replica (law 18), or brings a replica to life (law 21).
//!
//! By now the store has made it the checkpoint, in one step. What follows can be done again from there after a crash: the log
//! is reset, the leader hears of it when that is durable, and meanwhile the state is read back from the store, chunk by
//! chunk. The old state goes first, so there are never two. Until the new one is whole the replica follows and acknowledges,
//! and neither applies nor serves.

use bytes::Bytes;
use pontoon_raft::membership::Configuration;
use pontoon_raft::{Event as RaftEvent, Raft, Restored};
use pontoon_types::limits::STAGED_CHUNKS_MAX;
use pontoon_types::{
    ChunkNumber, Creation, Descriptor, Entry, GroupId, HardState, Index, NodeId, ReadFailure, ReadNumber, ReplicaId,
    StoreOrder, Time,
};
use pontoon_wire::client::Refusal;
use pontoon_wire::peer::{SnapshotBody, SnapshotMessage};

use crate::checkpoint::{CheckpointBuilder, Present};
use crate::core::{raft_seed, replica_of};
use crate::mutation::CoreMutation;
use crate::replica::Slot;
use crate::sessions::Sessions;
use crate::{Core, Kv};

/// A state that is being read back from the store.
#[derive(Debug)]
pub(crate) struct Loading {
    read: ReadNumber,
    next: ChunkNumber,
    taken: ChunkNumber,
    builder: CheckpointBuilder,
    /// Entries that were fetched for the machine meanwhile.
    pub(crate) fetched: Vec<Entry>,
}

impl Core {
    /// Whether this replica may come to life here: it is above all that died, and no other replica has its keys.
    pub(super) fn may_create(&self, replica: ReplicaId, descriptor: &Descriptor) -> bool {
        let tombstone = self.tombstones.get(&descriptor.group);
        let is_dead = tombstone.is_some_and(|dead| replica <= *dead);
        let overlaps = self.replicas.iter().any(|other| overlap(&other.descriptor, descriptor));
        (!is_dead || self.config.mutated(CoreMutation::ReviveDead)) && !overlaps
    }

    /// The store holds a snapshot as the checkpoint of its replica.
    pub(super) fn installed(&mut self, now: Time, present: Present) {
        let meta = &present.meta;
        let Ok(configuration) = Configuration::decode(&meta.configuration) else { return };
        let (group, last) = (meta.group, meta.last);
        let slot = match self.slot_of(group) {
            Some(slot) if self.replicas[slot].me != meta.replica => return,
            Some(slot) if !self.replicas[slot].raft.wants_snapshot(last) => {
                // By now the replica has all of it. Then it is a checkpoint like any other.
                let is_newer = self.replicas[slot].present.as_ref().is_none_or(|known| known.meta.last < last);
                if is_newer && self.replicas[slot].applied >= last.index {
                    self.replicas[slot].present = Some(Box::new(present));
                    self.compact_to_present(now, slot);
                }
                return self.step_replica(now, slot, RaftEvent::Known(last));
            }
            Some(slot) => slot,
            None if !self.may_create(meta.replica, &meta.descriptor) => {
                return self.store.orders.push(StoreOrder::Remove { group, replica: meta.replica });
            }
            None => return self.create_replica(now, present, configuration),
        };
        self.refuse_covered(slot, last.index);
        if self.replicas[slot].is_parked() {
            self.cured(now, group);
        }
        let replica = &mut self.replicas[slot];
        replica.descriptor = meta.descriptor.clone();
        replica.configuration = configuration.clone();
        replica.machine = Kv::default();
        replica.sessions = Sessions::new(self.config.sessions);
        replica.applied = last.index;
        replica.log_bytes = 0;
        replica.present = Some(Box::new(present));
        self.routing.accept(self.replicas[slot].descriptor.clone());
        self.load(slot);
        self.step_replica(now, slot, RaftEvent::Install { last, configuration });
    }

    /// What became of commands that the snapshot covers is not known.
    fn refuse_covered(&mut self, slot: Slot, through: Index) {
        while self.replicas[slot].waiters.front().is_some_and(|waiter| waiter.entry.index <= through) {
            if let Some(waiter) = self.replicas[slot].waiters.pop_front() {
                self.replicas[slot].in_flight.remove(&waiter.id);
                self.answer(waiter.asker, Err(Refusal::Unknown));
            }
        }
    }

    /// A replica comes to life.
    fn create_replica(&mut self, now: Time, present: Present, configuration: Configuration) {
        let meta = &present.meta;
        let descriptor = (self.config.encode_descriptor)(&meta.descriptor);
        let restored = Restored {
            hard_state: HardState { term: meta.last.term, vote: None },
            members: configuration.clone(),
            checkpoint: Some(meta.last),
            creation: Some(Creation { replica: meta.replica, descriptor }),
            ..Restored::default()
        };
        let (me, group) = (meta.replica, meta.group);
        let seed = raft_seed(&self.config, group) ^ me.0;
        let raft = Raft::new(self.config.raft.clone(), me, restored, seed, now);
        let replica = replica_of(meta.descriptor.clone(), configuration, raft, self.config.sessions, now);
        let slot = self.replicas.insert(replica);
        self.replicas[slot].present = Some(Box::new(present));
        self.timers.grow(self.replicas.slots());
        self.routing.accept(self.replicas[slot].descriptor.clone());
        self.load(slot);
        self.step_replica(now, slot, RaftEvent::Timer);
        if !self.is_registered() {
            // It may have lived here before, and what it promised then is forgotten (law 12).
            self.step_replica(now, slot, RaftEvent::Forgot);
        }
    }

    /// Reads the state back from the present checkpoint.
    fn load(&mut self, slot: Slot) {
        let read = self.store.draw_read();
        let (next, taken) = (ChunkNumber(0), ChunkNumber(0));
        let builder = CheckpointBuilder::new();
        self.replicas[slot].loading = Some(Box::new(Loading { read, next, taken, builder, fetched: Vec::new() }));
        self.read_more(slot);
    }

    fn read_more(&mut self, slot: Slot) {
        let replica = &mut self.replicas[slot];
        let (Some(loading), Some(present)) = (&mut replica.loading, &replica.present) else { return };
        let (group, last) = (present.meta.group, present.meta.last);
        // One more than there are says that there are no more.
        while loading.next.0 <= present.chunks && loading.next.0 - loading.taken.0 < STAGED_CHUNKS_MAX as u64 {
            let (read, number) = (loading.read, loading.next);
            loading.next = number.next();
            self.store.orders.push(StoreOrder::Read { group, read, last, number });
        }
    }

    /// Whether a chunk is for the state of this replica.
    pub(super) fn is_loading(&self, slot: Slot, read: ReadNumber) -> bool {
        self.replicas[slot].loading.as_ref().is_some_and(|loading| loading.read == read)
    }

    /// A chunk of the state is there.
    pub(super) fn loaded(
        &mut self,
        now: Time,
        slot: Slot,
        number: ChunkNumber,
        result: Result<Option<Bytes>, ReadFailure>,
    ) {
        let replica = &mut self.replicas[slot];
        let (Some(loading), Some(present)) = (&mut replica.loading, &replica.present) else { return };
        if number != loading.taken {
            return;
        }
        loading.taken = number.next();
        let is_whole = number.0 == present.chunks;
        let taken = match result {
            Ok(Some(chunk)) if !is_whole => loading.builder.take(&chunk).is_ok(),
            Ok(None) => is_whole,
            _ => false,
        };
        if !taken {
            return self.state_lost(now, slot);
        }
        if !is_whole {
            return self.read_more(slot);
        }
        let (meta, digest) = (present.meta.clone(), present.digest);
        let Some(loading) = replica.loading.take() else { return };
        let group = meta.group;
        self.store.orders.push(StoreOrder::Close { group, read: loading.read });
        match loading.builder.finish(meta) {
            Ok(checkpoint) if checkpoint.digest == digest || self.config.mutated(CoreMutation::AnyDigest) => {
                self.replicas[slot].machine = checkpoint.machine;
                if !self.config.mutated(CoreMutation::ForgetInSnapshot) {
                    self.replicas[slot].sessions = checkpoint.sessions.limited(self.config.sessions);
                }
                self.apply_fetched(slot, loading.fetched);
                let applied = self.replicas[slot].applied;
                self.step_replica(now, slot, RaftEvent::Applied(applied));
            }
            _ => self.state_lost(now, slot),
        }
    }

    /// The state cannot be read back.
    fn state_lost(&mut self, now: Time, slot: Slot) {
        let replica = &mut self.replicas[slot];
        replica.present = None;
        replica.machine = Kv::default();
        replica.sessions = Sessions::new(self.config.sessions);
        if let Some(loading) = replica.loading.take() {
            let group = replica.descriptor.group;
            self.store.orders.push(StoreOrder::Close { group, read: loading.read });
        }
        self.step_replica(now, slot, RaftEvent::StateLost);
    }

    /// A replica has nothing that entries could go on from, and tells its leader.
    pub(crate) fn wants_snapshot(&mut self, slot: Slot, leader: ReplicaId) {
        let replica = &self.replicas[slot];
        let (group, me) = (replica.descriptor.group, replica.me);
        if let Some(node) = replica.node_of(leader) {
            self.say_wanted(group, me, (leader, node));
        }
    }

    /// The same for a replica that does not exist yet.
    pub(crate) fn say_wanted(&mut self, group: GroupId, from: ReplicaId, (to, node): (ReplicaId, NodeId)) {
        self.post_snapshot(node, SnapshotMessage { group, from, to, body: SnapshotBody::Wanted });
    }
}

/// Whether two ranges of different groups share a key.
fn overlap(one: &Descriptor, other: &Descriptor) -> bool {
    let ends_before =
        |one: &Descriptor, other: &Descriptor| one.range.end.as_ref().is_some_and(|end| *end <= other.range.start);
    one.group != other.group && !ends_before(one, other) && !ends_before(other, one)
}
