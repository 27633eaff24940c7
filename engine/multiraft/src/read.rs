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
use pontoon_wire::client::Outcome;
use pontoon_wire::peer::{ReadConfirmation, ReadRound};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::replica::{Confirmed, Query, Read, Replica, Slot};

/// A question of a follower's core, and which of its questions it is (law 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) id: u64,
}

/// Who waits for a read index.
#[derive(Debug)]
pub(crate) enum Want {
    /// A read of a client here.
    Read(Read),
    /// A follower's core, for reads of its own.
    Remote { remote: Remote, deadline: Time },
}

impl Want {
    fn deadline(&self) -> Time {
        match self {
            Want::Read(read) => read.deadline,
            Want::Remote { deadline, .. } => *deadline,
        }
    }
}

/// Reads on their way.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// What waits for the next round.
    gathered: Vec<(Slot, Want)>,
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
    /// When the round began.
    at: Time,
    /// The nodes that confirmed, this one first.
    confirmed_by: Vec<NodeId>,
    wants: Vec<Want>,
}

impl Core {
    /// Keeps what wants a read index until the end of the turn.
    pub(crate) fn gather_want(&mut self, slot: Slot, want: Want) {
        self.reads.gathered.push((slot, want));
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
        gathered.sort_by_key(|(slot, _)| self.replicas[*slot].descriptor.group);
        let mut questions: Vec<Question> = Vec::new();
        for (slot, want) in gathered {
            match questions.last_mut() {
                Some(question) if question.slot == slot => question.wants.push(want),
                _ => match self.question(now, slot) {
                    Ok(mut question) if may_open => {
                        question.wants.push(want);
                        questions.push(question);
                    }
                    Ok(_) | Err(NoQuestion::NothingCommitted) if want.deadline() > now => {
                        self.reads.gathered.push((slot, want));
                    }
                    _ => self.refuse_want(slot, want),
                },
            }
        }
        self.open_round(questions);
    }

    /// The bug that law 6 forbids: a round that started before a read arrived confirms it.
    fn join_open_rounds(&mut self, gathered: &mut Vec<(Slot, Want)>) {
        for question in self.reads.rounds.values_mut().flatten() {
            let joining = gathered.extract_if(.., |(slot, _)| *slot == question.slot);
            question.wants.extend(joining.map(|(_, want)| want));
        }
    }

    /// This core cannot give a read index.
    fn refuse_want(&mut self, slot: Slot, want: Want) {
        let Replica { descriptor, .. } = &self.replicas[slot];
        match want {
            Want::Read(read) => {
                let leader = self.replicas[slot].leader_node().filter(|leader| *leader != self.config.node);
                self.answer(read.asker, Err(read.refusal(leader)));
            }
            Want::Remote { remote, .. } => self.answer_index(remote, descriptor.group, None),
        }
    }

    /// The question for one group, or why there is none.
    fn question(&self, now: Time, slot: Slot) -> Result<Question, NoQuestion> {
        let Replica { raft, descriptor, leads, .. } = &self.replicas[slot];
        let term = leads.ok_or(NoQuestion::NotLeading)?;
        let read_index = raft.read_index().ok_or(NoQuestion::NothingCommitted)?;
        let confirmed_by = vec![self.config.node];
        Ok(Question { slot, group: descriptor.group, term, read_index, at: now, confirmed_by, wants: Vec::new() })
    }

