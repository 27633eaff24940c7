//! Cold bytes: what of the log cannot be read without waiting for the disk, and who brings it in.
//!
//! A core must not wait for the disk, and a page fault in a mapping is such a wait. So a reader that belongs to a core
//! asks first whether the bytes are in the page cache ([`SegmentFile::is_resident`]), piece by piece. If they are not,
//! the read ends with [`ReadError::Cold`](crate::ReadError::Cold), and a thread brings the piece in, with some that
//! follow it, because who reads old entries goes on to the next ones. The core asks again when [`Log::warmed`] says
//! that something has come in.
//!
//! The thread is started by the first cold read of a log and has nothing else to do: the keeper, which is at work for
//! seconds when it makes a checkpoint, would keep readers waiting. With [`Preparation::Inline`] there is none, and the
//! caller does the work with [`Log::warm`].
//!
//! A reader of a start may wait: it brings each piece in itself before it touches it.
//!
//! A block that the disk refuses to read is *unreadable*: the entries in it are rotten, and are reported as such. Those
//! beside it are read.
//!
//! # Laws
//!
//! - A reader of a core touches no byte of a segment that was not resident a moment ago.
//! - No reader touches a block that the disk has refused: that would end the process.
//! - Orders under way are bounded, and a piece is ordered once at a time.
//!
//! # Left out
//!
//! A page that the kernel reclaims between the question and the reading is waited for. Locking pages would end that, at
//! the price of memory that the kernel may not use otherwise.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use pontoon_types::limits::COLD_ORDERS_MAX;

use crate::format::{BLOCK_BYTES, SegmentKey};
use crate::segments::Segment;
use crate::storage::SegmentFile;
use crate::unreadable::bring_in;
use crate::{Log, Preparation};

/// The unit of all questions and orders. Small against what one fetch reads, large against the price of a question.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces that are brought in with the one that was missing.
const AHEAD_PIECES: usize = 3;

/// Unreadable blocks that are remembered, 64 MiB of them. A disk with more is read in vain again.
const UNREADABLE_MAX: usize = 16 << 10;

type Piece = (SegmentKey, usize);

/// Why bytes may not be touched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untouchable {
    /// They are being brought in, or will be when somebody asks again.
    Cold,
    /// The disk cannot give them.
    Unreadable,
}

/// One order: bytes of a segment. The mapping keeps the segment from being used again meanwhile.
struct Order {
    piece: Piece,
    file: Arc<dyn SegmentFile>,
    mapping: Bytes,
    span: Range<usize>,
}

/// An order that was carried out.
struct Answer {
    piece: Piece,
    /// Offsets of the blocks that the disk refused.
    refused: Vec<usize>,
}

impl Order {
    fn carry_out(self) -> Answer {
        Answer { piece: self.piece, refused: bring_in(self.file.as_ref(), &self.mapping, self.span) }
    }
}

enum Mode {
    /// No thread yet.
    Idle,
    Thread {
        orders: Sender<Order>,
        done: Receiver<Answer>,
        worker: JoinHandle<()>,
    },
    Inline(VecDeque<Order>),
}

/// What is being brought in.
///
/// Invariant: `ordered` are the first pieces of the orders that are not answered yet, [`COLD_ORDERS_MAX`] at most.
pub(crate) struct Warming {
    mode: Mode,
    ordered: BTreeSet<Piece>,
    /// What a patient reader has brought in: once, because a start reads each piece for thousands of groups. A set of the
    /// size of what was read, a few MiB for a large log.
    brought_in: BTreeSet<Piece>,
    /// By the offset of the block.
    unreadable: BTreeSet<(SegmentKey, usize)>,
}

impl Warming {
    pub(crate) fn new(how: Preparation) -> Warming {
        let mode = match how {
            Preparation::Thread => Mode::Idle,
            Preparation::Inline => Mode::Inline(VecDeque::new()),
        };
        Warming { mode, ordered: BTreeSet::new(), brought_in: BTreeSet::new(), unreadable: BTreeSet::new() }
    }

    fn order(&mut self, order: Order) {
        if self.ordered.len() >= COLD_ORDERS_MAX || self.ordered.contains(&order.piece) {
            return;
        }
        let piece = order.piece;
        if let Mode::Idle = self.mode {
            self.mode = match start() {
                Ok(mode) => mode,
                // Without a thread nothing comes in; the next read tries again to start one.
                Err(_) => return,
            };
        }
        let is_taken = match &mut self.mode {
            Mode::Thread { orders, .. } => orders.try_send(order).is_ok(),
            Mode::Inline(orders) => {
                orders.push_back(order);
                true
            }
            Mode::Idle => false,
        };
        if is_taken {
            self.ordered.insert(piece);
        }
    }

    fn answered(&mut self, answer: &Answer) {
        self.ordered.remove(&answer.piece);
        self.remember(answer.piece.0, &answer.refused);
    }

    fn remember(&mut self, key: SegmentKey, refused: &[usize]) {
        let left = UNREADABLE_MAX.saturating_sub(self.unreadable.len());
        self.unreadable.extend(refused.iter().take(left).map(|at| (key, *at)));
    }

    /// Whether a block of `range`, which starts at one, is known to be unreadable.
    fn has_unreadable(&self, key: SegmentKey, range: &Range<usize>) -> bool {
        self.unreadable.range((key, range.start)..(key, range.end)).next().is_some()
    }

