//! `/api/status`: the proxy and its nodes now. The page shows it; it has all that the page needs.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{AdminView, Pages, vitals::NodeVitals};
use crate::{
    clients::{Client, Clients},
    cluster::topology::{NOBODY, Topology},
    commands::shown::{shown_args, shown_key},
    metrics::{
        DatabaseGlance, Libraries, Library, NodeGlance,
        history::{Pace, Present},
        slow::Slow,
    },
    protocol::slot::{SLOTS, Slot},
};

/// How many of each list are told.
const MOST_CLIENTS: usize = 20;
const MOST_EVENTS: usize = 50;
const MOST_HOT: usize = 20;
const MOST_LARGE: usize = 10;
const MOST_SLOW: usize = 20;
/// Into how many parts the slot map is divided for its heat.
const HEAT_PARTS: usize = 256;

/// The proxy at a glance. Counts are those of the last publication, up to a second old.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: &'static str,
    uptime_seconds: u64,
    /// Now, in Unix time.
    time: u64,
    /// All of it in one sentence.
    sentence: String,
    /// How it is: `ok`, `part` (some slots are not served) or `down`.
    state: &'static str,
    ready: bool,
    /// Why it is not ready, or only in part.
    reason: Option<String>,
    epoch: u64,
    slots_assigned: usize,
    /// Those whose owner can be reached, and serves.
    slots_reachable: usize,
    slots: usize,
    /// Why not all slots are served.
    trouble: Option<String>,
    commands: u64,
    pace: Shown,
    absorbed: Absorbed,
    clients: ClientsStatus,
    nodes: Vec<NodeStatus>,
    /// The databases of their own that are in use.
    databases: Vec<DatabaseStatus>,
    /// First slot, last slot and owner, as an index of `nodes`; -1: nobody.
    slot_map: Vec<(usize, usize, i64)>,
    /// Requests a second for each 64th part of the slots, estimated.
    heat: Vec<f32>,
    /// Slots that are half moved: slot, from and to, by labels.
    moving: Vec<(usize, String, String)>,
    top_clients: Vec<TopClient>,
    libraries: BTreeMap<String, usize>,
    events: Vec<Event>,
    hot_keys: Vec<HotKey>,
    hot_slots: Vec<HotSlot>,
    large: Vec<Large>,
    slow: Vec<SlowRequest>,
}

#[derive(Serialize)]
struct Shown {
    /// A second.
    requests: f64,
    errors: f64,
    /// In milliseconds.
    p50: Option<f64>,
    p99: Option<f64>,
}

/// What clients have not noticed, and what they have, since the start.
#[derive(Serialize)]
struct Absorbed {
    redirects: u64,
    retries: u64,
    given_up: u64,
}

#[derive(Serialize)]
struct ClientsStatus {
    connected: i64,
    blocked: i64,
    accepted: u64,
    rejected: u64,
    received_bytes: u64,
    sent_bytes: u64,
    buffered_bytes: usize,
}

#[derive(Serialize)]
struct DatabaseStatus {
    database: String,
    slot: usize,
    /// The owner of the slot.
    node: Option<String>,
    /// Keys of the slot, where they are known.
    keys: Option<u64>,
    clients: i64,
    requests: u64,
}

#[derive(Serialize)]
struct NodeStatus {
    node: String,
    id: String,
    /// Where it is dialled, if not where it says.
    reached_at: Option<String>,
    role: &'static str,
    /// Whose replica it is, by label.
    replica_of: Option<String>,
    zone: Option<String>,
    up: bool,
    /// Since when it cannot be reached, in Unix time, and why.
    lost_since: Option<u64>,
    why: Option<String>,
    slow: bool,
    slots: usize,
    slot_ranges: Vec<String>,
    requests: u64,
    errors: u64,
    /// Those that ended in an error for the client.
    failed: u64,
    connections: i64,
    inflight: i64,
    queued_bytes: i64,
    pace: Shown,
    /// What the node tells of itself, some seconds old; nothing where it has not been asked yet.
    #[serde(flatten)]
    vitals: NodeVitals,
}

#[derive(Serialize)]
struct TopClient {
    id: u64,
    address: String,
    name: String,
    user: String,
    library: String,
    commands: u64,
    received_bytes: u64,
    sent_bytes: u64,
    held_bytes: usize,
    age_seconds: u64,
    command: String,
}

#[derive(Serialize)]
struct Event {
    id: u64,
    time: u64,
    severity: &'static str,
    kind: &'static str,
    text: String,
}

