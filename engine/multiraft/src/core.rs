//! The core: the dispatch of events to the verbs, and the end of a turn.

use std::collections::{BTreeMap, VecDeque};

use pontoon_raft::membership::Configuration;
use pontoon_raft::{Effect as RaftEffect, Event as RaftEvent, Fetch, Law, Priority, Raft, Restored, Role};
use pontoon_router::{RoutingTable, preferred_leader};
use pontoon_types::{
    CoreWriteNumber, Descriptor, GroupId, LogId, NodeId, ReplicaId, StoreOrder, Time, Write, WriteNumber,
};
use pontoon_wire::client::{Counters, Outcome, Refusal, Reply};

use crate::amnesia::Registry;
use crate::checkpoint::{Checkpoints, Present};
use crate::follower_read::FollowerReads;
use crate::known_commits::KnownCommits;
use crate::lease::Leases;
use crate::liveness::Liveness;
use crate::log_space::LogSpace;
use crate::memory::Memory;
use crate::mutation::CoreMutation;
use crate::peer::Peer;
use crate::quarantine::Quarantine;
use crate::read::Reads;
use crate::replica::{Asker, Replica, Slot};
use crate::replicas::Replicas;
use crate::send::sendable;
use crate::sessions::{SessionLimits, Sessions};
use crate::snapshot::{Snapshots, Store};
use crate::timers::Timers;
use crate::trace;
use crate::{Checkpoint, ConnectionId, CoreConfig, CoreWrite, Effects, Event, GroupState, Kv};

/// All groups of one core.
///
/// Invariants: `peers` are sorted by node and do not contain this one;
/// `awaiting_durable` is sorted by number; every accepted request is counted in `waiting` until it is answered, and is
/// answered once.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: CoreConfig,
    pub(crate) replicas: Replicas,
    pub(crate) peers: Vec<Peer>,
    pub(crate) routing: RoutingTable,
    pub(crate) timers: Timers,
    pub(crate) liveness: Liveness,
    pub(crate) leases: Leases,
    pub(crate) registry: Registry,
    pub(crate) reads: Reads,
    pub(crate) follower_reads: FollowerReads,
    pub(crate) log_space: LogSpace,
    /// Requests accepted and not yet answered.
    pub(crate) waiting: usize,
    /// Peers that contradicted a law in this turn, and how.
    contradictions: Vec<(NodeId, String)>,
    trace: Vec<String>,
    /// Bytes of status and route reports in this turn.
    pub(crate) report_bytes: usize,
    /// Replicas with commands to propose at the end of the turn.
    pub(crate) proposing: Vec<Slot>,
    /// Replicas that have more committed entries than one turn applies.
    pub(crate) known_commits: KnownCommits,
    pub(crate) apply_backlog: Vec<Slot>,
    pub(crate) memory: Memory,
    pub(crate) store: Store,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) quarantine: Quarantine,
    pub(crate) snapshots: Snapshots,
    /// The groups of which replicas were destroyed here, with the highest of them (law 11).
    pub(crate) tombstones: BTreeMap<GroupId, ReplicaId>,
    /// Replicas destroyed in this turn.
    pub(crate) removals: Vec<(GroupId, ReplicaId)>,
    /// What the bug that law 19 forbids gives up.
    pub(crate) early_compactions: Vec<(GroupId, LogId)>,
    pub(crate) fetches: Vec<(GroupId, Fetch)>,
    pub(crate) counters: Counters,
    shell: Counters,
    replies: Vec<(ConnectionId, Reply)>,
    next_write: CoreWriteNumber,
    writes: Vec<(GroupId, Write)>,
    written: Vec<(Slot, WriteNumber)>,
    awaiting_durable: VecDeque<Undurable>,
    raft_effects: Vec<RaftEffect>,
    /// Replicas that wanted to send to a member whose link is down.
    pub(crate) unreachable: Vec<(Slot, ReplicaId)>,
}

/// An append that is not known to be durable.
#[derive(Debug)]
struct Undurable {
    number: CoreWriteNumber,
    since: Time,
    writes: Vec<(Slot, WriteNumber)>,
    /// The replicas that end with it.
    removals: Vec<(GroupId, ReplicaId)>,
}

/// How many support timeouts a leader waits for its commit index to move (law 7): long enough for a slow disk on the
/// quorum, and a stalled one is dealt with elsewhere.
const STUCK_SUPPORT_TIMEOUTS: u32 = 10;

/// Most replicas whose deadline one turn takes, so that a core that was asleep for long does not wake all its groups at
/// once.
const TIMERS_PER_TURN: usize = 1024;

