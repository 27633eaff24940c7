//! The limits of a command, and the errors of its bytes.

use bytes::Bytes;
use pontoon_types::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, COMMAND_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use pontoon_types::{RequestId, SessionTime};
use pontoon_wire::client::Refusal;
use pontoon_wire::command::{Command, CommandError, KvOperation};

use crate::samples;

fn command(operations: Vec<KvOperation>) -> Command {
    Command { id: RequestId { sequence: 1, ..RequestId::default() }, floor: 1, operations }
}

fn zeros(bytes: usize) -> Bytes {
    Bytes::from(vec![0; bytes])
}

fn put(key_bytes: usize, value_bytes: usize) -> KvOperation {
    KvOperation::Put { key: zeros(key_bytes), value: zeros(value_bytes) }
}

fn too_large(limit: &str, limit_bytes: usize, bytes: usize) -> Result<(), Refusal> {
    Err(Refusal::TooLarge { limit: limit.to_string(), limit_bytes: limit_bytes as u64, bytes: bytes as u64 })
}

fn swap(expected: Option<usize>, value: Option<usize>) -> Command {
    command(vec![KvOperation::CompareAndSet { key: zeros(1), expected: expected.map(zeros), value: value.map(zeros) }])
}

#[test]
fn what_is_at_a_limit_passes() {
    let half = VALUE_BYTES_MAX / 2;
    assert_eq!(command(vec![put(1, 0)]).check(), Ok(()));
    assert_eq!(command(vec![put(KEY_BYTES_MAX, VALUE_BYTES_MAX)]).check(), Ok(()));
    assert_eq!(command(vec![put(KEY_BYTES_MAX, half), put(1, half - 1)]).check(), Ok(()));
    assert_eq!(swap(Some(half), Some(half)).check(), Ok(()));
    assert_eq!(command(vec![KvOperation::Delete { key: zeros(1) }; BATCH_OPERATIONS_MAX]).check(), Ok(()));
}

#[test]
fn what_is_above_a_limit_is_refused_by_its_name() {
    let key = too_large("KEY_BYTES_MAX", KEY_BYTES_MAX, KEY_BYTES_MAX + 1);
    assert_eq!(command(vec![put(KEY_BYTES_MAX + 1, 0)]).check(), key);
    assert_eq!(command(vec![KvOperation::Delete { key: zeros(KEY_BYTES_MAX + 1) }]).check(), key);
    let value = too_large("VALUE_BYTES_MAX", VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1);
    assert_eq!(command(vec![put(1, VALUE_BYTES_MAX + 1)]).check(), value);
    assert_eq!(swap(Some(VALUE_BYTES_MAX + 1), None).check(), value);
    assert_eq!(swap(None, Some(VALUE_BYTES_MAX + 1)).check(), value);
    let batch = too_large("BATCH_BYTES_MAX", BATCH_BYTES_MAX, BATCH_BYTES_MAX + 1);
    assert_eq!(command(vec![put(7, VALUE_BYTES_MAX), put(1, 0)]).check(), batch);
    assert_eq!(swap(Some(VALUE_BYTES_MAX), Some(1)).check(), batch);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let refused = |command: Command| match command.check() {
        Err(Refusal::Refused { why }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(command(Vec::new())), "a batch holds at least one operation");
    assert_eq!(refused(command(vec![put(0, 1)])), "a key holds at least one byte");
    assert_eq!(
        refused(command(vec![put(1, 0); BATCH_OPERATIONS_MAX + 1])),
        "a batch of 4097 operations is more than BATCH_OPERATIONS_MAX, 4096"
    );
}

#[test]
fn the_largest_command_that_passes_fits_into_an_entry() {
    let mut operations = vec![KvOperation::CompareAndSet {
        key: zeros(KEY_BYTES_MAX),
        expected: Some(Bytes::new()),
        value: Some(zeros(BATCH_BYTES_MAX - (BATCH_OPERATIONS_MAX - 1))),
    }];
    let empty = Some(Bytes::new());
    let small = KvOperation::CompareAndSet { key: zeros(1), expected: empty.clone(), value: empty };
    operations.resize(BATCH_OPERATIONS_MAX, small);
    let largest = command(operations);
    assert_eq!(largest.check(), Ok(()));
    assert!(largest.encode().len() <= COMMAND_BYTES_MAX);
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let whole = samples::command().encode();
    let with = |at: usize, value: u8| {
        let mut bytes = whole.to_vec();
        bytes[at] = value;
        Command::decode(Bytes::from(bytes))
    };
    assert_eq!(Command::decode(Bytes::new()), Err(CommandError::Truncated));
    assert_eq!(with(0, 2), Err(CommandError::Version { found: 2 }));
    assert_eq!(with(44, 0xff), Err(CommandError::Truncated), "4 billion operations");
    assert_eq!(with(41, 5), Err(CommandError::Truncated), "one operation more than there is");
    assert_eq!(with(41, 3), Err(CommandError::Trailing { bytes: 12 }), "one operation less than there is");
    assert_eq!(with(45, 9), Err(CommandError::Kind { found: 9 }));
    let longer = Bytes::from([whole.as_ref(), &[1, 2]].concat());
    assert_eq!(Command::decode(longer), Err(CommandError::Trailing { bytes: 2 }));
}

#[test]
fn keys_and_values_are_slices() {
    let bytes = samples::command().encode();
    let decoded = Command::decode(bytes.clone()).unwrap();
    let range = bytes.as_ptr_range();
    assert!(decoded.operations.iter().all(|operation| range.contains(&operation.key().as_ptr())));
}

#[test]
fn another_session_changes_nothing_else() {
    let command = samples::command();
    let reopened = Command::decode(Command::reopened(&command.encode(), SessionTime(1 << 40))).unwrap();
    let mut expected = command;
    expected.id.session.opened = SessionTime(1 << 40);
    assert_eq!(reopened, expected);
}
