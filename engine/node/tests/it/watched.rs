//! A core's loop on the production driver, seen through a layer that counts each turn's calls, and can make a sync slow
//! or fail.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pontoon::core_loop::{CoreLoop, Parts, Turn};
use pontoon::door::{Door, Household};
use pontoon::driver::epoll::EpollDriver;
use pontoon::driver::{Driver, Ready, Received, SocketId};
use pontoon::identity::DataDir;
use pontoon::inbox::{Delivery, Inbox};
use pontoon::link::Link;
use pontoon::store::Store;
use pontoon::store::door::StoreDoor;
use pontoon::store::folder::Folder;
use pontoon::store::format::Owner;
use pontoon::write_limits::WriteLimits;
use pontoon::{CoreFailure, LogOptions};
use pontoon_multiraft::{Core, CoreConfig, GroupState};
use pontoon_router::initial_descriptors;
use pontoon_types::{CoreId, NodeId, Time};
use pontoon_wal::{Log, LogIdentity};
use pontoon_wire::client::Counters;
use pontoon_wire::hello::{Caller, Hello};

use crate::support::{Directories, small_log};

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
    machine: Arc<Machine>,
    /// When the sync in flight was started, and what came of it.
    sync_started: Time,
    synced: Option<io::Result<()>>,
}

/// What a test can do to the machine, and what it sees of it.
#[derive(Default)]
pub struct Machine {
    /// Each sync ends with an error.
    pub disk_fails: AtomicBool,
    /// How long each sync takes at least.
    pub sync_ms: AtomicU64,
    /// How far the loop's clock runs ahead of the machine's.
    pub ahead_ms: AtomicU64,
    /// How often the loop has waited for something.
    pub waits: AtomicU64,
}

