//! What a turn may ask of the machine, and what happens when the disk fails. The loop runs on the production driver,
//! seen through a layer that counts each turn's calls and can make a sync fail.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pontoon::core_loop::{CoreLoop, Parts, Turn};
use pontoon::door::{Door, Household, Parcel};
use pontoon::driver::epoll::EpollDriver;
use pontoon::driver::{Driver, Ready, Received, SocketId};
use pontoon::identity::DataDir;
use pontoon::inbox::Inbox;
use pontoon::link::Link;
use pontoon::{CoreFailure, Node, NodeConfig};
use pontoon_client::{Client, ClientOptions, Request};
use pontoon_multiraft::{Core, CoreConfig, GroupState};
use pontoon_router::initial_descriptors;
use pontoon_types::{CoreId, NodeId, Time};
use pontoon_wal::{Log, LogError, LogIdentity};
use pontoon_wire::client::Counters;
use pontoon_wire::hello::{Caller, Hello};

use crate::support::{Directories, directories, small_log};

/// The calls of one turn.
#[derive(Default)]
struct Calls {
    receives: BTreeMap<SocketId, usize>,
    sends: BTreeMap<SocketId, usize>,
    syncs: usize,
}

/// The production driver, watched.
struct Watched {
    inner: EpollDriver,
    calls: Calls,
    disk_fails: Arc<AtomicBool>,
}

impl Watched {
    /// The budget of the turn that has just ended.
    fn check(&mut self) {
        let calls = std::mem::take(&mut self.calls);
        assert!(calls.receives.values().all(|count| *count == 1), "one receive for each ready socket");
        assert!(calls.sends.values().all(|count| *count == 1), "one send for each destination");
        assert!(calls.syncs <= 1, "one sync");
    }
}

impl Driver for Watched {
    fn now(&self) -> Time {
        self.inner.now()
    }

