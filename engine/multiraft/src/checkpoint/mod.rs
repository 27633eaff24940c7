//! Checkpoints: the durable state of a replica at one entry, as a sequence of chunks.

mod build;
mod chunk;

pub use build::{Checkpoint, CheckpointBuilder};
pub use chunk::ChunkFault;
pub(crate) use chunk::{PAIR_HEAD_BYTES, Section};
