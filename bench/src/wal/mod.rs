//! The log of one core under load, beside the bare device and a peer: no cluster, no network, one directory.
//!
//! Every round goes through all workloads, and every workload through all targets, each with a directory of its own
//! that is removed before the next one begins. So each figure of ours has its neighbour's a few seconds beside it.
//!
//! - `workload`: the table of loads, and the entries they make; `measure`: when a round counts, and its figures
//! - `own_log`, `turns`, `sync`: our log, its two kinds of load, and the sync that is waited for
//! - `bare_device`, `peer`: the other targets
//! - `open`: how long a large log takes to open
//! - `report`: medians and ratios

mod bare_device;
mod measure;
pub mod open;
mod own_log;
#[cfg(feature = "raft-engine")]
mod peer;
mod report;
mod sync;
mod turns;
pub mod workload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pontoon::{NodeConfig, processors};
use pontoon_wal::{AppendPath, Options};

use self::measure::{Plan, Round};
use self::report::{Setup, Target, Turn, WalReport};
use self::workload::{DEVICE, Kind, LONE, Workload};
use crate::args::{AppendPathName, LogArgs, LogPeer, WalArgs};
use crate::data_dir::{DataDir, file_system, is_on_disk};
use crate::error::{BenchError, ENVIRONMENT, INTERNAL, USAGE};
use crate::report::{publish, round};
use crate::run::say;

/// So large that a log never becomes full; the rounds end by time.
const LOG_BYTES_MAX: u64 = 1 << 40;

/// Runs all rounds and prints the result.
pub fn run(args: &WalArgs, stop: Arc<AtomicBool>) -> Result<(), BenchError> {
    let workloads = workload::chosen(&args.workloads);
    check(args, &workloads)?;
    let dir = directory(&args.log)?;
    let options = Options { max_log_bytes: LOG_BYTES_MAX, ..options(&args.log) };
    let node = NodeConfig { first_cpu: args.first_cpu, ..NodeConfig::new(dir.path()) };
    let processor = processors::of_cores(&node, 1).first().copied().flatten();
    let setup = Setup {
        version: env!("CARGO_PKG_VERSION"),
        file_system: file_system(dir.path()),
        append_path: append_path_name(&options),
        segment_bytes: options.segment_bytes,
        processor,
        groups: args.groups,
        warm_up_s: args.warm_up.as_secs_f64(),
        seconds: args.seconds.as_secs_f64(),
    };
    let mut turns = Vec::new();
    for number in 1..=args.log.rounds {
        let first = turns.len();
        for workload in &workloads {
            let plan = Plan {
                workload: *workload,
                groups: args.groups,
                warm_up: args.warm_up,
                seconds: args.seconds,
                verify: args.verify,
                processor,
                options: options.clone(),
                stop: stop.clone(),
            };
            for target in targets(workload, args.against) {
                if !stop.load(Ordering::Relaxed) {
                    say(&format!("round {number} of {}: {}, {}", args.log.rounds, workload.name, target.name()));
                    turns.extend(turn(&plan, target, dir.path())?);
                }
            }
        }
        compare_with_device(&mut turns[first..]);
    }
    if stop.load(Ordering::Relaxed) {
        say("interrupted: the result is that of the rounds until now");
    }
    publish(&WalReport::new(setup, turns), WalReport::table, &args.log.result)
}

/// What would otherwise be noticed in the middle of a long run.
fn check(args: &WalArgs, workloads: &[Workload]) -> Result<(), BenchError> {
    let writers = workloads.iter().map(|workload| workload.writers).max().unwrap_or(1);
    if args.groups < writers {
        let line = format!("--groups must be at least {writers}: each of so many writers has groups of its own");
        return Err(BenchError::new(USAGE, line));
    }
    if args.against.is_some() && cfg!(not(feature = "raft-engine")) {
        let line = "this build does not have raft-engine; build it with `--features raft-engine`";
        return Err(BenchError::new(USAGE, line));
    }
    Ok(())
}

/// The directory for everything, on a disk.
fn directory(args: &LogArgs) -> Result<DataDir, BenchError> {
    let Some(base) = &args.dir else { return DataDir::temporary("--dir") };
    if base.is_dir() && !is_on_disk(base) {
        let line = format!("{} is in memory: name a directory on a disk with --dir", base.display());
        return Err(BenchError::new(ENVIRONMENT, line));
    }
    DataDir::inside(base, "another --dir")
}

/// The sizes of our log.
fn options(args: &LogArgs) -> Options {
    let mut options = Options::default();
    if let Some(segment_mib) = args.segment_mib {
        options.segment_bytes = segment_mib << 20;
    }
    if let Some(path) = args.append_path {
        options.append_path = match path {
            AppendPathName::Write => AppendPath::Write,
            AppendPathName::Mmap => AppendPath::Mmap,
        };
    }
    options
}

fn append_path_name(options: &Options) -> &'static str {
    match options.append_path {
        AppendPath::Write => "write",
        AppendPath::Mmap => "mmap",
    }
}

/// Who carries a load, ours first.
fn targets(workload: &Workload, against: Option<LogPeer>) -> Vec<Target> {
    let peer = against.map(|LogPeer::RaftEngine| Target::RaftEngine);
    match workload.kind {
        Kind::Device => vec![Target::Device],
        Kind::Waiting | Kind::Asynchronous => [Target::Pontoon].into_iter().chain(peer).collect(),
    }
}

/// One turn in a directory that is gone afterwards.
fn turn(plan: &Plan, target: Target, dir: &Path) -> Result<Option<Turn>, BenchError> {
    let place = dir.join(target.name());
    let round = match target {
        Target::Device => bare_device::run(plan, &place),
        Target::Pontoon => turns::run(plan, &place),
        Target::RaftEngine => peer_turn(plan, &place),
    }?;
    std::fs::remove_dir_all(&place)
        .map_err(|error| BenchError::new(INTERNAL, format!("cannot remove {}: {error}", place.display())))?;
    Ok(round.map(|round| Turn { workload: plan.workload, target, round }))
}

#[cfg(feature = "raft-engine")]
fn peer_turn(plan: &Plan, dir: &Path) -> Result<Option<Round>, BenchError> {
    peer::run(plan, dir)
}

#[cfg(not(feature = "raft-engine"))]
fn peer_turn(_plan: &Plan, _dir: &Path) -> Result<Option<Round>, BenchError> {
    Err(BenchError::new(INTERNAL, "a peer that is not in this build was asked for"))
}

/// Sets our lone commits of one round in relation to the bare device of the same round.
fn compare_with_device(turns: &mut [Turn]) {
    let device = turns.iter().find(|turn| turn.workload == DEVICE).and_then(|turn| turn.round.commit_p50_us);
    for turn in turns.iter_mut().filter(|turn| turn.workload.name == LONE) {
        let ratio = turn.round.commit_p50_us.zip(device).map(|(own, device)| round(own / device));
        turn.round.p50_to_device = ratio;
    }
}
