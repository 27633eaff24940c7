//! A cluster of replicas without a shell: messages wait in a list, writes wait in a queue, and time moves when told.
//! Scripts and random schedules both drive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use pontoon_raft::membership::Configuration;
use pontoon_raft::{Config, Effect, Event, Fetch, Raft, Reader, Role, Unfetched, quorum};
use pontoon_types::{Body, Entry, EntryKind, Index, Message, ReplicaId, Time, Write, WriteNumber};

use crate::checker::{Checker, Disk};
use crate::membership::member;

/// One replica, its disk, and the writes on their way there.
pub struct Node {
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// What the disk will be when all writes under way are on it.
    pub written: Disk,
    /// What was asked for from the log and not answered yet.
    pub fetches: BTreeMap<Reader, Fetch>,
    /// How far its machine has applied.
    pub applied: Index,
    /// Its log answers only when told.
    pub cold: bool,
    /// Its machine applies only when told.
    pub lazy: bool,
    pub writes: VecDeque<Write>,
    /// Its writes complete only when told one by one.
    pub slow: bool,
    starts: u64,
}

impl Node {
    fn new(disk: Disk) -> Node {
        Node {
            raft: None,
            written: disk.clone(),
            disk,
            fetches: BTreeMap::new(),
            applied: Index(0),
            cold: false,
            lazy: false,
            writes: VecDeque::new(),
            slow: false,
            starts: 0,
        }
    }
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
    /// The members in the beginning. The other replicas wait to be added.
    pub founders: Configuration,
    /// Replicas that the group has no use for: their timers do not matter.
    pub dormant: BTreeSet<ReplicaId>,
    /// Disks are damaged without regard for whether the group can come back.
    pub merciless: bool,
    /// How many of the newest entries a start brings into memory.
    pub restored_entries: usize,
    seed: u64,
}

impl Cluster {
    /// Starts replicas 1 to `count`, with what `disks` holds for them.
    pub fn new(config: Config, count: u64, seed: u64, disks: BTreeMap<ReplicaId, Disk>) -> Cluster {
        Cluster::with_spares(config, count, count, seed, disks)
    }

