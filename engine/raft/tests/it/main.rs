//! All tests of the crate that see it from outside: scripts with printed traces, random schedules, and the
//! arithmetic of quorums against a naive model.

mod checker;
mod cluster;
mod membership;
mod membership_compared;
#[cfg(feature = "mutations")]
mod mutations;
mod properties;
mod quorums;
mod scripts;
mod snapshot;
