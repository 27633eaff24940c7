//! The arithmetic of majorities: pure functions over numbers.

use pontoon_types::{Index, limits::MEMBERS_MAX};

/// How many of `voters` make a majority. Any two majorities share a voter.
pub const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest index that at least `quorum` of the voters hold durably, given what each holds. Zero when there are
/// fewer voters than that.
///
/// Panics with more than [`MEMBERS_MAX`] voters, because no group has more.
pub fn committed_index(matched: &[Index], quorum: usize) -> Index {
    assert!(matched.len() <= MEMBERS_MAX, "a group has at most {MEMBERS_MAX} voters");
    if quorum == 0 || quorum > matched.len() {
        return Index(0);
    }
    let mut sorted = [Index(0); MEMBERS_MAX];
    let sorted = &mut sorted[..matched.len()];
    sorted.copy_from_slice(matched);
    sorted.sort_unstable();
    sorted[matched.len() - quorum]
}

/// Where an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum granted its vote.
    Won,
    /// So many refused that a quorum cannot be reached any more.
    Lost,
    /// Both are still possible.
    Pending,
}

/// Where an election of `voters` stands in which `granted` and `refused` have answered.
pub fn vote_result(voters: usize, quorum: usize, granted: usize, refused: usize) -> VoteResult {
    if granted >= quorum {
        VoteResult::Won
    } else if voters - refused.min(voters) < quorum {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

/// The votes of one election, by the voters' places among the members of the configuration, which does not change while
/// an election runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ballot {
    granted: u16,
    refused: u16,
}

impl Ballot {
    /// Notes an answer. A grant stands, because it is a promise; a refusal may be the late answer to an earlier
    /// request, and gives way to a grant.
    pub(crate) fn record(&mut self, position: usize, granted: bool) {
        let bit = 1 << position;
        if granted {
            self.granted |= bit;
            self.refused &= !bit;
        } else if self.granted & bit == 0 {
            self.refused |= bit;
        }
    }

    /// What this voter has answered.
    pub(crate) fn answer_of(&self, position: usize) -> Option<bool> {
        let bit = 1 << position;
        match (self.granted & bit != 0, self.refused & bit != 0) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}
