//! A log on a disk in memory, a model of what it should hold, and random numbers from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::{
    ClusterId, CoreWriteNumber, Entry, GroupId, HardState, Index, LogId, NodeId, ReplicaId, Term, Write,
};
use pontoon_wal::format::BLOCK_BYTES;
use pontoon_wal::format::group::GroupHeader;
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::{Log, LogError, LogIdentity, Options, Preparation, Recovered, RecoveredGroup};

pub const IDENTITY: LogIdentity = LogIdentity { cluster: ClusterId(0xc1), node: NodeId(1), log: 0x1091 };

pub fn small() -> Options {
    Options { segment_bytes: 32 << 10, max_log_bytes: 8 << 20, group_bytes_max: 16 << 10, ready_segments: 2 }
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

/// What the log should hold.
pub type Model = BTreeMap<GroupId, RecoveredGroup>;

pub fn created(groups: u64) -> Vec<(GroupId, Bytes)> {
    (2..2 + groups).map(|group| (GroupId(group), Bytes::from(format!("descriptor {group}")))).collect()
}

pub fn model_of(groups: &[(GroupId, Bytes)]) -> Model {
    let empty = |descriptor: &Bytes| RecoveredGroup {
        descriptor: descriptor.clone(),
        hard_state: HardState::default(),
        entries: Vec::new(),
    };
    groups.iter().map(|(group, descriptor)| (*group, empty(descriptor))).collect()
}

pub fn apply(model: &mut Model, writes: &[(GroupId, Write)]) {
    for (group, write) in writes {
        let state = model.get_mut(group).unwrap();
        if let Some(hard_state) = write.hard_state {
            state.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            state.entries.truncate(from.0 as usize - 1);
        }
        state.entries.extend(write.entries.iter().cloned());
    }
}

pub fn entry(index: u64, term: u64, payload: impl Into<Bytes>) -> Entry {
    Entry { id: LogId::new(Index(index), Term(term)), payload: payload.into() }
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

    pub fn try_open(&self) -> Result<(Log, Recovered), LogError> {
        Log::open_in(Arc::new(self.disk.clone()), IDENTITY, &self.options, Preparation::Inline)
    }

    pub fn open(&self) -> (Log, Recovered) {
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
