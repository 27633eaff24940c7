//! The tests of a node: real files, real sockets, real processes.
//!
//! `support` starts them, `watched` looks into one; each other file is one subject, and a test's name is the situation.

// Helpers of tests are tests too, though clippy does not see that.
#![allow(clippy::unwrap_used)]

mod cluster;
mod door;
mod identity;
mod inbox;
mod kill_under_load;
mod log;
mod no_io_uring;
mod rehome;
mod replies;
mod restart;
mod startup;
mod support;
mod turn;
mod watched;
