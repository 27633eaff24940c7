//! Snapshots without chunks: what one replica's log says up to an entry becomes the durable checkpoint of another one.

use pontoon_raft::Event;
use pontoon_raft::membership::Configuration;
use pontoon_types::{Entry, EntryKind, Index, LogId, ReplicaId};

use crate::checker::Disk;
use crate::cluster::Cluster;

impl Disk {
    /// The last entry of the durable checkpoint, if it reaches further than what the log has given up.
    pub fn checkpoint(&self) -> Option<LogId> {
        self.store.last().map(|last| last.id).filter(|last| last.index > self.compacted.index)
    }

    /// What a start makes of the log and a checkpoint beyond it or not in it (law 18).
    pub fn recovered(&self) -> Disk {
        let mut disk = self.clone();
        let Some(last) = self.checkpoint() else { return disk };
        if self.entries.get(last.index.0 as usize - 1).is_none_or(|held| held.id != last) {
            disk.reset(last.index);
        }
        disk.give_up(last);
        disk
    }
}

/// The members as of the end of these entries.
pub fn members_of(entries: &[Entry], founders: &Configuration) -> Configuration {
    let last = entries.iter().rev().find(|entry| entry.kind == EntryKind::Configuration);
    last.map_or(founders.clone(), |entry| Configuration::decode(&entry.payload).expect("a configuration"))
}

impl Cluster {
    /// `to` has stored a snapshot that `from` made at this entry.
    pub fn install(&mut self, from: ReplicaId, to: ReplicaId, through: Index) {
        assert!(through <= self.nodes[&from].applied, "a checkpoint holds what is applied");
        let entries = self.nodes[&from].disk.entries[..through.0 as usize].to_vec();
        let last = entries.last().expect("a snapshot holds something").id;
        let configuration = members_of(&entries, &self.founders);
        self.print(format_args!("{to} has a snapshot of {from} at {last} ({configuration})"));
        let node = self.node(to);
        if node.raft.as_ref().is_some_and(|raft| raft.wants_snapshot(last)) {
            node.applied = node.applied.max(through);
            (node.disk.store, node.written.store) = (entries.clone(), entries);
        }
        self.step(to, Event::Install { last, configuration });
    }
}
