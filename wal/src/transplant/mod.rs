//! New logs made of the groups of logs that nobody has open.
//!
//! Whoever has to change what several logs hold, with the processes that own them stopped, reads them as [`LogAtRest`]
//! and has [`transplant`] write a new one: some groups as they are, some taken from another log and begun anew under
//! another replica ([`Reborn`]). The logs that were read are neither locked nor changed, so going back is to use them
//! again. The new log is written by the writer of all logs, closed cleanly, and opens like any other.
//!
//! What is copied keeps its identity, and its checksum: a payload that is rotten stays rotten, and known by its name.
//!
//! A group that is begun anew keeps the identities of its entries. Those that named its members before are emptied: the
//! members that they name do not exist in the life that begins, and nobody shall hear of them.
//!
//! Left out: which groups, and why. That is the caller's to decide, and so is that nobody writes to the logs meanwhile.

mod at_rest;

use std::collections::BTreeMap;
use std::path::Path;

use pontoon_types::{Creation, Entry, EntryKind, GroupId, HardState, Incarnation, LogId, ReplicaId};

pub use at_rest::LogAtRest;

use crate::format::SegmentId;
use crate::open::new_directory;
use crate::repair::rebuild::{Building, Source};
use crate::storage::Storage;
use crate::write::{Origin, SegmentIds};
use crate::{LogError, LogIdentity, Options};

/// Whose the new log is, and how it begins.
#[derive(Clone, Debug)]
pub struct NewLog {
    /// Whose it is.
    pub identity: LogIdentity,
    /// The size of its segments: that of the largest of the logs it is made of, so that every entry fits.
    pub segment_bytes: u64,
    /// Each time it is opened it has a higher incarnation than this.
    pub above: Incarnation,
    /// The highest dead replica of each group that has one.
    pub tombstones: BTreeMap<GroupId, ReplicaId>,
}

/// One group of the new log.
#[derive(Clone, Debug)]
pub struct Transplant<'a> {
    /// The log that it comes from.
    pub from: &'a LogAtRest,
    /// The group.
    pub group: GroupId,
    /// What is different in the new log. None copies the group as it is.
    pub reborn: Option<Reborn>,
}

/// A group under another replica.
#[derive(Clone, Debug)]
pub struct Reborn {
    /// The replica, above every dead one, and what its owner wants to find again.
    pub creation: Creation,
    /// Its term and vote; not below the term of any entry.
    pub hard_state: HardState,
    /// The log begins behind this entry, and none is copied. None copies what is there.
    pub reset: Option<LogId>,
    /// Entries behind those that are copied.
    pub behind: Vec<Entry>,
}

/// Writes a new log into a new directory. All of it is durable afterwards; before, it is no log.
pub fn transplant(dir: &Path, new: &NewLog, groups: &[Transplant<'_>]) -> Result<(), LogError> {
    let options = Options { segment_bytes: new.segment_bytes, ..Options::default() };
    options.check()?;
    transplant_into(&new_directory(dir, &options)?, new, groups)
}

/// [`transplant`] on any storage, which must be empty.
pub fn transplant_into(target: &dyn Storage, new: &NewLog, groups: &[Transplant<'_>]) -> Result<(), LogError> {
    if !target.names().map_err(LogError::io("listing the files of the new log"))?.is_empty() {
        return Err(LogError::NotEmpty { place: target.place() });
    }
    let origin = Origin {
        identity: new.identity,
        incarnation: new.above,
        segment_bytes: new.segment_bytes,
        salt_seed: target.salt().map_err(LogError::io("drawing a salt"))?,
        ids: SegmentIds::above(SegmentId::default()),
    };
    let mut building = Building::begin(target, origin);
    for (group, dead) in &new.tombstones {
        building.bury(*group, *dead)?;
    }
    for part in groups {
        put(&mut building, part)?;
    }
    building.finish(new.above)
}

fn put(building: &mut Building<'_>, part: &Transplant<'_>) -> Result<(), LogError> {
    let group = part.group;
    let kept = part.from.kept(group)?;
    let (creation, hard_state) = match &part.reborn {
        Some(reborn) => (reborn.creation.clone(), reborn.hard_state),
        None => (Creation { replica: kept.replica, descriptor: kept.descriptor.clone() }, kept.hard_state),
    };
    let reset = part.reborn.as_ref().and_then(|reborn| reborn.reset);
    building.begin_group(group, &creation, hard_state, reset.unwrap_or(kept.compacted))?;
    if part.reborn.is_none() && kept.must_not_vote() {
        building.silence(group)?;
    }
    for run in kept.runs.as_slice().iter().filter(|_| reset.is_none()) {
        let source = part.from.source(run)?;
        let names_old_members = part.reborn.is_some() && source.kind == EntryKind::Configuration;
        let source = if names_old_members { source.emptied() } else { source };
        building.copy(group, run.first, &source)?;
    }
    if part.reborn.is_none() {
        building.committed(group, kept.committed)?;
    }
    for entry in part.reborn.iter().flat_map(|reborn| &reborn.behind) {
        building.copy(group, entry.id.index, &Source::of(entry))?;
    }
    Ok(())
}
