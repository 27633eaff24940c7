//! Where the checkpoints of a node lie.
//!
//! ```text
//! DIR/store/<xx>/g<group>.ckp                the checkpoint of a group; xx is the last byte of the group's number
//! DIR/store/<xx>/g<group>-<number>.new       one that is being written; means nothing
//! ```
//!
//! Only groups that have a checkpoint have a file, and 256 directories keep each of them short.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use pontoon_types::{GroupId, StagingNumber};

use super::format::Owner;
use super::read::{CheckpointError, StoredCheckpoint};

const CHECKPOINT_SUFFIX: &str = ".ckp";
const STAGED_SUFFIX: &str = ".new";

/// The directory `DIR/store`. It begins to exist with the first checkpoint.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    owner: Owner,
    /// Directories whose names are durable for sure.
    prepared: BTreeSet<u8>,
}

/// What a directory has in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Groups with a checkpoint.
    pub groups: BTreeSet<GroupId>,
    /// Files that were left by a process that ended while it wrote them.
    pub staged: Vec<PathBuf>,
}

impl Folder {
    /// The folder of the node in `data_dir`.
    pub fn of(data_dir: &Path, owner: Owner) -> Folder {
        Folder { root: data_dir.join("store"), owner, prepared: BTreeSet::new() }
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Where the checkpoint of a group lies, if it has one.
    pub fn path(&self, group: GroupId) -> PathBuf {
        self.directory(group).join(format!("g{}{CHECKPOINT_SUFFIX}", group.0))
    }

    /// Where one that is being written lies.
    pub fn staged_path(&self, group: GroupId, staging: StagingNumber) -> PathBuf {
        self.directory(group).join(format!("g{}-{}{STAGED_SUFFIX}", group.0, staging.0))
    }

    /// The checkpoint of a group, if it has one.
    pub fn open(&self, group: GroupId) -> Result<Option<StoredCheckpoint>, CheckpointError> {
        let path = self.path(group);
        let Some(stored) = StoredCheckpoint::open(&path, self.owner)? else { return Ok(None) };
        if stored.meta().group != group {
            let what = format!("it is the checkpoint of {}", stored.meta().group);
            return Err(CheckpointError::Damaged { path, what });
        }
        Ok(Some(stored))
    }

    /// Everything in it. Files with other names are nobody's and are left alone.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for directory in entries(&self.root)? {
            let directory = directory?;
            if !directory.file_type()?.is_dir() {
                continue;
            }
            for file in entries(&directory.path())? {
                let file = file?;
                let name = file.file_name();
                let Some(name) = name.to_str() else { continue };
                if name.starts_with('g') && name.ends_with(STAGED_SUFFIX) {
                    listing.staged.push(file.path());
                } else if let Some(group) = group_of(name)
                    && self.path(group) == file.path()
                {
                    listing.groups.insert(group);
                }
            }
        }
        Ok(listing)
    }

    /// Makes sure that the directory of a group is there for good.
    pub(super) fn prepare(&mut self, group: GroupId) -> io::Result<()> {
        let (directory, of) = (self.directory(group), group.0 as u8);
        if self.prepared.contains(&of) && directory.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(&directory)?;
        // It may be there since a process that ended before it had synced this.
        sync_directory(&self.root)?;
        if let Some(data_dir) = self.root.parent().filter(|_| self.prepared.is_empty()) {
            sync_directory(data_dir)?;
        }
        self.prepared.insert(of);
        Ok(())
    }

    /// Makes the names in the directory of a group durable.
    pub(super) fn sync(&self, group: GroupId) -> io::Result<()> {
        sync_directory(&self.directory(group))
    }

    /// Removes the checkpoint of a group, durably.
    pub fn remove(&self, group: GroupId) -> io::Result<()> {
        match std::fs::remove_file(self.path(group)) {
            Ok(()) => self.sync(group),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn directory(&self, group: GroupId) -> PathBuf {
        self.root.join(format!("{:02x}", group.0 as u8))
    }
}

/// The entries of a directory; none if it is not there.
fn entries(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(entries.into_iter().flatten())
}

fn group_of(name: &str) -> Option<GroupId> {
    name.strip_prefix('g')?.strip_suffix(CHECKPOINT_SUFFIX)?.parse().ok().map(GroupId)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
