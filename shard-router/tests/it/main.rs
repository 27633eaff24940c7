//! The tests of the router: the table's laws and the first placement.

mod placement;
mod properties;
mod table;

use bytes::Bytes;
use pontoon_types::{Descriptor, Generation, GroupId, KeyRange, Member, NodeId, ReplicaId};

/// A descriptor of three members. An empty `end` stands for the end of the key space.
fn descriptor(group: u64, start: &str, end: &str, generation: u64) -> Descriptor {
    let key = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Descriptor {
        group: GroupId(group),
        range: KeyRange { start: key(start), end: (!end.is_empty()).then(|| key(end)) },
        members: (1..=3).map(|node| Member { node: NodeId(node), replica: ReplicaId(node) }).collect(),
        generation: Generation(generation),
    }
}

/// What a table holds, on one line.
fn print<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> String {
    let one = |d: &Descriptor| format!("{} {} {}", d.group, d.range, d.generation);
    descriptors.into_iter().map(one).collect::<Vec<_>>().join(" | ")
}
