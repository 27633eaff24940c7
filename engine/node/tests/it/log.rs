//! What a node makes of its log: full, idle, recovered.

use std::path::Path;
use std::time::{Duration, Instant};

use pontoon::identity::DataDir;
use pontoon::{LogOptions, Node, NodeConfig};
use pontoon_client::{Client, ClientError, ClientOptions, Request};
use pontoon_types::{CoreId, Creation, NodeId};
use pontoon_wal::{Log, LogIdentity};

use crate::support::{PATIENCE, Process, directories, small_log};

/// Writes until it is refused: how many keys have a value of 100 KiB.
fn write_until_busy(client: &mut Client) -> usize {
    let (mut acknowledged, mut unknown) = (0, 0);
    let refusal = loop {
        match client.put(format!("key{acknowledged}"), vec![acknowledged as u8; 100 << 10]) {
            Ok(()) => acknowledged += 1,
            // A machine that does much else may be too slow for one; it is put again.
            Err(ClientError::Unknown) => unknown += 1,
            Err(error) => break error,
        }
        assert!(acknowledged + unknown < 100, "10 MB went into a log of 3 MB");
    };
    assert!(matches!(refusal, ClientError::Busy { .. }), "{refusal}");
    assert!(acknowledged > 10, "{acknowledged}");
    acknowledged
}

#[test]
fn a_full_log_whose_checkpoints_fail_answers_busy_and_goes_on_when_they_succeed_or_it_may_grow() {
    let options = ClientOptions { timeout: Duration::from_secs(2), ..ClientOptions::default() };
    for grows in [true, false] {
        let nodes = directories(1, 1, 1);
        let with_log = |max_log_bytes| {
            let log = LogOptions { max_log_bytes, ..small_log() };
            Node::start(NodeConfig { log, ..NodeConfig::new(nodes.dir(0)) }).unwrap()
        };
        let mut node = with_log(3 << 20);
        // No checkpoint can be made, so nothing can be given up.
        let in_the_way = nodes.dir(0).join("store");
        std::fs::write(&in_the_way, "not a directory").unwrap();
        let mut client = Client::connect(&[node.address()], options.clone()).unwrap();
        let acknowledged = write_until_busy(&mut client);
        assert_eq!(client.get("key0").unwrap().map(|value| value.len()), Some(100 << 10), "it still reads");
        let failures = || node.counters()[0].checkpoint_failures;
        let give_up = Instant::now() + PATIENCE;
        while failures() == 0 {
            assert!(Instant::now() < give_up, "checkpoints were tried");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_file(&in_the_way).unwrap();
        if grows {
            node.stop().unwrap();
            node = with_log(64 << 20);
            client = Client::connect(&[node.address()], options.clone()).unwrap();
        }
        let give_up = Instant::now() + PATIENCE;
        while let Err(error) = client.put("more", "value") {
            assert!(Instant::now() < give_up, "it goes on: {error}");
        }
        for number in 0..acknowledged {
            let value = client.get(format!("key{number}")).unwrap().unwrap();
            assert!(value.len() == 100 << 10 && value[0] == number as u8, "key{number}");
        }
        node.stop().unwrap();
    }
}

#[test]
fn one_turn_proposes_no_more_than_a_small_segment_holds() {
    let nodes = directories(1, 1, 1);
    // Started as usual; the segments keep the size that they were created with.
    let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
    let options = ClientOptions { timeout: Duration::from_secs(10), connections: 1, ..ClientOptions::default() };
    let mut client = Client::connect(&[node.address()], options).unwrap();
    for number in 0..40 {
        client.submit(Request::Put { key: format!("key{number}").into(), value: vec![7; 100 << 10].into() });
    }
    let mut done = Vec::new();
    while done.len() < 40 {
        client.poll(Duration::from_millis(100), &mut done).unwrap();
    }
    let failed: Vec<_> = done.iter().filter_map(|completion| completion.result.as_ref().err()).collect();
    assert!(failed.iter().all(|error| matches!(error, ClientError::Busy { .. })), "{failed:?}");
    assert!(failed.len() < 40, "nothing was written");

    client.put("large", vec![7; 350 << 10]).unwrap();
    let refusal = client.put("too large", vec![7; 400 << 10]).unwrap_err();
    assert!(refusal.to_string().contains("command_bytes_max"), "{refusal}");
    client.put("small", "value").unwrap();
    node.stop().unwrap();
}

#[test]
fn an_idle_log_is_sealed_so_that_a_kill_leaves_nothing_unproven() {
    let nodes = directories(1, 1, 1);
    let process = nodes.start(0);
    let mut client = Client::connect(&[process.address], ClientOptions::default()).unwrap();
    client.put("key", "value").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    process.kill();

    let data_dir = DataDir::open(nodes.dir(0)).unwrap();
    let identity = data_dir.identity();
    let log = identity.logs[0];
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log };
    let (_log, recovered) = Log::open(&data_dir.log_dir(log), whose, &small_log()).unwrap();
    assert!(!recovered.clean, "a kill is not a clean stop");
    assert!(!recovered.rewritten, "the last group was not proven durable, so the log was not sealed");
    assert_eq!(recovered.torn_tail, None);
}

/// Makes the log of a node that was never started anew, with smaller segments.
fn shrink(dir: &Path, segment_bytes: u64) {
    let data_dir = DataDir::open(dir).unwrap();
    let identity = data_dir.identity();
    let path = data_dir.log_dir(identity.logs[0]);
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: identity.logs[0] };
    let (log, recovered) = Log::open(&path, whose, &small_log()).unwrap();
    drop(log);
    let creation = |descriptor, replica| Creation { replica, descriptor };
    let groups: Vec<_> =
        recovered.groups.into_iter().map(|(group, kept)| (group, creation(kept.descriptor, kept.replica))).collect();
    std::fs::remove_dir_all(&path).unwrap();
    Log::create(&path, whose, &LogOptions { segment_bytes, ..small_log() }, &groups).unwrap();
}

#[test]
fn a_follower_whose_segments_are_too_small_for_its_leader_is_told_apart_and_not_fenced() {
    let nodes = directories(3, 1, 1);
    shrink(nodes.dir(2), 128 << 10);
    let processes: Vec<_> = (0..3).map(|node| nodes.start(node)).collect();
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let mut client = Client::connect(&nodes.addresses(), options).unwrap();
    // More than any segment of the third node holds.
    client.put("large", vec![7; 350 << 10]).unwrap();
    let why = "the log of the caller has segments of 1048576 bytes, that of the node has 131072, which is too small";
    let give_up = Instant::now() + PATIENCE;
    let is_told = |process: &Process| !process.lines_with(why).is_empty();
    while !processes.iter().all(is_told) {
        assert!(Instant::now() < give_up, "both sides say why they do not talk");
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = client.status(NodeId(3), CoreId(0)).unwrap();
    assert_eq!(status.groups[0].last.index.0, 0, "it has taken nothing, and goes on");
    for process in processes {
        assert_eq!(process.terminate(), Some(0));
    }
}
