//! How much space a log takes: what starts may take, when they are refused, and how a full log stops.

use pontoon_types::{CoreWriteNumber, GroupId, Index, ReplicaId, Write};
use pontoon_wal::format::segment_header::Stream;
use pontoon_wal::{CompactHint, Log, LogError, Options};

use crate::cases::with_writes;
use crate::common::{Model, Random, Rig, apply, compact, created, entries, entry, holds, model_of, small, vote};

const SEGMENT_BYTES: u64 = 36 << 10;

#[test]
fn starts_of_an_idle_log_take_no_space() {
    let rig = Rig::new(Options { max_log_bytes: 6 * SEGMENT_BYTES, ..small() }, 2);
    let (log, model) = with_writes(&rig, 3);
    drop(log);
    let mut bytes = Vec::new();
    for start in 0..40 {
        let (log, recovered) = rig.open();
        assert_eq!(recovered.groups, model);
        // The first one writes the last group again and pins the end; the others find exactly that.
        assert_eq!((recovered.rewritten, recovered.resumed), (start == 0, start > 0), "start {start}");
        assert!(!recovered.clean && !log.is_full());
        bytes.push(log.bytes());
        drop(log);
        if start % 2 == 0 {
            rig.disk.crash(|_| false);
        }
    }
    // Two segments in use, two ready and two in reserve.
    assert_eq!(bytes, vec![6 * SEGMENT_BYTES; 40]);
    assert_eq!(rig.slots().len(), 6);
}

#[test]
fn max_log_bytes_holds_over_starts_that_each_write_something() {
    let rig = Rig::new(Options { max_log_bytes: 8 * SEGMENT_BYTES, ..small() }, 2);
    for term in 1..=200 {
        let (mut log, recovered) = rig.open();
        assert_eq!(recovered.groups[&created(1)[0].0].hard_state.term.0, term - 1, "nothing is lost on the way");
        assert!(log.bytes() <= 10 * SEGMENT_BYTES, "the reserve is two segments");
        assert!(!log.is_full(), "start {term}: each start frees what the ones before took");
        rig.commit(&mut log, 1, &[vote(2, term, 1)]);
    }
    assert!(rig.slots().len() <= 10);
}

#[test]
fn max_log_bytes_holds_over_interrupted_starts() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut rig = Rig::new(Options { max_log_bytes: 6 * SEGMENT_BYTES, ..small() }, 2);
        let (log, model) = with_writes(&rig, 4);
        drop(log);
        let mut random = Random(seed);
        for _ in 0..60 {
            // Somewhere between the first write of a start and its end: each may leave a file behind.
            rig.disk.cut_power_after(random.below(9));
            match rig.try_open() {
                Ok((log, _)) => drop(log),
                Err(LogError::Io { .. }) => {}
                Err(LogError::Option { name: "max_log_bytes", value, why }) => {
                    refused += 1;
                    assert_eq!(value, 6 * SEGMENT_BYTES);
                    let needed = 9 * SEGMENT_BYTES;
                    assert!(why.contains(&format!("{needed} bytes in all")), "{why}");
                    rig.disk.crash(|_| true);
                    rig.refused();
                    break;
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            rig.disk.crash(|_| true);
            assert!(rig.slots().len() <= 8, "seed {seed}: {:?}", rig.slots());
        }
        rig.options.max_log_bytes = 64 * SEGMENT_BYTES;
        let (log, recovered) = rig.open();
        assert_eq!(recovered.groups, model, "seed {seed}");
        assert_eq!(log.bytes(), rig.slots().len() as u64 * SEGMENT_BYTES, "seed {seed}: every file is counted");
        opened += 1;
    }
    assert!(opened == 60, "{refused} refused");
}

