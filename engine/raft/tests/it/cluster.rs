//! A cluster of replicas without a shell: messages wait in a list, writes wait in a queue, and time moves when told.
//! Scripts and random schedules both drive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use pontoon_raft::{Config, Effect, Event, Raft, Role, quorum};
use pontoon_types::{Body, Entry, Index, Message, ReplicaId, Time, Write, WriteNumber};

use crate::checker::{Checker, Disk};

/// One replica, its disk, and the writes on their way there.
pub struct Node {
    pub raft: Option<Raft>,
    pub disk: Disk,
    pub writes: VecDeque<Write>,
    /// Its writes complete only when told one by one.
    pub slow: bool,
    starts: u64,
}

pub struct Cluster {
    pub now: Time,
    pub config: Config,
    pub nodes: BTreeMap<ReplicaId, Node>,
    /// Messages under way, in the order of sending.
    pub queue: Vec<Message>,
    /// Directions in which messages are lost.
    pub cut: BTreeSet<(ReplicaId, ReplicaId)>,
    pub checker: Checker,
    pub trace: String,
    /// Wrong peers are part of the story: what is refused is printed and no violation.
    pub tolerant: bool,
    /// Disks are damaged without regard for whether the group can come back.
    pub merciless: bool,
    seed: u64,
}

impl Cluster {
    /// Starts replicas 1 to `count`, with what `disks` holds for them.
    pub fn new(config: Config, count: u64, seed: u64, mut disks: BTreeMap<ReplicaId, Disk>) -> Cluster {
        let ids = (1..=count).map(ReplicaId);
        let nodes = ids.map(|id| {
            let disk = disks.remove(&id).unwrap_or_default();
            (id, Node { raft: None, disk, writes: VecDeque::new(), slow: false, starts: 0 })
        });
        let mut cluster = Cluster {
            now: Time(0),
            config,
            nodes: nodes.collect(),
            queue: Vec::new(),
            cut: BTreeSet::new(),
            checker: Checker::default(),
            trace: String::new(),
            tolerant: false,
            merciless: false,
            seed,
        };
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster
    }

    pub fn ids(&self) -> Vec<ReplicaId> {
        self.nodes.keys().copied().collect()
    }

    pub fn raft(&self, id: ReplicaId) -> &Raft {
        self.nodes[&id].raft.as_ref().expect("the replica runs")
    }

    pub fn node(&mut self, id: ReplicaId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the replica exists")
    }

    pub fn running(&self) -> impl Iterator<Item = &Raft> {
        self.nodes.values().filter_map(|node| node.raft.as_ref())
    }

    /// The replicas that believe to lead.
    pub fn leaders(&self) -> Vec<ReplicaId> {
        self.running().filter(|raft| raft.role() == Role::Leader).map(Raft::me).collect()
    }

    pub fn start(&mut self, id: ReplicaId) {
        if self.nodes[&id].disk.vote_lost {
            // A connection ends with its process, so the new one hears nothing that was sent to the old one. Only what
            // a lost vote asks of the others depends on that.
            self.queue.retain(|message| message.to != id);
        }
        let (config, voters, now) = (self.config.clone(), self.ids(), self.now);
        let base = self.seed;
        let node = self.node(id);
        node.starts += 1;
        let seed = base + id.0 * 1000 + node.starts;
        let restored = node.disk.restored();
        node.raft = Some(Raft::new(config, id, voters, restored, seed, now));
        self.checker.on_step(self.nodes[&id].raft.as_ref().expect("just made"));
    }

    /// Stops a replica. Of its writes under way the first `kept` reach the disk all the same.
    pub fn crash(&mut self, id: ReplicaId, kept: usize) {
        let node = self.node(id);
        node.raft = None;
        let writes = std::mem::take(&mut node.writes);
        for write in writes.into_iter().take(kept) {
            node.disk.apply(write);
        }
    }

    /// Steps one replica, if it runs, and carries out its effects.
    pub fn step(&mut self, id: ReplicaId, event: Event) {
        let now = self.now;
        let Some(raft) = self.node(id).raft.as_mut() else { return };
        let mut effects = Vec::new();
        raft.step(now, event, &mut effects);
        for effect in effects {
            self.carry_out(id, effect);
        }
        let raft = self.raft(id);
        for other in self.running().filter(|other| other.me() != id) {
            Checker::check_pair(raft, other);
        }
        let raft = self.nodes[&id].raft.as_ref().expect("it has just stepped");
        self.checker.on_step(raft);
    }

    fn carry_out(&mut self, id: ReplicaId, effect: Effect) {
        match effect {
            Effect::Append(write) => {
                self.print(format_args!("  {id} write {}", format_write(&write)));
                self.node(id).writes.push_back(write);
            }
            Effect::Send(message) => {
                let node = &self.nodes[&id];
                self.checker.on_send(&message, node.raft.as_ref().expect("it has just stepped"), &node.disk);
                let lost = self.cut.contains(&(message.from, message.to));
                let mark = if lost { " (lost)" } else { "" };
                self.print(format_args!("  {}{mark}", format_message(&message)));
                if !lost {
                    self.queue.push(message);
                }
            }
            Effect::Refused { from, law } => {
                assert!(self.tolerant, "{id} refuses what {from} says: {law}");
                self.print(format_args!("  {id} refuses what {from} says: {law}"));
            }
            Effect::Committed(index) => self.print(format_args!("  {id} committed {index}")),
            Effect::Role { role, term, leader } => {
                let leader = leader.map_or("nobody".into(), |leader| leader.to_string());
                match role {
                    Role::Follower => self.print(format_args!("  {id} is follower of {leader} in term {term}")),
                    _ => self.print(format_args!("  {id} is {role} in term {term}")),
                }
            }
        }
    }

