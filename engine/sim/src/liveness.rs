//! The liveness phase: nothing fails any more, so within a bound everything must work again.
//!
//! Faults end, partitions heal, all nodes start. In some runs a handicap stays at first: a minority that is down, a node
//! that is deaf or mute, two nodes apart. Whoever can form a majority must serve all the same; bugs of this kind are
//! famous for hiding from random faults, which never stay long enough. Then the handicap is lifted too.
//!
//! Nodes that were lost to damage stay lost, and payloads that are missing somewhere have to come from the others; both are
//! handicaps of their own, so there is no other one then.
//!
//! A prober writes to each group and then reads every key of it that was
//! ever used; the reads join the histories, so that an acknowledged write that is gone shows. Then all replicas of a
//! group must hold the same log, applied to its end, with the same state; and with nobody asking for anything groups
//! must fall asleep: no message of any group leaves, only beacons.

use std::collections::VecDeque;
use std::time::Duration;

use pontoon_multiraft::{GroupView, Role};
use pontoon_router::core_of;
use pontoon_types::limits::CORE_SNAPSHOTS_MAX;
use pontoon_types::{Descriptor, GroupId, NodeId};

use crate::client::Step;
use crate::options::Handicap;
use crate::parts::Part;
use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Phase, World};

/// The bound within which every group serves again and all replicas converge, in shortest election timeouts. A lapse
/// takes one, an election up to two, and a split vote or a request that waits for its timeout may double that.
const BOUND_ELECTION_TIMEOUTS: u32 = 10;

/// The bound with a handicap: clients lose time with a node that cannot serve and does not know it yet.
const HANDICAP_ELECTION_TIMEOUTS: u32 = 30;

/// What an operator raises the size of the logs to.
pub const LARGEST_LOG_BYTES: u64 = 1 << 40;

/// How long the groups must be seen asleep, in shortest election timeouts: longer than any election deadline.
const IDLE_ELECTION_TIMEOUTS: u32 = 3;

impl World {
    /// Heals everything and holds the cluster to its promises.
    pub fn liveness_phase(&mut self) -> Result<(), Broken> {
        self.heal()?;
        let election = self.options.core.election_timeout;
        let promised = self.longest_promise();
        let mut bound = election * BOUND_ELECTION_TIMEOUTS + promised;
        // Those that have just started register before something is broken again.
        self.run_until(self.now() + election * 2)?;
        if self.lost_nodes() > 0 || self.has_losses() || self.loss.has_happened() {
            bound = election * HANDICAP_ELECTION_TIMEOUTS + promised;
        } else if self.options.handicap != Handicap::None {
            self.handicap();
            self.serve_within(election * HANDICAP_ELECTION_TIMEOUTS + promised, |_| None)?;
            self.heal()?;
        }
        // Frames that were changed on their way still arrive and break links, which lose what is under way on them.
        // The last message of a conversation lost that way is told with the next entry; so the probes come after it.
        self.run_until(self.now() + election)?;
        self.serve_within(bound, World::unconverged)?;
        self.restart_quietly(bound)?;
        // The last questions and answers may still be under way, the slowest of each. And where a round trip takes longer than
        // support lasts, a group wakes rightly: from here on none does, and what the last one woke has the time to find rest.
        let slowest = self.round_trip();
        self.options.network.delay_mean = self.options.network.delay_mean.min(self.options.core.support_timeout / 40);
        self.run_until(self.now() + election * 4 + slowest * 2)?;
        self.phase = Phase::Idle;
        self.run_until(self.now() + election * IDLE_ELECTION_TIMEOUTS)
    }

    /// For how long longer than it is supported a leader that is gone may be promised to.
    fn longest_promise(&self) -> Duration {
        match self.options.leases {
            true => self.options.core.lease_length.saturating_sub(self.options.core.support_timeout),
            false => Duration::ZERO,
        }
    }

    /// How long a span of a node's own clock may take.
    fn by_the_slowest_clock(&self, span: Duration) -> Duration {
        span * 1_000_000 / (1_000_000 - self.options.process.drift_max_ppm.min(900_000))
    }

    /// The longest that one question and its answer take, syncs included.
    fn round_trip(&self) -> Duration {
        self.options.network.delay_mean * 16 + self.options.disk.sync_mean * 16
    }

