//! What clients did and saw: the keys, the unique values, and the history of each key for the linearizability check.
//!
//! Every written value carries a number that is used once, and filling whose length and bytes follow from it, so a
//! value that was torn or mixed up is noticed at once. A key that has collected several unknown outcomes is retired
//! and replaced by a fresh one: an unknown operation stays open for ever, and many of them on one key would make its
//! history too wide to decide.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pontoon_types::{ClientId, Descriptor, GroupId, Index};

use crate::invariants::Invariants;
use crate::linear::{self, Action, Operation, Refuted, Value};
use crate::random::Random;
use crate::violation::Broken;

/// Unknown writes after which a key is retired.
const UNKNOWN_WRITES_MAX: u32 = 10;

/// Operations after which a key is retired.
const KEY_OPERATIONS_MAX: usize = 400;

/// Operations shown around the one that cannot be explained.
const SHOWN_OPERATIONS: usize = 24;

/// The keys in use of one group.
#[derive(Debug)]
struct Keys {
    prefix: Vec<u8>,
    current: Vec<Bytes>,
    made: BTreeSet<Bytes>,
}

/// Everything that clients did.
#[derive(Debug)]
pub struct History {
    moment: u64,
    groups: BTreeMap<GroupId, Keys>,
    operations: BTreeMap<Bytes, Vec<Operation>>,
    unknown: BTreeMap<Bytes, u32>,
    /// Lengths of the fillings of all values, by number.
    fillings: Vec<u32>,
    /// Writes that were definitely refused and given up, and up to where they may stand in the log all the same.
    refused: Vec<(GroupId, ClientId, u64, Index)>,
    /// The groups that began anew and may miss writes.
    anew: BTreeMap<GroupId, Anew>,
    /// The histories that ended then.
    ended: BTreeMap<Bytes, Vec<Operation>>,
}

/// A group that began anew and may miss writes.
#[derive(Debug)]
struct Anew {
    /// When, in the history's moments.
    at: u64,
    /// The last entry of its base.
    base: Index,
    /// The values with which its keys began.
    values: BTreeMap<Bytes, Value>,
}

impl History {
    /// An empty history with `keys` keys in each range.
    pub fn new(descriptors: &[Descriptor], keys: u32) -> History {
        let mut history = History {
            moment: 0,
            groups: BTreeMap::new(),
            operations: BTreeMap::new(),
            unknown: BTreeMap::new(),
            fillings: vec![0],
            refused: Vec::new(),
            anew: BTreeMap::new(),
            ended: BTreeMap::new(),
        };
        for descriptor in descriptors {
            let prefix = descriptor.range.start.to_vec();
            history.groups.insert(descriptor.group, Keys { prefix, current: Vec::new(), made: BTreeSet::new() });
            for _ in 0..keys {
                let key = history.make_key(descriptor.group);
                assert!(descriptor.range.contains(&key), "a key made for a range lies inside it");
                history.keys_mut(descriptor.group).current.push(key);
            }
        }
        history
    }

    fn keys_mut(&mut self, group: GroupId) -> &mut Keys {
        self.groups.get_mut(&group).expect("law: clients know the groups of the cluster")
    }

    /// A key never used before.
    pub fn make_key(&mut self, group: GroupId) -> Bytes {
        let keys = self.keys_mut(group);
        let mut key = keys.prefix.clone();
        // A range's interval is cut within the first two bytes, so anything longer with this start lies inside.
        key.resize(key.len().max(2), 0);
        key.extend_from_slice(format!("k{:03}", keys.made.len()).as_bytes());
        let key = Bytes::from(key);
        keys.made.insert(key.clone());
        key
    }

    /// The next moment of the history.
    pub fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// One of the keys in use.
    pub fn pick_key(&self, group: GroupId, random: &mut Random) -> Bytes {
        random.pick(&self.groups[&group].current).clone()
    }

    /// Some different keys in use, at least one.
    pub fn pick_keys(&self, group: GroupId, random: &mut Random) -> Vec<Bytes> {
        let current = &self.groups[&group].current;
        let mut picked: Vec<Bytes> = current.iter().filter(|_| random.chance(600_000)).cloned().collect();
        if picked.is_empty() {
            picked.push(random.pick(current).clone());
        }
        picked
    }

    /// Every key of the group that was ever used.
    pub fn made_keys(&self, group: GroupId) -> Vec<Bytes> {
        self.groups[&group].made.iter().cloned().collect()
    }

    /// A value never used before.
    pub fn make_value(&mut self, random: &mut Random, filling_max: u32) -> u64 {
        self.fillings.push(random.below(u64::from(filling_max) + 1) as u32);
        self.fillings.len() as u64 - 1
    }

    /// The bytes of a value.
    pub fn value_bytes(&self, value: u64) -> Bytes {
        let mut bytes = value.to_le_bytes().to_vec();
        bytes.resize(8 + self.fillings[value as usize] as usize, value as u8);
        Bytes::from(bytes)
    }

    /// The value whose bytes these are, or what is wrong with them.
    pub fn value_of(&self, bytes: Option<&Bytes>) -> Result<Value, Broken> {
        let Some(bytes) = bytes else { return Ok(None) };
        let number = bytes.first_chunk::<8>().map(|number| u64::from_le_bytes(*number));
        let number = number.filter(|number| (1..self.fillings.len() as u64).contains(number));
        match number {
            Some(number) if self.value_bytes(number) == *bytes => Ok(Some(number)),
            _ => Err(Broken::BadReply(format!("a value that nobody wrote: {}", bytes.escape_ascii()))),
        }
    }

