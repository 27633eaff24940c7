//! Reads the files of a log past the cache, whatever condition they are in.
//!
//! What the disk refuses to read is taken for zeros, block by block: the checksums then say what is lost by it, and
//! everything around it is still read.

use std::sync::Arc;

use crate::LogError;
use crate::format::BLOCK_BYTES;
use crate::storage::{Access, AlignedBuffer, SegmentFile, Storage};
use crate::unreadable::read_blocks;

/// Opens a file for reading.
pub(crate) fn open(storage: &dyn Storage, name: &str) -> Result<Arc<dyn SegmentFile>, LogError> {
    storage.open(name, Access::Read).map_err(LogError::io(format!("opening {name}")))
}

/// Fills `into`, whose length is a multiple of a block, from `offset` on. What lies behind the end of the file, and what
/// the disk refuses to read, is zeros. Returns the offsets of the blocks that it refuses.
pub(crate) fn load(file: &dyn SegmentFile, offset: u64, into: &mut [u8]) -> Result<Vec<u64>, LogError> {
    let there = file.bytes().saturating_sub(offset).min(into.len() as u64) as usize / BLOCK_BYTES * BLOCK_BYTES;
    let (stored, behind) = into.split_at_mut(there);
    behind.fill(0);
    read_blocks(file, offset, stored).map_err(LogError::io("reading a file of the log"))
}

/// The bytes `[start, start + length)` of a file.
pub(crate) fn load_range(file: &dyn SegmentFile, start: usize, length: usize) -> Result<Vec<u8>, LogError> {
    let from = start / BLOCK_BYTES * BLOCK_BYTES;
    let mut buffer = AlignedBuffer::new((start + length - from).next_multiple_of(BLOCK_BYTES));
    load(file, from as u64, buffer.bytes_mut())?;
    Ok(buffer.bytes()[start - from..start - from + length].to_vec())
}
