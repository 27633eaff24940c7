//! Looks at a log without opening it: what it holds, what every record says, and whether all of it is intact.
//!
//! [`stat`], [`dump`] and [`verify`] read the files of a stopped or a running log, past the cache, and neither lock nor
//! change anything. They also read what an open refuses: where something cannot be read they say so and go on behind it.
//!
//! A running log moves meanwhile: groups of records appear behind the end that was found, and a segment may be used
//! again while it is read. The first is no fault: what stood in the control file and in the headers when the look
//! began was durable, and anything behind is growth. The second shows as damage that is gone at the next look. So
//! damage counts only when two looks agree ([`Verdict::confirmed_by`]).
//!
//! Left out: what the state machines make of the entries, and whether a payload means anything.

pub(crate) mod disk;
mod dump;
pub(crate) mod files;
pub(crate) mod layout;
mod stat;
mod verify;
pub(crate) mod walk;

use std::path::Path;

pub use dump::{Item, Records, RunOf, Unreadable, dump, kind_name};
pub use stat::{CheckpointStat, Laggard, LogStat, SegmentStat, stat};
pub use verify::{Damage, Loss, Verdict, verify};

use crate::LogError;
use crate::format::segment_header::Stream;
use crate::storage::Storage;

/// The directory of a log, to be read only. Takes no lock, so it may be the directory of a running node.
pub fn directory(dir: &Path) -> Result<Box<dyn Storage>, LogError> {
    let place = dir.display().to_string();
    if !dir.is_dir() {
        return Err(LogError::NotALog { place });
    }
    let directory = crate::file::Directory::look(dir).map_err(LogError::io(format!("opening {place}")))?;
    Ok(Box::new(directory))
}

/// What a segment is used for, in a word.
pub(crate) fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Log => "log",
        Stream::Cold => "cold",
        Stream::Checkpoint => "checkpoint",
    }
}
