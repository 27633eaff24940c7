//! The directory of a group: runs of records, in the order in which they were written (law 14).
//!
//! A run is one statement about one Raft group. Its records point at payloads; runs without payloads have none.
//!
//! ```text
//! run      0      1       2   4       8       16      24     32
//!          | kind | flags | 0 | count | group | index | term |
//! record   0                            4        8     12
//!          | offset in 16-byte units    | length | crc |
//! ```
//!
//! | kind | index | term | records |
//! |---|---|---|---|
//! | `ENTRIES` | of the first entry | of all entries | one for each consecutive entry |
//! | `HARD_STATE` | the replica voted for | the term | none; flag 1 says that there is a vote |
//! | `TRUNCATE` | the first index that is cut | 0 | none |
//! | `GROUP_CREATE` | 0 | 0 | one: the descriptor, opaque here |
//!
//! A reader skips unknown kinds from 0x80 on, and refuses the log for an unknown kind below.

use pontoon_types::{GroupId, HardState, Index, ReplicaId, Term};

use super::{Fault, PAYLOAD_ALIGN_BYTES, put, u32_at, u64_at};

/// Consecutive entries of one Raft group and one term.
pub const KIND_ENTRIES: u8 = 1;
/// Term and vote of one Raft group.
pub const KIND_HARD_STATE: u8 = 2;
/// The cut before an overwrite.
pub const KIND_TRUNCATE: u8 = 3;
/// A Raft group begins to exist in this log.
pub const KIND_GROUP_CREATE: u8 = 4;
/// Kinds from here on may be skipped by a reader that does not know them.
pub const KIND_SKIPPABLE_MIN: u8 = 0x80;

/// Length of a run's head.
pub const RUN_BYTES: usize = TERM_AT + 8;
/// Length of one record.
pub const RECORD_BYTES: usize = RECORD_CRC_AT + 4;

const FLAG_VOTED: u8 = 1;

const KIND_AT: usize = 0;
const FLAGS_AT: usize = KIND_AT + 1;
const COUNT_AT: usize = FLAGS_AT + 3;
const GROUP_AT: usize = COUNT_AT + 4;
const INDEX_AT: usize = GROUP_AT + 8;
const TERM_AT: usize = INDEX_AT + 8;

const RECORD_OFFSET_AT: usize = 0;
const RECORD_LENGTH_AT: usize = RECORD_OFFSET_AT + 4;
const RECORD_CRC_AT: usize = RECORD_LENGTH_AT + 4;

/// The head of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHead {
    /// One of the kinds above, or one that is skipped.
    pub kind: u8,
    /// Bits of the kind.
    pub flags: u8,
    /// How many records follow.
    pub count: u32,
    /// The Raft group.
    pub group: GroupId,
    /// See the table of kinds.
    pub index: u64,
    /// See the table of kinds.
    pub term: u64,
}

/// Where one payload lies, relative to the first payload of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// First byte, a multiple of [`PAYLOAD_ALIGN_BYTES`].
    pub offset: usize,
    /// Its length.
    pub length: usize,
    /// Its crc32.
    pub crc: u32,
}

impl RunHead {
    /// Entries from `first` on, all of `term`.
    pub fn entries(group: GroupId, first: Index, term: Term, count: u32) -> RunHead {
        RunHead { kind: KIND_ENTRIES, flags: 0, count, group, index: first.0, term: term.0 }
    }

    /// Term and vote.
    pub fn hard_state(group: GroupId, state: HardState) -> RunHead {
        let flags = if state.vote.is_some() { FLAG_VOTED } else { 0 };
        let index = state.vote.map_or(0, |vote| vote.0);
        RunHead { kind: KIND_HARD_STATE, flags, count: 0, group, index, term: state.term.0 }
    }

    /// Everything from `from` on is cut.
    pub fn truncate(group: GroupId, from: Index) -> RunHead {
        RunHead { kind: KIND_TRUNCATE, flags: 0, count: 0, group, index: from.0, term: 0 }
    }

    /// The group begins to exist.
    pub fn create(group: GroupId) -> RunHead {
        RunHead { kind: KIND_GROUP_CREATE, flags: 0, count: 1, group, index: 0, term: 0 }
    }

