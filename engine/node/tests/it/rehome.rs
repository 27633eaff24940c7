//! A node that starts with another number of cores: all that its groups are is in the new logs, whatever came between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pontoon::identity::DataDir;
use pontoon::rehome::{Rehoming, rehome};
use pontoon::{DataDirError, LogOptions, Node, NodeConfig, StartError};
use pontoon_client::{Client, ClientError, ClientOptions};
use pontoon_types::{
    Compaction, CoreId, CoreWriteNumber, Creation, Entry, GroupId, HardState, Incarnation, Index, LogId, ReplicaId,
    Term, Write,
};
use pontoon_wal::{Log, LogIdentity, Recovered};

use crate::support::{Directories, PATIENCE, Process, contents, directories, pontoond, run, small_log};

/// What one group is.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    replica: ReplicaId,
    descriptor: Bytes,
    hard_state: HardState,
    compacted: LogId,
    entries: Vec<Entry>,
}

/// What a node has in all its logs together.
#[derive(Debug, Default, PartialEq)]
pub struct State {
    groups: BTreeMap<GroupId, Image>,
    tombstones: BTreeMap<GroupId, ReplicaId>,
}

/// Opens all listed logs, one after the other, shows each, and stops it cleanly.
fn with_logs(dir: &Path, mut show: impl FnMut(&mut Log, Recovered)) {
    let data_dir = DataDir::open(dir).unwrap();
    let identity = data_dir.identity();
    for log in &identity.logs {
        let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: *log };
        let (mut log, recovered) = Log::open(&data_dir.log_dir(*log), whose, &small_log()).unwrap();
        show(&mut log, recovered);
        log.close().unwrap();
    }
}

/// What a node has, and the incarnations of its logs.
pub fn look(dir: &Path) -> (State, Vec<Incarnation>) {
    let (mut state, mut incarnations) = (State::default(), Vec::new());
    with_logs(dir, |log, recovered| {
        incarnations.push(log.incarnation());
        state.tombstones.extend(recovered.tombstones);
        for (group, kept) in recovered.groups {
            let loaded = log.load(group).unwrap();
            assert_eq!(loaded.lost, []);
            assert_eq!(loaded.entries.last().map_or(kept.compacted, |entry| entry.id), kept.last);
            let image = Image {
                replica: kept.replica,
                descriptor: kept.descriptor,
                hard_state: kept.hard_state,
                compacted: kept.compacted,
                entries: loaded.entries,
            };
            assert_eq!(state.groups.insert(group, image), None, "{group} stands in one log");
        }
    });
    (state, incarnations)
}

fn entries(group: GroupId, indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    let payload = |index| Bytes::from(format!("{group} {index} {}", "x".repeat((index * 37 % 900) as usize)));
    indexes.map(|index| Entry::command(LogId::new(Index(index), Term(term)), payload(index))).collect()
}

fn appended(entries: Vec<Entry>) -> Write {
    Write { entries, ..Write::default() }
}

fn voted(term: u64, vote: Option<u64>) -> Write {
    Write { hard_state: Some(HardState { term: Term(term), vote: vote.map(ReplicaId) }), ..Write::default() }
}

