//! The control file: two blocks written in turn, of which the newer intact one counts.
//!
//! It is never written on the way of a commit. Opening writes both blocks (so that one rotten block cannot bring an
//! old incarnation back), the first sync of each new segment is noted later by the background thread, as is the end of
//! an idle log whose segment has no room for a SEAL, and a clean stop is marked last. `durable_seq` and `newest_segment` are lower bounds: what they name was durable, whatever the
//! segments look like now.
//!
//! ```text
//!   0        8         10  12      16        32     40    56           64            72
//!   | magic  | version | 0 | flags | cluster | node | log | generation | incarnation |
//!  72             80               88              104       108  112            120  128            132  4096
//!   | durable_seq | newest_segment | end_lsn       | end_chain | 0 | seg_bytes     | 0 |
//! 128                 192                  256            260  4096
//!   | checkpoint        | checkpoint before  | crc of 0..256  | 0 |
//!
//! checkpoint  0           16       24      28  32         48      56     60  64
//!             | start lsn | seq    | chain | 0 | end lsn  | seq   | chain | 0 |
//! ```
//!
//! A checkpoint is named by the place where it starts and the place where it ends in the checkpoint stream. The two
//! newest are named, because either is enough to recover: what only the older one needs is kept as long as it is named.
//! Segment 0 means "none".

use pontoon_types::{ClusterId, Incarnation, NodeId};

use super::{BLOCK_BYTES, FORMAT_VERSION, Fault, LOG_END_BYTES, LogEnd, Lsn, SegmentId, Seq};
use super::{put, u16_at, u32_at, u64_at, u128_at};
use crate::LogIdentity;

/// The first eight bytes of each block.
pub const CONTROL_MAGIC: [u8; 8] = *b"PONTCTL\0";

/// The size of the control file.
pub const CONTROL_BYTES: usize = 2 * BLOCK_BYTES;

/// The log was stopped cleanly: `durable_seq` and `end_lsn` are its exact end.
const FLAG_CLEAN: u32 = 1;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const FLAGS_AT: usize = VERSION_AT + 4;
const CLUSTER_AT: usize = FLAGS_AT + 4;
const NODE_AT: usize = CLUSTER_AT + 16;
const LOG_AT: usize = NODE_AT + 8;
const GENERATION_AT: usize = LOG_AT + 16;
const INCARNATION_AT: usize = GENERATION_AT + 8;
const DURABLE_SEQ_AT: usize = INCARNATION_AT + 8;
const NEWEST_SEGMENT_AT: usize = DURABLE_SEQ_AT + 8;
const END_SEGMENT_AT: usize = NEWEST_SEGMENT_AT + 8;
const END_OFFSET_AT: usize = END_SEGMENT_AT + 8;
const END_CHAIN_AT: usize = END_OFFSET_AT + 8;
const SEGMENT_BYTES_AT: usize = END_CHAIN_AT + 8;
const CHECKPOINTS_AT: usize = SEGMENT_BYTES_AT + 16;
const CRC_AT: usize = CHECKPOINTS_AT + 2 * CHECKPOINT_REF_BYTES;

/// Length of the name of one checkpoint.
const CHECKPOINT_REF_BYTES: usize = 2 * LOG_END_BYTES;

/// Where a checkpoint stands in the checkpoint stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRef {
    /// The end of the stream before it; its first group follows. At offset 4096 of a segment when it starts one.
    pub start: LogEnd,
    /// The end of the stream behind it.
    pub end: LogEnd,
}

/// What the control file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// Grows with each write of a block.
    pub generation: u64,
    /// How often the log was opened.
    pub incarnation: Incarnation,
    /// This group and all before it are durable.
    pub durable_seq: Seq,
    /// This segment exists.
    pub newest_segment: SegmentId,
    /// The size of each segment file.
    pub segment_bytes: u64,
    /// After a clean stop the exact end of the log.
    pub clean_end: Option<LogEnd>,
    /// The newest checkpoint and the one before it.
    pub checkpoints: [Option<CheckpointRef>; 2],
}