    /// The same, of which the first `founders` are the group and the others wait to be added.
    pub fn with_spares(
        config: Config,
        count: u64,
        founders: u64,
        seed: u64,
        mut disks: BTreeMap<ReplicaId, Disk>,
    ) -> Cluster {
        let ids = (1..=count).map(ReplicaId);
        let nodes = ids.map(|id| {
            let disk = disks.remove(&id).unwrap_or_default();
            (id, Node::new(disk))
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
            founders: Configuration::of_voters((1..=founders).map(member)).expect("the founders are a group"),
            dormant: BTreeSet::new(),
            merciless: false,
            restored_entries: usize::MAX,
            seed,
        };
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster
    }

    /// The same, where a start brings only so many entries into memory.
    pub fn with_restored_entries(mut self, restored_entries: usize) -> Cluster {
        self.restored_entries = restored_entries;
        for id in self.ids() {
            self.crash(id, 0);
            self.start(id);
        }
        self
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
        let (config, founders, now) = (self.config.clone(), self.founders.clone(), self.now);
        let (base, window) = (self.seed, self.restored_entries);
        let node = self.node(id);
        node.starts += 1;
        let seed = base + id.0 * 1000 + node.starts;
        node.disk.unseen.clear();
        let restored = node.disk.restored(window, &founders);
        node.written = node.disk.recovered();
        node.applied = node.written.compacted.index;
        node.raft = Some(Raft::new(config, id, restored, seed, now));
        // What the checkpoint changes in the log is written with the first step.
        self.step(id, Event::Timer);
    }

    /// Stops a replica. Of its writes under way the first `kept` reach the disk all the same.
    pub fn crash(&mut self, id: ReplicaId, kept: usize) {
        let node = self.node(id);
        node.raft = None;
        node.fetches.clear();
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
        for (_, other) in self.nodes.iter().filter(|(other, node)| **other != id && node.raft.is_some()) {
            Checker::check_pair(&self.nodes[&id].written.entries, &other.written.entries);
        }
        let node = &self.nodes[&id];
        self.checker.on_step(node.raft.as_ref().expect("it has just stepped"), &node.written.entries, &self.founders);
        if !node.lazy {
            self.apply(id, Index(u64::MAX));
        }
    }

    /// Lets the machine of a replica apply what it finds in memory, up to an index, and say so.
    pub fn apply(&mut self, id: ReplicaId, through: Index) {
        let node = self.node(id);
        let Some(raft) = &node.raft else { return };
        let entries: Vec<Entry> = raft.entries(node.applied.next(), raft.committed().min(through)).cloned().collect();
        let told = raft.applied();
        self.applies(id, &entries);
        let applied = self.nodes[&id].applied;
        if applied > told {
            self.step(id, Event::Applied(applied));
        }
    }

    fn applies(&mut self, id: ReplicaId, entries: &[Entry]) {
        self.checker.on_apply(entries);
        for entry in entries {
            assert_eq!(entry.id.index, self.nodes[&id].applied.next(), "entries are applied in order");
            self.node(id).applied = entry.id.index;
        }
    }

    /// The log of a replica answers what a reader asked for.
    pub fn serve(&mut self, id: ReplicaId, reader: Reader) {
        let Some(fetch) = self.node(id).fetches.remove(&reader) else { return };
        let result = self.node(id).disk.fetch(&fetch);
        let what = match &result {
            Ok(entries) => format_entries(entries),
            Err(why) => why.to_string(),
        };
        self.print(format_args!("{id} fetched {} {what}", fetch.number));
        let rotten = result.as_ref().err().copied();
        self.step(id, Event::Fetched { number: fetch.number, result });
        if let Some(Unfetched::Rotten(index)) = rotten
            && !self.raft(id).missing().any(|missing| missing == index)
        {
            // Nobody waited for the answer any more, so the next one comes upon it.
            self.node(id).disk.unseen.insert(index);
        }
    }

    /// Somebody who waits for a log that answers.
    fn next_fetch(&self) -> Option<(ReplicaId, Reader)> {
        let waits = |(id, node): (&ReplicaId, &Node)| {
            let reader = node.fetches.keys().next().filter(|_| !node.cold)?;
            Some((*id, *reader))
        };
        self.nodes.iter().find_map(waits)
    }

    fn carry_out(&mut self, id: ReplicaId, effect: Effect) {
        match effect {
            Effect::Append(write) => {
                self.print(format_args!("  {id} write {}", format_write(&write)));
                self.node(id).written.apply((*write).clone());
                self.node(id).writes.push_back(*write);
            }
            Effect::Send(message) => {
                let node = &self.nodes[&id];
                self.checker.on_send(&message, &node.written.entries, &node.disk);
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
            Effect::Fetch(fetch) => {
                let Fetch { reader, number, from, through, .. } = fetch;
                let reader_name = match reader {
                    Reader::Machine => "its machine".to_string(),
                    Reader::Peer(peer) => peer.to_string(),
                };
                self.print(format_args!("  {id} fetch {number} for {reader_name} [{from}..{through}]"));
                self.node(id).fetches.insert(reader, fetch);
            }
            Effect::Apply(entries) => {
                self.print(format_args!("  {id} applies {}", format_entries(&entries)));
                self.applies(id, &entries);
            }
            Effect::NeedsSnapshot { peer, compacted } => {
                self.print(format_args!("  {id}: {peer} needs a snapshot up to {compacted}"));
            }
            Effect::WantsSnapshot { leader } => self.print(format_args!("  {id} wants a snapshot of {leader}")),
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
        assert_eq!(self.nodes[&id].written.entries, disk.entries, "without writes under way disk = log");
        let lost = disk.seen();
        assert_eq!(raft.missing().collect::<BTreeSet<_>>(), lost, "without writes under way what is lost is missing");
        let intact = lost.first().map_or(raft.last().index, |lost| lost.previous());
        assert_eq!(raft.durable(), intact, "without writes under way the log is durable");
    }

    /// Whether this replica's disk may be damaged, and those of a quorum stay whole: then the group must come back.
    pub fn may_damage(&self, id: ReplicaId) -> bool {
        if self.founders.members().len() < self.nodes.len() {
            return false;
        }
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
            match (ready.map(|(id, node)| (*id, node.writes.len())), self.next_fetch()) {
                (Some((id, count)), _) => self.durable(id, count),
                (None, Some((id, reader))) => self.serve(id, reader),
                (None, None) => return,
            }
        }
        panic!("the cluster does not become quiet");
    }

    /// The replica whose deadline comes first.
    pub fn next_deadline(&self) -> Option<(Time, ReplicaId)> {
        let awake = self.running().filter(|raft| !self.dormant.contains(&raft.me()));
        awake.filter_map(|raft| Some((raft.deadline()?, raft.me()))).min()
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
        Body::TimeoutNow => "TimeoutNow",
    }
}

pub fn format_message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let name = body_name(body);
    let head = format!("{from}→{to} {name} term={term}");
    match body {
        Body::PreVote { last } | Body::Vote { last, permit: None } => format!("{head} last={last}"),
        Body::Vote { last, permit: Some(permit) } => {
            format!("{head} last={last} permit={}@{}", permit.leader, permit.term)
        }
        Body::TimeoutNow => head,
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
    if let Some(compaction) = write.compact {
        let verb = if compaction.reset { "reset" } else { "compact" };
        write!(line, " {verb}={}", compaction.to).expect("a string takes any text");
    }
    line
}

fn format_entries(entries: &[Entry]) -> String {
    let ids: Vec<String> = entries.iter().map(format_entry).collect();
    format!("[{}]", ids.join(" "))
}

fn format_entry(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Command => entry.id.to_string(),
        EntryKind::Configuration => format!("{}{}", entry.id, members_in(entry)),
    }
}

/// The configuration that an entry holds.
pub fn members_in(entry: &Entry) -> String {
    match Configuration::decode(&entry.payload) {
        Ok(configuration) => format!("({configuration})"),
        Err(_) => "(?)".into(),
    }
}
