//! The built-in ordered key-value machine: put, delete, compare-and-set, get and scan over one range.
//!
//! It lives in memory and is rebuilt from the log at start. `apply` is deterministic: the same commands in the same
//! order give the same state and the same outcomes on every replica, and a command that cannot apply is an outcome
//! and not an error.

mod cut;

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_types::limits::{SCAN_BYTES_MAX, SCAN_PAIRS_MAX};
use pontoon_wire::client::OperationOutcome;
use pontoon_wire::command::KvOperation;

use cut::Cut;

/// The state of one range.
#[derive(Debug, Default)]
pub struct Kv {
    pairs: BTreeMap<Box<[u8]>, Bytes>,
    /// What the keys and values take, bytes.
    bytes: usize,
    cut: Option<Box<Cut>>,
}

/// Pairs in key order, and the key at which a scan that stopped early goes on.
pub(crate) type Scanned = (Vec<(Bytes, Bytes)>, Option<Bytes>);

impl Kv {
    /// Applies one operation and says what it did.
    pub fn apply(&mut self, operation: &KvOperation) -> OperationOutcome {
        match operation {
            KvOperation::Put { key, value } => {
                self.put(key, value);
                OperationOutcome::Put
            }
            KvOperation::Delete { key } => OperationOutcome::Deleted { existed: self.remove(key) },
            KvOperation::CompareAndSet { key, expected, value } => {
                let current = self.get(key);
                let succeeded = current == *expected;
                if succeeded {
                    match value {
                        Some(value) => self.put(key, value),
                        None => drop(self.remove(key)),
                    }
                }
                OperationOutcome::Swapped { succeeded, current }
            }
        }
    }

    /// The value is copied, so that it does not keep a whole frame or segment alive.
    fn put(&mut self, key: &Bytes, value: &Bytes) {
        let value = Bytes::copy_from_slice(value);
        self.bytes += value.len();
        match self.pairs.get_mut(key.as_ref()) {
            Some(old) => {
                if let Some(cut) = &mut self.cut {
                    cut.changes(key, Some(old));
                }
                self.bytes -= old.len();
                *old = value;
            }
            None => {
                if let Some(cut) = &mut self.cut {
                    cut.changes(key, None);
                }
                self.bytes += key.len();
                self.pairs.insert(Box::from(key.as_ref()), value);
            }
        }
    }

    /// Says whether the key was there.
    fn remove(&mut self, key: &Bytes) -> bool {
        let Some(old) = self.pairs.remove(key.as_ref()) else { return false };
        if let Some(cut) = &mut self.cut {
            cut.changes(key, Some(&old));
        }
        self.bytes -= key.len() + old.len();
        true
    }

    /// Puts back what a checkpoint holds of a key that is not there.
    pub(crate) fn restore(&mut self, key: Box<[u8]>, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.pairs.insert(key, value);
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.pairs.get(key).cloned()
    }

    /// Pairs of `[start, end)` in order, at most `limit` and at most the limits of a scan.
    pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: u32) -> Scanned {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if end.is_some_and(|end| end <= start) {
            return (Vec::new(), None);
        }
        let limit = (limit as usize).min(SCAN_PAIRS_MAX);
        let bounds = (Included(start), end.map_or(Unbounded, Excluded));
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for (key, value) in self.pairs.range::<[u8], _>(bounds) {
            if pairs.len() == limit || (bytes > 0 && bytes + key.len() + value.len() > SCAN_BYTES_MAX) {
                return (pairs, Some(Bytes::copy_from_slice(key)));
            }
            bytes += key.len() + value.len();
            pairs.push((Bytes::copy_from_slice(key), value.clone()));
        }
        (pairs, None)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// What the keys and values take, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A number that is equal for equal states (FNV-1a over all pairs). Walks everything: for checkers.
    pub fn digest(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |bytes: &[u8]| {
            for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (key, value) in &self.pairs {
            eat(key);
            eat(value);
        }
        hash
    }
}
