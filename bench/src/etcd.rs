//! etcd as a target: the same jobs over its gRPC interface, so that both sides are loaded and counted alike.
//!
//! Only the few messages of `etcdserverpb.KV` that a put and a read need are here, written by hand with the field
//! numbers of the public protocol; unknown fields of answers are skipped. Everything runs on the calling thread.
//!
//! The runtime's timers are a millisecond wide, so the plan of an open loop is kept to a millisecond and no better.

use std::cell::RefCell;
use std::net::ToSocketAddrs;
use std::rc::Rc;
use std::time::Duration;

use pontoon_types::Time;
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, LocalSet};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::clock;
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT, INTERNAL, USAGE};
use crate::job::{Job, Next, Operation, Outcome};
use crate::target::{Snapshot, Target};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

/// How often the conductor looks again when there is nothing to start: often enough for the end of a phase, too seldom
/// to cost anything. Operations go on without it.
const IDLE_PAUSE: Duration = Duration::from_millis(5);

/// Most operations in flight, which no job exceeds.
const TASKS_MAX: usize = 16_384;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// Without `serializable`, which is field 7, a read is linearizable.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: bytes::Bytes,
}

/// A running etcd cluster.
pub struct EtcdTarget {
    runtime: Runtime,
    channels: Vec<Channel>,
    timeout: Duration,
    device: Rc<Device>,
    snapshots: Vec<Snapshot>,
}

impl EtcdTarget {
    /// Opens the connections, spread over the addresses.
    pub fn connect(
        addresses: &[String],
        connections: usize,
        timeout: Duration,
        device: Device,
    ) -> Result<EtcdTarget, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| BenchError::new(INTERNAL, format!("no runtime: {error}")))?;
        let mut channels = Vec::new();
        for place in 0..connections.next_multiple_of(addresses.len()) {
            let address = &addresses[place % addresses.len()];
            if !address.to_socket_addrs().is_ok_and(|mut resolved| resolved.next().is_some()) {
                let line = format!("--against: `{address}` is not an address like 127.0.0.1:2379");
                return Err(BenchError::new(USAGE, line));
            }
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|error| BenchError::new(USAGE, format!("--against: {address}: {error}")))?;
            let endpoint = endpoint.tcp_nodelay(true).connect_timeout(timeout);
            let channel = runtime
                .block_on(endpoint.connect())
                .map_err(|error| BenchError::new(ENVIRONMENT, format!("etcd at {address}: {error}")))?;
            channels.push(channel);
        }
        Ok(EtcdTarget { runtime, channels, timeout, device: Rc::new(device), snapshots: Vec::new() })
    }
}

impl Target for EtcdTarget {
    fn run<J: Job + 'static>(&mut self, job: J) -> Result<J, BenchError> {
        let work = Rc::new(Work {
            job: RefCell::new(job),
            snapshots: RefCell::default(),
            device: self.device.clone(),
            timeout: self.timeout,
            inflight: RefCell::new(0),
        });
        let local = LocalSet::new();
        local.block_on(&self.runtime, conduct(work.clone(), self.channels.clone()));
        drop(local);
        let work = Rc::try_unwrap(work).map_err(|_| BenchError::new(INTERNAL, "a task outlived its job"))?;
        self.snapshots.extend(work.snapshots.into_inner());
        Ok(work.job.into_inner())
    }

    fn take_snapshots(&mut self) -> Vec<Snapshot> {
        std::mem::take(&mut self.snapshots)
    }
}

/// What the tasks of one job share.
struct Work<J> {
    job: RefCell<J>,
    snapshots: RefCell<Vec<Snapshot>>,
    device: Rc<Device>,
    timeout: Duration,
    inflight: RefCell<usize>,
}

impl<J: Job> Work<J> {
    fn look_around(&self, now: Time) {
        let mut job = self.job.borrow_mut();
        job.turn(now);
        if job.snapshot_due(now) {
            self.snapshots.borrow_mut().push(Snapshot {
                at: now,
                client_cpu: clock::thread_cpu(),
                device_bytes: self.device.written_bytes(),
                cores: Vec::new(),
            });
        }
    }
}

/// Starts what is due. Each operation is carried by a task that goes on with the next one, so a closed loop needs no
/// hand-over; when a task finds nothing to do it ends.
async fn conduct<J: Job + 'static>(work: Rc<Work<J>>, channels: Vec<Channel>) {
    let mut tasks = JoinSet::new();
    loop {
        let now = clock::now();
        work.look_around(now);
        while tasks.try_join_next().is_some() {}
        let next = match *work.inflight.borrow() {
            inflight if inflight < TASKS_MAX => work.job.borrow_mut().next(now),
            _ => Next::Wait,
        };
        match next {
            Next::Start(operation) => {
                *work.inflight.borrow_mut() += 1;
                let channel = channels[operation.slot as usize % channels.len()].clone();
                tasks.spawn_local(carry(work.clone(), channel, operation));
            }
            Next::Later(time) => tokio::time::sleep(time.since(now).min(IDLE_PAUSE)).await,
            Next::Wait => tokio::time::sleep(IDLE_PAUSE).await,
            Next::Finished if *work.inflight.borrow() == 0 => break,
            Next::Finished => tokio::time::sleep(IDLE_PAUSE).await,
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn carry<J: Job>(work: Rc<Work<J>>, channel: Channel, mut operation: Operation) {
    let mut grpc = Grpc::new(channel);
    loop {
        let slot = operation.slot;
        let outcome = execute(&mut grpc, operation, work.timeout).await;
        let now = clock::now();
        work.look_around(now);
        let mut job = work.job.borrow_mut();
        job.finish(now, slot, outcome);
        // The snapshot at the end of the measured time stands before anything that is started after it.
        match job.next(now) {
            Next::Start(next) => operation = next,
            _ => break,
        }
    }
    *work.inflight.borrow_mut() -= 1;
}

async fn execute(grpc: &mut Grpc<Channel>, operation: Operation, timeout: Duration) -> Outcome {
    let is_write = operation.value.is_some();
    let call = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let Operation { key, value, .. } = operation;
        match value {
            Some(value) => {
                let request = Request::new(PutRequest { key, value });
                let codec = ProstCodec::<PutRequest, PutResponse>::default();
                grpc.unary(request, PathAndQuery::from_static(PUT), codec).await?;
                Ok(None)
            }
            None => {
                let request = Request::new(RangeRequest { key });
                let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
                let response = grpc.unary(request, PathAndQuery::from_static(RANGE), codec).await?;
                Ok(response.into_inner().kvs.into_iter().next().map(|pair| pair.value))
            }
        }
    };
    let result: Result<Option<bytes::Bytes>, Status> = match tokio::time::timeout(timeout, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    };
    match result {
        Ok(value) => Outcome::Done(value),
        // Only an argument that was refused is certainly not written; a lost connection may have been served.
        Err(status) if !is_write || status.code() == Code::InvalidArgument => {
            Outcome::Failed(status.message().to_string())
        }
        Err(status) => Outcome::Unknown(status.message().to_string()),
    }
}
