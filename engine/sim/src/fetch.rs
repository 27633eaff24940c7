//! How a core's log answers fetches: the mirror of the node's `core_loop/fetch`.
//!
//! An answer comes after a while, from the real log. Now and then the cache has dropped everything, so that the log says
//! *cold*, brings it in, and answers when it is asked again.

use pontoon_multiraft::{Event, Fetch, Reader};
use pontoon_types::{FetchNumber, GroupId};

use crate::disk::{Disk, Read};
use crate::trace::Place;
use crate::violation::Broken;
use crate::world::{Due, World};

impl World {
    /// Keeps a fetch until the log answers it. A newer one of the same reader takes the place of an older one.
    pub(crate) fn ask_log(&mut self, place: Place, group: GroupId, fetch: Fetch) {
        let Some(running) = self.cores.get_mut(&place) else { return };
        running.fetches.insert((group, fetch.reader), fetch);
        self.schedule_fetch(place, group, fetch.reader, fetch.number);
    }

    fn schedule_fetch(&mut self, place: Place, group: GroupId, reader: Reader, number: FetchNumber) {
        let wait = self.random.until_next(self.options.disk.fetch_mean);
        let incarnation = self.nodes[&place.node].incarnation;
        self.queue.put(self.queue.now() + wait, Due::Fetch(place, incarnation, group, reader, number));
    }

    /// The log of a core looks for what was asked for.
    pub(crate) fn serve_fetch(
        &mut self,
        place: Place,
        group: GroupId,
        reader: Reader,
        number: FetchNumber,
    ) -> Result<(), Broken> {
        let Some(running) = self.cores.get(&place) else { return Ok(()) };
        let asked = running.fetches.get(&(group, reader)).copied();
        let Some(fetch) = asked.filter(|fetch| fetch.number == number) else { return Ok(()) };
        if running.paused {
            self.schedule_fetch(place, group, reader, number);
            return Ok(());
        }
        self.guarded(place, Disk::warm)?;
        if self.random.chance(self.options.disk.cold_ppm) {
            self.disk(place).medium().chill();
        }
        let read = self.guarded(place, |disk| disk.fetch(group, &fetch))?;
        match read.map_err(|(law, what)| Broken::Log { law, place, what })? {
            Read::Cold => {
                self.counts.cold_reads += 1;
                self.schedule_fetch(place, group, reader, number);
            }
            Read::Answer(result) => {
                self.counts.fetches += 1;
                if let Some(running) = self.cores.get_mut(&place) {
                    running.fetches.remove(&(group, reader));
                }
                self.push(place, Event::Fetched { group, number, result });
            }
        }
        Ok(())
    }
}
