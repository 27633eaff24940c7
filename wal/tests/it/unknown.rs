//! Case 48: what only a newer version knows. It may be skipped, or the log is refused and every file stays as it is.
//!
//! All checksums are made right again, so that nothing but the unknown thing speaks against a log.

use pontoon_types::GroupId;
use pontoon_wal::LogError;
use pontoon_wal::format::control::{CheckpointRef, Control};
use pontoon_wal::format::footer::{self, FooterPlace};
use pontoon_wal::format::group::{GROUP_HEADER_BYTES, GroupHeader, payloads_start};
use pontoon_wal::format::record::{KIND_GROUP_STATE, RUN_BYTES, Record, RunHead, Runs};
use pontoon_wal::format::segment_header::SegmentHeader;
use pontoon_wal::format::{BLOCK_BYTES, LogEnd};
use pontoon_wal::inspect::{stat, verify};

use crate::cases::with_writes;
use crate::common::{IDENTITY, Rig, entries, entry, groups_in, small, vote};
use crate::damage::long;
use crate::keeping::busy;

/// Opening must be refused for something unknown. Where it stands, and what it is.
fn unknown(rig: &Rig) -> (String, u64, String) {
    match rig.refused() {
        LogError::UnknownFormat { file, offset, what } => (file, offset, what),
        error => panic!("not for its format: {error}"),
    }
}

fn named(file: &str, offset: usize, what: &str) -> (String, u64, String) {
    (file.to_string(), offset as u64, what.to_string())
}

/// Writes the header of the group at `at` anew, for the directory behind it. Returns the chain value.
fn reseal(bytes: &mut [u8], at: usize, header: GroupHeader) -> u32 {
    let start = at + GROUP_HEADER_BYTES;
    let dir_crc = crc32fast::hash(&bytes[start..start + header.dir_len as usize]);
    let (encoded, chain) = GroupHeader { dir_crc, ..header }.encode(IDENTITY.log, at as u64);
    bytes[at..start].copy_from_slice(&encoded);
    chain
}

/// Changes the head of the first run of the group at `at`. Returns the chain value of the group.
fn change_run(bytes: &mut [u8], at: usize, header: GroupHeader, change: impl FnOnce(RunHead) -> RunHead) -> u32 {
    let start = at + GROUP_HEADER_BYTES;
    let run = Runs::new(&bytes[start..start + header.dir_len as usize]).next().unwrap().head;
    bytes[start..start + RUN_BYTES].copy_from_slice(&change(run).encode());
    reseal(bytes, at, header)
}

/// Changes the run of the group written last, which nothing proves, and the flags of that group.
fn with_run(change: impl FnOnce(RunHead) -> RunHead, flags: u16) -> Rig {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = with_writes(&rig, 3);
    rig.commit(&mut log, 4, &[vote(2, 9, 1)]);
    drop(log);
    rig.damage("slot-001.seg", |bytes| {
        let (at, header) = *groups_in(bytes).last().unwrap();
        change_run(bytes, at, GroupHeader { flags, ..header }, change);
    });
    rig
}

#[test]
fn case_48_unknown_records_are_skipped_or_refused_by_their_kind() {
    let skipped = with_run(|run| RunHead { kind: 0x91, ..run }, 0).open().1;
    assert_eq!(skipped.groups[&GroupId(2)].hard_state.term.0, 0, "the record means nothing here");
    assert_eq!(skipped.groups[&GroupId(2)].entries.len(), 3);
    let unknown_kind = with_run(|run| RunHead { kind: 0x41, ..run }, 0);
    assert_eq!(unknown(&unknown_kind), named("slot-001.seg", 5 * 4096, "record kind 65"));
    let unknown_flag = with_run(|run| RunHead { flags: run.flags | 4, ..run }, 0);
    assert_eq!(unknown(&unknown_flag), named("slot-001.seg", 5 * 4096, "feature flags 0x5"));
    let of_the_group = with_run(|run| run, 0x8000);
    assert_eq!(unknown(&of_the_group), named("slot-001.seg", 5 * 4096, "feature flags 0x8000"));
}

#[test]
fn case_48_an_unknown_version_is_refused_unchanged() {
    for (file, what) in [("slot-002.seg", "format version 2"), ("ctl", "format version 2")] {
        let rig = long();
        // With its number alone the checksum would still be that of this version, and the number rotten.
        rig.damage(file, |bytes| (bytes[8], bytes[40]) = (2, !bytes[40]));
        assert_eq!(unknown(&rig), named(file, 0, what));
    }
}

