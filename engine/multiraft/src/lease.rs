//! Leases: reads of a leader without asking anybody. Off unless [`crate::CoreConfig::lease`] is set.
//!
//! Support is a hint and may be wrong; a *promise* may not. A core that promises another one does not help to elect
//! anybody else in the groups in which it follows that core, until the promise has ended by its own clock. A leader to
//! which a quorum has promised knows, until the earliest of those ends by its own clock, that nobody else can have been
//! elected, so its state is the newest there is: that is its *lease*.
//!
//! ```text
//!  leader's core A          follower's core B
//!  beacon 7 at a ─────────▶ heard at b: B is bound until b + length
//!               ◀───────── beacon: epoch 3, answers 7, length; the sum of the groups in which B follows A
//!  B counts until a + length − margin, for the groups that A leads if the sums are equal
//! ```
//!
//! a lies before b, and the margin covers how differently two clocks may run, so the holder always stops first.
//!
//! # Laws
//!
//! - *Law 1, a promise outlives its term.* A bound replica neither votes, nor campaigns, nor raises its term, except for an
//!   Append or a list of an elected leader. It stays bound when it stops to follow, whatever made it stop, until the
//!   leader itself releases the group, or leads exactly what is followed here although it knows that this was left.
//! - *Law 2, clocks.* Promises are made and leases are used at the end of a turn, at a time that was sampled after its
//!   last event was taken in; the lease counts from the sending of the beacon; a clock that jumped
//!   ([`crate::Event::ClockJumped`]) ends all leases, binds everything for one length, and says nothing of any age any more.
//! - *Law 3, withdrawal.* Bad health only stops the extension. A promise that has ended is withdrawn, by one transition
//!   that moves the epoch on, before anything is done that it forbade, and is never extended under the same epoch. What
//!   was accepted counts only under the epoch in which it was.
//! - *Law 4, forgotten acceptance.* A core that comes to life does not know what it has promised, so everything is bound
//!   for the longest length that was ever promised.
//! - *Law 5, transfer.* A leader that has permitted somebody to campaign against it has no lease in that term any more, and
//!   a bound replica takes a request for votes with such a permit while it follows that leader.
//! - *Law 9, a re-homed leader.* Groups change cores only when a node starts, which ends every leadership and with the
//!   incarnation every promise.
//!
//! # Why two leaders never both serve
//!
//! Let A hold a lease in term t by the promises of Q, and let C be elected in a later term by Q'. Some replica D is in
//! both. It followed A in term t when it promised, so it voted for C later, and for that it was not bound: its promise had
//! ended by its clock and was withdrawn. A counted D only to an earlier moment than that, and counts it again only under a
//! newer epoch, in which D would have to follow A in term t, which it has left.
//!
//! Left out: a machine that is paused between looking at the clock and serving a read is not noticed, as nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_raft::Role;
use pontoon_types::{Body, Message, Term, Time};
use pontoon_wire::peer::{ClaimSummary, Health, Promise};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::replica::Slot;
use crate::stall::STALL_AFTER;

/// How leases are given and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// How long a promise binds. Below the support timeout a dead leader's groups are elected as soon as without leases.
    pub length: Duration,
    /// How much shorter the holder counts it, parts per million: twice what one clock may run wrong.
    pub drift_margin_ppm: u32,
}

impl Default for LeaseConfig {
    /// Shorter than the support timeout, so that a dead leader is replaced as soon as without leases. Clocks may each run
    /// wrong by one percent; real ones do by a hundredth of that.
    fn default() -> LeaseConfig {
        LeaseConfig { length: Duration::from_millis(900), drift_margin_ppm: 20_000 }
    }
}

/// What this core has promised a peer's core.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Grows with each withdrawal.
    pub(crate) epoch: u64,
    /// Until when it binds by this clock; none while there is no promise under this epoch.
    until: Option<Time>,
    /// The last beacon of the peer that it answers.
    answers: u64,
    /// A beacon of this turn that is to be answered, and when its event was stepped.
    asked: Option<(u64, Time)>,
    /// The replicas that the promise binds although they do not sleep behind its holder any more.
    bonds: BTreeMap<Slot, Bond>,
}

/// What a peer's core has promised this one.
#[derive(Debug, Default)]
pub(crate) struct Held {
    epoch: u64,
    until: Time,
    /// The peer follows all leaderships up to this number, under this epoch.
    accepted: Option<u64>,
}

