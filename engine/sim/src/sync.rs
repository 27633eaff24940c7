//! How a core's log is driven: when something is handed to the disk, how long that takes, what fails, and what a
//! failure does to the node. The mirror of the node's `carry_out`.
//!
//! A failed write or sync ends the process, as `pontoond` exits; only a start reads what the disk really holds.

use std::time::Duration;

use pontoon_multiraft::{CoreWrite, Effects, Event, STALL_AFTER};
use pontoon_types::{LogRoom, NodeId};

use crate::disk::{Begun, Disk};
#[cfg(feature = "mutations")]
use crate::options::DiskMutation;
use crate::trace::{Happening, Place};
use crate::violation::Broken;
use crate::world::{Due, Phase, World};

/// A log that nothing was handed to for this long is sealed, as in the node.
const SEAL_AFTER: Duration = Duration::from_millis(5);

/// How soon a log that waits for a segment is asked again.
const SEGMENT_WAIT: Duration = Duration::from_millis(10);

impl World {
    pub(crate) fn disk(&mut self, place: Place) -> &mut Disk {
        self.disks.get_mut(&place).expect("law: every core has a disk")
    }

    /// Gives an append to the log.
    pub(crate) fn append(&mut self, place: Place, append: CoreWrite) {
        #[cfg(feature = "mutations")]
        let append = match self.options.disk_mutation {
            Some(DiskMutation::VoteLags) => self.disk(place).lag(append, true),
            Some(DiskMutation::EntriesLag) => self.disk(place).lag(append, false),
            _ => append,
        };
        self.disk(place).append(append);
    }

    /// Hands over what has gathered, if no sync is in flight.
    pub(crate) fn begin_sync(&mut self, place: Place) -> Result<(), Broken> {
        self.arm_faults(place);
        match self.guarded(place, Disk::begin_sync)? {
            Begun::Nothing => {}
            Begun::Flying(_through) => {
                self.schedule_sync_end(place);
                #[cfg(feature = "mutations")]
                if self.options.disk_mutation == Some(DiskMutation::AcknowledgeEarly) {
                    self.push(place, Event::Durable(_through));
                }
            }
            Begun::Waiting => self.wait_for_segment(place),
            Begun::Failed(why) => return self.log_failed(place, why),
        }
        self.watch_log_space(place);
        Ok(())
    }

    fn wait_for_segment(&mut self, place: Place) {
        let Some(running) = self.cores.get_mut(&place) else { return };
        if !std::mem::replace(&mut running.waits_for_segment, true) {
            self.counts.segment_waits += 1;
            let incarnation = self.nodes[&place.node].incarnation;
            self.queue.put(self.queue.now() + SEGMENT_WAIT, Due::AskForSegment(place, incarnation));
        }
    }

    /// A log that waits for a segment is asked again.
    pub(crate) fn ask_for_segment(&mut self, place: Place) -> Result<(), Broken> {
        let Some(running) = self.cores.get_mut(&place) else { return Ok(()) };
        running.waits_for_segment = false;
        if running.paused { Ok(()) } else { self.begin_sync(place) }
    }

    /// Arms what is to go wrong next on a disk, most of the time nothing.
    fn arm_faults(&mut self, place: Place) {
        if self.phase != Phase::Faults || self.disks[&place].flight().is_some() {
            return;
        }
        let (write_error_ppm, hidden_error_ppm) =
            (self.options.disk.write_error_ppm, self.options.disk.hidden_error_ppm);
        if self.random.chance(write_error_ppm) {
            // Nothing is written, or some sectors, or something that ends in the middle of one.
            let bytes = match self.random.below(3) {
                0 => 0,
                1 => self.random.below(16) * 512,
                _ => self.random.below(9_000),
            };
            self.disk(place).medium().fail_write_after(bytes as usize);
            self.counts.write_errors += 1;
        }
        if self.random.chance(hidden_error_ppm) {
            self.disk(place).medium().fail_syncs(1);
        }
    }