impl Core {
    /// A core with the groups that its log kept. Nothing is sent or written before the first event.
    ///
    /// # Panics
    ///
    /// When the descriptors overlap or leave a gap, or a group has no replica on this node: the log and the node file
    /// were checked before.
    pub fn new(config: CoreConfig, groups: Vec<GroupState>, now: Time) -> Core {
        let mut config = config;
        // The routing table is the one copy that is kept: with many ranges it is the largest part of a core's memory.
        let routing = RoutingTable::new(std::mem::take(&mut config.descriptors))
            .expect("law: the descriptors of a cluster cover the key space once");
        let mut groups = groups;
        groups.sort_by_key(|group| group.descriptor.group);
        let known_commits = groups.iter().filter(|group| group.committed > group.compacted.index);
        let known_commits = known_commits.map(|group| (group.descriptor.group, group.committed)).collect();
        let mut replicas = Replicas::with_capacity(groups.len(), config.watched);
        let mut members = Configuration::default();
        for group in groups {
            let mut replica = restore(&config, group, &members, now);
            members = replica.configuration.clone();
            // Keys are shared between copies, so an equal descriptor of the table takes less memory than one of its own.
            let known = routing.by_group(replica.descriptor.group);
            if let Some(known) = known.filter(|known| **known == replica.descriptor) {
                replica.descriptor = known.clone();
            }
            replicas.insert(replica);
        }
        let of_groups = replicas.iter().flat_map(|replica| replica.descriptor.members.iter().map(|member| member.node));
        let of_cluster = config.nodes.iter().map(|(node, _)| *node);
        let mut nodes: Vec<NodeId> = of_cluster.chain(of_groups).filter(|node| *node != config.node).collect();
        nodes.sort();
        nodes.dedup();
        let mut core = Core {
            timers: Timers::new(replicas.slots()),
            liveness: Liveness::new(now),
            leases: Leases::new(now, config.longest_promise),
            reads: Reads::default(),
            follower_reads: FollowerReads::default(),
            registry: Registry::default(),
            peers: nodes.into_iter().map(Peer::new).collect(),
            routing,
            log_space: LogSpace::new(),
            known_commits: KnownCommits::of(known_commits),
            waiting: 0,
            report_bytes: 0,
            contradictions: Vec::new(),
            trace: Vec::new(),
            proposing: Vec::new(),
            apply_backlog: Vec::new(),
            memory: Memory::of(&replicas),
            store: Store::default(),
            checkpoints: Checkpoints::default(),
            quarantine: Quarantine::default(),
            snapshots: Snapshots::default(),
            tombstones: config.tombstones.iter().copied().collect(),
            removals: Vec::new(),
            early_compactions: Vec::new(),
            fetches: Vec::new(),
            counters: Counters::default(),
            shell: Counters::default(),
            replies: Vec::new(),
            next_write: CoreWriteNumber(1),
            writes: Vec::new(),
            written: Vec::new(),
            awaiting_durable: VecDeque::new(),
            raft_effects: Vec::new(),
            unreachable: Vec::new(),
            replicas,
            config,
        };
        for slot in 0..core.replicas.slots() {
            if core.replicas[slot].raft.has_to_write() {
                core.step_replica(now, slot, RaftEvent::Timer);
            }
            let replica = &core.replicas[slot];
            core.timers.arm(slot, replica.deadline());
            let is_eager = replica.raft.priority() == Priority::default();
            if preferred_leader(&replica.descriptor) == core.config.node && is_eager {
                core.liveness.first_campaigns.push(slot);
            }
        }
        core.begin_registration();
        core.start_first_campaigns(now);
        core
    }

