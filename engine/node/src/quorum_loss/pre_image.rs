//! From what a directory was to what it becomes, and back, so that a crash at any point leaves a way back.
//!
//! Everything new is made beside what is there ([`super::make`]); then it is put in its place by renames and one write of the
//! node file, and what was there goes into the pre-image. The record in the pre-image says "making" until all of that is
//! durable, so nothing starts in between. An undo moves back whatever it finds in the pre-image, so it does the right thing
//! however far the recovery, or an earlier undo, had come.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::record::{Phase, Record, RecoveredRecord, recovery_dir, replace_file, sync_parent};
use crate::error::DataDirError;
use crate::identity::{DataDir, Identity, log_dir, sync_dir};
use crate::store::folder::Folder;

/// Begins a pre-image: nothing of the node is changed yet. `text` is the plan for people.
pub(super) fn begin(dir: &Path, record: &Record, text: &str) -> Result<(), DataDirError> {
    sweep(dir)?;
    let kept = recovery_dir(dir);
    if kept.exists() {
        // Without a record nothing was done.
        remove_dir(&kept)?;
    }
    std::fs::create_dir(&kept).map_err(|source| DataDirError::io(&kept, "create", source))?;
    let node = dir.join("node");
    let bytes = std::fs::read(&node).map_err(|source| DataDirError::io(&node, "read", source))?;
    replace_file(&kept.join("node"), &bytes)?;
    replace_file(&kept.join("plan"), text.as_bytes())?;
    record.write(dir)?;
    sync_dir(dir)
}

/// Puts what was made in its place. A crash in the middle leaves a directory that can be undone.
pub(super) fn commit(
    dir: &Path,
    data_dir: &mut DataDir,
    folder: &Folder,
    identity: Identity,
    mut record: Record,
) -> Result<(), DataDirError> {
    record.incarnation = identity.incarnation.0;
    record.write(dir)?;
    for of in &record.groups {
        let Places { now, before, new } = Places::of(dir, folder, of);
        if of.had_checkpoint {
            put(&now, &before)?;
        }
        if of.has_checkpoint {
            put(&new, &now)?;
        }
    }
    for name in &record.lives {
        put(&dir.join(name), &recovery_dir(dir).join(name))?;
    }
    let old_logs = data_dir.identity().logs.clone();
    data_dir.replace(identity)?;
    for log in old_logs {
        put(&log_dir(dir, log), &log_dir(&recovery_dir(dir), log))?;
    }
    record.phase = Phase::Applied;
    record.write(dir)
}

/// Brings back what was, to the byte. The directory is taken.
pub(super) fn undo(dir: &Path, data_dir: &DataDir, folder: &Folder, mut record: Record) -> Result<(), DataDirError> {
    record.phase = Phase::Making;
    record.write(dir)?;
    let kept = recovery_dir(dir);
    let (before, now) = (DataDir::look(&kept)?, data_dir.identity());
    let made_since: BTreeSet<u128> = now.logs.iter().chain(&now.retired).chain(&record.new_logs()).copied().collect();
    for of in &record.groups {
        let Places { now, before, .. } = Places::of(dir, folder, of);
        match (before.exists(), of.had_checkpoint) {
            (true, _) => put(&before, &now)?,
            // It had not been moved.
            (false, true) => {}
            (false, false) => remove_file(&now)?,
        }
    }
    if record.left_alone == 0 {
        for name in lives(dir)?.into_iter().filter(|name| !record.lives.contains(name)) {
            remove_file(&dir.join(name))?;
        }
        for name in &record.lives {
            if kept.join(name).exists() {
                put(&kept.join(name), &dir.join(name))?;
            }
        }
    }
    for log in &before.logs {
        if log_dir(&kept, *log).exists() {
            put(&log_dir(&kept, *log), &log_dir(dir, *log))?;
        }
    }
    let node = kept.join("node");
    let bytes = std::fs::read(&node).map_err(|source| DataDirError::io(&node, "read", source))?;
    replace_file(&dir.join("node"), &bytes)?;
    for log in made_since.iter().filter(|log| !before.logs.contains(log) && !before.retired.contains(log)) {
        remove_dir(&log_dir(dir, *log))?;
    }
    end(dir, "recovery.undone")
}

/// Lets go of what was.
pub(super) fn confirm(dir: &Path) -> Result<(), DataDirError> {
    end(dir, "recovery.confirmed")
}

/// The files in which the cores of a node keep what they know of their peers' lives.
pub(super) fn lives(dir: &Path) -> Result<Vec<String>, DataDirError> {
    let entries = std::fs::read_dir(dir).map_err(|source| DataDirError::io(dir, "list", source))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|source| DataDirError::io(dir, "list", source))?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with("lives-c")).map(str::to_string));
    }
    names.sort();
    Ok(names)
}

/// Where the checkpoint of a group is, was, and is made.
struct Places {
    now: PathBuf,
    before: PathBuf,
    new: PathBuf,
}

impl Places {
    fn of(dir: &Path, folder: &Folder, of: &RecoveredRecord) -> Places {
        let kept = recovery_dir(dir);
        let within = |data_dir: &Path| Folder::of(data_dir, folder.owner()).path(of.id());
        Places { now: folder.path(of.id()), before: within(&kept), new: within(&kept.join("new")) }
    }
}

/// One rename makes it over, then the directory goes.
fn end(dir: &Path, name: &str) -> Result<(), DataDirError> {
    sweep(dir)?;
    let (kept, over) = (recovery_dir(dir), dir.join(name));
    std::fs::rename(&kept, &over).map_err(|source| DataDirError::io(&kept, "rename", source))?;
    sync_dir(dir)?;
    sweep(dir)
}

/// Removes what a recovery that is over has left.
fn sweep(dir: &Path) -> Result<(), DataDirError> {
    remove_dir(&dir.join("recovery.undone"))?;
    remove_dir(&dir.join("recovery.confirmed"))
}

/// Renames a file or a directory, durably.
fn put(from: &Path, to: &Path) -> Result<(), DataDirError> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(|source| DataDirError::io(parent, "create", source))?;
        sync_parent(parent)?;
    }
    std::fs::rename(from, to).map_err(|source| DataDirError::io(from, "rename", source))?;
    sync_parent(to)?;
    sync_parent(from)
}

fn remove_dir(path: &Path) -> Result<(), DataDirError> {
    forgive_absence(std::fs::remove_dir_all(path)).map_err(|source| DataDirError::io(path, "remove", source))
}

fn remove_file(path: &Path) -> Result<(), DataDirError> {
    forgive_absence(std::fs::remove_file(path)).map_err(|source| DataDirError::io(path, "remove", source))?;
    if path.parent().is_some_and(Path::exists) { sync_parent(path) } else { Ok(()) }
}

fn forgive_absence(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
