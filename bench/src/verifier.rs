//! What each key may hold after a run, from nothing but what the client was told.
//!
//! Writes of many clients overlap, so the last acknowledged write of a key is not one write: it is every acknowledged
//! write that no other one certainly followed. One write certainly follows another when it was called after the other
//! had returned. A write without a known outcome may have happened, or may still happen, at any later time, so it
//! stays possible to the end.
//!
//! Laws: a key with an acknowledged write holds one of its candidates or one of its unknown writes. A key without an
//! acknowledged write is not judged, because an external cluster may have held it before.

use crate::data::{KeyNumber, WriteId};

/// The order of calls and returns as the one client thread saw them. No two events share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(pub u64);

/// What is known about all keys.
pub struct Verifier {
    keys: Vec<KeyState>,
}

/// One key. Almost all keys have one candidate and nothing unknown, so that this is what lies in one place: a run
/// touches keys at random, and every further place would be one more miss of the processor's cache.
#[derive(Clone, Default)]
struct KeyState {
    acknowledged: u32,
    /// The candidate that was acknowledged last. Without an acknowledged write it means nothing.
    latest: (WriteId, Order),
    more: Option<Box<More>>,
}

#[derive(Clone, Default)]
struct More {
    /// Further acknowledged writes that no acknowledged write certainly followed, with their returns.
    candidates: Vec<(WriteId, Order)>,
    unknown: Vec<WriteId>,
}

impl KeyState {
    fn candidates(&self) -> impl Iterator<Item = WriteId> {
        let latest = (self.acknowledged > 0).then_some(self.latest.0);
        let others = self.more.iter().flat_map(|more| more.candidates.iter().map(|(write, _)| *write));
        others.chain(latest)
    }
}

/// What was read back from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The key is not there.
    Absent,
    /// It holds the value of this write.
    Write(WriteId),
    /// It holds bytes that no write of this run made.
    Foreign,
}

/// The verdict about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing acknowledged is missing. All this many acknowledged writes are accounted for.
    Good {
        /// Acknowledged writes of the key.
        acknowledged: u64,
    },
    /// This many of the acknowledged writes, which must have been the last ones, are gone.
    Lost {
        /// Acknowledged writes of the key.
        acknowledged: u64,
        /// Those that must have been there.
        lost: Vec<WriteId>,
    },
}

impl Verifier {
    /// Nothing is known about `keys` keys.
    pub fn new(keys: KeyNumber) -> Verifier {
        Verifier { keys: vec![KeyState::default(); keys as usize] }
    }

    /// A write was acknowledged.
    pub fn acknowledge(&mut self, key: KeyNumber, write: WriteId, called: Order, returned: Order) {
        assert!(called < returned, "a write returns after it was called");
        let state = &mut self.keys[key as usize];
        let before = std::mem::replace(&mut state.latest, (write, returned));
        if let Some(more) = &mut state.more {
            more.candidates.retain(|(_, candidate_returned)| *candidate_returned > called);
        }
        if state.acknowledged > 0 && before.1 > called {
            state.more.get_or_insert_default().candidates.push(before);
        }
        state.acknowledged += 1;
    }

    /// A write has no known outcome.
    pub fn unknown(&mut self, key: KeyNumber, write: WriteId) {
        self.keys[key as usize].more.get_or_insert_default().unknown.push(write);
    }

    /// The keys that can be judged, in order.
    pub fn judged(&self) -> impl Iterator<Item = KeyNumber> {
        let judged = self.keys.iter().zip(0..).filter(|(state, _)| state.acknowledged > 0);
        judged.map(|(_, key)| key)
    }

    /// How many writes of a key were acknowledged.
    pub fn acknowledged(&self, key: KeyNumber) -> u64 {
        u64::from(self.keys[key as usize].acknowledged)
    }

