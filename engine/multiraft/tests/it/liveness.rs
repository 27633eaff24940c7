//! Liveness of cores: sleep, lapse, release, lists and sums, and what an idle cluster costs.

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Event, Role};
use pontoon_types::{CoreId, GroupId, Incarnation, LogRoom, NodeId};
use pontoon_wire::peer::{Beacon, Claim, ClaimPage, ClaimSummary, PeerFrame};

use crate::cluster::{Cluster, n};

#[test]
fn leaders_are_spread_at_the_first_start() {
    let cluster = Cluster::new(64);
    for node in [n(1), n(2), n(3)] {
        let led = cluster.cores[&node].groups().filter(|view| view.role() == Role::Leader).count();
        assert!((21..=22).contains(&led), "{node} leads {led}");
    }
}

#[test]
fn idle_groups_sleep_and_only_beacons_travel() {
    let mut cluster = Cluster::new(64);
    cluster.run(Duration::from_secs(1));
    let messages: u64 = cluster.cores.values().map(|core| core.counters().peer_messages).sum();
    cluster.frames.clear();
    cluster.appends.clear();
    cluster.run(Duration::from_secs(10));
    assert!(cluster.cores.values().all(|core| core.groups().all(|view| view.is_quiescent())));
    assert_eq!(cluster.cores.values().map(|core| core.counters().peer_messages).sum::<u64>(), messages);
    assert!(cluster.appends.is_empty());
    for (path, frames) in &cluster.frames {
        assert!((95..=105).contains(frames), "{path:?} carried {frames} frames in ten seconds");
    }
}

#[test]
fn a_killed_nodes_groups_are_led_by_others_within_two_seconds() {
    let mut cluster = Cluster::new(64);
    cluster.cores.remove(&n(1));
    for node in [n(2), n(3)] {
        cluster.event(node, Event::PeerDown(n(1)));
    }
    cluster.run(Duration::from_secs(2));
    for descriptor in cluster.descriptors.clone() {
        assert!(cluster.leader(descriptor.group).is_some(), "{} has no leader", descriptor.group);
    }
}

#[test]
fn a_silent_partition_is_noticed_without_the_link_breaking() {
    let mut cluster = Cluster::new(8);
    for other in [n(2), n(3)] {
        cluster.cut.insert((n(1), other));
        cluster.cut.insert((other, n(1)));
    }
    cluster.run(Duration::from_secs(4));
    for descriptor in cluster.descriptors.clone() {
        let led_elsewhere = [n(2), n(3)].iter().any(|node| {
            cluster.cores[node].groups().any(|view| view.group() == descriptor.group && view.role() == Role::Leader)
        });
        assert!(led_elsewhere, "{} is not led by the majority", descriptor.group);
    }
    cluster.cut.clear();
    cluster.run(Duration::from_secs(3));
    for descriptor in &cluster.descriptors {
        let leaders = cluster.cores.values().flat_map(|core| core.groups().collect::<Vec<_>>());
        let leaders = leaders.filter(|view| view.group() == descriptor.group && view.role() == Role::Leader);
        assert_eq!(leaders.count(), 1, "{} after the partition healed", descriptor.group);
    }
}

#[test]
fn law_7_a_path_that_works_in_one_direction_only_lapses() {
    let mut cluster = Cluster::new(8);
    cluster.cut.insert((n(2), n(1)));
    cluster.cut.insert((n(3), n(1)));
    let woken = |cluster: &Cluster| {
        cluster.cores[&n(2)].groups().filter(|view| view.leader() == Some(n(1)) && view.is_quiescent()).count()
    };
    assert!(woken(&cluster) > 0);
    cluster.run(Duration::from_secs(4));
    assert_eq!(woken(&cluster), 0, "beacons that acknowledge nothing do not extend support");
}

