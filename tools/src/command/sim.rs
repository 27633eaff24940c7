//! `pontoon sim`: whole clusters in virtual time, from seeds.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use pontoon_sim::{Overrides, run_many};

use crate::failure::{Failure, USAGE, VERIFICATION};

/// Runs the simulator.
#[derive(Args)]
pub struct Sim {
    /// The first seed.
    #[arg(long)]
    seed: u64,
    /// How many seeds to run, from the first one up.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Threads to run them on; left out, one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print the whole trace. Only with one seed.
    #[arg(long)]
    trace: bool,
    /// Nodes of every cluster, instead of a number drawn from the seed.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// Cores of every node, likewise.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8))]
    cores: Option<u16>,
    /// Groups of every cluster, likewise.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    groups: Option<u32>,
    /// Length of the phase with faults in virtual milliseconds, likewise.
    #[arg(long)]
    duration_ms: Option<u64>,
}

impl Sim {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        if self.trace && self.count != 1 {
            return Err(Failure::new(USAGE, "--trace prints one seed; leave out --count"));
        }
        let overrides = Overrides {
            nodes: self.nodes,
            cores: self.cores,
            groups: self.groups,
            duration: self.duration_ms.map(Duration::from_millis),
            trace: self.trace,
            ..Overrides::default()
        };
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let seeds = self.seed..self.seed.saturating_add(self.count);
        let (mut passed, mut broken, mut written) = (0_u64, None, Ok(()));
        run_many(seeds, &overrides, jobs, |report| {
            match &report.violation {
                Some(violation) => broken = Some(violation.seed),
                None => passed += 1,
            }
            written = writeln!(std::io::stdout(), "{report}");
            broken.is_none() && written.is_ok()
        });
        written?;
        writeln!(std::io::stdout(), "{passed} of {} seeds passed", self.count)?;
        match broken {
            None => Ok(()),
            Some(seed) => {
                let line = format!("seed {seed} broke a law; see it whole with: pontoon sim --seed {seed} --trace");
                Err(Failure::new(VERIFICATION, line))
            }
        }
    }
}
