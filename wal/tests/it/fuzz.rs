//! Any bytes as a segment or a control file: an answer, never a panic, and no allocation that the files do not explain.

use pontoon_types::GroupId;
use proptest::prelude::*;

use crate::allocation::largest_allocation;
use crate::cases::with_writes;
use crate::common::{Rig, groups_in, small};

/// Opens whatever is there. One segment is held in memory, and the entries of a small log.
fn survives(rig: &Rig) -> Result<(), TestCaseError> {
    let mut opened = None;
    let largest = largest_allocation(|| opened = Some(rig.try_open()));
    prop_assert!(largest <= 2 * rig.options.segment_bytes as usize, "{largest} bytes at once");
    if let Some(Ok((_, recovered))) = opened {
        let entries = recovered.groups.get(&GroupId(2)).map_or(0, |group| group.entries.len());
        prop_assert!(entries <= 40);
    }
    Ok(())
}

fn log_of_40() -> Rig {
    let rig = Rig::new(small(), 2);
    drop(with_writes(&rig, 40).0);
    rig
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn case_50_random_bytes_as_a_segment(seed in any::<u64>(), slot in 1..7_usize, from in 0..9_usize) {
        let rig = log_of_40();
        let mut random = crate::common::Random(seed);
        rig.damage(&format!("slot-{slot:03}.seg"), |bytes| {
            let start = if from == 8 { 64 } else { from * 4096 };
            bytes[start..].iter_mut().for_each(|byte| *byte = random.next() as u8);
        });
        survives(&rig)?;
    }

    #[test]
    fn case_50_flipped_bytes_anywhere(flips in prop::collection::vec((0..8_usize, 0..32_768_usize, any::<u8>()), 1..6)) {
        let rig = log_of_40();
        for (file, at, byte) in flips {
            let name = if file == 0 { "ctl".to_string() } else { format!("slot-{file:03}.seg") };
            if rig.disk.content(&name).is_some() {
                rig.damage(&name, |bytes| { let at = at % bytes.len(); bytes[at] = byte; });
            }
        }
        survives(&rig)?;
    }

    /// Lengths and counts with right checksums reach the parser behind them.
    #[test]
    fn case_50_lies_with_right_checksums(dir_len: u32, payload_len: u32, runs: u32, count: u32, kind: u8, at in 0..8_usize, small_lies: bool) {
        let rig = log_of_40();
        rig.damage("slot-001.seg", |bytes| {
            let (offset, header) = groups_in(bytes)[at % 6];
            let (dir_len, payload_len) =
                if small_lies { (dir_len % 5000, payload_len % 30_000) } else { (dir_len, payload_len) };
            let start = offset + 64;
            bytes[start] = kind;
            bytes[start + 4..start + 8].copy_from_slice(&count.to_le_bytes());
            let end = (start + dir_len as usize).min(bytes.len());
            let dir_crc = crc32fast::hash(&bytes[start..end]);
            let lie = pontoon_wal::format::group::GroupHeader { dir_len, payload_len, runs, dir_crc, ..header };
            let (encoded, _) = lie.encode(crate::common::IDENTITY.log, offset as u64);
            bytes[offset..start].copy_from_slice(&encoded);
        });
        survives(&rig)?;
    }
}
