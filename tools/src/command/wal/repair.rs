//! `pontoon wal repair`: saves what can be read of a log that does not open any more.

use std::io::Write;
use std::path::Path;

use clap::Args;
use pontoon_wal::inspect::Loss;
use pontoon_wal::repair::{GroupPlan, Plan, Repair as LogRepair, Resumed};

use super::verify::damage_text;
use super::{Place, check_name, name_of};
use crate::failure::{CORRUPTION, Failure};

/// Saves what can be read of a log that a node refuses to open because it is corrupt.
///
/// First prints the plan: what cannot be read, what is kept, and what each Raft group loses. A group that may have lost
/// a vote or entries is marked: its replica follows and never votes again, so replace it when the cluster is healthy.
///
/// With --yes a new log is written beside the damaged one and takes its place; the damaged one is kept under the name
/// LOG.damaged-1. Before that, think of the other way: if the other replicas are healthy, remove this node from the
/// cluster and add it anew. Never repair a majority of the nodes in this way.
#[derive(Args)]
pub struct Repair {
    #[command(flatten)]
    place: Place,
    /// Do it. Without this nothing is changed.
    #[arg(long)]
    yes: bool,
}

impl Repair {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let mut waits = 0;
        for path in self.place.logs()? {
            if !self.repair(&mut out, &path)? {
                waits += 1;
            }
        }
        out.flush()?;
        if waits == 0 {
            return Ok(());
        }
        let line = format!("{waits} logs wait for a repair; nothing was changed, run it again with --yes to do it");
        Err(Failure::new(CORRUPTION, line))
    }

    /// False when there is something to do that nobody has asked for.
    fn repair(&self, out: &mut dyn Write, path: &Path) -> Result<bool, Failure> {
        let name = name_of(path);
        if LogRepair::is_pending(path) && !self.yes {
            writeln!(
                out,
                "log {name}: an earlier repair was interrupted when its new log was complete; --yes ends it"
            )?;
            return Ok(false);
        }
        let repair = LogRepair::begin(path)?;
        match repair.resumed() {
            Resumed::Nothing => {}
            Resumed::TookPlace(kept) => {
                writeln!(out, "log {name}: an earlier repair is finished; {} keeps the damaged log", kept.display())?;
            }
            Resumed::FilledPlace => writeln!(out, "log {name}: an earlier repair is finished")?,
        }
        let plan = repair.plan()?;
        check_name(path, &plan.identity)?;
        print(out, &name, &plan)?;
        if !plan.is_needed() {
            return Ok(true);
        }
        if !self.yes {
            return Ok(false);
        }
        let kept = repair.carry_out()?;
        writeln!(out, "  done: the new log is in place, {} keeps the damaged one", kept.display())?;
        Ok(true)
    }
}

fn print(out: &mut dyn Write, name: &str, plan: &Plan) -> std::io::Result<()> {
    if !plan.is_needed() {
        let is_lost = |loss: &Loss| matches!(loss, Loss::Payload(..));
        let payloads = plan.verdict.damage.iter().filter(|damage| is_lost(&damage.loss)).count();
        if payloads > 0 {
            return writeln!(
                out,
                "log {name}: nothing to repair; {payloads} payloads are rotten, and the node fetches them from its \
                 peers when it starts"
            );
        }
        return writeln!(out, "log {name}: nothing to repair");
    }
    writeln!(out, "log {name}: needs a repair")?;
    if let Some(refusal) = &plan.verdict.refusal {
        writeln!(out, "  why: {refusal}")?;
    }
    for damage in &plan.verdict.damage {
        writeln!(out, "  damage: {}", damage_text(damage))?;
    }
    for lost in &plan.unreadable {
        writeln!(out, "  not known: {}, in {} at {}: {}", lost.what, lost.file, lost.offset, lost.why)?;
    }
    let (marked, whole): (Vec<&GroupPlan>, Vec<&GroupPlan>) = plan.groups.iter().partition(|group| group.vote_lost);
    let entries: u64 = plan.groups.iter().map(|group| group.entries).sum();
    let groups = plan.groups.len();
    writeln!(out, "  kept: {entries} entries of {groups} Raft groups; {} of them are whole", whole.len())?;
    for group in marked {
        writeln!(out, "  {}", group_text(group))?;
    }
    for group in &plan.unknown {
        writeln!(out, "  {group}: lost, because its creation cannot be read; remove this replica and add a new one")?;
    }
    if plan.tombstones > 0 {
        writeln!(out, "  {} Raft groups that were removed stay removed", plan.tombstones)?;
    }
    writeln!(out, "  the new log has incarnation {}", plan.incarnation.0)
}

fn group_text(group: &GroupPlan) -> String {
    let entries = if group.entries == 0 {
        format!("keeps no entries behind {}", group.compacted)
    } else {
        format!("keeps entries {} to {}", group.compacted.index.next(), group.last)
    };
    let cut = match group.cut_from {
        Some(from) => format!(", is cut from index {from} on"),
        None if group.may_miss_entries => ", may have had more".to_string(),
        None => String::new(),
    };
    let GroupPlan { group, replica, hard_state, .. } = group;
    format!(
        "{group} ({replica}): {entries}{cut}; term {} or later, what it voted is not known: it will not vote any more",
        hard_state.term
    )
}
