//! raft-engine under the same load: a thread for each writer, each of which writes its batch with a sync.
//!
//! Its configuration is its own default; with incompressible payloads its compression costs little and gains nothing.
//! Files are purged only when somebody asks for it, which nobody does during a round. What it charges to the
//! processor is spread over the writers' threads, so only that of the whole process is known.

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use super::measure::{LogTotals, Meter, Plan, Round, Threads, Timings};
use super::workload::{Payloads, Rotation};
use crate::clock;
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT, INTERNAL, VERIFICATION};

/// How often the conductor looks at the time while the writers write.
const LOOK: Duration = Duration::from_millis(5);

/// The three parts of a round.
const WARM_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// An entry as raft-engine wants it: a message of protobuf 2. The library has one of its own with the fields of a Raft
/// entry, two numbers and bytes, so nothing has to be generated.
type PeerEntry = UninterpretedOption;

/// Says which field of a message is the index.
struct PeerEntries;

impl MessageExt for PeerEntries {
    type Entry = PeerEntry;

    fn index(entry: &PeerEntry) -> u64 {
        entry.get_positive_int_value()
    }
}

/// What the threads of a round share.
struct Work<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    part: AtomicU8,
    bytes: AtomicU64,
}

/// What a writer has done.
struct Written {
    made: u64,
    timings: Timings,
}

/// One round in a new directory. No figures if it was interrupted.
pub fn run(plan: &Plan, dir: &Path) -> Result<Option<Round>, BenchError> {
    let engine = open(dir)?;
    let mut meter = Meter::start(plan, Device::under(dir));
    let work = Work { engine: &engine, plan, part: AtomicU8::new(WARM_UP), bytes: AtomicU64::new(0) };
    let written = conduct(&work, &mut meter)?;
    for writer in &written {
        meter.merge(&writer.timings);
    }
    let mut round = meter.finish(Threads::Many);
    if plan.verify {
        drop(engine);
        let found = verify(&open(dir)?, plan, &written)?;
        round = round.map(|round| Round { verified_entries: Some(found), ..round });
    }
    Ok(round)
}

fn open(dir: &Path) -> Result<Engine, BenchError> {
    let config = Config { dir: dir.display().to_string(), ..Config::default() };
    Engine::open(config).map_err(|error| failed(&error))
}

fn conduct(work: &Work<'_>, meter: &mut Meter) -> Result<Vec<Written>, BenchError> {
    let totals = || LogTotals { bytes: work.bytes.load(Ordering::Relaxed), ..LogTotals::default() };
    std::thread::scope(|scope| {
        let writers = 0..work.plan.workload.writers;
        let threads: Vec<_> = writers.map(|writer| scope.spawn(move || work.write(writer))).collect();
        // A writer ends early only when it has failed.
        while meter.goes_on(clock::now(), totals) && !threads.iter().any(|thread| thread.is_finished()) {
            work.part.store(if meter.is_measuring() { MEASURING } else { WARM_UP }, Ordering::Relaxed);
            std::thread::sleep(LOOK);
        }
        work.part.store(OVER, Ordering::Relaxed);
        let joined = threads.into_iter().map(|thread| {
            let stopped = |_| BenchError::new(INTERNAL, "a thread that wrote to raft-engine has panicked");
            thread.join().map_err(stopped).and_then(|written| written)
        });
        joined.collect()
    })
}

impl Work<'_> {
    fn write(&self, writer: u32) -> Result<Written, BenchError> {
        let workload = self.plan.workload;
        let rotation = Rotation::share(self.plan.groups, writer, workload.writers);
        let payloads = Payloads::new(workload.payload_bytes);
        let width = u64::from(workload.entries).min(rotation.groups()) as usize;
        let mut entries = vec![PeerEntry::new(); workload.entries as usize];
        let mut groups: Vec<(u64, Vec<PeerEntry>)> = vec![(0, Vec::new()); width];
        let mut batch = LogBatch::with_capacity(width);
        let mut written = Written { made: 0, timings: Timings::new() };
        loop {
            let part = self.part.load(Ordering::Relaxed);
            if part == OVER {
                return Ok(written);
            }
            for turn in 0..workload.entries as usize {
                let (group, index) = rotation.at(written.made);
                let mut entry = entries.pop().unwrap_or_default();
                entry.set_positive_int_value(index);
                entry.set_negative_int_value(1);
                entry.mut_string_value().clear();
                entry.mut_string_value().extend_from_slice(&payloads.get(written.made));
                groups[turn % width].0 = group;
                groups[turn % width].1.push(entry);
                written.made += 1;
            }
            let since = clock::now();
            for (group, entries) in &groups {
                batch.add_entries::<PeerEntries>(*group, entries).map_err(|error| failed(&error))?;
            }
            let bytes = self.engine.write(&mut batch, true).map_err(|error| failed(&error))?;
            let now = clock::now();
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if part == MEASURING && self.part.load(Ordering::Relaxed) == MEASURING {
                written.timings.add(since, now, 1, u64::from(workload.entries));
            }
            for (_, used) in &mut groups {
                entries.append(used);
            }
        }
    }
}

/// Counts the entries of an opened engine: each group holds the indexes that its writer has written.
fn verify(engine: &Engine, plan: &Plan, written: &[Written]) -> Result<u64, BenchError> {
    let mut found = 0;
    for group in 1..=u64::from(plan.groups) {
        let writer = (group - 1) as u32 % plan.workload.writers;
        let rotation = Rotation::share(plan.groups, writer, plan.workload.writers);
        let expected = rotation.count_in(group, written[writer as usize].made);
        let span = (engine.first_index(group), engine.last_index(group));
        if expected > 0 && span != (Some(1), Some(expected)) {
            let line = format!("raft-engine holds {span:?} of group {group} instead of 1 to {expected}");
            return Err(BenchError::new(VERIFICATION, line));
        }
        found += expected;
    }
    Ok(found)
}

fn failed(error: &raft_engine::Error) -> BenchError {
    BenchError::new(ENVIRONMENT, format!("raft-engine: {error}"))
}
