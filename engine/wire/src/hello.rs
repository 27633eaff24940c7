//! The first bytes of a connection: who calls, what it wants, and the answer.
//!
//! Both have a fixed size, so that the accepting side reads exactly [`HELLO_BYTES`], answers with exactly
//! [`WELCOME_BYTES`] and can hand the socket to the wanted core without having read a byte too many.
//!
//! ```text
//! Hello    0 magic      4 version_min  6 version_max   8 cluster (16)
//!         24 caller     25 zero       26 wanted core  28 own core (peer)  30 cores (peer)
//!         32 client id (16), or node (8) and wanted node (8)
//!         48 segment bytes (peer)                                         52 zero ...  60 crc32
//! Welcome  0 magic      4 version      6 cores         8 cluster (16)
//!         24 node       32 refusal    33 zero          36 segment bytes of the caller, and
//!         40 of the answering core, if they are the refusal                44 zero ...  60 crc32
//! ```
//!
//! All numbers are little-endian. The checksum covers everything before it. Bytes that are zero here are written as
//! zero and not looked at, because this is the one layout that a newer caller shares with an older node.

use pontoon_types::{ClientId, ClusterId, CoreId, NodeId};

use crate::frame::FrameError;

/// The size of an encoded [`Hello`], bytes.
pub const HELLO_BYTES: usize = 64;

/// The size of an encoded [`Welcome`], bytes.
pub const WELCOME_BYTES: usize = 64;

const HELLO_MAGIC: [u8; 4] = *b"PTNH";
const WELCOME_MAGIC: [u8; 4] = *b"PTNW";
const CHECKSUM_AT: usize = 60;
const CALLER_PEER: u8 = 1;
const CALLER_CLIENT: u8 = 2;

/// What a caller says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that the caller wants to talk to. Zero means any, and is for clients only.
    pub cluster: ClusterId,
    /// Who calls.
    pub from: Caller,
    /// The core that shall own the connection.
    pub core: CoreId,
    /// The oldest frame version that the caller reads.
    pub version_min: u16,
    /// The newest frame version that the caller reads.
    pub version_max: u16,
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A core of another node, which will send peer frames.
    Peer {
        /// The calling node.
        node: NodeId,
        /// The calling core.
        core: CoreId,
        /// The node that the caller believes to reach.
        to: NodeId,
        /// How many cores the calling node has; all nodes of a cluster have the same number.
        cores: u16,
        /// The size of the segments of the calling core's log, which bounds the entries that it sends.
        segment_bytes: u32,
    },
    /// A client, which will send requests.
    Client(ClientId),
}

/// The answer to a [`Hello`]. With a refusal, the caller closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The answering node's cluster.
    pub cluster: ClusterId,
    /// The answering node.
    pub node: NodeId,
    /// How many cores it has.
    pub cores: u16,
    /// The version of all frames that follow: the newest that both sides read. Zero with a refusal for the version.
    pub version: u16,
    /// Why the connection is not accepted, if it is not.
    pub refusal: Option<HelloRefusal>,
}

/// Why a node does not accept a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefusal {
    /// The caller asked for another cluster.
    #[error("the node belongs to another cluster")]
    OtherCluster,
    /// The caller believed to reach another node.
    #[error("the address is that of another node")]
    OtherNode,
    /// The wanted core does not exist.
    #[error("the node has no such core")]
    NoSuchCore,
    /// No frame version is read by both sides.
    #[error("the node and the caller have no frame version in common")]
    Version,
    /// The calling node has another number of cores.
    #[error(
        "the node has another number of cores than the caller; all nodes of a cluster have the same: stop all of them and \
         start all of them with one number"
    )]
    OtherCoreCount,
    /// The core has as many connections as it may have.
    #[error("the core has no room for another connection")]
    Full,
    /// The core ended by itself.
    #[error("the core has stopped after a failure, which is in the node's log; start the node again")]
    CoreStopped,
    /// The calling node is none of the cluster's, or not any more.
    #[error(
        "the node does not know the caller as a node of its cluster: it was given up in a recovery after the loss of a \
         quorum, and its data directory must not be used again"
    )]
    GivenUp,
    /// What the calling core sends may be larger than what the log of this one can hold.
    #[error(
        "the log of the caller has segments of {caller_bytes} bytes, that of the node has {own_bytes}, which is too small for \
         the entries of such a leader; give all nodes of a cluster the same size"
    )]
    LargerSegments {
        /// The size of the caller's segments.
        caller_bytes: u32,
        /// The size of those of the node.
        own_bytes: u32,
    },
}

impl HelloRefusal {
    /// The number that stands for it on the wire. Zero is left for "no refusal".
    fn code(self) -> u8 {
        match self {
            HelloRefusal::OtherCluster => 1,
            HelloRefusal::OtherNode => 2,
            HelloRefusal::NoSuchCore => 3,
            HelloRefusal::Version => 4,
            HelloRefusal::OtherCoreCount => 5,
            HelloRefusal::Full => 6,
            HelloRefusal::CoreStopped => 7,
            HelloRefusal::LargerSegments { .. } => 8,
            HelloRefusal::GivenUp => 9,
        }
    }

