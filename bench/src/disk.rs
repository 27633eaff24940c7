//! Bytes that a block device has taken, from the kernel's own counter.

use std::path::{Path, PathBuf};

/// The counter of sectors counts in these, whatever the device's own sector is.
const SECTOR_BYTES: u64 = 512;

/// The place of "sectors written" among the counters of a device.
const SECTORS_WRITTEN: usize = 6;

/// A block device, or nothing when the files lie on something else (a memory or a network file system).
pub struct Device {
    stat: Option<PathBuf>,
}

impl Device {
    /// The device, or the partition, under a directory.
    pub fn under(dir: &Path) -> Device {
        let stat = rustix::fs::stat(dir).ok().map(|stat| {
            let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))
        });
        Device { stat: stat.filter(|path| path.exists()) }
    }

    /// No device is watched.
    pub fn none() -> Device {
        Device { stat: None }
    }

    /// Bytes written since the machine started.
    pub fn written_bytes(&self) -> Option<u64> {
        written(&std::fs::read_to_string(self.stat.as_ref()?).ok()?)
    }
}

fn written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok().map(|sectors: u64| sectors * SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seventh_counter_is_the_one() {
        let line = "   30101     8788  4742266    11510     4302    21997  1181176     3534        0     5360    15451";
        assert_eq!(written(line), Some(1_181_176 * 512));
        assert_eq!(written("1 2 3"), None);
        assert_eq!(Device::under(Path::new("/proc")).written_bytes(), None);
    }
}
