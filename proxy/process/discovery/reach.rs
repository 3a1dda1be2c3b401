//! Where nodes are really reached: announced addresses may mean nothing where the proxy runs.
//!
//! Whether an address leads to a node is found out by connecting and asking who is there (CLUSTER MYID): on a docker
//! host the announced 172.x leads nowhere, or to somebody else. First the announced address is tried. Where that fails:
//! its aliases, the seeds (each is asked who it is, and stands for that node), and the seeds' hosts with the announced
//! port. All of a round runs at once under one short deadline, so that silently dropped packets cost half a second.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::task::JoinSet;

use crate::{
    cluster::topology::Seen,
    protocol::{address::Address, resp::Value},
    upstream::dial::{self, Control, DialStep, Dialer, Login},
};

/// The most time that an address gets to say who is there.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many addresses are tried in one round.
const MOST_TRIED: usize = 256;

/// A node to be found.
pub struct SoughtNode {
    /// Its node id.
    pub id: String,
    announced: Address,
    aliases: Vec<String>,
    /// Where the operator says that it is: it is sought nowhere else.
    mapped: Option<Address>,
}

impl SoughtNode {
    /// A node of a view, at the place that the operator has given it, if any.
    pub fn of(seen: &Seen, mapped: Option<Address>) -> SoughtNode {
        SoughtNode { id: seen.id.clone(), announced: seen.announced.clone(), aliases: seen.aliases.clone(), mapped }
    }

    /// Where the node should be: at the place that the operator has given it, else where it announces.
    fn first(&self) -> &Address {
        self.mapped.as_ref().unwrap_or(&self.announced)
    }

    fn here(&self) -> ReachedNode {
        let how = if self.mapped.is_some() { RULE } else { ANNOUNCED };
        ReachedNode::new(&self.id, &self.announced, self.first().clone(), how)
    }
}

/// Where a node is reached.
#[derive(Clone, Debug)]
pub struct ReachedNode {
    /// The node id.
    pub id: String,
    /// What it announces.
    pub announced: Address,
    /// What to dial.
    pub reach: Address,
    /// Whether the node was really found there.
    pub sure: bool,
    /// Whether a worker has had trouble with it since.
    pub doubted: bool,
    /// How the node was found, in words.
    pub how: &'static str,
    /// Why the node was not where it announces.
    pub why_not: String,
    /// Since when the node cannot be found.
    pub lost_since: Option<SystemTime>,
    /// Another node that was met where it should be: its address and id.
    pub other: Option<(Address, String)>,
}

const ANNOUNCED: &str = "announced";
const RULE: &str = "by address_map";
const ALIAS: &str = "by another of its names";
const SEED: &str = "by the seed that is this node";
const BESIDE_SEED: &str = "by a seed's host and the announced port";

impl ReachedNode {
    fn new(id: &str, announced: &Address, reach: Address, how: &'static str) -> ReachedNode {
        ReachedNode {
            id: id.to_owned(),
            announced: announced.clone(),
            reach,
            sure: true,
            doubted: false,
            how,
            why_not: String::new(),
            lost_since: None,
            other: None,
        }
    }

    /// A node that is reached where it announces.
    pub fn announced(seen: &Seen) -> ReachedNode {
        ReachedNode::new(&seen.id, &seen.announced, seen.announced.clone(), ANNOUNCED)
    }

    /// A node that is reached where the operator says.
    pub fn mapped(seen: &Seen, reach: Address) -> ReachedNode {
        ReachedNode::new(&seen.id, &seen.announced, reach, RULE)
    }

    /// The others hold it for failing and show it to no client: it is not sought until they show it again.
    pub fn fall(&mut self) {
        if self.sure {
            self.sure = false;
            self.lost_since = Some(SystemTime::now());
            self.why_not = "the other nodes hold it for failing".to_owned();
        }
    }

    /// The node, given what was known `before`: one that was not found stays where it was last reached, the best guess.
    pub fn after(mut self, before: Option<&ReachedNode>) -> ReachedNode {
        if !self.sure {
            self.lost_since = before.and_then(|before| before.lost_since).or_else(|| Some(SystemTime::now()));
        }
        if let Some(before) = before.filter(|before| !self.sure && before.announced == self.announced) {
            self.reach = before.reach.clone();
            self.how = before.how;
        }
        self
    }

    /// What the operator is to be told of this node, given what was known `before`.
    pub fn news(&self, before: Option<&ReachedNode>) -> Option<News> {
        if before.is_some_and(|before| before.reach == self.reach && before.sure == self.sure) {
            return None;
        }
        if !self.sure {
            return Some(News::Lost {
                id: self.id.clone(),
                announced: self.announced.clone(),
                why: self.why_not.clone(),
            });
        }
        if let Some(since) = before.and_then(|before| before.lost_since) {
            return Some(News::Back { id: self.id.clone(), announced: self.announced.clone(), since });
        }
        let ReachedNode { id, announced, reach, why_not, how, .. } = self;
        match *how {
            _ if announced == reach => None,
            RULE => Some(News::Dialled(format!("node {announced} ({id}) is dialled at {reach} {how}"))),
            how => Some(News::Dialled(format!(
                "node {announced} ({id}) is dialled at {reach}, found {how} ({why_not}); to pin it: \
                 address_map = [\"{announced}={reach}\"]"
            ))),
        }
    }
}

