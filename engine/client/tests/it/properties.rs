//! Under any order of replies, refusals, losses and time: each ticket ends exactly once, a write that may have been carried
//! out keeps its id and does not end with a refusal, and success is reported only when it was said.

use std::collections::BTreeMap;

use pontoon_client::{ClientError, Ticket};
use pontoon_types::{NodeId, RequestId, SessionTime};
use pontoon_wire::client::{Operation, Outcome, Refusal};
use pontoon_wire::command::Command;
use proptest::prelude::*;

use crate::harness::{Harness, descriptor, get, not_leader, put, written};

#[derive(Clone, Debug)]
enum Action {
    Put(u8),
    Get(u8),
    Up(u64),
    Down(u64),
    /// Answers the attempt at this place, perhaps one that is over, in this way.
    Reply(prop::sample::Index, u8),
    Pass(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u8..4).prop_map(Action::Put),
        3 => (0u8..4).prop_map(Action::Get),
        3 => (1u64..4).prop_map(Action::Up),
        1 => (1u64..4).prop_map(Action::Down),
        8 => (any::<prop::sample::Index>(), 0u8..9).prop_map(|(which, how)| Action::Reply(which, how)),
        2 => (1u64..150).prop_map(Action::Pass),
    ]
}

fn answer(operation: &Operation, how: u8) -> Result<Outcome, Refusal> {
    match how {
        0 => not_leader(None),
        1 => not_leader(Some(2)),
        2 => not_leader(Some(3)),
        3 => Err(Refusal::Busy { retry_after_ms: 5 }),
        4 => {
            let descriptor = descriptor(2, "", Some("m"), 1 + u64::from(how));
            Err(Refusal::StaleDescriptor { descriptor, leader: Some(NodeId(1)) })
        }
        5 => Err(Refusal::Unknown),
        6 => Err(Refusal::Forgotten { now: SessionTime(9) }),
        _ => match operation {
            Operation::Write { .. } => written(),
            _ => Ok(Outcome::Value(None)),
        },
    }
}

fn id_of(operation: &Operation) -> Option<(RequestId, u64)> {
    let Operation::Write { command, .. } = operation else { return None };
    let Command { id, floor, .. } = Command::decode(command.clone()).unwrap();
    Some((id, floor))
}

fn ticket_of(operation: &Operation) -> Option<Ticket> {
    id_of(operation).map(|(id, _)| Ticket(id.sequence))
}

/// What became of the newest attempt of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Refused,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_ticket_ends_once_and_no_write_is_named_twice(actions in prop::collection::vec(action(), 1..120)) {
        let mut h = Harness::new();
        let keys = ["a", "b", "x", "y"];
        let mut submitted = Vec::new();
        let mut fates: BTreeMap<Ticket, Fate> = BTreeMap::new();
        let mut uncertain: BTreeMap<Ticket, RequestId> = BTreeMap::new();
        let mut seen = 0;
        for action in actions {
            let done_before = h.done.len();
            match action {
                Action::Put(key) => submitted.push(h.submit(put(keys[usize::from(key)]))),
                Action::Get(key) => submitted.push(h.submit(get(keys[usize::from(key)]))),
                Action::Up(node) => h.up(node),
                Action::Down(node) => h.down(node),
                Action::Pass(milliseconds) => h.pass(milliseconds),
                Action::Reply(which, how) if !h.sent.is_empty() => {
                    let place = which.index(h.sent.len());
                    let operation = h.sent[place].2.clone();
                    let is_newest = h.sent.iter().rposition(|sent| ticket_of(&sent.2) == ticket_of(&operation)) == Some(place);
                    if let Some(ticket) = ticket_of(&operation).filter(|_| is_newest && (how <= 4 || how == 6)) {
                        fates.insert(ticket, Fate::Refused);
                    }
                    h.reply(place + 1, answer(&operation, how));
                    if let (Some(ticket), true) = (ticket_of(&operation), h.done.len() > done_before) {
                        let completion = &h.done[done_before];
                        prop_assert_eq!(completion.ticket, ticket);
                        prop_assert_eq!(completion.result.is_ok(), how > 6, "success is reported when it was said");
                    }
                }
                Action::Reply(..) => {}
            }
            let ended: Vec<Ticket> = h.done[..done_before].iter().map(|completion| completion.ticket).collect();
            for (place, (_, _, operation)) in h.sent.iter().enumerate().skip(seen) {
                let Some((id, floor)) = id_of(operation) else { continue };
                let ticket = Ticket(id.sequence);
                if fates.insert(ticket, Fate::Open) == Some(Fate::Open) {
                    let earlier = h.sent[..place].iter().rev().filter_map(|sent| id_of(&sent.2));
                    let earlier = earlier.map(|(id, _)| id).find(|earlier| earlier.sequence == id.sequence).unwrap();
                    uncertain.entry(ticket).or_insert(earlier);
                }
                prop_assert!(uncertain.get(&ticket).is_none_or(|first| *first == id), "{id:?} twice\n{}", h.trace);
                prop_assert!(!ended.contains(&ticket), "a write left after its end\n{}", h.trace);
                let waits = |ticket: &&Ticket| h.done.iter().all(|completion| completion.ticket != **ticket);
                let lowest = submitted.iter().find(waits).copied().unwrap_or(ticket);
                prop_assert!(floor <= lowest.0.min(ticket.0), "the floor {floor} is above {lowest:?}\n{}", h.trace);
            }
            seen = h.sent.len();
        }
        h.pass(500);
        let answers = h.answers();
        for ticket in submitted {
            prop_assert_eq!(answers.get(&ticket), Some(&1), "ticket {:?}\n{}", ticket, h.trace);
        }
        prop_assert_eq!(h.session.inflight(), 0);
        for completion in &h.done {
            if let Err(error) = &completion.result {
                // A write with an attempt that is open must not be called definitely failed.
                let open = fates.get(&completion.ticket) == Some(&Fate::Open);
                let open = open || uncertain.contains_key(&completion.ticket);
                prop_assert!(!open || matches!(error, ClientError::Unknown), "{error}\n{}", h.trace);
            }
        }
    }
}
