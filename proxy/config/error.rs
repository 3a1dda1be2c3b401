//! What can be wrong with a configuration, in words that say where and what to do.

use std::{fmt, net::SocketAddr, path::PathBuf};

use figment::{
    Figment,
    error::{Actual, Kind},
};

use super::layer::{self, Origin};
use crate::protocol::names::Name;

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file named by `--config` or `SLOTWAY_CONFIG` cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file is no TOML.
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1; 0 where it is unknown.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// A key that does not exist.
    UnknownKey {
        /// Where it stands.
        from: Origin,
        /// The key as written there.
        key: String,
        /// The nearest key that exists, as it would be written there.
        nearest: Option<String>,
    },
    /// A value that is not of its key's kind.
    BadValue {
        /// Where it stands.
        from: Origin,
        /// The key as written there.
        key: String,
        /// What is wrong, with an example.
        why: String,
    },
    /// A password is given both itself and by file.
    BothPasswords {
        /// The password's key.
        key: &'static str,
    },
    /// A password file cannot be used.
    PasswordFile {
        /// The password's key.
        key: String,
        /// The file.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// An address's port is another address's too.
    SharedPort {
        /// The later one.
        address: SocketAddr,
    },
    /// The settings of a listener do not fit together.
    Listener {
        /// Where it listens.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// The path of a unix socket is another's, too.
    SharedSocket {
        /// The path.
        path: String,
    },
    /// Whoever reaches the port would work as a user of the nodes, and nobody has said that this is meant.
    LentUser {
        /// The nodes' user.
        user: String,
        /// The listener that lets everybody work as that user.
        address: SocketAddr,
    },
    /// A database cannot have this name or prefix.
    Database {
        /// What is wrong.
        why: String,
    },
    /// The settings of a user of the proxy's own do not fit together.
    User {
        /// What is wrong.
        why: String,
    },
    /// TLS needs a certificate and its key.
    NoCertificate {
        /// What speaks TLS.
        wanted_by: String,
    },
    /// TLS is to be spoken to clients by a process that has begun without.
    FirstTls {
        /// Where.
        address: String,
    },
    /// A certificate without its key, or a key without its certificate.
    HalfAPair {
        /// The key of the configuration that is not set.
        missing: &'static str,
    },
    /// Certificates of clients are judged by a CA.
    NoCa,
    /// This build cannot export by OTLP.
    NoOtlp,
    /// Serving needs seeds.
    NoSeeds,
}

impl ConfigError {
    /// What figment found wrong, in our words.
    pub(super) fn of(error: figment::Error, layers: &Figment) -> ConfigError {
        // An unknown key's own place is known by its value, not by the error, whose place is the table around it.
        let mut path = error.path.clone();
        // The place within a list says nothing that the text does not.
        path.retain(|step| step.parse::<usize>().is_err());
        let whole_key = path.first().and_then(|key| layers.find_metadata(key));
        if let Kind::UnknownField(name, known) = &error.kind {
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            let from = Origin::of(layers.find_metadata(&path.join(".")).or(whole_key));
            let nearest = nearest(name, known).map(|known| {
                let mut path = path.clone();
                path.pop();
                path.push(known.to_owned());
                from.write(&path)
            });
            return ConfigError::UnknownKey { key: from.write(&path), from, nearest };
        }
        let from = Origin::of(error.metadata.as_ref().or_else(|| layers.find_metadata(&path.join("."))).or(whole_key));
        let why = match error.kind {
            Kind::Message(why) => why,
            Kind::MissingField(field) => format!("`{field}` is missing"),
            Kind::InvalidType(actual, expected) => format!("found {}, expected {}", found(&actual), wanted(&expected)),
            other => other.to_string(),
        };
        ConfigError::BadValue { key: from.write(&path), from, why }
    }
}

/// What stands there, in the words of a file.
fn found(actual: &Actual) -> String {
    match actual {
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("the number `{value}`"),
        Actual::Signed(value) => format!("the number `{value}`"),
        Actual::Float(value) => format!("the number `{value}`"),
        Actual::Str(text) => format!("the text {text:?}"),
        Actual::Map => "a table".to_owned(),
        Actual::Seq => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// What should stand there.
fn wanted(expected: &str) -> &str {
    match expected {
        "a map" => "a table, which only a file can have",
        "a sequence" => "a list of tables, which only a file can have",
        expected => expected,
    }
}

/// The known key that was probably meant: alike in spelling, or with its words in another order.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let alike = |known: &str| strsim::jaro_winkler(&name.to_lowercase().replace('-', "_"), known);
    let best = known.iter().copied().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(best) > 0.7).then_some(best)
}

impl ConfigError {
    /// The error's name in `deploy/troubleshooting.md`.
    pub fn name(&self) -> Name {
        match self {
            ConfigError::Unreadable { .. } | ConfigError::Syntax { .. } => Name::ConfigFile,
            ConfigError::UnknownKey { .. } => Name::UnknownKey,
            ConfigError::BadValue { .. } => Name::BadValue,
            ConfigError::BothPasswords { .. } | ConfigError::PasswordFile { .. } => Name::Password,
            ConfigError::SharedPort { .. } | ConfigError::Listener { .. } | ConfigError::SharedSocket { .. } => {
                Name::Listener
            }
            ConfigError::LentUser { .. } => Name::LentUser,
            ConfigError::Database { .. } => Name::Database,
            ConfigError::User { .. } => Name::User,
            ConfigError::NoCertificate { .. }
            | ConfigError::FirstTls { .. }
            | ConfigError::HalfAPair { .. }
            | ConfigError::NoCa => Name::TlsFiles,
            ConfigError::NoSeeds => Name::NoSeeds,
            ConfigError::NoOtlp => Name::NoOtlp,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, why } => {
                write!(f, "cannot read the configuration file {}: {why}", file.display())
            }
            ConfigError::Syntax { file, line: 0, why } => write!(f, "{}: {why}", file.display()),
            ConfigError::Syntax { file, line, why } => write!(f, "{}, line {line}: {why}", file.display()),
            ConfigError::UnknownKey { from, key, nearest: Some(nearest) } => {
                write!(f, "{from}: there is no key `{key}`; did you mean `{nearest}`?")
            }
            ConfigError::UnknownKey { from, key, nearest: None } => {
                write!(f, "{from}: there is no key `{key}`; `slotway check` prints all there are")
            }
            // A flag's name says what it is.
            ConfigError::BadValue { from: Origin::Flag, key, why } => write!(f, "bad value for `{key}`: {why}"),
            ConfigError::BadValue { from, key, why } => write!(f, "{from}: bad value for `{key}`: {why}"),
            ConfigError::BothPasswords { key } => {
                write!(f, "both `{key}` and `{key}_file` are set; keep one of them")
            }
            ConfigError::PasswordFile { key, file, why } => {
                write!(f, "`{key}_file`: cannot take the password from {}: {why}", file.display())
            }
            ConfigError::SharedPort { address } => {
                write!(f, "two addresses of listeners and `admin` meet at {address}: each needs a port of its own")
            }
            ConfigError::Listener { address, why } => write!(f, "the listener {address}: {why}"),
            ConfigError::SharedSocket { path } => {
                write!(f, "the unix socket {path} is listened on twice: each listener needs a path of its own")
            }
            ConfigError::LentUser { user, address } => write!(
                f,
                "whoever reaches {address} would work as the nodes' user `{user}` without a password, since `password` \
                 is set and `client_password` is not: set `client_password` or `client_password_file`, listen on \
                 127.0.0.1, or say `allow_insecure_bind` where this is meant"
            ),
            ConfigError::Database { why } | ConfigError::User { why } => f.write_str(why),
            ConfigError::NoCertificate { wanted_by } => write!(
                f,
                "{wanted_by} speaks TLS, which takes a certificate and its key: name both files, `tls_cert_file` and \
                 `tls_key_file` (PEM)"
            ),
            ConfigError::FirstTls { address } => write!(
                f,
                "{address} takes a restart: this process has begun without TLS, and has no certificate"
            ),
            ConfigError::HalfAPair { missing } => {
                write!(f, "`{missing}` is missing: a certificate and its key go together")
            }
            ConfigError::NoCa => write!(
                f,
                "`tls_auth_clients` asks clients for certificates: name the file with the CA that they are of, \
                 `tls_ca_cert_file` (PEM), or say `tls_auth_clients = \"no\"`"
            ),
            ConfigError::NoOtlp => f.write_str(
                "`otlp` is set, and this program was built without it: build it with `cargo build --release --features otlp`",
            ),
            ConfigError::NoSeeds => write!(
                f,
                "no seeds: name some nodes of the cluster, as in `slotway --seeds redis-7000:7000,redis-7001:7001`, \
                 {}SEEDS or `seeds` in a file; or run `slotway dev` to get a cluster to try",
                layer::PREFIX
            ),
        }
    }
}

impl std::error::Error for ConfigError {}
