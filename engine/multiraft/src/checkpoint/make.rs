//! When a core makes checkpoints, and what becomes of them.
//!
//! A group makes one when it has applied more bytes of its log since the last one than a limit, or than half its state if
//! that is more, so that writing states costs a bounded share of writing entries; and before others when its old entries
//! keep the log from giving segments back. A core writes few at a time, and of each a few chunks at a time, as the store
//! takes them. What is applied and not durable is not checkpointed: a checkpoint is never ahead of its own log.
//!
//! When the store says that a checkpoint is durable, and not before, the log is given up to its entry (law 19). While a peer
//! is being sent an older one the log is kept behind that one, so that the peer can go on from there.
//!
//! What the group remembers of its clients is a section of its own behind the pairs.

use std::collections::VecDeque;

use bytes::Bytes;
use pontoon_raft::Event as RaftEvent;
use pontoon_types::limits::{
    CHECKPOINT_BEFORE_BYTES_MAX, CORE_CHECKPOINTS_MAX, SNAPSHOT_CHUNK_BYTES_MAX, STAGED_CHUNKS_MAX,
};
use pontoon_types::{ChunkNumber, GroupId, LogId, SnapshotMeta, StagingNumber, StoreOrder, Time};

use super::chunk::Section;
use crate::Core;
use crate::mutation::CoreMutation;
use crate::replica::{Replica, Slot};
use crate::sessions::SessionsCut;

/// When a core makes checkpoints, and of what size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Bytes of entries that a group applies before it makes one.
    pub log_bytes: usize,
    /// Size of a chunk.
    pub chunk_bytes: usize,
}

/// The present checkpoint of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub(crate) meta: SnapshotMeta,
    pub(crate) chunks: u64,
    pub(crate) digest: u32,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(crate) struct Staging {
    number: StagingNumber,
    meta: SnapshotMeta,
    chunks: u64,
    taken: u64,
    digest: crc32fast::Hasher,
    is_cut: bool,
    sessions: SessionsCut,
}

/// The checkpoints of a core.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Groups that want one, in their order.
    wanting: VecDeque<GroupId>,
    /// Groups that write one.
    writing: Vec<GroupId>,
    retry_at: Option<Time>,
}

impl Checkpoints {
    /// The group is gone.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.wanting.retain(|wanting| *wanting != group);
        self.writing.retain(|writing| *writing != group);
    }

    /// When there is something to do without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.retry_at
    }
}

impl Core {
    /// Whether the group has applied enough for a checkpoint.
    pub(crate) fn review_checkpoint(&mut self, slot: Slot) {
        let replica = &self.replicas[slot];
        if replica.log_bytes >= self.config.checkpoint.log_bytes.max(replica.machine.bytes() / 2) {
            self.want_checkpoint(slot, false);
        }
    }

    /// The group makes a checkpoint when its turn comes, before all that wait already if it `presses`.
    pub(crate) fn want_checkpoint(&mut self, slot: Slot, presses: bool) {
        let group = self.replicas[slot].descriptor.group;
        let checkpoints = &mut self.checkpoints;
        if checkpoints.writing.contains(&group) {
            return;
        }
        let place = checkpoints.wanting.iter().position(|wanting| *wanting == group);
        match place {
            Some(place) if presses => drop(checkpoints.wanting.remove(place)),
            Some(_) => return,
            None => {}
        }
        if presses {
            checkpoints.wanting.push_front(group);
        } else {
            checkpoints.wanting.push_back(group);
        }
    }

    /// Payloads that were applied and have rotted since need not come from a peer, which may have given them up: a checkpoint
    /// takes their place.
    pub(crate) fn cover_lost(&mut self, slot: Slot) {
        let replica = &self.replicas[slot];
        if replica.raft.missing().next().is_some_and(|missing| missing <= replica.applied) {
            self.want_checkpoint(slot, true);
        }
    }

