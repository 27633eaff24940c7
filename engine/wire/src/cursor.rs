//! Walks over bytes and cuts off slices, never past the end.

use bytes::Bytes;

use crate::frame::FrameError;

/// What is left of a region of bytes.
#[derive(Debug)]
pub(crate) struct Cursor {
    rest: Bytes,
}

impl Cursor {
    /// Starts at the beginning of `bytes`.
    pub(crate) fn new(bytes: Bytes) -> Cursor {
        Cursor { rest: bytes }
    }

    /// The next `bytes` bytes, as a slice of the same memory.
    pub(crate) fn take(&mut self, bytes: u32) -> Result<Bytes, FrameError> {
        match bytes as usize {
            0 => Ok(Bytes::new()),
            bytes if bytes <= self.rest.len() => Ok(self.rest.split_to(bytes)),
            _ => Err(FrameError::Payload),
        }
    }

    /// The next `bytes` bytes in memory of their own.
    pub(crate) fn copy(&mut self, bytes: u32) -> Result<Bytes, FrameError> {
        Ok(Bytes::copy_from_slice(&self.take(bytes)?))
    }

    /// Refuses bytes that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FrameError::Payload) }
    }
}
