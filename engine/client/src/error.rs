//! What a caller can be told when a request did not do what was asked. Each says whether something may have happened.

use std::time::Duration;

use pontoon_types::{Descriptor, NodeId};
use pontoon_wire::client::Refusal;
use pontoon_wire::order::OrderReason;

/// Why a request was not carried out. Everything except [`ClientError::Unknown`] means: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No leader was found before the deadline; the last replica asked was not one.
    #[error("no leader answered in time; the last replica asked names {}", .leader.map_or("nobody".to_string(), |node| node.to_string()))]
    NotLeader {
        /// Who leads, as far as that replica knows.
        leader: Option<NodeId>,
    },
    /// The range changed, and changed again, until the deadline.
    #[error("the range of the key kept changing; the last descriptor seen is {}, {}", .descriptor.group, .descriptor.generation)]
    StaleDescriptor {
        /// The newest descriptor that was seen.
        descriptor: Box<Descriptor>,
    },
    /// A queue was full until the deadline, here or at the leader.
    #[error("busy: try again in {} ms", .retry_after.as_millis())]
    Busy {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// A stale read found no replica in time that is known to be fresh enough.
    #[error("no replica asked is known to be as fresh as the read demands")]
    TooStale {
        /// Who leads, as far as the last replica asked knows.
        leader: Option<NodeId>,
    },
    /// A key, a value or a batch is over its limit.
    #[error("{limit} is {limit_bytes} bytes, the request has {bytes}")]
    TooLarge {
        /// The name of the limit.
        limit: String,
        /// The limit.
        limit_bytes: u64,
        /// What was asked.
        bytes: u64,
    },
    /// The request cannot be done as it stands; asking again changes nothing.
    #[error("refused: {why}")]
    Refused {
        /// The reason, as a sentence.
        why: String,
    },
    /// An order was not carried out, and why.
    #[error("the order is refused: {why}; {}", .reason.advice())]
    OrderRefused {
        /// The kind of reason.
        reason: OrderReason,
        /// The reason, a clause.
        why: String,
    },
    /// No node that could answer was reachable, so the request never left.
    #[error("not reachable: {why}")]
    Unreachable {
        /// What was tried.
        why: String,
    },
    /// Sent and not answered until the deadline, or forgotten by its group before it was asked again. A write may have
    /// happened or may still happen.
    #[error("sent, but not answered: the outcome is unknown")]
    Unknown,
    /// The client's own system calls failed.
    #[error("the client's own sockets failed: {0}")]
    Io(String),
}

impl ClientError {
    /// Whether a write with this result may have changed something.
    pub fn is_unknown(&self) -> bool {
        matches!(self, ClientError::Unknown)
    }
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> ClientError {
        match refusal {
            Refusal::NotLeader { leader } => ClientError::NotLeader { leader },
            Refusal::StaleDescriptor { descriptor, .. } => {
                ClientError::StaleDescriptor { descriptor: Box::new(descriptor) }
            }
            Refusal::Busy { retry_after_ms } => {
                ClientError::Busy { retry_after: Duration::from_millis(u64::from(retry_after_ms)) }
            }
            Refusal::TooLarge { limit, limit_bytes, bytes } => ClientError::TooLarge { limit, limit_bytes, bytes },
            Refusal::Refused { why } => ClientError::Refused { why },
            Refusal::Order { reason, why } => ClientError::OrderRefused { reason, why },
            Refusal::TooStale { leader } => ClientError::TooStale { leader },
            Refusal::Forgotten { .. } => {
                ClientError::Refused { why: "the group has forgotten the session of this request".to_string() }
            }
            Refusal::Unknown => ClientError::Unknown,
        }
    }
}

impl From<std::io::Error> for ClientError {
    fn from(error: std::io::Error) -> ClientError {
        ClientError::Io(error.to_string())
    }
}
