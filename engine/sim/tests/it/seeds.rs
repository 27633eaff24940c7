//! A few hundred seeds, and that enough happens in them.

use std::time::Duration;

use pontoon_sim::{Counts, Overrides, Part, Report, run, run_many};

/// Runs of an ordinary test. More: `pontoon sim --seed 0 --count 100000`.
const SEEDS: u64 = 300;

#[test]
fn a_few_hundred_seeds_break_no_law() {
    let mut sum = Counts::default();
    let mut runs = 0;
    run_many(0..SEEDS, &Overrides::default(), 1, |report| {
        assert!(report.passed(), "{report}");
        runs += 1;
        add(&mut sum, &report);
        true
    });
    println!("{runs} runs:\n{sum}");
    assert_eq!(runs, SEEDS);
    // A run in which nothing happens proves nothing; these are about a third of what the seeds do.
    assert!(sum.elections > 1_000 && sum.entries_committed > 5_000, "{sum}");
    assert!(sum.writes_acknowledged > 3_000 && sum.reads_served > 4_000, "{sum}");
    assert!(sum.crashes > 1_000 && sum.power_cuts > 500 && sum.partitions > 200, "{sum}");
    assert!(sum.frames_lost > 5_000 && sum.frames_duplicated > 5_000 && sum.frames_refused > 50, "{sum}");
    assert!(sum.links_broken > 1_000 && sum.pauses > 100 && sum.unknown > 1_000 && sum.refusals > 1_000, "{sum}");
    assert!(sum.clock_jumps > 150 && sum.late_events > 1_000, "{sum}");
    assert!(sum.opens > 3_000 && sum.torn_tails > 15 && sum.appends_kept > 100 && sum.appends_lost > 100, "{sum}");
    assert!(
        sum.stops > 100 && sum.clean_opens > 100 && sum.stalls > 500 && sum.sync_errors > 50 && sum.logs_fenced > 50,
        "{sum}"
    );
    assert!(sum.seals > 1_000 && sum.starts_in_vain > 50, "{sum}");
    assert!(sum.damages > 200 && sum.damages_refused > 50 && sum.nodes_lost > 5, "{sum}");
    assert!(sum.payloads_lost > 250 && sum.payloads_restored > 80, "{sum}");
    assert!(sum.old_images > 10, "{sum}");
    assert!(sum.reads_checked > 3_000 && sum.parked > 30, "{sum}");
    assert!(sum.lags > 50 && sum.narrow_links > 100 && sum.slow_disks > 50 && sum.scrubs > 200, "{sum}");
    assert!(sum.full_disks > 100 && sum.write_errors > 100, "{sum}");
    assert!(sum.frames_strange > 500 && sum.frames_ignored > 500 && sum.foreign > 50, "{sum}");
    assert!(sum.orders > 700 && sum.orders > sum.orders_refused + 150 && sum.configurations > 25, "{sum}");
    assert!(sum.fetches > 2_000 && sum.cold_reads > 250, "{sum}");
    assert!(sum.created > 2 && sum.destroyed > 8, "{sum}");
    assert!(sum.checkpoints_rotten > 30 && sum.stateless_starts > 20 && sum.chunks_changed > 5, "{sum}");
    assert!(sum.checkpoints > 3_000 && sum.compactions > 3_000 && sum.snapshots > 300, "{sum}");
    assert_eq!(sum.undecided, 0, "every history is decided");
}

fn add(sum: &mut Counts, report: &Report) {
    let counts = &report.counts;
    sum.elections += counts.elections;
    sum.orders += counts.orders;
    sum.orders_refused += counts.orders_refused;
    sum.configurations += counts.configurations;
    sum.reads_checked += counts.reads_checked;
    sum.parked += counts.parked;
    sum.overlaps += counts.overlaps;
    sum.old_images += counts.old_images;
    sum.entries_committed += counts.entries_committed;
    sum.writes_acknowledged += counts.writes_acknowledged;
    sum.reads_served += counts.reads_served;
    sum.crashes += counts.crashes;
    sum.appends_kept += counts.appends_kept;
    sum.appends_lost += counts.appends_lost;
    sum.power_cuts += counts.power_cuts;
    sum.stops += counts.stops;
    sum.opens += counts.opens;
    sum.clean_opens += counts.clean_opens;
    sum.torn_tails += counts.torn_tails;
    sum.segments += counts.segments;
    sum.sync_errors += counts.sync_errors;
    sum.logs_fenced += counts.logs_fenced;
    sum.stalls += counts.stalls;
    sum.fetches += counts.fetches;
    sum.cold_reads += counts.cold_reads;
    sum.seals += counts.seals;
    sum.segment_waits += counts.segment_waits;
    sum.starts_in_vain += counts.starts_in_vain;
    sum.damages += counts.damages;
    sum.damages_refused += counts.damages_refused;
    sum.nodes_lost += counts.nodes_lost;
    sum.payloads_lost += counts.payloads_lost;
    sum.payloads_restored += counts.payloads_restored;
    sum.partitions += counts.partitions;
    sum.frames += counts.frames;
    sum.frames_lost += counts.frames_lost;
    sum.frames_duplicated += counts.frames_duplicated;
    sum.frames_corrupted += counts.frames_corrupted;
    sum.frames_refused += counts.frames_refused;
    sum.links_broken += counts.links_broken;
    sum.pauses += counts.pauses;
    sum.clock_jumps += counts.clock_jumps;
    sum.late_events += counts.late_events;
    sum.frames_strange += counts.frames_strange;
    sum.frames_ignored += counts.frames_ignored;
    sum.lags += counts.lags;
    sum.narrow_links += counts.narrow_links;
    sum.slow_disks += counts.slow_disks;
    sum.full_disks += counts.full_disks;
    sum.write_errors += counts.write_errors;
    sum.foreign += counts.foreign;
    sum.scrubs += counts.scrubs;
    sum.unknown += counts.unknown;
    sum.refusals += counts.refusals;
    sum.undecided += counts.undecided;
    sum.checked += counts.checked;
    sum.history += counts.history;
    sum.checkpoints += counts.checkpoints;
    sum.checkpoints_failed += counts.checkpoints_failed;
    sum.checkpoints_rotten += counts.checkpoints_rotten;
    sum.stateless_starts += counts.stateless_starts;
    sum.chunks_changed += counts.chunks_changed;
    sum.compactions += counts.compactions;
    sum.snapshots += counts.snapshots;
    sum.created += counts.created;
    sum.destroyed += counts.destroyed;
}

