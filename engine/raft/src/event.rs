//! What enters a replica.

use std::time::Duration;

use bytes::Bytes;
use pontoon_types::{Entry, FetchNumber, Index, LogId, Message, ReplicaId, Term, WriteNumber};

use crate::Config;
use crate::membership::{Change, Configuration};

/// One event. Together with the time it is all that [`crate::Raft::step`] ever learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Ask for pre-votes now, without waiting for the election deadline. A leader ignores it.
    Campaign,
    /// The time of [`crate::Raft::deadline`] has come. Calls that come early or for nothing are harmless.
    Timer,
    /// A message has arrived. One for another replica, or from a replica that is no voter, is ignored.
    Receive(Message),
    /// Append these commands as consecutive entries, in one write. The caller has asked [`crate::Raft::admit`] in the
    /// same turn: proposing to a replica that does not lead is a broken law.
    Propose(Vec<Bytes>),
    /// Change the members. The caller has asked [`crate::Raft::admit_change`] in the same turn.
    Change(MembersChange),
    /// Hand the leadership over to this voter. The caller has asked [`crate::Raft::admit_transfer`] in the same turn.
    Transfer(ReplicaId),
    /// How eager this replica is to lead from now on.
    Prefer(Priority),
    /// This write and all before it are durable.
    Durable(WriteNumber),
    /// A beacon says that `leader` leads this group in `term`. It means what an empty Append without a commit index
    /// would mean; until [`Event::Lapsed`] this follower has no deadline and refuses pre-votes.
    Claimed {
        /// The replica that claims to lead.
        leader: ReplicaId,
        /// The term in which it leads.
        term: Term,
    },
    /// The same from a list of all that its core leads, with the end of the leader's log and its commit index: it means
    /// what an empty Append after `last` would mean, but agreement is not answered. So a follower that has come back and
    /// has missed nothing wakes nobody, and one that is behind refuses, as it would refuse the Append.
    Listed {
        /// The replica that claims to lead.
        leader: ReplicaId,
        /// The term in which it leads.
        term: Term,
        /// The last entry of its log.
        last: LogId,
        /// Its commit index.
        commit: Index,
    },
    /// Nobody confirms the leader any more: the core it lives on is silent, or it released the group. A follower
    /// starts to wait for its election. A leader resigns: no quorum of cores shows that it hears this one and is heard.
    /// A candidate, and a follower that waits already, ignores it.
    Lapsed,
    /// The link to this peer is usable again. A leader that waits for the peer probes it at once.
    PeerUp(ReplicaId),
    /// Nothing reaches this peer. A leader sends it nothing and does not wait for its answers until [`Event::PeerUp`], so a
    /// group sleeps while one of its followers is gone.
    PeerDown(ReplicaId),
    /// This peer has come back with a new incarnation: of all it knew, only the durable part is left, and a commit
    /// index is not. A leader probes it even if nothing was missing.
    PeerRestarted(ReplicaId),
    /// The disk has lost the payloads of these entries, which were durable. Those in memory are written again, the others
    /// come from the leader.
    Lost(Vec<Index>),
    /// The machine has applied everything up to here. What is applied and durable may leave memory.
    Applied(Index),
    /// The answer to [`crate::Effect::Fetch`]. One that nobody waits for any more is ignored.
    Fetched {
        /// The fetch.
        number: FetchNumber,
        /// The entries, one at least, from the first one asked for on; or why not even that one.
        result: Result<Vec<Entry>, Unfetched>,
    },
    /// What stands in the log is older than what this replica has promised (law 12): from now on it is one that has lost its
    /// vote.
    Forgot,
    /// Let everything go that may leave memory: others need the room.
    Shed,
    /// Give up the log up to here, which is applied and durable, because a durable checkpoint of the machine covers it
    /// (law 19).
    Compact(Index),
    /// A snapshot is this replica's durable checkpoint now, with these members (law 18). One that does not help is ignored.
    Install {
        /// The last entry that is in it.
        last: LogId,
        /// Who belongs to the group there.
        configuration: Configuration,
    },
    /// A leader has a snapshot at this entry, which is committed therefore, and the log here holds it.
    Known(LogId),
    /// This peer says that it has no state, and cannot go on from entries.
    PeerIsStateless(ReplicaId),
    /// The machine's state is lost, and with it what the log has given up.
    StateLost,
    /// The machine cannot read the committed entry behind what it has applied.
    Unreadable,
    /// The replica is no member any more, for ever: its last write says so. It must not be stepped again but for that
    /// write's [`Event::Durable`].
    Destroy {
        /// The highest replica of the group that is dead by now.
        highest: ReplicaId,
    },
    /// This core should not lead now, because its disk does not answer. The deadline of an election, if there is one, is
    /// put off by another wait, and a campaign that has begun ends. A leader, and a follower that sleeps, ignore it.
    Postpone,
}

/// Why entries were not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfetched {
    /// The payload of this entry, the first one asked for, is rotten.
    #[error("the payload of entry {0} is rotten")]
    Rotten(Index),
    /// The log does not hold it any more.
    #[error("the entry is compacted")]
    Compacted,
    /// The log ends before it. What is fetched was durable, so nobody can wait for it any more.
    #[error("the log ends before the entry")]
    Missing,
}

/// A change of the members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersChange {
    /// In one step, if at most one voter comes or goes.
    Simple(Vec<Change>),
    /// Through a joint configuration. With `auto_leave` the leader leaves it as soon as it is committed.
    Joint {
        /// What is to become of whom.
        changes: Vec<Change>,
        /// Whether no [`MembersChange::Leave`] is needed.
        auto_leave: bool,
    },
    /// Out of a joint configuration.
    Leave,
}

/// How eager a replica is to lead: zero campaigns first. A hint: it decides who campaigns when, and never who wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Priority {
    /// The least eager. It waits for two shortest election timeouts more than the most eager.
    pub const LAST: Priority = Priority(8);

    /// How much longer such a replica waits than the most eager one before it campaigns.
    pub(crate) fn patience(self, config: &Config) -> Duration {
        config.election_timeout_min * u32::from(self.0) / 4
    }
}
