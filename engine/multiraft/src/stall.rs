//! A disk that does not answer: who should lead meanwhile (law 10).
//!
//! The shell says when a sync has taken too long, and when it has ended. In between this core does not campaign, and it
//! gives up the groups that others can lead better. Better is measured and not guessed: a disk that all nodes share stalls
//! everybody, and elections would then only add writes to it. A peer's disk is taken for healthy if the peer has
//! acknowledged an uncommitted entry since the stalled sync began, because it had to write that entry first. A group is
//! given up as soon as a quorum of its members, this one not counted, is supported and has been healthy for a while: they
//! can elect a leader and commit without this disk. A group that nobody writes to may stay; its leader's disk is not
//! asked for anything.
//!
//! Giving up is what a leader without a quorum does too: it steps down, and the release is in a beacon that leaves at once
//! (law 7). What this core had in flight keeps its order and its outcome: the log is not touched, votes and
//! acknowledgements leave when the disk has done their writes, and a client hears of its command when its entry is
//! applied, whoever leads then.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_types::{NodeId, Time};

use crate::Core;
use crate::peer::Peer;

/// A sync that takes longer than this is a stall. Far above what a healthy device needs under load, far below what a
/// client waits for.
pub const STALL_AFTER: Duration = Duration::from_millis(100);

/// How long others must have worked while this disk has not. When a disk that all share comes back, it comes back for one
/// a little before the other.
const HEALTHIER_AFTER: Duration = Duration::from_millis(25);

/// What a core knows of its own stall.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// When the shell said so. The sync began [`STALL_AFTER`] earlier.
    since: Option<Time>,
    /// The peers whose disks have worked since the sync began, and since when that is known.
    working: BTreeMap<NodeId, Time>,
    /// When the leaderships have to be looked at again.
    look_at: Option<Time>,
}

impl Stall {
    /// When there is something to do without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// Time has passed: whom this core supports may have changed.
    pub(crate) fn beacon_is_due(&mut self, now: Time) {
        if self.since.is_some() {
            self.look_at = Some(now);
        }
    }
}

impl Core {
    /// Whether a sync of this core's log takes too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.liveness.stall.since.is_some()
    }

    pub(crate) fn stalled(&mut self, now: Time, stalled: bool) {
        if !stalled {
            self.liveness.stall = Stall::default();
            self.start_first_campaigns(now);
        } else if !self.is_stalled() {
            let worked = |peer: &Peer| peer.hearing.synced_at.filter(|at| *at + STALL_AFTER >= now);
            let working = self.peers.iter().filter_map(|peer| Some((peer.node, worked(peer)?))).collect();
            self.liveness.stall = Stall { since: Some(now), working, look_at: Some(now) };
        }
    }

    /// The peer's disk has just done something.
    pub(crate) fn peer_has_synced(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peer_of(node) else { return };
        self.peers[peer].hearing.synced_at = Some(now);
        let stall = &mut self.liveness.stall;
        if stall.since.is_some() && !stall.working.contains_key(&node) {
            stall.working.insert(node, now);
            stall.look_at.get_or_insert(now + HEALTHIER_AFTER);
        }
    }

    /// Gives up what others can lead better. Looks when there is news: a stall, a peer whose disk has worked for long
    /// enough, a beacon's time.
    pub(crate) fn review_stall(&mut self, now: Time) {
        let stall = &mut self.liveness.stall;
        if stall.look_at.is_none_or(|at| at > now) {
            return;
        }
        let since_when = stall.working.values().map(|since| *since + HEALTHIER_AFTER);
        stall.look_at = since_when.filter(|at| *at > now).min();
        let healthier = |peer: &&Peer| {
            let working = self.liveness.stall.working.get(&peer.node);
            peer.hearing.supported_until > now && working.is_some_and(|since| *since + HEALTHIER_AFTER <= now)
        };
        let healthier: Vec<NodeId> = self.peers.iter().filter(healthier).map(|peer| peer.node).collect();
        let better = self.led_without(|node| healthier.contains(&node));
        self.give_up(now, &better);
    }
}
