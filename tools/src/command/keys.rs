//! `pontoon get`, `put`, `delete`, `cas` and `scan`.

use std::io::Write;

use clap::{Args, ValueEnum};
use pontoon_client::ReadLevel;

use super::Cluster;
use crate::failure::{Failure, INTERNAL};
use crate::text::{parse, show};

/// Prints the value of a key.
#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    cluster: Cluster,
    /// The key; \xNN stands for a byte.
    key: String,
    /// Write the value as it is, without escapes and without a line end.
    #[arg(long)]
    raw: bool,
    /// What the read promises, and by whom it may be served.
    #[arg(long, value_name = "LEVEL", default_value = "linearizable")]
    level: Level,
    /// For `--level stale`: how old the answer may be, milliseconds.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_age_ms: u32,
}

/// The levels of a read.
#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// The newest value, from the leader.
    Linearizable,
    /// The newest value, from any replica.
    Follower,
    /// A value that was the newest within `--max-age-ms`, from any replica.
    Stale,
}

impl Get {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let key = parse(&self.key)?;
        let level = match self.level {
            Level::Linearizable => ReadLevel::Linearizable,
            Level::Follower => ReadLevel::Follower,
            Level::Stale => ReadLevel::Stale { max_age_ms: self.max_age_ms },
        };
        let value = self.cluster.connect()?.get_at(&key, level)?;
        let value = value.ok_or_else(|| Failure::new(INTERNAL, format!("there is no key {}", self.key)))?;
        let mut out = std::io::stdout();
        if self.raw {
            out.write_all(&value)?;
        } else {
            writeln!(out, "{}", show(&value))?;
        }
        Ok(out.flush()?)
    }
}

/// Sets a key.
#[derive(Args)]
pub struct Put {
    #[command(flatten)]
    cluster: Cluster,
    /// The key; \xNN stands for a byte.
    key: String,
    /// The value; \xNN stands for a byte.
    value: String,
}

impl Put {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let (key, value) = (parse(&self.key)?, parse(&self.value)?);
        Ok(self.cluster.connect()?.put(key, value)?)
    }
}

/// Removes a key.
#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    cluster: Cluster,
    /// The key; \xNN stands for a byte.
    key: String,
}

impl Delete {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let existed = self.cluster.connect()?.delete(parse(&self.key)?)?;
        let said = if existed { "deleted" } else { "there was no such key" };
        Ok(writeln!(std::io::stdout(), "{said}")?)
    }
}

/// Sets a key if its value is the expected one.
#[derive(Args)]
pub struct CompareAndSet {
    #[command(flatten)]
    cluster: Cluster,
    /// The key; \xNN stands for a byte.
    key: String,
    /// The value it must have; left out, the key must be absent.
    #[arg(long)]
    expect: Option<String>,
    /// The new value; left out, the key is removed.
    #[arg(long)]
    value: Option<String>,
}

impl CompareAndSet {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let expected = self.expect.as_deref().map(parse).transpose()?;
        let value = self.value.as_deref().map(parse).transpose()?;
        let mut client = self.cluster.connect()?;
        let swap = client.compare_and_set(parse(&self.key)?, expected.as_deref(), value.as_deref())?;
        if swap.succeeded {
            return Ok(writeln!(std::io::stdout(), "swapped")?);
        }
        let current = swap.current.map_or("absent".to_string(), |value| show(&value));
        Err(Failure::new(INTERNAL, format!("not swapped: {} is {current}", self.key)))
    }
}

/// Prints keys and values in key order.
#[derive(Args)]
pub struct Scan {
    #[command(flatten)]
    cluster: Cluster,
    /// The first key.
    #[arg(default_value = "")]
    start: String,
    /// The first key not wanted; left out, the end of the key space.
    end: Option<String>,
    /// Most pairs to print.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl Scan {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.cluster.connect()?;
        let mut start = parse(&self.start)?;
        let end = self.end.as_deref().map(parse).transpose()?;
        let mut left = self.limit;
        let mut out = std::io::stdout().lock();
        while left > 0 {
            let page = client.scan(&start, end.as_deref(), left)?;
            for (key, value) in &page.pairs {
                writeln!(out, "{}\t{}", show(key), show(value))?;
            }
            left = left.saturating_sub(u32::try_from(page.pairs.len()).unwrap_or(u32::MAX));
            match page.next {
                Some(next) => start = next.to_vec(),
                None => break,
            }
        }
        Ok(out.flush()?)
    }
}
