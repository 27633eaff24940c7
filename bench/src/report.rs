//! The result of a load: figures from what was measured, as a table or as one JSON object.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use pontoon_client::CoreStatus;
use pontoon_wire::client::Counters;
use serde::{Deserialize, Serialize};

use crate::args::{Output, ResultArgs};
use crate::error::{BenchError, ENVIRONMENT, INTERNAL};
use crate::load::Measured;
use crate::recorder::Counts;
use crate::target::{Snapshot, leaders};
use crate::verify::Verification;

/// Above this many cores of processor time the client itself is a part of what is measured.
const CLIENT_CPU_WARNING: f64 = 0.5;

/// What was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// `pontoon` (in this process), `pontoond` (a running cluster) or `etcd`.
    pub target: String,
    pub version: String,
    pub nodes: usize,
    pub cores: u16,
    pub groups: usize,
    pub clients: u32,
    pub connections: usize,
    pub value_size: u32,
    pub read_percent: u32,
    pub keys: u32,
    pub preloaded: bool,
    pub rate: Option<f64>,
    pub seed: u64,
}

/// The result. Names end in their unit; what could not be read is null.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub setup: Setup,
    pub duration_s: f64,
    pub writes: u64,
    pub reads: u64,
    pub writes_per_s: f64,
    pub reads_per_s: f64,
    pub write_p50_us: Option<f64>,
    pub write_p99_us: Option<f64>,
    pub write_p999_us: Option<f64>,
    pub write_max_us: Option<f64>,
    pub read_p50_us: Option<f64>,
    pub read_p99_us: Option<f64>,
    pub read_p999_us: Option<f64>,
    pub read_max_us: Option<f64>,
    pub syncs_per_s: Option<f64>,
    pub entries_per_sync: Option<f64>,
    pub messages_per_frame: Option<f64>,
    pub peer_bytes_per_write: Option<f64>,
    pub log_bytes_per_write: Option<f64>,
    /// Device bytes without those that prepared segments ahead of use.
    pub disk_bytes_per_write: Option<f64>,
    pub prepared_bytes_per_write: Option<f64>,
    pub turns_per_write: Option<f64>,
    pub system_calls_per_write: Option<f64>,
    pub read_rounds_per_s: Option<f64>,
    pub elections: Option<u64>,
    /// Processor time of all cores of all nodes, in cores.
    pub node_cpu_cores: Option<f64>,
    /// Processor time of the client's thread, in cores.
    pub client_cpu_cores: f64,
    /// Leaders on each node, in the order of the nodes.
    pub leaders: Vec<usize>,
    /// Over the whole run, with preload and warm-up.
    pub acknowledged: u64,
    pub verified: u64,
    pub lost: u64,
    pub unread: u64,
    pub failed: u64,
    pub unknown: u64,
    pub foreign_reads: u64,
}

impl Report {
    /// Puts the figures together. `before` and `after` stand around the measured time.
    pub fn new(
        setup: Setup,
        measured: &Measured,
        snapshots: (&Snapshot, &Snapshot),
        counts: &Counts,
        verification: &Verification,
    ) -> Report {
        let (before, after) = snapshots;
        let elapsed = measured.elapsed.max(Duration::from_millis(1)).as_secs_f64();
        let between = after.at.since(before.at).max(Duration::from_millis(1)).as_secs_f64();
        let nodes = Delta::between(&before.cores, &after.cores);
        let per_s = |value: Option<u64>| value.map(|value| round(value as f64 / between));
        let per_write = |value: Option<u64>| ratio(value, Some(measured.writes));
        let device = before.device_bytes.zip(after.device_bytes).map(|(before, after)| after.saturating_sub(before));
        let prepared = nodes.get(|counters| counters.log_prepared_bytes);
        let payload = device.map(|device| device.saturating_sub(prepared.unwrap_or(0)));
        let client_cpu = after.client_cpu.saturating_sub(before.client_cpu).as_secs_f64() / between;
        Report {
            setup,
            duration_s: round(measured.elapsed.as_secs_f64()),
            writes: measured.writes,
            reads: measured.reads,
            writes_per_s: round(measured.writes as f64 / elapsed),
            reads_per_s: round(measured.reads as f64 / elapsed),
            write_p50_us: quantile(&measured.write_latency_ns, 0.5),
            write_p99_us: quantile(&measured.write_latency_ns, 0.99),
            write_p999_us: quantile(&measured.write_latency_ns, 0.999),
            write_max_us: quantile(&measured.write_latency_ns, 1.0),
            read_p50_us: quantile(&measured.read_latency_ns, 0.5),
            read_p99_us: quantile(&measured.read_latency_ns, 0.99),
            read_p999_us: quantile(&measured.read_latency_ns, 0.999),
            read_max_us: quantile(&measured.read_latency_ns, 1.0),
            syncs_per_s: per_s(nodes.get(|counters| counters.syncs)),
            entries_per_sync: nodes.ratio(|counters| (counters.log_entries, counters.syncs)),
            messages_per_frame: nodes.ratio(|counters| (counters.peer_messages, counters.peer_frames)),
            peer_bytes_per_write: per_write(nodes.get(|counters| counters.peer_bytes)),
            log_bytes_per_write: per_write(nodes.get(|counters| counters.log_bytes)),
            disk_bytes_per_write: per_write(payload),
            prepared_bytes_per_write: per_write(prepared),
            turns_per_write: per_write(nodes.get(|counters| counters.turns)),
            system_calls_per_write: per_write(nodes.get(|counters| counters.system_calls)),
            read_rounds_per_s: per_s(nodes.get(|counters| counters.read_rounds)),
            elections: nodes.get(|counters| counters.elections_won),
            node_cpu_cores: per_s(nodes.get(|counters| counters.cpu_ns)).map(|ns| round(ns / 1e9)),
            client_cpu_cores: round(client_cpu),
            leaders: leaders_by_node(&after.cores),
            acknowledged: counts.acknowledged,
            verified: verification.verified,
            lost: verification.lost,
            unread: verification.unread,
            failed: counts.failed,
            unknown: counts.unknown,
            foreign_reads: counts.foreign_reads,
        }
    }

