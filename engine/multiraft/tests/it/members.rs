//! Members and leaders that change, on three cores. What the consensus does has its own scripts; here it is what a core
//! makes of it: orders and refusals, descriptors, reads, and who may decide.

use std::time::Duration;

use pontoon_multiraft::{Change, Event, MembersChange, OrderRefused, TransferRefused};
use pontoon_types::{Descriptor, Generation, GroupId, Member, NodeId, ReplicaId};
use pontoon_wire::client::{Outcome, Refusal};

use crate::cluster::{Cluster, n};

const SPAN: Duration = Duration::from_millis(300);

/// One group on three nodes, led by n1, and the member on each node.
fn three() -> (Cluster, GroupId, Vec<Member>) {
    let mut cluster = Cluster::new(1);
    let (group, members) = (cluster.descriptors[0].group, cluster.descriptors[0].members.to_vec());
    if cluster.leader(group) != Some(n(1)) {
        let leader = cluster.leader(group).unwrap();
        cluster.event(leader, Event::TransferLeader { group, to: n(1) });
        cluster.run(SPAN);
    }
    assert_eq!(cluster.leader(group), Some(n(1)));
    (cluster, group, members)
}

fn order(cluster: &mut Cluster, node: NodeId, change: MembersChange) {
    let group = cluster.descriptors[0].group;
    cluster.event(node, Event::ChangeMembers { group, change });
    cluster.run(SPAN);
}

fn refused(cluster: &mut Cluster) -> Vec<OrderRefused> {
    cluster.refused_orders.drain(..).map(|(_, why)| why).collect()
}

/// What a core says of the group.
fn descriptor(cluster: &Cluster, node: NodeId) -> Descriptor {
    cluster.cores[&node].groups().next().unwrap().descriptor().clone()
}

fn member_on(members: &[Member], node: u64) -> Member {
    *members.iter().find(|member| member.node == n(node)).unwrap()
}

#[test]
fn a_leader_hands_over_and_the_new_one_serves() {
    let (mut cluster, group, _) = three();
    let put = cluster.put("k", "before");
    cluster.ask(n(1), put).unwrap();
    cluster.event(n(1), Event::TransferLeader { group, to: n(2) });
    let early = cluster.put("k", "meanwhile");
    let sequence = cluster.submit(n(1), early);
    let refusal = cluster.reply(n(1), sequence).unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Busy { .. }), "a proposal in between is told to try again: {refusal:?}");
    cluster.run(SPAN);
    assert_eq!(cluster.leader(group), Some(n(2)));
    let (put, get) = (cluster.put("k", "after"), cluster.get("k"));
    cluster.ask(n(2), put).unwrap();
    assert_eq!(cluster.ask(n(2), get), Ok(Outcome::Value(Some("after".into()))));
    assert!(refused(&mut cluster).is_empty());
}

#[test]
fn orders_are_refused_by_name() {
    let (mut cluster, group, members) = three();
    cluster.event(n(1), Event::TransferLeader { group, to: n(9) });
    cluster.event(n(1), Event::TransferLeader { group, to: n(1) });
    cluster.event(n(1), Event::TransferLeader { group: GroupId(77), to: n(2) });
    let me = member_on(&members, 1).replica;
    let expected = [
        OrderRefused::NoReplicaOn(n(9)),
        OrderRefused::Transfer(TransferRefused::LeadsAlready(n(1))),
        OrderRefused::NoGroup(GroupId(77)),
    ];
    assert_eq!(refused(&mut cluster), expected);
    let fourth = Member { node: n(4), replica: ReplicaId(44) };
    order(&mut cluster, n(1), MembersChange::Simple(vec![Change::Learner(fourth)]));
    assert_eq!(refused(&mut cluster), [OrderRefused::NoNode(n(4))], "a replica needs a node");
    order(&mut cluster, n(1), MembersChange::Leave);
    order(&mut cluster, n(2), MembersChange::Simple(vec![Change::Remove(me)]));
    let why: Vec<String> = refused(&mut cluster).iter().map(OrderRefused::to_string).collect();
    assert_eq!(why, ["the configuration is not joint", "this replica does not lead the group"]);
    assert_eq!(descriptor(&cluster, n(1)), cluster.descriptors[0], "nothing has changed");
}

