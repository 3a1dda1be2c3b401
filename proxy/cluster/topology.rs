//! Which node owns which slot, and how each node is reached.
//!
//! A [`Topology`] is an immutable snapshot, numbered by its epoch. `discovery` is its only writer; workers hold an `Arc`
//! of it and take the next one when they like. A node *is* its node id: addresses change. An address enters in one
//! place, through the [`AddressMap`], and from then on a node has two: the one it announces (its name in MOVED, in
//! metrics and in errors) and the one that is dialled.

pub mod accepts;
pub mod address_map;
mod find;
pub mod hint;
pub mod member;
mod node;
pub mod redirect;
mod route;
mod served;
pub mod server;
pub mod view;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

pub use accepts::Accepts;
pub use address_map::AddressMap;
pub use find::{Named, NotFound};
pub use hint::{Hint, Hints};
pub use member::Member;
pub use node::{Node, Role};
pub use redirect::{Redirect, RedirectKind};
pub use route::Route;
pub use served::{Lost, slots_text};
pub use server::{Framing, ServerInfo, ServerKind};
pub use view::{Seen, View};

use crate::{
    commands::table::CommandTable,
    protocol::{
        address::Address,
        resp::Value,
        says,
        slot::{SLOTS, Slot},
    },
};

/// In [`Topology::slots`]: nobody owns this slot.
pub const NOBODY: u16 = u16::MAX;

/// A snapshot of the cluster.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Grows with each snapshot that differs in nodes, slots, server or commands. 0: nothing is known yet.
    pub epoch: u64,
    /// All nodes. One that has not changed keeps its `Arc` from snapshot to snapshot.
    pub nodes: Vec<Arc<Node>>,
    /// For each slot the index of its owner in `nodes`, or [`NOBODY`].
    pub slots: Box<[u16; SLOTS]>,
    /// Nodes without slots that the others hold for failing. Nothing is sent to them; they are shown, as lost.
    pub fallen: Vec<Arc<Node>>,
    /// What the servers are.
    pub server: Arc<ServerInfo>,
    /// The commands they know.
    pub commands: Arc<CommandTable>,
    /// What they take from one connection.
    pub accepts: Accepts,
    /// All nodes that were asked say that the cluster is down (`cluster_state:fail`): they refuse what is sent to them.
    pub failed: bool,
    /// The ids of nodes that the others hold for failing, or that cannot be reached.
    pub failing: Vec<String>,
    /// The nodes that cannot be reached from here: their slots have an owner, and answer errors.
    pub lost: Vec<Lost>,
    /// Why not all slots have an owner, or their owners do not serve, fit for `-CLUSTERDOWN`. What is said of slots whose
    /// owner is lost, too, is [`Topology::complaint`].
    pub trouble: Option<Arc<str>>,
    /// The ids of primaries that have just joined and are being given the functions of the others.
    pub unready: Vec<String>,
    /// The ids of primaries that have missed a change of functions and are being made like the others.
    pub behind: Vec<String>,
    /// When nodes lost the role of a primary last, by id.
    pub demoted: Arc<HashMap<String, Instant>>,
    first_slots: OnceLock<Vec<Slot>>,
}

impl Topology {
    /// The snapshot before anything is known.
    pub fn unknown(why: impl Into<Arc<str>>) -> Topology {
        Topology {
            epoch: 0,
            nodes: Vec::new(),
            slots: Box::new([NOBODY; SLOTS]),
            fallen: Vec::new(),
            server: Arc::default(),
            commands: CommandTable::builtin(),
            accepts: Accepts::default(),
            failed: false,
            failing: Vec::new(),
            lost: Vec::new(),
            trouble: Some(why.into()),
            unready: Vec::new(),
            behind: Vec::new(),
            demoted: Arc::default(),
            first_slots: OnceLock::new(),
        }
    }

