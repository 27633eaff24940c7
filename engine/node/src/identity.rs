//! The file `DIR/node`: which node this directory is, of which cluster, and which logs it has.
//!
//! ```text
//! slot 0 at 0, slot 1 at 64 KiB, each:
//!   0 magic "PTNNODE\0"   8 format (4)   12 body length (4)   16 sequence (8)   24 crc32 of all else (4)   28 body
//! body: cluster (16) node (8) incarnation (8) ranges (4)
//!       count (2) of cores, then one log uuid (16) for each
//!       count (4) of nodes, then node (8), length (2), address as text, for each
//!       count (2) of retired logs, then one log uuid (16) for each; not in format 1, which is still read
//!       longest promise, microseconds (8); not in formats 1 and 2, which are still read
//! ```
//!
//! The two slots are written in turn and synced, so that a write that is torn leaves the other slot whole. The slot
//! with the higher sequence counts. Both unreadable is a refusal and never a fresh start: law 16, a node does not
//! forget which logs it has. A slot that is whole but of a format this build does not know is a refusal too, because the
//! other slot may list logs that were given up since.
//!
//! A retired log is one that nobody may open: it holds nothing yet, or nothing any more ([`crate::rehome`]). Its
//! directory is removed at the next start.
//!
//! `DIR/LOCK` keeps a second process away: whoever holds its `flock` owns the directory. The lock vanishes with the
//! process, so nothing has to be cleaned up after a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pontoon_types::{ClusterId, Incarnation, NodeId};
use rustix::fs::{FlockOperation, flock};

use crate::error::DataDirError;
use crate::slot::{self, CHECKSUM_AT, HEADER_BYTES};

const MAGIC: [u8; 8] = *b"PTNNODE\0";
const FORMAT: u32 = 3;
const FORMAT_WITHOUT_RETIRED: u32 = 1;
const FORMAT_WITHOUT_PROMISE: u32 = 2;
const SLOT_BYTES: usize = 64 << 10;

/// What a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// How often the node was started. Grows durably before anything acts.
    pub incarnation: Incarnation,
    /// How many ranges the cluster was initialised with.
    pub ranges: u32,
    /// The log of each core.
    pub logs: Vec<u128>,
    /// All nodes of the cluster, this one included, with the addresses they listen at.
    pub nodes: Vec<(NodeId, SocketAddr)>,
    /// Logs that are never opened again, and whose directories may still be there.
    pub retired: Vec<u128>,
    /// The longest promise that a core of this node may have made (law 4). Never shrinks.
    pub longest_promise: Duration,
}

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    file: File,
    identity: Identity,
    sequence: u64,
    _lock: Lock,
}

