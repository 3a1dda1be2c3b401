//! A view as a table: pure, for the screen and for `--once` alike.

mod cell;
mod views;

use slotway::metrics::readable::grouped;

use self::cell::{bytes, compare, rate};
pub use self::{
    cell::{Cell, Tone, age, fitted},
    views::letter,
};
use super::status::Status;

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

impl Table {
    /// What this view shows of the status.
    pub fn of(status: &Status, view: View, sort: Sort) -> Table {
        let mut table = views::of(status, view);
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
