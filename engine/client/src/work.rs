//! What a request in flight is made of: what it sends, and what an answer makes of it.
//!
//! A write is encoded once, when it is submitted, and the same bytes travel with every attempt; only as long as no attempt
//! can have been carried out, it may change to another session with its group. A scan is the one
//! request of several steps: it walks from range to range until its limit or its end.

use bytes::Bytes;
use pontoon_types::limits::{KEY_BYTES_MAX, SCAN_BYTES_MAX, SCAN_PAIRS_MAX};
use pontoon_types::{ClientId, CoreId, Generation, GroupId, NodeId, RequestId, SessionId, SessionTime};
use pontoon_wire::client::{Operation, Outcome, ReadLevel};
use pontoon_wire::command::{Command, KvOperation};
use pontoon_wire::order::Order;

use crate::{ClientError, Request, Response, Ticket};

/// A request in flight.
pub(crate) enum Work {
    /// A command, encoded.
    Write { key_first: Bytes, key_last: Option<Bytes>, command: Bytes, opened: SessionTime },
    /// A read of one key.
    Get { key: Bytes, level: ReadLevel },
    /// A read of many keys.
    Scan(Scan),
    /// An order to the leader of a group.
    Order { group: GroupId, order: Order },
    /// A question to the leader of a group.
    Members { group: GroupId },
    /// How eager a node is to lead a group.
    Prefer { node: NodeId, group: GroupId, priority: u8 },
    /// A question to one core.
    Status { node: NodeId, core: CoreId },
    /// A question to anyone.
    Routes,
}

/// A scan and what it has found.
pub(crate) struct Scan {
    /// Where it goes on.
    cursor: Bytes,
    end: Option<Bytes>,
    /// Where the step under way ends. Remembered, because the range may be another one when the answer comes.
    step_end: Option<Bytes>,
    limit: usize,
    pairs: Vec<(Bytes, Bytes)>,
    found_bytes: usize,
}

/// Whom a request is for.
pub(crate) enum Target<'a> {
    /// The leader of the range of `first`, which must also hold `last`.
    Keys { first: &'a [u8], last: Option<&'a [u8]> },
    /// Any replica of the range of `key`, best one that does not lead.
    Replica { key: &'a [u8] },
    /// The leader of a group.
    Group(GroupId),
    /// The replica of a group on this node.
    On { node: NodeId, group: GroupId },
    /// One core of one node.
    Core { node: NodeId, core: CoreId },
    /// Any node.
    Anyone,
}

/// What an answer means for a request.
pub(crate) enum Progress {
    /// It is over.
    Done(Result<Response, ClientError>),
    /// There is a next step.
    GoOn,
}

impl Work {
    /// Checks a request against the limits and encodes it. No answer is waited for to a ticket below `floor`.
    pub(crate) fn new(client: ClientId, ticket: Ticket, floor: Ticket, request: Request) -> Result<Work, ClientError> {
        match request {
            Request::Put { key, value } => Work::write(client, ticket, floor, vec![KvOperation::Put { key, value }]),
            Request::Delete { key } => Work::write(client, ticket, floor, vec![KvOperation::Delete { key }]),
            Request::CompareAndSet { key, expected, value } => {
                Work::write(client, ticket, floor, vec![KvOperation::CompareAndSet { key, expected, value }])
            }
            Request::Batch { operations } => Work::write(client, ticket, floor, operations),
            Request::Get { key, level } => {
                check_key(&key)?;
                if key.is_empty() {
                    return Err(ClientError::Refused { why: "the key is empty".to_string() });
                }
                Ok(Work::Get { key, level })
            }
            Request::Scan { start, end, limit } => {
                check_key(&start)?;
                end.as_ref().map_or(Ok(()), check_key)?;
                let limit = limit as usize;
                Ok(Work::Scan(Scan { cursor: start, end, step_end: None, limit, pairs: Vec::new(), found_bytes: 0 }))
            }
            Request::Order { group, order } => Ok(Work::Order { group, order }),
            Request::Members { group } => Ok(Work::Members { group }),
            Request::Prefer { node, group, priority } => Ok(Work::Prefer { node, group, priority }),
            Request::Status { node, core } => Ok(Work::Status { node, core }),
            Request::Routes => Ok(Work::Routes),
        }
    }

    fn write(
        client: ClientId,
        ticket: Ticket,
        floor: Ticket,
        operations: Vec<KvOperation>,
    ) -> Result<Work, ClientError> {
        let opened = SessionTime(0);
        let id = RequestId { session: SessionId { client, opened }, sequence: ticket.0 };
        let mut command = Command { id, floor: floor.0, operations };
        command.check()?;
        let encoded = command.encode();
        if command.operations.len() == 1
            && let Some(operation) = command.operations.pop()
        {
            return Ok(Work::Write { key_first: into_key(operation), key_last: None, command: encoded, opened });
        }
        let keys = || command.operations.iter().map(KvOperation::key);
        let key_first = keys().min().cloned().expect("a checked command is not empty");
        let key_last = keys().max().cloned();
        Ok(Work::Write { key_first, key_last, command: encoded, opened })
    }