/// What a core knows of its own clock and past.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Everything here is bound until then (laws 2 and 4).
    bound_until: Time,
    /// When the clock has jumped last. No span counts that began by then (law 2).
    jumped_at: Option<Time>,
    /// The number of the last leadership won here.
    pub(crate) leaderships: u64,
}

/// What a promise still is to a replica that does not sleep behind its holder any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bond {
    /// The term in which the replica followed the holder last.
    term: Term,
    /// The number of the last beacon that this core had sent to the holder then.
    after: u64,
}

impl Leases {
    /// A core that has just come to life knows nothing of its promises (law 4).
    pub(crate) fn new(now: Time, longest_promise: Duration) -> Leases {
        Leases { bound_until: now + longest_promise, jumped_at: None, leaderships: 0 }
    }

    /// Whether the clock has not jumped since. It may have stood still, so what it showed at the jump it may have shown before.
    pub(crate) fn counts_since(&self, moment: Time) -> bool {
        self.jumped_at.is_none_or(|jump| moment > jump)
    }
}

impl Given {
    /// Whether the promise binds: it was made under this epoch and not withdrawn.
    pub(crate) fn binds(&self) -> bool {
        self.until.is_some()
    }

    /// Until when it binds.
    pub(crate) fn until(&self) -> Option<Time> {
        self.until
    }

    /// A replica that followed in `term` does so no longer; `after` is the number of the last beacon to the holder.
    pub(crate) fn left(&mut self, slot: Slot, term: Term, after: u64) {
        if self.binds() {
            self.bonds.insert(slot, Bond { term, after });
        }
    }

    /// The holder leads the group of the replica no longer in `term`.
    pub(crate) fn released(&mut self, slot: Slot, term: Term) {
        if self.bonds.get(&slot).is_some_and(|bond| bond.term <= term) {
            self.bonds.remove(&slot);
        }
    }

    /// The replica is gone.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.bonds.remove(&slot);
    }

    /// The holder has heard beacon `acknowledged` and leads exactly what is followed here, so nothing that was left before
    /// that beacon.
    pub(crate) fn leads_what_is_followed(&mut self, acknowledged: u64) {
        self.bonds.retain(|_, bond| bond.after >= acknowledged);
    }

    /// The one transition that ends a promise (law 3).
    fn withdraw(&mut self, keep_epoch: bool) {
        self.until = None;
        self.bonds.clear();
        self.epoch += u64::from(!keep_epoch);
    }
}

impl Core {
    /// Whether this core asks its peers for promises: it leads something and its disk answers.
    pub(crate) fn wants_promises(&self) -> bool {
        self.config.lease.is_some() && !self.is_stalled() && !self.liveness.led.is_empty()
    }

    /// The peer asks for a promise. Only one that hears us and does well gets it (laws 3 and 7).
    pub(crate) fn asked_for_promise(&mut self, now: Time, peer: usize, sequence: u64, health: Health) {
        let is_registered = self.is_registered();
        let hearing = &mut self.peers[peer].hearing;
        let well = Duration::from_millis(health.sync_age_ms.into()) < STALL_AFTER;
        if self.config.lease.is_some() && is_registered && hearing.supported_until > now && well {
            self.peers[peer].given.asked = Some((sequence, now));
        }
    }

    /// Makes and extends the promises that were asked for in this turn.
    pub(crate) fn make_promises(&mut self, now: Time) {
        let Some(lease) = self.config.lease else { return };
        self.withdraw_ended_promises(now);
        let from_event = self.config.mutated(CoreMutation::PromiseFromEvent);
        for peer in &mut self.peers {
            let Some((sequence, heard)) = peer.given.asked.take() else { continue };
            let from = if from_event { heard } else { now };
            let until = from + lease.length + Duration::from_nanos(1);
            peer.given.until = peer.given.until.max(Some(until));
            peer.given.answers = sequence;
        }
    }

    /// Withdraws what has ended.
    pub(crate) fn withdraw_ended_promises(&mut self, now: Time) {
        let keep_epoch = self.config.mutated(CoreMutation::WithdrawWithoutEpoch);
        for peer in &mut self.peers {
            if peer.given.until.is_some_and(|until| until <= now) {
                peer.given.withdraw(keep_epoch);
            }
        }
    }

    /// The core to which something was promised has died: nobody holds the lease any more.
    pub(crate) fn holder_died(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        peer.given.asked = None;
        peer.given.withdraw(false);
        peer.held = Held::default();
    }

    /// What the next beacon promises.
    pub(crate) fn promise(&self, peer: usize) -> Option<Promise> {
        let given = &self.peers[peer].given;
        let lease = self.config.lease.filter(|_| given.binds())?;
        let length_us = lease.length.as_micros().try_into().unwrap_or(u64::MAX);
        Some(Promise { epoch: given.epoch, sequence: given.answers, length_us })
    }