    /// Old entries of these groups are in the way.
    pub(crate) fn log_presses(&mut self, now: Time, groups: &[GroupId]) {
        for group in groups.iter().rev() {
            let Some(slot) = self.slot_of(*group) else { continue };
            let replica = &self.replicas[slot];
            let present = replica.present.as_ref().map_or(LogId::default(), |present| present.meta.last);
            if replica.applied > present.index {
                self.want_checkpoint(slot, true);
            } else {
                self.compact_to_present(now, slot);
            }
        }
    }

    /// Begins checkpoints while there is room, and gives up those that keep too much of what was overwritten meanwhile.
    pub(crate) fn start_checkpoints(&mut self, now: Time) {
        for group in self.checkpoints.writing.clone() {
            let Some(slot) = self.slot_of(group) else { continue };
            if self.replicas[slot].machine.cut_bytes() > CHECKPOINT_BEFORE_BYTES_MAX {
                self.give_up_checkpoint(slot);
                self.checkpoint_failed(now, slot);
            }
        }
        if self.checkpoints.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.checkpoints.retry_at = None;
        for _ in 0..self.checkpoints.wanting.len() {
            if self.checkpoints.writing.len() >= CORE_CHECKPOINTS_MAX {
                break;
            }
            let Some(group) = self.checkpoints.wanting.pop_front() else { break };
            let Some(slot) = self.slot_of(group) else { continue };
            let replica = &self.replicas[slot];
            let present = replica.present.as_ref().map_or(LogId::default(), |present| present.meta.last);
            // One that was removed has no descriptor that names it, and ends soon.
            let is_removed = replica.configuration.has_removed(replica.me);
            if !replica.holds_state() || is_removed || self.snapshots.is_coming(group) {
                continue;
            }
            if replica.applied <= present.index {
                // A peer that waits for its place among the members to be applied is not forgotten.
                if self.snapshots.is_waited_for(group) {
                    self.checkpoints.wanting.push_back(group);
                }
                continue;
            }
            // A payload that has rotted since it was applied does not matter: the checkpoint takes its place.
            if !replica.raft.may_compact(replica.applied) {
                self.checkpoints.wanting.push_back(group);
                continue;
            }
            self.begin_checkpoint(slot);
        }
    }

    fn begin_checkpoint(&mut self, slot: Slot) {
        let number = self.store.draw_staging();
        let replica = &mut self.replicas[slot];
        let meta = replica.meta();
        let group = meta.group;
        replica.log_bytes = 0;
        replica.machine.begin_cut();
        let digest = crc32fast::Hasher::new();
        self.store.orders.push(StoreOrder::Begin { group, staging: number, meta: meta.clone() });
        let sessions = SessionsCut::new(&replica.sessions);
        replica.staging =
            Some(Box::new(Staging { number, meta, chunks: 0, taken: 0, digest, is_cut: false, sessions }));
        self.checkpoints.writing.push(group);
        self.cut_chunks(slot);
    }

    /// Hands the store as many chunks as it may hold, and the end behind the last one.
    fn cut_chunks(&mut self, slot: Slot) {
        let bytes_max = self.config.checkpoint.chunk_bytes;
        let early = self.config.mutated(CoreMutation::CompactBeforeStored);
        let Replica { staging: Some(staging), machine, .. } = &mut self.replicas[slot] else { return };
        let (group, number) = (staging.meta.group, staging.number);
        while !staging.is_cut && staging.chunks - staging.taken < STAGED_CHUNKS_MAX as u64 {
            let Some(bytes) = next_chunk(machine, &mut staging.sessions, bytes_max) else {
                staging.is_cut = true;
                self.store.orders.push(StoreOrder::Finish { group, staging: number, chunks: staging.chunks });
                if early {
                    let last = staging.meta.last;
                    self.early_compactions.push((group, last));
                }
                break;
            };
            staging.digest.update(&bytes);
            let chunk = ChunkNumber(staging.chunks);
            staging.chunks += 1;
            self.store.orders.push(StoreOrder::Chunk { group, staging: number, number: chunk, bytes });
        }
    }

