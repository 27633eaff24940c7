//! The connections between clients and cores, and the translation of outcomes into histories.
//!
//! A connection is TCP as a program sees it: in order, each frame once, until it is closed or silently dead. Frames
//! to and from clients are never doubled on it; what comes again comes on another one (`repeats`).

use bytes::Bytes;
use pontoon_multiraft::{ConnectionId, Event};
use pontoon_types::{ClientId, NodeId};
use pontoon_wire::client::{OperationOutcome, Outcome, Request, RequestFrame};
use pontoon_wire::command::KvOperation;

use crate::client::{Ask, Pending};
use crate::history::returned;
use crate::linear::{Action, Operation, Value};
use crate::violation::Broken;
use crate::world::{Due, World};

impl World {
    /// A client sends requests.
    pub(crate) fn send_to_node(&mut self, id: ConnectionId, requests: Vec<Request>) {
        self.duplicate(&requests);
        let mut bytes = Vec::new();
        RequestFrame { requests }.encode(&mut bytes);
        let delay = self.random.around(self.options.client.delay_mean);
        let lost = self.random.chance(self.options.client.loss_ppm);
        let connection = &mut self.connections[id.0 as usize];
        connection.dead |= lost;
        if connection.dead || connection.closed {
            return;
        }
        connection.last_up = connection.last_up.max(self.queue.now() + delay);
        self.queue.put(connection.last_up, Due::AtNode(id, Bytes::from(bytes)));
    }

    /// A core sends replies.
    pub(crate) fn send_to_client(&mut self, id: ConnectionId, bytes: Bytes) {
        let delay = self.random.around(self.options.client.delay_mean);
        let lost = self.random.chance(self.options.client.loss_ppm);
        let connection = &mut self.connections[id.0 as usize];
        connection.dead |= lost;
        if connection.dead || connection.closed {
            return;
        }
        connection.last_down = connection.last_down.max(self.queue.now() + delay);
        self.queue.put(connection.last_down, Due::AtClient(id, bytes));
    }

    /// Requests reach the core, if it is still the one that the client connected to.
    pub(crate) fn requests_arrive(&mut self, id: ConnectionId, bytes: Bytes) {
        let connection = self.connections[id.0 as usize];
        let same = self.nodes[&connection.place.node].incarnation == connection.incarnation;
        if same && !connection.closed {
            self.push(connection.place, Event::ClientFrame { connection: id, bytes });
        }
    }

