//! What a disk must hold, whatever became of it: the judge over the real log.
//!
//! The oracle is told of every append, of every group of records that is handed to the disk, and of every sync that was
//! reported as finished. It knows nothing of files or formats. When the log was opened again, what it recovered must be
//! one of the states that the promises of the log allow:
//!
//! - everything that a finished sync reported is there;
//! - behind that, the group of records that was on its way when the machine stopped survives as a whole or not at all;
//!   when nobody knows how the log divided what it was given, any number of whole appends, the oldest first;
//! - what was never handed to the disk is not there.
//!
//! What survived counts as durable from then on, because recovery makes it so before it returns (law 17).
//!
//! It also remembers which payloads are rotten: durable, and gone until a durable write has brought them back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use pontoon_multiraft::CoreWrite;
use pontoon_types::{CoreWriteNumber, Entry, GroupId, HardState, Index, LogId, ReplicaId};

use crate::replica_log::ReplicaLog;

/// One replica as the log under test recovered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundReplica {
    /// Term and vote.
    pub hard_state: HardState,
    /// What was given up.
    pub compacted: LogId,
    /// The replica.
    pub replica: ReplicaId,
    /// The entries behind what was given up.
    pub entries: Vec<Entry>,
    /// The entries whose payload it reports as lost.
    pub lost: Vec<Index>,
    /// It reports that the term and vote may be older than what was written.
    pub vote_lost: bool,
}

impl FoundReplica {
    /// Whether it is what `log` says, as far as it claims to be.
    fn is(&self, log: &ReplicaLog) -> bool {
        let same =
            |(one, other): (&Entry, &Entry)| one.id == other.id && (one == other || self.lost.contains(&one.id.index));
        let vote = if self.vote_lost {
            self.hard_state.term <= log.hard_state.term
        } else {
            self.hard_state == log.hard_state
        };
        let begins = self.compacted == log.compacted && self.replica == log.replica;
        vote && begins && self.entries.len() == log.entries.len() && self.entries.iter().zip(&log.entries).all(same)
    }
}

/// What was handed to the disk and not reported as finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// One group of records that ends with this append.
    Whole(CoreWriteNumber),
    /// Some groups of records, divided nobody knows where.
    Parts,
}

/// A promise of the log that a run has seen broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLaw {
    /// What a finished sync reported is there.
    DurableSurvives,
    /// A group of records survives as a whole or not at all, and nothing else appears.
    WholeGroups,
    /// Damage to what was durable is refused or reported.
    CorruptionIsReported,
    /// A log that nothing has damaged opens.
    IntactLogOpens,
    /// Each open has a higher incarnation.
    IncarnationGrows,
    /// A sync answers for exactly what was handed to the disk before it.
    OneNumberAnswers,
}

impl fmt::Display for LogLaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLaw::DurableSurvives => "durable writes survive",
            LogLaw::WholeGroups => "groups of records survive whole",
            LogLaw::CorruptionIsReported => "corruption is reported",
            LogLaw::IntactLogOpens => "an intact log opens",
            LogLaw::IncarnationGrows => "incarnations of a log grow",
            LogLaw::OneNumberAnswers => "one number answers for everything up to it (law 13)",
        })
    }
}

/// What became of the appends that no finished sync had reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// They are durable now.
    pub kept: u64,
    /// They are gone.
    pub lost: u64,
}

/// What the log of one core must hold.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    durable: BTreeMap<GroupId, ReplicaLog>,
    /// What is durable of a group that is not there.
    nothing: ReplicaLog,
    /// The highest replica that was removed, by group.
    pub(crate) tombstones: BTreeMap<GroupId, ReplicaId>,
    /// Appended and not reported as durable.
    pending: VecDeque<CoreWrite>,
    flight: Option<Flight>,
    /// By entry, whether its core was told when it started and not later.
    rotten: BTreeMap<(GroupId, Index), bool>,
    /// Groups whose vote is lost.
    pub(crate) voteless: BTreeSet<GroupId>,
    /// Rotten payloads that came back.
    pub(crate) restored: u64,
}

