//! Finding the node that somebody names: by its address, port, host, id, a slot or a key. Nothing is guessed: what fits
//! nothing, or more than one node, is an error that lists the nodes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Node, Topology};
use crate::protocol::{
    address::Address,
    says,
    slot::{SLOTS, Slot},
};

/// How much of a node id must be said at least.
const SHORTEST_ID: usize = 4;
/// So many digits or fewer may be a port or a slot as well as the start of an id.
const LONGEST_NUMBER: usize = 5;

/// A node that somebody has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The node.
    pub node: &'a Arc<Node>,
    /// The node was named as the owner of a slot or key, which is another node once the slot has moved.
    pub as_owner: bool,
}

/// No node was found by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The error for whoever asked.
    pub error: String,
    /// A host, and a port where one was said, that the cluster does not know by that name: the network may.
    pub host: Option<(String, Option<u16>)>,
}

impl From<String> for NotFound {
    fn from(error: String) -> NotFound {
        NotFound { error, host: None }
    }
}

impl Topology {
    /// The node that `name` stands for: `host:port` as announced, dialled or in the metrics; `:port` or a host, where one
    /// node only has it; the start of a node id; `slot:7000` and `key:foo` for the owner.
    pub fn find(&self, name: &[u8]) -> Result<Named<'_>, NotFound> {
        if let Some(key) = name.strip_prefix(b"key:") {
            return self.owner_of(Slot::of(key));
        }
        let text = std::str::from_utf8(name).unwrap_or_default();
        if let Some(number) = text.strip_prefix("slot:") {
            let slot = number.parse().ok().and_then(Slot::new);
            return self.owner_of(slot.ok_or_else(|| no_slot(number))?);
        }
        if !text.is_empty() && text.len() <= LONGEST_NUMBER && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.bare_number(text).into());
        }
        let found: Vec<&Arc<Node>> = self.nodes.iter().filter(|node| is_named(node, text)).collect();
        match found[..] {
            [node] => Ok(Named { node, as_owner: false }),
            [] => {
                let error = self.no_such_node(&String::from_utf8_lossy(name));
                Err(NotFound { error, host: host_of(text).filter(|_| !self.nodes.is_empty()) })
            }
            _ => Err(self.ambiguous(text, &found).into()),
        }
    }

    /// The node at one of these addresses, which `name` leads to; on this port, where one was said.
    pub fn find_at(&self, name: &str, port: Option<u16>, at: &[SocketAddr]) -> Result<Named<'_>, String> {
        let is_there = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| at.iter().any(|address| address.ip() == ip));
        let leads_to = |known: &Address| is_there(&known.host) && port.is_none_or(|port| port == known.port);
        let leads_to_alias = |node: &Node| {
            port.is_none_or(|port| port == node.announced.port) && node.aliases.iter().any(|host| is_there(host))
        };
        let is_meant = |node: &&Arc<Node>| leads_to(&node.announced) || leads_to(&node.reach) || leads_to_alias(node);
        let found: Vec<&Arc<Node>> = self.nodes.iter().filter(is_meant).collect();
        match found[..] {
            [node] => Ok(Named { node, as_owner: false }),
            [] => Err(self.no_such_node(name)),
            _ => Err(self.ambiguous(name, &found)),
        }
    }

    fn owner_of(&self, slot: Slot) -> Result<Named<'_>, NotFound> {
        let node = self.owner(slot).ok_or_else(|| self.down())?;
        Ok(Named { node, as_owner: true })
    }

    fn bare_number(&self, number: &str) -> String {
        says::which_node(format_args!(
            "{number} may be a port, a slot, a key or the start of an id: say :{number}, slot:{number}, key:{number} \
             or more of the id; the nodes are {}",
            self.known(&self.nodes.iter().collect::<Vec<_>>())
        ))
    }

    fn no_such_node(&self, name: &str) -> String {
        says::which_node(format_args!(
            "no node is {}: say host:port, :port, a host, the start of an id, slot:<number> or key:<key>; the nodes \
             are {}",
            name.escape_debug(),
            self.known(&self.nodes.iter().collect::<Vec<_>>())
        ))
    }

    fn ambiguous(&self, name: &str, found: &[&Arc<Node>]) -> String {
        says::which_node(format_args!("{} may be any of {}", name.escape_debug(), self.known(found)))
    }

    fn known(&self, nodes: &[&Arc<Node>]) -> String {
        let named = nodes.iter().map(|node| format!("{} ({} {})", node.label, node.role.label(), node.id));
        let mut named: Vec<String> = named.collect();
        named.sort();
        if named.is_empty() { "not known yet".to_owned() } else { named.join(", ") }
    }
}

/// Whether `text` names this node, by its address, its port, its host or the start of its id.
fn is_named(node: &Node, text: &str) -> bool {
    if let Some(port) = text.strip_prefix(':') {
        return port.parse().is_ok_and(|port: u16| port == node.announced.port || port == node.reach.port);
    }
    let has_address = |address: Address| {
        *node.label == *text || node.announced == address || node.reach == address || node.goes_by(&address)
    };
    let is_host = |host: &str| host.eq_ignore_ascii_case(text);
    let begins_id = text.len() >= SHORTEST_ID && node.id.starts_with(&text.to_ascii_lowercase());
    text.parse().is_ok_and(has_address)
        || !text.is_empty() && (is_host(&node.announced.host) || is_host(&node.reach.host))
        || node.aliases.iter().any(|host| is_host(host))
        || begins_id
}

/// The host, and the port where there is one, if `text` can be that.
fn host_of(text: &str) -> Option<(String, Option<u16>)> {
    let is_name = |host: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        (1..=253).contains(&host.len()) && host.bytes().all(plain)
    };
    let (host, port) = match text.parse::<Address>() {
        Ok(Address { host, port }) => (host, Some(port)),
        Err(_) => (text.to_owned(), None),
    };
    is_name(&host).then_some((host, port))
}

