//! A checkpoint that is being written, beside the one that counts.
//!
//! It has a name of its own until everything of it is durable; then it takes the name of the checkpoint in one step. A crash at any
//! point leaves the old checkpoint or the new one, and a file that nobody will ever read. A file whose write or sync has
//! failed is thrown away and never tried again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pontoon_types::{SnapshotMeta, StagingNumber};

use super::folder::Folder;
use super::format::{Footer, Header, Row, TABLE_ROW_BYTES, encode_meta};

/// After so many bytes they are synced, so that the last sync is short and the log's own syncs do not wait behind it.
const SYNC_BYTES: u64 = 8 << 20;

/// A file on its way.
///
/// Invariant: everything up to `end` was written without an error.
#[derive(Debug)]
pub struct Stage {
    meta: SnapshotMeta,
    meta_crc: u32,
    path: PathBuf,
    target: PathBuf,
    file: File,
    table: Vec<u8>,
    end: u64,
    chunk_bytes: u64,
    unsynced_bytes: u64,
    is_done: bool,
}

impl Stage {
    /// Begins the file of a checkpoint. `staging` tells it from others of the same group.
    pub fn begin(folder: &mut Folder, staging: StagingNumber, meta: SnapshotMeta) -> io::Result<Stage> {
        folder.prepare(meta.group)?;
        let (path, target) = (folder.staged_path(meta.group, staging), folder.path(meta.group));
        let encoded = encode_meta(&meta);
        let meta_crc = crc32fast::hash(&encoded);
        let header = Header { owner: folder.owner(), meta_bytes: encoded.len() as u32, meta_crc };
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let mut stage = Stage {
            meta,
            meta_crc,
            path,
            target,
            file,
            table: Vec::new(),
            end: 0,
            chunk_bytes: 0,
            unsynced_bytes: 0,
            is_done: false,
        };
        stage.write(&[&header.encode()[..], &encoded].concat())?;
        Ok(stage)
    }

    /// What it will say of itself.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// How many chunks it has so far.
    pub fn chunks(&self) -> u64 {
        (self.table.len() / TABLE_ROW_BYTES) as u64
    }

    /// Adds the next chunk.
    pub fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        let row = Row::of(self.meta_crc, self.chunks(), chunk);
        self.write(chunk)?;
        self.table.extend_from_slice(&row.encode());
        self.chunk_bytes += chunk.len() as u64;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Makes it the checkpoint of its group: whole, durable, with its name. Returns the bytes of the file.
    pub fn finish(mut self, folder: &Folder) -> io::Result<u64> {
        let table = std::mem::take(&mut self.table);
        let footer = Footer {
            chunks: (table.len() / TABLE_ROW_BYTES) as u64,
            chunk_bytes: self.chunk_bytes,
            table_crc: crc32fast::hash(&table),
        };
        self.write(&[&table[..], &footer.encode(self.meta_crc)].concat())?;
        self.file.sync_data()?;
        std::fs::rename(&self.path, &self.target)?;
        self.is_done = true;
        folder.sync(self.meta.group)?;
        Ok(self.end)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        self.unsynced_bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Stage {
    /// What is left is worth nothing. If it cannot be removed now, the next start does it.
    fn drop(&mut self) {
        if !self.is_done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
