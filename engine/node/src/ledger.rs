//! The file `DIR/lives-cN`: what core N keeps of its own lives and those of its peers (law 12, `pontoon_multiraft::Ledger`).
//!
//! ```text
//! slot 0 at 0, slot 1 at 64 KiB, each:
//!   0 magic "PTNLIVES"   8 format (4)   12 body length (4)   16 sequence (8)   24 crc32 of all else (4)   28 body
//! body: refused (1)   whether there is an unaccepted mark (1)   that mark (8)   incarnation (8)   count (4)
//!       node (8) incarnation (8) life (8) log (16) mark (8) earlier mark (8) witness (1), for each peer
//! ```
//!
//! The slots are written in turn and synced, as those of the node file are. A file that is not there is an empty ledger: that
//! of a node that never ran; it is made whole beside its place and put there by its name. One that is there and unreadable
//! refuses the start.
//!
//! Writing waits for the disk, so a thread of its own does it, and wakes the core when it is done. A write that fails is not
//! tried again: the core then answers no peer that registers, and says so.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use pontoon_multiraft::{Ledger, PeerRecord};
use pontoon_types::{CoreId, Incarnation, LogMark, NodeId};

use crate::error::DataDirError;
use crate::identity::sync_dir;
use crate::inbox::{Delivery, Inbox};
use crate::slot::{self, CHECKSUM_AT, HEADER_BYTES};

const MAGIC: [u8; 8] = *b"PTNLIVES";
const FORMAT: u32 = 1;
const SLOT_BYTES: usize = 64 << 10;
const HEAD_BYTES: usize = 22;
const PEER_BYTES: usize = 57;

/// The ledger of one core on the disk.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    sequence: u64,
}

