//! Liveness of cores: sleep, lapse, release, and the paged list.

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Event, Role};
use pontoon_types::{CoreId, GroupId, Incarnation};
use pontoon_wire::peer::{Beacon, ClaimPage, PeerFrame};

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

#[test]
fn law_8_a_group_missing_from_its_leaders_page_is_detached() {
    let mut cluster = Cluster::new(3);
    let descriptor = cluster.descriptors.iter().find(|d| cluster.leader(d.group) == Some(n(1))).unwrap().clone();
    let view = |cluster: &Cluster| {
        cluster.cores[&n(2)].groups().find(|view| view.group() == descriptor.group).unwrap().is_quiescent()
    };
    assert!(view(&cluster));
    let mut bytes = Vec::new();
    PeerFrame {
        from: n(1),
        core: CoreId(0),
        to: n(2),
        incarnation: Incarnation(1),
        beacon: Some(Beacon {
            sequence: 1_000_000,
            acknowledged: 0,
            acknowledged_incarnation: Incarnation(0),
            changes: Vec::new(),
            page: ClaimPage { from: GroupId(0), through: GroupId(u64::MAX), claims: Vec::new() },
        }),
        messages: Vec::new(),
        reads: Vec::new(),
        confirmations: Vec::new(),
    }
    .encode(&mut bytes);
    cluster.event(n(2), Event::PeerFrame { from: n(1), bytes: Bytes::from(bytes) });
    assert!(!view(&cluster), "a group that its leader does not list has a deadline of its own");
}

#[test]
fn frames_of_an_older_incarnation_are_dropped() {
    let mut cluster = Cluster::new(3);
    let frame = |incarnation, sequence| {
        let mut bytes = Vec::new();
        let page = ClaimPage { from: GroupId(0), through: GroupId(u64::MAX), claims: Vec::new() };
        let beacon =
            Beacon { sequence, acknowledged: 0, acknowledged_incarnation: Incarnation(0), changes: Vec::new(), page };
        PeerFrame {
            from: n(1),
            core: CoreId(0),
            to: n(2),
            incarnation: Incarnation(incarnation),
            beacon: Some(beacon),
            messages: Vec::new(),
            reads: Vec::new(),
            confirmations: Vec::new(),
        }
        .encode(&mut bytes);
        Event::PeerFrame { from: n(1), bytes: Bytes::from(bytes) }
    };
    let asleep = |cluster: &Cluster| cluster.cores[&n(2)].groups().filter(|view| view.is_quiescent()).count();
    let before = asleep(&cluster);
    cluster.event(n(2), frame(0, 1_000_000));
    assert_eq!(asleep(&cluster), before);
    cluster.event(n(2), frame(2, 1));
    assert!(asleep(&cluster) < before, "a new incarnation starts its numbers again and leads nothing");
}
