//! The store beside the log of one core: the checkpoints of its replicas.
//!
//! It carries out one order at a time, a while after it was given, and can be slow, full or failing. What is staged is in
//! its memory and dies with the process; what was answered as stored survives everything. When the process ends, some of the
//! orders that were waiting have been carried out all the same, and nobody has heard of it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pontoon_multiraft::{Checkpoint, CheckpointBuilder, Event};
use pontoon_types::{
    GroupId, LogId, ReadFailure, ReadNumber, ReplicaId, SnapshotMeta, StagingNumber, StoreAnswer, StoreFailure,
    StoreOrder,
};

use crate::trace::Place;
use crate::world::{Due, World};

/// One checkpoint, whole or on its way.
#[derive(Clone, Debug)]
struct Shelved {
    meta: SnapshotMeta,
    chunks: Vec<Bytes>,
}

/// The checkpoints of one core, and what it was ordered to do.
#[derive(Clone, Debug, Default)]
pub struct Store {
    present: BTreeMap<GroupId, Shelved>,
    staged: BTreeMap<(GroupId, StagingNumber), Shelved>,
    reads: BTreeMap<ReadNumber, Shelved>,
    orders: VecDeque<StoreOrder>,
    done: u64,
}

impl Store {
    /// Takes an order. True if nothing was waiting.
    pub fn take(&mut self, order: StoreOrder) -> bool {
        self.orders.push_back(order);
        self.orders.len() == 1
    }

    /// Carries out the next order, or fails to. Returns what the core hears.
    pub fn work(&mut self, fails: Option<StoreFailure>) -> Option<StoreAnswer> {
        let order = self.orders.pop_front()?;
        self.done += 1;
        match order {
            StoreOrder::Begin { group, staging, meta } => {
                self.staged.retain(|(of, _), _| *of != group);
                self.staged.insert((group, staging), Shelved { meta, chunks: Vec::new() });
                None
            }
            StoreOrder::Chunk { group, staging, .. } | StoreOrder::Finish { group, staging, .. }
                if self.staged.contains_key(&(group, staging)) && fails.is_some() =>
            {
                self.staged.remove(&(group, staging));
                fails.map(|why| StoreAnswer::Failed { group, staging, why })
            }
            StoreOrder::Chunk { group, staging, number, bytes } => {
                self.staged.get_mut(&(group, staging))?.chunks.push(bytes);
                Some(StoreAnswer::Taken { group, staging, number })
            }
            StoreOrder::Finish { group, staging, chunks } => {
                let staged = self.staged.remove(&(group, staging))?;
                assert_eq!(staged.chunks.len() as u64, chunks, "law 18: a checkpoint is stored whole");
                let last = staged.meta.last;
                self.present.insert(group, staged);
                Some(StoreAnswer::Stored { group, staging, last })
            }
            StoreOrder::Abandon { group, staging } => {
                self.staged.remove(&(group, staging));
                None
            }
            StoreOrder::Read { group, read, last, number } => {
                if let Some(present) = self.present.get(&group).filter(|present| present.meta.last == last) {
                    self.reads.entry(read).or_insert_with(|| present.clone());
                }
                let result = self.reads.get(&read).ok_or(ReadFailure::Gone);
                let result = result.map(|read| read.chunks.get(number.0 as usize).cloned());
                Some(StoreAnswer::Read { group, read, number, result })
            }
            StoreOrder::Close { read, .. } => {
                self.reads.remove(&read);
                None
            }
            StoreOrder::Remove { group, replica } => {
                self.present.retain(|of, present| *of != group || present.meta.replica != replica);
                self.staged.retain(|(of, _), staged| *of != group || staged.meta.replica != replica);
                None
            }
        }
    }

    /// Whether orders are waiting.
    pub fn is_busy(&self) -> bool {
        !self.orders.is_empty()
    }

    /// The process ends. Some of what was waiting happened.
    pub fn stop(&mut self) {
        let carried_out = self.done.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        for _ in 0..carried_out % (self.orders.len() as u64 + 1) {
            self.work(None);
        }
        self.orders.clear();
        self.staged.clear();
        self.reads.clear();
    }

    /// The last entry of a replica's checkpoint.
    pub fn last(&self, group: GroupId, replica: ReplicaId) -> Option<LogId> {
        self.present.get(&group).filter(|present| present.meta.replica == replica).map(|present| present.meta.last)
    }

    /// What a start finds of a replica.
    pub fn found(&self, group: GroupId, replica: ReplicaId) -> Option<Checkpoint> {
        let present = self.present.get(&group).filter(|present| present.meta.replica == replica)?;
        let mut builder = CheckpointBuilder::new();
        let built = present.chunks.iter().try_for_each(|chunk| builder.take(chunk));
        built.and_then(|()| builder.finish(present.meta.clone())).ok()
    }

    /// A start deletes the checkpoints of replicas that the log does not hold.
    pub fn retain(&mut self, holds: impl Fn(GroupId, ReplicaId) -> bool) {
        self.present.retain(|group, present| holds(*group, present.meta.replica));
    }
}

impl World {
    /// Hands orders to the store of a core.
    pub(crate) fn order_of_store(&mut self, place: Place, orders: Vec<StoreOrder>) {
        for order in orders {
            if self.disk(place).store.take(order) {
                self.schedule_store(place);
            }
        }
    }

    fn schedule_store(&mut self, place: Place) {
        let wait = self.random.until_next(self.options.disk.store_mean);
        let incarnation = self.nodes[&place.node].incarnation;
        self.queue.put(self.queue.now() + wait, Due::Store(place, incarnation));
    }

    /// The store of a core carries out an order.
    pub(crate) fn store_works(&mut self, place: Place) {
        let fails = self.random.chance(self.options.disk.store_error_ppm);
        let why = if self.random.chance(500_000) { StoreFailure::Full } else { StoreFailure::Io };
        let answer = self.disk(place).store.work(fails.then_some(why));
        if self.disk(place).store.is_busy() {
            self.schedule_store(place);
        }
        match &answer {
            Some(StoreAnswer::Stored { .. }) => self.counts.checkpoints += 1,
            Some(StoreAnswer::Failed { .. }) => self.counts.checkpoints_failed += 1,
            _ => {}
        }
        if let Some(answer) = answer {
            self.push(place, Event::Store(answer));
        }
    }
}
