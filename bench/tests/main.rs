//! The bench as its users meet it: the program with its arguments, its output and its exit code.

// A test that cannot go on says so by its panic.
#![allow(clippy::unwrap_used)]

mod wal;

use std::path::Path;
use std::process::{Command, Output};

/// Runs the program to its end.
fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pontoon-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One clear line that names the mistake, nothing on standard output, and the code for wrong usage.
#[test]
fn a_wrong_argument_is_one_line_and_code_2() {
    let cases: [(&[&str], &str); 25] = [
        (&["--nonsense"], "--nonsense"),
        (&["--nodes", "0"], "--nodes"),
        (&["--nodes", "ten"], "--nodes"),
        (&["--groups", "131073"], "--groups"),
        (&["failover", "--groups", "2"], "--groups"),
        (&["failover", "--groups", "3", "--pontoond", "/nowhere/pontoond"], "/nowhere/pontoond"),
        (&["leased-reads", "--batch", "0"], "--batch"),
        (&["--clients", "0"], "--clients"),
        (&["--value-size", "7"], "--value-size"),
        (&["--value-size", "1048577"], "--value-size"),
        (&["--read-percent", "101"], "--read-percent"),
        (&["--duration", "0"], "--duration"),
        (&["--rate", "-1"], "--rate"),
        (&["--output", "xml"], "--output"),
        (&["--endpoints", "127.0.0.1:1", "--nodes", "3"], "--endpoints"),
        (&["--endpoints", "nowhere"], "nowhere"),
        (&["--against", "redis=127.0.0.1:1"], "--against"),
        (&["wal", "--workloads", "lone-256,lone"], "batch-256"),
        (&["wal", "--seconds", "0"], "--seconds"),
        (&["wal", "--rounds", "0"], "--rounds"),
        (&["wal", "--groups", "63"], "--groups must be at least 64"),
        (&["wal", "--append-path", "odirect"], "--append-path"),
        (&["wal", "--against", "rocksdb"], "--against"),
        (&["wal-open", "--log-gib", "-1"], "--log-gib"),
        (&["wal-open", "--payload", "0"], "--payload"),
    ];
    for (arguments, named) in cases {
        let output = bench(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_is_an_answer() {
    let output = bench(&["--help"]);
    assert!(output.status.success());
    for option in [
        "--nodes",
        "--rate",
        "--endpoints",
        "--history",
        "--data-dir",
        "--against",
        "idle",
        "wal",
        "wal-open",
        "summarize",
        "leased-reads",
        "failover",
    ] {
        assert!(text(&output.stdout).contains(option), "{option}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_an_environment_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = bench(&["--endpoints", &free]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&free), "{}", text(&output.stderr));
}

#[test]
fn a_directory_that_is_in_use_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "data").unwrap();
    let output = bench(&["--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("not empty"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A short run from start to verdict: every promised key, a history that agrees with the counts, data that stays.
#[test]
fn a_short_run_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (data, history) = (dir.path().join("data"), dir.path().join("history.jsonl"));
    let path = |path: &Path| path.to_str().unwrap().to_string();
    let arguments = "--groups 8 --clients 16 --keys 500 --warm-up 0.5 --duration 2 --seed 7 --output json";
    let (data_text, history_text) = (path(&data), path(&history));
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.extend(["--data-dir", &data_text, "--history", &history_text]);
    let output = bench(&arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.lines().filter(|line| line.contains("writes/s")).count() >= 2, "{stderr}");

    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"));
    for key in [
        "writes_per_s",
        "reads_per_s",
        "write_p50_us",
        "write_p99_us",
        "write_p999_us",
        "write_max_us",
        "read_p99_us",
        "syncs_per_s",
        "entries_per_sync",
        "messages_per_frame",
        "turns_per_write",
        "system_calls_per_write",
    ] {
        assert!(number(key) > 0.0, "{key} in {report}");
    }
    assert!(report.as_object().unwrap().contains_key("disk_bytes_per_write"));
    assert!(number("acknowledged") > 0.0);
    assert_eq!(number("acknowledged"), number("verified"));
    assert_eq!((number("lost"), number("seed")), (0.0, 7.0));
    assert_eq!(report["leaders"].as_array().unwrap().len(), 3);

    let history = std::fs::read_to_string(&history).unwrap();
    let mut acknowledged = 0;
    for line in history.lines() {
        let operation: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(operation["call"].as_u64().unwrap() <= operation["return"].as_u64().unwrap(), "{line}");
        acknowledged += u64::from(operation["op"] == "write" && operation["outcome"] == "ok");
    }
    assert_eq!(acknowledged as f64, number("acknowledged"));
    assert!(data.join("n3").is_dir(), "a directory that was named is kept");
}

#[test]
fn an_idle_cluster_is_measured() {
    let output = bench(&["idle", "--groups", "8", "--duration", "1", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["process_cpu_percent"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["frames_per_s"].as_f64().unwrap() > 0.0, "beacons are sent: {report}");
    assert_eq!(report["leaders"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 8);
}

#[test]
fn results_are_summarized() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("results");
    std::fs::write(&file, "not a result\n").unwrap();
    let output = bench(&["summarize", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("line 1"), "{}", text(&output.stderr));
}
