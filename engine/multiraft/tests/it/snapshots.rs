//! Checkpoints and snapshots as scripts: small logs, small chunks, and every step of the way shown.

use std::time::Duration;

use pontoon_multiraft::{
    Change, CheckpointConfig, CoreConfig, Event, GroupState, GroupView, MembersChange, OrderRefused,
};
use pontoon_types::{GroupId, Index, Member, NodeId, ReplicaId};
use pontoon_wire::client::{OperationOutcome, Outcome};

use crate::cluster::{Cluster, bytes, n, request};

pub const SPAN: Duration = Duration::from_secs(1);

pub fn small(config: &mut CoreConfig) {
    config.checkpoint = CheckpointConfig { log_bytes: 600, chunk_bytes: 64 };
}

/// One range on three of so many nodes, led by node 1, with checkpoints after a few writes.
pub fn cluster(spares: u64) -> (Cluster, GroupId) {
    cluster_of(spares, small)
}

pub fn cluster_of(spares: u64, change: impl Fn(&mut CoreConfig)) -> (Cluster, GroupId) {
    let mut cluster = Cluster::with_spares(1, spares, change);
    cluster.prints = true;
    for node in [n(2), n(3)] {
        cluster.event(node, Event::Stalled(true));
    }
    let mut cluster = cluster.lit();
    cluster.run(Duration::from_secs(3));
    for node in [n(2), n(3)] {
        cluster.event(node, Event::Stalled(false));
    }
    cluster.run(SPAN);
    let group = cluster.descriptors[0].group;
    assert_eq!(cluster.leader(group), Some(n(1)));
    (cluster, group)
}

pub fn view(cluster: &Cluster, node: NodeId) -> GroupView<'_> {
    cluster.cores[&node].groups().next().expect("a replica")
}

pub fn write(cluster: &mut Cluster, count: u32) {
    for number in 0..count {
        let put = cluster.put(&format!("key {}", number % 20), &format!("value {number} {}", "x".repeat(20)));
        let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
        cluster.ask(leader, put).unwrap();
    }
}

pub fn same(cluster: &mut Cluster, nodes: &[NodeId]) {
    cluster.run(SPAN);
    let first = view(cluster, nodes[0]);
    for node in nodes {
        let other = view(cluster, *node);
        assert!(other.is_ready(), "{node} is ready");
        assert_eq!((other.applied(), other.digest()), (first.applied(), first.digest()), "{node} has the same state");
        assert_eq!(other.descriptor(), first.descriptor());
    }
}

pub fn member(node: u64, replica: u64) -> Member {
    Member { node: n(node), replica: ReplicaId(replica) }
}

pub fn change(cluster: &mut Cluster, changes: Vec<Change>) {
    let group = cluster.descriptors[0].group;
    let leader = cluster.leader(group).unwrap();
    cluster.event(leader, Event::ChangeMembers { group, change: MembersChange::Simple(changes) });
    cluster.run(SPAN);
    assert_eq!(cluster.refused_orders, []);
    let leader = cluster.leader(group).unwrap();
    cluster.descriptors[0] = view(cluster, leader).descriptor().clone();
}

/// Law 19: the log goes when the checkpoint is durable, and not before.
#[test]
fn a_log_is_given_up_when_its_checkpoint_is_stored() {
    let (mut cluster, group) = cluster(0);
    cluster.shelved.insert(n(2));
    write(&mut cluster, 40);
    assert!(view(&cluster, n(1)).compacted().index > Index(0), "node 1 has a checkpoint");
    assert_eq!(view(&cluster, n(1)).compacted(), cluster.shelves[&n(1)].last(group).unwrap());
    assert_eq!(view(&cluster, n(2)).compacted().index, Index(0), "node 2 waits for its store");
    cluster.shelved.clear();
    cluster.settle();
    assert!(view(&cluster, n(2)).compacted().index > Index(0));
    same(&mut cluster, &[n(1), n(2), n(3)]);
}

#[test]
fn a_restart_begins_with_the_checkpoint() {
    let (mut cluster, _) = cluster(0);
    write(&mut cluster, 40);
    cluster.run(SPAN);
    let (before, compacted) = (view(&cluster, n(2)).digest(), view(&cluster, n(2)).compacted());
    assert!(compacted.index > Index(0));
    cluster.restart(n(2), |_| {});
    assert!(view(&cluster, n(2)).applied() >= compacted.index, "nothing before it is applied again");
    cluster.run(Duration::from_secs(3));
    assert_eq!(view(&cluster, n(2)).digest(), before);
    same(&mut cluster, &[n(1), n(2), n(3)]);
}

