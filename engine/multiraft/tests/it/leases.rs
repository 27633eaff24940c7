//! Leases, one law after another. Each scenario is seen to go wrong with the bug that its law is against.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{CoreConfig, CoreMutation, Event, LeaseConfig, Role};
use pontoon_types::{Body, CoreId, GroupId, Incarnation, Index, LogId, Message, NodeId, Term};
use pontoon_wire::client::Outcome;
use pontoon_wire::peer::{Beacon, Claim, ClaimPage, PeerFrame};

use crate::cluster::{Cluster, bytes, n};

pub const LENGTH: Duration = Duration::from_secs(2);

/// One group, fast elections, long leases, and a leader that does not resign soon. Returns the leader.
fn leased(mutation: Option<CoreMutation>) -> (Cluster, NodeId) {
    leased_with(|config| config.mutation = mutation)
}

/// The same with another configuration of each core.
pub fn leased_with(change: impl Fn(&mut CoreConfig)) -> (Cluster, NodeId) {
    let change = |config: &mut CoreConfig| {
        let raft = Arc::make_mut(&mut config.raft);
        raft.election_timeout_min = Duration::from_millis(100);
        raft.election_timeout_max = Duration::from_millis(200);
        config.lease = Some(LeaseConfig { length: LENGTH, drift_margin_ppm: 20_000 });
        change(config);
        if config.node == n(1) {
            config.support_timeout = Duration::from_secs(20);
        }
    };
    let mut cluster = Cluster::dark_with(1, change).lit();
    // Who was elected first does not matter to the scenarios; that node 1 leads makes them short.
    for _ in 0..20 {
        if cluster.leader(group(&cluster)) == Some(n(1)) {
            break;
        }
        let old = cluster.leader(group(&cluster)).unwrap();
        cluster.isolate(old);
        cluster.run(Duration::from_secs(4));
        cluster.cut.clear();
        cluster.run(Duration::from_secs(4));
    }
    assert_eq!(cluster.leader(group(&cluster)), Some(n(1)));
    assert!(holds(&cluster, n(1)), "a leader whose peers are well holds a lease");
    (cluster, n(1))
}

fn group(cluster: &Cluster) -> GroupId {
    cluster.descriptors[0].group
}

pub fn holds(cluster: &Cluster, node: NodeId) -> bool {
    cluster.cores[&node].holds_lease(cluster.now, group(cluster))
}

fn term(cluster: &Cluster, node: NodeId) -> Term {
    cluster.cores[&node].groups().next().unwrap().term()
}

/// Lets time pass in small steps; whether there was a moment at which node 1 held a lease and another node led.
pub fn two_at_once(cluster: &mut Cluster, span: Duration) -> bool {
    let step = Duration::from_millis(10);
    (0..span.as_millis() / step.as_millis()).any(|_| {
        cluster.run(step);
        let other =
            [n(2), n(3)].into_iter().any(|node| cluster.cores[&node].groups().any(|view| view.role() == Role::Leader));
        other && holds(cluster, n(1))
    })
}

/// The scenario is safe, and is not with the bug.
fn only_with(bug: CoreMutation, scenario: impl Fn(Option<CoreMutation>) -> bool) {
    assert!(!scenario(None), "two leaders with the law");
    assert!(scenario(Some(bug)), "{bug:?} does no harm, so the scenario proves nothing");
}

#[test]
fn a_leased_read_sends_nothing_and_writes_nothing() {
    let (mut cluster, leader) = leased(None);
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok());
    cluster.run(Duration::from_millis(500));
    let before = cluster.cores[&leader].counters();
    cluster.frames.clear();
    cluster.appends.clear();
    for _ in 0..100 {
        let sequence = cluster.submit(leader, cluster.get("k"));
        assert_eq!(cluster.reply(leader, sequence), Some(Ok(Outcome::Value(Some(bytes("v"))))), "at once");
    }
    let after = cluster.cores[&leader].counters();
    assert_eq!((cluster.frames.clone(), cluster.appends.clone()), (BTreeMap::new(), BTreeMap::new()));
    assert_eq!((after.leased_reads - before.leased_reads, after.read_rounds), (100, before.read_rounds));
}

#[test]
fn leases_are_off_by_default() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(group(&cluster)).unwrap();
    cluster.run(Duration::from_secs(2));
    assert!(!holds(&cluster, leader));
    assert!(cluster.ask(leader, cluster.get("k")).is_ok());
    let counters = cluster.cores[&leader].counters();
    assert_eq!((counters.leased_reads, counters.read_rounds), (0, 1));
}

