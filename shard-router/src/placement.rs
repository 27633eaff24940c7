//! The first ranges of a cluster, and which node and core a group belongs to.

use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::ids::FIRST_RANGE_GROUP;
use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{CoreId, Descriptor, Generation, GroupId, KeyRange, Member, NodeId, ReplicaId};

/// Most ranges that a new cluster can have. A routing table of so many, with three members each, fits into one frame.
pub const RANGES_MAX: u32 = 1 << 17;

/// Most ranges whose boundaries are two bytes long. These boundaries never change: a node computes its first ranges anew
/// at each start.
const SHORT_RANGES_MAX: u32 = 1 << 16;

/// Cuts the key space into `ranges` intervals whose shares of the first bytes differ by at most one: of the first two
/// bytes, or of the first three when there are more ranges than two bytes tell apart.
///
/// The caller has checked that `ranges` is between 1 and [`RANGES_MAX`].
pub fn cut(ranges: u32) -> Vec<KeyRange> {
    assert!((1..=RANGES_MAX).contains(&ranges), "a cluster has 1 to RANGES_MAX ranges");
    let boundary_bytes = if ranges <= SHORT_RANGES_MAX { 2 } else { 3 };
    // All boundaries lie in one piece of memory: a key of its own would take many times its two bytes.
    let boundaries: Bytes = (0..ranges)
        .flat_map(|place| {
            let prefix = (u64::from(place) << (8 * boundary_bytes)) / u64::from(ranges);
            prefix.to_be_bytes().into_iter().skip(8 - boundary_bytes)
        })
        .collect();
    let boundary = |place: u32| {
        let at = place as usize * boundary_bytes;
        boundaries.slice(at..at + boundary_bytes)
    };
    let mut start = Bytes::new();
    (1..=ranges)
        .map(|next| {
            let end = (next < ranges).then(|| boundary(next));
            let start = std::mem::replace(&mut start, end.clone().unwrap_or_default());
            KeyRange { start, end }
        })
        .collect()
}

/// The descriptors of a new cluster: one group for each range, with a replica on every node.
///
/// The replica on a node carries the node's number. The caller has checked that the nodes differ from each other and
/// are at most `MEMBERS_MAX`.
pub fn initial_descriptors(ranges: u32, nodes: &[NodeId]) -> Vec<Descriptor> {
    assert!((1..=MEMBERS_MAX).contains(&nodes.len()), "a group has 1 to MEMBERS_MAX members");
    let mut members: Vec<Member> =
        nodes.iter().map(|node| Member { node: *node, replica: ReplicaId(node.0) }).collect();
    members.sort_unstable();
    let members: Arc<[Member]> = members.into();
    assert!(members.windows(2).all(|pair| pair[0].node < pair[1].node), "no node has two replicas of one group");
    cut(ranges)
        .into_iter()
        .zip(FIRST_RANGE_GROUP.0..)
        .map(|(range, group)| Descriptor {
            group: GroupId(group),
            range,
            members: members.clone(),
            generation: Generation(1),
        })
        .collect()
}

/// The node that should lead the group while all its members are well.
///
/// Each run of as many groups as there are members gives one leadership to each member. The order moves on by one from
/// run to run: were it the same in each run, then with as many cores as members all groups of one core would have their
/// leaders on one node. (It still is so when the cores are a multiple of the members' square, such as 9 for 3.)
pub fn preferred_leader(descriptor: &Descriptor) -> NodeId {
    let members = descriptor.members.len() as u64;
    assert!(members > 0, "a descriptor has members");
    let place = place_of(descriptor.group);
    let turn = place % members + place / members % members;
    descriptor.members[(turn % members) as usize].node
}

/// The core that owns the group's replica on any node with `cores` cores.
pub fn core_of(group: GroupId, cores: u16) -> CoreId {
    assert!(cores > 0, "a node has cores");
    CoreId((place_of(group) % u64::from(cores)) as u16)
}

/// The group's place among the groups of ranges. The meta group shares the first one's place.
fn place_of(group: GroupId) -> u64 {
    group.0.saturating_sub(FIRST_RANGE_GROUP.0)
}
