//! Reads the files of a log past the cache, whatever condition they are in.
//!
//! What the disk refuses to read is taken for zeros, block by block: the checksums then say what is lost by it, and
//! everything around it is still read.

use std::sync::Arc;

use crate::LogError;
use crate::format::BLOCK_BYTES;
use crate::storage::{Access, AlignedBuffer, SegmentFile, Storage};

/// Read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Opens a file for reading.
pub(crate) fn open(storage: &dyn Storage, name: &str) -> Result<Arc<dyn SegmentFile>, LogError> {
    storage.open(name, Access::Read).map_err(LogError::io(format!("opening {name}")))
}

/// Fills `into`, whose length is a multiple of a block, from `offset` on. What lies behind the end of the file, and what
/// cannot be read, is zeros. Returns the offsets of the blocks that could not be read.
pub(crate) fn load(file: &dyn SegmentFile, offset: u64, into: &mut [u8]) -> Vec<u64> {
    let there = file.bytes().saturating_sub(offset).min(into.len() as u64) as usize / BLOCK_BYTES * BLOCK_BYTES;
    let (readable, behind) = into.split_at_mut(there);
    behind.fill(0);
    let mut unreadable = Vec::new();
    let mut at = offset;
    for piece in readable.chunks_mut(PIECE_BYTES) {
        if file.read_disk(at, piece).is_err() {
            for (number, block) in piece.chunks_mut(BLOCK_BYTES).enumerate() {
                let block_at = at + (number * BLOCK_BYTES) as u64;
                if file.read_disk(block_at, block).is_err() {
                    block.fill(0);
                    unreadable.push(block_at);
                }
            }
        }
        at += piece.len() as u64;
    }
    unreadable
}

/// The bytes `[start, start + length)` of a file.
pub(crate) fn load_range(file: &dyn SegmentFile, start: usize, length: usize) -> Vec<u8> {
    let from = start / BLOCK_BYTES * BLOCK_BYTES;
    let mut buffer = AlignedBuffer::new((start + length - from).next_multiple_of(BLOCK_BYTES));
    load(file, from as u64, buffer.bytes_mut());
    buffer.bytes()[start - from..start - from + length].to_vec()
}
