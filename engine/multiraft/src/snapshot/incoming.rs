//! The receiver's side of a snapshot.
//!
//! An offer is taken up if it gives the replica something that it needs (law 18), or brings one to life that may live here
//! (law 21). What arrives goes to the store, chunk by chunk in their order; credit is given for what the store has taken,
//! from one budget of the core: first to replicas of which the group already counts the vote, then to new ones, in the order
//! in which they came.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_raft::Event as RaftEvent;
use pontoon_raft::membership::Configuration;
use pontoon_types::limits::{CORE_SNAPSHOTS_MAX, SNAPSHOT_CREDIT_CHUNKS, SNAPSHOT_WINDOW_CHUNKS};
use pontoon_types::{ChunkNumber, GroupId, LogId, NodeId, ReplicaId, SnapshotMeta, StagingNumber, StoreOrder, Time};
use pontoon_wire::peer::{SnapshotBody, SnapshotMessage, SnapshotOffer};

use crate::Core;
use crate::checkpoint::Present;
use crate::mutation::CoreMutation;

/// A snapshot of which nothing was heard for so many times the support of a silent peer is given up: its sender has
/// something else to do. Credit that is not used for one such time is for others.
const PATIENCE: u32 = 30;

/// Who goes before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// A replica that counts and is behind.
    Repair,
    /// A new one.
    New,
}

/// A snapshot that is being received.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) node: NodeId,
    sender: ReplicaId,
    pub(super) staging: StagingNumber,
    pub(super) present: Present,
    class: Class,
    arrival: u64,
    /// The next chunk that is missing.
    next: ChunkNumber,
    /// How many of those the store has taken.
    taken: u64,
    /// The first one without credit.
    through: ChunkNumber,
    digest: crc32fast::Hasher,
    /// Chunks with credit that have overtaken one before them.
    early: BTreeMap<ChunkNumber, Bytes>,
    heard_at: Time,
    is_finishing: bool,
}

impl Incoming {
    /// Chunks that may still come, or that the store has not taken.
    fn outstanding(&self) -> usize {
        (self.through.0.max(self.next.0) - self.taken) as usize
    }
}

impl Core {
    pub(super) fn hear_offer(
        &mut self,
        now: Time,
        from: NodeId,
        (group, sender, to): (GroupId, ReplicaId, ReplicaId),
        offer: SnapshotOffer,
    ) {
        let SnapshotOffer { last, configuration, descriptor, chunks, digest } = offer;
        let Ok(members) = Configuration::decode(&configuration) else { return };
        if members.node_of(to) != Some(self.config.node) || members.node_of(sender) != Some(from) {
            return;
        }
        match self.slot_of(group) {
            Some(slot) if self.replicas[slot].me != to => return,
            Some(slot) if self.replicas[slot].loading.is_some() => return,
            Some(slot) if !self.replicas[slot].raft.wants_snapshot(last) => {
                self.give_up_snapshot(group);
                self.post_unwanted((group, to), (from, sender), last);
                self.cover_lost(slot);
                return self.step_replica(now, slot, RaftEvent::Known(last));
            }
            None if !self.may_create(to, &descriptor) => return,
            _ => {}
        }
        if let Some(incoming) = self.snapshots.incoming.get_mut(&group) {
            let known = &incoming.present;
            if (known.meta.last, known.chunks, known.digest) == (last, chunks, digest) && known.meta.replica == to {
                // The same from whoever leads now: what has arrived stays.
                (incoming.node, incoming.sender, incoming.heard_at) = (from, sender, now);
                return self.post_credit(group);
            }
            // An old offer that comes late is of no use; another leader may have nothing newer.
            if incoming.is_finishing || known.meta.last > last && incoming.node == from {
                return;
            }
            self.give_up_snapshot(group);
        }
        let meta = SnapshotMeta { group, replica: to, last, configuration, descriptor };
        let is_voter = members.is_voter(to) && self.slot_of(group).is_some();
        self.begin_receiving(now, (from, sender), Present { meta, chunks, digest }, is_voter);
    }

