//! Bugs put into the Raft core, into the core around it, and between that and its disk, on purpose. A checker that has
//! never seen a bug proves nothing, so each of these must be found within a stated number of seeds.
//!
//! `found` gives each bug a test of its own. `the_table` measures how many seeds each takes, as the median over several
//! first seeds; it is the source of the table in docs/TESTING.md:
//!
//! ```text
//! PONTOON_STARTS=3 cargo test -p pontoon-sim the_table -- --ignored --nocapture
//! ```
#![allow(clippy::print_stdout)]

use pontoon_multiraft::CoreMutation;
use pontoon_raft::Mutation;
use pontoon_sim::options::DRIFT_MARGIN_PPM;
use pontoon_sim::{DiskMutation, Overrides, Part, Report, run};

/// Runs seeds from `first` until one fails; the number of runs it took. `laws` are the ways in which this bug shows, so
/// that a bug of another kind does not pass for it.
fn hunt(overrides: &Overrides, first: u64, seeds_max: u64, laws: &[&str]) -> Option<(u64, Report)> {
    (first..first + seeds_max).find_map(|seed| {
        let report = run(seed, overrides);
        let broken = report.violation.as_ref().map(|violation| violation.broken.to_string())?;
        laws.iter().any(|law| broken.starts_with(law)).then(|| (seed - first + 1, report))
    })
}

/// A bug, where to look for it, how long, and which laws it breaks.
struct Case {
    overrides: Overrides,
    seeds_max: u64,
    laws: &'static [&'static str],
}

impl Case {
    fn is_rare(&self) -> bool {
        self.seeds_max > SEEDS_MAX
    }

    fn is_of_leases(&self) -> bool {
        self.overrides.leases || self.overrides.long_leases
    }

    fn is_of_recovery(&self) -> bool {
        self.overrides.quorum_loss
    }

    fn is_of_the_guard(&self) -> bool {
        self.overrides.old_images
    }
}

/// What an ordinary test spends on one bug.
const SEEDS_MAX: u64 = 250;

/// What a core breaks that has forgotten what it promised.
const AMNESIA: &[&str] = &[
    "one vote",
    "election safety",
    "leader completeness",
    "committed prefix",
    "law 13",
    "the core at",
    "log matching",
    "order of pointers",
    "linearizability",
    "correct frames are accepted",
    "no acknowledged write lost",
];

/// What a group breaks in which quorums need not overlap, or are not agreed upon.
const MEMBERS: &[&str] = &[
    "election safety",
    "leader completeness",
    "committed prefix",
    "law 13",
    "the core at",
    "log matching",
    "state equality",
    "members",
    "no acknowledged write lost",
    "linearizability",
];

/// What only gets in the way of a bug that needs an election at the right moment.
const CALM: &[Part] = &[
    Part::Repeats,
    Part::Orders,
    Part::OldBuilds,
    Part::Crashes,
    Part::CrashesInTurns,
    Part::CrashesAfterReplies,
    Part::CrashesInStarts,
    Part::RestartStorms,
    Part::ClockJumps,
    Part::Damage,
    Part::Rot,
    Part::OldImages,
    Part::DiskErrors,
    Part::FullLogs,
    Part::FullDisks,
    Part::SlowDisks,
];

/// What a client or an operator sees.
const OUTSIDE: &[&str] = &["linearizability", "liveness", "replies"];

fn three_nodes() -> Overrides {
    // The bounds were found without orders.
    Overrides { nodes: Some(3), without: vec![Part::Orders, Part::Leases], ..Overrides::default() }
}

