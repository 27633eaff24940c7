//! The oracle over a log, and the disk that it judges.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_multiraft::CoreWrite;
use pontoon_sim::disk::{Begun, Disk, NotOpened};
use pontoon_sim::oracle::{FoundReplica, LogLaw, Oracle, Survivors};
use pontoon_sim::random::Random;
use pontoon_sim::replica_log::ReplicaLog;
use pontoon_sim::trace::Place;
use pontoon_types::{
    CoreId, CoreWriteNumber, Entry, GroupId, HardState, Index, LogId, NodeId, ReplicaId, Term, Write, WriteNumber,
};

const GROUP: GroupId = GroupId(2);
const OTHER: GroupId = GroupId(3);

fn entry(index: u64, term: u64) -> Entry {
    Entry::command(LogId::new(Index(index), Term(term)), Bytes::from(vec![index as u8; 40]))
}

fn write(number: u64, entries: Vec<Entry>) -> Write {
    Write { number: WriteNumber(number), entries, ..Write::default() }
}

fn append(number: u64, writes: Vec<(GroupId, Write)>) -> CoreWrite {
    CoreWrite { number: CoreWriteNumber(number), writes }
}

/// Three appends; the second writes both groups.
fn appends() -> [CoreWrite; 3] {
    [
        append(1, vec![(GROUP, write(1, vec![entry(1, 1)]))]),
        append(2, vec![(GROUP, write(2, vec![entry(2, 1)])), (OTHER, write(1, vec![entry(1, 4)]))]),
        append(3, vec![(GROUP, write(3, vec![entry(3, 1)]))]),
    ]
}

/// An oracle that was told of the appends, the first of them durable and the rest handed over.
fn oracle() -> Oracle {
    let mut oracle = Oracle::new(ReplicaId(1), [GROUP, OTHER].into_iter());
    for append in appends() {
        oracle.append(append);
    }
    oracle.hands_over(CoreWriteNumber(1));
    oracle.reported(CoreWriteNumber(1)).expect("that was handed over");
    oracle.hands_over(CoreWriteNumber(3));
    oracle
}

/// A log with this many entries in either group.
fn holding(entries: u64, others: u64) -> BTreeMap<GroupId, FoundReplica> {
    let replica = |count: u64, term| {
        let entries = (1..=count).map(|index| entry(index, term)).collect();
        FoundReplica {
            hard_state: HardState::default(),
            compacted: LogId::default(),
            replica: ReplicaId(1),
            entries,
            lost: Vec::new(),
            vote_lost: false,
        }
    };
    BTreeMap::from([(GROUP, replica(entries, 1)), (OTHER, replica(others, 4))])
}

fn verdict(mut oracle: Oracle, entries: u64, others: u64) -> Result<(u64, u64), LogLaw> {
    let judged = oracle.recovered(&holding(entries, others), false);
    judged.map(|survivors| (survivors.kept, survivors.lost)).map_err(|(law, _)| law)
}

#[test]
fn a_group_of_records_on_its_way_survives_whole_or_not_at_all() {
    assert_eq!(verdict(oracle(), 1, 0), Ok((0, 2)));
    assert_eq!(verdict(oracle(), 3, 1), Ok((2, 0)));
    // Half of the group; half of an append; more than was ever written; less than was durable.
    assert_eq!(verdict(oracle(), 2, 1), Err(LogLaw::WholeGroups));
    assert_eq!(verdict(oracle(), 2, 0), Err(LogLaw::WholeGroups));
    assert_eq!(verdict(oracle(), 4, 1), Err(LogLaw::WholeGroups));
    assert_eq!(verdict(oracle(), 0, 0), Err(LogLaw::DurableSurvives));
}

#[test]
fn what_was_handed_over_in_unknown_parts_survives_as_a_prefix_of_whole_appends() {
    let parts = || {
        let mut oracle = oracle();
        oracle.hands_over_some();
        oracle
    };
    assert_eq!(verdict(parts(), 1, 0), Ok((0, 2)));
    assert_eq!(verdict(parts(), 2, 1), Ok((1, 1)));
    assert_eq!(verdict(parts(), 3, 1), Ok((2, 0)));
    assert_eq!(verdict(parts(), 2, 0), Err(LogLaw::WholeGroups));
    assert_eq!(verdict(parts(), 3, 0), Err(LogLaw::WholeGroups));
}

#[test]
fn what_was_never_handed_over_is_not_there() {
    let mut gathered = Oracle::new(ReplicaId(1), [GROUP, OTHER].into_iter());
    gathered.append(appends()[0].clone());
    assert_eq!(verdict(gathered.clone(), 0, 0), Ok((0, 1)));
    assert_eq!(verdict(gathered, 1, 0), Err(LogLaw::WholeGroups));
}

#[test]
fn a_clean_stop_has_lost_nothing() {
    let mut closed = oracle();
    closed.hands_over_some();
    assert_eq!(closed.clone().recovered(&holding(3, 1), true), Ok(Survivors { kept: 2, lost: 0 }));
    assert_eq!(closed.recovered(&holding(2, 1), true).unwrap_err().0, LogLaw::DurableSurvives);
}

