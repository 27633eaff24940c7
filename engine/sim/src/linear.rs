//! Linearizability of one key.
//!
//! A key is a register with put, get, delete and compare-and-set. Its history is linearizable if every operation can
//! be given one moment between its call and its return so that, in the order of these moments, each gives the result
//! that was seen. Keys are independent of each other, so each is checked by itself.
//!
//! The check walks through the history in time and keeps all *configurations* that explain it so far: the value, and
//! which of the open operations have already taken effect (just-in-time linearization, after Wing and Gong, and Lowe).
//! When an operation returns, configurations in which it has not taken effect are extended by open operations until it
//! has; when none is left, nothing explains the history. Three rules keep the set small:
//!
//! - an open operation that leaves the value as it is and whose result fits takes effect at once, because that costs
//!   nothing and only removes an obligation;
//! - an operation with an unknown outcome stays open for ever and may never take effect; of two configurations that
//!   differ only in such operations, the one that used a subset of them can do all that the other can, so the other
//!   is dropped;
//! - equal configurations are one.
//!
//! Values must be unique over the history, otherwise the check is sound but says little.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A value, by its unique number; none is an absent key.
pub type Value = Option<u64>;

/// What was asked of a key and what came back. No result means that the outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The value was set. The result carries nothing, so it is only known whether it came.
    Put {
        /// The new value.
        value: u64,
        /// Whether it was acknowledged.
        done: bool,
    },
    /// The key was removed; whether it existed.
    Delete {
        /// The result.
        existed: Option<bool>,
    },
    /// The value was to be replaced if it was the expected one; whether it was, and what was seen.
    CompareAndSet {
        /// The value asked for.
        expected: Value,
        /// The value it gets.
        value: Value,
        /// The result.
        result: Option<(bool, Value)>,
    },
    /// The value was read. Reads without a result are not part of a history.
    Get {
        /// The result.
        value: Value,
    },
}

impl Action {
    /// The same, of which nobody knows what came of it.
    pub fn without_result(self) -> Action {
        match self {
            Action::Put { value, .. } => Action::Put { value, done: false },
            Action::Delete { .. } => Action::Delete { existed: None },
            Action::CompareAndSet { expected, value, .. } => Action::CompareAndSet { expected, value, result: None },
            Action::Get { value } => Action::Get { value },
        }
    }
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was called. Moments of a history are all different.
    pub call: u64,
    /// When it returned. None when the outcome is not known: it may take effect at any later time, or never.
    pub return_: Option<u64>,
    /// What it did.
    pub action: Action,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.call)?;
        match self.return_ {
            Some(moment) => write!(f, "{moment}] ")?,
            None => write!(f, "unknown] ")?,
        }
        let show = |value: Value| value.map_or("nothing".to_string(), |value| format!("v{value}"));
        match self.action {
            Action::Put { value, .. } => write!(f, "put v{value}"),
            Action::Delete { existed } => write!(f, "delete, existed {existed:?}"),
            Action::CompareAndSet { expected, value, result } => {
                write!(f, "compare-and-set {} to {}", show(expected), show(value))?;
                match result {
                    Some((succeeded, current)) => write!(f, ", succeeded {succeeded}, saw {}", show(current)),
                    None => Ok(()),
                }
            }
            Action::Get { value } => write!(f, "get {}", show(value)),
        }
    }
}

/// Why a history is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refuted {
    /// No order explains it up to the return of this operation.
    Impossible {
        /// The position in the history of the operation that cannot be placed.
        operation: usize,
        /// The values the key may have had before it returned.
        possible: Vec<Value>,
    },
    /// More open operations or configurations than the check can hold: nothing is decided.
    TooWide,
}

/// Most operations open at once: one bit of a configuration for each.
const OPEN_MAX: usize = 128;

/// Most configurations at once; a history with more is refused as too wide to decide.
const CONFIGURATIONS_MAX: usize = 200_000;

/// A way to explain the history so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration {
    value: Value,
    /// Open operations that have taken effect, by slot.
    done: u128,
}

/// The open operations, each in a slot that is one bit of a configuration.
struct Open<'a> {
    history: &'a [Operation],
    slots: Vec<Option<usize>>,
    /// Slots of operations that never return.
    unknown: u128,
}

/// Checks the history of one key that begins absent. Operations may be in any order.
pub fn check(history: &[Operation]) -> Result<(), Refuted> {
    check_from(None, history)
}

