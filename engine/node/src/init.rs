//! The first start of a cluster: identities, logs and the first ranges, written into empty directories.
//!
//! Everything is checked before anything is written. In each directory the node file comes last: without it the
//! directory is not a node's, so an initialisation that is cut short leaves nothing that could be started.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pontoon_router::{RANGES_MAX, core_of, initial_descriptors};
use pontoon_types::limits::{FRAME_BYTES_MAX, MEMBERS_MAX};
use pontoon_types::{ClusterId, CoreId, Creation, Descriptor, GroupId, Incarnation, NodeId};
use pontoon_wal::{Log, LogIdentity};

use crate::descriptor_record;
use crate::error::{DataDirError, InitError};
use crate::identity::{DataDir, Identity, Lock, log_dir, sync_dir};

/// The most cores of a node. A core number is 16 bits, and each core needs its own log and executor.
pub const CORES_MAX: u16 = 256;

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct InitPlan {
    /// Each node with its data directory and the address it will listen at, by which the others find it.
    pub nodes: Vec<(NodeId, PathBuf, SocketAddr)>,
    /// How many ranges the key space is cut into.
    pub ranges: u32,
    /// How many cores each node has.
    pub cores: u16,
    /// Sizes of the logs.
    pub log: pontoon_wal::Options,
}

/// Initialises all nodes of a cluster and returns its identity.
pub fn init(plan: &InitPlan) -> Result<ClusterId, InitError> {
    check(plan)?;
    let locks = plan.nodes.iter().map(|(_, dir, _)| claim(dir)).collect::<Result<Vec<_>, _>>()?;
    let cluster = ClusterId(random()?);
    let nodes: Vec<NodeId> = plan.nodes.iter().map(|(node, _, _)| *node).collect();
    let descriptors = initial_descriptors(plan.ranges, &nodes);
    for ((node, dir, _), lock) in plan.nodes.iter().zip(locks) {
        init_node(plan, cluster, *node, dir, lock, &descriptors)?;
    }
    Ok(cluster)
}

fn check(plan: &InitPlan) -> Result<(), InitError> {
    let refuse = |why: String| Err(InitError::Plan(why));
    if !(1..=MEMBERS_MAX).contains(&plan.nodes.len()) {
        return refuse(format!("a cluster has 1 to {MEMBERS_MAX} nodes, not {}", plan.nodes.len()));
    }
    if !(1..=RANGES_MAX).contains(&plan.ranges) {
        return refuse(format!("a cluster has 1 to {RANGES_MAX} ranges, not {}", plan.ranges));
    }
    let table_bytes = plan.ranges as usize * routed_bytes(plan.nodes.len());
    if table_bytes > FRAME_BYTES_MAX {
        let most = FRAME_BYTES_MAX / routed_bytes(plan.nodes.len());
        return refuse(format!(
            "a cluster of {} nodes has at most {most} ranges, not {}",
            plan.nodes.len(),
            plan.ranges
        ));
    }
    if !(1..=CORES_MAX).contains(&plan.cores) {
        return refuse(format!("a node has 1 to {CORES_MAX} cores, not {}", plan.cores));
    }
    let mut seen = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (node, dir, address) in &plan.nodes {
        if node.0 == 0 {
            return refuse("node numbers start at 1".to_string());
        }
        if address.port() == 0 || address.ip().is_unspecified() {
            return refuse(format!("{address} is not an address by which other nodes can find {node}"));
        }
        if !seen.0.insert(node) {
            return refuse(format!("{node} is named twice"));
        }
        if !seen.1.insert(dir) {
            return refuse(format!("directory {} is named twice", dir.display()));
        }
        if !seen.2.insert(address) {
            return refuse(format!("address {address} is named twice"));
        }
        look_at(dir)?;
    }
    Ok(())
}

/// What one of the first ranges takes in a routing table, which is one frame.
fn routed_bytes(members: usize) -> usize {
    64 + 16 * members
}

/// Refuses what is not a new or an empty directory.
fn look_at(dir: &Path) -> Result<(), DataDirError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(DataDirError::NotEmpty { dir: dir.to_path_buf() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(DataDirError::NotADirectory { dir: dir.to_path_buf() })
        }
        Err(source) => Err(DataDirError::io(dir, "read", source)),
    }
}

fn claim(dir: &Path) -> Result<Lock, DataDirError> {
    std::fs::create_dir_all(dir.join("logs")).map_err(|source| DataDirError::io(dir, "create", source))?;
    Lock::take(dir)
}

fn init_node(
    plan: &InitPlan,
    cluster: ClusterId,
    node: NodeId,
    dir: &Path,
    lock: Lock,
    descriptors: &[Descriptor],
) -> Result<(), InitError> {
    let mut logs = Vec::new();
    for core in (0..plan.cores).map(CoreId) {
        let log = random()?;
        let creation = |descriptor: &Descriptor| {
            let replica = descriptor.replica_on(node)?;
            Some((descriptor.group, Creation { replica, descriptor: descriptor_record::encode(descriptor) }))
        };
        let groups: Vec<(GroupId, Creation)> = descriptors
            .iter()
            .filter(|descriptor| core_of(descriptor.group, plan.cores) == core)
            .filter_map(creation)
            .collect();
        Log::create(&log_dir(dir, log), LogIdentity { cluster, node, log }, &plan.log, &groups)
            .map_err(|source| InitError::Log { node, source })?;
        logs.push(log);
    }
    sync_dir(&dir.join("logs"))?;
    let identity = Identity {
        cluster,
        node,
        incarnation: Incarnation(0),
        longest_promise: std::time::Duration::ZERO,
        ranges: plan.ranges,
        logs,
        nodes: plan.nodes.iter().map(|(node, _, address)| (*node, *address)).collect(),
        retired: Vec::new(),
    };
    DataDir::create(dir, lock, identity)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    Ok(())
}

fn random() -> Result<u128, InitError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| InitError::Random(error.to_string()))?;
    Ok(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use pontoon_wire::client::{Outcome, Reply, ReplyFrame, Routes};

    use super::*;

    /// What `check` lets through can be told to a client in one frame.
    #[test]
    fn the_largest_routing_tables_fit_into_a_frame() {
        for members in [3, MEMBERS_MAX] {
            let ranges = (FRAME_BYTES_MAX / routed_bytes(members)).min(RANGES_MAX as usize) as u32;
            let nodes: Vec<NodeId> = (1..=members as u64).map(NodeId).collect();
            let ranges = initial_descriptors(ranges, &nodes).into_iter().map(|descriptor| (descriptor, Some(nodes[0])));
            let addresses =
                nodes.iter().map(|node| (*node, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".to_string()));
            let routes = Routes { node: nodes[0], cores: 1, nodes: addresses.collect(), ranges: ranges.collect() };
            let reply = Reply { sequence: 1, result: Ok(Outcome::Routes(routes)) };
            let bytes = ReplyFrame { replies: vec![reply] }.encoded_bytes();
            assert!(bytes <= FRAME_BYTES_MAX, "{members} members: {bytes} bytes");
        }
    }
}