/// Sets one byte of a block whose first `crc_at` bytes are summed behind them.
fn set(block: &mut [u8], at: usize, value: u8, crc_at: usize) {
    block[at] = value;
    let crc = crc32fast::hash(&block[..crc_at]);
    block[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn case_48_unknown_flags_and_streams_of_segments_and_of_the_control_file_are_refused() {
    // One in the middle of the log, and the newest.
    for file in ["slot-003.seg", &long().newest()] {
        for (at, value, what) in [(12, 4, "feature flags 0x4"), (10, 3, "stream 3")] {
            let rig = long();
            rig.damage(file, |bytes| set(bytes, at, value, 128));
            assert_eq!(unknown(&rig), named(file, 0, what));
        }
    }
    for blocks in [0..1, 1..2, 0..2] {
        let rig = long();
        rig.damage("ctl", |bytes| {
            for block in blocks.clone() {
                set(&mut bytes[block * BLOCK_BYTES..][..BLOCK_BYTES], 12, 2, 256);
            }
        });
        assert_eq!(unknown(&rig), named("ctl", blocks.start * BLOCK_BYTES, "feature flags 0x2"));
    }
}

#[test]
fn case_48_an_unknown_record_in_a_closed_segment_is_refused_with_and_without_its_footer() {
    for has_footer in [true, false] {
        let rig = Rig::new(small(), 2);
        let (mut log, _) = with_writes(&rig, 3);
        // It begins the second segment, and nothing follows that would have to be chained anew.
        rig.commit(&mut log, 4, &[entries(3, vec![entry(1, 1, vec![1; 20_000])])]);
        drop(log);
        let mut chain = 0;
        rig.damage("slot-001.seg", |bytes| {
            let groups = groups_in(bytes);
            let (at, header) = *groups.last().unwrap();
            chain = change_run(bytes, at, header, |run| RunHead { kind: 0x41, ..run });
            let end = at + header.group_len();
            let place =
                FooterPlace { log: IDENTITY.log, segment: header.segment, salt: header.salt, offset: end as u64 };
            assert!(footer::is_like(&bytes[end..], place), "the segment is closed and has its footer");
            let part =
                |(at, header): &(usize, GroupHeader)| &bytes[*at..][..footer::footer_part(header.dir_len as usize)];
            let parts: Vec<u8> = groups.iter().flat_map(part).copied().collect();
            let footer = footer::encode(place, groups.len() as u32, &parts);
            bytes[end..end + footer.len()].copy_from_slice(&footer);
            if !has_footer {
                bytes[end..].fill(0);
            }
        });
        rig.damage("slot-002.seg", |bytes| {
            let header = SegmentHeader::decode(bytes).unwrap();
            let previous = LogEnd { chain, ..header.previous };
            bytes[..BLOCK_BYTES].copy_from_slice(&SegmentHeader { previous, ..header }.encode());
            let (at, first) = groups_in(bytes)[0];
            reseal(bytes, at, GroupHeader { prev_chain: chain, ..first });
        });
        assert_eq!(unknown(&rig), named("slot-001.seg", 4 * 4096, "record kind 65"));
    }
}

/// A log with two checkpoints, the newest of them changed by `change`, which gets its group of records, where in it the
/// payload of the first `GROUP_STATE` starts, and where that run does. Returns the place of the group.
fn with_checkpoint(change: impl FnOnce(&mut [u8], usize, usize)) -> (Rig, String, usize) {
    let rig = Rig::new(busy(), 2);
    let (log, _) = with_writes(&rig, 60);
    drop(log);
    let [Some(reference), Some(_)] = rig.control().checkpoints else { panic!("two checkpoints") };
    let file = rig.slot_of(reference.end.place.segment);
    let at = reference.end.place.offset as usize - BLOCK_BYTES;
    let mut chain = 0;
    rig.damage(&file, |bytes| {
        let (_, header) = *groups_in(bytes).iter().find(|(found, _)| *found == at).expect("a checkpoint of one block");
        let start = at + GROUP_HEADER_BYTES;
        let directory = &bytes[start..start + header.dir_len as usize];
        let run = Runs::new(directory).find(|run| run.head.kind == KIND_GROUP_STATE).unwrap();
        let (run_at, record) = (run.at, run.records().next().unwrap());
        let payload_at = payloads_start(header.dir_len as usize) + record.offset;
        change(&mut bytes[at..at + BLOCK_BYTES], payload_at, GROUP_HEADER_BYTES + run_at);
        let crc = crc32fast::hash(&bytes[at + payload_at..][..record.length]);
        let record = Record { crc, ..record }.encode();
        bytes[start + run_at + RUN_BYTES..][..record.len()].copy_from_slice(&record);
        chain = reseal(bytes, at, header);
    });
    // The control file names the end of the checkpoint with its chain value.
    let chained = |known: CheckpointRef| CheckpointRef { end: LogEnd { chain, ..known.end }, ..known };
    rig.damage("ctl", |bytes| {
        for block in bytes.chunks_mut(BLOCK_BYTES) {
            let control = Control::decode(block).unwrap();
            let checkpoints = control.checkpoints.map(|known| match known {
                Some(known) if known == reference => Some(chained(known)),
                other => other,
            });
            block.copy_from_slice(&Control { checkpoints, ..control }.encode());
        }
    });
    (rig, file, at)
}

#[test]
fn case_48_a_checkpoint_that_only_a_newer_version_knows_is_not_passed_over_for_an_older_one() {
    let (untouched, _, _) = with_checkpoint(|_, _, _| {});
    assert!(untouched.open().1.checkpoint_unreadable.is_none(), "it is read as it was before");
    let (rig, file, at) = with_checkpoint(|group, payload_at, _| group[payload_at + 8] |= 2);
    assert_eq!(unknown(&rig), named(&file, at, "feature flags 0x2"));
    for looked_at in [verify(&rig.disk).unwrap_err(), stat(&rig.disk).unwrap_err()] {
        assert!(matches!(looked_at, LogError::UnknownFormat { offset, .. } if offset == at as u64), "{looked_at}");
    }
    let (rig, file, at) = with_checkpoint(|group, _, run_at| group[run_at] = 0x41);
    assert_eq!(unknown(&rig), named(&file, at, "record kind 65"));
}
