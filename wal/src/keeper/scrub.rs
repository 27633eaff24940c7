//! Reads what is stored before somebody needs it.
//!
//! Disks lose sectors that nobody reads, and the copy that could repair them may be gone when it is noticed. So every
//! closed segment is read from the disk, past the cache, once after the log has become quiet and then once a day, and each checksum
//! is verified. What is found is reported with the name of the entry, so that it can be fetched from a peer. A block that
//! the disk refuses to read is such a find; a segment of which it refuses every block is a disk that has failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use pontoon_types::{GroupId, Index, LogId, Term};

use super::{Keeper, Kept};
use crate::format::footer;
use crate::format::group::Group;
use crate::format::record::{KIND_ENTRIES, KIND_RESTORED, Run};
use crate::format::segment_header::Stream;
use crate::format::{BLOCK_BYTES, SegmentKey, slot_name};
use crate::storage::{AlignedBuffer, SegmentFile};
use crate::unreadable::{read_blocks, refuse_all};

/// The whole log is read once in this time.
const SCRUB_CYCLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most bytes that one scrub reads in a second.
const SCRUB_BYTES_PER_SECOND: u64 = 16 << 20;

/// What is read between two rests.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes on the disk that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rot {
    /// The segment file.
    pub file: String,
    /// Where the damaged part starts: a payload's run, or a group of records.
    pub offset: u64,
    /// The entry whose payload it is. None when it is something else; then nothing that a peer could give is lost.
    pub entry: Option<RottenEntry>,
}

/// An entry whose payload is rotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RottenEntry {
    /// Its group.
    pub group: GroupId,
    /// Which entry.
    pub id: LogId,
    /// The checksum of the payload that was written. Memory may be a mapping of the same rotten bytes, so only what has
    /// this checksum may be written in their place.
    pub crc: u32,
}

/// Damage, and where it was found.
pub(crate) struct Found {
    pub(crate) rot: Rot,
    /// The segment.
    pub(crate) segment: SegmentKey,
    /// The offset of the first payload of the group of records that the damage is in.
    pub(crate) payloads_at: u32,
}

/// Which segment comes next, and when. Times are those since it was made.
#[derive(Debug, Default)]
pub(crate) struct ScrubQueue {
    fresh: VecDeque<SegmentKey>,
    /// What is kept, as of the last call, in the order in which it is read. What came since stands at the end: a log that
    /// goes on faster than it is read would keep a round that follows the numbers from ever beginning anew.
    round: VecDeque<SegmentKey>,
    /// When the last of the round was read.
    read_at: Duration,
    /// When the last segment was closed.
    closed_at: Duration,
}

/// Most fresh segments that wait to be read back; a log that closes them faster is read back once a day only.
const FRESH_MAX: usize = 4;

/// A segment is read back once the log has closed none for so long: a reader beside a busy log is felt by each sync.
const SCRUB_QUIET: Duration = Duration::from_secs(10);

impl ScrubQueue {
    /// A segment was closed.
    pub(crate) fn closed(&mut self, segment: SegmentKey, now: Duration) {
        self.closed_at = now;
        if self.fresh.len() < FRESH_MAX {
            self.fresh.push_back(segment);
        }
    }

    /// When a segment is to be read, if so many are kept. The round goes on in its time whatever else is read: a log that
    /// always has a fresh one would put off the others for ever.
    pub(crate) fn due_at(&self, segments: usize) -> Duration {
        let of_round = self.read_at + scrub_interval(segments);
        if self.fresh.is_empty() { of_round } else { of_round.min(self.closed_at + SCRUB_QUIET) }
    }

    /// The segment to read now: a fresh one if the log is quiet, or the next of the round.
    pub(crate) fn next<T>(&mut self, kept: &BTreeMap<SegmentKey, T>, now: Duration) -> Option<SegmentKey> {
        if now >= self.closed_at + SCRUB_QUIET
            && let Some(fresh) = self.fresh.pop_front()
        {
            return Some(fresh);
        }
        self.read_at = now;
        self.round.retain(|key| kept.contains_key(key));
        let known: BTreeSet<SegmentKey> = self.round.iter().copied().collect();
        self.round.extend(kept.keys().filter(|key| !known.contains(key)));
        let next = self.round.pop_front()?;
        self.round.push_back(next);
        Some(next)
    }

    /// A segment was not read to its end: it is the next of the round.
    pub(crate) fn again(&mut self, segment: SegmentKey) {
        self.round.retain(|key| *key != segment);
        self.round.push_front(segment);
    }
}

