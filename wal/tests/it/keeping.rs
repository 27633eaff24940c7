//! Footers, checkpoints, cold copies, echoes and tombstones, by case number: what a crash at any step of them leaves.
//!
//! Case 27 (a full disk raises no SIGBUS) needs a real disk and stands in `device::full`: a slot is reserved and filled
//! with zeros before it is mapped, by the mapping append path too.

use bytes::Bytes;
use pontoon_types::{CoreWriteNumber, Creation, GroupId, HardState, Index, ReplicaId, Term, Write};
use pontoon_wal::format::segment_header::Stream;
use pontoon_wal::format::{BLOCK_BYTES, CONTROL_NAME};
use pontoon_wal::{Log, LogError, Options, ReadError};

use crate::common::{Model, Rig, apply, compact, created, entries, entry, groups_in, holds, model_of, small, vote};

/// A checkpoint for each closed segment, copies and slots that are used again.
pub fn busy() -> Options {
    Options { max_log_bytes: 12 * (36 << 10), checkpoint_segments: 1, ..small() }
}

fn remove(group: u64, replica: u64) -> (GroupId, Write) {
    (GroupId(group), Write { remove: Some(ReplicaId(replica)), ..Write::default() })
}

pub fn create(group: u64, replica: u64) -> (GroupId, Write) {
    let creation = Creation { replica: ReplicaId(replica), descriptor: Bytes::from(format!("born as {replica}")) };
    (GroupId(group), Write { create: Some(Box::new(creation)), ..Write::default() })
}

/// Entries of group 3 that fill a third of a segment, and the end of the ones before them.
pub fn churn(index: u64) -> Vec<(GroupId, Write)> {
    let mut writes = vec![entries(3, vec![entry(index, 1, vec![index as u8; 9000])])];
    writes.extend((index > 2).then(|| compact(3, index - 2, 1)));
    writes
}

/// What a history made the log do.
struct Ran {
    log: Log,
    model: Model,
}

/// Runs a history in which nothing fails.
fn run(rig: &Rig, script: &[Vec<(GroupId, Write)>]) -> Ran {
    let (mut log, opened) = rig.open();
    let mut model = opened.groups.clone();
    for (number, writes) in script.iter().enumerate() {
        rig.commit(&mut log, number as u64 + 1, writes);
        apply(&mut model, writes);
        for (group, of) in &model {
            assert_eq!(holds(&mut log, group.0), of.entries, "write {number}: {group} reads as written");
        }
    }
    Ran { log, model }
}

/// Runs a history again and again, each time losing power one change later, and opens what is left: it is what was
/// durable, or that and the write in flight. Returns how many changes there are.
fn cut_at_each_change(options: &Options, script: &[Vec<(GroupId, Write)>], check: &dyn Fn(&Model)) -> u64 {
    for cut in 0.. {
        let rig = Rig::new(options.clone(), 2);
        let (mut log, _) = rig.open();
        rig.disk.cut_power_after(cut);
        let (mut durable, mut in_flight) = (model_of(&created(2)), None);
        for (number, writes) in script.iter().enumerate() {
            let mut next: Model = durable.clone();
            apply(&mut next, writes);
            log.append(CoreWriteNumber(number as u64 + 1), writes);
            let Ok(Some(sync)) = log.begin_sync() else { break };
            in_flight = Some(next.clone());
            if log.finish_sync(rig.disk.sync(sync.fd)).is_err() {
                break;
            }
            (durable, in_flight) = (next, None);
        }
        drop(log);
        let is_over = !rig.disk.is_without_power();
        rig.disk.crash(|sector| [cut % 3 == 0, cut % 3 == 1 && sector % 2 == 0].contains(&true));
        let (mut log, opened) = rig.open();
        let found = opened.groups.clone();
        assert!(found == durable || Some(&found) == in_flight.as_ref(), "cut after {cut} changes");
        check(&found);
        // It goes on, and is found again.
        rig.commit(&mut log, 1, &[vote(3, 99, 1)]);
        log.close().unwrap();
        assert_eq!(rig.open().1.groups[&GroupId(3)].entries, found[&GroupId(3)].entries, "cut after {cut} changes");
        if is_over {
            return cut;
        }
    }
    unreachable!("a history has an end");
}

