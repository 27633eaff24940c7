//! The store of one node, as small as it can be: what is finished is there for ever, what is staged dies with the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_multiraft::{Checkpoint, CheckpointBuilder};
use pontoon_types::{
    ChunkNumber, GroupId, LogId, ReadFailure, ReadNumber, ReplicaId, SnapshotMeta, StagingNumber, StoreAnswer,
    StoreOrder,
};

#[derive(Clone)]
pub struct Shelved {
    pub meta: SnapshotMeta,
    pub chunks: Vec<Bytes>,
}

#[derive(Default)]
pub struct Shelf {
    pub checkpoints: BTreeMap<GroupId, Shelved>,
    staged: BTreeMap<(GroupId, StagingNumber), Shelved>,
    reads: BTreeMap<ReadNumber, Shelved>,
    pub orders: Vec<StoreOrder>,
}

impl Shelf {
    /// Carries out one order.
    pub fn carry_out(&mut self, order: StoreOrder) -> Option<StoreAnswer> {
        match order {
            StoreOrder::Begin { group, staging, meta } => {
                self.staged.retain(|(of, _), _| *of != group);
                self.staged.insert((group, staging), Shelved { meta, chunks: Vec::new() });
                None
            }
            StoreOrder::Chunk { group, staging, number, bytes } => {
                let staged = self.staged.get_mut(&(group, staging))?;
                assert_eq!(number, ChunkNumber(staged.chunks.len() as u64), "chunks come in their order");
                staged.chunks.push(bytes);
                Some(StoreAnswer::Taken { group, staging, number })
            }
            StoreOrder::Finish { group, staging, chunks } => {
                let staged = self.staged.remove(&(group, staging))?;
                assert_eq!(chunks, staged.chunks.len() as u64, "all chunks are there");
                let last = staged.meta.last;
                self.checkpoints.insert(group, staged);
                Some(StoreAnswer::Stored { group, staging, last })
            }
            StoreOrder::Abandon { group, staging } => {
                self.staged.remove(&(group, staging));
                None
            }
            StoreOrder::Read { group, read, last, number } => {
                let present = self.checkpoints.get(&group).filter(|present| present.meta.last == last);
                if let Some(present) = present {
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
                let is_of = self.checkpoints.get(&group).is_some_and(|present| present.meta.replica == replica);
                self.checkpoints.retain(|of, _| *of != group || !is_of);
                None
            }
        }
    }

    /// The process ends.
    pub fn stop(&mut self) {
        self.staged.clear();
        self.reads.clear();
        self.orders.clear();
    }

    /// What a start finds of a replica.
    pub fn found(&self, group: GroupId, replica: ReplicaId) -> Option<Checkpoint> {
        let shelved = self.checkpoints.get(&group).filter(|shelved| shelved.meta.replica == replica)?;
        let mut builder = CheckpointBuilder::new();
        shelved.chunks.iter().for_each(|chunk| builder.take(chunk).unwrap());
        Some(builder.finish(shelved.meta.clone()).unwrap())
    }

    /// The last entry of the present checkpoint.
    pub fn last(&self, group: GroupId) -> Option<LogId> {
        self.checkpoints.get(&group).map(|shelved| shelved.meta.last)
    }
}
