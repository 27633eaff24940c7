//! `pontoon sim`: whole clusters in virtual time, from seeds.
//!
//! A count of seeds is run and each is reported; or fresh seeds are hunted for some minutes, and only a failure is; or
//! one failing seed is shrunk; or the simulator's own speed is measured.

use std::fs::File;
use std::io::{self, BufWriter, Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use pontoon_sim::shrink::shrink;
use pontoon_sim::{Overrides, Part, Report, run, run_many};

use crate::failure::{Failure, USAGE, VERIFICATION};

/// How often a hunt says how far it is.
const PROGRESS: Duration = Duration::from_secs(60);

/// Runs the simulator.
#[derive(Args)]
pub struct Sim {
    /// The first seed.
    #[arg(long, required_unless_present = "speed")]
    seed: Option<u64>,
    /// How many seeds to run, from the first one up.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Hunt with fresh seeds for so many minutes, from the first one up, and report only what breaks.
    #[arg(long, conflicts_with_all = ["count", "trace", "shrink"])]
    minutes: Option<u64>,
    /// Threads to run them on; left out, one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print the whole trace. Only with one seed.
    #[arg(long)]
    trace: bool,
    /// Write the protocol events of all cores to this file, a line of JSON each. Only with one seed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["minutes", "shrink", "speed"])]
    protocol_trace: Option<PathBuf>,
    /// Take things away from a failing seed as long as the same law breaks, and print what is left.
    #[arg(long, conflicts_with_all = ["count", "trace"])]
    shrink: bool,
    /// Measure how many virtual seconds one core simulates in a second: three nodes, 100 groups.
    #[arg(long, conflicts_with_all = ["seed", "count", "minutes", "trace", "shrink"])]
    speed: bool,
    /// Nodes of every cluster, instead of a number drawn from the seed.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// Cores of every node, likewise.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8))]
    cores: Option<u16>,
    /// Groups of every cluster, likewise.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    groups: Option<u32>,
    /// Clients of every cluster, likewise.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: Option<u32>,
    /// Length of the phase with faults in virtual milliseconds, likewise.
    #[arg(long)]
    duration_ms: Option<u64>,
    /// Parts of every run that are left out, whatever the seed says, such as loss,pauses,damage.
    #[arg(long, value_delimiter = ',', value_parser = part)]
    without: Vec<Part>,
    /// Most that a clock runs wrong in parts per million, instead of at most 50,000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=900_000))]
    drift_ppm: Option<u32>,
    /// Let old images of disks come back in every run, and not only in some (law 12).
    #[arg(long)]
    old_images: bool,
    /// Change members in every run; then disks lose nothing for good, and no node stays away.
    #[arg(long)]
    changes: bool,
    /// Lose a quorum for good in every run, and let its groups begin anew with the survivors; then nothing else is lost for
    /// good, and no node stays away at first.
    #[arg(long)]
    quorum_loss: bool,
    /// Switch leases on.
    #[arg(long)]
    leases: bool,
    /// Switch leases on, with promises that bind several times as long as a silent peer is supported.
    #[arg(long)]
    long_leases: bool,
}

fn part(name: &str) -> Result<Part, String> {
    let names = || Part::ALL.map(|part| part.name()).join(", ");
    Part::named(name).ok_or_else(|| format!("the parts of a run are {}", names()))
}

impl Sim {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        if (self.trace || self.protocol_trace.is_some()) && self.count != 1 {
            return Err(Failure::new(USAGE, "a trace is of one seed; leave out --count"));
        }
        let overrides = Overrides {
            nodes: self.nodes,
            cores: self.cores,
            groups: self.groups,
            clients: self.clients,
            duration: self.duration_ms.map(Duration::from_millis),
            without: self.without.clone(),
            drift_ppm: self.drift_ppm,
            old_images: self.old_images,
            changes: self.changes,
            quorum_loss: self.quorum_loss,
            leases: self.leases,
            long_leases: self.long_leases,
            trace: self.trace,
            protocol: self.protocol_trace.is_some(),
            ..Overrides::default()
        };
        let Some(seed) = self.seed else { return speed(&overrides) };
        match self.minutes {
            Some(minutes) => self.hunt(seed, &overrides, Duration::from_secs(minutes.saturating_mul(60))),
            None if self.shrink => shrink_seed(seed, &overrides),
            None => self.run_seeds(seed, &overrides),
        }
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn run_seeds(&self, seed: u64, overrides: &Overrides) -> Result<(), Failure> {
        let (mut passed, mut broken, mut written) = (0_u64, None, Ok(()));
        run_many(seed..seed.saturating_add(self.count), overrides, self.jobs(), |report| {
            match &report.violation {
                Some(violation) => broken = Some(violation.seed),
                None => passed += 1,
            }
            written = writeln!(stdout(), "{report}").and_then(|()| self.write_protocol(&report.protocol));
            broken.is_none() && written.is_ok()
        });
        written?;
        writeln!(stdout(), "{passed} of {} seeds passed", self.count)?;
        broken.map_or(Ok(()), |seed| Err(law_broken(seed)))
    }

    fn write_protocol(&self, lines: &[String]) -> io::Result<()> {
        let Some(path) = &self.protocol_trace else { return Ok(()) };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut file = BufWriter::new(File::create(path).map_err(named)?);
        lines.iter().try_for_each(|line| writeln!(file, "{line}")).and_then(|()| file.flush()).map_err(named)
    }

    /// Runs fresh seeds until one breaks a law or the time is over.
    fn hunt(&self, seed: u64, overrides: &Overrides, time: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        let (mut passed, mut virtual_time, mut told) = (0_u64, Duration::ZERO, began);
        let (mut broken, mut written) = (None, Ok(()));
        run_many(seed..u64::MAX, overrides, self.jobs(), |report: Report| {
            if let Some(violation) = &report.violation {
                broken = Some(violation.seed);
                written = writeln!(stdout(), "{report}");
                return false;
            }
            passed += 1;
            virtual_time += Duration::from_nanos(report.ended.0);
            let over = began.elapsed() >= time;
            if over || told.elapsed() >= PROGRESS {
                told = Instant::now();
                let last = report.options.seed;
                written = writeln!(
                    stdout(),
                    "{passed} seeds passed up to {last}: {} virtual seconds in {} seconds",
                    virtual_time.as_secs(),
                    began.elapsed().as_secs()
                );
            }
            !over && written.is_ok()
        });
        written?;
        broken.map_or(Ok(()), |seed| Err(law_broken(seed)))
    }
}

fn law_broken(seed: u64) -> Failure {
    let line = format!(
        "seed {seed} broke a law; see it whole with: pontoon sim --seed {seed} --trace, or smaller with --shrink; \
         repeat the other options"
    );
    Failure::new(VERIFICATION, line)
}

fn shrink_seed(seed: u64, overrides: &Overrides) -> Result<(), Failure> {
    let mut written = Ok(());
    let shrunk = shrink(seed, overrides, |what| {
        if written.is_ok() {
            written = writeln!(stdout(), "  still broken: {what}");
        }
    });
    written?;
    let Some(shrunk) = shrunk else {
        writeln!(stdout(), "seed {seed} breaks no law")?;
        return Ok(());
    };
    write!(stdout(), "{}", shrunk.report)?;
    writeln!(stdout(), "after {} runs: pontoon sim {}", shrunk.runs, shrunk.arguments())?;
    Err(Failure::new(VERIFICATION, format!("seed {seed} broke a law")))
}

/// Prints how fast the simulator is, without faults and with them.
fn speed(overrides: &Overrides) -> Result<(), Failure> {
    for faults in [false, true] {
        let (mut virtual_time, began) = (Duration::ZERO, Instant::now());
        let mut turns = 0;
        for seed in 0..10 {
            let overrides = Overrides {
                nodes: overrides.nodes.or(Some(3)),
                cores: overrides.cores.or(Some(1)),
                groups: overrides.groups.or(Some(100)),
                faults: (!faults).then_some(false),
                ..overrides.clone()
            };
            let report = run(seed, &overrides);
            if let Some(violation) = report.violation {
                return Err(Failure::new(VERIFICATION, violation.to_string()));
            }
            virtual_time += Duration::from_nanos(report.ended.0);
            turns += report.counts.turns;
        }
        let (simulated, took) = (virtual_time.as_secs_f64(), began.elapsed().as_secs_f64());
        let kind = if faults { "with faults" } else { "without faults" };
        writeln!(
            stdout(),
            "{kind}: {:.0} virtual seconds in a second ({simulated:.1} in {took:.2}), {:.0} turns in a second",
            simulated / took,
            turns as f64 / took
        )?;
    }
    Ok(())
}
