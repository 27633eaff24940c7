//! Orders of operators: how one is checked, begun, and answered when it is done.
//!
//! An order comes with a client's frame, like any request, to the core that leads the group. It names nodes; which changes
//! of replicas that means is found out here, and `members` and `pontoon-raft` say whether they may be made. Voters come and
//! go through a joint configuration, which the leader leaves by itself; learners alone need none.
//!
//! # When it is done
//!
//! A change of members: when the configuration that was asked for is applied here, and so committed. A transfer: when this
//! replica knows that the other one leads a later term. It is refused when the transfer was given up or somebody else leads.
//! A leader that loses its term while members change cannot know what becomes of that: the answer is "unknown", and asking
//! again tells.
//!
//! # Who leads next
//!
//! Which member campaigns first when a leader is lost can be said to each replica (`prefer`): an eager one goes before the
//! others, whatever their turn is. A status shows it. What is said so is in memory only; a replica begins as eager as the
//! configuration of its node says. Left out: a leader that hands over takes no notice of it.
//!
//! # Why asking again does no harm
//!
//! What is as asked for already is answered as done, what is on its way to it is waited for. Anything else is carried out
//! only while the members, or the term of the leader, are those by which the operator decided. So a copy of an order that
//! comes late, when others have decided otherwise, changes nothing.

use pontoon_raft::membership::{Change, Configuration, MembershipRefused, Phase, Standing};
use pontoon_raft::{ChangeRefused, Event as RaftEvent, MembersChange, Priority, TransferRefused};
use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{Generation, Member, NodeId, ReplicaId, Term, Time};
use pontoon_wire::client::{Outcome, Refusal};
use pontoon_wire::order::{GroupMember, GroupMembers, MemberStanding, Order, OrderReason};

use crate::members::{admit_transfer, may_change_members};
use crate::mutation::CoreMutation;
use crate::replica::{Asker, Replica, Slot};
use crate::{Core, OrderRefused};

/// An order that was begun, or found under way, and whose operator waits.
#[derive(Debug)]
pub(crate) struct OrderWaiter {
    pub(crate) asker: Asker,
    goal: Goal,
    /// The term in which this replica led when it took the order.
    term: Term,
    /// When the answer becomes "unknown".
    pub(crate) deadline: Time,
}

/// What an order waits for.
#[derive(Debug)]
enum Goal {
    /// Exactly these members.
    Members(Target),
    /// That this replica leads.
    Leader(ReplicaId),
}

/// The members that a group is to have.
///
/// Invariants: both lists are sorted, no node stands in them twice, and there are at most [`MEMBERS_MAX`].
#[derive(Debug)]
struct Target {
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
}

impl Core {
    /// Begins an order to a replica that leads, or waits for what is under way to the same end. The error says that nothing was
    /// begun.
    pub(crate) fn accept_order(&mut self, now: Time, asker: Asker, slot: Slot, order: Order) -> Result<(), Refusal> {
        let term = self.replicas[slot].raft.term();
        let begun = match order {
            Order::Members { generation, voters, learners } => self.begin_change(slot, generation, voters, learners),
            Order::Transfer { term, to } => self.begin_transfer(slot, term, to),
        };
        let (goal, event) = begun.map_err(|why| refusal_of(&self.replicas[slot], &why))?;
        let deadline = now + self.config.request_timeout;
        self.waiting += 1;
        self.replicas[slot].orders.push(OrderWaiter { asker, goal, term, deadline });
        match event {
            Some(event) => self.step_replica(now, slot, event),
            None => {
                self.review_orders(slot);
                self.timers.arm(slot, self.replicas[slot].deadline());
            }
        }
        Ok(())
    }

    /// Makes a replica this eager to lead. A hint, and until the next start.
    pub(crate) fn prefer(&mut self, now: Time, slot: Slot, priority: u8) -> Result<(), Refusal> {
        if priority > Priority::LAST.0 {
            let why = format!("{priority} is no priority; they go from 0 to {}", Priority::LAST.0);
            return Err(Refusal::Refused { why });
        }
        self.step_replica(now, slot, RaftEvent::Prefer(Priority(priority)));
        Ok(())
    }

    /// What the members of a group are, and what its leader knows of them.
    pub(crate) fn members_of(&self, slot: Slot) -> GroupMembers {
        let replica = &self.replicas[slot];
        let Replica { raft, me, configuration, descriptor, .. } = replica;
        let member = |(member, standing): &(Member, Standing)| {
            let is_here = member.replica == *me;
            let matched = raft.matched().find(|(peer, _)| *peer == member.replica).map(|(_, matched)| matched);
            GroupMember {
                node: member.node,
                replica: member.replica,
                standing: standing_of(*standing),
                matched: if is_here { raft.durable() } else { matched.unwrap_or_default() },
                follows: is_here || raft.replicates_to(member.replica),
            }
        };
        GroupMembers {
            group: descriptor.group,
            generation: descriptor.generation,
            leader: self.config.node,
            term: raft.term(),
            last: raft.last().index,
            is_changing: configuration.is_joint() || raft.configuration_at() > replica.applied,
            members: configuration.members().iter().map(member).collect(),
        }
    }

