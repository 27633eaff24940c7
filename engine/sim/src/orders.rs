//! Orders: other members and other leaders, while everything else goes wrong.
//!
//! An order is given to the core that led the group last, at a random moment. It may be refused, and that is fine: what
//! counts is that nothing breaks. Leaders are handed over in all runs that have orders. Members change only in runs whose
//! disks lose nothing for good and that have no handicap, because a group may then depend on fewer nodes than a
//! majority of all. Voters become learners and voters again, are removed, and new replicas come to life on nodes that
//! have none, one by one and through joint configurations, left by the leader or by another order. In some runs there are
//! more nodes than replicas. Now and then an order names a replica that was removed, and has to be refused.
//!
//! Half of them come from operators (`operator`).
//!
//! The checkers follow: what is committed is durable on a quorum of a configuration that was in force (`invariants`), and
//! replicas that have applied the same have the same descriptor (law 23). Reads of a group whose members have changed are
//! checked by the histories alone.

use std::time::Duration;

use pontoon_multiraft::{Change, Configuration, Event, MembersChange};
use pontoon_router::core_of;
use pontoon_types::{Descriptor, EntryKind, Generation, GroupId, Index, LogId, Member, NodeId, ReplicaId};

use crate::options::{Handicap, Options};
use crate::random::Random;
use crate::replica_log::ReplicaLog;
use crate::trace::Place;
use crate::world::World;

/// How often an order names a replica again that was removed.
const DEAD_PPM: u32 = 100_000;

/// How often orders are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderOptions {
    /// Mean time between transfers of a leadership; zero for none.
    pub transfer_interval: Duration,
    /// Mean time between changes of members; zero for none.
    pub change_interval: Duration,
}

impl OrderOptions {
    /// Draws them; what a group could not survive is left out.
    pub(crate) fn draw(random: &mut Random, options: &Options) -> OrderOptions {
        let election = options.core.election_timeout;
        let mut draw = || match random.below(3) {
            0 => Duration::ZERO,
            1 => election,
            _ => election * 4,
        };
        let (transfer_interval, change_interval) = (draw(), draw());
        let disk = &options.disk;
        let keeps_all = disk.damage_ppm == 0 && disk.payload_ppm == 0 && disk.old_image_ppm == 0;
        let safe = keeps_all && disk.scrub_interval.is_zero() && options.handicap == Handicap::None;
        OrderOptions { transfer_interval, change_interval: if safe { change_interval } else { Duration::ZERO } }
    }
}

impl World {
    /// Somebody wants another leader.
    pub(crate) fn order_transfer(&mut self) {
        let Some((group, place)) = self.draw_led() else { return };
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let to = *self.random.pick(&nodes);
        if self.operators.are_asked() {
            return self.operator_transfers(group, place, to);
        }
        self.order(place, Event::TransferLeader { group, to });
    }

    /// Somebody wants other members.
    pub(crate) fn order_change(&mut self) {
        if self.loss.has_happened() {
            return;
        }
        let Some((group, place)) = self.draw_led() else { return };
        let Some(current) = self.invariants.members(group) else { return };
        let mut members: Vec<Member> = current.members().iter().map(|(member, _)| *member).collect();
        let mut free: Vec<NodeId> = self.nodes.keys().copied().collect();
        free.retain(|node| current.replica_on(*node).is_none());
        let joint = self.random.chance(500_000);
        let (mut changes, mut highest) = (Vec::new(), current.highest());
        for _ in 0..if joint { 2 } else { 1 } {
            if !free.is_empty() && self.random.chance(600_000) {
                let node = free.swap_remove(self.random.below(free.len() as u64) as usize);
                highest = ReplicaId(highest.0 + 1);
                let replica = self.draw_dead(&current).unwrap_or(highest);
                changes.push(Change::Learner(Member { node, replica }));
            } else if !members.is_empty() {
                let member = members.swap_remove(self.random.below(members.len() as u64) as usize);
                changes.push(match self.random.below(10) {
                    0..=4 => Change::Voter(member),
                    5..=6 => Change::Learner(member),
                    _ => Change::Remove(member.replica),
                });
            }
        }
        let change = match (joint, self.random.chance(200_000)) {
            (_, true) => MembersChange::Leave,
            (true, _) => MembersChange::Joint { changes, auto_leave: self.random.chance(700_000) },
            (false, _) => MembersChange::Simple(changes),
        };
        self.read_law.members_change(group);
        if self.operators.are_asked() {
            return self.operator_changes(group, place, &current);
        }
        self.order(place, Event::ChangeMembers { group, change });
    }

    /// Now and then a replica that was removed, which no correct core takes again (law 11).
    fn draw_dead(&mut self, current: &Configuration) -> Option<ReplicaId> {
        let dead: Vec<ReplicaId> =
            (1..=current.highest().0).map(ReplicaId).filter(|it| current.has_removed(*it)).collect();
        (!dead.is_empty() && self.lives.chance(DEAD_PPM)).then(|| *self.lives.pick(&dead))
    }

    fn order(&mut self, place: Place, order: Event) {
        if self.cores.contains_key(&place) {
            self.counts.orders += 1;
            self.push(place, order);
        }
    }

    /// How many configurations the groups have applied.
    pub(crate) fn configurations_applied(&self) -> u64 {
        let applied = |founded: &Descriptor| {
            let of_group = self.cores.values().filter_map(|running| running.core.group(founded.group));
            // A group that began anew has jumped.
            let begun = self.loss.reborn.get(&founded.group).map_or(founded.generation, |of| of.generation);
            let since = |reached: Generation| if reached < begun { founded.generation } else { begun };
            let reached = of_group.map(|view| view.descriptor().generation);
            reached.map(|reached| reached.0 - since(reached).0).max().unwrap_or(0)
        };
        self.descriptors.iter().map(applied).sum()
    }

    /// A group, and the core that led it last.
    fn draw_led(&mut self) -> Option<(GroupId, Place)> {
        let groups = self.group_ids();
        let group = *self.random.pick(&groups);
        let node = self.invariants.newest_leader(group)?;
        Some((group, Place { node, core: core_of(group, self.options.cores) }))
    }
}

/// The configurations by which the entry at `id` may have been committed: the one in force where it stands, and those that
/// follow it in this log. `log` is all that the replica has written and not given up; of the rest `committed` knows.
pub(crate) fn in_force_since(
    founded: &Descriptor,
    committed: &[(Index, Configuration)],
    log: &ReplicaLog,
    id: LogId,
) -> Vec<Configuration> {
    let founders = Configuration::of_voters(founded.members.iter().copied());
    let mut found = vec![founders.expect("law: a descriptor names each replica and each node once")];
    let given_up = committed.iter().take_while(|(at, _)| *at <= log.compacted.index).cloned();
    let in_log = log.entries.iter().filter(|entry| entry.kind == EntryKind::Configuration);
    let in_log = in_log.filter_map(|entry| Some((entry.id.index, Configuration::decode(&entry.payload).ok()?)));
    for (at, configuration) in given_up.chain(in_log) {
        if at <= id.index {
            found.clear();
        }
        found.push(configuration);
    }
    found
}
