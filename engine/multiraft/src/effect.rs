//! What leaves a core at the end of a turn.

use bytes::Bytes;
use pontoon_raft::Fetch;
use pontoon_types::{CoreWriteNumber, GroupId, LogId, NodeId, StoreOrder, Write};
use pontoon_wire::client::CoreStanding;
use pontoon_wire::command::CommandError;

use crate::{ConnectionId, Ledger, OrderRefused};

/// All writes of all groups of one turn: one append to the core's log, which survives whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreWrite {
    /// Comes back in [`crate::Event::Durable`]; grows by one for each append.
    pub number: CoreWriteNumber,
    /// In the order in which the groups made them.
    pub writes: Vec<(GroupId, Write)>,
}

/// The effects of one turn. The shell takes them out and carries them out; it has nothing to remember.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be appended to the log and synced.
    pub append: Option<CoreWrite>,
    /// Beacons, each a whole frame. They leave before whatever waits for the peer, so that bulk traffic does not make a
    /// core look dead (law 10).
    pub beacons: Vec<(NodeId, Bytes)>,
    /// To be read from the log and answered with [`crate::Event::Fetched`], whenever the log can. A newer fetch of the same
    /// group and reader takes the place of an older one.
    pub fetches: Vec<(GroupId, Fetch)>,
    /// For the store beside the log, in their order; answered with [`crate::Event::Store`]. A shell that cannot carry one out
    /// answers that it failed.
    pub store: Vec<StoreOrder>,
    /// To be kept durably, in the place of the ledger before, and answered with [`crate::Event::LedgerKept`]. The next one
    /// comes after that answer.
    pub ledger: Option<(u64, Ledger)>,
    /// What the core may do has changed: for the operator.
    pub standing: Option<CoreStanding>,
    /// Whole frames, in order, for each peer.
    pub peer_frames: Vec<(NodeId, Bytes)>,
    /// Whole frames, in order, for each client connection. Frames for a connection that is gone are dropped.
    pub client_frames: Vec<(ConnectionId, Bytes)>,
    /// Client connections to close, and why: they sent what is not a frame.
    pub close: Vec<(ConnectionId, String)>,
    /// Peers whose incoming link is to be closed, and why: they sent what is not a frame of theirs, or contradicted a
    /// law.
    pub refused_peers: Vec<(NodeId, String)>,
    /// Orders of this turn that were refused, and why. What is not refused has begun.
    pub refused_orders: Vec<(GroupId, OrderRefused)>,
    /// Groups that were parked in this turn: the committed entry that cannot be read here, and why.
    pub parked: Vec<(GroupId, LogId, CommandError)>,
    /// What happened in this turn, a line for each protocol event; empty unless [`crate::CoreConfig::trace`] is set.
    pub trace: Vec<String>,
}

impl Effects {
    /// Whether there is nothing to carry out.
    pub fn is_empty(&self) -> bool {
        self.append.is_none()
            && self.beacons.is_empty()
            && self.fetches.is_empty()
            && self.store.is_empty()
            && self.ledger.is_none()
            && self.standing.is_none()
            && self.peer_frames.is_empty()
            && self.client_frames.is_empty()
            && self.close.is_empty()
            && self.refused_peers.is_empty()
            && self.refused_orders.is_empty()
            && self.parked.is_empty()
            && self.trace.is_empty()
    }
}
