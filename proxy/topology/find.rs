//! Finding the node that somebody means: by its address, its id, a slot or a key.

use std::{net::IpAddr, sync::Arc};

use super::{Node, Topology};
use crate::{
    address::Address,
    slot::{SLOTS, Slot},
};

/// How much of a node id must be said at least: less could as well be a key.
const SHORTEST_ID: usize = 4;
const WHOLE_ID: usize = 40;

impl Topology {
    /// The node that `name` stands for: an address as announced, dialled or in the metrics, a node id or the beginning
    /// of one; a number is a slot, and anything else a key, both for the slot's owner. The error says what is known.
    pub fn find(&self, name: &[u8]) -> Result<&Arc<Node>, String> {
        let text = std::str::from_utf8(name).unwrap_or_default();
        if let Ok(address) = text.parse::<Address>() {
            let named = |node: &&Arc<Node>| {
                *node.label == *text || node.announced == address || node.reach == address || node.goes_by(&address)
            };
            let found: Vec<&Arc<Node>> = self.nodes.iter().filter(named).collect();
            match found[..] {
                [node] => return Ok(node),
                [] if self.looks_like_ours(&address) => return Err(self.no_such_node(text)),
                [] => {}
                _ => return Err(self.ambiguous(text, &found)),
            }
        }
        let is_id = text.len() >= SHORTEST_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let begin = |node: &&Arc<Node>| is_id && node.id.starts_with(&text.to_ascii_lowercase());
        let found: Vec<&Arc<Node>> = self.nodes.iter().filter(begin).collect();
        let number = text.parse::<u64>().ok().filter(|_| text.len() < WHOLE_ID);
        match (&found[..], number) {
            (_, Some(number @ 0..=SLOTS_END)) => self.owner_of(Slot::new(number)),
            ([node], _) => Ok(*node),
            ([], Some(_)) => Err(format!("ERR {text} is no slot: slots go from 0 to {SLOTS_END}")),
            ([], None) if is_id && text.len() == WHOLE_ID => Err(self.no_such_node(text)),
            ([], None) => self.owner_of(Some(Slot::of(name))),
            (several, _) => Err(self.ambiguous(text, several)),
        }
    }

    fn owner_of(&self, slot: Option<Slot>) -> Result<&Arc<Node>, String> {
        slot.and_then(|slot| self.owner(slot)).ok_or_else(|| self.down())
    }

    /// Whether an address that no node has is one all the same, and not a key such as `user:1000`: taking it for a key
    /// would send to a wrong node what was meant for another.
    fn looks_like_ours(&self, address: &Address) -> bool {
        let alike = |known: &Address| known.host == address.host || known.port == address.port;
        address.host == "localhost"
            || address.host.parse::<IpAddr>().is_ok()
            || self.nodes.iter().any(|node| alike(&node.announced) || alike(&node.reach))
    }

    fn no_such_node(&self, name: &str) -> String {
        format!(
            "ERR no node is {}; known are {}",
            name.escape_debug(),
            self.known(&self.nodes.iter().collect::<Vec<_>>())
        )
    }

    fn ambiguous(&self, name: &str, found: &[&Arc<Node>]) -> String {
        format!("ERR {} may be any of {}", name.escape_debug(), self.known(found))
    }

    fn known(&self, nodes: &[&Arc<Node>]) -> String {
        let named = nodes.iter().map(|node| format!("{} ({} {})", node.label, node.role.label(), node.id));
        let mut named: Vec<String> = named.collect();
        named.sort();
        if named.is_empty() { "none yet".to_owned() } else { named.join(", ") }
    }
}

const SLOTS_END: u64 = SLOTS as u64 - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resp::Value, topology::AddressMap};

    fn topology() -> Topology {
        let id = |start: &str| format!("$40\r\n{start:0<40}\r\n");
        let node = |host: &str, port: u16, start: &str| {
            format!("*4\r\n${}\r\n{host}\r\n:{port}\r\n{}*0\r\n", host.len(), id(start))
        };
        let reply = format!(
            "*2\r\n*4\r\n:0\r\n:8191\r\n{}{}*3\r\n:8192\r\n:16382\r\n{}",
            node("10.0.0.1", 7000, "abcd1"),
            node("10.0.0.3", 7000, "77777"),
            node("red-b", 7001, "abcd2"),
        );
        let (value, _) = Value::parse(reply.as_bytes()).unwrap().unwrap();
        let map = AddressMap::parse(&["10.0.0.1:7000=127.0.0.1:9000"]).unwrap();
        Topology::from_slots(&value, &Address::new("10.0.0.1", 7000), Arc::new(map)).unwrap()
    }

    #[test]
    fn nodes_are_found_by_every_name() {
        let topology = topology();
        let (one, two) = ("10.0.0.1:7000", "red-b:7001");
        for (name, label) in [
            ("10.0.0.1:7000", one),
            ("127.0.0.1:9000", one),
            ("red-b:7001", two),
            ("abcd1", one),
            ("ABCD2000", two),
            ("77777", "10.0.0.3:7000"),
            ("0", one),
            ("7777", one),
            ("8192", two),
        ] {
            assert_eq!(topology.find(name.as_bytes()).map(|node| &*node.label), Ok(label), "{name}");
        }
        for key in ["foo", "bar", "user:1000", "abc", "cafe", "", "{a}b"] {
            let owner = topology.owner(Slot::of(key.as_bytes()));
            assert_eq!(topology.find(key.as_bytes()).ok(), owner, "{key}");
        }
    }

    #[test]
    fn what_no_node_is_gets_a_list_of_those_that_are() {
        let topology = topology();
        for (name, error) in [
            ("10.0.0.9:7000", "ERR no node is 10.0.0.9:7000; known are 10.0.0.1:7000 (primary abcd100"),
            ("127.0.0.1:1", "ERR no node is 127.0.0.1:1;"),
            ("red-c:7001", "ERR no node is red-c:7001;"),
            ("ffffffffffffffffffffffffffffffffffffffff", "ERR no node is ffff"),
            ("abcd", "ERR abcd may be any of 10.0.0.1:7000 (primary abcd1"),
            ("16384", "ERR 16384 is no slot"),
            ("16383", "CLUSTERDOWN "),
        ] {
            let found = topology.find(name.as_bytes()).map(|node| node.label.clone());
            assert!(found.as_ref().is_err_and(|said| said.starts_with(error)), "{name}: {found:?}");
        }
    }
}
