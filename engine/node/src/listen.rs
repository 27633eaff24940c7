//! The listening socket of a node.
//!
//! It is bound without SO_REUSEPORT: with it, the listener of a process that has just died can linger and swallow the
//! connections meant for its successor. SO_REUSEADDR lets a successor bind while old connections are still in
//! TIME_WAIT. What is left is the moment in which the old process is not quite gone; binding is tried again for it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use crate::error::StartError;

/// How long an address may stay in use by a predecessor that is going away.
const IN_USE_MAX: Duration = Duration::from_secs(2);

/// How often it is tried meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Connections that wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 1024;

/// Listens at an address and says which it became (port 0 takes a free one).
pub fn listen_at(address: SocketAddr) -> Result<(OwnedFd, SocketAddr), StartError> {
    let give_up = Instant::now() + IN_USE_MAX;
    loop {
        match try_listen(address) {
            Ok(listener) => return Ok(listener),
            Err(Errno::ADDRINUSE) if Instant::now() < give_up => std::thread::sleep(RETRY_INTERVAL),
            Err(Errno::ADDRINUSE) => return Err(StartError::PortInUse { address }),
            Err(errno) => return Err(StartError::Listen { address, source: errno.into() }),
        }
    }
}

fn try_listen(address: SocketAddr) -> Result<(OwnedFd, SocketAddr), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    let bound = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, bound))
}