#[test]
fn case_16_a_crash_between_a_rotation_and_its_footer_costs_nothing() {
    let script: Vec<_> = (1..=8).map(churn).collect();
    let no_checkpoints = Options { checkpoint_segments: 1000, max_log_bytes: 4 << 20, ..busy() };
    let changes = cut_at_each_change(&no_checkpoints, &script, &|_| {});
    assert!(changes > 30, "each write, sync, footer and prepared slot is a change: {changes}");
}

/// Changes the bytes of a segment whose footer starts at the given offset.
type Damage = fn(&mut Vec<u8>, usize);

#[test]
fn case_17_a_footer_that_is_missing_or_bad_is_no_loss() {
    let rig = Rig::new(Options { checkpoint_segments: 1000, ..small() }, 2);
    let script: Vec<_> = (1..=20).map(churn).collect();
    let Ran { log, model } = run(&rig, &script);
    log.close().unwrap();
    let image = rig.disk.image();
    let (_, opened) = rig.open();
    let footers = opened.footers;
    assert!(footers >= 5 && opened.footers == opened.segments - 1, "all closed segments are read by their footers");
    drop(opened);
    let closed: Vec<String> = (1..=footers as u32).map(pontoon_wal::format::slot_name).collect();
    let footer_of = |name: &str| {
        let content = &image[name];
        let (at, last) = *groups_in(content).last().unwrap();
        at + last.group_len()
    };
    let damages: [Damage; 4] = [
        |bytes, at| bytes[at..].fill(0),
        |bytes, at| bytes[at + 5] ^= 1,
        |bytes, at| bytes[at + 100] ^= 1,
        // The length, so that it claims to be larger than the file.
        |bytes, at| bytes[at + 10] = 0xff,
    ];
    for damage in damages {
        for count in [1, closed.len()] {
            image.iter().for_each(|(name, content)| rig.disk.replace(name, content.clone()));
            for name in &closed[..count] {
                rig.damage(name, |bytes| damage(bytes, footer_of(name)));
            }
            let (_, opened) = rig.open();
            assert_eq!(opened.groups, model);
            assert_eq!(opened.footers, footers - count, "the others are read group by group");
        }
    }
}

/// Makes the group that holds the vote of term 7 unreadable.
fn rot_vote(rig: &Rig) {
    let name = rig.newest();
    let content = rig.disk.content(&name).unwrap();
    let is_vote =
        |header: &&(usize, pontoon_wal::format::group::GroupHeader)| header.1.dir_len == 32 && header.1.runs == 1;
    let (at, _) = *groups_in(&content).iter().find(is_vote).unwrap();
    rig.damage(&name, |bytes| bytes[at + 9] ^= 1);
}

#[test]
fn case_36_a_rotten_vote_is_read_from_its_echo_and_the_log_goes_on_for_long() {
    for clean in [false, true] {
        let rig = Rig::new(busy(), 2);
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[entries(2, vec![entry(1, 1, "one")])]);
        rig.commit(&mut log, 2, &[vote(2, 7, 3)]);
        rig.commit(&mut log, 3, &[entries(2, vec![entry(2, 7, "two")])]);
        rig.commit(&mut log, 4, &[entries(2, vec![entry(3, 7, "three")])]);
        if clean {
            log.close().unwrap()
        } else {
            drop(log)
        }
        rot_vote(&rig);
        let (mut log, opened) = rig.open();
        let group = &opened.groups[&GroupId(2)];
        assert_eq!(group.hard_state, HardState { term: Term(7), vote: Some(ReplicaId(3)) }, "no second vote in term 7");
        assert!(!opened.recovered_vote_lost(GroupId(2)));
        assert_eq!(group.entries.len(), 3);
        // The segment with the unreadable group is closed, folded into checkpoints and given up.
        for index in 1..=20 {
            rig.commit(&mut log, index, &churn(index));
        }
        assert!(log.stats().checkpoints > 3, "{:?}", log.stats());
        log.close().unwrap();
        let (_, opened) = rig.open();
        let group = &opened.groups[&GroupId(2)];
        assert_eq!((group.hard_state.term, group.entries.len()), (Term(7), 3));
    }
}

