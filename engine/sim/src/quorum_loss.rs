//! A quorum is lost for good, and the groups that lost it begin anew with the survivors, as `pontoon recover` does it
//! (decision 0006): by the plan of `pontoon_multiraft::quorum_loss`, with logs that `pontoon_wal::transplant` writes.
//!
//! ```text
//! LoseQuorum   most nodes, or half of an even number, lose their power and do not come back
//!              the survivors go on for a while: left alone groups serve, the others ask for votes in vain
//! StopForGood  the survivors are stopped, one way or another
//! BeginAnew    their logs are read at rest, planned for, and written anew; the survivors start
//! ComeBack     in some runs lost nodes start all the same from what they were, as many as are no quorum of what they know
//! ```
//!
//! What is checked: no group begins anew that can decide; the base of each has all that a survivor shows to be committed, and
//! all that ever was committed if the plan says that nothing is missing; nothing of the life before may pass for something of
//! the new one; nobody of the life before leads or commits any more (`truth`). Everything else is what is checked of
//! every group, in both lives, the bound within which it serves and converges included. Only of a group of which the plan
//! says that it may miss writes the histories are cut in two ([`crate::history`]).
//!
//! The runs that have it lose nothing else for good, and nothing stays broken at first. After the loss nobody wants other
//! members: they could be nodes that are gone. A group that no survivor holds, or that cannot be gone on from, is not expected
//! to serve.
//!
//! All of it draws from a stream of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::quorum_loss::{Fate, Found, GroupPlan, Held, Plan, Rules, Verdict, counts};
use pontoon_multiraft::{GroupView, Ledger};
use pontoon_router::core_of;
use pontoon_types::{Creation, Descriptor, Entry, EntryKind, GroupId, Incarnation, LogId, NodeId, ReplicaId, Time};
use pontoon_wal::LogIdentity;
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::transplant::{LogAtRest, NewLog, Reborn, Transplant, transplant_into};

use crate::disk::descriptor;
use crate::options::Options;
use crate::oracle::{LogLaw, Oracle};
use crate::process::CLUSTER;
use crate::random::Random;
use crate::replica_log::ReplicaLog;
use crate::store::Store;
use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, World};

/// How many runs lose a quorum without being asked to, parts per million.
const LOSSES_PPM: u32 = 60_000;

/// What is lost, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossOptions {
    /// When a quorum is lost; zero for never.
    pub after: Duration,
    /// Mean time for which the survivors go on before they are stopped.
    pub alone_mean: Duration,
    /// Chance that the survivors take the lost nodes for nodes of the cluster still, parts per million.
    pub heard_ppm: u32,
    /// Chance of each lost node that it comes back all the same, parts per million.
    pub return_ppm: u32,
    /// Mean time after which it does.
    pub return_mean: Duration,
}

impl LossOptions {
    /// Draws them. What is drawn elsewhere does not depend on it.
    pub(crate) fn draw(options: &Options, wanted: bool) -> LossOptions {
        let mut random = LossOptions::random(options.seed).fork(0);
        let happens = random.chance(LOSSES_PPM) || wanted;
        if !happens || options.nodes < 2 || options.outcomes_only {
            return LossOptions::default();
        }
        let election = options.core.election_timeout;
        LossOptions {
            after: options.duration * random.between(20, 98) as u32 / 100,
            alone_mean: *random.pick(&[Duration::from_millis(1), election, election * 3]),
            heard_ppm: *random.pick(&[0, 500_000, 1_000_000]),
            return_ppm: *random.pick(&[0, 400_000, 1_000_000]),
            return_mean: *random.pick(&[election / 10, election * 2]),
        }
    }

