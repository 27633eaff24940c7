//! Directories for data: where they are made, and that they go away again.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FsWord;

use crate::error::{BenchError, DATA_DIRECTORY};

/// File systems by the number that the kernel gives them.
const FILE_SYSTEMS: [(FsWord, &str); 5] =
    [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0xef53, "ext4"), (0x5846_5342, "xfs"), (0x9123_683e, "btrfs")];

/// Those that live in memory; a sync there says nothing.
const MEMORY_FILE_SYSTEMS: [&str; 2] = ["tmpfs", "ramfs"];

/// A directory for data; removed at the end unless the user named it.
pub struct DataDir {
    path: PathBuf,
    keep: bool,
}

impl DataDir {
    /// The directory that the user named: new or empty, and kept.
    pub fn named(path: &Path) -> Result<DataDir, BenchError> {
        let fail = |why: String| BenchError::new(DATA_DIRECTORY, format!("data directory {}: {why}", path.display()));
        fs::create_dir_all(path).map_err(|error| fail(error.to_string()))?;
        let mut entries = fs::read_dir(path).map_err(|error| fail(error.to_string()))?;
        match entries.next() {
            None => Ok(DataDir { path: path.to_path_buf(), keep: true }),
            Some(_) => Err(fail("it is not empty; name a new one".to_string())),
        }
    }

    /// A new directory on a real disk: in the first usual place that is not in memory. `option` names another place.
    pub fn temporary(option: &str) -> Result<DataDir, BenchError> {
        let places = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")];
        let base = places.into_iter().find(|place| is_on_disk(place)).unwrap_or_else(|| PathBuf::from("."));
        DataDir::inside(&base, option)
    }

    /// A new directory inside one that exists.
    pub fn inside(base: &Path, option: &str) -> Result<DataDir, BenchError> {
        let moment = crate::clock::now().0;
        let path = base.join(format!("pontoon-bench-{}-{moment:x}", std::process::id()));
        fs::create_dir(&path).map_err(|error| {
            BenchError::new(DATA_DIRECTORY, format!("cannot create {}: {error}; use {option}", path.display()))
        })?;
        Ok(DataDir { path, keep: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is left for the system's own cleaning; the result is already out.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The file system under a path, by name if it is one of the usual ones.
pub fn file_system(path: &Path) -> String {
    rustix::fs::statfs(path).map_or_else(|_| "unknown".to_string(), |stat| name_of(stat.f_type))
}

fn name_of(number: FsWord) -> String {
    let known = FILE_SYSTEMS.iter().find(|(magic, _)| *magic == number);
    known.map_or_else(|| format!("{number:#x}"), |(_, name)| name.to_string())
}

fn is_in_memory(file_system: &str) -> bool {
    MEMORY_FILE_SYSTEMS.contains(&file_system)
}

/// Whether a path does not lie in memory.
pub fn is_on_disk(path: &Path) -> bool {
    path.is_dir() && !is_in_memory(&file_system(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_its_own_goes_and_a_named_one_stays() {
        let base = tempfile::tempdir().unwrap();
        let own = DataDir::inside(base.path(), "--dir").unwrap();
        let path = own.path().to_path_buf();
        fs::write(path.join("file"), "data").unwrap();
        drop(own);
        assert!(!path.exists());

        drop(DataDir::named(&base.path().join("named")).unwrap());
        assert!(base.path().join("named").is_dir());
    }

    #[test]
    fn file_systems_are_told_apart() {
        assert_eq!([0xef53, 0x0102_1994, 0x1234].map(name_of), ["ext4", "tmpfs", "0x1234"]);
        assert_eq!(["ext4", "tmpfs", "ramfs"].map(is_in_memory), [false, true, true]);
        assert_eq!(file_system(Path::new("/nowhere")), "unknown");
        assert!(!is_on_disk(Path::new("/nowhere")));
    }
}
