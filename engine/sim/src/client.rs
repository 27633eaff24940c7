//! Simulated clients: they choose what to do, find the leader, wait, give up, and write down what they saw.
//!
//! A client has several lanes, each with one operation under way, and one connection to each core it talks to;
//! requests of its lanes that fall together share a frame. A lane is one client *process* in the sense of request
//! identities, and has one operation open. What was definitely refused is tried again, elsewhere or later; what was sent
//! and not answered is asked for again with the same id in some runs (`repeats`), and unknown in the others. After an outcome
//! that it does not know a lane mostly takes a new identity.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::ConnectionId;
use pontoon_router::core_of;
use pontoon_types::{ClientId, Descriptor, Generation, GroupId, NodeId, RequestId, SessionId, SessionTime, Time};
use pontoon_wire::client::{Operation as WireOperation, Outcome, ReadLevel, Refusal, Reply, ReplyFrame, Request};
use pontoon_wire::command::{Command, KvOperation};

use crate::linear::Value;
use crate::options::ClientOptions;
use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, Phase, World};

/// The place of a get in the mix of operations.
const GET: usize = 1;

/// What an operation asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A command.
    Write(Vec<KvOperation>),
    /// One key.
    Get(Bytes),
    /// Keys of a range from `start`. `known` are the keys that existed when it was called.
    Scan {
        /// The first key.
        start: Bytes,
        /// Most pairs.
        limit: u32,
        /// The keys known at the call.
        known: Vec<Bytes>,
    },
}

/// A step of a lane that follows a script instead of chance.
#[derive(Clone, Debug)]
pub enum Step {
    /// Write something to this key.
    Put(GroupId, Bytes),
    /// Read this key.
    Get(GroupId, Bytes),
}

/// An operation that has begun.
#[derive(Clone, Debug)]
pub struct Pending {
    id: u64,
    /// When it was called, in the history's moments.
    pub call: u64,
    /// The group asked.
    pub group: GroupId,
    generation: Generation,
    /// It asks for a key of another range, which must be refused.
    foreign: bool,
    /// What it asks for.
    pub ask: Ask,
    /// What it asks of a read.
    level: ReadLevel,
    /// An attempt of it may have been carried out.
    uncertain: bool,
    /// The attempt without an answer, if one is under way, and its connection.
    attempt: Option<(u64, ConnectionId)>,
}

/// One operation at a time.
#[derive(Debug)]
pub struct Lane {
    /// Its present identity.
    pub process: ClientId,
    /// The number of its present operation under that identity.
    pub sequence: u64,
    pending: Option<Pending>,
    /// When it opened its sessions, if not at zero.
    opened: BTreeMap<GroupId, SessionTime>,
    /// What is left to do; a lane without a script draws its operations.
    script: Option<VecDeque<Step>>,
    /// The only node that it asks, and only to read.
    loyal_to: Option<NodeId>,
    wake: u64,
}

/// One client.
#[derive(Debug, Default)]
pub struct Client {
    lanes: Vec<Lane>,
    connections: BTreeMap<Place, ConnectionId>,
    leaders: BTreeMap<GroupId, NodeId>,
    /// The last value seen of each key, for compare-and-set.
    pub seen: BTreeMap<Bytes, Value>,
    outgoing: BTreeMap<ConnectionId, Vec<Request>>,
}

/// What an attempt belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    client: usize,
    lane: usize,
    connection: ConnectionId,
    answered: bool,
}

impl World {
    /// Adds a client and wakes its lanes.
    pub(crate) fn add_client(&mut self, scripts: Vec<Option<VecDeque<Step>>>) {
        let client = self.clients.len();
        let lanes = scripts
            .into_iter()
            .map(|script| {
                let process = self.next_process();
                Lane { process, sequence: 0, pending: None, opened: BTreeMap::new(), script, loyal_to: None, wake: 0 }
            })
            .collect();
        self.clients.push(Client { lanes, ..Client::default() });
        for lane in 0..self.clients[client].lanes.len() {
            let wait = self.random.until_next(self.options.client.think_mean);
            self.wake_lane_after(client, lane, wait);
        }
    }