/// None for what the tests of `pontoon-raft` hold.
fn of_raft(mutation: Mutation) -> Option<Case> {
    use Mutation::*;
    let case =
        |seeds_max, laws| Case { overrides: Overrides { mutation: Some(mutation), ..three_nodes() }, seeds_max, laws };
    let changed = |seeds_max, laws| Case {
        overrides: Overrides { mutation: Some(mutation), nodes: Some(5), changes: true, ..Overrides::default() },
        seeds_max,
        laws,
    };
    Some(match mutation {
        ChangeBeforeOwnCommit => changed(40, &["members"]),
        LearnerCounts => changed(20, MEMBERS),
        CommitWithoutOutgoing => changed(300, MEMBERS),
        VoteWithoutOutgoing => changed(600, &["election safety"]),
        KeepCutConfiguration => changed(600, &["members", "election safety"]),
        RemovedLeaderStays => changed(100, &["liveness"]),
        // Not seen in 1,200 seeds with leases.
        PermitReused => return None,
        DropKeptSuffix => Case {
            overrides: Overrides { mutation: Some(mutation), ..Overrides::default() },
            seeds_max: 200,
            laws: &["writes in order"],
        },
        IgnoreSnapshotMembers => changed(60, &["members"]),
        InstallBelowCommitted => Case {
            overrides: Overrides { mutation: Some(mutation), ..Overrides::default() },
            seeds_max: 100,
            laws: &["order of pointers", "the core at"],
        },
        EvictUnapplied => case(50, &["the core at"]),
        TakeStaleFetch => case(100, &["the core at", "correct frames are accepted"]),
        SkipDurableWait => case(5, &["law 13", "order of pointers"]),
        DurableEarly => case(10, &["law 13", "order of pointers"]),
        QuorumShortByOne => case(5, &["law 13", "election safety"]),
        ForgetVoteAtRestart => case(10, &["one vote in a term"]),
        CommitOldTerm => case(50, &["commit of the own term", "leader completeness", "committed prefix"]),
        // The pre-vote, which this bug leaves alone, keeps nearly all such candidates away.
        VoteForAnyLog => case(300, &["leader completeness", "committed prefix", "the core at"]),
        VoteTwice => case(50, &["one vote in a term", "order of pointers", "the core at"]),
        SkipPreviousCheck => case(200, &["log matching", "committed prefix", "leader completeness"]),
        LeadWithoutPayloads => case(100, &["log matching", "the core at", "state equality"]),
        AcknowledgeWithoutPayloads => case(100, &["law 13", "the core at"]),
        // No vote is lost here: only `pontoon wal repair` writes that down.
        VoteAfterLostVote | TrustLostTerm => return None,
        // An answer would have to outlive the term in which it was given, and its receiver to lead again meanwhile.
        CountOldAnswers => return None,
        CountLostPayloads => case(100, &["liveness"]),
        ReadBeforeOwnCommit => case(300, &["linearizability"]),
        CommitWithoutMatch => case(50, &["committed prefix", "law 13", "the core at", "order of pointers"]),
        EraseVoteOnStepDown => case(10, &["one vote in a term"]),
        PromiseBeforeVote => case(50, &["law 13", "one vote in a term"]),
        AskBeforeOwnVote => case(10, &["law 13"]),
        TermNotWritten => case(10, &["order of pointers", "law 13", "the core at"]),
        KeepOldPromises => case(50, &["the core at", "law 13"]),
        CommitAloneEarly => Case {
            overrides: Overrides { nodes: Some(1), mutation: Some(mutation), ..Overrides::default() },
            seeds_max: 10,
            laws: &["law 13", "the core at"],
        },
        CountOldVotes => case(200, &["election safety", "leader completeness", "the core at"]),
        CutBehindKnown => case(50, &["the core at", "leader completeness", "writes in order"]),
        DurableByIndex => case(20, &["law 13", "the core at"]),
        NoteUncommitted => case(200, &["committed prefix", "leader completeness", "the core at", "order of pointers"]),
    })
}

fn all_of_raft() -> impl Iterator<Item = (String, Case)> {
    Mutation::ALL.into_iter().filter_map(|it| Some((format!("{it:?}"), of_raft(it)?)))
}