    /// The hard state that a `HARD_STATE` run says.
    pub fn as_hard_state(&self) -> HardState {
        let vote = (self.flags & FLAG_VOTED != 0).then_some(ReplicaId(self.index));
        HardState { term: Term(self.term), vote }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; RUN_BYTES] {
        let mut bytes = [0; RUN_BYTES];
        bytes[KIND_AT] = self.kind;
        bytes[FLAGS_AT] = self.flags;
        put(&mut bytes, COUNT_AT, self.count.to_le_bytes());
        put(&mut bytes, GROUP_AT, self.group.0.to_le_bytes());
        put(&mut bytes, INDEX_AT, self.index.to_le_bytes());
        put(&mut bytes, TERM_AT, self.term.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> RunHead {
        RunHead {
            kind: bytes[KIND_AT],
            flags: bytes[FLAGS_AT],
            count: u32_at(bytes, COUNT_AT),
            group: GroupId(u64_at(bytes, GROUP_AT)),
            index: u64_at(bytes, INDEX_AT),
            term: u64_at(bytes, TERM_AT),
        }
    }

    /// Whether the numbers make sense for the kind.
    fn check(&self) -> Result<(), Fault> {
        let fits = match self.kind {
            KIND_ENTRIES => self.flags == 0 && self.count > 0 && self.index.checked_add(self.count.into()).is_some(),
            KIND_HARD_STATE => self.flags & !FLAG_VOTED == 0 && self.count == 0,
            KIND_TRUNCATE => self.flags == 0 && self.count == 0,
            KIND_GROUP_CREATE => self.flags == 0 && self.count == 1,
            KIND_SKIPPABLE_MIN.. => true,
            kind => return Err(Fault::UnknownKind(kind)),
        };
        if fits { Ok(()) } else { Err(Fault::Bad("a run of the directory contradicts its kind")) }
    }
}

impl Record {
    /// The bytes.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        put(&mut bytes, RECORD_OFFSET_AT, ((self.offset / PAYLOAD_ALIGN_BYTES) as u32).to_le_bytes());
        put(&mut bytes, RECORD_LENGTH_AT, (self.length as u32).to_le_bytes());
        put(&mut bytes, RECORD_CRC_AT, self.crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Record {
        Record {
            offset: u32_at(bytes, RECORD_OFFSET_AT) as usize * PAYLOAD_ALIGN_BYTES,
            length: u32_at(bytes, RECORD_LENGTH_AT) as usize,
            crc: u32_at(bytes, RECORD_CRC_AT),
        }
    }
}

/// One run and its records.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What it says.
    pub head: RunHead,
    records: &'a [u8],
}

impl<'a> Run<'a> {
    /// Its records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<'a> {
        self.records.chunks_exact(RECORD_BYTES).map(Record::decode)
    }
}

/// Walks a directory. Ends at the first run that does not fit, which a checked directory does not have.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    rest: &'a [u8],
}

impl<'a> Runs<'a> {
    /// The runs of a directory.
    pub fn new(directory: &'a [u8]) -> Runs<'a> {
        Runs { rest: directory }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (head, rest) = self.rest.split_at_checked(RUN_BYTES)?;
        let head = RunHead::decode(head);
        let (records, rest) = rest.split_at_checked((head.count as usize).checked_mul(RECORD_BYTES)?)?;
        self.rest = rest;
        Some(Run { head, records })
    }
}

/// Checks each run, each record and each payload of a directory whose own checksum was right.
pub fn check_directory(directory: &[u8], runs: u32, payloads: &[u8]) -> Result<(), Fault> {
    let mut walk = Runs::new(directory);
    for _ in 0..runs {
        let run = walk.next().ok_or(Fault::Bad("the directory is shorter than its runs"))?;
        run.head.check()?;
        for record in run.records() {
            let end = record.offset.checked_add(record.length).ok_or(Fault::Bad("a payload ends nowhere"))?;
            let payload = payloads.get(record.offset..end).ok_or(Fault::Bad("a payload lies outside its group"))?;
            if crc32fast::hash(payload) != record.crc {
                return Err(Fault::Bad("the checksum of a payload is wrong"));
            }
        }
    }
    if walk.rest.is_empty() { Ok(()) } else { Err(Fault::Bad("the directory is longer than its runs")) }
}
