//! The core's own small io_uring, for one thing: `fdatasync` of the log without waiting for it.
//!
//! Its descriptor is watched by the core's readiness call, so the end of a sync is an event like any other. One sync
//! is in flight at a time.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use io_uring::{IoUring, opcode, types};

/// A ring with room for the one operation in flight and its answer.
pub struct Ring {
    ring: IoUring,
    in_flight: bool,
}

impl Ring {
    /// Asks the kernel for a ring.
    pub fn new() -> io::Result<Ring> {
        Ok(Ring { ring: IoUring::new(2)?, in_flight: false })
    }

    /// Starts to make a file's data durable.
    pub fn sync(&mut self, file: RawFd) -> io::Result<()> {
        assert!(!self.in_flight, "law: one sync of a log is in flight at a time");
        let operation = opcode::Fsync::new(types::Fd(file)).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the operation points to no memory of this process; the kernel takes its own reference to the file
        // when it is submitted, which is the next call.
        let pushed = unsafe { self.ring.submission().push(&operation) };
        pushed.expect("law: the ring has room for the one sync in flight");
        loop {
            match self.ring.submit() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.in_flight = true;
        Ok(())
    }

    /// Waits until the sync in flight has ended, and says how. For a start; a running core never waits for the disk.
    pub fn wait(&mut self) -> io::Result<()> {
        assert!(self.in_flight, "law: a sync is waited for only while one is in flight");
        loop {
            if let Some(result) = self.finished() {
                return result;
            }
            match self.ring.submitter().submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// How the sync in flight ended, if it has.
    pub fn finished(&mut self) -> Option<io::Result<()>> {
        let completion = self.ring.completion().next()?;
        self.in_flight = false;
        Some(match completion.result() {
            code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
            _ => Ok(()),
        })
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and keeps it open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
