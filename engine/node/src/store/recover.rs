//! What a start does with the checkpoints: back into states, and away with what means nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use pontoon_multiraft::{Checkpoint, CheckpointBuilder};
use pontoon_types::{ChunkNumber, GroupId, ReplicaId};

use super::folder::{Folder, Listing};
use super::read::{CheckpointError, StoredCheckpoint};

/// What was found of a replica.
#[derive(Debug)]
pub enum Found {
    /// No checkpoint, or none that can be read: then that was said to the operator, and the file stays.
    Nothing,
    /// That of another replica of the group, which is not here.
    OfAnother,
    /// Its state.
    Whole(Box<Checkpoint>),
}

/// The checkpoints of a node that starts.
#[derive(Debug)]
pub struct Checkpoints {
    folder: Folder,
    listing: Listing,
}

impl Checkpoints {
    /// Looks at what is there. Changes nothing.
    pub fn look(folder: Folder) -> Result<Checkpoints, CheckpointError> {
        let listing =
            folder.list().map_err(|source| CheckpointError::Io { path: folder.root().to_path_buf(), source })?;
        Ok(Checkpoints { folder, listing })
    }

    /// Reads the state of a replica back, a chunk at a time.
    pub fn restore(&self, group: GroupId, replica: ReplicaId) -> Result<Found, CheckpointError> {
        if !self.listing.groups.contains(&group) {
            return Ok(Found::Nothing);
        }
        let restored = self.folder.open(group).and_then(|stored| match stored {
            None => Ok(Found::Nothing),
            Some(stored) if stored.meta().replica != replica => Ok(Found::OfAnother),
            Some(stored) => Ok(Found::Whole(Box::new(build(&self.folder, &stored)?))),
        });
        match restored {
            Err(error @ CheckpointError::Damaged { .. }) => {
                tracing::error!("{error}; {group} goes without it");
                Ok(Found::Nothing)
            }
            restored => restored,
        }
    }

    /// Removes what was being written when the last process ended, and checkpoints of replicas that no log of the node holds:
    /// they were destroyed, or a crash came before they began to exist. `orphans` are those of another replica of a group
    /// that is here. Called when nothing refuses the start any more. Returns the folder.
    pub fn sweep(self, here: &BTreeSet<GroupId>, orphans: &[GroupId]) -> Folder {
        let Checkpoints { folder, listing } = self;
        let failed = |path: PathBuf, error: io::Error| {
            tracing::warn!("cannot remove {}: {error}; it stays there until the next start", path.display());
        };
        for path in listing.staged {
            if let Err(error) = std::fs::remove_file(&path) {
                failed(path, error);
            }
        }
        for group in listing.groups.difference(here).chain(orphans) {
            tracing::info!("the checkpoint of {group} is that of a replica which is not here, and is removed");
            if let Err(error) = folder.remove(*group) {
                failed(folder.path(*group), error);
            }
        }
        folder
    }
}

fn build(folder: &Folder, stored: &StoredCheckpoint) -> Result<Checkpoint, CheckpointError> {
    let damaged = |what: String| CheckpointError::Damaged { path: folder.path(stored.meta().group), what };
    let mut builder = CheckpointBuilder::new();
    for number in (0..stored.chunks()).map(ChunkNumber) {
        let Some(chunk) = stored.chunk(number)? else { break };
        builder.take(&chunk).map_err(|fault| damaged(format!("chunk {}: {fault}", number.0)))?;
    }
    builder.finish(stored.meta().clone()).map_err(|fault| damaged(fault.to_string()))
}
