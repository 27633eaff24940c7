//! Creates a log, and opens one: recovery first, then the one write that makes its result final.
//!
//! After anything but a clean stop the log goes on in a fresh segment. Its header pins where the old one ended, its
//! first group repeats the last old group if nothing proved that one durable, and both are durable before anything
//! acts on what was read (laws 14 and 17). The old tail is neither synced nor changed. A crash in the middle leaves
//! either no new segment, and the next open finds what this one found, or one that says the same.
//!
//! One unclean stop leaves no tail at all: nothing was written since the control file noted the last group as durable,
//! and the disk, read past the cache, holds only zeros behind it. An idle log that is killed looks like that, if the file
//! of its newest segment is in its first use. Then nothing has to be pinned out or written again, and the log goes on in
//! the same segment, in blocks that were never written. So starts of such a log take no space, however many there are.
//!
//! In a file that is used again old bytes lie behind the end, and payload blocks of a torn write without their header
//! look just the same. Rather than to tell them apart, such a start takes a segment like any other.
//!
//! Any other unclean start takes a segment, a free one first. It may take the log over `max_log_bytes` by
//! [`START_RESERVE_SEGMENTS`] and is refused beyond that, before anything is changed. A log above its maximum answers
//! "full" from the start; what it took serves votes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pontoon_types::{Creation, GroupId, Incarnation, LogMark};

use crate::append::{GroupBuffer, Room, segment_room};
use crate::cold::Warming;
use crate::control::{ControlFile, Note};
use crate::file::Directory;
use crate::format::control::{CheckpointRef, Control};
use crate::format::group::{Group, GroupHeader};
use crate::format::record::Record;
use crate::format::segment_header::Stream;
use crate::format::{BLOCK_BYTES, LogEnd, SegmentId, SegmentKey, slot_name};
use crate::keeper::thread::Keeping;
use crate::keeper::{Kept, Known, Start, footer_place};
use crate::log::Parts;
use crate::prepare::{
    FirstStock, KEEPER_EXTRA_SLOTS, Preparation, Slot, Supply, open_slot, prepare_slot, remove_if_there,
};
use crate::recover::{Found, FoundCheckpoint, Link, Recovered, RecoveredGroup, fact_of, recover};
use crate::segments::{Segment, Segments};
use crate::state::{GroupPlace, LogState, Place};
use crate::storage::{Access, Storage};
use crate::unreadable::Mended;
use crate::write::{OpenSegment, Origin, SegmentIds, Writer};
use crate::{Log, LogError, LogIdentity, Options};

/// How many segments above `max_log_bytes` unclean starts may find and take in all: what making the log smaller may have
/// taken when it crashed, and two more starts that crash before they get that far.
const START_RESERVE_SEGMENTS: u64 = KEEPER_EXTRA_SLOTS + 2;

impl Log {
    /// A new log in a new directory, with the groups that exist from the start. All of it is durable afterwards.
    /// An interrupted creation leaves a directory that [`Log::open`] refuses.
    pub fn create(
        dir: &Path,
        identity: LogIdentity,
        options: &Options,
        groups: &[(GroupId, Creation)],
    ) -> Result<(), LogError> {
        options.check()?;
        create_first(&new_directory(dir, options)?, identity, options, groups, Incarnation(0))
    }

    /// [`Log::create`] without groups, for a log that takes over from others: each time it is opened it has a higher
    /// incarnation than `above`.
    pub fn create_above(
        dir: &Path,
        identity: LogIdentity,
        options: &Options,
        above: Incarnation,
    ) -> Result<(), LogError> {
        options.check()?;
        create_first(&new_directory(dir, options)?, identity, options, &[], above)
    }

    /// Opens a log: recovery by laws 14 and 17, and a new incarnation. What is refused is left as it is.
    pub fn open(dir: &Path, identity: LogIdentity, options: &Options) -> Result<(Log, Recovered), LogError> {
        let place = dir.display().to_string();
        if !dir.is_dir() {
            return Err(LogError::NotALog { place });
        }
        Log::open_in(Arc::new(lock(dir, options)?), identity, options, Preparation::Thread)
    }

    /// [`Log::create`] on any storage.
    pub fn create_in(
        storage: &dyn Storage,
        identity: LogIdentity,
        options: &Options,
        groups: &[(GroupId, Creation)],
    ) -> Result<(), LogError> {
        options.check()?;
        create_first(storage, identity, options, groups, Incarnation(0))
    }

