//! Checkpoints: the durable state of a replica at one entry, as a sequence of chunks.

mod build;
mod chunk;
mod make;

pub use build::{Checkpoint, CheckpointBuilder};
pub use chunk::ChunkFault;
pub(crate) use chunk::{PAIR_HEAD_BYTES, Section};
pub use make::CheckpointConfig;
pub(crate) use make::{Checkpoints, Present, Staging};
