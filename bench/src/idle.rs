//! What a cluster uses while nobody asks it anything.

use std::time::Duration;

use pontoon_client::ClientOptions;
use serde::Serialize;

use crate::args::{IdleArgs, Output};
use crate::clock;
use crate::cluster::Cluster;
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT};
use crate::memory::anonymous_bytes;
use crate::report::{figure, leaders_by_node, print_json, print_text, round, sum, two_columns};
use crate::run::{READY_TIMEOUT, say};
use crate::target::PontoonTarget;

/// Time for elections, first commits and the last placement of leaders to be over.
const SETTLE: Duration = Duration::from_secs(3);

/// The result. Names end in their unit.
#[derive(Debug, Serialize)]
struct IdleReport {
    nodes: u16,
    cores: u16,
    groups: u32,
    leaders: Vec<usize>,
    duration_s: f64,
    /// Processor time of the whole process, of one core, per cent.
    process_cpu_percent: f64,
    /// Processor time of all cores of all nodes together, of one core, per cent.
    node_cpu_percent: f64,
    /// Memory that was taken for the nodes, for each replica of a group. The client's own copy of the routing table is in
    /// it, and what was needed only while they started, if it was not given back to the system.
    memory_bytes_per_replica: Option<f64>,
    messages_per_s: f64,
    frames_per_s: f64,
    peer_bytes_per_s: f64,
    turns_per_s: f64,
    system_calls_per_s: f64,
    syncs_per_s: f64,
    elections: u64,
    disk_bytes_per_s: Option<f64>,
}

/// Starts nodes, lets them settle, measures, and prints the result.
pub fn run(args: &IdleArgs) -> Result<(), BenchError> {
    let memory_before = anonymous_bytes();
    let mut cluster = Cluster::start(&args.cluster)?;
    let device = Device::under(cluster.dir());
    let options = ClientOptions::default();
    let mut target = PontoonTarget::connect(cluster.addresses(), options, Device::none(), READY_TIMEOUT)?;
    say(&format!(
        "every one of {} groups has a leader; measuring {} s",
        args.cluster.groups,
        args.duration.as_secs_f64()
    ));
    std::thread::sleep(SETTLE);
    let replicas = u64::from(args.cluster.groups) * u64::from(args.cluster.nodes);

    let all_cores = usize::from(args.cluster.nodes) * usize::from(args.cluster.cores);
    let before = target.statuses();
    let (begin, cpu_before, device_before) = (clock::now(), clock::process_cpu(), device.written_bytes());
    std::thread::sleep(args.duration);
    let (elapsed, cpu) = (clock::now().since(begin).as_secs_f64(), clock::process_cpu() - cpu_before);
    let device_after = device.written_bytes();
    // At the end: what was needed only while the nodes started is given back in the background.
    let memory_bytes = memory_before.zip(anonymous_bytes()).map(|(before, after)| after.saturating_sub(before));
    let after = target.statuses();
    if before.len() != all_cores || after.len() != all_cores {
        return Err(BenchError::new(ENVIRONMENT, "a core did not answer the question for its counters"));
    }

    let (was, is) = (sum(&before), sum(&after));
    let per_s = |before: u64, after: u64| round(after.saturating_sub(before) as f64 / elapsed);
    let report = IdleReport {
        nodes: args.cluster.nodes,
        cores: args.cluster.cores,
        groups: args.cluster.groups,
        leaders: leaders_by_node(&after),
        duration_s: round(elapsed),
        process_cpu_percent: round(cpu.as_secs_f64() / elapsed * 100.0),
        node_cpu_percent: round(per_s(was.cpu_ns, is.cpu_ns) / 1e7),
        memory_bytes_per_replica: memory_bytes.map(|bytes| round(bytes as f64 / replicas as f64)),
        messages_per_s: per_s(was.peer_messages, is.peer_messages),
        frames_per_s: per_s(was.peer_frames, is.peer_frames),
        peer_bytes_per_s: per_s(was.peer_bytes, is.peer_bytes),
        turns_per_s: per_s(was.turns, is.turns),
        system_calls_per_s: per_s(was.system_calls, is.system_calls),
        syncs_per_s: per_s(was.syncs, is.syncs),
        elections: is.elections_won - was.elections_won,
        disk_bytes_per_s: device_before.zip(device_after).map(|(before, after)| per_s(before, after)),
    };
    match args.output {
        Output::Json => print_json(&report)?,
        Output::Table => print_text(&report.table())?,
    }
    drop(target);
    cluster.stop_nodes()
}

impl IdleReport {
    fn table(&self) -> String {
        let leaders: Vec<String> = self.leaders.iter().map(usize::to_string).collect();
        two_columns(vec![
            ("cluster", format!("{} nodes x {} cores, {} groups", self.nodes, self.cores, self.groups)),
            ("leaders on each node", leaders.join(" ")),
            ("measured", format!("{:.1} s", self.duration_s)),
            ("CPU of the process", format!("{:.2} % of a core", self.process_cpu_percent)),
            ("CPU of the nodes' cores", format!("{:.2} % of a core", self.node_cpu_percent)),
            ("memory for each replica, B", figure(self.memory_bytes_per_replica)),
            (
                "peer frames/s, messages/s",
                format!("{}, {}", figure(Some(self.frames_per_s)), figure(Some(self.messages_per_s))),
            ),
            ("peer bytes/s", figure(Some(self.peer_bytes_per_s))),
            (
                "turns/s, system calls/s",
                format!("{}, {}", figure(Some(self.turns_per_s)), figure(Some(self.system_calls_per_s))),
            ),
            ("syncs/s", figure(Some(self.syncs_per_s))),
            ("elections", self.elections.to_string()),
            ("device bytes/s", figure(self.disk_bytes_per_s)),
        ])
    }
}
