//! What operators are told of databases of their own: how many keys each has, how many requests a second it takes, and which of
//! them are in each other's way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    cluster::topology::Topology,
    commands::database::Database,
    config::{Config, NAMELESS},
    metrics::{DatabaseGlance, Metrics},
    protocol::{address::Address, resp::Value},
    upstream::dial::{Control, Credentials, Dialer, Login},
};

/// How often nodes are asked for keys.
const LOOK: Duration = Duration::from_secs(5);
/// Databases that a node is asked about at a time.
const AT_A_TIME: usize = 500;
/// Requests a second from which on a database is busy: a node takes about a hundred times as many.
const BUSY: u64 = 1000;
/// How often the log tells of busy ones that share a node.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);
/// Keys of a slot that are looked at for a prefix.
pub const SAMPLE: usize = 100;

/// Looks after the databases of the configuration.
pub struct Databases {
    all: Vec<Arc<Database>>,
    topology: watch::Receiver<Arc<Topology>>,
    metrics: Metrics,
    dialer: Dialer,
    login: Login,
    nodes: HashMap<Address, Control>,
    /// The requests that were counted last, and when.
    before: (Vec<u64>, Instant),
    /// When the log was told last of a node that busy ones share.
    complaints: HashMap<Arc<str>, Instant>,
}

impl Databases {
    /// The databases of the configuration. Makes them known to the metrics.
    pub fn of(
        config: &Config,
        dialer: Dialer,
        topology: watch::Receiver<Arc<Topology>>,
        metrics: Metrics,
    ) -> Databases {
        let names = config.own_databases().unwrap_or_default();
        let known = |(_, database): (u32, &Arc<Database>)| (database.name().to_owned(), database.slot());
        // What SELECT chooses from without a name is called after its numbers: db/1, db/2 ...
        let label = |name: &String| if name == NAMELESS { "db".to_owned() } else { name.clone() };
        metrics.know_databases(
            names.iter().map(|(name, numbered)| (label(name), numbered.all().map(known).collect())).collect(),
        );
        let all: Vec<Arc<Database>> =
            names.values().flat_map(|numbered| numbered.all().map(|(_, database)| database.clone())).collect();
        Databases {
            before: (vec![0; all.len()], Instant::now()),
            all,
            topology,
            metrics,
            dialer,
            login: Login { credentials: Credentials::of(config), own: Credentials::of(config), ..Login::default() },
            nodes: HashMap::new(),
            complaints: HashMap::new(),
        }
    }

