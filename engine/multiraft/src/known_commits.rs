//! What a start knows to be committed.
//!
//! A log remembers how far the entries in it were known to be committed ([`pontoon_types::Write::committed`]). Without that a
//! start would take all behind the last checkpoint for undecided until a leader commits an entry of its own term; and when the
//! logs of all nodes are full of such entries no leader could, because nothing can be given up before it is applied.
//!
//! What is committed never changes, so replicas go on from there before anything was heard. Applying takes time and memory for
//! what is read back, so few groups begin in one turn. A group that has heard more meanwhile is not slowed down by it.

use pontoon_raft::Event as RaftEvent;
use pontoon_types::{GroupId, Index, LogId, Time};

use crate::Core;

/// Most groups that are told in one turn what they knew.
const GROUPS_PER_TURN: usize = 256;

/// The groups that have not been told yet, and what they knew; in falling order of groups, as they are taken from the end.
#[derive(Debug, Default)]
pub(crate) struct KnownCommits {
    waiting: Vec<(GroupId, Index)>,
}

impl KnownCommits {
    /// What the logs remember of these groups.
    pub(crate) fn of(mut waiting: Vec<(GroupId, Index)>) -> KnownCommits {
        waiting.sort_unstable_by(|one, next| next.cmp(one));
        waiting.shrink_to_fit();
        KnownCommits { waiting }
    }

    /// Whether there is something to go on with.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Core {
    /// Tells the next groups what they knew.
    pub(crate) fn recall_commits(&mut self, now: Time) {
        for _ in 0..GROUPS_PER_TURN {
            let Some((group, index)) = self.known_commits.waiting.pop() else { return };
            let Some(slot) = self.replicas.slot_of(group) else { continue };
            let raft = &self.replicas[slot].raft;
            // What misses a payload waits for it.
            let whole = raft.missing().next().map_or(index, |missing| index.min(missing.previous()));
            let index = whole.min(raft.last().index);
            if index > raft.committed()
                && let Ok(term) = raft.term_at(index)
            {
                self.step_replica(now, slot, RaftEvent::Known(LogId::new(index, term)));
            }
        }
        if self.known_commits.is_empty() {
            self.known_commits = KnownCommits::default();
        }
    }
}