#[test]
fn case_38_two_interrupted_starts_write_the_last_group_again_and_it_counts_once() {
    // What takes the starts away: a kill, lost power after which all that was written is there, or one that takes a part.
    for keeps in 0..3 {
        for cut in 0..14 {
            let rig = Rig::new(small(), 2);
            let (mut log, _) = rig.open();
            let mut model = model_of(&created(2));
            let first = [entries(2, vec![entry(1, 1, "a"), entry(2, 1, "b")])];
            rig.commit(&mut log, 1, &first);
            apply(&mut model, &first);
            let last = [entries(2, vec![entry(3, 1, "c"), entry(4, 2, "d")])];
            log.append(CoreWriteNumber(2), &last);
            log.begin_sync().unwrap().unwrap();
            drop(log);
            apply(&mut model, &last);
            // The kernel has the group. Then two starts that do not come to their end.
            for generation in 0..2 {
                rig.disk.cut_power_after(cut + generation);
                drop(rig.try_open());
                rig.disk.keep_power();
                rig.disk.heal();
                match keeps {
                    0 => {}
                    1 => rig.disk.crash(|_| true),
                    _ => rig.disk.crash(|sector| sector % 2 == generation as usize || sector < 40),
                }
            }
            let (mut log, opened) = rig.open();
            if opened.groups != model {
                assert_eq!(keeps, 2, "only lost power takes what was not synced");
                model.get_mut(&GroupId(2)).unwrap().entries.truncate(2);
            }
            assert_eq!(opened.groups, model, "once, in order");
            let next = model[&GroupId(2)].next();
            let more = [entries(2, vec![entry(next, 3, "e")])];
            rig.commit(&mut log, 1, &more);
            apply(&mut model, &more);
            drop(log);
            assert_eq!(rig.open().1.groups, model);
        }
    }
}

/// Group 2 lives, dies and lives again as another replica, while group 3 fills segments.
fn reborn() -> Vec<Vec<(GroupId, Write)>> {
    let mut script = vec![vec![entries(2, (1..=5).map(|index| entry(index, 1, format!("old {index}"))).collect())]];
    script.extend((1..=4).map(churn));
    script.push(vec![remove(2, 1)]);
    script.extend((5..=8).map(churn));
    script.push(vec![create(2, 2), entries(2, vec![entry(1, 1, "new 1"), entry(2, 1, "new 2")])]);
    script.extend((9..=18).map(churn));
    script
}

#[test]
fn case_39_after_a_tombstone_old_entries_never_return_whenever_the_power_goes() {
    let rig = Rig::new(busy(), 2);
    let Ran { log, .. } = run(&rig, &reborn());
    let stats = log.stats();
    assert!(stats.checkpoints > 3 && stats.freed_segments > 3 && stats.moved_runs > 0, "{stats:?}");
    let check = |found: &Model| {
        if let Some(group) = found.get(&GroupId(2)) {
            let prefix: &[u8] = if group.replica == ReplicaId(1) { b"old" } else { b"new" };
            assert!(group.entries.iter().all(|entry| entry.payload.starts_with(prefix)), "{group:?}");
        }
    };
    let changes = cut_at_each_change(&busy(), &reborn(), &check);
    assert!(changes > 100, "{changes}");
}

