//! The way into a core from another thread: a bounded queue that wakes the core when it sleeps.
//!
//! A producer pushes and then looks at `armed`; the core arms before it sleeps and then looks at the queue. Both sides
//! put a sequentially consistent fence between their store and their load, so at least one of them sees the other: a
//! parcel is never left behind while the core sleeps, and a busy core is never disturbed by a system call.
//!
//! The wake is an eventfd that the core's readiness call watches. It is watched edge-triggered, so it is never read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::Sender;

use crossbeam_queue::ArrayQueue;
use pontoon_types::StoreAnswer;
use pontoon_wire::client::{Operation, Outcome, Refusal};
use rustix::event::{EventfdFlags, eventfd};

use crate::door::Parcel;

/// What a core is handed from other threads.
#[derive(Debug)]
pub enum Delivery {
    /// A connection that asked for this core.
    Connection(Parcel),
    /// The store's answer to one of the core's orders.
    Store(StoreAnswer),
    /// A question of the program around the node.
    Question(Question),
}

/// What the program around a node hears of a question.
pub type Answer = Result<Outcome, Refusal>;

/// A question of the program around a node.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub operation: Operation,
    /// Where the answer goes.
    pub answer: Sender<Answer>,
}

/// A bounded queue into one core.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: ArrayQueue<T>,
    armed: AtomicBool,
    stopping: AtomicBool,
    closed: AtomicBool,
    wake: OwnedFd,
}

impl<T> Inbox<T> {
    /// An empty inbox for at most `capacity` parcels.
    pub fn new(capacity: usize) -> io::Result<Inbox<T>> {
        Ok(Inbox {
            queue: ArrayQueue::new(capacity),
            armed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Hands a parcel in, or gives it back when the queue is full or the core has ended.
    pub fn push(&self, parcel: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(parcel);
        }
        self.queue.push(parcel)?;
        if self.is_closed() {
            // The core may have emptied the queue before. What was left there would never be looked at.
            while self.pop().is_some() {}
        }
        self.wake_if_armed();
        Ok(())
    }

    /// The core has ended by itself: nothing is taken in any more, and what waits is dropped.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.pop().is_some() {}
    }

    /// Whether the core has ended by itself.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Asks the core to stop. Unlike a parcel this never finds the queue full.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_if_armed();
    }

    /// Whether somebody asked the core to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The next parcel.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Called by the core before it sleeps. False means that something is waiting and it must not sleep.
    pub fn arm(&self) -> bool {
        self.armed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let may_sleep = self.queue.is_empty() && !self.is_stopping();
        if !may_sleep {
            self.armed.store(false, Ordering::SeqCst);
        }
        may_sleep
    }

    /// Called by the core when it is awake again, so that producers save the system call.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Wakes the core, which then looks at what it knows to look at. Unlike a parcel this never finds the queue full.
    pub fn wake(&self) {
        self.wake_if_armed();
    }

    fn wake_if_armed(&self) {
        fence(Ordering::SeqCst);
        if self.armed.swap(false, Ordering::SeqCst) {
            // The only failure is a counter that is full, and then the core has been woken already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
