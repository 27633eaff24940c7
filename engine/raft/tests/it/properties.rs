//! Random schedules. Messages are lost, doubled and reordered, disks lag behind, replicas crash with what they had not
//! synced, timers fire early, beacons lie about the living. Safety is checked after every step; after the storm the
//! cluster must agree and fall asleep.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pontoon_raft::membership::{Change, Configuration, Phase};
use pontoon_raft::{Config, Effect, Event, Law, MembersChange, Priority, Raft, Reader, Restored, Role, TERM_MAX};
use pontoon_types::{Body, Entry, Index, LogId, Message, Permit, ReplicaId, Term, Time, WriteNumber};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::checker::Disk;
use crate::cluster::Cluster;
use crate::membership::{change, member};

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Action {
    Deliver(usize),
    DeliverFirst(usize),
    Duplicate(usize),
    Drop(usize),
    Durable(usize, usize),
    Timer(usize),
    Campaign(usize),
    Propose(usize, usize),
    Claim(usize),
    Lapse(usize),
    Crash(usize, usize),
    /// A crash after which a payload is rotten.
    Rot(usize, usize),
    /// A crash after which term and vote are rotten.
    RotVote(usize),
    /// Rot that is found while the replica runs.
    Scrub(usize, usize),
    /// Rot that nobody has seen yet.
    Decay(usize, usize),
    /// The log of a replica answers one of its readers.
    Serve(usize),
    /// A machine stops applying, or goes on.
    Lazy(usize),
    Shed(usize),
    Compact(usize),
    Postpone(usize),
    PeerUp(usize, usize),
    PeerDown(usize, usize),
    Isolate(usize),
    Heal,
    Stabilize,
    Change(usize, MembersChange),
    Transfer(usize, usize),
    Prefer(usize, u8),
}

pub fn action() -> impl Strategy<Value = Action> {
    let n = || 0usize..1000;
    prop_oneof![
        12 => n().prop_map(Action::Deliver),
        16 => (1usize..8).prop_map(Action::DeliverFirst),
        3 => n().prop_map(Action::Duplicate),
        3 => n().prop_map(Action::Drop),
        14 => (n(), 1usize..4).prop_map(|(at, count)| Action::Durable(at, count)),
        4 => n().prop_map(Action::Timer),
        3 => n().prop_map(Action::Campaign),
        8 => (n(), 1usize..4).prop_map(|(at, count)| Action::Propose(at, count)),
        2 => n().prop_map(Action::Claim),
        3 => n().prop_map(Action::Lapse),
        2 => (n(), 0usize..3).prop_map(|(at, kept)| Action::Crash(at, kept)),
        1 => (n(), n()).prop_map(|(at, place)| Action::Rot(at, place)),
        // A vote lost for good makes the rest of a schedule dull, so most schedules have none.
        1 => (n(), 0..20).prop_map(|(at, dice)| if dice == 0 { Action::RotVote(at) } else { Action::DeliverFirst(at % 8) }),
        1 => (n(), n()).prop_map(|(at, place)| Action::Scrub(at, place)),
        1 => (n(), n()).prop_map(|(at, place)| Action::Decay(at, place)),
        8 => n().prop_map(Action::Serve),
        1 => n().prop_map(Action::Lazy),
        1 => n().prop_map(Action::Shed),
        1 => n().prop_map(Action::Compact),
        1 => n().prop_map(Action::Postpone),
        1 => (n(), n()).prop_map(|(at, peer)| Action::PeerUp(at, peer)),
        1 => (n(), n()).prop_map(|(at, peer)| Action::PeerDown(at, peer)),
        2 => n().prop_map(Action::Isolate),
        1 => Just(Action::Heal),
        2 => Just(Action::Stabilize),
    ]
}

