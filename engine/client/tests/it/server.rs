//! The whole client against a small server in this test: real TCP, the wire format, one thread for each node.
//!
//! A node keeps its pairs in a map. It leads what it is told to lead and refuses the rest by naming the leader.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use pontoon_client::{
    Client, ClientError, ClientOptions, Completion, CoreStatus, KvOperation, OperationOutcome, Request,
};
use pontoon_client::{ReadLevel, Response, Routes};
use pontoon_types::{ClusterId, CoreId, Descriptor, GroupId, NodeId, RequestId};
use pontoon_wire::client::{Operation, Outcome, Refusal, Reply, ReplyFrame, RequestFrame};
use pontoon_wire::command::Command;
use pontoon_wire::frame::FrameReader;
use pontoon_wire::hello::{HELLO_BYTES, Hello, HelloRefusal, Welcome};
use pontoon_wire::order::GroupMembers;

use crate::harness::descriptor;

const CLUSTER: ClusterId = ClusterId(42);

/// What all nodes share: who leads each group, the pairs, and what the test wants to go wrong.
struct Cluster {
    addresses: Vec<SocketAddr>,
    leaders: Mutex<BTreeMap<GroupId, NodeId>>,
    pairs: Mutex<BTreeMap<Bytes, Bytes>>,
    /// What each write came to.
    remembered: Mutex<BTreeMap<RequestId, Vec<OperationOutcome>>>,
    applied_writes: AtomicUsize,
    frames: AtomicUsize,
    /// The next frame with a write is taken, applied, and its connection dropped without an answer.
    drop_after_write: AtomicBool,
    refuse_hello: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Cluster {
    fn start() -> Arc<Cluster> {
        let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let cluster = Arc::new(Cluster {
            addresses: listeners.iter().map(|listener| listener.local_addr().unwrap()).collect(),
            leaders: Mutex::new([(GroupId(2), NodeId(1)), (GroupId(3), NodeId(2))].into()),
            pairs: Mutex::default(),
            remembered: Mutex::default(),
            applied_writes: AtomicUsize::new(0),
            frames: AtomicUsize::new(0),
            drop_after_write: AtomicBool::new(false),
            refuse_hello: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        for (listener, node) in listeners.into_iter().zip(1..) {
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (cluster, stream) = (Arc::clone(&cluster), stream.unwrap());
                    cluster.connections.lock().unwrap().push(stream.try_clone().unwrap());
                    thread::spawn(move || cluster.serve(NodeId(node), stream));
                }
            });
        }
        cluster
    }

    fn client(&self) -> Client {
        let options = ClientOptions { timeout: Duration::from_secs(2), ..ClientOptions::default() };
        Client::connect(&self.addresses, options).unwrap()
    }

    fn serve(&self, node: NodeId, mut stream: TcpStream) {
        let mut hello = [0; HELLO_BYTES];
        if stream.read_exact(&mut hello).is_err() {
            return;
        }
        let hello = Hello::decode(&hello).unwrap();
        assert!([ClusterId(0), CLUSTER].contains(&hello.cluster));
        let refusal = self.refuse_hello.load(Ordering::SeqCst).then_some(HelloRefusal::Full);
        let welcome = Welcome { cluster: CLUSTER, node, cores: 1, version: hello.common_version().unwrap(), refusal };
        stream.write_all(&welcome.encode()).unwrap();
        let mut reader = FrameReader::new();
        loop {
            while let Some(frame) = reader.next().unwrap() {
                self.frames.fetch_add(1, Ordering::SeqCst);
                let requests = RequestFrame::decode(frame).unwrap().requests;
                let has_write = requests.iter().any(|request| matches!(request.operation, Operation::Write { .. }));
                let replies = requests.into_iter().rev();
                let replies = replies
                    .map(|request| Reply { sequence: request.sequence, result: self.answer(node, request.operation) });
                let frame = ReplyFrame { replies: replies.collect() };
                if has_write && self.drop_after_write.swap(false, Ordering::SeqCst) {
                    stream.shutdown(Shutdown::Both).unwrap();
                    return;
                }
                let mut bytes = Vec::new();
                frame.encode(&mut bytes);
                // In two parts, so that the client meets partial frames.
                let (head, tail) = bytes.split_at(bytes.len() / 2);
                if stream.write_all(head).and_then(|()| stream.write_all(tail)).is_err() {
                    return;
                }
            }
            match stream.read(reader.spare()) {
                Ok(0) | Err(_) => return,
                Ok(received) => reader.filled(received),
            }
        }
    }

    fn ranges() -> Vec<Descriptor> {
        vec![descriptor(2, "", Some("m"), 1), descriptor(3, "m", None, 1)]
    }

