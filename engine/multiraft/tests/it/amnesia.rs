//! What a core that comes to life hears from its peers (law 12), as lines that a person reads.

use std::time::Duration;

use pontoon_multiraft::{
    Change, CoreConfig, CoreMutation, CoreStanding, Event, GroupState, Ledger, MembersChange, Past, Role,
};
use pontoon_types::{Entry, HardState, Incarnation, Index, LogMark, Member, NodeId, ReplicaId};
use pontoon_wire::client::Outcome;

use crate::cluster::{Cluster, n};

fn with_past(config: &mut CoreConfig) {
    let (life, log) = (config.node.0, u128::from(config.node.0));
    config.past = Some(Past { life, log, mark: LogMark(0), ledger: Ledger::default(), vouched: false });
}

/// Node 1 leads one group, and everybody is registered.
fn cluster() -> Cluster {
    cluster_with(None)
}

fn cluster_with(bug: Option<CoreMutation>) -> Cluster {
    let mut cluster = Cluster::dark_with(1, |config| {
        with_past(config);
        config.mutation = bug;
    })
    .lit();
    cluster.run(Duration::from_secs(3));
    for node in 1..=3 {
        assert_eq!(cluster.cores[&n(node)].standing(), CoreStanding::Registered);
    }
    cluster.lives.clear();
    cluster
}

/// A follower, the leader, and the third one.
fn roles(cluster: &Cluster) -> [NodeId; 3] {
    let node = follower(cluster);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let third = [n(1), n(2), n(3)].into_iter().find(|other| *other != node && *other != leader).unwrap();
    [node, leader, third]
}

fn write(cluster: &mut Cluster, key: &str) {
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let put = cluster.put(key, "value");
    assert!(matches!(cluster.ask(leader, put), Ok(Outcome::Written(_))));
    cluster.run(Duration::from_secs(1));
}

/// A follower, which has a leader elsewhere.
fn follower(cluster: &Cluster) -> NodeId {
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    [n(1), n(2), n(3)].into_iter().find(|node| *node != leader).unwrap()
}

/// The disk of a node, ledger included, at some time.
#[derive(Clone)]
struct Image {
    ledger: Ledger,
    mark: u64,
    hard_state: HardState,
    entries: Vec<Entry>,
}

fn image(cluster: &Cluster, node: NodeId) -> Image {
    let view = cluster.cores[&node].groups().next().unwrap();
    Image {
        ledger: cluster.ledgers[&node].clone(),
        mark: cluster.marks[&node],
        hard_state: HardState { term: view.term(), vote: view.vote() },
        entries: view.entries(Index(1), view.last().index).cloned().collect(),
    }
}

fn put_back(cluster: &mut Cluster, node: NodeId, image: &Image) {
    cluster.ledgers.insert(node, image.ledger.clone());
    cluster.marks.insert(node, image.mark);
    let descriptor = cluster.descriptors[0].clone();
    cluster.restart(node, |group| {
        *group = GroupState::new(descriptor.clone(), image.hard_state, image.entries.clone());
    });
}

fn standing(cluster: &Cluster, node: NodeId) -> CoreStanding {
    cluster.cores[&node].standing()
}

#[test]
fn a_core_that_lost_nothing_is_accepted_by_both_peers_in_one_exchange() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    let node = follower(&cluster);
    let mark = cluster.marks[&node];
    cluster.restart(node, |_| {});
    cluster.settle();
    assert_eq!(standing(&cluster, node), CoreStanding::Registered, "without any time passing: {:#?}", cluster.lives);
    let life = node.0 + 10;
    let mut lines = cluster.lives.clone();
    lines.dedup();
    lines.retain(|line| line.contains(&format!("life {life}")));
    lines.sort();
    let others = [n(1), n(2), n(3)].into_iter().filter(|other| *other != node);
    let mut wanted: Vec<String> = others
        .flat_map(|other| {
            [
                format!("{node} registers life {life} at m{mark} with {other}"),
                format!("{other} accepts life {life} of {node}, as inc2"),
            ]
        })
        .collect();
    wanted.sort();
    lines.dedup();
    assert_eq!(lines, wanted);
}

