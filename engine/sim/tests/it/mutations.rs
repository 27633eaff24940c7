//! Bugs put into the Raft core on purpose. A checker that has never seen a bug proves nothing, so each of these must
//! be found within a stated number of seeds: by the inner invariants, and, where a bug does visible harm often
//! enough, by what clients and operators see alone. The seeds that it took are printed (`--nocapture`).
#![allow(clippy::print_stdout)]

use pontoon_raft::Mutation;
use pontoon_sim::{Overrides, Report, run};

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
    panic!("{:?} was not found within {seeds_max} seeds", overrides.mutation);
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
fn found_by_outcomes(mutation: Mutation, seeds_max: u64) {
    let overrides = Overrides { nodes: Some(3), mutation: Some(mutation), outcomes_only: true, ..Overrides::default() };
    let visible = ["linearizability", "liveness", "replies"];
    let (seeds, report) = hunt(&overrides, seeds_max, |broken| visible.iter().any(|law| broken.starts_with(law)));
    println!("{mutation:?}: seen from outside by seed {} after {seeds} seeds", report.options.seed);
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
    found_by_outcomes(Mutation::SkipDurableWait, 150);
}

#[test]
fn a_write_durable_too_early_as_clients_see_it() {
    found_by_outcomes(Mutation::DurableEarly, 300);
}

#[test]
fn the_correct_core_is_not_accused() {
    let overrides = Overrides { nodes: Some(3), outcomes_only: true, ..Overrides::default() };
    for seed in 0..20 {
        let report = run(seed, &overrides);
        assert!(report.passed(), "{report}");
    }
}
