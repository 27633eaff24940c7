//! What becomes of one group when a part of its members is lost for good: a pure function of what the survivors hold.
//!
//! # Which groups
//!
//! A group that can still decide is left alone, because a recovery throws away what only the lost members know. It can
//! decide when survivors that vote are a quorum of the configuration in force where the most complete log is, or when one
//! of them would win an election among them by Raft's own rules.
//!
//! # Which log
//!
//! Of those that hold everything that is known to be committed, the one with the highest last entry, compared as elections
//! compare logs. To have the highest last entry is not enough: a leader of a later term, of which only lost members have
//! entries, may have committed what a survivor with a shorter log has and that one has not. If such a survivor has made a
//! checkpoint of it, or its log notes that it has heard of the commit, the entry is known to be committed. If not, nothing
//! tells; entries of a survivor that the chosen
//! log does not have are named ([`GroupPlan::dropped`]), and go.
//!
//! # What may be missing
//!
//! What was acknowledged was on a quorum. If the lost members are no quorum without the survivors, in none of the
//! configurations that a survivor knows, then each quorum has a survivor in it, and with it a log at least as high as the last
//! that was committed: nothing that was acknowledged is missing.
//! There is one way round that: somebody had a survivor removed from the group, and no survivor has heard of it. If the lost
//! members are a quorum, they may have acknowledged writes of which no survivor has ever heard, and nobody can say how many.
//! A replica that does not know its vote any more (a repaired log) counts as lost here: its log may have been longer.
//!
//! The other way round: entries behind what is known to be committed are kept though nothing shows that they ever were. A
//! client that heard "unknown" of such a write will find it done.
//!
//! # Who goes on
//!
//! All survivors that were members, as voters under replicas that never were. Nothing that was ever sent names them, and
//! nothing that they send names a replica of before: an old member that comes back is neither heard nor asked (law 11).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pontoon_raft::membership::Configuration;
use pontoon_types::limits::RECOVERY_JUMP;
use pontoon_types::{ClusterId, Generation, GroupId, HardState, Index, LogId, Member, NodeId, ReplicaId, Term};

use super::term_at;
use crate::mutation::CoreMutation;

/// How a plan is made. There is one way, and the bugs that are put in on purpose.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// A bug put in on purpose.
    #[cfg(feature = "mutations")]
    pub mutation: Option<CoreMutation>,
}

/// A replica of a group as a survivor holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurvivingReplica {
    /// Which one.
    pub replica: ReplicaId,
    /// Its term and vote.
    pub hard_state: HardState,
    /// What it voted is not known, or its core was refused by its peers (law 12): it never votes.
    pub vote_lost: bool,
    /// Everything up to here is committed, as a checkpoint, a compacted log or a note in the log shows.
    pub committed: LogId,
    /// Its log begins behind this entry.
    pub compacted: LogId,
    /// The first entry of its log, and the first of each later term.
    pub starts: Vec<LogId>,
    /// Its last entry.
    pub last: LogId,
    /// The members as of its checkpoint or its beginning, and then those of each later entry that names them. The last are in
    /// force.
    pub configurations: Vec<Configuration>,
    /// The highest version of the descriptor that it may know.
    pub generation: Generation,
    /// Why nobody can go on from it, if so.
    pub unusable: Option<String>,
}

impl SurvivingReplica {
    /// The members in force.
    pub fn members(&self) -> &Configuration {
        self.configurations.last().expect("law: a replica knows its members as of its checkpoint or of its beginning")
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        term_at(self.compacted, &self.starts, self.last.index, index)
    }

    /// Whether its log holds an entry that is known to be committed. There is no other in the place of one that is given up.
    fn holds(&self, committed: LogId) -> bool {
        committed.index < self.compacted.index || self.term_at(committed.index) == Some(committed.term)
    }

    /// How many entries its log has that the other has not. Equal entries stand behind equal ones (log matching).
    fn entries_beyond(&self, other: &SurvivingReplica) -> u64 {
        let is_shared = |index: u64| {
            let (own, others) = (self.term_at(Index(index)), other.term_at(Index(index)));
            own.is_some() && own == others || index <= other.compacted.index.0
        };
        let (mut shared, mut end) = (self.compacted.index.0, self.last.index.0 + 1);
        while shared + 1 < end {
            let middle = shared + (end - shared) / 2;
            if is_shared(middle) {
                shared = middle;
            } else {
                end = middle;
            }
        }
        self.last.index.0 - shared
    }
}

/// What becomes of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupId,
    /// What the survivors hold of it. At least one does.
    pub survivors: BTreeMap<NodeId, SurvivingReplica>,
    /// The survivor with the most complete log.
    pub base: NodeId,
    /// The voters in force that are not among the survivors.
    pub lost: Vec<Member>,
    /// Everything up to here is known to be committed.
    pub committed: LogId,
    /// What is done.
    pub verdict: Verdict,
}

