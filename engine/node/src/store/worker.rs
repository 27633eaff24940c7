//! Carries out the orders of cores, one after the other. Blocks for the disk, so it runs on a thread of the store.
//!
//! A staging whose file cannot be written is thrown away, and everything that is still ordered for it is answered with why.
//! Nothing else is harmed: the checkpoint before it stays, and so do other groups.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;
use pontoon_types::limits::STORE_READS_MAX;
use pontoon_types::{
    ChunkNumber, GroupId, LogId, ReadFailure, ReadNumber, ReplicaId, SnapshotMeta, StagingNumber, StoreAnswer,
    StoreFailure, StoreOrder,
};

use super::folder::Folder;
use super::read::{CheckpointError, StoredCheckpoint};
use super::stage::Stage;

/// What one thread of the store knows.
///
/// Invariant: each group has at most one staging.
#[derive(Debug)]
pub struct Worker {
    folder: Folder,
    stagings: BTreeMap<GroupId, Staging>,
    reads: BTreeMap<(GroupId, ReadNumber), StoredCheckpoint>,
}

#[derive(Debug)]
struct Staging {
    number: StagingNumber,
    replica: ReplicaId,
    /// The file, or why there is none any more.
    file: Result<Stage, StoreFailure>,
}

impl Worker {
    /// A worker in that folder.
    pub fn new(folder: Folder) -> Worker {
        Worker { folder, stagings: BTreeMap::new(), reads: BTreeMap::new() }
    }

    /// Carries one order out. Nothing to say for orders that are not answered.
    pub fn carry_out(&mut self, order: StoreOrder) -> Option<StoreAnswer> {
        match order {
            StoreOrder::Begin { group, staging, meta } => {
                self.begin(group, staging, meta);
                None
            }
            StoreOrder::Chunk { group, staging, number, bytes } => {
                Some(match self.push(group, staging, number, &bytes) {
                    Ok(()) => StoreAnswer::Taken { group, staging, number },
                    Err(why) => StoreAnswer::Failed { group, staging, why },
                })
            }
            StoreOrder::Finish { group, staging, chunks } => Some(match self.finish(group, staging, chunks) {
                Ok(last) => StoreAnswer::Stored { group, staging, last },
                Err(why) => StoreAnswer::Failed { group, staging, why },
            }),
            StoreOrder::Abandon { group, staging } => {
                if self.stagings.get(&group).is_some_and(|of| of.number == staging) {
                    self.stagings.remove(&group);
                }
                None
            }
            StoreOrder::Read { group, read, last, number } => {
                let result = self.read(group, read, last, number);
                Some(StoreAnswer::Read { group, read, number, result })
            }
            StoreOrder::Close { group, read } => {
                self.reads.remove(&(group, read));
                None
            }
            StoreOrder::Remove { group, replica } => {
                self.remove(group, replica);
                None
            }
        }
    }

    fn begin(&mut self, group: GroupId, number: StagingNumber, meta: SnapshotMeta) {
        // Before the new one, which may have the same number after a restart of its core.
        self.stagings.remove(&group);
        let replica = meta.replica;
        let file = Stage::begin(&mut self.folder, number, meta).map_err(|error| failed(group, "begun", &error));
        self.stagings.insert(group, Staging { number, replica, file });
    }

    /// The file of a staging, if that is the present one of its group and all went well so far.
    fn staging(
        &mut self,
        group: GroupId,
        number: StagingNumber,
    ) -> Result<&mut Result<Stage, StoreFailure>, StoreFailure> {
        let staging = self.stagings.get_mut(&group).filter(|staging| staging.number == number);
        staging.map(|staging| &mut staging.file).ok_or(StoreFailure::Io)
    }

    fn push(
        &mut self,
        group: GroupId,
        staging: StagingNumber,
        number: ChunkNumber,
        bytes: &Bytes,
    ) -> Result<(), StoreFailure> {
        let file = self.staging(group, staging)?;
        let stage = file.as_mut().map_err(|why| *why)?;
        let pushed = if stage.chunks() == number.0 { stage.push(bytes) } else { Err(out_of_order(stage, number.0)) };
        pushed.map_err(|error| {
            let why = failed(group, "written", &error);
            *file = Err(why);
            why
        })
    }

