//! Sessions as bytes, in pieces of bounded size, for snapshots.
//!
//! ```text
//! piece     0 version (1)   1 now (8)   9 forgotten (8)   17 runs, one after another
//! run       client (16)   opened (8)   used (8)   floor (8)   outcomes (4)   the outcomes, by rising sequence
//! outcome   sequence (8)   1, puts (4) | 2, existed (1) | 3 | 4, operations (4), one after another
//! operation 1 | 2, existed (1) | 3, succeeded (1), present (1), length (4), that many bytes
//! ```
//!
//! All numbers are little-endian. The runs of all pieces rise by session; one session with many outcomes has runs in
//! several pieces. Each piece says `now` and `forgotten` again, so that pieces of two moments do not mix.
//! There is no checksum here: what carries the pieces has one.

use bytes::{Buf, BufMut, Bytes};
use pontoon_types::{ClientId, SessionId, SessionTime};
use pontoon_wire::client::OperationOutcome;

use super::{Kept, Session, SessionLimits, Sessions};

const VERSION: u8 = 1;

/// A piece ends with the outcome that makes it longer than this.
const PIECE_BYTES: usize = 64 << 10;

const RUN_BYTES: usize = 16 + 8 + 8 + 8 + 4;

const PUTS: u8 = 1;
const DELETED: u8 = 2;
const UNKEPT: u8 = 3;
const OTHER: u8 = 4;

const PUT: u8 = 1;
const SWAPPED: u8 = 3;

/// Why bytes are not the sessions of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionsError {
    /// The version is not one that this build reads.
    #[error("version {found} of sessions is not read by this build")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// The bytes end inside something.
    #[error("a piece of the sessions ends too early")]
    Truncated,
    /// A kind is not known.
    #[error("the sessions hold an unknown kind {found}")]
    Kind {
        /// The kind that was found.
        found: u8,
    },
    /// Two pieces are not of one moment, or not in order.
    #[error("the pieces of the sessions do not fit together")]
    Order,
}

/// Where a piece begins: a session, and the first sequence of it that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionsPlace {
    session: SessionId,
    sequence: u64,
}

impl Sessions {
    /// The piece that begins at a place, and where the next one begins, if there is one. The first place is the default one.
    pub fn piece(&self, from: SessionsPlace) -> (Vec<u8>, Option<SessionsPlace>) {
        let mut out = Vec::new();
        out.put_u8(VERSION);
        out.put_u64_le(self.now.0);
        out.put_u64_le(self.forgotten.0);
        for (id, session) in self.sessions.range(from.session..) {
            if out.len() >= PIECE_BYTES {
                return (out, Some(SessionsPlace { session: *id, sequence: 0 }));
            }
            let first = if *id == from.session { from.sequence } else { 0 };
            if let Some(sequence) = session.encode_run(*id, first, &mut out) {
                return (out, Some(SessionsPlace { session: *id, sequence }));
            }
        }
        (out, None)
    }

    /// All pieces, one at least.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut next = Some(SessionsPlace::default());
        std::iter::from_fn(move || {
            let (piece, following) = self.piece(next?);
            next = following;
            Some(piece)
        })
    }
}

impl Session {
    /// Appends a run. Returns the sequence that found no room.
    fn encode_run(&self, id: SessionId, first: u64, out: &mut Vec<u8>) -> Option<u64> {
        out.put_u128_le(id.client.0);
        out.put_u64_le(id.opened.0);
        out.put_u64_le(self.used.0);
        out.put_u64_le(self.floor);
        let count_at = out.len();
        out.put_u32_le(0);
        let mut count = 0_u32;
        let mut left = None;
        for (sequence, kept) in self.kept.from(first) {
            if count > 0 && out.len() >= PIECE_BYTES {
                left = Some(*sequence);
                break;
            }
            count += 1;
            out.put_u64_le(*sequence);
            kept.encode(out);
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        left
    }
}

impl Kept {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Kept::Puts(count) => {
                out.put_u8(PUTS);
                out.put_u32_le(*count);
            }
            Kept::Deleted { existed } => out.put_slice(&[DELETED, u8::from(*existed)]),
            Kept::Unkept => out.put_u8(UNKEPT),
            Kept::Other(outcomes) => {
                out.put_u8(OTHER);
                out.put_u32_le(outcomes.len() as u32);
                outcomes.iter().for_each(|outcome| encode_outcome(outcome, out));
            }
        }
    }

    fn decode(bytes: &mut Bytes) -> Result<Kept, SessionsError> {
        Ok(match u8_of(bytes)? {
            PUTS => Kept::Puts(u32_of(bytes)?),
            DELETED => Kept::Deleted { existed: u8_of(bytes)? != 0 },
            UNKEPT => Kept::Unkept,
            OTHER => {
                let count = u32_of(bytes)? as usize;
                // Each takes a byte at least, so that a wrong count allocates no more than there is.
                enough(bytes, count)?;
                Kept::Other((0..count).map(|_| decode_outcome(bytes)).collect::<Result<_, _>>()?)
            }
            found => return Err(SessionsError::Kind { found }),
        })
    }
}

