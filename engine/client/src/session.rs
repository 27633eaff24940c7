//! The heart of the client: requests in flight, without clock or socket.
//!
//! Events enter through [`Session::step`], what must be done comes out in [`Effects`]. A request is *queued* for a
//! connection, *sent*, or *waiting* for a time at which it is tried again; it leaves through exactly one completion.
//!
//! # Laws
//!
//! - A request is sent again, elsewhere or later, until it is answered or its deadline passes. All attempts of a write
//!   carry the same id, by which the group carries it out once (law 24).
//! - A write with an attempt that may have been carried out is *uncertain*. It ends with an outcome or as unknown, never
//!   with a refusal, and keeps its session; a batch of it is not cut in another way.
//! - A group that has forgotten a write's session says what time it is there; a write that is not uncertain opens another
//!   session then.
//! - Each attempt has its own number on the wire, so an answer to an attempt that is over is ignored (and counted).
//! - An attempt without an answer for a while is over. A connection on which one timed out and nothing was heard since is given up, so that a node which is
//!   stopped but not gone delays each client once and not for ever.
//!
//! The module [`mod@crate::routing`] holds the cache that refusals repair.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pontoon_types::limits::{COMMAND_BYTES_MAX, FRAME_BYTES_MAX};
use pontoon_types::{ClientId, CoreId, Descriptor, Generation, GroupId, NodeId, SessionTime, Time};
use pontoon_wire::client::{self as wire, Operation, Outcome, Refusal, Reply, ReplyFrame, RequestFrame};

use crate::routing::{Repair, RoutingCache};
use crate::slots::Slots;
use crate::work::{Progress, Target, Work};
use crate::{ClientError, Completion, Request, Response, Ticket};

/// A frame of requests is closed at about this many bytes; one more request must still fit below the frame limit.
const REQUEST_FRAME_BYTES: usize = 1 << 20;
const _: () = assert!(REQUEST_FRAME_BYTES + COMMAND_BYTES_MAX + (1 << 20) < FRAME_BYTES_MAX);

/// Most requests in one frame, so that their metadata stays far below the frame limit.
const REQUEST_FRAME_REQUESTS_MAX: usize = 4096;

/// The pause before the third try; it doubles with each further one.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(4);

/// The longest pause between two tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// The ticket of the session's own question for the routing table; callers' tickets are never zero.
const REFRESH: Ticket = Ticket(0);

/// One connection: the `lane` tells several connections to one core apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId {
    /// The node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
    /// Which of the connections to that core.
    pub lane: u16,
}

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Who asks; with the ticket this names a write for ever.
    pub client: ClientId,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long one attempt may take before another is made.
    pub attempt_timeout: Duration,
    /// How long a connection may take until it is welcomed.
    pub connect_timeout: Duration,
    /// Connections to each core.
    pub lanes: u16,
    /// Most requests in flight; above it the answer is Busy.
    pub inflight_max: usize,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// The caller asks. Tickets are unique.
    Submit {
        /// The name of the request.
        ticket: Ticket,
        /// What is asked.
        request: Request,
    },
    /// A connection that was asked for is welcomed by its node.
    LinkUp(LinkId),
    /// A connection failed, before or after it was welcomed.
    LinkDown(LinkId, String),
    /// Replies arrived.
    Receive(LinkId, ReplyFrame),
    /// Time has passed.
    Timer,
    /// Everything of this turn is in: send.
    EndTurn,
}

/// What must be done after a step. The caller drains it.
#[derive(Debug, Default)]
pub struct Effects {
    /// Connections to open, each with its node's address. Each is answered by LinkUp or LinkDown.
    pub open: Vec<(LinkId, String)>,
    /// Frames to send, in order.
    pub send: Vec<(LinkId, RequestFrame)>,
    /// Connections to drop. They are not reported back as down.
    pub close: Vec<LinkId>,
    /// Requests that are over.
    pub done: Vec<Completion>,
}

