//! Law 6, seen from outside a core: no read is answered before a round that began after it had arrived was confirmed by a
//! quorum.
//!
//! The checker is told what a core takes (requests, confirmations), what it sends (rounds), and what it answers, in the
//! order in which that happens, and knows nothing else. Which round a core thinks to have served a read with does not
//! matter: there must be one that could serve it. A stale read needs more bad luck than most runs have, and a core that
//! may serve one is caught here without it.
//!
//! Left out: leases, which answer without a round. Who builds them tells this checker by what right.

use std::collections::{BTreeMap, BTreeSet};

use pontoon_multiraft::Event;
use pontoon_types::{Descriptor, GroupId, Incarnation, NodeId, Term};
use pontoon_wire::client::{Operation, Outcome, ReplyFrame, RequestFrame};
use pontoon_wire::peer::PeerFrame;

use crate::trace::Place;
use crate::violation::Broken;

/// Rounds remembered of each core. Far more than it may have open.
const ROUNDS_KEPT: usize = 1024;

/// One round of one core.
#[derive(Debug, Default)]
struct Round {
    /// When it was asked first.
    asked: u64,
    groups: BTreeMap<GroupId, Term>,
    confirmed: BTreeMap<GroupId, BTreeSet<NodeId>>,
}

/// The checker.
#[derive(Debug, Default)]
pub struct ReadLaw {
    /// Grows with all that it is told.
    moment: u64,
    quorums: BTreeMap<GroupId, usize>,
    /// The rounds of each core's present life.
    rounds: BTreeMap<Place, BTreeMap<u64, Round>>,
    /// When a read reached its core, by attempt, and what it asks.
    arrived: BTreeMap<u64, (u64, GroupId)>,
    /// Answers that were checked.
    pub checked: u64,
}

impl ReadLaw {
    /// A checker for these groups.
    pub fn new(descriptors: &[Descriptor]) -> ReadLaw {
        let quorum = |descriptor: &Descriptor| (descriptor.group, descriptor.members.len() / 2 + 1);
        ReadLaw { quorums: descriptors.iter().map(quorum).collect(), ..ReadLaw::default() }
    }

    /// The members of this group may change from now on, so how many are a quorum is not known here any more.
    pub fn members_change(&mut self, group: GroupId) {
        self.quorums.remove(&group);
    }

    /// A core begins a life.
    pub fn started(&mut self, place: Place) {
        self.rounds.remove(&place);
    }

    /// A core in this incarnation takes an event.
    pub fn takes(&mut self, place: Place, incarnation: Incarnation, event: &Event) {
        self.moment += 1;
        match event {
            Event::ClientFrame { bytes, .. } => {
                let requests = RequestFrame::decode(bytes.clone()).map(|frame| frame.requests).unwrap_or_default();
                for request in requests {
                    if let Operation::Get { group, .. } | Operation::Scan { group, .. } = request.operation {
                        self.arrived.insert(request.sequence, (self.moment, group));
                    }
                }
            }
            Event::PeerFrame { from, bytes } => {
                let Some(rounds) = self.rounds.get_mut(&place) else { return };
                let confirmations = PeerFrame::decode(bytes.clone()).map(|frame| frame.confirmations);
                let to_this_life = confirmations.unwrap_or_default();
                for confirmation in to_this_life.into_iter().filter(|it| it.incarnation == incarnation) {
                    let Some(round) = rounds.get_mut(&confirmation.id) else { continue };
                    for (group, term) in confirmation.groups {
                        if round.groups.get(&group) == Some(&term) {
                            round.confirmed.entry(group).or_default().insert(*from);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// A core sends a frame.
    pub fn sent(&mut self, place: Place, frame: &PeerFrame) {
        self.moment += 1;
        let rounds = self.rounds.entry(place).or_default();
        for asked in &frame.reads {
            let round = rounds.entry(asked.id).or_insert_with(|| Round { asked: self.moment, ..Round::default() });
            for (group, term) in &asked.groups {
                round.groups.entry(*group).or_insert(*term);
            }
        }
        while rounds.len() > ROUNDS_KEPT {
            rounds.pop_first();
        }
    }

    /// A core answers clients.
    pub fn answered(&mut self, place: Place, frame: &ReplyFrame) -> Result<(), Broken> {
        for reply in &frame.replies {
            let Some((arrived, group)) = self.arrived.remove(&reply.sequence) else { continue };
            let Ok(Outcome::Value(_) | Outcome::Pairs { .. }) = reply.result else { continue };
            let quorum = self.quorums.get(&group).copied().unwrap_or(1);
            let confirms = |round: &Round| {
                round.asked > arrived && round.confirmed.get(&group).is_some_and(|nodes| nodes.len() + 1 >= quorum)
            };
            self.checked += 1;
            if quorum > 1 && !self.rounds.get(&place).is_some_and(|rounds| rounds.values().any(confirms)) {
                return Err(Broken::ReadUnconfirmed { place, group, attempt: reply.sequence });
            }
        }
        Ok(())
    }
}
