//! Snapshots: how a replica that cannot go on from entries gets a state, and how one comes to life.
//!
//! ```text
//!  leader                                              receiver
//!  NeedsSnapshot, or Wanted ◀───────────────────────── (nothing here that entries could go on from)
//!  Offer: last, members, chunks, digest ─────────────▶ is it of use? (laws 18 and 21)
//!                                       ◀───────────── Credit: send from here up to there
//!  store: Read ─▶ Chunk, Chunk ──────────────────────▶ store: Begin, Chunk, Chunk … Finish
//!                                       ◀───────────── Credit, as the store takes them
//!                                                      Stored: this is the checkpoint now
//!                                                      log reset ─▶ durable
//!  goes on with entries ◀───────────────────────────── AppendResponse
//! ```
//!
//! Never more than a few chunks are in memory: the sender reads as many as it has credit for, the receiver has one
//! budget for its core and grants from it, repairs before new replicas. What has arrived stays: when a link is lost, or
//! another leader has the same checkpoint, the transfer goes on with the next chunk that is missing. The frame
//! checks each chunk, and all together have a digest that the offer names.
//!
//! - `outgoing`: the sender's side
//! - `incoming`: the receiver's side
//! - `install`: the state of a snapshot, or a new replica, from what the store holds
//! - `destroy`: the end of a replica that was removed
//!
//! A replica comes to life in one way: a snapshot addressed to it was stored whole (law 21). Until then nothing of it is there
//! but what was staged, so it cannot vote or answer anything but that it wants a snapshot.

mod destroy;
mod incoming;
mod install;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet};

use pontoon_types::{
    GroupId, Index, LogId, NodeId, ReadNumber, ReplicaId, StagingNumber, StoreAnswer, StoreOrder, Time,
};
use pontoon_wire::peer::{SnapshotBody, SnapshotMessage};

use crate::Core;
use incoming::Incoming;
pub(crate) use install::Loading;
use outgoing::Outgoing;

/// What a core orders from its store.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) orders: Vec<StoreOrder>,
    last_staging: StagingNumber,
    last_read: ReadNumber,
}

impl Store {
    pub(crate) fn draw_staging(&mut self) -> StagingNumber {
        self.last_staging = StagingNumber(self.last_staging.0 + 1);
        self.last_staging
    }

    pub(crate) fn draw_read(&mut self) -> ReadNumber {
        self.last_read = ReadNumber(self.last_read.0 + 1);
        self.last_read
    }
}

/// All snapshots on their way.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    outgoing: BTreeMap<(GroupId, ReplicaId), Outgoing>,
    incoming: BTreeMap<GroupId, Incoming>,
    /// Peers that need a snapshot which there is none for yet.
    waiting: BTreeSet<(GroupId, ReplicaId)>,
    /// Peers that take entries and cannot read this one.
    parked: BTreeMap<(GroupId, ReplicaId), Index>,
    /// The last snapshot that a peer did not want any more, and when it said so.
    unwanted: BTreeMap<(GroupId, ReplicaId), (LogId, Time)>,
    /// Numbers the arrivals of offers.
    arrivals: u64,
    review_at: Option<Time>,
    /// Replicas that end with the next turn.
    doomed: Vec<(GroupId, ReplicaId)>,
    /// Replicas that end with this turn.
    ending: Vec<(GroupId, ReplicaId)>,
}

impl Snapshots {
    /// Whether the group is being given a snapshot.
    pub(crate) fn is_coming(&self, group: GroupId) -> bool {
        self.incoming.contains_key(&group)
    }

    /// Whether the group is being given a snapshot by that node.
    pub(crate) fn is_coming_from(&self, group: GroupId, node: NodeId) -> bool {
        self.incoming.get(&group).is_some_and(|incoming| incoming.node == node)
    }

    /// Whether a peer waits for a checkpoint of the group.
    pub(crate) fn is_waited_for(&self, group: GroupId) -> bool {
        self.waiting.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX))).next().is_some()
    }

    /// The oldest snapshot of the group that is being sent.
    pub(crate) fn lowest_sent(&self, group: GroupId) -> Option<LogId> {
        let of_group = self.outgoing.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX)));
        of_group.map(|(_, outgoing)| outgoing.last).min()
    }

    /// When there is something to do without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        if self.doomed.is_empty() && self.ending.is_empty() { self.review_at } else { Some(Time(0)) }
    }
}

impl Core {
    /// The store answers.
    pub(crate) fn store_answered(&mut self, now: Time, answer: StoreAnswer) {
        let slot = self.slot_of(answer.group());
        match answer {
            StoreAnswer::Taken { group, staging, .. } => {
                self.snapshot_taken(now, group, staging);
                slot.into_iter().for_each(|slot| self.checkpoint_taken(slot, staging));
            }
            StoreAnswer::Stored { group, staging, .. } => {
                self.snapshot_stored(now, group, staging);
                slot.into_iter().for_each(|slot| self.checkpoint_stored(now, slot, staging));
            }
            StoreAnswer::Failed { group, staging, .. } => {
                self.snapshot_not_stored(now, group, staging);
                slot.into_iter().for_each(|slot| self.checkpoint_not_stored(now, slot, staging));
            }
            StoreAnswer::Read { group, read, number, result } => {
                if slot.is_some_and(|slot| self.is_loading(slot, read)) {
                    slot.into_iter().for_each(|slot| self.loaded(now, slot, number, result.clone()));
                } else {
                    self.chunk_read(group, read, number, result);
                }
            }
        }
    }

    /// Transfers that do not move are looked at several times in the time for which a silent peer is supported.
    fn review_snapshots_soon(&mut self, now: Time) {
        let at = now + self.config.support_timeout / 4;
        self.snapshots.review_at.get_or_insert(at);
    }

    /// Looks at what does not move.
    pub(crate) fn review_snapshots(&mut self, now: Time) {
        if self.snapshots.review_at.is_none_or(|at| at > now) {
            return;
        }
        self.snapshots.review_at = None;
        self.review_outgoing(now);
        self.review_incoming(now);
        if !self.snapshots.outgoing.is_empty() || !self.snapshots.incoming.is_empty() {
            self.review_snapshots_soon(now);
        }
    }

    /// A peer says something about a snapshot.
    pub(crate) fn receive_snapshot(&mut self, now: Time, from: NodeId, message: SnapshotMessage) {
        let SnapshotMessage { group, from: sender, to, body } = message;
        if let Some(slot) = self.slot_of(group) {
            self.tell_gone(from, slot, sender);
        }
        match body {
            SnapshotBody::Wanted => self.hear_wanted(now, from, (group, sender, to)),
            SnapshotBody::Parked { at } => self.hear_parked(now, from, (group, sender, to), at),
            SnapshotBody::Offer(offer) => self.hear_offer(now, from, (group, sender, to), *offer),
            SnapshotBody::Chunk { last, number, bytes } => self.hear_chunk(now, from, (group, to), last, number, bytes),
            SnapshotBody::Credit { last, next, through } => {
                self.hear_credit(now, from, (group, sender, to), last, next, through)
            }
            SnapshotBody::Unwanted { last } => self.hear_unwanted(now, from, (group, sender), last),
            SnapshotBody::Gone => self.hear_gone(group, to),
        }
    }

    /// Says something about a snapshot. To a peer that takes no messages nothing is said.
    pub(crate) fn post_snapshot(&mut self, node: NodeId, message: SnapshotMessage) {
        if let Some(peer) = self.peer_of(node)
            && self.peers[peer].takes_messages()
        {
            self.peers[peer].outbox.snapshots.push(message);
        }
    }
}
