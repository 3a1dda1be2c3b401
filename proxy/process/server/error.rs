//! Why the proxy could not serve, for the log and the exit code.

use std::{fmt, io};

use crate::{
    config::ConfigError,
    protocol::{endpoint::ListenAddress, names::Name},
    upstream::transport::tls::files::FileError,
};

/// Why the proxy could not serve.
#[derive(Debug)]
pub enum ServeError {
    /// An address cannot be listened on.
    Bind(ListenAddress, io::Error),
    /// An address cannot be listened on besides another, where this process listens already.
    OwnPlace {
        /// Where it was to listen.
        wanted: ListenAddress,
        /// Where it does.
        taken: ListenAddress,
    },
    /// Keys of the configuration are at odds.
    Config(ConfigError),
    /// A certificate or a key is of no use.
    Certificate(FileError),
    /// The system refused something else that is needed.
    System(&'static str, io::Error),
}

impl ServeError {
    /// The error's name in `deploy/troubleshooting.md`.
    pub fn name(&self) -> Name {
        match self {
            ServeError::Bind(..) | ServeError::OwnPlace { .. } => Name::Port,
            ServeError::Config(error) => error.name(),
            ServeError::Certificate(_) => Name::TlsFiles,
            ServeError::System(..) => Name::Start,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Bind(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                let what = if address.tcp().is_some() { "port" } else { "socket" };
                write!(f, "cannot listen on {address}: the {what} is taken; stop what uses it, or choose another")
            }
            ServeError::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            ServeError::OwnPlace { wanted, taken } => {
                write!(f, "{wanted} takes a restart: this process listens at {taken}, which is the same place")
            }
            ServeError::Config(error) => error.fmt(f),
            ServeError::Certificate(error) => error.fmt(f),
            ServeError::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> ServeError {
        ServeError::Config(error)
    }
}

impl From<FileError> for ServeError {
    fn from(error: FileError) -> ServeError {
        ServeError::Certificate(error)
    }
}
