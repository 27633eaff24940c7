//! The trace of a run, and the number that stands for all of it.
//!
//! Everything that happens is noted as a small value; the last ones are kept and turned into lines only when a
//! violation is reported or the whole trace was asked for. Every value also goes into a digest, bytes of frames
//! included: two runs with one digest did the same things in the same order.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use pontoon_types::{
    Body, CoreId, CoreWriteNumber, GroupId, Index, LogId, Message, NodeId, ReplicaId, Term, Time, Write,
};
use pontoon_wire::peer::{Listing, PeerFrame, SnapshotBody, SnapshotMessage};

/// Lines kept for a violation.
pub const TRACE_LINES_KEPT: usize = 150;

/// One core of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.core)
    }
}

/// Something that happened.
#[derive(Clone, Debug, Hash)]
pub enum Happening {
    /// A frame left for a peer.
    Sent(Place, NodeId, Bytes),
    /// A frame came in.
    Received(Place, NodeId, Bytes),
    /// A frame was lost on purpose.
    Lost(Place, NodeId, Bytes),
    /// A frame was changed on its way on purpose.
    Corrupted(Place, NodeId),
    /// A core refused a peer's frame.
    RefusedPeer(Place, NodeId, String),
    /// A turn appended to the log.
    Appended(Place, CoreWriteNumber, Vec<(GroupId, WriteLine)>),
    /// A sync finished.
    Synced(Place, CoreWriteNumber),
    /// A replica changed its role or term.
    Role(Place, GroupId, &'static str, Term),
    /// A replica's commit index moved.
    Committed(Place, GroupId, Index),
    /// A link can carry frames.
    LinkUp(Place, NodeId),
    /// A link broke.
    LinkDown(Place, NodeId),
    /// A log was sealed.
    Sealed(Place),
    /// A log failed, and its process ends.
    LogFailed(Place, String),
    /// A node's process was killed.
    Killed(NodeId),
    /// A node's machine lost its power.
    LostPower(NodeId),
    /// A node was stopped as it should be.
    Stopped(NodeId),
    /// A node started.
    Started(NodeId, u64),
    /// A log was opened: segments, unsynced appends that are durable now, and those that are gone.
    Opened(Place, u64, u64, u64),
    /// A node cannot start for now.
    NotStarted(Place, String),
    /// A stopped disk was damaged.
    Damaged(Place, String),
    /// A damaged log refused to open.
    Refused(Place, String),
    /// A damaged disk got its good bytes back.
    Repaired(Place),
    /// A node is down for the rest of the run.
    GivenUp(NodeId),
    /// A disk has this much room left, or enough again.
    Room(Place, Option<u64>),
    /// A core stopped taking turns for a while.
    Paused(Place),
    /// It goes on.
    Resumed(Place),
    /// A clock jumped forwards by so much.
    ClockLeapt(NodeId, Duration),
    /// The cores of a node, or of all, get too little processor time for so long.
    Starved(Option<NodeId>, Duration),
    /// A machine is suspended for so long, and its clock stands still.
    MachineStands(NodeId, Duration),
    /// Frames from the first to the second vanish until the partition heals.
    Partitioned(Vec<(NodeId, NodeId)>),
    /// All partitions are over.
    Healed,
    /// Frames of a node, or all, are very late for so long.
    Lag(Option<NodeId>, Duration),
    /// A link carries little for so long.
    NarrowLink(Place, NodeId, Duration),
    /// Links of a node, or all, are reset so many times.
    Resets(Option<NodeId>, u64),
    /// A node is killed, so many times from now on.
    Storm(NodeId, u32),
    /// A node started with a build that cannot read some commands.
    OldBuild(NodeId),
    /// A replica met an entry that it cannot read.
    Parked(Place, GroupId, LogId),
    /// All syncs of a disk are slow for so long.
    SlowDisk(Place, Duration),
    /// An earlier image of a disk is put in its place.
    OldImage(Place),
    /// The log's state of being full changed.
    LogFull(Place, bool),
    /// A client began an operation or tried again.
    Asked(u64, u32, GroupId, Place, String),
    /// A client heard the answer of an attempt.
    Answered(u64, String),
    /// So many bytes of writes reach a core once more.
    ArrivedAgain(Place, usize),
    /// A client gave an operation up.
    Unknown(u64),
    /// The faults are over and the liveness phase begins.
    LivenessPhase,
    /// A group began anew from the log of this node, with this entry and these members.
    BegunAnew(GroupId, NodeId, LogId, String),
    /// A group was left alone, because it can decide.
    LeftAlone(GroupId, String),
    /// A node that was lost for good starts all the same.
    CameBack(NodeId),
}

/// A write, as the trace shows it.
#[derive(Clone, Debug, Hash)]
pub struct WriteLine {
    term: Option<(Term, Option<ReplicaId>)>,
    truncate_from: Option<Index>,
    entries: Vec<LogId>,
}

impl WriteLine {
    /// The outline of `write`.
    pub fn new(write: &Write) -> WriteLine {
        WriteLine {
            term: write.hard_state.map(|hard_state| (hard_state.term, hard_state.vote)),
            truncate_from: write.truncate_from,
            entries: write.entries.iter().map(|entry| entry.id).collect(),
        }
    }
}

impl fmt::Display for WriteLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((term, vote)) = self.term {
            write!(f, " term {term}")?;
            if let Some(vote) = vote {
                write!(f, " vote {vote}")?;
            }
        }
        if let Some(from) = self.truncate_from {
            write!(f, " truncate from {from}")?;
        }
        match (self.entries.first(), self.entries.last()) {
            (Some(first), Some(last)) if first == last => write!(f, " [{first}]"),
            (Some(first), Some(last)) => write!(f, " [{first}..{last}]"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Sent(from, to, bytes) => write!(f, "{from} → {to} {}", FrameLine(bytes)),
            Happening::Received(at, from, bytes) => write!(f, "{at} ← {from} {}", FrameLine(bytes)),
            Happening::Lost(from, to, bytes) => write!(f, "{from} ⇥ {to} lost: {}", FrameLine(bytes)),
            Happening::Corrupted(from, to) => write!(f, "{from} → {to} one bit of the next frame is flipped"),
            Happening::RefusedPeer(at, from, why) => write!(f, "{at} refuses a frame of {from}: {why}"),
            Happening::Appended(at, number, writes) => {
                write!(f, "{at} appends {number}")?;
                writes.iter().try_for_each(|(group, line)| write!(f, "; {group}{line}"))
            }
            Happening::Synced(at, number) => write!(f, "{at} synced {number}"),
            Happening::Role(at, group, role, term) => write!(f, "{at} {group} is {role} of term {term}"),
            Happening::Committed(at, group, index) => write!(f, "{at} {group} committed {index}"),
            Happening::LinkUp(at, to) => write!(f, "{at} link to {to} is up"),
            Happening::LinkDown(at, to) => write!(f, "{at} link to {to} broke"),
            Happening::Sealed(at) => write!(f, "{at} sealed"),
            Happening::LogFailed(at, why) => write!(f, "{at} stops: {why}"),
            Happening::Killed(node) => write!(f, "{node} is killed"),
            Happening::LostPower(node) => write!(f, "{node} loses its power"),
            Happening::Stopped(node) => write!(f, "{node} is stopped"),
            Happening::Started(node, incarnation) => write!(f, "{node} starts, incarnation {incarnation}"),
            Happening::Opened(at, segments, kept, lost) => {
                write!(
                    f,
                    "{at} opens its log of {segments} segments; of the unsynced appends {kept} are kept, {lost} gone"
                )
            }
            Happening::NotStarted(at, why) => write!(f, "{at} cannot start: {why}"),
            Happening::Damaged(at, what) => write!(f, "{at} disk: {what}"),
            Happening::Refused(at, why) => write!(f, "{at} refuses its disk: {why}"),
            Happening::Repaired(at) => write!(f, "{at} disk has its good bytes again"),
            Happening::GivenUp(node) => write!(f, "{node} is down for good"),
            Happening::Room(at, Some(bytes)) => write!(f, "{at} disk has only {bytes} bytes left"),
            Happening::Room(at, None) => write!(f, "{at} disk has room again"),
            Happening::Paused(at) => write!(f, "{at} is paused"),
            Happening::Resumed(at) => write!(f, "{at} goes on"),
            Happening::ClockLeapt(node, by) => write!(f, "{node} clock jumps forwards by {by:?}"),
            Happening::Starved(Some(node), length) => write!(f, "{node} gets hardly any processor time for {length:?}"),
            Happening::Starved(None, length) => write!(f, "all get hardly any processor time for {length:?}"),
            Happening::MachineStands(node, length) => write!(f, "{node} is suspended, clock and all, for {length:?}"),
            Happening::Partitioned(ways) => {
                write!(f, "partition:")?;
                ways.iter().try_for_each(|(from, to)| write!(f, " {from}⇥{to}"))
            }
            Happening::Healed => write!(f, "partitions heal"),
            Happening::Lag(Some(node), length) => write!(f, "frames of {node} are very late for {length:?}"),
            Happening::Lag(None, length) => write!(f, "all frames are very late for {length:?}"),
            Happening::NarrowLink(at, to, length) => write!(f, "{at} link to {to} is narrow for {length:?}"),
            Happening::Resets(Some(node), count) => write!(f, "links of {node} are reset {count} times"),
            Happening::Resets(None, count) => write!(f, "links are reset {count} times"),
            Happening::OldBuild(node) => write!(f, "{node} has a build that cannot read some commands"),
            Happening::Parked(place, group, entry) => write!(f, "{place} cannot read {entry} of {group}"),
            Happening::Storm(node, kills) => write!(f, "{node} is to be killed {kills} times"),
            Happening::SlowDisk(at, length) => write!(f, "{at} disk is slow for {length:?}"),
            Happening::OldImage(at) => write!(f, "{at} disk is an earlier image of itself"),
            Happening::LogFull(at, full) => write!(f, "{at} log full: {full}"),
            Happening::Asked(attempt, client, group, at, what) => {
                write!(f, "client{client} asks {at} for {group}, attempt {attempt}: {what}")
            }
            Happening::ArrivedAgain(place, bytes) => write!(f, "{bytes} bytes of writes reach {place} again"),
            Happening::Answered(attempt, what) => write!(f, "attempt {attempt} answered: {what}"),
            Happening::Unknown(attempt) => write!(f, "attempt {attempt} has an unknown outcome"),
            Happening::BegunAnew(group, base, entry, members) => {
                write!(f, "{group} begins anew from {base} with {entry}, members {members}")
            }
            Happening::LeftAlone(group, why) => write!(f, "{group} is left alone: {why}"),
            Happening::CameBack(node) => write!(f, "{node} comes back"),
            Happening::LivenessPhase => write!(f, "all faults are over, all nodes start"),
        }
    }
}

