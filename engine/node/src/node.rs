//! A running node: one thread and one loop for each core, one listening port, one data directory.
//!
//! [`Node::start`] checks the machine and the directory, opens all logs, and returns when every core runs. A node that
//! could not start has changed nothing. [`Node::stop`] is the clean end; dropping a node stops it too.
//!
//! A core is what fails, not a node: when its log is fenced, its disk does not answer or a law is broken, it stops alone. Its
//! sockets close, so its beacons end and its groups get leaders elsewhere; who asks for it is told; the other cores go
//! on. One that the kernel does not let go ([`crate::watch`]) keeps its sockets, but says nothing through them. Only when
//! the core that accepts connections has failed, or all have, [`Node::wait`] returns, and whoever runs the node decides
//! (`pontoond` exits). [`Node::stop`] says which core was the first to fail, however long ago that was.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pontoon_multiraft::{Core, CoreConfig, Past, Priority, RaftConfig};
use pontoon_router::core_of;
use pontoon_types::limits::LOG_PER_UNCOMMITTED;
use pontoon_types::{ClusterId, CoreId, Descriptor, GroupId, NodeId};
use pontoon_wal::Log;
use pontoon_wire::client::{Counters, Operation};
use pontoon_wire::hello::{Caller, Hello};
use pontoon_wire::order::Order;

use crate::config::{NodeConfig, check_cores};
use crate::core_loop::{CoreLoop, GIVE_UP_AFTER, MemoryUse, Parts};
use crate::descriptor_record;
use crate::door::{Door, Household};
use crate::driver::Driver;
use crate::driver::epoll::EpollDriver;
use crate::error::{CoreFailure, DataDirError, StartError};
use crate::executor;
use crate::identity::{DataDir, Identity};
use crate::inbox::{Answer, Delivery, Inbox, Question};
use crate::ledger::{self, LedgerFile, LedgerKeeper};
use crate::link::Link;
use crate::listen::listen_at;
use crate::probe::probe;
use crate::processors;
use crate::quorum_loss;
use crate::recover::{RecoveredCore, descriptors, recover};
use crate::rehome::rehome;
use crate::store::Store;
use crate::store::door::StoreDoor;
use crate::store::folder::Folder;
use crate::store::format::Owner;
use crate::store::recover::Checkpoints;
use crate::trace_file::TraceFile;
use crate::watch::{Pulse, Watch};
use crate::write_limits::WriteLimits;

/// The most connections on their way from the accepting core to another one.
const INBOX_PARCELS_MAX: usize = 1024;

/// How long the end of a node waits for a core that has failed.
const FAILED_CORE_PATIENCE: Duration = Duration::from_secs(5);

/// The core that accepts connections for all.
const ACCEPTING: CoreId = CoreId(0);

/// A running node.
#[derive(Debug)]
pub struct Node {
    identity: Identity,
    address: SocketAddr,
    cores: Vec<CoreHandle>,
    status: Arc<Status>,
    /// Looks for cores that do not come back, as long as the node is not asked to stop.
    watch: Option<Watch>,
    /// Ends when all cores have.
    store: Store,
    /// Holds the directory's lock until all cores and the store have ended.
    _data_dir: DataDir,
}

#[derive(Debug)]
struct CoreHandle {
    inbox: Arc<Inbox<Delivery>>,
    counters: Arc<Mutex<Counters>>,
    memory: Arc<Mutex<MemoryUse>>,
    thread: Option<JoinHandle<()>>,
}

/// A core that stopped by itself.
#[derive(Debug, thiserror::Error)]
#[error("core {core} of node {node} stopped: {failure}")]
pub struct NodeFailure {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// Why.
    pub failure: CoreFailure,
}

/// Asks a node to stop, from any thread.
#[derive(Clone, Debug)]
pub struct StopHandle {
    status: Arc<Status>,
}

/// Why [`Node::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// Somebody used a [`StopHandle`].
    Requested,
    /// The core that accepts connections failed, or all cores did; [`Node::stop`] says why.
    Failed,
}