#[test]
fn a_leader_that_hears_nobody_makes_way() {
    let mut cluster = Cluster::new(8);
    cluster.cut.insert((n(2), n(1)));
    cluster.cut.insert((n(3), n(1)));
    cluster.run(Duration::from_secs(8));
    assert!(cluster.cores[&n(1)].groups().all(|view| view.role() != Role::Leader), "the deaf node leads");
    for descriptor in cluster.descriptors.clone() {
        assert!(cluster.leader(descriptor.group).is_some(), "{} has no leader", descriptor.group);
    }
}

/// A frame of node 1 with a beacon of its core.
fn beacon_frame(incarnation: u64, beacon: Beacon) -> Event {
    let frame = PeerFrame { beacon: Some(beacon), ..PeerFrame::new(n(1), CoreId(0), n(2), Incarnation(incarnation)) };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    Event::PeerFrame { from: n(1), bytes: Bytes::from(bytes) }
}

fn asleep(cluster: &Cluster, node: NodeId) -> usize {
    cluster.cores[&node].groups().filter(|view| view.is_quiescent()).count()
}

fn steps(cluster: &Cluster, node: NodeId) -> u64 {
    cluster.cores[&node].counters().group_steps
}

#[test]
fn law_8_a_group_missing_from_its_leaders_list_is_detached_and_comes_back() {
    let mut cluster = Cluster::new(6);
    let before = asleep(&cluster, n(2));
    let page = ClaimPage { from: GroupId(0), through: GroupId(u64::MAX), claims: Vec::new() };
    cluster.event(n(2), beacon_frame(1, Beacon { sequence: 1_000, page: Some(page), ..Beacon::default() }));
    assert!(asleep(&cluster, n(2)) < before, "a group that its leader does not list has a deadline of its own");
    // The true beacons have lower numbers than the false one for a hundred seconds, so node 1 starts again.
    cluster.restart(n(1), |_| {});
    cluster.run(Duration::from_secs(3));
    assert_eq!(asleep(&cluster, n(2)), 6);
}

#[test]
fn law_8_a_difference_is_found_by_its_sum_and_mended_by_a_list() {
    let mut cluster = Cluster::new(6);
    let elections =
        |cluster: &Cluster| -> u64 { cluster.cores.values().map(|core| core.counters().elections_won).sum() };
    let before = elections(&cluster);
    // Node 2 forgets one leader, as if a claim had been lost for good.
    let led = cluster.led_by(n(1));
    let group = led[0].group;
    let view = |cluster: &Cluster, node| {
        cluster.cores[&node].groups().find(|view| view.group() == group).map(|view| view.term()).unwrap()
    };
    let claim = Claim { group, term: view(&cluster, n(1)), leads: false };
    let sequence = cluster.now.0 / 100_000_000;
    let led = ClaimSummary::default();
    cluster.event(n(2), beacon_frame(1, Beacon { sequence, changes: vec![claim], led, ..Beacon::default() }));
    assert_eq!(asleep(&cluster, n(2)), 5);
    cluster.run(Duration::from_millis(800));
    assert_eq!(asleep(&cluster, n(2)), 6, "the sums differ, so the list is asked for");
    assert_eq!(elections(&cluster), before, "nobody had to be elected for that");
}

#[test]
fn frames_of_an_older_incarnation_are_dropped() {
    let mut cluster = Cluster::new(3);
    let frame = |incarnation, sequence| beacon_frame(incarnation, Beacon { sequence, ..Beacon::default() });
    let before = asleep(&cluster, n(2));
    cluster.event(n(2), frame(0, 1_000_000));
    assert_eq!(asleep(&cluster, n(2)), before);
    cluster.event(n(2), frame(2, 1));
    cluster.event(n(2), Event::Timer);
    assert!(asleep(&cluster, n(2)) < before, "a new incarnation starts its numbers again and leads nothing");
}

