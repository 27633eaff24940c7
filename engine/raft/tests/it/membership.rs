//! The laws of configurations, for random ones.

use std::collections::BTreeSet;

use pontoon_raft::VoteResult;
use pontoon_raft::membership::{
    CONFIGURATION_BYTES_MAX, Change, Configuration, ConfigurationFault, Half, MembershipRefused, Phase, Standing,
};
use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{Index, Member, NodeId, ReplicaId};
use proptest::prelude::*;

/// Replica r lives on node r.
pub fn member(replica: u64) -> Member {
    Member { node: NodeId(replica), replica: ReplicaId(replica) }
}

fn voters(replicas: impl IntoIterator<Item = u64>) -> Configuration {
    Configuration::of_voters(replicas.into_iter().map(member)).expect("a set of voters")
}

pub fn change() -> impl Strategy<Value = Change> {
    let replica = || 1u64..=9;
    prop_oneof![
        3 => replica().prop_map(|replica| Change::Voter(member(replica))),
        2 => replica().prop_map(|replica| Change::Learner(member(replica))),
        3 => replica().prop_map(|replica| Change::Remove(ReplicaId(replica))),
    ]
}

/// One way to go on from a configuration.
#[derive(Clone, Debug)]
pub enum Step {
    Simple(Vec<Change>),
    Enter(Vec<Change>, bool),
    Leave,
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(change(), 0..3).prop_map(Step::Simple),
        3 => (prop::collection::vec(change(), 0..6), any::<bool>()).prop_map(|(changes, auto)| Step::Enter(changes, auto)),
        4 => Just(Step::Leave),
    ]
}

pub fn apply(configuration: &Configuration, step: &Step) -> Result<Configuration, MembershipRefused> {
    match step {
        Step::Simple(changes) => configuration.simple(changes),
        Step::Enter(changes, auto_leave) => configuration.enter_joint(changes, *auto_leave),
        Step::Leave => configuration.leave_joint(),
    }
}

/// A first set of voters, and where random steps lead from there.
pub fn path() -> impl Strategy<Value = Vec<Configuration>> {
    (prop::collection::btree_set(1u64..=9, 1..6), prop::collection::vec(step(), 0..12)).prop_map(|(first, steps)| {
        let mut path = vec![voters(first)];
        for step in &steps {
            path.extend(apply(path.last().expect("a path has a beginning"), step));
        }
        path
    })
}

pub fn configuration() -> impl Strategy<Value = Configuration> {
    path().prop_map(|mut path| path.pop().expect("a path has an end"))
}

/// Every set of replicas that is enough, among all that either configuration names.
fn quorums(of: &Configuration, among: &[ReplicaId]) -> Vec<BTreeSet<ReplicaId>> {
    let sets = (0u32..1 << among.len()).map(|bits| {
        among.iter().enumerate().filter(|(place, _)| bits & (1 << place) != 0).map(|(_, replica)| *replica).collect()
    });
    sets.filter(|set: &BTreeSet<ReplicaId>| of.is_quorum(|replica| set.contains(&replica))).collect()
}

/// The smallest quorums, which are enough to look at: a larger one shares what they share.
fn smallest(mut quorums: Vec<BTreeSet<ReplicaId>>) -> Vec<BTreeSet<ReplicaId>> {
    quorums.sort_by_key(BTreeSet::len);
    let mut kept: Vec<BTreeSet<ReplicaId>> = Vec::new();
    for quorum in quorums {
        if !kept.iter().any(|smaller| smaller.is_subset(&quorum)) {
            kept.push(quorum);
        }
    }
    kept
}

fn share_a_voter(one: &Configuration, next: &Configuration) -> bool {
    let named: BTreeSet<ReplicaId> = one.replicas().chain(next.replicas()).collect();
    let named: Vec<ReplicaId> = named.into_iter().collect();
    let (one, next) = (smallest(quorums(one, &named)), smallest(quorums(next, &named)));
    one.iter().all(|left| next.iter().all(|right| !left.is_disjoint(right)))
}

/// What a list of changes asks for, said in the simplest way: the voters and the learners in the end.
fn target(from: &Configuration, changes: &[Change]) -> (BTreeSet<ReplicaId>, BTreeSet<ReplicaId>) {
    let mut votes: BTreeSet<ReplicaId> = from.voters().collect();
    let mut learns: BTreeSet<ReplicaId> = from.replicas().filter(|replica| !from.is_voter(*replica)).collect();
    for change in changes {
        votes.remove(&change.replica());
        learns.remove(&change.replica());
        match change {
            Change::Voter(member) => votes.insert(member.replica),
            Change::Learner(member) => learns.insert(member.replica),
            Change::Remove(_) => false,
        };
    }
    (votes, learns)
}

