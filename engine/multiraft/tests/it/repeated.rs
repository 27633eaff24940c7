//! The same request more than once: over new connections, other leaders, restarts, and long after (law 24).

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::sessions::SessionLimits;
use pontoon_types::{Index, NodeId, RequestId};
use pontoon_wire::client::{Operation, OperationOutcome, Outcome, Refusal};
use pontoon_wire::command::{Command, KvOperation};

use crate::cluster::{Cluster, bytes, n, request};

/// Sets the counter `k` from one number to the next.
fn step(from: Option<&str>, to: &str) -> KvOperation {
    KvOperation::CompareAndSet { key: bytes("k"), expected: from.map(bytes), value: Some(bytes(to)) }
}

fn swapped(succeeded: bool, current: Option<&str>) -> Result<Outcome, Refusal> {
    Ok(Outcome::Written(vec![OperationOutcome::Swapped { succeeded, current: current.map(bytes) }]))
}

fn last(cluster: &Cluster, node: NodeId) -> Index {
    cluster.cores[&node].groups().next().unwrap().last().index
}

fn write(cluster: &Cluster, id: RequestId, floor: u64, operation: KvOperation) -> Operation {
    let descriptor = &cluster.descriptors[0];
    let command = Command { id, floor, operations: vec![operation] }.encode();
    Operation::Write { group: descriptor.group, generation: descriptor.generation, command }
}

#[test]
fn a_repeated_request_is_answered_by_what_it_came_to_at_first() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let first = cluster.write_as(request(1, 0, 1), "k", step(None, "1"));
    assert_eq!(cluster.ask(leader, first.clone()), swapped(true, None));
    assert_eq!(
        cluster.ask(leader, cluster.write_as(request(1, 0, 2), "k", step(Some("1"), "2"))),
        swapped(true, Some("1"))
    );
    let before = last(&cluster, leader);
    assert_eq!(cluster.ask(leader, first.clone()), swapped(true, None), "not the outcome that it would have now");
    assert_eq!(last(&cluster, leader), before, "and without an entry");
    // What became of it does not depend on who leads, or on what the client thinks of the range.
    let follower = *cluster.cores.keys().find(|node| **node != leader).unwrap();
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.ask(follower, first.clone()), swapped(true, None));
    let Operation::Write { group, command, .. } = first else { unreachable!() };
    let outdated = Operation::Write { group, generation: pontoon_types::Generation(0), command };
    assert_eq!(cluster.ask(leader, outdated), swapped(true, None));
    assert_eq!(cluster.ask(leader, cluster.get("k")), Ok(Outcome::Value(Some(bytes("2")))));
}

#[test]
fn a_request_in_flight_is_waited_for_by_whoever_asks_again() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.held = [n(1), n(2), n(3)].into();
    let operation = cluster.write_as(request(1, 0, 1), "k", step(None, "1"));
    let first = cluster.submit(leader, operation.clone());
    let before = last(&cluster, leader);
    let second = cluster.submit(leader, operation);
    cluster.settle();
    assert_eq!(last(&cluster, leader), before, "one entry for both");
    assert_eq!((cluster.reply(leader, first), cluster.reply(leader, second)), (None, None));
    cluster.held.clear();
    cluster.settle();
    assert_eq!(cluster.reply(leader, first), Some(swapped(true, None)));
    assert_eq!(cluster.reply(leader, second), Some(swapped(true, None)));
}

/// Two entries of one request: the second changes nothing and gives the outcome of the first.
#[test]
fn a_second_entry_is_not_executed() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let operation = cluster.write_as(request(1, 0, 1), "k", step(None, "1"));
    let before = last(&cluster, leader);
    let (first, event) = cluster.frame(vec![operation.clone(), operation]);
    cluster.event(leader, event);
    cluster.settle();
    assert_eq!(last(&cluster, leader), Index(before.0 + 2), "both came into the log in one turn");
    assert_eq!(cluster.reply(leader, first), Some(swapped(true, None)));
    assert_eq!(cluster.reply(leader, first + 1), Some(swapped(true, None)));
}

