//! Writes: replicated, answered once, batched over groups.

use std::time::Duration;

use pontoon_types::Index;
use pontoon_wire::client::{OperationOutcome, Outcome, Refusal};
use pontoon_wire::command::KvOperation;

use crate::cluster::{CLIENT, Cluster, bytes, fresh_request, n};
use pontoon_multiraft::Event;

#[test]
fn a_write_is_answered_once_and_reaches_every_replica() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let outcome = cluster.ask(leader, cluster.put("k", "v"));
    assert_eq!(outcome, Ok(Outcome::Written(vec![OperationOutcome::Put])));
    cluster.run(Duration::from_millis(200));
    let digests: Vec<u64> =
        cluster.cores.values().flat_map(|core| core.groups().map(|view| view.digest()).collect::<Vec<_>>()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let keys: usize = cluster.cores.values().flat_map(|core| core.groups().map(|view| view.keys()).max()).sum();
    assert_eq!(keys, 3);
}

#[test]
fn nothing_is_answered_before_a_quorum_is_durable() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.held = [n(1), n(2), n(3)].into();
    let put = cluster.put("k", "v");
    let sequence = cluster.submit(leader, put);
    cluster.settle();
    assert_eq!(cluster.reply(leader, sequence), None);
    cluster.held.remove(&leader);
    cluster.settle();
    assert_eq!(cluster.reply(leader, sequence), None, "one disk of three is not a quorum");
    cluster.held.clear();
    cluster.settle();
    assert!(matches!(cluster.reply(leader, sequence), Some(Ok(Outcome::Written(_)))));
}

#[test]
fn two_followers_are_a_quorum_before_the_leaders_own_disk() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.held = [leader].into();
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
}

#[test]
fn writes_of_many_groups_in_one_turn_share_one_append_and_one_frame_per_peer() {
    let mut cluster = Cluster::new(64);
    let led = cluster.led_by(n(1));
    assert!(led.len() > 10, "leaders are spread: node 1 leads {} of 64", led.len());
    let operations: Vec<_> = led
        .iter()
        .map(|descriptor| {
            let key = [descriptor.range.start.as_ref(), b"k"].concat();
            let operation = KvOperation::Put { key: key.into(), value: bytes("v") };
            let command = pontoon_wire::command::Command { id: fresh_request(), floor: 0, operations: vec![operation] };
            pontoon_wire::client::Operation::Write {
                group: descriptor.group,
                generation: descriptor.generation,
                command: command.encode(),
            }
        })
        .collect();
    let (_, event) = cluster.frame(operations);
    cluster.frames.clear();
    cluster.appends.clear();
    cluster.event(n(1), event);
    assert_eq!(cluster.appends[&n(1)], 1);
    assert_eq!(cluster.frames[&(n(1), n(2))], 1);
    assert_eq!(cluster.frames[&(n(1), n(3))], 1);
    cluster.settle();
    assert_eq!(cluster.replies[&n(1)].len(), led.len());
}

#[test]
fn a_write_without_a_quorum_ends_as_unknown_and_is_not_answered_again() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.isolate(leader);
    let put = cluster.put("k", "v");
    let sequence = cluster.submit(leader, put);
    cluster.run(Duration::from_secs(6));
    assert_eq!(cluster.reply(leader, sequence), Some(Err(Refusal::Unknown)));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(6));
    assert_eq!(cluster.reply(leader, sequence), None);
}

#[test]
fn a_write_whose_entry_lost_its_place_hears_that_it_was_never_executed() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let old = cluster.leader(group).unwrap();
    cluster.isolate(old);
    let put = cluster.put("k", "lost");
    let sequence = cluster.submit(old, put);
    cluster.run(Duration::from_secs(4));
    let new = cluster.leader_besides(old);
    assert!(cluster.ask(new, cluster.put("k", "kept")).is_ok());
    cluster.cut.clear();
    cluster.run(Duration::from_millis(900));
    assert_eq!(cluster.reply(old, sequence), Some(Err(Refusal::NotLeader { leader: Some(new) })));
    assert_eq!(cluster.ask(new, cluster.get("k")), Ok(Outcome::Value(Some(bytes("kept")))));
}

#[test]
fn a_restart_with_a_long_log_applies_all_of_it_in_bounded_turns() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    for round in 0..50 {
        let operations = (0..100).map(|at| cluster.put(&format!("k{round}-{at}"), "v")).collect();
        let (_, event) = cluster.frame(operations);
        cluster.event(leader, event);
        cluster.settle();
    }
    let view = cluster.cores[&leader].groups().next().unwrap();
    assert_eq!(view.applied(), Index(5_001), "5,000 commands and the no-op of the term");
    assert_eq!(view.keys(), 5_000);
    cluster.event(leader, Event::ClientGone(CLIENT));
}
