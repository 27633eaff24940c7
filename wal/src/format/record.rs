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
//! | `ENTRIES` | of the first entry | of all entries | one for each consecutive entry; flag 1 says that they are configurations |
//! | `HARD_STATE` | the replica voted for | the term | none; flag 1 says that there is a vote |
//! | `TRUNCATE` | the first index that is cut | 0 | none |
//! | `GROUP_CREATE` | the replica | 0 | one: the descriptor, opaque here |
//! | `RESTORED` | of the first entry | of all entries | like `ENTRIES`, for payloads that the log has lost |
//! | `COMPACT` | the last index given up | its term | none; flag 1 says that all entries go (law 18) |
//! | `TOMBSTONE` | the highest dead replica | 0 | none |
//! | `VOTE_LOST` | 0 | 0 | none: what the replica had voted is not known any more |
//! | `CHECKPOINT` | number of the checkpoint | 0 | one: what it covers |
//! | `SEGMENT` | its id | 0 | one: how it is recognised |
//! | `GROUP_STATE` | the replica | the term | one: all but its runs |
//! | `GROUP_RUNS` | of the first entry | 0 | one: where its entries lie |
//! | `HARD_STATE_ECHO` | as in `HARD_STATE` | as in `HARD_STATE` | none |
//! | `COMMITTED` | the commit index | 0 | none |
//!
//! An echo repeats the hard states of the group of records before, so that there are two copies of each vote: no peer
//! can give a lost one back. It counts only where the first copy cannot be read and its group of records held nothing
//! else: otherwise more is lost than it repeats. The four kinds from `CHECKPOINT` on stand in checkpoints only
//! ([`super::checkpoint`]). The commit index is a hint, which a peer can give back: the last one counts, and in a
//! checkpoint it follows its group.
//!
//! A reader skips unknown kinds from 0x80 on, and refuses the log for an unknown kind below.

use pontoon_types::{Compaction, EntryKind, GroupId, HardState, Index, LogId, ReplicaId, Term};

use super::{Fault, PAYLOAD_ALIGN_BYTES, put, u32_at, u64_at};

/// Consecutive entries of one Raft group, one term and one kind.
pub const KIND_ENTRIES: u8 = 1;
/// Term and vote of one Raft group.
pub const KIND_HARD_STATE: u8 = 2;
/// The cut before an overwrite.
pub const KIND_TRUNCATE: u8 = 3;
/// A Raft group begins to exist in this log.
pub const KIND_GROUP_CREATE: u8 = 4;
/// Payloads of entries that are in the log and were lost.
pub const KIND_RESTORED: u8 = 5;
/// The beginning of a Raft group's log is given up.
pub const KIND_COMPACT: u8 = 6;
/// A Raft group ends to exist in this log.
pub const KIND_TOMBSTONE: u8 = 7;
/// The replica's vote is not known any more.
pub const KIND_VOTE_LOST: u8 = 8;
/// The head of a checkpoint.
pub const KIND_CHECKPOINT: u8 = 16;
/// A segment that a checkpoint refers to.
pub const KIND_SEGMENT: u8 = 17;
/// One Raft group at a checkpoint.
pub const KIND_GROUP_STATE: u8 = 18;
/// Where entries of the Raft group before lie.
pub const KIND_GROUP_RUNS: u8 = 19;
/// Kinds from here on may be skipped by a reader that does not know them.
pub const KIND_SKIPPABLE_MIN: u8 = 0x80;
/// A hard state of the group of records before, once more.
pub const KIND_HARD_STATE_ECHO: u8 = 0x80;
/// How far the replica knew its entries to be committed.
pub const KIND_COMMITTED: u8 = 0x81;

/// Length of a run's head.
pub const RUN_BYTES: usize = TERM_AT + 8;
/// Length of one record.
pub const RECORD_BYTES: usize = RECORD_CRC_AT + 4;

