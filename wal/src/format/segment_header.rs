//! The first block of a segment: whose it is, which use of the file, and where the log ended before it.
//!
//! The header and the first group of a segment leave in one write, so rotation costs no sync of its own. A segment
//! whose first group did not survive does not exist: nothing in it was ever acknowledged.
//!
//! A file is used for one of three *streams*. `LOG` segments carry what was appended, one after the other. `COLD`
//! segments carry copies of old entries that are still needed, so that the segments around them can be used again.
//! `CHECKPOINT` segments carry the state of all Raft groups at one end of the log ([`super::checkpoint`]). Cold and
//! checkpoint segments count only as far as a checkpoint refers to them, and number their groups anew.
//!
//! `previous` pins the end of the segment before. What lies behind that place, torn by a crash, is neither read nor
//! changed any more.
//!
//! ```text
//!   0        8         10     12      16        32     40    56        64     68     72         80
//!   | magic  | version |stream| flags | cluster | node | log | segment | salt | slot | base_seq |
//!  80              88           104        112          120               124  128          132  4096
//!   | incarnation | prev_lsn    | prev_seq | seg_bytes  | prev_chain     | 0  | crc of 0..128 | 0 |
//! ```

use pontoon_types::{ClusterId, Incarnation, NodeId};

use super::{BLOCK_BYTES, FORMAT_VERSION, Fault, LogEnd, Lsn, SegmentId, Seq};
use super::{put, u16_at, u32_at, u64_at, u128_at};
use crate::LogIdentity;

/// The first eight bytes of a segment in use.
pub const SEGMENT_MAGIC: [u8; 8] = *b"PONTSEG\0";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const STREAM_AT: usize = VERSION_AT + 2;
const FLAGS_AT: usize = STREAM_AT + 2;
const CLUSTER_AT: usize = FLAGS_AT + 4;
const NODE_AT: usize = CLUSTER_AT + 16;
const LOG_AT: usize = NODE_AT + 8;
const SEGMENT_AT: usize = LOG_AT + 16;
const SALT_AT: usize = SEGMENT_AT + 8;
const SLOT_AT: usize = SALT_AT + 4;
const BASE_SEQ_AT: usize = SLOT_AT + 4;
const INCARNATION_AT: usize = BASE_SEQ_AT + 8;
const PREVIOUS_SEGMENT_AT: usize = INCARNATION_AT + 8;
const PREVIOUS_OFFSET_AT: usize = PREVIOUS_SEGMENT_AT + 8;
const PREVIOUS_SEQ_AT: usize = PREVIOUS_OFFSET_AT + 8;
const SEGMENT_BYTES_AT: usize = PREVIOUS_SEQ_AT + 8;
const PREVIOUS_CHAIN_AT: usize = SEGMENT_BYTES_AT + 8;
const CRC_AT: usize = PREVIOUS_CHAIN_AT + 8;

/// What a segment file is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What was appended.
    Log,
    /// Copies of old entries.
    Cold,
    /// States of all Raft groups.
    Checkpoint,
}

impl Stream {
    /// The number in a header.
    pub fn number(self) -> u16 {
        match self {
            Stream::Log => 0,
            Stream::Cold => 1,
            Stream::Checkpoint => 2,
        }
    }

    /// The stream of that number.
    pub fn from_number(number: u16) -> Option<Stream> {
        [Stream::Log, Stream::Cold, Stream::Checkpoint].into_iter().find(|stream| stream.number() == number)
    }
}

/// What the first block of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is part of.
    pub identity: LogIdentity,
    /// What the file is used for.
    pub stream: Stream,
    /// This use of the file.
    pub segment: SegmentId,
    /// Random, repeated in each group: tells the groups of this use from older ones.
    pub salt: u32,
    /// The number in the file's name.
    pub slot: u32,
    /// The number of the first group in it.
    pub base_seq: Seq,
    /// The incarnation of the core that started it.
    pub incarnation: Incarnation,
    /// The size of the file.
    pub segment_bytes: u64,
    /// Where the log ended before this segment, by then durable.
    pub previous: LogEnd,
}

