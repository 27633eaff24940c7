//! Real processes, real disks, real sockets: a node killed under load loses nothing that was acknowledged, the others
//! go on, and it comes back on its port at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pontoon_client::{Client, ClientOptions, Request, Response, Ticket};

use pontoon::LogOptions;
use pontoon_types::{CoreId, NodeId};

use crate::checkpoints::tiny_log;
use crate::support::{Directories, PATIENCE, Process, directories_with};

/// Keys of the load; their first two bytes spread them over all ranges.
const KEYS: u64 = 512;

/// Requests in flight.
const INFLIGHT: usize = 32;

fn key(id: u64) -> Bytes {
    let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Bytes::copy_from_slice(&spread.to_be_bytes())
}

fn value(id: u64, round: u64, bytes: usize) -> Bytes {
    let text = format!("{id}:{round}");
    Bytes::from(format!("{text:<bytes$}"))
}

fn round_of(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().split_once(':').unwrap().1.trim_end().parse().unwrap()
}

/// What the load knows: for each key the newest acknowledged round, and the newest one sent.
#[derive(Default)]
pub struct Known {
    acknowledged: BTreeMap<u64, u64>,
    sent: BTreeMap<u64, u64>,
}

/// Writes until told to stop, one write in flight for each key, each with a value of its own.
pub fn load(endpoints: Vec<SocketAddr>, stop: Arc<AtomicBool>) -> JoinHandle<Known> {
    load_of(endpoints, stop, 0)
}

/// The same with values of so many bytes at least.
fn load_of(endpoints: Vec<SocketAddr>, stop: Arc<AtomicBool>, bytes: usize) -> JoinHandle<Known> {
    std::thread::spawn(move || {
        let mut client = Client::connect(&endpoints, ClientOptions::default()).unwrap();
        let mut known = Known::default();
        let mut flying: BTreeMap<Ticket, (u64, u64)> = BTreeMap::new();
        let mut turn = 0;
        let mut done = Vec::new();
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            while !stopping && flying.len() < INFLIGHT {
                let (id, round) = (turn % KEYS, turn / KEYS);
                turn += 1;
                if flying.values().any(|(flying, _)| *flying == id) {
                    continue;
                }
                let ticket = client.submit(Request::Put { key: key(id), value: value(id, round, bytes) });
                known.sent.insert(id, round);
                flying.insert(ticket, (id, round));
            }
            if flying.is_empty() {
                return known;
            }
            client.poll(Duration::from_millis(50), &mut done).unwrap();
            for completion in done.drain(..) {
                let (id, round) = flying.remove(&completion.ticket).expect("one answer for each ticket");
                match completion.result {
                    Ok(Response::Written(_)) => drop(known.acknowledged.insert(id, round)),
                    Ok(other) => panic!("a put was answered with {other:?}"),
                    Err(_) => {}
                }
            }
        }
    })
}

/// Every acknowledged round is there, or a later one that was sent.
pub fn verify(endpoints: &[SocketAddr], known: &Known) {
    assert!(known.acknowledged.len() as u64 == KEYS, "the load reached {} keys", known.acknowledged.len());
    let mut client = Client::connect(endpoints, ClientOptions::default()).unwrap();
    for (id, acknowledged) in &known.acknowledged {
        let found = client.get(key(*id)).unwrap().map(|value| round_of(&value));
        let sent = known.sent[id];
        assert!(
            found.is_some_and(|found| (*acknowledged..=sent).contains(&found)),
            "key {id}: acknowledged round {acknowledged}, sent {sent}, found {found:?}"
        );
    }
}

/// Three nodes with room for the load.
fn directories(ranges: u32) -> Directories {
    directories_with(1, 3, ranges, 1, LogOptions { segment_bytes: 4 << 20, ..LogOptions::default() })
}

fn start_all(directories: &Directories) -> Vec<Process> {
    start_all_with(directories, &[])
}