    /// Adds a client that reads from each node, whoever leads.
    pub(crate) fn add_loyal_readers(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        self.add_client(nodes.iter().map(|_| None).collect());
        let lanes = self.clients.last_mut().map(|client| &mut client.lanes).into_iter().flatten();
        lanes.zip(nodes).for_each(|(lane, node)| lane.loyal_to = Some(node));
    }

    fn next_process(&mut self) -> ClientId {
        self.processes += 1;
        ClientId(self.processes)
    }

    /// Whether every scripted lane of the last client is through.
    pub(crate) fn scripts_done(&self) -> bool {
        let lanes = self.clients.last().map_or(&[][..], |client| &client.lanes);
        lanes.iter().all(|lane| lane.script.as_ref().is_none_or(VecDeque::is_empty))
    }

    fn wake_lane_after(&mut self, client: usize, lane: usize, wait: Duration) {
        let slot = &mut self.clients[client].lanes[lane];
        slot.wake += 1;
        self.queue.put(self.queue.now() + wait, Due::WakeLane(client, lane, slot.wake));
    }

    /// A lane begins its next operation, or tries the present one again.
    pub(crate) fn wake_lane(&mut self, client: usize, lane: usize, wake: u64) {
        let slot = &self.clients[client].lanes[lane];
        if slot.wake != wake {
            return;
        }
        if slot.pending.is_none() {
            let Some((group, ask)) = self.choose(client, lane) else { return };
            self.begin_operation(client, lane, group, ask);
        }
        self.attempt(client, lane);
    }

    fn begin_operation(&mut self, client: usize, lane: usize, group: GroupId, ask: Ask) {
        self.operations += 1;
        self.counts.operations += 1;
        let stale = self.random.chance(self.options.client.stale_ppm);
        let pending = Pending {
            id: self.operations,
            call: self.history.moment(),
            group,
            generation: if stale { Generation(0) } else { self.generation(group) },
            foreign: self.is_foreign(group, &ask),
            ask,
            level: self.draw_level(client, lane),
            uncertain: false,
            attempt: None,
        };
        let timeout = self.queue.now() + self.options.client.timeout;
        self.queue.put(timeout, Due::GiveUp(client, lane, pending.id));
        let slot = &mut self.clients[client].lanes[lane];
        slot.sequence += 1;
        slot.pending = Some(pending);
    }

    /// Who asks one node only takes what any replica can serve.
    fn draw_level(&mut self, client: usize, lane: usize) -> ReadLevel {
        if self.clients[client].lanes[lane].loyal_to.is_none() {
            return ReadLevel::Linearizable;
        }
        let election_ms = self.options.core.election_timeout.as_millis() as u32;
        *self.random.pick(&[
            ReadLevel::Linearizable,
            ReadLevel::Follower,
            ReadLevel::Follower,
            ReadLevel::Stale { max_age_ms: election_ms / 4 },
            ReadLevel::Stale { max_age_ms: election_ms * 4 },
        ])
    }

    fn generation(&self, group: GroupId) -> Generation {
        let descriptor = self.descriptors.iter().find(|descriptor| descriptor.group == group);
        descriptor.map_or(Generation(0), |descriptor| descriptor.generation)
    }

    fn choose(&mut self, client: usize, lane: usize) -> Option<(GroupId, Ask)> {
        if let Some(script) = &self.clients[client].lanes[lane].script {
            return match script.front()?.clone() {
                Step::Put(group, key) => {
                    let value = self.fresh_value();
                    Some((group, Ask::Write(vec![KvOperation::Put { key, value }])))
                }
                Step::Get(group, key) => Some((group, Ask::Get(key))),
            };
        }
        let exhausted = self.counts.operations >= u64::from(self.options.client.operations_max);
        if self.phase != Phase::Faults || exhausted {
            return None;
        }
        let place = self.random.below(self.descriptors.len() as u64) as usize;
        let group = self.descriptors[place].group;
        let mut key = self.history.pick_key(group, &mut self.random);
        if self.random.chance(self.options.client.foreign_ppm) {
            let other = self.random.below(self.descriptors.len() as u64) as usize;
            key = self.history.pick_key(self.descriptors[other].group, &mut self.random);
        }
        let what = match self.clients[client].lanes[lane].loyal_to {
            Some(_) => GET,
            None => self.random.weighted(&self.options.client.mix),
        };
        let ask = match what {
            0 => Ask::Write(vec![self.draw_put(key)]),
            GET => Ask::Get(key),
            2 => Ask::Write(vec![KvOperation::Delete { key }]),
            3 => Ask::Write(vec![self.draw_compare_and_set(client, key)]),
            4 => self.draw_batch(client, group),
            _ => {
                let known = self.history.made_keys(group);
                Ask::Scan { start: known[0].clone(), limit: self.random.between(1, 8) as u32, known }
            }
        };
        Some((group, ask))
    }

