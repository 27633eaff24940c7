//! Bytes that a block device has taken, and how often it was told to flush, from the kernel's own counters.

use std::path::{Path, PathBuf};

/// The counter of sectors counts in these, whatever the device's own sector is.
const SECTOR_BYTES: u64 = 512;

/// The place of "sectors written" among the counters of a device.
const SECTORS_WRITTEN: usize = 6;

/// The place of "flush requests", which only whole devices count.
const FLUSHES: usize = 15;

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
        counter(&self.stat()?, SECTORS_WRITTEN).map(|sectors| sectors * SECTOR_BYTES)
    }

    /// Flushes since the machine started. Neighbours on the same device may share one.
    pub fn flushes(&self) -> Option<u64> {
        counter(&self.stat()?, FLUSHES)
    }

    fn stat(&self) -> Option<String> {
        std::fs::read_to_string(self.stat.as_ref()?).ok()
    }
}

fn counter(stat: &str, place: usize) -> Option<u64> {
    stat.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_stand_at_their_places() {
        let line = "30101 8788 4742266 11510 4302 21997 1181176 3534 0 5360 15451 0 0 0 0 77 99";
        assert_eq!(counter(line, SECTORS_WRITTEN), Some(1_181_176));
        assert_eq!(counter(line, FLUSHES), Some(77));
        assert_eq!(counter("1 2 3", SECTORS_WRITTEN), None);
        assert_eq!(Device::under(Path::new("/proc")).written_bytes(), None);
    }
}