/// What all links carried in a second, frames and bytes.
fn traffic(cluster: &mut Cluster) -> (u64, u64) {
    let sum = |cluster: &Cluster| {
        let counters = cluster.cores.values().map(|core| core.counters());
        counters.fold((0, 0), |(frames, bytes), counters| (frames + counters.peer_frames, bytes + counters.peer_bytes))
    };
    let before = sum(cluster);
    cluster.run(Duration::from_secs(1));
    let after = sum(cluster);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn what_idle_groups_send_does_not_grow_with_their_number() {
    let mut few = Cluster::new(3);
    let mut many = Cluster::new(10_000);
    for cluster in [&mut few, &mut many] {
        cluster.run(Duration::from_secs(3));
        assert!(cluster.cores.values().all(|core| core.groups().all(|view| view.is_quiescent())));
    }
    let steps_before: Vec<u64> = many.cores.keys().map(|node| steps(&many, *node)).collect();
    let (few, idle) = (traffic(&mut few), traffic(&mut many));
    assert_eq!(idle, few, "frames and bytes of a second");
    let steps_after: Vec<u64> = many.cores.keys().map(|node| steps(&many, *node)).collect();
    assert_eq!(steps_before, steps_after, "no group was looked at");
}

#[test]
fn law_8_a_follower_that_missed_nothing_wakes_nobody_when_it_goes_and_comes_back() {
    // Node 3 leads nothing, so that nothing but its absence is to be seen.
    let mut cluster = Cluster::led_by_one(10_000);
    let old = steps(&cluster, n(1));
    cluster.event(n(1), Event::PeerDown(n(3)));
    cluster.event(n(2), Event::PeerDown(n(3)));
    cluster.isolate(n(3));
    cluster.run(Duration::from_secs(2));
    assert_eq!(steps(&cluster, n(1)), old, "nothing was said to the groups when a follower went");
    // One group goes on meanwhile, and it alone is behind.
    let put = cluster.put("k", "v");
    let one = cluster.group_of("k").group;
    assert!(cluster.ask(n(1), put).is_ok());
    cluster.run(Duration::from_secs(2));
    let written = steps(&cluster, n(1)) - old;
    assert!(written < 20, "a group with a follower gone sleeps again: {written} steps");
    cluster.cut.clear();
    let before = steps(&cluster, n(1));
    cluster.restart(n(3), |_| {});
    cluster.run(Duration::from_secs(3));
    let woken = steps(&cluster, n(1)) - before;
    assert!((1..20).contains(&woken), "the group that was behind was woken and no other: {woken} steps");
    let view = cluster.cores[&n(3)].groups().find(|view| view.group() == one).unwrap();
    assert_eq!(view.keys(), 1, "what it missed was sent");
    assert_eq!(asleep(&cluster, n(3)), 10_000);
}

#[test]
fn law_10_ten_thousand_groups_elect_with_few_frames_and_few_appends() {
    let mut cluster = Cluster::led_by_one(10_000);
    cluster.cores.remove(&n(1));
    cluster.frames.clear();
    cluster.appends.clear();
    for node in [n(2), n(3)] {
        cluster.event(node, Event::PeerDown(n(1)));
    }
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.led_by(n(2)).len() + cluster.led_by(n(3)).len(), 10_000);
    // Five thousand campaigns on each side are five turns; each turn is one frame of questions, one of answers, and one
    // append for all its votes.
    for (path, frames) in &cluster.frames {
        assert!(*frames <= 120, "{path:?} carried {frames} frames");
    }
    for (node, appends) in &cluster.appends {
        assert!(*appends <= 60, "{node} appended {appends} times");
    }
}

#[test]
fn law_7_a_leader_that_commits_nothing_makes_way() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    let leader = cluster.leader(group).unwrap();
    // The others' logs are full, so their beacons are heard and their acknowledgements never come.
    let others: Vec<NodeId> = [n(1), n(2), n(3)].into_iter().filter(|node| *node != leader).collect();
    for node in &others {
        cluster.event(*node, Event::LogRoom(LogRoom(0)));
    }
    let put = cluster.put("k", "v");
    cluster.submit(leader, put);
    cluster.run(Duration::from_secs(9));
    assert_eq!(cluster.leader(group), Some(leader), "patience");
    cluster.run(Duration::from_millis(1_500));
    assert_ne!(cluster.leader(group), Some(leader), "a leader that commits nothing releases its group");
}
