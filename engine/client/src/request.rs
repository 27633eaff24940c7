//! What a caller asks and what it hears.

use bytes::Bytes;
use pontoon_types::{CoreId, GroupId, NodeId};
use pontoon_wire::client::{CoreStatus, OperationOutcome, ReadLevel, Routes};
use pontoon_wire::command::KvOperation;
use pontoon_wire::order::{GroupMembers, Order};

use crate::ClientError;

/// One request of one caller, unique within a client. Tickets are given out in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets or removes a key if its value is the expected one.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// The value it must have; none means that the key must be absent.
        expected: Option<Bytes>,
        /// The new value; none removes the key.
        value: Option<Bytes>,
    },
    /// Several operations, all or nothing. All keys must lie in one range.
    Batch {
        /// The operations, applied in this order.
        operations: Vec<KvOperation>,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
        /// What the read promises. Any level but the default is asked of a replica that does not lead, first.
        level: ReadLevel,
    },
    /// Reads the pairs of `[start, end)` in order, linearizably for each range.
    Scan {
        /// The first key wanted.
        start: Bytes,
        /// The first key not wanted; none is the end of the key space.
        end: Option<Bytes>,
        /// Most pairs wanted.
        limit: u32,
    },
    /// Changes the members of a group, or its leader.
    Order {
        /// The group.
        group: GroupId,
        /// How.
        order: Order,
    },
    /// Makes a node's replica of a group more or less eager to lead, until that node ends.
    Prefer {
        /// The node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// From 0, which campaigns first, to 8.
        priority: u8,
    },
    /// Asks the leader of a group for its members.
    Members {
        /// The group.
        group: GroupId,
    },
    /// Asks one core what it holds and what it counted.
    Status {
        /// The node.
        node: NodeId,
        /// Its core.
        core: CoreId,
    },
    /// Asks any node for its copy of the routing table.
    Routes,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// A write was applied: one outcome for each operation, in order.
    Written(Vec<OperationOutcome>),
    /// The value of a key, if it is there.
    Value(Option<Bytes>),
    /// Pairs in key order.
    Pairs {
        /// The pairs.
        pairs: Vec<(Bytes, Bytes)>,
        /// Where to go on, when the scan stopped at a limit before its end.
        next: Option<Bytes>,
    },
    /// An order is done, or a preference taken.
    Ordered,
    /// The members of a group.
    Members(Box<GroupMembers>),
    /// A copy of the routing table.
    Routes(Box<Routes>),
    /// The state of one core.
    Status(Box<CoreStatus>),
}

/// The one answer to one ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which request this answers.
    pub ticket: Ticket,
    /// The answer.
    pub result: Result<Response, ClientError>,
}
