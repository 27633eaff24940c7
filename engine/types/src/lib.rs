//! The words of Pontoon as types.
//!
//! Every number that crosses a function boundary is a newtype from [`ids`], [`log`] or [`time`]; what replicas say
//! to each other is in [`message`]; who owns which keys is in [`range`]; what names a request for ever is in
//! [`request`]; what a core and the store of its checkpoints say to each other is in [`store`]; every limit, with its unit and its reason,
//! is in [`limits`]. There is no logic here: the rooms that use these words (`pontoon-raft`, `pontoon-wal`,
//! `pontoon-router`, `pontoon-wire`) do not know one another, so what they share lives beneath them.
//!
//! Left out on purpose: encoding (that is `pontoon-wire` and `pontoon-wal`), clocks (time comes in as an argument)
//! and errors (each room has its own).

pub mod ids;
pub mod limits;
pub mod log;
pub mod message;
pub mod range;
pub mod request;
pub mod store;
pub mod time;

pub use ids::{
    ClientId, ClusterId, CoreId, CoreWriteNumber, Generation, GroupId, Incarnation, NodeId, ReplicaId, SessionTime,
};
pub use log::{
    Compaction, Creation, Entry, EntryKind, FetchNumber, HardState, Index, LogId, LogMark, LogRoom, Term, Write,
    WriteNumber,
};
pub use message::{Body, Message, Permit};
pub use range::{Descriptor, KeyRange, Member};
pub use request::{RequestId, SessionId};
pub use store::{
    ChunkNumber, ReadFailure, ReadNumber, SnapshotMeta, StagingNumber, StoreAnswer, StoreFailure, StoreOrder,
};
pub use time::Time;
