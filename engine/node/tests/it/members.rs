//! Real nodes whose groups get other members and other leaders while clients write: nothing that was acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pontoon_client::{Client, ClientError, ClientOptions, GroupMembers, MemberStanding, MembersWish, OrderReason};
use pontoon_types::{GroupId, NodeId};

use crate::kill_under_load::{load, verify};
use crate::support::{Directories, PATIENCE, Process, directories_with, small_log};

/// Ranges of the cluster, each a group, from the first one up.
const RANGES: u32 = 4;

fn groups() -> impl Iterator<Item = GroupId> {
    (2..).take(RANGES as usize).map(GroupId)
}

fn nodes(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().map(|number| NodeId(*number)).collect()
}

fn operator(directories: &Directories) -> Client {
    let options = ClientOptions {
        timeout: PATIENCE,
        attempt_timeout: Duration::from_secs(6),
        connect_timeout: PATIENCE,
        ..ClientOptions::default()
    };
    Client::connect(&directories.addresses(), options).unwrap()
}

/// Asks again when that may help: a leader may lose its term on a machine that does much else.
fn insist<T>(what: &str, mut ask: impl FnMut() -> Result<T, ClientError>) -> T {
    let give_up = Instant::now() + 2 * PATIENCE;
    loop {
        let error = match ask() {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        let helps = match &error {
            ClientError::OrderRefused { reason, .. } => {
                reason.passes() || matches!(reason, OrderReason::Changed | OrderReason::GivenUp)
            }
            ClientError::Unknown | ClientError::NotLeader { .. } => true,
            _ => false,
        };
        assert!(helps && Instant::now() < give_up, "{what}: {error}");
    }
}

/// Gives all groups these members.
fn change(client: &mut Client, voters: &[u64], learners: &[u64]) {
    let wish = MembersWish { voters: nodes(voters), learners: nodes(learners) };
    for group in groups() {
        let now = insist("a change of members", || client.change_members(group, &wish));
        assert_eq!(now.nodes(MemberStanding::Voter), wish.voters, "{now:?}");
        assert_eq!(now.nodes(MemberStanding::Learner), wish.learners, "{now:?}");
        assert!(!now.is_changing, "an order is done when the last configuration is committed: {now:?}");
    }
}

fn members(client: &mut Client, group: GroupId) -> GroupMembers {
    insist("the members", || client.members(group))
}

#[test]
fn members_and_leaders_change_under_load_and_nothing_is_lost() {
    let directories = directories_with(1, 4, RANGES, 1, small_log());
    let mut processes: Vec<Process> = (0..4).map(|node| directories.start(node)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(directories.addresses(), stop.clone());
    let mut client = operator(&directories);

    // n4 is a spare, and then takes the place of n3.
    change(&mut client, &[1, 2, 3], &[]);
    change(&mut client, &[1, 2, 4], &[]);
    // n3 comes back as a learner, and is promoted while n1 is demoted.
    change(&mut client, &[1, 2, 4], &[3]);
    change(&mut client, &[2, 3, 4], &[1]);
    for group in groups() {
        for to in [3, 4] {
            insist("a transfer", || client.transfer_leader(group, NodeId(to)));
        }
        assert_eq!(members(&mut client, group).leader, NodeId(4), "nobody wants another leader");
    }
    let refused = client.transfer_leader(GroupId(2), NodeId(1)).unwrap_err();
    assert!(matches!(refused, ClientError::OrderRefused { reason: OrderReason::NotVoter, .. }), "{refused}");

    // The new voters decide without the old ones: n1 has no vote, n2 is gone.
    processes.remove(1).kill();
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let known = load.join().unwrap();
    verify(&directories.addresses(), &known);
    drop(processes);

    // All of it is there after a start, the members too.
    let processes: Vec<Process> = [2, 3].map(|node| directories.start(node)).into();
    verify(&directories.addresses(), &known);
    let mut client = operator(&directories);
    for group in groups() {
        let now = members(&mut client, group);
        assert_eq!(now.nodes(MemberStanding::Voter), nodes(&[2, 3, 4]));
        assert_eq!(now.nodes(MemberStanding::Learner), nodes(&[1]));
    }
    drop(processes);
}