#[test]
fn law_17_only_untouched_blocks_are_gone_on_in() {
    for survives in [0, 1, 2, 3] {
        let rig = Rig::new(small(), 2);
        let (log, mut model) = with_writes(&rig, 3);
        drop(log);
        let (mut log, _) = rig.open();
        let pinned = rig.newest();
        let big = [entries(2, vec![entry(4, 1, vec![4; 9000])])];
        log.append(CoreWriteNumber(1), &big);
        log.begin_sync().unwrap().unwrap();
        drop(log);
        // Of the group behind the pin: nothing, its first sector, the last one of its payload, or all of it.
        let start = 2 * 8;
        rig.disk.crash(|sector| match survives {
            0 => false,
            1 => sector == start,
            2 => sector == start + 17,
            _ => true,
        });
        let tail = rig.disk.content(&pinned).unwrap();
        let counts = rig.disk.counts(&pinned).unwrap();
        let (mut log, recovered) = rig.open();
        if survives == 3 {
            apply(&mut model, &big);
        }
        assert_eq!(recovered.groups, model, "{survives}");
        assert_eq!(recovered.resumed, survives == 0, "{survives}");
        assert_eq!(recovered.torn_tail.is_some(), survives == 1 || survives == 2, "{survives}");
        assert_eq!(rig.disk.counts(&pinned).unwrap(), counts, "{survives}: an open writes and syncs nothing there");
        let next = model[&created(1)[0].0].entries.len() as u64 + 1;
        let writes = [entries(2, vec![entry(next, 2, "after")])];
        rig.commit(&mut log, 1, &writes);
        apply(&mut model, &writes);
        if survives > 0 {
            assert!(
                rig.disk.content(&pinned).unwrap() == tail,
                "{survives}: the old tail is neither synced nor changed"
            );
            assert_eq!(rig.disk.counts(&pinned).unwrap(), counts, "{survives}");
        }
        drop(log);
        rig.disk.crash(|_| false);
        assert_eq!(rig.open().1.groups, model, "{survives}");
    }
}

#[test]
fn law_17_a_group_that_only_the_cache_shows_is_no_reason_to_believe_it() {
    let rig = Rig::new(small(), 2);
    let (log, mut model) = with_writes(&rig, 3);
    drop(log);
    let (mut log, _) = rig.open();
    log.append(CoreWriteNumber(1), &[entries(2, vec![entry(4, 1, "in the cache only")])]);
    let sync = log.begin_sync().unwrap().unwrap();
    rig.disk.fail_syncs(1);
    log.finish_sync(rig.disk.sync(sync.fd)).unwrap_err();
    drop(log);
    let (mut log, recovered) = rig.open();
    assert!(recovered.resumed, "the disk has zeros behind the pin");
    assert_eq!(recovered.groups, model);
    let writes = [entries(2, vec![entry(4, 2, "on the disk")])];
    rig.commit(&mut log, 1, &writes);
    apply(&mut model, &writes);
    drop(log);
    rig.disk.crash(|_| false);
    assert_eq!(rig.open().1.groups, model);
}

#[test]
fn law_17_an_unproven_seal_is_a_tail() {
    let rig = Rig::new(small(), 2);
    let (mut log, mut model) = with_writes(&rig, 3);
    // It does not fit into the first segment, so it starts the second, which the control file then notes.
    let writes = [entries(2, vec![entry(4, 1, vec![4; 20_000])])];
    rig.commit(&mut log, 4, &writes);
    apply(&mut model, &writes);
    log.begin_seal().unwrap().unwrap();
    drop(log);
    let newest = rig.newest();
    let before = (rig.disk.content(&newest).unwrap(), rig.disk.counts(&newest).unwrap());
    let (mut log, recovered) = rig.open();
    assert!(!recovered.resumed, "the SEAL stands behind what is proven");
    rig.commit(&mut log, 1, &[vote(2, 3, 1)]);
    apply(&mut model, &[vote(2, 3, 1)]);
    assert!((rig.disk.content(&newest).unwrap(), rig.disk.counts(&newest).unwrap()) == before);
    drop(log);
    assert_eq!(rig.open().1.groups, model);
}

