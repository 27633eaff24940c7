//! Fuzzing by an engine that watches which code an input reaches. The input says what is done to a log.
//!
//! `cargo test` runs a few hundred random inputs of each target. `docs/TESTING.md` has the command that runs one for as
//! long as you like. An input that failed is kept as a file and run first from then on.

use std::cell::RefCell;
use std::sync::Arc;

use bolero::check;
use pontoon_wal::format::checkpoint::{GroupFact, Head, RunPlace, SegmentFact};
use pontoon_wal::format::control::Control;
use pontoon_wal::format::footer::{self, FooterPlace};
use pontoon_wal::format::group::{GROUP_HEADER_BYTES, Group, GroupHeader};
use pontoon_wal::format::record::{self, RUN_BYTES, Runs};
use pontoon_wal::format::segment_header::SegmentHeader;
use pontoon_wal::format::{BLOCK_BYTES, SegmentId, Seq};
use pontoon_wal::inspect::{Loss, dump, stat, verify};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::repair::{plan, rebuild_into};
use pontoon_wal::{Log, Preparation};

use crate::allocation::{Allocated, allocated};
use crate::common::{IDENTITY, Rig};
use crate::fuzz::{
    Claim, image_bytes, kept_log, lie_in_checkpoint, lie_in_cold_segments, lie_in_control, lie_in_footer,
    lie_in_header, log_of_40, survives,
};

const SEGMENT_BYTES: usize = 36 << 10;

/// Inputs of each target in `cargo test`.
const ITERATIONS: usize = 300;

/// An input, read from its front. Behind its end everything is zero.
struct Input<'a>(RefCell<&'a [u8]>);