/// The life of a group, by its number, so that each part of a write is there.
fn life(group: GroupId) -> Vec<Write> {
    let compact = |index, term, reset| {
        let to = LogId::new(Index(index), Term(term));
        Write { compact: Some(Compaction { to, reset }), ..Write::default() }
    };
    let remove = |replica| Write { remove: Some(ReplicaId(replica)), ..Write::default() };
    let create = |replica| {
        let creation = Creation { replica: ReplicaId(replica), descriptor: Bytes::from_static(b"a second life") };
        Write { create: Some(Box::new(creation)), ..Write::default() }
    };
    match group.0 % 8 {
        // Voted, and has nothing.
        0 => vec![voted(7, Some(3))],
        // A term without a vote, an overwritten end.
        1 => vec![
            voted(3, None),
            appended(entries(group, 1..=300, 2)),
            Write { truncate_from: Some(Index(200)), entries: entries(group, 200..=210, 3), ..Write::default() },
        ],
        // Compacted behind a checkpoint.
        2 => vec![voted(4, Some(1)), appended(entries(group, 1..=500, 4)), compact(123, 4, false)],
        // Behind a snapshot, with and without entries.
        3 => vec![voted(9, Some(2)), compact(1000, 8, true), appended(entries(group, 1001..=1200, 9))],
        4 => vec![voted(9, None), appended(entries(group, 1..=3, 1)), compact(77, 6, true)],
        // One entry that is larger than a batch.
        5 => {
            vec![appended(vec![Entry::command(LogId::new(Index(1), Term(1)), Bytes::from(vec![5; 700 << 10]))])]
        }
        // Removed for good.
        6 => vec![appended(entries(group, 1..=20, 1)), remove(44)],
        // Removed and back with a higher replica.
        _ => vec![appended(entries(group, 1..=20, 1)), remove(4), create(6), appended(entries(group, 1..=5, 2))],
    }
}

/// A node with sixteen groups that have lived.
pub fn lived(cores: u16) -> Directories {
    let nodes = directories(1, 16, cores);
    with_logs(nodes.dir(0), |log, recovered| {
        let lives = recovered.groups.keys().flat_map(|group| life(*group).into_iter().map(|write| (*group, write)));
        for (number, write) in (1..).zip(lives) {
            log.append(CoreWriteNumber(number), &[write]);
        }
    });
    nodes
}

pub fn logs_of(dir: &Path) -> Vec<u128> {
    DataDir::open(dir).unwrap().identity().logs.clone()
}

/// The names in the directory of the logs.
pub fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir.join("logs")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub fn listed(dir: &Path) -> BTreeSet<String> {
    logs_of(dir).iter().map(|log| format!("{log:032x}")).collect()
}

/// What a start does with the logs, in its order.
pub fn start(dir: &Path, cores: u16) -> Result<(), StartError> {
    let mut data_dir = DataDir::open(dir)?;
    rehome(&mut data_dir, &small_log(), cores)?;
    data_dir.begin_incarnation(std::time::Duration::ZERO)?;
    Ok(data_dir.remove_retired()?)
}

#[test]
fn four_cores_then_two_then_three_and_everything_is_there() {
    let nodes = lived(4);
    let dir = nodes.dir(0);
    let (before, mut incarnations) = look(dir);
    assert_eq!(before.groups.len() + before.tombstones.len(), 16 + 2, "{before:?}");
    assert!(before.groups.values().any(|image| image.compacted.index > Index(0) && image.entries.len() > 100));
    let mut ever = listed(dir);
    for cores in [2, 3, 1, 8] {
        start(dir, cores).unwrap();
        let now = listed(dir);
        assert_eq!(now.len(), usize::from(cores));
        assert!(ever.is_disjoint(&now), "a name was used again");
        assert_eq!(names(dir), now, "the old directories are gone");
        ever.extend(now);
        let (after, newer) = look(dir);
        assert!(after == before, "{cores} cores");
        assert!(newer.iter().min() > incarnations.iter().max(), "{incarnations:?} then {newer:?}");
        incarnations = newer;
    }
}

#[test]
fn the_same_number_of_cores_moves_nothing() {
    let nodes = lived(2);
    let before = contents(nodes.dir(0));
    let mut data_dir = DataDir::open(nodes.dir(0)).unwrap();
    rehome(&mut data_dir, &small_log(), 2).unwrap();
    drop(data_dir);
    assert_eq!(contents(nodes.dir(0)), before);
}

