//! Writes all that the groups of one core are into its new log.
//!
//! Writes gather up to [`WRITE_BYTES_MAX`] or a quarter of a segment, whichever is less, and each such batch is synced
//! before the next is read. A write of one replica is a part of a batch, so it always fits into a segment; an entry that
//! is larger than a batch goes alone, as it did in the log that it comes from.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pontoon_types::{Compaction, CoreId, CoreWriteNumber, Creation, GroupId, HardState, Index, LogId, Write};
use pontoon_wal::{Log, LogError, ReadError};

use super::{Home, Resident};
use crate::driver::ring::Ring;
use crate::error::StartError;

/// Most bytes that are read from the old logs and written to a new one between two syncs, unless one entry is larger.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// What an entry takes beside its payload, rounded up: a run, a record, padding.
const ENTRY_BYTES: usize = 64;

/// How long the next segment may be in preparation. Far more than a slow disk needs for the largest.
const SEGMENT_PATIENCE: Duration = Duration::from_secs(120);

/// Why a log was not filled.
pub(super) enum Failure {
    /// It cannot hold the groups, or they are not whole.
    Refused(String),
    /// A log or the machine has failed.
    Start(StartError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::Start(error)
    }
}

/// Fills the new log of a core, and closes it. All of it is durable then.
pub(super) fn fill(core: CoreId, log: Log, home: &Home, old: &mut [Log]) -> Result<(), Failure> {
    let ring = Ring::new().map_err(|error| StartError::IoUring { why: error.to_string() })?;
    let batch_bytes_max = WRITE_BYTES_MAX.min(log.segment_bytes() as usize / 4);
    let mut filler =
        Filler { core, log, ring, number: CoreWriteNumber(0), batch: Vec::new(), batch_bytes: 0, batch_bytes_max };
    for (group, dead) in &home.tombstones {
        // A log knows the dead only of groups that it has held (law 11).
        let create = Some(Box::new(Creation { replica: *dead, descriptor: Bytes::new() }));
        filler.put(*group, Write { create, remove: Some(*dead), ..Write::default() })?;
    }
    let have = old.len();
    for resident in &home.groups {
        filler.copy(resident, &mut old[resident.from], have)?;
    }
    filler.finish()
}

struct Filler {
    core: CoreId,
    log: Log,
    ring: Ring,
    number: CoreWriteNumber,
    batch: Vec<(GroupId, Write)>,
    batch_bytes: usize,
    batch_bytes_max: usize,
}

impl Filler {
    /// Copies one group, its entries piece by piece.
    fn copy(&mut self, resident: &Resident, from: &mut Log, have: usize) -> Result<(), Failure> {
        let Resident { group, kept, .. } = resident;
        let create = Some(Box::new(Creation { replica: kept.replica, descriptor: kept.descriptor.clone() }));
        self.put(*group, Write { create, ..Write::default() })?;
        let hard_state = Some(kept.hard_state).filter(|state| *state != HardState::default());
        // The log does not hold what stands before its entries, so they begin behind a reset.
        let reset = Compaction { to: kept.compacted, reset: true };
        let compact = Some(reset).filter(|reset| reset.to != LogId::default());
        if hard_state.is_some() || compact.is_some() {
            self.put(*group, Write { hard_state, compact, ..Write::default() })?;
        }
        let (entries_max, bytes_max) = (self.batch_bytes_max / 2 / ENTRY_BYTES, self.batch_bytes_max / 2);
        let mut next = kept.compacted.index.next();
        while next <= kept.last.index {
            let through = Index(next.0 + entries_max as u64 - 1);
            let entries =
                from.read_patiently(*group, next, through, bytes_max).map_err(|error| unread(resident, error, have))?;
            let last = entries.last().map(|entry| entry.id.index);
            next = last.expect("law: a read gives at least one of the entries that are there").next();
            // Of what it says only that counts which is there by then.
            let committed = Some(kept.committed).filter(|index| *index > kept.compacted.index);
            self.put(*group, Write { entries, committed, ..Write::default() })?;
        }
        Ok(())
    }

    /// Adds a write to the batch; one that is full is written first.
    fn put(&mut self, group: GroupId, write: Write) -> Result<(), Failure> {
        let entries = write.entries.iter().map(|entry| entry.payload.len() + ENTRY_BYTES).sum::<usize>();
        let descriptor = write.create.as_ref().map_or(0, |creation| creation.descriptor.len());
        let bytes = 3 * ENTRY_BYTES + descriptor + entries;
        if self.batch_bytes + bytes > self.batch_bytes_max {
            self.sync()?;
        }
        self.batch.push((group, write));
        self.batch_bytes += bytes;
        Ok(())
    }

    /// Makes the batch durable.
    fn sync(&mut self) -> Result<(), Failure> {
        self.number = CoreWriteNumber(self.number.0 + 1);
        self.log.append(self.number, &self.batch);
        self.batch.clear();
        self.batch_bytes = 0;
        let mut waiting_since = None;
        while self.log.is_gathered() {
            match self.log.begin_sync().map_err(|error| self.unwritten(error))? {
                Some(begun) => {
                    let result = self.ring.sync(begun.fd).and_then(|()| self.ring.wait());
                    self.log.finish_sync(result).map_err(|error| self.unwritten(error))?;
                    waiting_since = None;
                }
                // The next segment is being prepared.
                None if waiting_since.get_or_insert_with(Instant::now).elapsed() < SEGMENT_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                None => {
                    let seconds = SEGMENT_PATIENCE.as_secs();
                    let why = format!("the disk gave no room for a segment in {seconds} s; free some space on it");
                    return Err(Failure::Refused(why));
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.sync()?;
        let core = self.core;
        Ok(self.log.close().map_err(|source| StartError::Log { core, source })?)
    }

    fn unwritten(&self, error: LogError) -> Failure {
        match error {
            LogError::Full { max_log_bytes } => Failure::Refused(format!(
                "its groups do not fit into the new log of core {}, max_log_bytes = {max_log_bytes}; raise it",
                self.core
            )),
            source => Failure::Start(StartError::Log { core: self.core, source }),
        }
    }
}

/// Why an entry of an old log cannot be copied.
fn unread(resident: &Resident, error: ReadError, have: usize) -> Failure {
    match error {
        ReadError::Rotten { .. } => Failure::Refused(format!(
            "{error}; start with {have} cores until the peers have given it back, then with the new number"
        )),
        source => StartError::Read { core: CoreId(resident.from as u16), source }.into(),
    }
}
