//! Version 1 of the metadata, frozen.
//!
//! These are twins of the public types, flat where there are many of a kind: the entries of all messages stand in one
//! list, and a message says how many of them are its own. Whoever reads takes from the lists in order and refuses a
//! list that ends too early or too late. Bytes of keys, values and entries are lengths here; the bytes themselves are
//! in the payload region, in the same order.
//!
//! Archived types know nothing of evolution: a field more reads as garbage and not as an error. So nothing here ever
//! changes, and the golden files say so. A new layout is a module `v2` beside this one.

pub(crate) mod client;
pub(crate) mod peer;

use bytes::Bytes;
use pontoon_types as types;
use rkyv::{Archive, Serialize};

use crate::frame::FrameError;

/// A position in a log.
#[derive(Archive, Serialize)]
pub(crate) struct LogId {
    index: u64,
    term: u64,
}

impl From<types::LogId> for LogId {
    fn from(id: types::LogId) -> LogId {
        LogId { index: id.index.0, term: id.term.0 }
    }
}

impl ArchivedLogId {
    fn value(&self) -> types::LogId {
        types::LogId::new(types::Index(self.index.to_native()), types::Term(self.term.to_native()))
    }
}

/// The parts of a payload region in the order in which they are met.
#[derive(Default)]
struct Parts<'a>(Vec<&'a [u8]>);

impl<'a> Parts<'a> {
    /// Adds a part and gives its length.
    fn add(&mut self, part: &'a Bytes) -> u32 {
        self.0.push(part);
        length(part.len())
    }

    /// Adds a part that may be absent.
    fn add_option(&mut self, part: &'a Option<Bytes>) -> Option<u32> {
        part.as_ref().map(|part| self.add(part))
    }
}

/// A length as it is written.
fn length(length: usize) -> u32 {
    u32::try_from(length).expect("what a frame carries is shorter than FRAME_BYTES_MAX")
}

/// A flat list, from which its owners take their shares in order.
struct Shares<'a, T>(&'a [T]);

impl<'a, T> Shares<'a, T> {
    /// The next `count` members.
    fn take(&mut self, count: usize) -> Result<&'a [T], FrameError> {
        let (share, rest) = self.0.split_at_checked(count).ok_or(FrameError::Metadata)?;
        self.0 = rest;
        Ok(share)
    }

    /// The next member.
    fn one(&mut self) -> Result<&'a T, FrameError> {
        Ok(&self.take(1)?[0])
    }

    /// Refuses members that nobody owns.
    fn finish(self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Metadata) }
    }
}
