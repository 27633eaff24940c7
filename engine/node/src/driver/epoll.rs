//! The production driver: one epoll set for everything that a core waits for.
//!
//! Sockets, the listener, the inbox's eventfd and the ring's descriptor are all in the set, so that one call gathers a
//! turn. Sockets are watched level-triggered: one receive per ready socket and turn is enough, what is left is
//! reported again, and no second receive is needed to see that a socket is drained. Sending is watched only while
//! bytes wait for a full socket, receiving always unless the owner looks away to slow the other side down.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use pontoon_types::Time;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, acceptfrom_with, connect, recv,
    sendmsg, socket_with, sockopt,
};
use rustix::time::{ClockId, clock_gettime};

use super::ring::Ring;
use super::{Driver, Ready, Received, SocketId};

/// The most events that one readiness call returns; the rest comes with the next one.
const EVENTS_MAX: usize = 256;

const INBOX: u64 = 0;
const RING: u64 = 1;
const LISTENER: u64 = 2;
const FIRST_SOCKET: u64 = 16;

/// Sent and unacknowledged bytes break a link to a peer after this time, so that a machine that is gone is noticed.
const PEER_SILENCE_MS_MAX: u32 = 5_000;

/// The same for whoever dialled this node; a client may pause for longer than a peer.
const CALLER_SILENCE_MS_MAX: u32 = 60_000;

/// An idle caller is asked for a sign of life after this time, so that the dead do not hold descriptors for ever.
const CALLER_IDLE_MAX: Duration = Duration::from_secs(30);

/// One epoll set, the sockets in it, and the ring that syncs.
pub struct EpollDriver {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Kept open for as long as it is watched.
    _inbox: Arc<dyn AsFd + Send + Sync>,
    listener: Option<OwnedFd>,
    sockets: BTreeMap<u64, Socket>,
    next_socket: u64,
    ring: Ring,
    system_calls: u64,
}

struct Socket {
    fd: OwnedFd,
    watched: epoll::EventFlags,
}

