//! The disk of one core: the log that runs in production, on a medium in memory, beside an oracle that knows what it
//! must hold.
//!
//! The log prepares its segments inline and draws its salts from the seed, so one seed is one sequence of bytes. What
//! the shell does with a log is done here as `pontoond` does it: gather, hand over, wait for the sync, seal when idle,
//! and after any failure drop the log and open it again.
//!
//! The function `found` is the one place that asks the log for what it recovered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::Bytes;
use pontoon_multiraft::{CoreWrite, Fetch, Ledger, Unfetched};
use pontoon_types::{
    CoreWriteNumber, Creation, Entry, GroupId, Incarnation, Index, LogId, LogMark, LogRoom, ReplicaId, Time,
};
#[cfg(feature = "mutations")]
use pontoon_types::{HardState, Write};
use pontoon_wal::memory::MemoryDisk;
use pontoon_wal::transplant::{LogAtRest, NewLog};
use pontoon_wal::{Log, LogError, LogIdentity, Options, Preparation, ReadError, Recovered, RecoveredGroup, Rot};

use crate::damage::Damage;
use crate::oracle::{FoundReplica, LogLaw, Oracle, Survivors};
use crate::process::CLUSTER;
use crate::random::Random;
use crate::replica_log::ReplicaLog;
use crate::store::Store;
use crate::trace::Place;

/// The sync that the shell waits for.
#[derive(Clone, Copy, Debug)]
struct Flight {
    fd: RawFd,
    /// A SEAL and not a group with records.
    sealing: bool,
    /// Its success proves that everything was durable that this many syncs had made so.
    proves: u64,
}

/// What came of asking the log to hand something over.
#[derive(Debug)]
pub enum Begun {
    /// Nothing had gathered, or a sync is in flight.
    Nothing,
    /// A sync is in flight, which will answer for this append.
    Flying(CoreWriteNumber),
    /// It waits for a segment, or for a larger `max_log_bytes`.
    Waiting,
    /// The log is fenced.
    Failed(String),
}

/// What came of asking the log for entries.
#[derive(Debug)]
pub enum Read {
    /// Not in memory; it is being brought in.
    Cold,
    /// What the core hears.
    Answer(Result<Vec<Entry>, Unfetched>),
}

/// What opening a log found.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What became of the appends that were not known to be durable.
    pub survivors: Survivors,
    /// Segments that were read.
    pub segments: u64,
    /// Whether a torn write was cut.
    pub torn: bool,
    /// Whether the last stop was a clean one.
    pub clean: bool,
    /// Payloads that it reports as lost.
    pub payloads_lost: u64,
    /// Votes that it reports as lost.
    pub votes_lost: u64,
}

/// Why a log did not open.
#[derive(Debug)]
pub enum NotOpened {
    /// The world around it: a failing disk, no space, too many segments. Later it may open.
    Later(String),
    /// It found itself damaged.
    Refused(String),
    /// It opened, and a law is broken.
    Broken(LogLaw, String),
}

/// The disk of one core.
pub struct Disk {
    medium: MemoryDisk,
    pub(crate) options: Options,
    /// When the idle log is to be sealed.
    pub(crate) seal_at: Option<Time>,
    /// Until when all its syncs are slow.
    pub(crate) slow_until: Time,
    identity: LogIdentity,
    oracle: Oracle,
    log: Option<Log>,
    flight: Option<Flight>,
    proven: u64,
    /// Calls of the medium that had failed before the log was opened.
    failures: u64,
    incarnation: Incarnation,
    damage: Vec<Damage>,
    /// Whether some of it is newer than the last open.
    is_freshly_damaged: bool,
    /// Payloads that have rotted on the medium since the last open, as long as the log has not come upon them.
    latent: BTreeSet<(GroupId, Index)>,
    /// The checkpoints of its replicas, and what the core wants of them.
    pub(crate) store: Store,
    image: Option<Box<Image>>,
    /// What its core keeps of lives (law 12).
    pub(crate) ledger: Ledger,
    /// How far the log was told to be durable, or the image of it that was put in its place.
    mark: LogMark,
    /// What it had made durable, log and checkpoints, before an image was put in its place that has forgotten some of it.
    before: Option<Box<(Oracle, Store)>>,
    /// What the last append held back.
    /// How far it says that its entries are committed.
    committed: BTreeMap<GroupId, Index>,
    #[cfg(feature = "mutations")]
    pub(crate) lagging: Vec<(GroupId, Write)>,
}

