//! What can go wrong with a node, each as one line that says what to do, and the exit code that it stands for.
//!
//! | code | meaning |
//! |---|---|
//! | 1 | internal: a core failed or a law was broken |
//! | 2 | usage or configuration |
//! | 3 | environment: kernel, memory lock, port |
//! | 4 | data directory |

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pontoon_types::{CoreId, GroupId, LogId, NodeId};
use pontoon_wal::{LogError, ReadError};

use crate::config::ConfigError;
use crate::store::read::CheckpointError;

/// Something is wrong with a data directory. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is nothing at the path.
    #[error("data directory {} does not exist; create it with `pontoon init`, or name the right one", dir.display())]
    Missing {
        /// The path.
        dir: PathBuf,
    },
    /// The path is something else.
    #[error("{} is not a directory; name the data directory of a node", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// The directory has no identity.
    #[error("{} is not the data directory of a node; initialise it with `pontoon init`", dir.display())]
    NotInitialised {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory that is to be initialised has something in it.
    #[error("{} is not empty; `pontoon init` needs a new or an empty directory", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has it.
    #[error("data directory {} is in use by another process; stop that process first", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Both slots of the identity are damaged.
    #[error(
        "{} is unreadable: {why}; restore the file, or remove the directory and let the cluster replace the node",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The directory is another node's, or of another cluster.
    #[error("data directory {} belongs to {found}, not to {expected}; name the right one", dir.display())]
    Other {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wanted it.
        expected: String,
    },
    /// A recovery after the loss of a quorum was begun here and not ended.
    #[error(
        "a recovery of {} was cut short; undo it with `pontoon recover undo`, then do it again",
        dir.display()
    )]
    UnfinishedRecovery {
        /// The directory.
        dir: PathBuf,
    },
    /// A log that the identity lists is not there (law 16).
    #[error(
        "log {} is missing; the node does not start without it: restore it, or remove the data directory and let the \
         cluster replace the node",
        path.display()
    )]
    MissingLog {
        /// Where it should be.
        path: PathBuf,
    },
    /// A group in a log has an unreadable descriptor.
    #[error("log {}: the descriptor of {group} is unreadable; restore this node from its peers", path.display())]
    Descriptor {
        /// The log.
        path: PathBuf,
        /// The group.
        group: GroupId,
    },
    /// A call of the operating system failed.
    #[error("cannot {verb} {}: {source}; check the path and its permissions", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl DataDirError {
    /// Names the call that failed.
    pub(crate) fn io(path: &Path, verb: &'static str, source: io::Error) -> DataDirError {
        DataDirError::Io { verb, path: path.to_path_buf(), source }
    }
}

/// Why a node did not start. Nothing was changed, except that a start which came as far as its logs is counted, and that
/// the groups may have moved to the number of cores that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel gives no io_uring.
    #[error("io_uring is not available: {why}")]
    IoUring {
        /// The reason, and what to do.
        why: String,
    },
    /// The kernel lacks something else.
    #[error("the kernel is too old: {what}; Linux 5.11 or newer is needed")]
    Kernel {
        /// The call that is missing.
        what: String,
    },
    /// Too little memory may be locked.
    #[error(
        "too little memory may be locked: {needed_bytes} bytes are needed, the limit is {limit_bytes}; raise it \
         (`ulimit -l`, or LimitMEMLOCK= of the service)"
    )]
    MemoryLock {
        /// What the rings of all cores need.
        needed_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// Somebody else listens at the address.
    #[error("address {address} is in use; stop the process that listens there, or choose another with --listen")]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}; choose an address of this machine with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The data directory is not usable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log of a core is not usable.
    #[error("core {core}: {source}")]
    Log {
        /// The core.
        core: CoreId,
        /// What the log says.
        source: LogError,
    },
    /// The entries of a group could not be read back.
    #[error("core {core}: {source}")]
    Read {
        /// The core.
        core: CoreId,
        /// What the log says.
        source: ReadError,
    },
    /// A checkpoint cannot be used, or the directory of the checkpoints cannot be read.
    #[error(transparent)]
    Store(#[from] CheckpointError),
    /// The groups of the node cannot move to another number of cores now. Its logs still hold them.
    #[error("the node has {have} cores and cannot start with {wanted}: {why}; nothing was moved")]
    Rehome {
        /// How many logs hold the groups.
        have: u16,
        /// How many cores were asked for.
        wanted: u16,
        /// The reason, and what to do.
        why: String,
    },
    /// A core could not be set up.
    #[error("core {core} cannot start: {why}")]
    Core {
        /// The core.
        core: CoreId,
        /// The reason.
        why: String,
    },
}

impl StartError {
    /// The exit code of a process that could not start.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Config(_) => 2,
            StartError::Log { source: LogError::Option { .. }, .. } => 2,
            StartError::IoUring { .. }
            | StartError::Kernel { .. }
            | StartError::MemoryLock { .. }
            | StartError::PortInUse { .. }
            | StartError::Listen { .. }
            | StartError::Core { .. } => 3,
            StartError::DataDir(_)
            | StartError::Log { .. }
            | StartError::Read { .. }
            | StartError::Store(_)
            | StartError::Rehome { .. } => 4,
        }
    }
}

/// Why a cluster was not initialised.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The plan cannot be carried out; nothing was written.
    #[error("{0}")]
    Plan(String),
    /// A data directory is not usable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A log could not be created.
    #[error("node {node}: {source}")]
    Log {
        /// The node.
        node: NodeId,
        /// What the log says.
        source: LogError,
    },
    /// The system gives no random numbers.
    #[error("cannot draw a random identity: {0}")]
    Random(String),
}

impl InitError {
    /// The exit code of a process that could not initialise.
    pub fn exit_code(&self) -> u8 {
        match self {
            InitError::Plan(_) | InitError::Log { source: LogError::Option { .. }, .. } => 2,
            InitError::Random(_) => 3,
            InitError::DataDir(_) | InitError::Log { .. } => 4,
        }
    }
}

/// Why a core stopped by itself. Nothing was acknowledged afterwards.
#[derive(Debug, thiserror::Error)]
pub enum CoreFailure {
    /// The log failed; it is fenced and was not tried again.
    #[error("{0}; nothing was acknowledged since. Check the disk, then start the node again")]
    Log(#[from] LogError),
    /// The machine refused a call that cannot fail in good health.
    #[error("a system call of the core's loop failed: {0}; start the node again")]
    Driver(io::Error),
    /// What memory has of an entry is a mapping of bytes that have rotted. Written again it would pass for the entry.
    #[error(
        "{file}: the payload of {id} of {group} is rotten, in memory too; start the node again, so that the peers of \
         the group give it back, and check the disk"
    )]
    Rotten {
        /// The segment file.
        file: String,
        /// The group.
        group: GroupId,
        /// The entry.
        id: LogId,
    },
    /// The disk does not answer. What is in flight may or may not be written.
    #[error(
        "a sync of the log has not ended after {} s; nothing was acknowledged since. Check the disk, then start the node \
         again",
        after.as_secs()
    )]
    Stalled {
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// The core's thread is held by the kernel, or gets no processor.
    #[error(
        "a turn of the core has not ended after {} s; nothing was acknowledged since. Check the file system and the disk, \
         then end the process and start the node again",
        after.as_secs()
    )]
    Away {
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// An invariant does not hold. The state in memory is not trusted any more.
    #[error("a law was broken: {0}; the node stops so that nothing false is acknowledged. Please report it")]
    Law(String),
}
