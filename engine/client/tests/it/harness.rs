//! Drives a session by hand and prints what comes out, one line for each event and effect.
//!
//! A connection prints as `n1`, an attempt by the order of its first appearance: `a1`, `a2`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use pontoon_client::routing::RoutingCache;
use pontoon_client::session::{Effects, Event, LinkId, Session, SessionOptions};
use pontoon_client::{Completion, OperationOutcome, ReadLevel, Request, Response, Routes, Ticket};
use pontoon_types::{
    ClientId, CoreId, Descriptor, Generation, GroupId, KeyRange, Member, NodeId, ReplicaId, SessionTime, Time,
};
use pontoon_wire::client::{Operation, Outcome, Refusal, Reply, ReplyFrame};
use pontoon_wire::command::Command;
use pontoon_wire::order::Order;

/// How long a request may take in these tests.
pub const TIMEOUT: Duration = Duration::from_millis(500);

/// How long an attempt may take.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);

pub struct Harness {
    pub session: Session,
    pub now: Time,
    pub trace: String,
    pub done: Vec<Completion>,
    pub opened: Vec<LinkId>,
    pub closed: Vec<LinkId>,
    /// Every attempt that was sent, in order: connection, number on the wire, what travelled.
    pub sent: Vec<(LinkId, u64, Operation)>,
    tickets: u64,
}

impl Harness {
    /// Two ranges, cut at `m`, on nodes 1 to 3. Group 2 is led by node 1, group 3 by node 2.
    pub fn new() -> Harness {
        let routes = routes(vec![(descriptor(2, "", Some("m"), 1), 1), (descriptor(3, "m", None, 1), 2)]);
        let options = SessionOptions {
            client: ClientId(7),
            timeout: TIMEOUT,
            attempt_timeout: ATTEMPT_TIMEOUT,
            connect_timeout: Duration::from_millis(200),
            lanes: 1,
            inflight_max: 8,
        };
        Harness {
            session: Session::new(options, RoutingCache::new(routes).unwrap()),
            now: Time(0),
            trace: String::new(),
            done: Vec::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            sent: Vec::new(),
            tickets: 0,
        }
    }

    /// A harness whose three connections are welcomed already.
    pub fn connected() -> Harness {
        let mut harness = Harness::new();
        for node in 1..=3 {
            harness.submit(Request::Status { node: NodeId(node), core: CoreId(0) });
            harness.up(node);
            let status = pontoon_client::CoreStatus { node: NodeId(node), ..Default::default() };
            harness.reply(node as usize, Ok(Outcome::Status(status)));
        }
        harness.trace.clear();
        harness.done.clear();
        harness.tickets = 0;
        harness
    }

    pub fn submit(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.line(format!("submit t{}", ticket.0));
        self.step(Event::Submit { ticket, request });
        ticket
    }

    pub fn up(&mut self, node: u64) {
        self.line(format!("up n{node}"));
        self.step(Event::LinkUp(link(node)));
    }

    pub fn down(&mut self, node: u64) {
        self.line(format!("down n{node}"));
        self.step(Event::LinkDown(link(node), "reset".to_string()));
    }

    /// Answers the attempt with this number, counted from one.
    pub fn reply(&mut self, attempt: usize, result: Result<Outcome, Refusal>) {
        let (link, sequence, _) = self.sent[attempt - 1].clone();
        self.reply_on(link, sequence, attempt, result);
    }

    pub fn reply_on(&mut self, link: LinkId, sequence: u64, attempt: usize, result: Result<Outcome, Refusal>) {
        self.line(format!("reply a{attempt} {}", describe(&result)));
        self.step(Event::Receive(link, ReplyFrame { replies: vec![Reply { sequence, result }] }));
    }

    pub fn pass(&mut self, milliseconds: u64) {
        self.now = self.now + Duration::from_millis(milliseconds);
        self.line(format!("pass {milliseconds}ms"));
        self.step(Event::Timer);
    }

    /// One event and the end of its turn.
    fn step(&mut self, event: Event) {
        let mut effects = Effects::default();
        self.session.step(self.now, event, &mut effects);
        self.session.step(self.now, Event::EndTurn, &mut effects);
        for link in effects.close {
            self.line(format!("  close {}", link.node));
            self.closed.push(link);
        }
        for (link, address) in effects.open {
            self.line(format!("  open {} at {address}", link.node));
            self.opened.push(link);
        }
        for (link, frame) in effects.send {
            for request in frame.requests {
                self.sent.push((link, request.sequence, request.operation.clone()));
                let what = describe_operation(&request.operation);
                self.line(format!("  send {} a{} {what}", link.node, self.sent.len()));
            }
        }
        for completion in effects.done {
            let result = match &completion.result {
                Ok(Response::Written(outcomes)) => format!("written {}", outcomes.len()),
                Ok(Response::Value(value)) => format!("value {value:?}"),
                Ok(Response::Pairs { pairs, next }) => format!("{} pairs, next {next:?}", pairs.len()),
                Ok(_) => "told".to_string(),
                Err(error) => error.to_string(),
            };
            self.line(format!("  done t{}: {result}", completion.ticket.0));
            self.done.push(completion);
        }
    }

