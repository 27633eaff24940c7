//! The model of the disk: what a crash keeps is a prefix of the appends, and each append is kept whole or not.

use bytes::Bytes;
use pontoon_multiraft::CoreWrite;
use pontoon_sim::disk::{Disk, ReplicaLog};
use pontoon_types::{CoreWriteNumber, Entry, GroupId, HardState, Index, LogId, ReplicaId, Term, Write, WriteNumber};

const GROUP: GroupId = GroupId(2);
const OTHER: GroupId = GroupId(3);

fn entry(index: u64, term: u64) -> Entry {
    Entry { id: LogId::new(Index(index), Term(term)), payload: Bytes::new() }
}

fn write(number: u64, entries: Vec<Entry>) -> Write {
    Write { number: WriteNumber(number), entries, ..Write::default() }
}

fn append(number: u64, writes: Vec<(GroupId, Write)>) -> CoreWrite {
    CoreWrite { number: CoreWriteNumber(number), writes }
}

fn disk_with_three_appends() -> Disk {
    let mut disk = Disk::new([GROUP, OTHER].into_iter());
    disk.append(append(1, vec![(GROUP, write(1, vec![entry(1, 1)]))]));
    disk.append(append(2, vec![(GROUP, write(2, vec![entry(2, 1)])), (OTHER, write(1, vec![entry(1, 4)]))]));
    disk.append(append(3, vec![(GROUP, write(3, vec![entry(3, 1)]))]));
    disk
}

#[test]
fn a_crash_keeps_a_prefix_of_whole_appends() {
    let kept = |survivors| {
        let mut disk = disk_with_three_appends();
        disk.crash(survivors);
        (disk.durable(GROUP).last().index.0, disk.durable(OTHER).last().index.0, disk.unsynced())
    };
    assert_eq!([kept(0), kept(1), kept(2), kept(3), kept(9)], [(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 0), (3, 1, 0)]);
}

#[test]
fn a_sync_covers_what_was_appended_before_it_began() {
    let mut disk = Disk::new([GROUP, OTHER].into_iter());
    assert_eq!(disk.begin_sync(), None, "there is nothing to sync");
    disk.append(append(1, vec![(GROUP, write(1, vec![entry(1, 1)]))]));
    assert_eq!(disk.begin_sync(), Some(CoreWriteNumber(1)));
    disk.append(append(2, vec![(GROUP, write(2, vec![entry(2, 1)]))]));
    assert_eq!(disk.begin_sync(), None, "one sync is in flight");
    assert_eq!(disk.durable(GROUP).last().index, Index(0));
    assert_eq!(disk.finish_sync(), Some(CoreWriteNumber(1)));
    assert_eq!((disk.durable(GROUP).last().index, disk.unsynced()), (Index(1), 1));
    assert_eq!(disk.begin_sync(), Some(CoreWriteNumber(2)));
    disk.crash(0);
    assert_eq!(
        (disk.finish_sync(), disk.durable(GROUP).last().index),
        (None, Index(1)),
        "the sync died with its machine"
    );
}

#[test]
fn a_log_takes_writes_in_order_only() {
    let mut log = ReplicaLog::default();
    log.write(&write(1, vec![entry(1, 1), entry(2, 3)])).unwrap();
    assert!(log.write(&write(2, vec![entry(4, 3)])).unwrap_err().contains("does not follow"));
    assert!(log.write(&write(2, vec![entry(3, 2)])).unwrap_err().contains("does not follow"));
    let cut = Write { truncate_from: Some(Index(9)), ..write(2, vec![]) };
    assert!(log.write(&cut).unwrap_err().contains("a truncation from 9"));
    // Law 14: an entry of an older term rightly replaces one of a newer term, in the order of writing.
    let overwrite = Write { truncate_from: Some(Index(2)), ..write(2, vec![entry(2, 2)]) };
    log.write(&overwrite).unwrap();
    assert_eq!((log.last(), log.id_at(Index(1))), (LogId::new(Index(2), Term(2)), Some(LogId::new(Index(1), Term(1)))));
}

#[test]
fn a_log_remembers_every_vote() {
    let mut log = ReplicaLog::default();
    for (term, vote) in [(1, Some(ReplicaId(1))), (2, None), (3, Some(ReplicaId(2)))] {
        let hard_state = Some(HardState { term: Term(term), vote });
        log.write(&Write { hard_state, ..write(term, vec![]) }).unwrap();
    }
    assert_eq!(log.hard_state.term, Term(3));
    assert_eq!(log.votes.into_iter().collect::<Vec<_>>(), [(Term(1), ReplicaId(1)), (Term(3), ReplicaId(2))]);
}
