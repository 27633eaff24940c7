//! Linearizable reads of one core that holds leases: no message, no disk, and how much of the core each one takes.
//!
//! Three cores in this thread lead some groups each, with leases on and the real clock; their frames are handed over at
//! once. The core that leads the most groups gets frames of reads for these, and what is timed is the whole of its turns: taking the
//! frame in, looking at the lease, reading the machine, encoding the replies, and the beacons in between. Each reply is decoded
//! and compared outside of that time. Whatever the core sends to its peers besides beacons is counted: with leases
//! it is nothing.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{ConnectionId, Core, CoreConfig, Effects, Event, GroupState, LeaseConfig, Role};
use pontoon_router::initial_descriptors;
use pontoon_types::{ClusterId, CoreId, Descriptor, HardState, NodeId, RequestId, Time};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, ReplyFrame, Request, RequestFrame};
use pontoon_wire::command::{Command, KvOperation};
use serde::Serialize;

use crate::args::LeasedReadsArgs;
use crate::clock;
use crate::cluster::Pin;
use crate::error::{BenchError, UNHEALTHY, VERIFICATION};
use crate::report::{figure, publish, two_columns};
use crate::spread::Spread;

const NODES: u64 = 3;
const CLIENT: ConnectionId = ConnectionId(1);

/// How long the cores may take until one of them holds leases for all that it leads.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the cores rest before the reads: until then followers are told what was committed.
const SETTLE: Duration = Duration::from_secs(1);

/// Bytes of each value.
const VALUE_BYTES: usize = 256;

/// The result. Names end in their unit.
#[derive(Debug, Serialize)]
struct LeasedReadsReport {
    groups: u32,
    batch: u32,
    value_bytes: usize,
    /// Reads per second of the core's own time.
    reads_per_s: Option<Spread>,
    reads: u64,
    /// Reads that were served under a lease.
    leased: u64,
    /// Frames to peers that were no beacons.
    frames_to_peers: u64,
}

/// Runs all rounds and prints the result.
pub fn run(args: &LeasedReadsArgs) -> Result<(), BenchError> {
    let _pin = Pin::to(0);
    let mut cores = Cores::new(args.groups);
    let (reader, read) = cores.wait_for_leases()?;
    let frames = read_frames(&read, args.batch);
    for descriptor in &read {
        cores.put(reader, descriptor);
    }
    cores.rest(SETTLE);
    let before = cores.cores[reader].counters().leased_reads;
    cores.frames_to_peers = 0;
    let (mut rates, mut reads) = (Vec::new(), 0);
    for _ in 0..args.rounds {
        let (count, took) = cores.read(reader, &frames, args.seconds)?;
        rates.push(count as f64 / took.as_secs_f64());
        reads += count;
    }
    let report = LeasedReadsReport {
        groups: args.groups,
        batch: args.batch,
        value_bytes: VALUE_BYTES,
        reads_per_s: Spread::of(rates),
        reads,
        leased: cores.cores[reader].counters().leased_reads - before,
        frames_to_peers: cores.frames_to_peers,
    };
    publish(&report, LeasedReadsReport::table, &args.result)
}

/// The key of a range that is read: the shortest one behind its beginning.
fn key(descriptor: &Descriptor) -> Bytes {
    [descriptor.range.start.as_ref(), &[0]].concat().into()
}

/// Frames of so many reads that go to all ranges in rotation.
fn read_frames(ranges: &[Descriptor], batch: u32) -> Vec<Bytes> {
    let get = |place: usize| {
        let Descriptor { group, generation, .. } = ranges[place % ranges.len()];
        let level = ReadLevel::Linearizable;
        let operation = Operation::Get { group, generation, key: key(&ranges[place % ranges.len()]), level };
        Request { sequence: place as u64, operation }
    };
    let batch = batch as usize;
    let encode = |frame: usize| {
        let mut bytes = Vec::new();
        RequestFrame { requests: (frame * batch..(frame + 1) * batch).map(get).collect() }.encode(&mut bytes);
        Bytes::from(bytes)
    };
    // So many that every range stands at every place of a frame.
    (0..ranges.len()).map(encode).collect()
}