    /// Whether a group is asked for a key of another range. A scan is clipped instead.
    fn is_foreign(&self, group: GroupId, ask: &Ask) -> bool {
        let descriptor = self.descriptors.iter().find(|descriptor| descriptor.group == group);
        let outside = |key: &Bytes| descriptor.is_none_or(|descriptor| !descriptor.range.contains(key));
        match ask {
            Ask::Write(operations) => operations.iter().any(|operation| outside(operation.key())),
            Ask::Get(key) => outside(key),
            Ask::Scan { .. } => false,
        }
    }

    fn fresh_value(&mut self) -> Bytes {
        let value = self.history.make_value(&mut self.random, self.options.client.filling_max);
        self.history.value_bytes(value)
    }

    fn draw_put(&mut self, key: Bytes) -> KvOperation {
        KvOperation::Put { key, value: self.fresh_value() }
    }

    fn draw_compare_and_set(&mut self, client: usize, key: Bytes) -> KvOperation {
        let seen = self.clients[client].seen.get(&key).copied().flatten();
        let expected = if self.random.chance(800_000) { seen } else { None };
        let expected = expected.map(|value| self.history.value_bytes(value));
        let value = if self.random.chance(850_000) { Some(self.fresh_value()) } else { None };
        KvOperation::CompareAndSet { key, expected, value }
    }

    fn draw_batch(&mut self, client: usize, group: GroupId) -> Ask {
        let keys = self.history.pick_keys(group, &mut self.random);
        let mut operations = Vec::new();
        for key in keys {
            operations.push(match self.random.below(4) {
                0 => KvOperation::Delete { key },
                1 => self.draw_compare_and_set(client, key),
                _ => self.draw_put(key),
            });
        }
        Ask::Write(operations)
    }

    /// Sends the pending operation to the node that may lead. A node that does not run refuses the connection.
    fn attempt(&mut self, client: usize, lane: usize) {
        let Some(pending) = self.clients[client].lanes[lane].pending.clone() else { return };
        if pending.attempt.is_some() {
            return;
        }
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let hint = self.clients[client].leaders.get(&pending.group).copied();
        let node = match self.clients[client].lanes[lane].loyal_to.or(hint) {
            Some(node) if self.clients[client].lanes[lane].loyal_to.is_some() => node,
            Some(node) if !self.random.chance(self.options.client.stray_ppm) => node,
            _ => *self.random.pick(&nodes),
        };
        let place = Place { node, core: core_of(pending.group, self.options.cores) };
        if !self.nodes[&node].alive {
            self.clients[client].leaders.remove(&pending.group);
            let wait = self.random.until_next(self.options.core.election_timeout / 20);
            self.wake_lane_after(client, lane, wait);
            return;
        }
        let connection = match self.clients[client].connections.get(&place) {
            Some(connection) => *connection,
            None => self.open_connection(client, place),
        };
        let attempt = self.attempts.len() as u64;
        self.attempts.push(Attempt { client, lane, connection, answered: false });
        let slot = &mut self.clients[client].lanes[lane];
        let request = Request { sequence: attempt, operation: slot.encode(&pending) };
        if let Some(pending) = &mut slot.pending {
            pending.attempt = Some((attempt, connection));
        }
        let what = describe(&slot.process, slot.sequence, &pending);
        let asked = Happening::Asked(attempt, client as u32, pending.group, place, what);
        self.trace.note(self.queue.now(), asked);
        if self.asks_again() {
            let patience = self.repeats.until_next(self.options.client.timeout);
            self.queue.put(self.queue.now() + patience, Due::AskAgain(client, lane, attempt));
        }
        let outgoing = &mut self.clients[client].outgoing;
        if outgoing.is_empty() {
            let wait = self.random.span(Duration::ZERO, Duration::from_micros(200));
            self.queue.put(self.queue.now() + wait, Due::Flush(client));
        }
        outgoing.entry(connection).or_default().push(request);
    }

