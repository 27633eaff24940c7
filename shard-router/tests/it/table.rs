//! The table's cases, one by one.

use bytes::Bytes;
use pontoon_router::{RoutingTable, TableError};
use pontoon_types::{GroupId, KeyRange};

use crate::{descriptor, print};

/// Groups 2, 3 and 4 with boundaries at `g` and `p`.
fn three() -> RoutingTable {
    let descriptors = vec![descriptor(3, "g", "p", 5), descriptor(4, "p", "", 7), descriptor(2, "", "g", 3)];
    RoutingTable::new(descriptors).expect("the ranges are adjacent")
}

fn keys(start: &'static str, end: &'static str) -> KeyRange {
    let end = (!end.is_empty()).then(|| Bytes::from_static(end.as_bytes()));
    KeyRange { start: Bytes::from_static(start.as_bytes()), end }
}

#[test]
fn a_table_sorts_and_finds() {
    let table = three();
    assert_eq!(print(&table), "g2 [, g) gen3 | g3 [g, p) gen5 | g4 [p, ∞) gen7");
    for (key, group) in [("", 2), ("a", 2), ("fzzz", 2), ("g", 3), ("ozz", 3), ("p", 4), ("\u{7f}", 4)] {
        assert_eq!(table.lookup(key.as_bytes()).group, GroupId(group), "key {key:?}");
    }
    assert_eq!(table.lookup(&[0xff; 4096]).group, GroupId(4));
    assert_eq!(table.by_group(GroupId(3)).map(|found| found.range.clone()), Some(keys("g", "p")));
    assert_eq!(table.by_group(GroupId(1)), None);
    assert_eq!((table.len(), table.is_empty()), (3, false));
}

#[test]
fn what_is_not_a_key_space_is_refused() {
    let refused = |descriptors| RoutingTable::new(descriptors).expect_err("this is not a key space");
    assert_eq!(refused(vec![]), TableError::Empty);
    assert_eq!(refused(vec![descriptor(2, "a", "", 1)]), TableError::Gap { keys: keys("", "a") });
    assert_eq!(refused(vec![descriptor(2, "", "z", 1)]), TableError::Gap { keys: keys("z", "") });
    let gap = vec![descriptor(2, "", "c", 1), descriptor(3, "d", "", 1)];
    assert_eq!(refused(gap), TableError::Gap { keys: keys("c", "d") });
    let (first, second) = (GroupId(2), GroupId(3));
    let overlap = vec![descriptor(2, "", "e", 1), descriptor(3, "d", "", 1)];
    assert_eq!(refused(overlap), TableError::Overlap { first, second, key: Bytes::from_static(b"d") });
    let after_the_end = vec![descriptor(2, "", "", 1), descriptor(3, "d", "", 1)];
    assert_eq!(refused(after_the_end), TableError::Overlap { first, second, key: Bytes::from_static(b"d") });
    let backwards = vec![descriptor(2, "", "c", 1), descriptor(3, "c", "b", 1)];
    assert_eq!(refused(backwards), TableError::NoKeys { group: GroupId(3), keys: keys("c", "b") });
    let twice = vec![descriptor(2, "", "c", 1), descriptor(2, "c", "", 1)];
    assert_eq!(refused(twice), TableError::TwoRanges { group: GroupId(2) });
    let mut lonely = descriptor(2, "", "", 1);
    lonely.members = [].into();
    assert_eq!(refused(vec![lonely]), TableError::NoMembers { group: GroupId(2) });
}

#[test]
fn errors_read_as_sentences() {
    let error = RoutingTable::new(vec![descriptor(2, "", "c", 1), descriptor(3, "d", "", 1)]).expect_err("a gap");
    assert_eq!(error.to_string(), "no range owns the keys [c, d)");
}

#[test]
fn only_a_higher_generation_is_accepted() {
    let mut table = three();
    assert!(!table.accept(descriptor(3, "g", "p", 4)), "lower");
    assert!(!table.accept(descriptor(3, "g", "p", 5)), "equal");
    assert_eq!(table, three());
    assert!(table.accept(descriptor(3, "g", "p", 6)));
    assert_eq!(print(&table), "g2 [, g) gen3 | g3 [g, p) gen6 | g4 [p, ∞) gen7");
    assert!(!table.accept(descriptor(3, "g", "p", 6)), "the same again");
}

#[test]
fn a_new_group_may_take_the_place_of_an_old_one() {
    let mut table = three();
    assert!(table.accept(descriptor(9, "g", "p", 6)));
    assert_eq!(table.by_group(GroupId(3)), None);
    assert_eq!(table.by_group(GroupId(9)), Some(table.lookup(b"h")));
}

#[test]
fn a_merge_replaces_what_it_covers() {
    let mut table = three();
    assert!(!table.accept(descriptor(2, "", "p", 5)), "the right one is as new");
    assert!(table.accept(descriptor(2, "", "p", 6)));
    assert_eq!(print(&table), "g2 [, p) gen6 | g4 [p, ∞) gen7");
    assert!(table.accept(descriptor(2, "", "", 8)));
    assert_eq!(print(&table), "g2 [, ∞) gen8");
}

#[test]
fn a_split_replaces_its_parent_with_both_halves_at_once() {
    let mut table = three();
    let (left, right) = (descriptor(3, "g", "k", 6), descriptor(5, "k", "p", 6));
    assert!(!table.accept(left.clone()), "one half would leave a gap");
    assert!(!table.accept(right.clone()), "one half would leave a gap");
    assert!(!table.accept_all(vec![left.clone(), descriptor(5, "l", "p", 6)]), "a gap between the halves");
    assert!(!table.accept_all(vec![left.clone(), descriptor(5, "j", "p", 6)]), "the halves overlap");
    assert!(!table.accept_all(vec![left.clone(), descriptor(5, "k", "p", 5)]), "a half is not newer");
    assert_eq!(table, three());
    assert!(table.accept_all(vec![right, left]));
    assert_eq!(print(&table), "g2 [, g) gen3 | g3 [g, k) gen6 | g5 [k, p) gen6 | g4 [p, ∞) gen7");
}

#[test]
fn what_would_break_the_table_is_refused() {
    let mut table = three();
    assert!(!table.accept_all(vec![]), "nothing");
    assert!(!table.accept(descriptor(3, "g", "q", 9)), "an end inside another range");
    assert!(!table.accept(descriptor(3, "f", "p", 9)), "a start inside another range");
    assert!(!table.accept(descriptor(4, "g", "p", 9)), "the group owns a range elsewhere");
    assert!(!table.accept(descriptor(3, "g", "g", 9)), "no keys");
    assert!(!table.accept(descriptor(3, "p", "g", 9)), "backwards");
    let mut lonely = descriptor(3, "g", "p", 9);
    lonely.members = [].into();
    assert!(!table.accept(lonely), "nobody to ask");
    assert_eq!(table, three());
}

#[test]
fn a_scan_meets_the_ranges_that_hold_its_keys() {
    let table = three();
    let groups = |start: &str, end: Option<&str>| -> Vec<u64> {
        table.overlapping(start.as_bytes(), end.map(str::as_bytes)).map(|found| found.group.0).collect()
    };
    assert_eq!(groups("", None), [2, 3, 4]);
    assert_eq!(groups("h", None), [3, 4]);
    assert_eq!(groups("", Some("g")), [2]);
    assert_eq!(groups("", Some("g\0")), [2, 3]);
    assert_eq!(groups("g", Some("p")), [3]);
    assert_eq!(groups("a", Some("a")), [0u64; 0]);
    assert_eq!(groups("z", Some("a")), [0u64; 0]);
}
