//! Orders of operators, as scripts: what is given to whom, and what is answered when. An order prints as `#1`; its answer
//! stands below the line during which it came.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use pontoon_multiraft::{CheckpointConfig, CoreConfig, Priority, Role};
use pontoon_types::limits::{MEMBERS_MAX, TRANSFER_LAG_ENTRIES_MAX};
use pontoon_types::{Generation, GroupId, NodeId, Term};
use pontoon_wire::client::{CoreStatus, GroupRole, Operation, Outcome, Refusal};
use pontoon_wire::order::{GroupMembers, Order};

use crate::cluster::{Cluster, n};

/// One group on three nodes, led by n1; n4 has no replica.
struct Script {
    cluster: Cluster,
    group: GroupId,
    given: usize,
    /// Orders that are not answered: number, whom they were given to, sequence.
    open: Vec<(usize, NodeId, u64)>,
    trace: String,
}

fn nodes(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().map(|number| n(*number)).collect()
}

impl Script {
    fn new() -> Script {
        let small =
            |config: &mut CoreConfig| config.checkpoint = CheckpointConfig { log_bytes: 4 << 10, chunk_bytes: 1 << 10 };
        let cluster = Cluster::with_spares(1, 1, small).lit();
        let group = cluster.descriptors[0].group;
        let mut script = Script { cluster, group, given: 0, open: Vec::new(), trace: String::new() };
        script.cluster.run(Duration::from_secs(1));
        let leader = script.cluster.leader(group).expect("a leader");
        if leader != n(1) {
            let term = script.ask(leader).term;
            script.transfer(leader.0, term.0, 1);
            script.run(300);
        }
        assert_eq!(script.cluster.leader(group), Some(n(1)));
        (script.given, script.open, script.trace) = (0, Vec::new(), String::new());
        script
    }

    fn give(&mut self, node: u64, what: &str, order: Order) {
        self.given += 1;
        writeln!(self.trace, "#{} to n{node}: {what}", self.given).unwrap();
        let sequence = self.cluster.submit(n(node), Operation::Order { group: self.group, generation: None, order });
        self.open.push((self.given, n(node), sequence));
        self.hear();
    }

    fn members(&mut self, node: u64, generation: u64, voters: &[u64], learners: &[u64]) {
        let order =
            Order::Members { generation: Generation(generation), voters: nodes(voters), learners: nodes(learners) };
        self.give(node, &format!("gen{generation} voters {voters:?} learners {learners:?}"), order);
    }

    /// `term` zero stands for the present one.
    fn transfer(&mut self, node: u64, term: u64, to: u64) {
        let shown = if term == 0 { String::new() } else { format!("term {term} ") };
        let term = if term == 0 { self.ask(n(node)).term } else { Term(term) };
        self.give(node, &format!("{shown}leader n{to}"), Order::Transfer { term, to: n(to) });
    }

    fn run(&mut self, milliseconds: u64) {
        writeln!(self.trace, "run {milliseconds}ms").unwrap();
        self.cluster.run(Duration::from_millis(milliseconds));
        self.hear();
    }

    fn say(&mut self, line: &str) {
        writeln!(self.trace, "{line}").unwrap();
    }

    /// Writes down what was answered.
    fn hear(&mut self) {
        for (number, node, sequence) in std::mem::take(&mut self.open) {
            let said = match self.cluster.reply(node, sequence) {
                None => {
                    self.open.push((number, node, sequence));
                    continue;
                }
                Some(Ok(Outcome::Ordered)) => "done".to_string(),
                Some(Ok(other)) => panic!("an order was answered with {other:?}"),
                Some(Err(Refusal::Order { reason, why })) => format!("{reason:?}: {why}"),
                Some(Err(refusal)) => refusal.to_string(),
            };
            writeln!(self.trace, "  #{number} {said}").unwrap();
        }
    }

    fn ask(&mut self, node: NodeId) -> GroupMembers {
        match self.cluster.ask(node, Operation::Members { group: self.group, generation: None }) {
            Ok(Outcome::Members(members)) => members,
            other => panic!("{node} was asked for the members and said {other:?}"),
        }
    }

