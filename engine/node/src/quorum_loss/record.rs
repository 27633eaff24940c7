//! What a recovery leaves in a data directory, so that it can be undone: `DIR/recovery`.
//!
//! ```text
//! DIR/recovery/record          what was done, and how far (TOML)
//! DIR/recovery/plan            what was printed before it was done
//! DIR/recovery/node            the node file as it was
//! DIR/recovery/logs/<uuid>     the logs as they were
//! DIR/recovery/store/...       the checkpoints of the groups that began anew, as they were
//! DIR/recovery/new/store/...   their new checkpoints, until they are put in their places
//! DIR/recovery/lives-cN        what each core knew of its peers' lives
//! ```
//!
//! So the pre-image is laid out like a data directory, and the tools for logs read it.
//!
//! The record is written beside its place, synced and renamed. Its phase says what may be done: while a recovery is being
//! made, or undone, a start is refused and an undo brings back what was; one that is applied lets the node start, and can be
//! undone until something was written or confirmed. Undoing and confirming end with one rename of the directory, so what is
//! called `recovery` is always all of it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pontoon_types::GroupId;
use serde::{Deserialize, Serialize};

use crate::error::DataDirError;
use crate::identity::sync_dir;

const FORMAT: u32 = 1;

/// How far a recovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It was begun and not ended, or is being undone.
    Making,
    /// It is done, and can be undone.
    Applied,
}

/// A group that began anew here, or that is not here any more because it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredRecord {
    /// The group.
    pub group: u64,
    /// The index of the entry with which it began.
    pub index: u64,
    /// There was a checkpoint in the place of its checkpoint.
    pub had_checkpoint: bool,
    /// There is a new one.
    pub has_checkpoint: bool,
}

impl RecoveredRecord {
    /// The group.
    pub fn id(&self) -> GroupId {
        GroupId(self.group)
    }
}

/// What was done to a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// How far it is.
    pub phase: Phase,
    /// The starts that the node had behind it when it was done.
    pub incarnation: u64,
    /// Groups on this node that did not begin anew and can vote as before.
    pub left_alone: u64,
    /// The new logs, hexadecimal.
    new_logs: Vec<String>,
    /// What the cores knew of their peers' lives; none if that stays.
    pub lives: Vec<String>,
    /// The groups that began anew.
    pub groups: Vec<RecoveredRecord>,
}

impl Record {
    /// A recovery that begins.
    pub fn begin(new_logs: &[u128]) -> Record {
        Record {
            format: FORMAT,
            phase: Phase::Making,
            incarnation: 0,
            left_alone: 0,
            new_logs: new_logs.iter().map(|log| format!("{log:032x}")).collect(),
            lives: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// The logs that were made.
    pub fn new_logs(&self) -> Vec<u128> {
        self.new_logs.iter().filter_map(|log| u128::from_str_radix(log, 16).ok()).collect()
    }

    /// The record in a data directory. None if no recovery is kept there.
    pub fn read(data_dir: &Path) -> Result<Option<Record>, DataDirError> {
        let path = recovery_dir(data_dir).join("record");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DataDirError::io(&path, "read", source)),
        };
        let unreadable = |why: String| DataDirError::Unreadable { path: path.clone(), why };
        let record: Record = toml::from_str(&text).map_err(|error| unreadable(error.message().to_string()))?;
        if record.format != FORMAT {
            return Err(unreadable(format!("its format {} is not one that this build knows", record.format)));
        }
        Ok(Some(record))
    }

    /// Keeps the record durably in the place of the one before.
    pub fn write(&self, data_dir: &Path) -> Result<(), DataDirError> {
        let text = toml::to_string(self).expect("law: a record can be written as TOML");
        replace_file(&recovery_dir(data_dir).join("record"), text.as_bytes())
    }
}

/// Where the pre-image of a data directory lies.
pub fn recovery_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("recovery")
}

/// Refuses to start a node whose recovery was cut short. Says if one waits to be confirmed.
pub fn check_start(data_dir: &Path) -> Result<(), DataDirError> {
    match Record::read(data_dir)?.map(|record| record.phase) {
        Some(Phase::Making) => Err(DataDirError::UnfinishedRecovery { dir: data_dir.to_path_buf() }),
        Some(Phase::Applied) => {
            tracing::warn!(
                "this node was recovered after the loss of a quorum; what it was before is kept in {} until `pontoon recover \
                 confirm`",
                recovery_dir(data_dir).display()
            );
            Ok(())
        }
        None => Ok(()),
    }
}

/// Writes a file beside its place, makes it durable, and puts it there in one step.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| DataDirError::io(&new, "write", source))?;
    std::fs::rename(&new, path).map_err(|source| DataDirError::io(path, "put in its place", source))?;
    sync_parent(path)
}

/// Makes a change of names beside `path` durable.
pub fn sync_parent(path: &Path) -> Result<(), DataDirError> {
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_its_phase_says_whether_a_node_may_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        std::fs::create_dir(recovery_dir(dir.path())).unwrap();
        check_start(dir.path()).unwrap();
        let mut record = Record::begin(&[1 << 100]);
        record.groups.push(RecoveredRecord { group: 2, index: 9, had_checkpoint: true, has_checkpoint: false });
        for (phase, may_start) in [(Phase::Making, false), (Phase::Applied, true)] {
            record.phase = phase;
            record.write(dir.path()).unwrap();
            assert_eq!(Record::read(dir.path()).unwrap().unwrap(), record);
            assert_eq!(check_start(dir.path()).is_ok(), may_start, "{phase:?}");
        }
    }

    #[test]
    fn a_record_of_a_later_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(recovery_dir(dir.path())).unwrap();
        Record { format: 2, ..Record::begin(&[]) }.write(dir.path()).unwrap();
        assert!(check_start(dir.path()).is_err_and(|error| error.to_string().contains("format 2")));
        std::fs::write(recovery_dir(dir.path()).join("record"), "phase = ").unwrap();
        assert!(check_start(dir.path()).is_err());
    }
}
