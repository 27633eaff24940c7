//! Maps segments for the keeper, those that are asked for, and brings in what of them it reads.
//!
//! What the disk refuses to read is zeros there, and so rotten to all who read it: a run stays where it is, a directory
//! is read from the footer, a checkpoint is none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::Index;

use super::Kept;
use crate::format::checkpoint::RunPlace;
use crate::format::control::CheckpointRef;
use crate::format::record::{RECORD_BYTES, RUN_BYTES};
use crate::format::{BLOCK_BYTES, LogEnd, SegmentId, SegmentKey};
use crate::state::PlacedRun;
use crate::state::runs::end;
use crate::storage::SegmentFile;
use crate::unreadable::Mended;

/// The bytes of the segments that were kept when it was made, each mapped when it is first asked for.
pub(crate) struct Mappings {
    files: BTreeMap<SegmentKey, Arc<dyn SegmentFile>>,
    mapped: RefCell<BTreeMap<SegmentKey, Mended>>,
}

impl Mappings {
    pub(crate) fn of(kept: &BTreeMap<SegmentKey, Kept>) -> Mappings {
        let files = kept.iter().map(|(key, kept)| (*key, kept.slot.file.clone())).collect();
        Mappings { files, mapped: RefCell::default() }
    }

    /// The bytes of a segment, of which those in `range` may be touched. None for one that is not kept.
    pub(crate) fn get(&self, key: SegmentKey, range: Range<usize>) -> io::Result<Option<Bytes>> {
        let Some(file) = self.files.get(&key) else { return Ok(None) };
        let mut mapped = self.mapped.borrow_mut();
        let mended = match mapped.entry(key) {
            Entry::Occupied(mapped) => mapped.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Mended::new(file.clone())?),
        };
        mended.touch(range).map(Some)
    }

    /// The bytes of a segment of the checkpoint stream, of which the header and a checkpoint may be touched.
    pub(crate) fn of_checkpoint(&self, segment: SegmentId, of: &CheckpointRef) -> io::Result<Option<Bytes>> {
        let within = |end: &LogEnd| (end.place.segment == segment).then_some(end.place.offset as usize);
        self.get(segment.key(), 0..BLOCK_BYTES)?;
        self.get(segment.key(), within(&of.start).unwrap_or(0)..within(&of.end).unwrap_or(usize::MAX))
    }

    /// The offsets of the blocks of a segment that the disk refused, as far as it is known.
    pub(crate) fn refused(&self, key: SegmentKey) -> Vec<u64> {
        self.mapped.borrow().get(&key).map(|mended| mended.refused().to_vec()).unwrap_or_default()
    }

    /// The bytes of a segment, of which the group of records may be touched that has a byte at `at`.
    pub(crate) fn of_group(&self, key: SegmentKey, at: usize, log: u128) -> io::Result<Option<Bytes>> {
        if self.get(key, 0..0)?.is_none() {
            return Ok(None);
        }
        let mut mapped = self.mapped.borrow_mut();
        mapped.get_mut(&key).map(|mended| mended.touch_group(log, at)).transpose()
    }

    /// The bytes of a run's segment, of which the run may be touched, its payloads as well.
    pub(crate) fn of_run(&self, run: &RunPlace) -> io::Result<Option<Bytes>> {
        let Some(bytes) = self.of_head(run)? else { return Ok(None) };
        if let Some(placed) = PlacedRun::find(&bytes, run) {
            for index in run.first.0..end(run).0 {
                if let Some((record, _, start)) = placed.entry(Index(index)) {
                    self.get(run.segment, start..start + record.length)?;
                }
            }
        }
        self.get(run.segment, 0..0)
    }

    /// The same without its payloads.
    fn of_head(&self, run: &RunPlace) -> io::Result<Option<Bytes>> {
        let records_at = run.head_at as usize + RUN_BYTES;
        let Some(bytes) = self.get(run.segment, run.head_at as usize..records_at)? else { return Ok(None) };
        let Some(placed) = PlacedRun::find(&bytes, run) else { return Ok(Some(bytes)) };
        let records = (end(run).0 - placed.head.index) as usize;
        self.get(run.segment, records_at..records_at + records * RECORD_BYTES)
    }

    /// What the entries of a run take in their segment.
    pub(crate) fn bytes_taken(&self, run: &RunPlace) -> io::Result<u64> {
        let bytes = self.of_head(run)?;
        let placed = bytes.as_ref().and_then(|bytes| PlacedRun::find(bytes, run));
        Ok(placed.map_or(0, |placed| placed.bytes_taken()))
    }
}
