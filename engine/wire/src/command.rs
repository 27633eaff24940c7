//! The command: the payload of a log entry, which the built-in key-value machine applies.
//!
//! ```text
//! 0 version (1)   1 client (16)   17 opened (8)   25 sequence (8)   33 floor (8)   41 operations (4)
//! 45 the operations, one after another
//! put              1, key, value
//! delete           2, key
//! compare-and-set  3, key, optional expected, optional value
//! bytes            length (4), then that many            optional: 0, or 1 and bytes
//! ```
//!
//! All numbers are little-endian. The bytes live as long as the log, so the version comes first and a layout is never
//! changed. There is no checksum here: the log and the frames have one for each entry.

use bytes::{Buf, BufMut, Bytes};
use pontoon_types::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use pontoon_types::{ClientId, RequestId, SessionId, SessionTime};

use crate::client::Refusal;

/// The layout that is written; a log may hold older ones.
const VERSION: u8 = 1;

/// Version, client, opened, sequence, floor and the number of operations.
const HEADER_BYTES: usize = 45;

/// Where the moment stands at which the session was opened.
const OPENED: std::ops::Range<usize> = 17..25;

/// The shortest operation: a kind and an empty key.
const OPERATION_BYTES_MIN: usize = 5;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SET: u8 = 3;

/// What a client asks a group to do, as one atomic step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Names the request for ever (law 24).
    pub id: RequestId,
    /// The client waits for no answer to a request with a lower sequence: they may be forgotten.
    pub floor: u64,
    /// What to do, in order. All of it is applied at one index, or the command was never executed.
    pub operations: Vec<KvOperation>,
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvOperation {
    /// Sets the key's value, whatever it was.
    Put {
        /// The key.
        key: Bytes,
        /// The new value.
        value: Bytes,
    },
    /// Removes the key, if it exists.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets or removes the key if its value is the expected one.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// The value that it must have; none means that the key must not exist.
        expected: Option<Bytes>,
        /// The value that it gets; none removes the key.
        value: Option<Bytes>,
    },
}

impl KvOperation {
    /// The key that the operation names.
    pub fn key(&self) -> &Bytes {
        match self {
            KvOperation::Put { key, .. } | KvOperation::Delete { key } | KvOperation::CompareAndSet { key, .. } => key,
        }
    }
}

/// Why bytes are not a command. In a log this is corruption, or a version that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The version is not one that this build reads.
    #[error("command version {found} is not read by this build")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// The bytes end inside the command.
    #[error("the command ends too early")]
    Truncated,
    /// There are bytes after the command.
    #[error("there are {bytes} bytes after the command")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// An operation or an option is of an unknown kind.
    #[error("the command holds an unknown kind {found}")]
    Kind {
        /// The kind that was found.
        found: u8,
    },
}

