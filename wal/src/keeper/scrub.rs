//! Reads what is stored before somebody needs it.
//!
//! Disks lose sectors that nobody reads, and the copy that could repair them may be gone when it is noticed. So every
//! closed segment is read from the disk, past the cache, once after the log has become quiet and then once a day, and each checksum
//! is verified. What is found is reported with the name of the entry, so that it can be fetched from a peer. A block that
//! the disk refuses to read is such a find; a segment of which it refuses every block is a disk that has failed.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use pontoon_types::{GroupId, Index, LogId, Term};

use super::{Keeper, Kept};
use crate::format::footer;
use crate::format::group::Group;
use crate::format::record::{KIND_ENTRIES, KIND_RESTORED, Run};
use crate::format::segment_header::Stream;
use crate::format::{BLOCK_BYTES, SegmentKey, slot_name};
use crate::storage::AlignedBuffer;
use crate::unreadable::{read_blocks, refuse_all};

/// The whole log is read once in this time.
pub(crate) const SCRUB_CYCLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most bytes that one scrub reads in a second.
pub(crate) const SCRUB_BYTES_PER_SECOND: u64 = 16 << 20;

/// Bytes on the disk that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rot {
    /// The segment file.
    pub file: String,
    /// Where the damaged part starts: a payload's run, or a group of records.
    pub offset: u64,
    /// The entry whose payload it is. None when it is something else; then nothing that a peer could give is lost.
    pub entry: Option<RottenEntry>,
}

/// An entry whose payload is rotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RottenEntry {
    /// Its group.
    pub group: GroupId,
    /// Which entry.
    pub id: LogId,
    /// The checksum of the payload that was written. Memory may be a mapping of the same rotten bytes, so only what has
    /// this checksum may be written in their place.
    pub crc: u32,
}

/// Damage, and where it was found.
pub(crate) struct Found {
    pub(crate) rot: Rot,
    /// The segment.
    pub(crate) segment: SegmentKey,
    /// The offset of the first payload of the group of records that the damage is in.
    pub(crate) payloads_at: u32,
}

/// Which segments come next.
#[derive(Debug, Default)]
pub(crate) struct ScrubQueue {
    fresh: VecDeque<SegmentKey>,
    last: Option<SegmentKey>,
}

/// Most fresh segments that wait to be read back; a log that closes them faster is read back once a day only.
const FRESH_MAX: usize = 4;

impl ScrubQueue {
    /// A segment was closed.
    pub(crate) fn closed(&mut self, segment: SegmentKey) {
        if self.fresh.len() < FRESH_MAX {
            self.fresh.push_back(segment);
        }
    }

    /// Whether a segment was not read back yet.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The segment to read now: a fresh one, or the next of the round.
    pub(crate) fn next(&mut self, keeper: &Keeper) -> Option<SegmentKey> {
        if let Some(fresh) = self.fresh.pop_front() {
            return Some(fresh);
        }
        let kept = &keeper.start.kept;
        let behind = self.last.and_then(|last| kept.range(last..).map(|(key, _)| *key).find(|key| *key != last));
        self.last = behind.or_else(|| kept.keys().next().copied());
        self.last
    }
}

impl Keeper {
    /// How many segments there are to scrub.
    pub(crate) fn segments(&self) -> usize {
        self.start.kept.len()
    }

    /// Reads one segment from the disk. `go_on` is called with the bytes just read, rests, and may end it early: a log
    /// in a hurry is read in the next round.
    pub(crate) fn scrub(&self, key: SegmentKey, go_on: &mut dyn FnMut(u64) -> bool) -> io::Result<Vec<Found>> {
        let Some(kept) = self.start.kept.get(&key) else { return Ok(Vec::new()) };
        let mut buffer = AlignedBuffer::new(self.start.origin.segment_bytes as usize);
        let (mut offset, mut refused) = (0, Vec::new());
        for piece in buffer.bytes_mut().chunks_mut(1 << 20) {
            refused.extend(read_blocks(kept.slot.file.as_ref(), offset, piece)?);
            offset += piece.len() as u64;
            if !go_on(piece.len() as u64) {
                return Ok(Vec::new());
            }
        }
        refuse_all(&refused, buffer.bytes().len())?;
        let mut rot = rot_in(kept, buffer.bytes(), self.start.origin.identity.log);
        if refused.first() == Some(&0) {
            // Nothing is lost while the log runs, and the next start will be refused.
            let header = Rot { file: slot_name(kept.slot.slot), offset: 0, entry: None };
            rot.push(Found { rot: header, segment: key, payloads_at: 0 });
        }
        Ok(rot)
    }

    /// Reads every segment from the disk.
    pub(crate) fn scrub_all(&self) -> io::Result<Vec<Found>> {
        let mut rot = Vec::new();
        for key in self.start.kept.keys() {
            rot.extend(self.scrub(*key, &mut |_| true)?);
        }
        Ok(rot)
    }
}

/// Everything in a segment that is not what was written. A damaged directory is looked up in the footer, so that the
/// entries behind it are still read.
fn rot_in(kept: &Kept, bytes: &[u8], log: u128) -> Vec<Found> {
    if kept.fact.stream == Stream::Checkpoint {
        // Its end is known by the control file only, and there are two of them; each is checked as a whole when used.
        return Vec::new();
    }
    let file = slot_name(kept.slot.slot);
    let footer_at = kept.fact.end_offset as usize;
    let place = super::footer_place(&kept.fact, log);
    let footer = footer::decode(bytes.get(footer_at..).unwrap_or_default(), place).unwrap_or_default();
    let segment = kept.fact.segment.key();
    let of_records = |offset| {
        let rot = Rot { file: file.clone(), offset: offset as u64, entry: None };
        Found { rot, segment, payloads_at: 0 }
    };
    let mut rot = Vec::new();
    // A crash may have ended a segment before it had one, or have lost it.
    if footer.is_empty() && kept.has_footer {
        rot.push(of_records(footer_at));
    }
    let mut offset = BLOCK_BYTES;
    while offset < footer_at {
        let known = footer.iter().find(|group| group.offset == offset);
        let found = Group::identify(bytes, log, offset).ok();
        if found.is_none() {
            rot.push(of_records(offset));
        }
        let (directory, header) = match (found, known) {
            (Some(group), _) => (group.directory, group.header),
            (None, Some(group)) => (group.directory, group.header),
            // Nothing says how long the group is.
            (None, None) => break,
        };
        let payloads_at = offset + crate::format::group::payloads_start(directory.len());
        for run in crate::format::record::Runs::new(directory) {
            let rotten = rot_in_run(&file, &run, bytes, payloads_at).into_iter();
            rot.extend(rotten.map(|rot| Found { rot, segment, payloads_at: payloads_at as u32 }));
        }
        offset += header.group_len();
    }
    rot
}

fn rot_in_run(file: &str, run: &Run<'_>, bytes: &[u8], payloads_at: usize) -> Vec<Rot> {
    let holds_entries = matches!(run.head.kind, KIND_ENTRIES | KIND_RESTORED);
    let mut rot = Vec::new();
    for (position, record) in run.records().enumerate() {
        let start = payloads_at + record.offset;
        if bytes.get(start..start + record.length).is_some_and(|payload| crc32fast::hash(payload) == record.crc) {
            continue;
        }
        let id = LogId::new(Index(run.head.index + position as u64), Term(run.head.term));
        let entry = holds_entries.then_some(RottenEntry { group: run.head.group, id, crc: record.crc });
        rot.push(Rot { file: file.to_string(), offset: start as u64, entry });
    }
    rot
}
