//! The table of all ranges.

use bytes::Bytes;
use pontoon_types::{Descriptor, GroupId, KeyRange};

/// Why a set of descriptors is not a key space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There is no descriptor at all.
    #[error("a key space has at least one range")]
    Empty,
    /// Keys belong to nobody.
    #[error("no range owns the keys {keys}")]
    Gap {
        /// The keys without an owner.
        keys: KeyRange,
    },
    /// Keys belong to two groups.
    #[error("{first} and {second} both own keys from {key:?} on")]
    Overlap {
        /// One owner.
        first: GroupId,
        /// The other.
        second: GroupId,
        /// The first key that both own.
        key: Bytes,
    },
    /// A range ends before it begins.
    #[error("the range {keys} of {group} holds no key")]
    NoKeys {
        /// The group.
        group: GroupId,
        /// Its range.
        keys: KeyRange,
    },
    /// A group owns two ranges.
    #[error("{group} owns more than one range")]
    TwoRanges {
        /// The group.
        group: GroupId,
    },
    /// A descriptor has no members, so nobody could be asked.
    #[error("{group} has no members")]
    NoMembers {
        /// The group.
        group: GroupId,
    },
}

/// One descriptor for every key.
///
/// Invariants: descriptors are sorted by their first key; the first begins at the empty key, each other one begins
/// where the one before it ends, and the last has no end; no group appears twice; `places` is sorted by group and
/// tells where each group's descriptor stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingTable {
    descriptors: Vec<Descriptor>,
    places: Vec<(GroupId, usize)>,
}

impl RoutingTable {
    /// A table of these descriptors, in any order, if they are a key space.
    pub fn new(mut descriptors: Vec<Descriptor>) -> Result<RoutingTable, TableError> {
        descriptors.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        check_ranges(&descriptors)?;
        let places = places(&descriptors)?;
        Ok(RoutingTable { descriptors, places })
    }

    /// The descriptor of the range that holds `key`.
    pub fn lookup(&self, key: &[u8]) -> &Descriptor {
        &self.descriptors[self.place_of(key)]
    }

    /// The descriptor of `group`, if it owns a range.
    pub fn by_group(&self, group: GroupId) -> Option<&Descriptor> {
        let found = self.places.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        Some(&self.descriptors[self.places[found].1])
    }

    /// All descriptors in the order of their keys.
    pub fn iter(&self) -> std::slice::Iter<'_, Descriptor> {
        self.descriptors.iter()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Always false: a key space has at least one range.
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// The descriptors whose ranges hold keys of `[start, end)`, in order. Without an end, to the last key.
    pub fn overlapping(&self, start: &[u8], end: Option<&[u8]>) -> std::slice::Iter<'_, Descriptor> {
        let past = match end {
            Some(end) if end <= start => return [].iter(),
            Some(end) => self.descriptors.partition_point(|descriptor| descriptor.range.start.as_ref() < end),
            None => self.descriptors.len(),
        };
        self.descriptors[self.place_of(start)..past].iter()
    }

    /// Takes a newer descriptor in place of all that it covers. Says whether it did; if not, nothing changed.
    ///
    /// It is refused unless its generation is higher than that of each descriptor it replaces, and unless it begins
    /// and ends where replaced ranges begin and end. The two halves of a split come together, by
    /// [`RoutingTable::accept_all`].
    pub fn accept(&mut self, descriptor: Descriptor) -> bool {
        self.accept_all(vec![descriptor])
    }

    /// Takes newer descriptors, adjacent to each other and in any order, in place of all that they cover together.
    /// Says whether it did; if not, nothing changed.
    pub fn accept_all(&mut self, mut newer: Vec<Descriptor>) -> bool {
        newer.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        let Some(covered) = self.replaced_by(&newer) else {
            return false;
        };
        let unchanged = |(place, descriptor): (usize, &Descriptor)| {
            let own = &self.descriptors[place];
            own.group == descriptor.group && own.range == descriptor.range
        };
        if newer.len() == covered.len() && covered.clone().zip(&newer).all(unchanged) {
            self.descriptors[covered].clone_from_slice(&newer);
            return true;
        }
        let mut descriptors = self.descriptors.clone();
        descriptors.splice(covered, newer);
        // A group may own a range elsewhere, which only the whole table shows.
        match places(&descriptors) {
            Ok(places) => {
                *self = RoutingTable { descriptors, places };
                true
            }
            Err(_) => false,
        }
    }

    /// The places of the descriptors that `newer` replaces, if it may.
    fn replaced_by(&self, newer: &[Descriptor]) -> Option<std::ops::Range<usize>> {
        let (first, last) = (newer.first()?, newer.last()?);
        if !newer.iter().all(is_sound)
            || !newer.windows(2).all(|pair| pair[0].range.end.as_ref() == Some(&pair[1].range.start))
        {
            return None;
        }
        let from = self.place_of(&first.range.start);
        let through = match &last.range.end {
            Some(end) => self.descriptors.partition_point(|descriptor| descriptor.range.start < end) - 1,
            None => self.descriptors.len() - 1,
        };
        let same_keys = self.descriptors[from].range.start == first.range.start
            && self.descriptors[through].range.end == last.range.end;
        let mut replaced = self.descriptors[from..=through].iter();
        let newest = replaced.all(|own| {
            newer
                .iter()
                .filter(|descriptor| overlap(&own.range, &descriptor.range))
                .all(|descriptor| descriptor.generation > own.generation)
        });
        (same_keys && newest).then_some(from..through + 1)
    }

    /// The place of the descriptor whose range holds `key`.
    fn place_of(&self, key: &[u8]) -> usize {
        // The first range begins at the empty key, so at least one begins at or before any key.
        self.descriptors.partition_point(|descriptor| descriptor.range.start.as_ref() <= key) - 1
    }
}

