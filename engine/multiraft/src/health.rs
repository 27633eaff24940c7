//! How well a core does, and who should lead when it does badly (law 10).
//!
//! A core measures two things of itself and says them in every beacon: how late its last beacon was, which is how long its
//! turns keep others waiting, and the age of the oldest append that is not durable. Nothing is done about a single bad
//! moment. A core that has been late for several beacons in a row gives up those groups that others can lead better, and
//! better is measured too: a quorum of the other members must have said of themselves for as long that they do well. A
//! machine that all share slows everybody down, and then nothing moves.
//!
//! A sync that does not end at all is a stall and is dealt with sooner (`stall`).

use std::time::Duration;

use pontoon_types::{NodeId, Time};
use pontoon_wire::peer::Health;

use crate::Core;

/// How many beacons in a row make a good or a bad state.
const STEADY_BEACONS: u32 = 5;

/// A core whose beacons are this late does badly: a part of what its peers wait for before they take it for gone.
const LATE: Duration = Duration::from_millis(250);

/// A core that does well is this much better than one that does badly.
const CONTRAST: u32 = 8;

/// What a core knows of its own health.
#[derive(Debug, Default)]
pub(crate) struct OwnHealth {
    turn_lag: Duration,
    late_for: u32,
}

impl Core {
    /// What this core says of itself.
    pub(crate) fn health(&self, now: Time) -> Health {
        let sync_age = self.oldest_append().map_or(Duration::ZERO, |since| now.since(since));
        Health { turn_lag_ms: milliseconds(self.liveness.health.turn_lag), sync_age_ms: milliseconds(sync_age) }
    }

    /// What a peer says of itself.
    pub(crate) fn hear_health(&mut self, peer: usize, health: Health) {
        let well = milliseconds(LATE) / CONTRAST;
        let hearing = &mut self.peers[peer].hearing;
        hearing.well_for =
            if health.turn_lag_ms <= well && health.sync_age_ms <= well { hearing.well_for + 1 } else { 0 };
    }

    /// A beacon is due since `due`. Gives up what others can lead better, if this core has been late for long enough.
    pub(crate) fn review_health(&mut self, now: Time, due: Time) {
        let own = &mut self.liveness.health;
        own.turn_lag = now.since(due);
        own.late_for = if own.turn_lag >= LATE { own.late_for + 1 } else { 0 };
        if own.late_for < STEADY_BEACONS {
            return;
        }
        own.late_for = 0;
        let does_well = |node: NodeId| {
            let peer = self.peer_of(node).map(|peer| &self.peers[peer].hearing);
            peer.is_some_and(|hearing| hearing.supported_until > now && hearing.well_for >= STEADY_BEACONS)
        };
        let better = self.led_without(does_well);
        self.give_up(now, &better);
    }
}

/// Whole milliseconds, at most what the wire can say.
pub(crate) fn milliseconds(span: Duration) -> u32 {
    span.as_millis().try_into().unwrap_or(u32::MAX)
}
