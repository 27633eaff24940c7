//! What is proposed: one table.

use crate::named;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// Groups of three replicas. Each gets a batch in every turn.
    pub groups: u32,
    /// Proposals of a batch.
    pub batch: u32,
    /// Bytes of each proposal.
    pub payload_bytes: usize,
}

/// All workloads, in the order in which they run.
pub const WORKLOADS: [Workload; 10] = [
    Workload { name: "1-16", groups: 1, batch: 1, payload_bytes: 16 },
    Workload { name: "64-16", groups: 1, batch: 64, payload_bytes: 16 },
    Workload { name: "256-16", groups: 1, batch: 256, payload_bytes: 16 },
    Workload { name: "1024-16", groups: 1, batch: 1024, payload_bytes: 16 },
    Workload { name: "1-256", groups: 1, batch: 1, payload_bytes: 256 },
    Workload { name: "64-256", groups: 1, batch: 64, payload_bytes: 256 },
    Workload { name: "256-256", groups: 1, batch: 256, payload_bytes: 256 },
    Workload { name: "1024-256", groups: 1, batch: 1024, payload_bytes: 256 },
    Workload { name: "groups-16", groups: 64, batch: 1, payload_bytes: 16 },
    Workload { name: "groups-256", groups: 64, batch: 1, payload_bytes: 256 },
];

/// Finds a workload by its name.
pub fn parse(name: &str) -> Result<Workload, String> {
    named::find(&WORKLOADS, |workload| workload.name, name)
}

/// What to run for a list of names: each once, in the order of the table; all of them when none is named.
pub fn chosen(named: &[Workload]) -> Vec<Workload> {
    WORKLOADS.into_iter().filter(|workload| named.is_empty() || named.contains(workload)).collect()
}
