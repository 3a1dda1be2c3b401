//! By which name each node is known to people: the host name that it announces, or else the seed's name that leads to it
//! and to no other. In docker the announced addresses are the containers', which change with every `down` and `up`; the
//! names stay, and so do the series in the metrics.
//!
//! A name is only for showing: requests go where they went without it.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    cluster::topology::{Seen, View},
    protocol::address::Address,
    upstream::dial::Dialer,
};

/// The most time that resolvers may take: the first snapshot waits for them.
const PATIENCE: Duration = Duration::from_millis(200);

/// Seeds, and where their names lead.
pub type Resolved = Vec<(Address, Vec<SocketAddr>)>;

/// Which seeds' names lead where, as far as is known in time.
pub async fn resolve(seeds: Vec<Address>, dialer: Dialer) -> Resolved {
    let named = seeds.into_iter().filter(|seed| is_name(&seed.host));
    let resolving = named.map(async |seed| {
        let found = timeout(PATIENCE, dialer.resolve(&seed)).await;
        Some((seed, found.ok()?.ok()?))
    });
    futures_util::future::join_all(resolving).await.into_iter().flatten().collect()
}

/// Whether a node has this address, as far as it is announced.
fn is_at(seen: &Seen, host: &IpAddr, port: u16) -> bool {
    let mut hosts = std::iter::once(&seen.announced.host).chain(&seen.aliases);
    seen.announced.port == port && hosts.any(|known| known.parse().is_ok_and(|ip: IpAddr| ip == *host))
}

/// Whether a host says something of a node to people.
fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err() && !host.eq_ignore_ascii_case("localhost")
}

/// The seeds' names of nodes.
#[derive(Debug, Default)]
pub struct Names {
    /// By node id.
    of: HashMap<String, Address>,
    /// The host name that each node announces, by its id. Nodes learn each other's by and by: who asks one of them after
    /// another would see names come and go.
    announced: HashMap<String, String>,
    /// The ids of the nodes that were met by each name.
    met: HashMap<Address, HashSet<String>>,
}

impl Names {
    /// Takes in where seeds' names lead now, given the view and who was met where.
    ///
    /// A name that is first seen to lead to a node's address is taken to be that node's, until another is met by it:
    /// addresses go from container to container before the cluster knows. By whose name several are met, is nobody's.
    pub fn learn(&mut self, view: &View, resolved: &Resolved, met: &[(String, Address)]) {
        let is_there = |id: &String| view.members().any(|seen| seen.id == *id);
        self.of.retain(|id, _| is_there(id));
        self.announced.retain(|id, _| is_there(id));
        for seen in view.members() {
            self.announced.extend(seen.hostname.iter().map(|name| (seen.id.clone(), name.clone())));
        }
        self.met.values_mut().for_each(|ids| ids.retain(is_there));
        for (seed, at) in resolved {
            let ids = self.met.entry(seed.clone()).or_default();
            ids.extend(met.iter().filter(|(_, asked)| asked == seed).map(|(id, _)| id.clone()));
            let hosts: HashSet<IpAddr> = at.iter().map(SocketAddr::ip).collect();
            let only = match (&ids.iter().collect::<Vec<_>>()[..], &hosts.iter().collect::<Vec<_>>()[..]) {
                ([id], [_]) => Some((*id).clone()),
                // Nobody was met by it yet: it is whose address it has, if it is not another's already.
                ([], [host]) if self.of.values().all(|name| name != seed) => {
                    let node = view.seen.iter().find(|seen| is_at(seen, host, seed.port));
                    node.map(|seen| seen.id.clone()).filter(|id| !self.of.contains_key(id))
                }
                ([], [_]) => continue,
                _ => None,
            };
            self.of.retain(|_, name| name != seed);
            self.of.extend(only.map(|id| (id, seed.clone())));
        }
    }

