//! Bugs put into a core on purpose, beside those of `pontoon-raft`: each takes away one law or one check of this crate,
//! and the simulator must notice. Only with the cargo feature `mutations` can one be chosen; without it
//! [`CoreConfig::mutated`] is the constant `false` and the compiler leaves nothing of it in the code path.

use crate::CoreConfig;
use crate::quorum_loss::Rules;

/// A bug, and the law it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreMutation {
    /// Reads join a ReadIndex round that started before they arrived (law 6).
    JoinOpenRound,
    /// Rounds use their numbers again (law 6).
    ReuseRoundId,
    /// A round is confirmed whatever term the replica has reached (law 6).
    ConfirmAnyTerm,
    /// Reads are served without asking anybody.
    ReadWithoutRound,
    /// A leader that no quorum supports, or that commits nothing, stays (law 7).
    NeverMakeWay,
    /// Any beacon extends support, also one that shows no way back (law 7).
    OneWaySupport,
    /// The claim of a core that is not supported is followed (law 7).
    FollowUnsupported,
    /// Leaderships given up are neither listed nor taken out of the sum (laws 7 and 8).
    HideReleased,
    /// A group that the page does not list stays attached (law 8).
    KeepUnlisted,
    /// A new incarnation of a peer is not told to the groups led here.
    IgnoreRebirth,
    /// Frames of an older incarnation are taken (law 11).
    AnyIncarnation,
    /// A message for another replica, or from one that does not live there, is taken for that of the present one (law 11).
    AnyReplica,
    /// A request with an outdated generation is accepted.
    AnyGeneration,
    /// A key outside the range is accepted.
    AnyKey,
    /// The outcome of an entry goes to whoever waits for its index, whatever the term.
    OutcomeByIndex,
    /// A command that was executed before is executed again, whatever the sessions say (law 24).
    ExecuteAgain,
    /// What is below the floor is executed (law 24).
    ExecuteForgotten,
    /// A session that makes room leaves no trace (law 24).
    ForgetWithoutTrace,
    /// What a restarted core applies first is not remembered (law 24).
    ForgetAtRestart,
    /// A snapshot brings the machine and not what the group remembers of its clients (law 24).
    ForgetInSnapshot,
    /// A follower serves its reads without asking for an index (law 6).
    FollowerAsksNobody,
    /// A read that may be stale is served whatever the age of the state.
    AnyAge,
    /// A command that cannot be read is passed over.
    PassUnreadable,
    /// Two clients of one turn get each other's outcomes.
    SwapOutcomes,
    /// A request whose time is over hears that it was never executed.
    RefuseLate,
    /// A leader that steps down tells its clients that their commands were never executed.
    RefuseOnStepDown,
    /// A compare-and-set is decided when it is proposed.
    #[cfg(feature = "mutations")]
    CompareAtProposal,
    /// A leader applies some entries twice.
    ApplyTwice,
    /// A restarted replica does not apply its second entry.
    SkipAfterRestart,
    /// The log is given up before the checkpoint that covers it is durable (law 19).
    CompactBeforeStored,
    /// A snapshot is installed before the store has it (law 18).
    InstallBeforeStored,
    /// A replica that was removed is made again (law 11).
    ReviveDead,
    /// A replica that does not exist, not yet or not any more, gives its vote (law 21).
    UninitialisedVotes,
    /// A snapshot that is not what was offered is taken.
    AnyDigest,
    /// An order is said to be done when it is begun.
    OrderDoneAtOnce,
    /// A promise does not forbid to follow what is asked in a higher term (law 1).
    PromiseEndsWithTerm,
    /// A promise counts from the time at which its event was stepped, which was sampled before it arrived (law 2).
    PromiseFromEvent,
    /// A lease counts from the answer and not from the sending of the beacon (law 2).
    LeaseFromAnswer,
    /// A lease lasts as long as the promise, as if clocks ran alike (law 2).
    LeaseWithoutMargin,
    /// A jump of the clock changes nothing (law 2).
    IgnoreClockJumps,
    /// A promise that has ended goes on under its old epoch (law 3).
    WithdrawWithoutEpoch,
    /// A core that comes to life promises anew at once (law 4).
    ForgetPromises,
    /// A core that comes to life takes part at once (law 12).
    NoRegistration,
    /// A peer accepts whatever is registered (law 12).
    IgnoreMarks,
    /// A core that was refused goes on as if it had been accepted (law 12).
    RefusedVotes,
    /// A verdict leaves before what it rests on is durable (law 12).
    VerdictBeforeLedger,
    /// Any peer's word is enough, witness or not (law 12).
    AnyWitness,
    /// What is said of groups goes to peers that have not noted the life it is said in (law 12).
    SpeakUnjudged,
    /// A leader keeps its lease after it has permitted a campaign against itself (law 5).
    LeaseDespitePermit,
    /// A promise counts for groups in which its giver follows somebody else (law 8).
    LeaseWithoutAcceptance,
    /// A group that lost its quorum begins anew from the log with the highest last entry, whatever is known to be committed.
    HighestEntryAlone,
    /// It begins anew from the log of any survivor.
    AnyBase,
    /// The survivors go on as the replicas that they were (law 11).
    KeepReplicas,
}

