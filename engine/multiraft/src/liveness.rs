//! Liveness of cores instead of heartbeats of groups, in its first form.
//!
//! Every core sends each peer one beacon per interval. A beacon numbers itself, acknowledges the last beacon heard
//! from the receiver, and says which groups the sender leads: the changes that were not acknowledged yet, and one page
//! of the full list. A follower whose leader's core is *supported* sleeps, *attached* to that core: it has no timer
//! and refuses pre-votes.
//!
//! - Support is extended only by a beacon that acknowledges a recent beacon of ours, so a path that works in one
//!   direction only lapses (law 7).
//! - A core that stops leading a group lists it as released until that is acknowledged (law 7).
//! - A group of ours that is attached to the sender, inside the page's interval and not on the page, is detached: one
//!   stuck group shows although its core is alive (law 8, without hashes yet).
//! - A leader whose supported peers are no quorum resigns.
//! - A core whose disk stalls releases what others can lead better (`stall`).
//! - When support lapses, or a leadership is released, the attached groups are found by their index and not by a scan. They get their own election
//!   deadlines; the first-ranked follower of each group campaigns after a short while, paced (law 10).
//!
//! All of this is a hint. When it is wrong, an election comes too early or too late; no vote, commit or read depends
//! on it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use pontoon_raft::{Event as RaftEvent, Role, quorum};
use pontoon_types::limits::{BEACON_CHANGES_MAX, BEACON_PAGE_GROUPS};
use pontoon_types::{GroupId, Incarnation, NodeId, ReplicaId, Term, Time};
use pontoon_wire::peer::{Beacon, Claim, ClaimPage};

use crate::Core;
use crate::peer::{Change, Peer};
use crate::replica::Slot;
use crate::stall::Stall;

/// How long after a lapse the first-ranked follower waits: the other followers must see the lapse too, or they would
/// refuse the pre-vote. One beacon interval and a half.
const CAMPAIGN_DELAY: Duration = Duration::from_millis(150);

/// Most campaigns of one turn, so that ten thousand lapsed groups do not hold up their core.
const CAMPAIGNS_PER_TURN: usize = 256;

/// Most unanswered beacons remembered for each peer; older answers are not recent anyway.
const SENT_BEACONS_MAX: usize = 64;

/// What this core knows of its own leaderships and coming campaigns.
#[derive(Debug)]
pub(crate) struct Liveness {
    next_beacon: Time,
    /// The replicas that lead, in the order of their groups.
    pub(crate) led: BTreeSet<Slot>,
    /// Replicas that are to lead first when the cluster starts, so that leaders are spread over the nodes.
    pub(crate) first_campaigns: Vec<Slot>,
    /// Campaigns after a lapse or a release, by time.
    campaigns: VecDeque<(Time, Slot)>,
    pub(crate) stall: Stall,
}

impl Liveness {
    pub(crate) fn new(now: Time) -> Liveness {
        Liveness {
            next_beacon: now,
            led: BTreeSet::new(),
            first_campaigns: Vec::new(),
            campaigns: VecDeque::new(),
            stall: Stall::default(),
        }
    }

    /// The next time at which something here is due.
    pub(crate) fn next_deadline(&self, peers: &[Peer]) -> Option<Time> {
        let beacon = (!peers.is_empty()).then_some(self.next_beacon);
        let campaign = self.campaigns.front().map(|(time, _)| *time);
        let lapse = peers.iter().filter(|peer| !peer.hearing.attached.is_empty());
        lapse.map(|peer| peer.hearing.supported_until).chain(beacon).chain(campaign).chain(self.stall.deadline()).min()
    }
}

