//! A committed command that a build cannot read: its group stands still there, and nothing else does.

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{CheckpointConfig, CoreConfig, GroupView, Role};
use pontoon_types::{GroupId, NodeId};
use pontoon_wire::client::{Condition, Outcome};
use pontoon_wire::command::{Command, CommandError};

use crate::cluster::{Cluster, bytes, n};

/// Reads everything but what names the key `new`.
fn old_build(command: Bytes) -> Result<Command, CommandError> {
    let decoded = Command::decode(command)?;
    let is_new = decoded.operations.iter().any(|operation| operation.key().as_ref() == b"new");
    if is_new { Err(CommandError::Version { found: 2 }) } else { Ok(decoded) }
}

/// Two ranges, the second of which begins above all letters used here; checkpoints are small and made only when asked for.
fn cluster(old: &[NodeId]) -> Cluster {
    let mut cluster = Cluster::dark_with(2, |config: &mut CoreConfig| {
        config.checkpoint = CheckpointConfig { log_bytes: 1 << 20, chunk_bytes: 64 };
        if old.contains(&config.node) {
            config.decode_command = old_build;
        }
    });
    cluster.prints = true;
    let mut cluster = cluster.lit();
    cluster.run(Duration::from_secs(1));
    cluster
}

fn first(cluster: &Cluster) -> GroupId {
    cluster.descriptors[0].group
}

fn view(cluster: &Cluster, node: NodeId) -> GroupView<'_> {
    let group = first(cluster);
    cluster.cores[&node].groups().find(|view| view.group() == group).expect("a replica")
}

fn conditions(cluster: &Cluster) -> Vec<Condition> {
    [n(1), n(2), n(3)].into_iter().map(|node| view(cluster, node).condition()).collect()
}

fn put(cluster: &mut Cluster, key: &str) {
    let leader = cluster.leader(first(cluster)).expect("a leader");
    let put = cluster.put(key, key);
    cluster.ask(leader, put).unwrap();
}

#[test]
fn a_follower_that_cannot_read_an_entry_stands_still_and_gets_a_snapshot_behind_it() {
    let probe = cluster(&[]);
    let leader = probe.leader(first(&probe)).unwrap();
    let old = [n(1), n(2), n(3)].into_iter().find(|node| *node != leader).unwrap();
    let mut cluster = cluster(&[old]);
    assert_eq!(cluster.leader(first(&cluster)), Some(leader));
    put(&mut cluster, "a");
    cluster.shelved.extend([n(1), n(2), n(3)]);
    put(&mut cluster, "new");
    cluster.run(Duration::from_millis(200));
    assert_eq!(view(&cluster, old).condition(), Condition::Unreadable);
    assert_eq!(view(&cluster, old).applied().next(), view(&cluster, leader).applied(), "it stops before the entry");
    assert_eq!(view(&cluster, old).committed(), view(&cluster, leader).committed(), "and holds it");
    assert_eq!(cluster.parked.len(), 1, "it is said once: {:?}", cluster.parked);
    assert_eq!(cluster.leader(first(&cluster)), Some(leader), "the others go on");
    put(&mut cluster, "b");

    println!("the stores work again");
    cluster.shelved.clear();
    cluster.run(Duration::from_secs(20));
    put(&mut cluster, "c");
    cluster.run(Duration::from_secs(1));
    assert_eq!(conditions(&cluster), [Condition::Well; 3]);
    assert_eq!(view(&cluster, old).digest(), view(&cluster, leader).digest());
    assert_eq!(view(&cluster, old).applied(), view(&cluster, leader).applied());
}

#[test]
fn a_leader_that_cannot_read_an_entry_makes_way_for_one_that_can() {
    let probe = cluster(&[]);
    let old = probe.leader(first(&probe)).unwrap();
    let mut cluster = cluster(&[old]);
    assert_eq!(cluster.leader(first(&cluster)), Some(old));
    let others = cluster.led_by(old).len();
    let put_new = cluster.put("new", "x");
    cluster.submit(old, put_new);
    cluster.run(Duration::from_secs(20));
    let leader = cluster.leader(first(&cluster)).expect("somebody leads");
    assert_ne!(leader, old);
    assert_eq!(cluster.ask(leader, cluster.get("new")), Ok(Outcome::Value(Some(bytes("x")))), "nothing is lost");
    put(&mut cluster, "a");
    cluster.run(Duration::from_secs(1));
    assert_eq!(conditions(&cluster), [Condition::Well; 3]);
    assert_eq!(cluster.led_by(old).len(), others - 1, "its other group stays where it is");
}

#[test]
fn an_entry_that_nobody_can_read_stops_its_group_alone_until_a_build_that_can_is_started() {
    let mut cluster = cluster(&[n(1), n(2), n(3)]);
    let leader = cluster.leader(first(&cluster)).unwrap();
    put(&mut cluster, "a");
    let put_new = cluster.put("new", "x");
    cluster.submit(leader, put_new);
    cluster.run(Duration::from_secs(30));
    assert_eq!(conditions(&cluster), [Condition::Unreadable; 3]);
    assert_eq!(cluster.leader(first(&cluster)), None, "nobody could serve it");
    let second = cluster.descriptors[1].clone();
    let node = cluster.leader(second.group).expect("the other group is led");
    let put_other = cluster.put("\u{e9}", "y");
    cluster.ask(node, put_other).unwrap();
    assert!(cluster.cores.values().flat_map(|core| core.groups()).all(|view| view.role() != Role::Candidate));

    println!("the nodes get a newer build");
    for node in [n(1), n(2), n(3)] {
        cluster.change_config(node, |config| config.decode_command = Command::decode);
        cluster.restart(node, |_| {});
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(conditions(&cluster), [Condition::Well; 3]);
    let leader = cluster.leader(first(&cluster)).unwrap();
    assert_eq!(cluster.ask(leader, cluster.get("new")), Ok(Outcome::Value(Some(bytes("x")))), "it was committed");
}

#[test]
fn an_old_build_costs_a_snapshot_now_and_then_and_not_one_for_each_command() {
    let probe = cluster(&[]);
    let leader = probe.leader(first(&probe)).unwrap();
    let old = [n(1), n(2), n(3)].into_iter().find(|node| *node != leader).unwrap();
    let mut cluster = cluster(&[old]);
    for _ in 0..60 {
        put(&mut cluster, "new");
        cluster.run(Duration::from_millis(500));
    }
    let snapshots = cluster.cores[&old].counters().snapshots_received;
    // Half a minute, and ten seconds between one and the next.
    assert!((2..=4).contains(&snapshots), "{snapshots}");
    cluster.run(Duration::from_secs(15));
    assert_eq!(conditions(&cluster), [Condition::Well; 3], "the last one is caught up with too");
}
