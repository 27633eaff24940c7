//! Lost connections, silence and deadlines: what was sent and not answered is asked for again, by the same id.

use bytes::Bytes;
use pontoon_client::{ClientError, OperationOutcome, Request};
use pontoon_types::{CoreId, NodeId, RequestId, SessionTime};
use pontoon_wire::client::{Operation, Outcome, Refusal};
use pontoon_wire::command::{Command, KvOperation};

use crate::harness::{Harness, descriptor, get, link, not_leader, put, routes_after_split, written};

/// A lost connection: both are asked for at the next member. The write may have happened, so a refusal does not end it.
#[test]
fn what_was_sent_is_asked_for_again() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.submit(get("b"));
    h.down(1);
    h.reply(7, Ok(Outcome::Value(None)));
    h.reply(6, Err(Refusal::Refused { why: "no".to_string() }));
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         submit t2
           send n1 a5 get g2 gen1 b
         down n1
           send n2 a6 write g2 gen1
           send n2 a7 get g2 gen1 b
         reply a7 ok
           done t2: value None
         reply a6 refused
           done t1: sent, but not answered: the outcome is unknown",
    );
    assert_eq!(id(&h, 4), id(&h, 6));
}

/// A write that was queued for a connection which never opened has not left, so it goes elsewhere.
#[test]
fn a_queued_write_goes_elsewhere() {
    let mut h = Harness::new();
    h.submit(put("a"));
    h.down(1);
    h.up(2);
    h.reply(1, written());
    h.expect(
        "submit t1
           open n1 at 127.0.0.1:7400
         down n1
           open n2 at 127.0.0.2:7400
         up n2
           send n2 a1 write g2 gen1
         reply a1 ok
           done t1: written 1",
    );
}

/// A follower names a leader that cannot be reached: the others are asked until one of them leads.
#[test]
fn a_named_leader_that_is_gone_is_left_alone_for_a_while() {
    let mut h = Harness::connected();
    h.down(1);
    h.submit(put("a"));
    h.reply(4, not_leader(Some(1)));
    h.reply(5, not_leader(None));
    h.pass(16);
    h.expect(
        "down n1
         submit t1
           send n2 a4 write g2 gen1
         reply a4 not leader, n1 is
           send n2 a5 write g2 gen1
         reply a5 not leader
         pass 16ms
           send n3 a6 write g2 gen1",
    );
}

/// The deadline makes a sent write unknown; the late answer finds nothing.
#[test]
fn a_late_answer_is_ignored() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.pass(1);
    h.submit(put("b"));
    h.reply(5, written());
    h.pass(499);
    h.reply(4, written());
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         pass 1ms
         submit t2
           send n1 a5 write g2 gen1
         reply a5 ok
           done t2: written 1
         pass 499ms
           done t1: sent, but not answered: the outcome is unknown
         reply a4 ok",
    );
    assert_eq!(h.session.ignored_replies(), 1);
}

/// Nothing at all was heard from a node within a request's time: the connection is given up, so that the reads on it
/// are asked elsewhere instead of running into their own deadlines.
#[test]
fn a_silent_connection_is_given_up() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.pass(100);
    h.submit(get("b"));
    h.submit(put("c"));
    h.pass(400);
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         pass 100ms
         submit t2
           send n1 a5 get g2 gen1 b
         submit t3
           send n1 a6 write g2 gen1
         pass 400ms
           close n1
           send n2 a7 get g2 gen1 b
           send n2 a8 write g2 gen1
           done t1: sent, but not answered: the outcome is unknown",
    );
}

/// A node that takes the connection and never welcomes it is given up after the time for connecting.
#[test]
fn a_connection_without_a_welcome_is_given_up() {
    let mut h = Harness::new();
    h.submit(put("a"));
    assert_eq!(h.session.deadline().map(|time| time.0), Some(200_000_000));
    h.pass(200);
    h.expect(
        "submit t1
           open n1 at 127.0.0.1:7400
         pass 200ms
           close n1
           open n2 at 127.0.0.2:7400",
    );
}

/// Nobody can be reached: the write never left, and the result says so.
#[test]
fn an_unreachable_cluster_is_a_definite_answer() {
    let mut h = Harness::new();
    h.submit(put("a"));
    let mut failed = 0;
    for _ in 0..600 {
        while failed < h.opened.len() {
            let node = h.opened[failed].node.0;
            failed += 1;
            h.down(node);
        }
        h.pass(1);
    }
    assert_eq!(h.sent.len(), 0);
    assert_eq!(h.done.len(), 1);
    assert!(matches!(h.done[0].result, Err(ClientError::Unreachable { .. })), "{:?}", h.done);
    assert!(failed < 40, "{failed} connections were tried in half a second");
}

/// A question to one node has no other place to go.
#[test]
fn a_status_is_not_asked_elsewhere() {
    let mut h = Harness::connected();
    h.submit(Request::Status { node: NodeId(2), core: CoreId(0) });
    h.down(2);
    h.submit(Request::Status { node: NodeId(9), core: CoreId(0) });
    h.submit(Request::Status { node: NodeId(1), core: CoreId(1) });
    h.expect(
        "submit t1
           send n2 a4 status
         down n2
           done t1: not reachable: n2: reset
         submit t2
           done t2: refused: the cluster has no core c0 of node n9
         submit t3
           done t3: refused: the cluster has no core c1 of node n1",
    );
}

