//! What the operator decides: defaults < TOML file < environment < flags, checked once, at start.
//!
//! The defaults are the documented file itself, `config/slotway.toml`, built in: they exist in one place only. A new key
//! needs a field here, a paragraph there and a flag (`cli/flags.rs`); tests compare them.
//!
//! Nothing here reads the environment or touches a socket: [`Sources`] says what to read, so that tests can say it too.
//!
//! ```
//! use slotway::config::{Config, Sources};
//!
//! let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
//! let config = Config::load(&Sources {
//!     file: None,
//!     variables: vec![of("SLOTWAY_WORKERS", "2"), of("SLOTWAY_SEEDS", "redis-7000:7000")],
//!     flags: vec![of("workers", "3")],
//! })?;
//! assert_eq!((config.workers, config.seeds.len()), (3, 1), "flags are stronger");
//!
//! // What is mistyped is an error that names the right key.
//! let sources = Sources { variables: vec![of("SLOTWAY_SEED", "a:1")], ..Sources::default() };
//! let error = Config::load(&sources).unwrap_err().to_string();
//! assert_eq!(error, "environment: there is no key `SLOTWAY_SEED`; did you mean `SLOTWAY_SEEDS`?");
//! # Ok::<(), slotway::config::ConfigError>(())
//! ```

mod error;
mod layer;
mod listeners;
mod live;
mod read;
mod secret;
mod seeds;
mod shown;
mod tls;
mod users;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use figment::Figment;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tracing_subscriber::filter::Targets;

use self::layer::Origin;
use crate::{
    cluster::{
        recovery,
        replication::{ReadFrom, ReadPolicy},
        topology::AddressMap,
        zones::ZoneMap,
    },
    commands::table::{self, CommandTable},
    protocol::{address::Address, endpoint::ListenAddress},
};

pub use error::ConfigError;
pub use layer::Sources;
pub use listeners::{ListenerConfig, NAMELESS, Present};
#[cfg(test)]
pub(crate) use live::LIVE;
pub use live::Reloaded;
pub use secret::Secret;
pub use seeds::Seeds;
pub use shown::{ShownKey, shown};
pub use tls::{AuthClients, ClientTls, NodeTls, Pair, TlsFile};
pub use users::{UserConfig, passwords_in};

/// The documented default file, which is also the lowest layer.
pub const DEFAULTS: &str = include_str!("../config/slotway.toml");