impl LedgerFile {
    /// Opens the file of a core, which is made if there is none, and reads what was kept last.
    pub fn open(dir: &Path, core: CoreId) -> Result<(LedgerFile, Ledger), DataDirError> {
        let path = dir.join(format!("lives-{core}"));
        if !path.exists() {
            make(dir, core, &path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|source| DataDirError::io(&path, "open", source))?;
        let (sequence, ledger) = read(&file, &path)?;
        Ok((LedgerFile { path, file, sequence }, ledger))
    }

    /// Keeps a ledger durably in the place of the one before.
    pub fn write(&mut self, ledger: &Ledger) -> Result<(), DataDirError> {
        let sequence = self.sequence + 1;
        let slot = encode(sequence, ledger);
        let at = (sequence % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&slot, at).map_err(|source| DataDirError::io(&self.path, "write", source))?;
        self.file.sync_data().map_err(|source| DataDirError::io(&self.path, "sync", source))?;
        self.sequence = sequence;
        Ok(())
    }
}

/// Whether some core of this directory has been refused by its peers, whatever number of cores it had then.
pub fn was_refused(dir: &Path) -> Result<bool, DataDirError> {
    let entries = std::fs::read_dir(dir).map_err(|source| DataDirError::io(dir, "list", source))?;
    for entry in entries {
        let entry = entry.map_err(|source| DataDirError::io(dir, "list", source))?;
        if entry.file_name().to_string_lossy().starts_with("lives-c") {
            let path = entry.path();
            let file = File::open(&path).map_err(|source| DataDirError::io(&path, "open", source))?;
            if read(&file, &path)?.1.refused {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Makes the file with an empty ledger in it, which is there as a whole or not at all: of the slots one is always whole.
fn make(dir: &Path, core: CoreId, path: &Path) -> Result<(), DataDirError> {
    let new = dir.join(format!("new-lives-{core}"));
    let file = File::create(&new).map_err(|source| DataDirError::io(&new, "make", source))?;
    let written = file.write_all_at(&encode(0, &Ledger::default()), 0).and_then(|()| file.sync_all());
    written.map_err(|source| DataDirError::io(&new, "write", source))?;
    std::fs::rename(&new, path).map_err(|source| DataDirError::io(path, "make", source))?;
    sync_dir(dir)
}

/// The newer slot that is whole.
fn read(file: &File, path: &Path) -> Result<(u64, Ledger), DataDirError> {
    let length = file.metadata().map_err(|source| DataDirError::io(path, "look at", source))?.len();
    let mut newest = None;
    for slot in 0..2 {
        let mut bytes = vec![0; SLOT_BYTES];
        let at = slot * SLOT_BYTES as u64;
        let there = (length.saturating_sub(at) as usize).min(SLOT_BYTES);
        file.read_exact_at(&mut bytes[..there], at).map_err(|source| DataDirError::io(path, "read", source))?;
        let found = decode(&bytes);
        newest = newest.into_iter().chain(found).max_by_key(|(sequence, _): &(u64, Ledger)| *sequence);
    }
    newest
        .ok_or_else(|| DataDirError::Unreadable { path: path.to_path_buf(), why: "no slot of it is whole".to_string() })
}

fn encode(sequence: u64, ledger: &Ledger) -> Vec<u8> {
    let mut body = vec![u8::from(ledger.refused), u8::from(ledger.unaccepted.is_some())];
    body.extend_from_slice(&ledger.unaccepted.unwrap_or_default().0.to_le_bytes());
    body.extend_from_slice(&ledger.incarnation.0.to_le_bytes());
    body.extend_from_slice(&(ledger.peers.len() as u32).to_le_bytes());
    for (node, record) in &ledger.peers {
        let PeerRecord { incarnation, life, log, mark, earlier, witness } = record;
        for number in [node.0, incarnation.0, *life] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&log.to_le_bytes());
        for number in [mark.0, earlier.0] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.push(u8::from(*witness));
    }
    assert!(HEADER_BYTES + body.len() <= SLOT_BYTES, "law: a ledger fits in its slot");
    slot::seal(MAGIC, FORMAT, sequence, &body)
}

fn decode(slot: &[u8]) -> Option<(u64, Ledger)> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(slot.get(at..at + 4)?.try_into().ok()?));
    let u64_in = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let body = slot.get(HEADER_BYTES..HEADER_BYTES + u32_at(12)? as usize)?;
    let is_whole = slot.starts_with(&MAGIC) && u32_at(8)? == FORMAT;
    if !is_whole || u32_at(CHECKSUM_AT)? != slot::checksum(&slot[..CHECKSUM_AT], body) || body.len() < HEAD_BYTES {
        return None;
    }
    let mut peers = BTreeMap::new();
    for peer in body[HEAD_BYTES..].chunks_exact(PEER_BYTES) {
        let record = PeerRecord {
            incarnation: Incarnation(u64_in(peer, 8)?),
            life: u64_in(peer, 16)?,
            log: u128::from_le_bytes(peer[24..40].try_into().ok()?),
            mark: LogMark(u64_in(peer, 40)?),
            earlier: LogMark(u64_in(peer, 48)?),
            witness: peer[56] != 0,
        };
        peers.insert(NodeId(u64_in(peer, 0)?), record);
    }
    let unaccepted = (body[1] != 0).then_some(LogMark(u64_in(body, 2)?));
    let incarnation = Incarnation(u64_in(body, 10)?);
    Some((u64_in(slot, 16)?, Ledger { refused: body[0] != 0, incarnation, unaccepted, peers }))
}

/// Keeps the ledgers of one core, on a thread that ends with it.
#[derive(Debug)]
pub struct LedgerKeeper {
    orders: Sender<(u64, Ledger)>,
    kept: Arc<AtomicU64>,
    told: u64,
}

impl LedgerKeeper {
    /// Starts the thread.
    pub fn start(file: LedgerFile, inbox: Arc<Inbox<Delivery>>) -> std::io::Result<LedgerKeeper> {
        let (orders, waiting) = channel();
        let kept = Arc::new(AtomicU64::new(0));
        let shown = kept.clone();
        std::thread::Builder::new().name("ledger".to_string()).spawn(move || keep(file, &waiting, &shown, &inbox))?;
        Ok(LedgerKeeper { orders, kept, told: 0 })
    }

    /// Takes a ledger to be kept.
    pub fn keep(&self, number: u64, ledger: Ledger) {
        // A thread that has ended has said why.
        let _ = self.orders.send((number, ledger));
    }

    /// The number of the last ledger that is durable, if the core was not told yet.
    pub fn news(&mut self) -> Option<u64> {
        let kept = self.kept.load(Ordering::SeqCst);
        (kept > self.told).then(|| {
            self.told = kept;
            kept
        })
    }

    /// Whether [`LedgerKeeper::news`] has something to say.
    pub fn has_news(&self) -> bool {
        self.kept.load(Ordering::SeqCst) > self.told
    }
}

fn keep(mut file: LedgerFile, waiting: &Receiver<(u64, Ledger)>, kept: &AtomicU64, inbox: &Inbox<Delivery>) {
    while let Ok((number, ledger)) = waiting.recv() {
        if let Err(error) = file.write(&ledger) {
            tracing::error!("{error}; until the next start this core answers no peer that has come to life");
            return;
        }
        kept.store(number, Ordering::SeqCst);
        inbox.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(mark: u64) -> Ledger {
        let record = PeerRecord {
            incarnation: Incarnation(3),
            life: 5,
            log: 7 << 70,
            mark: LogMark(mark),
            earlier: LogMark(mark / 2),
            witness: mark.is_multiple_of(2),
        };
        let peers = [(NodeId(2), record), (NodeId(3), PeerRecord::default())].into_iter().collect();
        let unaccepted = (mark > 4).then_some(LogMark(mark));
        Ledger { refused: mark.is_multiple_of(3), incarnation: Incarnation(mark + 9), unaccepted, peers }
    }

    #[test]
    fn what_was_kept_last_is_read_and_a_torn_write_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, empty) = LedgerFile::open(dir.path(), CoreId(0)).unwrap();
        assert_eq!(empty, Ledger::default());
        for mark in 3..8 {
            file.write(&ledger(mark)).unwrap();
            assert_eq!(LedgerFile::open(dir.path(), CoreId(0)).unwrap().1, ledger(mark));
        }
        let tear = |file: &LedgerFile, sequence: u64| {
            file.file.write_all_at(&[9; 4], (sequence % 2) * SLOT_BYTES as u64 + HEADER_BYTES as u64).unwrap();
        };
        tear(&file, file.sequence);
        assert_eq!(LedgerFile::open(dir.path(), CoreId(0)).unwrap().1, ledger(6));
        assert!(was_refused(dir.path()).unwrap(), "six is refused");
        tear(&file, file.sequence - 1);
        assert!(matches!(LedgerFile::open(dir.path(), CoreId(0)), Err(DataDirError::Unreadable { .. })));
    }

    #[test]
    fn a_first_write_that_is_torn_leaves_an_empty_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = LedgerFile::open(dir.path(), CoreId(0)).unwrap();
        file.write(&ledger(6)).unwrap();
        file.file.write_all_at(&[9; 4], SLOT_BYTES as u64 + HEADER_BYTES as u64).unwrap();
        assert_eq!(LedgerFile::open(dir.path(), CoreId(0)).unwrap().1, Ledger::default());
        assert!(!was_refused(dir.path()).unwrap());
    }
}
