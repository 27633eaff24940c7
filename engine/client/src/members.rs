//! The members of a group and its leader, as an operator changes them.
//!
//! [`Client::change_members`] asks for whole sets: these voters, these learners, and nobody else. A node that is to vote and
//! has no replica yet becomes a learner first, so one wish is up to two orders ([`plan_members`]). Each carries the
//! generation of the members by which it was decided, so that of two operators who decide at the same time one is refused,
//! and a copy of an order that comes late changes nothing. Whoever gives up in between, or asks again, goes on from the
//! members as they are then.

use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{GroupId, NodeId};
use pontoon_wire::order::{GroupMembers, MemberStanding, Order, OrderReason};

use crate::{Client, ClientError, Request, Response};

/// The voters and the learners that a group is to have, by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersWish {
    /// The nodes that are to vote.
    pub voters: Vec<NodeId>,
    /// The nodes that are to receive entries without a vote.
    pub learners: Vec<NodeId>,
}

impl MembersWish {
    /// Refuses what no group can have.
    fn check(&self) -> Result<(), ClientError> {
        let refuse = |reason, why| Err(ClientError::OrderRefused { reason, why });
        let mut all = [self.voters.as_slice(), self.learners.as_slice()].concat();
        all.sort_unstable();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(OrderReason::Impossible, format!("{} is named twice", pair[0]));
        }
        if self.voters.is_empty() {
            return refuse(OrderReason::NoVoterLeft, "no voter would be left".to_string());
        }
        if all.len() > MEMBERS_MAX {
            let why = format!("{} nodes are named, but a group has at most {MEMBERS_MAX} members", all.len());
            return refuse(OrderReason::Impossible, why);
        }
        Ok(())
    }
}

/// The sets that lead from the present members to the wish, in order, each of them one order. None if all is as wished for.
///
/// Nodes that are to vote and have no replica become learners in the first step, beside all that are members now. What the
/// last step could not be is refused before the first one.
pub fn plan_members(now: &GroupMembers, wish: &MembersWish) -> Result<Vec<MembersWish>, ClientError> {
    wish.check()?;
    let sorted = |mut nodes: Vec<NodeId>| {
        nodes.sort_unstable();
        nodes
    };
    let wish = MembersWish { voters: sorted(wish.voters.clone()), learners: sorted(wish.learners.clone()) };
    let voters = now.nodes(MemberStanding::Voter);
    let mut learners = now.nodes(MemberStanding::Learner);
    if !now.is_changing && voters == wish.voters && learners == wish.learners {
        return Ok(Vec::new());
    }
    let new: Vec<NodeId> = wish.voters.iter().copied().filter(|node| now.on(*node).is_none()).collect();
    if new.is_empty() {
        return Ok(vec![wish]);
    }
    learners.extend(new);
    Ok(vec![MembersWish { voters, learners: sorted(learners) }, wish])
}

impl Client {
    /// The members of a group, as its leader has applied them.
    pub fn members(&mut self, group: GroupId) -> Result<GroupMembers, ClientError> {
        match self.call(Request::Members { group })? {
            Response::Members(members) => Ok(*members),
            _ => Err(ClientError::Unknown),
        }
    }

    /// Gives one order, and returns when it is done. It is given again while it is refused for a reason that passes, until the
    /// request's time is over.
    pub fn order(&mut self, group: GroupId, order: Order) -> Result<(), ClientError> {
        match self.call(Request::Order { group, order })? {
            Response::Ordered => Ok(()),
            _ => Err(ClientError::Unknown),
        }
    }

    /// Gives a group these members, in as many orders as that takes. Each has the time of a request, and so has a new replica
    /// to catch up; when that is not enough, asking again goes on.
    pub fn change_members(&mut self, group: GroupId, wish: &MembersWish) -> Result<GroupMembers, ClientError> {
        let mut now = self.members(group)?;
        for MembersWish { voters, learners } in plan_members(&now, wish)? {
            self.order(group, Order::Members { generation: now.generation, voters, learners })?;
            now = self.members(group)?;
        }
        Ok(now)
    }

    /// Makes a node's replica of a group more or less eager to lead, from 0, which campaigns first, to 8, until that node ends.
    pub fn prefer(&mut self, node: NodeId, group: GroupId, priority: u8) -> Result<(), ClientError> {
        match self.call(Request::Prefer { node, group, priority })? {
            Response::Ordered => Ok(()),
            _ => Err(ClientError::Unknown),
        }
    }

    /// Hands the leadership of a group over to a node.
    pub fn transfer_leader(&mut self, group: GroupId, to: NodeId) -> Result<(), ClientError> {
        let now = self.members(group)?;
        if now.leader == to { Ok(()) } else { self.order(group, Order::Transfer { term: now.term, to }) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pontoon_types::{Generation, Index, ReplicaId, Term};
    use pontoon_wire::order::GroupMember;

    use super::*;

    fn nodes(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().map(|number| NodeId(*number)).collect()
    }

    fn wish(voters: &[u64], learners: &[u64]) -> MembersWish {
        MembersWish { voters: nodes(voters), learners: nodes(learners) }
    }

    fn members(voters: &[u64], learners: &[u64]) -> GroupMembers {
        let member = |node: &u64, standing| GroupMember {
            node: NodeId(*node),
            replica: ReplicaId(*node),
            standing,
            matched: Index(1),
            follows: true,
        };
        let voters = voters.iter().map(|node| member(node, MemberStanding::Voter));
        let learners = learners.iter().map(|node| member(node, MemberStanding::Learner));
        GroupMembers {
            group: GroupId(2),
            generation: Generation(1),
            leader: NodeId(1),
            term: Term(1),
            last: Index(1),
            is_changing: false,
            members: voters.chain(learners).collect(),
        }
    }

    #[test]
    fn a_new_voter_is_a_learner_first_and_everything_else_is_one_step() {
        let now = members(&[1, 2, 3], &[5]);
        let plan = |voters: &[u64], learners: &[u64]| plan_members(&now, &wish(voters, learners)).unwrap();
        assert_eq!(plan(&[3, 1, 2], &[5]), [], "all is as wished for");
        assert_eq!(plan(&[1, 2], &[]), [wish(&[1, 2], &[])]);
        assert_eq!(plan(&[1, 5], &[3, 4]), [wish(&[1, 5], &[3, 4])], "a learner is promoted, and a new one is added");
        assert_eq!(plan(&[4, 1, 2], &[]), [wish(&[1, 2, 3], &[4, 5]), wish(&[1, 2, 4], &[])]);
    }

    #[test]
    fn what_no_group_can_have_is_refused_before_anything_is_done() {
        let now = members(&[1, 2, 3], &[]);
        let reason = |voters: &[u64], learners: &[u64]| match plan_members(&now, &wish(voters, learners)) {
            Err(ClientError::OrderRefused { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&[1, 4], &[1]), OrderReason::Impossible);
        assert_eq!(reason(&[], &[1, 2]), OrderReason::NoVoterLeft);
        assert_eq!(reason(&(1..=MEMBERS_MAX as u64 + 1).collect::<Vec<_>>(), &[]), OrderReason::Impossible);
    }

    #[test]
    fn what_is_still_changing_is_asked_for_again() {
        let now = GroupMembers { is_changing: true, ..members(&[1, 2], &[]) };
        assert_eq!(plan_members(&now, &wish(&[1, 2], &[])), Ok(vec![wish(&[1, 2], &[])]));
    }
}