/// How long to wait between two segments of so many, so that all are read once in a cycle.
fn scrub_interval(segments: usize) -> Duration {
    SCRUB_CYCLE / (segments.max(1) as u32)
}

/// How long to rest for bytes that were read.
pub(crate) fn rest_after(bytes: u64) -> Duration {
    Duration::from_secs(bytes) / SCRUB_BYTES_PER_SECOND as u32
}

impl Keeper {
    /// Reads one segment from the disk. `go_on` is called with the bytes just read, rests, and may end it early, when it
    /// says nothing ([`ScrubQueue::again`]).
    pub(crate) fn scrub(&self, key: SegmentKey, go_on: &mut dyn FnMut(u64) -> bool) -> io::Result<Option<Vec<Found>>> {
        let Some(kept) = self.start.kept.get(&key) else { return Ok(Some(Vec::new())) };
        let mut buffer = AlignedBuffer::new(self.start.origin.segment_bytes as usize);
        let Some(refused) = read_in_pieces(kept.slot.file.as_ref(), buffer.bytes_mut(), go_on)? else {
            return Ok(None);
        };
        refuse_all(&refused, buffer.bytes().len())?;
        let mut rot = rot_in(kept, buffer.bytes(), self.start.origin.identity.log);
        if refused.first() == Some(&0) {
            // Nothing is lost while the log runs, and the next start will be refused.
            let header = Rot { file: slot_name(kept.slot.slot), offset: 0, entry: None };
            rot.push(Found { rot: header, segment: key, payloads_at: 0 });
        }
        Ok(Some(rot))
    }

    /// Reads every segment from the disk.
    pub(crate) fn scrub_all(&self) -> io::Result<Vec<Found>> {
        let mut rot = Vec::new();
        for key in self.start.kept.keys() {
            rot.extend(self.scrub(*key, &mut |_| true)?.unwrap_or_default());
        }
        Ok(rot)
    }
}

