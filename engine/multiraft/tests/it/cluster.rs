//! Three cores, wired back to back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{
    Checkpoint, ConnectionId, Core, CoreConfig, Effects, Event, Fetch, GroupState, GroupView, Ledger, OrderRefused,
    Role,
};
use pontoon_router::initial_descriptors;
use pontoon_types::{
    ClientId, ClusterId, CoreId, CoreWriteNumber, Descriptor, GroupId, HardState, Incarnation, LogId, LogMark, NodeId,
    ReplicaId, RequestId, SessionId, SessionTime, Time, Write,
};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, Refusal, Reply, ReplyFrame, Request, RequestFrame};
use pontoon_wire::command::{Command, KvOperation};
use pontoon_wire::peer::PeerFrame;

use crate::shelf::Shelf;

pub const CLIENT: ConnectionId = ConnectionId(7);

pub struct Cluster {
    pub now: Time,
    pub cores: BTreeMap<NodeId, Core>,
    configs: BTreeMap<NodeId, CoreConfig>,
    pub descriptors: Vec<Descriptor>,
    /// Directions that lose every frame, silently.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose syncs do not end.
    pub held: BTreeSet<NodeId>,
    pub unsynced: BTreeMap<NodeId, CoreWriteNumber>,
    pub replies: BTreeMap<NodeId, Vec<Reply>>,
    pub closed: Vec<(ConnectionId, String)>,
    pub refused_peers: Vec<(NodeId, String)>,
    pub refused_orders: Vec<(GroupId, OrderRefused)>,
    /// What logs were asked for. Nobody answers but a test.
    pub fetches: Vec<(NodeId, GroupId, Fetch)>,
    /// Groups that met what they cannot read.
    pub parked: Vec<(NodeId, GroupId, LogId)>,
    /// Frames sent since the last reset, by (from, to).
    pub frames: BTreeMap<(NodeId, NodeId), usize>,
    pub appends: BTreeMap<NodeId, usize>,
    /// Writes with restored payloads, by node.
    pub restoring: Vec<(NodeId, Write)>,
    wire: VecDeque<(NodeId, NodeId, Bytes)>,
    pub shelves: BTreeMap<NodeId, Shelf>,
    /// Nodes whose stores do nothing.
    pub shelved: BTreeSet<NodeId>,
    /// All frames that were sent since somebody began to look.
    pub recorded: Option<Vec<(NodeId, NodeId, Bytes)>>,
    /// Destroyed replicas, as the logs keep them.
    pub tombstones: BTreeMap<NodeId, Vec<(GroupId, ReplicaId)>>,
    /// Whether what is said of snapshots is printed.
    pub prints: bool,
    /// How long before the end of a turn its clock is looked at for its events.
    pub sampled_early: BTreeMap<NodeId, Duration>,
    /// How long frames are under way.
    pub delay: BTreeMap<(NodeId, NodeId), Duration>,
    late: VecDeque<(Time, NodeId, NodeId, Bytes)>,
    sequence: u64,
    turns: u64,
    /// What each node has kept of lives, what it is keeping, and who keeps nothing at present.
    pub ledgers: BTreeMap<NodeId, Ledger>,
    ledgers_under_way: BTreeMap<NodeId, (u64, Ledger)>,
    pub ledger_held: BTreeSet<NodeId>,
    /// How far the log of each node is durable.
    pub marks: BTreeMap<NodeId, u64>,
    /// What was said about lives, a line for each registration and verdict that arrived.
    pub lives: Vec<String>,
}

pub fn n(id: u64) -> NodeId {
    NodeId(id)
}

impl Cluster {
    /// `ranges` groups on three nodes, all links up, leaders elected.
    pub fn new(ranges: u32) -> Cluster {
        Cluster::dark(ranges).lit()
    }

