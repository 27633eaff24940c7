//! A core's way to the threads of the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use pontoon_types::{GroupId, StoreAnswer, StoreOrder};

use super::Task;
use super::worker::refusal;
use crate::inbox::{Delivery, Inbox};

/// Takes the orders of one core, and never blocks.
///
/// Invariant: an order waits only behind another one, or behind a queue that was full.
pub struct StoreDoor {
    queues: Vec<SyncSender<Task>>,
    inbox: Arc<Inbox<Delivery>>,
    waiting: VecDeque<StoreOrder>,
}

impl StoreDoor {
    pub(super) fn new(queues: Vec<SyncSender<Task>>, inbox: Arc<Inbox<Delivery>>) -> StoreDoor {
        StoreDoor { queues, inbox, waiting: VecDeque::new() }
    }

    /// Adds orders behind all others.
    pub fn order(&mut self, orders: &mut Vec<StoreOrder>) {
        self.waiting.extend(orders.drain(..));
    }

    /// Whether orders wait for room.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands on what the threads can take. Returns the answers to what nobody carries out, because a thread has ended.
    pub fn hand_on(&mut self) -> Vec<StoreAnswer> {
        let mut refused = Vec::new();
        while let Some(order) = self.waiting.pop_front() {
            let queue = &self.queues[(group_of(&order).0 % self.queues.len() as u64) as usize];
            match queue.try_send(Task::Order(order, self.inbox.clone())) {
                Ok(()) => {}
                Err(TrySendError::Full(Task::Order(order, _))) => {
                    self.waiting.push_front(order);
                    break;
                }
                Err(TrySendError::Disconnected(Task::Order(order, _))) => refused.extend(refusal(order)),
                Err(TrySendError::Full(Task::Stop) | TrySendError::Disconnected(Task::Stop)) => {}
            }
        }
        refused
    }
}

fn group_of(order: &StoreOrder) -> GroupId {
    match order {
        StoreOrder::Begin { group, .. }
        | StoreOrder::Chunk { group, .. }
        | StoreOrder::Finish { group, .. }
        | StoreOrder::Abandon { group, .. }
        | StoreOrder::Read { group, .. }
        | StoreOrder::Close { group, .. }
        | StoreOrder::Remove { group, .. } => *group,
    }
}
