//! Real nodes whose groups make checkpoints: logs stay small, starts go on from what was stored, and who was away or is new
//! gets a snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pontoon::{LogOptions, Node, NodeConfig, Order, Outcome};
use pontoon_client::{Client, ClientOptions, CoreStatus, Request, Response, Ticket};
use pontoon_types::{CoreId, GroupId, NodeId};
use pontoon_wire::client::{Counters, GroupRole};

use crate::support::{Directories, PATIENCE, Process, directories_with};

/// Keys of the load, spread over all ranges.
const KEYS: u64 = 64;

/// Requests in flight.
const INFLIGHT: usize = 32;

/// Few segments, so that a log is full after a moment if nothing is given up.
pub fn tiny_log() -> LogOptions {
    LogOptions { segment_bytes: 1 << 20, max_log_bytes: 12 << 20, ..LogOptions::default() }
}

fn key(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
}

fn value(id: u64, round: u64, bytes: usize) -> Bytes {
    let mut value = format!("{id}:{round}:").into_bytes();
    value.resize(bytes.max(value.len()), b'.');
    Bytes::from(value)
}

pub fn connect(addresses: &[SocketAddr]) -> Client {
    Client::connect(addresses, ClientOptions { timeout: PATIENCE, ..ClientOptions::default() }).unwrap()
}

/// Overwrites all keys, each once in a round, until so many bytes were written, never two writes of one key at a time. Returns
/// the round that each key has.
pub fn overwrite(client: &mut Client, first_round: u64, bytes: u64, value_bytes: usize) -> u64 {
    let rounds = bytes.div_ceil(KEYS * value_bytes as u64);
    let last = first_round + rounds;
    let mut next: VecDeque<(u64, u64)> =
        (first_round..last).flat_map(|round| (0..KEYS).map(move |id| (id, round))).collect();
    let mut flying: BTreeMap<Ticket, (u64, u64)> = BTreeMap::new();
    let mut done = Vec::new();
    let mut refused = None;
    let give_up = Instant::now() + 4 * PATIENCE;
    while !next.is_empty() || !flying.is_empty() {
        if Instant::now() >= give_up {
            let state: Vec<_> = (1..=3).map(|node| status(client, node)).collect();
            panic!("writes go on: {:?}, the last refusal {refused:?}, {state:#?}", next.front());
        }
        while let Some((id, round)) = next.front().copied()
            && flying.len() < INFLIGHT
            && flying.values().all(|(flying, _)| *flying != id)
        {
            next.pop_front();
            let request = Request::Put { key: key(id), value: value(id, round, value_bytes) };
            flying.insert(client.submit(request), (id, round));
        }
        client.poll(Duration::from_millis(50), &mut done).unwrap();
        for completion in done.drain(..) {
            let write = flying.remove(&completion.ticket).unwrap();
            match completion.result {
                Ok(Response::Written(_)) => {}
                Ok(other) => panic!("a put was answered with {other:?}"),
                Err(error) => {
                    refused = Some(error);
                    next.push_front(write);
                }
            }
        }
    }
    last - 1
}

#[track_caller]
pub fn verify(client: &mut Client, round: u64, value_bytes: usize) {
    for id in 0..KEYS {
        let found = client.get(key(id)).unwrap_or_else(|error| {
            let state: Vec<_> = (1..=3).map(|node| status(client, node)).collect();
            panic!("key {id} is served: {error:?}, {state:#?}")
        });
        let has = found.as_ref().map(|it| it.slice(..12));
        assert!(found == Some(value(id, round, value_bytes)), "key {id} has {has:?} and not round {round}");
    }
}

#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + 2 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn status(client: &mut Client, node: u64) -> Option<CoreStatus> {
    client.status(NodeId(node), CoreId(0)).ok()
}

pub fn counters(client: &mut Client, node: u64) -> Counters {
    status(client, node).map(|status| status.counters).unwrap_or_default()
}

