//! What a log should hold, and the random things that are done to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_types::{Compaction, Creation, Entry, GroupId, HardState, Index, LogId, ReplicaId, Term, Write};
use pontoon_wal::Options;

use crate::common::{Model, ModelGroup, Opened, Random, Rig, apply, created, entry, model_of};

/// Groups that exist from the start.
pub const GROUPS: u64 = 4;

/// Groups that may come to be while the log runs.
pub const LATER_GROUPS: u64 = 3;

/// What the log should hold, and which replicas are dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub groups: Model,
    pub dead: BTreeMap<GroupId, ReplicaId>,
}

impl State {
    pub fn first() -> State {
        State { groups: model_of(&created(GROUPS)), dead: BTreeMap::new() }
    }

    /// What an open found, copied: nothing that the log hands out is held by it.
    pub fn of(opened: Opened) -> State {
        let mut groups = opened.groups.clone();
        for entry in groups.values_mut().flat_map(|group| &mut group.entries) {
            entry.payload = Bytes::copy_from_slice(&entry.payload);
        }
        State { groups, dead: opened.tombstones.clone() }
    }

    pub fn apply(&mut self, group: GroupId, write: &Write) {
        apply(&mut self.groups, &[(group, write.clone())]);
        if let Some(replica) = write.remove {
            let dead = self.dead.entry(group).or_insert(replica);
            *dead = (*dead).max(replica);
        }
    }

    /// Bytes that a perfect log would hold.
    pub fn live_bytes(&self) -> u64 {
        let of_entry = |entry: &Entry| entry.payload.len() as u64 + 64;
        self.groups.values().flat_map(|group| &group.entries).map(of_entry).sum()
    }
}

/// Everything up to the entry at this position of the model goes.
pub fn compaction(group: &ModelGroup, position: usize) -> Option<Compaction> {
    group.entries.get(position).map(|entry| Compaction { to: entry.id, reset: false })
}

/// One random write that keeps the rules of writing. `saving` gives up more than it appends.
pub fn random_write(random: &mut Random, state: &State, saving: bool) -> (GroupId, Write) {
    let group = GroupId(2 + random.below(GROUPS + LATER_GROUPS));
    let mut write = Write::default();
    let Some(of) = state.groups.get(&group) else {
        let dead = state.dead.get(&group).map_or(0, |dead| dead.0);
        let replica = ReplicaId(dead + 1 + random.below(2));
        let descriptor = Bytes::from(vec![random.next() as u8; random.below(60) as usize]);
        write.create = Some(Box::new(Creation { replica, descriptor }));
        if random.below(2) == 0 {
            write.entries = vec![entry(1, 1, "first")];
        }
        return (group, write);
    };
    if random.below(14) == 0 {
        write.remove = Some(ReplicaId(of.replica.0 + random.below(2)));
        return (group, write);
    }
    if random.below(4) == 0 {
        let term = Term(of.hard_state.term.0 + 1);
        let vote = (random.below(2) == 0).then(|| ReplicaId(random.below(3)));
        write.hard_state = Some(HardState { term, vote });
    }
    let length = of.entries.len() as u64;
    if length > 0 && random.below(8) == 0 {
        let one = &of.entries[random.below(length) as usize];
        write.restored = vec![one.clone()];
    } else if !saving {
        append(random, of, &mut write);
    }
    if saving || random.below(4) == 0 {
        let after = write.truncate_from.map_or(length, |from| from.0 - of.first());
        write.compact = match random.below(30) {
            0 => Some(Compaction { to: LogId::new(Index(of.next() + 5), Term(9)), reset: true }),
            1..5 if after > 0 => compaction(of, random.below(after) as usize),
            _ if after > 0 => compaction(of, after as usize - 1),
            _ => None,
        };
    }
    (group, write)
}

pub fn append(random: &mut Random, of: &ModelGroup, write: &mut Write) {
    let mut next = of.next();
    if next > of.first() && random.below(6) == 0 {
        // The term of the overwrite may be lower than what is cut (law 14).
        next = of.first() + random.below(next - of.first());
        write.truncate_from = Some(Index(next));
    }
    let mut term = 1 + random.below(5);
    for index in next..next + random.below(5) {
        let length = [0, 1, 40, 700, 2400][random.below(5) as usize];
        write.entries.push(entry(index, term, vec![random.next() as u8; length]));
        term += random.below(2);
    }
    // What random cores know may fall, be given up already, or lie behind the end.
    let knows = !write.entries.is_empty() && random.below(2) == 0;
    write.committed = knows.then(|| Index(random.below(next + 8)));
}

/// What a write takes at most.
pub fn bytes_of(write: &Write) -> usize {
    let entries = write.entries.iter().chain(&write.restored).map(|entry| entry.payload.len() + 64).sum::<usize>();
    entries + write.create.as_ref().map_or(0, |creation| creation.descriptor.len() + 64) + 6 * 32
}

pub fn random_options(random: &mut Random) -> Options {
    let segment_bytes = [16 << 10, 24 << 10, 64 << 10][random.below(3) as usize];
    Options {
        segment_bytes,
        max_log_bytes: segment_bytes * (6 + random.below(20)),
        group_bytes_max: [4 << 10, 12 << 10, 1 << 20][random.below(3) as usize],
        ready_segments: 1 + random.below(2) as usize,
        checkpoint_segments: 1 + random.below(4),
        ..Options::default()
    }
}

/// Loses power in one of the ways a disk can: nothing, everything, sectors or blocks of the unsynced survive.
pub fn crash(rig: &Rig, random: &mut Random) {
    let mode = random.below(4);
    let mut block = (usize::MAX, false);
    rig.disk.crash(|sector| match mode {
        0 => false,
        1 => true,
        2 => random.below(2) == 0,
        _ => {
            if block.0 != sector / 8 {
                block = (sector / 8, random.below(2) == 0);
            }
            block.1
        }
    });
}
