//! A device fails under the log of one core: that core ends, and the node goes on with the others (case 24).

use std::time::Duration;

use pontoon::identity::DataDir;
use pontoon_client::Client;
use pontoon_types::{CoreId, NodeId};
use pontoon_wire::client::GroupRole;

use super::{Load, client, copy, on_failing_disk, until};
use crate::support::{Directories, Process, directories};

/// Puts the log of a core on another file system.
fn move_log(dir: &std::path::Path, core: usize, to: &std::path::Path) {
    let data_dir = DataDir::open(dir).unwrap();
    let log = data_dir.log_dir(data_dir.identity().logs[core]);
    let moved = to.join(log.file_name().unwrap());
    copy(&log, &moved);
    std::fs::remove_dir_all(&log).unwrap();
    std::os::unix::fs::symlink(&moved, &log).unwrap();
}

/// How many groups a core leads, if it answers.
fn leads(client: &mut Client, node: u64, core: u16) -> Option<usize> {
    let status = client.status(NodeId(node), CoreId(core)).ok()?;
    Some(status.groups.iter().filter(|group| group.role == GroupRole::Leader).count())
}

fn start_all(nodes: &Directories) -> Vec<Process> {
    (0..3).map(|node| nodes.start(node)).collect()
}

#[test]
#[ignore = "needs root, loop devices and nbdkit: wal/tests/loop.sh"]
fn case_24_a_core_whose_device_fails_ends_and_the_others_of_its_node_go_on() {
    on_failing_disk(|disk| {
        let nodes = directories(3, 16, 2);
        move_log(nodes.dir(0), 1, &disk.directory());
        // First alone with one other, so that it leads something on both cores.
        let mut processes = vec![nodes.start(0), nodes.start(1)];
        let mut client = client(&nodes.addresses(), Duration::from_secs(5));
        until("it leads on both cores", || {
            (0..2).all(|core| leads(&mut client, 1, core).is_some_and(|groups| groups > 0))
        });
        until("all groups of the healthy core are led", || {
            (1..=2).filter_map(|node| leads(&mut client, node, 0)).sum::<usize>() == 8
        });
        processes.push(nodes.start(2));
        let load = Load::start(nodes.addresses());
        let led = leads(&mut client, 1, 0).unwrap();
        disk.fail_writes(true);
        until("the core ends", || !processes[0].lines_with("core c1 of node n1 stopped: log: fenced").is_empty());
        assert_eq!(processes[0].lines_with("the other cores go on").len(), 1);

        until("its groups have leaders elsewhere", || {
            let status: Vec<_> = (2..=3).filter_map(|node| leads(&mut client, node, 1)).collect();
            status.iter().sum::<usize>() == 8
        });
        // Asked for it, the node says why; and it is what it was on its other core.
        let why = client.status(NodeId(1), CoreId(1)).unwrap_err().to_string();
        assert!(why.contains("the core has stopped after a failure"), "{why}");
        assert_eq!(leads(&mut client, 1, 0), Some(led), "nothing has moved on its healthy core");
        std::thread::sleep(Duration::from_secs(1));
        load.verify(&nodes.addresses());
        let first = processes.remove(0);
        assert_eq!(first.terminate(), Some(1), "a node that has lost a core has failed, whenever it stops");

        disk.fail_writes(false);
        disk.unmount();
        disk.mount();
        let first = nodes.start(0);
        until("it is whole again", || (0..2).all(|core| leads(&mut client, 1, core).is_some()));
        assert_eq!(first.terminate(), Some(0));
        drop(processes);
        // All from their disks.
        let processes = start_all(&nodes);
        let load = Load::start(nodes.addresses());
        std::thread::sleep(Duration::from_secs(1));
        load.verify(&nodes.addresses());
        for process in processes {
            assert_eq!(process.terminate(), Some(0));
        }
    });
}
