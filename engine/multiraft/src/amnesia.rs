//! The amnesia guard: a core that comes to life asks its peers whether they have heard of more than its log holds (law 12).
//!
//! A data directory that was restored from a backup, or copied while its node went on, looks like that of a node which has
//! just crashed. Its votes and acknowledgements since then are forgotten, and nothing on its own disk says so. Peers know:
//! every frame carries a *mark*, how far the sender's log is durable, and all that was promised so far stands below it.
//!
//! ```text
//!  core that starts                        each peer
//!  ledger: "unaccepted since mark 41"
//!  beacon: life 7, log, mark 41 ─────────▶ 41 is at or above all that was heard of earlier lives?
//!                                          ledger: "life 7, mark 41"
//!           ◀───────────────────────────── beacon: verdict on life 7
//!  ledger: "accepted"
//!  takes part: campaigns, votes, acknowledges
//! ```
//!
//! # Laws
//!
//! - *Nothing before the verdict.* Until it is accepted or refused, a core drops what is said of groups: it neither votes,
//!   campaigns nor acknowledges, and appends nothing. So its mark stays what it was, however often it starts.
//! - *Accepted* is a core when no peer refused it and peers accepted it one of which is a *witness*: a majority of all, or,
//!   once the others had a support timeout to answer, whoever did. A peer is a witness as long as it was in touch; a core
//!   notes that one is not, and goes on with the others. So one peer that saw the whole of the last life is enough.
//! - *Refused* is it as soon as one peer has heard a higher mark, however late that is said. Its replicas follow and take
//!   entries, and are from then on like those that have lost their votes (`pontoon-raft`, `lost_vote`), counted and not
//!   voting. The ledger says so for ever, and it says so before anything is appended.
//! - *Durable first.* A verdict is said when what it rests on is in the ledger. Marks are noted there when a link breaks, when
//!   a peer registers, and every few seconds.
//! - *Nothing to whoever has not answered.* What a core says of groups goes only to peers that have judged its present life and
//!   incarnation. So a peer has acted on nothing of an accepted life that its ledger does not know, and when it restarts it
//!   cannot take an image from just before that life for the life itself. A refused life is not noted, but a peer that has
//!   refused it knows a higher mark than any image from before it shows.
//! - A core whose incarnation was heard before, as that of a restored log is, goes on under a higher one that the peers tell it,
//!   and the ledger keeps it, so that each life has its own.
//!
//! docs/decisions/0004 has the argument, and which faults at the same time are not covered.

use std::collections::BTreeMap;

use pontoon_raft::Event as RaftEvent;
use pontoon_types::{Incarnation, LogMark, NodeId, Time};
use pontoon_wire::client::CoreStanding;
use pontoon_wire::peer::{Beacon, PeerFrame, Registration, Verdict};

use crate::mutation::CoreMutation;
use crate::peer::Outbox;
use crate::relist::Relist;
use crate::{Core, Effects};

/// How many support timeouts lie between two notes of marks that grow.
const NOTE_SUPPORT_TIMEOUTS: u32 = 10;

/// What a core that comes to life is told about its past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Drawn anew for each life, never zero.
    pub life: u64,
    /// The log.
    pub log: u128,
    /// Where the log stood before it was opened.
    pub mark: LogMark,
    /// What was kept last.
    pub ledger: Ledger,
    /// An operator vouches for the log: the core takes part whatever its peers say.
    pub vouched: bool,
}

/// What a core keeps durably of its own lives and those of its peers. One that never was kept is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The core has forgotten what it promised.
    pub refused: bool,
    /// The highest incarnation that the core has had, which may be above those of its log.
    pub incarnation: Incarnation,
    /// Where the log stood before the first of the lives that nobody has accepted since.
    pub unaccepted: Option<LogMark>,
    /// What was heard of the peers.
    pub peers: BTreeMap<NodeId, PeerRecord>,
}

/// What was heard of one peer's core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// The highest incarnation.
    pub incarnation: Incarnation,
    /// The life that was accepted in it, or zero.
    pub life: u64,
    /// The log that was accepted last, or zero.
    pub log: u128,
    /// The highest mark.
    pub mark: LogMark,
    /// The highest mark under lower incarnations.
    pub earlier: LogMark,
    /// Whether the peer is in touch, so that it has heard our own marks.
    pub witness: bool,
}

impl Default for PeerRecord {
    /// Nothing is promised to anybody before the first life, so everybody is a witness of it.
    fn default() -> PeerRecord {
        let (mark, earlier) = (LogMark(0), LogMark(0));
        PeerRecord { incarnation: Incarnation(0), life: 0, log: 0, mark, earlier, witness: true }
    }
}

