//! What the disk refuses to read.
//!
//! A block that has died answers with an error, and is rot like any other: what was written there is lost, and what
//! stands beside it is not. So a read that fails is repeated block by block, and a block that is refused counts as
//! zeros, which no checksum takes for what was written ([`read_blocks`]).
//!
//! A mapping must be brought in before it is touched, because touching a page that the disk refuses ends the process.
//! [`bring_in`] says which blocks must not be touched, and [`Mended`] shows zeros in their place.
//!
//! # Laws
//!
//! - Only an answer about a place is taken for rot ([`is_refusal`]). Any other error is one of the system.
//! - A segment of which no block can be read is no segment full of zeros, but a disk that has failed.
//!
//! # Left out
//!
//! A page that the kernel reclaims between the bringing in and the touching, and whose block dies in that moment.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::file::refusal::{is_refusal, refusal};
use crate::format::BLOCK_BYTES;
use crate::format::group::{GROUP_HEADER_BYTES, GroupHeader, payloads_start};
use crate::storage::{AlignedBuffer, SegmentFile};

/// What is wrong with a block that the disk refuses, where its checksum would be named otherwise.
pub(crate) const REFUSED: &str = "the disk refuses to read the block";

/// Read at once, as long as nothing is refused.
const READ_BYTES: usize = 1 << 20;

/// Brought in at once.
const PIECE_BYTES: usize = 64 << 10;

/// Fills `into`, whose length is a multiple of a block, with what the disk holds from `offset` on. Returns the offsets
/// of the blocks that it refuses to read; they are zeros.
pub(crate) fn read_blocks(file: &dyn SegmentFile, offset: u64, into: &mut [u8]) -> io::Result<Vec<u64>> {
    let mut refused = Vec::new();
    let mut at = offset;
    for piece in into.chunks_mut(READ_BYTES) {
        match file.read_disk(at, piece) {
            Ok(()) => at += piece.len() as u64,
            Err(error) if is_refusal(&error) => {
                for block in piece.chunks_mut(BLOCK_BYTES) {
                    match file.read_disk(at, block) {
                        Ok(()) => {}
                        Err(error) if is_refusal(&error) => {
                            block.fill(0);
                            refused.push(at);
                        }
                        Err(error) => return Err(error),
                    }
                    at += block.len() as u64;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// The error for a file of which the disk refuses every block: it is not rotten, the disk has failed.
pub(crate) fn refuse_all(refused: &[u64], file_bytes: usize) -> io::Result<()> {
    if refused.len() * BLOCK_BYTES < file_bytes { Ok(()) } else { Err(refusal()) }
}

/// Brings these bytes of a mapping into memory, and returns the offsets of the blocks that the disk refuses: they must
/// not be touched. `span` starts at a block.
pub(crate) fn bring_in(file: &dyn SegmentFile, mapping: &[u8], span: Range<usize>) -> Vec<usize> {
    // A system that fails at the question leaves the reader to its luck.
    let is_refused = |span: Range<usize>| file.bring_in(mapping, span).is_err_and(|error| is_refusal(&error));
    if span.is_empty() || !is_refused(span.clone()) {
        return Vec::new();
    }
    let end = span.end;
    span.step_by(BLOCK_BYTES).filter(|at| is_refused(*at..end.min(*at + BLOCK_BYTES))).collect()
}

/// A segment as a reader may touch it that waits for the disk: mapped, and once a block is refused, a copy with zeros
/// in its place.
pub(crate) struct Mended {
    file: Arc<dyn SegmentFile>,
    bytes: Bytes,
    /// The pieces of the mapping that may be touched.
    brought_in: BTreeSet<usize>,
    /// The refused blocks, when it is a copy.
    refused: Option<Vec<u64>>,
}

impl Mended {
    pub(crate) fn new(file: Arc<dyn SegmentFile>) -> io::Result<Mended> {
        let bytes = file.map()?;
        Ok(Mended { file, bytes, brought_in: BTreeSet::new(), refused: None })
    }

    /// The whole segment, of which these bytes, and those of earlier calls, may be touched. What lies behind its end is
    /// left out.
    pub(crate) fn touch(&mut self, range: Range<usize>) -> io::Result<Bytes> {
        let end = range.end.min(self.bytes.len());
        for piece in range.start / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
            if self.refused.is_some() {
                break;
            }
            if self.brought_in.contains(&piece) {
                continue;
            }
            let start = piece * PIECE_BYTES;
            let span = start..self.bytes.len().min(start + PIECE_BYTES);
            if bring_in(self.file.as_ref(), &self.bytes, span).is_empty() {
                self.brought_in.insert(piece);
            } else {
                self.copy()?;
            }
        }
        Ok(self.bytes.clone())
    }

    /// The whole segment, of which the header and the directory of the group at `offset` may be touched.
    pub(crate) fn touch_directory(&mut self, log: u128, offset: usize) -> io::Result<Bytes> {
        let bytes = self.touch(offset..offset + GROUP_HEADER_BYTES)?;
        match GroupHeader::decode(bytes.get(offset..).unwrap_or_default(), log, offset as u64) {
            Ok((header, _)) => self.touch(offset..offset + payloads_start(header.dir_len as usize)),
            Err(_) => Ok(bytes),
        }
    }

    /// The whole segment, of which the group with a byte at `at` may be touched.
    pub(crate) fn touch_group(&mut self, log: u128, at: usize) -> io::Result<Bytes> {
        for start in (1..=at / BLOCK_BYTES).rev().map(|block| block * BLOCK_BYTES) {
            let bytes = self.touch(start..start + GROUP_HEADER_BYTES)?;
            if let Ok((header, _)) = GroupHeader::decode(bytes.get(start..).unwrap_or_default(), log, start as u64) {
                return self.touch(start..start + header.group_len());
            }
        }
        Ok(self.bytes.clone())
    }

    /// The offsets of the blocks that are refused, as far as it is known.
    pub(crate) fn refused(&self) -> &[u64] {
        self.refused.as_deref().unwrap_or_default()
    }

    /// A refused block is rare, and a copy spares all who read the segment every further thought of it.
    fn copy(&mut self) -> io::Result<()> {
        let mut buffer = AlignedBuffer::new(self.bytes.len());
        let refused = read_blocks(self.file.as_ref(), 0, buffer.bytes_mut())?;
        refuse_all(&refused, self.bytes.len())?;
        self.bytes = Bytes::from_owner(buffer);
        self.refused = Some(refused);
        Ok(())
    }
}

/// Whether one of these blocks lies in `range`, in part at least.
pub(crate) fn is_hit(refused: &[u64], range: Range<usize>) -> bool {
    refused.iter().any(|at| (*at as usize) < range.end && range.start < *at as usize + BLOCK_BYTES)
}