    fn answer(&self, node: NodeId, operation: Operation) -> Result<Outcome, Refusal> {
        let leaders = self.leaders.lock().unwrap().clone();
        match &operation {
            Operation::Write { group, .. } | Operation::Get { group, .. } | Operation::Scan { group, .. } => {
                let leader = leaders[group];
                if leader != node {
                    return Err(Refusal::NotLeader { leader: Some(leader) });
                }
            }
            Operation::Order { .. }
            | Operation::Members { .. }
            | Operation::Prefer { .. }
            | Operation::Routes
            | Operation::Status => {}
        }
        let mut pairs = self.pairs.lock().unwrap();
        Ok(match operation {
            Operation::Write { command, .. } => {
                let Command { id, operations, .. } = Command::decode(command).unwrap();
                let mut remembered = self.remembered.lock().unwrap();
                let execute = || {
                    self.applied_writes.fetch_add(1, Ordering::SeqCst);
                    operations.into_iter().map(|operation| apply(&mut pairs, operation)).collect()
                };
                Outcome::Written(remembered.entry(id).or_insert_with(execute).clone())
            }
            Operation::Get { key, .. } => Outcome::Value(pairs.get(&key).cloned()),
            Operation::Scan { start, end, limit, .. } => {
                let inside = pairs.range(start..).take_while(|(key, _)| end.as_ref().is_none_or(|end| *key < end));
                let mut inside = inside.map(|(key, value)| (key.clone(), value.clone()));
                let pairs = inside.by_ref().take(limit as usize).collect();
                Outcome::Pairs { pairs, next: inside.next().map(|(key, _)| key) }
            }
            Operation::Order { .. } | Operation::Prefer { .. } => Outcome::Ordered,
            Operation::Members { group, .. } => Outcome::Members(GroupMembers { group, ..GroupMembers::default() }),
            Operation::Routes => Outcome::Routes(Routes {
                node,
                cores: 1,
                nodes: self.addresses.iter().zip(1..).map(|(at, node)| (NodeId(node), at.to_string())).collect(),
                ranges: Self::ranges().into_iter().map(|range| (range, None)).collect(),
            }),
            Operation::Status => Outcome::Status(CoreStatus { node, ..CoreStatus::default() }),
        })
    }
}

fn apply(pairs: &mut BTreeMap<Bytes, Bytes>, operation: KvOperation) -> OperationOutcome {
    match operation {
        KvOperation::Put { key, value } => {
            pairs.insert(key, value);
            OperationOutcome::Put
        }
        KvOperation::Delete { key } => OperationOutcome::Deleted { existed: pairs.remove(&key).is_some() },
        KvOperation::CompareAndSet { key, expected, value } => {
            let current = pairs.get(&key).cloned();
            let succeeded = current == expected;
            match value {
                Some(value) if succeeded => drop(pairs.insert(key, value)),
                None if succeeded => drop(pairs.remove(&key)),
                _ => {}
            }
            OperationOutcome::Swapped { succeeded, current }
        }
    }
}

#[test]
fn each_operation_does_what_it_says() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    assert_eq!(client.cluster(), CLUSTER);
    client.put("a", "1").unwrap();
    client.put("z", "26").unwrap();
    assert_eq!(client.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(client.get("b").unwrap(), None);
    let swap = client.compare_and_set("a", Some(b"0"), Some(b"2")).unwrap();
    assert_eq!((swap.succeeded, swap.current.as_deref()), (false, Some(&b"1"[..])));
    assert!(client.compare_and_set("a", Some(b"1"), Some(b"2")).unwrap().succeeded);
    let outcomes = client
        .batch(vec![KvOperation::Put { key: "b".into(), value: "3".into() }, KvOperation::Delete { key: "a".into() }]);
    assert_eq!(outcomes.unwrap(), [OperationOutcome::Put, OperationOutcome::Deleted { existed: true }]);
    let page = client.scan("", None, 100).unwrap();
    assert_eq!(page.pairs, [("b".into(), "3".into()), ("z".into(), Bytes::from("26"))]);
    assert_eq!(page.next, None);
    assert_eq!(client.scan("", None, 1).unwrap().next.as_deref(), Some(&b"m"[..]));
    assert!(client.delete("z").unwrap() && !client.delete("z").unwrap());
    assert_eq!(client.status(NodeId(3), CoreId(0)).unwrap().node, NodeId(3));
    assert_eq!(client.routes().unwrap().nodes.len(), 3);
}

