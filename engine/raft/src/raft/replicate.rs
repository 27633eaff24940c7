//! The leader's side of replication.
//!
//! A proposal is written and sent in the same step: the leader's disk and its followers work at the same time, and an
//! entry is committed as soon as any quorum of voters holds it durably, with or without the leader. A peer that
//! replicates is sent to at once, within its limits; a peer that is probed gets one small message at a time.
//!
//! The commit index rides on the next Append. When none comes within the commit delay, an empty one carries it. After
//! that nothing is left to do, and the leader sleeps.

use bytes::Bytes;
use pontoon_types::{Body, Entry, Index, LogId, Message, ReplicaId, Term};

use super::{Raft, State, Step, fetch};
use crate::log::Log;
use crate::mutation::Mutation;
use crate::progress::{Mode, Progress};
use crate::{Config, Effect};

/// Most payload bytes in a probe. Where the logs agree is often found with the first probe, and then a few small
/// entries save a round; sending more to a peer that may not answer would be waste.
const PROBE_BYTES_MAX: usize = 1 << 10;

/// Most entries in a probe.
const PROBE_ENTRIES_MAX: usize = 8;

impl Raft {
    pub(super) fn propose(&mut self, step: &mut Step, payloads: Vec<Bytes>) {
        let State::Leader(leadership) = &mut self.state else {
            panic!("proposals are made to a leader only, after admit() in the same turn");
        };
        if payloads.is_empty() {
            return;
        }
        leadership.uncommitted_bytes += payloads.iter().map(Bytes::len).sum::<usize>();
        let term = self.hard_state.term;
        let first = self.log.last().index.0 + 1;
        let entry = |(index, payload)| Entry::command(LogId::new(Index(index), term), payload);
        self.append_own((first..).zip(payloads).map(entry).collect());
        self.flush(step);
        self.replicate_all(step);
        if self.config.mutated(Mutation::CommitAloneEarly) {
            self.advance_commit(step);
        }
    }

    /// Appends entries of the own term to the log and to the write of this step.
    pub(super) fn append_own(&mut self, entries: Vec<Entry>) {
        self.log.append(&entries);
        self.writes.append(entries);
    }

    pub(super) fn replicate_all(&mut self, step: &mut Step) {
        for position in 0..self.peers() {
            self.replicate(step, position);
        }
    }

    /// How many peers this leader has.
    pub(super) fn peers(&self) -> usize {
        match &self.state {
            State::Leader(leadership) => leadership.peers.len(),
            _ => 0,
        }
    }

    /// Sends the peer at `position` all that its limits allow, or notes when to tell it the commit index. What has left
    /// memory is fetched first.
    pub(super) fn replicate(&mut self, step: &mut Step, position: usize) {
        let Raft { config, log, state: State::Leader(leadership), .. } = self else { return };
        let peer = &mut leadership.peers[position];
        if peer.mode != Mode::Replicate || peer.unreachable {
            return;
        }
        let last = log.last().index;
        while peer.next <= last && !peer.is_full(config) {
            if peer.next < log.first_held() {
                return self.fetch_for_peer(step, position);
            }
            let entries = log.cut(peer.next, config.append_entries_max, config.append_bytes_max, 1);
            send_append(step, config, (self.me, self.hard_state.term), log, peer, entries);
        }
        if peer.next > last && peer.told < log.committed() && !peer.is_full(config) {
            peer.tell_by.get_or_insert(step.now + config.commit_delay);
        }
    }

    /// Sends the peer at `position` the entries that were fetched for it.
    pub(super) fn send_fetched(&mut self, step: &mut Step, position: usize, mut entries: Vec<Entry>) {
        let Raft { config, log, state: State::Leader(leadership), .. } = self else { return };
        let peer = &mut leadership.peers[position];
        while !entries.is_empty() && !peer.is_full(config) {
            let piece = fetch::take_piece(config, &mut entries);
            send_append(step, config, (self.me, self.hard_state.term), log, peer, piece);
        }
    }

    /// Sends the peer at `position` a probe: a small Append after the last entry that may be in its log.
    pub(super) fn send_probe(&mut self, step: &mut Step, position: usize) {
        let Raft { config, log, state: State::Leader(leadership), .. } = self else { return };
        let peer = &mut leadership.peers[position];
        let entries_max = config.append_entries_max.min(PROBE_ENTRIES_MAX);
        let bytes_max = config.append_bytes_max.min(PROBE_BYTES_MAX);
        let entries = log.cut(peer.next, entries_max, bytes_max, 0);
        send_append(step, config, (self.me, self.hard_state.term), log, peer, entries);
    }

    pub(super) fn on_append_response(&mut self, step: &mut Step, from: ReplicaId, matched: Index) {
        let Some(position) = self.peer_position(from) else { return };
        let State::Leader(leadership) = &mut self.state else { return };
        let peer = &mut leadership.peers[position];
        if peer.mode != Mode::Replicate && matched < self.log.compacted().index {
            // That the logs agree so far says nothing about where to go on. The answer to the probe will.
            peer.matched = peer.matched.max(matched);
            return;
        }
        if !peer.acknowledge(step.now, self.config.retry_interval, matched) {
            return;
        }
        self.advance_commit(step);
        // The commit may have changed who is a peer, or ended the leadership.
        if let Some(position) = self.peer_position(from) {
            self.replicate(step, position);
        }
        self.review_departure(step);
        self.review_transfer(step);
    }

