//! Who belongs to the group: configuration entries, and when they count.
//!
//! A configuration is an entry of the log. It is in force from the moment it is *in the log*, committed or not, as in
//! Ongaro's thesis and unlike implementations that wait until it is applied. Here nothing else would do: the commit index
//! is on no disk, so a replica that waited for it would come back from a restart with an older configuration than it
//! had voted and led with. The log says all: the last configuration in it is in force. If the log is cut, the one before
//! is in force again ([`crate::membership::History`] keeps it); a snapshot brings its own, and entries it covers say
//! nothing any more.
//!
//! # Why two leaders never decide apart
//!
//! Let an entry be committed in term T under configuration X, and let a later leader be elected under Y. The proof of
//! the paper needs one voter that both quorums share. X and Y share one if they are equal or one change apart
//! ([`crate::membership`], law of overlap). They are not farther apart, because of three rules for a leader that makes a
//! change:
//!
//! 1. It has committed an entry of its own term. So no configuration of an earlier term that it does not know can win an
//!    election any more: a quorum of the last committed configuration holds an entry that such a leader lacks. Without this
//!    rule two leaders can each be one change away from the same configuration, in different directions (the error in
//!    the first published algorithm for single changes).
//! 2. The change before is committed. Then whoever lacks it cannot be elected.
//! 3. Whoever wants more than one voter to come or go takes the way through a joint configuration, whose quorums overlap
//!    those of both sides.
//!
//! A voter that is cut off from a change votes and counts by what it knows, which is at most one change behind what
//! can win.
//!
//! # Coming
//!
//! A new member gets the whole log like any peer that is behind, first as a learner if its operator is wise. It may be
//! asked for its vote before it knows that it is a member, and answers: the one who asks knows who counts. From two
//! voters a third one is reached through a joint configuration even if asked for simply; `raft/lost_vote.rs` says why.
//!
//! # Going
//!
//! A leader that is no voter of the new configuration leads on until that is committed, without counting itself. It must
//! not go at once: if the others did not know, they would still count it and could not decide. So it tells them, and
//! goes when a quorum has said that it knows, handing over to the one that is farthest. Should they not answer within an
//! election timeout it goes all the same; proposals are refused meanwhile. A joint configuration with auto-leave is left by
//! whoever leads when its entry is committed.
//!
//! A replica whose removal is in its log and not known to be committed still campaigns, without a vote of its own (thesis,
//! section 4.2.2): it may be the only one to have that entry, and then nobody with a shorter log can win against it.

use pontoon_types::{Body, Entry, EntryKind, Index, LogId, Message, ReplicaId};

use super::{Raft, State, Step};
use crate::membership::{Change, Configuration, Half, History, Phase, both};
use crate::mutation::Mutation;
use crate::progress::Progress;
use crate::quorum::{Ballot, VoteResult};
use crate::{ChangeRefused, MembersChange};

/// Takes the configurations among these entries into the history. Of those without a payload it learns that they are there.
pub(super) fn put_all(members: &mut History, entries: &[Entry], lost: &[Index]) {
    let configurations = entries.iter().filter(|entry| entry.kind == EntryKind::Configuration);
    for entry in configurations {
        if lost.contains(&entry.id.index) {
            members.miss(entry.id.index);
            continue;
        }
        let configuration = Configuration::decode(&entry.payload);
        let configuration = configuration.expect("law: the log holds configurations that can be read");
        members.put(entry.id.index, configuration);
    }
}

impl Raft {
    /// Whether this leader may change the members now, whatever the change.
    pub fn may_change_members(&self) -> Result<(), ChangeRefused> {
        let State::Leader(leadership) = &self.state else {
            return Err(ChangeRefused::NotLeader { leader: self.leader() });
        };
        if let Some(transfer) = &leadership.transfer {
            return Err(ChangeRefused::Transferring { to: transfer.to });
        }
        if leadership.leave_by.is_some() {
            return Err(ChangeRefused::Leaving);
        }
        let early = self.log.committed() < leadership.start;
        if early && !self.config.mutated(Mutation::ChangeBeforeOwnCommit) {
            return Err(ChangeRefused::TermNotCommitted);
        }
        if self.members.at() > self.log.committed() && !self.config.mutated(Mutation::ChangeBeforeOwnCommit) {
            return Err(ChangeRefused::InFlight { at: self.members.at() });
        }
        Ok(())
    }

