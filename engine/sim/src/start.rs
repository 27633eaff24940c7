//! How a node starts: all its logs are opened by real recovery before any of its cores acts (law 16), and the oracle
//! judges each.
//!
//! A start can be in vain: the disk fails or is full, the power goes in the middle, the log is larger than it may be;
//! then it is tried again later. It can be refused, but only where the disk was damaged: then the node is lost for the
//! rest of the run, if the others are still a majority without it, or the disk gets its good bytes back and must open
//! as if nothing had been.

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{CheckpointConfig, Core, CoreConfig, Event, GroupState, Identities, LeaseConfig};
use pontoon_types::limits::{COMMAND_BYTES_MAX, LOG_PER_UNCOMMITTED, PROPOSAL_BYTES_PER_TURN};
use pontoon_types::{Descriptor, EntryKind, GroupId, Incarnation, Index, NodeId, ReplicaId, Time};
use pontoon_wire::command::{Command, CommandError};

use crate::clock::Clock;
use crate::disk::{Disk, NotOpened, descriptor};
use crate::options::DRIFT_MARGIN_PPM;
use crate::oracle::LogLaw;
use crate::process::{CLUSTER, RunningCore, raft_config};
use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, Phase, World};

/// Changes of the disk within which the power goes again during a start.
const START_CHANGES_MAX: u64 = 24;

impl World {
    /// Starts a node from its disks, if it is not running and not lost.
    pub(crate) fn start_node(&mut self, id: NodeId) -> Result<(), Broken> {
        if self.nodes[&id].alive || self.nodes[&id].lost || self.loss.keeps_stopped(id) {
            return Ok(());
        }
        let clock = Clock::draw(&mut self.random, self.options.process.drift_max_ppm);
        let incarnation = Incarnation(self.nodes[&id].incarnation.0 + 1);
        let node = self.nodes.get_mut(&id).expect("law: a node that starts exists");
        (node.incarnation, node.clock) = (incarnation, clock);
        self.trace.note(self.queue.now(), Happening::Started(id, incarnation.0));
        self.draw_build(id);
        self.exchange_disks(id);
        self.damage_disks(id);
        if !self.open_logs(id)? {
            return Ok(());
        }
        self.nodes.get_mut(&id).expect("law: a node that starts exists").alive = true;
        for place in self.places(id) {
            self.read_law.started(place);
            let core = self.build_core(place, clock.local(self.queue.now()));
            self.cores.insert(place, RunningCore::new(core));
            self.watch_log_space(place);
            self.schedule_turn(place);
        }
        self.dial_all(id);
        Ok(())
    }

    /// The node starts with the build of its cluster or, if all others do, with an older one.
    fn draw_build(&mut self, id: NodeId) {
        let chance = if self.phase == Phase::Faults { self.options.process.old_build_ppm } else { 0 };
        let others_read_all = self.nodes.iter().all(|(other, node)| *other == id || !node.old_build);
        let old_build = chance > 0 && others_read_all && self.random.chance(chance);
        self.nodes.get_mut(&id).expect("law: a node that starts exists").old_build = old_build;
        if old_build {
            self.trace.note(self.queue.now(), Happening::OldBuild(id));
        }
    }

    /// Something happened to a disk while nobody used it.
    fn damage_disks(&mut self, id: NodeId) {
        for place in self.places(id) {
            if self.phase == Phase::Faults && self.random.chance(self.options.disk.payload_ppm) {
                self.rot_payloads(place);
            }
            self.rot_checkpoint(place);
            if self.phase != Phase::Faults
                || !self.random.chance(self.options.disk.damage_ppm)
                || !self.may_lose_something(place)
            {
                continue;
            }
            let mut random = self.random.fork(id.0);
            if let Some(what) = self.disk(place).inflict_damage(&mut random) {
                self.counts.damages += 1;
                self.trace.note(self.queue.now(), Happening::Damaged(place, what));
            }
        }
    }

    /// Whether a group may lose what one replica has of it: who can give it back, or vote in its place, must be whole.
    pub(crate) fn may_lose_something(&self, place: Place) -> bool {
        let mut others = self.disks.iter().filter(|(other, _)| other.node != place.node);
        self.nodes.len() >= 3
            && self.lost_nodes() == 0
            && others.all(|(_, disk)| disk.is_whole() && !disk.is_freshly_damaged())
    }

    /// Payloads rot on a disk, but never one that another replica of the group has lost too: only who has the bytes can
    /// give them back.
    pub(crate) fn rot_payloads(&mut self, place: Place) {
        if !self.may_lose_something(place) {
            return;
        }
        let mut random = self.random.fork(place.node.0);
        let Some((group, indexes, what)) = self.disk(place).rot_payloads(&mut random) else { return };
        let what = format!("the payloads of {group} {indexes:?} rot at{what}");
        self.trace.note(self.queue.now(), Happening::Damaged(place, what));
    }

