//! The segments that entries are read from: mapped at the first read, and not used again while anybody reads.
//!
//! Everything that is handed out is a slice of a mapping and keeps it alive, and with it a *pin* of the segment. A
//! segment that is given up leaves the list at once; its file is free again when the last pin is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::GroupId;

use crate::cold::{Looking, Untouchable};
use crate::format::checkpoint::RunPlace;
use crate::format::footer::{self, FOOTER_HEADER_BYTES, FooterGroup, FooterPlace};
use crate::format::group::{GROUP_HEADER_BYTES, Group, GroupHeader, payloads_start};
use crate::format::record::{self, RUN_BYTES};
use crate::format::{BLOCK_BYTES, SegmentId, SegmentKey};
use crate::prepare::Slot;

/// A mapping that pins its segment.
struct Pinned {
    bytes: Bytes,
    _pin: Arc<()>,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A segment with entries.
pub(crate) struct Segment {
    pub(crate) segment: SegmentId,
    pub(crate) slot: Slot,
    /// Where its footer starts, once it has one.
    footer: Option<FooterPlace>,
    bytes: Option<Bytes>,
    /// The places of groups of records, and of the footer, whose directories were found intact.
    verified_directories: BTreeSet<usize>,
    pin: Arc<()>,
}

impl Segment {
    pub(crate) fn new(segment: SegmentId, slot: Slot) -> Segment {
        Segment { segment, slot, footer: None, bytes: None, verified_directories: BTreeSet::new(), pin: Arc::new(()) }
    }

    /// The same, closed: a footer stands or will stand behind its groups.
    pub(crate) fn closed(segment: SegmentId, slot: Slot, footer: FooterPlace) -> Segment {
        Segment { footer: Some(footer), ..Segment::new(segment, slot) }
    }

    /// Its bytes, as far as they are written by now.
    pub(crate) fn bytes(&mut self) -> io::Result<Bytes> {
        if let Some(bytes) = &self.bytes
            && self.slot.file.mapping_is_live()
        {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from_owner(Pinned { bytes: self.slot.file.map()?, _pin: self.pin.clone() });
        self.bytes = Some(bytes.clone());
        Ok(bytes)
    }

    /// Whether all that [`Segment::has_intact_directory`] reads may be touched.
    pub(crate) fn may_touch_directory(
        &self,
        looking: &mut Looking<'_>,
        bytes: &Bytes,
        log: u128,
        run: &RunPlace,
    ) -> Result<(), Untouchable> {
        let head_at = run.head_at as usize;
        if let Some(footer) = self.footer.filter(|footer| head_at as u64 >= footer.offset) {
            let start = footer.offset as usize;
            looking.may_touch(self, bytes, start..start + FOOTER_HEADER_BYTES)?;
            let length = match self.verified_directories.contains(&start) {
                true => FOOTER_HEADER_BYTES,
                false => footer::claimed_length(&bytes[start..], bytes.len() - start).unwrap_or(FOOTER_HEADER_BYTES),
            };
            looking.may_touch(self, bytes, start..start + length)?;
            return looking.may_touch(self, bytes, head_at..head_at + RUN_BYTES);
        }
        for place in (1..=head_at / BLOCK_BYTES).rev().map(|block| block * BLOCK_BYTES) {
            looking.may_touch(self, bytes, place..place + GROUP_HEADER_BYTES)?;
            if GroupHeader::decode(bytes.get(place..).unwrap_or_default(), log, place as u64).is_ok() {
                return looking.may_touch(self, bytes, place..run.payloads_at as usize);
            }
        }
        Ok(())
    }

    /// The group of records at `at`, if its directory can be read.
    fn own_group<'a>(
        &self,
        looking: &mut Looking<'_>,
        bytes: &'a Bytes,
        log: u128,
        at: usize,
    ) -> Result<Option<Group<'a>>, Untouchable> {
        if !readable(looking.may_touch(self, bytes, at..at + GROUP_HEADER_BYTES))? {
            return Ok(None);
        }
        let Ok((header, _)) = GroupHeader::decode(&bytes[at..], log, at as u64) else { return Ok(None) };
        let end = at + payloads_start(header.dir_len as usize);
        if !readable(looking.may_touch(self, bytes, at..end))? {
            return Ok(None);
        }
        Ok(Group::identify(bytes, log, at).ok())
    }

