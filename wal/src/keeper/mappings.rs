//! Maps segments for the keeper, those that are asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Kept;
use crate::format::SegmentKey;
use crate::format::checkpoint::RunPlace;
use crate::state::PlacedRun;
use crate::storage::SegmentFile;

/// The bytes of the segments that were kept when it was made, each mapped when it is first asked for.
pub(crate) struct Mappings {
    files: BTreeMap<SegmentKey, Arc<dyn SegmentFile>>,
    mapped: RefCell<BTreeMap<SegmentKey, Bytes>>,
}

impl Mappings {
    pub(crate) fn of(kept: &BTreeMap<SegmentKey, Kept>) -> Mappings {
        let files = kept.iter().map(|(key, kept)| (*key, kept.slot.file.clone())).collect();
        Mappings { files, mapped: RefCell::default() }
    }

    /// The bytes of a segment. None for one that is not kept.
    pub(crate) fn get(&self, key: SegmentKey) -> io::Result<Option<Bytes>> {
        let mut mapped = self.mapped.borrow_mut();
        if let Some(bytes) = mapped.get(&key) {
            return Ok(Some(bytes.clone()));
        }
        let Some(file) = self.files.get(&key) else { return Ok(None) };
        let bytes = file.map()?;
        mapped.insert(key, bytes.clone());
        Ok(Some(bytes))
    }

    /// What the entries of a run take in their segment.
    pub(crate) fn bytes_taken(&self, run: &RunPlace) -> io::Result<u64> {
        let bytes = self.get(run.segment)?;
        let placed = bytes.as_ref().and_then(|bytes| PlacedRun::find(bytes, run));
        Ok(placed.map_or(0, |placed| placed.bytes_taken()))
    }
}
