//! Gathers writes into groups of records. Pure: no file, no clock.
//!
//! Payloads are copied once, straight into the memory that is handed to the kernel; the directory grows beside them
//! and moves never. A group that reaches `group_bytes_max` is closed and the next one opened, so what a sync carries
//! stays bounded. Buffers are used again: a steady load allocates nothing.
//!
//! All writes of one core write land in one group, which makes them atomic. Only when they cannot fit into one segment
//! are they cut, between the writes of two replicas; each replica's write stays whole, which is what law 13 counts on.

use std::collections::VecDeque;

use bytes::Bytes;
use pontoon_types::{CoreWriteNumber, Entry, GroupId, Write};

use crate::format::group::{GROUP_HEADER_BYTES, Group, GroupHeader, group_len, payloads_start};
use crate::format::record::{RECORD_BYTES, RUN_BYTES, Record, RunHead};
use crate::format::{PAYLOAD_ALIGN_BYTES, round_up};

/// How much room something takes in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    directory: usize,
    payloads: usize,
}

impl Room {
    fn of(write: &Write) -> Room {
        let heads = usize::from(write.hard_state.is_some())
            + usize::from(write.truncate_from.is_some())
            + write.entries.chunk_by(same_term).count();
        let padded = |entry: &Entry| round_up(entry.payload.len(), PAYLOAD_ALIGN_BYTES);
        Room {
            directory: heads * RUN_BYTES + write.entries.len() * RECORD_BYTES,
            payloads: write.entries.iter().map(padded).sum(),
        }
    }

    fn plus(self, other: Room) -> Room {
        Room { directory: self.directory + other.directory, payloads: self.payloads + other.payloads }
    }

    fn group_len(self) -> usize {
        group_len(self.directory, self.payloads)
    }
}

fn same_term(one: &Entry, next: &Entry) -> bool {
    one.id.term == next.id.term
}

/// One group of records while it is gathered.
///
/// Invariants: `head` starts with room for the group header, followed by the directory; `payloads` is padded to 16
/// bytes.
#[derive(Debug)]
pub(crate) struct GroupBuffer {
    head: Vec<u8>,
    payloads: Vec<u8>,
    runs: u32,
    pub(crate) entries: usize,
    pub(crate) writes: usize,
    /// The last core write that ends in this group.
    pub(crate) through: Option<CoreWriteNumber>,
}

impl GroupBuffer {
    pub(crate) fn new() -> GroupBuffer {
        let head = vec![0; GROUP_HEADER_BYTES];
        GroupBuffer { head, payloads: Vec::new(), runs: 0, entries: 0, writes: 0, through: None }
    }

    /// The same records again, for another place.
    pub(crate) fn copy_of(group: &Group<'_>) -> GroupBuffer {
        let mut buffer = GroupBuffer::new();
        buffer.head.extend_from_slice(group.directory);
        buffer.payloads.extend_from_slice(group.payloads);
        buffer.runs = group.header.runs;
        buffer
    }

    fn clear(&mut self) {
        self.head.clear();
        self.head.resize(GROUP_HEADER_BYTES, 0);
        self.payloads.clear();
        (self.runs, self.entries, self.writes, self.through) = (0, 0, 0, None);
    }

    fn room(&self) -> Room {
        Room { directory: self.head.len() - GROUP_HEADER_BYTES, payloads: self.payloads.len() }
    }

    fn capacity_bytes(&self) -> usize {
        self.head.capacity() + self.payloads.capacity()
    }

    /// Length of the group in the file.
    pub(crate) fn group_len(&self) -> usize {
        self.room().group_len()
    }

    /// Whether nothing is in it, not even the end of an empty core write.
    fn is_unused(&self) -> bool {
        self.runs == 0 && self.through.is_none()
    }

    fn put_write(&mut self, group: GroupId, write: &Write) {
        if let Some(state) = write.hard_state {
            self.put_run(RunHead::hard_state(group, state));
        }
        if let Some(from) = write.truncate_from {
            self.put_run(RunHead::truncate(group, from));
        }
        for run in write.entries.chunk_by(same_term) {
            let first = run[0].id;
            self.put_run(RunHead::entries(group, first.index, first.term, run.len() as u32));
            for entry in run {
                self.put_payload(&entry.payload);
            }
        }
        self.entries += write.entries.len();
        self.writes += 1;
    }

    /// A group begins to exist.
    pub(crate) fn put_create(&mut self, group: GroupId, descriptor: &Bytes) {
        self.put_run(RunHead::create(group));
        self.put_payload(descriptor);
    }

    /// The length that [`GroupBuffer::put_create`] would lead to.
    pub(crate) fn group_len_with_create(&self, descriptor: &Bytes) -> usize {
        let payloads = round_up(descriptor.len(), PAYLOAD_ALIGN_BYTES);
        self.room().plus(Room { directory: RUN_BYTES + RECORD_BYTES, payloads }).group_len()
    }

    fn put_run(&mut self, head: RunHead) {
        self.head.extend_from_slice(&head.encode());
        self.runs += 1;
    }

    fn put_payload(&mut self, payload: &[u8]) {
        let record = Record { offset: self.payloads.len(), length: payload.len(), crc: crc32fast::hash(payload) };
        self.head.extend_from_slice(&record.encode());
        self.payloads.extend_from_slice(payload);
        self.payloads.resize(round_up(self.payloads.len(), PAYLOAD_ALIGN_BYTES), 0);
    }

