//! What a core knows of the same core on another node: the link, what waits for it, and who is alive there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pontoon_types::{GroupId, Incarnation, Message, NodeId, Term, Time};
use pontoon_wire::peer::{ClaimSummary, IndexAnswer, IndexQuestion, ReadConfirmation, ReadRound, SnapshotMessage};

use crate::amnesia::Known;
use crate::lease::{Given, Held};
use crate::relist::Relist;
use crate::replica::Slot;

/// One neighbour.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// Whether our link to it carries frames.
    pub(crate) up: bool,
    /// The highest incarnation heard; frames of a lower one are dropped (law 11).
    pub(crate) incarnation: Incarnation,
    pub(crate) outbox: Outbox,
    pub(crate) speaking: Speaking,
    pub(crate) hearing: Hearing,
    pub(crate) given: Given,
    pub(crate) known: Known,
    pub(crate) held: Held,
    /// Replicas that lead here and had something to send while the peer took no messages. Only these are woken when it does
    /// again.
    pub(crate) behind: BTreeSet<Slot>,
}

/// What leaves for the peer at the end of the turn.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) messages: Vec<(GroupId, Message)>,
    pub(crate) reads: Vec<ReadRound>,
    pub(crate) confirmations: Vec<ReadConfirmation>,
    pub(crate) index_questions: Vec<IndexQuestion>,
    pub(crate) index_answers: Vec<IndexAnswer>,
    pub(crate) snapshots: Vec<SnapshotMessage>,
    /// Nodes because of whose support the peer was refused a pre-vote.
    pub(crate) support: BTreeSet<NodeId>,
    /// Whether a beacon goes along.
    pub(crate) beacon_due: bool,
}

/// Our half of the beacons: what we tell the peer about what we lead.
#[derive(Debug, Default)]
pub(crate) struct Speaking {
    /// The number of the last beacon sent.
    pub(crate) sequence: u64,
    /// When the beacons whose answer may still count were sent, oldest first.
    pub(crate) sent: VecDeque<(u64, Time)>,
    /// Leaderships won or released that the peer has not acknowledged; `Some` is the beacon that carried it first.
    pub(crate) changes: BTreeMap<GroupId, Change>,
    /// All that is led here with the peer as a member (law 8).
    pub(crate) led: ClaimSummary,
    /// Where the page starts that the peer wants.
    pub(crate) page_from: Option<GroupId>,
}

/// One leadership won or released.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) term: Term,
    pub(crate) leads: bool,
    pub(crate) carried_by: Option<u64>,
}

/// The peer's half: what it told us, and whether we support it.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// The number of the last beacon heard in this incarnation.
    pub(crate) sequence: u64,
    /// Until when the peer's core counts as alive. A hint: when it is wrong, an election comes too early or too late.
    pub(crate) supported_until: Time,
    /// When the peer last acknowledged an entry that was not committed yet, so that its disk must have written it.
    pub(crate) synced_at: Option<Time>,
    /// Our replicas that sleep because this peer leads their group.
    pub(crate) attached: BTreeSet<Slot>,
    /// The same as the peer would sum it up (law 8).
    pub(crate) followed: ClaimSummary,
    pub(crate) relist: Relist,
    /// How many beacons in a row said that the peer does well.
    pub(crate) well_for: u32,
}

impl Peer {
    pub(crate) fn new(node: NodeId) -> Peer {
        Peer {
            node,
            up: false,
            incarnation: Incarnation(0),
            outbox: Outbox::default(),
            speaking: Speaking::default(),
            hearing: Hearing::default(),
            given: Given::default(),
            known: Known::default(),
            held: Held::default(),
            behind: BTreeSet::new(),
        }
    }

    /// Whether what is said of groups may go to the peer: our link is up, and the peer has noted our life (law 12).
    pub(crate) fn takes_messages(&self) -> bool {
        self.up && self.known.has_judged()
    }

    /// Whether messages go both ways: the peer takes ours, and was heard.
    pub(crate) fn is_reachable(&self) -> bool {
        self.takes_messages() && self.incarnation != Incarnation(0)
    }

    /// When the groups that sleep behind the peer are woken: support is over, and so is what was promised.
    pub(crate) fn lapses_at(&self) -> Time {
        self.hearing.supported_until.max(self.given.until().unwrap_or(Time(0)))
    }

    /// Whether groups that the peer's return concerns wait to be woken.
    pub(crate) fn has_to_wake(&self) -> bool {
        self.takes_messages() && !self.behind.is_empty()
    }

    /// Whether a frame is worth sending.
    pub(crate) fn has_something_to_say(&self) -> bool {
        self.outbox.beacon_due || self.outbox.has_messages()
    }
}

impl Outbox {
    /// Whether there is something besides the beacon.
    pub(crate) fn has_messages(&self) -> bool {
        let Outbox {
            messages,
            reads,
            confirmations,
            index_questions,
            index_answers,
            snapshots,
            support,
            beacon_due: _,
        } = self;
        let nothing_about_reads =
            reads.is_empty() && confirmations.is_empty() && index_questions.is_empty() && index_answers.is_empty();
        !messages.is_empty() || !snapshots.is_empty() || !nothing_about_reads || !support.is_empty()
    }
}
