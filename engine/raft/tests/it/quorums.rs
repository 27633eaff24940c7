//! The quorum functions against a model that counts one by one.

use pontoon_raft::{VoteResult, committed_index, quorum, vote_result};
use pontoon_types::Index;
use proptest::prelude::*;

#[test]
fn a_quorum_is_the_smallest_majority() {
    let sizes: Vec<usize> = (1..=9).map(quorum).collect();
    assert_eq!(sizes, [1, 2, 2, 3, 3, 4, 4, 5, 5]);
    for voters in 1..=9 {
        assert!(2 * quorum(voters) > voters, "two quorums of {voters} share a voter");
        assert!(2 * (quorum(voters) - 1) <= voters, "nothing smaller is a majority of {voters}");
    }
}

#[test]
fn a_quorum_that_cannot_be_reached_commits_nothing() {
    assert_eq!(committed_index(&[], 1), Index(0));
    assert_eq!(committed_index(&[Index(5)], 2), Index(0));
    assert_eq!(committed_index(&[Index(5)], 0), Index(0));
}

#[test]
fn an_election_ends_with_the_answer_that_decides_it() {
    use VoteResult::{Lost, Pending, Won};
    let cases = [
        ((1, 1, 0), Won),
        ((1, 0, 0), Pending),
        ((3, 1, 1), Pending),
        ((3, 2, 0), Won),
        ((3, 1, 2), Lost),
        ((4, 2, 2), Lost),
        ((4, 2, 1), Pending),
        ((5, 2, 2), Pending),
        ((5, 3, 2), Won),
        ((5, 2, 3), Lost),
    ];
    for ((voters, granted, refused), result) in cases {
        let got = vote_result(voters, quorum(voters), granted, refused);
        assert_eq!(got, result, "{granted} of {voters} granted, {refused} refused");
    }
}

proptest! {
    #[test]
    fn the_commit_index_is_the_highest_that_enough_voters_hold(
        matched in prop::collection::vec(0u64..12, 1..=9),
        needed in 1usize..=9,
    ) {
        let needed = needed.min(matched.len());
        let model = (0..12).rev().find(|index| matched.iter().filter(|held| *held >= index).count() >= needed);
        let indexes: Vec<Index> = matched.iter().copied().map(Index).collect();
        prop_assert_eq!(committed_index(&indexes, needed), Index(model.unwrap_or(0)));
    }

    #[test]
    fn an_election_is_won_or_lost_when_no_later_answer_can_change_it(
        voters in 1usize..=9,
        granted in 0usize..=9,
        refused in 0usize..=9,
    ) {
        prop_assume!(granted + refused <= voters);
        let needed = quorum(voters);
        let silent = voters - granted - refused;
        let can_win = (0..=silent).any(|more| granted + more >= needed);
        let can_fail = (0..=silent).any(|more| granted + more < needed);
        let model = match (can_win, can_fail) {
            (true, false) => VoteResult::Won,
            (false, _) => VoteResult::Lost,
            (true, true) => VoteResult::Pending,
        };
        prop_assert_eq!(vote_result(voters, needed, granted, refused), model);
    }
}
