//! A start with another number of cores: the groups move to as many new logs, and the old logs retire.
//!
//! Which core owns a group is a pure function of the group and the number of cores, so with another number nearly every
//! group has another core and needs another log. This is done while nothing of the node acts, in steps:
//!
//! ```text
//! begin    open all listed logs (one that is missing or refused ends the start), name the new logs in the node file
//! fill     make one new log for each core, write all that its groups are into it, sync it, close it
//! commit   one write of the node file: it lists the new logs, and the old ones are retired
//!          then an ordinary start: open what is listed, remove the directories of what is retired, act
//! ```
//!
//! # Why nothing is lost or revived
//!
//! The node file lists either all old logs or all new ones, and whatever it lists is whole: the old logs are only read
//! until the commit, and the new ones are complete, durable and closed before it. So a crash at any point leaves a node
//! that has not moved or one that has moved, never a mixture. Laws 15 and 16 ask for this:
//!
//! - Records of one group in two logs are never compared. Only what is listed is ever read, and each group stands in
//!   exactly one listed log; a group found in two refuses the start. A marker in the log for each group that leaves or
//!   comes is therefore not needed: the one write of the node file is the marker of all of them.
//! - A log whose group has left never comes back. Its uuid is retired in the node file, in both slots before anything
//!   acts, uuids are drawn anew each time, and a directory is never used twice.
//! - A new log that is lost after the commit is a listed log that is missing: it refuses the start and is not taken for
//!   an empty one.
//! - What a crash leaves of logs that were being made is named in the node file before it is made, so it is known as
//!   this node's and as nobody's, and is removed at the next start. Other directories are left alone. Removal comes
//!   after all listed logs have been opened, so a node file put back from a backup cannot order the removal of logs
//!   that are in use.
//!
//! What moves with a group: replica and descriptor, term and vote, what was compacted, all entries; and the tombstones
//! of groups that were removed (law 11). The incarnations of the new logs begin above those of all old ones, so a core
//! never shows its peers an incarnation that it had before. Entries are copied in writes of at most
//! [`WRITE_BYTES_MAX`], one group after the other; what is held in memory does not depend on the size of the logs. The
//! disk holds both sets of logs for a while.
//!
//! A payload or a vote that the disk has lost refuses the move: its repair needs the peers, and a copy of the loss would
//! look like the truth. The node then starts with the number of cores that it had.
//!
//! # Left out
//!
//! Moving single groups between cores of a running node. Nodes of one cluster with different numbers of cores: a core
//! talks to the core of the same number, so all nodes are stopped and all are started with the new number.

mod fill;

use std::collections::{BTreeMap, BTreeSet};

use pontoon_router::core_of;
use pontoon_types::{CoreId, GroupId, Incarnation, ReplicaId};
use pontoon_wal::{Log, LogIdentity, Options, Recovered, RecoveredGroup};

use crate::error::{DataDirError, StartError};
use crate::identity::DataDir;
use crate::recover::{open_log, with_each_log};

pub use fill::WRITE_BYTES_MAX;

/// Gives the node `cores` logs, if it has another number of them.
pub fn rehome(data_dir: &mut DataDir, options: &Options, cores: u16) -> Result<(), StartError> {
    if data_dir.identity().logs.len() == usize::from(cores) {
        return Ok(());
    }
    let mut rehoming = Rehoming::begin(data_dir, options, cores)?;
    loop {
        match rehoming.fill_next() {
            Ok(true) => {}
            Ok(false) => return rehoming.commit(),
            Err(error) => {
                rehoming.abandon();
                return Err(error);
            }
        }
    }
}

/// A move of all groups on its way. Dropping it leaves the node as a crash would: not moved.
///
/// Invariants: the old logs are not written to; `new` are the names of the new logs by core, of which the first `filled`
/// are whole and durable.
pub struct Rehoming<'a> {
    data_dir: &'a mut DataDir,
    options: Options,
    old: Vec<Log>,
    homes: Vec<Home>,
    new: Vec<u128>,
    filled: usize,
    /// The highest incarnation of the old logs.
    above: Incarnation,
}

