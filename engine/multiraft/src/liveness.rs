//! Liveness of cores instead of heartbeats of groups: support, lapses and campaigns.
//!
//! A follower whose leader's core is *supported* sleeps, *attached* to that core: it has no timer and refuses pre-votes.
//! What supports a core, and what it leads, is heard in beacons (`beacon`, `relist`).
//!
//! - A leader whose supported peers are no quorum resigns; so does one that has not committed anything for long although
//!   something waits (law 7).
//! - A core whose disk stalls, or that is late for long, gives up what others can lead better (`stall`, `health`).
//! - When support lapses, or a leadership is released, the attached groups are found by their index and not by a scan. They
//!   get their own election deadlines, and the followers of a group campaign one after another, in an order that differs
//!   from group to group, paced (law 10). A refused pre-vote says how long support lasts, and is asked again then.
//! - When a peer is gone, groups that have nothing for it sleep on. When it is back, only those are woken that had
//!   something for it (law 8).
//!
//! All of this is a hint. When it is wrong, an election comes too early or too late; no vote, commit or read depends
//! on it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use pontoon_raft::{Event as RaftEvent, Role};
use pontoon_types::{GroupId, NodeId, Term, Time};
use pontoon_wire::peer::SupportLeft;

use crate::Core;
use crate::health::OwnHealth;
use crate::mutation::CoreMutation;
use crate::peer::Peer;
use crate::replica::{Attachment, Slot};
use crate::stall::Stall;

/// How long after a lapse the first-ranked follower waits: the other followers must see the lapse too, or they would
/// refuse the pre-vote. One beacon interval and a half.
const CAMPAIGN_DELAY: Duration = Duration::from_millis(150);

/// How much longer each further follower waits: long enough for an election on a disk that is not fast.
const RANK_DELAY: Duration = Duration::from_millis(300);

/// Most campaigns of one turn, so that ten thousand lapsed groups do not hold up their core. They share one frame for each
/// peer and one append.
const CAMPAIGNS_PER_TURN: usize = 1024;

/// Most replicas that one turn wakes from their sleep because a core has lapsed.
const LAPSES_PER_TURN: usize = 4096;

/// Most replicas that one turn wakes because a peer is back.
const WAKES_PER_TURN: usize = 256;

/// How long a peer that is taken for dead by chance stays so, in times of its support: longer than a lease.
const DOUBT_SUPPORTS: u64 = 2;

/// What this core knows of its own leaderships and coming campaigns.
#[derive(Debug)]
pub(crate) struct Liveness {
    pub(crate) next_beacon: Time,
    /// The replicas that lead, in the order of their groups.
    pub(crate) led: BTreeSet<Slot>,
    /// Replicas that are to lead first when the cluster starts, so that leaders are spread over the nodes.
    pub(crate) first_campaigns: Vec<Slot>,
    /// Campaigns after a lapse or a release, by time, each with the term that it is to end.
    campaigns: BinaryHeap<Reverse<(Time, Slot, Term)>>,
    pub(crate) stall: Stall,
    pub(crate) health: OwnHealth,
}

impl Liveness {
    pub(crate) fn new(now: Time) -> Liveness {
        Liveness {
            next_beacon: now,
            led: BTreeSet::new(),
            first_campaigns: Vec::new(),
            campaigns: BinaryHeap::new(),
            stall: Stall::default(),
            health: OwnHealth::default(),
        }
    }

    /// The replica is gone. Campaigns that wait look at whose slot it is by then.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.led.remove(&slot);
        self.first_campaigns.retain(|other| *other != slot);
    }

    /// The next time at which something here is due.
    pub(crate) fn next_deadline(&self, peers: &[Peer]) -> Option<Time> {
        let beacon = (!peers.is_empty()).then_some(self.next_beacon);
        let campaign = self.campaigns.peek().map(|Reverse((time, ..))| *time);
        let lapse = peers.iter().filter(|peer| !peer.hearing.attached.is_empty());
        let wake = peers.iter().filter(|peer| peer.has_to_wake()).map(|_| Time(0));
        let lapse = lapse.map(Peer::lapses_at);
        lapse.chain(wake).chain(beacon).chain(campaign).chain(self.stall.deadline()).min()
    }
}