/// What is done with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it can decide without the lost members.
    LeftAlone(String),
    /// Nothing: there is nothing to go on from.
    Refused(String),
    /// It begins anew with the survivors.
    Recover(Recovery),
}

/// How a group begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The survivors as voters, under new replicas.
    pub configuration: Configuration,
    /// The entry with that configuration, behind the last one of the base.
    pub entry: LogId,
    /// The version of the descriptor.
    pub generation: Generation,
    /// The lost members may have acknowledged writes that no survivor has.
    pub may_miss: bool,
}

impl GroupPlan {
    /// The survivor from which the group goes on.
    pub fn base(&self) -> &SurvivingReplica {
        &self.survivors[&self.base]
    }

    /// How it begins anew, if it does.
    pub fn recovery(&self) -> Option<&Recovery> {
        match &self.verdict {
            Verdict::Recover(recovery) => Some(recovery),
            Verdict::LeftAlone(_) | Verdict::Refused(_) => None,
        }
    }

    /// The survivors with entries that the base does not have, and how many these are: they go.
    pub fn dropped(&self) -> Vec<(NodeId, u64)> {
        let beyond = self.survivors.iter().map(|(node, of)| (*node, of.entries_beyond(self.base())));
        beyond.filter(|(_, entries)| *entries > 0).collect()
    }

    /// How many entries are kept though nothing shows that they were committed.
    pub fn unproven_entries(&self) -> u64 {
        self.base().last.index.0.saturating_sub(self.committed.index.0)
    }
}

/// What becomes of all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster.
    pub cluster: ClusterId,
    /// The nodes whose directories are at hand.
    pub survivors: Vec<NodeId>,
    /// The other nodes of the cluster.
    pub lost: Vec<NodeId>,
    /// The nodes of the cluster afterwards: the survivors, and lost ones only if a group that does not begin anew may need
    /// them.
    pub nodes: Vec<NodeId>,
    /// The groups that survivors hold, in the order of their numbers.
    pub groups: Vec<GroupPlan>,
    /// Groups that the cluster began with and no survivor holds. Nothing is known of them.
    pub absent: Vec<GroupId>,
}

impl Plan {
    /// The plan for a cluster of these nodes that began with `initial` groups, by what its survivors have.
    pub fn for_survivors(
        rules: &Rules,
        cluster: ClusterId,
        nodes: &BTreeSet<NodeId>,
        initial: impl IntoIterator<Item = GroupId>,
        survivors: BTreeMap<NodeId, BTreeMap<GroupId, SurvivingReplica>>,
    ) -> Plan {
        let names = survivors.keys().copied().collect();
        let mut found: BTreeMap<GroupId, BTreeMap<NodeId, SurvivingReplica>> = BTreeMap::new();
        for (node, replicas) in survivors {
            for (group, of) in replicas {
                found.entry(group).or_default().insert(node, of);
            }
        }
        let absent = initial.into_iter().filter(|group| !found.contains_key(group)).collect();
        let groups = found.into_iter().map(|(group, survivors)| plan_by(rules, group, survivors)).collect();
        Plan::of(cluster, nodes, names, groups, absent)
    }

    /// The plan for a cluster of these nodes.
    pub fn of(
        cluster: ClusterId,
        nodes: &BTreeSet<NodeId>,
        survivors: Vec<NodeId>,
        groups: Vec<GroupPlan>,
        absent: Vec<GroupId>,
    ) -> Plan {
        let lost: Vec<NodeId> = nodes.iter().filter(|node| !survivors.contains(node)).copied().collect();
        let needed = |node: &NodeId| {
            let others = groups.iter().filter(|group| group.recovery().is_none());
            let mut members = others.flat_map(|group| group.survivors.values().map(SurvivingReplica::members));
            !absent.is_empty() || members.any(|of| of.replica_on(*node).is_some())
        };
        let nodes = nodes.iter().filter(|node| survivors.contains(node) || needed(node)).copied().collect();
        Plan { cluster, survivors, lost, nodes, groups, absent }
    }
}

/// Decides about a group of which at least one survivor holds a replica.
pub fn plan(group: GroupId, survivors: BTreeMap<NodeId, SurvivingReplica>) -> GroupPlan {
    plan_by(&Rules::default(), group, survivors)
}

fn plan_by(rules: &Rules, group: GroupId, survivors: BTreeMap<NodeId, SurvivingReplica>) -> GroupPlan {
    let committed = survivors.values().map(|of| of.committed).max().unwrap_or_default();
    let base = match rules.mutated(CoreMutation::AnyBase) {
        true => *survivors.keys().next().expect("law: a survivor holds a replica of a group that is planned for"),
        false if rules.mutated(CoreMutation::HighestEntryAlone) => most_complete(&survivors, LogId::default()),
        false => most_complete(&survivors, committed),
    };
    let members = survivors[&base].members();
    let is_here = |member: &Member| survivors.get(&member.node).is_some_and(|of| of.replica == member.replica);
    let voters = members.members().iter().filter(|(_, standing)| standing.votes()).map(|(member, _)| *member);
    let lost = voters.filter(|member| !is_here(member)).collect();
    let verdict = verdict(rules, &survivors, base);
    GroupPlan { group, base, lost, committed, verdict, survivors }
}

