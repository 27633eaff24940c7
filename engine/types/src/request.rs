//! The name of a request, by which a group knows it again (law 24).

use crate::{ClientId, SessionTime};

/// One session of a client with a group. A client keeps the moment of opening for as long as the group remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The client, random.
    pub client: ClientId,
    /// A moment of the group's sessions that the client has heard of, before it sent anything in this session. Zero is a
    /// moment that every client has heard of.
    pub opened: SessionTime,
}

/// One request of a client to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The session.
    pub session: SessionId,
    /// The client's number for it: each number is used for one request only, and all attempts of a request carry it.
    pub sequence: u64,
}