    /// Prints the result on standard output.
    pub fn print(&self, output: Output) -> Result<(), BenchError> {
        match output {
            Output::Json => print_json(self),
            Output::Table => print_text(&self.table()),
        }
    }

    /// A sentence if the client was so busy that it may have been the limit.
    pub fn client_warning(&self) -> Option<String> {
        (self.client_cpu_cores > CLIENT_CPU_WARNING).then(|| {
            let cores = self.client_cpu_cores;
            format!("the client itself used {cores:.2} of a core, so it may be what limits these figures")
        })
    }

    fn table(&self) -> String {
        let Setup { target, nodes, cores, groups, clients, connections, value_size, read_percent, .. } = &self.setup;
        let mut rows = vec![
            (
                "cluster",
                match cores {
                    0 => format!("{target}, {nodes} nodes"),
                    cores => format!("{target}, {nodes} nodes x {cores} cores, {groups} groups"),
                },
            ),
            ("leaders on each node", self.leaders.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")),
            (
                "load",
                match self.setup.rate {
                    Some(rate) => format!("{clients} clients, open loop, {rate} operations/s"),
                    None => format!("{clients} clients, closed loop"),
                },
            ),
            ("connections", connections.to_string()),
            ("operations", format!("{read_percent} % reads, values of {value_size} B, {} keys", self.setup.keys)),
            ("measured", format!("{:.1} s, seed {}", self.duration_s, self.setup.seed)),
            ("writes/s", format!("{:.0}", self.writes_per_s)),
        ];
        let latency = |p50, p99, p999, max| format!("{} / {} / {} / {} us", us(p50), us(p99), us(p999), us(max));
        let quantiles = latency(self.write_p50_us, self.write_p99_us, self.write_p999_us, self.write_max_us);
        rows.push(("write p50 / p99 / p99.9 / max", quantiles));
        rows.push(("reads/s", format!("{:.0}", self.reads_per_s)));
        let quantiles = latency(self.read_p50_us, self.read_p99_us, self.read_p999_us, self.read_max_us);
        rows.push(("read p50 / p99 / p99.9 / max", quantiles));
        rows.push((
            "syncs/s, entries per sync",
            format!("{}, {}", figure(self.syncs_per_s), figure(self.entries_per_sync)),
        ));
        rows.push(("peer messages per frame", figure(self.messages_per_frame)));
        rows.push(("device bytes per write", figure(self.disk_bytes_per_write)));
        rows.push(("  and for preparing segments", figure(self.prepared_bytes_per_write)));
        rows.push((
            "log bytes, peer bytes per write",
            format!("{}, {}", figure(self.log_bytes_per_write), figure(self.peer_bytes_per_write)),
        ));
        rows.push((
            "turns, system calls per write",
            format!("{}, {}", figure(self.turns_per_write), figure(self.system_calls_per_write)),
        ));
        rows.push(("read rounds/s", figure(self.read_rounds_per_s)));
        rows.push((
            "CPU of nodes, of client (cores)",
            format!("{}, {:.2}", figure(self.node_cpu_cores), self.client_cpu_cores),
        ));
        rows.push(("failed, unknown", format!("{}, {}", self.failed, self.unknown)));
        rows.push(("acknowledged", self.acknowledged.to_string()));
        let unread = if self.unread > 0 { format!(", {} could not be read", self.unread) } else { String::new() };
        rows.push(("verified, lost", format!("{}, {}{unread}", self.verified, self.lost)));
        two_columns(rows)
    }
}

/// Counters between two snapshots, if all cores answered both times.
struct Delta(Option<(Counters, Counters)>);

impl Delta {
    fn between(before: &[CoreStatus], after: &[CoreStatus]) -> Delta {
        let same = !before.is_empty()
            && before.len() == after.len()
            && before.iter().all(|core| {
                after.iter().any(|other| {
                    (other.node, other.core, other.incarnation) == (core.node, core.core, core.incarnation)
                })
            });
        Delta(same.then(|| (sum(before), sum(after))))
    }

