//! Bulk re-acceptance: how a core learns again, page by page, what another one leads (law 8).
//!
//! A beacon says what its sender leads in a count and a hash. The receiver keeps the same sum over its replicas that
//! sleep behind the sender. Equal sums are all that a healthy cluster ever exchanges, however many groups it has. When the
//! sums differ for longer than a message is under way, or either side has just come to life, the receiver asks for
//! the list: each answer of its own wants the page from some group on, and the next beacon carries it. A lost page is
//! wanted again.
//!
//! A page is complete inside its interval, so a group that sleeps behind the sender and is not listed is woken: it has
//! no leader there. A listing names the end of the leader's log and its commit index. A replica that has missed nothing
//! takes the commit index and goes to sleep without a word; one that is behind refuses, which wakes its leader. So a node
//! that comes back wakes the groups that are behind and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use pontoon_raft::Event as RaftEvent;
use pontoon_types::limits::BEACON_PAGE_GROUPS;
use pontoon_types::{GroupId, Time};
use pontoon_wire::peer::{ClaimPage, ClaimSummary, Listing};

use crate::Core;
use crate::mutation::CoreMutation;
use crate::replica::Slot;

/// How many beacons in a row must contradict what is known here: one may have overtaken, or been overtaken by, what
/// makes it true.
const CONTRADICTIONS: u32 = 2;

/// A list that was read to its end and still contradicts is not asked for again so soon: some difference is there to stay
/// for a while, such as a claim of an old term that its leader does not know to be over.
const RELIST_INTERVAL: Duration = Duration::from_secs(1);

/// What a core knows of the other's list.
#[derive(Debug)]
pub(crate) struct Relist {
    /// The group from which on the list is wanted, while it is.
    from: Option<GroupId>,
    /// Beacons in a row whose sum contradicts what is known here.
    contradictions: u32,
    /// When a contradiction counts again.
    not_before: Time,
}

impl Default for Relist {
    /// Nothing is known of a core that was not heard yet, so its list is wanted.
    fn default() -> Relist {
        Relist { from: Some(GroupId(0)), contradictions: 0, not_before: Time(0) }
    }
}

impl Relist {
    /// Whether the list was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.from.is_none()
    }

    /// Compares what the peer says it leads with what is followed there.
    fn compare(&mut self, now: Time, led: ClaimSummary, followed: ClaimSummary) {
        if led == followed || self.from.is_some() {
            self.contradictions = 0;
            return;
        }
        self.contradictions += 1;
        if self.contradictions >= CONTRADICTIONS && self.not_before <= now {
            self.contradictions = 0;
            self.from = Some(GroupId(0));
        }
    }

    /// A page was taken in.
    fn read(&mut self, now: Time, page: &ClaimPage) {
        if self.from != Some(page.from) {
            return;
        }
        self.from = page.through.0.checked_add(1).map(GroupId);
        if self.from.is_none() {
            self.not_before = now + RELIST_INTERVAL;
        }
    }
}

impl Core {
    /// Whether the list of the peer is wanted, and from where on. The list of a core that is not supported would be
    /// read in vain.
    pub(crate) fn wanted_list(&self, now: Time, peer: usize) -> Option<GroupId> {
        let hearing = &self.peers[peer].hearing;
        hearing.relist.from.filter(|_| hearing.supported_until > now)
    }

    /// Takes in what a beacon says of all that the peer leads.
    pub(crate) fn compare_lists(&mut self, now: Time, peer: usize, led: ClaimSummary, page: Option<ClaimPage>) {
        let any = self.config.mutated(CoreMutation::FollowUnsupported);
        if self.peers[peer].hearing.supported_until <= now && !any {
            return;
        }
        if let Some(page) = page {
            self.read_page(now, peer, page);
        }
        let hearing = &mut self.peers[peer].hearing;
        hearing.relist.compare(now, led, hearing.followed);
    }

    fn read_page(&mut self, now: Time, peer: usize, page: ClaimPage) {
        let listed: BTreeSet<GroupId> = page.claims.iter().map(|claim| claim.group).collect();
        let (attached, interval) = (&self.peers[peer].hearing.attached, page.from..=page.through.max(page.from));
        let here = self.replicas.range(interval).filter(|(_, slot)| attached.contains(slot));
        let unlisted: Vec<Slot> = here.filter(|(group, _)| !listed.contains(group)).map(|(_, slot)| slot).collect();
        for slot in unlisted {
            if self.config.mutated(CoreMutation::KeepUnlisted) {
                break;
            }
            self.step_replica(now, slot, RaftEvent::Lapsed);
        }
        for listing in &page.claims {
            self.read_listing(now, peer, *listing);
        }
        let peer = &mut self.peers[peer];
        peer.hearing.relist.read(now, &page);
        if peer.hearing.relist.is_read() {
            self.start_first_campaigns(now);
        } else {
            peer.outbox.beacon_due = peer.up;
        }
    }

    fn read_listing(&mut self, now: Time, peer: usize, listing: Listing) {
        let Listing { group, term, last, commit } = listing;
        let Some(slot) = self.slot_of(group) else { return };
        let Some(leader) = self.replicas[slot].replica_on(self.peers[peer].node) else { return };
        self.step_replica(now, slot, RaftEvent::Listed { leader, term, last, commit });
    }

    /// The page of the list of groups led here with a replica on the peer, from `from` on.
    pub(crate) fn list_page(&self, peer: usize, from: GroupId) -> ClaimPage {
        let node = self.peers[peer].node;
        let mut claims = Vec::new();
        let mut through = GroupId(u64::MAX);
        for (_, slot) in self.replicas.range(from..) {
            let replica = &self.replicas[slot];
            if replica.leads.is_none() || replica.replica_on(node).is_none() {
                continue;
            }
            let raft = &replica.raft;
            let group = replica.descriptor.group;
            claims.push(Listing { group, term: raft.term(), last: raft.last(), commit: raft.committed() });
            if claims.len() == BEACON_PAGE_GROUPS {
                through = group;
                break;
            }
        }
        ClaimPage { from, through, claims }
    }
}

#[cfg(test)]
mod tests {
    use pontoon_types::{ReplicaId, Term};

    use super::*;

    fn page(from: u64, through: u64) -> ClaimPage {
        ClaimPage { from: GroupId(from), through: GroupId(through), claims: Vec::new() }
    }

    #[test]
    fn a_list_is_wanted_at_first_and_read_to_its_end() {
        let mut relist = Relist::default();
        relist.read(Time(0), &page(5, 9));
        assert_eq!(relist.from, Some(GroupId(0)), "a page that was not wanted");
        relist.read(Time(0), &page(0, 9));
        assert_eq!(relist.from, Some(GroupId(10)));
        relist.read(Time(0), &page(10, u64::MAX));
        assert_eq!(relist.from, None);
    }

    #[test]
    fn one_beacon_that_contradicts_is_not_believed_and_two_are() {
        let mut relist = Relist { from: None, ..Relist::default() };
        let mut led = ClaimSummary::default();
        led.add(GroupId(3), ReplicaId(1), Term(2));
        relist.compare(Time(0), led, ClaimSummary::default());
        assert_eq!(relist.from, None);
        relist.compare(Time(0), led, led);
        relist.compare(Time(0), led, ClaimSummary::default());
        assert_eq!(relist.from, None, "an agreement between two contradictions");
        relist.compare(Time(0), led, ClaimSummary::default());
        assert_eq!(relist.from, Some(GroupId(0)));
    }
}
