//! Commands into Raft, and the outcome back to the client after apply.
//!
//! Propose: the commands of one turn to one group wait until the end of the turn and become one Raft write.
//! Apply: committed entries go to the machine in order; the client that waits for an entry hears its outcome.
//! A request that was executed before is not executed again: its client hears what it came to (`sessions`, law 24).
//! A client whose entry lost its place to another one hears that it was never executed; one whose entry is not
//! decided in time hears that the outcome is unknown.

use bytes::Bytes;
use pontoon_raft::Event as RaftEvent;
use pontoon_raft::membership::Configuration;
use pontoon_types::{Entry, EntryKind, Index, LogId, Time};
use pontoon_wire::client::{Outcome, Refusal};
use pontoon_wire::command::{Command, CommandError};

use crate::members::apply_configuration;
use crate::mutation::CoreMutation;
use crate::replica::{Asker, Fate, Outcomes, Proposal, Replica, Slot, Waiter};
use crate::request::{answer_of, stale};
use crate::sessions::Seen;
use crate::{Core, CoreConfig};

/// What the log adds to the payload of an entry, about.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Most entries that one group applies in one go, so that a restart with a long log does not hold up its core.
const APPLY_ENTRIES_MAX: u64 = 2048;

impl Core {
    /// Keeps an accepted command until the end of the turn.
    pub(crate) fn gather_proposal(&mut self, slot: Slot, proposal: Proposal) {
        #[cfg(feature = "mutations")]
        let proposal = match self.config.mutated(CoreMutation::CompareAtProposal) {
            true => Proposal {
                command: crate::mutation::compare_now(proposal.command, &self.replicas[slot].machine),
                ..proposal
            },
            false => proposal,
        };
        let replica = &mut self.replicas[slot];
        if replica.proposals.is_empty() {
            self.proposing.push(slot);
        }
        replica.proposal_bytes += proposal.command.len();
        replica.proposals.push(proposal);
        self.waiting += 1;
    }

    /// Proposes what was gathered: one batch for each group.
    pub(crate) fn propose_gathered(&mut self, now: Time) {
        let deadline = now + self.config.request_timeout;
        for slot in std::mem::take(&mut self.proposing) {
            let replica = &mut self.replicas[slot];
            let mut proposals = std::mem::take(&mut replica.proposals);
            if self.config.mutated(CoreMutation::SwapOutcomes) {
                let askers: Vec<Asker> = proposals.iter().map(|proposal| proposal.asker).rev().collect();
                proposals.iter_mut().zip(askers).for_each(|(proposal, other)| proposal.asker = other);
            }
            let bytes = std::mem::take(&mut replica.proposal_bytes);
            // Leadership may have been lost since the commands were accepted; then nothing was executed.
            if replica.raft.admit(bytes).is_err() {
                let leader = replica.leader_node();
                for proposal in proposals {
                    self.answer(proposal.asker, Err(Refusal::NotLeader { leader }));
                }
                continue;
            }
            let term = replica.raft.term();
            let mut index = replica.raft.last().index;
            let mut payloads = Vec::with_capacity(proposals.len());
            for Proposal { command, id, asker } in proposals {
                index = index.next();
                replica.wait(Waiter { entry: LogId::new(index, term), id, asker, deadline });
                payloads.push(command);
            }
            self.step_replica(now, slot, RaftEvent::Propose(payloads));
        }
    }

    /// Applies what is committed and in memory, within the bound of one go. What has left memory comes to
    /// [`Core::apply_fetched`].
    pub(crate) fn apply(&mut self, slot: Slot) {
        if !self.replicas[slot].is_ready() {
            return;
        }
        let committed = self.replicas[slot].raft.committed();
        let through = committed.min(Index(self.replicas[slot].applied.0 + APPLY_ENTRIES_MAX));
        while self.replicas[slot].applied < through {
            let replica = &self.replicas[slot];
            let next = replica.applied.next();
            let Some(entry) = replica.raft.entries(next, next).next().cloned() else { break };
            if !self.apply_entry(slot, entry) {
                break;
            }
        }
        let is_cut_short = self.replicas[slot].applied == through && through < committed;
        if is_cut_short && !self.apply_backlog.contains(&slot) {
            self.apply_backlog.push(slot);
        }
        self.review_checkpoint(slot);
        self.review_removal(slot);
        self.serve_applied_reads(slot);
    }

