//! The `raft` crate under the same load, the way its documentation drives it.
//!
//! A batch is one proposal message with many entries, which costs the crate less than one call for each. Limits of messages
//! and of what is in flight are ours. Its storage in memory is cut back now and then, as nobody needs old entries here.

use std::collections::VecDeque;

use bytes::Bytes;
use pontoon_types::limits::{APPEND_BYTES_MAX, INFLIGHT_MESSAGES_MAX};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use slog::{Discard, Logger, o};

use super::{KEPT_ENTRIES, Replicas};

/// The identities of the replicas of a group. The first one leads.
const REPLICAS: [u64; 3] = [1, 2, 3];

/// Entries between two cuts of a storage.
const CUT_EVERY_ENTRIES: u64 = KEPT_ENTRIES as u64;

/// All groups.
pub struct Groups(Vec<Group>);

struct Group {
    nodes: Vec<RawNode<MemStorage>>,
    messages: VecDeque<Message>,
    /// The index at which each storage is cut back next.
    cut_at: [u64; REPLICAS.len()],
    /// Proposals that the leader has applied.
    proposals: u64,
}

impl Groups {
    /// So many groups, each with a leader.
    pub fn new(groups: u32) -> Groups {
        Groups((0..groups).map(|_| Group::new()).collect())
    }
}

impl Replicas for Groups {
    fn propose(&mut self, batch: &[Bytes]) {
        for group in &mut self.0 {
            group.propose(batch);
        }
        for group in &mut self.0 {
            group.settle();
        }
    }

    fn applied(&self) -> u64 {
        self.0.iter().map(|group| group.proposals).sum()
    }
}

impl Group {
    fn new() -> Group {
        let logger = Logger::root(Discard, o!());
        let node = |id: &u64| {
            let config = Config {
                id: *id,
                max_size_per_msg: APPEND_BYTES_MAX as u64,
                max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
                pre_vote: true,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((REPLICAS.to_vec(), Vec::new()));
            RawNode::new(&config, storage, &logger).expect("the configuration of the peer is right")
        };
        let nodes = REPLICAS.iter().map(node).collect();
        let mut group =
            Group { nodes, messages: VecDeque::new(), cut_at: [2 * CUT_EVERY_ENTRIES; REPLICAS.len()], proposals: 0 };
        group.nodes[0].campaign().expect("a replica may campaign");
        group.settle();
        assert!(group.nodes[0].raft.state == StateRole::Leader, "an undisturbed campaign is won");
        group.proposals = 0;
        group
    }

    fn propose(&mut self, batch: &[Bytes]) {
        let entry = |payload: &Bytes| Entry { data: payload.clone(), ..Entry::default() };
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: REPLICAS[0],
            entries: batch.iter().map(entry).collect::<Vec<_>>().into(),
            ..Message::default()
        };
        self.nodes[0].raft.step(message).expect("a leader takes proposals");
    }

    /// Carries out what is ready and delivers messages until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            for node in 0..self.nodes.len() {
                while self.nodes[node].has_ready() {
                    self.carry_out(node);
                }
            }
            let Some(message) = self.messages.pop_front() else { return };
            let to = message.to as usize - 1;
            self.nodes[to].step(message).expect("a replica takes a message of its group");
        }
    }

    fn carry_out(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let mut ready = node.ready();
        self.messages.extend(ready.take_messages());
        let mut applied = ready.take_committed_entries();
        let storage = node.store().clone();
        if !ready.entries().is_empty() {
            storage.wl().append(ready.entries()).expect("entries follow each other");
        }
        if let Some(hard_state) = ready.hs() {
            storage.wl().set_hardstate(hard_state.clone());
        }
        self.messages.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            storage.wl().mut_hard_state().set_commit(commit);
        }
        self.messages.extend(light.take_messages());
        applied.extend(light.take_committed_entries());
        node.advance_apply();
        if let Some(last) = applied.last()
            && last.index >= self.cut_at[place]
        {
            self.cut_at[place] = last.index + CUT_EVERY_ENTRIES;
            storage.wl().compact(last.index - u64::from(KEPT_ENTRIES)).expect("the log is longer than that");
        }
        if place == 0 {
            self.proposals += applied.iter().filter(|entry| !entry.data.is_empty()).count() as u64;
        }
    }
}
