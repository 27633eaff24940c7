//! The link to one peer: the connection that this core dials, and on which only this core sends frames.
//!
//! ```text
//!            due            connected          welcomed
//!  Waiting ───────▶ Dialing ───────▶ Greeting ───────▶ Up
//!     ▲                │                │               │
//!     └── back-off ────┴── refused, ────┴── broken, ────┘
//!                          too slow         too full
//! ```
//!
//! The peer's own frames come on the connection that the peer dials. After the Welcome nothing arrives on this one, so
//! anything that can be received is its end.
//!
//! Frames for a link that is not up are dropped: the groups send again when it is (`Event::PeerUp`). Each kind of
//! trouble is logged once, until it changes or the link comes up.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pontoon_types::limits::LINK_BYTES_MAX;
use pontoon_types::{NodeId, Time};
use pontoon_wire::hello::{Hello, WELCOME_BYTES, Welcome};

use crate::driver::{Driver, Received, SocketId};
use crate::out_buffer::OutBuffer;

/// The pause after the first failure; it doubles with each further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);

/// The longest pause, so that a node that comes back is found again soon.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// How long connecting and being welcomed may take together.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// The connection to one peer in all its states.
#[derive(Debug)]
pub struct Link {
    peer: NodeId,
    address: SocketAddr,
    hello: Hello,
    state: State,
    out: OutBuffer,
    back_off: Duration,
    /// The trouble that was logged last.
    trouble: Option<String>,
}

#[derive(Debug)]
enum State {
    Waiting { until: Time },
    Dialing { socket: SocketId, until: Time },
    Greeting { socket: SocketId, until: Time, welcome: [u8; WELCOME_BYTES], received: usize },
    Up { socket: SocketId },
}

/// What the core has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The link can carry frames.
    Up,
    /// The link broke.
    Down,
}

impl Link {
    /// A link that dials at once.
    pub fn new(peer: NodeId, address: SocketAddr, hello: Hello) -> Link {
        let state = State::Waiting { until: Time(0) };
        Link { peer, address, hello, state, out: OutBuffer::default(), back_off: BACK_OFF_MIN, trouble: None }
    }

    /// The peer.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The socket in use.
    pub fn socket(&self) -> Option<SocketId> {
        match self.state {
            State::Waiting { .. } => None,
            State::Dialing { socket, .. } | State::Greeting { socket, .. } | State::Up { socket } => Some(socket),
        }
    }

