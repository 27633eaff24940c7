//! Reads that a follower serves.
//!
//! A follower's core asks the leader's core for read indexes: one question for each leader's core and turn, for all
//! groups and reads together. The leader treats it as a read of its own: the index is confirmed by a quorum in a round
//! that began after the question arrived (law 6, `read`). As soon as the follower has applied that index, its state is at
//! least as new as it was when the read arrived, so the read is linearizable.
//!
//! What a confirmation says stays true: at the moment of the question nothing beyond the index was committed. So a replica
//! remembers the last such moment, and a read that may be stale is served at once, without a message, for as long as the
//! moment lies within the bound. Otherwise it goes the way of a follower's read, and is refused if nobody answers. Moments
//! are taken when the turn ends, after the last event was taken in, so that the age is not counted too short; and a moment
//! before a jump of the clock has no age any more (law 2).
//!
//! Questions are asked again with each beacon and given up after the request timeout.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_types::limits::READ_ROUNDS_MAX;
use pontoon_types::{GroupId, Incarnation, Index, NodeId, Time};
use pontoon_wire::client::ReadLevel;
use pontoon_wire::peer::{IndexAnswer, IndexQuestion};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::read::{Remote, Want};
use crate::replica::{Confirmed, Read, Slot};

/// Reads of followers on their way.
#[derive(Debug, Default)]
pub(crate) struct FollowerReads {
    /// Reads that wait for the next question.
    gathered: Vec<(Slot, Read)>,
    /// Questions without an answer for every group, by number.
    questions: BTreeMap<u64, Asked>,
    last_question: u64,
}

impl FollowerReads {
    /// Takes out all reads of one replica.
    pub(crate) fn take_of(&mut self, slot: Slot) -> Vec<Read> {
        let gathered = self.gathered.extract_if(.., |(other, _)| *other == slot);
        let mut reads: Vec<Read> = gathered.map(|(_, read)| read).collect();
        for asked in self.questions.values_mut() {
            asked.reads.retain(|_, (other, waiting)| {
                if *other == slot {
                    reads.append(waiting);
                }
                *other != slot
            });
        }
        reads
    }
}

/// One question to one leader's core.
#[derive(Debug)]
struct Asked {
    leader: NodeId,
    at: Time,
    reads: BTreeMap<GroupId, (Slot, Vec<Read>)>,
}

impl Core {
    /// Keeps an accepted read until the end of the turn.
    pub(crate) fn gather_read(&mut self, slot: Slot, level: ReadLevel, read: Read) {
        self.waiting += 1;
        match level {
            ReadLevel::Stale { max_age_ms } => {
                let max_age = Some(Duration::from_millis(max_age_ms.into()));
                self.follower_reads.gathered.push((slot, Read { max_age, ..read }));
            }
            ReadLevel::Follower if self.replicas[slot].leads.is_none() => {
                self.follower_reads.gathered.push((slot, read));
            }
            _ => self.gather_want(slot, Want::Read(read)),
        }
    }

    /// Serves the gathered reads for which the state is fresh enough, and hands those of groups that lead here to the
    /// leader's way.
    pub(crate) fn serve_fresh_reads(&mut self, now: Time) {
        for (slot, read) in std::mem::take(&mut self.follower_reads.gathered) {
            let replica = &self.replicas[slot];
            let is_wrong = match read.max_age {
                Some(_) => self.config.mutated(CoreMutation::AnyAge),
                None => self.config.mutated(CoreMutation::FollowerAsksNobody),
            };
            if is_wrong || read.max_age.is_some_and(|max_age| replica.is_fresh(now, max_age, &self.leases)) {
                self.serve_read(slot, read);
            } else if replica.leads.is_some() {
                self.gather_want(slot, Want::Read(read));
            } else {
                self.follower_reads.gathered.push((slot, read));
            }
        }
    }

