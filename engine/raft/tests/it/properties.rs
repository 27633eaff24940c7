//! Random schedules. Messages are lost, doubled and reordered, disks lag behind, replicas crash with what they had not
//! synced, timers fire early, beacons lie about the living. Safety is checked after every step; after the storm the
//! cluster must agree and fall asleep.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pontoon_raft::{Config, Event, Role};
use pontoon_types::{ReplicaId, Time};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::cluster::Cluster;

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Action {
    Deliver(usize),
    DeliverFirst(usize),
    Duplicate(usize),
    Drop(usize),
    Durable(usize, usize),
    Timer(usize),
    Campaign(usize),
    Propose(usize, usize),
    Claim(usize),
    Lapse(usize),
    Crash(usize, usize),
    PeerUp(usize, usize),
    Isolate(usize),
    Heal,
    Stabilize,
}

pub fn action() -> impl Strategy<Value = Action> {
    let n = || 0usize..1000;
    prop_oneof![
        12 => n().prop_map(Action::Deliver),
        16 => (1usize..8).prop_map(Action::DeliverFirst),
        3 => n().prop_map(Action::Duplicate),
        3 => n().prop_map(Action::Drop),
        14 => (n(), 1usize..4).prop_map(|(at, count)| Action::Durable(at, count)),
        4 => n().prop_map(Action::Timer),
        3 => n().prop_map(Action::Campaign),
        8 => (n(), 1usize..4).prop_map(|(at, count)| Action::Propose(at, count)),
        2 => n().prop_map(Action::Claim),
        3 => n().prop_map(Action::Lapse),
        2 => (n(), 0usize..3).prop_map(|(at, kept)| Action::Crash(at, kept)),
        1 => (n(), n()).prop_map(|(at, peer)| Action::PeerUp(at, peer)),
        2 => n().prop_map(Action::Isolate),
        1 => Just(Action::Heal),
        2 => Just(Action::Stabilize),
    ]
}

/// Small limits, so that a short schedule reaches them.
pub fn config() -> Config {
    Config {
        append_entries_max: 2,
        inflight_messages_max: 3,
        inflight_bytes_max: 24,
        uncommitted_bytes_max: 64,
        ..Config::default()
    }
}

pub fn perform(cluster: &mut Cluster, action: &Action) {
    let ids = cluster.ids();
    let pick = |at: usize| ids[at % ids.len()];
    let queued = cluster.queue.len();
    match *action {
        Action::Deliver(at) if queued > 0 => cluster.deliver(at % queued),
        Action::DeliverFirst(count) => (0..count.min(queued)).for_each(|_| cluster.deliver(0)),
        Action::Duplicate(at) if queued > 0 => {
            let copy = cluster.queue[at % queued].clone();
            cluster.queue.push(copy);
        }
        Action::Drop(at) if queued > 0 => drop(cluster.queue.remove(at % queued)),
        Action::Deliver(_) | Action::Duplicate(_) | Action::Drop(_) => {}
        Action::Durable(at, count) => {
            if cluster.nodes[&pick(at)].raft.is_some() {
                cluster.durable(pick(at), count);
            }
        }
        Action::Timer(at) => fire(cluster, pick(at)),
        Action::Campaign(at) => {
            ids.iter().for_each(|&id| cluster.step(id, Event::Lapsed));
            cluster.step(pick(at), Event::Campaign);
        }
        Action::Propose(at, count) => propose(cluster, at, count),
        Action::Claim(at) => claim(cluster, at),
        Action::Lapse(at) => cluster.step(pick(at), Event::Lapsed),
        Action::Crash(at, kept) => {
            cluster.crash(pick(at), kept);
            cluster.start(pick(at));
        }
        Action::PeerUp(at, peer) => cluster.step(pick(at), Event::PeerUp(pick(peer))),
        Action::Isolate(at) => isolate(cluster, pick(at)),
        Action::Heal => cluster.cut.clear(),
        Action::Stabilize => cluster.stabilize(),
    }
}

/// Cuts one replica off from all others, and only that one.
fn isolate(cluster: &mut Cluster, id: ReplicaId) {
    let others = cluster.ids().into_iter().filter(|&other| other != id);
    cluster.cut = others.flat_map(|other| [(id, other), (other, id)]).collect();
}

/// Lets a replica's deadline come, as if its clock ran ahead of the others.
fn fire(cluster: &mut Cluster, id: ReplicaId) {
    if let Some(deadline) = cluster.raft(id).deadline() {
        cluster.now = cluster.now.max(deadline);
        cluster.step(id, Event::Timer);
    }
}

fn propose(cluster: &mut Cluster, at: usize, count: usize) {
    let leaders = cluster.leaders();
    if leaders.is_empty() {
        return;
    }
    let leader = leaders[at % leaders.len()];
    let payloads: Vec<Bytes> = (0..count).map(|place| Bytes::from(format!("{leader} {at} {place}"))).collect();
    if cluster.raft(leader).admit(payloads.iter().map(Bytes::len).sum()).is_ok() {
        cluster.step(leader, Event::Propose(payloads));
    }
}