fn encode_outcome(outcome: &OperationOutcome, out: &mut Vec<u8>) {
    match outcome {
        OperationOutcome::Put => out.put_u8(PUT),
        OperationOutcome::Deleted { existed } => out.put_slice(&[DELETED, u8::from(*existed)]),
        OperationOutcome::Swapped { succeeded, current } => {
            out.put_slice(&[SWAPPED, u8::from(*succeeded), u8::from(current.is_some())]);
            let current = current.as_deref().unwrap_or_default();
            out.put_u32_le(current.len() as u32);
            out.put_slice(current);
        }
    }
}

fn decode_outcome(bytes: &mut Bytes) -> Result<OperationOutcome, SessionsError> {
    Ok(match u8_of(bytes)? {
        PUT => OperationOutcome::Put,
        DELETED => OperationOutcome::Deleted { existed: u8_of(bytes)? != 0 },
        SWAPPED => {
            let (succeeded, present) = (u8_of(bytes)? != 0, u8_of(bytes)? != 0);
            let length = u32_of(bytes)? as usize;
            enough(bytes, length)?;
            // A copy: a slice would keep the whole piece alive.
            let current = Bytes::copy_from_slice(&bytes.split_to(length));
            OperationOutcome::Swapped { succeeded, current: present.then_some(current) }
        }
        found => return Err(SessionsError::Kind { found }),
    })
}

/// Sessions while their pieces come in.
#[derive(Debug)]
pub struct SessionsBuilder {
    sessions: Sessions,
    /// Whether a piece has come.
    begun: bool,
}

impl SessionsBuilder {
    /// Nothing has come.
    pub fn new(limits: SessionLimits) -> SessionsBuilder {
        SessionsBuilder { sessions: Sessions::new(limits), begun: false }
    }

    /// Takes the next piece. After an error the builder is of no use.
    pub fn take(&mut self, piece: Bytes) -> Result<(), SessionsError> {
        let mut bytes = piece;
        match u8_of(&mut bytes)? {
            VERSION => {}
            found => return Err(SessionsError::Version { found }),
        }
        let moments = (SessionTime(u64_of(&mut bytes)?), SessionTime(u64_of(&mut bytes)?));
        let sessions = &mut self.sessions;
        if std::mem::replace(&mut self.begun, true) && moments != (sessions.now, sessions.forgotten) {
            return Err(SessionsError::Order);
        }
        (sessions.now, sessions.forgotten) = moments;
        while !bytes.is_empty() {
            sessions.take_run(&mut bytes)?;
        }
        Ok(())
    }

    /// The sessions, once all pieces have come.
    pub fn finish(self) -> Result<Sessions, SessionsError> {
        if self.begun { Ok(self.sessions) } else { Err(SessionsError::Truncated) }
    }
}

impl Sessions {
    fn take_run(&mut self, bytes: &mut Bytes) -> Result<(), SessionsError> {
        enough(bytes, RUN_BYTES)?;
        let id = SessionId { client: ClientId(bytes.get_u128_le()), opened: SessionTime(bytes.get_u64_le()) };
        let (used, floor) = (SessionTime(bytes.get_u64_le()), bytes.get_u64_le());
        let count = bytes.get_u32_le();
        if self.sessions.last_key_value().is_some_and(|(last, _)| id < *last) {
            return Err(SessionsError::Order);
        }
        let session = self.sessions.entry(id).or_default();
        (session.used, session.floor) = (used, floor);
        for _ in 0..count {
            let sequence = u64_of(bytes)?;
            let last = session.kept.last();
            if sequence < floor || last.is_some_and(|last| sequence <= last) {
                return Err(SessionsError::Order);
            }
            let kept = Kept::decode(bytes)?;
            self.bytes += kept.bytes();
            session.kept.insert(sequence, kept);
        }
        Ok(())
    }
}

fn enough(bytes: &Bytes, count: usize) -> Result<(), SessionsError> {
    if bytes.len() >= count { Ok(()) } else { Err(SessionsError::Truncated) }
}

fn u8_of(bytes: &mut Bytes) -> Result<u8, SessionsError> {
    enough(bytes, 1).map(|()| bytes.get_u8())
}

fn u32_of(bytes: &mut Bytes) -> Result<u32, SessionsError> {
    enough(bytes, 4).map(|()| bytes.get_u32_le())
}

fn u64_of(bytes: &mut Bytes) -> Result<u64, SessionsError> {
    enough(bytes, 8).map(|()| bytes.get_u64_le())
}