/// The cores of three nodes, and the frames between them.
struct Cores {
    cores: Vec<Core>,
    descriptors: Vec<Descriptor>,
    frames: VecDeque<(usize, NodeId, Bytes)>,
    replies: Vec<Bytes>,
    effects: Effects,
    frames_to_peers: u64,
}

impl Cores {
    fn new(groups: u32) -> Cores {
        let nodes: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
        let descriptors = initial_descriptors(groups, &nodes);
        let core = |node: &NodeId| {
            let config = CoreConfig {
                nodes: nodes.iter().map(|node| (*node, format!("127.0.0.1:{}", 7400 + node.0))).collect(),
                descriptors: descriptors.clone(),
                lease: Some(LeaseConfig::default()),
                ..CoreConfig::new(ClusterId(1), *node, CoreId(0), 1)
            };
            let new = |descriptor: &Descriptor| GroupState::new(descriptor.clone(), HardState::default(), Vec::new());
            Core::new(config, descriptors.iter().map(new).collect(), clock::now())
        };
        let mut cores = Cores {
            cores: nodes.iter().map(core).collect(),
            descriptors: descriptors.clone(),
            frames: VecDeque::new(),
            replies: Vec::new(),
            effects: Effects::default(),
            frames_to_peers: 0,
        };
        for place in 0..nodes.len() {
            for peer in nodes.iter().filter(|peer| **peer != nodes[place]) {
                cores.turn(place, Event::PeerUp(*peer));
            }
        }
        cores
    }

    /// One turn with one event. Returns what the core itself took for it.
    fn turn(&mut self, place: usize, event: Event) -> Duration {
        let core = &mut self.cores[place];
        let begin = clock::now();
        core.step(begin, event, &mut self.effects);
        core.step(clock::now(), Event::EndTurn, &mut self.effects);
        let took = clock::now().since(begin);
        let effects = std::mem::take(&mut self.effects);
        self.frames_to_peers += effects.peer_frames.len() as u64;
        let frames = effects.beacons.into_iter().chain(effects.peer_frames);
        self.frames.extend(frames.map(|(to, bytes)| (to.0 as usize - 1, NodeId(place as u64 + 1), bytes)));
        self.replies.extend(effects.client_frames.into_iter().map(|(_, bytes)| bytes));
        match effects.append {
            Some(append) => took + self.turn(place, Event::Durable(append.number)),
            None => took,
        }
    }

    /// Timers that are due, and frames until none is under way. Returns what one of the cores took for it.
    fn settle(&mut self, reader: usize) -> Duration {
        let mut took = Duration::ZERO;
        for place in 0..self.cores.len() {
            if self.cores[place].deadline().is_some_and(|deadline| deadline <= clock::now()) {
                let timer = self.turn(place, Event::Timer);
                took += if place == reader { timer } else { Duration::ZERO };
            }
        }
        while let Some((place, from, bytes)) = self.frames.pop_front() {
            let frame = self.turn(place, Event::PeerFrame { from, bytes });
            took += if place == reader { frame } else { Duration::ZERO };
        }
        took
    }

    /// Lets time pass until a core holds leases for all that it leads: the one that leads the most, and those ranges.
    fn wait_for_leases(&mut self) -> Result<(usize, Vec<Descriptor>), BenchError> {
        let deadline = clock::now() + READY_TIMEOUT;
        while clock::now() < deadline {
            self.settle(0);
            std::thread::sleep(Duration::from_millis(1));
            let led = |core: &Core| core.groups().filter(|view| view.role() == Role::Leader).count();
            let all: usize = self.cores.iter().map(led).sum();
            let reader = (0..self.cores.len()).max_by_key(|place| led(&self.cores[*place])).unwrap_or(0);
            let (core, now) = (&self.cores[reader], clock::now());
            let leads = core.groups().filter(|view| view.role() == Role::Leader).map(|view| view.group());
            let leads: Vec<_> = leads.collect();
            if all == self.descriptors.len() && leads.iter().all(|group| core.holds_lease(now, *group)) {
                let read = self.descriptors.iter().filter(|descriptor| leads.contains(&descriptor.group));
                return Ok((reader, read.cloned().collect()));
            }
        }
        Err(BenchError::new(UNHEALTHY, format!("no core holds leases after {} s", READY_TIMEOUT.as_secs())))
    }

