//! Bytes that rot under a real cluster, in real files (cases 30 to 33, 35): the entry is named, its peers give it back, and
//! afterwards the log is what was written. What cannot be known any more takes the vote away.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use pontoon::identity::DataDir;
use pontoon::{InitPlan, LogOptions, Node, NodeConfig, NodeId, init};
use pontoon_client::{Client, ClientError, ClientOptions};
use pontoon_types::{CoreId, Descriptor, Entry, GroupId, Index};
use pontoon_wal::{Log, LogIdentity};
use pontoon_wire::client::GroupStatus;
use serde_json::Value;
use tempfile::TempDir;

use super::{code, error_line, free_address, pontoon};

const PATIENCE: Duration = Duration::from_secs(60);

/// The range of the entries that rot, and one that only fills the segments behind them.
const RANGE: u8 = 0;
const FILLER: u8 = 0xc0;

/// What the nodes of this process say to their operators.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Said;

impl io::Write for Said {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        SAID.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn was_said(parts: &[&str]) -> bool {
    SAID.lock().unwrap().iter().any(|line| parts.iter().all(|part| line.contains(part)))
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn key(range: u8, name: &str) -> Vec<u8> {
    [&[range, 0][..], name.as_bytes()].concat()
}

/// A value that stands in one place of each log.
fn value(name: &str) -> Vec<u8> {
    format!("<the value of {name}> ").repeat(20).into_bytes()
}

/// An entry that was damaged, as `pontoon wal verify` names it.
#[derive(Debug, PartialEq)]
struct Named {
    group: u64,
    index: u64,
    text: String,
}

/// Three nodes with four ranges, one core and small segments.
struct Rig {
    dir: TempDir,
    nodes: Vec<(NodeId, PathBuf, SocketAddr)>,
    running: Vec<Option<Node>>,
    client: Client,
}

impl Rig {
    /// With these names written, in closed segments. `before` entries come first, so that the index of what rots is
    /// this test's own in what the nodes of all tests say.
    fn new(before: u32, names: &[&str]) -> Rig {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Said).init());
        let dir = tempfile::tempdir().unwrap();
        let nodes: Vec<_> = (1..=3).map(|id| (NodeId(id), dir.path().join(format!("n{id}")), free_address())).collect();
        let log = LogOptions { segment_bytes: 1 << 20, max_log_bytes: 64 << 20, ..LogOptions::default() };
        init(&InitPlan { nodes: nodes.clone(), ranges: 4, cores: 1, log }).unwrap();
        let running: Vec<_> =
            nodes.iter().map(|(_, dir, _)| Some(Node::start(NodeConfig::new(dir)).unwrap())).collect();
        let addresses: Vec<SocketAddr> = nodes.iter().map(|(.., address)| *address).collect();
        let options = ClientOptions { timeout: Duration::from_secs(5), ..ClientOptions::default() };
        let client = Client::connect(&addresses, options).unwrap();
        let mut rig = Rig { dir, nodes, running, client };
        for number in 0..before {
            rig.put(&key(RANGE, &format!("before {number}")), b"something");
        }
        for name in names {
            rig.put(&key(RANGE, name), &value(name));
        }
        for number in 0..25 {
            rig.put(&key(FILLER, &format!("filler {number}")), &vec![number; 100 << 10]);
        }
        for range in [RANGE, FILLER] {
            let group = rig.group(range);
            rig.wait_until_whole(group);
        }
        rig
    }

    /// Puts until it is acknowledged. What is unknown may have happened, so it is put again.
    fn put(&mut self, key: &[u8], value: &[u8]) {
        until("the put is acknowledged", || match self.client.put(key, value) {
            Ok(()) => true,
            Err(ClientError::TooLarge { .. } | ClientError::Refused { .. }) => panic!("this put is allowed"),
            Err(_) => false,
        });
    }

