//! Finds out what a log holds, and changes nothing while it does.
//!
//! 1. The control file says who the log belongs to, what was durable at least, and whether the last stop was clean.
//! 2. Every slot file is looked at: unused, a segment, or unreadable.
//! 3. The newest segment that exists is the tail. One whose first group did not survive does not exist, unless
//!    something proves the opposite. From the tail each header names its predecessor, back to the first segment; a
//!    missing one refuses the log. What is not on this chain was given up by an earlier recovery.
//! 4. The segments are read in order, each up to the end that its successor pins, the tail up to its own end
//!    ([`scan`]), and their records are replayed in the order of writing ([`replay`]).
//!
//! After anything but a clean stop all of this is read past the cache, which was told to forget the files first: after
//! a failed sync the cache shows pages that the disk does not have (law 17). The last group, if nothing proves it
//! durable, is handed back to be written again elsewhere.
//!
//! Left out: repair. A log with corruption is refused as a whole, and its node does not start. Nothing brings its
//! replicas back yet: that takes snapshots from peers and changes of membership, and neither is there. Until then a
//! Raft group lives on its other replicas as long as they are a majority.

pub(crate) mod replay;
pub(crate) mod scan;

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_types::{Entry, GroupId, HardState};

use crate::append::GroupBuffer;
use crate::control::check_identity;
use crate::format::control::Control;
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, Fault, LogEnd, SegmentId, Seq, is_zero, slot_of};
use crate::recover::replay::Replay;
use crate::recover::scan::{Image, headers};
use crate::storage::{Access, AlignedBuffer, SegmentFile, Storage};
use crate::{LogError, LogIdentity};

/// One Raft group as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// What was given when the group was created; opaque to the log.
    pub descriptor: Bytes,
    /// Term and vote.
    pub hard_state: HardState,
    /// All entries, from index 1. Payloads are slices of the mapped segments and outlive the log.
    pub entries: Vec<Entry>,
}

/// Bytes behind the end of a log, left by a write that was never acknowledged. They stay where they are, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub file: String,
    /// Where the log ends in it.
    pub offset: u64,
}

/// What an open found.
#[derive(Debug)]
pub struct Recovered {
    /// All Raft groups of the log, all of it durable.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Where a torn write was cut.
    pub torn_tail: Option<TornTail>,
    /// Whether the last stop was clean.
    pub clean: bool,
    /// Segments that were read.
    pub segments: usize,
    /// Whether the log goes on in its newest segment: after a clean stop, and after any other that left nothing behind
    /// what was noted as durable. Otherwise it goes on in a fresh one.
    pub resumed: bool,
    /// Whether the last group had to be written again because nothing proved it durable (law 17).
    pub rewritten: bool,
    /// Whether all of it was read past the cache. Otherwise the file system refuses that, and law 17 rests on the
    /// cache forgetting on request.
    pub read_past_cache: bool,
}

/// A segment on the chain.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
}

/// The result of recovery, before anything is written.
pub(crate) struct Found {
    /// The segments of the log, oldest first.
    pub(crate) chain: Vec<Link>,
    /// The end of what is proven durable.
    pub(crate) end: LogEnd,
    /// The group behind it that is kept and must be written again.
    pub(crate) kept: Option<GroupBuffer>,
    /// An intact group stands behind the end, kept or without records, and nothing proves it durable.
    pub(crate) unproven: bool,
    pub(crate) replay: Replay,
    pub(crate) torn: Option<TornTail>,
    pub(crate) rest: Rest,
    /// The number of the next new slot file.
    pub(crate) next_slot: u32,
    /// The highest segment id that was ever seen.
    pub(crate) newest_seen: SegmentId,
    pub(crate) read_past_cache: bool,
}

impl Found {
    /// Whether the log ends exactly where the control file says that it was durable at least, in the newest segment
    /// that ever was, and nothing was written behind that.
    pub(crate) fn has_no_tail(&self, control: &Control) -> bool {
        !self.unproven
            && self.torn.is_none()
            && self.rest.torn.is_none()
            && self.end.seq == control.durable_seq
            && self.end.place.segment == control.newest_segment
            && self.end.place.segment == self.newest_seen
    }
}

/// The files that are not part of the log.
pub(crate) struct Rest {
    /// Slot files full of zeros.
    pub(crate) unused: Vec<(u32, String)>,
    /// Files that hold nothing which counts.
    pub(crate) leftovers: Vec<String>,
    /// One of them, when a rotation was torn.
    pub(crate) torn: Option<TornTail>,
}

/// What a slot file is, by its first block.
enum Content {
    Unused,
    Segment(SegmentHeader),
    Unreadable(Fault),
}

struct SlotFile {
    slot: u32,
    name: String,
    content: Content,
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    identity: LogIdentity,
    control: Control,
    /// Known to have been durable: what the control file says, or a segment header that outlived its first group.
    proven: Seq,
    slots: Vec<SlotFile>,
    buffer: AlignedBuffer,
    /// No read was answered by the cache so far.
    read_past_cache: bool,
}

