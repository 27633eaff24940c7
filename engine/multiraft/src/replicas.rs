//! The replicas of a core.
//!
//! Each has a slot, which stays the same as long as it lives: timers, reads, and writes on their way name it. A slot is
//! given to another replica only when nothing names it any more (`destroy`). Slots are in no order; what goes over groups in
//! their order asks for it here.
//!
//! A checker that looked at every replica after every turn would make a turn cost what the core has in groups. So the core
//! can note which replicas were lent out to be changed: all others are what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut, RangeBounds};

use pontoon_types::GroupId;

use crate::replica::{Replica, Slot};

/// Replicas by slot and by group.
///
/// Invariants: `order` names each group once, with the slot that holds its replica; `free` names the empty slots.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    slots: Vec<Option<Replica>>,
    order: BTreeMap<GroupId, Slot>,
    free: Vec<Slot>,
    /// The slots that were lent out to be changed, as often as they were, since the checker asked. None without a checker.
    touched: Option<Vec<Slot>>,
}

impl Replicas {
    /// No replica yet, and room for so many. `watched` if a checker asks for those that were touched.
    pub(crate) fn with_capacity(replicas: usize, watched: bool) -> Replicas {
        let touched = watched.then(Vec::new);
        Replicas { slots: Vec::with_capacity(replicas), touched, ..Replicas::default() }
    }

    /// Takes in a replica of a group that is not there.
    pub(crate) fn insert(&mut self, replica: Replica) -> Slot {
        let group = replica.descriptor.group;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(replica);
                slot
            }
            None => {
                self.slots.push(Some(replica));
                self.slots.len() - 1
            }
        };
        let before = self.order.insert(group, slot);
        assert!(before.is_none(), "law 11: a core has one replica of {group}");
        self.touch(slot);
        slot
    }

    /// Takes a replica out. Nothing must name its slot any more.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Replica> {
        let replica = self.slots[slot].take()?;
        self.order.remove(&replica.descriptor.group);
        self.free.push(slot);
        Some(replica)
    }

    /// The replica in a slot that may be empty.
    pub(crate) fn get(&self, slot: Slot) -> Option<&Replica> {
        self.slots.get(slot)?.as_ref()
    }

    /// The slot of a group's replica.
    pub(crate) fn slot_of(&self, group: GroupId) -> Option<Slot> {
        self.order.get(&group).copied()
    }

    /// How many slots there are, empty ones included.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    fn touch(&mut self, slot: Slot) {
        if let Some(touched) = &mut self.touched
            && touched.last() != Some(&slot)
        {
            touched.push(slot);
        }
    }

    /// The groups whose replicas may have changed since this was asked last, in their order. None without a checker.
    pub(crate) fn take_touched(&mut self) -> Vec<GroupId> {
        let touched = self.touched.as_mut().map(std::mem::take).unwrap_or_default();
        let groups: BTreeSet<GroupId> =
            touched.into_iter().filter_map(|slot| self.get(slot)).map(|replica| replica.descriptor.group).collect();
        groups.into_iter().collect()
    }

    /// All replicas in the order of their groups.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.range(..).map(|(_, slot)| &self[slot])
    }

    /// The groups of an interval in their order, with their slots.
    pub(crate) fn range(&self, groups: impl RangeBounds<GroupId>) -> impl Iterator<Item = (GroupId, Slot)> + '_ {
        self.order.range(groups).map(|(group, slot)| (*group, *slot))
    }
}

impl Index<Slot> for Replicas {
    type Output = Replica;

    fn index(&self, slot: Slot) -> &Replica {
        self.slots[slot].as_ref().expect("law: a slot that is named holds a replica")
    }
}

impl IndexMut<Slot> for Replicas {
    fn index_mut(&mut self, slot: Slot) -> &mut Replica {
        self.touch(slot);
        self.slots[slot].as_mut().expect("law: a slot that is named holds a replica")
    }
}
