//! What a leader knows about one peer.
//!
//! A peer is *probed* while the leader does not know where the two logs agree: one small Append at a time, and the
//! next one only after an answer or after the retry interval. Once a probe is acknowledged the peer is *replicated*
//! to: Appends leave as soon as there are entries, without waiting for answers, up to a limit of messages and of
//! bytes. A refusal or a missing answer leads back to probing.
//!
//! Every Append is answered once, or is covered by the answer to a later one, so a peer without unanswered messages
//! has received the last commit index sent to it. A peer whose disk hangs answers repetitions of an Append once for
//! all; a retry forgets what it repeats, so one answer is what the leader waits for. There is one gap: if the retry sent a message twice, its second
//! answer can be taken for that of a later empty Append. Should exactly that Append be lost, the peer learns the
//! commit index only with the next entry. Nothing unsafe follows.
//!
//! What a peer needs may have left the leader's memory. It then waits for a *fetch* from the log, one at a time
//! (`raft/fetch.rs`). If the leader has given it up altogether, the peer waits for a *snapshot*: nothing is sent, and after a
//! while it is probed again.
//!
//! What a peer holds may become less: its disk has lost payloads that it had acknowledged (`raft/restore.rs`). Then it
//! refuses even a probe that begins where it is known to match, and only such a refusal lowers `matched`.

use std::collections::VecDeque;
use std::time::Duration;

use pontoon_types::{FetchNumber, Index, ReplicaId, Time};

use crate::Config;

/// How the peer is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One small Append at a time, to find where the logs agree.
    Probe,
    /// As many as the limits allow.
    Replicate,
    /// Not at all until the peer has been given what the leader's log does not hold any more.
    Snapshot,
}

/// An Append without an answer.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The last index it covers.
    last: Index,
    bytes: usize,
}

/// The state of one peer.
///
/// Invariants:
/// - `matched < next`, and `next` is at most one beyond the leader's log;
/// - what is in flight is ordered by its last index, which is at least `matched`, and below `next` when replicating;
/// - a probed peer has exactly one message in flight, and one that waits for a snapshot none;
/// - `answer_by` is set exactly while something is in flight or a snapshot is waited for, `tell_by` and `fetch` only while
///   the peer replicates.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: ReplicaId,
    /// The peer holds the leader's log durably up to here.
    pub(crate) matched: Index,
    /// The first index to send.
    pub(crate) next: Index,
    pub(crate) mode: Mode,
    /// The highest commit index that the peer knows once all that was sent is answered.
    pub(crate) told: Index,
    /// When to probe again if no answer comes, or no snapshot.
    pub(crate) answer_by: Option<Time>,
    /// When to send the commit index alone if no entry comes.
    pub(crate) tell_by: Option<Time>,
    /// The entries from `next` on are being fetched under this number.
    pub(crate) fetch: Option<FetchNumber>,
    /// Nothing reaches the peer: nothing is sent and no answer is waited for.
    pub(crate) unreachable: bool,
    inflight: VecDeque<Sent>,
    inflight_bytes: usize,
}

impl Progress {
    /// A peer about which nothing is known. Its log may agree with all that came before `next`.
    pub(crate) fn new(id: ReplicaId, next: Index) -> Progress {
        Progress {
            id,
            matched: Index(0),
            next,
            mode: Mode::Probe,
            told: Index(0),
            answer_by: None,
            tell_by: None,
            fetch: None,
            unreachable: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// Whether nothing was ever sent to it.
    pub(crate) fn is_new(&self) -> bool {
        self.mode == Mode::Probe && self.answer_by.is_none()
    }

    /// Whether a limit forbids another message. The bytes may be exceeded by less than one message.
    pub(crate) fn is_full(&self, config: &Config) -> bool {
        self.inflight.len() >= config.inflight_messages_max || self.inflight_bytes >= config.inflight_bytes_max
    }

    /// When this peer needs the leader next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match (self.answer_by, self.tell_by) {
            _ if self.unreachable => None,
            (Some(answer), Some(tell)) => Some(answer.min(tell)),
            (answer, tell) => answer.or(tell),
        }
    }

    /// The peer holds the log no further than this any more, whatever it acknowledged before.
    pub(crate) fn holds_only(&mut self, index: Index) {
        self.matched = self.matched.min(index);
    }

    /// Forgets what was sent and goes on from `next`, carefully.
    pub(crate) fn start_probe(&mut self, next: Index) {
        self.mode = Mode::Probe;
        self.unreachable = false;
        self.next = next.max(self.matched.next());
        self.told = Index(0);
        self.answer_by = None;
        self.tell_by = None;
        self.fetch = None;
        self.inflight = VecDeque::new();
        self.inflight_bytes = 0;
    }

