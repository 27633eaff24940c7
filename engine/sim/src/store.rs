//! The store beside the log of one core: the checkpoints of its replicas.
//!
//! It carries out one order at a time, a while after it was given, and can be slow, full or failing. What is staged is in
//! its memory and dies with the process; what was answered as stored survives everything. When the process ends, some of the
//! orders that were waiting have been carried out all the same, and nobody has heard of it.
//!
//! A chunk that is not what was written is noticed, as by the checksums of the real store. Now and then a checkpoint rots,
//! while its node is down or when somebody is about to read it: a bit of it flips, or it is gone. Then it is refused, and its
//! replica follows until a snapshot has given it its state, unless its log goes back to the beginning. Only one disk at a time
//! has lost something, so that whoever can give the state back, or lead meanwhile, is there. And a chunk that was read rightly
//! is now and then changed on its way, which only the digest of the whole snapshot tells.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pontoon_multiraft::{Checkpoint, CheckpointBuilder, Event};
use pontoon_types::{
    ChunkNumber, GroupId, LogId, ReadFailure, ReadNumber, ReplicaId, SnapshotMeta, StagingNumber, StoreAnswer,
    StoreFailure, StoreOrder,
};

use crate::process::RunningCore;
use crate::random::Random;
use crate::trace::{Happening, Place};
use crate::world::{Due, Phase, World};

/// One checkpoint, whole or on its way.
#[derive(Clone, Debug)]
pub(crate) struct Shelved {
    meta: SnapshotMeta,
    chunks: Vec<Chunk>,
    /// Nothing of it is there any more.
    is_gone: bool,
}

/// A chunk as it is, and as it was written: what a checksum tells apart.
#[derive(Clone, Debug)]
struct Chunk {
    bytes: Bytes,
    written: Bytes,
}

impl Chunk {
    fn read(&self) -> Result<Bytes, ReadFailure> {
        match self.bytes == self.written {
            true => Ok(self.bytes.clone()),
            false => Err(ReadFailure::Rotten),
        }
    }
}

impl Shelved {
    fn read(&self, number: ChunkNumber) -> Result<Option<Bytes>, ReadFailure> {
        match self.is_gone {
            true => Err(ReadFailure::Gone),
            false => self.chunks.get(number.0 as usize).map(Chunk::read).transpose(),
        }
    }
}

/// The checkpoints of one core, and what it was ordered to do.
#[derive(Clone, Debug, Default)]
pub struct Store {
    present: BTreeMap<GroupId, Shelved>,
    staged: BTreeMap<(GroupId, StagingNumber), Shelved>,
    reads: BTreeMap<ReadNumber, Shelved>,
    orders: VecDeque<StoreOrder>,
    done: u64,
    /// The groups whose state is not here as it was stored, until something newer is.
    lacking: BTreeSet<GroupId>,
}

impl Store {
    /// A store that holds these checkpoints and was ordered nothing.
    pub(crate) fn of(checkpoints: impl IntoIterator<Item = Shelved>) -> Store {
        let present = checkpoints.into_iter().map(|shelved| (shelved.meta.group, shelved)).collect();
        Store { present, ..Store::default() }
    }

    /// The checkpoint of a group, as another replica has it who is called so in `meta`; none if there is none of that entry.
    pub(crate) fn copied(&self, meta: SnapshotMeta) -> Option<Shelved> {
        let present = self.present.get(&meta.group).filter(|present| present.meta.last == meta.last)?;
        Some(Shelved { meta, ..present.clone() })
    }