    fn open_round(&mut self, questions: Vec<Question>) {
        let unasked = self.config.mutated(CoreMutation::ReadWithoutRound);
        let (alone, asked): (Vec<Question>, Vec<Question>) = questions
            .into_iter()
            .partition(|question| self.is_confirmed(question) || self.is_leased(question) || unasked);
        for question in alone {
            if !self.is_confirmed(&question) {
                self.counters.leased_reads += question.wants.len() as u64;
            }
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

    /// Whether nobody else can have been elected at the moment of the question (`lease`).
    fn is_leased(&self, question: &Question) -> bool {
        self.has_lease(question.at, question.slot)
    }

    /// Whether a quorum, of both halves while the group is joint, knows no newer term.
    fn is_confirmed(&self, question: &Question) -> bool {
        self.replicas[question.slot].is_quorum(|node| question.confirmed_by.contains(&node))
    }

    /// Puts the round into the outbox of each peer, with the groups of which the peer has a replica.
    fn ask(&mut self, id: u64, questions: &[Question]) {
        for peer in &mut self.peers {
            if !peer.takes_messages() {
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
        if self.peers[peer].takes_messages() && !groups.is_empty() {
            let confirmation = ReadConfirmation { incarnation, id: round.id, groups };
            self.peers[peer].outbox.confirmations.push(confirmation);
        }
    }

    /// A peer confirms. An answer to another incarnation, or to a round that is over, says nothing.
    pub(crate) fn reads_confirmed(&mut self, from: NodeId, confirmation: ReadConfirmation) {
        if confirmation.incarnation != self.config.incarnation {
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

    /// Serves the reads of a confirmed question, now or when their index is applied, and tells followers the index.
    fn serve(&mut self, question: Question) {
        let Question { slot, group, read_index, at, wants, .. } = question;
        self.replicas[slot].confirm(Confirmed { at, index: read_index });
        let mut reads = Vec::new();
        for want in wants {
            match want {
                Want::Read(read) => reads.push(read),
                Want::Remote { remote, .. } => self.answer_index(remote, group, Some(read_index)),
            }
        }
        self.serve_at(slot, read_index, reads);
    }

    /// Serves reads as soon as `read_index` is applied.
    pub(crate) fn serve_at(&mut self, slot: Slot, read_index: Index, reads: Vec<Read>) {
        for read in reads {
            if self.replicas[slot].holds_state() && self.replicas[slot].applied >= read_index {
                self.serve_read(slot, read);
            } else {
                let deadline = read.deadline;
                self.replicas[slot].unapplied_reads.push((read_index, read));
                self.timers.arm(slot, Some(deadline));
            }
        }
    }

    /// Serves a read from the state as it is.
    pub(crate) fn serve_read(&mut self, slot: Slot, read: Read) {
        self.reads.servable.push_back((slot, read));
    }

    /// Serves the reads that waited for the machine.
    pub(crate) fn serve_applied_reads(&mut self, slot: Slot) {
        if self.replicas[slot].unapplied_reads.is_empty() || !self.replicas[slot].holds_state() {
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
            let replica = &mut self.replicas[slot];
            if !replica.holds_state() {
                // Its state has just been replaced, and is being read back.
                let (applied, deadline) = (replica.applied, read.deadline);
                replica.unapplied_reads.push((applied, read));
                self.timers.arm(slot, Some(deadline));
                continue;
            }
            let machine = &replica.machine;
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
        let mut refused = Vec::new();
        self.reads.rounds.retain(|_, questions| {
            if let Some(place) = questions.iter().position(|question| question.slot == slot) {
                refused.extend(questions.remove(place).wants);
            }
            !questions.is_empty()
        });
        for want in refused {
            self.refuse_want(slot, want);
        }
    }

    /// The replica is gone: none of its reads is served here.
    pub(crate) fn drop_reads(&mut self, slot: Slot, leader: Option<NodeId>) {
        self.refuse_reads(slot);
        let gathered = self.reads.gathered.extract_if(.., |(other, _)| *other == slot).collect::<Vec<_>>();
        for (_, want) in gathered {
            self.refuse_want(slot, want);
        }
        let (dropped, kept) =
            std::mem::take(&mut self.reads.servable).into_iter().partition(|(other, _)| *other == slot);
        let dropped: VecDeque<(Slot, Read)> = dropped;
        self.reads.servable = kept;
        let asked = self.follower_reads.take_of(slot);
        for read in dropped.into_iter().map(|(_, read)| read).chain(asked) {
            self.answer(read.asker, Err(read.refusal(leader)));
        }
    }

    /// Asks open rounds again and gives up those whose reads are too old. Called with each beacon.
    pub(crate) fn review_read_rounds(&mut self, now: Time) {
        let mut rounds = std::mem::take(&mut self.reads.rounds);
        let mut late = Vec::new();
        for questions in rounds.values_mut() {
            for question in questions.iter_mut() {
                let over = question.wants.extract_if(.., |want| want.deadline() <= now);
                late.extend(over.map(|want| (question.slot, want)));
            }
            questions.retain(|question| !question.wants.is_empty());
        }
        rounds.retain(|_, questions| !questions.is_empty());
        for (id, questions) in &rounds {
            self.ask(*id, questions);
        }
        self.reads.rounds = rounds;
        for (slot, want) in late {
            self.refuse_want(slot, want);
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