/// What a core knows of one peer's lives, and what that peer said to its own.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) record: PeerRecord,
    /// The mark that the ledger has.
    noted: LogMark,
    /// A verdict to be said when the ledger with this number is durable.
    owed: Option<(Verdict, u64)>,
    /// Whether the peer has judged this life under its present incarnation, and accepted it.
    answer: Option<bool>,
    /// Nobody is asked about lives, so nobody's answer is waited for.
    takes_unjudged: bool,
}

impl Known {
    /// Whether the peer has judged the present life of this core, if it is asked to.
    pub(crate) fn has_judged(&self) -> bool {
        self.answer.is_some() || self.takes_unjudged
    }

    /// What is owed was for a life that is over.
    pub(crate) fn forget_verdict(&mut self) {
        self.owed = None;
    }
}

/// How far a core has come with its registration. Numbers are those of ledgers that must be durable first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The start is being noted.
    Noting(u64),
    /// Since when the peers are asked, once one of them is reachable.
    Asking(Option<Time>),
    /// It was accepted.
    Accepting(u64),
    #[default]
    Registered,
    /// It was refused.
    Refusing(u64),
    Refused,
}

/// A core's own registration, and its ledger on the way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    stage: Stage,
    /// How far the log is durable.
    pub(crate) mark: LogMark,
    refused: bool,
    /// The incarnation that peers have told, and the ledger that must be durable before it is used.
    another: Option<(Incarnation, u64)>,
    unaccepted: Option<LogMark>,
    /// What is registered.
    first: LogMark,
    /// Grows with each change of the ledger.
    number: u64,
    in_flight: Option<u64>,
    kept: u64,
    next_note: Time,
    /// Peers have had the time to answer by then.
    watches_from: Time,
    told: CoreStanding,
}

impl Core {
    /// What the core may do.
    pub fn standing(&self) -> CoreStanding {
        match self.registry.stage {
            Stage::Registered => CoreStanding::Registered,
            Stage::Refusing(_) | Stage::Refused => CoreStanding::Refused,
            Stage::Noting(_) | Stage::Asking(_) | Stage::Accepting(_) => CoreStanding::Waiting,
        }
    }

    /// Whether the replicas here may vote and campaign.
    pub(crate) fn is_registered(&self) -> bool {
        self.registry.stage == Stage::Registered
    }

    /// Whether anything said of groups is taken in.
    pub(crate) fn takes_part(&self) -> bool {
        matches!(self.registry.stage, Stage::Registered | Stage::Refused)
    }

    /// The incarnation in the frames of this core: that of its log, or a higher one if its log was heard to have had more.
    pub fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    /// How far this core shows its log to be. Before it takes part it shows what it registers, which a later life may have to
    /// show again; starts alone move the log on.
    pub(crate) fn shown_mark(&self) -> LogMark {
        if self.takes_part() { self.registry.mark } else { self.registry.first }
    }

    /// Takes over the ledger and begins to register.
    pub(crate) fn begin_registration(&mut self) {
        let asks = self.config.past.is_some() && !self.config.mutated(CoreMutation::NoRegistration);
        let waits = asks && !self.config.mutated(CoreMutation::SpeakUnjudged);
        self.peers.iter_mut().for_each(|peer| peer.known.takes_unjudged = !waits);
        let Some(past) = self.config.past.take() else { return };
        for peer in &mut self.peers {
            peer.known.record = past.ledger.peers.get(&peer.node).copied().unwrap_or_default();
            peer.known.noted = peer.known.record.mark;
        }
        let first = past.ledger.unaccepted.map_or(past.mark, |mark| mark.min(past.mark));
        self.registry.mark = past.mark;
        self.registry.refused = past.ledger.refused && !past.vouched;
        self.config.incarnation = self.config.incarnation.max(Incarnation(past.ledger.incarnation.0 + 1));
        (self.registry.unaccepted, self.registry.first) = (Some(first), first);
        self.config.past = Some(past);
        let stays_refused = self.registry.refused && !self.config.mutated(CoreMutation::RefusedVotes);
        if self.config.mutated(CoreMutation::NoRegistration) {
            self.registry.stage = Stage::Registered;
        } else if stays_refused {
            self.registry.stage = Stage::Refusing(self.change_ledger());
            self.forget_promises(Time(0));
        } else if self.is_vouched() || self.peers.is_empty() {
            self.registry.unaccepted = None;
            self.registry.stage = Stage::Accepting(self.change_ledger());
        } else {
            self.registry.stage = Stage::Noting(self.change_ledger());
        }
    }

    fn is_vouched(&self) -> bool {
        self.config.past.as_ref().is_some_and(|past| past.vouched)
    }

    /// Notes that the ledger has to be kept. Returns its number.
    fn change_ledger(&mut self) -> u64 {
        if self.config.past.is_none() {
            return 0;
        }
        self.registry.number += 1;
        for peer in &mut self.peers {
            peer.known.noted = peer.known.record.mark;
        }
        self.registry.number
    }

