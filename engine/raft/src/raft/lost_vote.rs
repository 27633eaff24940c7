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
//! Nobody says his term to a follower unasked, so an Append that cannot be acknowledged makes it ask all voters not
//! heard from. The question is a pre-vote for an empty log, which nobody grants who has a log and which changes nothing
//! anywhere; its answer carries a term. A leader repeats an Append without an answer, and the question goes along. With a
//! voter that is down for good such a replica never acknowledges: it then has to be replaced.
//!
//! The answers must have been sent to this incarnation. A connection dies with the process at its end, so what
//! arrives was.

use pontoon_types::{Body, LogId, ReplicaId, Term};

use super::{Raft, Step};
use crate::mutation::Mutation;
use crate::quorum::Ballot;

impl Raft {
    /// Whether no term in which this replica may have voted is above its own.
    pub(super) fn knows_its_term(&self) -> bool {
        let heard = |ballot: &Ballot| self.others().all(|voter| ballot.granted_by(self.position(voter)));
        self.lost_vote.as_ref().is_none_or(heard) || self.config.mutated(Mutation::TrustLostTerm)
    }

    /// Whether a vote may be given: it is known that none was given in this term.
    pub(super) fn may_vote(&self) -> bool {
        self.lost_vote.is_none() || self.config.mutated(Mutation::VoteAfterLostVote)
    }

    /// The term of `from` is not above the own one. Heard from it in this incarnation.
    pub(super) fn heard_term_of(&mut self, from: ReplicaId) {
        if let Some(mut heard) = self.lost_vote {
            heard.record(self.position(from), true);
            self.lost_vote = Some(heard);
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
        let Some(heard) = self.lost_vote else { return };
        let unheard = self.others().filter(|voter| !heard.granted_by(self.position(*voter)));
        for voter in unheard.collect::<Vec<_>>() {
            let question = Body::PreVote { last: LogId::default() };
            self.send(step, self.message(voter, self.hard_state.term.next(), question));
        }
    }
}
