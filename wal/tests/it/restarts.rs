//! A log at its largest size that crashes again and again, at any step of being made smaller.

use std::sync::Arc;
use std::time::Duration;

use pontoon_types::{CoreWriteNumber, GroupId, LogRoom, Write};
use pontoon_wal::{Log, LogError, Options, Preparation};

use crate::common::{IDENTITY, Opened, Random, Rig, compact, entries, entry, small, try_opened};

const LIVES: u64 = 12;
const GROUPS: u64 = 4;

/// Turns in which a log has been made smaller. The keeper has the lowest priority, and a busy machine little time for it.
const PATIENCE_TURNS: u64 = 100_000;

/// A shell that syncs each turn, as long as the power is there.
struct Shell<'a> {
    rig: &'a Rig,
    preparation: Preparation,
    log: Log,
    number: u64,
    /// Of each group: durable, and given up.
    last: [u64; GROUPS as usize],
    compacted: [u64; GROUPS as usize],
}

impl Shell<'_> {
    fn start(rig: &Rig, preparation: Preparation) -> Result<Shell<'_>, LogError> {
        let (mut log, recovered) = Log::open_in(Arc::new(rig.disk.clone()), IDENTITY, &rig.options, preparation)?;
        let Opened { groups, .. } = try_opened(&mut log, recovered)?;
        let of = |group: usize| &groups[&GroupId(group as u64 + 2)];
        let last = std::array::from_fn(|group| of(group).next() - 1);
        let compacted = std::array::from_fn(|group| of(group).first() - 1);
        Ok(Shell { rig, preparation, log, number: 0, last, compacted })
    }

    fn commit(&mut self, writes: &[(GroupId, Write)]) -> Result<(), LogError> {
        self.number += 1;
        self.log.append(CoreWriteNumber(self.number), writes);
        // Without power a thread of the log may try again and again, and say nothing.
        while self.log.is_gathered() && !self.rig.disk.is_without_power() {
            match self.log.begin_sync()? {
                Some(sync) => drop(self.log.finish_sync(self.rig.disk.sync(sync.fd))?),
                None => self.wait(),
            }
        }
        Ok(())
    }

    /// Lets the threads of the log work.
    fn wait(&self) {
        if self.preparation == Preparation::Thread {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// One group makes a checkpoint.
    fn give_up(&mut self, group: usize) -> Result<(), LogError> {
        let last = self.last[group];
        if last > self.compacted[group] {
            self.commit(&[compact(group as u64 + 2, last, 1)])?;
            self.compacted[group] = last;
        }
        Ok(())
    }

    /// What an idle node does.
    fn seal(&mut self) -> Result<(), LogError> {
        if let Some(sync) = self.log.begin_seal()? {
            self.log.finish_sync(self.rig.disk.sync(sync.fd))?;
        }
        Ok(())
    }

    /// All groups make checkpoints, one by one, until the log has room.
    fn make_room(&mut self) -> Result<(), LogError> {
        for group in 0..GROUPS as usize {
            self.give_up(group)?;
            self.seal()?;
        }
        for _ in 0..PATIENCE_TURNS {
            if !self.log.room().is_none() || self.rig.disk.is_without_power() {
                return Ok(());
            }
            self.seal()?;
            self.wait();
        }
        panic!("it stays full: {:?}, {} bytes", self.log.stats(), self.log.bytes());
    }

    /// Entries of random groups and sizes within the room.
    fn write(&mut self, random: &mut Random, largest_bytes: u64) -> Result<(), LogError> {
        let mut room = self.log.room();
        let mut last = self.last;
        let mut writes = Vec::new();
        for _ in 0..1 + random.below(10) {
            let group = random.below(GROUPS);
            let entry = entry(last[group as usize] + 1, 1, vec![7; random.below(largest_bytes) as usize]);
            let Some(left) = room.minus(LogRoom::of([&entry])) else { break };
            room = left;
            last[group as usize] += 1;
            writes.push(entries(group + 2, vec![entry]));
        }
        self.commit(&writes)?;
        self.last = last;
        Ok(())
    }

    /// Writes, and gives up little of it, until the log is full or the power has gone.
    fn fill(&mut self, random: &mut Random) -> Result<(), LogError> {
        let largest_bytes = [200, 3000, self.log.segment_bytes() / 3][random.below(3) as usize];
        while !self.log.is_full() && !self.rig.disk.is_without_power() {
            self.write(random, largest_bytes)?;
            if random.below(20) == 0 {
                self.give_up(random.below(GROUPS) as usize)?;
            }
        }
        Ok(())
    }
}

fn crash_again_and_again(seed: u64, preparation: Preparation) {
    let mut random = Random(seed);
    let segment_bytes = [64 << 10, 128 << 10, 512 << 10][random.below(3) as usize];
    let max_log_bytes = segment_bytes * (6 + random.below(8));
    let checkpoint_segments = 1 + random.below(4);
    let options = Options { segment_bytes, max_log_bytes, checkpoint_segments, ..small() };
    let rig = Rig::new(options, 1 + GROUPS);
    for life in 0..LIVES {
        let mut shell =
            Shell::start(&rig, preparation).unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        // A start that gets this far has undone what the crash took.
        if shell.log.is_full() {
            shell.make_room().unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        }
        rig.disk.cut_power_after(20 + random.below(400));
        while !rig.disk.is_without_power() {
            let done = shell.fill(&mut random).and_then(|()| shell.make_room());
            assert!(done.is_ok() || rig.disk.is_without_power(), "seed {seed}, life {life}: {done:?}");
        }
        drop(shell);
        let survives = random.below(3);
        rig.disk.crash(|_| survives == 0 || survives == 1 && random.below(2) == 0);
    }
}

#[test]
fn a_full_log_starts_after_any_crash_and_is_made_smaller() {
    (0..300).for_each(|seed| crash_again_and_again(seed, Preparation::Inline));
}

#[test]
fn a_full_log_waits_for_a_keeper_that_is_slower_than_the_log() {
    (0..100).for_each(|seed| crash_again_and_again(seed, Preparation::Thread));
}
