//! The frame: a fixed header, metadata, and a region of raw payload.
//!
//! ```text
//!  0 magic "PTNF"          4 version (2)   6 kind (1)   7 zero (1)
//!  8 metadata length      12 payload length
//! 16 payload checksum     20 metadata checksum
//! 24 zero (4)             28 header checksum, over bytes 0 to 28
//! 32 metadata ...         then the payload, to the exact end
//! ```
//!
//! All numbers are little-endian. The header checksum covers the metadata's checksum and so, through it, the
//! metadata. It stands on its own so that a damaged length is refused when the header is there, and is not waited
//! for. In a peer frame the payload checksum is zero: each entry has its own, in the metadata. In a client's frame it
//! covers the whole region.
//!
//! Lengths are exact: the metadata's root stands at its end, so a frame with a byte more or less is another frame.

use bytes::Bytes;
use pontoon_types::limits::FRAME_BYTES_MAX;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Portable, Serialize};

use crate::cursor::Cursor;

pub use crate::reader::FrameReader;

/// The size of a frame's header, bytes.
pub const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"PTNF";
const CHECKSUM_AT: usize = 28;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A [`crate::peer::PeerFrame`].
    Peer = 1,
    /// A [`crate::client::RequestFrame`].
    Request = 2,
    /// A [`crate::client::ReplyFrame`].
    Reply = 3,
}

/// Why bytes are not a frame. A connection on which this happens is closed: where the next frame begins is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not those of this protocol.
    #[error("the bytes do not begin with the expected magic")]
    Magic,
    /// The version is not one that this build reads.
    #[error("frame version {found} is not read by this build")]
    Version {
        /// The version that was found.
        found: u16,
    },
    /// The kind is unknown, or not the one that belongs here.
    #[error("frame kind {found} is not expected here")]
    Kind {
        /// The kind that was found.
        found: u8,
    },
    /// The frame would be longer than the limit. Refused before anything is allocated for it.
    #[error("a frame of {bytes} bytes is longer than FRAME_BYTES_MAX ({FRAME_BYTES_MAX} bytes)")]
    TooLong {
        /// The length that the header states.
        bytes: u64,
    },
    /// There are more or fewer bytes than the header says.
    #[error("the frame has {found} bytes, its header says {expected}")]
    Length {
        /// The length that the header states.
        expected: u64,
        /// The bytes that are there.
        found: u64,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes of the header are not zero")]
    Reserved,
    /// The header was damaged.
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    /// The metadata was damaged.
    #[error("the metadata's checksum does not match")]
    MetadataChecksum,
    /// The payload was damaged.
    #[error("the payload's checksum does not match")]
    PayloadChecksum,
    /// The metadata is whole but is not what its version and kind say.
    #[error("the metadata is malformed")]
    Metadata,
    /// The lengths in the metadata do not add up to the payload.
    #[error("the metadata does not match the payload's length")]
    Payload,
    /// A field holds a value without a meaning.
    #[error("the field `{field}` has a value without a meaning")]
    Value {
        /// The field's name.
        field: &'static str,
    },
}

impl FrameKind {
    /// The kind behind a number.
    fn from_code(code: u8) -> Option<FrameKind> {
        [FrameKind::Peer, FrameKind::Request, FrameKind::Reply].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// A header that was found good: its checksum matches and the frame is not longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    kind: FrameKind,
    metadata_bytes: u32,
    payload_bytes: u32,
    payload_checksum: u32,
    metadata_checksum: u32,
}

impl Header {
    /// Reads the first [`HEADER_BYTES`] of a frame.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, FrameError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Length { expected: HEADER_BYTES as u64, found: bytes.len() as u64 });
        };
        if bytes[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        if word(bytes, CHECKSUM_AT) != crc32fast::hash(&bytes[..CHECKSUM_AT]) {
            return Err(FrameError::HeaderChecksum);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if !(crate::VERSION_MIN..=crate::VERSION).contains(&version) {
            return Err(FrameError::Version { found: version });
        }
        let kind = FrameKind::from_code(bytes[6]).ok_or(FrameError::Kind { found: bytes[6] })?;
        if bytes[7] != 0 || word(bytes, 24) != 0 {
            return Err(FrameError::Reserved);
        }
        let header = Header {
            kind,
            metadata_bytes: word(bytes, 8),
            payload_bytes: word(bytes, 12),
            payload_checksum: word(bytes, 16),
            metadata_checksum: word(bytes, 20),
        };
        match HEADER_BYTES as u64 + u64::from(header.metadata_bytes) + u64::from(header.payload_bytes) {
            bytes if bytes > FRAME_BYTES_MAX as u64 => Err(FrameError::TooLong { bytes }),
            _ => Ok(header),
        }
    }

    /// The length of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.metadata_bytes as usize + self.payload_bytes as usize
    }

