//! Faults of the network that happen at a time: partitions, frames that are very late, narrow links, storms of resets.
//! What happens to single frames is decided when they are sent (`network`).

use pontoon_types::NodeId;

use crate::trace::{Happening, Place};
use crate::world::{Due, Phase, World};

impl World {
    /// Symmetric halves, one node cut off, one direction only, two halves with one node between them, or random ways.
    pub(crate) fn inject_partition(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        if nodes.len() < 2 {
            return;
        }
        self.heal_partitions();
        let lone = self.draw_leader_or_any();
        let left: Vec<bool> = nodes.iter().map(|_| self.random.chance(500_000)).collect();
        let kind = self.random.below(6);
        let mut ways = Vec::new();
        for (from_place, from) in nodes.iter().enumerate() {
            for (to_place, to) in nodes.iter().enumerate() {
                let apart = left[from_place] != left[to_place];
                let blocked = match kind {
                    0 => apart,
                    1 => *from == lone || *to == lone,
                    2 => *from == lone,
                    3 => *to == lone,
                    4 => apart && *from != lone && *to != lone,
                    _ => self.random.chance(300_000),
                };
                if blocked && from != to {
                    ways.push((*from, *to));
                }
            }
        }
        self.partition(ways);
        let length = self.random.until_next(self.options.network.partition_length);
        self.queue.put(self.queue.now() + length, Due::Heal(self.network.partitions));
    }

    /// Cuts the first node off, and the others after it.
    pub(crate) fn isolate_next(&mut self, mut nodes: Vec<NodeId>) {
        if self.phase != Phase::Faults {
            return;
        }
        self.heal_partitions();
        if nodes.is_empty() {
            return;
        }
        let lone = nodes.remove(0);
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != lone).collect();
        self.partition(others.into_iter().flat_map(|node| [(lone, node), (node, lone)]).collect());
        let length = self.random.until_next(self.options.network.roll_length);
        self.queue.put(self.queue.now() + length, Due::IsolateNext(nodes));
    }

    /// Frames of one node, or all, take longer than an election for a while.
    pub(crate) fn inject_lag(&mut self) {
        let now = self.queue.now();
        let node = self.random.chance(700_000).then(|| self.draw_leader_or_any());
        let until = now + self.random.until_next(self.options.network.lag_length);
        self.network.lag = Some((until, node));
        self.counts.lags += 1;
        self.trace.note(now, Happening::Lag(node, until.since(now)));
    }

    /// A link carries little for a while.
    pub(crate) fn inject_narrow_link(&mut self) {
        let Some((from, to)) = self.draw_link() else { return };
        let now = self.queue.now();
        let until = now + self.random.until_next(self.options.network.narrow_length);
        if let Some(link) = self.network.links.get_mut(&(from, to)) {
            link.narrow_until = until;
        }
        self.counts.narrow_links += 1;
        self.trace.note(now, Happening::NarrowLink(from, to, until.since(now)));
    }

    /// Links are reset again and again, as by a middlebox: of all nodes, or all of one.
    pub(crate) fn inject_resets(&mut self) {
        let node = self.random.chance(500_000).then(|| self.draw_leader_or_any());
        let hit = |place: &Place, to: &NodeId| node.is_none_or(|node| place.node == node || *to == node);
        let links: Vec<(Place, NodeId)> =
            self.network.links.keys().copied().filter(|(place, to)| hit(place, to)).collect();
        if links.is_empty() {
            return;
        }
        let resets = self.random.between(4, 40);
        for _ in 0..resets {
            let (from, to) = *self.random.pick(&links);
            let at = self.queue.now() + self.random.until_next(self.options.network.reset_length / 2);
            self.queue.put(at, Due::Reset(from, to));
        }
        self.trace.note(self.queue.now(), Happening::Resets(node, resets));
    }
}
