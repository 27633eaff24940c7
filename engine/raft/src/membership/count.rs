//! What the members of a configuration have decided: the arithmetic of majorities over both halves.

use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{Index, Member, ReplicaId};

use super::{Configuration, Half, Standing};
use crate::quorum::{VoteResult, committed_index, quorum, vote_result};

impl Configuration {
    /// The highest index that a majority of each half holds, given what each replica holds.
    pub fn committed_index(&self, held: impl Fn(ReplicaId) -> Index) -> Index {
        self.halves().map(|half| self.committed_in(half, 0, &held)).min().unwrap_or_default()
    }

    /// Where an election stands, given the answers so far: won when won in each half, lost when lost in one.
    pub fn vote_result(&self, vote: impl Fn(ReplicaId) -> Option<bool>) -> VoteResult {
        self.halves().map(|half| self.vote_in(half, 0, &vote)).fold(VoteResult::Won, both)
    }

    /// Whether the replicas that `holds` names contain a majority of each half.
    pub fn is_quorum(&self, holds: impl Fn(ReplicaId) -> bool) -> bool {
        self.vote_result(|replica| holds(replica).then_some(true)) == VoteResult::Won
    }

    /// The bug in which learners count.
    pub(crate) fn promoted(&self) -> Configuration {
        let vote = |(member, standing): &(Member, Standing)| match standing {
            Standing::Learner => (*member, Standing::Voter),
            other => (*member, *other),
        };
        Configuration { members: self.members.iter().map(vote).collect(), phase: self.phase, highest: self.highest }
    }

    /// The same for one half, where `short` voters less than a majority are enough. No correct caller wants that.
    pub(crate) fn committed_in(&self, half: Half, short: usize, held: &impl Fn(ReplicaId) -> Index) -> Index {
        let mut indexes = [Index(0); MEMBERS_MAX];
        let mut voters = 0;
        for (slot, voter) in indexes.iter_mut().zip(self.voters_of(half)) {
            *slot = held(voter);
            voters += 1;
        }
        committed_index(&indexes[..voters], quorum(voters) - short)
    }

    /// See [`Configuration::committed_in`].
    pub(crate) fn vote_in(&self, half: Half, short: usize, vote: &impl Fn(ReplicaId) -> Option<bool>) -> VoteResult {
        let (mut voters, mut granted, mut refused) = (0, 0, 0);
        for voter in self.voters_of(half) {
            voters += 1;
            match vote(voter) {
                Some(true) => granted += 1,
                Some(false) => refused += 1,
                None => {}
            }
        }
        vote_result(voters, quorum(voters) - short, granted, refused)
    }
}

/// What two halves have decided together.
pub(crate) fn both(one: VoteResult, other: VoteResult) -> VoteResult {
    match (one, other) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        _ => VoteResult::Pending,
    }
}
