//! What is refused because it contradicts a law.
//!
//! A peer may be wrong: its data directory was restored from a backup, or its disk lied. What it says then can
//! contradict what this replica knows, and a replica that stopped on it would let one wrong peer stop all healthy ones.
//! So a message or a claim is compared with the laws before anything changes. If one is contradicted, the message is
//! dropped, nothing changes, and [`Effect::Refused`] names the sender and the law.
//!
//! Behind this gate the assertions that guard a replica's own state stay as they are: no message reaches them, so
//! one that fails is a bug here, and the replica must stop.
//!
//! What is left out: a wrong peer that contradicts nothing known here. That is what law 12 is for.

use pontoon_types::{Body, Entry, EntryKind, Index, LogId, Message, ReplicaId, Term};

use super::{Raft, State, Step};
use crate::log::follows;
use crate::membership::Configuration;
use crate::mutation::Mutation;
use crate::{Effect, Law};

/// The highest term that is believed. Elections cannot get near it: one each nanosecond would take 292 years. Half of
/// the numbers stay free, so that the arithmetic with terms cannot overflow.
pub const TERM_MAX: Term = Term(u64::MAX / 2);

/// The highest index that is believed, for the same reason.
const INDEX_MAX: Index = Index(u64::MAX / 2);

impl Raft {
    /// Drops what `from` said, and says so.
    pub(super) fn refuse(&self, step: &mut Step, from: ReplicaId, law: Law) {
        step.effects.push(Effect::Refused { from, law });
    }

    /// The law that this message of another replica contradicts.
    pub(super) fn law_broken_by_message(&self, message: &Message) -> Option<Law> {
        let Message { from, term, .. } = *message;
        if term > TERM_MAX {
            return Some(Law::TermLimit);
        }
        let own = self.hard_state.term;
        match &message.body {
            // Entries of a term are made by its leader, so a candidate cannot have one of the term it asks for.
            Body::PreVote { last } => (last.term >= term).then_some(Law::WellFormed),
            Body::Vote { last, permit } => {
                let is_of_next_term = permit.is_none_or(|permit| permit.term < term && permit.term.next() == term)
                    || self.config.mutated(Mutation::PermitReused);
                (last.term >= term || !is_of_next_term).then_some(Law::WellFormed)
            }
            Body::Append { previous, entries, .. } if term >= own => {
                self.law_broken_by_append(from, term, *previous, entries)
            }
            Body::AppendResponse { matched } if term == own && matches!(self.state, State::Leader(_)) => {
                (*matched > self.log.last().index).then_some(Law::LogMatching)
            }
            _ => None,
        }
    }

    /// The law that a claim of `leader` to lead `term` contradicts.
    pub(super) fn law_broken_by_claim(&self, leader: ReplicaId, term: Term) -> Option<Law> {
        if term > TERM_MAX {
            Some(Law::TermLimit)
        } else if term == Term(0) {
            Some(Law::WellFormed)
        } else {
            (!self.may_lead(leader, term)).then_some(Law::ElectionSafety)
        }
    }

    /// Whether no other leader of this term is known.
    pub(super) fn may_lead(&self, from: ReplicaId, term: Term) -> bool {
        term != self.hard_state.term || self.leader().is_none_or(|leader| leader == from)
    }

    pub(super) fn law_broken_by_append(
        &self,
        from: ReplicaId,
        term: Term,
        previous: LogId,
        entries: &[Entry],
    ) -> Option<Law> {
        if !is_well_formed(term, previous, entries) {
            return Some(Law::WellFormed);
        }
        if !self.may_lead(from, term) {
            return Some(Law::ElectionSafety);
        }
        let difference = self.first_difference(previous, entries)?;
        if difference <= self.log.committed() {
            return Some(Law::LeaderCompleteness);
        }
        // An entry of the leader's own term came from it, with all that stands before. A leader never cuts its log.
        (self.log.last().term == term).then_some(Law::LogMatching)
    }

    /// The first index at which the message and the log both have an entry, and not the same one. Most messages begin
    /// where the log ends, so one look is enough.
    fn first_difference(&self, previous: LogId, entries: &[Entry]) -> Option<Index> {
        let last = self.log.last().index;
        let unchecked = usize::from(self.config.mutated(Mutation::SkipPreviousCheck));
        let ids = std::iter::once(previous).chain(entries.iter().map(|entry| entry.id)).skip(unchecked);
        let differs = |id: &LogId| !self.log.holds(*id);
        ids.take_while(|id| id.index <= last).find(differs).map(|id| id.index)
    }
}

/// Whether the entries are consecutive and of terms that a leader of this term can have.
fn is_well_formed(term: Term, previous: LogId, entries: &[Entry]) -> bool {
    if term == Term(0) || previous.index > INDEX_MAX {
        return false;
    }
    let mut last = previous;
    for entry in entries {
        if !follows(last, entry.id) {
            return false;
        }
        let is_command = entry.kind == EntryKind::Command;
        if !is_command && Configuration::decode(&entry.payload).is_err() {
            return false;
        }
        last = entry.id;
    }
    last.term <= term && (previous.index == Index(0)) == (previous.term == Term(0))
}
