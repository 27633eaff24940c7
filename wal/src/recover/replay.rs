//! Replays records in the order of writing (law 14): never by term, and an overwrite cuts first.
//!
//! Entries are kept as places, so that nothing is mapped before everything was read; [`Replay::resolve`] turns the
//! places into bytes over the mappings.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_types::{Entry, GroupId, HardState, Index, LogId, Term};

use crate::format::group::Group;
use crate::format::record::{KIND_ENTRIES, KIND_GROUP_CREATE, KIND_HARD_STATE, KIND_TRUNCATE, Record, Run};
use crate::recover::RecoveredGroup;

/// Where a payload lies: segment by its position in the list of mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    mapping: u32,
    offset: u32,
    length: u32,
}

impl Place {
    fn of(mapping: u32, payloads_at: u64, record: Record) -> Place {
        // Both fit: a segment is at most 1 GiB, and the record was checked to lie inside.
        Place { mapping, offset: (payloads_at + record.offset as u64) as u32, length: record.length as u32 }
    }

    fn bytes(self, mappings: &[Bytes]) -> Bytes {
        if self.length == 0 {
            // An empty slice of a mapping would keep the mapping for nothing.
            return Bytes::new();
        }
        let start = self.offset as usize;
        mappings[self.mapping as usize].slice(start..start + self.length as usize)
    }
}

#[derive(Debug)]
struct GroupReplay {
    descriptor: Place,
    hard_state: HardState,
    /// The entry with index i stands at i - 1.
    entries: Vec<(Term, Place)>,
}

/// All Raft groups of a log, as far as it was replayed.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    groups: BTreeMap<GroupId, GroupReplay>,
}

impl Replay {
    /// Applies one group of records, whose payloads lie in the given mapping. The error says which rule of writing
    /// the records break.
    pub(crate) fn apply(&mut self, group: &Group<'_>, mapping: u32) -> Result<(), String> {
        for run in group.runs() {
            self.apply_run(&run, group.payloads_at, mapping)?;
        }
        Ok(())
    }

    fn apply_run(&mut self, run: &Run<'_>, payloads_at: u64, mapping: u32) -> Result<(), String> {
        let id = run.head.group;
        let mut places = run.records().map(|record| Place::of(mapping, payloads_at, record));
        if run.head.kind == KIND_GROUP_CREATE {
            let Some(descriptor) = places.next() else { return Err(format!("{id} is created without a descriptor")) };
            let created = GroupReplay { descriptor, hard_state: HardState::default(), entries: Vec::new() };
            return match self.groups.insert(id, created) {
                None => Ok(()),
                Some(_) => Err(format!("{id} is created twice")),
            };
        }
        if !matches!(run.head.kind, KIND_ENTRIES | KIND_HARD_STATE | KIND_TRUNCATE) {
            // Of a kind that this version may skip.
            return Ok(());
        }
        let group = self.groups.get_mut(&id).ok_or_else(|| format!("{id} has records but was never created"))?;
        match run.head.kind {
            KIND_HARD_STATE => group.hard_state = run.head.as_hard_state(),
            KIND_TRUNCATE => {
                let keep = usize::try_from(Index(run.head.index).previous().0).unwrap_or(usize::MAX);
                group.entries.truncate(keep);
            }
            _ => {
                let last = group.entries.len() as u64;
                if Some(run.head.index) != last.checked_add(1) {
                    let first = LogId::new(Index(run.head.index), Term(run.head.term));
                    return Err(format!("entry {first} of {id} does not follow index {last} (law 14)"));
                }
                group.entries.extend(places.map(|place| (Term(run.head.term), place)));
            }
        }
        Ok(())
    }

    /// The groups, with payloads over the mappings.
    pub(crate) fn resolve(self, mappings: &[Bytes]) -> BTreeMap<GroupId, RecoveredGroup> {
        let entry = |(position, (term, place)): (usize, (Term, Place))| Entry {
            id: LogId::new(Index(position as u64 + 1), term),
            payload: place.bytes(mappings),
        };
        let resolved = |replay: GroupReplay| RecoveredGroup {
            descriptor: replay.descriptor.bytes(mappings),
            hard_state: replay.hard_state,
            entries: replay.entries.into_iter().enumerate().map(entry).collect(),
        };
        self.groups.into_iter().map(|(id, replay)| (id, resolved(replay))).collect()
    }
}
