//! What a failing seed can do without: an honest, greedy search.
//!
//! The run is repeated with one part taken away ([`Part`]), then with a smaller cluster and a shorter run; a change stays if
//! the same law still breaks. A run with one part less draws other chances from there on, so it may pass although the
//! part has nothing to do with the failure: what is left is *enough* to see the law broken, not all of it is needed.

use std::time::Duration;

use crate::options::{Options, Overrides};
use crate::parts::Part;
use crate::report::Report;
use crate::run;

/// The least that was found to break the law.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What the seed is to be run with.
    pub overrides: Overrides,
    /// The parts that were taken away and had been there.
    pub without: Vec<Part>,
    /// The run with that.
    pub report: Report,
    /// Runs that it took.
    pub runs: u64,
}

/// Shrinks a failing seed; none if it passes. `tried` hears of each change that stays.
pub fn shrink(seed: u64, overrides: &Overrides, mut tried: impl FnMut(&str)) -> Option<Shrunk> {
    let report = run(seed, overrides);
    let law = law_of(&report)?;
    let mut shrunk = Shrunk { overrides: overrides.clone(), without: Vec::new(), report, runs: 1 };
    let mut attempt = |shrunk: &mut Shrunk, overrides: Overrides, what: String| {
        shrunk.runs += 1;
        let report = run(seed, &overrides);
        let breaks = law_of(&report).as_deref() == Some(law.as_str());
        if breaks {
            tried(&what);
            (shrunk.overrides, shrunk.report) = (overrides, report);
        }
        breaks
    };
    for part in Part::ALL {
        let mut without = shrunk.overrides.clone();
        without.without.push(part);
        let changes = Options::draw(seed, &without) != Options::draw(seed, &shrunk.overrides);
        if changes && attempt(&mut shrunk, without, format!("without {part}")) {
            shrunk.without.push(part);
        }
    }
    for smaller in [set_groups, set_cores, set_clients, set_nodes] {
        let mut overrides = shrunk.overrides.clone();
        smaller(&mut overrides);
        if Options::draw(seed, &overrides) != Options::draw(seed, &shrunk.overrides) {
            let what = format!("{}", Size(&Options::draw(seed, &overrides)));
            attempt(&mut shrunk, overrides, what);
        }
    }
    // As long as the failure comes in the phase with faults, what follows it is not needed.
    for percent in [50, 75, 90] {
        let duration = shrunk.report.options.duration * percent / 100;
        let shorter = Overrides { duration: Some(whole_millis(duration)), ..shrunk.overrides.clone() };
        attempt(&mut shrunk, shorter, format!("a phase with faults of {duration:?}"));
    }
    Some(shrunk)
}

fn set_groups(overrides: &mut Overrides) {
    overrides.groups = Some(1);
}

fn set_cores(overrides: &mut Overrides) {
    overrides.cores = Some(1);
}

fn set_clients(overrides: &mut Overrides) {
    overrides.clients = Some(1);
}

fn set_nodes(overrides: &mut Overrides) {
    overrides.nodes = Some(3);
}

/// A command line counts in milliseconds.
fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}

/// The name of the law that broke, without the particulars.
fn law_of(report: &Report) -> Option<String> {
    let violation = report.violation.as_ref()?;
    let text = violation.broken.to_string();
    Some(text.split(':').next().unwrap_or_default().to_string())
}

struct Size<'a>(&'a Options);

impl std::fmt::Display for Size<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Options { nodes, cores, groups, client, .. } = self.0;
        write!(f, "nodes {nodes}, cores {cores}, groups {groups}, clients {}", client.clients)
    }
}

impl Shrunk {
    /// The arguments that replay it.
    pub fn arguments(&self) -> String {
        let Overrides { nodes, cores, groups, clients, duration, without, .. } = &self.overrides;
        let mut line = format!("--seed {}", self.report.options.seed);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                line.push_str(&format!(" --{name} {value}"));
            }
        };
        add("nodes", nodes.map(|it| it.to_string()));
        add("cores", cores.map(|it| it.to_string()));
        add("groups", groups.map(|it| it.to_string()));
        add("clients", clients.map(|it| it.to_string()));
        add("duration-ms", duration.map(|it| it.as_millis().to_string()));
        let parts: Vec<&str> = without.iter().map(|part| part.name()).collect();
        add("without", (!parts.is_empty()).then(|| parts.join(",")));
        add("drift-ppm", self.overrides.drift_ppm.map(|it| it.to_string()));
        if self.overrides.old_images {
            line.push_str(" --old-images");
        }
        if self.overrides.changes {
            line.push_str(" --changes");
        }
        if self.overrides.quorum_loss {
            line.push_str(" --quorum-loss");
        }
        if self.overrides.leases {
            line.push_str(" --leases");
        }
        if self.overrides.long_leases {
            line.push_str(" --long-leases");
        }
        line
    }
}
