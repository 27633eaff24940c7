//! The shell of the client: sockets, the clock, one turn for each poll.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use pontoon_types::{ClientId, ClusterId, Time};
use rustix::event::epoll::{self, CreateFlags, Event as Ready, EventData, EventFlags};
use rustix::io::Errno;

use crate::bootstrap;
use crate::clock;
use crate::link::{Arrival, Link};
use crate::routing::RoutingCache;
use crate::session::{Effects, Event, LinkId, Session, SessionOptions};
use crate::{ClientError, Completion, Request, Ticket};

/// Most ready connections looked at in one turn; the rest is ready in the next one.
const READY_MAX: usize = 256;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How many connections to use in all. Less than one for each core of each node means exactly that.
    pub connections: usize,
    /// How long a request may take, retries included.
    pub timeout: Duration,
    /// How long one attempt may take before the request is sent again.
    pub attempt_timeout: Duration,
    /// How long first contact may take, and how long a connection may take until it is welcomed.
    pub connect_timeout: Duration,
    /// Most requests in flight; above it the answer is Busy.
    pub inflight_max: usize,
    /// Who asks. None draws an identity at random, which is what almost everybody wants.
    pub client: Option<ClientId>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connections: 0,
            timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            inflight_max: 64 << 10,
            client: None,
        }
    }
}

/// A client of one cluster. It does nothing between two calls: no thread, no task.
pub struct Client {
    session: Session,
    effects: Effects,
    /// Requests that the next turn takes in: only then is the time known from which their deadlines count.
    submitted: Vec<(Ticket, Request)>,
    /// Answers that came while a blocking call waited for another one.
    stashed: Vec<Completion>,
    next_ticket: u64,
    turn_time: Time,
    identity: ClientId,
    cluster: ClusterId,
    epoll: OwnedFd,
    ready: Vec<Ready>,
    arrivals: Vec<Arrival>,
    links: BTreeMap<u64, Link>,
    tokens: BTreeMap<LinkId, u64>,
    next_token: u64,
}

impl Client {
    /// Asks the endpoints for the routing table and makes a client from it. Connections are opened when needed.
    pub fn connect(endpoints: &[SocketAddr], options: ClientOptions) -> Result<Client, ClientError> {
        let identity = match options.client {
            Some(client) => client,
            None => random_identity()?,
        };
        let contact = bootstrap::contact(endpoints, identity, options.connect_timeout)?;
        let links_min = contact.routes.nodes.len().max(1) * usize::from(contact.routes.cores.max(1));
        let cache = RoutingCache::new(contact.routes)
            .map_err(|error| ClientError::Refused { why: format!("the node's routing table: {error}") })?;
        let session_options = SessionOptions {
            client: identity,
            timeout: options.timeout,
            attempt_timeout: options.attempt_timeout,
            connect_timeout: options.connect_timeout.min(Duration::from_secs(1)),
            lanes: u16::try_from(options.connections.div_ceil(links_min).max(1)).unwrap_or(u16::MAX),
            inflight_max: options.inflight_max,
        };
        Ok(Client {
            session: Session::new(session_options, cache),
            effects: Effects::default(),
            submitted: Vec::new(),
            stashed: Vec::new(),
            next_ticket: 1,
            turn_time: clock::now(),
            identity,
            cluster: contact.cluster,
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(std::io::Error::from)?,
            ready: Vec::with_capacity(READY_MAX),
            arrivals: Vec::new(),
            links: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_token: 0,
        })
    }

