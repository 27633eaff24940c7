//! The safety checks: what must hold after every turn of every core.
//!
//! The checker knows more than any replica: every write that was appended, every entry that some replica took for
//! committed, every vote and every leader of all time. It is told of each turn in three parts, and each part is small:
//!
//! - the appended writes ([`Invariants::appended`]): log matching, and that no committed entry is cut away
//! - the views of the replicas ([`Invariants::observe`]): election safety, leader completeness, equal committed
//!   prefixes, commits of the own term only and durable on a quorum, members as the log says, equal states, pointers that never go back
//! - the frames ([`Invariants::sent`]): nothing promises what is not durable (law 13), one vote in a term
//!
//! What clients see is checked elsewhere (`history`).

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use pontoon_multiraft::quorum_loss::Recovery;
use pontoon_multiraft::sessions::SessionLimits;
use pontoon_multiraft::{Configuration, CoreWrite, GroupView, Role, Standing};
use pontoon_types::{
    Body, ClientId, Descriptor, Entry, EntryKind, GroupId, Index, LogId, Message, NodeId, ReplicaId, Term,
};
use pontoon_wire::client::OperationOutcome;
use pontoon_wire::order::Order;
use pontoon_wire::peer::PeerFrame;

use crate::disk::Disk;
use crate::once::Once;
use crate::orders::in_force_since;
use crate::replica_log::ReplicaLog;
use crate::trace::{Digest, Place};
use crate::truth::Truths;
use crate::violation::Broken;

/// All disks, by place.
pub type Disks = BTreeMap<Place, Disk>;

/// What one replica looked like after its last turn, and its log in memory.
#[derive(Debug)]
struct Replica {
    me: ReplicaId,
    log: ReplicaLog,
    role: Role,
    /// The term in which it leads, if it does.
    leads: Option<Term>,
    term: Term,
    vote: Option<ReplicaId>,
    committed: Index,
    applied: Index,
    write_number: u64,
    /// What its log had given up when its members were looked at last.
    members_at: LogId,
    /// How it looked after its last turn.
    glance: Option<Glance>,
}

/// What can be seen of a replica without looking into its log or its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Glance {
    role: Role,
    term: Term,
    vote: Option<ReplicaId>,
    last: LogId,
    durable: Index,
    committed: Index,
    applied: Index,
    is_ready: bool,
}

impl Glance {
    fn of(view: &GroupView<'_>) -> Glance {
        Glance {
            role: view.role(),
            term: view.term(),
            vote: view.vote(),
            last: view.last(),
            durable: view.durable(),
            committed: view.committed(),
            applied: view.applied(),
            is_ready: view.is_ready(),
        }
    }
}

/// What changed at a replica in a turn, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its role or term.
    Role(GroupId, &'static str, Term),
    /// Its commit index.
    Committed(GroupId, Index),
}

/// The checker.
#[derive(Debug)]
pub struct Invariants {
    truths: Truths,
    replicas: BTreeMap<(Place, GroupId), Replica>,
    core_writes: BTreeMap<Place, u64>,
    /// The terms before the turn that was observed last, of the replicas that it may have changed.
    terms_before: BTreeMap<GroupId, Term>,
    /// Views checked, to show that the checker had something to check.
    pub checked: u64,
    /// Leaders elected while one of an older term still took itself for one.
    pub overlaps: u64,
}

impl Invariants {
    /// A checker for these groups, some of which may begin anew.
    pub fn new(descriptors: &[Descriptor], sessions: SessionLimits, may_begin_anew: bool) -> Invariants {
        Invariants {
            truths: Truths::new(descriptors, sessions, may_begin_anew),
            replicas: BTreeMap::new(),
            core_writes: BTreeMap::new(),
            terms_before: BTreeMap::new(),
            checked: 0,
            overlaps: 0,
        }
    }

    /// A core started from its disk: its replicas are what the disk says.
    pub fn started(&mut self, place: Place, group: GroupId, log: &ReplicaLog) {
        self.replicas.insert((place, group), Replica::of(log.clone()));
    }

    /// A core is about to start: nothing of its former life counts.
    pub fn starts(&mut self, place: Place) {
        self.replicas.retain(|(of, _), _| *of != place);
        self.core_writes.insert(place, 0);
    }

