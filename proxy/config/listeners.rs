//! Where clients connect, and the settings of each such place.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde::Deserialize;

use super::{AuthClients, Config, ConfigError, read};
use crate::{
    commands::database::Databases,
    protocol::{address::Address, endpoint::ListenAddress},
};

/// A table of `[[listeners]]`, or an address of `listen`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Where clients connect.
    #[serde(deserialize_with = "read::address")]
    pub address: ListenAddress,
    /// The database of its own that its clients work in; `None`: what `database` says.
    #[serde(default, deserialize_with = "read::text")]
    pub database: Option<String>,
    /// The users as one of whom its clients must log in; empty: they may log in as anybody.
    #[serde(default, deserialize_with = "read::names")]
    pub users: Vec<String>,
    /// Whether a load balancer sends a header ahead of a client's bytes that says who it is (PROXY protocol, version
    /// 2).
    #[serde(default, deserialize_with = "read::switch")]
    pub proxy_protocol: bool,
    /// What the proxy looks like to its clients.
    #[serde(default, deserialize_with = "read::present")]
    pub present: Present,
    /// With `present = "cluster"`: the address announced for the only node; `None`: the address that the client has
    /// connected to.
    #[serde(default, deserialize_with = "read::host_and_port")]
    pub announce: Option<Address>,
}

/// What the proxy looks like to a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Present {
    /// One server.
    #[default]
    Standalone,
    /// A cluster that has one node, which owns all slots.
    Cluster,
}

/// What stands for the name of those who work in all of the cluster, where SELECT may lead them into others.
pub const NAMELESS: &str = "";

/// The most databases that SELECT may choose from.
const MOST_DATABASES: usize = 1024;

impl ListenerConfig {
    /// An address of `listen`.
    fn plain(address: ListenAddress) -> ListenerConfig {
        ListenerConfig {
            address,
            database: None,
            users: Vec::new(),
            proxy_protocol: false,
            present: Present::default(),
            announce: None,
        }
    }
}

impl Config {
    /// All listeners: the addresses of `listen`, then the tables of `[[listeners]]`. Never empty.
    pub fn all_listeners(&self) -> Vec<ListenerConfig> {
        let plain = self.listen.iter().cloned().map(ListenerConfig::plain);
        plain.chain(self.listeners.iter().cloned()).collect()
    }

