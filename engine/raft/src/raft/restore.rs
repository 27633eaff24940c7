//! Lost payloads: how a replica behaves whose disk has lost the bytes of some entries, and how it gets them back.
//!
//! A lost entry keeps its identity, index and term, and with it everything that Raft's rules compare: the end of the
//! log, log matching, and the votes that this replica grants. Only the bytes are gone. Therefore:
//!
//! - While a payload is missing the replica does not campaign. It could not send what it has not got. It votes as ever,
//!   so the others can elect one of them; when all replicas miss the same entry nobody leads, and nothing is cut.
//! - An Append that begins behind a missing entry is refused, with the entry before the missing one as the hint. The
//!   leader goes back to there and sends again. An Append that carries the entry under the same identity fills in the
//!   bytes: log matching says that they are the same bytes. One that carries another entry cuts the log there as it
//!   always would.
//! - So the commit index that a leader tells is never believed at or beyond a missing entry, and none is ever applied.
//! - What was filled in is written again ([`pontoon_types::Write::restored`]) and counts as durable, for an
//!   acknowledgement and for the own copy of a leader, when that write is (law 13).
//!
//! # Why nothing committed is lost
//!
//! A commit needs a quorum that holds the entry's identity *and* payload durably at that moment. Rot that comes later takes
//! the payload from a disk and not the identity. A later leader needs votes of a quorum, one of which comes from a
//! replica that holds the identity and votes only for logs at least as good; so the leader's log has the entry, and a
//! leader misses no payload, because it would not have campaigned. Hence leader completeness holds as in the paper, and what
//! the leader sends restores the entry wherever it is lost. If every copy of the bytes is lost there is no leader, which
//! is seen, and not a wrong one, which would not be.
//!
//! On the leader's side a refusal may name a hint below what the peer once acknowledged (`matched`). That
//! acknowledgement was true; the disk has broken it since. The leader lowers `matched` to the hint, so the lost range
//! does not count for any later commit until the peer has acknowledged it anew. A commit index that was reached with its
//! help stays: the identities are still on the quorum, which is all that the argument above needs. An old refusal that
//! arrives late lowers `matched` for nothing; that delays a commit by one exchange and cannot cause one.
//!
//! # Rot that is found while the replica runs
//!
//! A payload that is in memory is written again at once, and no role changes. Until the new copy is durable the log counts
//! as durable only below it, and acknowledgements that wait for an older write wait for this one too.
//!
//! One that has left memory is missing from then on, with all that was said above, though the entry may be committed and
//! applied here. A leader resigns, so that a replica that has the payload leads; acknowledgements that reach the entry
//! are dropped. A follower tells its leader with a refusal that nothing has caused, and says it again as long as the
//! payload does not come. The Append that fills it in is acknowledged as far as the commit index: what is committed here
//! is what the leader has, so it need not send again all that follows.

use pontoon_types::{Body, Entry, Index};

use super::members::put_all;
use super::{Raft, State, Step};
use crate::mutation::Mutation;

impl Raft {
    /// The highest index that an Append may begin behind, when its previous entry is at `previous`: nothing at or
    /// beyond a missing payload.
    pub(super) fn below_missing(&self, previous: Index) -> Index {
        self.lost.first_missing().map_or(previous, |missing| previous.min(missing.previous()))
    }

    /// Fills in the payloads that are missing among these entries, which are in the log under the same identities. Says
    /// whether there were any.
    pub(super) fn restore(&mut self, entries: &[Entry]) -> bool {
        let missing = |entry: &&Entry| self.lost.is_missing(entry.id.index);
        let found: Vec<Entry> = entries.iter().filter(missing).cloned().collect();
        for entry in &found {
            self.log.fill_in(entry);
        }
        put_all(&mut self.members, &found, &[]);
        let restores = !found.is_empty();
        self.write_again(found);
        restores
    }

    /// The disk does not hold the payloads of these entries any more. What is not in the log is of no interest, and what
    /// is missing here already comes from the leader.
    pub(super) fn on_lost(&mut self, step: &mut Step, mut indexes: Vec<Index>) {
        indexes.sort_unstable();
        indexes.dedup();
        let (compacted, last) = (self.log.compacted().index, self.log.last().index);
        indexes.retain(|index| *index > compacted && *index <= last && !self.lost.is_missing(*index));
        let in_memory = indexes.split_off(indexes.partition_point(|index| *index < self.log.first_held()));
        self.write_again_from_memory(step, &in_memory);
        indexes.retain(|index| !self.lost.is_restoring(*index));
        self.miss(step, &indexes);
    }

    fn write_again_from_memory(&mut self, step: &mut Step, indexes: &[Index]) {
        let Some(first) = indexes.first().copied() else { return };
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in indexes.iter().filter_map(|index| self.log.get(*index)).cloned().collect::<Vec<_>>() {
            if !entries.is_empty() && bytes + entry.payload.len() > self.config.append_bytes_max {
                self.write_again(std::mem::take(&mut entries));
                self.flush(step);
                bytes = 0;
            }
            bytes += entry.payload.len();
            entries.push(entry);
        }
        self.write_again(entries);
        self.flush(step);
        self.writes.hold_longer(first);
    }

    /// The payloads of these entries, in rising order, are neither on the disk nor in memory.
    fn miss(&mut self, step: &mut Step, indexes: &[Index]) {
        let Some(first) = indexes.first().copied() else { return };
        indexes.iter().for_each(|index| self.lost.miss(*index));
        self.writes.withdraw_acknowledgements(first);
        if !matches!(self.state, State::Follower { .. }) && !self.config.mutated(Mutation::LeadWithoutPayloads) {
            self.wait_for_election(step);
        }
        self.ask_for_payloads(step);
    }

    /// Asks again when it is time.
    pub(super) fn ask_when_due(&mut self, step: &mut Step) {
        if self.ask_by.is_some_and(|time| time <= step.now) {
            self.ask_for_payloads(step);
        }
    }

    /// Tells the leader, if one is known, which entry is the last before a missing one, and when to do so again. A leader
    /// that comes later asks by itself.
    pub(super) fn ask_for_payloads(&mut self, step: &mut Step) {
        self.ask_by = None;
        let Some(missing) = self.lost.first_missing() else { return };
        let State::Follower { leader: Some(leader), .. } = self.state else { return };
        let (refused, hint) = (self.log.last().index, self.log.id_at(missing.previous()));
        self.promise(step, leader, Body::AppendRefused { refused, hint });
        self.ask_by = Some(step.now + self.config.retry_interval);
    }

    fn write_again(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let indexes: Vec<Index> = entries.iter().map(|entry| entry.id.index).collect();
        let number = self.writes.restore(entries);
        for index in indexes {
            self.lost.restore(index, number);
        }
    }
}
