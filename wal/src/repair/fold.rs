//! What can be kept of every Raft group when parts of its log's records are not known.
//!
//! Behind an unreadable range nothing is sure about the groups that existed then: any of them may have voted, may have
//! cut entries, and may have appended others. What makes it sure again:
//!
//! - *Term and vote*: a later hard state says both.
//! - *Entries*: an entry that follows the last one kept and has the same term. No two entries share index and term, and
//!   those before them are the same too (log matching), so what was kept is what stood before the new one.
//!
//! Entries that begin an empty log, or follow a snapshot that the log starts anew with, are kept too. They make nothing
//! sure: the replica may have been removed in the unreadable range, and these be those of another one.
//! One case stays open: a removal, a creation and a snapshot at exactly the last position of the replica before, all in
//! the unreadable range. Then the group is taken for sure, under the name of its dead replica, which peers refuse (law 11).
//!
//! Entries that do not make it sure are left out: they could stand behind others than those they were written behind.
//! A group that stays unsure in either has lost something that it may have promised, so it must not vote any more.
//!
//! Entries that a checkpoint refers to and whose directory is unreadable are a gap: the group keeps what lies before it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pontoon_types::{Compaction, GroupId, HardState, Index, LogId, ReplicaId, Term};

use crate::LogError;
use crate::format::SegmentKey;
use crate::format::checkpoint::RunPlace;
use crate::format::record::{self, Run, RunHead};
use crate::inspect::disk;
use crate::inspect::layout::{Layout, Role};
use crate::inspect::walk::{Lost, Seen, Step};
use crate::state::runs::{Runs, end};

/// What is kept of one Raft group.
#[derive(Clone, Debug)]
pub(crate) struct KeptGroup {
    pub(crate) replica: ReplicaId,
    pub(crate) descriptor: Bytes,
    pub(crate) hard_state: HardState,
    pub(crate) compacted: LogId,
    /// How far the entries that are kept were known to be committed.
    pub(crate) committed: Index,
    pub(crate) runs: Runs,
    /// The terms of the entries: each from an index on. Rising indexes.
    terms: Vec<(Index, Option<Term>)>,
    vote_lost: bool,
    is_vote_sure: bool,
    are_entries_sure: bool,
    /// The next entry is known to stand behind those that are kept.
    is_connected: bool,
    /// The end of what is kept was known before anything was in doubt.
    is_end_known: bool,
    /// The first index from which entries that stand in the log are left out.
    pub(crate) cut_from: Option<Index>,
}

impl KeptGroup {
    fn new(replica: ReplicaId, descriptor: Bytes) -> KeptGroup {
        KeptGroup {
            replica,
            descriptor,
            hard_state: HardState::default(),
            compacted: LogId::default(),
            committed: Index(0),
            runs: Runs::None,
            terms: Vec::new(),
            vote_lost: false,
            is_vote_sure: true,
            are_entries_sure: true,
            is_connected: true,
            is_end_known: true,
            cut_from: None,
        }
    }

    /// Whether it has to be marked as one that does not know its vote.
    pub(crate) fn must_not_vote(&self) -> bool {
        self.vote_lost || !self.is_vote_sure || !self.are_entries_sure
    }

    /// Whether entries behind the last one kept may be missing.
    pub(crate) fn may_miss_entries(&self) -> bool {
        !self.are_entries_sure
    }

    pub(crate) fn entries(&self) -> u64 {
        self.runs.as_slice().iter().map(|run| u64::from(run.count)).sum()
    }

    pub(crate) fn last_index(&self) -> Index {
        self.runs.end().map_or(self.compacted.index, Index::previous)
    }

