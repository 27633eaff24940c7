//! Key to group to nodes: who owns which keys, and where a group lives.
//!
//! The key space is the set of descriptors. A [`RoutingTable`] holds one of them for every key: no gap, no overlap, at
//! every moment (law 23). Nodes and clients each have a copy; a copy that is out of date is repaired by the descriptor
//! that comes back with a refusal, and never replaces a newer descriptor by an older one.
//!
//! [`initial_descriptors`] cuts the key space of a new cluster, [`preferred_leader`] and [`core_of`] spread groups
//! over nodes and cores. Both are pure functions of identifiers, so every node comes to the same answer without asking.
//!
//! Left out on purpose: the leader of a group (whoever routes remembers it, since it changes without a generation),
//! addresses, and everything that decides to split, merge or move.

mod placement;
mod table;

pub use placement::{RANGES_MAX, core_of, cut, initial_descriptors, preferred_leader};
pub use table::{RoutingTable, TableError};