    /// The refusal behind a number, and the sizes beside it.
    fn from_code(code: u8, [caller_bytes, own_bytes]: [u32; 2]) -> Result<Option<HelloRefusal>, FrameError> {
        Ok(Some(match code {
            0 => return Ok(None),
            1 => HelloRefusal::OtherCluster,
            2 => HelloRefusal::OtherNode,
            3 => HelloRefusal::NoSuchCore,
            4 => HelloRefusal::Version,
            5 => HelloRefusal::OtherCoreCount,
            6 => HelloRefusal::Full,
            7 => HelloRefusal::CoreStopped,
            8 => HelloRefusal::LargerSegments { caller_bytes, own_bytes },
            9 => HelloRefusal::GivenUp,
            _ => return Err(FrameError::Value { field: "refusal" }),
        }))
    }
}

impl Hello {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        put(&mut bytes, 0, HELLO_MAGIC);
        put(&mut bytes, 4, self.version_min.to_le_bytes());
        put(&mut bytes, 6, self.version_max.to_le_bytes());
        put(&mut bytes, 8, self.cluster.0.to_le_bytes());
        put(&mut bytes, 26, self.core.0.to_le_bytes());
        match self.from {
            Caller::Peer { node, core, to, cores, segment_bytes } => {
                put(&mut bytes, 24, [CALLER_PEER]);
                put(&mut bytes, 28, core.0.to_le_bytes());
                put(&mut bytes, 30, cores.to_le_bytes());
                put(&mut bytes, 32, node.0.to_le_bytes());
                put(&mut bytes, 40, to.0.to_le_bytes());
                put(&mut bytes, 48, segment_bytes.to_le_bytes());
            }
            Caller::Client(client) => {
                put(&mut bytes, 24, [CALLER_CLIENT]);
                put(&mut bytes, 32, client.0.to_le_bytes());
            }
        }
        seal(bytes)
    }

    /// Reads what [`Hello::encode`] wrote.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, FrameError> {
        check(bytes, HELLO_MAGIC)?;
        let from = match bytes[24] {
            CALLER_PEER => Caller::Peer {
                node: NodeId(u64::from_le_bytes(get(bytes, 32))),
                core: CoreId(u16::from_le_bytes(get(bytes, 28))),
                to: NodeId(u64::from_le_bytes(get(bytes, 40))),
                cores: u16::from_le_bytes(get(bytes, 30)),
                segment_bytes: u32::from_le_bytes(get(bytes, 48)),
            },
            CALLER_CLIENT => Caller::Client(ClientId(u128::from_le_bytes(get(bytes, 32)))),
            _ => return Err(FrameError::Value { field: "caller" }),
        };
        Ok(Hello {
            cluster: ClusterId(u128::from_le_bytes(get(bytes, 8))),
            from,
            core: CoreId(u16::from_le_bytes(get(bytes, 26))),
            version_min: u16::from_le_bytes(get(bytes, 4)),
            version_max: u16::from_le_bytes(get(bytes, 6)),
        })
    }

    /// The newest frame version that both the caller and this build read.
    pub fn common_version(&self) -> Option<u16> {
        let version = self.version_max.min(crate::VERSION);
        (version >= self.version_min.max(crate::VERSION_MIN)).then_some(version)
    }
}

impl Welcome {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; WELCOME_BYTES] {
        let mut bytes = [0; WELCOME_BYTES];
        put(&mut bytes, 0, WELCOME_MAGIC);
        put(&mut bytes, 4, self.version.to_le_bytes());
        put(&mut bytes, 6, self.cores.to_le_bytes());
        put(&mut bytes, 8, self.cluster.0.to_le_bytes());
        put(&mut bytes, 24, self.node.0.to_le_bytes());
        put(&mut bytes, 32, [self.refusal.map_or(0, HelloRefusal::code)]);
        if let Some(HelloRefusal::LargerSegments { caller_bytes, own_bytes }) = self.refusal {
            put(&mut bytes, 36, caller_bytes.to_le_bytes());
            put(&mut bytes, 40, own_bytes.to_le_bytes());
        }
        seal(bytes)
    }

    /// Reads what [`Welcome::encode`] wrote.
    pub fn decode(bytes: &[u8; WELCOME_BYTES]) -> Result<Welcome, FrameError> {
        check(bytes, WELCOME_MAGIC)?;
        let sizes = [36, 40].map(|at| u32::from_le_bytes(get(bytes, at)));
        Ok(Welcome {
            cluster: ClusterId(u128::from_le_bytes(get(bytes, 8))),
            node: NodeId(u64::from_le_bytes(get(bytes, 24))),
            cores: u16::from_le_bytes(get(bytes, 6)),
            version: u16::from_le_bytes(get(bytes, 4)),
            refusal: HelloRefusal::from_code(bytes[32], sizes)?,
        })
    }
}

/// Writes a field at its place.
fn put<const N: usize>(bytes: &mut [u8; 64], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

/// Reads a field at its place.
fn get<const N: usize>(bytes: &[u8; 64], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// Fills in the checksum.
fn seal(mut bytes: [u8; 64]) -> [u8; 64] {
    let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
    put(&mut bytes, CHECKSUM_AT, checksum.to_le_bytes());
    bytes
}

/// Refuses bytes that begin with something else, or that were damaged.
fn check(bytes: &[u8; 64], magic: [u8; 4]) -> Result<(), FrameError> {
    if bytes[..4] != magic {
        return Err(FrameError::Magic);
    }
    if u32::from_le_bytes(get(bytes, CHECKSUM_AT)) != crc32fast::hash(&bytes[..CHECKSUM_AT]) {
        return Err(FrameError::HeaderChecksum);
    }
    Ok(())
}
