//! The first half of a turn: what arrived becomes events of the core.

use bytes::Bytes;
use pontoon_multiraft::{ConnectionId, Event};
use pontoon_types::limits::CORE_CLIENTS_MAX;
use pontoon_types::{NodeId, Time};
use pontoon_wire::hello::HelloRefusal;

use super::CoreLoop;
use crate::connection::{Caller, Closed, Connection};
use crate::door::{Admitted, Parcel};
use crate::driver::{Driver, Ready, SocketId};
use crate::error::CoreFailure;
use crate::inbox::Delivery;
use crate::link::Change;

impl<D: Driver> CoreLoop<D> {
    /// Takes in one thing that was ready.
    pub(super) fn gather(&mut self, now: Time, event: Ready) -> Result<(), CoreFailure> {
        match event {
            Ready::Synced(result) => self.synced(now, result)?,
            Ready::Listener => {
                if let Some(door) = &mut self.door {
                    door.accept(&mut self.driver, now).map_err(CoreFailure::Driver)?;
                }
            }
            Ready::Socket { id, receive, send } => self.socket_ready(now, id, receive, send),
        }
        Ok(())
    }

    /// Takes over what other threads have handed to this core.
    pub(super) fn gather_inbox(&mut self, now: Time) {
        while let Some(delivery) = self.inbox.pop() {
            match delivery {
                Delivery::Connection(parcel) => self.take_over(now, parcel),
                Delivery::Store(answer) => self.store_answered(now, answer),
                Delivery::Question(question) => self.take_question(now, question),
            }
        }
    }

    /// Takes over a connection from the accepting core.
    fn take_over(&mut self, now: Time, parcel: Parcel) {
        match self.driver.adopt(parcel.socket) {
            Ok(socket) => self.admit(now, Admitted { socket, caller: parcel.caller, version: parcel.version }),
            Err(error) => tracing::warn!("cannot take over a connection: {error}"),
        }
    }

    /// Does what is due by the clock.
    pub(super) fn expire(&mut self, now: Time) -> Result<(), CoreFailure> {
        for link in &mut self.links {
            if link.deadline().is_some_and(|deadline| deadline <= now) {
                link.expire(&mut self.driver, now);
            }
        }
        if let Some(door) = &mut self.door
            && door.deadline().is_some_and(|deadline| deadline <= now)
        {
            door.expire(&mut self.driver, now).map_err(CoreFailure::Driver)?;
        }
        for socket in &self.stalled {
            let Some(connection) = self.connections.get_mut(socket) else { continue };
            if connection.deadline().is_some_and(|deadline| deadline <= now) {
                // A socket is reported only when a good part of it is free. A slow reader may have made less room.
                connection.unblock();
                self.unsent.push(*socket);
            }
        }
        if self.core.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(now, Event::Timer);
        }
        Ok(())
    }

    /// Closes a connection and forgets it.
    pub(super) fn close_connection(&mut self, now: Time, socket: SocketId, why: &Closed) {
        let Some(connection) = self.connections.remove(&socket) else { return };
        self.stalled.remove(&socket);
        self.driver.close(socket);
        let caller = connection.caller();
        if why.is_misuse() {
            tracing::warn!("closed the connection of {caller}: {why}");
        } else {
            tracing::debug!("closed the connection of {caller}: {why}");
        }
        if caller == Caller::Client {
            self.clients -= 1;
            self.step(now, Event::ClientGone(ConnectionId(socket.0)));
        }
    }

    /// Steps the core. An event after the end of a turn makes the next one come at once.
    pub(super) fn step(&mut self, now: Time, event: Event) {
        self.stepped = true;
        self.core.step(now, event, &mut self.effects);
    }

    fn socket_ready(&mut self, now: Time, id: SocketId, receive: bool, send: bool) {
        if self.connections.contains_key(&id) {
            self.connection_ready(now, id, receive, send);
        } else if let Some(link) = self.links.iter_mut().find(|link| link.socket() == Some(id)) {
            let change = link.ready(&mut self.driver, now, receive, send);
            let peer = link.peer();
            self.link_changed(now, peer, change);
        } else if let Some(door) = self.door.as_mut().filter(|door| door.knows(id))
            && let Some(admitted) = door.receive(&mut self.driver, id)
        {
            self.admit(now, admitted);
        }
    }

    /// Tells the core about a link.
    pub(super) fn link_changed(&mut self, now: Time, peer: NodeId, change: Option<Change>) {
        let event = match change {
            None => return,
            Some(Change::Up) => Event::PeerUp(peer),
            Some(Change::Down) => Event::PeerDown(peer),
        };
        self.step(now, event);
    }

    fn connection_ready(&mut self, now: Time, id: SocketId, receive: bool, send: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if send {
            connection.unblock();
            self.unsent.push(id);
        }
        if !receive {
            return;
        }
        let mut frames = std::mem::take(&mut self.frames);
        let received = connection.receive(&mut self.driver, id, &mut frames);
        let caller = connection.caller();
        for bytes in frames.drain(..) {
            let event = self.frame_event(caller, id, bytes);
            self.step(now, event);
        }
        self.frames = frames;
        if let Err(why) = received {
            self.close_connection(now, id, &why);
        }
    }

    fn frame_event(&mut self, caller: Caller, id: SocketId, bytes: Bytes) -> Event {
        match caller {
            Caller::Peer(from) => Event::PeerFrame { from, bytes },
            Caller::Client => Event::ClientFrame { connection: ConnectionId(id.0), bytes },
        }
    }

    /// Gives an admitted caller its Welcome and its buffers, or tells it that there is no room.
    fn admit(&mut self, now: Time, admitted: Admitted) {
        let Admitted { socket, caller, version } = admitted;
        let full = caller == Caller::Client && self.clients >= CORE_CLIENTS_MAX;
        let welcome = self.household.welcome(version, full.then_some(HelloRefusal::Full));
        if let Caller::Peer(node) = caller {
            self.close_links_of(now, node, || Closed::Replaced);
        }
        let mut connection = Connection::new(caller, &welcome);
        if full {
            let _ = connection.flush(&mut self.driver, socket, now);
            self.driver.close(socket);
            return;
        }
        self.clients += usize::from(caller == Caller::Client);
        self.connections.insert(socket, connection);
        self.unsent.push(socket);
    }

    /// Closes the connections that a peer has dialled.
    pub(super) fn close_links_of(&mut self, now: Time, node: NodeId, why: impl Fn() -> Closed) {
        let sockets: Vec<SocketId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.caller() == Caller::Peer(node))
            .map(|(socket, _)| *socket)
            .collect();
        for socket in sockets {
            self.close_connection(now, socket, &why());
        }
    }
}