/// Goes so many steps of a move from four cores to two and crashes: begin, two logs, commit, then the start.
pub fn crash_after(steps: u32, dir: &Path) {
    let mut data_dir = DataDir::open(dir).unwrap();
    let mut rehoming = Rehoming::begin(&mut data_dir, &small_log(), 2).unwrap();
    for _ in 1..steps.min(3) {
        assert!(rehoming.fill_next().unwrap());
    }
    if steps == 2 {
        // The log that is being made when the crash comes.
        let began = announced(dir)[1].clone();
        std::fs::create_dir(&began).unwrap();
        std::fs::write(began.join("slot-001.new"), vec![0; 8192]).unwrap();
    }
    if steps >= 4 {
        rehoming.commit().unwrap();
    }
    if steps >= 5 {
        data_dir.begin_incarnation(std::time::Duration::ZERO).unwrap();
    }
    if steps >= 6 {
        // Removal has begun.
        let old = data_dir.identity().retired[0];
        std::fs::remove_dir_all(data_dir.log_dir(old)).unwrap();
    }
    if steps >= 7 {
        data_dir.remove_retired().unwrap();
    }
}

/// The directories of the logs that are named as retired, while somebody else holds the lock.
fn announced(dir: &Path) -> Vec<PathBuf> {
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join("node"), elsewhere.path().join("node")).unwrap();
    let copy = DataDir::open(elsewhere.path()).unwrap();
    copy.identity().retired.iter().map(|log| dir.join("logs").join(format!("{log:032x}"))).collect()
}

#[test]
fn a_crash_after_any_step_leaves_the_old_logs_or_the_new_ones() {
    for steps in 1..=7 {
        for next in [4, 2, 3] {
            let nodes = lived(4);
            let dir = nodes.dir(0);
            let (before, incarnations) = look(dir);
            let old = logs_of(dir);
            crash_after(steps, dir);
            let logs = logs_of(dir);
            if steps < 4 {
                assert_eq!(logs, old, "after {steps} steps nothing has moved");
            } else {
                assert!(logs.len() == 2 && logs.iter().all(|log| !old.contains(log)), "after {steps} steps");
            }
            assert!(look(dir).0 == before, "after {steps} steps");
            start(dir, next).unwrap();
            assert_eq!(names(dir), listed(dir), "after {steps} steps and a start with {next} cores");
            let (after, newer) = look(dir);
            assert!(after == before, "after {steps} steps and a start with {next} cores");
            assert_eq!(newer.len(), usize::from(next));
            assert!(newer.iter().min() > incarnations.iter().max(), "{incarnations:?} then {newer:?}");
        }
    }
}

#[test]
fn a_slot_of_the_node_file_that_rots_does_not_bring_the_old_logs_back() {
    for slot in 0..2 {
        let nodes = lived(4);
        let dir = nodes.dir(0);
        crash_after(4, dir);
        let logs = logs_of(dir);
        let mut bytes = std::fs::read(dir.join("node")).unwrap();
        bytes[(slot * (64 << 10)) + 50] ^= 1;
        std::fs::write(dir.join("node"), bytes).unwrap();
        assert_eq!(logs_of(dir), logs, "slot {slot}");
    }
}

#[test]
fn a_listed_log_that_is_missing_refuses_the_start() {
    let nodes = lived(4);
    let dir = nodes.dir(0);
    let lost = dir.join("logs").join(format!("{:032x}", logs_of(dir)[2]));
    std::fs::rename(&lost, dir.join("elsewhere")).unwrap();
    let before = contents(dir);
    let mut data_dir = DataDir::open(dir).unwrap();
    let error = rehome(&mut data_dir, &small_log(), 2).unwrap_err();
    assert!(matches!(&error, StartError::DataDir(DataDirError::MissingLog { path }) if *path == lost), "{error}");
    drop(data_dir);
    assert_eq!(contents(dir), before);
}