/// Requests in flight and the connections they use.
///
/// Invariants: a queued request stands in its link's queue exactly once; a waiting one stands in `waiting` exactly
/// once; a sent one is named by its newest attempt only.
pub struct Session {
    options: SessionOptions,
    cache: RoutingCache,
    slots: Slots<Pending>,
    links: BTreeMap<LinkId, Link>,
    /// In the order of submission, which is the order of the deadlines because all requests have the same timeout.
    deadlines: VecDeque<(Time, Ticket, u32)>,
    /// When attempts are over, in the order of their sending; each by its number on the wire.
    attempts: VecDeque<(Time, u64)>,
    waiting: BTreeSet<(Time, Ticket, u32)>,
    /// When this client opened its session with a group, if that was not at zero.
    opened: BTreeMap<GroupId, SessionTime>,
    /// Whether the session itself has asked for the routing table.
    refreshing: bool,
    ignored_replies: u64,
}

struct Pending {
    ticket: Ticket,
    submitted: Time,
    attempts: u32,
    /// The newest definite refusal, which is the result if the deadline comes first.
    refused: Option<ClientError>,
    /// A write that may have been carried out.
    uncertain: bool,
    place: Place,
    work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued(LinkId),
    Sent(LinkId, Option<GroupId>),
    Waiting(Time),
}

#[derive(Default)]
struct Link {
    up: bool,
    opened: Time,
    heard: Time,
    queue: Vec<u32>,
}

impl Session {
    /// A session without requests.
    pub fn new(options: SessionOptions, cache: RoutingCache) -> Session {
        Session {
            options,
            cache,
            slots: Slots::new(),
            links: BTreeMap::new(),
            deadlines: VecDeque::new(),
            attempts: VecDeque::new(),
            opened: BTreeMap::new(),
            waiting: BTreeSet::new(),
            refreshing: false,
            ignored_replies: 0,
        }
    }

