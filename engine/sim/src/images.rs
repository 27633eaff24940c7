//! Lives and old images (law 12): what a core that starts is told of its past, its ledger on the way to the disk, and disks
//! that are put back to what they were some time ago, ledger included.
//!
//! An image may be of a stopped disk or of one in use. It comes back only where the guard claims to notice it: every peer
//! that it takes for a witness has noted, durably, a mark that its log cannot show; the other replicas of its groups are
//! whole; and one disk at a time. From then on its core must neither vote nor promise what it does not know, and nothing
//! that was acknowledged may be lost.

use std::time::Duration;

use pontoon_multiraft::{CoreStanding, Event, Ledger, Past};
use pontoon_types::NodeId;

use crate::process::RunningCore;
use crate::trace::{Happening, Place};
use crate::world::{Due, Phase, World};

/// A ledger is one small write with a sync of its own.
const LEDGER_WRITE_MAX: Duration = Duration::from_millis(2);

/// Each start of a log writes something, and so may each of those of an image before it is refused for good.
const STARTS_UNNOTICED_MAX: u64 = 8;

impl World {
    /// What a core that starts is told.
    pub(crate) fn past(&mut self, place: Place) -> Past {
        let life = self.lives.draw().max(1);
        let (disk, vouched) = (&self.disks[&place], self.has_lost_its_witnesses(place));
        let vouched = vouched || self.nodes[&place.node].vouched;
        Past { life, log: disk.log_id(), mark: disk.mark(), ledger: disk.ledger.clone(), vouched }
    }

    /// Whether all witnesses of a core are gone for good. Law 12 forbids that it takes part then, however long it waits; only
    /// its operator knows that its disk is as it was, and starts it once more, vouching for it.
    fn has_lost_its_witnesses(&self, place: Place) -> bool {
        let disk = &self.disks[&place];
        let is_witness = |node: &NodeId| {
            self.loss.knows(place.node, *node) && disk.ledger.peers.get(node).is_none_or(|record| record.witness)
        };
        let mut witnesses = self.nodes.iter().filter(|(node, _)| **node != place.node && is_witness(node));
        // Who is no node of the cluster any more is gone for good, whether it came back or not.
        (self.lost_nodes() > 0 || self.loss.has_happened())
            && !disk.is_rolled_back()
            && witnesses.all(|(_, node)| node.lost)
    }

    /// Whether a core waits in vain for its witnesses, which were lost after it had started.
    pub(crate) fn waits_for_the_lost(&self, place: Place) -> bool {
        let waits = |running: &RunningCore| running.core.standing() == CoreStanding::Waiting;
        self.cores.get(&place).is_some_and(waits) && self.has_lost_its_witnesses(place)
    }

    /// A core wants its ledger kept.
    pub(crate) fn write_ledger(&mut self, place: Place, number: u64, ledger: Ledger) {
        let time = self.lives.span(Duration::from_micros(50), LEDGER_WRITE_MAX);
        let incarnation = self.nodes[&place.node].incarnation;
        self.queue.put(self.queue.now() + time, Due::LedgerKept(place, incarnation, number, ledger));
    }

    /// A ledger is durable; the core hears of it.
    pub(crate) fn ledger_kept(&mut self, place: Place, number: u64, ledger: Ledger) {
        self.disk(place).ledger = ledger;
        if self.options.disk.old_image_ppm > 0 && self.lives.chance(100_000) {
            self.disk(place).keep_image();
        }
        self.push(place, Event::LedgerKept(number));
    }

    /// Somebody has put earlier images of the disks in their place.
    pub(crate) fn exchange_disks(&mut self, id: NodeId) {
        if self.options.disk.old_image_ppm == 0 || self.phase != Phase::Faults {
            return;
        }
        for place in self.places(id) {
            let wanted = self.lives.chance(self.options.disk.old_image_ppm);
            if wanted && self.may_go_back(place) && self.disk(place).restore_image() {
                self.counts.old_images += 1;
                self.trace.note(self.queue.now(), Happening::OldImage(place));
            } else if self.lives.chance(300_000) {
                self.disk(place).keep_image();
            }
        }
    }

    /// Whether the image of a disk may come back: whoever it takes for a witness knows better, and everybody else is whole.
    fn may_go_back(&self, place: Place) -> bool {
        let Some((ledger, mark_max)) = self.disks[&place].image() else { return false };
        let knows = |node: &NodeId| {
            let of_peer = &self.disks[&Place { node: *node, core: place.core }].ledger;
            of_peer.peers.get(&place.node).is_some_and(|record| record.mark.0 > mark_max.0 + STARTS_UNNOTICED_MAX)
        };
        let is_witness = |node: &NodeId| ledger.peers.get(node).is_none_or(|record| record.witness);
        let mut witnesses = self.nodes.keys().filter(|node| **node != place.node && is_witness(node));
        self.may_lose_something(place) && self.disks[&place].is_whole() && witnesses.all(knows)
    }
}
