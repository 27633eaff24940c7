//! Makes a log that can be opened from one that cannot.
//!
//! A log with damage that no second copy makes good is refused as a whole, because going on with a part of it could break
//! what its replicas have promised. [`Repair`] saves the rest, and makes sure that nobody relies on what is missing:
//!
//! 1. Everything that can be read is read, past the cache ([`crate::inspect`]). [`Repair::plan`] says what would be kept
//!    and what each Raft group would lose; nothing is changed yet.
//! 2. [`Repair::carry_out`] writes it as a new log beside the old one, makes it durable, and lets the two directories
//!    change their names. The damaged one is kept as `LOG.damaged-1`, or with the next free number.
//!
//! A crash leaves the old log in its place or the new one, and a second run goes on from there.
//!
//! A replica that may have lost a vote or entries is marked `VOTE_LOST`: it follows its leader, which gives it what it
//! lacks, and does not vote. The new log has the identity of the old one and a higher incarnation.
//!
//! Left out: rotten payloads. They are copied as they are, known by their names, and peers give them back.

pub(crate) mod fold;
pub(crate) mod rebuild;

use std::path::{Path, PathBuf};

use pontoon_types::{GroupId, HardState, Incarnation, Index, LogId, ReplicaId};

use self::fold::{Fold, KeptGroup};
use self::rebuild::rebuild;
use crate::file::{Directory, swap};
use crate::inspect::layout::Layout;
use crate::inspect::walk::range;
use crate::inspect::{Loss, Unreadable, Verdict, verify};
use crate::open::lock;
use crate::storage::Storage;
use crate::{LogError, LogIdentity, Options};

/// What would become of one Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupId,
    /// Its replica.
    pub replica: ReplicaId,
    /// Term and vote, the last that are known.
    pub hard_state: HardState,
    /// Everything up to here was given up before.
    pub compacted: LogId,
    /// The last entry that is kept.
    pub last: LogId,
    /// How many entries are kept.
    pub entries: u64,
    /// From this index on, entries that stand in the log are left out, because what was before them is not known.
    pub cut_from: Option<Index>,
    /// Entries behind the last one may be missing without a trace.
    pub may_miss_entries: bool,
    /// It will be marked as one that must not vote.
    pub vote_lost: bool,
}

/// What a repair would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// The incarnation of the new log; opening it raises it again.
    pub incarnation: Incarnation,
    /// What verification says of the log.
    pub verdict: Verdict,
    /// The ranges that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Every Raft group that is kept.
    pub groups: Vec<GroupPlan>,
    /// Raft groups of which records are left, but not their creation: nothing of them is kept.
    pub unknown: Vec<GroupId>,
    /// Raft groups that were removed and stay so.
    pub tombstones: u64,
}

impl Plan {
    /// Whether the log cannot be used as it is.
    pub fn is_needed(&self) -> bool {
        is_unusable(&self.verdict)
    }
}

/// Whether a log has lost what no peer gives back.
pub(crate) fn is_unusable(verdict: &Verdict) -> bool {
    let costs = |loss: &Loss| matches!(loss, Loss::Entries(..) | Loss::Descriptor(_));
    verdict.refusal.is_some() || verdict.damage.iter().any(|damage| costs(&damage.loss))
}

/// A plan for the log in `storage`. Changes nothing; nobody else may write to the log meanwhile.
pub fn plan(storage: &dyn Storage) -> Result<Plan, LogError> {
    let verdict = verify(storage)?;
    let layout = Layout::of(storage)?;
    let fold = Fold::of(&layout)?;
    Ok(plan_of(&layout, &fold, verdict))
}

/// Writes what can be kept of the log in `storage` as a new log into `target`, which must be empty.
pub fn rebuild_into(storage: &dyn Storage, target: &dyn Storage) -> Result<(), LogError> {
    if !target.names().map_err(LogError::io("listing the files of the new log"))?.is_empty() {
        return Err(LogError::NotEmpty { place: target.place() });
    }
    let layout = Layout::of(storage)?;
    let fold = Fold::of(&layout)?;
    rebuild(&layout, &fold, next_incarnation(&layout), target)
}

pub(crate) fn next_incarnation(layout: &Layout<'_>) -> Incarnation {
    let seen = layout.headers().map(|(_, header)| header.incarnation);
    Incarnation(seen.fold(layout.control.incarnation, Incarnation::max).0.saturating_add(1))
}

