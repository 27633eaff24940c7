//! The result of all rounds: for each workload and target the median with minimum and maximum, and the ratios of the
//! medians to the peer's.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::measure::Round;
use super::workload::Workload;
use crate::report::{figure, round};
use crate::spread::Spread;

/// Who carried a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// No log.
    Device,
    /// Our log.
    Pontoon,
    /// The `raft-engine` crate.
    RaftEngine,
}

impl Target {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Target::Device => "device",
            Target::Pontoon => "pontoon",
            Target::RaftEngine => "raft-engine",
        }
    }
}

/// What was run, on what.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    pub version: &'static str,
    pub file_system: String,
    pub append_path: &'static str,
    pub segment_bytes: u64,
    /// Where the core's loop ran.
    pub processor: Option<usize>,
    pub groups: u32,
    pub warm_up_s: f64,
    pub seconds: f64,
}

/// One result of one turn.
pub struct Turn {
    pub workload: Workload,
    pub target: Target,
    pub round: Round,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct WalReport {
    #[serde(flatten)]
    setup: Setup,
    workloads: Vec<WorkloadReport>,
}

#[derive(Debug, Serialize)]
struct WorkloadReport {
    workload: &'static str,
    writers: u32,
    entries_per_commit: u32,
    payload_bytes: usize,
    targets: Vec<TargetReport>,
    /// Our medians as multiples of the peer's; empty without a peer.
    ratios: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    target: Target,
    figures: BTreeMap<&'static str, Spread>,
    rounds: Vec<Round>,
}

/// A figure of a round: its key, its name for people, and its value if there is one.
struct Figure {
    key: &'static str,
    name: &'static str,
    of: fn(&Round) -> Option<f64>,
}

const FIGURES: [Figure; 16] = [
    Figure { key: "entries_per_s", name: "entries/s", of: |round| Some(round.entries_per_s) },
    Figure { key: "commit_p50_us", name: "commit p50 us", of: |round| round.commit_p50_us },
    Figure { key: "commit_p99_us", name: "commit p99 us", of: |round| round.commit_p99_us },
    Figure { key: "commit_max_us", name: "commit max us", of: |round| round.commit_max_us },
    Figure { key: "p50_to_device", name: "p50 / device p50", of: |round| round.p50_to_device },
    Figure { key: "entries_per_sync", name: "entries/sync", of: |round| round.entries_per_sync },
    Figure { key: "thread_cpu_ns_per_entry", name: "thread CPU ns/entry", of: |round| round.thread_cpu_ns_per_entry },
    Figure {
        key: "process_cpu_ns_per_entry",
        name: "process CPU ns/entry",
        of: |round| round.process_cpu_ns_per_entry,
    },
    Figure { key: "log_bytes_per_entry", name: "log B/entry", of: |round| round.log_bytes_per_entry },
    Figure { key: "prepared_bytes_per_entry", name: "prepared B/entry", of: |round| round.prepared_bytes_per_entry },
    Figure { key: "device_bytes_per_entry", name: "device B/entry", of: |round| round.device_bytes_per_entry },
    Figure { key: "device_flushes_per_entry", name: "flushes/entry", of: |round| round.device_flushes_per_entry },
    Figure { key: "segment_pauses", name: "segment pauses", of: |round| Some(round.segment_pauses as f64) },
    Figure { key: "timer_late_p50_us", name: "timer late p50 us", of: |round| round.timer_late_p50_us },
    Figure { key: "timer_late_p99_us", name: "timer late p99 us", of: |round| round.timer_late_p99_us },
    Figure { key: "timer_late_max_us", name: "timer late max us", of: |round| round.timer_late_max_us },
];

impl WalReport {
    /// Puts the turns together, in the order in which their workloads first came.
    pub fn new(setup: Setup, turns: Vec<Turn>) -> WalReport {
        let mut workloads: Vec<WorkloadReport> = Vec::new();
        for Turn { workload, target, round } in turns {
            let place = workloads.iter().position(|report| report.workload == workload.name).unwrap_or_else(|| {
                workloads.push(WorkloadReport::new(workload));
                workloads.len() - 1
            });
            workloads[place].rounds_of(target).push(round);
        }
        for workload in &mut workloads {
            workload.finish();
        }
        WalReport { setup, workloads }
    }