#[test]
fn a_change_is_refused_by_the_name_of_what_is_wrong() {
    use MembershipRefused::*;
    let three = voters(1..=3);
    let full = voters(1..=MEMBERS_MAX as u64);
    let joint = three.enter_joint(&[Change::Voter(member(4))], false).unwrap();
    let elsewhere = Member { node: NodeId(7), replica: ReplicaId(2) };
    let second = Member { node: NodeId(2), replica: ReplicaId(8) };
    let remove = |replica: u64| Change::Remove(ReplicaId(replica));
    let cases = [
        (voters([1]).simple(&[remove(1)]), NoVoter),
        (three.enter_joint(&[remove(1), remove(2), remove(3)], true), NoVoter),
        (three.simple(&[remove(1), Change::Voter(member(4))]), TooManyChanges { changed: 2 }),
        (joint.simple(&[remove(1)]), AlreadyJoint),
        (joint.enter_joint(&[remove(1)], true), AlreadyJoint),
        (three.leave_joint(), NotJoint),
        (full.simple(&[Change::Learner(member(10))]), TooManyMembers { named: 10 }),
        (full.enter_joint(&[remove(1), Change::Voter(member(10))], true), TooManyMembers { named: 10 }),
        (three.simple(&[remove(1), Change::Voter(member(1))]), NamedTwice { replica: ReplicaId(1) }),
        (three.simple(&[Change::Voter(second)]), NodeTwice { node: NodeId(2) }),
        (three.enter_joint(&[remove(2), Change::Voter(second)], true), NodeTwice { node: NodeId(2) }),
        (three.simple(&[Change::Learner(elsewhere)]), Moved { replica: ReplicaId(2), node: NodeId(2) }),
        (three.simple(&[remove(4)]), NoMember { replica: ReplicaId(4) }),
        (three.simple(&[Change::Voter(member(2))]), Unchanged),
        (three.enter_joint(&[], true), Unchanged),
    ];
    for (got, refused) in cases {
        assert_eq!(got, Err(refused));
    }
    let halfway = Configuration::restore([(member(1), Standing::Leaving)], Phase::Simple);
    assert_eq!(halfway, Err(Halfway { replica: ReplicaId(1) }));
    let twice = Configuration::restore([(member(1), Standing::Voter); 2], Phase::Simple);
    assert_eq!(twice, Err(NamedTwice { replica: ReplicaId(1) }));
    let one_half = Configuration::restore([(member(1), Standing::Joining)], Phase::Joint { auto_leave: true });
    assert_eq!(one_half, Err(NoVoter));
}

#[test]
fn a_whole_set_is_replaced_through_a_joint_configuration() {
    let changes: Vec<Change> = (1..=3).map(|replica| Change::Remove(ReplicaId(replica))).collect();
    let changes = [changes, (4..=6).map(|replica| Change::Voter(member(replica))).collect()].concat();
    let joint = voters(1..=3).enter_joint(&changes, true).unwrap();
    assert_eq!(joint.to_string(), "4 5 6 & 1 2 3");
    let all_new = |replica: ReplicaId| (replica.0 > 3).then_some(true);
    assert_eq!(joint.vote_result(all_new), VoteResult::Pending, "the old half must agree");
    assert_eq!(joint.committed_index(|replica| Index(replica.0)), Index(2), "the slower half decides");
    assert_eq!(joint.leave_joint().unwrap(), voters(4..=6));
}

#[test]
fn a_demoted_voter_counts_until_the_joint_configuration_is_left() {
    let joint = voters(1..=3).enter_joint(&[Change::Learner(member(3)), Change::Voter(member(4))], false).unwrap();
    assert_eq!(joint.to_string(), "1 2 4 &! 1 2 3→");
    assert!(joint.is_voter(ReplicaId(3)));
    assert_eq!(joint.leave_joint().unwrap().to_string(), "1 2 4 | 3");
}

/// The log and the wire keep these bytes.
#[test]
fn the_encoding_is_frozen() {
    let changes = [Change::Learner(member(0x0203)), Change::Remove(ReplicaId(2)), Change::Voter(member(7))];
    let (first, learner) = (voters([1, 2, 0x0203]), Change::Learner(member(5)));
    let joint = first.simple(&[learner]).unwrap().enter_joint(&changes, true).unwrap();
    let hex: String = joint.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "0102050302000000000000\
        0100000000000000010000000000000001\
        0200000000000000020000000000000003\
        0500000000000000050000000000000005\
        0700000000000000070000000000000002\
        0302000000000000030200000000000004";
    assert_eq!(hex, expected);
    assert_eq!(Configuration::decode(&joint.encode()), Ok(joint));
    let full = voters(1..=MEMBERS_MAX as u64);
    assert_eq!(full.encode().len(), CONFIGURATION_BYTES_MAX);
}

