//! Law 12 with real processes: a data directory that was copied, and put back after its node had gone on, is refused by the
//! peers. It follows and does not vote. One that is as it was is accepted, alone with one peer too.

use std::path::Path;
use std::time::{Duration, Instant};

use pontoon::NodeId;
use pontoon_client::{Client, ClientOptions, CoreStanding, CoreStatus};
use pontoon_types::CoreId;

use crate::support::{Directories, PATIENCE, Process, directories};

const RANGES: u32 = 4;

fn key(id: u64) -> [u8; 8] {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn put(client: &mut Client, ids: std::ops::Range<u64>) {
    for id in ids {
        client.put(key(id), format!("value{id}")).unwrap();
    }
}

/// The status of a node, once it is as wanted.
#[track_caller]
fn await_status(directories: &Directories, node: usize, wanted: impl Fn(&CoreStatus) -> bool) -> CoreStatus {
    let mut client = Client::connect(&[directories.address(node)], ClientOptions::default()).unwrap();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let status = client.status(NodeId(node as u64 + 1), CoreId(0));
        if let Ok(status) = status.as_ref()
            && wanted(status)
        {
            return status.clone();
        }
        assert!(Instant::now() < give_up, "node {node} is {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All three nodes have applied the same, to the end of their logs.
#[track_caller]
fn await_equal(directories: &Directories) {
    let settled = |status: &CoreStatus| status.groups.iter().all(|group| group.applied == group.last.index);
    let applied = |status: &CoreStatus| status.groups.iter().map(|group| group.applied).collect::<Vec<_>>();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let all = [0, 1, 2].map(|node| applied(&await_status(directories, node, settled)));
        if all[0] == all[1] && all[1] == all[2] {
            return;
        }
        assert!(Instant::now() < give_up, "they have applied {all:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(std::fs::copy(entry.path(), target)) }
    }
}

fn start_all(directories: &Directories) -> (Vec<Process>, Client) {
    let processes = (0..3).map(|node| directories.start(node)).collect();
    for node in 0..3 {
        await_status(directories, node, |status| status.standing == CoreStanding::Registered);
    }
    (processes, Client::connect(&directories.addresses(), ClientOptions::default()).unwrap())
}

#[test]
fn an_old_copy_of_a_directory_follows_and_does_not_vote() {
    let directories = directories(3, RANGES, 1);
    let (mut processes, mut client) = start_all(&directories);
    put(&mut client, 0..50);
    await_equal(&directories);
    // Idle, so that the files are those of one moment.
    std::thread::sleep(Duration::from_millis(300));
    let backup = directories.root.path().join("backup");
    copy(directories.dir(2), &backup);

    put(&mut client, 50..100);
    await_equal(&directories);
    processes.pop().unwrap().kill();
    std::fs::remove_dir_all(directories.dir(2)).unwrap();
    std::fs::rename(&backup, directories.dir(2)).unwrap();
    processes.push(directories.start(2));
    await_status(&directories, 2, |status| status.standing == CoreStanding::Refused);
    put(&mut client, 100..120);
    await_equal(&directories);
    let told = || processes[2].lines_with("Replace the node").len();
    assert!(told() == 1, "the operator is told once: {}", told());

    // It says so again after a restart, and two of three with it among them elect nobody.
    processes.pop().unwrap().kill();
    processes.push(directories.start(2));
    await_status(&directories, 2, |status| status.standing == CoreStanding::Refused);
    processes.remove(0).kill();
    std::thread::sleep(Duration::from_secs(4));
    for node in [1, 2] {
        let status = await_status(&directories, node, |_| true);
        let leads = status.groups.iter().any(|group| format!("{:?}", group.role) == "Leader");
        assert!(!leads, "node {node} leads with the vote of one that has forgotten: {status:?}");
    }
    let _first = directories.start(0);
    let mut client = Client::connect(&directories.addresses(), ClientOptions::default()).unwrap();
    for id in 0..120 {
        assert_eq!(client.get(key(id)).unwrap().as_deref(), Some(format!("value{id}").as_bytes()), "key {id}");
    }
}

#[test]
fn a_directory_as_it_was_is_accepted_by_the_one_peer_that_is_left() {
    let directories = directories(3, RANGES, 1);
    let (mut processes, mut client) = start_all(&directories);
    put(&mut client, 0..20);
    processes.pop().unwrap().kill();
    put(&mut client, 20..40);
    processes.pop().unwrap().kill();
    processes.push(directories.start(1));
    await_status(&directories, 1, |status| status.standing == CoreStanding::Registered);
    put(&mut client, 40..60);

    // All at once, and nobody remembers anything but what stands on its disk.
    processes.drain(..).for_each(Process::kill);
    let (_processes, mut client) = start_all(&directories);
    for id in 0..60 {
        assert_eq!(client.get(key(id)).unwrap().as_deref(), Some(format!("value{id}").as_bytes()), "key {id}");
    }
}
