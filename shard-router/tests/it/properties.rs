//! The table against the plainest model: a list that is searched from its beginning.

use bytes::Bytes;
use pontoon_router::RoutingTable;
use pontoon_types::{Descriptor, Generation, GroupId, KeyRange};
use proptest::prelude::*;

use crate::{descriptor, print};

/// Keys of up to two letters out of three, so that boundaries and keys meet often.
fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')], 0..3).prop_map(Bytes::from)
}

/// A descriptor that may fit into a table, or not.
fn proposal() -> impl Strategy<Value = Descriptor> {
    (2..8u64, key(), proptest::option::of(key()), 1..6u64).prop_map(|(group, start, end, generation)| Descriptor {
        group: GroupId(group),
        range: KeyRange { start, end },
        generation: Generation(generation),
        ..descriptor(2, "", "", 1)
    })
}

/// What happens to a table.
#[derive(Clone, Debug)]
enum Change {
    /// Descriptors as somebody may send them.
    Accept(Vec<Descriptor>),
    /// The range of a key is cut there, as a split does it.
    Split(Bytes),
    /// The range of a key takes its right neighbour, as a merge does it.
    Merge(Bytes),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        proptest::collection::vec(proposal(), 1..3).prop_map(Change::Accept),
        key().prop_map(Change::Split),
        key().prop_map(Change::Merge),
    ]
}

/// The descriptors that a split at `key` would bring, if there can be one.
fn split(table: &RoutingTable, key: &Bytes, group: GroupId) -> Option<Vec<Descriptor>> {
    let parent = table.lookup(key);
    let generation = Generation(parent.generation.0 + 1);
    let (left, right) = (
        KeyRange { start: parent.range.start.clone(), end: Some(key.clone()) },
        KeyRange { start: key.clone(), end: parent.range.end.clone() },
    );
    (parent.range.start != key).then(|| {
        vec![
            Descriptor { range: left, generation, ..parent.clone() },
            Descriptor { group, range: right, generation, ..parent.clone() },
        ]
    })
}

/// The descriptor that a merge of the range of `key` with the next one would bring, if there is a next one.
fn merge(table: &RoutingTable, key: &Bytes) -> Option<Descriptor> {
    let left = table.lookup(key);
    let right = table.lookup(left.range.end.as_ref()?);
    Some(Descriptor {
        range: KeyRange { start: left.range.start.clone(), end: right.range.end.clone() },
        generation: Generation(left.generation.max(right.generation).0 + 1),
        ..left.clone()
    })
}

/// Whether two ranges share a key of the alphabet, or one that no test uses. Written by enumeration, not arithmetic.
fn share_a_key(a: &KeyRange, b: &KeyRange, probes: &[Bytes]) -> bool {
    probes.iter().any(|probe| a.contains(probe) && b.contains(probe))
}

/// All keys that may be a boundary.
fn probes() -> Vec<Bytes> {
    let letters = [b'a', b'b', b'c'];
    let longer = letters.iter().flat_map(|a| letters.iter().map(|b| Bytes::from(vec![*a, *b])));
    let mut keys: Vec<Bytes> = letters.iter().map(|a| Bytes::from(vec![*a])).chain(longer).collect();
    keys.push(Bytes::new());
    keys.sort();
    keys
}

/// Holds the table against a search from the beginning, and against its own constructor.
fn check(table: &RoutingTable, probes: &[Bytes]) {
    let rebuilt = RoutingTable::new(table.iter().cloned().collect());
    assert_eq!(rebuilt.as_ref(), Ok(table), "no gap and no overlap: {}", print(table));
    for probe in probes {
        let owners: Vec<&Descriptor> = table.iter().filter(|owner| owner.range.contains(probe)).collect();
        assert_eq!(owners, [table.lookup(probe)], "one owner for {probe:?}");
    }
    for descriptor in table {
        assert_eq!(table.by_group(descriptor.group), Some(descriptor));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_change_breaks_the_table(changes in proptest::collection::vec(change(), 1..40)) {
        let probes = probes();
        let mut table = RoutingTable::new(vec![descriptor(2, "", "", 1)]).expect("one range owns everything");
        for (change, fresh) in changes.into_iter().zip(100..) {
            let before = table.clone();
            let (newer, must_pass) = match change {
                Change::Accept(newer) => (newer, false),
                Change::Split(key) => match split(&table, &key, GroupId(fresh)) {
                    Some(newer) => (newer, true),
                    None => continue,
                },
                Change::Merge(key) => match merge(&table, &key) {
                    Some(newer) => (vec![newer], true),
                    None => continue,
                },
            };
            let accepted = table.accept_all(newer.clone());
            check(&table, &probes);
            prop_assert!(accepted || !must_pass, "splits and merges pass");
            if !accepted {
                prop_assert_eq!(&table, &before, "what is refused changes nothing");
                continue;
            }
            for descriptor in &newer {
                prop_assert_eq!(table.by_group(descriptor.group), Some(descriptor));
            }
            for old in &before {
                let covered_by: Vec<&Descriptor> =
                    newer.iter().filter(|newer| share_a_key(&old.range, &newer.range, &probes)).collect();
                prop_assert!(covered_by.iter().all(|newer| newer.generation > old.generation), "only upwards");
                prop_assert!(!covered_by.is_empty() || table.by_group(old.group) == Some(old), "the rest is as it was");
            }
        }
    }

    #[test]
    fn a_scan_meets_exactly_the_ranges_that_share_its_keys(
        splits in proptest::collection::vec(key(), 0..8),
        start in key(),
        end in proptest::option::of(key()),
    ) {
        let mut table = RoutingTable::new(vec![descriptor(2, "", "", 1)]).expect("one range owns everything");
        for (key, fresh) in splits.iter().zip(100..) {
            if let Some(halves) = split(&table, key, GroupId(fresh)) {
                prop_assert!(table.accept_all(halves));
            }
        }
        let wanted = KeyRange { start: start.clone(), end: end.clone() };
        let probes = probes();
        let expected: Vec<&Descriptor> =
            table.iter().filter(|owner| share_a_key(&owner.range, &wanted, &probes)).collect();
        let found: Vec<&Descriptor> = table.overlapping(&start, end.as_deref()).collect();
        prop_assert_eq!(found, expected);
    }
}