/// What is new about where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The node is nowhere to be found.
    Lost {
        /// Its id.
        id: String,
        /// What it announces.
        announced: Address,
        /// Why.
        why: String,
    },
    /// The node is there again.
    Back {
        /// Its id.
        id: String,
        /// What it announces.
        announced: Address,
        /// Since when it was lost.
        since: SystemTime,
    },
    /// The node is dialled elsewhere than it announces: the line that says so.
    Dialled(String),
}

/// Who is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// The node with this id.
    Node(String),
    /// A server that does not tell: it is loading, too old, or forbids the question.
    Silent,
    /// Nobody that could be asked, and why.
    Nobody(String),
}

/// Searches the nodes. Every one of them is in the result, found or not.
pub async fn search(wanted: Vec<SoughtNode>, seeds: Vec<Address>, login: Login, dialer: Dialer) -> Vec<ReachedNode> {
    let dialer = dialer.within(dialer.patience().min(PATIENCE));
    let first = who_is_at(wanted.iter().map(|node| node.first().clone()), &login, &dialer).await;
    let (here, lost): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|node| node.is_at(node.first(), &first));
    let mut found: Vec<ReachedNode> = here.iter().map(SoughtNode::here).collect();
    if lost.is_empty() {
        return found;
    }
    let tried = lost.iter().flat_map(|node| node.elsewhere(&seeds)).map(|(address, _)| address);
    let second = who_is_at(tried, &login, &dialer).await;
    found.extend(lost.into_iter().map(|node| node.place(&seeds, &first, &second)));
    found
}

impl SoughtNode {
    /// Where else it might be, the likeliest first. Two seeds may share a host.
    fn elsewhere(&self, seeds: &[Address]) -> Vec<(Address, &'static str)> {
        if self.mapped.is_some() {
            return Vec::new();
        }
        let port = self.announced.port;
        let aliases = self.aliases.iter().map(|host| (Address::new(host.clone(), port), ALIAS));
        let named = seeds.iter().map(|seed| (seed.clone(), SEED));
        let beside = seeds.iter().map(|seed| (Address::new(seed.host.clone(), port), BESIDE_SEED));
        aliases.chain(named).chain(beside).collect()
    }

    /// Whether it is at that address. A server that does not tell is believed to be where it announces.
    fn is_at(&self, address: &Address, known: &HashMap<Address, Who>) -> bool {
        match known.get(address) {
            Some(Who::Node(id)) => *id == self.id || self.id == self.announced.to_string(),
            Some(Who::Silent) => address == self.first(),
            Some(Who::Nobody(_)) | None => false,
        }
    }

    fn place(&self, seeds: &[Address], first: &HashMap<Address, Who>, second: &HashMap<Address, Who>) -> ReachedNode {
        let place = self.elsewhere(seeds).into_iter().find(|(address, how)| match second.get(address) {
            // Whoever does not tell who it is may be anybody, unless the cluster itself names that host.
            Some(Who::Silent) => *how == ALIAS,
            _ => self.is_at(address, second),
        });
        let why_not = match first.get(self.first()) {
            Some(Who::Node(id)) if self.mapped.is_some() => format!("at {} there is another node, {id}", self.first()),
            Some(Who::Node(id)) => format!("at the announced address there is another node, {id}"),
            Some(Who::Nobody(why)) => why.clone(),
            Some(Who::Silent) | None => String::new(),
        };
        let other = match first.get(self.first()) {
            Some(Who::Node(id)) => Some((self.first().clone(), id.clone())),
            Some(Who::Silent | Who::Nobody(_)) | None => None,
        };
        match place {
            Some((reach, how)) => {
                ReachedNode { why_not, other, ..ReachedNode::new(&self.id, &self.announced, reach, how) }
            }
            None => ReachedNode { sure: false, why_not, other, ..self.here() },
        }
    }
}

/// Asks every address who is there, all at once.
async fn who_is_at(addresses: impl Iterator<Item = Address>, login: &Login, dialer: &Dialer) -> HashMap<Address, Who> {
    let addresses: HashSet<Address> = addresses.take(MOST_TRIED).collect();
    let mut asking = JoinSet::new();
    for address in addresses {
        let (login, dialer) = (login.clone(), dialer.clone());
        asking.spawn(async move {
            let who = who(&address, &login, &dialer).await;
            (address, who)
        });
    }
    asking.join_all().await.into_iter().collect()
}

async fn who(address: &Address, login: &Login, dialer: &Dialer) -> Who {
    let mut control = match Control::open(address, login, dialer).await {
        Ok(control) => control,
        // It is there, and it will say the same to whoever dials it: the reason must reach the client.
        Err(error) if error.permanent && error.step != DialStep::Admission => return Who::Silent,
        Err(error) if error.step == DialStep::Connect => return Who::Nobody(error.why),
        Err(error) => return Who::Nobody(error.to_string()),
    };
    match control.ask(&["CLUSTER", "MYID"]).await {
        // One that is loading is there too, and its requests are told so.
        Ok(Value::Error(text)) if !dial::may_not_tell(&text) && !text.starts_with(b"LOADING ") => {
            Who::Nobody(dial::reason(&text))
        }
        Ok(id) => id.str().map_or(Who::Silent, |id| Who::Node(id.to_owned())),
        Err(error) => Who::Nobody(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