    /// The copy in the footer of the directory of the group whose first payload is at `payloads_at`, and its place.
    fn footer_directory<'a>(
        &self,
        looking: &mut Looking<'_>,
        bytes: &'a Bytes,
        footer: FooterPlace,
        payloads_at: usize,
    ) -> Result<Option<(&'a [u8], usize)>, Untouchable> {
        let start = footer.offset as usize;
        if !readable(looking.may_touch(self, bytes, start..start + FOOTER_HEADER_BYTES))? {
            return Ok(None);
        }
        let stored = bytes.get(start..).unwrap_or_default();
        let Ok(length) = footer::claimed_length(stored, stored.len()) else { return Ok(None) };
        if !readable(looking.may_touch(self, bytes, start..start + length))? {
            return Ok(None);
        }
        let is_of = |group: &FooterGroup<'_>| group.offset + payloads_start(group.directory.len()) == payloads_at;
        let groups = footer::decode(stored, footer).unwrap_or_default();
        let found = groups.into_iter().find(is_of);
        Ok(found.map(|group| (group.directory, start + group.directory_at)))
    }

    /// Whether the directory in which the head of a run stands is what was written.
    pub(crate) fn has_intact_directory(&mut self, bytes: &[u8], log: u128, head_at: u32) -> bool {
        let head_at = head_at as usize;
        let footer = self.footer.filter(|footer| head_at as u64 >= footer.offset);
        let place = match footer {
            Some(footer) => Some(footer.offset as usize),
            None => group_around(bytes, log, head_at),
        };
        let Some(place) = place else { return false };
        if self.verified_directories.contains(&place) {
            return true;
        }
        let intact = match footer {
            Some(footer) => footer::decode(bytes.get(place..).unwrap_or_default(), footer).is_ok(),
            None => Group::identify(bytes, log, place).is_ok(),
        };
        if intact {
            self.verified_directories.insert(place);
        }
        intact
    }

    /// An unreadable block is no copy; the search goes on beside it.
    fn other_copy(
        &self,
        looking: &mut Looking<'_>,
        bytes: &Bytes,
        log: u128,
        group: GroupId,
        run: &RunPlace,
    ) -> Result<Option<RunPlace>, Untouchable> {
        let Some(footer) = self.footer else { return Ok(None) };
        let payloads_at = run.payloads_at as usize;
        let mut found = None;
        if u64::from(run.head_at) >= footer.offset {
            for at in (BLOCK_BYTES..footer.offset as usize).step_by(BLOCK_BYTES) {
                let group = self.own_group(looking, bytes, log, at)?;
                if let Some(group) = group.filter(|group| group.payloads_at() == payloads_at) {
                    found = Some((group.directory, at + GROUP_HEADER_BYTES));
                    break;
                }
            }
        } else {
            found = self.footer_directory(looking, bytes, footer, payloads_at)?;
        }
        let Some((directory, directory_at)) = found else { return Ok(None) };
        let holds = |found: &record::Run<'_>| {
            let head = found.head;
            let last = run.first.0 + u64::from(run.count);
            let is_of_entries = matches!(head.kind, record::KIND_ENTRIES | record::KIND_RESTORED);
            is_of_entries
                && head.group == group
                && head.index <= run.first.0
                && last <= head.index + u64::from(head.count)
        };
        // One that was written over in the same group of records stands before the one that took its place.
        let found = record::Runs::new(directory).filter(holds).last();
        Ok(found.map(|found| RunPlace { head_at: (directory_at + found.at) as u32, ..*run }))
    }
}

/// Whether bytes can be read; what is cold is asked for again.
pub(crate) fn readable(touched: Result<(), Untouchable>) -> Result<bool, Untouchable> {
    match touched {
        Ok(()) => Ok(true),
        Err(Untouchable::Unreadable) => Ok(false),
        Err(Untouchable::Cold) => Err(Untouchable::Cold),
    }
}

