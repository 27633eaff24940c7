//! A state as the records of a checkpoint, and back.

use std::collections::BTreeSet;

use bytes::Bytes;
use pontoon_types::{GroupId, HardState, Index, ReplicaId, Term};

use super::runs::Runs;
use super::{GroupState, LogState, Place};
use crate::append::{GroupBuffer, Room, segment_room};
use crate::format::checkpoint::{GROUP_STATE_BYTES, GroupFact, Head, RUN_PLACE_BYTES, RunPlace, SegmentFact};
use crate::format::group::Group;
use crate::format::record::{
    KIND_CHECKPOINT, KIND_COMMITTED, KIND_GROUP_RUNS, KIND_GROUP_STATE, KIND_SEGMENT, KIND_TOMBSTONE, RUN_BYTES, Run,
    RunHead,
};
use crate::format::{Fault, Lsn, SegmentId, SegmentKey};

/// A group of records of a checkpoint is closed at about this size: each is one piece of work for the disk, which the commits wait for.
const GROUP_BYTES: usize = 256 << 10;

/// Most runs in one record, so that a record fits the smallest segment.
const RUNS_IN_RECORD: usize = 128;

/// Makes the records of a checkpoint and hands them over in groups of records that fit a segment.
pub(crate) struct Encoder<'a, E> {
    buffer: GroupBuffer,
    segment_bytes: u64,
    emit: &'a mut dyn FnMut(&mut GroupBuffer) -> Result<(), E>,
}

/// Hands over a whole checkpoint. `descriptor` finds the bytes of a group's descriptor.
pub(crate) fn encode<E>(
    state: &LogState,
    head: &Head,
    facts: &[SegmentFact],
    descriptor: impl Fn(Place) -> Result<Bytes, E>,
    segment_bytes: u64,
    emit: &mut dyn FnMut(&mut GroupBuffer) -> Result<(), E>,
) -> Result<(), E> {
    let mut encoder = Encoder { buffer: GroupBuffer::new(), segment_bytes, emit };
    encoder.put(RunHead::plain(KIND_CHECKPOINT, GroupId(0), 0, 1), &head.encode())?;
    for fact in facts {
        encoder.put(RunHead::plain(KIND_SEGMENT, GroupId(0), fact.segment.0, 1), &fact.encode())?;
    }
    for (group, replica) in state.tombstones() {
        encoder.make_room(Room { directory: RUN_BYTES, payloads: 0 })?;
        encoder.buffer.put_run(RunHead::plain(KIND_TOMBSTONE, *group, replica.0, 0));
    }
    let mut payload = Vec::new();
    for group in state.ids() {
        let Some(of) = state.group(group) else { continue };
        payload.clear();
        payload.extend_from_slice(&fact_of(of).encode());
        payload.extend_from_slice(&descriptor(of.descriptor)?);
        let head = RunHead { index: of.replica.0, kind: KIND_GROUP_STATE, count: 1, ..hard_state_head(group, of) };
        encoder.put(head, &payload)?;
        if of.committed > of.compacted.index {
            encoder.make_room(Room { directory: RUN_BYTES, payloads: 0 })?;
            encoder.buffer.put_run(RunHead::committed(group, of.committed));
        }
        for runs in of.runs.as_slice().chunks(RUNS_IN_RECORD) {
            payload.clear();
            payload.extend(runs.iter().flat_map(RunPlace::encode));
            encoder.put(RunHead::plain(KIND_GROUP_RUNS, group, runs[0].first.0, 1), &payload)?;
        }
    }
    encoder.finish()
}

fn hard_state_head(group: GroupId, of: &GroupState) -> RunHead {
    RunHead::hard_state(group, of.hard_state)
}

fn fact_of(of: &GroupState) -> GroupFact {
    GroupFact {
        vote: of.hard_state.vote.map_or(0, |vote| vote.0),
        vote_lost: of.vote_lost,
        runs: of.runs.as_slice().len() as u32,
        compacted: of.compacted,
        last_term: of.last_term,
    }
}

impl<E> Encoder<'_, E> {
    fn put(&mut self, head: RunHead, payload: &[u8]) -> Result<(), E> {
        self.make_room(Room::of_record(payload))?;
        self.buffer.put_record(head, payload);
        Ok(())
    }

    fn make_room(&mut self, room: Room) -> Result<(), E> {
        let both = self.buffer.room().plus(room);
        if both.group_len() > GROUP_BYTES.min(segment_room(self.segment_bytes)) {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), E> {
        if !self.buffer.is_empty() {
            (self.emit)(&mut self.buffer)?;
            self.buffer = GroupBuffer::new();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), E> {
        self.flush()
    }
}

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It is damaged: the one before it may stand in for it.
    #[error("{0}")]
    Damaged(String),
    /// Something that only a newer version knows stands at this place: what it says must not be passed over.
    #[error("{0}")]
    Unknown(Fault, Lsn),
}

impl Unreadable {
    /// The fault of what stands at a place, and what to call it where it is damage.
    pub(crate) fn of(fault: Fault, place: Lsn, name: impl FnOnce(Fault) -> String) -> Unreadable {
        if fault.is_unknown() { Unreadable::Unknown(fault, place) } else { Unreadable::Damaged(name(fault)) }
    }
}

