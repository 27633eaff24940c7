//! Ranges and who owns them. The arithmetic (lookup, cuts, placement) is in `pontoon-router`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Generation, GroupId, NodeId, ReplicaId};

/// The key interval `[start, end)`. An empty `start` is the beginning of the key space; `end = None` is its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key inside.
    pub start: Bytes,
    /// The first key outside, or none.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.start.escape_ascii())?;
        match &self.end {
            Some(end) => write!(f, "{})", end.escape_ascii()),
            None => write!(f, "∞)"),
        }
    }
}

/// One replica's place: a node, and the replica's identity there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Where it lives.
    pub node: NodeId,
    /// Which replica it is.
    pub replica: ReplicaId,
}

/// What a range is: its group, its interval, its members and its version.
///
/// Invariants: members are sorted by node and no node appears twice; generation is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The group that replicates the range.
    pub group: GroupId,
    /// The keys.
    pub range: KeyRange,
    /// The voters. Shared by all copies, since nodes and clients keep many descriptors.
    pub members: Arc<[Member]>,
    /// The version of this descriptor.
    pub generation: Generation,
}

impl Descriptor {
    /// The replica on `node`, if there is one.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.members.iter().find(|member| member.node == node).map(|member| member.replica)
    }

    /// The node of `replica`, if it is a member.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.members.iter().find(|member| member.replica == replica).map(|member| member.node)
    }
}
