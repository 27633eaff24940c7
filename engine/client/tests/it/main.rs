//! The tests of the client: scripts and properties of the session, and the whole client against a small TCP server.

// A test that cannot go on says so by its panic.
#![allow(clippy::unwrap_used)]

mod harness;
mod properties;
mod script_failures;
mod script_orders;
mod script_refusals;
mod script_scans;
mod server;
