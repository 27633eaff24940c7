//! Definite refusals: the request goes on, and the cache is repaired.

use pontoon_client::{KvOperation, Request};
use pontoon_types::NodeId;
use pontoon_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use pontoon_wire::client::Refusal;

use crate::harness::{Harness, descriptor, get, not_leader, put, routes_after_split, written};

/// The first request opens the connection and leaves when it is welcomed. A hint is followed at once, and the next
/// request goes to the leader that was named.
#[test]
fn a_named_leader_is_asked_at_once_and_remembered() {
    let mut h = Harness::new();
    h.submit(put("a"));
    h.up(1);
    h.reply(1, not_leader(Some(3)));
    h.up(3);
    h.reply(2, written());
    h.submit(put("b"));
    h.expect(
        "submit t1
           open n1 at 127.0.0.1:7400
         up n1
           send n1 a1 write g2 gen1
         reply a1 not leader, n3 is
           open n3 at 127.0.0.3:7400
         up n3
           send n3 a2 write g2 gen1
         reply a2 ok
           done t1: written 1
         submit t2
           send n3 a3 write g2 gen1",
    );
}

/// Without a hint the members are asked in turn, with pauses. Two refusals of one node move the cache on once.
#[test]
fn without_a_hint_the_members_are_asked_in_turn() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.submit(put("b"));
    h.reply(4, not_leader(None));
    h.reply(5, not_leader(None));
    h.pass(3);
    h.pass(1);
    h.reply(6, not_leader(Some(3)));
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         submit t2
           send n1 a5 write g2 gen1
         reply a4 not leader
         reply a5 not leader
         pass 3ms
         pass 1ms
           send n2 a6 write g2 gen1
           send n2 a7 write g2 gen1
         reply a6 not leader, n3 is
           send n3 a8 write g2 gen1",
    );
}

/// Two nodes that name each other are not asked in a hot loop, and the deadline ends it with the last refusal.
#[test]
fn nodes_that_name_each_other_are_asked_with_growing_pauses() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    let mut answered = 3;
    for _ in 0..600 {
        while answered < h.sent.len() {
            let other = if h.sent[answered].0.node == NodeId(1) { 2 } else { 1 };
            answered += 1;
            h.reply(answered, not_leader(Some(other)));
        }
        h.pass(1);
    }
    let attempts = h.sent.len() - 3;
    assert!((5..=12).contains(&attempts), "{attempts} attempts in half a second");
    assert_eq!(h.done.len(), 1);
    assert!(matches!(h.done[0].result, Err(pontoon_client::ClientError::NotLeader { .. })), "{:?}", h.done);
}

/// The members of a range changed: its newer descriptor repairs the table at once.
#[test]
fn a_stale_descriptor_is_replaced() {
    let mut h = Harness::connected();
    h.submit(put("d"));
    let newer = descriptor(2, "", Some("m"), 2);
    h.reply(4, Err(Refusal::StaleDescriptor { descriptor: newer, leader: Some(NodeId(3)) }));
    h.reply(5, written());
    h.submit(put("e"));
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         reply a4 stale, now g2 [, m)
           send n3 a5 write g2 gen2
         reply a5 ok
           done t1: written 1
         submit t2
           send n3 a6 write g2 gen2",
    );
}

/// The range was split at `c`. One child's descriptor leaves a hole in the table, so the whole table is asked for,
/// once, and the refused requests go on when it is there.
#[test]
fn a_split_range_makes_the_whole_table_be_asked_for() {
    let mut h = Harness::connected();
    h.submit(put("d"));
    h.submit(put("e"));
    let child = || Refusal::StaleDescriptor { descriptor: descriptor(9, "c", Some("m"), 2), leader: Some(NodeId(3)) };
    h.reply(4, Err(child()));
    h.reply(5, Err(child()));
    h.reply(6, Ok(routes_after_split()));
    h.pass(4);
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         submit t2
           send n1 a5 write g2 gen1
         reply a4 stale, now g9 [c, m)
           send n1 a6 routes
         reply a5 stale, now g9 [c, m)
         reply a6 ok
         pass 4ms
           send n3 a7 write g9 gen2
           send n3 a8 write g9 gen2",
    );
}

/// A descriptor that is not newer changes nothing. Whoever sent it knows no better, so the next member is asked after a pause.
#[test]
fn an_old_descriptor_changes_nothing() {
    let mut h = Harness::connected();
    h.submit(put("d"));
    let same = descriptor(2, "", Some("m"), 1);
    h.reply(4, Err(Refusal::StaleDescriptor { descriptor: same, leader: None }));
    h.pass(4);
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         reply a4 stale, now g2 [, m)
         pass 4ms
           send n2 a5 write g2 gen1",
    );
}

/// Busy waits as long as it was told, and is the result when that is beyond the deadline.
#[test]
fn busy_waits_as_told() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.reply(4, Err(Refusal::Busy { retry_after_ms: 30 }));
    h.pass(29);
    h.pass(1);
    h.reply(5, Err(Refusal::Busy { retry_after_ms: 900 }));
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         reply a4 busy 30ms
         pass 29ms
         pass 1ms
           send n1 a5 write g2 gen1
         reply a5 busy 900ms
           done t1: busy: try again in 900 ms",
    );
}

/// What the node refuses for good, and what is over a limit before it leaves, is not tried.
#[test]
fn what_can_never_be_done_is_not_tried_again() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.reply(4, Err(Refusal::Refused { why: "no".to_string() }));
    h.submit(get(""));
    h.submit(get(&"k".repeat(KEY_BYTES_MAX + 1)));
    h.submit(Request::Put { key: "k".into(), value: vec![0; VALUE_BYTES_MAX + 1].into() });
    h.submit(Request::Batch { operations: Vec::new() });
    let delete = |key: &'static str| KvOperation::Delete { key: key.into() };
    h.submit(Request::Batch { operations: vec![delete("a"), delete("z")] });
    assert_eq!(h.sent.len(), 4, "nothing else left");
    assert_eq!(h.done.len(), 6, "{:?}", h.done);
    assert!(h.done.iter().all(|completion| completion.result.is_err()));
    assert!(h.trace.contains("done t3: KEY_BYTES_MAX is 4096 bytes, the request has 4097"), "{}", h.trace);
    assert!(h.trace.contains("one range"), "{}", h.trace);
}

/// More than the limit in flight is refused here, and room comes back with the answers.
#[test]
fn requests_in_flight_are_limited() {
    let mut h = Harness::connected();
    for _ in 0..9 {
        h.submit(put("a"));
    }
    assert_eq!((h.sent.len(), h.done.len()), (11, 1));
    h.reply(4, written());
    h.submit(put("a"));
    assert_eq!((h.sent.len(), h.done.len()), (12, 2));
}
