//! From the logs and the checkpoints of a node to the groups of its cores.
//!
//! All listed logs are opened before any core acts (law 16), each on its own thread, because recovery reads the disk
//! and that takes time in proportion to the log.

use pontoon_multiraft::{GroupState, Identities};
use pontoon_router::{RoutingTable, initial_descriptors};
use pontoon_types::{CoreId, Descriptor, GroupId, LogId, NodeId, ReplicaId};
use pontoon_wal::{Log, LogIdentity, Options, Recovered, RecoveredGroup, SurveyedGroup};

use crate::descriptor_record;
use crate::error::{DataDirError, StartError};
use crate::identity::{DataDir, Identity};
use crate::store::recover::{Checkpoints, Found};

/// The log of one core and what it kept.
pub struct RecoveredCore {
    /// The log, open and owned by this process.
    pub log: Log,
    /// The groups of the core.
    pub groups: Vec<GroupState>,
    /// The highest dead replica of each group that has one here.
    pub tombstones: Vec<(GroupId, ReplicaId)>,
    /// Groups with the checkpoint of a replica that the log does not hold.
    pub orphans: Vec<GroupId>,
    /// Whether the log was read from the disk itself.
    read_past_cache: bool,
}

/// Opens all logs of a node.
pub fn recover(data_dir: &DataDir, options: &Options, store: &Checkpoints) -> Result<Vec<RecoveredCore>, StartError> {
    let cores = with_each_log(data_dir, |core| recover_core(data_dir, options, store, core))?;
    if let Some(warning) = cache_warning(cores.iter().map(|core| core.read_past_cache)) {
        tracing::warn!("{warning}");
    }
    Ok(cores)
}

/// Does something with each log that is listed, all at the same time, if none of them is missing (law 16).
pub fn with_each_log<T: Send>(
    data_dir: &DataDir,
    open: impl Fn(CoreId) -> Result<T, StartError> + Sync,
) -> Result<Vec<T>, StartError> {
    let identity = data_dir.identity();
    for log in &identity.logs {
        let path = data_dir.log_dir(*log);
        if !path.is_dir() {
            return Err(DataDirError::MissingLog { path }.into());
        }
    }
    let open = &open;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..identity.logs.len() as u16).map(|core| scope.spawn(move || open(CoreId(core)))).collect();
        threads
            .into_iter()
            .zip(0..)
            .map(|(thread, core)| {
                thread.join().unwrap_or_else(|_| {
                    Err(StartError::Core { core: CoreId(core), why: "its recovery broke a law".to_string() })
                })
            })
            .collect()
    })
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
        if let Some(checkpoint) = &group.checkpoint {
            table.accept(checkpoint.meta.descriptor.clone());
        }
    }
    table.iter().cloned().collect()
}

/// Opens the log that is listed for a core.
pub fn open_log(data_dir: &DataDir, options: &Options, core: CoreId) -> Result<(Log, Recovered), StartError> {
    let identity = data_dir.identity();
    let log = identity.logs[usize::from(core.0)];
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log };
    let opened = Log::open(&data_dir.log_dir(log), whose, options);
    let (log, recovered) = opened.map_err(|source| StartError::Log { core, source })?;
    if let Some(torn) = &recovered.torn_tail {
        tracing::info!(%core, "an unfinished write at the end of the log was left out: {torn:?}");
    }
    Ok((log, recovered))
}

fn recover_core(
    data_dir: &DataDir,
    options: &Options,
    store: &Checkpoints,
    core: CoreId,
) -> Result<RecoveredCore, StartError> {
    let identity = data_dir.identity();
    let path = data_dir.log_dir(identity.logs[usize::from(core.0)]);
    let (mut log, recovered) = open_log(data_dir, options, core)?;
    let Recovered { groups, tombstones, read_past_cache, .. } = recovered;
    let mut orphans = Vec::new();
    let groups = groups
        .into_iter()
        .map(|(group, kept)| {
            let descriptor = descriptor_record::decode(&kept.descriptor)
                .filter(|descriptor| descriptor.replica_on(identity.node).is_some())
                .ok_or_else(|| DataDirError::Descriptor { path: path.clone(), group })?;
            let surveyed = log.survey(group).map_err(|source| StartError::Read { core, source })?;
            let mut state = group_state(core, descriptor, &kept, surveyed);
            match store.restore(group, kept.replica)? {
                Found::Whole(checkpoint) => state.checkpoint = Some(*checkpoint),
                Found::OfAnother => orphans.push(group),
                Found::Nothing => {}
            }
            Ok(state)
        })
        .collect::<Result<Vec<_>, StartError>>()?;
    Ok(RecoveredCore { log, groups, tombstones: tombstones.into_iter().collect(), orphans, read_past_cache })
}

/// What the log kept of one group, with what it has lost. Payloads stay in the log until somebody needs them.
fn group_state(core: CoreId, descriptor: Descriptor, kept: &RecoveredGroup, surveyed: SurveyedGroup) -> GroupState {
    let SurveyedGroup { starts, configurations, lost } = surveyed;
    if let Some(loss) = loss(&descriptor, &lost, kept.vote_lost) {
        tracing::error!(%core, "{loss}");
    }
    let last = starts.last().map(|_| kept.last.index).unwrap_or_default();
    GroupState {
        compacted: kept.compacted,
        committed: kept.committed,
        older: Identities { starts, last },
        configurations,
        lost: lost.iter().map(|id| id.index).collect(),
        vote_lost: kept.vote_lost,
        ..GroupState::new(descriptor, kept.hard_state, Vec::new())
    }
}

/// What an operator has to know of a group that the disk has damaged.
fn loss(descriptor: &Descriptor, lost: &[LogId], vote_lost: bool) -> Option<String> {
    const SHOWN: usize = 8;
    let group = descriptor.group;
    let mut parts = Vec::new();
    if !lost.is_empty() {
        let shown = lost.iter().take(SHOWN).map(LogId::to_string);
        let more = if lost.len() > SHOWN { ", and more" } else { "" };
        parts.push(format!(
            "the payloads of {} entries are rotten ({}{more}): the group follows until its leader has sent them again",
            lost.len(),
            shown.collect::<Vec<_>>().join(", "),
        ));
    }
    if vote_lost {
        let what = "its term and vote are lost: it follows and never votes again; replace this replica".to_string();
        parts.push(what);
    }
    (!parts.is_empty()).then(|| format!("the disk has damaged {group}: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use pontoon_types::{Index, Term};

    use super::*;

    #[test]
    fn a_log_read_through_the_cache_is_warned_of_once() {
        assert_eq!(cache_warning([true, true].into_iter()), None);
        assert!(cache_warning([true, false, false].into_iter()).is_some_and(|text| text.contains("O_DIRECT")));
    }

    #[test]
    fn what_the_disk_has_damaged_is_named() {
        let descriptor = initial_descriptors(1, &[NodeId(1)]).remove(0);
        let id = |index| LogId::new(Index(index), Term(3));
        assert_eq!(loss(&descriptor, &[], false), None);
        assert!(loss(&descriptor, &[id(7)], false).is_some_and(|text| text.contains("1 entries are rotten (7@3)")));
        let lost: Vec<LogId> = (2..=12).map(id).collect();
        let text = loss(&descriptor, &lost, true).unwrap();
        assert!(text.contains("2@3") && text.contains("9@3, and more") && text.contains("vote are lost"), "{text}");
    }
}
