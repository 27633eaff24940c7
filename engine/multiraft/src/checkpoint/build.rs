//! From chunks to a state: the way back of a checkpoint, a chunk at a time.

use bytes::Bytes;
use pontoon_types::SnapshotMeta;
use pontoon_types::limits::{KEY_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MAX, VALUE_BYTES_MAX};

use super::chunk::{ChunkFault, PAIR_HEAD_BYTES, Section};
use crate::sessions::{Sessions, SessionsStream};
use crate::{Kv, state_digest};

/// A replica's state as a checkpoint holds it.
#[derive(Debug)]
pub struct Checkpoint {
    /// What it is of.
    pub meta: SnapshotMeta,
    /// How many chunks it has.
    pub chunks: u64,
    /// A checksum over all chunks in their order; equal for equal states.
    pub digest: u32,
    pub(crate) machine: Kv,
    pub(crate) sessions: Sessions,
}

impl Checkpoint {
    /// A number that is equal for equal states. Walks everything: for checkers.
    pub fn state_digest(&self) -> u64 {
        state_digest(&self.machine, &self.sessions)
    }

    /// What the state takes, bytes.
    pub fn state_bytes(&self) -> usize {
        self.machine.bytes()
    }
}

/// Makes a state of the chunks of a checkpoint. Holds, besides the state, at most one chunk and one pair that is not whole.
///
/// Invariant: `torn` is shorter than the pair that it begins.
#[derive(Debug, Default)]
pub struct CheckpointBuilder {
    machine: Kv,
    torn: Vec<u8>,
    last_key: Option<Box<[u8]>>,
    sessions: SessionsStream,
    section: Option<Section>,
    chunks: u64,
    digest: crc32fast::Hasher,
}

impl CheckpointBuilder {
    /// A state of which nothing was read yet.
    pub fn new() -> CheckpointBuilder {
        CheckpointBuilder::default()
    }

    /// Takes the next chunk. After an error the builder is of no use.
    pub fn take(&mut self, chunk: &[u8]) -> Result<(), ChunkFault> {
        let [tag, piece @ ..] = chunk else { return Err(ChunkFault::Length(0)) };
        if piece.is_empty() || chunk.len() > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(ChunkFault::Length(chunk.len()));
        }
        let section = Section::of(*tag).ok_or(ChunkFault::Section(*tag))?;
        if self.section.is_some_and(|before| section < before) {
            return Err(ChunkFault::Order);
        }
        self.section = Some(section);
        self.chunks += 1;
        self.digest.update(chunk);
        match section {
            Section::Pairs => self.take_pairs(piece),
            Section::Sessions => Ok(self.sessions.take(piece)?),
        }
    }

    fn take_pairs(&mut self, piece: &[u8]) -> Result<(), ChunkFault> {
        self.torn.extend_from_slice(piece);
        let mut rest = self.torn.as_slice();
        while let Some((key, value, behind)) = split_pair(rest)? {
            if self.last_key.as_deref().is_some_and(|last| last >= key) {
                return Err(ChunkFault::Keys);
            }
            self.last_key = Some(Box::from(key));
            self.machine.restore(Box::from(key), Bytes::copy_from_slice(value));
            rest = behind;
        }
        self.torn = rest.to_vec();
        Ok(())
    }

    /// The whole state, when the last chunk was taken.
    pub fn finish(self, meta: SnapshotMeta) -> Result<Checkpoint, ChunkFault> {
        if !self.torn.is_empty() {
            return Err(ChunkFault::Torn);
        }
        let (digest, sessions) = (self.digest.finalize(), self.sessions.finish()?);
        Ok(Checkpoint { meta, chunks: self.chunks, digest, machine: self.machine, sessions })
    }
}

/// The first pair of a stream and what stands behind it, if it is whole.
#[expect(clippy::type_complexity, reason = "a key, a value and the rest have no other name")]
fn split_pair(stream: &[u8]) -> Result<Option<(&[u8], &[u8], &[u8])>, ChunkFault> {
    let Some((head, rest)) = stream.split_first_chunk::<PAIR_HEAD_BYTES>() else { return Ok(None) };
    let length = |at: usize| {
        let four: [u8; 4] = head[at..at + 4].try_into().expect("law: four bytes are four bytes");
        u32::from_le_bytes(four) as usize
    };
    let (key_bytes, value_bytes) = (length(0), length(4));
    if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
        return Err(ChunkFault::Pair { key_bytes, value_bytes });
    }
    if rest.len() < key_bytes + value_bytes {
        return Ok(None);
    }
    let (key, rest) = rest.split_at(key_bytes);
    let (value, rest) = rest.split_at(value_bytes);
    Ok(Some((key, value, rest)))
}
