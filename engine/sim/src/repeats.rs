//! Requests that come more than once: clients that ask again, and frames that arrive again long after (law 24).
//!
//! All of it draws from a stream of its own, and half of the seeds have nothing of it: what other parts of a run draw does
//! not depend on it.
//!
//! - A client that was not answered asks again with the same id, at whatever node comes next: when its connection breaks,
//!   when the node does not know, or when an attempt has had its time. In the other runs it takes the outcome for unknown.
//! - The writes of a frame arrive a second time, at any node, up to several elections later. Nobody hears the answers. A
//!   client cannot tell such an arrival from an attempt of its own, so what it counts as refused for good it does not then.
//! - A client that has given up a write goes on under the same identity, so that its floor passes what may still come.
//! - Groups remember few clients, so that sessions make room and are opened again.

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::sessions::SessionLimits;
use pontoon_multiraft::{ConnectionId, Event};
use pontoon_types::{NodeId, Time};
use pontoon_wire::client::{Operation, Request, RequestFrame};

use crate::client::Connection;
use crate::options::Options;
use crate::random::Random;
use crate::trace::{Happening, Place};
use crate::world::{Due, Phase, World};

/// How often requests come again, and what groups remember. Chances are in parts per million.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepeatOptions {
    /// Chance that a client without an answer asks again.
    pub retry_ppm: u32,
    /// Chance, for each frame of a client, that its writes arrive once more.
    pub duplicate_ppm: u32,
    /// Mean time after which they do.
    pub duplicate_mean: Duration,
    /// Chance that a client that has given up keeps its identity.
    pub keep_identity_ppm: u32,
    /// What groups remember.
    pub sessions: SessionLimits,
}

impl RepeatOptions {
    /// The stream that this and all repetitions of a run draw from.
    pub(crate) fn random(seed: u64) -> Random {
        Random::new(seed ^ 0x7265_7065_6174_6564)
    }

    /// Draws them.
    pub(crate) fn draw(options: &Options) -> RepeatOptions {
        let mut random = RepeatOptions::random(options.seed).fork(0);
        if random.chance(500_000) {
            return RepeatOptions::default();
        }
        let election = options.core.election_timeout;
        let few = SessionLimits {
            sessions_max: *random.pick(&[1, 2, 4, 16]),
            outcomes_max: *random.pick(&[1, 2, 8]),
            outcome_bytes_max: *random.pick(&[64, 4096]),
            bytes_max: *random.pick(&[200, 1_000, 10_000]),
        };
        RepeatOptions {
            retry_ppm: *random.pick(&[500_000, 900_000, 1_000_000]),
            duplicate_ppm: *random.pick(&[0, 20_000, 200_000]),
            duplicate_mean: *random.pick(&[election / 20, election, election * 4]),
            keep_identity_ppm: *random.pick(&[0, 500_000, 1_000_000]),
            sessions: if random.chance(400_000) { few } else { SessionLimits::default() },
        }
    }
}

impl World {
    /// Whether a client that was not answered asks again.
    pub(crate) fn asks_again(&mut self) -> bool {
        self.repeats.chance(self.options.repeats.retry_ppm)
    }

    /// Lets the writes of a frame come again later.
    pub(crate) fn duplicate(&mut self, requests: &[Request]) {
        if !self.repeats.chance(self.options.repeats.duplicate_ppm) {
            return;
        }
        let is_write = |request: &&Request| matches!(request.operation, Operation::Write { .. });
        let writes: Vec<Request> = requests.iter().filter(is_write).cloned().collect();
        let Some(Operation::Write { group, .. }) = writes.first().map(|request| &request.operation) else { return };
        let core = pontoon_router::core_of(*group, self.options.cores);
        writes.iter().for_each(|request| self.may_come_again(request.sequence));
        let mut bytes = Vec::new();
        RequestFrame { requests: writes }.encode(&mut bytes);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let place = Place { node: *self.repeats.pick(&nodes), core };
        let wait = self.repeats.until_next(self.options.repeats.duplicate_mean);
        self.queue.put(self.queue.now() + wait, Due::Again(place, Bytes::from(bytes)));
    }

    /// A frame arrives again, on a connection at whose other end nobody is.
    pub(crate) fn arrives_again(&mut self, place: Place, bytes: Bytes) {
        // Nothing arrives once everything is to find rest.
        if self.phase != Phase::Faults || !self.cores.contains_key(&place) {
            return;
        }
        // Nor does an order that may name nodes that are lost for good.
        if self.loss.has_happened() && is_order(&bytes) {
            return;
        }
        self.counts.duplicates += 1;
        let id = self.one_way(place);
        self.trace.note(self.queue.now(), Happening::ArrivedAgain(place, bytes.len()));
        self.push(place, Event::ClientFrame { connection: id, bytes });
    }

    /// A connection to a core on which nothing comes back.
    pub(crate) fn one_way(&mut self, place: Place) -> ConnectionId {
        let id = ConnectionId(self.connections.len() as u64);
        let incarnation = self.nodes[&place.node].incarnation;
        let (last_up, last_down) = (Time(0), Time(0));
        let dead = Connection { client: 0, place, incarnation, closed: false, dead: true, last_up, last_down };
        self.connections.push(dead);
        id
    }
}

fn is_order(bytes: &Bytes) -> bool {
    let requests = RequestFrame::decode(bytes.clone()).map(|frame| frame.requests).unwrap_or_default();
    requests.iter().any(|request| matches!(request.operation, Operation::Order { .. }))
}
