//! What one cell says: texts, numbers, sizes and times, each of one form.

use std::{
    cmp::Ordering,
    time::{Duration, UNIX_EPOCH},
};

use slotway::metrics::readable::{grouped, time_of_day};

use crate::cli::top::status::Pace;

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

pub fn text(text: impl Into<String>) -> Cell {
    // What a node or a client is called must not move the cursor.
    let text = text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Cell { text, ..Cell::default() }
}

pub fn number(value: f64, shown: String) -> Cell {
    Cell { text: shown, number: Some(value), tone: Tone::Plain }
}

pub fn count(value: impl TryInto<i64>) -> Cell {
    let value = value.try_into().unwrap_or(i64::MAX);
    number(value as f64, grouped(value))
}

impl Cell {
    pub fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }
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

pub fn sized(value: u64) -> Cell {
    number(value as f64, bytes(value))
}

pub fn millis(value: Option<f64>) -> Cell {
    match value {
        Some(value) if value < 10.0 => number(value, format!("{value:.1}")),
        Some(value) => number(value, grouped(value.round() as i64)),
        None => Cell { text: "-".to_owned(), number: Some(-1.0), tone: Tone::Plain },
    }
}

pub fn rate(value: f64) -> Cell {
    if value > 0.0 && value < 10.0 { number(value, format!("{value:.1}")) } else { count(value.round() as i64) }
}

pub fn errors(pace: &Pace) -> Cell {
    rate(pace.errors).toned(if pace.errors > 0.0 { Tone::Bad } else { Tone::Plain })
}

pub fn at(time: u64) -> Cell {
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

/// Numbers the largest first, texts by the alphabet.
pub fn compare(one: &Cell, other: &Cell) -> Ordering {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_true() {
        for (number, text) in [(0, "0"), (1023, "1023"), (1024, "1.0K"), (1_048_576, "1.0M"), (1_610_612_736, "1.5G")] {
            assert_eq!(bytes(number), text);
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (125, "2m05s"), (3700, "1h01m"), (90_000, "1d01h")] {
            assert_eq!(age(seconds), text);
        }
        assert_eq!((fitted("abcdef", 4, false), fitted("7", 3, true)), ("abc~".to_owned(), "  7".to_owned()));
    }
}
