//! The network between cores: one link for each direction, core and pair of nodes.
//!
//! A frame may be late, lost, doubled, changed or overtaken by later ones, more than TCP would ever allow: the core's
//! safety must not lean on the transport. A link may break, which both the sender and the shell's dialler notice, or
//! lose everything without a word while it looks fine, as in a partition.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pontoon_multiraft::Event;
use pontoon_types::{NodeId, Time};

use crate::trace::{Happening, Place};
use crate::world::{Due, World};

/// The way from one core to its sibling on another node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    up: bool,
    /// Grows when the link breaks, so that frames of the broken one can be told apart.
    epoch: u64,
    dial_at: Option<Time>,
    last_arrival: Time,
    clogged_until: Time,
}

/// The state of all links.
#[derive(Debug, Default)]
pub struct Network {
    links: BTreeMap<(Place, NodeId), Link>,
    /// Ways on which frames vanish.
    pub blocked: BTreeSet<(NodeId, NodeId)>,
}

/// A frame under way.
#[derive(Clone, Debug)]
pub struct Flight {
    from: Place,
    to: NodeId,
    epoch: u64,
    bytes: Bytes,
    corrupt: bool,
}

impl World {
    /// Hands one frame to the network.
    pub(crate) fn send_frame(&mut self, from: Place, to: NodeId, bytes: Bytes) {
        let now = self.queue.now();
        self.counts.frames += 1;
        let link = self.network.links.entry((from, to)).or_default();
        let epoch = link.epoch;
        let network = &self.options.network;
        let lost = !link.up || self.network.blocked.contains(&(from.node, to)) || self.random.chance(network.loss_ppm);
        if lost {
            self.counts.frames_lost += 1;
            self.trace.note(now, Happening::Lost(from, to, bytes));
            return;
        }
        let copies = if self.random.chance(network.duplicate_ppm) { 2 } else { 1 };
        self.counts.frames_duplicated += copies - 1;
        self.trace.note(now, Happening::Sent(from, to, bytes.clone()));
        for _ in 0..copies {
            let mut arrival = now + network.delay_min + self.random.around(network.delay_mean);
            if arrival < link.clogged_until {
                arrival = link.clogged_until;
            }
            if !network.reorder {
                arrival = arrival.max(link.last_arrival);
            }
            link.last_arrival = arrival;
            let corrupt = self.random.chance(network.corrupt_ppm);
            let bytes = if corrupt { flip_bit(&bytes, self.random.draw()) } else { bytes.clone() };
            if corrupt {
                self.counts.frames_corrupted += 1;
                self.trace.note(now, Happening::Corrupted(from, to));
            }
            self.queue.put(arrival, Due::Arrive(Flight { from, to, epoch, bytes, corrupt }));
        }
    }

    /// A frame reaches its node, if that still runs and the link did not take the frame with it when it broke.
    pub(crate) fn arrive(&mut self, flight: Flight) {
        let Flight { from, to, epoch, bytes, corrupt } = flight;
        let place = Place { node: to, core: from.core };
        let broken = self.network.links.get(&(from, to)).is_none_or(|link| link.epoch != epoch);
        let lost = (broken && self.options.network.break_loses_frames) || !self.cores.contains_key(&place);
        if lost {
            self.counts.frames_lost += 1;
            return;
        }
        self.trace.note(self.queue.now(), Happening::Received(place, from.node, bytes.clone()));
        if corrupt {
            self.corrupt_arrivals.insert((place, from.node));
        }
        self.push(place, Event::PeerFrame { from: from.node, bytes });
    }

    /// Breaks a link; the sender hears of it and dials again.
    pub(crate) fn break_link(&mut self, from: Place, to: NodeId) {
        let now = self.queue.now();
        let Some(link) = self.network.links.get_mut(&(from, to)).filter(|link| link.up) else { return };
        link.up = false;
        link.epoch += 1;
        self.counts.links_broken += 1;
        self.trace.note(now, Happening::LinkDown(from, to));
        self.push(from, Event::PeerDown(to));
        self.schedule_dial(from, to);
    }

    /// Dials from a node that started to all others.
    pub(crate) fn dial_all(&mut self, id: NodeId) {
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for place in self.places(id) {
            for other in &others {
                self.schedule_dial(place, *other);
            }
        }
    }

