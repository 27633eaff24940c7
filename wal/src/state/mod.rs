//! What a log says about all its Raft groups: a fold over directories. Pure.
//!
//! The running log, recovery and the keeper of checkpoints read records through the same [`LogState::apply`], in the
//! order of writing (law 14), so that what is found after a crash is what was known before it. A state holds places
//! and no payloads: 24 bytes for each run of entries, and about a hundred for a group that has none.
//!
//! Laws that are held here: entries follow the last one, so an overwrite without its truncation is an error (law 14); a
//! group that was removed comes back only with a higher replica (law 11); a group has records only while it exists.

pub(crate) mod checkpoint;
pub(crate) mod runs;

use std::collections::{BTreeMap, BTreeSet};

use pontoon_types::{GroupId, HardState, Index, LogId, ReplicaId, Term};

use crate::format::SegmentKey;
use crate::format::checkpoint::RunPlace;
use crate::format::group::{GROUP_HEADER_BYTES, payloads_start};
use crate::format::record::{self, RUN_BYTES, Record, Run, Runs as DirectoryRuns};
use runs::{Runs, in_one_segment};

/// Where a payload lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: SegmentKey,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// Where the parts of a group of records lie in their file. The directory may be the copy in the footer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupPlace {
    pub(crate) segment: SegmentKey,
    pub(crate) directory_at: usize,
    pub(crate) payloads_at: usize,
}

impl GroupPlace {
    /// The group that starts at `offset`, with a directory of `dir_len` bytes.
    pub(crate) fn of(segment: SegmentKey, offset: usize, dir_len: usize) -> GroupPlace {
        let (directory_at, payloads_at) = (offset + GROUP_HEADER_BYTES, offset + payloads_start(dir_len));
        GroupPlace { segment, directory_at, payloads_at }
    }
}

/// One Raft group.
#[derive(Clone, Debug)]
pub(crate) struct GroupState {
    pub(crate) replica: ReplicaId,
    pub(crate) hard_state: HardState,
    /// Everything up to here is given up.
    pub(crate) compacted: LogId,
    /// The term of the last entry, so that an open touches no entry; 0 after a truncation, until the next entry.
    pub(crate) last_term: Term,
    /// How far the replica knew its entries to be committed; at most its last entry, and of no meaning up to `compacted`.
    pub(crate) committed: Index,
    pub(crate) descriptor: Place,
    pub(crate) vote_lost: bool,
    pub(crate) runs: Runs,
}

impl GroupState {
    /// The index of the last entry, or the last index that was given up.
    pub(crate) fn last_index(&self) -> Index {
        self.runs.end().map_or(self.compacted.index, Index::previous)
    }
}

/// All Raft groups of a log.
///
/// Invariants: `ids` is sorted, and the group at its place i stands in `slots[positions[i]]`; `free` names the slots
/// that are not in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogState {
    /// Two lists and no map: twelve bytes for a group, and a search that touches few lines of cache.
    ids: Vec<GroupId>,
    positions: Vec<u32>,
    slots: Vec<GroupState>,
    free: Vec<u32>,
    tombstones: BTreeMap<GroupId, ReplicaId>,
}

impl LogState {
    pub(crate) fn group(&self, group: GroupId) -> Option<&GroupState> {
        let place = self.ids.binary_search(&group).ok()?;
        Some(&self.slots[self.positions[place] as usize])
    }

    pub(crate) fn group_mut(&mut self, group: GroupId) -> Option<&mut GroupState> {
        let place = self.ids.binary_search(&group).ok()?;
        Some(&mut self.slots[self.positions[place] as usize])
    }

    /// The ids of all groups, in order.
    pub(crate) fn ids(&self) -> Vec<GroupId> {
        self.ids.clone()
    }

    /// The groups that were removed, with their highest replica.
    pub(crate) fn tombstones(&self) -> &BTreeMap<GroupId, ReplicaId> {
        &self.tombstones
    }

    /// The segments that entries lie in.
    pub(crate) fn segments(&self) -> BTreeSet<SegmentKey> {
        self.runs().flat_map(in_one_segment).map(|runs| runs[0].segment).collect()
    }

