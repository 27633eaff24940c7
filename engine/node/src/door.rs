//! The door: who may come in, and to which core.
//!
//! One core of a node accepts for all. It reads the [`Hello`] of a new connection, and nothing beyond it, judges it,
//! and hands the socket to the core that was asked for; that core answers with the Welcome. A refusal is answered
//! here, and the connection closed.
//!
//! Callers that say nothing are closed after a while, and only so many may be undecided at once. A node without free
//! descriptors stops accepting for a moment instead of spinning on connections that it cannot take.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use pontoon_types::{ClusterId, CoreId, NodeId, Time};
use pontoon_wire::hello::{self, HELLO_BYTES, Hello, HelloRefusal, Welcome};

use crate::connection::Caller;
use crate::driver::{Driver, Received, SocketId};
use crate::inbox::{Delivery, Inbox};
use crate::write_limits::WriteLimits;

/// How long a caller may take to say who it is.
const GREETING_MAX: Duration = Duration::from_secs(3);

/// The most callers that have not yet said who they are.
const GREETINGS_MAX: usize = 1024;

/// The most connections accepted in one turn, so that a flood of them does not hold the turn up.
const ACCEPTS_PER_TURN_MAX: usize = 16;

/// How long the door stays shut when the process has no free descriptor.
const SHUT: Duration = Duration::from_millis(100);

/// The most kinds of refusal that are remembered as logged.
const LOGGED_MAX: usize = 64;

/// A connection on its way to the core that it asked for.
#[derive(Debug)]
pub struct Parcel {
    /// The socket, from which exactly the Hello was read.
    pub socket: OwnedFd,
    /// Who calls.
    pub caller: Caller,
    /// The frame version that both sides read.
    pub version: u16,
}

/// What this node says of itself, and whom it knows.
#[derive(Clone, Debug)]
pub struct Household {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// How many cores it has.
    pub cores: u16,
    /// All nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// The size of the segments of each core's log.
    pub segment_bytes: Vec<u32>,
}

/// The accepting side of a node.
#[derive(Debug)]
pub struct Door {
    household: Household,
    own_core: CoreId,
    inboxes: Vec<Arc<Inbox<Delivery>>>,
    greetings: BTreeMap<SocketId, Greeting>,
    shut_until: Option<Time>,
    logged: Vec<String>,
}

#[derive(Debug)]
struct Greeting {
    from: Option<SocketAddr>,
    until: Time,
    hello: [u8; HELLO_BYTES],
    received: usize,
}

/// A caller that was let in and asked for the accepting core itself.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    /// Its socket, which stays with the driver.
    pub socket: SocketId,
    /// Who calls.
    pub caller: Caller,
    /// The frame version that both sides read.
    pub version: u16,
}

impl Household {
    /// The answer to a caller.
    pub fn welcome(&self, version: u16, refusal: Option<HelloRefusal>) -> [u8; hello::WELCOME_BYTES] {
        Welcome { cluster: self.cluster, node: self.node, cores: self.cores, version, refusal }.encode()
    }

    /// Whether the caller may come in, and which frame version it will speak.
    pub fn judge(&self, hello: &Hello) -> Result<(Caller, u16), HelloRefusal> {
        let any_cluster = matches!(hello.from, hello::Caller::Client(_)) && hello.cluster == ClusterId(0);
        if hello.cluster != self.cluster && !any_cluster {
            return Err(HelloRefusal::OtherCluster);
        }
        let version = hello.common_version().ok_or(HelloRefusal::Version)?;
        let own_bytes = self.segment_bytes.get(usize::from(hello.core.0)).copied().ok_or(HelloRefusal::NoSuchCore);
        let caller = match hello.from {
            hello::Caller::Client(_) => own_bytes.map(|_| Caller::Client)?,
            hello::Caller::Peer { node, to, cores, segment_bytes: caller_bytes, .. } => {
                if to != self.node || node == self.node {
                    return Err(HelloRefusal::OtherNode);
                }
                if !self.nodes.contains(&node) {
                    return Err(HelloRefusal::GivenUp);
                }
                if cores != self.cores {
                    return Err(HelloRefusal::OtherCoreCount);
                }
                let own_bytes = own_bytes?;
                if !WriteLimits::of(own_bytes.into()).hold(WriteLimits::of(caller_bytes.into())) {
                    return Err(HelloRefusal::LargerSegments { caller_bytes, own_bytes });
                }
                Caller::Peer(node)
            }
        };
        Ok((caller, version))
    }
}

impl Door {
    /// A door on `own_core`, with the inboxes of all cores.
    pub fn new(household: Household, own_core: CoreId, inboxes: Vec<Arc<Inbox<Delivery>>>) -> Door {
        Door { household, own_core, inboxes, greetings: BTreeMap::new(), shut_until: None, logged: Vec::new() }
    }