    /// Reads until somebody answers.
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let mut found = None;
        until("the get is answered", || match self.client.get(key) {
            Ok(value) => {
                found = value.map(|value| value.to_vec());
                true
            }
            Err(_) => false,
        });
        found
    }

    fn dir(&self, node: usize) -> &str {
        self.nodes[node].1.to_str().unwrap()
    }

    /// The group of a range, and the node that leads it.
    fn route(&mut self, range: u8) -> (u64, Option<NodeId>) {
        let routes = self.client.routes().unwrap();
        let of_range = |(descriptor, _): &&(Descriptor, _)| descriptor.range.contains(&[range, 1]);
        let (descriptor, leader) = routes.ranges.iter().find(of_range).unwrap();
        (descriptor.group.0, *leader)
    }

    fn group(&mut self, range: u8) -> u64 {
        self.route(range).0
    }

    /// The node that leads a range.
    fn leader(&mut self, range: u8) -> usize {
        let mut leader = None;
        until("the range has a leader", || {
            leader = self.route(range).1;
            leader.is_some()
        });
        self.nodes.iter().position(|(id, ..)| Some(*id) == leader).unwrap()
    }

    fn stop(&mut self) {
        self.running.iter_mut().for_each(|node| node.take().unwrap().stop().unwrap());
    }

    fn start(&mut self) {
        for (running, (_, dir, _)) in self.running.iter_mut().zip(&self.nodes) {
            *running = Some(Node::start(NodeConfig::new(dir)).unwrap());
        }
    }

    /// Flips one bit in the payload that holds this value, in a closed segment.
    fn flip(&self, node: usize, name: &str) {
        let log = self.log_dir(node);
        let value = value(name);
        let mut places = Vec::new();
        for file in std::fs::read_dir(&log).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(value.len()).enumerate().filter(|(_, window)| *window == value);
            places.extend(found.map(|(at, _)| (path.clone(), at)));
        }
        let [(path, at)] = &places[..] else { panic!("a value stands in one place: {places:?}") };
        let stat: Value =
            serde_json::from_slice(&pontoon(&["wal", "stat", self.dir(node), "-o", "json"]).stdout).unwrap();
        let stat = &stat["logs"][0];
        let of_end = |segment: &&Value| segment["segment"] == stat["end"]["segment"] && segment["stream"] == "log";
        let newest = stat["segments"].as_array().unwrap().iter().find(of_end).unwrap()["file"].as_str().unwrap();
        assert!(!path.ends_with(newest), "the segment of the value is closed: {stat:#}");
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, *at as u64 + 30).unwrap();
        file.write_all_at(&[byte[0] ^ 1], *at as u64 + 30).unwrap();
        file.sync_all().unwrap();
    }

    /// Flips one bit in the header of a group of records that others follow, in the segment that is written to.
    fn flip_records(&self, node: usize) {
        let dumped = pontoon(&["wal", "dump", self.dir(node), "--output", "json"]);
        let lines = String::from_utf8(dumped.stdout).unwrap();
        let place = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            (line["segment"].as_u64(), line["file"].as_str().unwrap_or_default().to_string(), line["offset"].as_u64())
        };
        let newest = lines.lines().map(place).max().unwrap();
        let mut places: Vec<_> = lines.lines().map(place).filter(|(segment, ..)| *segment == newest.0).collect();
        places.dedup();
        let (_, file, Some(at)) = &places[places.len() / 2] else { panic!("a group has a place: {places:?}") };
        let path = self.log_dir(node).join(file);
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at + 20).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at + 20).unwrap();
        file.sync_all().unwrap();
    }

    fn log_dir(&self, node: usize) -> PathBuf {
        let logs = std::fs::read_dir(self.nodes[node].1.join("logs")).unwrap();
        // What a repair has replaced lies beside it under a name with a dot.
        let mut logs: Vec<PathBuf> =
            logs.map(|log| log.unwrap().path()).filter(|log| log.extension().is_none()).collect();
        assert_eq!(logs.len(), 1);
        logs.remove(0)
    }

    /// The one entry whose payload `pontoon wal verify` misses.
    fn verify_names(&self, node: usize) -> Named {
        let verified = pontoon(&["wal", "verify", self.dir(node), "--output", "json"]);
        assert_eq!(code(&verified), 21, "{verified:?}");
        let verdict: Value = serde_json::from_slice(&verified.stdout).unwrap();
        let damage = verdict["logs"][0]["damage"].as_array().unwrap();
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(verdict["logs"][0]["refusal"].is_null());
        let entry = &damage[0]["entry"];
        let number = |name: &str| entry[name].as_u64().unwrap();
        let text = format!("{}@{}", number("index"), number("term"));
        Named { group: number("group"), index: number("index"), text }
    }

    fn verify_is_fine(&self) {
        for node in 0..3 {
            let verified = pontoon(&["wal", "verify", self.dir(node)]);
            assert_eq!(code(&verified), 0, "node {node}: {verified:?}");
        }
    }

    /// What a node says of a group, if it answers.
    fn status(&mut self, node: usize, group: u64) -> Option<GroupStatus> {
        let status = self.client.status(self.nodes[node].0, CoreId(0)).ok()?;
        status.groups.into_iter().find(|of| of.group == GroupId(group))
    }

    /// Waits until all three have all of the group, durable and applied.
    fn wait_until_whole(&mut self, group: u64) {
        until("all three replicas have the whole log", || {
            let all: Vec<GroupStatus> = (0..3).filter_map(|node| self.status(node, group)).collect();
            let is_whole =
                |of: &GroupStatus| of.last == all[0].last && of.last.index == of.durable && of.durable == of.applied;
            all.len() == 3 && all.iter().all(is_whole)
        });
    }

    /// The entries of a group, and the lost ones, as a stopped node's log has them.
    fn entries(&self, node: usize, group: u64) -> (Vec<Entry>, Vec<Index>) {
        let data_dir = DataDir::open(&self.nodes[node].1).unwrap();
        let identity = data_dir.identity();
        let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: identity.logs[0] };
        let (mut log, _) = Log::open(&self.log_dir(node), whose, &LogOptions::default()).unwrap();
        let loaded = log.load(GroupId(group)).unwrap();
        log.close().unwrap();
        (loaded.entries, loaded.lost)
    }

    /// Everything is as if nothing had been: the values are served, and all three logs are fine and say the same.
    fn assert_whole(mut self, group: u64, names: &[&str]) {
        for name in names {
            assert_eq!(self.get(&key(RANGE, name)), Some(value(name)), "{name}");
        }
        self.put(&key(RANGE, "after"), b"all");
        self.wait_until_whole(group);
        self.stop();
        self.verify_is_fine();
        let (entries, lost) = self.entries(0, group);
        assert_eq!(lost, []);
        for node in 1..3 {
            assert!(self.entries(node, group) == (entries.clone(), vec![]), "node {node} has what node 0 has");
        }
        drop(self.dir);
    }
}