    fn begin_change(
        &self,
        slot: Slot,
        generation: Generation,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    ) -> Result<(Goal, Option<RaftEvent>), OrderRefused> {
        let target = Target::new(voters, learners)?;
        let replica = &self.replicas[slot];
        let (raft, now_at) = (&replica.raft, replica.descriptor.generation);
        let current = raft.configuration();
        // A leader that does not know yet what the operator saw may have been succeeded.
        if now_at >= generation && target.is_end_of(current) {
            return Ok((Goal::Members(target), None));
        }
        may_change_members(replica)?;
        if raft.configuration_at() > replica.applied {
            return Err(ChangeRefused::InFlight { at: raft.configuration_at() }.into());
        }
        if generation != now_at {
            return Err(OrderRefused::OtherGeneration { generation, now: now_at });
        }
        let changes = target.changes_of(current);
        changes.iter().try_for_each(|change| self.check_member(raft, change))?;
        let change = match changes.iter().any(|change| concerns_voters(current, change)) {
            true => MembersChange::Joint { changes, auto_leave: true },
            false => MembersChange::Simple(changes),
        };
        raft.admit_change(&change)?;
        Ok((Goal::Members(target), Some(RaftEvent::Change(change))))
    }

    fn begin_transfer(&self, slot: Slot, term: Term, to: NodeId) -> Result<(Goal, Option<RaftEvent>), OrderRefused> {
        let replica = &self.replicas[slot];
        let successor = replica.raft.configuration().replica_on(to).ok_or(OrderRefused::NoReplicaOn(to))?;
        let now = replica.raft.term();
        let is_under_way = successor == replica.me || replica.raft.transferring_to() == Some(successor);
        // A leader of an earlier term has been succeeded already, and does not know it.
        if is_under_way && now >= term {
            return Ok((Goal::Leader(successor), None));
        }
        if now != term {
            return Err(OrderRefused::OtherTerm { term, now });
        }
        admit_transfer(replica, successor, to)?;
        Ok((Goal::Leader(successor), Some(RaftEvent::Transfer(successor))))
    }

    /// Answers the orders of a replica that are over.
    pub(crate) fn review_orders(&mut self, slot: Slot) {
        let replica = &mut self.replicas[slot];
        if replica.orders.is_empty() {
            return;
        }
        let waiters = std::mem::take(&mut replica.orders);
        for waiter in waiters {
            let end = match self.config.mutated(CoreMutation::OrderDoneAtOnce) {
                true => Some(Ok(Outcome::Ordered)),
                false => end_of(&self.replicas[slot], &waiter),
            };
            let Some(result) = end else {
                self.replicas[slot].orders.push(waiter);
                continue;
            };
            self.answer(waiter.asker, result);
        }
    }

    /// Ends the waiting for orders whose time is over.
    pub(crate) fn expire_orders(&mut self, now: Time, slot: Slot) {
        let late: Vec<OrderWaiter> =
            self.replicas[slot].orders.extract_if(.., |waiter| waiter.deadline <= now).collect();
        for waiter in late {
            self.answer(waiter.asker, Err(Refusal::Unknown));
        }
    }
}

/// What the operator is to hear, once it can be said.
fn end_of(replica: &Replica, waiter: &OrderWaiter) -> Option<Result<Outcome, Refusal>> {
    let raft = &replica.raft;
    let leads = replica.leads == Some(waiter.term);
    match &waiter.goal {
        Goal::Members(target) => {
            let is_applied = replica.applied >= raft.configuration_at() && target.is(&replica.configuration);
            match is_applied {
                true => Some(Ok(Outcome::Ordered)),
                false if leads => None,
                false => Some(Err(Refusal::Unknown)),
            }
        }
        Goal::Leader(to) if leads && *to == replica.me => Some(Ok(Outcome::Ordered)),
        Goal::Leader(to) if leads && raft.transferring_to() == Some(*to) => None,
        Goal::Leader(to) if leads => Some(Err(given_up(replica, *to, "did not take over in time".to_string()))),
        Goal::Leader(to) => {
            let leader = raft.leader().filter(|_| raft.term() > waiter.term)?;
            let name = |node: Option<NodeId>| node.map_or("another node".to_string(), |node| node.to_string());
            Some(match leader == *to {
                true => Ok(Outcome::Ordered),
                false => {
                    Err(given_up(replica, *to, format!("does not lead, but {} does", name(replica.leader_node()))))
                }
            })
        }
    }
}

fn given_up(replica: &Replica, to: ReplicaId, what: String) -> Refusal {
    let node = replica.node_of(to).map_or(to.to_string(), |node| node.to_string());
    Refusal::Order { reason: OrderReason::GivenUp, why: format!("{node} {what}") }
}

