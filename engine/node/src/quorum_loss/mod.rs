//! Groups that begin anew with the survivors, when a quorum of their members is lost for good. Offline: every node that
//! survives is stopped, and its data directory is taken.
//!
//! ```text
//! open     take the directories of the survivors, read their logs and checkpoints      survivor
//! plan     for each group: which log, which members, what may be missing               pontoon_multiraft::quorum_loss
//! make     new logs and checkpoints beside the old ones                                make
//! commit   put them in their places, the old ones into DIR/recovery                    pre_image, record
//!          ... start the nodes, look at the data ...
//! confirm  remove DIR/recovery            undo     bring back what was, to the byte
//! ```
//!
//! What is decided, and how each replica begins anew, stands in the pure core, where the simulator does it too; here are
//! directories, files and the way back.
//!
//! `docs/RECOVERY.md` is for the operator, decision 0006 has the reasons.
//!
//! # Laws
//!
//! - A group that can decide without the lost members is never touched in what it is.
//! - A survivor goes on under a replica that never was, one million above every one that it has heard of, in a term as far
//!   above. So nothing that a lost member ever sent, or sends when it comes back, is for it (law 11); no entry of before and
//!   no entry of after have the same identity; and the replicas that were are dead here.
//! - A node that no group needs any more is not in the node file any more: its links are refused.
//! - Nothing that a node uses is changed until everything new is durable, and everything old is kept until it is confirmed.
//!
//! # Left out
//!
//! Members that are lost can not be told. If so many of them come back that they are a quorum without the survivors, they go
//! on where they were, apart. A payload that is rotten in the most complete log is not looked for in the others. New members
//! in the place of the lost: those come later, by membership changes.

mod error;
mod make;
mod pre_image;
mod record;
mod survivor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pontoon_types::ids::FIRST_RANGE_GROUP;
use pontoon_types::{Entry, EntryKind, GroupId, Index, NodeId};
use pontoon_wal::transplant::LogAtRest;

pub use error::RecoverError;
pub use pontoon_multiraft::quorum_loss as plan;
pub use record::{check_start, recovery_dir};

use crate::identity::{DataDir, Identity};
use crate::store::folder::Folder;
use crate::store::format::Owner;
use make::{Made, make};
use plan::{Plan, Rules, SurvivingReplica};
use record::{Phase, Record};
use survivor::Survivor;

/// The survivors of a cluster, taken.
#[derive(Debug)]
pub struct Survivors {
    survivors: Vec<Survivor>,
}

impl Survivors {
    /// Takes these directories and reads them. Nothing in them is changed.
    pub fn open(dirs: &[PathBuf]) -> Result<Survivors, RecoverError> {
        let mut survivors: Vec<Survivor> = Vec::new();
        for dir in dirs {
            check_unfinished(dir)?;
            let survivor = Survivor::open(dir)?;
            if let Some(other) = survivors.iter().find(|other| !are_peers(other, &survivor)) {
                return Err(RecoverError::refused(format!(
                    "{} and {} are not two nodes of one cluster with the same number of cores",
                    other.path.display(),
                    dir.display()
                )));
            }
            survivors.push(survivor);
        }
        if survivors.is_empty() {
            return Err(RecoverError::refused("name the data directories of the survivors"));
        }
        survivors.sort_by_key(Survivor::node);
        Ok(Survivors { survivors })
    }

    /// What would be done.
    pub fn plan(&self) -> Plan {
        let first = self.survivors[0].data_dir.identity();
        let initial = (FIRST_RANGE_GROUP.0..).take(first.ranges as usize).map(GroupId);
        let nodes: BTreeSet<NodeId> =
            self.survivors.iter().flat_map(|of| &of.data_dir.identity().nodes).map(|(node, _)| *node).collect();
        let replicas = |survivor: &Survivor| -> BTreeMap<GroupId, SurvivingReplica> {
            survivor.replicas.iter().map(|(group, at)| (*group, at.found.replica.clone())).collect()
        };
        let survivors = self.survivors.iter().map(|survivor| (survivor.node(), replicas(survivor))).collect();
        Plan::for_survivors(&Rules::default(), first.cluster, &nodes, initial, survivors)
    }

    /// Does it, in all directories. `text` is kept beside what was before. An error before the first directory was changed
    /// leaves all of them as they were; one behind that says so, and all of them can be undone.
    pub fn apply(mut self, plan: &Plan, text: &str) -> Result<(), RecoverError> {
        if plan.groups.iter().all(|group| group.recovery().is_none()) {
            return Err(RecoverError::refused("no group is to be recovered; nothing was changed"));
        }
        let made = (0..self.survivors.len()).map(|place| make(&self.survivors, place, plan, text));
        let made = match made.collect::<Result<Vec<Made>, RecoverError>>() {
            Ok(made) => made,
            Err(error) => {
                for survivor in &self.survivors {
                    take_back(survivor)?;
                }
                return Err(error);
            }
        };
        for (survivor, Made { record, identity }) in self.survivors.iter_mut().zip(made) {
            let Survivor { path, data_dir, folder, .. } = survivor;
            pre_image::commit(path, data_dir, folder, identity, record)?;
        }
        Ok(())
    }
}

