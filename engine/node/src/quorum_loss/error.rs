//! Why a recovery after the loss of a quorum was not planned, done or undone.

use std::path::{Path, PathBuf};

use pontoon_wal::LogError;

use crate::error::DataDirError;
use crate::store::read::CheckpointError;

/// Why nothing was planned, done or undone. What had been begun in a directory is named in it and can be undone.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A data directory is not usable, or a node runs in it.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A log cannot be read, or the new one not be written.
    #[error("{}: {source}", dir.display())]
    Log {
        /// Its directory.
        dir: PathBuf,
        /// What the log says.
        source: LogError,
    },
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What was asked for is not done.
    #[error("{0}")]
    Refused(String),
}

impl RecoverError {
    pub(super) fn log(dir: &Path, source: LogError) -> RecoverError {
        RecoverError::Log { dir: dir.to_path_buf(), source }
    }

    pub(super) fn refused(why: impl Into<String>) -> RecoverError {
        RecoverError::Refused(why.into())
    }

    /// The exit code of a process that ends with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            RecoverError::Refused(_) => 2,
            RecoverError::DataDir(_) | RecoverError::Log { .. } | RecoverError::Checkpoint(_) => 4,
        }
    }
}