    /// Hands the ledger out, if it has changed and the one before is kept.
    pub(crate) fn hand_out_ledger(&mut self, effects: &mut Effects) {
        let Registry { refused, another, unaccepted, number, in_flight, kept, .. } = self.registry;
        if in_flight.is_none() && number > kept {
            let peers = self.peers.iter().map(|peer| (peer.node, peer.known.record)).collect();
            let incarnation = another.map_or(self.config.incarnation, |(incarnation, _)| incarnation);
            effects.ledger = Some((number, Ledger { refused, incarnation, unaccepted, peers }));
            self.registry.in_flight = Some(number);
        }
        let standing = self.standing();
        if std::mem::replace(&mut self.registry.told, standing) != standing {
            effects.standing = Some(standing);
        }
    }

    /// A ledger is durable: what waited for it is done.
    pub(crate) fn ledger_kept(&mut self, now: Time, number: u64) {
        self.registry.in_flight = None;
        self.registry.kept = self.registry.kept.max(number);
        for peer in &mut self.peers {
            let due = peer.known.owed.is_some_and(|(_, waits_for)| waits_for <= number);
            peer.outbox.beacon_due |= due && peer.up;
        }
        if let Some((incarnation, _)) = self.registry.another.take_if(|(_, waits_for)| *waits_for <= number) {
            self.config.incarnation = incarnation;
            // Whoever accepted the lower one is to hear the higher one from a registration, and nothing of groups before.
            for peer in &mut self.peers {
                peer.known.answer = None;
                peer.outbox = Outbox::default();
            }
            self.announce();
        }
        self.review_registration(now);
    }

    /// What this core says to a peer that has not answered it.
    pub(crate) fn registration(&self, peer: usize) -> Option<Registration> {
        let past = self.config.past.as_ref()?;
        let asks = self.peers[peer].known.answer.is_none()
            && !matches!(self.registry.stage, Stage::Noting(_))
            && !self.config.mutated(CoreMutation::NoRegistration);
        let mark = self.registry.first;
        asks.then_some(Registration { life: past.life, log: past.log, mark, vouched: past.vouched })
    }

    /// The verdict that a peer is owed and that may be said.
    pub(crate) fn verdict(&mut self, peer: usize) -> Option<Verdict> {
        let early = self.config.mutated(CoreMutation::VerdictBeforeLedger);
        let kept = self.registry.kept;
        let owed = self.peers[peer].known.owed.take_if(|(_, waits_for)| *waits_for <= kept || early);
        owed.map(|(verdict, _)| verdict)
    }

    /// A peer's core has come to life, and says what its log holds.
    pub(crate) fn hear_registration(&mut self, peer: usize, frame: &PeerFrame) {
        let Some(registration) = frame.beacon.as_ref().and_then(|beacon| beacon.registration) else { return };
        let ignores_marks = self.config.mutated(CoreMutation::IgnoreMarks);
        let heard = self.peers[peer].incarnation;
        let record = &mut self.peers[peer].known.record;
        let Registration { life, log, mark, vouched } = registration;
        let again = record.life == life && record.incarnation == frame.incarnation;
        let highest = record.incarnation.max(heard);
        let is_new = frame.incarnation > highest || (frame.incarnation == highest && record.incarnation < highest);
        // Frames of this life may have come before; what they showed says nothing against it.
        let is_first = is_new || (frame.incarnation == record.incarnation && record.life == 0);
        let floor = if is_first && frame.incarnation == record.incarnation { record.earlier } else { record.mark };
        let same_log = record.log == 0 || record.log == log;
        let holds = if same_log { mark >= floor } else { is_first };
        let accepted = again || vouched || holds || ignores_marks;
        let free = if is_first || again { frame.incarnation } else { Incarnation(highest.0 + 1) };
        let waits_for = if accepted && is_first {
            let mark = if same_log && !vouched { mark.max(record.mark) } else { mark };
            *record = PeerRecord { incarnation: frame.incarnation, life, log, mark, ..*record };
            self.change_ledger()
        } else {
            self.registry.number
        };
        let verdict = Verdict { life, accepted, incarnation: free };
        let peer = &mut self.peers[peer];
        peer.known.owed = Some((verdict, waits_for));
        peer.outbox.beacon_due |= peer.up && waits_for <= self.registry.kept;
    }

    /// A frame shows how far its sender's log has come.
    pub(crate) fn hear_mark(&mut self, peer: usize, incarnation: Incarnation, mark: LogMark) {
        let record = &mut self.peers[peer].known.record;
        if incarnation > record.incarnation {
            record.earlier = record.mark;
            (record.incarnation, record.life) = (incarnation, 0);
        }
        if incarnation == record.incarnation {
            record.mark = record.mark.max(mark);
        }
    }

