//! What a checkpoint says: the state of every Raft group at one end of the log.
//!
//! A checkpoint is a row of groups of records in the checkpoint stream, framed and summed like any other. The control
//! file names its start and its end, so a checkpoint that is not whole is none.
//!
//! ```text
//! CHECKPOINT   0                32       40         48
//!              | covered end    | groups | segments |                first of all
//! SEGMENT      0            8      12     16       18  24
//!              | end offset | slot | salt | stream | 0 |             one for each segment that the runs lie in
//! TOMBSTONE    a run as in the log                                   one for each dead group
//! GROUP_STATE  0      8       12     16                24               32          40
//!              | vote | flags | runs | compacted index | compacted term | last term | descriptor ... |
//! GROUP_RUNS   0             8       12        16        20            24
//!              | first index | count | segment | head at | payloads at | next run ...
//! ```
//!
//! A run says where consecutive entries of one term lie: `segment` is the low half of the segment's id, `head at` the
//! offset of the head of their run in the file, `payloads at` that of the first payload of their group of records.
//! The first entries of that run may be missing here: they were given up.

use pontoon_types::{Index, LogId, Term};

use super::segment_header::Stream;
use super::{Fault, LOG_END_BYTES, LogEnd, SegmentId, SegmentKey, put, u16_at, u32_at, u64_at};

/// Length of the record of `CHECKPOINT`.
pub const HEAD_BYTES: usize = LOG_END_BYTES + 16;
/// Length of the record of `SEGMENT`.
pub const SEGMENT_FACT_BYTES: usize = 24;
/// Length of the record of `GROUP_STATE` before the descriptor.
pub const GROUP_STATE_BYTES: usize = 40;
/// Length of one run in the record of `GROUP_RUNS`.
pub const RUN_PLACE_BYTES: usize = 24;

const FLAG_VOTE_LOST: u32 = 1;

/// The head of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Everything up to here is in the checkpoint: the end of a segment.
    pub covered: LogEnd,
    /// How many Raft groups follow.
    pub groups: u64,
    /// How many segments follow.
    pub segments: u64,
}

impl Head {
    /// The record.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        put(&mut bytes, 0, self.covered.encode());
        put(&mut bytes, LOG_END_BYTES, self.groups.to_le_bytes());
        put(&mut bytes, LOG_END_BYTES + 8, self.segments.to_le_bytes());
        bytes
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Head, Fault> {
        expect_length(bytes.len() == HEAD_BYTES)?;
        let (groups, segments) = (u64_at(bytes, LOG_END_BYTES), u64_at(bytes, LOG_END_BYTES + 8));
        Ok(Head { covered: LogEnd::decode(bytes, 0), groups, segments })
    }
}

/// How a segment that is needed is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFact {
    /// Its id.
    pub segment: SegmentId,
    /// The first byte behind its last group.
    pub end_offset: u64,
    /// The number of its file.
    pub slot: u32,
    /// Its salt.
    pub salt: u32,
    /// Its stream: never `Checkpoint`.
    pub stream: Stream,
}

impl SegmentFact {
    /// The record; the id stands in the run's head.
    pub fn encode(&self) -> [u8; SEGMENT_FACT_BYTES] {
        let mut bytes = [0; SEGMENT_FACT_BYTES];
        put(&mut bytes, 0, self.end_offset.to_le_bytes());
        put(&mut bytes, 8, self.slot.to_le_bytes());
        put(&mut bytes, 12, self.salt.to_le_bytes());
        put(&mut bytes, 16, self.stream.number().to_le_bytes());
        bytes
    }

    /// Reads the record.
    pub fn decode(segment: SegmentId, bytes: &[u8]) -> Result<SegmentFact, Fault> {
        expect_length(bytes.len() == SEGMENT_FACT_BYTES)?;
        let number = u16_at(bytes, 16);
        let stream = Stream::from_number(number).ok_or(Fault::UnknownStream(number))?;
        let (end_offset, slot, salt) = (u64_at(bytes, 0), u32_at(bytes, 8), u32_at(bytes, 12));
        Ok(SegmentFact { segment, end_offset, slot, salt, stream })
    }
}

