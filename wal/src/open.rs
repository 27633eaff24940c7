//! Creates a log, and opens one: recovery first, then the one write that makes its result final.
//!
//! After anything but a clean stop the log goes on in a fresh segment. Its header pins where the old one ended, its
//! first group repeats the last old group if nothing proved that one durable, and both are durable before anything
//! acts on what was read (laws 14 and 17). The old tail is neither synced nor changed. A crash in the middle leaves
//! either no new segment, and the next open finds what this one found, or one that says the same.
//!
//! One unclean stop leaves no tail at all: nothing was written since the control file noted the last group as durable,
//! and the disk, read past the cache, holds only zeros behind it. An idle log that is killed looks like that. Then
//! nothing has to be pinned out or written again, and the log goes on in the same segment, in blocks that were never
//! written. So starts of an idle log take no space, however many there are.
//!
//! Any other unclean start takes a segment, a ready one first. It may take the log over `max_log_bytes` by
//! [`START_RESERVE_SEGMENTS`] and is refused beyond that, before anything is changed. A log above its maximum answers
//! "full" from the start; what it took serves votes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::{GroupId, Incarnation};

use crate::append::GroupBuffer;
use crate::control::{ControlFile, Note};
use crate::file::Directory;
use crate::format::control::Control;
use crate::format::group::Group;
use crate::format::{BLOCK_BYTES, LogEnd, SegmentId, slot_of};
use crate::prepare::{Preparation, Slot, Stock, Supply, prepare_slot, remove_if_there};
use crate::recover::{Found, Recovered, recover};
use crate::storage::{Access, Storage};
use crate::write::Writer;
use crate::{Log, LogError, LogIdentity, Options};

/// How many segments above `max_log_bytes` unclean starts may take in all.
const START_RESERVE_SEGMENTS: u64 = 2;

impl Log {
    /// A new log in a new directory, with the groups that exist from the start. All of it is durable afterwards.
    /// An interrupted creation leaves a directory that [`Log::open`] refuses.
    pub fn create(
        dir: &Path,
        identity: LogIdentity,
        options: &Options,
        groups: &[(GroupId, Bytes)],
    ) -> Result<(), LogError> {
        options.check()?;
        let place = dir.display().to_string();
        Directory::create(dir).map_err(LogError::io(format!("creating {place}")))?;
        Log::create_in(&lock(dir)?, identity, options, groups)
    }

    /// Opens a log: recovery by laws 14 and 17, and a new incarnation. What is refused is left as it is.
    pub fn open(dir: &Path, identity: LogIdentity, options: &Options) -> Result<(Log, Recovered), LogError> {
        let place = dir.display().to_string();
        if !dir.is_dir() {
            return Err(LogError::NotALog { place });
        }
        Log::open_in(Arc::new(lock(dir)?), identity, options, Preparation::Thread)
    }

    /// [`Log::create`] on any storage.
    pub fn create_in(
        storage: &dyn Storage,
        identity: LogIdentity,
        options: &Options,
        groups: &[(GroupId, Bytes)],
    ) -> Result<(), LogError> {
        options.check()?;
        if !storage.names().map_err(LogError::io("listing the files of the log"))?.is_empty() {
            return Err(LogError::NotEmpty { place: storage.place() });
        }
        let segment_bytes = options.segment_bytes;
        let salt = storage.salt().map_err(LogError::io("drawing a salt"))?;
        let mut writer =
            Writer::new(identity, Incarnation(0), segment_bytes, salt, LogEnd::default(), SegmentId::default());
        let mut slots = 0;
        for mut buffer in creations(groups, options)? {
            let fresh = if buffer.group_len() as u64 > writer.room() {
                slots += 1;
                Some(prepare_now(storage, slots, segment_bytes)?)
            } else {
                None
            };
            let written = writer.write(&mut buffer, 0, fresh);
            let synced = written.and_then(|_| writer.file().map_or(Ok(()), |file| file.sync()));
            synced.map_err(LogError::io("writing the first records"))?;
        }
        let end = writer.end();
        let control = Control {
            identity,
            generation: 1,
            incarnation: Incarnation(0),
            durable_seq: end.seq,
            newest_segment: end.place.segment,
            segment_bytes,
            clean_end: Some(end),
        };
        ControlFile::create(storage, control).map_err(LogError::io("creating ctl"))
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
        let incarnation = Incarnation(before.incarnation.0.saturating_add(1));
        let salt = storage.salt().map_err(LogError::io("drawing a salt"))?;
        let mut writer = Writer::new(identity, incarnation, segment_bytes, salt, found.end, found.newest_seen);
        let mut mappings = Vec::new();
        for link in &found.chain {
            let file = storage.open(&link.name, Access::Read);
            mappings.push(file.and_then(|file| file.map()).map_err(LogError::io(format!("mapping {}", link.name)))?);
        }
        let segments = found.chain.len();
        let rewritten = found.kept.is_some();
        let mut slots = segments as u64;
        let resumed = before.clean_end.is_some() || found.has_no_tail(&before);
        match found.chain.last().filter(|_| resumed) {
            Some(tail) => {
                let file = storage.open(&tail.name, Access::Write);
                writer.resume(file.map_err(LogError::io(format!("opening {}", tail.name)))?, &tail.header);
            }
            None => {
                slots += 1;
                check_reserve(&found, slots, segment_bytes, options)?;
                mappings.push(go_on_in_fresh_segment(storage.as_ref(), &mut writer, &mut found, segment_bytes)?);
            }
        }
        let durable = Note { durable_seq: writer.end().seq, newest_segment: writer.end().place.segment };
        control.begin(incarnation, durable).map_err(LogError::io("beginning an incarnation in ctl"))?;
        remove(storage.as_ref(), &found.rest.leftovers)?;

        let mut ready = std::collections::VecDeque::new();
        for (slot, name) in &found.rest.unused {
            let file = storage.open(name, Access::Write).map_err(LogError::io(format!("opening {name}")))?;
            ready.push_back(Slot { slot: *slot, file });
        }
        slots += ready.len() as u64;
        let stock = Stock {
            ready,
            next_slot: found.next_slot,
            slots,
            slots_max: options.segments_max(segment_bytes),
            wanted: options.ready_segments,
            segment_bytes,
        };
        let supply = Supply::start(storage.clone(), control, stock, preparation)
            .map_err(LogError::io("starting the thread that prepares segments"))?;
        let recovered = Recovered {
            groups: found.replay.resolve(&mappings),
            torn_tail: found.torn.or(found.rest.torn),
            clean: before.clean_end.is_some(),
            segments,
            resumed,
            rewritten,
            read_past_cache,
        };
        Ok((Log::ready(storage, supply, writer, segment_bytes, incarnation, options), recovered))
    }
}

