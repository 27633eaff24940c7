//! A disk in memory that knows what is durable, for tests and the simulator.
//!
//! A file has three layers, as on a real machine: what the *medium* holds, what was *written* since the last sync (it
//! is in the kernel's or the drive's cache, by sector), and what a reader sees through the page cache. A sync moves
//! the second into the first. [`MemoryDisk::crash`] keeps any part of the second, sector by sector, and forgets the
//! rest. A sync that fails does what kernels do: it drops written sectors but leaves the pages readable and clean,
//! which is the trap that law 17 is about: such a sector is *stale* until the cache forgets it. Names behave likewise:
//! a new one may vanish until the directory is synced.
//!
//! Faults are set by the test: a sync or write that fails, a full disk, power that goes in the middle, and damage to
//! what is durable: a sector of the medium can be changed to anything, for which the disk remembers with which sync
//! each sector became durable ([`MemoryDisk::durable_sectors`]) and what it held before.
//!
//! A sector of zeros takes no memory and no time, so a disk full of prepared segments costs little.
//!
//! What a reader sees through the cache may also be *cold*, as if the cache had dropped it ([`MemoryDisk::chill`]): its
//! bytes are there all the same, but a reader that asks is told that they are not. The disk may refuse to read a block
//! ([`MemoryDisk::refuse_block`]); a mapping shows it all the same, because in memory nothing can fail that is touched.
//!
//! Left out: timing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;

use crate::format::BLOCK_BYTES;
use crate::storage::{Access, SegmentFile, Storage};

/// The unit that survives a crash or not.
pub const SECTOR_BYTES: usize = 512;

/// What one sector holds.
pub type Sector = [u8; SECTOR_BYTES];

const ZEROS: Sector = [0; SECTOR_BYTES];

/// A sector of the medium.
#[derive(Clone)]
struct Stored {
    content: Sector,
    /// What it held before, which is what a lost write leaves.
    before: Sector,
    /// The number of the sync that brought it there.
    since: u64,
}

#[derive(Clone, Default)]
struct MemoryFile {
    bytes: usize,
    /// By sector; nothing stands for zeros that were always there.
    medium: Vec<Option<Box<Stored>>>,
    written: BTreeMap<usize, Sector>,
    /// What the cache shows and the disk does not have.
    stale: BTreeMap<usize, Sector>,
    mapped: Option<Bytes>,
    /// The blocks that the cache holds, if it does not hold all.
    warm: Option<BTreeSet<usize>>,
    /// The blocks that the disk refuses to read, until they are written again.
    refused: BTreeSet<usize>,
    /// Mappings that were handed out, as long as somebody is watched.
    readers: Vec<Weak<()>>,
    writes: u64,
    syncs: u64,
    failed: bool,
}

impl MemoryFile {
    fn new(bytes: usize) -> MemoryFile {
        MemoryFile { bytes, medium: vec![None; bytes.div_ceil(SECTOR_BYTES)], ..MemoryFile::default() }
    }

    fn on_medium(&self, sector: usize) -> &Sector {
        self.medium[sector].as_ref().map_or(&ZEROS, |stored| &stored.content)
    }

    fn seen(&self, sector: usize) -> &Sector {
        self.stale.get(&sector).or_else(|| self.written.get(&sector)).unwrap_or_else(|| self.on_medium(sector))
    }

