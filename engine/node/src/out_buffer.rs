//! Frames that wait to be sent on one socket.
//!
//! A turn pushes whole frames; at its end one call sends as many of them as the socket takes. What is left waits until
//! the socket can be sent to again. The owner of the buffer looks at [`OutBuffer::bytes`] and, above a limit, gives the
//! connection up or takes no more work from it, so a side that does not read cannot make this grow.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use crate::driver::{Driver, SocketId};

/// The most frames in one send. The kernel's own limit is 1024.
const PARTS_MAX: usize = 64;

/// Frames in the order in which they leave.
///
/// Invariants: `bytes` is the sum of the frames' lengths, and no frame is empty. While `blocked`, the socket is watched
/// and something waits.
#[derive(Debug, Default)]
pub struct OutBuffer {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// A part of the first frame was sent.
    begun: bool,
    blocked: bool,
}

impl OutBuffer {
    /// Adds a frame behind the others.
    pub fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// Adds a frame before the others, but not into one that was sent in part.
    pub fn push_first(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.frames.insert(usize::from(self.begun), frame);
        }
    }

    /// How much waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The socket can be sent to again; the next flush tries.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends once, and watches the socket for as long as something is left. Does nothing while the socket is full.
    /// Says how many bytes the socket took.
    pub fn flush<D: Driver>(&mut self, driver: &mut D, socket: SocketId) -> io::Result<usize> {
        if self.frames.is_empty() || self.blocked {
            return Ok(0);
        }
        let sent = {
            let mut parts = [IoSlice::new(&[]); PARTS_MAX];
            let count = self.frames.len().min(PARTS_MAX);
            for (part, frame) in parts.iter_mut().zip(&self.frames) {
                *part = IoSlice::new(frame);
            }
            driver.send(socket, &parts[..count])?
        };
        self.consume(sent);
        self.blocked = !self.frames.is_empty();
        driver.watch_send(socket, self.blocked)?;
        Ok(sent)
    }

    fn consume(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(front) = self.frames.front_mut() {
            if front.len() > sent {
                front.advance(sent);
                self.begun |= sent > 0;
                break;
            }
            sent -= front.len();
            self.frames.pop_front();
            self.begun = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_passes_what_waits_but_not_a_frame_that_has_begun() {
        let waiting = |buffer: &OutBuffer| buffer.frames.iter().map(|frame| frame[0]).collect::<Vec<_>>();
        let mut buffer = OutBuffer::default();
        buffer.push(Bytes::from_static(b"aaaa"));
        buffer.push(Bytes::from_static(b"bbbb"));
        buffer.push_first(Bytes::from_static(b"1"));
        assert_eq!(waiting(&buffer), b"1ab");
        buffer.consume(3);
        buffer.push_first(Bytes::from_static(b"2"));
        assert_eq!(waiting(&buffer), b"a2b");
        buffer.consume(2);
        buffer.push_first(Bytes::from_static(b"3"));
        assert_eq!(waiting(&buffer), b"32b");
        assert_eq!(buffer.bytes(), 6);
    }
}