/// One leader's beacon reaches everybody.
fn claim(cluster: &mut Cluster, at: usize) {
    let leaders = cluster.leaders();
    if leaders.is_empty() {
        return;
    }
    let leader = leaders[at % leaders.len()];
    let term = cluster.raft(leader).term();
    for id in cluster.ids().into_iter().filter(|&id| id != leader) {
        cluster.step(id, Event::Claimed { leader, term });
    }
}

/// The storm is over: nothing is lost any more, and beacons tell the truth. Returns how many timers it took.
pub fn calm_down(cluster: &mut Cluster) -> usize {
    cluster.cut.clear();
    // A beacon of a new incarnation tells every leader that its peers may have forgotten the commit index.
    for leader in cluster.leaders() {
        for peer in cluster.ids() {
            cluster.step(leader, Event::PeerRestarted(peer));
        }
    }
    for round in 0..200 {
        cluster.stabilize();
        for at in 0..cluster.leaders().len() {
            claim(cluster, at);
        }
        let leaders = cluster.leaders();
        for id in cluster.ids() {
            if cluster.raft(id).role() == Role::Follower
                && cluster.raft(id).leader().is_none_or(|it| !leaders.contains(&it))
            {
                cluster.step(id, Event::Lapsed);
            }
        }
        cluster.stabilize();
        cluster.trace.clear();
        if !cluster.fire_next(Time(u64::MAX)) {
            return round;
        }
    }
    panic!("the cluster does not fall asleep");
}

fn check_agreement(cluster: &Cluster) {
    let leaders = cluster.leaders();
    assert_eq!(leaders.len(), 1, "one replica leads after the storm");
    let leader = cluster.raft(leaders[0]);
    assert_eq!(leader.read_index(), Some(leader.last().index), "the leader has committed its whole log");
    for raft in cluster.running() {
        assert_eq!((raft.leader(), raft.term()), (Some(leader.me()), leader.term()), "all follow the leader");
        assert_eq!((raft.last(), raft.committed()), (leader.last(), leader.committed()), "all have its log and commit");
        assert_eq!(raft.deadline(), None, "{} sleeps", raft.me());
    }
    assert_eq!(cluster.checker.committed() as u64, leader.committed().0, "nothing committed is missing");
}

fn survive(count: u64, seed: u64, actions: &[Action]) {
    let mut cluster = Cluster::new(config(), count, seed, BTreeMap::new());
    cluster.step(ReplicaId(1), Event::Campaign);
    for action in actions {
        perform(&mut cluster, action);
        cluster.trace.clear();
    }
    calm_down(&mut cluster);
    check_agreement(&cluster);
    // The group still works: one more entry reaches everybody, and it falls asleep again.
    let before = cluster.checker.committed();
    propose(&mut cluster, 0, 1);
    calm_down(&mut cluster);
    check_agreement(&cluster);
    assert!(cluster.checker.committed() > before, "the group goes on after the storm");
}

/// A storm that never reaches the rare paths would prove little. The schedules come from a fixed seed.
#[test]
fn the_schedules_reach_the_rare_paths() {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(action(), 200..400);
    let mut trace = String::new();
    for seed in 0..60 {
        let actions = strategy.new_tree(&mut runner).expect("a schedule").current();
        let mut cluster = Cluster::new(config(), 3, seed, BTreeMap::new());
        actions.iter().for_each(|action| perform(&mut cluster, action));
        trace += &cluster.trace;
    }
    let rare = [
        ("is leader", 60),
        ("truncate=", 10),
        ("AppendRefused", 60),
        ("VoteResponse term=", 100),
        ("granted", 100),
        ("refused", 100),
        ("committed", 500),
    ];
    for (mark, least) in rare {
        let count = trace.matches(mark).count();
        assert!(count >= least, "{mark} occurs {count} times only");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_replicas_survive_any_schedule(
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..400),
    ) {
        survive(3, seed, &actions);
    }

    #[test]
    fn five_replicas_survive_any_schedule(
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..400),
    ) {
        survive(5, seed, &actions);
    }

    #[test]
    fn one_or_two_replicas_survive_any_schedule(
        count in 1u64..=2,
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..150),
    ) {
        survive(count, seed, &actions);
    }

    /// The same events give the same bytes: there is no hidden input.
    #[test]
    fn a_schedule_prints_the_same_trace_twice(
        seed in 0u64..1_000_000,
        spans in prop::collection::vec(1u64..900, 1..10),
    ) {
        let trace = || {
            let mut cluster = Cluster::new(config(), 3, seed, BTreeMap::new());
            for (at, span) in spans.iter().enumerate() {
                cluster.advance(Duration::from_millis(*span), at % 2 == 0);
                if let Some(&leader) = cluster.leaders().first() {
                    cluster.step(leader, Event::Propose(vec![Bytes::from_static(b"a")]));
                }
            }
            cluster.trace
        };
        let first = trace();
        prop_assert_eq!(first, trace());
    }
}
