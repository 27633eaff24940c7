//! The load generator: it starts or finds a cluster, loads it, measures, and checks that nothing acknowledged is lost.
//!
//! One thread is the client. It carries many logical clients over few connections, reads the clock once for each turn,
//! and reports its own processor time, because a client that is the limit measures itself.
//!
//! - `args`: the command line; `run`: one run from start to verdict; `idle`, `summarize`: the other jobs
//! - `job`: what a load is, without sockets; `preload`, `load`, `verify`: its three parts; `slots`: who waits for what
//! - `consensus`: the consensus core alone, beside a peer; `leased_reads`: reads of one core that holds leases
//! - `failover`: three processes, one of which is killed
//! - `wal`: the log of one core alone, without a cluster, beside a peer and the bare device
//! - `recorder`, `verifier`, `history`: what is remembered; `data`: keys and values
//! - `target`, `etcd`: what carries a load; `cluster`: nodes in this process; `data_dir`: where their data lies
//! - `disk`, `clock`, `memory`: counters around it
//! - `report`: the figures; `spread`: one of them over several runs; `named`: tables whose lines are chosen by name
//!
//! # Laws
//!
//! - Latency counts from the moment an operation was meant to start: in an open loop that is the plan, not the send.
//! - Every value is unique and names its write, so a lost, an old and a wrong value are told apart.
//! - Figures come from counters read before and after the measured time; what cannot be read is shown as missing.

mod args;
mod clock;
mod cluster;
mod consensus;
mod data;
mod data_dir;
mod disk;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod failover;
mod history;
mod idle;
mod job;
mod leased_reads;
mod load;
mod memory;
mod named;
mod preload;
mod recorder;
mod report;
mod run;
mod slots;
mod spread;
mod summarize;
mod target;
mod verifier;
mod verify;
mod wal;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use clap::error::ErrorKind;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Cli, Command};
use crate::error::{BenchError, INTERNAL, USAGE};

/// The allocator of `pontoond`, so that the nodes in this process take the memory that they would take alone.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code after a second interrupt.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = stop_flag().and_then(|stop| match &cli.command {
        None => run::run(&cli.load, stop),
        Some(Command::Idle(args)) => idle::run(args),
        Some(Command::Wal(args)) => wal::run(args, stop),
        Some(Command::WalOpen(args)) => wal::open::run(args),
        Some(Command::Raft(args)) => consensus::run(args, stop),
        Some(Command::LeasedReads(args)) => leased_reads::run(args),
        Some(Command::Failover(args)) => failover::run(args),
        Some(Command::Summarize(args)) => summarize::run(args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error}"));
            ExitCode::from(error.code)
        }
    }
}

/// The first interrupt ends the load early, with its report; the second one ends the program.
fn stop_flag() -> Result<Arc<AtomicBool>, BenchError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| BenchError::new(INTERNAL, format!("cannot watch for signal {signal}: {error}")))?;
    }
    Ok(stop)
}

/// Help and version are answers; everything else is one clear line and the code for wrong usage.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    run::say(&format!("{} (see --help)", first.join(" ")));
    ExitCode::from(USAGE)
}