    /// The term of the entry at an index, or of what was given up last.
    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.compacted.index {
            return Some(self.compacted.term);
        }
        let position = self.terms.partition_point(|(from, _)| *from <= index).checked_sub(1)?;
        self.terms[position].1
    }

    fn last_term(&self) -> Option<Term> {
        self.term_at(self.last_index())
    }

    pub(crate) fn last(&self) -> LogId {
        LogId::new(self.last_index(), self.last_term().unwrap_or_default())
    }

    fn push(&mut self, run: RunPlace, term: Option<Term>) {
        self.terms.push((run.first, term));
        self.runs.push(run);
    }

    fn truncate(&mut self, from: Index) {
        if from > self.compacted.index {
            self.runs.truncate(from);
            self.terms.retain(|(index, _)| *index < from);
            self.committed = self.committed.min(self.last_index());
        }
    }

    fn doubt(&mut self) {
        (self.is_vote_sure, self.are_entries_sure, self.is_connected) = (false, false, false);
    }

    fn append(&mut self, head: &RunHead, place: RunPlace) {
        let last = self.last_index();
        let follows = Some(head.index) == last.0.checked_add(1);
        let matches = last > Index(0) && self.last_term() == Some(Term(head.term));
        if !follows || !(self.is_connected || matches || last == Index(0)) {
            (self.are_entries_sure, self.is_connected) = (false, false);
            self.cut_from = self.cut_from.or(Some(last.next())).min(Some(Index(head.index)));
            return;
        }
        self.are_entries_sure |= matches && self.is_end_known;
        self.is_end_known = self.are_entries_sure;
        (self.is_connected, self.cut_from) = (true, None);
        self.push(place, Some(Term(head.term)));
    }

    fn restore(&mut self, head: &RunHead, place: &RunPlace) {
        let term = Some(Term(head.term));
        let last = end(place).previous().min(self.last_index());
        if self.term_at(place.first.max(self.compacted.index.next())) == term && self.term_at(last) == term {
            self.runs.replace(place, None);
        }
    }

    fn compact(&mut self, compaction: Compaction) {
        let Compaction { to, reset } = compaction;
        if to.index <= self.compacted.index {
            return;
        }
        let is_inside = !reset && to.index <= self.last_index();
        let is_known = self.are_entries_sure || is_inside && self.term_at(to.index) == Some(to.term);
        // What is not known to be inside may be the beginning of another replica's log.
        self.is_end_known &= is_known;
        if reset {
            self.runs = Runs::None;
            (self.is_connected, self.cut_from) = (true, None);
        } else if to.index > self.last_index() {
            self.runs = Runs::None;
        } else if is_known {
            self.runs.compact(to.index);
        } else {
            self.cut_from = Some(to.index.next());
            self.runs = Runs::None;
        }
        if self.runs == Runs::None {
            self.terms.clear();
        }
        self.compacted = to;
    }
}

/// A run that a checkpoint may refer to, in a directory that is intact.
struct KnownRun {
    first: u64,
    count: u32,
    term: Term,
    head_at: u32,
}

/// By the segment, the place of the first payload of the group of records, and the Raft group.
type KnownRuns = BTreeMap<(SegmentKey, u32, GroupId), Vec<KnownRun>>;

/// All that can be kept of a log.
#[derive(Default)]
pub(crate) struct Fold {
    pub(crate) groups: BTreeMap<GroupId, KeptGroup>,
    pub(crate) tombstones: BTreeMap<GroupId, ReplicaId>,
    /// Groups that have records but whose creation is not known, or whose descriptor is rotten: nothing of them is kept.
    pub(crate) unknown: BTreeSet<GroupId>,
    /// What could not be read of the records that count.
    pub(crate) lost: Vec<Lost>,
    /// Runs of a checkpoint whose directory is unreadable.
    holes: BTreeSet<(GroupId, SegmentKey, u32)>,
}

impl Fold {
    /// Reads a whole log, twice.
    pub(crate) fn of(layout: &Layout<'_>) -> Result<Fold, LogError> {
        let mut fold = Fold::default();
        let known = known_runs(layout)?;
        fold.begin(layout, &known)?;
        layout.walk(&mut |step| {
            match step {
                Step::Group(seen) if seen.planned.role == Role::Open => fold.apply(&seen),
                Step::Lost(lost) if lost.role == Role::Open => fold.lose(lost),
                _ => {}
            }
            Ok(())
        })?;
        fold.cut_at_holes();
        fold.unknown.retain(|group| !fold.groups.contains_key(group) && !fold.tombstones.contains_key(group));
        Ok(fold)
    }

    /// What the checkpoint says.
    fn begin(&mut self, layout: &Layout<'_>, known: &KnownRuns) -> Result<(), LogError> {
        let (state, _) = layout.begin();
        self.tombstones.clone_from(state.tombstones());
        for id in state.ids() {
            let Some(of) = state.group(id) else { continue };
            let place = of.descriptor;
            let Some(planned) = layout.segment(place.segment) else { continue };
            let file = disk::open(layout.storage, &planned.name)?;
            let descriptor = disk::load_range(file.as_ref(), place.offset as usize, place.length as usize)?;
            let mut kept = KeptGroup::new(of.replica, Bytes::from(descriptor));
            (kept.hard_state, kept.compacted, kept.vote_lost) = (of.hard_state, of.compacted, of.vote_lost);
            kept.committed = of.committed;
            for run in of.runs.as_slice() {
                let holds = |found: &&KnownRun| {
                    found.first <= run.first.0 && end(run).0 <= found.first + u64::from(found.count)
                };
                // One that was written over in the same group of records stands before the one that took its place.
                let runs = known.get(&(run.segment, run.payloads_at, id));
                let found = runs.and_then(|runs| runs.iter().rfind(holds));
                match found {
                    Some(found) => kept.push(RunPlace { head_at: found.head_at, ..*run }, Some(found.term)),
                    None => {
                        self.holes.insert((id, run.segment, run.head_at));
                        kept.push(*run, None);
                    }
                }
            }
            self.groups.insert(id, kept);
        }
        Ok(())
    }

