//! Real nodes that lose a quorum for good, with real files.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pontoon::quorum_loss::plan::{Plan, Verdict};
use pontoon::quorum_loss::{RecoverError, Survivors, confirm, undo};
use pontoon::{DataDirError, LogOptions, Node, NodeConfig, StartError};
use pontoon_client::{Client, ClientOptions};
use pontoon_types::limits::RECOVERY_JUMP;
use pontoon_types::{CoreId, NodeId, Term};
use pontoon_wire::client::{GroupRole, GroupStatus};

use crate::checkpoints::{connect, overwrite, status, tiny_log, until, verify};
use crate::support::{Directories, PATIENCE, Process, contents, directories, directories_with, small_log};

pub fn paths(nodes: &Directories, of: &[usize]) -> Vec<PathBuf> {
    of.iter().map(|node| nodes.dir(*node).to_path_buf()).collect()
}

/// Everything in a directory but the lock.
pub fn image(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    contents(dir).into_iter().filter(|(path, _)| !path.ends_with("LOCK")).collect()
}

#[track_caller]
pub fn assert_unchanged(dir: &Path, before: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let now = image(dir);
    let names = |of: &BTreeMap<PathBuf, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(before), "{what}");
    let changed: Vec<_> = now.iter().filter(|(path, bytes)| before[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{what}: {changed:?}");
}

pub fn start(nodes: &Directories, node: usize, log: LogOptions) -> Node {
    Node::start(NodeConfig { log, pin: false, ..NodeConfig::new(nodes.dir(node)) }).unwrap()
}

/// Plans, sees that nothing is changed by it, and recovers.
pub fn recover(nodes: &Directories, survivors: &[usize]) -> Plan {
    let before: Vec<_> = survivors.iter().map(|node| image(nodes.dir(*node))).collect();
    let opened = Survivors::open(&paths(nodes, survivors)).unwrap();
    let plan = opened.plan();
    for (node, before) in survivors.iter().zip(&before) {
        assert_unchanged(nodes.dir(*node), before, "a plan changes nothing");
    }
    opened.apply(&plan, "the plan").unwrap();
    plan
}

pub fn key(number: u64) -> Vec<u8> {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec()
}

pub fn value(number: u64) -> Vec<u8> {
    format!("value {number}").into_bytes()
}

pub fn patient() -> ClientOptions {
    ClientOptions { timeout: PATIENCE, ..ClientOptions::default() }
}

/// Writes keys until a put fails. Returns the first that was not acknowledged.
fn write_until_it_fails(addresses: Vec<std::net::SocketAddr>, first: u64) -> u64 {
    let options = ClientOptions { timeout: Duration::from_secs(2), ..ClientOptions::default() };
    let mut client = Client::connect(&addresses, options).unwrap();
    (first..).find(|number| client.put(key(*number), value(*number)).is_err()).unwrap()
}

/// Copies a directory and all that is in it.
pub fn copy_all(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
}

/// Few segments, so that groups make checkpoints after a moment, and room for what a node may be behind meanwhile.
pub fn log_with_room() -> LogOptions {
    LogOptions { max_log_bytes: 32 << 20, ..tiny_log() }
}

/// Overwrites all keys of [`overwrite`] with so many mebibytes, a few at a time so that all of these nodes keep up.
pub fn fill(client: &mut Client, nodes: RangeInclusive<u64>, first_round: u64, mebibytes: u64) -> u64 {
    (0..mebibytes).fold(first_round - 1, |round, _| {
        let round = overwrite(client, round + 1, 1 << 20, 16 << 10);
        until_equal(client, nodes.clone(), 1);
        round
    })
}

/// Waits until all these nodes have applied the same, so that none lacks what the others have acknowledged.
pub fn until_equal(client: &mut Client, nodes: RangeInclusive<u64>, cores: u16) {
    let groups = |client: &mut Client, node| -> Vec<GroupStatus> {
        let of_core = |core| client.status(NodeId(node), CoreId(core)).map(|it| it.groups).unwrap_or_default();
        (0..cores).flat_map(of_core).collect()
    };
    let give_up = Instant::now() + 2 * PATIENCE;
    loop {
        let seen: Vec<_> = nodes.clone().map(|node| groups(client, node)).collect();
        let applied = |of: &Vec<GroupStatus>| of.iter().map(|group| (group.group, group.applied)).collect::<Vec<_>>();
        if !seen[0].is_empty() && seen.iter().all(|of| applied(of) == applied(&seen[0])) {
            return;
        }
        assert!(Instant::now() < give_up, "not all have applied the same: {seen:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_values(client: &mut Client, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let found = client.get(key(number)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(number)[..]), "key {number}");
    }
}

#[test]
fn one_of_three_goes_on_with_all_it_had_and_the_lost_cannot_take_over() {
    const BEFORE: u64 = 200;
    let nodes = directories(3, 8, 2);
    let mut processes: Vec<Process> = (0..3).map(|node| nodes.start(node)).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..BEFORE).for_each(|number| client.put(key(number), value(number)).unwrap());
    until_equal(&mut client, 1..=3, 2);
    // Under writes two nodes die, and then the third.
    let addresses = nodes.addresses();
    let writer = std::thread::spawn(move || write_until_it_fails(addresses, BEFORE));
    std::thread::sleep(Duration::from_millis(300));
    processes.drain(1..).for_each(Process::kill);
    let end = writer.join().unwrap();
    processes.remove(0).kill();
    // They are kept for later: nobody can be sure that what is lost does not come back.
    let kept = tempfile::tempdir().unwrap();
    for node in 1..3 {
        copy_all(nodes.dir(node), &kept.path().join(node.to_string()));
        std::fs::remove_dir_all(nodes.dir(node)).unwrap();
    }

    let plan = recover(&nodes, &[0]);
    assert_eq!((plan.survivors, plan.lost, plan.nodes), (vec![NodeId(1)], vec![NodeId(2), NodeId(3)], vec![NodeId(1)]));
    assert_eq!((plan.groups.len(), plan.absent.len()), (8, 0));
    for group in &plan.groups {
        let recovery = group.recovery().unwrap();
        assert!(recovery.may_miss, "{group:?}: two of three were a quorum");
        assert_eq!(recovery.entry.index, group.base().last.index.next());
        // Without a checkpoint only notes in the log show what was committed, and how many there are depends on the moment.
        assert!(group.unproven_entries() <= group.base().last.index.0);
        assert_eq!(group.lost.len(), 2);
    }

    let process = nodes.start(0);
    assert_eq!(process.lines_with("recover confirm").len(), 1, "a start says that it is not confirmed");
    let mut client = Client::connect(&[nodes.address(0)], patient()).unwrap();
    // What one of the two followers had acknowledged is there; of the rest each is there or was never heard of.
    let served = (0..end).filter(|number| match client.get(key(*number)).unwrap() {
        Some(found) => found == value(*number),
        None => false,
    });
    let served: Vec<u64> = served.collect();
    let entries: u64 = plan.groups.iter().map(|group| group.base().last.index.0).sum();
    assert!(served.len() as u64 >= BEFORE, "{} of {end} in {entries} entries", served.len());
    (end..end + 50).for_each(|number| client.put(key(number), value(number)).unwrap());
    let of_node = |client: &mut Client| status(client, 1).unwrap();
    assert!(of_node(&mut client).groups.iter().all(|group| group.term > Term(RECOVERY_JUMP)));

    // One that comes back is refused, leads nothing, and changes nothing.
    copy_all(&kept.path().join("1"), nodes.dir(1));
    let back = nodes.start(1);
    let give_up = Instant::now() + PATIENCE;
    while back.lines_with("given up in a recovery").is_empty() {
        assert!(Instant::now() < give_up, "it hears why it is refused");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(4));
    let mut of_back = Client::connect(&[nodes.address(1)], patient()).unwrap();
    let groups = status(&mut of_back, 2).unwrap().groups;
    assert!(groups.iter().all(|group| group.role != GroupRole::Leader && group.term < Term(RECOVERY_JUMP)));
    assert_values(&mut client, end..end + 50);
    (end + 50..end + 60).for_each(|number| client.put(key(number), value(number)).unwrap());
    back.kill();

    confirm(&paths(&nodes, &[0])).unwrap();
    assert!(!nodes.dir(0).join("recovery").exists());
    process.kill();
    let process = nodes.start(0);
    assert!(process.lines_with("recover confirm").is_empty());
    let mut client = Client::connect(&[nodes.address(0)], patient()).unwrap();
    assert_values(&mut client, end..end + 60);
    assert_eq!(served, (0..end).filter(|it| client.get(key(*it)).unwrap().is_some()).collect::<Vec<_>>());
}

#[test]
fn the_lost_that_come_back_together_stay_apart_from_the_survivor() {
    let nodes = directories(3, 2, 1);
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, small_log())).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..20).for_each(|number| client.put(key(number), value(number)).unwrap());
    until_equal(&mut client, 1..=3, 1);
    running.into_iter().for_each(|node| node.stop().unwrap());
    recover(&nodes, &[0]);
    // Nobody could tell them: they are a quorum of what they know, and go on without ever touching the survivor.
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, small_log())).collect();
    let mut survivor = Client::connect(&[nodes.address(0)], patient()).unwrap();
    (20..40).for_each(|number| survivor.put(key(number), value(number)).unwrap());
    let mut lost = Client::connect(&nodes.addresses()[1..], patient()).unwrap();
    let theirs =
        |client: &mut Client| (2..=3).flat_map(|node| status(client, node).unwrap().groups).collect::<Vec<_>>();
    until("the lost elect leaders of their own", || {
        let leaders = theirs(&mut lost).iter().filter(|group| group.role == GroupRole::Leader).count();
        leaders == 2
    });
    assert!(theirs(&mut lost).iter().all(|group| group.term < Term(RECOVERY_JUMP)));
    assert_values(&mut survivor, 0..40);
    let leads = status(&mut survivor, 1).unwrap().groups;
    assert!(leads.iter().all(|group| group.role == GroupRole::Leader && group.term > Term(RECOVERY_JUMP)));
    running.into_iter().for_each(|node| node.stop().unwrap());
}

