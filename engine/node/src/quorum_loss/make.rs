//! What a survivor becomes, made beside what it is.
//!
//! Every log of the node is written anew ([`pontoon_wal::transplant`]), each group as its fate says: from the log of its base,
//! or as it is, or not at all. Tombstones say which replicas are dead. The checkpoint of the base is copied chunk by chunk
//! under the name of the new replica.

use pontoon_router::core_of;
use pontoon_types::{ChunkNumber, CoreId, Creation, GroupId, Incarnation, LogId, NodeId, StagingNumber};
use pontoon_wal::LogIdentity;
use pontoon_wal::transplant::{NewLog, Reborn, Transplant, transplant};

use super::error::RecoverError;
use super::plan::{Fate, GroupPlan, Plan, Rebirth};
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
    let recovered = || plan.groups_on(survivor.node()).filter(|group| group.recovery().is_some());
    record.left_alone = plan.stays_on(survivor.node()) as u64;
    if record.left_alone == 0 {
        record.lives = pre_image::lives(&survivor.path)?;
    }
    record.groups = recovered().filter_map(|group| record_of(all, survivor, group)).collect();
    pre_image::begin(&survivor.path, &record, text)?;
    for core in (0..new_logs.len() as u16).map(CoreId) {
        make_log(all, survivor, plan, core, new_logs[usize::from(core.0)])?;
    }
    sync_dir(&survivor.path.join("logs"))?;
    for group in recovered() {
        make_checkpoint(all, survivor, group)?;
    }
    Ok(Made { record, identity })
}

fn record_of(all: &[Survivor], survivor: &Survivor, group: &GroupPlan) -> Option<RecoveredRecord> {
    let stored = match fate(all, survivor, group) {
        Fate::BeginsAnew(rebirth) => rebirth.checkpoint,
        Fate::Ends | Fate::Stays => None,
    };
    Some(RecoveredRecord {
        group: group.group.0,
        index: group.recovery()?.entry.index.0,
        had_checkpoint: survivor.folder.path(group.group).exists(),
        has_checkpoint: stored.is_some(),
    })
}

fn fate(all: &[Survivor], survivor: &Survivor, group: &GroupPlan) -> Fate {
    group.fate(survivor.node(), &base_of(all, group).replicas[&group.group].found)
}

fn base_of<'a>(all: &'a [Survivor], group: &GroupPlan) -> &'a Survivor {
    all.iter().find(|survivor| survivor.node() == group.base).expect("law: the base of a group is a survivor")
}

fn make_log(all: &[Survivor], survivor: &Survivor, plan: &Plan, core: CoreId, log: u128) -> Result<(), RecoverError> {
    let old = survivor.data_dir.identity();
    let cores = old.logs.len() as u16;
    let is_here = |group: GroupId| core_of(group, cores) == core;
    let known = survivor.logs.iter().flat_map(|log| log.tombstones()).map(|(group, dead)| (*group, *dead));
    let mut tombstones = plan.tombstones(survivor.node(), known);
    tombstones.retain(|group, _| is_here(*group));
    let mut parts = Vec::new();
    for group in plan.groups_on(survivor.node()).filter(|group| is_here(group.group)) {
        let id = group.group;
        match fate(all, survivor, group) {
            Fate::Stays => {
                let from = &survivor.logs[survivor.replicas[&id].log];
                parts.push(Transplant { from, group: id, reborn: None });
            }
            Fate::BeginsAnew(rebirth) => {
                let base = base_of(all, group);
                let from = &base.logs[base.replicas[&id].log];
                parts.push(Transplant { from, group: id, reborn: Some(reborn(*rebirth)) });
            }
            Fate::Ends => {}
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
fn reborn(rebirth: Rebirth) -> Reborn {
    Reborn {
        creation: Creation { replica: rebirth.replica, descriptor: descriptor_record::encode(&rebirth.descriptor) },
        hard_state: rebirth.hard_state,
        reset: rebirth.reset,
        behind: vec![rebirth.entry],
    }
}

/// Copies the checkpoint of the base to where the new ones wait.
fn make_checkpoint(all: &[Survivor], survivor: &Survivor, group: &GroupPlan) -> Result<(), RecoverError> {
    let Fate::BeginsAnew(rebirth) = fate(all, survivor, group) else { return Ok(()) };
    let Some(meta) = rebirth.checkpoint else { return Ok(()) };
    let (base, last) = (base_of(all, group), meta.last);
    let stored = base.folder.open(group.group)?.filter(|stored| stored.meta().last == last);
    let stored = stored.ok_or_else(|| changed(base.node(), last))?;
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
