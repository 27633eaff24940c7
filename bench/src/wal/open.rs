//! How long a large log takes to open: after a clean stop, and after a crash.
//!
//! The log is built with commits of some MiB, so that building it takes as long as the disk needs. Before each open its
//! files are dropped from the page cache, as after a start of the machine. The crash is a log that wrote one more
//! commit and was then forgotten without a stop. Every open is checked: it must find all entries.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use pontoon_wal::Options;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use super::own_log::{OwnLog, verify};
use super::workload::{Batch, Rotation};
use super::{append_path_name, directory, options};
use crate::args::WalOpenArgs;
use crate::clock;
use crate::data_dir::file_system;
use crate::error::{BenchError, ENVIRONMENT};
use crate::memory::anonymous_bytes;
use crate::report::{figure, publish, round, two_columns};
use crate::run::say;
use crate::spread::Spread;

/// Payload bytes of a commit while the log is built.
const COMMIT_BYTES: u32 = 2 << 20;

/// Segments that a log takes beyond its entries: one in use, those that are ready, and what is cut off at ends.
const SPARE_SEGMENTS: u64 = 8;

/// The result. Names end in their unit.
#[derive(Debug, Serialize)]
struct OpenReport {
    version: &'static str,
    file_system: String,
    append_path: &'static str,
    segment_bytes: u64,
    groups: u32,
    payload_bytes: u32,
    entries: u64,
    log_bytes: u64,
    build_s: f64,
    clean_open_ms: Option<Spread>,
    crash_open_ms: Option<Spread>,
    /// Memory that the log took when it was opened first, with all that it had read and without what is mapped. Later
    /// opens find memory that was given back and is still there.
    memory_bytes: Option<u64>,
}

/// What building has freed is in the allocator's hands for ten seconds, and would be taken for memory that an open does not need.
const SETTLE: Duration = Duration::from_secs(12);

/// One open.
struct Opened {
    log: OwnLog,
    took: Duration,
    memory_bytes: Option<u64>,
}

/// Builds the log, opens it in all rounds, and prints the result.
pub fn run(args: &WalOpenArgs) -> Result<(), BenchError> {
    let base = directory(&args.log)?;
    let dir = base.path().join("log");
    let options = sizes(args);
    let (mut batch, built, took) = build(args, &dir, &options)?;
    say(&format!("{built} bytes with {} entries in {:.1} s", batch.made(), took.as_secs_f64()));
    std::thread::sleep(SETTLE);

    let (mut clean, mut crash, mut memory) = (Vec::new(), Vec::new(), None);
    for number in 1..=args.log.rounds {
        let Opened { mut log, took, memory_bytes } = open(args, &dir, &options, &batch)?;
        clean.push(milliseconds(took));
        memory = memory.or(memory_bytes);
        batch.fill(1);
        log.append(&batch);
        log.commit()?;
        drop(log);

        let Opened { log, took, .. } = open(args, &dir, &options, &batch)?;
        crash.push(milliseconds(took));
        log.close()?;
        let (last_clean, last_crash) = (clean[clean.len() - 1], crash[crash.len() - 1]);
        say(&format!("round {number} of {}: clean {last_clean:.0} ms, crash {last_crash:.0} ms", args.log.rounds));
    }
    let report = OpenReport {
        version: env!("CARGO_PKG_VERSION"),
        file_system: file_system(base.path()),
        append_path: append_path_name(&options),
        segment_bytes: options.segment_bytes,
        groups: args.groups,
        payload_bytes: args.payload,
        entries: batch.made(),
        log_bytes: built,
        build_s: round(took.as_secs_f64()),
        clean_open_ms: Spread::of(clean),
        crash_open_ms: Spread::of(crash),
        memory_bytes: memory,
    };
    publish(&report, OpenReport::table, &args.log.result)
}

/// Room for the log, its checkpoints, the segments around it, and one more for each crash.
fn sizes(args: &WalOpenArgs) -> Options {
    let options = options(&args.log);
    let segments = SPARE_SEGMENTS + 2 * u64::from(args.log.rounds);
    // What does not fit at the end of a segment is lost there: a commit of each.
    let entries = target_bytes(args) + target_bytes(args) / options.segment_bytes * u64::from(2 * COMMIT_BYTES);
    // Two checkpoints, and the one that is being written: 24 bytes for each run, and a run is often one entry.
    let checkpoints = 3 * 24 * (target_bytes(args) / u64::from(args.payload));
    Options { max_log_bytes: entries + checkpoints + segments * options.segment_bytes, ..options }
}

fn target_bytes(args: &WalOpenArgs) -> u64 {
    (args.log_gib * f64::from(1 << 30)) as u64
}

/// Writes a log of the size that was asked for, and stops it cleanly.
fn build(args: &WalOpenArgs, dir: &Path, options: &Options) -> Result<(Batch, u64, Duration), BenchError> {
    let begin = clock::now();
    let mut log = OwnLog::create(dir, options, args.groups)?;
    let mut batch = Batch::new(Rotation::all(args.groups), args.payload as usize);
    while log.totals().bytes < target_bytes(args) {
        batch.fill((COMMIT_BYTES / args.payload.max(64)).max(1));
        log.append(&batch);
        log.commit()?;
    }
    let built = log.totals().bytes;
    log.close()?;
    Ok((batch, built, clock::now().since(begin)))
}

fn open(args: &WalOpenArgs, dir: &Path, options: &Options, batch: &Batch) -> Result<Opened, BenchError> {
    forget(dir).map_err(|error| BenchError::new(ENVIRONMENT, format!("dropping the log from the cache: {error}")))?;
    let (before, begin) = (anonymous_bytes(), clock::now());
    let (mut log, recovered) = OwnLog::open(dir, options)?;
    let took = clock::now().since(begin);
    let memory_bytes = before.zip(anonymous_bytes()).map(|(before, after)| after.saturating_sub(before));
    verify(&mut log, &recovered, args.groups, args.payload as usize, batch.made())?;
    Ok(Opened { log, took, memory_bytes })
}

/// Drops all files of a directory from the page cache.
fn forget(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn milliseconds(span: Duration) -> f64 {
    round(span.as_secs_f64() * 1e3)
}

impl OpenReport {
    fn table(&self) -> String {
        let spread = |spread: Option<Spread>| match spread {
            Some(Spread { median, min, max, .. }) => {
                format!("{} ({}-{})", figure(Some(median)), figure(Some(min)), figure(Some(max)))
            }
            None => "-".to_string(),
        };
        let mib = f64::from(1 << 20);
        two_columns(vec![
            (
                "log",
                format!(
                    "{:.2} GiB, {} entries of {} B",
                    self.log_bytes as f64 / mib / 1024.0,
                    self.entries,
                    self.payload_bytes
                ),
            ),
            ("groups", self.groups.to_string()),
            ("on", format!("{}, segments of {} MiB", self.file_system, self.segment_bytes >> 20)),
            ("built in", format!("{:.1} s, append path {}", self.build_s, self.append_path)),
            ("open after a clean stop, ms", spread(self.clean_open_ms)),
            ("open after a crash, ms", spread(self.crash_open_ms)),
            ("memory when open, MiB", figure(self.memory_bytes.map(|bytes| bytes as f64 / mib))),
        ])
    }
}
