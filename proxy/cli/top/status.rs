//! What `/api/status` tells, as far as it is shown here. What an older proxy does not tell is empty.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    /// Now, in Unix time, as all times here.
    pub time: u64,
    /// All of it in one sentence.
    pub sentence: String,
    /// `ok`, `warn`, `part` or `down`.
    pub state: String,
    pub slots_reachable: usize,
    pub slots: usize,
    pub pace: Pace,
    pub absorbed: Absorbed,
    pub clients: Clients,
    pub nodes: Vec<Node>,
    pub databases: Vec<Database>,
    /// First slot, last slot and owner, as an index of `nodes`; -1: nobody.
    pub slot_map: Vec<(usize, usize, i64)>,
    /// Requests a second for each equal part of the slots.
    pub heat: Vec<f64>,
    /// Slots that are half moved: slot, from and to.
    pub moving: Vec<(usize, String, String)>,
    pub top_clients: Vec<Client>,
    pub libraries: BTreeMap<String, usize>,
    pub events: Vec<Event>,
    pub hot_keys: Vec<HotKey>,
    pub hot_slots: Vec<HotSlot>,
    pub large: Vec<Large>,
    pub slow: Vec<Slow>,
}

impl Status {
    /// What has been told as JSON, with the nodes in the order of their slots: so they stand in the bar.
    pub fn parse(text: &str) -> serde_json::Result<Status> {
        let mut status: Status = serde_json::from_str(text)?;
        let first = |index: usize| {
            let owned = status.slot_map.iter().filter(|(.., owner)| usize::try_from(*owner) == Ok(index));
            owned.map(|(first, ..)| *first).min().unwrap_or(usize::MAX)
        };
        let mut order: Vec<usize> = (0..status.nodes.len()).collect();
        order.sort_by_key(|&index| (first(index), status.nodes[index].node.clone()));
        let nodes = order.iter().map(|&index| status.nodes[index].clone()).collect();
        let place = |owner: i64| order.iter().position(|&index| usize::try_from(owner) == Ok(index));
        for (.., owner) in &mut status.slot_map {
            *owner = place(*owner).map_or(-1, |place| place as i64);
        }
        status.nodes = nodes;
        Ok(status)
    }
}

/// Requests and errors a second, and latencies in milliseconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pace {
    pub requests: f64,
    pub errors: f64,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Absorbed {
    pub redirects: u64,
    pub retries: u64,
    pub given_up: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Clients {
    pub connected: i64,
    pub blocked: i64,
    pub rejected: u64,
    pub buffered_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub node: String,
    pub role: String,
    pub replica_of: Option<String>,
    pub up: bool,
    pub lost_since: Option<u64>,
    pub slow: bool,
    pub slow_since: Option<u64>,
    /// Why it is lost or slow, and whom that hurts.
    pub why: Option<String>,
    pub hurts: Option<String>,
    pub slots: usize,
    pub requests: u64,
    pub failed: u64,
    pub connections: i64,
    pub inflight: i64,
    pub queued_bytes: i64,
    pub pace: Pace,
    pub version: Option<String>,
    pub memory_bytes: Option<u64>,
    pub lag_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Database {
    pub database: String,
    pub slot: usize,
    pub node: Option<String>,
    pub keys: Option<u64>,
    pub clients: i64,
    pub requests: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Client {
    pub id: u64,
    pub address: String,
    pub name: String,
    pub user: String,
    pub library: String,
    pub commands: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub held_bytes: u64,
    pub age_seconds: u64,
    pub command: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    pub time: u64,
    pub severity: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HotKey {
    pub key: String,
    pub slot: usize,
    pub node: String,
    pub requests: f64,
    /// From 0 to 1.
    pub writes: f64,
    pub command: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HotSlot {
    pub slot: usize,
    pub node: String,
    pub requests: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Large {
    pub what: String,
    pub bytes: u64,
    pub times: u64,
    pub command: String,
    pub key: String,
    pub node: String,
    pub time: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Slow {
    pub time: u64,
    pub request: String,
    pub node: String,
    pub slot: Option<usize>,
    pub client: String,
    /// In milliseconds, as `at_node`.
    pub here: f64,
    pub at_node: f64,
}
