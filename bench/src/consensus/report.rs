//! The result of all rounds: for each workload and target the median with minimum and maximum, and the ratio of the
//! medians.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::workload::Workload;
use crate::args::RaftArgs;
use crate::report::{figure, round};
use crate::spread::Spread;

/// Who carried a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Our core.
    Pontoon,
    /// The `raft` crate.
    RaftRs,
}

impl Target {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Target::Pontoon => "pontoon",
            Target::RaftRs => "raft-rs",
        }
    }
}

/// One result of one turn.
pub struct Turn {
    pub workload: Workload,
    pub target: Target,
    pub proposals_per_s: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct RaftReport {
    version: &'static str,
    warm_up_s: f64,
    seconds: f64,
    workloads: Vec<WorkloadReport>,
}

#[derive(Debug, Serialize)]
struct WorkloadReport {
    workload: &'static str,
    groups: u32,
    batch: u32,
    payload_bytes: usize,
    pontoon: Option<Spread>,
    raft_rs: Option<Spread>,
    /// Our median as a multiple of the peer's.
    ratio: Option<f64>,
}

impl RaftReport {
    /// Puts the turns together, in the order in which their workloads first came.
    pub fn new(args: &RaftArgs, turns: Vec<Turn>) -> RaftReport {
        let mut workloads: Vec<Workload> = turns.iter().map(|turn| turn.workload).collect();
        let mut seen = Vec::new();
        workloads.retain(|workload| {
            let is_new = !seen.contains(&workload.name);
            seen.push(workload.name);
            is_new
        });
        let report = |workload: &Workload| {
            let spread = |target: Target| {
                let of_both = turns.iter().filter(|turn| turn.workload == *workload && turn.target == target);
                Spread::of(of_both.map(|turn| turn.proposals_per_s))
            };
            let (pontoon, raft_rs) = (spread(Target::Pontoon), spread(Target::RaftRs));
            WorkloadReport {
                workload: workload.name,
                groups: workload.groups,
                batch: workload.batch,
                payload_bytes: workload.payload_bytes,
                pontoon,
                raft_rs,
                ratio: pontoon.zip(raft_rs).map(|(ours, theirs)| round(ours.median / theirs.median)),
            }
        };
        RaftReport {
            version: env!("CARGO_PKG_VERSION"),
            warm_up_s: args.warm_up.as_secs_f64(),
            seconds: args.seconds.as_secs_f64(),
            workloads: workloads.iter().map(report).collect(),
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["groups", "batch", "bytes", "target", "proposals/s", "min", "max", "ratio", "rounds"]);
        for workload in &self.workloads {
            let targets = [(Target::Pontoon, workload.pontoon), (Target::RaftRs, workload.raft_rs)];
            for (target, spread) in targets.iter().filter_map(|(target, spread)| Some((target, (*spread)?))) {
                let ratio = workload.ratio.filter(|_| *target == Target::Pontoon);
                table.add_row([
                    workload.groups.to_string(),
                    workload.batch.to_string(),
                    workload.payload_bytes.to_string(),
                    target.name().to_string(),
                    figure(Some(spread.median)),
                    figure(Some(spread.min)),
                    figure(Some(spread.max)),
                    ratio.map_or(String::new(), |ratio| figure(Some(ratio))),
                    spread.runs.to_string(),
                ]);
            }
        }
        format!("three replicas on one thread, no disk, {} s\n{table}", self.seconds)
    }
}