fn lock(dir: &Path) -> Result<Directory, LogError> {
    let place = dir.display().to_string();
    Directory::lock(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => LogError::InUse { place },
        _ => LogError::io(format!("locking {place}"))(error),
    })
}

/// The groups of records that a new log starts with: at least one, so that it has a segment.
fn creations(groups: &[(GroupId, Bytes)], options: &Options) -> Result<Vec<GroupBuffer>, LogError> {
    let limit_bytes = options.segment_bytes - BLOCK_BYTES as u64;
    let close_at = limit_bytes.min(options.group_bytes_max as u64);
    let mut buffers = vec![GroupBuffer::new()];
    for (group, descriptor) in groups {
        let alone = GroupBuffer::new().group_len_with_create(descriptor) as u64;
        if alone > limit_bytes {
            return Err(LogError::WriteTooLarge { bytes: alone, limit_bytes });
        }
        if let Some(open) = buffers.last_mut()
            && open.group_len_with_create(descriptor) as u64 <= close_at
        {
            open.put_create(*group, descriptor);
            continue;
        }
        let mut next = GroupBuffer::new();
        next.put_create(*group, descriptor);
        buffers.push(next);
    }
    Ok(buffers)
}

/// Refuses a start that would take a new file and more than the reserve. `slots` counts the segment it asks for. What
/// interrupted starts left behind counts too: it may hold the only copy of the last group, so it goes only after that
/// is durable in the new segment.
fn check_reserve(found: &Found, slots: u64, segment_bytes: u64, options: &Options) -> Result<(), LogError> {
    let left_behind = found.rest.leftovers.iter().filter(|name| slot_of(name, ".seg").is_some()).count();
    let slots = slots + left_behind as u64;
    if !found.rest.unused.is_empty() || slots <= options.segments_max(segment_bytes) + START_RESERVE_SEGMENTS {
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

/// Starts a segment behind the recovered end, with the kept group or an empty one, and makes both durable. Uses a
/// slot that is ready, so that a full disk does not prevent a start.
fn go_on_in_fresh_segment(
    storage: &dyn Storage,
    writer: &mut Writer,
    found: &mut Found,
    segment_bytes: u64,
) -> Result<Bytes, LogError> {
    let slot = match found.rest.unused.pop() {
        Some((slot, name)) => {
            let file = storage.open(&name, Access::Write).map_err(LogError::io(format!("opening {name}")))?;
            Slot { slot, file }
        }
        None => {
            let slot = found.next_slot;
            found.next_slot += 1;
            prepare_now(storage, slot, segment_bytes)?
        }
    };
    let file = slot.file.clone();
    let mut buffer = found.kept.take().unwrap_or_else(GroupBuffer::new);
    let done = writer.write(&mut buffer, 0, Some(slot)).and_then(|_| file.sync()).and_then(|()| file.map());
    let mapping = done.map_err(LogError::io("starting a segment after the recovered end"))?;
    let (log, position) = (writer.identity().log, found.chain.len() as u32);
    let unreadable = |why: String| LogError::Corruption { file: storage.place(), offset: BLOCK_BYTES as u64, why };
    let group = Group::check(&mapping, log, BLOCK_BYTES).map_err(|fault| unreadable(fault.to_string()))?;
    found.replay.apply(&group, position).map_err(unreadable)?;
    Ok(mapping)
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
