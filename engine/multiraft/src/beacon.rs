//! Beacons: what the cores of two nodes tell each other about all their groups at once.
//!
//! Every core sends each peer one beacon per interval. It numbers itself, acknowledges the last beacon heard from the
//! receiver, and says which groups the sender leads: the changes that were not acknowledged yet, and the sum of all of them
//! (`relist`). So what an idle cluster sends does not grow with its groups.
//!
//! - Support is extended only by a beacon that acknowledges a recent beacon of ours, so a path that works in one
//!   direction only lapses (law 7).
//! - A core that stops leading a group lists it as released until that is acknowledged (law 7).
//! - A beacon leaves in a frame of its own, which the shell lets pass what waits on the link (law 10).

use pontoon_raft::{Event as RaftEvent, Role};
use pontoon_types::limits::BEACON_CHANGES_MAX;
use pontoon_types::{GroupId, Incarnation, NodeId, Term, Time};
use pontoon_wire::client::CoreStanding;
use pontoon_wire::peer::{Beacon, Claim};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::peer::{Change, Peer};
use crate::relist::Relist;
use crate::replica::Slot;

/// Most unanswered beacons remembered for each peer; older answers are not recent anyway.
const SENT_BEACONS_MAX: usize = 64;

impl Core {
    /// Notices that a replica began or stopped to lead, and tells every member with the next beacon.
    pub(crate) fn role_changed(&mut self, slot: Slot) {
        let replica = &mut self.replicas[slot];
        let leads = (replica.raft.role() == Role::Leader).then(|| replica.raft.term());
        if leads == replica.leads {
            return;
        }
        // A leader of one term that wins another one has released the first.
        if let Some(term) = std::mem::take(&mut replica.leads) {
            self.tell_members(slot, term, false);
            self.liveness.led.remove(&slot);
            self.stop_sending_all(self.replicas[slot].descriptor.group);
            self.refuse_reads(slot);
            self.review_removal(slot);
            if self.config.mutated(CoreMutation::RefuseOnStepDown) {
                self.refuse_waiters(slot);
            }
        }
        if let Some(term) = leads {
            self.leases.leaderships += 1;
            self.replicas[slot].leadership = self.leases.leaderships;
            self.replicas[slot].leads = leads;
            self.replicas[slot].leads_since = self.liveness.next_beacon;
            self.tell_members(slot, term, true);
            self.liveness.led.insert(slot);
            self.counters.elections_won += 1;
        }
    }

    /// Who may matter has changed. What a leader's peers are told to be led here follows.
    pub(crate) fn review_residents(&mut self, slot: Slot) {
        let replica = &self.replicas[slot];
        if replica.residents_version == replica.raft.residents_version() {
            return;
        }
        let before: Vec<NodeId> = replica.residents.iter().map(|member| member.node).collect();
        self.replicas[slot].renew_residents();
        let replica = &self.replicas[slot];
        let (group, me) = (replica.descriptor.group, replica.me);
        let Some(term) = replica.leads else { return };
        for peer in &mut self.peers {
            let (was, is) = (before.contains(&peer.node), replica.replica_on(peer.node).is_some());
            if is && !was {
                peer.speaking.led.add(group, me, term);
                peer.speaking.changes.insert(group, Change { term, leads: true, carried_by: None });
            } else if was && !is {
                peer.speaking.led.remove(group, me, term);
                peer.speaking.changes.remove(&group);
            }
        }
    }

    fn tell_members(&mut self, slot: Slot, term: Term, leads: bool) {
        let replica = &self.replicas[slot];
        let group = replica.descriptor.group;
        for peer in self.peers.iter_mut().filter(|peer| replica.replica_on(peer.node).is_some()) {
            if !leads && self.config.mutated(CoreMutation::HideReleased) {
                continue;
            }
            peer.speaking.changes.insert(group, Change { term, leads, carried_by: None });
            if leads {
                peer.speaking.led.add(group, replica.me, term);
            } else {
                peer.speaking.led.remove(group, replica.me, term);
            }
        }
    }

    /// The beacon for one peer.
    pub(crate) fn beacon(&mut self, now: Time, peer: usize) -> Beacon {
        let health = self.health(now);
        let wants = self.wanted_list(now, peer);
        let (registration, refused) = (self.registration(peer), self.standing() == CoreStanding::Refused);
        let verdict = self.verdict(peer);
        let (wants_promise, promise) = (self.wants_promises(), self.promise(peer));
        let page_from = self.peers[peer].speaking.page_from.take();
        let page = page_from.map(|from| self.list_page(peer, from));
        let Peer { speaking, hearing, incarnation, .. } = &mut self.peers[peer];
        speaking.sequence += 1;
        let sequence = speaking.sequence;
        if speaking.sent.len() == SENT_BEACONS_MAX {
            speaking.sent.pop_front();
        }
        speaking.sent.push_back((sequence, now));
        let mut changes = Vec::new();
        for (group, change) in speaking.changes.iter_mut().take(BEACON_CHANGES_MAX) {
            change.carried_by.get_or_insert(sequence);
            changes.push(Claim { group: *group, term: change.term, leads: change.leads });
        }
        Beacon {
            sequence,
            acknowledged: hearing.sequence,
            acknowledged_incarnation: *incarnation,
            changes,
            led: speaking.led,
            followed: hearing.followed,
            health,
            wants,
            page,
            wants_promise,
            promise,
            registration,
            verdict,
            refused,
        }
    }

