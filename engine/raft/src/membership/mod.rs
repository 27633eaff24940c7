//! Who belongs to a group, and how that changes: arithmetic only, no protocol.
//!
//! A [`Configuration`] lists the members of a group, each with its [`Standing`]. It is *simple* or *joint*. A joint
//! configuration has two halves, the incoming and the outgoing one, and whatever is decided needs a majority of each:
//!
//! | standing | votes in | after leaving the joint configuration |
//! |---|---|---|
//! | voter | the incoming half, and the outgoing one if joint | voter |
//! | joining | the incoming half | voter |
//! | leaving | the outgoing half | not a member |
//! | demoting | the outgoing half | learner |
//! | learner | nowhere | learner |
//!
//! In the terms of other implementations: `incoming` = voters and joining, `outgoing` = voters, leaving and demoting,
//! `learners_next` = demoting. One standing for each member makes what those four sets must promise to each other true
//! by construction: a learner votes in no half, a demoted voter votes in the outgoing one.
//!
//! Changes are functions from one configuration to the next, and refuse by name what they cannot do:
//! [`Configuration::simple`] for at most one voter more or less, [`Configuration::enter_joint`] and
//! [`Configuration::leave_joint`] for everything else, [`Configuration::restore`] from its parts.
//!
//! # Laws
//!
//! - *Overlap:* any quorum of a configuration shares a voter with any quorum of the one that follows it.
//! - A configuration has a voter, in each of its halves; only the default one, of a replica that knows nothing, has none.
//! - A replica is a member once, and a node has one replica of a group.
//! - At most [`MEMBERS_MAX`](pontoon_types::limits::MEMBERS_MAX) replicas are named, those that leave and learners included.
//! - `restore(c) = c`, and entering and leaving gives what was asked for.

mod change;
mod count;
mod encode;
mod history;

pub use change::{Change, MembershipRefused};
pub(crate) use count::both;
pub use encode::{CONFIGURATION_BYTES_MAX, ConfigurationFault};
pub(crate) use history::History;

use std::fmt;
use std::sync::Arc;

use pontoon_types::{Member, NodeId, ReplicaId};

/// What a member does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Votes, before and after a joint configuration.
    Voter,
    /// Votes in the incoming half: was a learner or no member.
    Joining,
    /// Votes in the outgoing half, and is no member afterwards.
    Leaving,
    /// Votes in the outgoing half, and is a learner afterwards.
    Demoting,
    /// Receives entries and never counts.
    Learner,
}

/// One of the two halves of a joint configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The voters of the future. The only half of a simple configuration.
    Incoming,
    /// The voters of the past.
    Outgoing,
}

impl Standing {
    /// Whether such a member counts in this half.
    pub fn votes_in(self, half: Half) -> bool {
        match half {
            Half::Incoming => matches!(self, Standing::Voter | Standing::Joining),
            Half::Outgoing => matches!(self, Standing::Voter | Standing::Leaving | Standing::Demoting),
        }
    }

    /// Whether such a member counts in a half at all.
    pub fn votes(self) -> bool {
        self != Standing::Learner
    }
}

/// Whether one majority decides, or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// One.
    #[default]
    Simple,
    /// One of each half.
    Joint {
        /// The leader leaves the joint configuration by itself, as soon as its entry is committed.
        auto_leave: bool,
    },
}

/// The members of a group.
///
/// Invariants:
/// - members are sorted by replica, no replica and no node appears twice, and there are at most [`MEMBERS_MAX`](pontoon_types::limits::MEMBERS_MAX);
/// - a simple configuration has voters and learners only;
/// - each half has a voter, unless there are no members at all;
/// - no member is above `highest`, the highest replica that the group has ever named (law 11).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// Shared by all copies: a replica has several, and so may other groups with the same members.
    members: Arc<[(Member, Standing)]>,
    phase: Phase,
    highest: ReplicaId,
}

impl Configuration {
    /// A simple configuration of these voters, for the first one of a group.
    pub fn of_voters(voters: impl IntoIterator<Item = Member>) -> Result<Configuration, MembershipRefused> {
        Configuration::restore(voters.into_iter().map(|member| (member, Standing::Voter)), Phase::Simple)
    }

    /// All members with their standings, sorted by replica.
    pub fn members(&self) -> &[(Member, Standing)] {
        &self.members
    }

    /// Whether one majority decides, or two.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether two majorities decide.
    pub fn is_joint(&self) -> bool {
        self.phase != Phase::Simple
    }

    /// The halves that decide.
    pub fn halves(&self) -> impl Iterator<Item = Half> + use<> {
        let outgoing = self.is_joint().then_some(Half::Outgoing);
        std::iter::once(Half::Incoming).chain(outgoing)
    }

    /// What `replica` does here, if it is a member.
    pub fn standing(&self, replica: ReplicaId) -> Option<Standing> {
        self.place(replica).map(|place| self.members[place].1)
    }

    /// Whether `replica` counts in one of the halves.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.standing(replica).is_some_and(Standing::votes)
    }

    /// The replicas that count in this half, in rising order.
    pub fn voters_of(&self, half: Half) -> impl Iterator<Item = ReplicaId> + use<'_> {
        let counting = self.members.iter().filter(move |(_, standing)| standing.votes_in(half));
        counting.map(|(member, _)| member.replica)
    }

    /// The replicas that count in one of the halves, in rising order.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> + use<'_> {
        self.members.iter().filter(|(_, standing)| standing.votes()).map(|(member, _)| member.replica)
    }

    /// All replicas, learners included, in rising order.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<'_> {
        self.members.iter().map(|(member, _)| member.replica)
    }

    /// The highest replica that the group has ever named. One at or below it that is no member was removed, for ever; a
    /// new one is above it (law 11).
    pub fn highest(&self) -> ReplicaId {
        self.highest
    }

    /// Whether `replica` was a member and is none any more.
    pub fn has_removed(&self, replica: ReplicaId) -> bool {
        replica > ReplicaId(0) && replica <= self.highest && self.place(replica).is_none()
    }

    /// Where `replica` lives, if it is a member.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.place(replica).map(|place| self.members[place].0.node)
    }

    /// The replica on `node`, if one is a member.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.members.iter().find(|(member, _)| member.node == node).map(|(member, _)| member.replica)
    }

    /// The place of `replica` among the members.
    pub(crate) fn place(&self, replica: ReplicaId) -> Option<usize> {
        self.members.binary_search_by_key(&replica, |(member, _)| member.replica).ok()
    }
}

/// As traces and tools show it: `1 2 3`, with learners `1 2 3 | 4`, joint `1 2 4 & 1 2 3`, where a demoted voter of the
/// outgoing half has an arrow.
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, of: &dyn Fn(Standing) -> bool| {
            let chosen = self.members.iter().filter(|(_, standing)| of(*standing));
            chosen.enumerate().try_for_each(|(place, (member, standing))| {
                let (gap, arrow) = (if place > 0 { " " } else { "" }, *standing == Standing::Demoting);
                write!(f, "{gap}{}{}", member.replica.0, if arrow { "→" } else { "" })
            })
        };
        list(f, &|standing| standing.votes_in(Half::Incoming))?;
        if let Phase::Joint { auto_leave } = self.phase {
            f.write_str(if auto_leave { " & " } else { " &! " })?;
            list(f, &|standing| standing.votes_in(Half::Outgoing))?;
        }
        if self.members.iter().any(|(_, standing)| *standing == Standing::Learner) {
            f.write_str(" | ")?;
            list(f, &|standing| standing == Standing::Learner)?;
        }
        Ok(())
    }
}
