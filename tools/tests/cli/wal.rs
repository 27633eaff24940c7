//! `pontoon wal` on real directories: what it prints, its exit codes, and that looking changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pontoon_types::{
    ClusterId, CoreWriteNumber, Creation, Entry, GroupId, HardState, Index, LogId, NodeId, ReplicaId, Term, Write,
};
use pontoon_wal::{Log, LogIdentity, Options};
use serde_json::Value;

use super::{Cluster, code, error_line, out, pontoon};

const BLOCK: u64 = 4096;
const IDENTITY: LogIdentity = LogIdentity { cluster: ClusterId(0xc1), node: NodeId(7), log: 0x1091 };

fn options() -> Options {
    // A header, seven blocks of groups and a footer.
    Options { segment_bytes: 36 << 10, checkpoint_segments: 1000, ..Options::default() }
}

fn commit(log: &mut Log, number: u64, writes: &[(GroupId, Write)]) {
    log.append(CoreWriteNumber(number), writes);
    while log.is_gathered() {
        if let Some(sync) = log.begin_sync().unwrap() {
            // Every file of the directory at once: the descriptor is as good as any.
            log.finish_sync(fdatasync(sync.fd)).unwrap();
        }
    }
}

fn fdatasync(fd: i32) -> std::io::Result<()> {
    std::fs::File::open(format!("/proc/self/fd/{fd}"))?.sync_data()
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry::command(LogId::new(Index(index), Term(3)), Bytes::from(vec![index as u8; bytes]))
}

/// One log with thirty entries of group 2 and one of group 3, in the place where a node has it.
struct OneLog {
    _dir: tempfile::TempDir,
    data: PathBuf,
    log: PathBuf,
}

impl OneLog {
    /// The log is left by a crash, unless it is closed.
    fn new(close: bool) -> OneLog {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("n7");
        let path = data.join("logs").join(format!("{:032x}", IDENTITY.log));
        let creation = |group| {
            let descriptor = Bytes::from(format!("descriptor {group}"));
            (GroupId(group), Creation { replica: ReplicaId(1), descriptor })
        };
        Log::create(&path, IDENTITY, &options(), &[creation(2), creation(3)]).unwrap();
        let (mut log, _) = Log::open(&path, IDENTITY, &options()).unwrap();
        let hard_state = Some(HardState { term: Term(3), vote: Some(ReplicaId(1)) });
        let first = Write { hard_state, entries: vec![entry(1, 300)], ..Write::default() };
        commit(&mut log, 1, &[(GroupId(2), first.clone()), (GroupId(3), first)]);
        for number in 2..=30 {
            commit(&mut log, number, &[(GroupId(2), Write { entries: vec![entry(number, 300)], ..Write::default() })]);
        }
        if close {
            log.close().unwrap();
        }
        OneLog { _dir: dir, data, log: path }
    }

    fn run(&self, command: &str, arguments: &[&str]) -> std::process::Output {
        pontoon(&[&["wal", command, self.data.to_str().unwrap()], arguments].concat())
    }