#[derive(Serialize)]
struct HotKey {
    key: String,
    slot: u16,
    node: String,
    requests: f64,
    /// From 0 to 1.
    writes: f64,
    command: String,
}

#[derive(Serialize)]
struct HotSlot {
    slot: usize,
    node: String,
    requests: f32,
}

#[derive(Serialize)]
struct Large {
    what: &'static str,
    bytes: usize,
    times: u64,
    command: String,
    key: String,
    node: String,
    time: u64,
}

#[derive(Serialize)]
struct SlowRequest {
    id: u64,
    time: u64,
    request: String,
    node: String,
    slot: Option<u16>,
    client: String,
    /// In milliseconds.
    here: f64,
    at_node: f64,
}

pub(super) fn of(stage: &Pages, readiness: Result<Option<String>, String>) -> Status {
    let (view, uptime) = (&stage.view, stage.since.elapsed());
    let topology = view.topology.borrow().clone();
    let totals = view.metrics.totals();
    let (glances, present) = (view.metrics.nodes(), view.metrics.history().present());
    let all = view.clients.all();
    let heat = view.metrics.hot().slots();
    let ready = readiness.is_ok();
    Status {
        version: crate::VERSION,
        revision: crate::REVISION,
        uptime_seconds: uptime.as_secs(),
        time: unix(SystemTime::now()),
        sentence: sentence(&topology, &readiness, &present),
        state: if topology.reachable() == SLOTS && ready { "ok" } else { ["down", "part"][usize::from(ready)] },
        ready,
        reason: readiness.unwrap_or_else(Some),
        epoch: topology.epoch,
        slots_assigned: topology.covered(),
        slots_reachable: topology.reachable(),
        slots: SLOTS,
        trouble: topology.complaint(),
        commands: totals.commands,
        pace: Shown::of(present.all),
        absorbed: Absorbed { redirects: totals.redirects, retries: totals.retries, given_up: totals.given_up },
        clients: ClientsStatus {
            connected: totals.clients,
            blocked: totals.blocked,
            accepted: totals.connections_received,
            rejected: totals.rejected,
            received_bytes: totals.received_bytes,
            sent_bytes: totals.sent_bytes,
            buffered_bytes: view.clients.buffered(),
        },
        databases: databases(view, &topology),
        nodes: (0..topology.nodes.len())
            .filter_map(|index| node(stage, &topology, index, &glances, &present))
            .collect(),
        slot_map: slot_map(&topology),
        heat: heat.chunks(SLOTS / HEAT_PARTS).map(|part| rounded(part.iter().sum())).collect(),
        moving: stage.vitals.moving(&topology),
        libraries: libraries(&all),
        top_clients: top_clients(all),
        events: events(view),
        hot_keys: hot_keys(view, &topology),
        hot_slots: hot_slots(&heat, &topology),
        large: large(view),
        slow: view.metrics.slow().latest(MOST_SLOW).iter().map(|slow| slow_request(view, &topology, slow)).collect(),
    }
}

fn databases(view: &AdminView, topology: &Topology) -> Vec<DatabaseStatus> {
    let all = view.metrics.databases().into_iter().filter(DatabaseGlance::is_in_use);
    let shown = all.map(|glance| DatabaseStatus {
        database: glance.name.to_string(),
        slot: glance.slot.index(),
        node: topology.owner(glance.slot).map(|node| node.label.to_string()),
        keys: glance.keys,
        clients: glance.clients,
        requests: glance.requests,
    });
    shown.collect()
}