impl Control {
    /// The block.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, MAGIC_AT, CONTROL_MAGIC);
        put(&mut block, VERSION_AT, FORMAT_VERSION.to_le_bytes());
        put(&mut block, CLUSTER_AT, self.identity.cluster.0.to_le_bytes());
        put(&mut block, NODE_AT, self.identity.node.0.to_le_bytes());
        put(&mut block, LOG_AT, self.identity.log.to_le_bytes());
        put(&mut block, GENERATION_AT, self.generation.to_le_bytes());
        put(&mut block, INCARNATION_AT, self.incarnation.0.to_le_bytes());
        put(&mut block, DURABLE_SEQ_AT, self.durable_seq.0.to_le_bytes());
        put(&mut block, NEWEST_SEGMENT_AT, self.newest_segment.0.to_le_bytes());
        put(&mut block, SEGMENT_BYTES_AT, self.segment_bytes.to_le_bytes());
        if let Some(end) = self.clean_end {
            put(&mut block, FLAGS_AT, FLAG_CLEAN.to_le_bytes());
            put(&mut block, END_SEGMENT_AT, end.place.segment.0.to_le_bytes());
            put(&mut block, END_OFFSET_AT, end.place.offset.to_le_bytes());
            put(&mut block, END_CHAIN_AT, end.chain.to_le_bytes());
        }
        for (position, checkpoint) in self.checkpoints.iter().enumerate() {
            let at = CHECKPOINTS_AT + position * CHECKPOINT_REF_BYTES;
            if let Some(checkpoint) = checkpoint {
                put(&mut block, at, checkpoint.start.encode());
                put(&mut block, at + LOG_END_BYTES, checkpoint.end.encode());
            }
        }
        let crc = crc32fast::hash(&block[..CRC_AT]);
        put(&mut block, CRC_AT, crc.to_le_bytes());
        block
    }

    /// Reads one block. Another version is rotten only if the checksum is that of this one.
    pub fn decode(block: &[u8]) -> Result<Control, Fault> {
        if block.len() < BLOCK_BYTES {
            return Err(Fault::Bad("the control block is cut short"));
        }
        if block[..MAGIC_AT + 8] != CONTROL_MAGIC {
            return Err(Fault::Bad("the control block has no magic"));
        }
        let version = u16_at(block, VERSION_AT);
        if version != FORMAT_VERSION {
            return Err(super::version_fault(block, VERSION_AT, CRC_AT));
        }
        if crc32fast::hash(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
            return Err(Fault::Bad("the checksum of the control block is wrong"));
        }
        let flags = u32_at(block, FLAGS_AT);
        if flags & !FLAG_CLEAN != 0 {
            return Err(Fault::UnknownFlags(flags));
        }
        let durable_seq = Seq(u64_at(block, DURABLE_SEQ_AT));
        let end = LogEnd {
            place: Lsn { segment: SegmentId(u64_at(block, END_SEGMENT_AT)), offset: u64_at(block, END_OFFSET_AT) },
            seq: durable_seq,
            chain: u32_at(block, END_CHAIN_AT),
        };
        Ok(Control {
            identity: LogIdentity {
                cluster: ClusterId(u128_at(block, CLUSTER_AT)),
                node: NodeId(u64_at(block, NODE_AT)),
                log: u128_at(block, LOG_AT),
            },
            generation: u64_at(block, GENERATION_AT),
            incarnation: Incarnation(u64_at(block, INCARNATION_AT)),
            durable_seq,
            newest_segment: SegmentId(u64_at(block, NEWEST_SEGMENT_AT)),
            segment_bytes: u64_at(block, SEGMENT_BYTES_AT),
            clean_end: (flags & FLAG_CLEAN != 0).then_some(end),
            checkpoints: [0, 1].map(|position| checkpoint_at(block, CHECKPOINTS_AT + position * CHECKPOINT_REF_BYTES)),
        })
    }
}

fn checkpoint_at(block: &[u8], at: usize) -> Option<CheckpointRef> {
    let (start, end) = (LogEnd::decode(block, at), LogEnd::decode(block, at + LOG_END_BYTES));
    (end.place.segment != SegmentId(0)).then_some(CheckpointRef { start, end })
}
