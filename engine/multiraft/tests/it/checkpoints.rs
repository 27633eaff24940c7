//! A checkpoint shows the state of one moment, however the machine goes on meanwhile.

use bytes::Bytes;
use pontoon_multiraft::sessions::{SessionLimits, Sessions};
use pontoon_multiraft::{Checkpoint, CheckpointBuilder, ChunkFault, Kv, state_digest};
use pontoon_types::{Descriptor, Generation, GroupId, KeyRange, LogId, ReplicaId, SnapshotMeta};
use pontoon_wire::command::KvOperation;
use proptest::prelude::*;

pub fn meta(group: GroupId) -> SnapshotMeta {
    let descriptor = Descriptor { group, range: KeyRange::default(), members: [].into(), generation: Generation(1) };
    let (replica, last) = (ReplicaId(1), LogId::default());
    SnapshotMeta { group, replica, last, configuration: Bytes::new(), descriptor }
}

fn build(chunks: &[Bytes]) -> Result<Checkpoint, ChunkFault> {
    let mut builder = CheckpointBuilder::new();
    chunks.iter().try_for_each(|chunk| builder.take(chunk))?;
    builder.finish(meta(GroupId(2)))
}

fn operation() -> impl Strategy<Value = KvOperation> {
    let key = (0_u8..24).prop_map(|key| Bytes::from(vec![b'k', key]));
    let value = (any::<u8>(), 0_usize..90).prop_map(|(byte, length)| Bytes::from(vec![byte; length]));
    prop_oneof![
        3 => (key.clone(), value).prop_map(|(key, value)| KvOperation::Put { key, value }),
        1 => key.prop_map(|key| KvOperation::Delete { key }),
    ]
}

proptest! {
    #[test]
    fn the_chunks_show_the_moment_at_which_the_cut_began(
        before in prop::collection::vec(operation(), 0..60),
        during in prop::collection::vec(prop::collection::vec(operation(), 0..6), 0..40),
        bytes_max in 2_usize..200,
    ) {
        let (mut machine, mut twin) = (Kv::default(), Kv::default());
        for operation in &before {
            machine.apply(operation);
            twin.apply(operation);
        }
        let nobody = Sessions::new(SessionLimits::default());
        let (digest, bytes) = (state_digest(&machine, &nobody), machine.bytes());
        machine.begin_cut();
        twin.begin_cut();
        let mut chunks = Vec::new();
        let mut during = during.iter();
        while let Some(chunk) = machine.next_chunk(bytes_max) {
            prop_assert!(chunk.len() <= bytes_max);
            chunks.push(chunk);
            for operation in during.next().into_iter().flatten() {
                machine.apply(operation);
            }
        }
        prop_assert_eq!(machine.cut_bytes(), 0);
        let built = build(&chunks).unwrap();
        let whole = build(&std::iter::from_fn(|| twin.next_chunk(bytes_max)).collect::<Vec<_>>()).unwrap();
        prop_assert_eq!((built.state_digest(), built.state_bytes()), (digest, bytes));
        // The same state has the same chunks, whatever happened meanwhile.
        prop_assert_eq!((built.chunks, built.digest), (whole.chunks, whole.digest));
    }

    #[test]
    fn no_bytes_break_the_builder(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
        prop_assert!(build(&chunks).is_ok() || build(&chunks).is_err());
    }
}

#[test]
fn what_is_no_checkpoint_is_refused_by_name() {
    let pair = |key: u8| [&[1, 1, 0, 0, 0, 0, 0, 0, 0][..], &[key]].concat();
    let chunk = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let fault = |chunks: &[Bytes]| build(chunks).err();
    assert_eq!(fault(&[chunk(&pair(5)), chunk(&pair(6))]), None);
    assert_eq!(fault(&[chunk(&pair(5)), chunk(&pair(5))]), Some(ChunkFault::Keys));
    assert_eq!(fault(&[chunk(&[])]), Some(ChunkFault::Length(0)));
    assert_eq!(fault(&[chunk(&[9, 1])]), Some(ChunkFault::Section(9)));
    assert_eq!(fault(&[chunk(&pair(5)[..9])]), Some(ChunkFault::Torn));
    let long = [1, 255, 255, 255, 255, 0, 0, 0, 0];
    assert_eq!(fault(&[chunk(&long)]), Some(ChunkFault::Pair { key_bytes: u32::MAX as usize, value_bytes: 0 }));
}