    /// Everything that a client gathered leaves.
    pub(crate) fn flush(&mut self, client: usize) {
        for (connection, requests) in std::mem::take(&mut self.clients[client].outgoing) {
            self.send_to_node(connection, requests);
        }
    }

    /// A frame of replies arrives at its client.
    pub(crate) fn replies_arrive(&mut self, connection: ConnectionId, bytes: Bytes) -> Result<(), Broken> {
        let frame = ReplyFrame::decode(bytes).map_err(|error| Broken::BadReply(error.to_string()))?;
        for reply in frame.replies {
            self.reply_arrives(connection, reply)?;
        }
        Ok(())
    }

    fn reply_arrives(&mut self, connection: ConnectionId, reply: Reply) -> Result<(), Broken> {
        let Reply { sequence, result } = reply;
        let bad = |what: &str| Err(Broken::BadReply(format!("attempt {sequence} {what}: {result:?}")));
        let Some(attempt) = self.attempts.get_mut(sequence as usize) else { return bad("was never made") };
        if attempt.answered {
            return bad("is answered twice");
        }
        if attempt.connection != connection {
            return bad("is answered on another connection");
        }
        attempt.answered = true;
        self.trace.note(self.queue.now(), Happening::Answered(sequence, format!("{result:?}")));
        let (client, lane) = (attempt.client, attempt.lane);
        let Some(pending) = &mut self.clients[client].lanes[lane].pending else { return Ok(()) };
        if pending.attempt.is_none_or(|(waited_for, _)| waited_for != sequence) {
            return Ok(());
        }
        pending.attempt = None;
        match result {
            Ok(outcome) => self.completed(client, lane, outcome),
            Err(refusal) => self.refused(client, lane, refusal),
        }
    }

    fn completed(&mut self, client: usize, lane: usize, outcome: Outcome) -> Result<(), Broken> {
        let slot = &mut self.clients[client].lanes[lane];
        let Some(pending) = slot.pending.take() else { return Ok(()) };
        let (process, sequence) = (slot.process, slot.sequence);
        if let Some(script) = &mut slot.script {
            script.pop_front();
        }
        if pending.generation == Generation(0) {
            return Err(Broken::BadReply(format!("{process} #{sequence} was served with an outdated generation")));
        }
        if pending.foreign {
            return Err(Broken::BadReply(format!("{process} #{sequence} was served with a key of another range")));
        }
        self.counts.completed += 1;
        // What may be stale is no part of a history that must be linearizable; the law of reads has seen it.
        if !matches!(pending.level, ReadLevel::Stale { .. }) {
            self.record_outcome(client, (process, sequence), &pending, outcome)?;
        }
        let wait = self.random.until_next(self.options.client.think_mean);
        self.wake_lane_after(client, lane, wait);
        Ok(())
    }

    /// An attempt has had its time: another one is made, and its answer counts from now on.
    pub(crate) fn attempt_over(&mut self, client: usize, lane: usize, attempt: u64) {
        let slot = &mut self.clients[client].lanes[lane];
        let Some(pending) = &mut slot.pending else { return };
        if pending.attempt.is_some_and(|(waited_for, _)| waited_for == attempt) {
            self.ask_again(client, lane);
        }
    }

    /// An attempt will not be answered.
    fn ask_again(&mut self, client: usize, lane: usize) {
        let Some(pending) = &mut self.clients[client].lanes[lane].pending else { return };
        (pending.uncertain, pending.attempt) = (true, None);
        let group = pending.group;
        self.counts.asked_again += 1;
        self.clients[client].leaders.remove(&group);
        let wait = self.repeats.until_next(self.options.core.election_timeout / 20);
        self.wake_lane_after(client, lane, wait);
    }