    /// A log reads everything that it has stored, and its core is told what has rotted.
    pub(crate) fn scrub(&mut self, place: Place) -> Result<(), Broken> {
        self.counts.scrubs += 1;
        let found = self.guarded(place, Disk::scrub)?;
        let rot = found.map_err(|(law, what)| Broken::Log { law, place, what })?;
        self.tell_rot(place, rot);
        Ok(())
    }

    /// A log has come upon rotten payloads.
    pub(crate) fn tell_rot(&mut self, place: Place, rot: Vec<(GroupId, Index)>) {
        self.counts.payloads_lost += rot.len() as u64;
        for (group, index) in rot {
            self.push(place, Event::Lost { group, indexes: vec![index] });
        }
    }

    /// Whether some payload or vote is missing somewhere.
    pub(crate) fn has_losses(&self) -> bool {
        !self.disks.values().all(Disk::is_whole)
    }

    /// Opens all logs of a node. False when it cannot start now.
    fn open_logs(&mut self, id: NodeId) -> Result<bool, Broken> {
        for place in self.places(id) {
            let cut_power = self.phase == Phase::Faults && self.random.chance(self.options.disk.start_power_ppm);
            if cut_power {
                let changes = self.random.below(START_CHANGES_MAX);
                self.disk(place).medium().cut_power_after(changes);
            }
            let opened = self.open_log(place)?;
            if cut_power && self.disks[&place].medium().is_without_power() {
                self.lose_power(id);
                return Ok(false);
            }
            self.disk(place).medium().keep_power();
            if !opened {
                for place in self.places(id) {
                    self.disk(place).stop();
                }
                // Nothing is different at once.
                self.schedule_start(id, 4);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open_log(&mut self, place: Place) -> Result<bool, Broken> {
        loop {
            let now = self.queue.now();
            match self.guarded(place, Disk::open)? {
                Ok(opened) => {
                    let survivors = opened.survivors;
                    self.counts.opens += 1;
                    self.counts.torn_tails += u64::from(opened.torn);
                    self.counts.clean_opens += u64::from(opened.clean);
                    self.counts.segments += opened.segments;
                    self.counts.payloads_lost += opened.payloads_lost;
                    self.counts.votes_lost += opened.votes_lost;
                    self.counts.appends_kept += survivors.kept;
                    self.counts.appends_lost += survivors.lost;
                    let (kept, lost) = (survivors.kept, survivors.lost);
                    self.trace.note(now, Happening::Opened(place, opened.segments, kept, lost));
                    return Ok(true);
                }
                Err(NotOpened::Broken(law, what)) => return Err(Broken::Log { law, place, what }),
                Err(NotOpened::Later(error)) if self.phase == Phase::Faults => {
                    self.counts.starts_in_vain += 1;
                    self.trace.note(now, Happening::NotStarted(place, error));
                    return Ok(false);
                }
                Err(NotOpened::Refused(error)) if self.disks[&place].is_damaged() => {
                    if self.log_refused(place, error) {
                        return Ok(false);
                    }
                }
                Err(NotOpened::Later(error) | NotOpened::Refused(error)) => {
                    return Err(Broken::Log { law: LogLaw::IntactLogOpens, place, what: format!("answers: {error}") });
                }
            }
        }
    }

    /// A damaged log refused to open. True when its node stays down.
    fn log_refused(&mut self, place: Place, error: String) -> bool {
        let now = self.queue.now();
        self.counts.damages_refused += 1;
        self.trace.note(now, Happening::Refused(place, error));
        let lost = self.lost_nodes() + 1;
        let spare = self.has_losses();
        if !spare && lost <= (self.nodes.len() - 1) / 2 && self.phase == Phase::Faults && self.random.chance(200_000) {
            self.counts.nodes_lost += 1;
            self.nodes.get_mut(&place.node).expect("law: a node that starts exists").lost = true;
            self.trace.note(now, Happening::GivenUp(place.node));
            return true;
        }
        self.disk(place).repair();
        self.trace.note(now, Happening::Repaired(place));
        false
    }

    /// How many nodes are down for good.
    pub(crate) fn lost_nodes(&self) -> usize {
        self.nodes.values().filter(|node| node.lost).count()
    }

    /// Puts the next start of a node that is down on the agenda, after so many times the usual delay.
    pub(crate) fn schedule_start(&mut self, id: NodeId, times: u32) {
        let delay = self.random.until_next(self.options.process.restart_delay * times);
        self.queue.put(self.queue.now() + delay, Due::StartNode(id));
    }

    fn build_core(&mut self, place: Place, now: Time) -> Core {
        let past = self.past(place);
        let mut groups = Vec::new();
        self.invariants.starts(place);
        let disk = self.disks.get_mut(&place).expect("law: every core has a disk");
        let held: Vec<(GroupId, ReplicaId)> =
            disk.oracle().groups().map(|group| (group, disk.durable(group).replica)).collect();
        disk.store.retain(|group, replica| held.contains(&(group, replica)));
        let mut started_from_log = Vec::new();
        for (group, replica) in held {
            // The oracle has just found the log to hold exactly this.
            let log = self.disks[&place].durable(group);
            let checkpoint = self.disks[&place].store.found(group, replica);
            let stateless = checkpoint.is_none() && log.compacted.index > Index(0);
            self.counts.stateless_starts += u64::from(stateless);
            if checkpoint.is_none() && !stateless {
                started_from_log.push(group);
            }
            self.invariants.started(place, group, log);
            let of_group = |descriptor: &&Descriptor| descriptor.group == group;
            let founded = self.descriptors.iter().chain(self.loss.reborn.values()).filter(of_group);
            let founded = founded.rev().find(|descriptor| descriptor.replica_on(place.node) == Some(replica));
            let stored = checkpoint.as_ref().map(|checkpoint| &checkpoint.meta.descriptor);
            let Some(descriptor) = stored.or(founded).cloned() else { continue };
            let mut entries = log.entries.clone();
            let lost: Vec<Index> = self.disks[&place].oracle().rotten(group).collect();
            for entry in entries.iter_mut().filter(|entry| lost.contains(&entry.id.index)) {
                entry.payload = Bytes::new();
            }
            // What a start leaves to the log is known by its identities.
            let window = entries.split_off(entries.len().saturating_sub(self.options.core.restored_entries));
            let (mut older, mut configurations) = (Identities::default(), Vec::new());
            for entry in entries {
                if older.starts.last().is_none_or(|start| start.term < entry.id.term) {
                    older.starts.push(entry.id);
                }
                older.last = entry.id.index;
                if entry.kind == EntryKind::Configuration {
                    configurations.push(entry);
                }
            }
            let mut state = GroupState::new(descriptor, log.hard_state, window);
            (state.compacted, state.checkpoint) = (log.compacted, checkpoint);
            state.committed = self.disks[&place].committed(group);
            (state.older, state.configurations, state.lost) = (older, configurations, lost);
            state.vote_lost = self.disks[&place].oracle().voteless.contains(&group);
            groups.push(state);
        }
        started_from_log.into_iter().for_each(|group| self.disk(place).store.starts_from_the_log(group));
        let options = &self.options.core;
        // No more than the clocks of this run need, so that a lease which is too long by anything at all shows.
        let drift_margin_ppm = 2 * self.options.process.drift_max_ppm.min(DRIFT_MARGIN_PPM);
        let lease = self.options.leases.then_some(LeaseConfig { length: options.lease_length, drift_margin_ppm });
        // As in the node: what becomes one write must fit a segment.
        let segment_bytes = self.options.disk.segment_bytes as usize;
        let config = CoreConfig {
            incarnation: self.disks[&place].incarnation(),
            seed: self.random.draw(),
            nodes: self.known_nodes(place.node).map(|node| (node, format!("{node}:7400"))).collect(),
            descriptors: self.descriptors.clone(),
            tombstones: self.disks[&place].oracle().tombstones.iter().map(|(group, dead)| (*group, *dead)).collect(),
            checkpoint: CheckpointConfig { log_bytes: options.checkpoint_log_bytes, chunk_bytes: options.chunk_bytes },
            encode_descriptor: |of| descriptor(of.group),
            decode_command: if self.nodes[&place.node].old_build { decode_as_old_build } else { Command::decode },
            raft: raft_config(&self.options).into(),
            beacon_interval: options.beacon_interval,
            support_timeout: options.support_timeout,
            broken_link_grace: options.broken_link_grace,
            request_timeout: options.request_timeout,
            proposal_bytes_max: PROPOSAL_BYTES_PER_TURN.min(segment_bytes / 4),
            window_bytes_max: options.core_window_bytes_max,
            command_bytes_max: COMMAND_BYTES_MAX.min((segment_bytes - (16 << 10)) / 8 * 3),
            log_uncommitted_bytes_max: (self.disks[&place].options.max_log_bytes / LOG_PER_UNCOMMITTED) as usize,
            sessions: self.session_limits,
            trace: self.protocol.is_some(),
            watched: !self.options.outcomes_only,
            lease,
            // The node file of a real node remembers it from the first start on.
            #[cfg(feature = "mutations")]
            past: Some(past).filter(|_| !self.options.unguarded),
            #[cfg(not(feature = "mutations"))]
            past: Some(past),
            longest_promise: lease.map_or(Duration::ZERO, |lease| lease.length),
            #[cfg(feature = "mutations")]
            hints_lie: self.options.hints_lie,
            #[cfg(feature = "mutations")]
            mutation: self.options.core_mutation,
            ..CoreConfig::new(CLUSTER, place.node, place.core, self.options.cores)
        };
        Core::new(config, groups, now)
    }
}

/// Cannot read one command in eight, and always the same ones.
fn decode_as_old_build(bytes: Bytes) -> Result<Command, CommandError> {
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    if sum.is_multiple_of(8) { Err(CommandError::Version { found: 2 }) } else { Command::decode(bytes) }
}