#[test]
fn a_listed_log_that_is_refused_refuses_the_start() {
    let nodes = lived(4);
    let dir = nodes.dir(0);
    let (names_before, logs_before) = (names(dir), logs_of(dir));
    let control = dir.join("logs").join(format!("{:032x}", logs_before[2])).join("ctl");
    let whole = std::fs::read(&control).unwrap();
    std::fs::write(&control, vec![0xaa; whole.len()]).unwrap();
    let error = start(dir, 2).unwrap_err();
    assert!(matches!(&error, StartError::Log { core: CoreId(2), .. }), "{error}");
    assert_eq!((names(dir), logs_of(dir)), (names_before, logs_before));
    std::fs::write(&control, whole).unwrap();
    start(dir, 2).unwrap();
}

#[test]
fn a_new_log_that_is_lost_is_missed_although_the_old_ones_are_still_there() {
    let nodes = lived(4);
    let dir = nodes.dir(0);
    crash_after(4, dir);
    std::fs::remove_dir_all(dir.join("logs").join(format!("{:032x}", logs_of(dir)[1]))).unwrap();
    let before = contents(dir);
    for cores in [None, Some(4)] {
        let error = Node::start(NodeConfig { cores, ..NodeConfig::new(dir) }).unwrap_err();
        assert!(matches!(error, StartError::DataDir(DataDirError::MissingLog { .. })), "{error}");
    }
    assert_eq!(contents(dir), before);
}

#[test]
fn an_old_node_file_cannot_order_the_removal_of_logs_that_count() {
    let nodes = lived(4);
    let dir = nodes.dir(0);
    let mut data_dir = DataDir::open(dir).unwrap();
    let mut rehoming = Rehoming::begin(&mut data_dir, &small_log(), 2).unwrap();
    let backup = std::fs::read(dir.join("node")).unwrap();
    while rehoming.fill_next().unwrap() {}
    rehoming.commit().unwrap();
    data_dir.remove_retired().unwrap();
    drop(data_dir);
    std::fs::write(dir.join("node"), backup).unwrap();
    let before = contents(dir);
    for cores in [None, Some(2)] {
        let error = Node::start(NodeConfig { cores, ..NodeConfig::new(dir) }).unwrap_err();
        assert!(matches!(error, StartError::DataDir(DataDirError::MissingLog { .. })), "{error}");
    }
    assert_eq!(contents(dir), before, "the logs that it takes for unfinished ones are still there");
}

#[test]
fn directories_that_are_not_the_nodes_own_leftovers_stay() {
    let nodes = lived(4);
    let dir = nodes.dir(0);
    let set_aside = format!("{:032x}.damaged-1", logs_of(dir)[0]);
    let foreign = [set_aside.as_str(), "00000000000000000000000000001234", "notes"];
    for name in foreign {
        std::fs::create_dir(dir.join("logs").join(name)).unwrap();
        std::fs::write(dir.join("logs").join(name).join("ctl"), name).unwrap();
    }
    crash_after(3, dir);
    start(dir, 3).unwrap();
    for name in foreign {
        assert_eq!(std::fs::read(dir.join("logs").join(name).join("ctl")).unwrap(), name.as_bytes());
    }
    assert_eq!(names(dir).len(), 3 + foreign.len());
}

