//! The metadata of requests, version 1. Replies are in [`reply`].

pub(crate) mod reply;

use bytes::Bytes;
use pontoon_types::{Generation, GroupId, NodeId, Term};
use rkyv::rend::unaligned::u64_ule;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Serialize};

use super::Parts;
use crate::client;
use crate::cursor::Cursor;
use crate::frame::{self, FrameError, FrameKind, Opened};
use crate::order;

#[derive(Archive, Serialize)]
struct RequestFrame {
    requests: Vec<Request>,
}

#[derive(Archive, Serialize)]
struct Request {
    sequence: u64,
    operation: Operation,
}

#[derive(Archive, Serialize)]
enum Operation {
    Write { group: u64, generation: u64, command: u32 },
    Get { group: u64, generation: u64, key: u32, level: ReadLevel },
    Scan { group: u64, generation: u64, start: u32, end: Option<u32>, limit: u32, level: ReadLevel },
    Order { group: u64, generation: Option<u64>, order: Order },
    Members { group: u64, generation: Option<u64> },
    Prefer { group: u64, priority: u8 },
    Routes,
    Status,
}

#[derive(Archive, Serialize)]
enum Order {
    Members { generation: u64, voters: Vec<u64>, learners: Vec<u64> },
    Transfer { term: u64, to: u64 },
}

#[derive(Archive, Serialize)]
enum ReadLevel {
    Linearizable,
    Follower,
    Stale { max_age_ms: u32 },
}

/// What a frame without requests takes.
pub(crate) const FRAME_BYTES: usize = frame::HEADER_BYTES + size_of::<ArchivedRequestFrame>();

/// What a request adds to a frame, its bytes in the payload left aside.
pub(crate) const REQUEST_BYTES: usize = size_of::<ArchivedRequest>();

/// What a node that an order names adds to a frame.
pub(crate) const NODE_BYTES: usize = size_of::<u64_ule>();

/// Appends the frame to `out`.
pub(crate) fn encode(value: &client::RequestFrame, out: &mut Vec<u8>) {
    let mut parts = Parts(Vec::with_capacity(value.requests.len()));
    let requests = value
        .requests
        .iter()
        .map(|request| Request {
            sequence: request.sequence,
            operation: encode_operation(&request.operation, &mut parts),
        })
        .collect();
    frame::write(FrameKind::Request, &RequestFrame { requests }, &parts.0, out);
}

fn encode_operation<'a>(operation: &'a client::Operation, parts: &mut Parts<'a>) -> Operation {
    match operation {
        client::Operation::Write { group, generation, command } => {
            Operation::Write { group: group.0, generation: generation.0, command: parts.add(command) }
        }
        client::Operation::Get { group, generation, key, level } => Operation::Get {
            group: group.0,
            generation: generation.0,
            key: parts.add(key),
            level: encode_level(*level),
        },
        client::Operation::Scan { group, generation, start, end, limit, level } => Operation::Scan {
            group: group.0,
            generation: generation.0,
            start: parts.add(start),
            end: parts.add_option(end),
            limit: *limit,
            level: encode_level(*level),
        },
        client::Operation::Order { group, generation, order } => Operation::Order {
            group: group.0,
            generation: generation.map(|generation| generation.0),
            order: encode_order(order),
        },
        client::Operation::Members { group, generation } => {
            Operation::Members { group: group.0, generation: generation.map(|generation| generation.0) }
        }
        client::Operation::Prefer { group, priority } => Operation::Prefer { group: group.0, priority: *priority },
        client::Operation::Routes => Operation::Routes,
        client::Operation::Status => Operation::Status,
    }
}

fn encode_order(order: &order::Order) -> Order {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    match order {
        order::Order::Members { generation, voters, learners } => {
            Order::Members { generation: generation.0, voters: numbers(voters), learners: numbers(learners) }
        }
        order::Order::Transfer { term, to } => Order::Transfer { term: term.0, to: to.0 },
    }
}

fn decode_order(order: &ArchivedOrder) -> order::Order {
    let nodes = |numbers: &ArchivedVec<u64_ule>| numbers.iter().map(|number| NodeId(number.to_native())).collect();
    match order {
        ArchivedOrder::Members { generation, voters, learners } => order::Order::Members {
            generation: Generation(generation.to_native()),
            voters: nodes(voters),
            learners: nodes(learners),
        },
        ArchivedOrder::Transfer { term, to } => {
            order::Order::Transfer { term: Term(term.to_native()), to: NodeId(to.to_native()) }
        }
    }
}

fn encode_level(level: client::ReadLevel) -> ReadLevel {
    match level {
        client::ReadLevel::Linearizable => ReadLevel::Linearizable,
        client::ReadLevel::Follower => ReadLevel::Follower,
        client::ReadLevel::Stale { max_age_ms } => ReadLevel::Stale { max_age_ms },
    }
}

fn decode_level(level: &ArchivedReadLevel) -> client::ReadLevel {
    match level {
        ArchivedReadLevel::Linearizable => client::ReadLevel::Linearizable,
        ArchivedReadLevel::Follower => client::ReadLevel::Follower,
        ArchivedReadLevel::Stale { max_age_ms } => client::ReadLevel::Stale { max_age_ms: max_age_ms.to_native() },
    }
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: Bytes) -> Result<client::RequestFrame, FrameError> {
    let opened = Opened::new(bytes, FrameKind::Request)?;
    let metadata = opened.metadata::<ArchivedRequestFrame>()?;
    let mut payload = opened.payload();
    let mut requests = Vec::with_capacity(metadata.requests.len());
    for request in metadata.requests.iter() {
        requests.push(client::Request {
            sequence: request.sequence.to_native(),
            operation: decode_operation(&request.operation, &mut payload)?,
        });
    }
    payload.finish()?;
    Ok(client::RequestFrame { requests })
}

fn decode_operation(operation: &ArchivedOperation, payload: &mut Cursor) -> Result<client::Operation, FrameError> {
    Ok(match operation {
        ArchivedOperation::Write { group, generation, command } => client::Operation::Write {
            group: GroupId(group.to_native()),
            generation: Generation(generation.to_native()),
            command: payload.take(command.to_native())?,
        },
        ArchivedOperation::Get { group, generation, key, level } => client::Operation::Get {
            group: GroupId(group.to_native()),
            generation: Generation(generation.to_native()),
            key: payload.take(key.to_native())?,
            level: decode_level(level),
        },
        ArchivedOperation::Scan { group, generation, start, end, limit, level } => client::Operation::Scan {
            group: GroupId(group.to_native()),
            generation: Generation(generation.to_native()),
            start: payload.take(start.to_native())?,
            end: end.as_ref().map(|end| payload.take(end.to_native())).transpose()?,
            limit: limit.to_native(),
            level: decode_level(level),
        },
        ArchivedOperation::Order { group, generation, order } => client::Operation::Order {
            group: GroupId(group.to_native()),
            generation: generation.as_ref().map(|generation| Generation(generation.to_native())),
            order: decode_order(order),
        },
        ArchivedOperation::Members { group, generation } => client::Operation::Members {
            group: GroupId(group.to_native()),
            generation: generation.as_ref().map(|generation| Generation(generation.to_native())),
        },
        ArchivedOperation::Prefer { group, priority } => {
            client::Operation::Prefer { group: GroupId(group.to_native()), priority: *priority }
        }
        ArchivedOperation::Routes => client::Operation::Routes,
        ArchivedOperation::Status => client::Operation::Status,
    })
}
