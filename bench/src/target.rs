//! What carries a job: a running cluster, and the counters around it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use pontoon_client::{
    Client, ClientError, ClientOptions, Completion, CoreStatus, ReadLevel, Request, Response, Ticket,
};
use pontoon_types::{CoreId, NodeId, Time};
use pontoon_wire::client::GroupRole;

use crate::clock;
use crate::disk::Device;
use crate::error::{BenchError, UNHEALTHY};
use crate::job::{Job, Next, Operation, Outcome};

/// The longest sleep of the client, so that the end of a phase and an interrupt are seen.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// The pause between two looks at a cluster that has no leaders yet.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// All counters at one moment.
pub struct Snapshot {
    /// When.
    pub at: Time,
    /// Processor time of the client's thread so far.
    pub client_cpu: Duration,
    /// Bytes written to the device so far.
    pub device_bytes: Option<u64>,
    /// The cores that answered.
    pub cores: Vec<CoreStatus>,
}

/// Something that a load can go to.
pub trait Target {
    /// Carries out a job to its end and gives it back.
    fn run<J: Job + 'static>(&mut self, job: J) -> Result<J, BenchError>;

    /// The snapshots that jobs asked for since the last call.
    fn take_snapshots(&mut self) -> Vec<Snapshot>;
}

/// A Pontoon cluster, through the real client.
pub struct PontoonTarget {
    client: Client,
    cores: Vec<(NodeId, CoreId)>,
    device: Device,
    waiting: BTreeMap<Ticket, Waiting>,
    snapshots: Vec<Snapshot>,
}

/// What a ticket stands for.
enum Waiting {
    Slot(u32),
    Status(usize),
}

impl PontoonTarget {
    /// Connects and waits until every range has a leader.
    pub fn connect(
        endpoints: &[SocketAddr],
        options: ClientOptions,
        device: Device,
        ready_timeout: Duration,
    ) -> Result<PontoonTarget, BenchError> {
        let client = Client::connect(endpoints, options)?;
        let cache = client.cache();
        let cores = cache.nodes().flat_map(|node| (0..cache.cores()).map(move |core| (node, CoreId(core)))).collect();
        let mut target = PontoonTarget { client, cores, device, waiting: BTreeMap::new(), snapshots: Vec::new() };
        target.wait_for_leaders(ready_timeout)?;
        Ok(target)
    }

    /// How many nodes, cores of each, and ranges the cluster has.
    pub fn size(&mut self) -> Result<(usize, u16, usize), BenchError> {
        let ranges = self.client.routes()?.ranges.len();
        Ok((self.client.cache().nodes().count(), self.client.cache().cores(), ranges))
    }

    /// The state of every core that answers.
    pub fn statuses(&mut self) -> Vec<CoreStatus> {
        let cores = self.cores.clone();
        cores.into_iter().filter_map(|(node, core)| self.client.status(node, core).ok()).collect()
    }

    fn wait_for_leaders(&mut self, timeout: Duration) -> Result<(), BenchError> {
        let deadline = clock::now() + timeout;
        let ranges = self.client.routes()?.ranges.len();
        loop {
            let led: usize = self.statuses().iter().map(leaders).sum();
            if led >= ranges {
                return Ok(());
            }
            if clock::now() >= deadline {
                let line = format!("{led} of {ranges} ranges have a leader after {} s", timeout.as_secs());
                return Err(BenchError::new(UNHEALTHY, line));
            }
            std::thread::sleep(READY_PAUSE);
        }
    }

    fn submit(&mut self, operation: Operation) {
        let request = match operation.value {
            Some(value) => Request::Put { key: operation.key, value },
            None => Request::Get { key: operation.key, level: ReadLevel::Linearizable },
        };
        let ticket = self.client.submit(request);
        self.waiting.insert(ticket, Waiting::Slot(operation.slot));
    }

    /// Reads the counters here at once and asks every core for its own.
    fn snapshot(&mut self) {
        let place = self.snapshots.len();
        for (node, core) in self.cores.clone() {
            let ticket = self.client.submit(Request::Status { node, core });
            self.waiting.insert(ticket, Waiting::Status(place));
        }
        self.snapshots.push(Snapshot {
            at: self.client.turn_time(),
            client_cpu: clock::thread_cpu(),
            device_bytes: self.device.written_bytes(),
            cores: Vec::new(),
        });
    }

    fn complete(&mut self, now: Time, completion: Completion, job: &mut impl Job) {
        match self.waiting.remove(&completion.ticket) {
            Some(Waiting::Slot(slot)) => job.finish(now, slot, outcome(completion.result)),
            Some(Waiting::Status(place)) => {
                if let Ok(Response::Status(status)) = completion.result {
                    self.snapshots[place].cores.push(*status);
                }
            }
            None => {}
        }
    }
}

impl Target for PontoonTarget {
    fn run<J: Job + 'static>(&mut self, mut job: J) -> Result<J, BenchError> {
        let mut done = Vec::new();
        self.client.poll(Duration::ZERO, &mut done)?;
        loop {
            let now = self.client.turn_time();
            if job.snapshot_due(now) {
                self.snapshot();
            }
            let mut sleep = SLEEP_MAX;
            let finished = loop {
                match job.next(now) {
                    Next::Start(operation) => self.submit(operation),
                    Next::Later(time) => {
                        sleep = sleep.min(time.since(now));
                        break false;
                    }
                    Next::Wait => break false,
                    Next::Finished => break true,
                }
            };
            if finished && self.waiting.is_empty() {
                return Ok(job);
            }
            self.client.poll(sleep, &mut done)?;
            let now = self.client.turn_time();
            for completion in done.drain(..) {
                self.complete(now, completion, &mut job);
            }
            job.turn(now);
        }
    }

    fn take_snapshots(&mut self) -> Vec<Snapshot> {
        std::mem::take(&mut self.snapshots)
    }
}

/// How many groups a core leads.
pub fn leaders(status: &CoreStatus) -> usize {
    status.groups.iter().filter(|group| group.role == GroupRole::Leader).count()
}

fn outcome(result: Result<Response, ClientError>) -> Outcome {
    match result {
        Ok(Response::Value(value)) => Outcome::Done(value),
        Ok(_) => Outcome::Done(None),
        Err(error) if error.is_unknown() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
