//! A node comes back on its port at once, and leaves nothing behind.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use pontoon::{Node, NodeConfig, WaitEnd};
use pontoon_client::{Client, ClientOptions};

use crate::support::{PATIENCE, directories, directories_from};

#[test]
fn on_the_same_port_right_after_a_clean_stop_and_after_sigkill() {
    let nodes = directories(1, 4, 1);
    for round in 0..3 {
        let key = format!("key{round}");
        let node = nodes.start(0);
        let mut client = Client::connect(&[node.address], ClientOptions::default()).unwrap();
        client.put(&key, "value").unwrap();
        // The client's connection is still open, so the port has a past.
        if round == 1 {
            assert_eq!(node.terminate(), Some(0));
        } else {
            node.kill();
        }
    }
    let node = nodes.start(0);
    assert_eq!(node.address, nodes.address(0));
    let mut client = Client::connect(&[node.address], ClientOptions::default()).unwrap();
    for round in 0..3 {
        assert_eq!(client.get(format!("key{round}")).unwrap().as_deref(), Some(&b"value"[..]), "round {round}");
    }
}

#[test]
fn a_stopped_node_in_this_process_leaves_no_thread_and_no_socket() {
    // A number of its own, so that its threads and its port are told from those of the tests beside this one.
    let nodes = directories_from(77, 1, 2, 2);
    for _ in 0..3 {
        let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
        assert!(threads("pontoon-n77").len() >= 2, "one thread for each core");
        let mut client = Client::connect(&[node.address()], ClientOptions::default()).unwrap();
        client.put("key", "value").unwrap();
        assert!(open_sockets(node.address().port()) >= 2, "a listener and a connection");
        node.stop().unwrap();
        drop(client);
        assert_no_threads("pontoon-n77");
        assert_eq!(open_sockets(nodes.address(0).port()), 0);
        drop(TcpListener::bind(nodes.address(0)).unwrap());
    }
}

#[test]
fn a_dropped_node_is_stopped_too() {
    let nodes = directories_from(78, 1, 1, 1);
    drop(Node::start(NodeConfig::new(nodes.dir(0))).unwrap());
    assert_no_threads("pontoon-n78");
    drop(TcpListener::bind(nodes.address(0)).unwrap());
}

#[test]
fn waiting_ends_when_another_thread_asks() {
    let nodes = directories(1, 1, 1);
    let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
    let handle = node.stop_handle();
    let asker = std::thread::spawn(move || handle.request());
    assert_eq!(node.wait(), WaitEnd::Requested);
    asker.join().unwrap();
    node.stop().unwrap();
}

/// The names of this process's threads that begin so.
fn threads(prefix: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// The runtime's helper thread is not joined by it and may end a moment later.
#[track_caller]
fn assert_no_threads(prefix: &str) {
    let give_up = Instant::now() + PATIENCE;
    while !threads(prefix).is_empty() && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(threads(prefix), Vec::<String>::new());
}

/// Sockets of this machine whose own end is the port, without those that only wait for late packets.
fn open_sockets(port: u16) -> usize {
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[1].ends_with(&suffix) && fields[3] != TIME_WAIT)
        .count()
}