/// What happens to a group whose members change.
pub fn members_action() -> impl Strategy<Value = Action> {
    let n = || 0usize..1000;
    let changes = prop_oneof![
        4 => prop::collection::vec(change(), 1..2).prop_map(MembersChange::Simple),
        4 => (prop::collection::vec(change(), 1..5), any::<bool>())
            .prop_map(|(changes, auto_leave)| MembersChange::Joint { changes, auto_leave }),
        2 => Just(MembersChange::Leave),
    ];
    prop_oneof![
        20 => action(),
        2 => (n(), changes).prop_map(|(at, change)| Action::Change(at, change)),
        1 => (n(), n()).prop_map(|(at, to)| Action::Transfer(at, to)),
        1 => (n(), 0u8..10).prop_map(|(at, priority)| Action::Prefer(at, priority)),
    ]
}

/// Small limits, so that a short schedule reaches them.
pub fn config() -> Config {
    Config {
        append_entries_max: 2,
        inflight_messages_max: 3,
        inflight_bytes_max: 24,
        uncommitted_bytes_max: 64,
        ..Config::default()
    }
}

/// The same with windows of all sizes, and a cluster whose replicas start with more or less of them.
pub fn start(config: Config, count: u64, founders: u64, seed: u64) -> Cluster {
    let pick = |sizes: [usize; 3], by: u64| sizes[(seed / by % 3) as usize];
    let window_bytes_max = pick([1, 200, usize::MAX], 1);
    let config = Config { window_bytes_max, fetch_bytes_max: pick([1, 30, 1000], 3), ..config };
    let mut cluster = Cluster::with_spares(config, count, founders, seed, BTreeMap::new());
    cluster.restored_entries = pick([0, 3, usize::MAX], 9);
    cluster
}

pub fn perform(cluster: &mut Cluster, action: &Action) {
    let ids = cluster.ids();
    let pick = |at: usize| ids[at % ids.len()];
    let queued = cluster.queue.len();
    match *action {
        Action::Deliver(at) if queued > 0 => cluster.deliver(at % queued),
        Action::DeliverFirst(count) => (0..count.min(queued)).for_each(|_| cluster.deliver(0)),
        Action::Duplicate(at) if queued > 0 => {
            let copy = cluster.queue[at % queued].clone();
            cluster.queue.push(copy);
        }
        Action::Drop(at) if queued > 0 => drop(cluster.queue.remove(at % queued)),
        Action::Deliver(_) | Action::Duplicate(_) | Action::Drop(_) => {}
        Action::Durable(at, count) => {
            if cluster.nodes[&pick(at)].raft.is_some() {
                cluster.durable(pick(at), count);
            }
        }
        Action::Timer(at) => fire(cluster, pick(at)),
        Action::Campaign(at) => {
            ids.iter().for_each(|&id| cluster.step(id, Event::Lapsed));
            cluster.step(pick(at), Event::Campaign);
        }
        Action::Propose(at, count) => propose(cluster, at, count),
        Action::Claim(at) => claim(cluster, at),
        Action::Lapse(at) => cluster.step(pick(at), Event::Lapsed),
        Action::Crash(at, kept) => {
            cluster.crash(pick(at), kept);
            cluster.start(pick(at));
        }
        Action::Rot(at, place) => rot(cluster, pick(at), place, Found::AtStart),
        Action::Scrub(at, place) => rot(cluster, pick(at), place, Found::Scrubbing),
        Action::Decay(at, place) => rot(cluster, pick(at), place, Found::Later),
        Action::Serve(at) => {
            let waiting: Vec<Reader> = cluster.nodes[&pick(at)].fetches.keys().copied().collect();
            if !waiting.is_empty() {
                cluster.serve(pick(at), waiting[at / 7 % waiting.len()]);
            }
        }
        Action::Lazy(at) => {
            let lazy = &mut cluster.node(pick(at)).lazy;
            *lazy = !*lazy;
        }
        Action::Shed(at) => cluster.step(pick(at), Event::Shed),
        Action::Compact(at) => compact(cluster, pick(at)),
        Action::RotVote(at) => {
            let id = pick(at);
            if cluster.merciless || cluster.may_damage(id) {
                cluster.crash(id, 0);
                cluster.node(id).disk.rot_vote();
                cluster.start(id);
            }
        }
        Action::Postpone(at) => cluster.step(pick(at), Event::Postpone),
        Action::PeerUp(at, peer) => cluster.step(pick(at), Event::PeerUp(pick(peer))),
        Action::PeerDown(at, peer) => cluster.step(pick(at), Event::PeerDown(pick(peer))),
        Action::Isolate(at) => isolate(cluster, pick(at)),
        Action::Heal => cluster.cut.clear(),
        Action::Stabilize => cluster.stabilize(),
        Action::Change(at, ref change) => change_members(cluster, at, change),
        Action::Transfer(at, to) => {
            let leaders = cluster.leaders();
            let leader = leaders.get(at % leaders.len().max(1)).copied();
            if let Some(leader) = leader.filter(|leader| cluster.raft(*leader).admit_transfer(pick(to)).is_ok()) {
                cluster.step(leader, Event::Transfer(pick(to)));
            }
        }
        Action::Prefer(at, priority) => cluster.step(pick(at), Event::Prefer(Priority(priority))),
    }
}

