//! What a run can find: a broken law, named, with the seed, the time and the last lines of the trace.

use std::fmt;

use pontoon_types::{ClientId, GroupId, Index, LogId, ReplicaId, Term, Time};

use crate::oracle::LogLaw;
use crate::trace::Place;

/// A law or an invariant, and how it was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Two leaders in one term.
    #[error("election safety: {group} has two leaders in term {term}, {first} and {second}")]
    TwoLeaders {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
        /// The leader seen first.
        first: ReplicaId,
        /// The other.
        second: ReplicaId,
    },
    /// A leader that no majority of its members voted for.
    #[error("election safety: {place} leads {group} in term {term} with the votes of {voters:?} alone")]
    NotElected {
        /// The leader's place.
        place: Place,
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
        /// Who has voted for it in that term.
        voters: Vec<ReplicaId>,
    },
    /// One position, two entries or two histories before it.
    #[error("log matching: {group} has two different entries or predecessors at {id}, the second at {place}")]
    LogMatching {
        /// The group.
        group: GroupId,
        /// The position.
        id: LogId,
        /// Where the second was appended.
        place: Place,
    },
    /// Two replicas committed different entries at one index.
    #[error("committed prefix: {group} index {index} is committed as {first} and at {place} as {second}")]
    CommittedDiffers {
        /// The group.
        group: GroupId,
        /// The index.
        index: Index,
        /// The entry committed first.
        first: LogId,
        /// The other.
        second: LogId,
        /// Where the other is.
        place: Place,
    },
    /// A leader without an entry that an earlier term committed.
    #[error("leader completeness: {place} leads {group} in term {term} without the committed entry {missing}")]
    LeaderLacks {
        /// The leader's place.
        place: Place,
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// The entry.
        missing: LogId,
    },
    /// A leader advanced its commit index to an entry of an older term.
    #[error("commit of the own term: {place} leads {group} in term {term} and commits up to {id}")]
    CommitOfOldTerm {
        /// The leader's place.
        place: Place,
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// The last entry it committed.
        id: LogId,
    },
    /// An entry counts as committed, but too few disks hold it.
    #[error("law 13: {group} committed {id}, which is durable on {copies} disks and needs {quorum}")]
    CommittedNotDurable {
        /// The group.
        group: GroupId,
        /// The entry.
        id: LogId,
        /// Disks that hold it.
        copies: usize,
        /// Disks that must.
        quorum: usize,
    },
    /// A promise left before what it promises was durable.
    #[error("law 13: {place} sends for {group} {what}, but its disk has {durable}")]
    PromiseNotDurable {
        /// The sender's place.
        place: Place,
        /// The group.
        group: GroupId,
        /// The promise.
        what: String,
        /// What the disk has.
        durable: String,
    },
    /// A replica voted twice in one term, perhaps with a restart in between.
    #[error("one vote in a term: {voter} of {group} votes in term {term} for {first} and for {second}")]
    VoteChanged {
        /// The group.
        group: GroupId,
        /// Who voted.
        voter: ReplicaId,
        /// The term.
        term: Term,
        /// The first vote.
        first: ReplicaId,
        /// The second.
        second: ReplicaId,
    },
    /// A replica's vote changed or vanished within a term, perhaps over a restart.
    #[error("one vote in a term: {group} at {place}: in term {term} the vote changes from {first} to {second:?}")]
    VoteForgotten {
        /// The group.
        group: GroupId,
        /// Where.
        place: Place,
        /// The term.
        term: Term,
        /// The vote before.
        first: ReplicaId,
        /// The vote after.
        second: Option<ReplicaId>,
    },
    /// Something that only grows went back, or two pointers are in the wrong order.
    #[error("order of pointers: {group} at {place}: {what}")]
    Pointers {
        /// The group.
        group: GroupId,
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// A write that no log can take.
    #[error("writes in order: {group} at {place}: {what}")]
    BadWrite {
        /// The group.
        group: GroupId,
        /// Where.
        place: Place,
        /// What is wrong with it.
        what: String,
    },
    /// A leader changed the members before it had committed an entry of its own term.
    #[error("members: {place} changes those of {group} by {id}, and nothing of that term is committed")]
    EarlyChange {
        /// The group.
        group: GroupId,
        /// The leader's place.
        place: Place,
        /// The change.
        id: LogId,
    },
    /// A replica goes by other members than its log says.
    #[error("members: {group} at {place} goes by {in_force}, where its log says {says}")]
    WrongMembers {
        /// The group.
        group: GroupId,
        /// Where.
        place: Place,
        /// The configuration in force.
        in_force: String,
        /// The one that should be.
        says: String,
    },
    /// A group names a replica again that it had removed.
    #[error("law 11: {group} names {replica} again, which was removed")]
    NamedAgain {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The log from which a group begins anew lacks what is known to be committed.
    #[error("recovery: {group} begins anew from a log without {missing}, which is known to be committed")]
    BaseLacks {
        /// The group.
        group: GroupId,
        /// The entry.
        missing: LogId,
    },
    /// Something of a group that begins anew may pass for something of before.
    #[error("recovery: {group} does not begin anew: {what}")]
    NotAnew {
        /// The group.
        group: GroupId,
        /// What is wrong.
        what: String,
    },
    /// A group that can decide, by what its survivors hold, has begun anew; or none of it was left and it has a plan.
    #[error("recovery: the survivors of {group} are a quorum of its members, and it begins anew")]
    Needless {
        /// The group.
        group: GroupId,
    },
    /// A replica of a life that is over leads.
    #[error("law 11: {leader} of {group} leads in term {term}, and the group has begun anew without it")]
    DeadLeads {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
        /// The replica.
        leader: ReplicaId,
    },
    /// A replica of a life that is over has committed something.
    #[error("law 11: {place} commits {id} of {group}, which has begun anew without it")]
    DeadCommits {
        /// The group.
        group: GroupId,
        /// Where.
        place: Place,
        /// The entry.
        id: LogId,
    },
    /// Two replicas applied the same entries and differ.
    #[error("state equality: {group} at applied index {applied} differs at {place}")]
    StateDiffers {
        /// The group.
        group: GroupId,
        /// The applied index.
        applied: Index,
        /// The replica seen second.
        place: Place,
    },
    /// A client was told that a write is done, but it is not committed.
    #[error("no acknowledged write lost: {client} #{sequence} was acknowledged and is not committed in {group}")]
    AcknowledgedNotCommitted {
        /// The group.
        group: GroupId,
        /// The client process.
        client: ClientId,
        /// Its number for the write.
        sequence: u64,
    },
    /// One request is carried out twice.
    #[error("at most once: {client} #{sequence} is carried out in {group} at {first} and at {second}")]
    ExecutedTwice {
        /// The group.
        group: GroupId,
        /// The client process.
        client: ClientId,
        /// Its number for the write.
        sequence: u64,
        /// Where it stands first.
        first: Index,
        /// Where it stands again.
        second: Index,
    },
    /// What is remembered of a request is not what it came to.
    #[error("law 24: {client} #{sequence} in {group} {what}")]
    WrongMemory {
        /// The group.
        group: GroupId,
        /// The client process.
        client: ClientId,
        /// Its number for the request.
        sequence: u64,
        /// What is wrong.
        what: String,
    },
    /// A client was told that a write will never be done, and it was.
    #[error("a refusal is definite: {client} #{sequence} was refused and is committed in {group} at {index}")]
    RefusedButExecuted {
        /// The group.
        group: GroupId,
        /// The client process.
        client: ClientId,
        /// Its number for the write.
        sequence: u64,
        /// Where it stands.
        index: Index,
    },
    /// A client heard something that cannot be an answer to what it asked.
    #[error("replies: {0}")]
    BadReply(String),
    /// An operator was told that an order is done.
    #[error("orders are done when they are said to be: {place} says so of {order} for {group}")]
    OrderNotDone {
        /// Who said it.
        place: Place,
        /// The group.
        group: GroupId,
        /// The order.
        order: String,
    },
    /// A leader that may serve reads alone, and a later leader.
    #[error("leases: {holder} holds a lease for {group} in term {term}, and {leader} leads it in term {later}")]
    LeaseBroken {
        /// The group.
        group: GroupId,
        /// Who would serve reads alone.
        holder: Place,
        /// Its term.
        term: Term,
        /// Who leads.
        leader: Place,
        /// Its term.
        later: Term,
    },
    /// What clients saw has no order that explains it.
    #[error("linearizability: {0}")]
    NotLinearizable(String),
    /// A group does not serve although nothing is wrong any more.
    #[error("liveness: {0}")]
    Stuck(String),
    /// A core asks for turns without end at one moment.
    #[error("progress of time: {place} still has a deadline in the past after {turns} turns")]
    Spinning {
        /// The core.
        place: Place,
        /// Turns taken.
        turns: u32,
    },
    /// A core refused what was correct.
    #[error("correct frames are accepted: {place} {what}")]
    RefusedCorrect {
        /// The core.
        place: Place,
        /// What it did.
        what: String,
    },
    /// A core changed for a frame of a life that is over, or for a replica that does not exist.
    #[error("law 11: {place} does not ignore {event}")]
    NotIgnored {
        /// The core.
        place: Place,
        /// The event.
        event: String,
    },
    /// A read was answered and no round that began after it was confirmed by a quorum.
    #[error("law 6: {place} answers attempt {attempt} to read {group} without a round that was confirmed for it")]
    ReadUnconfirmed {
        /// The core.
        place: Place,
        /// The group.
        group: GroupId,
        /// The attempt.
        attempt: u64,
    },
    /// A stale read was answered from a state older than its bound.
    #[error(
        "stale reads: {place} answers from {group} applied up to {applied}, and {must} was committed before the bound"
    )]
    ReadTooStale {
        /// The core.
        place: Place,
        /// The group.
        group: GroupId,
        /// How far it is.
        applied: Index,
        /// How far it has to be.
        must: Index,
    },
    /// A replica confirmed a leader's term although it knew a newer one.
    #[error("law 6: {place} confirms term {asked} of {group} and has reached term {term}")]
    ConfirmedOldTerm {
        /// Where.
        place: Place,
        /// The group.
        group: GroupId,
        /// The term that it confirms.
        asked: Term,
        /// Its own.
        term: Term,
    },
    /// A log does not keep what it promises.
    #[error("{law}: the log of {place} {what}")]
    Log {
        /// The promise.
        law: LogLaw,
        /// The log's core.
        place: Place,
        /// What it did.
        what: String,
    },
    /// The core's own assertions stopped it.
    #[error("the core at {place} stopped itself: {message}")]
    Stopped {
        /// The core.
        place: Place,
        /// What the assertion says.
        message: String,
    },
}

/// A broken law in a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// The run.
    pub seed: u64,
    /// When it was noticed, in virtual time.
    pub at: Time,
    /// What was broken.
    pub broken: Broken,
    /// The last lines of the trace, or all of them if asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} broke at {}: {}", self.seed, self.at, self.broken)
    }
}
