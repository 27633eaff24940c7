//! Power loss: the file system is shut down without its journal, unmounted and mounted again.

use std::time::SystemTime;

use pontoon_wal::{LogError, Options};

use super::disk::Disk;
use super::{Life, on_each, options};
use crate::common::Random;
use crate::files::fdatasync;

const ROUNDS: u64 = 20;

/// A life that loses power at a random point: between two commits, with records that are gathered, or with a group
/// that is written and not synced.
fn live(disk: &Disk, life: &mut Life, random: &mut Random) {
    for _ in 0..1 + random.below(40) {
        for _ in 0..1 + random.below(3) {
            life.append();
        }
        life.flush();
        if random.below(10) == 0 {
            seal(life);
        }
    }
    let point = random.below(3);
    if point > 0 {
        life.append();
    }
    let sync = (point > 1).then(|| life.write());
    disk.lose_power();
    // What is in flight, or else what comes next, fails at its write or at its sync, and is no reason to die.
    let sync = sync.map_or_else(
        || {
            life.append();
            life.log.begin_sync()
        },
        |sync| Ok(Some(sync)),
    );
    let failure = match sync {
        Ok(Some(sync)) => life.log.finish_sync(fdatasync(sync.fd)).err(),
        // The next segment was not ready.
        Ok(None) | Err(LogError::Full { .. }) => return,
        Err(error) => Some(error),
    };
    let failure = failure.expect("nothing is durable after the power is gone").to_string();
    let fenced = life.log.begin_sync().unwrap_err().to_string();
    // The thread that prepares segments may have met the failure first, in a note that nothing waits for.
    let of_disk = ["Input/output error", "an earlier write of ctl failed"];
    assert!(of_disk.iter().any(|why| failure.contains(why)), "{failure}");
    assert!(fenced.contains("fenced"), "{fenced}");
}

fn seal(life: &mut Life) {
    if let Some(sync) = life.log.begin_seal().unwrap() {
        life.log.finish_sync(fdatasync(sync.fd)).unwrap();
    }
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn power_loss_takes_nothing_that_was_acknowledged() {
    on_each(Disk::new, |disk, append_path| {
        let path = disk.directory().join("log");
        let options = Options { segment_bytes: 128 << 10, max_log_bytes: 2 << 20, ..options(append_path) };
        drop(Life::create(&path, &options));
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = u64::from(since_1970.subsec_nanos());
        let mut random = Random(seed);
        let (mut acknowledged, mut appended, mut lost) = (0, 0, 0);
        let (mut freed, mut moved) = (0, 0);
        for _ in 0..ROUNDS {
            let mut life = Life::open(&path, &options, acknowledged, appended);
            life.compacts = true;
            lost += appended - life.acknowledged;
            live(disk, &mut life, &mut random);
            (acknowledged, appended) = (life.acknowledged, life.appended);
            freed += life.log.stats().freed_segments;
            moved += life.log.stats().moved_runs;
            drop(life);
            disk.unmount();
            disk.mount();
        }
        let mut life = Life::open(&path, &options, acknowledged, appended);
        life.commit();
        life.log.close().unwrap();
        eprintln!("  seed {seed}, {ROUNDS} rounds, {acknowledged} entries acknowledged, {lost} unsynced ones lost");
        eprintln!("  {freed} segments freed, {moved} runs copied");
        assert!(freed > ROUNDS / 2 && moved > 0, "power is lost while segments are freed, used again and copied");
        assert!(lost > ROUNDS / 4, "a shut down file system loses what was not synced: {lost}");
    });
}
