//! The last group of a log: what proves it durable, and where its votes stand a second time.

use pontoon_types::{GroupId, Index};
use pontoon_wal::LogError;

use crate::cases::with_writes;
use crate::common::{Model, Rig, apply, created, entries, entry, groups_in, model_of, small};

/// A log whose last group, the one at 8192, fills its segment up to the footer, and which then goes idle.
fn filled() -> (Rig, Model) {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    let writes = [entries(2, vec![entry(1, 1, vec![1; 6 * 4096 - 112])])];
    rig.commit(&mut log, 1, &writes);
    let mut model = model_of(&created(2));
    apply(&mut model, &writes);
    assert!(log.begin_seal().unwrap().is_none(), "there is no block left for a SEAL");
    let noted = rig.control();
    assert!(log.begin_seal().unwrap().is_none());
    assert_eq!(rig.control(), noted, "it is noted once");
    (rig, model)
}

#[test]
fn a_group_without_room_for_its_seal_is_proven_by_the_control_file() {
    let (rig, model) = filled();
    let last = groups_in(&rig.disk.content("slot-001.seg").unwrap()).pop().unwrap();
    assert_eq!((last.0, last.1.seq), (8192, rig.control().durable_seq));
    let (_, recovered) = rig.open();
    assert!(!recovered.rewritten && recovered.torn_tail.is_none());
    assert_eq!(recovered.groups, model);

    let (rig, _) = filled();
    rig.damage("slot-001.seg", |bytes| bytes[8192 + 5000] ^= 1);
    let (_, recovered) = rig.open();
    assert_eq!(recovered.groups[&GroupId(2)].lost, [Index(1)], "a rotten payload is named, not cut");

    let (rig, _) = filled();
    rig.damage("slot-001.seg", |bytes| bytes[8192 + 70] ^= 1);
    let LogError::Corruption { file, offset, .. } = rig.refused() else { panic!("not a corruption") };
    assert_eq!((file.as_str(), offset), ("slot-001.seg", 8192));
}

#[test]
fn what_is_noted_for_want_of_a_seal_is_noted_anew_for_the_next_group() {
    let (rig, _) = filled();
    let (mut log, _) = rig.open();
    // The first one begins a segment and is noted for that, the second one fills it.
    for (number, blocks) in [(2, 3), (3, 4)] {
        rig.commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![1; blocks * 4096 - 112])])]);
    }
    assert!(log.begin_seal().unwrap().is_none());
    let end = groups_in(&rig.disk.content(&rig.newest()).unwrap()).pop().unwrap().1.seq;
    assert_eq!(rig.control().durable_seq, end);
    // With room for it a SEAL is the proof, and the control file is left alone.
    let rig = Rig::new(small(), 2);
    let (mut log, _) = with_writes(&rig, 3);
    let before = rig.control();
    rig.seal(&mut log);
    assert_eq!(rig.control(), before);
}
