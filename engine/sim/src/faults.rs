//! Which faults happen when. Each kind has its own mean interval, drawn with the options, and puts itself on the
//! agenda again; in the liveness phase none happens any more.

use std::time::Duration;

use pontoon_multiraft::Event;
use pontoon_types::NodeId;

use crate::trace::{Happening, Place};
use crate::world::{Due, Phase, World};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node crashes, or all do.
    Crash,
    /// A core pauses.
    Pause,
    /// Some ways are blocked for a while.
    Partition,
    /// A link breaks.
    BreakLink,
    /// A link stalls.
    ClogLink,
    /// A log says that it is full for a while.
    FillLog,
}

const FAULTS: [Fault; 6] =
    [Fault::Crash, Fault::Pause, Fault::Partition, Fault::BreakLink, Fault::ClogLink, Fault::FillLog];

impl World {
    /// Puts the first fault of each kind on the agenda.
    pub(crate) fn begin_faults(&mut self) {
        for fault in FAULTS {
            self.schedule_fault(fault);
        }
    }

    fn schedule_fault(&mut self, fault: Fault) {
        let (network, process) = (&self.options.network, &self.options.process);
        let mean = match fault {
            Fault::Crash => process.crash_interval,
            Fault::Pause => process.pause_interval,
            Fault::Partition => network.partition_interval,
            Fault::BreakLink => network.break_interval,
            Fault::ClogLink => network.clog_interval,
            Fault::FillLog => self.options.disk.full_interval,
        };
        if mean > Duration::ZERO {
            let wait = self.random.until_next(mean);
            self.queue.put(self.queue.now() + wait, Due::Fault(fault));
        }
    }

    /// Lets one fault happen.
    pub(crate) fn inject(&mut self, fault: Fault) {
        if self.phase != Phase::Faults {
            return;
        }
        match fault {
            Fault::Crash => self.inject_crash(),
            Fault::Pause => {
                let place = self.draw_place();
                let length = self.random.until_next(self.options.process.pause_length);
                self.pause_core(place, length);
            }
            Fault::Partition => self.inject_partition(),
            Fault::BreakLink => {
                if let Some((from, to)) = self.draw_link() {
                    self.break_link(from, to);
                }
            }
            Fault::ClogLink => {
                if let Some((from, to)) = self.draw_link() {
                    self.clog_link(from, to);
                }
            }
            Fault::FillLog => {
                let place = self.draw_place();
                if self.cores.contains_key(&place) {
                    self.trace.note(self.queue.now(), Happening::LogFull(place, true));
                    self.push(place, Event::LogFull(true));
                    let length = self.random.until_next(self.options.core.election_timeout);
                    let incarnation = self.nodes[&place.node].incarnation;
                    self.queue.put(self.queue.now() + length, Due::LogHasRoom(place, incarnation));
                }
            }
        }
        self.schedule_fault(fault);
    }

    /// One node crashes, a leader more often than others; or all crash at once.
    fn inject_crash(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        if self.options.process.crash_all && self.random.chance(250_000) {
            for node in nodes {
                self.crash_node(node);
            }
            return;
        }
        let node = self.draw_leader_or_any();
        self.crash_node(node);
    }

    fn draw_leader_or_any(&mut self) -> NodeId {
        let groups = self.group_ids();
        let group = *self.random.pick(&groups);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let any = *self.random.pick(&nodes);
        match self.invariants.newest_leader(group) {
            Some(leader) if self.random.chance(500_000) => leader,
            _ => any,
        }
    }

    fn draw_place(&mut self) -> Place {
        let node = self.draw_leader_or_any();
        let places: Vec<Place> = self.places(node).collect();
        *self.random.pick(&places)
    }

    /// Symmetric halves, one node cut off, one direction only, two halves with one node between them, or random ways.
    fn inject_partition(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        if nodes.len() < 2 {
            return;
        }
        self.heal_partitions();
        let lone = self.draw_leader_or_any();
        let left: Vec<bool> = nodes.iter().map(|_| self.random.chance(500_000)).collect();
        let kind = self.random.below(6);
        let mut ways = Vec::new();
        for (from_place, from) in nodes.iter().enumerate() {
            for (to_place, to) in nodes.iter().enumerate() {
                let apart = left[from_place] != left[to_place];
                let blocked = match kind {
                    0 => apart,
                    1 => *from == lone || *to == lone,
                    2 => *from == lone,
                    3 => *to == lone,
                    4 => apart && *from != lone && *to != lone,
                    _ => self.random.chance(300_000),
                };
                if blocked && from != to {
                    ways.push((*from, *to));
                }
            }
        }
        self.partition(ways);
        let length = self.random.until_next(self.options.network.partition_length);
        self.queue.put(self.queue.now() + length, Due::Heal);
    }
}
