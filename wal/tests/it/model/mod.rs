//! Random histories with random crashes, against a model: what was finished is there exactly, what was in flight is
//! there as a whole or not at all, and nothing else ever happens. While the log runs, what it reads is what was written,
//! and what was read never changes.
//!
//! The logs are small and short of room, so that checkpoints, cold copies and used slots are the common case. Between
//! two lives the newest checkpoint is sometimes damaged, when nothing else is.
//!
//! `PONTOON_WAL_SEEDS=N` runs another number of seeds, `PONTOON_WAL_SEED=N` only that one.

pub mod history;
mod seen;

use bytes::Bytes;
use pontoon_types::{CoreWriteNumber, GroupId, Incarnation, Index, Write};
use pontoon_wal::format::BLOCK_BYTES;
use pontoon_wal::{Log, LogError, Options, ReadError, Sync};

use crate::common::{Opened, Random, Rig};
use history::{GROUPS, LATER_GROUPS, State, bytes_of, compaction, crash, random_options, random_write};
use seen::Seen;

const SEEDS: u64 = 10_000;
/// Slices that are held at once.
const HELD: usize = 12;

/// Payloads that somebody goes on reading, with a copy of what they were.
type Held = Vec<(Bytes, Vec<u8>)>;

/// The history of one open log. States by core write number; the first is what the open recovered.
struct Run<'a> {
    rig: &'a Rig,
    name: String,
    log: Log,
    states: Vec<State>,
    written: usize,
    durable: usize,
    flight: Option<Sync>,
    held: Held,
}

