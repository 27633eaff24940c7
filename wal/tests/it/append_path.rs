//! Both ways of appending to a file: the same tests run over them, and each opens what the other wrote.

use std::fs;

use pontoon_types::{CoreWriteNumber, GroupId};
use pontoon_wal::{AppendPath, Log, Options};

use crate::common::{IDENTITY, apply, created, entries, entry, model_of, vote};
use crate::files::{commit, open_with, options};

/// Runs a test once for each append path and names the one it is in, which a failed test prints.
#[allow(clippy::print_stderr)]
pub fn over_both(test: impl Fn(AppendPath)) {
    for append_path in [AppendPath::Write, AppendPath::Mmap] {
        eprintln!("append path: {append_path:?}");
        test(append_path);
    }
}

#[test]
fn each_life_of_a_log_may_append_in_another_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    Log::create(&path, IDENTITY, &options(AppendPath::Write), &created(2)).unwrap();
    let mut model = model_of(&created(2));
    let mut next = 1;
    for life in 0..8_u64 {
        let append_path = if life % 2 == 0 { AppendPath::Mmap } else { AppendPath::Write };
        let (mut log, recovered) = open_with(&path, &options(append_path));
        assert_eq!(recovered.groups, model, "life {life}");
        for number in 1..=30 {
            let writes = [entries(2, vec![entry(next, 1, vec![next as u8; 9000])]), vote(3, next, 2)];
            commit(&mut log, number, &writes);
            apply(&mut model, &writes);
            next += 1;
        }
        // Two lives of each kind end cleanly and go on in the middle of a segment; the others are dropped.
        if life % 4 < 2 {
            log.close().unwrap();
        }
    }
}

#[test]
fn what_is_stored_is_in_the_file_before_any_sync_and_nothing_else_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let options = Options { ready_segments: 1, ..options(AppendPath::Mmap) };
    Log::create(&path, IDENTITY, &options, &created(2)).unwrap();
    let (mut log, _) = Log::open(&path, IDENTITY, &options).unwrap();
    let tail = path.join("slot-001.seg");
    let before = fs::read(&tail).unwrap();
    log.append(CoreWriteNumber(1), &[entries(2, vec![entry(1, 1, vec![7; 5000])])]);
    log.begin_sync().unwrap().unwrap();
    let after = fs::read(&tail).unwrap();
    // The header and the creation of the groups are two blocks, the group is two more.
    let (from, to) = (2 * 4096, 4 * 4096);
    assert!(before[..from] == after[..from] && before[to..] == after[to..]);
    assert!(after[from..to].windows(5000).any(|bytes| bytes == [7; 5000]));
    drop(log);
    let (_, recovered) = open_with(&path, &options);
    assert_eq!(recovered.groups[&GroupId(2)].entries.len(), 1);
}
