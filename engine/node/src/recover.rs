//! From the logs of a node to the groups of its cores.
//!
//! All listed logs are opened before any core acts (law 16), each on its own thread, because recovery reads the disk
//! and that takes time in proportion to the log.

use pontoon_multiraft::GroupState;
use pontoon_router::{RoutingTable, initial_descriptors};
use pontoon_types::{CoreId, Descriptor, NodeId};
use pontoon_wal::{Log, LogIdentity, Options, Recovered};

use crate::descriptor_record;
use crate::error::{DataDirError, StartError};
use crate::identity::{DataDir, Identity};

/// The log of one core and what it kept.
pub struct RecoveredCore {
    /// The log, open and owned by this process.
    pub log: Log,
    /// The groups of the core.
    pub groups: Vec<GroupState>,
    /// Whether the log was read from the disk itself.
    read_past_cache: bool,
}

/// Opens all logs of a node.
pub fn recover(data_dir: &DataDir, options: &Options) -> Result<Vec<RecoveredCore>, StartError> {
    let identity = data_dir.identity();
    for log in &identity.logs {
        let path = data_dir.log_dir(*log);
        if !path.is_dir() {
            return Err(DataDirError::MissingLog { path }.into());
        }
    }
    let cores: Vec<RecoveredCore> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..identity.logs.len() as u16)
            .map(|core| scope.spawn(move || recover_core(data_dir, options, CoreId(core))))
            .collect();
        threads
            .into_iter()
            .zip(0..)
            .map(|(thread, core)| {
                thread.join().unwrap_or_else(|_| {
                    Err(StartError::Core { core: CoreId(core), why: "its recovery broke a law".to_string() })
                })
            })
            .collect::<Result<_, _>>()
    })?;
    if let Some(warning) = cache_warning(cores.iter().map(|core| core.read_past_cache)) {
        tracing::warn!("{warning}");
    }
    Ok(cores)
}

/// One warning for all logs of a node: they share a file system.
fn cache_warning(mut read_past_cache: impl Iterator<Item = bool>) -> Option<&'static str> {
    let warning = "the file system of the data directory refuses O_DIRECT, so the log was read through the page cache: \
                   after a failed disk it may show what the disk does not have. Use another file system, such as ext4 \
                   or XFS";
    (!read_past_cache.all(|past| past)).then_some(warning)
}

/// All ranges of the cluster: those it was initialised with, replaced by what the logs know better.
pub fn descriptors(identity: &Identity, cores: &[RecoveredCore]) -> Vec<Descriptor> {
    let nodes: Vec<NodeId> = identity.nodes.iter().map(|(node, _)| *node).collect();
    let initial = initial_descriptors(identity.ranges, &nodes);
    let mut table = RoutingTable::new(initial).expect("law: the first descriptors cover the key space once");
    for group in cores.iter().flat_map(|core| &core.groups) {
        table.accept(group.descriptor.clone());
    }
    table.iter().cloned().collect()
}

fn recover_core(data_dir: &DataDir, options: &Options, core: CoreId) -> Result<RecoveredCore, StartError> {
    let identity = data_dir.identity();
    let uuid = identity.logs[usize::from(core.0)];
    let path = data_dir.log_dir(uuid);
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: uuid };
    let (log, recovered) = Log::open(&path, whose, options).map_err(|source| StartError::Log { core, source })?;
    if let Some(torn) = &recovered.torn_tail {
        tracing::info!(%core, "an unfinished write at the end of the log was left out: {torn:?}");
    }
    let Recovered { groups, read_past_cache, .. } = recovered;
    let groups = groups
        .into_iter()
        .map(|(group, kept)| {
            let descriptor = descriptor_record::decode(&kept.descriptor)
                .filter(|descriptor| descriptor.replica_on(identity.node).is_some())
                .ok_or_else(|| DataDirError::Descriptor { path: path.clone(), group })?;
            Ok(GroupState { descriptor, hard_state: kept.hard_state, entries: kept.entries })
        })
        .collect::<Result<Vec<_>, DataDirError>>()?;
    Ok(RecoveredCore { log, groups, read_past_cache })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_read_through_the_cache_is_warned_of_once() {
        assert_eq!(cache_warning([true, true].into_iter()), None);
        assert!(cache_warning([true, false, false].into_iter()).is_some_and(|text| text.contains("O_DIRECT")));
    }
}
