//! A disk in memory that knows what is durable, for tests and the simulator.
//!
//! A file has three layers, as on a real machine: what the *medium* holds, what was *written* since the last sync (it
//! is in the kernel's or the drive's cache, by sector), and what a reader *sees* through the page cache. A sync moves
//! the second into the first. [`MemoryDisk::crash`] keeps any part of the second, sector by sector, and forgets the
//! rest. A sync that fails does what kernels do: it drops the written sectors but leaves the pages readable and clean,
//! which is the trap that law 17 is about. Names behave likewise: a new one may vanish until the directory is synced.
//!
//! Faults are set by the test: a sync or write that fails, a full disk, damaged bytes, a removed file.
//!
//! Left out: timing, and a medium that loses what it had.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::storage::{Access, SegmentFile, Storage};

/// The unit that survives a crash or not.
pub const SECTOR_BYTES: usize = 512;

#[derive(Default)]
struct MemoryFile {
    medium: Vec<u8>,
    written: BTreeMap<usize, [u8; SECTOR_BYTES]>,
    seen: Vec<u8>,
    writes: u64,
    syncs: u64,
    failed: bool,
}

impl MemoryFile {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.seen[offset..offset + bytes.len()].copy_from_slice(bytes);
        let last = (offset + bytes.len()).div_ceil(SECTOR_BYTES);
        for sector in offset / SECTOR_BYTES..last {
            let mut content = [0; SECTOR_BYTES];
            content.copy_from_slice(&self.seen[sector * SECTOR_BYTES..][..SECTOR_BYTES]);
            self.written.insert(sector, content);
        }
    }

    fn settle(&mut self, survives: &mut impl FnMut(usize) -> bool) {
        for (sector, content) in std::mem::take(&mut self.written) {
            if survives(sector) {
                self.medium[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(&content);
            }
        }
    }

    /// What a read past the cache returns.
    fn on_disk(&self) -> Vec<u8> {
        let mut bytes = self.medium.clone();
        for (sector, content) in &self.written {
            bytes[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(content);
        }
        bytes
    }
}

#[derive(Default)]
struct Disk {
    /// By the number that stands for a descriptor.
    files: Vec<MemoryFile>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    salts: u32,
    free_bytes: Option<u64>,
    fail_syncs: u32,
    fail_writes: u32,
    operations_left: Option<u64>,
}

/// A directory on a disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    disk: Arc<Mutex<Disk>>,
}

/// How often a file was written and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCounts {
    /// Calls that wrote.
    pub writes: u64,
    /// Syncs, failed ones too.
    pub syncs: u64,
}

impl MemoryDisk {
    /// An empty directory.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no thread panics while it holds the disk")
    }

    /// What the shell's fdatasync of [`crate::Sync::fd`] does.
    pub fn sync(&self, fd: RawFd) -> io::Result<()> {
        self.disk().sync(fd as usize)
    }

    /// Power loss: what is not synced survives sector by sector as `survives` says of its number. Open handles must
    /// not be used any more.
    pub fn crash(&self, mut survives: impl FnMut(usize) -> bool) {
        let mut disk = self.disk();
        for file in &mut disk.files {
            file.settle(&mut survives);
            file.seen = file.medium.clone();
            file.failed = false;
        }
        disk.operations_left = None;
        if !survives(0) {
            disk.names = disk.durable_names.clone();
        }
        disk.durable_names = disk.names.clone();
    }

    /// The next `count` syncs fail, and the written sectors are dropped while the cache still shows them.
    pub fn fail_syncs(&self, count: u32) {
        self.disk().fail_syncs = count;
    }

    /// The next `count` writes fail halfway.
    pub fn fail_writes(&self, count: u32) {
        self.disk().fail_writes = count;
    }

    /// The power goes after `count` more changes: every later one fails, until [`MemoryDisk::crash`].
    pub fn cut_power_after(&self, count: u64) {
        self.disk().operations_left = Some(count);
    }

    /// How much may still be created, or no limit.
    pub fn limit_free_bytes(&self, bytes: Option<u64>) {
        self.disk().free_bytes = bytes;
    }

    /// What the disk holds of a file, synced or not.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(name).map(|number| disk.files[*number].on_disk())
    }

    /// Replaces a file's content on the medium and in the cache: rot, or another machine's file.
    pub fn replace(&self, name: &str, content: Vec<u8>) {
        let mut disk = self.disk();
        let number = match disk.names.get(name) {
            Some(number) => *number,
            None => disk.files.len(),
        };
        disk.names.insert(name.to_string(), number);
        disk.durable_names.insert(name.to_string(), number);
        if number == disk.files.len() {
            disk.files.push(MemoryFile::default());
        }
        let file = &mut disk.files[number];
        file.written.clear();
        file.seen = content.clone();
        file.medium = content;
    }

    /// Takes a file away for good.
    pub fn lose(&self, name: &str) {
        let mut disk = self.disk();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }

    /// How often a file was written and synced.
    pub fn counts(&self, name: &str) -> Option<FileCounts> {
        let disk = self.disk();
        let file = &disk.files[*disk.names.get(name)?];
        Some(FileCounts { writes: file.writes, syncs: file.syncs })
    }

    /// All names and contents, to compare a disk before and after.
    pub fn image(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.disk();
        disk.names.iter().map(|(name, number)| (name.clone(), disk.files[*number].on_disk())).collect()
    }

    fn handle(&self, number: usize, access: Access) -> Arc<dyn SegmentFile> {
        Arc::new(Handle { disk: self.clone(), number, access })
    }
}

