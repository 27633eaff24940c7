//! What clients ask: the checks, the refusals, and the way into `propose` or `read`.
//!
//! A request that is refused here changed nothing, and the refusal carries what the client needs to do better: the
//! leader, or the descriptor that replaced the one it knows.

use bytes::Bytes;
use pontoon_raft::ProposalRefused;
use pontoon_router::preferred_leader;
use pontoon_types::limits::{APPLY_BACKLOG_ENTRIES_MAX, CORE_REQUESTS_MAX, KEY_BYTES_MAX, REPORT_BYTES_PER_TURN};
use pontoon_types::{Descriptor, Generation, GroupId, KeyRange, NodeId, RequestId, Time};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, Refusal, Request, RequestFrame, Routes};
use pontoon_wire::command::Command;

use crate::mutation::CoreMutation;
use crate::replica::{Asker, Outcomes, Proposal, Query, Read, Slot, Waiter};
use crate::sessions::{Seen, Sessions};
use crate::{ConnectionId, Core, Effects};

/// What a client of a busy core is told: try again soon.
const BUSY: Refusal = Refusal::Busy { retry_after_ms: 5 };

/// Most bytes of a key shown in a refusal.
const SHOWN_KEY_BYTES: usize = 64;

impl Core {
    /// Steps every request of a client's frame. What is not a frame closes the connection.
    pub(crate) fn receive_client_frame(
        &mut self,
        now: Time,
        connection: ConnectionId,
        bytes: Bytes,
        effects: &mut Effects,
    ) {
        self.counters.client_frames += 1;
        let frame = match RequestFrame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                effects.close.push((connection, error.to_string()));
                return;
            }
        };
        for Request { sequence, operation } in frame.requests {
            self.counters.requests += 1;
            let asker = Asker { connection, sequence };
            if let Err(refusal) = self.accept(now, asker, operation) {
                self.reply(asker, Err(refusal));
            }
        }
    }

    fn accept(&mut self, now: Time, asker: Asker, operation: Operation) -> Result<(), Refusal> {
        let deadline = now + self.config.request_timeout;
        match operation {
            Operation::Routes => {
                let routes = self.report_allowed().map(|()| Outcome::Routes(self.routes()))?;
                self.report_bytes += self.reply(asker, Ok(routes));
            }
            Operation::Status => {
                let status = self.report_allowed().map(|()| Outcome::Status(self.status()))?;
                self.report_bytes += self.reply(asker, Ok(status));
            }
            Operation::Order { group, generation, order } => {
                let slot = self.leading_slot(group, generation)?;
                self.accept_order(now, asker, slot, order)?;
            }
            Operation::Members { group, generation } => {
                let members = self.members_of(self.leading_slot(group, generation)?);
                self.reply(asker, Ok(Outcome::Members(members)));
            }
            Operation::Prefer { group, priority } => {
                let slot = self.serving_slot(group, None)?;
                self.prefer(now, slot, priority)?;
                self.reply(asker, Ok(Outcome::Ordered));
            }
            Operation::Write { group, generation, command } => {
                let decoded = Command::decode(command.clone());
                let decoded = decoded.map_err(|error| Refusal::Refused { why: error.to_string() })?;
                // Law 24: the id comes first. What became of the request does not depend on where it should go by now.
                if let Some(slot) = self.slot_of(group) {
                    if let Some(outcomes) = self.remembered(slot, decoded.id)? {
                        self.reply(asker, Ok(Outcome::Written(outcomes)));
                        return Ok(());
                    }
                    if self.join_in_flight(slot, decoded.id, asker)? {
                        return Ok(());
                    }
                }
                let slot = self.leading_slot(group, Some(generation))?;
                self.admit(slot, &decoded, command.len())?;
                self.gather_proposal(slot, Proposal { command, id: decoded.id, asker });
            }
            Operation::Get { group, generation, key, level } => {
                short_enough(&key)?;
                let slot = self.reading_slot(group, generation, level)?;
                self.check_inside(slot, &key)?;
                self.gather_read(slot, level, Read { asker, query: Query::Get { key }, deadline, max_age: None });
            }
            Operation::Scan { group, generation, start, end, limit, level } => {
                short_enough(&start)?;
                short_enough(end.as_deref().unwrap_or_default())?;
                let slot = self.reading_slot(group, generation, level)?;
                let range = &self.replicas[slot].descriptor.range;
                let (start, end) = clip(range, start, end);
                let query = Query::Scan { start, end, limit };
                self.gather_read(slot, level, Read { asker, query, deadline, max_age: None });
            }
        }
        Ok(())
    }

    /// Reports are long, so a turn makes only so many bytes of them.
    fn report_allowed(&self) -> Result<(), Refusal> {
        if self.report_bytes < REPORT_BYTES_PER_TURN { Ok(()) } else { Err(BUSY) }
    }

    /// The replica that leads `group` here, if the client's idea of the range is current and there is room.
    fn leading_slot(&self, group: GroupId, generation: Option<Generation>) -> Result<Slot, Refusal> {
        let slot = self.serving_slot(group, generation)?;
        let replica = &self.replicas[slot];
        if replica.leads.is_none() {
            return Err(Refusal::NotLeader { leader: replica.leader_node() });
        }
        Ok(slot)
    }

    /// The replica of `group` here that may serve a read of this level.
    fn reading_slot(&self, group: GroupId, generation: Generation, level: ReadLevel) -> Result<Slot, Refusal> {
        match level {
            ReadLevel::Linearizable => self.leading_slot(group, Some(generation)),
            ReadLevel::Follower | ReadLevel::Stale { .. } => self.serving_slot(group, Some(generation)),
        }
    }

    /// The replica of `group` here, if the client's idea of the range is current, or it has none, and there is room.
    fn serving_slot(&self, group: GroupId, generation: Option<Generation>) -> Result<Slot, Refusal> {
        let Some(slot) = self.slot_of(group) else {
            return Err(match self.routing.by_group(group) {
                Some(descriptor) => stale(descriptor, None),
                None => Refusal::Refused { why: format!("no range has group {group}; ask for the routes again") },
            });
        };
        let replica = &self.replicas[slot];
        let is_outdated = generation.is_some_and(|generation| generation != replica.descriptor.generation);
        if is_outdated && !self.config.mutated(CoreMutation::AnyGeneration) {
            return Err(stale(&replica.descriptor, replica.leader_node()));
        }
        self.room()?;
        Ok(slot)
    }

    /// Whether one more request may wait.
    fn room(&self) -> Result<(), Refusal> {
        if self.waiting < CORE_REQUESTS_MAX { Ok(()) } else { Err(BUSY) }
    }

    /// What a request came to that was executed before. The error says that it never will be executed by this attempt.
    fn remembered(&self, slot: Slot, id: RequestId) -> Result<Option<Outcomes>, Refusal> {
        let sessions = &self.replicas[slot].sessions;
        answer_of(sessions.seen(id), sessions)
    }

    /// Lets a later attempt of a request wait for the entry of an earlier one.
    fn join_in_flight(&mut self, slot: Slot, id: RequestId, asker: Asker) -> Result<bool, Refusal> {
        let Some((entry, deadline)) = self.replicas[slot].in_flight.get(&id).copied() else { return Ok(false) };
        self.room()?;
        self.waiting += 1;
        self.replicas[slot].wait(Waiter { entry, id, asker, deadline });
        Ok(true)
    }

    /// Whether a command of so many bytes may become an entry now.
    fn admit(&mut self, slot: Slot, decoded: &Command, command_bytes: usize) -> Result<(), Refusal> {
        let replica = &self.replicas[slot];
        decoded.check()?;
        let (bytes, limit_bytes) = (command_bytes as u64, self.config.command_bytes_max as u64);
        if bytes > limit_bytes {
            return Err(Refusal::TooLarge { limit: "command_bytes_max".to_string(), limit_bytes, bytes });
        }
        for operation in &decoded.operations {
            self.check_inside(slot, operation.key())?;
        }
        let gathered = replica.proposal_bytes;
        if self.apply_lag(slot) >= APPLY_BACKLOG_ENTRIES_MAX
            || (gathered > 0 && gathered + command_bytes > self.config.proposal_bytes_max)
        {
            return Err(BUSY);
        }
        match replica.raft.admit(gathered + command_bytes) {
            Ok(()) if self.log_space.take_proposal(command_bytes, self.config.log_uncommitted_bytes_max) => Ok(()),
            Ok(()) => Err(BUSY),
            Err(ProposalRefused::NotLeader { .. }) => Err(Refusal::NotLeader { leader: replica.leader_node() }),
            Err(ProposalRefused::Full | ProposalRefused::Transferring { .. } | ProposalRefused::Leaving) => Err(BUSY),
        }
    }

    fn check_inside(&self, slot: Slot, key: &[u8]) -> Result<(), Refusal> {
        if self.config.mutated(CoreMutation::AnyKey) { Ok(()) } else { inside(&self.replicas[slot].descriptor, key) }
    }

    /// Everything a client needs to find its way. For groups of other cores the leader is a guess.
    fn routes(&self) -> Routes {
        let leader = |descriptor: &Descriptor| -> Option<NodeId> {
            match self.slot_of(descriptor.group) {
                Some(slot) => self.replicas[slot].leader_node(),
                None => Some(preferred_leader(descriptor)),
            }
        };
        Routes {
            node: self.config.node,
            cores: self.config.cores,
            nodes: self.config.nodes.clone(),
            ranges: self.routing.iter().map(|descriptor| (descriptor.clone(), leader(descriptor))).collect(),
        }
    }
}