    /// All links come up, and leaders are elected.
    pub fn lit(mut self) -> Cluster {
        let cluster = &mut self;
        let nodes: Vec<NodeId> = cluster.cores.keys().copied().collect();
        for from in &nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                cluster.event(*from, Event::PeerUp(*to));
            }
        }
        cluster.run(Duration::from_millis(500));
        self
    }

    /// The same, but node 1 leads everything: the disks of the others do not answer at first.
    pub fn led_by_one(ranges: u32) -> Cluster {
        let mut cluster = Cluster::dark(ranges);
        let stall = |cluster: &mut Cluster, stalled| {
            for node in [n(2), n(3)] {
                cluster.event(node, Event::Stalled(stalled));
            }
        };
        stall(&mut cluster, true);
        let mut cluster = cluster.lit();
        cluster.run(Duration::from_secs(3));
        stall(&mut cluster, false);
        cluster.run(Duration::from_secs(1));
        assert_eq!(cluster.led_by(n(1)).len(), ranges as usize);
        cluster
    }

    /// A node starts again with everything that it had, damaged on the way. Frames under way to it are lost.
    pub fn restart(&mut self, node: NodeId, damage: impl Fn(&mut GroupState)) {
        self.settle();
        let old = self.cores.remove(&node).unwrap();
        self.shelves.entry(node).or_default().stop();
        let of_group = |view: GroupView<'_>| {
            let founded = self.descriptors.iter().find(|descriptor| descriptor.group == view.group()).unwrap();
            let is_founder = founded.replica_on(node) == Some(view.replica());
            state_of(
                (if is_founder { founded } else { view.descriptor() }, view),
                self.shelves[&node].found(view.group(), view.replica()),
            )
        };
        let mut groups: Vec<GroupState> = old.groups().map(of_group).collect();
        groups.iter_mut().for_each(damage);
        self.start_again(node, groups);
    }

    /// A node that is not there starts with these groups.
    pub fn start_again(&mut self, node: NodeId, groups: Vec<GroupState>) {
        let config = self.configs.get_mut(&node).unwrap();
        config.incarnation = Incarnation(config.incarnation.0 + 1);
        config.tombstones = self.tombstones.get(&node).cloned().unwrap_or_default();
        if let Some(past) = &mut config.past {
            past.life += 10;
            past.mark = LogMark(self.marks.get(&node).copied().unwrap_or_default());
            past.ledger = self.ledgers.get(&node).cloned().unwrap_or_default();
        }
        self.ledgers_under_way.remove(&node);
        self.cores.insert(node, Core::new(config.clone(), groups, self.now));
        for other in self.cores.keys().copied().filter(|other| *other != node).collect::<Vec<_>>() {
            self.event(other, Event::PeerDown(node));
            self.event(node, Event::PeerUp(other));
            self.event(other, Event::PeerUp(node));
        }
    }

    /// Changes what a node is told at its next start.
    pub fn change_config(&mut self, node: NodeId, change: impl Fn(&mut CoreConfig)) {
        change(self.configs.get_mut(&node).unwrap());
    }

    /// The same before any link is up.
    pub fn dark(ranges: u32) -> Cluster {
        Cluster::dark_with(ranges, |_| {})
    }

    /// The same with another configuration of each core.
    pub fn dark_with(ranges: u32, change: impl Fn(&mut CoreConfig)) -> Cluster {
        Cluster::with_spares(ranges, 0, change)
    }

    /// The same with nodes more that have no replica.
    pub fn with_spares(ranges: u32, spares: u64, change: impl Fn(&mut CoreConfig)) -> Cluster {
        let founders = [n(1), n(2), n(3)];
        let nodes: Vec<NodeId> = (1..=3 + spares).map(n).collect();
        let descriptors = initial_descriptors(ranges, &founders);
        let now = Time(1_000_000_000);
        let mut configs = BTreeMap::new();
        let cores: BTreeMap<NodeId, Core> = nodes
            .iter()
            .map(|node| {
                let mut config = CoreConfig {
                    nodes: nodes.iter().map(|node| (*node, format!("127.0.0.1:{}", 7400 + node.0))).collect(),
                    descriptors: descriptors.clone(),
                    seed: 11,
                    ..CoreConfig::new(ClusterId(1), *node, CoreId(0), 1)
                };
                change(&mut config);
                configs.insert(*node, config.clone());
                let groups = descriptors
                    .iter()
                    .filter(|descriptor| descriptor.replica_on(*node).is_some())
                    .map(|descriptor| GroupState::new(descriptor.clone(), HardState::default(), Vec::new()));
                (*node, Core::new(config, groups.collect(), now))
            })
            .collect();
        Cluster {
            now,
            cores,
            configs,
            descriptors: descriptors.clone(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            unsynced: BTreeMap::new(),
            replies: BTreeMap::new(),
            closed: Vec::new(),
            refused_peers: Vec::new(),
            refused_orders: Vec::new(),
            fetches: Vec::new(),
            parked: Vec::new(),
            frames: BTreeMap::new(),
            appends: BTreeMap::new(),
            restoring: Vec::new(),
            wire: VecDeque::new(),
            shelves: BTreeMap::new(),
            shelved: BTreeSet::new(),
            recorded: None,
            tombstones: BTreeMap::new(),
            prints: false,
            sampled_early: BTreeMap::new(),
            delay: BTreeMap::new(),
            late: VecDeque::new(),
            sequence: 0,
            turns: 0,
            ledgers: BTreeMap::new(),
            ledgers_under_way: BTreeMap::new(),
            ledger_held: BTreeSet::new(),
            marks: BTreeMap::new(),
            lives: Vec::new(),
        }
    }

    /// One turn with one event.
    pub fn event(&mut self, node: NodeId, event: Event) {
        self.turn(node, vec![event]);
    }

    /// One turn with these events.
    pub fn turn(&mut self, node: NodeId, events: Vec<Event>) {
        let core = self.cores.get_mut(&node).unwrap();
        let mut effects = Effects::default();
        // The check looks at every group, so with many groups only some of the turns are checked.
        self.turns += 1;
        let check = self.descriptors.len() < 1_000 || self.turns.is_multiple_of(1_000);
        let sampled = self.now - self.sampled_early.get(&node).copied().unwrap_or_default();
        for event in events {
            let at = if matches!(event, Event::Timer) { self.now } else { sampled };
            core.step(at, event, &mut effects);
            if check {
                core.groups().for_each(|view| view.check());
            }
        }
        core.step(self.now, Event::EndTurn, &mut effects);
        if check {
            core.groups().for_each(|view| view.check());
        }
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: NodeId, effects: Effects) {
        if let Some(append) = effects.append {
            *self.appends.entry(node).or_default() += 1;
            self.unsynced.insert(node, append.number);
            for (group, write) in &append.writes {
                let dead = write.remove.map(|replica| (*group, replica));
                self.tombstones.entry(node).or_default().extend(dead);
            }
            let restoring = append.writes.into_iter().filter(|(_, write)| !write.restored.is_empty());
            self.restoring.extend(restoring.map(|(_, write)| (node, write)));
        }
        if self.prints {
            effects.store.iter().for_each(|order| println!("  {node} store {}", short(order)));
            for frame in effects.peer_frames.iter().map(|(_, bytes)| PeerFrame::decode(bytes.clone()).unwrap()) {
                frame.snapshots.iter().for_each(|it| println!("  {node}>{} {}", frame.to, short(it)));
            }
        }
        self.shelves.entry(node).or_default().orders.extend(effects.store);
        self.ledgers_under_way.extend(effects.ledger.map(|ledger| (node, ledger)));
        for (to, bytes) in effects.beacons.into_iter().chain(effects.peer_frames) {
            *self.frames.entry((node, to)).or_default() += 1;
            self.recorded.iter_mut().for_each(|recorded| recorded.push((node, to, bytes.clone())));
            match self.delay.get(&(node, to)) {
                _ if self.cut.contains(&(node, to)) => {}
                Some(delay) => self.late.push_back((self.now + *delay, node, to, bytes)),
                None => self.wire.push_back((node, to, bytes)),
            }
        }
        for (connection, bytes) in effects.client_frames {
            assert_eq!(connection, CLIENT);
            self.replies.entry(node).or_default().extend(ReplyFrame::decode(bytes).unwrap().replies);
        }
        self.closed.extend(effects.close);
        self.refused_peers.extend(effects.refused_peers);
        self.refused_orders.extend(effects.refused_orders);
        self.fetches.extend(effects.fetches.into_iter().map(|(group, fetch)| (node, group, fetch)));
        self.parked.extend(effects.parked.into_iter().map(|(group, entry, _)| (node, group, entry)));
    }

    /// Delivers frames and ends syncs until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            while self.late.front().is_some_and(|(at, ..)| *at <= self.now) {
                self.wire.extend(self.late.pop_front().map(|(_, from, to, bytes)| (from, to, bytes)));
            }
            if let Some((from, to, bytes)) = self.wire.pop_front() {
                if self.cores.contains_key(&to) {
                    self.lives.extend(about_lives(from, to, &bytes));
                    self.event(to, Event::PeerFrame { from, bytes });
                }
                continue;
            }
            let busy =
                self.shelves.iter().find(|(node, shelf)| !shelf.orders.is_empty() && !self.shelved.contains(node));
            if let Some(node) = busy.map(|(node, _)| *node) {
                self.store_once(node);
                continue;
            }
            let kept = self.ledgers_under_way.keys().find(|node| !self.ledger_held.contains(node)).copied();
            if let Some(node) = kept {
                let (number, ledger) = self.ledgers_under_way.remove(&node).unwrap();
                self.ledgers.insert(node, ledger);
                self.event(node, Event::LedgerKept(number));
                continue;
            }
            let ready = self.unsynced.iter().find(|(node, _)| !self.held.contains(node));
            let Some((node, number)) = ready.map(|(node, number)| (*node, *number)) else { return };
            self.unsynced.remove(&node);
            if self.cores.contains_key(&node) {
                *self.marks.entry(node).or_default() += 1;
                let mark = LogMark(self.marks[&node]);
                self.turn(node, vec![Event::Marked(mark), Event::Durable(number)]);
            }
        }
        panic!("the cluster does not settle");
    }

    /// The store of a node carries out the next order.
    pub fn store_once(&mut self, node: NodeId) {
        let shelf = self.shelves.get_mut(&node).unwrap();
        let order = shelf.orders.remove(0);
        if let Some(answer) = shelf.carry_out(order)
            && self.cores.contains_key(&node)
        {
            self.event(node, Event::Store(answer));
        }
    }

    /// Lets time pass, with every timer on the way.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.settle();
            let next = self.cores.iter_mut().filter_map(|(node, core)| Some((core.deadline()?, *node))).min();
            let arrives = self.late.front().map(|(at, ..)| *at).filter(|at| *at <= end);
            if let Some(at) = arrives.filter(|at| next.is_none_or(|(deadline, _)| *at <= deadline)) {
                self.now = self.now.max(at);
                continue;
            }
            match next {
                Some((deadline, node)) if deadline <= end => {
                    self.now = self.now.max(deadline);
                    self.event(node, Event::Timer);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leads = |core: &Core| core.groups().any(|view| view.group() == group && view.role() == Role::Leader);
        self.cores.iter().find(|(_, core)| leads(core)).map(|(node, _)| *node)
    }

    /// Loses every frame to and from a node, silently.
    pub fn isolate(&mut self, node: NodeId) {
        for other in self.cores.keys().copied().collect::<Vec<_>>() {
            self.cut.insert((node, other));
            self.cut.insert((other, node));
        }
    }

    /// A node that leads something and is not `old`.
    pub fn leader_besides(&self, old: NodeId) -> NodeId {
        let leads = |core: &Core| core.groups().any(|view| view.role() == Role::Leader);
        *self.cores.iter().find(|(node, core)| **node != old && leads(core)).unwrap().0
    }

    /// The ranges that a node leads.
    pub fn led_by(&self, node: NodeId) -> Vec<Descriptor> {
        let led = self.descriptors.iter().filter(|descriptor| self.leader(descriptor.group) == Some(node));
        led.cloned().collect()
    }

    pub fn group_of(&self, key: &str) -> &Descriptor {
        self.descriptors.iter().find(|descriptor| descriptor.range.contains(key.as_bytes())).unwrap()
    }

    /// A client's frame with these operations; returns the sequence of the first.
    pub fn frame(&mut self, operations: Vec<Operation>) -> (u64, Event) {
        let first = self.sequence + 1;
        let mut requests = Vec::new();
        for operation in operations {
            self.sequence += 1;
            requests.push(Request { sequence: self.sequence, operation });
        }
        let mut bytes = Vec::new();
        RequestFrame { requests }.encode(&mut bytes);
        (first, Event::ClientFrame { connection: CLIENT, bytes: Bytes::from(bytes) })
    }

    /// Sends one operation to a node, without letting anything else happen.
    pub fn submit(&mut self, node: NodeId, operation: Operation) -> u64 {
        let (sequence, event) = self.frame(vec![operation]);
        self.event(node, event);
        sequence
    }

    /// Sends one operation to a node and lets everything settle.
    pub fn ask(&mut self, node: NodeId, operation: Operation) -> Result<Outcome, Refusal> {
        let sequence = self.submit(node, operation);
        self.settle();
        self.reply(node, sequence).expect("an answer")
    }

    /// Takes out the reply to a request; there must be at most one.
    pub fn reply(&mut self, node: NodeId, sequence: u64) -> Option<Result<Outcome, Refusal>> {
        let replies = self.replies.entry(node).or_default();
        let mut mine: Vec<Reply> = replies.extract_if(.., |reply| reply.sequence == sequence).collect();
        assert!(mine.len() <= 1, "request {sequence} was answered {} times", mine.len());
        mine.pop().map(|reply| reply.result)
    }

    pub fn put(&self, key: &str, value: &str) -> Operation {
        self.write(key, KvOperation::Put { key: bytes(key), value: bytes(value) })
    }

    pub fn write(&self, key: &str, operation: KvOperation) -> Operation {
        self.write_as(fresh_request(), key, operation)
    }

    /// A write of a client that names its request, and waits for no other.
    pub fn write_as(&self, id: RequestId, key: &str, operation: KvOperation) -> Operation {
        let descriptor = self.group_of(key);
        let command = Command { id, floor: 0, operations: vec![operation] };
        Operation::Write { group: descriptor.group, generation: descriptor.generation, command: command.encode() }
    }

    pub fn get_at(&self, key: &str, level: ReadLevel) -> Operation {
        let descriptor = self.group_of(key);
        Operation::Get { group: descriptor.group, generation: descriptor.generation, key: bytes(key), level }
    }

    pub fn get(&self, key: &str) -> Operation {
        let descriptor = self.group_of(key);
        Operation::Get {
            group: descriptor.group,
            generation: descriptor.generation,
            key: bytes(key),
            level: ReadLevel::Linearizable,
        }
    }
}

