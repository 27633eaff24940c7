//! Rot that the log has found by reading what it stores, before anybody needed it.
//!
//! A payload that is rotten on the disk is still in memory, so its group writes it again. What else is rotten is named to the
//! operator: nothing that a group could give would repair it. A core that sleeps hands it on when it wakes.

use std::collections::BTreeMap;

use pontoon_multiraft::Event;
use pontoon_types::{GroupId, Index, Time};
use pontoon_wal::Rot;

use super::CoreLoop;
use crate::driver::Driver;

impl<D: Driver> CoreLoop<D> {
    /// Tells the groups, and the operator, what was found since the last time.
    pub(super) fn hand_on_rot(&mut self, now: Time) {
        let found = self.log.take_rot();
        for rot in &found {
            match rot.entry {
                Some((group, id)) => {
                    tracing::error!("{}: the payload of {id} of {group} is rotten; it is written again", rot.file);
                }
                None => tracing::error!("{}: the records at byte {} are rotten", rot.file, rot.offset),
            }
        }
        for (group, indexes) in lost(&found) {
            self.step(now, Event::Lost { group, indexes });
        }
    }
}

/// The entries without a payload, by group.
fn lost(found: &[Rot]) -> BTreeMap<GroupId, Vec<Index>> {
    let mut groups: BTreeMap<GroupId, Vec<Index>> = BTreeMap::new();
    for (group, id) in found.iter().filter_map(|rot| rot.entry) {
        groups.entry(group).or_default().push(id.index);
    }
    groups
}

#[cfg(test)]
mod tests {
    use pontoon_types::{LogId, Term};

    use super::*;

    #[test]
    fn each_group_hears_of_its_own_entries() {
        let rot = |entry| Rot { file: "slot".to_string(), offset: 0, entry };
        let of = |group, index| Some((GroupId(group), LogId::new(Index(index), Term(1))));
        let found = [rot(of(2, 7)), rot(None), rot(of(3, 1)), rot(of(2, 4))];
        let expected = [(GroupId(2), vec![Index(7), Index(4)]), (GroupId(3), vec![Index(1)])];
        assert_eq!(lost(&found), BTreeMap::from(expected));
        assert_eq!(lost(&[rot(None)]), BTreeMap::new());
    }
}