impl Input<'_> {
    fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let mut left = self.0.borrow_mut();
        let (taken, rest) = left.split_at(N.min(left.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        *left = rest;
        bytes
    }

    fn byte(&self) -> usize {
        usize::from(self.bytes::<1>()[0])
    }

    fn short(&self) -> u32 {
        u16::from_le_bytes(self.bytes()).into()
    }

    fn word(&self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn number(&self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn is_used_up(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Overwrites a part of some bytes, as long and from where the input says.
    fn overwrite(&self, bytes: &mut [u8]) {
        let (at, length) = (self.short() as usize % bytes.len().max(1), self.byte());
        for byte in bytes.iter_mut().skip(at).take(length) {
            *byte = self.bytes::<1>()[0];
        }
    }
}

/// Reads some bytes as everything that a log is made of.
fn decode_all(bytes: &[u8], place: FooterPlace) {
    let _ = SegmentHeader::decode(bytes);
    let _ = Control::decode(bytes);
    let _ = (Head::decode(bytes), GroupFact::decode(bytes), SegmentFact::decode(SegmentId(1), bytes));
    let _ = RunPlace::decode_all(bytes).map(Iterator::count);
    let _ = footer::claimed_length(bytes, SEGMENT_BYTES);
    let _ = footer::is_like(bytes, place);
    if let Ok(groups) = footer::decode(bytes, place) {
        let runs: usize = groups.iter().map(|group| Runs::new(group.directory).count()).sum();
        assert!(runs <= bytes.len());
    }
    for offset in (0..bytes.len()).step_by(BLOCK_BYTES) {
        if let Ok(group) = Group::identify(bytes, IDENTITY.log, offset) {
            let _ = group.check_payloads();
            let records: usize = group.runs().map(|run| run.records().count()).sum();
            assert!(records <= bytes.len());
        }
    }
}

/// Everything that an operator may ask of a log that is damaged.
fn look(rig: &Rig) {
    let ((), Allocated { largest, peak }) = allocated(|| {
        let _ = stat(&rig.disk);
        let _ = verify(&rig.disk);
        let _ = plan(&rig.disk);
        let _ = dump(&rig.disk, &mut |_| Ok(()));
    });
    assert!(largest <= rig.options.segment_bytes as usize + BLOCK_BYTES, "{largest} bytes at once");
    let image_bytes = image_bytes(rig);
    assert!(peak <= image_bytes, "{peak} bytes held for {image_bytes} of files");
}

/// A repair that can be planned can be carried out or is refused, and what it made opens.
fn repair(rig: &Rig) {
    let Ok(planned) = plan(&rig.disk) else { return };
    let target = MemoryDisk::with_salts(77);
    if planned.identity != IDENTITY || rebuild_into(&rig.disk, &target).is_err() {
        return;
    }
    let built = verify(&target).unwrap();
    let only_payloads = built.damage.iter().all(|damage| matches!(damage.loss, Loss::Payload(..)));
    assert!(built.refusal.is_none() && only_payloads, "{built:?}");
    let opened = Log::open_in(Arc::new(target), IDENTITY, &rig.options, Preparation::Inline);
    assert!(opened.is_ok(), "{:?}", opened.err());
}

/// Changes what stands behind a checksum, and makes the checksum right.
fn lie(rig: &Rig, input: &Input<'_>) {
    let change = |bytes: &mut [u8]| input.overwrite(bytes);
    match input.byte() % 6 {
        0 => {
            let slots = rig.slots();
            rig.damage(&slots[input.byte() % slots.len()], |bytes| {
                let claim = Claim { dir_len: input.short(), payload_len: input.short(), runs: input.short() };
                lie_in_header(bytes, input.byte(), claim, &change);
            });
        }
        1 => lie_in_footer(rig, input.byte(), Some(input.short()), &change),
        2 => lie_in_footer(rig, input.byte(), None, &change),
        3 => lie_in_checkpoint(rig, input.byte() % 2 == 1, &change),
        4 => lie_in_cold_segments(rig, &change),
        _ => {
            let keep = input.byte() as u8;
            let number = |_| if input.byte().is_multiple_of(2) { input.number() } else { input.byte() as u64 };
            lie_in_control(rig, std::array::from_fn(number), input.word(), keep, usize::from(keep >= 128));
        }
    }
}

/// Overwrites a part of any file, changes its length, or puts a block of one segment into another.
fn damage(rig: &Rig, input: &Input<'_>) {
    let how = input.byte() % 8;
    if !how.is_multiple_of(4) {
        let names = rig.disk.file_names();
        return rig.damage(&names[input.byte() % names.len()], |bytes| match how {
            7 => bytes.resize(input.short() as usize % (2 * SEGMENT_BYTES), 0),
            _ => input.overwrite(bytes),
        });
    }
    let slots = rig.slots();
    let (from, to) = (&slots[input.byte() % slots.len()], &slots[input.byte() % slots.len()]);
    let block = input.byte() % (SEGMENT_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
    let of = rig.disk.content(from).unwrap();
    let Some(misdirected) = of.get(block..block + BLOCK_BYTES) else { return };
    rig.damage(to, |bytes| {
        if let Some(bytes) = bytes.get_mut(block..block + BLOCK_BYTES) {
            bytes.copy_from_slice(misdirected);
        }
    });
}

#[test]
fn case_50_guided_any_bytes_as_any_structure() {
    check!().with_iterations(10 * ITERATIONS).for_each(|input: &[u8]| {
        let input = Input(RefCell::new(input));
        let place = FooterPlace { log: IDENTITY.log, segment: SegmentId(1), salt: 7, offset: BLOCK_BYTES as u64 };
        let (how, claim) = (input.byte(), [input.word(), input.word(), input.short()]);
        let mut bytes = input.0.borrow().to_vec();
        bytes.truncate(SEGMENT_BYTES);
        let ((), of_bytes) = allocated(|| decode_all(&bytes, place));
        assert!(of_bytes.peak <= bytes.len(), "{of_bytes:?} for {} bytes", bytes.len());
        // The same bytes behind right checksums.
        let [dir_len, payload_len, runs] = claim;
        let (dir_len, payload_len) =
            if how.is_multiple_of(2) { (dir_len, payload_len) } else { (dir_len % 5000, payload_len % 30_000) };
        let footer = footer::encode(place, runs, &bytes);
        let mut segment = vec![0; SEGMENT_BYTES];
        let room = &mut segment[BLOCK_BYTES + GROUP_HEADER_BYTES..];
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        let dir_crc = crc32fast::hash(&room[..room.len().min(dir_len as usize)]);
        let header = GroupHeader {
            dir_len,
            dir_crc,
            payload_len,
            runs,
            prev_chain: 0,
            seq: Seq(1),
            durable_seq: Seq(0),
            segment: place.segment,
            salt: place.salt,
            flags: how as u16 / 2,
        };
        segment[BLOCK_BYTES..BLOCK_BYTES + GROUP_HEADER_BYTES]
            .copy_from_slice(&header.encode(IDENTITY.log, BLOCK_BYTES as u64).0);
        let ((), of_segment) = allocated(|| {
            decode_all(&footer, place);
            decode_all(&segment, place);
            if record::check_directory(&bytes, runs, payload_len as usize).is_ok() {
                assert!(Runs::new(&bytes).count() <= bytes.len() / RUN_BYTES + 1);
            }
        });
        assert!(of_segment.peak <= footer.len(), "{of_segment:?} for {} bytes", footer.len());
    });
}

#[test]
fn case_50_guided_anything_done_to_a_whole_log() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let input = Input(RefCell::new(input));
        let rig = if input.byte().is_multiple_of(4) { log_of_40() } else { kept_log() };
        // First what looks right, as the damage behind it may hide it.
        let (lies, damages) = (input.byte() % 4, input.byte() % 4);
        (0..lies).filter(|_| !input.is_used_up()).for_each(|_| lie(&rig, &input));
        (0..damages).filter(|_| !input.is_used_up()).for_each(|_| damage(&rig, &input));
        look(&rig);
        repair(&rig);
        survives(&rig).unwrap();
    });
}
