//! Elections: pre-vote, vote, and how a replica comes to follow or to lead.
//!
//! A campaign asks twice. Pre-votes ask whether an election in the next term would succeed and change nothing
//! anywhere, so a replica that was cut off comes back without pushing the term up and the leader down. Only when a
//! quorum would agree does the replica write its new term and its own vote. The requests for votes leave, and the
//! own vote counts, once that write is durable; a vote for another is promised under the same rule.
//!
//! Two that ask for pre-votes at once would both be told yes, and then take each other's votes away; where a network is
//! slow compared with the timeouts, that can go on for many terms. So one of them gives way when it hears of the other:
//! the one whose log is behind, or the later name. Who starts once the first one stands hears of it before it could stand
//! itself, so votes are split only where messages overtake each other by more than a round trip.
//!
//! Whom to ask, and whose answers count, says the configuration in force here. Whoever is asked answers, even if it
//! does not know the one who asks or takes itself for a learner: its own configuration may be the older one. A replica
//! whose leader is confirmed is *content*. It refuses pre-votes, and a request for votes in a higher term passes it by
//! without a trace (thesis, section 4.2.3), so that a replica that was removed, or was let down by a link, deposes
//! nobody. Only a permit of that leader changes its mind (`raft/transfer.rs`).

use bytes::Bytes;
use pontoon_types::{Body, Entry, HardState, Index, LogId, Permit, ReplicaId, Term};

use super::{Leadership, Raft, State, Step};
use crate::mutation::Mutation;
use crate::quorum::{Ballot, VoteResult};

impl Raft {
    pub(super) fn on_campaign(&mut self, step: &mut Step) {
        if !matches!(self.state, State::Leader(_)) {
            self.campaign(step);
        }
    }

    /// Asks for pre-votes. A candidate whose election did not end comes back here too, because by now the others may
    /// have a leader. One that may not lead leaves it to the others and only keeps waiting. One whose own vote is not durable
    /// yet has not even asked: its log has more to do than it can, and another term would be one write more.
    pub(super) fn campaign(&mut self, step: &mut Step) {
        if !self.may_campaign() {
            return self.on_postpone(step);
        }
        if let State::Candidate { vote_write, .. } = self.state
            && vote_write > self.writes.durable()
        {
            return self.restart_election_deadline(step);
        }
        if let State::Candidate { permit: Some(permit), .. } = self.state
            && self.config.mutated(Mutation::PermitReused)
        {
            return self.stand(step, Some(permit));
        }
        self.restart_election_deadline(step);
        let mut ballot = Ballot::default();
        self.record(&mut ballot, self.me, true);
        self.state = State::PreCandidate(ballot);
        let last = self.log.last();
        for peer in self.others() {
            self.send(step, self.message(peer, self.hard_state.term.next(), Body::PreVote { last }));
        }
        self.decide_pre_vote(step, ballot);
    }

    /// One that votes neither now nor in a configuration that may come back leaves it to the others. One that misses
    /// payloads could not send its log, one that cannot go on from its log could not serve, and one that has lost its vote
    /// cannot give it to itself.
    pub(super) fn may_campaign(&self) -> bool {
        let complete = self.lost.first_missing().is_none() || self.config.mutated(Mutation::LeadWithoutPayloads);
        complete && self.needs_snapshot_at.is_none() && self.may_vote() && self.is_eligible()
    }

    /// Waits once more instead of campaigning. Held back requests for votes are dropped with the candidacy.
    pub(super) fn on_postpone(&mut self, step: &Step) {
        if let State::PreCandidate(_) | State::Candidate { .. } = self.state {
            self.state = State::Follower { leader: None, supported: false };
        }
        if self.election_deadline.is_some() {
            self.restart_election_deadline(step);
        }
    }

    /// A pre-vote is granted if an election could help (no leader is confirmed) and would get this replica's vote.
    pub(super) fn on_pre_vote(&mut self, step: &mut Step, from: ReplicaId, term: Term, last: LogId) {
        let granted = !self.is_content() && self.may_vote() && term > self.hard_state.term && last >= self.log.last();
        if granted && self.gives_way_to(from, last) {
            self.wait_for_election(step);
        }
        let term = if granted { term } else { self.hard_state.term };
        self.send(step, self.message(from, term, Body::PreVoteResponse { granted }));
    }

