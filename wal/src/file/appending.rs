//! The second append path: stores into a shared, writable mapping of the segment.
//!
//! A page fault makes a whole folio of the page cache dirty, and a sync writes whole folios. Large folios would turn a
//! commit of one block into one of up to a mebibyte, so the mapping is made over a cache of single pages: the file is
//! forgotten by the cache, then read ahead piece by piece (a read that is asked for by `WILLNEED` fills single pages,
//! one that the kernel guesses fills large folios, and `MADV_RANDOM` keeps it from guessing), and its pages are mapped.
//! This takes time and belongs to the thread that prepares segments, or to the opening of a log.
//!
//! No store may raise SIGBUS. Two of its causes do not exist here: a store without space behind it, because every byte
//! of a segment is written before it is mapped, and a store behind the end, because no code shortens a segment. The
//! third is a file system that refuses to make a clean page dirty, as xfs does after its shutdown. So an append first
//! asks the kernel to make just its own pages writable (`MADV_POPULATE_WRITE`): one call in place of a fault for each
//! page, and a refusal is an error of that call. What remains is the moment between that call and the store, if the
//! kernel writes the page back and the file system fails just then; the process would end as in any other crash.
//!
//! To unmap a large segment takes milliseconds, which a core does not have: a segment that the log lets go leaves its
//! mapping in [`Retired`], and the thread that prepares the next one takes it apart.
//!
//! Left out: msync; the sync is the same fdatasync of the descriptor as for the other path, and writes what a mapping
//! made dirty too. Locking pages in memory: one that the kernel reclaims is read again by the append that needs it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard};

use memmap2::{Advice, MmapRaw};
use rustix::fs::Advice as FileAdvice;
use rustix::io::Errno;

/// Bytes that are read ahead and mapped in one step. The kernel reads no more for one `WILLNEED` than the device's
/// read-ahead, which is this by default; what it leaves out is read page by page.
const PIECE_BYTES: usize = 128 << 10;

/// The mappings of segments that are not appended to any more, until someone has time to unmap them.
#[derive(Default)]
pub(super) struct Retired(Mutex<Vec<MmapRaw>>);

impl Retired {
    /// Unmaps them all. Blocks for milliseconds.
    pub(super) fn unmap(&self) {
        let retired = std::mem::take(&mut *self.mappings());
        drop(retired);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.mappings().len()
    }

    fn mappings(&self) -> MutexGuard<'_, Vec<MmapRaw>> {
        self.0.lock().expect("no thread panics while it retires a mapping")
    }
}

/// The mapping of one segment, when it has one.
pub(super) struct Appending {
    /// One thread appends; the lock makes that a fact and not a promise. The mapping has the size of the file.
    mapping: Mutex<Option<MmapRaw>>,
    retired: Arc<Retired>,
}

impl Drop for Appending {
    fn drop(&mut self) {
        let mapping = self.mapping().take();
        self.retired.mappings().extend(mapping);
    }
}

impl Appending {
    /// No mapping yet.
    pub(super) fn new(retired: &Arc<Retired>) -> Appending {
        Appending { mapping: Mutex::new(None), retired: retired.clone() }
    }

    /// Maps a file every byte of which is written and durable; anew, if it is mapped. Reads all of it, so it blocks.
    pub(super) fn map(&self, file: &File) -> io::Result<()> {
        let mut kept = self.mapping();
        // The cache keeps pages that are mapped.
        *kept = None;
        rustix::fs::fadvise(file, 0, None, FileAdvice::DontNeed)?;
        let mapping = MmapRaw::map_raw(file)?;
        mapping.advise(Advice::Random)?;
        for at in (0..mapping.len()).step_by(PIECE_BYTES) {
            let length = PIECE_BYTES.min(mapping.len() - at);
            rustix::fs::fadvise(file, at as u64, NonZeroU64::new(length as u64), FileAdvice::WillNeed)?;
            mapping.advise_range(Advice::PopulateRead, at, length)?;
        }
        *kept = Some(mapping);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_mapped(&self) -> bool {
        self.mapping().is_some()
    }

    /// Stores the parts one after the other from `offset` on, all of them or none. False without a mapping.
    pub(super) fn store(&self, offset: u64, parts: &[&[u8]]) -> io::Result<bool> {
        let kept = self.mapping();
        let Some(mapping) = kept.as_ref() else { return Ok(false) };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut at = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        if at.checked_add(length).is_none_or(|end| end > mapping.len()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        mapping.advise_range(Advice::PopulateWrite, at, length).map_err(refused_page)?;
        for part in parts {
            // SAFETY: the range was just checked to lie inside the mapping, which lives as long as the lock is held and
            // which no other code of this process writes to meanwhile; slices that the log hands out of its other
            // mappings of the file are of groups that were durable before, and those blocks are never stored to again.
            unsafe { mapping.as_mut_ptr().add(at).copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            at += part.len();
        }
        Ok(true)
    }

    fn mapping(&self) -> MutexGuard<'_, Option<MmapRaw>> {
        self.mapping.lock().expect("no thread panics while it holds a mapping")
    }
}

/// EFAULT is what the kernel answers where a store would have raised SIGBUS: the file system failed to give the page.
fn refused_page(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) { Errno::IO.into() } else { error }
}
