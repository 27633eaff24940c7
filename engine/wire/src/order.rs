//! Orders: what an operator asks of a group, why it is refused, and who its members are.
//!
//! An order names what is to be, and nodes instead of replicas: which identity a new replica gets is for the group to say. It
//! also names the moment at which the operator looked, the generation of the members or the term of the leader. So it is
//! carried out once at most, however often and however late it arrives: a group that has moved on since refuses it, unless
//! all is as asked for already.

use pontoon_types::{Generation, GroupId, Index, NodeId, ReplicaId, Term};

use crate::numbered::numbered;

/// What a group is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// These voters and these learners, and nobody else. More than learners change through a joint configuration, which is
    /// left by itself. A new voter has to be a learner first. Done when the final configuration is committed.
    Members {
        /// The generation of the members by which the operator decided.
        generation: Generation,
        /// The nodes that are to vote.
        voters: Vec<NodeId>,
        /// The nodes that are to receive entries without a vote.
        learners: Vec<NodeId>,
    },
    /// Hand the leadership over. Done when the node leads.
    Transfer {
        /// The term of the leader that is to hand over.
        term: Term,
        /// The node that is to lead.
        to: NodeId,
    },
}

numbered! {
    /// Which kind of reason an order is refused for. Nothing has changed, but for [`OrderReason::GivenUp`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum OrderReason {
        /// It can never be carried out as it is.
        Impossible = 1,
        /// No voter would be left.
        NoVoterLeft = 2,
        /// The node is none of the cluster, or has no replica of the group.
        UnknownNode = 3,
        /// The node does not vote, so it cannot lead: promote it first.
        NotVoter = 4,
        /// The node has no replica yet, so it cannot vote: add it as a learner first.
        NewVoter = 5,
        /// The members, or the leader, have changed since the operator looked: look again.
        Changed = 6,
        /// An earlier change, or the handing over of the leadership, is under way: wait for it.
        InFlight = 7,
        /// The leader is new and has not committed anything in its term yet: ask again soon.
        NotYet = 8,
        /// The node does not answer, or lacks too much: wait until it has caught up.
        NotReady = 9,
        /// The node did not take over in time, or another one did.
        GivenUp = 10,
    }
}

/// The members of a group, as its leader has applied them, and what it knows of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMembers {
    /// The group.
    pub group: GroupId,
    /// The generation of its descriptor: grows by one with each configuration.
    pub generation: Generation,
    /// The node that leads.
    pub leader: NodeId,
    /// The term in which it leads.
    pub term: Term,
    /// The end of its log.
    pub last: Index,
    /// Whether a configuration is on its way that is not applied yet, or the applied one is joint.
    pub is_changing: bool,
    /// The members, by replica.
    pub members: Vec<GroupMember>,
}

/// One member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Where it lives.
    pub node: NodeId,
    /// Which replica it is.
    pub replica: ReplicaId,
    /// What it does in the group.
    pub standing: MemberStanding,
    /// It holds the leader's log durably up to here, as far as the leader knows.
    pub matched: Index,
    /// Whether the leader knows where its log agrees and sends it entries, or is that member itself.
    pub follows: bool,
}

numbered! {
    /// What a member does in its group.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum MemberStanding {
        /// Votes.
        Voter = 1,
        /// Votes in the incoming half of a joint configuration, and is a voter after it.
        Joining = 2,
        /// Votes in the outgoing half, and is no member after it.
        Leaving = 3,
        /// Votes in the outgoing half, and is a learner after it.
        Demoting = 4,
        /// Receives entries and does not vote.
        Learner = 5,
    }
}

impl OrderReason {
    /// Whether the same order may be taken a while later.
    pub fn passes(self) -> bool {
        matches!(self, OrderReason::InFlight | OrderReason::NotYet | OrderReason::NotReady)
    }

    /// What to do, a clause.
    pub fn advice(self) -> &'static str {
        match self {
            OrderReason::Impossible => "give another order",
            OrderReason::NoVoterLeft => "name a voter that stays",
            OrderReason::UnknownNode => "name another node",
            OrderReason::NotVoter => "make it a voter first",
            OrderReason::NewVoter => "make it a learner first, and a voter when it has caught up",
            OrderReason::Changed => "look at the members again, and decide again",
            OrderReason::InFlight => "give it again when that is done",
            OrderReason::NotYet => "give it again soon",
            OrderReason::NotReady => "give it again when the node has caught up",
            OrderReason::GivenUp => "look who leads, and give it again",
        }
    }
}

impl std::fmt::Display for MemberStanding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MemberStanding::Voter => "voter",
            MemberStanding::Joining => "joining",
            MemberStanding::Leaving => "leaving",
            MemberStanding::Demoting => "demoting",
            MemberStanding::Learner => "learner",
        })
    }
}

impl GroupMembers {
    /// The nodes whose members have this standing, in rising order.
    pub fn nodes(&self, standing: MemberStanding) -> Vec<NodeId> {
        let of_standing = self.members.iter().filter(|member| member.standing == standing);
        let mut nodes: Vec<NodeId> = of_standing.map(|member| member.node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// The member on this node.
    pub fn on(&self, node: NodeId) -> Option<&GroupMember> {
        self.members.iter().find(|member| member.node == node)
    }
}
