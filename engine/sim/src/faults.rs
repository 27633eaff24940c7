//! Which faults happen when. Each kind has its own mean interval, drawn with the options, and puts itself on the
//! agenda again; in the liveness phase none happens any more.

use std::time::Duration;

use pontoon_types::NodeId;

use crate::trace::{Happening, Place};
use crate::violation::Broken;
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
    /// A disk has hardly any room for a while.
    FillDisk,
    /// Payloads of durable entries are found to be rotten under a running core.
    Scrub,
}

const FAULTS: [Fault; 8] = [
    Fault::Crash,
    Fault::Pause,
    Fault::Partition,
    Fault::BreakLink,
    Fault::ClogLink,
    Fault::FillLog,
    Fault::FillDisk,
    Fault::Scrub,
];

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
            Fault::FillDisk => self.options.disk.no_room_interval,
            Fault::Scrub => self.options.disk.scrub_interval,
        };
        if mean > Duration::ZERO {
            let wait = self.random.until_next(mean);
            self.queue.put(self.queue.now() + wait, Due::Fault(fault));
        }
    }

    /// Lets one fault happen.
    pub(crate) fn inject(&mut self, fault: Fault) -> Result<(), Broken> {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        match fault {
            Fault::Crash => self.inject_crash()?,
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
                if let Some(running) = self.cores.get_mut(&place) {
                    running.log_says_full = true;
                    self.watch_log_space(place);
                    let length = self.random.until_next(self.options.core.election_timeout);
                    let incarnation = self.nodes[&place.node].incarnation;
                    self.queue.put(self.queue.now() + length, Due::LogHasRoom(place, incarnation));
                }
            }
            Fault::Scrub => {
                let place = self.draw_place();
                if self.cores.contains_key(&place) {
                    self.rot_payloads(place, false);
                }
            }
            Fault::FillDisk => {
                let place = self.draw_place();
                let room = self.random.below(3) * self.options.disk.segment_bytes;
                self.disk(place).medium().limit_free_bytes(Some(room));
                self.trace.note(self.queue.now(), Happening::Room(place, Some(room)));
                let length = self.random.until_next(self.options.disk.no_room_length);
                self.queue.put(self.queue.now() + length, Due::DiskHasRoom(place));
            }
        }
        self.schedule_fault(fault);
        Ok(())
    }

    /// A log stops pretending to be full.
    pub(crate) fn log_has_room(&mut self, place: Place) {
        if let Some(running) = self.cores.get_mut(&place) {
            running.log_says_full = false;
            self.watch_log_space(place);
        }
    }

    /// Somebody made room on a disk.
    pub(crate) fn disk_has_room(&mut self, place: Place) {
        self.disk(place).medium().limit_free_bytes(None);
        self.trace.note(self.queue.now(), Happening::Room(place, None));
    }

    /// One node crashes or is stopped, a leader more often than others; or all crash at once.
    fn inject_crash(&mut self) -> Result<(), Broken> {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        if self.options.process.crash_all && self.random.chance(250_000) {
            for node in nodes {
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

    /// Half of the time a node with a sync in flight: what a crash does to an idle log is soon told.
    fn draw_writing_or_any(&mut self) -> NodeId {
        let writing = self.disks.iter().filter(|(_, disk)| disk.flight().is_some());
        let writing: Vec<NodeId> = writing.map(|(place, _)| place.node).collect();
        if !writing.is_empty() && self.random.chance(500_000) {
            return *self.random.pick(&writing);
        }
        self.draw_leader_or_any()
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
