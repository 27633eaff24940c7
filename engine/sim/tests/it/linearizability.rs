//! The linearizability check by itself: histories that have an order, and histories that have none.

use pontoon_sim::linear::{Action, Operation, Refuted, Value, check};
use pontoon_sim::random::Random;

fn operation(call: u64, return_: u64, action: Action) -> Operation {
    Operation { call, return_: Some(return_), action }
}

fn unknown(call: u64, action: Action) -> Operation {
    Operation { call, return_: None, action }
}

fn put(value: u64) -> Action {
    Action::Put { value, done: true }
}

fn get(value: Value) -> Action {
    Action::Get { value }
}

fn swap(expected: Value, value: Value, result: Option<(bool, Value)>) -> Action {
    Action::CompareAndSet { expected, value, result }
}

fn delete(existed: Option<bool>) -> Action {
    Action::Delete { existed }
}

#[track_caller]
fn good(history: &[Operation]) {
    assert_eq!(check(history), Ok(()));
}

#[track_caller]
fn bad(history: &[Operation], culprit: usize) {
    match check(history) {
        Err(Refuted::Impossible { operation, .. }) => assert_eq!(operation, culprit),
        other => panic!("the history has no order, but the check says {other:?}"),
    }
}

#[test]
fn one_after_another() {
    good(&[]);
    good(&[operation(1, 2, put(1)), operation(3, 4, get(Some(1))), operation(5, 6, delete(Some(true)))]);
    good(&[
        operation(1, 2, get(None)),
        operation(3, 4, delete(Some(false))),
        operation(5, 6, swap(None, Some(1), Some((true, None)))),
    ]);
}

#[test]
fn a_stale_read_has_no_order() {
    bad(&[operation(1, 2, put(1)), operation(3, 4, put(2)), operation(5, 6, get(Some(1)))], 2);
    bad(&[operation(1, 2, put(1)), operation(3, 4, get(None))], 1);
}

#[test]
fn a_lost_acknowledged_write_has_no_order() {
    bad(
        &[
            operation(1, 2, put(1)),
            operation(3, 4, swap(Some(1), Some(2), Some((true, Some(1))))),
            operation(5, 6, get(Some(1))),
        ],
        2,
    );
}

#[test]
fn a_read_of_a_value_that_is_never_written_has_no_order() {
    bad(&[operation(1, 2, put(1)), operation(3, 4, get(Some(9)))], 1);
}

#[test]
fn overlapping_operations_may_have_either_order() {
    good(&[operation(1, 4, put(1)), operation(2, 3, put(2)), operation(5, 6, get(Some(1)))]);
    good(&[operation(1, 4, put(1)), operation(2, 3, put(2)), operation(5, 6, get(Some(2)))]);
    good(&[operation(1, 6, put(1)), operation(2, 3, get(None)), operation(4, 5, get(Some(1)))]);
}

