//! From one configuration to the next.

use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{Member, NodeId, ReplicaId};

use super::{Configuration, Half, Phase, Standing};

/// What is to become of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It votes from now on: a new member, or a learner that is promoted.
    Voter(Member),
    /// It receives entries and does not vote: a new member, or a voter that is demoted.
    Learner(Member),
    /// It is no member any more.
    Remove(ReplicaId),
}

impl Change {
    /// The replica that it is about.
    pub fn replica(&self) -> ReplicaId {
        match self {
            Change::Voter(member) | Change::Learner(member) => member.replica,
            Change::Remove(replica) => *replica,
        }
    }
}

/// Why a configuration cannot follow, or cannot be. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipRefused {
    /// A group without a voter could never decide anything again.
    #[error("no voter would be left; add one first")]
    NoVoter,
    /// Quorums before and after such a change need not overlap.
    #[error("{changed} voters would change at once; use a joint change")]
    TooManyChanges {
        /// Voters that come or go.
        changed: usize,
    },
    /// The group is on its way from one set to another.
    #[error("the configuration is joint; it must be left first")]
    AlreadyJoint,
    /// There is no joint configuration to leave.
    #[error("the configuration is not joint")]
    NotJoint,
    /// More replicas than a group may have.
    #[error("{named} replicas would be named, but a group has at most {MEMBERS_MAX}; remove some first")]
    TooManyMembers {
        /// All replicas, those that leave included.
        named: usize,
    },
    /// One replica, two statements.
    #[error("{replica} is named twice")]
    NamedTwice {
        /// Which.
        replica: ReplicaId,
    },
    /// A node keeps one replica of a group.
    #[error("{node} would have two replicas; remove one first")]
    NodeTwice {
        /// Which.
        node: NodeId,
    },
    /// A replica lives and dies on one node (law 11).
    #[error("{replica} lives on {node}; a replica on another node needs a new identity")]
    Moved {
        /// Which.
        replica: ReplicaId,
        /// Where it is.
        node: NodeId,
    },
    /// What is to be removed is not there.
    #[error("{replica} is no member")]
    NoMember {
        /// Which.
        replica: ReplicaId,
    },
    /// All is as asked for already.
    #[error("the change changes nothing")]
    Unchanged,
    /// A simple configuration knows voters and learners only.
    #[error("{replica} comes or goes, but the configuration is not joint")]
    Halfway {
        /// Which.
        replica: ReplicaId,
    },
}

impl Configuration {
    /// The configuration with these members, whatever their order.
    pub fn restore(
        members: impl IntoIterator<Item = (Member, Standing)>,
        phase: Phase,
    ) -> Result<Configuration, MembershipRefused> {
        Configuration::restore_after(members, phase, ReplicaId(0))
    }

    /// The same of a group that has named replicas up to `highest` before.
    pub fn restore_after(
        members: impl IntoIterator<Item = (Member, Standing)>,
        phase: Phase,
        highest: ReplicaId,
    ) -> Result<Configuration, MembershipRefused> {
        let mut members: Vec<(Member, Standing)> = members.into_iter().collect();
        members.sort_unstable_by_key(|(member, _)| member.replica);
        let highest = members.last().map_or(highest, |(member, _)| highest.max(member.replica));
        let next = Configuration { members: members.into(), phase, highest };
        next.check()?;
        Ok(next)
    }

    /// The next configuration without a joint one between: at most one voter comes or goes, which is what keeps quorums
    /// overlapping. Learners may change as they like.
    pub fn simple(&self, changes: &[Change]) -> Result<Configuration, MembershipRefused> {
        let next = self.changed(changes, Phase::Simple)?;
        let voters = |of: &Configuration| of.voters_of(Half::Incoming).collect::<Vec<_>>();
        let (before, after) = (voters(self), voters(&next));
        let gone = before.iter().filter(|replica| !after.contains(replica)).count();
        let come = after.iter().filter(|replica| !before.contains(replica)).count();
        match gone + come {
            0 | 1 => Ok(next),
            changed => Err(MembershipRefused::TooManyChanges { changed }),
        }
    }

