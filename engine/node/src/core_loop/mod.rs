//! The loop of one core: everything that a turn does, over a [`Driver`].
//!
//! One turn gathers all that has arrived, steps the pure core with it, and carries the effects out:
//!
//! ```text
//!  ready ─▶ gather ───────────────▶ EndTurn ─▶ log.append ─▶ one send for each peer ─▶ sync, if none is in flight
//!           (one receive for                                                        └▶ one send for each client
//!            each ready socket)
//! ```
//!
//! There is no task and no future for a socket or an operation, so the cost of a turn is what its events cost. A turn
//! is bounded: the driver reports a limited number of events, each receive has a limited buffer, and the pure core
//! limits what it applies and what it reads. A client with too many replies waiting is not received from.
//!
//! Laws:
//!
//! - The loop remembers nothing that is safety: what must wait for the disk is held back inside the core (law 13).
//! - One sync is in flight at a time. When one fails the log is fenced, the turn ends at once and nothing leaves any
//!   more: not a frame, not a reply.
//! - The loop sleeps whenever nothing is due: a deadline in the past is acted on in the turn that it wakes.
//! - All sockets belong to the driver and close with it.
//!
//! `gather` is the first half of a turn, `carry_out` the second; `fetch` reads old entries back from the log, `store`
//! speaks with the store of the checkpoints, `stall` watches the sync in flight, `register` tells how the core stands with
//! its peers, `clock` the clock, `questions` answers the program around the node, `rot` hands on what the log has found
//! damaged.

mod carry_out;
mod clock;
mod fetch;
mod gather;
mod questions;
mod register;
mod rot;
mod segment_wait;
mod stall;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Core, Effects, Event};
use pontoon_types::{LogRoom, Time};
use pontoon_wal::Log;
use pontoon_wire::client::Counters;
use rustix::time::{ClockId, clock_gettime};

use crate::connection::Connection;
use crate::door::{Door, Household};
use crate::driver::{Driver, Ready, SocketId};
use crate::error::CoreFailure;
use crate::hold::Hold;
use crate::inbox::{Delivery, Inbox};
use crate::ledger::LedgerKeeper;
use crate::link::Link;
use crate::store::door::StoreDoor;
use crate::trace_file::TraceFile;
use crate::watch::Pulse;
use clock::ClockWatch;
use fetch::Fetches;
pub use fetch::MemoryUse;
use questions::Questions;
use register::WaitWatch;
use segment_wait::SegmentWait;
pub use stall::GIVE_UP_AFTER;
use stall::StallWatch;
use store::StoreSide;

/// How often the counters are taken over into the core, where a status request finds them.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(100);

/// A log that nothing was appended to for this long is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(5);

/// What the loop is made of.
pub struct Parts<D: Driver> {
    /// The machine.
    pub driver: D,
    /// All groups of the core.
    pub core: Core,
    /// The core's log.
    pub log: Log,
    /// The way to the store.
    pub store: StoreDoor,
    /// The way in from other threads.
    pub inbox: Arc<Inbox<Delivery>>,
    /// What others see of the core's turns.
    pub pulse: Arc<Pulse>,
    /// Who this node is.
    pub household: Household,
    /// The accepting side, on one core of the node.
    pub door: Option<Door>,
    /// One link for each peer.
    pub links: Vec<Link>,
    /// The longest time for which a sync is held back; see [`crate::hold`].
    pub sync_hold_max: Duration,
    /// Whether something rests on the clock running as others do (law 2).
    pub watches_clock: bool,
    /// Where the counters are shown to other threads.
    pub counters: Arc<Mutex<Counters>>,
    /// Keeps the ledger of the core, if it has one (law 12).
    pub ledger: Option<LedgerKeeper>,
    /// Where protocol events are written to, if they are wanted.
    pub trace: Option<TraceFile>,
    /// Where the use of memory is shown to other threads.
    pub memory: Arc<Mutex<MemoryUse>>,
}

/// The loop of one core. A value: whoever calls [`CoreLoop::turn`] is its thread.
pub struct CoreLoop<D: Driver> {
    driver: D,
    core: Core,
    log: Log,
    store: StoreSide,
    inbox: Arc<Inbox<Delivery>>,
    pulse: Arc<Pulse>,
    household: Household,
    door: Option<Door>,
    links: Vec<Link>,
    connections: BTreeMap<SocketId, Connection>,
    clients: usize,
    /// Connections with something to send at the end of this turn.
    unsent: Vec<SocketId>,
    /// Clients with more replies waiting than the limit allows.
    stalled: BTreeSet<SocketId>,
    ready: Vec<Ready>,
    frames: Vec<Bytes>,
    effects: Effects,
    /// The core was stepped since its last end of a turn, so there may be effects to fetch.
    stepped: bool,
    sync: SyncState,
    clock: Option<ClockWatch>,
    fetches: Fetches,
    questions: Questions,
    /// What the core was told of it last.
    log_room: Option<LogRoom>,
    counters: Counters,
    shown: Arc<Mutex<Counters>>,
    memory: MemoryUse,
    shown_memory: Arc<Mutex<MemoryUse>>,
    observe_at: Time,
    ledger: Option<LedgerKeeper>,
    waits: WaitWatch,
    trace: Option<TraceFile>,
}

