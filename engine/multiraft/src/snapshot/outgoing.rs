//! The sender's side of a snapshot.
//!
//! What is sent is the present checkpoint. It has to reach to what the log has given up, and its members must name the
//! receiver; where there is none, one is made first. Once it is offered it stays the same until the receiver has it, however
//! many newer ones are made meanwhile: the read holds it in the store. The log is kept behind it (`checkpoint/make.rs`).

use bytes::Bytes;
use pontoon_raft::Event as RaftEvent;
use pontoon_raft::membership::Configuration;
use pontoon_types::{ChunkNumber, GroupId, Index, LogId, NodeId, ReadFailure, ReadNumber, ReplicaId, StoreOrder, Time};
use pontoon_wire::peer::{SnapshotBody, SnapshotMessage, SnapshotOffer};

use crate::Core;
use crate::checkpoint::Present;
use crate::replica::Slot;

/// The part of the time for which a silent peer is supported after which a receiver that says nothing is offered the snapshot
/// again: something was lost.
const OFFERS_PER_SUPPORT: u32 = 2;

/// A snapshot that is being sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    node: NodeId,
    read: ReadNumber,
    /// What is sent.
    pub(super) last: LogId,
    chunks: u64,
    /// The next chunk to read for it.
    next: ChunkNumber,
    /// The first one without credit.
    through: ChunkNumber,
    /// Everything before it has arrived.
    arrived: ChunkNumber,
    /// Whether the next credit says where to go on.
    is_offered: bool,
    heard_at: Time,
}

impl Core {
    /// A peer of a group that is led here cannot go on from entries.
    pub(crate) fn needs_snapshot(&mut self, now: Time, slot: Slot, peer: ReplicaId) {
        let replica = &self.replicas[slot];
        let key = (replica.descriptor.group, peer);
        if self.snapshots.outgoing.contains_key(&key) {
            return;
        }
        let compacted = replica.raft.compacted();
        let unwanted = self.snapshots.unwanted.get(&key).copied();
        let unwanted = unwanted.filter(|(last, _)| replica.present.as_ref().is_some_and(|it| it.meta.last == *last));
        // One that was not wanted may be too old for a replica that has given up more. A newer one can be made only when
        // something newer was applied; until then the same is offered again, but not at once.
        let is_too_old = unwanted.is_some_and(|(last, _)| replica.applied > last.index);
        if !is_too_old && unwanted.is_some_and(|(_, at)| now.since(at) < self.config.support_timeout) {
            return;
        }
        let least = self.snapshots.parked.get(&key).copied().unwrap_or_default();
        let reaches = |last: LogId| last >= compacted && last.index >= least;
        let serves = |present: &Present| reaches(present.meta.last) && !is_too_old && names(present, peer);
        match (replica.present.as_deref().filter(|present| serves(present)).cloned(), replica.node_of(peer)) {
            (Some(present), Some(node)) => self.begin_sending(now, slot, (peer, node), &present),
            _ => {
                self.snapshots.waiting.insert(key);
                self.want_checkpoint(slot, true);
            }
        }
    }

