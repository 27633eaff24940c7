//! The running log of one core: gather, write, hand out the sync, fence.
//!
//! The shell's part is small and in this order: [`Log::append`] once a turn, [`Log::begin_sync`] when none is in
//! flight, an fdatasync of [`Sync::fd`] through its own ring, [`Log::finish_sync`] with the result. While a sync is in
//! flight the next group gathers; that is group commit. When nothing happened for some milliseconds it calls
//! [`Log::begin_seal`] and treats what that returns like any other sync.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pontoon_types::{CoreWriteNumber, GroupId, Incarnation, Write};

use crate::append::Gathered;
use crate::control::Note;
use crate::format::BLOCK_BYTES;
use crate::format::group::FLAG_SEAL;
use crate::prepare::Supply;
use crate::storage::Storage;
use crate::write::Writer;
use crate::{LogError, Options};

/// How long [`Log::close`] waits for a segment to be prepared.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// One sync that the shell carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Needs one fdatasync. Open until the log is dropped or a later sync is begun.
    pub fd: RawFd,
    /// When that succeeds, this core write and all before it are durable.
    pub through: CoreWriteNumber,
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups of records written, SEALs not counted.
    pub groups: u64,
    /// SEALs written.
    pub seals: u64,
    /// Bytes handed to the disk by appends and SEALs, headers and padding included.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Writes of replicas in them.
    pub writes: u64,
    /// Zero bytes written ahead of use, by the background thread.
    pub prepared_bytes: u64,
}

struct Flight {
    through: CoreWriteNumber,
    /// The group is the first of its segment, so that its success proves a new segment.
    starts_segment: bool,
}

/// The log of one core.
///
/// Invariants:
/// - one group is in flight at most, and it is the last one written;
/// - core writes become durable in the order of their numbers;
/// - after a failed write or sync nothing is written or synced any more.
///
/// Dropping a log without [`Log::close`] is a crash as far as the disk is concerned: what was not synced may be lost.
pub struct Log {
    pub(crate) supply: Supply,
    pub(crate) writer: Writer,
    pub(crate) gathered: Gathered,
    pub(crate) segment_bytes: u64,
    pub(crate) max_log_bytes: u64,
    pub(crate) incarnation: Incarnation,
    flight: Option<Flight>,
    fence: Option<String>,
    appended: CoreWriteNumber,
    written: CoreWriteNumber,
    durable: CoreWriteNumber,
    sealed: bool,
    last_group_entries: usize,
    stats: Stats,
    /// Last, so that the lock on the directory goes after everything else.
    _storage: Arc<dyn Storage>,
}

impl Log {
    /// A log whose writer stands behind a durable end.
    pub(crate) fn ready(
        storage: Arc<dyn Storage>,
        supply: Supply,
        writer: Writer,
        segment_bytes: u64,
        incarnation: Incarnation,
        options: &Options,
    ) -> Log {
        let segment_room = segment_bytes as usize - BLOCK_BYTES;
        Log {
            supply,
            writer,
            gathered: Gathered::new(options.group_bytes_max, segment_room),
            segment_bytes,
            max_log_bytes: options.max_log_bytes,
            incarnation,
            flight: None,
            fence: None,
            appended: CoreWriteNumber(0),
            written: CoreWriteNumber(0),
            durable: CoreWriteNumber(0),
            sealed: true,
            last_group_entries: 0,
            stats: Stats::default(),
            _storage: storage,
        }
    }

    /// Gathers one core write. Numbers grow; the groups were given to [`Log::create`]; a write that overwrites entries
    /// carries the truncation. Nothing reaches the disk before [`Log::begin_sync`]. A fenced log ignores it.
    pub fn append(&mut self, number: CoreWriteNumber, writes: &[(GroupId, Write)]) {
        assert!(number > self.appended, "core write numbers grow: {number} after {}", self.appended);
        self.appended = number;
        if self.fence.is_some() {
            return;
        }
        if let Err(bytes) = self.gathered.put(number, writes) {
            // The order cannot be kept without it.
            let limit_bytes = self.segment_bytes - BLOCK_BYTES as u64;
            self.fence = Some(LogError::WriteTooLarge { bytes: bytes as u64, limit_bytes }.to_string());
        }
    }

    /// Writes the oldest gathered group and says what to sync. Nothing when nothing is gathered, when a sync is in
    /// flight, or when the next segment is still being prepared ([`Log::gathered_entries`] then stays up and the
    /// caller asks again a little later). [`LogError::Full`] when no segment will come; that fences nothing.
    pub fn begin_sync(&mut self) -> Result<Option<Sync>, LogError> {
        self.check_fence()?;
        let Some(length) = self.gathered.front_len().filter(|_| self.flight.is_none()) else { return Ok(None) };
        let mut fresh = None;
        if length as u64 > self.writer.room() {
            fresh = self.supply.take();
            if fresh.is_none() && self.supply.is_exhausted() {
                return Err(LogError::Full { max_log_bytes: self.max_log_bytes });
            }
            if fresh.is_none() {
                return Ok(None);
            }
        }
        let starts_segment = fresh.is_some();
        let Some(mut buffer) = self.gathered.pop() else { return Ok(None) };
        let written = self.writer.write(&mut buffer, 0, fresh);
        self.stats.bytes += self.fence_on_error("write", written)?;
        self.stats.groups += 1;
        self.stats.entries += buffer.entries as u64;
        self.stats.writes += buffer.writes as u64;
        self.last_group_entries = buffer.entries;
        self.written = buffer.through.unwrap_or(self.written);
        self.gathered.recycle(buffer);
        self.sealed = false;
        Ok(self.fly(starts_segment))
    }

