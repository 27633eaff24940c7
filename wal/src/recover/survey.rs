//! Looks at every slot file of a log, and says which are its segments and which are free.

use std::collections::BTreeMap;

use crate::control::check_identity;
use crate::file::refusal::refusal;
use crate::format::control::Control;
use crate::format::segment_header::{SegmentHeader, Stream};
use crate::format::{BLOCK_BYTES, Fault, LogEnd, SegmentId, SegmentKey, Seq, is_zero, slot_of};
use crate::recover::scan::{Image, headers};
use crate::recover::{Link, TornTail};
use crate::storage::{Access, AlignedBuffer, SegmentFile, Storage};
use crate::unreadable::read_blocks;
use crate::{LogError, LogIdentity};

/// The files that are not part of the log.
pub(crate) struct Rest {
    /// Slot files that can be used at once: full of zeros, or segments that nothing needs any more.
    pub(crate) free: Vec<(u32, String)>,
    /// Slot files that may hold the only copy of the last group: free once that is durable elsewhere.
    pub(crate) leftovers: Vec<(u32, String)>,
    /// Files that were never finished.
    pub(crate) unfinished: Vec<String>,
    /// One of the leftovers, when a rotation was torn.
    pub(crate) torn: Option<TornTail>,
    /// The highest log segment that was ever seen.
    pub(crate) newest_log: SegmentId,
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

/// All slot files of a log.
pub(crate) struct Survey<'a> {
    storage: &'a dyn Storage,
    identity: LogIdentity,
    control: Control,
    /// Known to have been durable: what the control file says, or a segment header that outlived its first group.
    pub(crate) proven: Seq,
    slots: Vec<SlotFile>,
    /// No read was answered by the cache so far.
    pub(crate) read_past_cache: bool,
}

