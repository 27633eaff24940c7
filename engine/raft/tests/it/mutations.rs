//! Every bug put in on purpose is caught by the random schedules. Runs with `--features mutations` only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pontoon_raft::{Config, Event, Mutation};
use pontoon_types::ReplicaId;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as RunnerConfig, TestRunner};

use crate::properties::{Action, action, calm_down, check_agreement, config, members_action, perform, start};
use crate::scripts::run;

/// How many schedules of a fixed row pass before one breaks a law, or none if all pass.
fn schedules_until_caught(mutation: Option<Mutation>, schedules: usize) -> Option<usize> {
    until_caught(mutation, schedules, 3, action().boxed())
}

/// The same for a group of three of six replicas whose members change.
fn member_schedules_until_caught(mutation: Option<Mutation>, schedules: usize) -> Option<usize> {
    until_caught(mutation, schedules, 6, members_action().boxed())
}

fn until_caught(
    mutation: Option<Mutation>,
    schedules: usize,
    replicas: u64,
    action: BoxedStrategy<Action>,
) -> Option<usize> {
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(RunnerConfig::default(), rng);
    let strategy = prop::collection::vec(action, 200..400);
    (0..schedules).find(|&seed| {
        let actions = strategy.new_tree(&mut runner).expect("a schedule").current();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut cluster = start(Config { mutation, ..config() }, replicas, 3, seed as u64);
            cluster.step(ReplicaId(1), Event::Campaign);
            for action in &actions {
                perform(&mut cluster, action);
                cluster.trace.clear();
            }
            calm_down(&mut cluster);
            check_agreement(&cluster);
        }));
        outcome.is_err()
    })
}

#[test]
fn without_a_bug_nothing_is_caught() {
    assert_eq!(schedules_until_caught(None, 500), None);
    assert_eq!(member_schedules_until_caught(None, 500), None);
}

#[test]
fn every_bug_put_in_on_purpose_is_caught() {
    let mutations = [
        Mutation::SkipDurableWait,
        Mutation::QuorumShortByOne,
        Mutation::ForgetVoteAtRestart,
        Mutation::VoteTwice,
        Mutation::SkipPreviousCheck,
        Mutation::DurableEarly,
        Mutation::LeadWithoutPayloads,
        Mutation::AcknowledgeWithoutPayloads,
        Mutation::VoteAfterLostVote,
        Mutation::EvictUnapplied,
        Mutation::TakeStaleFetch,
    ];
    let found: Vec<_> = mutations.iter().map(|&it| (it, schedules_until_caught(Some(it), 5_000))).collect();
    println!("{found:?}");
    assert!(found.iter().all(|(_, caught)| caught.is_some()), "a bug was not caught: {found:?}");
}

#[test]
fn every_bug_of_membership_and_transfer_is_caught() {
    let mutations = [
        Mutation::CommitWithoutOutgoing,
        Mutation::KeepCutConfiguration,
        Mutation::RemovedLeaderStays,
        Mutation::PermitReused,
    ];
    let found: Vec<_> = mutations.iter().map(|&it| (it, member_schedules_until_caught(Some(it), 5_000))).collect();
    println!("{found:?}");
    assert!(found.iter().all(|(_, caught)| caught.is_some()), "a bug was not caught: {found:?}");
}

/// Two leaders that change the members in two directions: the error of the first published rule.
#[test]
fn changing_before_an_own_commit_is_caught_by_the_published_error() {
    let text = include_str!("../scripts/membership_two_directions.txt");
    let why = caught_by_script("two directions", text, Mutation::ChangeBeforeOwnCommit);
    assert!(why.contains("leader completeness") || why.contains("state machine safety"), "{why}");
}

/// Random schedules need thousands of tries for some of these; a script shows each at once.
#[test]
fn a_bug_is_seen_in_its_script() {
    let shows = |name: &str, text: &str, mutation: Mutation| {
        assert_eq!(run(name, text, &Config::default()), text, "without the bug");
        let config = Config { mutation: Some(mutation), ..Config::default() };
        let outcome = catch_unwind(|| run(name, text, &config));
        assert!(outcome.map_or(true, |printed| printed != text), "{mutation:?} shows in {name}");
    };
    macro_rules! shows {
        ($($script:literal: $($mutation:ident),+;)+) => {
            $($(shows($script, include_str!(concat!("../scripts/", $script, ".txt")), Mutation::$mutation);)+)+
        };
    }
    shows! {
        "commit_needs_the_match": CommitWithoutMatch;
        "lost_payload_on_follower": CountLostPayloads;
        "membership_joint_election_needs_both_halves": VoteWithoutOutgoing;
        "membership_partition_kill_pause": KeepCutConfiguration, SkipDurableWait;
        "membership_snapshot_against_stale_entries": IgnoreSnapshotMembers;
        "single_voter": CommitAloneEarly;
        "snapshots_in_a_row": InstallBelowCommitted;
        "term_and_entries_in_one_write": TermNotWritten;
        "transfer_late_permit": VoteForAnyLog;
        "vote_kept_by_former_candidate": EraseVoteOnStepDown, AskBeforeOwnVote, ForgetVoteAtRestart;
    }
}

/// It takes two learners that are faster than two voters, and an election right after.
#[test]
fn counting_learners_is_caught_by_an_election_without_them() {
    let text = include_str!("../scripts/membership_learners_do_not_outvote.txt");
    let why = caught_by_script("learners", text, Mutation::LearnerCounts);
    assert!(why.contains("leader completeness"), "{why}");
}

/// Chance hardly ever builds the paper's figure 8, so its script does.
#[test]
fn committing_an_old_term_is_caught_by_figure_8() {
    let text = include_str!("../scripts/old_term_not_committed_figure_8.txt");
    let why = caught_by_script("figure 8", text, Mutation::CommitOldTerm);
    assert!(why.contains("leader completeness") || why.contains("state machine safety"), "{why}");
}

/// Nor a leader of an old term that reaches just the replica whose vote is lost.
#[test]
fn acknowledging_with_a_lost_term_is_caught_by_a_stale_leader() {
    let text = include_str!("../scripts/lost_vote_and_a_stale_leader.txt");
    let why = caught_by_script("a stale leader", text, Mutation::TrustLostTerm);
    assert!(why.contains("leader completeness"), "{why}");
}

fn caught_by_script(name: &str, text: &str, mutation: Mutation) -> String {
    let config = Config { mutation: Some(mutation), ..Config::default() };
    let outcome = catch_unwind(|| run(name, text, &config)).expect_err("the bug is caught");
    *outcome.downcast::<String>().expect("a panic with a text")
}