    /// A peer promises, and says in what it follows this core.
    pub(crate) fn hear_promise(&mut self, now: Time, peer: usize, promise: Promise, followed: ClaimSummary) {
        let Some(lease) = self.config.lease else { return };
        let mutated = |mutation| self.config.mutated(mutation);
        let (from_answer, no_margin) =
            (mutated(CoreMutation::LeaseFromAnswer), mutated(CoreMutation::LeaseWithoutMargin));
        let accept_anything = mutated(CoreMutation::LeaseWithoutAcceptance);
        let leaderships = self.leases.leaderships;
        let leases = &self.leases;
        let peer = &mut self.peers[peer];
        if promise.epoch < peer.held.epoch {
            return;
        }
        if promise.epoch > peer.held.epoch {
            peer.held = Held { epoch: promise.epoch, ..Held::default() };
        }
        let sent = peer.speaking.sent.iter().find(|(sequence, _)| *sequence == promise.sequence);
        if let Some((_, sent_at)) = sent.filter(|(_, sent_at)| leases.counts_since(*sent_at)) {
            let from = if from_answer { now } else { *sent_at };
            let margin_ppm = if no_margin { 0 } else { lease.drift_margin_ppm.min(1_000_000) };
            let counted_us = u128::from(promise.length_us) * u128::from(1_000_000 - margin_ppm) / 1_000_000;
            peer.held.until = peer.held.until.max(from + Duration::from_micros(counted_us as u64));
        }
        if followed == peer.speaking.led || accept_anything {
            peer.held.accepted = Some(leaderships);
        }
    }

    /// Whether nobody else can have been elected in a group that leads here.
    pub(crate) fn has_lease(&self, now: Time, slot: Slot) -> bool {
        let replica = &self.replicas[slot];
        let permit = replica.raft.has_given_permit() && !self.config.mutated(CoreMutation::LeaseDespitePermit);
        if self.config.lease.is_none() || replica.leads.is_none() || permit {
            return false;
        }
        replica.is_quorum(|node| match self.peer_of(node) {
            None => node == self.config.node,
            Some(peer) => {
                let held = &self.peers[peer].held;
                held.until > now && held.accepted.is_some_and(|accepted| accepted >= replica.leadership)
            }
        })
    }

    /// Whether a promise forbids the replica to help anybody to be elected.
    pub(crate) fn is_bound(&self, now: Time, slot: Slot) -> bool {
        if self.leases.bound_until > now && !self.config.mutated(CoreMutation::ForgetPromises) {
            return true;
        }
        let replica = &self.replicas[slot];
        let behind = replica.attached.and_then(|attached| self.peer_of(attached.node));
        behind.is_some_and(|peer| self.peers[peer].given.binds())
            || self.peers.iter().any(|peer| peer.given.bonds.contains_key(&slot))
    }

    /// Whether a promise forbids to take in this message (law 1).
    pub(crate) fn is_forbidden(&self, now: Time, slot: Slot, message: &Message) -> bool {
        let raft = &self.replicas[slot].raft;
        let newer = message.term > raft.term() && self.config.mutated(CoreMutation::PromiseEndsWithTerm);
        let harmless = match message.body {
            _ if newer => true,
            Body::Append { .. } => true,
            // A replica that sleeps refuses it anyway, and says for how long.
            Body::PreVote { .. } => raft.is_supported(),
            // The leader itself has let go (law 5); whether it names that leader and this term is for Raft to say.
            Body::Vote { permit, .. } => permit.is_some() && raft.is_supported(),
            _ => message.term <= raft.term(),
        };
        !harmless && raft.role() != Role::Leader && self.is_bound(now, slot)
    }

    /// The clock has jumped, or runs wrong: what was counted by it says nothing (law 2).
    pub(crate) fn clock_jumped(&mut self, now: Time) {
        if self.config.mutated(CoreMutation::IgnoreClockJumps) {
            return;
        }
        let longest = self.config.lease.map_or(Duration::ZERO, |lease| lease.length).max(self.config.longest_promise);
        self.leases.jumped_at = Some(now);
        self.leases.bound_until = self.leases.bound_until.max(now + longest);
        for peer in &mut self.peers {
            peer.held = Held { epoch: peer.held.epoch, ..Held::default() };
            if let Some(until) = &mut peer.given.until {
                *until = (*until).max(now + longest);
            }
        }
    }
}
