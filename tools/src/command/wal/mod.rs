//! `pontoon wal`: into the logs of a node, without the node.
//!
//! Each command takes the data directory of a node, and then does all its logs, or the directory of one log, the one
//! with the file `ctl`. All but the repair only read, take no lock, and work beside a running node.

mod dump;
mod repair;
mod stat;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use pontoon::identity::DataDir;
use pontoon_wal::LogIdentity;

use crate::failure::{DATA_DIRECTORY, Failure};

/// Looks into the logs of a node.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Wal {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what each log holds: its end, checkpoints, segments with their live bytes, and the groups that hold it up.
    /// For a log that grows although its groups are small, or before a disk runs full.
    Stat(stat::Stat),
    /// Print every group of records and its runs in the order of writing. To find out what was written, and when.
    Dump(dump::Dump),
    /// Read every log from the disk and check each checksum, and that the log would open. For a suspect disk, and before
    /// a backup is trusted. Exits with 0 when all is well, 20 for a torn end (harmless: the next start cuts it), 21
    /// for corruption or a missing log, 22 for a newer format.
    Verify(verify::Verify),
    /// Save what can be read of a log that a node refuses to open because it is corrupt. Prints what would be kept and
    /// lost, and does nothing more without --yes. The node must be stopped; the damaged log is kept.
    Repair(repair::Repair),
}

/// How to print.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Where the logs are.
#[derive(Args)]
struct Place {
    /// The data directory of a node, or the directory of one log.
    dir: PathBuf,
}

impl Wal {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Stat(stat) => stat.run(),
            Command::Dump(dump) => dump.run(),
            Command::Verify(verify) => verify.run(),
            Command::Repair(repair) => repair.run(),
        }
    }
}

impl Place {
    /// The directories of the logs, in the order of their names.
    fn logs(&self) -> Result<Vec<PathBuf>, Failure> {
        let dir = &self.dir;
        let refuse = |why: String| Failure::new(DATA_DIRECTORY, format!("{}: {why}", dir.display()));
        // The log of a repair that was cut short may have lost its name for the moment.
        if dir.join("ctl").is_file() || !dir.exists() && pontoon_wal::repair::Repair::is_pending(dir) {
            return Ok(vec![dir.clone()]);
        }
        let all = dir.join("logs");
        if !all.is_dir() {
            let why = "neither a data directory nor a log: it has no directory `logs` and no file `ctl`";
            return Err(refuse(why.to_string()));
        }
        let entries = std::fs::read_dir(&all).map_err(|error| refuse(format!("cannot list its logs: {error}")))?;
        let mut logs = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| refuse(format!("cannot list its logs: {error}")))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(log) = name.strip_suffix(".repaired").filter(|log| uuid(log).is_some()) {
                logs.push(all.join(log));
            } else if uuid(name).is_some() && path.is_dir() {
                logs.push(path);
            }
        }
        logs.sort();
        logs.dedup();
        // A node that lists logs misses them; that is for `verify` to say.
        let is_node = dir.join("node").exists();
        if logs.is_empty() && !is_node {
            Err(refuse("its directory `logs` holds no log".to_string()))
        } else {
            Ok(logs)
        }
    }
}

/// What a node's own list says of the directories of its logs.
#[derive(Default)]
struct Listing {
    /// Listed, and not there.
    missing: Vec<String>,
    /// There, and not listed.
    unlisted: Vec<String>,
}

impl Place {
    /// Compares the node file with what is there. Without a node file, as beside the directory of one log, nothing is
    /// known.
    fn listing(&self, there: &[PathBuf]) -> Result<Listing, Failure> {
        if !self.dir.join("node").exists() {
            return Ok(Listing::default());
        }
        let identity = DataDir::look(&self.dir).map_err(|error| Failure::new(DATA_DIRECTORY, error.to_string()))?;
        let listed: Vec<String> = identity.logs.iter().map(|log| format!("{log:032x}")).collect();
        let there: Vec<String> = there.iter().map(|path| name_of(path)).collect();
        let without = |all: &[String], others: &[String]| {
            all.iter().filter(|log| !others.contains(log)).cloned().collect::<Vec<_>>()
        };
        Ok(Listing { missing: without(&listed, &there), unlisted: without(&there, &listed) })
    }
}

/// The uuid that is the name of a log's directory.
fn uuid(name: &str) -> Option<u128> {
    (name.len() == 32).then(|| u128::from_str_radix(name, 16).ok()).flatten()
}

/// How a log is called in what is printed.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Refuses a log that lies under the name of another.
fn check_name(path: &Path, identity: &LogIdentity) -> Result<(), Failure> {
    match uuid(&name_of(path)) {
        Some(named) if named != identity.log => {
            let line = format!(
                "{} holds log {:032x}, not the one that it is named after; put the right directory back",
                path.display(),
                identity.log
            );
            Err(Failure::new(DATA_DIRECTORY, line))
        }
        _ => Ok(()),
    }
}
