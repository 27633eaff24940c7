//! Who may come in, and that a bad caller harms only itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pontoon_client::{Client, ClientOptions};
use pontoon_types::{ClientId, ClusterId, CoreId, NodeId};
use pontoon_wire::hello::{Caller, Hello, HelloRefusal, WELCOME_BYTES, Welcome};

use crate::support::{PATIENCE, Process, directories};

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Says hello and reads the answer.
fn greet(address: SocketAddr, hello: &Hello) -> (TcpStream, Welcome) {
    let mut stream = dial(address);
    stream.write_all(&hello.encode()).unwrap();
    let mut welcome = [0; WELCOME_BYTES];
    stream.read_exact(&mut welcome).unwrap();
    (stream, Welcome::decode(&welcome).unwrap())
}

fn client(core: u16) -> Hello {
    Hello {
        cluster: ClusterId(0),
        from: Caller::Client(ClientId(5)),
        core: CoreId(core),
        version_min: pontoon_wire::VERSION_MIN,
        version_max: pontoon_wire::VERSION,
    }
}

fn peer(cluster: ClusterId, node: u64, to: u64, cores: u16) -> Hello {
    peer_with(cluster, node, to, cores, 1 << 20)
}

fn peer_with(cluster: ClusterId, node: u64, to: u64, cores: u16, segment_bytes: u32) -> Hello {
    let from = Caller::Peer { node: NodeId(node), core: CoreId(0), to: NodeId(to), cores, segment_bytes };
    Hello { cluster, from, ..client(0) }
}

/// Waits until the other side has closed.
#[track_caller]
fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