/// Commits until the log answers that it is full, with something gathered.
fn fill(rig: &Rig) -> (Log, Model) {
    let (mut log, _) = rig.open();
    let mut model = model_of(&created(2));
    for number in 1.. {
        let writes = [entries(2, vec![entry(number, 1, vec![1; 3000])])];
        log.append(CoreWriteNumber(number), &writes);
        match log.begin_sync() {
            Ok(Some(sync)) => assert_eq!(log.finish_sync(rig.disk.sync(sync.fd)).unwrap().0, number),
            Ok(None) | Err(LogError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        apply(&mut model, &writes);
    }
    assert!(log.is_gathered() && log.is_full());
    (log, model)
}

#[test]
fn closing_a_full_log_succeeds_and_is_not_marked_clean() {
    // Full because of its maximum, and because of the disk.
    for disk_is_full in [false, true] {
        let max_log_bytes = if disk_is_full { 64 * SEGMENT_BYTES } else { 6 * SEGMENT_BYTES };
        let rig = Rig::new(Options { max_log_bytes, ..small() }, 2);
        if disk_is_full {
            rig.disk.limit_free_bytes(Some(3 * SEGMENT_BYTES));
        }
        let (log, model) = fill(&rig);
        log.close().unwrap();
        rig.disk.limit_free_bytes(None);
        rig.disk.crash(|_| false);
        let (_, recovered) = rig.open();
        assert!(!recovered.clean, "the next open takes it for a crash");
        assert_eq!(recovered.groups, model, "what was reported is there, and nothing that was not");
    }
}

#[test]
fn case_43_laggards_that_ignore_their_hints_are_copied_in_the_end() {
    let max_log_bytes = 30 * SEGMENT_BYTES;
    let laggards = 20;
    let rig = Rig::new(Options { max_log_bytes, checkpoint_segments: 2, ..small() }, 1 + laggards);
    let (mut log, _) = rig.open();
    let old: Vec<_> = (1..=40).map(|index| entry(index, 1, vec![index as u8; 100])).collect();
    let mut hinted = Vec::new();
    for index in 1..=600 {
        let mut writes = vec![entries(2, vec![entry(index, 1, vec![1; 9000])]), compact(2, index, 1)];
        // Each of them pins a segment of its own.
        writes.extend((index % 5 == 0 && index <= 5 * laggards).then(|| entries(2 + index / 5, old.clone())));
        rig.commit(&mut log, index, &writes);
        hinted.extend(log.compact_hints());
        assert!(log.bytes() <= max_log_bytes, "the bound holds");
    }
    let hint = CompactHint { group: GroupId(3), up_to: Index(40) };
    assert!(hinted.contains(&hint), "{hinted:?}");
    let stats = log.stats();
    assert!(stats.moved_runs >= 4 && stats.freed_segments > 150, "{stats:?}");
    let logs =
        rig.slots().into_iter().filter_map(|name| rig.header(&name)).filter(|header| header.stream == Stream::Log);
    assert!(logs.map(|header| header.segment.0).min().unwrap() > 2, "the oldest segments are used again");
    for group in 3..3 + laggards {
        assert_eq!(holds(&mut log, group), old);
    }
    drop(log);
    let (_, recovered) = rig.open();
    assert!((3..3 + laggards).all(|group| recovered.groups[&GroupId(group)].entries == old));
}

#[test]
fn case_44_idle_groups_pin_nothing_while_one_group_writes_far_more_than_the_log_holds() {
    let (groups, segment_bytes) = (10_000, 128 << 10);
    // What is alive: an entry of 460 bytes and 180 bytes of state for each group. Twice that and eight segments hold the
    // entries, the state three times while a checkpoint is written, and what is copied.
    let live_bytes = groups * 640;
    let idle = || entry(1, 1, vec![7; 400]);
    let max_log_bytes = 2 * live_bytes + 8 * segment_bytes;
    let options =
        Options { segment_bytes, max_log_bytes, group_bytes_max: 64 << 10, checkpoint_segments: 4, ..small() };
    let rig = Rig::new(options, groups);
    let (mut log, _) = rig.open();
    let writes: Vec<_> = (2..2 + groups).map(|group| entries(group, vec![idle()])).collect();
    let mut number = 0;
    for some in writes.chunks(100) {
        number += 1;
        rig.commit(&mut log, number, some);
    }
    let mut hot = 1;
    let mut most = 0;
    while log.stats().bytes < 1000 * segment_bytes {
        number += 1;
        hot += 1;
        let mut writes = vec![entries(2, vec![entry(hot, 1, vec![hot as u8; 50_000])])];
        writes.extend((hot > 3).then(|| compact(2, hot - 2, 1)));
        log.append(CoreWriteNumber(number), &writes);
        rig.flush(&mut log);
        most = most.max(log.bytes());
    }
    assert!(most <= max_log_bytes, "{most} bytes at most, {max_log_bytes} allowed");
    assert!(!log.is_full());
    for group in 3..2 + groups {
        assert_eq!(holds(&mut log, group), [idle()]);
    }
    drop(log);
    let (_, recovered) = rig.open();
    assert!(recovered.groups.iter().all(|(group, of)| *group == GroupId(2) || of.entries.len() == 1));
}

/// Writes until proposals are refused, on a disk that gives no more space.
fn fill_until_busy(rig: &Rig) -> (Log, u64) {
    let (mut log, _) = rig.open();
    rig.disk.limit_free_bytes(Some(0));
    let mut number = 0;
    while !log.is_full() {
        number += 1;
        rig.commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![1; 3000])])]);
    }
    (log, number)
}

/// What a node does that has nothing to write. A SEAL closes the segment of a full log, so that the keeper sees what was
/// given up.
fn idle(rig: &Rig, log: &mut Log) {
    for _ in 0..4 {
        if let Some(sync) = log.begin_seal().unwrap() {
            log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
        }
    }
}

