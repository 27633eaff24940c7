//! What a group remembers of its clients, against a memory without limits.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_multiraft::sessions::{Seen, SessionLimits, Sessions, SessionsBuilder, SessionsError};
use pontoon_types::{RequestId, SessionTime};
use pontoon_wire::client::OperationOutcome;
use proptest::prelude::*;

use crate::cluster::request;

const LIMITS: SessionLimits =
    SessionLimits { sessions_max: 3, outcomes_max: 4, outcome_bytes_max: 300, bytes_max: 1_000 };

/// What comes into the log next.
#[derive(Clone, Debug)]
enum Entry {
    /// A request that was never sent before, of this client. `lag` is how far its floor lies behind.
    New { client: u128, lag: u64, outcome: OperationOutcome },
    /// Once more the bytes of an earlier entry.
    Again { which: prop::sample::Index },
    /// A client hears what time it is, and opens its next session then.
    Open { client: u128 },
}

fn outcome() -> impl Strategy<Value = OperationOutcome> {
    let current = prop::option::of((0..400_usize).prop_map(|bytes| Bytes::from(vec![7; bytes])));
    prop_oneof![
        3 => Just(OperationOutcome::Put),
        1 => any::<bool>().prop_map(|existed| OperationOutcome::Deleted { existed }),
        1 => (any::<bool>(), current).prop_map(|(succeeded, current)| OperationOutcome::Swapped { succeeded, current }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (0..5_u128, 0..6_u64, outcome()).prop_map(|(client, lag, outcome)| Entry::New { client, lag, outcome }),
        4 => any::<prop::sample::Index>().prop_map(|which| Entry::Again { which }),
        1 => (0..5_u128).prop_map(|client| Entry::Open { client }),
    ]
}

fn through_pieces(sessions: &Sessions, limits: SessionLimits) -> Sessions {
    let mut builder = SessionsBuilder::new(limits);
    sessions.pieces().for_each(|piece| builder.take(Bytes::from(piece)).unwrap());
    builder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// No request is ever called new after it was executed, and what is remembered is what it came to.
    #[test]
    fn nothing_is_executed_twice(entries in prop::collection::vec(entry(), 1..120)) {
        let mut sessions = Sessions::new(LIMITS);
        let mut executed: BTreeMap<RequestId, OperationOutcome> = BTreeMap::new();
        let mut sent: Vec<(RequestId, u64)> = Vec::new();
        let (mut opened, mut next) = ([SessionTime(0); 5], [0_u64; 5]);
        for entry in entries {
            let (id, floor, outcome) = match entry {
                Entry::Open { client } => {
                    opened[client as usize] = sessions.now();
                    continue;
                }
                Entry::New { client, lag, outcome } => {
                    next[client as usize] += 1;
                    let id = request(client, opened[client as usize].0, next[client as usize]);
                    sent.push((id, id.sequence.saturating_sub(lag)));
                    (id, id.sequence.saturating_sub(lag), outcome)
                }
                Entry::Again { which } if !sent.is_empty() => {
                    let (id, floor) = sent[which.index(sent.len())];
                    (id, floor, OperationOutcome::Put)
                }
                Entry::Again { .. } => continue,
            };
            match sessions.seen(id) {
                Seen::Never => {
                    prop_assert!(executed.insert(id, outcome.clone()).is_none(), "{id:?} is executed twice");
                    sessions.executed(id, floor, &[outcome]);
                }
                Seen::Applied(outcomes) => {
                    prop_assert_eq!(Some(&outcomes[0]), executed.get(&id));
                    sessions.used(id, floor);
                }
                Seen::AppliedUnkept => prop_assert!(executed.contains_key(&id)),
                Seen::Forgotten => {}
            }
            sessions.check();
            prop_assert!(sessions.len() <= LIMITS.sessions_max && sessions.bytes() <= LIMITS.bytes_max);
        }
        let copy = through_pieces(&sessions, LIMITS);
        copy.check();
        prop_assert_eq!(format!("{copy:?}"), format!("{sessions:?}"));
    }

    /// Whatever bytes come as a piece: an error at worst.
    #[test]
    fn any_bytes_are_no_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
        if let Some(first) = bytes.first_mut().filter(|_| version) {
            *first = 1;
        }
        let mut builder = SessionsBuilder::new(LIMITS);
        let _ = builder.take(Bytes::from(bytes)).and_then(|()| builder.finish().map(drop));
    }
}

#[test]
fn many_outcomes_make_many_pieces_of_bounded_size() {
    let limits = SessionLimits::default();
    let mut sessions = Sessions::new(limits);
    for sequence in 0..10_000 {
        sessions.executed(request(1, 0, sequence), 0, &[OperationOutcome::Put]);
    }
    for client in 2..500 {
        let current = Some(Bytes::from(vec![client as u8; 1_000]));
        sessions.executed(request(client, 0, 1), 0, &[OperationOutcome::Swapped { succeeded: false, current }]);
    }
    let pieces: Vec<Vec<u8>> = sessions.pieces().collect();
    assert!(pieces.len() > 8 && pieces.iter().all(|piece| piece.len() < (64 << 10) + 2_000), "{} pieces", pieces.len());
    let copy = through_pieces(&sessions, limits);
    assert_eq!((copy.digest(), format!("{copy:?}")), (sessions.digest(), format!("{sessions:?}")));

    let mut mixed = SessionsBuilder::new(limits);
    mixed.take(Bytes::from(pieces[0].clone())).unwrap();
    sessions.executed(request(1, 0, 10_000), 0, &[OperationOutcome::Put]);
    let (later, _) = sessions.piece(Default::default());
    assert_eq!(mixed.take(Bytes::from(later)), Err(SessionsError::Order), "a piece of another moment");
    let mut twice = SessionsBuilder::new(limits);
    twice.take(Bytes::from(pieces[0].clone())).unwrap();
    assert_eq!(twice.take(Bytes::from(pieces[0].clone())), Err(SessionsError::Order), "the same piece again");
    assert_eq!(SessionsBuilder::new(limits).finish().unwrap_err(), SessionsError::Truncated);
}

#[test]
fn a_put_is_kept_without_bytes_of_its_own() {
    let mut sessions = Sessions::new(SessionLimits::default());
    for sequence in 0..100_000_u64 {
        sessions.executed(request(1, 0, sequence), sequence.saturating_sub(64), &[OperationOutcome::Put]);
    }
    assert_eq!(sessions.bytes(), 65 * 32, "what the client has heard of is forgotten");
}