impl Core {
    /// Notices that a replica began or stopped to lead, and tells every member with the next beacon.
    pub(crate) fn role_changed(&mut self, slot: Slot) {
        let replica = &mut self.replicas[slot];
        let leads = (replica.raft.role() == Role::Leader).then(|| replica.raft.term());
        let Some(term) = leads.or(replica.leads).filter(|_| leads != replica.leads) else { return };
        replica.leads = leads;
        let descriptor = &replica.descriptor;
        let change = Change { term, leads: leads.is_some(), carried_by: None };
        for peer in self.peers.iter_mut().filter(|peer| descriptor.replica_on(peer.node).is_some()) {
            peer.speaking.changes.insert(descriptor.group, change);
        }
        if leads.is_some() {
            self.counters.elections_won += 1;
            self.liveness.led.insert(slot);
            self.replicas[slot].leads_since = self.liveness.next_beacon;
        } else {
            self.liveness.led.remove(&slot);
            self.refuse_reads(slot);
        }
    }

    /// Keeps the index of sleeping followers: a follower without a deadline is attached to its leader's core.
    pub(crate) fn attach(&mut self, now: Time, slot: Slot) {
        let replica = &self.replicas[slot];
        let asleep = replica.raft.role() == Role::Follower && replica.raft.deadline().is_none();
        let leader = if asleep { replica.leader_node() } else { None };
        let before = std::mem::replace(&mut self.replicas[slot].attached, leader);
        if leader == before {
            return;
        }
        if let Some(peer) = before.and_then(|node| self.peer_of(node)) {
            self.peers[peer].hearing.attached.remove(&slot);
        }
        if let Some(peer) = leader.and_then(|node| self.peer_of(node)) {
            let hearing = &mut self.peers[peer].hearing;
            hearing.attached.insert(slot);
            hearing.supported_until = hearing.supported_until.max(now + self.config.support_timeout);
        }
    }

    pub(crate) fn peer_up(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peer_of(node) else { return };
        self.peers[peer].up = true;
        self.peers[peer].outbox.beacon_due = true;
        self.tell_led_groups(now, node, RaftEvent::PeerUp);
        self.start_first_campaigns(now);
    }

    pub(crate) fn peer_down(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peer_of(node) else { return };
        let grace = now + self.config.broken_link_grace;
        let peer = &mut self.peers[peer];
        peer.up = false;
        peer.outbox = Default::default();
        peer.hearing.supported_until = peer.hearing.supported_until.min(grace);
    }