    /// Whether an answer of the store is about the checkpoint that this replica writes.
    fn is_writing(&self, slot: Slot, number: StagingNumber) -> bool {
        self.replicas[slot].staging.as_ref().is_some_and(|staging| staging.number == number)
    }

    /// The store has taken a chunk.
    pub(crate) fn checkpoint_taken(&mut self, slot: Slot, number: StagingNumber) {
        if self.is_writing(slot, number) {
            if let Some(staging) = &mut self.replicas[slot].staging {
                staging.taken += 1;
            }
            self.cut_chunks(slot);
        }
    }

    /// The checkpoint is durable.
    pub(crate) fn checkpoint_stored(&mut self, now: Time, slot: Slot, number: StagingNumber) {
        if !self.is_writing(slot, number) {
            return;
        }
        let Some(staging) = self.replicas[slot].staging.take() else { return };
        let Staging { meta, chunks, digest, .. } = *staging;
        let group = meta.group;
        self.checkpoints.writing.retain(|writing| *writing != group);
        self.replicas[slot].present = Some(Box::new(Present { meta, chunks, digest: digest.finalize() }));
        self.compact_to_present(now, slot);
        self.offer_to_waiting(now, slot);
    }

    /// The store has given the checkpoint up.
    pub(crate) fn checkpoint_not_stored(&mut self, now: Time, slot: Slot, number: StagingNumber) {
        if self.is_writing(slot, number) {
            self.forget_staging(slot);
            self.checkpoint_failed(now, slot);
        }
    }

    fn checkpoint_failed(&mut self, now: Time, slot: Slot) {
        self.checkpoints.retry_at = Some(now + self.config.support_timeout);
        self.want_checkpoint(slot, false);
    }

    /// Ends the writing of a checkpoint, if there is one.
    pub(crate) fn give_up_checkpoint(&mut self, slot: Slot) {
        if let Some(staging) = &self.replicas[slot].staging {
            self.store.orders.push(StoreOrder::Abandon { group: staging.meta.group, staging: staging.number });
        }
        self.forget_staging(slot);
    }

    fn forget_staging(&mut self, slot: Slot) {
        let replica = &mut self.replicas[slot];
        replica.staging = None;
        replica.machine.end_cut();
        let group = replica.descriptor.group;
        self.checkpoints.writing.retain(|writing| *writing != group);
    }

    /// Gives the log up as far as the present checkpoint stands for it and no peer needs what is behind an older one.
    pub(crate) fn compact_to_present(&mut self, now: Time, slot: Slot) {
        let replica = &self.replicas[slot];
        let Some(present) = &replica.present else { return };
        let sent = self.snapshots.lowest_sent(replica.descriptor.group);
        let to = sent.map_or(present.meta.last.index, |sent| sent.index.min(present.meta.last.index));
        if replica.raft.may_compact(to) {
            self.step_replica(now, slot, RaftEvent::Compact(to));
        }
    }

    /// The bug that law 19 forbids: what is not durable elsewhere is given up.
    pub(crate) fn compact_early(&mut self, now: Time) {
        for (group, last) in std::mem::take(&mut self.early_compactions) {
            if let Some(slot) = self.slot_of(group).filter(|slot| self.replicas[*slot].raft.may_compact(last.index)) {
                self.step_replica(now, slot, RaftEvent::Compact(last.index));
            }
        }
    }
}

/// The next chunk of the replica's state: section after section.
fn next_chunk(machine: &mut crate::Kv, sessions: &mut SessionsCut, bytes_max: usize) -> Option<Bytes> {
    if machine.is_cutting()
        && let Some(chunk) = machine.next_chunk(bytes_max)
    {
        return Some(chunk);
    }
    let piece = sessions.take(bytes_max.min(SNAPSHOT_CHUNK_BYTES_MAX) - 1)?;
    Some(std::iter::once(Section::Sessions.tag()).chain(piece).collect())
}
