//! Readers of a running log, scrubbing, what an open reads and what the index takes, by case number.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pontoon_types::{CoreWriteNumber, GroupId, Index, LogId, Term, Write};
use pontoon_wal::format::checkpoint::RunPlace;
use pontoon_wal::format::group::payloads_start;
use pontoon_wal::format::segment_header::Stream;
use pontoon_wal::storage::{Access, SegmentFile, Storage};
use pontoon_wal::{Log, LogError, Options, Preparation, ReadError, RottenEntry};
use tempfile::TempDir;

use crate::allocation::held_bytes;
use crate::append_path::over_both;
use crate::common::{IDENTITY, Rig, compact, created, entries, entry, groups_in, opened, small};
use crate::keeping::busy;

/// One core write. A log of twelve small segments is full now and then, until its keeper has freed one.
pub fn commit(log: &mut Log, number: u64, writes: &[(GroupId, Write)]) {
    log.append(CoreWriteNumber(number), writes);
    while log.is_gathered() || log.in_flight() {
        match log.begin_sync() {
            Ok(Some(_)) => drop(log.finish_sync(Ok(())).unwrap()),
            Ok(None) | Err(LogError::Full { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs a test with a busy log in a directory of its own, over both append paths.
fn on_files(test: impl Fn(TempDir, Log)) {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let options = Options { append_path, ..busy() };
        Log::create(&path, IDENTITY, &options, &created(2)).unwrap();
        let (log, _) = Log::open(&path, IDENTITY, &options).unwrap();
        test(directory, log);
    });
}

/// A configuration is no command, in the running log and after a restart, whatever stands beside it in one write.
#[test]
fn the_kind_of_an_entry_is_kept() {
    use pontoon_types::{Entry, EntryKind};
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    let kinds = [EntryKind::Command, EntryKind::Configuration, EntryKind::Configuration, EntryKind::Command];
    let written = kinds.iter().zip(1..).map(|(kind, index)| Entry { kind: *kind, ..entry(index, 1, "the same bytes") });
    let written: Vec<Entry> = written.collect();
    rig.commit(&mut log, 1, &[entries(2, written.clone())]);
    let restored = Write { restored: written[1..3].to_vec(), ..Write::default() };
    rig.commit(&mut log, 2, &[(GroupId(2), restored)]);
    assert_eq!(log.read(GroupId(2), Index(1), Index(4), usize::MAX).unwrap(), written);
    drop(log);
    let (mut log, _) = rig.open();
    assert_eq!(log.load(GroupId(2)).unwrap().entries, written);
}

/// Fills segments with entries from `index` on and gives them up, until so many more became free. Returns the next one.
fn churn(log: &mut Log, index: u64, freed: u64) -> u64 {
    let before = log.stats().freed_segments;
    let mut next = index;
    while log.stats().freed_segments < before + freed {
        let mut writes = vec![entries(3, vec![entry(next, 1, vec![next as u8; 9000])])];
        writes.extend((next > 2).then(|| compact(3, next - 2, 1)));
        commit(log, 100 + next, &writes);
        next += 1;
        assert!(next < index + 100_000, "segments become free");
    }
    next
}

#[test]
fn case_45_a_slot_is_not_used_again_while_somebody_reads_it() {
    on_files(|_directory, mut log| {
        let log = &mut log;
        commit(log, 1, &[entries(2, vec![entry(1, 1, vec![0xab; 7000])])]);
        let held = log.load(GroupId(2)).unwrap().entries.remove(0).payload;
        commit(log, 2, &[compact(2, 1, 1)]);
        let next = churn(log, 1, 12);
        assert!(log.segments().1 > 0, "the segment is given up and read: {:?}", log.segments());
        assert!(held == vec![0xab_u8; 7000], "the bytes are those that were read");
        drop(held);
        churn(log, next, 1);
        assert_eq!(log.segments().1, 0, "and free once nobody reads it");
    });
}

#[test]
fn case_46_what_was_read_stays_when_the_segment_is_closed_and_the_log_is_gone() {
    on_files(|directory, mut log| {
        commit(&mut log, 1, &[entries(2, vec![entry(1, 1, vec![0xcd; 5000])])]);
        let open = log.read(GroupId(2), Index(1), Index(1), 1).unwrap().remove(0).payload;
        churn(&mut log, 1, 1);
        let closed = log.read(GroupId(2), Index(1), Index(1), 1).unwrap().remove(0).payload;
        log.close().unwrap();
        drop(directory);
        assert!(open == vec![0xcd_u8; 5000] && closed == open);
    });
}

/// An entry of group 2 and term 1 whose payload was this.
fn rotten(index: u64, payload: &[u8]) -> Option<RottenEntry> {
    let id = LogId::new(Index(index), Term(1));
    Some(RottenEntry { group: GroupId(2), id, crc: crc32fast::hash(payload) })
}

#[test]
fn case_53_scrubbing_names_what_rots() {
    let rig = Rig::new(Options { checkpoint_segments: 1000, ..small() }, 2);
    let (mut log, _) = rig.open();
    for index in 1..=12 {
        rig.commit(&mut log, index, &[entries(2, vec![entry(index, 1 + index / 5, vec![index as u8; 9000])])]);
    }
    assert_eq!(log.scrub().unwrap(), [], "a healthy disk");
    // The header, the creation, then groups of three blocks.
    let at = 2 * 4096 + 112 + 8000;
    rig.damage("slot-001.seg", |bytes| bytes[at] ^= 0x10);
    let found = log.scrub().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].entry, found[0].file.as_str()), (rotten(1, &[1; 9000]), "slot-001.seg"));
    // A directory: the footer has it again, so nothing that a peer could give is lost.
    rig.damage("slot-001.seg", |bytes| {
        bytes[at] ^= 0x10;
        bytes[5 * 4096 + 70] ^= 1;
    });
    let found = log.scrub().unwrap();
    assert_eq!(found.iter().map(|rot| (rot.offset, rot.entry)).collect::<Vec<_>>(), [(5 * 4096, None)]);
    // Copies are looked at as well, in segments that were filled as in the one that is not.
    let rig = Rig::new(busy(), 2);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[entries(2, (1..=9).map(|index| entry(index, 1, vec![index as u8; 900])).collect())]);
    let mut index = 2;
    while log.stats().moved_runs == 0 {
        let writes = [entries(3, vec![entry(index - 1, 1, vec![index as u8; 9000])]), compact(3, index - 1, 1)];
        rig.commit(&mut log, index, &writes);
        index += 1;
    }
    rig.commit(&mut log, index, &[]);
    assert_eq!(log.scrub().unwrap(), []);
    let cold = |name: &String| rig.header(name).is_some_and(|header| header.stream == Stream::Cold);
    let name = rig.slots().into_iter().find(cold).unwrap();
    rig.damage(&name, |bytes| bytes[4096 + 64 + 32 + 9 * 12 + 20 + 4 * 912] ^= 1);
    let found = log.scrub().unwrap();
    assert_eq!(found.iter().map(|rot| rot.entry).collect::<Vec<_>>(), [rotten(5, &[5; 900])]);
}

