//! Counts what the histories reached.

use pontoon_wal::Log;

use crate::common::Rig;

/// How often something happened over all seeds, so that a harness that stopped reaching it is noticed.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub seeds: u64,
    pub torn: u64,
    pub rewritten: u64,
    pub clean: u64,
    pub interrupted_opens: u64,
    pub resumed_unclean: u64,
    pub checkpoints: u64,
    pub moved: u64,
    pub freed: u64,
    pub recycled: u64,
    pub footers: u64,
    pub fallbacks: u64,
    pub from_the_beginning: u64,
    pub full: u64,
    pub relieved: u64,
    pub used_up: u64,
    pub scrubbed: u64,
    pub refused: u64,
}

impl Seen {
    /// Each thing, its name, and whether it happened often enough.
    pub fn all(&self) -> [(&'static str, u64, u64); 17] {
        [
            ("torn", self.torn, 10),
            ("rewritten", self.rewritten, 10),
            ("clean", self.clean, 10),
            ("interrupted opens", self.interrupted_opens, 10),
            ("resumed unclean", self.resumed_unclean, 10),
            ("checkpoints", self.checkpoints, 1),
            ("moved runs", self.moved, 10),
            ("freed segments", self.freed, 1),
            ("slots used again", self.recycled, 10),
            ("footers read", self.footers, 2),
            ("older checkpoints used", self.fallbacks, 10),
            ("opens from the beginning after a damaged checkpoint", self.from_the_beginning, 100),
            ("full", self.full, 50),
            ("relieved", self.relieved, 20),
            ("reserve used up", self.used_up, u64::MAX),
            ("scrubbed", self.scrubbed, 10),
            ("refused", self.refused, u64::MAX),
        ]
    }

    pub fn add(&mut self, other: &Seen) {
        let Seen { seeds, torn, rewritten, clean, interrupted_opens, resumed_unclean, checkpoints, moved, .. } = other;
        self.seeds += seeds;
        self.torn += torn;
        self.rewritten += rewritten;
        self.clean += clean;
        self.interrupted_opens += interrupted_opens;
        self.resumed_unclean += resumed_unclean;
        self.checkpoints += checkpoints;
        self.moved += moved;
        let Seen {
            freed,
            recycled,
            footers,
            fallbacks,
            from_the_beginning,
            full,
            relieved,
            used_up,
            scrubbed,
            refused,
            ..
        } = other;
        self.freed += freed;
        self.recycled += recycled;
        self.footers += footers;
        self.fallbacks += fallbacks;
        self.from_the_beginning += from_the_beginning;
        self.full += full;
        self.relieved += relieved;
        self.used_up += used_up;
        self.scrubbed += scrubbed;
        self.refused += refused;
    }

    pub fn log_ended(&mut self, log: &Log, rig: &Rig) {
        let stats = log.stats();
        self.checkpoints += stats.checkpoints;
        self.moved += stats.moved_runs;
        self.freed += stats.freed_segments;
        let slots = rig.slots();
        let newest = slots.iter().filter_map(|name| rig.header(name)).map(|header| header.segment).max();
        self.recycled += u64::from(newest.is_some_and(|newest| newest.0 > slots.len() as u64));
    }
}