    /// An attempt of this number may arrive once more.
    pub(crate) fn may_come_again(&mut self, attempt: u64) {
        let Attempt { client, lane, .. } = self.attempts[attempt as usize];
        let pending = self.clients[client].lanes[lane].pending.as_mut();
        let waits = |pending: &&mut Pending| pending.attempt.is_some_and(|(waited_for, _)| waited_for == attempt);
        if let Some(pending) = pending.filter(waits) {
            pending.uncertain = true;
        }
    }

    /// A definite refusal: nothing was done, so it may be tried again where and when the refusal says.
    fn refused(&mut self, client: usize, lane: usize, refusal: Refusal) -> Result<(), Broken> {
        self.counts.refusals += 1;
        let loyal = self.clients[client].lanes[lane].loyal_to.is_some();
        let Some(pending) = &mut self.clients[client].lanes[lane].pending else { return Ok(()) };
        let group = pending.group;
        let mut wait = self.random.until_next(self.options.core.election_timeout / if loyal { 15 } else { 50 });
        let leader = match refusal {
            Refusal::NotLeader { leader } | Refusal::TooStale { leader } => leader,
            Refusal::StaleDescriptor { descriptor, leader } => {
                let is_of = |known: &Descriptor| known.group == descriptor.group && known.range == descriptor.range;
                if !self.descriptors.iter().any(is_of) {
                    return Err(Broken::BadReply(format!("a descriptor of no range: {descriptor:?}")));
                }
                pending.generation = descriptor.generation;
                leader
            }
            Refusal::Busy { retry_after_ms } => {
                wait = Duration::from_millis(u64::from(retry_after_ms));
                self.clients[client].leaders.get(&group).copied()
            }
            Refusal::Unknown => {
                match self.asks_again() {
                    true => self.ask_again(client, lane),
                    false => self.outcome_unknown(client, lane),
                }
                return Ok(());
            }
            Refusal::Forgotten { .. } if pending.uncertain => {
                self.outcome_unknown(client, lane);
                return Ok(());
            }
            Refusal::Forgotten { now } => {
                self.counts.reopened += 1;
                self.clients[client].lanes[lane].opened.insert(group, now);
                self.clients[client].leaders.get(&group).copied()
            }
            Refusal::Refused { .. } if pending.foreign => {
                self.counts.foreign += 1;
                let slot = &mut self.clients[client].lanes[lane];
                let definite = |pending: &Pending| matches!(pending.ask, Ask::Write(_)) && !pending.uncertain;
                if let Some(pending) = slot.pending.take().filter(definite) {
                    self.history.refused(group, slot.process, slot.sequence, pending.call);
                }
                self.wake_lane_after(client, lane, wait);
                return Ok(());
            }
            other => return Err(Broken::BadReply(format!("a correct request is refused: {other}"))),
        };
        match leader {
            Some(leader) if !self.nodes.contains_key(&leader) => {
                return Err(Broken::BadReply(format!("{leader} is said to lead {group} and does not exist")));
            }
            Some(leader) => drop(self.clients[client].leaders.insert(group, leader)),
            None => drop(self.clients[client].leaders.remove(&group)),
        }
        self.wake_lane_after(client, lane, wait);
        Ok(())
    }

    /// The operation took too long. If an attempt is under way its outcome is unknown; if not it was refused for good.
    pub(crate) fn give_up(&mut self, client: usize, lane: usize, id: u64) {
        let slot = &mut self.clients[client].lanes[lane];
        let Some(pending) = slot.pending.take_if(|pending| pending.id == id) else { return };
        if pending.attempt.is_none() && pending.uncertain {
            slot.pending = Some(pending);
            return self.outcome_unknown(client, lane);
        }
        let Some((_, connection)) = pending.attempt else {
            if let Ask::Write(_) = pending.ask {
                self.history.refused(pending.group, slot.process, slot.sequence, pending.call);
            }
            self.counts.given_up += 1;
            let wait = self.random.until_next(self.options.client.think_mean);
            self.wake_lane_after(client, lane, wait);
            return;
        };
        slot.pending = Some(pending);
        if self.connection_is_dead(connection) || self.random.chance(500_000) {
            self.close_at_client(connection, Some((client, lane)));
            self.queue.put(self.queue.now(), Due::GoneAtNode(connection));
        } else {
            self.outcome_unknown(client, lane);
        }
    }