/// Who comes upon a rotten payload.
enum Found {
    AtStart,
    Scrubbing,
    Later,
}

/// A payload of a replica rots. What others have given up could not be given back, so it stays.
fn rot(cluster: &mut Cluster, id: ReplicaId, place: usize, found: Found) {
    let entries = cluster.nodes[&id].disk.entries.len();
    let compacted = cluster.nodes.values().map(|node| node.written.compacted.index).max().unwrap_or_default();
    if entries == 0 || !(cluster.merciless || cluster.may_damage(id)) {
        return;
    }
    // A no-op has no payload that could rot.
    let index = Index(1 + (place % entries) as u64);
    let disk = &mut cluster.node(id).disk;
    if disk.entries[place % entries].payload.is_empty() || index <= compacted {
        return;
    }
    let is_news = disk.lost.insert(index);
    match found {
        Found::AtStart => {
            cluster.crash(id, 0);
            cluster.start(id);
        }
        Found::Scrubbing => {
            disk.unseen.remove(&index);
            cluster.step(id, Event::Lost(vec![index]));
        }
        Found::Later if is_news => drop(disk.unseen.insert(index)),
        Found::Later => {}
    }
}

/// Gives up as much of a log as nobody will ask for.
fn compact(cluster: &mut Cluster, id: ReplicaId) {
    let Some(raft) = &cluster.nodes[&id].raft else { return };
    let is_everywhere = |index: &u64| {
        let place = *index as usize - 1;
        let own = cluster.nodes[&id].disk.entries.get(place);
        let has = |disk: &Disk| disk.entries.get(place) == own && disk.lost.first().is_none_or(|lost| lost.0 > *index);
        own.is_some() && cluster.nodes.values().all(|node| has(&node.disk))
    };
    let to = (1..=raft.applied().0.min(raft.durable().0)).rev().find(is_everywhere);
    if let Some(to) = to {
        cluster.step(id, Event::Compact(Index(to)));
    }
}

/// Cuts one replica off from all others, and only that one.
fn isolate(cluster: &mut Cluster, id: ReplicaId) {
    let others = cluster.ids().into_iter().filter(|&other| other != id);
    cluster.cut = others.flat_map(|other| [(id, other), (other, id)]).collect();
}

/// Lets a replica's deadline come, as if its clock ran ahead of the others.
fn fire(cluster: &mut Cluster, id: ReplicaId) {
    if let Some(deadline) = cluster.raft(id).deadline() {
        cluster.now = cluster.now.max(deadline);
        cluster.step(id, Event::Timer);
    }
}

fn propose(cluster: &mut Cluster, at: usize, count: usize) {
    let leaders = cluster.leaders();
    if leaders.is_empty() {
        return;
    }
    let leader = leaders[at % leaders.len()];
    let payloads: Vec<Bytes> = (0..count).map(|place| Bytes::from(format!("{leader} {at} {place}"))).collect();
    if cluster.raft(leader).admit(payloads.iter().map(Bytes::len).sum()).is_ok() {
        cluster.step(leader, Event::Propose(payloads));
    }
}