#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let (mut cluster, _) = cluster(0);
    cluster.isolate(n(3));
    write(&mut cluster, 60);
    let behind = view(&cluster, n(3)).last().index;
    assert!(view(&cluster, n(1)).compacted().index > behind, "the log does not reach back to it");
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    same(&mut cluster, &[n(1), n(2), n(3)]);
    assert!(view(&cluster, n(3)).compacted().index > behind);
    write(&mut cluster, 3);
    cluster.run(SPAN);
    same(&mut cluster, &[n(1), n(2), n(3)]);
}

/// What has arrived stays: the link breaks in the middle, and the rest comes over the next one.
#[test]
fn a_transfer_goes_on_where_it_was_cut() {
    let (mut cluster, group) = cluster(0);
    cluster.isolate(n(3));
    write(&mut cluster, 60);
    cluster.cut.clear();
    cluster.shelved.insert(n(3));
    cluster.run(SPAN);
    // Some chunks wait for the store of node 3, and the next ones for credit.
    cluster.isolate(n(3));
    cluster.shelved.clear();
    cluster.run(SPAN);
    assert!(!view(&cluster, n(3)).is_ready() || view(&cluster, n(3)).last() < view(&cluster, n(1)).compacted());
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    same(&mut cluster, &[n(1), n(2), n(3)]);
    assert!(cluster.shelves[&n(3)].last(group).is_some());
}

/// While the first snapshot is on its way, newer checkpoints are made. The receiver gets what was offered, and then entries.
#[test]
fn a_snapshot_on_its_way_is_not_overtaken() {
    let (mut cluster, group) = cluster(0);
    cluster.isolate(n(3));
    write(&mut cluster, 60);
    cluster.cut.clear();
    cluster.shelved.insert(n(3));
    cluster.run(SPAN);
    let offered = cluster.shelves[&n(1)].last(group).unwrap();
    write(&mut cluster, 60);
    assert!(cluster.shelves[&n(1)].last(group).unwrap() > offered, "there is a newer one");
    assert!(view(&cluster, n(1)).compacted() <= offered, "the log is kept behind the one that is sent");
    cluster.shelved.clear();
    cluster.run(Duration::from_secs(5));
    same(&mut cluster, &[n(1), n(2), n(3)]);
    write(&mut cluster, 20);
    cluster.run(SPAN);
    assert!(view(&cluster, n(1)).compacted() > offered, "and given up when it has arrived");
}

/// Law 18: between the flip of the store and the reset of the log the process ends. The next start does the rest.
#[test]
fn a_crash_behind_the_flip_ends_with_the_snapshot() {
    let (mut cluster, group) = cluster(0);
    cluster.isolate(n(3));
    write(&mut cluster, 60);
    cluster.cut.clear();
    let behind = view(&cluster, n(3)).last();
    // Its store gets everything, and its core hears of nothing.
    cluster.held.insert(n(3));
    cluster.run(Duration::from_secs(2));
    let flipped = cluster.shelves[&n(3)].last(group).expect("the flip is done");
    assert!(flipped.index > behind.index);
    let (digest, applied) = (view(&cluster, n(1)).digest(), view(&cluster, n(1)).applied());
    cluster.unsynced.clear();
    cluster.restart(n(3), |state| {
        // The log knows nothing of the snapshot.
        (state.compacted, state.entries) = (Default::default(), Vec::new());
    });
    cluster.held.clear();
    assert_eq!(view(&cluster, n(3)).compacted(), flipped, "the log is reset to the checkpoint");
    cluster.run(Duration::from_secs(5));
    assert_eq!((view(&cluster, n(3)).digest(), view(&cluster, n(3)).applied()), (digest, applied));
}

/// A learner on a node that had no replica: made by a snapshot, caught up, promoted, and then a voter like any other.
#[test]
fn a_learner_comes_to_life_and_is_promoted() {
    let (mut cluster, group) = cluster(1);
    write(&mut cluster, 30);
    change(&mut cluster, vec![Change::Learner(member(4, 4))]);
    cluster.run(Duration::from_secs(3));
    same(&mut cluster, &[n(1), n(2), n(3), n(4)]);
    change(&mut cluster, vec![Change::Voter(member(4, 4))]);
    assert_eq!(view(&cluster, n(4)).configuration().to_string(), "1 2 3 4");
    cluster.isolate(n(2));
    write(&mut cluster, 5);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(3));
    same(&mut cluster, &[n(1), n(2), n(3), n(4)]);
    cluster.restart(n(4), |_| {});
    cluster.run(Duration::from_secs(3));
    same(&mut cluster, &[n(1), n(2), n(3), n(4)]);
    cluster.event(n(1), Event::TransferLeader { group, to: n(4) });
    cluster.run(SPAN);
    assert_eq!(cluster.leader(group), Some(n(4)), "it can lead");
    write(&mut cluster, 5);
}