    fn begin_receiving(&mut self, now: Time, (node, sender): (NodeId, ReplicaId), present: Present, is_voter: bool) {
        let group = present.meta.group;
        if let Some(slot) = self.slot_of(group) {
            self.give_up_checkpoint(slot);
        }
        let staging = self.store.draw_staging();
        self.store.orders.push(StoreOrder::Begin { group, staging, meta: present.meta.clone() });
        self.snapshots.arrivals += 1;
        let incoming = Incoming {
            node,
            sender,
            staging,
            present,
            class: if is_voter { Class::Repair } else { Class::New },
            arrival: self.snapshots.arrivals,
            next: ChunkNumber(0),
            taken: 0,
            through: ChunkNumber(0),
            digest: crc32fast::Hasher::new(),
            early: BTreeMap::new(),
            heard_at: now,
            is_finishing: false,
        };
        self.snapshots.incoming.insert(group, incoming);
        self.review_snapshots_soon(now);
        self.grant();
        self.finish_if_whole(now, group);
    }

    /// Gives credit to those whose turn it is.
    fn grant(&mut self) {
        let mut order: Vec<(Class, u64, GroupId)> =
            self.snapshots.incoming.iter().map(|(group, it)| (it.class, it.arrival, *group)).collect();
        order.sort_unstable();
        let outstanding: usize = self.snapshots.incoming.values().map(Incoming::outstanding).sum();
        let mut budget = SNAPSHOT_CREDIT_CHUNKS.saturating_sub(outstanding);
        for (_, _, group) in order.into_iter().take(CORE_SNAPSHOTS_MAX) {
            let Some(incoming) = self.snapshots.incoming.get_mut(&group) else { continue };
            let before = incoming.through;
            while budget > 0
                && incoming.outstanding() < SNAPSHOT_WINDOW_CHUNKS
                && incoming.through.0 < incoming.present.chunks
            {
                incoming.through = incoming.through.next();
                budget -= 1;
            }
            if incoming.through > before {
                self.post_credit(group);
            }
        }
    }

    fn post_credit(&mut self, group: GroupId) {
        let Some(incoming) = self.snapshots.incoming.get(&group) else { return };
        let Incoming { node, sender, next, through, .. } = *incoming;
        let (from, last) = (incoming.present.meta.replica, incoming.present.meta.last);
        let body = SnapshotBody::Credit { last, next, through };
        self.post_snapshot(node, SnapshotMessage { group, from, to: sender, body });
    }

    /// Says that a snapshot is of no use here; one that was never offered says only that this replica is there.
    pub(crate) fn post_unwanted(
        &mut self,
        (group, from): (GroupId, ReplicaId),
        (node, to): (NodeId, ReplicaId),
        last: LogId,
    ) {
        let body = SnapshotBody::Unwanted { last };
        self.post_snapshot(node, SnapshotMessage { group, from, to, body });
    }

    pub(super) fn hear_chunk(
        &mut self,
        now: Time,
        from: NodeId,
        (group, to): (GroupId, ReplicaId),
        last: LogId,
        number: ChunkNumber,
        bytes: Bytes,
    ) {
        let Some(incoming) = self.snapshots.incoming.get_mut(&group) else { return };
        let meta = &incoming.present.meta;
        let is_granted = number >= incoming.next && number < incoming.through;
        if incoming.node != from || meta.replica != to || meta.last != last || !is_granted || incoming.is_finishing {
            return;
        }
        incoming.heard_at = now;
        // What is kept must not hold the frame.
        incoming.early.insert(number, Bytes::copy_from_slice(&bytes));
        while let Some(bytes) = incoming.early.remove(&incoming.next) {
            let (number, staging) = (incoming.next, incoming.staging);
            incoming.next = number.next();
            incoming.digest.update(&bytes);
            self.store.orders.push(StoreOrder::Chunk { group, staging, number, bytes });
        }
        self.finish_if_whole(now, group);
    }

