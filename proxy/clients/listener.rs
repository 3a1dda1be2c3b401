//! What is so for clients by where they have come in.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    commands::database::Databases,
    config::{Config, NAMELESS, Present},
    protocol::address::Address,
};

/// What is so for the clients of a listener. It is so for those who have come until it changed, too: who is connected stays as he
/// came.
#[derive(Clone, Debug, Default)]
pub struct ListenerSettings {
    /// The number of its socket, of which there is never another.
    pub number: usize,
    /// The databases that they work in.
    pub databases: Arc<Databases>,
    /// The users that they may, and must, log in as; empty: any.
    pub users: Vec<String>,
    /// Whether a load balancer says ahead of their bytes who they are.
    pub proxy_protocol: bool,
    /// The load balancers whose PROXY protocol headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the proxy is a cluster to them, all by itself.
    pub presents_cluster: bool,
    /// Where that cluster's node is; `None`: where they have found it.
    pub announce: Option<Address>,
    /// Whether clients of other machines come in by it, and need not say who they are unless all clients have to.
    pub is_open: bool,
}

impl ListenerSettings {
    /// Of all that a configuration listens on, in the order of [`Config::all_listeners`], whose numbers are nobody's yet.
    pub fn of(config: &Config) -> Vec<ListenerSettings> {
        let databases = config.own_databases().unwrap_or_default();
        let database = |name: Option<&String>| {
            let name = name.or(config.database.as_ref()).map_or(NAMELESS, String::as_str);
            databases.get(name).cloned().unwrap_or_default()
        };
        let settings = config.all_listeners().into_iter().map(|listener| ListenerSettings {
            number: 0,
            is_open: config.is_open(&listener),
            databases: database(listener.database.as_ref()),
            users: listener.users,
            proxy_protocol: listener.proxy_protocol,
            trusted_proxies: config.trusted_proxies.clone(),
            presents_cluster: listener.present == Present::Cluster,
            announce: listener.announce,
        });
        settings.collect()
    }

    /// Whether its clients may log in as the user of this name.
    pub fn takes(&self, user: &[u8]) -> bool {
        self.users.is_empty() || self.users.iter().any(|name| name.as_bytes() == user)
    }
}