/// A frame in a few words.
struct FrameLine<'a>(&'a Bytes);

impl fmt::Display for FrameLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = match PeerFrame::decode(self.0.clone()) {
            Ok(frame) => frame,
            Err(error) => return write!(f, "not a frame: {error}"),
        };
        if let Some(beacon) = &frame.beacon {
            write!(f, "beacon {} ack {}", beacon.sequence, beacon.acknowledged)?;
            if let Some(registration) = &beacon.registration {
                write!(f, " registers life {:x} at {}", registration.life, registration.mark)?;
            }
            if let Some(verdict) = &beacon.verdict {
                let what = if verdict.accepted { "accepts" } else { "refuses" };
                write!(f, " {what} life {:x} as {}", verdict.life, verdict.incarnation)?;
            }
            for claim in &beacon.changes {
                let verb = if claim.leads { "leads" } else { "releases" };
                write!(f, " {verb} {}@{}", claim.group, claim.term)?;
            }
            for Listing { group, term, .. } in beacon.page.iter().flat_map(|page| &page.claims) {
                write!(f, " claims {group}@{term}")?;
            }
            f.write_str("; ")?;
        }
        for (group, message) in &frame.messages {
            write!(f, "{group} {}; ", MessageLine(message))?;
        }
        for round in &frame.reads {
            write!(f, "read round {}; ", round.id)?;
        }
        for SnapshotMessage { group, from, to, body } in &frame.snapshots {
            let what = match body {
                SnapshotBody::Wanted => "wants a snapshot".to_string(),
                SnapshotBody::Offer(offer) => format!("offers {} in {} chunks", offer.last, offer.chunks),
                SnapshotBody::Chunk { last, number, .. } => format!("chunk {} of {last}", number.0),
                SnapshotBody::Credit { last, next, through } => format!("credit {}..{} of {last}", next.0, through.0),
                SnapshotBody::Unwanted { last } => format!("has no use for {last}"),
                SnapshotBody::Gone => "is gone".to_string(),
                SnapshotBody::Parked { at } => format!("is parked at {at}"),
            };
            write!(f, "{group} {from}→{to} {what}; ")?;
        }
        for confirmation in &frame.confirmations {
            write!(f, "confirms round {}; ", confirmation.id)?;
        }
        for SnapshotMessage { group, from, to, body } in &frame.snapshots {
            write!(f, "{group} {from}→{to} ")?;
            match body {
                SnapshotBody::Wanted => f.write_str("wants a snapshot; ")?,
                SnapshotBody::Parked { at } => write!(f, "cannot read {at}; ")?,
                SnapshotBody::Offer(offer) => write!(f, "offers {} in {} chunks; ", offer.last, offer.chunks)?,
                SnapshotBody::Chunk { last, number, .. } => write!(f, "{number} of {last}; ")?,
                SnapshotBody::Credit { last, next, through } => write!(f, "credit {next}..{through} of {last}; ")?,
                SnapshotBody::Unwanted { last } => write!(f, "does not want {last}; ")?,
                SnapshotBody::Gone => f.write_str("is gone; ")?,
            }
        }
        Ok(())
    }
}

