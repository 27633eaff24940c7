//! One request at a time, for callers that wait. They share the connections and the deadlines of the pipelined way,
//! and answers to other tickets that come meanwhile are kept for the next poll.

use std::time::Duration;

use bytes::Bytes;
use pontoon_types::{CoreId, NodeId};
use pontoon_wire::client::{CoreStatus, OperationOutcome, ReadLevel, Routes};
use pontoon_wire::command::KvOperation;

use crate::{Client, ClientError, Completion, Request, Response};

/// The outcome of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Whether the value was the expected one and was replaced.
    pub succeeded: bool,
    /// The value seen before the decision.
    pub current: Option<Bytes>,
}

/// A part of the key space, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// Where to go on, when the scan stopped at a limit before its end.
    pub next: Option<Bytes>,
}

impl Client {
    /// Submits one request and waits for its answer.
    pub fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let ticket = self.submit(request);
        let mut others = Vec::new();
        let mut done: Vec<Completion> = Vec::new();
        let result = loop {
            // The session ends every request by its deadline, so this loop ends.
            if let Err(error) = self.poll(Duration::from_secs(1), &mut done) {
                break Err(error);
            }
            let found = done.iter().position(|completion| completion.ticket == ticket);
            let result = found.map(|found| done.swap_remove(found).result);
            others.append(&mut done);
            if let Some(result) = result {
                break result;
            }
        };
        others.append(&mut done);
        self.stash(others);
        result
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), ClientError> {
        let request = Request::Put { key: copied(key), value: copied(value) };
        match self.write_one(request)? {
            OperationOutcome::Put => Ok(()),
            _ => Err(other_answer()),
        }
    }

    /// Removes a key; says whether it was there.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<bool, ClientError> {
        match self.write_one(Request::Delete { key: copied(key) })? {
            OperationOutcome::Deleted { existed } => Ok(existed),
            _ => Err(other_answer()),
        }
    }

    /// Sets a key to `value` (none: removes it) if its value is `expected` (none: if it is absent).
    pub fn compare_and_set(
        &mut self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Swap, ClientError> {
        let (expected, value) = (expected.map(Bytes::copy_from_slice), value.map(Bytes::copy_from_slice));
        match self.write_one(Request::CompareAndSet { key: copied(key), expected, value })? {
            OperationOutcome::Swapped { succeeded, current } => Ok(Swap { succeeded, current }),
            _ => Err(other_answer()),
        }
    }

    /// Several operations on keys of one range, all or nothing.
    pub fn batch(&mut self, operations: Vec<KvOperation>) -> Result<Vec<OperationOutcome>, ClientError> {
        match self.call(Request::Batch { operations })? {
            Response::Written(outcomes) => Ok(outcomes),
            _ => Err(other_answer()),
        }
    }

    /// The value of a key, linearizably.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, ClientError> {
        self.get_at(key, ReadLevel::Linearizable)
    }

    /// The value of a key, as new as `level` promises.
    pub fn get_at(&mut self, key: impl AsRef<[u8]>, level: ReadLevel) -> Result<Option<Bytes>, ClientError> {
        match self.call(Request::Get { key: copied(key), level })? {
            Response::Value(value) => Ok(value),
            _ => Err(other_answer()),
        }
    }

    /// The pairs of `[start, end)`, linearizably for each range, at most `limit` of them.
    pub fn scan(&mut self, start: impl AsRef<[u8]>, end: Option<&[u8]>, limit: u32) -> Result<Page, ClientError> {
        let request = Request::Scan { start: copied(start), end: end.map(Bytes::copy_from_slice), limit };
        match self.call(request)? {
            Response::Pairs { pairs, next } => Ok(Page { pairs, next }),
            _ => Err(other_answer()),
        }
    }

    /// The state and the counters of one core.
    pub fn status(&mut self, node: NodeId, core: CoreId) -> Result<CoreStatus, ClientError> {
        match self.call(Request::Status { node, core })? {
            Response::Status(status) => Ok(*status),
            _ => Err(other_answer()),
        }
    }

    /// The routing table, as some node knows it now.
    pub fn routes(&mut self) -> Result<Routes, ClientError> {
        match self.call(Request::Routes)? {
            Response::Routes(routes) => Ok(*routes),
            _ => Err(other_answer()),
        }
    }

    fn write_one(&mut self, request: Request) -> Result<OperationOutcome, ClientError> {
        match self.call(request)? {
            Response::Written(outcomes) => outcomes.into_iter().next().ok_or_else(other_answer),
            _ => Err(other_answer()),
        }
    }
}

fn copied(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// A write was answered, but not with what it was: the node is wrong about it, so what it did is not known.
fn other_answer() -> ClientError {
    ClientError::Unknown
}