impl From<String> for Unreadable {
    fn from(why: String) -> Unreadable {
        Unreadable::Damaged(why)
    }
}

/// A checkpoint that is being read.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    head: Option<Head>,
    facts: Vec<SegmentFact>,
    state: LogState,
    /// The group whose runs come next, and how many of them.
    open: Option<(GroupId, u32)>,
    groups: u64,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) head: Head,
    pub(crate) facts: Vec<SegmentFact>,
    pub(crate) state: LogState,
}

impl Decoder {
    /// Takes the next group of records of the checkpoint. The error says what is wrong.
    pub(crate) fn take(&mut self, segment: SegmentId, group: &Group<'_>) -> Result<(), Unreadable> {
        let of_group = Lsn { segment, offset: group.offset as u64 };
        for run in group.runs() {
            let record = run.records().next().unwrap_or(crate::format::record::Record { offset: 0, length: 0, crc: 0 });
            let payload = &group.payloads[record.offset..record.offset + record.length];
            let at = group.payloads_at() + record.offset;
            let place = Place { segment: segment.key(), offset: at as u32, length: record.length as u32 };
            self.take_run(&run, payload, place, of_group)?;
        }
        Ok(())
    }

    fn take_run(&mut self, run: &Run<'_>, payload: &[u8], place: Place, of_group: Lsn) -> Result<(), Unreadable> {
        let head = run.head;
        let unreadable = |fault| Unreadable::of(fault, of_group, |fault| fault.to_string());
        match head.kind {
            KIND_CHECKPOINT => self.head = Some(Head::decode(payload).map_err(unreadable)?),
            KIND_SEGMENT => {
                let fact = SegmentFact::decode(SegmentId(head.index), payload);
                self.facts.push(fact.map_err(unreadable)?);
            }
            KIND_TOMBSTONE => self.state.add_tombstone(head.group, ReplicaId(head.index)),
            KIND_GROUP_STATE => {
                self.expect_complete()?;
                let fact = GroupFact::decode(payload).map_err(unreadable)?;
                self.open = Some((head.group, fact.runs));
                self.groups += 1;
                let vote = RunHead { index: fact.vote, ..head }.as_hard_state().vote;
                let descriptor = Place {
                    offset: place.offset + GROUP_STATE_BYTES as u32,
                    length: place.length - GROUP_STATE_BYTES as u32,
                    ..place
                };
                let state = GroupState {
                    replica: ReplicaId(head.index),
                    hard_state: HardState { term: Term(head.term), vote },
                    compacted: fact.compacted,
                    last_term: fact.last_term,
                    committed: Index(0),
                    descriptor,
                    vote_lost: fact.vote_lost,
                    runs: Runs::None,
                };
                if self.state.group(head.group).is_some() {
                    return Err(format!("{} stands in the checkpoint twice", head.group).into());
                }
                self.state.insert(head.group, state);
            }
            KIND_COMMITTED => {
                let of = self.state.group_mut(head.group);
                of.ok_or_else(|| format!("{} is committed before it is there", head.group))?.committed =
                    Index(head.index);
            }
            KIND_GROUP_RUNS => self.take_runs(head.group, payload)?,
            kind => return Err(format!("a record of kind {kind} stands in a checkpoint").into()),
        }
        Ok(())
    }

    fn take_runs(&mut self, group: GroupId, payload: &[u8]) -> Result<(), String> {
        let count = (payload.len() / RUN_PLACE_BYTES) as u32;
        let left = match self.open {
            Some((open, left)) if open == group && left >= count => left - count,
            _ => return Err(format!("the checkpoint has runs of {group} that do not belong there")),
        };
        self.open = Some((group, left));
        let state = self.state.group_mut(group).expect("law: the open group was inserted");
        for place in RunPlace::decode_all(payload).map_err(|fault| fault.to_string())? {
            if place.first != state.last_index().next() || place.count == 0 {
                return Err(format!("the runs of {group} in the checkpoint do not follow each other"));
            }
            state.runs.push(place);
        }
        Ok(())
    }

    fn expect_complete(&self) -> Result<(), String> {
        match self.open {
            Some((group, left)) if left > 0 => Err(format!("the checkpoint lacks runs of {group}")),
            _ => Ok(()),
        }
    }

    /// The checkpoint, if it was whole.
    pub(crate) fn finish(self) -> Result<Loaded, String> {
        self.expect_complete()?;
        let head = self.head.ok_or("the checkpoint has no head")?;
        if head.groups != self.groups || head.segments != self.facts.len() as u64 {
            return Err("the checkpoint lacks groups or segments".to_string());
        }
        let named: BTreeSet<SegmentKey> = self.facts.iter().map(|fact| fact.segment.key()).collect();
        if !self.state.segments().is_subset(&named) {
            return Err("the checkpoint has runs in a segment that it does not name".to_string());
        }
        Ok(Loaded { head, facts: self.facts, state: self.state })
    }
}
