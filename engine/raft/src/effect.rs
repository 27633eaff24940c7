//! What leaves a replica, and what it says about itself.

use std::fmt;

use pontoon_types::{Entry, FetchNumber, Index, LogId, Message, ReplicaId, Term, Write};

use crate::membership::MembershipRefused;

/// One effect. The list of a step is in order: a write stands before the messages that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this to the core's log and answer with [`crate::Event::Durable`]. Write numbers grow by one. It stands in a
    /// box, because it is more than twice as large as any other effect and every effect would be copied at its size.
    Append(Box<Write>),
    /// Send this now. What has to wait for durability is held back by the replica itself (law 13).
    Send(Message),
    /// Entries up to here are committed and may be applied.
    Committed(Index),
    /// Read these entries from the log, which have left memory, and answer with [`crate::Event::Fetched`]. A newer fetch of
    /// the same reader takes the place of an older one.
    Fetch(Fetch),
    /// Committed entries that had left memory, right behind what is applied: apply them in order, and say so with
    /// [`crate::Event::Applied`].
    Apply(Vec<Entry>),
    /// The peer needs what is compacted here. It is left alone for a while, and then asked again.
    NeedsSnapshot {
        /// The peer.
        peer: ReplicaId,
        /// What it has to be given first.
        compacted: LogId,
    },
    /// This replica has no state to go on from: its leader must give it a snapshot.
    WantsSnapshot {
        /// The leader.
        leader: ReplicaId,
    },
    /// Role, term or known leader changed during this step.
    Role {
        /// The role after the step.
        role: Role,
        /// The term after the step.
        term: Term,
        /// The leader of that term, if this replica knows it.
        leader: Option<ReplicaId>,
    },
    /// A peer said what contradicts a law. It was dropped and changed nothing. A correct peer never causes this, so a
    /// checker takes it for a violation; a product counts it and tells the operator.
    Refused {
        /// The peer that said it.
        from: ReplicaId,
        /// The law.
        law: Law,
    },
}

/// Entries to be read from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Who needs them.
    pub reader: Reader,
    /// Comes back in [`crate::Event::Fetched`].
    pub number: FetchNumber,
    /// The first one.
    pub from: Index,
    /// The last one that is of use. All of them are durable.
    pub through: Index,
    /// Most payload bytes, but at least one entry.
    pub bytes_max: usize,
}

/// Who needs entries that have left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reader {
    /// The state machine of this replica.
    Machine,
    /// A peer that this leader sends them to.
    Peer(ReplicaId),
}

/// A law that a peer has contradicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Law {
    /// It leads a term that another replica leads.
    #[error("election safety: a term has one leader")]
    ElectionSafety,
    /// It leads, and its log contradicts what is committed here.
    #[error("leader completeness: a leader has every committed entry")]
    LeaderCompleteness,
    /// It acknowledged what was never sent, or contradicts what it sent before.
    #[error("log matching: logs that share an entry share all before it")]
    LogMatching,
    /// Its term is above [`crate::TERM_MAX`].
    #[error("term limit: no group reaches such a term")]
    TermLimit,
    /// No replica sends such a message: its entries do not follow each other, or its terms are impossible.
    #[error("well-formed: no replica sends such a message")]
    WellFormed,
}

/// The four roles. A pre-candidate has asked for pre-votes, a candidate for votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Answers, and appends what its leader sends.
    Follower,
    /// Asks whether an election would succeed. Its term has not grown.
    PreCandidate,
    /// Asks for votes in a term of its own.
    Candidate,
    /// Proposes and replicates.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        })
    }
}

/// Why a proposal cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalRefused {
    /// Ask the leader instead.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// Ask again later: too many bytes are proposed and not committed.
    #[error("the group has too many uncommitted bytes")]
    Full,
    /// Ask the new leader soon: the leadership is being handed over.
    #[error("the leadership is being handed over to {to}")]
    Transferring {
        /// Who will lead, if all goes well.
        to: ReplicaId,
    },
    /// Ask the new leader soon: this one is no voter any more, and leaves.
    #[error("this leader is no voter any more and leaves")]
    Leaving,
}

/// Why the members cannot be changed now. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Ask the leader instead.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// Ask again soon: the leader has not committed an entry of its own term, so a change of an earlier leader may be
    /// alive elsewhere.
    #[error("the leader has not committed anything in its term yet")]
    TermNotCommitted,
    /// Ask again later: one change at a time.
    #[error("the change at index {at} is not committed yet")]
    InFlight {
        /// Where the entry of the earlier change stands.
        at: Index,
    },
    /// Ask again later, or the new leader.
    #[error("the leadership is being handed over to {to}")]
    Transferring {
        /// Who will lead, if all goes well.
        to: ReplicaId,
    },
    /// Ask the new leader soon: this one is no voter any more, and leaves.
    #[error("this leader is no voter any more and leaves")]
    Leaving,
    /// The change itself is wrong.
    #[error(transparent)]
    Membership(#[from] MembershipRefused),
}

/// Why the leadership cannot be handed over. Nothing has changed. `Name` is what others call a replica by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefused<Name = ReplicaId> {
    /// Ask the leader instead.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<Name>,
    },
    /// It leads already.
    #[error("{0} leads the group already")]
    LeadsAlready(Name),
    /// Not of this group.
    #[error("{0} is no member of the group")]
    NoMember(Name),
    /// A learner does not lead, nor does a voter that is about to go.
    #[error("{0} is no voter, or will not be one for long")]
    NoVoter(Name),
    /// It has not answered lately.
    #[error("{0} does not answer")]
    Silent(Name),
    /// It could not catch up in time.
    #[error("{to} lacks {entries} entries, more than {}", pontoon_types::limits::TRANSFER_LAG_ENTRIES_MAX)]
    Behind {
        /// Who.
        to: Name,
        /// How many entries it has not acknowledged.
        entries: u64,
    },
    /// One at a time.
    #[error("the leadership is being handed over to {to} already")]
    InProgress {
        /// To whom.
        to: Name,
    },
    /// It leaves, and hands the leadership over by itself.
    #[error("this leader is no voter any more and leaves")]
    Leaving,
}

impl TransferRefused {
    /// The same in the names of somebody else.
    pub fn named<Name>(self, name: impl Fn(ReplicaId) -> Name) -> TransferRefused<Name> {
        match self {
            TransferRefused::NotLeader { leader } => TransferRefused::NotLeader { leader: leader.map(name) },
            TransferRefused::LeadsAlready(of) => TransferRefused::LeadsAlready(name(of)),
            TransferRefused::NoMember(of) => TransferRefused::NoMember(name(of)),
            TransferRefused::NoVoter(of) => TransferRefused::NoVoter(name(of)),
            TransferRefused::Silent(of) => TransferRefused::Silent(name(of)),
            TransferRefused::Behind { to, entries } => TransferRefused::Behind { to: name(to), entries },
            TransferRefused::InProgress { to } => TransferRefused::InProgress { to: name(to) },
            TransferRefused::Leaving => TransferRefused::Leaving,
        }
    }
}