    /// The runs of each group.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &[RunPlace]> {
        self.slots.iter().map(|of| of.runs.as_slice())
    }

    pub(crate) fn add_tombstone(&mut self, group: GroupId, replica: ReplicaId) {
        self.tombstones.insert(group, replica);
    }

    /// Adds a group that is not there.
    pub(crate) fn insert(&mut self, group: GroupId, state: GroupState) {
        let Err(place) = self.ids.binary_search(&group) else { return };
        let position = match self.free.pop() {
            Some(position) => {
                self.slots[position as usize] = state;
                position
            }
            None => {
                grow(&mut self.slots);
                self.slots.push(state);
                self.slots.len() as u32 - 1
            }
        };
        grow(&mut self.ids);
        grow(&mut self.positions);
        self.ids.insert(place, group);
        self.positions.insert(place, position);
    }

    /// Applies the directory of one group of records. The error says which rule of writing the records break.
    pub(crate) fn apply(&mut self, directory: &[u8], place: GroupPlace) -> Result<(), String> {
        for run in DirectoryRuns::new(directory) {
            self.apply_run(&run, place)?;
        }
        Ok(())
    }

    fn apply_run(&mut self, run: &Run<'_>, place: GroupPlace) -> Result<(), String> {
        let (head, id) = (run.head, run.head.group);
        match head.kind {
            record::KIND_GROUP_CREATE => return self.create(run, place),
            record::KIND_COMMITTED => {}
            record::KIND_SKIPPABLE_MIN.. => return Ok(()),
            record::KIND_CHECKPOINT..=record::KIND_GROUP_RUNS => {
                return Err(format!("a record of a checkpoint (kind {}) stands in the log", head.kind));
            }
            _ => {}
        }
        let state = self.group_mut(id).ok_or_else(|| format!("{id} has records but was never created"))?;
        let entries_place = || RunPlace {
            first: Index(head.index),
            count: head.count,
            segment: place.segment,
            // Both fit: a segment is at most 1 GiB.
            head_at: (place.directory_at + run.at) as u32,
            payloads_at: place.payloads_at as u32,
        };
        match head.kind {
            record::KIND_HARD_STATE => {
                state.hard_state = head.as_hard_state();
            }
            record::KIND_TRUNCATE => {
                if Index(head.index) <= state.compacted.index {
                    return Err(format!("{id} is cut at {}, but {} was given up", head.index, state.compacted));
                }
                if Index(head.index) <= state.last_index() {
                    state.last_term = Term(0);
                }
                state.runs.truncate(Index(head.index));
                state.committed = state.committed.min(state.last_index());
            }
            record::KIND_ENTRIES => {
                let last = state.last_index();
                if Some(head.index) != last.0.checked_add(1) {
                    let term = head.term;
                    return Err(format!("entry {}@{term} of {id} does not follow index {last} (law 14)", head.index));
                }
                state.runs.push(entries_place());
                state.last_term = Term(head.term);
            }
            record::KIND_COMMITTED => state.committed = Index(head.index).min(state.last_index()),
            record::KIND_RESTORED => state.runs.replace(&entries_place(), None),
            record::KIND_COMPACT => {
                let compaction = head.as_compaction();
                if compaction.to.index <= state.compacted.index {
                    return Ok(());
                }
                if compaction.reset || compaction.to.index > state.last_index() {
                    state.runs = Runs::None;
                } else {
                    state.runs.compact(compaction.to.index);
                }
                state.compacted = compaction.to;
            }
            record::KIND_VOTE_LOST => state.vote_lost = true,
            record::KIND_TOMBSTONE => self.remove(id, ReplicaId(head.index)),
            // The decoder has refused every other kind.
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, run: &Run<'_>, place: GroupPlace) -> Result<(), String> {
        let (id, replica) = (run.head.group, ReplicaId(run.head.index));
        if self.group(id).is_some() {
            return Err(format!("{id} is created twice"));
        }
        if let Some(dead) = self.tombstones.get(&id)
            && *dead >= replica
        {
            return Err(format!("{id} is created with {replica}, but {dead} was removed (law 11)"));
        }
        let Some(record) = run.records().next() else { return Err(format!("{id} is created without a descriptor")) };
        let Record { offset, length, .. } = record;
        let offset = (place.payloads_at + offset) as u32;
        let descriptor = Place { segment: place.segment, offset, length: length as u32 };
        let state = GroupState {
            replica,
            hard_state: HardState::default(),
            compacted: LogId::default(),
            last_term: Term(0),
            committed: Index(0),
            descriptor,
            vote_lost: false,
            runs: Runs::None,
        };
        self.insert(id, state);
        Ok(())
    }

    fn remove(&mut self, group: GroupId, replica: ReplicaId) {
        if let Ok(place) = self.ids.binary_search(&group) {
            self.ids.remove(place);
            let position = self.positions.remove(place);
            self.slots[position as usize].runs = Runs::None;
            self.free.push(position);
        }
        let dead = self.tombstones.entry(group).or_insert(replica);
        *dead = (*dead).max(replica);
    }
}

/// Makes room by an eighth and not by double: many groups are the common case, and most of them idle.
fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 16);
    }
}

/// The records of a run, read from the bytes of its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlacedRun<'a> {
    pub(crate) head: record::RunHead,
    place: RunPlace,
    bytes: &'a [u8],
}

impl<'a> PlacedRun<'a> {
    /// The run at `place` in the bytes of its segment. None when the bytes there are not that run: then they are not
    /// what was written.
    pub(crate) fn find(bytes: &'a [u8], place: &RunPlace) -> Option<PlacedRun<'a>> {
        let head_at = place.head_at as usize;
        let head = record::RunHead::decode(bytes.get(head_at..head_at + RUN_BYTES)?);
        let last = place.first.0.checked_add(place.count.into())?;
        let fits = matches!(head.kind, record::KIND_ENTRIES | record::KIND_RESTORED)
            && head.index <= place.first.0
            && last <= head.index.checked_add(head.count.into())?;
        fits.then_some(PlacedRun { head, place: *place, bytes })
    }

    /// The record of the entry at `index`, and its payload, unchecked.
    pub(crate) fn entry(&self, index: Index) -> Option<(Record, &'a [u8], usize)> {
        let position = index.0.checked_sub(self.head.index)? as usize;
        let at = self.place.head_at as usize + RUN_BYTES + position * record::RECORD_BYTES;
        let record = Record::decode(self.bytes.get(at..at + record::RECORD_BYTES)?);
        let start = (self.place.payloads_at as usize).checked_add(record.offset)?;
        let payload = self.bytes.get(start..start.checked_add(record.length)?)?;
        Some((record, payload, start))
    }

    /// The bytes that the run's entries take in the log: payloads, records and the head.
    pub(crate) fn bytes_taken(&self) -> u64 {
        let last = Index(self.place.first.0 + u64::from(self.place.count) - 1);
        let span = match (self.entry(self.place.first), self.entry(last)) {
            (Some((_, _, start)), Some((record, _, last))) => (last + record.length).saturating_sub(start),
            _ => 0,
        };
        span as u64 + RUN_BYTES as u64 + u64::from(self.place.count) * record::RECORD_BYTES as u64
    }
}