/// A message in a few words.
struct MessageLine<'a>(&'a Message);

impl fmt::Display for MessageLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { from, to, term, body } = self.0;
        write!(f, "{from}→{to} term {term} ")?;
        match body {
            Body::PreVote { last } => write!(f, "PreVote last {last}"),
            Body::PreVoteResponse { granted } => write!(f, "PreVoteResponse granted {granted}"),
            Body::Vote { last, permit: None } => write!(f, "Vote last {last}"),
            Body::Vote { last, permit: Some(permit) } => {
                write!(f, "Vote last {last} permit of {} in term {}", permit.leader, permit.term)
            }
            Body::TimeoutNow => write!(f, "TimeoutNow"),
            Body::VoteResponse { granted } => write!(f, "VoteResponse granted {granted}"),
            Body::Append { previous, entries, commit } => {
                write!(f, "Append after {previous} {} entries", entries.len())?;
                if let Some(last) = entries.last() {
                    write!(f, " through {}", last.id)?;
                }
                write!(f, " commit {commit}")
            }
            Body::AppendResponse { matched } => write!(f, "AppendResponse matched {matched}"),
            Body::AppendRefused { refused, hint } => write!(f, "AppendRefused at {refused} hint {hint}"),
        }
    }
}

/// The last happenings and the digest of all.
#[derive(Debug)]
pub struct Trace {
    kept: VecDeque<(Time, Happening)>,
    keep_all: bool,
    digest: Digest,
}

impl Trace {
    /// An empty trace that keeps the last lines, or all of them.
    pub fn new(keep_all: bool) -> Trace {
        Trace { kept: VecDeque::new(), keep_all, digest: Digest::default() }
    }

    /// Notes something.
    pub fn note(&mut self, now: Time, happening: Happening) {
        now.hash(&mut self.digest);
        happening.hash(&mut self.digest);
        if !self.keep_all && self.kept.len() == TRACE_LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((now, happening));
    }

    /// The number that stands for everything noted.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The kept lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.kept.iter().map(|(now, happening)| format!("{now} {happening}")).collect()
    }
}

/// A hash that is the same in every process and build of one target; not meant against adversaries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest(u64);

impl Digest {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9fb2_1c65_1e98_df25);
        mixed ^ (mixed >> 29)
    }
}