/// The configuration in force. Every key's meaning and default stands in `config/slotway.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect, in short; see [`Config::all_listeners`].
    #[serde(deserialize_with = "read::listen")]
    pub listen: Vec<ListenAddress>,
    /// Where clients connect, with settings for each place (`[[listeners]]`).
    pub listeners: Vec<ListenerConfig>,
    /// The networks of load balancers whose word is taken for who a client is.
    #[serde(deserialize_with = "read::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// The user that clients must name; `None` is `default`.
    #[serde(deserialize_with = "read::text")]
    pub client_username: Option<String>,
    /// The password that clients must know; `None`: none is asked for. Filled from `client_password_file` too.
    #[serde(deserialize_with = "read::secret")]
    pub client_password: Option<Secret>,
    /// Where `client_password` was read from.
    #[serde(deserialize_with = "read::path")]
    pub client_password_file: Option<PathBuf>,
    /// Whether the operator means clients beyond loopback to need no password, even where the proxy has one for the
    /// nodes.
    #[serde(deserialize_with = "read::switch")]
    pub allow_insecure_bind: bool,
    /// Whether clients of other machines are refused on a port that anybody on the network could use without a
    /// password.
    #[serde(deserialize_with = "read::switch")]
    pub protected_mode: bool,
    /// The certificate of `rediss://` listeners.
    #[serde(deserialize_with = "read::path")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key.
    #[serde(deserialize_with = "read::path")]
    pub tls_key_file: Option<PathBuf>,
    /// The CAs of clients' certificates.
    #[serde(deserialize_with = "read::path")]
    pub tls_ca_cert_file: Option<PathBuf>,
    /// Whether clients show a certificate; `None`: see [`Config::auth_clients`].
    #[serde(deserialize_with = "read::auth_clients")]
    pub tls_auth_clients: Option<AuthClients>,
    /// The most clients at one time.
    #[serde(deserialize_with = "read::positive")]
    pub max_clients: usize,
    /// How long a client may be silent; `None`: for ever.
    #[serde(deserialize_with = "read::duration_or_none")]
    pub client_idle_timeout: Option<Duration>,
    /// Idle time before a TCP probe; `None`: no probes.
    #[serde(deserialize_with = "read::duration_or_none")]
    pub tcp_keepalive: Option<Duration>,
    /// The most requests that one client may have under way; at least one.
    #[serde(deserialize_with = "read::positive")]
    pub client_window: usize,
    /// The most bytes held for all clients together.
    #[serde(deserialize_with = "read::buffer")]
    pub max_buffered: usize,
    /// Whether other processes may listen on the same port.
    #[serde(deserialize_with = "read::switch")]
    pub reuse_port: bool,

    /// Some nodes of the cluster. May be empty: only serving needs them (see [`Config::ready_to_serve`]).
    #[serde(deserialize_with = "read::seeds")]
    pub seeds: Seeds,
    /// Whether the nodes speak TLS; seeds may say so, too.
    #[serde(deserialize_with = "read::switch")]
    pub node_tls: bool,
    /// The nodes' CA.
    #[serde(deserialize_with = "read::path")]
    pub node_tls_ca_cert_file: Option<PathBuf>,
    /// The proxy's certificate to the nodes.
    #[serde(deserialize_with = "read::path")]
    pub node_tls_cert_file: Option<PathBuf>,
    /// Its private key.
    #[serde(deserialize_with = "read::path")]
    pub node_tls_key_file: Option<PathBuf>,
    /// The name that every node's certificate must be for; `None`: the host that is dialled.
    #[serde(deserialize_with = "read::server_name")]
    pub node_tls_server_name: Option<ServerName<'static>>,
    /// Whether any certificate of a node is accepted.
    #[serde(deserialize_with = "read::switch")]
    pub node_tls_insecure_skip_verify: bool,
    /// The user as whom the proxy logs in to the nodes.
    #[serde(deserialize_with = "read::text")]
    pub username: Option<String>,
    /// The password that the nodes ask for. Filled from `password_file` too.
    #[serde(deserialize_with = "read::secret")]
    pub password: Option<Secret>,
    /// Where `password` was read from.
    #[serde(deserialize_with = "read::path")]
    pub password_file: Option<PathBuf>,
    /// Addresses that are dialled in place of those that nodes announce.
    #[serde(deserialize_with = "read::address_map")]
    pub address_map: Arc<AddressMap>,
    /// Time between refreshes of the topology.
    #[serde(deserialize_with = "read::duration")]
    pub refresh_interval: Duration,

    /// How long a client waits for a reply.
    #[serde(deserialize_with = "read::duration")]
    pub request_timeout: Duration,
    /// How long connecting to a node may take, handshake included.
    #[serde(deserialize_with = "read::duration")]
    pub connect_timeout: Duration,
    /// Silence after which a node that owes replies is given up.
    #[serde(deserialize_with = "read::duration")]
    pub node_timeout: Duration,
    /// How long a request is tried again that a node did not execute.
    #[serde(deserialize_with = "read::duration")]
    pub retry_timeout: Duration,
    /// The most redirects that one request follows.
    #[serde(deserialize_with = "read::number")]
    pub max_redirects: usize,

    /// What becomes of MGET and its like where their keys lie in several slots.
    #[serde(deserialize_with = "read::cross_slot")]
    pub cross_slot: CrossSlot,
    /// Which nodes answer commands that only read.
    #[serde(deserialize_with = "read::reads")]
    pub reads: ReadFrom,
    /// How far a replica may lag behind and still be read from.
    #[serde(deserialize_with = "read::duration")]
    pub max_replica_lag: Duration,
    /// How long after a write a client reads from the primary, where the nodes do not tell how far replicas have come.
    #[serde(deserialize_with = "read::duration")]
    pub read_your_writes: Duration,
    /// The availability zone of the proxy.
    #[serde(deserialize_with = "read::text")]
    pub zone: Option<String>,
    /// The availability zones of nodes that do not tell theirs.
    #[serde(deserialize_with = "read::zones")]
    pub node_zones: ZoneMap,
    /// Whether one client's commands take effect in order even on different nodes.
    #[serde(deserialize_with = "read::switch")]
    pub strict_order: bool,
    /// The database of its own that clients work in; `None`: all of the cluster.
    #[serde(deserialize_with = "read::text")]
    pub database: Option<String>,
    /// How many databases of their own SELECT may choose from; 0: SELECT chooses from the servers' databases.
    #[serde(deserialize_with = "read::number")]
    pub databases: usize,
    /// The prefix of a database's keys; `%` stands for its name.
    #[serde(deserialize_with = "read::text")]
    pub database_prefix: Option<String>,
    /// Whether clients of a database of its own have channels of their own.
    #[serde(deserialize_with = "read::switch")]
    pub isolate_channels: bool,
    /// Commands refused beyond the built-in list, in lower case.
    #[serde(deserialize_with = "read::commands")]
    pub deny: Vec<String>,
    /// Commands let through in spite of the built-in list, in lower case.
    #[serde(deserialize_with = "read::commands")]
    pub allow: Vec<String>,

    /// Threads that serve clients; 0: one per core (see [`Config::worker_count`]).
    #[serde(deserialize_with = "read::number")]
    pub workers: usize,
    /// Where the admin server listens; `None`: nowhere.
    #[serde(deserialize_with = "read::socket_or_off")]
    pub admin: Option<SocketAddr>,
    /// Whether the admin server speaks TLS.
    #[serde(deserialize_with = "read::switch")]
    pub admin_tls: bool,
    /// What is logged.
    #[serde(deserialize_with = "read::log_filter")]
    pub log: Targets,
    /// The log's form.
    #[serde(deserialize_with = "read::log_format")]
    pub log_format: LogFormat,
    /// How long a request must take to be shown by PROXY SLOWLOG and on the status page.
    #[serde(deserialize_with = "read::duration")]
    pub slow_request: Duration,
    /// Whether the status page and PROXY HOTKEYS show keys; if not, they show digests.
    #[serde(deserialize_with = "read::switch")]
    pub show_keys: bool,
    /// The OTLP collector; `None`: nothing is exported.
    #[serde(deserialize_with = "read::collector")]
    pub otlp: Option<Address>,
    /// How often the collector is sent the metrics.
    #[serde(deserialize_with = "read::duration")]
    pub otlp_interval: Duration,
    /// The share of slow and failed requests of which the collector is sent a span, from 0 to 1.
    #[serde(deserialize_with = "read::part")]
    pub otlp_sample: f64,
    /// Time between "not ready" and the end of accepting.
    #[serde(deserialize_with = "read::delay")]
    pub drain_delay: Duration,
    /// How long requests under way may take at shutdown.
    #[serde(deserialize_with = "read::delay")]
    pub drain_timeout: Duration,
    /// The unix socket where a process that takes this one's place asks for the listening sockets; `None`: there is
    /// none.
    #[serde(deserialize_with = "read::path")]
    pub takeover: Option<PathBuf>,

    /// Limits of subscribers.
    pub pubsub: PubSubLimits,
    /// Every key as people are shown it; [`Config::load`] fills it.
    #[serde(skip)]
    pub shown: Arc<Vec<ShownKey>>,
    /// The proxy's own users, by name.
    pub users: BTreeMap<String, UserConfig>,
}

