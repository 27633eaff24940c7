//! The frame of a slot: small files of a node are written as two slots in turn, so that one of them is always whole.
//!
//! ```text
//! 0 magic (8)   8 format (4)   12 length of the body (4)   16 sequence (8)   24 CRC-32 of the header before it and the body (4)
//! 28 the body
//! ```
//!
//! All numbers are little-endian. What stands in the body, and which formats are read, is for its file to say.

/// Where the checksum stands: behind all that it covers but the body.
pub const CHECKSUM_AT: usize = 24;

/// Everything before the body.
pub const HEADER_BYTES: usize = CHECKSUM_AT + 4;

/// A whole slot.
pub fn seal(magic: [u8; 8], format: u32, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut slot = Vec::with_capacity(HEADER_BYTES + body.len());
    slot.extend_from_slice(&magic);
    slot.extend_from_slice(&format.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
    slot.extend_from_slice(&sequence.to_le_bytes());
    let checksum = checksum(&slot, body);
    slot.extend_from_slice(&checksum.to_le_bytes());
    slot.extend_from_slice(body);
    slot
}

/// The checksum of a slot with this header, up to the checksum, and this body.
pub fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}
