//! What a replica is told when it is made: its limits and intervals, and what its log held.

use std::time::Duration;

use pontoon_types::{Creation, Entry, HardState, Index, LogId, limits};

use crate::Priority;
use crate::membership::Configuration;

/// Intervals and limits of one replica. The same for all groups of a core.
///
/// Invariants: `election_timeout_min < election_timeout_max`; no limit and no interval but `commit_delay` is zero; `priority` is
/// at most [`Priority::LAST`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shortest time for which an unsupported follower waits before it campaigns.
    pub election_timeout_min: Duration,
    /// The end (exclusive) of the interval from which the wait is drawn. A wide interval makes split votes rare.
    pub election_timeout_max: Duration,
    /// How long a leader waits for an answer before it probes a peer again. Longer than a slow sync of the peer.
    pub retry_interval: Duration,
    /// How long a new commit index waits for an Append to ride on before it is sent alone.
    pub commit_delay: Duration,
    /// Most payload bytes in one Append message; a single larger entry still goes, alone.
    pub append_bytes_max: usize,
    /// Most entries in one Append message.
    pub append_entries_max: usize,
    /// Most Append messages to one peer without an answer.
    pub inflight_messages_max: usize,
    /// Payload bytes to one peer without an answer at which sending stops; exceeded by less than one message.
    pub inflight_bytes_max: usize,
    /// Most payload bytes proposed in the leader's term and not yet committed.
    pub uncommitted_bytes_max: usize,
    /// Bytes of the newest entries that stay in memory once nothing holds them there; older ones are fetched.
    pub window_bytes_max: usize,
    /// Most payload bytes of one fetch; a single larger entry still comes, alone.
    pub fetch_bytes_max: usize,
    /// How eager to lead the replica is until it is told otherwise.
    pub priority: Priority,
    /// The bug put in on purpose, if any.
    #[cfg(feature = "mutations")]
    pub mutation: Option<crate::Mutation>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            election_timeout_min: Duration::from_secs(1),
            election_timeout_max: Duration::from_secs(2),
            retry_interval: Duration::from_millis(250),
            commit_delay: Duration::from_millis(20),
            append_bytes_max: limits::APPEND_BYTES_MAX,
            append_entries_max: limits::APPEND_ENTRIES_MAX,
            inflight_messages_max: limits::INFLIGHT_MESSAGES_MAX,
            inflight_bytes_max: limits::INFLIGHT_BYTES_MAX,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            window_bytes_max: limits::WINDOW_BYTES_MAX,
            fetch_bytes_max: limits::FETCH_BYTES_MAX,
            priority: Priority::default(),
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

impl Config {
    /// Panics when an invariant of the type does not hold: a zero limit would stop a group without a word.
    pub(crate) fn check(&self) {
        assert!(self.election_timeout_min < self.election_timeout_max, "config: the election timeouts are no interval");
        assert!(!self.election_timeout_min.is_zero(), "config: election_timeout_min is zero");
        assert!(!self.retry_interval.is_zero(), "config: retry_interval is zero");
        assert!(self.append_bytes_max > 0, "config: append_bytes_max is zero");
        assert!(self.append_entries_max > 0, "config: append_entries_max is zero");
        assert!(self.inflight_messages_max > 0, "config: inflight_messages_max is zero");
        assert!(self.inflight_bytes_max > 0, "config: inflight_bytes_max is zero");
        assert!(self.uncommitted_bytes_max > 0, "config: uncommitted_bytes_max is zero");
        assert!(self.window_bytes_max > 0, "config: window_bytes_max is zero");
        assert!(self.fetch_bytes_max > 0, "config: fetch_bytes_max is zero");
        assert!(self.priority <= Priority::LAST, "config: priority is above the last");
    }
}

/// What the log of the core held for this replica. The default holds nothing: a replica that waits to hear from a leader.
///
/// Invariants: `older` and then `entries` follow `compacted` without a gap, terms never fall, and none is above the hard
/// state's term; `lost` rises and names entries that are there, in `entries` with an empty payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The last term and vote written.
    pub hard_state: HardState,
    /// The beginning of the log was given up up to here. The machine has applied it.
    pub compacted: LogId,
    /// The entries behind it whose payloads are not brought along. They are fetched when somebody needs them.
    pub older: Identities,
    /// The entries behind those, up to the end of the log. All of the log is durable, but for the payloads of the lost
    /// entries.
    pub entries: Vec<Entry>,
    /// The members of the group as far as they are settled: what was in force at `compacted`, for a whole log those of the
    /// descriptor. No entry at or before that position says anything about them any more.
    pub members: Configuration,
    /// The entries among `older` that change the members, in order, with an empty payload if it is lost.
    pub configurations: Vec<Entry>,
    /// The entries whose payload was rotten. Their identities are intact; `raft/restore.rs` says what follows.
    pub lost: Vec<Index>,
    /// The last term and vote written are not known: what `hard_state` says may be older. The replica then never votes;
    /// `raft/lost_vote.rs` says what it may do.
    pub vote_lost: bool,
    /// The machine holds everything up to here, by a durable checkpoint, and `members` are those of that entry. At or behind
    /// `compacted`; if the log does not hold it, the log is reset to it (law 18).
    pub checkpoint: Option<LogId>,
    /// The machine does not hold what was given up: its checkpoint cannot be read. `raft/install.rs` says what follows.
    pub stateless: bool,
    /// The replica comes to life with this start (law 21): its first write says so.
    pub creation: Option<Creation>,
}

/// A part of a log, known by its identities alone: terms never fall along a log, so the first entry of each term tells the
/// term of all others. The default is no entry.
///
/// Invariants: index and term grow along `starts`; `last` is at or behind the last of them, and zero when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// The first entry, and the first of each later term.
    pub starts: Vec<LogId>,
    /// The index of the last entry.
    pub last: Index,
}
