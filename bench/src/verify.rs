//! Reads everything back after a run.

use pontoon_types::Time;

use crate::data::{self, KeyNumber};
use crate::job::{Job, Next, Outcome};
use crate::recorder::Recorder;
use crate::slots::Slots;
use crate::verifier::{Found, Verdict};

/// Most reads in flight.
const INFLIGHT: u32 = 256;

/// How often a read is tried; the client itself tries for its whole time-out each time.
const TRIES_MAX: u32 = 6;

/// Most losses that are shown one by one.
const EXAMPLES_MAX: usize = 8;

/// The result of reading everything back.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Acknowledged writes that are accounted for.
    pub verified: u64,
    /// Acknowledged writes that are gone.
    pub lost: u64,
    /// Acknowledged writes on keys that could not be read.
    pub unread: u64,
    /// The first few of the losses, as sentences.
    pub examples: Vec<String>,
}

/// Reads every key that has an acknowledged write and judges what it holds.
pub struct Verify {
    pub recorder: Recorder,
    pub result: Verification,
    slots: Slots,
    keys: Vec<KeyNumber>,
    again: Vec<(KeyNumber, u32)>,
    tries: Vec<u32>,
    client: u32,
}

impl Verify {
    /// Reads back as the clients from `client` on.
    pub fn new(recorder: Recorder, client: u32) -> Verify {
        let mut keys: Vec<KeyNumber> = recorder.verifier.judged().collect();
        keys.reverse();
        let (slots, tries) = (Slots::new(INFLIGHT), vec![0; INFLIGHT as usize]);
        Verify { recorder, result: Verification::default(), slots, keys, again: Vec::new(), tries, client }
    }

    fn judge(&mut self, key: KeyNumber, found: Found) {
        match self.recorder.verifier.judge(key, found) {
            Verdict::Good { acknowledged } => self.result.verified += acknowledged,
            Verdict::Lost { acknowledged, lost } => {
                self.result.verified += acknowledged - lost.len() as u64;
                self.result.lost += lost.len() as u64;
                if self.result.examples.len() < EXAMPLES_MAX {
                    let last: Vec<String> = lost.iter().map(|write| format!("{:016x}", write.0)).collect();
                    let key = data::key(key);
                    self.result.examples.push(format!(
                        "key {} must hold write {}, but {found:?}",
                        key.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                        last.join(" or ")
                    ));
                }
            }
        }
    }
}

impl Job for Verify {
    fn next(&mut self, now: Time) -> Next {
        if self.keys.is_empty() && self.again.is_empty() {
            return if self.slots.all_idle() { Next::Finished } else { Next::Wait };
        }
        let Some(slot) = self.slots.take() else { return Next::Wait };
        let (key, tries) = self.keys.pop().map(|key| (key, 0)).or_else(|| self.again.pop()).expect("one is not empty");
        self.tries[slot as usize] = tries + 1;
        let (started, operation) = self.recorder.start(now, slot, self.client + slot, key, None);
        self.slots.begin(slot, started, now);
        Next::Start(operation)
    }

    fn finish(&mut self, now: Time, slot: u32, outcome: Outcome) {
        let (started, _) = self.slots.end(slot);
        let tries = self.tries[slot as usize];
        match self.recorder.finish(now, &started, &outcome) {
            Some(found) => self.judge(started.key, found),
            None if tries < TRIES_MAX => self.again.push((started.key, tries)),
            None => self.result.unread += self.recorder.verifier.acknowledged(started.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::preload::Preload;

    type Store = BTreeMap<Bytes, Bytes>;

    /// Carries a job out on a map, one operation at a time.
    fn carry_out<J: Job>(mut job: J, store: &mut Store) -> J {
        loop {
            match job.next(Time(0)) {
                Next::Start(operation) => {
                    let found = store.get(&operation.key).cloned();
                    if let Some(value) = operation.value {
                        store.insert(operation.key, value);
                    }
                    job.finish(Time(0), operation.slot, Outcome::Done(found));
                }
                Next::Finished => return job,
                other => panic!("{other:?}"),
            }
        }
    }

    fn verify_after(tamper: impl FnOnce(&mut Store)) -> Verification {
        let mut store = Store::new();
        let preload = Preload::new(Recorder::new(20, 5, 64, None), 20, 0, Arc::default());
        let recorder = carry_out(preload, &mut store).recorder;
        tamper(&mut store);
        carry_out(Verify::new(recorder, 1), &mut store).result
    }

    #[test]
    fn an_honest_store_passes_and_every_tampering_is_seen() {
        let counts = |result: Verification| (result.verified, result.lost, result.examples.len());
        assert_eq!(counts(verify_after(|_| ())), (20, 0, 0));
        assert_eq!(counts(verify_after(|store| drop(store.remove(&data::key(3))))), (19, 1, 1));
        let swap = |store: &mut Store| drop(store.insert(data::key(3), store[&data::key(4)].clone()));
        assert_eq!(counts(verify_after(swap)), (19, 1, 1));
        let cut = |store: &mut Store| drop(store.insert(data::key(3), store[&data::key(3)].slice(..63)));
        assert_eq!(counts(verify_after(cut)), (19, 1, 1));
        assert_eq!(counts(verify_after(Store::clear)), (0, 20, EXAMPLES_MAX));
    }

    /// A key that cannot be read is tried again, and in the end is neither verified nor called lost.
    #[test]
    fn a_key_that_cannot_be_read_is_said_to_be_unread() {
        let mut store = Store::new();
        let preload = Preload::new(Recorder::new(1, 5, 64, None), 1, 0, Arc::default());
        let mut verify = Verify::new(carry_out(preload, &mut store).recorder, 1);
        let mut tries = 0;
        while let Next::Start(operation) = verify.next(Time(0)) {
            verify.finish(Time(0), operation.slot, Outcome::Failed("no leader".to_string()));
            tries += 1;
        }
        let Verification { verified, lost, unread, .. } = verify.result;
        assert_eq!((tries, verified, lost, unread), (TRIES_MAX, 0, 0, 1));
    }
}
