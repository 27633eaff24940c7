//! The second half of a turn: the core's effects reach the log, the peers and the clients.

use std::io;
use std::time::Duration;

use pontoon_multiraft::Event;
use pontoon_types::Time;
use pontoon_wal::LogError;

use super::questions::PROGRAM;
use super::segment_wait::SegmentWait;
use super::{CoreLoop, SEAL_AFTER};
use crate::connection::Closed;
use crate::driver::{Driver, SocketId};
use crate::error::CoreFailure;
use crate::hold::Decision;

/// How soon it is tried again when the log is full.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// How often the log's being full is said. It comes and goes while a burst is written.
const SAY_FULL_INTERVAL: Duration = Duration::from_secs(10);

impl<D: Driver> CoreLoop<D> {
    /// Carries out everything that the core has decided in this turn.
    pub(super) fn carry_out(&mut self, now: Time) -> Result<(), CoreFailure> {
        self.write_trace();
        if let Some(append) = self.effects.append.take() {
            self.log.append(append.number, &append.writes);
        }
        self.fetches.ask(&mut self.effects.fetches);
        self.hand_on_orders(now);
        for (group, entry, why) in self.effects.parked.drain(..) {
            tracing::error!(
                "entry {entry} of {group} cannot be read: {why}; the group stands still on this node until a peer sends a \
                 snapshot behind it, or a build that reads it is started"
            );
        }
        self.keep_ledger();
        self.send_to_peers(now);
        self.start_sync(now)?;
        self.watch_log_space(now);
        self.send_to_clients(now);
        self.close_refused(now);
        Ok(())
    }

    /// The sync in flight has ended. A failure ends the core: what it covered may or may not be on the disk.
    pub(super) fn synced(&mut self, now: Time, result: io::Result<()>) -> Result<(), CoreFailure> {
        let through = self.log.finish_sync(result)?;
        self.counters.syncs += 1;
        let stalled_for = self.sync.stall.ended(now);
        if !std::mem::take(&mut self.sync.sealing) {
            self.sync.hold.finished(now);
            self.sync.seal_at = Some(now + SEAL_AFTER);
        }
        self.step(now, Event::Marked(self.log.mark()));
        self.step(now, Event::Durable(through));
        if let Some(took) = stalled_for {
            tracing::warn!("the disk answers again: a sync took {} ms", took.as_millis());
            self.step(now, Event::Stalled(false));
        }
        Ok(())
    }

    fn write_trace(&mut self) {
        let lines = std::mem::take(&mut self.effects.trace);
        if let Some(trace) = self.trace.as_mut().filter(|_| !lines.is_empty())
            && let Err(error) = trace.write(&lines)
        {
            tracing::error!("the trace {} ends here: {error}", trace.path().display());
            self.trace = None;
        }
    }

    fn send_to_peers(&mut self, now: Time) {
        let beacons = self.effects.beacons.drain(..).map(|(node, frame)| (node, frame, true));
        let frames = self.effects.peer_frames.drain(..).map(|(node, frame)| (node, frame, false));
        for (node, frame, first) in beacons.chain(frames) {
            let Ok(link) = self.links.binary_search_by_key(&node, |link| link.peer()) else { continue };
            let bytes = frame.len() as u64;
            let link = &mut self.links[link];
            if if first { link.push_first(frame) } else { link.push(frame) } {
                self.counters.peer_frames += 1;
                self.counters.peer_bytes += bytes;
            }
        }
        for link in 0..self.links.len() {
            let change = self.links[link].flush(&mut self.driver, now);
            let peer = self.links[link].peer();
            self.link_changed(now, peer, change);
        }
    }

    /// Starts a sync if something has gathered, none is in flight and waiting longer would not pay. A log that has been
    /// idle for a while is sealed.
    fn start_sync(&mut self, now: Time) -> Result<(), CoreFailure> {
        self.sync.look_at = None;
        if self.log.in_flight() {
            return Ok(());
        }
        if self.log.is_gathered() {
            // A log with something to write is not idle, whatever keeps it from being written.
            self.sync.seal_at = None;
            match self.sync.hold.decide(now, self.log.gathered_entries(), self.log.last_group_entries()) {
                Decision::Until(until) => self.sync.look_at = Some(until),
                Decision::Start => self.begin_sync(now)?,
            }
        } else if self.sync.seal_at.is_some_and(|at| at <= now) {
            self.sync.seal_at = None;
            if let Some(seal) = self.log.begin_seal()? {
                self.sync.sealing = true;
                self.sync.stall.began(now);
                self.driver.sync(seal.fd).map_err(CoreFailure::Driver)?;
            }
        }
        Ok(())
    }

    fn begin_sync(&mut self, now: Time) -> Result<(), CoreFailure> {
        match self.log.begin_sync() {
            Ok(Some(sync)) => {
                self.sync.hold.started(now);
                self.sync.stall.began(now);
                self.sync.segment_wait = SegmentWait::default();
                self.driver.sync(sync.fd).map_err(CoreFailure::Driver)?;
            }
            // The next segment is being prepared.
            Ok(None) => self.sync.look_at = Some(self.sync.segment_wait.next(now)),
            // Nothing failed and nothing is lost: what has gathered waits, unacknowledged.
            Err(LogError::Full { max_log_bytes }) => {
                if !std::mem::replace(&mut self.sync.told_full, true) {
                    tracing::error!("the log is full to the last block: max_log_bytes = {max_log_bytes}; raise it");
                }
                self.sync.look_at = Some(now + FULL_WAIT);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells the core how much the log can still take in, when that has changed.
    fn watch_log_space(&mut self, now: Time) {
        let room = self.log.room();
        let full = room.is_none();
        if full && self.sync.seal_at.is_none() && !self.log.is_gathered() {
            // A full log takes over what was freed for it only when it is called, and an idle one is called by nobody.
            self.sync.seal_at = Some(now + FULL_WAIT);
        }
        if self.log_room != Some(room) {
            if full && self.sync.say_full_at <= now {
                self.sync.say_full_at = now + SAY_FULL_INTERVAL;
                tracing::warn!(
                    "the log has no room for entries ({} bytes in all), writes are answered Busy; if that goes on, raise \
                     max_log_bytes and start again",
                    self.log.bytes()
                );
            }
            self.log_room = Some(room);
            self.step(now, Event::LogRoom(room));
        }
    }

    fn send_to_clients(&mut self, now: Time) {
        for (connection, frame) in self.effects.client_frames.drain(..) {
            if connection == PROGRAM {
                self.questions.answer(frame);
                continue;
            }
            let socket = SocketId(connection.0);
            if let Some(connection) = self.connections.get_mut(&socket) {
                connection.push(frame);
                self.unsent.push(socket);
            }
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        unsent.sort_unstable();
        unsent.dedup();
        for socket in unsent.drain(..) {
            let Some(connection) = self.connections.get_mut(&socket) else { continue };
            match connection.flush(&mut self.driver, socket, now) {
                Ok(()) if connection.deadline().is_some() => drop(self.stalled.insert(socket)),
                Ok(()) => drop(self.stalled.remove(&socket)),
                Err(why) => self.close_connection(now, socket, &why),
            }
        }
        self.unsent = unsent;
    }

    /// Closes those who sent what is a frame but not one that belongs there.
    fn close_refused(&mut self, now: Time) {
        for (connection, why) in std::mem::take(&mut self.effects.close) {
            self.close_connection(now, SocketId(connection.0), &Closed::Refused(why));
        }
        for (node, why) in std::mem::take(&mut self.effects.refused_peers) {
            self.close_links_of(now, node, || Closed::Refused(why.clone()));
        }
    }
}