    /// What to call a node: `host:port`.
    pub fn label(&self, seen: &Seen) -> Address {
        let given = !seen.implied && is_name(&seen.announced.host);
        match (self.announced.get(&seen.id), self.of.get(&seen.id)) {
            (Some(hostname), _) => Address::new(hostname.clone(), seen.announced.port),
            (None, Some(name)) if !given => name.clone(),
            _ => seen.announced.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::topology::NOBODY, protocol::slot::SLOTS};

    fn seen(id: &str, host: &str) -> Seen {
        Seen::bare(id, Address::new(host, 7000))
    }

    fn view(nodes: &[(&str, &str)]) -> View {
        let seen = nodes.iter().map(|(id, host)| seen(id, host)).collect();
        View { seen, slots: Box::new([NOBODY; SLOTS]), fallen: Vec::new() }
    }

    fn resolved(seeds: &[(&str, &[&str])]) -> Resolved {
        let at = |hosts: &[&str]| hosts.iter().map(|host| SocketAddr::new(host.parse().unwrap(), 7000)).collect();
        seeds.iter().map(|(name, hosts)| (Address::new(*name, 7000), at(hosts))).collect()
    }

    fn labels(names: &Names, view: &View) -> Vec<String> {
        view.seen.iter().map(|seen| names.label(seen).to_string()).collect()
    }

    #[test]
    fn a_seed_that_leads_to_one_node_is_its_name_whatever_its_address() {
        let mut names = Names::default();
        let before = view(&[("a", "172.18.0.2"), ("b", "172.18.0.3"), ("c", "172.18.0.4")]);
        let seeds = resolved(&[("red-a", &["172.18.0.2"]), ("red-b", &["172.18.0.3"])]);
        names.learn(&before, &seeds, &[]);
        assert_eq!(labels(&names, &before), ["red-a:7000", "red-b:7000", "172.18.0.4:7000"]);
        // One has no address for a while.
        names.learn(&before, &resolved(&[("red-b", &["172.18.0.3"])]), &[]);
        assert_eq!(labels(&names, &before)[0], "red-a:7000");
        // They have changed places, and the view does not know it yet.
        let seeds = resolved(&[("red-a", &["172.18.0.3"]), ("red-b", &["172.18.0.2"])]);
        names.learn(&before, &seeds, &[("a".into(), Address::new("red-a", 7000))]);
        assert_eq!(labels(&names, &before)[..2], ["red-a:7000", "red-b:7000"]);
        // Another node is there by that name, and the one before it has left.
        let after = view(&[("b", "172.18.0.3"), ("n", "172.18.0.2")]);
        names.learn(&after, &resolved(&[("red-a", &["172.18.0.2"])]), &[("n".into(), Address::new("red-a", 7000))]);
        assert_eq!(labels(&names, &after), ["red-b:7000", "red-a:7000"]);
    }

    #[test]
    fn a_name_that_leads_to_several_is_nobodys() {
        let mut names = Names::default();
        let nodes = view(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]);
        names.learn(&nodes, &resolved(&[("redis", &["10.0.0.1", "10.0.0.2"])]), &[]);
        assert_eq!(labels(&names, &nodes), ["10.0.0.1:7000", "10.0.0.2:7000"]);
        // One address, behind which there are several.
        let met = |id: &str| [(id.to_owned(), Address::new("any", 7000))];
        names.learn(&nodes, &resolved(&[("any", &["10.9.9.9"])]), &met("a"));
        assert_eq!(labels(&names, &nodes), ["any:7000", "10.0.0.2:7000"]);
        names.learn(&nodes, &resolved(&[("any", &["10.9.9.9"])]), &met("b"));
        assert_eq!(labels(&names, &nodes), ["10.0.0.1:7000", "10.0.0.2:7000"]);
    }

    #[test]
    fn an_announced_host_name_comes_before_a_seeds() {
        let mut names = Names::default();
        let mut nodes = view(&[("a", "10.0.0.1"), ("b", "red-b"), ("c", "10.0.0.3"), ("d", "localhost")]);
        nodes.seen[0].hostname = Some("red-a.example".into());
        // Its host is only that of the seed that was asked.
        nodes.seen[2] = Seen { implied: true, ..seen("c", "red-b") };
        let seeds = resolved(&[("seed-a", &["10.0.0.1"]), ("red-b", &["10.0.0.2"]), ("seed-c", &["10.0.0.3"])]);
        names.learn(&nodes, &seeds, &[("c".into(), Address::new("seed-c", 7000))]);
        let expected = ["red-a.example:7000", "red-b:7000", "seed-c:7000", "localhost:7000"];
        assert_eq!(labels(&names, &nodes), expected);
        // Who was asked now has not heard of it.
        nodes.seen[0].hostname = None;
        names.learn(&nodes, &seeds, &[]);
        assert_eq!(labels(&names, &nodes), expected);
    }
}
