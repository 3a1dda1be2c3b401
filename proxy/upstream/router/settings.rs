//! What the operator has decided about sessions.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    cluster::replication::ReadPolicy,
    commands::plan::Policy,
    config::{Config, CrossSlot, NAMELESS, PubSubLimits, Secret, ShownKey},
    upstream::dial::{Credentials, Login},
};

/// What an operator has decided about sessions. What is in cells may change while it is read: [`Settings::adopt`].
#[derive(Debug)]
pub struct Settings {
    /// How each command is treated.
    pub policy: Policy,
    /// Whether clients of other machines are refused where anybody could come in ([`ListenerSettings::is_open`]).
    ///
    /// [`ListenerSettings::is_open`]: crate::clients::ListenerSettings::is_open
    pub protects: Cell<bool>,
    /// Which nodes answer reads.
    pub reads: RefCell<ReadPolicy>,
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

impl Settings {
    /// From now on what this configuration decides. How the proxy logs in stays as it is.
    pub fn adopt(&self, config: &Config) {
        let new = Settings::of(config);
        self.idle_timeout.swap(&new.idle_timeout);
        self.pubsub.swap(&new.pubsub);
        self.client_credentials.swap(&new.client_credentials);
        self.protects.swap(&new.protects);
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
        let own = credentials(&config.username, &config.password);
        let login = Login { credentials: own.clone(), own, ..Login::default() };
        let mut policy = Policy::new(config.cross_slot == CrossSlot::Reject, &config.deny, &config.allow);
        if let Some(databases) = databases.get(NAMELESS) {
            policy.keep_others(databases);
        }
        Settings {
            policy,
            protects: Cell::new(config.protects()),
            reads: RefCell::new(config.reads_from()),
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