#[test]
fn a_recovery_is_undone_to_the_byte_until_something_was_written() {
    let nodes = directories_with(1, 3, 4, 1, log_with_room());
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, log_with_room())).collect();
    let mut client = connect(&nodes.addresses());
    let round = fill(&mut client, 1..=3, 1, 64);
    until("checkpoints are made", || status(&mut client, 1).is_some_and(|it| it.counters.checkpoints > 0));
    running.into_iter().for_each(|node| node.stop().unwrap());
    let before = image(nodes.dir(0));

    // Before a start, and after one in which nothing was written.
    recover(&nodes, &[0]);
    assert_eq!(undo(&paths(&nodes, &[0])).unwrap(), [NodeId(1)]);
    assert_unchanged(nodes.dir(0), &before, "undone before a start");
    recover(&nodes, &[0]);
    let node = start(&nodes, 0, log_with_room());
    verify(&mut connect(&nodes.addresses()[..1]), round, 16 << 10);
    let running = undo(&paths(&nodes, &[0])).unwrap_err();
    assert!(matches!(running, RecoverError::DataDir(DataDirError::InUse { .. })), "{running}");
    node.stop().unwrap();
    undo(&paths(&nodes, &[0])).unwrap();
    assert_unchanged(nodes.dir(0), &before, "undone after a start");

    // It is the node that it was: with another one it goes on.
    let running: Vec<Node> = (0..2).map(|node| start(&nodes, node, log_with_room())).collect();
    verify(&mut connect(&nodes.addresses()[..2]), round, 16 << 10);
    running.into_iter().for_each(|node| node.stop().unwrap());

    recover(&nodes, &[0]);
    let node = start(&nodes, 0, log_with_room());
    let mut client = connect(&nodes.addresses()[..1]);
    client.put(key(1), value(1)).unwrap();
    node.stop().unwrap();
    let before = image(nodes.dir(0));
    let refused = undo(&paths(&nodes, &[0])).unwrap_err();
    assert!(refused.exit_code() == 2 && refused.to_string().contains("has taken writes"), "{refused}");
    assert_unchanged(nodes.dir(0), &before, "a refused undo changes nothing");
    // A second recovery would forget what was before the first.
    let refused = Survivors::open(&paths(&nodes, &[0])).unwrap_err();
    assert!(refused.to_string().contains("confirm or undo that first"), "{refused}");
}

