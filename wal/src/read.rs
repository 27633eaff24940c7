//! Reads entries back: slices of mapped segments, checked at each read: the kernel may have dropped a page since the last
//! one, and what it reads again may have rotted meanwhile.
//!
//! [`Log::read`] is for a core and never waits for the disk; what is not in memory is ordered, and asked for again
//! (`cold`). [`Log::read_patiently`], [`Log::survey`] and [`Log::load`] are for a start, and wait. For all of them a
//! payload that the disk refuses to read is a rotten one.

use bytes::Bytes;
use pontoon_types::{Entry, EntryKind, GroupId, Index, LogId, Term};

use crate::cold::{Looking, Untouchable, Warming};
use crate::format::checkpoint::RunPlace;
use crate::format::record::{RECORD_BYTES, RUN_BYTES};
use crate::format::slot_name;
use crate::segments::{Segments, readable};
use crate::state::PlacedRun;
use crate::state::runs::end;
use crate::{Log, Preparation};

/// Why entries cannot be read. Nothing changes by asking.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not hold the group.
    #[error("the log holds no {group}; ask the node that does")]
    NoGroup {
        /// The group.
        group: GroupId,
    },
    /// The entry was given up; a snapshot covers it.
    #[error("entry {index} of {group} is compacted: the log of the group begins behind {to}; read a snapshot instead")]
    Compacted {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: Index,
        /// The last one that was given up.
        to: LogId,
    },
    /// The entry is not there yet.
    #[error("entry {index} of {group} is missing: its log ends at index {last}")]
    Missing {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: Index,
        /// The last index.
        last: Index,
    },
    /// The entry is not in memory. It is being brought in, or will be as soon as somebody asks again.
    #[error("entry {index} of {group} is not in memory yet; ask again in a moment")]
    Cold {
        /// The group.
        group: GroupId,
        /// The first entry that is not there.
        index: Index,
    },
    /// The bytes on the disk are not what was written. What the entry was is still known.
    #[error("entry {id} of {group} is rotten in {file} at {offset}; fetch it from a peer and write it as restored")]
    Rotten {
        /// The group.
        group: GroupId,
        /// The entry.
        id: LogId,
        /// The segment file.
        file: String,
        /// Where its payload starts.
        offset: u64,
    },
    /// What the index says about a segment is not what stands there: not even the identity of the entries is sure.
    #[error("the directory of {group} at index {index} is rotten in {file} at {offset}; run `pontoon wal verify`")]
    RottenDirectory {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: Index,
        /// The segment file.
        file: String,
        /// Where the run should be.
        offset: u64,
    },
    /// The operating system refused to map a segment.
    #[error("mapping {file}: {source}")]
    Io {
        /// The segment file.
        file: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// All entries of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedGroup {
    /// From the first index behind what was given up. The payload of a lost one is empty.
    pub entries: Vec<Entry>,
    /// The entries whose payload is rotten, in order.
    pub lost: Vec<Index>,
}

/// What a group has, without its payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyedGroup {
    /// The first entry behind what was given up, and the first of each later term.
    pub starts: Vec<LogId>,
    /// The entries that change the members of the group, in order, with an empty payload if it is rotten.
    pub configurations: Vec<Entry>,
    /// The entries whose payload is rotten, in order.
    pub lost: Vec<LogId>,
}

/// One entry as it stands in its segment.
struct Found {
    entry: Entry,
    intact: bool,
    file: String,
    offset: u64,
}

impl Log {
    /// The entries from `from` to `through`, as many as fit into `bytes_max` of payloads but at least one. Payloads are
    /// slices of the mapped segments; their checksums are verified. What is gathered and not written
    /// yet is not found. Never waits for the disk: what is not in memory is [`ReadError::Cold`].
    pub fn read(
        &mut self,
        group: GroupId,
        from: Index,
        through: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.warmed();
        let written = self.writer.open().map(|open| (open.segment.key(), self.writer.end().place.offset as usize));
        let mut warming = std::mem::replace(&mut self.warming, Warming::new(Preparation::Inline));
        let result = self.read_looking(&mut Looking::impatient(&mut warming, written), group, from, through, bytes_max);
        self.warming = warming;
        result
    }

