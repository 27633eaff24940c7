//! Puts one directory of a log in the place of another, so that a crash leaves either the one or the other there.
//!
//! ```text
//! LOG.building    is being made: removed by whoever finds it
//! LOG.repaired    is complete and waits for its place; or is the damaged one that has just left it
//! LOG.damaged-1   the damaged one, kept
//! ```
//!
//! The new directory and the old one change their names in one step, where the file system can do that. Where it cannot,
//! the old one leaves first, and a crash in between leaves no LOG: then [`take_place_left_empty`] goes on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

/// A name beside that of a directory.
fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    dir.with_file_name(name)
}

fn sync_parent(dir: &Path) -> io::Result<()> {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// A new and empty directory for the new log.
pub(crate) fn begin_building(dir: &Path) -> io::Result<PathBuf> {
    let building = beside(dir, ".building");
    match fs::remove_dir_all(&building) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&building)?;
    Ok(building)
}

/// The new directory, durable with all its files, is complete.
pub(crate) fn finish_building(dir: &Path) -> io::Result<()> {
    File::open(beside(dir, ".building"))?.sync_all()?;
    fs::rename(beside(dir, ".building"), beside(dir, ".repaired"))?;
    sync_parent(dir)
}

/// The directory that waits for its place, or has just left it, if there is one.
pub(crate) fn waiting(dir: &Path) -> Option<PathBuf> {
    Some(beside(dir, ".repaired")).filter(|path| path.is_dir())
}

/// The directory that waits takes the place of the other, which is kept. Returns where.
pub(crate) fn exchange(dir: &Path) -> io::Result<PathBuf> {
    let waiting = beside(dir, ".repaired");
    match rustix::fs::renameat_with(CWD, &waiting, CWD, dir, RenameFlags::EXCHANGE) {
        Ok(()) => {
            sync_parent(dir)?;
            put_aside(dir)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            let kept = free_name(dir);
            fs::rename(dir, &kept)?;
            sync_parent(dir)?;
            take_place_left_empty(dir)?;
            Ok(kept)
        }
        Err(error) => Err(error.into()),
    }
}

/// The damaged directory that has left its place gets the name under which it is kept.
pub(crate) fn put_aside(dir: &Path) -> io::Result<PathBuf> {
    let kept = free_name(dir);
    fs::rename(beside(dir, ".repaired"), &kept)?;
    sync_parent(dir)?;
    Ok(kept)
}

/// Goes on where a crash came between two renames: the complete new directory takes a place that is empty. False when
/// there is none.
pub(crate) fn take_place_left_empty(dir: &Path) -> io::Result<bool> {
    if dir.exists() || waiting(dir).is_none() {
        return Ok(false);
    }
    fs::rename(beside(dir, ".repaired"), dir)?;
    sync_parent(dir)?;
    Ok(true)
}

fn free_name(dir: &Path) -> PathBuf {
    let mut number = 1_u64;
    loop {
        let name = beside(dir, &format!(".damaged-{number}"));
        if !name.exists() {
            return name;
        }
        number += 1;
    }
}
