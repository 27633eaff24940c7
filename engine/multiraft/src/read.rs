//! Linearizable reads by ReadIndex (thesis, section 6.4), one round for each peer and turn, shared by all reads of
//! all groups (law 6).
//!
//! A round starts after its reads arrived and has a number that this incarnation never uses again. It asks each peer,
//! for all its groups at once, whether the leader's term is still the newest the peer knows; an answer counts only
//! for the group and term it names, and comes from the core that owns the replica. With a quorum the reads of the
//! group may be served as soon as the commit index of the round's start is applied.
//!
//! What one turn serves is bounded in bytes: a round of many large scans is answered over several turns, so that a core
//! neither builds gigabytes of replies nor stops hearing its peers.
//!
//! A leader that has not committed in its own term does not know the newest commit index; its reads wait in the queue
//! until it has. A round without a quorum is asked again with each beacon and given up after the request timeout:
//! its reads are sent elsewhere, since a read changes nothing.

use std::collections::{BTreeMap, VecDeque};

use pontoon_types::limits::{READ_BYTES_PER_TURN, READ_ROUNDS_MAX};
use pontoon_types::{GroupId, Incarnation, Index, NodeId, Term, Time};
use pontoon_wire::client::{Outcome, Refusal};
use pontoon_wire::peer::{ReadConfirmation, ReadRound};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::replica::{Query, Read, Replica, Slot};

/// Reads on their way.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Reads that wait for the next round.
    gathered: Vec<(Slot, Read)>,
    /// Rounds without a quorum for every group, by number.
    rounds: BTreeMap<u64, Vec<Question>>,
    last_round: u64,
    /// Reads that may be served.
    servable: VecDeque<(Slot, Read)>,
}

impl Reads {
    /// Whether the next turn has reads to serve without any event.
    pub(crate) fn is_servable(&self) -> bool {
        !self.servable.is_empty()
    }
}

/// One group in one round.
#[derive(Debug)]
struct Question {
    slot: Slot,
    group: GroupId,
    term: Term,
    /// What must be applied before the reads are served.
    read_index: Index,
    /// The nodes that confirmed, this one not counted.
    confirmed_by: Vec<NodeId>,
    reads: Vec<Read>,
}

impl Core {
    /// Keeps an accepted read until the end of the turn.
    pub(crate) fn gather_read(&mut self, slot: Slot, read: Read) {
        self.waiting += 1;
        self.reads.gathered.push((slot, read));
    }

    /// Starts one round for the reads gathered. While too many rounds are open they wait, but not beyond their time
    /// and not for a group that is no longer led here.
    pub(crate) fn start_read_round(&mut self, now: Time) {
        if self.reads.gathered.is_empty() {
            return;
        }
        let may_open = self.reads.rounds.len() < READ_ROUNDS_MAX;
        let mut gathered = std::mem::take(&mut self.reads.gathered);
        if self.config.mutated(CoreMutation::JoinOpenRound) {
            self.join_open_rounds(&mut gathered);
        }
        gathered.sort_by_key(|(slot, _)| *slot);
        let mut questions: Vec<Question> = Vec::new();
        for (slot, read) in gathered {
            match questions.last_mut() {
                Some(question) if question.slot == slot => question.reads.push(read),
                _ => match self.question(slot) {
                    Ok(mut question) if may_open => {
                        question.reads.push(read);
                        questions.push(question);
                    }
                    Ok(_) | Err(NoQuestion::NothingCommitted) if read.deadline > now => {
                        self.reads.gathered.push((slot, read));
                    }
                    _ => {
                        let leader = self.replicas[slot].leader_node();
                        self.answer(read.asker, Err(Refusal::NotLeader { leader }));
                    }
                },
            }
        }
        self.open_round(questions);
    }

    /// The bug that law 6 forbids: a round that started before a read arrived confirms it.
    fn join_open_rounds(&mut self, gathered: &mut Vec<(Slot, Read)>) {
        for question in self.reads.rounds.values_mut().flatten() {
            let joining = gathered.extract_if(.., |(slot, _)| *slot == question.slot);
            question.reads.extend(joining.map(|(_, read)| read));
        }
    }

    /// The question for one group, or why there is none.
    fn question(&self, slot: Slot) -> Result<Question, NoQuestion> {
        let Replica { raft, descriptor, leads, .. } = &self.replicas[slot];
        let term = leads.ok_or(NoQuestion::NotLeading)?;
        let read_index = raft.read_index().ok_or(NoQuestion::NothingCommitted)?;
        Ok(Question { slot, group: descriptor.group, term, read_index, confirmed_by: Vec::new(), reads: Vec::new() })
    }

    fn open_round(&mut self, questions: Vec<Question>) {
        let unasked = self.config.mutated(CoreMutation::ReadWithoutRound);
        let (alone, asked): (Vec<Question>, Vec<Question>) =
            questions.into_iter().partition(|question| self.is_confirmed(question) || unasked);
        for question in alone {
            self.serve(question);
        }
        if asked.is_empty() {
            return;
        }
        self.reads.last_round += 1;
        if self.config.mutated(CoreMutation::ReuseRoundId) {
            let lowest = (1..).find(|id| !self.reads.rounds.contains_key(id));
            self.reads.last_round = lowest.expect("law: the open rounds are bounded");
        }
        self.counters.read_rounds += 1;
        let id = self.reads.last_round;
        self.ask(id, &asked);
        self.reads.rounds.insert(id, asked);
    }

    /// Whether a quorum, of both halves while the group is joint, knows no newer term.
    fn is_confirmed(&self, question: &Question) -> bool {
        let me = self.config.node;
        self.replicas[question.slot].is_quorum(|node| node == me || question.confirmed_by.contains(&node))
    }

