//! The checkpoints of a node, in `DIR/store`.
//!
//! A core orders what it wants of the store in the effects of a turn, and hears the answers through its inbox. Store threads
//! carry the orders out, because files, syncs and renames block; a core never waits for them. The orders of one group go to
//! one thread, in their order. A thread has a bounded queue. When it is full, orders wait at their core, which has only so
//! many under way: chunks that were not taken, reads that were not answered.
//!
//! # Files
//!
//! A checkpoint is one file ([`mod@format`], `docs/STORE_FORMAT.md`). It is written under another name, synced, renamed, and its
//! directory synced; only then the core hears `Stored` and may let go of the log (law 19). So a crash at any point leaves the
//! checkpoint before, or the new one, whole. A checkpoint belongs to the node and not to a core: with another number of cores it
//! stays where it is.
//!
//! # Faults
//!
//! - A disk that is full or fails ends one staging; the core is told, and everything that was there stays. Nothing is tried
//!   twice on one file, because after a failed sync the system may call the next one a success.
//! - A rotten chunk, or a file that is not whole, is named and never served. At the start its group goes without it, as if it
//!   had none.
//! - A file of a later version, or of another node, refuses the start and is left as it is.
//!
//! # Which file does what
//!
//! `format`: the bytes; `folder`: where files lie; `stage`: one that is being written; `read`: one that is being read; `worker`:
//! carries orders out; `door`: a core's way to the threads; `recover`: what a start does with all of it.
//!
//! # Left out
//!
//! Rate limits beside the log's syncs, a scrub of checkpoints that nobody reads, checkpoints that hold only what has changed.

pub mod door;
pub mod folder;
pub mod format;
pub mod read;
pub mod recover;
pub mod stage;
pub mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pontoon_types::limits::{STORE_ORDERS_MAX, STORE_THREADS};
use pontoon_types::{StoreAnswer, StoreOrder};

use crate::inbox::{Delivery, Inbox};
use door::StoreDoor;
use folder::Folder;
use worker::Worker;

/// How long the end of a node waits for a thread whose disk does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a thread waits before it offers an answer again to a core whose inbox is full.
const OFFER_AGAIN: Duration = Duration::from_millis(1);

/// What a store thread is told.
enum Task {
    /// Carry it out and answer there.
    Order(StoreOrder, Arc<Inbox<Delivery>>),
    /// The node ends.
    Stop,
}

/// The threads of a node's store. Dropping it ends them, behind what was ordered before.
#[derive(Debug)]
pub struct Store {
    queues: Vec<SyncSender<Task>>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Starts the threads.
    pub fn start(folder: &Folder) -> io::Result<Store> {
        let mut store = Store { queues: Vec::new(), threads: Vec::new() };
        for number in 0..STORE_THREADS {
            let (queue, tasks) = sync_channel(STORE_ORDERS_MAX);
            let worker = Worker::new(folder.clone());
            let builder = std::thread::Builder::new().name(format!("pontoon-store{number}"));
            store.threads.push(builder.spawn(move || work(worker, &tasks))?);
            store.queues.push(queue);
        }
        Ok(store)
    }

    /// The way to the store for the core with this inbox.
    pub fn door(&self, inbox: Arc<Inbox<Delivery>>) -> StoreDoor {
        StoreDoor::new(self.queues.clone(), inbox)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        for (queue, thread) in self.queues.iter().zip(self.threads.drain(..)) {
            // A queue that stays full belongs to a disk that does not answer.
            let mut told = queue.try_send(Task::Stop).is_ok();
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(OFFER_AGAIN);
                told = told || queue.try_send(Task::Stop).is_ok();
            }
            if !thread.is_finished() {
                tracing::error!("a store thread still waits for its disk and is left behind");
            } else if thread.join().is_err() {
                tracing::error!("a store thread has panicked");
            }
        }
    }
}

fn work(mut worker: Worker, tasks: &Receiver<Task>) {
    while let Ok(Task::Order(order, inbox)) = tasks.recv() {
        if let Some(answer) = worker.carry_out(order) {
            deliver(&inbox, answer);
        }
    }
}

/// Hands an answer over. A core that has ended, or is about to, does not want it any more.
fn deliver(inbox: &Inbox<Delivery>, answer: StoreAnswer) {
    let mut delivery = Delivery::Store(answer);
    while let Err(back) = inbox.push(delivery) {
        if inbox.is_closed() || inbox.is_stopping() {
            return;
        }
        delivery = back;
        std::thread::sleep(OFFER_AGAIN);
    }
}