impl<'a> Run<'a> {
    fn new(rig: &'a Rig, name: String, log: Log, state: State) -> Run<'a> {
        Run { rig, name, log, states: vec![state], written: 0, durable: 0, flight: None, held: Vec::new() }
    }

    /// Does random things until something fails, which only lost power explains.
    fn go(&mut self, random: &mut Random, steps: u64, seen: &mut Seen) -> bool {
        for _ in 0..steps {
            let lost = match random.below(14) {
                0..5 => {
                    self.append(random);
                    false
                }
                5 | 6 => self.begin(Log::begin_sync, seen),
                7 => self.begin(Log::begin_seal, seen),
                8..11 => self.finish(),
                11 => {
                    self.read(random);
                    false
                }
                12 => {
                    self.hold(random);
                    false
                }
                _ => self.look_at_room(random, seen),
            };
            if lost {
                assert!(self.rig.disk.is_without_power(), "{}: failed with power", self.name);
                return false;
            }
        }
        true
    }

    fn append(&mut self, random: &mut Random) {
        let mut state = self.states.last().unwrap().clone();
        let segment_bytes = self.rig.options.segment_bytes;
        let mut writes = Vec::new();
        // Above one segment a core write is cut, which has its own test.
        let mut room = segment_bytes as usize - 10_200;
        let saving = self.log.is_full() || state.live_bytes() > self.rig.options.max_log_bytes / 4;
        for _ in 0..random.below(4) {
            let write = random_write(random, &state, saving);
            let bytes = bytes_of(&write.1);
            if bytes > room {
                break;
            }
            room -= bytes;
            state.apply(write.0, &write.1);
            writes.push(write);
        }
        self.push(state, &writes);
    }

    fn push(&mut self, state: State, writes: &[(GroupId, Write)]) {
        self.log.append(CoreWriteNumber(self.states.len() as u64), writes);
        self.states.push(state);
    }

    fn begin(&mut self, how: fn(&mut Log) -> Result<Option<Sync>, LogError>, seen: &mut Seen) -> bool {
        match how(&mut self.log) {
            Ok(None) => false,
            Ok(Some(sync)) => {
                assert!(self.flight.replace(sync).is_none(), "one sync at a time");
                self.written = sync.through.0 as usize;
                false
            }
            Err(LogError::Full { .. }) => {
                seen.full += 1;
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
                let durable = through.0 as usize;
                self.states[self.durable..durable].iter_mut().for_each(|state| *state = State::default());
                (self.durable, self.flight) = (durable, None);
                false
            }
            Err(_) => true,
        }
    }

    /// A running log reads what was written, durable or not.
    fn read(&mut self, random: &mut Random) {
        let written = &self.states[self.written];
        let group = GroupId(2 + random.below(GROUPS + LATER_GROUPS));
        let Some(of) = written.groups.get(&group) else {
            assert!(matches!(self.log.load(group), Err(ReadError::NoGroup { .. })), "{}: {group}", self.name);
            return;
        };
        let loaded = self.log.load(group).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert!(loaded.entries == of.entries && loaded.lost.is_empty(), "{}: {group} reads as written", self.name);
        let from = Index(1 + random.below(of.next() + 1));
        let through = Index(from.0 + random.below(6));
        let bytes_max = [0, 1000, 1 << 20][random.below(3) as usize];
        if random.below(3) == 0 {
            self.rig.disk.chill();
        }
        let mut found = self.log.read(group, from, through, bytes_max);
        while matches!(found, Err(ReadError::Cold { .. })) {
            assert!(self.log.warm() > 0, "{}: what is cold was ordered", self.name);
            found = self.log.read(group, from, through, bytes_max);
        }
        if from < Index(of.first()) {
            assert!(matches!(found, Err(ReadError::Compacted { .. })), "{}: {found:?}", self.name);
        } else if from >= Index(of.next()) {
            assert!(matches!(found, Err(ReadError::Missing { .. })), "{}: {found:?}", self.name);
        } else {
            let found = found.unwrap_or_else(|error| panic!("{}: {error}", self.name));
            let start = (from.0 - of.first()) as usize;
            assert!(of.entries[start..].starts_with(&found) && !found.is_empty(), "{}: {group} {from}", self.name);
            let behind = Index(from.0 + found.len() as u64);
            let bytes: usize = found.iter().map(|entry| entry.payload.len()).sum();
            assert!(found.len() == 1 || bytes <= bytes_max, "{}: the limit holds", self.name);
            let next = of.entries.get(start + found.len()).filter(|_| behind <= through);
            let is_cut = next.is_none_or(|next| bytes + next.payload.len() > bytes_max) || self.log.cold_orders() > 0;
            assert!(is_cut, "{}: cut too early", self.name);
        }
    }

    /// Some payloads are held for long, and none of them ever changes (case 45).
    fn hold(&mut self, random: &mut Random) {
        let unchanged = |(bytes, copy): &(Bytes, Vec<u8>)| bytes == copy;
        assert!(self.held.iter().all(unchanged), "{}: a slice that somebody holds has changed", self.name);
        if self.held.len() >= HELD || random.below(4) == 0 {
            let gone = random.below(self.held.len() as u64 + 1) as usize;
            self.held.drain(..gone);
            return;
        }
        let group = GroupId(2 + random.below(GROUPS));
        if let Ok(loaded) = self.log.load(group) {
            let payloads = loaded.entries.into_iter().map(|entry| entry.payload).filter(|payload| !payload.is_empty());
            self.held.extend(payloads.take(2).map(|payload| (payload.clone(), payload.to_vec())));
        }
    }

    /// A log that is full has room again once everything is given up and nobody reads.
    fn look_at_room(&mut self, random: &mut Random, seen: &mut Seen) -> bool {
        if random.below(8) == 0 && !self.rig.disk.is_without_power() {
            match self.log.scrub() {
                Ok(rot) => assert!(rot.is_empty(), "{}: rot on a healthy disk: {rot:?}", self.name),
                Err(_) => return true,
            }
            seen.scrubbed += 1;
        }
        if !self.log.is_full() || random.below(3) > 0 {
            return false;
        }
        self.held.clear();
        // An order reads too, and here nobody else carries it out.
        self.log.warm();
        let mut state = self.states.last().unwrap().clone();
        let mut writes = Vec::new();
        for (group, of) in &state.groups {
            if let Some(compact) = of.entries.len().checked_sub(1).and_then(|last| compaction(of, last)) {
                writes.push((*group, Write { compact: Some(compact), ..Write::default() }));
            }
        }
        writes.iter().for_each(|(group, write)| state.apply(*group, write));
        self.push(state, &writes);
        for _ in 0..400 {
            if self.finish() || self.begin(Log::begin_sync, seen) || self.begin(Log::begin_seal, seen) {
                return true;
            }
            if !self.log.is_full() && !self.log.is_gathered() {
                seen.relieved += 1;
                return false;
            }
        }
        if self.rig.disk.is_without_power() {
            // No slot could be prepared, which is no failure yet.
            return true;
        }
        // Many interrupted starts have used up the reserve, and two segments more. Only a larger limit helps.
        let Options { max_log_bytes, segment_bytes, .. } = self.rig.options;
        assert!(
            self.log.bytes() >= max_log_bytes + 2 * segment_bytes,
            "{}: everything is given up, and the log stays full: {:?}",
            self.name,
            self.log.stats()
        );
        seen.used_up += 1;
        false
    }
}

fn run_seed(seed: u64, seen: &mut Seen) {
    let mut random = Random(seed);
    let options = random_options(&mut random);
    let mut rig = Rig::new(options, GROUPS);
    rig.disk.watch_readers();
    let mut state = State::first();
    let mut incarnation = Incarnation(0);
    let mut fell_back = false;
    seen.seeds += 1;
    for life in 0..5 {
        let name = format!("seed {seed} life {life}");
        let (log, opened) = reopen(&mut rig, &mut random, &name, seen);
        let found = State::of(opened);
        assert!(found == state, "{name}: what was found is found again");
        assert!(log.incarnation() > incarnation, "{name}: an incarnation came back");
        incarnation = log.incarnation();
        let mut run = Run::new(&rig, name.clone(), log, state);
        let cut = random.below(3) == 0;
        if cut {
            rig.disk.cut_power_after(random.below(150));
        }
        let steps = 5 + random.below(120);
        let fine = run.go(&mut random, steps, seen);
        seen.log_ended(&run.log, &rig);
        run.held.clear();
        if !cut && fine && run.flight.is_none() && random.below(3) == 0 && !run.log.is_full() {
            let Run { log, states, durable, .. } = run;
            log.close().unwrap_or_else(|error| panic!("{name}: {error}"));
            let is_clean = rig.control().clean_end.is_some();
            let (log, opened) = reopen(&mut rig, &mut random, &name, seen);
            assert!(log.incarnation() > incarnation, "{name}: an incarnation came back");
            incarnation = log.incarnation();
            drop(log);
            state = State::of(opened);
            // A full log may drop what was gathered and then does not say that its end is clean.
            let allowed = if is_clean { &states[states.len() - 1..] } else { &states[durable..] };
            assert!(allowed.contains(&state), "{name}: a clean stop keeps everything");
            damage_checkpoint(&mut rig, &mut random, seen, &name, &state, &mut fell_back);
            continue;
        }
        // Without a power loss the kernel still has everything: the process was killed.
        let killed = !cut && random.below(3) == 0;
        let ended = Ended { states: run.states, written: run.written, durable: run.durable, flight: run.flight };
        drop(run.log);
        if !killed {
            crash(&rig, &mut random);
        }
        let (log, opened) = reopen(&mut rig, &mut random, &name, seen);
        state = State::of(opened);
        assert!(ended.allows(&state), "{name}: lost or half a write");
        assert!(log.incarnation() > incarnation, "{name}: an incarnation came back");
        incarnation = log.incarnation();
        drop(log);
        // What an open returns is durable at once, even what was never synced before.
        crash(&rig, &mut random);
        damage_checkpoint(&mut rig, &mut random, seen, &name, &state, &mut fell_back);
    }
}

/// What a log that ended had promised.
struct Ended {
    states: Vec<State>,
    written: usize,
    durable: usize,
    flight: Option<Sync>,
}

impl Ended {
    /// Whether a recovered state is one of those that may be there.
    fn allows(&self, found: &State) -> bool {
        let in_flight = self.flight.is_some() && *found == self.states[self.written];
        *found == self.states[self.durable] || in_flight
    }
}

/// Sometimes rots the newest checkpoint, when nothing else is damaged: the older one, or the whole log, makes it good.
fn damage_checkpoint(
    rig: &mut Rig,
    random: &mut Random,
    seen: &mut Seen,
    name: &str,
    state: &State,
    fell_back: &mut bool,
) {
    if random.below(4) > 0 {
        return;
    }
    let [Some(newest), older] = rig.control().checkpoints else { return };
    if older == Some(newest) || older.is_none() && *fell_back {
        // The only one that is left, and what it replaces is given up.
        return;
    }
    let slot = rig.slot_of(newest.end.place.segment);
    let until = newest.end.place.offset as usize;
    let within = newest.start.place.segment == newest.end.place.segment;
    let from = if within { newest.start.place.offset as usize } else { BLOCK_BYTES };
    let blocks = ((until - from) / BLOCK_BYTES) as u64;
    let at = from + random.below(blocks) as usize * BLOCK_BYTES + random.below(100) as usize;
    rig.damage(&slot, |bytes| bytes[at] ^= 1 << random.below(8));
    let (log, opened) = open(rig, &format!("{name}, checkpoint damaged"), seen);
    let is_unreadable = opened.checkpoint_unreadable.is_some();
    assert!(State::of(opened) == *state, "{name}: a damaged checkpoint costs no data");
    *fell_back |= is_unreadable;
    if is_unreadable {
        seen.fallbacks += u64::from(older.is_some());
        seen.from_the_beginning += u64::from(older.is_none());
    }
    drop(log);
}

/// Opens the log. So many interrupted starts in a row are refused with the size that they need, which they then get.
fn open(rig: &mut Rig, name: &str, seen: &mut Seen) -> (Log, Opened) {
    loop {
        match rig.try_open() {
            Ok(opened) => return opened,
            Err(LogError::Option { name: "max_log_bytes", .. }) => {
                seen.refused += 1;
                rig.options.max_log_bytes += 8 * rig.options.segment_bytes;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// Opens the log; sometimes the power goes in the middle, once or twice, and it must still open.
fn reopen(rig: &mut Rig, random: &mut Random, name: &str, seen: &mut Seen) -> (Log, Opened) {
    for _ in 0..random.below(3) {
        rig.disk.cut_power_after(random.below(40));
        match rig.try_open() {
            Ok((log, _)) => drop(log),
            Err(LogError::Io { .. }) => seen.interrupted_opens += 1,
            Err(LogError::Option { name: "max_log_bytes", .. }) => {}
            Err(error) => panic!("{name}: a half-done open made the log unreadable: {error}"),
        }
        crash(rig, random);
    }
    let (log, opened) = open(rig, name, seen);
    seen.torn += u64::from(opened.torn_tail.is_some());
    seen.rewritten += u64::from(opened.rewritten);
    seen.clean += u64::from(opened.clean);
    seen.resumed_unclean += u64::from(opened.resumed && !opened.clean);
    seen.footers += opened.footers as u64;
    (log, opened)
}

#[test]
fn random_histories_with_crashes_lose_nothing_durable() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("PONTOON_WAL_SEED") {
        return run_seed(seed, &mut Seen::default());
    }
    let seeds = number("PONTOON_WAL_SEEDS").unwrap_or(SEEDS);
    let share = |first: u64| {
        let mut seen = Seen::default();
        (first..seeds).step_by(2).for_each(|seed| run_seed(seed, &mut seen));
        seen
    };
    let seen = std::thread::scope(|scope| {
        let other = scope.spawn(|| share(1));
        let mut seen = share(0);
        seen.add(&other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        seen
    });
    for (name, count, once_in) in seen.all() {
        println!("{name}: {count}");
        assert!(once_in == u64::MAX || count > seeds / once_in, "{name} happened {count} times in {seeds} seeds");
    }
}