fn wait_for_line(node: &Process, part: &str) -> Vec<String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let lines = node.lines_with(part);
        if !lines.is_empty() || Instant::now() > give_up {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_caller_hears_why_it_is_refused() {
    let nodes = directories(3, 4, 2);
    let node = nodes.start(0);
    let (cluster, other) = (nodes.cluster, ClusterId(99));
    let old = Hello { version_min: 7, version_max: 9, ..client(0) };
    let cases = [
        (client(0), None),
        (client(1), None),
        (Hello { cluster, ..client(0) }, None),
        (peer(cluster, 2, 1, 2), None),
        (client(2), Some(HelloRefusal::NoSuchCore)),
        (Hello { cluster: other, ..client(0) }, Some(HelloRefusal::OtherCluster)),
        (old, Some(HelloRefusal::Version)),
        (peer(other, 2, 1, 2), Some(HelloRefusal::OtherCluster)),
        (peer(ClusterId(0), 2, 1, 2), Some(HelloRefusal::OtherCluster)),
        (peer(cluster, 2, 3, 2), Some(HelloRefusal::OtherNode)),
        (peer(cluster, 1, 1, 2), Some(HelloRefusal::OtherNode)),
        (peer(cluster, 9, 1, 2), Some(HelloRefusal::GivenUp)),
        (peer(cluster, 2, 1, 1), Some(HelloRefusal::OtherCoreCount)),
        (peer_with(cluster, 2, 1, 2, 64 << 10), None),
        (
            peer_with(cluster, 2, 1, 2, 32 << 20),
            Some(HelloRefusal::LargerSegments { caller_bytes: 32 << 20, own_bytes: 1 << 20 }),
        ),
    ];
    for (hello, refusal) in cases {
        let (mut stream, welcome) = greet(node.address, &hello);
        assert_eq!(welcome.refusal, refusal, "{hello:?}");
        assert_eq!((welcome.cluster, welcome.node, welcome.cores), (cluster, NodeId(1), 2));
        if refusal.is_some() {
            assert_closed(&mut stream);
        }
    }
}

#[test]
fn a_peer_of_another_cluster_is_one_line_however_often_it_tries() {
    let nodes = directories(2, 1, 1);
    let node = nodes.start(0);
    for _ in 0..5 {
        let (_, welcome) = greet(node.address, &peer(ClusterId(99), 2, 1, 1));
        assert_eq!(welcome.refusal, Some(HelloRefusal::OtherCluster));
    }
    assert_eq!(wait_for_line(&node, "belongs to another cluster").len(), 1);
}

#[test]
fn two_clusters_that_were_given_each_others_address_stay_apart() {
    let (one, two) = (directories(2, 1, 1), directories(2, 1, 1));
    let first = one.start(0);
    // This node takes the address at which the first cluster expects its second node.
    let stranger = Process::start(&["--listen", &one.address(1).to_string()], two.dir(1));
    let refused = wait_for_line(&first, "the node belongs to another cluster");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(wait_for_line(&stranger, "belongs to another cluster").len(), 1);
    assert_eq!((first.terminate(), stranger.terminate()), (Some(0), Some(0)));
}

#[test]
fn what_is_not_a_hello_is_closed_and_others_are_served() {
    let nodes = directories(1, 4, 1);
    let node = nodes.start(0);
    let mut good = Client::connect(&[node.address], ClientOptions::default()).unwrap();
    good.put("key", "before").unwrap();

    let mut stranger = dial(node.address);
    stranger.write_all(&[b'x'; 64]).unwrap();
    assert_closed(&mut stranger);
    let mut damaged = client(0).encode();
    damaged[9] ^= 1;
    let mut caller = dial(node.address);
    caller.write_all(&damaged).unwrap();
    assert_closed(&mut caller);
    let mut short = dial(node.address);
    short.write_all(&client(0).encode()[..63]).unwrap();
    drop(short);

    good.put("key", "after").unwrap();
    assert_eq!(good.get("key").unwrap().as_deref(), Some(&b"after"[..]));
    assert!(!wait_for_line(&node, "not a hello").is_empty());
}

#[test]
fn a_malformed_frame_closes_that_connection_only() {
    let nodes = directories(1, 4, 1);
    let node = nodes.start(0);
    let mut good = Client::connect(&[node.address], ClientOptions::default()).unwrap();
    good.put("key", "before").unwrap();

    let (mut garbage, _) = greet(node.address, &client(0));
    garbage.write_all(&[0xee; 4096]).unwrap();
    assert_closed(&mut garbage);
    assert_eq!(wait_for_line(&node, "malformed frame").len(), 1);

    let mut frame = Vec::new();
    pontoon_wire::client::RequestFrame::default().encode(&mut frame);
    let last = frame.len() - 1;
    frame[last] ^= 1;
    let (mut flipped, _) = greet(node.address, &client(0));
    flipped.write_all(&frame).unwrap();
    assert_closed(&mut flipped);

    // A frame that announces more than may be sent is refused before it is awaited.
    let (mut long, _) = greet(node.address, &client(0));
    frame[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let checksum = crc32fast::hash(&frame[..28]);
    frame[28..32].copy_from_slice(&checksum.to_le_bytes());
    long.write_all(&frame[..32]).unwrap();
    assert_closed(&mut long);

    good.put("key", "after").unwrap();
    assert_eq!(good.get("key").unwrap().as_deref(), Some(&b"after"[..]));
}

#[test]
fn a_truncated_frame_ends_with_its_connection() {
    let nodes = directories(1, 4, 1);
    let node = nodes.start(0);
    let mut frame = Vec::new();
    pontoon_wire::client::RequestFrame::default().encode(&mut frame);
    for cut in [1, 31, frame.len() - 1] {
        let (mut caller, _) = greet(node.address, &client(0));
        caller.write_all(&frame[..cut]).unwrap();
        caller.shutdown(std::net::Shutdown::Write).unwrap();
        assert_closed(&mut caller);
    }
    let mut good = Client::connect(&[node.address], ClientOptions::default()).unwrap();
    good.put("key", "value").unwrap();
    assert_eq!(node.terminate(), Some(0));
}

#[test]
fn a_peer_that_sends_what_is_not_a_peers_frame_is_closed() {
    let nodes = directories(2, 1, 1);
    let node = nodes.start(0);
    let (mut stream, welcome) = greet(node.address, &peer(nodes.cluster, 2, 1, 1));
    assert_eq!(welcome.refusal, None);
    let mut frame = Vec::new();
    pontoon_wire::client::RequestFrame::default().encode(&mut frame);
    stream.write_all(&frame).unwrap();
    assert_closed(&mut stream);
    assert_eq!(wait_for_line(&node, "closed the connection of node n2: refused").len(), 1);
}

#[test]
fn a_caller_that_says_nothing_is_closed_after_a_while() {
    let nodes = directories(1, 1, 1);
    let node = nodes.start(0);
    let mut silent = dial(node.address);
    let started = Instant::now();
    assert_closed(&mut silent);
    assert!(started.elapsed() >= Duration::from_secs(2), "closed after {:?}", started.elapsed());
}