/// None for what the scenarios of `pontoon-multiraft` hold.
fn of_core(mutation: CoreMutation) -> Option<Case> {
    use CoreMutation::*;
    let case = |seeds_max, laws| Case {
        overrides: Overrides { core_mutation: Some(mutation), ..three_nodes() },
        seeds_max,
        laws,
    };
    let leased = |seeds_max| Case {
        // What clients repeat has nothing to do with leases, and only makes these rare ones rarer. Right hints keep candidates
        // away from promises that still bind.
        overrides: Overrides {
            core_mutation: Some(mutation),
            leases: true,
            hints_lie: true,
            without: vec![Part::Repeats],
            ..three_nodes()
        },
        seeds_max,
        laws: &["leases", "linearizability"],
    };
    let lost = |seeds_max, nodes, laws| Case {
        overrides: Overrides {
            core_mutation: Some(mutation),
            quorum_loss: true,
            nodes: Some(nodes),
            ..Overrides::default()
        },
        seeds_max,
        laws,
    };
    let rolled_back = |seeds_max| Case {
        overrides: Overrides { core_mutation: Some(mutation), old_images: true, ..three_nodes() },
        seeds_max,
        laws: AMNESIA,
    };
    Some(match mutation {
        // They need a peer that comes back just when another one goes.
        AnyWitness | VerdictBeforeLedger | SpeakUnjudged => return None,
        CompactBeforeStored | InstallBeforeStored => Case {
            overrides: Overrides { core_mutation: Some(mutation), ..Overrides::default() },
            seeds_max: 20,
            laws: &["order of pointers", "the core at"],
        },
        OrderDoneAtOnce => Case {
            overrides: Overrides { core_mutation: Some(mutation), ..Overrides::default() },
            seeds_max: 40,
            laws: &["orders"],
        },
        // Whoever is left of the old members, and has not heard of the new ones, asks one that was removed.
        UninitialisedVotes => Case {
            overrides: Overrides {
                core_mutation: Some(mutation),
                nodes: Some(5),
                changes: true,
                ..Overrides::default()
            },
            seeds_max: 300,
            laws: &["leader completeness", "committed prefix", "election safety", "one vote", "law 13", "the core at"],
        },
        AnyDigest => Case {
            overrides: Overrides { core_mutation: Some(mutation), ..Overrides::default() },
            seeds_max: 150,
            laws: &["state equality", "law 24", "linearizability", "replies"],
        },
        ReviveDead => Case {
            overrides: Overrides {
                core_mutation: Some(mutation),
                nodes: Some(5),
                changes: true,
                ..Overrides::default()
            },
            seeds_max: 100,
            laws: &["law 11"],
        },
        NoRegistration => rolled_back(60),
        IgnoreMarks => rolled_back(60),
        RefusedVotes => rolled_back(60),
        PromiseEndsWithTerm => leased(40),
        IgnoreClockJumps => leased(150),
        // The last beacon before an election has to arrive in interrupted turns of all who elect, and its answer in time. What
        // crashes, or waits for its disk, only makes that rarer.
        PromiseFromEvent => {
            let leased = leased(600);
            let overrides = Overrides { without: CALM.to_vec(), ..leased.overrides };
            Case { overrides, ..leased }
        }
        LeaseFromAnswer => leased(60),
        // Of two clocks the one of the leader has to be late, and the other one early.
        LeaseWithoutMargin => {
            let leased = leased(1_000);
            let overrides = Overrides { drift_ppm: Some(DRIFT_MARGIN_PPM), nodes: Some(5), ..leased.overrides };
            Case { overrides, ..leased }
        }
        WithdrawWithoutEpoch => leased(60),
        LeaseDespitePermit => leased(600),
        // A core that comes to life waits for its peers (law 12), which hides this one.
        ForgetPromises => {
            let leased = leased(300);
            Case { overrides: Overrides { unguarded: true, long_leases: true, ..leased.overrides }, ..leased }
        }
        LeaseWithoutAcceptance => leased(40),
        // A survivor would have to know of a commit without the entry that brought it about, and another one to have an entry of
        // a term between. The properties of the plan hold it.
        HighestEntryAlone => return None,
        AnyBase => lost(60, 5, &["recovery"]),
        KeepReplicas => lost(10, 3, &["law 11"]),
        JoinOpenRound => case(50, &["law 6"]),
        ReuseRoundId => case(50, &["law 6"]),
        ConfirmAnyTerm => case(150, &["law 6"]),
        ReadWithoutRound => case(50, &["law 6"]),
        NeverMakeWay => case(150, &["liveness"]),
        HideReleased => case(40, &["liveness"]),
        // Such a leader makes way by itself, and the sums of what is led and followed tell of a new life.
        OneWaySupport | FollowUnsupported | IgnoreRebirth => return None,
        KeepUnlisted => case(300, &["liveness"]),
        AnyIncarnation => case(50, &["law 11"]),
        AnyReplica => case(20, &["law 11"]),
        AnyGeneration => case(20, &["replies"]),
        // A key of another range needs another range.
        AnyKey => Case {
            overrides: Overrides { core_mutation: Some(mutation), groups: Some(4), ..three_nodes() },
            seeds_max: 60,
            laws: &["replies"],
        },
        OutcomeByIndex => case(200, &["no acknowledged write lost", "law 24", "replies", "linearizability"]),
        ExecuteAgain => case(60, &["state equality", "law 24"]),
        ExecuteForgotten => case(100, &["state equality", "law 24", "the core at"]),
        ForgetWithoutTrace => case(100, &["state equality"]),
        ForgetAtRestart => case(10, &["state equality"]),
        ForgetInSnapshot => case(100, &["state equality", "law 24"]),
        FollowerAsksNobody => case(50, &["law 6"]),
        AnyAge => case(100, &["stale reads"]),
        PassUnreadable => case(100, &["state equality", "law 24"]),
        SwapOutcomes => case(20, &["replies", "law 24", "linearizability"]),
        RefuseLate => case(600, &["a refusal is definite", "at most once"]),
        RefuseOnStepDown => case(50, &["a refusal is definite", "at most once", "the core at"]),
        CompareAtProposal => case(50, &["state equality", "law 24", "linearizability", "replies"]),
        ApplyTwice => case(50, &["linearizability", "replies", "state equality"]),
        SkipAfterRestart => case(10, &["state equality"]),
    })
}

