//! The last group of a log: what proves it durable, and where its votes stand a second time. And versions that rot.

use pontoon_types::{GroupId, HardState, Index, ReplicaId, Term};
use pontoon_wal::LogError;
use pontoon_wal::format::BLOCK_BYTES;
use pontoon_wal::format::group::GroupHeader;
use pontoon_wal::format::segment_header::SegmentHeader;

use crate::cases::with_writes;
use crate::common::{Model, Rig, apply, compact, created, entries, entry, groups_in, model_of, small, vote};
use crate::keeping::busy;

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

/// Makes the directory of a group unreadable whose only record is a hard state.
fn rot_vote(rig: &Rig) {
    let name = rig.newest();
    let is_vote = |header: &GroupHeader| header.dir_len == 32 && header.runs == 1;
    let groups = groups_in(&rig.disk.content(&name).unwrap());
    let votes: Vec<usize> = groups.iter().filter(|(_, header)| is_vote(header)).map(|(at, _)| *at).collect();
    let [at] = votes[..] else { panic!("votes at {votes:?}") };
    rig.damage(&name, |bytes| bytes[at + 9] ^= 1);
}

/// How a log that ends with a vote was stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Clean,
    /// Nothing proves the vote, which is written again.
    Killed,
    /// The control file proves the vote.
    KilledIdle,
    KilledTwice,
}

#[test]
fn the_first_group_after_a_start_repeats_the_last_vote_before_it() {
    for stop in [Stop::Clean, Stop::Killed, Stop::KilledIdle, Stop::KilledTwice] {
        let rig = Rig::new(small(), 2);
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[vote(2, 7, 3)]);
        match stop {
            Stop::Clean => log.close().unwrap(),
            Stop::Killed => drop(log),
            Stop::KilledIdle => {
                log.close().unwrap();
                drop(rig.open());
            }
            Stop::KilledTwice => {
                drop(log);
                drop(rig.open());
            }
        }
        let (mut log, recovered) = rig.open();
        assert_eq!((recovered.resumed, recovered.rewritten), (stop != Stop::Killed, stop == Stop::Killed), "{stop:?}");
        rig.commit(&mut log, 1, &[entries(2, vec![entry(1, 7, "one")])]);
        rig.seal(&mut log);
        drop(log);
        rot_vote(&rig);
        let (_, recovered) = rig.open();
        let group = &recovered.groups[&GroupId(2)];
        let voted = HardState { term: Term(7), vote: Some(ReplicaId(3)) };
        assert_eq!(group.hard_state, voted, "{stop:?}: no second vote in term 7");
        assert!(!recovered.recovered_vote_lost(GroupId(2)), "{stop:?}");
        assert_eq!(group.entries, [entry(1, 7, "one")], "{stop:?}");
    }
}

#[test]
fn a_start_claims_no_whole_echo_of_a_group_that_said_more() {
    for killed in [false, true] {
        let rig = Rig::new(small(), 2);
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[vote(2, 7, 3), entries(2, vec![entry(1, 7, "one")])]);
        if killed {
            drop(log)
        } else {
            log.close().unwrap()
        }
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[vote(3, 7, 3)]);
        rig.seal(&mut log);
        drop(log);
        let name = rig.newest();
        let groups = groups_in(&rig.disk.content(&name).unwrap());
        let (at, header) = groups[groups.len() - 3];
        assert_eq!((header.runs, header.is_echo_whole()), (2, false), "the vote and the entry");
        assert!(!groups[groups.len() - 2].1.is_echo_whole(), "killed: {killed}");
        rig.damage(&name, |bytes| bytes[at + 9] ^= 1);
        let LogError::Corruption { offset, .. } = rig.refused() else { panic!("not a corruption") };
        assert_eq!(offset, at as u64, "the entry stands nowhere else");
    }
}

