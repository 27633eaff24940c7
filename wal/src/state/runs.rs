//! Where the entries of one Raft group lie.
//!
//! An idle group has one run or none and keeps it in place; others keep a list.

use pontoon_types::Index;

use crate::format::SegmentKey;
use crate::format::checkpoint::RunPlace;

/// The runs of one group, oldest first.
///
/// Invariants: each run has entries; each starts at the index behind the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Runs {
    #[default]
    None,
    One(RunPlace),
    Many(Vec<RunPlace>),
}

/// The index behind a run.
pub(crate) fn end(run: &RunPlace) -> Index {
    Index(run.first.0 + u64::from(run.count))
}

/// The stretches of consecutive runs that lie in one segment. Runs lie in the order of writing, so there are few.
pub(crate) fn in_one_segment(runs: &[RunPlace]) -> impl Iterator<Item = &[RunPlace]> {
    runs.chunk_by(|one, next| one.segment == next.segment)
}

impl Runs {
    pub(crate) fn as_slice(&self) -> &[RunPlace] {
        match self {
            Runs::None => &[],
            Runs::One(run) => std::slice::from_ref(run),
            Runs::Many(runs) => runs,
        }
    }

    /// The index behind the last entry, if there is one.
    pub(crate) fn end(&self) -> Option<Index> {
        self.as_slice().last().map(end)
    }

    /// Adds a run that follows the last one.
    pub(crate) fn push(&mut self, run: RunPlace) {
        match self {
            Runs::None => *self = Runs::One(run),
            Runs::One(first) => *self = Runs::Many(vec![*first, run]),
            Runs::Many(runs) => runs.push(run),
        }
    }

    /// The position of the run that holds `index`.
    pub(crate) fn find(&self, index: Index) -> Option<usize> {
        let runs = self.as_slice();
        let position = runs.partition_point(|run| run.first <= index).checked_sub(1)?;
        (index < end(&runs[position])).then_some(position)
    }

    /// Cuts everything at and after `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.edit(|runs| {
            runs.truncate(runs.partition_point(|run| run.first < from));
            if let Some(last) = runs.last_mut() {
                last.count = last.count.min((from.0 - last.first.0).min(u64::from(u32::MAX)) as u32);
            }
        });
    }

    /// Drops everything up to and including `to`.
    pub(crate) fn compact(&mut self, to: Index) {
        self.edit(|runs| {
            runs.drain(..runs.partition_point(|run| end(run) <= to.next()));
            if let Some(first) = runs.first_mut()
                && first.first <= to
            {
                first.count -= (to.0 + 1 - first.first.0) as u32;
                first.first = to.next();
            }
        });
    }

    /// Lets the entries of `new` be found at its place, those that are there and lie in `only_in`, if that is said.
    pub(crate) fn replace(&mut self, new: &RunPlace, only_in: Option<SegmentKey>) {
        self.edit(|runs| {
            let first = runs.partition_point(|run| end(run) <= new.first);
            let behind = runs.partition_point(|run| run.first < end(new));
            if first >= behind {
                return;
            }
            let mut pieces = Vec::new();
            for old in &runs[first..behind] {
                if only_in.is_some_and(|segment| segment != old.segment) {
                    pieces.push(*old);
                    continue;
                }
                let (from, until) = (old.first.max(new.first), end(old).min(end(new)));
                pieces.extend(part(old, old.first, from));
                pieces.extend(part(new, from, until));
                pieces.extend(part(old, until, end(old)));
            }
            runs.splice(first..behind, pieces);
        });
    }

    /// Changes the runs as a list, and keeps them as small as they can be.
    fn edit(&mut self, change: impl FnOnce(&mut Vec<RunPlace>)) {
        let mut runs = match std::mem::take(self) {
            Runs::None => return,
            Runs::One(run) => vec![run],
            Runs::Many(runs) => runs,
        };
        change(&mut runs);
        *self = match runs.as_slice() {
            [] => Runs::None,
            [run] => Runs::One(*run),
            _ => {
                if runs.capacity() > 4 * runs.len() {
                    runs.shrink_to(2 * runs.len());
                }
                Runs::Many(runs)
            }
        };
    }
}

/// The entries of a run in `[from, until)`.
fn part(run: &RunPlace, from: Index, until: Index) -> Option<RunPlace> {
    (from < until).then(|| RunPlace { first: from, count: (until.0 - from.0) as u32, ..*run })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(first: u64, count: u32, segment: u32) -> RunPlace {
        RunPlace { first: Index(first), count, segment: SegmentKey(segment), head_at: 0, payloads_at: 0 }
    }

    /// The segment of each index.
    fn spread(runs: &Runs) -> Vec<(u64, u32)> {
        let each = |run: &RunPlace| {
            let segment = run.segment.0;
            (run.first.0..end(run).0).map(move |index| (index, segment)).collect::<Vec<_>>()
        };
        runs.as_slice().iter().flat_map(each).collect()
    }

    #[derive(Clone, Debug)]
    enum Change {
        Push(u32),
        Truncate(u64),
        Compact(u64),
        Replace(u64, u32, Option<u32>),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (1u32..5).prop_map(Change::Push),
            1 => (1u64..40).prop_map(Change::Truncate),
            1 => (1u64..40).prop_map(Change::Compact),
            2 => (1u64..40, 1u32..6, proptest::option::of(0u32..30)).prop_map(|(f, c, s)| Change::Replace(f, c, s)),
        ]
    }

    proptest! {
        /// Runs behave like a map from index to place.
        #[test]
        fn like_a_map(changes in proptest::collection::vec(change(), 1..60)) {
            let mut runs = Runs::default();
            let mut model: Vec<(u64, u32)> = Vec::new();
            for (step, change) in changes.into_iter().enumerate() {
                let segment = step as u32;
                match change {
                    Change::Push(count) => {
                        let first = model.last().map_or(1, |(index, _)| index + 1);
                        runs.push(run(first, count, segment));
                        model.extend((first..first + u64::from(count)).map(|index| (index, segment)));
                    }
                    Change::Truncate(from) => {
                        runs.truncate(Index(from));
                        model.retain(|(index, _)| *index < from);
                    }
                    Change::Compact(to) => {
                        runs.compact(Index(to));
                        model.retain(|(index, _)| *index > to);
                    }
                    Change::Replace(first, count, only) => {
                        runs.replace(&run(first, count, segment), only.map(SegmentKey));
                        for (index, place) in &mut model {
                            let inside = (first..first + u64::from(count)).contains(index);
                            if inside && only.is_none_or(|only| only == *place) {
                                *place = segment;
                            }
                        }
                    }
                }
                prop_assert_eq!(&spread(&runs), &model);
                for (index, _) in &model {
                    let found = runs.find(Index(*index)).unwrap();
                    prop_assert!(runs.as_slice()[found].first.0 <= *index);
                }
                prop_assert_eq!(runs.end().map(|end| end.0), model.last().map(|(index, _)| index + 1));
            }
        }
    }
}