    /// Takes a request; it leaves with the next [`Client::poll`], and its time-out counts from there. Its answer
    /// carries the same ticket.
    pub fn submit(&mut self, request: Request) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.submitted.push((ticket, request));
        ticket
    }

    /// One turn: sends what was submitted, waits up to `timeout` for something to happen, and adds what is answered
    /// to `done`. It does not wait when there are answers already.
    pub fn poll(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> Result<(), ClientError> {
        self.turn_time = clock::now();
        if self.session.deadline().is_some_and(|deadline| deadline <= self.turn_time) {
            // After a long pause between two polls, what has come meanwhile is no silence.
            self.wait(Duration::ZERO)?;
            self.receive_all();
        }
        self.session.step(self.turn_time, Event::Timer, &mut self.effects);
        for (ticket, request) in self.submitted.drain(..) {
            self.session.step(self.turn_time, Event::Submit { ticket, request }, &mut self.effects);
        }
        self.end_turn();
        done.append(&mut self.stashed);
        done.append(&mut self.effects.done);

        self.wait(if done.is_empty() { timeout } else { Duration::ZERO })?;
        self.turn_time = clock::now();
        self.receive_all();
        self.session.step(self.turn_time, Event::Timer, &mut self.effects);
        self.end_turn();
        done.append(&mut self.effects.done);
        Ok(())
    }

    /// The time that the last turn read from the clock, when its answers had come (CLOCK_BOOTTIME).
    pub fn turn_time(&self) -> Time {
        self.turn_time
    }

    /// How many requests are not answered.
    pub fn inflight(&self) -> usize {
        self.session.inflight() + self.submitted.len()
    }

    /// How many connections are open or opening.
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// Who asks.
    pub fn identity(&self) -> ClientId {
        self.identity
    }

    /// The cluster that is asked.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What the client believes about the cluster.
    pub fn cache(&self) -> &RoutingCache {
        self.session.cache()
    }

    /// Replies that answered nothing, which a correct node sends only after a time-out.
    pub fn ignored_replies(&self) -> u64 {
        self.session.ignored_replies()
    }

    /// Keeps answers for the next poll.
    pub(crate) fn stash(&mut self, completions: impl IntoIterator<Item = Completion>) {
        self.stashed.extend(completions);
    }

    /// Lets everything out that the session wants out, until it wants nothing more: an open that fails at once makes
    /// requests go elsewhere in the same turn.
    fn end_turn(&mut self) {
        loop {
            self.session.step(self.turn_time, Event::EndTurn, &mut self.effects);
            let idle = self.effects.open.is_empty() && self.effects.send.is_empty() && self.effects.close.is_empty();
            if idle {
                return;
            }
            for link in std::mem::take(&mut self.effects.close) {
                self.forget(link);
            }
            for (link, address) in std::mem::take(&mut self.effects.open) {
                if let Err(error) = self.open(link, &address) {
                    self.lost(link, &error);
                }
            }
            self.send_all();
        }
    }

    fn send_all(&mut self) {
        let mut touched = Vec::new();
        for (id, frame) in std::mem::take(&mut self.effects.send) {
            if let Some(link) = self.tokens.get(&id).and_then(|token| self.links.get_mut(token)) {
                link.push(&frame);
                if touched.last() != Some(&id) {
                    touched.push(id);
                }
            }
        }
        for id in touched {
            let Some(token) = self.tokens.get(&id).copied() else { continue };
            let Some(link) = self.links.get_mut(&token) else { continue };
            let watched = link.interest();
            let result = link.flush().and_then(|()| watch(&self.epoll, token, link, watched));
            if let Err(error) = result {
                self.lost(id, &error);
            }
        }
    }

    fn open(&mut self, id: LinkId, address: &str) -> std::io::Result<()> {
        let resolved = address.to_socket_addrs()?.next();
        let address = resolved.ok_or_else(|| std::io::Error::other(format!("`{address}` is not an address")))?;
        let link = Link::open(id, address, bootstrap::hello(self.cluster, self.identity, id.core))?;
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, &link, EventData::new_u64(token), link.interest())?;
        self.links.insert(token, link);
        self.tokens.insert(id, token);
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let until_deadline = self.session.deadline().map(|deadline| deadline.since(self.turn_time));
        let timeout = until_deadline.map_or(timeout, |left| left.min(timeout));
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }

    fn receive_all(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for event in &ready {
            let token = event.data.u64();
            let Some(link) = self.links.get_mut(&token) else { continue };
            let id = link.id;
            let watched = link.interest();
            let result = link.ready(&mut arrivals).and_then(|()| watch(&self.epoll, token, link, watched));
            // What came before a failure is still an answer.
            for arrival in arrivals.drain(..) {
                let event = match arrival {
                    Arrival::Up => Event::LinkUp(id),
                    Arrival::Replies(frame) => Event::Receive(id, frame),
                };
                self.session.step(self.turn_time, event, &mut self.effects);
            }
            if let Err(error) = result {
                self.lost(id, &error);
            }
        }
        self.ready = ready;
        self.arrivals = arrivals;
    }

    fn lost(&mut self, id: LinkId, error: &std::io::Error) {
        self.forget(id);
        self.session.step(self.turn_time, Event::LinkDown(id, error.to_string()), &mut self.effects);
    }

    /// Closes a connection. Closing takes the socket out of the epoll set as well.
    fn forget(&mut self, id: LinkId) {
        if let Some(token) = self.tokens.remove(&id) {
            self.links.remove(&token);
        }
    }
}

/// Tells epoll when what a link waits for has changed.
fn watch(epoll: &OwnedFd, token: u64, link: &Link, watched: EventFlags) -> std::io::Result<()> {
    if link.interest() != watched {
        epoll::modify(epoll, link, EventData::new_u64(token), link.interest())?;
    }
    Ok(())
}

fn random_identity() -> Result<ClientId, ClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ClientError::Io(error.to_string()))?;
    Ok(ClientId(u128::from_le_bytes(bytes)))
}