    /// What would be in force after this change, if this leader may make it now.
    pub fn admit_change(&self, change: &MembersChange) -> Result<Configuration, ChangeRefused> {
        self.may_change_members()?;
        let current = self.members.current();
        Ok(match change {
            MembersChange::Simple(changes) if is_third_voter(current, changes) => current.enter_joint(changes, true),
            MembersChange::Simple(changes) => current.simple(changes),
            MembersChange::Joint { changes, auto_leave } => current.enter_joint(changes, *auto_leave),
            MembersChange::Leave => current.leave_joint(),
        }?)
    }

    pub(super) fn change_members(&mut self, step: &mut Step, change: &MembersChange) {
        let next = self.admit_change(change).expect("law: a change is made after admit_change() in the same turn");
        self.append_configuration(step, next);
    }

    /// Puts the configuration into force here and sends it to all members, old ones first: one that is removed hears it
    /// then, if it keeps up.
    fn append_configuration(&mut self, step: &mut Step, next: Configuration) {
        let State::Leader(leadership) = &mut self.state else { return };
        let id = LogId::new(self.log.last().index.next(), self.hard_state.term);
        let payload = next.encode();
        leadership.uncommitted_bytes += payload.len();
        self.append_own(vec![Entry::configuration(id, payload)]);
        self.flush(step);
        self.replicate_all(step);
        self.members.put(id.index, next);
        self.renew_peers(step);
        // Without the voter that goes, more may be committed.
        self.advance_commit(step);
    }

    /// Makes the leader's list of peers that of the configuration in force.
    pub(super) fn renew_peers(&mut self, step: &mut Step) {
        let State::Leader(leadership) = &mut self.state else { return };
        let current = self.members.current();
        leadership.peers.retain(|peer| current.standing(peer.id).is_some());
        let next = self.log.last().index;
        let others = || current.replicas().filter(|replica| *replica != self.me);
        // A core leads many groups, and few of them ever get another member.
        leadership.peers.reserve_exact(others().count().saturating_sub(leadership.peers.len()));
        for (place, replica) in others().enumerate() {
            if leadership.peers.get(place).is_none_or(|peer| peer.id != replica) {
                leadership.peers.insert(place, Progress::new(replica, next));
            }
        }
        for place in 0..leadership.peers.len() {
            let State::Leader(leadership) = &self.state else { return };
            if leadership.peers[place].is_new() {
                self.send_probe(step, place);
            }
        }
    }

    /// Everything up to here is committed.
    pub(super) fn commit(&mut self, index: Index) {
        self.log.commit(index);
        self.members.commit(index);
    }

    /// Once a leader has committed the configuration in force: out of a joint one, or out of a group that it does not belong
    /// to any more.
    pub(super) fn review_members(&mut self, step: &mut Step) {
        let State::Leader(leadership) = &mut self.state else { return };
        let committed = self.log.committed();
        if committed < leadership.start || committed < self.members.at() {
            return;
        }
        let current = self.members.current();
        if current.phase() == (Phase::Joint { auto_leave: true }) && leadership.transfer.is_none() {
            let next = current.leave_joint().expect("law: a joint configuration can be left");
            self.append_configuration(step, next);
        } else if !current.is_voter(self.me)
            && leadership.leave_by.is_none()
            && !self.config.mutated(Mutation::RemovedLeaderStays)
        {
            leadership.leave_by = Some(step.now + self.config.election_timeout_min);
            for position in 0..leadership.peers.len() {
                self.tell_commit(step, position);
            }
        }
    }

