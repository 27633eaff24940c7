//! The arithmetic of configurations against that of the `raft` crate, which follows etcd's: the same changes must give
//! the same configurations, the same acknowledgements the same commit index, the same answers the same election.
//!
//! Where the two differ on purpose: here a list of changes may not name a replica twice, may not remove who is no
//! member, must change something, and names at most `MEMBERS_MAX` replicas. Such lists are refused here and skipped.

use pontoon_raft::VoteResult;
use pontoon_raft::membership::{Change, Configuration, Half, MembershipRefused, Phase, Standing};
use pontoon_types::{Index, ReplicaId};
use proptest::prelude::*;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfState};
use raft::{Changer, ProgressTracker};

use crate::membership::{Step, apply, step};

fn other_change(change: &Change) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.set_node_id(change.replica().0);
    single.set_change_type(match change {
        Change::Voter(_) => ConfChangeType::AddNode,
        Change::Learner(_) => ConfChangeType::AddLearnerNode,
        Change::Remove(_) => ConfChangeType::RemoveNode,
    });
    single
}

/// Carries the step out over there. The error is its text.
fn other_apply(tracker: &mut ProgressTracker, step: &Step) -> Result<(), String> {
    let singles = |changes: &[Change]| changes.iter().map(other_change).collect::<Vec<_>>();
    let mut changer = Changer::new(tracker);
    let outcome = match step {
        Step::Simple(changes) => changer.simple(&singles(changes)),
        Step::Enter(changes, auto_leave) => changer.enter_joint(*auto_leave, &singles(changes)),
        Step::Leave => changer.leave_joint(),
    };
    let (configuration, changes) = outcome.map_err(|error| error.to_string())?;
    tracker.apply_conf(configuration, changes, 1);
    Ok(())
}

/// A configuration in the four sets of the other side, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Sets {
    incoming: Vec<u64>,
    outgoing: Vec<u64>,
    learners: Vec<u64>,
    learners_next: Vec<u64>,
    auto_leave: bool,
}

fn sets(of: &Configuration) -> Sets {
    let half = |half| of.voters_of(half).map(|replica| replica.0).collect::<Vec<_>>();
    let with = |wanted| {
        let chosen = of.members().iter().filter(move |(_, standing)| *standing == wanted);
        chosen.map(|(member, _)| member.replica.0).collect::<Vec<_>>()
    };
    Sets {
        incoming: half(Half::Incoming),
        outgoing: if of.is_joint() { half(Half::Outgoing) } else { Vec::new() },
        learners: with(Standing::Learner),
        learners_next: with(Standing::Demoting),
        auto_leave: of.phase() == Phase::Joint { auto_leave: true },
    }
}

fn other_sets(state: ConfState) -> Sets {
    let sorted = |list: &[u64]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    Sets {
        incoming: sorted(state.get_voters()),
        outgoing: sorted(state.get_voters_outgoing()),
        learners: sorted(state.get_learners()),
        learners_next: sorted(state.get_learners_next()),
        auto_leave: state.get_auto_leave(),
    }
}

fn is_stricter_here(refused: MembershipRefused) -> bool {
    matches!(
        refused,
        MembershipRefused::NamedTwice { .. }
            | MembershipRefused::NoMember { .. }
            | MembershipRefused::Unchanged
            | MembershipRefused::TooManyMembers { .. }
    )
}

/// The same first voters on both sides.
fn both(first: &std::collections::BTreeSet<u64>) -> (Configuration, ProgressTracker) {
    let mut tracker = ProgressTracker::new(1);
    for replica in first {
        let add = Step::Simple(vec![Change::Voter(crate::membership::member(*replica))]);
        other_apply(&mut tracker, &add).expect("one voter more");
    }
    let ours = Configuration::of_voters(first.iter().copied().map(crate::membership::member));
    (ours.expect("a set of voters"), tracker)
}

/// Steps both sides alike. Says how many steps were taken.
fn go_on(ours: &mut Configuration, theirs: &mut ProgressTracker, step: &Step) -> Result<usize, TestCaseError> {
    let next = apply(ours, step);
    if next.as_ref().is_err_and(|refused| is_stricter_here(*refused)) {
        return Ok(0);
    }
    let other = other_apply(theirs, step);
    prop_assert_eq!(next.is_ok(), other.is_ok(), "{} {:?}: {:?} against {:?}", ours, step, next, other);
    let Ok(next) = next else { return Ok(0) };
    *ours = next;
    prop_assert_eq!(sets(ours), other_sets(theirs.conf().to_conf_state()));
    Ok(1)
}

fn result_name(result: VoteResult) -> &'static str {
    match result {
        VoteResult::Won => "Won",
        VoteResult::Lost => "Lost",
        VoteResult::Pending => "Pending",
    }
}

fn first() -> impl Strategy<Value = std::collections::BTreeSet<u64>> {
    prop::collection::btree_set(1u64..=9, 1..6)
}

/// A comparison that hardly ever compares anything would prove little.
#[test]
fn random_steps_are_mostly_taken() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (first(), prop::collection::vec(step(), 10..20));
    let (mut taken, mut joint) = (0, 0);
    for _ in 0..200 {
        let (first, steps) = proptest::strategy::ValueTree::current(&strategy.new_tree(&mut runner).unwrap());
        let (mut ours, mut theirs) = both(&first);
        for step in &steps {
            taken += go_on(&mut ours, &mut theirs, step).unwrap();
            joint += usize::from(ours.is_joint());
        }
    }
    assert!(taken >= 500 && joint >= 300, "{taken} steps taken, {joint} of them in a joint configuration");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_changes_give_the_same_configurations(
        first in first(),
        steps in prop::collection::vec(step(), 0..16),
    ) {
        let (mut ours, mut theirs) = both(&first);
        for step in &steps {
            go_on(&mut ours, &mut theirs, step)?;
        }
    }

    #[test]
    fn the_same_acknowledgements_give_the_same_commit_index(
        first in first(),
        steps in prop::collection::vec(step(), 0..8),
        acknowledged in prop::collection::vec((1u64..=9, 0u64..30), 0..20),
    ) {
        let (mut ours, mut theirs) = both(&first);
        for step in &steps {
            go_on(&mut ours, &mut theirs, step)?;
        }
        let mut matched = [0u64; 10];
        for (replica, index) in acknowledged {
            let held = matched[replica as usize].max(index);
            if let Some(progress) = theirs.get_mut(replica) {
                matched[replica as usize] = held;
                progress.matched = held;
            }
            let here = ours.committed_index(|ReplicaId(replica)| Index(matched[replica as usize]));
            prop_assert_eq!(here.0, theirs.maximal_committed_index().0, "{} {:?}", ours, matched);
        }
    }

    #[test]
    fn the_same_answers_give_the_same_election(
        first in first(),
        steps in prop::collection::vec(step(), 0..8),
        answers in prop::collection::vec((1u64..=9, any::<bool>()), 0..20),
    ) {
        let (mut ours, mut theirs) = both(&first);
        for step in &steps {
            go_on(&mut ours, &mut theirs, step)?;
        }
        let mut votes = [None; 10];
        for (replica, granted) in answers {
            votes[replica as usize].get_or_insert(granted);
            theirs.record_vote(replica, granted);
            let here = ours.vote_result(|ReplicaId(replica)| votes[replica as usize]);
            let there = format!("{:?}", theirs.tally_votes().2);
            prop_assert_eq!(result_name(here), there, "{} {:?}", ours, votes);
        }
    }
}