fn no_slot(number: &str) -> String {
    says::which_node(format_args!("{} is no slot: slots go from 0 to {}", number.escape_debug(), SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::topology::AddressMap, protocol::resp::Value};

    fn topology() -> Topology {
        let id = |start: &str| format!("$40\r\n{start:0<40}\r\n");
        let node = |host: &str, port: u16, start: &str| {
            format!("*4\r\n${}\r\n{host}\r\n:{port}\r\n{}*0\r\n", host.len(), id(start))
        };
        let reply = format!(
            "*3\r\n*4\r\n:0\r\n:8191\r\n{}{}*3\r\n:8192\r\n:16382\r\n{}*3\r\n:16383\r\n:16383\r\n{}",
            node("10.0.0.1", 7000, "abcd1"),
            node("10.0.0.3", 7000, "777777"),
            node("red-b", 7001, "abcd2"),
            node("10.0.0.1", 7002, "cafe"),
        );
        let (value, _) = Value::parse(reply.as_bytes()).unwrap().unwrap();
        let map = AddressMap::parse(&["10.0.0.1:7000=127.0.0.1:9000"]).unwrap();
        Topology::from_slots(&value, &Address::new("10.0.0.1", 7000), Arc::new(map)).unwrap()
    }

    #[test]
    fn nodes_are_found_by_every_name() {
        let topology = topology();
        let (one, two, three) = ("10.0.0.1:7000", "red-b:7001", "10.0.0.3:7000");
        for (name, label, as_owner) in [
            ("10.0.0.1:7000", one, false),
            ("127.0.0.1:9000", one, false),
            (":9000", one, false),
            ("127.0.0.1", one, false),
            ("red-b:7001", two, false),
            ("red-b", two, false),
            ("RED-B", two, false),
            (":7001", two, false),
            ("10.0.0.3", three, false),
            ("abcd1", one, false),
            ("ABCD2000", two, false),
            ("777777", three, false),
            ("slot:0", one, true),
            ("slot:7777", one, true),
            ("slot:8192", two, true),
            ("key:foo", two, true),
            ("key:bar", one, true),
            ("key:red-b:7001", one, true),
        ] {
            let found = topology.find(name.as_bytes()).map(|found| (&*found.node.label, found.as_owner));
            assert_eq!(found, Ok((label, as_owner)), "{name}");
        }
    }

    #[test]
    fn what_fits_nothing_or_several_gets_the_list() {
        let topology = topology();
        for (name, error) in [
            ("10.0.0.9:7000", "ERR no node is 10.0.0.9:7000: say host:port"),
            ("10.0.0.1", "ERR 10.0.0.1 may be any of 10.0.0.1:7000 (primary abcd1"),
            (":7000", "ERR :7000 may be any of 10.0.0.1:7000"),
            (":1", "ERR no node is :1: "),
            (":", "ERR no node is :: "),
            ("7000", "ERR 7000 may be a port, a slot, a key or the start of an id: say :7000, slot:7000, key:7000 or"),
            ("0", "ERR 0 may be a port"),
            ("7777", "ERR 7777 may be a port"),
            ("red-c", "ERR no node is red-c: "),
            ("foo", "ERR no node is foo: "),
            ("", "ERR no node is : "),
            ("abc", "ERR no node is abc: "),
            ("ffffffffffffffffffffffffffffffffffffffff", "ERR no node is ffff"),
            ("abcd", "ERR abcd may be any of 10.0.0.1:7000 (primary abcd1"),
            ("slot:16384", "ERR 16384 is no slot: slots go from 0 to 16383"),
            ("slot:", "ERR  is no slot"),
            ("slot:x", "ERR x is no slot"),
        ] {
            let found = topology.find(name.as_bytes()).map(|found| found.node.label.clone());
            assert!(found.as_ref().is_err_and(|said| said.error.starts_with(error)), "{name}: {found:?}");
        }
        let error = topology.find(b"user:x").unwrap_err().error;
        for label in ["10.0.0.1:7000 (primary abcd1", "red-b:7001 (primary", "10.0.0.3:7000 (replica 7777"] {
            assert!(error.contains(label), "{error}");
        }
        assert!(topology.find(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_name_that_only_the_network_knows_leads_to_the_node_there() {
        let topology = topology();
        let host = |name: &str| topology.find(name.as_bytes()).unwrap_err().host;
        assert_eq!(host("redis-7001"), Some(("redis-7001".to_owned(), None)));
        assert_eq!(host("redis-7001:7001"), Some(("redis-7001".to_owned(), Some(7001))));
        for name in ["a b", "user:x", "{tag}", "7000", ""] {
            assert_eq!(host(name), None, "{name}");
        }
        let at = |addresses: &[&str]| addresses.iter().map(|at| at.parse().unwrap()).collect::<Vec<SocketAddr>>();
        for (port, addresses, label) in [
            (None, &["10.0.0.3:1"][..], Some("10.0.0.3:7000")),
            (Some(7000), &["10.0.0.3:7000"], Some("10.0.0.3:7000")),
            (Some(7000), &["10.0.0.1:7000"], Some("10.0.0.1:7000")),
            (Some(9000), &["[::1]:9000", "127.0.0.1:9000"], Some("10.0.0.1:7000")),
            (Some(7001), &["10.0.0.3:7001"], None),
            (None, &["10.0.0.1:1"], None),
            (None, &[], None),
        ] {
            let found = topology.find_at("name", port, &at(addresses)).map(|found| &*found.node.label);
            assert_eq!(found.as_ref().ok().copied(), label, "{port:?} {addresses:?}: {found:?}");
        }
    }
}