#[test]
fn one_that_was_put_back_is_refused_follows_and_does_not_vote() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    let node = follower(&cluster);
    let old = image(&cluster, node);
    write(&mut cluster, "b");
    put_back(&mut cluster, node, &old);
    cluster.run(Duration::from_secs(2));
    assert_eq!(standing(&cluster, node), CoreStanding::Refused, "{:#?}", cluster.lives);
    assert!(cluster.ledgers[&node].refused, "and knows it when it starts again");
    let view = cluster.cores[&node].groups().next().unwrap();
    assert!(view.is_vote_lost());
    let last = view.last();
    write(&mut cluster, "c");
    let view = cluster.cores[&node].groups().next().unwrap();
    assert!(view.last() > last && view.applied() == view.last().index, "it goes on to follow");

    // It lags further, is put back once more, and has no leader: two of three, and still nobody is elected.
    put_back(&mut cluster, node, &old);
    cluster.run(Duration::from_secs(2));
    assert_eq!(standing(&cluster, node), CoreStanding::Refused);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.isolate(leader);
    cluster.run(Duration::from_secs(30));
    let rest = cluster.cores.iter().filter(|(node, _)| **node != leader);
    let leads = rest.flat_map(|(_, core)| core.groups()).any(|view| view.role() == Role::Leader);
    assert!(!leads, "a vote of one that has forgotten its votes");
}

#[test]
fn with_one_peer_left_that_was_in_touch_it_is_accepted_after_the_others_had_time() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    let [node, _, third] = roles(&cluster);
    cluster.isolate(third);
    cluster.run(Duration::from_secs(3));
    cluster.restart(node, |_| {});
    cluster.settle();
    assert_eq!(standing(&cluster, node), CoreStanding::Waiting, "the third one may know better");
    cluster.run(Duration::from_millis(1_200));
    assert_eq!(standing(&cluster, node), CoreStanding::Registered);
}

#[test]
fn a_peer_that_was_out_of_touch_is_not_enough() {
    let stands = |bug| {
        let mut cluster = cluster_with(bug);
        write(&mut cluster, "a");
        let [node, leader, third] = roles(&cluster);
        // The third one misses what the other two commit; then only it is there to be asked.
        cluster.isolate(third);
        cluster.run(Duration::from_secs(3));
        let old = image(&cluster, node);
        write(&mut cluster, "b");
        cluster.cut.clear();
        cluster.isolate(leader);
        put_back(&mut cluster, node, &old);
        cluster.run(Duration::from_secs(20));
        let early = standing(&cluster, node);
        cluster.cut.clear();
        cluster.run(Duration::from_secs(3));
        [early, standing(&cluster, node)]
    };
    assert_eq!(stands(None), [CoreStanding::Waiting, CoreStanding::Refused], "the leader knows");
    assert_eq!(stands(Some(CoreMutation::AnyWitness))[0], CoreStanding::Registered, "its votes are forgotten");
}

#[test]
fn no_verdict_leaves_before_the_ledger_is_durable() {
    let stands = |bug| {
        let mut cluster = cluster_with(bug);
        write(&mut cluster, "a");
        let [node, others @ ..] = roles(&cluster);
        cluster.ledger_held.extend(others);
        cluster.restart(node, |_| {});
        cluster.run(Duration::from_secs(5));
        let early = standing(&cluster, node);
        cluster.ledger_held.clear();
        cluster.run(Duration::from_secs(1));
        [early, standing(&cluster, node)]
    };
    assert_eq!(stands(None), [CoreStanding::Waiting, CoreStanding::Registered]);
    assert_eq!(stands(Some(CoreMutation::VerdictBeforeLedger))[0], CoreStanding::Registered, "nobody will remember");
}

#[test]
fn all_that_start_at_once_register_with_each_other() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    for node in 1..=3 {
        cluster.restart(n(node), |_| {});
    }
    cluster.run(Duration::from_secs(5));
    for node in 1..=3 {
        assert_eq!(standing(&cluster, n(node)), CoreStanding::Registered);
    }
    write(&mut cluster, "b");
}

#[test]
fn whoever_an_operator_vouches_for_asks_nobody() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    let node = follower(&cluster);
    cluster.isolate(node);
    cluster.change_config(node, |config| config.past.as_mut().unwrap().vouched = true);
    cluster.restart(node, |_| {});
    cluster.settle();
    assert_eq!(standing(&cluster, node), CoreStanding::Registered);
}

/// It may be one that was made after the image: an earlier life of it promised something.
#[test]
fn a_replica_that_comes_to_life_on_a_refused_core_does_not_vote() {
    let mut cluster = Cluster::with_spares(1, 1, with_past).lit();
    cluster.run(Duration::from_secs(3));
    write(&mut cluster, "a");
    cluster.ledgers.get_mut(&n(4)).unwrap().refused = true;
    cluster.restart(n(4), |_| {});
    cluster.run(Duration::from_secs(3));
    assert_eq!(standing(&cluster, n(4)), CoreStanding::Refused);
    let group = cluster.descriptors[0].group;
    let leader = cluster.leader(group).unwrap();
    let learner = Change::Learner(Member { node: n(4), replica: ReplicaId(4) });
    cluster.event(leader, Event::ChangeMembers { group, change: MembersChange::Simple(vec![learner]) });
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.refused_orders, []);
    let view = |node: NodeId| cluster.cores[&node].groups().next().expect("it has come to life");
    assert!(view(n(4)).is_vote_lost());
    assert_eq!(view(n(4)).applied(), view(leader).applied(), "it follows");
}