    /// The joint configuration between this one and the changed one. Any number of voters may come and go. With
    /// `auto_leave` the leader leaves it by itself.
    pub fn enter_joint(&self, changes: &[Change], auto_leave: bool) -> Result<Configuration, MembershipRefused> {
        self.changed(changes, Phase::Joint { auto_leave })
    }

    /// The configuration behind a joint one: the outgoing half is gone.
    pub fn leave_joint(&self) -> Result<Configuration, MembershipRefused> {
        if !self.is_joint() {
            return Err(MembershipRefused::NotJoint);
        }
        let after = |(member, standing): &(Member, Standing)| match standing {
            Standing::Voter | Standing::Joining => Some((*member, Standing::Voter)),
            Standing::Demoting | Standing::Learner => Some((*member, Standing::Learner)),
            Standing::Leaving => None,
        };
        Configuration::restore_after(self.members.iter().filter_map(after), Phase::Simple, self.highest)
    }

    fn changed(&self, changes: &[Change], phase: Phase) -> Result<Configuration, MembershipRefused> {
        if self.is_joint() {
            return Err(MembershipRefused::AlreadyJoint);
        }
        let mut members = self.members.to_vec();
        for (place, change) in changes.iter().enumerate() {
            let replica = change.replica();
            if changes[..place].iter().any(|earlier| earlier.replica() == replica) {
                return Err(MembershipRefused::NamedTwice { replica });
            }
            change_member(&mut members, *change, phase)?;
        }
        if *members == *self.members {
            return Err(MembershipRefused::Unchanged);
        }
        Configuration::restore_after(members, phase, self.highest)
    }

    fn check(&self) -> Result<(), MembershipRefused> {
        if let Some(pair) = self.members.windows(2).find(|pair| pair[0].0.replica == pair[1].0.replica) {
            return Err(MembershipRefused::NamedTwice { replica: pair[0].0.replica });
        }
        for (place, (member, standing)) in self.members.iter().enumerate() {
            if self.members[..place].iter().any(|(earlier, _)| earlier.node == member.node) {
                return Err(MembershipRefused::NodeTwice { node: member.node });
            }
            if !self.is_joint() && !matches!(standing, Standing::Voter | Standing::Learner) {
                return Err(MembershipRefused::Halfway { replica: member.replica });
            }
        }
        if self.members.len() > MEMBERS_MAX {
            return Err(MembershipRefused::TooManyMembers { named: self.members.len() });
        }
        match self.halves().all(|half| self.voters_of(half).next().is_some()) {
            true => Ok(()),
            false => Err(MembershipRefused::NoVoter),
        }
    }
}

/// Changes one member. In a joint configuration a voter stays in the outgoing half.
fn change_member(members: &mut Vec<(Member, Standing)>, change: Change, phase: Phase) -> Result<(), MembershipRefused> {
    let joint = phase != Phase::Simple;
    let replica = change.replica();
    let place = members.binary_search_by_key(&replica, |(member, _)| member.replica);
    let voted = place.is_ok_and(|place| members[place].1.votes());
    if let (Change::Voter(member) | Change::Learner(member), Ok(place)) = (change, place)
        && members[place].0 != member
    {
        return Err(MembershipRefused::Moved { replica, node: members[place].0.node });
    }
    let standing = match change {
        Change::Voter(_) if joint && !voted => Some(Standing::Joining),
        Change::Voter(_) => Some(Standing::Voter),
        Change::Learner(_) if joint && voted => Some(Standing::Demoting),
        Change::Learner(_) => Some(Standing::Learner),
        Change::Remove(_) if joint && voted => Some(Standing::Leaving),
        Change::Remove(_) => None,
    };
    match (change, place, standing) {
        (_, Ok(place), Some(standing)) => members[place].1 = standing,
        (_, Ok(place), None) => drop(members.remove(place)),
        (Change::Voter(member) | Change::Learner(member), Err(place), Some(standing)) => {
            members.insert(place, (member, standing));
        }
        _ => return Err(MembershipRefused::NoMember { replica }),
    }
    Ok(())
}