fn start_all_with(directories: &Directories, arguments: &[&str]) -> Vec<Process> {
    let processes = (0..3).map(|node| Process::start(arguments, directories.dir(node))).collect();
    let give_up = Instant::now() + PATIENCE;
    let mut client = Client::connect(&directories.addresses(), ClientOptions::default()).unwrap();
    while client.routes().map_or(true, |routes| routes.ranges.iter().any(|(_, leader)| leader.is_none())) {
        assert!(Instant::now() < give_up, "the ranges have no leaders");
        std::thread::sleep(Duration::from_millis(20));
    }
    processes
}

#[test]
fn a_node_killed_under_load_loses_nothing_and_the_others_go_on_within_three_seconds() {
    let directories = directories(64);
    let mut processes = start_all(&directories);
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(directories.addresses(), stop.clone());
    std::thread::sleep(Duration::from_millis(1500));

    let survivors = directories.addresses()[1..].to_vec();
    let mut client = Client::connect(&survivors, ClientOptions::default()).unwrap();
    processes.remove(0).kill();
    let killed = Instant::now();
    // The keys of the load cannot be used here: these writes are not in its books.
    for range in 0..64_u16 {
        let key = [&(range * 1024).to_be_bytes()[..], b"after the kill"].concat();
        let written = client.put(&key, b"served");
        assert!(written.is_ok(), "range {range} after {:?}: {written:?}", killed.elapsed());
    }
    let served = killed.elapsed();
    assert!(served < Duration::from_secs(3), "all ranges served writes again after {served:?}");

    processes.push(directories.start(0));
    std::thread::sleep(Duration::from_millis(1000));
    stop.store(true, Ordering::Relaxed);
    let known = load.join().unwrap();
    verify(&directories.addresses(), &known);
}

#[test]
fn all_nodes_killed_under_load_lose_nothing() {
    let directories = directories(16);
    let mut processes = start_all(&directories);
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(directories.addresses(), stop.clone());
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1200));
        processes.drain(..).for_each(Process::kill);
        processes = start_all(&directories);
    }
    std::thread::sleep(Duration::from_millis(1200));
    stop.store(true, Ordering::Relaxed);
    let known = load.join().unwrap();
    verify(&directories.addresses(), &known);
}

#[test]
fn law_19_nodes_killed_while_they_make_checkpoints_lose_nothing() {
    // So small that each log is given up and used again all the time.
    let log = tiny_log();
    let max_log_bytes = log.max_log_bytes.to_string();
    let arguments = ["--max-log-bytes", max_log_bytes.as_str()];
    let directories = directories_with(1, 3, 4, 1, log);
    let mut processes = start_all_with(&directories, &arguments);
    let stop = Arc::new(AtomicBool::new(false));
    let load = load_of(directories.addresses(), stop.clone(), 8 << 10);
    let mut client = Client::connect(&directories.addresses(), ClientOptions::default()).unwrap();
    let (mut checkpoints, mut snapshots) = (0, 0);
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(2000));
        for node in 1..=3 {
            // Each unclean start may take a segment, so a log is killed again when it has given up some.
            let give_up = Instant::now() + PATIENCE;
            let counters = loop {
                let counters = client.status(NodeId(node), CoreId(0)).map(|status| status.counters).unwrap_or_default();
                if counters.checkpoints >= 4 || Instant::now() >= give_up {
                    break counters;
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            checkpoints += counters.checkpoints;
            snapshots += counters.snapshots_received;
        }
        if round % 2 == 0 {
            processes.drain(..).for_each(Process::kill);
            processes = start_all_with(&directories, &arguments);
        } else {
            // One is away for longer than the logs of the others reach back.
            processes.remove(0).kill();
            std::thread::sleep(Duration::from_millis(2000));
            processes.insert(0, Process::start(&arguments, directories.dir(0)));
        }
    }
    std::thread::sleep(Duration::from_millis(1200));
    stop.store(true, Ordering::Relaxed);
    let known = load.join().unwrap();
    assert!(checkpoints > 8, "{checkpoints} checkpoints and {snapshots} snapshots between the kills");
    verify(&directories.addresses(), &known);
    // From what is on the disks alone.
    processes.drain(..).for_each(Process::kill);
    let _processes = start_all_with(&directories, &arguments);
    verify(&directories.addresses(), &known);
}
