//! What the keeper does with one closed segment: writes its footer, and reads what it says.

use std::io;

use super::{Kept, Mappings, rotten};
use crate::LogError;
use crate::format::checkpoint::SegmentFact;
use crate::format::footer::{self, FooterPlace};
use crate::format::group::{GROUP_HEADER_BYTES, Group};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, LogEnd, slot_name};
use crate::recover::scan::Image;
use crate::state::{GroupPlace, LogState};
use crate::unreadable::Mended;

/// Writes the footer. False when a group cannot be read, or the segment has no room for it, as in one that was not written
/// here: recovery and the next fold know what to do about it.
pub(crate) fn write_footer(kept: &Kept, log: u128) -> io::Result<bool> {
    let mut mended = Mended::new(kept.slot.file.clone())?;
    let (mut parts, mut groups, mut offset) = (Vec::new(), 0, BLOCK_BYTES);
    while (offset as u64) < kept.fact.end_offset {
        let bytes = mended.touch_directory(log, offset)?;
        let Ok(group) = Group::identify(&bytes, log, offset) else { return Ok(false) };
        parts.extend_from_slice(&bytes[offset..offset + GROUP_HEADER_BYTES]);
        parts.extend_from_slice(group.directory);
        groups += 1;
        offset += group.header.group_len();
    }
    let footer = footer::encode(footer_place(&kept.fact, log), groups, &parts);
    if kept.fact.end_offset + footer.len() as u64 > kept.slot.file.bytes() {
        return Ok(false);
    }
    // Not synced: nothing waits for it, nothing rests on it, and a flush more would be felt by the commits beside it.
    kept.slot.file.write_at(kept.fact.end_offset, &[&footer])?;
    Ok(true)
}

/// Where the footer of a log segment is.
pub(crate) fn footer_place(fact: &SegmentFact, log: u128) -> FooterPlace {
    FooterPlace { log, segment: fact.segment, salt: fact.salt, offset: fact.end_offset }
}

/// Applies a closed segment that ends at `end`: by its footer, or the way a recovery reads it if that is unreadable. When
/// both are, the error carries the [`LogError`] with the place, the one that the next open would be refused with.
pub(crate) fn fold_segment(
    state: &mut LogState,
    kept: &Kept,
    mappings: &Mappings,
    end: &LogEnd,
    log: u128,
) -> io::Result<()> {
    let broken = |why: String| rotten(format!("segment {}: {why}", kept.fact.segment));
    let key = kept.fact.segment.key();
    let footer_at = kept.fact.end_offset as usize;
    let read = |range| mappings.get(key, range)?.ok_or_else(|| broken("it is missing".to_string()));
    let bytes = read(footer_at..usize::MAX)?;
    let footer = footer::decode(bytes.get(footer_at..).unwrap_or_default(), footer_place(&kept.fact, log));
    if let Ok(groups) = footer {
        for group in groups {
            // The places are those of the groups themselves: a checkpoint must not need a footer that may be lost.
            let place = GroupPlace::of(key, group.offset, group.directory.len());
            state.apply(group.directory, place).map_err(broken)?;
        }
        return Ok(());
    }
    let name = slot_name(kept.fact.slot);
    let bytes = read(0..usize::MAX)?;
    let header = SegmentHeader::decode(&bytes).map_err(|fault| {
        io::Error::other(LogError::Corruption { file: name.clone(), offset: 0, why: fault.to_string() })
    })?;
    let image = Image { name: &name, header, bytes: &bytes, refused: &mappings.refused(key) };
    image.scan_closed(&header.previous, end, state).map_err(io::Error::other)?;
    Ok(())
}