#[test]
fn what_can_decide_or_runs_is_not_recovered() {
    let nodes = directories(3, 4, 1);
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, small_log())).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..20).for_each(|number| client.put(key(number), value(number)).unwrap());
    let refused = Survivors::open(&paths(&nodes, &[0])).unwrap_err();
    assert!(matches!(refused, RecoverError::DataDir(DataDirError::InUse { .. })), "{refused}");
    assert_eq!(refused.exit_code(), 4);
    running.into_iter().for_each(|node| node.stop().unwrap());

    let before: Vec<_> = (0..2).map(|node| image(nodes.dir(node))).collect();
    let opened = Survivors::open(&paths(&nodes, &[0, 1])).unwrap();
    let plan = opened.plan();
    for group in &plan.groups {
        assert!(matches!(&group.verdict, Verdict::LeftAlone(why) if why.contains("majority")), "{group:?}");
    }
    assert_eq!(plan.nodes.len(), 3, "the third may come back");
    let refused = opened.apply(&plan, "").unwrap_err();
    assert!(refused.to_string().contains("no group is to be recovered"), "{refused}");
    (0..2).for_each(|node| assert_unchanged(nodes.dir(node), &before[node], "refused"));
    // One directory under two names, and a node of another cluster.
    let other = directories(1, 4, 1);
    for dirs in [paths(&nodes, &[0, 0]), [paths(&nodes, &[0]), paths(&other, &[0])].concat()] {
        assert!(Survivors::open(&dirs).is_err(), "{dirs:?}");
    }
}