    fn get(&self, counter: impl Fn(&Counters) -> u64) -> Option<u64> {
        self.0.as_ref().map(|(before, after)| counter(after).saturating_sub(counter(before)))
    }

    fn ratio(&self, counters: impl Fn(&Counters) -> (u64, u64)) -> Option<f64> {
        ratio(self.get(|all| counters(all).0), self.get(|all| counters(all).1))
    }
}

/// The sum of what all cores counted.
pub fn sum(cores: &[CoreStatus]) -> Counters {
    let mut sum = Counters::default();
    for counters in cores.iter().map(|core| &core.counters) {
        sum.turns += counters.turns;
        sum.system_calls += counters.system_calls;
        sum.syncs += counters.syncs;
        sum.log_groups += counters.log_groups;
        sum.log_bytes += counters.log_bytes;
        sum.log_entries += counters.log_entries;
        sum.log_writes += counters.log_writes;
        sum.peer_frames += counters.peer_frames;
        sum.peer_messages += counters.peer_messages;
        sum.peer_bytes += counters.peer_bytes;
        sum.client_frames += counters.client_frames;
        sum.requests += counters.requests;
        sum.replies += counters.replies;
        sum.read_rounds += counters.read_rounds;
        sum.elections_won += counters.elections_won;
        sum.applied_entries += counters.applied_entries;
        sum.cpu_ns += counters.cpu_ns;
        sum.log_prepared_bytes += counters.log_prepared_bytes;
        sum.checkpoints += counters.checkpoints;
        sum.checkpoint_bytes += counters.checkpoint_bytes;
        sum.checkpoint_failures += counters.checkpoint_failures;
        sum.snapshots_sent += counters.snapshots_sent;
        sum.snapshots_received += counters.snapshots_received;
    }
    sum
}

/// Leaders on each node, in the order of the nodes.
pub fn leaders_by_node(cores: &[CoreStatus]) -> Vec<usize> {
    let mut nodes = std::collections::BTreeMap::new();
    for core in cores {
        *nodes.entry(core.node).or_insert(0) += leaders(core);
    }
    nodes.into_values().collect()
}

/// Prints one JSON object on one line.
pub fn print_json(value: &impl Serialize) -> Result<(), BenchError> {
    let text = serde_json::to_string(value).map_err(|error| BenchError::new(INTERNAL, error.to_string()))?;
    print_text(&text)
}

/// Prints a text and a line end.
pub fn print_text(text: &str) -> Result<(), BenchError> {
    match writeln!(io::stdout().lock(), "{text}") {
        // Whoever reads no further has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| BenchError::new(INTERNAL, format!("cannot print the result: {error}"))),
    }
}

/// Prints the result of a comparison in the form that was asked for, and saves it.
pub fn publish<R: Serialize>(
    report: &R,
    table: impl FnOnce(&R) -> String,
    args: &ResultArgs,
) -> Result<(), BenchError> {
    if let Some(path) = &args.save {
        save(report, path)?;
    }
    match args.output {
        Output::Json => print_json(report),
        Output::Table => print_text(&table(report)),
    }
}

fn save(report: &impl Serialize, path: &Path) -> Result<(), BenchError> {
    let text = serde_json::to_string(report).map_err(|error| BenchError::new(INTERNAL, error.to_string()))?;
    std::fs::write(path, text + "\n")
        .map_err(|error| BenchError::new(ENVIRONMENT, format!("--save {}: {error}", path.display())))
}

/// Names on the left, figures on the right.
pub fn two_columns(rows: Vec<(&str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([name.to_string(), value]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table.trim_fmt()
}

/// Three digits behind the point are more than any of these figures means.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A figure, or a dash for what is not known.
pub fn figure(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |value| match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    })
}

fn us(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |value| format!("{value:.0}"))
}

