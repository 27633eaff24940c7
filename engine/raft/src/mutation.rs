//! Bugs put in on purpose. A checker that has never seen a bug proves nothing, so the simulator runs with each of
//! these and must notice. Only with the cargo feature `mutations` can one be chosen; without it [`Config::mutated`]
//! is the constant `false` and the compiler leaves nothing of it in the code path.

use crate::Config;

/// A bug, and the law it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Every write counts as durable as soon as it is handed out (law 13).
    SkipDurableWait,
    /// A quorum is one voter smaller than a majority.
    QuorumShortByOne,
    /// A restarted replica remembers its term but not its vote.
    ForgetVoteAtRestart,
    /// A leader counts copies of entries of older terms (the paper's figure 8).
    CommitOldTerm,
    /// A vote is granted whatever the candidate's log holds (the paper's section 5.4.1).
    VoteForAnyLog,
    /// A second candidate of the same term gets a vote too.
    VoteTwice,
    /// The entry before the appended ones is not compared (log matching).
    SkipPreviousCheck,
    /// A write counts as durable when an older one completes (law 13).
    DurableEarly,
    /// A replica campaigns although payloads of its log are missing.
    LeadWithoutPayloads,
    /// An Append behind a missing payload is taken like any other.
    AcknowledgeWithoutPayloads,
    /// A replica that has lost its vote votes again.
    VoteAfterLostVote,
    /// A replica that has lost its vote acknowledges in whatever term it believes.
    TrustLostTerm,
    /// Entries leave memory that are not durable, not committed, or not applied.
    EvictUnapplied,
    /// What was fetched for one purpose, maybe in an older term, is sent to whoever is replicated to.
    TakeStaleFetch,
    /// A leader changes the members before it has committed an entry of its own term.
    ChangeBeforeOwnCommit,
    /// A joint commit asks the incoming half only.
    CommitWithoutOutgoing,
    /// A joint election asks the incoming half only.
    VoteWithoutOutgoing,
    /// A learner counts like a voter.
    LearnerCounts,
    /// A configuration stays in force when its entry is cut.
    KeepCutConfiguration,
    /// A leader that is no member any more goes on.
    RemovedLeaderStays,
    /// A permit to campaign is used for every later term too, and honoured for it.
    PermitReused,
    /// A peer that has lost payloads counts for what it acknowledged before.
    CountLostPayloads,
    /// A new leader answers reads before an entry of its own term is committed.
    ReadBeforeOwnCommit,
    /// A follower believes the commit index of an Append that it has not compared with its log.
    CommitWithoutMatch,
    /// A replica that stops being a candidate, or follows, forgets its vote of that term.
    EraseVoteOnStepDown,
    /// A vote is promised when the term is durable, and the vote is written after that.
    PromiseBeforeVote,
    /// Requests for votes leave before the own vote is durable.
    AskBeforeOwnVote,
    /// A higher term is adopted in memory only.
    TermNotWritten,
    /// What was promised in an older term leaves in a newer one.
    KeepOldPromises,
    /// A group of one voter commits what its disk does not have yet.
    CommitAloneEarly,
    /// Acknowledgements of an older term count.
    CountOldAnswers,
    /// Votes of an older term count.
    CountOldVotes,
    /// An Append whose entries are all there cuts what stands behind them.
    CutBehindKnown,
    /// A snapshot is taken that the replica has already.
    InstallBelowCommitted,
    /// What the log holds behind a snapshot is dropped with what it covers.
    DropKeptSuffix,
    /// The members that a snapshot names are not taken from it.
    IgnoreSnapshotMembers,
    /// An acknowledgement waits for its index to have been durable once, not for the last write (law 13).
    DurableByIndex,
    /// The log is told that all of it is committed.
    NoteUncommitted,
}

#[cfg(feature = "mutations")]
impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 38] = [
        Mutation::SkipDurableWait,
        Mutation::QuorumShortByOne,
        Mutation::ForgetVoteAtRestart,
        Mutation::CommitOldTerm,
        Mutation::VoteForAnyLog,
        Mutation::VoteTwice,
        Mutation::SkipPreviousCheck,
        Mutation::DurableEarly,
        Mutation::LeadWithoutPayloads,
        Mutation::AcknowledgeWithoutPayloads,
        Mutation::VoteAfterLostVote,
        Mutation::TrustLostTerm,
        Mutation::EvictUnapplied,
        Mutation::TakeStaleFetch,
        Mutation::ChangeBeforeOwnCommit,
        Mutation::CommitWithoutOutgoing,
        Mutation::VoteWithoutOutgoing,
        Mutation::LearnerCounts,
        Mutation::KeepCutConfiguration,
        Mutation::RemovedLeaderStays,
        Mutation::PermitReused,
        Mutation::CountLostPayloads,
        Mutation::ReadBeforeOwnCommit,
        Mutation::CommitWithoutMatch,
        Mutation::EraseVoteOnStepDown,
        Mutation::PromiseBeforeVote,
        Mutation::AskBeforeOwnVote,
        Mutation::TermNotWritten,
        Mutation::KeepOldPromises,
        Mutation::CommitAloneEarly,
        Mutation::CountOldAnswers,
        Mutation::CountOldVotes,
        Mutation::CutBehindKnown,
        Mutation::InstallBelowCommitted,
        Mutation::DropKeptSuffix,
        Mutation::IgnoreSnapshotMembers,
        Mutation::DurableByIndex,
        Mutation::NoteUncommitted,
    ];
}

#[cfg(feature = "mutations")]
impl Config {
    /// Whether this bug was chosen.
    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[cfg(not(feature = "mutations"))]
impl Config {
    /// Never, without the feature.
    #[inline(always)]
    pub(crate) const fn mutated(&self, _: Mutation) -> bool {
        false
    }
}