    /// The logs differ, or something between was lost: goes back to the last place at which they can agree. A refused probe
    /// says what the peer holds now, even if it held more before.
    pub(super) fn on_append_refused(&mut self, step: &mut Step, from: ReplicaId, refused: Index, hint: LogId) {
        let Some(position) = self.peer_position(from) else { return };
        let State::Leader(leadership) = &mut self.state else { return };
        let peer = &mut leadership.peers[position];
        if !peer.is_current_refusal(refused) {
            return;
        }
        let agreed = self.log.last_not_above(hint.index.min(refused.previous()), hint.term);
        let next = match agreed {
            None if peer.mode != Mode::Replicate => return self.await_snapshot(step, position, hint),
            None => self.log.compacted().index.next(),
            Some(agreed) => agreed.index.next(),
        };
        if peer.mode != Mode::Replicate && !self.config.mutated(Mutation::CountLostPayloads) {
            peer.holds_only(next.previous());
        }
        peer.start_probe(next);
        self.send_probe(step, position);
    }

    pub(super) fn on_leader_timer(&mut self, step: &mut Step) {
        self.review_departure(step);
        self.give_up_transfer(step);
        for position in 0..self.peers() {
            let State::Leader(leadership) = &mut self.state else { return };
            let peer = &mut leadership.peers[position];
            if peer.unreachable {
                continue;
            }
            if peer.answer_by.is_some_and(|time| time <= step.now) {
                self.retry(step, position);
            } else if peer.tell_by.is_some_and(|time| time <= step.now) {
                self.tell_commit(step, position);
            }
        }
    }

    /// Sends a peer that replicates the commit index alone, if no entry will carry it.
    pub(super) fn tell_commit(&mut self, step: &mut Step, position: usize) {
        let State::Leader(leadership) = &mut self.state else { return };
        let peer = &mut leadership.peers[position];
        peer.tell_by = None;
        // A peer to which entries wait is full, and the first one of them will carry the commit index.
        if peer.mode == Mode::Replicate && peer.next > self.log.last().index && !peer.is_full(&self.config) {
            let id = (self.me, self.hard_state.term);
            send_append(step, &self.config, id, &self.log, peer, Vec::new());
        }
    }

    pub(super) fn on_peer_up(&mut self, step: &mut Step, peer: ReplicaId) {
        let Some(position) = self.peer_position(peer) else { return };
        let State::Leader(leadership) = &self.state else { return };
        let peer = &leadership.peers[position];
        if peer.answer_by.is_some() || peer.unreachable {
            self.retry(step, position);
        }
    }

    /// Sending waits for [`crate::Event::PeerUp`].
    pub(super) fn on_peer_down(&mut self, peer: ReplicaId) {
        let Some(position) = self.peer_position(peer) else { return };
        let State::Leader(leadership) = &mut self.state else { return };
        leadership.peers[position].unreachable = true;
    }

    pub(super) fn on_peer_restarted(&mut self, step: &mut Step, peer: ReplicaId) {
        if let Some(position) = self.peer_position(peer) {
            self.retry(step, position);
        }
    }

    /// Probes a peer from where its log is known to agree, or again from where it may.
    pub(super) fn retry(&mut self, step: &mut Step, position: usize) {
        let State::Leader(leadership) = &mut self.state else { return };
        let peer = &mut leadership.peers[position];
        let next = match peer.mode {
            Mode::Probe => peer.next,
            Mode::Replicate => peer.matched.next(),
            Mode::Snapshot => Index(0),
        };
        peer.start_probe(next.max(self.log.compacted().index.next()));
        self.send_probe(step, position);
    }

    /// Commits what a quorum holds, if it is of the own term: an entry of an older term can be replaced even if a
    /// quorum holds it (the paper's figure 8), and is committed together with the first own entry behind it.
    pub(super) fn advance_commit(&mut self, step: &mut Step) {
        let index = self.held_by_quorum();
        let State::Leader(leadership) = &mut self.state else { return };
        let committed = self.log.committed();
        let of_own_term = index >= leadership.start || self.config.mutated(Mutation::CommitOldTerm);
        if index <= committed || !of_own_term {
            return;
        }
        let released = self.log.held(leadership.start.max(committed.next()), index);
        leadership.uncommitted_bytes -= released.map(|entry| entry.payload.len()).sum::<usize>();
        self.commit(index);
        self.replicate_all(step);
        self.review_members(step);
    }

    /// The place of a peer in the leader's list.
    pub(super) fn peer_position(&self, peer: ReplicaId) -> Option<usize> {
        let State::Leader(leadership) = &self.state else { return None };
        leadership.peers.iter().position(|progress| progress.id == peer)
    }
}

/// Sends `entries`, which start at the peer's next index, and notes that they wait for an answer.
fn send_append(
    step: &mut Step,
    config: &Config,
    (from, term): (ReplicaId, Term),
    log: &Log,
    peer: &mut Progress,
    entries: Vec<Entry>,
) {
    let previous = log.id_at(peer.next.previous());
    let commit = log.committed();
    let covered = Index(previous.index.0 + entries.len() as u64);
    let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
    peer.sent(step.now + config.retry_interval, covered, bytes, commit);
    let body = Body::Append { previous, entries, commit };
    step.effects.push(Effect::Send(Message { from, to: peer.id, term, body }));
}