    /// How many Appends, one after another, the replica that is furthest behind may need.
    fn catch_up_rounds(&self) -> u32 {
        let behind = |group: GroupId| {
            let views = || self.cores.values().filter_map(|running| running.core.group(group));
            let last = views().map(|view| view.last().index.0).max();
            let committed = views().map(|view| view.committed().0).min();
            last.unwrap_or(0).saturating_sub(committed.unwrap_or(0))
        };
        let entries = self.group_ids().into_iter().map(behind).max().unwrap_or(0);
        let at_once = self.options.core.append_entries_max * self.options.core.inflight_messages_max;
        (entries / at_once as u64) as u32
    }

    /// How many snapshots, one after another, a core may have to take.
    fn snapshot_rounds(&self) -> u32 {
        self.options.groups / CORE_SNAPSHOTS_MAX as u32
    }

    /// A prober is served in every group, and nothing is open any more, within `bound` and the time that the prober's
    /// own operations take.
    fn serve_within(&mut self, bound: Duration, open: impl Fn(&World) -> Option<String>) -> Result<(), Broken> {
        let groups: Vec<GroupId> =
            self.group_ids().into_iter().filter(|group| !self.loss.dead.contains(group)).collect();
        let reads = groups.iter().map(|group| self.history.made_keys(*group).len()).max().unwrap_or(0);
        let scripts = groups.into_iter().map(|group| Some(self.probe(group))).collect();
        self.add_client(scripts);
        let client = &self.options.client;
        let each = client.think_mean * 2 + client.delay_mean * 16 + self.round_trip();
        let rounds = self.catch_up_rounds() + self.snapshot_rounds();
        let bound = self.by_the_slowest_clock(bound) + each * (reads as u32 + 1) + self.round_trip() * rounds;
        self.converge_within(bound, open)
    }

    /// The prober is through, and nothing is open any more, within `bound`.
    fn converge_within(&mut self, bound: Duration, open: impl Fn(&World) -> Option<String>) -> Result<(), Broken> {
        let (end, step) = (self.now() + bound, self.options.core.election_timeout / 4);
        let mut still_open = open(self);
        while self.now() < end && (!self.scripts_done() || still_open.is_some()) {
            self.run_until(self.now() + step)?;
            still_open = open(self);
        }
        if !self.scripts_done() {
            let who = self.describe_groups();
            return Err(Broken::Stuck(format!("the prober was not served within {bound:?}:{who}")));
        }
        match still_open {
            Some(what) => Err(Broken::Stuck(format!("replicas did not converge within {bound:?}: {what}"))),
            None => Ok(()),
        }
    }

