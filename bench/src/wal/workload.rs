//! What is asked of a log: one table, and the entries that it makes.

use bytes::Bytes;
use pontoon_types::{Compaction, Entry, GroupId, Index, LogId, Term, Write, WriteNumber};

use crate::data::Dice;
use crate::named;

/// How the writers of a workload wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The one writer appends, syncs by itself, and goes on when that has ended.
    Waiting,
    /// Each writer has one entry under way and submits the next when that is durable. Here one thread is the core's
    /// loop for all of them; a peer gets a thread for each, because that is how it is used.
    Asynchronous,
    /// No log: one block written to a file of zeros and synced, as the least that any log can cost.
    Device,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// How its writers wait.
    pub kind: Kind,
    /// How many there are.
    pub writers: u32,
    /// Entries that each commit of a writer carries.
    pub entries: u32,
    /// Bytes of each entry's payload.
    pub payload_bytes: usize,
}

/// All workloads, in the order in which they run.
pub const WORKLOADS: [Workload; 7] = [
    DEVICE,
    Workload { name: "lone-256", kind: Kind::Waiting, writers: 1, entries: 1, payload_bytes: 256 },
    Workload { name: "lone-4k", kind: Kind::Waiting, writers: 1, entries: 1, payload_bytes: 4096 },
    Workload { name: "async-1", kind: Kind::Asynchronous, writers: 1, entries: 1, payload_bytes: 256 },
    Workload { name: "async-64", kind: Kind::Asynchronous, writers: 64, entries: 1, payload_bytes: 256 },
    Workload { name: "batch-64", kind: Kind::Waiting, writers: 1, entries: 64, payload_bytes: 256 },
    Workload { name: "batch-256", kind: Kind::Waiting, writers: 1, entries: 256, payload_bytes: 256 },
];

/// The bare device, which a lone commit is compared with.
pub const DEVICE: Workload =
    Workload { name: "device", kind: Kind::Device, writers: 1, entries: 1, payload_bytes: 4096 };

/// The workload that the bare device is the measure of.
pub const LONE: &str = "lone-256";

/// Finds a workload by its name.
pub fn parse(name: &str) -> Result<Workload, String> {
    named::find(&WORKLOADS, |workload| workload.name, name)
}

/// What to run for a list of names: each once, in the order of the table. The device comes before the lone commit that
/// is compared with it, asked for or not.
pub fn chosen(named: &[Workload]) -> Vec<Workload> {
    let is_named = |name: &str| named.is_empty() || named.iter().any(|workload| workload.name == name);
    let is_wanted = |name: &str| is_named(name) || name == DEVICE.name && is_named(LONE);
    WORKLOADS.into_iter().filter(|workload| is_wanted(workload.name)).collect()
}

/// Payloads that no compression makes smaller. They are slices of one buffer, as those of a node are slices of what
/// it received.
pub struct Payloads {
    buffer: Bytes,
    payload_bytes: usize,
    count: u64,
}

impl Payloads {
    /// So much that the payloads of a commit differ, and so little that the buffer stays near the processor.
    const BUFFER_BYTES: usize = 1 << 20;

    /// Payloads of one length.
    pub fn new(payload_bytes: usize) -> Payloads {
        let count = (Self::BUFFER_BYTES / payload_bytes).max(1);
        let mut dice = Dice::new(payload_bytes as u64);
        let words = (count * payload_bytes).div_ceil(8);
        let buffer: Vec<u8> = (0..words).flat_map(|_| dice.next().to_le_bytes()).collect();
        Payloads { buffer: Bytes::from(buffer), payload_bytes, count: count as u64 }
    }

    /// The payload of an entry by its place among all entries.
    pub fn get(&self, place: u64) -> Bytes {
        let begin = (place % self.count) as usize * self.payload_bytes;
        self.buffer.slice(begin..begin + self.payload_bytes)
    }
}

/// Where entries go: to some groups in rotation, with consecutive indexes in each.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    first_group: u64,
    step: u64,
    groups: u64,
}

impl Rotation {
    /// All entries of a log with so many groups, which are numbered from one.
    pub fn all(groups: u32) -> Rotation {
        Rotation::share(groups, 0, 1)
    }

    /// The entries of one of several writers that share the groups out among themselves, so that none waits for
    /// another's index. There are at least as many groups as writers.
    pub fn share(groups: u32, writer: u32, writers: u32) -> Rotation {
        assert!(writer < writers && writers <= groups, "each of {writers} writers has a group of its own");
        let groups = (groups - writer).div_ceil(writers);
        Rotation { first_group: u64::from(writer) + 1, step: u64::from(writers), groups: u64::from(groups) }
    }

    /// How many groups take part.
    pub fn groups(&self) -> u64 {
        self.groups
    }

    /// Group and index of an entry by its place.
    pub fn at(&self, place: u64) -> (u64, u64) {
        (self.first_group + place % self.groups * self.step, place / self.groups + 1)
    }

    /// How many of the first so many entries are in a group.
    pub fn count_in(&self, group: u64, entries: u64) -> u64 {
        let place = (group - self.first_group) / self.step;
        entries / self.groups + u64::from(place < entries % self.groups)
    }
}

/// The writes of one commit, built again and again in the same memory.
pub struct Batch {
    rotation: Rotation,
    payloads: Payloads,
    made: u64,
    writes: Vec<(GroupId, Write)>,
    used: usize,
    /// How many entries of a group are kept; none is ever given up without it.
    keeps: Option<u64>,
}

/// Entries of a group between two of its compactions.
const COMPACT_EVERY: u64 = 512;