/// A thousand requests submitted together: each is answered once, with its own answer, in a few frames.
#[test]
fn many_requests_share_frames() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    let key = |number: u32| Bytes::from(format!("{}{number}", if number.is_multiple_of(2) { "a" } else { "x" }));
    let mut done: Vec<Completion> = Vec::new();
    for number in 0..1000 {
        client.submit(Request::Put { key: key(number), value: number.to_string().into() });
    }
    while client.inflight() > 0 {
        client.poll(Duration::from_secs(1), &mut done).unwrap();
    }
    assert_eq!(done.len(), 1000);
    assert!(done.iter().all(|completion| completion.result.is_ok()));
    assert!(cluster.frames.load(Ordering::SeqCst) < 20, "{:?}", cluster.frames);
    assert!(client.connections() <= 3);

    done.clear();
    let tickets: Vec<_> = (0..1000)
        .map(|number| (client.submit(Request::Get { key: key(number), level: ReadLevel::Linearizable }), number))
        .collect();
    while client.inflight() > 0 {
        client.poll(Duration::from_secs(1), &mut done).unwrap();
    }
    done.sort_by_key(|completion| completion.ticket);
    for ((ticket, number), completion) in tickets.into_iter().zip(done) {
        assert_eq!(completion.ticket, ticket);
        assert_eq!(completion.result, Ok(Response::Value(Some(number.to_string().into()))));
    }
}

/// A blocking call in the middle of pipelined requests takes nobody's answer.
#[test]
fn blocking_calls_keep_the_answers_of_others() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    let ticket = client.submit(Request::Put { key: "a".into(), value: "1".into() });
    for _ in 0..3 {
        client.get("x").unwrap();
    }
    let mut done = Vec::new();
    while done.is_empty() {
        client.poll(Duration::from_secs(1), &mut done).unwrap();
    }
    assert_eq!((done.len(), done[0].ticket), (1, ticket));
}

/// The leader moves: the refusal is followed, and later requests go straight to the new leader.
#[test]
fn a_moved_leader_is_found() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    client.put("a", "1").unwrap();
    cluster.leaders.lock().unwrap().insert(GroupId(2), NodeId(3));
    client.put("a", "2").unwrap();
    let frames = cluster.frames.load(Ordering::SeqCst);
    client.put("a", "3").unwrap();
    assert_eq!(cluster.frames.load(Ordering::SeqCst), frames + 1);
}

/// The write was applied and its connection dropped: it is asked for again, and applied once.
#[test]
fn a_write_without_an_answer_is_asked_for_again() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    client.put("a", "1").unwrap();
    cluster.drop_after_write.store(true, Ordering::SeqCst);
    let swap = client.compare_and_set("a", Some(b"1"), Some(b"2")).unwrap();
    assert!(swap.succeeded, "what it came to at first: {swap:?}");
    assert_eq!(cluster.applied_writes.load(Ordering::SeqCst), 2);
    assert_eq!(client.get("a").unwrap().as_deref(), Some(&b"2"[..]));
    client.put("a", "3").unwrap();
    assert_eq!(cluster.applied_writes.load(Ordering::SeqCst), 3);
}

/// All connections break while nothing is in flight: the next requests open new ones.
#[test]
fn broken_connections_are_opened_again() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    client.put("a", "1").unwrap();
    for connection in cluster.connections.lock().unwrap().drain(..) {
        let _ = connection.shutdown(Shutdown::Both);
    }
    assert_eq!(client.get("a").unwrap().as_deref(), Some(&b"1"[..]));
}

/// A client that did nothing for longer than a request may take: the next request has its whole time.
#[test]
fn a_time_out_counts_from_the_turn_that_takes_the_request() {
    let cluster = Cluster::start();
    let options = ClientOptions { timeout: Duration::from_millis(250), ..ClientOptions::default() };
    let mut client = Client::connect(&cluster.addresses, options).unwrap();
    client.put("a", "1").unwrap();
    thread::sleep(Duration::from_millis(300));
    client.put("a", "2").unwrap();
    client.submit(Request::Put { key: "a".into(), value: "3".into() });
    assert_eq!(client.inflight(), 1);
    thread::sleep(Duration::from_millis(300));
    let mut done = Vec::new();
    while done.is_empty() {
        client.poll(Duration::from_secs(1), &mut done).unwrap();
    }
    assert_eq!(done[0].result, Ok(Response::Written(vec![OperationOutcome::Put])));
}

#[test]
fn nobody_there_is_said_in_time() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = ClientOptions { connect_timeout: Duration::from_millis(200), ..ClientOptions::default() };
    let error = Client::connect(&[free], options.clone()).err().unwrap();
    assert!(matches!(&error, ClientError::Unreachable { why } if why.contains(&free.to_string())), "{error}");
    assert!(matches!(Client::connect(&[], options), Err(ClientError::Unreachable { .. })));
}

/// A node that refuses the hello is as good as not there: the reason is passed on.
#[test]
fn a_refused_hello_is_passed_on() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    cluster.refuse_hello.store(true, Ordering::SeqCst);
    let error = client.get("a").unwrap_err();
    assert!(error.to_string().contains("no room"), "{error}");
}
