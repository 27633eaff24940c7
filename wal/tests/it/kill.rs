//! A child process appends and prints each number once it is durable; it is killed again and again, and everything
//! printed must be there.
//!
//! The child is this test binary, run with one test and the directory in the environment.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pontoon_types::{CoreWriteNumber, GroupId};
use pontoon_wal::{Log, Options, Recovered};

use crate::common::{IDENTITY, Random, created, entries, entry, vote};
use crate::files::fdatasync;

const DIRECTORY: &str = "PONTOON_WAL_CHILD";
const ROUNDS: u64 = 14;

fn options() -> Options {
    Options { segment_bytes: 1 << 20, max_log_bytes: 256 << 20, group_bytes_max: 128 << 10, ready_segments: 2 }
}

/// Different for each index, and checkable without a record of what was written.
fn payload(index: u64) -> Vec<u8> {
    let mut random = Random(index);
    let length = 1 + random.below(3000) as usize;
    vec![random.next() as u8; length]
}

/// Opens the log and appends, one report for each durable entry count, until there are `enough` entries.
fn live(path: &Path, enough: u64, mut report: impl FnMut(u64)) {
    let (mut log, recovered) = Log::open(path, IDENTITY, &options()).unwrap();
    let mut next = recovered.groups[&GroupId(2)].entries.len() as u64;
    let first = next;
    let mut random = Random(next);
    while next < enough {
        for _ in 0..1 + random.below(4) {
            next += 1;
            let writes = [entries(2, vec![entry(next, 1, payload(next))]), vote(3, next, 1)];
            log.append(CoreWriteNumber(next - first), &writes);
        }
        match log.begin_sync().unwrap() {
            Some(sync) => {
                let durable = log.finish_sync(fdatasync(sync.fd)).unwrap();
                report(first + durable.0);
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        if random.below(20) == 0
            && let Some(sync) = log.begin_seal().unwrap()
        {
            log.finish_sync(fdatasync(sync.fd)).unwrap();
        }
    }
}

/// Whether a recovered log holds whole core writes with the right payloads; how many.
fn check(recovered: &Recovered, what: &str) -> u64 {
    let found = &recovered.groups[&GroupId(2)].entries;
    assert_eq!(recovered.groups[&GroupId(3)].hard_state.term.0, found.len() as u64, "{what}: core writes are whole");
    for entry in found {
        assert!(entry.payload == payload(entry.id.index.0), "{what}: entry {}", entry.id);
    }
    found.len() as u64
}

/// With a directory in the environment this is the child of the test below, and lives until it is killed. Without one
/// it is a life of its own that ends like a crash, after which the last report must have been true.
#[test]
fn one_life() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        let mut out = std::io::stdout();
        live(directory.as_ref(), u64::MAX, |durable| {
            writeln!(out, "durable {durable}").unwrap();
            out.flush().unwrap();
        });
        unreachable!("the parent kills this process");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    Log::create(&path, IDENTITY, &options(), &created(2)).unwrap();
    let mut reports = Vec::new();
    live(&path, 200, |durable| reports.push(durable));
    assert!(reports.len() > 20 && reports.is_sorted(), "{reports:?}");
    let (log, recovered) = Log::open(&path, IDENTITY, &options()).unwrap();
    assert!(!recovered.clean);
    assert_eq!(check(&recovered, "one life"), *reports.last().unwrap(), "nothing was in flight at the end");
    log.close().unwrap();
}

#[test]
fn killed_again_and_again_nothing_printed_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    Log::create(&path, IDENTITY, &options(), &created(2)).unwrap();
    let mut random = Random(std::process::id().into());
    let mut rewritten = 0;
    let mut last = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::one_life", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = last;
        // The clock of the kill starts with the first durable write, so that each round writes something.
        let number = |line: &str| line.strip_prefix("durable ").map(|number| number.parse::<u64>().unwrap());
        for line in lines.by_ref() {
            if let Some(number) = number(&line.unwrap()) {
                printed = number;
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            // The last line may be cut in the middle, but only a whole one ends in a newline and reaches the reader
            // before the next; a cut number is smaller, which asks for less.
            printed = number(&line.unwrap()).unwrap_or(printed).max(printed);
        }
        assert!(printed > last, "round {round}: the child wrote something");
        let (log, recovered) = Log::open(&path, IDENTITY, &options()).unwrap();
        let found = check(&recovered, &format!("round {round}"));
        assert!(found >= printed, "round {round}: {printed} printed, {found} found");
        rewritten += u64::from(recovered.rewritten);
        assert!(!recovered.clean);
        last = found;
        drop(log);
    }
    assert!(rewritten > 0, "some round ended with a group that only the next open made durable");
}
