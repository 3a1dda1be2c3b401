//! What is told of requests that stand out: for hot keys and slots, large and slow ones.

use std::time::Duration;

use serde::Serialize;

use super::rounded;
use crate::{
    cluster::topology::Topology,
    commands::shown::{shown_args, shown_key},
    metrics::{hot, readable::unix_time, slow::Slow},
    process::admin::AdminView,
    protocol::slot::Slot,
};

/// How many of each list are told.
const MOST_HOT: usize = 20;
const MOST_LARGE: usize = 10;
const MOST_SLOW: usize = 20;

#[derive(Serialize)]
pub(super) struct HotKey {
    key: String,
    slot: u16,
    node: String,
    requests: f64,
    /// From 0 to 1.
    writes: f64,
    command: String,
}

#[derive(Serialize)]
pub(super) struct HotSlot {
    slot: usize,
    node: String,
    requests: f32,
}

#[derive(Serialize)]
pub(super) struct Large {
    what: &'static str,
    bytes: usize,
    times: u64,
    command: String,
    key: String,
    node: String,
    time: u64,
}

#[derive(Serialize)]
pub(super) struct SlowRequest {
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

pub(super) fn hot_keys(view: &AdminView, topology: &Topology) -> Vec<HotKey> {
    let shown = |hot: hot::HotKey| {
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

pub(super) fn hot_slots(heat: &[f32], topology: &Topology) -> Vec<HotSlot> {
    let mut hottest: Vec<(usize, f32)> = heat.iter().copied().enumerate().filter(|(_, rate)| *rate >= 0.1).collect();
    hottest.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let shown = |(slot, rate): (usize, f32)| {
        let node = Slot::new(slot as u64).map_or_else(String::new, |slot| owner_of(topology, slot));
        HotSlot { slot, node, requests: rounded(rate) }
    };
    hottest.into_iter().take(MOST_HOT / 2).map(shown).collect()
}

pub(super) fn large(view: &AdminView) -> Vec<Large> {
    let shown = |large: hot::Large| Large {
        what: if large.is_reply { "reply" } else { "request" },
        bytes: large.bytes,
        times: large.times,
        command: large.command,
        key: text_of_key(view, &large.key),
        node: large.node,
        time: unix_time(large.at).as_secs(),
    };
    view.metrics.hot().large().into_iter().take(MOST_LARGE).map(shown).collect()
}

pub(super) fn slow_requests(view: &AdminView, topology: &Topology) -> Vec<SlowRequest> {
    view.metrics.slow().latest(MOST_SLOW).iter().map(|slow| slow_request(view, topology, slow)).collect()
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
        time: unix_time(slow.at).as_secs(),
        request: args.join(" "),
        node: slow.node.to_string(),
        slot: slow.slot.map(Slot::number),
        client: client.unwrap_or_else(|| "gone".to_owned()),
        here: millis(slow.here),
        at_node: millis(slow.there),
    }
}
