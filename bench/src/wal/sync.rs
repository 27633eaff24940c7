//! One fdatasync of the log that is waited for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use pontoon_wal::Sync;

/// Carries out the sync that a log has begun.
pub fn carry_out(sync: &Sync) -> io::Result<()> {
    // SAFETY: the log keeps the descriptor of a sync open until a later one is begun or it is dropped, and its owner
    // does neither before this returns.
    let file = unsafe { BorrowedFd::borrow_raw(sync.fd) };
    Ok(rustix::fs::fdatasync(file)?)
}
