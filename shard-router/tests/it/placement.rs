//! The first cuts, and who owns what.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_router::{RANGES_MAX, RoutingTable, core_of, cut, initial_descriptors, preferred_leader};
use pontoon_types::ids::META_GROUP;
use pontoon_types::{CoreId, Descriptor, Generation, GroupId, Member, NodeId, ReplicaId};
use proptest::prelude::*;

use crate::{descriptor, print};

/// The first bytes at which a range begins, as many as boundaries have.
fn prefix(start: &Bytes, boundary_bytes: usize) -> u32 {
    start.iter().chain(&[0; 3]).take(boundary_bytes).fold(0, |prefix, byte| prefix << 8 | u32::from(*byte))
}

fn check_cut(ranges: u32) {
    let cuts = cut(ranges);
    assert_eq!(cuts.len(), ranges as usize);
    let bytes = if ranges <= 1 << 16 { 2 } else { 3 };
    let last = 1 << (8 * bytes);
    let ends = cuts.iter().map(|range| range.end.as_ref().map_or(last, |end| prefix(end, bytes)));
    let shares: Vec<u32> = cuts.iter().zip(ends).map(|(range, end)| end - prefix(&range.start, bytes)).collect();
    assert!(cuts.iter().skip(1).all(|range| range.start.len() == bytes), "boundaries of {ranges} ranges");
    let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
    assert!(most.zip(least).is_some_and(|(most, least)| least >= 1 && most - least <= 1), "{ranges}: {shares:?}");
    let table = RoutingTable::new(initial_descriptors(ranges, &[NodeId(1)])).expect("cuts are adjacent");
    assert_eq!(table.len(), ranges as usize);
}

#[test]
fn cuts_are_even_at_the_borders() {
    for ranges in [1, 2, 3, 255, 256, 257, 65_535, 65_536, 65_537, 100_000, RANGES_MAX] {
        check_cut(ranges);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn cuts_are_even(ranges in 1..=4096u32) {
        check_cut(ranges);
    }
}

#[test]
fn four_ranges_as_they_are_printed() {
    let descriptors = initial_descriptors(4, &[NodeId(3), NodeId(1), NodeId(2)]);
    assert_eq!(
        print(&descriptors),
        r"g2 [, @\x00) gen1 | g3 [@\x00, \x80\x00) gen1 | g4 [\x80\x00, \xc0\x00) gen1 | g5 [\xc0\x00, ∞) gen1"
    );
    let member = |node| Member { node: NodeId(node), replica: ReplicaId(node) };
    assert!(descriptors.iter().all(|descriptor| *descriptor.members == [member(1), member(2), member(3)]));
    assert!(descriptors.iter().all(|descriptor| descriptor.generation == Generation(1)));
}

#[test]
#[should_panic(expected = "1 to RANGES_MAX")]
fn no_range_at_all_is_not_a_cut() {
    cut(0);
}

#[test]
#[should_panic(expected = "1 to RANGES_MAX")]
fn more_ranges_than_prefixes_are_not_a_cut() {
    cut(RANGES_MAX + 1);
}

#[test]
#[should_panic(expected = "two replicas")]
fn a_node_holds_one_replica_of_a_group() {
    initial_descriptors(1, &[NodeId(1), NodeId(2), NodeId(1)]);
}

/// How many of the descriptors each node should lead.
fn leaders<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> BTreeMap<NodeId, usize> {
    let mut leaders = BTreeMap::new();
    for descriptor in descriptors {
        *leaders.entry(preferred_leader(descriptor)).or_default() += 1;
    }
    leaders
}

#[test]
fn leaders_are_spread_over_the_nodes() {
    for (nodes, ranges) in [(1, 5), (2, 2), (3, 3), (3, 48), (5, 40), (7, 700)] {
        let nodes: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let leaders = leaders(&initial_descriptors(ranges, &nodes));
        assert_eq!(leaders.keys().copied().collect::<Vec<_>>(), nodes);
        assert!(leaders.values().all(|count| *count == ranges as usize / nodes.len()), "{leaders:?}");
    }
}

#[test]
fn leaders_are_spread_over_the_nodes_on_each_core() {
    for (nodes, cores) in [3, 5].into_iter().flat_map(|nodes| (1..=8u16).map(move |cores| (nodes, cores))) {
        let descriptors = initial_descriptors(960, &(1..=nodes).map(NodeId).collect::<Vec<_>>());
        for core in (0..cores).map(CoreId) {
            let own = descriptors.iter().filter(|descriptor| core_of(descriptor.group, cores) == core);
            let leaders = leaders(own);
            let fair = 960.0 / f64::from(cores) / nodes as f64;
            let even = |count: &usize| (*count as f64 - fair).abs() <= fair * 0.15;
            assert_eq!(leaders.len(), nodes as usize);
            assert!(leaders.values().all(even), "{nodes} nodes, {cores} cores, {core}: {leaders:?}");
        }
    }
}

#[test]
fn the_preferred_leader_is_a_member() {
    let mut descriptor = descriptor(u64::MAX, "", "", 1);
    assert!(descriptor.replica_on(preferred_leader(&descriptor)).is_some());
    descriptor.members = descriptor.members[..1].into();
    assert_eq!(preferred_leader(&descriptor), NodeId(1));
}

#[test]
fn groups_go_round_the_cores() {
    let cores: Vec<u16> = (2..9).map(|group| core_of(GroupId(group), 3).0).collect();
    assert_eq!(cores, [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(core_of(META_GROUP, 3), CoreId(0));
    assert_eq!(core_of(GroupId(u64::MAX), 1), CoreId(0));
}
