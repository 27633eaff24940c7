//! Which pages of a reading mapping can be touched without waiting for the disk, and how the others are brought in.
//!
//! `mincore` says which pages of a file the page cache holds. It is a snapshot: the kernel may reclaim a page right after,
//! and then its reader waits after all, as it would in any program that does not lock its memory.
//!
//! To bring pages in is to map them with `MADV_POPULATE_READ`, which answers a failing disk with an error where touching
//! the page would raise SIGBUS. A kernel that does not know it (before Linux 5.14) is asked to read the file instead.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::format::BLOCK_BYTES;

/// Bytes that are read at once where pages cannot be populated.
const READ_BYTES: usize = 64 << 10;

/// Whether the page cache holds these bytes of a mapping. `span` starts at a page.
pub(super) fn is_resident(mapping: &[u8], span: Range<usize>) -> io::Result<bool> {
    let bytes = &mapping[span];
    // One for each of the smallest pages; with larger ones the rest stays as it is.
    let mut states = vec![1_u8; bytes.len().div_ceil(BLOCK_BYTES)];
    // SAFETY: the range lies inside the mapping, as the slice shows, and the list has one byte for each of its pages.
    let asked = unsafe { libc::mincore(bytes.as_ptr().cast_mut().cast(), bytes.len(), states.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(states.iter().all(|state| state & 1 != 0))
}

/// Brings these bytes of a mapping of `file` into the page cache. `span` starts at a page.
pub(super) fn bring_in(file: &File, mapping: &[u8], span: Range<usize>) -> io::Result<()> {
    let bytes = &mapping[span.clone()];
    // SAFETY: the range lies inside the mapping, as the slice shows, and populating it for reads changes no byte.
    let populated = unsafe { libc::madvise(bytes.as_ptr().cast_mut().cast(), bytes.len(), libc::MADV_POPULATE_READ) };
    if populated == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL) => read_through(file, span),
        // The kernel's word for a page whose touching would raise SIGBUS.
        Some(libc::EFAULT) => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Err(error),
    }
}

fn read_through(file: &File, span: Range<usize>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES.min(span.len())];
    for at in span.clone().step_by(READ_BYTES) {
        let length = READ_BYTES.min(span.end - at);
        file.read_exact_at(&mut buffer[..length], at as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::mapping;
    use super::*;

    #[test]
    fn what_the_cache_has_forgotten_is_not_resident_and_comes_back() {
        // A directory of the build, because the one for temporary files may be kept in memory.
        let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        for bring_in in
            [bring_in as fn(&File, &[u8], Range<usize>) -> io::Result<()>, |file, _, span| read_through(file, span)]
        {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let bytes = mapping::map(&file).unwrap();
            if is_resident(&bytes, 0..1 << 20).unwrap() {
                // A file system in memory forgets nothing.
                return;
            }
            bring_in(&file, &bytes, 65_536..131_072).unwrap();
            assert!(is_resident(&bytes, 65_536..131_072).unwrap());
            bring_in(&file, &bytes, 0..1 << 20).unwrap();
            assert!(is_resident(&bytes, 0..1 << 20).unwrap());
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
    }
}