    /// The bytes of the header.
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&crate::VERSION.to_le_bytes());
        bytes[6] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.metadata_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.metadata_checksum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// A little-endian number of the header.
fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Appends a whole frame to `out`: the header, the metadata, and the parts of the payload one after another.
pub(crate) fn write(
    kind: FrameKind,
    metadata: &impl for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>,
    parts: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_BYTES + payload_bytes);
    out.resize(start + HEADER_BYTES, 0);
    *out = rkyv::api::high::to_bytes_in::<_, Failure>(metadata, std::mem::take(out))
        .expect("metadata is archived into memory, which cannot fail");
    let payload_start = out.len();
    out.reserve(payload_bytes);
    for part in parts {
        out.extend_from_slice(part);
    }
    assert!(out.len() - start <= FRAME_BYTES_MAX, "a frame is closed before it is longer than FRAME_BYTES_MAX");
    let header = Header {
        kind,
        metadata_bytes: (payload_start - start - HEADER_BYTES) as u32,
        payload_bytes: payload_bytes as u32,
        payload_checksum: match kind {
            FrameKind::Peer => 0,
            FrameKind::Request | FrameKind::Reply => crc32fast::hash(&out[payload_start..]),
        },
        metadata_checksum: crc32fast::hash(&out[start + HEADER_BYTES..payload_start]),
    };
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
}

/// A whole frame, checked against its header: metadata that may be looked into, and the payload region.
pub(crate) struct Opened {
    frame: Bytes,
    payload_start: usize,
}

impl Opened {
    /// Checks everything that the header states about a frame of the wanted kind. The payload of a peer frame is left
    /// to the checksums of its entries.
    pub(crate) fn new(frame: Bytes, kind: FrameKind) -> Result<Opened, FrameError> {
        let header = Header::decode(&frame)?;
        if header.kind != kind {
            return Err(FrameError::Kind { found: header.kind as u8 });
        }
        if frame.len() != header.frame_bytes() {
            return Err(FrameError::Length { expected: header.frame_bytes() as u64, found: frame.len() as u64 });
        }
        let payload_start = HEADER_BYTES + header.metadata_bytes as usize;
        if header.metadata_checksum != crc32fast::hash(&frame[HEADER_BYTES..payload_start]) {
            return Err(FrameError::MetadataChecksum);
        }
        let payload_checksum = match kind {
            FrameKind::Peer => 0,
            FrameKind::Request | FrameKind::Reply => crc32fast::hash(&frame[payload_start..]),
        };
        if header.payload_checksum != payload_checksum {
            return Err(FrameError::PayloadChecksum);
        }
        Ok(Opened { frame, payload_start })
    }

    /// The metadata, after its structure was checked too.
    pub(crate) fn metadata<T>(&self) -> Result<&T, FrameError>
    where
        T: Portable + for<'a> CheckBytes<HighValidator<'a, Failure>>,
    {
        rkyv::access::<T, Failure>(&self.frame[HEADER_BYTES..self.payload_start]).map_err(|_| FrameError::Metadata)
    }

    /// The payload region, from its beginning.
    pub(crate) fn payload(&self) -> Cursor {
        Cursor::new(self.frame.slice(self.payload_start..))
    }
}