    /// The one entry. Effects appear at [`Event::EndTurn`] only.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Effects) {
        match event {
            Event::PeerFrame { from, bytes } => self.receive_peer_frame(now, from, bytes, effects),
            Event::PeerUp(node) => self.peer_up(now, node),
            Event::PeerDown(node) => self.peer_down(now, node),
            Event::ClientFrame { connection, bytes } => self.receive_client_frame(now, connection, bytes, effects),
            Event::ClientGone(connection) => self.replies.retain(|(to, _)| *to != connection),
            Event::Durable(number) => self.durable(now, number),
            Event::Marked(mark) => self.registry.mark = mark,
            Event::LedgerKept(number) => self.ledger_kept(now, number),
            Event::LogRoom(room) => self.log_space.tell(room),
            Event::Stalled(stalled) => self.stalled(now, stalled),
            Event::ClockJumped => self.clock_jumped(now),
            Event::Fetched { group, number, result } => {
                if let Some(slot) = self.slot_of(group) {
                    self.step_replica(now, slot, RaftEvent::Fetched { number, result });
                }
            }
            Event::Lost { group, indexes } => {
                if let Some(slot) = self.slot_of(group) {
                    self.step_replica(now, slot, RaftEvent::Lost(indexes));
                    self.cover_lost(slot);
                }
            }
            Event::Store(answer) => self.store_answered(now, answer),
            Event::LogPressure(groups) => self.log_presses(now, &groups),
            Event::ChangeMembers { group, change } => {
                let outcome = self.change_members(now, group, change);
                effects.refused_orders.extend(outcome.err().map(|why| (group, why)));
            }
            Event::TransferLeader { group, to } => {
                let outcome = self.transfer_leader(now, group, to);
                effects.refused_orders.extend(outcome.err().map(|why| (group, why)));
            }
            Event::Timer => self.expire(now),
            Event::EndTurn => self.end_turn(now, effects),
        }
    }

    /// The next time at which [`Event::Timer`] is due. In the past when work is waiting.
    pub fn deadline(&mut self) -> Option<Time> {
        if !self.known_commits.is_empty()
            || !self.apply_backlog.is_empty()
            || self.reads.is_servable()
            || self.is_shedding()
        {
            return Some(Time(0));
        }
        let liveness = self.liveness.next_deadline(&self.peers);
        let checkpoints = self.checkpoints.deadline();
        let (snapshots, cures) = (self.snapshots.deadline(), self.quarantine.deadline());
        [self.timers.next(), liveness, checkpoints, snapshots, cures].into_iter().flatten().min()
    }

    /// Takes over the counters that only the shell can count; they are shown to whoever asks for the status.
    pub fn observe(&mut self, shell: Counters) {
        self.shell = shell;
    }

    /// Everything counted, by the shell and here.
    pub fn counters(&self) -> Counters {
        Counters {
            log_entries: self.counters.log_entries,
            log_writes: self.counters.log_writes,
            peer_frames: self.counters.peer_frames,
            peer_messages: self.counters.peer_messages,
            peer_bytes: self.counters.peer_bytes,
            client_frames: self.counters.client_frames,
            requests: self.counters.requests,
            replies: self.counters.replies,
            read_rounds: self.counters.read_rounds,
            elections_won: self.counters.elections_won,
            applied_entries: self.counters.applied_entries,
            group_steps: self.counters.group_steps,
            leased_reads: self.counters.leased_reads,
            index_questions: self.counters.index_questions,
            snapshots_sent: self.counters.snapshots_sent,
            snapshots_received: self.counters.snapshots_received,
            ..self.shell
        }
    }

    /// The place of a group's replica on this core.
    pub(crate) fn slot_of(&self, group: GroupId) -> Option<Slot> {
        self.replicas.slot_of(group)
    }

    /// The place of a neighbour.
    pub(crate) fn peer_of(&self, node: NodeId) -> Option<usize> {
        self.peers.binary_search_by_key(&node, |peer| peer.node).ok()
    }

    /// Answers a request that was accepted before. Returns the bytes of the reply.
    pub(crate) fn answer(&mut self, asker: Asker, result: Result<Outcome, Refusal>) -> usize {
        self.waiting -= 1;
        self.reply(asker, result)
    }

    /// Answers a request that was never accepted, or is answered at once. Returns the bytes of the reply.
    pub(crate) fn reply(&mut self, asker: Asker, result: Result<Outcome, Refusal>) -> usize {
        self.counters.replies += 1;
        let reply = sendable(Reply { sequence: asker.sequence, result });
        let bytes = reply.encoded_bytes();
        self.replies.push((asker.connection, reply));
        bytes
    }

    /// Steps one replica and carries its effects to where they belong.
    pub(crate) fn step_replica(&mut self, now: Time, slot: Slot, event: RaftEvent) {
        self.counters.group_steps += 1;
        let mut effects = std::mem::take(&mut self.raft_effects);
        let raft = &self.replicas[slot].raft;
        let (held, uncommitted) = (raft.window_bytes(), raft.uncommitted_bytes());
        let mut next = Some(event);
        while let Some(event) = next {
            let entered = self.config.trace.then(|| trace::entered(&event));
            self.replicas[slot].raft.step(now, event, &mut effects);
            if let Some(entered) = entered {
                let replica = &self.replicas[slot];
                let place = (self.config.node, replica.descriptor.group);
                trace::lines(now, place, &entered, &replica.raft, &effects, &mut self.trace);
            }
            for effect in effects.drain(..) {
                match effect {
                    RaftEffect::Append(write) => self.write(slot, *write),
                    RaftEffect::Send(message) => self.post(slot, message),
                    RaftEffect::Committed(_) => self.apply(slot),
                    RaftEffect::Role { .. } => self.role_changed(slot),
                    RaftEffect::Refused { from, law } => self.contradicted(slot, from, law),
                    RaftEffect::Fetch(fetch) => self.fetches.push((self.replicas[slot].descriptor.group, fetch)),
                    RaftEffect::Apply(entries) => self.apply_fetched(slot, entries),
                    RaftEffect::NeedsSnapshot { peer, .. } => self.needs_snapshot(now, slot, peer),
                    RaftEffect::WantsSnapshot { leader } => self.wants_snapshot(slot, leader),
                }
            }
            let replica = &self.replicas[slot];
            next = match replica.applied > replica.raft.applied() {
                true => Some(RaftEvent::Applied(replica.applied)),
                false => self.quarantine.take(slot).then_some(RaftEvent::Unreadable),
            };
        }
        self.raft_effects = effects;
        let raft = &self.replicas[slot].raft;
        self.memory.changed(held, raft.window_bytes());
        self.log_space.uncommitted_changed(uncommitted, raft.uncommitted_bytes());
        self.review_residents(slot);
        self.review_orders(slot);
        self.attach(now, slot);
        if !self.config.mutated(CoreMutation::NeverMakeWay) {
            self.replicas[slot].await_commit(now, self.config.support_timeout * STUCK_SUPPORT_TIMEOUTS);
        }
        while let Some((slot, peer)) = self.unreachable.pop() {
            self.step_replica(now, slot, RaftEvent::PeerDown(peer));
        }
        self.timers.arm(slot, self.replicas[slot].deadline());
    }

    /// A peer said what contradicts a law. It changed nothing; its link is dropped at the end of the turn, so that the
    /// shell says so where a person reads it.
    fn contradicted(&mut self, slot: Slot, from: ReplicaId, law: Law) {
        let replica = &self.replicas[slot];
        if let Some(node) = replica.node_of(from) {
            let group = replica.descriptor.group;
            self.contradictions.push((node, format!("{from} of {group} contradicts a law: {law}")));
        }
    }

    fn write(&mut self, slot: Slot, write: Write) {
        self.counters.log_writes += 1;
        self.counters.log_entries += write.entries.len() as u64;
        self.written.push((slot, write.number));
        self.writes.push((self.replicas[slot].descriptor.group, write));
    }

    /// Law 13: what became durable is a write's number. One append holds writes of many groups.
    fn durable(&mut self, now: Time, number: CoreWriteNumber) {
        while self.awaiting_durable.front().is_some_and(|append| append.number <= number) {
            let Undurable { writes, removals, .. } =
                self.awaiting_durable.pop_front().expect("law: a queue with a front has one to pop");
            let removals = removals.into_iter();
            self.store.orders.extend(removals.map(|(group, replica)| StoreOrder::Remove { group, replica }));
            for (slot, write) in writes {
                self.step_replica(now, slot, RaftEvent::Durable(write));
            }
        }
    }

    /// When the oldest append that is not durable was handed out.
    pub(crate) fn oldest_append(&self) -> Option<Time> {
        self.awaiting_durable.front().map(|append| append.since)
    }

    fn expire(&mut self, now: Time) {
        for _ in 0..TIMERS_PER_TURN {
            let Some(slot) = self.timers.expire(now) else { break };
            self.expire_requests(now, slot);
            self.expire_orders(now, slot);
            if self.replicas[slot].is_stuck(now) {
                self.give_up(now, &[slot]);
            }
            let raft = &self.replicas[slot].raft;
            if raft.deadline().is_some_and(|deadline| deadline <= now) {
                self.ask_whether_gone(slot);
                let may_not = self.is_stalled() || self.is_bound(now, slot) || !self.is_registered();
                let put_off = self.replicas[slot].raft.role() != Role::Leader && may_not;
                self.step_replica(now, slot, if put_off { RaftEvent::Postpone } else { RaftEvent::Timer });
            } else {
                self.timers.arm(slot, self.replicas[slot].deadline());
            }
        }
        self.expire_liveness(now);
        self.review_snapshots(now);
    }

    /// Takes a slot out of the writes on their way.
    pub(crate) fn forget_writes(&mut self, slot: Slot) {
        self.written.retain(|(other, _)| *other != slot);
        for append in &mut self.awaiting_durable {
            append.writes.retain(|(other, _)| *other != slot);
        }
    }

    fn end_turn(&mut self, now: Time, effects: &mut Effects) {
        self.review_stall(now);
        self.make_promises(now);
        self.recall_commits(now);
        self.continue_applying(now);
        self.propose_gathered(now);
        self.serve_fresh_reads(now);
        self.start_read_round(now);
        self.start_index_questions(now);
        self.answer_servable_reads();
        self.shed(now);
        self.destroy_doomed(now);
        self.ask_for_cures(now);
        self.start_checkpoints(now);
        self.compact_early(now);
        self.report_bytes = 0;
        self.log_space.end_turn();
        effects.fetches.append(&mut self.fetches);
        effects.store.append(&mut self.store.orders);
        effects.refused_peers.append(&mut self.contradictions);
        effects.parked.append(&mut self.quarantine.parked);
        effects.trace.append(&mut self.trace);
        if !self.writes.is_empty() {
            let number = self.next_write;
            self.next_write = CoreWriteNumber(number.0 + 1);
            let writes = std::mem::take(&mut self.written);
            let removals = std::mem::take(&mut self.removals);
            self.awaiting_durable.push_back(Undurable { number, since: now, writes, removals });
            effects.append = Some(CoreWrite { number, writes: std::mem::take(&mut self.writes) });
        }
        self.hand_out_ledger(effects);
        self.pack_peer_frames(now, effects);
        let replies = std::mem::take(&mut self.replies);
        self.replies = self.pack_replies(replies, effects);
    }
}