#[test]
fn law_11_a_group_comes_back_only_with_a_higher_replica() {
    for (replica, after_checkpoints) in [(1, false), (2, false), (2, true)] {
        let rig = Rig::new(busy(), 2);
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[remove(2, 2)]);
        if after_checkpoints {
            // The tombstone itself is given up with its segment; the checkpoints keep what it said.
            for index in 1..=12 {
                rig.commit(&mut log, 1 + index, &churn(index));
            }
            assert!(log.stats().freed_segments > 0);
        }
        drop(log);
        let (mut log, opened) = rig.open();
        assert_eq!(opened.tombstones[&GroupId(2)], ReplicaId(2));
        assert!(!opened.groups.contains_key(&GroupId(2)));
        log.append(CoreWriteNumber(1), &[create(2, replica)]);
        let error = log.begin_sync().unwrap_err().to_string();
        assert!(error.contains("but r2 was removed (law 11)"), "{error}");
        drop(log);
        let (mut log, _) = rig.open();
        rig.commit(&mut log, 1, &[create(2, 3)]);
        assert!(matches!(log.load(GroupId(4)), Err(ReadError::NoGroup { .. })));
        drop(log);
        assert_eq!(rig.open().1.groups[&GroupId(2)].replica, ReplicaId(3));
    }
}

/// Group 2 has few old entries that are never given up, so they are copied out of segment after segment.
pub fn with_laggard() -> Vec<Vec<(GroupId, Write)>> {
    let old = |from: u64| entries(2, (from..from + 3).map(|index| entry(index, 1, vec![index as u8; 500])).collect());
    let mut script = vec![vec![old(1)]];
    for index in 1..=24 {
        script.push(churn(index));
        if index == 7 {
            script.push(vec![old(4), vote(2, 3, 1)]);
        }
    }
    script
}

#[test]
fn case_41_each_live_entry_is_read_once_whenever_the_power_goes_during_a_checkpoint() {
    let rig = Rig::new(busy(), 2);
    let Ran { log, model } = run(&rig, &with_laggard());
    let stats = log.stats();
    assert!(stats.moved_runs >= 2 && stats.checkpoints > 5 && stats.freed_segments > 5, "{stats:?}");
    assert_eq!(model[&GroupId(2)].entries.len(), 6);
    let streams = || rig.slots().into_iter().filter_map(|name| rig.header(&name)).map(|header| header.stream);
    assert!(streams().any(|stream| stream == Stream::Cold), "the laggard lies in a cold segment");
    drop(log);
    let changes = cut_at_each_change(&busy(), &with_laggard(), &|_| {});
    assert!(changes > 150, "{changes}");
}

#[test]
fn case_42_what_is_written_while_entries_are_copied_wins() {
    let anew = Write { truncate_from: Some(Index(2)), entries: vec![entry(2, 9, "anew")], ..Write::default() };
    let (_, given_up) = compact(2, 2, 1);
    // At each write of the history another one meets the copies that were made before it and not taken over yet.
    let at = |position: usize, meeting: Vec<(GroupId, Write)>| {
        let mut script = with_laggard();
        // One core write, so that it is in the group that begins a segment as often as in any other.
        script[position].extend(meeting);
        script.truncate(position + 8);
        script
    };
    let mut moved = 0;
    for position in 2..8 {
        let reborn = vec![remove(2, 1), create(2, 5), entries(2, vec![entry(1, 1, "of replica 5")])];
        for meeting in [vec![(GroupId(2), anew.clone())], vec![(GroupId(2), given_up.clone())], reborn] {
            let rig = Rig::new(busy(), 2);
            let script = at(position, meeting);
            let script: Vec<_> = script.into_iter().filter(|writes| !continues_old(writes)).collect();
            let Ran { log, model } = run(&rig, &script);
            moved += log.stats().moved_runs;
            drop(log);
            assert_eq!(rig.open().1.groups, model, "write {position}");
        }
    }
    assert!(moved > 10, "{moved}");
}

