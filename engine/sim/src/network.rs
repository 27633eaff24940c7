//! The network between cores: one link for each direction, core and pair of nodes.
//!
//! A frame may be late, lost, doubled, changed or overtaken by later ones, more than TCP would ever allow: the core's
//! safety must not lean on the transport. A link may break, which both the sender and the shell's dialler notice, or
//! lose everything without a word while it looks fine, as in a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::Event;
use pontoon_types::limits::LINK_BYTES_MAX;
use pontoon_types::{Incarnation, LogMark, NodeId, ReplicaId, Time};
use pontoon_wire::peer::PeerFrame;

use crate::random::Random;
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
    /// It carries little until then.
    pub(crate) narrow_until: Time,
    /// When it will have carried what was sent while it was narrow.
    free_at: Time,
}

/// The state of all links.
#[derive(Debug, Default)]
pub struct Network {
    pub(crate) links: BTreeMap<(Place, NodeId), Link>,
    /// Ways on which frames vanish.
    pub blocked: BTreeSet<(NodeId, NodeId)>,
    /// Grows with each partition, so that only the present one is healed.
    pub(crate) partitions: u64,
    /// Until when frames are very late, and of which node; none stands for all.
    pub(crate) lag: Option<(Time, Option<NodeId>)>,
    /// Bytes of all frames under way.
    pub(crate) in_flight_bytes: usize,
}

/// Most bytes of frames under way in a cluster: a sixteenth of what one link of a node may hold, and a few messages of every
/// replica of each group. A run that comes to this says something over and over, and would not end.
pub(crate) fn in_flight_bytes_max(groups: u32) -> usize {
    LINK_BYTES_MAX / 16 + groups as usize * GROUP_IN_FLIGHT_BYTES
}

/// What the replicas of one group may have under way at once, in bytes.
const GROUP_IN_FLIGHT_BYTES: usize = 4 << 10;

/// A number that no replica of the cluster has: one that was replaced long ago, or comes later.
const STRANGER: ReplicaId = ReplicaId(0);