/// Brings back what these directories were before their recovery, if nothing was written since. All are looked at before the
/// first is changed. Returns which nodes they are.
pub fn undo(dirs: &[PathBuf]) -> Result<Vec<NodeId>, RecoverError> {
    let mut taken = Vec::new();
    for dir in dirs {
        let data_dir = DataDir::open(dir)?;
        let record = kept_record(dir)?;
        if record.phase == Phase::Applied {
            check_unwritten(dir, &data_dir, &record)?;
        }
        taken.push((dir, data_dir, record));
    }
    let mut nodes = Vec::new();
    for (dir, data_dir, record) in taken {
        let identity = data_dir.identity();
        nodes.push(identity.node);
        pre_image::undo(dir, &data_dir, &folder_of(dir, identity), record)?;
    }
    Ok(nodes)
}

/// Lets go of what these directories were before their recovery. Returns which nodes they are.
pub fn confirm(dirs: &[PathBuf]) -> Result<Vec<NodeId>, RecoverError> {
    for dir in dirs {
        if kept_record(dir)?.phase != Phase::Applied {
            return Err(RecoverError::refused(unfinished(dir)));
        }
    }
    let mut nodes = Vec::new();
    for dir in dirs {
        nodes.push(DataDir::look(dir)?.node);
        pre_image::confirm(dir)?;
    }
    Ok(nodes)
}

fn folder_of(dir: &Path, identity: &Identity) -> Folder {
    Folder::of(dir, Owner { cluster: identity.cluster, node: identity.node })
}

fn kept_record(dir: &Path) -> Result<Record, RecoverError> {
    let none =
        || RecoverError::refused(format!("{} keeps no recovery: there is nothing to undo or confirm", dir.display()));
    Record::read(dir)?.ok_or_else(none)
}

fn unfinished(dir: &Path) -> String {
    format!("a recovery of {} was cut short; undo it with `pontoon recover undo`, then do it again", dir.display())
}

/// A second recovery would take the pre-image of the first for what was.
fn check_unfinished(dir: &Path) -> Result<(), RecoverError> {
    match Record::read(dir)?.map(|record| record.phase) {
        None => Ok(()),
        Some(Phase::Making) => Err(RecoverError::refused(unfinished(dir))),
        Some(Phase::Applied) => Err(RecoverError::refused(format!(
            "{} was recovered before, and what it was is still kept; confirm or undo that first",
            dir.display()
        ))),
    }
}

fn are_peers(one: &Survivor, other: &Survivor) -> bool {
    let (one, other) = (one.data_dir.identity(), other.data_dir.identity());
    one.cluster == other.cluster && one.node != other.node && one.logs.len() == other.logs.len()
}

/// Takes back what was made in a directory of which nothing was changed.
fn take_back(survivor: &Survivor) -> Result<(), RecoverError> {
    if let Some(record) = Record::read(&survivor.path)? {
        pre_image::undo(&survivor.path, &survivor.data_dir, &survivor.folder, record)?;
    }
    Ok(())
}

/// Refuses to undo what somebody relies on: writes that were acknowledged since, and votes of groups that go on as they were.
fn check_unwritten(dir: &Path, data_dir: &DataDir, record: &Record) -> Result<(), RecoverError> {
    let identity = data_dir.identity();
    if identity.incarnation.0 == record.incarnation {
        return Ok(());
    }
    let refuse = |why: String| Err(RecoverError::refused(format!("{} was started since, and {why}", dir.display())));
    if record.left_alone > 0 {
        return refuse(format!(
            "{} of its groups, which the recovery left alone, may have voted and written: nothing is undone",
            record.left_alone
        ));
    }
    let logs = identity.logs.iter().map(|log| {
        let path = data_dir.log_dir(*log);
        LogAtRest::read(&path).map_err(|source| RecoverError::log(&path, source))
    });
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    for of in &record.groups {
        let group = of.id();
        let Some((log, kept)) = logs.iter().find_map(|log| Some((log, log.groups().remove(&group)?))) else { continue };
        let mut written = 0;
        let count = &mut |entry: Entry, is_intact: bool| {
            let is_command = entry.kind == EntryKind::Command && !entry.payload.is_empty();
            written += u64::from(is_command || !is_intact);
        };
        log.each_entry(group, Index(of.index), count).map_err(|source| RecoverError::log(dir, source))?;
        if written > 0 || kept.compacted.index > Index(of.index) {
            return refuse(format!("{group} has taken writes, which an undo would lose: nothing is undone"));
        }
    }
    Ok(())
}
