//! One run from start to verdict: cluster, keys, load, restart, verification, report.

use std::io::Write;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pontoon_client::ClientOptions;

use crate::args::{Destination, LoadArgs};
use crate::clock;
use crate::cluster::{Cluster, Pin};
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT, INTERNAL, VERIFICATION};
use crate::history::History;
use crate::load::{Load, Measured, Shape};
use crate::preload::Preload;
use crate::recorder::{Counts, Recorder};
use crate::report::{Report, Setup};
use crate::target::{PontoonTarget, Snapshot, Target};
use crate::verify::{Verification, Verify};

/// How long a cluster may take until every range has a leader.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A load and everything that was drawn or resolved for it.
struct Run<'a> {
    args: &'a LoadArgs,
    seed: u64,
    stop: Arc<AtomicBool>,
}

/// What is left of a load: its figures, and the memory for the verification.
struct Loaded {
    measured: Measured,
    recorder: Recorder,
    snapshots: Vec<Snapshot>,
}

/// Runs the load and prints its result. The error carries the exit code; a verification that failed is one too.
pub fn run(args: &LoadArgs, stop: Arc<AtomicBool>) -> Result<(), BenchError> {
    let destination = args.destination()?;
    let seed = args.seed.unwrap_or_else(|| clock::now().0 ^ u64::from(process::id()) << 48);
    let run = Run { args, seed, stop };
    match destination {
        Destination::InProcess => run.in_process(),
        Destination::Endpoints(endpoints) => {
            let device = args.disk.as_deref().map_or_else(Device::none, Device::under);
            let mut target = PontoonTarget::connect(&endpoints, run.client_options(), device, READY_TIMEOUT)?;
            let setup = run.setup("pontoond", target.size()?);
            run.external(&mut target, setup)
        }
        Destination::Etcd(addresses) => run.etcd(&addresses),
    }
}

