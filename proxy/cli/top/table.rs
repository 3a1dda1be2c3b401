//! What each view shows, as a table: pure, for the screen and for `--once` alike.

use std::{
    cmp::Ordering,
    time::{Duration, UNIX_EPOCH},
};

use slotway::metrics::events::time_of_day;

use super::status::{Node, Pace, Status};

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    #[default]
    Nodes,
    Slots,
    Clients,
    Keys,
    Slow,
    Large,
    Events,
    Databases,
}

impl View {
    pub const ALL: [View; 8] =
        [View::Nodes, View::Slots, View::Clients, View::Keys, View::Slow, View::Large, View::Events, View::Databases];

    pub fn title(self) -> &'static str {
        match self {
            View::Nodes => "Nodes",
            View::Slots => "Slots",
            View::Clients => "Clients",
            View::Keys => "Keys",
            View::Slow => "Slow",
            View::Large => "Large",
            View::Events => "Events",
            View::Databases => "DBs",
        }
    }

    /// What an empty table means.
    pub fn nothing(self) -> &'static str {
        match self {
            View::Nodes => "no node is known yet",
            View::Slots => "no slot has an owner",
            View::Clients => "no client is connected",
            View::Keys => "no key is asked for often",
            View::Slow => "no request took longer than slow_request",
            View::Large => "no request or reply was large",
            View::Events => "nothing has happened yet",
            View::Databases => "no database of its own is in use",
        }
    }
}

/// How a cell stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
}

/// What a cell says, and what it is sorted by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    pub number: Option<f64>,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub title: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
    /// The most it may take on a screen.
    pub most: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

/// By which column a table is sorted, and which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// `None`: as it comes.
    pub column: Option<usize>,
    pub reversed: bool,
}

const fn left(title: &'static str, most: usize) -> Column {
    Column { title, right: false, most }
}

const fn right(title: &'static str) -> Column {
    Column { title, right: true, most: 12 }
}

fn text(text: impl Into<String>) -> Cell {
    // What a node or a client is called must not move the cursor.
    let text = text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Cell { text, ..Cell::default() }
}

fn number(value: f64, shown: String) -> Cell {
    Cell { text: shown, number: Some(value), tone: Tone::Plain }
}

fn count(value: impl TryInto<i64>) -> Cell {
    let value = value.try_into().unwrap_or(i64::MAX);
    number(value as f64, grouped(value))
}

impl Cell {
    fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }
}