/// A disk as it was at some time, as in a backup.
struct Image {
    medium: MemoryDisk,
    oracle: Oracle,
    store: Store,
    proven: u64,
    incarnation: Incarnation,
    ledger: Ledger,
    mark: LogMark,
    /// Most that its log may show when it is opened.
    mark_max: LogMark,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("identity", &self.identity).field("flight", &self.flight).finish_non_exhaustive()
    }
}

impl Disk {
    /// A new disk with a log in which these groups are created.
    pub fn new(place: Place, groups: impl Iterator<Item = GroupId>, options: Options, random: &mut Random) -> Disk {
        let groups: Vec<GroupId> = groups.collect();
        let medium = MemoryDisk::with_salts(random.draw() as u32);
        let log = u128::from(random.draw()) << 16 | u128::from(place.core.0);
        let identity = LogIdentity { cluster: CLUSTER, node: place.node, log };
        let replica = ReplicaId(place.node.0);
        let creation = |group: &GroupId| (*group, Creation { replica, descriptor: descriptor(*group) });
        let created: Vec<(GroupId, Creation)> = groups.iter().map(creation).collect();
        Log::create_in(&medium, identity, &options, &created).expect("law: a log is created on an empty, intact disk");
        Disk {
            proven: medium.syncs(),
            medium,
            options,
            seal_at: None,
            slow_until: Time(0),
            identity,
            oracle: Oracle::new(replica, groups.into_iter()),
            log: None,
            flight: None,
            failures: 0,
            incarnation: Incarnation(0),
            damage: Vec::new(),
            is_freshly_damaged: false,
            latent: BTreeSet::new(),
            store: Store::default(),
            committed: BTreeMap::new(),
            image: None,
            ledger: Ledger::default(),
            mark: LogMark(0),
            before: None,
            #[cfg(feature = "mutations")]
            lagging: Vec::new(),
        }
    }

    /// How often its log was opened, by the log's own count.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How far the log that was opened last says that the entries of `group` are committed. No promise: what it must say is
    /// not known, and what it may say the cores' own laws judge.
    pub fn committed(&self, group: GroupId) -> Index {
        self.committed.get(&group).copied().unwrap_or_default()
    }

    /// The medium under the log.
    pub fn medium(&self) -> &MemoryDisk {
        &self.medium
    }

    /// Whether what this entry stood for is durable here, in the log or in a checkpoint.
    pub fn holds(&self, group: GroupId, replica: ReplicaId, id: LogId) -> bool {
        holds(&self.oracle, &self.store, group, (replica, id))
    }

    /// Whether it was, before an image was put in the place of the disk.
    pub fn held(&self, group: GroupId, replica: ReplicaId, id: LogId) -> bool {
        let held = |before: &(Oracle, Store)| holds(&before.0, &before.1, group, (replica, id));
        self.before.as_deref().is_some_and(held)
    }

    /// What is durable of `group`.
    pub fn durable(&self, group: GroupId) -> &ReplicaLog {
        self.oracle.durable(group)
    }