    /// Counts keys and requests of each database, again and again. Never ends.
    pub async fn look_after(mut self) {
        if self.all.is_empty() {
            return std::future::pending().await;
        }
        while self.topology.borrow_and_update().owners().next().is_none() {
            if self.topology.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
        self.tell_of_prefixes().await;
        loop {
            let keys = self.count_keys().await;
            self.publish(&keys);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn publish(&mut self, keys: &[Option<u64>]) {
        let (glances, now) = (self.metrics.databases(), Instant::now());
        let (before, since) =
            std::mem::replace(&mut self.before, (glances.iter().map(|glance| glance.requests).collect(), now));
        let seconds = now.duration_since(since).as_secs_f64().max(1.0);
        let rate = |(now, before): (&DatabaseGlance, &u64)| ((now.requests - before) as f64 / seconds).round() as u64;
        let rates = glances.iter().zip(&before).map(rate);
        let told: Vec<(Option<u64>, u64)> = keys.iter().copied().zip(rates).collect();
        self.metrics.learn_databases(&told);
        let topology = self.topology.borrow().clone();
        for (node, busy) in sharing(&self.metrics.databases(), &topology) {
            let last = self.complaints.get(&node);
            if last.is_none_or(|last| now.duration_since(*last) >= COMPLAIN_EVERY) {
                self.complaints.insert(node.clone(), now);
                tracing::warn!(
                    node = &*node,
                    "busy databases share a node, and would have more of two: {}",
                    busy.join(", ")
                );
            }
        }
    }

    /// Logs how many keys bear a database's prefix already: they are its own from now on, whoever wrote them.
    async fn tell_of_prefixes(&mut self) {
        for (database, sample) in self.all.clone().into_iter().zip(self.ask(|slot| getkeys(&slot)).await) {
            let prefix = String::from_utf8_lossy(database.prefix()).into_owned();
            let sample = sample.unwrap_or(Value::Null);
            let (own, others) = told_apart(&database, &sample);
            let at_least = if sample.items().len() == SAMPLE { "at least " } else { "" };
            if own > 0 {
                tracing::info!(
                    "{at_least}{own} keys begin with {prefix} already: they are those of the database {}",
                    database.name()
                );
            }
            if others > 0 {
                tracing::info!(
                    "{at_least}{others} keys are in the slot of the database {} and do not begin with {prefix}: they are none of its \
                     own, though its DBSIZE counts them",
                    database.name()
                );
            }
        }
    }

    /// How many keys the slot of each has; `None` where its node does not tell.
    async fn count_keys(&mut self) -> Vec<Option<u64>> {
        let said = self.ask(|slot| format!("CLUSTER COUNTKEYSINSLOT {slot}")).await;
        said.into_iter().map(|said| said?.integer()?.try_into().ok()).collect()
    }

    /// Asks the owner of each database's slot. `None` where it cannot be asked, or answers with an error.
    async fn ask(&mut self, question: impl Fn(String) -> String) -> Vec<Option<Value>> {
        let topology = self.topology.borrow().clone();
        let mut at: BTreeMap<Address, (Login, Vec<usize>)> = BTreeMap::new();
        for (index, database) in self.all.iter().enumerate() {
            if let Some(owner) = topology.owner(database.slot()) {
                let login = || (self.login.at(owner), Vec::new());
                at.entry(owner.reach.clone()).or_insert_with(login).1.push(index);
            }
        }
        self.nodes.retain(|address, _| at.contains_key(address));
        let mut answers = vec![None; self.all.len()];
        for (address, (login, indexes)) in at {
            for indexes in indexes.chunks(AT_A_TIME) {
                let questions: Vec<String> =
                    indexes.iter().map(|&index| question(self.all[index].slot().to_string())).collect();
                let Some(said) = self.ask_one(&address, &login, &questions).await else { break };
                for (&index, said) in indexes.iter().zip(said) {
                    answers[index] = Some(said).filter(|said| !matches!(said, Value::Error(_)));
                }
            }
        }
        answers
    }

    /// One node's answers; `None` where it cannot be asked.
    async fn ask_one(&mut self, address: &Address, login: &Login, questions: &[String]) -> Option<Vec<Value>> {
        let mut node = match self.nodes.remove(address) {
            Some(node) => node,
            None => Control::open(address, login, &self.dialer).await.ok()?,
        };
        let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
        let said = node.ask_all(&questions).await.ok()?;
        self.nodes.insert(address.clone(), node);
        Some(said)
    }
}

/// The question for some keys of a slot.
pub fn getkeys(slot: &str) -> String {
    format!("CLUSTER GETKEYSINSLOT {slot} {SAMPLE}")
}

/// How many of these keys belong to the database, and how many do not.
pub fn told_apart(database: &Database, keys: &Value) -> (usize, usize) {
    let is_own = |key: &&Value| key.text().is_some_and(|key| database.own(key).is_some());
    let own = keys.items().iter().filter(is_own).count();
    (own, keys.items().len() - own)
}

/// The nodes that several busy databases share, each with those databases.
fn sharing(databases: &[DatabaseGlance], topology: &Topology) -> Vec<(Arc<str>, Vec<String>)> {
    let mut at: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
    for database in databases.iter().filter(|database| database.rate >= BUSY) {
        let Some(owner) = topology.owner(database.slot) else { continue };
        let text = format!("{} (slot {}, {} requests/s)", database.name, database.slot, database.rate);
        at.entry(owner.label.clone()).or_default().push(text);
    }
    at.into_iter().filter(|(_, busy)| busy.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::slot::Slot;

    fn glance(name: &str, slot: u64, rate: u64) -> DatabaseGlance {
        DatabaseGlance { name: name.into(), slot: Slot::new(slot).unwrap(), requests: 0, rate, clients: 1, keys: None }
    }

    #[test]
    fn busy_databases_of_one_node_are_told_of() {
        let reply = b"*2\r\n*3\r\n:0\r\n:8000\r\n*3\r\n$1\r\na\r\n:7000\r\n$1\r\n1\r\n*3\r\n:8001\r\n:16383\r\n*3\r\n$1\r\nb\r\n:7000\r\n$1\r\n2\r\n";
        let (slots, _) = Value::parse(reply).unwrap().unwrap();
        let topology = Topology::from_slots(&slots, &Address::new("a", 7000), Arc::default()).unwrap();
        let found = |databases: &[DatabaseGlance]| -> Vec<String> {
            sharing(databases, &topology)
                .into_iter()
                .map(|(node, busy)| format!("{node}: {}", busy.join(", ")))
                .collect()
        };
        let (shop, jobs, idle, far) = (
            glance("shop", 1, BUSY),
            glance("jobs", 8000, 5000),
            glance("idle", 2, BUSY - 1),
            glance("far", 9000, 5000),
        );
        assert!(found(&[shop.clone(), idle.clone(), far.clone()]).is_empty());
        assert_eq!(
            found(&[shop, jobs, idle, far]),
            ["a:7000: shop (slot 1, 1000 requests/s), jobs (slot 8000, 5000 requests/s)"]
        );
    }

    #[test]
    fn keys_are_told_apart_by_their_prefix() {
        let database = Database::new("shop", "{%}").unwrap();
        let (keys, _) = Value::parse(b"*3\r\n$6\r\n{shop}\r\n$8\r\nx{shop}y\r\n$8\r\n{shop}ab\r\n").unwrap().unwrap();
        assert_eq!(told_apart(&database, &keys), (2, 1));
    }
}
