//! All Raft groups of one core, as one pure function.
//!
//! A [`Core`] owns every replica that lives on one core of one node, and nothing else: no clock, no disk, no socket.
//! A shell gathers what arrived, hands each thing in as an [`Event`], ends the turn with [`Event::EndTurn`], and
//! carries out the [`Effects`]. The glommio node and the simulator are two shells around this same code.
//!
//! # One turn
//!
//! ```text
//!  frames from peers ──┐                              ┌─▶ one append of all groups' writes to the core's log
//!  frames of clients ──┤                              │
//!  Durable(number)   ──┼─▶ step ─▶ step ─▶ EndTurn ───┼─▶ frames to each peer, all groups and the beacon together
//!  Timer             ──┤                              │
//!  PeerUp / PeerDown ──┘                              └─▶ one reply frame for each client connection
//! ```
//!
//! Proposals of one turn to one group become one Raft write and one Append for each peer. Reads of one turn share one
//! ReadIndex round for each peer (`read`). Everything of all groups for one peer leaves in one frame (`send`).
//!
//! # Which file does what
//!
//! - `core`: the type, the dispatch of events, and the end of a turn
//! - `request`: what a client asks: checks, refusals, and the way to `propose` or `read`
//! - `propose`: commands into Raft, and the outcome back to the waiting client after apply
//! - `quarantine`: groups whose next entry cannot be read here
//! - `memory`: how much of the logs stays in memory, and the entries that are fetched
//! - `read`: linearizable reads by shared ReadIndex rounds (law 6)
//! - `follower_read`: reads that a follower serves, at an index that it has asked for, or within an age
//! - `beacon`: what cores say of all their groups at once (law 7)
//! - `relist`: how a core learns again what another one leads (law 8)
//! - `liveness`: support, attachment and paced campaigns (laws 7, 8 and 10)
//! - `health`, `stall`: what a core does that is slow, or whose disk does not answer (law 10)
//! - `members`: who belongs to a group, and who leads it, when somebody asks for a change
//! - `order`: the orders of operators, who name nodes and wait for an answer
//! - `amnesia`: what a core that comes to life asks its peers before it takes part (law 12)
//! - `lease`: reads of a leader without asking anybody, off by default (laws 1 to 4 and 9)
//! - `send`: outgoing messages gathered for each peer and packed into frames
//! - `trace`: what happens to a group, for checkers outside
//! - `checkpoint`: when states are written down, how they are cut into chunks, and how they are built again (law 19)
//! - `snapshot`: how a replica gets a state from another one, comes to life, and ends (laws 11, 18 and 21)
//! - `replica`, `replicas`, `peer`, `timers`: the state behind these verbs
//! - [`quorum_loss`]: how groups begin anew with the survivors of a lost quorum, decided offline
//! - [`sessions`]: what a group remembers of its clients, so that nothing is done twice (law 24)
//! - `kv`: the built-in ordered key-value machine
//!
//! # Ordering
//!
//! The order in which a shell carries out the parts of one [`Effects`] does not matter for safety: whatever must wait
//! for the disk is held back inside `pontoon-raft` until the shell reports [`Event::Durable`] (law 13).
//!
//! # Left out so far
//!
//! Splits and merges, and state machines other than the built-in one.

mod amnesia;
mod beacon;
mod checkpoint;
mod config;
mod core;
mod effect;
mod event;
mod follower_read;
mod health;
mod known_commits;
mod kv;
mod lease;
mod liveness;
mod log_space;
mod members;
mod memory;
mod mutation;
mod order;
mod peer;
mod propose;
mod quarantine;
pub mod quorum_loss;
mod read;
mod relist;
mod replica;
mod replicas;
mod request;
mod send;
pub mod sessions;
mod snapshot;
mod stall;
mod timers;
mod trace;
mod view;

pub use amnesia::{Ledger, Past, PeerRecord};
pub use checkpoint::{Checkpoint, CheckpointBuilder, CheckpointConfig, ChunkFault};
pub use config::{CoreConfig, GroupState};
pub use core::Core;
pub use effect::{CoreWrite, Effects};
pub use event::{ConnectionId, Event};
pub use kv::Kv;
pub use lease::LeaseConfig;
pub use members::OrderRefused;
#[cfg(feature = "mutations")]
pub use mutation::CoreMutation;
pub use pontoon_raft::membership::{Change, Configuration, Standing};
pub use pontoon_raft::{ChangeRefused, MembersChange, TransferRefused};
pub use pontoon_raft::{Config as RaftConfig, Fetch, Identities, Priority, Reader, Role, Unfetched};
pub use pontoon_wire::client::CoreStanding;
pub use stall::STALL_AFTER;
pub use view::{GroupView, state_digest};