#[test]
fn what_one_read_saw_no_later_read_unsees() {
    bad(&[operation(1, 8, put(1)), operation(2, 3, get(Some(1))), operation(4, 5, get(None))], 2);
    bad(
        &[
            operation(1, 10, put(1)),
            operation(2, 11, put(2)),
            operation(3, 4, get(Some(1))),
            operation(5, 6, get(Some(2))),
            operation(7, 8, get(Some(1))),
        ],
        4,
    );
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never() {
    let maybe = unknown(1, Action::Put { value: 1, done: false });
    good(&[maybe, operation(2, 3, get(None)), operation(4, 5, get(Some(1)))]);
    good(&[maybe, operation(2, 3, put(2)), operation(4, 5, get(Some(2))), operation(6, 7, get(Some(1)))]);
    good(&[maybe, operation(2, 3, put(2)), operation(4, 5, get(Some(2)))]);
    good(&[unknown(1, delete(None)), operation(2, 3, put(2)), operation(4, 5, get(None))]);
}

#[test]
fn an_unknown_write_takes_effect_once() {
    let maybe = unknown(1, Action::Put { value: 1, done: false });
    bad(&[maybe, operation(2, 3, get(Some(1))), operation(4, 5, put(2)), operation(6, 7, get(Some(1)))], 3);
}

#[test]
fn an_unknown_write_takes_effect_after_its_call() {
    bad(&[operation(1, 2, get(Some(1))), unknown(3, Action::Put { value: 1, done: false })], 0);
}

#[test]
fn compare_and_set_sees_what_it_says() {
    good(&[
        operation(1, 2, put(1)),
        operation(3, 4, swap(Some(1), None, Some((true, Some(1))))),
        operation(5, 6, get(None)),
    ]);
    good(&[operation(1, 2, put(1)), operation(3, 4, swap(Some(7), Some(2), Some((false, Some(1)))))]);
    bad(&[operation(1, 2, put(1)), operation(3, 4, swap(Some(1), Some(2), Some((false, Some(1)))))], 1);
    bad(&[operation(1, 2, put(1)), operation(3, 4, swap(Some(1), Some(2), Some((true, None))))], 1);
    // Two that both succeed from the same value: one of them did not see the other.
    let both = |value| swap(Some(1), Some(value), Some((true, Some(1))));
    bad(&[operation(1, 2, put(1)), operation(3, 6, both(2)), operation(4, 7, both(3))], 2);
    good(&[operation(1, 2, put(1)), unknown(3, swap(Some(1), Some(2), None)), operation(4, 5, get(Some(2)))]);
    bad(&[operation(1, 2, put(1)), unknown(3, swap(Some(9), Some(2), None)), operation(4, 5, get(Some(2)))], 2);
}

#[test]
fn a_delete_knows_whether_the_key_existed() {
    bad(&[operation(1, 2, put(1)), operation(3, 4, delete(Some(false)))], 1);
    bad(&[operation(1, 2, delete(Some(true)))], 0);
    good(&[operation(1, 4, put(1)), operation(2, 3, delete(Some(true))), operation(5, 6, get(None))]);
}

/// A register that is really one, with overlapping operations and unknown outcomes: always accepted. Then one read is
/// falsified to a value that was overwritten before the read was called: always refused.
#[test]
fn true_histories_pass_and_falsified_ones_do_not() {
    let mut falsified = 0;
    for seed in 0..400 {
        let mut history = true_history(seed);
        good(&history);
        let Some((read, older)) = stale_candidate(&history) else { continue };
        history[read].action = get(Some(older));
        assert!(matches!(check(&history), Err(Refuted::Impossible { .. })), "seed {seed}: {history:?}");
        falsified += 1;
    }
    assert!(falsified > 100, "only {falsified} histories could be falsified");
}

/// Each operation takes effect at a drawn moment between its call and its return.
fn true_history(seed: u64) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let mut effects: Vec<(u64, u64, u64, u64)> = Vec::new();
    for number in 1..=60 {
        let call = 1 + random.below(900) * 8;
        let effect = call + 1 + random.below(200);
        effects.push((effect, call, effect + 1 + random.below(200), number));
    }
    effects.sort();
    let (mut value, mut history, mut used) = (None, Vec::new(), std::collections::BTreeSet::new());
    for (_, call, return_, number) in effects {
        if !used.insert(call) || !used.insert(return_) {
            continue;
        }
        let lost = random.below(12) == 0;
        let (action, next) = match random.below(5) {
            0 => (Action::Put { value: number, done: !lost }, Some(number)),
            1 => (delete((!lost).then_some(value.is_some())), None),
            2 => {
                let expected = if random.below(3) == 0 { None } else { value };
                let succeeded = expected == value;
                let result = (!lost).then_some((succeeded, value));
                (swap(expected, Some(number), result), if succeeded { Some(number) } else { value })
            }
            _ => (get(value), value),
        };
        let reads = matches!(action, Action::Get { .. });
        history.push(Operation { call, return_: (reads || !lost).then_some(return_), action });
        value = next;
    }
    history
}

/// A read, and a value that was put and replaced by another put wholly before the read was called. No unknown
/// operation could bring it back, because values are unique and puts take effect once.
fn stale_candidate(history: &[Operation]) -> Option<(usize, u64)> {
    let puts: Vec<(u64, u64, u64)> = history
        .iter()
        .filter_map(|one| match (one.action, one.return_) {
            (Action::Put { value, .. }, Some(return_)) => Some((one.call, return_, value)),
            _ => None,
        })
        .collect();
    history.iter().enumerate().find_map(|(place, one)| {
        let Action::Get { value } = one.action else { return None };
        let older = puts.iter().find(|(_, returned, older)| {
            value != Some(*older) && puts.iter().any(|(call, end, _)| call > returned && *end < one.call)
        })?;
        Some((place, older.2))
    })
}

#[test]
fn many_unknown_operations_are_still_decided() {
    let mut history: Vec<Operation> =
        (0..40).map(|number| unknown(number + 1, Action::Put { value: 100 + number, done: false })).collect();
    for number in 0..30 {
        history.push(operation(1_000 + number * 4, 1_001 + number * 4, put(number + 1)));
        history.push(operation(1_002 + number * 4, 1_003 + number * 4, get(Some(number + 1))));
    }
    good(&history);
    history.push(operation(5_000, 5_001, get(Some(3))));
    let culprit = history.len() - 1;
    bad(&history, culprit);
}
