//! From logs that are refused to logs that open, with nothing invented and nothing promised that is not known.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_types::{Compaction, Creation, Entry, GroupId, HardState, Index, LogId, ReplicaId, Term, Write};
use pontoon_wal::format::BLOCK_BYTES;
use pontoon_wal::inspect::{Loss, verify};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::repair::{Plan, plan, rebuild_into};
use pontoon_wal::{Log, LogError, Options, Preparation};

use crate::common::{
    IDENTITY, Model, Opened, Random, Rig, apply, created, entries, entry, groups_in, model_of, opened, small, vote,
};
use crate::inspect::{checkpointed, verified};

/// Plans, rebuilds beside, and opens the result. The damaged log stays as it is.
fn repaired(rig: &Rig) -> (Plan, Opened) {
    let before = rig.disk.image();
    let planned = plan(&rig.disk).unwrap();
    let target = MemoryDisk::with_salts(77);
    rebuild_into(&rig.disk, &target).unwrap();
    assert!(before == rig.disk.image(), "the damaged log is left as it is");
    let built = verify(&target).unwrap();
    let only_payloads = built.damage.iter().all(|damage| matches!(damage.loss, Loss::Payload(..)));
    assert!(built.refusal.is_none() && only_payloads, "{built:?}");
    let opened_log = Log::open_in(Arc::new(target.clone()), IDENTITY, &rig.options, Preparation::Inline);
    let (mut log, recovered) = opened_log.unwrap();
    assert!(recovered.clean && log.incarnation() > planned.incarnation);
    let found = opened(&mut log, recovered);
    (planned, found)
}

fn marked(found: &Opened) -> Vec<GroupId> {
    let lost = |(group, of): (&GroupId, &pontoon_wal::RecoveredGroup)| of.vote_lost.then_some(*group);
    (**found).groups.iter().filter_map(lost).collect()
}

/// Three groups: one that is written all the time, one that rests, one that votes at the end. Damage goes in the middle.
fn three(damage: impl FnOnce(&Rig)) -> (Rig, Model) {
    // All of it in one segment, which has no footer yet.
    let rig = Rig::new(Options { segment_bytes: 128 << 10, ..small() }, 3);
    let (mut log, _) = rig.open();
    let mut model = model_of(&created(3));
    let mut commit = |number: u64, writes: Vec<(GroupId, Write)>| {
        rig.commit(&mut log, number, &writes);
        apply(&mut model, &writes);
    };
    commit(1, vec![vote(3, 1, 1), entries(3, vec![entry(1, 1, "rests")])]);
    for number in 2..=5 {
        commit(number, vec![entries(2, vec![entry(number - 1, 1, vec![number as u8; 100])])]);
    }
    commit(6, vec![vote(4, 9, 2), entries(4, vec![entry(1, 9, "late")])]);
    commit(7, vec![entries(2, vec![entry(5, 1, "same term")])]);
    rig.seal(&mut log);
    drop(log);
    damage(&rig);
    (rig, model)
}

#[test]
fn behind_an_unreadable_range_only_what_is_proven_counts() {
    // Group of records 5 held entry 3 of group 2: the entries behind it are not connected any more.
    let (rig, model) = three(|rig| rig.damage("slot-001.seg", |bytes| bytes[5 * BLOCK_BYTES + 30] ^= 1));
    rig.refused();
    let (planned, found) = repaired(&rig);
    assert!(planned.is_needed());
    let unreadable: Vec<_> = planned.unreadable.iter().map(|lost| (lost.offset, lost.what.as_str())).collect();
    assert_eq!(unreadable, [(5 * 4096, "group of records 5")]);
    assert_eq!(found.groups[&GroupId(2)].entries, model[&GroupId(2)].entries[..2]);
    assert_eq!(found.groups[&GroupId(3)].entries, model[&GroupId(3)].entries);
    assert_eq!(found.groups[&GroupId(4)], model[&GroupId(4)], "its hard state and its first entry came later");
    assert_eq!(marked(&found), [GroupId(2), GroupId(3), GroupId(4)], "a first entry does not say whose log it begins");
    let of = |id| planned.groups.iter().find(|group| group.group == GroupId(id)).unwrap();
    assert_eq!((of(2).cut_from, of(2).last), (Some(Index(3)), LogId::new(Index(2), Term(1))));
    assert_eq!((of(3).cut_from, of(3).may_miss_entries, of(3).vote_lost), (None, true, true));
    assert_eq!((of(4).cut_from, of(4).last), (None, LogId::new(Index(1), Term(9))));
}