/// The leader is cut off with the entry in its log; another one carries it out, and is asked again.
#[test]
fn a_request_survives_its_leader() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let old = cluster.leader(group).unwrap();
    let operation = cluster.write_as(request(1, 0, 1), "k", step(None, "1"));
    let sequence = cluster.submit(old, operation.clone());
    cluster.settle();
    assert_eq!(cluster.reply(old, sequence), Some(swapped(true, None)));
    cluster.isolate(old);
    cluster.run(Duration::from_secs(6));
    let new = cluster.leader_besides(old);
    assert_eq!(cluster.ask(new, operation), swapped(true, None));
    assert_eq!(cluster.ask(new, cluster.get("k")), Ok(Outcome::Value(Some(bytes("1")))));
}

#[test]
fn what_was_done_is_known_after_a_restart() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let leader = cluster.leader(group).unwrap();
    let operation = cluster.write_as(request(1, 0, 1), "k", step(None, "1"));
    assert_eq!(cluster.ask(leader, operation.clone()), swapped(true, None));
    for node in [n(1), n(2), n(3)] {
        cluster.restart(node, |_| {});
    }
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader(group).unwrap();
    assert_eq!(cluster.ask(leader, operation), swapped(true, None));
    let digests: Vec<u64> = cluster.cores.values().map(|core| core.groups().next().unwrap().digest()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn what_is_below_the_floor_is_never_executed() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let put = |value: &str| KvOperation::Put { key: bytes("k"), value: bytes(value) };
    let late = write(&cluster, request(1, 0, 1), 1, put("late"));
    assert!(cluster.ask(leader, write(&cluster, request(1, 0, 2), 2, put("new"))).is_ok());
    assert!(matches!(cluster.ask(leader, late), Err(Refusal::Forgotten { .. })));
    assert_eq!(cluster.ask(leader, cluster.get("k")), Ok(Outcome::Value(Some(bytes("new")))));
}

/// More clients than a group remembers: who made room is refused with the time, and opens a session then.
#[test]
fn a_client_that_made_room_is_refused_once() {
    let few = SessionLimits { sessions_max: 2, ..SessionLimits::default() };
    let mut cluster = Cluster::dark_with(1, |config| config.sessions = few).lit();
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let put = |value: &str| KvOperation::Put { key: bytes("k"), value: bytes(value) };
    let of_first = write(&cluster, request(1, 0, 1), 1, put("1"));
    assert!(cluster.ask(leader, of_first.clone()).is_ok());
    assert!(cluster.ask(leader, write(&cluster, request(2, 0, 1), 1, put("2"))).is_ok());
    assert!(cluster.ask(leader, write(&cluster, request(3, 0, 1), 1, put("3"))).is_ok());
    let Err(Refusal::Forgotten { now }) = cluster.ask(leader, of_first.clone()) else { panic!("it was executed") };
    assert!(cluster.ask(leader, write(&cluster, request(1, now.0, 2), 2, put("4"))).is_ok());
    assert!(matches!(cluster.ask(leader, of_first), Err(Refusal::Forgotten { .. })), "also when the client is back");
    assert_eq!(cluster.ask(leader, cluster.get("k")), Ok(Outcome::Value(Some(bytes("4")))));
}

/// A moment that the group has not reached cannot have been heard of.
#[test]
fn a_session_of_the_future_is_not_opened() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let put = KvOperation::Put { key: bytes("k"), value: Bytes::new() };
    let future = write(&cluster, request(1, 1_000, 1), 1, put);
    assert!(matches!(cluster.ask(leader, future), Err(Refusal::Forgotten { .. })));
    assert_eq!(cluster.ask(leader, cluster.get("k")), Ok(Outcome::Value(None)));
}
