//! Maps a segment for reading. The mapping lives as long as any [`Bytes`] over it, longer than the log if need be.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::Mmap;

/// The whole file as bytes.
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the bytes that are handed out belong to groups that were durable before, and no code of the log writes
    // such a block again, shortens a segment or recycles it; the directory is locked against a second log. Another
    // program that truncates the file would break this, which is the stated condition of using the directory.
    let mapping = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(mapping))
}
