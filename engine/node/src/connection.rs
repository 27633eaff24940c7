//! A connection that somebody else dialled and that this core owns: a peer's link, or a client.
//!
//! A peer's link only brings frames. A client's connection brings requests and takes replies. Whoever sends something
//! that is not a frame loses this connection and nothing else.
//!
//! A client may ask for more than it reads at once. While more than `CLIENT_REPLY_BYTES_MAX` wait for it nothing more is
//! received from it, until half of that has left. A burst of replies above the limit is therefore no fault, and what
//! waits is bounded by the limit and by the replies to what the client had sent before. A client that takes no byte for
//! [`CLIENT_STALL_MAX`] while it is above the limit does not read, and is closed.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use pontoon_types::limits::CLIENT_REPLY_BYTES_MAX;
use pontoon_types::{NodeId, Time};
use pontoon_wire::frame::{FrameError, FrameReader};
use pontoon_wire::hello::WELCOME_BYTES;

use crate::driver::{Driver, Received, SocketId};
use crate::out_buffer::OutBuffer;

/// The receive buffer of a client; there may be thousands.
const CLIENT_CHUNK_BYTES: usize = 16 << 10;

/// How long a client above the limit may take nothing. Long enough for a pause of the client or a few lost packets,
/// and as long as a request of it would wait; short enough that many such clients do not keep their memory for long.
pub const CLIENT_STALL_MAX: Duration = Duration::from_secs(5);

/// A client that was above the limit is received from again when no more than this waits, so that the socket is not
/// watched and unwatched with each reply.
const RESUME_BYTES_MAX: usize = CLIENT_REPLY_BYTES_MAX / 2;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A core of that node.
    Peer(NodeId),
    /// A client.
    Client,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Peer(node) => write!(f, "node {node}"),
            Caller::Client => f.write_str("a client"),
        }
    }
}

/// One incoming connection.
#[derive(Debug)]
pub struct Connection {
    caller: Caller,
    reader: FrameReader,
    out: OutBuffer,
    /// Too much waits; nothing is received until enough of it has left.
    paused: bool,
    /// Since when no byte has left, while more than the limit waits.
    stalled_since: Option<Time>,
}

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The other side has closed it.
    #[error("closed by the other side")]
    ByCaller,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What came is not a frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] FrameError),
    /// The other side does not read.
    #[error(
        "the client does not read its replies: more than CLIENT_REPLY_BYTES_MAX ({CLIENT_REPLY_BYTES_MAX} bytes) wait \
         and it took none of them for {CLIENT_STALL_MAX:?}"
    )]
    Stalled,
    /// A frame that is whole does not belong there.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer has dialled again; it does so only when its last connection is over.
    #[error("the peer has dialled again")]
    Replaced,
}

impl Closed {
    /// Whether the other side did something that a person should see.
    pub fn is_misuse(&self) -> bool {
        matches!(self, Closed::Malformed(_) | Closed::Stalled | Closed::Refused(_))
    }
}

impl Connection {
    /// A connection whose Hello was accepted; the Welcome leaves first.
    pub fn new(caller: Caller, welcome: &[u8; WELCOME_BYTES]) -> Connection {
        let reader = match caller {
            Caller::Peer(_) => FrameReader::new(),
            Caller::Client => FrameReader::with_chunk(CLIENT_CHUNK_BYTES),
        };
        let mut out = OutBuffer::default();
        out.push(Bytes::copy_from_slice(welcome));
        Connection { caller, reader, out, paused: false, stalled_since: None }
    }

    /// Who is at the other end.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// When [`Connection::unblock`] and [`Connection::flush`] are due, though the socket was not reported.
    pub fn deadline(&self) -> Option<Time> {
        self.stalled_since.map(|since| since + CLIENT_STALL_MAX)
    }

    /// Receives once and gives out the frames that are whole. Frames before a malformed one count. Receives nothing
    /// while too much waits to be sent: a socket that is reported all the same has failed, and the next send says why.
    pub fn receive<D: Driver>(
        &mut self,
        driver: &mut D,
        socket: SocketId,
        frames: &mut Vec<Bytes>,
    ) -> Result<(), Closed> {
        if self.paused {
            return Ok(());
        }
        match driver.receive(socket, self.reader.spare())? {
            Received::Nothing => return Ok(()),
            Received::Closed => return Err(Closed::ByCaller),
            Received::Bytes(bytes) => self.reader.filled(bytes),
        }
        while let Some(frame) = self.reader.next()? {
            frames.push(frame);
        }
        Ok(())
    }

    /// Takes a frame to send at the end of the turn.
    pub fn push(&mut self, frame: Bytes) {
        self.out.push(frame);
    }

    /// The socket can be sent to again.
    pub fn unblock(&mut self) {
        self.out.unblock();
    }

    /// Sends what waits, in one call. For the end of a turn.
    pub fn flush<D: Driver>(&mut self, driver: &mut D, socket: SocketId, now: Time) -> Result<(), Closed> {
        let sent = self.out.flush(driver, socket)?;
        let above = self.out.bytes() > CLIENT_REPLY_BYTES_MAX;
        if above != self.paused && (above || self.out.bytes() <= RESUME_BYTES_MAX) {
            self.paused = above;
            driver.watch_receive(socket, !above)?;
        }
        self.stalled_since = match self.stalled_since {
            _ if !above => None,
            Some(since) if sent == 0 => Some(since),
            _ => Some(now),
        };
        if self.deadline().is_some_and(|deadline| deadline <= now) { Err(Closed::Stalled) } else { Ok(()) }
    }
}
