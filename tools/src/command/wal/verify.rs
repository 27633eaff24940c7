//! `pontoon wal verify`: whether the logs are what was written.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use pontoon_wal::LogError;
use pontoon_wal::inspect::{Damage, Loss, Verdict, directory, stat, verify};
use serde_json::{Value, json};

use super::{Output, Place, check_name, name_of};
use crate::failure::{CORRUPTION, Failure, TORN_TAIL};

/// Most looks at a log whose faults change from look to look, because it is being written.
const LOOKS_MAX: usize = 8;

/// Between two looks, so that a write that was seen in the middle is complete.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads every log from the disk, past the cache, and checks each checksum, that the log would open, and that all logs
/// are there that the node lists. Changes nothing, and works beside a running node: what it writes meanwhile is left out.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// Lines for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Verify {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let (mut objects, mut worst): (Vec<Value>, Option<Failure>) = (Vec::new(), None);
        let logs = self.place.logs()?;
        let listing = self.place.listing(&logs)?;
        for log in &listing.missing {
            let line = format!("log {log} is missing: the node lists it and does not start without it; restore it");
            match self.output {
                Output::Table => writeln!(out, "{line}")?,
                Output::Json => objects.push(json!({ "log": log, "error": line })),
            }
            worst.get_or_insert(Failure::new(CORRUPTION, line));
        }
        for path in &logs {
            let name = name_of(path);
            let result = look(path);
            let is_unlisted = listing.unlisted.contains(&name);
            let failure = match &result {
                // What the node never opens harms nothing.
                _ if is_unlisted => None,
                Ok(verdict) => failure_of(&name, verdict),
                Err(error) => Some(Failure::new(error.code(), format!("log {name}: {error}"))),
            };
            match (self.output, &result) {
                (Output::Table, Ok(verdict)) => print(&mut out, &name, verdict)?,
                (Output::Table, Err(error)) => writeln!(out, "log {name}: {error}")?,
                (Output::Json, Ok(verdict)) => objects.push(as_json(&name, verdict)),
                (Output::Json, Err(error)) => objects.push(json!({ "log": name, "error": error.to_string() })),
            }
            if is_unlisted && self.output == Output::Table {
                writeln!(out, "  note: the node does not list this log and never opens it")?;
            }
            let is_worse = |failure: &Failure| worst.as_ref().is_none_or(|worst| failure.code() > worst.code());
            worst = failure.filter(is_worse).or(worst);
        }
        if self.output == Output::Json {
            let exit = worst.as_ref().map_or(0, Failure::code);
            writeln!(out, "{:#}", json!({ "logs": objects, "unlisted": listing.unlisted, "exit": exit }))?;
        }
        out.flush()?;
        worst.map_or(Ok(()), Err)
    }
}

/// Looks until all is well, or twice: what only one of two looks has found is no damage.
fn look(path: &Path) -> Result<Verdict, Failure> {
    let mut earlier: Option<Result<Verdict, LogError>> = None;
    for _ in 0..LOOKS_MAX {
        if earlier.is_some() {
            std::thread::sleep(PAUSE);
        }
        let (now, is_settled) = match (directory(path).and_then(|storage| verify(storage.as_ref())), &earlier) {
            (Ok(verdict), _) if verdict.is_fine() => (Ok(verdict), true),
            (Ok(verdict), Some(Ok(earlier))) => (Ok(verdict.confirmed_by(earlier)), true),
            (Err(error), Some(Err(earlier))) => {
                let is_same = error.to_string() == earlier.to_string();
                (Err(error), is_same)
            }
            (now, _) => (now, false),
        };
        earlier = Some(now);
        if is_settled {
            break;
        }
    }
    let verdict = earlier.expect("law: at least one look is taken")?;
    check_name(path, &stat(directory(path)?.as_ref())?.identity)?;
    Ok(verdict)
}

