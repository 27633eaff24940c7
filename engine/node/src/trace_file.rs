//! The file that a core writes its protocol events to, when somebody wants to check them; `docs/TRACE.md` has the format.
//!
//! It is written by the core's own thread at the end of each turn, before anything of the turn leaves the node: what a peer
//! has heard of stands in the file, unless the machine goes down. That costs the core its time, so a trace is for tests and
//! for a suspicion, and not for daily use. A trace that cannot be written ends; the node goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use pontoon_types::{CoreId, Incarnation, NodeId};

/// An open trace.
pub struct TraceFile {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl TraceFile {
    /// Creates the file for one run of a core in `dir`, which must exist. Each run has a name of its own.
    pub fn create(dir: &Path, node: NodeId, core: CoreId, incarnation: Incarnation) -> io::Result<TraceFile> {
        let path = dir.join(format!("trace-n{}-c{}-{}.jsonl", node.0, core.0, incarnation.0));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(TraceFile { path, writer: BufWriter::new(file) })
    }

    /// Writes the lines of one turn.
    pub fn write(&mut self, lines: &[String]) -> io::Result<()> {
        for line in lines {
            writeln!(self.writer, "{line}")?;
        }
        self.writer.flush()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
