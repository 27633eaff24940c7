//! How much space a log takes: what starts may take, when they are refused, and how a full log stops.

use pontoon_types::CoreWriteNumber;
use pontoon_wal::{Log, LogError, Options};

use crate::cases::with_writes;
use crate::common::{Model, Random, Rig, apply, created, entries, entry, model_of, small, vote};

const SEGMENT_BYTES: u64 = 32 << 10;

#[test]
fn starts_of_an_idle_log_take_no_space() {
    let rig = Rig::new(Options { max_log_bytes: 4 * SEGMENT_BYTES, ..small() }, 2);
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
    assert_eq!(bytes, vec![4 * SEGMENT_BYTES; 40]);
    assert_eq!(rig.slots().len(), 4);
}

#[test]
fn max_log_bytes_holds_over_starts_that_each_write_something() {
    let options = Options { max_log_bytes: 6 * SEGMENT_BYTES, ..small() };
    let mut rig = Rig::new(options, 2);
    let mut terms = 0;
    let error = loop {
        let (mut log, recovered) = match rig.try_open() {
            Ok(opened) => opened,
            Err(error) => break error,
        };
        assert_eq!(recovered.groups[&created(1)[0].0].hard_state.term.0, terms, "nothing is lost on the way");
        assert!(log.bytes() <= 8 * SEGMENT_BYTES, "the reserve is two segments");
        assert_eq!(log.is_full(), log.bytes() > 6 * SEGMENT_BYTES, "above the maximum the log is busy");
        terms += 1;
        rig.commit(&mut log, 1, &[vote(2, terms, 1)]);
    };
    // The creation, five segments below the maximum and two above it.
    assert_eq!(terms, 8);
    assert_eq!(rig.slots().len(), 8);
    assert!(matches!(error, LogError::Option { name: "max_log_bytes", value, .. } if value == 6 * SEGMENT_BYTES));
    let text = rig.refused().to_string();
    let needed = 9 * SEGMENT_BYTES;
    assert!(text.contains(&format!("{needed} bytes in all")) && text.contains("raise it to at least that"), "{text}");
    rig.options.max_log_bytes = needed;
    let (mut log, recovered) = rig.open();
    assert_eq!(recovered.groups[&created(1)[0].0].hard_state.term.0, terms);
    assert!(!log.is_full(), "doing what the error says is enough");
    rig.commit(&mut log, 1, &[vote(2, terms + 1, 1)]);
}

#[test]
fn max_log_bytes_holds_over_interrupted_starts() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut rig = Rig::new(Options { max_log_bytes: 6 * SEGMENT_BYTES, ..small() }, 2);
        let (log, model) = with_writes(&rig, 4);
        drop(log);
        let mut random = Random(seed);
        for _ in 0..40 {
            // Somewhere between the first write of a start and its end: each may leave a file behind.
            rig.disk.cut_power_after(random.below(9));
            match rig.try_open() {
                Ok((log, _)) => drop(log),
                Err(LogError::Io { .. }) => {}
                Err(LogError::Option { name: "max_log_bytes", .. }) => {
                    refused += 1;
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
        assert_eq!(log.bytes(), rig.slots().len() as u64 * SEGMENT_BYTES, "seed {seed}: what was left behind is gone");
        opened += 1;
    }
    assert!(opened == 60 && refused > 0, "{refused} refused");
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
        let max_log_bytes = if disk_is_full { 64 * SEGMENT_BYTES } else { 4 * SEGMENT_BYTES };
        let rig = Rig::new(Options { max_log_bytes, ..small() }, 2);
        if disk_is_full {
            rig.disk.limit_free_bytes(Some(3 * SEGMENT_BYTES));
        }
        let (log, model) = fill(&rig);
        log.close().unwrap();
        rig.disk.limit_free_bytes(None);
        rig.disk.crash(|_| false);
        let (log, recovered) = rig.open();
        assert!(!recovered.clean, "the next open takes it for a crash");
        assert_eq!(recovered.groups, model, "what was reported is there, and nothing that was not");
        assert_eq!(log.is_full(), !disk_is_full);
    }
}
