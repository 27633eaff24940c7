//! A survivor's data directory: taken, read, and not changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pontoon_multiraft::Configuration;
use pontoon_types::{ChunkNumber, Descriptor, Generation, GroupId, Index, LogId, NodeId};
use pontoon_wal::transplant::LogAtRest;
use pontoon_wal::{LogIdentity, RecoveredGroup, SurveyedGroup};

use super::error::RecoverError;
use super::plan::{SurvivingReplica, term_at};
use crate::descriptor_record;
use crate::error::DataDirError;
use crate::identity::DataDir;
use crate::store::folder::Folder;
use crate::store::format::Owner;
use crate::store::read::{CheckpointError, StoredCheckpoint};

/// A survivor. Its directory is taken as a node would take it, so no node runs there.
#[derive(Debug)]
pub(super) struct Survivor {
    pub(super) path: PathBuf,
    pub(super) data_dir: DataDir,
    /// The listed logs, in the order of the cores.
    pub(super) logs: Vec<LogAtRest>,
    pub(super) folder: Folder,
    pub(super) replicas: BTreeMap<GroupId, Found>,
}

/// A replica, and where it is.
#[derive(Debug)]
pub(super) struct Found {
    /// The log that holds it, by its place.
    pub(super) log: usize,
    pub(super) replica: SurvivingReplica,
    /// The newest descriptor that stands on the disk.
    pub(super) descriptor: Descriptor,
    /// The entry up to which its state is in the store, if that counts.
    pub(super) checkpoint: Option<LogId>,
    /// The log does not hold the checkpoint, so it begins anew behind it (law 18).
    pub(super) is_reset: bool,
}

impl Survivor {
    /// Takes a directory and reads everything in it that counts.
    pub(super) fn open(path: &Path) -> Result<Survivor, RecoverError> {
        let data_dir = DataDir::open(path)?;
        let identity = data_dir.identity();
        let logs = identity.logs.iter().map(|log| {
            let dir = data_dir.log_dir(*log);
            if !dir.is_dir() {
                return Err(DataDirError::MissingLog { path: dir }.into());
            }
            let at_rest = LogAtRest::read(&dir).map_err(|source| RecoverError::log(&dir, source))?;
            let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: *log };
            if at_rest.identity() == whose {
                return Ok(at_rest);
            }
            let why = format!("it holds log {:032x} of node {}", at_rest.identity().log, at_rest.identity().node);
            Err(RecoverError::from(DataDirError::Unreadable { path: dir, why }))
        });
        let logs = logs.collect::<Result<Vec<_>, RecoverError>>()?;
        let folder = Folder::of(path, Owner { cluster: identity.cluster, node: identity.node });
        let mut survivor = Survivor { path: path.to_path_buf(), logs, folder, replicas: BTreeMap::new(), data_dir };
        for place in 0..survivor.logs.len() {
            for (group, kept) in survivor.logs[place].groups() {
                let found = survivor.find(place, group, &kept)?;
                survivor.replicas.insert(group, found);
            }
        }
        Ok(survivor)
    }

    /// Which node it is.
    pub(super) fn node(&self) -> NodeId {
        self.data_dir.identity().node
    }

    fn find(&self, log: usize, group: GroupId, kept: &RecoveredGroup) -> Result<Found, RecoverError> {
        let dir = self.data_dir.log_dir(self.data_dir.identity().logs[log]);
        let unreadable = || DataDirError::Descriptor { path: dir.clone(), group };
        let created = descriptor_record::decode(&kept.descriptor).ok_or_else(unreadable)?;
        let surveyed = self.logs[log].survey(group).map_err(|source| RecoverError::log(&dir, source))?;
        let stored = self.checkpoint(group, kept)?;
        let settled = stored.as_ref().map_or(kept.compacted, |stored| stored.meta().last);
        let is_reset = term_at(kept.compacted, &surveyed.starts, kept.last.index, settled.index) != Some(settled.term);
        let last = if is_reset { settled } else { kept.last };
        let founders = match &stored {
            Some(stored) => Configuration::decode(&stored.meta().configuration).ok(),
            None => Configuration::of_voters(created.members.iter().copied()).ok(),
        };
        let founders = founders.ok_or_else(unreadable)?;
        let behind = |index: Index| !is_reset && index > settled.index;
        let (configurations, are_known) = configurations(founders, &surveyed, behind);
        let rotten = surveyed.lost.iter().filter(|id| behind(id.index)).collect::<Vec<_>>();
        let unusable = if stored.is_none() && kept.compacted.index > Index(0) {
            Some(format!("its state up to {} is lost: there is no checkpoint that can be read", kept.compacted))
        } else if let Some(first) = rotten.first() {
            Some(format!("the payloads of {} entries are rotten, the first is {first}", rotten.len()))
        } else {
            (!are_known).then(|| "an entry that names its members cannot be read".to_string())
        };
        let descriptor = stored.as_ref().map_or(created, |stored| stored.meta().descriptor.clone());
        let changes = surveyed.configurations.len() as u64;
        let replica = SurvivingReplica {
            replica: kept.replica,
            hard_state: kept.hard_state,
            vote_lost: kept.vote_lost,
            committed: settled,
            compacted: if is_reset { settled } else { kept.compacted },
            starts: if is_reset { Vec::new() } else { surveyed.starts },
            last,
            configurations,
            generation: Generation(descriptor.generation.0.saturating_add(changes)),
            unusable,
        };
        let checkpoint = stored.map(|stored| stored.meta().last);
        Ok(Found { log, replica, descriptor, checkpoint, is_reset })
    }

    /// The checkpoint of a replica, if it is whole and of use, with every chunk of it.
    fn checkpoint(&self, group: GroupId, kept: &RecoveredGroup) -> Result<Option<StoredCheckpoint>, RecoverError> {
        let counts = |stored: &StoredCheckpoint| {
            stored.meta().replica == kept.replica && stored.meta().last.index >= kept.compacted.index
        };
        let read = |stored: StoredCheckpoint| {
            (0..stored.chunks()).try_for_each(|number| stored.chunk(ChunkNumber(number)).map(drop)).map(|()| stored)
        };
        match self.folder.open(group).and_then(|stored| stored.filter(counts).map(read).transpose()) {
            Err(CheckpointError::Damaged { .. }) => Ok(None),
            stored => Ok(stored?),
        }
    }
}

/// The configurations that may be in force, the oldest first, and whether all that stand there can be read.
fn configurations(
    founders: Configuration,
    surveyed: &SurveyedGroup,
    behind: impl Fn(Index) -> bool,
) -> (Vec<Configuration>, bool) {
    let named = surveyed.configurations.iter().filter(|entry| behind(entry.id.index));
    let named: Vec<_> = named.map(|entry| Configuration::decode(&entry.payload).ok()).collect();
    let are_known = named.iter().all(Option::is_some);
    (std::iter::once(founders).chain(named.into_iter().flatten()).collect(), are_known)
}