    /// What the log must hold.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// Some payloads of durable entries rot on the medium. Nobody is told; the log has to come upon them.
    pub fn rot_payloads(&mut self, random: &mut Random) -> Option<(GroupId, Vec<Index>, String)> {
        let groups: Vec<GroupId> = self.oracle.groups().collect();
        let group = (!groups.is_empty()).then(|| *random.pick(&groups))?;
        let with_payload = |entry: &&Entry| !entry.payload.is_empty() && !self.lacks(group, entry.id.index);
        let candidates: Vec<Entry> = self.oracle.durable(group).entries.iter().filter(with_payload).cloned().collect();
        (!candidates.is_empty()).then_some(())?;
        let (mut indexes, mut what) = (Vec::new(), String::new());
        for _ in 0..random.between(1, 3) {
            let entry = random.pick(&candidates);
            if indexes.contains(&entry.id.index) {
                continue;
            }
            if let Some(damage) = Damage::rot(&self.medium, self.proven, &entry.payload, random) {
                what.push_str(damage.what());
                self.damage.push(damage);
                self.latent.insert((group, entry.id.index));
                indexes.push(entry.id.index);
            }
        }
        (!indexes.is_empty()).then_some((group, indexes, what))
    }

    /// Whether the payload of an entry is rotten, known or not.
    fn lacks(&self, group: GroupId, index: Index) -> bool {
        self.latent.contains(&(group, index)) || self.oracle.rotten(group).any(|rotten| rotten == index)
    }

    /// Whether the disk holds everything that it ever made durable.
    pub fn is_whole(&self) -> bool {
        let rotten = self.oracle.groups().any(|group| self.oracle.rotten(group).next().is_some());
        !self.is_rolled_back()
            && self.store.is_whole()
            && self.latent.is_empty()
            && self.oracle.voteless.is_empty()
            && !rotten
    }

    /// Remembers the disk as it is, as a backup would. Damage that an image holds could not be told from damage that was
    /// done to it, so a damaged disk is not remembered.
    pub fn keep_image(&mut self) {
        if !self.damage.is_empty() || !self.is_whole() {
            return;
        }
        let (medium, oracle, ledger) = (self.medium.copy(), self.oracle.clone(), self.ledger.clone());
        let mark_max = LogMark(self.mark.0 + self.oracle.pending() as u64);
        let (proven, incarnation, mark, store) = (self.proven, self.incarnation, self.mark, self.store.clone());
        self.image = Some(Box::new(Image { medium, oracle, store, proven, incarnation, ledger, mark, mark_max }));
    }

    /// The ledger and the highest mark of what was remembered, if anything was.
    pub fn image(&self) -> Option<(&Ledger, LogMark)> {
        self.image.as_ref().map(|image| (&image.ledger, image.mark_max))
    }

    /// Puts the disk back to what was remembered, if anything was. What was promised since is forgotten.
    pub fn restore_image(&mut self) -> bool {
        self.stop();
        let Some(image) = self.image.take() else { return false };
        let Image { medium, oracle, store, proven, incarnation, ledger, mark, mark_max: _ } = *image;
        let oracle = std::mem::replace(&mut self.oracle, oracle);
        self.before = Some(Box::new((oracle, std::mem::replace(&mut self.store, store))));
        (self.medium, self.proven, self.incarnation) = (medium, proven, incarnation);
        (self.latent, self.is_freshly_damaged) = (BTreeSet::new(), false);
        (self.ledger, self.mark) = (ledger, mark);
        self.damage.clear();
        true
    }

    /// Whether an image was put in its place.
    pub fn is_rolled_back(&self) -> bool {
        self.before.is_some()
    }

    /// How far the log is durable, as its core is told.
    pub fn mark(&self) -> LogMark {
        self.mark
    }

    /// The log.
    pub fn log_id(&self) -> u128 {
        self.identity.log
    }

    /// How many appends no finished sync has reported.
    pub fn pending(&self) -> usize {
        self.oracle.pending()
    }

