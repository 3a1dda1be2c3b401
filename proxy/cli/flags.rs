//! Flags. Each takes its value as text: `config` checks it, whatever source it came from. There is none for a password,
//! since everybody on the machine can read command lines.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use slotway::config::Sources;

/// A switch may stand alone (`--reuse-port`).
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident $(= $key:literal)? $(@ $switch:ident)?,)+) => {
        /// One flag for every key of the configuration file.
        #[derive(Args, Clone, Default, Serialize)]
        pub struct ConfigFlags {
            /// Where clients connect: host:port, rediss://host:port or unix:///path?mode=660; may be repeated
            /// [127.0.0.1:6380]
            #[arg(long, value_name = "ADDRESS")]
            pub listen: Vec<String>,
            $(
                $(#[$doc])*
                #[arg(long, value_name = "VALUE" $(, num_args = 0..=1, default_missing_value = stringify!($switch))?)]
                $(#[serde(rename = $key)])?
                pub $name: Option<String>,
            )+
        }
    };
}

settings! {
    /// Some nodes of the cluster: host:port,host:port; rediss://host:port where they speak TLS
    seeds,
    /// Where /metrics, probes and the status page are, or `off` [127.0.0.1:9380]
    admin,
    /// The admin port speaks TLS, too
    admin_tls @ true,
    /// Threads that serve clients; 0: one per core [0]
    workers,
    /// The user that the proxy is to the nodes
    username,
    /// A file with the password that the nodes ask for
    password_file,
    /// The networks of load balancers whose PROXY headers are believed
    trusted_proxies,
    /// The user that clients must name
    client_username,
    /// A file with the password that clients must know
    client_password_file,
    /// The certificate of rediss:// listeners (PEM)
    tls_cert_file,
    /// Private key of that certificate (PEM)
    tls_key_file,
    /// The CAs of clients' certificates (PEM)
    tls_ca_cert_file,
    /// The nodes speak TLS, as rediss:// seeds say, too
    node_tls @ true,
    /// The nodes' CA (PEM) [the system's CAs]
    node_tls_ca_cert_file,
    /// The proxy's certificate to the nodes (PEM)
    node_tls_cert_file,
    /// Private key of that certificate (PEM)
    node_tls_key_file,
    /// What all nodes' certificates are for [each for its node]
    node_tls_server_name,
    /// Take anybody who answers for a node
    node_tls_insecure_skip_verify @ true,
    /// Whether clients show a certificate: `no`, `optional` or `yes` [yes with a CA, else no]
    tls_auth_clients,
    /// Where nodes are really reached: announced=reachable,...
    address_map,
    /// How long a client waits for a reply [3s]
    request_timeout,
    /// How long connecting to a node may take [1s]
    connect_timeout,
    /// Silence after which a node that owes replies is given up [5s]
    node_timeout,
    /// How long a redirected request is tried again [3s]
    retry_timeout,
    /// Redirections that one request follows [16]
    max_redirects,
    /// Time between looks at the cluster's layout [10s]
    refresh_interval,
    /// How long a request takes that PROXY SLOWLOG shows [10ms]
    slow_request,
    /// The status page and PROXY HOTKEYS show keys, not digests [true]
    show_keys @ true,
    /// Export metrics and traces by OTLP to the collector at host:port
    otlp,
    /// How often a collector is sent the metrics [10s]
    otlp_interval,
    /// Which part of slow and failed requests it is sent a span of [1.0]
    otlp_sample,
    /// Clients at one time [10000]
    max_clients,
    /// Close clients that are silent for this long [0s: never]
    client_idle_timeout,
    /// Requests that one client may have under way [1024]
    client_window,
    /// Bytes held for all clients together [256MiB]
    max_buffered,
    /// Idle time before a TCP probe [60s]
    tcp_keepalive,
    /// MGET and its like over several slots: `split` or `reject` [split]
    cross_slot,
    /// Who answers what only reads: `primary`, `replica` or `nearest` [primary]
    reads,
    /// How far a replica may lag that is read from [10s]
    max_replica_lag,
    /// How long to read what was written from the primary, where replicas' progress is not known [1s]
    read_your_writes,
    /// The availability zone of this proxy, for --reads nearest
    zone,
    /// The zones of nodes that do not tell theirs: 10.0.1.0/24=a,redis-1=b
    node_zones,
    /// Keep a client's order across nodes, too
    strict_order @ true,
    /// A database of its own for all clients of this proxy, in one slot: its name
    database,
    /// How many such databases SELECT may choose from; 0: those that the servers have [0]
    databases,
    /// What the keys of such a database begin with, % for its name [{%}]
    database_prefix,
    /// Give clients of such a database channels of their own, for PUBLISH and SUBSCRIBE
    isolate_channels @ true,
    /// Commands to refuse
    deny,
    /// Commands to let through that are refused by default
    allow,
    /// What a subscriber may owe before it is closed [32MiB]
    pubsub_hard_limit = "pubsub.hard_limit",
    /// What a subscriber may owe for --pubsub-soft-time [8MiB]
    pubsub_soft_limit = "pubsub.soft_limit",
    /// How long a subscriber may owe more than the soft limit [60s]
    pubsub_soft_time = "pubsub.soft_time",
    /// What is logged: error, warn, info, debug, trace, or a filter [info]
    log,
    /// `text` or `json` [text]
    log_format,
    /// How long to serve on after SIGTERM while /readyz says 503 [0s]
    drain_delay,
    /// How long requests under way may take at shutdown [10s]
    drain_timeout,
    /// Take the place of the process that serves with the same path, and let another take this one's
    takeover,
    /// Share the port with other processes
    reuse_port @ true,
    /// Serve beyond loopback without a password, as is meant
    allow_insecure_bind @ true,
    /// Refuse clients from other machines where a port is open to everyone
    protected_mode @ true,
}

/// The configuration, by flags.
#[derive(Args, Clone, Default)]
pub struct ServeFlags {
    /// A TOML file with settings (also SLOTWAY_CONFIG)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: ConfigFlags,
}

impl ServeFlags {
    /// The file, the environment and these flags.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.settings.given())
    }
}

