//! Gathers writes into groups of records. Pure: no file, no clock.
//!
//! Payloads are copied once, straight into the memory that is handed to the kernel; the directory grows beside them
//! and moves never. A group that reaches `group_bytes_max` is closed and the next one opened, so what a sync carries
//! stays bounded. Buffers are used again: a steady load allocates nothing.
//!
//! All writes of one core write land in one group, which makes them atomic. Only when they cannot fit into one segment
//! are they cut, between the writes of two replicas; each replica's write stays whole, which is what law 13 counts on.

use std::collections::VecDeque;

use pontoon_types::{CoreWriteNumber, Creation, Entry, GroupId, Write};

use crate::format::footer::{footer_part, footer_room};
use crate::format::group::{FLAG_ECHO_WHOLE, GROUP_HEADER_BYTES, Group, GroupHeader, group_len, payloads_start};
use crate::format::record::{
    KIND_COMPACT, KIND_HARD_STATE, KIND_HARD_STATE_ECHO, KIND_RESTORED, KIND_TOMBSTONE, KIND_TRUNCATE, RECORD_BYTES,
    RUN_BYTES, Record, RunHead,
};
use crate::format::{BLOCK_BYTES, PAYLOAD_ALIGN_BYTES, round_up};
use crate::packing::Packing;

/// How much room something takes in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) directory: usize,
    pub(crate) payloads: usize,
}

impl Room {
    fn of(write: &Write) -> Room {
        let heads = usize::from(write.hard_state.is_some())
            + usize::from(write.truncate_from.is_some())
            + usize::from(write.committed.is_some())
            + usize::from(write.compact.is_some())
            + usize::from(write.remove.is_some());
        let creation = write.create.as_ref().map_or(Room::default(), |creation| Room::of_record(&creation.descriptor));
        creation
            .plus(Room { directory: heads * RUN_BYTES, payloads: 0 })
            .plus(Room::of_entries(&write.entries))
            .plus(Room::of_entries(&write.restored))
    }

    fn of_entries(entries: &[Entry]) -> Room {
        let padded = |entry: &Entry| round_up(entry.payload.len(), PAYLOAD_ALIGN_BYTES);
        Room {
            directory: entries.chunk_by(one_run).count() * RUN_BYTES + entries.len() * RECORD_BYTES,
            payloads: entries.iter().map(padded).sum(),
        }
    }

    /// A run with one record.
    pub(crate) fn of_record(payload: &[u8]) -> Room {
        Room { directory: RUN_BYTES + RECORD_BYTES, payloads: round_up(payload.len(), PAYLOAD_ALIGN_BYTES) }
    }

    /// One more record in a run.
    pub(crate) fn of_payload(payload: &[u8]) -> Room {
        Room { directory: RECORD_BYTES, payloads: round_up(payload.len(), PAYLOAD_ALIGN_BYTES) }
    }

    pub(crate) fn plus(self, other: Room) -> Room {
        Room { directory: self.directory + other.directory, payloads: self.payloads + other.payloads }
    }

    pub(crate) fn group_len(self) -> usize {
        group_len(self.directory, self.payloads)
    }

    /// What a group of this size takes from an empty segment: itself and its part of the footer.
    pub(crate) fn in_segment(self) -> usize {
        self.group_len() + footer_room(footer_part(self.directory))
    }
}

/// What an empty segment holds.
pub(crate) fn segment_room(segment_bytes: u64) -> usize {
    segment_bytes as usize - BLOCK_BYTES
}

/// Whether two entries that follow each other in a list can stand in one run.
fn one_run(one: &Entry, next: &Entry) -> bool {
    one.kind == next.kind && one.id.term == next.id.term && one.id.index.next() == next.id.index
}

/// What a group repeats of the one before it. By default of one that is not known: nothing, and that is not all.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    /// The hard states of that group.
    pub(crate) hard_states: Vec<RunHead>,
    /// They are all that it says, echoes not counted.
    pub(crate) is_whole: bool,
}

impl Echo {
    /// Of a group that says nothing.
    fn of_empty() -> Echo {
        Echo { hard_states: Vec::new(), is_whole: true }
    }

    /// Of a group that was read.
    pub(crate) fn of(group: &Group<'_>) -> Echo {
        let mut echo = Echo::of_empty();
        group.runs().for_each(|run| echo.see(&run.head));
        echo
    }

    fn see(&mut self, head: &RunHead) {
        match head.kind {
            KIND_HARD_STATE => self.hard_states.push(*head),
            KIND_HARD_STATE_ECHO => {}
            _ => self.is_whole = false,
        }
    }