/// All of a Raft group but what stands in the run's head, its descriptor and its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFact {
    /// The replica voted for; without meaning if the flag of the run's head says that there is none.
    pub vote: u64,
    /// Whether the vote is not known any more.
    pub vote_lost: bool,
    /// How many runs follow in `GROUP_RUNS`.
    pub runs: u32,
    /// Everything up to here is given up.
    pub compacted: LogId,
    /// The term of the last entry; 0 if that is only known from the entry itself.
    pub last_term: Term,
}

impl GroupFact {
    /// The record without the descriptor.
    pub fn encode(&self) -> [u8; GROUP_STATE_BYTES] {
        let mut bytes = [0; GROUP_STATE_BYTES];
        let flags = if self.vote_lost { FLAG_VOTE_LOST } else { 0 };
        put(&mut bytes, 0, self.vote.to_le_bytes());
        put(&mut bytes, 8, flags.to_le_bytes());
        put(&mut bytes, 12, self.runs.to_le_bytes());
        put(&mut bytes, 16, self.compacted.index.0.to_le_bytes());
        put(&mut bytes, 24, self.compacted.term.0.to_le_bytes());
        put(&mut bytes, 32, self.last_term.0.to_le_bytes());
        bytes
    }

    /// Reads the record; the descriptor is the rest.
    pub fn decode(bytes: &[u8]) -> Result<GroupFact, Fault> {
        expect_length(bytes.len() >= GROUP_STATE_BYTES)?;
        let flags = u32_at(bytes, 8);
        if flags & !FLAG_VOTE_LOST != 0 {
            return Err(Fault::UnknownFlags(flags));
        }
        Ok(GroupFact {
            vote: u64_at(bytes, 0),
            vote_lost: flags & FLAG_VOTE_LOST != 0,
            runs: u32_at(bytes, 12),
            compacted: LogId::new(Index(u64_at(bytes, 16)), Term(u64_at(bytes, 24))),
            last_term: Term(u64_at(bytes, 32)),
        })
    }
}

/// Where consecutive entries of one Raft group and one term lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPlace {
    /// The first entry.
    pub first: Index,
    /// How many there are.
    pub count: u32,
    /// The segment.
    pub segment: SegmentKey,
    /// The offset of the head of their run in the file.
    pub head_at: u32,
    /// The offset of the first payload of their group of records.
    pub payloads_at: u32,
}

impl RunPlace {
    /// The bytes.
    pub fn encode(&self) -> [u8; RUN_PLACE_BYTES] {
        let mut bytes = [0; RUN_PLACE_BYTES];
        put(&mut bytes, 0, self.first.0.to_le_bytes());
        put(&mut bytes, 8, self.count.to_le_bytes());
        put(&mut bytes, 12, self.segment.0.to_le_bytes());
        put(&mut bytes, 16, self.head_at.to_le_bytes());
        put(&mut bytes, 20, self.payloads_at.to_le_bytes());
        bytes
    }

    /// Reads all runs of one record.
    pub fn decode_all(bytes: &[u8]) -> Result<impl Iterator<Item = RunPlace> + '_, Fault> {
        expect_length(bytes.len().is_multiple_of(RUN_PLACE_BYTES))?;
        Ok(bytes.chunks_exact(RUN_PLACE_BYTES).map(|bytes| RunPlace {
            first: Index(u64_at(bytes, 0)),
            count: u32_at(bytes, 8),
            segment: SegmentKey(u32_at(bytes, 12)),
            head_at: u32_at(bytes, 16),
            payloads_at: u32_at(bytes, 20),
        }))
    }
}

fn expect_length(fits: bool) -> Result<(), Fault> {
    if fits { Ok(()) } else { Err(Fault::Bad("a record of a checkpoint has a wrong length")) }
}
