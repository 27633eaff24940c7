//! Old entries leave memory, and those who need them get them back from the log.

use std::time::{Duration, Instant};

use pontoon::{Node, NodeConfig};
use pontoon_client::{Client, ClientError, ClientOptions};

use crate::support::{Directories, PATIENCE, directories};

/// Bytes of entries that a core keeps in memory here: some tens of the values below.
const WINDOW_BYTES: usize = 32 << 10;

const VALUES: usize = 500;

const VALUE_BYTES: usize = 4 << 10;

fn start(nodes: &Directories, node: usize) -> Node {
    Node::start(NodeConfig { window_bytes_max: WINDOW_BYTES, ..NodeConfig::new(nodes.dir(node)) }).unwrap()
}

/// Keys of all eight ranges, which are cut by the first two bytes.
fn key(number: usize) -> Vec<u8> {
    [&((number * 8191) as u16).to_be_bytes()[..], format!("key{number}").as_bytes()].concat()
}

fn value(number: usize) -> Vec<u8> {
    format!("{number} ").into_bytes().into_iter().cycle().take(VALUE_BYTES).collect()
}

/// Puts until somebody leads the range; what is unknown is put again.
fn put(client: &mut Client, number: usize) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match client.put(key(number), value(number)) {
            Ok(()) => return,
            Err(error) if Instant::now() > give_up => panic!("{error}"),
            Err(ClientError::TooLarge { .. } | ClientError::Refused { .. }) => panic!("this put is allowed"),
            Err(_) => {}
        }
    }
}

fn applied(node: &Node) -> u64 {
    node.counters()[0].applied_entries
}

/// Waits until a node has applied as many entries as another one.
fn await_equal(behind: &Node, ahead: &Node) {
    let give_up = Instant::now() + PATIENCE;
    while applied(behind) < applied(ahead) {
        assert!(Instant::now() < give_up, "{} of {} entries applied", applied(behind), applied(ahead));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_follower_far_behind_catches_up_from_the_log_and_memory_stays_bounded() {
    let nodes = directories(3, 8, 1);
    let mut running: Vec<Node> = (0..3).map(|node| start(&nodes, node)).collect();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    for number in 0..16 {
        put(&mut client, number);
    }
    running.remove(2).stop().unwrap();
    for number in 16..VALUES {
        put(&mut client, number);
    }
    // What the two others hold in memory is little beside what the third one has missed.
    for node in &running {
        let (memory, written) = (node.memory()[0], node.counters()[0].log_bytes);
        assert!(written > 40 * WINDOW_BYTES as u64, "{written} bytes written");
        // One value of each range may be on its way.
        let limit = (WINDOW_BYTES + 16 * VALUE_BYTES) as u64;
        assert!(memory.window_bytes_highest <= limit, "{memory:?}, at most {limit} bytes");
    }
    let back = start(&nodes, 2);
    await_equal(&back, &running[0]);
    // What a node shows of itself is a tenth of a second old.
    let fetched = || running.iter().map(|node| node.memory()[0].fetched_entries).sum::<u64>() as usize;
    let give_up = Instant::now() + PATIENCE;
    while fetched() < VALUES - 100 {
        assert!(Instant::now() < give_up, "{} entries were fetched for it", fetched());
        std::thread::sleep(Duration::from_millis(20));
    }

    // A start brings nothing into memory: the machines are filled from the log.
    let before = applied(&running[0]);
    running.push(back);
    running.into_iter().for_each(|node| node.stop().unwrap());
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node)).collect();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    for number in 0..VALUES {
        assert_eq!(client.get(key(number)).unwrap().as_deref(), Some(&value(number)[..]), "key {number}");
    }
    for node in &running {
        let give_up = Instant::now() + PATIENCE;
        while applied(node) < before && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(20));
        }
        let memory = node.memory()[0];
        assert!(
            applied(node) >= before && memory.fetched_entries as usize >= VALUES,
            "{memory:?}, {} applied",
            applied(node)
        );
        assert!(memory.window_bytes_highest <= (WINDOW_BYTES + 16 * VALUE_BYTES) as u64, "{memory:?}");
    }
    running.into_iter().for_each(|node| node.stop().unwrap());
}
