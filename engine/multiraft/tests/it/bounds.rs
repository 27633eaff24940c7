//! Bounds of a turn: what one client asks, however large, neither stops a core nor makes it build without limit.

use std::time::Duration;

use bytes::Bytes;
use pontoon_multiraft::{Event, Fetch, Identities, Reader};
use pontoon_types::limits::{APPLY_BACKLOG_ENTRIES_MAX, FRAME_BYTES_MAX, PROPOSAL_BYTES_PER_TURN, READ_BYTES_PER_TURN};
use pontoon_types::{Entry, Index, LogRoom};
use pontoon_wire::client::{Operation, Outcome, ReadLevel, Refusal};
use pontoon_wire::command::{Command, KvOperation};

use crate::cluster::{Cluster, bytes, fresh_request, n};

const MEBIBYTE: usize = 1 << 20;

fn one_mebibyte() -> Bytes {
    Bytes::from(vec![7; MEBIBYTE])
}

fn failing_swap(key: &str) -> KvOperation {
    KvOperation::CompareAndSet { key: bytes(key), expected: None, value: None }
}

/// A cluster of one range with a value of one MiB under each of these keys; and the leader.
fn with_large_values(keys: &[String]) -> (Cluster, pontoon_types::NodeId) {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    for key in keys {
        let put = cluster.write(key, KvOperation::Put { key: bytes(key), value: one_mebibyte() });
        assert!(cluster.ask(leader, put).is_ok());
    }
    (cluster, leader)
}

#[test]
fn large_outcomes_of_writes_are_cut_into_frames() {
    let (mut cluster, leader) = with_large_values(&["k".to_string()]);
    let operations: Vec<Operation> = (0..40).map(|_| cluster.write("k", failing_swap("k"))).collect();
    let (first, event) = cluster.frame(operations);
    cluster.event(leader, event);
    cluster.settle();
    for sequence in first..first + 40 {
        assert!(matches!(cluster.reply(leader, sequence), Some(Ok(Outcome::Written(_)))), "request {sequence}");
    }
}

#[test]
fn an_outcome_larger_than_a_frame_is_unknown_and_not_refused() {
    let keys: Vec<String> = (0..=FRAME_BYTES_MAX / MEBIBYTE).map(|key| format!("k{key}")).collect();
    let (mut cluster, leader) = with_large_values(&keys);
    let before = cluster.cores[&leader].groups().next().unwrap().last().index;
    let operations = keys.iter().map(|key| failing_swap(key)).collect();
    let command = Command { id: fresh_request(), floor: 0, operations }.encode();
    let descriptor = cluster.descriptors[0].clone();
    let write = Operation::Write { group: descriptor.group, generation: descriptor.generation, command };
    assert_eq!(cluster.ask(leader, write), Err(Refusal::Unknown));
    let after = cluster.cores[&leader].groups().next().unwrap().last().index;
    assert_eq!(after, before.next(), "it was executed");
}

#[test]
fn more_reports_than_a_turn_makes_are_busy() {
    let mut cluster = Cluster::new(64);
    let (first, event) = cluster.frame(vec![Operation::Status; 5_000]);
    cluster.event(n(1), event);
    let replies = cluster.replies[&n(1)].clone();
    assert_eq!(replies.len(), 5_000);
    let busy = replies.iter().filter(|reply| matches!(reply.result, Err(Refusal::Busy { .. }))).count();
    assert!(busy > 2_000 && busy < 5_000, "{busy} of 5,000 were busy");
    assert!(matches!(cluster.reply(n(1), first), Some(Ok(Outcome::Status(_)))));
}

#[test]
fn a_key_too_long_to_exist_is_not_looked_for() {
    let mut cluster = Cluster::new(2);
    let descriptor = cluster.descriptors[0].clone();
    let leader = cluster.leader(descriptor.group).unwrap();
    let key = Bytes::from(vec![0xff; 3 * MEBIBYTE]);
    let (group, generation) = (descriptor.group, descriptor.generation);
    let get = Operation::Get { group, generation, key: key.clone(), level: ReadLevel::Linearizable };
    assert!(matches!(cluster.ask(leader, get), Err(Refusal::TooLarge { .. })));
    let scan = Operation::Scan { group, generation, start: key, end: None, limit: 1, level: ReadLevel::Linearizable };
    assert!(matches!(cluster.ask(leader, scan), Err(Refusal::TooLarge { .. })));
}