fn plan_of(layout: &Layout<'_>, fold: &Fold, verdict: Verdict) -> Plan {
    let unreadable = fold.lost.iter().filter(|lost| !lost.is_repeated).map(|lost| {
        let what = range(lost.first, lost.last);
        Unreadable { file: lost.file.clone(), offset: lost.offset, what, why: lost.why.clone() }
    });
    let group_plan = |(group, kept): (&GroupId, &KeptGroup)| GroupPlan {
        group: *group,
        replica: kept.replica,
        hard_state: kept.hard_state,
        compacted: kept.compacted,
        last: kept.last(),
        entries: kept.entries(),
        cut_from: kept.cut_from,
        may_miss_entries: kept.may_miss_entries(),
        vote_lost: kept.must_not_vote(),
    };
    Plan {
        identity: layout.identity(),
        incarnation: next_incarnation(layout),
        verdict,
        unreadable: unreadable.collect(),
        groups: fold.groups.iter().map(group_plan).collect(),
        unknown: fold.unknown.iter().copied().collect(),
        tombstones: fold.tombstones.len() as u64,
    }
}

/// What an earlier run had left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// Nothing.
    Nothing,
    /// The new log took its place, and the damaged one is kept here.
    TookPlace(PathBuf),
    /// The new log took its place; the damaged one had its name already.
    FilledPlace,
}

/// A log that is being repaired, under its lock.
pub struct Repair {
    dir: PathBuf,
    directory: Directory,
    resumed: Resumed,
}

impl Repair {
    /// Takes the lock of the log in `dir`, which a running node holds. If an earlier repair was interrupted after its new
    /// log was complete, that one takes its place now.
    pub fn begin(dir: &Path) -> Result<Repair, LogError> {
        let place = dir.display().to_string();
        let filled = swap::take_place_left_empty(dir).map_err(LogError::io(format!("putting {place} in its place")))?;
        if !dir.is_dir() {
            return Err(LogError::NotALog { place });
        }
        let directory = lock(dir, &Options::default())?;
        let mut repair = Repair { dir: dir.to_path_buf(), directory, resumed: Resumed::Nothing };
        if filled {
            repair.resumed = Resumed::FilledPlace;
        } else if let Some(waiting) = swap::waiting(dir) {
            repair.go_on(&waiting)?;
        }
        Ok(repair)
    }

    /// Whether an earlier repair of the log in `dir` was cut short after its new log was complete. Changes nothing.
    pub fn is_pending(dir: &Path) -> bool {
        swap::waiting(dir).is_some()
    }

    /// What an earlier run had left to do, and was done now.
    pub fn resumed(&self) -> &Resumed {
        &self.resumed
    }

    /// What would be done.
    pub fn plan(&self) -> Result<Plan, LogError> {
        plan(&self.directory)
    }

    /// Builds the new log and puts it in the place of the damaged one. Returns where that is kept.
    pub fn carry_out(self) -> Result<PathBuf, LogError> {
        let name = self.dir.display();
        let building = swap::begin_building(&self.dir).map_err(LogError::io(format!("creating {name}.building")))?;
        {
            let target = lock(&building, &Options::default())?;
            rebuild_into(&self.directory, &target)?;
        }
        swap::finish_building(&self.dir).map_err(LogError::io(format!("naming {name}.repaired")))?;
        swap::exchange(&self.dir).map_err(LogError::io(format!("putting the new log in the place of {name}")))
    }

    /// Finds out which of the two directories is the damaged one, and goes on accordingly.
    fn go_on(&mut self, waiting: &Path) -> Result<(), LogError> {
        let is_sound = |storage: &dyn Storage| verify(storage).is_ok_and(|verdict| !is_unusable(&verdict));
        let other = Directory::look(waiting).map_err(LogError::io("opening the directory of an earlier repair"))?;
        let failed = || LogError::io(format!("finishing the earlier repair of {}", self.dir.display()));
        let kept = if is_sound(&other) && !is_sound(&self.directory) {
            let kept = swap::exchange(&self.dir).map_err(failed())?;
            // The lock was on the directory that has left.
            self.directory = lock(&self.dir, &Options::default())?;
            kept
        } else {
            swap::put_aside(&self.dir).map_err(failed())?
        };
        self.resumed = Resumed::TookPlace(kept);
        Ok(())
    }
}
