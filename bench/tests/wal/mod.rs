//! The measurements of the log: short runs, whose figures mean nothing and whose counts must be right.

use std::path::Path;

use serde_json::Value;

use crate::{bench, text};

const SHORT: [&str; 8] = ["--rounds", "1", "--warm-up", "0.05", "--seconds", "0.2", "--output", "json"];

/// The result of a run that must succeed.
fn result(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("{key} in {object}"))
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().count() == 0
}

/// What holds for every round of every log.
fn check_round(workload: &Value, round: &Value) {
    let per_commit = number(workload, "entries_per_commit");
    assert!(number(round, "commits") > 0.0, "{workload}");
    assert_eq!(number(round, "entries"), number(round, "commits") * per_commit, "{workload}");
    let latencies = ["commit_p50_us", "commit_p99_us", "commit_max_us"].map(|key| number(round, key));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{workload}");
    assert!(number(round, "process_cpu_ns_per_entry") > 0.0, "{workload}");
    assert!(number(round, "log_bytes_per_entry") > number(workload, "payload_bytes"), "{workload}");
    assert!(number(round, "verified_entries") >= number(round, "entries"), "{workload}");
    // A rate is that of the counted entries over the measured time.
    let rate = number(round, "entries") / number(round, "duration_s");
    assert!((0.95..1.05).contains(&(number(round, "entries_per_s") / rate)), "{workload}");
}

#[test]
fn every_workload_of_the_log_runs_and_loses_nothing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (base, saved) = (dir.path().join("base"), dir.path().join("saved.json"));
    std::fs::create_dir(&base).unwrap();
    let mut arguments = vec!["wal", "--verify", "--segment-mib", "4", "--dir", base.to_str().unwrap()];
    arguments.extend(["--save", saved.to_str().unwrap()]);
    arguments.extend(SHORT);
    let report = result(&arguments);

    let workloads = report["workloads"].as_array().unwrap();
    let names: Vec<&str> = workloads.iter().map(|workload| workload["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["device", "lone-256", "lone-4k", "async-1", "async-64", "batch-64", "batch-256"]);
    let device = &workloads[0]["targets"][0];
    assert_eq!((&device["target"], device["rounds"].as_array().unwrap().len()), (&Value::from("device"), 1));
    assert!(number(&device["figures"]["commit_p50_us"], "median") > 0.0);
    for workload in &workloads[1..] {
        assert!(workload["ratios"].as_object().unwrap().is_empty(), "there is no peer: {workload}");
        let targets = workload["targets"].as_array().unwrap();
        assert_eq!((targets.len(), &targets[0]["target"]), (1, &Value::from("pontoon")));
        let round = &targets[0]["rounds"][0];
        check_round(workload, round);
        assert!(number(round, "thread_cpu_ns_per_entry") > 0.0, "{workload}");
        assert_eq!(targets[0]["figures"]["entries_per_s"]["median"], round["entries_per_s"]);
        let is_asynchronous = workload["workload"].as_str().unwrap().starts_with("async");
        assert_eq!(round["timer_late_p99_us"].is_number(), is_asynchronous, "the timer runs in the loop: {workload}");
        let is_lone = workload["workload"] == "lone-256";
        assert_eq!(round["p50_to_device"].is_number(), is_lone, "{workload}");
    }
    let of = |place: usize| &workloads[place]["targets"][0]["rounds"][0];
    // One block, and sometimes that of a new segment's header.
    assert!((4096.0..6000.0).contains(&number(of(1), "log_bytes_per_entry")), "{}", of(1));
    assert_eq!(number(of(6), "entries_per_sync"), 256.0, "a batch is one group");
    let again: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    assert_eq!(again, report, "what was saved is what was printed");
    assert!(is_empty(&base), "the directories of all rounds are gone");
}

#[test]
fn both_append_paths_are_measured() {
    let mut arguments =
        vec!["wal", "--verify", "--workloads", "batch-64", "--append-path", "mmap", "--segment-mib", "4"];
    arguments.extend(SHORT);
    let report = result(&arguments);
    assert_eq!(report["append_path"], "mmap");
    check_round(&report["workloads"][0], &report["workloads"][0]["targets"][0]["rounds"][0]);
}

#[cfg(feature = "raft-engine")]
#[test]
fn raft_engine_gets_the_same_loads() {
    let mut arguments = vec!["wal", "--verify", "--against", "raft-engine", "--segment-mib", "4", "--groups", "100"];
    arguments.extend(SHORT);
    let report = result(&arguments);
    let workloads = report["workloads"].as_array().unwrap();
    assert_eq!(workloads.len(), 7);
    for workload in &workloads[1..] {
        let targets = workload["targets"].as_array().unwrap();
        let names: Vec<&str> = targets.iter().map(|target| target["target"].as_str().unwrap()).collect();
        assert_eq!(names, ["pontoon", "raft-engine"], "{workload}");
        check_round(workload, &targets[1]["rounds"][0]);
        let medians = [0, 1].map(|target| number(&targets[target]["figures"]["entries_per_s"], "median"));
        let ratio = number(&workload["ratios"], "entries_per_s");
        assert!((ratio - medians[0] / medians[1]).abs() < 0.01, "{workload}");
    }
}

#[cfg(not(feature = "raft-engine"))]
#[test]
fn a_peer_that_is_not_built_in_is_a_usage_error() {
    let output = bench(&["wal", "--against", "raft-engine"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--features raft-engine"), "{}", text(&output.stderr));
}

/// Every open is checked against what was written, so the run itself is the test.
#[test]
fn a_log_is_opened_after_a_clean_stop_and_after_a_crash() {
    let arguments = "wal-open --log-gib 0.02 --groups 1000 --segment-mib 4 --rounds 2 --output json";
    let report = result(&arguments.split(' ').collect::<Vec<_>>());
    assert!(number(&report, "log_bytes") >= 0.02 * f64::from(1 << 30), "{report}");
    assert!(number(&report, "log_bytes") < 0.03 * f64::from(1 << 30), "{report}");
    assert!(number(&report, "entries") > 10_000.0, "{report}");
    for key in ["clean_open_ms", "crash_open_ms"] {
        assert_eq!(number(&report[key], "runs"), 2.0, "{report}");
        assert!(number(&report[key], "median") > 0.0, "{report}");
    }
}

#[test]
fn a_directory_in_memory_is_refused() {
    let dir = Path::new("/dev/shm");
    if !dir.is_dir() {
        return;
    }
    let output = bench(&["wal", "--dir", dir.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("in memory"), "{}", text(&output.stderr));
}