    /// The addresses of all listeners.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.listen.iter().chain(self.listeners.iter().map(|listener| &listener.address))
    }

    /// An error where one address is listened on twice. With `reuse_port` the system would allow it, and give each connection
    /// to either.
    pub(super) fn no_address_twice(&self) -> Result<(), ConfigError> {
        let all: Vec<SocketAddr> = self.addresses().filter_map(ListenAddress::tcp).chain(self.admin).collect();
        // `[::]` is IPv4's every address too.
        let covers = |wide: SocketAddr, other: SocketAddr| {
            wide.ip() == other.ip() || wide.ip().is_unspecified() && (wide.is_ipv6() || other.is_ipv4())
        };
        let meet = |a: SocketAddr, b: SocketAddr| a.port() == b.port() && (covers(a, b) || covers(b, a));
        let taken = |index: usize, address| all.iter().take(index).any(|&other| meet(other, address));
        let mut named = all.iter().copied().enumerate().filter(|(_, address)| address.port() != 0);
        if let Some((_, address)) = named.find(|&(index, address)| taken(index, address)) {
            return Err(ConfigError::SharedPort { address });
        }
        let mut paths: Vec<&str> = self.addresses().filter_map(ListenAddress::path).collect();
        paths.sort_unstable();
        match paths.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ConfigError::SharedSocket { path: pair[0].to_owned() }),
            None => Ok(()),
        }
    }

    /// An error where a listener has a setting that is of no use to it.
    pub(super) fn check_listeners(&self) -> Result<(), ConfigError> {
        let wrong = |listener: &ListenerConfig| {
            let takes_word = listener.proxy_protocol && listener.address.tcp().is_some();
            if listener.announce.is_some() && listener.present != Present::Cluster {
                Some("`announce` is for `present = \"cluster\"`")
            } else if takes_word && self.trusted_proxies.is_empty() {
                Some(
                    "`proxy_protocol` takes `trusted_proxies`: the networks of the load balancers, whose word is taken",
                )
            } else {
                None
            }
        };
        for listener in &self.listeners {
            if let Some(why) = wrong(listener) {
                return Err(ConfigError::Listener { address: listener.address.to_string(), why: why.to_owned() });
            }
        }
        Ok(())
    }

    /// The databases that clients work in, by name.
    ///
    /// # Errors
    /// A name or the prefix is of no use; or two names stand for one database.
    pub fn own_databases(&self) -> Result<BTreeMap<String, Arc<Databases>>, String> {
        let form = self.database_prefix.as_deref().unwrap_or_default();
        let of_listeners = self.listeners.iter().filter_map(|listener| listener.database.as_ref());
        let of_users = self.users.values().filter_map(|user| user.database.as_ref());
        let names = self.database.iter().chain(of_listeners).chain(of_users);
        let mut all = BTreeMap::new();
        for name in names {
            let databases = Databases::new(Some(name), form, self.databases)?;
            let databases = if self.isolate_channels { databases.isolating_channels() } else { databases };
            all.insert(name.clone(), Arc::new(databases));
        }
        if self.database.is_none() {
            all.insert(NAMELESS.to_owned(), Arc::new(Databases::new(None, form, self.databases)?));
        }
        if self.databases > MOST_DATABASES {
            return Err(format!("`databases` is at most {MOST_DATABASES}"));
        }
        // Of one form, prefixes are told apart by their names: only equal ones could overlap.
        let mut found: BTreeMap<&[u8], &str> = BTreeMap::new();
        for (name, numbered) in &all {
            for (_, database) in numbered.all() {
                if let Some(other) = found.insert(database.prefix(), name) {
                    let shared = database.name();
                    return Err(format!(
                        "the databases `{other}` and `{name}` would share their keys: `{shared}` is one of each, since \
                         SELECT chooses among {} of a name; choose another name",
                        self.databases
                    ));
                }
            }
        }
        Ok(all)
    }

    /// The nodes' user as whom every client works that connects, without a password of its own.
    pub fn lent_user(&self) -> Option<&str> {
        let is_lent = self.password.is_some() && !self.asks_all();
        is_lent.then(|| self.username.as_deref().unwrap_or("default"))
    }

    /// Whether all clients have to log in.
    fn asks_all(&self) -> bool {
        self.client_password.is_some() || !self.users.is_empty()
    }

    /// The listening addresses that anybody on the network can use without a password, and that nobody has allowed.
    pub fn insecure_binds(&self) -> Vec<SocketAddr> {
        let all = self.all_listeners();
        let insecure = all.iter().filter(|listener| self.minds_open() && self.is_open(listener));
        insecure.filter_map(|listener| listener.address.tcp()).collect()
    }

    /// Whether clients of other machines come in by this listener, and need not say who they are unless all clients have
    /// to.
    pub fn is_open(&self, listener: &ListenerConfig) -> bool {
        // Who must show a certificate has said who it is.
        let certified = self.auth_clients() == AuthClients::Yes;
        let is_far = listener.address.tcp().is_some_and(|address| !address.ip().to_canonical().is_loopback());
        let asks = !listener.users.is_empty() || certified && matches!(listener.address, ListenAddress::Tls(_));
        is_far && !asks
    }

    /// Whether open listeners are insecure: no client has to log in, and the operator has not allowed that.
    fn minds_open(&self) -> bool {
        !self.allow_insecure_bind && !self.asks_all()
    }

    /// Whether open listeners serve only clients of this machine.
    pub fn protects(&self) -> bool {
        self.minds_open() && self.protected_mode
    }
}
