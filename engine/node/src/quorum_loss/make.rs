//! What a survivor becomes, made beside what it is.
//!
//! Every log of the node is written anew ([`pontoon_wal::transplant`]): a group that begins anew from the log of its base,
//! with the new replica of this node, the term of the recovery and the entry that names the new members behind the last one;
//! any other group as it is. The replica that was here is dead from then on, and a tombstone says so (law 11). A group that
//! goes on without this node leaves a tombstone alone. The checkpoint of the base is copied chunk by chunk under the name of
//! the new replica.
//!
//! So all survivors hold the same log of each group that begins anew, byte for byte of its payloads, and whichever of them is
//! elected first, the others follow.

use std::collections::BTreeMap;

use pontoon_router::core_of;
use pontoon_types::{
    ChunkNumber, CoreId, Creation, Descriptor, Entry, GroupId, HardState, Incarnation, LogId, Member, NodeId,
    ReplicaId, SnapshotMeta, StagingNumber,
};
use pontoon_wal::LogIdentity;
use pontoon_wal::transplant::{NewLog, Reborn, Transplant, transplant};

use super::error::RecoverError;
use super::plan::{GroupPlan, Plan, Recovery};
use super::pre_image;
use super::record::{Record, RecoveredRecord, recovery_dir};
use super::survivor::Survivor;
use crate::descriptor_record;
use crate::error::DataDirError;
use crate::identity::{Identity, log_dir, sync_dir};
use crate::rehome::draw_uuid;
use crate::store::folder::Folder;
use crate::store::stage::Stage;

/// What was made, and what the directory will be with it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) record: Record,
    pub(super) identity: Identity,
}

/// Begins the pre-image and makes everything new. Nothing of what the node uses is changed.
pub(super) fn make(all: &[Survivor], place: usize, plan: &Plan, text: &str) -> Result<Made, RecoverError> {
    let survivor = &all[place];
    let old = survivor.data_dir.identity();
    let new_logs = old.logs.iter().map(|_| draw_uuid()).collect::<Result<Vec<_>, _>>()?;
    let identity = Identity {
        incarnation: Incarnation(old.incarnation.0 + 1),
        logs: new_logs.clone(),
        nodes: old.nodes.iter().filter(|(node, _)| plan.nodes.contains(node)).copied().collect(),
        ..old.clone()
    };
    let mut record = Record::begin(&new_logs);
    let here: Vec<&GroupPlan> =
        plan.groups.iter().filter(|group| survivor.replicas.contains_key(&group.group)).collect();
    let recovered = || here.iter().filter_map(|group| Some((*group, group.recovery()?)));
    record.left_alone = (here.len() - recovered().count()) as u64;
    if record.left_alone == 0 {
        record.lives = pre_image::lives(&survivor.path)?;
    }
    record.groups = recovered().map(|(group, recovery)| record_of(all, survivor, group, recovery)).collect();
    pre_image::begin(&survivor.path, &record, text)?;
    for core in (0..new_logs.len() as u16).map(CoreId) {
        make_log(all, survivor, plan, core, new_logs[usize::from(core.0)])?;
    }
    sync_dir(&survivor.path.join("logs"))?;
    for (group, recovery) in recovered() {
        make_checkpoint(all, survivor, group, recovery)?;
    }
    Ok(Made { record, identity })
}

fn record_of(all: &[Survivor], survivor: &Survivor, group: &GroupPlan, recovery: &Recovery) -> RecoveredRecord {
    let is_member = recovery.configuration.replica_on(survivor.node()).is_some();
    let of_base = &base_of(all, group).replicas[&group.group];
    RecoveredRecord {
        group: group.group.0,
        index: recovery.entry.index.0,
        had_checkpoint: survivor.folder.path(group.group).exists(),
        has_checkpoint: is_member && of_base.checkpoint.is_some(),
    }
}

fn base_of<'a>(all: &'a [Survivor], group: &GroupPlan) -> &'a Survivor {
    all.iter().find(|survivor| survivor.node() == group.base).expect("law: the base of a group is a survivor")
}

