//! One non-blocking TCP connection to one core: opening, the greeting, frames out, frames in.
//!
//! The socket is always watched for reading; it is watched for writing while it opens and while bytes are left over.
//! One call of [`Link::ready`] does at most one receive.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pontoon_types::NodeId;
use pontoon_wire::client::{ReplyFrame, RequestFrame};
use pontoon_wire::frame::FrameReader;
use pontoon_wire::hello::{Hello, WELCOME_BYTES, Welcome};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::session::LinkId;

/// What reading a connection brought.
pub(crate) enum Arrival {
    /// The node has welcomed us.
    Up,
    /// Replies.
    Replies(ReplyFrame),
}

/// A connection and its buffers.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    socket: OwnedFd,
    state: State,
    reader: FrameReader,
    out: Vec<u8>,
    out_sent: usize,
}

enum State {
    Opening(Box<Hello>),
    /// Bytes of the welcome, and how many are there.
    Greeting(Box<[u8; WELCOME_BYTES]>, usize),
    Up,
}

impl Link {
    /// Starts to connect; [`Link::ready`] goes on.
    pub(crate) fn open(id: LinkId, address: SocketAddr, hello: Hello) -> io::Result<Link> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let state = State::Opening(Box::new(hello));
        Ok(Link { id, socket, state, reader: FrameReader::new(), out: Vec::new(), out_sent: 0 })
    }

    /// What this socket must be watched for.
    pub(crate) fn interest(&self) -> EventFlags {
        match self.state {
            State::Opening(_) => EventFlags::OUT,
            _ if self.out_sent < self.out.len() => EventFlags::IN | EventFlags::OUT,
            _ => EventFlags::IN,
        }
    }

    /// Puts a frame behind what waits to be sent.
    pub(crate) fn push(&mut self, frame: &RequestFrame) {
        frame.encode(&mut self.out);
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.out_sent < self.out.len() {
            match rustix::net::send(&self.socket, &self.out[self.out_sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.out_sent += sent,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out_sent = 0;
        Ok(())
    }

    /// The socket is ready for something: goes on with opening, or receives once and sends the rest.
    pub(crate) fn ready(&mut self, arrivals: &mut Vec<Arrival>) -> io::Result<()> {
        if let State::Opening(hello) = &self.state {
            sockopt::socket_error(&self.socket)??;
            self.out.extend_from_slice(&hello.encode());
            self.state = State::Greeting(Box::new([0; WELCOME_BYTES]), 0);
            return self.flush();
        }
        self.receive(arrivals)?;
        self.flush()
    }

    fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> io::Result<()> {
        let buffer = match &mut self.state {
            State::Greeting(welcome, filled) => &mut welcome[*filled..],
            _ => self.reader.spare(),
        };
        let received = match rustix::net::recv(&self.socket, buffer, RecvFlags::empty()) {
            Ok((_, 0)) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the node closed the connection")),
            Ok((_, received)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match &mut self.state {
            State::Greeting(welcome, filled) => {
                *filled += received;
                if *filled == WELCOME_BYTES {
                    check_welcome(&Welcome::decode(welcome).map_err(io::Error::other)?, Some(self.id.node))?;
                    self.state = State::Up;
                    arrivals.push(Arrival::Up);
                }
            }
            _ => {
                self.reader.filled(received);
                while let Some(frame) = self.reader.next().map_err(io::Error::other)? {
                    arrivals.push(Arrival::Replies(ReplyFrame::decode(frame).map_err(io::Error::other)?));
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a node's welcome lets us go on, and comes from the node that was meant.
pub(crate) fn check_welcome(welcome: &Welcome, node: Option<NodeId>) -> io::Result<()> {
    if let Some(refusal) = &welcome.refusal {
        return Err(io::Error::new(ErrorKind::ConnectionRefused, refusal.to_string()));
    }
    match node {
        Some(node) if node != welcome.node => {
            Err(io::Error::other(format!("the address of {node} is answered by {}", welcome.node)))
        }
        _ => Ok(()),
    }
}
