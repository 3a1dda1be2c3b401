//! Where a node listens: a host name or address, and a port.
//!
//! ```
//! use slotway::protocol::address::Address;
//!
//! let node: Address = "redis-7000:7000".parse()?;
//! assert_eq!((node.host.as_str(), node.port), ("redis-7000", 7000));
//! // An IPv6 address stands in brackets where a port follows, and only there.
//! let node: Address = "[::1]:7000".parse()?;
//! assert_eq!((node.host.as_str(), node.to_string().as_str()), ("::1", "[::1]:7000"));
//! // What is refused says what to write, and shows no password.
//! let error = "redis://:secret@a:7000".parse::<Address>().unwrap_err().to_string();
//! assert!(error.starts_with("`...@a:7000` is no address: write host:port"));
//! # Ok::<(), slotway::protocol::address::NoAddress>(())
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A host (name, IPv4 or IPv6 address) and a port. Names are resolved at every connect, never kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Address {
    /// The host, an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// The address of `host` and `port`.
    pub fn new(host: impl Into<String>, port: u16) -> Address {
        Address { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What an address must look like.
#[derive(Debug, PartialEq, Eq)]
pub struct NoAddress(String);

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In front of an `@` there may be a password.
        let shown = self.0.rsplit_once('@').map_or_else(|| self.0.clone(), |(_, address)| format!("...@{address}"));
        write!(f, "`{shown}` is no address: write host:port, as in redis-7000:7000, 10.0.0.1:7000 or [::1]:7000")?;
        match network(&shown) {
            Some(mask) => write!(f, "; `{mask}` is the network's (as docker shows it): cut it off"),
            None => Ok(()),
        }
    }
}

/// The `/16` that docker shows behind an address.
fn network(text: &str) -> Option<&str> {
    let mask = &text[text.find('/')?..];
    let digits = mask[1..].bytes().take_while(u8::is_ascii_digit).count();
    let rest = &mask[1 + digits..];
    (matches!(digits, 1..=3) && (rest.is_empty() || rest.starts_with(':'))).then_some(&mask[..=digits])
}

impl std::error::Error for NoAddress {}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Address, NoAddress> {
        let wrong = || NoAddress(text.to_owned());
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || bare.contains(['/', ' ', '@', '[', ']']) || (bare == host && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Address::new(bare, port))
    }
}

impl TryFrom<String> for Address {
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Address, NoAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["redis-7000:7000", "127.0.0.1:1", "[::1]:7000"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "7000", ":7000", "a:", "a:0", "a:99999", "::1:7000", "redis://a:7000", "a b:1", "[]:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let complaint = "redis://:secret@a:7000".parse::<Address>().unwrap_err().to_string();
        assert!(complaint.starts_with("`...@a:7000` is no address"), "{complaint}");
        for (text, is_network) in [
            ("172.18.0.2/16:7000", true),
            ("172.18.0.2/16", true),
            ("172.18.0.2:7000/16", true),
            ("redis://a:7000", false),
            ("a/b:7000", false),
            ("a/", false),
        ] {
            let complaint = text.parse::<Address>().unwrap_err().to_string();
            assert_eq!(complaint.contains("`/16` is the network's"), is_network, "{complaint}");
        }
    }
}