/// The held lock of a directory.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the directory, or says that another process has it.
    pub fn take(dir: &Path) -> Result<Lock, DataDirError> {
        let path = dir.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| DataDirError::io(&path, "open", source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { dir: dir.to_path_buf() }),
            Err(errno) => Err(DataDirError::io(&path, "lock", errno.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough while a child that this process is just starting has a copy of the descriptor: the
        // lock belongs to all copies, and only an unlock ends it for all of them.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl DataDir {
    /// Writes the first identity into a directory whose lock is held and which has none yet.
    pub fn create(dir: &Path, lock: Lock, identity: Identity) -> Result<DataDir, DataDirError> {
        let path = dir.join("node");
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| DataDirError::io(&path, "create", source))?;
        let mut data_dir = DataDir { path: dir.to_path_buf(), file, identity, sequence: 0, _lock: lock };
        data_dir.write()?;
        data_dir.write()?;
        sync_dir(dir)?;
        Ok(data_dir)
    }

    /// Takes an initialised directory and reads what it is. Nothing is changed but the lock.
    pub fn open(dir: &Path) -> Result<DataDir, DataDirError> {
        let path = dir.join("node");
        // Looked for before the lock, so that a wrong path does not get a stray LOCK file.
        match std::fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(DataDirError::NotADirectory { dir: dir.to_path_buf() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DataDirError::Missing { dir: dir.to_path_buf() });
            }
            Err(source) => return Err(DataDirError::io(dir, "look at", source)),
        }
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DataDirError::NotInitialised { dir: dir.to_path_buf() });
            }
            Err(source) => return Err(DataDirError::io(&path, "open", source)),
        };
        let lock = Lock::take(dir)?;
        let (sequence, identity) = read(&file, &path)?;
        Ok(DataDir { path: dir.to_path_buf(), file, identity, sequence, _lock: lock })
    }

    /// Reads what a directory is, without taking it: it may be that of a running node.
    pub fn look(dir: &Path) -> Result<Identity, DataDirError> {
        let path = dir.join("node");
        let file = File::open(&path).map_err(|source| DataDirError::io(&path, "open", source))?;
        read(&file, &path).map(|(_, identity)| identity)
    }

    /// What the directory is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the log of a core lies.
    pub fn log_dir(&self, log: u128) -> PathBuf {
        log_dir(&self.path, log)
    }

    /// Counts one more start, durably, in which promises of this length will be made. Returns the longest promise of all
    /// starts before.
    pub fn begin_incarnation(&mut self, promise: Duration) -> Result<Duration, DataDirError> {
        self.identity.incarnation = Incarnation(self.identity.incarnation.0 + 1);
        let before = self.identity.longest_promise;
        self.identity.longest_promise = before.max(promise);
        self.write()?;
        if promise > before {
            // A slot that rots must not bring the shorter one back.
            self.write()?;
        }
        Ok(before)
    }

    /// Names logs that do not count yet, durably and before they are made: if they never come to count, they are
    /// removed.
    pub fn announce_logs(&mut self, logs: &[u128]) -> Result<(), DataDirError> {
        self.identity.retired.extend_from_slice(logs);
        self.write()
    }

    /// From here on these are the logs of the node, and those so far are retired. It holds from the first of the two
    /// writes on; with the second one no slot lists the old logs any more, so that one that rots does not bring them
    /// back.
    pub fn replace_logs(&mut self, logs: Vec<u128>) -> Result<(), DataDirError> {
        self.identity.retired.retain(|retired| !logs.contains(retired));
        let before = std::mem::replace(&mut self.identity.logs, logs);
        self.identity.retired.extend(before);
        self.identity.incarnation = Incarnation(self.identity.incarnation.0 + 1);
        self.write()?;
        self.write()
    }

    /// From here on the directory is this. It holds from the first of the two writes on.
    pub fn replace(&mut self, identity: Identity) -> Result<(), DataDirError> {
        self.identity = identity;
        self.write()?;
        self.write()
    }

    /// Removes the directories of the retired logs. All listed logs have been opened before, so that a node file which
    /// was put back from a backup refuses the start instead of removing the logs that count.
    pub fn remove_retired(&mut self) -> Result<(), DataDirError> {
        if self.identity.retired.is_empty() {
            return Ok(());
        }
        // A start that was cut short may have left a slot that still lists one of them.
        self.write()?;
        for log in &self.identity.retired {
            let path = self.log_dir(*log);
            match std::fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DataDirError::io(&path, "remove", source));
                }
                _ => {}
            }
        }
        sync_dir(&self.path.join("logs"))?;
        self.identity.retired.clear();
        self.write()
    }

    /// Writes the older slot and syncs it; the newer one stays as it is.
    fn write(&mut self) -> Result<(), DataDirError> {
        let sequence = self.sequence + 1;
        let slot = encode_slot(sequence, &self.identity);
        let path = self.path.join("node");
        let at = (sequence % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&slot, at).map_err(|source| DataDirError::io(&path, "write", source))?;
        self.file.sync_data().map_err(|source| DataDirError::io(&path, "sync", source))?;
        self.sequence = sequence;
        Ok(())
    }
}

/// Where a log lies in a data directory.
pub fn log_dir(dir: &Path, log: u128) -> PathBuf {
    dir.join("logs").join(format!("{log:032x}"))
}

/// Makes names that were created in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), DataDirError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|source| DataDirError::io(dir, "sync", source))
}

