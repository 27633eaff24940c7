//! What a log holds, in numbers.

use std::collections::BTreeMap;

use pontoon_types::{GroupId, Incarnation, Index};

use super::files::Content;
use super::layout::{Layout, Planned, Role};
use super::stream_name;
use super::walk::{Seen, Step};
use crate::format::checkpoint::RunPlace;
use crate::format::record::{KIND_ENTRIES, KIND_RESTORED};
use crate::format::{LogEnd, SegmentId, SegmentKey, Seq};
use crate::state::runs::end;
use crate::state::{LogState, PlacedRun};
use crate::storage::Storage;
use crate::{LogError, LogIdentity, TornTail};

/// Groups in the oldest fifth of the log's segments hold it up.
const OLDEST_PART: usize = 5;

/// One checkpoint that the control file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointStat {
    /// Why it cannot be read.
    pub unreadable: Option<String>,
    /// How many Raft groups are in it.
    pub groups: u64,
    /// The end of the log that it stands for.
    pub covered: LogEnd,
    /// What it takes.
    pub bytes: u64,
}

/// One segment that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its file.
    pub file: String,
    /// Its use: `log`, `cold` or `checkpoint`.
    pub stream: &'static str,
    /// Its id.
    pub segment: SegmentId,
    /// Groups of records in it that can be read.
    pub groups: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes from its start to the end of its groups.
    pub used_bytes: u64,
    /// Bytes of entries that are still part of a Raft group's log.
    pub live_bytes: u64,
}

/// A Raft group that keeps the oldest segments from being used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// The group.
    pub group: GroupId,
    /// The oldest segment with entries of it.
    pub oldest: SegmentId,
    /// Its entries in the oldest segments.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Compacting up to here would free its share.
    pub up_to: Index,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStat {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// How often it was opened.
    pub incarnation: Incarnation,
    /// Whether it was closed and not opened since.
    pub is_clean: bool,
    /// What the control file knows to be durable at least.
    pub durable_seq: Seq,
    /// The last group of records, durable or not.
    pub end: LogEnd,
    /// What was torn behind it.
    pub torn: Option<TornTail>,
    /// How many ranges of groups of records cannot be read. Then the numbers of entries are too small.
    pub unreadable: u64,
    /// Newest first.
    pub checkpoints: Vec<CheckpointStat>,
    /// The segments that are needed, by their ids.
    pub segments: Vec<SegmentStat>,
    /// Slot files that hold nothing that is needed, and files that are being prepared.
    pub free_files: Vec<String>,
    /// The size of each segment file.
    pub segment_bytes: u64,
    /// Raft groups.
    pub groups: u64,
    /// Raft groups that were removed.
    pub tombstones: u64,
    /// Entries that are part of a Raft group's log.
    pub entries: u64,
    /// Raft groups with entries in the oldest fifth of the log's segments, most bytes first.
    pub laggards: Vec<Laggard>,
}

impl LogStat {
    /// Bytes of all needed segments from their starts to the ends of their groups.
    pub fn used_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.used_bytes).sum()
    }

    /// Bytes of entries that are still part of a Raft group's log.
    pub fn live_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.live_bytes).sum()
    }

    /// Bytes of the files that hold nothing that is needed.
    pub fn free_bytes(&self) -> u64 {
        self.free_files.len() as u64 * self.segment_bytes
    }
}

/// What the log in a directory holds.
pub fn stat(storage: &dyn Storage) -> Result<LogStat, LogError> {
    let layout = Layout::of(storage)?;
    let mut segments: BTreeMap<SegmentKey, SegmentStat> =
        layout.planned.iter().map(|planned| (planned.header.segment.key(), empty(planned))).collect();
    let (mut state, _) = layout.begin();
    let (mut last, mut torn_tail, mut unreadable) = (LogEnd::default(), None, 0);
    layout.walk(&mut |step| {
        match step {
            Step::Group(seen) => {
                count(&seen, &mut segments);
                if seen.planned.role == Role::Open {
                    // Behind an unreadable range not all of it fits; that is counted apart.
                    let _ = state.apply(seen.directory, seen.place);
                }
            }
            Step::Lost(_) => unreadable += 1,
            Step::End(end, torn) => (last, torn_tail) = (end, torn),
            Step::Footer(..) | Step::Unreadable(..) => {}
        }
        Ok(())
    })?;
    let laggards = measure(&layout, &state, &mut segments)?;
    let entries = state
        .ids()
        .into_iter()
        .filter_map(|group| state.group(group))
        .flat_map(|of| of.runs.as_slice())
        .map(|run| u64::from(run.count))
        .sum();
    Ok(LogStat {
        identity: layout.identity(),
        incarnation: layout.control.incarnation,
        is_clean: layout.control.clean_end.is_some(),
        durable_seq: layout.control.durable_seq,
        end: last,
        torn: torn_tail,
        unreadable,
        checkpoints: checkpoints(&layout),
        free_files: free_files(&layout),
        segments: in_order(&layout, segments),
        segment_bytes: layout.control.segment_bytes,
        groups: state.ids().len() as u64,
        tombstones: state.tombstones().len() as u64,
        entries,
        laggards,
    })
}

