//! Snapshots: a durable checkpoint takes the place of the beginning of the log, or of all of it (law 18).
//!
//! The caller takes a snapshot of the group in, makes it the durable checkpoint of this replica, and says so
//! ([`Event::Install`](crate::Event::Install)). What a snapshot holds is committed, whoever sent it and in whatever term, so
//! it is safe to take:
//!
//! - at or below the commit index it is ignored, because the replica has all of it; unless it has lost a payload that it
//!   did not apply before, and that nobody may have any more but in a snapshot;
//! - if the log holds its last entry, what stands behind that is kept, because logs that share an entry share all before
//!   it;
//! - else the log contradicts it or ends before it. Nothing of it is committed behind the commit index, so it is reset to the
//!   snapshot's position, with the members as of there. Entries that the snapshot covers do not say any more who is a
//!   member, not even if they stood in the log.
//!
//! The reset is a write like any other, and the leader hears of it when it is durable (law 13). A crash before that finds
//! a checkpoint that the log does not hold, and does the same again at the start.
//!
//! # Without a state
//!
//! A replica whose log has given entries up and whose checkpoint cannot be read has a log and no state. It votes, since
//! its log says how good it is; it does not campaign, and instead of taking entries, which it could not apply, it says that
//! it wants a snapshot ([`Effect::WantsSnapshot`](crate::Effect::WantsSnapshot)). One at or behind what it has given up
//! helps it.
//!
//! A replica whose machine cannot read the next committed entry, as after a start with an older build, needs a snapshot at
//! that entry or behind it. It has a state and a log, so it takes entries and acknowledges them: a leader that can read the
//! entry commits with its help. Its caller knows when to ask whom for the snapshot. Where no replica can read the entry the
//! group stands still, and no other does.

use pontoon_types::{HardState, Index, LogId, ReplicaId};

use super::fetch::Machine;
use super::{Raft, State, Step};
use crate::Effect;
use crate::durable::Writes;
use crate::log::Log;
use crate::membership::Configuration;
use crate::mutation::Mutation;

/// Brings the log together with a checkpoint that it may not hold, at the start.
pub(super) fn recover(
    log: &mut Log,
    writes: &mut Writes,
    hard_state: &mut HardState,
    lost: &mut Vec<Index>,
    settled: LogId,
) {
    if settled == log.compacted() {
        return;
    }
    let holds = log.holds(settled);
    if holds {
        log.commit(settled.index);
        log.compact(settled.index);
    } else {
        log.reset(settled);
        lost.clear();
        if settled.term > hard_state.term {
            *hard_state = HardState { term: settled.term, vote: None };
            writes.hard_state(*hard_state);
        }
    }
    writes.install(settled, !holds);
}

impl Raft {
    /// Whether a snapshot at this entry would give the replica something that it needs and its log has not.
    pub fn wants_snapshot(&self, last: LogId) -> bool {
        if matches!(self.state, State::Leader(_)) {
            return false;
        }
        if let Some(least) = self.needs_snapshot_at {
            return last.index >= least;
        }
        let missing = self.lost.first_missing().filter(|missing| *missing <= last.index);
        let is_known = match last.index <= self.log.committed() {
            // What was applied before it was lost is in the state.
            true => missing.is_none_or(|missing| missing <= self.machine.applied),
            false => self.log.holds(last) && missing.is_none(),
        };
        !is_known || self.config.mutated(Mutation::InstallBelowCommitted)
    }

    /// Where a snapshot has to reach for the machine to go on, if it cannot from the log: behind what is applied if the
    /// next entry cannot be read, at what the log has given up if the state is lost.
    pub fn needs_snapshot_at(&self) -> Option<Index> {
        self.needs_snapshot_at
    }

    pub(super) fn on_install(&mut self, step: &mut Step, last: LogId, configuration: Configuration) {
        if !self.wants_snapshot(last) {
            return self.on_known(step, last);
        }
        if !matches!(self.state, State::Follower { .. }) {
            self.wait_for_election(step);
        }
        if last.term > self.hard_state.term {
            self.adopt(step, last.term);
        }
        let holds = self.log.holds(last) && !self.config.mutated(Mutation::DropKeptSuffix);
        if holds {
            self.log.commit(self.log.committed().max(last.index));
            self.log.compact(last.index);
            self.lost.compact(last.index);
        } else {
            self.log.reset(last);
            self.lost.clear();
        }
        if !self.config.mutated(Mutation::IgnoreSnapshotMembers) {
            if !holds {
                self.members.forget_behind(last.index);
            }
            self.members.settle(last.index, configuration);
            self.members.commit(self.log.committed());
        }
        self.writes.install(last, !holds);
        self.machine = Machine { applied: last.index, handed: last.index, fetch: None };
        self.needs_snapshot_at = None;
        self.flush(step);
        self.acknowledge_snapshot(step, last);
    }

    /// The log holds what a leader has a snapshot of, so that much is committed.
    pub(super) fn on_known(&mut self, step: &mut Step, last: LogId) {
        let whole = self.lost.first_missing().is_none_or(|missing| missing > last.index);
        if self.needs_snapshot_at.is_some() || matches!(self.state, State::Leader(_)) || !self.log.holds(last) || !whole
        {
            return;
        }
        if last.index > self.log.committed() {
            self.commit(last.index);
        }
        self.acknowledge_snapshot(step, last);
    }

    /// Lets the leader go on behind the snapshot.
    fn acknowledge_snapshot(&mut self, step: &mut Step, last: LogId) {
        if let Some(leader) = self.leader()
            && self.knows_its_term()
        {
            self.acknowledge(step, leader, last.index, true);
        }
    }

    pub(super) fn on_peer_is_stateless(&mut self, step: &mut Step, peer: ReplicaId) {
        if let Some(position) = self.peer_position(peer) {
            self.await_snapshot(step, position, LogId::default());
        }
    }

    pub(super) fn on_state_lost(&mut self, step: &mut Step) {
        self.park(step, self.log.compacted().index);
        self.want_snapshot(step);
    }

    pub(super) fn on_unreadable(&mut self, step: &mut Step) {
        let next = self.machine.applied.next();
        assert!(next <= self.log.committed(), "law: only what is committed is read by the machine, and {next} is not");
        self.park(step, next);
    }

    /// Who leads, or wants to, has to go: it could not say what its own log comes to.
    fn park(&mut self, step: &mut Step, least: Index) {
        self.needs_snapshot_at = Some(least);
        self.machine.fetch = None;
        if !matches!(self.state, State::Follower { .. }) {
            self.wait_for_election(step);
        }
    }

    /// Whether entries are of use. Says that a snapshot is wanted if they are not.
    pub(super) fn can_take_entries(&self, step: &mut Step) -> bool {
        let has_state = self.needs_snapshot_at.is_none_or(|least| least > self.machine.applied);
        if !has_state {
            self.want_snapshot(step);
        }
        has_state
    }

    /// Says so to the leader, if there is one. One that comes later asks by itself.
    pub(super) fn want_snapshot(&self, step: &mut Step) {
        if let State::Follower { leader: Some(leader), .. } = self.state {
            step.effects.push(Effect::WantsSnapshot { leader });
        }
    }
}