#[test]
fn a_leader_that_is_cut_off_holds_its_lease_to_its_end_and_no_longer() {
    let (mut cluster, leader) = leased(None);
    cluster.isolate(leader);
    assert!(holds(&cluster, leader));
    cluster.run(LENGTH);
    assert!(!holds(&cluster, leader));
    cluster.run(Duration::from_secs(2));
    let led =
        [n(2), n(3)].into_iter().any(|node| cluster.cores[&node].groups().any(|view| view.role() == Role::Leader));
    assert!(led, "the others go on without it");
}

/// A frame of node 1 or 3 arrives at node 2.
fn hear(cluster: &mut Cluster, frame: PeerFrame) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    cluster.event(n(2), Event::PeerFrame { from: frame.from, bytes: Bytes::from(bytes) });
}

/// Node 2 stops to follow node 1, which has not released the group; hears `then`; and node 3 asks for its vote. Whether it has
/// raised its term for that.
fn helps_another(cluster: &mut Cluster, then: Option<Beacon>) -> bool {
    let before = term(cluster, n(2));
    let descriptor = cluster.descriptors[0].clone();
    let replica = |node| descriptor.replica_on(node).unwrap();
    let page = ClaimPage { from: GroupId(0), through: GroupId(u64::MAX), claims: Vec::new() };
    let beacon = Beacon { sequence: 1_000_000, page: Some(page), ..Beacon::default() };
    let of_leader = PeerFrame::new(n(1), CoreId(0), n(2), Incarnation(1));
    hear(cluster, PeerFrame { beacon: Some(beacon), ..of_leader.clone() });
    assert!(!cluster.cores[&n(2)].groups().next().unwrap().is_quiescent());
    if let Some(beacon) = then {
        hear(cluster, PeerFrame { beacon: Some(Beacon { sequence: 1_000_001, ..beacon }), ..of_leader });
    }
    let body = Body::Vote { last: LogId::new(Index(1_000), before), permit: None };
    let vote = Message { from: replica(n(3)), to: replica(n(2)), term: before.next(), body };
    let messages = vec![(descriptor.group, vote)];
    hear(cluster, PeerFrame { messages, ..PeerFrame::new(n(3), CoreId(0), n(2), Incarnation(1)) });
    term(cluster, n(2)) > before
}

/// Elsewhere the bound of a lease went back when its leader moved on to another term (cockroachdb/cockroach#133764).
#[test]
fn law_1_a_promise_outlives_its_term() {
    only_with(CoreMutation::PromiseEndsWithTerm, |mutation| {
        let (mut cluster, _) = leased(mutation);
        helps_another(&mut cluster, None) && holds(&cluster, n(1))
    });
}

/// Its holder goes on being promised to for its other groups, so the bond would never end by itself.
#[test]
fn a_promise_ends_with_the_release_also_where_the_holder_was_left_before() {
    let (mut cluster, _) = leased(None);
    let changes = vec![Claim { group: group(&cluster), term: term(&cluster, n(2)), leads: false }];
    assert!(helps_another(&mut cluster, Some(Beacon { changes, ..Beacon::default() })));
}

/// A late Append may make a replica follow a leader that has released the group before, and will not do so again.
#[test]
fn a_promise_ends_when_the_holder_knows_what_is_followed_and_leads_no_more() {
    let (mut cluster, _) = leased(None);
    let knowing = Beacon { acknowledged: 1_000_000, acknowledged_incarnation: Incarnation(1), ..Beacon::default() };
    assert!(helps_another(&mut cluster, Some(knowing.clone())));
    // Not when it has not heard yet that it was left.
    let (mut cluster, _) = leased(None);
    assert!(!helps_another(&mut cluster, Some(Beacon { acknowledged: 1, ..knowing })));
}

#[test]
fn law_2_a_promise_counts_from_a_time_that_was_looked_at_after_the_beacon_arrived() {
    only_with(CoreMutation::PromiseFromEvent, |mutation| {
        let (mut cluster, leader) = leased(mutation);
        for node in [n(2), n(3)] {
            cluster.sampled_early.insert(node, Duration::from_millis(800));
        }
        cluster.run(Duration::from_secs(4));
        assert!(holds(&cluster, leader));
        cluster.isolate(leader);
        two_at_once(&mut cluster, LENGTH * 2)
    });
}

#[test]
fn law_2_a_lease_counts_from_the_sending_of_the_beacon() {
    only_with(CoreMutation::LeaseFromAnswer, |mutation| {
        let (mut cluster, leader) = leased(mutation);
        for node in [n(2), n(3)] {
            cluster.delay.insert((node, leader), Duration::from_millis(900));
        }
        cluster.run(Duration::from_secs(4));
        assert!(holds(&cluster, leader));
        cluster.isolate(leader);
        two_at_once(&mut cluster, LENGTH * 2)
    });
}