impl EpollDriver {
    /// A driver that wakes by `inbox` and, on the core that accepts, watches a listener.
    pub fn new(inbox: Arc<dyn AsFd + Send + Sync>, listener: Option<OwnedFd>) -> io::Result<EpollDriver> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ring = Ring::new()?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, inbox.as_fd(), epoll::EventData::new_u64(INBOX), edge)?;
        epoll::add(&epoll, ring.as_fd(), epoll::EventData::new_u64(RING), epoll::EventFlags::IN)?;
        if let Some(listener) = &listener {
            epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        }
        Ok(EpollDriver {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            _inbox: inbox,
            listener,
            sockets: BTreeMap::new(),
            next_socket: FIRST_SOCKET,
            ring,
            system_calls: 0,
        })
    }

    fn insert(&mut self, fd: OwnedFd, watched: epoll::EventFlags) -> io::Result<SocketId> {
        let id = self.next_socket;
        self.system_calls += 1;
        epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(id), watched)?;
        self.next_socket += 1;
        self.sockets.insert(id, Socket { fd, watched });
        Ok(SocketId(id))
    }

    fn watch(&mut self, id: SocketId, watched: epoll::EventFlags) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(&id.0) else { return Ok(()) };
        if socket.watched != watched {
            self.system_calls += 1;
            epoll::modify(&self.epoll, &socket.fd, epoll::EventData::new_u64(id.0), watched)?;
            socket.watched = watched;
        }
        Ok(())
    }

    fn watch_flag(&mut self, id: SocketId, flag: epoll::EventFlags, watch: bool) -> io::Result<()> {
        let Some(mut watched) = self.sockets.get(&id.0).map(|socket| socket.watched) else { return Ok(()) };
        watched.set(flag, watch);
        self.watch(id, watched)
    }

    fn socket(&self, id: SocketId) -> io::Result<&Socket> {
        self.sockets.get(&id.0).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits once, as long as nothing else than a signal comes.
    fn wait(&mut self, until: Option<Time>) -> io::Result<()> {
        loop {
            let timeout = until.map(|until| timespec(until.since(self.now())));
            self.events.clear();
            self.system_calls += 1;
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
                Ok(_) => return Ok(()),
                // A signal, or the runtime's rings: nothing that the loop waits for.
                Err(Errno::INTR) if until.is_none_or(|until| self.now() < until) => {}
                Err(Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Driver for EpollDriver {
    fn now(&self) -> Time {
        let now = clock_gettime(ClockId::Boottime);
        Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    fn ready(&mut self, until: Option<Time>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.wait(until)?;
        for event in &self.events {
            match event.data.u64() {
                INBOX => {}
                RING => {
                    if let Some(result) = self.ring.finished() {
                        ready.push(Ready::Synced(result));
                    }
                }
                LISTENER => ready.push(Ready::Listener),
                id => {
                    let flags = event.flags;
                    let failed = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                    ready.push(Ready::Socket {
                        id: SocketId(id),
                        receive: failed || flags.contains(epoll::EventFlags::IN),
                        send: failed || flags.contains(epoll::EventFlags::OUT),
                    });
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<Option<(SocketId, Option<SocketAddr>)>> {
        let Some(listener) = &self.listener else { return Ok(None) };
        self.system_calls += 1;
        match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((socket, from)) => {
                self.system_calls += 4;
                sockopt::set_tcp_nodelay(&socket, true)?;
                sockopt::set_tcp_user_timeout(&socket, CALLER_SILENCE_MS_MAX)?;
                sockopt::set_socket_keepalive(&socket, true)?;
                sockopt::set_tcp_keepidle(&socket, CALLER_IDLE_MAX)?;
                let id = self.insert(socket, epoll::EventFlags::IN)?;
                Ok(Some((id, from.and_then(|from| from.try_into().ok()))))
            }
            // The caller may have gone again between the readiness and the accept.
            Err(Errno::WOULDBLOCK | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn watch_listener(&mut self, watch: bool) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let flags = if watch { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        self.system_calls += 1;
        Ok(epoll::modify(&self.epoll, listener, epoll::EventData::new_u64(LISTENER), flags)?)
    }

    fn dial(&mut self, address: SocketAddr) -> io::Result<SocketId> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        self.system_calls += 4;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_tcp_user_timeout(&socket, PEER_SILENCE_MS_MAX)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => self.insert(socket, epoll::EventFlags::OUT),
            Err(errno) => Err(errno.into()),
        }
    }

    fn connected(&mut self, id: SocketId) -> io::Result<()> {
        self.system_calls += 1;
        sockopt::socket_error(&self.socket(id)?.fd)??;
        self.watch(id, epoll::EventFlags::IN)
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        self.insert(socket, epoll::EventFlags::IN)
    }

    fn release(&mut self, id: SocketId) -> Option<OwnedFd> {
        let socket = self.sockets.remove(&id.0)?;
        self.system_calls += 1;
        // A descriptor that was watched until now can be taken out of the set.
        let _ = epoll::delete(&self.epoll, &socket.fd);
        Some(socket.fd)
    }

    fn receive(&mut self, id: SocketId, into: &mut [u8]) -> io::Result<Received> {
        self.system_calls += 1;
        match recv(&self.socket(id)?.fd, into, RecvFlags::empty()) {
            Ok((_, 0)) => Ok(Received::Closed),
            Ok((_, bytes)) => Ok(Received::Bytes(bytes)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Received::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send(&mut self, id: SocketId, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.system_calls += 1;
        let mut control = SendAncillaryBuffer::default();
        match sendmsg(&self.socket(id)?.fd, parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(bytes) => Ok(bytes),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    fn watch_send(&mut self, id: SocketId, watch: bool) -> io::Result<()> {
        self.watch_flag(id, epoll::EventFlags::OUT, watch)
    }

    fn watch_receive(&mut self, id: SocketId, watch: bool) -> io::Result<()> {
        self.watch_flag(id, epoll::EventFlags::IN, watch)
    }

    fn close(&mut self, id: SocketId) {
        if self.sockets.remove(&id.0).is_some() {
            self.system_calls += 1;
        }
    }

    fn close_all(&mut self) {
        self.system_calls += self.sockets.len() as u64;
        self.sockets.clear();
        self.listener = None;
    }

    fn sync(&mut self, file: RawFd) -> io::Result<()> {
        self.system_calls += 1;
        self.ring.sync(file)
    }

    fn system_calls(&self) -> u64 {
        self.system_calls
    }
}

fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) }
}
