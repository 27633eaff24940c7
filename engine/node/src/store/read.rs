//! One checkpoint on the disk, open for reading.
//!
//! To open it reads and verifies everything but the chunks; each chunk is verified when it is read. The file stays open as
//! long as the value lives, so a newer checkpoint may take its name meanwhile: the system keeps the bytes of the old one
//! until nobody reads it any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pontoon_types::{ChunkNumber, SnapshotMeta};

use super::format::{
    FOOTER_BYTES, Fault, Footer, HEADER_BYTES, Header, Owner, Row, chunk_crc, decode_meta, decode_table,
};

/// Why a checkpoint, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not what was written.
    #[error("checkpoint {}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer build wrote it. It is left as it is.
    #[error(
        "checkpoint {} has format version {version}, which this build does not know; start a newer one",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The directory of another node, or a part of it, was put in the place of this one's.
    #[error(
        "checkpoint {} belongs to node {} of cluster {}; name the right data directory",
        path.display(), found.node, found.cluster
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Owner,
    },
    /// The operating system refused a call.
    #[error("cannot read checkpoint {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A whole checkpoint.
///
/// Invariant: `rows` and `starts` have the same length, and say of each chunk how long it is and where it begins.
#[derive(Debug)]
pub struct StoredCheckpoint {
    path: PathBuf,
    file: File,
    meta: SnapshotMeta,
    meta_crc: u32,
    rows: Vec<Row>,
    starts: Vec<u64>,
    file_bytes: u64,
}

impl StoredCheckpoint {
    /// Opens a file. None if there is none.
    pub fn open(path: &Path, owner: Owner) -> Result<Option<StoredCheckpoint>, CheckpointError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::Io { path: path.to_path_buf(), source }),
        };
        read_whole(file, path, owner).map(Some).map_err(|wrong| wrong.of(path))
    }

    /// What it says of itself.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// One chunk, counted from zero. None behind the last one.
    pub fn chunk(&self, number: ChunkNumber) -> Result<Option<Bytes>, CheckpointError> {
        let number = number.0;
        let Some((row, start)) =
            usize::try_from(number).ok().and_then(|at| Some((self.rows.get(at)?, self.starts[at])))
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; row.length as usize];
        read_at(&self.file, &mut bytes, start).map_err(|wrong| wrong.of(&self.path))?;
        if chunk_crc(self.meta_crc, number, &bytes) != row.crc {
            let what = format!("chunk {number}, at byte {start}, is rotten");
            return Err(CheckpointError::Damaged { path: self.path.clone(), what });
        }
        Ok(Some(Bytes::from(bytes)))
    }
}

/// What is wrong with a file that has no name here yet.
enum Wrong {
    Damaged(&'static str),
    Version(u16),
    Other(Owner),
    Io(io::Error),
}

impl From<&'static str> for Wrong {
    fn from(what: &'static str) -> Wrong {
        Wrong::Damaged(what)
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        Wrong::Io(error)
    }
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Wrong {
        match fault {
            Fault::Damaged(what) => Wrong::Damaged(what),
            Fault::Version(version) => Wrong::Version(version),
        }
    }
}

impl Wrong {
    fn of(self, path: &Path) -> CheckpointError {
        let path = path.to_path_buf();
        match self {
            Wrong::Damaged(what) => CheckpointError::Damaged { path, what: what.to_string() },
            Wrong::Version(version) => CheckpointError::Version { path, version },
            Wrong::Other(found) => CheckpointError::Other { path, found },
            Wrong::Io(source) => CheckpointError::Io { path, source },
        }
    }
}

fn read_whole(file: File, path: &Path, owner: Owner) -> Result<StoredCheckpoint, Wrong> {
    let file_bytes = file.metadata()?.len();
    let mut header = [0; HEADER_BYTES];
    read_at(&file, &mut header, 0)?;
    let Header { owner: found, meta_bytes, meta_crc } = Header::decode(&header)?;
    if found != owner {
        return Err(Wrong::Other(found));
    }
    let mut meta = vec![0; meta_bytes as usize];
    read_at(&file, &mut meta, HEADER_BYTES as u64)?;
    if crc32fast::hash(&meta) != meta_crc {
        return Err(Wrong::Damaged("the checksum of its meta does not match"));
    }
    let chunks_at = (HEADER_BYTES + meta.len()) as u64;
    let footer_at = file_bytes.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= chunks_at).ok_or(CUT_SHORT)?;
    let mut footer = [0; FOOTER_BYTES];
    read_at(&file, &mut footer, footer_at)?;
    let footer = Footer::decode(&footer, meta_crc)?;
    if chunks_at + footer.chunk_bytes + footer.table_bytes() != footer_at {
        return Err(Wrong::Damaged("it is not as long as its footer says"));
    }
    let mut table = vec![0; footer.table_bytes() as usize];
    read_at(&file, &mut table, footer_at - footer.table_bytes())?;
    let rows = decode_table(&table, &footer)?;
    let starts = rows
        .iter()
        .scan(chunks_at, |next, row| {
            let start = *next;
            *next += u64::from(row.length);
            Some(start)
        })
        .collect();
    let meta = decode_meta(&meta)?;
    Ok(StoredCheckpoint { path: path.to_path_buf(), file, meta, meta_crc, rows, starts, file_bytes })
}

const CUT_SHORT: &str = "it is cut short";

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> Result<(), Wrong> {
    file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Wrong::Damaged(CUT_SHORT),
        // What the disk has lost is lost, and not a fault of the system that may pass.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            Wrong::Damaged("the disk cannot read it any more")
        }
        _ => Wrong::Io(error),
    })
}