/// `12,400`.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2.5M`; below 1024 the number itself.
pub fn bytes(value: u64) -> String {
    let mut value = value as f64;
    for unit in ["", "K", "M", "G", "T"] {
        if value < 1023.95 || unit == "T" {
            return if unit.is_empty() { format!("{value:.0}") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    String::new()
}

fn sized(value: u64) -> Cell {
    number(value as f64, bytes(value))
}

fn millis(value: Option<f64>) -> Cell {
    match value {
        Some(value) if value < 10.0 => number(value, format!("{value:.1}")),
        Some(value) => number(value, grouped(value.round() as i64)),
        None => Cell { text: "-".to_owned(), number: Some(-1.0), tone: Tone::Plain },
    }
}

fn rate(value: f64) -> Cell {
    if value > 0.0 && value < 10.0 { number(value, format!("{value:.1}")) } else { count(value.round() as i64) }
}

fn errors(pace: &Pace) -> Cell {
    rate(pace.errors).toned(if pace.errors > 0.0 { Tone::Bad } else { Tone::Plain })
}

fn at(time: u64) -> Cell {
    let shown = time_of_day(UNIX_EPOCH + Duration::from_secs(time));
    number(time as f64, shown.trim_end_matches(" UTC").to_owned())
}

/// `45s`, `2m05s`, `3h10m`, `4d02h`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// The letter by which a node stands in the bar of slots.
pub fn letter(index: usize) -> char {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    LETTERS.get(index).map_or('+', |letter| char::from(*letter))
}

/// How a node is, in a word that says it without colour.
fn state(node: &Node, now: u64) -> Cell {
    match node.lost_since {
        Some(since) => text(format!("LOST {}", age(now.saturating_sub(since)))).toned(Tone::Bad),
        None if !node.up => text("LOST").toned(Tone::Bad),
        None if node.slow => text("SLOW").toned(Tone::Warn),
        None => text("up").toned(Tone::Good),
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
            text(node.why.clone().unwrap_or_default()),
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
    let hot = |hot: &super::status::HotSlot| {
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
    let row = |client: &super::status::Client| {
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
    let row = |hot: &super::status::HotKey| {
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
    let row = |slow: &super::status::Slow| {
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
    let row = |large: &super::status::Large| {
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
    let row = |event: &super::status::Event| {
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
    let row = |database: &super::status::Database| {
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

impl Table {
    /// What this view shows of the status.
    pub fn of(status: &Status, view: View, sort: Sort) -> Table {
        let mut table = match view {
            View::Nodes => nodes(status),
            View::Slots => slots(status),
            View::Clients => clients(status),
            View::Keys => keys(status),
            View::Slow => slow(status),
            View::Large => large(status),
            View::Events => events(status),
            View::Databases => databases(status),
        };
        if let Some(column) = sort.column {
            table.rows.sort_by(|one, other| {
                let order = compare(&one[column], &other[column]);
                if sort.reversed { order.reverse() } else { order }
            });
        }
        table
    }

    /// How wide each column is that has room on a screen of this width; the last takes what is left, and text is cut there.
    pub fn widths(&self, room: usize) -> Vec<usize> {
        let wanted = |index: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| row[index].text.chars().count());
            cells.chain([column.title.chars().count()]).max().unwrap_or(0).min(column.most)
        };
        let mut widths = Vec::new();
        let mut left = room;
        for (index, column) in self.columns.iter().enumerate() {
            let gap = usize::from(index > 0);
            let wanted = wanted(index, column);
            // A part of a text says something; a part of a number would be wrong.
            let least = if column.right { wanted } else { wanted.min(12) };
            if left < gap + least {
                break;
            }
            let width = wanted.min(left - gap);
            widths.push(width);
            left -= gap + width;
        }
        widths
    }
}

/// Numbers the largest first, texts by the alphabet.
fn compare(one: &Cell, other: &Cell) -> Ordering {
    match (one.number, other.number) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.text.cmp(&other.text),
    }
}

/// A text in just so many columns: cut, or filled up.
pub fn fitted(text: &str, width: usize, right: bool) -> String {
    let length = text.chars().count();
    if length > width {
        let kept: String = text.chars().take(width.saturating_sub(1)).collect();
        return if width == 0 { kept } else { kept + "~" };
    }
    let room = " ".repeat(width - length);
    if right { room + text } else { text.to_owned() + &room }
}

/// The lines above the table: rates, clients, and what was absorbed.
pub fn summary(status: &Status) -> [String; 2] {
    let Status { pace, clients, absorbed, .. } = status;
    let latency = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} ms"));
    [
        format!(
            "{} requests/s  p50 {}  p99 {}  errors/s {}  slots {} of {}",
            rate(pace.requests).text,
            latency(pace.p50),
            latency(pace.p99),
            rate(pace.errors).text,
            grouped(status.slots_reachable as i64),
            grouped(status.slots as i64),
        ),
        format!(
            "clients {} ({} blocked)  absorbed: {} redirects, {} retries; given up {}  held {}",
            grouped(clients.connected),
            grouped(clients.blocked),
            grouped(absorbed.redirects as i64),
            grouped(absorbed.retries as i64),
            grouped(absorbed.given_up as i64),
            bytes(clients.buffered_bytes),
        ),
    ]
}

/// All of it as lines for a pipe: nothing is cut.
pub fn plain(status: &Status, view: View, sort: Sort) -> String {
    let table = Table::of(status, view, sort);
    let [rates, clients] = summary(status);
    let mut lines = vec![status.sentence.clone(), rates, clients, String::new()];
    if table.rows.is_empty() {
        lines.push(view.nothing().to_owned());
        return lines.join("\n");
    }
    let width = |index: usize| {
        let cells = table.rows.iter().map(|row| row[index].text.chars().count());
        cells.chain([table.columns[index].title.len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&table.columns).zip(&widths);
        let shown: Vec<String> = cells.map(|((text, column), width)| fitted(text, *width, column.right)).collect();
        shown.join("  ").trim_end().to_owned()
    };
    lines.push(line(table.columns.iter().map(|column| column.title).collect()));
    lines.extend(table.rows.iter().map(|row| line(row.iter().map(|cell| cell.text.as_str()).collect())));
    lines.join("\n")
}
