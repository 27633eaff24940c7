//! First contact: asks the given endpoints, one after another, for a node's copy of the routing table.
//!
//! This is the one blocking part of the client. Endpoints that do not answer are tried again until the deadline,
//! because a cluster and its client are often started together.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pontoon_types::{ClientId, ClusterId, CoreId, Time};
use pontoon_wire::client::{Operation, Outcome, ReplyFrame, Request, RequestFrame, Routes};
use pontoon_wire::frame::FrameReader;
use pontoon_wire::hello::{Caller, Hello, WELCOME_BYTES, Welcome};

use crate::{ClientError, clock, link};

/// The pause between two rounds over all endpoints.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait for one endpoint, so that one that hangs does not use up the time of the others.
const ENDPOINT_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// What first contact brings.
pub(crate) struct Contact {
    pub(crate) cluster: ClusterId,
    pub(crate) routes: Routes,
}

/// Asks until one endpoint answers or the time is over.
pub(crate) fn contact(endpoints: &[SocketAddr], client: ClientId, timeout: Duration) -> Result<Contact, ClientError> {
    let deadline = clock::now() + timeout;
    let mut why = "no endpoint was given".to_string();
    while !endpoints.is_empty() {
        for endpoint in endpoints {
            match ask(*endpoint, client, deadline.since(clock::now()).min(ENDPOINT_TIMEOUT_MAX)) {
                Ok(contact) => return Ok(contact),
                Err(error) => why = format!("{endpoint}: {error}"),
            }
        }
        if clock::now() + ROUND_PAUSE >= deadline {
            break;
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    Err(ClientError::Unreachable { why })
}

fn ask(endpoint: SocketAddr, client: ClientId, timeout: Duration) -> io::Result<Contact> {
    // A time-out of zero would mean none at all.
    let timeout = timeout.max(Duration::from_millis(1));
    let deadline = clock::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&endpoint, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&hello(ClusterId(0), client, CoreId(0)).encode())?;
    let mut welcome = [0; WELCOME_BYTES];
    let mut filled = 0;
    while filled < WELCOME_BYTES {
        filled += receive(&mut stream, &mut welcome[filled..], deadline)?;
    }
    let welcome = Welcome::decode(&welcome).map_err(io::Error::other)?;
    link::check_welcome(&welcome, None)?;

    let mut request = Vec::new();
    RequestFrame { requests: vec![Request { sequence: 0, operation: Operation::Routes }] }.encode(&mut request);
    stream.write_all(&request)?;
    let mut reader = FrameReader::new();
    let frame = loop {
        if let Some(frame) = reader.next().map_err(io::Error::other)? {
            break frame;
        }
        let received = receive(&mut stream, reader.spare(), deadline)?;
        reader.filled(received);
    };
    let replies = ReplyFrame::decode(frame).map_err(io::Error::other)?.replies;
    match replies.into_iter().next().map(|reply| reply.result) {
        Some(Ok(Outcome::Routes(routes))) => Ok(Contact { cluster: welcome.cluster, routes }),
        Some(Err(refusal)) => Err(io::Error::other(refusal.to_string())),
        _ => Err(io::Error::other("the node answered another question")),
    }
}

/// Receives some bytes before the deadline.
fn receive(stream: &mut TcpStream, buffer: &mut [u8], deadline: Time) -> io::Result<usize> {
    let left = deadline.since(clock::now());
    if left.is_zero() {
        return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
    }
    stream.set_read_timeout(Some(left))?;
    match stream.read(buffer) {
        Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the node closed the connection")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"))
        }
        result => result,
    }
}

/// What a client says first.
pub(crate) fn hello(cluster: ClusterId, client: ClientId, core: CoreId) -> Hello {
    Hello {
        cluster,
        from: Caller::Client(client),
        core,
        version_min: pontoon_wire::VERSION_MIN,
        version_max: pontoon_wire::VERSION,
    }
}