    /// Delivers the message at this place of the queue.
    pub fn deliver(&mut self, place: usize) {
        let message = self.queue.remove(place);
        self.receive(message);
    }

    /// Delivers a message that is in no queue: a copy, or one kept back.
    pub fn receive(&mut self, message: Message) {
        let running = if self.nodes[&message.to].raft.is_some() { "" } else { " (is down)" };
        self.print(format_args!("{} gets {} from {}{running}", message.to, body_name(&message.body), message.from));
        self.step(message.to, Event::Receive(message));
    }

    /// The first `count` writes under way of a replica are durable.
    pub fn durable(&mut self, id: ReplicaId, count: usize) {
        let node = self.node(id);
        let writes: Vec<Write> = node.writes.drain(..count.min(node.writes.len())).collect();
        let Some(number) = writes.last().map(|write| write.number) else { return };
        for write in writes {
            node.disk.apply(write);
        }
        self.print(format_args!("{id} durable {number}"));
        self.step(id, Event::Durable(number));
        if self.nodes[&id].writes.is_empty() {
            self.check_settled(id);
        }
    }

    fn check_settled(&self, id: ReplicaId) {
        let (raft, disk) = (self.raft(id), &self.nodes[&id].disk);
        let shown = disk.restored();
        assert_eq!(raft.entries(Index(1), Index(u64::MAX)), shown.entries, "without writes under way disk = log");
        assert_eq!(raft.missing().collect::<Vec<_>>(), shown.lost, "without writes under way what is lost is missing");
        let intact = shown.lost.first().map_or(raft.last().index, |lost| lost.previous());
        assert_eq!(raft.durable(), intact, "without writes under way the log is durable");
    }

    /// Whether this replica's disk may be damaged, and those of a quorum stay whole: then the group must come back.
    pub fn may_damage(&self, id: ReplicaId) -> bool {
        let damaged = self.nodes.iter().filter(|(other, node)| **other != id && node.disk.is_damaged()).count();
        damaged + 1 + quorum(self.nodes.len()) <= self.nodes.len()
    }

    /// The writes under way up to and including `number`.
    pub fn writes_through(&self, id: ReplicaId, number: WriteNumber) -> usize {
        self.nodes[&id].writes.iter().filter(|write| write.number <= number).count()
    }

    /// Delivers messages and completes writes until nothing is under way. Time does not move.
    pub fn stabilize(&mut self) {
        for _ in 0..100_000 {
            if !self.queue.is_empty() {
                self.deliver(0);
                continue;
            }
            let ready =
                self.nodes.iter().find(|(_, node)| !node.slow && node.raft.is_some() && !node.writes.is_empty());
            match ready.map(|(id, node)| (*id, node.writes.len())) {
                Some((id, count)) => self.durable(id, count),
                None => return,
            }
        }
        panic!("the cluster does not become quiet");
    }

    /// The replica whose deadline comes first.
    pub fn next_deadline(&self) -> Option<(Time, ReplicaId)> {
        self.running().filter_map(|raft| Some((raft.deadline()?, raft.me()))).min()
    }

    /// Moves time to the first deadline, if it lies at or before `until`, and fires that timer.
    pub fn fire_next(&mut self, until: Time) -> bool {
        let Some((deadline, id)) = self.next_deadline().filter(|(deadline, _)| *deadline <= until) else {
            return false;
        };
        self.now = self.now.max(deadline);
        let now = self.now;
        self.print(format_args!("{id} timer at {now}"));
        self.step(id, Event::Timer);
        true
    }

    /// Moves time by `span` and fires every timer on the way. With `deliver`, messages and disks take no time.
    pub fn advance(&mut self, span: Duration, deliver: bool) {
        let until = self.now + span;
        while self.fire_next(until) {
            if deliver {
                self.stabilize();
            }
        }
        self.now = until;
    }

    pub fn print(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.trace, "{line}").expect("a string takes any text");
    }
}

pub fn body_name(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteResponse { .. } => "PreVoteResponse",
        Body::Vote { .. } => "Vote",
        Body::VoteResponse { .. } => "VoteResponse",
        Body::Append { .. } => "Append",
        Body::AppendResponse { .. } => "AppendResponse",
        Body::AppendRefused { .. } => "AppendRefused",
    }
}

pub fn format_message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let name = body_name(body);
    let head = format!("{from}→{to} {name} term={term}");
    match body {
        Body::PreVote { last } | Body::Vote { last } => format!("{head} last={last}"),
        Body::PreVoteResponse { granted } | Body::VoteResponse { granted } => {
            format!("{head} {}", if *granted { "granted" } else { "refused" })
        }
        Body::Append { previous, entries, commit } => {
            format!("{head} previous={previous} {} commit={commit}", format_entries(entries))
        }
        Body::AppendResponse { matched } => format!("{head} matched={matched}"),
        Body::AppendRefused { refused, hint } => format!("{head} refused={refused} hint={hint}"),
    }
}

fn format_write(write: &Write) -> String {
    let mut line = write.number.to_string();
    if let Some(hard_state) = write.hard_state {
        let vote = hard_state.vote.map_or("none".into(), |vote| vote.to_string());
        write!(line, " term={} vote={vote}", hard_state.term).expect("a string takes any text");
    }
    if let Some(from) = write.truncate_from {
        write!(line, " truncate={from}").expect("a string takes any text");
    }
    if !write.entries.is_empty() {
        write!(line, " {}", format_entries(&write.entries)).expect("a string takes any text");
    }
    if !write.restored.is_empty() {
        write!(line, " restored={}", format_entries(&write.restored)).expect("a string takes any text");
    }
    line
}

fn format_entries(entries: &[Entry]) -> String {
    let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
    format!("[{}]", ids.join(" "))
}