#[derive(Debug, Default)]
struct Status {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop_requested: bool,
    /// Those that ended by themselves.
    failed: BTreeSet<CoreId>,
    /// The first failure.
    failure: Option<NodeFailure>,
    /// The socket that the accepting core listens at, until the node is asked to stop.
    listener: Option<OwnedFd>,
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is one store, so a thread that panicked with the lock left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first failure. Says what goes on without the core.
    fn fail(&self, failure: NodeFailure) {
        tracing::error!("{failure}");
        let core = failure.core;
        let mut state = self.lock();
        if state.failed.insert(core) && core != ACCEPTING {
            tracing::error!(
                "the other cores go on; until the node is started again the groups of core {core} live on other nodes"
            );
        }
        state.failure.get_or_insert(failure);
        if core == ACCEPTING
            && let Some(listener) = state.listener.take()
        {
            // The core cannot close its own while it is held in a call. A socket that does not listen is as good as closed.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Runs a core to its end. A panic that nobody caught is a failure too, wherever in the core's life it comes.
    fn watch(&self, node: NodeId, core: CoreId, run: impl FnOnce()) {
        if let Err(failure) = executor::guarded(|| {
            run();
            Ok(())
        }) {
            self.fail(NodeFailure { node, core, failure });
        }
    }
}

impl StopHandle {
    /// Makes [`Node::wait`] return.
    pub fn request(&self) {
        self.status.lock().stop_requested = true;
        self.status.changed.notify_all();
    }
}

/// What every core of a node is built from.
struct Blueprint {
    config: NodeConfig,
    identity: Identity,
    household: Household,
    address: SocketAddr,
    descriptors: Vec<Descriptor>,
    /// The longest promise of all starts before this one.
    longest_promise: Duration,
    inboxes: Vec<Arc<Inbox<Delivery>>>,
}

impl Node {
    /// Starts a node and returns when all its cores run.
    pub fn start(config: NodeConfig) -> Result<Node, StartError> {
        let mut data_dir = DataDir::open(&config.data_dir)?;
        quorum_loss::check_start(&config.data_dir)?;
        let identity = data_dir.identity();
        check_expectations(&config, identity)?;
        let own = identity.nodes.iter().find(|(node, _)| *node == identity.node);
        let (_, own_address) = *own.ok_or_else(|| DataDirError::Unreadable {
            path: config.data_dir.join("node"),
            why: "it does not list its own node".to_string(),
        })?;
        let core_count = config.cores.map_or(Ok(identity.logs.len() as u16), check_cores)?;
        probe(core_count)?;
        let (listener, address) = listen_at(config.listen.unwrap_or(own_address))?;
        rehome(&mut data_dir, &config.log, core_count)?;
        let owner = Owner { cluster: data_dir.identity().cluster, node: data_dir.identity().node };
        let checkpoints = Checkpoints::look(Folder::of(&config.data_dir, owner))?;
        let recovered = recover(&data_dir, &config.log, &checkpoints)?;
        let longest_promise = data_dir.begin_incarnation(config.lease.map_or(Duration::ZERO, |lease| lease.length))?;
        if let Err(error) = data_dir.remove_retired() {
            tracing::warn!("{error}; the logs that the node has given up stay there until the next start");
        }
        let store = start_store(checkpoints, &recovered)?;
        let identity = data_dir.identity().clone();
        let inboxes = (0..core_count)
            .map(|core| {
                Inbox::new(INBOX_PARCELS_MAX)
                    .map(Arc::new)
                    .map_err(|error| StartError::Core { core: CoreId(core), why: error.to_string() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let blueprint = Arc::new(Blueprint {
            household: Household {
                cluster: identity.cluster,
                node: identity.node,
                cores: core_count,
                nodes: identity.nodes.iter().map(|(node, _)| *node).collect(),
                segment_bytes: recovered.iter().map(|core| core.log.segment_bytes() as u32).collect(),
            },
            descriptors: descriptors(&identity, &recovered),
            longest_promise,
            config,
            identity: identity.clone(),
            address,
            inboxes,
        });
        let mut node = Node {
            identity,
            address,
            cores: Vec::new(),
            status: Arc::new(Status::default()),
            watch: None,
            store,
            _data_dir: data_dir,
        };
        node.start_cores(blueprint, recovered, listener)?;
        tracing::info!(node = %node.identity.node, cluster = %node.identity.cluster, %address, "node runs");
        Ok(node)
    }

    /// The address that the node listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which node of its cluster it is.
    pub fn node_id(&self) -> NodeId {
        self.identity.node
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    /// What each core has counted, as of at most a tenth of a second before its last turn.
    pub fn counters(&self) -> Vec<Counters> {
        self.cores.iter().map(|core| *core.counters.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// What each core holds of its groups' logs in memory, as of then.
    pub fn memory(&self) -> Vec<MemoryUse> {
        self.cores.iter().map(|core| *core.memory.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Gives an order to the core of a group, as a client would. The answer comes when it is done, and is
    /// [`Outcome::Ordered`](pontoon_wire::client::Outcome::Ordered) then; a node that does not lead the group says who does. None
    /// when the core has ended or has too much before it; when it ends before it answers, the channel does too.
    pub fn order(&self, group: GroupId, order: Order) -> Option<Receiver<Answer>> {
        self.ask(group, Operation::Order { group, generation: None, order })
    }

    /// Asks the core of a group for its members; the rest is as with [`Node::order`].
    pub fn members(&self, group: GroupId) -> Option<Receiver<Answer>> {
        self.ask(group, Operation::Members { group, generation: None })
    }

    fn ask(&self, group: GroupId, operation: Operation) -> Option<Receiver<Answer>> {
        let core = core_of(group, self.cores.len() as u16);
        let (answer, answered) = mpsc::channel();
        let question = Delivery::Question(Question { operation, answer });
        self.cores[usize::from(core.0)].inbox.push(question).is_ok().then_some(answered)
    }

    /// A way to end [`Node::wait`].
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { status: self.status.clone() }
    }

    /// Sleeps until somebody asks the node to stop, or it cannot go on because of cores that failed.
    pub fn wait(&self) -> WaitEnd {
        let mut state = self.status.lock();
        loop {
            if state.failed.contains(&ACCEPTING) || state.failed.len() == self.cores.len() {
                return WaitEnd::Failed;
            }
            if state.stop_requested {
                return WaitEnd::Requested;
            }
            state = self.status.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops accepting, finishes the syncs in flight, closes the logs and all sockets. Says which core had failed.
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        self.end_cores();
        self.status.lock().failure.take().map_or(Ok(()), Err)
    }

    fn start_cores(
        &mut self,
        blueprint: Arc<Blueprint>,
        recovered: Vec<RecoveredCore>,
        listener: OwnedFd,
    ) -> Result<(), StartError> {
        let cpus = processors::of_cores(&blueprint.config, recovered.len());
        tracing::info!("cores keep to processors {}", processors::named(&cpus));
        let (started, outcomes) = mpsc::channel();
        let no_copy = |error: std::io::Error| StartError::Core { core: ACCEPTING, why: error.to_string() };
        self.status.lock().listener = Some(listener.try_clone().map_err(no_copy)?);
        let mut listener = Some(listener);
        let mut pulses = Vec::new();
        for (index, (recovered, cpu)) in recovered.into_iter().zip(cpus).enumerate() {
            let core = CoreId(index as u16);
            let pulse = Arc::new(Pulse::default());
            let counters = Arc::new(Mutex::new(Counters::default()));
            let memory = Arc::new(Mutex::new(MemoryUse::default()));
            let site = Site {
                core,
                cpu,
                blueprint: blueprint.clone(),
                listener: listener.take(),
                pulse: pulse.clone(),
                counters: counters.clone(),
                memory: memory.clone(),
                status: self.status.clone(),
                store: self.store.door(blueprint.inboxes[index].clone()),
            };
            let started = started.clone();
            let thread = std::thread::Builder::new()
                .name(format!("pontoon-{}{core}", blueprint.identity.node))
                .spawn(move || site.run(recovered, started))
                .map_err(|error| StartError::Core { core, why: error.to_string() })?;
            let inbox = blueprint.inboxes[index].clone();
            pulses.push(pulse);
            self.cores.push(CoreHandle { inbox, counters, memory, thread: Some(thread) });
        }
        drop(started);
        self.await_cores(outcomes)?;
        self.watch_cores(blueprint.identity.node, pulses)
    }

    fn watch_cores(&mut self, node: NodeId, pulses: Vec<Arc<Pulse>>) -> Result<(), StartError> {
        let inboxes: Vec<_> = self.cores.iter().map(|core| core.inbox.clone()).collect();
        let status = self.status.clone();
        let give_up = move |core: u16| {
            let inbox = &inboxes[usize::from(core)];
            if inbox.is_closed() {
                // It has failed by itself and is in no turn any more.
                return;
            }
            inbox.close();
            let failure = CoreFailure::Away { after: GIVE_UP_AFTER };
            status.fail(NodeFailure { node, core: CoreId(core), failure });
        };
        let watch = Watch::start(format!("pontoon-{node}watch"), pulses, give_up);
        self.watch = Some(watch.map_err(|error| StartError::Core { core: ACCEPTING, why: error.to_string() })?);
        Ok(())
    }

    fn await_cores(&self, outcomes: Receiver<(CoreId, Result<(), String>)>) -> Result<(), StartError> {
        for _ in &self.cores {
            match outcomes.recv() {
                Ok((_, Ok(()))) => {}
                Ok((core, Err(why))) => return Err(StartError::Core { core, why }),
                Err(_) => {
                    let why = "it ended before it had started".to_string();
                    return Err(StartError::Core { core: CoreId(0), why });
                }
            }
        }
        Ok(())
    }

    fn end_cores(&mut self) {
        self.watch = None;
        self.status.lock().listener = None;
        for core in &self.cores {
            core.inbox.stop();
        }
        let failed = self.status.lock().failed.clone();
        for (core, number) in self.cores.iter_mut().zip(0..) {
            let Some(thread) = core.thread.take() else { continue };
            if failed.contains(&CoreId(number)) && !ends_soon(&thread) {
                tracing::error!("core {} still waits for its disk and is left behind", CoreId(number));
            } else if thread.join().is_err() {
                // Only the report of a failure can do that; the failure itself was caught.
                tracing::error!("a core's thread panicked while it reported its end");
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end_cores();
    }
}

/// Waits a while for a core that has failed: its log may be on a disk that does not answer, and then it never lets go.
fn ends_soon(thread: &JoinHandle<()>) -> bool {
    let until = Instant::now() + FAILED_CORE_PATIENCE;
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.is_finished()
}

/// Refuses a directory that is not the one that the configuration means.
fn check_expectations(config: &NodeConfig, identity: &Identity) -> Result<(), DataDirError> {
    let other = |found: String, expected: String| DataDirError::Other { dir: config.data_dir.clone(), found, expected };
    if let Some(node) = config.node.filter(|node| *node != identity.node) {
        return Err(other(format!("node {}", identity.node), format!("node {node}")));
    }
    if let Some(cluster) = config.cluster.filter(|cluster| *cluster != identity.cluster) {
        return Err(other(format!("cluster {}", identity.cluster), format!("cluster {cluster}")));
    }
    Ok(())
}

/// What one core's thread is given.
struct Site {
    core: CoreId,
    cpu: Option<usize>,
    blueprint: Arc<Blueprint>,
    listener: Option<OwnedFd>,
    pulse: Arc<Pulse>,
    counters: Arc<Mutex<Counters>>,
    memory: Arc<Mutex<MemoryUse>>,
    status: Arc<Status>,
    store: StoreDoor,
}

impl Site {
    fn run(self, recovered: RecoveredCore, started: Sender<(CoreId, Result<(), String>)>) {
        let (core, node, status) = (self.core, self.blueprint.identity.node, self.status.clone());
        let (cpu, inbox) = (self.cpu, self.blueprint.inboxes[usize::from(core.0)].clone());
        let run = || {
            executor::run(
                core,
                cpu,
                move || self.build(recovered),
                // The node may have given up on another core; then nobody listens.
                move |outcome| drop(started.send((core, outcome))),
                |failure| {
                    inbox.close();
                    status.fail(NodeFailure { node, core, failure });
                },
            );
        };
        status.watch(node, core, run);
    }

    fn build(self, recovered: RecoveredCore) -> std::io::Result<CoreLoop<EpollDriver>> {
        let Site { core, blueprint, listener, pulse, counters, memory, store, .. } = self;
        let inbox = blueprint.inboxes[usize::from(core.0)].clone();
        let door = listener.is_some().then(|| Door::new(blueprint.household.clone(), core, blueprint.inboxes.clone()));
        let driver = EpollDriver::new(inbox.clone(), listener)?;
        let RecoveredCore { log, groups, tombstones, .. } = recovered;
        let (ledger, past) = past(&blueprint, core, &log).map_err(std::io::Error::other)?;
        let config = CoreConfig { tombstones, past: Some(past), ..core_config(&blueprint, core, &log)? };
        let trace_of = |dir: &PathBuf| TraceFile::create(dir, blueprint.identity.node, core, log.incarnation());
        let trace = blueprint.config.trace_dir.as_ref().map(trace_of).transpose()?;
        Ok(CoreLoop::new(Parts {
            core: Core::new(config, groups, driver.now()),
            driver,
            log,
            store,
            inbox: inbox.clone(),
            pulse,
            household: blueprint.household.clone(),
            door,
            links: links(&blueprint, core),
            sync_hold_max: blueprint.config.sync_hold_max,
            watches_clock: true,
            counters,
            ledger: Some(LedgerKeeper::start(ledger, inbox.clone())?),
            trace,
            memory,
        }))
    }
}

/// Tidies the checkpoints up and starts the threads that write them.
fn start_store(checkpoints: Checkpoints, recovered: &[RecoveredCore]) -> Result<Store, StartError> {
    let here = recovered.iter().flat_map(|core| &core.groups).map(|state| state.descriptor.group).collect();
    let orphans: Vec<GroupId> = recovered.iter().flat_map(|core| core.orphans.iter().copied()).collect();
    Store::start(&checkpoints.sweep(&here, &orphans))
        .map_err(|error| StartError::Core { core: ACCEPTING, why: format!("no thread for its store: {error}") })
}

/// What a core is told of its lives so far.
fn past(blueprint: &Blueprint, core: CoreId, log: &Log) -> Result<(LedgerFile, Past), DataDirError> {
    let dir = &blueprint.config.data_dir;
    let (file, mut ledger) = LedgerFile::open(dir, core)?;
    ledger.refused |= ledger::was_refused(dir)?;
    let mut life = [0; 8];
    getrandom::fill(&mut life)
        .map_err(|error| DataDirError::io(dir, "draw a number for", std::io::Error::other(error.to_string())))?;
    let past = Past {
        life: u64::from_le_bytes(life).max(1),
        log: blueprint.identity.logs[usize::from(core.0)],
        mark: log.mark(),
        ledger,
        vouched: blueprint.config.trust_data_dir,
    };
    Ok((file, past))
}

fn core_config(blueprint: &Blueprint, core: CoreId, log: &Log) -> std::io::Result<CoreConfig> {
    let identity = &blueprint.identity;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| std::io::Error::other(error.to_string()))?;
    let address_of = |node: NodeId, address: SocketAddr| {
        // This node may listen somewhere else than the directory says, and it knows best.
        if node == identity.node { blueprint.address.to_string() } else { address.to_string() }
    };
    let window_bytes = blueprint.config.window_bytes_max.max(1);
    let limits = WriteLimits::of(log.segment_bytes());
    let standard = CoreConfig::new(identity.cluster, identity.node, core, blueprint.household.cores);
    Ok(CoreConfig {
        incarnation: log.incarnation(),
        seed: u64::from_le_bytes(seed),
        nodes: identity.nodes.iter().map(|(node, address)| (*node, address_of(*node, *address))).collect(),
        descriptors: blueprint.descriptors.clone(),
        proposal_bytes_max: limits.proposal_bytes,
        command_bytes_max: limits.command_bytes,
        log_uncommitted_bytes_max: (blueprint.config.log.max_log_bytes / LOG_PER_UNCOMMITTED) as usize,
        encode_descriptor: descriptor_record::encode,
        trace: blueprint.config.trace_dir.is_some(),
        lease: blueprint.config.lease,
        longest_promise: blueprint.longest_promise,
        window_bytes_max: window_bytes,
        raft: Arc::new(RaftConfig {
            append_bytes_max: limits.append_bytes,
            priority: blueprint.config.priority.min(Priority::LAST),
            window_bytes_max: standard.raft.window_bytes_max.min(window_bytes),
            ..(*standard.raft).clone()
        }),
        ..standard
    })
}

/// One link to each other node, to its core of the same number: all nodes have the same number of cores, and a group
/// lives on the same core everywhere.
fn links(blueprint: &Blueprint, core: CoreId) -> Vec<Link> {
    let identity = &blueprint.identity;
    let mut links: Vec<Link> = identity
        .nodes
        .iter()
        .filter(|(node, _)| *node != identity.node)
        .map(|(peer, address)| {
            let hello = Hello {
                cluster: identity.cluster,
                from: Caller::Peer {
                    node: identity.node,
                    core,
                    to: *peer,
                    cores: blueprint.household.cores,
                    segment_bytes: blueprint.household.segment_bytes[usize::from(core.0)],
                },
                core,
                version_min: pontoon_wire::VERSION_MIN,
                version_max: pontoon_wire::VERSION,
            };
            Link::new(*peer, *address, hello)
        })
        .collect();
    links.sort_by_key(Link::peer);
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_panics_at_its_end_is_a_failure_of_the_node() {
        let status = Status::default();
        status.watch(NodeId(1), CoreId(0), || ());
        assert!(status.lock().failure.is_none());
        status.watch(NodeId(1), CoreId(2), || panic!("law: a closed log is closed once"));
        status.watch(NodeId(1), CoreId(3), || panic!("a consequence"));
        let failure = status.lock().failure.take().expect("the panic was recorded");
        assert_eq!((failure.node, failure.core), (NodeId(1), CoreId(2)));
        assert!(failure.to_string().contains("law: a closed log is closed once"), "{failure}");
    }
}