/// A replica as its log and its store left it: a follower that has applied what its checkpoint holds. Its configuration is
/// a copy of that of its `neighbour` if it is the same, as it mostly is, because copies share their memory.
fn restore(config: &CoreConfig, group: GroupState, neighbour: &Configuration, now: Time) -> Replica {
    let GroupState {
        descriptor,
        hard_state,
        compacted,
        older,
        configurations,
        entries,
        lost,
        vote_lost,
        checkpoint,
        ..
    } = group;
    let me = descriptor.replica_on(config.node).expect("law: a log holds groups of its own node only");
    let founders = Configuration::of_voters(descriptor.members.iter().copied());
    let founders = founders.expect("law: a descriptor names each replica and each node once");
    // A checkpoint that does not reach to what the log has given up is none.
    let checkpoint = checkpoint.filter(|checkpoint| checkpoint.meta.last.index >= compacted.index);
    let members = checkpoint.as_ref().map(|checkpoint| Configuration::decode(&checkpoint.meta.configuration));
    let members =
        members.map_or(founders, |members| members.expect("law: a checkpoint names members that can be read"));
    let members = if members == *neighbour { neighbour.clone() } else { members };
    let descriptor = checkpoint.as_ref().map_or(descriptor, |checkpoint| checkpoint.meta.descriptor.clone());
    let restored = Restored {
        hard_state,
        compacted,
        older,
        configurations,
        entries,
        members: members.clone(),
        lost,
        vote_lost,
        checkpoint: checkpoint.as_ref().map(|checkpoint| checkpoint.meta.last),
        stateless: checkpoint.is_none() && compacted.index.0 > 0,
        creation: None,
    };
    let seed = raft_seed(config, descriptor.group);
    let raft = Raft::new(config.raft.clone(), me, restored, seed, now);
    let mut replica = replica_of(descriptor, members, raft, config.sessions, now);
    if let Some(Checkpoint { meta, chunks, digest, machine, sessions }) = checkpoint {
        replica.machine = machine;
        replica.sessions = sessions.limited(config.sessions);
        replica.present = Some(Box::new(Present { meta, chunks, digest }));
    }
    replica
}

/// Groups and nodes must draw different timeouts from one seed; odd multipliers keep them apart.
pub(crate) fn raft_seed(config: &CoreConfig, group: GroupId) -> u64 {
    config.seed
        ^ group.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ config.node.0.wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ config.incarnation.0.wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// A replica around its Raft state, with an empty machine.
pub(crate) fn replica_of(
    descriptor: Descriptor,
    configuration: Configuration,
    raft: Raft,
    limits: SessionLimits,
    now: Time,
) -> Replica {
    let mut replica = Replica {
        residents: descriptor.members.clone(),
        residents_version: 0,
        configuration,
        descriptor,
        me: raft.me(),
        applied: raft.applied(),
        raft,
        machine: Kv::default(),
        sessions: Sessions::new(limits),
        in_flight: BTreeMap::new(),
        log_bytes: 0,
        present: None,
        staging: None,
        loading: None,
        waiters: VecDeque::new(),
        unapplied_reads: Vec::new(),
        confirmed: None,
        proposals: Vec::new(),
        proposal_bytes: 0,
        orders: Vec::new(),
        attached: None,
        awaited: None,
        leads: None,
        leadership: 0,
        leads_since: now,
    };
    replica.renew_residents();
    replica
}
