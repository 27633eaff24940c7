//! The routing cache: which range a key lies in, which node is thought to lead it, and which nodes are worth asking.
//!
//! Everything here is a hint except the order of descriptors: a wrong leader costs one refusal, a stale descriptor
//! comes back corrected in the refusal, and a node that cannot be reached is left alone for a while that doubles with
//! each failure.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_router::{RoutingTable, TableError};
use pontoon_types::{CoreId, Descriptor, Generation, GroupId, Member, NodeId, Time};
use pontoon_wire::client::Routes;

/// How long a node is left alone after its first failure.
const DOWN_MIN: Duration = Duration::from_millis(20);

/// How long a node is left alone at most.
const DOWN_MAX: Duration = Duration::from_secs(1);

/// What the client believes about the cluster.
///
/// Invariants: the table has no gap and no overlap; a leader in `leaders` was named by a reply or chosen in turn.
pub struct RoutingCache {
    table: RoutingTable,
    cores: u16,
    leaders: BTreeMap<GroupId, NodeId>,
    nodes: BTreeMap<NodeId, NodeState>,
}

struct NodeState {
    address: String,
    failures: u32,
    down_until: Option<Time>,
}

/// Where to send a request for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The group that owns the key.
    pub group: GroupId,
    /// The version of the descriptor that says so.
    pub generation: Generation,
    /// The node to ask.
    pub node: NodeId,
    /// The core of that node.
    pub core: CoreId,
}

/// What a refusal's descriptor did for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It is in the table now.
    Done,
    /// It is newer but covers other keys than the descriptors it replaces, so its neighbours are missing: only a
    /// whole table helps.
    NeedsRoutes,
    /// It is not newer than what the table holds.
    Nothing,
}

impl RoutingCache {
    /// Starts from one node's copy of the table.
    pub fn new(routes: Routes) -> Result<RoutingCache, TableError> {
        let leaders = routes.ranges.iter().filter_map(|(range, leader)| Some((range.group, (*leader)?))).collect();
        let table = RoutingTable::new(routes.ranges.into_iter().map(|(range, _)| range).collect())?;
        let nodes = routes
            .nodes
            .into_iter()
            .map(|(node, address)| (node, NodeState { address, failures: 0, down_until: None }))
            .collect();
        Ok(RoutingCache { table, cores: routes.cores.max(1), leaders, nodes })
    }