#[cfg(feature = "mutations")]
impl CoreMutation {
    /// All of them.
    pub const ALL: [CoreMutation; 53] = [
        CoreMutation::JoinOpenRound,
        CoreMutation::ReuseRoundId,
        CoreMutation::ConfirmAnyTerm,
        CoreMutation::ReadWithoutRound,
        CoreMutation::NeverMakeWay,
        CoreMutation::OneWaySupport,
        CoreMutation::FollowUnsupported,
        CoreMutation::HideReleased,
        CoreMutation::KeepUnlisted,
        CoreMutation::IgnoreRebirth,
        CoreMutation::AnyIncarnation,
        CoreMutation::AnyReplica,
        CoreMutation::AnyGeneration,
        CoreMutation::AnyKey,
        CoreMutation::OutcomeByIndex,
        CoreMutation::ExecuteAgain,
        CoreMutation::ExecuteForgotten,
        CoreMutation::ForgetWithoutTrace,
        CoreMutation::ForgetAtRestart,
        CoreMutation::ForgetInSnapshot,
        CoreMutation::FollowerAsksNobody,
        CoreMutation::AnyAge,
        CoreMutation::PassUnreadable,
        CoreMutation::SwapOutcomes,
        CoreMutation::RefuseLate,
        CoreMutation::RefuseOnStepDown,
        CoreMutation::CompareAtProposal,
        CoreMutation::ApplyTwice,
        CoreMutation::SkipAfterRestart,
        CoreMutation::CompactBeforeStored,
        CoreMutation::InstallBeforeStored,
        CoreMutation::ReviveDead,
        CoreMutation::UninitialisedVotes,
        CoreMutation::AnyDigest,
        CoreMutation::OrderDoneAtOnce,
        CoreMutation::PromiseEndsWithTerm,
        CoreMutation::PromiseFromEvent,
        CoreMutation::LeaseFromAnswer,
        CoreMutation::LeaseWithoutMargin,
        CoreMutation::IgnoreClockJumps,
        CoreMutation::WithdrawWithoutEpoch,
        CoreMutation::ForgetPromises,
        CoreMutation::NoRegistration,
        CoreMutation::IgnoreMarks,
        CoreMutation::RefusedVotes,
        CoreMutation::VerdictBeforeLedger,
        CoreMutation::AnyWitness,
        CoreMutation::SpeakUnjudged,
        CoreMutation::LeaseDespitePermit,
        CoreMutation::LeaseWithoutAcceptance,
        CoreMutation::HighestEntryAlone,
        CoreMutation::AnyBase,
        CoreMutation::KeepReplicas,
    ];
}

#[cfg(feature = "mutations")]
impl CoreConfig {
    /// Whether this bug was chosen.
    pub(crate) fn mutated(&self, mutation: CoreMutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether support comes and goes by chance. That is no bug: it is a hint, so nothing unsafe may follow.
    pub(crate) fn hints_lie(&self) -> bool {
        self.hints_lie
    }
}

#[cfg(feature = "mutations")]
impl Rules {
    /// Whether this bug was chosen.
    pub(crate) fn mutated(&self, mutation: CoreMutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[cfg(not(feature = "mutations"))]
impl Rules {
    /// Never, without the feature.
    #[inline(always)]
    pub(crate) const fn mutated(&self, _: CoreMutation) -> bool {
        false
    }
}

#[cfg(not(feature = "mutations"))]
impl CoreConfig {
    /// Never, without the feature.
    #[inline(always)]
    pub(crate) const fn mutated(&self, _: CoreMutation) -> bool {
        false
    }

    /// Never, without the feature.
    #[inline(always)]
    pub(crate) const fn hints_lie(&self) -> bool {
        false
    }
}

#[cfg(feature = "mutations")]
mod early {
    use bytes::Bytes;
    use pontoon_wire::command::{Command, KvOperation};

    use crate::Kv;

    /// Stands for an expected value that was compared when the command was proposed.
    const COMPARED: &[u8] = b"compared when it was proposed";

    /// Compares now what a correct core compares when it applies.
    pub(crate) fn compare_now(command: Bytes, machine: &Kv) -> Bytes {
        let Ok(mut decoded) = Command::decode(command.clone()) else { return command };
        for operation in &mut decoded.operations {
            if let KvOperation::CompareAndSet { key, expected, .. } = operation
                && machine.get(key) == *expected
            {
                *expected = Some(Bytes::from_static(COMPARED));
            }
        }
        decoded.encode()
    }

    /// What is applied of a command whose comparisons were made before.
    pub(crate) fn compared(command: &Command, machine: &Kv) -> Command {
        let mut command = command.clone();
        for operation in &mut command.operations {
            if let KvOperation::CompareAndSet { key, expected, .. } = operation
                && expected.as_deref() == Some(COMPARED)
            {
                *expected = machine.get(key);
            }
        }
        command
    }
}

#[cfg(feature = "mutations")]
pub(crate) use early::{compare_now, compared};
