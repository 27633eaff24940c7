//! Recoveries of directories that are not whole, that were cut short, or of which some groups live on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pontoon::identity::DataDir;
use pontoon::quorum_loss::plan::Verdict;
use pontoon::quorum_loss::{Survivors, undo};
use pontoon::{Node, NodeConfig, Order, Outcome};
use pontoon_client::Client;
use pontoon_types::limits::RECOVERY_JUMP;
use pontoon_types::{CoreId, CoreWriteNumber, GroupId, Index, NodeId, Term, Write};
use pontoon_wal::{Log, LogIdentity};
use pontoon_wire::client::{GroupRole, GroupStatus};

use super::nodes::{
    assert_unchanged, copy_all, fill, image, key, log_with_room, paths, patient, recover, start, until_equal, value,
};
use crate::checkpoints::{connect, overwrite, status, until, verify};
use crate::support::{Directories, directories, directories_with, small_log};

/// Three nodes that made checkpoints and stopped.
fn with_checkpoints() -> (Directories, u64) {
    let nodes = directories_with(1, 3, 4, 1, log_with_room());
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, log_with_room())).collect();
    let mut client = connect(&nodes.addresses());
    let round = fill(&mut client, 1..=3, 1, 64);
    until("checkpoints are made", || status(&mut client, 1).is_some_and(|it| it.counters.checkpoints >= 4));
    running.into_iter().for_each(|node| node.stop().unwrap());
    (nodes, round)
}

/// A step of a recovery that puts something in its place.
enum Put {
    Name(PathBuf, PathBuf),
    Node,
}

/// What was put in its place, in the order in which it was done.
fn steps(dir: &Path) -> Vec<Put> {
    let kept = dir.join("recovery");
    let store = |below: &Path, group: u64| below.join("store").join(format!("{group:02x}/g{group}.ckp"));
    let mut steps = Vec::new();
    for group in 2..6 {
        if store(&kept, group).exists() {
            steps.push(Put::Name(store(dir, group), store(&kept, group)));
        }
        if store(dir, group).exists() {
            steps.push(Put::Name(store(&kept.join("new"), group), store(dir, group)));
        }
    }
    steps.push(Put::Node);
    for log in std::fs::read_dir(kept.join("logs")).unwrap() {
        let name = log.unwrap().file_name();
        steps.push(Put::Name(dir.join("logs").join(&name), kept.join("logs").join(&name)));
    }
    steps
}

#[test]
fn a_crash_at_any_step_leaves_a_way_back() {
    let (nodes, _) = with_checkpoints();
    let dir = nodes.dir(0);
    let before = image(dir);
    recover(&nodes, &[0]);
    let count = steps(dir).len();
    assert!(count >= 8, "{count} steps: checkpoints of several groups, the node file, a log");
    for done in 0..=count {
        let work = tempfile::tempdir().unwrap();
        let crashed = work.path().join("n1");
        copy_all(dir, &crashed);
        for step in steps(&crashed).into_iter().skip(done).rev() {
            match step {
                Put::Name(from, to) => {
                    std::fs::create_dir_all(from.parent().unwrap()).unwrap();
                    std::fs::rename(to, from).unwrap();
                }
                Put::Node => drop(std::fs::copy(crashed.join("recovery/node"), crashed.join("node")).unwrap()),
            }
        }
        let record = crashed.join("recovery/record");
        let text = std::fs::read_to_string(&record).unwrap();
        assert!(text.contains("\"applied\""), "{text}");
        std::fs::write(&record, text.replace("\"applied\"", "\"making\"")).unwrap();
        undo(std::slice::from_ref(&crashed)).unwrap();
        let now: BTreeMap<_, _> = image(&crashed)
            .into_iter()
            .map(|(path, bytes)| (dir.join(path.strip_prefix(&crashed).unwrap()), bytes))
            .collect();
        assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{done} of {count} steps");
        assert!(now == before, "{done} of {count} steps");
    }
}

/// Changes one byte of the first payload in a node's logs that holds these.
fn rot(dir: &Path, payload: &[u8]) {
    let files = crate::support::contents(&dir.join("logs"));
    let find = |bytes: &[u8]| bytes.windows(payload.len()).position(|part| part == payload);
    let (path, at) = files.iter().find_map(|(path, bytes)| Some((path, find(bytes)?))).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[payload[0] ^ 1], at as u64).unwrap();
}