/// Of equal logs one that can be gone on from, then the lowest node.
fn most_complete(survivors: &BTreeMap<NodeId, SurvivingReplica>, committed: LogId) -> NodeId {
    let rank = |(node, of): &(&NodeId, &SurvivingReplica)| (of.last, of.unusable.is_none(), Reverse(**node));
    let best = survivors.iter().filter(|(_, of)| of.holds(committed)).max_by_key(rank);
    *best.expect("law: a survivor holds what it knows to be committed").0
}

fn verdict(rules: &Rules, survivors: &BTreeMap<NodeId, SurvivingReplica>, base: NodeId) -> Verdict {
    let of_base = &survivors[&base];
    let members = of_base.members();
    if is_quorum(members, survivors, |_| true) {
        let why = "a majority of its voters survives, of both halves if it is joint: start the nodes, and it elects a \
                   leader";
        return Verdict::LeftAlone(why.to_string());
    }
    if let Some(node) = survivors.keys().copied().find(|node| could_win(survivors, *node)) {
        let why = format!("its replica on {node} can be elected by survivors: start the nodes");
        return Verdict::LeftAlone(why);
    }
    if let Some(why) = &of_base.unusable {
        return Verdict::Refused(format!("the most complete log is that of {base}, and {why}"));
    }
    let is_old = rules.mutated(CoreMutation::KeepReplicas);
    let members = if is_old { old_members(survivors) } else { new_members(survivors, base) };
    let terms = survivors.values().map(|of| of.hard_state.term.max(of.last.term).0);
    let generations = survivors.values().map(|of| of.generation.0);
    let ahead = |numbers: Option<u64>| numbers.and_then(|highest| highest.checked_add(RECOVERY_JUMP));
    let numbers = (members, ahead(terms.max()), ahead(generations.max()));
    let (Some(configuration), Some(term), Some(generation)) = numbers else {
        return Verdict::Refused("its numbers are used up".to_string());
    };
    let mut known = survivors.values().flat_map(|of| &of.configurations);
    Verdict::Recover(Recovery {
        configuration,
        entry: LogId::new(of_base.last.index.next(), Term(term)),
        generation: Generation(generation),
        may_miss: known.any(|members| can_decide_apart(members, survivors)),
    })
}

/// Whether survivors that vote, and of which `counts` holds, are a quorum.
fn is_quorum(
    members: &Configuration,
    survivors: &BTreeMap<NodeId, SurvivingReplica>,
    counts: impl Fn(&SurvivingReplica) -> bool,
) -> bool {
    members.is_quorum(|replica| {
        let of = members.node_of(replica).and_then(|node| survivors.get(&node));
        of.is_some_and(|of| of.replica == replica && !of.vote_lost && counts(of))
    })
}

/// Whether the survivor's replica would be elected if all survivors were started.
fn could_win(survivors: &BTreeMap<NodeId, SurvivingReplica>, node: NodeId) -> bool {
    let of = &survivors[&node];
    let is_candidate = !of.vote_lost && of.members().is_voter(of.replica);
    is_candidate && is_quorum(of.members(), survivors, |other| other.last <= of.last)
}

/// Whether those that are lost, or have forgotten, can have decided without any other survivor.
fn can_decide_apart(members: &Configuration, survivors: &BTreeMap<NodeId, SurvivingReplica>) -> bool {
    members.is_quorum(|replica| {
        let of = members.node_of(replica).and_then(|node| survivors.get(&node));
        of.is_none_or(|of| of.replica != replica || of.vote_lost)
    })
}

/// The survivors under the replicas that they were, which is the bug that law 11 forbids.
fn old_members(survivors: &BTreeMap<NodeId, SurvivingReplica>) -> Option<Configuration> {
    let members = survivors.iter().map(|(node, of)| Member { node: *node, replica: of.replica });
    Configuration::of_voters(members).ok()
}

/// The base, and the survivors that it knows as members, each under a replica above every one that was ever named.
fn new_members(survivors: &BTreeMap<NodeId, SurvivingReplica>, base: NodeId) -> Option<Configuration> {
    let known = survivors[&base].members();
    let named = survivors.values().flat_map(|of| of.configurations.iter().map(Configuration::highest));
    let highest = named.chain(survivors.values().map(|of| of.replica)).max()?;
    let first = highest.0.checked_add(RECOVERY_JUMP)?;
    let stays = |node: NodeId, of: &SurvivingReplica| node == base || known.node_of(of.replica) == Some(node);
    let nodes = survivors.iter().filter(|(node, of)| stays(**node, of)).map(|(node, _)| *node);
    let members = nodes.zip(first..).map(|(node, replica)| Member { node, replica: ReplicaId(replica) });
    Configuration::of_voters(members).ok()
}
