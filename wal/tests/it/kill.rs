//! A child process appends and prints each number once it is durable; it is killed again and again, and everything
//! printed must be there.
//!
//! The child is this test binary, run with one test and the directory in the environment.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pontoon_types::{CoreWriteNumber, GroupId};
use pontoon_wal::{AppendPath, Log, LogError, Options};

use crate::append_path::over_both;
use crate::common::{IDENTITY, Opened, Random, created, entries, entry, given_up, gives_up, vote};
use crate::files::{fdatasync, open_with};

const DIRECTORY: &str = "PONTOON_WAL_CHILD";
/// Set for a child that appends through a mapping.
const MAPS: &str = "PONTOON_WAL_CHILD_MAPS";
const ROUNDS: u64 = 14;

fn options(append_path: AppendPath) -> Options {
    Options {
        segment_bytes: 64 << 10,
        max_log_bytes: 1 << 20,
        group_bytes_max: 16 << 10,
        ready_segments: 2,
        checkpoint_segments: 3,
        append_path,
    }
}

/// Different for each index, and checkable without a record of what was written.
fn payload(index: u64) -> Vec<u8> {
    let mut random = Random(index);
    let length = 1 + random.below(3000) as usize;
    vec![random.next() as u8; length]
}

/// Opens the log and appends until there are `enough` entries, of which it gives up the old ones. Reports each durable
/// entry count, with how many segments became free in this life.
fn live(path: &Path, append_path: AppendPath, enough: u64, mut report: impl FnMut(u64, u64)) {
    let (mut log, recovered) = open_with(path, &options(append_path));
    let mut next = recovered.groups[&GroupId(2)].next() - 1;
    let first = next;
    let mut random = Random(next);
    let mut waits = 0;
    while next < enough {
        // While it waits for a segment nothing more is gathered, so that the lives stay many small groups.
        let gathers = if log.is_gathered() { 0 } else { 1 + random.below(4) };
        for _ in 0..gathers {
            next += 1;
            let mut writes = vec![entries(2, vec![entry(next, 1, payload(next))]), vote(3, next, 1)];
            writes.extend(gives_up(2, next));
            log.append(CoreWriteNumber(next - first), &writes);
        }
        match log.begin_sync() {
            Ok(Some(sync)) => {
                let durable = log.finish_sync(fdatasync(sync.fd)).unwrap();
                report(first + durable.0, log.stats().freed_segments);
                waits = 0;
            }
            // The next segment is being prepared, or becomes free.
            Ok(None) | Err(LogError::Full { .. }) => {
                waits += 1;
                assert!(waits < 60_000, "a segment comes: {:?}", log.stats());
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
        if random.below(20) == 0
            && let Some(sync) = log.begin_seal().unwrap()
        {
            log.finish_sync(fdatasync(sync.fd)).unwrap();
        }
    }
}

/// Whether a recovered log holds whole core writes with the right payloads, but for what was given up; how many.
fn check(recovered: &Opened, what: &str) -> u64 {
    let found = &recovered.groups[&GroupId(2)];
    let last = found.next() - 1;
    assert_eq!(recovered.groups[&GroupId(3)].hard_state.term.0, last, "{what}: core writes are whole");
    assert_eq!(found.compacted.index.0, given_up(last), "{what}: no more and no less was given up");
    for (index, entry) in (found.first()..).zip(&found.entries) {
        assert!(entry.id.index.0 == index && entry.payload == payload(index), "{what}: entry {}", entry.id);
    }
    last
}

/// With a directory in the environment this is the child of the test below, and lives until it is killed. Without one
/// it is a life of its own that ends like a crash, after which the last report must have been true.
#[test]
fn one_life() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        let mut out = std::io::stdout();
        let append_path = if std::env::var_os(MAPS).is_some() { AppendPath::Mmap } else { AppendPath::Write };
        live(directory.as_ref(), append_path, u64::MAX, |durable, freed| {
            writeln!(out, "durable {durable} {freed}").unwrap();
            out.flush().unwrap();
        });
        unreachable!("the parent kills this process");
    }
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
        let mut reports = Vec::new();
        live(&path, append_path, 200, |durable, _| reports.push(durable));
        assert!(reports.len() > 20 && reports.is_sorted(), "{reports:?}");
        let (log, recovered) = open_with(&path, &options(append_path));
        assert!(!recovered.clean);
        assert_eq!(check(&recovered, "one life"), *reports.last().unwrap(), "nothing was in flight at the end");
        log.close().unwrap();
    });
}

#[test]
fn killed_again_and_again_nothing_printed_is_lost() {
    over_both(kill_again_and_again);
}

fn kill_again_and_again(append_path: AppendPath) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
    let mut random = Random(std::process::id().into());
    let (mut rewritten, mut freed) = (0, 0);
    let mut last = 0;
    // How many entries are durable in a line, and how many segments became free.
    let numbers = |line: &str| {
        let (durable, freed) = line.strip_prefix("durable ")?.split_once(' ')?;
        Some((durable.parse::<u64>().ok()?, freed.parse::<u64>().ok()?))
    };
    for round in 0..ROUNDS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kill::one_life", "--nocapture", "--test-threads=1"]).env(DIRECTORY, &path);
        if append_path == AppendPath::Mmap {
            command.env(MAPS, "");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The clock of the kill starts with the first durable write, with the first segment that became free, or with the
        // process, so that it meets its start; only that life may write nothing.
        let meets_start = round % 3 == 2;
        let mut heard = lines.by_ref().filter_map(|line| numbers(&line.unwrap()));
        let first = if meets_start { None } else { heard.find(|(_, freed)| round % 3 == 0 || *freed > 0) };
        std::thread::sleep(Duration::from_micros(random.below(if meets_start { 20_000 } else { 60_000 })));
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may be cut in the middle: without its end it counts for nothing, or for fewer segments.
        let reported = lines.filter_map(|line| numbers(&line.unwrap())).last().or(first);
        let (printed, freed_here) = reported.unwrap_or((last, 0));
        assert!(meets_start || printed > last, "round {round}: the child wrote something");
        freed += freed_here;
        let (log, recovered) = open_with(&path, &options(append_path));
        let found = check(&recovered, &format!("round {round}"));
        assert!(found >= printed, "round {round}: {printed} printed, {found} found");
        rewritten += u64::from(recovered.rewritten);
        assert!(!recovered.clean);
        last = found;
        drop(log);
    }
    assert!(rewritten > 0, "some round ended with a group that only the next open made durable");
    assert!(freed >= ROUNDS / 3, "kills meet segments that are freed and used again: {freed}");
}
