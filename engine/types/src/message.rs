//! What replicas of one group say to each other.
//!
//! A message names both replicas and is dropped when either does not match (law 11). The term is the sender's,
//! except in a pre-vote, where it is the term that the sender would campaign in.

use crate::{Entry, Index, LogId, ReplicaId, Term};

/// One message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The replica that speaks.
    pub from: ReplicaId,
    /// The replica spoken to.
    pub to: ReplicaId,
    /// The sender's term (for [`Body::PreVote`] the term it would campaign in).
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// The kinds of messages. Requests and answers come in pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me in this term? Changes nothing at the receiver (thesis, section 9.6).
    PreVote {
        /// The end of the sender's log.
        last: LogId,
    },
    /// The answer; its term is the asked term when granted, else the receiver's own.
    PreVoteResponse {
        /// Whether the receiver would vote for the sender.
        granted: bool,
    },
    /// RequestVote of the paper.
    Vote {
        /// The end of the sender's log.
        last: LogId,
        /// What allows the sender to campaign against a leader that is alive.
        permit: Option<Permit>,
    },
    /// The answer, sent only after the vote is durable.
    VoteResponse {
        /// Whether the vote went to the sender.
        granted: bool,
    },
    /// AppendEntries of the paper; without entries it probes, or carries the commit index.
    Append {
        /// The entry before the first one sent.
        previous: LogId,
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The log of the sender equals the leader's up to here, durably.
    AppendResponse {
        /// The last index that the answered message covered.
        matched: Index,
    },
    /// The entry before the first one sent is not in the sender's log, or the term is stale.
    AppendRefused {
        /// The `previous.index` that was refused; a leader ignores answers to older probes.
        refused: Index,
        /// The best position at which both logs may agree: the last entry at or below the refused index whose term
        /// is not above the term asked for.
        hint: LogId,
    },
    /// The leader asks the receiver to campaign at once, in the term after the sender's: it wants to be succeeded.
    TimeoutNow,
}

/// The word of a leader that one replica may campaign against it, in exactly the term after `term` (law 5). A voter
/// honours it only while it accepts this leader in this term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The leader that gave it.
    pub leader: ReplicaId,
    /// The term in which it leads.
    pub term: Term,
}
