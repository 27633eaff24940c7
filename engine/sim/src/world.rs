//! The simulated world: everything that exists in a run, and the one loop that lets the next thing happen.
//!
//! The world is a shell around [`pontoon_multiraft::Core`], as the glommio node is. It has one agenda; whatever takes
//! time is put there as a [`Due`]. The verbs are in files of their own: `turn` (what a core does), `sync` (what its log
//! does), `start`, `process`, `clock`, `network`, `client`, `connection`, `faults`, `liveness`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::sessions::SessionLimits;
use pontoon_multiraft::{ConnectionId, Event, Ledger, Reader};
use pontoon_router::{core_of, initial_descriptors};
use pontoon_types::{Descriptor, FetchNumber, GroupId, Incarnation, NodeId, Time};

use crate::client::{Attempt, Client, Connection};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::faults::Fault;
use crate::history::History;
use crate::invariants::{Disks, Invariants};
use crate::network::{Flight, Network, in_flight_bytes_max};
use crate::operator::Operators;
use crate::options::Options;
use crate::process::{Arrival, Node, RunningCore};
use crate::queue::Queue;
use crate::quorum_loss::QuorumLoss;
use crate::random::Random;
use crate::read_law::ReadLaw;
use crate::repeats::RepeatOptions;
use crate::report::Counts;
use crate::trace::{Place, Trace};
use crate::turn::message_of;
use crate::violation::Broken;

/// Something on the agenda.
#[derive(Debug)]
pub enum Due {
    /// A core takes a turn with what arrived.
    Turn(Place, Incarnation),
    /// A core's deadline.
    Wake(Place, Incarnation),
    /// The sync in flight of a core is done.
    SyncDone(Place, Incarnation),
    /// A frame reaches a node.
    Arrive(Flight),
    /// A link breaks, if it is still in this epoch.
    Break(Place, NodeId, u64),
    /// A core dials a peer.
    Dial(Place, NodeId),
    /// A crashed node starts.
    StartNode(NodeId),
    /// A paused core goes on.
    Resume(Place, Incarnation),
    /// A suspended machine goes on.
    MachineGoesOn(NodeId, Incarnation),
    /// The log stops pretending to be full.
    LogHasRoom(Place, Incarnation),
    /// The sync in flight of a core takes too long.
    SyncStalls(Place, Incarnation),
    /// The log is sealed, if nothing was handed to it since this was put down.
    Seal(Place, Incarnation),
    /// The log has waited for a segment.
    AskForSegment(Place, Incarnation),
    /// A ledger of a core is durable.
    LedgerKept(Place, Incarnation, u64, Ledger),
    /// The log of a core looks for what a reader of a group asked for.
    Fetch(Place, Incarnation, GroupId, Reader, FetchNumber),
    /// The store of a core carries out an order.
    Store(Place, Incarnation),
    /// Somebody made room on a disk.
    DiskHasRoom(Place),
    /// The next fault of a kind.
    Fault(Fault),
    /// The partition with this number is over.
    Heal(u64),
    /// The next of these nodes is cut off.
    IsolateNext(Vec<NodeId>),
    /// A quorum of the nodes is lost for good.
    LoseQuorum,
    /// Those that survive are stopped.
    StopForGood,
    /// The groups that lost their quorum begin anew.
    BeginAnew,
    /// A node that was lost starts all the same.
    ComeBack(NodeId),
    /// A link is reset.
    Reset(Place, NodeId),
    /// A node is killed so many times more.
    KillInStorm(NodeId, u32),
    /// A lane goes on; the number tells an outdated wake-up.
    WakeLane(usize, usize, u64),
    /// An operation took too long.
    GiveUp(usize, usize, u64),
    /// A client's gathered requests leave.
    Flush(usize),
    /// Requests reach a core.
    AtNode(ConnectionId, Bytes),
    /// Requests reach a core once more.
    Again(Place, Bytes),
    /// An attempt of a lane has had its time.
    AskAgain(usize, usize, u64),
    /// Replies reach a client.
    AtClient(ConnectionId, Bytes),
    /// A core hears that a client is gone.
    GoneAtNode(ConnectionId),
    /// A client hears that its connection is closed.
    ClosedAtClient(ConnectionId),
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Faults happen and clients load the cluster.
    Faults,
    /// Everything is healed; the cluster must serve and converge.
    Liveness,
    /// Nobody asks for anything; groups must be asleep.
    Idle,
}

