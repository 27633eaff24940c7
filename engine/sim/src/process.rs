//! Nodes as processes: clocks, cores that run or do not, crash, restart and pause.
//!
//! A node that crashes loses its cores, their inboxes, their connections and what its disks had not synced. When it
//! starts again its incarnation is one larger, its clock has another offset, and its cores are made from the disks.

use std::time::Duration;

use pontoon_multiraft::{Core, CoreConfig, Event, GroupState, RaftConfig};
use pontoon_router::core_of;
use pontoon_types::{ClusterId, CoreId, Incarnation, NodeId, Time};

use crate::options::Options;
use crate::random::Random;
use crate::trace::{Happening, Place};
use crate::world::{Due, World};

/// The cluster of every simulation.
pub const CLUSTER: ClusterId = ClusterId(0x51b0);

/// A node's clock: `local = offset + time · (1 + drift)`. Nodes never compare clocks, so offsets differ widely.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: u64,
    drift_ppm: i64,
}

impl Clock {
    /// A clock that runs wrong by at most `drift_max_ppm`.
    pub fn draw(random: &mut Random, drift_max_ppm: u32) -> Clock {
        let drift = random.below(2 * u64::from(drift_max_ppm) + 1) as i64 - i64::from(drift_max_ppm);
        Clock { offset_ns: random.below(1 << 50), drift_ppm: drift }
    }

    /// What the clock shows at a virtual time.
    pub fn local(&self, time: Time) -> Time {
        let drift = i128::from(time.0) * i128::from(self.drift_ppm) / 1_000_000;
        Time((i128::from(self.offset_ns) + i128::from(time.0) + drift) as u64)
    }

    /// A virtual time at which the clock shows `local` or a little more.
    pub fn when(&self, local: Time) -> Time {
        let elapsed = i128::from(local.0) - i128::from(self.offset_ns);
        let time = elapsed * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        // The divisions round by less than a microsecond; a timer that fires that much later is as good.
        Time(time.max(0) as u64) + Duration::from_micros(1)
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Whether its process runs.
    pub alive: bool,
    /// How often it was started.
    pub incarnation: Incarnation,
    /// Its clock.
    pub clock: Clock,
}

/// One running core.
#[derive(Debug)]
pub struct RunningCore {
    /// The code under test.
    pub core: Core,
    /// What arrived since the last turn.
    pub inbox: Vec<Event>,
    /// Whether a turn is on the agenda.
    pub turn_due: bool,
    /// Whether it takes no turns at present.
    pub paused: bool,
    /// When the agenda wakes it for its deadline.
    pub wake_at: Option<Time>,
    /// Turns in a row after which its deadline was still in the past.
    pub spins: u32,
}

impl World {
    /// All places of a node.
    pub(crate) fn places(&self, node: NodeId) -> impl Iterator<Item = Place> + use<> {
        (0..self.options.cores).map(move |core| Place { node, core: CoreId(core) })
    }

    /// Starts a node from its disks.
    pub(crate) fn start_node(&mut self, id: NodeId) {
        if self.nodes[&id].alive {
            return;
        }
        let clock = Clock::draw(&mut self.random, self.options.process.drift_max_ppm);
        let incarnation = Incarnation(self.nodes[&id].incarnation.0 + 1);
        self.nodes.insert(id, Node { alive: true, incarnation, clock });
        self.trace.note(self.queue.now(), Happening::Started(id, incarnation.0));
        for place in self.places(id) {
            let core = self.open_core(place, incarnation, clock.local(self.queue.now()));
            let running =
                RunningCore { core, inbox: Vec::new(), turn_due: false, paused: false, wake_at: None, spins: 0 };
            self.cores.insert(place, running);
            self.schedule_turn(place);
        }
        self.dial_all(id);
    }

    fn open_core(&mut self, place: Place, incarnation: Incarnation, now: Time) -> Core {
        let mut groups = Vec::new();
        for descriptor in &self.descriptors {
            if core_of(descriptor.group, self.options.cores) != place.core {
                continue;
            }
            let log = self.disks[&place].durable(descriptor.group);
            self.invariants.started(place, descriptor.group, log);
            let (hard_state, entries) = (log.hard_state, log.entries.clone());
            groups.push(GroupState { descriptor: descriptor.clone(), hard_state, entries });
        }
        let options = &self.options.core;
        let config = CoreConfig {
            incarnation,
            seed: self.random.draw(),
            nodes: self.nodes.keys().map(|node| (*node, format!("{node}:7400"))).collect(),
            descriptors: self.descriptors.clone(),
            raft: raft_config(&self.options),
            beacon_interval: options.beacon_interval,
            support_timeout: options.support_timeout,
            broken_link_grace: options.broken_link_grace,
            request_timeout: options.request_timeout,
            ..CoreConfig::new(CLUSTER, place.node, place.core, self.options.cores)
        };
        Core::new(config, groups, now)
    }

    /// The node's machine stops. Each disk keeps a prefix of what it had not synced: nothing, all or some.
    pub(crate) fn crash_node(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("law: a node that crashes exists");
        if !node.alive {
            return;
        }
        node.alive = false;
        let mut kept = 0;
        for place in self.places(id) {
            let disk = self.disks.get_mut(&place).expect("law: every core has a disk");
            let unsynced = disk.unsynced() as u64;
            let survivors = match self.random.below(3) {
                0 => 0,
                1 => unsynced,
                _ => self.random.between(0, unsynced),
            };
            disk.crash(survivors as usize);
            self.counts.appends_lost += unsynced - survivors;
            kept += survivors;
            self.cores.remove(&place);
        }
        self.counts.crashes += 1;
        self.trace.note(self.queue.now(), Happening::Crashed(id, kept));
        self.links_of_crashed(id);
        self.connections_of_crashed(id);
        let delay = self.random.until_next(self.options.process.restart_delay);
        self.queue.put(self.queue.now() + delay, Due::StartNode(id));
    }

    /// Stops one core from taking turns for a while; what arrives waits.
    pub(crate) fn pause_core(&mut self, place: Place, length: Duration) {
        let Some(running) = self.cores.get_mut(&place) else { return };
        if running.paused {
            return;
        }
        running.paused = true;
        self.counts.pauses += 1;
        self.trace.note(self.queue.now(), Happening::Paused(place));
        let incarnation = self.nodes[&place.node].incarnation;
        self.queue.put(self.queue.now() + length, Due::Resume(place, incarnation));
    }

    /// Lets a paused core go on.
    pub(crate) fn resume_core(&mut self, place: Place) {
        let Some(running) = self.cores.get_mut(&place).filter(|running| running.paused) else { return };
        running.paused = false;
        running.turn_due = false;
        self.trace.note(self.queue.now(), Happening::Resumed(place));
        self.schedule_turn(place);
    }
}

fn raft_config(options: &Options) -> RaftConfig {
    let core = &options.core;
    RaftConfig {
        election_timeout_min: core.election_timeout,
        election_timeout_max: core.election_timeout * 2,
        retry_interval: core.retry_interval,
        commit_delay: core.commit_delay,
        append_entries_max: core.append_entries_max,
        append_bytes_max: core.append_bytes_max,
        inflight_messages_max: core.inflight_messages_max,
        #[cfg(feature = "mutations")]
        mutation: options.mutation,
        ..RaftConfig::default()
    }
}
