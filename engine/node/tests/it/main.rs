//! The tests of a node: real files, real sockets, real processes.
//!
//! `support` starts them, `watched` looks into one; each other file is one subject, and a test's name is the situation. Those
//! of `device` need root and are run by `wal/tests/loop.sh`.

// Helpers of tests are tests too, though clippy does not see that.
#![allow(clippy::unwrap_used)]

mod checkpoints;
mod cluster;
mod device;
mod door;
mod identity;
mod inbox;
mod kill_under_load;
mod log;
mod members;
mod memory;
mod no_io_uring;
mod old_copy;
mod recover;
mod rehome;
mod replies;
mod restart;
mod startup;
mod store;
mod support;
mod trace;
mod turn;
mod watched;