/// Bytes of all segment files of a node.
fn log_bytes(dir: &Path) -> u64 {
    let files = crate::support::contents(&dir.join("logs"));
    files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn start(nodes: &Directories, node: usize) -> Process {
    let max_log_bytes = tiny_log().max_log_bytes.to_string();
    Process::start(&["--max-log-bytes", &max_log_bytes], nodes.dir(node))
}

#[test]
fn a_node_writes_far_more_than_its_log_holds_and_starts_from_checkpoints() {
    let nodes = directories_with(1, 1, 4, 1, tiny_log());
    let process = start(&nodes, 0);
    let mut client = connect(&nodes.addresses());
    let round = overwrite(&mut client, 1, 120 << 20, 16 << 10);
    verify(&mut client, round, 16 << 10);
    let counted = counters(&mut client, 1);
    assert!(counted.log_bytes > 100 << 20, "{counted:?}");
    assert!(counted.checkpoints > 4 && counted.checkpoint_bytes > 1 << 20, "{counted:?}");
    assert_eq!(counted.checkpoint_failures, 0);
    let bytes = log_bytes(nodes.dir(0));
    assert!(bytes <= tiny_log().max_log_bytes + (2 << 20) + 8192, "the log holds {bytes} bytes");
    process.kill();

    let process = start(&nodes, 0);
    let mut client = connect(&nodes.addresses());
    verify(&mut client, round, 16 << 10);
    let applied = counters(&mut client, 1).applied_entries;
    assert!(applied < 2000, "{applied} entries of 7,680 were applied again");
    // And on from there, over another start.
    let round = overwrite(&mut client, round + 1, 20 << 20, 16 << 10);
    assert_eq!(process.terminate(), Some(0));
    let process = start(&nodes, 0);
    verify(&mut connect(&nodes.addresses()), round, 16 << 10);
    assert!(process.lines_with("ERROR").is_empty());
}

#[test]
fn with_another_number_of_cores_a_node_keeps_its_checkpoints() {
    let nodes = directories_with(1, 1, 8, 1, tiny_log());
    let process = start(&nodes, 0);
    let mut client = connect(&nodes.addresses());
    let round = overwrite(&mut client, 1, 40 << 20, 16 << 10);
    assert!(counters(&mut client, 1).checkpoints > 0);
    assert_eq!(process.terminate(), Some(0));
    let before = crate::support::contents(&nodes.dir(0).join("store"));
    for cores in [3, 2] {
        let config = NodeConfig { cores: Some(cores), log: tiny_log(), ..NodeConfig::new(nodes.dir(0)) };
        let node = Node::start(config).unwrap();
        verify(&mut connect(&nodes.addresses()), round, 16 << 10);
        node.stop().unwrap();
    }
    assert!(before == crate::support::contents(&nodes.dir(0).join("store")), "they lie where they lay");
}

#[test]
fn a_node_that_was_away_while_the_others_compacted_is_caught_up_by_snapshots() {
    let nodes = directories_with(1, 3, 4, 1, tiny_log());
    let mut processes: Vec<Process> = (0..3).map(|node| start(&nodes, node)).collect();
    let mut client = connect(&nodes.addresses());
    let round = overwrite(&mut client, 1, 4 << 20, 16 << 10);
    processes.remove(2).kill();
    let mut client = connect(&nodes.addresses()[..2]);
    let round = overwrite(&mut client, round + 1, 60 << 20, 16 << 10);
    until("both have compacted", || (1..=2).all(|node| counters(&mut client, node).checkpoints > 0));

    processes.push(start(&nodes, 2));
    let mut all = connect(&nodes.addresses());
    until("it has what the others have", || {
        let applied = |status: CoreStatus| status.groups.iter().map(|group| group.applied.0).collect::<Vec<_>>();
        let of = |client: &mut Client, node| status(client, node).map(applied);
        let third = of(&mut all, 3);
        third.is_some() && third == of(&mut all, 1) && third == of(&mut all, 2)
    });
    let received = counters(&mut all, 3).snapshots_received;
    // A group that has made another checkpoint meanwhile may send it too.
    assert!(received >= 1);
    let sent: u64 = (1..=2).map(|node| counters(&mut all, node).snapshots_sent).sum();
    assert!(sent >= received, "{sent} sent");
    // What it has is asked for, and survives: it decides with one other.
    processes.remove(0).kill();
    verify(&mut connect(&nodes.addresses()[1..]), round, 16 << 10);
    let round = overwrite(&mut connect(&nodes.addresses()[1..]), round + 1, 4 << 20, 16 << 10);
    processes.drain(..).for_each(Process::kill);
    let processes: Vec<Process> = (0..3).map(|node| start(&nodes, node)).collect();
    verify(&mut connect(&nodes.addresses()), round, 16 << 10);
    drop(processes);
}

#[test]
fn a_replica_is_removed_and_a_new_one_comes_to_life_in_its_place() {
    let nodes = directories_with(1, 3, 1, 1, tiny_log());
    let start = |node: usize| {
        Node::start(NodeConfig { log: tiny_log(), pin: false, ..NodeConfig::new(nodes.dir(node)) }).unwrap()
    };
    let mut running: Vec<Node> = (0..3).map(start).collect();
    let mut client = connect(&nodes.addresses());
    let round = overwrite(&mut client, 1, 20 << 20, 16 << 10);
    let group = GroupId(2);
    let of = |client: &mut Client, node: u64| {
        status(client, node).and_then(|status| status.groups.into_iter().find(|it| it.group == group))
    };
    let leader = |client: &mut Client| {
        (1..=3).find(|node| of(client, *node).is_some_and(|it| it.role == GroupRole::Leader)).unwrap()
    };
    // A follower, so that the one that leads stays the same.
    let led_by = leader(&mut client);
    let gone = if led_by == 3 { 2 } else { 3 };
    let stay: Vec<NodeId> = (1..=3).map(NodeId).filter(|node| *node != NodeId(gone)).collect();
    let order = |running: &[Node], voters: &[NodeId], learners: &[NodeId]| {
        let leader = &running[led_by as usize - 1];
        let Ok(Outcome::Members(now)) = leader.members(group).unwrap().recv().unwrap() else { panic!("no members") };
        let (generation, voters, learners) = (now.generation, voters.to_vec(), learners.to_vec());
        leader.order(group, Order::Members { generation, voters, learners }).unwrap().recv().unwrap()
    };
    assert_eq!(order(&running, &stay, &[]), Ok(Outcome::Ordered));
    until("the replica is gone", || of(&mut client, gone).is_none());
    let round = overwrite(&mut client, round + 1, 2 << 20, 16 << 10);
    assert_eq!(order(&running, &stay, &[NodeId(gone)]), Ok(Outcome::Ordered));
    until("a learner has the state", || {
        let committed = of(&mut client, led_by).map(|it| it.committed);
        of(&mut client, gone).is_some_and(|it| Some(it.applied) == committed)
    });
    until("it votes", || order(&running, &[1, 2, 3].map(NodeId), &[]) == Ok(Outcome::Ordered));
    assert!(counters(&mut client, gone).snapshots_received >= 1);
    // It is there after a start, and counts: the other follower ends.
    let round = overwrite(&mut client, round + 1, 2 << 20, 16 << 10);
    running.drain(..).for_each(|node| node.stop().unwrap());
    let running: Vec<Node> = [led_by, gone].map(|node| start(node as usize - 1)).into();
    let mut client = connect(&[nodes.address(led_by as usize - 1), nodes.address(gone as usize - 1)]);
    verify(&mut client, round, 16 << 10);
    overwrite(&mut client, round + 1, 1 << 20, 16 << 10);
    drop(running);
}

/// Changes one byte in the middle of the largest checkpoint. Returns its file.
fn rot_a_chunk(dir: &Path) -> String {
    let files = crate::support::contents(&dir.join("store"));
    let (path, mut bytes) = files.into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_string()
}

#[test]
fn a_rotten_checkpoint_is_named_and_its_group_gets_its_state_from_the_others() {
    let nodes = directories_with(1, 3, 4, 1, tiny_log());
    let mut processes: Vec<Process> = (0..3).map(|node| start(&nodes, node)).collect();
    let mut client = connect(&nodes.addresses());
    let round = overwrite(&mut client, 1, 60 << 20, 16 << 10);
    until("all have compacted", || (1..=3).all(|node| counters(&mut client, node).checkpoints >= 4));
    processes.drain(..).for_each(|process| assert_eq!(process.terminate(), Some(0)));
    let file = rot_a_chunk(nodes.dir(0));
    let processes: Vec<Process> = (0..3).map(|node| start(&nodes, node)).collect();
    let lines = processes[0].lines_with("goes without it");
    assert!(lines.len() == 1 && lines[0].contains(&file) && lines[0].contains("is rotten"), "{lines:?}");
    let mut client = connect(&nodes.addresses());
    verify(&mut client, round, 16 << 10);
    let give_up = Instant::now() + 2 * PATIENCE;
    while counters(&mut client, 1).snapshots_received == 0 {
        let state: Vec<_> = (1..=3).map(|node| status(&mut client, node)).collect();
        assert!(Instant::now() < give_up, "it has its state again: {state:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(processes);
}
#[test]
fn bursts_nearly_as_large_as_the_log_stop_nobody_for_good() {
    let nodes = directories_with(1, 3, 2, 1, tiny_log());
    let processes: Vec<Process> = (0..3).map(|node| start(&nodes, node)).collect();
    let mut client = connect(&nodes.addresses());
    let value_bytes = 256 << 10;
    let round = overwrite(&mut client, 1, 160 << 20, value_bytes);
    until("all that is in a log is durable and applied", || {
        let statuses: Vec<_> = (1..=3).filter_map(|node| status(&mut client, node)).collect();
        let groups: Vec<_> = statuses.iter().flat_map(|status| &status.groups).collect();
        groups.len() == 6
            && groups.iter().all(|group| group.durable == group.last.index && group.applied == group.durable)
    });
    verify(&mut client, round, value_bytes);
    for process in processes {
        assert_eq!(process.terminate(), Some(0));
    }
}