    /// Whether an attempt without an answer may have changed something.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Work::Write { .. } | Work::Order { .. })
    }

    /// Whether nobody but the one who was asked can answer.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self, Work::Status { .. } | Work::Prefer { .. })
    }

    /// Changes to the session that was opened then. Only for a write of which no attempt can have been carried out.
    pub(crate) fn reopen(&mut self, at: SessionTime) {
        if let Work::Write { command, opened, .. } = self
            && *opened != at
        {
            (*command, *opened) = (Command::reopened(command, at), at);
        }
    }

    /// The session of a write.
    pub(crate) fn opened(&self) -> Option<SessionTime> {
        if let Work::Write { opened, .. } = self { Some(*opened) } else { None }
    }

    /// Whom it is for.
    pub(crate) fn target(&self) -> Target<'_> {
        match self {
            Work::Write { key_first, key_last, .. } => Target::Keys { first: key_first, last: key_last.as_deref() },
            Work::Get { key, level: ReadLevel::Linearizable } => Target::Keys { first: key, last: None },
            Work::Get { key, .. } => Target::Replica { key },
            Work::Scan(scan) => Target::Keys { first: &scan.cursor, last: None },
            Work::Order { group, .. } | Work::Members { group } => Target::Group(*group),
            Work::Prefer { node, group, .. } => Target::On { node: *node, group: *group },
            Work::Status { node, core } => Target::Core { node: *node, core: *core },
            Work::Routes => Target::Anyone,
        }
    }

    /// How many bytes it adds to a frame, about.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Work::Write { command, .. } => command.len(),
            Work::Get { key, .. } => key.len(),
            Work::Scan(scan) => scan.cursor.len() + scan.end.as_ref().map_or(0, Bytes::len),
            Work::Order { .. } | Work::Members { .. } | Work::Prefer { .. } | Work::Status { .. } | Work::Routes => 0,
        }
    }

    /// What travels to `group`, whose range ends at `range_end`.
    pub(crate) fn operation(&mut self, group: GroupId, generation: Generation, range_end: Option<&Bytes>) -> Operation {
        match self {
            Work::Write { command, .. } => Operation::Write { group, generation, command: command.clone() },
            Work::Get { key, level } => Operation::Get { group, generation, key: key.clone(), level: *level },
            Work::Scan(scan) => {
                let wanted = scan.limit - scan.pairs.len();
                scan.step_end = [scan.end.as_ref(), range_end].into_iter().flatten().min().cloned();
                let (start, end) = (scan.cursor.clone(), scan.step_end.clone());
                Operation::Scan {
                    group,
                    generation,
                    start,
                    end,
                    limit: wanted.min(SCAN_PAIRS_MAX) as u32,
                    level: ReadLevel::Linearizable,
                }
            }
            Work::Order { order, .. } => Operation::Order { group, generation: Some(generation), order: order.clone() },
            Work::Members { .. } => Operation::Members { group, generation: Some(generation) },
            Work::Prefer { priority, .. } => Operation::Prefer { group, priority: *priority },
            Work::Status { .. } => Operation::Status,
            Work::Routes => Operation::Routes,
        }
    }

    /// Takes an answer in.
    pub(crate) fn answer(&mut self, outcome: Outcome) -> Progress {
        let response = match (&mut *self, outcome) {
            (Work::Write { .. }, Outcome::Written(outcomes)) => Response::Written(outcomes),
            (Work::Get { .. }, Outcome::Value(value)) => Response::Value(value),
            (Work::Scan(scan), Outcome::Pairs { pairs, next }) => return scan.answer(pairs, next),
            (Work::Order { .. } | Work::Prefer { .. }, Outcome::Ordered) => Response::Ordered,
            (Work::Members { .. }, Outcome::Members(members)) => Response::Members(Box::new(members)),
            (Work::Status { .. }, Outcome::Status(status)) => Response::Status(Box::new(status)),
            (Work::Routes, Outcome::Routes(routes)) => Response::Routes(Box::new(routes)),
            // A node that answers something else is wrong about the request; a write may have happened all the same.
            (Work::Write { .. } | Work::Order { .. }, _) => return Progress::Done(Err(ClientError::Unknown)),
            _ => {
                let why = "the node answered another question".to_string();
                return Progress::Done(Err(ClientError::Refused { why }));
            }
        };
        Progress::Done(Ok(response))
    }
}

impl Scan {
    fn answer(&mut self, pairs: Vec<(Bytes, Bytes)>, next: Option<Bytes>) -> Progress {
        let room = self.limit - self.pairs.len();
        let beyond = pairs.get(room).map(|(key, _)| key.clone());
        for (key, value) in pairs.into_iter().take(room) {
            self.found_bytes += key.len() + value.len();
            self.pairs.push((key, value));
        }
        let is_inside = |key: &Bytes| self.end.as_ref().is_none_or(|end| key < end);
        let next = beyond.or(next).or_else(|| self.step_end.clone()).filter(is_inside);
        match next {
            // Such an answer would make the scan walk in a circle.
            Some(next) if next <= self.cursor => {
                let why = "the node's part of the scan ends where it began".to_string();
                Progress::Done(Err(ClientError::Refused { why }))
            }
            Some(next) if self.pairs.len() < self.limit && self.found_bytes < SCAN_BYTES_MAX => {
                self.cursor = next;
                Progress::GoOn
            }
            next => Progress::Done(Ok(Response::Pairs { pairs: std::mem::take(&mut self.pairs), next })),
        }
    }
}

/// The key itself: a copy of the handle would cost an allocation for each write.
fn into_key(operation: KvOperation) -> Bytes {
    match operation {
        KvOperation::Put { key, .. } | KvOperation::Delete { key } | KvOperation::CompareAndSet { key, .. } => key,
    }
}

fn check_key(key: &Bytes) -> Result<(), ClientError> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    let limit = "KEY_BYTES_MAX".to_string();
    Err(ClientError::TooLarge { limit, limit_bytes: KEY_BYTES_MAX as u64, bytes: key.len() as u64 })
}
