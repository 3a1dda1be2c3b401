//! Who asks: a client, its line of replies, and the lane by which nodes know it.
//!
//! A caller is what most commands need of their session. What a command needs beyond it, the command is given.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;

use super::{attempts::Attempts, client::Dialect, database::OwnDatabase, gate::Gate};
use crate::{
    clients::{Client, ListenerSettings, rights::User},
    cluster::topology::Route,
    commands::database::Databases,
    protocol::slot::Slot,
    upstream::{
        dial::{Login, Version},
        link::Link,
        router::{Lane, Router},
        ticket::{Envelope, Label, Line},
    },
};
#[cfg(test)]
use crate::{protocol::endpoint::Endpoint, upstream::router::scripted::Scripted};

/// The client of a session, and how it reaches nodes.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) router: Rc<Router>,
    pub(super) client: Arc<Client>,
    pub(super) line: Rc<Line>,
    pub(super) lane: Rc<Lane>,
    /// The nodes' user of the lane.
    pub(super) user: Arc<User>,
    /// The databases that the client may SELECT.
    pub(super) databases: Arc<Databases>,
    /// The one of its own that it works in.
    pub(super) database: Option<Rc<OwnDatabase>>,
    /// Which primary gets the requests that any may answer.
    pub(super) affinity: usize,
    /// What it has to pass.
    pub(super) gate: Gate,
}

impl Caller {
    /// A client that has said nothing yet.
    pub(super) fn new(router: Rc<Router>, client: Arc<Client>) -> Caller {
        let databases = client.listener.databases.clone();
        let line = Line::new(router.tally().clone(), router.clock().clone(), router.settings().client_window.get());
        line.client.set(client.id);
        Caller {
            line,
            lane: router.first_lane(),
            user: router.own_user().clone(),
            database: databases.get(0).map(|first| OwnDatabase::of(&router, first.clone())),
            databases,
            affinity: usize::try_from(client.id).unwrap_or_default(),
            gate: Gate::at_first(router.asks_who(&client.listener)),
            router,
            client,
        }
    }

    /// Tries of a request on connections of its own, at the owner of `slot` or at some primary.
    pub(super) fn attempts(&self, slot: Option<Slot>) -> Attempts {
        let (router, lane) = (self.router.clone(), self.lane.clone());
        Attempts::new(router, lane, slot, self.affinity, self.line.doubts.clone())
    }

    /// What the request that is being dispatched counts as, where its database has nodes do something else for it.
    #[inline]
    pub(super) fn said(&self) -> Option<Label> {
        self.database.as_ref()?.said()
    }

    /// The client works in the database of its own of this number from now on, where there are any.
    pub(super) fn enter_database(&mut self, number: u32) {
        let database = self.databases.get(number).cloned();
        self.database = database.map(|database| OwnDatabase::of(&self.router, database));
    }

    /// The client may choose among these databases from now on, and begins in the first, where it was in none of them.
    /// The login by which nodes are to know it then.
    pub(super) fn work_in(&mut self, databases: Arc<Databases>, login: Login) -> Login {
        if self.databases == databases {
            return login;
        }
        self.databases = databases;
        self.client.database.store(0, Relaxed);
        self.enter_database(0);
        Login { database: 0, ..login }
    }

    /// What is so for clients of its listener.
    pub(super) fn listener(&self) -> &ListenerSettings {
        &self.client.listener
    }

    /// Where clients of its listener begin.
    pub(super) fn listeners_databases(&self) -> Arc<Databases> {
        self.listener().databases.clone()
    }

    /// Whether it works where no key has a slot: in a database of its own, unless the proxy is a cluster to it.
    pub(super) fn is_in_no_cluster(&self) -> bool {
        self.database.is_some() && !self.presents_cluster()
    }

    /// Whether the proxy is a cluster to it, all by itself.
    pub(super) fn presents_cluster(&self) -> bool {
        self.listener().presents_cluster
    }

    /// How many databases SELECT may choose from.
    pub(super) fn count_databases(&self) -> u32 {
        match self.databases.are_selected() {
            true => self.databases.count(),
            false => self.router.topology().server.databases.max(1),
        }
    }

    /// Whether it may know of a client: as a user of the proxy's own, of those of that user.
    pub(super) fn may_know(&self, client: &Client) -> bool {
        self.gate.logged_in().is_none_or(|logged_in| *client.about().user == *logged_in.user.name)
    }

    /// The client with this number, where it may know of that.
    pub(super) fn find_client(&self, id: u64) -> Option<Arc<Client>> {
        self.router.clients().find(id).filter(|client| self.may_know(client))
    }

    pub(super) fn speaks_resp3(&self) -> bool {
        self.lane.login().version == Version::Resp3
    }

    /// What EXEC answers where a watched key was touched.
    pub(super) fn null_array(&self) -> Bytes {
        Bytes::from_static(if self.speaks_resp3() { b"_\r\n" } else { b"*-1\r\n" })
    }

    pub(super) fn dialect(&self) -> Dialect {
        Dialect::of(&self.router.topology().server)
    }

    /// Whether the client has no more and no fewer rights than the proxy, by whose login scripts are loaded anew.
    pub(super) fn is_proxys_user(&self) -> bool {
        self.lane.login().is_own()
    }

    /// Whether the client's user may do all, or is the proxy's own: what it asks for may be prepared in its name.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_proxys_user() || self.user.is_free(self.router.clock().now())
    }

    /// Whether a node, asked by the proxy, lets the client's user run a command that has no arguments.
    pub(super) fn is_known_to_may(&self, name: &str) -> bool {
        let now = self.router.clock().now();
        self.user.is_free(now) || self.router.rights().may_ask(now) && self.user.verdict(name, now) == Some(Ok(()))
    }

    /// The link to where a request is to go; `None` where no node serves that.
    pub(super) fn link(&self, route: Route) -> Option<Rc<Link>> {
        self.lane.link(&self.router, self.affinity, route)
    }

    /// Sends a request where its envelope says.
    pub(super) fn send(&self, frame: &[u8], envelope: Envelope) {
        self.lane.send(&self.router, self.affinity, frame, envelope);
    }
}

#[cfg(test)]
impl Caller {
    /// A client of scripted nodes, without a session.
    pub(super) fn of(nodes: &Scripted) -> Caller {
        Caller::by(nodes, ListenerSettings::default())
    }

    /// The same, by a listener where this is so.
    pub(super) fn by(nodes: &Scripted, listener: ListenerSettings) -> Caller {
        let end = Endpoint::Tcp("127.0.0.1:1".parse().expect("an address"));
        Caller::new(nodes.router.clone(), nodes.router.clients().join(end.clone(), end, Arc::new(listener)))
    }

    /// What it has been answered, and told unasked, since this was asked last.
    pub(super) fn was_told(&self) -> String {
        let mut all = Vec::new();
        while !self.line.nothing_to_write() {
            self.line.write_out(|bytes| {
                all.extend_from_slice(bytes);
                (bytes.len(), ())
            });
        }
        String::from_utf8(all).expect("text")
    }
}
