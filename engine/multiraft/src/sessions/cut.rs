//! Sessions as a section of a checkpoint.
//!
//! The stream of the section is the pieces one after another, each behind its length (4). Nothing is in it of a group that
//! has applied no command.

use bytes::{Buf, Bytes};

use super::{SessionLimits, Sessions, SessionsBuilder, SessionsError, SessionsPlace};

/// Bytes in front of a piece.
const LENGTH_BYTES: usize = 4;

/// The sessions of one moment on their way into chunks. They are a copy: small beside the state, and of a bounded size.
#[derive(Debug)]
pub(crate) struct SessionsCut {
    sessions: Sessions,
    next: Option<SessionsPlace>,
    stream: Vec<u8>,
}

impl SessionsCut {
    pub(crate) fn new(sessions: &Sessions) -> SessionsCut {
        let next = (sessions.now().0 > 0).then(SessionsPlace::default);
        SessionsCut { sessions: sessions.clone(), next, stream: Vec::new() }
    }

    /// The next bytes of the stream, at most `bytes_max`; none at its end.
    pub(crate) fn take(&mut self, bytes_max: usize) -> Option<Vec<u8>> {
        while self.stream.len() < bytes_max
            && let Some(place) = self.next
        {
            let (piece, next) = self.sessions.piece(place);
            self.stream.extend((piece.len() as u32).to_le_bytes());
            self.stream.extend(piece);
            self.next = next;
        }
        let bytes = self.stream.drain(..bytes_max.min(self.stream.len())).collect::<Vec<u8>>();
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// The way back.
#[derive(Debug)]
pub(crate) struct SessionsStream {
    builder: SessionsBuilder,
    /// A piece that is not whole.
    torn: Vec<u8>,
    begun: bool,
}

impl Default for SessionsStream {
    fn default() -> SessionsStream {
        let builder = SessionsBuilder::new(SessionLimits::default());
        SessionsStream { builder, torn: Vec::new(), begun: false }
    }
}

impl SessionsStream {
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), SessionsError> {
        self.begun = true;
        self.torn.extend_from_slice(bytes);
        let mut rest = self.torn.as_slice();
        while let Some(length) = rest.first_chunk::<LENGTH_BYTES>().map(|length| u32::from_le_bytes(*length) as usize) {
            let Some(piece) = rest.get(LENGTH_BYTES..LENGTH_BYTES + length) else { break };
            self.builder.take(Bytes::copy_from_slice(piece))?;
            rest.advance(LENGTH_BYTES + length);
        }
        self.torn = rest.to_vec();
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Sessions, SessionsError> {
        match self.begun {
            false => Ok(Sessions::new(SessionLimits::default())),
            true if self.torn.is_empty() => self.builder.finish(),
            true => Err(SessionsError::Truncated),
        }
    }
}