impl ConfigFlags {
    /// The keys that were given, and their values.
    fn given(&self) -> Vec<(String, String)> {
        let all = serde_json::to_value(self).ok();
        let all = all.as_ref().and_then(serde_json::Value::as_object);
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Array(values) if values.is_empty() => None,
            serde_json::Value::Array(values) => {
                Some(values.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(","))
            }
            value => value.as_str().map(str::to_owned),
        };
        all.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
    }
}

/// What `dev` is to start.
#[derive(Args, Clone)]
pub struct DevFlags {
    /// The first node's port; the others follow, and their bus ports are 10000 higher
    #[arg(long, value_name = "PORT", default_value_t = 7000)]
    pub base_port: u16,
    /// Nodes that own slots
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub primaries: u16,
    /// Replicas of each of them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=5))]
    pub replicas: u16,
    /// The server to run, by name or path [redis-server, or valkey-server]
    #[arg(long, value_name = "PROGRAM")]
    pub server: Option<PathBuf>,
    #[command(flatten)]
    pub serve: ServeFlags,
}

/// What `doctor` looks at.
#[derive(Args, Clone)]
pub struct DoctorFlags {
    /// Print one JSON object instead of lines for people
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub serve: ServeFlags,
}

/// Where the admin port is.
#[derive(Args, Clone)]
pub struct AdminFlags {
    /// A TOML file with settings (also SLOTWAY_CONFIG)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The proxy's admin address, if it is not in the file or the environment [127.0.0.1:9380]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// It speaks TLS, if that is not in the file or the environment
    #[arg(long)]
    pub admin_tls: bool,
}

impl AdminFlags {
    /// The file, the environment and this flag.
    pub fn sources(&self) -> Sources {
        let flags = self.admin.iter().map(|admin| ("admin".to_owned(), admin.clone()));
        let secured = self.admin_tls.then(|| ("admin_tls".to_owned(), "true".to_owned()));
        Sources::of_process(self.config.clone(), flags.chain(secured).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_but_passwords_has_a_flag() {
        let all = serde_json::to_value(ConfigFlags::default()).unwrap();
        let flags: BTreeSet<String> = all.as_object().unwrap().keys().cloned().collect();
        let keys = slotway::config::shown(&Sources::default()).unwrap().into_iter().map(|shown| shown.key);
        // Tables of several keys stand in a file.
        let keys: BTreeSet<String> = keys.filter(|key| !key.ends_with("password") && key != "listeners").collect();
        assert_eq!(flags, keys);
    }
}