/// The log of one that was put back counts its incarnations from an earlier one on, so its second life has the number that the
/// peers gave to the first. They must tell the two apart, or they would take for old what the second one says.
#[test]
fn a_refused_core_that_starts_again_is_heard_under_a_new_incarnation() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    let node = follower(&cluster);
    let old = image(&cluster, node);
    write(&mut cluster, "b");
    let before = cluster.cores[&node].incarnation();
    cluster.change_config(node, |config| config.incarnation = Incarnation(before.0 - 1));
    put_back(&mut cluster, node, &old);
    cluster.run(Duration::from_secs(2));
    assert_eq!(standing(&cluster, node), CoreStanding::Refused);
    assert_eq!(
        cluster.cores[&node].incarnation(),
        Incarnation(before.0 + 1),
        "the peers told it: {:#?}",
        cluster.lives
    );
    write(&mut cluster, "c");

    cluster.restart(node, |_| {});
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.cores[&node].incarnation(), Incarnation(before.0 + 2), "{:#?}", cluster.lives);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let applied = |node: NodeId| cluster.cores[&node].groups().next().map(|view| view.applied());
    assert_eq!(applied(node), applied(leader), "nobody writes, and still it hears what is committed");
}

/// The peers never accepted the life that followed the first time, so nothing but the marks tells them of the second; and those
/// of that life, which are lower than what the log once had, must not hide what it once had, not even when the peers have restarted.
#[test]
fn one_that_is_put_back_twice_is_refused_by_peers_that_have_restarted() {
    let mut cluster = cluster();
    write(&mut cluster, "a");
    let node = follower(&cluster);
    let old = image(&cluster, node);
    write(&mut cluster, "b");
    let before = cluster.cores[&node].incarnation();
    cluster.change_config(node, |config| config.incarnation = Incarnation(before.0 - 1));
    put_back(&mut cluster, node, &old);
    cluster.run(Duration::from_secs(2));
    assert_eq!(standing(&cluster, node), CoreStanding::Refused);

    for other in [n(1), n(2), n(3)].into_iter().filter(|other| *other != node) {
        cluster.restart(other, |_| {});
        cluster.run(Duration::from_secs(3));
        let heard = cluster.ledgers[&other].peers[&node];
        assert_eq!((heard.incarnation, heard.life), (Incarnation(before.0 + 1), 0), "a refused life is not noted");
    }
    put_back(&mut cluster, node, &old);
    assert_eq!(cluster.cores[&node].incarnation(), Incarnation(before.0 + 1), "the one of the life before");
    cluster.run(Duration::from_secs(2));
    assert_eq!(standing(&cluster, node), CoreStanding::Refused, "{:#?}", cluster.lives);
}

/// The leader hears of a life and cannot note it. If it took what that life says, and ended, it could not tell an image from just
/// before that life from the life itself.
#[test]
fn what_is_acknowledged_counts_only_where_the_life_is_noted() {
    let forgets = |bug| {
        let mut cluster = cluster_with(bug);
        write(&mut cluster, "a");
        let [node, leader, third] = roles(&cluster);
        let old = image(&cluster, node);
        cluster.ledger_held.insert(leader);
        cluster.restart(node, |_| {});
        cluster.run(Duration::from_secs(3));
        assert_eq!(standing(&cluster, node), CoreStanding::Registered, "by the word of the third one");

        cluster.isolate(third);
        let put = cluster.put("b", "value");
        let sequence = cluster.submit(leader, put);
        cluster.run(Duration::from_millis(500));
        let written = matches!(cluster.reply(leader, sequence), Some(Ok(Outcome::Written(_))));
        // The leader ends and comes back while the node is away, which returns as it was before its last life.
        cluster.cut.clear();
        cluster.isolate(node);
        cluster.restart(leader, |_| {});
        cluster.ledger_held.clear();
        cluster.run(Duration::from_secs(3));
        cluster.cut.clear();
        cluster.isolate(third);
        let before = cluster.cores[&node].incarnation();
        cluster.change_config(node, |config| config.incarnation = Incarnation(before.0 - 1));
        put_back(&mut cluster, node, &old);
        cluster.run(Duration::from_secs(3));
        (written, standing(&cluster, node))
    };
    let (written, passes) = forgets(Some(CoreMutation::SpeakUnjudged));
    assert!(written && passes == CoreStanding::Registered, "it acknowledged the write and passes without it");
    assert!(!forgets(None).0, "not acknowledged without the third one");
}