    /// A topology from one node's CLUSTER SLOTS, every node reached where the map says. `asked` is the address at which
    /// the reply was got. For tests and one-off tools; `discovery` builds the served ones.
    ///
    /// ```
    /// use slotway::{
    ///     cluster::topology::{AddressMap, Route, Topology},
    ///     protocol::{address::Address, resp::Value, slot::Slot},
    /// };
    ///
    /// // Slots 0 to 8191 at one node, the others at another; the second is reached elsewhere than it says.
    /// let reply = b"*2\r\n\
    ///     *3\r\n:0\r\n:8191\r\n*2\r\n$10\r\n172.17.0.2\r\n:7000\r\n\
    ///     *3\r\n:8192\r\n:16383\r\n*2\r\n$10\r\n172.17.0.3\r\n:7001\r\n";
    /// let (slots, _) = Value::parse(reply).unwrap().expect("a whole reply");
    /// let map = AddressMap::parse(&["172.17.0.3:7001=127.0.0.1:7001"]).unwrap();
    /// let topology = Topology::from_slots(&slots, &Address::new("127.0.0.1", 7000), map.into()).unwrap();
    ///
    /// // `foo` is in slot 12182.
    /// let owner = topology.node_for(Route::Slot(Slot::of(b"foo")), 0).expect("an owner");
    /// assert_eq!((&*owner.label, owner.reach.to_string().as_str()), ("172.17.0.3:7001", "127.0.0.1:7001"));
    /// ```
    pub fn from_slots(slots: &Value, asked: &Address, map: Arc<AddressMap>) -> Result<Topology, view::BadView> {
        let view = View::parse(slots, None, None, asked)?;
        let reach = |seen: &Seen| map.apply(&seen.announced);
        let (nodes, slots) = (view.nodes(&[], reach, |seen| seen.announced.clone()), view.slots);
        Ok(Topology { epoch: 1, nodes, slots, trouble: None, ..Topology::unknown("") })
    }

