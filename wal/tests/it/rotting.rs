//! What rots while the log runs, and what the keeper makes of it: nothing that it copies gets a new checksum over wrong bytes,
//! and an unreadable checkpoint costs time.

use pontoon_types::{CoreWriteNumber, GroupId, Index, LogId, Term, Write};
use pontoon_wal::format::BLOCK_BYTES;
use pontoon_wal::format::footer::FOOTER_MAGIC;
use pontoon_wal::format::group::GROUP_HEADER_BYTES;
use pontoon_wal::format::record::{KIND_ENTRIES, Runs};
use pontoon_wal::format::segment_header::Stream;
use pontoon_wal::{Log, LogError};

use crate::common::{Model, Rig, apply, entries, entry, groups_in, holds};
use crate::keeping::{busy, churn};

/// A log in which group 2 lies in the oldest segment, and group 3 goes on.
struct Running {
    rig: Rig,
    log: Log,
    model: Model,
    number: u64,
}

impl Running {
    fn start() -> Running {
        let rig = Rig::new(busy(), 2);
        let (log, opened) = rig.open();
        Running { rig, log, model: opened.groups, number: 0 }
    }

    /// Like [`Running::start`], with nine entries of group 2, and closed segments behind them.
    fn with_old_entries() -> Running {
        let mut running = Running::start();
        running.commit(&[entries(2, (1..=9).map(|index| entry(index, 1, vec![index as u8; 900])).collect())]);
        running.until("a checkpoint", |log| log.stats().checkpoints >= 1);
        assert_eq!(running.log.stats().moved_runs, 0);
        running
    }

    fn commit(&mut self, writes: &[(GroupId, Write)]) {
        self.number += 1;
        self.rig.commit(&mut self.log, self.number, writes);
        apply(&mut self.model, writes);
    }

    /// Goes on until something has happened.
    fn until(&mut self, what: &str, has_happened: impl Fn(&Log) -> bool) {
        for _ in 0..400 {
            if has_happened(&self.log) {
                return;
            }
            let last = self.model[&GroupId(3)].next() - 1;
            self.commit(&churn(last + 1));
        }
        panic!("{what} does not come");
    }

    /// Everything reads as written, now and after a crash.
    fn assert_whole(mut self) {
        for (group, of) in &self.model {
            assert_eq!(holds(&mut self.log, group.0), of.entries, "{group} reads as written");
        }
        drop(self.log);
        self.rig.disk.crash(|_| false);
        let (_, opened) = self.rig.open();
        assert_eq!(opened.groups, self.model);
        assert!(pontoon_wal::inspect::verify(&self.rig.disk).unwrap().is_fine());
    }
}

/// Lets the term of the run of group 2 rot in its directory.
fn rot_term(bytes: &mut [u8]) {
    let of_group_2 = |(at, header): &(usize, pontoon_wal::format::group::GroupHeader)| {
        let start = at + GROUP_HEADER_BYTES;
        let mut runs = Runs::new(&bytes[start..start + header.dir_len as usize]);
        runs.find(|run| run.head.kind == KIND_ENTRIES && run.head.group == GroupId(2)).map(|run| start + run.at)
    };
    let head_at = groups_in(bytes).iter().find_map(of_group_2).unwrap();
    bytes[head_at + 24] ^= 8;
}

#[test]
fn a_run_whose_directory_rots_is_copied_as_the_footer_knows_it() {
    let mut running = Running::with_old_entries();
    running.rig.damage("slot-001.seg", |bytes| rot_term(bytes));
    running.until("a copy", |log| log.stats().moved_runs > 0);
    running.commit(&[]);
    let read = running.log.read(GroupId(2), Index(1), Index(1), 1 << 20).unwrap();
    assert_eq!(read[0].id, LogId::new(Index(1), Term(1)));
    running.until("another copy", |log| log.stats().freed_segments > 12);
    running.assert_whole();
}