    /// Opens the log by real recovery, and lets the oracle judge what it found.
    pub fn open(&mut self) -> Result<Opened, NotOpened> {
        self.stop();
        self.failures = self.medium.failures();
        let storage = Arc::new(self.medium.clone());
        let opened = Log::open_in(storage, self.identity, &self.options, Preparation::Inline);
        let (mut log, recovered) = opened.map_err(|error| match error {
            LogError::Io { .. } | LogError::Option { .. } => NotOpened::Later(error.to_string()),
            _ => NotOpened::Refused(error.to_string()),
        })?;
        self.committed = recovered.groups.iter().map(|(group, of)| (*group, of.committed)).collect();
        let (torn, clean, segments) = (recovered.torn_tail.is_some(), recovered.clean, recovered.segments as u64);
        let found = found(&mut log, recovered)?;
        let survivors = self.judge(&log, &found, clean).map_err(|(law, what)| match self.damage.last() {
            Some(damage) => NotOpened::Broken(LogLaw::CorruptionIsReported, format!("{what}, after {}", damage.what())),
            None => NotOpened::Broken(law, what),
        })?;
        self.log = Some(log);
        // Recovery writes again what nothing proved durable, and notes it in the control file.
        self.proven = self.medium.syncs();
        self.is_freshly_damaged = false;
        self.latent.clear();
        self.damage.iter_mut().for_each(Damage::settle);
        let payloads_lost = found.values().map(|replica| replica.lost.len() as u64).sum();
        let votes_lost = found.values().filter(|replica| replica.vote_lost).count() as u64;
        Ok(Opened { survivors, segments, torn, clean, payloads_lost, votes_lost })
    }

    fn judge(
        &mut self,
        log: &Log,
        found: &BTreeMap<GroupId, FoundReplica>,
        clean: bool,
    ) -> Result<Survivors, (LogLaw, String)> {
        if log.incarnation() <= self.incarnation {
            let what = format!("opens as {} after {}", log.incarnation(), self.incarnation);
            return Err((LogLaw::IncarnationGrows, what));
        }
        if log.mark() < self.mark {
            return Err((LogLaw::DurableSurvives, format!("opens at {} after {}", log.mark(), self.mark)));
        }
        (self.incarnation, self.mark) = (log.incarnation(), log.mark());
        let loses = found.iter().find(|(_, replica)| replica.vote_lost || !replica.lost.is_empty());
        if let Some((group, _)) = loses.filter(|_| !self.is_damaged()) {
            return Err((LogLaw::IntactLogOpens, format!("reports losses of {group} that nothing has caused")));
        }
        self.oracle.recovered(found, clean)
    }

    /// Reads the log as it lies there, with nobody having it open, and lets the oracle judge what it holds. From then on that is
    /// what the disk holds: nobody opens it again.
    pub(crate) fn at_rest(&mut self) -> Result<LogAtRest, (LogLaw, String)> {
        self.stop();
        let unreadable = |error: LogError| (LogLaw::IntactLogOpens, format!("cannot be read at rest: {error}"));
        let log = LogAtRest::of(Box::new(self.medium.clone())).map_err(unreadable)?;
        let mut found = BTreeMap::new();
        for (group, RecoveredGroup { replica, hard_state, compacted, vote_lost, .. }) in log.groups() {
            let (mut entries, mut lost) = (Vec::new(), Vec::new());
            let see = &mut |entry: Entry, is_intact: bool| {
                if !is_intact {
                    lost.push(entry.id.index);
                }
                entries.push(entry);
            };
            log.each_entry(group, Index(0), see).map_err(unreadable)?;
            found.insert(group, FoundReplica { hard_state, compacted, replica, entries, lost, vote_lost });
        }
        self.oracle.recovered(&found, false)?;
        Ok(log)
    }

    /// Another log and other checkpoints stand in the place of those that were here. `identity` and `above` are those with which
    /// the log was made.
    pub(crate) fn put_in_place(&mut self, medium: MemoryDisk, made: &NewLog, oracle: Oracle, store: Store) {
        let (identity, incarnation) = (made.identity, made.above);
        *self = Disk {
            proven: medium.syncs(),
            medium,
            identity,
            oracle,
            store,
            incarnation,
            options: self.options.clone(),
            ledger: std::mem::take(&mut self.ledger),
            seal_at: None,
            slow_until: self.slow_until,
            log: None,
            flight: None,
            failures: 0,
            damage: Vec::new(),
            is_freshly_damaged: false,
            latent: BTreeSet::new(),
            committed: BTreeMap::new(),
            image: None,
            mark: LogMark(0),
            before: None,
            #[cfg(feature = "mutations")]
            lagging: Vec::new(),
        };
    }

