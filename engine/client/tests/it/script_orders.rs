//! Orders and questions to the leader of a group: who is asked, what is tried again, and what ends it.

use pontoon_client::Request;
use pontoon_types::{Generation, GroupId, NodeId, Term};
use pontoon_wire::client::{Outcome, Refusal};
use pontoon_wire::order::{GroupMembers, Order, OrderReason};

use crate::harness::{Harness, descriptor, not_leader};

fn members() -> Request {
    let order = Order::Members { generation: Generation(1), voters: vec![NodeId(1), NodeId(2)], learners: Vec::new() };
    Request::Order { group: GroupId(2), order }
}

fn transfer() -> Request {
    Request::Order { group: GroupId(2), order: Order::Transfer { term: Term(5), to: NodeId(2) } }
}

fn refused(reason: OrderReason) -> Result<Outcome, Refusal> {
    Err(Refusal::Order { reason, why: "a reason".to_string() })
}

/// The leader is looked for as for any request.
#[test]
fn an_order_finds_the_leader() {
    let mut h = Harness::connected();
    h.submit(members());
    h.reply(4, not_leader(Some(3)));
    h.reply(5, Ok(Outcome::Ordered));
    h.submit(Request::Members { group: GroupId(2) });
    h.reply(6, Ok(Outcome::Members(GroupMembers::default())));
    h.submit(Request::Members { group: GroupId(77) });
    h.expect(
        "submit t1
           send n1 a4 members g2 gen1 for gen1
         reply a4 not leader, n3 is
           send n3 a5 members g2 gen1 for gen1
         reply a5 ok
           done t1: told
         submit t2
           send n3 a6 members g2 gen1?
         reply a6 ok
           done t2: told
         submit t3
           done t3: refused: no range has group g77",
    );
}

/// What passes is waited for, and is the answer when the time is over. Everything else ends it at once.
#[test]
fn a_reason_that_passes_is_waited_for() {
    let mut h = Harness::connected();
    h.submit(members());
    h.reply(4, refused(OrderReason::NotReady));
    h.pass(4);
    h.reply(5, refused(OrderReason::InFlight));
    h.pass(8);
    h.reply(6, refused(OrderReason::NoVoterLeft));
    h.submit(members());
    h.reply(7, refused(OrderReason::NotYet));
    h.pass(4);
    h.reply(8, refused(OrderReason::NotReady));
    h.pass(600);
    h.expect(
        "submit t1
           send n1 a4 members g2 gen1 for gen1
         reply a4 order refused: NotReady
         pass 4ms
           send n1 a5 members g2 gen1 for gen1
         reply a5 order refused: InFlight
         pass 8ms
           send n1 a6 members g2 gen1 for gen1
         reply a6 order refused: NoVoterLeft
           done t1: the order is refused: a reason; name a voter that stays
         submit t2
           send n1 a7 members g2 gen1 for gen1
         reply a7 order refused: NotYet
         pass 4ms
           send n1 a8 members g2 gen1 for gen1
         reply a8 order refused: NotReady
         pass 600ms
           done t2: the order is refused: a reason; give it again when the node has caught up",
    );
}

/// An order whose connection is lost may have been carried out. It is given again, and a refusal does not say what became of
/// the first one.
#[test]
fn an_order_without_an_answer_is_given_again() {
    let mut h = Harness::connected();
    h.submit(members());
    h.submit(transfer());
    h.down(1);
    h.reply(6, Ok(Outcome::Ordered));
    h.reply(7, refused(OrderReason::Changed));
    h.expect(
        "submit t1
           send n1 a4 members g2 gen1 for gen1
         submit t2
           send n1 a5 transfer g2 gen1 for 5 to n2
         down n1
           send n2 a6 members g2 gen1 for gen1
           send n2 a7 transfer g2 gen1 for 5 to n2
         reply a6 ok
           done t1: told
         reply a7 order refused: Changed
           done t2: sent, but not answered: the outcome is unknown",
    );
}

/// The members are others than the client knows. The leader's descriptor repairs the routing table, so that a new member can
/// be followed to.
#[test]
fn a_new_member_is_found() {
    let mut h = Harness::connected();
    h.submit(members());
    let newer = descriptor(2, "", Some("m"), 2);
    h.reply(4, Err(Refusal::StaleDescriptor { descriptor: newer, leader: Some(NodeId(2)) }));
    h.reply(5, Ok(Outcome::Ordered));
    h.expect(
        "submit t1
           send n1 a4 members g2 gen1 for gen1
         reply a4 stale, now g2 [, m)
           send n2 a5 members g2 gen2 for gen1
         reply a5 ok
           done t1: told",
    );
}

/// A preference is for one node: nobody else is asked, and one that does not answer is named.
#[test]
fn a_preference_is_told_to_the_node_that_it_is_about() {
    let mut h = Harness::connected();
    let prefer = |node| Request::Prefer { node: NodeId(node), group: GroupId(2), priority: 8 };
    h.submit(prefer(2));
    h.reply(4, Ok(Outcome::Ordered));
    h.submit(prefer(2));
    h.down(2);
    h.submit(prefer(9));
    h.expect(
        "submit t1
           send n2 a4 prefer g2 8
         reply a4 ok
           done t1: told
         submit t2
           send n2 a5 prefer g2 8
         down n2
           done t2: not reachable: n2: reset
         submit t3
           done t3: refused: the cluster has no node n9",
    );
}
