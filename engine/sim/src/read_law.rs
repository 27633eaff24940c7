//! Law 6, seen from outside a core: no read is answered before a round that began after it had arrived was confirmed by a
//! quorum.
//!
//! The checker is told what a core takes (requests, confirmations), what it sends (rounds), and what it answers, in the
//! order in which that happens, and knows nothing else. Which round a core thinks to have served a read with does not
//! matter: there must be one that could serve it. A stale read needs more bad luck than most runs have, and a core that
//! may serve one is caught here without it. A follower answers by a round of its leader, so any core's round counts for it.
//!
//! A read that may be stale must come from a state that was the newest at some moment after its arrival or within its bound
//! before: what any core knew to be committed earlier is applied where it is answered.
//!
//! Left out: rounds where leases are on, since leases answer without them (`lease_law`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pontoon_multiraft::Event;
use pontoon_types::{Descriptor, GroupId, Incarnation, Index, NodeId, Term, Time};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, ReplyFrame, RequestFrame};
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

/// A read that a core has taken.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    at: u64,
    time: Time,
    group: GroupId,
    level: ReadLevel,
}

/// The checker.
#[derive(Debug, Default)]
pub struct ReadLaw {
    /// Grows with all that it is told.
    moment: u64,
    quorums: BTreeMap<GroupId, usize>,
    /// The rounds of each core's present life.
    rounds: BTreeMap<Place, BTreeMap<u64, Round>>,
    /// For each group, when the newest round began that a quorum confirmed.
    newest: BTreeMap<GroupId, u64>,
    /// What any core knew to be committed, and since when.
    committed: BTreeMap<GroupId, Vec<(Time, Index)>>,
    /// Reads by attempt.
    arrived: BTreeMap<u64, Arrived>,
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

    /// The group begins anew with so many voters from a log that ends at `last`. Nobody has to have what was committed behind.
    pub fn began_anew(&mut self, group: GroupId, voters: usize, last: Index) {
        self.quorums.insert(group, voters / 2 + 1);
        self.committed.entry(group).or_default().retain(|(_, index)| *index <= last);
    }

    /// A core begins a life.
    pub fn started(&mut self, place: Place) {
        self.rounds.remove(&place);
    }

    /// A core in this incarnation takes an event.
    pub fn takes(&mut self, now: Time, place: Place, incarnation: Incarnation, event: &Event) {
        self.moment += 1;
        match event {
            Event::ClientFrame { bytes, .. } => {
                let requests = RequestFrame::decode(bytes.clone()).map(|frame| frame.requests).unwrap_or_default();
                for request in requests {
                    if let Operation::Get { group, level, .. } | Operation::Scan { group, level, .. } =
                        request.operation
                    {
                        self.arrived.insert(request.sequence, Arrived { at: self.moment, time: now, group, level });
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
                            let nodes = round.confirmed.entry(group).or_default();
                            nodes.insert(*from);
                            if nodes.len() + 1 >= self.quorums.get(&group).copied().unwrap_or(1) {
                                let newest = self.newest.entry(group).or_default();
                                *newest = round.asked.max(*newest);
                            }
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

    /// A core learns that so much of a group is committed.
    pub fn committed(&mut self, now: Time, group: GroupId, index: Index) {
        let known = self.committed.entry(group).or_default();
        if known.last().is_none_or(|(_, last)| *last < index) {
            known.push((now, index));
        }
    }

    /// A core answers clients, some of them perhaps with a state that is stale. `age` is how long ago a moment may be that
    /// the core's clock takes for `max_age_ms`; `applied` says how far the core is.
    pub fn answered_stale(
        &self,
        place: Place,
        frame: &ReplyFrame,
        age: impl Fn(u32) -> Duration,
        applied: impl Fn(GroupId) -> Option<Index>,
    ) -> Result<(), Broken> {
        for reply in frame.replies.iter().filter(|reply| reply.result.is_ok()) {
            let Some(Arrived { time, group, level: ReadLevel::Stale { max_age_ms }, .. }) =
                self.arrived.get(&reply.sequence)
            else {
                continue;
            };
            let since = Time(time.0.saturating_sub(age(*max_age_ms).as_nanos() as u64));
            let known = self.committed.get(group).map(Vec::as_slice).unwrap_or_default();
            let before = known.partition_point(|(at, _)| *at < since);
            let must = before.checked_sub(1).map(|last| known[last].1);
            if let (Some(must), Some(applied)) = (must, applied(*group))
                && applied < must
            {
                return Err(Broken::ReadTooStale { place, group: *group, applied, must });
            }
        }
        Ok(())
    }

    /// A core answers clients.
    pub fn answered(&mut self, place: Place, frame: &ReplyFrame) -> Result<(), Broken> {
        for reply in &frame.replies {
            let Some(Arrived { at: arrived, group, level, .. }) = self.arrived.remove(&reply.sequence) else {
                continue;
            };
            let Ok(Outcome::Value(_) | Outcome::Pairs { .. }) = reply.result else { continue };
            let quorum = self.quorums.get(&group).copied().unwrap_or(1);
            let confirms = |round: &Round| {
                round.asked > arrived && round.confirmed.get(&group).is_some_and(|nodes| nodes.len() + 1 >= quorum)
            };
            self.checked += 1;
            let is_confirmed = match level {
                ReadLevel::Linearizable => self.rounds.get(&place).is_some_and(|rounds| rounds.values().any(confirms)),
                ReadLevel::Follower => self.newest.get(&group).is_some_and(|asked| *asked > arrived),
                ReadLevel::Stale { .. } => true,
            };
            if quorum > 1 && !is_confirmed {
                return Err(Broken::ReadUnconfirmed { place, group, attempt: reply.sequence });
            }
        }
        Ok(())
    }
}