    /// Writes a SEAL, when the log is idle and has none yet: a group without records that proves everything before it
    /// durable. Nobody's acknowledgement depends on it; a group that is gathered meanwhile is written after its sync.
    pub fn begin_seal(&mut self) -> Result<Option<Sync>, LogError> {
        self.check_fence()?;
        let idle = self.flight.is_none() && self.gathered.is_empty() && !self.sealed;
        if !idle || self.writer.room() < BLOCK_BYTES as u64 {
            return Ok(None);
        }
        let mut buffer = self.gathered.spare();
        let written = self.writer.write(&mut buffer, FLAG_SEAL, None);
        self.gathered.recycle(buffer);
        self.stats.bytes += self.fence_on_error("write", written)?;
        self.stats.seals += 1;
        self.sealed = true;
        Ok(self.fly(false))
    }

    fn fly(&mut self, starts_segment: bool) -> Option<Sync> {
        let through = self.written;
        self.flight = Some(Flight { through, starts_segment });
        self.writer.file().map(|file| Sync { fd: file.descriptor(), through })
    }

    /// Takes the result of the sync in flight: what is durable now. An error fences the log for good; the same sync is
    /// never tried again, because the kernel may have dropped the pages and would call the next one a success.
    pub fn finish_sync(&mut self, result: std::io::Result<()>) -> Result<CoreWriteNumber, LogError> {
        self.check_fence()?;
        let flight = self.flight.take().expect("a sync is finished only while one is in flight");
        self.fence_on_error("sync", result)?;
        self.durable = flight.through;
        if flight.starts_segment {
            let end = self.writer.end();
            self.supply.note(Note { durable_seq: end.seq, newest_segment: end.place.segment });
        }
        Ok(self.durable)
    }

    /// Whether a sync was begun and not finished.
    pub fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Entries that wait for the next sync.
    pub fn gathered_entries(&self) -> usize {
        self.gathered.entries()
    }

    /// Whether anything waits for the next sync, entries or not.
    pub fn is_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Entries in the group written last.
    pub fn last_group_entries(&self) -> usize {
        self.last_group_entries
    }

    /// Whether proposals should be answered with Busy: less than half a segment is left in what is written and what
    /// is ready. That half is the reserve for votes, truncations and what was already proposed; a vote takes one
    /// block, so the reserve of a full-size segment carries 8,192 of them. A log that starts after crashes took above
    /// `max_log_bytes` is full whatever room they gave it.
    pub fn is_full(&self) -> bool {
        let ready_bytes = self.supply.ready() as u64 * (self.segment_bytes - BLOCK_BYTES as u64);
        let is_short = self.writer.room() + ready_bytes < self.segment_bytes / 2;
        self.fence.is_some() || self.supply.is_above_maximum() || is_short
    }

    /// How often this log has been opened. Durable, and larger at each open.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Bytes of all segment files, used or ready or being prepared.
    pub fn bytes(&self) -> u64 {
        self.supply.slots() * self.segment_bytes
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        Stats { prepared_bytes: self.supply.prepared_bytes(), ..self.stats }
    }

    /// A stop: writes and syncs what is gathered, and marks the end as clean, so that the next open trusts it.
    ///
    /// When no segment is left for what is gathered, the rest of it is dropped: none of it was reported as durable.
    /// Such a stop succeeds but is not marked clean, and the next open treats it like a crash.
    pub fn close(mut self) -> Result<(), LogError> {
        self.check_fence()?;
        if self.flight.is_some() {
            // Its result is unknown, so the end is not clean. The next open finds out.
            return Err(LogError::Fenced { why: "closed while a sync was in flight".to_string() });
        }
        while !self.gathered.is_empty() {
            match self.begin_sync() {
                Ok(Some(_)) => {}
                Ok(None) if self.supply.wait(CLOSE_WAIT) => {}
                Ok(None) | Err(LogError::Full { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Some(file) = self.writer.file().filter(|_| self.flight.is_some()).cloned() {
                self.finish_sync(file.sync())?;
            }
        }
        let lost = || LogError::Fenced { why: "the background thread has failed".to_string() };
        let mut control = self.supply.stop().ok_or_else(lost)?;
        control.finish(self.writer.end()).map_err(LogError::io("marking the clean stop in ctl"))
    }

    fn check_fence(&self) -> Result<(), LogError> {
        match &self.fence {
            Some(why) => Err(LogError::Fenced { why: why.clone() }),
            None => Ok(()),
        }
    }

    fn fence_on_error<T>(&mut self, what: &str, result: std::io::Result<T>) -> Result<T, LogError> {
        result.map_err(|error| {
            let why = format!("{what}: {error}");
            self.fence = Some(why.clone());
            LogError::Fenced { why }
        })
    }
}
