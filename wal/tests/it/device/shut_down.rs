//! The call that takes the power away from a file system.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// FS_IOC_SHUTDOWN, which ext4 and xfs share.
const SHUT_DOWN: Opcode = 0x8004_587d;
/// Its argument: what stands in memory of the journal is not written either.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts the file system of an open directory down.
pub fn shut_down(directory: &File) -> io::Result<()> {
    // SAFETY: this call of the kernel reads one u32 through the pointer and keeps nothing.
    Ok(unsafe { ioctl(directory, Setter::<SHUT_DOWN, u32>::new(NO_LOG_FLUSH)) }?)
}
