//! What the servers of the cluster are.

use std::sync::Arc;

use crate::protocol::resp::{Value, request::FramingRules};

/// Whose server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerKind {
    /// Redis, or what says it is.
    #[default]
    Redis,
    /// Valkey.
    Valkey,
}

/// What the servers of the cluster are, as INFO says; the newest of them where they differ during an upgrade.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerInfo {
    /// Redis or Valkey.
    pub kind: ServerKind,
    /// The version, such as `7.0.15`; empty before any is known.
    pub version: String,
    /// The version of Redis that it is compatible with (`redis_version`): Valkey 9.1 says `7.2.4`.
    pub redis_version: String,
    /// How many databases SELECT may choose from: `cluster-databases` of Valkey 9, else 1.
    pub databases: u32,
    /// How many commands it knows: modules that come or go change it.
    pub command_count: u32,
    /// What MODULE LIST says: one array of alternating names and values for each module.
    pub modules: Vec<Value>,
    /// What it makes of frames that are not canonical.
    pub framing: Framing,
}

/// What a server makes of frames that are not canonical. They never reach it by a connection that clients share, but who
/// sends one is to meet the same as there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// What it says to one whose lines do not end in CR LF; `None`: nothing, it does not look.
    pub refuses_line_end: Option<Arc<str>>,
    /// A NUL in a head is a byte like others.
    pub sees_past_nul: bool,
    /// In an inline request a word goes on behind a closing quote.
    pub joins_quoted: bool,
}

impl Framing {
    /// What a client's bytes are held to, accordingly.
    pub fn rules(&self, unauthenticated: bool, longest_bulk: u64) -> FramingRules {
        let checks_line_ends = self.refuses_line_end.is_some();
        let Framing { sees_past_nul, joins_quoted, .. } = *self;
        FramingRules { unauthenticated, checks_line_ends, sees_past_nul, joins_quoted, longest_bulk }
    }
}

impl ServerInfo {
    /// Reads the reply of `INFO server`.
    pub fn from_info(info: &str) -> ServerInfo {
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let (redis, valkey) = (field("redis_version"), field("valkey_version"));
        let kind = if valkey.is_empty() { ServerKind::Redis } else { ServerKind::Valkey };
        let version = if valkey.is_empty() { redis.clone() } else { valkey };
        ServerInfo { kind, version, redis_version: redis, databases: 1, ..ServerInfo::default() }
    }

    /// The version as numbers, to compare: `7.0.15` is (7, 0, 15).
    pub fn numbers(&self) -> (u32, u32, u32) {
        let mut numbers = self.version.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        (next(), next(), next())
    }

    /// The order of newness: kind, version, number of commands.
    pub fn newness(&self) -> (ServerKind, (u32, u32, u32), u32) {
        (self.kind, self.numbers(), self.command_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_what_they_are() {
        let redis = ServerInfo::from_info("# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n");
        assert_eq!((redis.kind, redis.version.as_str(), redis.numbers()), (ServerKind::Redis, "7.0.15", (7, 0, 15)));
        let valkey = ServerInfo::from_info(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:cluster\r\n",
        );
        assert_eq!((valkey.kind, valkey.version.as_str(), valkey.numbers()), (ServerKind::Valkey, "9.1.2", (9, 1, 2)));
        assert_eq!(valkey.redis_version, "7.2.4");
        assert!(valkey.newness() > redis.newness());
        assert_eq!(ServerInfo::from_info("").numbers(), (0, 0, 0));
        assert_eq!(ServerInfo::from_info("redis_version:8.0-rc1").numbers(), (8, 0, 0));
    }
}
