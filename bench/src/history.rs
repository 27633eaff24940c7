//! The history of a run: one JSON object for each operation, in the order of the returns, for a checker of
//! linearizability outside this program.
//!
//! A value is written as the identity of its write, which is unique in a run. Times are nanoseconds since the start.
//! An operation whose outcome is unknown may have happened at any time after its call, whatever its `return` says.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use pontoon_types::Time;

use crate::data::{self, KeyNumber, WriteId};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// One operation that is over.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Which logical client made it.
    pub client: u32,
    /// Its key.
    pub key: KeyNumber,
    /// Whether it was a write.
    pub is_write: bool,
    /// What it wrote or read; none for an absent key and for a read without an answer.
    pub value: Option<WriteId>,
    /// How it ended.
    pub ending: Ending,
    /// When it was called.
    pub called: Time,
    /// When it returned.
    pub returned: Time,
}

/// A file that the operations are written to.
pub struct History {
    file: BufWriter<File>,
    start: Time,
}

impl History {
    /// Creates or empties the file.
    pub fn create(path: &Path, start: Time) -> io::Result<History> {
        Ok(History { file: BufWriter::with_capacity(1 << 20, File::create(path)?), start })
    }

    /// Adds one operation.
    pub fn add(&mut self, operation: &Operation) -> io::Result<()> {
        let Operation { client, key, is_write, value, ending, called, returned } = operation;
        let op = if *is_write { "write" } else { "read" };
        let outcome = match ending {
            Ending::Ok => "ok",
            Ending::Fail => "fail",
            Ending::Unknown => "unknown",
        };
        let (called, returned) = (called.since(self.start).as_nanos(), returned.since(self.start).as_nanos());
        write!(self.file, r#"{{"client":{client},"op":"{op}","key":""#)?;
        for byte in data::key(*key) {
            write!(self.file, "{byte:02x}")?;
        }
        match value {
            Some(write) => write!(self.file, r#"","value":"{:016x}""#, write.0)?,
            None => write!(self.file, r#"","value":null"#)?,
        }
        writeln!(self.file, r#","outcome":"{outcome}","call":{called},"return":{returned}}}"#)
    }

    /// Writes out what is gathered.
    pub fn finish(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