    /// The one entry. `now` never goes back.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Effects) {
        match event {
            Event::Submit { ticket, request } => self.submit(now, ticket, request, effects),
            Event::LinkUp(link) => self.link_up(now, link),
            Event::LinkDown(link, why) => self.link_down(now, link, &why, effects),
            Event::Receive(link, frame) => {
                if let Some(state) = self.links.get_mut(&link) {
                    state.heard = now;
                }
                for reply in frame.replies {
                    self.receive(now, link, reply, effects);
                }
            }
            Event::Timer => self.timer(now, effects),
            Event::EndTurn => self.end_turn(now, effects),
        }
    }

    /// The next time at which [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Time> {
        let expiry = self.deadlines.front().map(|(time, ..)| *time);
        let retry = self.waiting.first().map(|(time, ..)| *time);
        let opening =
            self.links.values().filter(|link| !link.up).map(|link| link.opened + self.options.connect_timeout);
        let attempt = self.attempts.front().map(|(time, _)| *time);
        opening.chain(expiry).chain(retry).chain(attempt).min()
    }

    /// What the session believes about the cluster.
    pub fn cache(&self) -> &RoutingCache {
        &self.cache
    }

    /// How many requests are not completed.
    pub fn inflight(&self) -> usize {
        self.slots.len()
    }

    /// Replies that answered nothing: late ones, or a node's mistake.
    pub fn ignored_replies(&self) -> u64 {
        self.ignored_replies
    }

    fn submit(&mut self, now: Time, ticket: Ticket, request: Request, effects: &mut Effects) {
        let result = if self.slots.len() >= self.options.inflight_max {
            Err(ClientError::Busy { retry_after: Duration::from_millis(1) })
        } else {
            let floor = self.deadlines.front().map_or(ticket, |(_, lowest, _)| ticket.min(*lowest));
            Work::new(self.options.client, ticket, floor, request)
        };
        match result {
            Err(error) => effects.done.push(Completion { ticket, result: Err(error) }),
            Ok(work) => self.start(now, ticket, work, effects),
        }
    }

    fn start(&mut self, now: Time, ticket: Ticket, work: Work, effects: &mut Effects) {
        let place = Place::Waiting(now);
        let (submitted, attempts, refused, uncertain) = (now, 0, None, false);
        let slot = self.slots.insert(Pending { ticket, submitted, attempts, refused, uncertain, place, work });
        self.deadlines.push_back((now + self.options.timeout, ticket, slot));
        self.dispatch(now, slot, effects);
    }

    /// Asks for the whole routing table, once at a time. Requests that need it wait meanwhile.
    fn refresh(&mut self, now: Time, effects: &mut Effects) {
        if !std::mem::replace(&mut self.refreshing, true) {
            self.start(now, REFRESH, Work::Routes, effects);
        }
    }

    /// Queues a request for the connection that its route names, or lets it wait when nobody is worth asking.
    fn dispatch(&mut self, now: Time, slot: u32, effects: &mut Effects) {
        let Some(pending) = self.slots.get(slot) else { return };
        let target = match &pending.work.target() {
            Target::Keys { first, last } => {
                if !pending.uncertain && last.is_some_and(|last| !self.cache.descriptor(first).range.contains(last)) {
                    let why = "the keys of a batch must lie in one range".to_string();
                    return self.complete(slot, Err(ClientError::Refused { why }), effects);
                }
                self.cache.route(first, now).map(|route| (route.node, route.core))
            }
            Target::Replica { key } => {
                self.cache.route_to_replica(key, pending.attempts, now).map(|route| (route.node, route.core))
            }
            Target::Group(group) => match self.cache.route_to_leader(*group, now) {
                Some(route) => route.map(|route| (route.node, route.core)),
                None => {
                    let why = format!("no range has group {group}");
                    return self.complete(slot, Err(ClientError::Refused { why }), effects);
                }
            },
            Target::Core { node, core } if self.cache.address(*node).is_none() || core.0 >= self.cache.cores() => {
                let why = format!("the cluster has no core {core} of node {node}");
                return self.complete(slot, Err(ClientError::Refused { why }), effects);
            }
            Target::On { node, .. } if self.cache.address(*node).is_none() => {
                let why = format!("the cluster has no node {node}");
                return self.complete(slot, Err(ClientError::Refused { why }), effects);
            }
            Target::On { node, group } => Ok((*node, pontoon_router::core_of(*group, self.cache.cores()))),
            Target::Core { node, core } => Ok((*node, *core)),
            Target::Anyone => self.cache.any_node(now).map(|node| (node, CoreId(0))),
        };
        match target {
            Ok((node, core)) => {
                let lane = (slot % u32::from(self.options.lanes.max(1))) as u16;
                self.enqueue(now, slot, LinkId { node, core, lane }, effects);
            }
            Err(until) => self.wait(slot, until.max(now + RETRY_PAUSE_MIN)),
        }
    }

    fn enqueue(&mut self, now: Time, slot: u32, link: LinkId, effects: &mut Effects) {
        let state = self.links.entry(link).or_insert_with(|| {
            let address = self.cache.address(link.node).unwrap_or_default().to_string();
            effects.open.push((link, address));
            Link { up: false, opened: now, heard: now, queue: Vec::new() }
        });
        state.queue.push(slot);
        if let Some(pending) = self.slots.get_mut(slot) {
            pending.place = Place::Queued(link);
        }
    }

    fn wait(&mut self, slot: u32, until: Time) {
        if let Some(pending) = self.slots.get_mut(slot) {
            pending.place = Place::Waiting(until);
            self.waiting.insert((until, pending.ticket, slot));
        }
    }

    /// An attempt was sent and will not be answered, or the node does not know what came of it.
    fn unanswered(&mut self, slot: u32) {
        if let Some(pending) = self.slots.get_mut(slot) {
            pending.uncertain |= pending.work.is_write();
        }
    }

    /// Tries again: at once the first two times if there is somewhere new to go, else after
    /// a pause. When the pause would outlast the deadline, the refusal is the result.
    fn retry(&mut self, now: Time, slot: u32, refusal: ClientError, at_once: bool, effects: &mut Effects) {
        let Some(pending) = self.slots.get_mut(slot) else { return };
        pending.attempts += 1;
        let mut pause = match pending.attempts {
            0..=2 if at_once => Duration::ZERO,
            attempts => (RETRY_PAUSE_MIN * 2u32.pow(attempts.min(6) - 1)).min(RETRY_PAUSE_MAX),
        };
        if let ClientError::Busy { retry_after } = &refusal {
            pause = pause.max(*retry_after);
        }
        if now + pause >= pending.submitted + self.options.timeout {
            return self.complete(slot, Err(refusal), effects);
        }
        pending.refused = Some(refusal);
        match pause {
            Duration::ZERO => self.dispatch(now, slot, effects),
            _ => self.wait(slot, now + pause),
        }
    }

    fn receive(&mut self, now: Time, link: LinkId, reply: Reply, effects: &mut Effects) {
        let found = self.slots.find(reply.sequence).and_then(|slot| match self.slots.get(slot)?.place {
            Place::Sent(asked, group) if asked == link => Some((slot, group)),
            _ => None,
        });
        let Some((slot, group)) = found else {
            self.ignored_replies += 1;
            return;
        };
        match reply.result {
            Ok(outcome) => self.answered(now, slot, outcome, effects),
            Err(refusal) => self.refused(now, slot, link, group, refusal, effects),
        }
    }

    fn answered(&mut self, now: Time, slot: u32, outcome: Outcome, effects: &mut Effects) {
        let Some(pending) = self.slots.get_mut(slot) else { return };
        match pending.work.answer(outcome) {
            Progress::Done(result) => self.complete(slot, result, effects),
            Progress::GoOn => self.dispatch(now, slot, effects),
        }
    }

    fn refused(
        &mut self,
        now: Time,
        slot: u32,
        link: LinkId,
        group: Option<GroupId>,
        refusal: Refusal,
        effects: &mut Effects,
    ) {
        let at_once = match &refusal {
            Refusal::NotLeader { leader } => {
                group.is_some_and(|group| self.cache.not_leader(group, link.node, *leader))
            }
            Refusal::StaleDescriptor { descriptor, leader } => match self.cache.accept(descriptor, *leader) {
                Repair::Done => true,
                Repair::Nothing => {
                    // One that has no replica and knows no better cannot say more the next time.
                    if let (Some(group), None) = (group, *leader) {
                        self.cache.not_leader(group, link.node, None);
                    }
                    false
                }
                Repair::NeedsRoutes => {
                    self.refresh(now, effects);
                    false
                }
            },
            Refusal::Order { reason, .. } if reason.passes() => false,
            Refusal::Busy { .. } | Refusal::TooStale { .. } => false,
            Refusal::Unknown => {
                self.unanswered(slot);
                false
            }
            Refusal::Forgotten { now } if self.reopen(slot, group, *now) => true,
            Refusal::Forgotten { .. } | Refusal::TooLarge { .. } | Refusal::Refused { .. } | Refusal::Order { .. } => {
                return self.complete(slot, Err(refusal.into()), effects);
            }
        };
        self.retry(now, slot, refusal.into(), at_once, effects);
    }

    /// The group has forgotten the session of a write, or what is as old in it. Opens another one, unless a write before did.
    /// Returns whether this write may go on in it: what may have been carried out in its own session may not.
    fn reopen(&mut self, slot: u32, group: Option<GroupId>, now: SessionTime) -> bool {
        let (Some(pending), Some(group)) = (self.slots.get(slot), group) else { return false };
        let opened = self.opened.entry(group).or_default();
        if pending.work.opened() == Some(*opened) {
            *opened = now.max(*opened);
        }
        !pending.uncertain
    }

    fn link_up(&mut self, now: Time, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.up = true;
            state.heard = now;
            self.cache.node_up(link.node);
        }
    }

    /// Whatever was queued there never left, whatever was sent there may have arrived. Both go elsewhere.
    fn link_down(&mut self, now: Time, link: LinkId, why: &str, effects: &mut Effects) {
        if self.links.remove(&link).is_none() {
            return;
        }
        self.cache.node_down(link.node, now);
        let affected: Vec<(u32, bool)> = self
            .slots
            .iter()
            .filter_map(|(slot, pending)| match pending.place {
                Place::Queued(on) if on == link => Some((slot, false)),
                Place::Sent(on, _) if on == link => Some((slot, true)),
                _ => None,
            })
            .collect();
        for (slot, was_sent) in affected {
            let lost = ClientError::Unreachable { why: format!("{}: {why}", link.node) };
            let bound = self.slots.get(slot).is_some_and(|pending| pending.work.is_bound());
            if was_sent {
                self.unanswered(slot);
            }
            if bound {
                self.complete(slot, Err(lost), effects);
            } else {
                self.retry(now, slot, lost, true, effects);
            }
        }
    }

    fn timer(&mut self, now: Time, effects: &mut Effects) {
        while let Some((time, ticket, slot)) = self.deadlines.front().copied() {
            let alive = self.slots.get(slot).is_some_and(|pending| pending.ticket == ticket);
            if alive && time > now {
                break;
            }
            self.deadlines.pop_front();
            if alive {
                self.expire(now, slot, effects);
            }
        }
        while let Some((_, attempt)) = self.attempts.front().copied().filter(|(time, _)| *time <= now) {
            self.attempts.pop_front();
            self.attempt_over(now, attempt, effects);
        }
        while let Some((time, ticket, slot)) = self.waiting.first().copied().filter(|(time, ..)| *time <= now) {
            self.waiting.remove(&(time, ticket, slot));
            self.dispatch(now, slot, effects);
        }
        let limit = self.options.connect_timeout;
        let late = |link: &Link| !link.up && link.opened + limit <= now;
        let silent: Vec<LinkId> = self.links.iter().filter(|(_, link)| late(link)).map(|(id, _)| *id).collect();
        for link in silent {
            effects.close.push(link);
            self.link_down(now, link, "no welcome in time", effects);
        }
    }

    /// An attempt has had its time. A silent connection is given up; if it is not silent, whoever was asked cannot answer.
    fn attempt_over(&mut self, now: Time, attempt: u64, effects: &mut Effects) {
        let Some(slot) = self.slots.find(attempt) else { return };
        let Some(Pending { place: Place::Sent(link, group), work, .. }) = self.slots.get(slot) else { return };
        let (link, group) = (*link, *group);
        if work.is_bound() {
            return;
        }
        if self.links.get(&link).is_some_and(|state| state.heard + self.options.attempt_timeout <= now) {
            effects.close.push(link);
            return self.link_down(now, link, "nothing heard in time", effects);
        }
        if let Some(group) = group {
            self.cache.not_leader(group, link.node, None);
        }
        self.unanswered(slot);
        self.retry(now, slot, ClientError::Unknown, true, effects);
    }

    fn expire(&mut self, now: Time, slot: u32, effects: &mut Effects) {
        let Some(pending) = self.slots.get_mut(slot) else { return };
        let (place, submitted) = (pending.place, pending.submitted);
        let never_left = || ClientError::Unreachable { why: "no connection was open in time".to_string() };
        let error = match place {
            Place::Sent(..) => ClientError::Unknown,
            Place::Queued(_) | Place::Waiting(_) => pending.refused.take().unwrap_or_else(never_left),
        };
        self.complete(slot, Err(error), effects);
        if let Place::Sent(link, _) = place
            && self.links.get(&link).is_some_and(|state| state.heard <= submitted)
        {
            effects.close.push(link);
            self.link_down(now, link, "nothing heard in time", effects);
        }
    }

    /// The one place where a ticket ends.
    fn complete(&mut self, slot: u32, result: Result<Response, ClientError>, effects: &mut Effects) {
        let Some(pending) = self.slots.remove(slot) else { return };
        let result = result.map_err(|error| if pending.uncertain { ClientError::Unknown } else { error });
        match pending.place {
            Place::Queued(link) => {
                if let Some(state) = self.links.get_mut(&link) {
                    state.queue.retain(|queued| *queued != slot);
                }
            }
            Place::Waiting(until) => {
                self.waiting.remove(&(until, pending.ticket, slot));
            }
            Place::Sent(..) => {}
        }
        match (pending.ticket, result) {
            (REFRESH, Ok(Response::Routes(routes))) => {
                self.refreshing = false;
                self.cache.refresh(*routes);
            }
            (REFRESH, _) => self.refreshing = false,
            (ticket, result) => effects.done.push(Completion { ticket, result }),
        }
        // Deadlines of finished requests are dropped here, or a fast client would keep a timeout's worth of them.
        while let Some((_, ticket, slot)) = self.deadlines.front()
            && self.slots.get(*slot).is_none_or(|pending| pending.ticket != *ticket)
        {
            self.deadlines.pop_front();
        }
        while self.attempts.front().is_some_and(|(_, attempt)| self.slots.find(*attempt).is_none()) {
            self.attempts.pop_front();
        }
    }

    fn end_turn(&mut self, now: Time, effects: &mut Effects) {
        let over = now + self.options.attempt_timeout;
        for (link, state) in self.links.iter_mut().filter(|(_, state)| state.up && !state.queue.is_empty()) {
            let room = state.queue.len().min(REQUEST_FRAME_REQUESTS_MAX);
            let mut frame = RequestFrame { requests: Vec::with_capacity(room) };
            let mut frame_bytes = 0;
            for slot in state.queue.drain(..) {
                let sequence = self.slots.begin_attempt(slot);
                let pending = self.slots.get_mut(slot).expect("a queued request is in flight");
                let opened = if pending.uncertain { None } else { Some(&self.opened) };
                let (operation, group) = operation_for(&mut pending.work, &self.cache, opened);
                self.attempts.push_back((over, sequence));
                pending.place = Place::Sent(*link, group);
                frame_bytes += pending.work.payload_bytes();
                frame.requests.push(wire::Request { sequence, operation });
                if frame_bytes >= REQUEST_FRAME_BYTES || frame.requests.len() >= REQUEST_FRAME_REQUESTS_MAX {
                    effects.send.push((*link, std::mem::take(&mut frame)));
                    frame_bytes = 0;
                }
            }
            if !frame.requests.is_empty() {
                effects.send.push((*link, frame));
            }
        }
    }
}

/// What travels: the work, addressed by the descriptor known at this moment, in the session `opened` with its group.
fn operation_for(
    work: &mut Work,
    cache: &RoutingCache,
    opened: Option<&BTreeMap<GroupId, SessionTime>>,
) -> (Operation, Option<GroupId>) {
    match work.target() {
        Target::Keys { first: key, .. } | Target::Replica { key } => {
            let Descriptor { group, generation, range, .. } = cache.descriptor(key);
            if let Some(opened) = opened {
                work.reopen(opened.get(group).copied().unwrap_or_default());
            }
            (work.operation(*group, *generation, range.end.as_ref()), Some(*group))
        }
        Target::Group(group) => {
            let generation = cache.descriptor_of(group).map_or(Generation(0), |descriptor| descriptor.generation);
            (work.operation(group, generation, None), Some(group))
        }
        Target::On { group, .. } => (work.operation(group, Generation(0), None), None),
        Target::Core { .. } => (Operation::Status, None),
        Target::Anyone => (Operation::Routes, None),
    }
}