impl Target {
    fn new(mut voters: Vec<NodeId>, mut learners: Vec<NodeId>) -> Result<Target, OrderRefused> {
        let named = voters.len() + learners.len();
        if named > MEMBERS_MAX {
            return Err(ChangeRefused::from(MembershipRefused::TooManyMembers { named }).into());
        }
        voters.sort_unstable();
        learners.sort_unstable();
        let mut all = [voters.as_slice(), learners.as_slice()].concat();
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(OrderRefused::NodeTwice(pair[0])),
            None => Ok(Target { voters, learners }),
        }
    }

    /// Whether these are the members of a simple configuration.
    fn is(&self, configuration: &Configuration) -> bool {
        let nodes = |wanted: Standing| {
            let of_standing = configuration.members().iter().filter(move |(_, standing)| *standing == wanted);
            let mut nodes: Vec<NodeId> = of_standing.map(|(member, _)| member.node).collect();
            nodes.sort_unstable();
            nodes
        };
        !configuration.is_joint() && nodes(Standing::Voter) == self.voters && nodes(Standing::Learner) == self.learners
    }

    /// Whether a group with this configuration has these members, or will have them by itself.
    fn is_end_of(&self, configuration: &Configuration) -> bool {
        match configuration.phase() {
            Phase::Simple => self.is(configuration),
            Phase::Joint { auto_leave } => {
                auto_leave && configuration.leave_joint().is_ok_and(|configuration| self.is(&configuration))
            }
        }
    }

    /// What has to become of whom. A replica that is new gets an identity above all that the group has ever had (law 11).
    fn changes_of(&self, current: &Configuration) -> Vec<Change> {
        let mut highest = current.highest();
        let mut changes = Vec::new();
        let wanted = self.voters.iter().map(|node| (node, Standing::Voter));
        for (node, wanted) in wanted.chain(self.learners.iter().map(|node| (node, Standing::Learner))) {
            let replica = current.replica_on(*node);
            if replica.and_then(|replica| current.standing(replica)) == Some(wanted) {
                continue;
            }
            let replica = replica.unwrap_or_else(|| {
                highest = ReplicaId(highest.0 + 1);
                highest
            });
            let member = Member { node: *node, replica };
            changes.push(if wanted == Standing::Voter { Change::Voter(member) } else { Change::Learner(member) });
        }
        let stays = |node: &NodeId| self.voters.contains(node) || self.learners.contains(node);
        let gone = current.members().iter().filter(|(member, _)| !stays(&member.node));
        changes.extend(gone.map(|(member, _)| Change::Remove(member.replica)));
        changes
    }
}

/// Whether a change makes a voter, or is about one.
fn concerns_voters(current: &Configuration, change: &Change) -> bool {
    matches!(change, Change::Voter(_)) || current.is_voter(change.replica())
}

fn standing_of(standing: Standing) -> MemberStanding {
    match standing {
        Standing::Voter => MemberStanding::Voter,
        Standing::Joining => MemberStanding::Joining,
        Standing::Leaving => MemberStanding::Leaving,
        Standing::Demoting => MemberStanding::Demoting,
        Standing::Learner => MemberStanding::Learner,
    }
}

/// What the operator hears of a refused order.
fn refusal_of(replica: &Replica, why: &OrderRefused) -> Refusal {
    match reason_of(why) {
        Some(reason) => Refusal::Order { reason, why: why.to_string() },
        None => Refusal::NotLeader { leader: replica.leader_node() },
    }
}

/// The kind of reason; none if another replica is to be asked.
fn reason_of(why: &OrderRefused) -> Option<OrderReason> {
    Some(match why {
        OrderRefused::NoGroup(_) => return None,
        OrderRefused::NoReplicaOn(_) | OrderRefused::NoNode(_) => OrderReason::UnknownNode,
        OrderRefused::UsedReplica { .. } | OrderRefused::NodeTwice(_) => OrderReason::Impossible,
        OrderRefused::NotLearner(_) => OrderReason::NewVoter,
        OrderRefused::NotCaughtUp(_) => OrderReason::NotReady,
        OrderRefused::OtherGeneration { .. } | OrderRefused::OtherTerm { .. } => OrderReason::Changed,
        OrderRefused::Change(why) => match why {
            ChangeRefused::NotLeader { .. } => return None,
            ChangeRefused::TermNotCommitted => OrderReason::NotYet,
            ChangeRefused::InFlight { .. } | ChangeRefused::Transferring { .. } | ChangeRefused::Leaving => {
                OrderReason::InFlight
            }
            ChangeRefused::Membership(MembershipRefused::NoVoter) => OrderReason::NoVoterLeft,
            ChangeRefused::Membership(MembershipRefused::AlreadyJoint) => OrderReason::InFlight,
            ChangeRefused::Membership(_) => OrderReason::Impossible,
        },
        OrderRefused::Transfer(why) => match why {
            TransferRefused::NotLeader { .. } => return None,
            TransferRefused::LeadsAlready(_) => OrderReason::Impossible,
            TransferRefused::NoMember(_) => OrderReason::UnknownNode,
            TransferRefused::NoVoter(_) => OrderReason::NotVoter,
            TransferRefused::Silent(_) | TransferRefused::Behind { .. } => OrderReason::NotReady,
            TransferRefused::InProgress { .. } | TransferRefused::Leaving => OrderReason::InFlight,
        },
    })
}