    pub(crate) fn hear_beacon(&mut self, now: Time, peer: usize, beacon: Beacon) {
        if beacon.sequence <= self.peers[peer].hearing.sequence {
            return;
        }
        self.peers[peer].hearing.sequence = beacon.sequence;
        if self.config.mutated(CoreMutation::OneWaySupport) {
            self.peers[peer].hearing.supported_until = now + self.config.support_timeout;
        }
        self.hear_health(peer, beacon.health);
        let acknowledges_us = beacon.acknowledged_incarnation == self.config.incarnation;
        if acknowledges_us {
            if let Some(promise) = beacon.promise {
                self.hear_promise(now, peer, promise, beacon.followed);
            }
            self.acknowledged(now, peer, beacon.acknowledged, beacon.refused);
        }
        if !self.takes_part() {
            return;
        }
        if beacon.wants_promise {
            self.asked_for_promise(now, peer, beacon.sequence, beacon.health);
        }
        // What is acknowledged at once need not be said again, and the rest of a long list need not wait.
        let at_once = !beacon.changes.is_empty() || beacon.wants.is_some();
        for claim in beacon.changes {
            if claim.leads {
                self.claimed(now, peer, claim.group, claim.term);
            } else {
                self.released(now, peer, claim.group, claim.term);
            }
        }
        self.compare_lists(now, peer, beacon.led, beacon.page);
        let peer = &mut self.peers[peer];
        if acknowledges_us && beacon.led == peer.hearing.followed {
            peer.given.leads_what_is_followed(beacon.acknowledged);
        }
        peer.speaking.page_from = beacon.wants.or(peer.speaking.page_from);
        peer.outbox.beacon_due |= at_once && peer.up;
    }

    /// The peer hears us: that is what support needs (law 7), and what it acknowledged need not be said again.
    fn acknowledged(&mut self, now: Time, peer: usize, sequence: u64, refused: bool) {
        let doubted = self.doubts(now, self.peers[peer].node);
        let Peer { up, outbox, speaking, hearing, .. } = &mut self.peers[peer];
        speaking.sent.retain(|(sent, _)| *sent >= sequence);
        speaking.changes.retain(|_, change| change.carried_by.is_none_or(|carried_by| carried_by > sequence));
        let answered = speaking.sent.front().filter(|(sent, _)| *sent == sequence);
        if answered.is_some_and(|(_, sent_at)| now.since(*sent_at) <= self.config.support_timeout) {
            if refused || doubted {
                return;
            }
            // A list that was not wanted before is wanted now.
            outbox.beacon_due |= *up && hearing.supported_until <= now && !hearing.relist.is_read();
            hearing.supported_until = hearing.supported_until.max(now + self.config.support_timeout);
        }
    }

    /// The claim of a core that is not supported is not followed: it may be one that hears nobody (law 7).
    fn claimed(&mut self, now: Time, peer: usize, group: GroupId, term: Term) {
        let Peer { node, hearing, .. } = &self.peers[peer];
        if hearing.supported_until <= now && !self.config.mutated(CoreMutation::FollowUnsupported) {
            return;
        }
        let Some(slot) = self.slot_of(group) else { return };
        let replica = &self.replicas[slot];
        let Some(leader) = replica.replica_on(*node) else { return };
        if !replica.sleeps_behind(*node, term) {
            self.step_replica(now, slot, RaftEvent::Claimed { leader, term });
        }
    }

    fn released(&mut self, now: Time, peer: usize, group: GroupId, term: Term) {
        let node = self.peers[peer].node;
        let Some(slot) = self.slot_of(group) else { return };
        let slept = self.replicas[slot].sleeps_behind(node, term);
        if slept {
            self.step_replica(now, slot, RaftEvent::Lapsed);
        }
        // The holder has given up what was promised to it here, also by a replica that has left it before.
        self.peers[peer].given.released(slot, term);
        if slept {
            self.schedule_campaign(now, slot, node);
        }
    }

    /// A new incarnation of the peer's core knows nothing of what was said to the old one, and leads nothing.
    pub(crate) fn peer_reborn(&mut self, now: Time, peer: usize, incarnation: Incarnation) {
        let Peer { up, outbox, speaking, hearing, incarnation: known, known: life, .. } = &mut self.peers[peer];
        let ignored = *known != Incarnation(0) && self.config.mutated(CoreMutation::IgnoreRebirth);
        let restarted = *known != Incarnation(0) && !ignored;
        *known = incarnation;
        life.forget_verdict();
        hearing.sequence = 0;
        if !ignored {
            hearing.relist = Relist::default();
        }
        speaking.page_from = None;
        outbox.beacon_due = *up;
        if restarted {
            hearing.supported_until = hearing.supported_until.min(now);
            self.holder_died(peer);
        }
        self.start_first_campaigns(now);
    }
}