/// The group of records whose directory spans `at`.
fn group_around(bytes: &[u8], log: u128, at: usize) -> Option<usize> {
    let blocks = (1..=at / BLOCK_BYTES).rev().map(|block| block * BLOCK_BYTES);
    let header_at = |place: usize| Some((place, GroupHeader::decode(bytes.get(place..)?, log, place as u64).ok()?.0));
    let (place, header) = blocks.into_iter().find_map(header_at)?;
    (at < place + GROUP_HEADER_BYTES + header.dir_len as usize).then_some(place)
}

/// A segment that is given up and may still be read.
struct Leaving {
    slot: Slot,
    pin: Arc<()>,
}

/// All segments with entries.
pub(crate) struct Segments {
    log: u128,
    by_key: BTreeMap<SegmentKey, Segment>,
    leaving: Vec<Leaving>,
}

impl Segments {
    /// None yet, of the log with this uuid.
    pub(crate) fn new(log: u128) -> Segments {
        Segments { log, by_key: BTreeMap::new(), leaving: Vec::new() }
    }

    /// Where the other copy of a run's directory says the same: in the footer, or in the group itself.
    pub(crate) fn other_copy(
        &self,
        looking: &mut Looking<'_>,
        bytes: &Bytes,
        group: GroupId,
        run: &RunPlace,
    ) -> Result<Option<RunPlace>, Untouchable> {
        let segment = self.by_key.get(&run.segment);
        segment.map_or(Ok(None), |segment| segment.other_copy(looking, bytes, self.log, group, run))
    }

    /// Whether these bytes of a segment may be touched.
    pub(crate) fn may_touch(
        &self,
        looking: &mut Looking<'_>,
        key: SegmentKey,
        bytes: &Bytes,
        range: Range<usize>,
    ) -> Result<(), Untouchable> {
        self.by_key.get(&key).map_or(Ok(()), |segment| looking.may_touch(segment, bytes, range))
    }

    /// Whether all that [`Segments::has_intact_directory`] reads may be touched.
    pub(crate) fn may_touch_directory(
        &self,
        looking: &mut Looking<'_>,
        bytes: &Bytes,
        run: &RunPlace,
    ) -> Result<(), Untouchable> {
        let segment = self.by_key.get(&run.segment);
        segment.map_or(Ok(()), |segment| segment.may_touch_directory(looking, bytes, self.log, run))
    }

    /// Whether the directory in which the head of `run` stands is what was written.
    pub(crate) fn has_intact_directory(&mut self, bytes: &[u8], run: &RunPlace) -> bool {
        let log = self.log;
        self.by_key.get_mut(&run.segment).is_some_and(|segment| segment.has_intact_directory(bytes, log, run.head_at))
    }

    pub(crate) fn insert(&mut self, segment: Segment) {
        self.by_key.insert(segment.segment.key(), segment);
    }

    pub(crate) fn get_mut(&mut self, key: SegmentKey) -> Option<&mut Segment> {
        self.by_key.get_mut(&key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = SegmentKey> + '_ {
        self.by_key.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The log has gone on in another segment.
    pub(crate) fn close(&mut self, key: SegmentKey, footer: FooterPlace) {
        if let Some(segment) = self.by_key.get_mut(&key) {
            segment.footer = Some(footer);
        }
    }

    /// Gives a segment up.
    pub(crate) fn remove(&mut self, key: SegmentKey) {
        if let Some(Segment { slot, pin, bytes, .. }) = self.by_key.remove(&key) {
            drop(bytes);
            self.leaving.push(Leaving { slot, pin });
        }
    }

    /// The slot of a segment that was given up and that nobody reads any more.
    pub(crate) fn take_free(&mut self) -> Option<Slot> {
        let is_free = |leaving: &Leaving| Arc::strong_count(&leaving.pin) == 1;
        let at = self.leaving.iter().position(is_free)?;
        Some(self.leaving.remove(at).slot)
    }

    /// Segments that were given up and are still read.
    pub(crate) fn pinned(&self) -> usize {
        self.leaving.len()
    }
}
