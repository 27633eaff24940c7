//! A survivor's data directory: taken, read, and not changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pontoon_multiraft::quorum_loss::{Found, Held, counts};
use pontoon_types::{ChunkNumber, GroupId, NodeId};
use pontoon_wal::transplant::LogAtRest;
use pontoon_wal::{LogIdentity, RecoveredGroup};

use super::error::RecoverError;
use crate::descriptor_record;
use crate::error::DataDirError;
use crate::identity::DataDir;
use crate::ledger;
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
    /// Whether its peers have refused it (law 12): nothing on it votes as long as it remembers that.
    is_refused: bool,
    pub(super) replicas: BTreeMap<GroupId, Located>,
}

/// A replica, and where it is.
#[derive(Debug)]
pub(super) struct Located {
    /// The log that holds it, by its place.
    pub(super) log: usize,
    pub(super) found: Found,
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
        let (path, is_refused) = (path.to_path_buf(), ledger::was_refused(path)?);
        let mut survivor = Survivor { path, logs, folder, is_refused, replicas: BTreeMap::new(), data_dir };
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

    fn find(&self, log: usize, group: GroupId, kept: &RecoveredGroup) -> Result<Located, RecoverError> {
        let dir = self.data_dir.log_dir(self.data_dir.identity().logs[log]);
        let unreadable = || DataDirError::Descriptor { path: dir.clone(), group };
        let created = descriptor_record::decode(&kept.descriptor).ok_or_else(unreadable)?;
        let surveyed = self.logs[log].survey(group).map_err(|source| RecoverError::log(&dir, source))?;
        let held = Held {
            replica: kept.replica,
            created,
            hard_state: kept.hard_state,
            vote_lost: kept.vote_lost || self.is_refused,
            compacted: kept.compacted,
            last: kept.last,
            noted: kept.committed,
            starts: surveyed.starts,
            configurations: surveyed.configurations,
            rotten: surveyed.lost,
            checkpoint: self.checkpoint(group, kept)?.map(|stored| stored.meta().clone()),
        };
        Ok(Located { log, found: Found::of(held).ok_or_else(unreadable)? })
    }

    /// The checkpoint of a replica, if it is whole and of use, with every chunk of it.
    fn checkpoint(&self, group: GroupId, kept: &RecoveredGroup) -> Result<Option<StoredCheckpoint>, RecoverError> {
        let counts = |stored: &StoredCheckpoint| counts(stored.meta(), kept.replica, kept.compacted);
        let read = |stored: StoredCheckpoint| {
            (0..stored.chunks()).try_for_each(|number| stored.chunk(ChunkNumber(number)).map(drop)).map(|()| stored)
        };
        match self.folder.open(group).and_then(|stored| stored.filter(counts).map(read).transpose()) {
            Err(CheckpointError::Damaged { .. }) => Ok(None),
            stored => Ok(stored?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pontoon_multiraft::Ledger;
    use pontoon_types::CoreId;

    use crate::init::{InitPlan, init};
    use crate::ledger::LedgerFile;

    #[test]
    fn nothing_votes_on_a_survivor_that_was_refused() {
        let place = tempfile::tempdir().unwrap();
        let dirs: Vec<PathBuf> = (1..=3).map(|node| place.path().join(format!("n{node}"))).collect();
        let nodes = dirs
            .iter()
            .zip(1..)
            .map(|(dir, node)| (NodeId(node), dir.clone(), ([127, 0, 0, 1], 7400 + node as u16).into()));
        let log =
            pontoon_wal::Options { segment_bytes: 1 << 20, max_log_bytes: 8 << 20, ..pontoon_wal::Options::default() };
        init(&InitPlan { nodes: nodes.collect(), ranges: 2, cores: 1, log }).unwrap();
        for (dir, refused) in [(&dirs[0], true), (&dirs[1], false)] {
            let (mut file, _) = LedgerFile::open(dir, CoreId(0)).unwrap();
            file.write(&Ledger { refused, ..Ledger::default() }).unwrap();
        }
        let votes_lost = |dir: &PathBuf| -> Vec<bool> {
            let survivor = Survivor::open(dir).unwrap();
            survivor.replicas.values().map(|located| located.found.replica.vote_lost).collect()
        };
        assert_eq!([0, 1, 2].map(|node| votes_lost(&dirs[node])), [[true; 2], [false; 2], [false; 2]]);
    }
}
