//! What the operator has decided about sessions.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    commands::{database::Database, plan::Policy},
    config::{Config, CrossSlot, PubSubLimits, Secret},
    upstream::dial::{Credentials, Login},
};

/// What an operator has decided about sessions.
#[derive(Debug)]
pub struct Settings {
    /// How each command is treated.
    pub policy: Policy,
    /// The databases of their own that clients work in, by their numbers; none: all of the cluster.
    pub databases: Vec<Arc<Database>>,
    /// Whether SELECT chooses among these, instead of those that the servers have.
    pub selects_own: bool,
    /// Whether what a client sends to a node waits for what it has under way at others.
    pub strict_order: bool,
    /// How long a client may send nothing.
    pub idle_timeout: Option<std::time::Duration>,
    /// Requests that one client may have in flight.
    pub client_window: usize,
    /// What a subscriber may owe.
    pub pubsub: PubSubLimits,
    /// How the proxy logs in for clients that have no credentials of their own.
    pub login: Login,
    /// What clients must say in AUTH; `None`: the nodes decide.
    pub client_credentials: Option<Credentials>,
}

impl Settings {
    /// What the configuration decides.
    pub fn of(config: &Config) -> Settings {
        let credentials = |name: &Option<String>, secret: &Option<Secret>| {
            let secret = Bytes::copy_from_slice(secret.as_ref()?.reveal().as_bytes());
            Some(Credentials { username: name.clone().map(Bytes::from), secret })
        };
        let own = credentials(&config.username, &config.password);
        let login = Login { credentials: own.clone(), own, ..Login::default() };
        Settings {
            policy: Policy::new(config.cross_slot == CrossSlot::Reject, &config.deny, &config.allow),
            databases: config.own_databases().unwrap_or_default(),
            selects_own: config.databases > 0,
            strict_order: config.strict_order,
            idle_timeout: config.client_idle_timeout,
            client_window: config.client_window,
            pubsub: config.pubsub,
            login,
            client_credentials: credentials(&config.client_username, &config.client_password),
        }
    }
}