/// Damages an entry of a stopped node, and starts all three again.
fn rots_while_stopped(before: u32, is_victim: impl Fn(usize, usize) -> bool) {
    let mut rig = Rig::new(before, &["apple"]);
    let leader = rig.leader(RANGE);
    let victim = (0..3).find(|node| is_victim(*node, leader)).unwrap();
    rig.stop();
    rig.flip(victim, "apple");
    let named = rig.verify_names(victim);
    rig.start();
    let group = format!("the disk has damaged g{}: the payloads of 1 entries are rotten", named.group);
    assert!(was_said(&[&group, &format!("({})", named.text)]), "the node names {named:?}");
    rig.wait_until_whole(named.group);
    rig.assert_whole(named.group, &["apple"]);
}

#[test]
fn case_30_a_rotten_entry_of_a_follower_is_named_and_comes_back_from_the_leader() {
    rots_while_stopped(3, |node, leader| node != leader);
}

#[test]
fn case_31_a_rotten_entry_of_the_node_that_led_is_named_and_comes_back_from_the_others() {
    rots_while_stopped(10, |node, leader| node == leader);
}

#[test]
fn cases_30_31_what_rots_under_running_nodes_is_found_by_the_scrub_and_written_again() {
    let mut rig = Rig::new(20, &["apple", "pear"]);
    let leader = rig.leader(RANGE);
    let follower = (leader + 1) % 3;
    rig.flip(leader, "apple");
    rig.flip(follower, "pear");
    let named = [rig.verify_names(leader), rig.verify_names(follower)];
    for Named { group, text, .. } in &named {
        until("the scrub finds it", || was_said(&[&format!("the payload of {text} of g{group} is rotten")]));
    }
    let group = named[0].group;
    rig.wait_until_whole(group);
    rig.assert_whole(group, &["apple", "pear"]);
}

