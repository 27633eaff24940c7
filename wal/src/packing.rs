//! Where groups of records will go, before they are written. Pure.
//!
//! A group never crosses the end of a segment, so what does not fit is the first of the next one, and the rest of the
//! segment stays empty. How many segments a queue of groups takes is therefore known only by placing one after the other,
//! by the same rule as the writer does.

use crate::append::Room;
use crate::format::BLOCK_BYTES;
use crate::format::footer::{footer_part, footer_room};

/// The end of a stream: the segment that it writes to, and how many it has begun since.
///
/// Invariant: groups and footer lie within `segment_bytes`, unless no segment was begun yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    segment_bytes: usize,
    offset: usize,
    footer_parts: usize,
    /// Segments begun.
    pub(crate) begun: usize,
}

impl Packing {
    /// A stream that has written up to `offset` in its segment.
    pub(crate) fn at(segment_bytes: u64, offset: u64, footer_parts: usize) -> Packing {
        Packing { segment_bytes: segment_bytes as usize, offset: offset as usize, footer_parts, begun: 0 }
    }

    /// A stream that has just begun a segment.
    pub(crate) fn of_empty(segment_bytes: u64) -> Packing {
        Packing::at(segment_bytes, BLOCK_BYTES as u64, 0)
    }

    /// A stream without a segment: nothing fits.
    pub(crate) fn without_segment(segment_bytes: u64) -> Packing {
        Packing::at(segment_bytes, segment_bytes, 0)
    }

    /// Whether a group fits behind the others, with its part of the footer.
    pub(crate) fn fits(&self, group: Room) -> bool {
        let footer = footer_room(self.footer_parts + footer_part(group.directory));
        self.offset + group.group_len() + footer <= self.segment_bytes
    }

    /// Bytes left in the segment for groups.
    pub(crate) fn left(&self) -> usize {
        (self.segment_bytes - self.offset).saturating_sub(footer_room(self.footer_parts))
    }

    /// Places the next group, which takes `echoes` more if they fit as well.
    pub(crate) fn put(&mut self, group: Room, echoes: Room) {
        if !self.fits(group) {
            (self.offset, self.footer_parts) = (BLOCK_BYTES, 0);
            self.begun += 1;
        }
        let both = group.plus(echoes);
        let placed = if self.fits(both) { both } else { group };
        self.offset += placed.group_len();
        self.footer_parts += footer_part(placed.directory);
    }
}