/// Everything that one new log will hold.
#[derive(Debug, Default)]
struct Home {
    tombstones: BTreeMap<GroupId, ReplicaId>,
    groups: Vec<Resident>,
}

/// A group that moves.
#[derive(Debug)]
struct Resident {
    group: GroupId,
    /// The old log that holds it, by its place in the list.
    from: usize,
    kept: RecoveredGroup,
}

impl<'a> Rehoming<'a> {
    /// Opens all logs of the node, decides where each group goes, and names the logs to be made.
    pub fn begin(data_dir: &'a mut DataDir, options: &Options, cores: u16) -> Result<Rehoming<'a>, StartError> {
        let opened = with_each_log(data_dir, |core| open_log(data_dir, options, core))?;
        // Now that all listed logs are there: what an earlier attempt left behind.
        data_dir.remove_retired()?;
        let (old, recovered): (Vec<Log>, Vec<Recovered>) = opened.into_iter().unzip();
        let (have, groups) = (old.len() as u16, recovered.iter().map(|log| log.groups.len()).sum::<usize>());
        let homes = match homes(recovered, cores) {
            Ok(homes) => homes,
            Err(why) => {
                close(old);
                return Err(StartError::Rehome { have, wanted: cores, why });
            }
        };
        let above = old.iter().map(Log::incarnation).max().unwrap_or_default();
        // What a log holds, a new one must be able to hold: no write fits a smaller segment for sure.
        let segment_bytes = old.iter().map(Log::segment_bytes).max().unwrap_or(options.segment_bytes);
        let options = Options { segment_bytes, ..options.clone() };
        let new = (0..cores).map(|_| draw_uuid()).collect::<Result<Vec<_>, _>>()?;
        data_dir.announce_logs(&new)?;
        tracing::info!("the node has {have} logs and {cores} cores: moving {groups} groups to {cores} new logs");
        Ok(Rehoming { data_dir, options, old, homes, new, filled: 0, above })
    }

    /// Makes the new log of the next core, whole and durable. False when there is none left to make.
    pub fn fill_next(&mut self) -> Result<bool, StartError> {
        let Some(log) = self.new.get(self.filled).copied() else { return Ok(false) };
        let core = CoreId(self.filled as u16);
        let identity = self.data_dir.identity();
        let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log };
        let dir = self.data_dir.log_dir(log);
        let failed = |source| StartError::Log { core, source };
        Log::create_above(&dir, whose, &self.options, self.above).map_err(failed)?;
        let (log, _) = Log::open(&dir, whose, &self.options).map_err(failed)?;
        let home = std::mem::take(&mut self.homes[self.filled]);
        fill::fill(core, log, &home, &mut self.old).map_err(|error| match error {
            fill::Failure::Start(error) => error,
            fill::Failure::Refused(why) => {
                StartError::Rehome { have: self.old.len() as u16, wanted: self.new.len() as u16, why }
            }
        })?;
        self.filled += 1;
        Ok(true)
    }

    /// The new logs count from here on. All of them have been filled.
    pub fn commit(self) -> Result<(), StartError> {
        assert_eq!(self.filled, self.new.len(), "law 16: a log is listed when it is whole");
        close(self.old);
        self.data_dir.replace_logs(self.new)?;
        Ok(())
    }

    /// Gives up before the commit: the old logs count, and what was made is removed.
    pub fn abandon(self) {
        close(self.old);
        if let Err(error) = self.data_dir.remove_retired() {
            tracing::warn!("{error}; what was made of the new logs stays there until the next start");
        }
    }
}

/// Marks the stop of logs to which nothing was written. One that cannot be marked is recovered as after a crash.
fn close(logs: Vec<Log>) {
    for log in logs {
        if let Err(error) = log.close() {
            tracing::warn!("{error}");
        }
    }
}

