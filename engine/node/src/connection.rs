//! A connection that somebody else dialled and that this core owns: a peer's link, or a client.
//!
//! A peer's link only brings frames. A client's connection brings requests and takes replies. Whoever sends something
//! that is not a frame loses this connection and nothing else. A client that does not read its replies is closed when
//! more than `CLIENT_REPLY_BYTES_MAX` wait for it.

use std::fmt;
use std::io;

use bytes::Bytes;
use pontoon_types::NodeId;
use pontoon_types::limits::CLIENT_REPLY_BYTES_MAX;
use pontoon_wire::frame::{FrameError, FrameReader};
use pontoon_wire::hello::WELCOME_BYTES;

use crate::driver::{Driver, Received, SocketId};
use crate::out_buffer::OutBuffer;

/// The receive buffer of a client; there may be thousands.
const CLIENT_CHUNK_BYTES: usize = 16 << 10;

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
    #[error("the client does not read its replies, CLIENT_REPLY_BYTES_MAX ({CLIENT_REPLY_BYTES_MAX} bytes) is reached")]
    TooFull,
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
        matches!(self, Closed::Malformed(_) | Closed::TooFull | Closed::Refused(_))
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
        Connection { caller, reader, out }
    }

    /// Who is at the other end.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// Receives once and gives out the frames that are whole. Frames before a malformed one count.
    pub fn receive<D: Driver>(
        &mut self,
        driver: &mut D,
        socket: SocketId,
        frames: &mut Vec<Bytes>,
    ) -> Result<(), Closed> {
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
    pub fn flush<D: Driver>(&mut self, driver: &mut D, socket: SocketId) -> Result<(), Closed> {
        self.out.flush(driver, socket)?;
        if self.out.bytes() > CLIENT_REPLY_BYTES_MAX { Err(Closed::TooFull) } else { Ok(()) }
    }
}
