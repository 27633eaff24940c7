//! Bugs put into the Raft core, and between it and its disk, on purpose. A checker that has never seen a bug proves nothing, so each of these must
//! be found within a stated number of seeds: by the inner invariants, and, where a bug does visible harm often
//! enough, by what clients and operators see alone. The seeds that it took are printed (`--nocapture`).
#![allow(clippy::print_stdout)]

use pontoon_raft::Mutation;
use pontoon_sim::{DiskMutation, Overrides, Report, run};

/// Runs seeds until one fails; the number of runs it took. `pick` judges whether the failure is one that this bug
/// causes, so that a bug of another kind does not pass for it.
fn hunt(overrides: &Overrides, seeds_max: u64, pick: impl Fn(&str) -> bool) -> (u64, Report) {
    for seed in 0..seeds_max {
        let report = run(seed, overrides);
        let broken = report.violation.as_ref().map(|violation| violation.broken.to_string());
        if broken.is_some_and(|broken| pick(&broken)) {
            return (seed + 1, report);
        }
    }
    panic!("{:?} {:?} was not found within {seeds_max} seeds", overrides.mutation, overrides.disk_mutation);
}

#[track_caller]
fn found(mutation: Mutation, seeds_max: u64, laws: &[&str]) {
    let overrides = Overrides { nodes: Some(3), mutation: Some(mutation), ..Overrides::default() };
    let (seeds, report) = hunt(&overrides, seeds_max, |broken| laws.iter().any(|law| broken.starts_with(law)));
    println!("{mutation:?}: found by seed {} after {seeds} of at most {seeds_max} seeds", report.options.seed);
    println!("  {}", report.summary());
    let violation = report.violation.expect("a found bug is a violation");
    assert!(!violation.trace.is_empty() || violation.at.0 == 0, "a violation comes with its trace");
}

#[track_caller]
fn found_on_disk(mutation: DiskMutation, seeds_max: u64, laws: &[&str]) {
    let overrides = Overrides { disk_mutation: Some(mutation), ..Overrides::default() };
    let (seeds, report) = hunt(&overrides, seeds_max, |broken| laws.iter().any(|law| broken.starts_with(law)));
    println!("{mutation:?}: found by seed {} after {seeds} of at most {seeds_max} seeds", report.options.seed);
    println!("  {}", report.summary());
}

#[track_caller]
fn found_by_outcomes(overrides: Overrides, seeds_max: u64) {
    let overrides = Overrides { nodes: Some(3), outcomes_only: true, ..overrides };
    let visible = ["linearizability", "liveness", "replies"];
    let (seeds, report) = hunt(&overrides, seeds_max, |broken| visible.iter().any(|law| broken.starts_with(law)));
    let (core, disk) = (overrides.mutation, overrides.disk_mutation);
    println!("{core:?} {disk:?}: seen from outside by seed {} after {seeds} seeds", report.options.seed);
    println!("  {}", report.summary().lines().next().unwrap_or_default());
}

#[test]
fn the_durable_wait_skipped() {
    found(Mutation::SkipDurableWait, 5, &["law 13", "order of pointers"]);
}

#[test]
fn a_write_durable_when_an_older_one_is() {
    found(Mutation::DurableEarly, 10, &["law 13", "order of pointers"]);
}

#[test]
fn a_quorum_short_by_one() {
    found(Mutation::QuorumShortByOne, 5, &["law 13", "election safety"]);
}

#[test]
fn a_vote_forgotten_at_restart() {
    found(Mutation::ForgetVoteAtRestart, 10, &["one vote in a term"]);
}

#[test]
fn entries_of_an_old_term_committed() {
    found(Mutation::CommitOldTerm, 50, &["commit of the own term", "leader completeness", "committed prefix"]);
}

#[test]
fn two_votes_in_one_term() {
    found(Mutation::VoteTwice, 50, &["one vote in a term", "order of pointers", "the core at"]);
}

#[test]
fn the_entry_before_not_compared() {
    found(Mutation::SkipPreviousCheck, 200, &["log matching", "committed prefix", "leader completeness"]);
}

#[test]
fn the_durable_wait_skipped_as_clients_see_it() {
    found_by_outcomes(Overrides { mutation: Some(Mutation::SkipDurableWait), ..Overrides::default() }, 150);
}

#[test]
fn an_acknowledgement_behind_a_lost_payload() {
    found(Mutation::AcknowledgeWithoutPayloads, 100, &["law 13", "the core at"]);
}

#[test]
fn a_leader_without_payloads() {
    found(Mutation::LeadWithoutPayloads, 100, &["log matching", "the core at", "state equality"]);
}

#[test]
fn a_sync_that_does_nothing() {
    found_on_disk(DiskMutation::SyncLies, 10, &["durable writes survive"]);
}

#[test]
fn an_acknowledgement_before_the_sync_has_finished() {
    found_on_disk(DiskMutation::AcknowledgeEarly, 5, &["order of pointers", "law 13"]);
}

#[test]
fn a_failed_sync_taken_for_a_good_one() {
    // Unless a crash comes first, the disk notices that a file is synced again whose sync has failed.
    found_on_disk(DiskMutation::FailedSyncAcknowledged, 50, &["durable writes survive", "the core at"]);
}

#[test]
fn a_durable_end_that_vanishes_with_the_power() {
    found_on_disk(DiskMutation::TailCut, 10, &["durable writes survive"]);
}

#[test]
fn rot_that_nobody_is_told_of() {
    found_on_disk(DiskMutation::RotUntold, 10, &["an intact log opens"]);
}

#[test]
fn an_acknowledgement_before_the_sync_has_finished_as_clients_see_it() {
    let disk_mutation = Some(DiskMutation::AcknowledgeEarly);
    found_by_outcomes(Overrides { disk_mutation, ..Overrides::default() }, 1000);
}

#[test]
fn the_correct_core_is_not_accused() {
    let overrides = Overrides { nodes: Some(3), outcomes_only: true, ..Overrides::default() };
    for seed in 0..20 {
        let report = run(seed, &overrides);
        assert!(report.passed(), "{report}");
    }
}