    /// A connection is closed: whatever waits on it has an unknown outcome, or is asked for again. The time of `given_up` is
    /// over.
    pub(crate) fn close_at_client(&mut self, connection: ConnectionId, given_up: Option<(usize, usize)>) {
        let Some(client) = self.connection_client(connection) else { return };
        let slot = &mut self.clients[client];
        slot.connections.retain(|_, open| *open != connection);
        slot.outgoing.remove(&connection);
        for lane in 0..self.clients[client].lanes.len() {
            let waits = self.clients[client].lanes[lane]
                .pending
                .as_ref()
                .is_some_and(|pending| pending.attempt.is_some_and(|(_, on)| on == connection));
            if waits && given_up != Some((client, lane)) && self.asks_again() {
                self.ask_again(client, lane);
            } else if waits {
                self.outcome_unknown(client, lane);
            }
        }
    }

    fn outcome_unknown(&mut self, client: usize, lane: usize) {
        let process = self.next_process();
        let keeps_identity = self.repeats.chance(self.options.repeats.keep_identity_ppm);
        let slot = &mut self.clients[client].lanes[lane];
        let Some(pending) = slot.pending.take() else { return };
        if !keeps_identity {
            (slot.process, slot.sequence) = (process, 0);
            slot.opened.clear();
        }
        self.counts.unknown += 1;
        self.clients[client].leaders.remove(&pending.group);
        if let Some((attempt, _)) = pending.attempt {
            self.trace.note(self.queue.now(), Happening::Unknown(attempt));
        }
        self.record_unknown(&pending);
        let wait = self.random.until_next(self.options.client.think_mean);
        self.wake_lane_after(client, lane, wait);
    }

    fn open_connection(&mut self, client: usize, place: Place) -> ConnectionId {
        let connection = ConnectionId(self.connections.len() as u64);
        let incarnation = self.nodes[&place.node].incarnation;
        self.connections.push(Connection {
            client,
            place,
            incarnation,
            closed: false,
            dead: false,
            last_up: Time(0),
            last_down: Time(0),
        });
        self.clients[client].connections.insert(place, connection);
        connection
    }
}

/// One client's connection to one core.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Whose it is.
    pub client: usize,
    /// The core.
    pub place: Place,
    /// The incarnation of the node that accepted it.
    pub incarnation: pontoon_types::Incarnation,
    /// Whether either side closed it.
    pub closed: bool,
    /// Whether a frame was lost: nothing later arrives either, and nobody is told.
    pub dead: bool,
    /// When the last frame reaches the node; frames keep their order.
    pub last_up: Time,
    /// When the last frame reaches the client.
    pub last_down: Time,
}

impl Lane {
    fn encode(&self, pending: &Pending) -> WireOperation {
        let (group, generation) = (pending.group, pending.generation);
        match &pending.ask {
            Ask::Write(operations) => {
                let opened = self.opened.get(&group).copied().unwrap_or_default();
                let session = SessionId { client: self.process, opened };
                let id = RequestId { session, sequence: self.sequence };
                let command = Command { id, floor: self.sequence, operations: operations.clone() };
                WireOperation::Write { group, generation, command: command.encode() }
            }
            Ask::Get(key) => WireOperation::Get { group, generation, key: key.clone(), level: pending.level },
            Ask::Scan { start, limit, .. } => WireOperation::Scan {
                group,
                generation,
                start: start.clone(),
                end: None,
                limit: *limit,
                level: pending.level,
            },
        }
    }
}

fn describe(process: &ClientId, sequence: u64, pending: &Pending) -> String {
    let who = format!("process {:x} #{sequence}", process.0);
    match &pending.ask {
        Ask::Write(operations) => {
            let keys: Vec<String> = operations.iter().map(|one| one.key().escape_ascii().to_string()).collect();
            format!("{who} writes {}", keys.join(" "))
        }
        Ask::Get(key) => format!("{who} gets {} ({:?})", key.escape_ascii(), pending.level),
        Ask::Scan { limit, .. } => format!("{who} scans at most {limit}"),
    }
}

impl ClientOptions {
    /// The lanes of an ordinary client: they draw what they do.
    pub(crate) fn scripts(&self) -> Vec<Option<VecDeque<Step>>> {
        (0..self.lanes).map(|_| None).collect()
    }
}