    /// [`Log::open`] on any storage.
    pub fn open_in(
        storage: Arc<dyn Storage>,
        identity: LogIdentity,
        options: &Options,
        preparation: Preparation,
    ) -> Result<(Log, Recovered), LogError> {
        options.check()?;
        let mut control = ControlFile::open(storage.as_ref(), identity)?;
        let before = control.current();
        let mut found = recover(storage.as_ref(), identity, before)?;
        let read_past_cache = found.read_past_cache && control.read_past_cache();
        let segment_bytes = before.segment_bytes;
        let origin = Origin {
            identity,
            incarnation: Incarnation(before.incarnation.0.saturating_add(1)),
            segment_bytes,
            salt_seed: storage.salt().map_err(LogError::io("drawing a salt"))?,
            ids: SegmentIds::above(found.newest_seen),
        };
        let mut writer = Writer::new(origin.clone(), Stream::Log, found.end);
        let rewritten = found.kept.is_some();
        let mark = LogMark(found.end.seq.0 + u64::from(rewritten));
        let was_read = found.chain.len();
        let mut slots = take_slots(storage.as_ref(), &found)?;
        let mut descriptors = read_descriptors(&found.state, &slots, identity.log)?;
        let mut fresh = None;
        let resumed = before.clean_end.is_some() && !found.has_refused || found.has_no_tail(&before);
        match found.chain.last().filter(|_| resumed) {
            Some(tail) => {
                let (segment, salt) = (tail.header.segment, tail.header.salt);
                let slot = open_file(storage.as_ref(), tail.header.slot, &tail.name, Access::Write)?;
                slots.insert(segment.key(), slot.clone());
                writer.resume(OpenSegment { slot, segment, salt, footer_parts: found.footer_parts });
            }
            None => {
                check_reserve(&found, segment_bytes, options)?;
                let slot = free_slot(storage.as_ref(), &mut found, segment_bytes)?;
                fresh = Some(slot.clone());
                go_on_in_fresh_segment(slot, &mut writer, &mut found)?;
            }
        }
        let durable = Note { durable_seq: writer.end().seq, newest_segment: writer.end().place.segment };
        if found.checkpoint_unreadable.is_some() {
            let readable = |found: &Option<FoundCheckpoint>| found.as_ref().map(|found| found.reference);
            control.replace_checkpoints(found.checkpoints.each_ref().map(readable));
        }
        control.begin(origin.incarnation, durable).map_err(LogError::io("beginning an incarnation in ctl"))?;
        remove(storage.as_ref(), &found.rest.unfinished)?;

        let control = Arc::new(Mutex::new(control));
        let stock = first_stock(storage.as_ref(), &found, fresh.is_some(), segment_bytes, options)?;
        let written = writer.open().map(|open| open.segment.key());
        slots.extend(written.zip(fresh));
        let segments = segments_of(&found, &slots, &writer, identity);
        let supply = Supply::start(storage.clone(), control.clone(), stock, preparation)
            .map_err(LogError::io("starting the thread that prepares segments"))?;
        if rewritten {
            // What was written again may have created groups and removed some.
            descriptors = read_descriptors(&found.state, &slots, identity.log)?;
        }
        let start = Start {
            origin,
            pool: supply.pool().clone(),
            control: control.clone(),
            kept: kept_of(&found, &slots, written),
            uncovered: uncovered_of(&found, resumed),
            checkpoints: found.checkpoints.each_ref().map(|found| found.as_ref().map(known)),
            checkpoint_segments: options.checkpoint_segments,
        };
        let (keeping, report) = Keeping::start(start, preparation).map_err(LogError::io("starting the keeper"))?;
        let warming = Warming::new(preparation);
        let (state, echo) = (found.state, found.echo);
        let parts = Parts { storage, control, supply, keeping, writer, state, segments, warming, echo, mark };
        let mut log = Log::ready(parts, options);
        let groups = log.recovered(descriptors)?;
        log.take_over(report);
        // The keeper takes slots and orders none.
        log.supply.refill();
        let recovered = Recovered {
            groups,
            tombstones: log.state.tombstones().clone(),
            torn_tail: found.torn.or(found.rest.torn),
            clean: before.clean_end.is_some(),
            segments: was_read,
            footers: found.footers,
            checkpoint_unreadable: found.checkpoint_unreadable,
            resumed,
            rewritten,
            read_past_cache,
        };
        Ok((log, recovered))
    }