#[test]
fn reads_of_one_round_are_served_over_several_turns() {
    let (mut cluster, leader) = with_large_values(&["k".to_string()]);
    let operations: Vec<Operation> = (0..40).map(|_| cluster.get("k")).collect();
    let (first, event) = cluster.frame(operations);
    cluster.event(leader, event);
    cluster.settle();
    let served = cluster.replies[&leader].len();
    // The answers of the two peers are two turns.
    assert!(served * MEBIBYTE <= 2 * READ_BYTES_PER_TURN, "{served} MiB in two turns");
    let now = cluster.now;
    assert!(cluster.cores.get_mut(&leader).unwrap().deadline().unwrap() <= now, "the next turn comes at once");
    for _ in 0..10 {
        cluster.event(leader, Event::Timer);
    }
    for sequence in first..first + 40 {
        assert!(matches!(cluster.reply(leader, sequence), Some(Ok(Outcome::Value(Some(_))))), "request {sequence}");
    }
}

#[test]
fn one_turn_proposes_no_more_than_a_segment_holds() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let mut events = Vec::new();
    for _ in 0..7 {
        let put = cluster.write("k", KvOperation::Put { key: bytes("k"), value: one_mebibyte() });
        events.push(cluster.frame(vec![put; 10]).1);
    }
    cluster.turn(leader, events);
    cluster.settle();
    let replies = &cluster.replies[&leader];
    let busy = replies.iter().filter(|reply| matches!(reply.result, Err(Refusal::Busy { .. }))).count();
    let written = replies.iter().filter(|reply| reply.result.is_ok()).count();
    assert_eq!(busy + written, 70);
    assert!(written >= 1 && written * MEBIBYTE <= PROPOSAL_BYTES_PER_TURN, "{written} MiB in one write");
}

#[test]
fn a_follower_with_a_full_log_keeps_its_room_for_votes() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let full = *cluster.cores.keys().find(|node| **node != leader).unwrap();
    cluster.event(full, Event::LogRoom(LogRoom(0)));
    let last = |cluster: &Cluster| cluster.cores[&full].groups().next().unwrap().last().index;
    let before = last(&cluster);
    assert!(cluster.ask(leader, cluster.put("k", "v")).is_ok(), "the other two are a quorum");
    assert_eq!(last(&cluster), before);
    cluster.event(full, Event::LogRoom(LogRoom(1 << 20)));
    cluster.run(std::time::Duration::from_secs(1));
    assert_eq!(last(&cluster), Index(before.0 + 1), "it catches up when it has room");
}

#[test]
fn a_follower_takes_the_entries_that_have_room_and_hears_what_is_committed() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let full = *cluster.cores.keys().find(|node| **node != leader).unwrap();
    let state = |cluster: &Cluster| {
        let raft = cluster.cores[&full].groups().next().unwrap();
        (raft.last().index.0, raft.committed().0)
    };
    let (before, _) = state(&cluster);
    // It holds the entry, and is never told by a later one that it is committed: those have no room.
    assert!(cluster.ask(leader, cluster.put("a", "held")).is_ok());
    cluster.event(full, Event::LogRoom(LogRoom(0)));
    assert!(cluster.ask(leader, cluster.put("b", "not held")).is_ok());
    cluster.run(Duration::from_secs(1));
    assert_eq!(state(&cluster), (before + 1, before + 1), "what it holds can be applied, and given up");
    // Room for one small entry in each turn, and none for a large one.
    cluster.event(full, Event::LogRoom(LogRoom(1000)));
    cluster.run(Duration::from_secs(1));
    assert_eq!(state(&cluster), (before + 2, before + 2));
    assert!(cluster.ask(leader, cluster.put("c", &"c".repeat(2000))).is_ok());
    assert!(cluster.ask(leader, cluster.put("d", "behind it")).is_ok());
    cluster.run(Duration::from_secs(1));
    assert_eq!(state(&cluster), (before + 2, before + 2));
    cluster.event(full, Event::LogRoom(LogRoom(1 << 20)));
    cluster.run(Duration::from_secs(1));
    assert_eq!(state(&cluster), (before + 4, before + 4));
}

