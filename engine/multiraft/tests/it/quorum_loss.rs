//! Which survivors' states lead to which plan: situations, and properties over random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pontoon_multiraft::quorum_loss::{Found, Held, Plan, Recovery, SurvivingReplica, Verdict, plan};
use pontoon_multiraft::{Change, Configuration};
use pontoon_types::limits::RECOVERY_JUMP;
use pontoon_types::{
    ClusterId, Descriptor, Generation, GroupId, HardState, Index, KeyRange, LogId, Member, NodeId, ReplicaId, Term,
};
use proptest::prelude::*;

const GROUP: GroupId = GroupId(2);

fn id(index: u64, term: u64) -> LogId {
    LogId::new(Index(index), Term(term))
}

fn member(node: u64) -> Member {
    Member { node: NodeId(node), replica: ReplicaId(node) }
}

fn voters(nodes: impl IntoIterator<Item = u64>) -> Configuration {
    Configuration::of_voters(nodes.into_iter().map(member)).unwrap()
}

/// The replica on a node of the same number, with these members from the start, and a log of one term.
fn replica(node: u64, last: LogId, members: &Configuration) -> SurvivingReplica {
    SurvivingReplica {
        compacted: LogId::default(),
        starts: Vec::from_iter((last.index.0 > 0).then_some(LogId::new(Index(1), last.term))),
        replica: ReplicaId(node),
        hard_state: HardState { term: last.term, vote: None },
        vote_lost: false,
        committed: LogId::default(),
        last,
        configurations: vec![members.clone()],
        generation: Generation(1),
        unusable: None,
    }
}

fn survivors<const N: usize>(of: [(u64, SurvivingReplica); N]) -> BTreeMap<NodeId, SurvivingReplica> {
    of.into_iter().map(|(node, of)| (NodeId(node), of)).collect()
}

fn recovery(survivors: BTreeMap<NodeId, SurvivingReplica>) -> (NodeId, Recovery) {
    let planned = plan(GROUP, survivors);
    match planned.verdict {
        Verdict::Recover(recovery) => (planned.base, recovery),
        other => panic!("{other:?}"),
    }
}