/// A new replica of a group that nobody has written to: its state is empty, and a snapshot all the same.
#[test]
fn an_empty_group_gives_a_snapshot_too() {
    let (mut cluster, _) = cluster(1);
    change(&mut cluster, vec![Change::Learner(member(4, 4))]);
    cluster.run(Duration::from_secs(3));
    same(&mut cluster, &[n(1), n(4)]);
}

#[test]
fn a_removed_follower_is_destroyed_and_its_place_is_taken_by_another() {
    let (mut cluster, group) = cluster(0);
    write(&mut cluster, 30);
    change(&mut cluster, vec![Change::Remove(ReplicaId(3))]);
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.cores[&n(3)].groups().count(), 0, "it is gone");
    assert_eq!(cluster.tombstones[&n(3)], [(group, ReplicaId(3))]);
    assert_eq!(cluster.shelves[&n(3)].last(group), None, "and so is its checkpoint");
    cluster.event(
        n(1),
        Event::ChangeMembers { group, change: MembersChange::Simple(vec![Change::Learner(member(3, 3))]) },
    );
    let refused = std::mem::take(&mut cluster.refused_orders);
    let expected = OrderRefused::UsedReplica { replica: ReplicaId(3), highest: ReplicaId(3) };
    assert_eq!(refused, [(group, expected)], "law 11: a replica that died stays dead");
    change(&mut cluster, vec![Change::Learner(member(3, 5))]);
    cluster.run(Duration::from_secs(3));
    same(&mut cluster, &[n(1), n(2), n(3)]);
    assert_eq!(view(&cluster, n(3)).replica(), ReplicaId(5));
}

/// A replica that was away when it was removed finds out when it comes back, and disturbs nobody.
#[test]
fn a_replica_that_was_away_hears_that_it_is_gone() {
    let (mut cluster, group) = cluster(0);
    cluster.isolate(n(3));
    write(&mut cluster, 5);
    change(&mut cluster, vec![Change::Remove(ReplicaId(3))]);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.cores[&n(3)].groups().count(), 1, "it knows nothing yet");
    let term = view(&cluster, n(1)).term();
    cluster.cut.clear();
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.cores[&n(3)].groups().count(), 0);
    assert_eq!((cluster.leader(group), view(&cluster, n(1)).term()), (Some(n(1)), term), "nobody was deposed");
}

/// Law 11: what was destroyed does not come back, not even after a restart.
#[test]
fn a_dead_replica_is_not_revived() {
    let (mut cluster, _) = cluster(1);
    write(&mut cluster, 10);
    change(&mut cluster, vec![Change::Learner(member(4, 4))]);
    cluster.run(Duration::from_secs(3));
    change(&mut cluster, vec![Change::Remove(ReplicaId(4))]);
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.cores[&n(4)].groups().count(), 0);
    cluster.restart(n(4), |_| {});
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.cores[&n(4)].groups().count(), 0);
    same(&mut cluster, &[n(1), n(2), n(3)]);
}

/// A leader that removes itself tells the others, hands over and ends; the group goes on.
#[test]
fn a_leader_removes_itself() {
    let (mut cluster, group) = cluster(0);
    write(&mut cluster, 30);
    change(&mut cluster, vec![Change::Remove(ReplicaId(1))]);
    cluster.run(Duration::from_secs(3));
    let leader = cluster.leader(group).expect("another one leads");
    assert_ne!(leader, n(1));
    assert_eq!(cluster.cores[&n(1)].groups().count(), 0);
    write(&mut cluster, 10);
    same(&mut cluster, &[n(2), n(3)]);
}