fn all_of_core() -> impl Iterator<Item = (String, Case)> {
    CoreMutation::ALL.into_iter().filter_map(|it| Some((format!("{it:?}"), of_core(it)?)))
}

fn of_disk(mutation: DiskMutation) -> Case {
    use DiskMutation::*;
    let case = |seeds_max, laws| Case {
        overrides: Overrides { disk_mutation: Some(mutation), ..Overrides::default() },
        seeds_max,
        laws,
    };
    match mutation {
        SyncLies => case(10, &["durable writes survive", "an intact log opens"]),
        AcknowledgeEarly => case(5, &["order of pointers", "law 13"]),
        // Unless a crash comes first, the disk notices that a file is synced again whose sync has failed.
        FailedSyncAcknowledged => case(50, &["durable writes survive", "the core at"]),
        TailCut => case(10, &["durable writes survive"]),
        RotUntold => case(10, &["an intact log opens"]),
        VoteLags => case(20, &["law 13", "one vote in a term"]),
        EntriesLag => case(5, &["law 13", "order of pointers", "the core at"]),
    }
}

/// By what clients and operators see alone.
fn outside(overrides: Overrides, seeds_max: u64) -> Case {
    let overrides = Overrides { outcomes_only: true, ..overrides };
    Case { overrides, seeds_max, laws: OUTSIDE }
}

fn cases() -> Vec<(String, Case)> {
    let disk = DiskMutation::ALL.map(|it| (format!("{it:?}"), of_disk(it)));
    all_of_raft().chain(all_of_core()).chain(disk).chain(from_outside()).collect()
}

fn from_outside() -> [(String, Case); 3] {
    let seen = |name: &str, overrides| (format!("{name}, from outside"), outside(overrides, 100));
    [
        seen("SkipDurableWait", Overrides { mutation: Some(Mutation::SkipDurableWait), ..three_nodes() }),
        seen("AcknowledgeEarly", Overrides { disk_mutation: Some(DiskMutation::AcknowledgeEarly), ..three_nodes() }),
        seen("QuorumShortByOne", Overrides { mutation: Some(Mutation::QuorumShortByOne), ..three_nodes() }),
    ]
}

/// Those that are soon found. The others take too long for an ordinary test.
fn soon(cases: impl IntoIterator<Item = (String, Case)>) -> impl Iterator<Item = (String, Case)> {
    cases.into_iter().filter(|(_, case)| !case.is_rare())
}

