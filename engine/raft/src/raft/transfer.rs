//! Leader transfer: a leader that lives lets another voter take over (thesis, section 3.10).
//!
//! The leader takes no more proposals, brings the voter up to its own last entry, and sends it [`Body::TimeoutNow`]. The
//! voter campaigns at once, without pre-votes, which everybody content would refuse. If it does not win within the
//! shortest election timeout the leader gives up and takes proposals again. That is safe whatever becomes of the
//! campaign: it is an election like any other.
//!
//! # The permit (law 5)
//!
//! Content voters pass requests for votes by. Those of this campaign carry a [`Permit`], which names the old leader and its
//! term. It is good for one campaign in exactly the term after. A voter honours it only while it accepts that leader in
//! that term; otherwise the request is one without a permit. The replica that got it takes it only while it follows that
//! leader in that term, and its own campaign ends that term for it: a second copy of the message, or a late one, finds a
//! newer term and says nothing. A later campaign of the same replica begins with pre-votes and has no permit.
//!
//! After the message has left, the permit may be used at any time, even when the leader has given up. Whatever relies on
//! the term not ending, such as a lease, has to end when it is given ([`Raft::has_given_permit`]).

use pontoon_types::limits::TRANSFER_LAG_ENTRIES_MAX;
use pontoon_types::{Body, Permit, ReplicaId, Term, Time};

use super::{Raft, State, Step};
use crate::TransferRefused;
use crate::membership::Half;
use crate::mutation::Mutation;
use crate::progress::{Mode, Progress};

/// A leadership that is being handed over.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) to: ReplicaId,
    pub(super) give_up_at: Time,
    /// The successor has been told to campaign.
    asked: bool,
}

impl Raft {
    /// Whether the leadership can be handed over to this voter now.
    pub fn admit_transfer(&self, to: ReplicaId) -> Result<(), TransferRefused> {
        let State::Leader(leadership) = &self.state else {
            return Err(TransferRefused::NotLeader { leader: self.leader() });
        };
        if let Some(transfer) = &leadership.transfer {
            return Err(TransferRefused::InProgress { to: transfer.to });
        }
        if leadership.leave_by.is_some() {
            return Err(TransferRefused::Leaving);
        }
        if to == self.me {
            return Err(TransferRefused::LeadsAlready(to));
        }
        let Some(peer) = leadership.peers.iter().find(|peer| peer.id == to) else {
            return Err(TransferRefused::NoMember(to));
        };
        if !self.may_succeed(peer) {
            return Err(TransferRefused::NoVoter(to));
        }
        if peer.mode != Mode::Replicate {
            return Err(TransferRefused::Silent(to));
        }
        match self.log.last().index.0 - peer.matched.0 {
            entries if entries > TRANSFER_LAG_ENTRIES_MAX => Err(TransferRefused::Behind { to, entries }),
            _ => Ok(()),
        }
    }

    /// Whether the peer may lead, and may do so after the configuration in force is left.
    fn may_succeed(&self, peer: &Progress) -> bool {
        let standing = self.members.current().standing(peer.id);
        standing.is_some_and(|standing| standing.votes_in(Half::Incoming))
    }

    pub(super) fn transfer(&mut self, step: &mut Step, to: ReplicaId) {
        self.admit_transfer(to).expect("law: a transfer is begun after admit_transfer() in the same turn");
        let State::Leader(leadership) = &mut self.state else { return };
        let give_up_at = step.now + self.config.election_timeout_min;
        leadership.transfer = Some(Transfer { to, give_up_at, asked: false });
        self.review_transfer(step);
    }

    /// Tells the successor to campaign as soon as it has everything.
    pub(super) fn review_transfer(&mut self, step: &mut Step) {
        let State::Leader(leadership) = &mut self.state else { return };
        let Some(transfer) = leadership.transfer.as_mut().filter(|transfer| !transfer.asked) else { return };
        let to = transfer.to;
        let has_all = |peer: &Progress| peer.id == to && peer.matched == self.log.last().index;
        if leadership.peers.iter().any(has_all) {
            transfer.asked = true;
            leadership.has_given_permit = true;
            self.send(step, self.message(to, self.hard_state.term, Body::TimeoutNow));
        }
    }

    /// A transfer that takes too long is over, and the leader goes on.
    pub(super) fn give_up_transfer(&mut self, step: &mut Step) {
        let State::Leader(leadership) = &mut self.state else { return };
        if leadership.transfer.as_ref().is_some_and(|transfer| transfer.give_up_at <= step.now) {
            leadership.transfer = None;
            self.review_members(step);
        }
    }

    /// Resigns, and lets the voter that holds most of the log campaign at once.
    pub(super) fn hand_over(&mut self, step: &mut Step) {
        let State::Leader(leadership) = &self.state else { return };
        let able = leadership.peers.iter().filter(|peer| self.may_succeed(peer) && peer.mode == Mode::Replicate);
        let farthest = able.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.id))).map(|peer| peer.id);
        if let Some(to) = farthest {
            self.send(step, self.message(to, self.hard_state.term, Body::TimeoutNow));
        }
        self.wait_for_election(step);
    }

    /// The leader wants this replica to succeed it. Said by anybody else, or late, it means nothing.
    pub(super) fn on_timeout_now(&mut self, step: &mut Step, from: ReplicaId) {
        let follows = matches!(self.state, State::Follower { leader: Some(leader), .. } if leader == from);
        if follows && self.may_campaign() {
            let permit = Permit { leader: from, term: self.hard_state.term };
            self.stand(step, Some(permit));
        }
    }

    /// Whether this permit allows a campaign in `term`, as far as this replica is concerned.
    pub(super) fn honours(&self, permit: Permit, term: Term) -> bool {
        let accepts = permit.term == self.hard_state.term && self.leader() == Some(permit.leader);
        (accepts && term == permit.term.next()) || self.config.mutated(Mutation::PermitReused)
    }
}
