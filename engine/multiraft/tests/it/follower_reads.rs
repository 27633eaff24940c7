//! Reads that a follower serves: at an index it has asked for, or within an age.

use std::time::Duration;

use pontoon_multiraft::Event;
use pontoon_types::NodeId;
use pontoon_wire::client::{Outcome, ReadLevel, Refusal};

use crate::cluster::{Cluster, bytes, n};

fn stale(max_age_ms: u32) -> ReadLevel {
    ReadLevel::Stale { max_age_ms }
}

/// A cluster of one group, its leader and a follower.
fn one_group() -> (Cluster, NodeId, NodeId) {
    let cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let follower = [n(1), n(2), n(3)].into_iter().find(|node| *node != leader).unwrap();
    (cluster, leader, follower)
}

fn questions(cluster: &Cluster, node: NodeId) -> u64 {
    cluster.cores[&node].counters().index_questions
}

#[test]
fn a_follower_serves_what_was_written_before_once_it_has_applied_it() {
    let (mut cluster, leader, follower) = one_group();
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
    let read = cluster.submit(follower, cluster.get_at("k", ReadLevel::Follower));
    cluster.settle();
    assert_eq!(cluster.reply(follower, read), None, "the follower has not heard that the write is committed");
    cluster.run(Duration::from_millis(50));
    assert_eq!(cluster.reply(follower, read), Some(Ok(Outcome::Value(Some(bytes("v"))))));
}

#[test]
fn all_reads_of_a_turn_share_one_question_for_each_leaders_core() {
    let mut cluster = Cluster::new(12);
    let led: Vec<_> = cluster.led_by(n(1)).into_iter().chain(cluster.led_by(n(3))).collect();
    assert_eq!(led.len(), 8);
    let reads = led.iter().flat_map(|descriptor| {
        let key: bytes::Bytes = descriptor.range.start.iter().copied().chain([1]).collect();
        let (group, generation, level) = (descriptor.group, descriptor.generation, ReadLevel::Follower);
        let get = pontoon_wire::client::Operation::Get { group, generation, key, level };
        [get.clone(), get]
    });
    let (first, event) = cluster.frame(reads.collect());
    let before = questions(&cluster, n(2));
    cluster.event(n(2), event);
    cluster.run(Duration::from_millis(50));
    assert_eq!(questions(&cluster, n(2)), before + 2, "sixteen reads of eight groups on two leaders");
    for sequence in first..first + 16 {
        assert_eq!(cluster.reply(n(2), sequence), Some(Ok(Outcome::Value(None))));
    }
}

#[test]
fn a_follower_that_reaches_no_leader_says_so() {
    let (mut cluster, leader, follower) = one_group();
    cluster.isolate(follower);
    let read = cluster.submit(follower, cluster.get_at("k", ReadLevel::Follower));
    cluster.run(Duration::from_secs(6));
    assert!(matches!(cluster.reply(follower, read), Some(Err(Refusal::NotLeader { .. }))));
    assert!(cluster.cores[&leader].counters().read_rounds == 0);
}

#[test]
fn a_stale_read_asks_once_for_each_bound_and_is_refused_when_the_bound_cannot_hold() {
    let (mut cluster, leader, follower) = one_group();
    assert!(cluster.ask(leader, cluster.put("k", "old")).is_ok());
    cluster.run(Duration::from_millis(50));
    let old = || Some(Ok(Outcome::Value(Some(bytes("old")))));
    assert_eq!(Some(cluster.ask(follower, cluster.get_at("k", stale(1_000)))), old(), "the first read asks");
    let asked = questions(&cluster, follower);
    cluster.isolate(follower);
    assert!(cluster.ask(leader, cluster.put("k", "new")).is_ok());
    cluster.run(Duration::from_millis(900));
    let sequence = cluster.submit(follower, cluster.get_at("k", stale(1_000)));
    assert_eq!(cluster.reply(follower, sequence), old(), "within the bound, without a message");
    let sequence = cluster.submit(follower, cluster.get_at("k", stale(500)));
    assert_eq!(cluster.reply(follower, sequence), None, "another bound, which does not hold");
    cluster.run(Duration::from_millis(200));
    let later = cluster.submit(follower, cluster.get_at("k", stale(1_000)));
    cluster.run(Duration::from_secs(6));
    for sequence in [sequence, later] {
        assert!(matches!(cluster.reply(follower, sequence), Some(Err(Refusal::TooStale { .. }))));
    }
    assert!(questions(&cluster, follower) > asked);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(3));
    let now = cluster.ask(follower, cluster.get_at("k", stale(0)));
    assert_eq!(now, Ok(Outcome::Value(Some(bytes("new")))));
}

#[test]
fn the_age_is_counted_from_a_time_that_was_looked_at_after_the_read_arrived() {
    let (mut cluster, _, follower) = one_group();
    assert!(cluster.ask(follower, cluster.get_at("k", stale(1_000))).is_ok());
    cluster.isolate(follower);
    cluster.run(Duration::from_millis(1_100));
    // The turn began long before the read came.
    cluster.sampled_early.insert(follower, Duration::from_millis(300));
    let sequence = cluster.submit(follower, cluster.get_at("k", stale(1_000)));
    assert_eq!(cluster.reply(follower, sequence), None);
}

/// A clock that stood still makes a state look younger than it is.
#[test]
fn a_jump_of_the_clock_leaves_no_age() {
    let age_after = |jump: bool| {
        let (mut cluster, _, follower) = one_group();
        assert!(cluster.ask(follower, cluster.get_at("k", stale(1_000))).is_ok());
        cluster.isolate(follower);
        if jump {
            cluster.event(follower, Event::ClockJumped);
        }
        let sequence = cluster.submit(follower, cluster.get_at("k", stale(1_000)));
        cluster.reply(follower, sequence)
    };
    assert_eq!(age_after(false), Some(Ok(Outcome::Value(None))));
    assert_eq!(age_after(true), None);
}

#[test]
fn a_leader_serves_reads_of_all_levels_itself() {
    let (mut cluster, leader, _) = one_group();
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
    for level in [ReadLevel::Linearizable, ReadLevel::Follower, stale(0), stale(10_000)] {
        assert_eq!(cluster.ask(leader, cluster.get_at("k", level)), Ok(Outcome::Value(Some(bytes("v")))));
    }
    assert_eq!(questions(&cluster, leader), 0);
}
