//! Any bytes as a segment or a control file: an answer, never a panic, and no allocation that the files do not explain.
//!
//! Bytes are changed anywhere, and where checksums would hide what stands behind them, they are made right again: in
//! groups, footers, checkpoints, cold segments and in what the control file says of checkpoints. `PONTOON_FUZZ_CASES=N`
//! runs another number of cases of each kind.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pontoon_types::{CoreWriteNumber, GroupId};
use pontoon_wal::format::control::{CheckpointRef, Control};
use pontoon_wal::format::footer::{self, FOOTER_HEADER_BYTES, FooterPlace};
use pontoon_wal::format::group::{GROUP_HEADER_BYTES, Group, GroupHeader, payloads_start};
use pontoon_wal::format::record::RUN_BYTES;
use pontoon_wal::format::segment_header::Stream;
use pontoon_wal::format::{BLOCK_BYTES, CONTROL_NAME, LogEnd, Lsn, SegmentId, Seq};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::{Log, LogError, Preparation};
use proptest::prelude::*;

use crate::allocation::{Allocated, allocated};
use crate::cases::with_writes;
use crate::common::{IDENTITY, Rig, compact, entries, entry, groups_in, small, vote};
use crate::keeping::busy;

/// Cases of each kind.
fn config() -> ProptestConfig {
    let cases = std::env::var("PONTOON_FUZZ_CASES").map_or(400, |cases| cases.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Opens whatever is there, and uses it.
pub fn survives(rig: &Rig) -> Result<(), TestCaseError> {
    let image_bytes = image_bytes(rig);
    let (used, Allocated { largest, peak }) = allocated(|| use_it(rig));
    used?;
    let segment_bytes = rig.options.segment_bytes as usize;
    prop_assert!(largest <= segment_bytes + BLOCK_BYTES, "{largest} bytes at once");
    // A mapping is a copy on this disk. The log holds each file mapped at most once, and the keeper reads one segment
    // beside; what they know of a log as small as this is a few KiB. In 48,000 cases the most was 40 KiB below the image.
    prop_assert!(peak <= image_bytes + segment_bytes, "{peak} bytes held for {image_bytes} of files");
    Ok(())
}

/// The size of all files together.
pub fn image_bytes(rig: &Rig) -> usize {
    rig.disk.image().values().map(Vec::len).sum()
}

fn use_it(rig: &Rig) -> Result<(), TestCaseError> {
    let opened = Log::open_in(Arc::new(rig.disk.clone()), IDENTITY, &rig.options, Preparation::Inline);
    let Ok((mut log, recovered)) = opened else { return Ok(()) };
    // A lie with right checksums may be believed. It is not read beyond what there is.
    recovered.groups.keys().for_each(|group| drop(log.load(*group)));
    let entries = log.load(GroupId(2)).map_or(0, |loaded| loaded.entries.len());
    prop_assert!(entries <= 40);
    drop(recovered);
    // What was found is what the keeper reads too. A log that cannot go on says so.
    let _ = log.scrub();
    for number in 1..=12 {
        log.append(CoreWriteNumber(number), &[vote(3, 1000 + number, 1), vote(2, 1000 + number, 1)]);
        match log.begin_sync() {
            Ok(Some(sync)) => drop(log.finish_sync(rig.disk.sync(sync.fd))),
            Ok(None) => {}
            Err(error) => {
                let answers = matches!(error, LogError::Fenced { .. } | LogError::Full { .. });
                prop_assert!(answers, "{error}");
                break;
            }
        }
    }
    Ok(())
}

/// A log with footers, two checkpoints and a cold segment.
pub fn kept_log() -> Rig {
    thread_local! {
        static IMAGE: OnceCell<BTreeMap<String, Vec<u8>>> = const { OnceCell::new() };
    }
    let build = || {
        let rig = Rig::new(busy(), 2);
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[entries(2, (1..=9).map(|index| entry(index, 1, vec![7; 300])).collect())]);
        let mut number = 1;
        while log.stats().moved_runs == 0 || log.stats().checkpoints < 3 {
            number += 1;
            let fill = entries(3, vec![entry(number - 1, 1, vec![1; 9000])]);
            rig.commit(&mut log, number, &[fill, compact(3, number - 1, 1)]);
        }
        rig.disk.image()
    };
    let disk = MemoryDisk::new();
    IMAGE.with(|image| {
        image.get_or_init(build).iter().for_each(|(name, content)| disk.replace(name, content.clone()));
    });
    Rig { disk, options: busy() }
}

fn slots_of(rig: &Rig, stream: Stream) -> Vec<String> {
    let is_of = |name: &String| rig.header(name).is_some_and(|header| header.stream == stream);
    rig.slots().into_iter().filter(is_of).collect()
}

/// Puts right every checksum of the group at `offset`, whatever its directory and payloads are now. Returns its chain.
fn make_right(bytes: &mut [u8], offset: usize, header: GroupHeader) -> u32 {
    let start = offset + GROUP_HEADER_BYTES;
    let (dir_len, payloads) = (header.dir_len as usize, offset + payloads_start(header.dir_len as usize));
    let mut at = start;
    while at + RUN_BYTES <= start + dir_len {
        let count = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        at += RUN_BYTES;
        for _ in 0..count {
            if at + 12 > start + dir_len {
                break;
            }
            let word = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap()) as usize;
            let (from, length) = (payloads.saturating_add(word(at) * 16), word(at + 4));
            let crc = from.checked_add(length).and_then(|end| bytes.get(from..end)).map_or(0, crc32fast::hash);
            bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
            at += 12;
        }
    }
    let dir_crc = crc32fast::hash(&bytes[start..start + dir_len]);
    let (encoded, chain) = GroupHeader { dir_crc, ..header }.encode(IDENTITY.log, offset as u64);
    bytes[offset..start].copy_from_slice(&encoded);
    chain
}