/// What a client hears of a request that the group has seen; nothing if it has not.
pub(crate) fn answer_of(seen: Seen, sessions: &Sessions) -> Result<Option<Outcomes>, Refusal> {
    match seen {
        Seen::Never => Ok(None),
        Seen::Applied(outcomes) => Ok(Some(outcomes)),
        Seen::AppliedUnkept => Err(Refusal::Unknown),
        Seen::Forgotten => Err(Refusal::Forgotten { now: sessions.now() }),
    }
}

pub(crate) fn stale(descriptor: &Descriptor, leader: Option<NodeId>) -> Refusal {
    Refusal::StaleDescriptor { descriptor: descriptor.clone(), leader }
}

/// A key outside a range of the right generation is a mistake of the client, which routing cannot repair.
fn inside(descriptor: &Descriptor, key: &[u8]) -> Result<(), Refusal> {
    if descriptor.range.contains(key) {
        return Ok(());
    }
    let key = key[..key.len().min(SHOWN_KEY_BYTES)].escape_ascii();
    Err(Refusal::Refused { why: format!("key {key} is outside {} of {}", descriptor.range, descriptor.group) })
}

/// Whether a key that is read could exist.
fn short_enough(key: &[u8]) -> Result<(), Refusal> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    let (limit, bytes) = ("KEY_BYTES_MAX".to_string(), key.len() as u64);
    Err(Refusal::TooLarge { limit, limit_bytes: KEY_BYTES_MAX as u64, bytes })
}

/// The part of `[start, end)` that lies in the range.
fn clip(range: &KeyRange, start: Bytes, end: Option<Bytes>) -> (Bytes, Option<Bytes>) {
    let start = start.max(range.start.clone());
    let end = match (end, &range.end) {
        (Some(end), Some(bound)) => Some(end.min(bound.clone())),
        (end, bound) => end.or_else(|| bound.clone()),
    };
    (start, end)
}
