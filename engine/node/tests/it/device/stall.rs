//! A device that answers nothing for a while, or never again.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::disk::{Disk, FileSystem};
use super::{Load, client, copy, on, on_failing_disk, until};
use crate::support::{Directories, Process, directories};

/// Three nodes, the first of them on the disk, where it leads something.
fn start(nodes: &mut Directories, disk: &Disk) -> Vec<Process> {
    let moved = disk.directory().join("n1");
    copy(nodes.dir(0), &moved);
    nodes.nodes[0].1 = moved;
    let mut processes = vec![nodes.start(0), nodes.start(1)];
    until("the first node leads something", || led_by(nodes, 1) > 0);
    processes.push(nodes.start(2));
    processes
}

/// Has the file system hold everybody who writes, until it is thawed.
fn freeze_file_system(disk: &Disk, freeze: bool) {
    let verb = if freeze { "--freeze" } else { "--unfreeze" };
    let status = Command::new("fsfreeze").arg(verb).arg(disk.directory()).status().unwrap();
    assert!(status.success(), "fsfreeze {verb}");
}

/// How many ranges have a leader, and it is this node, as far as the others know.
fn led_by(nodes: &Directories, node: u64) -> usize {
    let mut client = client(&nodes.addresses()[1..], Duration::from_secs(5));
    client
        .routes()
        .map_or(0, |routes| routes.ranges.iter().filter(|(_, leader)| leader.is_some_and(|it| it.0 == node)).count())
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn case_28_a_stall_of_150_ms_moves_leaders_within_an_election_timeout_and_loses_nothing() {
    on_failing_disk(|disk| {
        let mut nodes = directories(3, 16, 1);
        let processes = start(&mut nodes, disk);
        // Leaders are given up to others that work, so all have to work before the disk stalls.
        until("all take part", || processes.iter().all(|it| !it.lines_with("takes part").is_empty()));
        let load = Load::start(nodes.addresses());
        std::thread::sleep(Duration::from_millis(500));
        // A stall that no sync meets is none, and one sync may come late: tried until one is noticed.
        let stalled = |processes: &[Process]| processes[0].lines_with("the disk stalls").len();
        let (mut before, mut began) = (0, Instant::now());
        until("a stall of 150 ms is noticed", || {
            // What the node says of a stall may be read a round later, when nothing is led by it any more.
            let led = led_by(&nodes, 1);
            if led > 0 {
                (before, began) = (led, Instant::now());
            }
            disk.freeze(true);
            std::thread::sleep(Duration::from_millis(150));
            disk.freeze(false);
            std::thread::sleep(Duration::from_millis(50));
            before > 0 && stalled(&processes) > 0
        });
        until("its groups are led by the others", || led_by(&nodes, 2) + led_by(&nodes, 3) == 16);
        let moved = began.elapsed();
        assert!(moved < Duration::from_secs(2), "{before} leaders have moved after {moved:?}");
        until("the stall is over", || processes[0].lines_with("the disk answers again").len() == stalled(&processes));
        std::thread::sleep(Duration::from_millis(500));
        load.verify(&nodes.addresses());
        for process in processes {
            assert_eq!(process.terminate(), Some(0));
        }
    });
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn case_29_a_device_that_never_answers_again_ends_the_node() {
    on_failing_disk(|disk| {
        let mut nodes = directories(3, 16, 1);
        let mut processes = start(&mut nodes, disk);
        let load = Load::start(nodes.addresses());
        // The segments are ready by then. While one is prepared, the file system's journal may hold the core in its write
        // too: that is the next test.
        std::thread::sleep(Duration::from_secs(4));
        disk.freeze(true);
        let began = Instant::now();
        let first = processes.remove(0);
        let line = "a sync of the log has not ended after 30 s";
        std::thread::sleep(Duration::from_secs(25));
        assert!(first.lines_with(line).is_empty(), "not before its time");
        until("the node gives up", || !first.lines_with(line).is_empty());
        let gave_up = began.elapsed();
        assert!((28..45).contains(&gave_up.as_secs()), "{gave_up:?}");
        until("nobody listens there any more", || TcpStream::connect(nodes.address(0)).is_err());
        load.verify(&nodes.addresses()[1..]);
        // The kernel lets go of a process only when the device has answered what was asked of it before.
        disk.freeze(false);
        assert_eq!(first.exit_code(), Some(1));
        let back = nodes.start(0);
        assert_eq!(back.terminate(), Some(0));
    });
}

#[test]
#[ignore = "needs root and loop devices: wal/tests/loop.sh"]
fn case_29_a_file_system_that_holds_the_core_in_a_write_ends_the_node() {
    on(Disk::new(FileSystem::Ext4), |disk| {
        let mut nodes = directories(3, 16, 1);
        let mut processes = start(&mut nodes, disk);
        let load = Load::start(nodes.addresses());
        std::thread::sleep(Duration::from_millis(500));
        freeze_file_system(disk, true);
        let began = Instant::now();
        let first = processes.remove(0);
        let line = "a turn of the core has not ended after 30 s";
        until("the others lead all", || led_by(&nodes, 2) + led_by(&nodes, 3) == 16);
        std::thread::sleep(Duration::from_secs(25).saturating_sub(began.elapsed()));
        assert!(first.lines_with(line).is_empty(), "not before its time");
        until("the node gives up", || !first.lines_with(line).is_empty());
        let gave_up = began.elapsed();
        assert!((29..45).contains(&gave_up.as_secs()), "{gave_up:?}");
        until("nobody listens there any more", || TcpStream::connect(nodes.address(0)).is_err());
        load.verify(&nodes.addresses()[1..]);
        freeze_file_system(disk, false);
        assert_eq!(first.exit_code(), Some(1));
        let back = nodes.start(0);
        assert_eq!(back.terminate(), Some(0));
        for process in processes {
            assert_eq!(process.terminate(), Some(0));
        }
    });
}
