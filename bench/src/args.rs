//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pontoon_router::RANGES_MAX;
use pontoon_types::limits::{MEMBERS_MAX, VALUE_BYTES_MAX};

use crate::consensus;
use crate::data::{VALUE_BYTES_MIN, WriteId};
use crate::error::{BenchError, USAGE};
use crate::wal::workload::{self, Workload};

/// Loads a Pontoon cluster, measures it, and checks that every acknowledged write is there.
///
/// Without arguments: three nodes in this process, 64 ranges, 256 logical clients over 3 connections, half writes of
/// 256 bytes, 2 s of warm-up and 10 s measured; then the nodes are stopped, started again from disk, and everything
/// acknowledged is read back. Exit code 5 means that something acknowledged is missing or differs.
#[derive(Debug, Parser)]
#[command(name = "pontoon-bench", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Another job than the load.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Other jobs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts nodes, waits until every group has a leader, and measures what they use while nothing is asked.
    Idle(IdleArgs),
    /// Loads the log of one core and measures its commits; with a peer, both in turns in the same directory.
    Wal(WalArgs),
    /// Builds a large log and measures how long it takes to open, after a clean stop and after a crash.
    WalOpen(WalOpenArgs),
    /// Loads the consensus core with proposals, without disk and network; with a peer, both in turns.
    Raft(RaftArgs),
    /// Reads keys from a leader that holds a lease, without disk and network: what a local read costs a core.
    LeasedReads(LeasedReadsArgs),
    /// Starts three node processes, kills the one that leads the most groups, and measures until each serves writes again.
    Failover(FailoverArgs),
    /// Puts the JSON results of several runs side by side: medians with minimum and maximum, and ratios.
    Summarize(SummarizeArgs),
}

/// How the result is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

/// The nodes that are started in this process.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Nodes, each with its own data directory and port.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=MEMBERS_MAX as i64))]
    pub nodes: u16,
    /// Cores of each node.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub cores: u16,
    /// Ranges of the key space; each is one group on every node.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=RANGES_MAX as i64))]
    pub groups: u32,
    /// Where the nodes keep their data, afterwards too; must be new or empty. Default: a directory that is removed.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The load and where it goes.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Addresses of a running cluster, instead of nodes in this process; `host:port` separated by commas.
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        conflicts_with_all = ["nodes", "cores", "groups", "data_dir"]
    )]
    pub endpoints: Vec<String>,
    /// Loads a peer instead: `etcd=HOST:PORT,HOST:PORT,...` (needs a build with `--features etcd`).
    #[arg(
        long,
        value_name = "PEER=ADDRESSES",
        conflicts_with_all = ["endpoints", "nodes", "cores", "groups", "data_dir"]
    )]
    pub against: Option<String>,
    /// Logical clients.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub clients: u32,
    /// Connections that they share; never fewer than one for each core of each node.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub connections: u16,
    /// Bytes of each value.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(VALUE_BYTES_MIN as i64..=VALUE_BYTES_MAX as i64)
    )]
    pub value_size: u32,
    /// Reads among the operations, per cent.
    #[arg(long, value_name = "P", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub read_percent: u32,
    /// Keys, chosen uniformly.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
    /// Writes every key once before the load.
    #[arg(long)]
    pub preload: bool,
    /// Seconds of load before the measurement.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, allow_negative_numbers = true)]
    pub warm_up: Duration,
    /// Seconds measured.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds, allow_negative_numbers = true)]
    pub duration: Duration,
    /// Operations per second, planned at fixed intervals (open loop, latency from the plan). Default: closed loop.
    #[arg(long, value_name = "OPS", value_parser = rate, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// How long one operation may take.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = positive_seconds, allow_negative_numbers = true)]
    pub timeout: Duration,
    /// A directory on the device whose written bytes are counted, for clusters outside this process.
    #[arg(long, value_name = "DIR")]
    pub disk: Option<PathBuf>,
    /// Seed of keys, values and choices. Default: drawn, and printed.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Writes one JSON object for each operation: client, op, key, value, outcome, call and return in ns.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// The form of the result.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// The idle measurement.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Seconds measured.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds, allow_negative_numbers = true)]
    pub duration: Duration,
    /// The form of the result.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// The reads under a lease.
#[derive(Clone, Debug, Args)]
pub struct LeasedReadsArgs {
    /// Rounds; the figures are their medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Seconds measured in each round.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = positive_seconds, allow_negative_numbers = true)]
    pub seconds: Duration,
    /// Groups that the reads go to in rotation.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub groups: u32,
    /// Reads in one frame.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub batch: u32,
    #[command(flatten)]
    pub result: ResultArgs,
}

/// The death of a node.
#[derive(Clone, Debug, Args)]
pub struct FailoverArgs {
    /// Ranges of the key space; each is one group on every node. Each node leads about a third.
    #[arg(long, value_name = "N", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(3..=RANGES_MAX as i64))]
    pub groups: u32,
    /// The node's program. Default: `pontoond` beside this program.
    #[arg(long, value_name = "FILE")]
    pub pontoond: Option<PathBuf>,
    /// The form of the result.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// The comparison of results.
#[derive(Clone, Debug, Args)]
pub struct SummarizeArgs {
    /// The target that the others are compared with.
    #[arg(long, value_name = "TARGET", default_value = "etcd")]
    pub baseline: String,
    /// Files with one JSON result on each line, as `--output json` prints them.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// How appends reach the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AppendPathName {
    /// Positioned writes.
    Write,
    /// Stores into a mapping.
    Mmap,
}

/// A peer of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogPeer {
    /// The `raft-engine` crate.
    RaftEngine,
}

