//! What is true of one group for all time, and of each of its lives.
//!
//! A group has one life, unless a quorum of it was lost for good and it began anew with the survivors
//! ([`crate::quorum_loss`]). Then nothing of the life before counts in the one after: they have different replicas, and each is
//! held against its own truth. The new life begins with what its base holds, all of which is committed from then on, and
//! nothing happens in the old one any more, whoever of its members comes back.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use pontoon_multiraft::Configuration;
use pontoon_multiraft::sessions::SessionLimits;
use pontoon_types::{Descriptor, Entry, EntryKind, GroupId, Index, LogId, ReplicaId, Term};

use crate::invariants::Disks;
use crate::once::Once;
use crate::quorum_loss::empty;
use crate::replica_log::ReplicaLog;
use crate::trace::{Digest, Place};
use crate::violation::Broken;

/// What is true of one group for all time.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) descriptor: Descriptor,
    pub(crate) leaders: BTreeMap<Term, ReplicaId>,
    pub(crate) votes: BTreeMap<(ReplicaId, Term), ReplicaId>,
    /// Every entry that any replica ever appended.
    entries: BTreeMap<LogId, Appended>,
    /// Whether their payloads are kept, so that a life can be told again from its beginning.
    keeps_payloads: bool,
    /// The committed configurations, by their places.
    pub(crate) configurations: Vec<(Index, Configuration)>,
    /// The committed log, and a term at or above the one in which each entry was committed.
    pub(crate) committed: Vec<(LogId, Term)>,
    pub(crate) once: Once,
    pub(crate) digests: BTreeMap<Index, u64>,
    /// The group began anew: nobody leads this life any more, and nothing is committed in it.
    is_over: bool,
}

/// An entry that some replica has appended.
#[derive(Clone, Debug)]
struct Appended {
    previous: LogId,
    /// The digest of its payload.
    digest: u64,
    kind: EntryKind,
    payload: Bytes,
}

/// The truths of all groups, and of the lives that are over.
#[derive(Debug)]
pub(crate) struct Truths {
    present: BTreeMap<GroupId, Truth>,
    /// The life before, of all replicas below this one.
    past: BTreeMap<GroupId, (ReplicaId, Truth)>,
}

impl Truths {
    /// Of groups that have not done anything.
    pub(crate) fn new(descriptors: &[Descriptor], sessions: SessionLimits, keeps_payloads: bool) -> Truths {
        let truth = |descriptor: &Descriptor| (descriptor.group, Truth::new(descriptor, sessions, keeps_payloads));
        Truths { present: descriptors.iter().map(truth).collect(), past: BTreeMap::new() }
    }

    /// The present life of a group.
    pub(crate) fn get(&self, group: GroupId) -> Option<&Truth> {
        self.present.get(&group)
    }

    /// The present lives of all groups.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Truth> {
        self.present.values()
    }

    /// The life of a group to which a replica belongs.
    pub(crate) fn of(&self, group: GroupId, replica: ReplicaId) -> &Truth {
        match self.past.get(&group) {
            Some((first, truth)) if replica < *first => truth,
            _ => self.present.get(&group).expect("law: a core holds groups of its cluster"),
        }
    }

    /// Likewise.
    pub(crate) fn of_mut(&mut self, group: GroupId, replica: ReplicaId) -> &mut Truth {
        match self.past.get_mut(&group) {
            Some((first, truth)) if replica < *first => truth,
            _ => self.present.get_mut(&group).expect("law: a core holds groups of its cluster"),
        }
    }

    /// A group begins anew: `descriptor` has its new members, of which `first` is the lowest, and each of them has `log`, which
    /// ends with the entry that names them. Something of the life before may be missing, or nothing.
    pub(crate) fn begin_anew(
        &mut self,
        descriptor: &Descriptor,
        (first, may_miss): (ReplicaId, bool),
        log: &ReplicaLog,
        sessions: SessionLimits,
    ) -> Result<(), String> {
        let group = descriptor.group;
        let past = self.present.get_mut(&group).expect("law: only groups of the cluster begin anew");
        let mut truth = past.next(descriptor, log, sessions)?;
        past.is_over = true;
        if may_miss {
            truth.once.begins_anew();
        }
        let past = self.present.insert(group, truth).expect("law: a group that begins anew has lived");
        self.past.insert(group, (first, past));
        Ok(())
    }
}