/// A frame under way.
#[derive(Clone, Debug)]
pub struct Flight {
    from: Place,
    to: NodeId,
    epoch: u64,
    bytes: Bytes,
    corrupt: bool,
    /// The incarnation in the frame.
    incarnation: Incarnation,
    /// It holds messages for or from a replica that does not exist, and nothing else.
    strange: bool,
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
        let strange = self.random.chance(network.stranger_ppm).then(|| strange(&bytes, &mut self.random)).flatten();
        let incarnation = PeerFrame::decode(bytes.clone()).map(|frame| frame.incarnation).unwrap_or_default();
        for _ in 0..copies {
            let arrival = self.arrival(from, to, bytes.len());
            let corrupt = self.random.chance(self.options.network.corrupt_ppm);
            let bytes = if corrupt { flip_bit(&bytes, self.random.draw()) } else { bytes.clone() };
            if corrupt {
                self.counts.frames_corrupted += 1;
                self.trace.note(now, Happening::Corrupted(from, to));
            }
            let flight = Flight { from, to, epoch, bytes, corrupt, incarnation, strange: false };
            self.put_flight(arrival, flight);
        }
        if let Some(bytes) = strange {
            self.counts.frames_strange += 1;
            let flight = Flight { from, to, epoch, bytes, corrupt: false, incarnation, strange: true };
            let arrival =
                now + self.options.network.delay_min + self.random.until_next(self.options.core.election_timeout);
            self.put_flight(arrival, flight);
        }
    }

    fn put_flight(&mut self, arrival: Time, flight: Flight) {
        self.network.in_flight_bytes += flight.bytes.len();
        self.queue.put(arrival, Due::Arrive(flight));
    }

    /// When a frame that leaves now arrives.
    fn arrival(&mut self, from: Place, to: NodeId, bytes: usize) -> Time {
        let (now, network) = (self.queue.now(), &self.options.network);
        let mut arrival = now + network.delay_min + self.random.around(network.delay_mean);
        if let Some((until, node)) = self.network.lag
            && now < until
            && node.is_none_or(|node| node == from.node || node == to)
        {
            arrival = arrival + self.random.span(network.delay_min, network.lag_max);
        }
        let link = self.network.links.entry((from, to)).or_default();
        if now < link.narrow_until {
            let nanos = bytes as u64 * 1_000_000_000 / network.narrow_bytes_per_second;
            link.free_at = link.free_at.max(now) + Duration::from_nanos(nanos);
            // What is left when it widens leaves at once.
            arrival = arrival.max(link.free_at.min(link.narrow_until));
        }
        arrival = arrival.max(link.clogged_until);
        if !network.reorder {
            arrival = arrival.max(link.last_arrival);
        }
        link.last_arrival = arrival;
        arrival
    }

    /// A frame reaches its node, if that still runs and the link did not take the frame with it when it broke.
    pub(crate) fn arrive(&mut self, flight: Flight) {
        let Flight { from, to, epoch, bytes, corrupt, incarnation, strange } = flight;
        self.network.in_flight_bytes -= bytes.len();
        let place = Place { node: to, core: from.core };
        let broken = self.network.links.get(&(from, to)).is_none_or(|link| link.epoch != epoch);
        // A node takes no link of one that it does not know.
        let is_refused = !self.loss.knows(to, from.node);
        let lost =
            (broken && self.options.network.break_loses_frames) || !self.cores.contains_key(&place) || is_refused;
        if lost {
            self.counts.frames_lost += 1;
            return;
        }
        self.trace.note(self.queue.now(), Happening::Received(place, from.node, bytes.clone()));
        if corrupt {
            self.corrupt_arrivals.insert((place, from.node));
        }
        let Some(running) = self.cores.get_mut(&place) else { return };
        let heard = running.heard.entry(from.node).or_default();
        // Law 11: what comes from a life that is over, or concerns a replica that is not here, changes nothing.
        let ignored = !corrupt && (incarnation < *heard || (strange && incarnation == *heard)) && !registers(&bytes);
        if !corrupt && !strange {
            *heard = incarnation.max(*heard);
        }
        self.counts.frames_ignored += u64::from(ignored);
        self.deliver(place, Event::PeerFrame { from: from.node, bytes }, ignored);
    }

    /// Everything that is under way to these nodes is gone: their links ended long before they start again.
    pub(crate) fn drop_flights(&mut self, nodes: &[NodeId]) {
        let goes = |due: &Due| matches!(due, Due::Arrive(flight) if nodes.contains(&flight.to));
        for due in self.queue.remove(goes) {
            if let Due::Arrive(flight) = due {
                self.network.in_flight_bytes -= flight.bytes.len();
                self.counts.frames_lost += 1;
            }
        }
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
        let others: Vec<NodeId> = self.known_nodes(id).filter(|other| *other != id).collect();
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
            && self.loss.knows(to, from.node)
            && !self.network.blocked.contains(&(from.node, to))
            && !self.network.blocked.contains(&(to, from.node));
        let link = self.network.links.entry((from, to)).or_default();
        let Some(running) = self.cores.get(&from).filter(|_| link.dial_at == Some(now)) else { return };
        if !reachable || running.paused {
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
        self.network.partitions += 1;
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

    /// Ends the partition with this number, if it is the present one.
    pub(crate) fn heal_partition(&mut self, number: u64) {
        if self.network.partitions == number {
            self.heal_partitions();
        }
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
        self.network.lag = None;
        for link in self.network.links.values_mut() {
            (link.narrow_until, link.free_at) = (Time(0), Time(0));
            link.clogged_until = link.clogged_until.min(soon);
            link.last_arrival = link.last_arrival.min(soon);
        }
        self.queue.bring_forward(soon, |due| matches!(due, Due::Arrive(_)));
    }
}

/// Whether the sender has come to life: even from a life that is over, that is answered (law 12).
fn registers(bytes: &Bytes) -> bool {
    let frame = PeerFrame::decode(bytes.clone()).ok();
    frame.and_then(|frame| frame.beacon).is_some_and(|beacon| beacon.registration.is_some())
}

/// The messages of a frame in the name of a replica that does not exist, or for one; none if it has no messages.
fn strange(bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
    let mut frame = PeerFrame::decode(bytes.clone()).ok().filter(|frame| !frame.messages.is_empty())?;
    frame.mark = LogMark(0);
    frame =
        PeerFrame { beacon: None, reads: Vec::new(), confirmations: Vec::new(), index_questions: Vec::new(), ..frame };
    frame.index_answers.clear();
    frame.support.clear();
    frame.snapshots.clear();
    let from = random.chance(500_000);
    for (_, message) in &mut frame.messages {
        *(if from { &mut message.from } else { &mut message.to }) = STRANGER;
    }
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    Some(Bytes::from(bytes))
}

fn flip_bit(bytes: &Bytes, random: u64) -> Bytes {
    let mut changed = bytes.to_vec();
    let bit = random as usize % (changed.len() * 8);
    changed[bit / 8] ^= 1 << (bit % 8);
    Bytes::from(changed)
}