#[test]
fn case_53_a_payload_that_was_given_back_or_given_up_is_not_named_again() {
    let rig = Rig::new(Options { checkpoint_segments: 1000, ..small() }, 2);
    let (mut log, _) = rig.open();
    let of = |index: u64| entry(index, 1, vec![index as u8; 9000]);
    for index in 1..=12 {
        rig.commit(&mut log, index, &[entries(2, vec![of(index)])]);
    }
    // The header, the creation, then groups of three blocks: entries 1 and 2.
    rig.damage("slot-001.seg", |bytes| {
        bytes[2 * 4096 + 112 + 8000] ^= 1;
        bytes[5 * 4096 + 112 + 8000] ^= 1;
    });
    let named = |log: &mut Log| log.scrub().unwrap().iter().map(|rot| rot.entry).collect::<Vec<_>>();
    assert_eq!(named(&mut log), [rotten(1, &[1; 9000]), rotten(2, &[2; 9000])]);
    rig.commit(&mut log, 13, &[(GroupId(2), Write { restored: vec![of(1)], ..Write::default() })]);
    assert_eq!(named(&mut log), [rotten(2, &[2; 9000])], "the other one is still missed");
    rig.commit(&mut log, 14, &[compact(2, 2, 1)]);
    assert_eq!(named(&mut log), []);
}

