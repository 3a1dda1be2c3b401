//! The cluster as one node sees it, and what several such views come to.
//!
//! CLUSTER SLOTS says who owns what and by which address clients should know it: every version speaks it. CLUSTER NODES
//! adds what it leaves out: config epochs, which tell a newer view from an older one, primaries without slots and new
//! replicas. CLUSTER SHARDS says by which address clients should know those, and adds the availability zones of Valkey.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;

use super::{
    NOBODY, Node, Role,
    member::{Member, members},
};
use crate::protocol::{
    address::Address,
    resp::Value,
    slot::{SLOTS, Slot},
};

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The nodes, ordered by id, so that equal views are equal.
    pub seen: Vec<Seen>,
    /// For each slot the index of its owner in `seen`, or [`NOBODY`].
    pub slots: Box<[u16; SLOTS]>,
    /// The members without slots that are held for failing: nothing goes to them, but people are to know of them.
    pub fallen: Vec<Seen>,
}

/// A node in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The cluster node id.
    pub id: String,
    /// The address announced for it.
    pub announced: Address,
    /// Whether the announced host is only that of the node asked, because none was given.
    pub implied: bool,
    /// Other hosts it goes by.
    pub aliases: Vec<String>,
    /// The host name that it announces, where it does (`cluster-announce-hostname`).
    pub hostname: Option<String>,
    /// What it does.
    pub role: Role,
    /// Whose replica it is.
    pub replicates: Option<String>,
    /// Its availability zone.
    pub zone: Option<String>,
    /// The config epoch of its slots: of two claims on a slot the cluster itself believes the one with the higher.
    pub epoch: u64,
}

/// Why a reply is no view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadView(String);

impl fmt::Display for BadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadView {}

impl View {
    /// Reads the replies of CLUSTER SLOTS, NODES and SHARDS of the node at `asked`.
    pub fn parse(slots: &Value, nodes: Option<&str>, shards: Option<&Value>, asked: &Address) -> Result<View, BadView> {
        let ranges = match slots {
            Value::Array(ranges) => ranges,
            Value::Error(text) => return Err(BadView(String::from_utf8_lossy(text).into_owned())),
            _ => return Err(BadView("the reply to CLUSTER SLOTS is no list".to_owned())),
        };
        let lines: HashMap<&str, Member> = nodes.map(members).unwrap_or_default();
        let cards: HashMap<&str, &Value> = shards.map(cards).unwrap_or_default();
        let mut sketch = Sketch::default();
        for range in ranges {
            sketch.range(range, &lines, asked)?;
        }
        // CLUSTER SLOTS leaves out primaries without slots, though a slot may be on its way to them, and replicas that have
        // yet to hear from their primary.
        for line in lines.values().filter(|line| !sketch.places.contains_key(line.id)) {
            let seen = || line.seen(cards.get(line.id).copied(), asked);
            if line.is_well() {
                sketch.seen.extend(seen());
            } else if line.is_fallen() {
                sketch.fallen.extend(seen());
            }
        }
        sketch.places = places(&sketch.seen);
        for seen in sketch.seen.iter_mut().chain(&mut sketch.fallen) {
            if let Some(line) = lines.get(seen.id.as_str()) {
                seen.epoch = line.epoch;
                seen.alias(line.host);
                seen.is_called(line.hostname);
            }
            let zone =
                cards.get(seen.id.as_str()).and_then(|card| card.field("availability-zone")).and_then(Value::str);
            seen.zone = zone.filter(|zone| !zone.is_empty()).map(str::to_owned);
        }
        Ok(sketch.into_view())
    }

    /// What several views come to: each slot belongs to whoever claims it with the highest config epoch, as the nodes
    /// decide it among themselves. Of views that are equally new, and contradict each other all the same since a slot
    /// that goes to the owner of the highest epoch raises none, the last counts. `None` for no views.
    pub fn merge(mut views: Vec<View>) -> Option<View> {
        let newest = (0..views.len()).max_by_key(|&index| (views[index].epoch(), views[index].covered()))?;
        let base = views.swap_remove(newest);
        let mut sketch = Sketch::from(base);
        for view in &views {
            sketch.explain(view);
            // What is known already of each claimant, that may be newer than what this view says.
            let known: Vec<Option<u64>> = view.seen.iter().map(|seen| sketch.epoch_of(&seen.id)).collect();
            for slot in 0..SLOTS {
                let index = usize::from(view.slots[slot]);
                let (Some(claimant), Some(&known)) = (view.seen.get(index), known.get(index)) else { continue };
                let claim = Some(claimant.epoch);
                let believed = match sketch.seen.get(usize::from(sketch.slots[slot])) {
                    Some(holder) => holder.id != claimant.id && holder.epoch < claimant.epoch && known < claim,
                    None => known <= claim,
                };
                if believed {
                    sketch.slots[slot] = sketch.claimed_by(claimant);
                }
            }
        }
        Some(sketch.into_view())
    }