    /// The checkpoint of a group as it is.
    pub(crate) fn shelved(&self, group: GroupId) -> Option<Shelved> {
        self.present.get(&group).cloned()
    }

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
                self.staged.insert((group, staging), Shelved { meta, chunks: Vec::new(), is_gone: false });
                None
            }
            StoreOrder::Chunk { group, staging, .. } | StoreOrder::Finish { group, staging, .. }
                if self.staged.contains_key(&(group, staging)) && fails.is_some() =>
            {
                self.staged.remove(&(group, staging));
                fails.map(|why| StoreAnswer::Failed { group, staging, why })
            }
            StoreOrder::Chunk { group, staging, number, bytes } => {
                self.staged.get_mut(&(group, staging))?.chunks.push(Chunk { written: bytes.clone(), bytes });
                Some(StoreAnswer::Taken { group, staging, number })
            }
            StoreOrder::Finish { group, staging, chunks } => {
                let staged = self.staged.remove(&(group, staging))?;
                assert_eq!(staged.chunks.len() as u64, chunks, "law 18: a checkpoint is stored whole");
                let last = staged.meta.last;
                self.present.insert(group, staged);
                self.lacking.remove(&group);
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
                let result = self.reads.get(&read).ok_or(ReadFailure::Gone).and_then(|read| read.read(number));
                Some(StoreAnswer::Read { group, read, number, result })
            }
            StoreOrder::Close { read, .. } => {
                self.reads.remove(&read);
                None
            }
            StoreOrder::Remove { group, replica } => {
                self.present.retain(|of, present| *of != group || present.meta.replica != replica);
                self.staged.retain(|(of, _), staged| *of != group || staged.meta.replica != replica);
                self.forget_the_removed();
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
        for number in 0.. {
            let Some(chunk) = present.read(ChunkNumber(number)).ok()? else { break };
            builder.take(&chunk).ok()?;
        }
        builder.finish(present.meta.clone()).ok()
    }

    /// Whether everything is here that was stored.
    pub fn is_whole(&self) -> bool {
        self.lacking.is_empty()
    }

    /// A replica starts from the beginning of its log, and needs no checkpoint.
    pub fn starts_from_the_log(&mut self, group: GroupId) {
        self.lacking.remove(&group);
    }

    /// Something becomes of a checkpoint, of this group or of any. Says what.
    pub fn rot(&mut self, group: Option<GroupId>, random: &mut Random) -> Option<String> {
        let groups: Vec<GroupId> = group.map_or_else(|| self.present.keys().copied().collect(), |group| vec![group]);
        let group = (!groups.is_empty()).then(|| *random.pick(&groups))?;
        let present = self.present.get_mut(&group)?;
        self.lacking.insert(group);
        let number = random.below(present.chunks.len() as u64 + 1) as usize;
        let Some(chunk) = present.chunks.get_mut(number) else {
            present.is_gone = true;
            return Some(format!("the checkpoint of {group} is gone"));
        };
        chunk.bytes = flipped(&chunk.bytes, random);
        Some(format!("chunk {number} of the checkpoint of {group} rots"))
    }

    /// The group whose checkpoint is about to be read.
    fn is_about_to_read(&self) -> Option<GroupId> {
        match self.orders.front() {
            Some(StoreOrder::Read { group, .. }) => Some(*group),
            _ => None,
        }
    }

    fn forget_the_removed(&mut self) {
        self.lacking.retain(|group| self.present.contains_key(group));
    }

    /// A start deletes the checkpoints of replicas that the log does not hold.
    pub fn retain(&mut self, holds: impl Fn(GroupId, ReplicaId) -> bool) {
        self.present.retain(|group, present| holds(*group, present.meta.replica));
        self.forget_the_removed();
    }
}

/// The same bytes with one bit changed.
fn flipped(bytes: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = bytes.to_vec();
    let bit = random.below(bytes.len() as u64 * 8) as usize;
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
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
        self.rot_before_reading(place);
        let mut answer = self.disk(place).store.work(fails.then_some(why));
        if let Some(StoreAnswer::Read { group, result: Ok(Some(chunk)), .. }) = &mut answer {
            self.change_on_the_way(place, *group, chunk);
        }
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

    /// A checkpoint of a stopped node rots.
    pub(crate) fn rot_checkpoint(&mut self, place: Place) {
        if self.phase == Phase::Faults
            && self.rots.chance(self.options.disk.checkpoint_rot_ppm)
            && self.may_lose_something(place)
        {
            self.rot_in_store(place, None);
        }
    }

    fn rot_before_reading(&mut self, place: Place) {
        let Some(group) = self.disks[&place].store.is_about_to_read() else { return };
        if self.phase == Phase::Faults
            && self.rots.chance(self.options.disk.checkpoint_rot_ppm / 8)
            && self.may_lose_something(place)
        {
            self.rot_in_store(place, Some(group));
        }
    }

    fn rot_in_store(&mut self, place: Place, group: Option<GroupId>) {
        let mut random = self.rots.fork(place.node.0);
        if let Some(what) = self.disk(place).store.rot(group, &mut random) {
            self.counts.checkpoints_rotten += 1;
            self.trace.note(self.queue.now(), Happening::Damaged(place, what));
        }
    }

    /// A chunk that is to be sent is changed between the store and the frame. Not one that the core reads for itself: who has
    /// lost its state can be lost no further.
    fn change_on_the_way(&mut self, place: Place, group: GroupId, chunk: &mut Bytes) {
        let holds_state = |running: &RunningCore| running.core.group(group).is_some_and(|it| it.is_ready());
        if self.phase == Phase::Faults
            && self.rots.chance(self.options.disk.misread_ppm)
            && self.cores.get(&place).is_some_and(holds_state)
        {
            self.counts.chunks_changed += 1;
            *chunk = flipped(chunk, &mut self.rots);
        }
    }
}
