//! Fills the keys before a load, so that reads find something and logs are warm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pontoon_types::Time;

use crate::data::{KeyNumber, WriteId};
use crate::job::{Job, Next, Outcome};
use crate::recorder::Recorder;
use crate::slots::Slots;

/// Most operations in flight.
const INFLIGHT: u32 = 256;

/// Writes every key once.
pub struct Preload {
    pub recorder: Recorder,
    slots: Slots,
    next: KeyNumber,
    keys: KeyNumber,
    client: u32,
    stop: Arc<AtomicBool>,
}

impl Preload {
    /// Writes keys `0..keys` as `client`.
    pub fn new(recorder: Recorder, keys: KeyNumber, client: u32, stop: Arc<AtomicBool>) -> Preload {
        Preload { recorder, slots: Slots::new(INFLIGHT), next: 0, keys, client, stop }
    }
}

impl Job for Preload {
    fn next(&mut self, now: Time) -> Next {
        if self.next == self.keys || self.stop.load(Ordering::Relaxed) {
            return Next::Finished;
        }
        let Some(slot) = self.slots.take() else { return Next::Wait };
        let key = self.next;
        self.next += 1;
        let write = WriteId::new(self.client, u64::from(key));
        let (started, operation) = self.recorder.start(now, slot, self.client, key, Some(write));
        self.slots.begin(slot, started, now);
        Next::Start(operation)
    }

    fn finish(&mut self, now: Time, slot: u32, outcome: Outcome) {
        let (started, _) = self.slots.end(slot);
        self.recorder.finish(now, &started, &outcome);
    }
}