    /// Whether this replica asks for pre-votes too and leaves it to the other one, to which it would give its vote. It tries
    /// again at its deadline if nothing comes of that.
    fn gives_way_to(&self, from: ReplicaId, last: LogId) -> bool {
        let is_later = (last, self.me) > (self.log.last(), from);
        matches!(self.state, State::PreCandidate(_)) && is_later && self.members.current().is_voter(from)
    }

    pub(super) fn on_pre_vote_response(&mut self, step: &mut Step, from: ReplicaId, term: Term, granted: bool) {
        let State::PreCandidate(mut ballot) = self.state else { return };
        if granted && term != self.hard_state.term.next() {
            return;
        }
        if !granted && term > self.hard_state.term {
            return self.adopt(step, term);
        }
        self.record(&mut ballot, from, granted);
        self.state = State::PreCandidate(ballot);
        self.decide_pre_vote(step, ballot);
    }

    fn decide_pre_vote(&mut self, step: &mut Step, ballot: Ballot) {
        match self.election_result(&ballot) {
            VoteResult::Won => self.stand(step, None),
            VoteResult::Lost => self.wait_for_election(step),
            VoteResult::Pending => {}
        }
    }

    /// Becomes a candidate: a new term and the own vote in one write, and behind it the requests.
    pub(super) fn stand(&mut self, step: &mut Step, permit: Option<Permit>) {
        self.restart_election_deadline(step);
        self.write_hard_state(HardState { term: self.hard_state.term.next(), vote: Some(self.me) });
        self.state = State::Candidate { ballot: Ballot::default(), vote_write: self.writes.last(), permit };
        let last = self.log.last();
        for peer in self.others() {
            let request = self.message(peer, self.hard_state.term, Body::Vote { last, permit });
            if self.config.mutated(Mutation::AskBeforeOwnVote) {
                self.send(step, request);
            } else {
                self.writes.hold(request);
            }
        }
    }

    /// A vote is granted once per term, to a candidate whose log is at least as good, and granted again to the same.
    pub(super) fn on_vote(&mut self, step: &mut Step, from: ReplicaId, current: bool, last: LogId) {
        let free = self.hard_state.vote.is_none_or(|vote| vote == from);
        let granted = current
            && self.may_vote()
            && (free || self.config.mutated(Mutation::VoteTwice))
            && (last >= self.log.last() || self.config.mutated(Mutation::VoteForAnyLog));
        if granted && self.config.mutated(Mutation::PromiseBeforeVote) {
            self.promise(step, from, Body::VoteResponse { granted });
            self.flush(step);
            return self.write_hard_state(HardState { vote: Some(from), ..self.hard_state });
        }
        if granted && self.hard_state.vote != Some(from) {
            self.write_hard_state(HardState { vote: Some(from), ..self.hard_state });
            if self.election_deadline.is_some() {
                self.restart_election_deadline(step);
            }
        }
        self.promise(step, from, Body::VoteResponse { granted });
    }

    pub(super) fn on_vote_response(&mut self, step: &mut Step, from: ReplicaId, granted: bool) {
        self.record_vote(step, from, granted);
    }

    /// The write with the own vote may be durable now.
    pub(super) fn count_own_vote(&mut self, step: &mut Step) {
        if let State::Candidate { vote_write, .. } = self.state
            && vote_write <= self.writes.durable()
        {
            self.record_vote(step, self.me, true);
        }
    }

    fn record_vote(&mut self, step: &mut Step, from: ReplicaId, granted: bool) {
        let State::Candidate { mut ballot, vote_write, permit } = self.state else { return };
        self.record(&mut ballot, from, granted);
        self.state = State::Candidate { ballot, vote_write, permit };
        match self.election_result(&ballot) {
            VoteResult::Won => self.lead(step),
            VoteResult::Lost => self.wait_for_election(step),
            VoteResult::Pending => {}
        }
    }

    /// Becomes leader and opens the term with an empty entry: only an entry of its own term tells a leader what is
    /// committed.
    fn lead(&mut self, step: &mut Step) {
        let start = self.log.last().index.next();
        self.state = State::Leader(Leadership {
            start,
            uncommitted_bytes: 0,
            peers: Vec::new(),
            transfer: None,
            leave_by: None,
            has_given_permit: false,
        });
        self.election_deadline = None;
        self.append_own(vec![Entry::command(LogId::new(start, self.hard_state.term), Bytes::new())]);
        self.flush(step);
        self.renew_peers(step);
    }