/// What a later version would have written: with its own number and a checksum over it.
fn of_later_version(block: &mut [u8], crc_at: usize) {
    block[8] = 2;
    let crc = crc32fast::hash(&block[..crc_at]);
    block[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Where the checksums of the two structures with a version stand.
const CONTROL_CRC_AT: usize = 256;
const SEGMENT_CRC_AT: usize = 128;

#[test]
fn a_rotten_version_in_the_control_file_is_damage_like_any_other() {
    for bit in 0..16 {
        for block in [0, BLOCK_BYTES] {
            let rig = Rig::new(small(), 2);
            let (log, model) = with_writes(&rig, 3);
            drop(log);
            rig.damage("ctl", |bytes| bytes[block + 8 + bit / 8] ^= 1 << (bit % 8));
            assert_eq!(rig.open().1.groups, model, "bit {bit} of the block at {block}: the other block counts");
        }
        let rig = Rig::new(small(), 2);
        rig.damage("ctl", |bytes| {
            bytes[8 + bit / 8] ^= 1 << (bit % 8);
            bytes[BLOCK_BYTES + 8 + bit / 8] ^= 1 << (bit % 8);
        });
        assert!(matches!(rig.refused(), LogError::Corruption { file, .. } if file == "ctl"), "bit {bit} of both");
    }
}

#[test]
fn a_rotten_version_in_a_segment_header_is_damage_like_any_other() {
    // The segments that were closed are free again, behind the checkpoints.
    let rig = Rig::new(busy(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=20 {
        let mut writes = vec![entries(3, vec![entry(index, 1, vec![index as u8; 9000])])];
        writes.extend((index > 2).then(|| compact(3, index - 2, 1)));
        rig.commit(&mut log, index, &writes);
    }
    log.close().unwrap();
    let (whole, image) = (rig.disk.copy(), rig.disk.image());
    let groups = rig.open().1.groups;
    let (mut opened, mut refused) = (0, 0);
    for name in rig.slots().into_iter().filter(|name| SegmentHeader::decode(&image[name]).is_ok()) {
        let rig = Rig { disk: whole.copy(), options: busy() };
        rig.damage(&name, |bytes| bytes[8] ^= 4);
        match rig.try_open() {
            Ok((_, found)) => {
                assert_eq!(found.groups, groups, "{name}");
                opened += 1;
            }
            // The segment that both checkpoints stand in is missed by the control file, which names them.
            Err(LogError::Corruption { file, offset: 0, .. }) if file == name || file == "ctl" => refused += 1,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}

#[test]
fn a_later_version_with_its_own_checksum_is_refused_as_that() {
    for (file, crc_at) in [("ctl", CONTROL_CRC_AT), ("slot-001.seg", SEGMENT_CRC_AT)] {
        let rig = Rig::new(small(), 2);
        drop(with_writes(&rig, 3));
        rig.damage(file, |bytes| of_later_version(bytes, crc_at));
        let LogError::UnknownFormat { what, .. } = rig.refused() else { panic!("{file}: not refused as too new") };
        assert_eq!(what, "format version 2", "{file}");
        // One that sums otherwise cannot be told from damage to more than the version, and is believed.
        let rig = Rig::new(small(), 2);
        drop(with_writes(&rig, 3));
        rig.damage(file, |bytes| {
            of_later_version(bytes, crc_at);
            bytes[crc_at] ^= 1;
        });
        assert!(matches!(rig.refused(), LogError::UnknownFormat { .. }), "{file}");
    }
}

#[test]
fn each_kill_of_an_idle_log_whose_segments_are_used_again_takes_one_and_others_become_free() {
    let rig = Rig::new(busy(), 2);
    let (mut log, _) = rig.open();
    for index in 1..=40 {
        let mut writes = vec![entries(3, vec![entry(index, 1, vec![index as u8; 9000])])];
        writes.extend((index > 2).then(|| compact(3, index - 2, 1)));
        rig.commit(&mut log, index, &writes);
    }
    drop(log);
    let groups = rig.open().1.groups;
    for start in 0..100 {
        let (log, recovered) = rig.open();
        assert_eq!(recovered.groups, groups, "start {start}");
        assert!(!recovered.resumed && !recovered.rewritten, "start {start}: what lies behind the end is old");
        assert!(log.bytes() <= busy().max_log_bytes, "start {start}");
    }
}