#[test]
fn a_start_applies_what_its_log_knew_to_be_committed_before_anybody_leads_or_has_room() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    for value in ["one", "two", "three"] {
        assert!(cluster.ask(leader, cluster.put("k", value)).is_ok());
    }
    let group = |cluster: &Cluster| {
        let raft = cluster.cores[&leader].groups().next().unwrap();
        (raft.last().index, raft.committed(), raft.applied())
    };
    let (last, known) = (group(&cluster).0, group(&cluster).1.previous());
    assert!(known > Index(2));
    // Alone, and with a full log: nobody can be elected, and no entry of a new term would have room.
    cluster.restart(leader, |of| of.committed = known);
    cluster.isolate(leader);
    cluster.event(leader, Event::LogRoom(LogRoom(0)));
    assert_eq!(group(&cluster), (last, known, known));
    // What misses a payload waits for it, and all behind it.
    cluster.restart(leader, |of| {
        of.committed = known;
        of.lost = vec![known];
        of.entries[known.0 as usize - 1].payload = Bytes::new();
    });
    cluster.isolate(leader);
    cluster.event(leader, Event::LogRoom(LogRoom(0)));
    assert_eq!(group(&cluster), (last, known.previous(), known.previous()));
}

#[test]
fn a_start_with_many_groups_goes_on_with_some_of_them_in_each_turn() {
    let mut cluster = Cluster::new(800);
    let node = cluster.leader(cluster.descriptors[0].group).unwrap();
    let applied =
        |cluster: &Cluster| cluster.cores[&node].groups().filter(|group| group.applied() >= group.last().index).count();
    assert_eq!(applied(&cluster), 800, "each leader has begun with an entry");
    cluster.isolate(node);
    cluster.restart(node, |of| of.committed = Index(1));
    // A turn for each link that comes up.
    assert_eq!(applied(&cluster), 2 * 256);
    cluster.run(Duration::from_millis(1));
    assert_eq!(applied(&cluster), 800);
}

/// How many of these requests were answered Busy.
fn busy(cluster: &mut Cluster, leader: pontoon_types::NodeId, mut sequences: std::ops::Range<u64>) -> usize {
    let mut answer = |sequence| cluster.reply(leader, sequence);
    std::iter::from_fn(|| sequences.next().map(&mut answer))
        .filter(|it| matches!(it, Some(Err(Refusal::Busy { .. }))))
        .count()
}

#[test]
fn a_leader_proposes_no_more_in_a_turn_than_its_log_has_room_for() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    cluster.event(leader, Event::LogRoom(LogRoom(3000)));
    let operations: Vec<Operation> = (0..5).map(|_| cluster.put("k", &"v".repeat(1000))).collect();
    let (first, event) = cluster.frame(operations);
    cluster.event(leader, event);
    cluster.settle();
    assert_eq!(
        busy(&mut cluster, leader, first..first + 5),
        3,
        "two of a thousand bytes have room, with what the log adds"
    );
    assert!(cluster.ask(leader, cluster.put("k", &"v".repeat(1000))).is_ok(), "the next turn has room again");
}

#[test]
fn leaders_that_commit_nothing_leave_room_for_the_entries_of_others() {
    let mut cluster = Cluster::with_spares(1, 0, |config| config.log_uncommitted_bytes_max = 3000).lit();
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let others: Vec<_> = cluster.cores.keys().copied().filter(|node| *node != leader).collect();
    for other in &others {
        cluster.event(*other, Event::LogRoom(LogRoom(0)));
    }
    let operations: Vec<Operation> = (0..5).map(|_| cluster.put("a", &"v".repeat(1000))).collect();
    let (first, event) = cluster.frame(operations);
    cluster.event(leader, event);
    cluster.settle();
    assert_eq!(busy(&mut cluster, leader, first..first + 5), 3);
    for other in &others {
        cluster.event(*other, Event::LogRoom(LogRoom(1 << 20)));
    }
    cluster.run(Duration::from_secs(1));
    assert!(cluster.ask(leader, cluster.put("a", &"v".repeat(1000))).is_ok(), "what was uncommitted is committed");
}