    /// A node starts again while nobody writes. It has forgotten how far the groups had committed, and must hear of it.
    fn restart_quietly(&mut self, bound: Duration) -> Result<(), Broken> {
        let nodes: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| *id).collect();
        if !self.options.process.quiet_restart {
            return Ok(());
        }
        let node = *self.random.pick(&nodes);
        // As soon as this the others do not miss it, so that nothing but its new incarnation tells them.
        let soon = self.random.span(Duration::from_millis(1), self.options.core.election_timeout / 5);
        self.options.process.restart_delay = soon;
        self.stop_node(node)?;
        self.run_until(self.now() + soon * 3)?;
        self.converge_within(bound, World::unconverged)
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.phase = Phase::Liveness;
        self.options.heal();
        self.options.switch_off(Part::WrongRoutes);
        self.trace.note(self.now(), Happening::LivenessPhase);
        self.heal_partitions();
        self.unclog();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.heal_node(node)?;
        }
        Ok(())
    }

    fn heal_node(&mut self, node: NodeId) -> Result<(), Broken> {
        let mut needs_start = self.nodes[&node].old_build;
        self.machine_goes_on(node, self.nodes[&node].incarnation);
        for place in self.places(node) {
            let disk = self.disk(place);
            disk.medium().heal();
            let limit = std::mem::replace(&mut disk.options.max_log_bytes, LARGEST_LOG_BYTES);
            needs_start |= limit < LARGEST_LOG_BYTES || disk.has_hidden_failure();
            self.resume_core(place);
            self.log_has_room(place);
            needs_start |= self.waits_for_the_lost(place);
        }
        if needs_start {
            // What the log says to do when it is full: raise its size and start again. An old build is replaced. And a log that prepares its
            // segments inline does not try again by itself, as the thread of a real one does.
            self.stop_node(node)?;
        }
        self.start_node(node)
    }

    /// Breaks what stays broken for the first part of the phase.
    fn handicap(&mut self) {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let first = nodes.remove(self.random.below(nodes.len() as u64) as usize);
        let second = *self.random.pick(&nodes);
        match self.options.handicap {
            Handicap::None => {}
            Handicap::MinorityDown => {
                nodes.insert(0, first);
                // They stay down until the phase heals everything: longer than the phase can last.
                self.options.process.restart_delay = self.options.core.election_timeout * 1_000_000;
                for node in nodes.into_iter().take((usize::from(self.options.nodes) - 1) / 2) {
                    self.crash_node(node);
                }
            }
            Handicap::OneDeaf => self.partition(nodes.into_iter().map(|node| (node, first)).collect()),
            Handicap::OneMute => self.partition(nodes.into_iter().map(|node| (first, node)).collect()),
            Handicap::OnePairApart => self.partition(vec![(first, second), (second, first)]),
        }
    }

    /// Writes a key of its own, then reads all others.
    fn probe(&mut self, group: GroupId) -> VecDeque<Step> {
        let keys = self.history.made_keys(group);
        let own = self.history.make_key(group);
        let write = std::iter::once(Step::Put(group, own));
        write.chain(keys.into_iter().map(|key| Step::Get(group, key))).collect()
    }

    /// Why some group has not converged, if one has not.
    fn unconverged(&self) -> Option<String> {
        let mut expected = self.descriptors.iter().filter(|descriptor| !self.loss.dead.contains(&descriptor.group));
        expected.find_map(|descriptor| self.unconverged_group(descriptor))
    }

    fn unconverged_group(&self, descriptor: &Descriptor) -> Option<String> {
        let group = descriptor.group;
        let core = core_of(group, self.options.cores);
        let mut leaders = 0;
        let mut first = None;
        let members = self.invariants.members(group)?;
        let is_inside = |place: &Place| place.core == core && !self.loss.is_outside(place.node);
        for (place, running) in self.cores.iter().filter(|(place, _)| is_inside(place)) {
            let view = running.core.group(group);
            let is_left = |view: &GroupView<'_>| members.standing(view.replica()).is_none() && !self.is_forlorn(view);
            if let Some(view) = view.filter(is_left) {
                return Some(format!("{group} at {place}: {} was removed and is still there", view.replica()));
            }
        }
        for (member, _) in members.members() {
            let place = Place { node: member.node, core };
            if self.nodes[&member.node].lost {
                continue;
            }
            let Some(running) = self.cores.get(&place) else { return Some(format!("{place} does not run")) };
            let Some(view) = running.core.group(group) else {
                return Some(format!("{group} has no replica at {place}"));
            };
            if !view.is_ready() {
                return Some(format!("{group} at {place} has no state"));
            }
            leaders += u32::from(view.role() == Role::Leader);
            let (last, durable, applied, digest) = (view.last(), view.durable(), view.applied(), view.digest());
            if durable != last.index || applied != last.index {
                return Some(format!("{group} at {place}: last {last}, durable {durable}, applied {applied}"));
            }
            let state = *first.get_or_insert((last, digest));
            if state != (last, digest) {
                return Some(format!(
                    "{group} at {place}: {last} with state {digest:x}, elsewhere {} with {:x}",
                    state.0, state.1
                ));
            }
        }
        (leaders != 1).then(|| format!("{group} has {leaders} leaders"))
    }

    fn describe_groups(&self) -> String {
        let mut text = String::new();
        for (place, running) in &self.cores {
            for view in running.core.groups() {
                let (role, term, last, committed) = (view.role(), view.term(), view.last(), view.committed());
                text.push_str(&format!(
                    "\n      {place} {} {} {role:?} term {term} last {last} committed {committed} of {}",
                    view.group(),
                    view.replica(),
                    view.configuration()
                ));
            }
        }
        text
    }
}
