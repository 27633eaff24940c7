//! The consensus core alone: three replicas of each group on one thread, without a disk and without a network.
//!
//! A turn proposes one batch in every group, and then lets the replicas talk until nobody has anything to say: by then the
//! leader has committed the batch. A write counts as durable as soon as it is handed out, and a message arrives in the
//! moment in which it is its turn, so what is measured is the arithmetic of consensus and the memory it moves. Nobody
//! needs old entries, and both let go of them. Our core and the `raft` crate take the same proposals in turns, one after
//! the other on the same thread.
//!
//! - `workload`: the table of shapes; `own`, `peer`: who carries them; `report`: medians and ratios

mod own;
#[cfg(feature = "raft-rs")]
mod peer;
mod report;
pub mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pontoon_types::Time;

use self::report::{RaftReport, Target, Turn};
use self::workload::Workload;
use crate::args::RaftArgs;
use crate::clock;
use crate::cluster::Pin;
use crate::data::Dice;
use crate::error::{BenchError, USAGE};
use crate::report::publish;
use crate::run::say;

/// Proposals between two looks at the clock and at the flag, about.
const PROPOSALS_BETWEEN_LOOKS: u32 = 1024;

/// Entries that a replica keeps in memory, ours and the peer's: few enough that both have let go of some before the
/// measurement begins. One that only grows would measure how a machine finds new memory.
const KEPT_ENTRIES: u32 = 2048;

/// Three replicas of each group, the first of which leads all of them.
trait Replicas {
    /// Proposes this batch in every group and returns when it is committed and applied.
    fn propose(&mut self, batch: &[Bytes]);

    /// How many proposals the leaders have applied.
    fn applied(&self) -> u64;
}

/// Runs all rounds and prints the result.
pub fn run(args: &RaftArgs, stop: Arc<AtomicBool>) -> Result<(), BenchError> {
    if args.against.is_some() && cfg!(not(feature = "raft-rs")) {
        let line = "this build does not have the raft crate; build it with `--features raft-rs`";
        return Err(BenchError::new(USAGE, line));
    }
    let _pin = Pin::to(0);
    let mut turns = Vec::new();
    for number in 1..=args.rounds {
        for workload in workload::chosen(&args.workloads) {
            for target in [Target::Pontoon].into_iter().chain(args.against.map(|_| Target::RaftRs)) {
                say(&format!("round {number} of {}: {}, {}", args.rounds, workload.name, target.name()));
                let mut replicas = replicas(target, &workload);
                measure(&workload, replicas.as_mut(), args.warm_up, &stop);
                if let Some(proposals_per_s) = measure(&workload, replicas.as_mut(), args.seconds, &stop) {
                    turns.push(Turn { workload, target, proposals_per_s });
                }
            }
        }
    }
    if stop.load(Ordering::Relaxed) {
        say("interrupted: the result is that of the rounds until now");
    }
    publish(&RaftReport::new(args, turns), RaftReport::table, &args.result)
}

fn replicas(target: Target, workload: &Workload) -> Box<dyn Replicas> {
    match target {
        Target::Pontoon => Box::new(own::Groups::new(workload.groups, workload.payload_bytes)),
        #[cfg(feature = "raft-rs")]
        Target::RaftRs => Box::new(peer::Groups::new(workload.groups)),
        #[cfg(not(feature = "raft-rs"))]
        Target::RaftRs => unreachable!("the arguments were checked"),
    }
}

/// Loads the replicas for so long; the proposals per second, if nobody interrupted.
fn measure(workload: &Workload, replicas: &mut dyn Replicas, span: Duration, stop: &AtomicBool) -> Option<f64> {
    let turns = (PROPOSALS_BETWEEN_LOOKS / (workload.batch * workload.groups)).max(1);
    let mut dice = Dice::new(workload.payload_bytes as u64);
    let payload: Vec<u8> = (0..workload.payload_bytes).map(|_| dice.next() as u8).collect();
    let (begin, before) = (clock::now(), replicas.applied());
    let mut batch = Vec::new();
    let mut now: Time = begin;
    while now < begin + span {
        for _ in 0..turns {
            batch.clear();
            // Each proposal has memory of its own, as one that was just received.
            batch.extend((0..workload.batch).map(|_| Bytes::copy_from_slice(&payload)));
            replicas.propose(&batch);
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        now = clock::now();
    }
    Some((replicas.applied() - before) as f64 / now.since(begin).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_is_applied_by_both() {
        let targets = [Target::Pontoon, Target::RaftRs];
        for target in targets.into_iter().filter(|target| *target == Target::Pontoon || cfg!(feature = "raft-rs")) {
            for workload in workload::WORKLOADS {
                let mut replicas = replicas(target, &workload);
                let batch = vec![Bytes::from(vec![7; workload.payload_bytes]); workload.batch as usize];
                for turn in 1..=100 {
                    replicas.propose(&batch);
                    let proposed = turn * u64::from(workload.batch) * u64::from(workload.groups);
                    assert_eq!(replicas.applied(), proposed, "{target:?} {}", workload.name);
                }
            }
        }
    }
}
