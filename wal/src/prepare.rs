//! Segments made ready ahead of use, off the core, and the stock of those that are ready.
//!
//! One thread creates `slot-NNN.new`, reserves its space, writes zeros over all of it, syncs it, renames it to
//! `slot-NNN.seg` and syncs the directory. Only then is it handed over, so an append never allocates, never changes a
//! file's size and never waits for a directory: the sync of a commit is one write of data. A name that ends in `.seg`
//! is a promise that the file is complete; an interrupted one keeps the other name and is removed at the next open.
//!
//! A segment that nothing needs any more comes back and is used again as it is: its blocks are written already, and
//! what stands in them carries another salt. When far more are ready than a log of its size needs, files are removed.
//!
//! Zeros are written past the page cache in small pieces. Measured on ext4, 64 MiB at a time, beside a lone writer of
//! 4 KiB commits: pieces of 128 KiB past the cache left that writer's p99 at 0.35 ms and took 69 ms, 1 MiB through the
//! cache with a sync each left it at 26 ms and took 239 ms. A commit after it costs 4.1 KiB on the device either way,
//! because it is written with `pwrite` and never through a mapping.
//!
//! The same thread notes in the control file what became durable, which a commit must not wait for.
//!
//! When the disk is full the thread removes the unfinished file, waits and tries again with a new one: freeing space
//! resumes it. Meanwhile the log answers "full" and lives on the segments that are ready. Two of those are kept back, for
//! a start after a crash and for the keeper ([`crate::keeper`]), so that compaction can free segments even then.
//!
//! The simulator runs the same worker without a thread ([`Preparation::Inline`]).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::control::{ControlFile, Note};
use crate::format::{slot_name, unfinished_name};
use crate::storage::{Access, SegmentFile, Storage};

/// Zeros written between two looks at whether to stop.
const PIECE_BYTES: u64 = 1 << 20;

/// How long a failed preparation waits before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Ready slots that appends may not take: one for compaction, because what frees segments must not wait for a free one,
/// and one for the start after a crash.
pub(crate) const RESERVED_SLOTS: usize = 2;

/// How many slots above the allowed size, or above what a start found and took, compaction and the reserve may take when
/// none is ready for them. What a start found counts because a log that crashes left it could not be made smaller otherwise.
pub(crate) const KEEPER_EXTRA_SLOTS: u64 = 2;

/// Ready slots above those that are wanted which are never removed, so that a log that breathes keeps its files.
const SPARE_SLOTS: usize = 4;

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Threads of its own, as in production.
    Thread,
    /// The caller, at the moment of need: one seed gives one trace.
    Inline,
}

/// A segment file.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) slot: u32,
    pub(crate) file: Arc<dyn SegmentFile>,
    /// What the file was opened for. One that was opened for reading is opened anew before it is used again.
    pub(crate) access: Access,
}

/// The slots of a log: those that are ready, and how many there are in all.
///
/// Invariant: `slots` counts each slot file that exists or is ordered.
struct Stock {
    ready: VecDeque<Slot>,
    /// How many of those that are ready nobody but the log may take: what it has taken in needs them.
    promised: usize,
    ordered: VecDeque<u32>,
    next_slot: u32,
    slots: u64,
}

impl Stock {
    /// How many slots the log may take.
    fn for_log(&self) -> usize {
        self.ready.len().saturating_sub(RESERVED_SLOTS).max(self.promised.min(self.ready.len()))
    }
}

/// What a supply starts with.
pub(crate) struct FirstStock {
    /// Slots found ready on the disk.
    pub(crate) ready: VecDeque<Slot>,
    /// The number of the next new file.
    pub(crate) next_slot: u32,
    /// How many slot files exist.
    pub(crate) slots: u64,
    /// How many may exist.
    pub(crate) slots_max: u64,
    /// How many to keep ready for the log.
    pub(crate) wanted: usize,
    /// The size of each.
    pub(crate) segment_bytes: u64,
}

/// The stock, as the log, the keeper and the thread that prepares share it.
pub(crate) struct Pool {
    stock: Mutex<Stock>,
    came: Condvar,
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    slots_max: u64,
    /// How many slots may exist while the log is made smaller.
    keeper_slots_max: u64,
    wanted: usize,
    prepared_bytes: AtomicU64,
    /// The last attempt to prepare a slot has failed.
    is_starved: AtomicBool,
    /// Why the control file could not be written.
    control_failure: OnceLock<String>,
    stop: AtomicBool,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a slot, and remembers whether the disk had room for it.
    fn prepare(&self, slot: u32) -> io::Result<Option<Slot>> {
        let mut progress = |bytes| {
            self.prepared_bytes.fetch_add(bytes, Ordering::Relaxed);
            !self.is_stopping()
        };
        let made = prepare_slot(self.storage.as_ref(), slot, self.segment_bytes, &mut progress);
        self.is_starved.store(made.is_err(), Ordering::Relaxed);
        made
    }