    /// The last chunk is here: the store makes it the checkpoint, if it still helps and is what was offered.
    fn finish_if_whole(&mut self, now: Time, group: GroupId) {
        let Some(incoming) = self.snapshots.incoming.get_mut(&group) else { return };
        if incoming.next.0 < incoming.present.chunks {
            return;
        }
        let any = self.config.mutated(CoreMutation::AnyDigest);
        let is_what_was_offered = any || incoming.digest.clone().finalize() == incoming.present.digest;
        let last = incoming.present.meta.last;
        let slot = self.replicas.slot_of(group);
        let is_wanted = slot.is_none_or(|slot| self.replicas[slot].raft.wants_snapshot(last));
        if !is_what_was_offered || !is_wanted {
            return self.give_up_snapshot(group);
        }
        incoming.is_finishing = true;
        let (staging, chunks) = (incoming.staging, incoming.present.chunks);
        self.store.orders.push(StoreOrder::Finish { group, staging, chunks });
        if self.config.mutated(CoreMutation::InstallBeforeStored) {
            self.install_snapshot(now, group);
        }
    }

    /// The store has taken a chunk.
    pub(super) fn snapshot_taken(&mut self, _: Time, group: GroupId, staging: StagingNumber) {
        let of = self.snapshots.incoming.get_mut(&group).filter(|incoming| incoming.staging == staging);
        if let Some(incoming) = of {
            incoming.taken += 1;
            self.grant();
        }
    }

    /// The snapshot is the checkpoint of its replica now.
    pub(super) fn snapshot_stored(&mut self, now: Time, group: GroupId, staging: StagingNumber) {
        if self.snapshots.incoming.get(&group).is_some_and(|incoming| incoming.staging == staging) {
            self.install_snapshot(now, group);
        }
    }

    /// Takes a snapshot out of those that are coming and makes it the state of its replica.
    fn install_snapshot(&mut self, now: Time, group: GroupId) {
        let Some(incoming) = self.snapshots.incoming.remove(&group) else { return };
        let (replica, last) = (incoming.present.meta.replica, incoming.present.meta.last);
        self.counters.snapshots_received += 1;
        self.installed(now, incoming.present);
        self.post_unwanted((group, replica), (incoming.node, incoming.sender), last);
        self.grant();
    }

    /// The store has given it up. Its sender offers it again.
    pub(super) fn snapshot_not_stored(&mut self, _: Time, group: GroupId, staging: StagingNumber) {
        if self.snapshots.incoming.get(&group).is_some_and(|incoming| incoming.staging == staging) {
            self.snapshots.incoming.remove(&group);
            self.grant();
        }
    }

    /// Ends the receiving of a group's snapshot, if one is coming.
    pub(super) fn give_up_snapshot(&mut self, group: GroupId) {
        if let Some(incoming) = self.snapshots.incoming.remove(&group) {
            self.store.orders.push(StoreOrder::Abandon { group, staging: incoming.staging });
            self.grant();
        }
    }

    /// Gives credit that nobody uses to others, and gives up what nobody sends any more.
    pub(super) fn review_incoming(&mut self, now: Time) {
        let support = self.config.support_timeout;
        for group in self.snapshots.incoming.keys().copied().collect::<Vec<_>>() {
            let Some(incoming) = self.snapshots.incoming.get_mut(&group) else { continue };
            let idle = now.since(incoming.heard_at);
            let last = incoming.present.meta.last;
            let slot = self.replicas.slot_of(group);
            let has_caught_up = slot.is_some_and(|slot| !self.replicas[slot].raft.wants_snapshot(last));
            if incoming.is_finishing {
                continue;
            }
            if has_caught_up || idle >= support * PATIENCE {
                self.give_up_snapshot(group);
            } else if idle >= support {
                incoming.through = incoming.next;
            }
        }
        self.grant();
    }
}
