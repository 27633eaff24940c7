//! Our core under the load.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_raft::membership::Configuration;
use pontoon_raft::{Config, Effect, Event, Raft, Restored, Role};
use pontoon_types::{Entry, Index, Member, Message, NodeId, ReplicaId, Time};

use super::{KEPT_ENTRIES, Replicas};

/// How many replicas a group has.
const REPLICAS: usize = 3;

/// All groups.
pub struct Groups(Vec<Group>);

/// Three replicas, the first of which leads.
struct Group {
    replicas: Vec<Raft>,
    /// The messages on their way, in order.
    messages: VecDeque<Message>,
    effects: Vec<Effect>,
    applied: [Index; REPLICAS],
    /// How far each replica knows that it is applied.
    told: [Index; REPLICAS],
    /// Proposals that the leader has applied.
    proposals: u64,
}

impl Groups {
    /// So many groups, each with a leader.
    pub fn new(groups: u32, payload_bytes: usize) -> Groups {
        let window_bytes_max = KEPT_ENTRIES as usize * (size_of::<Entry>() + payload_bytes);
        let config = Arc::new(Config { window_bytes_max, ..Config::default() });
        Groups((0..groups).map(|_| Group::new(&config)).collect())
    }
}

impl Replicas for Groups {
    fn propose(&mut self, batch: &[Bytes]) {
        for group in &mut self.0 {
            group.step(0, Event::Propose(batch.to_vec()));
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
    fn new(config: &Arc<Config>) -> Group {
        let ids: Vec<u64> = (1..=REPLICAS as u64).collect();
        let voters = ids.iter().map(|id| Member { node: NodeId(*id), replica: ReplicaId(*id) });
        let members = Configuration::of_voters(voters).expect("three replicas on three nodes are a configuration");
        let restored = Restored { members, ..Restored::default() };
        let replica = |id: &u64| Raft::new(config.clone(), ReplicaId(*id), restored.clone(), *id, Time(0));
        let mut group = Group {
            replicas: ids.iter().map(replica).collect(),
            messages: VecDeque::new(),
            effects: Vec::new(),
            applied: [Index(0); REPLICAS],
            told: [Index(0); REPLICAS],
            proposals: 0,
        };
        group.step(0, Event::Campaign);
        group.settle();
        assert!(group.replicas[0].role() == Role::Leader, "an undisturbed campaign is won");
        group.proposals = 0;
        group
    }

    /// Delivers messages until nobody has anything to say.
    fn settle(&mut self) {
        while let Some(message) = self.messages.pop_front() {
            self.step(message.to.0 as usize - 1, Event::Receive(message));
        }
    }

    /// One step of a replica, and what follows from it without a message.
    fn step(&mut self, replica: usize, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            self.replicas[replica].step(Time(0), event, &mut self.effects);
            let (mut written, mut committed) = (None, None);
            for effect in self.effects.drain(..) {
                match effect {
                    Effect::Append(write) => written = Some(write.number),
                    Effect::Send(message) => self.messages.push_back(message),
                    Effect::Committed(index) => committed = Some(index),
                    Effect::Role { .. } => {}
                    other => panic!("law: nothing goes wrong without a disk and a network, but {other:?}"),
                }
            }
            if let Some(through) = committed {
                self.apply(replica, through);
            }
            next = written.map(Event::Durable);
            if next.is_none() && self.told[replica] < self.applied[replica] {
                self.told[replica] = self.applied[replica];
                next = Some(Event::Applied(self.applied[replica]));
            }
        }
    }

    /// Looks at every entry, as a machine would.
    fn apply(&mut self, replica: usize, through: Index) {
        let from = self.applied[replica].next();
        let entries = self.replicas[replica].entries(from, through);
        let proposals = entries.filter(|entry| !entry.payload.is_empty()).count();
        self.applied[replica] = through;
        if replica == 0 {
            self.proposals += proposals as u64;
        }
    }
}