/// Asks for a change. Replicas that are not there are left out.
fn change_members(cluster: &mut Cluster, at: usize, change: &MembersChange) {
    let leaders = cluster.leaders();
    let Some(leader) = leaders.get(at % leaders.len().max(1)).copied() else { return };
    let exists = |change: &Change| cluster.nodes.contains_key(&change.replica());
    let mut change = change.clone();
    if let MembersChange::Simple(changes) | MembersChange::Joint { changes, .. } = &mut change {
        changes.retain(exists);
    }
    if cluster.raft(leader).admit_change(&change).is_ok() {
        cluster.step(leader, Event::Change(change));
    }
}

/// What a group leaves undone that is at peace: a joint configuration that nobody leaves, and replicas that wake up
/// although they are no members any more.
fn tidy_up(cluster: &mut Cluster) {
    let Some(leader) = cluster.leaders().into_iter().max_by_key(|leader| cluster.raft(*leader).term()) else { return };
    if cluster.raft(leader).admit_change(&MembersChange::Leave).is_ok() {
        cluster.step(leader, Event::Change(MembersChange::Leave));
    }
    let raft = cluster.raft(leader);
    let settled = raft.role() == Role::Leader && raft.read_index() == Some(raft.last().index);
    let configuration = raft.configuration().clone();
    // One that was removed while it led has its timer until it has left.
    let leads = |id: &ReplicaId| cluster.raft(*id).role() == Role::Leader;
    let idle = |id: &ReplicaId| settled && !leads(id) && configuration.standing(*id).is_none();
    cluster.dormant = cluster.ids().into_iter().filter(idle).collect();
}

/// One leader's beacon reaches everybody.
fn claim(cluster: &mut Cluster, at: usize) {
    let leaders = cluster.leaders();
    if leaders.is_empty() {
        return;
    }
    let leader = leaders[at % leaders.len()];
    let (term, last, commit) = {
        let raft = cluster.raft(leader);
        (raft.term(), raft.last(), raft.committed())
    };
    for id in cluster.ids().into_iter().filter(|&id| id != leader) {
        let listed = Event::Listed { leader, term, last, commit };
        cluster.step(id, if at.is_multiple_of(2) { listed } else { Event::Claimed { leader, term } });
    }
}

/// The storm is over: nothing is lost any more, and beacons tell the truth. Returns how many timers it took.
pub fn calm_down(cluster: &mut Cluster) -> usize {
    cluster.cut.clear();
    for id in cluster.ids() {
        cluster.node(id).lazy = false;
        cluster.apply(id, Index(u64::MAX));
        // A scrubber reads everything sooner or later.
        let unseen = std::mem::take(&mut cluster.node(id).disk.unseen);
        cluster.step(id, Event::Lost(unseen.into_iter().collect()));
    }
    // A beacon of a new incarnation tells every leader that its peers may have forgotten the commit index.
    for leader in cluster.leaders() {
        for peer in cluster.ids() {
            cluster.step(leader, Event::PeerRestarted(peer));
        }
    }
    for round in 0..200 {
        cluster.stabilize();
        tidy_up(cluster);
        for at in 0..cluster.leaders().len() {
            claim(cluster, at);
        }
        let leaders = cluster.leaders();
        for id in cluster.ids() {
            if cluster.raft(id).role() == Role::Follower
                && cluster.raft(id).leader().is_none_or(|it| !leaders.contains(&it))
            {
                cluster.step(id, Event::Lapsed);
            }
        }
        cluster.stabilize();
        if round < 195 {
            cluster.trace.clear();
        }
        if !cluster.fire_next(Time(u64::MAX)) {
            return round;
        }
    }
    let standing = |raft: &Raft| format!("{} {} {:?} {}", raft.me(), raft.role(), raft.leader(), raft.configuration());
    let standings: Vec<String> = cluster.running().map(standing).collect();
    panic!("the cluster does not fall asleep:\n{}\n{}", standings.join("\n"), cluster.trace);
}