/// Reads a whole log.
pub(crate) fn recover(storage: &dyn Storage, identity: LogIdentity, control: Control) -> Result<Found, LogError> {
    if !(BLOCK_BYTES as u64..=crate::options::SEGMENT_BYTES_MAX).contains(&control.segment_bytes) {
        let why = format!("a segment size of {} bytes", control.segment_bytes);
        return Err(LogError::Corruption { file: crate::format::CONTROL_NAME.to_string(), offset: 0, why });
    }
    let buffer = AlignedBuffer::new(control.segment_bytes as usize);
    let proven = control.durable_seq;
    let mut recovery =
        Recovery { storage, identity, control, proven, slots: Vec::new(), buffer, read_past_cache: true };
    recovery.survey()?;
    recovery.run()
}

impl Recovery<'_> {
    /// Looks at the first block of each slot file.
    fn survey(&mut self) -> Result<(), LogError> {
        let mut names = self.storage.names().map_err(LogError::io("listing the files of the log"))?;
        names.sort();
        for name in names {
            let Some(slot) = slot_of(&name, ".seg") else { continue };
            let file = self.open(&name)?;
            if file.bytes() != self.control.segment_bytes {
                let why = format!("the file has {} bytes, a segment has {}", file.bytes(), self.control.segment_bytes);
                return Err(LogError::Corruption { file: name, offset: file.bytes(), why });
            }
            file.drop_cache().map_err(LogError::io(format!("dropping the cache of {name}")))?;
            let block = &mut self.buffer.bytes_mut()[..BLOCK_BYTES];
            file.read_disk(0, block).map_err(LogError::io(format!("reading {name}")))?;
            self.read_past_cache &= file.reads_past_cache();
            let content = match SegmentHeader::decode(block) {
                Ok(header) => {
                    check_identity(&name, header.identity, self.identity)?;
                    Content::Segment(header)
                }
                Err(fault) if fault.is_unknown() => {
                    return Err(LogError::UnknownFormat { file: name, offset: 0, what: fault.to_string() });
                }
                Err(Fault::Unwritten) => Content::Unused,
                Err(fault) => Content::Unreadable(fault),
            };
            self.slots.push(SlotFile { slot, name, content });
        }
        Ok(())
    }

    fn open(&self, name: &str) -> Result<std::sync::Arc<dyn SegmentFile>, LogError> {
        self.storage.open(name, Access::Read).map_err(LogError::io(format!("opening {name}")))
    }

    /// Reads a whole slot file into the buffer.
    fn load(&mut self, name: &str) -> Result<(), LogError> {
        let file = self.open(name)?;
        let what = || format!("reading {name}");
        file.read_disk(0, self.buffer.bytes_mut()).map_err(LogError::io(what()))?;
        self.read_past_cache &= file.reads_past_cache();
        // What was read ahead for others is forgotten again: the mapping made later shows the disk.
        file.drop_cache().map_err(LogError::io(what()))
    }

    fn image<'a>(&'a self, link: &'a Link, mapping: usize) -> Image<'a> {
        Image { name: &link.name, header: link.header, bytes: self.buffer.bytes(), mapping: mapping as u32 }
    }

    fn run(mut self) -> Result<Found, LogError> {
        let newest_seen = self.segments().map(|link| link.header.segment).max().unwrap_or_default();
        let mut chain = self.find_chain()?;
        let mut replay = Replay::default();
        let mut end = chain.first().map(|first| first.header.previous).unwrap_or_default();
        for (position, pair) in chain.windows(2).enumerate() {
            self.load(&pair[0].name)?;
            end = self.image(&pair[0], position).scan_closed(&end, &pair[1].header.previous, &mut replay)?;
        }
        let Some(last) = chain.last() else { return Err(self.missing(SegmentId(1), "the log")) };
        self.load(&last.name)?;
        let image = self.image(last, chain.len() - 1);
        let tail = image.scan_tail(&end, self.proven, &mut replay)?;
        let kept = match tail.unproven.map(|offset| image.group(offset)) {
            Some(Ok(group)) if group.header.runs > 0 => Some(GroupBuffer::copy_of(&group)),
            _ => None,
        };
        if let Some(clean_end) = self.control.clean_end
            && (tail.end != clean_end || tail.unproven.is_some())
        {
            let why =
                format!("the log ends with group {}, but it was closed with group {}", tail.end.seq, clean_end.seq);
            return Err(image.corruption(tail.end.place.offset as usize, why));
        }
        if tail.unproven == Some(BLOCK_BYTES) {
            chain.pop();
        }
        let next_slot = self.slots.iter().map(|slot| slot.slot.saturating_add(1)).max().unwrap_or(1);
        let rest = self.sort_out(&chain, tail.last_seq)?;
        let read_past_cache = self.read_past_cache;
        let unproven = tail.unproven.is_some();
        let (end, torn) = (tail.end, tail.torn);
        Ok(Found { chain, end, kept, unproven, replay, torn, rest, next_slot, newest_seen, read_past_cache })
    }

    fn segments(&self) -> impl Iterator<Item = Link> + '_ {
        self.slots.iter().filter_map(|slot| match slot.content {
            Content::Segment(header) => Some(Link { name: slot.name.clone(), header }),
            Content::Unused | Content::Unreadable(_) => None,
        })
    }

    /// The error for a segment that is needed and not there: an unreadable file is the likelier place to look at.
    fn missing(&self, segment: SegmentId, needed_by: &str) -> LogError {
        for slot in &self.slots {
            if let Content::Unreadable(fault) = slot.content {
                let why = format!("{fault}, and segment {segment} is missing");
                return LogError::Corruption { file: slot.name.clone(), offset: 0, why };
            }
        }
        LogError::MissingSegment { segment: segment.0, needed_by: needed_by.to_string() }
    }

    /// The newest segment that exists, and its predecessors; oldest first.
    fn find_chain(&mut self) -> Result<Vec<Link>, LogError> {
        let mut segments: Vec<Link> = self.segments().collect();
        segments.sort_by_key(|link| link.header.segment);
        if let Some(twin) = segments.windows(2).find(|pair| pair[0].header.segment == pair[1].header.segment) {
            let why = format!("it has the same segment id as {}", twin[0].name);
            return Err(LogError::Corruption { file: twin[1].name.clone(), offset: 0, why });
        }
        let mut newest = loop {
            let Some(candidate) = segments.pop() else { return Err(self.missing(SegmentId(1), "the log")) };
            if self.exists(&candidate)? {
                break candidate;
            }
            // It was written when everything before it was durable.
            self.proven = self.proven.max(candidate.header.previous.seq);
        };
        if newest.header.segment < self.control.newest_segment {
            return Err(self.missing(self.control.newest_segment, crate::format::CONTROL_NAME));
        }
        let mut chain = Vec::new();
        loop {
            let previous = newest.header.previous.place.segment;
            let needed_by = newest.name.clone();
            chain.push(newest);
            if previous == SegmentId(0) {
                chain.reverse();
                return Ok(chain);
            }
            // Sorted, and taken from the end: ids fall, so the walk ends.
            newest = loop {
                match segments.pop() {
                    Some(link) if link.header.segment == previous => break link,
                    Some(_) => {}
                    None => return Err(self.missing(previous, &needed_by)),
                }
            };
        }
    }

    /// Whether a segment's first group survived. If not it must be a torn rotation, of which nothing was acknowledged.
    fn exists(&mut self, link: &Link) -> Result<bool, LogError> {
        self.load(&link.name)?;
        let image = self.image(link, 0);
        let fault = match image.group(BLOCK_BYTES) {
            Ok(group) if group.header.seq == link.header.base_seq => return Ok(true),
            Ok(_) => Fault::Bad("the first group has another number than the segment says"),
            Err(fault) => fault,
        };
        let proven = if self.control.newest_segment >= link.header.segment {
            link.header.base_seq
        } else {
            self.control.durable_seq
        };
        image.refuse_if_proven(fault, BLOCK_BYTES, link.header.base_seq, proven)?;
        Ok(false)
    }

    /// Tells unused slots from leftovers. A file without a readable header may still prove that the log went on
    /// behind `last`.
    fn sort_out(&mut self, chain: &[Link], last: Seq) -> Result<Rest, LogError> {
        let (mut unused, mut leftovers, mut torn) = (Vec::new(), Vec::new(), None);
        let slots = std::mem::take(&mut self.slots);
        for slot in slots {
            match slot.content {
                Content::Segment(_) if chain.iter().any(|link| link.name == slot.name) => continue,
                Content::Segment(_) => {
                    leftovers.push(slot.name);
                    continue;
                }
                // After a clean stop no rotation was under way.
                Content::Unused if self.control.clean_end.is_some() => {
                    unused.push((slot.slot, slot.name));
                    continue;
                }
                Content::Unused | Content::Unreadable(_) => {}
            }
            self.load(&slot.name)?;
            let bytes = self.buffer.bytes();
            if is_zero(bytes) {
                unused.push((slot.slot, slot.name));
                continue;
            }
            if let Some((at, header)) =
                headers(bytes, self.identity.log, 0).find(|(_, header)| header.durable_seq > last)
            {
                let why = format!(
                    "the segment header is unreadable, but the group at {at} proves that group {} was durable",
                    header.durable_seq
                );
                return Err(LogError::Corruption { file: slot.name, offset: 0, why });
            }
            torn = Some(TornTail { file: slot.name.clone(), offset: 0 });
            leftovers.push(slot.name);
        }
        let names = self.storage.names().map_err(LogError::io("listing the files of the log"))?;
        leftovers.extend(names.into_iter().filter(|name| slot_of(name, ".new").is_some()));
        Ok(Rest { unused, leftovers, torn })
    }
}
