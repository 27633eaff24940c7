//! The workspace's own tests (what is true of all crates together) and the operator's binary from outside.
#![allow(clippy::unwrap_used)]

mod arrow;
mod cli;