    /// The stream that this and all of the loss draw from.
    fn random(seed: u64) -> Random {
        Random::new(seed ^ 0x7175_6f72_756d)
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Whole,
    Lost,
    Stopped,
    Begun,
}

/// The loss of a run.
#[derive(Debug)]
pub(crate) struct QuorumLoss {
    random: Random,
    stage: Stage,
    survivors: Vec<NodeId>,
    /// The nodes of the cluster as the survivors know it afterwards.
    cluster: BTreeSet<NodeId>,
    /// The groups that began anew, with their new members.
    pub(crate) reborn: BTreeMap<GroupId, Descriptor>,
    /// The groups of which nothing is left to go on from.
    pub(crate) dead: BTreeSet<GroupId>,
    /// How many lost nodes have not come back yet that will.
    returning: usize,
}

/// What the survivors have.
struct Survivors {
    logs: BTreeMap<Place, LogAtRest>,
    found: BTreeMap<NodeId, BTreeMap<GroupId, Found>>,
}

impl QuorumLoss {
    /// Nothing is lost.
    pub(crate) fn new(seed: u64) -> QuorumLoss {
        QuorumLoss {
            random: LossOptions::random(seed).fork(1),
            stage: Stage::Whole,
            survivors: Vec::new(),
            cluster: BTreeSet::new(),
            reborn: BTreeMap::new(),
            dead: BTreeSet::new(),
            returning: 0,
        }
    }

    /// Whether a quorum is lost, or was.
    pub(crate) fn has_happened(&self) -> bool {
        self.stage > Stage::Whole
    }

    /// Whether something of it is still to come.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Lost | Stage::Stopped) || self.returning > 0
    }

    /// Whether a node stays stopped until its groups begin anew.
    pub(crate) fn keeps_stopped(&self, node: NodeId) -> bool {
        self.stage == Stage::Stopped && self.survivors.contains(&node)
    }

    /// Whether a node belongs to the cluster that one knows. Who does not is neither dialled nor heard.
    pub(crate) fn knows(&self, node: NodeId, other: NodeId) -> bool {
        self.stage < Stage::Begun || !self.survivors.contains(&node) || self.cluster.contains(&other)
    }

    /// Whether a replica belongs to the life of a group before it began anew.
    pub(crate) fn is_of_before(&self, group: GroupId, replica: ReplicaId) -> bool {
        let first = |of: &Descriptor| of.members.iter().map(|member| member.replica).min();
        self.reborn.get(&group).and_then(first).is_some_and(|first| replica < first)
    }

    /// Whether a node is no node of the cluster that the survivors know.
    pub(crate) fn is_outside(&self, node: NodeId) -> bool {
        self.stage == Stage::Begun && !self.cluster.contains(&node)
    }
}

impl World {
    /// A quorum of the nodes is lost for good.
    pub(crate) fn lose_quorum(&mut self) {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let random = &mut self.loss.random;
        let survivors = random.between(1, nodes.len() as u64 / 2) as usize;
        for place in (1..nodes.len()).rev() {
            nodes.swap(place, random.below(place as u64 + 1) as usize);
        }
        let lost = nodes.split_off(survivors);
        self.loss.stage = Stage::Lost;
        self.loss.survivors = nodes;
        self.counts.quorums_lost += 1;
        for node in lost {
            self.crash_node(node);
            self.nodes.get_mut(&node).expect("law: only nodes of the cluster are lost").lost = true;
            self.trace.note(self.queue.now(), Happening::GivenUp(node));
        }
        let wait = self.loss.random.until_next(self.options.loss.alone_mean);
        self.queue.put(self.queue.now() + wait, Due::StopForGood);
    }

    /// The survivors are stopped. Nothing is done with them before the last client has heard what they have said.
    pub(crate) fn stop_for_good(&mut self) -> Result<(), Broken> {
        self.loss.stage = Stage::Stopped;
        for node in self.loss.survivors.clone() {
            match self.loss.random.chance(500_000) {
                true => self.stop_node(node)?,
                false => self.crash_node(node),
            }
        }
        let heard = self.connections.iter().map(|connection| connection.last_down).max().unwrap_or(Time(0));
        self.queue.put(heard.max(self.queue.now()) + Duration::from_millis(1), Due::BeginAnew);
        Ok(())
    }