    fn schedule_sync_end(&mut self, place: Place) {
        let options = &self.options.disk;
        let mut time = self.random.around(options.sync_mean);
        if self.random.chance(options.slow_ppm) || self.queue.now() < self.disks[&place].slow_until {
            time += self.random.until_next(options.slow_max / 2);
        }
        let incarnation = self.nodes[&place.node].incarnation;
        self.queue.put(self.queue.now() + time, Due::SyncDone(place, incarnation));
        if time > STALL_AFTER {
            self.queue.put(self.queue.now() + STALL_AFTER, Due::SyncStalls(place, incarnation));
        }
    }

    /// The sync in flight takes too long: the core is told.
    pub(crate) fn sync_stalls(&mut self, place: Place) {
        if let Some(running) = self.cores.get_mut(&place) {
            running.stalled = true;
            self.counts.stalls += 1;
            self.push(place, Event::Stalled(true));
        }
    }

    /// A sync is done; the core hears of it in its next turn, which begins the next sync.
    pub(crate) fn sync_done(&mut self, place: Place) -> Result<(), Broken> {
        let Some(fd) = self.disks[&place].flight() else { return Ok(()) };
        if let Some(running) = self.cores.get_mut(&place).filter(|running| running.paused) {
            // Nobody is there to hear of it.
            running.sync_ended = true;
            return Ok(());
        }
        let sync_error_ppm = if self.phase == Phase::Faults { self.options.disk.sync_error_ppm } else { 0 };
        let mut result = if self.random.chance(sync_error_ppm) {
            let mut random = self.random.fork(place.node.0);
            let survive_ppm = *random.pick(&[0, 500_000, 1_000_000]);
            Err(self.disk(place).medium().sync_failing(fd, |_| random.chance(survive_ppm)))
        } else if self.lies_about_syncs() {
            Ok(())
        } else {
            self.guarded(place, |disk| disk.medium().sync(fd))?
        };
        self.counts.sync_errors += u64::from(result.is_err());
        if self.acknowledges_failed_syncs() {
            result = Ok(());
        }
        let finished = self.guarded(place, |disk| disk.finish_sync(result))?;
        match finished.map_err(|(law, what)| Broken::Log { law, place, what })? {
            Ok((through, has_records)) => {
                let now = self.queue.now();
                if has_records {
                    self.counts.syncs += 1;
                    self.trace.note(now, Happening::Synced(place, through));
                    self.disk(place).seal_at = Some(now + SEAL_AFTER);
                    let incarnation = self.nodes[&place.node].incarnation;
                    self.queue.put(now + SEAL_AFTER, Due::Seal(place, incarnation));
                } else {
                    self.counts.seals += 1;
                    self.trace.note(now, Happening::Sealed(place));
                }
                self.push(place, Event::Marked(self.disks[&place].mark()));
                self.push(place, Event::Durable(through));
                let rot = self.disk(place).take_rot();
                self.tell_rot(place, rot);
                if self.cores.get_mut(&place).is_some_and(|running| std::mem::take(&mut running.stalled)) {
                    self.push(place, Event::Stalled(false));
                }
                Ok(())
            }
            Err(why) => self.log_failed(place, why),
        }
    }

    /// Seals a log that has been idle long enough.
    pub(crate) fn seal(&mut self, place: Place) -> Result<(), Broken> {
        if self.disks[&place].seal_at != Some(self.queue.now()) || self.cores[&place].paused {
            return Ok(());
        }
        self.disk(place).seal_at = None;
        self.arm_faults(place);
        match self.guarded(place, Disk::begin_seal)? {
            Begun::Flying(_) => self.schedule_sync_end(place),
            Begun::Nothing | Begun::Waiting => {}
            Begun::Failed(why) => return self.log_failed(place, why),
        }
        Ok(())
    }