    /// Writes down who the members are, as the leader says.
    fn look(&mut self) {
        let leader = self.cluster.leader(self.group).expect("a leader");
        let now = self.ask(leader);
        let member = |member: &pontoon_wire::order::GroupMember| format!("{} {}", member.node, member.standing);
        let members: Vec<String> = now.members.iter().map(member).collect();
        let changing = if now.is_changing { ", changing" } else { "" };
        writeln!(self.trace, "{} led by {leader}: {}{changing}", now.generation, members.join(", ")).unwrap();
    }

    fn write(&mut self, node: u64, writes: usize) {
        self.cluster.descriptors[0].generation = self.ask(n(node)).generation;
        let operations = (0..writes).map(|place| self.cluster.put(&format!("k{place}"), "value")).collect();
        let (_, event) = self.cluster.frame(operations);
        self.cluster.event(n(node), event);
    }

    fn status(&mut self, node: u64) -> CoreStatus {
        match self.cluster.ask(n(node), Operation::Status) {
            Ok(Outcome::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Compares everything since the last call, whatever the indentation of the expectation.
    fn expect(&mut self, expected: &str) {
        let clean = |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_string()).collect() };
        let (found, expected) = (clean(self.trace.trim()), clean(expected.trim()));
        assert_eq!(found, expected, "\nfound:\n{}", self.trace);
        self.trace.clear();
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let mut s = Script::new();
    s.members(2, 1, &[1, 2], &[]);
    s.members(4, 1, &[1, 2], &[]);
    s.members(1, 1, &[1, 2, 9], &[]);
    s.members(1, 1, &[1, 2, 3], &[9]);
    s.members(1, 1, &[], &[1, 2, 3]);
    s.members(1, 1, &[1, 2], &[2]);
    s.members(1, 1, &(1..=MEMBERS_MAX as u64 + 1).collect::<Vec<_>>(), &[]);
    s.members(1, 1, &[1, 2, 4], &[]);
    s.members(1, 7, &[1, 2], &[]);
    s.transfer(2, 1, 3);
    s.members(1, 7, &[1, 2, 3], &[]);
    s.transfer(1, 77, 3);
    s.transfer(1, 77, 1);
    s.transfer(1, 0, 4);
    s.transfer(1, 0, 9);
    s.look();
    s.expect(
        "#1 to n2: gen1 voters [1, 2] learners []
              #1 the node does not lead the group; n1 leads it
            #2 to n4: gen1 voters [1, 2] learners []
              #2 the range has changed: g2 now holds [, ∞) at gen1; its leader is not known
            #3 to n1: gen1 voters [1, 2, 9] learners []
              #3 UnknownNode: n9 is no node of the cluster
            #4 to n1: gen1 voters [1, 2, 3] learners [9]
              #4 UnknownNode: n9 is no node of the cluster
            #5 to n1: gen1 voters [] learners [1, 2, 3]
              #5 NoVoterLeft: no voter would be left; add one first
            #6 to n1: gen1 voters [1, 2] learners [2]
              #6 Impossible: n2 is named twice
            #7 to n1: gen1 voters [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] learners []
              #7 Impossible: 10 replicas would be named, but a group has at most 9; remove some first
            #8 to n1: gen1 voters [1, 2, 4] learners []
              #8 NewVoter: n4 has no replica of the group yet, and a new one cannot vote
            #9 to n1: gen7 voters [1, 2] learners []
              #9 Changed: the order was given for gen7 of the members, which are at gen1 by now
            #10 to n2: term 1 leader n3
              #10 the node does not lead the group; n1 leads it
            #11 to n1: gen7 voters [1, 2, 3] learners []
              #11 Changed: the order was given for gen7 of the members, which are at gen1 by now
            #12 to n1: term 77 leader n3
              #12 Changed: the order was given for the leader of term 77, and it is term 1 by now
            #13 to n1: term 77 leader n1
              #13 Changed: the order was given for the leader of term 77, and it is term 1 by now
            #14 to n1: leader n4
              #14 UnknownNode: n4 has no replica of the group
            #15 to n1: leader n9
              #15 UnknownNode: n9 has no replica of the group
            gen1 led by n1: n1 voter, n2 voter, n3 voter",
    );
}

/// Done means that the final configuration is committed; asking again is answered, and a copy that comes after other
/// decisions changes nothing.
#[test]
fn a_change_is_answered_when_it_is_committed_and_only_once_carried_out() {
    let mut s = Script::new();
    s.say("the followers' disks do not answer");
    s.cluster.held.extend([n(2), n(3)]);
    s.members(1, 1, &[1, 2], &[]);
    s.run(100);
    s.members(1, 1, &[2, 1], &[]);
    s.members(1, 1, &[1, 3], &[]);
    s.look();
    s.say("they answer");
    s.cluster.held.clear();
    s.run(100);
    s.look();
    s.members(1, 1, &[1, 2], &[]);
    s.members(1, 3, &[1, 2, 3], &[]);
    s.members(1, 3, &[1, 2], &[3]);
    s.run(500);
    s.look();
    s.say("a late copy of the first one");
    s.members(1, 1, &[1, 2], &[]);
    s.look();
    s.expect(
        "the followers' disks do not answer
            #1 to n1: gen1 voters [1, 2] learners []
            run 100ms
            #2 to n1: gen1 voters [2, 1] learners []
            #3 to n1: gen1 voters [1, 3] learners []
              #3 InFlight: the change at index 2 is not committed yet
            gen1 led by n1: n1 voter, n2 voter, n3 voter, changing
            they answer
            run 100ms
              #1 done
              #2 done
            gen3 led by n1: n1 voter, n2 voter
            #4 to n1: gen1 voters [1, 2] learners []
              #4 done
            #5 to n1: gen3 voters [1, 2, 3] learners []
              #5 NewVoter: n3 has no replica of the group yet, and a new one cannot vote
            #6 to n1: gen3 voters [1, 2] learners [3]
            run 500ms
              #6 done
            gen4 led by n1: n1 voter, n2 voter, n3 learner
            a late copy of the first one
            #7 to n1: gen1 voters [1, 2] learners []
              #7 Changed: the order was given for gen1 of the members, which are at gen4 by now
            gen4 led by n1: n1 voter, n2 voter, n3 learner",
    );
}

/// A node without a replica becomes a learner, catches up from a snapshot, and is promoted in one step with the removal of
/// another one.
#[test]
fn a_replica_is_replaced() {
    let mut s = Script::new();
    s.write(1, 300);
    s.run(500);
    s.say("n4 is cut off");
    s.cluster.isolate(n(4));
    s.members(1, 1, &[1, 2, 3], &[4]);
    s.run(100);
    s.members(1, 2, &[1, 2, 4], &[]);
    s.transfer(1, 0, 4);
    s.say("it is back");
    s.cluster.cut.clear();
    s.run(5_000);
    assert_eq!(s.status(4).groups[0].role, GroupRole::Learner);
    assert!(s.status(4).counters.snapshots_received == 1, "the log alone was not enough");
    s.transfer(1, 0, 4);
    s.members(1, 2, &[1, 2, 4], &[]);
    s.run(500);
    s.look();
    s.transfer(1, 0, 4);
    s.run(100);
    s.look();
    s.members(4, 4, &[4], &[]);
    s.run(100);
    s.look();
    s.expect(
        "run 500ms
            n4 is cut off
            #1 to n1: gen1 voters [1, 2, 3] learners [4]
            run 100ms
              #1 done
            #2 to n1: gen2 voters [1, 2, 4] learners []
              #2 NotReady: the replica on n4 has not been heard of as one that has caught up
            #3 to n1: leader n4
              #3 NotVoter: n4 is no voter, or will not be one for long
            it is back
            run 5000ms
            #4 to n1: leader n4
              #4 NotVoter: n4 is no voter, or will not be one for long
            #5 to n1: gen2 voters [1, 2, 4] learners []
            run 500ms
              #5 done
            gen4 led by n1: n1 voter, n2 voter, n4 voter
            #6 to n1: leader n4
            run 100ms
              #6 done
            gen4 led by n4: n1 voter, n2 voter, n4 voter
            #7 to n4: gen4 voters [4] learners []
            run 100ms
              #7 done
            gen6 led by n4: n4 voter",
    );
    let now = s.ask(n(4));
    assert_eq!((now.members[0].matched, now.members[0].follows), (now.last, true));
}

#[test]
fn a_leader_that_removes_itself_answers_first() {
    let mut s = Script::new();
    s.members(1, 1, &[2, 3], &[]);
    s.run(300);
    s.look();
    s.expect(
        "#1 to n1: gen1 voters [2, 3] learners []
            run 300ms
              #1 done
            gen3 led by n2: n2 voter, n3 voter",
    );
}

/// One transfer at a time; the same again waits with the first. A target that does not campaign is given up after an election
/// timeout.
#[test]
fn a_transfer_is_answered_when_the_other_leads_or_it_is_given_up() {
    let mut s = Script::new();
    s.say("what n1 sends to n2 is lost");
    s.cluster.cut.insert((n(1), n(2)));
    s.transfer(1, 0, 2);
    s.transfer(1, 0, 2);
    s.transfer(1, 0, 3);
    s.members(1, 1, &[1, 2], &[]);
    s.run(900);
    s.run(300);
    s.say("it arrives again");
    s.cluster.cut.clear();
    s.run(2_000);
    s.transfer(1, 0, 2);
    s.run(300);
    s.look();
    s.transfer(2, 1, 2);
    s.transfer(1, 1, 2);
    s.say("a late copy of one for the term before");
    s.transfer(2, 1, 3);
    s.look();
    s.expect(
        "what n1 sends to n2 is lost
            #1 to n1: leader n2
            #2 to n1: leader n2
            #3 to n1: leader n3
              #3 InFlight: the leadership is being handed over to n2 already
            #4 to n1: gen1 voters [1, 2] learners []
              #4 InFlight: the leadership is being handed over to n2 already
            run 900ms
            run 300ms
              #1 GivenUp: n2 did not take over in time
              #2 GivenUp: n2 did not take over in time
            it arrives again
            run 2000ms
            #5 to n1: leader n2
            run 300ms
              #5 done
            gen1 led by n2: n1 voter, n2 voter, n3 voter
            #6 to n2: term 1 leader n2
              #6 done
            #7 to n1: term 1 leader n2
              #7 the node does not lead the group; n2 leads it
            a late copy of one for the term before
            #8 to n2: term 1 leader n3
              #8 Changed: the order was given for the leader of term 1, and it is term 2 by now
            gen1 led by n2: n1 voter, n2 voter, n3 voter",
    );
}

#[test]
fn a_node_that_is_far_behind_does_not_lead() {
    let mut s = Script::new();
    s.say("what n1 sends to n3 is lost");
    s.cluster.cut.insert((n(1), n(3)));
    s.write(1, TRANSFER_LAG_ENTRIES_MAX as usize + 1);
    s.run(10);
    s.transfer(1, 0, 3);
    s.say("its link is down");
    s.cluster.event(n(1), pontoon_multiraft::Event::PeerDown(n(3)));
    s.transfer(1, 0, 3);
    s.expect(
        "what n1 sends to n3 is lost
            run 10ms
            #1 to n1: leader n3
              #1 NotReady: n3 lacks 4097 entries, more than 4096
            its link is down
            #2 to n1: leader n3
              #2 NotReady: n3 lacks 4097 entries, more than 4096",
    );
}

/// A leader that has committed nothing in its term does not know which changes before it are alive.
#[test]
fn a_new_leader_takes_no_change_before_it_has_committed() {
    let mut s = Script::new();
    for (from, to) in [(2, 1), (1, 2), (3, 2), (2, 3)] {
        s.cluster.delay.insert((n(from), n(to)), Duration::from_millis(20));
    }
    s.transfer(1, 0, 2);
    s.run(50);
    s.run(20);
    s.say("the disks of n1 and n3 do not answer");
    s.cluster.held.extend([n(1), n(3)]);
    s.run(40);
    s.members(2, 1, &[1, 2], &[]);
    s.say("they answer");
    s.cluster.held.clear();
    s.run(200);
    s.members(2, 1, &[1, 2], &[]);
    s.run(200);
    s.look();
    s.expect(
        "#1 to n1: leader n2
            run 50ms
            run 20ms
            the disks of n1 and n3 do not answer
            run 40ms
              #1 done
            #2 to n2: gen1 voters [1, 2] learners []
              #2 NotYet: the leader has not committed anything in its term yet
            they answer
            run 200ms
            #3 to n2: gen1 voters [1, 2] learners []
            run 200ms
              #3 done
            gen3 led by n2: n1 voter, n2 voter",
    );
}

/// A leader that loses its term cannot know what becomes of a change. The next one is asked, and says it.
#[test]
fn a_change_whose_leader_is_lost_is_unknown_until_it_is_asked_for_again() {
    let mut s = Script::new();
    s.say("what n1 sends is lost");
    s.cluster.cut.extend([(n(1), n(2)), (n(1), n(3))]);
    s.members(1, 1, &[1, 2], &[]);
    s.run(5_000);
    s.say("it arrives again");
    s.cluster.cut.clear();
    s.run(1_000);
    let leader = s.cluster.leader(s.group).unwrap();
    s.look();
    s.members(leader.0, 1, &[1, 2], &[]);
    s.run(500);
    s.look();
    s.expect(
        "what n1 sends is lost
            #1 to n1: gen1 voters [1, 2] learners []
            run 5000ms
              #1 the outcome is unknown: the request may or may not be carried out
            it arrives again
            run 1000ms
            gen1 led by n3: n1 voter, n2 voter, n3 voter
            #2 to n3: gen1 voters [1, 2] learners []
            run 500ms
              #2 done
            gen3 led by n1: n1 voter, n2 voter",
    );
}

/// Who campaigns first when a leader is lost does not depend on whose turn it is, but on who was told to wait.
#[test]
fn the_most_eager_one_leads_next() {
    for (last, next) in [(2, 3), (3, 2)] {
        let mut s = Script::new();
        for (node, priority) in [(last, 8), (next, 0)] {
            let preferred = s.cluster.ask(n(node), Operation::Prefer { group: s.group, priority });
            assert_eq!(preferred, Ok(Outcome::Ordered));
        }
        s.cluster.isolate(n(1));
        s.run(2_500);
        let leads = |node: u64| s.cluster.cores[&n(node)].groups().next().unwrap().role() == Role::Leader;
        assert!(leads(next) && !leads(last), "n{next} leads, n{last} was told to wait");
    }
    let mut s = Script::new();
    let refused = s.cluster.ask(n(2), Operation::Prefer { group: s.group, priority: 9 });
    assert!(matches!(refused, Err(Refusal::Refused { .. })), "{refused:?}");
}

/// A node that is to rest leads nothing at the start, although some groups are its own by turn, and nothing later while others can.
#[test]
fn what_a_node_is_configured_to_be_counts_from_the_start() {
    let mut cluster = Cluster::dark_with(6, |config| {
        if config.node == n(3) {
            Arc::make_mut(&mut config.raft).priority = Priority::LAST;
        }
    })
    .lit();
    cluster.run(Duration::from_secs(5));
    let leads = |cluster: &Cluster, node| cluster.led_by(n(node)).len();
    assert_eq!((leads(&cluster, 3), leads(&cluster, 1) + leads(&cluster, 2)), (0, 6));
    cluster.isolate(n(1));
    cluster.run(Duration::from_secs(5));
    assert_eq!((leads(&cluster, 3), leads(&cluster, 2)), (0, 6));
}
