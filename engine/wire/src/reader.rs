//! Cuts a stream of bytes into whole frames.
//!
//! The shell reads its socket straight into [`FrameReader::spare`] and says with [`FrameReader::filled`] how much
//! came; [`FrameReader::next`] hands out whole frames as slices of that same memory. Nothing is moved: frames of one
//! chunk share it and keep it alive together, and a chunk that nobody holds any more is used again.
//!
//! The tail of the buffer stays initialised from one read to the next, so a small read does not pay for clearing a
//! large one. A long frame makes the buffer grow by a chunk or twofold as the bytes really come, so a header alone cannot
//! make the reader allocate what it announces.

use bytes::{Bytes, BytesMut};

use crate::frame::{FrameError, HEADER_BYTES, Header};

/// The chunk of a reader made with [`FrameReader::new`]: one full read of a busy link.
const CHUNK_BYTES: usize = 64 << 10;

/// A frame longer than this, such as the routing table of many ranges, is rare: its chunk is given back at once.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Less spare room than this is not worth a system call.
const SPARE_BYTES_MIN: usize = 2 << 10;

/// A growing buffer of received bytes, and where the next frame begins in it.
///
/// Invariants: `filled <= buffer.len()`; a frame, or a part of one, begins at the buffer's first byte; `expected` is
/// the length of that frame once its header is there and was found good.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    filled: usize,
    expected: Option<usize>,
    chunk_bytes: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        FrameReader::new()
    }
}

impl FrameReader {
    /// A reader for a busy link. It allocates at the first read.
    pub fn new() -> FrameReader {
        FrameReader::with_chunk(CHUNK_BYTES)
    }

    /// A reader whose memory grows in steps of `chunk_bytes`, for links of which there are many.
    pub fn with_chunk(chunk_bytes: usize) -> FrameReader {
        FrameReader {
            buffer: BytesMut::new(),
            filled: 0,
            expected: None,
            chunk_bytes: chunk_bytes.max(SPARE_BYTES_MIN),
        }
    }

    /// Where the next bytes go. Never empty.
    pub fn spare(&mut self) -> &mut [u8] {
        let spare_bytes = self.buffer.len() - self.filled;
        let missing_bytes = self.expected.map_or(0, |expected| expected.saturating_sub(self.filled));
        let wanted_bytes = missing_bytes.min(self.filled).max(SPARE_BYTES_MIN);
        if spare_bytes < wanted_bytes {
            let grown_bytes = self.filled + wanted_bytes.max(self.chunk_bytes);
            // The tail holds nothing, so it need not move along when the buffer does.
            self.buffer.truncate(self.filled);
            self.buffer.resize(grown_bytes, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Says that the first `bytes` of the last [`FrameReader::spare`] were received.
    pub fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.buffer.len() - self.filled, "no more bytes are received than there was room for");
        self.filled += bytes;
    }

    /// Takes received bytes that lie elsewhere, by copying them.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let taken = spare.len().min(bytes.len());
            spare[..taken].copy_from_slice(&bytes[..taken]);
            self.filled(taken);
            bytes = &bytes[taken..];
        }
    }

    /// The next whole frame, or none until more bytes come. After an error the stream has no known place to go on,
    /// and every further call gives the same error.
    // An iterator would end at the first `None`; here more bytes may follow.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let expected = match self.expected {
            Some(expected) => expected,
            None if self.filled < HEADER_BYTES => return Ok(None),
            None => *self.expected.insert(Header::decode(&self.buffer[..HEADER_BYTES])?.frame_bytes()),
        };
        if self.filled < expected {
            return Ok(None);
        }
        self.expected = None;
        self.filled -= expected;
        let frame = self.buffer.split_to(expected).freeze();
        if expected > KEPT_BYTES_MAX && self.filled == 0 {
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// Bytes that were received and not yet handed out.
    pub fn pending_bytes(&self) -> usize {
        self.filled
    }
}