/// What a subscriber may owe (`client-output-buffer-limit pubsub`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PubSubLimits {
    /// Bytes above which a subscriber is closed at once; 0: no limit.
    #[serde(deserialize_with = "read::size")]
    pub hard_limit: usize,
    /// Bytes above which a subscriber is closed after `soft_time`; 0: no limit.
    #[serde(deserialize_with = "read::size")]
    pub soft_limit: usize,
    /// How long a subscriber may stay above `soft_limit`.
    #[serde(deserialize_with = "read::delay")]
    pub soft_time: Duration,
}

/// What becomes of a command that can be split, when its keys lie in several slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSlot {
    /// Each node gets its part, and the replies are merged.
    Split,
    /// The command is answered with CROSSSLOT, as by the cluster.
    Reject,
}

/// The log's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads, merges and checks all sources; password files are read here.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let config = Config::from_layers(&sources.merged()?)?;
        Ok(Config { shown: shown(sources)?.into(), ..config })
    }

    /// The built-in defaults.
    pub fn defaults() -> Config {
        Config::load(&Sources::default()).expect("config/slotway.toml is tested")
    }

    /// How long requests are tried, and how often they are redirected.
    pub fn recovery(&self) -> recovery::Limits {
        let redirects = u8::try_from(self.max_redirects).unwrap_or(u8::MAX);
        recovery::Limits { timeout: self.retry_timeout, redirects }
    }

    /// Who answers what only reads, and when replicas do.
    pub fn reads_from(&self) -> ReadPolicy {
        ReadPolicy {
            from: self.reads,
            max_lag: self.max_replica_lag,
            unproven: self.read_your_writes,
            zone: self.zone.clone(),
            zones: self.node_zones.clone(),
        }
    }

    fn from_layers(layers: &Figment) -> Result<Config, ConfigError> {
        let mut config: Config = layers.extract().map_err(|error| ConfigError::of(error, layers))?;
        if !config.listeners.is_empty() && Origin::of(layers.find_metadata("listen")) == Origin::Default {
            // Who lists all has nothing beside it.
            config.listen.clear();
        }
        secret::read_file(&mut config.password, config.password_file.as_deref(), "password")?;
        config.own_databases().map_err(|why| ConfigError::Database { why })?;
        secret::read_file(&mut config.client_password, config.client_password_file.as_deref(), "client_password")?;
        config.check_listeners()?;
        config.check_users()?;
        config.read_passwords()?;
        Ok(config)
    }

    /// An error where something is missing or at odds that only serving needs.
    pub fn ready_to_serve(&self) -> Result<(), ConfigError> {
        self.no_address_twice()?;
        self.client_tls()?;
        self.node_tls()?;
        if self.otlp.is_some() && !cfg!(feature = "otlp") {
            return Err(ConfigError::NoOtlp);
        }
        if self.seeds.is_empty() {
            return Err(ConfigError::NoSeeds);
        }
        match (self.lent_user(), &*self.insecure_binds()) {
            (Some(user), [address, ..]) => Err(ConfigError::LentUser { user: user.to_owned(), address: *address }),
            _ => Ok(()),
        }
    }

    /// How many workers there are: as configured, or one per core that this process may use.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    /// The names in `deny` and `allow` that the built-in table does not have: they are mistyped, or a module's.
    pub fn strange_commands(&self) -> Vec<&str> {
        let commands = CommandTable::builtin();
        let is_known = |name: &str| commands.rows().iter().any(|spec| *spec.name == *table::canonical(name));
        self.deny.iter().chain(&self.allow).map(String::as_str).filter(|name| !is_known(name)).collect()
    }
}

#[cfg(test)]
mod tests;