    /// Judges what a key holds after the run.
    pub fn judge(&self, key: KeyNumber, found: Found) -> Verdict {
        let state = &self.keys[key as usize];
        let acknowledged = u64::from(state.acknowledged);
        let is_possible = |write: WriteId| {
            let mut candidates = state.candidates();
            candidates.any(|candidate| candidate == write)
                || state.more.as_ref().is_some_and(|more| more.unknown.contains(&write))
        };
        match found {
            Found::Write(write) if is_possible(write) => Verdict::Good { acknowledged },
            _ if acknowledged == 0 => Verdict::Good { acknowledged },
            _ => Verdict::Lost { acknowledged, lost: state.candidates().collect() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::Dice;

    fn write(number: u64) -> WriteId {
        WriteId(number)
    }

    fn lost(acknowledged: u64, writes: &[u64]) -> Verdict {
        Verdict::Lost { acknowledged, lost: writes.iter().map(|number| write(*number)).collect() }
    }

    #[test]
    fn the_last_of_two_that_follow_each_other_must_be_there() {
        let mut verifier = Verifier::new(1);
        verifier.acknowledge(0, write(1), Order(1), Order(2));
        verifier.acknowledge(0, write(2), Order(3), Order(4));
        assert_eq!(verifier.judge(0, Found::Write(write(2))), Verdict::Good { acknowledged: 2 });
        assert_eq!(verifier.judge(0, Found::Write(write(1))), lost(2, &[2]));
        assert_eq!(verifier.judge(0, Found::Absent), lost(2, &[2]));
        assert_eq!(verifier.judge(0, Found::Foreign), lost(2, &[2]));
    }

    #[test]
    fn either_of_two_that_overlap_may_be_there() {
        let mut verifier = Verifier::new(1);
        verifier.acknowledge(0, write(1), Order(1), Order(3));
        verifier.acknowledge(0, write(2), Order(2), Order(4));
        for number in [1, 2] {
            assert_eq!(verifier.judge(0, Found::Write(write(number))), Verdict::Good { acknowledged: 2 });
        }
        assert_eq!(verifier.judge(0, Found::Write(write(9))), lost(2, &[1, 2]));
        verifier.acknowledge(0, write(3), Order(5), Order(6));
        assert_eq!(verifier.judge(0, Found::Write(write(1))), lost(3, &[3]));
    }

    #[test]
    fn an_unknown_write_may_be_there_but_excuses_nothing() {
        let mut verifier = Verifier::new(2);
        verifier.acknowledge(0, write(1), Order(1), Order(2));
        verifier.unknown(0, write(7));
        assert_eq!(verifier.judge(0, Found::Write(write(7))), Verdict::Good { acknowledged: 1 });
        assert_eq!(verifier.judge(0, Found::Absent), lost(1, &[1]));
        verifier.unknown(1, write(8));
        assert_eq!(verifier.judge(1, Found::Absent), Verdict::Good { acknowledged: 0 });
        assert_eq!(verifier.judge(1, Found::Foreign), Verdict::Good { acknowledged: 0 });
        assert_eq!(verifier.judged().collect::<Vec<_>>(), [0]);
    }

    /// Against the definition: a write is possible if no acknowledged one was called after it had returned.
    #[test]
    fn candidates_are_what_the_definition_says() {
        for seed in 0..500 {
            let mut dice = Dice::new(seed);
            let mut verifier = Verifier::new(1);
            let (mut open, mut over, mut order) = (Vec::new(), Vec::new(), 0);
            for number in 0..24 {
                order += 1;
                open.push((write(number), Order(order)));
                while !open.is_empty() && dice.below(3) > 0 {
                    order += 1;
                    let (id, called) = open.swap_remove(dice.below(open.len() as u32) as usize);
                    verifier.acknowledge(0, id, called, Order(order));
                    over.push((id, called, Order(order)));
                }
            }
            for (id, _, returned) in &over {
                let is_possible = !over.iter().any(|(_, called, _)| called > returned);
                let verdict = verifier.judge(0, Found::Write(*id));
                assert_eq!(
                    verdict == Verdict::Good { acknowledged: over.len() as u64 },
                    is_possible,
                    "seed {seed}: {over:?}"
                );
            }
        }
    }

    /// A store that does what it was told passes; every way of tampering with one key of it is seen.
    #[test]
    fn a_tampered_store_is_seen() {
        let mut verifier = Verifier::new(8);
        let mut store: BTreeMap<KeyNumber, WriteId> = BTreeMap::new();
        for number in 0..64 {
            let key = (number % 8) as KeyNumber;
            store.insert(key, write(number));
            verifier.acknowledge(key, write(number), Order(2 * number + 1), Order(2 * number + 2));
        }
        let verdicts = |store: &BTreeMap<KeyNumber, WriteId>| {
            let found = |key| store.get(&key).map_or(Found::Absent, |write| Found::Write(*write));
            (0..8).filter(|key| verifier.judge(*key, found(*key)) != Verdict::Good { acknowledged: 8 }).count()
        };
        assert_eq!(verdicts(&store), 0);
        for key in 0..8 {
            let honest = store[&key];
            store.remove(&key);
            assert_eq!(verdicts(&store), 1, "the key is missing");
            store.insert(key, WriteId(honest.0 - 8));
            assert_eq!(verdicts(&store), 1, "the key was rolled back by one write");
            store.insert(key, WriteId((honest.0 + 1) % 64));
            assert_eq!(verdicts(&store), 1, "the key holds another key's value");
            store.insert(key, honest);
        }
        assert_eq!(verdicts(&store), 0);
    }
}
