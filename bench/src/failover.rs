//! How long a killed node keeps its groups from serving.
//!
//! Three nodes run as processes. The one that leads the most groups is killed with SIGKILL, and in the same moment one
//! write for each of its groups is asked for, and asked again after every refusal and every silence, until it is
//! acknowledged. What is measured is the time from the kill to that acknowledgement, for each group.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use pontoon::{InitPlan, LogOptions, NodeId, init};
use pontoon_client::{Client, ClientOptions, Completion, Request, Ticket};
use pontoon_types::{Descriptor, GroupId, Time};
use pontoon_wire::client::GroupRole;
use serde::Serialize;

use crate::args::{FailoverArgs, Output};
use crate::clock;
use crate::cluster::free_addresses;
use crate::data_dir::DataDir;
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT, INTERNAL, UNHEALTHY, USAGE};
use crate::report::{print_json, print_text, quantile, round, two_columns};
use crate::run::{READY_TIMEOUT, say};
use crate::target::PontoonTarget;

/// How many nodes: what most clusters have, and one of them may go.
const NODES: u16 = 3;

/// Time for elections and the last placement of leaders to be over.
const SETTLE: Duration = Duration::from_secs(3);

/// How long one write may take until it is asked for again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long after the kill a group that does not serve is called lost.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The longest time that is told apart from longer ones.
const TIME_NS_MAX: u64 = 100_000_000_000;

/// The result. Names end in their unit.
#[derive(Debug, Serialize)]
struct FailoverReport {
    nodes: u16,
    groups: u32,
    /// The node that was killed.
    killed: u64,
    /// Groups that it led.
    led: usize,
    /// From the kill to the first acknowledged write of each of them.
    served_p50_ms: Option<f64>,
    served_p99_ms: Option<f64>,
    served_max_ms: Option<f64>,
    /// Writes that had to be asked for again.
    repeated: u64,
}

/// Starts nodes, kills one, and prints how long its groups were away.
pub fn run(args: &FailoverArgs) -> Result<(), BenchError> {
    let program = program(args.pontoond.as_deref())?;
    let dir = DataDir::temporary("--data-dir")?;
    let addresses = free_addresses(NODES)?;
    let dirs: Vec<PathBuf> = (1..=NODES).map(|node| dir.path().join(format!("n{node}"))).collect();
    let nodes = (1..).map(NodeId).zip(&dirs).zip(&addresses);
    let plan = InitPlan {
        nodes: nodes.map(|((node, dir), address)| (node, dir.clone(), *address)).collect(),
        ranges: args.groups,
        cores: 1,
        log: LogOptions::default(),
    };
    init(&plan).map_err(|error| BenchError::new(error.exit_code(), error.to_string()))?;
    let started = dirs.iter().map(|dir| Process::start(&program, dir));
    let mut processes = started.collect::<Result<Vec<Process>, BenchError>>()?;

    let mut target = PontoonTarget::connect(&addresses, ClientOptions::default(), Device::none(), READY_TIMEOUT)?;
    say(&format!("every one of {} groups has a leader", args.groups));
    std::thread::sleep(SETTLE);
    let (killed, led) = most_led(&mut target)?;
    let mut load = Load::new(&addresses, &led)?;
    say(&format!("killing {killed}, which leads {} groups", led.len()));
    processes[killed.0 as usize - 1].kill();
    load.run()?;

    let report = FailoverReport {
        nodes: NODES,
        groups: args.groups,
        killed: killed.0,
        led: led.len(),
        served_p50_ms: milliseconds(&load.served_ns, 0.5),
        served_p99_ms: milliseconds(&load.served_ns, 0.99),
        served_max_ms: milliseconds(&load.served_ns, 1.0),
        repeated: load.repeated,
    };
    match args.output {
        Output::Json => print_json(&report),
        Output::Table => print_text(&report.table()),
    }
}

/// The node that leads the most groups, and those.
fn most_led(target: &mut PontoonTarget) -> Result<(NodeId, Vec<GroupId>), BenchError> {
    let mut led: BTreeMap<NodeId, Vec<GroupId>> = BTreeMap::new();
    for status in target.statuses() {
        let leads = status.groups.iter().filter(|group| group.role == GroupRole::Leader).map(|group| group.group);
        led.entry(status.node).or_default().extend(leads);
    }
    let most = led.into_iter().max_by_key(|(_, groups)| groups.len());
    most.ok_or_else(|| BenchError::new(UNHEALTHY, "no core answers the question for its groups"))
}

