//! `pontoon`: the operator's binary.
//!
//! It initialises data directories, talks to running nodes with the real client, runs the simulator, looks into
//! logs, and saves what a lost quorum has left. Each subcommand is one file under `command`. What goes wrong is one line on standard error that says what to
//! do, and the exit code that [`failure`] assigns.

mod command;
mod failure;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::command::{init, keys, members, recover, sim, status, wal};

/// Operates Pontoon: initialises nodes, reads and writes keys, shows the state, simulates.
#[derive(Parser)]
#[command(name = "pontoon", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the identity, the addresses and the ranges of a new cluster into empty data directories.
    Init(init::Init),
    /// Show what every node leads, holds and has counted. Exits with 10 when a node or a leader is missing.
    Status(status::Status),
    /// Show the members of a group, or change them.
    Members(members::Members),
    /// Hand the leadership of a group over to another node.
    Transfer(members::Transfer),
    /// Make a node more or less eager to lead a group.
    Prefer(members::Prefer),
    /// Print the value of a key. Exits with 1 when there is none.
    Get(keys::Get),
    /// Set a key.
    Put(keys::Put),
    /// Remove a key.
    Delete(keys::Delete),
    /// Set a key if its value is the expected one.
    Cas(keys::CompareAndSet),
    /// Print keys and values in key order.
    Scan(keys::Scan),
    /// Run the cluster simulator from a seed.
    Sim(sim::Sim),
    /// Look into the logs of a node, check them, and save what a damaged one still holds.
    Wal(wal::Wal),
    /// Let groups that lost a quorum of their members for good begin anew with the survivors. Prints a plan first.
    Recover(recover::Recover),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Init(init) => init.run(),
        Command::Status(status) => status.run(),
        Command::Members(members) => members.run(),
        Command::Transfer(transfer) => transfer.run(),
        Command::Prefer(prefer) => prefer.run(),
        Command::Get(get) => get.run(),
        Command::Put(put) => put.run(),
        Command::Delete(delete) => delete.run(),
        Command::Cas(swap) => swap.run(),
        Command::Scan(scan) => scan.run(),
        Command::Sim(sim) => sim.run(),
        Command::Wal(wal) => wal.run(),
        Command::Recover(recover) => recover.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
