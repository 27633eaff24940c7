//! The write-ahead log of one core, shared by all its Raft groups.
//!
//! # What it is
//!
//! A directory with fixed-size segment files, written ahead of use with zeros, and a small control file. All groups of
//! a core append to one log; what gathers during one sync leaves as one *group of records* with the next one. The
//! bytes are drawn in [`mod@format`].
//!
//! # How a write travels
//!
//! [`Log::append`] copies entries, hard states and truncations into the open group; [`Log::begin_sync`] writes that
//! group with one `pwrite` into blocks that were never used before and hands a descriptor to the shell, which runs
//! one asynchronous fdatasync; [`Log::finish_sync`] says up to which [`CoreWriteNumber`] everything is durable. No
//! step of it allocates on the disk, renames, syncs a directory or waits for another thread: the background thread (`prepare`) did that
//! before. Entries that [`Log::open`] returns are slices of mapped segments and are never copied.
//!
//! # What it promises
//!
//! - What [`Log::finish_sync`] reported is there after a crash of the process or the machine.
//! - A group of records survives as a whole or not at all, so a core write does too (above one segment: each
//!   replica's write does).
//! - A torn end is cut without asking. A rotten payload of a durable entry is reported as lost, by group, index and
//!   term ([`Log::load`], [`Log::take_rot`]). Other damage to anything durable that has no second copy is refused as
//!   [`LogError::Corruption`], naming file and offset, and then nothing on the disk is changed. A missing segment, a file of another log and an
//!   unknown version are refused likewise.
//! - Law 13: one number answers for everything up to it. Law 14: replay follows the order of writing, and an
//!   overwrite without its truncation is refused. Law 17: after anything but a clean stop the disk is read and not
//!   the cache, and what nothing proves durable is written again and synced before anyone acts on it. Law 16 is kept
//!   by the node, which lists its logs; a log refuses to open for another identity.
//! - A failed write or sync fences the log. It is never tried again.
//! - The segment files together never outgrow `max_log_bytes` by more than two segments. Starts after a crash that
//!   find none ready take those, and the reserve of a log that has used it up to make itself small again; the next
//!   such start is refused before anything is changed. A full log that is compacted has room again without a restart,
//!   also with no space left on the disk, as long as the shell goes on calling [`Log::begin_seal`] when it is idle.
//!   [`Log::room`] says how many bytes of entries have a place for sure; who gathers no more than that can always write what
//!   it has gathered. When the room that is kept for votes and truncations is used up too, [`Log::begin_sync`] answers
//!   [`LogError::Full`] and nothing is lost.
//! - A stop that left nothing behind what is proven durable costs no segment as long as the newest segment's file is in
//!   its first use: an idle log that is killed then does not grow. Once files are used again, what lies behind the end
//!   is old and cannot be told from the rest of a torn write, and each such stop costs a segment until it is freed again.
//!
//! # What proves that a group was durable
//!
//! The next group (it is started only after the sync), a SEAL ([`Log::begin_seal`]), the next segment, or the control
//! file, which takes the place of a SEAL that its segment has no room for. Only the very last group of a log that was
//! not closed may be without a proof. If such a group rots between its acknowledgement and the SEAL a few milliseconds
//! later, and the machine crashes in those milliseconds, it looks like a torn write and is cut.
//!
//! # What it leaves out
//!
//! When to compact: the log only hints ([`Log::compact_hints`]) and copies what is not compacted. Fetching lost payloads:
//! it names them, and takes them back as `restored`. Compression.

pub mod format;
pub mod inspect;
pub mod memory;
pub mod repair;
pub mod storage;
pub mod transplant;

mod append;
mod cold;
mod control;
mod error;
mod file;
mod keeper;
mod log;
mod open;
mod options;
mod packing;
mod prepare;
mod read;
mod recover;
mod room;
mod segments;
mod state;
mod unreadable;
mod write;

pub use error::LogError;
pub use keeper::CompactHint;
pub use keeper::scrub::{Rot, RottenEntry};
pub use log::{Log, Stats, Sync};
pub use options::{AppendPath, LogIdentity, Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MIN};
pub use pontoon_types::CoreWriteNumber;
pub use prepare::Preparation;
pub use read::{LoadedGroup, ReadError, SurveyedGroup};
pub use recover::{Recovered, RecoveredGroup, TornTail};
