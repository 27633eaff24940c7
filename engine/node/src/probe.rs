//! What the machine must offer, looked at before anything is touched.
//!
//! The runtime panics with a misleading reason when io_uring is forbidden and when too little memory may be locked,
//! so both are tried here first, and the limits that this process may raise by itself are raised.

use std::io;

use io_uring::IoUring;
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::StartError;

/// The registered memory of one executor; three of its rings share the budget each on its own account.
pub const IO_MEMORY_BYTES: usize = 256 << 10;

/// Each executor registers its memory in three rings.
const RINGS_PER_CORE: u64 = 3;

/// The runtime refuses to start below this.
const RUNTIME_MEMLOCK_BYTES: u64 = 512 << 10;

/// Raises what may be raised and checks the rest, for a node of `cores` cores.
pub fn probe(cores: u16) -> Result<(), StartError> {
    raise(Resource::Memlock);
    raise(Resource::Nofile);
    let needed_bytes = (u64::from(cores) * RINGS_PER_CORE * IO_MEMORY_BYTES as u64).max(RUNTIME_MEMLOCK_BYTES);
    if let Some(limit_bytes) = getrlimit(Resource::Memlock).current
        && limit_bytes < needed_bytes
    {
        return Err(StartError::MemoryLock { needed_bytes, limit_bytes });
    }
    IoUring::new(2).map(drop).map_err(|error| StartError::IoUring { why: explain(&error) })?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)
        .map_err(|errno| StartError::Kernel { what: format!("epoll_create1: {errno}") })?;
    let mut events = Vec::<epoll::Event>::with_capacity(1);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    epoll::wait(set, rustix::buffer::spare_capacity(&mut events), Some(&now))
        .map(drop)
        .map_err(|errno| StartError::Kernel { what: format!("epoll_pwait2: {errno}") })
}

/// Lifts the soft limit to the hard one. A refusal shows in the checks that follow.
fn raise(resource: Resource) {
    let Rlimit { current, maximum } = getrlimit(resource);
    if current != maximum {
        let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
    }
}

/// Why there is no ring, and what to do.
fn explain(error: &io::Error) -> String {
    let advice = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOSYS) => "the kernel has none; Linux 5.11 or newer is needed",
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            "it is forbidden; allow it (sysctl kernel.io_uring_disabled=0, and the seccomp profile of the container)"
        }
        Some(rustix::io::Errno::NOMEM) => "too little memory may be locked; raise `ulimit -l`",
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => "no free descriptor; raise `ulimit -n`",
        _ => "see the system's answer",
    };
    format!("{advice} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_says_what_to_do() {
        let advice = |errno: rustix::io::Errno| explain(&errno.into());
        assert!(advice(rustix::io::Errno::NOSYS).contains("Linux 5.11"));
        assert!(advice(rustix::io::Errno::PERM).contains("io_uring_disabled=0"));
        assert!(advice(rustix::io::Errno::NOMEM).contains("ulimit -l"));
    }
}