/// The second part of the laggard, which does not follow what the case writes.
fn continues_old(writes: &[(GroupId, Write)]) -> bool {
    writes.iter().any(|(group, write)| {
        *group == GroupId(2) && write.entries.first().is_some_and(|entry| entry.id.index == Index(4))
    })
}

#[test]
fn an_unreadable_checkpoint_costs_time_and_no_data_also_the_second_time() {
    let rig = Rig::new(busy(), 2);
    let mut next = 1;
    let mut model = model_of(&created(2));
    for round in 0..4 {
        let (mut log, opened) = rig.open();
        assert_eq!(opened.checkpoint_unreadable.is_some(), round > 0, "round {round}");
        assert_eq!(opened.groups, model, "round {round}");
        drop(opened);
        for number in 1..=9 {
            let writes = churn(next);
            rig.commit(&mut log, number, &writes);
            apply(&mut model, &writes);
            next += 1;
            // One checkpoint only, so that it is the older one, which was read, that it has beside it.
            if round > 0 && log.stats().checkpoints > 0 {
                break;
            }
        }
        assert!(log.stats().checkpoints > u64::from(round == 0), "round {round}");
        drop(log);
        let [Some(newest), Some(older)] = rig.control().checkpoints else { panic!("two checkpoints") };
        assert!(newest != older);
        // A checkpoint that could not be read must not be named any more, or the next one has it as its only substitute.
        rig.damage(&rig.slot_of(newest.end.place.segment), |bytes| {
            bytes[newest.end.place.offset as usize - BLOCK_BYTES + 70] ^= 1;
        });
    }
    // Both of them: then it is not known what the log held.
    let (mut log, _) = rig.open();
    for index in next..next + 30 {
        rig.commit(&mut log, index, &churn(index));
    }
    assert!(log.stats().freed_segments > 3, "the beginning of the log is given up");
    drop(log);
    assert!(rig.control().checkpoints.iter().all(Option::is_some));
    for known in rig.control().checkpoints.into_iter().flatten() {
        let name = rig.slot_of(known.end.place.segment);
        rig.damage(&name, |bytes| bytes[known.end.place.offset as usize - BLOCK_BYTES + 70] ^= 1);
    }
    let error = rig.refused();
    assert!(
        matches!(&error, LogError::Corruption { file, .. } if file == CONTROL_NAME)
            || matches!(error, LogError::MissingSegment { .. }),
        "{error}"
    );
}

#[test]
fn a_rotten_directory_without_another_copy_is_named_before_the_log_stops() {
    let rig = Rig::new(Options { checkpoint_segments: 3, ..small() }, 2);
    let (mut log, _) = rig.open();
    let mut commit = |number: u64| -> Result<(), LogError> {
        log.append(CoreWriteNumber(number), &[entries(2, vec![entry(number, 1, vec![7; 9000])])]);
        while let Some(sync) = log.begin_sync()? {
            log.finish_sync(rig.disk.sync(sync.fd))?;
        }
        Ok(())
    };
    // The first segment is closed behind its second entry and has its footer.
    (1..=4).for_each(|number| commit(number).unwrap());
    let directory = 2 * BLOCK_BYTES;
    rig.damage("slot-001.seg", |bytes| {
        let (at, last) = *groups_in(bytes).last().unwrap();
        bytes[at + last.group_len() + 8] ^= 1;
        bytes[directory + 70] ^= 1;
    });
    let error = (5..40).find_map(|number| commit(number).err()).expect("the keeper reads it for its checkpoint");
    let is_named = |error: &LogError| matches!(error, LogError::Corruption { file, offset, .. } if file == "slot-001.seg" && *offset == directory as u64);
    assert!(is_named(&error), "{error}");
    let fenced = commit(100).unwrap_err();
    assert!(matches!(&fenced, LogError::Fenced { why } if why.contains("slot-001.seg at 8192")), "{fenced}");
    drop(log);
    let refused = rig.refused();
    assert!(is_named(&refused), "the next start says the same: {refused}");
}