/// Everything in a run.
#[derive(Debug)]
pub struct World {
    pub(crate) options: Options,
    pub(crate) random: Random,
    /// What groups remember, for the whole run: a part of what their logs mean.
    pub(crate) session_limits: SessionLimits,
    /// The stream of `repeats`.
    pub(crate) repeats: Random,
    pub(crate) operators: Operators,
    pub(crate) loss: QuorumLoss,
    /// For what concerns lives and images, so that it shifts nothing else.
    pub(crate) lives: Random,
    /// For what becomes of checkpoints, likewise.
    pub(crate) rots: Random,
    pub(crate) queue: Queue<Due>,
    pub(crate) trace: Trace,
    /// The protocol events of all cores in the order of the run, if they are wanted.
    pub(crate) protocol: Option<Vec<String>>,
    pub(crate) phase: Phase,
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) cores: BTreeMap<Place, RunningCore>,
    pub(crate) disks: Disks,
    pub(crate) network: Network,
    /// Peers whose frame in a core's inbox was changed on its way; only those may be refused.
    pub(crate) corrupt_arrivals: BTreeSet<(Place, NodeId)>,
    pub(crate) clients: Vec<Client>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) processes: u128,
    pub(crate) operations: u64,
    pub(crate) history: History,
    pub(crate) invariants: Invariants,
    pub(crate) read_law: ReadLaw,
    pub(crate) counts: Counts,
}

impl World {
    /// A world in which all nodes are about to start for the first time.
    pub fn new(options: Options, keep_trace: bool, keep_protocol: bool) -> World {
        // Another stream than the one the options were drawn from, so that overrides do not shift the run's chances.
        let mut random = Random::new(options.seed ^ 0x7073_696d_776f_726c);
        let ids: Vec<NodeId> = (1..=u64::from(options.nodes)).map(NodeId).collect();
        let founders = &ids[..usize::from(options.founders)];
        let descriptors = initial_descriptors(options.groups, founders);
        let mut disks = Disks::new();
        let mut nodes = BTreeMap::new();
        for id in &ids {
            let clock = Clock::draw(&mut random, 0);
            nodes.insert(*id, Node::new(clock));
            for core in 0..options.cores {
                let place = Place { node: *id, core: pontoon_types::CoreId(core) };
                let groups = descriptors.iter().map(|descriptor| descriptor.group);
                let is_founder = founders.contains(id);
                let groups = groups.filter(|group| is_founder && core_of(*group, options.cores) == place.core);
                disks.insert(place, Disk::new(place, groups, options.disk.log(), &mut random.fork(id.0)));
            }
        }
        let history = History::new(&descriptors, options.client.keys);
        let may_begin_anew = !options.loss.after.is_zero();
        let invariants = Invariants::new(&descriptors, options.repeats.sessions, may_begin_anew);
        let read_law = ReadLaw::new(&descriptors);
        World {
            random,
            session_limits: options.repeats.sessions,
            repeats: RepeatOptions::random(options.seed),
            operators: Operators::new(options.seed),
            loss: QuorumLoss::new(options.seed),
            lives: Random::new(options.seed ^ 0x006c_6976_6573),
            rots: Random::new(options.seed ^ 0x726f_7473),
            queue: Queue::new(),
            trace: Trace::new(keep_trace),
            protocol: keep_protocol.then(Vec::new),
            phase: Phase::Faults,
            nodes,
            cores: BTreeMap::new(),
            disks,
            network: Network::default(),
            corrupt_arrivals: BTreeSet::new(),
            clients: Vec::new(),
            connections: Vec::new(),
            attempts: Vec::new(),
            processes: 0,
            operations: 0,
            history,
            invariants,
            read_law,
            counts: Counts::default(),
            descriptors,
            options,
        }
    }

    /// Starts the nodes, the clients and the faults.
    pub fn begin(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let wait = self.random.until_next(self.options.process.restart_delay);
            self.queue.put(self.queue.now() + wait, Due::StartNode(id));
        }
        for _ in 0..self.options.client.clients {
            self.add_client(self.options.client.scripts());
        }
        if self.options.client.loyal_readers {
            self.add_loyal_readers();
        }
        self.begin_faults();
        if !self.options.loss.after.is_zero() {
            self.queue.put(Time(0) + self.options.loss.after, Due::LoseQuorum);
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.queue.now()
    }

    /// Lets everything happen that is due before `end`.
    pub fn run_until(&mut self, end: Time) -> Result<(), Broken> {
        let in_flight_bytes_max = in_flight_bytes_max(self.options.groups);
        while let Some(due) = self.queue.pop_before(end) {
            self.counts.steps += 1;
            self.happen(due)?;
            if self.network.in_flight_bytes > in_flight_bytes_max {
                let what = format!("{in_flight_bytes_max} bytes of frames are under way, and they grow");
                return Err(Broken::Stuck(what));
            }
        }
        Ok(())
    }