    fn recovered(
        &mut self,
        descriptors: BTreeMap<GroupId, Bytes>,
    ) -> Result<BTreeMap<GroupId, RecoveredGroup>, LogError> {
        let mut groups = BTreeMap::new();
        for (group, descriptor) in descriptors {
            let last = self.last_id(group).map_err(|why| LogError::Unreadable { why: why.to_string() })?;
            let Some(of) = self.state.group(group) else { continue };
            let (replica, hard_state, compacted) = (of.replica, of.hard_state, of.compacted);
            let (vote_lost, committed) = (of.vote_lost, of.committed.max(compacted.index));
            let of = RecoveredGroup { replica, descriptor, hard_state, compacted, committed, last, vote_lost };
            groups.insert(group, of);
        }
        Ok(groups)
    }
}

pub(crate) fn new_directory(dir: &Path, options: &Options) -> Result<Directory, LogError> {
    Directory::create(dir).map_err(LogError::io(format!("creating {}", dir.display())))?;
    lock(dir, options)
}

pub(crate) fn lock(dir: &Path, options: &Options) -> Result<Directory, LogError> {
    let place = dir.display().to_string();
    Directory::lock(dir, options.append_path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => LogError::InUse { place },
        _ => LogError::io(format!("locking {place}"))(error),
    })
}

/// The first records of a log in an empty directory, and its control file behind them.
fn create_first(
    storage: &dyn Storage,
    identity: LogIdentity,
    options: &Options,
    groups: &[(GroupId, Creation)],
    incarnation: Incarnation,
) -> Result<(), LogError> {
    if !storage.names().map_err(LogError::io("listing the files of the log"))?.is_empty() {
        return Err(LogError::NotEmpty { place: storage.place() });
    }
    let segment_bytes = options.segment_bytes;
    let origin = Origin {
        identity,
        incarnation,
        segment_bytes,
        salt_seed: storage.salt().map_err(LogError::io("drawing a salt"))?,
        ids: SegmentIds::above(SegmentId::default()),
    };
    let mut writer = Writer::new(origin, Stream::Log, LogEnd::default());
    let mut slots = 0;
    for mut buffer in creations(groups, options)? {
        if !writer.fits(buffer.room()) {
            slots += 1;
            let slot = prepare_now(storage, slots, segment_bytes)?;
            writer.start_segment(slot).map_err(LogError::io("starting a segment"))?;
        }
        let written = writer.write(&mut buffer, 0);
        let synced = written.and_then(|_| writer.file().map_or(Ok(()), |file| file.sync()));
        synced.map_err(LogError::io("writing the first records"))?;
    }
    let end = writer.end();
    let control = Control {
        identity,
        generation: 1,
        incarnation,
        durable_seq: end.seq,
        newest_segment: end.place.segment,
        segment_bytes,
        clean_end: Some(end),
        checkpoints: [None, None],
    };
    ControlFile::create(storage, control).map_err(LogError::io("creating ctl"))
}

/// The groups of records that a new log starts with: at least one, so that it has a segment.
fn creations(groups: &[(GroupId, Creation)], options: &Options) -> Result<Vec<GroupBuffer>, LogError> {
    let limit_bytes = segment_room(options.segment_bytes);
    let mut buffers = vec![GroupBuffer::new()];
    for (group, creation) in groups {
        let room = Room::of_record(&creation.descriptor);
        if room.in_segment() > limit_bytes {
            let (bytes, limit_bytes) = (room.in_segment() as u64, limit_bytes as u64);
            return Err(LogError::WriteTooLarge { bytes, limit_bytes });
        }
        if let Some(open) = buffers.last_mut() {
            let both = open.room().plus(room);
            if both.in_segment() <= limit_bytes && both.group_len() <= options.group_bytes_max {
                open.put_create(*group, creation);
                continue;
            }
        }
        let mut next = GroupBuffer::new();
        next.put_create(*group, creation);
        buffers.push(next);
    }
    Ok(buffers)
}

/// Refuses a start that would take a new file and more than the reserve. What interrupted starts left behind counts
/// too: it may hold the only copy of the last group, so it is free only after that is durable in the new segment.
fn check_reserve(found: &Found, segment_bytes: u64, options: &Options) -> Result<(), LogError> {
    let slots = (found.needed.len() + found.rest.leftovers.len() + 1) as u64;
    if !found.rest.free.is_empty() || slots <= options.segments_max(segment_bytes) + START_RESERVE_SEGMENTS {
        return Ok(());
    }
    let why = format!(
        "the log was not stopped cleanly and needs one more segment to start, {} bytes in all, which is more than \
         {START_RESERVE_SEGMENTS} segments above it; nothing was changed, raise it to at least that and start again",
        slots * segment_bytes
    );
    Err(LogError::Option { name: "max_log_bytes", value: options.max_log_bytes, why })
}