    /// When [`Link::expire`] is due.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Waiting { until } | State::Dialing { until, .. } | State::Greeting { until, .. } => Some(until),
            State::Up { .. } => None,
        }
    }

    /// Dials when the pause is over, gives up what takes too long.
    pub fn expire<D: Driver>(&mut self, driver: &mut D, now: Time) {
        match self.state {
            State::Waiting { until } if until <= now => match driver.dial(self.address) {
                Ok(socket) => self.state = State::Dialing { socket, until: now + GREETING_MAX },
                Err(error) => {
                    self.fail(driver, now, format!("cannot connect: {error}"));
                }
            },
            State::Dialing { until, .. } | State::Greeting { until, .. } if until <= now => {
                self.fail(driver, now, "the peer does not answer".to_string());
            }
            _ => {}
        }
    }

    /// Goes on with a socket that is ready.
    pub fn ready<D: Driver>(&mut self, driver: &mut D, now: Time, receive: bool, send: bool) -> Option<Change> {
        match self.state {
            State::Waiting { .. } => None,
            State::Dialing { socket, until } => self.connected(driver, now, socket, until),
            State::Greeting { .. } => receive.then(|| self.welcomed(driver, now)).flatten(),
            State::Up { socket } => {
                if receive {
                    let mut nothing = [0; 16];
                    let why = match driver.receive(socket, &mut nothing) {
                        Ok(Received::Nothing) => None,
                        Ok(Received::Closed) => Some("the peer closed the connection".to_string()),
                        Ok(Received::Bytes(_)) => Some("the peer sends on a link that is not its own".to_string()),
                        Err(error) => Some(format!("the connection broke: {error}")),
                    };
                    if let Some(why) = why {
                        return self.fail(driver, now, why);
                    }
                }
                if send {
                    self.out.unblock();
                }
                None
            }
        }
    }

    /// Takes a frame to send at the end of the turn. Without an up link it is dropped.
    pub fn push(&mut self, frame: Bytes) -> bool {
        let up = matches!(self.state, State::Up { .. });
        if up {
            self.out.push(frame);
        }
        up
    }

    /// Takes a frame that leaves before all that waits. Without an up link it is dropped.
    pub fn push_first(&mut self, frame: Bytes) -> bool {
        let up = matches!(self.state, State::Up { .. });
        if up {
            self.out.push_first(frame);
        }
        up
    }

    /// Sends what waits, in one call. For the end of a turn.
    pub fn flush<D: Driver>(&mut self, driver: &mut D, now: Time) -> Option<Change> {
        let State::Up { socket } = self.state else { return None };
        if let Err(error) = self.out.flush(driver, socket) {
            return self.fail(driver, now, format!("the connection broke: {error}"));
        }
        if self.out.bytes() > LINK_BYTES_MAX {
            return self.fail(driver, now, "the peer does not read, LINK_BYTES_MAX is reached".to_string());
        }
        None
    }

    fn connected<D: Driver>(&mut self, driver: &mut D, now: Time, socket: SocketId, until: Time) -> Option<Change> {
        if let Err(error) = driver.connected(socket) {
            return self.fail(driver, now, format!("cannot connect: {error}"));
        }
        let mut hello = OutBuffer::default();
        hello.push(Bytes::copy_from_slice(&self.hello.encode()));
        match hello.flush(driver, socket) {
            Ok(_) if hello.bytes() == 0 => {
                self.state = State::Greeting { socket, until, welcome: [0; WELCOME_BYTES], received: 0 };
                None
            }
            Ok(_) => self.fail(driver, now, "a new connection takes no bytes".to_string()),
            Err(error) => self.fail(driver, now, format!("the connection broke: {error}")),
        }
    }

    fn welcomed<D: Driver>(&mut self, driver: &mut D, now: Time) -> Option<Change> {
        let State::Greeting { socket, ref mut welcome, ref mut received, .. } = self.state else { return None };
        match driver.receive(socket, &mut welcome[*received..]) {
            Ok(Received::Nothing) => return None,
            Ok(Received::Bytes(bytes)) => *received += bytes,
            Ok(Received::Closed) => return self.fail(driver, now, "the peer closed without a welcome".to_string()),
            Err(error) => return self.fail(driver, now, format!("the connection broke: {error}")),
        }
        if *received < WELCOME_BYTES {
            return None;
        }
        let why = match Welcome::decode(welcome) {
            Err(error) => Some(format!("the answer is not a welcome: {error}")),
            Ok(Welcome { refusal: Some(refusal), .. }) => Some(format!("the peer refuses: {refusal}")),
            Ok(welcome) if welcome.cluster != self.hello.cluster => Some("the peer is of another cluster".to_string()),
            Ok(welcome) if welcome.node != self.peer => Some(format!("the address is that of {}", welcome.node)),
            Ok(_) => None,
        };
        if let Some(why) = why {
            return self.fail(driver, now, why);
        }
        tracing::info!(peer = %self.peer, address = %self.address, "link is up");
        self.state = State::Up { socket };
        self.back_off = BACK_OFF_MIN;
        self.trouble = None;
        Some(Change::Up)
    }

    /// Closes what there is and dials again after a pause.
    fn fail<D: Driver>(&mut self, driver: &mut D, now: Time, why: String) -> Option<Change> {
        let was_up = matches!(self.state, State::Up { .. });
        if let Some(socket) = self.socket() {
            driver.close(socket);
        }
        self.out = OutBuffer::default();
        self.state = State::Waiting { until: now + self.back_off };
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        if self.trouble.as_deref() != Some(&why) {
            tracing::warn!(peer = %self.peer, address = %self.address, "link is down: {why}; trying again");
            self.trouble = Some(why);
        }
        was_up.then_some(Change::Down)
    }
}
