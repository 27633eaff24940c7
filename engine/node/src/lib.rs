//! The shell around the pure core: disk, sockets, time and threads; the embedding API; and `pontoond`.
//!
//! A [`Node`] is one data directory, one listening port and one thread for each core. A thread runs one
//! [`core_loop::CoreLoop`] on a pinned glommio executor. The loop owns everything of its core: the groups
//! (`pontoon-multiraft`), the log (`pontoon-wal`), the links to the other nodes, and the clients' connections. Cores
//! share nothing but bounded inboxes.
//!
//! # Embedding
//!
//! ```no_run
//! use pontoon::{InitPlan, Node, NodeConfig, NodeId, init};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! init(&InitPlan {
//!     nodes: vec![(NodeId(1), "data/n1".into(), "127.0.0.1:7400".parse()?)],
//!     ranges: 64,
//!     cores: 1,
//!     log: Default::default(),
//! })?;
//! let node = Node::start(NodeConfig::new("data/n1"))?;
//! println!("listening on {}", node.address());
//! node.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which file does what
//!
//! - `node`: start and stop; `executor`: a core's thread; `processors`: where it runs; `recover`: logs to groups; `listen`: the
//!   port
//! - `core_loop`: one turn, over the `driver` (epoll, sockets, and a small ring for syncs); `hold`: when to sync;
//!   `write_limits`: what one write may carry
//! - `link`: the connection to a peer; `door`: who may come in; `connection`: who came in; `inbox`: between threads
//! - `slot`: the frame of small files written in two places in turn
//! - `init`: the first start of a cluster; `identity`: the node file and the lock; `descriptor_record`: its ranges
//! - `store`: the checkpoints, on threads of their own
//! - `quorum_loss`: groups that begin anew with the survivors of a lost quorum, offline
//! - `watch`: cores that do not come back from a turn
//! - `rehome`: a start with another number of cores; `trace_file`: protocol events for checkers outside
//! - `config`, `probe`, `error`: what a node starts with, what the machine must offer, and what can go wrong
//!
//! # Laws
//!
//! - A turn issues one readiness call, one receive for each ready socket, at most one send for each destination and at
//!   most one sync. No task, future or thread exists for a socket or an operation.
//! - A failed sync is never tried again, and nothing leaves the core after it.
//! - A start that fails changes nothing on the disk, and is one line that says what to do.
//! - Every queue is bounded: above its limit the answer is a refusal or the end of that one connection.
//!
//! # Left out so far
//!
//! The admin port and metrics, doors for other protocols, moving a group between cores while the node runs, and nodes
//! of one cluster with different numbers of cores.

pub mod config;
pub mod connection;
pub mod core_loop;
pub mod door;
pub mod driver;
pub mod error;
pub mod hold;
pub mod identity;
pub mod inbox;
pub mod init;
pub mod ledger;
pub mod link;
pub mod node;
pub mod processors;
pub mod quorum_loss;
pub mod rehome;
pub mod store;
pub mod trace_file;
pub mod watch;
pub mod write_limits;

mod descriptor_record;
mod executor;
mod listen;
mod out_buffer;
mod probe;
mod recover;
mod slot;

pub use config::{ConfigFile, NodeConfig};
pub use core_loop::MemoryUse;
pub use error::{CoreFailure, DataDirError, InitError, StartError};
pub use inbox::Answer;
pub use init::{InitPlan, init};
pub use node::{Node, NodeFailure, StopHandle, WaitEnd};
pub use pontoon_multiraft::{Change, Configuration};
pub use pontoon_types::{ClusterId, GroupId, NodeId};
pub use pontoon_wal::Options as LogOptions;
pub use pontoon_wire::client::{Counters, Outcome, Refusal};
pub use pontoon_wire::order::{GroupMembers, Order, OrderReason};
