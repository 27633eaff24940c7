//! Clients that ask for more than they read at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pontoon::{LogOptions, Node, NodeConfig};
use pontoon_client::{Client, ClientOptions, Request};
use pontoon_router::initial_descriptors;
use pontoon_types::{ClientId, ClusterId, CoreId, NodeId};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, ReplyFrame, Request as Asked, RequestFrame};
use pontoon_wire::frame::FrameReader;
use pontoon_wire::hello::{Caller, Hello, WELCOME_BYTES};

use crate::support::{Directories, PATIENCE, directories_with, small_log};

const VALUE_BYTES: usize = 512 << 10;

/// As many values as are more than twice the limit, so that what the kernel takes makes no difference.
const BURST: u64 = 160;

/// A connection that sends and reads only when the test says so.
struct Raw {
    stream: TcpStream,
    reader: FrameReader,
    asked: u64,
}

impl Raw {
    fn connect(address: SocketAddr) -> Raw {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let from = Caller::Client(ClientId(77));
        let (version_min, version_max) = (pontoon_wire::VERSION_MIN, pontoon_wire::VERSION);
        let hello = Hello { cluster: ClusterId(0), from, core: CoreId(0), version_min, version_max };
        stream.write_all(&hello.encode()).unwrap();
        stream.read_exact(&mut [0; WELCOME_BYTES]).unwrap();
        Raw { stream, reader: FrameReader::new(), asked: 0 }
    }

    /// Asks so many times for the value of a key of the only range.
    fn ask(&mut self, key: &'static str, times: u64) {
        let range = initial_descriptors(1, &[NodeId(1)]).remove(0);
        let (group, generation) = (range.group, range.generation);
        let operation = Operation::Get { group, generation, key: key.into(), level: ReadLevel::Linearizable };
        let requests =
            (self.asked..self.asked + times).map(|sequence| Asked { sequence, operation: operation.clone() }).collect();
        self.asked += times;
        let mut frame = Vec::new();
        RequestFrame { requests }.encode(&mut frame);
        self.stream.write_all(&frame).unwrap();
    }

    /// Reads until everything is answered, and says how many answers were values.
    fn read_all(&mut self) -> u64 {
        let (mut answers, mut values) = (0, 0);
        while answers < self.asked {
            let bytes = self.stream.read(self.reader.spare()).unwrap();
            assert!(bytes > 0, "closed after {answers} answers");
            self.reader.filled(bytes);
            while let Some(frame) = self.reader.next().unwrap() {
                for reply in ReplyFrame::decode(frame).unwrap().replies {
                    answers += 1;
                    values += u64::from(matches!(reply.result, Ok(Outcome::Value(Some(_)))));
                }
            }
        }
        values
    }
}

/// One node, whose segments hold the values.
fn with_room_for_values() -> Directories {
    directories_with(1, 1, 1, 1, LogOptions { segment_bytes: 2 << 20, ..small_log() })
}

fn client(nodes: &Directories) -> Client {
    let options = ClientOptions { timeout: PATIENCE, connections: 1, ..ClientOptions::default() };
    Client::connect(&nodes.addresses(), options).unwrap()
}

#[test]
fn a_client_that_reads_a_little_later_gets_a_burst_of_replies_above_the_limit() {
    let nodes = with_room_for_values();
    let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
    let mut client = client(&nodes);
    client.put("large", vec![7; VALUE_BYTES]).unwrap();
    for _ in 0..BURST {
        client.submit(Request::Get { key: "large".into(), level: ReadLevel::Linearizable });
    }
    // The client hides a lost connection from reads, which it repeats, but not from a write.
    client.submit(Request::Put { key: "small".into(), value: "value".into() });
    let mut done = Vec::new();
    // Sends all requests, and reads after a pause in which the replies pile up.
    client.poll(Duration::from_millis(1), &mut done).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    while done.len() <= BURST as usize {
        client.poll(Duration::from_millis(100), &mut done).unwrap();
    }
    let failed: Vec<_> = done.iter().filter_map(|completion| completion.result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {}: {}", failed.len(), done.len(), failed[0]);
    node.stop().unwrap();
}

#[test]
fn a_client_above_the_limit_is_not_received_from_until_it_has_read() {
    let nodes = with_room_for_values();
    let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
    let mut other = client(&nodes);
    other.put("large", vec![7; VALUE_BYTES]).unwrap();
    let mut raw = Raw::connect(node.address());
    raw.ask("large", BURST);
    std::thread::sleep(Duration::from_secs(1));
    const FURTHER: u64 = 1000;
    raw.ask("none", FURTHER);
    // The counters are shown by turns, so somebody has to cause some.
    let before = node.counters()[0].requests;
    let mut caused = 0;
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        other.put("small", "value").unwrap();
        caused += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let taken = node.counters()[0].requests - before;
    assert!(taken > 0 && taken < FURTHER, "{taken} requests were taken, {caused} of another client");
    assert_eq!(raw.read_all(), BURST);
    node.stop().unwrap();
}

#[test]
fn a_client_that_does_not_read_is_closed_after_a_while_and_others_are_served() {
    let nodes = with_room_for_values();
    let node = nodes.start(0);
    let mut good = client(&nodes);
    good.put("large", vec![7; VALUE_BYTES]).unwrap();
    let started = Instant::now();
    let mut raw = Raw::connect(node.address);
    raw.ask("large", BURST);
    while node.lines_with("does not read its replies").is_empty() {
        assert!(started.elapsed() < PATIENCE, "a client that does not read keeps its connection");
        good.put("small", "value").unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(started.elapsed() >= Duration::from_secs(5), "closed after {:?}", started.elapsed());
    assert_eq!(good.get("small").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(node.terminate(), Some(0));
}