    /// A core appended to its log.
    pub fn appended(&mut self, place: Place, append: &CoreWrite) -> Result<(), Broken> {
        let last = self.core_writes.entry(place).or_default();
        for (group, write) in &append.writes {
            let bad = |what: String| Broken::BadWrite { group: *group, place, what };
            if append.number.0 != *last + 1 {
                return Err(bad(format!("append {} follows append {last}", append.number)));
            }
            if let Some(creation) = &write.create {
                let known = self.replicas.insert((place, *group), Replica::of(ReplicaLog::new(creation.replica)));
                if known.is_some() {
                    return Err(bad(format!("{} is created where there is a replica", creation.replica)));
                }
            }
            let replica = self.replicas.get_mut(&(place, *group)).expect("law: only started replicas write");
            if write.number.0 != replica.write_number + 1 {
                return Err(bad(format!("write {} follows write {}", write.number, replica.write_number)));
            }
            replica.write_number = write.number.0;
            replica.glance = None;
            if let Some(from) = write.truncate_from.filter(|from| *from <= replica.committed) {
                return Err(bad(format!("it truncates from {from} but has committed {}", replica.committed)));
            }
            replica.log.write(write).map_err(bad)?;
            let truth = self.truths.of_mut(*group, replica.me);
            for entry in &write.entries {
                let previous = replica.log.id_at(entry.id.index.previous()).unwrap_or_default();
                truth.matches(entry, previous).map_err(|id| Broken::LogMatching { group: *group, id, place })?;
            }
            if write.remove.is_some() {
                self.replicas.remove(&(place, *group));
            }
        }
        *last = append.number.0;
        Ok(())
    }