/// All of it in one sentence.
fn sentence(topology: &Topology, readiness: &Result<Option<String>, String>, present: &Present) -> String {
    let pace = &present.all;
    let rate = match pace.p99 {
        Some(p99) => format!("{} requests/s, p99 {}", grouped(pace.rate.round() as u64), millis(p99)),
        None => "no requests now".to_owned(),
    };
    match readiness {
        Err(reason) => format!("Nothing is served: {reason}."),
        Ok(Some(reason)) => {
            format!("{reason}. {} of 16,384 slots are served; {rate}.", grouped(topology.reachable() as u64))
        }
        Ok(None) => {
            let slow: Vec<&str> =
                present.nodes.iter().filter(|(_, _, slow)| *slow).map(|(label, _, _)| &**label).collect();
            let owners = topology.first_slots().len();
            let primaries = if owners == 1 { "primary" } else { "primaries" };
            let slow = if slow.is_empty() { String::new() } else { format!(" {} is slow.", slow.join(", ")) };
            format!("All 16,384 slots are served by {owners} {primaries}; {rate}.{slow}")
        }
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn millis(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn rounded(value: f32) -> f32 {
    (value * 10.0).round() / 10.0
}

impl Shown {
    pub(super) fn of(pace: Pace) -> Shown {
        let millis = |seconds: f64| (seconds * 1e6).round() / 1e3;
        let tenth = |value: f64| (value * 10.0).round() / 10.0;
        Shown {
            requests: tenth(pace.rate),
            errors: tenth(pace.errors),
            p50: pace.p50.map(millis),
            p99: pace.p99.map(millis),
        }
    }
}

fn node(
    stage: &Pages,
    topology: &Topology,
    index: usize,
    glances: &[NodeGlance],
    present: &Present,
) -> Option<NodeStatus> {
    let node = topology.nodes.get(index)?;
    let glance = glances.iter().find(|glance| glance.state.label == node.label);
    let ranges = topology.ranges(index);
    let lost = topology.lost(&node.id);
    let (pace, slow) = present
        .nodes
        .iter()
        .find(|(label, _, _)| *label == node.label)
        .map_or_else(Default::default, |(_, pace, slow)| (*pace, *slow));
    let label_of = |id: &String| topology.node(id).map_or_else(|| id.clone(), |primary| primary.label.to_string());
    Some(NodeStatus {
        node: node.label.to_string(),
        id: node.id.clone(),
        reached_at: (node.reach != node.announced).then(|| node.reach.to_string()),
        role: topology.role_of(index),
        replica_of: node.replicates.as_ref().map(label_of),
        zone: node.zone.clone(),
        up: lost.is_none(),
        lost_since: lost.map(|lost| unix(lost.since)),
        why: lost.map(|lost| lost.why.to_string()),
        slow,
        slots: ranges.iter().map(|(first, last)| last - first + 1).sum(),
        slot_ranges: ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect(),
        requests: glance.map_or(0, |glance| glance.requests),
        errors: glance.map_or(0, |glance| glance.errors),
        failed: glance.map_or(0, |glance| glance.failed),
        connections: glance.map_or(0, |glance| glance.connections),
        inflight: glance.map_or(0, |glance| glance.inflight),
        queued_bytes: glance.map_or(0, |glance| glance.queued_bytes),
        pace: Shown::of(pace),
        vitals: stage.vitals.of(&node.id),
    })
}

fn slot_map(topology: &Topology) -> Vec<(usize, usize, i64)> {
    let mut map: Vec<(usize, usize, i64)> = Vec::new();
    for (slot, &owner) in topology.slots.iter().enumerate() {
        let owner = if owner == NOBODY { -1 } else { i64::from(owner) };
        match map.last_mut() {
            Some((_, last, known)) if *known == owner => *last = slot,
            _ => map.push((slot, slot, owner)),
        }
    }
    map
}

fn library(client: &Client) -> String {
    let about = client.about();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (text(&about.library), text(&about.library_version)) {
        (name, version) if !name.is_empty() && !version.is_empty() => format!("{name} {version}"),
        (name, _) => name,
    }
}

/// How many clients name which library, as the metrics tell them apart.
pub(super) fn client_libraries(clients: &Clients) -> Libraries {
    clients.all().iter().map(|client| Library::of(&client.about().library)).collect()
}

fn libraries(all: &[std::sync::Arc<Client>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for client in all {
        let name = match library(client) {
            name if name.is_empty() => "(does not say)".to_owned(),
            name => name,
        };
        *counts.entry(name).or_default() += 1;
        if counts.len() >= MOST_CLIENTS {
            break;
        }
    }
    counts
}

fn top_clients(mut all: Vec<std::sync::Arc<Client>>) -> Vec<TopClient> {
    all.sort_by_key(|client| std::cmp::Reverse((client.cost() / 65_536, client.commands.load(Relaxed))));
    let shown = |client: &std::sync::Arc<Client>| {
        let [received, sent] = [0, 1].map(|way| client.traffic[way].load(Relaxed));
        let about = client.about().clone();
        TopClient {
            id: client.id,
            address: client.peer().to_string(),
            name: String::from_utf8_lossy(&about.name).into_owned(),
            user: about.user,
            library: library(client),
            commands: client.commands.load(Relaxed),
            received_bytes: received,
            sent_bytes: sent,
            held_bytes: client.cost(),
            age_seconds: client.since.elapsed().as_secs(),
            command: client.last_command(),
        }
    };
    all.iter().take(MOST_CLIENTS).map(shown).collect()
}

fn events(view: &AdminView) -> Vec<Event> {
    let events = view.metrics.events().after(0, MOST_EVENTS);
    let shown = |event: &crate::metrics::events::Event| Event {
        id: event.id,
        time: event.unix_seconds(),
        severity: event.severity.label(),
        kind: event.kind.label(),
        text: event.text.clone(),
    };
    events.iter().rev().map(shown).collect()
}

fn owner_of(topology: &Topology, slot: Slot) -> String {
    topology.owner(slot).map_or_else(|| "nobody".to_owned(), |node| node.label.to_string())
}

/// A key for people: what cannot be printed is escaped.
fn text_of_key(view: &AdminView, key: &[u8]) -> String {
    let shown = shown_key(key, view.show_keys);
    match std::str::from_utf8(&shown) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => shown.escape_ascii().to_string(),
    }
}

fn hot_keys(view: &AdminView, topology: &Topology) -> Vec<HotKey> {
    let shown = |hot: crate::metrics::hot::HotKey| {
        let slot = Slot::of(&hot.key);
        HotKey {
            key: text_of_key(view, &hot.key),
            slot: slot.number(),
            node: owner_of(topology, slot),
            requests: (hot.rate * 10.0).round() / 10.0,
            writes: (hot.writes * 100.0).round() / 100.0,
            command: hot.command.name(),
        }
    };
    view.metrics.hot().keys(MOST_HOT).into_iter().map(shown).collect()
}

fn hot_slots(heat: &[f32], topology: &Topology) -> Vec<HotSlot> {
    let mut hottest: Vec<(usize, f32)> = heat.iter().copied().enumerate().filter(|(_, rate)| *rate >= 0.1).collect();
    hottest.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let shown = |(slot, rate): (usize, f32)| {
        let node = Slot::new(slot as u64).map_or_else(String::new, |slot| owner_of(topology, slot));
        HotSlot { slot, node, requests: rounded(rate) }
    };
    hottest.into_iter().take(MOST_HOT / 2).map(shown).collect()
}

fn large(view: &AdminView) -> Vec<Large> {
    let shown = |large: crate::metrics::hot::Large| Large {
        what: if large.is_reply { "reply" } else { "request" },
        bytes: large.bytes,
        times: large.times,
        command: large.command,
        key: text_of_key(view, &large.key),
        node: large.node,
        time: unix(large.at),
    };
    view.metrics.hot().large().into_iter().take(MOST_LARGE).map(shown).collect()
}

fn slow_request(view: &AdminView, topology: &Topology, slow: &Slow) -> SlowRequest {
    let millis = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    let args = shown_args(&slow.frame, &topology.commands, view.show_keys);
    let args: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
    let client = view.clients.find(slow.client);
    let client = client.map(|client| match client.about().name.clone() {
        name if name.is_empty() => client.peer().to_string(),
        name => String::from_utf8_lossy(&name).into_owned(),
    });
    SlowRequest {
        id: slow.id,
        time: unix(slow.at),
        request: args.join(" "),
        node: slow.node.to_string(),
        slot: slow.slot.map(Slot::number),
        client: client.unwrap_or_else(|| "gone".to_owned()),
        here: millis(slow.here),
        at_node: millis(slow.there),
    }
}

/// `/api/history`: the last quarter of an hour, a point every five seconds, the oldest first.
#[derive(Serialize)]
pub(super) struct Past {
    step_seconds: u64,
    /// When the last point was, in Unix time.
    until: u64,
    all: Line,
    nodes: BTreeMap<String, Line>,
}

#[derive(Serialize)]
struct Line {
    requests: Vec<f64>,
    errors: Vec<f64>,
    p50: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
}

impl Line {
    fn of(paces: &[Pace]) -> Line {
        let shown = || paces.iter().map(|pace| Shown::of(*pace));
        Line {
            requests: shown().map(|pace| pace.requests).collect(),
            errors: shown().map(|pace| pace.errors).collect(),
            p50: shown().map(|pace| pace.p50).collect(),
            p99: shown().map(|pace| pace.p99).collect(),
        }
    }
}

pub(super) fn past(view: &AdminView) -> Past {
    let points = view.metrics.history().points();
    Past {
        step_seconds: crate::metrics::history::STEP,
        until: unix(SystemTime::now()),
        all: Line::of(&points.all),
        nodes: points.nodes.iter().map(|(label, paces)| (label.to_string(), Line::of(paces))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_400, "12,400"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((millis(0.0021), millis(0.25)), ("2.1 ms".to_owned(), "250 ms".to_owned()));
    }
}
