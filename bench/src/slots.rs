//! Logical clients: which are idle, and what the others wait for.

use pontoon_types::Time;

use crate::recorder::Started;

/// The slots of one job. The client that was idle for the shortest time is the next one.
pub struct Slots {
    idle: Vec<u32>,
    started: Vec<Option<(Started, Time)>>,
}

impl Slots {
    /// All are idle.
    pub fn new(slots: u32) -> Slots {
        Slots { idle: (0..slots).rev().collect(), started: vec![None; slots as usize] }
    }

    /// Takes an idle one.
    pub fn take(&mut self) -> Option<u32> {
        self.idle.pop()
    }

    /// A slot that was taken waits for this, which was meant to start at `intended`.
    pub fn begin(&mut self, slot: u32, started: Started, intended: Time) {
        self.started[slot as usize] = Some((started, intended));
    }

    /// A slot's operation has ended.
    pub fn end(&mut self, slot: u32) -> (Started, Time) {
        self.idle.push(slot);
        self.started[slot as usize].take().expect("only a started operation ends")
    }

    /// Whether nothing is under way.
    pub fn all_idle(&self) -> bool {
        self.idle.len() == self.started.len()
    }
}
