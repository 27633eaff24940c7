//! The replica: its state, and the one entry through which it changes.
//!
//! The verbs live in the files beside this one: [`election`], [`append`] (the follower's side of replication),
//! [`replicate`] (the leader's side), [`members`] (who belongs to the group), [`transfer`] (who leads next), [`promise`] (what
//! waits for the disk), [`fetch`] (entries that have left memory), [`compact`] (those that are given up), [`install`] (snapshots), [`restore`]
//! (payloads that the disk has lost), [`lost_vote`] (a term and vote that it has lost), [`refuse`] (what contradicts a law), [`query`] (what others may
//! ask) and [`check`] (the invariants).

mod append;
mod check;
mod compact;
mod election;
mod fetch;
mod install;
mod lost_vote;
mod members;
mod promise;
mod query;
mod refuse;
mod replicate;
mod restore;
mod transfer;

pub use refuse::TERM_MAX;

use std::collections::BTreeSet;
use std::sync::Arc;

use pontoon_types::{Body, HardState, Index, Message, Permit, ReplicaId, Term, Time};

use crate::durable::Writes;
use crate::log::Log;
use crate::lost::Lost;
use crate::membership::History;
use crate::mutation::Mutation;
use crate::progress::Progress;
use crate::quorum::Ballot;
use crate::random::Random;
use crate::{Config, Effect, Event, Priority, Restored, Role};
use fetch::{FetchNumbers, Machine};

/// One replica of one group.
///
/// Invariants (each is asserted in `check.rs`, after every step of a debug build):
/// - compacted ≤ applied ≤ committed ≤ last and durable ≤ last; the last entry's term is not above the replica's;
/// - a candidate and a leader have voted for themselves, and a candidate is a voter of the configuration in force or of
///   one that may come back;
/// - a leader keeps a progress for each other member of the configuration in force, and for nobody else;
/// - a follower has a supported leader, or an election deadline, and never both;
/// - a leader has no election deadline, its term opens with an empty entry, and whatever it commits of its own term is
///   held durably by a quorum at that moment;
/// - what was not durable, not committed or not applied in this life of the replica is in memory;
/// - the commit index never moves to or beyond a missing payload, and a replica that misses one, or has lost its vote, is
///   a follower;
/// - term, committed, durable and write numbers never fall; within a term a vote never changes and a leader never
///   cuts its log.
#[derive(Debug)]
pub struct Raft {
    /// Shared by all groups that have the same one.
    config: Arc<Config>,
    me: ReplicaId,
    members: History,
    hard_state: HardState,
    log: Log,
    writes: Writes,
    lost: Lost,
    /// When a follower that misses payloads asks its leader for them again.
    ask_by: Option<Time>,
    machine: Machine,
    numbers: FetchNumbers,
    /// The machine cannot go on from entries: it needs a snapshot at this entry or behind it.
    needs_snapshot_at: Option<Index>,
    /// Set when term and vote were lost: the replicas that have told their terms since.
    lost_vote: Option<BTreeSet<ReplicaId>>,
    state: State,
    election_deadline: Option<Time>,
    priority: Priority,
    random: Random,
}

/// The role and what belongs to it alone.
#[derive(Debug)]
enum State {
    Follower {
        leader: Option<ReplicaId>,
        /// Somebody confirms that the leader lives.
        supported: bool,
    },
    PreCandidate(Ballot),
    Candidate {
        ballot: Ballot,
        /// The write that holds the own vote.
        vote_write: pontoon_types::WriteNumber,
        /// What its requests for votes carry.
        permit: Option<Permit>,
    },
    Leader(Leadership),
}

/// What a leader keeps for its term.
#[derive(Debug)]
struct Leadership {
    /// The index of the no-op that opened the term. Entries from here on are of the own term.
    start: Index,
    /// Payload bytes of the entries of the own term that are not committed.
    uncommitted_bytes: usize,
    /// All other members, learners included, in the order of replicas.
    peers: Vec<Progress>,
    transfer: Option<transfer::Transfer>,
    /// Set when the leader is no voter of a committed configuration any more: when it goes at the latest.
    leave_by: Option<Time>,
    /// Somebody was allowed to campaign against this leader in the next term.
    has_given_permit: bool,
}