/// The newer of the two slots that are whole.
fn read(file: &File, path: &Path) -> Result<(u64, Identity), DataDirError> {
    let mut newest: Option<(u64, Identity)> = None;
    let mut why = [None, None];
    for (slot, why) in why.iter_mut().enumerate() {
        let mut bytes = vec![0; SLOT_BYTES];
        let length = read_up_to(file, &mut bytes, (slot * SLOT_BYTES) as u64)
            .map_err(|source| DataDirError::io(path, "read", source))?;
        match decode_slot(&bytes[..length]) {
            Err(Fault::UnknownFormat(format)) => {
                let why = format!("its format {format} is not one that this build knows; start a newer one");
                return Err(DataDirError::Unreadable { path: path.to_path_buf(), why });
            }
            Ok((sequence, identity)) if newest.as_ref().is_none_or(|(other, _)| sequence > *other) => {
                newest = Some((sequence, identity));
            }
            Ok(_) => {}
            Err(Fault::Torn(reason)) => *why = Some(reason),
        }
    }
    newest.ok_or_else(|| DataDirError::Unreadable {
        path: path.to_path_buf(),
        why: why.into_iter().flatten().next().unwrap_or("the file is empty").to_string(),
    })
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], at + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn encode_slot(sequence: u64, identity: &Identity) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&identity.cluster.0.to_le_bytes());
    body.extend_from_slice(&identity.node.0.to_le_bytes());
    body.extend_from_slice(&identity.incarnation.0.to_le_bytes());
    body.extend_from_slice(&identity.ranges.to_le_bytes());
    body.extend_from_slice(&(identity.logs.len() as u16).to_le_bytes());
    for log in &identity.logs {
        body.extend_from_slice(&log.to_le_bytes());
    }
    body.extend_from_slice(&(identity.nodes.len() as u32).to_le_bytes());
    for (node, address) in &identity.nodes {
        let address = address.to_string();
        body.extend_from_slice(&node.0.to_le_bytes());
        body.extend_from_slice(&(address.len() as u16).to_le_bytes());
        body.extend_from_slice(address.as_bytes());
    }
    body.extend_from_slice(&(identity.retired.len() as u16).to_le_bytes());
    for log in &identity.retired {
        body.extend_from_slice(&log.to_le_bytes());
    }
    let longest_promise_us = identity.longest_promise.as_micros().try_into().unwrap_or(u64::MAX);
    body.extend_from_slice(&u64::to_le_bytes(longest_promise_us));
    assert!(body.len() + HEADER_BYTES <= SLOT_BYTES, "law: an identity fits in its slot");
    slot::seal(MAGIC, FORMAT, sequence, &body)
}

/// Why a slot is not read.
enum Fault {
    /// It is not what was written.
    Torn(&'static str),
    /// It is whole, and a newer build wrote it.
    UnknownFormat(u32),
}

impl From<&'static str> for Fault {
    fn from(why: &'static str) -> Fault {
        Fault::Torn(why)
    }
}

fn decode_slot(bytes: &[u8]) -> Result<(u64, Identity), Fault> {
    let mut header = Fields { bytes };
    if header.array::<8>()? != MAGIC {
        return Err(Fault::Torn("it does not begin as a node file does"));
    }
    let format = u32::from_le_bytes(header.array()?);
    let length = u32::from_le_bytes(header.array()?) as usize;
    let sequence = u64::from_le_bytes(header.array()?);
    let expected = u32::from_le_bytes(header.array()?);
    let body = header.bytes.get(..length).ok_or("it is cut short")?;
    if slot::checksum(&bytes[..CHECKSUM_AT], body) != expected {
        return Err(Fault::Torn("its checksum does not match"));
    }
    if !(FORMAT_WITHOUT_RETIRED..=FORMAT).contains(&format) {
        return Err(Fault::UnknownFormat(format));
    }
    Ok((sequence, decode_body(body, format)?))
}

fn decode_body(body: &[u8], format: u32) -> Result<Identity, &'static str> {
    let mut fields = Fields { bytes: body };
    let cluster = ClusterId(u128::from_le_bytes(fields.array()?));
    let node = NodeId(u64::from_le_bytes(fields.array()?));
    let incarnation = Incarnation(u64::from_le_bytes(fields.array()?));
    let ranges = u32::from_le_bytes(fields.array()?);
    let logs = fields.logs()?;
    let mut nodes = Vec::new();
    for _ in 0..u32::from_le_bytes(fields.array()?) {
        let node = NodeId(u64::from_le_bytes(fields.array()?));
        let length = u16::from_le_bytes(fields.array()?) as usize;
        let text = std::str::from_utf8(fields.take(length)?).map_err(|_| "an address is not text")?;
        nodes.push((node, text.parse().map_err(|_| "an address is not HOST:PORT")?));
    }
    let retired = if format == FORMAT_WITHOUT_RETIRED { Vec::new() } else { fields.logs()? };
    if retired.iter().any(|retired| logs.contains(retired)) {
        return Err("a log is listed and retired");
    }
    let longest_promise_us = if format <= FORMAT_WITHOUT_PROMISE { 0 } else { u64::from_le_bytes(fields.array()?) };
    let longest_promise = Duration::from_micros(longest_promise_us);
    Ok(Identity { cluster, node, incarnation, ranges, logs, nodes, retired, longest_promise })
}

/// Fields read one after another from bytes that may end too early.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or("it is cut short")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn logs(&mut self) -> Result<Vec<u128>, &'static str> {
        let count = u16::from_le_bytes(self.array()?);
        (0..count).map(|_| Ok(u128::from_le_bytes(self.array()?))).collect()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| "it is cut short")
    }
}