    /// Lets time pass.
    fn rest(&mut self, span: Duration) {
        let end = clock::now() + span;
        while clock::now() < end {
            self.settle(0);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes what is read.
    fn put(&mut self, reader: usize, descriptor: &Descriptor) {
        let put = KvOperation::Put { key: key(descriptor), value: Bytes::from(vec![7; VALUE_BYTES]) };
        let id = RequestId { sequence: descriptor.group.0, ..RequestId::default() };
        let command = Command { id, floor: 0, operations: vec![put] }.encode();
        let operation = Operation::Write { group: descriptor.group, generation: descriptor.generation, command };
        let mut bytes = Vec::new();
        RequestFrame { requests: vec![Request { sequence: 0, operation }] }.encode(&mut bytes);
        self.turn(reader, Event::ClientFrame { connection: CLIENT, bytes: Bytes::from(bytes) });
        self.settle(reader);
        self.replies.clear();
    }

    /// Reads for so long: how many, and the core's own time for them.
    fn read(&mut self, reader: usize, frames: &[Bytes], span: Duration) -> Result<(u64, Duration), BenchError> {
        let (mut reads, mut took) = (0, Duration::ZERO);
        let end: Time = clock::now() + span;
        for bytes in frames.iter().cycle() {
            took += self.turn(reader, Event::ClientFrame { connection: CLIENT, bytes: bytes.clone() });
            took += self.settle(reader);
            for bytes in std::mem::take(&mut self.replies) {
                reads += verified(bytes)?;
            }
            if clock::now() >= end {
                break;
            }
        }
        Ok((reads, took))
    }
}

/// How many replies a frame has, all of which must be the value.
fn verified(bytes: Bytes) -> Result<u64, BenchError> {
    let wrong = |why: String| BenchError::new(VERIFICATION, format!("a read was answered with {why}"));
    let frame = ReplyFrame::decode(bytes).map_err(|error| wrong(error.to_string()))?;
    for reply in &frame.replies {
        match &reply.result {
            Ok(Outcome::Value(Some(value))) if value.len() == VALUE_BYTES => {}
            other => return Err(wrong(format!("{other:?}"))),
        }
    }
    Ok(frame.replies.len() as u64)
}

impl LeasedReadsReport {
    fn table(&self) -> String {
        let rate = self.reads_per_s.map_or("-".to_string(), |spread| {
            format!("{} ({}-{})", figure(Some(spread.median)), figure(Some(spread.min)), figure(Some(spread.max)))
        });
        two_columns(vec![
            (
                "load",
                format!("{} groups on 3 cores, {} reads in a frame, {} B", self.groups, self.batch, self.value_bytes),
            ),
            ("reads/s of the core's time", rate),
            ("reads, under a lease", format!("{}, {}", self.reads, self.leased)),
            ("frames to peers besides beacons", self.frames_to_peers.to_string()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_read_is_answered_under_a_lease_without_a_message() {
        let mut cores = Cores::new(6);
        let (reader, read) = cores.wait_for_leases().unwrap();
        read.iter().for_each(|descriptor| cores.put(reader, descriptor));
        cores.rest(SETTLE);
        let before = cores.cores[reader].counters().leased_reads;
        cores.frames_to_peers = 0;
        let (reads, took) = cores.read(reader, &read_frames(&read, 5), Duration::from_millis(20)).unwrap();
        assert!(reads > 0 && took > Duration::ZERO);
        assert_eq!(cores.cores[reader].counters().leased_reads - before, reads);
        assert_eq!(cores.frames_to_peers, 0);
    }
}