#[test]
fn a_rotten_payload_refuses_its_group_and_no_other() {
    let nodes = directories(3, 4, 1);
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, small_log())).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..40).for_each(|number| client.put(key(number), value(number)).unwrap());
    until_equal(&mut client, 1..=3, 1);
    running.into_iter().for_each(|node| node.stop().unwrap());
    rot(nodes.dir(0), &value(17));
    let plan = recover(&nodes, &[0]);
    let is_refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(why) if why.contains("are rotten"));
    let refused: Vec<_> = plan.groups.iter().filter(|group| is_refused(&group.verdict)).collect();
    assert_eq!((refused.len(), plan.groups.iter().filter(|group| group.recovery().is_some()).count()), (1, 3));
    assert_eq!(plan.nodes.len(), 3, "the refused group may get its others back");
    // The peers of the refused group, which alone could say that the directory is the newest, are gone.
    let config = NodeConfig { log: small_log(), pin: false, trust_data_dir: true, ..NodeConfig::new(nodes.dir(0)) };
    let node = Node::start(config).unwrap();
    let options = pontoon_client::ClientOptions { timeout: std::time::Duration::from_secs(6), ..patient() };
    let mut client = Client::connect(&[nodes.address(0)], options).unwrap();
    let served = |client: &mut Client, number| client.get(key(number)).is_ok_and(|it| it.is_some());
    let is_of_refused = |number| {
        let range = plan_range(nodes.dir(0), refused[0].group);
        range.contains(&key(number))
    };
    let (mut lost, mut kept) = (0, 0);
    for number in 0..8 {
        let is_served = served(&mut client, number);
        assert_eq!(is_served, !is_of_refused(number), "key {number}");
        (lost, kept) = (lost + u64::from(!is_served), kept + u64::from(is_served));
    }
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
    node.stop().unwrap();
    assert!(undo(&paths(&nodes, &[0])).unwrap_err().to_string().contains("left alone"));
}

fn plan_range(dir: &Path, group: GroupId) -> pontoon_types::KeyRange {
    let identity = DataDir::look(dir).unwrap();
    let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let ranges = pontoon_router::initial_descriptors(identity.ranges, &nodes);
    ranges.into_iter().find(|descriptor| descriptor.group == group).unwrap().range
}

#[test]
fn a_checkpoint_that_the_log_does_not_hold_is_gone_on_from() {
    let (nodes, round) = with_checkpoints();
    // As a crash leaves it in the middle of taking a snapshot: the store has it, the log has not been reset yet.
    let data_dir = DataDir::open(nodes.dir(0)).unwrap();
    let identity = data_dir.identity().clone();
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: identity.logs[0] };
    let (mut log, recovered) = Log::open(&data_dir.log_dir(identity.logs[0]), whose, &log_with_room()).unwrap();
    let cut = |of: &pontoon_wal::RecoveredGroup| Some(of.compacted.index.next()).filter(|from| *from <= of.last.index);
    let writes: Vec<(GroupId, Write)> = recovered
        .groups
        .iter()
        .filter_map(|(group, of)| Some((*group, Write { truncate_from: Some(cut(of)?), ..Write::default() })))
        .collect();
    assert!(!writes.is_empty());
    log.append(CoreWriteNumber(1), &writes);
    log.close().unwrap();
    drop(data_dir);
    let plan = recover(&nodes, &[0]);
    let is_bare = |group: &&pontoon::quorum_loss::plan::GroupPlan| group.committed == group.base().last;
    assert_eq!(plan.groups.iter().filter(is_bare).count(), 4, "nothing stands behind the checkpoints: {plan:?}");
    let node = start(&nodes, 0, log_with_room());
    let mut client = connect(&nodes.addresses()[..1]);
    overwrite(&mut client, round + 1, 1 << 20, 16 << 10);
    node.stop().unwrap();
    let node = start(&nodes, 0, log_with_room());
    verify(&mut connect(&nodes.addresses()[..1]), round + 1, 16 << 10);
    node.stop().unwrap();
}

/// The replicas of a group on these nodes.
fn of_group(client: &mut Client, nodes: std::ops::RangeInclusive<u64>, group: GroupId) -> Vec<(u64, GroupStatus)> {
    let of = |node| {
        let status = client.status(NodeId(node), CoreId(0)).ok()?;
        status.groups.into_iter().find(|it| it.group == group).map(|it| (node, it))
    };
    nodes.filter_map(of).collect()
}