    fn json(&self, command: &str) -> Value {
        let output = self.run(command, &["--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Flips one bit.
    fn flip(&self, file: &str, at: u64) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(self.log.join(file)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        file.sync_all().unwrap();
    }

    /// The file and the place of the group of records that holds an entry of group 2, by the dump.
    fn place_of(&self, index: u64) -> (String, u64) {
        let output = self.run("dump", &["--group", "2", "--index", &index.to_string(), "--output", "json"]);
        assert_eq!(code(&output), 0, "{output:?}");
        let line: Value = serde_json::from_str(out(&output).lines().next().unwrap()).unwrap();
        (line["file"].as_str().unwrap().to_string(), line["offset"].as_u64().unwrap())
    }

    /// The file that is written to.
    fn newest(&self) -> String {
        self.json("stat")["logs"][0]["segments"].as_array().unwrap().last().unwrap()["file"]
            .as_str()
            .unwrap()
            .to_string()
    }

    /// What the log holds of a group, by opening it. Marks in the order: entries, lost payloads, whether it may vote.
    fn opened(&self, group: u64) -> (Vec<Entry>, Vec<Index>, bool) {
        let (mut log, recovered) = Log::open(&self.log, IDENTITY, &options()).unwrap();
        let loaded = log.load(GroupId(group)).unwrap();
        let may_vote = !recovered.groups[&GroupId(group)].vote_lost;
        log.close().unwrap();
        (loaded.entries, loaded.lost, may_vote)
    }
}

/// Every byte below a directory.
fn image(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(image(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// Runs every command that only looks, and sees that it changes nothing. Returns the exit code of `verify`.
fn looked(log: &OneLog) -> i32 {
    let before = image(&log.data);
    log.run("stat", &[]);
    log.run("dump", &[]);
    log.run("repair", &[]);
    let verified = log.run("verify", &[]);
    assert!(before == image(&log.data), "a look changes no byte");
    assert_eq!(log.json("verify")["exit"], code(&verified), "both outputs say the same");
    if code(&verified) != 0 {
        error_line(&verified);
    }
    code(&verified)
}

#[test]
fn a_good_log_is_fine_whether_it_was_closed_or_not() {
    for close in [true, false] {
        let log = OneLog::new(close);
        assert_eq!(looked(&log), 0, "closed: {close}");
        let stat = &log.json("stat")["logs"][0];
        assert_eq!((&stat["groups"], &stat["entries"], &stat["clean"]), (&2.into(), &31.into(), &close.into()));
        assert_eq!((&stat["node"], &stat["log"]), (&7.into(), &format!("{:032x}", IDENTITY.log).into()));
        assert!(stat["live_bytes"].as_u64().unwrap() >= 31 * 300);
        let text = out(&log.run("stat", &[]));
        assert!(text.contains("slot-001.seg") && text.contains("live bytes"), "{text}");
        let repair = log.run("repair", &["--yes"]);
        assert_eq!(code(&repair), 0, "{repair:?}");
        assert!(out(&repair).contains("nothing to repair"));
    }
}

#[test]
fn the_directory_of_one_log_is_enough_and_any_other_is_refused() {
    let log = OneLog::new(true);
    let verified = pontoon(&["wal", "verify", log.log.to_str().unwrap()]);
    assert_eq!(code(&verified), 0, "{verified:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    for command in ["stat", "dump", "verify", "repair"] {
        for dir in [elsewhere.path(), Path::new("/nowhere/at/all")] {
            let output = pontoon(&["wal", command, dir.to_str().unwrap()]);
            assert_eq!(code(&output), 4, "{command} {output:?}");
            assert!(error_line(&output).contains("neither a data directory nor a log"));
        }
    }
    let renamed = log.log.with_file_name(format!("{:032x}", 5));
    std::fs::rename(&log.log, &renamed).unwrap();
    let output = pontoon(&["wal", "verify", renamed.to_str().unwrap()]);
    assert_eq!(code(&output), 4, "{output:?}");
    assert!(error_line(&output).contains("not the one that it is named after"));
}

#[test]
fn a_dump_shows_runs_entries_and_payloads() {
    let log = OneLog::new(true);
    let lines = out(&log.run("dump", &[]));
    assert!(lines.contains("GROUP_CREATE g2") && lines.contains("HARD_STATE g3 vote r1 term 3"), "{lines}");
    let only = out(&log.run("dump", &["--group", "3"]));
    assert!(only.contains("ENTRIES g3 1 to 1 term 3, 300 bytes") && !only.contains("g2"), "{only}");
    let raw = out(&log.run("dump", &["--group", "2", "--index", "9", "--raw"]));
    assert!(raw.contains("entry 9@3") && raw.contains("intact"), "{raw}");
    assert!(raw.contains(&"09".repeat(300)), "{raw}");
    let json = out(&log.run("dump", &["--output", "json"]));
    let entries: u64 = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["kind"] == "ENTRIES")
        .map(|line| line["records"].as_u64().unwrap())
        .sum();
    assert_eq!(entries, 31);
    assert_eq!(code(&log.run("dump", &["--raw"])), 2, "the payload of which entry?");
}

#[test]
fn a_rotten_payload_is_named_and_left_to_the_peers() {
    let log = OneLog::new(false);
    let (file, at) = log.place_of(4);
    log.flip(&file, at + 112 + 50);
    assert_eq!(looked(&log), 21);
    let json = log.json("verify");
    let damage = &json["logs"][0]["damage"][0];
    assert_eq!(damage["entry"], serde_json::json!({ "group": 2, "index": 4, "term": 3 }), "{json}");
    assert_eq!(damage["file"], file.as_str());
    assert!(json["logs"][0]["refusal"].is_null());
    let repair = log.run("repair", &["--yes"]);
    assert_eq!(code(&repair), 0, "{repair:?}");
    assert!(out(&repair).contains("nothing to repair; 1 payloads are rotten"), "{repair:?}");
    let (entries, lost, may_vote) = log.opened(2);
    assert_eq!((entries.len(), lost.as_slice(), may_vote), (30, &[Index(4)][..], true));
}

#[test]
fn a_directory_with_a_second_copy_costs_nothing() {
    let log = OneLog::new(true);
    let (file, at) = log.place_of(3);
    assert_eq!(file, "slot-001.seg", "closed, and with a footer");
    log.flip(&file, at + 70);
    assert_eq!(looked(&log), 21);
    assert!(out(&log.run("verify", &[])).contains("lost: nothing: there is the footer of the segment"));
    assert_eq!(code(&log.run("repair", &[])), 0);
    assert_eq!(log.opened(2).0.len(), 30);
}

/// Damages, sees the refusal, repairs, and returns what the log then holds of group 2.
fn repaired(log: &OneLog) -> (Vec<Entry>, Vec<Index>, bool) {
    assert_eq!(looked(log), 21);
    assert!(Log::open(&log.log, IDENTITY, &options()).is_err());
    let plan = log.run("repair", &[]);
    assert_eq!(code(&plan), 21, "{plan:?}");
    assert!(out(&plan).contains("needs a repair") && error_line(&plan).contains("--yes"), "{plan:?}");
    let damaged = image(&log.log);
    let done = log.run("repair", &["--yes"]);
    assert_eq!(code(&done), 0, "{done:?}");
    assert!(out(&done).contains("done: the new log is in place"), "{done:?}");
    let kept = log.log.with_file_name(format!("{:032x}.damaged-1", IDENTITY.log));
    let names = |image: BTreeMap<PathBuf, Vec<u8>>, dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        image.into_iter().map(|(path, bytes)| (path.strip_prefix(dir).unwrap().to_path_buf(), bytes)).collect()
    };
    assert!(names(damaged, &log.log) == names(image(&kept), &kept), "the damaged log is kept as it was");
    assert_eq!(code(&log.run("verify", &[])), 0);
    log.opened(2)
}

#[test]
fn what_is_refused_is_repaired_up_to_the_gap() {
    let in_tail = |inside: u64| {
        move |log: &OneLog| {
            let (file, at) = log.place_of(29);
            assert_eq!(file, log.newest());
            log.flip(&file, at + inside);
            29
        }
    };
    let segment_header = |log: &OneLog| {
        let (file, _) = log.place_of(15);
        log.flip(&file, 40);
        31
    };
    let missing_segment = |log: &OneLog| {
        let (file, _) = log.place_of(15);
        let first = (1..=15).find(|index| log.place_of(*index).0 == file).unwrap();
        std::fs::remove_file(log.log.join(file)).unwrap();
        first
    };
    let control_file = |log: &OneLog| {
        log.flip("ctl", 60);
        log.flip("ctl", BLOCK + 60);
        31
    };
    type Damage = Box<dyn Fn(&OneLog) -> u64>;
    let classes: [(&str, Damage); 5] = [
        ("a directory in the tail", Box::new(in_tail(70))),
        ("a header in the tail", Box::new(in_tail(20))),
        ("a segment header", Box::new(segment_header)),
        ("a missing segment", Box::new(missing_segment)),
        ("the control file", Box::new(control_file)),
    ];
    for (what, damage) in classes {
        let log = OneLog::new(true);
        // The first index that is not there any more.
        let first_lost = damage(&log);
        let (entries, lost, may_vote) = repaired(&log);
        let expected: Vec<Entry> = (1..first_lost.min(31)).map(|index| entry(index, 300)).collect();
        assert_eq!(entries, expected, "{what}");
        assert!(lost.is_empty(), "{what}");
        assert_eq!(may_vote, first_lost == 31, "{what}");
    }
}

#[test]
fn a_torn_end_is_told_from_corruption() {
    let log = OneLog::new(false);
    let (file, at) = log.place_of(30);
    log.flip(&file, at + 70);
    assert_eq!(looked(&log), 20);
    assert_eq!(code(&log.run("repair", &[])), 0, "the next start cuts it");
    assert_eq!(log.opened(2).0.len(), 29);
}

#[test]
fn a_newer_format_has_its_own_code() {
    for file in ["ctl", "slot-002.seg"] {
        let log = OneLog::new(true);
        // With its number alone the checksum would still be that of this version, and the number rotten.
        log.flip(file, 8);
        log.flip(file, 40);
        assert_eq!(looked(&log), 22, "{file}");
        let repair = log.run("repair", &["--yes"]);
        assert_eq!(code(&repair), 22, "{repair:?}");
        assert!(error_line(&repair).contains("format version 5"), "{repair:?}");
    }
}

#[test]
fn a_repair_that_was_interrupted_goes_on() {
    let beside = |log: &OneLog, ending: &str| log.log.with_file_name(format!("{:032x}{ending}", IDENTITY.log));
    let damaged = || {
        let log = OneLog::new(true);
        let (file, at) = log.place_of(29);
        log.flip(&file, at + 70);
        log
    };
    // While the new log was being built.
    let log = damaged();
    std::fs::create_dir(beside(&log, ".building")).unwrap();
    std::fs::write(beside(&log, ".building").join("slot-001.seg"), "half").unwrap();
    assert_eq!(repaired(&log).0.len(), 28);
    assert!(!beside(&log, ".building").exists());
    // When the two had changed places, and only the name of the damaged one was missing.
    std::fs::rename(beside(&log, ".damaged-1"), beside(&log, ".repaired")).unwrap();
    assert_eq!(code(&log.run("repair", &[])), 21, "nothing is changed without being asked for");
    assert!(beside(&log, ".repaired").exists());
    let finished = log.run("repair", &["--yes"]);
    assert_eq!(code(&finished), 0, "{finished:?}");
    assert!(beside(&log, ".damaged-1").exists() && !beside(&log, ".repaired").exists());
    assert_eq!(log.opened(2).0.len(), 28);
    // When the new log was complete, and the damaged one still in its place.
    std::fs::rename(&log.log, beside(&log, ".repaired")).unwrap();
    std::fs::rename(beside(&log, ".damaged-1"), &log.log).unwrap();
    let finished = log.run("repair", &["--yes"]);
    assert_eq!(code(&finished), 0, "{finished:?}");
    assert!(out(&finished).contains("an earlier repair is finished"), "{finished:?}");
    assert_eq!(log.opened(2).0.len(), 28);
    assert!(beside(&log, ".damaged-1").exists());
    // On a file system that renames one after the other: the place was empty.
    std::fs::rename(&log.log, beside(&log, ".repaired")).unwrap();
    let finished = log.run("repair", &["--yes"]);
    assert_eq!(code(&finished), 0, "{finished:?}");
    assert_eq!(log.opened(2).0.len(), 28);
}

#[test]
fn case_54_a_running_node_is_looked_at_and_not_repaired() {
    let cluster = Cluster::start();
    let dir = cluster.dir.path().join("n1");
    let dir = dir.to_str().unwrap();
    let writer = std::thread::spawn({
        let endpoints = cluster.endpoints.clone();
        move || {
            for number in 0..60 {
                let put = pontoon(&["put", "-e", &endpoints, &format!("key-{number}"), "value"]);
                assert_eq!(code(&put), 0, "{put:?}");
            }
        }
    });
    let mut looks = 0;
    while !writer.is_finished() || looks == 0 {
        let verified = pontoon(&["wal", "verify", dir]);
        assert_eq!(code(&verified), 0, "{verified:?}");
        for command in ["stat", "dump"] {
            let output = pontoon(&["wal", command, dir]);
            assert_eq!(code(&output), 0, "{command}: {output:?}");
        }
        looks += 1;
    }
    writer.join().unwrap();
    let repair = pontoon(&["wal", "repair", dir, "--yes"]);
    assert_eq!(code(&repair), 4, "{repair:?}");
    assert!(error_line(&repair).contains("open in another process"));
    assert_eq!(code(&cluster.run("put", &["after", "all"])), 0, "the node goes on");
}

#[test]
fn a_log_that_the_node_lists_and_nobody_finds_is_named_and_one_that_it_does_not_list_is_mentioned() {
    let cluster = Cluster::start();
    let dir = cluster.dir.path().join("n1");
    let logs = dir.join("logs");
    let name = std::fs::read_dir(&logs).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    drop(cluster.nodes);
    let dir = dir.to_str().unwrap();
    let json = |verified: &std::process::Output| serde_json::from_slice::<Value>(&verified.stdout).unwrap();
    assert_eq!(code(&pontoon(&["wal", "verify", dir])), 0);

    // A log of nobody, even a damaged one, is no fault of the node's.
    let stray = format!("{:032x}", 7);
    std::fs::create_dir(logs.join(&stray)).unwrap();
    std::fs::write(logs.join(&stray).join("ctl"), "something else").unwrap();
    let verified = pontoon(&["wal", "verify", dir]);
    assert_eq!(code(&verified), 0, "{verified:?}");
    assert!(out(&verified).contains("the node does not list this log and never opens it"), "{verified:?}");
    let verified = pontoon(&["wal", "verify", dir, "--output", "json"]);
    assert_eq!((code(&verified), &json(&verified)["unlisted"]), (0, &serde_json::json!([stray])));

    // With and without another one beside it.
    std::fs::rename(logs.join(&name), cluster.dir.path().join("elsewhere")).unwrap();
    for _ in 0..2 {
        let verified = pontoon(&["wal", "verify", dir]);
        assert_eq!(code(&verified), 21, "{verified:?}");
        assert!(error_line(&verified).contains(&format!("log {name} is missing")), "{verified:?}");
        let verified = pontoon(&["wal", "verify", dir, "--output", "json"]);
        assert_eq!(json(&verified)["logs"][0]["log"], name.as_str());
        let _ = std::fs::remove_dir_all(logs.join(&stray));
    }
    std::fs::rename(cluster.dir.path().join("elsewhere"), logs.join(&name)).unwrap();
    assert_eq!(code(&pontoon(&["wal", "verify", dir])), 0);
}