#[test]
fn a_rotten_payload_stays_where_its_peers_can_repair_it() {
    // Its peers do not run, so nothing of what follows is committed.
    let nodes = directories(3, 2, 2);
    let dir = nodes.dir(0);
    with_logs(dir, |log, recovered| {
        let group = *recovered.groups.keys().next().unwrap();
        let rotten = Entry::command(LogId::new(Index(1), Term(1)), Bytes::from_static(b"to be found on the disk"));
        let write = Write { entries: vec![rotten], ..voted(1, None) };
        log.append(CoreWriteNumber(1), &[(group, write)]);
        // So much behind it that its segment is closed.
        for number in 2..=40 {
            let payload = Bytes::from(vec![number as u8; 60 << 10]);
            let entry = Entry::command(LogId::new(Index(number), Term(1)), payload);
            log.append(CoreWriteNumber(number), &[(group, appended(vec![entry]))]);
        }
    });
    let log = dir.join("logs").join(format!("{:032x}", logs_of(dir)[0]));
    let flipped = contents(&log).into_iter().find_map(|(path, mut bytes)| {
        let at = bytes.windows(12).position(|window| window == b"to be found ")?;
        bytes[at] ^= 1;
        Some(std::fs::write(path, bytes))
    });
    flipped.expect("the payload is in one of the segments").unwrap();

    let (names_before, logs_before) = (names(dir), logs_of(dir));
    let config = |cores| NodeConfig { cores, log: small_log(), ..NodeConfig::new(dir) };
    let error = Node::start(config(Some(1))).unwrap_err();
    assert!(matches!(error, StartError::Rehome { have: 2, wanted: 1, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("entry 1@1") && text.contains("is rotten") && text.contains("start with 2 cores"), "{text}");
    assert_eq!((names(dir), logs_of(dir)), (names_before, logs_before));
    assert!(DataDir::open(dir).unwrap().identity().retired.is_empty());
    Node::start(config(None)).unwrap().stop().unwrap();
}

#[test]
fn groups_that_do_not_fit_into_fewer_logs_stay() {
    let nodes = directories(1, 4, 4);
    let dir = nodes.dir(0);
    with_logs(dir, |log, recovered| {
        let group = *recovered.groups.keys().next().unwrap();
        for number in 1..=40 {
            let payload = Bytes::from(vec![number as u8; 60 << 10]);
            let entry = Entry::command(LogId::new(Index(number), Term(1)), payload);
            log.append(CoreWriteNumber(number), &[(group, appended(vec![entry]))]);
        }
    });
    let (before, _) = look(dir);
    let (names_before, logs_before) = (names(dir), logs_of(dir));
    let mut data_dir = DataDir::open(dir).unwrap();
    let options = LogOptions { max_log_bytes: 8 << 20, ..small_log() };
    let error = rehome(&mut data_dir, &options, 1).unwrap_err();
    drop(data_dir);
    assert!(matches!(error, StartError::Rehome { have: 4, wanted: 1, .. }), "{error}");
    assert!(error.to_string().contains("max_log_bytes = 8388608; raise it"), "{error}");
    assert_eq!((names(dir), logs_of(dir)), (names_before, logs_before));
    assert!(look(dir).0 == before);
    start(dir, 1).unwrap();
    assert!(look(dir).0 == before);
}

#[test]
fn a_number_of_cores_that_no_node_has() {
    let nodes = directories(1, 1, 1);
    for cores in ["0", "257"] {
        let (code, stderr) = run(pontoond(&["--cores", cores, "--data-dir"]).arg(nodes.dir(0)));
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(&format!("cores = {cores}")) && stderr.contains("1 to 256"), "{stderr}");
    }
}

/// A key of range `number` of 256.
fn key(number: u32) -> Vec<u8> {
    [&((number * 257) as u16).to_be_bytes()[..], format!("key{number}").as_bytes()].concat()
}

/// Puts until it is acknowledged. What is unknown may have happened, so it is put again.
fn put(client: &mut Client, key: &[u8], value: &str) {
    let give_up = Instant::now() + PATIENCE;
    while let Err(error) = client.put(key, value) {
        assert!(Instant::now() < give_up, "{error}");
        assert!(!matches!(error, ClientError::TooLarge { .. } | ClientError::Refused { .. }), "{error}");
    }
}

fn client(nodes: &Directories) -> Client {
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    Client::connect(&nodes.addresses(), options).unwrap()
}

fn start_all(nodes: &Directories, cores: &[&str]) -> Vec<Process> {
    (0..nodes.nodes.len()).map(|node| Process::start(cores, nodes.dir(node))).collect()
}

#[test]
fn three_nodes_stopped_and_started_with_other_numbers_of_cores_serve_all_that_was_written() {
    let nodes = directories(3, 16, 2);
    let mut processes = start_all(&nodes, &[]);
    let mut written = BTreeMap::new();
    for (round, cores) in [(0, None), (1, Some("3")), (2, Some("1")), (3, None), (4, Some("2"))] {
        if round > 0 {
            // Every other time as by a crash.
            for process in processes.drain(..) {
                if round % 2 == 0 { process.kill() } else { assert_eq!(process.terminate(), Some(0)) }
            }
            processes = start_all(&nodes, &cores.map_or(vec![], |cores| vec!["--cores", cores]));
        }
        let mut client = client(&nodes);
        for (key, value) in &written {
            let found = client.get(key).unwrap();
            assert_eq!(found.as_deref(), Some(String::as_bytes(value)), "round {round}");
        }
        for number in 0..48 {
            let (key, value) = (key(number * 5 + round), format!("round {round}"));
            put(&mut client, &key, &value);
            written.insert(key, value);
        }
    }
    let logs: Vec<usize> = (0..3).map(|node| names(nodes.dir(node)).len()).collect();
    assert_eq!(logs, [2, 2, 2]);
}

#[test]
fn a_node_with_another_number_of_cores_than_its_peers_is_told_what_to_do() {
    let nodes = directories(3, 4, 1);
    let mut processes = start_all(&nodes, &[]);
    let mut client = client(&nodes);
    put(&mut client, &key(1), "value");
    assert_eq!(processes.remove(2).terminate(), Some(0));
    let other = Process::start(&["--cores", "2"], nodes.dir(2));
    let give_up = Instant::now() + PATIENCE;
    let says = |process: &Process| process.lines_with("another number of cores than the caller");
    while says(&other).is_empty() {
        assert!(Instant::now() < give_up, "the peers do not say why they refuse");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(says(&other)[0].contains("stop all of them and start all of them with one number"), "{:?}", says(&other));
    assert_eq!(other.terminate(), Some(0));
    let back = Process::start(&["--cores", "1"], nodes.dir(2));
    assert_eq!(client.get(key(1)).unwrap().as_deref(), Some(&b"value"[..]));
    drop(back);
}

/// Starts a node with another number of cores and kills it, a little later each time, until one start has moved the
/// groups. Counts the kills that came in the middle: while new logs were made, and before the old ones were removed.
fn kill_while_moving(dir: &Path, met: &mut (u32, u32)) {
    let before = logs_of(dir);
    let cores = (before.len() % 3 + 1).to_string();
    for attempt in 0.. {
        let mut child = pontoond(&["--listen", "127.0.0.1:0", "--cores", &cores, "--data-dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 * attempt));
        child.kill().unwrap();
        child.wait().unwrap();
        let identity = DataDir::open(dir).unwrap().identity().clone();
        match (identity.logs == before, identity.retired.is_empty()) {
            (true, true) => {}
            (true, false) => met.0 += 1,
            (false, false) => met.1 += 1,
            (false, true) => return,
        }
    }
}

#[test]
fn killed_again_and_again_while_its_groups_move_it_loses_nothing() {
    let nodes = directories(1, 8, 2);
    let dir = nodes.dir(0);
    let mut written = BTreeMap::new();
    let mut met = (0, 0);
    for round in 0..3 {
        let process = nodes.start(0);
        let mut client = client(&nodes);
        for (key, value) in &written {
            assert_eq!(client.get(key).unwrap().as_deref(), Some(String::as_bytes(value)), "round {round}");
        }
        for number in 0..32 {
            let (key, value) = (key(number * 8 + round), format!("{round} {}", "v".repeat(3000)));
            put(&mut client, &key, &value);
            written.insert(key, value);
        }
        process.kill();
        kill_while_moving(dir, &mut met);
        assert_eq!(names(dir), listed(dir), "round {round}");
    }
    assert!(met.0 > 0, "no kill came while new logs were made");
    let process = nodes.start(0);
    let mut client = client(&nodes);
    for (key, value) in &written {
        assert_eq!(client.get(key).unwrap().as_deref(), Some(String::as_bytes(value)));
    }
    assert_eq!(process.terminate(), Some(0));
    println!("killed while new logs were made: {}, before the old ones were removed: {}", met.0, met.1);
}