    /// A turn of `place` is over, which may have changed these replicas there. Returns what changed.
    pub fn observe<'a>(
        &mut self,
        place: Place,
        views: impl Iterator<Item = GroupView<'a>>,
        disks: &Disks,
    ) -> Result<Vec<Change>, Broken> {
        let mut changes = Vec::new();
        self.terms_before.clear();
        for view in views {
            let replica = self.replicas.get_mut(&(place, view.group())).expect("law: only started replicas are seen");
            self.terms_before.insert(view.group(), replica.term);
            // What is checked of a view follows from these and from writes.
            let glance = Glance::of(&view);
            if replica.glance.replace(glance) == Some(glance) {
                continue;
            }
            self.checked += 1;
            self.check_pointers(place, &view, disks)?;
            self.check_leadership(place, &view, &mut changes)?;
            self.check_commit(place, &view, disks, &mut changes)?;
            self.check_change(place, &view)?;
            self.check_members(place, &view)?;
            self.check_state(place, &view)?;
        }
        Ok(changes)
    }

    fn check_pointers(&mut self, place: Place, view: &GroupView<'_>, disks: &Disks) -> Result<(), Broken> {
        let group = view.group();
        let replica = self.replicas.get_mut(&(place, group)).expect("law: only started replicas are seen");
        let wrong = |what: String| Err(Broken::Pointers { group, place, what });
        if view.term() < replica.term {
            return wrong(format!("the term goes back from {} to {}", replica.term, view.term()));
        }
        if let (true, Some(first), second) = (view.term() == replica.term, replica.vote, view.vote())
            && second != Some(first)
            && !view.is_vote_lost()
        {
            return Err(Broken::VoteForgotten { group, place, term: view.term(), first, second });
        }
        if view.committed() < replica.committed || view.applied() < replica.applied {
            let (committed, applied) = (view.committed(), view.applied());
            return wrong(format!("committed or applied goes back, to {committed} and {applied}"));
        }
        let (applied, committed, last) = (view.applied(), view.committed(), view.last());
        if !(applied <= committed && committed <= last.index && view.durable() <= last.index) {
            return wrong(format!("applied {applied}, committed {committed}, durable {}, last {last}", view.durable()));
        }
        if last != replica.log.last() || view.term() != replica.log.hard_state.term {
            let (written, term) = (replica.log.last(), replica.log.hard_state.term);
            return wrong(format!("it ends at {last} in term {}, its writes at {written} in {term}", view.term()));
        }
        let durable = replica.log.id_at(view.durable()).filter(|id| disks[&place].holds(group, replica.me, *id));
        if durable.is_none() {
            let on_disk = disks[&place].durable(group).id_at(view.durable());
            return wrong(format!("it takes {} for durable, the disk has {on_disk:?} there", view.durable()));
        }
        (replica.term, replica.vote, replica.applied) = (view.term(), view.vote(), view.applied());
        Ok(())
    }

    fn check_leadership(
        &mut self,
        place: Place,
        view: &GroupView<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), Broken> {
        let (group, term) = (view.group(), view.term());
        let replica = self.replicas.get_mut(&(place, group)).expect("law: only started replicas are seen");
        let truth = self.truths.of_mut(group, replica.me);
        let leads = (view.role() == Role::Leader).then_some(term);
        if (view.role(), leads) == (replica.role, replica.leads) {
            return Ok(());
        }
        let role = match view.role() {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        };
        changes.push(Change::Role(group, role, term));
        if view.role() == Role::Leader {
            truth.leads(group, term, replica.me)?;
            // In one turn a sole voter may be elected, commit and change the members.
            let of_own_term = replica.log.entries.iter().rev().take_while(|entry| entry.id.term == term);
            let has_changed = of_own_term.into_iter().any(|entry| entry.kind == EntryKind::Configuration);
            let voted = |voter| voter == replica.me || truth.votes.get(&(voter, term)) == Some(&replica.me);
            if !has_changed && !view.configuration().is_quorum(voted) {
                let voters = view.configuration().voters().filter(|voter| voted(*voter)).collect();
                return Err(Broken::NotElected { place, group, term, voters });
            }
            let lacks =
                truth.committed.iter().find(|(id, committed_in)| *committed_in < term && !replica.log.covers(*id));
            if let Some((missing, _)) = lacks {
                return Err(Broken::LeaderLacks { place, group, term, missing: *missing });
            }
            let is_overlapped = self.replicas_of(group).filter_map(|(_, other)| other.leads).any(|older| older < term);
            self.overlaps += u64::from(is_overlapped);
        }
        Ok(())
    }

    fn check_commit(
        &mut self,
        place: Place,
        view: &GroupView<'_>,
        disks: &Disks,
        changes: &mut Vec<Change>,
    ) -> Result<(), Broken> {
        let group = view.group();
        let replica = self.replicas.get_mut(&(place, group)).expect("law: only started replicas are seen");
        let (before, after) = (replica.committed, view.committed());
        // Who leads in one term at both ends of the turn moved its commit index itself.
        let leads = (view.role() == Role::Leader).then(|| view.term());
        let by_itself = leads.is_some() && leads == replica.leads;
        (replica.role, replica.leads, replica.committed) = (view.role(), leads, after);
        if before == after {
            return Ok(());
        }
        changes.push(Change::Committed(group, after));
        let term = view.term();
        let id = replica.log.id_at(after).expect("law: the pointers were checked before");
        if by_itself && id.term != term {
            return Err(Broken::CommitOfOldTerm { place, group, term, id });
        }
        let new: Vec<Entry> = replica.log.between(before, after).to_vec();
        let compacted = replica.log.compacted;
        let truth = self.truths.of_mut(group, replica.me);
        let known = truth.committed.len();
        let is_committed = truth.id_at(compacted.index) == Some(compacted);
        if compacted.index > before && !is_committed {
            let what = format!("it has a state at {compacted}, where nobody has committed that");
            return Err(Broken::Pointers { group, place, what });
        }
        for entry in &new {
            truth.commit(place, entry, term)?;
        }
        if truth.committed.len() > known {
            let configurations = in_force_since(&truth.descriptor, &truth.configurations, &replica.log, id);
            truth.check_copies(&configurations, place.core, id, disks)?;
            self.check_leaders_have(group, id, term)?;
        }
        Ok(())
    }

    /// A leader changes the members only when it has committed an entry of its own term. Before that somebody else may be about
    /// to commit another change, and quorums of the two need not overlap.
    fn check_change(&self, place: Place, view: &GroupView<'_>) -> Result<(), Broken> {
        let (group, term) = (view.group(), view.term());
        let log = &self.replicas[&(place, group)].log;
        if view.role() != Role::Leader || log.id_at(view.committed()).is_none_or(|id| id.term == term) {
            return Ok(());
        }
        let own = |entry: &&Entry| entry.id.term == term && entry.kind == EntryKind::Configuration;
        match log.between(view.committed(), view.last().index).iter().find(own) {
            Some(change) => Err(Broken::EarlyChange { group, place, id: change.id }),
            None => Ok(()),
        }
    }

    /// The members that count are those of the last configuration in the log, or what stands for the log that was given up.
    /// Looked at whenever some more of it was.
    fn check_members(&mut self, place: Place, view: &GroupView<'_>) -> Result<(), Broken> {
        let group = view.group();
        let replica = self.replicas.get_mut(&(place, group)).expect("law: only started replicas are seen");
        let compacted = replica.log.compacted;
        if std::mem::replace(&mut replica.members_at, compacted) == compacted {
            return Ok(());
        }
        let truth = self.truths.of(group, replica.me);
        let in_force = in_force_since(&truth.descriptor, &truth.configurations, &replica.log, view.last());
        match in_force.last() {
            Some(says) if says != view.configuration() => {
                let (in_force, says) = (view.configuration().to_string(), says.to_string());
                Err(Broken::WrongMembers { group, place, in_force, says })
            }
            _ => Ok(()),
        }
    }

    /// A newly committed entry is in the log of every replica that leads in a later term.
    fn check_leaders_have(&self, group: GroupId, id: LogId, committed_in: Term) -> Result<(), Broken> {
        for (place, replica) in self.replicas_of(group) {
            let leads_later = replica.role == Role::Leader && replica.term > committed_in;
            if leads_later && !replica.log.covers(id) {
                return Err(Broken::LeaderLacks { place, group, term: replica.term, missing: id });
            }
        }
        Ok(())
    }

    /// The replicas of a group on all cores.
    fn replicas_of(&self, group: GroupId) -> impl Iterator<Item = (Place, &Replica)> {
        self.core_writes.keys().filter_map(move |place| Some((*place, self.replicas.get(&(*place, group))?)))
    }

    fn check_state(&mut self, place: Place, view: &GroupView<'_>) -> Result<(), Broken> {
        let (group, applied) = (view.group(), view.applied());
        if !view.holds_state() {
            return Ok(());
        }
        let Replica { me, log, .. } = &self.replicas[&(place, group)];
        let truth = self.truths.of_mut(group, *me);
        truth.once.apply(log, applied)?;
        if truth.once.digest_at(applied).is_some_and(|digest| digest != view.digest()) {
            return Err(Broken::StateDiffers { group, applied, place });
        }
        // The descriptor is a part of the state: it changes at apply (law 23).
        let mut digest = Digest::default();
        let descriptor = view.descriptor();
        (view.digest(), descriptor.generation, &descriptor.members).hash(&mut digest);
        let digest = digest.finish();
        if *truth.digests.entry(applied).or_insert(digest) != digest {
            return Err(Broken::StateDiffers { group, applied, place });
        }
        Ok(())
    }

    /// A core that did not crash meanwhile hands a frame to the network.
    pub fn sent(&mut self, place: Place, frame: &PeerFrame, disk: &Disk) -> Result<(), Broken> {
        for (group, message) in &frame.messages {
            self.check_message(place, *group, message, disk.durable(*group))?;
            if let (Body::AppendResponse { matched }, Some(missing)) =
                (&message.body, disk.oracle().first_missing(*group))
                && *matched >= missing
            {
                let what = format!("AppendResponse matched {matched} in term {}", message.term);
                let durable = format!("lost the payload of {missing}");
                return Err(Broken::PromiseNotDurable { place, group: *group, what, durable });
            }
        }
        for (group, asked) in frame.confirmations.iter().flat_map(|confirmation| &confirmation.groups) {
            // It may have reached another term later in the same turn.
            let known = || self.replicas.get(&(place, *group)).map(|replica| replica.term);
            let term = self.terms_before.get(group).copied().or_else(known).unwrap_or_default();
            if term > *asked {
                return Err(Broken::ConfirmedOldTerm { place, group: *group, asked: *asked, term });
            }
        }
        let Some(beacon) = &frame.beacon else { return Ok(()) };
        let changes = beacon.changes.iter().filter(|claim| claim.leads).map(|claim| (claim.group, claim.term));
        let listed = beacon.page.iter().flat_map(|page| &page.claims).map(|claim| (claim.group, claim.term));
        for (group, term) in changes.chain(listed) {
            let Some(me) = self.replicas.get(&(place, group)).map(|replica| replica.me) else { continue };
            self.truths.of_mut(group, me).leads(group, term, me)?;
        }
        Ok(())
    }

    fn check_message(
        &mut self,
        place: Place,
        group: GroupId,
        message: &Message,
        disk: &ReplicaLog,
    ) -> Result<(), Broken> {
        let Message { from, to, term, body } = message;
        let truth = self.truths.of_mut(group, *from);
        let not_durable = |what: String| {
            let durable =
                format!("term {}, vote {:?}, last {}", disk.hard_state.term, disk.hard_state.vote, disk.last());
            Err(Broken::PromiseNotDurable { place, group, what, durable })
        };
        let vote = match body {
            Body::Vote { .. } => Some(*from),
            Body::VoteResponse { granted: true } => Some(*to),
            _ => None,
        };
        if let Some(vote) = vote {
            let first = *truth.votes.entry((*from, *term)).or_insert(vote);
            if first != vote {
                return Err(Broken::VoteChanged { group, voter: *from, term: *term, first, second: vote });
            }
            if disk.votes.get(term) != Some(&vote) {
                return not_durable(format!("a vote for {vote} in term {term}"));
            }
        }
        match body {
            Body::Append { .. } => truth.leads(group, *term, *from)?,
            // With a later term in memory or on the disk the log may have been cut lawfully since the promise.
            Body::AppendResponse { matched } if disk.hard_state.term <= *term => {
                let Some(log) = self.replicas.get(&(place, group)).map(|replica| &replica.log) else { return Ok(()) };
                let as_written = *matched <= log.compacted.index
                    || disk.id_at(*matched) == log.id_at(*matched)
                    || log.hard_state.term > *term;
                if disk.hard_state.term < *term || disk.last().index < *matched || !as_written {
                    return not_durable(format!("AppendResponse matched {matched} in term {term}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where a request was carried out, as far as any replica has applied.
    pub fn executed_at(&self, group: GroupId, client: ClientId, sequence: u64) -> Option<Index> {
        self.truths.get(group)?.once.executed_at(client, sequence)
    }

    /// A client heard that its request was carried out and came to this: it was, and did when it was.
    pub fn acknowledged(
        &self,
        group: GroupId,
        client: ClientId,
        sequence: u64,
        outcomes: &[OperationOutcome],
    ) -> Result<(), Broken> {
        match self.truths.get(group).and_then(|truth| truth.once.outcomes(client, sequence)) {
            None => Err(Broken::AcknowledgedNotCommitted { group, client, sequence }),
            Some(first) if first == outcomes => Ok(()),
            Some(first) => {
                let what = format!("came to {first:?} and is acknowledged with {outcomes:?}");
                Err(Broken::WrongMemory { group, client, sequence, what })
            }
        }
    }

    /// Entries that were not executed: because their request had been, and because it was forgotten.
    pub fn not_executed(&self) -> (u64, u64) {
        let sum = |of: fn(&Once) -> u64| self.truths.all().map(|truth| of(&truth.once)).sum();
        (sum(|once| once.repeated), sum(|once| once.forgotten))
    }

    /// Leaders elected so far, in all groups.
    pub fn elections(&self) -> u64 {
        self.truths.all().map(|truth| truth.leaders.len() as u64).sum()
    }

    /// Entries committed so far, in all groups.
    pub fn entries_committed(&self) -> u64 {
        self.truths.all().map(|truth| truth.committed.len() as u64).sum()
    }

    /// The node of the newest leader of a group.
    pub fn newest_leader(&self, group: GroupId) -> Option<NodeId> {
        let truth = self.truths.get(group)?;
        let (_, leader) = truth.leaders.last_key_value()?;
        let known = truth.configurations.iter().rev().find_map(|(_, configuration)| configuration.node_of(*leader));
        known.or_else(|| truth.descriptor.node_of(*leader))
    }

    /// Whether what an operator has ordered has come about, at the moment of the order or later.
    pub fn is_carried_out(&self, group: GroupId, order: &Order) -> bool {
        let Some(truth) = self.truths.get(group) else { return false };
        match order {
            Order::Members { generation, voters, learners } => {
                let founders = Configuration::of_voters(truth.descriptor.members.iter().copied()).ok();
                let committed = truth.configurations.iter().map(|(_, configuration)| configuration);
                let seen = generation.0.saturating_sub(truth.descriptor.generation.0) as usize;
                let mut since = founders.iter().chain(committed).skip(seen);
                since.any(|configuration| has_members(configuration, voters, learners))
            }
            Order::Transfer { term, to } => {
                let known = |replica| truth.configurations.iter().find_map(|(_, known)| known.node_of(replica));
                let node_of = |replica| known(replica).or_else(|| truth.descriptor.node_of(replica));
                // Who won and lost an election within one turn was never seen to lead, but has voted for itself.
                let mut stood = truth.votes.iter().filter(|((voter, at), vote)| voter == *vote && at >= term);
                truth.leaders.range(*term..).any(|(_, leader)| node_of(*leader) == Some(*to))
                    || stood.any(|((voter, _), _)| node_of(*voter) == Some(*to))
            }
        }
    }

    /// A group begins anew by a plan: `descriptor` has its new members, and each of them has `log`. `committed` is up to where a
    /// survivor shows it to be committed. Nothing of what is known to be committed may be missing, unless the lost members may
    /// have decided alone, and nothing of the life before may pass for something of the one that begins (law 11). Returns
    /// whether something that was committed is missing.
    pub(crate) fn begin_anew(
        &mut self,
        recovery: &Recovery,
        descriptor: &Descriptor,
        log: &ReplicaLog,
        (committed, survivors): (LogId, &[ReplicaId]),
        sessions: SessionLimits,
    ) -> Result<bool, Broken> {
        let group = descriptor.group;
        let truth = self.truths.get(group).expect("law: only groups of the cluster begin anew");
        let first = recovery.configuration.voters().min().unwrap_or_default();
        let (term, replica) = truth.highest();
        if first <= replica {
            return Err(Broken::NamedAgain { group, replica: first });
        }
        let highest = truth.configurations.len() as u64 + truth.descriptor.generation.0;
        if recovery.entry.term <= term || recovery.generation.0 <= highest {
            let what = format!("term {} and generation {}", recovery.entry.term, recovery.generation);
            return Err(Broken::NotAnew { group, what });
        }
        if !log.covers(committed) {
            return Err(Broken::BaseLacks { group, missing: committed });
        }
        let missing = truth.committed.iter().map(|(id, _)| *id).find(|id| !log.covers(*id));
        // Who was just having a survivor removed may have gone on without it, if no survivor has heard of that.
        let is_excused = recovery.may_miss || truth.may_have_gone_on_without(log, survivors);
        if let Some(missing) = missing.filter(|_| !is_excused) {
            return Err(Broken::BaseLacks { group, missing });
        }
        let may_miss = recovery.may_miss || missing.is_some();
        let begun = self.truths.begin_anew(descriptor, (first, may_miss), log, sessions);
        begun.map(|()| missing.is_some()).map_err(|what| Broken::NotAnew { group, what })
    }

    /// What a key of a group has, as far as the model has applied.
    pub(crate) fn value(&self, group: GroupId, key: &[u8]) -> Option<Bytes> {
        self.truths.get(group)?.once.value(key)
    }

    /// The members of a group as far as they are committed.
    pub fn members(&self, group: GroupId) -> Option<Configuration> {
        let truth = self.truths.get(group)?;
        let committed = truth.configurations.last().map(|(_, configuration)| configuration.clone());
        committed.or_else(|| Configuration::of_voters(truth.descriptor.members.iter().copied()).ok())
    }
}

/// Whether a configuration is simple and has exactly these members.
fn has_members(configuration: &Configuration, voters: &[NodeId], learners: &[NodeId]) -> bool {
    let named = voters.len() + learners.len();
    let stands = |node: &NodeId, wanted| {
        configuration.replica_on(*node).and_then(|replica| configuration.standing(replica)) == Some(wanted)
    };
    !configuration.is_joint()
        && configuration.members().len() == named
        && voters.iter().all(|node| stands(node, Standing::Voter))
        && learners.iter().all(|node| stands(node, Standing::Learner))
}

impl Replica {
    /// A replica as its log says.
    fn of(log: ReplicaLog) -> Replica {
        Replica {
            me: log.replica,
            role: Role::Follower,
            leads: None,
            term: log.hard_state.term,
            vote: log.hard_state.vote,
            committed: Index(0),
            applied: Index(0),
            write_number: 0,
            members_at: LogId::default(),
            glance: None,
            log,
        }
    }
}