#[test]
fn an_entry_of_the_same_term_connects() {
    // What is lost is the group of records with the late vote and nothing of group 2.
    let (rig, model) = three(|rig| rig.damage("slot-001.seg", |bytes| bytes[7 * BLOCK_BYTES + 64] ^= 1));
    rig.refused();
    let (_, found) = repaired(&rig);
    assert_eq!(found.groups[&GroupId(2)].entries, model[&GroupId(2)].entries, "term 1 before and behind");
    assert_eq!(marked(&found), [GroupId(2), GroupId(3), GroupId(4)], "any of them may have voted");
    assert!(found.groups[&GroupId(4)].entries.is_empty());
    assert_eq!(found.groups[&GroupId(4)].hard_state, HardState::default());
}

#[test]
fn an_entry_of_another_term_does_not_connect() {
    // The unreadable group of records cut entry 3 and wrote another one in its place.
    let rig = Rig::new(Options { segment_bytes: 128 << 10, ..small() }, 1);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[entries(2, (1..=3).map(|index| entry(index, 1, "old")).collect())]);
    let overwrite = Write { truncate_from: Some(Index(3)), entries: vec![entry(3, 2, "new")], ..Write::default() };
    rig.commit(&mut log, 2, &[(GroupId(2), overwrite)]);
    rig.commit(&mut log, 3, &[entries(2, vec![entry(4, 2, "behind the new one")])]);
    rig.seal(&mut log);
    drop(log);
    rig.damage("slot-001.seg", |bytes| bytes[3 * BLOCK_BYTES + 64] ^= 1);
    let (planned, found) = repaired(&rig);
    let kept: Vec<LogId> = found.groups[&GroupId(2)].entries.iter().map(|entry| entry.id).collect();
    assert_eq!(kept, [1, 2, 3].map(|index| LogId::new(Index(index), Term(1))));
    assert_eq!((planned.groups[0].cut_from, planned.groups[0].vote_lost), (Some(Index(4)), true));
}

/// An echo counts for a group of records that held hard states only: of any other, more is lost than it repeats.
#[test]
fn case_36_a_vote_that_is_lost_with_entries_is_not_taken_from_its_echo() {
    let rig = Rig::new(small(), 2);
    let (mut log, _) = rig.open();
    rig.commit(&mut log, 1, &[vote(2, 1, 1)]);
    rig.commit(&mut log, 2, &[vote(2, 7, 3), entries(3, vec![entry(1, 1, "lost with the vote")])]);
    rig.commit(&mut log, 3, &[entries(3, vec![entry(2, 1, "behind it")])]);
    drop(log);
    let [.., (at, _), (_, behind)] = groups_in(&rig.disk.content("slot-001.seg").unwrap())[..] else {
        panic!("two groups")
    };
    assert_eq!((behind.runs, behind.is_echo_whole()), (2, false), "an entry and the echo, which is not all");
    rig.damage("slot-001.seg", |bytes| bytes[at + 9] ^= 1);
    let error = rig.refused();
    assert!(matches!(error, LogError::Corruption { offset, .. } if offset == at as u64), "{error}");
    let (planned, found) = repaired(&rig);
    assert_eq!(planned.unreadable.len(), 1);
    let known = HardState { term: Term(1), vote: Some(ReplicaId(1)) };
    assert_eq!(found.groups[&GroupId(2)].hard_state, known, "the last that is known otherwise");
    assert_eq!(marked(&found), [GroupId(2), GroupId(3)], "so it must not vote, in term 7 or in any other");
    assert!(found.groups[&GroupId(3)].entries.is_empty());
}