#[test]
fn what_is_no_configuration_is_refused() {
    let good = voters([1, 2]).encode().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Configuration::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(ConfigurationFault::Version(2)));
    assert_eq!(with(1, 3), Err(ConfigurationFault::Number(3)));
    assert_eq!(with(2, 3), Err(ConfigurationFault::Length(45)));
    assert_eq!(with(27, 0), Err(ConfigurationFault::Number(0)));
    assert_eq!(with(19, 9), Err(ConfigurationFault::Order));
    assert_eq!(with(19, 2), Err(MembershipRefused::NamedTwice { replica: ReplicaId(2) }.into()));
    assert_eq!(with(3, 1), Err(ConfigurationFault::Highest(ReplicaId(1))));
    for length in 0..good.len() {
        assert!(Configuration::decode(&good[..length]).is_err(), "the first {length} bytes are no configuration");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// What keeps two leaders apart: whoever decides before a change meets whoever decides after it.
    #[test]
    fn quorums_of_consecutive_configurations_share_a_voter(path in path()) {
        for pair in path.windows(2) {
            prop_assert!(share_a_voter(&pair[0], &pair[1]), "{} then {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn what_is_restored_is_what_was_there(configuration in configuration()) {
        let mut members = configuration.members().to_vec();
        members.reverse();
        let restored = Configuration::restore_after(members, configuration.phase(), configuration.highest());
        prop_assert_eq!(restored, Ok(configuration.clone()));
        prop_assert!(configuration.encode().len() <= CONFIGURATION_BYTES_MAX);
        prop_assert_eq!(Configuration::decode(&configuration.encode()), Ok(configuration));
    }

    #[test]
    fn entering_and_leaving_gives_what_was_asked_for(
        from in configuration(),
        changes in prop::collection::vec(change(), 1..6),
        auto_leave in any::<bool>(),
    ) {
        let Ok(joint) = from.enter_joint(&changes, auto_leave) else { return Ok(()) };
        prop_assert!(joint.voters_of(Half::Outgoing).eq(from.voters()), "the outgoing half is what was");
        let after = joint.leave_joint().unwrap();
        let (votes, learns) = target(&from, &changes);
        prop_assert!(after.voters().eq(votes.iter().copied()), "{joint} leads to {after}");
        let learners = after.replicas().filter(|replica| !after.is_voter(*replica));
        prop_assert!(learners.eq(learns.iter().copied()), "{joint} leads to {after}");
        // A change that needs no joint configuration leads to the same place without one.
        if let Ok(simple) = from.simple(&changes) {
            prop_assert_eq!(simple, after);
        }
    }

    /// The order of independent changes does not matter.
    #[test]
    fn changes_of_different_replicas_commute(
        from in configuration(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let reversed: Vec<Change> = changes.iter().rev().copied().collect();
        let result = |changes: &[Change]| from.enter_joint(changes, true).ok();
        prop_assert_eq!(result(&changes), result(&reversed));
    }

    #[test]
    fn a_learner_counts_for_nothing(configuration in configuration(), index in 0u64..9) {
        let learns = |replica: ReplicaId| !configuration.is_voter(replica);
        let held = |replica: ReplicaId| if learns(replica) { Index(u64::MAX) } else { Index(index) };
        prop_assert_eq!(configuration.committed_index(held), Index(index));
        prop_assert_eq!(configuration.vote_result(|replica| learns(replica).then_some(true)), VoteResult::Pending);
        prop_assert_eq!(configuration.vote_result(|replica| learns(replica).then_some(false)), VoteResult::Pending);
    }

    /// Bytes from anywhere are a configuration that says these bytes, or refused.
    #[test]
    fn decoding_never_guesses(bytes in prop::collection::vec(0u8..6, 0..60)) {
        let padded = |mut bytes: Vec<u8>| {
            if bytes.len() > 3 {
                bytes[0] = 1;
                let members = (bytes.len() - 3) / 17;
                bytes.truncate(3 + members * 17);
                bytes[2] = members as u8;
            }
            bytes
        };
        for bytes in [bytes.clone(), padded(bytes)] {
            if let Ok(configuration) = Configuration::decode(&bytes) {
                prop_assert_eq!(configuration.encode(), bytes);
            }
        }
    }
}
