//! Where the proxy listens, and the two ends of a client's connection: socket addresses, or the path of a unix socket.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

/// One end of a client's connection, written as Redis writes it: `127.0.0.1:5000`, or `/run/slotway.sock:0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket. A client has no path of its own: Redis names the server's at both ends.
    Unix(Arc<str>),
}

impl Endpoint {
    /// The address without its port, or the path.
    pub fn host(&self) -> String {
        match self {
            Endpoint::Tcp(address) => address.ip().to_string(),
            Endpoint::Unix(path) => path.to_string(),
        }
    }

    /// Whether it is on this machine, as far as its address says.
    pub fn is_here(&self) -> bool {
        match self {
            Endpoint::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Endpoint::Unix(_) => true,
        }
    }

    /// The port; 0 of a unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Endpoint::Tcp(address) => address.port(),
            Endpoint::Unix(_) => 0,
        }
    }

    /// As MONITOR names it: `unix:/run/slotway.sock` is that of a unix socket.
    pub fn in_monitor(&self) -> String {
        match self {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix:{path}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// Of IPv4 that came by a socket of IPv6 (`[::]`, which is every address of both) the IPv4 address, as clients know it.
impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

/// Where the proxy listens for clients: `127.0.0.1:6380`, `redis://0.0.0.0:6380`, `rediss://0.0.0.0:6390` (TLS) or
/// `unix:///run/slotway.sock?mode=660`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// An address and a port where TLS is spoken.
    Tls(SocketAddr),
    /// A unix socket.
    Unix {
        /// Its absolute path.
        path: Arc<str>,
        /// Who may connect, as the file's permissions; `None`: as the process's umask has it.
        mode: Option<u32>,
    },
}

impl ListenAddress {
    /// The address, where it is one of a network.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            ListenAddress::Tcp(address) | ListenAddress::Tls(address) => Some(*address),
            ListenAddress::Unix { .. } => None,
        }
    }

    /// Whether only one of the two can be listened on: both are one port, or one path.
    pub fn shares_place_with(&self, other: &ListenAddress) -> bool {
        let ports = [self, other].map(|address| address.tcp().map(|address| address.port()));
        let paths = [self, other].map(ListenAddress::path);
        ports[0].is_some_and(|port| port != 0 && ports[1] == Some(port)) || paths[0].is_some() && paths[0] == paths[1]
    }

    /// The path, where it is that of a unix socket.
    pub fn path(&self) -> Option<&str> {
        match self {
            ListenAddress::Unix { path, .. } => Some(path),
            ListenAddress::Tcp(_) | ListenAddress::Tls(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Tls(address) => write!(f, "rediss://{address}"),
            ListenAddress::Unix { path, mode: None } => write!(f, "unix://{path}"),
            ListenAddress::Unix { path, mode: Some(mode) } => write!(f, "unix://{path}?mode={mode:o}"),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("unix://") {
            return unix(rest).map_err(|why| format!("`{text}`: {why}"));
        }
        let found = match text.strip_prefix("rediss://") {
            Some(rest) => socket(rest).map(ListenAddress::Tls),
            None => socket(text.strip_prefix("redis://").unwrap_or(text)).map(ListenAddress::Tcp),
        };
        found.ok_or_else(|| {
            format!(
                "`{text}` is no IP address and port: write it as 127.0.0.1:6380, 0.0.0.0:6380 or [::]:6380, with rediss:// in \
                 front for TLS, or as unix:///run/slotway.sock"
            )
        })
    }
}

/// An IP address and a port; `:6380` is how other programs write "every interface".
pub fn socket(text: &str) -> Option<SocketAddr> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.replace("localhost:", "127.0.0.1:") };
    whole.parse().ok()
}

fn unix(rest: &str) -> Result<ListenAddress, &'static str> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("a unix socket has an absolute path: unix:///run/slotway.sock");
    }
    let mode = match query {
        "" => None,
        query => {
            let mode = query.strip_prefix("mode=").and_then(|mode| u32::from_str_radix(mode, 8).ok());
            Some(mode.filter(|mode| *mode <= 0o777).ok_or("all that may follow is the file's mode: ?mode=660")?)
        }
    };
    Ok(ListenAddress::Unix { path: path.into(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shown) in [
            ("127.0.0.1:6380", "127.0.0.1:6380"),
            (":6380", "0.0.0.0:6380"),
            ("redis://localhost:6380", "127.0.0.1:6380"),
            ("redis://[::]:6380", "[::]:6380"),
            ("rediss://:6390", "rediss://0.0.0.0:6390"),
            ("unix:///run/slotway.sock", "unix:///run/slotway.sock"),
            ("unix:///run/slotway.sock?mode=660", "unix:///run/slotway.sock?mode=660"),
        ] {
            assert_eq!(text.parse::<ListenAddress>().map(|address| address.to_string()), Ok(shown.to_owned()));
        }
        for (text, why) in [
            ("6380", "is no IP address and port"),
            ("rediss://6390", "is no IP address and port"),
            ("unix://run/slotway.sock", "a unix socket has an absolute path"),
            ("unix:///run/", "a unix socket has an absolute path"),
            ("unix:///run/slotway.sock?mode=999", "the file's mode"),
            ("unix:///run/slotway.sock?group=1", "the file's mode"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains(text) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn ends_are_named_as_redis_names_them() {
        let tcp = Endpoint::from("127.0.0.1:5000".parse::<SocketAddr>().unwrap());
        assert_eq!((tcp.to_string(), tcp.host(), tcp.port()), ("127.0.0.1:5000".into(), "127.0.0.1".into(), 5000));
        let unix = Endpoint::Unix("/run/s.sock".into());
        assert_eq!((unix.to_string(), unix.in_monitor()), ("/run/s.sock:0".into(), "unix:/run/s.sock".into()));
    }
}
