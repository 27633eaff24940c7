//! Scans walk from range to range.

use bytes::Bytes;
use pontoon_client::{ReadLevel, Request, Response};
use pontoon_types::NodeId;
use pontoon_wire::client::{Outcome, Refusal};

use crate::harness::{Harness, descriptor, routes_after_split};

fn scan(start: &'static str, end: Option<&'static str>, limit: u32) -> Request {
    Request::Scan { start: start.into(), end: end.map(Bytes::from), limit }
}

fn pairs(keys: &[&'static str], next: Option<&'static str>) -> Result<Outcome, Refusal> {
    let pairs = keys.iter().map(|key| (Bytes::from(*key), Bytes::from_static(b"v"))).collect();
    Ok(Outcome::Pairs { pairs, next: next.map(Bytes::from) })
}

fn keys(harness: &Harness) -> (Vec<Bytes>, Option<Bytes>) {
    match harness.done[0].result.clone().unwrap() {
        Response::Pairs { pairs, next } => (pairs.into_iter().map(|(key, _)| key).collect(), next),
        other => panic!("{other:?}"),
    }
}

/// Each step is clamped to its range; the limit that is left travels.
#[test]
fn a_scan_goes_on_in_the_next_range() {
    let mut h = Harness::connected();
    h.submit(scan("b", Some("q"), 10));
    h.reply(4, pairs(&["b", "c"], Some("d")));
    h.reply(5, pairs(&["e"], None));
    h.reply(6, pairs(&["n"], None));
    h.expect(
        "submit t1
           send n1 a4 scan g2 [b, m) 10
         reply a4 ok
           send n1 a5 scan g2 [d, m) 8
         reply a5 ok
           send n2 a6 scan g3 [m, q) 7
         reply a6 ok
           done t1: 4 pairs, next None",
    );
    assert_eq!(keys(&h).0, ["b", "c", "e", "n"]);
}

/// The limit ends it and says where to go on; a node that returns too much does not make keys disappear.
#[test]
fn the_limit_ends_a_scan() {
    let mut h = Harness::connected();
    h.submit(scan("", None, 2));
    h.reply(4, pairs(&["a", "b", "c"], None));
    assert_eq!(keys(&h), (vec!["a".into(), "b".into()], Some("c".into())));
}

/// The range is split while a step is under way: the scan goes on where that step ended, and nothing is skipped.
#[test]
fn a_split_under_way_skips_nothing() {
    let mut h = Harness::connected();
    h.submit(scan("a", None, 10));
    h.submit(Request::Get { key: "d".into(), level: ReadLevel::Linearizable });
    let child = descriptor(9, "c", Some("m"), 2);
    h.reply(5, Err(Refusal::StaleDescriptor { descriptor: child, leader: Some(NodeId(1)) }));
    h.reply(6, Ok(routes_after_split()));
    h.reply(4, pairs(&["a"], None));
    h.expect(
        "submit t1
           send n1 a4 scan g2 [a, m) 10
         submit t2
           send n1 a5 get g2 gen1 d
         reply a5 stale, now g9 [c, m)
           send n1 a6 routes
         reply a6 ok
         reply a4 ok
           send n2 a7 scan g3 [m, ∞) 9",
    );
}

/// A node that says "go on where you are" would make the scan walk in a circle; it ends with an error instead.
#[test]
fn a_place_to_go_on_that_is_not_ahead_is_an_error() {
    let mut h = Harness::connected();
    h.submit(scan("n", None, 10));
    h.reply(4, pairs(&[], Some("n")));
    assert!(h.trace.contains("done t1: refused: the node's part of the scan ends where it began"), "{}", h.trace);
}