/// What all measurements of a log have in common.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// A directory on the disk that is measured; what is made inside it is removed at the end. Default: a temporary one.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Rounds; the figures are their medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Size of each segment, MiB. Default: that of a node.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub segment_mib: Option<u64>,
    /// How appends reach the page cache. Default: as in a node.
    #[arg(long, value_name = "PATH", value_enum)]
    pub append_path: Option<AppendPathName>,
    #[command(flatten)]
    pub result: ResultArgs,
}

/// Where the result of a comparison goes.
#[derive(Clone, Debug, Args)]
pub struct ResultArgs {
    /// The form of the result.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Writes the result as JSON into this file too.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// The load of the log.
#[derive(Clone, Debug, Args)]
pub struct WalArgs {
    #[command(flatten)]
    pub log: LogArgs,
    /// Workloads, separated by commas. Default: all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = workload::parse)]
    pub workloads: Vec<Workload>,
    /// Raft groups that the entries go to in rotation.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub groups: u32,
    /// The place of the core's loop among the processors. Default: as a node chooses.
    #[arg(long, value_name = "N")]
    pub first_cpu: Option<usize>,
    /// Seconds of load before the measurement of each round.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds, allow_negative_numbers = true)]
    pub warm_up: Duration,
    /// Seconds measured in each round.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = positive_seconds, allow_negative_numbers = true)]
    pub seconds: Duration,
    /// A peer that gets the same load after each turn of ours (needs a build with `--features raft-engine`).
    #[arg(long, value_name = "PEER", value_enum)]
    pub against: Option<LogPeer>,
    /// Opens each log again after its round and looks for every entry that was acknowledged.
    #[arg(long)]
    pub verify: bool,
}

/// A peer of the consensus core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RaftPeer {
    /// The `raft` crate, known as raft-rs.
    RaftRs,
}

/// The load of the consensus core.
#[derive(Clone, Debug, Args)]
pub struct RaftArgs {
    /// Rounds; the figures are their medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Workloads, separated by commas. Default: all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = consensus::workload::parse)]
    pub workloads: Vec<consensus::workload::Workload>,
    /// Seconds of load before the measurement of each round.
    #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = seconds, allow_negative_numbers = true)]
    pub warm_up: Duration,
    /// Seconds measured in each round.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = positive_seconds, allow_negative_numbers = true)]
    pub seconds: Duration,
    /// A peer that gets the same load after each turn of ours (needs a build with `--features raft-rs`).
    #[arg(long, value_name = "PEER", value_enum)]
    pub against: Option<RaftPeer>,
    #[command(flatten)]
    pub result: ResultArgs,
}

/// The large log.
#[derive(Clone, Debug, Args)]
pub struct WalOpenArgs {
    #[command(flatten)]
    pub log: LogArgs,
    /// Bytes of the log before it is opened, GiB.
    #[arg(long, value_name = "GIB", default_value = "10", value_parser = gibibytes, allow_negative_numbers = true)]
    pub log_gib: f64,
    /// Raft groups that the entries go to in rotation.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub groups: u32,
    /// Bytes of each entry's payload.
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub payload: u32,
}

/// Where a load goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nodes in this process.
    InProcess,
    /// A running Pontoon cluster.
    Endpoints(Vec<SocketAddr>),
    /// A running etcd cluster.
    Etcd(Vec<String>),
}

impl LoadArgs {
    /// Where the load goes, with the addresses resolved.
    pub fn destination(&self) -> Result<Destination, BenchError> {
        if let Some(against) = &self.against {
            return match against.split_once('=') {
                Some(("etcd", addresses)) if !addresses.is_empty() => {
                    Ok(Destination::Etcd(addresses.split(',').map(str::to_string).collect()))
                }
                _ => Err(BenchError::new(USAGE, format!("--against must be etcd=HOST:PORT,..., not `{against}`"))),
            };
        }
        if self.endpoints.is_empty() {
            return Ok(Destination::InProcess);
        }
        let resolve = |endpoint: &String| {
            let resolved = endpoint.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
            resolved.ok_or_else(|| {
                BenchError::new(USAGE, format!("--endpoints: `{endpoint}` is not an address like 127.0.0.1:7400"))
            })
        };
        Ok(Destination::Endpoints(self.endpoints.iter().map(resolve).collect::<Result<_, _>>()?))
    }
}

const _: () = assert!(16_384 + 512 < WriteId::CLIENTS_MAX, "clients of all phases have identities");

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_string())?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("between 0 and 86400 seconds are allowed".to_string());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("more than 0 seconds are wanted".to_string()),
        duration => Ok(duration),
    }
}

fn gibibytes(text: &str) -> Result<f64, String> {
    let gibibytes: f64 = text.parse().map_err(|_| "a number of GiB is wanted".to_string())?;
    if !(0.001..=4096.0).contains(&gibibytes) {
        return Err("between 0.001 and 4096 GiB are allowed".to_string());
    }
    Ok(gibibytes)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number of operations per second is wanted".to_string())?;
    if !(0.001..=10_000_000.0).contains(&rate) {
        return Err("between 0.001 and 10000000 operations per second are allowed".to_string());
    }
    Ok(rate)
}
