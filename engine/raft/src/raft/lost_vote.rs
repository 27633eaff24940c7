//! A lost vote: what a replica may still do when its disk has lost its term and vote.
//!
//! It may have voted in any term up to one that it does not know. So it never votes, grants no pre-vote and never
//! campaigns, as long as it lives; the log says so again at the next start. It follows a leader and takes what that
//! leader sends, because entries and the terms in them are intact.
//!
//! An acknowledgement is as dangerous as a vote. The leader of an old term, cut off from the others, would count it and
//! commit an entry that the leader of a newer term, elected with the vote that was forgotten here, does not have. The
//! same holds for the confirmation of a read. Therefore neither is given before the own term is known to be no older than
//! any in which this replica voted, and this is how it comes to be known: whoever got the vote had its own term on its
//! disk before it asked for it, and its term never falls. Once *every* other voter has said its term to this incarnation,
//! the highest of them, which is adopted like every higher term, is high enough.
//!
//! Every other voter is every voter of the configuration in force and of those that a cut of the log could bring back. The
//! vote may also have gone to a candidate that none of them names. It was elected by a configuration that is at most
//! one change away, so with three voters or more a quorum of it contains somebody, other than itself and this replica,
//! who is asked and has adopted its term. With two voters there would be nobody; that is why two become three only through a
//! joint configuration (`raft/members.rs`), in which both must agree. A replica that does not know one of its configurations, because its
//! payload is lost, promises nothing either.
//!
//! Nobody says his term to a follower unasked, so an Append that cannot be acknowledged makes it ask all voters not
//! heard from. The question is a pre-vote for an empty log, which nobody grants who has a log and which changes nothing
//! anywhere; its answer carries a term. A leader repeats an Append without an answer, and the question goes along. With a
//! voter that is down for good such a replica never acknowledges: it then has to be replaced.
//!
//! A log that was put back to an earlier state, from a backup say (law 12), has lost entries besides. Nothing changes: a
//! quorum that committed with the help of this replica shares a voter with every quorum that elects without it.
//!
//! The answers must have been sent to this incarnation. A connection dies with the process at its end, so what
//! arrives was.

use pontoon_types::{Body, LogId, ReplicaId, Term};

use super::{Raft, State, Step};
use crate::mutation::Mutation;

impl Raft {
    /// The log was put back to an earlier state: votes, and acknowledgements too, may be forgotten. The rules above are
    /// enough for both: whatever it had promised was in a term that another voter reached.
    pub(super) fn on_forgot(&mut self, step: &mut Step) {
        self.writes.withdraw();
        if !matches!(self.state, State::Follower { .. }) {
            self.wait_for_election(step);
        }
        self.hard_state.vote = None;
        self.lost_vote.get_or_insert_default();
    }

    /// Whether no term in which this replica may have voted is above its own.
    pub(super) fn knows_its_term(&self) -> bool {
        self.lost_vote.is_none() || self.has_heard_all() || self.config.mutated(Mutation::TrustLostTerm)
    }

    fn has_heard_all(&self) -> bool {
        self.unheard().is_empty() && self.members.is_complete()
    }

    /// The voters that have not told their terms since these were lost.
    fn unheard(&self) -> Vec<ReplicaId> {
        let Some(heard) = &self.lost_vote else { return Vec::new() };
        let mut unheard: Vec<ReplicaId> = self.members.voters().collect();
        unheard.retain(|voter| *voter != self.me && !heard.contains(voter));
        unheard.sort_unstable();
        unheard.dedup();
        unheard
    }

    /// Whether a vote may be given: it is known that none was given in this term.
    pub(super) fn may_vote(&self) -> bool {
        self.lost_vote.is_none() || self.config.mutated(Mutation::VoteAfterLostVote)
    }

    /// The term of `from` is not above the own one. Heard from it in this incarnation.
    pub(super) fn heard_term_of(&mut self, from: ReplicaId) {
        if let Some(heard) = &mut self.lost_vote
            && self.members.names(from)
        {
            heard.insert(from);
        }
    }

    /// The answer to a question of [`Raft::ask_terms`]. A refusal carries the term of the voter; a grant says that the
    /// voter has not reached the term that was asked for.
    pub(super) fn on_term_answer(&mut self, step: &mut Step, from: ReplicaId, term: Term, granted: bool) {
        if granted && term > self.hard_state.term.next() {
            return;
        }
        if !granted && term > self.hard_state.term {
            self.adopt(step, term);
        }
        self.heard_term_of(from);
    }

    /// Asks the voters not yet heard from for their terms.
    pub(super) fn ask_terms(&mut self, step: &mut Step) {
        for voter in self.unheard() {
            let question = Body::PreVote { last: LogId::default() };
            self.send(step, self.message(voter, self.hard_state.term.next(), question));
        }
    }
}
