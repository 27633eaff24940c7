//! Tests of a core's verbs over a small lockstep cluster: every frame is delivered in order, every sync ends at once
//! unless a test holds it back. Faults and schedules are the simulator's business (`pontoon-sim`).
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod amnesia;
mod bounds;
mod catalogue;
mod checkpoints;
mod cluster;
mod follower_reads;
mod kv;
mod leases;
mod liveness;
mod lost;
mod members;
mod orders;
mod quarantine;
mod quorum_loss;
mod reads;
mod repeated;
mod requests;
mod sessions;
mod shelf;
mod snapshots;
mod stall;
mod writes;
