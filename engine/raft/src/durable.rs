//! Writes on their way to the disk, and what waits for them (law 13).
//!
//! Every write of a replica has a number, and the shell answers with a number. An index, or even a LogId, would not
//! do: while one slow sync runs, 2@3 may be overwritten by 2@2 and then by 2@3 again, and "2@3 is durable" would
//! name the wrong one. Therefore a message that promises something is held back until the *last* write at the
//! time of the promise is durable, whether or not that write is the one the promise is about.
//!
//! The index up to which the log is durable follows from the numbers: each write leaves a mark with the last index
//! after it, and a truncation lowers all marks that are still open, because what they wrote above it is gone.
//!
//! A disk that hangs must not fill the memory with messages. A message that is held already is not held again, of several
//! acknowledgements behind one write the highest stays, and a new term withdraws all that was held in the old one.
//!
//! Most groups of a core are idle. So what is on its way stands apart, and takes memory only until it has arrived.

use std::collections::VecDeque;

use pontoon_types::{
    Body, Compaction, Creation, Entry, HardState, Index, LogId, Message, ReplicaId, Term, Write, WriteNumber,
};

/// A write in flight: once it is durable, so is the log up to `last`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    number: WriteNumber,
    last: Index,
}

/// A message that may leave once the write is durable.
#[derive(Debug)]
struct Held {
    number: WriteNumber,
    message: Message,
}

impl Held {
    /// Whether it acknowledges the log at or beyond `from`.
    fn acknowledges(&self, from: Index) -> bool {
        matches!(self.message.body, Body::AppendResponse { matched } if matched >= from)
    }
}

/// What is on its way.
#[derive(Debug, Default)]
struct InFlight {
    /// The write that this step is filling. At the end of a step there is none.
    open: Option<Box<Write>>,
    marks: VecDeque<Mark>,
    held: VecDeque<Held>,
}

/// The writes of one replica.
///
/// Invariants:
/// - `durable ≤ last`; both only grow, and something is in flight exactly while they differ;
/// - marks and held messages are ordered by number, and each number is above `durable`;
/// - held messages are of the replica's current term;
/// - the marks' indexes never fall from one mark to the next, and none is below `durable_index`.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    last: WriteNumber,
    durable: WriteNumber,
    durable_index: Index,
    in_flight: Option<Box<InFlight>>,
    /// The highest index that ever was durable, whatever has become of it since: what a shell that answers with an index says.
    #[cfg(feature = "mutations")]
    durable_once: Index,
}

impl Writes {
    /// The writes of a replica whose log is durable up to `last`.
    pub(crate) fn new(last: Index) -> Writes {
        Writes { durable_index: last, ..Writes::default() }
    }

    /// The number of the last write, open or handed out.
    pub(crate) fn last(&self) -> WriteNumber {
        self.last
    }

    pub(crate) fn durable(&self) -> WriteNumber {
        self.durable
    }

    /// The index up to which the log as it is now is durable.
    pub(crate) fn durable_index(&self) -> Index {
        self.durable_index
    }

    /// The bug that law 13 forbids: what was durable under this index may be overwritten by now.
    #[cfg(feature = "mutations")]
    pub(crate) fn was_durable(&self, index: Index) -> bool {
        index <= self.durable_once.max(self.durable_index)
    }

    /// Without the feature nobody asks.
    #[cfg(not(feature = "mutations"))]
    pub(crate) fn was_durable(&self, index: Index) -> bool {
        index <= self.durable_index
    }

    fn open(&mut self) -> &mut Write {
        let last = &mut self.last;
        self.in_flight.get_or_insert_default().open.get_or_insert_with(|| {
            *last = WriteNumber(last.0 + 1);
            Box::new(Write { number: *last, ..Write::default() })
        })
    }

    pub(crate) fn hard_state(&mut self, hard_state: HardState) {
        self.open().hard_state = Some(hard_state);
    }