#[test]
fn law_2_a_jump_of_the_clock_ends_all_leases() {
    only_with(CoreMutation::IgnoreClockJumps, |mutation| {
        let (mut cluster, leader) = leased(mutation);
        cluster.event(leader, Event::ClockJumped);
        let held = holds(&cluster, leader);
        cluster.run(Duration::from_secs(1));
        assert!(holds(&cluster, leader), "new promises count again");
        held
    });
}

/// A machine that is suspended may show the same time before and after, however long that was.
#[test]
fn law_2_a_beacon_that_was_sent_where_the_clock_stood_still_counts_for_no_lease() {
    let (mut cluster, leader) = leased(None);
    let answered_after = Duration::from_millis(30);
    for node in [n(2), n(3)] {
        cluster.delay.insert((node, leader), answered_after);
    }
    cluster.run(Duration::from_secs(1));
    let sent = |cluster: &Cluster| cluster.frames[&(leader, n(2))];
    let before = sent(&cluster);
    while sent(&cluster) == before {
        let next = cluster.cores.values_mut().filter_map(|core| core.deadline()).min().unwrap();
        cluster.run(next.since(cluster.now));
    }
    assert!(holds(&cluster, leader));
    cluster.event(leader, Event::ClockJumped);
    cluster.run(answered_after + Duration::from_millis(1));
    assert!(!holds(&cluster, leader), "the answers to what was sent before the jump have come");
    cluster.run(Duration::from_secs(1));
    assert!(holds(&cluster, leader), "new promises count again");
}

/// Node 1 is cut off until another leader is elected, and then talks to a follower of the new one only.
fn half_healed(mutation: Option<CoreMutation>) -> bool {
    let (mut cluster, leader) = leased(mutation);
    cluster.isolate(leader);
    cluster.run(LENGTH + Duration::from_secs(2));
    let views = [n(2), n(3)].map(|node| (node, cluster.cores[&node].groups().next().unwrap().role()));
    let follower = views.iter().find(|(_, role)| *role == Role::Follower).unwrap().0;
    assert!(views.iter().any(|(_, role)| *role == Role::Leader));
    assert!(!holds(&cluster, leader));
    cluster.cut.remove(&(leader, follower));
    cluster.cut.remove(&(follower, leader));
    two_at_once(&mut cluster, LENGTH)
}

#[test]
fn law_3_what_was_accepted_counts_only_under_its_epoch() {
    only_with(CoreMutation::WithdrawWithoutEpoch, half_healed);
}

#[test]
fn law_8_a_promise_counts_only_where_its_giver_follows() {
    only_with(CoreMutation::LeaseWithoutAcceptance, half_healed);
}

#[test]
fn law_4_a_core_that_comes_to_life_waits_for_what_it_may_have_promised() {
    only_with(CoreMutation::ForgetPromises, |mutation| {
        let (mut cluster, leader) = leased(mutation);
        cluster.isolate(leader);
        for node in [n(2), n(3)] {
            cluster.change_config(node, |config| config.longest_promise = LENGTH);
            cluster.restart(node, |_| {});
        }
        two_at_once(&mut cluster, LENGTH * 2)
    });
}

/// Whether a transfer has to end the lease was asked elsewhere too (etcd-io/raft#99).
#[test]
fn law_5_a_leader_that_permits_a_campaign_has_no_lease() {
    only_with(CoreMutation::LeaseDespitePermit, |mutation| {
        let (mut cluster, leader) = leased(mutation);
        let group = group(&cluster);
        // The old leader hears nothing any more once it has asked the other one to campaign.
        cluster.delay.insert((n(2), leader), Duration::from_secs(9));
        cluster.delay.insert((n(3), leader), Duration::from_secs(9));
        cluster.event(leader, Event::TransferLeader { group, to: n(2) });
        two_at_once(&mut cluster, LENGTH)
    });
}

#[test]
fn law_9_a_leader_that_starts_again_has_no_lease_until_it_was_promised_anew() {
    let (mut cluster, leader) = leased(None);
    cluster.change_config(leader, |config| config.longest_promise = LENGTH);
    cluster.restart(leader, |_| {});
    assert!(!holds(&cluster, leader));
    assert!(!two_at_once(&mut cluster, LENGTH * 3));
    let led = cluster.leader(group(&cluster)).unwrap();
    assert!(holds(&cluster, led), "whoever leads by now holds a lease");
}