#[test]
fn the_reserve_carries_compaction_votes_and_removal_with_nothing_left_on_the_disk() {
    // Full because of its maximum, and because of the disk long before.
    for segments in [6, 8, 12, 40] {
        let max_log_bytes = segments * SEGMENT_BYTES;
        let rig = Rig::new(Options { max_log_bytes, checkpoint_segments: 4, ready_segments: 4, ..small() }, 3);
        let (mut log, last) = fill_until_busy(&rig);
        let mut number = last + 1;
        rig.commit(&mut log, number, &[vote(3, 5, 1), compact(2, last - 1, 1)]);
        idle(&rig, &mut log);
        assert!(!log.is_full(), "{segments}: {:?}", log.stats());
        assert!(log.stats().freed_segments > 1);
        for index in last + 1..last + 40 {
            number += 1;
            let removed = Write { remove: Some(ReplicaId(1)), ..Write::default() };
            let mut writes = vec![entries(2, vec![entry(index, 1, vec![2; 3000])]), compact(2, index - 1, 1)];
            writes.extend((index == last + 20).then_some((GroupId(4), removed)));
            rig.commit(&mut log, number, &writes);
            idle(&rig, &mut log);
            assert!(!log.is_full(), "{segments}: entry {index}: {:?}", log.stats());
        }
        drop(log);
        for start in 0..6 {
            let (mut log, recovered) = rig.open();
            assert_eq!(recovered.groups[&GroupId(3)].hard_state.term.0, 5 + start, "no free space is needed");
            assert!(!recovered.groups.contains_key(&GroupId(4)));
            drop(recovered);
            rig.commit(&mut log, 1, &[vote(3, 6 + start, 1)]);
        }
    }
}

#[test]
fn the_reserve_carries_a_truncation_with_nothing_left_on_the_disk() {
    // Full because of its maximum, and because of the disk long before.
    for segments in [6, 8, 12, 40] {
        let max_log_bytes = segments * SEGMENT_BYTES;
        let rig = Rig::new(Options { max_log_bytes, checkpoint_segments: 4, ready_segments: 4, ..small() }, 3);
        let (mut log, last) = fill_until_busy(&rig);
        let freed_before = log.stats().freed_segments;
        let mut number = last + 1;
        let cut = Write { truncate_from: Some(Index(3)), entries: vec![entry(3, 2, "anew")], ..Write::default() };
        rig.commit(&mut log, number, &[vote(2, 2, 1), (GroupId(2), cut)]);
        idle(&rig, &mut log);
        assert!(log.stats().freed_segments > freed_before, "{segments}: what was cut holds nothing");
        if segments == 6 {
            // The smallest log has no segment to spare for the copies of the two entries before the cut.
            assert_eq!(log.compact_hints(), [CompactHint { group: GroupId(2), up_to: Index(2) }]);
            number += 1;
            rig.commit(&mut log, number, &[compact(2, 2, 1)]);
            idle(&rig, &mut log);
        }
        assert!(!log.is_full(), "{segments}: {:?}", log.stats());
        for index in 4..40 {
            number += 1;
            rig.commit(&mut log, number, &[entries(2, vec![entry(index, 2, vec![2; 3000])]), compact(2, index - 1, 2)]);
            idle(&rig, &mut log);
            assert!(!log.is_full(), "{segments}: entry {index}: {:?}", log.stats());
        }
        drop(log);
        let (_, recovered) = rig.open();
        let of = &recovered.groups[&GroupId(2)];
        assert_eq!(of.hard_state.term.0, 2, "no free space is needed");
        assert_eq!(of.entries, [entry(39, 2, vec![2; 3000])]);
    }
}

#[test]
fn a_log_whose_hints_are_heeded_goes_on_for_ever_however_many_groups_share_it() {
    // One group that fills it, and so many that none of them has much in it.
    for groups in [1, 200] {
        let max_log_bytes = 20 * SEGMENT_BYTES;
        let rig = Rig::new(Options { max_log_bytes, checkpoint_segments: 4, ..small() }, groups);
        let (mut log, _) = rig.open();
        let mut lasts = vec![0; groups as usize];
        let (mut number, mut turned_away) = (0, 0);
        for turn in 0..40_000_u64 {
            let group = turn % groups;
            let mut writes = Vec::new();
            for hint in log.compact_hints() {
                writes.push(compact(hint.group.0, hint.up_to.0, 1));
            }
            if log.is_full() {
                turned_away += 1;
            } else {
                let last = &mut lasts[group as usize];
                *last += 1;
                writes.push(entries(2 + group, vec![entry(*last, 1, vec![1; 300])]));
            }
            number += 1;
            rig.commit(&mut log, number, &writes);
            if log.is_full() {
                idle(&rig, &mut log);
            }
            assert!(log.bytes() <= max_log_bytes);
        }
        assert!(
            log.stats().bytes > 200 * max_log_bytes && turned_away < 400,
            "{groups}: {turned_away}, {:?}",
            log.stats()
        );
    }
}

