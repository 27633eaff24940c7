//! The file `DIR/node`: which node this directory is, of which cluster, and which logs it has.
//!
//! ```text
//! slot 0 at 0, slot 1 at 64 KiB, each:
//!   0 magic "PTNNODE\0"   8 format (4)   12 body length (4)   16 sequence (8)   24 crc32 of all else (4)   28 body
//! body: cluster (16) node (8) incarnation (8) ranges (4)
//!       count (2) of cores, then one log uuid (16) for each
//!       count (4) of nodes, then node (8), length (2), address as text, for each
//! ```
//!
//! The two slots are written in turn and synced, so that a write that is torn leaves the other slot whole. The slot
//! with the higher sequence counts. Both unreadable is a refusal and never a fresh start: law 16, a node does not
//! forget which logs it has.
//!
//! `DIR/LOCK` keeps a second process away: whoever holds its `flock` owns the directory. The lock vanishes with the
//! process, so nothing has to be cleaned up after a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pontoon_types::{ClusterId, Incarnation, NodeId};
use rustix::fs::{FlockOperation, flock};

use crate::error::DataDirError;

const MAGIC: [u8; 8] = *b"PTNNODE\0";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 28;
const SLOT_BYTES: usize = 64 << 10;
const CHECKSUM_AT: usize = 24;

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

    /// What the directory is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the log of a core lies.
    pub fn log_dir(&self, log: u128) -> PathBuf {
        log_dir(&self.path, log)
    }

    /// Counts one more start, durably.
    pub fn begin_incarnation(&mut self) -> Result<Incarnation, DataDirError> {
        self.identity.incarnation = Incarnation(self.identity.incarnation.0 + 1);
        self.write()?;
        Ok(self.identity.incarnation)
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
            Ok((sequence, identity)) if newest.as_ref().is_none_or(|(other, _)| sequence > *other) => {
                newest = Some((sequence, identity));
            }
            Ok(_) => {}
            Err(reason) => *why = Some(reason),
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
    assert!(body.len() + HEADER_BYTES <= SLOT_BYTES, "law: an identity fits in its slot");
    let mut slot = Vec::with_capacity(HEADER_BYTES + body.len());
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&FORMAT.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
    slot.extend_from_slice(&sequence.to_le_bytes());
    let checksum = checksum(&slot, &body);
    slot.extend_from_slice(&checksum.to_le_bytes());
    slot.extend_from_slice(&body);
    slot
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Reads a slot; the error says what is wrong with it.
fn decode_slot(bytes: &[u8]) -> Result<(u64, Identity), &'static str> {
    let mut header = Fields { bytes };
    if header.array::<8>()? != MAGIC {
        return Err("it does not begin as a node file does");
    }
    if u32::from_le_bytes(header.array()?) != FORMAT {
        return Err("its format is not one that this build knows");
    }
    let length = u32::from_le_bytes(header.array()?) as usize;
    let sequence = u64::from_le_bytes(header.array()?);
    let expected = u32::from_le_bytes(header.array()?);
    let body = header.bytes.get(..length).ok_or("it is cut short")?;
    if checksum(&bytes[..CHECKSUM_AT], body) != expected {
        return Err("its checksum does not match");
    }
    Ok((sequence, decode_body(body)?))
}

fn decode_body(body: &[u8]) -> Result<Identity, &'static str> {
    let mut fields = Fields { bytes: body };
    let cluster = ClusterId(u128::from_le_bytes(fields.array()?));
    let node = NodeId(u64::from_le_bytes(fields.array()?));
    let incarnation = Incarnation(u64::from_le_bytes(fields.array()?));
    let ranges = u32::from_le_bytes(fields.array()?);
    let mut logs = Vec::new();
    for _ in 0..u16::from_le_bytes(fields.array()?) {
        logs.push(u128::from_le_bytes(fields.array()?));
    }
    let mut nodes = Vec::new();
    for _ in 0..u32::from_le_bytes(fields.array()?) {
        let node = NodeId(u64::from_le_bytes(fields.array()?));
        let length = u16::from_le_bytes(fields.array()?) as usize;
        let text = std::str::from_utf8(fields.take(length)?).map_err(|_| "an address is not text")?;
        nodes.push((node, text.parse().map_err(|_| "an address is not HOST:PORT")?));
    }
    Ok(Identity { cluster, node, incarnation, ranges, logs, nodes })
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

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| "it is cut short")
    }
}
