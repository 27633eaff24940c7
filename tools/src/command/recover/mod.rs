//! `pontoon recover`: groups that have lost a quorum of their members for good begin anew with the survivors.
//!
//! The plan is printed first, and nothing else is done without --i-understand. What was before is kept until it is confirmed.

mod print;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pontoon::quorum_loss::{RecoverError, Survivors, confirm, undo};

use super::wal::Output;
use crate::failure::{Failure, UNHEALTHY};

/// Lets groups that have lost a quorum of their members for good begin anew with the survivors.
///
/// For the day on which so many nodes are gone, with their disks, that groups have no majority any more. WRITES THAT WERE
/// ACKNOWLEDGED MAY BE LOST by it: those of which only the lost nodes knew. If a lost node can come back, bring it back
/// instead; one more node may be all that is missing.
///
/// All nodes must be stopped. Name the data directories of all survivors, copied to one machine if they are on several: the
/// more of them, the less is lost. Without --i-understand the plan is printed and nothing is changed. With it, the groups
/// named in the plan begin anew: start the survivors, look at the data, and then end it with `pontoon recover confirm`, or
/// go back with `pontoon recover undo`. docs/RECOVERY.md goes through it step by step.
#[derive(Args)]
#[command(arg_required_else_help = true, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Recover {
    #[command(subcommand)]
    command: Option<Command>,
    /// The data directories of the nodes that survive.
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "DIR", required = true)]
    survivors: Vec<PathBuf>,
    /// Do it: I know that the other nodes are gone for good, and what may be missing. Without this nothing is changed.
    #[arg(long)]
    i_understand: bool,
    /// A table for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// Bring back what these directories were before a recovery, to the byte. Refused after something was written since.
    Undo(Directories),
    /// A recovery is good: remove what was before. There is no way back then. The nodes may run.
    Confirm(Directories),
}

/// Which nodes.
#[derive(Args)]
struct Directories {
    /// Data directories of nodes that were recovered.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

impl Recover {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match &self.command {
            Some(Command::Undo(Directories { dirs })) => {
                for node in undo(dirs)? {
                    writeln!(out, "{node} is what it was before its recovery")?;
                }
                Ok(())
            }
            Some(Command::Confirm(Directories { dirs })) => {
                for node in confirm(dirs)? {
                    writeln!(out, "{node}: the recovery stands; what was before is removed")?;
                }
                Ok(())
            }
            None => self.recover(&mut out),
        }
    }

    fn recover(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let survivors = Survivors::open(&self.survivors)?;
        let plan = survivors.plan();
        let text = print::text(&plan);
        let waiting = plan.groups.iter().filter(|group| group.recovery().is_some()).count();
        if self.i_understand {
            survivors.apply(&plan, &text)?;
        }
        match self.output {
            Output::Table => writeln!(out, "{text}")?,
            Output::Json => writeln!(out, "{:#}", print::json(&plan, self.i_understand))?,
        }
        if self.i_understand {
            if self.output == Output::Table {
                writeln!(
                    out,
                    "done: {waiting} groups begin anew at the next start. Start the survivors, look at the data, then run \
                     `pontoon recover confirm` or `pontoon recover undo` with their directories"
                )?;
            }
            return Ok(());
        }
        out.flush()?;
        if waiting == 0 {
            return Ok(());
        }
        let line = format!("{waiting} groups wait for a recovery; nothing was changed, add --i-understand to do it");
        Err(Failure::new(UNHEALTHY, line))
    }
}

impl From<RecoverError> for Failure {
    fn from(error: RecoverError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}