#[test]
fn a_core_with_small_segments_proposes_less_at_once_and_refuses_what_none_holds() {
    let small = |config: &mut pontoon_multiraft::CoreConfig| {
        config.proposal_bytes_max = 100 << 10;
        config.command_bytes_max = 300 << 10;
    };
    let mut cluster = Cluster::dark_with(1, small).lit();
    let leader = cluster.leader(cluster.descriptors[0].group).unwrap();
    let put = |cluster: &Cluster, kibibytes: usize| {
        let value = Bytes::from(vec![7; kibibytes << 10]);
        cluster.write("k", KvOperation::Put { key: bytes("k"), value })
    };
    let operations = (0..20).map(|_| put(&cluster, 30)).collect();
    let (_, event) = cluster.frame(operations);
    cluster.event(leader, event);
    cluster.settle();
    let written = cluster.replies[&leader].iter().filter(|reply| reply.result.is_ok()).count();
    assert_eq!(written, 3, "of 30 KiB each fit into 100 KiB");
    assert!(cluster.ask(leader, put(&cluster, 290)).is_ok(), "a single large one goes alone");
    let refused = cluster.ask(leader, put(&cluster, 310));
    assert!(
        matches!(&refused, Err(Refusal::TooLarge { limit, limit_bytes, .. })
            if limit == "command_bytes_max" && *limit_bytes == 300 << 10),
        "{refused:?}"
    );
}

#[test]
fn a_core_whose_machines_lag_behind_answers_busy_until_they_have_caught_up() {
    let mut cluster = Cluster::new(1);
    let group = cluster.descriptors[0].group;
    for number in 0..30 {
        let put = cluster.put(&format!("k{number}"), "a value");
        let leader = cluster.leader(group).unwrap();
        cluster.ask(leader, put).unwrap();
    }
    cluster.run(Duration::from_secs(1));
    println!("the nodes start again, and their logs do not give back what the machines need");
    let view = cluster.cores[&n(1)].groups().next().unwrap();
    let written: Vec<Entry> = view.entries(Index(1), view.last().index).cloned().collect();
    let older = Identities { starts: vec![written[0].id], last: view.last().index };
    for node in [n(1), n(2), n(3)] {
        cluster.restart(node, |state| {
            state.entries.clear();
            state.older = older.clone();
        });
    }
    cluster.run(Duration::from_secs(3));
    let leader = cluster.leader(group).unwrap();
    for _ in 0..APPLY_BACKLOG_ENTRIES_MAX / 1024 {
        let puts = (0..1024).map(|_| cluster.put("k", "v")).collect();
        let (_, event) = cluster.frame(puts);
        cluster.event(leader, event);
        cluster.settle();
    }
    cluster.run(Duration::from_secs(6));
    let replies = cluster.replies.remove(&leader).unwrap_or_default();
    // Those of before the start count too.
    let (unknown, busy): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.result == Err(Refusal::Unknown));
    assert!(busy.len() < 100 && busy.iter().all(|reply| matches!(reply.result, Err(Refusal::Busy { .. }))));
    assert_eq!((unknown.len() + busy.len()) as u64, APPLY_BACKLOG_ENTRIES_MAX, "committed, and not executed in time");
    assert!(matches!(cluster.ask(leader, cluster.put("k", "w")), Err(Refusal::Busy { .. })));

    println!("the log of the leader answers");
    let asked = cluster.fetches.iter().rfind(|(node, _, fetch)| *node == leader && fetch.reader == Reader::Machine);
    let (_, _, Fetch { number, from, .. }) = *asked.unwrap();
    assert_eq!(from, Index(1));
    cluster.event(leader, Event::Fetched { group, number, result: Ok(written) });
    cluster.run(Duration::from_secs(1));
    assert!(cluster.ask(leader, cluster.put("k", "w")).is_ok());
    assert_eq!(cluster.ask(leader, cluster.get("k")), Ok(Outcome::Value(Some(bytes("w")))));
}