    /// The groups that have lost their quorum begin anew.
    pub(crate) fn begin_anew(&mut self) -> Result<(), Broken> {
        let nodes = self.loss.survivors.clone();
        let survivors = self.read_at_rest(&nodes)?;
        let plan = self.plan(&survivors);
        let is_heard = self.loss.random.chance(self.options.loss.heard_ppm);
        // Where nothing is to be recovered nothing is done: the nodes are started as they are.
        let is_needed = plan.groups.iter().any(|group| group.recovery().is_some());
        self.loss.cluster = match is_heard || !is_needed {
            true => self.nodes.keys().copied().collect(),
            false => plan.nodes.iter().copied().collect(),
        };
        self.loss.dead = plan.absent.iter().copied().collect();
        for group in &plan.groups {
            match &group.verdict {
                Verdict::Recover(_) => self.check_rebirth(group, &survivors)?,
                Verdict::LeftAlone(why) => {
                    self.counts.left_alone += 1;
                    self.trace.note(self.queue.now(), Happening::LeftAlone(group.group, why.clone()));
                }
                Verdict::Refused(_) => drop(self.loss.dead.insert(group.group)),
            }
        }
        let made = survivors.logs.keys().filter(|_| is_needed);
        let made: Vec<_> = made.map(|place| self.make(*place, &survivors, &plan)).collect();
        for (place, made) in survivors.logs.keys().zip(made) {
            let (medium, new, oracle, store) = made?;
            self.disk(*place).put_in_place(medium, &new, oracle, store);
            if plan.stays_on(place.node) == 0 {
                self.disk(*place).ledger = Ledger::default();
            }
        }
        self.loss.stage = Stage::Begun;
        self.drop_flights(&nodes);
        nodes.iter().for_each(|node| self.schedule_start(*node, 1));
        self.draw_returns();
        Ok(())
    }

    /// What the logs and the stores of these nodes hold.
    fn read_at_rest(&mut self, nodes: &[NodeId]) -> Result<Survivors, Broken> {
        let mut survivors = Survivors { logs: BTreeMap::new(), found: BTreeMap::new() };
        for place in nodes.iter().flat_map(|node| self.places(*node)).collect::<Vec<_>>() {
            self.disk(place).medium().heal();
            self.disk(place).medium().keep_power();
            let log = self.guarded(place, crate::disk::Disk::at_rest)?;
            let log = log.map_err(|(law, what)| Broken::Log { law, place, what })?;
            let found = self.find(place, &log)?;
            survivors.found.entry(place.node).or_default().extend(found);
            survivors.logs.insert(place, log);
        }
        Ok(survivors)
    }

    /// What counts of the replicas of one core.
    fn find(&self, place: Place, log: &LogAtRest) -> Result<BTreeMap<GroupId, Found>, Broken> {
        let unreadable = |what: String| Broken::Log { law: LogLaw::IntactLogOpens, place, what };
        let mut found = BTreeMap::new();
        for (group, kept) in log.groups() {
            let surveyed = log.survey(group).map_err(|error| unreadable(error.to_string()))?;
            let checkpoint = self.disks[&place].store.found(group, kept.replica).map(|checkpoint| checkpoint.meta);
            let created = self.descriptors.iter().find(|descriptor| descriptor.group == group);
            let held = Held {
                replica: kept.replica,
                created: created.expect("law: a log holds groups of the cluster").clone(),
                hard_state: kept.hard_state,
                vote_lost: kept.vote_lost,
                compacted: kept.compacted,
                last: kept.last,
                noted: kept.committed,
                starts: surveyed.starts,
                configurations: surveyed.configurations,
                rotten: surveyed.lost,
                checkpoint: checkpoint.filter(|meta| counts(meta, kept.replica, kept.compacted)),
            };
            let of = Found::of(held).ok_or_else(|| unreadable(format!("the members of {group} cannot be read")))?;
            found.insert(group, of);
        }
        Ok(found)
    }

    fn plan(&self, survivors: &Survivors) -> Plan {
        let nodes = self.nodes.keys().copied().collect();
        let replicas = |found: &BTreeMap<GroupId, Found>| {
            found.iter().map(|(group, found)| (*group, found.replica.clone())).collect::<BTreeMap<_, _>>()
        };
        let of_survivors = survivors.found.iter().map(|(node, found)| (*node, replicas(found))).collect();
        let rules = Rules {
            #[cfg(feature = "mutations")]
            mutation: self.options.core_mutation,
        };
        Plan::for_survivors(&rules, CLUSTER, &nodes, self.group_ids(), of_survivors)
    }