    /// Writes the parts one after the other, at most `limit` bytes of them.
    fn write(&mut self, mut offset: usize, parts: &[&[u8]], mut limit: usize) {
        self.mapped = None;
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        self.warm_up(offset..offset + bytes);
        self.refused.retain(|block| !blocks(offset..offset + bytes).contains(block));
        for part in parts {
            let mut rest = &part[..part.len().min(limit)];
            limit -= rest.len();
            while !rest.is_empty() {
                let (sector, at) = (offset / SECTOR_BYTES, offset % SECTOR_BYTES);
                let (piece, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - at));
                let mut content = *self.seen(sector);
                content[at..at + piece.len()].copy_from_slice(piece);
                self.write_sector(sector, content);
                (offset, rest) = (offset + piece.len(), behind);
            }
        }
    }

    /// Fails when a block is refused that the cache does not hold.
    fn bring_in(&mut self, span: Range<usize>) -> io::Result<()> {
        let is_warm = |block: &usize| self.warm.as_ref().is_none_or(|warm| warm.contains(block));
        let refused = self.refused.range(blocks(span.clone())).find(|block| !is_warm(block)).copied();
        self.warm_up(span.start..refused.map_or(span.end, |block| span.end.min(block * BLOCK_BYTES)));
        refused.map_or(Ok(()), |_| Err(io::Error::from_raw_os_error(5)))
    }

    fn warm_up(&mut self, span: Range<usize>) {
        if let Some(warm) = &mut self.warm {
            warm.extend(blocks(span));
        }
    }

    fn write_sector(&mut self, sector: usize, content: Sector) {
        // Zeros over zeros are the same disk, before the sync and after it.
        let untouched = self.medium[sector].is_none();
        if untouched && content == ZEROS && !self.written.contains_key(&sector) && !self.stale.contains_key(&sector) {
            return;
        }
        self.stale.remove(&sector);
        self.written.insert(sector, content);
    }

    fn store(&mut self, sector: usize, content: Sector, since: u64) {
        let before = *self.on_medium(sector);
        self.medium[sector] = Some(Box::new(Stored { content, before, since }));
    }

    /// Makes those written sectors durable that survive; returns the others.
    fn settle(&mut self, since: u64, survives: &mut dyn FnMut(usize) -> bool) -> BTreeMap<usize, Sector> {
        let mut lost = BTreeMap::new();
        for (sector, content) in std::mem::take(&mut self.written) {
            if survives(sector) {
                self.store(sector, content, since);
            } else {
                lost.insert(sector, content);
            }
        }
        lost
    }

    fn forget_cache(&mut self) {
        if !self.stale.is_empty() {
            self.mapped = None;
            self.stale.clear();
        }
    }

    /// Copies from `offset` on, each sector as `look` shows it.
    fn copy<'a>(&'a self, offset: usize, into: &mut [u8], look: impl Fn(&'a MemoryFile, usize) -> Option<&'a Sector>) {
        let mut done = 0;
        while done < into.len() {
            let (sector, at) = ((offset + done) / SECTOR_BYTES, (offset + done) % SECTOR_BYTES);
            let length = (into.len() - done).min(SECTOR_BYTES - at);
            match look(self, sector) {
                Some(content) => into[done..done + length].copy_from_slice(&content[at..at + length]),
                None => into[done..done + length].fill(0),
            }
            done += length;
        }
    }

    /// What a read past the cache returns: the kernel writes dirty pages out before it.
    fn copy_disk(&self, offset: usize, into: &mut [u8]) {
        if self.written.is_empty() {
            self.copy(offset, into, |file, sector| file.medium[sector].as_ref().map(|stored| &stored.content));
        } else {
            self.copy(offset, into, |file, sector| {
                file.written.get(&sector).or_else(|| file.medium[sector].as_ref().map(|stored| &stored.content))
            });
        }
    }

    fn on_disk(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        self.copy_disk(0, &mut bytes);
        bytes
    }

    fn map(&mut self) -> Bytes {
        if let Some(mapped) = &self.mapped {
            return mapped.clone();
        }
        let mut bytes = vec![0; self.bytes];
        self.copy(0, &mut bytes, |file, sector| Some(file.seen(sector)).filter(|content| **content != ZEROS));
        let mapped = Bytes::from(bytes);
        self.mapped = Some(mapped.clone());
        mapped
    }
}

/// The blocks that these bytes lie in.
fn blocks(span: Range<usize>) -> Range<usize> {
    span.start / BLOCK_BYTES..span.end.div_ceil(BLOCK_BYTES)
}