fn prepare_now(storage: &dyn Storage, slot: u32, segment_bytes: u64) -> Result<Slot, LogError> {
    let made =
        prepare_slot(storage, slot, segment_bytes, &mut |_| true).map_err(LogError::io("preparing a segment"))?;
    Ok(made.expect("preparing a segment stops early only when asked to"))
}

fn open_file(storage: &dyn Storage, slot: u32, name: &str, access: Access) -> Result<Slot, LogError> {
    open_slot(storage, slot, name, access).map_err(LogError::io(format!("opening {name}")))
}

/// The files of all segments that are needed, for reading.
fn take_slots(storage: &dyn Storage, found: &Found) -> Result<BTreeMap<SegmentKey, Slot>, LogError> {
    let slot = |link: &Link| open_file(storage, link.header.slot, &link.name, Access::Read);
    found.needed.iter().map(|(key, link)| Ok((*key, slot(link)?))).collect()
}

/// A slot for the segment that the log goes on in: one that is free, so that a full disk does not prevent a start.
fn free_slot(storage: &dyn Storage, found: &mut Found, segment_bytes: u64) -> Result<Slot, LogError> {
    match found.rest.free.pop() {
        Some((slot, name)) => open_file(storage, slot, &name, Access::Write),
        None => {
            let slot = found.next_slot;
            found.next_slot += 1;
            prepare_now(storage, slot, segment_bytes)
        }
    }
}

/// Starts a segment behind the recovered end, with the kept group or an empty one, and makes both durable. That group is
/// the one which the next repeats.
fn go_on_in_fresh_segment(slot: Slot, writer: &mut Writer, found: &mut Found) -> Result<(), LogError> {
    let file = slot.file.clone();
    let mut buffer = found.kept.take().unwrap_or_else(GroupBuffer::new);
    let started = writer.start_segment(slot);
    let place: GroupPlace = writer.next_place(buffer.room().directory);
    let written = started.and_then(|_| writer.write(&mut buffer, 0)).and_then(|_| file.sync());
    written.map_err(LogError::io("starting a segment after the recovered end"))?;
    buffer.swap_echo(&mut found.echo);
    found.state.apply(buffer.directory(), place).map_err(|why| LogError::Corruption {
        file: crate::format::slot_name(0),
        offset: BLOCK_BYTES as u64,
        why,
    })
}

/// What the log reads from: the segments with entries, and the one that is written to.
fn segments_of(found: &Found, slots: &BTreeMap<SegmentKey, Slot>, writer: &Writer, identity: LogIdentity) -> Segments {
    let mut segments = Segments::new(identity.log);
    let written = writer.open().map(|open| open.segment.key());
    for (key, kept) in kept_of(found, slots, written) {
        let segment = kept.fact.segment;
        match kept.fact.stream {
            Stream::Log => {
                segments.insert(Segment::closed(segment, kept.slot, footer_place(&kept.fact, identity.log)));
            }
            Stream::Cold => segments.insert(Segment::new(segment, kept.slot)),
            Stream::Checkpoint => debug_assert!(slots.contains_key(&key), "kept segments have a slot"),
        }
    }
    if let Some(open) = writer.open() {
        segments.insert(Segment::new(open.segment, open.slot.clone()));
    }
    segments
}

/// What the keeper looks after: every needed segment that is not written to.
fn kept_of(
    found: &Found,
    slots: &BTreeMap<SegmentKey, Slot>,
    written: Option<SegmentKey>,
) -> BTreeMap<SegmentKey, Kept> {
    let mut ends: BTreeMap<SegmentId, u64> = BTreeMap::new();
    let facts = found.checkpoints.iter().rev().flatten().flat_map(|found| &found.facts);
    ends.extend(facts.map(|fact| (fact.segment, fact.end_offset)));
    for end in found.needed.values().map(|link| link.header.previous).chain(found.ends.iter().copied()) {
        ends.insert(end.place.segment, end.place.offset);
    }
    ends.insert(found.end.place.segment, found.end.place.offset);
    let kept = |(key, slot): (&SegmentKey, &Slot)| {
        let header = &found.needed.get(key)?.header;
        let end_offset = ends.get(&header.segment).copied().unwrap_or(BLOCK_BYTES as u64);
        Some((*key, Kept { fact: fact_of(header, end_offset), slot: slot.clone(), has_footer: false }))
    };
    slots.iter().filter(|(key, _)| Some(**key) != written).filter_map(kept).collect()
}

/// The closed log segments that no checkpoint covers.
fn uncovered_of(found: &Found, resumed: bool) -> Vec<(SegmentKey, LogEnd)> {
    let closed = if resumed { found.chain.len() - 1 } else { found.chain.len() };
    let ends = found.ends.iter().copied().chain([found.end]);
    found.chain[..closed].iter().zip(ends).map(|(link, end)| (link.header.segment.key(), end)).collect()
}

