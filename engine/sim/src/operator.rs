//! Operators: they give orders as clients do, wait for the answer, and may be heard again long after.
//!
//! Half of the changes that a run orders come this way; the others are given to a core by hand (`orders`), which can ask for
//! what no operator can. An order names the members as they should be, seldom by an outdated generation. Sometimes it
//! arrives once more, at any node, when others have decided otherwise. Instead of another leader an operator may want a node
//! to be more or less eager to lead.
//!
//! An answer is checked when it leaves its core: of a change that is said to be done the configuration is committed, and who
//! is said to lead by order has led a term that is no earlier than the operator's.
//!
//! All of it draws from a stream of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Configuration, ConnectionId, Event};
use pontoon_types::{Generation, GroupId, NodeId};
use pontoon_wire::client::{Operation, Outcome, Refusal, ReplyFrame, Request, RequestFrame};
use pontoon_wire::order::{Order, OrderReason};

use crate::random::Random;
use crate::trace::Place;
use crate::violation::Broken;
use crate::world::{Due, World};

/// How often an operator wants a whole new set of voters, parts per million.
const NEW_SET_PPM: u32 = 200_000;

/// How many they are to be.
const NEW_SET_VOTERS: usize = 3;

/// The operators of a run.
#[derive(Debug)]
pub(crate) struct Operators {
    random: Random,
    /// Orders that nobody has answered, by the connection on which each was given.
    given: BTreeMap<ConnectionId, (GroupId, Order)>,
}

impl Operators {
    /// Operators who have not done anything.
    pub(crate) fn new(seed: u64) -> Operators {
        Operators { random: Random::new(seed ^ 0x6f70_6572_6174_6f72), given: BTreeMap::new() }
    }

    /// Whether the next order comes from an operator, and not by hand.
    pub(crate) fn are_asked(&mut self) -> bool {
        self.random.chance(500_000)
    }
}

impl World {
    /// An operator wants other members.
    pub(crate) fn operator_changes(&mut self, group: GroupId, place: Place, current: &Configuration) {
        let Some(generation) = self.generation_at(place, group) else { return };
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let random = &mut self.operators.random;
        let votes = |node: &NodeId| current.replica_on(*node).is_some_and(|replica| current.is_voter(replica));
        let (mut voters, others): (Vec<NodeId>, Vec<NodeId>) = nodes.iter().copied().partition(|node| votes(node));
        let mut learners: Vec<NodeId> = others.into_iter().filter(|node| current.replica_on(*node).is_some()).collect();
        let wanted = if random.chance(NEW_SET_PPM) { 0 } else { random.between(1, 2) };
        if wanted == 0 {
            // As many others as there can be, all at once: quorums before and after have hardly anybody in common.
            let before = std::mem::replace(&mut voters, std::mem::take(&mut learners));
            voters.truncate(NEW_SET_VOTERS);
            voters.extend(before.into_iter().take(NEW_SET_VOTERS - voters.len()));
        }
        for _ in 0..wanted {
            let node = *random.pick(&nodes);
            voters.retain(|other| *other != node);
            learners.retain(|other| *other != node);
            match random.below(10) {
                0..=4 => voters.push(node),
                5..=7 => learners.push(node),
                _ => {}
            }
        }
        let outdated = random.chance(100_000);
        let generation = if outdated { Generation(generation.0.saturating_sub(1)) } else { generation };
        self.give(place, group, Order::Members { generation, voters, learners });
    }

    /// An operator wants another leader.
    pub(crate) fn operator_transfers(&mut self, group: GroupId, place: Place, to: NodeId) {
        if self.operators.random.chance(250_000) {
            return self.operator_prefers(group, place);
        }
        let Some(running) = self.cores.get(&place) else { return };
        let Some(term) = running.core.group(group).map(|view| view.term()) else {
            return;
        };
        self.give(place, group, Order::Transfer { term, to });
    }

    /// An operator wants somebody to lead sooner or later than the others.
    fn operator_prefers(&mut self, group: GroupId, place: Place) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let asked = Place { node: *self.operators.random.pick(&nodes), ..place };
        let priority = self.operators.random.below(9) as u8;
        if self.cores.contains_key(&asked) {
            let (id, bytes) = self.frame_to(asked, Operation::Prefer { group, priority });
            self.push(asked, Event::ClientFrame { connection: id, bytes });
        }
    }

    fn generation_at(&self, place: Place, group: GroupId) -> Option<Generation> {
        let view = self.cores.get(&place)?.core.group(group)?;
        Some(view.descriptor().generation)
    }

    /// Gives an order, on a connection of its own.
    fn give(&mut self, place: Place, group: GroupId, order: Order) {
        self.counts.orders += 1;
        let operation = Operation::Order { group, generation: None, order: order.clone() };
        let (id, bytes) = self.frame_to(place, operation);
        self.operators.given.insert(id, (group, order));
        if self.operators.random.chance(300_000) {
            let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
            let again = Place { node: *self.operators.random.pick(&nodes), ..place };
            let mean: Duration = self.options.core.election_timeout * 4;
            let wait = self.operators.random.until_next(mean);
            self.queue.put(self.queue.now() + wait, Due::Again(again, bytes.clone()));
        }
        self.push(place, Event::ClientFrame { connection: id, bytes });
    }

    /// A frame for a core, and its connection. What is answered is checked when it leaves the core.
    fn frame_to(&mut self, place: Place, operation: Operation) -> (ConnectionId, Bytes) {
        let mut bytes = Vec::new();
        RequestFrame { requests: vec![Request { sequence: 0, operation }] }.encode(&mut bytes);
        (self.one_way(place), bytes.into())
    }

    /// Checks what a core says of an order.
    pub(crate) fn operator_hears(&mut self, place: Place, id: ConnectionId, bytes: &Bytes) -> Result<(), Broken> {
        let Some((group, order)) = self.operators.given.remove(&id) else { return Ok(()) };
        let frame = ReplyFrame::decode(bytes.clone()).map_err(|error| Broken::BadReply(error.to_string()))?;
        let [reply] = frame.replies.as_slice() else {
            return Err(Broken::BadReply(format!("{} replies to one order", frame.replies.len())));
        };
        match &reply.result {
            Ok(Outcome::Ordered) => {
                self.counts.orders_done += 1;
                match self.invariants.is_carried_out(group, &order) {
                    true => Ok(()),
                    false => Err(Broken::OrderNotDone { place, group, order: format!("{order:?}") }),
                }
            }
            Err(Refusal::Order { reason: OrderReason::GivenUp, .. } | Refusal::Unknown) => Ok(()),
            Err(
                Refusal::Order { .. }
                | Refusal::NotLeader { .. }
                | Refusal::StaleDescriptor { .. }
                | Refusal::Busy { .. },
            ) => {
                self.counts.orders_refused += 1;
                Ok(())
            }
            other => Err(Broken::BadReply(format!("an order is answered with {other:?}"))),
        }
    }
}