#[test]
fn a_group_that_lives_goes_on_with_a_node_that_others_have_given_up() {
    let nodes = directories(5, 2, 1);
    let running: Vec<Node> = (0..5).map(|node| start(&nodes, node, small_log())).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..20).for_each(|number| client.put(key(number), value(number)).unwrap());
    // Group 2 keeps the first three, so two of these are a majority of it; of group 3 they are none.
    let (lives, anew) = (GroupId(2), GroupId(3));
    until("the group is down to three", || {
        let replicas = of_group(&mut client, 1..=5, lives);
        let leader = replicas.iter().find(|(_, it)| it.role == GroupRole::Leader);
        let Some(leader) = leader.map(|(node, _)| &running[*node as usize - 1]) else { return false };
        let Ok(Outcome::Members(now)) = leader.members(lives).unwrap().recv().unwrap() else { return false };
        let voters = [1, 2, 3].map(NodeId).to_vec();
        let order = Order::Members { generation: now.generation, voters, learners: Vec::new() };
        leader.order(lives, order).unwrap().recv().unwrap() == Ok(Outcome::Ordered)
    });
    until("the two replicas are gone", || of_group(&mut client, 4..=5, lives).is_empty());
    until("all have applied the same", || {
        let applied = |client: &mut Client, group| {
            of_group(client, 1..=5, group).iter().map(|(_, it)| it.applied).collect::<BTreeSet<Index>>().len()
        };
        applied(&mut client, lives) == 1 && applied(&mut client, anew) == 1
    });
    running.into_iter().for_each(|node| node.stop().unwrap());

    let plan = recover(&nodes, &[0, 1]);
    assert!(matches!(plan.groups[0].verdict, Verdict::LeftAlone(_)) && plan.groups[1].recovery().is_some(), "{plan:?}");
    assert_eq!(plan.nodes, [1, 2, 3].map(NodeId), "the third is still a member of the group that lives");
    // All come back. With the other two the third is a majority of what group 3 was, and its links to the survivors are up: it
    // follows a leader of theirs, or has asked a survivor, which told it that this replica was removed.
    let running: Vec<Node> = (0..5).map(|node| start(&nodes, node, small_log())).collect();
    let mut all = Client::connect(&nodes.addresses()[2..], patient()).unwrap();
    until("group 3 of before has a leader, or lacks a majority", || {
        let lost = of_group(&mut all, 3..=5, anew);
        lost.len() == 2 || lost.iter().any(|(_, it)| it.role == GroupRole::Leader)
    });
    let mut client = Client::connect(&nodes.addresses()[..2], patient()).unwrap();
    (20..60).for_each(|number| client.put(key(number), value(number)).unwrap());
    let survivors = of_group(&mut client, 1..=2, anew);
    assert!(survivors.len() == 2 && survivors.iter().all(|(_, it)| it.term > Term(RECOVERY_JUMP)), "{survivors:?}");
    let lost = of_group(&mut all, 3..=5, anew);
    assert!(lost.iter().all(|(_, it)| it.term < Term(RECOVERY_JUMP) && it.leader.is_none_or(|of| of >= NodeId(3))));
    until("the third follows in the group that lives", || {
        let applied: BTreeSet<_> = of_group(&mut client, 1..=3, lives).iter().map(|(_, it)| it.applied).collect();
        applied.len() == 1
    });
    for number in 0..60 {
        assert_eq!(client.get(key(number)).unwrap().as_deref(), Some(&value(number)[..]), "key {number}");
    }
    running.into_iter().for_each(|node| node.stop().unwrap());
    let before = image(nodes.dir(0));
    let refused = undo(&paths(&nodes, &[0, 1])).unwrap_err();
    assert!(refused.to_string().contains("which the recovery left alone"), "{refused}");
    assert_unchanged(nodes.dir(0), &before, "a refused undo changes nothing");
}

#[test]
fn a_log_that_would_not_open_has_to_be_repaired_first() {
    let nodes = directories(3, 4, 1);
    let running: Vec<Node> = (0..3).map(|node| start(&nodes, node, small_log())).collect();
    let mut client = Client::connect(&nodes.addresses(), patient()).unwrap();
    (0..20).for_each(|number| client.put(key(number), value(number)).unwrap());
    running.into_iter().for_each(|node| node.stop().unwrap());
    let identity = DataDir::look(nodes.dir(0)).unwrap();
    let log = pontoon::identity::log_dir(nodes.dir(0), identity.logs[0]);
    let kept = log.with_extension("kept");
    std::fs::rename(&log, &kept).unwrap();
    let missing = Survivors::open(&paths(&nodes, &[0])).unwrap_err();
    assert!(missing.exit_code() == 4 && missing.to_string().contains("is missing"), "{missing}");
    std::fs::rename(&kept, &log).unwrap();
    std::fs::remove_file(log.join("slot-001.seg")).unwrap();
    let damaged = Survivors::open(&paths(&nodes, &[0])).unwrap_err();
    assert!(damaged.exit_code() == 4 && damaged.to_string().contains("wal repair"), "{damaged}");
}