/// Bytes to change: where, as a share of what there is, and to what.
type Lies = Vec<(prop::sample::Index, u8)>;

fn lies() -> impl Strategy<Value = Lies> {
    prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()]), 1..6)
}

fn lie(bytes: &mut [u8], lies: &Lies) {
    if !bytes.is_empty() {
        lies.iter().for_each(|(at, byte)| bytes[at.index(bytes.len())] = *byte);
    }
}

/// What is done to some bytes behind a checksum.
pub type Change<'a> = &'a dyn Fn(&mut [u8]);

/// What a group's header says of what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub dir_len: u32,
    pub payload_len: u32,
    pub runs: u32,
}

/// Changes the directory and the payloads of a group, up to the end of what it uses, and makes the checksums right.
fn lie_in_group(bytes: &mut [u8], offset: usize, change: Change<'_>) -> Option<u32> {
    let header = Group::identify(bytes, IDENTITY.log, offset).ok()?.header;
    let end = offset + payloads_start(header.dir_len as usize) + header.payload_len as usize;
    change(&mut bytes[offset + GROUP_HEADER_BYTES..end]);
    Some(make_right(bytes, offset, header))
}

/// Changes the header of a group and the beginning of its directory, with right checksums.
pub fn lie_in_header(bytes: &mut [u8], group: usize, claim: Claim, change: Change<'_>) {
    let groups = groups_in(bytes);
    let Some((offset, header)) = groups.get(group % groups.len().max(1)).copied() else { return };
    let start = offset + GROUP_HEADER_BYTES;
    let end = (start + claim.dir_len as usize).min(bytes.len());
    change(&mut bytes[start..end.max(start + RUN_BYTES)]);
    let dir_crc = crc32fast::hash(&bytes[start..end]);
    let Claim { dir_len, payload_len, runs } = claim;
    let (encoded, _) =
        GroupHeader { dir_len, payload_len, runs, dir_crc, ..header }.encode(IDENTITY.log, offset as u64);
    bytes[offset..start].copy_from_slice(&encoded);
}

