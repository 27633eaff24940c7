//! The node file survives a torn write, and a directory has one owner.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use pontoon::DataDirError;
use pontoon::identity::{DataDir, Identity, Lock};
use pontoon_types::{ClusterId, Incarnation, NodeId};

const SLOT_BYTES: u64 = 64 << 10;

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(7),
        node: NodeId(2),
        incarnation: Incarnation(0),
        ranges: 64,
        logs: vec![11, 12],
        retired: vec![13],
        longest_promise: Duration::ZERO,
        nodes: vec![(NodeId(1), "127.0.0.1:7401".parse().unwrap()), (NodeId(2), "[::1]:7402".parse().unwrap())],
    }
}

fn create(dir: &Path) -> DataDir {
    DataDir::create(dir, Lock::take(dir).unwrap(), identity()).unwrap()
}

/// Flips one byte of a slot, as a write that was cut would.
fn damage(dir: &Path, slot: u64, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(dir.join("node")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, slot * SLOT_BYTES + at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], slot * SLOT_BYTES + at).unwrap();
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    assert_eq!(*DataDir::open(dir.path()).unwrap().identity(), identity());
}

#[test]
fn a_torn_slot_leaves_the_other_one() {
    // Sequence 1 and 2 are written at creation, 3 and 4 by two starts; 4 stands in slot 0.
    for at in [0, 8, 12, 16, 24, 28, 60, 100] {
        let dir = tempfile::tempdir().unwrap();
        let mut data_dir = create(dir.path());
        data_dir.begin_incarnation(Duration::ZERO).unwrap();
        data_dir.begin_incarnation(Duration::ZERO).unwrap();
        assert_eq!(data_dir.identity().incarnation, Incarnation(2));
        drop(data_dir);
        damage(dir.path(), 0, at);
        let mut data_dir = DataDir::open(dir.path()).unwrap();
        assert_eq!(data_dir.identity().incarnation, Incarnation(1), "byte {at} of the newer slot is damaged");
        // The next write goes over the torn slot and leaves the whole one alone.
        data_dir.begin_incarnation(Duration::ZERO).unwrap();
        drop(data_dir);
        damage(dir.path(), 0, at);
        assert_eq!(DataDir::open(dir.path()).unwrap().identity().incarnation, Incarnation(1));
    }
}

#[test]
fn two_torn_slots_are_refused_and_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    damage(dir.path(), 0, 40);
    damage(dir.path(), 1, 40);
    let before = std::fs::read(dir.path().join("node")).unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Unreadable { .. }), "{error}");
    assert_eq!(std::fs::read(dir.path().join("node")).unwrap(), before);
}

#[test]
fn an_empty_node_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("node"), b"").unwrap();
    assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Unreadable { .. })));
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let owner = create(dir.path());
    assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse { .. })));
    drop(owner);
    assert!(DataDir::open(dir.path()).is_ok(), "the lock goes with its owner");
}

/// A slot as it stands on the disk, with a body of the given format.
fn slot(format: u32, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut slot = b"PTNNODE\0".to_vec();
    slot.extend_from_slice(&format.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
    slot.extend_from_slice(&sequence.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot);
    hasher.update(body);
    slot.extend_from_slice(&hasher.finalize().to_le_bytes());
    slot.extend_from_slice(body);
    slot.resize(SLOT_BYTES as usize, 0);
    slot
}

/// The body of format 1 for [`identity`], byte for byte as drawn; format 2 adds the retired logs, format 3 the longest promise.
fn body() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&7_u128.to_le_bytes());
    body.extend_from_slice(&2_u64.to_le_bytes());
    body.extend_from_slice(&0_u64.to_le_bytes());
    body.extend_from_slice(&64_u32.to_le_bytes());
    body.extend_from_slice(&2_u16.to_le_bytes());
    body.extend_from_slice(&11_u128.to_le_bytes());
    body.extend_from_slice(&12_u128.to_le_bytes());
    body.extend_from_slice(&2_u32.to_le_bytes());
    for (node, address) in [(1_u64, "127.0.0.1:7401"), (2, "[::1]:7402")] {
        body.extend_from_slice(&node.to_le_bytes());
        body.extend_from_slice(&(address.len() as u16).to_le_bytes());
        body.extend_from_slice(address.as_bytes());
    }
    body
}

#[test]
fn all_formats_are_read_and_the_newest_one_is_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("node"), slot(1, 4, &body())).unwrap();
    let mut data_dir = DataDir::open(dir.path()).unwrap();
    assert_eq!(*data_dir.identity(), Identity { retired: Vec::new(), ..identity() });
    data_dir.announce_logs(&[13]).unwrap();
    drop(data_dir);
    let second = [body(), 1_u16.to_le_bytes().to_vec(), 13_u128.to_le_bytes().to_vec()].concat();
    let newer = [second.clone(), 0_u64.to_le_bytes().to_vec()].concat();
    let mut written = std::fs::read(dir.path().join("node")).unwrap().split_off(SLOT_BYTES as usize);
    written.resize(SLOT_BYTES as usize, 0);
    assert!(written == slot(3, 5, &newer));
    assert_eq!(*DataDir::open(dir.path()).unwrap().identity(), identity());
    std::fs::write(dir.path().join("node"), slot(2, 6, &second)).unwrap();
    assert_eq!(*DataDir::open(dir.path()).unwrap().identity(), identity());
}

#[test]
fn law_4_the_longest_promise_is_remembered_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut data_dir = create(dir.path());
    let mut begin = |ms| data_dir.begin_incarnation(Duration::from_millis(ms)).unwrap();
    assert_eq!(begin(900), Duration::ZERO);
    assert_eq!(begin(0), Duration::from_millis(900), "leases are off now, and promises of before may stand");
    assert_eq!(begin(2_000), Duration::from_millis(900));
    drop(data_dir);
    // Either slot may rot.
    for slot in [0, 1] {
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("node"), other.path().join("node")).unwrap();
        damage(other.path(), slot, 60);
        let data_dir = DataDir::open(other.path()).unwrap();
        assert_eq!(data_dir.identity().longest_promise, Duration::from_millis(2_000));
    }
}

#[test]
fn a_whole_slot_of_an_unknown_format_is_refused_and_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    let file = OpenOptions::new().write(true).open(dir.path().join("node")).unwrap();
    file.write_all_at(&slot(4, 9, b"what a later build keeps"), SLOT_BYTES).unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("format 4 is not one that this build knows"), "{error}");
}

#[test]
fn a_log_that_is_listed_and_retired_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let contradiction = [body(), 1_u16.to_le_bytes().to_vec(), 12_u128.to_le_bytes().to_vec()].concat();
    std::fs::write(dir.path().join("node"), slot(2, 1, &contradiction)).unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("listed and retired"), "{error}");
}