impl Command {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.put_u8(VERSION);
        out.put_u128_le(self.id.session.client.0);
        out.put_u64_le(self.id.session.opened.0);
        out.put_u64_le(self.id.sequence);
        out.put_u64_le(self.floor);
        put_length(&mut out, self.operations.len());
        for operation in &self.operations {
            match operation {
                KvOperation::Put { key, value } => {
                    out.put_u8(PUT);
                    put_bytes(&mut out, key);
                    put_bytes(&mut out, value);
                }
                KvOperation::Delete { key } => {
                    out.put_u8(DELETE);
                    put_bytes(&mut out, key);
                }
                KvOperation::CompareAndSet { key, expected, value } => {
                    out.put_u8(COMPARE_AND_SET);
                    put_bytes(&mut out, key);
                    put_option(&mut out, expected);
                    put_option(&mut out, value);
                }
            }
        }
        Bytes::from(out)
    }

    /// Reads what [`Command::encode`] wrote. Keys and values are slices of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Command, CommandError> {
        match get_u8(&mut bytes)? {
            VERSION => {}
            found => return Err(CommandError::Version { found }),
        }
        if bytes.len() < HEADER_BYTES - 1 {
            return Err(CommandError::Truncated);
        }
        let client = ClientId(bytes.get_u128_le());
        let session = SessionId { client, opened: SessionTime(bytes.get_u64_le()) };
        let id = RequestId { session, sequence: bytes.get_u64_le() };
        let floor = bytes.get_u64_le();
        let count = bytes.get_u32_le() as usize;
        if count > bytes.len() / OPERATION_BYTES_MIN {
            return Err(CommandError::Truncated);
        }
        let mut operations = Vec::with_capacity(count);
        for _ in 0..count {
            operations.push(match get_u8(&mut bytes)? {
                PUT => KvOperation::Put { key: get_bytes(&mut bytes)?, value: get_bytes(&mut bytes)? },
                DELETE => KvOperation::Delete { key: get_bytes(&mut bytes)? },
                COMPARE_AND_SET => KvOperation::CompareAndSet {
                    key: get_bytes(&mut bytes)?,
                    expected: get_option(&mut bytes)?,
                    value: get_option(&mut bytes)?,
                },
                found => return Err(CommandError::Kind { found }),
            });
        }
        match bytes.len() {
            0 => Ok(Command { id, floor, operations }),
            bytes => Err(CommandError::Trailing { bytes }),
        }
    }

    /// The same command in another session. `encoded` is what [`Command::encode`] gave.
    pub fn reopened(encoded: &Bytes, opened: SessionTime) -> Bytes {
        let mut bytes = encoded.to_vec();
        bytes[OPENED].copy_from_slice(&opened.0.to_le_bytes());
        Bytes::from(bytes)
    }

    /// Holds the command against the limits, before it is proposed.
    ///
    /// The first key does not count for the limit of a batch, so that the longest key may have the longest value.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.operations.is_empty() {
            return Err(Refusal::Refused { why: "a batch holds at least one operation".to_string() });
        }
        if self.operations.len() > BATCH_OPERATIONS_MAX {
            let count = self.operations.len();
            let why =
                format!("a batch of {count} operations is more than BATCH_OPERATIONS_MAX, {BATCH_OPERATIONS_MAX}");
            return Err(Refusal::Refused { why });
        }
        let mut batch_bytes = 0;
        for (place, operation) in self.operations.iter().enumerate() {
            let key_bytes = operation.key().len();
            if key_bytes == 0 {
                return Err(Refusal::Refused { why: "a key holds at least one byte".to_string() });
            }
            check_limit("KEY_BYTES_MAX", KEY_BYTES_MAX, key_bytes)?;
            for value in operation.values().into_iter().flatten() {
                check_limit("VALUE_BYTES_MAX", VALUE_BYTES_MAX, value.len())?;
                batch_bytes += value.len();
            }
            batch_bytes += if place == 0 { 0 } else { key_bytes };
        }
        check_limit("BATCH_BYTES_MAX", BATCH_BYTES_MAX, batch_bytes)
    }

    /// The bytes of the command once it is encoded.
    pub fn encoded_bytes(&self) -> usize {
        let operations = self.operations.iter().map(|operation| {
            let values: usize = operation.values().into_iter().flatten().map(Bytes::len).sum();
            let framing = match operation {
                KvOperation::Put { .. } => 1 + 4 + 4,
                KvOperation::Delete { .. } => 1 + 4,
                KvOperation::CompareAndSet { expected, value, .. } => {
                    1 + 4 + 2 + 4 * (usize::from(expected.is_some()) + usize::from(value.is_some()))
                }
            };
            framing + operation.key().len() + values
        });
        HEADER_BYTES + operations.sum::<usize>()
    }
}

impl KvOperation {
    /// The values that the operation carries.
    fn values(&self) -> [Option<&Bytes>; 2] {
        match self {
            KvOperation::Put { value, .. } => [Some(value), None],
            KvOperation::Delete { .. } => [None, None],
            KvOperation::CompareAndSet { expected, value, .. } => [expected.as_ref(), value.as_ref()],
        }
    }
}

/// Refuses what is larger than a limit.
fn check_limit(limit: &str, limit_bytes: usize, bytes: usize) -> Result<(), Refusal> {
    if bytes <= limit_bytes {
        return Ok(());
    }
    Err(Refusal::TooLarge { limit: limit.to_string(), limit_bytes: limit_bytes as u64, bytes: bytes as u64 })
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.put_u32_le(u32::try_from(length).expect("a command is checked against its limits before it is encoded"));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &Bytes) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

fn put_option(out: &mut Vec<u8>, bytes: &Option<Bytes>) {
    out.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

fn get_u8(bytes: &mut Bytes) -> Result<u8, CommandError> {
    if bytes.is_empty() { Err(CommandError::Truncated) } else { Ok(bytes.get_u8()) }
}

fn get_bytes(bytes: &mut Bytes) -> Result<Bytes, CommandError> {
    if bytes.len() < 4 {
        return Err(CommandError::Truncated);
    }
    let length = bytes.get_u32_le() as usize;
    if bytes.len() < length {
        return Err(CommandError::Truncated);
    }
    Ok(bytes.split_to(length))
}

fn get_option(bytes: &mut Bytes) -> Result<Option<Bytes>, CommandError> {
    match get_u8(bytes)? {
        0 => Ok(None),
        1 => Ok(Some(get_bytes(bytes)?)),
        found => Err(CommandError::Kind { found }),
    }
}