    /// Tells the core how much the log can still take in, when that has changed.
    pub(crate) fn watch_log_space(&mut self, place: Place) {
        let room = self.disks[&place].room();
        let Some(running) = self.cores.get_mut(&place) else { return };
        let room = if running.log_says_full { LogRoom(0) } else { room };
        let before = running.log_room.replace(room);
        if before != Some(room) {
            let now = self.queue.now();
            if before.is_some_and(LogRoom::is_none) != room.is_none() {
                self.trace.note(now, Happening::LogFull(place, room.is_none()));
            }
            // As in the node: before anything else is taken in.
            running.core.step(now, Event::LogRoom(room), &mut Effects::default());
        }
    }

    /// The process of a core whose log is fenced ends. The other cores' logs are closed, or there is no time for that.
    fn log_failed(&mut self, place: Place, why: String) -> Result<(), Broken> {
        self.counts.logs_fenced += 1;
        self.trace.note(self.queue.now(), Happening::LogFailed(place, why));
        if self.disks[&place].is_damaged() && (self.phase != Phase::Faults || self.random.chance(500_000)) {
            // It may have come upon damage that did not hinder its start, and would come upon it again.
            self.counts.damages_refused += 1;
            self.disk(place).repair();
            self.trace.note(self.queue.now(), Happening::Repaired(place));
        }
        let close = self.random.chance(500_000);
        for other in self.places(place.node).collect::<Vec<Place>>() {
            if close && other != place {
                self.close_log(other)?;
            } else {
                self.disk(other).stop();
            }
        }
        self.process_ends(place.node);
        if self.phase != Phase::Faults {
            // A handicap keeps nodes down that it took, and not this one.
            let soon = self.queue.now() + self.options.core.election_timeout / 4;
            self.queue.put(soon, Due::StartNode(place.node));
        }
        Ok(())
    }

    pub(crate) fn close_log(&mut self, place: Place) -> Result<(), Broken> {
        let closed = self.guarded(place, Disk::close)?;
        closed.map_err(|(law, what)| Broken::Log { law, place, what })
    }

    /// The machine stops while the log hands something over.
    pub(crate) fn lose_power_in_write(&mut self, place: Place) -> Result<(), Broken> {
        let changes = self.random.below(8);
        self.disk(place).medium().cut_power_after(changes);
        self.guarded(place, Disk::begin_sync)?;
        self.lose_power(place.node);
        Ok(())
    }

    /// All disks of a node stop where they are.
    pub(crate) fn lose_power(&mut self, id: NodeId) {
        let places: Vec<Place> = self.places(id).collect();
        for place in places {
            let mut random = self.random.fork(id.0);
            self.damage_untold(place);
            self.disk(place).lose_power(&mut random);
        }
        self.counts.power_cuts += 1;
        self.trace.note(self.queue.now(), Happening::LostPower(id));
        self.process_ends(id);
    }

    #[cfg(feature = "mutations")]
    fn lies_about_syncs(&self) -> bool {
        self.options.disk_mutation == Some(DiskMutation::SyncLies)
    }

    #[cfg(not(feature = "mutations"))]
    fn lies_about_syncs(&self) -> bool {
        false
    }

    #[cfg(feature = "mutations")]
    fn acknowledges_failed_syncs(&self) -> bool {
        self.options.disk_mutation == Some(DiskMutation::FailedSyncAcknowledged)
    }

    #[cfg(not(feature = "mutations"))]
    fn acknowledges_failed_syncs(&self) -> bool {
        false
    }

    #[cfg(feature = "mutations")]
    fn damage_untold(&mut self, place: Place) {
        match self.options.disk_mutation {
            Some(DiskMutation::TailCut) => self.disk(place).cut_tail(),
            Some(DiskMutation::RotUntold) => {
                let mut random = self.random.fork(place.node.0);
                self.disk(place).rot_untold(&mut random);
            }
            _ => {}
        }
    }

    #[cfg(not(feature = "mutations"))]
    fn damage_untold(&mut self, _place: Place) {}
}