    /// The table for people. A figure that was zero all the time has no row.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["workload", "figure", "target", "median", "min", "max", "ratio", "rounds"]);
        for workload in &self.workloads {
            let says_something = |figure: &&Figure| {
                let spreads = workload.targets.iter().filter_map(|target| target.figures.get(figure.key));
                spreads.into_iter().any(|spread| spread.max > 0.0)
            };
            for Figure { key, name, .. } in FIGURES.iter().filter(says_something) {
                for target in &workload.targets {
                    let Some(spread) = target.figures.get(key) else { continue };
                    let ratio = workload.ratios.get(key).filter(|_| target.target == Target::Pontoon);
                    table.add_row([
                        workload.workload.to_string(),
                        name.to_string(),
                        target.target.name().to_string(),
                        figure(Some(spread.median)),
                        figure(Some(spread.min)),
                        figure(Some(spread.max)),
                        ratio.map_or(String::new(), |ratio| figure(Some(*ratio))),
                        spread.runs.to_string(),
                    ]);
                }
            }
        }
        let Setup { file_system, append_path, groups, seconds, segment_bytes, .. } = &self.setup;
        let segment_mib = segment_bytes >> 20;
        format!(
            "{file_system}, append path {append_path}, segments of {segment_mib} MiB, {groups} groups, {seconds} s\n{table}"
        )
    }
}

impl WorkloadReport {
    fn new(workload: Workload) -> WorkloadReport {
        WorkloadReport {
            workload: workload.name,
            writers: workload.writers,
            entries_per_commit: workload.entries,
            payload_bytes: workload.payload_bytes,
            targets: Vec::new(),
            ratios: BTreeMap::new(),
        }
    }

    fn rounds_of(&mut self, target: Target) -> &mut Vec<Round> {
        let place = self.targets.iter().position(|report| report.target == target).unwrap_or_else(|| {
            self.targets.push(TargetReport { target, figures: BTreeMap::new(), rounds: Vec::new() });
            self.targets.len() - 1
        });
        &mut self.targets[place].rounds
    }

    fn finish(&mut self) {
        for target in &mut self.targets {
            for Figure { key, of, .. } in &FIGURES {
                if let Some(spread) = Spread::of(target.rounds.iter().filter_map(of)) {
                    target.figures.insert(key, spread);
                }
            }
        }
        let figures = |target: Target| self.targets.iter().find(|report| report.target == target).map(|it| &it.figures);
        let (Some(ours), Some(theirs)) = (figures(Target::Pontoon), figures(Target::RaftEngine)) else { return };
        let shared = ours.iter().filter_map(|(key, ours)| Some((*key, ours.median, theirs.get(key)?.median)));
        self.ratios = shared
            .filter(|(_, _, theirs)| *theirs > 0.0)
            .map(|(key, ours, theirs)| (key, round(ours / theirs)))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::measure::tests::figures;
    use crate::wal::workload::WORKLOADS;

    #[test]
    fn ratios_are_those_of_the_medians_of_one_workload() {
        let turn = |workload: usize, target, entries_per_s| Turn {
            workload: WORKLOADS[workload],
            target,
            round: figures(entries_per_s, 1e8 / entries_per_s),
        };
        let turns = vec![
            turn(4, Target::Pontoon, 3000.0),
            turn(4, Target::RaftEngine, 1000.0),
            turn(1, Target::Pontoon, 5000.0),
            turn(4, Target::Pontoon, 9000.0),
            turn(4, Target::RaftEngine, 1000.0),
        ];
        let setup = Setup {
            version: "0",
            file_system: "ext4".to_string(),
            append_path: "write",
            segment_bytes: 64 << 20,
            processor: None,
            groups: 64,
            warm_up_s: 0.5,
            seconds: 5.0,
        };
        let report = WalReport::new(setup, turns);
        let names: Vec<&str> = report.workloads.iter().map(|workload| workload.workload).collect();
        assert_eq!(names, ["async-64", "lone-256"], "in the order of their first turn");
        assert_eq!(report.workloads[0].ratios["entries_per_s"], 6.0);
        assert!((0.1..0.25).contains(&report.workloads[0].ratios["commit_p50_us"]), "{:?}", report.workloads[0].ratios);
        assert!(report.workloads[1].ratios.is_empty(), "nobody else ran it");

        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["file_system"], "ext4");
        assert_eq!(json["workloads"][0]["targets"][1]["target"], "raft-engine");
        assert_eq!(json["workloads"][0]["targets"][0]["figures"]["entries_per_s"]["median"], 6000.0);
        assert_eq!(json["workloads"][0]["targets"][0]["rounds"][1]["entries"], 9000);
        let table = report.table();
        let row = table.lines().find(|line| line.contains("entries/s") && line.contains("pontoon")).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(!table.contains("segment pauses"), "nothing ever paused");
        assert_eq!(cells[1..9], ["async-64", "entries/s", "pontoon", "6000", "3000", "9000", "6.00", "2"]);
    }
}