/// What each core of `cores` will hold. The error says why a group cannot move.
fn homes(logs: Vec<Recovered>, cores: u16) -> Result<Vec<Home>, String> {
    let have = logs.len();
    let mut homes: Vec<Home> = (0..cores).map(|_| Home::default()).collect();
    let mut seen = BTreeSet::new();
    for (from, log) in logs.into_iter().enumerate() {
        for (group, replica) in log.tombstones {
            let dead = homes[place(group, cores)].tombstones.entry(group).or_insert(replica);
            *dead = (*dead).max(replica);
        }
        for (group, kept) in log.groups {
            if !seen.insert(group) {
                return Err(format!("{group} stands in two of its logs (law 15); keep the files and report it"));
            }
            if kept.vote_lost {
                return Err(format!(
                    "the disk has lost the term and vote of {group}, and a copy would look like the truth; start with \
                     {have} cores and replace this replica first"
                ));
            }
            homes[place(group, cores)].groups.push(Resident { group, from, kept });
        }
    }
    Ok(homes)
}

fn place(group: GroupId, cores: u16) -> usize {
    usize::from(core_of(group, cores).0)
}

/// A name for a log that no other log has.
pub(crate) fn draw_uuid() -> Result<u128, DataDirError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| DataDirError::io("/dev/urandom".as_ref(), "read", std::io::Error::other(error.to_string())))?;
    Ok(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pontoon_types::{HardState, Index, LogId};

    use super::*;

    fn log(groups: &[(u64, bool)], tombstones: &[(u64, u64)]) -> Recovered {
        let kept = |vote_lost| RecoveredGroup {
            replica: ReplicaId(1),
            descriptor: Bytes::new(),
            hard_state: HardState::default(),
            compacted: LogId::default(),
            committed: Index(0),
            last: LogId::default(),
            vote_lost,
        };
        Recovered {
            groups: groups.iter().map(|(group, lost)| (GroupId(*group), kept(*lost))).collect(),
            tombstones: tombstones.iter().map(|(group, dead)| (GroupId(*group), ReplicaId(*dead))).collect(),
            torn_tail: None,
            clean: true,
            segments: 1,
            footers: 0,
            checkpoint_unreadable: None,
            resumed: true,
            rewritten: false,
            read_past_cache: true,
        }
    }

    #[test]
    fn each_group_and_tombstone_goes_to_the_core_of_its_number() {
        let logs = vec![log(&[(2, false), (4, false)], &[(9, 3)]), log(&[(3, false), (5, false)], &[(9, 5), (7, 1)])];
        let homes = homes(logs, 3).unwrap();
        assert_eq!(homes.len(), 3);
        for (core, home) in (0..).map(CoreId).zip(&homes) {
            assert!(home.groups.iter().all(|resident| core_of(resident.group, 3) == core), "{homes:?}");
            assert!(home.tombstones.keys().all(|group| core_of(*group, 3) == core), "{homes:?}");
        }
        let mut moved: Vec<_> = homes.iter().flat_map(|home| &home.groups).map(|it| (it.group.0, it.from)).collect();
        moved.sort_unstable();
        assert_eq!(moved, [(2, 0), (3, 1), (4, 0), (5, 1)]);
        let dead: BTreeMap<_, _> =
            homes.iter().flat_map(|home| &home.tombstones).map(|(id, it)| (id.0, it.0)).collect();
        assert_eq!(dead, BTreeMap::from([(7, 1), (9, 5)]));
    }

    #[test]
    fn a_lost_vote_and_a_group_in_two_logs_do_not_move() {
        let why = homes(vec![log(&[(2, false)], &[]), log(&[(3, true)], &[])], 1).unwrap_err();
        assert!(why.contains("vote of g3") && why.contains("start with 2 cores"), "{why}");
        let why = homes(vec![log(&[(2, false)], &[]), log(&[(2, false)], &[])], 1).unwrap_err();
        assert!(why.contains("g2 stands in two"), "{why}");
    }
}
