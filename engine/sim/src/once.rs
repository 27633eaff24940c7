//! What a group's log means: the machine, and each request at most once (law 24).
//!
//! The model applies the committed entries of a group one by one, as no replica does: it remembers every request for ever.
//! It asks the real sessions what a group knows of a request, and whatever they say is held against that memory. What a
//! replica has applied must then be what the model has, and what clients hear is what the model saw first.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_multiraft::sessions::{Seen, SessionLimits, Sessions};
use pontoon_multiraft::{Kv, state_digest};
use pontoon_types::{ClientId, Entry, EntryKind, GroupId, Index, KeyRange};
use pontoon_wire::client::OperationOutcome;
use pontoon_wire::command::Command;

use crate::replica_log::ReplicaLog;
use crate::violation::Broken;

/// One request that was carried out.
#[derive(Clone, Debug)]
struct Execution {
    at: Index,
    outcomes: Vec<OperationOutcome>,
}

/// One group.
#[derive(Debug)]
pub struct Once {
    group: GroupId,
    range: KeyRange,
    machine: Kv,
    sessions: Sessions,
    applied: Index,
    /// By client and sequence: whatever the session, a client gives a sequence to one request only.
    executed: BTreeMap<(ClientId, u64), Execution>,
    /// Clients may have heard of moments that are not known here, because the group began anew without the last of a life.
    may_miss: bool,
    /// Entries that were not executed because their request had been.
    pub repeated: u64,
    /// Entries that were not executed because their session or sequence was forgotten.
    pub forgotten: u64,
}

impl Once {
    /// A group without entries.
    pub fn new(group: GroupId, range: KeyRange, limits: SessionLimits) -> Once {
        Once {
            group,
            range,
            machine: Kv::default(),
            sessions: Sessions::new(limits),
            applied: Index(0),
            executed: BTreeMap::new(),
            may_miss: false,
            repeated: 0,
            forgotten: 0,
        }
    }

    /// The group begins anew, and may miss the last of its life before.
    pub fn begins_anew(&mut self) {
        self.may_miss = true;
    }

    /// Applies what is committed in a log up to `through`, as far as the log still holds it.
    pub fn apply(&mut self, log: &ReplicaLog, through: Index) -> Result<(), Broken> {
        while self.applied < through {
            let Some(entry) = log.get(self.applied.next()) else { return Ok(()) };
            self.apply_next(entry)?;
        }
        Ok(())
    }

    /// Applies the entry behind those that were applied.
    pub fn apply_next(&mut self, entry: &Entry) -> Result<(), Broken> {
        self.applied = entry.id.index;
        self.apply_entry(entry)
    }

    /// What a key has.
    pub fn value(&self, key: &[u8]) -> Option<Bytes> {
        self.machine.get(key)
    }

    /// The digest of the state at `applied`, if the model has come just so far.
    pub fn digest_at(&self, applied: Index) -> Option<u64> {
        (self.applied == applied).then(|| state_digest(&self.machine, &self.sessions))
    }

    /// Where a request was carried out.
    pub fn executed_at(&self, client: ClientId, sequence: u64) -> Option<Index> {
        self.executed.get(&(client, sequence)).map(|execution| execution.at)
    }

    /// What a request came to.
    pub fn outcomes(&self, client: ClientId, sequence: u64) -> Option<&[OperationOutcome]> {
        self.executed.get(&(client, sequence)).map(|execution| execution.outcomes.as_slice())
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), Broken> {
        if entry.kind != EntryKind::Command || entry.payload.is_empty() {
            return Ok(());
        }
        let Ok(Command { id, floor, operations }) = Command::decode(entry.payload.clone()) else { return Ok(()) };
        let (client, sequence) = (id.session.client, id.sequence);
        let known = self.executed.get(&(client, sequence));
        let first = known.map(|execution| execution.at);
        let wrong = |what: &str| Broken::WrongMemory { group: self.group, client, sequence, what: what.to_string() };
        match self.sessions.seen(id) {
            _ if id.session.opened > self.sessions.now() && self.may_miss => {
                // It was opened in what is missing, and is as one that is forgotten.
                self.forgotten += 1;
                return Ok(());
            }
            _ if id.session.opened > self.sessions.now() => return Err(wrong("opens a session in the future")),
            Seen::Never => {}
            Seen::Applied(outcomes) if known.is_some_and(|execution| execution.outcomes == outcomes) => {
                self.repeated += 1;
                self.sessions.used(id, floor);
                return Ok(());
            }
            Seen::Applied(_) => return Err(wrong("is remembered with an outcome that it did not have")),
            Seen::AppliedUnkept if known.is_none() => return Err(wrong("is remembered and was not carried out")),
            Seen::AppliedUnkept | Seen::Forgotten => {
                self.forgotten += 1;
                return Ok(());
            }
        }
        if let Some(first) = first {
            let second = entry.id.index;
            return Err(Broken::ExecutedTwice { group: self.group, client, sequence, first, second });
        }
        if operations.iter().any(|operation| !self.range.contains(operation.key())) {
            return Ok(());
        }
        let outcomes: Vec<OperationOutcome> = operations.iter().map(|one| self.machine.apply(one)).collect();
        self.sessions.executed(id, floor, &outcomes);
        self.executed.insert((client, sequence), Execution { at: entry.id.index, outcomes });
        Ok(())
    }
}