    /// Waits until `wanted` is in memory, and with it the rest of its piece. Says whether all of the piece is.
    fn wait_for(
        &mut self,
        (key, file): (SegmentKey, &dyn SegmentFile),
        mapping: &Bytes,
        piece: Range<usize>,
        wanted: &Range<usize>,
    ) -> Result<bool, Untouchable> {
        // A disk takes long to refuse a block, so none is asked for twice.
        let is_damaged = self.has_unreadable(key, &piece);
        let refused = bring_in(file, mapping, if is_damaged { wanted.clone() } else { piece });
        self.remember(key, &refused);
        if refused.iter().any(|at| wanted.contains(at)) {
            return Err(Untouchable::Unreadable);
        }
        Ok(!is_damaged && refused.is_empty())
    }
}

impl Drop for Warming {
    /// The thread must not outlive the lock on the directory.
    fn drop(&mut self) {
        if let Mode::Thread { orders, done, worker } = std::mem::replace(&mut self.mode, Mode::Idle) {
            drop((orders, done));
            let _ = worker.join();
        }
    }
}

fn start() -> io::Result<Mode> {
    let (orders, inbox) = crossbeam_channel::bounded::<Order>(COLD_ORDERS_MAX);
    let (outbox, done) = crossbeam_channel::bounded(COLD_ORDERS_MAX);
    let builder = std::thread::Builder::new().name("pontoon-warm".to_string());
    let worker = builder.spawn(move || {
        // Until the log drops its ends of the channels.
        for order in &inbox {
            if outbox.send(order.carry_out()).is_err() {
                return;
            }
        }
    })?;
    Ok(Mode::Thread { orders, done, worker })
}

/// One read: what was found to be resident in it.
pub(crate) struct Looking<'a> {
    warming: &'a mut Warming,
    /// This reader may wait for the disk.
    is_patient: bool,
    /// The end of what is written in the segment that is appended to: what follows is nobody's business.
    written: Option<(SegmentKey, usize)>,
    resident: Vec<Piece>,
}

impl<'a> Looking<'a> {
    /// A reader that may wait.
    pub(crate) fn patient(warming: &'a mut Warming) -> Looking<'a> {
        Looking { warming, is_patient: true, written: None, resident: Vec::new() }
    }

    /// A reader that may not.
    pub(crate) fn impatient(warming: &'a mut Warming, written: Option<(SegmentKey, usize)>) -> Looking<'a> {
        Looking { warming, is_patient: false, written, resident: Vec::new() }
    }

    /// Whether these bytes of a segment may be touched. Orders what is missing.
    pub(crate) fn may_touch(
        &mut self,
        segment: &Segment,
        mapping: &Bytes,
        range: Range<usize>,
    ) -> Result<(), Untouchable> {
        let warming = &mut *self.warming;
        let (key, file) = (segment.segment.key(), &segment.slot.file);
        let end = self.written.filter(|(open, _)| *open == key).map_or(mapping.len(), |(_, end)| end);
        // A system that does not answer the question leaves the reader to its luck.
        let is_resident = |span: Range<usize>| file.is_resident(mapping, span).unwrap_or(true);
        for number in range.start / PIECE_BYTES..range.end.min(end).div_ceil(PIECE_BYTES) {
            let (piece, start) = ((key, number), number * PIECE_BYTES);
            let piece_end = end.min(start + PIECE_BYTES);
            if self.resident.contains(&piece) {
                continue;
            }
            let wanted = range.start.max(start) / BLOCK_BYTES * BLOCK_BYTES..range.end.min(piece_end);
            if wanted.is_empty() {
                continue;
            }
            if warming.has_unreadable(key, &wanted) {
                return Err(Untouchable::Unreadable);
            }
            if self.is_patient {
                let is_known = warming.brought_in.contains(&piece);
                if is_known || warming.wait_for((key, file.as_ref()), mapping, start..piece_end, &wanted)? {
                    self.resident.push(piece);
                    warming.brought_in.insert(piece);
                }
                continue;
            }
            if is_resident(start..piece_end) {
                self.resident.push(piece);
                continue;
            }
            // Of the rest of a piece somebody may never have read or written anything.
            if is_resident(wanted) {
                continue;
            }
            let span = start..end.min(start + (1 + AHEAD_PIECES) * PIECE_BYTES);
            warming.order(Order { piece, file: file.clone(), mapping: mapping.clone(), span });
            return Err(Untouchable::Cold);
        }
        Ok(())
    }
}

impl Log {
    /// Whether something was brought in since the last call, so that it pays to repeat a read that was
    /// [`ReadError::Cold`](crate::ReadError::Cold).
    pub fn warmed(&mut self) -> bool {
        let mut answers = Vec::new();
        if let Mode::Thread { done, .. } = &self.warming.mode {
            answers.extend(done.try_iter());
        }
        answers.iter().for_each(|answer| self.warming.answered(answer));
        !answers.is_empty()
    }

    /// Brings in what cold reads have ordered, in the caller's thread: for a log without one. Says how much that was.
    pub fn warm(&mut self) -> usize {
        let Mode::Inline(orders) = &mut self.warming.mode else { return 0 };
        let answers: Vec<_> = std::mem::take(orders).into_iter().map(Order::carry_out).collect();
        answers.iter().for_each(|answer| self.warming.answered(answer));
        answers.len()
    }

    /// Orders to bring something in that are under way.
    pub fn cold_orders(&self) -> usize {
        self.warming.ordered.len()
    }
}