fn ratio(of: Option<u64>, to: Option<u64>) -> Option<f64> {
    match (of, to) {
        (Some(of), Some(to)) if to > 0 => Some(round(of as f64 / to as f64)),
        _ => None,
    }
}

/// A quantile of nanoseconds in microseconds, or nothing if nothing was recorded.
pub fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| round(histogram.value_at_quantile(quantile) as f64 / 1000.0))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use pontoon_types::{Incarnation, NodeId, Time};

    /// A result of a target with a number of clients and a rate of writes.
    pub fn report(target: &str, clients: u32, writes_per_s: f64) -> Report {
        let setup = Setup {
            target: target.to_string(),
            version: "0".to_string(),
            nodes: 3,
            cores: 1,
            groups: 64,
            clients,
            connections: 3,
            value_size: 256,
            read_percent: 0,
            keys: 10,
            preloaded: true,
            rate: None,
            seed: 1,
        };
        let measured = Measured {
            writes: 1000,
            reads: 0,
            elapsed: Duration::from_secs_f64(1000.0 / writes_per_s),
            write_latency_ns: Histogram::new(3).unwrap(),
            read_latency_ns: Histogram::new(3).unwrap(),
        };
        let end = Time(measured.elapsed.as_nanos() as u64);
        let (before, after) = (snapshot(Time(0), 0, 1), snapshot(end, 10, 1));
        Report::new(setup, &measured, (&before, &after), &Counts::default(), &Verification::default())
    }

    fn snapshot(at: Time, scale: u64, incarnation: u64) -> Snapshot {
        let counters = Counters {
            syncs: 5 * scale,
            log_entries: 200 * scale,
            peer_frames: 10 * scale,
            peer_messages: 80 * scale,
            turns: 50 * scale,
            log_prepared_bytes: 1000 * scale,
            ..Counters::default()
        };
        let incarnation = Incarnation(incarnation);
        let core = |node| CoreStatus { node: NodeId(node), incarnation, counters, ..CoreStatus::default() };
        let device_bytes = Some(7 + 5000 * scale);
        Snapshot { at, client_cpu: Duration::from_secs(scale), device_bytes, cores: vec![core(1), core(2)] }
    }

    #[test]
    fn figures_are_deltas_of_all_cores() {
        let report = report("pontoon", 1, 100.0);
        assert_eq!(report.syncs_per_s, Some(10.0));
        assert_eq!(report.entries_per_sync, Some(40.0));
        assert_eq!(report.messages_per_frame, Some(8.0));
        assert_eq!(report.turns_per_write, Some(1.0));
        assert_eq!(report.prepared_bytes_per_write, Some(20.0));
        assert_eq!(report.disk_bytes_per_write, Some(30.0), "without preparation");
        assert_eq!((report.client_cpu_cores, report.client_warning().is_some()), (1.0, true));
        assert_eq!((report.write_p50_us, report.read_p99_us), (None, None), "nothing was recorded");
    }

    /// A core that was started again, or did not answer, makes the sums meaningless: they are missing, not wrong.
    #[test]
    fn a_core_that_restarted_voids_the_counters() {
        let before = snapshot(Time(0), 1, 1);
        assert_eq!(Delta::between(&before.cores, &snapshot(Time(1), 2, 2).cores).get(|all| all.syncs), None);
        assert_eq!(Delta::between(&before.cores, &before.cores[..1]).get(|all| all.syncs), None);
        assert_eq!(Delta::between(&[], &[]).get(|all| all.syncs), None);
        assert_eq!(Delta::between(&before.cores, &snapshot(Time(1), 2, 1).cores).get(|all| all.syncs), Some(10));
    }

    #[test]
    fn the_json_has_the_promised_keys_and_comes_back() {
        let report = report("pontoon", 1, 100.0);
        let text = serde_json::to_string(&report).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for key in KEYS.split_whitespace() {
            assert!(value.get(key).is_some(), "{key} is missing in {text}");
        }
        let again: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }

    const KEYS: &str = "writes_per_s reads_per_s write_p50_us write_p99_us write_p999_us read_p99_us syncs_per_s \
        entries_per_sync messages_per_frame disk_bytes_per_write acknowledged verified lost";
}