    /// A peer says what it knows of this core.
    pub(crate) fn hear_verdict(&mut self, now: Time, peer: usize, beacon: &Beacon) {
        let Some(past) = &self.config.past else { return };
        let Some(verdict) = beacon.verdict.filter(|verdict| verdict.life == past.life) else { return };
        let needs_another = verdict.incarnation > self.config.incarnation;
        if needs_another && self.registry.another.is_none_or(|(incarnation, _)| incarnation < verdict.incarnation) {
            self.registry.another = Some((verdict.incarnation, self.change_ledger()));
        }
        let accepted = verdict.accepted || self.config.mutated(CoreMutation::RefusedVotes);
        if !accepted && !self.is_vouched() {
            self.refused(now);
        }
        // A verdict on the incarnation before says nothing of this one, even if it names it.
        if !needs_another && beacon.acknowledged_incarnation == self.config.incarnation {
            self.peers[peer].known.answer = Some(accepted);
            self.start_first_campaigns(now);
        }
        self.review_registration(now);
    }

    /// A peer has heard of more than the log holds.
    fn refused(&mut self, now: Time) {
        if matches!(self.registry.stage, Stage::Refusing(_) | Stage::Refused) {
            return;
        }
        self.registry.refused = true;
        self.registry.stage = Stage::Refusing(self.change_ledger());
        self.forget_promises(now);
    }

    fn forget_promises(&mut self, now: Time) {
        for slot in (0..self.replicas.slots()).filter(|slot| self.replicas.get(*slot).is_some()).collect::<Vec<_>>() {
            self.step_replica(now, slot, RaftEvent::Forgot);
        }
    }

    /// Whether enough peers have accepted this life.
    fn is_accepted(&self, now: Time, asked_at: Time) -> bool {
        let any = self.config.mutated(CoreMutation::AnyWitness);
        let accepted = || self.peers.iter().filter(|peer| peer.known.answer == Some(true));
        let seen = accepted().any(|peer| peer.known.record.witness || any);
        let others_had_time = now.since(asked_at) >= self.config.support_timeout;
        seen && (accepted().count() * 2 > self.peers.len() || others_had_time)
    }

    /// Goes on with the registration as far as it can; once it is done, notes who is in touch and what was heard.
    pub(crate) fn review_registration(&mut self, now: Time) {
        let kept = self.registry.kept;
        match self.registry.stage {
            Stage::Noting(number) if number <= kept => {
                self.registry.stage = Stage::Asking(None);
                self.announce();
            }
            Stage::Asking(None) if self.peers.iter().any(|peer| peer.up) => {
                self.registry.stage = Stage::Asking(Some(now));
            }
            Stage::Asking(Some(asked_at)) if self.is_accepted(now, asked_at) => {
                self.registry.unaccepted = None;
                // Whoever has not answered yet is not in touch with this life.
                for peer in &mut self.peers {
                    peer.known.record.witness = peer.known.answer == Some(true);
                }
                self.registry.stage = Stage::Accepting(self.change_ledger());
            }
            Stage::Accepting(number) if number <= kept => {
                self.registry.stage = Stage::Registered;
                self.take_part(now);
            }
            Stage::Refusing(number) if number <= kept => {
                self.registry.stage = Stage::Refused;
                self.take_part(now);
            }
            Stage::Registered if self.registry.watches_from <= now => self.review_witnesses(now),
            _ => {}
        }
    }

    fn announce(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.up) {
            peer.outbox.beacon_due = true;
        }
    }

    /// From now on what is said of groups counts, and what was said before is asked for again.
    fn take_part(&mut self, now: Time) {
        self.registry.watches_from = now + self.config.support_timeout;
        for peer in &mut self.peers {
            peer.hearing.relist = Relist::default();
        }
        self.announce();
        self.start_first_campaigns(now);
    }

    /// Who has not been in touch for a while is no witness of what is promised from now on. The last one stays: whoever
    /// hears nobody promises nothing.
    fn review_witnesses(&mut self, now: Time) {
        let in_touch = |peer: &crate::peer::Peer| peer.hearing.supported_until > now;
        let some = self.peers.iter().any(in_touch);
        let mut changed = false;
        for peer in self.peers.iter_mut().filter(|_| some) {
            let is = in_touch(peer);
            changed |= std::mem::replace(&mut peer.known.record.witness, is) != is;
        }
        if changed {
            self.change_ledger();
        }
        if self.registry.next_note <= now {
            self.registry.next_note = now + self.config.support_timeout * NOTE_SUPPORT_TIMEOUTS;
            self.note_marks();
        }
    }

    /// Keeps what was heard of the peers.
    pub(crate) fn note_marks(&mut self) {
        if self.peers.iter().any(|peer| peer.known.record.mark != peer.known.noted) {
            self.change_ledger();
        }
    }
}