    /// The log was cut at and after `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        let write = self.open();
        assert!(
            write.truncate_from.is_none() && write.entries.is_empty(),
            "one write truncates once, before it appends"
        );
        write.truncate_from = Some(from);
        let number = write.number;
        let kept = from.previous();
        // What a leader of this term has written here it never cuts. A wrong one may, and then what was acknowledged is
        // no longer there.
        self.withdraw_acknowledgements(from);
        #[cfg(feature = "mutations")]
        {
            self.durable_once = self.durable_once.max(self.durable_index);
        }
        self.durable_index = self.durable_index.min(kept);
        self.marks().for_each(|mark| mark.last = mark.last.min(kept));
        self.mark(number, kept);
    }

    /// These entries, at least one, were appended.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let last = entries.last().expect("a write appends at least one entry").id.index;
        let write = self.open();
        let number = write.number;
        if write.entries.is_empty() {
            write.entries = entries;
        } else {
            write.entries.extend(entries);
        }
        self.mark(number, last);
    }

    /// The payloads of these entries, which are in the log, are written again. Returns the write that holds them.
    pub(crate) fn restore(&mut self, entries: Vec<Entry>) -> WriteNumber {
        let write = self.open();
        assert!(write.restored.is_empty(), "one write restores once");
        write.restored = entries;
        write.number
    }

    /// The beginning of the log is given up.
    pub(crate) fn compact(&mut self, to: LogId) {
        self.open().compact = Some(Compaction { to, reset: false });
    }

    /// A durable checkpoint of the machine stands for the log up to `to`. With `reset` the log holds nothing else.
    pub(crate) fn install(&mut self, to: LogId, reset: bool) {
        let write = self.open();
        write.compact = Some(Compaction { to, reset });
        let number = write.number;
        if reset {
            // Writes before this one say nothing any more about what the log holds.
            self.withdraw_acknowledgements(to.index.next());
            self.marks().for_each(|mark| mark.last = to.index);
            self.durable_index = to.index;
            self.mark(number, to.index);
        } else {
            self.marks().for_each(|mark| mark.last = mark.last.max(to.index));
            self.durable_index = self.durable_index.max(to.index);
        }
    }

    /// The replica begins to exist.
    pub(crate) fn create(&mut self, creation: Creation) {
        self.open().create = Some(Box::new(creation));
    }

    /// The replica ends to exist.
    pub(crate) fn remove(&mut self, replica: ReplicaId) {
        self.open().remove = Some(replica);
    }

    /// Drops acknowledgements at or beyond `from`: they are not true any more.
    pub(crate) fn withdraw_acknowledgements(&mut self, from: Index) {
        let Some(in_flight) = &mut self.in_flight else { return };
        in_flight.held.retain(|held| !held.acknowledges(from));
    }

    /// Lets acknowledgements at or beyond `from` wait for the last write: what they were about to say is true again only
    /// then.
    pub(crate) fn hold_longer(&mut self, from: Index) {
        let Some(in_flight) = &mut self.in_flight else { return };
        let held = std::mem::take(&mut in_flight.held);
        let (late, kept): (VecDeque<Held>, VecDeque<Held>) = held.into_iter().partition(|held| held.acknowledges(from));
        in_flight.held = kept;
        let number = self.last;
        in_flight.held.extend(late.into_iter().map(|held| Held { number, ..held }));
    }

    fn mark(&mut self, number: WriteNumber, last: Index) {
        let marks = &mut self.in_flight.get_or_insert_default().marks;
        match marks.back_mut() {
            Some(mark) if mark.number == number => mark.last = last,
            _ => {
                if marks.capacity() == 0 {
                    marks.reserve_exact(1);
                }
                marks.push_back(Mark { number, last });
            }
        }
    }

    fn marks(&mut self) -> impl Iterator<Item = &mut Mark> {
        self.in_flight.iter_mut().flat_map(|in_flight| &mut in_flight.marks)
    }

    /// Closes the open write and hands it out.
    pub(crate) fn take(&mut self) -> Option<Box<Write>> {
        self.in_flight.as_mut()?.open.take()
    }

    /// Whether there is a write to hand out.
    pub(crate) fn is_open(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.open.is_some())
    }

    /// Whether everything written is durable, so that a promise needs no wait.
    pub(crate) fn is_settled(&self) -> bool {
        self.durable == self.last
    }

    /// Keeps a message until the last write is durable. One that waits for that write already is not kept twice, except
    /// an acknowledgement: whether a second one is needed is for [`Writes::raise_held`] to say.
    pub(crate) fn hold(&mut self, message: Message) {
        let counted = matches!(message.body, Body::AppendResponse { .. });
        if counted || !self.behind_last().any(|held| *held == message) {
            let held = &mut self.in_flight.get_or_insert_default().held;
            if held.capacity() == 0 {
                // Most groups never hold a second message.
                held.reserve_exact(1);
            }
            held.push_back(Held { number: self.last, message });
        }
    }

    /// Lets an acknowledgement that waits for the last write say `matched` too. False if none can: there is none, or
    /// it says exactly that and `counted` asks for one more.
    pub(crate) fn raise_held(&mut self, to: ReplicaId, matched: Index, counted: bool) -> bool {
        let highest = self.behind_last().filter(|held| held.to == to).filter_map(|held| match &mut held.body {
            Body::AppendResponse { matched } => Some(matched),
            _ => None,
        });
        let Some(highest) = highest.max() else { return false };
        if counted && *highest == matched {
            return false;
        }
        *highest = matched.max(*highest);
        true
    }

    /// The held messages that wait for the last write.
    fn behind_last(&mut self) -> impl Iterator<Item = &mut Message> {
        let last = self.last;
        let held = self.in_flight.iter_mut().flat_map(|in_flight| in_flight.held.iter_mut().rev());
        held.take_while(move |held| held.number == last).map(|held| &mut held.message)
    }

    /// Drops all held messages: their term is over.
    pub(crate) fn withdraw(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.held.clear();
        }
    }

    /// All writes up to `number` are durable. Says whether that is news.
    pub(crate) fn complete(&mut self, number: WriteNumber) -> bool {
        assert!(number <= self.last, "law 13: {number} is durable but {} was the last write", self.last);
        if number <= self.durable {
            return false;
        }
        self.durable = number;
        let Some(in_flight) = &mut self.in_flight else { return true };
        while let Some(mark) = in_flight.marks.front().filter(|mark| mark.number <= number) {
            self.durable_index = mark.last;
            in_flight.marks.pop_front();
        }
        true
    }

    /// The next held message whose write is durable. Asked for until there is none after each [`Writes::complete`].
    pub(crate) fn release(&mut self) -> Option<Message> {
        let held = &mut self.in_flight.as_mut()?.held;
        if held.front().is_some_and(|held| held.number <= self.durable) {
            return held.pop_front().map(|held| held.message);
        }
        if self.is_settled() {
            self.in_flight = None;
        }
        None
    }

    /// Panics when an invariant of the type does not hold.
    pub(crate) fn check(&self, log_last: Index, term: Term) {
        assert!(!self.is_open(), "a step ends without an open write");
        assert!(self.durable <= self.last, "durable ≤ last write");
        assert!(self.in_flight.is_none() == self.is_settled(), "nothing takes memory once everything is durable");
        assert!(self.durable_index <= log_last, "durable ≤ last");
        let mut previous = Mark { number: self.durable, last: self.durable_index };
        let in_flight = self.in_flight.iter();
        for mark in in_flight.clone().flat_map(|in_flight| &in_flight.marks) {
            assert!(previous.number < mark.number && mark.number <= self.last, "marks are ordered and in flight");
            assert!(previous.last <= mark.last && mark.last <= log_last, "marks never fall");
            previous = *mark;
        }
        assert!(
            previous.number > self.durable || self.durable_index == log_last,
            "without marks the whole log is durable"
        );
        let mut number = WriteNumber(self.durable.0 + 1);
        for held in in_flight.flat_map(|in_flight| &in_flight.held) {
            assert!(
                number <= held.number && held.number <= self.last,
                "law 13: held messages are ordered and in flight"
            );
            assert!(held.message.term == term, "held messages are of the current term");
            number = held.number;
        }
    }
}
