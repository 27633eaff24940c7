//! Our log, outside of any node: a new one for each round, its commits, and what is in it afterwards.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use pontoon_types::{ClusterId, CoreWriteNumber, Creation, GroupId, NodeId, ReplicaId};
use pontoon_wal::{Log, LogError, LogIdentity, Options, Recovered, Sync};

use super::measure::LogTotals;
use super::sync;
use super::workload::{Batch, Payloads, Rotation};
use crate::error::{BenchError, ENVIRONMENT, INTERNAL, VERIFICATION};

const IDENTITY: LogIdentity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), log: 1 };

/// How long a commit pauses for a segment that is not ready, as the core's loop does at first.
pub const SEGMENT_PAUSE: Duration = Duration::from_millis(1);

/// Pauses in a row after which no segment is expected any more: a disk that is full, or broken.
pub const SEGMENT_PAUSES_MAX: u64 = 10_000;

/// A log with the numbers of its writes.
pub struct OwnLog {
    log: Log,
    number: CoreWriteNumber,
    segment_pauses: u64,
}

impl OwnLog {
    /// A new log with so many groups, numbered from one.
    pub fn create(dir: &Path, options: &Options, groups: u32) -> Result<OwnLog, BenchError> {
        let creation = || Creation { replica: ReplicaId(1), descriptor: Bytes::new() };
        let groups: Vec<(GroupId, Creation)> =
            (1..=u64::from(groups)).map(|group| (GroupId(group), creation())).collect();
        Log::create(dir, IDENTITY, options, &groups).map_err(failed)?;
        Ok(OwnLog::open(dir, options)?.0)
    }

    /// Opens a log that is there.
    pub fn open(dir: &Path, options: &Options) -> Result<(OwnLog, Recovered), BenchError> {
        let (log, recovered) = Log::open(dir, IDENTITY, options).map_err(failed)?;
        Ok((OwnLog { log, number: CoreWriteNumber(0), segment_pauses: 0 }, recovered))
    }

    /// Gathers a batch, and says its number.
    pub fn append(&mut self, batch: &Batch) -> CoreWriteNumber {
        self.number.0 += 1;
        self.log.append(self.number, batch.writes());
        self.number
    }

    /// Writes the gathered group, if a segment is there for it.
    pub fn begin_sync(&mut self) -> Result<Option<Sync>, BenchError> {
        let begun = self.log.begin_sync().map_err(failed)?;
        self.segment_pauses += u64::from(begun.is_none());
        Ok(begun)
    }

    /// Takes the result of the sync that was begun.
    pub fn finish_sync(&mut self, result: std::io::Result<()>) -> Result<CoreWriteNumber, BenchError> {
        self.log.finish_sync(result).map_err(failed)
    }

    /// Makes everything gathered durable and waits for it.
    pub fn commit(&mut self) -> Result<(), BenchError> {
        let mut pauses = 0;
        while self.log.is_gathered() {
            match self.begin_sync()? {
                Some(begun) => {
                    let result = sync::carry_out(&begun);
                    self.finish_sync(result)?;
                }
                None if pauses < SEGMENT_PAUSES_MAX => {
                    pauses += 1;
                    std::thread::sleep(SEGMENT_PAUSE);
                }
                None => return Err(no_segment()),
            }
        }
        Ok(())
    }

    /// What the log has counted.
    pub fn totals(&self) -> LogTotals {
        let stats = self.log.stats();
        LogTotals {
            bytes: stats.bytes,
            prepared_bytes: stats.prepared_bytes,
            syncs: Some(stats.groups),
            segment_pauses: self.segment_pauses,
        }
    }

    /// The log itself, to be asked.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// A clean stop.
    pub fn close(self) -> Result<(), BenchError> {
        self.log.close().map_err(failed)
    }
}

/// The end of a wait that has lasted too long.
pub fn no_segment() -> BenchError {
    let seconds = (SEGMENT_PAUSE * SEGMENT_PAUSES_MAX as u32).as_secs();
    BenchError::new(ENVIRONMENT, format!("no segment was prepared within {seconds} s; is the disk full?"))
}

/// Counts the entries of an opened log, and compares every one that is kept with what was written.
pub fn verify(
    log: &mut OwnLog,
    recovered: &Recovered,
    groups: u32,
    payload_bytes: usize,
    made: u64,
) -> Result<u64, BenchError> {
    let (rotation, payloads) = (Rotation::all(groups), Payloads::new(payload_bytes));
    let mut found = 0;
    for id in recovered.groups.keys() {
        let wrong = |why: String| BenchError::new(VERIFICATION, format!("group {id} of the opened log: {why}"));
        let group = log.log.load(*id).map_err(|error| wrong(error.to_string()))?;
        let expected = rotation.count_in(id.0, made);
        let first = recovered.groups[id].compacted.index.0 + 1;
        if group.entries.len() as u64 + first - 1 != expected {
            let found = group.entries.len() as u64 + first - 1;
            return Err(wrong(format!("{found} entries instead of {expected}")));
        }
        for (entry, index) in group.entries.iter().zip(first..) {
            let place = (index - 1) * rotation.groups() + id.0 - 1;
            if (entry.id.index.0, entry.id.term) != (index, Batch::TERM) || entry.payload != payloads.get(place) {
                return Err(wrong(format!("another entry than was written at index {index}, {}", entry.id)));
            }
        }
        found += expected;
    }
    if found != made {
        let line = format!("the opened log has {found} of {made} acknowledged entries");
        return Err(BenchError::new(VERIFICATION, line));
    }
    Ok(found)
}

fn failed(error: LogError) -> BenchError {
    let code = match &error {
        LogError::Corruption { .. } => VERIFICATION,
        LogError::Io { .. } | LogError::Full { .. } => ENVIRONMENT,
        _ => INTERNAL,
    };
    BenchError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_log_is_compared_with_what_was_written() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("log");
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let mut log = OwnLog::create(&dir, &options, 3).unwrap();
        let mut batch = Batch::new(Rotation::all(3), 100);
        for entries in [1, 7, 2] {
            batch.fill(entries);
            log.append(&batch);
            log.commit().unwrap();
        }
        assert_eq!(log.totals().syncs, Some(3));
        log.close().unwrap();

        let (mut log, recovered) = OwnLog::open(&dir, &options).unwrap();
        assert_eq!(verify(&mut log, &recovered, 3, 100, 10).unwrap(), 10);
        let mut refused =
            |groups, payload_bytes, made| verify(&mut log, &recovered, groups, payload_bytes, made).unwrap_err();
        assert!(refused(3, 100, 11).line.contains("3 entries instead of 4"), "one is missing");
        assert!(refused(3, 100, 9).line.contains("4 entries instead of 3"), "one is too much");
        assert!(refused(3, 101, 10).line.contains("another entry than was written at index 1"), "another payload");
        assert!(refused(4, 100, 10).line.contains("entries instead of"), "another rotation");
        assert_eq!(refused(3, 100, 11).code, VERIFICATION);
    }
}