    /// Takes over a higher term. Who leads it is not known yet.
    pub(super) fn adopt(&mut self, step: &mut Step, term: Term) {
        assert!(term > self.hard_state.term, "a term only grows");
        self.write_hard_state(HardState { term, vote: None });
        self.wait_for_election(step);
    }

    /// A follower without a leader. A deadline that already runs is kept, so that higher terms of replicas that
    /// cannot win do not put off the campaign of one that can.
    pub(super) fn wait_for_election(&mut self, step: &mut Step) {
        self.state = State::Follower { leader: None, supported: false };
        self.forget_vote_if_mutated();
        if self.election_deadline.is_none() {
            self.restart_election_deadline(step);
        }
    }

    fn forget_vote_if_mutated(&mut self) {
        if self.config.mutated(Mutation::EraseVoteOnStepDown) {
            self.hard_state.vote = None;
        }
    }

    /// Follows the leader of the current term, which has just been heard of.
    pub(super) fn follow(&mut self, from: ReplicaId) {
        let term = self.hard_state.term;
        assert!(self.may_lead(from, term), "election safety: {from} is followed in term {term}, which another leads");
        self.state = State::Follower { leader: Some(from), supported: true };
        self.forget_vote_if_mutated();
        self.election_deadline = None;
    }

    /// A beacon speaks for a leader. A stale one is told the newer term, so that it steps down. One that its own log says was
    /// removed does not sleep because of it: it has to ask whether that is so, as nobody sends it anything.
    pub(super) fn on_claimed(&mut self, step: &mut Step, leader: ReplicaId, term: Term) {
        if leader == self.me || !self.members.names(leader) || self.members.current().has_removed(self.me) {
            return;
        }
        if let Some(law) = self.law_broken_by_claim(leader, term) {
            return self.refuse(step, leader, law);
        }
        if term < self.hard_state.term {
            let last = self.log.last();
            return self.promise(step, leader, Body::AppendRefused { refused: last.index, hint: last });
        }
        if term > self.hard_state.term {
            self.adopt(step, term);
        }
        self.follow(leader);
    }

    /// A list speaks for a leader, and says how far its log reaches. What an Append does, without an answer if the logs
    /// agree.
    pub(super) fn on_listed(&mut self, step: &mut Step, leader: ReplicaId, term: Term, last: LogId, commit: Index) {
        if leader == self.me || !self.members.names(leader) {
            return;
        }
        if term >= self.hard_state.term
            && let Some(law) = self.law_broken_by_append(leader, term, last, &[])
        {
            return self.refuse(step, leader, law);
        }
        self.on_claimed(step, leader, term);
        if term != self.hard_state.term || self.leader() != Some(leader) {
            return;
        }
        if !self.can_take_entries(step) {
            return;
        }
        let usable = self.below_missing(last.index);
        if !self.log.holds(last) || usable < last.index {
            let hint = self.log.last_not_above(usable, last.term).unwrap_or(self.log.compacted());
            return self.promise(step, leader, Body::AppendRefused { refused: last.index, hint });
        }
        let commit = commit.min(last.index);
        if commit > self.log.committed() {
            self.commit(commit);
        }
        if !self.knows_its_term() {
            self.ask_terms(step);
        }
    }

    /// Support ended. Spurious calls must not push the deadline away, so only a supported follower listens, and a leader,
    /// who makes way: one that is deaf could otherwise keep its followers asleep for ever.
    pub(super) fn on_lapsed(&mut self, step: &mut Step) {
        if matches!(self.state, State::Leader(_)) {
            return self.wait_for_election(step);
        }
        if let State::Follower { supported: supported @ true, .. } = &mut self.state {
            *supported = false;
            self.restart_election_deadline(step);
        }
    }

    fn restart_election_deadline(&mut self, step: &Step) {
        let wait = self.random.span(self.config.election_timeout_min, self.config.election_timeout_max);
        // An eager replica goes first. The others follow soon enough if it cannot.
        self.election_deadline = Some(step.now + wait + self.patience());
    }

    fn write_hard_state(&mut self, hard_state: HardState) {
        if hard_state.term > self.hard_state.term && !self.config.mutated(Mutation::KeepOldPromises) {
            self.writes.withdraw();
        }
        self.hard_state = hard_state;
        if hard_state.vote.is_some() || !self.config.mutated(Mutation::TermNotWritten) {
            self.writes.hard_state(hard_state);
        }
    }
}