fn empty(planned: &Planned) -> SegmentStat {
    SegmentStat {
        file: planned.name.clone(),
        stream: stream_name(planned.header.stream),
        segment: planned.header.segment,
        groups: 0,
        entries: 0,
        used_bytes: crate::format::BLOCK_BYTES as u64,
        live_bytes: 0,
    }
}

fn count(seen: &Seen<'_>, segments: &mut BTreeMap<SegmentKey, SegmentStat>) {
    let Some(of) = segments.get_mut(&seen.place.segment) else { return };
    let holds_entries = |kind: u8| matches!(kind, KIND_ENTRIES | KIND_RESTORED);
    of.groups += 1;
    of.entries +=
        seen.runs().filter(|run| holds_entries(run.head.kind)).map(|run| u64::from(run.head.count)).sum::<u64>();
    of.used_bytes = (seen.offset + seen.header.group_len()) as u64;
}

fn checkpoints(layout: &Layout<'_>) -> Vec<CheckpointStat> {
    let each = layout.checkpoints.iter().map(|named| {
        let (start, end) = (named.reference.start, named.reference.end);
        let from = if start.place.segment == end.place.segment { start.place.offset } else { 0 };
        let head = named.loaded.as_ref().map(|loaded| loaded.head);
        CheckpointStat {
            unreadable: head.as_ref().err().map(|why| why.to_string()),
            groups: head.as_ref().map_or(0, |head| head.groups),
            covered: head.as_ref().map_or(LogEnd::default(), |head| head.covered),
            bytes: end.place.offset.saturating_sub(from),
        }
    });
    each.collect()
}

fn free_files(layout: &Layout<'_>) -> Vec<String> {
    let is_needed = |name: &str| layout.planned.iter().any(|planned| planned.name == name);
    let is_damaged = |content: &Content| matches!(content, Content::Unreadable(_));
    let free = layout.slots.iter().filter(|file| !is_needed(&file.name) && !is_damaged(&file.content));
    free.map(|file| file.name.clone()).chain(layout.unfinished.clone()).collect()
}

fn in_order(layout: &Layout<'_>, mut segments: BTreeMap<SegmentKey, SegmentStat>) -> Vec<SegmentStat> {
    layout.planned.iter().filter_map(|planned| segments.remove(&planned.header.segment.key())).collect()
}

/// Reads the runs that are part of a group's log once more, segment by segment, for what they take.
fn measure(
    layout: &Layout<'_>,
    state: &LogState,
    segments: &mut BTreeMap<SegmentKey, SegmentStat>,
) -> Result<Vec<Laggard>, LogError> {
    let mut by_segment: BTreeMap<SegmentKey, Vec<(GroupId, RunPlace)>> = BTreeMap::new();
    for group in state.ids() {
        for run in state.group(group).map_or(&[][..], |of| of.runs.as_slice()) {
            by_segment.entry(run.segment).or_default().push((group, *run));
        }
    }
    let of_log: Vec<SegmentId> = layout
        .planned
        .iter()
        .filter(|planned| matches!(planned.role, Role::Open | Role::Covered | Role::Kept))
        .map(|planned| planned.header.segment)
        .collect();
    let oldest = &of_log[..of_log.len().div_ceil(OLDEST_PART)];
    let mut laggards: BTreeMap<GroupId, Laggard> = BTreeMap::new();
    let mut buffer = layout.buffer();
    for planned in &layout.planned {
        let segment = planned.header.segment;
        let Some(runs) = by_segment.get(&segment.key()) else { continue };
        layout.load(&planned.name, &mut buffer)?;
        for (group, run) in runs {
            let bytes = PlacedRun::find(buffer.bytes(), run).map_or(0, |placed| placed.bytes_taken());
            if let Some(of) = segments.get_mut(&segment.key()) {
                of.live_bytes += bytes;
            }
            if of_log.len() > 1 && oldest.contains(&segment) {
                let none = Laggard { group: *group, oldest: segment, entries: 0, bytes: 0, up_to: Index(0) };
                let of = laggards.entry(*group).or_insert(none);
                of.entries += u64::from(run.count);
                of.bytes += bytes;
                of.up_to = of.up_to.max(end(run).previous());
            }
        }
    }
    let mut laggards: Vec<Laggard> = laggards.into_values().collect();
    laggards.sort_by_key(|laggard| (std::cmp::Reverse(laggard.bytes), laggard.group));
    Ok(laggards)
}
