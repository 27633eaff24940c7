//! Power loss: the file system is shut down without its journal, unmounted and mounted again.

use std::time::SystemTime;

use pontoon_wal::Options;

use super::disk::Disk;
use super::{Life, on_each, options};
use crate::common::Random;
use crate::files::fdatasync;

const ROUNDS: u64 = 20;

/// A life that loses power at a random point: between two commits, with records that are gathered, or with a group
/// that is written and not synced. Returns how many entries were acknowledged and how many appended.
fn live(disk: &Disk, mut life: Life, random: &mut Random) -> (u64, u64) {
    for _ in 0..1 + random.below(40) {
        for _ in 0..1 + random.below(3) {
            life.append();
        }
        life.flush();
        if random.below(10) == 0 {
            seal(&mut life);
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
        Ok(None) => return (life.acknowledged, life.appended),
        Err(error) => Some(error),
    };
    let failure = failure.expect("nothing is durable after the power is gone").to_string();
    let fenced = life.log.begin_sync().unwrap_err().to_string();
    assert!(failure.contains("Input/output error"), "{failure}");
    assert!(fenced.contains("fenced"), "{fenced}");
    (life.acknowledged, life.appended)
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
        let options = Options { segment_bytes: 256 << 10, ..options(append_path) };
        drop(Life::create(&path, &options));
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = u64::from(since_1970.subsec_nanos());
        let mut random = Random(seed);
        let (mut acknowledged, mut appended, mut lost) = (0, 0, 0);
        for _ in 0..ROUNDS {
            let life = Life::open(&path, &options, acknowledged, appended);
            lost += appended - life.acknowledged;
            (acknowledged, appended) = live(disk, life, &mut random);
            disk.unmount();
            disk.mount();
        }
        let mut life = Life::open(&path, &options, acknowledged, appended);
        life.commit();
        life.log.close().unwrap();
        eprintln!("  seed {seed}, {ROUNDS} rounds, {acknowledged} entries acknowledged, {lost} unsynced ones lost");
        assert!(lost > ROUNDS / 4, "a shut down file system loses what was not synced: {lost}");
    });
}
