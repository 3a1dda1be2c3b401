//! What each view shows of the status: its columns, and a row for each thing.

use super::{
    super::status::{self, Node, Status},
    Column, Table, View,
    cell::{Cell, Tone, age, at, count, errors, millis, number, rate, sized, text},
};

const fn left(title: &'static str, most: usize) -> Column {
    Column { title, right: false, most }
}

const fn right(title: &'static str) -> Column {
    Column { title, right: true, most: 12 }
}

/// What this view shows of the status, in the order in which it comes.
pub fn of(status: &Status, view: View) -> Table {
    match view {
        View::Nodes => nodes(status),
        View::Slots => slots(status),
        View::Clients => clients(status),
        View::Keys => keys(status),
        View::Slow => slow(status),
        View::Large => large(status),
        View::Events => events(status),
        View::Databases => databases(status),
    }
}

/// The letter by which a node stands in the bar of slots.
pub fn letter(index: usize) -> char {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    LETTERS.get(index).map_or('+', |letter| char::from(*letter))
}

/// How a node is, in a word that says it without colour.
fn state(node: &Node, now: u64) -> Cell {
    let word = |word: &str, since: Option<u64>| match since {
        Some(since) => text(format!("{word} {}", age(now.saturating_sub(since)))),
        None => text(word),
    };
    match (node.up, node.slow) {
        (false, _) => word("LOST", node.lost_since).toned(Tone::Bad),
        (true, true) => word("SLOW", node.slow_since).toned(Tone::Warn),
        (true, false) => text("up").toned(Tone::Good),
    }
}

fn nodes(status: &Status) -> Table {
    let columns = vec![
        left(" ", 1),
        left("node", 30),
        left("role", 8),
        left("state", 12),
        right("slots"),
        right("req/s"),
        right("err/s"),
        right("p50 ms"),
        right("p99 ms"),
        right("flight"),
        right("queue"),
        right("mem"),
        right("lag"),
        right("failed"),
        left("version", 14),
        left("replica of", 30),
        left("why", 60),
    ];
    let row = |(index, node): (usize, &Node)| {
        vec![
            text(letter(index)),
            text(&node.node),
            text(&node.role),
            state(node, status.time),
            count(node.slots as i64),
            rate(node.pace.requests),
            errors(&node.pace),
            millis(node.pace.p50),
            millis(node.pace.p99),
            count(node.inflight),
            sized(node.queued_bytes.max(0) as u64),
            node.memory_bytes.map_or_else(|| text("-"), sized),
            node.lag_bytes.map_or_else(|| text("-"), sized),
            count(node.failed),
            text(node.version.clone().unwrap_or_default()),
            text(node.replica_of.clone().unwrap_or_default()),
            text(node.why.iter().chain(&node.hurts).map(String::as_str).collect::<Vec<_>>().join("; ")),
        ]
    };
    Table { columns, rows: status.nodes.iter().enumerate().map(row).collect() }
}

/// Requests a second of these slots, as far as the parts tell it.
fn heat(status: &Status, first: usize, last: usize) -> f64 {
    let part = status.slots.checked_div(status.heat.len()).unwrap_or(0).max(1);
    let shares = status.heat.iter().enumerate().map(|(index, heat)| {
        let (from, to) = ((index * part).max(first), ((index + 1) * part).min(last + 1));
        heat * to.saturating_sub(from) as f64 / part as f64
    });
    shares.sum()
}

fn slots(status: &Status) -> Table {
    let columns =
        vec![left("slots", 14), right("count"), left("owner", 30), left("state", 44), right("req/s"), left("", 12)];
    let range = |&(first, last, owner): &(usize, usize, i64)| {
        let node = usize::try_from(owner).ok().and_then(|index| status.nodes.get(index));
        let (name, state) = match node {
            None => (text("nobody").toned(Tone::Bad), text("ERRORS: no owner").toned(Tone::Bad)),
            Some(node) if !node.up => (text(&node.node), text("ERRORS: owner lost").toned(Tone::Bad)),
            Some(node) => (text(&node.node), text("served").toned(Tone::Good)),
        };
        let shown = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let heat = heat(status, first, last);
        vec![number(first as f64, shown), count((last - first + 1) as i64), name, state, rate(heat), text("")]
    };
    let moving = |(slot, from, to): &(usize, String, String)| {
        let state = text(format!("MOVING to {to}")).toned(Tone::Warn);
        vec![number(*slot as f64, slot.to_string()), count(1), text(from), state, text(""), text("moving")]
    };
    let hot = |hot: &status::HotSlot| {
        let slot = number(hot.slot as f64, hot.slot.to_string());
        vec![slot, count(1), text(&hot.node), text(""), rate(hot.requests), text("hot")]
    };
    let rows = status.moving.iter().map(moving).chain(status.slot_map.iter().map(range));
    Table { columns, rows: rows.chain(status.hot_slots.iter().map(hot)).collect() }
}