    /// There is a new checkpoint.
    pub(crate) fn offer_to_waiting(&mut self, now: Time, slot: Slot) {
        let group = self.replicas[slot].descriptor.group;
        let of_group = self.snapshots.waiting.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX)));
        for key in of_group.copied().collect::<Vec<_>>() {
            self.snapshots.waiting.remove(&key);
            if self.replicas[slot].raft.awaits_snapshot(key.1) || self.snapshots.parked.contains_key(&key) {
                self.needs_snapshot(now, slot, key.1);
            }
        }
    }

    fn begin_sending(&mut self, now: Time, slot: Slot, (peer, node): (ReplicaId, NodeId), present: &Present) {
        let group = self.replicas[slot].descriptor.group;
        let outgoing = Outgoing {
            node,
            read: self.store.draw_read(),
            last: present.meta.last,
            chunks: present.chunks,
            next: ChunkNumber(0),
            through: ChunkNumber(0),
            arrived: ChunkNumber(0),
            is_offered: true,
            heard_at: now,
        };
        self.counters.snapshots_sent += 1;
        self.snapshots.outgoing.insert((group, peer), outgoing);
        self.review_snapshots_soon(now);
        self.offer(slot, (peer, node), present);
    }

    fn offer(&mut self, slot: Slot, (to, node): (ReplicaId, NodeId), present: &Present) {
        let Present { meta, chunks, digest } = present.clone();
        let (group, from) = (meta.group, self.replicas[slot].me);
        let (last, configuration, descriptor) = (meta.last, meta.configuration, meta.descriptor);
        let offer = SnapshotOffer { last, configuration, descriptor, chunks, digest };
        let body = SnapshotBody::Offer(Box::new(offer));
        self.post_snapshot(node, SnapshotMessage { group, from, to, body });
    }

    /// A replica has nothing that entries could go on from.
    pub(super) fn hear_wanted(
        &mut self,
        now: Time,
        from: NodeId,
        (group, sender, to): (GroupId, ReplicaId, ReplicaId),
    ) {
        let Some(slot) = self.slot_of(group) else { return };
        let replica = &self.replicas[slot];
        if replica.me != to || replica.node_of(sender) != Some(from) || replica.leads.is_none() {
            return;
        }
        if replica.raft.awaits_snapshot(sender) {
            self.needs_snapshot(now, slot, sender);
        } else {
            self.step_replica(now, slot, RaftEvent::PeerIsStateless(sender));
        }
    }

    /// A replica cannot read an entry. It goes on with entries meanwhile.
    pub(super) fn hear_parked(
        &mut self,
        now: Time,
        from: NodeId,
        (group, sender, to): (GroupId, ReplicaId, ReplicaId),
        at: Index,
    ) {
        let Some(slot) = self.slot_of(group) else { return };
        let replica = &self.replicas[slot];
        let is_ours = replica.me == to && replica.node_of(sender) == Some(from) && replica.leads.is_some();
        if is_ours && replica.applied >= at {
            self.snapshots.parked.insert((group, sender), at);
            self.needs_snapshot(now, slot, sender);
        }
    }

    /// Whether this peer needs nothing but entries.
    fn is_content(&self, slot: Slot, peer: ReplicaId) -> bool {
        let replica = &self.replicas[slot];
        let is_parked = self.snapshots.parked.contains_key(&(replica.descriptor.group, peer));
        replica.raft.replicates_to(peer) && !is_parked
    }

    pub(super) fn hear_credit(
        &mut self,
        now: Time,
        from: NodeId,
        (group, sender, to): (GroupId, ReplicaId, ReplicaId),
        last: LogId,
        next: ChunkNumber,
        through: ChunkNumber,
    ) {
        let Some(outgoing) = self.snapshots.outgoing.get_mut(&(group, sender)) else {
            // This leader, or this life of it, may know nothing of what was begun. Or it is over.
            let slot = self.slot_of(group);
            let is_over = slot.is_some_and(|slot| self.is_content(slot, sender));
            if let Some(slot) = slot.filter(|_| self.snapshots.parked.contains_key(&(group, sender))) {
                self.needs_snapshot(now, slot, sender);
            } else if !is_over {
                self.hear_wanted(now, from, (group, sender, to));
            }
            return;
        };
        if outgoing.node != from || outgoing.last != last {
            return;
        }
        let is_answer = std::mem::take(&mut outgoing.is_offered);
        if is_answer {
            (outgoing.next, outgoing.through) = (next, next);
        }
        // Credit without progress says that something was lost: then the snapshot is offered again.
        if is_answer || next > outgoing.arrived {
            (outgoing.arrived, outgoing.heard_at) = (next, now);
        }
        outgoing.through = outgoing.through.max(through).min(ChunkNumber(outgoing.chunks));
        while outgoing.next < outgoing.through {
            let (read, number) = (outgoing.read, outgoing.next);
            outgoing.next = number.next();
            self.store.orders.push(StoreOrder::Read { group, read, last, number });
        }
    }

    /// A chunk of a snapshot has been read.
    pub(super) fn chunk_read(
        &mut self,
        group: GroupId,
        read: ReadNumber,
        number: ChunkNumber,
        result: Result<Option<Bytes>, ReadFailure>,
    ) {
        let mut of_group = self.snapshots.outgoing.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX)));
        let Some((key, outgoing)) = of_group.find(|(_, outgoing)| outgoing.read == read) else { return };
        let (key, node, last) = (*key, outgoing.node, outgoing.last);
        let Some(slot) = self.slot_of(group) else { return };
        match result {
            Ok(Some(bytes)) => {
                let body = SnapshotBody::Chunk { last, number, bytes };
                let from = self.replicas[slot].me;
                self.post_snapshot(node, SnapshotMessage { group, from, to: key.1, body });
            }
            // What cannot be read cannot be sent. The state is in memory: a new checkpoint can.
            Ok(None) | Err(ReadFailure::Gone | ReadFailure::Rotten) => {
                self.stop_sending(key);
                if let Some(present) = self.replicas[slot].present.as_mut().filter(|present| present.meta.last == last)
                {
                    present.meta.configuration = Bytes::new();
                }
                self.snapshots.waiting.insert(key);
                self.want_checkpoint(slot, true);
            }
        }
    }

    /// The receiver has the snapshot, or wants another one, or none.
    pub(super) fn hear_unwanted(&mut self, now: Time, from: NodeId, key: (GroupId, ReplicaId), last: LogId) {
        let outgoing = self.snapshots.outgoing.get(&key);
        if outgoing.is_some_and(|outgoing| outgoing.node == from && outgoing.last == last) {
            self.stop_sending(key);
            self.snapshots.parked.remove(&key);
            self.snapshots.unwanted.insert(key, (last, now));
            if let Some(slot) = self.slot_of(key.0) {
                self.compact_to_present(now, slot);
                // One that has just come to life knows no leader that it could tell how far it has come.
                self.step_replica(now, slot, RaftEvent::PeerUp(key.1));
            }
        }
    }

    fn stop_sending(&mut self, key: (GroupId, ReplicaId)) {
        if let Some(outgoing) = self.snapshots.outgoing.remove(&key) {
            self.store.orders.push(StoreOrder::Close { group: key.0, read: outgoing.read });
        }
    }

    /// Ends all sending of a group that is not led here any more.
    pub(crate) fn stop_sending_all(&mut self, group: GroupId) {
        let of_group = self.snapshots.outgoing.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX)));
        for key in of_group.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.stop_sending(key);
        }
        self.snapshots.waiting.retain(|(of, _)| *of != group);
        self.snapshots.unwanted.retain(|(of, _), _| *of != group);
        self.snapshots.parked.retain(|(of, _), _| *of != group);
    }

    /// Ends what is of no use any more, and offers again where nothing was heard for a while.
    pub(super) fn review_outgoing(&mut self, now: Time) {
        let offer_interval = self.config.support_timeout / OFFERS_PER_SUPPORT;
        for key in self.snapshots.outgoing.keys().copied().collect::<Vec<_>>() {
            let slot = self.slot_of(key.0);
            let Some(slot) = slot.filter(|slot| self.replicas[*slot].raft.configuration().standing(key.1).is_some())
            else {
                self.stop_sending(key);
                continue;
            };
            if self.replicas[slot].leads.is_none() || self.is_content(slot, key.1) {
                self.stop_sending(key);
                self.compact_to_present(now, slot);
                continue;
            }
            let Some(outgoing) = self.snapshots.outgoing.get_mut(&key) else { continue };
            if now.since(outgoing.heard_at) < offer_interval {
                continue;
            }
            let (last, node) = (outgoing.last, outgoing.node);
            (outgoing.is_offered, outgoing.heard_at) = (true, now);
            match self.replicas[slot].present.as_deref().filter(|present| present.meta.last == last).cloned() {
                Some(present) => self.offer(slot, (key.1, node), &present),
                // The receiver has not begun, or has lost its way, and there is something newer by now.
                None => {
                    self.stop_sending(key);
                    self.needs_snapshot(now, slot, key.1);
                }
            }
        }
    }
}

/// Whether the members of a checkpoint name this replica.
fn names(present: &Present, replica: ReplicaId) -> bool {
    let configuration = Configuration::decode(&present.meta.configuration);
    configuration.is_ok_and(|configuration| configuration.standing(replica).is_some())
}
