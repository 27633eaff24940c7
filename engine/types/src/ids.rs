//! Identifiers. Each is a plain number with a name, printed the way traces and tools show it.

use std::fmt;

/// Declares an identifier: a number, ordered and hashable, printed with a short prefix.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

identifier!(
    /// One process with one data directory. Never reused within a cluster.
    NodeId(u64), "n"
);
identifier!(
    /// One pinned executor of a node, counted from zero.
    CoreId(u16), "c"
);
identifier!(
    /// One Raft group. Never reused. Group 1 is reserved for the meta group; ranges start at group 2.
    GroupId(u64), "g"
);
identifier!(
    /// One replica of a group. A removed replica's identity is never used again (law 11).
    ReplicaId(u64), "r"
);
identifier!(
    /// The version of a descriptor: grows by one at each split, merge or membership change.
    Generation(u64), "gen"
);
identifier!(
    /// How often a core's log has been opened. Durable, and larger after every start.
    Incarnation(u64), "inc"
);
identifier!(
    /// A moment in the life of a group's sessions: how many commands it had applied. Only for what sessions remember.
    SessionTime(u64), "s"
);
identifier!(
    /// The number of one append of all groups of a core to that core's log. The shell answers with the highest
    /// number that is durable; everything below it is durable too.
    CoreWriteNumber(u64), "cw"
);

/// One cluster, drawn at random when it is initialised. Nodes of different clusters refuse each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One client process, drawn at random when it starts. Request identities are (client, sequence).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The group reserved for descriptors, nodes and operations.
pub const META_GROUP: GroupId = GroupId(1);

/// The first group that owns a range.
pub const FIRST_RANGE_GROUP: GroupId = GroupId(2);
