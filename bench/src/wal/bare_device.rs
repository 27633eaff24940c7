//! The least that a durable commit can cost: one block written into a file of zeros, and an fdatasync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::measure::{LogTotals, Meter, Plan, Round, Threads};
use super::workload::Payloads;
use crate::clock;
use crate::disk::Device;
use crate::error::{BenchError, ENVIRONMENT};

/// The size of the file; the blocks are used again after its end.
const FILE_BYTES: u64 = 256 << 20;

const BLOCK_BYTES: usize = 4096;

/// One round in a new directory. No figures if it was interrupted.
pub fn run(plan: &Plan, dir: &Path) -> Result<Option<Round>, BenchError> {
    let failed =
        |error: io::Error| BenchError::new(ENVIRONMENT, format!("the bare device, in {}: {error}", dir.display()));
    let file = zeros(dir).map_err(failed)?;
    let payloads = Payloads::new(BLOCK_BYTES);
    let mut meter = Meter::start(plan, Device::under(dir));
    let mut blocks = 0;
    let totals = |blocks| LogTotals { bytes: blocks * BLOCK_BYTES as u64, syncs: Some(blocks), ..LogTotals::default() };
    while meter.goes_on(clock::now(), || totals(blocks)) {
        let payload = payloads.get(blocks);
        let since = clock::now();
        file.write_all_at(&payload, blocks * BLOCK_BYTES as u64 % FILE_BYTES).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        meter.record(since, clock::now(), 1, 1);
        blocks += 1;
    }
    Ok(meter.finish(Threads::One))
}

/// A file whose blocks all exist on the disk and are not in the page cache, like a segment that was prepared.
fn zeros(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let file = File::create_new(dir.join("zeros"))?;
    let piece = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(piece.len()) {
        file.write_all_at(&piece, offset)?;
    }
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(file)
}