fn known(found: &FoundCheckpoint) -> Known {
    let CheckpointRef { start, end } = found.reference;
    let bytes = if start.place.segment == end.place.segment { start.place.offset } else { 0 };
    Known {
        reference: found.reference,
        covered: found.covered,
        needs: found.facts.iter().map(|fact| fact.segment.key()).collect(),
        files: found.files.clone(),
        bytes: end.place.offset - bytes,
    }
}

/// What is free: what recovery found free, and what it left behind, which is durable elsewhere by now.
fn first_stock(
    storage: &dyn Storage,
    found: &Found,
    took_one: bool,
    segment_bytes: u64,
    options: &Options,
) -> Result<FirstStock, LogError> {
    let mut ready = VecDeque::new();
    for (slot, name) in found.rest.free.iter().chain(&found.rest.leftovers) {
        ready.push_back(open_file(storage, *slot, name, Access::Write)?);
    }
    Ok(FirstStock {
        slots: (found.needed.len() + ready.len() + usize::from(took_one)) as u64,
        ready,
        next_slot: found.next_slot,
        slots_max: options.segments_max(segment_bytes),
        wanted: options.ready_segments,
        segment_bytes,
    })
}

/// The descriptors of all groups, copied, because they may lie in a checkpoint that is given up soon.
fn read_descriptors(
    state: &LogState,
    slots: &BTreeMap<SegmentKey, Slot>,
    log: u128,
) -> Result<BTreeMap<GroupId, Bytes>, LogError> {
    let mut mappings: BTreeMap<SegmentKey, Mended> = BTreeMap::new();
    let mut intact_groups = BTreeSet::new();
    let mut read = |group: GroupId, place: Place| {
        let gone = || LogError::Unreadable { why: format!("the descriptor of {group} is not where it should be") };
        let slot = slots.get(&place.segment).ok_or_else(gone)?;
        let mended = match mappings.entry(place.segment) {
            Entry::Occupied(mapped) => mapped.into_mut(),
            Entry::Vacant(vacant) => {
                vacant.insert(Mended::new(slot.file.clone()).map_err(LogError::io("mapping a segment"))?)
            }
        };
        let (start, length) = (place.offset as usize, place.length as usize);
        let bytes = mended.touch_group(log, start).map_err(LogError::io("reading a segment"))?;
        if !is_intact(&bytes, log, place, &mut intact_groups) {
            let why = format!("the descriptor of {group} is not what was written");
            return Err(LogError::Corruption { file: slot_name(slot.slot), offset: start as u64, why });
        }
        bytes.get(start..start + length).map(Bytes::copy_from_slice).ok_or_else(gone)
    };
    let ids = state.ids();
    ids.into_iter()
        .filter_map(|group| Some((group, state.group(group)?.descriptor)))
        .map(|(group, place)| Ok((group, read(group, place)?)))
        .collect()
}

/// Whether the record that holds a descriptor has its checksum. `intact_groups` remembers the groups of records that
/// were found intact as a whole: a checkpoint holds thousands of descriptors in each.
pub(crate) fn is_intact(
    bytes: &[u8],
    log: u128,
    place: Place,
    intact_groups: &mut BTreeSet<(SegmentKey, usize)>,
) -> bool {
    let (start, end) = (place.offset as usize, place.offset as usize + place.length as usize);
    let blocks = (1..=start / BLOCK_BYTES).rev().map(|block| block * BLOCK_BYTES);
    let header_at = |at: usize| Some((at, GroupHeader::decode(bytes.get(at..)?, log, at as u64).ok()?));
    let Some((at, _)) = blocks.into_iter().find_map(header_at) else { return false };
    if intact_groups.contains(&(place.segment, at)) {
        return true;
    }
    let Ok(group) = Group::identify(bytes, log, at) else { return false };
    if group.check_payloads().is_ok() {
        intact_groups.insert((place.segment, at));
        return true;
    }
    let holds = |record: &Record| {
        let from = group.payloads_at() + record.offset;
        from <= start && end <= from + record.length
    };
    let record = group.runs().flat_map(|run| run.records()).find(holds);
    record.is_some_and(|record| {
        let payload = &group.payloads[record.offset..record.offset + record.length];
        crc32fast::hash(payload) == record.crc
    })
}

fn remove(storage: &dyn Storage, names: &[String]) -> Result<(), LogError> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        remove_if_there(storage, name).map_err(LogError::io(format!("removing {name}")))?;
    }
    storage.sync_names().map_err(LogError::io("syncing the directory of the log"))
}