impl SegmentHeader {
    /// The block.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, MAGIC_AT, SEGMENT_MAGIC);
        put(&mut block, VERSION_AT, FORMAT_VERSION.to_le_bytes());
        put(&mut block, STREAM_AT, self.stream.number().to_le_bytes());
        put(&mut block, CLUSTER_AT, self.identity.cluster.0.to_le_bytes());
        put(&mut block, NODE_AT, self.identity.node.0.to_le_bytes());
        put(&mut block, LOG_AT, self.identity.log.to_le_bytes());
        put(&mut block, SEGMENT_AT, self.segment.0.to_le_bytes());
        put(&mut block, SALT_AT, self.salt.to_le_bytes());
        put(&mut block, SLOT_AT, self.slot.to_le_bytes());
        put(&mut block, BASE_SEQ_AT, self.base_seq.0.to_le_bytes());
        put(&mut block, INCARNATION_AT, self.incarnation.0.to_le_bytes());
        put(&mut block, PREVIOUS_SEGMENT_AT, self.previous.place.segment.0.to_le_bytes());
        put(&mut block, PREVIOUS_OFFSET_AT, self.previous.place.offset.to_le_bytes());
        put(&mut block, PREVIOUS_SEQ_AT, self.previous.seq.0.to_le_bytes());
        put(&mut block, SEGMENT_BYTES_AT, self.segment_bytes.to_le_bytes());
        put(&mut block, PREVIOUS_CHAIN_AT, self.previous.chain.to_le_bytes());
        let crc = crc32fast::hash(&block[..CRC_AT]);
        put(&mut block, CRC_AT, crc.to_le_bytes());
        block
    }

    /// Reads the block. The version is looked at before the checksum, because a newer version may sum differently: it is
    /// rotten only if the checksum is that of this version.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, Fault> {
        if block.len() < BLOCK_BYTES {
            return Err(Fault::Bad("the segment header is cut short"));
        }
        if block[..MAGIC_AT + 8] != SEGMENT_MAGIC {
            let empty = super::is_zero(&block[..BLOCK_BYTES]);
            return Err(if empty { Fault::Unwritten } else { Fault::Bad("the segment header has no magic") });
        }
        let version = u16_at(block, VERSION_AT);
        if version != FORMAT_VERSION {
            return Err(super::version_fault(block, VERSION_AT, CRC_AT));
        }
        if crc32fast::hash(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
            return Err(Fault::Bad("the checksum of the segment header is wrong"));
        }
        let flags = u32_at(block, FLAGS_AT);
        if flags != 0 {
            return Err(Fault::UnknownFlags(flags));
        }
        let stream = u16_at(block, STREAM_AT);
        Ok(SegmentHeader {
            stream: Stream::from_number(stream).ok_or(Fault::UnknownStream(stream))?,
            identity: LogIdentity {
                cluster: ClusterId(u128_at(block, CLUSTER_AT)),
                node: NodeId(u64_at(block, NODE_AT)),
                log: u128_at(block, LOG_AT),
            },
            segment: SegmentId(u64_at(block, SEGMENT_AT)),
            salt: u32_at(block, SALT_AT),
            slot: u32_at(block, SLOT_AT),
            base_seq: Seq(u64_at(block, BASE_SEQ_AT)),
            incarnation: Incarnation(u64_at(block, INCARNATION_AT)),
            segment_bytes: u64_at(block, SEGMENT_BYTES_AT),
            previous: LogEnd {
                place: Lsn {
                    segment: SegmentId(u64_at(block, PREVIOUS_SEGMENT_AT)),
                    offset: u64_at(block, PREVIOUS_OFFSET_AT),
                },
                seq: Seq(u64_at(block, PREVIOUS_SEQ_AT)),
                chain: u32_at(block, PREVIOUS_CHAIN_AT),
            },
        })
    }
}
