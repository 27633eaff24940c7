//! Groups whose next committed entry cannot be read here: each stands still alone.
//!
//! A command that this build does not read (a newer build proposed it, or it is damaged in a way that no checksum sees) must
//! not be passed over: replicas that can read it execute it, and states would differ. So the replica stops before it. It
//! leads no more and does not campaign; it votes, takes entries, answers reads that may be stale from the state that it has,
//! and asks its leader for a snapshot behind the entry (`pontoon_raft`, `raft/install.rs`). All other groups of the core go
//! on. A start tries again, so that a build that reads the entry cures it.
//!
//! A snapshot helps only until the next such entry. So a group that was cured a moment ago does not ask again at once: an old
//! build among newer ones costs a snapshot of each of its groups now and then, and not one for each command. A question may
//! get lost, or find a leader that has not applied the entry itself, so it is repeated while the replica stands still. The
//! leader goes on sending entries meanwhile.

use std::collections::BTreeMap;

use pontoon_types::{GroupId, LogId, Time};
use pontoon_wire::command::CommandError;
use pontoon_wire::peer::{SnapshotBody, SnapshotMessage};

use crate::Core;
use crate::replica::Slot;

/// How many request timeouts pass between a snapshot and the next question, if it did not help for long.
const CURE_REQUEST_TIMEOUTS: u32 = 2;

/// What a core knows of groups that stand still.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// Replicas that have just met such an entry, and whose Raft part has not heard of it yet.
    unreadable: Vec<Slot>,
    /// What they met in this turn.
    pub(crate) parked: Vec<(GroupId, LogId, CommandError)>,
    /// When a snapshot has helped.
    cured: BTreeMap<GroupId, Time>,
    /// When to ask for one.
    questions: BTreeMap<GroupId, Time>,
}

impl Quarantine {
    /// Whether the replica has just met an entry that it cannot read.
    pub(crate) fn take(&mut self, slot: Slot) -> bool {
        let place = self.unreadable.iter().position(|other| *other == slot);
        place.map(|place| self.unreadable.swap_remove(place)).is_some()
    }

    /// When there is something to do without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.questions.values().copied().min()
    }
}

impl Core {
    /// The replica has met an entry that it cannot read.
    pub(crate) fn park(&mut self, slot: Slot, entry: LogId, why: CommandError) {
        if !self.quarantine.unreadable.contains(&slot) {
            self.quarantine.unreadable.push(slot);
            let group = self.replicas[slot].descriptor.group;
            self.quarantine.parked.push((group, entry, why));
            let cure = self.config.request_timeout * CURE_REQUEST_TIMEOUTS;
            let ask_at = self.quarantine.cured.get(&group).map_or(Time(0), |at| *at + cure);
            self.quarantine.questions.insert(group, ask_at);
        }
    }

    /// A snapshot takes the place of what a replica could not read.
    pub(crate) fn cured(&mut self, now: Time, group: GroupId) {
        let patience = self.config.request_timeout * CURE_REQUEST_TIMEOUTS;
        self.quarantine.cured.retain(|_, at| now.since(*at) < patience);
        self.quarantine.cured.insert(group, now);
    }

    /// Asks the leaders of what stands still, as far as it is due.
    pub(crate) fn ask_for_cures(&mut self, now: Time) {
        if self.quarantine.deadline().is_none_or(|at| at > now) {
            return;
        }
        let mut questions = std::mem::take(&mut self.quarantine.questions);
        questions.retain(|group, at| {
            let slot = self.slot_of(*group).filter(|slot| self.replicas[*slot].is_parked());
            if let Some(slot) = slot.filter(|_| *at <= now) {
                *at = now + self.config.support_timeout;
                self.ask_for_cure(slot);
            }
            slot.is_some()
        });
        self.quarantine.questions = questions;
    }

    fn ask_for_cure(&mut self, slot: Slot) {
        let replica = &self.replicas[slot];
        let (group, from, at) = (replica.descriptor.group, replica.me, replica.applied.next());
        if let (Some(to), Some(node)) = (replica.raft.leader(), replica.leader_node()) {
            self.post_snapshot(node, SnapshotMessage { group, from, to, body: SnapshotBody::Parked { at } });
        }
    }
}
