//! Each way in which a node does not start: one clear line, the right exit code, nothing changed.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pontoon::{InitPlan, NodeId, init};

use crate::support::{contents, directories, free_address, pontoond, run, small_log};

/// Runs `pontoond` on a directory and expects it to fail with this code and one line that has all these parts.
#[track_caller]
fn refused(arguments: &[&str], dir: &Path, code: i32, parts: &[&str]) {
    expect(run(pontoond(arguments).arg("--data-dir").arg(dir)), code, parts);
}

#[track_caller]
fn expect((code, stderr): (i32, String), expected_code: i32, parts: &[&str]) {
    assert_eq!(code, expected_code, "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "one line says what is wrong: {stderr}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is missing in {:?}", errors[0]);
    }
}

#[test]
fn a_directory_that_another_process_has() {
    let nodes = directories(1, 1, 1);
    let owner = nodes.start(0);
    refused(&["--listen", "127.0.0.1:0"], nodes.dir(0), 4, &["in use by another process", "stop that process"]);
    assert_eq!(owner.terminate(), Some(0));
}

#[test]
fn a_directory_that_does_not_exist() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("absent");
    refused(&[], &dir, 4, &["does not exist", "pontoon init"]);
    assert!(!dir.exists());
}

#[test]
fn a_directory_that_was_not_initialised() {
    let root = tempfile::tempdir().unwrap();
    refused(&[], root.path(), 4, &["is not the data directory of a node", "pontoon init"]);
    assert!(contents(root.path()).is_empty());
}

#[test]
fn a_file_instead_of_a_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    refused(&[], file.path(), 4, &["is not a directory"]);
}

#[test]
fn a_directory_that_may_not_be_read() {
    let nodes = directories(1, 1, 1);
    // Root may read everything, so somebody else tries, with a copy of the binary in a place that is open to all.
    let public = tempfile::tempdir().unwrap();
    std::fs::set_permissions(public.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = public.path().join("pontoond");
    std::fs::copy(env!("CARGO_BIN_EXE_pontoond"), &binary).unwrap();
    std::fs::set_permissions(nodes.root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(nodes.dir(0), std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(&binary);
    command.arg("--data-dir").arg(nodes.dir(0));
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let outcome = run(&mut command);
    std::fs::set_permissions(nodes.dir(0), std::fs::Permissions::from_mode(0o755)).unwrap();
    expect(outcome, 4, &["Permission denied", "check the path and its permissions"]);
}

#[test]
fn a_directory_of_another_node_or_cluster_than_was_asked_for() {
    let nodes = directories(1, 1, 1);
    let before = contents(nodes.dir(0));
    refused(&["--node", "2"], nodes.dir(0), 4, &["belongs to node n1, not to node n2"]);
    refused(&["--cluster", "ab"], nodes.dir(0), 4, &["belongs to cluster", "not to cluster"]);
    assert_eq!(contents(nodes.dir(0)), before);
}

#[test]
fn a_log_that_is_missing() {
    let nodes = directories(1, 1, 1);
    std::fs::rename(nodes.dir(0).join("logs"), nodes.dir(0).join("elsewhere")).unwrap();
    let before = contents(nodes.dir(0));
    refused(&[], nodes.dir(0), 4, &["is missing", "restore it"]);
    assert_eq!(contents(nodes.dir(0)), before);
}

#[test]
fn a_log_that_is_another_nodes() {
    let nodes = directories(2, 1, 1);
    let log_of = |node: usize| {
        let mut logs = std::fs::read_dir(nodes.dir(node).join("logs")).unwrap();
        logs.next().unwrap().unwrap().path()
    };
    let (own, other) = (log_of(0), log_of(1));
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(other, own).unwrap();
    let before = contents(nodes.dir(0));
    refused(&[], nodes.dir(0), 4, &["core c0", "belongs to another"]);
    assert_eq!(contents(nodes.dir(0)), before);
}

#[test]
fn a_node_file_that_is_damaged() {
    let nodes = directories(1, 1, 1);
    std::fs::write(nodes.dir(0).join("node"), vec![0xaa; 128 << 10]).unwrap();
    refused(&[], nodes.dir(0), 4, &["is unreadable"]);
}

#[test]
fn a_port_in_use() {
    let nodes = directories(1, 1, 1);
    let _holder = TcpListener::bind(nodes.address(0)).unwrap();
    let before = contents(nodes.dir(0));
    let started = Instant::now();
    refused(&[], nodes.dir(0), 3, &["is in use", "--listen"]);
    assert!(started.elapsed() >= Duration::from_secs(2), "a predecessor gets two seconds to go away");
    assert_eq!(contents(nodes.dir(0)), before);
}

#[test]
fn an_address_of_another_machine() {
    let nodes = directories(1, 1, 1);
    refused(&["--listen", "192.0.2.1:7400"], nodes.dir(0), 3, &["cannot listen at 192.0.2.1:7400"]);
}

#[test]
fn too_little_memory_may_be_locked() {
    let nodes = directories(1, 1, 1);
    let before = contents(nodes.dir(0));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 256 && exec \"$0\" --data-dir \"$1\"", env!("CARGO_BIN_EXE_pontoond")]);
    command.arg(nodes.dir(0));
    expect(run(&mut command), 3, &["too little memory may be locked", "the limit is 262144", "ulimit -l"]);
    assert_eq!(contents(nodes.dir(0)), before);
}

#[test]
fn an_unknown_flag() {
    let (code, stderr) = run(&mut pontoond(&["--data-dirs", "x"]));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--data-dirs"), "{stderr}");
}

#[test]
fn no_directory_named() {
    expect(run(&mut pontoond(&[])), 2, &["no data directory", "--data-dir"]);
}

#[test]
fn a_configuration_file_with_an_unknown_key() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("pontoon.toml");
    std::fs::write(&file, "data_dir = \"x\"\nmax_log_byte = 5\n").unwrap();
    expect(run(pontoond(&["--config"]).arg(&file)), 2, &["pontoon.toml", "max_log_byte"]);
}