/// Changes what the footer of a closed segment says, and of how many groups, with a right checksum.
pub fn lie_in_footer(rig: &Rig, slot: usize, count: Option<u32>, change: Change<'_>) {
    let mut closed = slots_of(rig, Stream::Log);
    closed.retain(|name| *name != rig.newest());
    let Some(name) = closed.get(slot % closed.len().max(1)) else { return };
    let header = rig.header(name).unwrap();
    rig.damage(name, |bytes| {
        let Some((at, last)) = groups_in(bytes).last().copied() else { return };
        let offset = at + last.group_len();
        let place =
            FooterPlace { log: IDENTITY.log, segment: header.segment, salt: header.salt, offset: offset as u64 };
        let Ok(groups) = footer::decode(bytes.get(offset..).unwrap_or_default(), place) else { return };
        let count = count.unwrap_or(groups.len() as u32);
        let length: usize = groups.iter().map(|group| GROUP_HEADER_BYTES + group.directory.len()).sum();
        let mut parts = bytes[offset + FOOTER_HEADER_BYTES..][..length].to_vec();
        change(&mut parts);
        let encoded = footer::encode(place, count, &parts);
        bytes[offset..offset + encoded.len()].copy_from_slice(&encoded);
    });
}

/// Changes a checkpoint, and what the control file says of its checksum. The older one makes it good, unless it is that
/// one that is changed.
pub fn lie_in_checkpoint(rig: &Rig, older: bool, change: Change<'_>) {
    let mut control = rig.control();
    let position = usize::from(older);
    let Some(CheckpointRef { start, end }) = control.checkpoints[position] else { return };
    let holds = |name: &String| rig.header(name).is_some_and(|header| header.segment == end.place.segment);
    let Some(name) = rig.slots().into_iter().find(holds) else { return };
    rig.damage(&name, |bytes| {
        // Small checkpoints are one group each.
        let within = start.place.segment == end.place.segment;
        let offset = if within { start.place.offset as usize } else { BLOCK_BYTES };
        if let Some(chain) = lie_in_group(bytes, offset, change) {
            control.checkpoints[position] = Some(CheckpointRef { start, end: LogEnd { chain, ..end } });
        }
    });
    if !older {
        // So that nothing makes it good.
        control.checkpoints[1] = None;
    }
    replace_control(rig, &control);
}

/// Changes the first group of each cold segment.
pub fn lie_in_cold_segments(rig: &Rig, change: Change<'_>) {
    for name in slots_of(rig, Stream::Cold) {
        rig.damage(&name, |bytes| {
            let _ = lie_in_group(bytes, BLOCK_BYTES, change);
        });
    }
}

/// What the control file says of a checkpoint: each part is a lie, or what it was, by the bits of `keep`.
pub fn lie_in_control(rig: &Rig, numbers: [u64; 8], chain: u32, keep: u8, position: usize) {
    let mut control = rig.control();
    let Some(known) = control.checkpoints[position] else { return };
    let pick = |bit: u8, lie: LogEnd, was: LogEnd| if keep & bit == 0 { lie } else { was };
    let block = |number: u64| number.wrapping_mul(if number < 40 { 4096 } else { 1 });
    let end = |from: usize| LogEnd {
        place: Lsn { segment: SegmentId(numbers[from]), offset: block(numbers[from + 1]) },
        seq: Seq(numbers[from + 2]),
        chain,
    };
    let (start_was, end_was) = (known.start, known.end);
    let start = pick(1, end(0), start_was);
    let end = LogEnd { seq: if keep & 4 == 0 { Seq(numbers[7]) } else { end_was.seq }, ..pick(2, end(3), end_was) };
    control.checkpoints[position] = Some(CheckpointRef { start, end });
    if keep & 8 == 0 {
        control.checkpoints[1 - position] = None;
    }
    replace_control(rig, &control);
}

