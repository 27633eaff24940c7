//! A group of records: what one sync makes durable.
//!
//! ```text
//!   0       4            8           12        16        20            24     28           32
//!   | magic | header_crc | group_len | dir_len | dir_crc | payload_len | runs | prev_chain |
//!  32    40            48        56     60      62  64
//!   | seq | durable_seq | segment | salt | flags | 0 |
//! ```
//!
//! `header_crc` covers bytes 8..64, then the uuid of the log, then the offset of the group in its file. `group_len` is
//! a multiple of 4 KiB; the padding behind the last payload is covered by nothing and means nothing. The *chain* value
//! of a group is `dir_crc ^ header_crc`; the next group repeats it, so a history cannot be spliced.
//!
//! `durable_seq` is the proof that tells corruption from a torn tail: all groups up to it were durable when this one
//! was written. A writer has one group in flight, so it is always one less than `seq`.
//!
//! A group with flag `SEAL` says nothing new. It is written when the log goes idle, only to carry `durable_seq`.
//!
//! With flag `ECHO_WHOLE` the echoes in a group are all that the group before it had to say: should that one be
//! unreadable, nothing is lost with it.

use super::record::{Runs, check_directory, check_payloads};
use super::{BLOCK_BYTES, Fault, PAYLOAD_ALIGN_BYTES, SegmentId, Seq, put, round_up, u16_at, u32_at, u64_at};

/// The first four bytes of a group.
pub const GROUP_MAGIC: [u8; 4] = *b"PGRP";

/// Length of the header.
pub const GROUP_HEADER_BYTES: usize = FLAGS_AT + 4;

/// The group only says what was durable when the log went idle.
pub const FLAG_SEAL: u16 = 1;

/// The hard states of the group before are all that it says, and this group repeats them.
pub const FLAG_ECHO_WHOLE: u16 = 2;

const FLAGS_KNOWN: u16 = FLAG_SEAL | FLAG_ECHO_WHOLE;

const MAGIC_AT: usize = 0;
const HEADER_CRC_AT: usize = MAGIC_AT + 4;
const GROUP_LEN_AT: usize = HEADER_CRC_AT + 4;
const DIR_LEN_AT: usize = GROUP_LEN_AT + 4;
const DIR_CRC_AT: usize = DIR_LEN_AT + 4;
const PAYLOAD_LEN_AT: usize = DIR_CRC_AT + 4;
const RUNS_AT: usize = PAYLOAD_LEN_AT + 4;
const PREV_CHAIN_AT: usize = RUNS_AT + 4;
const SEQ_AT: usize = PREV_CHAIN_AT + 4;
const DURABLE_SEQ_AT: usize = SEQ_AT + 8;
const SEGMENT_AT: usize = DURABLE_SEQ_AT + 8;
const SALT_AT: usize = SEGMENT_AT + 8;
const FLAGS_AT: usize = SALT_AT + 4;

/// What the first 64 bytes of a group say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Length of the directory.
    pub dir_len: u32,
    /// crc32 of the directory.
    pub dir_crc: u32,
    /// Length of the payloads, each padded to 16 bytes but the last.
    pub payload_len: u32,
    /// Runs in the directory.
    pub runs: u32,
    /// The chain value of the group before.
    pub prev_chain: u32,
    /// Its number.
    pub seq: Seq,
    /// This group and all before it were durable when it was written.
    pub durable_seq: Seq,
    /// The segment it stands in.
    pub segment: SegmentId,
    /// The salt of that segment.
    pub salt: u32,
    /// [`FLAG_SEAL`] and [`FLAG_ECHO_WHOLE`].
    pub flags: u16,
}

/// Where the payloads start, relative to the group, behind a directory of `dir_len` bytes.
pub fn payloads_start(dir_len: usize) -> usize {
    round_up(GROUP_HEADER_BYTES + dir_len, PAYLOAD_ALIGN_BYTES)
}

/// Length of a whole group.
pub fn group_len(dir_len: usize, payload_len: usize) -> usize {
    round_up(payloads_start(dir_len) + payload_len, BLOCK_BYTES)
}

impl GroupHeader {
    /// Length of the whole group with its padding.
    pub fn group_len(&self) -> usize {
        group_len(self.dir_len as usize, self.payload_len as usize)
    }

    /// Whether its echoes are the whole group before.
    pub fn is_echo_whole(&self) -> bool {
        self.flags & FLAG_ECHO_WHOLE != 0
    }

    /// Whether it is a SEAL.
    pub fn is_seal(&self) -> bool {
        self.flags & FLAG_SEAL != 0
    }