    fn ready(&mut self, until: Option<Time>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.check();
        self.inner.ready(until, ready)?;
        if self.disk_fails.load(Ordering::SeqCst) {
            for event in ready {
                if let Ready::Synced(result) = event {
                    *result = Err(io::Error::other("the disk is gone"));
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<Option<(SocketId, Option<SocketAddr>)>> {
        self.inner.accept()
    }

    fn watch_listener(&mut self, watch: bool) -> io::Result<()> {
        self.inner.watch_listener(watch)
    }

    fn dial(&mut self, address: SocketAddr) -> io::Result<SocketId> {
        self.inner.dial(address)
    }

    fn connected(&mut self, id: SocketId) -> io::Result<()> {
        self.inner.connected(id)
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        self.inner.adopt(socket)
    }

    fn release(&mut self, id: SocketId) -> Option<OwnedFd> {
        self.inner.release(id)
    }

    fn receive(&mut self, id: SocketId, into: &mut [u8]) -> io::Result<Received> {
        *self.calls.receives.entry(id).or_default() += 1;
        self.inner.receive(id, into)
    }

    fn send(&mut self, id: SocketId, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        *self.calls.sends.entry(id).or_default() += 1;
        self.inner.send(id, parts)
    }

    fn watch_send(&mut self, id: SocketId, watch: bool) -> io::Result<()> {
        self.inner.watch_send(id, watch)
    }

    fn close(&mut self, id: SocketId) {
        self.inner.close(id);
    }

    fn close_all(&mut self) {
        self.inner.close_all();
    }

    fn sync(&mut self, file: RawFd) -> io::Result<()> {
        self.calls.syncs += 1;
        self.inner.sync(file)
    }

    fn system_calls(&self) -> u64 {
        self.inner.system_calls()
    }
}

/// A node whose only core runs on a thread of the test.
struct Bench {
    inbox: Arc<Inbox<Parcel>>,
    counters: Arc<Mutex<Counters>>,
    disk_fails: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), CoreFailure>>,
}

/// Starts the node of index `index` on a watched driver.
fn start(nodes: &Directories, index: usize) -> Bench {
    let inbox = Arc::new(Inbox::new(16).unwrap());
    let counters = Arc::new(Mutex::new(Counters::default()));
    let disk_fails = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(nodes.address(index)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let dir = nodes.dir(index).to_path_buf();
    let (its_inbox, its_counters, its_disk) = (inbox.clone(), counters.clone(), disk_fails.clone());
    let thread = std::thread::spawn(move || {
        let data_dir = DataDir::open(&dir).unwrap();
        let mut core_loop = CoreLoop::new(parts(&data_dir, &its_inbox, listener.into(), &its_disk, &its_counters));
        loop {
            if core_loop.turn()? == Turn::Stop {
                return core_loop.close();
            }
        }
    });
    Bench { inbox, counters, disk_fails, thread }
}

fn parts(
    data_dir: &DataDir,
    inbox: &Arc<Inbox<Parcel>>,
    listener: OwnedFd,
    disk_fails: &Arc<AtomicBool>,
    counters: &Arc<Mutex<Counters>>,
) -> Parts<Watched> {
    let identity = data_dir.identity();
    let nodes: Vec<NodeId> = identity.nodes.iter().map(|(node, _)| *node).collect();
    let descriptors = initial_descriptors(identity.ranges, &nodes);
    let uuid = identity.logs[0];
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: uuid };
    let (log, recovered) = Log::open(&data_dir.log_dir(uuid), whose, &small_log()).unwrap();
    let groups = descriptors
        .iter()
        .map(|descriptor| {
            let kept = &recovered.groups[&descriptor.group];
            let (hard_state, entries) = (kept.hard_state, kept.entries.clone());
            GroupState { descriptor: descriptor.clone(), hard_state, entries }
        })
        .collect();
    let config = CoreConfig {
        incarnation: log.incarnation(),
        nodes: identity.nodes.iter().map(|(node, address)| (*node, address.to_string())).collect(),
        descriptors,
        ..CoreConfig::new(identity.cluster, identity.node, CoreId(0), 1)
    };
    let links = identity
        .nodes
        .iter()
        .filter(|(node, _)| *node != identity.node)
        .map(|(peer, address)| {
            let from = Caller::Peer { node: identity.node, core: CoreId(0), to: *peer, cores: 1 };
            let hello = Hello { cluster: identity.cluster, from, core: CoreId(0), version_min: 1, version_max: 1 };
            Link::new(*peer, *address, hello)
        })
        .collect();
    let household = Household { cluster: identity.cluster, node: identity.node, cores: 1, nodes };
    let inner = EpollDriver::new(inbox.clone(), Some(listener)).unwrap();
    Parts {
        core: Core::new(config, groups, inner.now()),
        driver: Watched { inner, calls: Calls::default(), disk_fails: disk_fails.clone() },
        log,
        inbox: inbox.clone(),
        door: Some(Door::new(household.clone(), CoreId(0), vec![inbox.clone()])),
        household,
        links,
        sync_hold_max: Duration::from_micros(200),
        counters: counters.clone(),
    }
}

#[test]
fn a_turn_keeps_to_its_budget_of_system_calls() {
    let nodes = directories(3, 16, 1);
    let bench = start(&nodes, 0);
    let others: Vec<Node> = [1, 2].map(|node| Node::start(NodeConfig::new(nodes.dir(node))).unwrap()).into();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    client.put("first", "value").unwrap();
    let (mut done, mut sent, mut failed) = (Vec::new(), 0u32, 0);
    const WRITES: u32 = 5_000;
    while done.len() < WRITES as usize {
        while sent < WRITES && sent as usize - done.len() < 64 {
            let key = [&((sent.wrapping_mul(40_503)) as u16).to_be_bytes()[..], &sent.to_be_bytes()].concat();
            client.submit(Request::Put { key: key.into(), value: vec![7; 256].into() });
            sent += 1;
        }
        client.poll(Duration::from_millis(100), &mut done).unwrap();
    }
    for completion in &done {
        failed += usize::from(completion.result.is_err());
    }
    assert_eq!(failed, 0, "of {WRITES} writes");
    bench.inbox.stop();
    // A broken budget is a panic of the loop's thread.
    bench.thread.join().unwrap().unwrap();
    let counters = *bench.counters.lock().unwrap();
    assert!(counters.turns > 100 && counters.syncs > 10, "{counters:?}");
    assert!(counters.system_calls < 10 * counters.turns, "{counters:?}");
    for node in others {
        node.stop().unwrap();
    }
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let nodes = directories(1, 1, 1);
    let bench = start(&nodes, 0);
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let mut client = Client::connect(&nodes.addresses(), options).unwrap();
    client.put("before", "value").unwrap();

    bench.disk_fails.store(true, Ordering::SeqCst);
    let answer = client.put("after", "value");
    assert!(answer.is_err(), "a write whose sync failed was acknowledged");
    let failure = bench.thread.join().unwrap().unwrap_err();
    assert!(matches!(failure, CoreFailure::Log(LogError::Fenced { .. })), "{failure}");
    assert!(failure.to_string().contains("the disk is gone"), "{failure}");

    // The disk did not really fail here; whatever it holds, what was acknowledged is there.
    let node = Node::start(NodeConfig::new(nodes.dir(0))).unwrap();
    let mut client = Client::connect(&nodes.addresses(), ClientOptions::default()).unwrap();
    assert_eq!(client.get("before").unwrap().as_deref(), Some(&b"value"[..]));
    node.stop().unwrap();
}