/// A mapping as a reader holds it.
struct Mapping {
    bytes: Bytes,
    _reader: Arc<()>,
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Clone, Default)]
struct Disk {
    /// By the number that stands for a descriptor.
    files: Vec<MemoryFile>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    salts: u32,
    free_bytes: Option<u64>,
    fail_syncs: u32,
    fail_writes: u32,
    fail_reads: u32,
    /// How much of a failing write is carried out; half of it if nothing is said.
    failing_write_bytes: Option<usize>,
    operations_left: Option<u64>,
    watches_readers: bool,
    syncs: u64,
    failures: u64,
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

/// A sector that the medium holds, and that no later write hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableSector {
    /// Its number in its file.
    pub sector: usize,
    /// The number of the sync that made it durable, as [`MemoryDisk::syncs`] counts. What a crash or a failed sync left
    /// has the number of the next one: no sync has promised it.
    pub since: u64,
}

/// A file that was taken away, to be given back.
#[derive(Debug)]
pub struct LostFile(usize);

impl MemoryDisk {
    /// An empty directory.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// An empty directory whose salts follow from `seed`.
    pub fn with_salts(seed: u32) -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.disk().salts = seed;
        disk
    }

    /// Another disk with the same content, as a backup is.
    pub fn copy(&self) -> MemoryDisk {
        MemoryDisk { disk: Arc::new(Mutex::new(self.disk().clone())) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no thread panics while it holds the disk")
    }

    /// What the shell's fdatasync of [`crate::Sync::fd`] does.
    pub fn sync(&self, fd: RawFd) -> io::Result<()> {
        self.disk().sync(fd as usize)
    }

    /// The shell's fdatasync fails: of what was written those sectors become durable that survive, the cache goes on
    /// showing the others.
    pub fn sync_failing(&self, fd: RawFd, survives: impl FnMut(usize) -> bool) -> io::Error {
        self.disk().fail_sync(fd as usize, survives)
    }

    /// How many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// How many calls failed.
    pub fn failures(&self) -> u64 {
        self.disk().failures
    }

    /// Power loss: what is not synced survives sector by sector as `survives` says of its number. Open handles must
    /// not be used any more.
    pub fn crash(&self, mut survives: impl FnMut(usize) -> bool) {
        let disk = &mut *self.disk();
        for file in &mut disk.files {
            if !file.written.is_empty() {
                file.mapped = None;
                file.settle(disk.syncs + 1, &mut survives);
            }
            file.forget_cache();
            file.failed = false;
            file.readers.clear();
        }
        disk.operations_left = None;
        if !survives(0) {
            disk.names = disk.durable_names.clone();
        }
        disk.durable_names = disk.names.clone();
    }

    /// From now on a file whose first block is written again while somebody holds a mapping of it stops the test: its
    /// bytes would change under that reader. A crash ends all readers.
    pub fn watch_readers(&self) {
        self.disk().watches_readers = true;
    }

    /// The next `count` syncs fail, and the written sectors are dropped while the cache still shows them.
    pub fn fail_syncs(&self, count: u32) {
        self.disk().fail_syncs = count;
    }

    /// The next `count` writes fail halfway.
    pub fn fail_writes(&self, count: u32) {
        let mut disk = self.disk();
        (disk.fail_writes, disk.failing_write_bytes) = (count, None);
    }

    /// The next write carries out its first `bytes` and fails.
    pub fn fail_write_after(&self, bytes: usize) {
        let mut disk = self.disk();
        (disk.fail_writes, disk.failing_write_bytes) = (1, Some(bytes));
    }

    /// The next `count` times that cold bytes are brought in, the disk cannot give them.
    pub fn fail_reads(&self, count: u32) {
        self.disk().fail_reads = count;
    }

    /// The disk refuses to read a block of a file, which no cache holds any more, until it is written again.
    pub fn refuse_block(&self, name: &str, block: usize) {
        let disk = &mut *self.disk();
        let file = disk.names.get(name).map(|number| &mut disk.files[*number]).expect("the refused file is there");
        let all = || (0..file.bytes / BLOCK_BYTES).collect();
        file.warm.get_or_insert_with(all).remove(&block);
        file.refused.insert(block);
    }

    /// The cache drops everything that it holds.
    pub fn chill(&self) {
        self.disk().files.iter_mut().for_each(|file| file.warm = Some(BTreeSet::new()));
    }

    /// The power goes after `count` more changes: every later one fails, until [`MemoryDisk::crash`].
    pub fn cut_power_after(&self, count: u64) {
        self.disk().operations_left = Some(count);
    }

    /// The power stays, if it was to go and has not gone.
    pub fn keep_power(&self) {
        self.disk().operations_left = None;
    }

    /// Whether the power has gone, if it was to go.
    pub fn is_without_power(&self) -> bool {
        self.disk().operations_left == Some(0)
    }

    /// How much may still be created, or no limit.
    pub fn limit_free_bytes(&self, bytes: Option<u64>) {
        self.disk().free_bytes = bytes;
    }

    /// No fault that was set waits any more. What has happened stays.
    pub fn heal(&self) {
        let mut disk = self.disk();
        disk.files.iter_mut().for_each(|file| file.refused.clear());
        (disk.fail_syncs, disk.fail_writes, disk.free_bytes, disk.operations_left) = (0, 0, None, None);
        disk.fail_reads = 0;
    }

    /// What the disk holds of a file, synced or not.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(name).map(|number| disk.files[*number].on_disk())
    }

    /// Replaces a file's content on the medium and in the cache: rot, or another machine's file.
    pub fn replace(&self, name: &str, content: Vec<u8>) {
        let disk = &mut *self.disk();
        let number = match disk.names.get(name) {
            Some(number) => *number,
            None => disk.files.len(),
        };
        disk.names.insert(name.to_string(), number);
        disk.durable_names.insert(name.to_string(), number);
        if number == disk.files.len() {
            disk.files.push(MemoryFile::default());
        }
        let (writes, syncs) = (disk.files[number].writes, disk.files[number].syncs);
        let mut file = MemoryFile { writes, syncs, ..MemoryFile::new(content.len()) };
        file.write(0, &[&content], content.len());
        file.settle(disk.syncs, &mut |_| true);
        disk.files[number] = file;
    }

    /// The sectors of a file that the medium holds and that ever held anything but zeros.
    pub fn durable_sectors(&self, name: &str) -> Vec<DurableSector> {
        let disk = self.disk();
        let Some(file) = disk.names.get(name).map(|number| &disk.files[*number]) else { return Vec::new() };
        let visible = |(sector, stored): (usize, &Option<Box<Stored>>)| {
            let since = stored.as_ref()?.since;
            (!file.written.contains_key(&sector)).then_some(DurableSector { sector, since })
        };
        file.medium.iter().enumerate().filter_map(visible).collect()
    }

    /// Damages a durable sector: `change` is given what the medium holds and what it held before. Returns the content
    /// before the damage. The sector must be one of [`MemoryDisk::durable_sectors`].
    pub fn damage(&self, name: &str, sector: usize, change: impl FnOnce(&mut Sector, &Sector)) -> Sector {
        let disk = &mut *self.disk();
        let file = disk.names.get(name).map(|number| &mut disk.files[*number]).expect("the damaged file is there");
        file.mapped = None;
        let stored = file.medium[sector].as_mut().expect("the damaged sector is durable");
        let intact = stored.content;
        change(&mut stored.content, &stored.before);
        intact
    }

    /// Takes a file away for good.
    pub fn lose(&self, name: &str) -> Option<LostFile> {
        let mut disk = self.disk();
        disk.durable_names.remove(name);
        disk.names.remove(name).map(LostFile)
    }

    /// Gives back a file that was taken away.
    pub fn give_back(&self, name: &str, file: LostFile) {
        let mut disk = self.disk();
        disk.names.insert(name.to_string(), file.0);
        disk.durable_names.insert(name.to_string(), file.0);
    }

    /// How often a file was written and synced.
    pub fn counts(&self, name: &str) -> Option<FileCounts> {
        let disk = self.disk();
        let file = &disk.files[*disk.names.get(name)?];
        Some(FileCounts { writes: file.writes, syncs: file.syncs })
    }

    /// All names, in order.
    pub fn file_names(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
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
            Some(0) => {
                self.failures += 1;
                Err(io::Error::other("the power is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn sync(&mut self, number: usize) -> io::Result<()> {
        self.operate()?;
        if self.fail_syncs > 0 {
            self.fail_syncs -= 1;
            return Err(self.fail_sync(number, |_| false));
        }
        self.syncs += 1;
        let file = &mut self.files[number];
        assert!(!file.failed, "a file whose sync failed is never synced again");
        file.syncs += 1;
        file.settle(self.syncs, &mut |_| true);
        Ok(())
    }

    fn fail_sync(&mut self, number: usize, mut survives: impl FnMut(usize) -> bool) -> io::Error {
        let file = &mut self.files[number];
        assert!(!file.failed, "a file whose sync failed is never synced again");
        file.syncs += 1;
        file.failed = true;
        self.failures += 1;
        let mut lost = file.settle(self.syncs + 1, &mut survives);
        file.stale.append(&mut lost);
        io::Error::from_raw_os_error(5)
    }

    fn write(&mut self, number: usize, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.operate()?;
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let file = &mut self.files[number];
        assert!(offset as usize + bytes <= file.bytes, "a file never grows");
        let is_read = offset == 0 && file.readers.iter().any(|reader| reader.strong_count() > 0);
        assert!(!is_read, "a file is not used again while somebody reads it");
        if self.fail_writes > 0 {
            self.fail_writes -= 1;
            self.failures += 1;
            file.write(offset as usize, parts, self.failing_write_bytes.unwrap_or(bytes / 2));
            return Err(io::Error::from_raw_os_error(5));
        }
        file.writes += 1;
        file.write(offset as usize, parts, bytes);
        Ok(())
    }
}

impl Storage for MemoryDisk {
    fn place(&self) -> String {
        "memory".to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.file_names())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let mut disk = self.disk();
        disk.operate()?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(free) = disk.free_bytes {
            let left = free.checked_sub(bytes);
            disk.failures += u64::from(left.is_none());
            disk.free_bytes = Some(left.ok_or(io::ErrorKind::StorageFull)?);
        }
        let number = disk.files.len();
        disk.files.push(MemoryFile::new(bytes as usize));
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
        let disk = &mut *self.disk();
        disk.operate()?;
        let number = disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(free) = &mut disk.free_bytes {
            *free += disk.files[number].bytes as u64;
        }
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn salt(&self) -> io::Result<u32> {
        let mut disk = self.disk();
        disk.salts = disk.salts.wrapping_add(1);
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
        self.disk.disk().files[self.number].bytes as u64
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        assert!(self.access == Access::Write, "a file that was opened for reading is never written");
        self.disk.disk().write(self.number, offset, parts)
    }

    fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let parts = vec![ZEROS.as_slice(); bytes as usize / SECTOR_BYTES];
        self.write_at(offset, &parts)
    }

    fn read_disk(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.disk();
        let file = &disk.files[self.number];
        if offset as usize + into.len() > file.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if file.refused.range(blocks(offset as usize..offset as usize + into.len())).next().is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.copy_disk(offset as usize, into);
        Ok(())
    }

    fn reads_past_cache(&self) -> bool {
        true
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.disk().files[self.number].forget_cache();
        Ok(())
    }

    /// Nothing: what is written and not synced may be on the medium or not, as in every moment.
    fn begin_write_back(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.disk().sync(self.number)
    }

    fn map(&self) -> io::Result<Bytes> {
        let disk = &mut *self.disk.disk();
        let file = &mut disk.files[self.number];
        let bytes = file.map();
        if !disk.watches_readers {
            return Ok(bytes);
        }
        let reader = Arc::new(());
        file.readers.retain(|reader| reader.strong_count() > 0);
        file.readers.push(Arc::downgrade(&reader));
        Ok(Bytes::from_owner(Mapping { bytes, _reader: reader }))
    }

    fn mapping_is_live(&self) -> bool {
        false
    }

    fn is_resident(&self, _: &[u8], span: Range<usize>) -> io::Result<bool> {
        let disk = self.disk.disk();
        let warm = &disk.files[self.number].warm;
        Ok(warm.as_ref().is_none_or(|warm| blocks(span).all(|block| warm.contains(&block))))
    }

    fn bring_in(&self, _: &[u8], span: Range<usize>) -> io::Result<()> {
        let mut disk = self.disk.disk();
        if disk.fail_reads > 0 {
            disk.fail_reads -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        disk.files[self.number].bring_in(span)
    }

    fn descriptor(&self) -> RawFd {
        self.number as RawFd
    }
}