    fn clear(&mut self) {
        self.hard_states.clear();
        self.is_whole = true;
    }

    /// What it takes in a group.
    pub(crate) fn room(&self) -> Room {
        Room { directory: self.hard_states.len() * RUN_BYTES, payloads: 0 }
    }

    /// The flags of a group that carries it.
    pub(crate) fn flags(&self) -> u16 {
        if self.is_whole { FLAG_ECHO_WHOLE } else { 0 }
    }
}

/// One group of records while it is gathered.
///
/// Invariants: `head` starts with room for the group header, followed by the directory; `payloads` is padded to 16
/// bytes; `echo` is what the next group will repeat of the directory.
#[derive(Debug)]
pub(crate) struct GroupBuffer {
    head: Vec<u8>,
    payloads: Vec<u8>,
    runs: u32,
    dir_len: usize,
    echo: Echo,
    /// It cuts, compacts or removes something.
    pub(crate) gives_up: bool,
    pub(crate) entries: usize,
    pub(crate) writes: usize,
    /// The last core write that ends in this group.
    pub(crate) through: Option<CoreWriteNumber>,
}

impl GroupBuffer {
    pub(crate) fn new() -> GroupBuffer {
        let head = vec![0; GROUP_HEADER_BYTES];
        GroupBuffer {
            head,
            payloads: Vec::new(),
            runs: 0,
            dir_len: 0,
            echo: Echo::of_empty(),
            gives_up: false,
            entries: 0,
            writes: 0,
            through: None,
        }
    }

    /// The same records again, for another place.
    pub(crate) fn copy_of(group: &Group<'_>) -> GroupBuffer {
        let mut buffer = GroupBuffer::new();
        buffer.head.extend_from_slice(group.directory);
        buffer.dir_len = group.directory.len();
        buffer.payloads.extend_from_slice(group.payloads);
        buffer.runs = group.header.runs;
        for run in group.runs() {
            buffer.remember(&run.head);
        }
        buffer
    }

    fn clear(&mut self) {
        self.head.clear();
        self.head.resize(GROUP_HEADER_BYTES, 0);
        self.payloads.clear();
        self.echo.clear();
        self.gives_up = false;
        (self.runs, self.dir_len, self.entries, self.writes, self.through) = (0, 0, 0, 0, None);
    }

    /// What it takes so far.
    pub(crate) fn room(&self) -> Room {
        Room { directory: self.dir_len, payloads: self.payloads.len() }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &[u8] {
        &self.head[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + self.dir_len]
    }

    fn capacity_bytes(&self) -> usize {
        self.head.capacity() + self.payloads.capacity()
    }

    /// Whether nothing was put into it.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs == 0
    }

    /// Whether nothing is in it, not even the end of an empty core write.
    fn is_unused(&self) -> bool {
        self.runs == 0 && self.through.is_none()
    }

    fn put_write(&mut self, group: GroupId, write: &Write) {
        if let Some(creation) = &write.create {
            self.put_create(group, creation);
        }
        if let Some(state) = write.hard_state {
            self.put_run(RunHead::hard_state(group, state));
        }
        if let Some(from) = write.truncate_from {
            self.put_run(RunHead::truncate(group, from));
        }
        self.put_entries(group, &write.entries, |head| head);
        if let Some(index) = write.committed {
            self.put_run(RunHead::committed(group, index));
        }
        self.put_entries(group, &write.restored, |head| RunHead { kind: KIND_RESTORED, ..head });
        if let Some(compaction) = write.compact {
            self.put_run(RunHead::compact(group, compaction));
        }
        if let Some(replica) = write.remove {
            self.put_run(RunHead::plain(KIND_TOMBSTONE, group, replica.0, 0));
        }
        self.entries += write.entries.len();
        self.writes += 1;
    }

    fn put_entries(&mut self, group: GroupId, entries: &[Entry], as_kind: impl Fn(RunHead) -> RunHead) {
        for run in entries.chunk_by(one_run) {
            self.put_run(as_kind(RunHead::entries(group, run[0].id, run[0].kind, run.len() as u32)));
            for entry in run {
                self.put_payload(&entry.payload);
            }
        }
    }

    /// A group begins to exist.
    pub(crate) fn put_create(&mut self, group: GroupId, creation: &Creation) {
        self.put_record(RunHead::create(group, creation.replica), &creation.descriptor);
    }

    /// A run with one record.
    pub(crate) fn put_record(&mut self, head: RunHead, payload: &[u8]) {
        self.put_run(head);
        self.put_payload(payload);
    }

    /// Repeats the hard states of the group before.
    pub(crate) fn put_echo(&mut self, echo: &Echo) {
        for head in &echo.hard_states {
            self.put_run(head.echo());
        }
    }

