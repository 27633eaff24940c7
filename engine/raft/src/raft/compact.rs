//! Giving up the beginning of the log (law 19).
//!
//! The caller says up to where, once a durable checkpoint of the machine covers it. What is given up is applied and
//! durable, so nothing that anybody counts on goes with it. A peer that turns out to need it cannot be sent the log any
//! more: it waits until somebody gives it a snapshot ([`Effect::NeedsSnapshot`](crate::Effect::NeedsSnapshot)), and is
//! probed now and then, since it may have been helped otherwise.
//!
//! Left out: making and sending snapshots, which is the caller's business. `raft/install.rs` takes one in.

use pontoon_types::{Index, LogId};

use super::{Raft, State, Step};
use crate::Effect;

/// How many retry intervals a peer that needs a snapshot is left alone. Long enough that it costs nothing, short enough
/// that an operator who has helped it need not wait.
const SNAPSHOT_WAIT_FACTOR: u32 = 40;

impl Raft {
    pub(super) fn on_compact(&mut self, step: &mut Step, to: Index) {
        if to <= self.log.compacted().index {
            return;
        }
        let (applied, durable) = (self.machine.applied, self.writes.durable_index());
        assert!(to <= applied.min(durable), "law 19: {to} is given up, {applied} is applied and {durable} durable");
        self.log.compact(to);
        self.lost.compact(to);
        self.writes.compact(self.log.compacted());
        self.flush(step);
        for position in 0..self.peers() {
            let State::Leader(leadership) = &self.state else { return };
            if leadership.peers[position].next <= to {
                self.retry(step, position);
            }
        }
    }

    /// The peer at `position`, whose log agrees with this one at `hint` at best, needs what is compacted.
    pub(super) fn await_snapshot(&mut self, step: &mut Step, position: usize, hint: LogId) {
        let State::Leader(leadership) = &mut self.state else { return };
        let (peer, compacted) = (&mut leadership.peers[position], self.log.compacted());
        peer.holds_only(hint.index.min(compacted.index.previous()));
        peer.await_snapshot(compacted.index.next(), step.now + self.config.retry_interval * SNAPSHOT_WAIT_FACTOR);
        step.effects.push(Effect::NeedsSnapshot { peer: peer.id, compacted });
    }
}