impl Core {
    /// Keeps the index of sleeping followers: a follower without a deadline is attached to its leader's core.
    pub(crate) fn attach(&mut self, now: Time, slot: Slot) {
        let replica = &self.replicas[slot];
        let asleep = replica.raft.role() == Role::Follower && replica.raft.deadline().is_none();
        let leader = if asleep { replica.raft.leader() } else { None };
        let attachment = leader.and_then(|leader| {
            let node = replica.node_of(leader)?;
            Some(Attachment { node, leader, term: replica.raft.term() })
        });
        let before = std::mem::replace(&mut self.replicas[slot].attached, attachment);
        if attachment == before {
            return;
        }
        let group = self.replicas[slot].descriptor.group;
        if let Some(Attachment { node, leader, term }) = before
            && let Some(peer) = self.peer_of(node)
        {
            let Peer { hearing, given, speaking, .. } = &mut self.peers[peer];
            hearing.attached.remove(&slot);
            hearing.followed.remove(group, leader, term);
            given.left(slot, term, speaking.sequence);
        }
        if let Some(Attachment { node, leader, term }) = attachment
            && let Some(peer) = self.peer_of(node)
        {
            let hearing = &mut self.peers[peer].hearing;
            hearing.attached.insert(slot);
            hearing.followed.add(group, leader, term);
            hearing.supported_until = hearing.supported_until.max(now + self.config.support_timeout);
        }
    }

    /// Takes the replica out of the index of those that sleep.
    pub(crate) fn detach(&mut self, slot: Slot) {
        let group = self.replicas[slot].descriptor.group;
        if let Some(Attachment { node, leader, term }) = self.replicas[slot].attached.take()
            && let Some(peer) = self.peer_of(node)
        {
            self.peers[peer].hearing.attached.remove(&slot);
            self.peers[peer].hearing.followed.remove(group, leader, term);
        }
    }

    pub(crate) fn peer_up(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peer_of(node) else { return };
        self.peers[peer].up = true;
        self.peers[peer].outbox.beacon_due = true;
        self.start_first_campaigns(now);
    }

    pub(crate) fn peer_down(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peer_of(node) else { return };
        let grace = now + self.config.broken_link_grace;
        let peer = &mut self.peers[peer];
        peer.up = false;
        peer.outbox = Default::default();
        peer.hearing.supported_until = peer.hearing.supported_until.min(grace);
        self.note_marks();
    }