/// Hunts each of these bugs, from the first seed up.
#[track_caller]
fn all_found(cases: impl IntoIterator<Item = (String, Case)>) {
    let mut missed = Vec::new();
    for (name, Case { overrides, seeds_max, laws }) in cases.into_iter() {
        let Some((seeds, report)) = hunt(&overrides, 0, seeds_max, laws) else {
            missed.push(format!("{name} within {seeds_max} seeds"));
            continue;
        };
        println!("{name}: after {seeds} of at most {seeds_max} seeds, {}", report.summary());
        let violation = report.violation.expect("a found bug is a violation");
        assert!(!violation.trace.is_empty() || violation.at.0 == 0, "a violation comes with its trace");
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

#[test]
fn bugs_of_the_raft_core_are_found() {
    all_found(soon(all_of_raft()));
}

#[test]
fn bugs_around_the_raft_core_are_found() {
    let is_special = |case: &Case| case.is_of_leases() || case.is_of_the_guard() || case.is_of_recovery();
    all_found(soon(all_of_core()).filter(|(_, case)| !is_special(case)));
}

#[test]
fn bugs_of_leases_are_found() {
    all_found(soon(all_of_core()).filter(|(_, case)| case.is_of_leases()));
}

#[test]
fn bugs_of_recovery_are_found() {
    all_found(soon(all_of_core()).filter(|(_, case)| case.is_of_recovery()));
}

#[test]
fn bugs_of_the_amnesia_guard_are_found() {
    all_found(soon(all_of_core()).filter(|(_, case)| case.is_of_the_guard()));
}

/// Promises bind a core that comes to life also where it does not wait for its peers (law 4).
#[test]
fn without_the_guard_promises_are_kept_over_a_start() {
    let long = Overrides { hints_lie: true, unguarded: true, long_leases: true, ..Overrides::default() };
    for seed in 0..100 {
        let report = run(seed, &long);
        let broken = report.violation.as_ref().map(|violation| violation.broken.to_string());
        assert!(broken.is_none_or(|broken| broken.starts_with("liveness")), "{report}");
    }
}

/// Support is a hint: when it comes and goes by chance, groups may not find rest, and nothing else may happen.
#[test]
fn support_that_lies_breaks_no_law() {
    for seed in 0..200 {
        let report = run(seed, &Overrides { hints_lie: true, leases: seed % 2 == 0, ..Overrides::default() });
        let broken = report.violation.as_ref().map(|violation| violation.broken.to_string());
        assert!(broken.is_none_or(|broken| broken.starts_with("liveness")), "{report}");
    }
}

#[test]
fn bugs_under_the_log_are_found() {
    all_found(DiskMutation::ALL.map(|it| (format!("{it:?}"), of_disk(it))));
}

#[test]
fn bugs_are_seen_from_outside() {
    all_found(from_outside());
}

/// Prints a row of the table for each bug whose name has PONTOON_ONLY in it: the median of the seeds that it took from
/// each of PONTOON_STARTS first seeds.
#[test]
#[ignore = "takes minutes; the source of a table"]
fn the_table() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (starts, only) = (number("PONTOON_STARTS").unwrap_or(5), std::env::var("PONTOON_ONLY").unwrap_or_default());
    println!("| bug | median seeds | most | shows as |\n|---|---|---|---|");
    let mut missed = Vec::new();
    for (name, Case { overrides, seeds_max, laws }) in cases().into_iter().filter(|(name, _)| name.contains(&only)) {
        let mut taken = Vec::new();
        let mut shown = String::new();
        for start in 0..starts {
            let Some((seeds, report)) = hunt(&overrides, start * 1_000_000, seeds_max.max(100) * 2, laws) else {
                taken.push(u64::MAX);
                if taken.len() as u64 > starts / 2 && taken.iter().all(|seeds| *seeds == u64::MAX) {
                    break;
                }
                continue;
            };
            taken.push(seeds);
            let broken = report.violation.expect("a found bug is a violation").broken.to_string();
            shown = broken.split(':').next().unwrap_or_default().to_string();
        }
        taken.sort_unstable();
        let show = |seeds: u64| if seeds == u64::MAX { "not found".to_string() } else { seeds.to_string() };
        let (median, most) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        println!("| {name} | {} | {} | {shown} |", show(median), show(most));
        if taken[0] == u64::MAX {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn the_correct_core_is_not_accused() {
    let overrides = Overrides { nodes: Some(3), outcomes_only: true, ..Overrides::default() };
    for seed in 0..20 {
        let report = run(seed, &overrides);
        assert!(report.passed(), "{report}");
    }
}
