//! How much of the logs of all groups is in memory.
//!
//! Each group keeps a window of its newest entries (`pontoon-raft`), up to a limit of its own. A core with very many
//! groups needs a limit for all of them together: when it is passed, a hand goes around over the groups, and each that it
//! reaches lets go of everything that may leave memory. Groups that are written to fill their window again; what an idle
//! group has held is not missed, and is fetched from the log if a peer asks for it after all.
//!
//! What may not leave is bounded otherwise: what is proposed and not committed by the limits of each group, what is not
//! durable by the log, and what is not applied by the turns that apply it.

use pontoon_raft::Event as RaftEvent;
use pontoon_types::Time;
use pontoon_types::limits::SHED_GROUPS_PER_TURN;

use crate::Core;
use crate::replica::Slot;
use crate::replicas::Replicas;

/// The windows of all groups.
///
/// Invariant: `window_bytes` is the sum over all replicas.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) window_bytes: usize,
    /// The group that the hand points at.
    hand: Slot,
    /// Groups in a row that had nothing to let go of.
    in_vain: usize,
}

impl Memory {
    pub(crate) fn of(replicas: &Replicas) -> Memory {
        let window_bytes = replicas.iter().map(|replica| replica.raft.window_bytes()).sum();
        Memory { window_bytes, hand: 0, in_vain: 0 }
    }

    /// The window of one group takes so many bytes now.
    pub(crate) fn changed(&mut self, before: usize, after: usize) {
        self.window_bytes = self.window_bytes + after - before;
    }
}

impl Core {
    /// The memory that the entries of all groups take, bytes.
    pub fn window_bytes(&self) -> usize {
        self.memory.window_bytes
    }

    /// Whether another turn would bring the windows nearer to their limit.
    pub(crate) fn is_shedding(&self) -> bool {
        self.memory.window_bytes > self.config.window_bytes_max && self.memory.in_vain < self.replicas.slots()
    }

    /// Lets some groups go of what may leave memory, if all of them hold too much.
    pub(crate) fn shed(&mut self, now: Time) {
        for _ in 0..SHED_GROUPS_PER_TURN.min(self.replicas.slots()) {
            let before = self.memory.window_bytes;
            if before <= self.config.window_bytes_max {
                self.memory.in_vain = 0;
                return;
            }
            let slot = self.memory.hand % self.replicas.slots();
            self.memory.hand = slot + 1;
            if self.replicas.get(slot).is_some_and(|replica| replica.raft.window_bytes() > 0) {
                self.step_replica(now, slot, RaftEvent::Shed);
            }
            let has_shed = self.memory.window_bytes < before;
            self.memory.in_vain = if has_shed { 0 } else { self.memory.in_vain + 1 };
        }
    }
}
