//! Leases, seen from above: while one leader would serve reads alone, nobody else leads the group in a later term.
//!
//! That is more than clients can see. A stale read needs a write at the new leader and a read at the old one in the same
//! moment; here it is enough that both could happen.

use pontoon_multiraft::Role;
use pontoon_types::{GroupId, Term};

use crate::trace::Place;
use crate::violation::Broken;
use crate::world::World;

impl World {
    /// A turn of `place` is over: its groups have at most one leader that counts.
    pub(crate) fn check_leases(&self, place: Place) -> Result<(), Broken> {
        if !self.options.leases {
            return Ok(());
        }
        // With time leases only end, so a turn of one that does not lead brings no second leader about.
        let mut led = self.cores[&place].core.groups().filter(|view| view.role() == Role::Leader);
        led.try_for_each(|view| self.check_lease(place, view.group()))
    }

    fn check_lease(&self, place: Place, group: GroupId) -> Result<(), Broken> {
        let mut newest: Option<(Term, Place)> = None;
        let mut holder: Option<(Term, Place)> = None;
        for (at, running) in self.cores.iter().filter(|(at, _)| at.core == place.core) {
            let Some(view) = running.core.group(group) else { continue };
            if view.role() != Role::Leader {
                continue;
            }
            newest = newest.max(Some((view.term(), *at)));
            // It drops its leases before it uses a time from after the jump.
            if running.clock_jumped {
                continue;
            }
            let local = self.nodes[&at.node].clock.local(self.queue.now());
            if running.core.holds_lease(local, group) && holder.is_none_or(|(term, _)| term > view.term()) {
                holder = Some((view.term(), *at));
            }
        }
        match (holder, newest) {
            (Some((term, holder)), Some((later, leader))) if term < later => {
                Err(Broken::LeaseBroken { group, holder, term, leader, later })
            }
            _ => Ok(()),
        }
    }
}