/// What the loop knows of its log's syncs.
struct SyncState {
    hold: Hold,
    /// When the gathered group has to be looked at again.
    look_at: Option<Time>,
    /// How long the next segment is waited for.
    segment_wait: SegmentWait,
    /// When an idle log is sealed. None while something has gathered; without meaning while a sync is in flight.
    seal_at: Option<Time>,
    /// The sync in flight is that of a seal.
    sealing: bool,
    stall: StallWatch,
    /// The log's end was reported.
    told_full: bool,
    /// When it may be said again that the log is full.
    say_full_at: Time,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    Next,
    /// Somebody asked the core to stop, or gave it up while it was away: call [`CoreLoop::close`].
    Stop,
}

impl<D: Driver> CoreLoop<D> {
    /// A loop that has not yet looked at anything.
    pub fn new(parts: Parts<D>) -> CoreLoop<D> {
        CoreLoop {
            driver: parts.driver,
            core: parts.core,
            log: parts.log,
            store: StoreSide::new(parts.store),
            inbox: parts.inbox,
            pulse: parts.pulse,
            household: parts.household,
            door: parts.door,
            links: parts.links,
            connections: BTreeMap::new(),
            clients: 0,
            unsent: Vec::new(),
            stalled: BTreeSet::new(),
            ready: Vec::new(),
            frames: Vec::new(),
            effects: Effects::default(),
            stepped: true,
            sync: SyncState {
                hold: Hold::new(parts.sync_hold_max),
                look_at: None,
                segment_wait: SegmentWait::default(),
                seal_at: None,
                sealing: false,
                stall: StallWatch::default(),
                told_full: false,
                say_full_at: Time(0),
            },
            clock: parts.watches_clock.then(ClockWatch::default),
            fetches: Fetches::default(),
            questions: Questions::default(),
            log_room: None,
            counters: Counters::default(),
            shown: parts.counters,
            memory: MemoryUse::default(),
            shown_memory: parts.memory,
            observe_at: Time(0),
            ledger: parts.ledger,
            waits: WaitWatch::default(),
            trace: parts.trace,
        }
    }

    /// One turn. Sleeps until there is something to do.
    pub fn turn(&mut self) -> Result<Turn, CoreFailure> {
        self.pulse.rests();
        if self.inbox.is_stopping() || self.inbox.is_closed() {
            return Ok(Turn::Stop);
        }
        let deadline = self.deadline();
        let may_sleep = self.inbox.arm() && !self.stepped && !self.ledger_has_news();
        let until = if may_sleep { deadline } else { Some(Time(0)) };
        let mut ready = std::mem::take(&mut self.ready);
        self.driver.ready(until, &mut ready).map_err(CoreFailure::Driver)?;
        self.pulse.wakes();
        self.inbox.disarm();
        let now = self.driver.now();
        self.watch_clock(now);
        self.counters.turns += 1;
        for event in ready.drain(..) {
            self.gather(now, event)?;
        }
        self.ready = ready;
        self.gather_inbox(now);
        self.gather_ledger(now);
        self.expire(now)?;
        self.watch_stall(now)?;
        self.serve_fetches(now);
        let observes = self.observe_at <= now;
        if observes {
            self.hand_on_rot(now)?;
            self.hand_on_pressure(now);
        }
        // Law 2: what rests on the clock is decided at a time that lies after the last event was taken in.
        let now = self.driver.now();
        self.watch_clock(now);
        self.core.step(now, Event::EndTurn, &mut self.effects);
        self.stepped = false;
        self.watch_memory();
        self.carry_out(now)?;
        if observes {
            self.watch_registration(now);
            self.observe(now);
        }
        Ok(Turn::Next)
    }

    /// The clean end: everything closes, the sync in flight is awaited, the log is marked as cleanly closed.
    pub fn close(mut self) -> Result<(), CoreFailure> {
        self.driver.close_all();
        while self.log.in_flight() {
            let mut ready = Vec::new();
            self.driver.ready(self.sync.stall.deadline(), &mut ready).map_err(CoreFailure::Driver)?;
            let now = self.driver.now();
            if ready.is_empty() {
                self.watch_stall(now)?;
            }
            for event in ready {
                if let Ready::Synced(result) = event {
                    self.log.finish_sync(result)?;
                }
            }
        }
        let now = self.driver.now();
        self.observe(now);
        Ok(self.log.close()?)
    }

    /// When the next turn is due, if nothing arrives before.
    fn deadline(&mut self) -> Option<Time> {
        let links = self.links.iter().filter_map(Link::deadline).min();
        let door = self.door.as_ref().and_then(Door::deadline);
        let stalled = self.stalled.iter().filter_map(|socket| self.connections.get(socket)?.deadline()).min();
        // Nothing can be sealed before the sync in flight has ended, and its end is an event.
        let seal = self.sync.seal_at.filter(|_| !self.log.in_flight());
        let stall = self.sync.stall.deadline();
        let fetches = self.fetches.deadline();
        let store = self.store.deadline();
        [self.core.deadline(), links, door, stalled, self.sync.look_at, seal, stall, fetches, store]
            .into_iter()
            .flatten()
            .min()
    }

    fn observe(&mut self, now: Time) {
        self.observe_at = now + OBSERVE_INTERVAL;
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let log = self.log.stats();
        self.counters.cpu_ns = cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64;
        self.counters.system_calls = self.driver.system_calls();
        self.counters.log_groups = log.groups;
        self.counters.log_bytes = log.bytes;
        self.counters.log_prepared_bytes = log.prepared_bytes;
        self.core.observe(self.counters);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = self.core.counters();
        *self.shown_memory.lock().unwrap_or_else(PoisonError::into_inner) = self.memory;
    }
}