    /// A range of records is not known.
    fn lose(&mut self, lost: Lost) {
        if !lost.is_repeated {
            self.groups.values_mut().for_each(KeptGroup::doubt);
        }
        self.lost.push(lost);
    }

    fn apply(&mut self, seen: &Seen<'_>) {
        // What the lost group said comes before what this one says.
        let echoes = seen.runs().filter(|run| seen.repeats_lost && run.head.kind == record::KIND_HARD_STATE_ECHO);
        for head in echoes.map(|run| run.head) {
            if let Some(of) = self.groups.get_mut(&head.group) {
                of.hard_state = head.as_hard_state();
            }
        }
        for run in seen.runs() {
            let head = run.head;
            match head.kind {
                record::KIND_GROUP_CREATE => self.create(seen, &run),
                record::KIND_TOMBSTONE => self.remove(head.group, ReplicaId(head.index)),
                record::KIND_SKIPPABLE_MIN.. if head.kind != record::KIND_COMMITTED => {}
                _ => match self.groups.get_mut(&head.group) {
                    Some(of) => apply_to(of, seen, &run),
                    None => drop(self.unknown.insert(head.group)),
                },
            }
        }
    }

    fn create(&mut self, seen: &Seen<'_>, run: &Run<'_>) {
        let (id, replica) = (run.head.group, ReplicaId(run.head.index));
        let is_dead = self.tombstones.get(&id).is_some_and(|dead| *dead >= replica);
        let is_older = self.groups.get(&id).is_some_and(|of| of.replica >= replica);
        if is_dead || is_older {
            return;
        }
        let descriptor = run.records().next().and_then(|record| seen.payload(&record));
        match descriptor {
            Some(descriptor) => {
                self.groups.insert(id, KeptGroup::new(replica, Bytes::copy_from_slice(descriptor)));
            }
            None => drop(self.unknown.insert(id)),
        }
    }

    fn remove(&mut self, group: GroupId, replica: ReplicaId) {
        self.groups.remove(&group);
        let dead = self.tombstones.entry(group).or_insert(replica);
        *dead = (*dead).max(replica);
    }

    /// Entries that are needed and not known end the log of their group.
    fn cut_at_holes(&mut self) {
        for (id, of) in &mut self.groups {
            let is_hole = |run: &&RunPlace| self.holes.contains(&(*id, run.segment, run.head_at));
            let first = of.runs.as_slice().iter().find(is_hole).map(|run| run.first);
            if let Some(first) = first {
                of.truncate(first);
                (of.are_entries_sure, of.is_connected) = (false, false);
                of.cut_from = Some(first);
            }
        }
    }
}

fn apply_to(of: &mut KeptGroup, seen: &Seen<'_>, run: &Run<'_>) {
    let head = run.head;
    let place = RunPlace {
        first: Index(head.index),
        count: head.count,
        segment: seen.place.segment,
        head_at: seen.head_at(run) as u32,
        payloads_at: seen.place.payloads_at as u32,
    };
    match head.kind {
        record::KIND_HARD_STATE => {
            of.hard_state = head.as_hard_state();
            of.is_vote_sure = true;
        }
        record::KIND_TRUNCATE => of.truncate(Index(head.index)),
        record::KIND_ENTRIES => of.append(&head, place),
        record::KIND_COMMITTED => of.committed = Index(head.index).min(of.last_index()),
        record::KIND_RESTORED => of.restore(&head, &place),
        record::KIND_COMPACT => of.compact(head.as_compaction()),
        record::KIND_VOTE_LOST => of.vote_lost = true,
        // Records of checkpoints do not stand in the log.
        _ => {}
    }
}

/// The runs with entries in what checkpoints cover, by where their payloads lie.
fn known_runs(layout: &Layout<'_>) -> Result<KnownRuns, LogError> {
    let mut known: KnownRuns = BTreeMap::new();
    if layout.base().is_none() {
        return Ok(known);
    }
    layout.walk(&mut |step| {
        let Step::Group(seen) = step else { return Ok(()) };
        if !matches!(seen.planned.role, Role::Covered | Role::Kept) {
            return Ok(());
        }
        for run in seen.runs().filter(|run| matches!(run.head.kind, record::KIND_ENTRIES | record::KIND_RESTORED)) {
            let (head, head_at) = (run.head, seen.head_at(&run) as u32);
            let found = KnownRun { first: head.index, count: head.count, term: Term(head.term), head_at };
            let place = (seen.place.segment, seen.place.payloads_at as u32, head.group);
            known.entry(place).or_default().push(found);
        }
        Ok(())
    })?;
    Ok(known)
}