#[test]
fn a_run_whose_directory_rots_in_both_copies_stays_where_it_is_and_is_reported() {
    let mut running = Running::with_old_entries();
    running.rig.damage("slot-001.seg", |bytes| {
        rot_term(bytes);
        let blocks = (BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES);
        let footer = blocks.into_iter().find(|at| bytes[*at..].starts_with(&FOOTER_MAGIC)).unwrap();
        bytes[footer + 100] ^= 1;
    });
    let mut found = Vec::new();
    for _ in 0..60 {
        let last = running.model[&GroupId(3)].next() - 1;
        running.commit(&churn(last + 1));
        found.extend(running.log.take_rot().unwrap());
    }
    assert!(found.iter().any(|rot| rot.file == "slot-001.seg" && rot.entry.is_none()), "{found:?}");
    assert_eq!(running.log.stats().moved_runs, 0, "it was the only one to be copied");
    let read = running.log.read(GroupId(2), Index(1), Index(1), 1 << 20);
    assert!(read.is_err(), "another term than was written is never read: {read:?}");
}

#[test]
fn a_descriptor_that_rots_gets_no_new_checksum() {
    let mut running = Running::start();
    running.rig.damage("slot-001.seg", |bytes| {
        let at = bytes.windows(12).position(|window| window == b"descriptor 2").unwrap();
        bytes[at + 11] = b'9';
    });
    let mut refusal = None;
    for index in 1..60 {
        running.log.append(CoreWriteNumber(index), &churn(index));
        match running.log.begin_sync() {
            Ok(Some(sync)) => drop(running.log.finish_sync(running.rig.disk.sync(sync.fd)).unwrap()),
            Ok(None) => {}
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
    }
    let Some(LogError::Fenced { why }) = refusal else { panic!("{refusal:?}") };
    assert!(why.contains("a descriptor in segment 1 is not what was written"), "{why}");
    drop(running.log);
    assert!(matches!(running.rig.refused(), LogError::Corruption { .. }));
}

/// Lets the newest checkpoint rot.
fn rot_checkpoint(rig: &Rig) {
    let newest = rig.control().checkpoints[0].unwrap();
    rig.damage(&rig.slot_of(newest.end.place.segment), |bytes| {
        bytes[newest.end.place.offset as usize - BLOCK_BYTES + 70] ^= 1;
    });
}

#[test]
fn a_log_goes_on_from_the_older_checkpoint_when_the_newest_rots() {
    let mut running = Running::with_old_entries();
    running.until("some checkpoints", |log| log.stats().checkpoints >= 4);
    rot_checkpoint(&running.rig);
    let before = running.log.stats().checkpoints;
    running.until("two more", |log| log.stats().checkpoints >= before + 2);
    let found = running.log.take_rot().unwrap();
    assert!(found.iter().any(|rot| rot.entry.is_none()), "{found:?}");
    running.until("many more", |log| log.stats().checkpoints >= before + 10);
    running.assert_whole();
}

#[test]
fn what_comes_before_the_next_checkpoint_is_the_readable_one() {
    let mut running = Running::with_old_entries();
    running.until("some checkpoints", |log| log.stats().checkpoints >= 4);
    rot_checkpoint(&running.rig);
    let before = running.log.stats().checkpoints;
    running.until("one more", |log| log.stats().checkpoints > before);
    drop(running.log);
    rot_checkpoint(&running.rig);
    let (_, opened) = running.rig.open();
    assert!(opened.checkpoint_unreadable.is_some());
    assert_eq!(opened.groups, running.model);
}

/// The checkpoint for which entries were copied rots: the log was told of copies that count for nothing any more.
#[test]
fn entries_are_found_again_when_the_checkpoint_that_they_were_copied_for_rots() {
    let mut running = Running::with_old_entries();
    running.until("a copy", |log| log.stats().moved_runs > 0);
    running.commit(&[]);
    rot_checkpoint(&running.rig);
    let cold = |rig: &Rig| {
        let headers = rig.slots().into_iter().filter_map(|name| rig.header(&name));
        headers.filter(|header| header.stream == Stream::Cold).map(|header| header.segment).max()
    };
    let copied_to = cold(&running.rig);
    let before = running.log.stats().checkpoints;
    for _ in 0..12 {
        running.until("one more", {
            let now = running.log.stats().checkpoints;
            move |log| log.stats().checkpoints > now
        });
        running.commit(&[]);
        assert_eq!(holds(&mut running.log, 2), running.model[&GroupId(2)].entries);
    }
    assert!(running.log.stats().checkpoints >= before + 12);
    assert!(cold(&running.rig) > copied_to, "they were copied again");
    running.assert_whole();
}