#[test]
fn without_faults_hardly_anything_is_refused_and_nothing_is_unknown() {
    let without = vec![Part::QuietRestart, Part::WrongRoutes];
    let overrides = Overrides { nodes: Some(3), groups: Some(4), faults: Some(false), without, ..Overrides::default() };
    for seed in 0..10 {
        let report = run(seed, &overrides);
        assert!(report.passed(), "{report}");
        assert_eq!(
            (report.counts.crashes, report.counts.links_broken, report.counts.frames_lost),
            (0, 0, 0),
            "{report}"
        );
        assert!(report.counts.completed * 100 > report.counts.operations * 80, "{report}");
    }
}

/// What groups share is the log, its syncs, the beacons, the budgets of snapshots and the pace of campaigns.
#[test]
fn two_thousand_groups_break_no_law() {
    for seed in [5, 6] {
        let report = run(seed, &Overrides { groups: Some(2_000), ..Overrides::default() });
        assert!(report.passed(), "{report}");
        assert_eq!(report.options.groups, 2_000);
        let counts = &report.counts;
        assert!(counts.elections >= 2_000 && counts.writes_acknowledged >= 2_000 && counts.crashes > 0, "{report}");
    }
}

#[test]
fn overrides_decide_the_size_of_the_cluster() {
    let overrides = Overrides {
        nodes: Some(5),
        cores: Some(2),
        groups: Some(7),
        clients: Some(3),
        duration: Some(Duration::from_millis(1_500)),
        ..Overrides::default()
    };
    let report = run(11, &overrides);
    assert!(report.passed(), "{report}");
    let options = &report.options;
    assert_eq!((options.nodes, options.cores, options.groups, options.client.clients), (5, 2, 7, 3));
    assert_eq!(options.duration, Duration::from_millis(1_500));
    assert!(report.to_string().contains("nodes 5, cores 2, groups 7, duration 1.5s"), "{report}");
}

#[test]
fn many_seeds_come_back_in_order_and_stop_when_told() {
    let overrides = Overrides { nodes: Some(1), duration: Some(Duration::from_millis(300)), ..Overrides::default() };
    let mut seen = Vec::new();
    run_many(5..40, &overrides, 3, |report| {
        seen.push(report.options.seed);
        report.options.seed < 20
    });
    assert_eq!(seen, (5..=20).collect::<Vec<u64>>());
}

#[test]
fn leases_break_no_law() {
    let leases = Overrides { leases: true, ..Overrides::default() };
    for seed in 0..150 {
        let report = run(seed, &leases);
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn a_lost_quorum_breaks_no_law() {
    let overrides = Overrides { quorum_loss: true, ..Overrides::default() };
    let mut sum = Counts::default();
    run_many(0..150, &overrides, 1, |report| {
        assert!(report.passed(), "{report}");
        let counts = &report.counts;
        sum.quorums_lost += counts.quorums_lost;
        sum.begun_anew += counts.begun_anew;
        sum.may_miss += counts.may_miss;
        sum.misses += counts.misses;
        sum.left_alone += counts.left_alone;
        sum.came_back += counts.came_back;
        sum.undecided += counts.undecided;
        true
    });
    println!("{sum}");
    assert!(sum.quorums_lost > 120 && sum.begun_anew > 300 && sum.came_back > 80, "{sum}");
    // Of what is said to be missing something is, and there are groups that lost nothing.
    assert!(sum.misses > 30 && sum.begun_anew > sum.may_miss + 40 && sum.left_alone > 1, "{sum}");
    assert_eq!(sum.undecided, 0, "every history is decided");
}
