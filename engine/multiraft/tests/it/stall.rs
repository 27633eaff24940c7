//! A disk that stalls: who leads meanwhile, and what becomes of what was in flight (law 10).

use std::time::Duration;

use pontoon_multiraft::{Event, Role, STALL_AFTER};
use pontoon_types::{Descriptor, NodeId};
use pontoon_wire::client::{Operation, Outcome, Refusal};
use pontoon_wire::command::{Command, KvOperation};

use crate::cluster::{Cluster, bytes, fresh_request, n};

/// The time in which a group without a leader has one again.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The leader's disk hangs while clients write, and its core notices.
fn stall(cluster: &mut Cluster, node: NodeId) {
    cluster.held.insert(node);
    let put = cluster.put("during", "v");
    let sequence = cluster.submit(node, put);
    cluster.settle();
    assert!(matches!(cluster.reply(node, sequence), Some(Ok(Outcome::Written(_)))), "two disks are a quorum");
    cluster.run(STALL_AFTER);
    cluster.event(node, Event::Stalled(true));
}

/// A write of a key of this range.
fn put_somewhere(descriptor: &Descriptor) -> Operation {
    let key = [descriptor.range.start.as_ref(), &[0]].concat().into();
    let operations = vec![KvOperation::Put { key, value: bytes("v") }];
    let command = Command { id: fresh_request(), floor: 0, operations };
    Operation::Write { group: descriptor.group, generation: descriptor.generation, command: command.encode() }
}

fn end_stall(cluster: &mut Cluster, node: NodeId) {
    cluster.held.remove(&node);
    cluster.settle();
    cluster.event(node, Event::Stalled(false));
}

fn leads(cluster: &Cluster, node: NodeId) -> usize {
    cluster.cores[&node].groups().filter(|view| view.role() == Role::Leader).count()
}

#[test]
fn a_leader_that_stalls_for_150_ms_makes_way_and_loses_nothing() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let old = cluster.leader(group).unwrap();
    assert!(cluster.ask(old, cluster.put("before", "v")).is_ok());
    stall(&mut cluster, old);
    let stalled_at = cluster.now;
    assert_eq!(leads(&cluster, old), 0, "it makes way at once");
    cluster.run(Duration::from_millis(50));
    end_stall(&mut cluster, old);
    while cluster.leader(group).is_none() {
        cluster.run(Duration::from_millis(10));
        assert!(cluster.now.since(stalled_at) <= ELECTION_TIMEOUT, "nobody leads within one election timeout");
    }
    let new = cluster.leader(group).unwrap();
    assert_ne!(new, old);
    assert!(cluster.ask(new, cluster.put("after", "v")).is_ok());
    for key in ["before", "during", "after"] {
        assert_eq!(cluster.ask(new, cluster.get(key)), Ok(Outcome::Value(Some(bytes("v")))), "{key}");
    }
    cluster.run(Duration::from_secs(1));
    let views: Vec<_> = cluster.cores.values().flat_map(|core| core.groups().next()).collect();
    assert!(views.iter().all(|view| view.last() == views[0].last() && view.digest() == views[0].digest()));
    assert!(views.iter().all(|view| view.durable() == view.last().index), "the stalled disk has it all, in order");
}

#[test]
fn the_first_follower_of_a_released_group_does_not_wait_for_its_deadline() {
    for phase in PHASES {
        let mut cluster = Cluster::new(1);
        cluster.run(Duration::from_millis(20 * phase));
        let old = cluster.leader(cluster.descriptors[0].group).unwrap();
        stall(&mut cluster, old);
        // The release leaves at once, and the first in rank campaigns a beacon's interval and a half later.
        cluster.run(Duration::from_millis(155));
        assert_ne!(cluster.leader(cluster.descriptors[0].group), None);
    }
}

#[test]
fn a_write_in_flight_when_its_leader_makes_way_hears_its_outcome() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let old = cluster.leader(group).unwrap();
    cluster.held.insert(old);
    assert!(cluster.ask(old, cluster.put("k", "1")).is_ok());
    cluster.run(STALL_AFTER);
    // Its frames are under way when the stall is noticed; the next write comes too late.
    let put = cluster.put("k", "2");
    let in_flight = cluster.submit(old, put);
    cluster.event(old, Event::Stalled(true));
    let put = cluster.put("k", "3");
    let late = cluster.submit(old, put);
    assert!(matches!(cluster.reply(old, late), Some(Err(Refusal::NotLeader { .. }))));
    assert_eq!(cluster.reply(old, in_flight), None);
    cluster.run(ELECTION_TIMEOUT);
    assert!(matches!(cluster.reply(old, in_flight), Some(Ok(Outcome::Written(_)))), "its entry was committed");
    end_stall(&mut cluster, old);
    let new = cluster.leader(group).unwrap();
    assert_eq!(cluster.ask(new, cluster.get("k")), Ok(Outcome::Value(Some(bytes("2")))));
}

#[test]
fn law_10_a_disk_that_stalls_for_all_moves_no_leader() {
    let mut cluster = Cluster::new(3);
    let leaders: Vec<_> = cluster.descriptors.iter().map(|descriptor| cluster.leader(descriptor.group)).collect();
    cluster.held = [n(1), n(2), n(3)].into();
    let writes: Vec<_> = [n(1), n(2), n(3)]
        .into_iter()
        .map(|node| {
            let put = put_somewhere(&cluster.led_by(node)[0]);
            (node, cluster.submit(node, put))
        })
        .collect();
    cluster.run(STALL_AFTER);
    for (node, sequence) in &writes {
        assert_eq!(cluster.reply(*node, *sequence), None);
        cluster.event(*node, Event::Stalled(true));
    }
    cluster.run(Duration::from_millis(500));
    for node in [n(1), n(2), n(3)] {
        end_stall(&mut cluster, node);
    }
    cluster.run(Duration::from_millis(500));
    let after: Vec<_> = cluster.descriptors.iter().map(|descriptor| cluster.leader(descriptor.group)).collect();
    assert_eq!(leaders, after);
    for (node, sequence) in writes {
        assert!(matches!(cluster.reply(node, sequence), Some(Ok(Outcome::Written(_)))), "{node}");
    }
}

