//! Three real processes: a node dies, the others go on, it comes back, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pontoon_client::{Client, ClientError, ClientOptions, ReadLevel};
use pontoon_types::{CoreId, NodeId};

use crate::support::{PATIENCE, Process, directories};

/// A key of range `number` of 256: ranges are cut by the first two bytes.
fn key(number: u32) -> Vec<u8> {
    [&((number * 257) as u16).to_be_bytes()[..], format!("key{number}").as_bytes()].concat()
}

/// Puts until the group has a leader that answers. What is unknown may have happened, so it is put again.
fn put(client: &mut Client, key: &[u8], value: &str) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match client.put(key, value) {
            Ok(()) => return,
            Err(error) if Instant::now() > give_up => panic!("{error}"),
            Err(ClientError::TooLarge { .. } | ClientError::Refused { .. }) => panic!("this put is allowed"),
            Err(_) => {}
        }
    }
}

fn verify(client: &mut Client, acknowledged: &BTreeMap<Vec<u8>, String>) {
    for (key, value) in acknowledged {
        let found = client.get(key).unwrap();
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "key {}", key.escape_ascii());
    }
}

#[test]
fn a_killed_node_is_survived_and_comes_back() {
    let nodes = directories(3, 8, 1);
    let mut processes: Vec<Option<Process>> = (0..3).map(|node| Some(nodes.start(node))).collect();
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let mut client = Client::connect(&nodes.addresses(), options.clone()).unwrap();
    let mut acknowledged = BTreeMap::new();
    for number in 0..64 {
        put(&mut client, &key(number), "first");
        acknowledged.insert(key(number), "first".to_string());
    }

    let mut outages = Vec::new();
    for (round, victim) in [(1, 0), (2, 2)] {
        processes[victim].take().unwrap().kill();
        let killed = Instant::now();
        for number in 0..64 {
            put(&mut client, &key(number), &format!("round{round}"));
            acknowledged.insert(key(number), format!("round{round}"));
        }
        outages.push(killed.elapsed());
        processes[victim] = Some(nodes.start(victim));
    }
    verify(&mut client, &acknowledged);
    // The better of two, because the machine may do something else at one of them.
    assert!(outages.iter().min() < Some(&Duration::from_secs(3)), "every range was served again after {outages:?}");

    // All of them at once, and from the disk.
    for process in &mut processes {
        process.take().unwrap().kill();
    }
    let processes: Vec<Process> = (0..3).map(|node| nodes.start(node)).collect();
    let mut client = Client::connect(&nodes.addresses(), options).unwrap();
    verify(&mut client, &acknowledged);
    for process in processes {
        assert_eq!(process.terminate(), Some(0));
    }
}

#[test]
fn reads_of_every_level_are_served_and_leased_ones_ask_nobody() {
    let nodes = directories(3, 8, 1);
    let processes: Vec<Process> = (0..3).map(|node| Process::start(&["--leases"], nodes.dir(node))).collect();
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let mut client = Client::connect(&nodes.addresses(), options).unwrap();
    let levels = [ReadLevel::Linearizable, ReadLevel::Follower, ReadLevel::Stale { max_age_ms: 5_000 }];
    for number in 0..8 {
        put(&mut client, &key(number * 32), "v");
    }
    let mut counters = [0; 3];
    let give_up = Instant::now() + PATIENCE;
    // A lease begins with the second beacon after an election or so.
    while counters[0] < 100 {
        assert!(Instant::now() < give_up, "leased reads, questions and rounds: {counters:?}");
        for (number, level) in (0..8).flat_map(|number| levels.map(|level| (number, level))) {
            let value = client.get_at(key(number * 32), level).unwrap();
            // A stale read may be from before the key was there, within its bound.
            let absent_is_fine = matches!(level, ReadLevel::Stale { .. }) && value.is_none();
            assert!(value.as_deref() == Some(b"v") || absent_is_fine, "{level:?}");
        }
        counters = [0; 3];
        for node in 1..=3 {
            let status = client.status(NodeId(node), CoreId(0)).unwrap();
            counters[0] += status.counters.leased_reads;
            counters[1] += status.counters.index_questions;
            counters[2] += status.counters.read_rounds;
        }
    }
    assert!(counters[1] > 0, "followers asked for indexes");
    drop(processes);
}

#[test]
fn two_cores_each_serve_their_groups() {
    let nodes = directories(3, 8, 2);
    let processes: Vec<Process> = (0..3).map(|node| nodes.start(node)).collect();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    for number in 0..32 {
        put(&mut client, &key(number), "value");
    }
    for number in 0..32 {
        assert_eq!(client.get(key(number)).unwrap().as_deref(), Some(&b"value"[..]));
    }
    for process in processes {
        assert_eq!(process.terminate(), Some(0));
    }
}