/// Law 23: the descriptor changes at apply, on every node alike, by one generation for each applied configuration; a client
/// with the old one hears of the new one.
#[test]
fn the_descriptor_follows_and_a_client_is_told() {
    let (mut cluster, _, members) = three();
    let (put, stale) = (cluster.put("k", "before"), cluster.put("k", "stale"));
    cluster.ask(n(1), put).unwrap();
    order(&mut cluster, n(1), MembersChange::Simple(vec![Change::Remove(member_on(&members, 3).replica)]));
    let now = descriptor(&cluster, n(1));
    assert_eq!(now.generation, Generation(cluster.descriptors[0].generation.0 + 1));
    assert_eq!(now.members.to_vec(), members.iter().filter(|member| member.node != n(3)).copied().collect::<Vec<_>>());
    assert_eq!(descriptor(&cluster, n(2)), now);
    let told = cluster.ask(n(1), stale).unwrap_err();
    assert_eq!(told, Refusal::StaleDescriptor { descriptor: now.clone(), leader: Some(n(1)) });
    cluster.descriptors[0] = now;
    let put = cluster.put("k", "after");
    cluster.ask(n(1), put).unwrap();
}

#[test]
fn a_restart_finds_the_same_descriptor() {
    let (mut cluster, _, members) = three();
    let founded = cluster.descriptors[0].clone();
    let third = member_on(&members, 3);
    order(&mut cluster, n(1), MembersChange::Simple(vec![Change::Learner(third)]));
    order(&mut cluster, n(1), MembersChange::Joint { changes: vec![Change::Voter(third)], auto_leave: true });
    let now = descriptor(&cluster, n(1));
    assert_eq!(now.generation, Generation(founded.generation.0 + 3), "a joint change is two configurations");
    cluster.restart(n(2), |_| {});
    cluster.run(Duration::from_secs(3));
    assert_eq!(descriptor(&cluster, n(2)), now);
    let configuration = |node| cluster.cores[&node].groups().next().unwrap().configuration().to_string();
    assert_eq!(configuration(n(2)), configuration(n(1)));
}

/// A learner confirms no read and supports no leader: with the other voter gone the leader serves nothing, and resigns.
#[test]
fn a_learner_decides_nothing() {
    let (mut cluster, group, members) = three();
    order(&mut cluster, n(1), MembersChange::Simple(vec![Change::Learner(member_on(&members, 3))]));
    cluster.descriptors[0] = descriptor(&cluster, n(1));
    cluster.isolate(n(2));
    let (put, get) = (cluster.put("k", "v"), cluster.get("k"));
    let (put, get) = (cluster.submit(n(1), put), cluster.submit(n(1), get));
    cluster.run(SPAN);
    assert_eq!(cluster.reply(n(1), put), None, "one voter of two commits nothing");
    assert_eq!(cluster.reply(n(1), get), None, "one voter of two confirms nothing");
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.leader(group), None, "a leader without a supporting quorum resigns");
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader(group).expect("the voters elect one of them");
    assert_ne!(leader, n(3));
    let put = cluster.put("k", "again");
    cluster.ask(leader, put).unwrap();
}

#[test]
fn a_leader_that_is_removed_hands_over_and_ends() {
    let (mut cluster, group, members) = three();
    order(&mut cluster, n(1), MembersChange::Simple(vec![Change::Remove(member_on(&members, 1).replica)]));
    let leader = cluster.leader(group).expect("one of the others leads within the time of a message");
    assert_ne!(leader, n(1));
    cluster.descriptors[0] = descriptor(&cluster, leader);
    let put = cluster.put("k", "v");
    cluster.ask(leader, put).unwrap();
    cluster.run(Duration::from_secs(20));
    assert_eq!(cluster.leader(group), Some(leader), "the removed one disturbs nobody");
    assert_eq!(cluster.cores[&n(1)].groups().count(), 0, "and is gone");
    assert_eq!(cluster.tombstones[&n(1)], [(group, member_on(&members, 1).replica)]);
}

/// Two of three move at once: everything goes on in the joint configuration, and only the voters of the end remain.
#[test]
fn a_joint_change_goes_through_while_clients_write() {
    let (mut cluster, group, members) = three();
    let changes = vec![Change::Learner(member_on(&members, 2)), Change::Remove(member_on(&members, 3).replica)];
    let put = cluster.put("k", "v");
    let group_event = Event::ChangeMembers { group, change: MembersChange::Joint { changes, auto_leave: true } };
    cluster.event(n(1), group_event);
    let sequence = cluster.submit(n(1), put);
    cluster.run(SPAN);
    assert!(cluster.reply(n(1), sequence).unwrap().is_ok(), "a write in between is executed");
    let now = descriptor(&cluster, n(1));
    assert_eq!(now.members.iter().map(|member| member.node).collect::<Vec<_>>(), [n(1), n(2)]);
    cluster.descriptors[0] = now;
    cluster.isolate(n(1));
    let put = cluster.put("k", "alone");
    cluster.ask(n(1), put).expect("the only voter decides alone");
}
