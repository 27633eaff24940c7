//! The invariants of a replica, all in one place: those of a state, and those of a step.
//!
//! Nothing here walks the log, so a debug build can afford it after every step.

use pontoon_types::{HardState, Index, LogId, ReplicaId, Term, WriteNumber};

use super::{Raft, State};
use crate::mutation::Mutation;
use crate::quorum::Ballot;
use crate::{Effect, Role};

impl Raft {
    /// Panics, naming the invariant, when one of this type does not hold. Every step of a debug build ends with it.
    pub fn check(&self) {
        let last = self.log.last();
        self.check_window();
        assert!(last.term <= self.hard_state.term, "the last entry is not of a term this replica has not seen");
        let before_last = self.log.term_at(last.index.previous());
        assert!(before_last.is_ok_and(|term| term <= last.term) || last == self.log.compacted(), "terms never fall");
        self.writes.check(last.index, self.hard_state.term);
        self.check_lost(last.index);
        self.members.check(last.index);
        let voted_for_me = self.hard_state.vote == Some(self.me);
        match &self.state {
            State::Follower { leader, supported } => {
                assert!(*leader != Some(self.me), "a follower does not follow itself");
                assert!(!supported || leader.is_some(), "a supported leader is known");
                assert!(*supported == self.election_deadline.is_none(), "a follower has support or a deadline");
            }
            State::PreCandidate(ballot) => {
                assert!(self.election_deadline.is_some(), "a pre-candidate has a deadline");
                assert!(self.is_eligible(), "a pre-candidate may be needed");
                assert!(self.has_own_vote(ballot) != Some(false), "a pre-candidate would vote for itself");
            }
            State::Candidate { ballot, vote_write, .. } => {
                assert!(self.election_deadline.is_some(), "a candidate has a deadline");
                assert!(voted_for_me, "a candidate has voted for itself");
                assert!(
                    self.has_own_vote(ballot) != Some(true) || *vote_write <= self.writes.durable(),
                    "law 13: the own vote counts when durable"
                );
            }
            State::Leader(leadership) => {
                assert!(self.election_deadline.is_none(), "a leader has no election deadline");
                assert!(voted_for_me, "a leader has voted for itself");
                let is_of_term = self.log.holds(LogId::new(leadership.start, self.hard_state.term));
                let is_empty = self.log.get(leadership.start).is_none_or(|entry| entry.payload.is_empty());
                assert!(is_of_term && is_empty, "a leader's term opens with a no-op");
                let others = self.members.current().replicas().filter(|replica| *replica != self.me);
                assert!(others.eq(leadership.peers.iter().map(|peer| peer.id)), "a leader tracks the other members");
                for peer in &leadership.peers {
                    peer.check(last.index, self.log.committed(), &self.config);
                }
            }
        }
    }

    /// Whether a candidate has its own vote, or none if that does not count.
    fn has_own_vote(&self, ballot: &Ballot) -> Option<bool> {
        let place = self.members.current().place(self.me)?;
        Some(ballot.answer_of(place) == Some(true))
    }

    /// What the disk has lost takes the right to lead.
    fn check_lost(&self, last: Index) {
        self.lost.check(last, self.writes.durable(), self.writes.last());
        let Some(missing) = self.lost.first_missing() else { return self.check_lost_vote() };
        let is_there = self.log.get(missing).is_some_and(|entry| !entry.payload.is_empty());
        assert!(!is_there, "a missing payload is not there");
        assert!(self.machine.applied < missing || self.log.get(missing).is_none(), "what was applied was there");
        assert!(matches!(self.state, State::Follower { .. }), "a replica that misses a payload does not campaign");
        self.check_lost_vote();
    }

    fn check_lost_vote(&self) {
        if self.lost_vote.is_some() {
            assert!(self.hard_state.vote.is_none(), "a replica that has lost its vote does not vote");
            assert!(matches!(self.state, State::Follower { .. }), "a replica that has lost its vote does not campaign");
        }
    }

    /// What a leader has just committed is durable on a quorum, payloads included.
    fn check_quorum_of_commit(&self) {
        assert!(self.held_by_quorum() >= self.log.committed(), "what is being committed is durable on a quorum");
    }
}

/// What a step started from.
pub(super) struct Before {
    hard_state: HardState,
    role: Role,
    leader: Option<ReplicaId>,
    last: LogId,
    committed: Index,
    configuration_at: Index,
    durable_write: WriteNumber,
    last_write: WriteNumber,
}

impl Before {
    pub(super) fn of(raft: &Raft) -> Before {
        Before {
            hard_state: raft.hard_state,
            role: raft.role(),
            leader: raft.leader(),
            last: raft.last(),
            committed: raft.committed(),
            configuration_at: raft.configuration_at(),
            durable_write: raft.writes.durable(),
            last_write: raft.writes.last(),
        }
    }

    fn standing(&self) -> (Role, Term, Option<ReplicaId>) {
        (self.role, self.hard_state.term, self.leader)
    }

    /// Says what the step changed that others want to know.
    pub(super) fn report_changes(&self, raft: &Raft, effects: &mut Vec<Effect>) {
        let (role, term, leader) = (raft.role(), raft.term(), raft.leader());
        if self.standing() != (role, term, leader) {
            effects.push(Effect::Role { role, term, leader });
        }
        if self.committed != raft.committed() {
            effects.push(Effect::Committed(raft.committed()));
        }
    }

    /// Panics, naming the invariant, when the step did what no step may do.
    pub(super) fn check_transition(&self, raft: &Raft) {
        assert!(self.hard_state.term <= raft.term(), "a term never falls");
        assert!(self.committed <= raft.committed(), "the commit index never falls");
        assert!(self.durable_write <= raft.writes.durable(), "what is durable stays durable");
        assert!(self.last_write <= raft.writes.last(), "write numbers grow");
        if self.committed < raft.committed() {
            let whole = raft.lost.first_missing().is_none_or(|missing| raft.committed() < missing);
            assert!(whole, "nothing becomes committed here at or beyond a missing payload");
        }
        // One change may commit another; the second one's quorum is then of the next configuration.
        let same_members = self.configuration_at == raft.configuration_at();
        if self.committed < raft.committed() && self.role == Role::Leader && raft.role() == Role::Leader && same_members
        {
            raft.check_quorum_of_commit();
        }
        if self.hard_state.term == raft.term() {
            let vote = self.hard_state.vote;
            let on_purpose = [Mutation::VoteTwice, Mutation::EraseVoteOnStepDown];
            let on_purpose = on_purpose.into_iter().any(|mutation| raft.config.mutated(mutation));
            assert!(
                vote.is_none() || vote == raft.vote() || raft.is_vote_lost() || on_purpose,
                "a vote never changes within a term"
            );
            if self.role == Role::Leader {
                assert!(matches!(raft.role(), Role::Leader | Role::Follower), "a leader leads or resigns");
                assert!(self.last <= raft.last(), "a leader never cuts its log");
            }
        }
    }
}
