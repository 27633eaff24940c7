//! What becomes of each replica of a survivor by a plan.
//!
//! A group that begins anew has the log of its base everywhere, with the new replica of each node, the term of the recovery and
//! the entry that names the new members behind the last one. The replica that was is dead from then on (law 11). So all
//! survivors hold the same log of the group, byte for byte of its payloads, and whichever of them is elected first, the others
//! follow.

use std::collections::BTreeMap;

use pontoon_types::{Descriptor, Entry, GroupId, HardState, LogId, Member, NodeId, ReplicaId, SnapshotMeta};

use super::{Found, GroupPlan, Plan, Recovery};

/// What becomes of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Stays,
    /// It is dead, and its node goes on with another one.
    BeginsAnew(Box<Rebirth>),
    /// It is dead, and its group goes on without its node.
    Ends,
}

/// The replica with which a group begins anew on one node. Its log is that of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebirth {
    /// Which one.
    pub replica: ReplicaId,
    /// The range with its new members.
    pub descriptor: Descriptor,
    /// Its term, in which it has not voted.
    pub hard_state: HardState,
    /// The log begins behind this entry, and none is copied. None copies what the base has.
    pub reset: Option<LogId>,
    /// The entry with the new members, behind those that are copied.
    pub entry: Entry,
    /// What the checkpoint of the base is here, if it has one.
    pub checkpoint: Option<SnapshotMeta>,
}

impl GroupPlan {
    /// What becomes of the replica on a survivor. `base` is what the base of the group has.
    pub fn fate(&self, node: NodeId, base: &Found) -> Fate {
        let Some(recovery) = self.recovery() else { return Fate::Stays };
        let Some(replica) = recovery.configuration.replica_on(node) else { return Fate::Ends };
        let descriptor = descriptor(&base.descriptor, recovery);
        let configuration = recovery.configuration.encode();
        let checkpoint = base.checkpoint.map(|last| SnapshotMeta {
            group: self.group,
            replica,
            last,
            configuration: configuration.clone(),
            descriptor: descriptor.clone(),
        });
        Fate::BeginsAnew(Box::new(Rebirth {
            replica,
            descriptor,
            hard_state: HardState { term: recovery.entry.term, vote: None },
            reset: base.is_reset.then_some(base.replica.last),
            entry: Entry::configuration(recovery.entry, configuration),
            checkpoint,
        }))
    }
}

/// The range with its new members.
fn descriptor(of_base: &Descriptor, recovery: &Recovery) -> Descriptor {
    let mut members: Vec<Member> = recovery.configuration.members().iter().map(|(member, _)| *member).collect();
    members.sort_unstable();
    Descriptor { members: members.into(), generation: recovery.generation, ..of_base.clone() }
}

impl Plan {
    /// The plans of the groups of which a survivor holds a replica.
    pub fn groups_on(&self, node: NodeId) -> impl Iterator<Item = &GroupPlan> {
        self.groups.iter().filter(move |group| group.survivors.contains_key(&node))
    }

    /// How many of them do not begin anew, so that what their replicas here have promised still binds.
    pub fn stays_on(&self, node: NodeId) -> usize {
        self.groups_on(node).filter(|group| group.recovery().is_none()).count()
    }

    /// The highest dead replica of each group that has one on a survivor, of which these were known.
    pub fn tombstones(
        &self,
        node: NodeId,
        known: impl IntoIterator<Item = (GroupId, ReplicaId)>,
    ) -> BTreeMap<GroupId, ReplicaId> {
        let ends = self.groups_on(node).filter(|group| group.recovery().is_some());
        let ends = ends.map(|group| (group.group, group.survivors[&node].replica));
        let mut tombstones: BTreeMap<GroupId, ReplicaId> = BTreeMap::new();
        for (group, dead) in known.into_iter().chain(ends) {
            let known = tombstones.entry(group).or_insert(dead);
            *known = (*known).max(dead);
        }
        tombstones
    }
}
