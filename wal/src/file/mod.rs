//! Real files. The only module of the log that names a file, a directory or a system call.
//!
//! A directory is held under an exclusive lock for as long as the log is open. Reading past the cache uses a second
//! descriptor with O_DIRECT; a file system that refuses the flag (EINVAL or EOPNOTSUPP: some kinds of memory-backed
//! ones) is read through the cache after the cache was asked to forget the file, and
//! [`crate::Recovered::read_past_cache`] says so. Any other failure of that open, such as too many open files, is an
//! error: it must not turn into a read of the cache. Pages that another process has mapped are not forgotten, so
//! nothing else may map the segments while a log is opened.
//!
//! Left out: changing a file's size after it was created. No such call exists here.

mod mapping;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};

use crate::storage::{Access, SegmentFile, Storage};

/// Most bytes asked for in one read past the cache.
const READ_BYTES: usize = 1 << 20;

/// Zeros written in one call.
const ZERO_BYTES: usize = 128 << 10;

/// Writing past the cache requires aligned memory.
#[repr(align(4096))]
struct Zeros([u8; ZERO_BYTES]);

static ZEROS: Zeros = Zeros([0; ZERO_BYTES]);

/// One directory with the files of a log.
pub(crate) struct Directory {
    path: PathBuf,
    /// Carries the lock, and makes names durable.
    handle: File,
}

impl Directory {
    /// A new directory whose own name is durable.
    pub(crate) fn create(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// Takes the lock. `WouldBlock` means that another process has it.
    pub(crate) fn lock(path: &Path) -> io::Result<Directory> {
        let handle = File::open(path)?;
        rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Directory { path: path.to_path_buf(), handle })
    }

    fn wrap(&self, name: &str, file: File, bytes: u64, access: Access) -> Arc<dyn SegmentFile> {
        Arc::new(RealFile { file, path: self.path.join(name), bytes, access, past_cache: OnceLock::new() })
    }
}

impl Storage for Directory {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let to_text = |name: OsString| name.into_string().unwrap_or_default();
        fs::read_dir(&self.path)?.map(|entry| Ok(to_text(entry?.file_name()))).collect()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Then the zeros that are written next reserve the space.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes)?,
            Err(error) => return Err(error.into()),
        }
        Ok(self.wrap(name, file, bytes, Access::Write))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(self.path.join(name))?;
        let bytes = file.metadata()?.len();
        Ok(self.wrap(name, file, bytes, access))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn salt(&self) -> io::Result<u32> {
        let mut salt = [0; 4];
        File::open("/dev/urandom")?.read_exact(&mut salt)?;
        Ok(u32::from_le_bytes(salt))
    }
}

struct RealFile {
    file: File,
    path: PathBuf,
    bytes: u64,
    access: Access,
    /// The descriptor with O_DIRECT, or nothing where the file system refuses one.
    past_cache: OnceLock<Option<File>>,
}

impl RealFile {
    fn past_cache(&self) -> io::Result<Option<&File>> {
        if self.past_cache.get().is_none() {
            let flags = OFlags::DIRECT.bits() as i32;
            let write = self.access == Access::Write;
            let opened = OpenOptions::new().read(true).write(write).custom_flags(flags).open(&self.path);
            let file = match opened {
                Ok(file) => Some(file),
                Err(error) if refuses_the_flag(&error) => None,
                Err(error) => return Err(error),
            };
            // Another thread that was faster has the same file.
            let _ = self.past_cache.set(file);
        }
        Ok(self.past_cache.get().and_then(Option::as_ref))
    }
}

/// Whether a file system says that it knows no O_DIRECT, and not that something failed.
fn refuses_the_flag(error: &io::Error) -> bool {
    let refusals = [rustix::io::Errno::INVAL, rustix::io::Errno::OPNOTSUPP];
    error.raw_os_error().is_some_and(|code| refusals.iter().any(|refusal| refusal.raw_os_error() == code))
}

impl SegmentFile for RealFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]), IoSlice::new(&[]), IoSlice::new(&[])];
        let mut length = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            length += part.len();
        }
        assert!(parts.len() <= slices.len(), "a write has at most three parts");
        let written = rustix::io::pwritev(&self.file, &slices[..parts.len()], offset)?;
        // The segment is allocated and the process is not interrupted halfway: a short write is a failing disk.
        if written == length { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let past_cache = self.past_cache()?;
        let mut at = offset;
        while at < offset + bytes {
            let piece = (offset + bytes - at).min(ZERO_BYTES as u64);
            let zeros = &ZEROS.0[..piece as usize];
            match past_cache {
                Some(file) => file.write_all_at(zeros, at)?,
                None => {
                    self.file.write_all_at(zeros, at)?;
                    self.file.sync_data()?;
                }
            }
            at += piece;
        }
        Ok(())
    }

    fn read_disk(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let source = self.past_cache()?.unwrap_or(&self.file);
        let mut at = offset;
        for part in into.chunks_mut(READ_BYTES) {
            source.read_exact_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn reads_past_cache(&self) -> bool {
        self.past_cache.get().is_some_and(Option::is_some)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self) -> io::Result<Bytes> {
        mapping::map(&self.file)
    }

    fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::AlignedBuffer;

    #[test]
    fn only_a_refused_flag_falls_back_to_the_cache() {
        for (errno, falls_back) in [
            (rustix::io::Errno::INVAL, true),
            (rustix::io::Errno::OPNOTSUPP, true),
            (rustix::io::Errno::MFILE, false),
            (rustix::io::Errno::NFILE, false),
            (rustix::io::Errno::ACCESS, false),
            (rustix::io::Errno::NOENT, false),
            (rustix::io::Errno::IO, false),
            (rustix::io::Errno::NOMEM, false),
        ] {
            assert_eq!(refuses_the_flag(&errno.into()), falls_back, "{errno}");
        }
        assert!(!refuses_the_flag(&io::ErrorKind::InvalidInput.into()), "an error without a code is none of these");
    }

    #[test]
    fn a_failed_open_past_the_cache_is_an_error_and_no_read_of_the_cache() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), [7; 4096]).unwrap();
        let directory = Directory::lock(place.path()).unwrap();
        let read = directory.open("file", Access::Read).unwrap();
        let lost = directory.open("file", Access::Write).unwrap();
        let mut buffer = AlignedBuffer::new(4096);
        assert!(!read.reads_past_cache(), "nothing was read yet");
        read.read_disk(0, buffer.bytes_mut()).unwrap();
        assert!(buffer.bytes() == [7; 4096]);
        // The cache still answers through the first descriptor, but the second one cannot be opened any more.
        fs::remove_file(place.path().join("file")).unwrap();
        assert_eq!(lost.read_disk(0, buffer.bytes_mut()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(lost.write_zeros(0, 4096).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!lost.reads_past_cache());
    }
}