#[test]
fn a_configuration_file_that_is_not_there() {
    expect(run(&mut pontoond(&["--config", "/nonexistent.toml"])), 2, &["cannot read", "/nonexistent.toml"]);
}

#[test]
fn a_setting_outside_its_bounds() {
    let nodes = directories(1, 1, 1);
    refused(&["--max-log-bytes", "4096"], nodes.dir(0), 2, &["max_log_bytes = 4096", "at least"]);
}

#[test]
fn an_error_as_json_when_asked_for() {
    let (code, stderr) = run(&mut pontoond(&["--log-format", "json", "--data-dir", "/nonexistent"]));
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.starts_with('{') && stderr.contains("\"level\":\"ERROR\""), "{stderr}");
}

#[test]
fn initialisation_refuses_a_bad_plan_and_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (dir, used) = (root.path().join("n1"), root.path().join("n2"));
    std::fs::create_dir(&used).unwrap();
    std::fs::write(used.join("something"), b"kept").unwrap();
    let (address, other) = (free_address(), free_address());
    let plan = |nodes, ranges, cores| InitPlan { nodes, ranges, cores, log: small_log() };
    let one = vec![(NodeId(1), dir.clone(), address)];
    let cases = [
        (plan(vec![], 1, 1), 2, "1 to 9 nodes"),
        (plan(one.clone(), 0, 1), 2, "1 to 131072 ranges"),
        (plan(one.clone(), 131_073, 1), 2, "1 to 131072 ranges"),
        (plan(one.clone(), 1, 0), 2, "1 to 256 cores"),
        (plan(vec![(NodeId(0), dir.clone(), address)], 1, 1), 2, "start at 1"),
        (plan(vec![(NodeId(1), dir.clone(), "0.0.0.0:7400".parse().unwrap())], 1, 1), 2, "0.0.0.0:7400"),
        (plan(vec![one[0].clone(), (NodeId(1), used.clone(), other)], 1, 1), 2, "n1 is named twice"),
        (plan(vec![one[0].clone(), (NodeId(2), dir.clone(), other)], 1, 1), 2, "is named twice"),
        (plan(vec![one[0].clone(), (NodeId(2), root.path().join("n3"), address)], 1, 1), 2, "is named twice"),
        (plan(vec![one[0].clone(), (NodeId(2), used.clone(), other)], 1, 1), 4, "is not empty"),
    ];
    for (plan, code, part) in cases {
        let error = init(&plan).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(part), "{part:?} is missing in {error}");
        assert!(!dir.exists(), "{error}");
    }
    assert_eq!(std::fs::read_dir(&used).unwrap().count(), 1);
}