    /// A group begins anew: rightly, and with all that it must have. The checkers go on with its new life.
    fn check_rebirth(&mut self, group: &GroupPlan, survivors: &Survivors) -> Result<(), Broken> {
        let id = group.group;
        let core = core_of(id, self.options.cores);
        let Some(recovery) = group.recovery() else { return Ok(()) };
        let holds = |node: &NodeId, replica| group.survivors.get(node).is_some_and(|of| of.replica == replica);
        let members = self.invariants.members(id).unwrap_or_default();
        let is_here = |replica| members.node_of(replica).is_some_and(|node| holds(&node, replica));
        if members == *group.base().members() && members.is_quorum(is_here) {
            return Err(Broken::Needless { group: id });
        }
        let Fate::BeginsAnew(rebirth) = group.fate(group.base, &survivors.found[&group.base][&id]) else {
            let what = "its base is no member of it".to_string();
            return Err(Broken::NotAnew { group: id, what });
        };
        // What the survivors show by themselves, without the plan.
        let shown = group.survivors.keys().map(|node| {
            let disk = &self.disks[&Place { node: *node, core }];
            let log = disk.durable(id);
            let noted = survivors.logs[&Place { node: *node, core }].groups()[&id].committed;
            let stored = disk.store.last(id, log.replica).unwrap_or_default();
            stored.max(log.compacted).max(log.id_at(noted).unwrap_or_default())
        });
        let committed = shown.max().unwrap_or_default();
        let replicas: Vec<ReplicaId> = group.survivors.values().map(|of| of.replica).collect();
        let base = self.disks[&Place { node: group.base, core }].durable(id);
        let log = begun(base, &rebirth.entry, rebirth.reset, rebirth.replica);
        let descriptor = &rebirth.descriptor;
        let base_last = rebirth.entry.id.index.previous();
        // By what was true until now.
        self.history.check_refusals(&self.invariants, Some(id))?;
        let is_missing =
            self.invariants.begin_anew(recovery, descriptor, &log, (committed, &replicas), self.session_limits)?;
        if recovery.may_miss || is_missing {
            let value = |key: &[u8]| self.invariants.value(id, key);
            self.history.begin_anew(id, base_last, value)?;
        }
        self.read_law.began_anew(id, recovery.configuration.members().len(), base_last);
        self.counts.begun_anew += 1;
        self.counts.may_miss += u64::from(recovery.may_miss);
        self.counts.misses += u64::from(is_missing);
        self.loss.reborn.insert(id, descriptor.clone());
        let members = recovery.configuration.to_string();
        self.trace.note(self.queue.now(), Happening::BegunAnew(id, group.base, recovery.entry, members));
        Ok(())
    }

    /// Writes the new log of one core, and says what it must hold.
    fn make(
        &self,
        place: Place,
        survivors: &Survivors,
        plan: &Plan,
    ) -> Result<(MemoryDisk, NewLog, Oracle, Store), Broken> {
        let (disk, node) = (&self.disks[&place], place.node);
        let is_here = |group: &GroupId| core_of(*group, self.options.cores) == place.core;
        let known = disk.oracle().tombstones.iter().map(|(group, dead)| (*group, *dead));
        let mut tombstones = plan.tombstones(node, known);
        tombstones.retain(|group, _| is_here(group));
        let (mut parts, mut durable, mut checkpoints) = (Vec::new(), BTreeMap::new(), Vec::new());
        for group in plan.groups_on(node).filter(|group| is_here(&group.group)) {
            let id = group.group;
            let at_base = Place { node: group.base, ..place };
            match group.fate(node, &survivors.found[&group.base][&id]) {
                Fate::Stays => {
                    parts.push(Transplant { from: &survivors.logs[&place], group: id, reborn: None });
                    durable.insert(id, disk.durable(id).clone());
                    checkpoints.extend(disk.store.shelved(id));
                }
                Fate::BeginsAnew(rebirth) => {
                    let creation = Creation { replica: rebirth.replica, descriptor: descriptor(id) };
                    let base = self.disks[&at_base].durable(id);
                    durable.insert(id, begun(base, &rebirth.entry, rebirth.reset, rebirth.replica));
                    let (hard_state, reset, behind) = (rebirth.hard_state, rebirth.reset, vec![rebirth.entry]);
                    let reborn = Some(Reborn { creation, hard_state, reset, behind });
                    parts.push(Transplant { from: &survivors.logs[&at_base], group: id, reborn });
                    checkpoints.extend(rebirth.checkpoint.and_then(|meta| self.disks[&at_base].store.copied(meta)));
                }
                Fate::Ends => {}
            }
        }
        let above = self.places(node).map(|place| survivors.logs[&place].incarnation()).max();
        let log = disk.identity().log ^ 1 << 100;
        let new = NewLog {
            identity: LogIdentity { log, ..disk.identity() },
            segment_bytes: self.options.disk.segment_bytes,
            above: above.unwrap_or(Incarnation(0)),
            tombstones: tombstones.clone(),
        };
        let medium = MemoryDisk::with_salts((log >> 16) as u32);
        transplant_into(&medium, &new, &parts).map_err(|error| {
            let what = format!("cannot be written anew: {error}");
            Broken::Log { law: LogLaw::IntactLogOpens, place, what }
        })?;
        let voteless = disk.oracle().voteless.clone();
        let oracle = Oracle::holding(durable, tombstones, voteless);
        Ok((medium, new, oracle, Store::of(checkpoints)))
    }