    /// Sends nothing until `until`, when the peer is probed from `next` on.
    pub(crate) fn await_snapshot(&mut self, next: Index, until: Time) {
        self.start_probe(next);
        self.mode = Mode::Snapshot;
        self.answer_by = Some(until);
    }

    /// An Append has left that covers the log up to `last` and carries `commit`. An answer is due by `answer_by`,
    /// unless an older one is due before. A probe does not move `next`: what it carries may be sent again.
    pub(crate) fn sent(&mut self, answer_by: Time, last: Index, bytes: usize, commit: Index) {
        if self.inflight.capacity() == 0 {
            // Most groups send one message at a time.
            self.inflight.reserve_exact(1);
        }
        self.inflight.push_back(Sent { last, bytes });
        self.inflight_bytes += bytes;
        self.told = self.told.max(commit.min(last));
        self.tell_by = None;
        self.answer_by.get_or_insert(answer_by);
        if self.mode == Mode::Replicate {
            self.next = last.next();
        }
    }

    /// The peer holds the log up to `matched`. Says whether that was news.
    pub(crate) fn acknowledge(&mut self, now: Time, retry_interval: Duration, matched: Index) -> bool {
        if matched < self.matched {
            return false;
        }
        let moved = matched > self.matched;
        self.matched = matched;
        let before = self.inflight.len();
        // Messages that end below `matched` are covered by it. Of those that end exactly there, one is answered: the
        // other may be an empty Append with a later commit index, which has an answer of its own.
        while let Some(sent) = self.inflight.front().copied().filter(|sent| sent.last <= matched) {
            self.inflight.pop_front();
            self.inflight_bytes -= sent.bytes;
            if sent.last == matched {
                break;
            }
        }
        let answered = self.inflight.len() < before;
        if self.mode != Mode::Replicate {
            // An answer to something older than the probe also shows where the logs agree, but the commit index that
            // the probe carries may still be lost.
            let told = if answered { self.told } else { Index(0) };
            self.start_probe(matched.next());
            self.mode = Mode::Replicate;
            self.told = told;
            return true;
        }
        if self.next <= matched {
            // What is being fetched is there already, from before it was probed last.
            self.next = matched.next();
            self.fetch = None;
        }
        if self.inflight.is_empty() {
            self.answer_by = None;
            // A group at rest keeps no room for what it may send one day.
            self.inflight = VecDeque::new();
        } else if answered {
            self.answer_by = Some(now + retry_interval);
        }
        moved || answered
    }

    /// Whether a refusal of an Append after `refused` is about what the leader believes now. One of an Append right after
    /// `matched` is believed as well: the peer may have lost what it had.
    pub(crate) fn is_current_refusal(&self, refused: Index) -> bool {
        match self.mode {
            _ if refused == Index(0) => false,
            Mode::Probe | Mode::Snapshot => refused == self.next.previous(),
            Mode::Replicate => refused >= self.matched && refused < self.next,
        }
    }

    /// Whether the peer has been told, for sure, that everything up to `index` is committed.
    pub(crate) fn knows(&self, index: Index) -> bool {
        self.told >= index && self.inflight.is_empty()
    }

    /// Panics when an invariant of the type does not hold.
    pub(crate) fn check(&self, log_last: Index, committed: Index, config: &Config) {
        assert!(self.matched < self.next, "matched < next of {}", self.id);
        assert!(self.next <= log_last.next(), "next ≤ last + 1 of {}", self.id);
        assert!(self.told <= committed, "{} is told no more than is committed", self.id);
        assert!(self.inflight.len() <= config.inflight_messages_max, "inflight_messages_max holds for {}", self.id);
        let mut previous = self.matched;
        let mut bytes = 0;
        for sent in &self.inflight {
            assert!(previous <= sent.last && sent.last <= log_last, "in-flight messages to {} are ordered", self.id);
            previous = sent.last;
            bytes += sent.bytes;
        }
        assert!(bytes == self.inflight_bytes, "in-flight bytes of {} are their sum", self.id);
        let waits = !self.inflight.is_empty() || self.mode == Mode::Snapshot;
        assert!(
            self.answer_by.is_some() == waits,
            "an answer of {} is waited for exactly while it is missing",
            self.id
        );
        match self.mode {
            Mode::Probe => {
                assert!(self.inflight.len() == 1, "{} is probed with one message at a time", self.id);
                assert!(self.tell_by.is_none(), "{} is probed, so the commit index waits", self.id);
            }
            Mode::Snapshot => {
                assert!(self.inflight.is_empty(), "nothing is sent to {}, which waits for a snapshot", self.id);
                assert!(self.tell_by.is_none(), "{} waits for a snapshot, so the commit index waits", self.id);
            }
            Mode::Replicate => assert!(previous < self.next, "what is in flight to {} is below next", self.id),
        }
    }
}