/// What a step works on besides the replica.
struct Step<'a> {
    now: Time,
    effects: &'a mut Vec<Effect>,
}

impl Raft {
    /// A follower with what its log held. `seed` decides its election timeouts and nothing else; two replicas of a
    /// group should not share one.
    ///
    /// Panics when `restored` is no log, names lost entries that it does not hold, or has a configuration that cannot be
    /// read. A replica that is no member may be made: it waits to be one.
    pub fn new(config: impl Into<Arc<Config>>, me: ReplicaId, restored: Restored, seed: u64, now: Time) -> Raft {
        let config = config.into();
        config.check();
        let Restored {
            mut hard_state, compacted, older, configurations, entries, members, mut lost, vote_lost, ..
        } = restored;
        let settled = restored.checkpoint.unwrap_or(compacted);
        assert!(settled.index >= compacted.index, "law 19: what is given up is in the checkpoint at {settled}");
        // What the checkpoint covers is of no interest any more.
        lost.retain(|index| *index > settled.index);
        let mut members = History::new(settled.index, members);
        members::put_all(&mut members, &configurations, &lost);
        members::put_all(&mut members, &entries, &lost);
        let mut log = Log::new(compacted, &older, entries);
        assert!(lost.is_sorted(), "lost entries are in rising order");
        for index in &lost {
            let is_there = *index > compacted.index && *index <= log.last().index;
            let is_empty = log.get(*index).is_none_or(|entry| entry.payload.is_empty());
            assert!(is_there && is_empty, "lost entries are in the log, without payload");
        }
        if vote_lost {
            // An entry shows that its term was reached.
            hard_state.term = hard_state.term.max(log.last().term);
        }
        assert!(log.last().term <= hard_state.term, "restored entries are not above the restored term");
        if vote_lost || config.mutated(Mutation::ForgetVoteAtRestart) {
            hard_state.vote = None;
        }
        let mut writes = Writes::new(log.last().index);
        install::recover(&mut log, &mut writes, &mut hard_state, &mut lost, settled);
        // A log that was reset has nothing to say about members.
        members.truncate(log.last().index.next());
        let is_new = restored.creation.is_some();
        if let Some(creation) = restored.creation {
            writes.create(creation);
            writes.hard_state(hard_state);
        }
        let mut random = Random::new(seed);
        let wait = random.span(config.election_timeout_min, config.election_timeout_max);
        Raft {
            writes,
            lost: Lost::new(lost),
            ask_by: None,
            machine: Machine { applied: settled.index, handed: settled.index, fetch: None },
            needs_snapshot_at: restored.stateless.then_some(settled.index),
            numbers: if is_new { FetchNumbers::of_new(me) } else { FetchNumbers::default() },
            lost_vote: vote_lost.then(BTreeSet::new),
            state: State::Follower { leader: None, supported: false },
            election_deadline: Some(now + wait + config.priority.patience(&config)),
            priority: config.priority,
            config,
            me,
            members,
            hard_state,
            log,
            random,
        }
    }