fn failure_of(name: &str, verdict: &Verdict) -> Option<Failure> {
    let (code, line) = if verdict.refusal.is_some() {
        let line = format!("log {name} is corrupt and would not open; stop the node and see `pontoon wal repair`");
        (CORRUPTION, line)
    } else if !verdict.damage.is_empty() {
        let what = if verdict.heals_by_itself() {
            "the node fetches the lost payloads from its peers when it starts; check the disk"
        } else if verdict.damage.iter().all(|damage| matches!(damage.loss, Loss::Nothing(_) | Loss::Payload(..))) {
            "nothing is lost that has no other copy; check the disk"
        } else {
            "stop the node and see `pontoon wal repair`"
        };
        (CORRUPTION, format!("log {name} is not what was written; {what}"))
    } else if verdict.torn.is_some() {
        let line = format!("log {name} ends with a torn write; nothing is lost, the next start leaves it out");
        (TORN_TAIL, line)
    } else {
        return None;
    };
    Some(Failure::new(code, line))
}

/// What is lost, in words.
pub(super) fn loss_text(loss: &Loss) -> String {
    match loss {
        Loss::Nothing(because) => format!("nothing: there is {because}"),
        Loss::Payload(group, id) => format!("the payload of entry {id} of {group}; its peers give it back"),
        Loss::Entries(group, first, last) => format!("entries {first} to {last} of {group}"),
        Loss::Descriptor(group) => format!("the descriptor of {group}"),
        Loss::Records(what) => what.clone(),
    }
}

pub(super) fn damage_text(damage: &Damage) -> String {
    format!("{} at {}: {}; lost: {}", damage.file, damage.offset, damage.what, loss_text(&damage.loss))
}

fn print(out: &mut dyn Write, name: &str, verdict: &Verdict) -> std::io::Result<()> {
    let state = if verdict.is_fine() { "fine" } else { "not fine" };
    writeln!(
        out,
        "log {name}: {state}; {} segments, {} groups of records, {} bytes read; durable up to {}, ends with {}",
        verdict.segments, verdict.groups, verdict.bytes, verdict.durable_seq, verdict.end_seq
    )?;
    for damage in &verdict.damage {
        writeln!(out, "  damage: {}", damage_text(damage))?;
    }
    if let Some(torn) = &verdict.torn {
        writeln!(out, "  torn: {} at {}; lost: nothing that was acknowledged", torn.file, torn.offset)?;
    }
    if let Some(refusal) = &verdict.refusal {
        writeln!(out, "  would not open: {refusal}")?;
    }
    for note in &verdict.notes {
        writeln!(out, "  note: {note}")?;
    }
    Ok(())
}

fn as_json(name: &str, verdict: &Verdict) -> Value {
    let damage: Vec<Value> = verdict.damage.iter().map(damage_json).collect();
    json!({
        "log": name,
        "fine": verdict.is_fine(),
        "damage": damage,
        "torn": verdict.torn.as_ref().map(|torn| json!({ "file": torn.file, "offset": torn.offset })),
        "refusal": verdict.refusal,
        "notes": verdict.notes,
        "durable_seq": verdict.durable_seq.0,
        "end_seq": verdict.end_seq.0,
        "segments": verdict.segments,
        "records": verdict.groups,
        "bytes": verdict.bytes,
    })
}

fn damage_json(damage: &Damage) -> Value {
    let mut object = json!({
        "file": damage.file, "offset": damage.offset, "what": damage.what, "lost": loss_text(&damage.loss),
    });
    match &damage.loss {
        Loss::Payload(group, id) => {
            object["entry"] = json!({ "group": group.0, "index": id.index.0, "term": id.term.0 });
        }
        Loss::Entries(group, first, last) => {
            object["entries"] = json!({ "group": group.0, "first": first.0, "last": last.0 });
        }
        Loss::Descriptor(group) => object["group"] = json!(group.0),
        Loss::Nothing(_) | Loss::Records(_) => {}
    }
    object
}