/// `pontoond`: the one that was named, or the one beside this program.
fn program(named: Option<&Path>) -> Result<PathBuf, BenchError> {
    if let Some(path) = named {
        let missing = || BenchError::new(USAGE, format!("--pontoond: {} is not there", path.display()));
        return path.is_file().then(|| path.to_path_buf()).ok_or_else(missing);
    }
    let own = std::env::current_exe().map_err(|error| BenchError::new(INTERNAL, error.to_string()))?;
    let beside = own.with_file_name("pontoond");
    if beside.is_file() {
        return Ok(beside);
    }
    let line =
        format!("{} is not there: `cargo build --release` makes it, or name one with --pontoond", beside.display());
    Err(BenchError::new(USAGE, line))
}

/// One node. It is killed when this goes.
struct Process(Child);

impl Process {
    /// Starts a node and waits until it listens.
    fn start(program: &Path, dir: &Path) -> Result<Process, BenchError> {
        let fail = |why: String| BenchError::new(ENVIRONMENT, format!("{}: {why}", program.display()));
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(dir).env("RUST_LOG", "error").stdout(Stdio::piped());
        let mut process = Process(command.spawn().map_err(|error| fail(error.to_string()))?);
        let mut line = String::new();
        let out = process.0.stdout.take().ok_or_else(|| fail("its output was not caught".to_string()))?;
        BufReader::new(out).read_line(&mut line).map_err(|error| fail(error.to_string()))?;
        if line.starts_with("listening") { Ok(process) } else { Err(fail("it did not start".to_string())) }
    }

    fn kill(&mut self) {
        // One that is gone already is as killed as it can be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One write for each group, until each is acknowledged.
struct Load {
    client: Client,
    keys: Vec<Bytes>,
    waiting: BTreeMap<Ticket, usize>,
    served_ns: Histogram<u64>,
    repeated: u64,
}

impl Load {
    fn new(addresses: &[SocketAddr], groups: &[GroupId]) -> Result<Load, BenchError> {
        let options = ClientOptions { timeout: WRITE_TIMEOUT, ..ClientOptions::default() };
        let mut client = Client::connect(addresses, options)?;
        let ranges: BTreeMap<GroupId, Descriptor> =
            client.routes()?.ranges.into_iter().map(|(range, _)| (range.group, range)).collect();
        // The shortest key behind a range's beginning lies in it: ranges of a new cluster are wider than that.
        let key = |group| ranges.get(group).map(|range| [range.range.start.as_ref(), &[0]].concat().into());
        let served_ns = Histogram::new_with_bounds(1_000, TIME_NS_MAX, 3);
        Ok(Load {
            client,
            keys: groups.iter().filter_map(key).collect(),
            waiting: BTreeMap::new(),
            served_ns: served_ns.expect("the bounds of the histogram are fixed and right"),
            repeated: 0,
        })
    }

    /// Asks now, and counts from now.
    fn run(&mut self) -> Result<(), BenchError> {
        let begin = clock::now();
        (0..self.keys.len()).for_each(|place| self.submit(place));
        let mut done = Vec::new();
        while !self.waiting.is_empty() {
            self.client.poll(Duration::from_millis(10), &mut done)?;
            let now = self.client.turn_time();
            for completion in done.drain(..) {
                self.complete(begin, now, completion);
            }
            if now > begin + GIVE_UP {
                let line = format!("{} groups do not serve {} s after the kill", self.waiting.len(), GIVE_UP.as_secs());
                return Err(BenchError::new(UNHEALTHY, line));
            }
        }
        Ok(())
    }

    fn submit(&mut self, place: usize) {
        let request = Request::Put { key: self.keys[place].clone(), value: Bytes::from_static(b"served") };
        self.waiting.insert(self.client.submit(request), place);
    }

    fn complete(&mut self, begin: Time, now: Time, completion: Completion) {
        let Some(place) = self.waiting.remove(&completion.ticket) else { return };
        if completion.result.is_ok() {
            self.served_ns.saturating_record(now.since(begin).as_nanos() as u64);
        } else {
            // A write of the same value twice is the same as once, so an unknown outcome may be asked for again.
            self.repeated += 1;
            self.submit(place);
        }
    }
}

fn milliseconds(histogram: &Histogram<u64>, at: f64) -> Option<f64> {
    quantile(histogram, at).map(|us| round(us / 1e3))
}

impl FailoverReport {
    fn table(&self) -> String {
        let ms = |value: Option<f64>| value.map_or("-".to_string(), |ms| format!("{ms:.0}"));
        two_columns(vec![
            ("cluster", format!("{} processes x 1 core, {} groups", self.nodes, self.groups)),
            ("killed", format!("n{}, leader of {} groups", self.killed, self.led)),
            (
                "serving writes again, p50 / p99 / all, ms",
                format!("{} / {} / {}", ms(self.served_p50_ms), ms(self.served_p99_ms), ms(self.served_max_ms)),
            ),
            ("writes asked for again", self.repeated.to_string()),
        ])
    }
}