    /// Writes a note, and remembers a failure: a disk that fails once is not trusted again.
    fn note(&self, control: &SharedControl, note: Note) {
        if let Err(error) = lock_control(control).note(note) {
            let _ = self.control_failure.set(error.to_string());
        }
    }

    fn came(&self, slot: Slot) {
        let mut stock = self.lock();
        stock.ordered.retain(|ordered| *ordered != slot.slot);
        stock.ready.push_back(slot);
        self.came.notify_all();
    }

    /// Takes a slot for the keeper: a ready one that is not promised, or a new one if the size allows. None when there is no
    /// room for one now, and for `left` more.
    pub(crate) fn take_for_keeper(&self, left: usize) -> Option<Slot> {
        let number = {
            let mut stock = self.lock();
            if stock.ready.len() > left + stock.promised {
                return stock.ready.pop_front();
            }
            if stock.slots + left as u64 >= self.keeper_slots_max {
                return None;
            }
            stock.slots += 1;
            stock.next_slot += 1;
            stock.next_slot - 1
        };
        match self.prepare(number) {
            Ok(Some(slot)) => Some(slot),
            Ok(None) | Err(_) => {
                self.lock().slots -= 1;
                None
            }
        }
    }

    /// Takes back a slot that nothing reads or needs any more. When it is one too many, or cannot be opened for
    /// writing, its file is removed.
    fn give_back(&self, slot: Slot) {
        let is_surplus = {
            let stock = self.lock();
            let enough = self.wanted + RESERVED_SLOTS + SPARE_SLOTS + stock.slots as usize / 10;
            stock.ready.len() >= enough || stock.slots > self.slots_max && stock.ready.len() >= RESERVED_SLOTS
        };
        let number = slot.slot;
        let writable = match slot.access {
            _ if is_surplus => None,
            Access::Write => Some(slot),
            Access::Read => open_slot(self.storage.as_ref(), number, &slot_name(number), Access::Write).ok(),
        };
        match writable {
            Some(slot) => self.came(slot),
            None => {
                // What cannot be removed is found free at the next open.
                let name = slot_name(number);
                let _ = self.storage.remove(&name).and_then(|()| self.storage.sync_names());
                self.lock().slots -= 1;
            }
        }
    }

    /// How much of the allowed size is in use, ready slots not counted: used, allowed. A full disk allows no more than
    /// there is.
    pub(crate) fn used(&self) -> (u64, u64) {
        let stock = self.lock();
        let existing = stock.slots.saturating_sub(stock.ordered.len() as u64);
        let allowed = if self.is_starved.load(Ordering::Relaxed) { existing } else { self.slots_max };
        (existing.saturating_sub(stock.ready.len() as u64), allowed.min(self.slots_max))
    }

    /// Whether no slot is ready for the log and none will come but by compaction.
    pub(crate) fn is_exhausted(&self) -> bool {
        let stock = self.lock();
        stock.ready.len() <= RESERVED_SLOTS && stock.ordered.is_empty() && stock.slots >= self.slots_max
    }

