//! `pontoon init`: the first start of a cluster.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use pontoon::{InitPlan, LogOptions, NodeId};

use crate::failure::{Failure, USAGE};

/// The port of a node that is alone on its machine.
const PORT: u16 = 7400;

/// Writes the identity, the addresses and the first ranges of a cluster.
#[derive(Args)]
pub struct Init {
    /// The data directory of a node, new or empty; once for each node.
    #[arg(long = "dir", required = true)]
    dirs: Vec<PathBuf>,
    /// The address by which the others find a node, once for each node in the same order. Left out: 127.0.0.1, port
    /// 7400 for one node, ports 7401, 7402, … for several.
    #[arg(long = "listen")]
    listen: Vec<SocketAddr>,
    /// How many ranges the key space is cut into, each its own group.
    #[arg(long, default_value_t = 64)]
    ranges: u32,
    /// How many cores every node has.
    #[arg(long, default_value_t = 1)]
    cores: u16,
}

impl Init {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let addresses = self.addresses()?;
        let nodes =
            self.dirs.iter().zip(&addresses).zip(1..).map(|((dir, address), id)| (NodeId(id), dir.clone(), *address));
        let plan =
            InitPlan { nodes: nodes.collect(), ranges: self.ranges, cores: self.cores, log: LogOptions::default() };
        let cluster = pontoon::init(&plan).map_err(|error| Failure::new(error.exit_code(), error.to_string()))?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "cluster {cluster}: {} nodes, {} ranges", plan.nodes.len(), plan.ranges)?;
        for (node, dir, address) in &plan.nodes {
            writeln!(out, "{node} at {address}: pontoond --data-dir {}", dir.display())?;
        }
        Ok(out.flush()?)
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let nodes = self.dirs.len();
        if self.listen.is_empty() {
            let first = if nodes == 1 { PORT } else { PORT + 1 };
            let ports = (first..).take(nodes);
            return Ok(ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect());
        }
        if self.listen.len() != nodes {
            let given = self.listen.len();
            let line =
                format!("{nodes} directories and {given} addresses; give --listen once for each --dir, or never");
            return Err(Failure::new(USAGE, line));
        }
        Ok(self.listen.clone())
    }
}
