//! One node as a process.
//!
//! It prints one line to standard output when it serves, `listening on ADDR`, and logs to standard error. SIGTERM and
//! SIGINT end it cleanly. Exit codes are those of [`pontoon::error`].

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use pontoon::{ConfigFile, Node, NodeConfig, StopHandle, WaitEnd};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;

/// The system's allocator keeps what elections and a start have taken, scattered between what stays: of 20,000 idle
/// groups nearly as much again as they need. This one gives it back within seconds, from a thread of its own.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs one node of a Pontoon cluster from the data directory that `pontoon init` made.
#[derive(Parser)]
#[command(version, about)]
struct Flags {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address to listen at, instead of the one that `pontoon init` wrote.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A TOML file with the same settings; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many cores the node has from now on; without it, as many as before. All nodes of a cluster have the same
    /// number: to change it, stop all of them and start all of them with the new one.
    #[arg(long, value_name = "N")]
    cores: Option<u16>,
    /// Size of each core's log at which writes are answered Busy.
    #[arg(long, value_name = "BYTES")]
    max_log_bytes: Option<u64>,
    /// The place of core 0 among the processors that the process may use. Default: where the interrupts of the disk arrive.
    #[arg(long, value_name = "N")]
    first_cpu: Option<usize>,
    /// Do not keep each core to one processor.
    #[arg(long)]
    no_pin: bool,
    /// How long a sync may wait for more writers, microseconds; 0 never waits.
    #[arg(long, value_name = "US")]
    sync_hold_us: Option<u64>,
    /// Write every protocol event to a file in this directory, for checkers. It costs the cores time.
    #[arg(long, value_name = "DIR")]
    trace_dir: Option<PathBuf>,
    /// How eager this node is to lead: from 0, which campaigns first, to 8, which waits for two election timeouts more. For a
    /// node that is far away, or is to rest.
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// Serve a leader's reads under leases, without asking its peers. They rest on the clocks of all nodes running alike
    /// within one percent.
    #[arg(long)]
    leases: bool,
    /// Vote without waiting for the peers' word that this directory is the newest that the node had, and although they
    /// refused it. For once, when the peers that could say so are gone for good. With a directory that was restored from
    /// a backup or copied, this LOSES ACKNOWLEDGED WRITES.
    #[arg(long)]
    trust_data_dir: bool,
    /// Refuse a data directory of another node than this.
    #[arg(long, value_name = "N")]
    node: Option<u64>,
    /// Refuse a data directory of another cluster than this.
    #[arg(long, value_name = "HEX")]
    cluster: Option<String>,
    /// The form of the log lines on standard error. Their level is set by RUST_LOG.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    start_logging(flags.log_format);
    // A panic unwinds one turn and comes back as that core's failure; here it is one line with its place.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let node = match configuration(flags).map_err(pontoon::StartError::from).and_then(Node::start) {
        Ok(node) => node,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    match serve(node) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::from(1)
        }
    }
}

/// The settings of the file with those of the flags over them.
fn configuration(flags: Flags) -> Result<NodeConfig, pontoon::config::ConfigError> {
    let trust_data_dir = flags.trust_data_dir;
    let file = flags.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
    let given = ConfigFile {
        data_dir: flags.data_dir,
        listen: flags.listen,
        cores: flags.cores,
        max_log_bytes: flags.max_log_bytes,
        pin: flags.no_pin.then_some(false),
        first_cpu: flags.first_cpu,
        sync_hold_us: flags.sync_hold_us,
        trace_dir: flags.trace_dir,
        priority: flags.priority,
        leases: flags.leases.then_some(true),
        node: flags.node,
        cluster: flags.cluster,
    };
    let config = given.over(file).finish()?;
    if trust_data_dir {
        tracing::warn!(
            "--trust-data-dir: the peers of this node are not asked whether its directory is the newest one"
        );
    }
    Ok(NodeConfig { trust_data_dir, ..config })
}

fn start_logging(format: LogFormat) {
    let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(level).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Runs until a signal or a failure.
fn serve(node: Node) -> Result<(), String> {
    let signals = catch_signals().map_err(|error| format!("cannot catch signals: {error}"))?;
    stop_on_signal(signals, node.stop_handle());
    let ready = writeln!(io::stdout(), "listening on {}", node.address());
    ready.and_then(|()| io::stdout().flush()).map_err(|error| format!("cannot write to standard output: {error}"))?;
    match node.wait() {
        WaitEnd::Requested => {
            tracing::info!("stopping");
            node.stop().map_err(|failure| failure.to_string())
        }
        // The failure is in the log already. The other cores are not waited for, since their disk may be the same:
        // the process ends as in a crash, and recovery decides.
        WaitEnd::Failed => std::process::exit(1),
    }
}

/// Signals as bytes of a stream: the one thing that a handler may do is to write.
fn catch_signals() -> io::Result<UnixStream> {
    let (receiver, sender) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, sender.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, sender)?;
    Ok(receiver)
}

fn stop_on_signal(mut signals: UnixStream, stop: StopHandle) {
    std::thread::spawn(move || {
        let mut byte = [0];
        if signals.read_exact(&mut byte).is_ok() {
            stop.request();
        }
    });
}