    /// Puts the round into the outbox of each peer, with the groups of which the peer has a replica.
    fn ask(&mut self, id: u64, questions: &[Question]) {
        for peer in &mut self.peers {
            if !peer.up {
                continue;
            }
            let groups: Vec<(GroupId, Term)> = questions
                .iter()
                .filter(|question| self.replicas[question.slot].replica_on(peer.node).is_some())
                .map(|question| (question.group, question.term))
                .collect();
            if !groups.is_empty() {
                peer.outbox.reads.push(ReadRound { id, groups });
            }
        }
    }

    /// A peer asks: name the groups whose asked term is still the newest known here.
    pub(crate) fn confirm_reads(&mut self, peer: usize, incarnation: Incarnation, round: ReadRound) {
        let mut groups = round.groups;
        let any_term = self.config.mutated(CoreMutation::ConfirmAnyTerm);
        groups.retain(|(group, term)| {
            self.slot_of(*group).is_some_and(|slot| self.replicas[slot].raft.confirms(*term) || any_term)
        });
        if self.peers[peer].up && !groups.is_empty() {
            let confirmation = ReadConfirmation { incarnation, id: round.id, groups };
            self.peers[peer].outbox.confirmations.push(confirmation);
        }
    }

    /// A peer confirms. An answer to another incarnation, or to a round that is over, says nothing.
    pub(crate) fn reads_confirmed(&mut self, from: NodeId, confirmation: ReadConfirmation) {
        let any_incarnation = self.config.mutated(CoreMutation::ConfirmAnyIncarnation);
        if confirmation.incarnation != self.config.incarnation && !any_incarnation {
            return;
        }
        let Some(mut questions) = self.reads.rounds.remove(&confirmation.id) else { return };
        let mut served = Vec::new();
        for (group, term) in confirmation.groups {
            let Ok(place) = questions.binary_search_by_key(&group, |question| question.group) else { continue };
            let question = &mut questions[place];
            if question.term != term || question.confirmed_by.contains(&from) {
                continue;
            }
            if self.replicas[question.slot].replica_on(from).is_none() {
                continue;
            }
            question.confirmed_by.push(from);
            if self.is_confirmed(&questions[place]) {
                served.push(questions.remove(place));
            }
        }
        if !questions.is_empty() {
            self.reads.rounds.insert(confirmation.id, questions);
        }
        for question in served {
            self.serve(question);
        }
    }

    /// Serves the reads of a confirmed question, now or when their index is applied.
    fn serve(&mut self, question: Question) {
        let Question { slot, read_index, reads, .. } = question;
        for read in reads {
            if self.replicas[slot].applied >= read_index {
                self.reads.servable.push_back((slot, read));
            } else {
                let deadline = read.deadline;
                self.replicas[slot].unapplied_reads.push((read_index, read));
                self.timers.arm(slot, Some(deadline));
            }
        }
    }

    /// Serves the reads that waited for the machine.
    pub(crate) fn serve_applied_reads(&mut self, slot: Slot) {
        if self.replicas[slot].unapplied_reads.is_empty() {
            return;
        }
        let applied = self.replicas[slot].applied;
        let waiting = std::mem::take(&mut self.replicas[slot].unapplied_reads);
        for (read_index, read) in waiting {
            if read_index <= applied {
                self.reads.servable.push_back((slot, read));
            } else {
                self.replicas[slot].unapplied_reads.push((read_index, read));
            }
        }
    }

    /// Answers reads that may be served, within the bytes of one turn. Whatever the state holds by now is at least as
    /// new as the read index.
    pub(crate) fn answer_servable_reads(&mut self) {
        let mut bytes = 0;
        while bytes < READ_BYTES_PER_TURN
            && let Some((slot, read)) = self.reads.servable.pop_front()
        {
            let machine = &self.replicas[slot].machine;
            let outcome = match &read.query {
                Query::Get { key } => Outcome::Value(machine.get(key)),
                Query::Scan { start, end, limit } => {
                    let (pairs, next) = machine.scan(start, end.as_deref(), *limit);
                    Outcome::Pairs { pairs, next }
                }
            };
            bytes += self.answer(read.asker, Ok(outcome));
        }
    }

    /// A group stopped leading: its reads in open rounds go elsewhere.
    pub(crate) fn refuse_reads(&mut self, slot: Slot) {
        let leader = self.replicas[slot].leader_node();
        let mut refused = Vec::new();
        self.reads.rounds.retain(|_, questions| {
            if let Some(place) = questions.iter().position(|question| question.slot == slot) {
                refused.extend(questions.remove(place).reads);
            }
            !questions.is_empty()
        });
        for read in refused {
            self.answer(read.asker, Err(Refusal::NotLeader { leader }));
        }
    }

    /// Asks open rounds again and gives up those whose reads are too old. Called with each beacon.
    pub(crate) fn review_read_rounds(&mut self, now: Time) {
        let mut rounds = std::mem::take(&mut self.reads.rounds);
        let mut late = Vec::new();
        for questions in rounds.values_mut() {
            for question in questions.iter_mut() {
                late.extend(question.reads.extract_if(.., |read| read.deadline <= now));
            }
            questions.retain(|question| !question.reads.is_empty());
        }
        rounds.retain(|_, questions| !questions.is_empty());
        for (id, questions) in &rounds {
            self.ask(*id, questions);
        }
        self.reads.rounds = rounds;
        for read in late {
            self.answer(read.asker, Err(Refusal::NotLeader { leader: None }));
        }
    }
}

/// Why a group has no ReadIndex to ask for.
enum NoQuestion {
    /// The replica does not lead.
    NotLeading,
    /// The leader's term has no committed entry yet.
    NothingCommitted,
}