/// The node itself does not know, yet.
#[test]
fn an_unknown_outcome_is_asked_for_again() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.submit(get("a"));
    h.reply(4, Err(Refusal::Unknown));
    h.reply(5, Err(Refusal::Unknown));
    h.pass(4);
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         submit t2
           send n1 a5 get g2 gen1 a
         reply a4 unknown
         reply a5 unknown
         pass 4ms
           send n1 a6 write g2 gen1
           send n1 a7 get g2 gen1 a",
    );
}

/// An answer given twice, or on another connection, or of another kind, completes nothing twice.
#[test]
fn answers_that_do_not_belong_are_ignored() {
    let mut h = Harness::connected();
    h.submit(get("a"));
    let (_, sequence, _) = h.sent[3].clone();
    h.reply_on(link(2), sequence, 4, Ok(Outcome::Value(None)));
    assert_eq!(h.done.len(), 0);
    h.reply(4, Ok(Outcome::Value(None)));
    h.reply(4, Ok(Outcome::Value(None)));
    assert_eq!((h.done.len(), h.session.ignored_replies()), (1, 2));
    h.submit(put("a"));
    h.reply(5, Ok(Outcome::Value(None)));
    assert!(h.done[1].result.clone().unwrap_err().is_unknown());
}

fn id(h: &Harness, attempt: usize) -> RequestId {
    let Operation::Write { command, .. } = &h.sent[attempt - 1].2 else { panic!("attempt {attempt} is no write") };
    Command::decode(command.clone()).unwrap().id
}

/// The node answers others, but not this: whoever comes next may know. The late answer of the first is worth nothing.
#[test]
fn an_attempt_without_an_answer_is_over_after_a_while() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.pass(200);
    h.submit(put("b"));
    h.reply(5, written());
    h.pass(100);
    h.reply(4, written());
    h.reply(6, written());
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         pass 200ms
         submit t2
           send n1 a5 write g2 gen1
         reply a5 ok
           done t2: written 1
         pass 100ms
           send n2 a6 write g2 gen1
         reply a4 ok
         reply a6 ok
           done t1: written 1",
    );
    assert_eq!(id(&h, 4), id(&h, 6));
}

/// The group had to make room: the write opens another session, and those after it begin there.
#[test]
fn a_forgotten_session_is_opened_again() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.submit(put("b"));
    h.reply(4, Err(Refusal::Forgotten { now: SessionTime(70) }));
    h.reply(5, Err(Refusal::Forgotten { now: SessionTime(71) }));
    h.submit(put("c"));
    h.submit(put("x"));
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         submit t2
           send n1 a5 write g2 gen1
         reply a4 forgotten at s70
           send n1 a6 write g2 gen1 in s70
         reply a5 forgotten at s71
           send n1 a7 write g2 gen1 in s70
         submit t3
           send n1 a8 write g2 gen1 in s70
         submit t4
           send n2 a9 write g3 gen1",
    );
}

/// What may have been carried out in a session is not sent in another one.
#[test]
fn a_write_that_may_have_happened_is_unknown_once_it_is_forgotten() {
    let mut h = Harness::connected();
    h.submit(put("a"));
    h.down(1);
    h.reply(5, Err(Refusal::Forgotten { now: SessionTime(70) }));
    h.submit(put("b"));
    h.expect(
        "submit t1
           send n1 a4 write g2 gen1
         down n1
           send n2 a5 write g2 gen1
         reply a5 forgotten at s70
           done t1: sent, but not answered: the outcome is unknown
         submit t2
           send n2 a6 write g2 gen1 in s70",
    );
}

/// Its range is cut while a batch has no answer: it is not cut with it, and its first half knows what came of it.
#[test]
fn an_uncertain_batch_stays_whole() {
    let mut h = Harness::connected();
    let operation = |key: &'static [u8]| KvOperation::Delete { key: Bytes::from_static(key) };
    h.submit(Request::Batch { operations: vec![operation(b"a"), operation(b"d")] });
    h.submit(put("d"));
    h.reply(5, Err(Refusal::StaleDescriptor { descriptor: descriptor(2, "", Some("c"), 2), leader: None }));
    h.reply(6, Ok(routes_after_split()));
    h.down(1);
    let deleted = vec![OperationOutcome::Deleted { existed: true }; 2];
    let attempt =
        h.sent.iter().rposition(|(_, _, operation)| matches!(operation, Operation::Write { .. })).unwrap() + 1;
    assert_eq!(id(&h, 4), id(&h, attempt));
    h.reply(attempt, Ok(Outcome::Written(deleted)));
    assert!(h.done.iter().any(|completion| completion.ticket.0 == 1 && completion.result.is_ok()), "{}", h.trace);
    h.submit(Request::Batch { operations: vec![operation(b"a"), operation(b"d")] });
    assert!(matches!(h.done.last().unwrap().result, Err(ClientError::Refused { .. })), "a new one is refused");
}

/// The floor of each write is the lowest ticket without an answer.
#[test]
fn the_lowest_open_ticket_travels_along() {
    let mut h = Harness::connected();
    let floor = |h: &Harness, attempt: usize| {
        let Operation::Write { command, .. } = &h.sent[attempt - 1].2 else { panic!("attempt {attempt} is no write") };
        Command::decode(command.clone()).unwrap().floor
    };
    for _ in 0..3 {
        h.submit(put("a"));
    }
    assert_eq!([floor(&h, 4), floor(&h, 5), floor(&h, 6)], [1, 1, 1]);
    h.reply(5, written());
    h.submit(put("a"));
    h.reply(4, written());
    h.submit(put("a"));
    assert_eq!([floor(&h, 7), floor(&h, 8)], [1, 3]);
}