    /// Fills in the lengths and checksums of `header`, pads, and returns the bytes of the group in two parts with its
    /// chain value. May be called once.
    pub(crate) fn seal(&mut self, header: GroupHeader, log: u128, offset: u64) -> ([&[u8]; 2], u32) {
        let directory = &self.head[GROUP_HEADER_BYTES..];
        let header = GroupHeader {
            dir_len: directory.len() as u32,
            dir_crc: crc32fast::hash(directory),
            payload_len: self.payloads.len() as u32,
            runs: self.runs,
            ..header
        };
        let (bytes, chain) = header.encode(log, offset);
        self.head[..GROUP_HEADER_BYTES].copy_from_slice(&bytes);
        let start = payloads_start(header.dir_len as usize);
        self.head.resize(start, 0);
        self.payloads.resize(header.group_len() - start, 0);
        ([&self.head, &self.payloads], chain)
    }
}

/// The groups that wait for their sync, oldest first.
#[derive(Debug)]
pub(crate) struct Gathered {
    waiting: VecDeque<GroupBuffer>,
    free: Vec<GroupBuffer>,
    group_bytes_max: usize,
    segment_room: usize,
    entries: usize,
}

impl Gathered {
    /// Groups of at most `group_bytes_max`, none larger than `segment_room`.
    pub(crate) fn new(group_bytes_max: usize, segment_room: usize) -> Gathered {
        let group_bytes_max = group_bytes_max.min(segment_room);
        Gathered { waiting: VecDeque::new(), free: Vec::new(), group_bytes_max, segment_room, entries: 0 }
    }

    /// Entries that wait.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Length of the oldest group.
    pub(crate) fn front_len(&self) -> Option<usize> {
        self.waiting.front().map(GroupBuffer::group_len)
    }

    /// Takes the oldest group.
    pub(crate) fn pop(&mut self) -> Option<GroupBuffer> {
        let buffer = self.waiting.pop_front()?;
        self.entries -= buffer.entries;
        Some(buffer)
    }

    /// An empty buffer.
    pub(crate) fn spare(&mut self) -> GroupBuffer {
        self.free.pop().unwrap_or_else(GroupBuffer::new)
    }

    /// Gives a buffer back. One that a single large write made huge is let go.
    pub(crate) fn recycle(&mut self, mut buffer: GroupBuffer) {
        if self.free.len() < 2 && buffer.capacity_bytes() <= 2 * self.group_bytes_max {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Gathers one core write. The error is the size of a replica's write that fits no segment.
    pub(crate) fn put(&mut self, number: CoreWriteNumber, writes: &[(GroupId, Write)]) -> Result<(), usize> {
        let whole = writes.iter().map(|(_, write)| Room::of(write)).fold(Room::default(), Room::plus);
        if whole.group_len() <= self.segment_room {
            self.put_together(whole, writes);
        } else {
            for write in writes.chunks(1) {
                let room = Room::of(&write[0].1);
                if room.group_len() > self.segment_room {
                    return Err(room.group_len());
                }
                self.put_together(room, write);
            }
        }
        if let Some(last) = self.waiting.back_mut() {
            last.through = Some(number);
        }
        Ok(())
    }

    /// Puts writes that need `room` into one group.
    fn put_together(&mut self, room: Room, writes: &[(GroupId, Write)]) {
        let fits = |open: &GroupBuffer| open.is_unused() || open.room().plus(room).group_len() <= self.group_bytes_max;
        if !self.waiting.back().is_some_and(fits) {
            let fresh = self.spare();
            self.waiting.push_back(fresh);
        }
        let Some(open) = self.waiting.back_mut() else { return };
        for (group, write) in writes {
            open.put_write(*group, write);
            self.entries += write.entries.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pontoon_types::{Index, LogId, Term};

    fn write(payload_bytes: usize) -> Vec<(GroupId, Write)> {
        let entry = Entry { id: LogId::new(Index(1), Term(1)), payload: Bytes::from(vec![7; payload_bytes]) };
        vec![(GroupId(2), Write { entries: vec![entry], ..Write::default() })]
    }

    #[test]
    fn the_room_is_exactly_what_the_write_takes() {
        for bytes in [0, 1, 15, 16, 17, 4096, 5000] {
            let mut buffer = GroupBuffer::new();
            let write = &write(bytes)[0].1;
            buffer.put_write(GroupId(2), write);
            assert_eq!(buffer.room(), Room::of(write), "payload of {bytes} bytes");
        }
    }

    #[test]
    fn a_group_closes_at_its_limit_and_a_large_write_gets_its_own() {
        let mut gathered = Gathered::new(8192, 64 << 10);
        for number in 1..=4 {
            gathered.put(CoreWriteNumber(number), &write(3000)).unwrap();
        }
        gathered.put(CoreWriteNumber(5), &write(20_000)).unwrap();
        gathered.put(CoreWriteNumber(6), &write(10)).unwrap();
        let mut closed = Vec::new();
        while let Some(buffer) = gathered.pop() {
            closed.push((buffer.through.unwrap().0, buffer.group_len()));
        }
        assert_eq!(closed, [(2, 8192), (4, 8192), (5, 20_480), (6, 4096)]);
        assert_eq!(gathered.entries(), 0);
    }

    #[test]
    fn what_fits_no_segment_is_cut_between_replicas_and_one_write_is_refused() {
        let mut gathered = Gathered::new(8192, 16 << 10);
        let two = [write(9000), write(9000)].concat();
        gathered.put(CoreWriteNumber(1), &two).unwrap();
        assert_eq!(gathered.pop().unwrap().through, None, "the first part does not end the core write");
        assert_eq!(gathered.pop().unwrap().through, Some(CoreWriteNumber(1)));
        assert_eq!(gathered.put(CoreWriteNumber(2), &write(17_000)), Err(20_480));
    }
}
