//! What happens to a group, as one line of JSON for each protocol event, for model checkers outside.
//!
//! A step of a replica makes one line for the event that entered, and one for each write, message and commit that left, in
//! their order. Each line has the replica's state after the step, so that a checker needs no memory to follow it. Nothing
//! that a client stored appears: entries are positions. `docs/TRACE.md` has the fields.
//!
//! Off unless [`crate::CoreConfig::trace`] is set; then a step costs some microseconds more.

use std::fmt::{self, Display, Formatter};

use pontoon_raft::membership::{Configuration, Half, Phase, Standing};
use pontoon_raft::{Effect, Event, Raft};
use pontoon_types::{Body, Entry, GroupId, Index, LogId, Message, NodeId, ReplicaId, Time, Write};

/// What entered, taken before the replica consumes it.
pub(crate) struct Entered {
    kind: &'static str,
    message: Option<Message>,
}

/// Names an event.
pub(crate) fn entered(event: &Event) -> Entered {
    let (kind, message) = match event {
        Event::Campaign => ("campaign", None),
        Event::Timer => ("timer", None),
        Event::Receive(message) => ("receive", Some(message.clone())),
        Event::Propose(_) => ("propose", None),
        Event::Change(_) => ("change", None),
        Event::Transfer(_) => ("transfer", None),
        Event::Prefer(_) => ("prefer", None),
        Event::Durable(_) => ("durable", None),
        Event::Claimed { .. } => ("claimed", None),
        Event::Listed { .. } => ("listed", None),
        Event::Lapsed => ("lapsed", None),
        Event::PeerUp(_) => ("peer-up", None),
        Event::PeerDown(_) => ("peer-down", None),
        Event::PeerRestarted(_) => ("peer-restarted", None),
        Event::Lost(_) => ("lost", None),
        Event::Applied(_) => ("applied", None),
        Event::Fetched { .. } => ("fetched", None),
        Event::Shed => ("shed", None),
        Event::Forgot => ("forgot", None),
        Event::Compact(_) => ("compact", None),
        Event::Install { .. } => ("install", None),
        Event::Known(_) => ("known", None),
        Event::PeerIsStateless(_) => ("peer-is-stateless", None),
        Event::StateLost => ("state-lost", None),
        Event::Unreadable => ("unreadable", None),
        Event::Destroy { .. } => ("destroy", None),
        Event::Postpone => ("postpone", None),
    };
    Entered { kind, message }
}

/// The lines of one step, given what entered, the replica after it and what left.
pub(crate) fn lines(
    now: Time,
    (node, group): (NodeId, GroupId),
    entered: &Entered,
    raft: &Raft,
    effects: &[Effect],
    into: &mut Vec<String>,
) {
    let about = About { now, node, group, raft };
    into.push(about.line(entered.kind, entered.message.as_ref().map(Detail::Message)));
    into.extend(effects.iter().filter_map(|effect| match effect {
        Effect::Append(write) => Some(about.line("write", Some(Detail::Write(write)))),
        Effect::Send(message) => Some(about.line("send", Some(Detail::Message(message)))),
        Effect::Committed(_) => Some(about.line("commit", None)),
        _ => None,
    }));
}

/// What all lines of a step share.
struct About<'a> {
    now: Time,
    node: NodeId,
    group: GroupId,
    raft: &'a Raft,
}

impl About<'_> {
    fn line(&self, kind: &'static str, detail: Option<Detail<'_>>) -> String {
        let About { now, node, group, raft } = self;
        let detail = detail.map_or(String::new(), |detail| format!(",{detail}"));
        format!(
            "{{\"at_ns\":{},\"node\":{},\"group\":{},\"replica\":{},\"kind\":\"{kind}\",\"term\":{},\"vote\":{},\"role\":\"{}\",\
             \"last\":{},\"durable\":{},\"commit\":{},\"configuration\":{}{detail}}}",
            now.0,
            node.0,
            group.0,
            raft.me().0,
            raft.term(),
            raft.vote().map_or("null".to_string(), |vote| vote.0.to_string()),
            raft.role(),
            Position(raft.last()),
            raft.durable(),
            raft.committed(),
            Members(raft.configuration()),
        )
    }
}

