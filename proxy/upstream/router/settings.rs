//! What the operator has decided about sessions.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ipnet::IpNet;

use crate::{
    cluster::replication::ReadPolicy,
    commands::{database::Databases, plan::Policy},
    config::{Config, CrossSlot, NAMELESS, Present, PubSubLimits, Secret, ShownKey},
    protocol::address::Address,
    upstream::dial::{Credentials, Login},
};

/// What an operator has decided about sessions. What is in cells may change while it is read: [`Settings::adopt`].
#[derive(Debug)]
pub struct Settings {
    /// How each command is treated.
    pub policy: Policy,
    /// What is so for the clients of each listener, by its number; never empty.
    pub listeners: Vec<ListenerSettings>,
    /// Whether each listener, by its number, serves this machine alone.
    protected: RefCell<Vec<bool>>,
    /// Which nodes answer reads.
    pub reads: RefCell<ReadPolicy>,
    /// The load balancers whose PROXY protocol headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether what a client sends to a node waits for what it has under way at others.
    pub strict_order: Cell<bool>,
    /// Grows when something changes of which sessions keep a copy: they have to follow.
    version: Cell<u32>,
    /// How long a client may send nothing.
    pub idle_timeout: Cell<Option<Duration>>,
    /// Requests that one client may have in flight.
    pub client_window: Cell<usize>,
    /// What a subscriber may owe.
    pub pubsub: Cell<PubSubLimits>,
    /// Whether operators are shown keys.
    pub show_keys: bool,
    /// Every key of the configuration, as people are shown it.
    pub shown: RefCell<Arc<Vec<ShownKey>>>,
    /// How the proxy logs in for clients that have no credentials of their own.
    pub login: Login,
    /// What clients must say in AUTH; `None`: the nodes decide.
    pub client_credentials: RefCell<Option<Credentials>>,
}

/// What is so for the clients of a listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerSettings {
    /// The databases that they work in.
    pub databases: Arc<Databases>,
    /// The users that they may, and must, log in as; empty: any.
    pub users: Vec<String>,
    /// Whether a load balancer says ahead of their bytes who they are.
    pub proxy_protocol: bool,
    /// Whether the proxy is a cluster to them, all by itself.
    pub presents_cluster: bool,
    /// Where that cluster's node is; `None`: where they have found it.
    pub announce: Option<Address>,
}

impl ListenerSettings {
    /// Whether its clients may log in as the user of this name.
    pub fn takes(&self, user: &[u8]) -> bool {
        self.users.is_empty() || self.users.iter().any(|name| name.as_bytes() == user)
    }
}

impl Settings {
    /// What is so for the clients of the listener with this number.
    pub fn of_listener(&self, number: usize) -> &ListenerSettings {
        // Each client has come by one.
        &self.listeners[number]
    }

    /// From now on what this configuration decides. Listeners, and how the proxy logs in, stay as they are.
    pub fn adopt(&self, config: &Config) {
        let new = Settings::of(config);
        self.idle_timeout.swap(&new.idle_timeout);
        self.pubsub.swap(&new.pubsub);
        self.client_credentials.swap(&new.client_credentials);
        self.protected.swap(&new.protected);
        self.shown.swap(&new.shown);
        let copied = |settings: &Settings| {
            (settings.reads.borrow().clone(), settings.strict_order.get(), settings.client_window.get())
        };
        if copied(self) != copied(&new) {
            self.reads.swap(&new.reads);
            self.strict_order.swap(&new.strict_order);
            self.client_window.swap(&new.client_window);
            self.version.set(self.version.get().wrapping_add(1));
        }
        self.policy.adopt(new.policy);
    }

    /// Whether the listener with this number serves this machine alone.
    pub fn is_protected(&self, listener: usize) -> bool {
        self.protected.borrow().get(listener).is_some_and(|is_protected| *is_protected)
    }

    /// Another number than before where something has changed of which sessions keep a copy: `reads`, `strict_order` or
    /// `client_window`.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.get()
    }

    /// What the configuration decides.
    pub fn of(config: &Config) -> Settings {
        let credentials = |name: &Option<String>, secret: &Option<Secret>| {
            let secret = Bytes::copy_from_slice(secret.as_ref()?.reveal().as_bytes());
            Some(Credentials { username: name.clone().map(Bytes::from), secret })
        };
        let databases = config.own_databases().unwrap_or_default();
        let database = |name: Option<&String>| {
            let name = name.or(config.database.as_ref()).map_or(NAMELESS, String::as_str);
            databases.get(name).cloned().unwrap_or_default()
        };
        let listeners = config.all_listeners().into_iter().map(|listener| ListenerSettings {
            databases: database(listener.database.as_ref()),
            users: listener.users,
            proxy_protocol: listener.proxy_protocol,
            presents_cluster: listener.present == Present::Cluster,
            announce: listener.announce,
        });
        let listeners = listeners.collect();
        let own = credentials(&config.username, &config.password);
        let login = Login { credentials: own.clone(), own, ..Login::default() };
        let mut policy = Policy::new(config.cross_slot == CrossSlot::Reject, &config.deny, &config.allow);
        if let Some(databases) = databases.get(NAMELESS) {
            policy.keep_others(databases);
        }
        Settings {
            policy,
            listeners,
            protected: RefCell::new(config.are_protected()),
            reads: RefCell::new(config.reads_from()),
            trusted_proxies: config.trusted_proxies.clone(),
            strict_order: Cell::new(config.strict_order),
            version: Cell::new(0),
            idle_timeout: Cell::new(config.client_idle_timeout),
            client_window: Cell::new(config.client_window),
            pubsub: Cell::new(config.pubsub),
            show_keys: config.show_keys,
            shown: RefCell::new(config.shown.clone()),
            login,
            client_credentials: RefCell::new(credentials(&config.client_username, &config.client_password)),
        }
    }
}

#[cfg(test)]
mod tests;
