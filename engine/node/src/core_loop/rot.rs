//! Rot that the log has found by reading what it stores, before anybody needed it.
//!
//! A payload that is rotten on the disk may still be in memory, and then its group writes it again; one that has left memory
//! it fetches from a peer. But entries from before the last start are slices of the mapped segment, and what the disk has
//! lost those may have lost too. So only a payload with the checksum that was written once is written again; otherwise the
//! core stops, and the next start knows the entry as lost. What else is rotten is named to the operator: nothing that a group could give
//! would repair it.

use std::collections::BTreeMap;

use pontoon_multiraft::Event;
use pontoon_types::{GroupId, Index, LogId, Time};
use pontoon_wal::{Rot, RottenEntry};

use super::CoreLoop;
use crate::driver::Driver;
use crate::error::CoreFailure;

impl<D: Driver> CoreLoop<D> {
    /// Tells the groups, and the operator, what was found since the last time.
    pub(super) fn hand_on_rot(&mut self, now: Time) -> Result<(), CoreFailure> {
        let found = self.log.take_rot()?;
        for rot in &found {
            match &rot.entry {
                Some(RottenEntry { group, id, .. }) => {
                    tracing::error!(
                        "{}: the payload of {id} of {group} is rotten; it is written again or fetched",
                        rot.file
                    );
                }
                None => tracing::error!("{}: the records at byte {} are rotten", rot.file, rot.offset),
            }
        }
        let has = |entry: &RottenEntry| {
            let group = self.core.group(entry.group)?;
            let is_missing = group.missing().any(|index| index == entry.id.index);
            let held = group.entries(entry.id.index, entry.id.index).next().filter(|_| !is_missing)?;
            Some((held.id, crc32fast::hash(&held.payload)))
        };
        for (group, indexes) in lost(&found, has)? {
            self.step(now, Event::Lost { group, indexes });
        }
        Ok(())
    }
}

/// The entries that lack a payload on the disk, by group, and may be named to it. `has` says what memory has at the place of an
/// entry: its identity and the checksum of its payload; nothing if it has left memory or is missing already.
fn lost(
    found: &[Rot],
    has: impl Fn(&RottenEntry) -> Option<(LogId, u32)>,
) -> Result<BTreeMap<GroupId, Vec<Index>>, CoreFailure> {
    let mut groups: BTreeMap<GroupId, Vec<Index>> = BTreeMap::new();
    for rot in found {
        let Some(entry) = &rot.entry else { continue };
        let RottenEntry { group, id, crc } = *entry;
        match has(entry) {
            // It was overwritten since.
            Some((held, _)) if held != id => {}
            Some((_, held)) if held != crc => {
                return Err(CoreFailure::Rotten { file: rot.file.clone(), group, id });
            }
            _ => groups.entry(group).or_default().push(id.index),
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use pontoon_types::Term;

    use super::*;

    fn rot(entry: Option<RottenEntry>) -> Rot {
        Rot { file: "slot-001.seg".to_string(), offset: 0, entry }
    }

    fn of(group: u64, index: u64) -> RottenEntry {
        RottenEntry { group: GroupId(group), id: LogId::new(Index(index), Term(1)), crc: 5 }
    }

    #[test]
    fn each_group_hears_of_its_own_entries() {
        let found = [rot(Some(of(2, 7))), rot(None), rot(Some(of(3, 1))), rot(Some(of(2, 4)))];
        let expected = [(GroupId(2), vec![Index(7), Index(4)]), (GroupId(3), vec![Index(1)])];
        let same = |entry: &RottenEntry| Some((entry.id, entry.crc));
        assert_eq!(lost(&found, same).unwrap(), BTreeMap::from(expected));
        assert_eq!(lost(&[rot(None)], same).unwrap(), BTreeMap::new());
    }

    #[test]
    fn rotten_bytes_in_memory_are_not_written_in_place_of_the_entry() {
        let found = [rot(Some(of(2, 7)))];
        let failure = lost(&found, |entry| Some((entry.id, 6))).unwrap_err().to_string();
        assert!(failure.starts_with("slot-001.seg: the payload of 7@1 of g2 is rotten, in memory too"), "{failure}");
    }

    #[test]
    fn what_has_left_memory_is_named_and_what_was_overwritten_is_not() {
        let found = [rot(Some(of(2, 7)))];
        assert_eq!(lost(&found, |_| None).unwrap(), BTreeMap::from([(GroupId(2), vec![Index(7)])]));
        let overwritten = |entry: &RottenEntry| Some((LogId::new(entry.id.index, Term(2)), 6));
        assert_eq!(lost(&found, overwritten).unwrap(), BTreeMap::new());
    }
}