    /// Campaigns for the groups that this node is to lead first, as soon as a quorum of their members is reachable in
    /// both directions: a vote whose answer has no way back would cost an election timeout. Where a leader is known
    /// already nothing happens.
    pub(crate) fn start_first_campaigns(&mut self, now: Time) {
        if self.is_stalled() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.liveness.first_campaigns);
        waiting.retain(|slot| {
            let descriptor = &self.replicas[*slot].descriptor;
            let reachable = self.peers.iter().filter(|peer| peer.is_reachable());
            let members = reachable.filter(|peer| descriptor.replica_on(peer.node).is_some());
            if members.count() + 1 < quorum(descriptor.members.len()) {
                return true;
            }
            self.campaign(now, *slot);
            false
        });
        self.liveness.first_campaigns = waiting;
    }

    fn campaign(&mut self, now: Time, slot: Slot) {
        let replica = &self.replicas[slot];
        if replica.raft.role() == Role::Follower && replica.attached.is_none() && !self.is_stalled() {
            self.step_replica(now, slot, RaftEvent::Campaign);
        }
    }

    /// What time brings: beacons, lapses, campaigns.
    pub(crate) fn expire_liveness(&mut self, now: Time) {
        if self.liveness.next_beacon <= now {
            self.liveness.next_beacon = now + self.config.beacon_interval;
            for peer in self.peers.iter_mut().filter(|peer| peer.up) {
                peer.outbox.beacon_due = true;
            }
            self.review_read_rounds(now);
            self.review_leaderships(now);
            self.liveness.stall.beacon_is_due(now);
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].hearing.supported_until <= now {
                self.lapse(now, peer);
            }
        }
        for _ in 0..CAMPAIGNS_PER_TURN {
            match self.liveness.campaigns.front() {
                Some((time, slot)) if *time <= now => {
                    let slot = *slot;
                    self.liveness.campaigns.pop_front();
                    self.campaign(now, slot);
                }
                _ => break,
            }
        }
    }

    /// Check-quorum: a leader without a supporting quorum resigns, so that one that is not heard, or hears nobody, makes
    /// way. While every peer is supported no group is looked at. A new leader has time to be supported.
    fn review_leaderships(&mut self, now: Time) {
        if self.peers.iter().all(|peer| peer.hearing.supported_until > now) {
            return;
        }
        for slot in self.liveness.led.iter().copied().collect::<Vec<_>>() {
            let replica = &self.replicas[slot];
            let supporting = self.peers.iter().filter(|peer| {
                peer.hearing.supported_until > now && replica.descriptor.replica_on(peer.node).is_some()
            });
            let enough = supporting.count() + 1 >= quorum(replica.descriptor.members.len());
            if !enough && now.since(replica.leads_since) > self.config.support_timeout * 2 {
                self.step_replica(now, slot, RaftEvent::Lapsed);
            }
        }
    }

    /// The peer's core is no longer supported: wake the groups it led.
    fn lapse(&mut self, now: Time, peer: usize) {
        let gone = self.peers[peer].node;
        for slot in std::mem::take(&mut self.peers[peer].hearing.attached) {
            self.replicas[slot].attached = None;
            self.step_replica(now, slot, RaftEvent::Lapsed);
            self.campaign_if_first(now, slot, gone);
        }
    }

    fn campaign_if_first(&mut self, now: Time, slot: Slot, gone: NodeId) {
        if self.is_first_ranked(slot, gone) {
            self.liveness.campaigns.push_back((now + CAMPAIGN_DELAY, slot));
        }
    }

    /// Whether this node is the one that campaigns first for a group when `gone` no longer leads it: every follower
    /// computes the same order, and different groups get different orders (law 10).
    fn is_first_ranked(&self, slot: Slot, gone: NodeId) -> bool {
        let descriptor = &self.replicas[slot].descriptor;
        let nodes = descriptor.members.iter().map(|member| member.node).filter(|node| *node != gone);
        let first = nodes.min_by_key(|node| (rank(descriptor.group, *node), *node));
        first == Some(self.config.node)
    }

    /// The beacon for one peer.
    pub(crate) fn beacon(&mut self, now: Time, peer: usize) -> Beacon {
        let page = self.claim_page(peer);
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
        let acknowledged = hearing.sequence;
        Beacon { sequence, acknowledged, acknowledged_incarnation: *incarnation, changes, page }
    }

    /// The next page of the full list of groups led here with a replica on the peer.
    fn claim_page(&mut self, peer: usize) -> ClaimPage {
        let Peer { node, speaking, .. } = &mut self.peers[peer];
        let from = speaking.page_from;
        let first = self.replicas.partition_point(|replica| replica.descriptor.group < from);
        let mut claims = Vec::new();
        let mut through = GroupId(u64::MAX);
        for slot in self.liveness.led.range(first..) {
            let replica = &self.replicas[*slot];
            if replica.descriptor.replica_on(*node).is_none() {
                continue;
            }
            claims.push((replica.descriptor.group, replica.raft.term()));
            if claims.len() == BEACON_PAGE_GROUPS {
                through = replica.descriptor.group;
                break;
            }
        }
        speaking.page_from = if through.0 == u64::MAX { GroupId(0) } else { GroupId(through.0 + 1) };
        ClaimPage { from, through, claims }
    }

    /// A new incarnation of the peer's core knows nothing of what was said to the old one, commit indexes included.
    pub(crate) fn peer_reborn(&mut self, now: Time, peer: usize, incarnation: Incarnation) {
        let Peer { node, up, outbox, speaking, hearing, incarnation: known, .. } = &mut self.peers[peer];
        let restarted = *known != Incarnation(0);
        *known = incarnation;
        hearing.sequence = 0;
        speaking.page_from = GroupId(0);
        outbox.beacon_due = *up;
        if restarted {
            let node = *node;
            self.tell_led_groups(now, node, RaftEvent::PeerRestarted);
        }
        self.start_first_campaigns(now);
    }

    /// Steps every group led here of which `node` has a replica.
    fn tell_led_groups(&mut self, now: Time, node: NodeId, event: impl Fn(ReplicaId) -> RaftEvent) {
        for slot in self.liveness.led.iter().copied().collect::<Vec<_>>() {
            if let Some(replica) = self.replicas[slot].descriptor.replica_on(node) {
                self.step_replica(now, slot, event(replica));
            }
        }
    }

    pub(crate) fn hear_beacon(&mut self, now: Time, peer: usize, beacon: Beacon) {
        if beacon.sequence <= self.peers[peer].hearing.sequence {
            return;
        }
        self.peers[peer].hearing.sequence = beacon.sequence;
        if beacon.acknowledged_incarnation == self.config.incarnation {
            self.acknowledged(now, peer, beacon.acknowledged);
        }
        for claim in beacon.changes {
            if claim.leads {
                self.claimed(now, peer, claim.group, claim.term);
            } else {
                self.released(now, peer, claim.group, claim.term);
            }
        }
        self.reconcile_page(now, peer, beacon.page);
    }

    /// The peer hears us: that is what support needs (law 7), and what it acknowledged need not be said again.
    fn acknowledged(&mut self, now: Time, peer: usize, sequence: u64) {
        let Peer { speaking, hearing, .. } = &mut self.peers[peer];
        speaking.sent.retain(|(sent, _)| *sent >= sequence);
        speaking.changes.retain(|_, change| change.carried_by.is_none_or(|carried_by| carried_by > sequence));
        let answered = speaking.sent.front().filter(|(sent, _)| *sent == sequence);
        if answered.is_some_and(|(_, sent_at)| now.since(*sent_at) <= self.config.support_timeout) {
            hearing.supported_until = hearing.supported_until.max(now + self.config.support_timeout);
        }
    }

    /// The claim of a core that is not supported is not followed: it may be one that hears nobody (law 7).
    fn claimed(&mut self, now: Time, peer: usize, group: GroupId, term: Term) {
        let Peer { node, hearing, .. } = &self.peers[peer];
        let node = *node;
        if hearing.supported_until <= now {
            return;
        }
        let Some(slot) = self.slot_of(group) else { return };
        let replica = &self.replicas[slot];
        let Some(leader) = replica.descriptor.replica_on(node) else { return };
        let known = replica.attached == Some(node) && replica.raft.term() == term;
        if !known {
            self.step_replica(now, slot, RaftEvent::Claimed { leader, term });
        }
    }

    fn released(&mut self, now: Time, peer: usize, group: GroupId, term: Term) {
        let node = self.peers[peer].node;
        let Some(slot) = self.slot_of(group) else { return };
        if self.replicas[slot].attached == Some(node) && self.replicas[slot].raft.term() == term {
            self.step_replica(now, slot, RaftEvent::Lapsed);
            self.campaign_if_first(now, slot, node);
        }
    }

    /// The page is complete inside its interval: what is attached to the peer and not on it is no longer led there.
    fn reconcile_page(&mut self, now: Time, peer: usize, page: ClaimPage) {
        let first = self.replicas.partition_point(|replica| replica.descriptor.group < page.from);
        let end = self.replicas.partition_point(|replica| replica.descriptor.group <= page.through);
        let listed: BTreeSet<GroupId> = page.claims.iter().map(|(group, _)| *group).collect();
        let attached = self.peers[peer].hearing.attached.range(first..end.max(first));
        let unlisted: Vec<Slot> =
            attached.copied().filter(|slot| !listed.contains(&self.replicas[*slot].descriptor.group)).collect();
        for slot in unlisted {
            self.step_replica(now, slot, RaftEvent::Lapsed);
        }
        for (group, term) in page.claims {
            self.claimed(now, peer, group, term);
        }
    }
}

/// A number that orders the members of a group, differently for different groups (the finaliser of splitmix64).
fn rank(group: GroupId, node: NodeId) -> u64 {
    let mut hash = group.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(node.0);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
