//! What enters a core.

use std::fmt;

use bytes::Bytes;
use pontoon_raft::{MembersChange, Unfetched};
use pontoon_types::{CoreWriteNumber, Entry, FetchNumber, GroupId, Index, LogMark, LogRoom, NodeId, StoreAnswer};

/// A client's connection, named by the shell. Never reused while the core lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn{}", self.0)
    }
}

/// Everything that can happen to a core.
#[derive(Clone, Debug)]
pub enum Event {
    /// A whole frame came in on the link that `from` dialled.
    PeerFrame {
        /// The node that the link's Hello named.
        from: NodeId,
        /// The frame, header included.
        bytes: Bytes,
    },
    /// The link to this node can carry frames.
    PeerUp(NodeId),
    /// The link to this node broke; frames sent and not yet delivered may be lost.
    PeerDown(NodeId),
    /// A whole frame came in from a client.
    ClientFrame {
        /// Where it came from, and where the replies go.
        connection: ConnectionId,
        /// The frame, header included.
        bytes: Bytes,
    },
    /// The connection is closed; replies to it are worthless.
    ClientGone(ConnectionId),
    /// Every append up to and including this one is on the disk.
    Durable(CoreWriteNumber),
    /// The log has room for so many bytes of entries in each turn from now on. Without any, writes are answered Busy.
    LogRoom(LogRoom),
    /// The log is durable up to this mark. Comes before the [`Event::Durable`] that it goes with.
    Marked(LogMark),
    /// The ledger with this number is durable: the answer to [`crate::Effects::ledger`].
    LedgerKept(u64),
    /// A sync of the log has taken longer than [`crate::STALL_AFTER`] and has not ended (`true`), or has ended after all.
    Stalled(bool),
    /// The clock that times come from has jumped, or has run differently from another one by more than the margin (law 2).
    ClockJumped,
    /// The answer to one of [`crate::Effects::fetches`]. One that nobody waits for any more is ignored.
    Fetched {
        /// Whose entries.
        group: GroupId,
        /// Which fetch.
        number: FetchNumber,
        /// The entries, one at least, from the first one asked for on; or why not even that one.
        result: Result<Vec<Entry>, Unfetched>,
    },
    /// The log has lost the payloads of entries that were durable. They are written again.
    Lost {
        /// Whose entries.
        group: GroupId,
        /// Which ones.
        indexes: Vec<Index>,
    },
    /// The answer to one of [`crate::Effects::store`]. One that nobody waits for any more is ignored.
    Store(StoreAnswer),
    /// Old entries of these groups keep the log from giving segments back: they are checkpointed before others.
    LogPressure(Vec<GroupId>),
    /// Change the members of a group that this core leads, by replica. What cannot be done comes out as a refused order, and
    /// nothing says when the rest is done: operators order as clients do. For whoever drives a core by hand.
    ChangeMembers {
        /// Whose members.
        group: GroupId,
        /// How.
        change: MembersChange,
    },
    /// Hand a group that this core leads over to another node, in the same way.
    TransferLeader {
        /// Whose leadership.
        group: GroupId,
        /// Who is to lead.
        to: NodeId,
    },
    /// A deadline passed, or may have.
    Timer,
    /// Everything that had arrived was stepped: fill in the effects of the turn.
    EndTurn,
}