    fn schedule_dial(&mut self, from: Place, to: NodeId) {
        let wait = self.random.until_next(self.options.core.election_timeout / 40);
        let at = self.queue.now() + wait;
        self.network.links.entry((from, to)).or_default().dial_at = Some(at);
        self.queue.put(at, Due::Dial(from, to));
    }

    /// One attempt to connect; it is repeated until it succeeds or the dialler is gone.
    pub(crate) fn dial(&mut self, from: Place, to: NodeId) {
        let now = self.queue.now();
        let reachable = self.nodes[&to].alive
            && !self.network.blocked.contains(&(from.node, to))
            && !self.network.blocked.contains(&(to, from.node));
        let link = self.network.links.entry((from, to)).or_default();
        if link.dial_at != Some(now) || !self.cores.contains_key(&from) {
            return;
        }
        if !reachable {
            self.schedule_dial(from, to);
            return;
        }
        link.dial_at = None;
        link.up = true;
        self.trace.note(now, Happening::LinkUp(from, to));
        self.push(from, Event::PeerUp(to));
    }

    /// The links of a crashed node: its own are gone at once, those to it break when the others notice.
    pub(crate) fn links_of_crashed(&mut self, id: NodeId) {
        let now = self.queue.now();
        for ((from, to), link) in &mut self.network.links {
            if from.node == id {
                link.up = false;
                link.epoch += 1;
                link.dial_at = None;
            } else if *to == id && link.up {
                let notice = self.random.until_next(self.options.core.election_timeout / 40);
                self.queue.put(now + notice, Due::Break(*from, *to, link.epoch));
            }
        }
    }

    /// A break that was scheduled, unless the link broke before.
    pub(crate) fn break_if(&mut self, from: Place, to: NodeId, epoch: u64) {
        if self.network.links.get(&(from, to)).is_some_and(|link| link.epoch == epoch) {
            self.break_link(from, to);
        }
    }

    /// Makes frames vanish on `ways` until the partition heals.
    pub(crate) fn partition(&mut self, ways: Vec<(NodeId, NodeId)>) {
        let now = self.queue.now();
        self.counts.partitions += 1;
        self.network.blocked.extend(ways.iter().copied());
        if self.options.network.partition_breaks_links {
            for ((from, to), link) in &self.network.links {
                if ways.contains(&(from.node, *to)) || ways.contains(&(*to, from.node)) {
                    let notice = self.random.until_next(self.options.core.election_timeout / 4);
                    self.queue.put(now + notice, Due::Break(*from, *to, link.epoch));
                }
            }
        }
        self.trace.note(now, Happening::Partitioned(ways));
    }

    /// Ends all partitions.
    pub(crate) fn heal_partitions(&mut self) {
        if !self.network.blocked.is_empty() {
            self.network.blocked.clear();
            self.trace.note(self.queue.now(), Happening::Healed);
        }
    }

    /// A link that is drawn, for faults of single links.
    pub(crate) fn draw_link(&mut self) -> Option<(Place, NodeId)> {
        let links: Vec<(Place, NodeId)> = self.network.links.keys().copied().collect();
        (!links.is_empty()).then(|| *self.random.pick(&links))
    }

    /// Holds everything on one link back for a while.
    pub(crate) fn clog_link(&mut self, from: Place, to: NodeId) {
        let until = self.queue.now() + self.random.until_next(self.options.network.clog_length);
        if let Some(link) = self.network.links.get_mut(&(from, to)) {
            link.clogged_until = until;
        }
    }

    /// Lets all links flow, for the liveness phase: what was held back arrives soon.
    pub(crate) fn unclog(&mut self) {
        let soon = self.queue.now() + self.options.network.delay_min + self.options.network.delay_mean;
        for link in self.network.links.values_mut() {
            link.clogged_until = link.clogged_until.min(soon);
            link.last_arrival = link.last_arrival.min(soon);
        }
        self.queue.bring_forward(soon, |due| matches!(due, Due::Arrive(_)));
    }
}

fn flip_bit(bytes: &Bytes, random: u64) -> Bytes {
    let mut changed = bytes.to_vec();
    let bit = random as usize % (changed.len() * 8);
    changed[bit / 8] ^= 1 << (bit % 8);
    Bytes::from(changed)
}
