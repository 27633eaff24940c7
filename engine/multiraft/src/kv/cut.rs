//! A checkpoint of the pairs, cut a chunk at a time while the machine goes on applying.
//!
//! The chunks show the pairs as they were at [`Kv::begin_cut`]. A cursor walks the keys; what is behind it is in the chunks
//! already. When a key in front of it changes for the first time, its value of then, or that there was none, is put
//! aside, and the cursor takes that instead of what stands there now. Values share their bytes with the machine as long
//! as it has them, so a cut costs the memory of what was overwritten or deleted in front of its cursor, and of one chunk.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use pontoon_types::limits::SNAPSHOT_CHUNK_BYTES_MAX;

use super::Kv;
use crate::checkpoint::{PAIR_HEAD_BYTES, Section};

/// A cut under way.
///
/// Invariant: every key of `before` is behind `cursor`, in key order.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The last key that is in the chunks or in `stream`.
    cursor: Option<Box<[u8]>>,
    before: BTreeMap<Box<[u8]>, Option<Bytes>>,
    before_bytes: usize,
    /// What of the stream is not in a chunk yet.
    stream: Vec<u8>,
}

impl Cut {
    /// `key` is about to change from `value`.
    pub(super) fn changes(&mut self, key: &[u8], value: Option<&Bytes>) {
        let is_passed = self.cursor.as_deref().is_some_and(|cursor| key <= cursor);
        if !is_passed && !self.before.contains_key(key) {
            self.before_bytes += key.len() + value.map_or(0, Bytes::len);
            self.before.insert(Box::from(key), value.cloned());
        }
    }

    /// Moves the next pair of then into the stream. False at the end.
    fn advance(&mut self, pairs: &BTreeMap<Box<[u8]>, Bytes>) -> bool {
        let from = self.cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let next = pairs.range::<[u8], _>((from, Bound::Unbounded)).next();
        let is_changed = |key: &[u8]| next.is_none_or(|(next, _)| *key <= **next);
        if let Some(entry) = self.before.first_entry().filter(|entry| is_changed(entry.key())) {
            let (key, value) = entry.remove_entry();
            self.before_bytes -= key.len() + value.as_ref().map_or(0, Bytes::len);
            if let Some(value) = value {
                put_pair(&mut self.stream, &key, &value);
            }
            self.cursor = Some(key);
            return true;
        }
        let Some((key, value)) = next else { return false };
        put_pair(&mut self.stream, key, value);
        self.cursor = Some(key.clone());
        true
    }
}

fn put_pair(stream: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    stream.reserve(PAIR_HEAD_BYTES + key.len() + value.len());
    stream.extend((key.len() as u32).to_le_bytes());
    stream.extend((value.len() as u32).to_le_bytes());
    stream.extend(key);
    stream.extend(value);
}

impl Kv {
    /// Begins a cut of the state as it is now. One that was under way is given up.
    pub fn begin_cut(&mut self) {
        self.cut = Some(Box::default());
    }

    /// The next chunk of the cut under way, of at most `bytes_max`; none behind the last one, and then the cut is over.
    ///
    /// # Panics
    ///
    /// When no cut is under way, or `bytes_max` has no room for anything.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        let bytes_max = bytes_max.min(SNAPSHOT_CHUNK_BYTES_MAX);
        let piece_max = bytes_max.checked_sub(1).filter(|piece| *piece > 0).expect("law: a chunk holds something");
        let cut = self.cut.as_mut().expect("law: chunks are cut between the beginning of a cut and its end");
        while cut.stream.len() < piece_max && cut.advance(&self.pairs) {}
        if cut.stream.is_empty() {
            self.cut = None;
            return None;
        }
        let piece = cut.stream.drain(..piece_max.min(cut.stream.len()));
        Some(std::iter::once(Section::Pairs.tag()).chain(piece).collect())
    }

    /// Ends the cut under way, if there is one.
    pub fn end_cut(&mut self) {
        self.cut = None;
    }

    /// Whether a cut is under way.
    pub(crate) fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    /// Bytes that are kept beside the state for the cut under way.
    pub fn cut_bytes(&self) -> usize {
        self.cut.as_ref().map_or(0, |cut| cut.before_bytes)
    }
}