    fn line(&mut self, line: String) {
        writeln!(self.trace, "{line}").unwrap();
    }

    /// Compares everything since the last call, whatever the indentation of the expectation.
    pub fn expect(&mut self, expected: &str) {
        let clean = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect()
        };
        let (found, expected) = (clean(&self.trace), clean(expected));
        assert_eq!(found, expected, "\nfound:\n{}", self.trace);
        self.trace.clear();
    }

    /// How often each ticket was answered.
    pub fn answers(&self) -> BTreeMap<Ticket, usize> {
        let mut answers = BTreeMap::new();
        for completion in &self.done {
            *answers.entry(completion.ticket).or_insert(0) += 1;
        }
        answers
    }
}

pub fn link(node: u64) -> LinkId {
    LinkId { node: NodeId(node), core: CoreId(0), lane: 0 }
}

pub fn descriptor(group: u64, start: &str, end: Option<&str>, generation: u64) -> Descriptor {
    let range = KeyRange {
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: end.map(|end| Bytes::copy_from_slice(end.as_bytes())),
    };
    let members = (1..=3).map(|node| Member { node: NodeId(node), replica: ReplicaId(node) }).collect();
    Descriptor { group: GroupId(group), range, members, generation: Generation(generation) }
}

fn routes(ranges: Vec<(Descriptor, u64)>) -> Routes {
    let nodes = (1..=3).map(|node| (NodeId(node), format!("127.0.0.{node}:7400"))).collect();
    let ranges = ranges.into_iter().map(|(range, leader)| (range, Some(NodeId(leader)))).collect();
    Routes { node: NodeId(1), cores: 1, nodes, ranges }
}

/// The table after group 2 was split at `c` into groups 2 and 9.
pub fn routes_after_split() -> Outcome {
    Outcome::Routes(routes(vec![
        (descriptor(2, "", Some("c"), 2), 1),
        (descriptor(9, "c", Some("m"), 2), 3),
        (descriptor(3, "m", None, 1), 2),
    ]))
}

pub fn put(key: &str) -> Request {
    Request::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::from_static(b"v") }
}

pub fn get(key: &str) -> Request {
    Request::Get { key: Bytes::copy_from_slice(key.as_bytes()), level: ReadLevel::Linearizable }
}

pub fn written() -> Result<Outcome, Refusal> {
    Ok(Outcome::Written(vec![OperationOutcome::Put]))
}

pub fn not_leader(leader: Option<u64>) -> Result<Outcome, Refusal> {
    Err(Refusal::NotLeader { leader: leader.map(NodeId) })
}

fn describe(result: &Result<Outcome, Refusal>) -> String {
    match result {
        Ok(_) => "ok".to_string(),
        Err(Refusal::NotLeader { leader: Some(node) }) => format!("not leader, {node} is"),
        Err(Refusal::NotLeader { leader: None }) => "not leader".to_string(),
        Err(Refusal::StaleDescriptor { descriptor, .. }) => {
            format!("stale, now {} {}", descriptor.group, descriptor.range)
        }
        Err(Refusal::Busy { retry_after_ms }) => format!("busy {retry_after_ms}ms"),
        Err(Refusal::TooLarge { .. }) => "too large".to_string(),
        Err(Refusal::Refused { .. }) => "refused".to_string(),
        Err(Refusal::Order { reason, .. }) => format!("order refused: {reason:?}"),
        Err(Refusal::TooStale { .. }) => "too stale".to_string(),
        Err(Refusal::Forgotten { now }) => format!("forgotten at {now}"),
        Err(Refusal::Unknown) => "unknown".to_string(),
    }
}

fn describe_operation(operation: &Operation) -> String {
    let text = |bytes: &Bytes| bytes.escape_ascii().to_string();
    match operation {
        Operation::Write { group, generation, command } => {
            let Command { id, .. } = Command::decode(command.clone()).unwrap();
            let session = match id.session.opened {
                SessionTime(0) => String::new(),
                opened => format!(" in {opened}"),
            };
            format!("write {group} {generation}{session}")
        }
        Operation::Get { group, generation, key, .. } => format!("get {group} {generation} {}", text(key)),
        Operation::Scan { group, start, end, limit, .. } => {
            format!("scan {group} [{}, {}) {limit}", text(start), end.as_ref().map_or("∞".to_string(), text))
        }
        Operation::Order { group, generation, order } => match order {
            Order::Members { generation: of, .. } => format!("members {group} {} for {of}", generation.unwrap()),
            Order::Transfer { term, to } => format!("transfer {group} {} for {term} to {to}", generation.unwrap()),
        },
        Operation::Members { group, generation } => format!("members {group} {}?", generation.unwrap()),
        Operation::Prefer { group, priority } => format!("prefer {group} {priority}"),
        Operation::Routes => "routes".to_string(),
        Operation::Status => "status".to_string(),
    }
}
