//! A log on a disk in memory, a model of what it should hold, and random numbers from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::{
    ClusterId, Compaction, CoreWriteNumber, Creation, Entry, EntryKind, GroupId, HardState, Index, LogId, NodeId,
    ReplicaId, Term, Write,
};
use pontoon_wal::format::control::Control;
use pontoon_wal::format::group::GroupHeader;
use pontoon_wal::format::segment_header::SegmentHeader;
use pontoon_wal::format::{BLOCK_BYTES, SegmentId};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::{Log, LogError, LogIdentity, Options, Preparation, Recovered};

pub const IDENTITY: LogIdentity = LogIdentity { cluster: ClusterId(0xc1), node: NodeId(1), log: 0x1091 };

pub fn small() -> Options {
    Options {
        // A header, seven blocks of groups and a footer.
        segment_bytes: 36 << 10,
        max_log_bytes: 8 << 20,
        group_bytes_max: 16 << 10,
        ready_segments: 2,
        // None: these logs are looked at from their first segment on.
        checkpoint_segments: 1000,
        ..Options::default()
    }
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// One group as a log holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelGroup {
    pub replica: ReplicaId,
    pub descriptor: Bytes,
    pub hard_state: HardState,
    pub compacted: LogId,
    /// What was last said of it, within the log.
    pub committed: Index,
    /// From the first index behind `compacted`.
    pub entries: Vec<Entry>,
    /// Entries whose payload is rotten.
    pub lost: Vec<Index>,
}

impl ModelGroup {
    /// The first index behind what was given up.
    pub fn first(&self) -> u64 {
        self.compacted.index.0 + 1
    }

    /// The index of the next entry.
    pub fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }
}

/// What the log should hold.
pub type Model = BTreeMap<GroupId, ModelGroup>;

/// An open log's groups with their entries, and what else the open said.
pub struct Opened {
    pub groups: Model,
    recovered: Recovered,
}

impl Opened {
    /// Whether a group's vote is not known.
    pub fn recovered_vote_lost(&self, group: GroupId) -> bool {
        self.recovered.groups[&group].vote_lost
    }
}

impl std::ops::Deref for Opened {
    type Target = Recovered;

    fn deref(&self) -> &Recovered {
        &self.recovered
    }
}

/// Reads all entries of an open log.
pub fn opened(log: &mut Log, recovered: Recovered) -> Opened {
    try_opened(log, recovered).unwrap()
}

/// The same, for a log that was damaged.
pub fn try_opened(log: &mut Log, recovered: Recovered) -> Result<Opened, LogError> {
    let mut groups = Model::new();
    for (id, group) in &recovered.groups {
        let loaded = log.load(*id).map_err(|why| LogError::Unreadable { why: why.to_string() })?;
        let last = loaded.entries.last().map_or(group.compacted, |entry| entry.id);
        assert_eq!(last, group.last, "the end of {id} is the last of its entries");
        let state = ModelGroup {
            replica: group.replica,
            descriptor: group.descriptor.clone(),
            hard_state: group.hard_state,
            compacted: group.compacted,
            committed: group.committed,
            entries: loaded.entries,
            lost: loaded.lost,
        };
        groups.insert(*id, state);
    }
    Ok(Opened { groups, recovered })
}

/// What a running log holds of a group.
pub fn holds(log: &mut Log, group: u64) -> Vec<Entry> {
    log.load(GroupId(group)).unwrap().entries
}

pub fn created(groups: u64) -> Vec<(GroupId, Creation)> {
    let creation = |group| Creation { replica: ReplicaId(1), descriptor: Bytes::from(format!("descriptor {group}")) };
    (2..2 + groups).map(|group| (GroupId(group), creation(group))).collect()
}

pub fn model_of(groups: &[(GroupId, Creation)]) -> Model {
    let empty = |creation: &Creation| ModelGroup {
        replica: creation.replica,
        descriptor: creation.descriptor.clone(),
        ..ModelGroup::default()
    };
    groups.iter().map(|(group, creation)| (*group, empty(creation))).collect()
}

pub fn apply(model: &mut Model, writes: &[(GroupId, Write)]) {
    for (group, write) in writes {
        if let Some(creation) = &write.create {
            model.extend(model_of(&[(*group, (**creation).clone())]));
        }
        let state = model.get_mut(group).unwrap();
        if let Some(hard_state) = write.hard_state {
            state.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            state.entries.truncate((from.0 - state.first()) as usize);
        }
        // A cut takes it along also where the same write appends again.
        state.committed = state.committed.min(Index(state.next() - 1));
        state.entries.extend(write.entries.iter().cloned());
        state.committed = write.committed.unwrap_or(state.committed).min(Index(state.next() - 1));
        for restored in &write.restored {
            if let Some(position) = state.entries.iter().position(|entry| entry.id == restored.id) {
                state.entries[position].payload = restored.payload.clone();
                state.lost.retain(|index| *index != restored.id.index);
            }
        }
        if let Some(Compaction { to, reset }) = write.compact {
            let gone = (to.index.0 + 1 - state.first()).min(state.entries.len() as u64) as usize;
            state.entries.drain(..if reset { state.entries.len() } else { gone });
            state.compacted = to;
        }
        state.committed = state.committed.max(state.compacted.index);
        if write.remove.is_some() {
            model.remove(group);
        }
    }
}

