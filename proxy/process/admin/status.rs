//! `/api/status`: the proxy and its nodes now, with all that the page shows.

mod clients;
mod nodes;
mod past;
mod requests;
mod verdict;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::Serialize;

pub(super) use self::{clients::client_libraries, past::past};
use self::{
    clients::{TopClient, libraries, top_clients},
    nodes::{NodeStatus, node},
    requests::{HotKey, HotSlot, Large, SlowRequest, hot_keys, hot_slots, large, slow_requests},
    verdict::Trouble,
};
use super::{AdminView, Pages};
use crate::{
    cluster::topology::{NOBODY, Node, Topology},
    metrics::{DatabaseGlance, history::Pace, readable::unix_time},
    protocol::slot::SLOTS,
};

/// How many events are told.
const MOST_EVENTS: usize = 50;
/// Into how many parts the slot map is divided for its heat.
const HEAT_PARTS: usize = 256;

/// The proxy at a glance. Counts are up to a second old.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: &'static str,
    uptime_seconds: u64,
    /// Now, in Unix time.
    time: u64,
    /// All of it in one sentence.
    sentence: String,
    /// How it is: `ok`, `warn` (all slots are served, but some node is lost or slow), `part` (some are not) or `down`.
    state: &'static str,
    ready: bool,
    /// Why it is not ready, or only in part.
    reason: Option<String>,
    epoch: u64,
    slots_assigned: usize,
    /// Slots whose owner can be reached and serves.
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

/// What was absorbed for clients since the start, and what could not be (`given_up`).
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
struct Event {
    id: u64,
    time: u64,
    severity: &'static str,
    kind: &'static str,
    text: String,
}

pub(super) fn of(stage: &Pages, readiness: Result<Option<String>, String>) -> Status {
    let (view, uptime) = (&stage.view, stage.since.elapsed());
    let topology = view.topology.borrow().clone();
    let totals = view.metrics.totals();
    let (glances, present) = (view.metrics.nodes(), view.metrics.history().present());
    let all = view.clients.all();
    let heat = view.metrics.hot().slots();
    let ready = readiness.is_ok();
    let known = view.metrics.databases();
    let trouble_of =
        |(index, (node, _)): (usize, (&Arc<Node>, &str))| Trouble::of(node, index, &topology, &present, &known);
    let troubles: Vec<Trouble> = topology.shown().enumerate().filter_map(trouble_of).collect();
    Status {
        version: crate::VERSION,
        revision: crate::REVISION,
        uptime_seconds: uptime.as_secs(),
        time: unix_time(SystemTime::now()).as_secs(),
        sentence: verdict::sentence(&topology, &readiness, &present, &troubles),
        state: verdict::state(&topology, ready, &troubles),
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
        databases: databases(known, &topology),
        nodes: topology
            .shown()
            .enumerate()
            .map(|place| node(stage, &topology, place, &glances, &present, &troubles))
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
        slow: slow_requests(view, &topology),
    }
}

fn databases(all: Vec<DatabaseGlance>, topology: &Topology) -> Vec<DatabaseStatus> {
    let all = all.into_iter().filter(DatabaseGlance::is_in_use);
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

fn rounded(value: f32) -> f32 {
    (value * 10.0).round() / 10.0
}

impl Shown {
    fn of(pace: Pace) -> Shown {
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