    fn finish(&mut self, group: GroupId, staging: StagingNumber, chunks: u64) -> Result<LogId, StoreFailure> {
        self.staging(group, staging)?;
        let stage = self.stagings.remove(&group).map_or(Err(StoreFailure::Io), |staging| staging.file)?;
        let last = stage.meta().last;
        let finished =
            if stage.chunks() == chunks { stage.finish(&self.folder) } else { Err(out_of_order(&stage, chunks)) };
        finished.map(|_| last).map_err(|error| failed(group, "finished", &error))
    }

    fn read(
        &mut self,
        group: GroupId,
        read: ReadNumber,
        last: LogId,
        number: ChunkNumber,
    ) -> Result<Option<Bytes>, ReadFailure> {
        if !self.reads.contains_key(&(group, read)) {
            let opened = self.folder.open(group).map_err(|error| unread(&error))?;
            let wanted = opened.filter(|stored| stored.meta().last == last).ok_or(ReadFailure::Gone)?;
            if self.reads.len() >= STORE_READS_MAX {
                tracing::warn!("{STORE_READS_MAX} checkpoints are being read; that of {group} is not");
                return Err(ReadFailure::Gone);
            }
            self.reads.insert((group, read), wanted);
        }
        let stored = self.reads.get(&(group, read)).filter(|stored| stored.meta().last == last);
        stored.ok_or(ReadFailure::Gone)?.chunk(number).map_err(|error| unread(&error))
    }

    fn remove(&mut self, group: GroupId, replica: ReplicaId) {
        if self.stagings.get(&group).is_some_and(|staging| staging.replica <= replica) {
            self.stagings.remove(&group);
        }
        let of_group: RangeInclusive<_> = (group, ReadNumber(0))..=(group, ReadNumber(u64::MAX));
        let reads: Vec<_> = self.reads.range(of_group).map(|(key, stored)| (*key, stored.meta().replica)).collect();
        for (key, _) in reads.into_iter().filter(|(_, of)| *of <= replica) {
            self.reads.remove(&key);
        }
        let is_later = match self.folder.open(group) {
            Ok(stored) => stored.is_some_and(|stored| stored.meta().replica > replica),
            // What nobody can read is of no use to a later replica either.
            Err(CheckpointError::Damaged { .. }) => false,
            Err(error) => {
                tracing::error!("{error}; it stays there until the next start");
                return;
            }
        };
        if !is_later && let Err(error) = self.folder.remove(group) {
            tracing::error!("the checkpoint of {group} cannot be removed: {error}; it stays until the next start");
        }
    }
}

/// What a core hears for an order that nobody carries out.
pub(super) fn refusal(order: StoreOrder) -> Option<StoreAnswer> {
    let why = StoreFailure::Io;
    match order {
        StoreOrder::Chunk { group, staging, .. } | StoreOrder::Finish { group, staging, .. } => {
            Some(StoreAnswer::Failed { group, staging, why })
        }
        StoreOrder::Read { group, read, number, .. } => {
            Some(StoreAnswer::Read { group, read, number, result: Err(ReadFailure::Gone) })
        }
        StoreOrder::Begin { .. }
        | StoreOrder::Abandon { .. }
        | StoreOrder::Close { .. }
        | StoreOrder::Remove { .. } => None,
    }
}

fn out_of_order(stage: &Stage, number: u64) -> io::Error {
    io::Error::other(format!("chunk {number} was ordered behind {} chunks", stage.chunks()))
}

fn failed(group: GroupId, what: &str, error: &io::Error) -> StoreFailure {
    tracing::warn!("a checkpoint of {group} was not {what}: {error}; it is tried again later");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFailure::Full,
        _ => StoreFailure::Io,
    }
}

fn unread(error: &CheckpointError) -> ReadFailure {
    tracing::error!("{error}");
    match error {
        CheckpointError::Damaged { .. } => ReadFailure::Rotten,
        CheckpointError::Version { .. } | CheckpointError::Other { .. } | CheckpointError::Io { .. } => {
            ReadFailure::Gone
        }
    }
}