impl Watched {
    fn ahead(&self) -> Duration {
        Duration::from_millis(self.machine.ahead_ms.load(Ordering::SeqCst))
    }

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
        self.inner.now() + self.ahead()
    }

    fn ready(&mut self, until: Option<Time>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.check();
        self.machine.waits.fetch_add(1, Ordering::SeqCst);
        let ends = self.sync_started + Duration::from_millis(self.machine.sync_ms.load(Ordering::SeqCst));
        let until = until.map(|until| Time(until.0.saturating_sub(self.ahead().as_nanos() as u64)));
        let until = if self.synced.is_some() { Some(until.map_or(ends, |until| until.min(ends))) } else { until };
        self.inner.ready(until, ready)?;
        if let Some(place) = ready.iter().position(|event| matches!(event, Ready::Synced(_)))
            && let Ready::Synced(result) = ready.remove(place)
        {
            let fails = self.machine.disk_fails.load(Ordering::SeqCst);
            self.synced = Some(if fails { Err(io::Error::other("the disk is gone")) } else { result });
        }
        if ends <= self.inner.now()
            && let Some(result) = self.synced.take()
        {
            ready.push(Ready::Synced(result));
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

    fn watch_receive(&mut self, id: SocketId, watch: bool) -> io::Result<()> {
        self.inner.watch_receive(id, watch)
    }

    fn close(&mut self, id: SocketId) {
        self.inner.close(id);
    }

    fn close_all(&mut self) {
        self.inner.close_all();
    }

    fn sync(&mut self, file: RawFd) -> io::Result<()> {
        self.calls.syncs += 1;
        self.sync_started = self.inner.now();
        self.inner.sync(file)
    }

    fn system_calls(&self) -> u64 {
        self.inner.system_calls()
    }
}

/// A node whose only core runs on a thread of the test.
pub struct Bench {
    pub inbox: Arc<Inbox<Delivery>>,
    pub counters: Arc<Mutex<Counters>>,
    pub machine: Arc<Machine>,
    pub thread: JoinHandle<Result<(), CoreFailure>>,
}

/// Starts the node of index `index` on a watched driver.
pub fn start(nodes: &Directories, index: usize) -> Bench {
    start_with(nodes, index, small_log())
}

/// The same with a log of the given sizes.
pub fn start_with(nodes: &Directories, index: usize, log: LogOptions) -> Bench {
    let inbox = Arc::new(Inbox::new(16).unwrap());
    let counters = Arc::new(Mutex::new(Counters::default()));
    let machine = Arc::new(Machine::default());
    let listener = TcpListener::bind(nodes.address(index)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let dir = nodes.dir(index).to_path_buf();
    let (its_inbox, its_counters, its_machine) = (inbox.clone(), counters.clone(), machine.clone());
    let thread = std::thread::spawn(move || {
        let data_dir = DataDir::open(&dir).unwrap();
        let owner = Owner { cluster: data_dir.identity().cluster, node: data_dir.identity().node };
        let store = Store::start(&Folder::of(&dir, owner)).unwrap();
        let door = store.door(its_inbox.clone());
        let parts = parts(&data_dir, &log, &its_inbox, listener.into(), &its_machine, &its_counters, door);
        let mut core_loop = CoreLoop::new(parts);
        loop {
            if core_loop.turn()? == Turn::Stop {
                return core_loop.close();
            }
        }
    });
    Bench { inbox, counters, machine, thread }
}

fn parts(
    data_dir: &DataDir,
    log: &LogOptions,
    inbox: &Arc<Inbox<Delivery>>,
    listener: OwnedFd,
    machine: &Arc<Machine>,
    counters: &Arc<Mutex<Counters>>,
    store: StoreDoor,
) -> Parts<Watched> {
    let identity = data_dir.identity();
    let nodes: Vec<NodeId> = identity.nodes.iter().map(|(node, _)| *node).collect();
    let descriptors = initial_descriptors(identity.ranges, &nodes);
    let uuid = identity.logs[0];
    let whose = LogIdentity { cluster: identity.cluster, node: identity.node, log: uuid };
    let (mut log, recovered) = Log::open(&data_dir.log_dir(uuid), whose, log).unwrap();
    let segment_bytes = log.segment_bytes() as u32;
    let groups = descriptors
        .iter()
        .map(|descriptor| {
            let kept = &recovered.groups[&descriptor.group];
            let entries = log.load(descriptor.group).unwrap().entries;
            GroupState::new(descriptor.clone(), kept.hard_state, entries)
        })
        .collect();
    let config = CoreConfig {
        incarnation: log.incarnation(),
        nodes: identity.nodes.iter().map(|(node, address)| (*node, address.to_string())).collect(),
        descriptors,
        proposal_bytes_max: WriteLimits::of(log.segment_bytes()).proposal_bytes,
        ..CoreConfig::new(identity.cluster, identity.node, CoreId(0), 1)
    };
    let links = identity
        .nodes
        .iter()
        .filter(|(node, _)| *node != identity.node)
        .map(|(peer, address)| {
            let from = Caller::Peer { node: identity.node, core: CoreId(0), to: *peer, cores: 1, segment_bytes };
            let hello = Hello { cluster: identity.cluster, from, core: CoreId(0), version_min: 1, version_max: 1 };
            Link::new(*peer, *address, hello)
        })
        .collect();
    let household = Household {
        cluster: identity.cluster,
        node: identity.node,
        cores: 1,
        nodes,
        segment_bytes: vec![segment_bytes],
    };
    let inner = EpollDriver::new(inbox.clone(), Some(listener)).unwrap();
    Parts {
        core: Core::new(config, groups, inner.now()),
        driver: Watched {
            inner,
            calls: Calls::default(),
            machine: machine.clone(),
            sync_started: Time(0),
            synced: None,
        },
        log,
        store,
        inbox: inbox.clone(),
        pulse: Arc::default(),
        door: Some(Door::new(household.clone(), CoreId(0), vec![inbox.clone()])),
        household,
        links,
        sync_hold_max: Duration::from_micros(200),
        watches_clock: false,
        counters: counters.clone(),
        ledger: None,
        trace: None,
        memory: Arc::default(),
    }
}