impl Run<'_> {
    fn in_process(&self) -> Result<(), BenchError> {
        let mut cluster = Cluster::start(&self.args.cluster)?;
        self.say(&format!(
            "{} nodes x {} cores in {}, {} groups",
            self.args.cluster.nodes,
            self.args.cluster.cores,
            cluster.dir().display(),
            self.args.cluster.groups
        ));
        let pin = Pin::to(cluster.client_place());
        let mut target = self.connect(&cluster)?;
        let setup = self.setup("pontoon", target.size()?);
        let loaded = self.load(&mut target)?;
        drop((target, pin));

        self.say("stopping all nodes, and starting them again from disk");
        let stopped = cluster.stop_nodes();
        cluster.start_nodes()?;
        let mut target = self.connect(&cluster)?;
        let result = self.verify_and_report(&mut target, setup, loaded);
        drop(target);
        // What the verification found is worse than a core that failed.
        result.and(stopped).and(cluster.stop_nodes())
    }

    fn external(&self, target: &mut impl Target, setup: Setup) -> Result<(), BenchError> {
        let loaded = self.load(target)?;
        self.verify_and_report(target, setup, loaded)
    }

    #[cfg(feature = "etcd")]
    fn etcd(&self, addresses: &[String]) -> Result<(), BenchError> {
        let device = self.args.disk.as_deref().map_or_else(Device::none, Device::under);
        let connections = usize::from(self.args.connections);
        let mut target = crate::etcd::EtcdTarget::connect(addresses, connections, self.args.timeout, device)?;
        let setup = self.setup("etcd", (addresses.len(), 0, 1));
        self.external(&mut target, setup)
    }

    #[cfg(not(feature = "etcd"))]
    fn etcd(&self, _addresses: &[String]) -> Result<(), BenchError> {
        let line = "this build cannot speak to etcd; build it with `--features etcd`";
        Err(BenchError::new(crate::error::USAGE, line))
    }

    fn connect(&self, cluster: &Cluster) -> Result<PontoonTarget, BenchError> {
        let device = Device::under(cluster.dir());
        PontoonTarget::connect(cluster.addresses(), self.client_options(), device, READY_TIMEOUT)
    }

    fn load(&self, target: &mut impl Target) -> Result<Loaded, BenchError> {
        let args = self.args;
        let history = args.history.as_deref().map(create_history).transpose()?;
        let mut recorder = Recorder::new(args.keys, self.seed, args.value_size as usize, history);
        if args.preload {
            self.say(&format!("writing {} keys", args.keys));
            recorder = target.run(Preload::new(recorder, args.keys, args.clients, self.stop.clone()))?.recorder;
        }
        let shape = Shape {
            clients: args.clients,
            read_percent: args.read_percent,
            keys: args.keys,
            seed: self.seed,
            rate: args.rate,
            warm_up: args.warm_up,
            duration: args.duration,
        };
        let load = target.run(Load::new(recorder, shape, true, self.stop.clone()))?;
        let snapshots = target.take_snapshots();
        let (measured, recorder) = load.into_parts();
        if self.stop.load(Ordering::Relaxed) {
            self.say("interrupted: the result is that of the time until now");
        }
        Ok(Loaded { measured, recorder, snapshots })
    }

    fn verify_and_report(&self, target: &mut impl Target, setup: Setup, loaded: Loaded) -> Result<(), BenchError> {
        let Loaded { measured, recorder, snapshots } = loaded;
        let load_counts = recorder.counts.clone();
        // Reads of the verification are made by clients of their own, because they overlap nobody's operations.
        let verify = target.run(Verify::new(recorder, self.args.clients + 1))?;
        let Verify { mut recorder, result, .. } = verify;
        let history = recorder.finish_history();
        let [before, after] = &snapshots[..] else {
            return Err(BenchError::new(INTERNAL, "the load ended without its two snapshots"));
        };
        let report = Report::new(setup, &measured, (before, after), &load_counts, &result);
        report.print(self.args.output)?;
        self.explain(&report, &load_counts, &result);
        history.map_err(|error| BenchError::new(ENVIRONMENT, format!("--history: {error}")))?;
        verdict(&report, &result)
    }

    /// What a reader of the figures should know.
    fn explain(&self, report: &Report, counts: &Counts, verification: &Verification) {
        if let Some(warning) = report.client_warning() {
            self.say(&format!("warning: {warning}"));
        }
        for (why, count) in &counts.reasons {
            self.say(&format!("{count} operations: {why}"));
        }
        for example in &verification.examples {
            self.say(example);
        }
    }

    fn setup(&self, target: &str, (nodes, cores, groups): (usize, u16, usize)) -> Setup {
        let args = self.args;
        Setup {
            target: target.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            nodes,
            cores,
            groups,
            clients: args.clients,
            connections: self.connections(nodes * usize::from(cores)),
            value_size: args.value_size,
            read_percent: args.read_percent,
            keys: args.keys,
            preloaded: args.preload,
            rate: args.rate,
            seed: self.seed,
        }
    }

    /// The client opens the same number to each core, so the number asked for is rounded up.
    fn connections(&self, cores: usize) -> usize {
        usize::from(self.args.connections).next_multiple_of(cores.max(1))
    }

    fn client_options(&self) -> ClientOptions {
        ClientOptions {
            connections: usize::from(self.args.connections),
            timeout: self.args.timeout,
            ..ClientOptions::default()
        }
    }

    fn say(&self, line: &str) {
        say(line);
    }
}

/// One line of progress on standard error. One that cannot be shown is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn verdict(report: &Report, verification: &Verification) -> Result<(), BenchError> {
    let Verification { lost, unread, .. } = verification;
    let foreign = if report.setup.target == "pontoon" { report.foreign_reads } else { 0 };
    if *lost == 0 && *unread == 0 && foreign == 0 {
        return Ok(());
    }
    let line = format!(
        "verification failed: {lost} acknowledged writes are missing or differ, {unread} are on keys that could not be \
         read, {foreign} reads found bytes that nobody wrote"
    );
    Err(BenchError::new(VERIFICATION, line))
}

fn create_history(path: &Path) -> Result<History, BenchError> {
    History::create(path, clock::now())
        .map_err(|error| BenchError::new(ENVIRONMENT, format!("--history {}: {error}", path.display())))
}
