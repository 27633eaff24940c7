//! Keeps the control file: reads the newer of its two blocks, writes the other one.

use std::io;
use std::sync::Arc;

use pontoon_types::Incarnation;

use crate::format::control::{CONTROL_BYTES, CheckpointRef, Control};
use crate::format::{BLOCK_BYTES, CONTROL_NAME, Fault, LogEnd, SegmentId, Seq, unfinished_name};
use crate::storage::{Access, AlignedBuffer, SegmentFile, Storage};
use crate::unreadable::{REFUSED, read_blocks, refuse_all};
use crate::{LogError, LogIdentity};

/// Something that became durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) durable_seq: Seq,
    pub(crate) newest_segment: SegmentId,
}

/// The open control file.
pub(crate) struct ControlFile {
    file: Arc<dyn SegmentFile>,
    current: Control,
    /// Set by the first failure; the file is not touched any more, its bounds stay true.
    failed: bool,
}

impl ControlFile {
    /// Creates the file with both blocks equal. Under another name first: a log whose creation was interrupted has
    /// no control file and is refused.
    pub(crate) fn create(storage: &dyn Storage, control: Control) -> io::Result<()> {
        let unfinished = unfinished_name(0);
        let file = storage.create(&unfinished, CONTROL_BYTES as u64)?;
        let block = control.encode();
        file.write_at(0, &[&block, &block])?;
        file.sync()?;
        storage.rename(&unfinished, CONTROL_NAME)?;
        storage.sync_names()
    }

    /// Reads the file from the disk. Changes nothing.
    pub(crate) fn open(storage: &dyn Storage, identity: LogIdentity) -> Result<ControlFile, LogError> {
        let not_a_log = || LogError::NotALog { place: storage.place() };
        let file = match storage.open(CONTROL_NAME, Access::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_a_log()),
            Err(error) => return Err(LogError::io("opening ctl")(error)),
        };
        let mut buffer = AlignedBuffer::new(CONTROL_BYTES);
        if file.bytes() < CONTROL_BYTES as u64 {
            return Err(not_a_log());
        }
        file.drop_cache().map_err(LogError::io("dropping the cache of ctl"))?;
        let refused = read_blocks(file.as_ref(), 0, buffer.bytes_mut()).map_err(LogError::io("reading ctl"))?;
        refuse_all(&refused, CONTROL_BYTES).map_err(LogError::io("reading ctl"))?;
        let mut newest: Option<Control> = None;
        let mut unreadable = None;
        for (number, block) in buffer.bytes().chunks(BLOCK_BYTES).enumerate() {
            let offset = (number * BLOCK_BYTES) as u64;
            let found = if refused.contains(&offset) { Err(Fault::Bad(REFUSED)) } else { Control::decode(block) };
            match found {
                Ok(control) if newest.is_none_or(|best| best.generation < control.generation) => newest = Some(control),
                Ok(_) => {}
                Err(fault) if fault.is_unknown() => return Err(unknown(offset, fault)),
                Err(fault) => unreadable = Some((offset, fault)),
            }
        }
        match (newest, unreadable) {
            (Some(current), _) => {
                check_identity(CONTROL_NAME, current.identity, identity)?;
                Ok(ControlFile { file, current, failed: false })
            }
            (None, Some((offset, fault))) => {
                Err(LogError::Corruption { file: CONTROL_NAME.to_string(), offset, why: fault.to_string() })
            }
            (None, None) => Err(not_a_log()),
        }
    }

    pub(crate) fn current(&self) -> Control {
        self.current
    }

    /// Whether the file was read past the cache.
    pub(crate) fn read_past_cache(&self) -> bool {
        self.file.reads_past_cache()
    }

    /// Begins a new incarnation in both blocks, durably. Nothing is appended before.
    pub(crate) fn begin(&mut self, incarnation: Incarnation, durable: Note) -> io::Result<()> {
        for _ in 0..2 {
            self.current.incarnation = incarnation;
            self.current.clean_end = None;
            self.raise(durable);
            self.write()?;
        }
        Ok(())
    }

    /// Names only checkpoints that can be read. Written by [`ControlFile::begin`]: otherwise the next checkpoint would
    /// take the place of the readable one, and the unreadable one would be its only substitute.
    pub(crate) fn replace_checkpoints(&mut self, readable: [Option<CheckpointRef>; 2]) {
        self.current.checkpoints = readable;
    }

    /// Notes a lower bound. After a failure the older bound on the disk is still true, and nothing is written any more.
    pub(crate) fn note(&mut self, note: Note) -> io::Result<()> {
        self.raise(note);
        self.write()
    }

    /// Names a new checkpoint; the newest so far becomes the one before it. Nothing that only older ones need may be
    /// given up before this is durable.
    pub(crate) fn checkpoint(&mut self, newest: CheckpointRef) -> io::Result<()> {
        self.current.checkpoints = [Some(newest), self.current.checkpoints[0]];
        self.write()
    }

    /// Marks a clean stop.
    pub(crate) fn finish(&mut self, end: LogEnd) -> io::Result<()> {
        self.current.durable_seq = end.seq;
        self.current.newest_segment = self.current.newest_segment.max(end.place.segment);
        self.current.clean_end = Some(end);
        self.write()
    }

    fn raise(&mut self, note: Note) {
        self.current.durable_seq = self.current.durable_seq.max(note.durable_seq);
        self.current.newest_segment = self.current.newest_segment.max(note.newest_segment);
    }

    fn write(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write of ctl failed"));
        }
        self.current.generation += 1;
        let offset = (self.current.generation % 2) * BLOCK_BYTES as u64;
        let result = self.file.write_at(offset, &[&self.current.encode()]).and_then(|()| self.file.sync());
        self.failed = result.is_err();
        result
    }
}

fn unknown(offset: u64, fault: Fault) -> LogError {
    LogError::UnknownFormat { file: CONTROL_NAME.to_string(), offset, what: fault.to_string() }
}

/// Refuses a file of another cluster, node or log.
pub(crate) fn check_identity(file: &str, found: LogIdentity, expected: LogIdentity) -> Result<(), LogError> {
    let other = |part, found: String, expected: String| {
        Err(LogError::OtherLog { file: file.to_string(), part, found, expected })
    };
    if found.cluster != expected.cluster {
        return other("cluster", found.cluster.to_string(), expected.cluster.to_string());
    }
    if found.node != expected.node {
        return other("node", found.node.to_string(), expected.node.to_string());
    }
    if found.log != expected.log {
        return other("log", format!("{:032x}", found.log), format!("{:032x}", expected.log));
    }
    Ok(())
}
