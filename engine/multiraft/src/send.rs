//! What leaves for peers and clients, gathered over a turn and packed into frames: one for each peer with everything
//! of all groups, closed at about 64 KiB, and one for each client connection.

use bytes::Bytes;
use pontoon_raft::Event as RaftEvent;
use pontoon_types::limits::{FRAME_BYTES_MAX, MEMBERS_MAX, PEER_FRAME_BYTES, READ_ROUNDS_MAX};
use pontoon_types::{Body, GroupId, LogId, Member, Message, NodeId, Time};
use pontoon_wire::client::{Outcome, Refusal, Reply, ReplyFrame};
use pontoon_wire::peer::{PeerFrame, message_bytes, snapshot_bytes};

use crate::mutation::CoreMutation;
use crate::replica::Slot;
use crate::{ConnectionId, Core, Effects};

/// Room for the header of a reply frame and the rounding of its parts.
const REPLY_FRAME_OVERHEAD_BYTES: usize = 4 << 10;

/// A reply frame is closed at about this many bytes, so that one turn's scans do not become one huge frame.
const REPLY_FRAME_BYTES: usize = 1 << 20;

impl Core {
    /// Puts a message into the outbox of its receiver. To a peer that takes none nothing is sent: Raft asks again when it
    /// does.
    pub(crate) fn post(&mut self, slot: Slot, message: Message) {
        let replica = &self.replicas[slot];
        let group = replica.descriptor.group;
        let Some(peer) = replica.node_of(message.to).and_then(|node| self.peer_of(node)) else { return };
        let refuses = matches!(message.body, Body::PreVoteResponse { granted: false });
        let supported = self.replicas[slot].attached.filter(|_| refuses);
        let peer = &mut self.peers[peer];
        if peer.takes_messages() {
            self.counters.peer_messages += 1;
            peer.outbox.support.extend(supported.map(|attached| attached.node));
            peer.outbox.messages.push((group, message));
        } else if matches!(message.body, Body::Append { .. }) {
            // The group need not try again before then.
            peer.behind.insert(slot);
            self.unreachable.push((slot, message.to));
        }
    }

    /// Packs every outbox into frames.
    pub(crate) fn pack_peer_frames(&mut self, now: Time, effects: &mut Effects) {
        for peer in 0..self.peers.len() {
            if !self.peers[peer].up || !self.peers[peer].has_something_to_say() {
                continue;
            }
            let outbox = std::mem::take(&mut self.peers[peer].outbox);
            if outbox.beacon_due {
                let beacon = Some(self.beacon(now, peer));
                let frame = self.encode_frame(&PeerFrame { beacon, ..self.empty_frame(peer) });
                effects.beacons.push(frame);
            }
            if !outbox.has_messages() {
                continue;
            }
            let support = outbox.support.into_iter().filter_map(|node| self.support_left(now, node)).collect();
            let mut frame = PeerFrame {
                reads: outbox.reads,
                confirmations: outbox.confirmations,
                index_questions: outbox.index_questions,
                index_answers: outbox.index_answers,
                support,
                ..self.empty_frame(peer)
            };
            let mut bytes = 0;
            for (group, message) in outbox.messages {
                let weight = message_bytes(&message);
                if bytes > 0 && bytes + weight > PEER_FRAME_BYTES {
                    effects.peer_frames.push(self.encode_frame(&frame));
                    // What says for how long support remains goes with each refusal.
                    frame = PeerFrame { support: frame.support, ..self.empty_frame(peer) };
                    bytes = 0;
                }
                bytes += weight;
                frame.messages.push((group, message));
            }
            for message in outbox.snapshots {
                let weight = snapshot_bytes(&message);
                if bytes > 0 && bytes + weight > PEER_FRAME_BYTES {
                    effects.peer_frames.push(self.encode_frame(&frame));
                    frame = self.empty_frame(peer);
                    bytes = 0;
                }
                bytes += weight;
                frame.snapshots.push(message);
            }
            effects.peer_frames.push(self.encode_frame(&frame));
        }
    }

