//! What is remembered of every operation of a run, whatever phase it belongs to: for the verification, for the
//! history, and for the counts in the report.

use std::collections::BTreeMap;
use std::io;

use pontoon_types::Time;

use crate::data::{self, KeyNumber, WriteId};
use crate::history::{Ending, History, Operation};
use crate::job::{self, Outcome};
use crate::verifier::{Found, Order, Verifier};

/// Most different reasons of failure that are kept apart.
const REASONS_MAX: usize = 8;

/// The counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Operations that certainly did nothing.
    pub failed: u64,
    /// Writes whose outcome is not known.
    pub unknown: u64,
    /// Reads that found bytes which no write of this run made.
    pub foreign_reads: u64,
    /// Why operations failed or are unknown, and how often.
    pub reasons: BTreeMap<String, u64>,
}

/// The memory of a run.
pub struct Recorder {
    /// What each key may hold.
    pub verifier: Verifier,
    /// The counts.
    pub counts: Counts,
    seed: u64,
    value_bytes: usize,
    order: u64,
    history: Option<History>,
    history_error: Option<io::Error>,
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// The logical client.
    pub client: u32,
    /// The key.
    pub key: KeyNumber,
    /// The write; none reads.
    pub write: Option<WriteId>,
    called: Order,
    called_at: Time,
}

impl Recorder {
    /// An empty memory.
    pub fn new(keys: KeyNumber, seed: u64, value_bytes: usize, history: Option<History>) -> Recorder {
        Recorder {
            verifier: Verifier::new(keys),
            counts: Counts::default(),
            seed,
            value_bytes,
            order: 0,
            history,
            history_error: None,
        }
    }

    /// An operation is called: gives what to remember and what to carry out.
    pub fn start(
        &mut self,
        now: Time,
        slot: u32,
        client: u32,
        key: KeyNumber,
        write: Option<WriteId>,
    ) -> (Started, job::Operation) {
        let started = Started { client, key, write, called: self.next_order(), called_at: now };
        let value = write.map(|write| data::value(self.seed, key, write, self.value_bytes));
        (started, job::Operation { slot, key: data::key(key), value })
    }

    /// An operation has returned. Gives what a read found.
    pub fn finish(&mut self, now: Time, started: &Started, outcome: &Outcome) -> Option<Found> {
        let returned = self.next_order();
        let found = match (outcome, started.write) {
            (Outcome::Done(_), Some(write)) => {
                self.counts.acknowledged += 1;
                self.verifier.acknowledge(started.key, write, started.called, returned);
                None
            }
            (Outcome::Done(value), None) => Some(self.read(started.key, value.as_deref())),
            (Outcome::Failed(why), _) => {
                self.counts.failed += 1;
                self.reason(why);
                None
            }
            (Outcome::Unknown(why), write) => {
                if let Some(write) = write {
                    self.counts.unknown += 1;
                    self.verifier.unknown(started.key, write);
                }
                self.reason(why);
                None
            }
        };
        self.write_history(now, started, outcome, found);
        found
    }

    /// Writes the history out; the error is the first one that was met.
    pub fn finish_history(&mut self) -> io::Result<()> {
        match self.history_error.take() {
            Some(error) => Err(error),
            None => self.history.as_mut().map_or(Ok(()), History::finish),
        }
    }

    fn read(&mut self, key: KeyNumber, value: Option<&[u8]>) -> Found {
        let Some(value) = value else { return Found::Absent };
        match data::write_of(self.seed, key, value) {
            Some(write) if value.len() == self.value_bytes => Found::Write(write),
            _ => {
                self.counts.foreign_reads += 1;
                Found::Foreign
            }
        }
    }

    fn reason(&mut self, why: &str) {
        let known = self.counts.reasons.contains_key(why) || self.counts.reasons.len() < REASONS_MAX;
        let why = if known { why } else { "other reasons" };
        *self.counts.reasons.entry(why.to_string()).or_insert(0) += 1;
    }

    fn write_history(&mut self, now: Time, started: &Started, outcome: &Outcome, found: Option<Found>) {
        let Some(history) = &mut self.history else { return };
        let ending = match outcome {
            Outcome::Done(_) => Ending::Ok,
            Outcome::Failed(_) => Ending::Fail,
            Outcome::Unknown(_) => Ending::Unknown,
        };
        let value = match found {
            Some(Found::Write(write)) => Some(write),
            // A value that no write of this run made has no identity; the largest number stands for it.
            Some(Found::Foreign) => Some(WriteId(u64::MAX)),
            Some(Found::Absent) => None,
            None => started.write,
        };
        let Started { client, key, write, called_at, .. } = *started;
        let is_write = write.is_some();
        let operation = Operation { client, key, is_write, value, ending, called: called_at, returned: now };
        if let Err(error) = history.add(&operation) {
            self.history_error.get_or_insert(error);
        }
    }

    fn next_order(&mut self) -> Order {
        self.order += 1;
        Order(self.order)
    }
}
