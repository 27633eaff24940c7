//! The operator's binary as an operator uses it: real processes of `pontoon` against real nodes.

mod members;
mod recover;
mod rot;
mod wal;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};

use pontoon::{Node, NodeConfig};

/// Runs `pontoon` with these arguments.
fn pontoon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pontoon")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What went to standard error: for every failure of ours exactly one line.
fn error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Ports below the range from which the kernel gives them out, so that a node that is stopped finds its own free again.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// An address of this machine that nobody listens at.
fn free_address() -> SocketAddr {
    loop {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = 30_000 + ((std::process::id() as u16).wrapping_mul(97).wrapping_add(step)) % 2_500;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Three nodes in this process, initialised by the binary.
struct Cluster {
    nodes: Vec<Node>,
    endpoints: String,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<String> = (0..3).map(|_| free_address().to_string()).collect();
        let dirs: Vec<String> =
            (1..=3).map(|id| dir.path().join(format!("n{id}")).to_str().unwrap().to_string()).collect();
        let mut arguments = vec!["init", "--ranges", "4"];
        for (dir, address) in dirs.iter().zip(&addresses) {
            arguments.extend(["--dir", dir, "--listen", address]);
        }
        let init = pontoon(&arguments);
        assert_eq!(code(&init), 0, "{init:?}");
        let nodes = dirs.iter().map(|dir| Node::start(NodeConfig::new(dir)).unwrap()).collect();
        Cluster { nodes, endpoints: addresses.join(","), dir }
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        pontoon(&[&[command, "-e", &self.endpoints], arguments].concat())
    }
}

#[test]
fn keys_are_written_read_swapped_scanned_and_deleted() {
    let cluster = Cluster::start();
    assert_eq!(code(&cluster.run("put", &["apple", "red"])), 0);
    assert_eq!(code(&cluster.run("put", &["\\xff\\x00key", "two\\nlines"])), 0);
    assert_eq!(out(&cluster.run("get", &["apple"])), "red\n");
    assert_eq!(out(&cluster.run("get", &["--raw", "\\xff\\x00key"])), "two\nlines");
    assert_eq!(out(&cluster.run("scan", &[])), "apple\tred\n\\xff\\x00key\ttwo\\nlines\n");
    assert_eq!(out(&cluster.run("scan", &["--limit", "1"])), "apple\tred\n");

    assert_eq!(code(&cluster.run("cas", &["apple", "--expect", "red", "--value", "green"])), 0);
    let refused = cluster.run("cas", &["apple", "--expect", "red", "--value", "blue"]);
    assert_eq!(code(&refused), 1);
    assert!(error_line(&refused).contains("green"));

    assert_eq!(out(&cluster.run("delete", &["apple"])), "deleted\n");
    assert_eq!(out(&cluster.run("delete", &["apple"])), "there was no such key\n");
    let missing = cluster.run("get", &["apple"]);
    assert_eq!(code(&missing), 1);
    assert!(error_line(&missing).contains("there is no key apple"));
}

#[test]
fn the_status_is_healthy_until_a_node_is_gone() {
    let mut cluster = Cluster::start();
    assert_eq!(code(&cluster.run("put", &["a", "b"])), 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let healthy = loop {
        let status = cluster.run("status", &["--output", "json"]);
        if code(&status) == 0 || std::time::Instant::now() > deadline {
            break status;
        }
    };
    assert_eq!(code(&healthy), 0, "{healthy:?}");
    let json: serde_json::Value = serde_json::from_slice(&healthy.stdout).unwrap();
    assert_eq!(json["cores"].as_array().unwrap().len(), 3);
    assert_eq!(json["leaderless"], 0);
    let leads: u64 = json["cores"].as_array().unwrap().iter().map(|core| core["leads"].as_u64().unwrap()).sum();
    assert_eq!(leads, 4, "{json}");
    // Nothing has been written that would need a checkpoint.
    let core = &json["cores"][0];
    assert_eq!((&core["checkpoints"], &core["checkpoint_failures"]), (&0.into(), &0.into()));
    assert_eq!((&core["snapshots_sent"], &core["snapshots_received"]), (&0.into(), &0.into()));
    let groups = core["groups"].as_array().unwrap();
    assert!(groups.iter().all(|group| group["checkpoint"] == 0), "{json}");
    assert!(groups.iter().any(|group| group["log_bytes"].as_u64().unwrap() > 0), "{json}");
    let table = String::from_utf8(cluster.run("status", &["--groups"]).stdout).unwrap();
    assert!(["checkpoints", "snapshots", "log bytes since"].iter().all(|title| table.contains(title)), "{table}");

    cluster.nodes.pop().unwrap().stop().unwrap();
    let unhealthy = cluster.run("status", &["--timeout-ms", "500"]);
    assert_eq!(code(&unhealthy), 10, "{unhealthy:?}");
    assert!(error_line(&unhealthy).contains("1 of 3 cores do not answer"));
}

#[test]
fn bad_arguments_are_usage_errors() {
    for arguments in [&["put", "--colour", "a", "b"][..], &["gett", "a"], &["sim"], &["sim", "--seed", "x"]] {
        assert_eq!(code(&pontoon(arguments)), 2, "{arguments:?}");
    }
    for arguments in [
        &["get", "half\\x1", "-e", "127.0.0.1:1"][..],
        &["get", "a", "-e", "nowhere"],
        &["sim", "--seed", "1", "--count", "2", "--trace"],
        &["init", "--dir", "a", "--dir", "b", "--listen", "127.0.0.1:7400"],
    ] {
        let output = pontoon(arguments);
        assert_eq!(code(&output), 2, "{output:?}");
        error_line(&output);
    }
}

#[test]
fn limits_are_named() {
    let cluster = Cluster::start();
    let key = "k".repeat(4097);
    let output = cluster.run("put", &[&key, "v"]);
    assert_eq!(code(&output), 2);
    assert!(error_line(&output).contains("4096"), "{output:?}");
}

#[test]
fn a_cluster_that_is_not_there_is_an_environment_error() {
    let output = pontoon(&["get", "a", "-e", "127.0.0.1:1", "--timeout-ms", "300"]);
    assert_eq!(code(&output), 3);
    error_line(&output);
}

#[test]
fn init_touches_nothing_that_is_there_already() {
    let cluster = Cluster::start();
    let taken = cluster.dir.path().join("n1");
    let before = std::fs::read(taken.join("node")).unwrap();
    let output = pontoon(&["init", "--dir", taken.to_str().unwrap()]);
    assert_eq!(code(&output), 4);
    assert!(error_line(&output).contains("not empty"));
    assert_eq!(std::fs::read(taken.join("node")).unwrap(), before);
}

#[test]
fn a_seed_prints_the_same_bytes_twice() {
    let run = || pontoon(&["sim", "--seed", "7", "--groups", "2", "--duration-ms", "500", "--trace"]);
    let (first, second) = (run(), run());
    assert_eq!(code(&first), 0, "{}", out(&first));
    assert!(first.stdout.len() > 1000);
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn the_protocol_trace_of_a_simulation_says_each_message_before_it_is_received() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.jsonl");
    let arguments = ["sim", "--seed", "7", "--groups", "2", "--duration-ms", "500", "--without", "strangers"];
    let output = pontoon(&[&arguments[..], &["--protocol-trace", file.to_str().unwrap()]].concat());
    assert_eq!(code(&output), 0, "{}", out(&output));
    let (mut sent, mut received) = (std::collections::BTreeSet::new(), 0);
    for line in std::fs::read_to_string(&file).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = format!("{} {}", event["group"], event["message"]);
        match event["kind"].as_str().unwrap() {
            "send" => drop(sent.insert(message)),
            "receive" => {
                assert!(sent.contains(&message), "received and never sent: {line}");
                received += 1;
            }
            _ => {}
        }
    }
    assert!(received > 50, "{received}");
}
