//! What a group remembers of its clients, so that no request is carried out twice (law 24).
//!
//! A *session* is (client, moment of opening). For each session the group keeps the outcomes of the requests that it has
//! applied, by sequence, and a floor below which they are forgotten. All of it is a part of the replicated state: it changes
//! at apply, in the order of the log, and is the same at the same applied index on every replica. It comes back with the log
//! after a restart, and travels with a snapshot ([`Sessions::piece`], [`SessionsBuilder`]).
//!
//! # The guarantee
//!
//! A command is executed at most once, however often and however late its bytes come into the log, as long as a client
//! gives all attempts of one request the same [`RequestId`], never gives it to another, and opens a session at a moment that
//! it has heard of before it sent anything in it. What the group has forgotten it does not execute ([`Seen::Forgotten`]).
//!
//! Why that is so: let a command have been applied at moment *t*. Its session was opened at a moment that was heard before
//! it was first sent, so below *t*. From then on
//!
//! - while the session is remembered, the sequence is among the outcomes, or the floor is above it: not executed;
//! - once the session has made room for others, `forgotten` is at least the moment at which it was used last, so at least
//!   *t*. A session that was opened below `forgotten` and is not here is never taken in again: not executed.
//!
//! # The window
//!
//! An answer can be repeated while the client has not told a floor above it (it waits for nothing below), and until
//! [`SESSION_OUTCOMES_MAX`] later requests of the same session, or [`SESSIONS_MAX`] other sessions, or more than
//! [`SESSIONS_BYTES_MAX`] of outcomes were applied. An outcome above [`SESSION_OUTCOME_BYTES_MAX`] is not kept, only that it
//! came to pass.
//!
//! A new client opens its session at zero, which costs nothing as long as no session had to make room. When one had to, the
//! group tells the client the present moment once, and the client opens its session there. Sessions make room in the order
//! of their last use, so a new session is refused only if it was opened before the one used least recently was used last.
//!
//! # Left out
//!
//! Union, for the merge of two groups: the higher moment, the higher `forgotten`, and of each session the union of the
//! outcomes above the higher floor. A split copies.

mod cut;
mod encode;
mod window;

use std::collections::BTreeMap;

use pontoon_types::limits::{SESSION_OUTCOME_BYTES_MAX, SESSION_OUTCOMES_MAX, SESSIONS_BYTES_MAX, SESSIONS_MAX};
use pontoon_types::{RequestId, SessionId, SessionTime};
use pontoon_wire::client::OperationOutcome;

pub(crate) use cut::{SessionsCut, SessionsStream};
pub use encode::{SessionsBuilder, SessionsError, SessionsPlace};
use window::Window;

/// What an outcome counts for, its operations left aside.
const KEPT_BYTES: usize = 32;

/// What an operation of an outcome counts for, its bytes left aside.
const OUTCOME_BYTES: usize = 40;

/// How much a group remembers. It is a part of what a group's log means, so it is the same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Most sessions.
    pub sessions_max: usize,
    /// Most outcomes of one session.
    pub outcomes_max: usize,
    /// Most bytes of one outcome.
    pub outcome_bytes_max: usize,
    /// Most memory of all outcomes, bytes.
    pub bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions_max: SESSIONS_MAX,
            outcomes_max: SESSION_OUTCOMES_MAX,
            outcome_bytes_max: SESSION_OUTCOME_BYTES_MAX,
            bytes_max: SESSIONS_BYTES_MAX,
        }
    }
}

/// What the group knows of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was never applied.
    Never,
    /// It was applied and came to this.
    Applied(Vec<OperationOutcome>),
    /// It was applied; what it came to was too long to keep.
    AppliedUnkept,
    /// It may have been applied, and never will be from now on.
    Forgotten,
}

/// The outcome of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// So many keys were set: nearly all commands are such, and need no memory beside.
    Puts(u32),
    Deleted {
        existed: bool,
    },
    Other(Box<[OperationOutcome]>),
    Unkept,
}

/// One client with this group.
#[derive(Clone, Debug, Default)]
struct Session {
    /// Sequences below are forgotten.
    floor: u64,
    /// When it was used last.
    used: SessionTime,
    kept: Window<Kept>,
}

