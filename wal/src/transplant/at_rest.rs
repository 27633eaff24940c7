//! A log that nobody has open, read as it lies there.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use pontoon_types::{Entry, EntryKind, GroupId, Incarnation, Index, LogId, ReplicaId};

use crate::format::SegmentKey;
use crate::format::checkpoint::RunPlace;
use crate::inspect::layout::Layout;
use crate::inspect::{directory, verify};
use crate::repair::fold::{Fold, KeptGroup};
use crate::repair::rebuild::Source;
use crate::repair::{is_unusable, next_incarnation};
use crate::storage::Storage;
use crate::{LogError, LogIdentity, RecoveredGroup, SurveyedGroup};

/// A log that nobody has open. Everything is read past the cache, as an open would (law 17), and nothing is changed.
///
/// Invariant: all records that count can be read; only payloads of entries may be rotten.
pub struct LogAtRest {
    storage: Box<dyn Storage>,
    /// The file of each segment that is needed.
    files: BTreeMap<SegmentKey, String>,
    identity: LogIdentity,
    incarnation: Incarnation,
    segment_bytes: u64,
    fold: Fold,
}

impl std::fmt::Debug for LogAtRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at rest", self.storage.place())
    }
}

impl LogAtRest {
    /// Reads the log in a directory. One that would not open is refused.
    pub fn read(dir: &Path) -> Result<LogAtRest, LogError> {
        LogAtRest::of(directory(dir)?)
    }

    /// [`LogAtRest::read`] on any storage.
    pub fn of(storage: Box<dyn Storage>) -> Result<LogAtRest, LogError> {
        let verdict = verify(storage.as_ref())?;
        if is_unusable(&verdict) {
            let why = verdict.refusal.unwrap_or_else(|| "records that no peer gives back are damaged".to_string());
            let place = storage.place();
            return Err(LogError::Unreadable { why: format!("{place} needs `pontoon wal repair` first: {why}") });
        }
        let layout = Layout::of(storage.as_ref())?;
        let fold = Fold::of(&layout)?;
        let file = |key: SegmentKey, name: &str| (key, name.to_string());
        let files = layout.planned.iter().map(|planned| file(planned.header.segment.key(), &planned.name)).collect();
        let (identity, incarnation) = (layout.identity(), next_incarnation(&layout));
        let segment_bytes = layout.control.segment_bytes;
        Ok(LogAtRest { files, identity, incarnation, segment_bytes, fold, storage })
    }

    /// Whose it is.
    pub fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// An incarnation that is above every one that the log was opened with.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The size of its segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The highest dead replica of each group that has one here.
    pub fn tombstones(&self) -> &BTreeMap<GroupId, ReplicaId> {
        &self.fold.tombstones
    }

    /// Its groups, as an open would find them.
    pub fn groups(&self) -> BTreeMap<GroupId, RecoveredGroup> {
        let group = |kept: &KeptGroup| RecoveredGroup {
            replica: kept.replica,
            descriptor: kept.descriptor.clone(),
            hard_state: kept.hard_state,
            compacted: kept.compacted,
            committed: kept.committed.max(kept.compacted.index),
            last: kept.last(),
            vote_lost: kept.must_not_vote(),
        };
        self.fold.groups.iter().map(|(id, kept)| (*id, group(kept))).collect()
    }

    /// The identities of all entries of a group, with those named whose payload is rotten.
    pub fn survey(&self, group: GroupId) -> Result<SurveyedGroup, LogError> {
        let mut surveyed = SurveyedGroup::default();
        self.each_entry(group, Index(0), &mut |entry, is_intact| {
            let id = entry.id;
            if surveyed.starts.last().is_none_or(|start| start.term < id.term) {
                surveyed.starts.push(id);
            }
            if !is_intact {
                surveyed.lost.push(id);
            }
            if entry.kind == EntryKind::Configuration {
                surveyed.configurations.push(entry);
            }
        })?;
        Ok(surveyed)
    }

    /// Shows every entry of a group behind an index: its payload, or nothing in its place if that is rotten, and whether it
    /// is intact.
    pub fn each_entry(&self, group: GroupId, behind: Index, see: &mut dyn FnMut(Entry, bool)) -> Result<(), LogError> {
        for run in self.kept(group)?.runs.as_slice() {
            let source = self.source(run)?;
            for (index, record) in (run.first.0..).map(Index).zip(&source.records) {
                if index <= behind {
                    continue;
                }
                let is_intact = source.is_intact(record);
                let payload = if is_intact { Bytes::copy_from_slice(source.payload(record)) } else { Bytes::new() };
                see(Entry { id: LogId::new(index, source.term), kind: source.kind, payload }, is_intact);
            }
        }
        Ok(())
    }

    pub(super) fn kept(&self, group: GroupId) -> Result<&KeptGroup, LogError> {
        let nowhere = || LogError::Unreadable { why: format!("{} holds no {group}", self.storage.place()) };
        self.fold.groups.get(&group).ok_or_else(nowhere)
    }

    pub(super) fn source(&self, run: &RunPlace) -> Result<Source, LogError> {
        let nowhere =
            || LogError::Unreadable { why: format!("the segment of the entries from {} on is gone", run.first) };
        let name = self.files.get(&run.segment).ok_or_else(nowhere)?;
        Source::read(self.storage.as_ref(), name, self.segment_bytes, run)
    }
}