/// A replica whose checkpoint cannot be read does not act on a wrong state: it serves nothing, does not lead, and is given
/// the state again.
#[test]
fn a_replica_without_its_state_is_given_it_again() {
    let (mut cluster, group) = cluster(0);
    write(&mut cluster, 40);
    cluster.run(SPAN);
    let before = view(&cluster, n(2)).digest();
    cluster.restart(n(2), |state| state.checkpoint = None);
    assert!(!view(&cluster, n(2)).is_ready());
    cluster.run(Duration::from_secs(5));
    assert_eq!(view(&cluster, n(2)).digest(), before);
    same(&mut cluster, &[n(1), n(2), n(3)]);
    let get = cluster.get("key 3");
    assert!(matches!(cluster.ask(n(1), get), Ok(Outcome::Value(Some(_)))));
    cluster.event(n(1), Event::TransferLeader { group, to: n(2) });
    cluster.run(SPAN);
    assert_eq!(cluster.leader(group), Some(n(2)));
    write(&mut cluster, 3);
}

/// A replica that has lost its state may have given up more of its log than the leader's checkpoint covers. Refused, the
/// leader makes a newer one, and does not offer the old one over and over.
#[test]
fn a_checkpoint_that_is_too_old_for_a_replica_without_its_state_is_made_anew() {
    let (mut cluster, _) = cluster_of(0, |config| {
        small(config);
        if config.node == n(1) {
            config.checkpoint.log_bytes = 4_000;
        }
    });
    write(&mut cluster, 50);
    let offered = view(&cluster, n(1)).checkpoint().unwrap_or_default();
    cluster.restart(n(2), |state| state.checkpoint = None);
    let compacted = view(&cluster, n(2)).compacted();
    assert!(offered.index.0 > 0 && compacted > offered, "{offered} is older than {compacted}");
    cluster.run(Duration::from_secs(5));
    same(&mut cluster, &[n(1), n(2), n(3)]);
}

/// When the others have given up an entry, only their snapshot has what a replica has lost of it.
#[test]
fn a_lost_payload_that_the_others_have_given_up_is_made_up_for_by_a_snapshot() {
    let (mut cluster, _) = cluster_of(0, |config| {
        small(config);
        if config.node == n(2) {
            config.checkpoint.log_bytes = 1 << 20;
        }
    });
    write(&mut cluster, 50);
    let lose = |state: &mut GroupState| {
        state.entries[3].payload = bytes("");
        state.lost.push(Index(4));
    };
    cluster.restart(n(2), lose);
    assert!(view(&cluster, n(1)).compacted().index >= Index(4));
    cluster.run(Duration::from_secs(5));
    same(&mut cluster, &[n(1), n(2), n(3)]);
}

/// Law 21: a voter that does not exist could never vote, so a new replica begins as a learner and is promoted when it follows.
#[test]
fn a_replica_votes_only_when_it_exists() {
    let (mut cluster, group) = cluster(1);
    write(&mut cluster, 10);
    let order = |cluster: &mut Cluster, change: Change| {
        cluster.event(n(1), Event::ChangeMembers { group, change: MembersChange::Simple(vec![change]) });
        std::mem::take(&mut cluster.refused_orders)
    };
    let refused = order(&mut cluster, Change::Voter(member(4, 4)));
    assert_eq!(refused, [(group, OrderRefused::NotLearner(n(4)))]);
    cluster.isolate(n(4));
    assert_eq!(order(&mut cluster, Change::Learner(member(4, 4))), []);
    cluster.run(SPAN);
    let refused = order(&mut cluster, Change::Voter(member(4, 4)));
    assert_eq!(refused, [(group, OrderRefused::NotCaughtUp(n(4)))]);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    assert_eq!(order(&mut cluster, Change::Voter(member(4, 4))), []);
}

/// Law 24: what the group remembers of its clients travels with the state, and comes back from a checkpoint.
#[test]
fn a_request_is_known_behind_a_snapshot_and_a_checkpoint() {
    let (mut cluster, _) = cluster(0);
    cluster.isolate(n(3));
    let delete = pontoon_wire::command::KvOperation::Delete { key: bytes("key 1") };
    write(&mut cluster, 5);
    let request = cluster.write_as(request(1, 0, 1), "key 1", delete);
    let deleted = Ok(Outcome::Written(vec![OperationOutcome::Deleted { existed: true }]));
    assert_eq!(cluster.ask(n(1), request.clone()), deleted);
    write(&mut cluster, 60);
    let behind = view(&cluster, n(3)).last().index;
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    assert!(view(&cluster, n(3)).compacted().index > behind, "node 3 has a snapshot");
    assert_eq!(cluster.ask(n(3), request.clone()), deleted);
    cluster.restart(n(2), |_| {});
    assert_eq!(cluster.ask(n(2), request), deleted, "node 2 starts with its checkpoint");
    same(&mut cluster, &[n(1), n(2), n(3)]);
}
