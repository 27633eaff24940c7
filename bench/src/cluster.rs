//! Nodes inside this process: each with its own data directory, port, log and pinned cores, on the real disk and over
//! real TCP on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use pontoon::{InitPlan, LogOptions, Node, NodeConfig, NodeId, init};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::args::ClusterArgs;
use crate::data_dir::DataDir;
use crate::error::{BenchError, ENVIRONMENT, INTERNAL};

/// A cluster that is initialised, and runs between start and stop.
pub struct Cluster {
    dir: DataDir,
    nodes: Vec<Node>,
    data_dirs: Vec<PathBuf>,
    addresses: Vec<SocketAddr>,
    cores: u16,
}

impl Cluster {
    /// Initialises all nodes in a new directory and starts them.
    pub fn start(args: &ClusterArgs) -> Result<Cluster, BenchError> {
        let dir = match &args.data_dir {
            Some(path) => DataDir::named(path)?,
            None => DataDir::temporary("--data-dir")?,
        };
        let addresses = free_addresses(args.nodes)?;
        let data_dirs: Vec<PathBuf> = (1..=args.nodes).map(|node| dir.path().join(format!("n{node}"))).collect();
        let nodes = (1..).map(NodeId).zip(&data_dirs).zip(&addresses);
        let plan = InitPlan {
            nodes: nodes.map(|((node, dir), address)| (node, dir.clone(), *address)).collect(),
            ranges: args.groups,
            cores: args.cores,
            log: LogOptions::default(),
        };
        init(&plan).map_err(|error| BenchError::new(error.exit_code(), error.to_string()))?;
        let mut cluster = Cluster { dir, nodes: Vec::new(), data_dirs, addresses, cores: args.cores };
        cluster.start_nodes()?;
        Ok(cluster)
    }

    /// Starts all nodes from what is on the disk.
    pub fn start_nodes(&mut self) -> Result<(), BenchError> {
        assert!(self.nodes.is_empty(), "nodes are stopped before they are started again");
        for (place, data_dir) in self.data_dirs.iter().enumerate() {
            let mut config = NodeConfig::new(data_dir);
            // All nodes share one machine here, and no processor is the best for all of them.
            config.first_cpu = Some(place * usize::from(self.cores));
            let node = Node::start(config).map_err(|error| BenchError::new(error.exit_code(), error.to_string()))?;
            self.nodes.push(node);
        }
        Ok(())
    }

    /// Stops all nodes. The error is that of the first core that had failed by itself.
    pub fn stop_nodes(&mut self) -> Result<(), BenchError> {
        let mut result = Ok(());
        for node in self.nodes.drain(..) {
            if let Err(failure) = node.stop() {
                result = result.and(Err(BenchError::new(INTERNAL, failure.to_string())));
            }
        }
        result
    }

    /// Where the nodes listen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The directory that holds the nodes' directories.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The place in turn after all cores of all nodes, for the client's thread.
    pub fn client_place(&self) -> usize {
        self.data_dirs.len() * usize::from(self.cores)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The nodes end before their directory goes.
        self.nodes.clear();
    }
}

/// The thread's own processor, for as long as this lives.
pub struct Pin {
    before: Option<CpuSet>,
}

impl Pin {
    /// Pins the calling thread to the processor at this place in turn, as this benchmark's nodes do with their cores.
    pub fn to(place: usize) -> Pin {
        let before = sched_getaffinity(None).ok();
        let allowed: Vec<usize> =
            before.iter().flat_map(|set| (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu))).collect();
        Pin::to_processor(allowed.get(place % allowed.len().max(1)).copied())
    }

    /// Pins the calling thread to one processor, if there is one to keep to.
    pub fn to_processor(cpu: Option<usize>) -> Pin {
        let before = sched_getaffinity(None).ok();
        if let Some(cpu) = cpu {
            let mut set = CpuSet::new();
            set.set(cpu);
            // A thread that may not choose its processor measures a little more noise, and nothing wrong.
            let _ = sched_setaffinity(None, &set);
        }
        Pin { before }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(None, before);
        }
    }
}

/// Ports that nobody listens at. They are held until all are known, so that they differ.
pub fn free_addresses(count: u16) -> Result<Vec<SocketAddr>, BenchError> {
    let fail = |error: std::io::Error| BenchError::new(ENVIRONMENT, format!("no free port on loopback: {error}"));
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>();
    listeners.and_then(|all| all.iter().map(TcpListener::local_addr).collect()).map_err(fail)
}