#[test]
fn case_32_two_entries_rotten_on_two_of_three_both_come_back() {
    let mut rig = Rig::new(30, &["apple", "pear"]);
    let leader = rig.leader(RANGE);
    rig.stop();
    let (one, other) = (leader, (leader + 1) % 3);
    rig.flip(one, "apple");
    rig.flip(other, "pear");
    let named = [rig.verify_names(one), rig.verify_names(other)];
    assert_ne!(named[0], named[1]);
    rig.start();
    let group = named[0].group;
    rig.wait_until_whole(group);
    assert_eq!(rig.leader(RANGE), (leader + 2) % 3, "the one that has lost nothing leads");
    rig.assert_whole(group, &["apple", "pear"]);
}

#[test]
fn case_33_an_entry_rotten_on_all_three_makes_its_range_unavailable_and_nothing_else() {
    let mut rig = Rig::new(40, &["apple"]);
    rig.stop();
    (0..3).for_each(|node| rig.flip(node, "apple"));
    let named = rig.verify_names(0);
    assert!((1..3).all(|node| rig.verify_names(node) == named));
    let before: Vec<(Vec<Entry>, Vec<Index>)> = (0..3).map(|node| rig.entries(node, named.group)).collect();
    assert!(before.iter().all(|(_, lost)| *lost == [Index(named.index)]));
    rig.start();
    // The other ranges serve.
    assert_eq!(rig.get(&key(FILLER, "filler 7")), Some(vec![7; 100 << 10]));
    rig.put(&key(FILLER, "after"), b"served");
    // This one is missed, and stays that way for longer than elections take.
    let endpoints = rig.nodes.iter().map(|(.., address)| address.to_string()).collect::<Vec<_>>().join(",");
    let led = |rig: &mut Rig| (0..3).filter(|node| rig.status(*node, named.group).unwrap().leader.is_some()).count();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(led(&mut rig), 0);
    let status = pontoon(&["status", "-e", &endpoints]);
    assert_eq!(code(&status), 10, "{status:?}");
    let line = error_line(&status);
    assert!(line.contains("0 of 3 cores do not answer, 1 of 4 ranges have no leader"), "{line}");
    assert!(rig.client.get(key(RANGE, "apple")).is_err(), "nothing is served instead of it");
    rig.stop();
    for (node, before) in before.iter().enumerate() {
        assert_eq!(rig.verify_names(node), named);
        assert!(rig.entries(node, named.group) == *before, "nothing was cut");
    }
}

#[test]
fn case_35_a_replica_that_does_not_know_its_vote_follows_and_does_not_vote() {
    let mut rig = Rig::new(50, &["apple"]);
    let victim = (rig.leader(RANGE) + 1) % 3;
    rig.stop();
    rig.flip_records(victim);
    let refused = Node::start(NodeConfig::new(&rig.nodes[victim].1)).unwrap_err();
    assert!(refused.to_string().contains("pontoon wal"), "{refused}");
    let repaired = pontoon(&["wal", "repair", rig.dir(victim), "--yes"]);
    assert_eq!(code(&repaired), 0, "{repaired:?}");
    rig.start();
    // Its peers would take its vote too, because they have heard more of its log than it has. Here only the log does.
    rig.running[victim].take().unwrap().stop().unwrap();
    let vouched = NodeConfig { trust_data_dir: true, ..NodeConfig::new(&rig.nodes[victim].1) };
    rig.running[victim] = Some(Node::start(vouched).unwrap());
    let group = rig.group(RANGE);
    assert!(was_said(&[&format!("the disk has damaged g{group}:"), "its term and vote are lost"]));
    rig.wait_until_whole(group);
    assert_eq!(rig.get(&key(RANGE, "apple")), Some(value("apple")));

    // With the one that leads away, the other one that can vote needs this one's vote.
    let leader = rig.leader(RANGE);
    assert_ne!(leader, victim, "who does not vote does not lead");
    rig.running[leader].take().unwrap().stop().unwrap();
    let other = 3 - leader - victim;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(rig.status(other, group).unwrap().leader, None, "nobody gives it a second vote");
    // The one that waits for a leader may still name the one that was.
    let named = rig.status(victim, group).unwrap().leader;
    assert!(named.is_none() || named == Some(rig.nodes[leader].0), "{named:?}");
    rig.running[leader] = Some(Node::start(NodeConfig::new(&rig.nodes[leader].1)).unwrap());
    rig.put(&key(RANGE, "before the end"), b"served again");
    assert_ne!(rig.leader(RANGE), victim);
    rig.assert_whole(group, &["apple"]);
}
