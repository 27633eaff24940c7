//! What a turn may ask of the machine, and what happens when the disk is slow, full or gone.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pontoon::{CoreFailure, LogOptions, Node, NodeConfig};
use pontoon_client::{Client, ClientError, ClientOptions, ReadLevel, Request, Response};
use pontoon_types::{CoreId, NodeId};
use pontoon_wal::LogError;

use crate::checkpoints::until;
use crate::support::{Directories, PATIENCE, directories, small_log};
use crate::watched::{start, start_with};

#[test]
fn a_turn_keeps_to_its_budget_of_system_calls() {
    let nodes = directories(3, 16, 1);
    let bench = start(&nodes, 0);
    let others: Vec<Node> = [1, 2].map(|node| Node::start(NodeConfig::new(nodes.dir(node))).unwrap()).into();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    client.put("first", "value").unwrap();
    let (mut done, mut sent, mut failed) = (Vec::new(), 0u32, 0);
    const WRITES: u32 = 5_000;
    while done.len() < WRITES as usize {
        while sent < WRITES && sent as usize - done.len() < 64 {
            let key = [&((sent.wrapping_mul(40_503)) as u16).to_be_bytes()[..], &sent.to_be_bytes()].concat();
            client.submit(Request::Put { key: key.into(), value: vec![7; 256].into() });
            sent += 1;
        }
        client.poll(Duration::from_millis(100), &mut done).unwrap();
    }
    for completion in &done {
        failed += usize::from(completion.result.is_err());
    }
    assert_eq!(failed, 0, "of {WRITES} writes");
    bench.inbox.stop();
    // A broken budget is a panic of the loop's thread.
    bench.thread.join().unwrap().unwrap();
    let counters = *bench.counters.lock().unwrap();
    assert!(counters.turns > 100 && counters.syncs > 10, "{counters:?}");
    assert!(counters.system_calls < 10 * counters.turns, "{counters:?}");
    for node in others {
        node.stop().unwrap();
    }
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let nodes = directories(1, 1, 1);
    let bench = start(&nodes, 0);
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let mut client = Client::connect(&nodes.addresses(), options).unwrap();
    client.put("before", "value").unwrap();

    bench.machine.disk_fails.store(true, Ordering::SeqCst);
    let answer = client.put("after", "value");
    assert!(
        matches!(answer, Err(ClientError::Unknown)),
        "a write whose sync failed is neither acknowledged nor refused: {answer:?}"
    );
    let failure = bench.thread.join().unwrap().unwrap_err();
    assert!(matches!(failure, CoreFailure::Log(LogError::Fenced { .. })), "{failure}");
    assert!(failure.to_string().contains("the disk is gone"), "{failure}");

    // The disk did not really fail here; whatever it holds, what was acknowledged is there.
    let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    assert_eq!(client.get("before").unwrap().as_deref(), Some(&b"value"[..]));
    node.stop().unwrap();
}

#[test]
fn a_slow_sync_is_awaited_asleep_while_the_next_group_gathers() {
    let nodes = directories(1, 1, 1);
    let bench = start(&nodes, 0);
    let mut client = patient_client(&nodes);
    client.put("before", "value").unwrap();
    bench.machine.sync_ms.store(300, Ordering::SeqCst);
    let mut done = Vec::new();
    client.submit(Request::Put { key: "a".into(), value: "a".into() });
    client.poll(Duration::from_millis(50), &mut done).unwrap();
    // Gathers during the first sync, so that the next one starts in the turn in which that one ends.
    client.submit(Request::Put { key: "b".into(), value: "b".into() });
    let before = bench.machine.waits.load(Ordering::SeqCst);
    while done.len() < 2 {
        client.poll(Duration::from_millis(100), &mut done).unwrap();
    }
    let waits = bench.machine.waits.load(Ordering::SeqCst) - before;
    assert!(done.iter().all(|completion| completion.result.is_ok()), "{done:?}");
    assert!(waits < 100, "{waits} turns during two syncs of 300 ms");
    bench.inbox.stop();
    bench.thread.join().unwrap().unwrap();
}

#[test]
fn a_slow_sync_gathers_no_more_than_the_log_can_take() {
    let nodes = directories(1, 1, 1);
    let bench = start_with(&nodes, 0, LogOptions { max_log_bytes: 3 << 20, ..small_log() });
    let mut client = patient_client(&nodes);
    client.put("before", "value").unwrap();
    // While this sync runs more is asked for than the log can ever take.
    bench.machine.sync_ms.store(800, Ordering::SeqCst);
    let mut done = Vec::new();
    for number in 0..64 {
        client.submit(Request::Put { key: format!("key{number}").into(), value: vec![7; 100 << 10].into() });
        client.poll(Duration::from_millis(5), &mut done).unwrap();
    }
    bench.machine.sync_ms.store(0, Ordering::SeqCst);
    until("all that was taken in is written", || {
        let group = client.status(NodeId(1), CoreId(0)).unwrap().groups.remove(0);
        group.last.index.0 > 5 && group.durable == group.last.index && group.applied == group.durable
    });
    std::thread::sleep(Duration::from_millis(500));
    let before = bench.machine.waits.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(500));
    let waits = bench.machine.waits.load(Ordering::SeqCst) - before;
    assert!(waits < 50, "{waits} turns of a full log in 500 ms");
    bench.inbox.stop();
    bench.thread.join().unwrap().unwrap();
}

