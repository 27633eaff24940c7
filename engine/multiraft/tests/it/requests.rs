//! Requests that are refused: each says what to do, and changes nothing.

use bytes::Bytes;
use pontoon_multiraft::Event;
use pontoon_types::{Generation, GroupId, LogRoom};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, Refusal};
use pontoon_wire::command::KvOperation;

use crate::cluster::{CLIENT, Cluster, bytes, n};

fn lasts(cluster: &Cluster) -> Vec<String> {
    cluster
        .cores
        .values()
        .flat_map(|core| core.groups().map(|view| view.last().to_string()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_follower_names_the_leader() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let follower = *cluster.cores.keys().find(|node| **node != leader).unwrap();
    let before = lasts(&cluster);
    assert_eq!(cluster.ask(follower, cluster.put("k", "v")), Err(Refusal::NotLeader { leader: Some(leader) }));
    assert_eq!(cluster.ask(follower, cluster.get("k")), Err(Refusal::NotLeader { leader: Some(leader) }));
    assert_eq!(lasts(&cluster), before);
}

#[test]
fn a_stale_generation_is_answered_with_the_descriptor() {
    let mut cluster = Cluster::new(2);
    let descriptor = cluster.group_of("k").clone();
    let leader = cluster.leader(descriptor.group).unwrap();
    let stale = Operation::Get {
        group: descriptor.group,
        generation: Generation(0),
        key: bytes("k"),
        level: ReadLevel::Linearizable,
    };
    let refusal = cluster.ask(leader, stale).unwrap_err();
    assert_eq!(refusal, Refusal::StaleDescriptor { descriptor, leader: Some(leader) });
}

#[test]
fn an_unknown_group_and_a_key_outside_the_range_are_refused() {
    let mut cluster = Cluster::new(2);
    let descriptor = cluster.group_of("k").clone();
    let leader = cluster.leader(descriptor.group).unwrap();
    let unknown = Operation::Get {
        group: GroupId(99),
        generation: Generation(1),
        key: bytes("k"),
        level: ReadLevel::Linearizable,
    };
    assert!(matches!(cluster.ask(leader, unknown), Err(Refusal::Refused { .. })));
    let outside = Operation::Get {
        group: descriptor.group,
        generation: descriptor.generation,
        key: Bytes::from_static(&[0xff; 4]),
        level: ReadLevel::Linearizable,
    };
    let Err(Refusal::Refused { why }) = cluster.ask(leader, outside) else { panic!("served a key outside the range") };
    assert!(why.contains("outside"), "{why}");
}

#[test]
fn limits_are_refused_with_their_name() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let before = lasts(&cluster);
    let value = Bytes::from(vec![0; (1 << 20) + 1]);
    let large = cluster.write("k", KvOperation::Put { key: bytes("k"), value });
    assert!(matches!(cluster.ask(leader, large), Err(Refusal::TooLarge { .. })));
    let long_key = "k".repeat((4 << 10) + 1);
    let large = cluster.write("k", KvOperation::Put { key: bytes(&long_key), value: bytes("v") });
    assert!(matches!(cluster.ask(leader, large), Err(Refusal::TooLarge { .. })));
    assert_eq!(lasts(&cluster), before);
}

#[test]
fn a_full_log_is_busy_for_writes_and_serves_reads() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.event(leader, Event::LogRoom(LogRoom(0)));
    assert!(matches!(cluster.ask(leader, cluster.put("k", "v")), Err(Refusal::Busy { .. })));
    assert_eq!(cluster.ask(leader, cluster.get("k")), Ok(Outcome::Value(None)));
    cluster.event(leader, Event::LogRoom(LogRoom(1 << 20)));
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
}

#[test]
fn too_many_waiting_requests_are_busy() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.held = [n(1), n(2), n(3)].into();
    let limit = pontoon_types::limits::CORE_REQUESTS_MAX;
    let operations = (0..limit + 5).map(|_| cluster.put("k", "v")).collect();
    let (first, event) = cluster.frame(operations);
    cluster.event(leader, event);
    let busy =
        cluster.replies[&leader].iter().filter(|reply| matches!(reply.result, Err(Refusal::Busy { .. }))).count();
    assert_eq!(busy, 5);
    cluster.held.clear();
    cluster.settle();
    for sequence in first..first + limit as u64 {
        assert!(matches!(cluster.reply(leader, sequence), Some(Ok(_))), "request {sequence}");
    }
}

#[test]
fn what_is_not_a_frame_closes_that_connection_only() {
    let mut cluster = Cluster::new(1);
    cluster.event(n(1), Event::ClientFrame { connection: CLIENT, bytes: Bytes::from_static(&[7; 64]) });
    assert_eq!(cluster.closed.len(), 1);
    assert_eq!(cluster.closed[0].0, CLIENT);
    cluster.event(n(1), Event::PeerFrame { from: n(2), bytes: Bytes::from_static(&[7; 64]) });
    assert_eq!(cluster.refused_peers.len(), 1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
}

#[test]
fn a_frame_that_speaks_for_another_node_breaks_the_link() {
    let mut cluster = Cluster::new(1);
    let mut bytes = Vec::new();
    pontoon_wire::peer::PeerFrame::new(n(3), pontoon_types::CoreId(0), n(1), pontoon_types::Incarnation(1))
        .encode(&mut bytes);
    cluster.event(n(1), Event::PeerFrame { from: n(2), bytes: Bytes::from(bytes) });
    assert_eq!(cluster.refused_peers.len(), 1);
    assert!(cluster.refused_peers[0].1.contains("n3"), "{:?}", cluster.refused_peers);
}

#[test]
fn routes_and_status_are_answered_by_any_node() {
    let mut cluster = Cluster::new(8);
    let Ok(Outcome::Routes(routes)) = cluster.ask(n(2), Operation::Routes) else { panic!("no routes") };
    assert_eq!(routes.ranges.len(), 8);
    assert_eq!(routes.nodes.len(), 3);
    for (descriptor, leader) in &routes.ranges {
        assert_eq!(*leader, cluster.leader(descriptor.group));
    }
    let Ok(Outcome::Status(status)) = cluster.ask(n(2), Operation::Status) else { panic!("no status") };
    assert_eq!(status.groups.len(), 8);
    assert!(status.counters.requests >= 2);
}

#[test]
fn a_peer_that_contradicts_a_law_is_named_and_stops_nobody() {
    use pontoon_types::{Body, CoreId, Incarnation, LogId, Message};
    let mut cluster = Cluster::new(1);
    let descriptor = cluster.descriptors[0].clone();
    let leader = cluster.leader(descriptor.group).unwrap();
    let liar = *cluster.cores.keys().find(|node| **node != leader).unwrap();
    let term = cluster.cores[&leader].groups().next().unwrap().term();
    let message = Message {
        from: descriptor.replica_on(liar).unwrap(),
        to: descriptor.replica_on(leader).unwrap(),
        term,
        body: Body::Append { previous: LogId::default(), entries: Vec::new(), commit: pontoon_types::Index(0) },
    };
    let mut bytes = Vec::new();
    pontoon_wire::peer::PeerFrame {
        messages: vec![(descriptor.group, message)],
        ..pontoon_wire::peer::PeerFrame::new(liar, CoreId(0), leader, Incarnation(1))
    }
    .encode(&mut bytes);
    cluster.event(leader, Event::PeerFrame { from: liar, bytes: Bytes::from(bytes) });
    assert_eq!(cluster.refused_peers.len(), 1);
    assert!(cluster.refused_peers[0].1.contains("election safety"), "{:?}", cluster.refused_peers);
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
}