fn replace_control(rig: &Rig, control: &Control) {
    let block = control.encode();
    rig.disk.replace(CONTROL_NAME, [block, block].concat());
}

pub fn log_of_40() -> Rig {
    let rig = Rig::new(small(), 2);
    drop(with_writes(&rig, 40).0);
    rig
}

#[test]
fn case_50_a_footer_that_claims_more_groups_than_lie_before_it_takes_no_memory() {
    let place = FooterPlace { log: IDENTITY.log, segment: SegmentId(1), salt: 7, offset: 2 * BLOCK_BYTES as u64 };
    // With right checksums, and as small as they can be.
    let group = |number: u64| {
        let header = GroupHeader {
            dir_len: 0,
            dir_crc: 0,
            payload_len: 0,
            runs: 0,
            prev_chain: 0,
            seq: Seq(1 + number),
            durable_seq: Seq(number),
            segment: place.segment,
            salt: place.salt,
            flags: 0,
        };
        header.encode(IDENTITY.log, (1 + number) * BLOCK_BYTES as u64).0
    };
    let parts: Vec<u8> = (0..500).flat_map(group).collect();
    let one = footer::encode(place, 1, &parts[..GROUP_HEADER_BYTES]);
    assert_eq!(footer::decode(&one, place).unwrap().len(), 1, "the groups are well made");
    let bytes = footer::encode(place, 500, &parts);
    let (refused, Allocated { largest, .. }) = allocated(|| footer::decode(&bytes, place).is_err());
    assert!(refused && largest <= BLOCK_BYTES, "{largest} bytes for a footer of {}", bytes.len());
}

proptest! {
    #![proptest_config(config())]

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
        let (dir_len, payload_len) =
            if small_lies { (dir_len % 5000, payload_len % 30_000) } else { (dir_len, payload_len) };
        rig.damage("slot-001.seg", |bytes| {
            lie_in_header(bytes, at, Claim { dir_len, payload_len, runs }, &|directory| {
                directory[0] = kind;
                directory[4..8].copy_from_slice(&count.to_le_bytes());
            });
        });
        survives(&rig)?;
    }

    #[test]
    fn case_50_flipped_bytes_in_a_log_with_checkpoints_and_copies(file in any::<prop::sample::Index>(), changes in lies()) {
        let rig = kept_log();
        let names = rig.disk.file_names();
        rig.damage(&names[file.index(names.len())], |bytes| lie(bytes, &changes));
        survives(&rig)?;
    }

    #[test]
    fn case_50_lies_in_a_footer_with_a_right_checksum(slot: u8, count: u8, changes in lies()) {
        let rig = kept_log();
        let count = (count >= 200).then_some(u32::from(count));
        lie_in_footer(&rig, usize::from(slot), count, &|bytes| lie(bytes, &changes));
        survives(&rig)?;
    }

    #[test]
    fn case_50_lies_in_a_checkpoint_with_right_checksums(changes in lies(), older: bool) {
        let rig = kept_log();
        lie_in_checkpoint(&rig, older, &|bytes| lie(bytes, &changes));
        survives(&rig)?;
    }

    #[test]
    fn case_50_lies_in_a_cold_segment_with_right_checksums(changes in lies()) {
        let rig = kept_log();
        lie_in_cold_segments(&rig, &|bytes| lie(bytes, &changes));
        survives(&rig)?;
    }

    #[test]
    fn case_50_lies_about_checkpoints_in_the_control_file(
        numbers in prop::array::uniform8(prop_oneof![0..40_u64, any::<u64>()]), chain: u32, keep in 0..16_u8, position in 0..2_usize,
    ) {
        let rig = kept_log();
        lie_in_control(&rig, numbers, chain, keep, position);
        survives(&rig)?;
    }
}