impl Disk {
    /// Counts one change of the disk.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn sync(&mut self, number: usize) -> io::Result<()> {
        self.operate()?;
        let file = &mut self.files[number];
        assert!(!file.failed, "a file whose sync failed is never synced again");
        file.syncs += 1;
        if self.fail_syncs > 0 {
            self.fail_syncs -= 1;
            file.failed = true;
            file.written.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        file.settle(&mut |_| true);
        Ok(())
    }
}

impl Storage for MemoryDisk {
    fn place(&self) -> String {
        "memory".to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let mut disk = self.disk();
        disk.operate()?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(free) = disk.free_bytes {
            disk.free_bytes = Some(free.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?);
        }
        let number = disk.files.len();
        let content = vec![0; bytes as usize];
        disk.files.push(MemoryFile { medium: content.clone(), seen: content, ..MemoryFile::default() });
        disk.names.insert(name.to_string(), number);
        drop(disk);
        Ok(self.handle(number, Access::Write))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn SegmentFile>> {
        let mut disk = self.disk();
        let number = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        // As with real descriptors: an earlier failure was told to an earlier one.
        disk.files[number].failed = false;
        drop(disk);
        Ok(self.handle(number, access))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        let number = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_string(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        disk.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn salt(&self) -> io::Result<u32> {
        let mut disk = self.disk();
        disk.salts += 1;
        Ok(disk.salts.wrapping_mul(0x85eb_ca6b))
    }
}

struct Handle {
    disk: MemoryDisk,
    number: usize,
    access: Access,
}

impl SegmentFile for Handle {
    fn bytes(&self) -> u64 {
        self.disk.disk().files[self.number].seen.len() as u64
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        assert!(self.access == Access::Write, "a file that was opened for reading is never written");
        let mut disk = self.disk.disk();
        disk.operate()?;
        let bytes = parts.concat();
        if disk.fail_writes > 0 {
            disk.fail_writes -= 1;
            disk.files[self.number].write(offset as usize, &bytes[..bytes.len() / 2]);
            return Err(io::Error::from_raw_os_error(5));
        }
        let file = &mut disk.files[self.number];
        assert!(offset as usize + bytes.len() <= file.seen.len(), "a file never grows");
        file.writes += 1;
        file.write(offset as usize, &bytes);
        Ok(())
    }

    fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.write_at(offset, &[&vec![0; bytes as usize]])
    }

    fn read_disk(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.disk();
        let file = &disk.files[self.number];
        let start = offset as usize;
        let source = file.medium.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(source);
        let sectors = start / SECTOR_BYTES..(start + into.len()).div_ceil(SECTOR_BYTES);
        for (sector, content) in file.written.range(sectors) {
            let at = sector * SECTOR_BYTES - start;
            into[at..at + SECTOR_BYTES].copy_from_slice(content);
        }
        Ok(())
    }

    fn reads_past_cache(&self) -> bool {
        true
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let file = &mut disk.files[self.number];
        file.seen = file.on_disk();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.disk().sync(self.number)
    }

    fn map(&self) -> io::Result<Bytes> {
        Ok(Bytes::from(self.disk.disk().files[self.number].seen.clone()))
    }

    fn descriptor(&self) -> RawFd {
        self.number as RawFd
    }
}