impl<'a> IntoIterator for &'a RoutingTable {
    type Item = &'a Descriptor;
    type IntoIter = std::slice::Iter<'a, Descriptor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Whether a descriptor owns keys and has somebody to ask.
fn is_sound(descriptor: &Descriptor) -> bool {
    holds_keys(&descriptor.range) && !descriptor.members.is_empty()
}

fn holds_keys(range: &KeyRange) -> bool {
    range.end.as_ref().is_none_or(|end| *end > range.start)
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let begins_before_end = |x: &KeyRange, y: &KeyRange| y.end.as_ref().is_none_or(|end| x.start < *end);
    begins_before_end(a, b) && begins_before_end(b, a)
}

/// Refuses sorted descriptors that leave a gap or overlap.
fn check_ranges(descriptors: &[Descriptor]) -> Result<(), TableError> {
    let (Some(first), Some(last)) = (descriptors.first(), descriptors.last()) else {
        return Err(TableError::Empty);
    };
    for Descriptor { group, range, members, .. } in descriptors {
        if !holds_keys(range) {
            return Err(TableError::NoKeys { group: *group, keys: range.clone() });
        }
        if members.is_empty() {
            return Err(TableError::NoMembers { group: *group });
        }
    }
    if !first.range.start.is_empty() {
        let keys = KeyRange { start: Bytes::new(), end: Some(first.range.start.clone()) };
        return Err(TableError::Gap { keys });
    }
    for pair in descriptors.windows(2) {
        let (left, right) = (&pair[0], &pair[1]);
        match &left.range.end {
            Some(end) if *end == right.range.start => {}
            Some(end) if *end < right.range.start => {
                let keys = KeyRange { start: end.clone(), end: Some(right.range.start.clone()) };
                return Err(TableError::Gap { keys });
            }
            _ => {
                let key = right.range.start.clone();
                return Err(TableError::Overlap { first: left.group, second: right.group, key });
            }
        }
    }
    match &last.range.end {
        Some(end) => Err(TableError::Gap { keys: KeyRange { start: end.clone(), end: None } }),
        None => Ok(()),
    }
}

/// Where each group's descriptor stands.
fn places(descriptors: &[Descriptor]) -> Result<Vec<(GroupId, usize)>, TableError> {
    let mut places: Vec<(GroupId, usize)> =
        descriptors.iter().enumerate().map(|(place, descriptor)| (descriptor.group, place)).collect();
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(TableError::TwoRanges { group: pair[0].0 }),
        None => Ok(places),
    }
}
