//! The Rust client: it knows which node leads which range, keeps many requests in flight over few connections, and
//! tells the truth about the ones that were not answered.
//!
//! # How it works
//!
//! The heart is [`session::Session`], a function of events without clock or socket: a request enters, the routing
//! cache names a connection, replies and refusals come back, tickets are completed. [`Client`] is the shell around
//! it: non-blocking TCP, one epoll descriptor, one turn for each [`Client::poll`]. Everything submitted between two
//! polls leaves as one frame for each connection, and one receive for each ready connection feeds the answers back.
//! There is one connection for each core of each node, or more when [`ClientOptions::connections`] asks for them.
//!
//! # Laws
//!
//! - A ticket is completed exactly once.
//! - A request is sent again until it is answered or its time is over. Whatever was sent of a write, its group carries it
//!   out once at most (law 24), so its outcome is nearly always known. [`ClientError::Unknown`] remains for a write that
//!   nobody could answer in time, or that its group has forgotten meanwhile: it may have happened, or may still happen.
//! - Every request ends by its deadline.
//!
//! # Left out
//!
//! A scan over several ranges is
//! linearizable for each range, not over all of them. A batch must stay inside one range. Nothing is encrypted.

mod blocking;
mod bootstrap;
mod client;
mod clock;
mod error;
mod link;
mod members;
mod request;
pub mod routing;
pub mod session;
mod slots;
mod work;

pub use blocking::{Page, Swap};
pub use client::{Client, ClientOptions};
pub use error::ClientError;
pub use members::{MembersWish, plan_members};
pub use pontoon_wire::client::{CoreStanding, CoreStatus, OperationOutcome, ReadLevel, Routes};
pub use pontoon_wire::command::KvOperation;
pub use pontoon_wire::order::{GroupMember, GroupMembers, MemberStanding, Order, OrderReason};
pub use request::{Completion, Request, Response, Ticket};
