//! A table of requests in flight, addressed by the number that travels on the wire.
//!
//! A sequence is (attempt, place): the lower half is the place in the table, the upper half counts the attempts made
//! from that place. A reply to an attempt that is over therefore finds nothing, even when its place is used again.

/// Requests in flight.
pub(crate) struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    attempt: u32,
    item: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { places: Vec::new(), free: Vec::new() }
    }

    /// How many requests are in flight.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes a place for `item`.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize].item = Some(item);
            return place;
        }
        self.places.push(Place { attempt: 0, item: Some(item) });
        u32::try_from(self.places.len() - 1).expect("requests in flight are limited far below 2^32")
    }

    /// Gives the place back; numbers of its past attempts are dead from now on.
    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        let slot = self.places.get_mut(place as usize)?;
        let item = slot.item.take()?;
        slot.attempt = slot.attempt.wrapping_add(1);
        self.free.push(place);
        Some(item)
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)?.item.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.item.as_mut()
    }

    /// Begins a new attempt from this place and returns its number on the wire.
    pub(crate) fn begin_attempt(&mut self, place: u32) -> u64 {
        let slot = &mut self.places[place as usize];
        slot.attempt = slot.attempt.wrapping_add(1);
        sequence(slot.attempt, place)
    }

    /// The place that waits for an answer to this attempt, if it still does.
    pub(crate) fn find(&self, sequence_number: u64) -> Option<u32> {
        let place = sequence_number as u32;
        let slot = self.places.get(place as usize)?;
        (slot.item.is_some() && sequence(slot.attempt, place) == sequence_number).then_some(place)
    }

    /// All places in use, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().filter_map(|(place, slot)| Some((place as u32, slot.item.as_ref()?)))
    }
}

fn sequence(attempt: u32, place: u32) -> u64 {
    u64::from(attempt) << 32 | u64::from(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_dead_after_the_next_attempt_and_after_reuse() {
        let mut slots = Slots::new();
        let place = slots.insert("a");
        let first = slots.begin_attempt(place);
        assert_eq!(slots.find(first), Some(place));
        let second = slots.begin_attempt(place);
        assert_eq!((slots.find(first), slots.find(second)), (None, Some(place)));
        assert_eq!(slots.remove(place), Some("a"));
        assert_eq!(slots.insert("b"), place);
        assert_eq!((slots.find(first), slots.find(second), slots.len()), (None, None, 1));
        assert_eq!(slots.find(u64::MAX), None);
    }
}