#[test]
fn a_sync_answers_for_what_was_handed_over_and_nothing_else() {
    let mut oracle = oracle();
    assert!(oracle.clone().reported(CoreWriteNumber(2)).unwrap_err().contains("cw2"));
    oracle.reported(CoreWriteNumber(3)).unwrap();
    assert_eq!((oracle.durable(GROUP).last().index, oracle.pending()), (Index(3), 0));
    assert!(oracle.reported(CoreWriteNumber(3)).is_err(), "nothing is in flight any more");
}

#[test]
fn another_vote_or_payload_is_noticed() {
    let mut found = holding(1, 0);
    found.get_mut(&GROUP).unwrap().hard_state = HardState { term: Term(3), vote: Some(ReplicaId(1)) };
    assert_eq!(oracle().recovered(&found, false).unwrap_err().0, LogLaw::WholeGroups);
    let mut found = holding(1, 0);
    found.get_mut(&GROUP).unwrap().entries[0].payload = Bytes::from_static(b"another");
    assert_eq!(oracle().recovered(&found, false).unwrap_err().0, LogLaw::DurableSurvives);
    let mut found = holding(1, 0);
    found.remove(&OTHER);
    assert_eq!(oracle().recovered(&found, false).unwrap_err().0, LogLaw::WholeGroups);
}

/// A disk with an open log.
fn disk() -> (Disk, Random) {
    let mut random = Random::new(5);
    let place = Place { node: NodeId(1), core: CoreId(0) };
    let options =
        pontoon_wal::Options { segment_bytes: 64 << 10, ready_segments: 1, ..pontoon_wal::Options::default() };
    let mut disk = Disk::new(place, [GROUP, OTHER].into_iter(), options, &mut random);
    disk.open().expect("a new log opens");
    (disk, random)
}

fn commit(disk: &mut Disk, append: CoreWrite) {
    disk.append(append);
    assert!(matches!(disk.begin_sync(), Begun::Flying(_)));
    let synced = disk.medium().sync(disk.flight().expect("a sync is in flight"));
    disk.finish_sync(synced).expect("no law is broken").expect("the sync succeeded");
}

#[test]
fn a_power_cut_leaves_what_was_synced_and_whole_groups_behind_it() {
    let mut kept = [0, 0];
    for seed in 0..60 {
        let (mut disk, _) = disk();
        let [first, second, third] = appends();
        commit(&mut disk, first);
        disk.append(second);
        disk.append(third);
        assert!(matches!(disk.begin_sync(), Begun::Flying(CoreWriteNumber(3))));
        disk.lose_power(&mut Random::new(seed));
        let survivors = disk.open().unwrap().survivors;
        assert!(matches!((survivors.kept, survivors.lost), (0, 2) | (2, 0)));
        kept[usize::from(survivors.kept == 2)] += 1;
        assert_eq!(disk.durable(GROUP).last().index.0, 1 + survivors.kept);
    }
    assert!(kept.iter().all(|times| *times > 5), "lost {} times, kept {} times", kept[0], kept[1]);
}

#[test]
fn damage_is_refused_or_harmless_and_a_repaired_log_opens() {
    let (mut outcomes, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for seed in 0..200 {
        let (mut disk, _) = disk();
        appends().into_iter().for_each(|append| commit(&mut disk, append));
        disk.stop();
        let what = disk.inflict_damage(&mut Random::new(seed)).unwrap();
        for kind in ["is flipped", "is lost", "is zeroed", "was written to", "is gone"] {
            *kinds.entry(kind).or_insert(0) += u32::from(what.contains(kind));
        }
        let outcome = match disk.open() {
            Ok(opened) => {
                assert_eq!(opened.survivors, Survivors { kept: 0, lost: 0 }, "{what}");
                "harmless"
            }
            Err(NotOpened::Refused(_)) => {
                disk.repair();
                disk.open().unwrap_or_else(|why| panic!("{what} was undone, but: {why:?}"));
                "refused"
            }
            Err(why) => panic!("{what}: {why:?}"),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    assert!(outcomes["refused"] > 50 && outcomes["harmless"] > 20, "{outcomes:?}");
    assert!(kinds.values().sum::<u32>() == 200 && kinds.values().all(|times| *times > 10), "{kinds:?}");
}

#[test]
fn damage_that_is_swallowed_is_called_so() {
    let mut swallowed = 0;
    for seed in 0..50 {
        let (mut disk, _) = disk();
        appends().into_iter().for_each(|append| commit(&mut disk, append));
        disk.stop();
        disk.inflict_damage(&mut Random::new(seed)).unwrap();
        // What no recovery may do: go on without the last durable group.
        disk.cut_tail();
        match disk.open() {
            Err(NotOpened::Broken(law, what)) => {
                assert_eq!(law, LogLaw::CorruptionIsReported, "{what}");
                swallowed += 1;
            }
            Err(NotOpened::Refused(_)) => {}
            other => panic!("seed {seed}: the end of the log is gone, but: {other:?}"),
        }
    }
    assert!(swallowed > 5, "{swallowed}");
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
    // A payload that a peer gave back is the one that was written there.
    log.write(&Write { restored: vec![entry(1, 1)], ..write(3, vec![]) }).unwrap();
    let other = Entry { payload: Bytes::from_static(b"another"), ..entry(1, 1) };
    assert!(log.write(&Write { restored: vec![other], ..write(4, vec![]) }).unwrap_err().contains("restored"));
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
