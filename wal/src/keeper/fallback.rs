//! What the keeper does when the newest checkpoint has become unreadable while the log runs.
//!
//! It goes on from the older one, as a start would, and folds again what the newest covered: all of it is still there, because two
//! checkpoints are kept with all that they need. The next checkpoint then takes the place of the unreadable one.
//!
//! One thing a start has not: a running log that was told of copies. They count for nothing any more, and their segments may be
//! freed, so together with that next checkpoint the log is told where each of those entries lies now.

use std::io;

use super::mappings::Mappings;
use super::scrub::{Found, Rot};
use super::{Keeper, Known, Moved, Report, rotten};
use crate::format::checkpoint::RunPlace;
use crate::format::control::CheckpointRef;
use crate::format::group::Group;
use crate::format::record::{KIND_ENTRIES, RunHead};
use crate::format::segment_header::{SegmentHeader, Stream};
use crate::format::{BLOCK_BYTES, LogEnd, SegmentId, SegmentKey, slot_name};
use crate::prepare::lock_control;
use crate::state::LogState;
use crate::state::runs::end;
use crate::unreadable::Mended;

impl Keeper {
    /// What the newest checkpoint says that can be read. One that cannot is forgotten, and what it covered is folded again.
    pub(super) fn begin(&mut self, mappings: &Mappings, report: &mut Report) -> io::Result<LogState> {
        let Some(newest) = &self.start.checkpoints[0] else { return Ok(LogState::default()) };
        let unreadable = match self.load(&newest.reference, mappings) {
            Ok(loaded) => return Ok(loaded.state),
            Err(error) => error,
        };
        let Some(older) = &self.start.checkpoints[1] else { return Err(unreadable) };
        let state = self.load(&older.reference, mappings)?.state;
        let again = self.closed_between(older, newest, mappings)?;
        let CheckpointRef { start, end } = newest.reference;
        if let Some(kept) = self.start.kept.get(&end.place.segment.key()) {
            let is_within = start.place.segment == end.place.segment;
            let offset = if is_within { start.place.offset } else { BLOCK_BYTES as u64 };
            let rot = Rot { file: slot_name(kept.slot.slot), offset, entry: None };
            report.rot.push(Found { rot, segment: end.place.segment.key(), payloads_at: 0 });
        }
        self.start.uncovered.splice(..0, again);
        self.start.checkpoints = [self.start.checkpoints[1].take(), None];
        self.has_forgotten = true;
        // Otherwise the unreadable one would be what the next checkpoint has to fall back on.
        let readable = self.start.checkpoints[0].as_ref().map(|known| known.reference);
        lock_control(&self.start.control).replace_checkpoints([readable, None]);
        Ok(state)
    }

    /// The log segments that the newer of two checkpoints covers and the older does not, each with the end that the next
    /// one names.
    fn closed_between(
        &self,
        older: &Known,
        newer: &Known,
        mappings: &Mappings,
    ) -> io::Result<Vec<(SegmentKey, LogEnd)>> {
        let (from, to) = (older.covered.place.segment, newer.covered.place.segment);
        let of_log = self.start.kept.values().filter(|kept| kept.fact.stream == Stream::Log);
        let mut ids: Vec<SegmentId> =
            of_log.map(|kept| kept.fact.segment).filter(|id| from < *id && *id <= to).collect();
        ids.sort_unstable();
        let end = |at: usize| match ids.get(at + 1) {
            Some(next) => {
                let bytes = mappings
                    .get(next.key(), 0..BLOCK_BYTES)?
                    .ok_or_else(|| rotten(format!("segment {next} is missing")))?;
                let header = SegmentHeader::decode(&bytes[..BLOCK_BYTES]);
                header.map(|header| header.previous).map_err(|fault| rotten(format!("segment {next}: {fault}")))
            }
            None => Ok(newer.covered),
        };
        ids.iter().enumerate().map(|(at, id)| Ok((id.key(), end(at)?))).collect()
    }

    /// Where the entries lie now that cold segments hold and the state does not look for there.
    pub(super) fn moved_back(&self, state: &LogState) -> io::Result<Vec<Moved>> {
        let mut moved = Vec::new();
        for kept in self.start.kept.values().filter(|kept| kept.fact.stream == Stream::Cold) {
            let key = kept.fact.segment.key();
            // It may have grown since it was mapped for the checkpoint.
            let bytes = Mended::new(kept.slot.file.clone())?.touch(0..kept.fact.end_offset as usize)?;
            let mut offset = BLOCK_BYTES;
            while (offset as u64) < kept.fact.end_offset {
                let unreadable = |fault| rotten(format!("the copies at {offset} of segment {}: {fault}", key.0));
                let group = Group::identify(&bytes, self.start.origin.identity.log, offset).map_err(unreadable)?;
                for run in group.runs().filter(|run| run.head.kind == KIND_ENTRIES) {
                    moved.extend(elsewhere(state, &run.head, key));
                }
                offset += group.header.group_len();
            }
        }
        Ok(moved)
    }
}

/// The runs that hold entries of a copied one outside of the segment of the copy.
fn elsewhere<'a>(state: &'a LogState, copied: &RunHead, from: SegmentKey) -> impl Iterator<Item = Moved> + use<'a> {
    let (group, first, behind) = (copied.group, copied.index, copied.index + u64::from(copied.count));
    let of = state.group(group).into_iter();
    of.flat_map(move |of| {
        let holds = move |run: &&RunPlace| run.first.0 < behind && first < end(run).0 && run.segment != from;
        let runs = of.runs.as_slice().iter().filter(holds);
        runs.map(move |run| Moved { group, replica: of.replica, from, to: *run })
    })
}