    /// A leader that is no voter any more goes when the others know that.
    pub(super) fn review_departure(&mut self, step: &mut Step) {
        let State::Leader(leadership) = &self.state else { return };
        let Some(leave_by) = leadership.leave_by else { return };
        let at = self.members.at();
        let knows = |replica| leadership.peers.iter().any(|peer| peer.id == replica && peer.knows(at));
        if step.now >= leave_by || self.members.current().is_quorum(knows) {
            self.hand_over(step);
        }
    }

    /// The highest index that a quorum holds durably.
    pub(super) fn held_by_quorum(&self) -> Index {
        let State::Leader(leadership) = &self.state else { return Index(0) };
        let alone_early = leadership.peers.is_empty() && self.config.mutated(Mutation::CommitAloneEarly);
        let own = if alone_early { self.log.last().index } else { self.durable() };
        let held = |replica| match leadership.peers.iter().find(|peer| peer.id == replica) {
            Some(peer) => peer.matched,
            None => own,
        };
        let halves = self.halves(Mutation::CommitWithoutOutgoing);
        if self.config.mutated(Mutation::LearnerCounts) {
            return halves
                .map(|half| self.members.current().promoted().committed_in(half, 0, &held))
                .min()
                .unwrap_or_default();
        }
        let short = usize::from(self.config.mutated(Mutation::QuorumShortByOne));
        halves.map(|half| self.members.current().committed_in(half, short, &held)).min().unwrap_or_default()
    }

    /// Notes an answer in a ballot, if it is one of a member.
    pub(super) fn record(&self, ballot: &mut Ballot, from: ReplicaId, granted: bool) {
        if let Some(place) = self.members.current().place(from) {
            ballot.record(place, granted);
        }
    }

    /// Where an election with these answers stands.
    pub(super) fn election_result(&self, ballot: &Ballot) -> VoteResult {
        let current = self.members.current();
        let answer = |replica| current.place(replica).and_then(|place| ballot.answer_of(place));
        let short = usize::from(self.config.mutated(Mutation::QuorumShortByOne));
        let halves = self.halves(Mutation::VoteWithoutOutgoing);
        halves.map(|half| current.vote_in(half, short, &answer)).fold(VoteResult::Won, both)
    }

    /// The halves that decide, all but with this bug.
    fn halves(&self, without_outgoing: Mutation) -> impl Iterator<Item = Half> + use<> {
        let incoming_only = self.config.mutated(without_outgoing);
        self.members.current().halves().take(if incoming_only { 1 } else { 2 })
    }

    /// Whether a message is passed by. An answer counts from members only. What is asked is heard whoever asks: this replica
    /// may not know yet that the other is a member, or what it is itself.
    pub(super) fn is_of_no_interest(&self, message: &Message) -> bool {
        match message.body {
            Body::PreVoteResponse { .. }
            | Body::VoteResponse { .. }
            | Body::AppendResponse { .. }
            | Body::AppendRefused { .. } => !self.members.names(message.from),
            Body::Vote { permit, .. } => {
                let is_news = message.term > self.hard_state.term;
                is_news && self.is_content() && !permit.is_some_and(|permit| self.honours(permit, message.term))
            }
            Body::PreVote { .. } | Body::Append { .. } | Body::TimeoutNow => false,
        }
    }

    /// Whether this replica votes in the configuration in force, or in one that may come back.
    pub(super) fn is_eligible(&self) -> bool {
        self.members.voters().any(|voter| voter == self.me)
    }

    /// Whether this replica leads, or its leader is confirmed.
    pub(super) fn is_content(&self) -> bool {
        matches!(self.state, State::Leader(_) | State::Follower { supported: true, .. })
    }
}

/// Whether two voters become three.
fn is_third_voter(current: &Configuration, changes: &[Change]) -> bool {
    let comes = |change: &Change| matches!(change, Change::Voter(member) if !current.is_voter(member.replica));
    current.voters().count() == 2 && changes.iter().any(comes)
}