impl Oracle {
    /// A log with these groups created.
    pub fn new(replica: ReplicaId, groups: impl Iterator<Item = GroupId>) -> Oracle {
        Oracle { durable: groups.map(|group| (group, ReplicaLog::new(replica))).collect(), ..Oracle::default() }
    }

    /// A log that holds just this.
    pub(crate) fn holding(
        durable: BTreeMap<GroupId, ReplicaLog>,
        tombstones: BTreeMap<GroupId, ReplicaId>,
        voteless: BTreeSet<GroupId>,
    ) -> Oracle {
        Oracle { durable, tombstones, voteless, ..Oracle::default() }
    }

    /// What is durable of `group`.
    pub fn durable(&self, group: GroupId) -> &ReplicaLog {
        self.durable.get(&group).unwrap_or(&self.nothing)
    }

    /// How many appends no finished sync has reported.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// All groups of the log.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.durable.keys().copied()
    }

    /// The payload of a durable entry is gone. `at_start` says that its core does not have it either.
    pub fn rot(&mut self, group: GroupId, index: Index, at_start: bool) {
        self.rotten.insert((group, index), at_start);
    }

    /// The entries of a group whose payload is gone.
    pub fn rotten(&self, group: GroupId) -> impl Iterator<Item = Index> + '_ {
        self.rotten.range((group, Index(0))..=(group, Index(u64::MAX))).map(|((_, index), _)| *index)
    }

    /// The first entry of a group whose payload was gone when its core started, and still is.
    pub fn first_missing(&self, group: GroupId) -> Option<Index> {
        let mut of_group = self.rotten.range((group, Index(0))..=(group, Index(u64::MAX)));
        of_group.find(|(_, at_start)| **at_start).map(|((_, index), _)| *index)
    }

    /// Takes one append. Nothing of it is on the disk.
    pub fn append(&mut self, write: CoreWrite) {
        self.pending.push_back(write);
    }

    /// The log hands everything up to `through` to the disk as one group of records.
    pub fn hands_over(&mut self, through: CoreWriteNumber) {
        self.flight = Some(Flight::Whole(through));
    }

    /// The log has handed something over and failed, or is being closed: how far it came is not known.
    pub fn hands_over_some(&mut self) {
        self.flight = Some(Flight::Parts);
    }

    /// A sync was reported as finished, with this number.
    pub fn reported(&mut self, through: CoreWriteNumber) -> Result<(), String> {
        if self.flight.take() != Some(Flight::Whole(through)) {
            return Err(format!("reports a sync through {through}, which is not what it had handed to the disk"));
        }
        while self.pending.front().is_some_and(|write| write.number <= through) {
            self.harden();
        }
        Ok(())
    }

    /// The log was opened again and holds this. `clean` says that the log calls its last stop a clean one, which then
    /// has lost nothing.
    pub fn recovered(
        &mut self,
        found: &BTreeMap<GroupId, FoundReplica>,
        clean: bool,
    ) -> Result<Survivors, (LogLaw, String)> {
        let (through, whole) = match self.flight.take() {
            None => (CoreWriteNumber(0), true),
            Some(Flight::Whole(through)) => (through, true),
            Some(Flight::Parts) => (CoreWriteNumber(u64::MAX), false),
        };
        let handed_over = self.pending.iter().take_while(|write| write.number <= through).count();
        let before = self.clone();
        for kept in 0..=handed_over {
            let legal = if clean { kept == handed_over } else { kept == 0 || kept == handed_over || !whole };
            if legal && self.holds(found) {
                let lost = std::mem::take(&mut self.pending).len() as u64;
                self.take_losses(found);
                return Ok(Survivors { kept: kept as u64, lost });
            }
            self.harden();
        }
        if clean {
            let (_, what) = before.mismatch(found, handed_over);
            return Err((LogLaw::DurableSurvives, format!("was closed, calls that a clean stop, and {what}")));
        }
        Err(before.mismatch(found, handed_over))
    }

    /// What the log reports as lost is what its cores start with; of everything else it has shown the bytes.
    fn take_losses(&mut self, found: &BTreeMap<GroupId, FoundReplica>) {
        self.rotten.clear();
        for (group, replica) in found {
            for index in &replica.lost {
                self.rot(*group, *index, true);
            }
            if let Some(log) = self.durable.get_mut(group).filter(|_| replica.vote_lost) {
                log.hard_state = replica.hard_state;
                self.voteless.insert(*group);
            }
        }
    }

    fn harden(&mut self) {
        let Some(append) = self.pending.pop_front() else { return };
        for (group, write) in &append.writes {
            if let Some(creation) = &write.create {
                self.durable.insert(*group, ReplicaLog::new(creation.replica));
            }
            let log = self.durable.get_mut(group).expect("law: a replica is created before it writes");
            // The same write was checked when it was appended; the durable log is the appended log of an earlier time.
            log.write(write).expect("law: what could be appended can be replayed");
            if let Some(from) = write.truncate_from {
                self.rotten.retain(|(of, index), _| of != group || *index < from);
            }
            if let Some(compaction) = write.compact {
                let to = compaction.to.index;
                let reset = compaction.reset;
                self.rotten.retain(|(of, index), _| of != group || !reset && *index > to);
            }
            if let Some(replica) = write.remove {
                self.durable.remove(group);
                self.tombstones.insert(*group, replica);
                self.rotten.retain(|(of, _), _| of != group);
                self.voteless.remove(group);
            }
            for entry in &write.restored {
                self.restored += u64::from(self.rotten.remove(&(*group, entry.id.index)).is_some());
            }
        }
    }

    fn holds(&self, found: &BTreeMap<GroupId, FoundReplica>) -> bool {
        self.durable.len() == found.len()
            && self.durable.iter().all(|(group, log)| found.get(group).is_some_and(|it| it.is(log)))
    }

    /// Which promise is broken, and at which group it shows.
    fn mismatch(&self, found: &BTreeMap<GroupId, FoundReplica>, handed_over: usize) -> (LogLaw, String) {
        let (hard_state, entries) = (HardState::default(), Vec::new());
        let (compacted, replica) = (LogId::default(), ReplicaId(0));
        let absent = FoundReplica { hard_state, compacted, replica, entries, lost: Vec::new(), vote_lost: false };
        let differs = |(group, log): (&GroupId, &ReplicaLog)| {
            let it = found.get(group).unwrap_or(&absent);
            let differs = !it.is(log);
            // What may have survived may have cut entries lawfully, so only what nothing could cut tells them apart.
            let kept = it.entries.iter().zip(&log.entries).take_while(|(one, other)| one == other).count();
            let cut =
                self.lowest_cut(*group, handed_over).map(|cut| cut.saturating_sub(log.compacted.index.0 as usize));
            let cut = cut.unwrap_or(log.entries.len());
            let lacks = it.hard_state.term < log.hard_state.term || kept < cut;
            differs.then(|| {
                let (last, durable) = (it.entries.last().map(|entry| entry.id).unwrap_or_default(), log.last());
                let what = format!(
                    "holds of {group} term {}, vote {:?}, last {last} and the first {kept} entries as written; durable \
                     were term {}, vote {:?}, last {durable}, and {handed_over} appends more were on their way",
                    it.hard_state.term, it.hard_state.vote, log.hard_state.term, log.hard_state.vote
                );
                (if lacks { LogLaw::DurableSurvives } else { LogLaw::WholeGroups }, what)
            })
        };
        let all: Vec<(LogLaw, String)> = self.durable.iter().filter_map(differs).collect();
        let worst = all.iter().find(|(law, _)| *law == LogLaw::DurableSurvives).or(all.first());
        let unknown = || (LogLaw::WholeGroups, "holds groups that were never created in it".to_string());
        worst.cloned().unwrap_or_else(unknown)
    }

    /// How many entries of a group every append that may have survived leaves alone.
    fn lowest_cut(&self, group: GroupId, handed_over: usize) -> Option<usize> {
        let writes = self.pending.iter().take(handed_over).flat_map(|append| &append.writes);
        let cuts = writes.filter(|(of, _)| *of == group).filter_map(|(_, write)| write.truncate_from);
        cuts.map(|from| from.previous().0 as usize).min()
    }
}
