//! What the nodes take from one connection before they close it. What clients share is to stay within that.

use std::time::Duration;

use crate::protocol::resp::{Value, request::LONGEST_BULK};

/// The longest that a query may wait unread, unless a node is told otherwise.
const UNREAD: usize = 1024 * 1024 * 1024;

/// The nodes' limits; the strictest of them where nodes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Bytes of requests that it has read and not carried out (`client-query-buffer-limit`).
    pub unread: usize,
    /// Bytes of replies that it has not sent (`client-output-buffer-limit normal`, the lower of hard and soft); `None`:
    /// as many as there are.
    pub unsent: Option<usize>,
    /// The longest argument (`proto-max-bulk-len`).
    pub longest_bulk: u64,
    /// How long a connection may be idle (`timeout`); `None`: for ever.
    pub idle: Option<Duration>,
    /// The node closes connections that take much memory (`maxmemory-clients`).
    pub evicts_clients: bool,
}

impl Default for Accepts {
    fn default() -> Accepts {
        Accepts { unread: UNREAD, unsent: None, longest_bulk: LONGEST_BULK, idle: None, evicts_clients: false }
    }
}

impl Accepts {
    /// The requests whose replies tell.
    pub const QUESTIONS: [&str; 5] = [
        "CONFIG GET client-query-buffer-limit",
        "CONFIG GET client-output-buffer-limit",
        "CONFIG GET proto-max-bulk-len",
        "CONFIG GET timeout",
        "CONFIG GET maxmemory-clients",
    ];

    /// Reads the replies to [`Accepts::QUESTIONS`]; `None` where the node does not tell. What it does not know, it does
    /// not limit.
    pub fn of(replies: &[Value]) -> Option<Accepts> {
        let text = |name: &str| replies.iter().find_map(|reply| reply.field(name)).and_then(Value::str);
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let bytes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        if replies.iter().all(|reply| matches!(reply, Value::Error(_))) {
            return None;
        }
        let usual = Accepts::default();
        Some(Accepts {
            unread: number("client-query-buffer-limit").map_or(usual.unread, bytes),
            unsent: text("client-output-buffer-limit").and_then(of_normal_clients),
            longest_bulk: number("proto-max-bulk-len").unwrap_or(usual.longest_bulk),
            idle: number("timeout").filter(|seconds| *seconds > 0).map(Duration::from_secs),
            evicts_clients: text("maxmemory-clients").is_some_and(|most| most != "0"),
        })
    }

    /// What is within these limits and within `other`.
    pub fn strictest(self, other: Accepts) -> Accepts {
        let lower = |one: Option<usize>, other: Option<usize>| one.into_iter().chain(other).min();
        Accepts {
            unread: self.unread.min(other.unread),
            unsent: lower(self.unsent, other.unsent),
            longest_bulk: self.longest_bulk.min(other.longest_bulk),
            idle: self.idle.into_iter().chain(other.idle).min(),
            evicts_clients: self.evicts_clients || other.evicts_clients,
        }
    }

    /// How long a connection that is to stay open may say nothing: half of what the nodes allow, since they look at
    /// whole seconds only.
    pub fn quiet(&self) -> Option<Duration> {
        self.idle.map(|idle| idle / 2)
    }
}

/// The lower limit in `normal 0 0 0 slave 268435456 67108864 60 ...`: class, hard, soft, and seconds beyond the soft one.
fn of_normal_clients(text: &str) -> Option<usize> {
    let mut words = text.split(' ').skip_while(|word| *word != "normal").skip(1).take(2);
    let mut limit = || words.next()?.parse::<usize>().ok();
    [limit(), limit()].into_iter().flatten().filter(|limit| *limit > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[[&str; 2]]) -> Vec<Value> {
        let text = |text: &str| Value::Text(text.as_bytes().to_vec().into());
        pairs.iter().map(|[name, value]| Value::Array(vec![text(name), text(value)])).collect()
    }

    #[test]
    fn limits_are_read_as_nodes_tell_them() {
        let usual = [
            ["client-query-buffer-limit", "1073741824"],
            ["client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"],
            ["proto-max-bulk-len", "536870912"],
            ["timeout", "0"],
            ["maxmemory-clients", "0"],
        ];
        assert_eq!(Accepts::of(&said(&usual)), Some(Accepts::default()));
        let strict = [
            ["client-query-buffer-limit", "1048576"],
            ["client-output-buffer-limit", "slave 1 1 1 normal 2097152 1048576 10"],
            ["proto-max-bulk-len", "2097152"],
            ["timeout", "7"],
            ["maxmemory-clients", "5%"],
        ];
        let strict = Accepts::of(&said(&strict)).unwrap();
        let expected = Accepts {
            unread: 1 << 20,
            unsent: Some(1 << 20),
            longest_bulk: 2 << 20,
            idle: Some(Duration::from_secs(7)),
            evicts_clients: true,
        };
        assert_eq!(strict, expected);
        assert_eq!(Accepts::default().strictest(strict), strict);
        assert_eq!(strict.quiet(), Some(Duration::from_millis(3500)));
        // Older servers do not know some of them, and answer with an empty list.
        assert_eq!(Accepts::of(&[Value::Array(Vec::new())]), Some(Accepts::default()));
        assert_eq!(Accepts::of(&[Value::Error(b"NOPERM".to_vec().into())]), None);
    }
}
