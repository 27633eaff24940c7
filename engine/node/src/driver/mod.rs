//! What a core's loop asks of the machine: readiness, sockets, one sync of its log, and the time.
//!
//! The trait is the seam between the turn, which is the same everywhere, and the way a machine is driven. It is small
//! on purpose: what a steady turn uses is at most one system call each, all calls are counted, and none of them blocks
//! except [`Driver::ready`]. [`epoll::EpollDriver`] is the production driver.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use pontoon_types::Time;

pub mod epoll;
pub(crate) mod ring;

/// A socket that the driver owns. Never reused while the driver lives, so an event for a socket that was closed in
/// the same turn cannot be taken for one of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// Something that the loop was waiting for.
#[derive(Debug)]
pub enum Ready {
    /// A socket can be received from, sent to, or has failed (then both are set and the call tells why).
    Socket {
        /// Which one.
        id: SocketId,
        /// Receiving will not block.
        receive: bool,
        /// Sending will not block.
        send: bool,
    },
    /// Connections wait to be accepted.
    Listener,
    /// The sync that was started last has ended.
    Synced(io::Result<()>),
}

/// What came of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes; never zero.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The other side has closed.
    Closed,
}

/// The machine under one core's loop.
pub trait Driver {
    /// The time now.
    fn now(&self) -> Time;

    /// Waits until something is ready, `until` has come, or the core's inbox was filled. `None` waits for ever; a time
    /// in the past does not wait.
    fn ready(&mut self, until: Option<Time>, ready: &mut Vec<Ready>) -> io::Result<()>;

    /// Takes one waiting connection from the listener, and says where it comes from.
    fn accept(&mut self) -> io::Result<Option<(SocketId, Option<SocketAddr>)>>;

    /// Whether the listener is watched. A node without free descriptors looks away for a while.
    fn watch_listener(&mut self, watch: bool) -> io::Result<()>;

    /// Begins to connect. The socket becomes ready to send when that has ended, well or not.
    fn dial(&mut self, address: SocketAddr) -> io::Result<SocketId>;

    /// How a connect ended.
    fn connected(&mut self, id: SocketId) -> io::Result<()>;

    /// Takes over a connected socket.
    fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId>;

    /// Gives a socket away, to be adopted by another core.
    fn release(&mut self, id: SocketId) -> Option<OwnedFd>;

    /// Receives once.
    fn receive(&mut self, id: SocketId, into: &mut [u8]) -> io::Result<Received>;

    /// Sends once, as much as the socket takes; zero when it takes nothing now.
    fn send(&mut self, id: SocketId, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Whether the socket is reported when it can be sent to. Costs nothing when it does not change.
    fn watch_send(&mut self, id: SocketId, watch: bool) -> io::Result<()>;

    /// Whether the socket is reported when it can be received from, as it is at first. Its failure is reported anyway.
    fn watch_receive(&mut self, id: SocketId, watch: bool) -> io::Result<()>;

    /// Closes a socket. One that is unknown is closed already.
    fn close(&mut self, id: SocketId);

    /// Closes the listener and all sockets. The ring stays, so that a sync in flight can be awaited.
    fn close_all(&mut self);

    /// Starts to make a file's data durable. One at a time; the end comes as [`Ready::Synced`].
    fn sync(&mut self, file: RawFd) -> io::Result<()>;

    /// How many system calls were issued.
    fn system_calls(&self) -> u64;
}