pub fn check_agreement(cluster: &Cluster) {
    let leaders = cluster.leaders();
    assert_eq!(leaders.len(), 1, "one replica leads after the storm");
    let leader = cluster.raft(leaders[0]);
    assert_eq!(leader.read_index(), Some(leader.last().index), "the leader has committed its whole log");
    let members = leader.configuration();
    assert!(members.is_voter(leader.me()), "the leader is a voter");
    assert_eq!(members.phase(), Phase::Simple, "no change is left half done");
    for raft in cluster.running().filter(|raft| members.standing(raft.me()).is_some()) {
        assert_eq!(raft.configuration(), members, "{} knows the members", raft.me());
        assert_eq!((raft.leader(), raft.term()), (Some(leader.me()), leader.term()), "all follow the leader");
        assert_eq!((raft.last(), raft.committed()), (leader.last(), leader.committed()), "all have its log and commit");
        assert_eq!(raft.deadline(), None, "{} sleeps", raft.me());
        assert_eq!(raft.applied(), leader.committed(), "{} has applied all of it", raft.me());
        let held = raft.entries(raft.first_held(), Index(u64::MAX)).count();
        let is_small = raft.window_bytes() <= cluster.config.window_bytes_max;
        assert!(is_small && (cluster.config.window_bytes_max > 1 || held == 0), "{}'s window is small", raft.me());
        assert_eq!(raft.missing().count(), 0, "{} has all its payloads again", raft.me());
        assert_eq!(raft.durable(), leader.last().index, "{} has the log on its disk", raft.me());
    }
    assert_eq!(cluster.checker.committed() as u64, leader.committed().0, "nothing committed is missing");
}

fn survive(count: u64, founders: u64, seed: u64, actions: &[Action]) {
    let mut cluster = start(config(), count, founders, seed);
    cluster.step(ReplicaId(1), Event::Campaign);
    for action in actions {
        perform(&mut cluster, action);
        cluster.trace.clear();
    }
    calm_down(&mut cluster);
    check_agreement(&cluster);
    // The group still works: one more entry reaches everybody, and it falls asleep again.
    let before = cluster.checker.committed();
    propose(&mut cluster, 0, 1);
    calm_down(&mut cluster);
    check_agreement(&cluster);
    assert!(cluster.checker.committed() > before, "the group goes on after the storm");
}

/// A storm that never reaches the rare paths would prove little. The schedules come from a fixed seed.
#[test]
fn the_schedules_reach_the_rare_paths() {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(action(), 200..400);
    let mut trace = String::new();
    for seed in 0..400 {
        let actions = strategy.new_tree(&mut runner).expect("a schedule").current();
        let mut cluster = start(config(), 3, 3, seed);
        actions.iter().for_each(|action| perform(&mut cluster, action));
        trace += &cluster.trace;
    }
    let rare = [
        ("is leader", 60),
        ("truncate=", 5),
        ("AppendRefused", 60),
        ("VoteResponse term=", 100),
        ("granted", 100),
        ("refused", 100),
        ("committed", 500),
        ("restored=", 20),
        ("for its machine", 50),
        ("applies [", 50),
        (" for r", 50),
        ("is rotten", 3),
        ("compact=", 20),
    ];
    for (mark, least) in rare {
        let count = trace.matches(mark).count();
        assert!(count >= least, "{mark} occurs {count} times only");
    }
}

/// Small numbers meet what a replica holds; the largest ones find what overflows.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![400 => 0u64..8, 10 => (0u64..3).prop_map(|below| u64::MAX - below), 1 => Just(TERM_MAX.0)]
}

fn log_id() -> impl Strategy<Value = LogId> {
    (number(), number()).prop_map(|(index, term)| LogId::new(Index(index), Term(term)))
}

