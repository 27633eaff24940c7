//! Real files. The only module of the log that names a file, a directory or a system call.
//!
//! A directory is held under an exclusive lock for as long as the log is open. Reading past the cache uses a second
//! descriptor with O_DIRECT; a file system that refuses the flag (EINVAL or EOPNOTSUPP: some kinds of memory-backed
//! ones) is read through the cache after the cache was asked to forget the file, and
//! [`crate::Recovered::read_past_cache`] says so. Any other failure of that open, such as too many open files, is an
//! error: it must not turn into a read of the cache. Pages that another process has mapped are not forgotten, so
//! nothing else may map the segments while a log is opened.
//!
//! With [`AppendPath::Mmap`] a segment is mapped for appends (`appending`) before the log gets it: by the first sync
//! after zeros were written over it, which ends its preparation and is called by the thread that prepares, and when an
//! existing segment is opened for writing. Other files, and all of them with [`AppendPath::Write`], are written with
//! `pwritev`. Reading maps (`mapping`) are separate and read-only; `residency` says which of their pages are in memory.
//!
//! Left out: changing a file's size after it was created. No such call exists here.

mod appending;
mod mapping;
pub(crate) mod refusal;
mod residency;
pub(crate) mod swap;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};

use self::appending::{Appending, Retired};
use crate::AppendPath;
use crate::format::slot_of;
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
    append_path: AppendPath,
    retired: Arc<Retired>,
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
    pub(crate) fn lock(path: &Path, append_path: AppendPath) -> io::Result<Directory> {
        let handle = File::open(path)?;
        rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Directory { path: path.to_path_buf(), handle, append_path, retired: Arc::default() })
    }

    /// The directory without the lock, to look at the files of a log that may be running.
    pub(crate) fn look(path: &Path) -> io::Result<Directory> {
        let (handle, append_path) = (File::open(path)?, AppendPath::Write);
        Ok(Directory { path: path.to_path_buf(), handle, append_path, retired: Arc::default() })
    }

    fn create_file(&self, name: &str, bytes: u64) -> io::Result<RealFile> {
        self.retired.unmap();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Then the zeros that are written next reserve the space.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes)?,
            Err(error) => return Err(error.into()),
        }
        Ok(self.wrap(name, file, bytes, Access::Write))
    }

    fn open_file(&self, name: &str, access: Access) -> io::Result<RealFile> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(self.path.join(name))?;
        let bytes = file.metadata()?.len();
        let file = self.wrap(name, file, bytes, access);
        if slot_of(name, ".seg").is_some() {
            file.map_for_appends()?;
        }
        Ok(file)
    }

    fn wrap(&self, name: &str, file: File, bytes: u64, access: Access) -> RealFile {
        let maps = self.append_path == AppendPath::Mmap && access == Access::Write;
        RealFile {
            file,
            path: self.path.join(name),
            bytes,
            access,
            past_cache: OnceLock::new(),
            appending: maps.then(|| Appending::new(&self.retired)),
            has_new_zeros: AtomicBool::new(false),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing is not enough while a child that this process is just starting has a copy of the descriptor: the
        // lock belongs to all copies, and only an unlock ends it for all of them.
        let _ = rustix::fs::flock(&self.handle, FlockOperation::Unlock);
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
        Ok(Arc::new(self.create_file(name, bytes)?))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(self.open_file(name, access)?))
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
    /// Only for a file that is written, and with the append path that maps.
    appending: Option<Appending>,
    /// Whether zeros were written that no sync has made durable.
    has_new_zeros: AtomicBool,
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

    fn map_for_appends(&self) -> io::Result<()> {
        self.appending.as_ref().map_or(Ok(()), |appending| appending.map(&self.file))
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
        if let Some(appending) = &self.appending
            && appending.store(offset, parts)?
        {
            return Ok(());
        }
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
        self.has_new_zeros.store(true, Ordering::Relaxed);
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

    fn begin_write_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        // What this advice means to Linux: dirty pages are handed to the disk without waiting, clean ones are forgotten.
        Ok(rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(bytes), Advice::DontNeed)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.has_new_zeros.swap(false, Ordering::Relaxed) { self.map_for_appends() } else { Ok(()) }
    }

    fn map(&self) -> io::Result<Bytes> {
        mapping::map(&self.file)
    }

    fn mapping_is_live(&self) -> bool {
        true
    }

    fn is_resident(&self, mapping: &[u8], span: Range<usize>) -> io::Result<bool> {
        residency::is_resident(mapping, span)
    }

    fn bring_in(&self, mapping: &[u8], span: Range<usize>) -> io::Result<()> {
        residency::bring_in(&self.file, mapping, span)
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
        let directory = Directory::lock(place.path(), AppendPath::Write).unwrap();
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

    fn is_mapped(file: &RealFile) -> bool {
        file.appending.as_ref().is_some_and(Appending::is_mapped)
    }

    #[test]
    fn a_segment_is_mapped_for_appends_before_the_log_gets_it() {
        let place = tempfile::tempdir().unwrap();
        for (append_path, name) in [(AppendPath::Write, "slot-001.seg"), (AppendPath::Mmap, "slot-002.seg")] {
            let maps = append_path == AppendPath::Mmap;
            let directory = Directory::lock(place.path(), append_path).unwrap();
            let made = directory.create_file(name, 64 << 10).unwrap();
            made.sync().unwrap();
            assert!(!is_mapped(&made), "no zeros are written yet");
            for _ in 0..2 {
                made.write_zeros(0, 64 << 10).unwrap();
                made.sync().unwrap();
                assert_eq!(is_mapped(&made), maps, "after a preparation, the first one and that of a recycled segment");
                made.write_at(4096, &[&[1; 4096], &[2; 100]]).unwrap();
            }
            assert_eq!(is_mapped(&directory.open_file(name, Access::Write).unwrap()), maps);
            assert!(!is_mapped(&directory.open_file(name, Access::Read).unwrap()));
            fs::write(place.path().join("ctl"), [0; 8192]).unwrap();
            assert!(!is_mapped(&directory.open_file("ctl", Access::Write).unwrap()));
            let bytes = fs::read(place.path().join(name)).unwrap();
            assert_eq!((bytes.len(), bytes[4096], bytes[8191], bytes[8291], bytes[8292]), (64 << 10, 1, 1, 2, 0));
        }
    }

    #[test]
    fn a_mapping_is_unmapped_by_the_next_preparation_and_not_by_who_lets_it_go() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("slot-001.seg"), [3; 8192]).unwrap();
        let directory = Directory::lock(place.path(), AppendPath::Mmap).unwrap();
        let file = directory.open_file("slot-001.seg", Access::Write).unwrap();
        assert_eq!(directory.retired.count(), 0);
        drop(file);
        assert_eq!(directory.retired.count(), 1);
        directory.create_file("slot-002.new", 8192).unwrap();
        assert_eq!(directory.retired.count(), 0);
    }

    #[test]
    fn a_store_behind_the_end_is_an_error_and_stores_nothing() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("slot-001.seg"), [3; 8192]).unwrap();
        let directory = Directory::lock(place.path(), AppendPath::Mmap).unwrap();
        let file = directory.open_file("slot-001.seg", Access::Write).unwrap();
        for (offset, length) in [(4096, 4097), (8192, 1), (8193, 0), (u64::MAX, 1), (u64::MAX - 4095, 4096)] {
            let error = file.write_at(offset, &[&[], &vec![9; length]]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{length} bytes at {offset}");
        }
        assert!(fs::read(place.path().join("slot-001.seg")).unwrap() == [3; 8192]);
        file.write_at(4096, &[&[9; 4096]]).unwrap();
        assert_eq!(file.map().unwrap()[4095..4097], [3, 9]);
    }
}