    /// The nodes of the cluster as one node knows it.
    pub(crate) fn known_nodes(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied().filter(move |other| self.loss.knows(node, *other))
    }

    /// Whether a replica is of a life that is over, and asks nobody who could tell it so.
    pub(crate) fn is_forlorn(&self, view: &GroupView<'_>) -> bool {
        let Some(reborn) = self.loss.reborn.get(&view.group()) else { return false };
        // It asks the voters that it knows.
        let members = view.configuration().members().iter();
        let mut voters = members.filter(|(_, standing)| standing.votes()).map(|(member, _)| member.node);
        self.loss.is_of_before(view.group(), view.replica()) && !voters.any(|node| reborn.replica_on(node).is_some())
    }

    /// Some of those that are lost will come back, if they are no quorum of what they know.
    fn draw_returns(&mut self) {
        let lost: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| node.lost).map(|(id, _)| *id).collect();
        let options = self.options.loss.clone();
        let mut returning: Vec<NodeId> = Vec::new();
        for node in lost {
            if !self.loss.random.chance(options.return_ppm) {
                continue;
            }
            returning.push(node);
            if self.could_decide(&returning) {
                returning.pop();
            }
        }
        self.loss.returning = returning.len();
        for node in returning {
            let wait = self.loss.random.until_next(options.return_mean);
            self.queue.put(self.queue.now() + wait, Due::ComeBack(node));
        }
    }

    /// Whether these nodes by themselves could decide in a group that began anew without them.
    fn could_decide(&mut self, nodes: &[NodeId]) -> bool {
        let Ok(read) = self.read_at_rest(nodes) else { return true };
        let decides = |group: &GroupPlan| group.recovery().is_none() && self.loss.reborn.contains_key(&group.group);
        self.plan(&read).groups.iter().any(decides)
    }

    /// A node that was lost starts from what it was.
    pub(crate) fn come_back(&mut self, id: NodeId) -> Result<(), Broken> {
        self.loss.returning -= 1;
        self.counts.came_back += 1;
        let vouched = self.loss.random.chance(500_000);
        let node = self.nodes.get_mut(&id).expect("law: only nodes of the cluster come back");
        (node.lost, node.vouched) = (false, vouched);
        self.trace.note(self.queue.now(), Happening::CameBack(id));
        self.start_node(id)
    }
}

/// An entry as the life that begins has it: one that named the members of the life before says nothing.
pub(crate) fn empty(entry: &mut Entry) {
    if entry.kind == EntryKind::Configuration {
        (entry.kind, entry.payload) = (EntryKind::Command, Bytes::new());
    }
}

/// The log with which a group begins anew, told without the log that was written.
fn begun(base: &ReplicaLog, entry: &Entry, reset: Option<LogId>, me: ReplicaId) -> ReplicaLog {
    let mut log = ReplicaLog::new(me);
    log.hard_state.term = entry.id.term;
    log.compacted = reset.unwrap_or(base.compacted);
    if reset.is_none() {
        log.entries = base.entries.clone();
    }
    log.entries.iter_mut().for_each(empty);
    log.entries.push(entry.clone());
    log
}
