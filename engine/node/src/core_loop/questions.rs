//! What the program around a node asks its cores: orders, and what the members of a group are.
//!
//! A question goes the way of a client's request, as a frame on a connection of its own, and so meets the same checks and
//! comes to the same answers. Whoever asks waits on a channel; when the core ends, the channel does.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use pontoon_multiraft::{ConnectionId, Event};
use pontoon_types::Time;
use pontoon_types::limits::FRAME_BYTES_MAX;
use pontoon_wire::client::{Operation, Refusal, ReplyFrame, Request, RequestFrame};

use super::CoreLoop;
use crate::driver::Driver;
use crate::inbox::{Answer, Question};

/// The connection that stands for the program around the node. Sockets are numbered from below.
pub(super) const PROGRAM: ConnectionId = ConnectionId(u64::MAX);

/// The questions without an answer. The core holds no more of them than of all requests.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u64,
    waiting: BTreeMap<u64, Sender<Answer>>,
}

impl Questions {
    /// The number and the frame of a question, which waits for its answer from now on; none if no frame holds it.
    fn ask(&mut self, operation: Operation, answer: Sender<Answer>) -> Option<Bytes> {
        self.last += 1;
        let frame = RequestFrame { requests: vec![Request { sequence: self.last, operation }] };
        let bytes = frame.encoded_bytes();
        if bytes > FRAME_BYTES_MAX {
            let (limit, limit_bytes) = ("FRAME_BYTES_MAX".to_string(), FRAME_BYTES_MAX as u64);
            // Nobody may wait any more.
            let _ = answer.send(Err(Refusal::TooLarge { limit, limit_bytes, bytes: bytes as u64 }));
            return None;
        }
        self.waiting.insert(self.last, answer);
        let mut encoded = Vec::with_capacity(bytes);
        frame.encode(&mut encoded);
        Some(encoded.into())
    }

    /// Hands on the answers in a frame.
    pub(super) fn answer(&mut self, frame: Bytes) {
        let frame = ReplyFrame::decode(frame).expect("law: a core's frames can be read");
        for reply in frame.replies {
            if let Some(answer) = self.waiting.remove(&reply.sequence) {
                let _ = answer.send(reply.result);
            }
        }
    }
}

impl<D: Driver> CoreLoop<D> {
    /// Asks the core.
    pub(super) fn take_question(&mut self, now: Time, question: Question) {
        let Question { operation, answer } = question;
        if let Some(bytes) = self.questions.ask(operation, answer) {
            self.step(now, Event::ClientFrame { connection: PROGRAM, bytes });
        }
    }
}