    /// Asks the threads to end after the piece in hand.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

enum Order {
    Prepare(u32),
    Return(Slot),
    Note(Note),
}

/// Prepares one slot: complete and durable under its final name when this returns.
pub(crate) fn prepare_slot(
    storage: &dyn Storage,
    slot: u32,
    segment_bytes: u64,
    progress: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Option<Slot>> {
    let (unfinished, finished) = (unfinished_name(slot), slot_name(slot));
    let fill = |file: &Arc<dyn SegmentFile>, progress: &mut dyn FnMut(u64) -> bool| -> io::Result<bool> {
        let mut offset = 0;
        while offset < segment_bytes {
            let piece = (segment_bytes - offset).min(PIECE_BYTES);
            file.write_zeros(offset, piece)?;
            offset += piece;
            if !progress(piece) {
                return Ok(false);
            }
        }
        file.sync()?;
        storage.rename(&unfinished, &finished)?;
        storage.sync_names()?;
        Ok(true)
    };
    // An earlier attempt may have left one behind.
    remove_if_there(storage, &unfinished)?;
    let made = storage.create(&unfinished, segment_bytes).and_then(|file| Ok((fill(&file, progress)?, file)));
    match made {
        Ok((true, file)) => Ok(Some(Slot { slot, file, access: Access::Write })),
        Ok((false, _)) => {
            storage.remove(&unfinished)?;
            Ok(None)
        }
        Err(error) => {
            // Gives the space back; what cannot be removed now is removed at the next open.
            let _ = storage.remove(&unfinished);
            Err(error)
        }
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The open control file, as the thread that prepares and the keeper share it.
pub(crate) type SharedControl = Arc<Mutex<ControlFile>>;

/// Locks the control file. A writer that panicked has left it failed or unchanged, so it can go on being used.
pub(crate) fn lock_control(control: &SharedControl) -> MutexGuard<'_, ControlFile> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the file of a slot.
pub(crate) fn open_slot(storage: &dyn Storage, slot: u32, name: &str, access: Access) -> io::Result<Slot> {
    Ok(Slot { slot, file: storage.open(name, access)?, access })
}

/// The thread: until the log drops its end of the channel.
fn work(pool: &Pool, control: &SharedControl, orders: &Receiver<Order>) {
    let mut waiting = VecDeque::new();
    let mut pause = Duration::ZERO;
    loop {
        let mut order = if waiting.is_empty() {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            orders.recv_timeout(pause)
        };
        // Notes before segments: they are short and prove the most.
        loop {
            match order {
                Ok(Order::Note(note)) => pool.note(control, note),
                Ok(Order::Return(slot)) => pool.give_back(slot),
                Ok(Order::Prepare(slot)) => waiting.push_back(slot),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => break,
            }
            order = orders.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
        let Some(slot) = waiting.front().copied() else { continue };
        pause = match pool.prepare(slot) {
            Ok(Some(made)) => {
                waiting.pop_front();
                pool.came(made);
                Duration::ZERO
            }
            Ok(None) => return,
            Err(_) => RETRY_PAUSE,
        };
    }
}

enum Mode {
    Thread { orders: Sender<Order>, worker: JoinHandle<()> },
    Inline,
    Stopped,
}

/// The log's side: takes slots that are ready, and orders more.
pub(crate) struct Supply {
    mode: Mode,
    pool: Arc<Pool>,
    control: SharedControl,
}

impl Supply {
    pub(crate) fn start(
        storage: Arc<dyn Storage>,
        control: SharedControl,
        first: FirstStock,
        how: Preparation,
    ) -> io::Result<Supply> {
        let FirstStock { ready, next_slot, slots, slots_max, wanted, segment_bytes } = first;
        let stock = Stock { ready, promised: 0, ordered: VecDeque::new(), next_slot, slots };
        let pool = Arc::new(Pool {
            stock: Mutex::new(stock),
            came: Condvar::new(),
            storage,
            segment_bytes,
            slots_max,
            keeper_slots_max: slots.max(slots_max) + KEEPER_EXTRA_SLOTS,
            wanted,
            prepared_bytes: AtomicU64::new(0),
            is_starved: AtomicBool::new(false),
            control_failure: OnceLock::new(),
            stop: AtomicBool::new(false),
        });
        let mode = match how {
            Preparation::Inline => Mode::Inline,
            Preparation::Thread => {
                let (orders, inbox) = crossbeam_channel::unbounded();
                let builder = std::thread::Builder::new().name("pontoon-wal".to_string());
                let (pool, control) = (pool.clone(), control.clone());
                Mode::Thread { orders, worker: builder.spawn(move || work(&pool, &control, &inbox))? }
            }
        };
        let mut supply = Supply { mode, pool, control };
        supply.refill();
        Ok(supply)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// How many slots the log could take now.
    pub(crate) fn ready(&self) -> usize {
        self.pool.lock().for_log()
    }

    /// Leaves so many of the ready slots to the log, or all that it could take now, which are returned.
    pub(crate) fn promise(&self, slots: usize) -> usize {
        let mut stock = self.pool.lock();
        let ready = stock.for_log();
        stock.promised = slots.min(ready);
        ready
    }

    /// Whether no slot is ready and none will come but by compaction: the log has its largest size.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.pool.is_exhausted()
    }

    /// Whether no slot is ready and none will come but by compaction, because of the log's largest size or the disk's.
    pub(crate) fn is_out(&self) -> bool {
        self.ready() == 0 && (self.is_exhausted() || self.pool.is_starved.load(Ordering::Relaxed))
    }

    /// Whether a slot that is taken from the reserve can be made up for.
    pub(crate) fn can_replace(&self) -> bool {
        let stock = self.pool.lock();
        stock.ready.len() > RESERVED_SLOTS || stock.slots < self.pool.keeper_slots_max
    }

    /// Whether [`Supply::take_reserved`] has one to give.
    pub(crate) fn has_reserve(&self) -> bool {
        let stock = self.pool.lock();
        stock.ready.len() > stock.promised + 1
    }

    /// Whether more slot files exist than the log's largest size allows.
    pub(crate) fn is_above_maximum(&self) -> bool {
        self.slots() > self.pool.slots_max
    }

    /// How many slot files exist or are ordered.
    pub(crate) fn slots(&self) -> u64 {
        self.pool.lock().slots
    }

    /// Zero bytes written so far.
    pub(crate) fn prepared_bytes(&self) -> u64 {
        self.pool.prepared_bytes.load(Ordering::Relaxed)
    }

    /// Waits for a slot that is on its way. False when none came.
    pub(crate) fn wait(&mut self, at_most: Duration) -> bool {
        self.refill();
        if matches!(self.mode, Mode::Thread { .. }) {
            let stock = self.pool.lock();
            let short = |stock: &mut Stock| stock.ready.len() <= RESERVED_SLOTS;
            // A poisoned lock means that a thread died; the slots are then counted as they are.
            drop(self.pool.came.wait_timeout_while(stock, at_most, short));
        }
        self.ready() > 0
    }

    /// Takes a slot, if one is ready, and orders the next. A promise is kept by it.
    pub(crate) fn take(&mut self) -> Option<Slot> {
        if self.ready() == 0 {
            self.refill();
        }
        let slot = self.take_if(|stock| stock.for_log() > 0);
        if slot.is_some() {
            let mut stock = self.pool.lock();
            stock.promised = stock.promised.saturating_sub(1);
        }
        slot
    }

    /// Takes a slot that is neither promised nor of the reserve.
    pub(crate) fn take_spare(&mut self) -> Option<Slot> {
        self.take_if(|stock| stock.ready.len() > stock.promised + RESERVED_SLOTS)
    }

    /// Takes a slot of the reserve that is not promised, for a segment that lets the keeper free others. The last one is left
    /// to the keeper.
    pub(crate) fn take_reserved(&mut self) -> Option<Slot> {
        self.refill();
        self.take_if(|stock| stock.ready.len() > stock.promised + 1)
    }

    fn take_if(&mut self, may: impl Fn(&Stock) -> bool) -> Option<Slot> {
        let slot = {
            let mut stock = self.pool.lock();
            if may(&stock) { stock.ready.pop_front() } else { None }
        };
        self.refill();
        slot
    }

    /// Takes back a slot that nothing reads or needs any more.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        match &self.mode {
            Mode::Thread { orders, .. } => drop(orders.send(Order::Return(slot))),
            Mode::Inline => self.pool.give_back(slot),
            Mode::Stopped => {}
        }
    }

    /// Why the control file could not be written, if that has happened.
    pub(crate) fn control_failure(&self) -> Option<&String> {
        self.pool.control_failure.get()
    }

    /// Has something written into the control file, some time soon.
    pub(crate) fn note(&mut self, note: Note) {
        match &self.mode {
            // Without a worker the bound only stays low.
            Mode::Thread { orders, .. } => drop(orders.send(Order::Note(note))),
            Mode::Inline => self.pool.note(&self.control, note),
            Mode::Stopped => {}
        }
    }

    /// Orders slots until enough are ready or on their way; the reserve also above the largest size, or a log that has
    /// used it up would never be small again. Without a thread they are made here; one that failed stays ordered and is
    /// tried again at the next call.
    pub(crate) fn refill(&mut self) {
        self.remove_surplus();
        let pool = &self.pool;
        loop {
            let mut stock = pool.lock();
            let coming = stock.ready.len() + stock.ordered.len();
            let slots_max = if coming < RESERVED_SLOTS { pool.keeper_slots_max } else { pool.slots_max };
            if coming >= pool.wanted + RESERVED_SLOTS || stock.slots >= slots_max {
                break;
            }
            let slot = stock.next_slot;
            stock.next_slot += 1;
            stock.slots += 1;
            stock.ordered.push_back(slot);
            if let Mode::Thread { orders, .. } = &self.mode {
                let _ = orders.send(Order::Prepare(slot));
            }
        }
        if matches!(self.mode, Mode::Inline) {
            loop {
                let Some(slot) = pool.lock().ordered.front().copied() else { break };
                let Ok(Some(made)) = pool.prepare(slot) else { break };
                pool.came(made);
            }
        }
    }

    /// Removes ready slots above the largest size, but for the reserve.
    fn remove_surplus(&mut self) {
        let surplus: Vec<Slot> = {
            let mut stock = self.pool.lock();
            let above = stock.slots.saturating_sub(self.pool.slots_max) as usize;
            let kept = stock.ready.len() - above.min(stock.ready.len().saturating_sub(RESERVED_SLOTS + stock.promised));
            stock.ready.split_off(kept).into()
        };
        surplus.into_iter().for_each(|slot| self.give_back(slot));
    }

    /// Ends the work. Waits for one piece at most. False when the thread had died.
    pub(crate) fn stop(&mut self) -> bool {
        self.pool.request_stop();
        match std::mem::replace(&mut self.mode, Mode::Stopped) {
            Mode::Thread { orders, worker } => {
                drop(orders);
                worker.join().is_ok()
            }
            Mode::Inline => true,
            Mode::Stopped => false,
        }
    }
}

impl Drop for Supply {
    /// The thread must not outlive the lock on the directory.
    fn drop(&mut self) {
        self.stop();
    }
}
