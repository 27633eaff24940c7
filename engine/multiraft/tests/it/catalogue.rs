//! Situations in which other systems failed, each named by what was reported there. Those of the consensus alone are scripts of
//! `pontoon-raft`, those of leases stand with the law that is against them (`leases`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Change, CoreConfig, CoreMutation, Event, GroupState, MembersChange, Role};
use pontoon_raft::Mutation;
use pontoon_types::{
    Body, CoreId, GroupId, HardState, Incarnation, Index, KeyRange, LogId, Message, NodeId, ReplicaId, Term,
};
use pontoon_wire::peer::{PeerFrame, SnapshotBody, SnapshotMessage, SnapshotOffer};

use crate::cluster::{Cluster, n};
use crate::leases::{LENGTH, holds, two_at_once};
use crate::snapshots::{SPAN, change, cluster, cluster_of, member, same, small, view, write};

/// A change that is lost with its leader leaves nobody with other members than the rest, neither in the consensus nor in the
/// descriptor, and whoever has the lease is a voter. Elsewhere replicas kept different members, and one had the lease that
/// was no member for the others (cockroachdb/cockroach#13506).
#[test]
fn a_change_that_fails_leaves_all_with_the_same_members() {
    let ends_alike = |mutation: Option<Mutation>| {
        let (mut cluster, leader) = crate::leases::leased_with(|config: &mut CoreConfig| {
            Arc::make_mut(&mut config.raft).mutation = mutation;
        });
        let founded = cluster.descriptors[0].clone();
        cluster.isolate(leader);
        let away = Change::Remove(founded.replica_on(n(3)).unwrap());
        cluster.event(leader, Event::ChangeMembers { group: founded.group, change: MembersChange::Simple(vec![away]) });
        assert_eq!(cluster.refused_orders, []);
        assert_eq!(view(&cluster, leader).configuration().to_string(), "1 2", "what stands in its log is in force");
        assert_eq!(view(&cluster, leader).descriptor(), &founded, "and is said to nobody before it is committed");
        assert!(!two_at_once(&mut cluster, LENGTH * 3));
        cluster.cut.clear();
        cluster.run(Duration::from_secs(5));
        let led = cluster.leader(founded.group).expect("a leader");
        assert!(holds(&cluster, led), "the lease");
        assert!(led != leader && [n(1), n(2), n(3)].iter().all(|node| holds(&cluster, *node) == (*node == led)));
        [n(1), n(2), n(3)].into_iter().all(|node| {
            let view = view(&cluster, node);
            view.configuration().to_string() == "1 2 3" && view.descriptor() == &founded
        })
    };
    assert!(ends_alike(None));
    assert!(!ends_alike(Some(Mutation::KeepCutConfiguration)), "the bug shows");
}

/// While one snapshot is being stored, another one comes, of another leader and further on: before, between and after all steps of
/// the store for the first one. Elsewhere two in a short time ended the process (etcd-io/etcd#18055).
#[test]
fn two_snapshots_in_a_short_time_end_with_the_newer_one() {
    let mut steps_of_the_first = 0;
    for steps in 0..100 {
        let (mut cluster, group) = cluster(0);
        cluster.prints = false;
        cluster.isolate(n(3));
        write(&mut cluster, 60);
        cluster.cut.clear();
        cluster.shelved.insert(n(3));
        cluster.run(SPAN);
        let mut done = 0;
        while done < steps && !cluster.shelves[&n(3)].orders.is_empty() {
            cluster.store_once(n(3));
            cluster.settle();
            done += 1;
        }
        cluster.isolate(n(3));
        cluster.event(n(1), Event::TransferLeader { group, to: n(2) });
        cluster.run(SPAN);
        write(&mut cluster, 60);
        cluster.cut.clear();
        cluster.run(SPAN);
        cluster.shelved.clear();
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.leader(group), Some(n(2)));
        same(&mut cluster, &[n(1), n(2), n(3)]);
        if done < steps {
            steps_of_the_first = done;
            break;
        }
    }
    assert!(steps_of_the_first > 5, "the first one was seen from its beginning to its end");
}

