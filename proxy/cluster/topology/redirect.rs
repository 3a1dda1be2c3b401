//! `MOVED` and `ASK`, as a node's error says them.

use crate::protocol::{address::Address, slot::Slot};

/// Which redirect it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectKind {
    /// The slot lives elsewhere from now on.
    Moved,
    /// This one request goes elsewhere, with ASKING before it; the slot stays.
    Ask,
}

/// A redirect: `MOVED 3999 127.0.0.1:6381`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Which it is.
    pub kind: RedirectKind,
    /// The slot it is about.
    pub slot: Slot,
    /// The host: empty for the host that answered, `?` where the node does not know it.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Redirect {
    /// Reads an error's text, without its `-`; `None` for any other error. The host may be an IPv6 address without
    /// brackets, so that the port is what follows the last colon.
    pub fn parse(error: &[u8]) -> Option<Redirect> {
        let (kind, rest) = match error {
            [b'M', b'O', b'V', b'E', b'D', b' ', rest @ ..] => (RedirectKind::Moved, rest),
            [b'A', b'S', b'K', b' ', rest @ ..] => (RedirectKind::Ask, rest),
            _ => return None,
        };
        let mut words = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
        let slot = Slot::new(words.next()?.parse().ok()?)?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|&port| port != 0)?;
        Some(Redirect { kind, slot, host: host.to_owned(), port })
    }

    /// The address, where it is a whole one.
    pub fn address(&self) -> Option<Address> {
        (!matches!(self.host.as_str(), "" | "?")).then(|| Address::new(self.host.clone(), self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_in_every_form() {
        for (text, kind, slot, host, port) in [
            ("MOVED 3999 127.0.0.1:6381", RedirectKind::Moved, 3999, "127.0.0.1", 6381),
            ("MOVED 3999 :6381", RedirectKind::Moved, 3999, "", 6381),
            ("MOVED 0 ?:6381", RedirectKind::Moved, 0, "?", 6381),
            ("ASK 16383 redis-7000.local:7000", RedirectKind::Ask, 16383, "redis-7000.local", 7000),
            ("MOVED 1 ::1:6381", RedirectKind::Moved, 1, "::1", 6381),
            ("MOVED 1 [fd00::2]:6381", RedirectKind::Moved, 1, "fd00::2", 6381),
        ] {
            let redirect = Redirect::parse(text.as_bytes()).unwrap();
            assert_eq!((redirect.kind, redirect.slot.index()), (kind, slot), "{text}");
            assert_eq!((redirect.host.as_str(), redirect.port), (host, port), "{text}");
        }
        for text in ["ERR no", "MOVED", "MOVED 16384 a:1", "MOVED x a:1", "MOVED 1 a", "MOVED 1 a:0", "ASKING", "ASK 1"]
        {
            assert_eq!(Redirect::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Redirect::parse(b"MOVED 1 \xff:1"), None);
    }
}