    /// How many cores each node has.
    pub fn cores(&self) -> u16 {
        self.cores
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// Where a node listens, if it is known.
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node).map(|state| state.address.as_str())
    }

    /// The descriptor of the range that `key` lies in.
    pub fn descriptor(&self, key: &[u8]) -> &Descriptor {
        self.table.lookup(key)
    }

    /// The descriptor of the range of this group, if there is one.
    pub fn descriptor_of(&self, group: GroupId) -> Option<&Descriptor> {
        self.table.by_group(group)
    }

    /// Where to ask for `key`: at the leader as far as it is known, else at the next member that is worth asking. The
    /// error is the time at which the first member is worth asking again.
    pub fn route(&mut self, key: &[u8], now: Time) -> Result<Route, Time> {
        let group = self.table.lookup(key).group;
        self.route_to_leader(group, now).expect("law: a table finds its own groups")
    }

    /// The same for a group; none if no range has it.
    pub fn route_to_leader(&mut self, group: GroupId, now: Time) -> Option<Result<Route, Time>> {
        let descriptor = self.table.by_group(group)?;
        let preferred =
            self.leaders.get(&group).copied().unwrap_or_else(|| pontoon_router::preferred_leader(descriptor));
        let first = descriptor.members.iter().position(|member| member.node == preferred).unwrap_or(0);
        let in_turn = descriptor.members.iter().cycle().skip(first).take(descriptor.members.len());
        let mut earliest = None;
        for member in in_turn {
            match self.available(member.node, now) {
                Ok(()) => {
                    let route = Route {
                        group,
                        generation: descriptor.generation,
                        node: member.node,
                        core: pontoon_router::core_of(group, self.cores),
                    };
                    if route.node != preferred {
                        self.leaders.insert(group, route.node);
                    }
                    return Some(Ok(route));
                }
                Err(until) => earliest = Some(earliest.map_or(until, |time: Time| time.min(until))),
            }
        }
        Some(Err(earliest.unwrap_or(now + DOWN_MAX)))
    }

    /// Where to ask for `key` when any replica will do: the members in turn, beginning with the one after the leader, so
    /// that the leader comes last. `attempts` were made before.
    pub fn route_to_replica(&self, key: &[u8], attempts: u32, now: Time) -> Result<Route, Time> {
        let descriptor = self.table.lookup(key);
        let (group, members) = (descriptor.group, &descriptor.members);
        let leader = self.leaders.get(&group).copied().unwrap_or_else(|| pontoon_router::preferred_leader(descriptor));
        let leader = members.iter().position(|member| member.node == leader).unwrap_or(0);
        let first = leader + 1 + attempts as usize;
        let mut in_turn = members.iter().cycle().skip(first % members.len().max(1)).take(members.len());
        let available = in_turn.find(|member| self.available(member.node, now).is_ok());
        let route = |member: &Member| Route {
            group,
            generation: descriptor.generation,
            node: member.node,
            core: pontoon_router::core_of(group, self.cores),
        };
        available.map(route).ok_or(now + DOWN_MIN)
    }

    /// Any node that is worth asking, the lowest first.
    pub fn any_node(&self, now: Time) -> Result<NodeId, Time> {
        let mut earliest = now + DOWN_MAX;
        for node in self.nodes() {
            match self.available(node, now) {
                Ok(()) => return Ok(node),
                Err(until) => earliest = earliest.min(until),
            }
        }
        Err(earliest)
    }

    fn available(&self, node: NodeId, now: Time) -> Result<(), Time> {
        match self.nodes.get(&node) {
            None => Err(now + DOWN_MAX),
            Some(NodeState { down_until: Some(until), .. }) if *until > now => Err(*until),
            Some(_) => Ok(()),
        }
    }

    /// `asked` does not lead `group`; it names `hint`. Returns whether the next try goes to a node that was named.
    ///
    /// Many requests of one group may be refused at once by the same node; only the first one moves the cache on.
    pub fn not_leader(&mut self, group: GroupId, asked: NodeId, hint: Option<NodeId>) -> bool {
        let Some(descriptor) = self.table.by_group(group) else { return false };
        if let Some(leader) = hint.filter(|leader| *leader != asked && descriptor.replica_on(*leader).is_some()) {
            self.leaders.insert(group, leader);
            return true;
        }
        let believed = self.leaders.get(&group).copied();
        if believed.is_none_or(|leader| leader == asked) {
            let place = descriptor.members.iter().position(|member| member.node == asked).map_or(0, |place| place + 1);
            if !descriptor.members.is_empty() {
                self.leaders.insert(group, descriptor.members[place % descriptor.members.len()].node);
            }
        }
        false
    }

    /// A refusal brought a descriptor.
    pub fn accept(&mut self, descriptor: &Descriptor, leader: Option<NodeId>) -> Repair {
        if let Some(leader) = leader.filter(|leader| descriptor.replica_on(*leader).is_some()) {
            self.leaders.insert(descriptor.group, leader);
        }
        if descriptor.generation <= self.table.lookup(&descriptor.range.start).generation {
            return Repair::Nothing;
        }
        if self.table.accept(descriptor.clone()) { Repair::Done } else { Repair::NeedsRoutes }
    }

    /// A node told its whole table. Returns whether it was taken: not when any part of it is older than what is known.
    pub fn refresh(&mut self, routes: Routes) -> bool {
        let Ok(fresh) = RoutingCache::new(routes) else { return false };
        let is_older = |own: &Descriptor, new: &Descriptor| own.generation > new.generation;
        for new in &fresh.table {
            let mut owns = self.table.overlapping(&new.range.start, new.range.end.as_deref());
            if owns.any(|own| is_older(own, new)) {
                return false;
            }
        }
        self.table = fresh.table;
        self.leaders.extend(fresh.leaders);
        for (node, state) in fresh.nodes {
            self.nodes.entry(node).or_insert(state);
        }
        true
    }

    /// A connection to `node` failed: it is left alone for a while.
    pub fn node_down(&mut self, node: NodeId, now: Time) {
        if let Some(state) = self.nodes.get_mut(&node) {
            let pause = DOWN_MIN * 2u32.pow(state.failures.min(6));
            state.failures += 1;
            state.down_until = Some(now + pause.min(DOWN_MAX));
        }
    }

    /// A connection to `node` was welcomed.
    pub fn node_up(&mut self, node: NodeId) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.failures = 0;
            state.down_until = None;
        }
    }
}
