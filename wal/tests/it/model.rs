//! Random histories with random crashes, against a model: what was finished is there exactly, what was in flight is
//! there as a whole or not at all, and nothing else ever happens.
//!
//! `PONTOON_WAL_SEEDS=N` runs another number of seeds.

use pontoon_types::{CoreWriteNumber, GroupId, HardState, Incarnation, Index, ReplicaId, Term, Write};
use pontoon_wal::{Log, LogError, Options, Recovered, Sync};

use crate::common::{Model, Random, Rig, apply, created, entry, model_of};

const SEEDS: u64 = 1500;
const GROUPS: u64 = 4;

/// One random write that keeps the rules of writing.
fn random_write(random: &mut Random, model: &Model) -> (GroupId, Write) {
    let group = GroupId(2 + random.below(GROUPS));
    let state = &model[&group];
    let mut write = Write::default();
    if random.below(4) == 0 {
        let term = Term(state.hard_state.term.0 + 1);
        let vote = (random.below(2) == 0).then(|| ReplicaId(random.below(3)));
        write.hard_state = Some(HardState { term, vote });
    }
    let mut next = state.entries.len() as u64 + 1;
    if next > 1 && random.below(6) == 0 {
        // The term of the overwrite may be lower than what is cut (law 14).
        next = 1 + random.below(next);
        write.truncate_from = Some(Index(next));
    }
    let mut term = 1 + random.below(5);
    for index in next..next + random.below(5) {
        let length = [0, 1, 40, 700, 2400][random.below(5) as usize];
        write.entries.push(entry(index, term, vec![random.next() as u8; length]));
        term += random.below(2);
    }
    (group, write)
}

fn random_options(random: &mut Random) -> Options {
    Options {
        segment_bytes: [16 << 10, 32 << 10, 64 << 10][random.below(3) as usize],
        max_log_bytes: 64 << 20,
        group_bytes_max: [4 << 10, 12 << 10, 1 << 20][random.below(3) as usize],
        ready_segments: 1 + random.below(2) as usize,
    }
}

/// Loses power in one of the ways a disk can: nothing, everything, sectors or blocks of the unsynced survive.
fn crash(rig: &Rig, random: &mut Random) {
    let mode = random.below(4);
    let mut block = (usize::MAX, false);
    rig.disk.crash(|sector| match mode {
        0 => false,
        1 => true,
        2 => random.below(2) == 0,
        _ => {
            if block.0 != sector / 8 {
                block = (sector / 8, random.below(2) == 0);
            }
            block.1
        }
    });
}

/// The history of one open log. States by core write number; the first is what the open recovered.
struct Run<'a> {
    rig: &'a Rig,
    log: Log,
    states: Vec<Model>,
    durable: usize,
    flight: Option<Sync>,
}

impl Run<'_> {
    /// Does random things until something fails, which only a lost disk explains.
    fn go(&mut self, random: &mut Random, steps: u64) -> bool {
        for _ in 0..steps {
            let lost = match random.below(5) {
                0 | 1 => {
                    let mut state = self.states.last().unwrap().clone();
                    let mut writes = Vec::new();
                    // Above one segment a core write is cut, which has its own test.
                    let mut room = self.rig.options.segment_bytes as usize - 6000;
                    for _ in 0..random.below(4) {
                        let write = random_write(random, &state);
                        let bytes = write.1.entries.iter().map(|entry| entry.payload.len() + 64).sum::<usize>();
                        if bytes > room {
                            break;
                        }
                        room -= bytes;
                        apply(&mut state, std::slice::from_ref(&write));
                        writes.push(write);
                    }
                    self.log.append(CoreWriteNumber(self.states.len() as u64), &writes);
                    self.states.push(state);
                    false
                }
                2 => self.begin(Log::begin_sync),
                3 => self.begin(Log::begin_seal),
                _ => self.finish(),
            };
            if lost {
                return false;
            }
        }
        true
    }

    fn begin(&mut self, how: fn(&mut Log) -> Result<Option<Sync>, LogError>) -> bool {
        match how(&mut self.log) {
            Ok(None) => false,
            Ok(Some(sync)) => {
                assert!(self.flight.replace(sync).is_none(), "one sync at a time");
                false
            }
            // This disk refuses a write as a whole.
            Err(_) => true,
        }
    }

    fn finish(&mut self) -> bool {
        let Some(sync) = self.flight else { return false };
        match self.log.finish_sync(self.rig.disk.sync(sync.fd)) {
            Ok(through) => {
                assert_eq!(through, sync.through);
                assert!(through.0 as usize >= self.durable);
                (self.durable, self.flight) = (through.0 as usize, None);
                false
            }
            Err(_) => true,
        }
    }

    /// Whether a recovered state is one of those that may be there.
    fn allows(&self, found: &Model) -> bool {
        let flight = self.flight.map(|sync| sync.through.0 as usize);
        match flight {
            None => *found == self.states[self.durable],
            Some(through) => *found == self.states[self.durable] || *found == self.states[through],
        }
    }
}