/// Entries after `previous`, sometimes with a gap, of terms that may fall.
fn append() -> impl Strategy<Value = Body> {
    (log_id(), prop::collection::vec((number(), 0u64..20), 0..4), number()).prop_map(|(previous, terms, commit)| {
        let entry = |(place, (term, gap)): (usize, (u64, u64))| {
            let index = previous.index.0.wrapping_add(1 + place as u64 + u64::from(gap == 0));
            Entry::command(LogId::new(Index(index), Term(term.max(previous.term.0))), Bytes::from_static(b"x"))
        };
        Body::Append { previous, entries: terms.into_iter().enumerate().map(entry).collect(), commit: Index(commit) }
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        1 => log_id().prop_map(|last| Body::PreVote { last }),
        3 => any::<bool>().prop_map(|granted| Body::PreVoteResponse { granted }),
        1 => (log_id(), prop::option::of((2u64..4, number()))).prop_map(|(last, permit)| {
            let permit = permit.map(|(leader, term)| Permit { leader: ReplicaId(leader), term: Term(term) });
            Body::Vote { last, permit }
        }),
        1 => Just(Body::TimeoutNow),
        3 => any::<bool>().prop_map(|granted| Body::VoteResponse { granted }),
        5 => append(),
        3 => number().prop_map(|matched| Body::AppendResponse { matched: Index(matched) }),
        2 => (number(), log_id()).prop_map(|(refused, hint)| Body::AppendRefused { refused: Index(refused), hint }),
    ]
}

/// Whatever two wrong peers may say to replica 1, at the terms it knows (`near`) or at any other.
fn wrong_event() -> impl Strategy<Value = (bool, Event)> {
    let peer = || (2u64..=3).prop_map(ReplicaId);
    let message = (peer(), number(), body());
    let message = message.prop_map(|(from, term, body)| Message { from, to: ReplicaId(1), term: Term(term), body });
    prop_oneof![
        12 => (any::<bool>(), message).prop_map(|(near, message)| (near, Event::Receive(message))),
        2 => (any::<bool>(), peer(), number())
            .prop_map(|(near, leader, term)| (near, Event::Claimed { leader, term: Term(term) })),
        2 => (any::<bool>(), peer(), number(), log_id(), number()).prop_map(|(near, leader, term, last, commit)| {
            (near, Event::Listed { leader, term: Term(term), last, commit: Index(commit) })
        }),
        1 => Just((false, Event::Campaign)),
        1 => Just((false, Event::Lapsed)),
        1 => Just((false, Event::Timer)),
        2 => Just((false, Event::Propose(vec![Bytes::from_static(b"p")]))),
        3 => (1u64..4).prop_map(|count| (false, Event::Durable(WriteNumber(count)))),
    ]
}

/// Makes a message one of the current term or the next, and an Append one that begins in the log.
fn bring_near(raft: &Raft, message: &mut Message) {
    message.term = Term(raft.term().0 + u64::from(message.term.0 == 0));
    if let Body::Append { previous, entries, .. } = &mut message.body {
        let index = Index(previous.index.0 % (raft.last().index.0 + 1));
        *previous = LogId::new(index, raft.term_at(index).expect("the index is in the log"));
        for (place, entry) in entries.iter_mut().enumerate() {
            let oldest = raft.term().0.saturating_sub(entry.id.term.0 % 2).max(previous.term.0);
            entry.id = LogId::new(Index(index.0 + 1 + place as u64), Term(oldest));
        }
    }
}

/// One replica whose disk is honest and whose peers are not. It checks its own invariants after every step.
fn hear(events: &[(bool, Event)]) -> Vec<Law> {
    let members = Configuration::of_voters((1..=3).map(member)).expect("three voters");
    let restored = Restored { members, ..Restored::default() };
    let mut raft = Raft::new(config(), ReplicaId(1), restored, 1, Time(0));
    let (mut effects, mut laws) = (Vec::new(), Vec::new());
    let (mut now, mut written, mut durable) = (Time(0), 0, 0);
    for (near, event) in events {
        let mut event = event.clone();
        match &mut event {
            Event::Receive(message) if *near => bring_near(&raft, message),
            Event::Claimed { term, .. } | Event::Listed { term, .. } if *near => *term = raft.term(),
            Event::Durable(number) => {
                durable = written.min(durable + number.0);
                *number = WriteNumber(durable);
            }
            Event::Timer => now = raft.deadline().map_or(now, |deadline| now.max(deadline)),
            Event::Propose(_) if raft.admit(1).is_err() => continue,
            _ => {}
        }
        let before = format!("{raft:?}");
        raft.step(now, event, &mut effects);
        raft.check();
        for effect in effects.drain(..) {
            match effect {
                Effect::Append(write) => written = write.number.0,
                Effect::Refused { law, .. } => {
                    assert_eq!(before, format!("{raft:?}"), "what is refused changes nothing");
                    laws.push(law);
                }
                _ => {}
            }
        }
    }
    laws
}

/// Peers that never reach a law would prove nothing about it.
#[test]
fn wrong_peers_reach_every_law() {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(wrong_event(), 100..200);
    let mut laws = BTreeMap::new();
    for _ in 0..1000 {
        for law in hear(&strategy.new_tree(&mut runner).expect("a schedule").current()) {
            *laws.entry(law).or_insert(0) += 1;
        }
    }
    let all = [Law::ElectionSafety, Law::LeaderCompleteness, Law::LogMatching, Law::TermLimit, Law::WellFormed];
    assert!(all.iter().all(|law| laws.get(law).is_some_and(|&count| count >= 20)), "{laws:?}");
}

/// It is told of its own removal after it has begun to hand over, and leads until its time to leave has come.
#[test]
fn a_removed_leader_that_hands_over_leaves() {
    let joins = Change::Voter(member(5));
    let actions = [
        Action::Stabilize,
        Action::Change(0, MembersChange::Simple(vec![joins])),
        Action::Stabilize,
        Action::Change(0, MembersChange::Simple(vec![Change::Remove(ReplicaId(1))])),
        Action::Propose(0, 2),
        Action::Transfer(0, 574),
    ];
    survive(6, 1, 0, &actions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_replicas_survive_any_schedule(
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..400),
    ) {
        survive(3, 3, seed, &actions);
    }

    #[test]
    fn five_replicas_survive_any_schedule(
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..400),
    ) {
        survive(5, 5, seed, &actions);
    }

    #[test]
    fn one_or_two_replicas_survive_any_schedule(
        count in 1u64..=2,
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..150),
    ) {
        survive(count, count, seed, &actions);
    }

    #[test]
    fn groups_survive_any_change_of_their_members(
        founders in 1u64..=4,
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(members_action(), 1..400),
    ) {
        survive(6, founders, seed, &actions);
    }

    /// The same with disks that rot: nothing false is said or committed.
    #[test]
    fn any_rot_is_safe_while_members_change(
        founders in 1u64..=4,
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(members_action(), 1..300),
    ) {
        let mut cluster = start(config(), 6, founders, seed);
        cluster.merciless = true;
        cluster.step(ReplicaId(1), Event::Campaign);
        for action in &actions {
            perform(&mut cluster, action);
            cluster.trace.clear();
        }
    }

    /// Whatever rots, on however many disks: the group may stop for good, and nothing false is said or committed.
    #[test]
    fn any_rot_is_safe(
        count in 1u64..=5,
        seed in 0u64..1_000_000,
        actions in prop::collection::vec(action(), 1..300),
    ) {
        let mut cluster = start(config(), count, count, seed);
        cluster.merciless = true;
        cluster.step(ReplicaId(1), Event::Campaign);
        for action in &actions {
            perform(&mut cluster, action);
            cluster.trace.clear();
        }
    }

    #[test]
    fn nothing_that_a_peer_says_stops_a_replica(events in prop::collection::vec(wrong_event(), 1..200)) {
        hear(&events);
    }

    /// The same events give the same bytes: there is no hidden input.
    #[test]
    fn a_schedule_prints_the_same_trace_twice(
        seed in 0u64..1_000_000,
        spans in prop::collection::vec(1u64..900, 1..10),
    ) {
        let trace = || {
            let mut cluster = Cluster::new(config(), 3, seed, BTreeMap::new());
            for (at, span) in spans.iter().enumerate() {
                cluster.advance(Duration::from_millis(*span), at % 2 == 0);
                if let Some(&leader) = cluster.leaders().first() {
                    cluster.step(leader, Event::Propose(vec![Bytes::from_static(b"a")]));
                }
            }
            cluster.trace
        };
        let first = trace();
        prop_assert_eq!(first, trace());
    }
}
