//! `pontoon wal dump`: every group of records and its runs, in the order of writing.

use std::io::Write;

use clap::Args;
use pontoon_types::{GroupId, Index};
use pontoon_wal::LogError;
use pontoon_wal::inspect::{Item, Records, RunOf, directory, dump, kind_name};
use serde_json::json;

use super::{Output, Place, name_of};
use crate::failure::Failure;

/// Prints every group of records: one line for each of its runs. Changes nothing, and works beside a running node. What
/// cannot be read is said in its place.
#[derive(Args)]
pub struct Dump {
    #[command(flatten)]
    place: Place,
    /// Only runs about this Raft group.
    #[arg(long)]
    group: Option<u64>,
    /// Only entries with this index, each with its place, length and checksum.
    #[arg(long)]
    index: Option<u64>,
    /// The payloads of these entries too, as hexadecimal digits.
    #[arg(long, requires = "index")]
    raw: bool,
    /// Lines for people, or one JSON object a line.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Dump {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for path in self.place.logs()? {
            let name = name_of(&path);
            if self.output == Output::Table {
                writeln!(out, "log {name}")?;
            }
            let shown = dump(directory(&path)?.as_ref(), &mut |item| {
                let printed = self.print(&mut out, &name, &item);
                printed.map_err(|source| LogError::Io { what: "writing the output".to_string(), source })
            });
            match shown {
                // Whoever reads has seen enough.
                Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                shown => shown?,
            }
        }
        Ok(out.flush()?)
    }

    fn print(&self, out: &mut dyn Write, log: &str, item: &Item<'_>) -> std::io::Result<()> {
        match item {
            Item::Records(records) => self.print_records(out, log, records),
            Item::Unreadable(lost) if self.output == Output::Json => {
                let object = json!({
                    "log": log, "file": lost.file, "offset": lost.offset, "unreadable": lost.what, "why": lost.why,
                });
                writeln!(out, "{object}")
            }
            Item::Unreadable(lost) => {
                writeln!(out, "{} {}: {} cannot be read: {}", lost.file, lost.offset, lost.what, lost.why)
            }
            Item::End(seq) if self.output == Output::Table => writeln!(out, "end of the log: {seq}"),
            Item::End(_) => Ok(()),
        }
    }

    fn print_records(&self, out: &mut dyn Write, log: &str, records: &Records<'_>) -> std::io::Result<()> {
        let is_wanted = |run: &RunOf<'_>| {
            let of_group = self.group.is_none_or(|group| run.group == GroupId(group));
            let of_index = self.index.is_none_or(|index| run.entry(Index(index)).is_some());
            of_group && of_index
        };
        let mut is_silent = true;
        for run in records.runs() {
            is_silent = false;
            if is_wanted(&run) {
                self.print_run(out, log, records, &run)?;
            }
        }
        if is_silent && self.group.is_none() && self.index.is_none() {
            let what = if records.is_seal { "SEAL" } else { "EMPTY" };
            if self.output == Output::Json {
                let mut object = head(log, records);
                object["kind"] = json!(what);
                return writeln!(out, "{object}");
            }
            writeln!(out, "{} {what}, durable up to {}", head_text(records), records.durable_seq)?;
        }
        Ok(())
    }

    fn print_run(&self, out: &mut dyn Write, log: &str, records: &Records<'_>, run: &RunOf<'_>) -> std::io::Result<()> {
        let entry = self.index.and_then(|index| run.entry(Index(index)));
        let payload = |bytes: Option<&[u8]>| bytes.map(hex).unwrap_or_else(|| "rotten".to_string());
        if self.output == Output::Json {
            let mut object = head(log, records);
            object["kind"] = json!(kind_name(run.kind));
            object["group"] = json!(run.group.0);
            object["first"] = json!(run.index);
            object["last"] = json!(run.last_index());
            object["term"] = json!(run.term);
            object["flags"] = json!(run.flags);
            object["records"] = json!(run.count);
            object["bytes"] = json!(run.bytes);
            if let Some(vote) = run.vote() {
                object["vote"] = json!(vote.0);
            }
            if let Some(entry) = entry {
                let (index, term) = (entry.id.index.0, entry.id.term.0);
                object["entry"] = json!({
                    "index": index, "term": term, "offset": entry.offset, "length": entry.length,
                    "crc": entry.crc, "intact": entry.payload.is_some(),
                });
                if self.raw {
                    object["entry"]["payload"] = json!(entry.payload.map(hex));
                }
            }
            return writeln!(out, "{object}");
        }
        let kind = kind_name(run.kind);
        let what = if run.holds_entries() {
            format!("{} to {} term {}", run.index, run.last_index(), run.term)
        } else {
            format!("{} term {}", run.vote().map_or(run.index.to_string(), |vote| format!("vote {vote}")), run.term)
        };
        writeln!(out, "{} {kind} {} {what}, {} bytes", head_text(records), run.group, run.bytes)?;
        if let Some(entry) = entry {
            let state = if entry.payload.is_some() { "intact" } else { "rotten" };
            let (offset, length, crc) = (entry.offset, entry.length, entry.crc);
            writeln!(out, "  entry {} at {offset}: {length} bytes, crc {crc:08x}, {state}", entry.id)?;
            if self.raw {
                writeln!(out, "  {}", payload(entry.payload))?;
            }
        }
        Ok(())
    }
}

fn head(log: &str, records: &Records<'_>) -> serde_json::Value {
    json!({
        "log": log,
        "file": records.file,
        "stream": records.stream,
        "segment": records.segment.0,
        "offset": records.offset,
        "seq": records.seq.0,
        "durable_seq": records.durable_seq.0,
        "fault": records.fault,
    })
}

fn head_text(records: &Records<'_>) -> String {
    let copy = records.fault.as_ref().map_or(String::new(), |fault| format!(" (by its footer: {fault})"));
    format!("{} {} {} {}{copy}", records.file, records.offset, records.stream, records.seq)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
