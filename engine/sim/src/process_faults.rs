//! Faults of processes and machines: what crashes when, and what is frozen.

use std::time::Duration;

use pontoon_types::NodeId;

use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, Phase, World};

/// How many turns are interrupted where there is too little processor time, parts per million: about one while a peer is
/// supported, so that an election now and then comes through between two of them.
const STARVED_PPM: u32 = 40_000;

impl World {
    /// One node crashes or is stopped, a leader more often than others; or many crash at once.
    pub(crate) fn inject_crash(&mut self) -> Result<(), Broken> {
        if self.options.process.crash_all && self.random.chance(350_000) {
            for node in self.draw_many() {
                self.crash_node(node);
            }
            return Ok(());
        }
        let node = self.draw_writing_or_any();
        if self.random.chance(self.options.process.stop_ppm) {
            return self.stop_node(node);
        }
        self.crash_node(node);
        Ok(())
    }

    /// All nodes, or just a majority.
    fn draw_many(&mut self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let first = self.random.below(nodes.len() as u64) as usize;
        nodes.rotate_left(first);
        if self.random.chance(500_000) {
            nodes.truncate(nodes.len() / 2 + 1);
        }
        nodes
    }

    /// A core has just acknowledged a write. Now and then the power goes right then, at so many nodes that nobody is left who
    /// could help out with what an unfinished sync was to hold.
    pub(crate) fn crash_after_reply(&mut self, place: Place) {
        if self.phase != Phase::Faults || !self.random.chance(self.options.process.crash_after_reply_ppm) {
            return;
        }
        let mut nodes = self.draw_many();
        if !nodes.contains(&place.node) {
            nodes[0] = place.node;
        }
        for node in nodes.into_iter().filter(|node| self.nodes[node].alive).collect::<Vec<_>>() {
            self.counts.crashes += 1;
            self.lose_power(node);
        }
    }

    /// A process gets no processor: its clock goes on, its disk finishes what it was given, what arrives waits.
    pub(crate) fn inject_freeze(&mut self) {
        let node = self.draw_leader_or_any();
        let election = self.options.core.election_timeout;
        let length = self.random.span(election / 2, election * 5);
        for place in self.places(node) {
            self.pause_core(place, length);
        }
    }

    /// The cores of one node, or of all, get too little processor time for a while.
    pub(crate) fn inject_starvation(&mut self) {
        let one = self.draw_leader_or_any();
        let all = self.random.chance(500_000);
        let length = self.random.until_next(self.options.process.starve_length);
        let now = self.queue.now();
        for (_, node) in self.nodes.iter_mut().filter(|(id, _)| all || **id == one) {
            node.starved_until = now + length;
        }
        self.trace.note(now, Happening::Starved((!all).then_some(one), length));
    }

    /// A turn is due. Whether it is interrupted, right after it has looked at the clock for its events.
    pub(crate) fn interrupt_turn(&mut self, place: Place) -> bool {
        let (now, node) = (self.queue.now(), &self.nodes[&place.node]);
        let starved = node.starved_until > now && self.phase == Phase::Faults;
        let running = &self.cores[&place];
        // Whoever looks hears of a jump first; and one turn is interrupted once.
        if !starved || running.clock_jumped || running.looked_at.is_some() || !self.random.chance(STARVED_PPM) {
            return false;
        }
        let looked_at = node.clock.local(now);
        let length = self.random.span(Duration::ZERO, self.options.process.starve_max);
        self.pause_core(place, length);
        self.counts.late_events += 1;
        self.cores.get_mut(&place).expect("law: turns are for running cores").looked_at = Some(looked_at);
        true
    }

    /// A node is killed, starts soon, and is killed again, perhaps before it has started.
    pub(crate) fn kill_in_storm(&mut self, node: NodeId, kills: u32) {
        if self.phase != Phase::Faults {
            return;
        }
        self.crash_node(node);
        let election = self.options.core.election_timeout;
        let now = self.queue.now();
        self.trace.note(now, Happening::Storm(node, kills));
        self.queue.put(now + self.random.span(Duration::ZERO, election / 10), Due::StartNode(node));
        if kills > 1 {
            self.queue.put(now + self.random.until_next(election / 4), Due::KillInStorm(node, kills - 1));
        }
    }
}