    /// The owner of a slot.
    pub fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        self.nodes.get(self.owner_index(slot)?)
    }

    /// The owner of a slot, as an index of [`Topology::nodes`].
    pub fn owner_index(&self, slot: Slot) -> Option<usize> {
        let index = self.slots[slot.index()];
        (index != NOBODY).then_some(usize::from(index))
    }

    /// The primaries, also those without slots: a slot may be on its way to one.
    pub fn primaries(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().filter(|node| node.role == Role::Primary)
    }

    /// The replicas of a primary.
    pub fn replicas<'a>(&'a self, primary: &'a Node) -> impl Iterator<Item = &'a Arc<Node>> {
        self.nodes.iter().filter(|node| node.replicates.as_deref() == Some(&*primary.id))
    }

    /// The first slot of each primary that owns any, in the order of the slots. A command for all primaries goes to the
    /// owners of these: whoever owns the slot when it gets there is the one to ask.
    pub fn first_slots(&self) -> &[Slot] {
        self.first_slots.get_or_init(|| {
            let mut seen = vec![false; self.nodes.len()];
            let first = |(number, &index): (usize, &u16)| {
                let seen = seen.get_mut(usize::from(index))?;
                (!std::mem::replace(seen, true)).then(|| Slot::new(number as u64)).flatten()
            };
            self.slots.iter().enumerate().filter_map(first).collect()
        })
    }

    /// The primary that all publishing goes through: the one with the lowest id among those that own slots and are not
    /// failing, so that every proxy in front of this cluster agrees. Where all are failing, the lowest of all.
    pub fn pubsub_node(&self) -> Option<&Arc<Node>> {
        self.nodes.get(self.pubsub_index()?)
    }

    /// The index of [`Topology::pubsub_node`].
    pub fn pubsub_index(&self) -> Option<usize> {
        let owners = self.first_slots().iter().filter_map(|slot| self.owner_index(*slot));
        let rank = |index: &usize| self.nodes.get(*index).map(|node| (self.is_failing(&node.id), &node.id));
        owners.min_by(|one, other| rank(one).cmp(&rank(other)))
    }

    /// Whether a node is held for failing by the others, or cannot be reached.
    pub fn is_failing(&self, id: &str) -> bool {
        self.failing.iter().any(|failing| failing == id)
    }

    /// The error for a request that finds no node to go to.
    pub fn down(&self) -> String {
        says::not_served(self.trouble.as_deref().unwrap_or("no node serves this slot"))
    }

    /// How many slots have an owner; [`SLOTS`] when the cluster is whole.
    pub fn covered(&self) -> usize {
        self.slots.iter().filter(|&&index| index != NOBODY).count()
    }

    /// The first and last slots of each range that a node owns, by its index.
    pub fn ranges(&self, index: usize) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for (slot, &owner) in self.slots.iter().enumerate() {
            if usize::from(owner) != index {
                continue;
            }
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }

    /// How many slots each node owns, by its index.
    pub fn slot_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for &index in self.slots.iter() {
            if let Some(count) = counts.get_mut(usize::from(index)) {
                *count += 1;
            }
        }
        counts
    }

    /// Whether a node may still lack functions that the others have: it has just joined, or is not even known.
    pub fn awaits_functions(&self, node: &Node) -> bool {
        self.unready.contains(&node.id) || self.node(&node.id).is_none()
    }

    /// Whether a node has lost the role of a primary since then.
    pub fn was_demoted(&self, id: &str, since: Instant) -> bool {
        self.demoted.get(id).is_some_and(|demoted| *demoted >= since)
    }

    /// All nodes that people are told of, and what each is: those of the layout in their order, and then those that have
    /// fallen out of it.
    pub fn shown(&self) -> impl Iterator<Item = (&Arc<Node>, &'static str)> {
        let fallen = self.fallen.iter().map(|node| match node.role {
            Role::Primary => (node, "empty"),
            Role::Replica => (node, node.role.label()),
        });
        self.nodes.iter().enumerate().map(|(index, node)| (node, self.role_of(index))).chain(fallen)
    }

    /// The node with this id.
    pub fn node(&self, id: &str) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node that the cluster calls by this address.
    pub fn node_at(&self, address: &Address) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.goes_by(address))
    }

    /// Where a redirect leads, `from` being the node that gave it; `None` where it does not tell (`?` as host), or
    /// names a node that is not known. Such a node is never dialled on a redirect's word alone: a script can make an
    /// error that reads like MOVED, and would have the proxy connect, and say its password, wherever it likes. A real
    /// newcomer is known to the node that names it, so that the next refresh learns of it.
    pub fn target(&self, redirect: &Redirect, from: &Node) -> Option<Arc<Node>> {
        let port = redirect.port;
        let known = match redirect.host.as_str() {
            "" => {
                let beside = Address::new(from.announced.host.clone(), port);
                self.node_at(&beside).or_else(|| self.only_at_port(port))
            }
            "?" => self.only_at_port(port),
            host => self.node_at(&Address::new(host, port)),
        };
        known.cloned()
    }

    /// The next snapshot, with these nodes and slots; the epoch grows.
    pub fn with_layout(&self, nodes: Vec<Arc<Node>>, slots: Box<[u16; SLOTS]>) -> Topology {
        Topology { epoch: self.epoch + 1, nodes, slots, first_slots: OnceLock::new(), ..self.clone() }
    }

    /// Gives one slot to the node at `address`, which is a primary from now on. Whether that changes anything. For a
    /// snapshot in the making: one that has been published is never changed.
    pub fn move_slot(&mut self, slot: Slot, address: &Address) -> bool {
        let Some(index) = self.nodes.iter().position(|node| node.goes_by(address)) else { return false };
        let (Ok(place), Some(node)) = (u16::try_from(index), self.nodes.get_mut(index)) else { return false };
        if self.slots[slot.index()] == place {
            return false;
        }
        if node.role == Role::Replica {
            *node = Arc::new(Node { role: Role::Primary, replicates: None, ..(**node).clone() });
        }
        self.slots[slot.index()] = place;
        self.first_slots = OnceLock::new();
        true
    }

    /// The primaries that own slots.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.first_slots().iter().filter_map(|slot| self.owner(*slot))
    }

    /// The nodes that nothing goes to by their names in a newer snapshot. A node that has only moved to another address is
    /// among them.
    pub fn departed<'a>(&'a self, newer: &'a Topology) -> impl Iterator<Item = &'a Arc<Node>> {
        self.nodes.iter().filter(|node| !newer.nodes.iter().any(|other| other.label == node.label))
    }

    /// Whether routing by this snapshot and by the other is the same.
    pub fn same_routes(&self, other: &Topology) -> bool {
        self.nodes == other.nodes
            && self.slots == other.slots
            && self.server == other.server
            && self.unready == other.unready
            && self.behind == other.behind
            && self.pubsub_index() == other.pubsub_index()
            && Arc::ptr_eq(&self.commands, &other.commands)
    }

    /// Two nodes that would be dialled at one address: one of them then gets the other's requests. A sentence that
    /// names both and the remedy.
    pub fn clash(&self) -> Option<String> {
        let mut taken: HashMap<&Address, &Node> = HashMap::new();
        self.nodes.iter().find_map(|node| {
            let other = taken.insert(&node.reach, node)?;
            Some(format!(
                "nodes {} ({}) and {} ({}) would both be dialled at {}: give each its own address by an address_map \
                 rule with ports, such as {}=host:port",
                other.label, other.id, node.label, node.id, node.reach, node.label
            ))
        })
    }

    fn only_at_port(&self, port: u16) -> Option<&Arc<Node>> {
        let mut there = self.nodes.iter().filter(|node| node.announced.port == port);
        there.next().filter(|_| there.next().is_none())
    }
}

#[cfg(test)]
mod tests;