    /// Whose log it is.
    pub(crate) fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// Takes one append.
    pub fn append(&mut self, write: CoreWrite) {
        let log = self.log.as_mut().expect("law: a running core has its log");
        log.append(write.number, &write.writes);
        self.oracle.append(write);
    }

    /// Brings in what cold reads have ordered.
    pub fn warm(&mut self) {
        let log = self.log.as_mut().expect("law: a running core has its log");
        log.warm();
    }

    /// Reads entries as a core does. What was written is what comes back; rot shows where rot is.
    pub fn fetch(&mut self, group: GroupId, fetch: &Fetch) -> Result<Read, (LogLaw, String)> {
        let log = self.log.as_mut().expect("law: a running core has its log");
        let Fetch { from, through, bytes_max, .. } = *fetch;
        let entries = match log.read(group, from, through, bytes_max) {
            Ok(entries) => entries,
            Err(ReadError::Cold { .. }) => return Ok(Read::Cold),
            Err(error @ (ReadError::Rotten { .. } | ReadError::RottenDirectory { .. })) if self.is_damaged() => {
                let index = if let ReadError::Rotten { id, .. } = error { id.index } else { from };
                self.latent.remove(&(group, index));
                self.oracle.rot(group, index, false);
                return Ok(Read::Answer(Err(Unfetched::Rotten(index))));
            }
            // Of a replica that was destroyed nobody waits for the answer.
            Err(ReadError::Compacted { .. } | ReadError::NoGroup { .. }) => {
                return Ok(Read::Answer(Err(Unfetched::Compacted)));
            }
            Err(ReadError::Missing { .. }) => return Ok(Read::Answer(Err(Unfetched::Missing))),
            Err(error) => return Err((LogLaw::IntactLogOpens, format!("answers a fetch of {from}: {error}"))),
        };
        let durable = self.oracle.durable(group);
        let differs = |entry: &&Entry| durable.get(entry.id.index).is_some_and(|it| it.id == entry.id && it != *entry);
        if let Some(entry) = entries.iter().find(differs) {
            return Err((LogLaw::DurableSurvives, format!("reads other bytes for {} than were written", entry.id)));
        }
        Ok(Read::Answer(Ok(entries)))
    }

    /// Hands what has gathered to the disk, if no sync is in flight.
    pub fn begin_sync(&mut self) -> Begun {
        let log = self.log.as_mut().expect("law: a running core has its log");
        if log.in_flight() || !log.is_gathered() {
            return Begun::Nothing;
        }
        self.seal_at = None;
        let proves = self.medium.syncs();
        match log.begin_sync() {
            Ok(Some(sync)) => {
                self.oracle.hands_over(sync.through);
                self.flight = Some(Flight { fd: sync.fd, sealing: false, proves });
                Begun::Flying(sync.through)
            }
            Ok(None) | Err(LogError::Full { .. }) => Begun::Waiting,
            Err(error) => {
                self.oracle.hands_over_some();
                Begun::Failed(error.to_string())
            }
        }
    }

    /// Seals a log that is idle.
    pub fn begin_seal(&mut self) -> Begun {
        let log = self.log.as_mut().expect("law: a running core has its log");
        if log.in_flight() || log.is_gathered() {
            return Begun::Nothing;
        }
        let proves = self.medium.syncs();
        match log.begin_seal() {
            Ok(Some(sync)) => {
                self.oracle.hands_over(sync.through);
                self.flight = Some(Flight { fd: sync.fd, sealing: true, proves });
                Begun::Flying(sync.through)
            }
            Ok(None) => Begun::Nothing,
            Err(error) => Begun::Failed(error.to_string()),
        }
    }

    /// The descriptor that the sync in flight is for.
    pub fn flight(&self) -> Option<RawFd> {
        self.flight.map(|flight| flight.fd)
    }

