//! In which availability zone a node is, where an operator says so: most servers do not know theirs.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::topology::Node;
use crate::protocol::address::Address;

/// Where nodes are: what is said of one address counts before what is said of a host, and that before what is said of a network,
/// the smallest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneMap(Vec<(Place, String)>);

/// Which nodes, by the addresses that they announce.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Address(Address),
    Host(String),
    Network(IpNet),
}

impl ZoneMap {
    /// From rules such as `10.0.1.0/24=a`, `redis-1=b` or `redis-1:7001=c`.
    ///
    /// # Errors
    /// Which is none, and how it should look.
    ///
    /// ```
    /// use slotway::cluster::zones::ZoneMap;
    ///
    /// assert!(ZoneMap::parse(&["10.0.1.0/24=a", "redis-1=b"]).is_ok());
    /// assert!(ZoneMap::parse(&["10.0.1.0/24"]).is_err());
    /// ```
    pub fn parse<T: AsRef<str>>(rules: &[T]) -> Result<ZoneMap, String> {
        let mut all = rules.iter().map(|rule| read(rule.as_ref().trim())).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(|(place, _)| match place {
            Place::Address(_) => 0,
            Place::Host(_) => 1,
            Place::Network(net) => 2 + net.max_prefix_len() - net.prefix_len(),
        });
        Ok(ZoneMap(all))
    }

    /// The zone of a node: as said here, else as the node says.
    pub fn of<'a>(&'a self, node: &'a Node) -> Option<&'a str> {
        let Node { announced, .. } = node;
        let ip = announced.host.parse::<IpAddr>().ok();
        let is_there = |place: &Place| match place {
            Place::Address(address) => node.goes_by(address),
            Place::Host(host) => *host == announced.host || node.aliases.contains(host),
            Place::Network(net) => ip.is_some_and(|ip| net.contains(&ip)),
        };
        let said = self.0.iter().find(|(place, _)| is_there(place)).map(|(_, zone)| &**zone);
        said.or(node.zone.as_deref())
    }
}

fn read(rule: &str) -> Result<(Place, String), String> {
    let wrong =
        || format!("`{rule}` is no node's zone: write node=zone, as in 10.0.1.0/24=a, redis-1=a or redis-1:7000=a");
    let (place, zone) = rule.split_once('=').ok_or_else(wrong)?;
    let (place, zone) = (place.trim(), zone.trim());
    if place.is_empty() || zone.is_empty() || place.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let place = match (Address::from_str(place), place.contains('/')) {
        (_, true) => Place::Network(place.parse().map_err(|_| wrong())?),
        (Ok(address), false) => Place::Address(address),
        (Err(_), false) => Place::Host(place.to_owned()),
    };
    Ok((place, zone.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_rule_says_where_a_node_is() {
        let zones =
            ZoneMap::parse(&["10.0.0.0/8=far", "10.0.1.0/24=a", "10.0.1.7=b", "10.0.1.7:2=c", "redis=d"]).unwrap();
        for (host, port, own, expected) in [
            ("10.0.1.1", 1, None, Some("a")),
            ("10.9.1.1", 1, Some("own"), Some("far")),
            ("10.0.1.7", 1, None, Some("b")),
            ("10.0.1.7", 2, None, Some("c")),
            ("redis", 1, None, Some("d")),
            ("valkey", 1, Some("own"), Some("own")),
            ("valkey", 1, None, None),
        ] {
            let node = Node {
                announced: Address::new(host, port),
                zone: own.map(str::to_owned),
                ..(*Node::primary("id", "label")).clone()
            };
            assert_eq!(zones.of(&node), expected, "{host}:{port}");
        }
        for wrong in ["a", "=a", "a=", "10.0.0.0/99=a", "a b=c"] {
            assert!(ZoneMap::parse(&[wrong]).unwrap_err().contains("is no node's zone"), "{wrong}");
        }
    }
}