fn left_alone(survivors: BTreeMap<NodeId, SurvivingReplica>) -> String {
    match plan(GROUP, survivors).verdict {
        Verdict::LeftAlone(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_of_three_goes_on_alone_and_may_miss_writes() {
    let three = voters(1..=3);
    let of = SurvivingReplica { committed: id(640, 4), ..replica(1, id(812, 4), &three) };
    let planned = plan(GROUP, survivors([(1, of)]));
    assert_eq!((planned.base, planned.committed, planned.unproven_entries()), (NodeId(1), id(640, 4), 172));
    assert_eq!(planned.lost, [member(2), member(3)]);
    let recovery = planned.recovery().unwrap();
    assert!(recovery.may_miss);
    assert_eq!(recovery.entry, id(813, 4 + RECOVERY_JUMP));
    assert_eq!(recovery.generation, Generation(1 + RECOVERY_JUMP));
    let new = Member { node: NodeId(1), replica: ReplicaId(3 + RECOVERY_JUMP) };
    assert_eq!(recovery.configuration, Configuration::of_voters([new]).unwrap());
}

#[test]
fn the_higher_term_wins_over_the_longer_log() {
    let five = voters(1..=5);
    let (base, recovery) = recovery(survivors([(1, replica(1, id(90, 3), &five)), (4, replica(4, id(70, 5), &five))]));
    assert_eq!(base, NodeId(4));
    assert_eq!(recovery.entry, id(71, 5 + RECOVERY_JUMP));
    assert_eq!(recovery.configuration.voters().collect::<Vec<_>>(), [5, 6].map(|it| ReplicaId(it + RECOVERY_JUMP)));
    assert_eq!(recovery.configuration.replica_on(NodeId(1)), Some(ReplicaId(5 + RECOVERY_JUMP)));
}

/// A replica with a log of these terms.
fn with_terms(node: u64, terms: &[u64], members: &Configuration) -> SurvivingReplica {
    let id = |place: usize| id(place as u64 + 1, terms[place]);
    let is_first = |place: &usize| *place == 0 || terms[*place] != terms[*place - 1];
    let last = terms.len().checked_sub(1).map(id).unwrap_or_default();
    let starts = (0..terms.len()).filter(is_first).map(id).collect();
    SurvivingReplica { starts, ..replica(node, last, members) }
}

#[test]
fn what_is_known_to_be_committed_wins_over_a_higher_term() {
    // n5 led in term 3 and nobody heard; the leader of term 4, which is lost, committed 3@2.
    let five = voters(1..=5);
    let (higher, mut knows) = (with_terms(5, &[1, 1, 3, 3], &five), with_terms(2, &[1, 1, 2], &five));
    let of = |knows: &SurvivingReplica| plan(GROUP, survivors([(5, higher.clone()), (2, knows.clone())]));
    let planned = of(&knows);
    assert_eq!((planned.base, planned.dropped()), (NodeId(5), vec![(NodeId(2), 1)]), "nothing tells");
    knows.committed = id(2, 1);
    assert_eq!(of(&knows).base, NodeId(5), "both have that one");
    knows.committed = id(3, 2);
    let planned = of(&knows);
    assert_eq!((planned.base, planned.dropped()), (NodeId(2), vec![(NodeId(5), 2)]), "a checkpoint tells");
    assert_eq!(planned.recovery().unwrap().entry, id(4, 3 + RECOVERY_JUMP), "above every term that was seen");
    let given_up = SurvivingReplica { compacted: id(3, 2), starts: Vec::new(), ..knows };
    assert_eq!(of(&given_up).base, NodeId(2));
    let longer =
        SurvivingReplica { compacted: id(2, 1), starts: vec![id(3, 3)], ..with_terms(1, &[1, 1, 3, 3, 4], &five) };
    let planned = plan(GROUP, survivors([(1, longer), (5, higher)]));
    assert_eq!((planned.base, planned.dropped()), (NodeId(1), vec![]), "what the base has given up, it had");
}

#[test]
fn what_a_log_notes_to_be_committed_counts_as_a_checkpoint_does() {
    let three: Arc<[Member]> = (1..=3).map(member).collect();
    let range = KeyRange { start: Bytes::new(), end: None };
    let held = |noted: u64| Held {
        replica: ReplicaId(1),
        created: Descriptor { group: GROUP, range: range.clone(), members: three.clone(), generation: Generation(1) },
        hard_state: HardState { term: Term(2), vote: None },
        vote_lost: false,
        compacted: LogId::default(),
        last: id(7, 2),
        noted: Index(noted),
        starts: vec![id(1, 1), id(5, 2)],
        configurations: Vec::new(),
        rotten: Vec::new(),
        checkpoint: None,
    };
    let committed = |noted| Found::of(held(noted)).unwrap().replica.committed;
    assert_eq!([0, 3, 6].map(committed), [LogId::default(), id(3, 1), id(6, 2)]);
}

#[test]
fn a_term_that_was_voted_in_counts_as_seen() {
    let mut of = replica(1, id(5, 3), &voters(1..=3));
    of.hard_state = HardState { term: Term(9), vote: Some(ReplicaId(2)) };
    assert_eq!(recovery(survivors([(1, of)])).1.entry, id(6, 9 + RECOVERY_JUMP));
}

#[test]
fn a_majority_alive_is_left_alone() {
    let three = voters(1..=3);
    let both = [(1, replica(1, id(9, 2), &three)), (2, replica(2, id(4, 1), &three))];
    assert!(left_alone(survivors(both)).contains("a majority of its voters survives"));
}

#[test]
fn both_halves_of_a_joint_configuration_count() {
    let changes = [3, 4, 5].map(|node| Change::Voter(member(node)));
    let away = [1, 2].map(|node| Change::Remove(ReplicaId(node)));
    let joint = voters(1..=3).enter_joint(&[&changes[1..], &away].concat(), true).unwrap();
    assert!(joint.is_joint());
    // Three of the incoming half, one of the outgoing one.
    let of = |node| (node, replica(node, id(7, 2), &joint));
    let (_, planned) = recovery(survivors([of(3), of(4), of(5)]));
    assert_eq!(planned.configuration.members().len(), 3);
    assert!(left_alone(survivors([of(2), of(3), of(4)])).contains("of both halves"));
}

#[test]
fn a_change_that_only_the_base_knows_is_in_force() {
    // It removed two of five, so it is a quorum with one other, who has the shorter log and does not know.
    let mut of = replica(1, id(9, 2), &voters(1..=5));
    of.configurations.push(voters(1..=3));
    let other = replica(2, id(8, 2), &voters(1..=5));
    left_alone(survivors([(1, of), (2, other)]));
}

#[test]
fn who_could_win_is_left_alone_though_the_longest_log_could_not() {
    // The base has begun to add members that are not there; the two others can elect one of them against it no more.
    let mut base = replica(1, id(9, 2), &voters(1..=3));
    base.configurations.push(voters(1..=7));
    let others = [2, 3].map(|node| (node, replica(node, id(8, 2), &voters(1..=3))));
    let [two, three] = others;
    assert!(left_alone(survivors([(1, base), two, three])).contains("its replica on n2 can be elected"));
}

#[test]
fn with_an_even_number_nothing_is_missing_unless_one_has_forgotten() {
    let four = voters(1..=4);
    let of = |node| (node, replica(node, id(7, 2), &four));
    assert!(!recovery(survivors([of(1), of(2)])).1.may_miss);
    let forgotten = SurvivingReplica { vote_lost: true, ..replica(2, id(7, 2), &four) };
    assert!(recovery(survivors([of(1), (2, forgotten)])).1.may_miss);
}

#[test]
fn a_configuration_that_was_not_committed_may_not_hide_what_the_one_before_allowed() {
    // With a fourth member the lost two are no quorum. Before that change they were one, and nobody knows when it was made.
    let (three, four) = (voters(1..=3), voters(1..=4));
    let both = |of_one: Vec<Configuration>, of_four: Vec<Configuration>| {
        let one = SurvivingReplica { configurations: of_one, ..replica(1, id(9, 2), &four) };
        let other = SurvivingReplica { configurations: of_four, ..replica(4, id(3, 1), &four) };
        recovery(survivors([(1, one), (4, other)])).1.may_miss
    };
    assert!(both(vec![three.clone(), four.clone()], vec![three.clone()]));
    assert!(both(vec![four.clone()], vec![three, four.clone()]), "the other one is asked too");
    assert!(!both(vec![four.clone()], vec![four.clone()]), "a checkpoint shows that it was committed");
}

#[test]
fn a_majority_without_votes_is_no_majority() {
    let three = voters(1..=3);
    let silent = SurvivingReplica { vote_lost: true, ..replica(2, id(9, 2), &three) };
    let (base, recovery) = recovery(survivors([(1, replica(1, id(8, 2), &three)), (2, silent)]));
    assert_eq!(base, NodeId(2), "its log counts");
    assert_eq!(recovery.configuration.members().len(), 2, "a new replica votes again");
}

#[test]
fn what_cannot_be_gone_on_from_is_refused_and_an_equal_log_helps() {
    let five = voters(1..=5);
    let rotten = SurvivingReplica { unusable: Some("it is rotten".to_string()), ..replica(1, id(9, 2), &five) };
    let planned = plan(GROUP, survivors([(1, rotten.clone()), (2, replica(2, id(8, 2), &five))]));
    assert!(matches!(&planned.verdict, Verdict::Refused(why) if why.contains("n1") && why.contains("rotten")));
    assert_eq!(recovery(survivors([(1, rotten), (2, replica(2, id(9, 2), &five))])).0, NodeId(2));
}

#[test]
fn a_replica_that_is_no_member_gives_its_log_to_nobody_and_gets_none() {
    // n3 was removed and made anew as another replica, which the members do not name.
    let five = voters(1..=5);
    let stray = SurvivingReplica { replica: ReplicaId(77), ..replica(3, id(2, 1), &five) };
    let (base, recovery) = recovery(survivors([(1, replica(1, id(8, 2), &five)), (3, stray)]));
    assert_eq!(base, NodeId(1));
    assert_eq!(recovery.configuration.members().iter().map(|it| it.0.node).collect::<Vec<_>>(), [NodeId(1)]);
    let lowest = recovery.configuration.voters().next().unwrap();
    assert!(lowest > ReplicaId(77 + RECOVERY_JUMP - 1), "{lowest} is above every replica that was ever seen");
}

#[test]
fn lost_nodes_stay_in_the_cluster_only_while_a_group_needs_them() {
    let three = voters(1..=3);
    let one = || plan(GROUP, survivors([(1, replica(1, id(8, 2), &three))]));
    let nodes: BTreeSet<NodeId> = (1..=5).map(NodeId).collect();
    let of = |groups, absent| Plan::of(ClusterId(1), &nodes, vec![NodeId(1)], groups, absent);
    assert_eq!(of(vec![one()], vec![]).nodes, [NodeId(1)]);
    assert_eq!(of(vec![one()], vec![]).lost, [2, 3, 4, 5].map(NodeId));
    assert_eq!(of(vec![one()], vec![GroupId(9)]).nodes.len(), 5, "nobody knows who has the absent one");
    let alone = plan(GroupId(3), survivors([(1, replica(1, id(8, 2), &voters([1])))]));
    assert_eq!(of(vec![one(), alone], vec![]).nodes, [NodeId(1)]);
    let rotten = SurvivingReplica { unusable: Some("x".to_string()), ..replica(1, id(9, 2), &voters([1, 4, 5])) };
    let refused = plan(GroupId(3), survivors([(1, rotten)]));
    assert_eq!(of(vec![one(), refused], vec![]).nodes, [1, 4, 5].map(NodeId));
}

/// Logs of a group's voters, as Raft writes them.
#[derive(Clone, Debug, Default)]
struct History {
    logs: Vec<Vec<u64>>,
    term: u64,
    leader: Option<usize>,
    /// The longest prefix that was ever committed.
    committed: Vec<u64>,
    /// How much of it each node knows to be committed.
    known: Vec<usize>,
}

impl History {
    fn of(nodes: usize) -> History {
        History { logs: vec![Vec::new(); nodes], known: vec![0; nodes], ..History::default() }
    }

    fn last(&self, node: usize) -> (u64, usize) {
        (self.logs[node].last().copied().unwrap_or(0), self.logs[node].len())
    }

    fn step(&mut self, (what, node, many): (u8, usize, usize)) {
        let node = node % self.logs.len();
        match (what, self.leader) {
            (0, _) => {
                let votes = (0..self.logs.len()).filter(|other| self.last(*other) <= self.last(node)).count();
                if votes > self.logs.len() / 2 {
                    self.term += 1;
                    self.leader = Some(node);
                    self.logs[node].push(self.term);
                }
            }
            (1, Some(leader)) => self.logs[leader].extend(std::iter::repeat_n(self.term, many)),
            (_, Some(leader)) if leader != node => {
                let (from, to) = (self.logs[leader].clone(), &mut self.logs[node]);
                let common = from.iter().zip(to.iter()).take_while(|(one, other)| one == other).count();
                // What reaches it may be the commit index alone.
                let matched = if common < from.len() { (common + many).min(from.len()) } else { common };
                if matched > common {
                    *to = from[..matched].to_vec();
                }
                self.commit(leader);
                let told = if from.starts_with(&self.committed) { self.committed.len() } else { 0 };
                self.known[node] = self.known[node].max(told.min(matched));
            }
            _ => {}
        }
    }

    /// What a majority holds up to an entry of the present term.
    fn commit(&mut self, leader: usize) {
        let log = &self.logs[leader];
        let held = |length: usize| self.logs.iter().filter(|other| other.starts_with(&log[..length])).count();
        let majority = self.logs.len() / 2 + 1;
        let reached = (1..=log.len()).rev().find(|length| log[length - 1] == self.term && held(*length) >= majority);
        if let Some(length) = reached.filter(|length| *length > self.committed.len()) {
            self.committed = log[..length].to_vec();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_was_committed_is_missing_when_the_plan_says_so(
        nodes in 1_usize..=6,
        steps in prop::collection::vec((0_u8..4, 0_usize..6, 0_usize..4), 0..60),
        alive in prop::collection::vec(any::<bool>(), 6),
        alive_for_sure in 0_usize..6,
    ) {
        let mut history = History::of(nodes);
        steps.into_iter().for_each(|step| history.step(step));
        let members = voters(1..=nodes as u64);
        let all: BTreeMap<NodeId, SurvivingReplica> = (0..nodes)
            .filter(|node| alive[*node] || *node == alive_for_sure % nodes)
            .map(|node| {
                let number = node as u64 + 1;
                let known = history.known[node];
                let committed = known.checked_sub(1).map(|at| id(known as u64, history.committed[at]));
                let committed = committed.unwrap_or_default();
                (NodeId(number), SurvivingReplica { committed, ..with_terms(number, &history.logs[node], &members) })
            })
            .collect();
        let has_majority = all.len() > nodes / 2;
        let planned = plan(GROUP, all.clone());
        let log = &history.logs[planned.base.0 as usize - 1];
        match &planned.verdict {
            Verdict::LeftAlone(_) => prop_assert!(has_majority),
            Verdict::Refused(why) => prop_assert!(false, "{why}"),
            Verdict::Recover(recovery) => {
                prop_assert!(!has_majority);
                prop_assert!(recovery.may_miss || log.starts_with(&history.committed), "{history:?}");
                // No survivor knows a committed entry that the base lacks.
                let known = all.keys().map(|node| history.known[node.0 as usize - 1]).max().unwrap_or(0);
                prop_assert!(log.starts_with(&history.committed[..known]), "{history:?}");
                let dropped = planned.dropped();
                for node in all.keys() {
                    let of = &history.logs[node.0 as usize - 1];
                    let shared = of.iter().zip(log).take_while(|(one, other)| one == other).count();
                    let beyond = dropped.iter().find(|(other, _)| other == node).map_or(0, |(_, entries)| *entries);
                    prop_assert_eq!(beyond as usize, of.len() - shared);
                }
                prop_assert!(all.values().all(|of| recovery.entry.term > of.last.term));
                prop_assert_eq!(recovery.entry.index.0, log.len() as u64 + 1);
                let new: Vec<NodeId> = recovery.configuration.members().iter().map(|it| it.0.node).collect();
                prop_assert_eq!(new, all.keys().copied().collect::<Vec<_>>());
                prop_assert!(recovery.configuration.voters().all(|it| it.0 >= RECOVERY_JUMP));
            }
        }
    }
}
