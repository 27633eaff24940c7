//! The bytes of Pontoon: what nodes say to each other, what clients and nodes say, and the commands in the log.
//!
//! A connection opens with a fixed [`hello::Hello`] and a fixed [`hello::Welcome`]; after them it carries
//! [`frame`]s. A [`peer::PeerFrame`] takes everything that one core has for one peer: messages of many groups, the
//! beacon, rounds of reads. A [`client::RequestFrame`] goes up and a [`client::ReplyFrame`] comes down a client's
//! connection. A [`command::Command`] is the payload of a log entry.
//!
//! Laws, held by tests:
//!
//! - Any bytes decode to a value or to an error. Nothing panics, and what decoding allocates is bounded by a small
//!   multiple of the bytes that arrived.
//! - Every byte of a frame is covered by a checksum, and the checksum is compared before the structure is read.
//! - A layout is frozen once it has a version number. The golden files under `tests/golden` are that layout; a change
//!   of them is a new version and a new module beside `v1`.
//! - Values decode without a copy: keys, values, commands and entries are slices of the frame. The exception is a
//!   descriptor's keys, which routers keep for long and which would keep a whole receive buffer with them.
//!
//! Left out on purpose: sockets (the shells own them), the negotiation policy (a node decides whom it welcomes) and
//! the meaning of what is carried.

pub mod client;
pub mod command;
pub mod frame;
pub mod hello;
pub mod order;
pub mod peer;

mod cursor;
mod numbered;
mod reader;
mod v1;

/// The newest version of the frames, which this build writes and reads.
pub const VERSION: u16 = 1;

/// The oldest version of the frames that this build reads.
pub const VERSION_MIN: u16 = 1;