impl Truth {
    fn new(descriptor: &Descriptor, sessions: SessionLimits, keeps_payloads: bool) -> Truth {
        Truth {
            descriptor: descriptor.clone(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            entries: BTreeMap::new(),
            keeps_payloads,
            configurations: Vec::new(),
            committed: Vec::new(),
            once: Once::new(descriptor.group, descriptor.range.clone(), sessions),
            digests: BTreeMap::new(),
            is_over: false,
        }
    }

    /// The life that begins with this log. What it has given up is told again from what this life has committed, so the state
    /// with which the new one begins is that of all its entries from the first on, whatever a checkpoint says.
    fn next(&self, descriptor: &Descriptor, log: &ReplicaLog, sessions: SessionLimits) -> Result<Truth, String> {
        let mut next = Truth::new(descriptor, sessions, self.keeps_payloads);
        let given_up = log.compacted;
        if given_up.index.0 > 0 && self.id_at(given_up.index) != Some(given_up) {
            return Err(format!("its base has given up {given_up}, where nobody has committed that"));
        }
        let old = self.committed.iter().take(given_up.index.0 as usize).map(|(id, _)| {
            let Appended { kind, payload, .. } = &self.entries[id];
            let mut entry = Entry { id: *id, kind: *kind, payload: payload.clone() };
            empty(&mut entry);
            entry
        });
        let term = log.hard_state.term;
        let mut previous = LogId::default();
        for entry in old.chain(log.entries.iter().cloned()) {
            next.matches(&entry, previous).map_err(|id| format!("its base has two entries at {id}"))?;
            next.once.apply_next(&entry).map_err(|broken| broken.to_string())?;
            next.committed.push((entry.id, term));
            previous = entry.id;
            if let Some(configuration) = Configuration::decode(&entry.payload).ok()
                && entry.kind == EntryKind::Configuration
            {
                next.configurations.push((entry.id.index, configuration));
            }
        }
        Ok(next)
    }

    /// Whether replicas that do not survive may have decided by a configuration that this log does not hold: committed or not, it
    /// is in force where it stands.
    pub(crate) fn may_have_gone_on_without(&self, log: &ReplicaLog, survivors: &[ReplicaId]) -> bool {
        let unheard = self.entries.iter().filter(|(id, of)| of.kind == EntryKind::Configuration && !log.covers(**id));
        let mut configurations = unheard.filter_map(|(_, of)| Configuration::decode(&of.payload).ok());
        configurations.any(|configuration| configuration.is_quorum(|replica| !survivors.contains(&replica)))
    }

    /// The highest term in which anybody has voted or led, and the highest replica that was ever named.
    pub(crate) fn highest(&self) -> (Term, ReplicaId) {
        let voted = self.votes.keys().map(|(_, term)| *term);
        let terms = voted.chain(self.leaders.keys().copied()).chain(self.entries.keys().map(|id| id.term));
        let named = self.configurations.iter().map(|(_, configuration)| configuration.highest());
        let founders = self.descriptor.members.iter().map(|member| member.replica);
        (terms.max().unwrap_or_default(), named.chain(founders).max().unwrap_or_default())
    }

    /// The committed entry at `index`.
    pub(crate) fn id_at(&self, index: Index) -> Option<LogId> {
        self.committed.get(index.0.checked_sub(1)? as usize).map(|(id, _)| *id)
    }

    pub(crate) fn leads(&mut self, group: GroupId, term: Term, leader: ReplicaId) -> Result<(), Broken> {
        if self.is_over && !self.leaders.contains_key(&term) {
            return Err(Broken::DeadLeads { group, term, leader });
        }
        let first = *self.leaders.entry(term).or_insert(leader);
        if first != leader {
            return Err(Broken::TwoLeaders { group, term, first, second: leader });
        }
        Ok(())
    }

    /// Log matching by induction: an identity has one payload and one predecessor for all time.
    pub(crate) fn matches(&mut self, entry: &Entry, previous: LogId) -> Result<(), LogId> {
        let mut digest = Digest::default();
        entry.payload.hash(&mut digest);
        let digest = digest.finish();
        let keeps = self.keeps_payloads;
        let first = self.entries.entry(entry.id).or_insert_with(|| {
            let payload = if keeps { Bytes::copy_from_slice(&entry.payload) } else { Bytes::new() };
            Appended { previous, digest, kind: entry.kind, payload }
        });
        if (first.previous, first.digest) != (previous, digest) { Err(entry.id) } else { Ok(()) }
    }

    pub(crate) fn commit(&mut self, place: Place, entry: &Entry, term: Term) -> Result<(), Broken> {
        let group = self.descriptor.group;
        let Some((first, _)) = self.committed.get(entry.id.index.previous().0 as usize) else {
            if self.is_over {
                return Err(Broken::DeadCommits { group, place, id: entry.id });
            }
            if entry.id.index.0 != self.committed.len() as u64 + 1 {
                let what = format!("{} is committed, and nobody has committed what stands before it", entry.id);
                return Err(Broken::Pointers { group, place, what });
            }
            self.committed.push((entry.id, term));
            if entry.kind == EntryKind::Configuration
                && let Ok(configuration) = Configuration::decode(&entry.payload)
            {
                self.check_named(&configuration)?;
                self.configurations.push((entry.id.index, configuration));
            }
            return Ok(());
        };
        if *first != entry.id {
            let (first, second) = (*first, entry.id);
            return Err(Broken::CommittedDiffers { group, index: second.index, first, second, place });
        }
        Ok(())
    }

    /// A replica that was removed is never named again (law 11).
    fn check_named(&self, next: &Configuration) -> Result<(), Broken> {
        let group = self.descriptor.group;
        let Some((_, before)) = self.configurations.last() else { return Ok(()) };
        let named_again = next.members().iter().find(|(member, _)| before.has_removed(member.replica));
        named_again.map_or(Ok(()), |(member, _)| Err(Broken::NamedAgain { group, replica: member.replica }))
    }

    /// What is committed is durable on a quorum of a configuration by which it may have been committed.
    pub(crate) fn check_copies(
        &self,
        configurations: &[Configuration],
        core: pontoon_types::CoreId,
        id: LogId,
        disks: &Disks,
    ) -> Result<(), Broken> {
        let group = self.descriptor.group;
        // An acknowledgement from before a disk was put back counts: its replica helps to elect nobody who has not the entry.
        let holds = |configuration: &Configuration, replica| {
            let disk = configuration.node_of(replica).map(|node| &disks[&Place { node, core }]);
            disk.is_some_and(|disk| disk.holds(group, replica, id) || disk.held(group, replica, id))
        };
        if configurations.iter().any(|it| it.is_quorum(|replica| holds(it, replica))) {
            return Ok(());
        }
        let Some(newest) = configurations.last() else { return Ok(()) };
        let copies = newest.voters().filter(|replica| holds(newest, *replica)).count();
        let quorum = newest.voters().count() / 2 + 1;
        Err(Broken::CommittedNotDurable { group, id, copies, quorum })
    }
}