    /// Hands out what the next group repeats of it.
    pub(crate) fn swap_echo(&mut self, into: &mut Echo) {
        into.clear();
        std::mem::swap(&mut self.echo, into);
    }

    /// A run; its records must follow.
    pub(crate) fn put_run(&mut self, head: RunHead) {
        self.head.extend_from_slice(&head.encode());
        self.dir_len += RUN_BYTES;
        self.runs += 1;
        self.remember(&head);
    }

    fn remember(&mut self, head: &RunHead) {
        self.echo.see(head);
        self.gives_up |= matches!(head.kind, KIND_COMPACT | KIND_TOMBSTONE | KIND_TRUNCATE);
    }

    /// The next record of the run put last.
    pub(crate) fn put_payload(&mut self, payload: &[u8]) {
        self.put_copy(payload, crc32fast::hash(payload));
    }

    /// The same, with the checksum that the payload had when it was first written: a rotten one stays known as that.
    pub(crate) fn put_copy(&mut self, payload: &[u8], crc: u32) {
        let record = Record { offset: self.payloads.len(), length: payload.len(), crc };
        self.head.extend_from_slice(&record.encode());
        self.dir_len += RECORD_BYTES;
        self.payloads.extend_from_slice(payload);
        self.payloads.resize(round_up(self.payloads.len(), PAYLOAD_ALIGN_BYTES), 0);
    }

    /// Fills in the lengths and checksums of `header`, pads, and returns the bytes of the group in two parts with its
    /// chain value. May be called once.
    pub(crate) fn seal(&mut self, header: GroupHeader, log: u128, offset: u64) -> ([&[u8]; 2], u32) {
        let directory = self.directory();
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
    /// Groups of at most `group_bytes_max`, none larger than what `segment_room` bytes hold.
    pub(crate) fn new(group_bytes_max: usize, segment_room: usize) -> Gathered {
        Gathered { waiting: VecDeque::new(), free: Vec::new(), group_bytes_max, segment_room, entries: 0 }
    }

    /// Entries that wait.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Where all that waits will go, behind `packing` and with `echoes` for the first: where the groups end that grow no more,
    /// and what the last one takes if it may still grow, and so move.
    pub(crate) fn pack(&self, mut packing: Packing, mut echoes: Room) -> (Packing, usize) {
        for (at, group) in self.waiting.iter().enumerate() {
            let room = group.room();
            if at + 1 == self.waiting.len() && room.group_len() < self.group_bytes_max {
                return (packing, room.plus(echoes).in_segment());
            }
            packing.put(room, echoes);
            echoes = group.echo.room();
        }
        (packing, 0)
    }

    /// What the oldest group takes.
    pub(crate) fn front_room(&self) -> Option<Room> {
        self.waiting.front().map(GroupBuffer::room)
    }

    /// Whether one of the groups gives something up.
    pub(crate) fn gives_up(&self) -> bool {
        self.waiting.iter().any(|group| group.gives_up)
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
        if whole.in_segment() <= self.segment_room {
            self.put_together(whole, writes);
        } else {
            for write in writes.chunks(1) {
                let room = Room::of(&write[0].1);
                if room.in_segment() > self.segment_room {
                    return Err(room.in_segment());
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
        let fits = |open: &GroupBuffer| {
            let both = open.room().plus(room);
            open.is_unused() || both.group_len() <= self.group_bytes_max && both.in_segment() <= self.segment_room
        };
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
    use bytes::Bytes;
    use pontoon_types::{Index, LogId, Term};

    fn write(payload_bytes: usize) -> Vec<(GroupId, Write)> {
        let entry = Entry::command(LogId::new(Index(1), Term(1)), Bytes::from(vec![7; payload_bytes]));
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
            closed.push((buffer.through.unwrap().0, buffer.room().group_len()));
        }
        assert_eq!(closed, [(2, 8192), (4, 8192), (5, 20_480), (6, 4096)]);
        assert_eq!(gathered.entries(), 0);
    }

    #[test]
    fn what_fits_no_segment_is_cut_between_replicas_and_one_write_is_refused() {
        let mut gathered = Gathered::new(8192, 20 << 10);
        let two = [write(9000), write(9000)].concat();
        gathered.put(CoreWriteNumber(1), &two).unwrap();
        assert_eq!(gathered.pop().unwrap().through, None, "the first part does not end the core write");
        assert_eq!(gathered.pop().unwrap().through, Some(CoreWriteNumber(1)));
        assert_eq!(gathered.put(CoreWriteNumber(2), &write(17_000)), Err(20_480 + 4096));
    }
}