#[test]
fn case_53_scrubbing_reads_cold_segments_to_their_end() {
    let laggards = 20;
    let max_log_bytes = 30 * (36 << 10);
    let rig = Rig::new(Options { max_log_bytes, checkpoint_segments: 2, ..small() }, 1 + laggards);
    let (mut log, _) = rig.open();
    let old: Vec<_> = (1..=9).map(|index| entry(index, 1, vec![index as u8; 900])).collect();
    for index in 1..=400 {
        let mut writes = vec![entries(2, vec![entry(index, 1, vec![1; 9000])]), compact(2, index, 1)];
        writes.extend((index % 5 == 0 && index <= 5 * laggards).then(|| entries(2 + index / 5, old.clone())));
        rig.commit(&mut log, index, &writes);
    }
    assert_eq!(log.scrub().unwrap(), []);
    let mut damaged = 0;
    for name in rig.slots() {
        let Some(header) = rig.header(&name).filter(|header| header.stream == Stream::Cold) else { continue };
        let content = rig.disk.content(&name).unwrap();
        let groups = groups_in(&content).into_iter();
        // The last group: of a segment that was filled and left, and of the one that is written to.
        let own = groups.filter(|(_, group)| (group.segment, group.salt) == (header.segment, header.salt));
        let (at, group) = own.max_by_key(|(at, _)| *at).unwrap();
        rig.damage(&name, |bytes| bytes[at + payloads_start(group.dir_len as usize) + 10] ^= 1);
        let found = log.scrub().unwrap();
        assert!(found.len() == 1 && found[0].file == name && found[0].entry.is_some(), "{name}: {found:?}");
        rig.disk.replace(&name, content);
        damaged += 1;
    }
    assert!(damaged >= 3, "{damaged} cold segments");
}

#[test]
fn a_part_of_a_run_that_was_verified_says_nothing_of_the_other_parts() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    let of = |index: u64| entry(index, 1, vec![index as u8; 100]);
    rig.commit(&mut log, 1, &[entries(2, (1..=10).map(of).collect())]);
    rig.seal(&mut log);
    drop(log);
    // Entries 5 and 8: payloads of 112 bytes behind the header, the run and ten records.
    let payload = |index: usize| 2 * 4096 + (64 + 32 + 120_usize).next_multiple_of(16) + (index - 1) * 112;
    rig.damage("slot-001.seg", |bytes| [5, 8].into_iter().for_each(|index| bytes[payload(index)] ^= 1));
    let (mut log, opened) = rig.open();
    assert_eq!(opened.groups[&GroupId(2)].lost, [Index(5), Index(8)]);
    drop(opened);
    // One of them is given back by a peer: it now lies between two parts of the old run.
    rig.commit(&mut log, 1, &[(GroupId(2), Write { restored: vec![of(5)], ..Write::default() })]);
    assert_eq!(log.read(GroupId(2), Index(1), Index(5), 1 << 20).unwrap().len(), 5);
    assert_eq!(log.read(GroupId(2), Index(6), Index(10), 1 << 20).unwrap().len(), 2, "up to the rotten one");
    let error = log.read(GroupId(2), Index(8), Index(10), 1 << 20).unwrap_err();
    assert!(matches!(error, ReadError::Rotten { id, .. } if id == LogId::new(Index(8), Term(1))), "{error}");
}

/// A storage that counts what is read from it.
struct Counting {
    disk: pontoon_wal::memory::MemoryDisk,
    read_bytes: Arc<AtomicU64>,
    mapped_files: Arc<AtomicU64>,
}

struct CountingFile {
    file: Arc<dyn SegmentFile>,
    read_bytes: Arc<AtomicU64>,
    mapped_files: Arc<AtomicU64>,
}

impl Counting {
    fn counted(&self, file: Arc<dyn SegmentFile>) -> Arc<dyn SegmentFile> {
        let (read_bytes, mapped_files) = (self.read_bytes.clone(), self.mapped_files.clone());
        Arc::new(CountingFile { file, read_bytes, mapped_files })
    }
}