/// How often something happened over all seeds, so that a harness that stopped reaching it is noticed.
#[derive(Default)]
struct Seen {
    torn: u64,
    rewritten: u64,
    clean: u64,
    interrupted_opens: u64,
    resumed_unclean: u64,
}

fn run_seed(seed: u64, seen: &mut Seen) {
    let mut random = Random(seed);
    let options = random_options(&mut random);
    let rig = Rig::new(options, GROUPS);
    let mut expected =
        Run { rig: &rig, log: rig.open().0, states: vec![model_of(&created(GROUPS))], durable: 0, flight: None };
    let mut incarnation = Incarnation(1);
    for life in 0..5 {
        let steps = 5 + random.below(60);
        let cut = random.below(3) == 0;
        if cut {
            rig.disk.cut_power_after(random.below(60));
        }
        let fine = expected.go(&mut random, steps);
        let stopped_clean = !cut && fine && expected.flight.is_none() && random.below(3) == 0;
        if stopped_clean {
            let Run { log, states, .. } = expected;
            log.close().unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
            let durable = states.len() - 1;
            let (log, recovered) = reopen(&rig, &mut random, seed, seen);
            let found = recovered.groups;
            assert!(found == states[durable], "seed {seed} life {life}: a clean stop keeps everything");
            assert!(log.incarnation() > incarnation);
            incarnation = log.incarnation();
            expected = Run { rig: &rig, log, states: vec![found], durable: 0, flight: None };
            continue;
        }
        // Without a power loss the kernel still has everything: the process was killed.
        let killed = !cut && random.below(3) == 0;
        let Run { log, states, durable, flight, .. } = expected;
        drop(log);
        if !killed {
            crash(&rig, &mut random);
        }
        let (log, recovered) = reopen(&rig, &mut random, seed, seen);
        let checked = Run { rig: &rig, log, states, durable, flight };
        assert!(checked.allows(&recovered.groups), "seed {seed} life {life}: lost or half a write");
        assert!(checked.log.incarnation() > incarnation, "seed {seed}: an incarnation came back");
        incarnation = checked.log.incarnation();
        // What an open returns is durable at once, even what was never synced before.
        let again = if random.below(3) == 0 {
            drop(checked.log);
            crash(&rig, &mut random);
            let (log, again) = reopen(&rig, &mut random, seed, seen);
            assert_eq!(again.groups, recovered.groups, "seed {seed} life {life}: recovered, acted on, and lost");
            incarnation = log.incarnation();
            log
        } else {
            checked.log
        };
        expected = Run { rig: &rig, log: again, states: vec![recovered.groups], durable: 0, flight: None };
    }
}

/// Opens the log; sometimes the power goes in the middle, once or twice, and it must still open.
fn reopen(rig: &Rig, random: &mut Random, seed: u64, seen: &mut Seen) -> (Log, Recovered) {
    for _ in 0..random.below(3) {
        rig.disk.cut_power_after(random.below(25));
        match rig.try_open() {
            Ok((log, _)) => drop(log),
            Err(LogError::Io { .. }) => seen.interrupted_opens += 1,
            Err(error) => panic!("seed {seed}: a half-done open made the log unreadable: {error}"),
        }
        crash(rig, random);
    }
    let opened = rig.try_open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    seen.torn += u64::from(opened.1.torn_tail.is_some());
    seen.rewritten += u64::from(opened.1.rewritten);
    seen.clean += u64::from(opened.1.clean);
    seen.resumed_unclean += u64::from(opened.1.resumed && !opened.1.clean);
    opened
}

#[test]
fn random_histories_with_crashes_lose_nothing_durable() {
    let seeds = std::env::var("PONTOON_WAL_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let mut seen = Seen::default();
    for seed in 0..seeds {
        run_seed(seed, &mut seen);
    }
    for count in [seen.torn, seen.rewritten, seen.clean, seen.interrupted_opens, seen.resumed_unclean] {
        assert!(count > seeds / 10, "the histories reach every kind of end");
    }
}
