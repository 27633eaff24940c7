//! Linearizable reads: one round for each peer and turn (law 6).

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::Event;
use pontoon_types::{CoreId, Incarnation};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, Refusal};
use pontoon_wire::peer::{PeerFrame, ReadConfirmation};

use crate::cluster::{Cluster, bytes, n};

#[test]
fn reads_of_many_groups_in_one_turn_share_one_round_and_write_nothing() {
    let mut cluster = Cluster::new(64);
    let led = cluster.led_by(n(1));
    let operations: Vec<Operation> = led
        .iter()
        .map(|descriptor| Operation::Get {
            group: descriptor.group,
            generation: descriptor.generation,
            key: descriptor.range.start.clone().to_vec().into_iter().chain([1]).collect(),
            level: ReadLevel::Linearizable,
        })
        .collect();
    let rounds = cluster.cores[&n(1)].counters().read_rounds;
    cluster.frames.clear();
    cluster.appends.clear();
    let (_, event) = cluster.frame(operations);
    cluster.event(n(1), event);
    cluster.settle();
    assert_eq!(cluster.cores[&n(1)].counters().read_rounds, rounds + 1);
    assert_eq!(cluster.frames[&(n(1), n(2))], 1);
    assert_eq!(cluster.frames[&(n(2), n(1))], 1);
    assert!(cluster.appends.is_empty());
    assert_eq!(cluster.replies[&n(1)].len(), led.len());
}

#[test]
fn a_deposed_leader_that_does_not_know_it_serves_no_stale_read() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let old = cluster.leader(group).unwrap();
    assert!(cluster.ask(old, cluster.put("k", "old")).is_ok());
    cluster.isolate(old);
    // The old leader has the read before it can know that it was deposed.
    let get = cluster.get("k");
    let sequence = cluster.submit(old, get);
    cluster.run(Duration::from_secs(4));
    let new = cluster.leader_besides(old);
    assert!(cluster.ask(new, cluster.put("k", "new")).is_ok());
    let get = cluster.get("k");
    let late = cluster.submit(old, get);
    cluster.run(Duration::from_secs(6));
    for sequence in [sequence, late] {
        let reply = cluster.reply(old, sequence);
        assert!(matches!(reply, Some(Err(Refusal::NotLeader { .. }))), "{reply:?}");
    }
    cluster.cut.clear();
    cluster.run(Duration::from_secs(6));
    assert_eq!(cluster.reply(old, sequence), None, "no request is answered twice");
    assert_eq!(cluster.ask(new, cluster.get("k")), Ok(Outcome::Value(Some(bytes("new")))));
}

#[test]
fn a_confirmation_of_another_incarnation_round_or_term_says_nothing() {
    let mut cluster = Cluster::new(1);
    let descriptor = cluster.descriptors[0].clone();
    let leader = cluster.leader(descriptor.group).unwrap();
    let follower = *cluster.cores.keys().find(|node| **node != leader).unwrap();
    for other in [n(1), n(2), n(3)] {
        cluster.cut.insert((other, leader));
    }
    let term = cluster.cores[&leader].groups().next().unwrap().term();
    let get = cluster.get("k");
    let sequence = cluster.submit(leader, get);
    let id = cluster.cores[&leader].counters().read_rounds;
    let wrong_term = pontoon_types::Term(term.0 - 1);
    for (incarnation, id, term) in [(0, id, term), (1, id + 1, term), (1, id, wrong_term)] {
        confirm(&mut cluster, follower, leader, Incarnation(incarnation), id, term);
        assert_eq!(cluster.reply(leader, sequence), None);
    }
    confirm(&mut cluster, follower, leader, Incarnation(1), id, term);
    assert_eq!(cluster.reply(leader, sequence), Some(Ok(Outcome::Value(None))));
}

fn confirm(
    cluster: &mut Cluster,
    from: pontoon_types::NodeId,
    to: pontoon_types::NodeId,
    incarnation: Incarnation,
    id: u64,
    term: pontoon_types::Term,
) {
    let group = cluster.descriptors[0].group;
    let mut bytes = Vec::new();
    PeerFrame {
        confirmations: vec![ReadConfirmation { incarnation, id, groups: vec![(group, term)] }],
        ..PeerFrame::new(from, CoreId(0), to, Incarnation(1))
    }
    .encode(&mut bytes);
    cluster.event(to, Event::PeerFrame { from, bytes: Bytes::from(bytes) });
}

#[test]
fn a_scan_stops_at_its_limit_and_says_where_to_go_on() {
    let mut cluster = Cluster::new(1);
    let descriptor = cluster.descriptors[0].clone();
    let leader = cluster.leader(descriptor.group).unwrap();
    for key in ["a", "b", "c", "d"] {
        assert!(cluster.ask(leader, cluster.put(key, key)).is_ok());
    }
    let scan = |start: &str, limit| Operation::Scan {
        group: descriptor.group,
        generation: descriptor.generation,
        start: bytes(start),
        end: Some(bytes("d")),
        limit,
        level: ReadLevel::Linearizable,
    };
    let pair = |key: &str| (bytes(key), bytes(key));
    let first = cluster.ask(leader, scan("a", 2));
    assert_eq!(first, Ok(Outcome::Pairs { pairs: vec![pair("a"), pair("b")], next: Some(bytes("c")) }));
    let second = cluster.ask(leader, scan("c", 2));
    assert_eq!(second, Ok(Outcome::Pairs { pairs: vec![pair("c")], next: None }));
}
