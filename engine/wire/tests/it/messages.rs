//! Refusals and errors are sentences that say what to do.

use pontoon_types::NodeId;
use pontoon_wire::client::{GroupRole, Refusal};
use pontoon_wire::frame::FrameError;

use crate::samples;

#[test]
fn refusals_read_as_sentences() {
    let table = [
        (Refusal::NotLeader { leader: Some(NodeId(2)) }, "the node does not lead the group; n2 leads it"),
        (Refusal::NotLeader { leader: None }, "the node does not lead the group; its leader is not known"),
        (
            Refusal::StaleDescriptor { descriptor: samples::descriptor(), leader: Some(NodeId(1)) },
            "the range has changed: g2 now holds [from, to) at gen3; n1 leads it",
        ),
        (Refusal::Busy { retry_after_ms: 20 }, "the node is busy; try again after 20 ms"),
        (
            Refusal::TooLarge { limit: "KEY_BYTES_MAX".to_string(), limit_bytes: 4096, bytes: 5000 },
            "5000 bytes are more than KEY_BYTES_MAX allows, which is 4096 bytes",
        ),
        (Refusal::Refused { why: "no".to_string() }, "the request is refused: no"),
        (Refusal::Unknown, "the outcome is unknown: the request may or may not be carried out"),
    ];
    for (refusal, sentence) in table {
        assert_eq!(refusal.to_string(), sentence);
    }
}

#[test]
fn errors_name_the_limit() {
    let error = FrameError::TooLong { bytes: 17_000_000 };
    assert_eq!(error.to_string(), "a frame of 17000000 bytes is longer than FRAME_BYTES_MAX (16777216 bytes)");
}

#[test]
fn roles_have_the_words_of_the_design() {
    let roles = [GroupRole::Follower, GroupRole::PreCandidate, GroupRole::Candidate, GroupRole::Leader];
    assert_eq!(roles.map(|role| role.to_string()), ["follower", "pre-candidate", "candidate", "leader"]);
}