    /// The same, for a caller that may wait for the disk.
    pub fn read_patiently(
        &mut self,
        group: GroupId,
        from: Index,
        through: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let mut warming = std::mem::replace(&mut self.warming, Warming::new(Preparation::Inline));
        let result = self.read_looking(&mut Looking::patient(&mut warming), group, from, through, bytes_max);
        self.warming = warming;
        result
    }

    fn read_looking(
        &mut self,
        looking: &mut Looking<'_>,
        group: GroupId,
        from: Index,
        through: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let state = self.state.group(group).ok_or(ReadError::NoGroup { group })?;
        if from <= state.compacted.index {
            return Err(ReadError::Compacted { group, index: from, to: state.compacted });
        }
        let Some(position) = state.runs.find(from) else {
            return Err(ReadError::Missing { group, index: from, last: state.last_index() });
        };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for run in &state.runs.as_slice()[position..] {
            let mut enough = false;
            let walked = walk(&mut self.segments, looking, group, run, from, &mut |found| {
                if found.entry.id.index > through {
                    enough = true;
                    return Ok(false);
                }
                if !found.intact {
                    enough = true;
                    let Found { entry, file, offset, .. } = found;
                    let rotten = ReadError::Rotten { group, id: entry.id, file, offset };
                    return if entries.is_empty() { Err(rotten) } else { Ok(false) };
                }
                bytes += found.entry.payload.len();
                if bytes > bytes_max && !entries.is_empty() {
                    enough = true;
                    return Ok(false);
                }
                entries.push(found.entry);
                Ok(true)
            });
            match walked {
                // What is there already is of use meanwhile.
                Err(ReadError::Cold { .. }) if !entries.is_empty() => break,
                walked => walked?,
            }
            if enough {
                break;
            }
        }
        Ok(entries)
    }

    /// The identities of all entries of a group, with those named whose payload is rotten: reads and verifies all of them,
    /// and keeps none in memory. For a start.
    pub fn survey(&mut self, group: GroupId) -> Result<SurveyedGroup, ReadError> {
        let state = self.state.group(group).ok_or(ReadError::NoGroup { group })?;
        let mut surveyed = SurveyedGroup::default();
        for run in state.runs.as_slice() {
            let mut looking = Looking::patient(&mut self.warming);
            walk(&mut self.segments, &mut looking, group, run, run.first, &mut |found| {
                let Found { mut entry, intact, .. } = found;
                let id = entry.id;
                if surveyed.starts.last().is_none_or(|start| start.term < id.term) {
                    surveyed.starts.push(id);
                }
                if !intact {
                    surveyed.lost.push(id);
                    entry.payload = Bytes::new();
                }
                if entry.kind == EntryKind::Configuration {
                    surveyed.configurations.push(entry);
                }
                Ok(true)
            })?;
        }
        Ok(surveyed)
    }

    /// All entries of a group, with those named whose payload is rotten. For a start.
    pub fn load(&mut self, group: GroupId) -> Result<LoadedGroup, ReadError> {
        let state = self.state.group(group).ok_or(ReadError::NoGroup { group })?;
        let mut loaded = LoadedGroup::default();
        for run in state.runs.as_slice() {
            let mut looking = Looking::patient(&mut self.warming);
            walk(&mut self.segments, &mut looking, group, run, run.first, &mut |found| {
                let Found { entry, intact, .. } = found;
                if !intact {
                    loaded.lost.push(entry.id.index);
                }
                let payload = if intact { entry.payload.clone() } else { Bytes::new() };
                loaded.entries.push(Entry { payload, ..entry });
                Ok(true)
            })?;
        }
        Ok(loaded)
    }