    /// The highest config epoch of any node in it. Of two views the one with the higher knows more.
    pub fn epoch(&self) -> u64 {
        self.seen.iter().map(|seen| seen.epoch).max().unwrap_or(0)
    }

    /// How many slots have an owner.
    pub fn covered(&self) -> usize {
        self.slots.iter().filter(|&&index| index != NOBODY).count()
    }

    /// The nodes of a snapshot, each dialled where `reach` says, and called what `label` says. A node that is as it was
    /// `before` keeps its `Arc`.
    pub fn nodes(
        &self,
        before: &[Arc<Node>],
        reach: impl Fn(&Seen) -> Address,
        label: impl Fn(&Seen) -> Address,
    ) -> Vec<Arc<Node>> {
        let before: HashMap<&str, &Arc<Node>> = before.iter().map(|node| (node.id.as_str(), node)).collect();
        let node = |seen: &Seen| {
            let node = seen.node(reach(seen), label(seen));
            match before.get(seen.id.as_str()) {
                Some(&same) if **same == node => same.clone(),
                _ => Arc::new(node),
            }
        };
        self.seen.iter().map(node).collect()
    }

    /// All members, those that have fallen out of the layout last.
    pub fn members(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().chain(&self.fallen)
    }
}

impl Seen {
    /// A primary at `announced`, of which nothing else is known.
    pub fn bare(id: &str, announced: Address) -> Seen {
        Seen {
            id: id.to_owned(),
            announced,
            implied: false,
            aliases: Vec::new(),
            hostname: None,
            role: Role::Primary,
            replicates: None,
            zone: None,
            epoch: 0,
        }
    }

    /// The node, dialled at `reach` and called `label`.
    pub fn node(&self, reach: Address, label: Address) -> Node {
        Node {
            id: self.id.clone(),
            label: label.to_string().into(),
            announced: self.announced.clone(),
            reach,
            role: self.role,
            replicates: self.replicates.clone(),
            zone: self.zone.clone(),
            aliases: self.aliases.clone(),
        }
    }

    /// Notes the host name that it announces, if that is one.
    fn is_called(&mut self, hostname: &str) {
        if !matches!(hostname, "" | "?") {
            self.hostname = Some(hostname.to_owned());
            self.alias(hostname);
        }
    }

    /// Notes another host that it goes by.
    pub fn alias(&mut self, host: &str) {
        if !matches!(host, "" | "?") && host != self.announced.host && !self.aliases.iter().any(|alias| alias == host) {
            self.aliases.push(host.to_owned());
        }
    }
}

/// A view while it is put together.
struct Sketch {
    seen: Vec<Seen>,
    places: HashMap<String, u16>,
    slots: Box<[u16; SLOTS]>,
    fallen: Vec<Seen>,
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { seen: Vec::new(), places: HashMap::new(), slots: Box::new([NOBODY; SLOTS]), fallen: Vec::new() }
    }
}

impl Sketch {
    fn from(view: View) -> Sketch {
        Sketch { places: places(&view.seen), seen: view.seen, slots: view.slots, fallen: view.fallen }
    }

    /// Takes in one range of CLUSTER SLOTS: first slot, last slot, primary, replicas.
    fn range(&mut self, range: &Value, lines: &HashMap<&str, Member>, asked: &Address) -> Result<(), BadView> {
        let [first, last, owners @ ..] = range.items() else {
            return Err(BadView("a range of CLUSTER SLOTS is too short".to_owned()));
        };
        let slot = |value: &Value| value.integer().and_then(|slot| Slot::new(u64::try_from(slot).ok()?));
        let (Some(first), Some(last)) = (slot(first), slot(last)) else {
            return Err(BadView("CLUSTER SLOTS names a slot that does not exist".to_owned()));
        };
        let mut primary: Option<String> = None;
        for (rank, owner) in owners.iter().enumerate() {
            let Some(mut seen) = read_owner(owner, lines, asked) else { continue };
            if rank == 0 {
                primary = Some(seen.id.clone());
                let place = self.add(seen);
                if let Some(slots) = self.slots.get_mut(first.index()..=last.index()) {
                    slots.fill(place);
                }
            } else {
                seen.role = Role::Replica;
                seen.replicates =
                    primary.clone().or_else(|| lines.get(seen.id.as_str())?.replicates.map(str::to_owned));
                self.add(seen);
            }
        }
        Ok(())
    }

    /// The node's index, added where it is new; [`NOBODY`] where there are too many.
    fn add(&mut self, seen: Seen) -> u16 {
        let next = u16::try_from(self.seen.len()).unwrap_or(NOBODY);
        if next == NOBODY {
            return NOBODY;
        }
        let place = *self.places.entry(seen.id.clone()).or_insert(next);
        if place == next {
            self.seen.push(seen);
        }
        place
    }

    fn epoch_of(&self, id: &str) -> Option<u64> {
        self.seen.get(usize::from(*self.places.get(id)?)).map(|seen| seen.epoch)
    }