    /// Applies what was fetched, and what stands behind it in memory.
    pub(crate) fn apply_fetched(&mut self, slot: Slot, entries: Vec<Entry>) {
        if let Some(loading) = &mut self.replicas[slot].loading {
            loading.fetched.extend(entries);
            return;
        }
        if entries.into_iter().all(|entry| self.apply_entry(slot, entry)) {
            self.apply(slot);
        }
    }

    /// Committed entries that the machines of this group and of those that one go did not finish have yet to apply.
    pub(crate) fn apply_lag(&self, slot: Slot) -> u64 {
        let lag = |slot: Slot| self.replicas[slot].raft.committed().0 - self.replicas[slot].applied.0;
        let others = self.apply_backlog.iter().filter(|other| **other != slot);
        lag(slot) + others.map(|other| lag(*other)).sum::<u64>()
    }

    /// Goes on with what one go did not finish.
    pub(crate) fn continue_applying(&mut self, now: Time) {
        for slot in std::mem::take(&mut self.apply_backlog) {
            if !self.replicas[slot].is_ready() {
                continue;
            }
            self.apply(slot);
            let applied = self.replicas[slot].applied;
            self.step_replica(now, slot, RaftEvent::Applied(applied));
        }
    }

    /// Says whether the entry could be read.
    fn apply_entry(&mut self, slot: Slot, entry: Entry) -> bool {
        let (replica, id) = (&mut self.replicas[slot], entry.id);
        assert!(id.index == replica.applied.next(), "law: entries are applied in order, and {id} is not next");
        let content = match Content::of(self.config.decode_command, &entry) {
            Ok(content) => content,
            Err(_) if self.config.mutated(CoreMutation::PassUnreadable) => Content::Nothing,
            Err(why) => {
                self.park(slot, id, why);
                return false;
            }
        };
        let generation = replica.descriptor.generation;
        replica.applied = id.index;
        replica.log_bytes += entry.payload.len() + ENTRY_OVERHEAD_BYTES;
        let before = (entry.kind == EntryKind::Configuration).then(|| replica.configuration.clone());
        let outcomes = apply_to(&self.config, replica, id, content);
        if replica.descriptor.generation != generation {
            self.routing.accept(replica.descriptor.clone());
        }
        if let Some(before) = before {
            self.tell_removed(slot, &before);
        }
        self.counters.applied_entries += 1;
        if self.replicas[slot].waiters.front().is_some_and(|waiter| waiter.entry.index <= id.index) {
            self.tell(slot, id, outcomes);
        }
        true
    }

    fn tell(&mut self, slot: Slot, entry: LogId, outcomes: Result<Outcomes, Refusal>) {
        let leader = self.replicas[slot].leader_node();
        let by_index = self.config.mutated(CoreMutation::OutcomeByIndex);
        for (asker, fate) in self.replicas[slot].decided(entry) {
            let fate = if by_index { Fate::Executed } else { fate };
            let result = match fate {
                Fate::Executed => outcomes.clone().map(Outcome::Written),
                Fate::NeverExecuted => Err(Refusal::NotLeader { leader }),
            };
            self.answer(asker, result);
        }
    }

    /// Ends the waiting of requests whose time is over.
    pub(crate) fn expire_requests(&mut self, now: Time, slot: Slot) {
        let replica = &mut self.replicas[slot];
        let mut late = Vec::new();
        let in_flight = &mut replica.in_flight;
        replica.waiters.retain(|waiter| {
            let keep = waiter.deadline > now;
            if !keep {
                let definite = self.config.mutated(CoreMutation::RefuseLate);
                let refusal = if definite { Refusal::NotLeader { leader: None } } else { Refusal::Unknown };
                in_flight.remove(&waiter.id);
                late.push((waiter.asker, refusal));
            }
            keep
        });
        replica.unapplied_reads.retain(|(_, read)| {
            let keep = read.deadline > now;
            if !keep {
                late.push((read.asker, read.refusal(None)));
            }
            keep
        });
        for (asker, refusal) in late {
            self.answer(asker, Err(refusal));
        }
    }