impl Storage for Counting {
    fn place(&self) -> String {
        self.disk.place()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        self.disk.create(name, bytes).map(|file| self.counted(file))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn SegmentFile>> {
        self.disk.open(name, access).map(|file| self.counted(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn salt(&self) -> io::Result<u32> {
        self.disk.salt()
    }
}

impl SegmentFile for CountingFile {
    fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(offset, parts)
    }

    fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.write_zeros(offset, bytes)
    }

    fn read_disk(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_bytes.fetch_add(into.len() as u64, Ordering::Relaxed);
        self.file.read_disk(offset, into)
    }

    fn reads_past_cache(&self) -> bool {
        self.file.reads_past_cache()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }

    fn begin_write_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.begin_write_back(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn map(&self) -> io::Result<Bytes> {
        self.mapped_files.fetch_add(1, Ordering::Relaxed);
        self.file.map()
    }

    fn mapping_is_live(&self) -> bool {
        self.file.mapping_is_live()
    }

    fn descriptor(&self) -> RawFd {
        self.file.descriptor()
    }
}

#[test]
fn case_58_an_open_reads_footers_and_not_segments() {
    let segment_bytes = 256 << 10;
    for (checkpoint_segments, is_clean) in [(1000, true), (1000, false), (8, true), (8, false)] {
        let options = Options { segment_bytes, max_log_bytes: 64 << 20, checkpoint_segments, ..small() };
        let rig = Rig::new(options.clone(), 2);
        let (mut log, _) = rig.open();
        for index in 1..=1000 {
            rig.commit(&mut log, index, &[entries(2, vec![entry(index, 1, vec![index as u8; 12_000])])]);
        }
        if is_clean {
            log.close().unwrap()
        } else {
            drop(log)
        }
        let (read_bytes, mapped_files) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (disk, counters) = (rig.disk.clone(), (read_bytes.clone(), mapped_files.clone()));
        let unused = rig.slots().iter().filter(|name| rig.header(name).is_none()).count() as u64;
        let storage = Arc::new(Counting { disk, read_bytes: counters.0, mapped_files: counters.1 });
        let (mut log, recovered) = Log::open_in(storage, IDENTITY, &options, Preparation::Inline).unwrap();
        let read = read_bytes.load(Ordering::Relaxed);
        let mapped = mapped_files.load(Ordering::Relaxed);
        let slots = rig.slots().len() as u64;
        assert!(slots > 50 && recovered.segments == recovered.footers + 1);
        assert_eq!(recovered.segments < 20, checkpoint_segments == 8, "a checkpoint stands for the segments before it");
        // The first block of each slot, a block or two of each footer, the tail twice, two checkpoints, and `ctl`.
        let mut allowed = slots * 4096 + recovered.footers as u64 * 2 * 4096 + 5 * segment_bytes + 8192;
        // After a crash also the slots that look unused, any of which a torn rotation may have begun.
        allowed += if is_clean { 0 } else { unused * segment_bytes };
        assert!(read <= allowed, "{read} bytes read of {}, {allowed} allowed", slots * segment_bytes);
        assert!(read < slots * segment_bytes / 6);
        // The segment with the descriptors, and after a crash the one that still lacks its footer.
        assert_eq!(mapped, if is_clean { 1 } else { 2 }, "segments mapped");
        assert_eq!(opened(&mut log, recovered).groups[&GroupId(2)].entries.len(), 1000);
    }
}

#[test]
fn an_idle_group_takes_128_bytes_of_memory_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        Options { segment_bytes: 8 << 20, max_log_bytes: 256 << 20, group_bytes_max: 1 << 20, ..Options::default() };
    let held_with = |groups: u64| {
        let path = directory.path().join(format!("{groups}"));
        Log::create(&path, IDENTITY, &options, &created(groups)).unwrap();
        let (mut log, _) = Log::open(&path, IDENTITY, &options).unwrap();
        let writes: Vec<_> = (2..2 + groups).map(|group| entries(group, vec![entry(1, 1, "one")])).collect();
        for (number, some) in writes.chunks(1000).enumerate() {
            commit(&mut log, number as u64 + 1, some);
        }
        log.close().unwrap();
        let before = held_bytes();
        let (mut log, recovered) = Log::open(&path, IDENTITY, &options).unwrap();
        assert_eq!(recovered.groups.len(), groups as usize);
        drop(recovered);
        let held = held_bytes() - before;
        assert_eq!(log.load(GroupId(1 + groups)).unwrap().entries.len(), 1);
        held
    };
    let groups = 100_000;
    let each = (held_with(groups) - held_with(1)) as f64 / groups as f64;
    assert!(each <= 128.0, "{each} bytes for a group with one run");
    assert!(size_of::<RunPlace>() <= 24);
}
