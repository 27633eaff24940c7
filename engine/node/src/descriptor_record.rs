//! A group's descriptor as it stands in the log of its core.
//!
//! ```text
//! 0 version (1)   1 group (8)   9 generation (8)   17 has end (1)
//! 18 start length (4), start    end length (4), end    members (4), then node (8) and replica (8) for each
//! ```
//!
//! The log protects it with its own checksums; here only the shape is checked.

use bytes::Bytes;
use pontoon_types::limits::MEMBERS_MAX;
use pontoon_types::{Descriptor, Generation, GroupId, KeyRange, Member, NodeId, ReplicaId};

const VERSION: u8 = 1;

/// The bytes to keep.
pub fn encode(descriptor: &Descriptor) -> Bytes {
    let end = descriptor.range.end.clone().unwrap_or_default();
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&descriptor.group.0.to_le_bytes());
    bytes.extend_from_slice(&descriptor.generation.0.to_le_bytes());
    bytes.push(u8::from(descriptor.range.end.is_some()));
    for key in [&descriptor.range.start, &end] {
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
    }
    bytes.extend_from_slice(&(descriptor.members.len() as u32).to_le_bytes());
    for member in descriptor.members.iter() {
        bytes.extend_from_slice(&member.node.0.to_le_bytes());
        bytes.extend_from_slice(&member.replica.0.to_le_bytes());
    }
    Bytes::from(bytes)
}

/// Reads what [`encode`] wrote; anything else is none.
pub fn decode(bytes: &[u8]) -> Option<Descriptor> {
    let mut rest = bytes;
    if take(&mut rest, 1)? != [VERSION] {
        return None;
    }
    let group = GroupId(number(&mut rest)?);
    let generation = Generation(number(&mut rest)?);
    let has_end = take(&mut rest, 1)? != [0];
    let start = key(&mut rest)?;
    let end = key(&mut rest)?;
    let count = length(&mut rest)?;
    let mut members = Vec::with_capacity(count.min(MEMBERS_MAX));
    for _ in 0..count {
        members.push(Member { node: NodeId(number(&mut rest)?), replica: ReplicaId(number(&mut rest)?) });
    }
    let range = KeyRange { start, end: has_end.then_some(end) };
    rest.is_empty().then(|| Descriptor { group, range, members: members.into(), generation })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize)
}

fn key(rest: &mut &[u8]) -> Option<Bytes> {
    let length = length(rest)?;
    Some(Bytes::copy_from_slice(take(rest, length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(end: Option<&'static str>) -> Descriptor {
        Descriptor {
            group: GroupId(2),
            range: KeyRange { start: Bytes::from_static(b"a"), end: end.map(|end| Bytes::from_static(end.as_bytes())) },
            members: [Member { node: NodeId(1), replica: ReplicaId(1) }].into(),
            generation: Generation(3),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for descriptor in [descriptor(Some("b")), descriptor(None)] {
            assert_eq!(decode(&encode(&descriptor)), Some(descriptor));
        }
    }

    #[test]
    fn the_layout_is_frozen() {
        let expected = [
            &[1][..],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 0, 0, 0, b'a', 1, 0, 0, 0, b'b'],
            &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&descriptor(Some("b"))), expected);
    }

    #[test]
    fn every_shorter_or_longer_piece_is_refused() {
        let whole = encode(&descriptor(Some("b"))).to_vec();
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "cut at {length}");
        }
        assert_eq!(decode(&[whole, vec![0]].concat()), None);
    }
}