fn about_lives(from: NodeId, to: NodeId, bytes: &Bytes) -> Vec<String> {
    let Some(beacon) = PeerFrame::decode(bytes.clone()).unwrap().beacon else { return Vec::new() };
    let registers = beacon.registration.map(|it| format!("{from} registers life {} at {} with {to}", it.life, it.mark));
    let verdict = beacon.verdict.map(|it| {
        let verb = if it.accepted { "accepts" } else { "refuses" };
        format!("{from} {verb} life {} of {to}, as {}", it.life, it.incarnation)
    });
    registers.into_iter().chain(verdict).collect()
}

/// What a core has of a group, in the order of the descriptors.
fn state_of((descriptor, view): (&Descriptor, GroupView<'_>), checkpoint: Option<Checkpoint>) -> GroupState {
    let hard_state = HardState { term: view.term(), vote: view.vote() };
    let (compacted, last) = (view.compacted(), view.last().index);
    let entries = view.entries(compacted.index.next(), last).cloned().collect();
    GroupState { compacted, checkpoint, ..GroupState::new(descriptor.clone(), hard_state, entries) }
}

/// The beginning of what something looks like.
fn short(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(150).collect()
}

/// A request that is like no other of this process.
pub fn fresh_request() -> RequestId {
    static SEQUENCE: AtomicU64 = AtomicU64::new(1);
    request(9, 0, SEQUENCE.fetch_add(1, Ordering::Relaxed))
}

pub fn request(client: u128, opened: u64, sequence: u64) -> RequestId {
    RequestId { session: SessionId { client: ClientId(client), opened: SessionTime(opened) }, sequence }
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