/// Checks the history of one key that begins with a value.
pub fn check_from(value: Value, history: &[Operation]) -> Result<(), Refuted> {
    let mut moments: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
    for (position, operation) in history.iter().enumerate() {
        let clash = moments.insert(operation.call, (position, false)).is_some();
        let clash = clash | operation.return_.is_some_and(|moment| moments.insert(moment, (position, true)).is_some());
        assert!(
            !clash && operation.return_.is_none_or(|moment| moment > operation.call),
            "moments of a history differ"
        );
    }
    let mut open = Open { history, slots: Vec::new(), unknown: 0 };
    let mut configurations = BTreeSet::from([Configuration { value, done: 0 }]);
    for (position, returns) in moments.into_values() {
        if !returns {
            open.call(position).ok_or(Refuted::TooWide)?;
            continue;
        }
        let slot = open.slot_of(position);
        let next = open.returned(slot, &configurations).ok_or(Refuted::TooWide)?;
        if next.is_empty() {
            let possible: BTreeSet<Value> = configurations.iter().map(|configuration| configuration.value).collect();
            return Err(Refuted::Impossible { operation: position, possible: possible.into_iter().collect() });
        }
        configurations = next;
        open.slots[slot] = None;
    }
    Ok(())
}

impl Open<'_> {
    /// Gives a slot to an operation that is called.
    fn call(&mut self, position: usize) -> Option<()> {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == OPEN_MAX {
            return None;
        }
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(position);
        if self.history[position].return_.is_none() {
            self.unknown |= 1 << slot;
        }
        Some(())
    }

    fn slot_of(&self, position: usize) -> usize {
        self.slots.iter().position(|held| *held == Some(position)).expect("law: what returns was called")
    }

    /// The configurations in which the operation of `slot` has taken effect, its bit taken away again.
    fn returned(&self, slot: usize, before: &BTreeSet<Configuration>) -> Option<BTreeSet<Configuration>> {
        let bit = 1_u128 << slot;
        let mut seen = Least::new(self.unknown);
        let mut work = Vec::new();
        let mut after = Least::new(self.unknown);
        for configuration in before {
            let settled = self.settle(*configuration);
            if seen.insert(settled) {
                work.push(settled);
            }
        }
        while let Some(configuration) = work.pop() {
            if configuration.done & bit != 0 {
                after.insert(Configuration { done: configuration.done & !bit, ..configuration });
                continue;
            }
            for (other, position) in self.slots.iter().enumerate() {
                let Some(position) = position else { continue };
                if configuration.done & (1 << other) != 0 {
                    continue;
                }
                let Some(value) = effect(&self.history[*position].action, configuration.value) else { continue };
                let next = self.settle(Configuration { value, done: configuration.done | 1 << other });
                if seen.insert(next) {
                    work.push(next);
                }
            }
            if seen.inserted > CONFIGURATIONS_MAX {
                return None;
            }
        }
        Some(after.into_set())
    }

    /// Lets every operation take effect that fits and changes nothing.
    fn settle(&self, configuration: Configuration) -> Configuration {
        let mut done = configuration.done;
        for (slot, position) in self.slots.iter().enumerate() {
            let Some(position) = position else { continue };
            if (self.unknown | done) & (1 << slot) != 0 {
                continue;
            }
            if effect(&self.history[*position].action, configuration.value) == Some(configuration.value) {
                done |= 1 << slot;
            }
        }
        Configuration { done, ..configuration }
    }
}

/// A set of configurations without those that another one makes needless: equal but for unknown operations, of which
/// it used a superset.
struct Least {
    unknown: u128,
    alike: BTreeMap<(Value, u128), Vec<u128>>,
    inserted: usize,
}

impl Least {
    fn new(unknown: u128) -> Least {
        Least { unknown, alike: BTreeMap::new(), inserted: 0 }
    }

    /// Whether the configuration is new and not needless.
    fn insert(&mut self, Configuration { value, done }: Configuration) -> bool {
        let used = done & self.unknown;
        let least = self.alike.entry((value, done & !self.unknown)).or_default();
        if least.iter().any(|other| other & !used == 0) {
            return false;
        }
        least.retain(|other| used & !other != 0);
        least.push(used);
        self.inserted += 1;
        true
    }

    fn into_set(self) -> BTreeSet<Configuration> {
        let rebuild = |((value, known), used): ((Value, u128), Vec<u128>)| {
            used.into_iter().map(move |used| Configuration { value, done: known | used })
        };
        self.alike.into_iter().flat_map(rebuild).collect()
    }
}

/// The value after `action` on a key with `value`, if its result fits.
fn effect(action: &Action, value: Value) -> Option<Value> {
    match *action {
        Action::Put { value: new, .. } => Some(Some(new)),
        Action::Delete { existed } => existed.is_none_or(|existed| existed == value.is_some()).then_some(None),
        Action::CompareAndSet { expected, value: new, result } => {
            let succeeded = value == expected;
            let fits = result.is_none_or(|result| result == (succeeded, value));
            fits.then_some(if succeeded { new } else { value })
        }
        Action::Get { value: seen } => (seen == value).then_some(value),
    }
}