fn make_log(all: &[Survivor], survivor: &Survivor, plan: &Plan, core: CoreId, log: u128) -> Result<(), RecoverError> {
    let old = survivor.data_dir.identity();
    let cores = old.logs.len() as u16;
    let mut tombstones: BTreeMap<GroupId, ReplicaId> = BTreeMap::new();
    let mut bury = |group: GroupId, dead: ReplicaId| {
        if core_of(group, cores) == core {
            let known = tombstones.entry(group).or_insert(dead);
            *known = (*known).max(dead);
        }
    };
    for (group, dead) in survivor.logs.iter().flat_map(|log| log.tombstones()) {
        bury(*group, *dead);
    }
    let mut parts = Vec::new();
    for group in plan.groups.iter().filter(|group| core_of(group.group, cores) == core) {
        let Some(own) = survivor.replicas.get(&group.group) else { continue };
        let Some(recovery) = group.recovery() else {
            parts.push(Transplant { from: &survivor.logs[own.log], group: group.group, reborn: None });
            continue;
        };
        bury(group.group, own.replica.replica);
        if let Some(replica) = recovery.configuration.replica_on(survivor.node()) {
            let base = base_of(all, group);
            let from = &base.logs[base.replicas[&group.group].log];
            parts.push(Transplant { from, group: group.group, reborn: Some(reborn(base, group, recovery, replica)) });
        }
    }
    let new = NewLog {
        identity: LogIdentity { cluster: old.cluster, node: old.node, log },
        // What one survivor's log holds, the others' must be able to hold.
        segment_bytes: all.iter().flat_map(|of| &of.logs).map(|log| log.segment_bytes()).max().unwrap_or_default(),
        above: survivor.logs.iter().map(|log| log.incarnation()).max().unwrap_or_default(),
        tombstones,
    };
    let dir = log_dir(&survivor.path, log);
    transplant(&dir, &new, &parts).map_err(|source| RecoverError::log(&dir, source))
}

/// The group in the new log of a survivor.
fn reborn(base: &Survivor, group: &GroupPlan, recovery: &Recovery, replica: ReplicaId) -> Reborn {
    let of_base = &base.replicas[&group.group];
    let descriptor = descriptor(&of_base.descriptor, recovery);
    Reborn {
        creation: Creation { replica, descriptor: descriptor_record::encode(&descriptor) },
        hard_state: HardState { term: recovery.entry.term, vote: None },
        reset: of_base.is_reset.then_some(of_base.replica.last),
        behind: vec![Entry::configuration(recovery.entry, recovery.configuration.encode())],
    }
}

/// The range with its new members.
fn descriptor(of_base: &Descriptor, recovery: &Recovery) -> Descriptor {
    let mut members: Vec<Member> = recovery.configuration.members().iter().map(|(member, _)| *member).collect();
    members.sort_unstable();
    Descriptor { members: members.into(), generation: recovery.generation, ..of_base.clone() }
}

/// Copies the checkpoint of the base to where the new ones wait.
fn make_checkpoint(
    all: &[Survivor],
    survivor: &Survivor,
    group: &GroupPlan,
    recovery: &Recovery,
) -> Result<(), RecoverError> {
    let base = base_of(all, group);
    let of_base = &base.replicas[&group.group];
    let replica = recovery.configuration.replica_on(survivor.node());
    let (Some(last), Some(replica)) = (of_base.checkpoint, replica) else { return Ok(()) };
    let stored = base.folder.open(group.group)?.filter(|stored| stored.meta().last == last);
    let stored = stored.ok_or_else(|| changed(base.node(), last))?;
    let meta = SnapshotMeta {
        group: group.group,
        replica,
        last,
        configuration: recovery.configuration.encode(),
        descriptor: descriptor(&of_base.descriptor, recovery),
    };
    let waiting = recovery_dir(&survivor.path).join("new");
    let failed = |source| DataDirError::io(&waiting, "write a checkpoint in", source);
    let mut folder = Folder::of(&waiting, survivor.folder.owner());
    let mut stage = Stage::begin(&mut folder, StagingNumber(1), meta).map_err(failed)?;
    for number in (0..stored.chunks()).map(ChunkNumber) {
        let chunk = stored.chunk(number)?.ok_or_else(|| changed(base.node(), last))?;
        stage.push(&chunk).map_err(failed)?;
    }
    stage.finish(&folder).map_err(failed)?;
    Ok(())
}

fn changed(base: NodeId, last: LogId) -> RecoverError {
    RecoverError::refused(format!(
        "the checkpoint of {base} at {last} is not what it was a moment ago; look for who writes there"
    ))
}