/// Gives up everything to and including an index.
pub fn compact(group: u64, index: u64, term: u64) -> (GroupId, Write) {
    let to = LogId::new(Index(index), Term(term));
    (GroupId(group), Write { compact: Some(Compaction { to, reset: false }), ..Write::default() })
}

/// The last index that is given up where the newest entry is `last` and each fifth one gives up all but twenty.
pub fn given_up(last: u64) -> u64 {
    (last - last % 5).saturating_sub(20)
}

/// The compaction that goes with an entry of a group in term 1, if one does.
pub fn gives_up(group: u64, index: u64) -> Option<(GroupId, Write)> {
    (index > 20 && index.is_multiple_of(5)).then(|| compact(group, given_up(index), 1))
}

/// An entry. Now and then one that holds a configuration, so that every test has runs of both kinds.
pub fn entry(index: u64, term: u64, payload: impl Into<Bytes>) -> Entry {
    let kind = if index % 100 == 17 { EntryKind::Configuration } else { EntryKind::Command };
    Entry { id: LogId::new(Index(index), Term(term)), kind, payload: payload.into() }
}

pub fn entries(group: u64, entries: Vec<Entry>) -> (GroupId, Write) {
    (GroupId(group), Write { entries, ..Write::default() })
}

pub fn vote(group: u64, term: u64, replica: u64) -> (GroupId, Write) {
    let hard_state = Some(HardState { term: Term(term), vote: Some(ReplicaId(replica)) });
    (GroupId(group), Write { hard_state, ..Write::default() })
}

/// A log on a disk in memory, with the shell's part played by hand.
pub struct Rig {
    pub disk: MemoryDisk,
    pub options: Options,
}

impl Rig {
    pub fn new(options: Options, groups: u64) -> Rig {
        let disk = MemoryDisk::new();
        Log::create_in(&disk, IDENTITY, &options, &created(groups)).unwrap();
        Rig { disk, options }
    }

    pub fn try_open(&self) -> Result<(Log, Opened), LogError> {
        let disk = Arc::new(self.disk.clone());
        let (mut log, recovered) = Log::open_in(disk, IDENTITY, &self.options, Preparation::Inline)?;
        let opened = try_opened(&mut log, recovered)?;
        Ok((log, opened))
    }

    pub fn open(&self) -> (Log, Opened) {
        self.try_open().unwrap()
    }

    /// Syncs everything gathered.
    pub fn flush(&self, log: &mut Log) {
        while let Some(sync) = log.begin_sync().unwrap() {
            assert_eq!(log.finish_sync(self.disk.sync(sync.fd)).unwrap(), sync.through);
        }
        assert!(!log.is_gathered());
    }

    /// One durable core write.
    pub fn commit(&self, log: &mut Log, number: u64, writes: &[(GroupId, Write)]) {
        log.append(CoreWriteNumber(number), writes);
        self.flush(log);
    }

    /// One durable SEAL.
    pub fn seal(&self, log: &mut Log) {
        let sync = log.begin_seal().unwrap().expect("an idle log can be sealed");
        log.finish_sync(self.disk.sync(sync.fd)).unwrap();
    }

    /// Opening must fail and change nothing.
    pub fn refused(&self) -> LogError {
        let before = self.disk.image();
        let error = self.try_open().err().expect("the log must be refused");
        assert!(before == self.disk.image(), "a refused log is left as it is: {error}");
        error
    }

    pub fn slots(&self) -> Vec<String> {
        self.disk.image().into_keys().filter(|name| name.ends_with(".seg")).collect()
    }

    /// Changes bytes on the medium.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.disk.content(name).unwrap();
        change(&mut content);
        self.disk.replace(name, content);
    }

    /// What the control file says.
    pub fn control(&self) -> Control {
        let ctl = self.disk.content("ctl").unwrap();
        let blocks = ctl.chunks(BLOCK_BYTES).filter_map(|block| Control::decode(block).ok());
        blocks.max_by_key(|control| control.generation).unwrap()
    }

    /// The file of a segment.
    pub fn slot_of(&self, segment: SegmentId) -> String {
        let holds = |name: &String| self.header(name).is_some_and(|header| header.segment == segment);
        self.slots().into_iter().find(holds).unwrap()
    }

    /// The header of a segment file that was ever used.
    pub fn header(&self, name: &str) -> Option<SegmentHeader> {
        SegmentHeader::decode(&self.disk.content(name)?).ok()
    }

    /// The segment file written last, by its groups.
    pub fn newest(&self) -> String {
        let newest = |name: &String| groups_in(&self.disk.content(name).unwrap()).last().map(|(_, header)| header.seq);
        self.slots().into_iter().max_by_key(newest).unwrap()
    }
}

/// Offsets and headers of all groups in a segment's bytes.
pub fn groups_in(content: &[u8]) -> Vec<(usize, GroupHeader)> {
    let header = |at: usize| Some((at, GroupHeader::decode(&content[at..], IDENTITY.log, at as u64).ok()?.0));
    (BLOCK_BYTES..content.len()).step_by(BLOCK_BYTES).filter_map(header).collect()
}
