//! Nodes as processes: cores that run or do not, crash, restart and pause.
//!
//! A node whose process ends loses its cores, their inboxes and their connections; when its machine loses power, also
//! what its disks had not synced. When it starts again (`start`) its incarnation is one larger, its clock has another
//! offset, and its cores are made from the disks.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_multiraft::{Core, Event, Fetch, RaftConfig, Reader};
use pontoon_types::{ClusterId, CoreId, GroupId, Incarnation, LogRoom, NodeId, Time};

use crate::clock::Clock;
use crate::options::Options;
use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, World};

/// The cluster of every simulation.
pub const CLUSTER: ClusterId = ClusterId(0x51b0);

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Whether its process runs.
    pub alive: bool,
    /// Whether its disk is damaged beyond what it can do about it, so that it never starts again.
    pub lost: bool,
    /// How often it was started.
    pub incarnation: Incarnation,
    /// Its clock.
    pub clock: Clock,
    /// Until when its cores get too little processor time.
    pub starved_until: Time,
    /// Whether it runs a build that cannot read some commands.
    pub old_build: bool,
    /// Whether an operator vouches for its disks, so that it takes part whatever its peers say.
    pub vouched: bool,
}

impl Node {
    /// A node that was never started.
    pub fn new(clock: Clock) -> Node {
        let starved_until = Time(0);
        Node {
            alive: false,
            lost: false,
            incarnation: Incarnation(0),
            clock,
            starved_until,
            old_build: false,
            vouched: false,
        }
    }
}

/// Something in the inbox of a core.
#[derive(Debug)]
pub struct Arrival {
    /// What arrived.
    pub event: Event,
    /// A correct core changes nothing for it (law 11).
    pub ignored: bool,
}

/// One running core.
#[derive(Debug)]
pub struct RunningCore {
    /// The code under test.
    pub core: Core,
    /// The groups that its last turn may have changed.
    pub touched: Vec<GroupId>,
    /// What arrived since the last turn.
    pub inbox: Vec<Arrival>,
    /// The highest incarnation of each peer whose frame has arrived.
    pub heard: BTreeMap<NodeId, Incarnation>,
    /// Whether its sync ended while it was paused.
    pub sync_ended: bool,
    /// Whether a turn is on the agenda.
    pub turn_due: bool,
    /// Whether it takes no turns at present.
    pub paused: bool,
    /// Whether its clock has jumped and it does not know yet.
    pub clock_jumped: bool,
    /// The time of its clock that it looked at, for the events of its turn, right before it was paused.
    pub looked_at: Option<Time>,
    /// Whether what has arrived reaches it only after its next turn.
    pub hears_later: bool,
    /// When the agenda wakes it for its deadline.
    pub wake_at: Option<Time>,
    /// Turns in a row after which its deadline was still in the past.
    pub spins: u32,
    /// Whether its log pretends to be full.
    pub log_says_full: bool,
    /// What the core was told last of the room that its log has.
    pub log_room: Option<LogRoom>,
    /// Whether the core was told that its sync takes too long.
    pub stalled: bool,
    /// Whether the agenda holds the next look at a log that waits for a segment.
    pub waits_for_segment: bool,
    /// What its groups asked their log for, and wait for.
    pub fetches: BTreeMap<(GroupId, Reader), Fetch>,
}

impl RunningCore {
    /// A core that nothing has happened to.
    pub fn new(core: Core) -> RunningCore {
        RunningCore {
            core,
            touched: Vec::new(),
            inbox: Vec::new(),
            heard: BTreeMap::new(),
            sync_ended: false,
            turn_due: false,
            paused: false,
            clock_jumped: false,
            looked_at: None,
            hears_later: false,
            wake_at: None,
            spins: 0,
            log_says_full: false,
            log_room: None,
            stalled: false,
            waits_for_segment: false,
            fetches: BTreeMap::new(),
        }
    }
}

impl World {
    /// All places of a node.
    pub(crate) fn places(&self, node: NodeId) -> impl Iterator<Item = Place> + use<> {
        (0..self.options.cores).map(move |core| Place { node, core: CoreId(core) })
    }

    /// A node stops without a warning: its machine loses power, or its process is killed.
    pub(crate) fn crash_node(&mut self, id: NodeId) {
        if !self.nodes[&id].alive {
            return;
        }
        self.counts.crashes += 1;
        if !self.random.chance(self.options.process.kill_ppm) {
            self.lose_power(id);
            return;
        }
        for place in self.places(id) {
            self.disk(place).stop();
        }
        self.trace.note(self.queue.now(), Happening::Killed(id));
        self.process_ends(id);
    }

    /// A node is stopped as it should be. Now and then its machine loses power right after.
    pub(crate) fn stop_node(&mut self, id: NodeId) -> Result<(), Broken> {
        if !self.nodes[&id].alive {
            return Ok(());
        }
        for place in self.places(id) {
            self.close_log(place)?;
        }
        self.counts.stops += 1;
        self.trace.note(self.queue.now(), Happening::Stopped(id));
        if self.random.chance(300_000) {
            self.lose_power(id);
        } else {
            self.process_ends(id);
        }
        Ok(())
    }

    /// The process of a node is gone; it is started again after a while. May be called for one that is gone already.
    pub(crate) fn process_ends(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("law: a node that ends exists").alive = false;
        for place in self.places(id) {
            self.cores.remove(&place);
        }
        self.links_of_crashed(id);
        self.connections_of_crashed(id);
        self.schedule_start(id, 1);
    }

    /// Stops one core from taking turns for a while; what arrives waits.
    pub(crate) fn pause_core(&mut self, place: Place, length: Duration) {
        self.look_at_clock(place);
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

    /// Lets a paused core go on, unless its machine is suspended.
    pub(crate) fn resume_core(&mut self, place: Place) {
        if self.nodes[&place.node].clock.stands() {
            return;
        }
        let Some(running) = self.cores.get_mut(&place).filter(|running| running.paused) else { return };
        running.paused = false;
        running.turn_due = false;
        let now = self.queue.now();
        if std::mem::take(&mut running.sync_ended) {
            self.queue.put(now, Due::SyncDone(place, self.nodes[&place.node].incarnation));
        }
        self.trace.note(now, Happening::Resumed(place));
        self.schedule_turn(place);
    }
}

pub(crate) fn raft_config(options: &Options) -> RaftConfig {
    let core = &options.core;
    RaftConfig {
        election_timeout_min: core.election_timeout,
        election_timeout_max: core.election_timeout * 2,
        retry_interval: core.retry_interval,
        commit_delay: core.commit_delay,
        append_entries_max: core.append_entries_max,
        append_bytes_max: core.append_bytes_max,
        inflight_messages_max: core.inflight_messages_max,
        window_bytes_max: core.window_bytes_max,
        fetch_bytes_max: core.fetch_bytes_max,
        #[cfg(feature = "mutations")]
        mutation: options.mutation,
        ..RaftConfig::default()
    }
}