/// A frame with one thing about a group in it, of a replica of the group on node 1.
fn frame(to: NodeId) -> PeerFrame {
    PeerFrame::new(n(1), CoreId(0), to, Incarnation(1))
}

fn hear(cluster: &mut Cluster, frame: PeerFrame) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    cluster.event(frame.to, Event::PeerFrame { from: frame.from, bytes: Bytes::from(bytes) });
    cluster.settle();
}

fn asks_for_a_vote(group: GroupId, to: ReplicaId) -> PeerFrame {
    let body = Body::Vote { last: LogId::new(Index(900), Term(90)), permit: None };
    let messages = vec![(group, Message { from: ReplicaId(1), to, term: Term(91), body })];
    PeerFrame { messages, ..frame(n(4)) }
}

/// Whether node 4 has said anything as a replica.
fn has_spoken(cluster: &Cluster) -> bool {
    let sent = cluster.recorded.iter().flatten().filter(|(from, ..)| *from == n(4));
    sent.map(|(_, _, bytes)| PeerFrame::decode(bytes.clone()).unwrap()).any(|frame| !frame.messages.is_empty())
}

/// A request for a vote that comes late, or all that was ever said to a replica once more, makes none: not one that does not exist
/// yet, nor one that was removed, nor after a restart. Elsewhere it came back without its vote and gave it twice
/// (tikv/tikv#10533).
#[test]
fn nothing_that_is_said_late_brings_a_removed_replica_back() {
    let stays_dead = |mutation: Option<CoreMutation>| {
        let (mut cluster, group) = cluster_of(1, |config| {
            small(config);
            config.mutation = mutation;
        });
        cluster.prints = false;
        write(&mut cluster, 10);
        cluster.recorded = Some(Vec::new());
        cluster.shelved.insert(n(4));
        change(&mut cluster, vec![Change::Learner(member(4, 4))]);
        hear(&mut cluster, asks_for_a_vote(group, ReplicaId(4)));
        let mut stays = !has_spoken(&cluster);
        cluster.shelved.clear();
        cluster.run(Duration::from_secs(3));
        change(&mut cluster, vec![Change::Voter(member(4, 4))]);
        change(&mut cluster, vec![Change::Remove(ReplicaId(4))]);
        cluster.run(Duration::from_secs(3));
        assert!(has_spoken(&cluster), "it was there");
        let late = cluster.recorded.replace(Vec::new()).unwrap();
        cluster.isolate(n(4));
        for _ in 0..2 {
            for (from, _, bytes) in late.iter().filter(|(_, to, _)| *to == n(4)) {
                cluster.event(n(4), Event::PeerFrame { from: *from, bytes: bytes.clone() });
                cluster.settle();
            }
            hear(&mut cluster, asks_for_a_vote(group, ReplicaId(4)));
            stays &= cluster.cores[&n(4)].groups().count() == 0 && !has_spoken(&cluster);
            cluster.restart(n(4), |_| {});
        }
        stays
    };
    assert!(stays_dead(None));
    for bug in [CoreMutation::ReviveDead, CoreMutation::UninitialisedVotes] {
        assert!(!stays_dead(Some(bug)), "{bug:?} shows");
    }
}

