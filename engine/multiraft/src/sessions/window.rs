//! Things by the sequence of a client: a sorted queue, made for sequences that mostly come in their order.

use std::collections::VecDeque;

/// Items by sequence.
///
/// Invariant: the sequences rise.
#[derive(Clone, Debug)]
pub(super) struct Window<T> {
    items: VecDeque<(u64, T)>,
}

impl<T> Default for Window<T> {
    fn default() -> Window<T> {
        Window { items: VecDeque::new() }
    }
}

impl<T> Window<T> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The item of `sequence`.
    pub(super) fn get(&self, sequence: u64) -> Option<&T> {
        if self.items.back().is_none_or(|(last, _)| *last < sequence) {
            return None;
        }
        let place = self.items.binary_search_by_key(&sequence, |(sequence, _)| *sequence).ok()?;
        Some(&self.items[place].1)
    }

    /// Adds an item whose sequence has none.
    pub(super) fn insert(&mut self, sequence: u64, item: T) {
        if self.items.back().is_none_or(|(last, _)| *last < sequence) {
            return self.items.push_back((sequence, item));
        }
        let place = self.items.binary_search_by_key(&sequence, |(sequence, _)| *sequence);
        let place = place.expect_err("law: a sequence is added once (law 24)");
        self.items.insert(place, (sequence, item));
    }

    /// Takes out the item with the lowest sequence.
    pub(super) fn pop_first(&mut self) -> Option<(u64, T)> {
        let first = self.items.pop_front();
        if self.items.len() < self.items.capacity() / 8 {
            self.items.shrink_to(self.items.len() * 2);
        }
        first
    }

    /// Takes out the item with the lowest sequence, if that is below `floor`.
    pub(super) fn pop_below(&mut self, floor: u64) -> Option<(u64, T)> {
        self.items.front().is_some_and(|(first, _)| *first < floor).then(|| self.pop_first()).flatten()
    }

    /// The highest sequence.
    pub(super) fn last(&self) -> Option<u64> {
        self.items.back().map(|(last, _)| *last)
    }

    /// All items from `sequence` on.
    pub(super) fn from(&self, sequence: u64) -> impl Iterator<Item = &(u64, T)> {
        self.items.range(self.items.partition_point(|(first, _)| *first < sequence)..)
    }
}
