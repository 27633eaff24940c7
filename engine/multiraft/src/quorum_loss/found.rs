//! What counts of a replica that a survivor holds: its log, its checkpoint, and which of the two goes further.

use pontoon_raft::membership::Configuration;
use pontoon_types::{Descriptor, Entry, Generation, HardState, Index, LogId, ReplicaId, SnapshotMeta, Term};

use super::SurvivingReplica;

/// What the log and the store of a survivor hold of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub replica: ReplicaId,
    /// The range and the members with which it was created.
    pub created: Descriptor,
    /// Its term and vote.
    pub hard_state: HardState,
    /// What it voted is not known, or its core was refused by its peers (law 12): it never votes.
    pub vote_lost: bool,
    /// Its log begins behind this entry.
    pub compacted: LogId,
    /// The last entry of its log, or what was given up last.
    pub last: LogId,
    /// How far its log says that its entries are committed.
    pub noted: Index,
    /// The first entry of its log, and the first of each later term.
    pub starts: Vec<LogId>,
    /// The entries that name its members, in order, with an empty payload if it is rotten.
    pub configurations: Vec<Entry>,
    /// The entries whose payload is rotten, in order.
    pub rotten: Vec<LogId>,
    /// Its newest checkpoint, if that is whole and counts.
    pub checkpoint: Option<SnapshotMeta>,
}

/// A replica as a survivor has it, and what goes into the life that may begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the plan needs to know of it.
    pub replica: SurvivingReplica,
    /// The newest descriptor that stands on the disk.
    pub descriptor: Descriptor,
    /// The entry up to which its state is in the store, if that counts.
    pub checkpoint: Option<LogId>,
    /// The log does not hold the checkpoint, so it begins anew behind it (law 18).
    pub is_reset: bool,
}

/// Whether a checkpoint is of use to a replica whose log begins behind `compacted`.
pub fn counts(checkpoint: &SnapshotMeta, replica: ReplicaId, compacted: LogId) -> bool {
    checkpoint.replica == replica && checkpoint.last.index >= compacted.index
}

impl Found {
    /// What counts of what is there. None if its members cannot be read.
    pub fn of(held: Held) -> Option<Found> {
        let Held { compacted, created, checkpoint, .. } = held;
        let settled = checkpoint.as_ref().map_or(compacted, |checkpoint| checkpoint.last);
        let is_reset = term_at(compacted, &held.starts, held.last.index, settled.index) != Some(settled.term);
        let last = if is_reset { settled } else { held.last };
        let founders = match &checkpoint {
            Some(checkpoint) => Configuration::decode(&checkpoint.configuration).ok(),
            None => Configuration::of_voters(created.members.iter().copied()).ok(),
        };
        let behind = |index: Index| !is_reset && index > settled.index;
        let (configurations, are_known) = configurations(founders?, &held.configurations, behind);
        let rotten = held.rotten.iter().filter(|id| behind(id.index)).collect::<Vec<_>>();
        let unusable = if checkpoint.is_none() && compacted.index > Index(0) {
            Some(format!("its state up to {compacted} is lost: there is no checkpoint that can be read"))
        } else if let Some(first) = rotten.first() {
            Some(format!("the payloads of {} entries are rotten, the first is {first}", rotten.len()))
        } else {
            (!are_known).then(|| "an entry that names its members cannot be read".to_string())
        };
        let noted = term_at(compacted, &held.starts, held.last.index, held.noted).filter(|_| !is_reset);
        let noted = noted.map_or(settled, |term| LogId::new(held.noted, term));
        let changes = held.configurations.len() as u64;
        let (last_stored, descriptor) = match checkpoint {
            Some(checkpoint) => (Some(checkpoint.last), checkpoint.descriptor),
            None => (None, created),
        };
        let replica = SurvivingReplica {
            replica: held.replica,
            hard_state: held.hard_state,
            vote_lost: held.vote_lost,
            committed: settled.max(noted),
            compacted: if is_reset { settled } else { compacted },
            starts: if is_reset { Vec::new() } else { held.starts },
            last,
            configurations,
            generation: Generation(descriptor.generation.0.saturating_add(changes)),
            unusable,
        };
        Some(Found { replica, descriptor, checkpoint: last_stored, is_reset })
    }
}

/// The configurations that may be in force, the oldest first, and whether all that stand there can be read.
fn configurations(
    founders: Configuration,
    entries: &[Entry],
    behind: impl Fn(Index) -> bool,
) -> (Vec<Configuration>, bool) {
    let named = entries.iter().filter(|entry| behind(entry.id.index));
    let named: Vec<_> = named.map(|entry| Configuration::decode(&entry.payload).ok()).collect();
    let are_known = named.iter().all(Option::is_some);
    (std::iter::once(founders).chain(named.into_iter().flatten()).collect(), are_known)
}

/// What of an index is known in a log: the term of the entry, if it is there.
pub fn term_at(compacted: LogId, starts: &[LogId], last: Index, index: Index) -> Option<Term> {
    if index == compacted.index {
        return Some(compacted.term);
    }
    let place = starts.partition_point(|start| start.index <= index).checked_sub(1)?;
    (index > compacted.index && index <= last).then(|| starts[place].term)
}
