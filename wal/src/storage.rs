//! The seam between the log and a disk: a directory of fixed-size files.
//!
//! `file` implements it with real files, [`crate::memory`] with a disk in memory that knows what is synced
//! and loses what is not. Everything above this seam is the same code in production, tests and the simulator.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::BLOCK_BYTES;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and mapping only: recovery cannot change an old segment by mistake.
    Read,
    /// Appending.
    Write,
}

/// One directory, held by one owner.
pub trait Storage: Send + std::marker::Sync {
    /// What to call this place in an error.
    fn place(&self) -> String;

    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A new file of `bytes` zero bytes whose space is reserved. Refuses an existing name.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>>;

    /// An existing file.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn SegmentFile>>;

    /// Renames a file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;

    /// A random number that tells one use of a segment from another.
    fn salt(&self) -> io::Result<u32>;
}

/// One file of a log. Its size never changes.
pub trait SegmentFile: Send + std::marker::Sync {
    /// Its size.
    fn bytes(&self) -> u64;

    /// Writes the parts one after the other from `offset` on, all of them or an error.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Writes zeros, in whole blocks, past the cache where the file system can: nothing heaps up there that a sync of
    /// another file would have to wait for. Durable after [`SegmentFile::sync`].
    fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Reads what the disk holds, past the cache (law 17); through it only where the file system knows no other way,
    /// which [`SegmentFile::reads_past_cache`] then says. `offset` and the length are multiples of the block size
    /// and `into` comes from an [`AlignedBuffer`].
    fn read_disk(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Whether [`SegmentFile::read_disk`] has read from this file and went past the cache.
    fn reads_past_cache(&self) -> bool;

    /// Forgets cached clean pages, so that a mapping made next shows what the disk holds.
    fn drop_cache(&self) -> io::Result<()>;

    /// Lets the disk begin with what was written in these bytes, and does not wait: a later sync then finds little left
    /// to write, and does not hold up the syncs of other files. Promises nothing.
    fn begin_write_back(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Makes all written bytes durable; blocks. After an error it is never called again for this file.
    fn sync(&self) -> io::Result<()>;

    /// The whole file, read-only. The bytes stay valid as long as any slice of them lives.
    fn map(&self) -> io::Result<Bytes>;

    /// Whether a mapping shows what is written after it was made. If not, it is made anew for each read.
    fn mapping_is_live(&self) -> bool;

    /// Whether these bytes of a mapping of the file can be touched without waiting for the disk. `span` starts at a
    /// multiple of the block size. A storage that keeps everything in memory never waits.
    fn is_resident(&self, mapping: &[u8], span: Range<usize>) -> io::Result<bool> {
        let _ = (mapping, span);
        Ok(true)
    }

    /// Brings these bytes of a mapping of the file into memory; blocks. An error when the disk cannot give them.
    fn bring_in(&self, mapping: &[u8], span: Range<usize>) -> io::Result<()> {
        let _ = (mapping, span);
        Ok(())
    }

    /// The number under which an asynchronous fdatasync reaches the file.
    fn descriptor(&self) -> RawFd;
}

/// Memory aligned to a block, as reading past the cache requires.
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// `bytes` zero bytes.
    pub fn new(bytes: usize) -> AlignedBuffer {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        AlignedBuffer { memory, start, length: bytes }
    }

    /// The aligned bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// The aligned bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