    /// The sync in flight has ended. Returns what is durable now and whether it was a group with records, or why the
    /// log is fenced; outside, which law the log broke.
    pub fn finish_sync(
        &mut self,
        result: std::io::Result<()>,
    ) -> Result<Result<(CoreWriteNumber, bool), String>, (LogLaw, String)> {
        let log = self.log.as_mut().expect("law: a running core has its log");
        let flight = self.flight.take().expect("law: a sync that ends was in flight");
        match log.finish_sync(result) {
            Ok(through) => {
                self.oracle.reported(through).map_err(|what| (LogLaw::OneNumberAnswers, what))?;
                self.proven = self.proven.max(flight.proves);
                // What was given up, or removed, nobody reads any more.
                self.latent.retain(|(group, index)| self.oracle.durable(*group).get(*index).is_some());
                self.mark = log.mark();
                Ok(Ok((through, !flight.sealing)))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// What the log came upon while it ran: entries that it has to be given again.
    pub fn take_rot(&mut self) -> Vec<(GroupId, Index)> {
        // A keeper that has failed has fenced the log, and what is written next says so.
        let rot = self.log.as_mut().and_then(|log| log.take_rot().ok()).unwrap_or_default();
        self.rotten(rot)
    }

    /// Reads everything but the newest segment from the medium. Returns what has to be given to the log again, or what
    /// it found without a reason.
    pub fn scrub(&mut self) -> Result<Vec<(GroupId, Index)>, (LogLaw, String)> {
        let rot = self.log.as_mut().and_then(|log| log.scrub().ok()).unwrap_or_default();
        if let Some(rot) = rot.first().filter(|_| !self.is_damaged()) {
            return Err((LogLaw::IntactLogOpens, format!("finds rot that nothing has caused: {rot:?}")));
        }
        Ok(self.rotten(rot))
    }

    fn rotten(&mut self, rot: Vec<Rot>) -> Vec<(GroupId, Index)> {
        let mut entries = Vec::new();
        for entry in rot.into_iter().filter_map(|rot| rot.entry) {
            let (group, id) = (entry.group, entry.id);
            // A copy that was replaced since may rot as well: nobody needs it.
            let is_in_log = self.oracle.durable(group).id_at(id.index) == Some(id);
            if is_in_log && self.latent.remove(&(group, id.index)) {
                self.oracle.rot(group, id.index, false);
                entries.push((group, id.index));
            }
        }
        entries
    }

    /// Bytes of entries that the log can still take in.
    pub fn room(&self) -> LogRoom {
        self.log.as_ref().map_or(LogRoom(0), Log::room)
    }

    /// Whether something failed that the log lives on without: a segment could not be prepared, a bound not noted.
    pub fn has_hidden_failure(&self) -> bool {
        self.log.is_some() && self.medium.failures() > self.failures
    }

    /// The process goes away. The cache stays as it is.
    pub fn stop(&mut self) {
        (self.log, self.flight, self.seal_at) = (None, None, None);
        self.store.stop();
        #[cfg(feature = "mutations")]
        self.lagging.clear();
    }

    /// The process stops as it should: the sync in flight is awaited, what has gathered is written, the end is marked.
    /// Whatever fails makes it an unclean stop.
    pub fn close(&mut self) -> Result<(), (LogLaw, String)> {
        if let Some(fd) = self.flight() {
            let synced = self.medium.sync(fd);
            if self.finish_sync(synced)?.is_err() {
                self.stop();
                return Ok(());
            }
        }
        if let Some(log) = self.log.take() {
            self.oracle.hands_over_some();
            // What it could not write is unacknowledged, and then the next open does not call the stop clean.
            let _ = log.close();
        }
        self.stop();
        Ok(())
    }

    /// The machine loses its power, with or without a running process.
    pub fn lose_power(&mut self, random: &mut Random) {
        self.stop();
        let how = random.below(8);
        let (mut block, mut block_survives) = (usize::MAX, false);
        let lone = random.below(4) as usize;
        self.medium.crash(|sector| match how {
            0 => false,
            1 => true,
            2 => {
                if block != sector / 8 {
                    (block, block_survives) = (sector / 8, random.chance(500_000));
                }
                block_survives
            }
            3 | 4 => random.chance(500_000),
            // Of each block one of the first sectors is missing, or nothing else is there.
            5 | 6 => sector % 8 != lone,
            _ => sector % 8 == lone,
        });
    }

    /// Damages something that was proven durable, once between two opens. Says what.
    pub fn inflict_damage(&mut self, random: &mut Random) -> Option<String> {
        if self.is_freshly_damaged {
            return None;
        }
        let damage = Damage::inflict(&self.medium, self.proven, random)?;
        let what = damage.what().to_string();
        self.damage.push(damage);
        self.is_freshly_damaged = true;
        Some(what)
    }

    /// Whether the disk was ever damaged and not repaired.
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }

    /// Whether it was damaged since its log was opened last.
    pub fn is_freshly_damaged(&self) -> bool {
        self.is_freshly_damaged
    }

    /// Undoes all damage.
    pub fn repair(&mut self) {
        self.is_freshly_damaged = false;
        while let Some(damage) = self.damage.pop() {
            damage.undo(&self.medium);
        }
    }

    /// Damages something that was proven durable, and forgets about it.
    #[cfg(feature = "mutations")]
    pub fn rot_untold(&mut self, random: &mut Random) {
        drop(Damage::inflict(&self.medium, self.proven, random));
    }

    /// Holds a part of an append back and writes what the one before has held back: the vote, or all but term and vote.
    #[cfg(feature = "mutations")]
    pub fn lag(&mut self, mut append: CoreWrite, votes_only: bool) -> CoreWrite {
        let mut held_back = Vec::new();
        for (group, write) in &mut append.writes {
            let mut late = Write { number: write.number, ..Write::default() };
            match write.hard_state.filter(|hard_state| votes_only && hard_state.vote.is_some()) {
                Some(hard_state) => {
                    late.hard_state = Some(hard_state);
                    write.hard_state = Some(HardState { vote: None, ..hard_state });
                }
                None if votes_only => continue,
                None => {
                    (late.truncate_from, late.entries) =
                        (write.truncate_from.take(), std::mem::take(&mut write.entries));
                    late.restored = std::mem::take(&mut write.restored);
                }
            }
            held_back.push((*group, late));
        }
        let late = std::mem::replace(&mut self.lagging, held_back);
        append.writes.splice(0..0, late);
        append
    }

    /// Takes away what the sync reported last has made durable, and tells nobody.
    #[cfg(feature = "mutations")]
    pub fn cut_tail(&mut self) {
        for name in self.medium.file_names() {
            for it in self.medium.durable_sectors(&name).iter().filter(|it| it.since > self.proven) {
                self.medium.damage(&name, it.sector, |content, before| *content = *before);
            }
        }
    }
}

fn holds(oracle: &Oracle, store: &Store, group: GroupId, (replica, id): (ReplicaId, LogId)) -> bool {
    let log = oracle.durable(group);
    let stored = store.last(group, replica).is_some_and(|last| last.index >= id.index);
    stored || log.replica == replica && log.covers(id)
}

/// What an opened log holds of each replica, by its own account.
fn found(log: &mut Log, recovered: Recovered) -> Result<BTreeMap<GroupId, FoundReplica>, NotOpened> {
    let mut found = BTreeMap::new();
    for (group, replica) in recovered.groups {
        if replica.descriptor != descriptor(group) {
            let what = format!("has another descriptor of {group} than it was given");
            return Err(NotOpened::Broken(LogLaw::DurableSurvives, what));
        }
        let loaded = log.load(group).map_err(|error| NotOpened::Refused(error.to_string()))?;
        let RecoveredGroup { replica, hard_state, compacted, vote_lost, .. } = replica;
        let (entries, lost) = (loaded.entries, loaded.lost);
        found.insert(group, FoundReplica { hard_state, compacted, replica, entries, lost, vote_lost });
    }
    Ok(found)
}

/// What stands in the log as a group's descriptor: the log does not look into it.
pub(crate) fn descriptor(group: GroupId) -> Bytes {
    Bytes::from(format!("descriptor of {group}"))
}