    fn happen(&mut self, due: Due) -> Result<(), Broken> {
        match due {
            Due::Turn(place, incarnation) if self.lives(place, incarnation) => self.turn(place)?,
            Due::Wake(place, incarnation) if self.lives(place, incarnation) => self.wake(place),
            Due::SyncDone(place, incarnation) if self.lives(place, incarnation) => self.sync_done(place)?,
            Due::SyncStalls(place, incarnation) if self.lives(place, incarnation) => self.sync_stalls(place),
            Due::Seal(place, incarnation) if self.lives(place, incarnation) => self.seal(place)?,
            Due::AskForSegment(place, incarnation) if self.lives(place, incarnation) => self.ask_for_segment(place)?,
            Due::Resume(place, incarnation) if self.lives(place, incarnation) => self.resume_core(place),
            Due::LogHasRoom(place, incarnation) if self.lives(place, incarnation) => self.log_has_room(place),
            Due::Fetch(place, incarnation, group, reader, number) if self.lives(place, incarnation) => {
                self.serve_fetch(place, group, reader, number)?;
            }
            Due::Store(place, incarnation) if self.lives(place, incarnation) => self.store_works(place),
            Due::LedgerKept(place, incarnation, number, ledger) if self.lives(place, incarnation) => {
                self.ledger_kept(place, number, ledger);
            }
            // These were meant for an incarnation that is gone.
            Due::Turn(..) | Due::Wake(..) | Due::SyncDone(..) | Due::Resume(..) => {}
            Due::LogHasRoom(..)
            | Due::SyncStalls(..)
            | Due::Seal(..)
            | Due::AskForSegment(..)
            | Due::Fetch(..)
            | Due::LedgerKept(..)
            | Due::Store(..) => {}
            Due::MachineGoesOn(node, incarnation) => self.machine_goes_on(node, incarnation),
            Due::DiskHasRoom(place) => self.disk_has_room(place),
            Due::Arrive(flight) => self.arrive(flight),
            Due::Break(from, to, epoch) => self.break_if(from, to, epoch),
            Due::Dial(from, to) => self.dial(from, to),
            Due::StartNode(node) => self.start_node(node)?,
            Due::Fault(fault) => self.inject(fault)?,
            Due::Heal(number) => self.heal_partition(number),
            Due::IsolateNext(nodes) => self.isolate_next(nodes),
            Due::LoseQuorum => self.lose_quorum(),
            Due::StopForGood => self.stop_for_good()?,
            Due::BeginAnew => self.begin_anew()?,
            Due::ComeBack(node) => self.come_back(node)?,
            Due::Reset(from, to) if self.phase == Phase::Faults => self.break_link(from, to),
            Due::Reset(..) => {}
            Due::KillInStorm(node, kills) => self.kill_in_storm(node, kills),
            Due::WakeLane(client, lane, wake) => self.wake_lane(client, lane, wake),
            Due::GiveUp(client, lane, id) => self.give_up(client, lane, id),
            Due::Flush(client) => self.flush(client),
            Due::AtNode(connection, bytes) => self.requests_arrive(connection, bytes),
            Due::Again(place, bytes) => self.arrives_again(place, bytes),
            Due::AskAgain(client, lane, attempt) => self.attempt_over(client, lane, attempt),
            Due::AtClient(connection, bytes) => self.replies_arrive(connection, bytes)?,
            Due::GoneAtNode(connection) => self.gone_at_node(connection),
            Due::ClosedAtClient(connection) => self.close_at_client(connection, None),
        }
        Ok(())
    }

    /// Does something with a disk. An assertion that stops it is a broken law.
    pub(crate) fn guarded<T>(&mut self, place: Place, what: impl FnOnce(&mut Disk) -> T) -> Result<T, Broken> {
        let disk = self.disk(place);
        let done = catch_unwind(AssertUnwindSafe(|| what(disk)));
        done.map_err(|panic| Broken::Stopped { place, message: message_of(&*panic) })
    }

    fn lives(&self, place: Place, incarnation: Incarnation) -> bool {
        self.cores.contains_key(&place) && self.nodes[&place.node].incarnation == incarnation
    }

    /// Puts an event into a core's inbox, if the core runs.
    pub(crate) fn push(&mut self, place: Place, event: Event) {
        self.deliver(place, event, false);
    }

    /// Likewise; `ignored` says that a correct core changes nothing for it.
    pub(crate) fn deliver(&mut self, place: Place, event: Event, ignored: bool) {
        if let Some(running) = self.cores.get_mut(&place) {
            running.inbox.push(Arrival { event, ignored });
            self.schedule_turn(place);
        }
    }

    /// Puts a turn on the agenda, unless there is one: what arrives until then shares it.
    pub(crate) fn schedule_turn(&mut self, place: Place) {
        let Some(running) = self.cores.get_mut(&place) else { return };
        if running.turn_due || running.paused {
            return;
        }
        running.turn_due = true;
        let wait = self.random.span(Duration::from_micros(1), self.options.process.turn_delay_max);
        let incarnation = self.nodes[&place.node].incarnation;
        self.queue.put(self.queue.now() + wait, Due::Turn(place, incarnation));
    }

    /// The groups of the cluster.
    pub(crate) fn group_ids(&self) -> Vec<GroupId> {
        self.descriptors.iter().map(|descriptor| descriptor.group).collect()
    }
}