    /// The client closed the connection, and the core hears of it.
    pub(crate) fn gone_at_node(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id.0 as usize];
        let (place, incarnation) = (connection.place, connection.incarnation);
        let was_open = !std::mem::replace(&mut connection.closed, true);
        if was_open && self.nodes[&place.node].incarnation == incarnation {
            self.push(place, Event::ClientGone(id));
        }
    }

    /// A node crashed: its clients hear of it a little later.
    pub(crate) fn connections_of_crashed(&mut self, node: NodeId) {
        for id in 0..self.connections.len() {
            let connection = &mut self.connections[id];
            if connection.place.node != node || connection.closed {
                continue;
            }
            connection.closed = true;
            let notice = self.random.around(self.options.client.delay_mean);
            let at = (self.queue.now() + notice).max(connection.last_down);
            self.queue.put(at, Due::ClosedAtClient(ConnectionId(id as u64)));
        }
    }

    /// Whether a frame on the connection was lost.
    pub(crate) fn connection_is_dead(&self, id: ConnectionId) -> bool {
        self.connections[id.0 as usize].dead
    }

    /// Whose connection it is.
    pub(crate) fn connection_client(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(id.0 as usize).map(|connection| connection.client)
    }

    /// Turns an outcome into operations on single keys. A command that was acknowledged must be executed, and have
    /// come to this at first.
    pub(crate) fn record_outcome(
        &mut self,
        client: usize,
        (process, sequence): (ClientId, u64),
        pending: &Pending,
        outcome: Outcome,
    ) -> Result<(), Broken> {
        let (group, call, moment) = (pending.group, pending.call, self.history.moment());
        let mut done: Vec<(Bytes, Action, Value)> = Vec::new();
        match (&pending.ask, outcome) {
            (Ask::Write(operations), Outcome::Written(outcomes)) if operations.len() == outcomes.len() => {
                if !self.options.outcomes_only {
                    self.invariants.acknowledged(group, process, sequence, &outcomes)?;
                }
                for (operation, outcome) in operations.iter().zip(&outcomes) {
                    let (action, value) = self.written(operation, Some(outcome))?;
                    done.push((operation.key().clone(), action, value));
                }
                self.counts.writes_acknowledged += 1;
            }
            (Ask::Get(key), Outcome::Value(value)) => {
                let value = self.history.value_of(value.as_ref())?;
                done.push((key.clone(), Action::Get { value }, value));
                self.counts.reads_served += 1;
            }
            (Ask::Scan { known, limit, .. }, Outcome::Pairs { pairs, next }) => {
                self.scanned(known, *limit, &pairs, next.as_ref(), &mut done)?;
                self.counts.reads_served += 1;
            }
            (ask, outcome) => {
                return Err(Broken::BadReply(format!("{ask:?} was answered by {outcome:?}")));
            }
        }
        let base = self.history.base_of(group, call);
        let executed = self.invariants.executed_at(group, process, sequence);
        let is_write = matches!(pending.ask, Ask::Write(_));
        let in_base = is_write && executed.is_some_and(|index| index <= base);
        for (key, action, value) in done {
            self.clients[client].seen.insert(key.clone(), value);
            self.history.record(group, &key, returned(call, moment, action), in_base, &mut self.random);
        }
        Ok(())
    }

    /// A scan is one read of every key that existed when it began and lies in the part that it covered.
    fn scanned(
        &self,
        known: &[Bytes],
        limit: u32,
        pairs: &[(Bytes, Bytes)],
        next: Option<&Bytes>,
        done: &mut Vec<(Bytes, Action, Value)>,
    ) -> Result<(), Broken> {
        let sorted = pairs.is_sorted_by(|(left, _), (right, _)| left < right);
        let inside = pairs.iter().all(|(key, _)| next.is_none_or(|next| key < next));
        if !sorted || !inside || pairs.len() > limit as usize {
            return Err(Broken::BadReply(format!("a scan of at most {limit} out of order: {pairs:?}, next {next:?}")));
        }
        for key in known.iter().filter(|key| next.is_none_or(|next| *key < next)) {
            let found = pairs.binary_search_by(|(found, _)| found.cmp(key)).ok().map(|place| &pairs[place].1);
            let value = self.history.value_of(found)?;
            done.push((key.clone(), Action::Get { value }, value));
        }
        Ok(())
    }

    /// What one operation of a command did, and the value that its client now takes the key to have.
    fn written(&self, operation: &KvOperation, outcome: Option<&OperationOutcome>) -> Result<(Action, Value), Broken> {
        match (operation, outcome) {
            (KvOperation::Put { value, .. }, None | Some(OperationOutcome::Put)) => {
                let value = self.history.value_of(Some(value))?;
                let number = value.expect("law: a present value has a number");
                Ok((Action::Put { value: number, done: outcome.is_some() }, value))
            }
            (KvOperation::Delete { .. }, None) => Ok((Action::Delete { existed: None }, None)),
            (KvOperation::Delete { .. }, Some(OperationOutcome::Deleted { existed })) => {
                Ok((Action::Delete { existed: Some(*existed) }, None))
            }
            (KvOperation::CompareAndSet { expected, value, .. }, outcome) => {
                let expected = self.history.value_of(expected.as_ref())?;
                let value = self.history.value_of(value.as_ref())?;
                let result = match outcome {
                    None => None,
                    Some(OperationOutcome::Swapped { succeeded, current }) => {
                        Some((*succeeded, self.history.value_of(current.as_ref())?))
                    }
                    Some(other) => return Err(Broken::BadReply(format!("{operation:?} came to {other:?}"))),
                };
                let now = result.map_or(value, |(succeeded, current)| if succeeded { value } else { current });
                Ok((Action::CompareAndSet { expected, value, result }, now))
            }
            (_, Some(other)) => Err(Broken::BadReply(format!("{operation:?} came to {other:?}"))),
        }
    }

    /// A write whose outcome is unknown stays open for ever; a read without an answer says nothing.
    pub(crate) fn record_unknown(&mut self, pending: &Pending) {
        let Ask::Write(operations) = &pending.ask else { return };
        for operation in operations {
            let (action, _) = self.written(operation, None).expect("law: a client writes values of the history only");
            let open = Operation { call: pending.call, return_: None, action };
            self.history.record(pending.group, operation.key(), open, false, &mut self.random);
        }
    }
}