/// The replica on node 3 is replaced by another one, and the process ends after each step of the store: a replica that the log
/// holds has its state, and what was written is served. Elsewhere the old one was destroyed and the snapshot installed in
/// steps of which a crash left some (tikv/tikv#7027, tikv/tikv#9108).
#[test]
fn a_replica_takes_the_place_of_another_whole_or_not_at_all() {
    let is_whole = |mutation: Option<CoreMutation>| {
        for steps in 0..100 {
            let (mut cluster, group) = cluster_of(0, |config| {
                small(config);
                config.mutation = mutation;
            });
            cluster.prints = false;
            write(&mut cluster, 30);
            change(&mut cluster, vec![Change::Remove(ReplicaId(3))]);
            cluster.shelved.insert(n(3));
            change(&mut cluster, vec![Change::Learner(member(3, 5))]);
            let mut done = 0;
            while done < steps && !cluster.shelves[&n(3)].orders.is_empty() {
                cluster.store_once(n(3));
                cluster.settle();
                done += 1;
            }
            let holds = cluster.cores[&n(3)].groups().map(|view| view.replica()).next();
            if holds.is_some_and(|replica| cluster.shelves[&n(3)].found(group, replica).is_none()) {
                return false;
            }
            cluster.restart(n(3), |_| {});
            cluster.shelved.clear();
            cluster.run(Duration::from_secs(5));
            same(&mut cluster, &[n(1), n(2), n(3)]);
            assert_eq!(view(&cluster, n(3)).replica(), ReplicaId(5));
            if done < steps {
                assert!(holds.is_some(), "it came to life on the way");
                return true;
            }
        }
        panic!("the snapshot does not end");
    };
    assert!(is_whole(None));
    assert!(!is_whole(Some(CoreMutation::InstallBeforeStored)), "the bug shows");
}

/// The same, where the power goes before anything of it is durable in the log, and the store has all of it: the old replica
/// comes back, without its state, and goes when it hears what it is.
#[test]
fn the_log_of_the_old_replica_with_the_checkpoint_of_the_new_one_is_no_replica() {
    let (mut cluster, group) = cluster(0);
    cluster.prints = false;
    write(&mut cluster, 30);
    cluster.run(SPAN);
    let founded = cluster.descriptors[0].clone();
    let old = view(&cluster, n(3));
    let hard_state = HardState { term: old.term(), vote: old.vote() };
    let entries = old.entries(old.compacted().index.next(), old.last().index).cloned().collect();
    let old = GroupState { compacted: old.compacted(), ..GroupState::new(founded, hard_state, entries) };
    assert!(old.compacted.index > Index(0));
    cluster.held.insert(n(3));
    change(&mut cluster, vec![Change::Remove(ReplicaId(3))]);
    change(&mut cluster, vec![Change::Learner(member(3, 5))]);
    cluster.run(Duration::from_secs(3));
    assert!(cluster.shelves[&n(3)].found(group, ReplicaId(5)).is_some());

    cluster.cores.remove(&n(3));
    cluster.unsynced.remove(&n(3));
    cluster.held.clear();
    cluster.tombstones.remove(&n(3));
    cluster.shelves.get_mut(&n(3)).unwrap().stop();
    cluster.start_again(n(3), vec![old]);
    let back = view(&cluster, n(3));
    assert_eq!((back.replica(), back.is_ready(), back.role()), (ReplicaId(3), false, Role::Follower));
    cluster.run(Duration::from_secs(10));
    same(&mut cluster, &[n(1), n(2), n(3)]);
    assert_eq!(view(&cluster, n(3)).replica(), ReplicaId(5));
}

/// Keys that a replica here has are not given to another one by a snapshot, whatever its generation: the one that is here has to
/// be gone first (law 21).
#[test]
fn a_snapshot_over_a_range_that_lives_here_makes_nothing() {
    let (mut cluster, group) = cluster(0);
    write(&mut cluster, 30);
    let mut descriptor = view(&cluster, n(1)).descriptor().clone();
    let configuration = view(&cluster, n(1)).configuration().encode();
    let other = GroupId(group.0 + 7);
    (descriptor.group, descriptor.range, descriptor.generation.0) = (other, KeyRange::default(), 99);
    let last = LogId::new(Index(9), Term(9));
    let offer = SnapshotOffer { last, configuration, descriptor, chunks: 0, digest: 0 };
    let body = SnapshotBody::Offer(Box::new(offer));
    let snapshots = vec![SnapshotMessage { group: other, from: ReplicaId(1), to: ReplicaId(3), body }];
    hear(&mut cluster, PeerFrame { snapshots, ..frame(n(3)) });
    assert_eq!(cluster.cores[&n(3)].groups().map(|view| view.group()).collect::<Vec<_>>(), [group]);
    assert_eq!(cluster.shelves[&n(3)].last(other), None);
    same(&mut cluster, &[n(1), n(2), n(3)]);
}