    /// The bytes, for the group at `offset` of a segment of `log`, and the chain value.
    pub fn encode(&self, log: u128, offset: u64) -> ([u8; GROUP_HEADER_BYTES], u32) {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        put(&mut bytes, MAGIC_AT, GROUP_MAGIC);
        put(&mut bytes, GROUP_LEN_AT, (self.group_len() as u32).to_le_bytes());
        put(&mut bytes, DIR_LEN_AT, self.dir_len.to_le_bytes());
        put(&mut bytes, DIR_CRC_AT, self.dir_crc.to_le_bytes());
        put(&mut bytes, PAYLOAD_LEN_AT, self.payload_len.to_le_bytes());
        put(&mut bytes, RUNS_AT, self.runs.to_le_bytes());
        put(&mut bytes, PREV_CHAIN_AT, self.prev_chain.to_le_bytes());
        put(&mut bytes, SEQ_AT, self.seq.0.to_le_bytes());
        put(&mut bytes, DURABLE_SEQ_AT, self.durable_seq.0.to_le_bytes());
        put(&mut bytes, SEGMENT_AT, self.segment.0.to_le_bytes());
        put(&mut bytes, SALT_AT, self.salt.to_le_bytes());
        put(&mut bytes, FLAGS_AT, self.flags.to_le_bytes());
        let crc = header_crc(&bytes, log, offset);
        put(&mut bytes, HEADER_CRC_AT, crc.to_le_bytes());
        (bytes, crc ^ self.dir_crc)
    }

    /// Reads the header that starts `bytes`, for the place where it was found, and its chain value.
    pub fn decode(bytes: &[u8], log: u128, offset: u64) -> Result<(GroupHeader, u32), Fault> {
        if bytes.len() < GROUP_HEADER_BYTES {
            return Err(Fault::Bad("the group header is cut short"));
        }
        if bytes[..MAGIC_AT + 4] != GROUP_MAGIC {
            let empty = super::is_zero(&bytes[..GROUP_HEADER_BYTES]);
            return Err(if empty { Fault::Unwritten } else { Fault::Bad("the group header has no magic") });
        }
        let crc = u32_at(bytes, HEADER_CRC_AT);
        if header_crc(bytes, log, offset) != crc {
            return Err(Fault::Bad("the checksum of the group header is wrong"));
        }
        let header = GroupHeader {
            dir_len: u32_at(bytes, DIR_LEN_AT),
            dir_crc: u32_at(bytes, DIR_CRC_AT),
            payload_len: u32_at(bytes, PAYLOAD_LEN_AT),
            runs: u32_at(bytes, RUNS_AT),
            prev_chain: u32_at(bytes, PREV_CHAIN_AT),
            seq: Seq(u64_at(bytes, SEQ_AT)),
            durable_seq: Seq(u64_at(bytes, DURABLE_SEQ_AT)),
            segment: SegmentId(u64_at(bytes, SEGMENT_AT)),
            salt: u32_at(bytes, SALT_AT),
            flags: u16_at(bytes, FLAGS_AT),
        };
        if u32_at(bytes, GROUP_LEN_AT) as usize != header.group_len() {
            return Err(Fault::Bad("the lengths of the group header disagree"));
        }
        if header.flags & !FLAGS_KNOWN != 0 {
            return Err(Fault::UnknownFlags(header.flags.into()));
        }
        Ok((header, crc ^ header.dir_crc))
    }
}

fn header_crc(bytes: &[u8], log: u128, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[GROUP_LEN_AT..GROUP_HEADER_BYTES]);
    hasher.update(&log.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.finalize()
}

/// A group whose header and directory are intact: it is known what it says.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Its header.
    pub header: GroupHeader,
    /// Its chain value.
    pub chain: u32,
    /// Where it starts in the file.
    pub offset: usize,
    /// Its directory.
    pub directory: &'a [u8],
    /// Its payloads, not checked yet.
    pub payloads: &'a [u8],
}

impl<'a> Group<'a> {
    /// The group at `offset` of the bytes of a whole segment, if its header and directory are intact.
    pub fn identify(segment: &'a [u8], log: u128, offset: usize) -> Result<Group<'a>, Fault> {
        let bytes = segment.get(offset..).unwrap_or_default();
        let (header, chain) = GroupHeader::decode(bytes, log, offset as u64)?;
        if header.group_len() > bytes.len() {
            return Err(Fault::Bad("the group is longer than its segment"));
        }
        let directory = &bytes[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + header.dir_len as usize];
        if crc32fast::hash(directory) != header.dir_crc {
            return Err(Fault::Bad("the checksum of the directory is wrong"));
        }
        let start = payloads_start(header.dir_len as usize);
        let payloads = &bytes[start..start + header.payload_len as usize];
        check_directory(directory, header.runs, payloads.len())?;
        Ok(Group { header, chain, offset, directory, payloads })
    }

    /// The same, with its payloads checked.
    pub fn check(segment: &'a [u8], log: u128, offset: usize) -> Result<Group<'a>, Fault> {
        let group = Group::identify(segment, log, offset)?;
        group.check_payloads()?;
        Ok(group)
    }

    /// Whether the payloads are what the directory says.
    pub fn check_payloads(&self) -> Result<(), Fault> {
        check_payloads(self.directory, self.payloads)
    }

    /// Its runs, in the order of writing.
    pub fn runs(&self) -> Runs<'a> {
        Runs::new(self.directory)
    }

    /// The offset of the first payload in the file.
    pub fn payloads_at(&self) -> usize {
        self.offset + payloads_start(self.directory.len())
    }
}
