//! What leaves: at once, or when the disk has caught up (law 13).
//!
//! An answer that promises something (an acknowledgement, a vote, and a refusal too, because it shows a term) is held
//! until the last write at the time of the answer is durable. Meanwhile the world may change. What was promised in an
//! older term is dropped when the term grows, and a request for votes by a replica that is no candidate any more is
//! dropped at its release. While a disk hangs the same questions come again and again, so what waits already is not held
//! twice.

use pontoon_types::{Body, Index, Message, ReplicaId, WriteNumber};

use super::{Raft, State, Step};
use crate::Effect;
use crate::mutation::Mutation;

impl Raft {
    /// Hands out the write of this step, if there is one.
    pub(super) fn flush(&mut self, step: &mut Step) {
        if let Some(mut write) = self.writes.take() {
            let overstates = self.config.mutated(Mutation::NoteUncommitted);
            let committed = if overstates { self.log.last().index } else { self.log.committed() };
            let is_news = !write.entries.is_empty() && committed > self.log.compacted().index;
            write.committed = is_news.then_some(committed);
            step.effects.push(Effect::Append(write));
        }
    }

    /// Sends what promises nothing.
    pub(super) fn send(&mut self, step: &mut Step, message: Message) {
        self.flush(step);
        step.effects.push(Effect::Send(message));
    }

    /// Sends an answer in the current term once everything written so far is durable.
    pub(super) fn promise(&mut self, step: &mut Step, to: ReplicaId, body: Body) {
        let message = self.message(to, self.hard_state.term, body);
        if self.writes.is_settled() {
            self.send_promise(step, message);
        } else {
            self.writes.hold(message);
        }
    }

    /// Acknowledges the log up to `matched` once everything written so far is durable. `news` says that the answered
    /// message told a later commit index: the leader waits for an answer to it even if one for the same index is due.
    pub(super) fn acknowledge(&mut self, step: &mut Step, to: ReplicaId, matched: Index, news: bool) {
        if self.config.mutated(Mutation::DurableByIndex) && self.writes.was_durable(matched) {
            let message = self.message(to, self.hard_state.term, Body::AppendResponse { matched });
            return self.send_promise(step, message);
        }
        if self.writes.is_settled() || !self.writes.raise_held(to, matched, news) {
            self.promise(step, to, Body::AppendResponse { matched });
        }
    }

    pub(super) fn on_durable(&mut self, step: &mut Step, number: WriteNumber) {
        let number = if self.config.mutated(Mutation::DurableEarly) { self.writes.last() } else { number };
        if !self.writes.complete(number) {
            return;
        }
        let restored = self.lost.complete(number);
        self.release(step);
        self.count_own_vote(step);
        self.advance_commit(step);
        if restored {
            // Peers may have waited for what can be read only now.
            self.replicate_all(step);
        }
    }

    /// Sends the held messages whose writes are durable. Of a run of acknowledgements only the highest leaves.
    fn release(&mut self, step: &mut Step) {
        let mut waiting: Option<Message> = None;
        while let Some(message) = self.writes.release() {
            if !self.still_holds(&message) {
                continue;
            }
            if let Some(earlier) = waiting.replace(message)
                && !waiting.as_ref().is_some_and(|later| covers(later, &earlier))
            {
                self.send_promise(step, earlier);
            }
        }
        if let Some(message) = waiting {
            self.send_promise(step, message);
        }
    }

    /// Whether a held message may still be said. All of them are of the current term. Within it a vote stays given and
    /// a follower's log stays equal to its leader's.
    fn still_holds(&self, message: &Message) -> bool {
        let candidate = matches!(self.state, State::Candidate { .. });
        candidate || !matches!(message.body, Body::Vote { .. })
    }

    fn send_promise(&mut self, step: &mut Step, message: Message) {
        if let Body::AppendResponse { matched } = message.body {
            assert!(matched <= self.durable(), "law 13: {matched} is acknowledged but not durable");
        }
        self.send(step, message);
    }
}

/// Whether the later acknowledgement says all that the earlier one says. Two for the same index answer two messages,
/// and the leader waits for both.
fn covers(later: &Message, earlier: &Message) -> bool {
    match (&later.body, &earlier.body) {
        (Body::AppendResponse { matched: high }, Body::AppendResponse { matched: low }) => {
            later.to == earlier.to && later.term == earlier.term && high > low
        }
        _ => false,
    }
}