impl<'a> Survey<'a> {
    /// Looks at the first block of each slot file.
    pub(crate) fn of(
        storage: &'a dyn Storage,
        identity: LogIdentity,
        control: Control,
    ) -> Result<Survey<'a>, LogError> {
        let proven = control.durable_seq;
        let mut survey = Survey { storage, identity, control, proven, slots: Vec::new(), read_past_cache: true };
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        let mut names = storage.names().map_err(LogError::io("listing the files of the log"))?;
        names.sort();
        for name in names {
            let Some(slot) = slot_of(&name, ".seg") else { continue };
            let content = survey.look_at(&name, &mut block)?;
            survey.slots.push(SlotFile { slot, name, content });
        }
        Ok(survey)
    }

    fn look_at(&mut self, name: &str, block: &mut AlignedBuffer) -> Result<Content, LogError> {
        let file = self.open(name)?;
        if file.bytes() != self.control.segment_bytes {
            let why = format!("the file has {} bytes, a segment has {}", file.bytes(), self.control.segment_bytes);
            return Err(LogError::Corruption { file: name.to_string(), offset: file.bytes(), why });
        }
        file.drop_cache().map_err(LogError::io(format!("dropping the cache of {name}")))?;
        file.read_disk(0, block.bytes_mut()).map_err(LogError::io(format!("reading {name}")))?;
        self.read_past_cache &= file.reads_past_cache();
        match SegmentHeader::decode(block.bytes()) {
            Ok(header) => {
                check_identity(name, header.identity, self.identity)?;
                Ok(Content::Segment(header))
            }
            Err(fault) if fault.is_unknown() => {
                Err(LogError::UnknownFormat { file: name.to_string(), offset: 0, what: fault.to_string() })
            }
            Err(Fault::Unwritten) => Ok(Content::Unused),
            Err(fault) => Ok(Content::Unreadable(fault)),
        }
    }

    fn open(&self, name: &str) -> Result<std::sync::Arc<dyn SegmentFile>, LogError> {
        self.storage.open(name, Access::Read).map_err(LogError::io(format!("opening {name}")))
    }

    /// Reads a whole slot file into the buffer, and returns the offsets of the blocks that the disk refuses; they are
    /// zeros. The first block was read before: a disk that refuses it now has failed, and its file is not empty.
    pub(crate) fn load(&mut self, name: &str, into: &mut AlignedBuffer) -> Result<Vec<u64>, LogError> {
        let refused = self.load_part(name, 0, into.bytes_mut())?;
        if refused.first() == Some(&0) {
            return Err(LogError::io(format!("reading {name}"))(refusal()));
        }
        Ok(refused)
    }

    /// Reads a part of a slot file that starts and ends at a block, in the same way.
    pub(crate) fn load_part(&mut self, name: &str, offset: usize, into: &mut [u8]) -> Result<Vec<u64>, LogError> {
        let file = self.open(name)?;
        let what = || format!("reading {name}");
        let refused = read_blocks(file.as_ref(), offset as u64, into).map_err(LogError::io(what()))?;
        self.read_past_cache &= file.reads_past_cache();
        // What was read ahead for others is forgotten again: the mapping made later shows the disk.
        file.drop_cache().map_err(LogError::io(what()))?;
        Ok(refused)
    }

    /// All segments.
    pub(crate) fn links(&self) -> impl Iterator<Item = Link> + '_ {
        self.slots.iter().filter_map(|slot| match slot.content {
            Content::Segment(header) => Some(Link { name: slot.name.clone(), header }),
            Content::Unused | Content::Unreadable(_) => None,
        })
    }

    /// The segment with that id.
    pub(crate) fn segment(&self, segment: SegmentId) -> Option<Link> {
        self.links().find(|link| link.header.segment == segment)
    }

    fn log_segments(&self) -> impl Iterator<Item = Link> + '_ {
        self.links().filter(|link| link.header.stream == Stream::Log)
    }

    /// The highest id that was ever given, as far as anything tells.
    pub(crate) fn newest_seen(&self) -> SegmentId {
        let seen = self.links().map(|link| link.header.segment).max().unwrap_or_default();
        let named = self.control.checkpoints.iter().flatten().map(|checkpoint| checkpoint.end.place.segment);
        named.fold(seen.max(self.control.newest_segment), SegmentId::max)
    }

    /// A number above that of every slot file.
    pub(crate) fn next_slot(&self) -> u32 {
        self.slots.iter().map(|slot| slot.slot.saturating_add(1)).max().unwrap_or(1)
    }

    /// The error for a segment that is needed and not there: an unreadable file is the likelier place to look at.
    pub(crate) fn missing(&self, segment: SegmentId, needed_by: &str) -> LogError {
        for slot in &self.slots {
            if let Content::Unreadable(fault) = slot.content {
                let why = format!("{fault}, and segment {segment} is missing");
                return LogError::Corruption { file: slot.name.clone(), offset: 0, why };
            }
        }
        LogError::MissingSegment { segment: segment.0, needed_by: needed_by.to_string() }
    }

    /// The newest log segment that exists, and its predecessors behind `covered`; oldest first.
    pub(crate) fn find_chain(&mut self, covered: &LogEnd, buffer: &mut AlignedBuffer) -> Result<Vec<Link>, LogError> {
        let mut segments: Vec<Link> = self.log_segments().collect();
        segments.sort_by_key(|link| link.header.segment);
        if let Some(twin) = segments.windows(2).find(|pair| pair[0].header.segment == pair[1].header.segment) {
            let why = format!("it has the same segment id as {}", twin[0].name);
            return Err(LogError::Corruption { file: twin[1].name.clone(), offset: 0, why });
        }
        let mut newest = loop {
            let Some(candidate) = segments.pop() else { return Err(self.missing(SegmentId(1), "the log")) };
            if self.exists(&candidate, buffer)? {
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
            let previous = newest.header.previous;
            let needed_by = newest.name.clone();
            chain.push(newest);
            if previous.place.segment == covered.place.segment {
                // Without a checkpoint it is the first segment, and begins where it says.
                if previous != *covered && previous.place.segment != SegmentId(0) {
                    let why = "it follows another end of the log than the checkpoint covers".to_string();
                    return Err(LogError::Corruption { file: needed_by, offset: 0, why });
                }
                chain.reverse();
                return Ok(chain);
            }
            // Sorted, and taken from the end: ids fall, so the walk ends.
            newest = loop {
                match segments.pop() {
                    Some(link) if link.header.segment == previous.place.segment => break link,
                    Some(_) => {}
                    None => return Err(self.missing(previous.place.segment, &needed_by)),
                }
            };
        }
    }

    /// Whether a segment's first group survived. If not it must be a torn rotation, of which nothing was acknowledged.
    fn exists(&mut self, link: &Link, buffer: &mut AlignedBuffer) -> Result<bool, LogError> {
        let refused = self.load(&link.name, buffer)?;
        let image = Image { name: &link.name, header: link.header, bytes: buffer.bytes(), refused: &refused };
        let group = image.group(BLOCK_BYTES).and_then(|group| group.check_payloads().map(|()| group));
        let fault = match group {
            Ok(group) if group.header.seq == link.header.base_seq => return Ok(true),
            Ok(_) => Fault::Bad("the first group has another number than the segment says"),
            Err(fault) => fault,
        };
        let proven = if self.control.newest_segment >= link.header.segment {
            link.header.base_seq
        } else {
            self.control.durable_seq
        };
        let is_proven = image.is_proven(link.header.base_seq, BLOCK_BYTES as u64, proven);
        if is_proven && !fault.is_unknown() {
            // It exists, and is damaged: what that means is for the scan to say.
            self.proven = self.proven.max(link.header.base_seq);
            return Ok(true);
        }
        image.refuse_if_proven(fault, BLOCK_BYTES, link.header.base_seq, proven)?;
        image.refuse_if_refused(BLOCK_BYTES, link.header.base_seq)?;
        Ok(false)
    }

    /// Tells free slots from leftovers. `newest` is the tail. A file without a readable header may still prove that the
    /// log went on behind `last`.
    pub(crate) fn sort_out(
        mut self,
        needed: &BTreeMap<SegmentKey, Link>,
        newest: SegmentId,
        last: Seq,
        buffer: &mut AlignedBuffer,
    ) -> Result<Rest, LogError> {
        let newest_log = self.log_segments().map(|link| link.header.segment).max().unwrap_or_default();
        let mut rest = Rest { free: Vec::new(), leftovers: Vec::new(), unfinished: Vec::new(), torn: None, newest_log };
        for slot in std::mem::take(&mut self.slots) {
            match slot.content {
                Content::Segment(header) if needed.values().any(|link| link.name == slot.name) => {
                    debug_assert!(needed.contains_key(&header.segment.key()), "needed segments are known by key");
                }
                Content::Segment(header) if header.stream == Stream::Log && header.segment >= newest => {
                    rest.leftovers.push((slot.slot, slot.name));
                }
                Content::Segment(_) => rest.free.push((slot.slot, slot.name)),
                // After a clean stop no rotation was under way.
                Content::Unused if self.control.clean_end.is_some() => rest.free.push((slot.slot, slot.name)),
                Content::Unused | Content::Unreadable(_) => self.sort_unreadable(slot, last, buffer, &mut rest)?,
            }
        }
        let names = self.storage.names().map_err(LogError::io("listing the files of the log"))?;
        rest.unfinished.extend(names.into_iter().filter(|name| slot_of(name, ".new").is_some()));
        Ok(rest)
    }

    fn sort_unreadable(
        &mut self,
        slot: SlotFile,
        last: Seq,
        buffer: &mut AlignedBuffer,
        rest: &mut Rest,
    ) -> Result<(), LogError> {
        self.load(&slot.name, buffer)?;
        let bytes = buffer.bytes();
        if is_zero(bytes) {
            rest.free.push((slot.slot, slot.name));
            return Ok(());
        }
        let mut groups = headers(bytes, self.identity.log, 0);
        if let Some((at, header)) = groups.find(|(_, header)| header.durable_seq > last) {
            let why = format!(
                "the segment header is unreadable, but the group at {at} proves that group {} was durable",
                header.durable_seq
            );
            return Err(LogError::Corruption { file: slot.name, offset: 0, why });
        }
        rest.torn = Some(TornTail { file: slot.name.clone(), offset: 0 });
        rest.leftovers.push((slot.slot, slot.name));
        Ok(())
    }
}