fn clients(status: &Status) -> Table {
    let columns = vec![
        right("id"),
        left("address", 22),
        left("name", 16),
        left("last", 16),
        right("commands"),
        right("held"),
        right("in"),
        right("out"),
        right("age"),
        left("user", 14),
        left("library", 24),
    ];
    let row = |client: &status::Client| {
        vec![
            number(client.id as f64, client.id.to_string()),
            text(&client.address),
            text(&client.name),
            text(&client.command),
            count(client.commands),
            sized(client.held_bytes),
            sized(client.received_bytes),
            sized(client.sent_bytes),
            number(client.age_seconds as f64, age(client.age_seconds)),
            text(&client.user),
            text(&client.library),
        ]
    };
    Table { columns, rows: status.top_clients.iter().map(row).collect() }
}

fn keys(status: &Status) -> Table {
    let columns =
        vec![left("key", 32), right("req/s"), right("writes %"), left("last", 12), right("slot"), left("node", 30)];
    let row = |hot: &status::HotKey| {
        vec![
            text(&hot.key),
            rate(hot.requests),
            number(hot.writes, format!("{:.0}", hot.writes * 100.0)),
            text(&hot.command),
            number(hot.slot as f64, hot.slot.to_string()),
            text(&hot.node),
        ]
    };
    Table { columns, rows: status.hot_keys.iter().map(row).collect() }
}

fn slow(status: &Status) -> Table {
    let columns = vec![
        left("time UTC", 8),
        right("here ms"),
        right("node ms"),
        left("node", 22),
        right("slot"),
        left("client", 21),
        left("request", 100),
    ];
    let row = |slow: &status::Slow| {
        let slot = slow.slot.map_or_else(|| text("-"), |slot| number(slot as f64, slot.to_string()));
        let (here, there) = (millis(Some(slow.here)), millis(Some(slow.at_node)));
        vec![at(slow.time), here, there, text(&slow.node), slot, text(&slow.client), text(&slow.request)]
    };
    Table { columns, rows: status.slow.iter().map(row).collect() }
}

fn large(status: &Status) -> Table {
    let columns = vec![
        left("time UTC", 8),
        left("what", 7),
        right("bytes"),
        right("times"),
        left("command", 12),
        left("node", 22),
        left("key", 60),
    ];
    let row = |large: &status::Large| {
        vec![
            at(large.time),
            text(&large.what),
            sized(large.bytes),
            count(large.times),
            text(&large.command),
            text(&large.node),
            text(&large.key),
        ]
    };
    Table { columns, rows: status.large.iter().map(row).collect() }
}

fn events(status: &Status) -> Table {
    let columns = vec![left("time UTC", 8), left("level", 7), left("what happened", 400)];
    let row = |event: &status::Event| {
        let tone = match event.severity.as_str() {
            "error" => Tone::Bad,
            "warning" | "warn" => Tone::Warn,
            _ => Tone::Plain,
        };
        vec![at(event.time), text(&event.severity).toned(tone), text(&event.text)]
    };
    Table { columns, rows: status.events.iter().map(row).collect() }
}

fn databases(status: &Status) -> Table {
    let columns =
        vec![left("database", 30), right("clients"), right("requests"), right("keys"), right("slot"), left("node", 30)];
    let row = |database: &status::Database| {
        vec![
            text(&database.database),
            count(database.clients),
            count(database.requests),
            database.keys.map_or_else(|| text("-"), count),
            number(database.slot as f64, database.slot.to_string()),
            text(database.node.clone().unwrap_or_else(|| "nobody".to_owned())),
        ]
    };
    Table { columns, rows: status.databases.iter().map(row).collect() }
}