const FLAG_VOTED: u8 = 1;
const FLAG_RESET: u8 = 1;
const FLAG_CONFIGURATION: u8 = 1;

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
    /// Entries from `first` on, all of its term and of `kind`.
    pub fn entries(group: GroupId, first: LogId, kind: EntryKind, count: u32) -> RunHead {
        let flags = if kind == EntryKind::Configuration { FLAG_CONFIGURATION } else { 0 };
        RunHead { kind: KIND_ENTRIES, flags, count, group, index: first.index.0, term: first.term.0 }
    }

    /// What the entries of an `ENTRIES` or `RESTORED` run are for.
    pub fn entry_kind(&self) -> EntryKind {
        if self.flags & FLAG_CONFIGURATION != 0 { EntryKind::Configuration } else { EntryKind::Command }
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

    /// A run that says only this about a group.
    pub fn plain(kind: u8, group: GroupId, index: u64, count: u32) -> RunHead {
        RunHead { kind, flags: 0, count, group, index, term: 0 }
    }

    /// The group begins to exist with this replica.
    pub fn create(group: GroupId, replica: ReplicaId) -> RunHead {
        RunHead::plain(KIND_GROUP_CREATE, group, replica.0, 1)
    }

    /// Everything up to an index is given up.
    pub fn compact(group: GroupId, compaction: Compaction) -> RunHead {
        let flags = if compaction.reset { FLAG_RESET } else { 0 };
        let LogId { term, index } = compaction.to;
        RunHead { kind: KIND_COMPACT, flags, count: 0, group, index: index.0, term: term.0 }
    }

    /// What a `COMPACT` run says.
    pub fn as_compaction(&self) -> Compaction {
        let to = LogId::new(Index(self.index), Term(self.term));
        Compaction { to, reset: self.flags & FLAG_RESET != 0 }
    }

    /// Everything up to `index` is committed.
    pub fn committed(group: GroupId, index: Index) -> RunHead {
        RunHead::plain(KIND_COMMITTED, group, index.0, 0)
    }

    /// A `HARD_STATE` run as its echo.
    pub fn echo(&self) -> RunHead {
        RunHead { kind: KIND_HARD_STATE_ECHO, ..*self }
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

    /// Reads the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> RunHead {
        RunHead {
            kind: bytes[KIND_AT],
            flags: bytes[FLAGS_AT],
            count: u32_at(bytes, COUNT_AT),
            group: GroupId(u64_at(bytes, GROUP_AT)),
            index: u64_at(bytes, INDEX_AT),
            term: u64_at(bytes, TERM_AT),
        }
    }

    /// Whether the flags are known and the numbers make sense for the kind.
    fn check(&self) -> Result<(), Fault> {
        let (known_flags, fits) = match self.kind {
            KIND_ENTRIES | KIND_RESTORED => {
                (FLAG_CONFIGURATION, self.count > 0 && self.index.checked_add(self.count.into()).is_some())
            }
            KIND_HARD_STATE | KIND_HARD_STATE_ECHO => (FLAG_VOTED, self.count == 0),
            KIND_COMPACT => (FLAG_RESET, self.count == 0),
            KIND_TRUNCATE | KIND_TOMBSTONE | KIND_VOTE_LOST | KIND_COMMITTED => (0, self.count == 0),
            KIND_GROUP_CREATE | KIND_CHECKPOINT | KIND_SEGMENT => (0, self.count == 1),
            KIND_GROUP_STATE | KIND_GROUP_RUNS => (FLAG_VOTED, self.count == 1),
            KIND_SKIPPABLE_MIN.. => (u8::MAX, true),
            kind => return Err(Fault::UnknownKind(kind)),
        };
        if self.flags & !known_flags != 0 {
            return Err(Fault::UnknownFlags(self.flags.into()));
        }
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

    /// Reads the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Record {
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
    /// Where its head starts in the directory.
    pub at: usize,
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
    at: usize,
}

impl<'a> Runs<'a> {
    /// The runs of a directory.
    pub fn new(directory: &'a [u8]) -> Runs<'a> {
        Runs { rest: directory, at: 0 }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (head, rest) = self.rest.split_at_checked(RUN_BYTES)?;
        let head = RunHead::decode(head);
        let (records, rest) = rest.split_at_checked((head.count as usize).checked_mul(RECORD_BYTES)?)?;
        let at = self.at;
        self.rest = rest;
        self.at += RUN_BYTES + records.len();
        Some(Run { head, at, records })
    }
}

/// Checks that a directory whose own checksum was right consists of so many runs, each as its kind demands, whose
/// payloads lie inside `payload_len` bytes.
pub fn check_directory(directory: &[u8], runs: u32, payload_len: usize) -> Result<(), Fault> {
    let mut walk = Runs::new(directory);
    for _ in 0..runs {
        let run = walk.next().ok_or(Fault::Bad("the directory is shorter than its runs"))?;
        run.head.check()?;
        for record in run.records() {
            let end = record.offset.checked_add(record.length).ok_or(Fault::Bad("a payload ends nowhere"))?;
            if end > payload_len {
                return Err(Fault::Bad("a payload lies outside its group"));
            }
        }
    }
    if walk.rest.is_empty() { Ok(()) } else { Err(Fault::Bad("the directory is longer than its runs")) }
}

/// Checks the payloads of a checked directory.
pub fn check_payloads(directory: &[u8], payloads: &[u8]) -> Result<(), Fault> {
    let intact =
        |record: Record| crc32fast::hash(&payloads[record.offset..record.offset + record.length]) == record.crc;
    if Runs::new(directory).all(|run| run.records().all(intact)) {
        Ok(())
    } else {
        Err(Fault::Bad("the checksum of a payload is wrong"))
    }
}