    /// Asks each leader's core once for all its groups. While too many questions are open the reads wait.
    pub(crate) fn start_index_questions(&mut self, now: Time) {
        if self.follower_reads.gathered.is_empty() {
            return;
        }
        let mut by_leader: BTreeMap<NodeId, BTreeMap<GroupId, (Slot, Vec<Read>)>> = BTreeMap::new();
        for (slot, read) in std::mem::take(&mut self.follower_reads.gathered) {
            let leader = self.replicas[slot].leader_node();
            let reachable =
                leader.filter(|node| self.peer_of(*node).is_some_and(|peer| self.peers[peer].takes_messages()));
            match reachable {
                Some(node) => {
                    let group = self.replicas[slot].descriptor.group;
                    let reads = by_leader.entry(node).or_default().entry(group).or_insert((slot, Vec::new()));
                    reads.1.push(read);
                }
                None => drop(self.answer(read.asker, Err(read.refusal(leader)))),
            }
        }
        for (leader, reads) in by_leader {
            if self.follower_reads.questions.len() >= READ_ROUNDS_MAX {
                for (slot, reads) in reads.into_values() {
                    let (waiting, late): (Vec<Read>, Vec<Read>) =
                        reads.into_iter().partition(|read| read.deadline > now);
                    self.follower_reads.gathered.extend(waiting.into_iter().map(|read| (slot, read)));
                    self.refuse_follower_reads(late);
                }
                continue;
            }
            self.follower_reads.last_question += 1;
            let id = self.follower_reads.last_question;
            self.counters.index_questions += 1;
            let asked = Asked { leader, at: now, reads };
            self.ask_index(id, &asked);
            self.follower_reads.questions.insert(id, asked);
        }
    }

    fn ask_index(&mut self, id: u64, asked: &Asked) {
        let Some(peer) = self.peer_of(asked.leader) else { return };
        let peer = &mut self.peers[peer];
        if peer.takes_messages() {
            let groups = asked.reads.keys().copied().collect();
            peer.outbox.index_questions.push(IndexQuestion { id, groups });
        }
    }

    /// A follower's core asks. Its groups join the next round of this core's own reads.
    pub(crate) fn hear_index_question(
        &mut self,
        now: Time,
        peer: usize,
        incarnation: Incarnation,
        question: IndexQuestion,
    ) {
        let remote = Remote { node: self.peers[peer].node, incarnation, id: question.id };
        for group in question.groups {
            match self.slot_of(group).filter(|slot| self.replicas[*slot].leads.is_some()) {
                Some(slot) => {
                    self.gather_want(slot, Want::Remote { remote, deadline: now + self.config.request_timeout });
                }
                None => self.answer_index(remote, group, None),
            }
        }
    }

    /// Tells a follower's core an index, or that the group is not led here.
    pub(crate) fn answer_index(&mut self, remote: Remote, group: GroupId, index: Option<Index>) {
        let Remote { node, incarnation, id } = remote;
        let Some(peer) = self.peer_of(node) else { return };
        let peer = &mut self.peers[peer];
        if !peer.takes_messages() {
            return;
        }
        let answers = &mut peer.outbox.index_answers;
        match answers.iter_mut().find(|answer| answer.id == id && answer.incarnation == incarnation) {
            Some(answer) => answer.groups.push((group, index)),
            None => answers.push(IndexAnswer { incarnation, id, groups: vec![(group, index)] }),
        }
    }

    /// The leader's core answers. An answer to another incarnation, or to a question that is over, says nothing.
    pub(crate) fn hear_index_answer(&mut self, peer: usize, answer: IndexAnswer) {
        let from = self.peers[peer].node;
        if answer.incarnation != self.config.incarnation {
            return;
        }
        let Some(mut asked) = self.follower_reads.questions.remove(&answer.id) else { return };
        if asked.leader == from {
            for (group, index) in answer.groups {
                let Some((slot, reads)) = asked.reads.remove(&group) else { continue };
                match index {
                    Some(index) => {
                        self.replicas[slot].confirm(Confirmed { at: asked.at, index });
                        self.serve_at(slot, index, reads);
                    }
                    None => self.refuse_follower_reads(reads),
                }
            }
        }
        if !asked.reads.is_empty() {
            self.follower_reads.questions.insert(answer.id, asked);
        }
    }

    fn refuse_follower_reads(&mut self, reads: Vec<Read>) {
        for read in reads {
            self.answer(read.asker, Err(read.refusal(None)));
        }
    }

    /// Asks open questions again and gives up those whose reads are too old. Called with each beacon.
    pub(crate) fn review_index_questions(&mut self, now: Time) {
        let mut questions = std::mem::take(&mut self.follower_reads.questions);
        let mut late = Vec::new();
        for asked in questions.values_mut() {
            for (_, reads) in asked.reads.values_mut() {
                late.extend(reads.extract_if(.., |read| read.deadline <= now));
            }
            asked.reads.retain(|_, (_, reads)| !reads.is_empty());
        }
        questions.retain(|_, asked| !asked.reads.is_empty());
        for (id, asked) in &questions {
            self.ask_index(*id, asked);
        }
        self.follower_reads.questions = questions;
        self.refuse_follower_reads(late);
    }
}