#[test]
fn a_leader_stays_while_too_few_others_live_to_do_without_its_disk() {
    let mut cluster = Cluster::new(1);
    let old = cluster.leader(cluster.descriptors[0].group).unwrap();
    let dead = if old == n(1) { n(2) } else { n(1) };
    cluster.cores.remove(&dead);
    for node in cluster.cores.keys().copied().collect::<Vec<_>>() {
        cluster.event(node, Event::PeerDown(dead));
    }
    cluster.run(Duration::from_secs(1));
    cluster.held.insert(old);
    let put = cluster.put("k", "v");
    cluster.submit(old, put);
    cluster.run(STALL_AFTER);
    cluster.event(old, Event::Stalled(true));
    cluster.run(Duration::from_secs(1));
    assert_eq!(leads(&cluster, old), 1);
}

#[test]
fn a_stalled_core_does_not_campaign_until_the_stall_has_ended() {
    let mut cluster = Cluster::new(64);
    let (gone, stalled, well) = (n(1), n(2), n(3));
    let led_before = leads(&cluster, stalled);
    cluster.event(stalled, Event::Stalled(true));
    cluster.cores.remove(&gone);
    for node in [stalled, well] {
        cluster.event(node, Event::PeerDown(gone));
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(leads(&cluster, stalled), led_before, "it won an election");
    assert_eq!(leads(&cluster, stalled) + leads(&cluster, well), 64, "the other one leads the rest");

    // Now only the stalled core could lead, and it may as soon as its disk is back.
    let mut cluster = Cluster::dark(1);
    cluster.event(n(1), Event::Stalled(true));
    cluster.event(n(1), Event::PeerUp(n(2)));
    cluster.event(n(2), Event::PeerUp(n(1)));
    cluster.event(n(2), Event::Stalled(true));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.leader(cluster.descriptors[0].group), None);
    cluster.event(n(1), Event::Stalled(false));
    cluster.settle();
    assert_eq!(cluster.leader(cluster.descriptors[0].group), Some(n(1)));
}

/// Starting points between two beacons, so that no outcome depends on when the next one comes.
const PHASES: std::ops::Range<u64> = 0..5;

#[test]
fn a_disk_counts_as_healthy_only_for_what_it_had_to_write_and_for_a_while() {
    for phase in PHASES {
        let mut cluster = Cluster::new(1);
        cluster.run(Duration::from_millis(20 * phase));
        let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
        assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
        cluster.held = [n(1), n(2), n(3)].into();
        cluster.run(STALL_AFTER * 2);
        // What the followers have acknowledged was on their disks before this sync began.
        cluster.event(leader, Event::Stalled(true));
        cluster.run(Duration::from_secs(1));
        assert_eq!(leads(&cluster, leader), 1);

        // As soon as they write what this disk does not, they can do without it.
        cluster.held = [leader].into();
        let put = cluster.put("k", "w");
        let sequence = cluster.submit(leader, put);
        cluster.settle();
        assert!(matches!(cluster.reply(leader, sequence), Some(Ok(Outcome::Written(_)))));
        cluster.run(Duration::from_millis(20));
        assert_eq!(leads(&cluster, leader), 1, "its own disk may be back in a moment");
        cluster.run(Duration::from_millis(10));
        assert_eq!(leads(&cluster, leader), 0);
    }
}

#[test]
fn a_leader_that_clients_write_to_all_the_time_makes_way_just_as_soon() {
    for phase in PHASES {
        let mut cluster = Cluster::new(1);
        cluster.run(Duration::from_millis(20 * phase));
        let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
        cluster.held = [leader].into();
        cluster.run(STALL_AFTER);
        assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
        cluster.event(leader, Event::Stalled(true));
        for _ in 0..5 {
            assert_eq!(leads(&cluster, leader), 1);
            assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
            cluster.run(Duration::from_millis(5));
        }
        assert_eq!(leads(&cluster, leader), 0);
    }
}

#[test]
fn a_peer_that_has_died_since_its_disk_worked_does_not_count() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let [dead, slow] = [n(1), n(2), n(3)].into_iter().filter(|node| *node != leader).collect::<Vec<_>>()[..] else {
        panic!("two others")
    };
    cluster.held = [leader, slow].into();
    let put = cluster.put("k", "v");
    cluster.submit(leader, put);
    cluster.run(STALL_AFTER);
    cluster.event(leader, Event::Stalled(true));
    cluster.cores.remove(&dead);
    cluster.event(leader, Event::PeerDown(dead));
    cluster.event(slow, Event::PeerDown(dead));
    cluster.run(Duration::from_secs(1));
    cluster.held.remove(&slow);
    cluster.run(Duration::from_secs(1));
    assert_eq!(leads(&cluster, leader), 1);
}

#[test]
fn an_acknowledgement_without_a_write_says_nothing_of_a_disk() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
    // The entry was acknowledged before the sync began that stalls now, its commit index 5 ms afterwards.
    cluster.run(STALL_AFTER + Duration::from_millis(15));
    cluster.event(leader, Event::Stalled(true));
    assert_eq!(leads(&cluster, leader), 1);
}
