//! What a load is to the thing that carries it: a source of operations and a sink of outcomes.
//!
//! A [`Job`] is pure: time comes in as an argument, and it says when the next operation is due. The same jobs run
//! against Pontoon and against a peer, so both sides see the same load and are counted in the same way.

use bytes::Bytes;
use pontoon_types::Time;

/// One operation to carry out. The slot stands for a logical client and comes back with the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which logical client waits for it.
    pub slot: u32,
    /// The key.
    pub key: Bytes,
    /// The value to write; none reads.
    pub value: Option<Bytes>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start this one, then ask again.
    Start(Operation),
    /// Ask again at this time, or when an operation has ended.
    Later(Time),
    /// Ask again when an operation has ended.
    Wait,
    /// Nothing more will be started.
    Finished,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; a read found this.
    Done(Option<Bytes>),
    /// It was certainly not done, for this reason.
    Failed(String),
    /// It may have been done.
    Unknown(String),
}

/// A source of operations and a sink of outcomes.
pub trait Job {
    /// What to start now.
    fn next(&mut self, now: Time) -> Next;
    /// An operation has ended.
    fn finish(&mut self, now: Time, slot: u32, outcome: Outcome);
    /// A turn is over.
    fn turn(&mut self, _now: Time) {}
    /// Whether the counters of everything must be read now. Says yes once for each time it is needed.
    fn snapshot_due(&mut self, _now: Time) -> bool {
        false
    }
}