    fn empty_frame(&self, peer: usize) -> PeerFrame {
        let mark = self.shown_mark();
        PeerFrame {
            mark,
            ..PeerFrame::new(self.config.node, self.config.core, self.peers[peer].node, self.config.incarnation)
        }
    }

    fn encode_frame(&mut self, frame: &PeerFrame) -> (NodeId, Bytes) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.counters.peer_frames += 1;
        self.counters.peer_bytes += bytes.len() as u64;
        (frame.to, Bytes::from(bytes))
    }

    /// Steps everything in a peer's frame. A frame that cannot be read, or speaks for someone else, breaks the link.
    pub(crate) fn receive_peer_frame(&mut self, now: Time, from: NodeId, bytes: Bytes, effects: &mut Effects) {
        let frame = match PeerFrame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                effects.refused_peers.push((from, error.to_string()));
                return;
            }
        };
        if frame.from != from || frame.to != self.config.node || frame.core != self.config.core {
            let why = format!("a frame from {} for {} {} came on the link of {from}", frame.from, frame.to, frame.core);
            effects.refused_peers.push((from, why));
            return;
        }
        let Some(peer) = self.peer_of(from) else { return };
        if frame.incarnation > self.peers[peer].incarnation {
            self.peer_reborn(now, peer, frame.incarnation);
        }
        self.hear_registration(peer, &frame);
        if frame.incarnation < self.peers[peer].incarnation && !self.config.mutated(CoreMutation::AnyIncarnation) {
            return;
        }
        self.hear_mark(peer, frame.incarnation, frame.mark);
        self.withdraw_ended_promises(now);
        if let Some(beacon) = frame.beacon {
            self.hear_verdict(now, peer, &beacon);
            self.hear_beacon(now, peer, beacon);
        }
        if !self.takes_part() {
            return;
        }
        let mut refused = Vec::new();
        for (group, message) in frame.messages {
            let refuses = matches!(message.body, Body::PreVoteResponse { granted: false });
            let is_taken = self.receive_message(now, from, group, message);
            refused.extend(self.slot_of(group).filter(|_| refuses && is_taken));
        }
        self.refused_for_support(now, &refused, &frame.support);
        // No peer has more rounds open than the limit, so what is beyond it is not worth an answer.
        for round in frame.reads.into_iter().take(READ_ROUNDS_MAX) {
            self.confirm_reads(peer, frame.incarnation, round);
        }
        for confirmation in frame.confirmations {
            self.reads_confirmed(from, confirmation);
        }
        for question in frame.index_questions.into_iter().take(READ_ROUNDS_MAX) {
            self.hear_index_question(now, peer, frame.incarnation, question);
        }
        for answer in frame.index_answers {
            self.hear_index_answer(peer, answer);
        }
        for message in frame.snapshots {
            self.receive_snapshot(now, from, message);
        }
    }

    /// Law 11: a message names both replicas, and is dropped when either is not who lives there. Says whether it was
    /// taken.
    fn receive_message(&mut self, now: Time, from: NodeId, group: GroupId, mut message: Message) -> bool {
        let Some(slot) = self.slot_of(group) else {
            self.heard_for_nobody(from, group, &message);
            return false;
        };
        let replica = &self.replicas[slot];
        if replica.configuration.has_removed(message.from) && replica.raft.leader() != Some(message.from) {
            self.tell_gone(from, slot, message.from);
        }
        if message.to > self.replicas[slot].me {
            // Another one is to live here. Whoever says so knows whether this one was removed, and is made to say that too.
            let me = self.replicas[slot].me;
            self.post_unwanted((group, me), (from, message.from), LogId::default());
        }
        let replica = &self.replicas[slot];
        // A replica that is newer than all that are known here is heard: this one may not know yet that it is a member.
        let is_newer = message.from > replica.raft.configuration().highest() && message.to == replica.me;
        if is_newer && replica.node_of(message.from).is_none() && replica.residents.len() < 2 * MEMBERS_MAX {
            let member = Member { node: from, replica: message.from };
            let residents = &mut self.replicas[slot].residents;
            *residents = residents.iter().copied().chain([member]).collect();
        }
        let replica = &self.replicas[slot];
        if self.config.mutated(CoreMutation::AnyReplica) {
            message.to = replica.me;
            message.from = replica.descriptor.replica_on(from).unwrap_or(message.from);
        }
        let known = message.to == replica.me && replica.node_of(message.from) == Some(from);
        let is_heard = known && !self.is_forbidden(now, slot, &message);
        let has_room = match &mut message.body {
            Body::Append { previous, entries, .. } if is_heard => self.leave_what_has_room(slot, *previous, entries),
            _ => true,
        };
        if is_heard && has_room {
            let committed = self.replicas[slot].raft.committed();
            if matches!(message.body, Body::AppendResponse { matched } if matched > committed) {
                self.peer_has_synced(now, from);
            }
            self.step_replica(now, slot, RaftEvent::Receive(message));
            return true;
        }
        false
    }

    /// A leader sends entries to a replica that does not exist: it may be one that is to come to life, and then it needs a
    /// snapshot. Nothing else is answered, so it cannot vote (law 21).
    fn heard_for_nobody(&mut self, from: NodeId, group: GroupId, message: &Message) {
        if self.config.mutated(CoreMutation::UninitialisedVotes)
            && let Some(peer) = self.peer_of(from)
        {
            let Message { from, to, term, .. } = *message;
            let body = match message.body {
                Body::PreVote { .. } => Some(Body::PreVoteResponse { granted: true }),
                Body::Vote { .. } => Some(Body::VoteResponse { granted: true }),
                _ => None,
            };
            let answer = body.map(|body| (group, Message { from: to, to: from, term, body }));
            self.peers[peer].outbox.messages.extend(answer);
        }
        let is_dead = self.tombstones.get(&group).is_some_and(|dead| message.to <= *dead);
        let is_coming = self.snapshots.is_coming_from(group, from);
        if matches!(message.body, Body::Append { .. }) && !is_dead && !is_coming {
            self.say_wanted(group, message.to, (message.from, from));
        }
    }

    /// Packs the replies of the turn; returns the emptied list for the next turn.
    pub(crate) fn pack_replies(
        &mut self,
        mut replies: Vec<(ConnectionId, Reply)>,
        effects: &mut Effects,
    ) -> Vec<(ConnectionId, Reply)> {
        replies.sort_by_key(|(connection, _)| *connection);
        let mut frame = ReplyFrame { replies: Vec::new() };
        let mut open = None;
        let mut bytes = 0;
        for (connection, reply) in replies.drain(..) {
            let weight = reply.encoded_bytes();
            if open.is_some_and(|open| open != connection || bytes + weight > REPLY_FRAME_BYTES) {
                push_replies(open, &mut frame, effects);
                bytes = 0;
            }
            open = Some(connection);
            bytes += weight;
            frame.replies.push(reply);
        }
        push_replies(open, &mut frame, effects);
        replies
    }
}

fn push_replies(connection: Option<ConnectionId>, frame: &mut ReplyFrame, effects: &mut Effects) {
    let Some(connection) = connection else { return };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    frame.replies.clear();
    effects.client_frames.push((connection, Bytes::from(bytes)));
}

/// The reply, or what is said instead when it does not fit into a frame: the outcome of a write is then unknown to the
/// client, since it did happen; a report is refused by the name of the limit.
pub(crate) fn sendable(reply: Reply) -> Reply {
    let bytes = reply.encoded_bytes();
    if bytes + REPLY_FRAME_OVERHEAD_BYTES <= FRAME_BYTES_MAX {
        return reply;
    }
    let refusal = match reply.result {
        Ok(Outcome::Written(_)) => Refusal::Unknown,
        _ => Refusal::TooLarge {
            limit: "FRAME_BYTES_MAX".to_string(),
            limit_bytes: FRAME_BYTES_MAX as u64,
            bytes: bytes as u64,
        },
    };
    Reply { sequence: reply.sequence, result: Err(refusal) }
}