#[test]
fn every_class_of_damage_that_refuses_a_log_can_be_repaired() {
    let long = || {
        let rig = Rig::new(small(), 2);
        let (log, model) = crate::cases::with_writes(&rig, 40);
        drop(log);
        (rig, model)
    };
    // What to damage, and how many of the forty entries are kept.
    type Class = (&'static str, fn(&Rig), usize);
    let classes: [Class; 6] = [
        ("a segment header", |rig| rig.damage("slot-003.seg", |bytes| bytes[40] ^= 1), 40),
        ("a missing segment", |rig| assert!(rig.disk.lose("slot-002.seg").is_some()), 6),
        ("a cut file", |rig| rig.damage("slot-003.seg", |bytes| bytes.truncate(20_000)), 16),
        (
            "a directory without footer",
            |rig| {
                rig.damage("slot-001.seg", |bytes| {
                    bytes[3 * BLOCK_BYTES + 64] ^= 1;
                    bytes[8 * BLOCK_BYTES + 40] ^= 1;
                });
            },
            1,
        ),
        (
            "the control file",
            |rig| {
                rig.damage("ctl", |bytes| {
                    bytes[60] ^= 1;
                    bytes[4096 + 60] ^= 1;
                });
            },
            40,
        ),
        ("the newest segment", |rig| assert!(rig.disk.lose(&rig.newest()).is_some()), 36),
    ];
    for (what, damage, kept) in classes {
        let (rig, model) = long();
        damage(&rig);
        rig.refused();
        let (planned, found) = repaired(&rig);
        assert!(planned.is_needed(), "{what}");
        let (full, of) = (&model[&GroupId(2)].entries, &found.groups[&GroupId(2)].entries);
        assert!(of.len() <= full.len() && *of == full[..of.len()], "{what}: a prefix");
        // Where the missing part begins depends on how much a segment holds.
        assert!(of.len().abs_diff(kept) <= 6, "{what}: {} entries are kept", of.len());
        if of.len() < full.len() {
            assert!(marked(&found).contains(&GroupId(2)), "{what}");
        }
    }
}

#[test]
fn rotten_payloads_need_no_repair_and_survive_one_as_rotten() {
    let (rig, model) = three(|rig| {
        rig.damage("slot-001.seg", |bytes| bytes[4 * BLOCK_BYTES + 112] ^= 1);
    });
    let planned = plan(&rig.disk).unwrap();
    assert!(!planned.is_needed() && planned.verdict.heals_by_itself(), "{planned:?}");
    rig.damage("slot-001.seg", |bytes| bytes[7 * BLOCK_BYTES + 64] ^= 1);
    let (planned, found) = repaired(&rig);
    assert!(planned.is_needed());
    let of = &found.groups[&GroupId(2)];
    assert_eq!((of.entries.len(), of.lost.as_slice()), (5, &[Index(2)][..]));
    assert_eq!(of.entries[0], model[&GroupId(2)].entries[0]);
}

#[test]
fn an_intact_log_loses_nothing_by_being_written_anew() {
    for close in [true, false] {
        let rig = checkpointed(close);
        let expected = rig.open().1.groups;
        let (planned, found) = repaired(&rig);
        assert!(!planned.is_needed());
        assert_eq!(found.groups, expected);
        assert!(marked(&found).is_empty());
    }
}

#[test]
fn entries_that_only_a_checkpoint_knows_of_are_cut_where_their_directory_is_gone() {
    let rig = checkpointed(true);
    let expected = rig.open().1.groups;
    // The one entry of group 3 was copied into a cold segment, which has no footer.
    let found = pontoon_wal::inspect::stat(&rig.disk).unwrap();
    let holder = found.segments.iter().find(|segment| segment.stream == "cold" && segment.live_bytes > 0).unwrap();
    let (at, _) = groups_in(&rig.disk.content(&holder.file).unwrap())[0];
    rig.damage(&holder.file, |bytes| bytes[at + 64] ^= 1);
    let verdict = verified(&rig);
    let lost = Loss::Entries(GroupId(3), Index(1), Index(1));
    assert!(verdict.damage.iter().any(|damage| damage.loss == lost), "{verdict:?}");
    let (planned, found) = repaired(&rig);
    assert!(planned.is_needed());
    assert!(found.groups[&GroupId(3)].entries.is_empty());
    assert_eq!(found.groups[&GroupId(3)].hard_state, expected[&GroupId(3)].hard_state, "the checkpoint knows it");
    assert_eq!(found.groups[&GroupId(2)], expected[&GroupId(2)]);
    assert_eq!(marked(&found), [GroupId(3)]);
}

#[test]
fn both_checkpoints_named_by_nobody_are_found() {
    let rig = checkpointed(true);
    let expected = rig.open().1.groups;
    rig.damage("ctl", |bytes| {
        bytes[60] ^= 1;
        bytes[4096 + 60] ^= 1;
    });
    let (_, found) = repaired(&rig);
    for (group, of) in &expected {
        assert_eq!(found.groups[group].entries, of.entries, "{group}");
        assert_eq!(found.groups[group].descriptor, of.descriptor, "{group}");
    }
}

/// Everything that was ever written.
#[derive(Default)]
struct History {
    model: Model,
    /// Payloads by group, replica and identity, with the term of the entry before.
    written: BTreeMap<(GroupId, ReplicaId, u64, u64), (Bytes, Term)>,
}

impl History {
    /// One lawful write of a random group.
    fn write(&mut self, random: &mut Random, step: u64) -> (GroupId, Write) {
        let group = GroupId(2 + random.below(5));
        let Some(of) = self.model.get(&group) else {
            let creation =
                Creation { replica: ReplicaId(step + 1), descriptor: Bytes::from(format!("made at {step}")) };
            return (group, Write { create: Some(Box::new(creation)), ..Write::default() });
        };
        let (next, term) = (of.next(), of.hard_state.term.0);
        let last_term = of.entries.last().map_or(of.compacted.term, |entry| entry.id.term).0;
        let mut write = Write::default();
        match random.below(12) {
            0 => write.remove = Some(of.replica),
            1 | 2 => {
                let vote = Some(ReplicaId(1 + random.below(3)));
                write.hard_state = Some(HardState { term: Term(term + 1), vote });
            }
            3 if of.entries.len() > 1 => {
                let from = of.first() + 1 + random.below(of.entries.len() as u64 - 1);
                let term = term + 1;
                write.hard_state = Some(HardState { term: Term(term), vote: None });
                write.truncate_from = Some(Index(from));
                write.entries = vec![entry(from, term, vec![step as u8; 40])];
            }
            4 if !of.entries.is_empty() => {
                let to = of.entries[random.below(of.entries.len() as u64) as usize].id;
                write.compact = Some(Compaction { to, reset: false });
            }
            5 => {
                let to = LogId::new(Index(next + 5), Term(term.max(last_term).max(of.replica.0)));
                write.compact = Some(Compaction { to, reset: true });
            }
            _ => {
                // A later replica joins in a later term: no two entries of a group share index and term.
                let term = term.max(last_term).max(of.replica.0);
                let bytes = 30 + random.below(900) as usize;
                let made = |index| entry(index, term, vec![(step + index) as u8; bytes]);
                write.entries = (next..next + 1 + random.below(3)).map(made).collect();
                write.hard_state = Some(HardState { term: Term(term), vote: of.hard_state.vote });
            }
        }
        (group, write)
    }

    fn take(&mut self, writes: &[(GroupId, Write)]) {
        for (group, write) in writes {
            let Some(of) = self.model.get(group) else { continue };
            let kept = write.truncate_from.map_or(of.entries.len(), |from| (from.0 - of.first()) as usize);
            let mut before = of.entries[..kept].last().map_or(of.compacted, |entry| entry.id).term;
            for Entry { id, payload, .. } in &write.entries {
                self.written.insert((*group, of.replica, id.index.0, id.term.0), (payload.clone(), before));
                before = id.term;
            }
        }
        apply(&mut self.model, writes);
    }
}

/// Whatever is damaged: what the repaired log holds was written, follows the law of its terms, and a replica that lacks
/// anything does not vote.
#[test]
fn no_damage_makes_a_repaired_log_lie() {
    let (mut refused, mut whole, mut cut, mut torn) = (0, 0, 0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let checkpoint_segments = [2, 1000][random.below(2) as usize];
        let rig = Rig::new(Options { checkpoint_segments, max_log_bytes: 40 * (36 << 10), ..small() }, 2);
        let (mut log, _) = rig.open();
        let mut history = History { model: model_of(&created(2)), ..History::default() };
        for step in 1..=20 + random.below(120) {
            let writes = [history.write(&mut random, step)];
            rig.commit(&mut log, step, &writes);
            history.take(&writes);
        }
        // The last group of records is proven durable: by a SEAL, or if there is no room for one by the control file.
        if let Some(sync) = log.begin_seal().unwrap() {
            log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
        }
        drop(log);
        let seal = verify(&rig.disk).unwrap().end_seq;
        for _ in 0..1 + random.below(3) {
            damage(&rig, &mut random);
        }
        let before = rig.disk.image();
        let verdict = match verify(&rig.disk) {
            Ok(verdict) => verdict,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        assert!(before == rig.disk.image(), "seed {seed}");
        if verdict.refusal.is_some() {
            refused += 1;
        }
        if verdict.is_fine() {
            assert_eq!(rig.open().1.groups, history.model, "seed {seed}: a log that is fine");
            continue;
        }
        let (planned, found) = repaired(&rig);
        if verdict.torn.is_some() && verdict.end_seq.0 + 1 < seal.0 {
            // The last group of records and the SEAL behind it are both gone: no proof is left, as is stated.
            torn += 1;
            continue;
        }
        for id in &planned.unknown {
            assert!(!found.groups.contains_key(id), "seed {seed}");
        }
        for (id, of) in &found.groups {
            let state = &(*found).groups[id];
            let truth = history.model.get(id);
            let mut before = of.compacted;
            for Entry { id: at, payload, .. } in &of.entries {
                let Some((bytes, follows)) = history.written.get(&(*id, of.replica, at.index.0, at.term.0)) else {
                    // Of another replica, if the end of this one was lost.
                    assert!(state.vote_lost, "seed {seed} {id}: {at} was never written");
                    continue;
                };
                assert!(of.lost.contains(&at.index) || bytes == payload, "seed {seed} {id}: {at} was not written");
                assert_eq!((before.index.next(), before.term), (at.index, *follows), "seed {seed} {id}: before {at}");
                before = *at;
            }
            if state.vote_lost {
                cut += 1;
                continue;
            }
            whole += 1;
            let truth = truth.unwrap_or_else(|| panic!("seed {seed} {id}: a removed replica may vote"));
            assert_eq!((of.replica, of.hard_state), (truth.replica, truth.hard_state), "seed {seed} {id}");
            let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
            let from = truth.compacted.index.max(of.compacted.index);
            let behind = |ids: Vec<LogId>| ids.into_iter().filter(|at| at.index > from).collect::<Vec<_>>();
            assert_eq!(behind(ids(&of.entries)), behind(ids(&truth.entries)), "seed {seed} {id}");
        }
    }
    assert!(refused > 50 && whole > 50 && cut > 50, "{refused} refused, {whole} groups whole, {cut} cut");
    assert!(torn < 30, "{torn} ends without a proof");
}

/// Changes a few bytes, a block or a whole file of what was used.
fn damage(rig: &Rig, random: &mut Random) {
    let slots = rig.slots();
    let name = &slots[random.below(slots.len() as u64) as usize];
    let used = groups_in(&rig.disk.content(name).unwrap());
    let end = used.last().map_or(BLOCK_BYTES, |(at, header)| at + header.group_len());
    match random.below(8) {
        0 => assert!(rig.disk.lose(name).is_some()),
        1 => rig.damage("ctl", |bytes| bytes[random.below(8192) as usize] ^= 0x10),
        2 | 3 => {
            let block = random.below((end / BLOCK_BYTES) as u64) as usize;
            rig.damage(name, |bytes| bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].fill(0));
        }
        _ => {
            let block = random.below((end / BLOCK_BYTES) as u64) as usize;
            let at = block * BLOCK_BYTES + random.below(200) as usize;
            rig.damage(name, |bytes| bytes[at] ^= 1 << random.below(8));
        }
    }
}
