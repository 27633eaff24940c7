//! `pontoon wal stat`: what each log holds.

use std::io::Write;

use clap::Args;
use comfy_table::{Table, presets};
use pontoon_wal::inspect::{LogStat, directory, stat};
use serde_json::{Value, json};

use super::{Output, Place, check_name, name_of};
use crate::failure::Failure;

/// Most laggards in a table; all of them stand in the JSON.
const LAGGARDS_SHOWN: usize = 10;

/// Shows what each log holds. Changes nothing, and works beside a running node, whose log moves on meanwhile.
#[derive(Args)]
pub struct Stat {
    #[command(flatten)]
    place: Place,
    /// Tables for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Stat {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let mut objects = Vec::new();
        for path in self.place.logs()? {
            let log = stat(directory(&path)?.as_ref())?;
            check_name(&path, &log.identity)?;
            match self.output {
                Output::Table => print(&mut out, &name_of(&path), &log)?,
                Output::Json => objects.push(as_json(&log)),
            }
        }
        if self.output == Output::Json {
            writeln!(out, "{:#}", json!({ "logs": objects }))?;
        }
        Ok(out.flush()?)
    }
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(head.iter().copied());
    table
}

fn print(out: &mut dyn Write, name: &str, log: &LogStat) -> std::io::Result<()> {
    let identity = &log.identity;
    writeln!(out, "log {name}: {:032x} of {} in cluster {}", identity.log, identity.node, identity.cluster)?;
    let stop = if log.is_clean { "closed cleanly" } else { "open, or not closed cleanly" };
    writeln!(out, "incarnation {}, {stop}; durable up to {} at least", log.incarnation.0, log.durable_seq)?;
    let end = &log.end;
    writeln!(out, "ends with group of records {} in segment {} at {}", end.seq, end.place.segment, end.place.offset)?;
    if let Some(torn) = &log.torn {
        writeln!(out, "a torn write behind the end: {} at {}", torn.file, torn.offset)?;
    }
    if log.unreadable > 0 {
        writeln!(out, "{} ranges cannot be read, see `pontoon wal verify`: the figures are too small", log.unreadable)?;
    }
    let entries = log.entries;
    writeln!(out, "{} Raft groups with {entries} entries, {} removed", log.groups, log.tombstones)?;
    let mut checkpoints = table(&["checkpoint", "groups", "covers up to", "in segment", "bytes"]);
    for (position, checkpoint) in log.checkpoints.iter().enumerate() {
        let which = if position == 0 { "newest" } else { "one before" };
        let mut row = vec![which.to_string()];
        match &checkpoint.unreadable {
            Some(why) => row.push(why.clone()),
            None => row.extend([
                checkpoint.groups.to_string(),
                checkpoint.covered.seq.to_string(),
                checkpoint.covered.place.segment.to_string(),
                checkpoint.bytes.to_string(),
            ]),
        }
        checkpoints.add_row(row);
    }
    if !log.checkpoints.is_empty() {
        writeln!(out, "{checkpoints}")?;
    }
    let mut segments =
        table(&["file", "stream", "segment", "groups of records", "entries", "used bytes", "live bytes"]);
    for segment in &log.segments {
        segments.add_row([
            segment.file.clone(),
            segment.stream.to_string(),
            segment.segment.to_string(),
            segment.groups.to_string(),
            segment.entries.to_string(),
            segment.used_bytes.to_string(),
            segment.live_bytes.to_string(),
        ]);
    }
    writeln!(out, "{segments}")?;
    writeln!(
        out,
        "live {} bytes, used {} bytes, free {} bytes in {} files",
        log.live_bytes(),
        log.used_bytes(),
        log.free_bytes(),
        log.free_files.len()
    )?;
    let mut laggards =
        table(&["holds the oldest segments", "from segment", "entries", "bytes", "freed by compacting to"]);
    for laggard in log.laggards.iter().take(LAGGARDS_SHOWN) {
        laggards.add_row([
            laggard.group.to_string(),
            laggard.oldest.to_string(),
            laggard.entries.to_string(),
            laggard.bytes.to_string(),
            laggard.up_to.to_string(),
        ]);
    }
    if !log.laggards.is_empty() {
        writeln!(out, "{laggards}")?;
    }
    Ok(())
}

fn as_json(log: &LogStat) -> Value {
    let checkpoints: Vec<Value> = log
        .checkpoints
        .iter()
        .map(|checkpoint| {
            json!({
                "unreadable": checkpoint.unreadable,
                "groups": checkpoint.groups,
                "covered_seq": checkpoint.covered.seq.0,
                "covered_segment": checkpoint.covered.place.segment.0,
                "bytes": checkpoint.bytes,
            })
        })
        .collect();
    let segments: Vec<Value> = log
        .segments
        .iter()
        .map(|segment| {
            json!({
                "file": segment.file,
                "stream": segment.stream,
                "segment": segment.segment.0,
                "records": segment.groups,
                "entries": segment.entries,
                "used_bytes": segment.used_bytes,
                "live_bytes": segment.live_bytes,
            })
        })
        .collect();
    let laggards: Vec<Value> = log
        .laggards
        .iter()
        .map(|laggard| {
            json!({
                "group": laggard.group.0,
                "segment": laggard.oldest.0,
                "entries": laggard.entries,
                "bytes": laggard.bytes,
                "compact_to": laggard.up_to.0,
            })
        })
        .collect();
    json!({
        "cluster": log.identity.cluster.to_string(),
        "node": log.identity.node.0,
        "log": format!("{:032x}", log.identity.log),
        "incarnation": log.incarnation.0,
        "clean": log.is_clean,
        "durable_seq": log.durable_seq.0,
        "end": { "seq": log.end.seq.0, "segment": log.end.place.segment.0, "offset": log.end.place.offset },
        "torn": log.torn.as_ref().map(|torn| json!({ "file": torn.file, "offset": torn.offset })),
        "unreadable_ranges": log.unreadable,
        "groups": log.groups,
        "tombstones": log.tombstones,
        "entries": log.entries,
        "segment_bytes": log.segment_bytes,
        "live_bytes": log.live_bytes(),
        "used_bytes": log.used_bytes(),
        "free_bytes": log.free_bytes(),
        "free_files": log.free_files,
        "checkpoints": checkpoints,
        "segments": segments,
        "laggards": laggards,
    })
}