    /// Campaigns for the groups that this node is to lead first, as soon as a quorum of their members is reachable in
    /// both directions, and all that are have told what they lead: a vote whose answer has no way back would cost an
    /// election timeout. Where a leader is known already nothing happens.
    pub(crate) fn start_first_campaigns(&mut self, now: Time) {
        if self.is_stalled() || !self.is_registered() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.liveness.first_campaigns);
        waiting.retain(|slot| {
            let replica = &self.replicas[*slot];
            let reachable = |node| self.peer_of(node).is_none_or(|peer| self.peers[peer].is_reachable());
            let silent = |peer: &Peer| peer.is_reachable() && !peer.hearing.relist.is_read();
            let mut members = self.peers.iter().filter(|peer| replica.replica_on(peer.node).is_some());
            if !replica.is_quorum(reachable) || members.any(silent) || self.is_bound(now, *slot) {
                return true;
            }
            self.campaign(now, *slot);
            false
        });
        self.liveness.first_campaigns = waiting;
    }

    fn campaign(&mut self, now: Time, slot: Slot) {
        let replica = &self.replicas[slot];
        let may = !self.is_stalled() && !self.is_bound(now, slot) && self.is_registered();
        if replica.raft.role() == Role::Follower && replica.attached.is_none() && may {
            self.step_replica(now, slot, RaftEvent::Campaign);
        }
    }

    /// What time brings: beacons, lapses, campaigns.
    pub(crate) fn expire_liveness(&mut self, now: Time) {
        if self.liveness.next_beacon <= now {
            self.lie_about_support(now);
            let due = std::mem::replace(&mut self.liveness.next_beacon, now + self.config.beacon_interval);
            for peer in self.peers.iter_mut().filter(|peer| peer.up) {
                peer.outbox.beacon_due = true;
            }
            self.start_first_campaigns(now);
            self.review_read_rounds(now);
            self.review_index_questions(now);
            self.review_leaderships(now);
            self.review_health(now, due);
            self.review_registration(now);
            self.liveness.stall.beacon_is_due(now);
        }
        self.withdraw_ended_promises(now);
        for peer in 0..self.peers.len() {
            if self.peers[peer].lapses_at() <= now {
                self.lapse(now, peer);
            }
            self.wake_behind(now, peer);
        }
        for _ in 0..CAMPAIGNS_PER_TURN {
            match self.liveness.campaigns.peek() {
                Some(Reverse((time, slot, term))) if *time <= now => {
                    let (slot, term) = (*slot, *term);
                    self.liveness.campaigns.pop();
                    if self.replicas.get(slot).is_some_and(|replica| replica.raft.term() == term) {
                        self.campaign(now, slot);
                    }
                }
                _ => break,
            }
        }
    }

    /// Where hints lie: whether this core takes a peer for dead for a while, whatever it hears of it.
    pub(crate) fn doubts(&self, now: Time, peer: NodeId) -> bool {
        let spell = now.0 / (DOUBT_SUPPORTS * self.config.support_timeout.as_nanos() as u64).max(1);
        self.config.hints_lie() && rank(GroupId(spell ^ peer.0 << 32), self.config.node).is_multiple_of(4)
    }

    /// What nothing unsafe may follow from: support that comes and goes by chance.
    fn lie_about_support(&mut self, now: Time) {
        if !self.config.hints_lie() {
            return;
        }
        let chance = |salt: u64| rank(GroupId(now.0 ^ salt), self.config.node);
        for place in 0..self.peers.len() {
            let doubted = self.doubts(now, self.peers[place].node);
            let peer = &mut self.peers[place];
            match chance(peer.node.0) % 8 {
                _ if doubted => peer.hearing.supported_until = now,
                1 => peer.hearing.supported_until = now + self.config.support_timeout * 5,
                _ => {}
            }
        }
        let slots = (0..self.replicas.slots()).filter(|slot| self.replicas.get(*slot).is_some());
        let woken = slots.filter(|slot| chance(!(*slot as u64)).is_multiple_of(64));
        for slot in woken.collect::<Vec<_>>() {
            self.step_replica(now, slot, RaftEvent::Lapsed);
        }
    }

    /// Check-quorum: a leader without a supporting quorum resigns, so that one that is not heard, or hears nobody, makes
    /// way. While every peer is supported no group is looked at. A new leader has time to be supported.
    fn review_leaderships(&mut self, now: Time) {
        let stays = self.config.mutated(CoreMutation::NeverMakeWay);
        if stays || self.peers.iter().all(|peer| peer.hearing.supported_until > now) {
            return;
        }
        for slot in self.liveness.led.iter().copied().collect::<Vec<_>>() {
            let replica = &self.replicas[slot];
            let supported = |node| self.peer_of(node).is_none_or(|peer| self.peers[peer].hearing.supported_until > now);
            if !replica.is_quorum(supported) && now.since(replica.leads_since) > self.config.support_timeout * 2 {
                self.step_replica(now, slot, RaftEvent::Lapsed);
            }
        }
    }

    /// The replicas that lead here and whose groups have a quorum without this node among those of which `able` holds.
    pub(crate) fn led_without(&self, able: impl Fn(NodeId) -> bool) -> Vec<Slot> {
        let others = |node| node != self.config.node && able(node);
        let led = self.liveness.led.iter().copied();
        led.filter(|slot| self.replicas[*slot].is_quorum(others)).collect()
    }

    /// Stops leading, and says so at once.
    pub(crate) fn give_up(&mut self, now: Time, slots: &[Slot]) {
        for slot in slots {
            self.step_replica(now, *slot, RaftEvent::Lapsed);
        }
        if !slots.is_empty() {
            for peer in self.peers.iter_mut().filter(|peer| peer.up) {
                peer.outbox.beacon_due = true;
            }
        }
    }

    /// The peer's core is no longer supported: wake the groups it led. What one turn does not come to, the next one does.
    fn lapse(&mut self, now: Time, peer: usize) {
        let gone = self.peers[peer].node;
        let attached: Vec<Slot> = self.peers[peer].hearing.attached.iter().copied().take(LAPSES_PER_TURN).collect();
        for slot in attached {
            self.step_replica(now, slot, RaftEvent::Lapsed);
            self.schedule_campaign(now, slot, gone);
        }
    }

    /// The peer is back: wake the groups that had something for it.
    fn wake_behind(&mut self, now: Time, peer: usize) {
        if !self.peers[peer].has_to_wake() {
            return;
        }
        let node = self.peers[peer].node;
        for _ in 0..WAKES_PER_TURN {
            let Some(slot) = self.peers[peer].behind.pop_first() else { break };
            if let Some(replica) = self.replicas[slot].replica_on(node) {
                self.step_replica(now, slot, RaftEvent::PeerUp(replica));
            }
        }
    }

    /// Lets the follower campaign when its turn comes, unless the group has a leader, or another candidate, by then.
    pub(crate) fn schedule_campaign(&mut self, now: Time, slot: Slot, gone: NodeId) {
        let rank = self.campaign_rank(slot, gone);
        let patience = self.replicas[slot].raft.patience();
        self.campaign_at(now + CAMPAIGN_DELAY + RANK_DELAY * rank + patience, slot);
    }

    fn campaign_at(&mut self, at: Time, slot: Slot) {
        self.liveness.campaigns.push(Reverse((at, slot, self.replicas[slot].raft.term())));
    }

    /// How many nodes campaign for a group before this one when `gone` no longer leads it: every follower computes the
    /// same order, and different groups get different orders (law 10).
    fn campaign_rank(&self, slot: Slot, gone: NodeId) -> u32 {
        let descriptor = &self.replicas[slot].descriptor;
        let key = |node: NodeId| (rank(descriptor.group, node), node);
        let mine = key(self.config.node);
        let configuration = self.replicas[slot].raft.configuration();
        let nodes =
            configuration.voters().filter_map(|voter| configuration.node_of(voter)).filter(|node| *node != gone);
        nodes.filter(|node| key(*node) < mine).count() as u32
    }

    /// A peer refused pre-votes of these replicas, and says whom it supports and for how long.
    pub(crate) fn refused_for_support(&mut self, now: Time, refused: &[Slot], support: &[SupportLeft]) {
        let longest = support.iter().map(|support| support.left_ms).max();
        let Some(left) = longest.map(|left_ms| Duration::from_millis(left_ms.into())) else { return };
        let left = left.min(self.config.support_timeout);
        for slot in refused {
            self.campaign_at(now + left + CAMPAIGN_DELAY, *slot);
        }
    }

    /// How long the core of `node` is supported, as others are told.
    pub(crate) fn support_left(&self, now: Time, node: NodeId) -> Option<SupportLeft> {
        let until = self.peers[self.peer_of(node)?].hearing.supported_until;
        Some(SupportLeft { node, left_ms: crate::health::milliseconds(until.since(now)) })
    }
}

/// A number that orders the members of a group, differently for different groups (the finaliser of splitmix64).
fn rank(group: GroupId, node: NodeId) -> u64 {
    let mut hash = group.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(node.0);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