/// What a group remembers of its clients.
///
/// Invariants: every session was used at a moment of its own, not after `now` and after `forgotten`; no kept sequence lies
/// below its session's floor; `bytes` is what all outcomes take.
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    now: SessionTime,
    /// Sessions that were opened before and are not here are not taken in.
    forgotten: SessionTime,
    bytes: usize,
    sessions: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// Nothing is remembered.
    pub fn new(limits: SessionLimits) -> Sessions {
        let (now, forgotten) = (SessionTime(0), SessionTime(0));
        Sessions { limits, now, forgotten, bytes: 0, sessions: BTreeMap::new() }
    }

    /// The same with other limits.
    pub(crate) fn limited(self, limits: SessionLimits) -> Sessions {
        Sessions { limits, ..self }
    }

    /// The present moment: how many commands were applied.
    pub fn now(&self) -> SessionTime {
        self.now
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The memory that the outcomes take, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is known of a request. Whatever it is but [`Seen::Never`], it stays: a replica that lags may be asked.
    pub fn seen(&self, id: RequestId) -> Seen {
        let Some(session) = self.sessions.get(&id.session) else {
            return if id.session.opened < self.forgotten { Seen::Forgotten } else { Seen::Never };
        };
        match session.kept.get(id.sequence) {
            Some(Kept::Unkept) => Seen::AppliedUnkept,
            Some(kept) => Seen::Applied(kept.outcomes()),
            None if id.sequence < session.floor => Seen::Forgotten,
            None => Seen::Never,
        }
    }

    /// A command was executed, and came to this.
    ///
    /// # Panics
    ///
    /// When it was executed before.
    pub fn executed(&mut self, id: RequestId, floor: u64, outcomes: &[OperationOutcome]) {
        if !self.sessions.contains_key(&id.session) {
            while self.sessions.len() >= self.limits.sessions_max.max(1) {
                self.forget_session(None);
            }
            self.sessions.insert(id.session, Session::default());
        }
        let kept = Kept::of(outcomes, self.limits.outcome_bytes_max);
        self.bytes += kept.bytes();
        let session = self.sessions.get_mut(&id.session).expect("law: a session that was just made is there");
        session.kept.insert(id.sequence, kept);
        self.used(id, floor);
        while self.bytes > self.limits.bytes_max && self.sessions.len() > 1 {
            self.forget_session(Some(id.session));
        }
        let session = self.sessions.get_mut(&id.session).expect("law: a session in use is not forgotten");
        while session.kept.len() > self.limits.outcomes_max || self.bytes > self.limits.bytes_max {
            let Some((sequence, kept)) = session.kept.pop_first() else { break };
            session.floor = sequence + 1;
            self.bytes -= kept.bytes();
        }
    }

    /// A command of this session was applied, executed or not.
    pub fn used(&mut self, id: RequestId, floor: u64) {
        let Some(session) = self.sessions.get_mut(&id.session) else { return };
        self.now.0 += 1;
        session.used = self.now;
        // A client waits for an answer to the request that it sends.
        session.floor = session.floor.max(floor.min(id.sequence));
        while let Some((_, kept)) = session.kept.pop_below(session.floor) {
            self.bytes -= kept.bytes();
        }
    }

    /// The session that was used least recently makes room.
    fn forget_session(&mut self, except: Option<SessionId>) {
        let others = self.sessions.iter().filter(|(id, _)| except != Some(**id));
        let Some((id, used)) = others.map(|(id, session)| (*id, session.used)).min_by_key(|(_, used)| *used) else {
            return;
        };
        self.forgotten = self.forgotten.max(used);
        let mut session = self.sessions.remove(&id).expect("law: a session that was found is there");
        while let Some((_, kept)) = session.kept.pop_first() {
            self.bytes -= kept.bytes();
        }
    }

    /// The bug that whoever made room may come back.
    pub(crate) fn leave_no_trace(&mut self) {
        self.forgotten = SessionTime(0);
    }

    /// Equal for equal contents (FNV-1a over all pieces). Walks everything: for checkers.
    pub fn digest(&self) -> u64 {
        let eat = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.pieces().fold(0xcbf2_9ce4_8422_2325, |hash, piece| piece.iter().fold(hash, eat))
    }

    /// Asserts the invariants. For tests and the simulator.
    pub fn check(&self) {
        let mut moments: Vec<SessionTime> = self.sessions.values().map(|session| session.used).collect();
        moments.sort_unstable();
        assert!(moments.is_sorted_by(|left, right| left < right), "law: sessions are used one after the other");
        assert!(moments.last().is_none_or(|last| *last <= self.now), "law: no session was used in the future");
        assert!(
            moments.first().is_none_or(|first| *first > self.forgotten),
            "law 24: who makes room was used before all who stay"
        );
        let kept = self.sessions.values().flat_map(|session| session.kept.from(0).map(|(_, kept)| kept.bytes()));
        assert_eq!(kept.sum::<usize>(), self.bytes, "law: the memory of outcomes is counted");
        for session in self.sessions.values() {
            let first = session.kept.from(0).next().map(|(sequence, _)| *sequence);
            assert!(first.is_none_or(|first| first >= session.floor), "law 24: nothing is kept below the floor");
        }
    }
}

impl Kept {
    fn of(outcomes: &[OperationOutcome], bytes_max: usize) -> Kept {
        match outcomes {
            [OperationOutcome::Deleted { existed }] => Kept::Deleted { existed: *existed },
            _ if outcomes.iter().all(|outcome| *outcome == OperationOutcome::Put) => Kept::Puts(outcomes.len() as u32),
            _ => {
                let kept = Kept::Other(outcomes.into());
                if kept.bytes() <= bytes_max { kept } else { Kept::Unkept }
            }
        }
    }

    fn outcomes(&self) -> Vec<OperationOutcome> {
        match self {
            Kept::Puts(count) => vec![OperationOutcome::Put; *count as usize],
            Kept::Deleted { existed } => vec![OperationOutcome::Deleted { existed: *existed }],
            Kept::Other(outcomes) => outcomes.to_vec(),
            Kept::Unkept => Vec::new(),
        }
    }

    /// The memory that it counts for. Fixed numbers, because what makes room must not depend on the machine.
    fn bytes(&self) -> usize {
        match self {
            Kept::Puts(_) | Kept::Deleted { .. } | Kept::Unkept => KEPT_BYTES,
            Kept::Other(outcomes) => KEPT_BYTES + outcomes.iter().map(outcome_bytes).sum::<usize>(),
        }
    }
}

fn outcome_bytes(outcome: &OperationOutcome) -> usize {
    let value = match outcome {
        OperationOutcome::Swapped { current: Some(current), .. } => current.len(),
        _ => 0,
    };
    OUTCOME_BYTES + value
}