    /// When [`Door::expire`] is due.
    pub fn deadline(&self) -> Option<Time> {
        let greeting = self.greetings.values().map(|greeting| greeting.until).min();
        [greeting, self.shut_until].into_iter().flatten().min()
    }

    /// Whether the socket is that of a caller who has not yet said who it is.
    pub fn knows(&self, socket: SocketId) -> bool {
        self.greetings.contains_key(&socket)
    }

    /// Closes callers that said nothing, and opens again after a shortage.
    pub fn expire<D: Driver>(&mut self, driver: &mut D, now: Time) -> io::Result<()> {
        if self.shut_until.is_some_and(|until| until <= now) {
            self.shut_until = None;
            driver.watch_listener(true)?;
        }
        let late: Vec<SocketId> =
            self.greetings.iter().filter(|(_, greeting)| greeting.until <= now).map(|(socket, _)| *socket).collect();
        for socket in late {
            self.greetings.remove(&socket);
            driver.close(socket);
        }
        Ok(())
    }

    /// Takes the connections that wait at the listener.
    pub fn accept<D: Driver>(&mut self, driver: &mut D, now: Time) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match driver.accept() {
                Ok(None) => break,
                Ok(Some((socket, _))) if self.greetings.len() >= GREETINGS_MAX => driver.close(socket),
                Ok(Some((socket, from))) => {
                    let greeting = Greeting { from, until: now + GREETING_MAX, hello: [0; HELLO_BYTES], received: 0 };
                    self.greetings.insert(socket, greeting);
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}; raise the limit of open files if this lasts");
                    driver.watch_listener(false)?;
                    self.shut_until = Some(now + SHUT);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads on in a caller's Hello. When it is whole, the caller is let in, sent to its core, or refused.
    pub fn receive<D: Driver>(&mut self, driver: &mut D, socket: SocketId) -> Option<Admitted> {
        let greeting = self.greetings.get_mut(&socket)?;
        match driver.receive(socket, &mut greeting.hello[greeting.received..]) {
            Ok(Received::Nothing) => return None,
            Ok(Received::Bytes(bytes)) => greeting.received += bytes,
            Ok(Received::Closed) | Err(_) => {
                self.greetings.remove(&socket);
                driver.close(socket);
                return None;
            }
        }
        if greeting.received < HELLO_BYTES {
            return None;
        }
        let greeting = self.greetings.remove(&socket)?;
        let from = greeting.from.map_or_else(|| "an unknown address".to_string(), |from| from.ip().to_string());
        let hello = match Hello::decode(&greeting.hello) {
            Ok(hello) => hello,
            Err(error) => {
                self.log_once(format!("refused a connection from {from}: not a hello: {error}"));
                driver.close(socket);
                return None;
            }
        };
        match self.household.judge(&hello) {
            Ok((caller, version)) if hello.core == self.own_core => Some(Admitted { socket, caller, version }),
            Ok((caller, version)) => {
                self.hand_over(driver, socket, hello.core, caller, version);
                None
            }
            Err(refusal) => {
                let who = match hello.from {
                    hello::Caller::Peer { node, .. } => format!("node {node} of cluster {}", hello.cluster),
                    hello::Caller::Client(_) => "a client".to_string(),
                };
                self.log_once(format!("refused {who} from {from}: {refusal}"));
                self.refuse(driver, socket, refusal);
                None
            }
        }
    }

    fn hand_over<D: Driver>(&mut self, driver: &mut D, socket: SocketId, core: CoreId, caller: Caller, version: u16) {
        let inbox = &self.inboxes[usize::from(core.0)];
        let Some(fd) = driver.release(socket) else { return };
        let parcel = Delivery::Connection(Parcel { socket: fd, caller, version });
        if let Err(Delivery::Connection(parcel)) = inbox.push(parcel) {
            // The core is gone, or does not keep up with new connections; the caller is told, and the socket closes here.
            let refusal = if inbox.is_closed() { HelloRefusal::CoreStopped } else { HelloRefusal::Full };
            if let Ok(socket) = driver.adopt(parcel.socket) {
                self.refuse(driver, socket, refusal);
            }
        }
    }

    /// Tells the caller why, as far as its empty socket takes it, and closes.
    fn refuse<D: Driver>(&mut self, driver: &mut D, socket: SocketId, refusal: HelloRefusal) {
        let welcome = self.household.welcome(pontoon_wire::VERSION, Some(refusal));
        let _ = driver.send(socket, &[IoSlice::new(&welcome)]);
        driver.close(socket);
    }

    /// A caller that tries again each second is one line, not one line each second.
    fn log_once(&mut self, line: String) {
        if self.logged.contains(&line) {
            return;
        }
        tracing::warn!("{line}");
        if self.logged.len() >= LOGGED_MAX {
            self.logged.remove(0);
        }
        self.logged.push(line);
    }
}