#[test]
fn two_of_five_with_logs_that_differ_go_on_with_the_better_one() {
    let nodes = directories_with(1, 5, 4, 1, log_with_room());
    let mut running: Vec<Node> = (0..5).map(|node| start(&nodes, node, log_with_room())).collect();
    let mut client = connect(&nodes.addresses());
    let round = fill(&mut client, 1..=5, 1, 8);
    // The last one misses so much that the others have given it up in their logs.
    running.pop().unwrap().stop().unwrap();
    let mut client = connect(&nodes.addresses()[..4]);
    let round = fill(&mut client, 1..=4, round + 1, 64);
    let compacted = |client: &mut Client| status(client, 4).is_some_and(|it| it.counters.checkpoints >= 4);
    until("the fourth has made checkpoints", || compacted(&mut client));
    running.into_iter().for_each(|node| node.stop().unwrap());
    (0..3).for_each(|node| std::fs::remove_dir_all(nodes.dir(node)).unwrap());

    let plan = recover(&nodes, &[3, 4]);
    for group in &plan.groups {
        assert_eq!(group.base, NodeId(4), "{group:?}");
        assert!(group.survivors[&NodeId(5)].last < group.base().last && group.committed.index.0 > 0);
        assert_eq!(group.recovery().unwrap().configuration.members().len(), 2);
    }
    let running: Vec<Node> = (3..5).map(|node| start(&nodes, node, log_with_room())).collect();
    let mut client = connect(&nodes.addresses()[3..]);
    verify(&mut client, round, 16 << 10);
    let round = overwrite(&mut client, round + 1, 8 << 20, 16 << 10);
    assert_eq!(status(&mut client, 5).unwrap().counters.snapshots_received, 0, "it had the whole log from the start");
    running.into_iter().for_each(|node| node.stop().unwrap());
    // And again, after the way back is given up.
    confirm(&paths(&nodes, &[3, 4])).unwrap();
    let running: Vec<Node> = (3..5).map(|node| start(&nodes, node, log_with_room())).collect();
    verify(&mut connect(&nodes.addresses()[3..]), round, 16 << 10);
    running.into_iter().for_each(|node| node.stop().unwrap());
}

#[test]
fn a_recovery_that_was_cut_short_does_not_start_and_is_undone() {
    let nodes = directories(3, 4, 1);
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, small_log())).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..20).for_each(|number| client.put(key(number), value(number)).unwrap());
    running.into_iter().for_each(|node| node.stop().unwrap());
    let before = image(nodes.dir(0));
    recover(&nodes, &[0]);
    // As a crash leaves it before the record says that all is in its place.
    let record = nodes.dir(0).join("recovery").join("record");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"applied\"", "\"making\"")).unwrap();
    let refused = Node::start(NodeConfig::new(nodes.dir(0))).unwrap_err();
    assert!(matches!(refused, StartError::DataDir(DataDirError::UnfinishedRecovery { .. })), "{refused}");
    assert!(confirm(&paths(&nodes, &[0])).is_err() && Survivors::open(&paths(&nodes, &[0])).is_err());
    undo(&paths(&nodes, &[0])).unwrap();
    assert_unchanged(nodes.dir(0), &before, "undone");
    assert!(undo(&paths(&nodes, &[0])).unwrap_err().to_string().contains("nothing to undo"));
}