    /// The place of a node that another view believes in more than this one: what that view says of it counts.
    fn claimed_by(&mut self, claimant: &Seen) -> u16 {
        let place = self.add(claimant.clone());
        if let Some(seen) = self.seen.get_mut(usize::from(place))
            && (seen.epoch < claimant.epoch || seen.role != claimant.role)
        {
            *seen = claimant.clone();
        }
        place
    }

    /// Takes from another view the addresses that this one can only guess.
    fn explain(&mut self, view: &View) {
        for other in view.seen.iter().filter(|other| !other.implied) {
            let Some(&place) = self.places.get(&other.id) else { continue };
            let seen = &mut self.seen[usize::from(place)];
            if seen.implied {
                let guess = std::mem::replace(&mut seen.announced, other.announced.clone());
                seen.implied = false;
                seen.alias(&guess.host);
            }
        }
    }

    /// Orders the nodes by id.
    fn into_view(mut self) -> View {
        let mut order: Vec<usize> = (0..self.seen.len()).collect();
        order.sort_by(|&one, &other| self.seen[one].id.cmp(&self.seen[other].id));
        let mut moved = vec![NOBODY; order.len()];
        for (new, &old) in order.iter().enumerate() {
            moved[old] = new as u16;
        }
        for index in self.slots.iter_mut() {
            *index = moved.get(usize::from(*index)).copied().unwrap_or(NOBODY);
        }
        self.seen.sort_by(|one, other| one.id.cmp(&other.id));
        self.fallen.retain(|fallen| !self.places.contains_key(&fallen.id));
        self.fallen.sort_by(|one, other| one.id.cmp(&other.id));
        for seen in self.seen.iter_mut().chain(&mut self.fallen) {
            seen.aliases.sort();
        }
        View { seen: self.seen, slots: self.slots, fallen: self.fallen }
    }
}

/// One node of a range: endpoint, port, id (since 4.0), metadata (since 7.0).
fn read_owner(owner: &Value, lines: &HashMap<&str, Member>, asked: &Address) -> Option<Seen> {
    let [endpoint, port, rest @ ..] = owner.items() else { return None };
    let id = rest.first().and_then(Value::str).filter(|id| !id.is_empty());
    let line = id.and_then(|id| lines.get(id));
    read_place(id, endpoint, port, rest.get(1), line, asked)
}

/// A node from the way clients are told of it; `about` has what else is known, by the names `ip` and `hostname`. `None`
/// where its address is not to be had from anything at hand.
fn read_place(
    id: Option<&str>,
    endpoint: &Value,
    port: &Value,
    about: Option<&Value>,
    line: Option<&Member>,
    asked: &Address,
) -> Option<Seen> {
    let port = port.integer().and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0)?;
    let endpoint = match endpoint {
        Value::Null => "",
        endpoint => endpoint.str()?,
    };
    let field = |name: &str| about.and_then(|about| about.field(name)).and_then(Value::str);
    let (ip, hostname) = (field("ip"), field("hostname"));
    let host = match endpoint {
        "" => &asked.host,
        "?" => {
            let known = [ip, line.map(|line| line.host), hostname, line.map(|line| line.hostname)];
            known.into_iter().flatten().find(|host| !matches!(*host, "" | "?"))?
        }
        host => host,
    };
    let announced = Address::new(host, port);
    let id = id.map_or_else(|| announced.to_string(), str::to_owned);
    let mut seen = Seen { implied: endpoint.is_empty(), ..Seen::bare(&id, announced) };
    ip.into_iter().for_each(|host| seen.alias(host));
    hostname.into_iter().for_each(|host| seen.is_called(host));
    Some(seen)
}

/// The nodes of CLUSTER SHARDS, by id.
fn cards(shards: &Value) -> HashMap<&str, &Value> {
    let nodes = shards.items().iter().filter_map(|shard| shard.field("nodes")).flat_map(Value::items);
    nodes.filter_map(|node| Some((node.field("id")?.str()?, node))).collect()
}

fn places(seen: &[Seen]) -> HashMap<String, u16> {
    seen.iter().zip(0..).map(|(seen, place)| (seen.id.clone(), place)).collect()
}

impl Member<'_> {
    /// The node, at the address for clients that its `card` of CLUSTER SHARDS gives, or else at that of this line.
    fn seen(&self, card: Option<&Value>, asked: &Address) -> Option<Seen> {
        let told = card.and_then(|card| {
            read_place(Some(self.id), card.field("endpoint")?, card.field("port")?, Some(card), Some(self), asked)
        });
        let seen = told.or_else(|| {
            let host = Value::Text(Bytes::copy_from_slice(self.host.as_bytes()));
            read_place(Some(self.id), &host, &Value::Integer(i64::from(self.port)), None, Some(self), asked)
        })?;
        let role = if self.replicates.is_some() { Role::Replica } else { Role::Primary };
        Some(Seen { role, replicates: self.replicates.map(str::to_owned), ..seen })
    }
}

#[cfg(test)]
mod tests;
