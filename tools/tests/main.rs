//! The workspace's own tests: what is true of all crates together.

mod arrow;