/// Reads a file from its beginning. False when `go_on`, which is called with the bytes just read, ended it early.
fn read_in_pieces(
    file: &dyn SegmentFile,
    into: &mut [u8],
    go_on: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Option<Vec<u64>>> {
    let (mut offset, mut refused) = (0, Vec::new());
    for piece in into.chunks_mut(PIECE_BYTES) {
        refused.extend(read_blocks(file, offset, piece)?);
        offset += piece.len() as u64;
        if !go_on(piece.len() as u64) {
            return Ok(None);
        }
    }
    Ok(Some(refused))
}

/// Everything in a segment that is not what was written. A damaged directory is looked up in the footer, so that the
/// entries behind it are still read.
fn rot_in(kept: &Kept, bytes: &[u8], log: u128) -> Vec<Found> {
    if kept.fact.stream == Stream::Checkpoint {
        // Its end is known by the control file only, and there are two of them; each is checked as a whole when used.
        return Vec::new();
    }
    let file = slot_name(kept.slot.slot);
    let footer_at = kept.fact.end_offset as usize;
    let place = super::footer_place(&kept.fact, log);
    let footer = footer::decode(bytes.get(footer_at..).unwrap_or_default(), place).unwrap_or_default();
    let segment = kept.fact.segment.key();
    let of_records = |offset| {
        let rot = Rot { file: file.clone(), offset: offset as u64, entry: None };
        Found { rot, segment, payloads_at: 0 }
    };
    let mut rot = Vec::new();
    // A crash may have ended a segment before it had one, or have lost it.
    if footer.is_empty() && kept.has_footer {
        rot.push(of_records(footer_at));
    }
    let mut offset = BLOCK_BYTES;
    while offset < footer_at {
        let known = footer.iter().find(|group| group.offset == offset);
        let found = Group::identify(bytes, log, offset).ok();
        if found.is_none() {
            rot.push(of_records(offset));
        }
        let (directory, header) = match (found, known) {
            (Some(group), _) => (group.directory, group.header),
            (None, Some(group)) => (group.directory, group.header),
            // Nothing says how long the group is.
            (None, None) => break,
        };
        let payloads_at = offset + crate::format::group::payloads_start(directory.len());
        for run in crate::format::record::Runs::new(directory) {
            let rotten = rot_in_run(&file, &run, bytes, payloads_at).into_iter();
            rot.extend(rotten.map(|rot| Found { rot, segment, payloads_at: payloads_at as u32 }));
        }
        offset += header.group_len();
    }
    rot
}

fn rot_in_run(file: &str, run: &Run<'_>, bytes: &[u8], payloads_at: usize) -> Vec<Rot> {
    let holds_entries = matches!(run.head.kind, KIND_ENTRIES | KIND_RESTORED);
    let mut rot = Vec::new();
    for (position, record) in run.records().enumerate() {
        let start = payloads_at + record.offset;
        if bytes.get(start..start + record.length).is_some_and(|payload| crc32fast::hash(payload) == record.crc) {
            continue;
        }
        let id = LogId::new(Index(run.head.index + position as u64), Term(run.head.term));
        let entry = holds_entries.then_some(RottenEntry { group: run.head.group, id, crc: record.crc });
        rot.push(Rot { file: file.to_string(), offset: start as u64, entry });
    }
    rot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDisk;
    use crate::storage::Storage;

    type Kept = BTreeMap<SegmentKey, ()>;

    fn kept(segments: impl IntoIterator<Item = u32>) -> Kept {
        segments.into_iter().map(|segment| (SegmentKey(segment), ())).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What the next `calls` return.
    fn drawn(queue: &mut ScrubQueue, kept: &Kept, now: Duration, calls: usize) -> Vec<u32> {
        (0..calls).map(|_| queue.next(kept, now).unwrap().0).collect()
    }

    fn sorted(mut segments: Vec<u32>) -> Vec<u32> {
        segments.sort_unstable();
        segments
    }

    #[test]
    fn what_was_not_read_to_its_end_is_read_next() {
        let kept: BTreeMap<SegmentKey, ()> = (1..=3).map(|key| (SegmentKey(key), ())).collect();
        let mut queue = ScrubQueue::default();
        let read = |queue: &mut ScrubQueue| queue.next(&kept, Duration::ZERO).unwrap().0;
        assert_eq!(read(&mut queue), 1);
        queue.again(SegmentKey(1));
        assert_eq!([read(&mut queue), read(&mut queue), read(&mut queue), read(&mut queue)], [1, 2, 3, 1]);
    }

    #[test]
    fn as_many_calls_as_there_are_segments_return_each_once() {
        let now = seconds(100);
        let mut queue = ScrubQueue::default();
        assert_eq!(queue.next(&kept([]), now), None);
        let three = kept([2, 5, 9]);
        for round in 1..=3 {
            assert_eq!(sorted(drawn(&mut queue, &three, now, 3)), [2, 5, 9], "round {round}");
        }
        assert_eq!(drawn(&mut queue, &three, now, 1), [2]);
        // In the middle of a round two come, one of them with a low number, and one that waits goes.
        let four = kept([1, 2, 9, 12]);
        assert_eq!(sorted(drawn(&mut queue, &four, now, 4)), [1, 2, 9, 12]);
        // The one read last goes.
        let last = drawn(&mut queue, &four, now, 1)[0];
        let left: Vec<u32> = [1, 2, 9, 12].into_iter().filter(|segment| *segment != last).collect();
        assert_eq!(sorted(drawn(&mut queue, &kept(left.clone()), now, 3)), left);
        assert_eq!(queue.next(&kept([]), now), None);
        assert_eq!(drawn(&mut queue, &kept([7]), now, 2), [7, 7]);
    }

    #[test]
    fn a_log_that_goes_on_faster_than_it_is_read_keeps_nothing_from_being_read() {
        let now = seconds(100);
        let mut queue = ScrubQueue::default();
        // Two old segments stay. Of the others each lives for six calls, so that the newest is never caught up with.
        let drawn: Vec<u32> = (0..64_u32)
            .map(|call| queue.next(&kept([1, 2].into_iter().chain(100 + 2 * call..112 + 2 * call)), now).unwrap().0)
            .collect();
        for old in [1, 2] {
            let calls: Vec<usize> = (0..64).filter(|call| drawn[*call] == old).collect();
            assert!(calls.len() > 3 && calls.windows(2).all(|two| two[1] - two[0] <= 14), "{old} in calls {calls:?}");
        }
    }

    #[test]
    fn fresh_segments_come_first_and_those_that_are_too_many_come_in_the_round() {
        let start = Duration::ZERO;
        let mut queue = ScrubQueue::default();
        let all = kept(1..=9);
        (3..=9).for_each(|segment| queue.closed(SegmentKey(segment), start));
        let quiet = start + SCRUB_QUIET;
        assert_eq!(queue.due_at(9), quiet);
        assert_eq!(drawn(&mut queue, &all, quiet, FRESH_MAX), [3, 4, 5, 6]);
        assert_eq!(queue.due_at(9), start + SCRUB_CYCLE / 9, "what was fresh has put nothing of the round off");
        assert_eq!(sorted(drawn(&mut queue, &all, quiet, 9)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        // There is room for fresh ones again, and they wait until the log is quiet.
        queue.closed(SegmentKey(9), quiet);
        assert_eq!(queue.due_at(9), quiet + SCRUB_QUIET);
        assert_ne!(queue.next(&all, quiet + SCRUB_QUIET - seconds(1)), Some(SegmentKey(9)));
        assert_eq!(queue.next(&all, quiet + SCRUB_QUIET), Some(SegmentKey(9)));
    }

    /// Reads what is due for one cycle. A segment is closed every `closes_every`, and the oldest but the first ten goes.
    /// Returns how often each of the first ten was read and how many reads there were.
    fn one_cycle(closes_every: Duration) -> (Vec<usize>, usize) {
        let start = Duration::ZERO;
        let mut queue = ScrubQueue::default();
        let mut all = kept(1..=40);
        let (mut now, mut closes_at, mut newest) = (start, start + closes_every, 40);
        let (mut reads, mut total) = (vec![0; 10], 0);
        loop {
            now = now.max(queue.due_at(all.len()).min(closes_at));
            if now > start + SCRUB_CYCLE {
                return (reads, total);
            }
            if now >= closes_at {
                newest += 1;
                all.insert(SegmentKey(newest), ());
                all.remove(&SegmentKey(newest - 30));
                queue.closed(SegmentKey(newest), now);
                closes_at += closes_every;
                continue;
            }
            let segment = queue.next(&all, now).unwrap().0;
            total += 1;
            if segment <= 10 {
                reads[segment as usize - 1] += 1;
            }
        }
    }

    #[test]
    fn every_segment_that_stays_is_read_once_in_a_cycle_however_busy_the_log_is() {
        // Never quiet; quiet before each next one; idle for longer than the round's interval; idle.
        for closes_every in [seconds(5), seconds(600), seconds(7200), 2 * SCRUB_CYCLE] {
            let (reads, total) = one_cycle(closes_every);
            // Those that go before their turn make the turn of the others come sooner, at the same rate.
            assert!(reads.iter().all(|reads| *reads >= 1), "{reads:?} reads, one closed every {closes_every:?}");
            assert!(closes_every < SCRUB_CYCLE || reads == [1; 10], "{reads:?} reads of an idle log");
            let fresh = (SCRUB_CYCLE.as_secs() / closes_every.as_secs()) as usize;
            assert!((40..=40 + fresh).contains(&total), "{total} reads, one closed every {closes_every:?}");
        }
    }

    #[test]
    fn a_log_that_grows_is_read_faster_at_once() {
        let queue = ScrubQueue::default();
        assert_eq!([queue.due_at(0), queue.due_at(1)], [SCRUB_CYCLE; 2]);
        for segments in [2, 7, 40, 999, 21_600] {
            let cycle = queue.due_at(segments) * segments as u32;
            assert!(cycle <= SCRUB_CYCLE && SCRUB_CYCLE - cycle < seconds(1), "{segments} segments in {cycle:?}");
        }
    }

    #[test]
    fn each_piece_is_rested_for_so_that_the_rate_is_kept() {
        let disk = MemoryDisk::new();
        // Two pieces and a part of one.
        let bytes = 2 * PIECE_BYTES + 4096;
        let file = disk.create("segment", bytes as u64).unwrap();
        file.write_at(bytes as u64 - 1, &[&[7]]).unwrap();
        let mut buffer = AlignedBuffer::new(bytes);
        let (mut rested, mut read) = (Duration::ZERO, Vec::new());
        let mut go_on = |bytes| {
            rested += rest_after(bytes);
            read.push(bytes as usize);
            true
        };
        assert_eq!(read_in_pieces(file.as_ref(), buffer.bytes_mut(), &mut go_on).unwrap(), Some(Vec::new()));
        assert_eq!(buffer.bytes()[bytes - 1], 7);
        assert_eq!(read, [PIECE_BYTES, PIECE_BYTES, 4096]);
        let least = Duration::from_nanos(bytes as u64 * 1_000_000_000 / SCRUB_BYTES_PER_SECOND);
        assert!(rested + Duration::from_nanos(3) >= least, "{rested:?} for {bytes} bytes");
        let mut ended = 0;
        let mut go_on = |_| {
            ended += 1;
            false
        };
        assert_eq!(read_in_pieces(file.as_ref(), buffer.bytes_mut(), &mut go_on).unwrap(), None);
        assert_eq!(ended, 1, "a log in a hurry waits for one piece at most");
    }
}
