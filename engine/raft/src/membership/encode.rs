//! A configuration as the payload of its entry. Version 1, frozen: the log and every node of a cluster read it.
//!
//! ```text
//! 0         | 1     | 2       | 3                   | then for each member, in the order of replicas, 17 bytes
//! version 1 | phase | members | highest replica (8) | node (8) | replica (8) | standing (1)
//! ```
//!
//! Numbers are little-endian. Phase: 0 simple, 1 joint, 2 joint with auto-leave. Standing: 1 voter, 2 joining, 3 leaving,
//! 4 demoting, 5 learner.

use bytes::Bytes;
use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{Member, NodeId, ReplicaId};

use super::{Configuration, MembershipRefused, Phase, Standing};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 11;
const MEMBER_BYTES: usize = 17;

/// The longest encoding.
pub const CONFIGURATION_BYTES_MAX: usize = HEAD_BYTES + MEMBERS_MAX * MEMBER_BYTES;

/// Why bytes are no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationFault {
    /// It was written by a version that this one does not know.
    #[error("a configuration of version {0}")]
    Version(u8),
    /// Too short or too long.
    #[error("a configuration of {0} bytes does not have the length that it says")]
    Length(usize),
    /// A number stands for nothing.
    #[error("{0} stands for no phase or standing")]
    Number(u8),
    /// The members are not in their order, so that one configuration would have two encodings.
    #[error("the members are not in order")]
    Order,
    /// A member is above what is said to be the highest replica ever named.
    #[error("a member is above {0}, the highest replica that the group is said to have named")]
    Highest(ReplicaId),
    /// It reads well and breaks an invariant.
    #[error(transparent)]
    Refused(#[from] MembershipRefused),
}

impl Configuration {
    /// The bytes, at most [`CONFIGURATION_BYTES_MAX`].
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.members().len() * MEMBER_BYTES);
        let phase = match self.phase() {
            Phase::Simple => 0,
            Phase::Joint { auto_leave: false } => 1,
            Phase::Joint { auto_leave: true } => 2,
        };
        bytes.extend([VERSION, phase, self.members().len() as u8]);
        bytes.extend(self.highest().0.to_le_bytes());
        for (member, standing) in self.members() {
            bytes.extend(member.node.0.to_le_bytes());
            bytes.extend(member.replica.0.to_le_bytes());
            bytes.push(match standing {
                Standing::Voter => 1,
                Standing::Joining => 2,
                Standing::Leaving => 3,
                Standing::Demoting => 4,
                Standing::Learner => 5,
            });
        }
        bytes.into()
    }

    /// Reads what [`Configuration::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Configuration, ConfigurationFault> {
        let &[version, phase, count, ref rest @ ..] = bytes else {
            return Err(ConfigurationFault::Length(bytes.len()));
        };
        if version != VERSION {
            return Err(ConfigurationFault::Version(version));
        }
        let phase = match phase {
            0 => Phase::Simple,
            1 => Phase::Joint { auto_leave: false },
            2 => Phase::Joint { auto_leave: true },
            other => return Err(ConfigurationFault::Number(other)),
        };
        let Some((highest, rest)) = rest.split_first_chunk::<8>() else {
            return Err(ConfigurationFault::Length(bytes.len()));
        };
        let highest = ReplicaId(u64::from_le_bytes(*highest));
        let (members, rest) = rest.as_chunks::<MEMBER_BYTES>();
        if members.len() != usize::from(count) || !rest.is_empty() {
            return Err(ConfigurationFault::Length(bytes.len()));
        }
        let members = members.iter().map(decode_member).collect::<Result<Vec<_>, _>>()?;
        if !members.is_sorted_by_key(|(member, _)| member.replica) {
            return Err(ConfigurationFault::Order);
        }
        if members.last().is_some_and(|(member, _)| member.replica > highest) {
            return Err(ConfigurationFault::Highest(highest));
        }
        Ok(Configuration::restore_after(members, phase, highest)?)
    }
}

fn decode_member(bytes: &[u8; MEMBER_BYTES]) -> Result<(Member, Standing), ConfigurationFault> {
    let number = |at: usize| {
        let eight: [u8; 8] = bytes[at..at + 8].try_into().expect("law: eight bytes are eight bytes");
        u64::from_le_bytes(eight)
    };
    let standing = match bytes[16] {
        1 => Standing::Voter,
        2 => Standing::Joining,
        3 => Standing::Leaving,
        4 => Standing::Demoting,
        5 => Standing::Learner,
        other => return Err(ConfigurationFault::Number(other)),
    };
    Ok((Member { node: NodeId(number(0)), replica: ReplicaId(number(8)) }, standing))
}