/// What is special to a line.
enum Detail<'a> {
    Message(&'a Message),
    Write(&'a Write),
}

impl Display for Detail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Message(message) => message_body(message, f),
            Detail::Write(write) => {
                write!(f, "\"write\":{{\"number\":{}", write.number.0)?;
                if let Some(state) = write.hard_state {
                    let vote = state.vote.map_or("null".to_string(), |vote| vote.0.to_string());
                    write!(f, ",\"term\":{},\"vote\":{vote}", state.term)?;
                }
                if let Some(from) = write.truncate_from {
                    write!(f, ",\"truncate_from\":{from}")?;
                }
                if let Some(compaction) = write.compact {
                    write!(f, ",\"compact_to\":{}", Position(compaction.to))?;
                }
                write!(f, ",\"entries\":{},\"restored\":{}}}", Entries(&write.entries), Entries(&write.restored))
            }
        }
    }
}

fn message_body(message: &Message, f: &mut Formatter<'_>) -> fmt::Result {
    let Message { from, to, term, body } = message;
    write!(f, "\"message\":{{\"from\":{},\"to\":{},\"term\":{term},", from.0, to.0)?;
    match body {
        Body::PreVote { last } => write!(f, "\"kind\":\"pre-vote\",\"last\":{}}}", Position(*last)),
        Body::PreVoteResponse { granted } => write!(f, "\"kind\":\"pre-vote-response\",\"granted\":{granted}}}"),
        Body::Vote { last, permit } => {
            let last = Position(*last);
            write!(f, "\"kind\":\"vote\",\"last\":{last},\"permitted\":{}}}", permit.is_some())
        }
        Body::VoteResponse { granted } => write!(f, "\"kind\":\"vote-response\",\"granted\":{granted}}}"),
        Body::Append { previous, entries, commit } => {
            let (previous, entries) = (Position(*previous), Entries(entries));
            write!(f, "\"kind\":\"append\",\"previous\":{previous},\"entries\":{entries},\"commit\":{commit}}}")
        }
        Body::AppendResponse { matched } => write!(f, "\"kind\":\"append-response\",\"matched\":{matched}}}"),
        Body::AppendRefused { refused, hint } => {
            write!(f, "\"kind\":\"append-refused\",\"refused\":{refused},\"hint\":{}}}", Position(*hint))
        }
        Body::TimeoutNow => write!(f, "\"kind\":\"timeout-now\"}}"),
    }
}

/// A position: index, then term.
struct Position(LogId);

impl Display for Position {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let LogId { index: Index(index), term } = self.0;
        write!(f, "[{index},{term}]")
    }
}

/// The positions of entries.
struct Entries<'a>(&'a [Entry]);

impl Display for Entries<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(f, self.0.iter().map(|entry| Position(entry.id)))
    }
}

/// The replicas of a configuration, by what they are.
struct Members<'a>(&'a Configuration);

impl Display for Members<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of = |wanted: fn(Standing) -> bool| {
            let members = self.0.members().iter().filter(move |(_, standing)| wanted(*standing));
            members.map(|(member, _)| Number(member.replica))
        };
        let (is_joint, auto_leave) = (self.0.is_joint(), self.0.phase() == Phase::Joint { auto_leave: true });
        f.write_str("{\"incoming\":")?;
        list(f, of(|standing| standing.votes_in(Half::Incoming)))?;
        f.write_str(",\"outgoing\":")?;
        list(f, of(|standing| standing.votes_in(Half::Outgoing)).filter(|_| is_joint))?;
        f.write_str(",\"learners\":")?;
        list(f, of(|standing| standing == Standing::Learner))?;
        f.write_str(",\"learners_next\":")?;
        list(f, of(|standing| standing == Standing::Demoting))?;
        write!(f, ",\"auto_leave\":{auto_leave}}}")
    }
}

struct Number(ReplicaId);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.0)
    }
}

fn list(f: &mut Formatter<'_>, items: impl Iterator<Item = impl Display>) -> fmt::Result {
    f.write_str("[")?;
    for (place, item) in items.enumerate() {
        let comma = if place == 0 { "" } else { "," };
        write!(f, "{comma}{item}")?;
    }
    f.write_str("]")
}
