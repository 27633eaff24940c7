//! What of each segment is still needed, and which groups hold on to the oldest.
//!
//! Entries are counted in the state alone. Their bytes stand in the directories of their segments, which are read only for
//! segments that may be emptied. What a closed segment holds only ever becomes less, so a segment in which as many entries
//! live as at the last measurement holds the same ones, and is not read again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use pontoon_types::Index;

use super::CompactHint;
use super::mappings::Mappings;
use crate::format::SegmentKey;
use crate::format::checkpoint::RunPlace;
use crate::state::LogState;
use crate::state::runs::{end, in_one_segment};

/// A group with more entries than this in the oldest segments is asked to compact.
const HINT_ENTRIES: u64 = 32;

/// A group with more bytes than this in the oldest segments is asked to compact.
const HINT_BYTES: u64 = 256 << 10;

/// Entries by the segment that they lie in; none is left out that holds some.
pub(crate) type LiveEntries = BTreeMap<SegmentKey, u64>;

/// Counts the entries that are still needed.
pub(crate) fn entries(state: &LogState) -> LiveEntries {
    let mut counted = LiveEntries::new();
    for runs in state.runs().flat_map(in_one_segment) {
        *counted.entry(runs[0].segment).or_default() += count(runs);
    }
    counted
}

fn count(runs: &[RunPlace]) -> u64 {
    runs.iter().map(|run| u64::from(run.count)).sum()
}

fn bytes_taken(runs: &[RunPlace], mappings: &Mappings) -> io::Result<u64> {
    runs.iter().map(|run| mappings.bytes_taken(run)).sum()
}

/// What the living entries of a segment are.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    entries: u64,
    bytes: u64,
}

/// Bytes of living entries by segment, exact, as of the last measurement.
#[derive(Debug, Default)]
pub(crate) struct LiveBytes(BTreeMap<SegmentKey, Measured>);

impl LiveBytes {
    /// Measures the segments in which another number of entries lives than the last time.
    pub(crate) fn measure(&mut self, state: &LogState, entries: &LiveEntries, mappings: &Mappings) -> io::Result<()> {
        let before = std::mem::take(&mut self.0);
        let mut changed = BTreeSet::new();
        for (segment, entries) in entries {
            let measured = match before.get(segment) {
                Some(measured) if measured.entries == *entries => *measured,
                _ => {
                    changed.insert(*segment);
                    Measured { entries: *entries, bytes: 0 }
                }
            };
            self.0.insert(*segment, measured);
        }
        for runs in state.runs().flat_map(in_one_segment).filter(|runs| changed.contains(&runs[0].segment)) {
            let bytes = bytes_taken(runs, mappings)?;
            self.0.entry(runs[0].segment).or_default().bytes += bytes;
        }
        Ok(())
    }

    /// The bytes of a segment that are still needed.
    pub(crate) fn of(&self, segment: SegmentKey) -> u64 {
        self.0.get(&segment).map_or(0, |measured| measured.bytes)
    }
}

/// The groups with much in `oldest`, or with anything at all if `any`.
pub(crate) fn hints(
    state: &LogState,
    oldest: &BTreeSet<SegmentKey>,
    any: bool,
    mappings: &Mappings,
) -> io::Result<Vec<CompactHint>> {
    let mut hints = Vec::new();
    for group in state.ids() {
        let Some(of) = state.group(group) else { continue };
        let (mut entries, mut bytes, mut up_to) = (0, 0, Index(0));
        for runs in in_one_segment(of.runs.as_slice()).filter(|runs| oldest.contains(&runs[0].segment)) {
            entries += count(runs);
            if entries <= HINT_ENTRIES && !any {
                bytes += bytes_taken(runs, mappings)?;
            }
            up_to = end(&runs[runs.len() - 1]).previous();
        }
        if entries > HINT_ENTRIES || bytes > HINT_BYTES || any && entries > 0 {
            hints.push(CompactHint { group, up_to });
        }
    }
    Ok(hints)
}
