//! The footer of a segment: all group headers and directories of the segment once more.
//!
//! It is written behind the last group when the log has gone on in the next segment, by nobody who is waited for.
//! A writer leaves room for it. It serves twice: an open reads the footers instead of whole segments, and it is a
//! second copy of what every entry was, so that a rotten directory takes nothing away.
//!
//! ```text
//!   0       4     8        12       16        24     28  32
//!   | magic | crc | length | groups | segment | salt | 0 | header 64 | directory | header 64 | directory | ...
//! ```
//!
//! `length` counts all of it and `crc` covers all behind itself, then the log's uuid and the footer's offset. The
//! groups of a segment follow each other without gaps from offset 4096 on, so their places follow from their lengths.
//!
//! An unreadable footer is no loss: the groups are read instead.

use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::record::check_directory;
use super::{BLOCK_BYTES, Fault, SegmentId, put, round_up, u32_at, u64_at};

/// The first four bytes of a footer.
pub const FOOTER_MAGIC: [u8; 4] = *b"PFTR";

/// Length of the fixed part.
pub const FOOTER_HEADER_BYTES: usize = SALT_AT + 8;

const MAGIC_AT: usize = 0;
const CRC_AT: usize = MAGIC_AT + 4;
const LENGTH_AT: usize = CRC_AT + 4;
const GROUPS_AT: usize = LENGTH_AT + 4;
const SEGMENT_AT: usize = GROUPS_AT + 4;
const SALT_AT: usize = SEGMENT_AT + 8;

/// What one group adds to the footer of its segment.
pub fn footer_part(dir_len: usize) -> usize {
    GROUP_HEADER_BYTES + dir_len
}

/// The room that a footer with parts of so many bytes takes in the file.
pub fn footer_room(parts: usize) -> usize {
    round_up(FOOTER_HEADER_BYTES + parts, BLOCK_BYTES)
}

/// Whose footer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterPlace {
    /// The log's uuid.
    pub log: u128,
    /// The segment.
    pub segment: SegmentId,
    /// Its salt.
    pub salt: u32,
    /// Where the footer starts: at the end of the last group.
    pub offset: u64,
}

/// One group as its footer knows it.
#[derive(Clone, Copy, Debug)]
pub struct FooterGroup<'a> {
    /// The group's header.
    pub header: GroupHeader,
    /// Its chain value.
    pub chain: u32,
    /// Where it starts in the file.
    pub offset: usize,
    /// Its directory.
    pub directory: &'a [u8],
    /// Where that copy of the directory starts in the footer.
    pub directory_at: usize,
}

/// Makes the footer of `groups` groups, whose headers and directories stand one behind the other in `parts`. Padded.
pub fn encode(place: FooterPlace, groups: u32, parts: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; footer_room(parts.len())];
    let length = FOOTER_HEADER_BYTES + parts.len();
    put(&mut bytes, MAGIC_AT, FOOTER_MAGIC);
    put(&mut bytes, LENGTH_AT, (length as u32).to_le_bytes());
    put(&mut bytes, GROUPS_AT, groups.to_le_bytes());
    put(&mut bytes, SEGMENT_AT, place.segment.0.to_le_bytes());
    put(&mut bytes, SALT_AT, place.salt.to_le_bytes());
    bytes[FOOTER_HEADER_BYTES..length].copy_from_slice(parts);
    let crc = crc(&bytes[..length], place);
    put(&mut bytes, CRC_AT, crc.to_le_bytes());
    bytes
}

/// The whole length that the start of a footer claims, at most `room`.
pub fn claimed_length(start: &[u8], room: usize) -> Result<usize, Fault> {
    if start.len() < FOOTER_HEADER_BYTES || start[..MAGIC_AT + 4] != FOOTER_MAGIC {
        return Err(Fault::Bad("there is no footer"));
    }
    let length = u32_at(start, LENGTH_AT) as usize;
    if (FOOTER_HEADER_BYTES..=room).contains(&length) {
        Ok(length)
    } else {
        Err(Fault::Bad("the footer has no length"))
    }
}

/// Whether the bytes are those of a footer of this segment, intact or not: two of the three marks suffice.
pub fn is_like(start: &[u8], place: FooterPlace) -> bool {
    if start.len() < FOOTER_HEADER_BYTES {
        return false;
    }
    let marks = [
        start[..MAGIC_AT + 4] == FOOTER_MAGIC,
        u64_at(start, SEGMENT_AT) == place.segment.0,
        u32_at(start, SALT_AT) == place.salt,
    ];
    marks.into_iter().filter(|mark| *mark).count() >= 2
}

/// Reads a footer: the groups of the segment, in order. `bytes` may be longer than the footer.
pub fn decode(bytes: &[u8], place: FooterPlace) -> Result<Vec<FooterGroup<'_>>, Fault> {
    let length = claimed_length(bytes, bytes.len())?;
    let bytes = &bytes[..length];
    if crc(bytes, place) != u32_at(bytes, CRC_AT) {
        return Err(Fault::Bad("the checksum of the footer is wrong"));
    }
    if u64_at(bytes, SEGMENT_AT) != place.segment.0 || u32_at(bytes, SALT_AT) != place.salt {
        return Err(Fault::Bad("the footer is of an earlier use of the file"));
    }
    let mut groups = Vec::new();
    let mut rest = &bytes[FOOTER_HEADER_BYTES..];
    let mut offset = BLOCK_BYTES;
    for _ in 0..u32_at(bytes, GROUPS_AT) {
        let (header, chain) = GroupHeader::decode(rest, place.log, offset as u64)?;
        let end = footer_part(header.dir_len as usize);
        let directory = rest.get(GROUP_HEADER_BYTES..end).ok_or(Fault::Bad("the footer is cut short"))?;
        if crc32fast::hash(directory) != header.dir_crc {
            return Err(Fault::Bad("the checksum of a directory in the footer is wrong"));
        }
        check_directory(directory, header.runs, header.payload_len as usize)?;
        let directory_at = length - rest.len() + GROUP_HEADER_BYTES;
        let group = FooterGroup { header, chain, offset, directory, directory_at };
        offset += header.group_len();
        // Before it is kept: a list of more groups than the segment has blocks would be larger than the segment.
        if offset as u64 > place.offset {
            return Err(Fault::Bad("the footer tells of groups behind it"));
        }
        groups.push(group);
        rest = &rest[end..];
    }
    if rest.is_empty() && offset as u64 == place.offset {
        Ok(groups)
    } else {
        Err(Fault::Bad("the footer does not end where its segment does"))
    }
}

fn crc(bytes: &[u8], place: FooterPlace) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[LENGTH_AT..]);
    hasher.update(&place.log.to_le_bytes());
    hasher.update(&place.offset.to_le_bytes());
    hasher.finalize()
}