    /// The group begins anew now, and may miss writes. `value` gives what a key has in its base, which ends with the entry at
    /// `base`.
    pub(crate) fn begin_anew(
        &mut self,
        group: GroupId,
        base: Index,
        value: impl Fn(&[u8]) -> Option<Bytes>,
    ) -> Result<(), Broken> {
        let at = self.moment();
        // What was refused may stand in the base: there nothing was committed in its place.
        self.refused.iter_mut().filter(|(of, ..)| *of == group).for_each(|(.., beyond)| *beyond = base);
        let mut values = BTreeMap::new();
        for key in self.made_keys(group) {
            values.insert(key.clone(), self.value_of(value(&key).as_ref())?);
            let operations = self.operations.remove(&key).unwrap_or_default();
            let open = operations.iter().filter(|operation| operation.return_.is_none()).copied().collect();
            self.operations.insert(key.clone(), open);
            self.ended.insert(key, operations);
        }
        self.anew.insert(group, Anew { at, base, values });
        Ok(())
    }

    /// Up to where a request that was called at this moment may stand in the log of the group by what its life before did.
    pub(crate) fn base_of(&self, group: GroupId, call: u64) -> Index {
        self.anew.get(&group).filter(|anew| call < anew.at).map_or(Index(0), |anew| anew.base)
    }

    /// Adds an operation on one key to its history. `in_base` says that it is a write that was carried out in the base of a
    /// group that began anew meanwhile.
    pub fn record(&mut self, group: GroupId, key: &Bytes, operation: Operation, in_base: bool, random: &mut Random) {
        if self.anew.get(&group).is_some_and(|anew| operation.call < anew.at) {
            if !matches!(operation.action, Action::Get { .. }) {
                let open = Operation { return_: None, action: operation.action.without_result(), ..operation };
                self.ended.entry(key.clone()).or_default().push(open);
            }
            if in_base {
                random.draw();
                return;
            }
        }
        let operations = self.operations.entry(key.clone()).or_default();
        operations.push(operation);
        let long = operations.len() >= KEY_OPERATIONS_MAX;
        let unknown = self.unknown.entry(key.clone()).or_default();
        *unknown += u32::from(operation.return_.is_none());
        if long || *unknown >= UNKNOWN_WRITES_MAX {
            let place = self.groups[&group].current.iter().position(|current| current == key);
            if let Some(place) = place {
                let fresh = self.make_key(group);
                self.keys_mut(group).current[place] = fresh;
            }
        }
        // The draw keeps later picks from depending on whether a key was retired here.
        random.draw();
    }

    /// Notes a write that was refused for good.
    pub fn refused(&mut self, group: GroupId, client: ClientId, sequence: u64, call: u64) {
        self.refused.push((group, client, sequence, self.base_of(group, call)));
    }

    /// How many operations on single keys there are.
    pub fn operations_on_keys(&self) -> usize {
        self.operations.values().chain(self.ended.values()).map(Vec::len).sum()
    }

    /// What was refused for good stands in no log, in that of one group or of any.
    pub(crate) fn check_refusals(&self, invariants: &Invariants, only: Option<GroupId>) -> Result<(), Broken> {
        for (group, client, sequence, beyond) in &self.refused {
            let (group, client, sequence) = (*group, *client, *sequence);
            let executed = invariants.executed_at(group, client, sequence).filter(|index| index > beyond);
            if let Some(index) = executed.filter(|_| only.is_none_or(|only| only == group)) {
                return Err(Broken::RefusedButExecuted { group, client, sequence, index });
            }
        }
        Ok(())
    }

    /// Checks everything that can be checked at the end of a run. Returns how many keys were too wide to decide.
    pub fn check(&self, invariants: &Invariants) -> Result<u64, Broken> {
        self.check_refusals(invariants, None)?;
        let value = |key: &Bytes| self.anew.values().find_map(|anew| anew.values.get(key)).copied().flatten();
        let present = self.operations.iter().map(|(key, operations)| (key, value(key), operations));
        let ended = self.ended.iter().map(|(key, operations)| (key, None, operations));
        let mut undecided = 0;
        for (key, first, operations) in ended.chain(present) {
            match linear::check_from(first, operations) {
                Ok(()) => {}
                Err(Refuted::TooWide) => undecided += 1,
                Err(Refuted::Impossible { operation, possible }) => {
                    return Err(Broken::NotLinearizable(explain(key, operations, operation, &possible)));
                }
            }
        }
        Ok(undecided)
    }
}

/// The operation that cannot be placed, and those near it.
fn explain(key: &Bytes, operations: &[Operation], culprit: usize, possible: &[Value]) -> String {
    let culprit = operations[culprit];
    let end = culprit.return_.unwrap_or(u64::MAX);
    let mut near: Vec<&Operation> = operations.iter().filter(|operation| operation.call < end).collect();
    near.sort_by_key(|operation| operation.return_.unwrap_or(u64::MAX).min(end));
    let near = &near[near.len().saturating_sub(SHOWN_OPERATIONS)..];
    let mut text = format!(
        "key {}: no order explains {culprit}; before it returned the value was one of {possible:?}; the operations \
         before its return:",
        key.escape_ascii()
    );
    for operation in near {
        text.push_str(&format!("\n      {operation}"));
    }
    text
}

/// An operation that returned.
pub fn returned(call: u64, moment: u64, action: Action) -> Operation {
    Operation { call, return_: Some(moment), action }
}
