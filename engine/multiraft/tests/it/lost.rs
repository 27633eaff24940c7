//! What a disk has lost: payloads come back from the leader, and a lost vote stays lost.

use std::time::Duration;

use pontoon_multiraft::{Event, GroupState, Role};
use pontoon_types::{Index, NodeId};
use pontoon_wire::client::Outcome;

use crate::cluster::{Cluster, bytes, n};

/// One range with five writes, and its leader.
fn written() -> (Cluster, NodeId) {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        assert!(cluster.ask(leader, cluster.put(key, key)).is_ok());
    }
    cluster.run(Duration::from_millis(200));
    (cluster, leader)
}

fn lose(index: u64) -> impl Fn(&mut GroupState) {
    move |state| {
        state.entries[index as usize - 1].payload = bytes("");
        state.lost.push(Index(index));
    }
}

fn missing(cluster: &Cluster, node: NodeId) -> Vec<Index> {
    cluster.cores[&node].groups().next().unwrap().missing().collect()
}

fn check_equal(cluster: &Cluster) {
    let views: Vec<_> = cluster.cores.values().flat_map(|core| core.groups().next()).collect();
    for view in &views {
        assert_eq!(view.missing().count(), 0, "{} has all its payloads", view.replica());
        assert_eq!((view.last(), view.digest()), (views[0].last(), views[0].digest()), "{}", view.replica());
        assert!(view.entries(Index(1), Index(u64::MAX)).eq(views[0].entries(Index(1), Index(u64::MAX))));
        assert_eq!(view.applied(), view.committed());
    }
}

#[test]
fn a_follower_that_comes_back_without_a_payload_gets_it_from_a_leader_that_sleeps() {
    let (mut cluster, leader) = written();
    let follower = if leader == n(1) { n(2) } else { n(1) };
    cluster.restart(follower, lose(4));
    assert_eq!(missing(&cluster, follower), [Index(4)]);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.leader(cluster.descriptors[0].group), Some(leader), "nobody else had to lead");
    check_equal(&cluster);
    let restored: Vec<_> = cluster
        .restoring
        .iter()
        .flat_map(|(node, write)| write.restored.iter().map(|it| (*node, it.id.index)))
        .collect();
    assert_eq!(restored, [(follower, Index(4))], "one payload was written again, once");
}

#[test]
fn a_leader_that_comes_back_without_a_payload_follows_and_gets_it() {
    let (mut cluster, leader) = written();
    cluster.restart(leader, lose(3));
    cluster.run(Duration::from_secs(4));
    let new = cluster.leader(cluster.descriptors[0].group).unwrap();
    assert_ne!(new, leader);
    check_equal(&cluster);
    assert_eq!(cluster.ask(new, cluster.get("b")), Ok(Outcome::Value(Some(bytes("b")))));
}

#[test]
fn a_payload_that_all_have_lost_stops_the_group_and_is_shown() {
    let (mut cluster, _) = written();
    for node in [n(1), n(2), n(3)] {
        cluster.restart(node, lose(3));
    }
    cluster.run(Duration::from_secs(30));
    assert_eq!(cluster.leader(cluster.descriptors[0].group), None);
    for node in [n(1), n(2), n(3)] {
        let view = cluster.cores[&node].groups().next().unwrap();
        assert_eq!(missing(&cluster, node), [Index(3)]);
        assert_eq!((view.last().index, view.applied()), (Index(6), Index(0)), "nothing is cut, nothing is applied");
    }
}

#[test]
fn rot_found_at_run_time_is_written_again_and_moves_no_leader() {
    let (mut cluster, leader) = written();
    let group = cluster.descriptors[0].group;
    for node in [n(1), n(2), n(3)] {
        cluster.event(node, Event::Lost { group, indexes: vec![Index(2), Index(5)] });
    }
    cluster.settle();
    assert_eq!(cluster.restoring.len(), 3);
    assert!(cluster.restoring.iter().all(|(_, write)| write.restored.len() == 2 && write.entries.is_empty()));
    assert_eq!(cluster.leader(group), Some(leader));
    assert!(cluster.ask(leader, cluster.put("f", "f")).is_ok());
    let unknown = pontoon_types::GroupId(77);
    cluster.event(leader, Event::Lost { group: unknown, indexes: vec![Index(1)] });
    cluster.run(Duration::from_millis(200));
    check_equal(&cluster);
}

#[test]
fn a_node_that_has_lost_its_votes_follows_and_never_leads_again() {
    let (mut cluster, leader) = written();
    let group = cluster.descriptors[0].group;
    cluster.restart(leader, |state| state.vote_lost = true);
    cluster.run(Duration::from_secs(4));
    let new = cluster.leader(group).unwrap();
    assert_ne!(new, leader);
    assert!(cluster.cores[&leader].groups().all(|view| view.is_vote_lost()));
    // With the third node's disk held, the new leader needs the acknowledgement of the one without a vote.
    let third = [n(1), n(2), n(3)].into_iter().find(|node| ![leader, new].contains(node)).unwrap();
    cluster.held.insert(third);
    assert!(cluster.ask(new, cluster.put("f", "f")).is_ok());
    cluster.held.clear();

    cluster.cores.remove(&new);
    for node in [leader, third] {
        cluster.event(node, Event::PeerDown(new));
    }
    cluster.run(Duration::from_secs(10));
    let roles = |node| cluster.cores[&node].groups().map(|view| view.role()).collect::<Vec<_>>();
    assert_ne!(roles(leader), [Role::Leader]);
    assert_ne!(roles(third), [Role::Leader], "the only other vote is lost");
}
