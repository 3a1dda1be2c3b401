//! Where to copy from and to, as a URL.

use std::{fmt, str::FromStr};

use crate::{
    config::Secret,
    protocol::address::Address,
    upstream::dial::{Credentials, Login},
};

/// A server: `redis://host:6379/0`, or `rediss://user@host` where it speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub address: Address,
    /// Whether TLS is spoken.
    pub is_secured: bool,
    /// The user to log in as; `None`: `default`.
    pub user: Option<String>,
    /// The user's password; it is in no URL.
    pub password: Option<Secret>,
    /// The database to SELECT.
    pub database: u32,
}

/// The port where a URL has none.
const PORT: u16 = 6379;

impl Place {
    /// Who logs in, and where.
    pub fn login(&self) -> Login {
        let credentials = self.password.as_ref().map(|password| Credentials {
            username: self.user.clone().map(Into::into),
            secret: password.reveal().to_owned().into(),
        });
        Login { credentials: credentials.clone(), own: credentials, database: self.database, ..Login::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secured { "rediss" } else { "redis" };
        let (at, database) = (self.user.as_ref().map_or(String::new(), |user| format!("{user}@")), self.database);
        write!(f, "{scheme}://{at}{}", self.address)?;
        if database > 0 { write!(f, "/{database}") } else { Ok(()) }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let wrong =
            |shown: &str| format!("`{shown}` is no server: write it as redis://host:6379/0, or rediss:// for TLS");
        let (is_secured, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong(if text.contains('@') { "..." } else { text })),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            // Everybody on the machine can read command lines.
            Some((user, _)) if user.contains(':') => {
                return Err("a password has no place in a URL: put it into a file (--from-password-file, \
                            --to-password-file)"
                    .to_owned());
            }
            Some((user, rest)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), rest),
            None => (None, rest),
        };
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let number = if database.is_empty() { Ok(0) } else { database.parse() };
        let database = number.map_err(|_| format!("`{text}`: what follows the slash is the database's number"))?;
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) && !host.is_empty();
        let whole = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
        let address = whole.parse::<Address>().map_err(|_| wrong(text))?;
        Ok(Place { address, is_secured, user, password: None, database })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (text, shown) in [
            ("redis://old", "redis://old:6379"),
            ("redis://old:7000/0", "redis://old:7000"),
            ("rediss://me@old:1/3", "rediss://me@old:1/3"),
            ("redis://[::1]:6380", "redis://[::1]:6380"),
            ("redis://127.0.0.1/2", "redis://127.0.0.1:6379/2"),
        ] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()), Ok(shown.to_owned()));
        }
        for (text, error) in [
            ("old:6379", "is no server: write it as redis://host:6379/0"),
            ("redis://", "is no server"),
            ("redis://old:x", "is no server"),
            ("redis://old/x", "the database's number"),
            ("redis://me:secret@old", "a password has no place in a URL"),
        ] {
            let said = text.parse::<Place>().unwrap_err();
            assert!(said.contains(error) && !said.contains("secret"), "{text}: {said}");
        }
    }
}