#[test]
fn a_full_log_names_who_holds_it_until_it_has_room_also_after_a_start() {
    for segments in [6, 8, 12] {
        let rig = Rig::new(Options { max_log_bytes: segments * SEGMENT_BYTES, ..small() }, 3);
        let (mut last, mut number) = (0, 0);
        let mut fill = |log: &mut Log, number: &mut u64| {
            while !log.is_full() {
                *number += 1;
                last += 1;
                rig.commit(log, *number, &[entries(2, vec![entry(last, 1, vec![1; 3000])])]);
            }
        };
        let (mut log, _) = rig.open();
        fill(&mut log, &mut number);
        drop(log);
        rig.disk.crash(|_| false);
        (log, _) = rig.open();
        number = 0;
        fill(&mut log, &mut number);
        for round in number + 1.. {
            assert!(round < number + 20, "{segments}: compacting what is named makes room: {:?}", log.compact_hints());
            let hints = log.compact_hints();
            assert!(hints.iter().all(|hint| hint.group == GroupId(2) && hint.up_to.0 <= last), "{hints:?}");
            assert!(!hints.is_empty(), "{segments}, round {round}: somebody holds it");
            let writes: Vec<_> = hints.iter().map(|hint| compact(hint.group.0, hint.up_to.0, 1)).collect();
            rig.commit(&mut log, round, &writes);
            idle(&rig, &mut log);
            if !log.is_full() {
                break;
            }
        }
    }
}

#[test]
fn a_start_with_nothing_left_on_the_disk_finds_room_again() {
    let max_log_bytes = 40 * SEGMENT_BYTES;
    let rig = Rig::new(Options { max_log_bytes, checkpoint_segments: 4, ready_segments: 4, ..small() }, 2);
    let (mut log, last) = fill_until_busy(&rig);
    rig.commit(&mut log, last + 1, &[compact(2, last, 1)]);
    drop(log);
    rig.disk.crash(|_| false);
    let (mut log, recovered) = rig.open();
    assert_eq!(recovered.groups[&GroupId(2)].compacted.index.0, last);
    rig.commit(&mut log, 1, &[]);
    idle(&rig, &mut log);
    assert!(!log.is_full(), "{:?}", log.stats());
}

#[test]
fn a_log_above_its_maximum_is_full_until_it_is_below_again() {
    let max_log_bytes = 6 * SEGMENT_BYTES;
    let rig = Rig::new(Options { max_log_bytes, ..small() }, 2);
    let (mut log, mut last) = (rig.open().0, 0);
    while !log.is_full() {
        last += 1;
        rig.commit(&mut log, last, &[entries(2, vec![entry(last, 1, vec![1; 3000])])]);
    }
    // A start after a crash goes on in a segment of its own, whatever the maximum is.
    let mut starts = 0;
    while log.bytes() <= max_log_bytes {
        starts += 1;
        assert!(starts < 10, "some start takes more than the maximum");
        drop(log);
        rig.disk.crash(|_| false);
        log = rig.open().0;
        assert!(log.is_full(), "start {starts}: {} bytes", log.bytes());
    }
    let mut number = 0;
    while log.is_full() {
        number += 1;
        assert!(number < 20, "compacting makes room: {} bytes, {:?}", log.bytes(), log.stats());
        rig.commit(&mut log, number, &[compact(2, last - 1, 1)]);
        idle(&rig, &mut log);
        assert!(log.is_full() || log.bytes() <= max_log_bytes, "{} bytes", log.bytes());
    }
}

#[test]
fn a_log_is_full_while_all_that_has_gathered_can_still_be_written() {
    let rig = Rig::new(Options { max_log_bytes: 12 * SEGMENT_BYTES, ..small() }, 2);
    let (mut log, _) = rig.open();
    let mut number = 0;
    while !log.is_full() {
        number += 1;
        assert!(number < 1000, "nothing is synced, and it takes ever more");
        log.append(CoreWriteNumber(number), &[entries(2, vec![entry(number, 1, vec![1; 3000])])]);
    }
    assert!(number > 10, "some of it has room: {number}");
    rig.flush(&mut log);
    assert_eq!(log.stats().entries, number);
}