impl Batch {
    /// The term of all entries.
    pub const TERM: Term = Term(1);

    /// A batch of nothing yet.
    pub fn new(rotation: Rotation, payload_bytes: usize) -> Batch {
        Batch { rotation, payloads: Payloads::new(payload_bytes), made: 0, writes: Vec::new(), used: 0, keeps: None }
    }

    /// Gives up all but the last so many entries of each group now and then, as a node does that has applied them.
    pub fn keep(self, entries: u64) -> Batch {
        Batch { keeps: Some(entries), ..self }
    }

    /// What is given up with the entry at `index`.
    fn compaction(&self, index: u64) -> Option<Compaction> {
        let to = index.checked_sub(self.keeps?).filter(|to| *to > 0 && index.is_multiple_of(COMPACT_EVERY))?;
        Some(Compaction { to: LogId::new(Index(to), Self::TERM), reset: false })
    }

    /// Takes the next so many entries, in place of those from before.
    pub fn fill(&mut self, entries: u32) {
        let width = u64::from(entries).min(self.rotation.groups()) as usize;
        self.used = width;
        while self.writes.len() < width {
            self.writes.push((GroupId(0), Write::default()));
        }
        for turn in 0..entries as usize {
            let (group, index) = self.rotation.at(self.made);
            let compaction = self.compaction(index);
            let (id, write) = &mut self.writes[turn % width];
            if turn < width {
                write.compact = None;
                *id = GroupId(group);
                write.number = WriteNumber(index);
                write.entries.clear();
            }
            let payload = self.payloads.get(self.made);
            write.compact = write.compact.or(compaction);
            write.entries.push(Entry::command(LogId::new(Index(index), Self::TERM), payload));
            self.made += 1;
        }
    }

    /// The writes of the entries taken last.
    pub fn writes(&self) -> &[(GroupId, Write)] {
        &self.writes[..self.used]
    }

    /// How many entries were ever taken.
    pub fn made(&self) -> u64 {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn names_are_found_and_the_device_comes_with_the_lone_commit() {
        let named = |names: &[&str]| -> Vec<&str> {
            let named: Vec<Workload> = names.iter().map(|name| parse(name).unwrap()).collect();
            chosen(&named).iter().map(|workload| workload.name).collect()
        };
        assert_eq!(named(&["batch-64", "lone-256", "batch-64"]), ["device", "lone-256", "batch-64"]);
        assert_eq!(named(&["async-64"]), ["async-64"]);
        assert_eq!(named(&["device"]), ["device"]);
        assert_eq!(named(&[]).len(), WORKLOADS.len());
        assert!(parse("lone").unwrap_err().contains("lone-256, lone-4k"));
    }

    #[test]
    fn payloads_do_not_repeat_within_a_commit() {
        for workload in WORKLOADS {
            let payloads = Payloads::new(workload.payload_bytes);
            let commit: BTreeSet<Bytes> = (0..u64::from(workload.entries)).map(|place| payloads.get(place)).collect();
            assert_eq!(commit.len() as u32, workload.entries, "{}", workload.name);
            assert!(commit.iter().all(|payload| payload.len() == workload.payload_bytes));
        }
        assert_eq!(Payloads::new(4).get(0), Payloads::new(4).get(1 << 18), "the buffer is used again");
    }

    /// Writers that share the groups out touch every group, no group twice, and none leaves an index out.
    #[test]
    fn every_group_gets_consecutive_indexes_of_one_writer() {
        for (groups, writers) in [(64, 64), (7, 3), (64, 1)] {
            let mut indexes: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for writer in 0..writers {
                let rotation = Rotation::share(groups, writer, writers);
                for place in 0..100 {
                    let (group, index) = rotation.at(place);
                    indexes.entry(group).or_default().push(index);
                }
                let first = u64::from(writer) + 1;
                assert_eq!(rotation.count_in(first, 100), indexes[&first].len() as u64);
            }
            assert_eq!(indexes.keys().copied().collect::<Vec<u64>>(), (1..=u64::from(groups)).collect::<Vec<_>>());
            for found in indexes.values() {
                assert_eq!(*found, (1..=found.len() as u64).collect::<Vec<_>>(), "{groups} groups, {writers} writers");
            }
        }
    }

    #[test]
    fn a_batch_that_keeps_few_entries_gives_up_the_others_in_strides() {
        let mut batch = Batch::new(Rotation::all(2), 16).keep(100);
        let mut given_up = Vec::new();
        for _ in 0..700 {
            batch.fill(3);
            given_up.extend(batch.writes().iter().filter_map(|(group, write)| {
                write.compact.map(|compaction| (group.0, compaction.to.index.0, compaction.reset))
            }));
        }
        assert_eq!(given_up, [(1, 412, false), (2, 412, false), (1, 924, false), (2, 924, false)]);
    }

    #[test]
    fn a_batch_goes_on_where_the_last_one_ended() {
        let mut batch = Batch::new(Rotation::all(3), 16);
        let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (entries, writes) in [(2, 2), (7, 3), (1, 1), (5, 3)] {
            batch.fill(entries);
            assert_eq!(batch.writes().len(), writes, "one write for each group of {entries} entries");
            assert_eq!(batch.writes().iter().map(|(_, write)| write.entries.len()).sum::<usize>() as u32, entries);
            for (group, write) in batch.writes() {
                let indexes = write.entries.iter().map(|entry| entry.id.index.0);
                found.entry(group.0).or_default().extend(indexes);
            }
        }
        assert_eq!(batch.made(), 15);
        for group in 1..=3 {
            assert_eq!(found[&group], [1, 2, 3, 4, 5], "group {group}");
        }
    }
}
