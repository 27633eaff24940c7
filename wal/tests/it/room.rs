//! Who gathers no more than a log has room for can write all of it, whatever it is cut into and however long a sync takes.

use pontoon_types::{CoreWriteNumber, GroupId, LogRoom, Write};
use pontoon_wal::{Log, Options, Sync};

use crate::common::{Random, Rig, compact, entries, entry, small};

const SEEDS: u64 = 500;
const GROUPS: u64 = 4;
const TURNS: u64 = 150;

/// A shell that has many turns during one sync.
struct Shell {
    log: Log,
    flight: Option<Sync>,
    /// Of each group.
    last: [u64; GROUPS as usize],
    durable: [u64; GROUPS as usize],
    through: Vec<(CoreWriteNumber, [u64; GROUPS as usize])>,
}

impl Shell {
    /// As many entries of random groups and sizes as have room, or fewer.
    fn draw(&mut self, random: &mut Random, segment_bytes: u64) -> Vec<(GroupId, Write)> {
        let mut room = self.log.room();
        let largest = [100, 3000, segment_bytes / 3][random.below(3) as usize];
        let mut writes = Vec::new();
        for _ in 0..random.below(30) {
            let group = random.below(GROUPS);
            let entry = entry(self.last[group as usize] + 1, 1, vec![7; random.below(largest) as usize]);
            let Some(left) = room.minus(LogRoom::of([&entry])) else { break };
            room = left;
            self.last[group as usize] += 1;
            writes.push(entries(group + 2, vec![entry]));
        }
        writes
    }

    fn finish(&mut self, rig: &Rig) {
        let Some(sync) = self.flight.take() else { return };
        let durable = self.log.finish_sync(rig.disk.sync(sync.fd)).unwrap();
        while let Some((_, last)) = self.through.first().copied().filter(|(number, _)| *number <= durable) {
            self.durable = last;
            self.through.remove(0);
        }
    }

    fn begin(&mut self, what: &str) {
        if self.flight.is_none() {
            let gathered = self.log.is_gathered();
            let begun = self.log.begin_sync();
            self.flight = begun.unwrap_or_else(|error| panic!("{what}: what has gathered has room: {error}"));
            assert_eq!(self.flight.is_some(), gathered, "{what}: nothing has to be waited for");
        }
    }
}

#[test]
fn what_was_gathered_within_the_room_can_be_written_whatever_the_keeper_takes() {
    let (mut full, mut longest) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let segment_bytes = [36 << 10, 64 << 10, 256 << 10][random.below(3) as usize];
        let max_log_bytes = segment_bytes * (6 + random.below(6));
        let group_bytes_max = 4096 << random.below(7);
        let options = Options {
            segment_bytes,
            max_log_bytes,
            group_bytes_max,
            checkpoint_segments: 1 + random.below(4),
            ..small()
        };
        let rig = Rig::new(options, 1 + GROUPS);
        let (log, _) = rig.open();
        let none = [0; GROUPS as usize];
        let mut shell = Shell { log, flight: None, last: none, durable: none, through: Vec::new() };
        for turn in 1..=TURNS {
            let mut writes = shell.draw(&mut random, segment_bytes);
            // The room that is kept for compactions is another matter: a full log without a large one is used up by small ones.
            if !shell.log.is_full() && random.below(3) == 0 {
                let group = random.below(GROUPS);
                let last = shell.durable[group as usize];
                writes.extend((last > 0).then(|| compact(group + 2, last, 1)));
            }
            if !writes.is_empty() {
                shell.log.append(CoreWriteNumber(turn), &writes);
                shell.through.push((CoreWriteNumber(turn), shell.last));
            }
            // The shell looks after each turn: that is also what keeps slots from the keeper.
            full += u64::from(shell.log.room().is_none());
            longest = longest.max(shell.log.gathered_entries());
            if random.below(4) == 0 {
                shell.finish(&rig);
            }
            shell.begin(&format!("seed {seed} turn {turn}"));
        }
        while shell.log.is_gathered() || shell.flight.is_some() {
            shell.finish(&rig);
            shell.begin(&format!("seed {seed} at the end"));
        }
        assert_eq!(shell.durable, shell.last, "seed {seed}");
    }
    assert!(full > SEEDS && longest > 50, "logs were full {full} times, and {longest} entries waited at once");
}
