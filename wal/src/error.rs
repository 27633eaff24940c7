//! What can go wrong, and what it means for the caller.
//!
//! Everything that [`crate::Log::open`] refuses is refused before a byte on the disk is changed. After
//! [`LogError::Fenced`] the log does nothing any more: what was in flight is neither durable nor lost, it is unknown,
//! and only a new open, which reads the disk, can tell (law 17).

use std::io;

/// Why a log could not be created, opened, written or closed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused a call.
    #[error("log: {what}: {source}")]
    Io {
        /// The call and the file.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// An option is outside its bounds.
    #[error("log: option {name} = {value}: {why}")]
    Option {
        /// The option's name.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What is allowed.
        why: String,
    },
    /// A log is to be created where files already are.
    #[error("log: {place} is not empty; a log is created in a new directory only")]
    NotEmpty {
        /// The directory.
        place: String,
    },
    /// The directory has no control file.
    #[error("log: {place} has no readable file `ctl`, so it holds no log; name the right directory or create the log")]
    NotALog {
        /// The directory.
        place: String,
    },
    /// Another process has the log open.
    #[error("log: {place} is open in another process; stop that process first")]
    InUse {
        /// The directory.
        place: String,
    },
    /// The files belong to another cluster, node or log.
    #[error("log: {file} belongs to another {part}: it says {found}, expected {expected}; name the right directory")]
    OtherLog {
        /// The file that says so.
        file: String,
        /// Which part of the identity differs.
        part: &'static str,
        /// What the file says.
        found: String,
        /// What the caller expected.
        expected: String,
    },
    /// The files were written by a newer version. They are left as they are.
    #[error("log: {file} at {offset}: {what} is unknown to this version; open it with the version that wrote it")]
    UnknownFormat {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// The unknown thing and its value.
        what: String,
    },
    /// Bytes that were durable are not there any more. Nothing was changed.
    #[error(
        "log: corruption in {file} at {offset}: {why}; nothing was changed; `pontoon wal verify` says what is lost, \
         `pontoon wal repair` saves the rest"
    )]
    Corruption {
        /// The file.
        file: String,
        /// Where the first damaged byte range starts.
        offset: u64,
        /// What is wrong and what proves that it was durable.
        why: String,
    },
    /// Something that a closed segment must hold is not what was written. Nothing was acted on.
    #[error("log: {why}; nothing was acted on, keep the files and look at them with `pontoon wal verify`")]
    Unreadable {
        /// What, and where.
        why: String,
    },
    /// A segment that the log needs is gone. Nothing was changed.
    #[error(
        "log: segment {segment} is missing, {needed_by} needs it; nothing was changed; restore the file, or see \
         `pontoon wal repair`"
    )]
    MissingSegment {
        /// The id of the segment.
        segment: u64,
        /// The file that names it as its predecessor, or as written.
        needed_by: String,
    },
    /// One replica's write does not fit into a segment.
    #[error(
        "log: one write of {bytes} bytes is above the limit of {limit_bytes} bytes, which is segment_bytes without its \
         header; a log keeps its segment_bytes, so create it with a larger one or propose less at once"
    )]
    WriteTooLarge {
        /// Its size in the log.
        bytes: u64,
        /// The largest that fits.
        limit_bytes: u64,
    },
    /// The log has reached its size and has used up the room kept for votes.
    #[error("log: full: max_log_bytes = {max_log_bytes} is used up; raise it and start again")]
    Full {
        /// The limit.
        max_log_bytes: u64,
    },
    /// A write or a sync failed earlier. It is never tried again.
    #[error("log: fenced after a failure: {why}; start again, recovery reads what the disk really holds")]
    Fenced {
        /// The first failure.
        why: String,
    },
}

impl LogError {
    /// Names the call that failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LogError {
        let what = what.into();
        move |source| LogError::Io { what, source }
    }
}