    /// The one entry: takes an event and appends what follows from it to `effects`, in order.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        let before = check::Before::of(self);
        let is_time = matches!(event, Event::Timer | Event::Postpone);
        let step = &mut Step { now, effects };
        match event {
            Event::Campaign => self.on_campaign(step),
            Event::Timer => self.on_timer(step),
            Event::Receive(message) => self.receive(step, message),
            Event::Propose(payloads) => self.propose(step, payloads),
            Event::Change(change) => self.change_members(step, &change),
            Event::Transfer(to) => self.transfer(step, to),
            Event::Prefer(priority) => self.priority = priority.min(Priority::LAST),
            Event::Durable(number) => self.on_durable(step, number),
            Event::Claimed { leader, term } => self.on_claimed(step, leader, term),
            Event::Listed { leader, term, last, commit } => self.on_listed(step, leader, term, last, commit),
            Event::Lapsed => self.on_lapsed(step),
            Event::PeerUp(peer) => self.on_peer_up(step, peer),
            Event::PeerDown(peer) => self.on_peer_down(peer),
            Event::PeerRestarted(peer) => self.on_peer_restarted(step, peer),
            Event::Lost(indexes) => self.on_lost(step, indexes),
            Event::Applied(index) => self.on_applied(index),
            Event::Fetched { number, result } => self.on_fetched(step, number, result),
            Event::Forgot => self.on_forgot(step),
            Event::Shed => self.evict(0),
            Event::Compact(to) => self.on_compact(step, to),
            Event::Install { last, configuration } => self.on_install(step, last, configuration),
            Event::Known(last) => self.on_known(step, last),
            Event::PeerIsStateless(peer) => self.on_peer_is_stateless(step, peer),
            Event::StateLost => self.on_state_lost(step),
            Event::Unreadable => self.on_unreadable(step),
            Event::Destroy { highest } => self.writes.remove(highest),
            Event::Postpone => {
                self.ask_when_due(step);
                self.on_postpone(step);
            }
        }
        self.flush(step);
        if self.config.mutated(Mutation::SkipDurableWait) {
            while !self.writes.is_settled() {
                self.on_durable(step, self.writes.last());
                self.flush(step);
            }
        }
        self.evict(self.config.window_bytes_max);
        self.fetch_for_machine(step);
        before.report_changes(self, step.effects);
        if cfg!(debug_assertions) {
            self.check();
            before.check_transition(self);
            let is_past = self.deadline().is_some_and(|deadline| deadline <= now);
            assert!(!is_time || !is_past || self.role() == Role::Leader, "what was due at {now} is done or put off");
        }
    }

    /// The earliest time at which [`Event::Timer`] should come. None: the replica sleeps until something happens.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Leader(leadership) => {
                let give_up_at = leadership.transfer.as_ref().map(|transfer| transfer.give_up_at);
                let peers = leadership.peers.iter().filter_map(Progress::deadline);
                peers.chain(give_up_at).chain(leadership.leave_by).min()
            }
            _ => [self.election_deadline, self.ask_by].into_iter().flatten().min(),
        }
    }

    fn on_timer(&mut self, step: &mut Step) {
        self.ask_when_due(step);
        match &self.state {
            State::Leader(_) => self.on_leader_timer(step),
            _ if self.election_deadline.is_some_and(|deadline| deadline <= step.now) => self.campaign(step),
            _ => {}
        }
    }

    fn receive(&mut self, step: &mut Step, message: Message) {
        if message.to != self.me || message.from == self.me || self.is_of_no_interest(&message) {
            return;
        }
        if let Some(law) = self.law_broken_by_message(&message) {
            return self.refuse(step, message.from, law);
        }
        let Message { from, term, body, .. } = message;
        // A pre-vote and its answer carry a term that nobody has reached, so they are read before it is adopted.
        match body {
            Body::PreVote { last } => return self.on_pre_vote(step, from, term, last),
            Body::PreVoteResponse { granted } if self.lost_vote.is_some() => {
                return self.on_term_answer(step, from, term, granted);
            }
            Body::PreVoteResponse { granted } => return self.on_pre_vote_response(step, from, term, granted),
            _ if term > self.hard_state.term => self.adopt(step, term),
            _ => {}
        }
        self.heard_term_of(from);
        let current = term == self.hard_state.term;
        match body {
            Body::Vote { last, .. } => self.on_vote(step, from, current, last),
            Body::TimeoutNow if current => self.on_timeout_now(step, from),
            Body::Append { previous, entries, commit } => {
                self.on_append(step, from, current, previous, entries, commit)
            }
            // Answers to what was asked in an older term say nothing about this one.
            Body::VoteResponse { granted } if current || self.config.mutated(Mutation::CountOldVotes) => {
                self.on_vote_response(step, from, granted)
            }
            Body::AppendResponse { matched } if current || self.config.mutated(Mutation::CountOldAnswers) => {
                self.on_append_response(step, from, matched)
            }
            Body::AppendRefused { refused, hint } if current => self.on_append_refused(step, from, refused, hint),
            _ => {}
        }
    }

    /// The other voters of the configuration in force.
    fn others(&self) -> Vec<ReplicaId> {
        self.members.current().voters().filter(|&voter| voter != self.me).collect()
    }

    fn message(&self, to: ReplicaId, term: Term, body: Body) -> Message {
        Message { from: self.me, to, term, body }
    }

    fn role_of_state(&self) -> Role {
        match self.state {
            State::Follower { .. } => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate { .. } => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }
}
