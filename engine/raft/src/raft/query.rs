//! What others may ask a replica. Nothing here changes it.

use std::time::Duration;

use pontoon_types::{Entry, Index, LogId, Member, ReplicaId, Term};

use super::{Raft, State};
use crate::membership::Configuration;
use crate::mutation::Mutation;
use crate::progress::Mode;
use crate::{NoTerm, Priority, ProposalRefused, Role};

impl Raft {
    /// Whether a proposal of this many payload bytes may be made in this turn. A leader without uncommitted bytes
    /// takes one of any size, so that the limit can never stop a group for good.
    pub fn admit(&self, bytes: usize) -> Result<(), ProposalRefused> {
        let State::Leader(leadership) = &self.state else {
            return Err(ProposalRefused::NotLeader { leader: self.leader() });
        };
        if let Some(transfer) = &leadership.transfer {
            return Err(ProposalRefused::Transferring { to: transfer.to });
        }
        if leadership.leave_by.is_some() {
            return Err(ProposalRefused::Leaving);
        }
        let uncommitted = leadership.uncommitted_bytes;
        if uncommitted > 0 && uncommitted.saturating_add(bytes) > self.config.uncommitted_bytes_max {
            return Err(ProposalRefused::Full);
        }
        Ok(())
    }

    /// Payload bytes that this replica has proposed as the leader of its term and not committed.
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.state {
            State::Leader(leadership) => leadership.uncommitted_bytes,
            _ => 0,
        }
    }

    /// Whether this entry is in the log, or was given up.
    pub fn holds(&self, id: LogId) -> bool {
        self.log.holds(id)
    }

    /// The commit index at which a linearizable read may be served once a quorum confirms the term, or none if this
    /// replica does not lead or has not committed its no-op: until then an older leader's commits may be unknown.
    pub fn read_index(&self) -> Option<Index> {
        match &self.state {
            State::Leader(leadership) => {
                let early = self.config.mutated(Mutation::ReadBeforeOwnCommit);
                Some(self.log.committed()).filter(|&index| index >= leadership.start || early)
            }
            _ => None,
        }
    }

    /// Whether this replica may confirm that it knows no newer term than `term` (law 6).
    pub fn confirms(&self, term: Term) -> bool {
        self.hard_state.term <= term && self.knows_its_term()
    }

    /// The identity of this replica.
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// The configuration in force: that of the last such entry in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        self.members.current()
    }

    /// Another number whenever [`Raft::residents`] has changed.
    pub fn residents_version(&self) -> u64 {
        self.members.version()
    }

    /// Whether the log may be given up so far: what goes is applied and durable (law 19).
    pub fn may_compact(&self, to: Index) -> bool {
        to > self.log.compacted().index && to <= self.machine.applied.min(self.writes.durable_index())
    }

    /// Whether there is a write that the next step hands out, whatever it is about: that of a start that had to reset the
    /// log, or to make it.
    pub fn has_to_write(&self) -> bool {
        self.writes.is_open()
    }

    /// Whether this leader waits for the peer to be given a snapshot.
    pub fn awaits_snapshot(&self, peer: ReplicaId) -> bool {
        let State::Leader(leadership) = &self.state else { return false };
        leadership.peers.iter().any(|progress| progress.id == peer && progress.mode == Mode::Snapshot)
    }

    /// Whether this leader knows where the peer's log agrees, and sends it entries.
    pub fn replicates_to(&self, peer: ReplicaId) -> bool {
        let State::Leader(leadership) = &self.state else { return false };
        leadership.peers.iter().any(|progress| progress.id == peer && progress.mode == Mode::Replicate)
    }

    /// Everybody who is a member now or may be again, some of them more than once.
    pub fn residents(&self) -> impl Iterator<Item = Member> + use<'_> {
        self.members.members()
    }

    /// Where the configuration in force stands.
    pub fn configuration_at(&self) -> Index {
        self.members.at()
    }

    /// To whom this leader is handing over, if it is.
    pub fn transferring_to(&self) -> Option<ReplicaId> {
        match &self.state {
            State::Leader(leadership) => leadership.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    /// Whether this leader has allowed somebody to campaign against it in the next term. Whoever relies on its term, like
    /// a lease, must not do so any more: the permit may be used at any time.
    pub fn has_given_permit(&self) -> bool {
        matches!(&self.state, State::Leader(leadership) if leadership.has_given_permit)
    }

    /// The other members and how far each holds this leader's log durably; empty if this replica does not lead.
    pub fn matched(&self) -> impl Iterator<Item = (ReplicaId, Index)> + use<'_> {
        let peers = match &self.state {
            State::Leader(leadership) => leadership.peers.as_slice(),
            _ => &[],
        };
        peers.iter().map(|peer| (peer.id, peer.matched))
    }

    /// How eager it is to lead.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// How much longer this replica waits than the most eager one before it campaigns.
    pub fn patience(&self) -> Duration {
        self.priority.patience(&self.config)
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role_of_state()
    }

    /// The newest term seen. It may not be durable yet, but no promise is made in it before it is.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The vote in that term.
    pub fn vote(&self) -> Option<ReplicaId> {
        self.hard_state.vote
    }

    /// The leader of that term, if known. After [`crate::Event::Lapsed`] it is still named, as the best guess.
    pub fn leader(&self) -> Option<ReplicaId> {
        match self.state {
            State::Follower { leader, .. } => leader,
            State::Leader(_) => Some(self.me),
            State::PreCandidate(_) | State::Candidate { .. } => None,
        }
    }

    /// Whether this is a follower whose leader is confirmed.
    pub fn is_supported(&self) -> bool {
        matches!(self.state, State::Follower { supported: true, .. })
    }

    /// The last entry, durable or not; `0@0` in an empty log.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// The index up to which the log as it is now is durable, payloads included.
    pub fn durable(&self) -> Index {
        let written = self.writes.durable_index();
        self.lost.first_not_durable().map_or(written, |lost| written.min(lost.previous()))
    }

    /// The entries whose payload is missing: the disk has lost it, and no leader has sent it again yet. In rising order.
    pub fn missing(&self) -> impl Iterator<Item = Index> + use<'_> {
        self.lost.missing()
    }

    /// Whether the disk has lost this replica's term and vote.
    pub fn is_vote_lost(&self) -> bool {
        self.lost_vote.is_some()
    }

    /// The commit index. It may be above [`Raft::durable`]: a quorum may hold an entry before this disk does.
    pub fn committed(&self) -> Index {
        self.log.committed()
    }

    /// How far the caller has applied, as it has said.
    pub fn applied(&self) -> Index {
        self.machine.applied
    }

    /// Everything up to here is given up; `0@0` as long as nothing is.
    pub fn compacted(&self) -> LogId {
        self.log.compacted()
    }

    /// The term of the entry at `index`. Known at [`Raft::compacted`] and behind it; zero at index zero.
    pub fn term_at(&self, index: Index) -> Result<Term, NoTerm> {
        self.log.term_at(index)
    }

    /// The first entry that is in memory with its payload; the index behind the last entry when none is.
    pub fn first_held(&self) -> Index {
        self.log.first_held()
    }

    /// The memory that the entries in the window take, bytes.
    pub fn window_bytes(&self) -> usize {
        self.log.window_bytes()
    }

    /// The entries in `[from, through]`, as far as they exist. None at all if `from` is before [`Raft::first_held`].
    pub fn entries(&self, from: Index, through: Index) -> impl Iterator<Item = &Entry> + Clone {
        self.log.held(from, through)
    }
}