    /// The bug that a refusal must be definite: the commands in flight may still be committed.
    pub(crate) fn refuse_waiters(&mut self, slot: Slot) {
        self.replicas[slot].in_flight.clear();
        for waiter in std::mem::take(&mut self.replicas[slot].waiters) {
            self.answer(waiter.asker, Err(Refusal::NotLeader { leader: None }));
        }
    }
}

/// What an entry says.
enum Content {
    /// The no-op of a new leader.
    Nothing,
    Members(Configuration),
    Command(Command),
}

impl Content {
    fn of(decode: fn(Bytes) -> Result<Command, CommandError>, entry: &Entry) -> Result<Content, CommandError> {
        let payload = entry.payload.clone();
        if entry.kind == EntryKind::Configuration {
            let configuration = Configuration::decode(&payload);
            return Ok(Content::Members(configuration.expect("law: the log holds configurations that can be read")));
        }
        if payload.is_empty() { Ok(Content::Nothing) } else { decode(payload).map(Content::Command) }
    }
}

/// Applies one entry. What is no command has no outcome.
fn apply_to(config: &CoreConfig, replica: &mut Replica, id: LogId, content: Content) -> Result<Outcomes, Refusal> {
    let command = match content {
        Content::Nothing => return Ok(Vec::new()),
        Content::Members(configuration) => {
            apply_configuration(&mut replica.descriptor, &configuration);
            replica.configuration = configuration;
            return Ok(Vec::new());
        }
        Content::Command(command) => command,
    };
    if config.incarnation.0 > 1 && id.index == Index(2) && config.mutated(CoreMutation::SkipAfterRestart) {
        return Ok(Vec::new());
    }
    let twice = config.mutated(CoreMutation::ApplyTwice) && replica.leads.is_some() && id.index.0.is_multiple_of(8);
    (0..usize::from(twice)).for_each(|_| drop(execute(replica, &command)));
    apply_once(config, replica, id, &command)
}

/// Law 24: the id is looked up first, then the range is checked again, and only then is the command executed.
fn apply_once(config: &CoreConfig, replica: &mut Replica, at: LogId, command: &Command) -> Result<Outcomes, Refusal> {
    let Command { id, floor, .. } = *command;
    let sessions = &mut replica.sessions;
    // A client cannot have heard of a moment that is still to come.
    let seen = if id.session.opened > sessions.now() { Seen::Forgotten } else { sessions.seen(id) };
    let executed_again = match seen {
        Seen::Never => false,
        Seen::Applied(_) | Seen::AppliedUnkept => config.mutated(CoreMutation::ExecuteAgain),
        Seen::Forgotten => config.mutated(CoreMutation::ExecuteForgotten),
    };
    if executed_again {
        return Ok(execute(replica, command));
    }
    if let Some(outcomes) = answer_of(seen, sessions)? {
        sessions.used(id, floor);
        return Ok(outcomes);
    }
    if !config.mutated(CoreMutation::AnyKey)
        && command.operations.iter().any(|operation| !replica.descriptor.range.contains(operation.key()))
    {
        return Err(stale(&replica.descriptor, replica.leader_node()));
    }
    let outcomes = execute(replica, command);
    let restarted = config.incarnation.0 > 1 && at.index < Index(16);
    if !restarted || !config.mutated(CoreMutation::ForgetAtRestart) {
        replica.sessions.executed(id, floor, &outcomes);
    }
    if config.mutated(CoreMutation::ForgetWithoutTrace) {
        replica.sessions.leave_no_trace();
    }
    Ok(outcomes)
}

fn execute(replica: &mut Replica, command: &Command) -> Outcomes {
    #[cfg(feature = "mutations")]
    let command = &crate::mutation::compared(command, &replica.machine);
    command.operations.iter().map(|op| replica.machine.apply(op)).collect()
}