    /// The term of the last entry of a group that has one.
    pub(crate) fn last_id(&mut self, group: GroupId) -> Result<LogId, ReadError> {
        let state = self.state.group(group).ok_or(ReadError::NoGroup { group })?;
        let Some(run) = state.runs.as_slice().last() else { return Ok(state.compacted) };
        if state.last_term != Term(0) {
            return Ok(LogId::new(end(run).previous(), state.last_term));
        }
        let (bytes, file) = mapped(&mut self.segments, group, run)?;
        let looking = &mut Looking::patient(&mut self.warming);
        let run = &intact_copy(&mut self.segments, looking, group, run, &bytes, &file)?;
        let placed = PlacedRun::find(&bytes, run).ok_or_else(|| rotten_directory(group, run, file))?;
        Ok(LogId::new(end(run).previous(), Term(placed.head.term)))
    }
}

/// Shows the entries of a run from `from` on to `see`, until that says no.
fn walk(
    segments: &mut Segments,
    looking: &mut Looking<'_>,
    group: GroupId,
    run: &RunPlace,
    from: Index,
    see: &mut dyn FnMut(Found) -> Result<bool, ReadError>,
) -> Result<(), ReadError> {
    let (bytes, file) = mapped(segments, group, run)?;
    let run = &intact_copy(segments, looking, group, run, &bytes, &file)?;
    let placed = PlacedRun::find(&bytes, run).ok_or_else(|| rotten_directory(group, run, file.clone()))?;
    let cold = |index| ReadError::Cold { group, index };
    let records = (end(run).0 - placed.head.index) as usize * RECORD_BYTES;
    let head_at = run.head_at as usize;
    match segments.may_touch(looking, run.segment, &bytes, head_at..head_at + RUN_BYTES + records) {
        Ok(()) => {}
        Err(Untouchable::Cold) => return Err(cold(run.first.max(from))),
        Err(Untouchable::Unreadable) => return Err(rotten_directory(group, run, file)),
    }
    for index in run.first.max(from).0..end(run).0 {
        let index = Index(index);
        let (record, payload, offset) =
            placed.entry(index).ok_or_else(|| rotten_directory(group, run, file.clone()))?;
        let intact = match segments.may_touch(looking, run.segment, &bytes, offset..offset + record.length) {
            Ok(()) => crc32fast::hash(payload) == record.crc,
            Err(Untouchable::Cold) => return Err(cold(index)),
            Err(Untouchable::Unreadable) => false,
        };
        // An empty slice of a mapping would keep the mapping for nothing.
        let payload = if payload.is_empty() { Bytes::new() } else { bytes.slice(offset..offset + record.length) };
        let entry = Entry { id: LogId::new(index, Term(placed.head.term)), kind: placed.head.entry_kind(), payload };
        let file = if intact { String::new() } else { file.clone() };
        if !see(Found { entry, intact, file, offset: offset as u64 })? {
            break;
        }
    }
    Ok(())
}

/// The same run as an intact directory knows it: the one that is named, or its other copy.
fn intact_copy(
    segments: &mut Segments,
    looking: &mut Looking<'_>,
    group: GroupId,
    run: &RunPlace,
    bytes: &Bytes,
    file: &str,
) -> Result<RunPlace, ReadError> {
    let cold = |_| ReadError::Cold { group, index: run.first };
    let is_readable = readable(segments.may_touch_directory(looking, bytes, run)).map_err(cold)?;
    if is_readable && segments.has_intact_directory(bytes, run) {
        return Ok(*run);
    }
    let other = segments.other_copy(looking, bytes, group, run).map_err(cold)?;
    other.ok_or_else(|| rotten_directory(group, run, file.to_string()))
}

/// The bytes of a run's segment, and the name of its file.
fn mapped(segments: &mut Segments, group: GroupId, run: &RunPlace) -> Result<(Bytes, String), ReadError> {
    let segment = segments.get_mut(run.segment).ok_or_else(|| ReadError::RottenDirectory {
        group,
        index: run.first,
        file: format!("segment {}", run.segment.0),
        offset: u64::from(run.head_at),
    })?;
    let file = slot_name(segment.slot.slot);
    let bytes = segment.bytes().map_err(|source| ReadError::Io { file: file.clone(), source })?;
    Ok((bytes, file))
}

fn rotten_directory(group: GroupId, run: &RunPlace, file: String) -> ReadError {
    ReadError::RottenDirectory { group, index: run.first, file, offset: u64::from(run.head_at) }
}
