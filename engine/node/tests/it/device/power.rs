//! The power goes while the groups of a node move to other logs (case 47): afterwards each group stands in exactly one log
//! that counts, with everything that it was.

use std::path::Path;
use std::time::{Duration, Instant};

use pontoon::identity::DataDir;
use pontoon::rehome::rehome;
use pontoon_types::Incarnation;

use super::copy;
use super::disk::{Disk, FileSystem};
use crate::rehome::{crash_after, listed, lived, logs_of, look, names, start};
use crate::support::small_log;

pub fn on_each(test: impl Fn(&mut Disk)) {
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        match Disk::new(file_system) {
            Ok(mut disk) => test(&mut disk),
            Err(why) => eprintln!("SKIPPED on {file_system}: {why}"),
        }
    }
}

/// Everything that was not synced is gone.
fn lose_power(disk: &mut Disk) {
    disk.lose_power();
    disk.unmount();
    disk.mount();
}

/// What a node has in all its logs, as text: entries are slices of mapped files, and would keep the disk in use. A group that
/// stands in two logs is refused here.
fn seen(dir: &Path) -> (String, Vec<Incarnation>) {
    let (state, incarnations) = look(dir);
    (format!("{state:?}"), incarnations)
}

/// A node of four cores with all that groups can be, on a disk that has it for sure.
fn lived_on(disk: &Disk, name: &str) -> std::path::PathBuf {
    let dir = disk.directory().join(name);
    copy(lived(4).dir(0), &dir);
    disk.settle();
    dir
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn case_47_power_loss_after_each_step_of_a_move_leaves_one_owner_with_everything() {
    on_each(|disk| {
        for steps in 1..=7 {
            let dir = lived_on(disk, &format!("after {steps}"));
            let (before, incarnations) = seen(&dir);
            let old = logs_of(&dir);
            disk.settle();
            crash_after(steps, &dir);
            lose_power(disk);
            assert_eq!(logs_of(&dir) == old, steps < 4, "after {steps} steps");
            let (after, _) = seen(&dir);
            assert!(after == before, "after {steps} steps");
            start(&dir, 2).unwrap();
            assert_eq!(names(&dir), listed(&dir), "after {steps} steps");
            let (after, newer) = seen(&dir);
            assert!(after == before && newer.iter().min() > incarnations.iter().max(), "after {steps} steps");
            std::fs::remove_dir_all(dir).unwrap();
        }
    });
}

/// Moves the groups while the power goes at some time, and says whether the move had been reported as done.
fn move_until(disk: &Disk, dir: &Path, cores: u16, after: Duration) -> bool {
    let mut data_dir = DataDir::open(dir).unwrap();
    std::thread::scope(|scope| {
        let moving = scope.spawn(move || {
            rehome(&mut data_dir, &small_log(), cores).and_then(|()| Ok(data_dir.remove_retired()?)).is_ok()
        });
        std::thread::sleep(after);
        disk.lose_power();
        moving.join().unwrap()
    })
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn case_47_power_loss_in_the_middle_of_a_move_leaves_one_owner_with_everything() {
    on_each(|disk| {
        let dir = lived_on(disk, "n1");
        let before = seen(&dir).0;
        let (mut cores, mut stayed, mut moved) = (4, 0, 0);
        // How long a whole move takes here, so that the power goes in it and not after it.
        let began = Instant::now();
        start(&dir, 3).unwrap();
        let whole = began.elapsed();
        cores -= 1;
        for round in 0..8 {
            let wanted = if cores == 3 { 2 } else { 3 };
            disk.settle();
            let is_done = move_until(disk, &dir, wanted, whole * round / 7);
            disk.unmount();
            disk.mount();
            let has = logs_of(&dir).len() as u16;
            assert!(has == cores || has == wanted, "round {round}: {has} logs");
            assert!(!is_done || has == wanted, "round {round}: what was reported as done is done");
            *(if has == cores { &mut stayed } else { &mut moved }) += 1;
            cores = has;
            assert!(seen(&dir).0 == before, "round {round}");
            start(&dir, cores).unwrap();
            assert_eq!(names(&dir), listed(&dir), "round {round}");
        }
        eprintln!("  the power went {stayed} times before the groups had moved, {moved} times after that");
        assert!(stayed > 0);
    });
}