#[test]
fn a_lone_voter_leads_on_through_a_stall() {
    let nodes = directories(1, 1, 1);
    let bench = start(&nodes, 0);
    let mut client = patient_client(&nodes);
    client.put("before", "value").unwrap();
    bench.machine.sync_ms.store(400, Ordering::SeqCst);
    client.put("during", "value").unwrap();
    bench.machine.sync_ms.store(0, Ordering::SeqCst);
    client.put("after", "value").unwrap();
    bench.inbox.stop();
    bench.thread.join().unwrap().unwrap();
    assert_eq!(bench.counters.lock().unwrap().elections_won, 1);
}

#[test]
fn a_node_whose_disk_stalls_gives_its_groups_to_the_others_and_loses_nothing() {
    let nodes = directories(3, 16, 1);
    let bench = start(&nodes, 0);
    let others: Vec<Node> = [1, 2].map(|node| Node::start(NodeConfig::new(nodes.dir(node))).unwrap()).into();
    let mut client = patient_client(&nodes);
    let key = |number: u32| [&((number.wrapping_mul(40_503)) as u16).to_be_bytes()[..], &number.to_be_bytes()].concat();
    let mut acknowledged = Vec::new();
    let mut write = |client: &mut Client, number| {
        if client.put(key(number), "value").is_ok() {
            acknowledged.push(number);
        }
    };
    (0..64).for_each(|number| write(&mut client, number));
    let won = |nodes: &[Node]| nodes.iter().map(|node| node.counters()[0].elections_won).sum::<u64>();
    // Every group has a leader by now; the counters are shown a little later.
    let give_up = Instant::now() + PATIENCE;
    let led = loop {
        std::thread::sleep(Duration::from_millis(250));
        let led = bench.counters.lock().unwrap().elections_won;
        if led > 0 {
            break led;
        }
        assert!(Instant::now() < give_up, "the node that will stall leads something");
    };
    let (before, give_up) = (won(&others), Instant::now() + PATIENCE);
    bench.machine.sync_ms.store(700, Ordering::SeqCst);
    let mut number = 64;
    while won(&others) < before + led {
        assert!(Instant::now() < give_up, "{} of {led} groups have moved", won(&others) - before);
        write(&mut client, number);
        number += 1;
    }
    bench.machine.sync_ms.store(0, Ordering::SeqCst);
    write(&mut client, number);
    assert!(acknowledged.len() > 64, "writes go on");
    for number in acknowledged {
        assert_eq!(client.get(key(number)).unwrap().as_deref(), Some(&b"value"[..]), "{number}");
    }
    // The stall is over, so it campaigns for some of what another node leads, when that one stops.
    let mut others = others;
    others.remove(0).stop().unwrap();
    let give_up = Instant::now() + PATIENCE;
    while bench.counters.lock().unwrap().elections_won == led {
        assert!(Instant::now() < give_up, "it does not campaign any more");
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.inbox.stop();
    bench.thread.join().unwrap().unwrap();
    for node in others {
        node.stop().unwrap();
    }
}

#[test]
fn a_sync_that_never_ends_ends_the_core_and_nothing_is_acknowledged() {
    let nodes = directories(1, 1, 1);
    let bench = start(&nodes, 0);
    let mut client = patient_client(&nodes);
    client.put("before", "value").unwrap();
    bench.machine.sync_ms.store(60_000, Ordering::SeqCst);
    let mut done = Vec::new();
    client.submit(Request::Put { key: "hangs".into(), value: "value".into() });
    client.poll(Duration::from_millis(200), &mut done).unwrap();
    bench.machine.ahead_ms.store(29_000, Ordering::SeqCst);
    client.submit(Request::Get { key: "before".into(), level: ReadLevel::Linearizable });
    client.poll(Duration::from_millis(200), &mut done).unwrap();
    assert!(!bench.thread.is_finished(), "it is too early");
    bench.machine.ahead_ms.store(31_000, Ordering::SeqCst);
    // Something that arrives makes the loop look at its clock.
    client.submit(Request::Get { key: "before".into(), level: ReadLevel::Linearizable });
    client.poll(Duration::from_millis(200), &mut done).unwrap();
    let failure = bench.thread.join().unwrap().unwrap_err();
    assert!(matches!(failure, CoreFailure::Stalled { .. }), "{failure}");
    assert!(failure.to_string().contains("Check the disk"), "{failure}");
    let written = done.iter().filter(|completion| matches!(completion.result, Ok(Response::Written(_)))).count();
    assert_eq!(written, 0, "{done:?}");
}

fn patient_client(nodes: &Directories) -> Client {
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    Client::connect(&nodes.addresses(), options).unwrap()
}
